/* Puts: dedup, groups, group commit.
 *
 *   put_start -> waiter of a put of the same id
 *             -> lookup -> there: touch, done
 *                       -> copied into the group that is being filled (or blocked until there is
 *                          room) -> written with RWF_DSYNC -> index told -> done
 *
 * One group is on its way at a time; all that arrives meanwhile goes into the next. */
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "data/chunk.h"
#include "data/store_int.h"

_Static_assert(STORE_GROUP_BYTES >=
                   LIMIT_CHUNK_SEALED_BYTES + STORE_RECORD_HEADER_BYTES + STORE_BLOCK_BYTES,
               "a group holds the largest record");

static void put_start(struct store_put *put);
static void next_start(struct store *s, bool use_reserve, bool needed);

/* ---- finishing ---- */

void finish_kick(struct store *s)
{
    loop_defer(s->loop, &s->finish_defer);
}

static void finish_one(struct store *s, struct store_put *put, int rc)
{
    put->rc = rc;
    put->next = NULL;
    *s->finished_puts_last = put;
    s->finished_puts_last = &put->next;
    finish_kick(s);
}

/* `put` leaves the table of ids under way, and takes its waiters with it: they get its result, but
 * those of a move start anew, for a move promises nothing about a chunk that it leaves alone. */
static void put_finish(struct store_put *put, int rc)
{
    struct store *s = put->store;
    bool there = id_map_del(&s->inflight, &put->id);
    ASSERT(there);
    struct store_put *waiters = put->waiters;
    put->waiters = NULL;
    bool move = put->move_segment != 0;
    finish_one(s, put, rc);
    while (waiters != NULL) {
        struct store_put *w = waiters;
        waiters = w->next;
        if (move) {
            put_start(w);
        } else {
            s->dedups += w->move_segment == 0;
            finish_one(s, w, rc);
        }
    }
}

/* ---- dedup ---- */

static bool put_add(struct store_put *put);

static void put_resolved(struct store_put *put, int rc, const struct store_entry *entry)
{
    struct store *s = put->store;
    if (rc != 0) {
        put_finish(put, rc);
        return;
    }
    put->old = *entry;
    if (put->move_segment != 0) {
        if (entry->segment != put->move_segment || entry->offset != put->move_offset) {
            put_finish(put, 0); /* nothing points to it any more */
            return;
        }
        put->epoch = entry->epoch;
    } else if (entry_usable(s, &put->id, entry)) {
        s->dedups++;
        entry_touch(s, &put->id, entry);
        put_finish(put, 0);
        return;
    }
    if (s->blocked != NULL || !put_add(put)) {
        put->next = NULL;
        *s->blocked_last = put;
        s->blocked_last = &put->next;
    }
    loop_defer(s->loop, &s->write_defer);
}

static void put_looked_up(struct store_lookup *lookup)
{
    struct store_put *put = CONTAINER_OF(lookup, struct store_put, lookup);
    put_resolved(put, lookup->rc, &lookup->entry);
}

static void put_start(struct store_put *put)
{
    struct store *s = put->store;
    uint64_t *first = id_map_get(&s->inflight, &put->id);
    put->waiters = NULL;
    if (first != NULL) {
        struct store_put *head = (struct store_put *)(uintptr_t)*first;
        put->next = head->waiters;
        head->waiters = put;
        return;
    }
    id_map_set(&s->inflight, &put->id, (uint64_t)(uintptr_t)put);
    struct store_entry entry;
    int rc = lookup_now(s, &put->id, &entry);
    if (rc != ERR_AGAIN) {
        put_resolved(put, rc, &entry);
        return;
    }
    put->lookup.id = put->id;
    put->lookup.done = put_looked_up;
    lookup_submit(s, &put->lookup);
}

int store_put(struct store *s, struct store_put *put)
{
    ASSERT(loop_here(s->loop));
    if (s->closing)
        return ERR_CLOSED;
    if (put->data.len == 0 || chunk_id_is_hole(&put->id))
        return ERR_INVALID;
    if (put->data.len > LIMIT_CHUNK_SEALED_BYTES ||
        align_up(record_bytes((uint32_t)put->data.len), STORE_BLOCK_BYTES) + STORE_BLOCK_BYTES >
            s->segment_bytes)
        return ERR_TOO_BIG;
    if (s->put_count >= s->queue_max || s->queue_bytes + put->data.len > s->queue_bytes_max)
        return ERR_LIMIT;
    if (s->index_rc != 0)
        return s->index_rc; /* what is put now could not be found after a restart without a scan */
    put->store = s;
    put->move_segment = 0;
    put->epoch = s->epoch;
    s->put_count++;
    s->puts++;
    s->queue_bytes += put->data.len;
    put_start(put);
    return 0;
}

void put_submit_move(struct store *s, struct store_put *put)
{
    ASSERT(put->move_segment != 0);
    put->store = s;
    s->put_count++;
    s->queue_bytes += put->data.len;
    put_start(put);
}

/* ---- groups ---- */

/* Where the group that is being filled will go. */
static uint64_t tail_of(const struct store *s)
{
    return s->active->stat.end + (s->writing ? s->write_len : 0);
}

/* Copies the record into the filling group, if there is room in group and segment. */
static bool put_add(struct store_put *put)
{
    struct store *s = put->store;
    struct group *g = &s->groups[s->filling];
    uint64_t bytes = record_bytes((uint32_t)put->data.len);
    if (s->active == NULL || (s->active_reserved && put->move_segment == 0))
        return false;
    uint64_t len = align_up(g->len + bytes, STORE_BLOCK_BYTES);
    if (len > STORE_GROUP_BYTES || tail_of(s) + len > s->segment_bytes)
        return false;
    put->epoch = put->move_segment != 0 ? put->epoch : s->epoch;
    struct record r = {.id = put->id,
                       .epoch = put->epoch,
                       .len = (uint32_t)put->data.len,
                       .segment_low = (uint32_t)s->active->number,
                       .group = s->group_number};
    segment_record_encode(&r, put->data.ptr, g->buf + g->len);
    put->plain_len =
        chunk_plain_len(slice_of(g->buf + g->len + STORE_RECORD_HEADER_BYTES, put->data.len));
    put->offset = g->len;
    g->len += (uint32_t)bytes;
    put->next = NULL;
    *g->last = put;
    g->last = &put->next;
    return true;
}

static void fill(struct store *s)
{
    while (s->blocked != NULL) {
        struct store_put *put = s->blocked;
        struct store_put *next = put->next;
        if (!put_add(put))
            return;
        s->blocked = next;
        if (next == NULL)
            s->blocked_last = &s->blocked;
    }
}

static struct store_put *group_take(struct group *g)
{
    struct store_put *list = g->first;
    g->first = NULL;
    g->last = &g->first;
    g->len = 0;
    return list;
}

static void write_submit(struct store *s)
{
    const struct group *g = &s->groups[!s->filling];
    struct io_uring_sqe *sqe = loop_sqe(s->loop);
    io_uring_prep_write(sqe, s->active->fd, g->buf + s->written, s->write_len - s->written,
                        s->write_at + s->written);
    sqe->rw_flags = s->no_sync ? 0 : RWF_DSYNC;
    loop_sqe_bind(sqe, &s->write_req);
}

static void group_start(struct store *s)
{
    struct group *g = &s->groups[s->filling];
    uint32_t len = (uint32_t)align_up(g->len, STORE_BLOCK_BYTES);
    memset(g->buf + g->len, 0, len - g->len);
    s->write_at = tail_of(s);
    s->write_len = len;
    s->written = 0;
    s->writing = true;
    s->filling = !s->filling;
    s->group_number++;
    write_submit(s);
    fill(s);
}

/* All of the group is on disk (P2): the index learns of it, and whoever waits. */
static void group_durable(struct store *s)
{
    struct store_put *list = group_take(&s->groups[!s->filling]);
    s->active->stat.end = s->write_at + s->write_len;
    segment_dirty(s, s->active);
    s->unflushed_bytes += s->write_len;
    s->groups_written++;
    while (list != NULL) {
        struct store_put *put = list;
        list = put->next;
        struct store_entry now = {.segment = s->active->number,
                                  .epoch = put->epoch,
                                  .offset = (uint32_t)s->write_at + put->offset,
                                  .len = (uint32_t)put->data.len,
                                  .plain_len = put->plain_len};
        if (put->move_segment != 0)
            now.epoch = MAX(now.epoch, put->old.epoch);
        struct store_entry old = put->old;
        entry_change(s, &put->id, &old, &now);
        put_finish(put, 0);
    }
}

/* What the disk holds behind the last good group is unknown: the segment is closed there, and what
 * was to follow in it fails as well. */
static void group_failed(struct store *s, int rc)
{
    for (unsigned i = 0; i < 2; i++) {
        struct store_put *list = group_take(&s->groups[i]);
        while (list != NULL) {
            struct store_put *put = list;
            list = put->next;
            put_finish(put, rc);
        }
    }
    struct store_segment *seg = s->active;
    s->active = NULL;
    if (ftruncate(seg->fd, (off_t)seg->stat.end) == 0)
        seg->file_bytes = seg->stat.end;
    segment_dirty(s, seg);
    segment_unref(s, seg);
}

static void write_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct store *s = CONTAINER_OF(req, struct store, write_req);
    (void)cqe_flags;
    if (res == -EINTR || res == -EAGAIN) {
        write_submit(s);
        return;
    }
    if (res > 0 && (uint32_t)res < s->write_len - s->written && res % (int)STORE_BLOCK_BYTES == 0) {
        s->written += (uint32_t)res;
        write_submit(s);
        return;
    }
    bool whole = res > 0 && (uint32_t)res == s->write_len - s->written;
    s->writing = false;
    if (whole)
        group_durable(s);
    else
        group_failed(s, res < 0 ? err_from_errno(-res) : ERR_NO_SPACE);
    write_kick(s);
    close_kick(s);
}

/* ---- segments ---- */

/* Takes the prepared segment into use; the full one is cut to what is used by the next job. */
static void segment_switch(struct store *s)
{
    ASSERT(s->next.state == NEXT_READY && !s->writing && s->groups[s->filling].len == 0);
    if (s->active != NULL) {
        ASSERT(s->next.seal == NULL);
        s->next.seal = s->active; /* with the reference */
        s->next.seal_bytes = s->active->stat.end;
    }
    s->active = s->next.segment;
    s->active_reserved = s->next.reserved;
    segment_insert(s, s->active);
    segment_dirty(s, s->active);
    s->next.segment = NULL;
    s->next.state = NEXT_NONE;
    s->group_number = 1;
    next_start(s, false, false);
}

/* Fails the puts that wait for room; those of compaction only if they may not hope either. */
static void blocked_fail(struct store *s, int rc, bool moves_too)
{
    struct store_put *list = s->blocked;
    s->blocked = NULL;
    s->blocked_last = &s->blocked;
    while (list != NULL) {
        struct store_put *put = list;
        list = put->next;
        if (put->move_segment == 0 || moves_too) {
            put_finish(put, rc);
            continue;
        }
        put->next = NULL;
        *s->blocked_last = put;
        s->blocked_last = &put->next;
    }
}

static void next_work(struct pool_job *job)
{
    struct store *s = CONTAINER_OF(job, struct store, next.job);
    struct next *n = &s->next;
    if (n->seal != NULL && ftruncate(n->seal->fd, (off_t)n->seal_bytes) != 0)
        n->seal_bytes = s->segment_bytes; /* only space is lost */
    n->rc = free_bytes_of(s->dir, &n->free_bytes);
    uint64_t needed = n->use_reserve ? 0 : s->reserve_bytes;
    if (n->segment == NULL)
        needed += s->segment_bytes;
    if (n->rc == 0 && n->free_bytes < needed)
        n->rc = ERR_NO_SPACE;
    if (n->rc == 0 && n->segment == NULL)
        n->rc = segment_make(s, n->number, &n->fd);
}

static void next_done(struct pool_job *job)
{
    struct store *s = CONTAINER_OF(job, struct store, next.job);
    struct next *n = &s->next;
    if (n->seal != NULL) {
        n->seal->file_bytes = n->seal_bytes;
        segment_unref(s, n->seal);
        n->seal = NULL;
    }
    s->free_bytes = n->free_bytes;
    if (n->rc == 0 && n->segment == NULL) {
        n->segment = segment_new(n->number);
        n->segment->file_bytes = s->segment_bytes;
        n->segment->fd = n->fd;
        n->segment->refs = 1; /* as long as it is active */
    }
    n->state = n->segment != NULL ? NEXT_READY : NEXT_NONE;
    n->reserved = n->segment != NULL && (n->rc == 0 ? n->use_reserve : n->reserved);
    n->failed = n->rc != 0 && n->needed;
    if (n->rc == 0 && !n->use_reserve)
        s->active_reserved = false;
    write_kick(s);
    close_kick(s);
}

/* Makes the next segment; or, when there is one from the reserve, sees whether there is space again
 * for all. `needed`: puts wait for it, and fail if it does. */
static void next_start(struct store *s, bool use_reserve, bool needed)
{
    struct next *n = &s->next;
    ASSERT(n->state != NEXT_MAKING);
    n->state = NEXT_MAKING;
    n->use_reserve = use_reserve;
    n->needed = needed;
    if (n->segment == NULL)
        n->number = s->next_segment++;
    n->job.work = next_work;
    n->job.done = next_done;
    pool_submit(s->pool, s->loop, &n->job);
}

/* The first of the blocked puts does not fit what is left of the segment. True: try again. */
static bool make_room(struct store *s)
{
    struct next *n = &s->next;
    bool move = s->blocked->move_segment != 0;
    if (n->state == NEXT_MAKING)
        return false;
    if (n->failed && (n->use_reserve || !move)) {
        n->failed = false;
        blocked_fail(s, n->rc, n->use_reserve);
        return s->blocked != NULL;
    }
    if (n->state == NEXT_READY && (!n->reserved || move)) {
        segment_switch(s);
        return true;
    }
    next_start(s, move, true);
    return false;
}

void write_kick(struct store *s)
{
    if (s->writing)
        return;
    fill(s);
    while (s->groups[s->filling].len == 0 && s->blocked != NULL) {
        if (!make_room(s))
            return;
        fill(s);
    }
    if (s->groups[s->filling].len > 0)
        group_start(s);
}

static void write_deferred(struct loop_defer *d)
{
    write_kick(CONTAINER_OF(d, struct store, write_defer));
}

void write_init(struct store *s)
{
    for (unsigned i = 0; i < 2; i++) {
        s->groups[i].buf = mem_aligned(STORE_BLOCK_BYTES, STORE_GROUP_BYTES);
        s->groups[i].last = &s->groups[i].first;
    }
    s->blocked_last = &s->blocked;
    s->write_req.done = write_done;
    s->write_defer.run = write_deferred;
}
