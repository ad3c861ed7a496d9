/* Commits: what is dirty becomes the next version of the file. */
#include "base/assert.h"
#include "base/cond.h"
#include "base/log.h"
#include "client/fileio_int.h"

/* Dirty data beyond this share of the memory are committed whatever their age; writers wait at
 * twice of it. */
#define FLUSH_SHARE 4u
/* Cutting a larger file into small blocks would keep fsync(2) waiting for too long. */
#define REBLOCK_BYTES_MAX (64u * MIB)
#define CLOSES_AT_ONCE 256u
#define CLOSES_DELAY_NS (200u * NS_PER_MS) /* fewer wait for more to come */

/* ---- accounting ---- */

void file_account(struct file *f)
{
    struct fileio *io = f->io;
    size_t bytes = f->dirty.bytes + f->frozen.bytes;
    bool dirty = f->dirty_made || f->frozen_busy || f->kept.set != 0, unref = false;
    pthread_mutex_lock(&io->lock);
    bool less = bytes < f->counted_bytes;
    io->dirty_bytes += bytes - f->counted_bytes;
    f->counted_bytes = bytes;
    if (dirty && !f->listed) {
        (void)inode_ref(io->config.inodes, f->inode);
        f->dirty_since_ns = clock_mono_ns(io->config.clock);
        f->prev = io->dirty_files.prev;
        f->next = &io->dirty_files;
        f->prev->next = f;
        io->dirty_files.prev = f;
        f->listed = true;
        pthread_cond_signal(&io->flush);
    } else if (!dirty && f->listed) {
        f->prev->next = f->next;
        f->next->prev = f->prev;
        f->listed = false;
        unref = true;
    }
    if (less)
        pthread_cond_broadcast(&io->room);
    if (io->dirty_bytes > io->config.memory_bytes / FLUSH_SHARE)
        pthread_cond_signal(&io->flush);
    pthread_mutex_unlock(&io->lock);
    if (unref)
        inode_unref(io->config.inodes, f->inode); /* never the last: the caller has one */
}

void file_drop_dirty(struct file *f)
{
    seal_drop(&f->sealing);
    dirty_deinit(&f->dirty);
    f->dirty_made = false;
}

void io_close_later(struct fileio *io, struct oid oid)
{
    pthread_mutex_lock(&io->lock);
    if (io->close_count == io->close_cap) {
        io->close_cap = MAX(64u, io->close_cap * 2);
        io->closes = mem_realloc(io->closes, io->close_cap * sizeof *io->closes);
    }
    io->closes[io->close_count++] = oid;
    if (io->close_count == 1)
        io->closes_due_ns = clock_mono_ns(io->config.clock) + CLOSES_DELAY_NS;
    if (io->close_count == 1 || io->close_count == CLOSES_AT_ONCE)
        pthread_cond_signal(&io->flush);
    pthread_mutex_unlock(&io->lock);
}

/* ---- one commit ---- */

int content_commit(struct fileio *io, struct inode *i, struct commit *c, struct base **ret_base)
{
    uint64_t since = inode_clock_now(io->config.inode_clock);
    struct conn_call call;
    conn_call_init(&call, RPC_COMMIT);
    call.req.oid = c->oid;
    call.req.base = c->base->version;
    call.req.has_content = true;
    call.req.content = *c->content;
    call.req.mtime_ns = c->mtime_ns;
    call.req.flags = c->flags;
    call.req.kept = c->kept.set != 0 ? c->kept : (struct fs_set){0};
    call.bulk = c->riders;
    call.durable = c->durable;
    int rc = conn_call_run(io->config.conn, &call);
    const struct content *now = c->content;
    if (rc == ERR_STALE_BASE)
        now = &call.reply.content;
    if (rc == 0 || rc == ERR_STALE_BASE) {
        bool whole = call.reply.has_attr && (rc == 0 || call.reply.has_content);
        if (rc == ERR_STALE_BASE && dot_equal(call.reply.attr.version, c->base->version))
            whole = false;
        int bad = whole ? base_check(now) : ERR_PEER;
        if (bad == 0) {
            *ret_base = base_new(i, now, call.reply.attr.version);
            inode_attr_changed(i, io->config.inode_clock, &call.reply.attr, since);
            c->durable = (call.reply.flags & REPLY_AHEAD) == 0;
        }
        rc = bad != 0 ? bad : rc;
    }
    conn_call_deinit(&call);
    return rc;
}

struct flush {
    struct fileio *io;
    struct file *f;
    struct base *base; /* referenced: what the frozen layer is applied to */
    int64_t mtime_ns;
    uint32_t flags;
    bool rebased;
    struct base *result;
    bool durable;   /* in: it is to be; out: the commit that succeeded is on disk */
    uint64_t since; /* before it */
};

/* Blocks larger than what is changed at a time are stored again and again for little. When that has
 * cost as much as storing the whole file, it is cut into the smallest blocks: whatever comes then,
 * both together were at most twice what the better choice would have cost. */
bool file_wants_small_blocks(const struct file *f, const struct base *b)
{
    return b->content.kind == CONTENT_MANIFEST && base_size(b) <= REBLOCK_BYTES_MAX &&
           b->manifest.block_bytes > MANIFEST_BLOCK_BYTES_MIN && f->waste >= base_size(b);
}

/* File lock held. */
static void count_waste(struct file *f, const struct content_build *b)
{
    uint64_t written = spans_bytes(&b->layer->data);
    bool same = b->base->content.kind == CONTENT_MANIFEST &&
                b->base->manifest.block_bytes == b->content.block_bytes;
    f->waste = same ? f->waste + (b->stored_bytes - MIN(b->stored_bytes, written)) : 0;
}

/* Builds and commits until the base holds. */
static int commit_frozen(struct flush *fl)
{
    struct fileio *io = fl->io;
    struct file *f = fl->f;
    for (;;) {
        struct base *now = NULL;
        pthread_mutex_lock(&f->lock); /* who writes asks the same */
        bool small_blocks = file_wants_small_blocks(f, fl->base);
        pthread_mutex_unlock(&f->lock);
        struct content_build b = {.base = fl->base,
                                  .layer = &f->frozen,
                                  .small_blocks = small_blocks,
                                  .file = f,
                                  .sealing = f->frozen_sealing};
        int rc = content_build(io, &b);
        if (rc == 0) {
            struct commit c = {.oid = f->inode->oid,
                               .base = fl->base,
                               .content = &b.content,
                               .riders = buf_slice(&b.riders.bulk),
                               .mtime_ns = fl->mtime_ns,
                               .flags = fl->flags,
                               .durable = fl->durable};
            fl->since = inode_clock_now(io->config.inode_clock);
            rc = file_commit(f, &c, &now);
            if (rc == 0) {
                pthread_mutex_lock(&f->lock);
                count_waste(f, &b);
                pthread_mutex_unlock(&f->lock);
                fl->result = now;
                fl->durable = c.durable;
            }
        }
        content_build_deinit(&b);
        if (rc != ERR_STALE_BASE)
            return rc;
        /* Somebody was faster: our ranges go onto what is there now (C1). */
        pthread_mutex_lock(&f->lock);
        base_unref(io, fl->base);
        fl->base = base_ref(io, now);
        file_set_base(f, now);
        seal_drop(&f->frozen_sealing);
        pthread_mutex_unlock(&f->lock);
        fl->rebased = true;
    }
}

bool file_gives_up(const struct file *f, int rc)
{
    enum err_class class = err_class(rc);
    if (class == ERR_CLASS_USER || class == ERR_CLASS_CORRUPT || class == ERR_CLASS_LIMIT)
        return true;
    return f->handles == 0 && class != ERR_CLASS_GONE && class != ERR_CLASS_AGAIN;
}

/* The frozen layer goes back below what was written meanwhile. File lock held. */
static void thaw(struct file *f)
{
    seal_drop(&f->sealing);
    if (f->dirty_made)
        dirty_merge(&f->frozen, &f->dirty);
    f->dirty = f->frozen;
    f->frozen = (struct dirty_layer){0};
    f->dirty_made = true;
}

static void flush_failed(struct flush *fl, int rc)
{
    struct file *f = fl->f;
    log_error(LOG_CLIENT, "commit_failed", "ino=%llu rc=%s: %s", (unsigned long long)f->inode->id,
              err_name(rc), err_text(rc));
    thaw(f);
    f->error = rc;
    f->error_count++;
    if (file_gives_up(f, rc)) {
        file_drop_dirty(f);
        fl->rebased = true; /* the kernel shows what is lost */
    }
}

static void flush_done(struct flush *fl)
{
    struct file *f = fl->f;
    struct dot before = f->base->version;
    dirty_deinit(&f->frozen);
    base_unref(fl->io, f->base);
    f->base = fl->result; /* its size is what the frozen layer had: `dirty` fits as it is */
    f->base_stale = !inode_clock_fresh(fl->io->config.inode_clock, f->inode->oid, fl->since);
    bool pages_right = !fl->rebased && dot_equal(f->pages_version, before);
    f->pages_version = pages_right ? fl->result->version : (struct dot){0};
}

/* Commits the dirty layer. File lock held, no commit in progress; held again on return. */
static int flush_locked(struct file *f, bool *durable)
{
    struct fileio *io = f->io;
    f->frozen = f->dirty;
    f->dirty = (struct dirty_layer){0};
    f->dirty_made = false;
    f->frozen_busy = true;
    f->frozen_sealing = f->sealing;
    f->sealing = NULL;
    struct flush fl = {.io = io,
                       .f = f,
                       .base = base_ref(io, f->base),
                       .mtime_ns = f->mtime_ns,
                       .flags = f->kill_setid ? COMMIT_KILL_SETID : 0,
                       .durable = *durable};
    f->kill_setid = false;
    pthread_mutex_unlock(&f->lock);
    int rc = commit_frozen(&fl);
    pthread_mutex_lock(&f->lock);
    base_unref(io, fl.base);
    if (rc == 0)
        flush_done(&fl);
    else
        flush_failed(&fl, rc);
    seal_drop(&f->frozen_sealing);
    f->frozen_busy = false;
    pthread_cond_broadcast(&f->moved);
    file_account(f);
    if (fl.rebased) {
        f->pages_version = (struct dot){0};
        io->config.pages_changed(io->config.ctx, f->inode);
    }
    *durable = rc == 0 && fl.durable;
    return rc;
}

/* *durable, in: what is committed is to be on disk on return; out: something was, and is. */
static int flush(struct inode *i, bool *durable)
{
    bool sync = *durable;
    *durable = false;
    struct file *f = file_if_any(i);
    if (f == NULL)
        return 0;
    pthread_mutex_lock(&f->lock);
    while (f->frozen_busy || f->kept_busy)
        pthread_cond_wait(&f->moved, &f->lock);
    int rc = 0;
    if (f->dirty_made && dirty_is_clean(&f->dirty)) {
        file_drop_dirty(f);
        file_account(f);
    }
    *durable = sync && (f->dirty_made || f->kept.set != 0);
    if (f->dirty_made)
        rc = flush_locked(f, durable);
    else if (f->kept.set != 0)
        rc = file_kept_send(f, durable);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

int file_flush(struct fileio *io, struct inode *i)
{
    bool durable = false;
    (void)io;
    return flush(i, &durable);
}

int file_sync(struct fileio *io, struct inode *i)
{
    bool durable = true;
    int rc = flush(i, &durable);
    /* A commit that was durable when it was answered stands behind all that the file's shard had
     * been told before: there is nothing left to wait for. */
    if (rc != 0 || durable)
        return rc;
    struct conn_call call;
    conn_call_init(&call, RPC_SYNC);
    call.req.oid = i->oid;
    rc = conn_call_run(io->config.conn, &call);
    conn_call_deinit(&call);
    return rc;
}

/* ---- in the background ---- */

/* The file to commit now, its inode referenced; else when to look again (0: nothing dirty). Lock
 * held. */
static struct file *pick(struct fileio *io, uint64_t now_ns, uint64_t *ret_due_ns)
{
    bool pressed =
        io->waiting > 0 || io->dirty_bytes > io->config.memory_bytes / FLUSH_SHARE || io->stopping;
    uint64_t age_ns = io->config.commit_age_ms * NS_PER_MS;
    struct file *best = NULL;
    *ret_due_ns = 0;
    for (struct file *f = io->dirty_files.next; f != &io->dirty_files; f = f->next) {
        if (f->flushing)
            continue;
        if (*ret_due_ns == 0)
            *ret_due_ns = f->dirty_since_ns + age_ns;
        if (f->ripe || f->dirty_since_ns + age_ns <= now_ns) {
            best = f;
            break;
        }
        if (pressed && (best == NULL || f->counted_bytes > best->counted_bytes))
            best = f;
    }
    if (best == NULL)
        return NULL;
    best->flushing = true;
    best->ripe = false;
    (void)inode_ref(io->config.inodes, best->inode);
    return best;
}

static void flush_one(struct fileio *io, struct file *f)
{
    struct inode *i = f->inode;
    pthread_mutex_unlock(&io->lock);
    (void)file_flush(io, i); /* kept for who closes or syncs the file */
    pthread_mutex_lock(&io->lock);
    f->flushing = false;
    if (f->listed) { /* written again, or failed: to the end of the list */
        f->dirty_since_ns = clock_mono_ns(io->config.clock);
        f->prev->next = f->next;
        f->next->prev = f->prev;
        f->prev = io->dirty_files.prev;
        f->next = &io->dirty_files;
        f->prev->next = f;
        io->dirty_files.prev = f;
    }
    pthread_mutex_unlock(&io->lock);
    inode_unref(io->config.inodes, i);
    pthread_mutex_lock(&io->lock);
}

/* Lock held, and again on return. */
static void send_closes(struct fileio *io)
{
    while (io->close_count > 0) {
        struct oid oids[CLOSES_AT_ONCE];
        size_t n = MIN(io->close_count, CLOSES_AT_ONCE);
        io->close_count -= n;
        memcpy(oids, &io->closes[io->close_count], n * sizeof *oids);
        pthread_mutex_unlock(&io->lock);
        struct conn_call call;
        conn_call_init(&call, RPC_CLOSE);
        call.req.oids = oids;
        call.req.oid_count = (uint32_t)n;
        conn_call_tell(io->config.conn, &call); /* never fails; or we are stopping */
        conn_call_deinit(&call);
        pthread_mutex_lock(&io->lock);
    }
}

void io_send_closes(struct fileio *io)
{
    pthread_mutex_lock(&io->lock);
    send_closes(io);
    pthread_mutex_unlock(&io->lock);
}

static void wait_until(struct fileio *io, uint64_t now_ns, uint64_t due_ns)
{
    if (due_ns == 0) {
        pthread_cond_wait(&io->flush, &io->lock);
        return;
    }
    /* The caller looks again, whatever woke it. */
    (void)cond_wait_ns(&io->flush, &io->lock, due_ns > now_ns ? due_ns - now_ns : 1);
}

void *io_flusher_main(void *arg)
{
    struct fileio *io = arg;
    pthread_mutex_lock(&io->lock);
    while (!io->stopping) {
        uint64_t now_ns = clock_mono_ns(io->config.clock), due_ns;
        if (io->close_count >= CLOSES_AT_ONCE || io->closes_due_ns <= now_ns)
            send_closes(io);
        struct file *f = pick(io, now_ns, &due_ns);
        if (io->close_count > 0 && (due_ns == 0 || io->closes_due_ns < due_ns))
            due_ns = io->closes_due_ns;
        if (f != NULL)
            flush_one(io, f);
        else if (io->close_count < CLOSES_AT_ONCE && !io->stopping)
            wait_until(io, now_ns, due_ns);
    }
    pthread_mutex_unlock(&io->lock);
    return NULL;
}

int fileio_sync_all(struct fileio *io)
{
    int first = 0;
    size_t count;
    struct inode **all = fileio_files(io, &count);
    for (size_t i = 0; i < count; i++) {
        int rc = file_is_dirty(all[i]) ? file_flush(io, all[i]) : 0;
        first = first == 0 ? rc : first;
        inode_unref(io->config.inodes, all[i]);
    }
    mem_free(all);
    io_send_closes(io);
    return first;
}
