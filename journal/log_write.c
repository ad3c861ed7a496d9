/* Group commit: records gather in a batch while the one before is written; one write at a time, so
 * that whatever is on disk behind a record proves the record durable (J2). A failed write is final:
 * the log says so once and takes nothing more. */
#include "journal/log_int.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/plant.h"

/* ---- batches ---- */

/* Buffers come in three sizes, as large as the batch before suggests, or larger when it outgrows
 * them. They go round: fresh memory of the largest, for a full write, costs as much as writing it,
 * and thousands of the smallest that come and go between blocks that stay leave holes that malloc
 * cannot give back. Only a single large record gets one of its own size. */
static const size_t buffer_sizes[LOG_BUFFER_SIZES] = {16u * KIB, 128u * KIB,
                                                      LOG_WRITE_BYTES_MAX + 3 * LOG_BLOCK};
#define BUFFER_BYTES (buffer_sizes[LOG_BUFFER_SIZES - 1])

static size_t buffer_bytes(size_t need)
{
    for (unsigned i = 0; i < LOG_BUFFER_SIZES; i++)
        if (need <= buffer_sizes[i])
            return buffer_sizes[i];
    return (size_t)log_block_up(need);
}

/* NULL: of its own size. */
static struct log_buffers *buffers_of(struct log *log, size_t cap)
{
    for (unsigned i = 0; i < LOG_BUFFER_SIZES; i++)
        if (cap == buffer_sizes[i])
            return &log->buffers[i];
    return NULL;
}

static uint8_t *buffer_new(struct log *log, size_t cap)
{
    uint8_t *data = NULL;
    struct log_buffers *spare = buffers_of(log, cap);
    if (spare != NULL) {
        (void)pthread_mutex_lock(log->lock);
        if (spare->count > 0)
            data = spare->at[--spare->count];
        (void)pthread_mutex_unlock(log->lock);
    }
    return data != NULL ? data : mem_aligned(LOG_BLOCK, cap);
}

static void buffer_free(struct log *log, uint8_t *data, size_t cap)
{
    struct log_buffers *spare = buffers_of(log, cap);
    if (spare != NULL) {
        (void)pthread_mutex_lock(log->lock);
        if (spare->count < LOG_BUFFERS_MAX) {
            spare->at[spare->count++] = data;
            data = NULL;
        }
        (void)pthread_mutex_unlock(log->lock);
    }
    mem_free(data);
}

void log_buffers_drop(struct log *log)
{
    for (unsigned i = 0; i < LOG_BUFFER_SIZES; i++)
        while (log->buffers[i].count > 0)
            mem_free(log->buffers[i].at[--log->buffers[i].count]);
}

struct log_batch *log_batch_new(struct log *log)
{
    ASSERT(log->offset % LOG_BLOCK == 0 && log->filling == NULL);
    struct log_batch *batch = mem_calloc(1, sizeof *batch);
    batch->segment = log_segment_current(log);
    batch->number = batch->segment->number;
    batch->offset = log->offset;
    batch->first = log->last + 1;
    batch->last = log->last;
    batch->refs = 1;
    batch->cap = buffer_bytes(MIN(log->batch_bytes, BUFFER_BYTES));
    batch->data = buffer_new(log, batch->cap);
    if (batch->offset == 0)
        batch->head_bytes = batch->len = LOG_BLOCK;
    return batch;
}

static void batch_free(struct log *log, struct log_batch *batch)
{
    buffer_free(log, batch->data, batch->cap);
    mem_free(batch);
}

void log_batch_unref(struct log *log, struct log_batch *batch)
{
    (void)pthread_mutex_lock(log->lock);
    bool last = --batch->refs == 0;
    (void)pthread_mutex_unlock(log->lock);
    if (last)
        batch_free(log, batch);
}

static void batch_reserve(struct log *log, struct log_batch *batch, size_t more)
{
    size_t need = batch->len + more;
    if (need <= batch->cap)
        return;
    size_t cap = buffer_bytes(need);
    uint8_t *data = buffer_new(log, cap);
    memcpy(data + batch->head_bytes, batch->data + batch->head_bytes,
           batch->len - batch->head_bytes);
    buffer_free(log, batch->data, batch->cap);
    batch->data = data;
    batch->cap = cap;
}

void log_batch_append(struct log *log,
                      struct log_batch *batch,
                      const struct slice *parts,
                      size_t part_count,
                      size_t payload_len)
{
    size_t bytes = log_record_bytes(payload_len);
    batch_reserve(log, batch, bytes + LOG_BLOCK); /* and the padding */
    uint8_t *at = batch->data + batch->len;
    uint8_t *to = at + LOG_RECORD_HEADER;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].len > 0)
            memcpy(to, parts[i].ptr, parts[i].len);
        to += parts[i].len;
    }
    struct log_place place = {
        .salt = log->salt, .number = batch->segment->number, .offset = batch->offset + batch->len};
    /* The batch goes out when everything before it is durable. */
    log_record_seal(at, payload_len, place, batch->last + 1, log->epoch, batch->first - 1);
    batch->len += bytes;
    batch->last++;
}

void log_seal(struct log *log)
{
    struct log_batch *batch = log->filling;
    if (batch == NULL)
        return;
    size_t len = (size_t)log_block_up(batch->len);
    memset(batch->data + batch->len, 0, len - batch->len);
    batch->len = len;
    log->offset = batch->offset + len;
    log->batch_bytes = len;
    log->filling = NULL;
    batch->next = NULL;
    *log->queue_last = batch;
    log->queue_last = &batch->next;
}

static struct log_batch *queue_take(struct log *log)
{
    if (log->queue_first == NULL)
        log_seal(log);
    struct log_batch *batch = log->queue_first;
    if (batch == NULL)
        return NULL;
    log->queue_first = batch->next;
    if (log->queue_first == NULL)
        log->queue_last = &log->queue_first;
    batch->next = NULL;
    if (batch->head_bytes > 0)
        log_segment_header(log, batch->segment, 0, batch->data);
    return batch;
}

void log_queue_drop(struct log *log)
{
    log_seal(log);
    while (log->queue_first != NULL) {
        struct log_batch *batch = log->queue_first;
        log->queue_first = batch->next;
        batch_free(log, batch);
    }
    log->queue_last = &log->queue_first;
}

/* ---- the memory tail ---- */

/* Under the lock. The list of batches that were dropped from the tail and have no reader. */
static struct log_batch *tail_shrink(struct log *log, size_t bytes_max)
{
    struct log_batch *dead = NULL;
    while (log->tail_first != NULL && log->tail_bytes > bytes_max) {
        struct log_batch *batch = log->tail_first;
        log->tail_first = batch->next;
        log->tail_bytes -= batch->cap;
        if (--batch->refs == 0) {
            batch->next = dead;
            dead = batch;
        }
    }
    if (log->tail_first == NULL)
        log->tail_last = &log->tail_first;
    return dead;
}

static void batches_free(struct log *log, struct log_batch *batch)
{
    while (batch != NULL) {
        struct log_batch *next = batch->next;
        batch_free(log, batch);
        batch = next;
    }
}

void log_tail_drop(struct log *log)
{
    (void)pthread_mutex_lock(log->lock);
    struct log_batch *dead = tail_shrink(log, 0);
    (void)pthread_mutex_unlock(log->lock);
    batches_free(log, dead);
}

/* ---- writing ---- */

void log_fail(struct log *log, int rc, const struct err_detail *detail)
{
    ASSERT(!log->failed);
    log->failed = true;
    log_queue_drop(log);
    if (log->on_failed != NULL)
        log->on_failed(log->ctx, rc, detail);
}

static void batch_failed(struct log *log, struct log_batch *batch, int res)
{
    struct err_detail detail;
    char name[LOG_NAME_LEN];
    log_segment_name(batch->segment->number, name);
    err_detail_set(&detail, "%s/%s: writing %zu bytes at %llu: %s", log->dir, name, batch->len,
                   (unsigned long long)batch->offset,
                   res < 0 ? strerror(-res) : "the kernel wrote less");
    batch_free(log, batch);
    log_fail(log, res < 0 ? err_from_errno(-res) : ERR_IO, &detail);
}

/* The batch is on disk: readers may see it. */
static void batch_publish(struct log *log, struct log_batch *batch)
{
    struct log_segment *segment = batch->segment;
    (void)pthread_mutex_lock(log->lock);
    segment->end = batch->offset + batch->len;
    segment->headed = true;
    log_segment_mark(segment, batch->first, batch->offset + batch->head_bytes);
    *log->tail_last = batch;
    log->tail_last = &batch->next;
    log->tail_bytes += batch->cap;
    log->durable = batch->last;
    struct log_batch *dead = tail_shrink(log, LOG_TAIL_BYTES_MAX);
    (void)pthread_mutex_unlock(log->lock);
    batches_free(log, dead);
}

static void batch_done(struct log *log, struct log_batch *batch, int res)
{
    if (res != (int)batch->len && !PLANTED(32)) {
        batch_failed(log, batch, res);
        return;
    }
    struct log_segment *segment = batch->segment;
    uint64_t last = batch->last;
    batch_publish(log, batch);
    /* Batches are in order: a segment that is not the last one and not next has all it gets. */
    bool more = log->queue_first != NULL
                    ? log->queue_first->segment == segment
                    : segment == log_segment_current(log) ||
                          (log->filling != NULL && log->filling->segment == segment);
    if (!more) {
        log_file_close(segment->fd);
        segment->fd = -1;
    }
    log->on_durable(log->ctx, last);
}

static void write_submit(struct log *log)
{
    const struct log_batch *batch = log->writing;
    struct io_uring_sqe *sqe = loop_sqe(log->loop);
    ASSERT(batch->len <= INT32_MAX);
    io_uring_prep_write(sqe, batch->segment->fd, batch->data, (unsigned)batch->len, batch->offset);
    if (!log->no_sync && !PLANTED(15))
        sqe->rw_flags = RWF_DSYNC;
    loop_sqe_bind(sqe, &log->write_req);
}

static void write_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct log *log = CONTAINER_OF(req, struct log, write_req);
    (void)cqe_flags;
    if (res == -EINTR || res == -EAGAIN) {
        write_submit(log);
        return;
    }
    struct log_batch *batch = log->writing;
    log->writing = NULL;
    if (log->offset > log_segment_current(log)->bytes / 2)
        log_prepare_start(log);
    /* At the end of the turn, so that what the callbacks append goes along. */
    loop_defer(log->loop, &log->defer);
    batch_done(log, batch, res);
}

void log_write_start(struct log *log)
{
    if (log->failed || log->writing != NULL)
        return;
    log->writing = queue_take(log);
    if (log->writing == NULL)
        return;
    log->write_req.done = write_done;
    write_submit(log);
}

void log_write_finish(struct log *log, bool all)
{
    while (log->writing != NULL) {
        int res = loop_await(log->loop, &log->write_req);
        if (res == -EINTR || res == -EAGAIN) {
            write_submit(log);
            continue;
        }
        struct log_batch *batch = log->writing;
        log->writing = NULL;
        batch_done(log, batch, res);
    }
    while (all && !log->failed) {
        struct log_batch *batch = queue_take(log);
        if (batch == NULL)
            return;
        int rc = log_file_write(log, batch->segment->fd, batch->data, batch->len, batch->offset);
        batch_done(log, batch, rc == 0 ? (int)batch->len : -rc);
    }
}
