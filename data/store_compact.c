/* Compaction: what lives in a half-dead segment is put again at the end, the index is brought down
 * to disk, and only then the file goes. A crash at any point leaves each chunk in one of the two
 * places, with an index that knows at least one of them (D8).
 *
 *   window read -> its records put as moves -> all done -> next window
 *   end -> nothing lives in it? -> index settled and flushed -> file removed */
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "data/store_int.h"

#define WINDOW_BYTES                                                                               \
    (uint32_t)                                                                                     \
        align_up(LIMIT_CHUNK_SEALED_BYTES + STORE_RECORD_HEADER_BYTES + 2 * STORE_BLOCK_BYTES,     \
                 STORE_BLOCK_BYTES)

struct move {
    struct store_put put;
    struct compaction *compaction;
};
struct compaction {
    struct store *store;
    struct store_segment *segment; /* referenced once there is something to read */
    uint64_t number;
    uint64_t at; /* file offset of what comes next */
    uint8_t *window;
    uint32_t got;
    struct loop_req req;
    struct move *moves; /* of the window */
    uint32_t move_count, move_cap, open;
    bool bad; /* something in it is damaged */
    int rc;
    struct settle settle;
    struct pool_job remove_job;
    uint64_t free_bytes;
};

static void finish(struct compaction *c, int rc)
{
    struct store *s = c->store;
    struct store_compact *compact = s->compact;
    if (c->segment != NULL)
        segment_unref(s, c->segment);
    mem_free(c->window);
    mem_free(c->moves);
    mem_free(c);
    s->compact = NULL;
    s->compaction = NULL;
    s->compacted_bytes += compact->moved_bytes;
    compact->done(compact, rc);
    close_kick(s);
}

/* ---- removing ---- */

static void remove_work(struct pool_job *job)
{
    struct compaction *c = CONTAINER_OF(job, struct compaction, remove_job);
    char *path = segment_path(c->store->dir, c->number);
    c->rc = unlink(path) == 0 ? 0 : ERR_IO;
    mem_free(path);
    if (free_bytes_of(c->store->dir, &c->free_bytes) != 0)
        c->free_bytes = 0;
}

static void removed(struct pool_job *job)
{
    struct compaction *c = CONTAINER_OF(job, struct compaction, remove_job);
    struct store *s = c->store;
    s->free_bytes = c->free_bytes != 0 ? c->free_bytes : s->free_bytes;
    finish(c, c->rc);
}

static void settled(struct settle *settle, int rc)
{
    struct compaction *c = CONTAINER_OF(settle, struct compaction, settle);
    struct store *s = c->store;
    struct store_segment *seg = segment_find(s, c->number);
    if (rc != 0 || seg->stat.live_count != 0) {
        finish(c, rc); /* nothing can have been added to it, but be sure */
        return;
    }
    s->compact->freed_bytes = seg->file_bytes;
    if (s->gone_count == s->gone_cap) {
        s->gone_cap = s->gone_cap == 0 ? 16 : s->gone_cap * 2;
        s->gone = mem_realloc(s->gone, s->gone_cap * sizeof *s->gone);
    }
    s->gone[s->gone_count++] = seg->number;
    segment_remove(s, seg); /* those who read it have it open */
    c->remove_job.work = remove_work;
    c->remove_job.done = removed;
    pool_submit(s->pool, s->loop, &c->remove_job);
}

static void walked(struct compaction *c)
{
    struct store *s = c->store;
    struct store_segment *seg = segment_find(s, c->number);
    if (c->rc == 0 && s->closing)
        c->rc = ERR_CLOSED;
    if (c->rc == 0 && seg->stat.live_count != 0) {
        /* A live record was not found or cannot be read: the scrub says which. Or it is just being
         * put again: the next attempt will do. */
        seg->stuck = c->bad;
        c->rc = c->bad ? ERR_CORRUPT : ERR_AGAIN;
    }
    if (c->rc != 0) {
        finish(c, c->rc);
        return;
    }
    c->settle = (struct settle){.flush = true, .done = settled};
    settle_submit(s, &c->settle);
}

/* ---- moving ---- */

static void window_read(struct compaction *c);

static void window_next(struct compaction *c)
{
    if (c->rc != 0 || c->store->closing || c->at + STORE_RECORD_HEADER_BYTES > c->segment->stat.end)
        walked(c);
    else
        window_read(c);
}

static void moved(struct store_put *put, int rc)
{
    struct compaction *c = CONTAINER_OF(put, struct move, put)->compaction;
    if (rc != 0 && c->rc == 0)
        c->rc = rc;
    if (--c->open > 0)
        return;
    window_next(c);
}

static void move_add(struct compaction *c, const struct record_scan *scan)
{
    if (c->move_count == c->move_cap) {
        c->move_cap = c->move_cap == 0 ? 64 : c->move_cap * 2;
        c->moves = mem_realloc(c->moves, c->move_cap * sizeof *c->moves);
    }
    struct move *m = &c->moves[c->move_count++];
    *m = (struct move){.compaction = c};
    m->put.id = scan->record.id;
    m->put.data = slice_of(scan->data, scan->record.len);
    m->put.done = moved;
    m->put.move_segment = c->number;
    m->put.move_offset = (uint32_t)scan->offset;
}

static void window_parse(struct compaction *c)
{
    uint64_t base = c->at / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    uint64_t end = MIN(base + c->got, c->segment->stat.end);
    struct record_scan scan = {.bytes = slice_of(c->window, (size_t)(end - base)),
                               .base = base,
                               .number = c->number,
                               .at = c->at};
    enum scan_kind kind;
    c->move_count = 0;
    while ((kind = record_scan_next(&scan)) != SCAN_END) {
        if (kind == SCAN_RECORD)
            move_add(c, &scan);
        else if (kind == SCAN_MORE && scan.offset > c->at)
            break; /* the next window starts with it */
        else if (kind == SCAN_MORE)
            scan.at = end; /* its length goes beyond the segment */
        if (kind != SCAN_RECORD)
            c->bad = true;
    }
    c->at = kind == SCAN_MORE ? scan.offset : end;
}

static void window_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct compaction *c = CONTAINER_OF(req, struct compaction, req);
    (void)cqe_flags;
    uint64_t base = c->at / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    if (res <= 0) {
        c->segment->stuck = true; /* the scrub says what is lost */
        c->rc = res < 0 ? err_from_errno(-res) : ERR_TRUNCATED;
        walked(c);
        return;
    }
    c->got = (uint32_t)res;
    if (base + c->got < c->segment->stat.end && c->got < WINDOW_BYTES)
        c->got = c->got / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    if (base + c->got <= c->at) {
        c->rc = ERR_TRUNCATED;
        walked(c);
        return;
    }
    window_parse(c);
    /* Puts are never done inside the call, so the count is right before the first is. */
    c->open = c->move_count;
    for (uint32_t i = 0; i < c->move_count; i++)
        put_submit_move(c->store, &c->moves[i].put);
    if (c->move_count == 0)
        window_next(c);
}

static void window_read(struct compaction *c)
{
    uint64_t base = c->at / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    struct io_uring_sqe *sqe = loop_sqe(c->store->loop);
    io_uring_prep_read(sqe, c->segment->fd, c->window, WINDOW_BYTES, base);
    loop_sqe_bind(sqe, &c->req);
}

/* ---- choosing ---- */

/* The one with the least in it, of those that are worth it. A segment that was cut short counts as
 * if it had been filled: so the small ones that restarts leave are merged. */
static struct store_segment *choose(const struct store *s, unsigned live_percent)
{
    struct store_segment *best = NULL;
    for (size_t i = 0; i < s->segment_count; i++) {
        struct store_segment *seg = s->segments[i];
        if (seg == s->active || seg == s->next.seal || seg->stuck ||
            seg->stat.live_bytes * 100 >= s->segment_bytes * live_percent)
            continue;
        if (best == NULL || seg->stat.live_bytes < best->stat.live_bytes)
            best = seg;
    }
    return best;
}

static void nothing_settled(struct settle *settle, int rc)
{
    struct compaction *c = CONTAINER_OF(settle, struct compaction, settle);
    (void)rc; /* nothing was to be written */
    finish(c, 0);
}

int store_compact(struct store *s, struct store_compact *compact)
{
    ASSERT(loop_here(s->loop));
    if (s->closing)
        return ERR_CLOSED;
    if (s->compact != NULL)
        return ERR_BUSY;
    unsigned live_percent = compact->live_percent != 0 ? compact->live_percent : 50;
    struct store_segment *seg = choose(s, live_percent);
    if (seg != NULL && seg->stat.live_count > 0) {
        int rc = segment_ref(s, seg);
        if (rc != 0)
            return rc;
    }
    struct compaction *c = mem_calloc(1, sizeof *c);
    c->store = s;
    c->at = STORE_BLOCK_BYTES;
    c->req.done = window_done;
    compact->store = s;
    compact->moved_bytes = 0;
    compact->freed_bytes = 0;
    compact->nothing = seg == NULL;
    s->compact = compact;
    s->compaction = c;
    if (seg == NULL) {
        c->settle = (struct settle){.done = nothing_settled};
        settle_submit(s, &c->settle);
        return 0;
    }
    c->number = seg->number;
    if (seg->stat.live_count == 0) {
        walked(c);
        return 0;
    }
    compact->moved_bytes = seg->stat.live_bytes;
    c->segment = seg;
    c->window = mem_aligned(STORE_BLOCK_BYTES, WINDOW_BYTES);
    window_read(c);
    return 0;
}
