/* Reading, writing, cutting, seeking and cloning. */
#include <fcntl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "client/fileio_int.h"

#define AHEAD_MIN_BYTES (512u * 1024u)
#define AHEAD_MAX_BYTES (8u * 1024u * 1024u)
#define PARTS_BYTES_MAX (128u * 1024u) /* who jumps and reads more than this gets whole blocks */

/* Makes the layer that takes writes. File lock held. `fresh`: the committed length must be right.
 */
static int need_dirty(struct file *f, bool fresh)
{
    int rc = 0;
    if (f->held == FILE_LOST)
        return ERR_STALE;
    if (f->base == NULL || fresh)
        rc = file_need_base(f);
    if (rc == 0 && !f->dirty_made) {
        dirty_init(&f->dirty, f->frozen_busy ? f->frozen.size : base_size(f->base));
        f->dirty_made = true;
    }
    return rc;
}

/* Something changed: time, rights, memory. File lock held. */
static void touched(struct file *f, unsigned flags)
{
    f->mtime_ns = (int64_t)clock_wall_ns(f->io->config.clock);
    f->kept.set &= ~SET_MTIME; /* that was before this */
    if ((flags & FILE_WRITE_KILL) != 0)
        f->kill_setid = true;
    file_account(f);
}

/* Too much is dirty in this mount: waits until some is committed. The kernel may hold the page that
 * is being written, so invalidations of this file must not wait for us (C3). */
static void throttle(struct fileio *io, struct inode *i)
{
    pthread_mutex_lock(&io->lock);
    if (io->dirty_bytes > io->config.memory_bytes / 2 && !io->stopping) {
        io->waiting++;
        flight_begin(io->config.flight, i->id);
        while (io->dirty_bytes > io->config.memory_bytes / 2 && !io->stopping) {
            pthread_cond_signal(&io->flush);
            pthread_cond_wait(&io->room, &io->lock);
        }
        flight_end(io->config.flight, i->id);
        io->waiting--;
    }
    pthread_mutex_unlock(&io->lock);
}

/* One of both is used. */
struct write_bytes {
    struct slice flat;
    uint8_t **pages; /* NULL: flat */
    size_t len;
};

static void
write_to(struct dirty_layer *l, uint64_t at, const struct write_bytes *data, bool append)
{
    enum dirty_write_kind kind = append ? DIRTY_WRITE_APPEND : DIRTY_WRITE_AT;
    if (data->pages != NULL)
        dirty_write_pages(l, at, data->pages, data->len, kind);
    else
        dirty_write(l, at, data->flat, kind);
}

static int write_some(struct fileio *io,
                      struct inode *i,
                      uint64_t offset,
                      const struct write_bytes *data,
                      unsigned flags)
{
    bool append = (flags & FILE_WRITE_APPEND) != 0;
    struct file *f = file_of(io, i);
    throttle(io, i);
    pthread_mutex_lock(&f->lock);
    int rc = need_dirty(f, append);
    uint64_t at = append && rc == 0 ? f->dirty.size : offset;
    if (rc == 0 && (at > LIMIT_FILE_BYTES || data->len > LIMIT_FILE_BYTES - at))
        rc = ERR_FILE_TOO_BIG;
    if (rc == 0) {
        write_to(&f->dirty, at, data, append);
        if (data->len > 0)
            seal_written(f, at, at + data->len);
        touched(f, flags);
        if (at != offset)
            f->pages_version = (struct dot){0};
    }
    pthread_mutex_unlock(&f->lock);
    if (rc == 0 && at != offset) /* the kernel believed in another end */
        io->config.pages_changed(io->config.ctx, i);
    return rc;
}

int file_write(
    struct fileio *io, struct inode *i, uint64_t offset, struct slice data, unsigned flags)
{
    return write_some(io, i, offset, &(struct write_bytes){.flat = data, .len = data.len}, flags);
}

int file_write_pages(
    struct fileio *io, struct inode *i, uint64_t offset, struct file_pages data, unsigned flags)
{
    return write_some(io, i, offset, &(struct write_bytes){.pages = data.at, .len = data.len},
                      flags);
}

int file_truncate(struct fileio *io, struct inode *i, uint64_t size, unsigned flags)
{
    struct file *f = file_of(io, i);
    if (size > LIMIT_FILE_BYTES)
        return ERR_FILE_TOO_BIG;
    pthread_mutex_lock(&f->lock);
    int rc = need_dirty(f, false);
    if (rc == 0) {
        seal_drop(&f->sealing);
        dirty_truncate(&f->dirty, size);
        touched(f, flags);
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

int file_extend(struct fileio *io, struct inode *i, uint64_t size)
{
    struct file *f = file_of(io, i);
    if (size > LIMIT_FILE_BYTES)
        return ERR_FILE_TOO_BIG;
    pthread_mutex_lock(&f->lock);
    int rc = need_dirty(f, true);
    if (rc == 0 && size > f->dirty.size) {
        dirty_extend(&f->dirty, size);
        touched(f, 0);
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

int file_zero(struct fileio *io, struct inode *i, uint64_t from, uint64_t to, bool extend)
{
    struct file *f = file_of(io, i);
    if (to > LIMIT_FILE_BYTES)
        return ERR_FILE_TOO_BIG;
    pthread_mutex_lock(&f->lock);
    int rc = need_dirty(f, true);
    if (rc == 0) {
        seal_drop(&f->sealing);
        if (extend)
            dirty_extend(&f->dirty, to);
        dirty_zero(&f->dirty, from, MIN(to, f->dirty.size));
        touched(f, 0);
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* ---- reading ---- */

/* Asks for what a sequential reader will want next. True: this one reads here and there. */
static bool read_ahead(struct fileio *io, struct open_file *h, struct base *b, struct span at)
{
    pthread_mutex_lock(&h->lock);
    bool sequential = at.from == h->read_next || (at.from == 0 && h->read_next == UINT64_MAX);
    uint64_t from = 0, to = 0;
    bool jumps = false;
    if (sequential) {
        h->ahead_window =
            h->ahead_window == 0 ? AHEAD_MIN_BYTES : MIN(h->ahead_window * 2, AHEAD_MAX_BYTES);
        from = MAX(at.to, h->ahead_to);
        to = at.to + h->ahead_window;
        /* In strides of half a window: not a task for every small read. */
        if (to < from + h->ahead_window / 2)
            to = from;
        h->ahead_to = MAX(h->ahead_to, to);
    } else if (at.from < h->read_next || at.from > h->ahead_to) {
        h->ahead_window = 0;
        h->ahead_to = 0;
        jumps = true;
    }
    h->read_next = at.to;
    pthread_mutex_unlock(&h->lock);
    if (from < to)
        base_read_ahead(io, b, from, to);
    return jumps;
}

/* One moment's picture of what is asked for: what the layers have of it is copied out, `gaps` are
 * left to the base, referenced. */
static int read_begin(
    struct file *f, uint64_t offset, size_t *len, uint8_t *out, struct spans *gaps, struct base **b)
{
    pthread_mutex_lock(&f->lock);
    int rc = file_need_base(f);
    if (rc == 0) {
        uint64_t size = file_size_locked(f);
        *len = offset >= size ? 0 : (size_t)MIN(*len, size - offset);
        spans_add(gaps, offset, offset + *len);
        if (f->dirty_made)
            dirty_read(&f->dirty, offset, out, gaps);
        if (f->frozen_busy)
            dirty_read(&f->frozen, offset, out, gaps);
        *b = base_ref(f->io, f->base);
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

static enum base_reading reading_of(struct fileio *io,
                                    struct open_file *h,
                                    struct base *b,
                                    uint64_t offset,
                                    size_t len,
                                    bool *ret_jumps)
{
    *ret_jumps = len > 0 && read_ahead(io, h, b, (struct span){.from = offset, .to = offset + len});
    return *ret_jumps && len <= PARTS_BYTES_MAX ? BASE_PARTS : BASE_BLOCKS;
}

int file_read(struct fileio *io,
              struct open_file *h,
              uint64_t offset,
              uint8_t *out,
              size_t len,
              size_t *ret_len)
{
    struct spans gaps = {0};
    struct base *b = NULL;
    int rc = read_begin(file_of(io, h->inode), offset, &len, out, &gaps, &b);
    if (rc != 0)
        return rc;
    bool jumps;
    enum base_reading how = reading_of(io, h, b, offset, len, &jumps);
    for (size_t i = 0; rc == 0 && i < gaps.count; i++)
        rc = base_read(io, b, gaps.at[i].from, out + (gaps.at[i].from - offset),
                       (size_t)(gaps.at[i].to - gaps.at[i].from), how);
    base_unref(io, b);
    spans_deinit(&gaps);
    if (rc == 0)
        *ret_len = len;
    return rc;
}

/* The base when nothing but it is to be read, and how much; else NULL. */
static struct base *view_base(struct fileio *io, struct open_file *h, uint64_t offset, size_t *len)
{
    struct file *f = file_of(io, h->inode);
    struct base *b = NULL;
    pthread_mutex_lock(&f->lock);
    bool plain = !f->dirty_made && !f->frozen_busy && f->base != NULL && !f->base_stale &&
                 f->base->content.kind == CONTENT_MANIFEST && *len > 0 &&
                 *len <= FILE_VIEW_BYTES_MAX && offset < f->base->manifest.size;
    if (plain) {
        *len = (size_t)MIN(*len, f->base->manifest.size - offset);
        b = base_ref(io, f->base);
    }
    pthread_mutex_unlock(&f->lock);
    return b;
}

int file_read_view(
    struct fileio *io, struct open_file *h, uint64_t offset, size_t len, struct file_view *ret)
{
    int rc;
    bool jumps;
    *ret = (struct file_view){.count = 0};
    struct base *b = view_base(io, h, offset, &len);
    if (b != NULL && reading_of(io, h, b, offset, len, &jumps) == BASE_BLOCKS) {
        rc = base_view(io, b, offset, len, ret);
        ret->once = !jumps && (h->flags & O_DIRECT) == 0;
    } else {
        size_t got = 0;
        ret->own = mem_alloc(len);
        rc = b != NULL ? base_read(io, b, offset, ret->own, len, BASE_PARTS)
                       : file_read(io, h, offset, ret->own, len, &got);
        ret->at[0] = (struct iovec){.iov_base = ret->own, .iov_len = b != NULL ? len : got};
        ret->count = 1;
    }
    base_unref(io, b);
    if (rc != 0)
        file_view_done(io, ret);
    return rc;
}

void file_view_done(struct fileio *io, struct file_view *v)
{
    for (unsigned i = 0; i < v->block_count; i++) {
        if (v->once && (v->read_out & 1u << i) != 0)
            block_cache_read_out(io->blocks, v->blocks[i]);
        else
            block_cache_unref(io->blocks, v->blocks[i]);
    }
    mem_free(v->own);
    *v = (struct file_view){.count = 0};
}

/* ---- seeking and cloning ---- */

/* The committed content after everything dirty was committed, referenced. */
static int committed(struct fileio *io, struct inode *i, struct base **ret)
{
    struct file *f = file_of(io, i);
    int rc = file_flush(io, i);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&f->lock);
    rc = file_need_base(f);
    if (rc == 0)
        *ret = base_ref(io, f->base);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

static int seek_block(
    struct fileio *io, const struct base *b, uint64_t from, enum manifest_seek what, uint64_t *ret)
{
    struct chunk_ids missing = {0};
    int rc;
    do {
        node_lock(io, b->stripe);
        rc = manifest_seek(io->stripes[b->stripe].nodes, &b->manifest, from, what, ret, &missing);
        node_unlock(io, b->stripe);
    } while (nodes_brought(io, b->stripe, &missing, &rc));
    chunk_ids_deinit(&missing);
    return rc;
}

static int
seek_in(struct fileio *io, const struct base *b, uint64_t offset, int whence, uint64_t *ret)
{
    uint64_t size = base_size(b);
    if (offset >= size)
        return ERR_NO_SUCH_OFFSET;
    if (b->content.kind == CONTENT_INLINE) {
        uint64_t end = b->content.bytes.len;
        if (whence == SEEK_HOLE)
            *ret = MAX(offset, end);
        else if (offset < end)
            *ret = offset;
        else
            return ERR_NO_SUCH_OFFSET;
        return 0;
    }
    uint64_t block, bb = b->manifest.block_bytes;
    enum manifest_seek what = whence == SEEK_DATA ? MANIFEST_SEEK_DATA : MANIFEST_SEEK_HOLE;
    int rc = seek_block(io, b, offset / bb, what, &block);
    if (rc != 0)
        return rc;
    uint64_t found = MAX(offset, block * bb);
    if (found >= size && whence == SEEK_DATA)
        return ERR_NO_SUCH_OFFSET;
    *ret = MIN(found, size);
    return 0;
}

int file_seek(struct fileio *io, struct inode *i, uint64_t offset, int whence, uint64_t *ret_offset)
{
    struct base *b;
    int rc = committed(io, i, &b);
    if (rc != 0)
        return rc;
    rc = seek_in(io, b, offset, whence, ret_offset);
    base_unref(io, b);
    return rc;
}

/* How much of `c` can be taken by reference; 0: none. */
static uint64_t
clone_len(const struct base *from, const struct base *to, const struct file_clone *c)
{
    if (from->content.kind != CONTENT_MANIFEST || c->from_offset >= base_size(from))
        return 0;
    uint64_t bb = from->manifest.block_bytes;
    uint64_t len = MIN(c->len, base_size(from) - c->from_offset);
    uint64_t end = c->to_offset + len;
    bool to_fits = to->content.kind == CONTENT_MANIFEST ? to->manifest.block_bytes == bb
                                                        : c->to_offset == 0 && end >= base_size(to);
    if (!to_fits || c->from_offset % bb != 0 || c->to_offset % bb != 0 || end > LIMIT_FILE_BYTES)
        return 0;
    /* The last, short block: only from end of file to end of file. */
    bool tail = c->from_offset + len == base_size(from) && end >= base_size(to);
    return tail ? len : len / bb * bb;
}

/* The target is frozen as it is, with nothing dirty. */
static int splice_and_commit(struct fileio *io,
                             struct file *f,
                             const struct content_splice *s,
                             struct base **ret_now)
{
    struct content content;
    int rc = content_splice(io, s, &content);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&f->lock);
    f->kept.set &= ~SET_MTIME;
    int64_t mtime_ns = f->mtime_ns;
    pthread_mutex_unlock(&f->lock);
    struct commit c = {
        .oid = f->inode->oid, .base = s->target, .content = &content, .mtime_ns = mtime_ns};
    return file_commit(f, &c, ret_now);
}

/* As if it were a flush with nothing dirty: so none overtakes it, and whoever flushes all waits for
 * it from before it puts a node, which is nobody's until it is committed. */
static int clone_commit(struct fileio *io, struct inode *i, const struct content_splice *s)
{
    struct file *f = file_of(io, i);
    struct base *now = NULL;
    pthread_mutex_lock(&f->lock);
    while (f->frozen_busy)
        pthread_cond_wait(&f->moved, &f->lock);
    if (f->dirty_made || f->base != s->target) {
        pthread_mutex_unlock(&f->lock);
        return ERR_STALE_BASE;
    }
    dirty_init(&f->frozen, base_size(f->base));
    f->frozen_busy = true;
    f->mtime_ns = (int64_t)clock_wall_ns(io->config.clock);
    pthread_mutex_unlock(&f->lock);
    int rc = splice_and_commit(io, f, s, &now);
    pthread_mutex_lock(&f->lock);
    if (now != NULL)
        file_set_base(f, now);
    dirty_deinit(&f->frozen);
    f->frozen_busy = false;
    f->pages_version = (struct dot){0};
    pthread_cond_broadcast(&f->moved);
    file_account(f);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

int file_clone(struct fileio *io, const struct file_clone *c, uint64_t *ret_len)
{
    struct base *from = NULL, *to = NULL;
    *ret_len = 0;
    int rc = committed(io, c->from, &from);
    if (rc == 0)
        rc = committed(io, c->to, &to);
    uint64_t len = rc == 0 && c->from != c->to ? clone_len(from, to, c) : 0;
    if (len > 0) {
        uint64_t bb = from->manifest.block_bytes;
        struct content_splice s = {.source = from,
                                   .target = to,
                                   .from_block = c->from_offset / bb,
                                   .to_block = c->to_offset / bb,
                                   .block_count = (len + bb - 1) / bb,
                                   .new_size = MAX(base_size(to), c->to_offset + len)};
        rc = clone_commit(io, c->to, &s);
        if (rc == 0)
            *ret_len = len;
        else if (rc == ERR_STALE_BASE) /* changed meanwhile: copy by hand */
            rc = 0;
    }
    base_unref(io, from);
    base_unref(io, to);
    return rc;
}
