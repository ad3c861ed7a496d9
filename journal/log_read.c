/* Reading records back, on any thread: from batches kept in memory, else from the files. The lock
 * is held only to look things up; a batch is pinned meanwhile, a file may be recycled under the
 * reader, which then finds its first index gone. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/assert.h"
#include "journal/log_int.h"

#define WINDOW_BYTES ((size_t)(256u * KIB))

struct reader {
    struct log *log;
    uint64_t next;     /* index to deliver next */
    uint64_t until;    /* last index that is there */
    size_t bytes_left; /* payload that may still be delivered */
    bool delivered, stopped;
    bool (*fn)(void *ctx, const struct log_record *record);
    void *ctx;
};

/* Delivers what is wanted of it; false when the caller has had enough. */
static bool deliver(struct reader *r, const struct log_record *record)
{
    if (record->index < r->next)
        return true;
    if (r->delivered && record->payload.len > r->bytes_left) {
        r->stopped = true;
        return false;
    }
    r->bytes_left -= record->payload.len < r->bytes_left ? record->payload.len : r->bytes_left;
    r->delivered = true;
    r->next = record->index + 1;
    if (!r->fn(r->ctx, record) || r->bytes_left == 0)
        r->stopped = true;
    return !r->stopped && r->next <= r->until;
}

/* ---- memory ---- */

/* Under the lock: the batch of the tail that holds r->next, pinned, or NULL. */
static struct log_batch *tail_pin(struct reader *r)
{
    struct log_batch *batch = r->log->tail_first;
    if (batch == NULL || batch->first > r->next)
        return NULL;
    /* Whoever follows the journal wants the newest. */
    struct log_batch *newest = CONTAINER_OF(r->log->tail_last, struct log_batch, next);
    if (newest->first <= r->next)
        batch = newest;
    while (batch != NULL && batch->last < r->next)
        batch = batch->next;
    if (batch != NULL)
        batch->refs++;
    return batch;
}

static int read_batch(struct reader *r, const struct log_batch *batch)
{
    struct log_chain chain = {.bytes = slice_of(batch->data, batch->len),
                              .base = batch->offset,
                              .place = {.salt = r->log->salt,
                                        .number = batch->number,
                                        .offset = batch->offset + batch->head_bytes},
                              .index = batch->first};
    struct log_record record;
    size_t bytes;
    while (chain.index <= batch->last) {
        if (log_chain_next(&chain, &record, &bytes) != LOG_STEP_RECORD)
            return ERR_CORRUPT; /* memory went bad */
        if (!deliver(r, &record))
            break;
    }
    return 0;
}

/* ---- files ---- */

struct source { /* copied under the lock */
    uint64_t number;
    uint64_t bytes; /* of the file that may be read */
    uint64_t last;  /* of the segment, or durable */
    struct log_mark from;
};

/* Under the lock. */
static struct source source_find(const struct reader *r)
{
    const struct log *log = r->log;
    size_t low = 0, high = log->segment_count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (log->segments[mid]->first <= r->next)
            low = mid;
        else
            high = mid;
    }
    const struct log_segment *segment = log->segments[low];
    struct source s = {.number = segment->number, .bytes = segment->end, .last = r->until};
    if (low + 1 < log->segment_count)
        s.last = MIN(s.last, log->segments[low + 1]->first - 1);
    s.from = (struct log_mark){.index = segment->first, .offset = LOG_BLOCK};
    low = 0;
    high = segment->mark_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (segment->marks[mid].index <= r->next) {
            s.from = segment->marks[mid];
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return s;
}

struct window {
    int fd;
    uint8_t *data;
    size_t cap;
};

/* Fills the window from the block of chain->place.offset on, with at least `want` bytes from there
 * if the file has them before `end`. */
static int window_load(struct window *w, struct log_chain *chain, size_t want, uint64_t end)
{
    uint64_t base = chain->place.offset / LOG_BLOCK * LOG_BLOCK;
    uint64_t need = log_block_up(chain->place.offset + want) - base;
    size_t len = (size_t)MIN(MAX(need, WINDOW_BYTES), end - base);
    if (w->cap < len) {
        mem_free(w->data);
        w->data = mem_aligned(LOG_BLOCK, len);
        w->cap = len;
    }
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(w->fd, w->data + got, len - got, (off_t)(base + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_from_errno(errno);
        if (n == 0)
            break;
        got += (size_t)n;
    }
    chain->base = base;
    chain->bytes = slice_of(w->data, got);
    return 0;
}

static int read_records(struct reader *r, const struct source *s, struct window *w)
{
    struct log_chain chain = {
        .place = {.salt = r->log->salt, .number = s->number, .offset = s->from.offset},
        .index = s->from.index};
    struct log_record record;
    size_t want = LOG_BLOCK;
    int rc = window_load(w, &chain, want, s->bytes);
    while (rc == 0 && chain.index <= s->last) {
        switch (log_chain_next(&chain, &record, &want)) {
        case LOG_STEP_RECORD:
            if (!deliver(r, &record))
                return 0;
            break;
        case LOG_STEP_MORE:
            /* Nothing durable goes on behind the end, and the file has to have it all. */
            if (chain.place.offset + want > s->bytes)
                return ERR_CORRUPT;
            rc = window_load(w, &chain, want, s->bytes);
            if (rc == 0 && chain.base + chain.bytes.len < chain.place.offset + want)
                return ERR_CORRUPT;
            break;
        case LOG_STEP_END:
            return ERR_CORRUPT;
        }
    }
    return rc;
}

static int read_segment(struct reader *r, const struct source *s, int fd)
{
    struct window w = {.fd = fd};
    int rc = read_records(r, s, &w);
    mem_free(w.data);
    return rc;
}

/* One look-up and what follows from it. */
static int read_some(struct reader *r)
{
    struct log *log = r->log;
    int fd = -1, rc = 0;
    struct source source;
    (void)pthread_mutex_lock(log->lock);
    if (r->next < log->first) {
        (void)pthread_mutex_unlock(log->lock);
        return ERR_NOT_FOUND;
    }
    r->until = MIN(r->until, log->durable); /* a reset may have taken it back */
    if (r->next > r->until) {
        (void)pthread_mutex_unlock(log->lock);
        r->stopped = true;
        return 0;
    }
    struct log_batch *batch = tail_pin(r);
    if (batch == NULL) {
        char name[LOG_NAME_LEN];
        source = source_find(r);
        log_segment_name(source.number, name);
        int flags = O_RDONLY | O_CLOEXEC | (log->direct ? O_DIRECT : 0);
        fd = openat(log->dir_fd, name, flags);
        if (fd < 0)
            rc = err_from_errno(errno);
    }
    (void)pthread_mutex_unlock(log->lock);
    if (batch != NULL) {
        rc = read_batch(r, batch);
        log_batch_unref(log, batch);
    } else if (rc == 0) {
        rc = read_segment(r, &source, fd);
        (void)close(fd);
    }
    if (rc != 0 && r->next < log_first(log))
        rc = ERR_NOT_FOUND; /* trimmed while it was read: not damage */
    return rc;
}

int log_read(struct log *log,
             uint64_t from,
             size_t bytes_max,
             bool (*fn)(void *ctx, const struct log_record *record),
             void *ctx,
             uint64_t *ret_next)
{
    struct reader r = {.log = log,
                       .next = from,
                       .until = log_durable(log),
                       .bytes_left = bytes_max,
                       .fn = fn,
                       .ctx = ctx};
    if (from < log_first(log))
        return ERR_NOT_FOUND;
    int rc = 0;
    while (rc == 0 && !r.stopped && r.next <= r.until)
        rc = read_some(&r);
    /* A failure behind delivered records is met, and told, by the next call. */
    if (rc != 0 && !r.delivered)
        return rc;
    *ret_next = r.next;
    return 0;
}
