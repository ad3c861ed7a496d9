/* Files: opening, closing, their committed base, start and end of the data path. */
#include "client/fileio.h"

#include "base/assert.h"
#include "base/log.h"
#include "client/cache_pages.h"
#include "client/fileio_int.h"

#define PAGES_SHARE 8u /* of the memory, kept to be written to again */
#define FLUSHER_COUNT 2u
#define IDLE_MAX 1024u
#define NEED_BASE_TRIES 8u

/* ---- the whole ---- */

static void inode_leaves(void *ctx, struct oid oid);
static bool file_may_rest(void *ctx, struct inode *i);
static void file_rested(void *ctx, struct file *f);

int fileio_new(struct fileio **ret, const struct fileio_config *config)
{
    struct fileio *io = mem_calloc(1, sizeof *io);
    io->config = *config;
    io->config.fs_key = NULL;
    io->config.idle_max = config->idle_max > 0 ? config->idle_max : IDLE_MAX;
    fs_keys_derive(config->fs_key, &io->keys);
    pthread_mutex_init(&io->lock, NULL);
    pthread_cond_init(&io->work, NULL);
    pthread_cond_init(&io->flush, NULL);
    pthread_cond_init(&io->room, NULL);
    io->tasks_last = &io->tasks;
    io->dirty_files.next = io->dirty_files.prev = &io->dirty_files;
    io->idle.idle_next = io->idle.idle_prev = &io->idle;
    pthread_mutex_init(&io->files_lock, NULL);
    io->files.all_next = io->files.all_prev = &io->files;
    inode_table_rest(config->inodes, &(struct inode_rest){.leaves = inode_leaves,
                                                          .may_rest = file_may_rest,
                                                          .rested = file_rested,
                                                          .ctx = io});
    io->blocks = block_cache_new(config->memory_bytes / 2);
    io->heads = head_cache_new();
    pages_limit(MIN(PAGES_KEPT_MAX, config->memory_bytes / PAGES_SHARE / PAGES_BYTES));
    struct pipeline *probe = NULL;
    int rc = pipeline_new(&probe, &io->keys, CHUNK_CIPHER_AUTO);
    pipeline_free(probe);
    for (unsigned i = 0; i < NODE_STRIPES; i++) {
        pthread_mutex_init(&io->stripes[i].lock, NULL);
        if (rc == 0)
            rc = node_cache_new(&io->stripes[i].nodes);
    }
    io->threads = mem_calloc(config->worker_count + FLUSHER_COUNT, sizeof *io->threads);
    while (rc == 0 && io->thread_count < config->worker_count + FLUSHER_COUNT) {
        bool worker = io->thread_count < config->worker_count;
        rc = err_from_errno(pthread_create(&io->threads[io->thread_count], NULL,
                                           worker ? io_worker_main : io_flusher_main, io));
        io->thread_count += rc == 0;
    }
    if (rc != 0) {
        fileio_free(io);
        return rc;
    }
    *ret = io;
    return 0;
}

void fileio_stop(struct fileio *io)
{
    pthread_mutex_lock(&io->lock);
    io->stopping = true;
    pthread_cond_broadcast(&io->work);
    pthread_cond_broadcast(&io->flush);
    pthread_cond_broadcast(&io->room);
    pthread_mutex_unlock(&io->lock);
    for (unsigned i = 0; i < io->thread_count; i++)
        pthread_join(io->threads[i], NULL);
    io->thread_count = 0;
    io_send_closes(io);
    /* Files that could not be committed let go of their inodes. */
    for (;;) {
        pthread_mutex_lock(&io->lock);
        struct file *f = io->dirty_files.next;
        pthread_mutex_unlock(&io->lock);
        if (f == &io->dirty_files)
            break;
        log_error(LOG_CLIENT, "uncommitted_lost", "ino=%llu", (unsigned long long)f->inode->id);
        pthread_mutex_lock(&f->lock);
        file_drop_dirty(f);
        f->kept.set = 0;
        struct inode *i = f->inode;
        pthread_mutex_unlock(&f->lock);
        struct inode *held = inode_ref(io->config.inodes, i);
        pthread_mutex_lock(&f->lock);
        file_account(f);
        pthread_mutex_unlock(&f->lock);
        inode_unref(io->config.inodes, held);
    }
}

void fileio_free(struct fileio *io)
{
    if (io == NULL)
        return;
    fileio_stop(io);
    while (io->tasks != NULL)
        io_worker_main(io); /* runs what is queued and returns: we are stopping */
    for (unsigned i = 0; i < NODE_STRIPES; i++) {
        node_cache_free(io->stripes[i].nodes);
        pthread_mutex_destroy(&io->stripes[i].lock);
    }
    block_cache_free(io->blocks);
    head_cache_free(io->heads);
    pages_limit(0);
    mem_free(io->threads);
    mem_free(io->closes);
    pthread_cond_destroy(&io->room);
    pthread_cond_destroy(&io->flush);
    pthread_cond_destroy(&io->work);
    pthread_mutex_destroy(&io->files_lock);
    pthread_mutex_destroy(&io->lock);
    fs_keys_wipe(&io->keys);
    mem_free(io);
}

/* ---- files ---- */

static struct file *file_new(struct fileio *io, struct inode *i)
{
    struct file *f = mem_calloc(1, sizeof *f);
    f->io = io;
    f->inode = i;
    f->id = i->id;
    f->pages_version = i->pages_version;
    f->pages_generation = i->pages_generation;
    pthread_mutex_init(&f->open_lock, NULL);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->moved, NULL);
    pthread_mutex_lock(&io->files_lock);
    f->all_prev = io->files.all_prev;
    f->all_next = &io->files;
    f->all_prev->all_next = f;
    io->files.all_prev = f;
    io->file_count++;
    pthread_mutex_unlock(&io->files_lock);
    return f;
}

struct file *file_of(struct fileio *io, struct inode *i)
{
    pthread_mutex_lock(&i->known->lock);
    if (i->known->file == NULL)
        i->known->file = file_new(io, i);
    struct file *f = i->known->file;
    pthread_mutex_unlock(&i->known->lock);
    return f;
}

struct file *file_if_any(struct inode *i)
{
    pthread_mutex_lock(&i->known->lock);
    struct file *f = i->known->file;
    pthread_mutex_unlock(&i->known->lock);
    return f;
}

struct inode **fileio_files(struct fileio *io, size_t *ret_count)
{
    /* Records may go meanwhile, and inodes with them: their ids are good for asking. */
    pthread_mutex_lock(&io->files_lock);
    uint64_t *ids = mem_calloc(io->file_count + 1, sizeof *ids);
    size_t count = 0, found = 0;
    for (const struct file *f = io->files.all_next; f != &io->files; f = f->all_next)
        ids[count++] = f->id;
    pthread_mutex_unlock(&io->files_lock);
    struct inode **all = mem_calloc(count + 1, sizeof(struct inode *));
    for (size_t k = 0; k < count; k++) {
        all[found] = inode_table_get(io->config.inodes, ids[k]);
        found += all[found] != NULL;
    }
    mem_free(ids);
    *ret_count = found;
    return all;
}

static void idle_remove(struct file *f)
{
    if (!f->idle)
        return;
    f->idle_prev->idle_next = f->idle_next;
    f->idle_next->idle_prev = f->idle_prev;
    f->idle = false;
    f->io->idle_count--;
}

static void idle_add(struct file *f)
{
    struct fileio *io = f->io;
    if (f->idle)
        return;
    f->idle_prev = io->idle.idle_prev;
    f->idle_next = &io->idle;
    f->idle_prev->idle_next = f;
    io->idle.idle_prev = f;
    f->idle = true;
    io->idle_count++;
}

/* Nobody uses it, nor finds it any more. */
static void file_free(struct file *f)
{
    struct fileio *io = f->io;
    ASSERT_EQ(f->handles, 0);
    ASSERT(!f->listed && !f->idle);
    pthread_mutex_lock(&io->files_lock);
    f->all_prev->all_next = f->all_next;
    f->all_next->all_prev = f->all_prev;
    io->file_count--;
    pthread_mutex_unlock(&io->files_lock);
    base_unref(io, f->base);
    file_drop_dirty(f);
    dirty_deinit(&f->frozen);
    pthread_cond_destroy(&f->moved);
    pthread_mutex_destroy(&f->lock);
    pthread_mutex_destroy(&f->open_lock);
    mem_free(f);
}

void file_evict(struct fileio *io, struct inode *i)
{
    struct file *f = i->known == NULL ? NULL : i->known->file;
    if (f == NULL)
        return;
    pthread_mutex_lock(&io->lock);
    idle_remove(f);
    pthread_mutex_unlock(&io->lock);
    if (f->held == FILE_HELD)
        io_close_later(io, i->oid);
    i->known->file = NULL;
    file_free(f);
}

static void inode_leaves(void *ctx, struct oid oid)
{
    struct fileio *io = ctx;
    inode_clock_hit_forgotten(io->config.inode_clock, oid);
}

/* Nobody refers to the inode, so nobody has the file's lock, and what is looked at does not change.
 */
static bool file_may_rest(void *ctx, struct inode *i)
{
    (void)ctx;
    const struct file *f = i->known->file;
    if (f->handles > 0 || f->held == FILE_HELD || f->idle || f->listed || f->dirty_made ||
        f->frozen_busy || f->kept_busy || f->kept.set != 0)
        return false;
    i->pages_version = f->pages_version;
    i->pages_generation = f->pages_generation;
    return true;
}

static void file_rested(void *ctx, struct file *f)
{
    (void)ctx;
    file_free(f);
}

/* ---- the base ---- */

uint64_t file_size_locked(const struct file *f)
{
    if (f->dirty_made)
        return f->dirty.size;
    if (f->frozen_busy)
        return f->frozen.size;
    return f->base == NULL ? 0 : base_size(f->base);
}

void file_set_base(struct file *f, struct base *b)
{
    seal_drop(&f->sealing); /* appends may move */
    if (f->frozen_busy)
        dirty_rebase(&f->frozen, base_size(b));
    if (f->dirty_made)
        dirty_rebase(&f->dirty, f->frozen_busy ? f->frozen.size : base_size(b));
    base_unref(f->io, f->base);
    f->base = b;
}

/* A reply with attributes and content, to a request sent after `since`. */
static int take_content(struct file *f, const struct fs_reply *r, uint64_t since)
{
    if (!r->has_content || !r->has_attr)
        return ERR_PEER;
    int rc = base_check(&r->content);
    if (rc != 0)
        return rc;
    if (f->frozen_busy) /* being committed onto the old one: ask again after that */
        return 0;
    if (f->base == NULL || !dot_equal(f->base->version, r->attr.version))
        file_set_base(f, base_new(f->inode, &r->content, r->attr.version));
    f->base_stale = !inode_clock_fresh(f->io->config.inode_clock, f->inode->oid, since);
    return 0;
}

int file_need_base(struct file *f)
{
    struct fileio *io = f->io;
    for (unsigned tries = 0; f->base == NULL || f->base_stale; tries++) {
        if (f->held == FILE_LOST)
            return ERR_STALE;
        if (f->frozen_busy) {
            flight_begin(io->config.flight, f->inode->id);
            pthread_cond_wait(&f->moved, &f->lock);
            flight_end(io->config.flight, f->inode->id);
            continue;
        }
        /* A file that is changed all the time elsewhere is read as it was a moment ago. */
        if (tries >= NEED_BASE_TRIES && f->base != NULL)
            return 0;
        pthread_mutex_unlock(&f->lock);
        uint64_t since = inode_clock_now(io->config.inode_clock);
        struct conn_call call;
        conn_call_init(&call, RPC_CONTENT);
        call.req.oid = f->inode->oid;
        int rc = conn_call_run(io->config.conn, &call);
        if (rc == 0 && call.reply.has_attr)
            inode_attr_store(f->inode, &call.reply.attr, since);
        pthread_mutex_lock(&f->lock);
        if (rc == 0)
            rc = take_content(f, &call.reply, since);
        conn_call_deinit(&call);
        if (rc != 0)
            return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
    }
    return 0;
}

void file_invalidate(struct fileio *io, struct inode *i)
{
    (void)io;
    pthread_mutex_lock(&i->known->lock);
    struct file *f = i->known->file;
    if (f == NULL && !oid_is_dir(i->oid))
        i->pages_version = (struct dot){0};
    pthread_mutex_unlock(&i->known->lock);
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    f->base_stale = true;
    f->pages_version = (struct dot){0};
    pthread_mutex_unlock(&f->lock);
}

bool file_check(struct fileio *io, struct inode *i, struct dot version)
{
    (void)io;
    struct file *f = file_if_any(i);
    if (f == NULL)
        return false;
    pthread_mutex_lock(&f->lock);
    bool other = f->base != NULL && !f->frozen_busy && !dot_equal(f->base->version, version);
    if (other) {
        f->base_stale = true;
        f->pages_version = (struct dot){0};
    }
    pthread_mutex_unlock(&f->lock);
    return other;
}

/* ---- open and close ---- */

static struct open_file *handle_new(struct fileio *io, struct file *f, int flags)
{
    struct open_file *h = mem_calloc(1, sizeof *h);
    h->inode = inode_ref(io->config.inodes, f->inode);
    h->flags = flags;
    h->error_seen = f->error_count;
    h->read_next = UINT64_MAX;
    pthread_mutex_init(&h->lock, NULL);
    f->handles++;
    pthread_mutex_lock(&io->lock);
    h->id = ++io->handles_made;
    idle_remove(f);
    pthread_mutex_unlock(&io->lock);
    return h;
}

/* Opens at the site when it is not, or asks for the content when that may be old. open_lock held.
 */
static int open_at_site(struct fileio *io, struct file *f, int flags)
{
    pthread_mutex_lock(&f->lock);
    bool held = f->held == FILE_HELD;
    bool known = held && f->base != NULL && !f->base_stale;
    pthread_mutex_unlock(&f->lock);
    if (known)
        return 0;
    uint64_t since = inode_clock_now(io->config.inode_clock);
    struct conn_call call;
    conn_call_init(&call, held ? RPC_CONTENT : RPC_OPEN);
    call.req.oid = f->inode->oid;
    call.req.flags = (uint32_t)flags;
    int rc = conn_call_run(io->config.conn, &call);
    if (rc == 0) {
        if (call.reply.has_attr)
            inode_attr_store(f->inode, &call.reply.attr, since);
        pthread_mutex_lock(&f->lock);
        f->held = FILE_HELD;
        rc = take_content(f, &call.reply, since);
        pthread_mutex_unlock(&f->lock);
    }
    conn_call_deinit(&call);
    return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
}

int file_open(struct fileio *io, struct inode *i, int flags, struct open_file **ret, bool *ret_keep)
{
    struct file *f = file_of(io, i);
    pthread_mutex_lock(&f->open_lock);
    uint32_t generation = inode_clock_generation(io->config.inode_clock);
    int rc = open_at_site(io, f, flags);
    if (rc == 0) {
        pthread_mutex_lock(&f->lock);
        bool known = f->base != NULL && !f->base_stale && !dot_is_none(f->base->version);
        *ret_keep = known && dot_equal(f->pages_version, f->base->version) &&
                    f->pages_generation == generation;
        f->pages_version = known ? f->base->version : (struct dot){0};
        f->pages_generation = generation;
        *ret = handle_new(io, f, flags);
        pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&f->open_lock);
    return rc;
}

struct open_file *file_created(
    struct fileio *io, struct inode *i, int flags, const struct fs_reply *reply, uint64_t since)
{
    struct file *f = file_of(io, i);
    uint32_t generation = inode_clock_generation(io->config.inode_clock);
    pthread_mutex_lock(&f->open_lock);
    pthread_mutex_lock(&f->lock);
    if (f->held == FILE_HELD)
        io_close_later(io, i->oid); /* one is enough */
    f->held = FILE_HELD;
    /* Asked for when needed, if there is something else or it was not known here meanwhile. */
    if (take_content(f, reply, since) != 0 ||
        !inode_clock_reply_fresh(io->config.inode_clock, i->oid, since))
        f->base_stale = true;
    if (f->base != NULL && !f->base_stale) {
        f->pages_version = f->base->version;
        f->pages_generation = generation;
    }
    struct open_file *h = handle_new(io, f, flags);
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&f->open_lock);
    return h;
}

/* Too many files are held open for nobody: closes the one that was not used for longest. */
static void trim_idle(struct fileio *io)
{
    pthread_mutex_lock(&io->lock);
    struct inode *i = NULL;
    if (io->idle_count > io->config.idle_max) {
        /* Referred to before it leaves the ring, from when on its record may go. */
        struct file *f = io->idle.idle_next;
        i = inode_table_get(io->config.inodes, f->id);
        idle_remove(f);
    }
    pthread_mutex_unlock(&io->lock);
    if (i == NULL)
        return;
    struct file *f = file_of(io, i);
    pthread_mutex_lock(&f->open_lock);
    pthread_mutex_lock(&f->lock);
    bool drop = f->handles == 0 && f->held == FILE_HELD && f->kept.set == 0;
    if (drop)
        f->held = FILE_CLOSED;
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&f->open_lock);
    if (drop)
        io_close_later(io, i->oid);
    inode_unref(io->config.inodes, i);
}

void file_close(struct fileio *io, struct open_file *h)
{
    struct inode *i = h->inode;
    struct file *f = file_of(io, i);
    int rc = file_flush(io, i);
    pthread_mutex_lock(&f->open_lock);
    pthread_mutex_lock(&f->lock);
    ASSERT(f->handles > 0);
    f->handles--;
    if (f->handles == 0) {
        bool left = f->dirty_made || f->kept.set != 0;
        f->may_keep = false;
        if (rc != 0 && left && !f->frozen_busy && err_class(rc) != ERR_CLASS_GONE) {
            log_error(LOG_CLIENT, "uncommitted_lost", "ino=%llu rc=%s", (unsigned long long)i->id,
                      err_name(rc));
            file_drop_dirty(f);
            f->kept.set = 0;
            file_account(f);
        }
        pthread_mutex_lock(&io->lock);
        if (f->held == FILE_HELD)
            idle_add(f);
        pthread_mutex_unlock(&io->lock);
    }
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&f->open_lock);
    pthread_mutex_destroy(&h->lock);
    mem_free(h);
    trim_idle(io);
    inode_unref(io->config.inodes, i);
}

void file_reopen(struct fileio *io, struct inode *i)
{
    struct file *f = file_if_any(i);
    if (f == NULL)
        return;
    /* Not under open_lock: who holds it may be waiting for the reconnect that this is a part of. */
    pthread_mutex_lock(&f->lock);
    bool held = f->held == FILE_HELD;
    f->base_stale = true;
    f->pages_version = (struct dot){0};
    seal_drop(&f->sealing); /* it may have been a while, for a site that collects garbage */
    pthread_mutex_unlock(&f->lock);
    if (!held || conn_makes_again(io->config.conn, i->oid))
        return;
    struct conn_call call;
    conn_call_init(&call, RPC_OPEN);
    call.req.oid = i->oid;
    call.req.flags = OPEN_AGAIN;
    int rc = conn_call_run(io->config.conn, &call);
    conn_call_deinit(&call);
    if (rc == 0 || (rc != ERR_STALE && rc != ERR_NOT_FOUND))
        return;
    log_warn(LOG_CLIENT, "file_gone", "ino=%llu: it was removed while the site was away",
             (unsigned long long)i->id);
    pthread_mutex_lock(&f->lock);
    f->held = FILE_LOST;
    pthread_mutex_unlock(&f->lock);
}

void file_made_again(struct fileio *io, struct inode *i, struct oid oid)
{
    struct file *f = i == NULL ? NULL : file_if_any(i);
    bool held = false;
    if (f != NULL) {
        pthread_mutex_lock(&f->lock);
        held = f->held == FILE_HELD;
        pthread_mutex_unlock(&f->lock);
    }
    if (!held)
        io_close_later(io, oid); /* it was closed since */
}

void file_lost(struct inode *i, int rc)
{
    struct file *f = file_if_any(i);
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    f->error = rc;
    f->error_count++;
    f->base_stale = true;
    pthread_mutex_unlock(&f->lock);
}

/* ---- attributes and errors ---- */

bool file_is_dirty_locked(const struct file *f)
{
    return f->frozen_busy || (f->dirty_made && !dirty_is_clean(&f->dirty));
}

bool file_is_dirty(struct inode *i)
{
    struct file *f = file_if_any(i);
    if (f == NULL)
        return false;
    pthread_mutex_lock(&f->lock);
    bool dirty = file_is_dirty_locked(f) || f->kept.set != 0;
    pthread_mutex_unlock(&f->lock);
    return dirty;
}

static void kept_overlay(const struct fs_set *s, struct fs_attr *a)
{
    if ((s->set & SET_MODE) != 0)
        a->mode = (a->mode & ~07777u) | s->mode;
    if ((s->set & SET_UID) != 0)
        a->uid = s->uid;
    if ((s->set & SET_GID) != 0)
        a->gid = s->gid;
    if ((s->set & SET_ATIME) != 0)
        a->atime_ns = s->atime_ns;
    if ((s->set & SET_MTIME) != 0)
        a->mtime_ns = s->mtime_ns;
    a->ctime_ns = MAX(a->ctime_ns, s->ctime_ns);
}

bool file_overlay(struct inode *i, struct fs_attr *a)
{
    struct file *f = file_if_any(i);
    if (f == NULL)
        return false;
    pthread_mutex_lock(&f->lock);
    bool dirty = file_is_dirty_locked(f), kept = f->kept.set != 0;
    if (dirty) {
        a->size = file_size_locked(f);
        a->mtime_ns = f->mtime_ns;
        a->ctime_ns = MAX(f->mtime_ns, a->ctime_ns);
        uint64_t written = spans_bytes(&f->dirty.data) + spans_bytes(&f->frozen.data);
        a->blocks = MAX(a->blocks, (MIN(written, a->size) + 511) / 512);
    }
    if (kept)
        kept_overlay(&f->kept, a);
    pthread_mutex_unlock(&f->lock);
    return dirty || kept;
}

uint64_t file_size(struct inode *i, uint64_t committed_size)
{
    struct fs_attr a = {.size = committed_size};
    (void)file_overlay(i, &a); /* not dirty: a.size stays */
    return a.size;
}

int file_error(struct open_file *h)
{
    struct file *f = file_if_any(h->inode);
    pthread_mutex_lock(&f->lock);
    int rc = h->error_seen == f->error_count ? 0 : f->error;
    h->error_seen = f->error_count;
    pthread_mutex_unlock(&f->lock);
    return rc;
}
