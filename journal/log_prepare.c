/* The next segment is made ready while the last one fills, by requests to the loop:
 *
 *   free file in stock:  RENAME -> SYNC_DIR -> ready
 *   else:                RESERVE -> ZERO (1 MiB at a time) -> SYNC -> RENAME -> SYNC_DIR -> ready
 *
 * The file carries its .seg name, without a header of its own, when it is ready; the header goes
 * out with the first batch, in one write. A failure gives up until an append needs the segment:
 * that tries again, blocking, and reports what is wrong. */
#include "journal/log_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"

static void prepare_done(struct loop_req *req, int res, uint32_t cqe_flags);

static void sync_prepare(const struct log *log, struct io_uring_sqe *sqe, int fd)
{
    if (log->no_sync)
        io_uring_prep_nop(sqe);
    else
        io_uring_prep_fsync(sqe, fd, 0);
}

static void step_submit(struct log *log, enum log_prepare_step step)
{
    struct log_prepare *p = &log->prepare;
    p->step = step;
    p->req.done = prepare_done;
    struct io_uring_sqe *sqe = loop_sqe(log->loop);
    switch (step) {
    case LOG_PREPARE_RESERVE:
        io_uring_prep_fallocate(sqe, p->segment->fd, 0, 0, (off_t)p->segment->bytes);
        break;
    case LOG_PREPARE_ZERO:
        io_uring_prep_write(sqe, p->segment->fd, log_zeros,
                            (unsigned)MIN(LOG_ZEROS_BYTES, p->segment->bytes - p->zeroed),
                            p->zeroed);
        break;
    case LOG_PREPARE_SYNC:
        sync_prepare(log, sqe, p->segment->fd);
        break;
    case LOG_PREPARE_RENAME:
        io_uring_prep_renameat(sqe, log->dir_fd, p->from, log->dir_fd, p->to, 0);
        break;
    case LOG_PREPARE_SYNC_DIR:
        sync_prepare(log, sqe, log->dir_fd);
        break;
    case LOG_PREPARE_IDLE:
        UNREACHABLE();
    }
    loop_sqe_bind(sqe, &p->req);
}

static void prepare_give_up(struct log *log)
{
    struct log_prepare *p = &log->prepare;
    /* Whichever name it has: nothing was written to it that counts. */
    (void)unlinkat(log->dir_fd, p->from, 0);
    (void)unlinkat(log->dir_fd, p->to, 0);
    log_segment_free(p->segment);
    p->segment = NULL;
    p->step = LOG_PREPARE_IDLE;
    p->failed = true;
    log->dir_dirty = true;
}

static void prepare_ready(struct log *log)
{
    struct log_prepare *p = &log->prepare;
    log->spare = p->segment;
    p->segment = NULL;
    p->step = LOG_PREPARE_IDLE;
}

static void prepare_step(struct log *log, int res)
{
    struct log_prepare *p = &log->prepare;
    if (res == -EINTR || res == -EAGAIN) {
        step_submit(log, p->step);
        return;
    }
    /* A file system without fallocate reserves by being written to. */
    if (p->step == LOG_PREPARE_RESERVE && res == -EOPNOTSUPP)
        res = 0;
    if (res < 0 || (p->step == LOG_PREPARE_ZERO && res == 0)) {
        prepare_give_up(log);
        return;
    }
    switch (p->step) {
    case LOG_PREPARE_RESERVE:
        step_submit(log, LOG_PREPARE_ZERO);
        return;
    case LOG_PREPARE_ZERO:
        p->zeroed += (uint64_t)res;
        step_submit(log, p->zeroed < p->segment->bytes ? LOG_PREPARE_ZERO : LOG_PREPARE_SYNC);
        return;
    case LOG_PREPARE_SYNC:
        step_submit(log, LOG_PREPARE_RENAME);
        return;
    case LOG_PREPARE_RENAME:
        log->dir_dirty = false; /* the sync that follows covers what happened until now */
        step_submit(log, LOG_PREPARE_SYNC_DIR);
        return;
    case LOG_PREPARE_SYNC_DIR:
        prepare_ready(log);
        return;
    case LOG_PREPARE_IDLE:
        break;
    }
    UNREACHABLE();
}

static void prepare_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    (void)cqe_flags;
    prepare_step(CONTAINER_OF(req, struct log, prepare.req), res);
}

static uint64_t next_number(const struct log *log)
{
    return log_segment_current(log)->number + 1;
}

void log_prepare_start(struct log *log)
{
    struct log_prepare *p = &log->prepare;
    if (log->spare != NULL || p->step != LOG_PREPARE_IDLE || p->failed || log->failed)
        return;
    bool reuse = log->stock_count > 0;
    p->segment = log_segment_new(next_number(log));
    p->segment->bytes = log->segment_bytes;
    p->segment->recycled = reuse;
    p->zeroed = 0;
    log_segment_name(p->segment->number, p->to);
    log_free_name(reuse ? log->stock[--log->stock_count] : p->segment->number, p->from);
    int flags = reuse ? O_RDWR : O_RDWR | O_CREAT | O_TRUNC;
    if (log_file_open(log, p->from, flags, &p->segment->fd) != 0) {
        prepare_give_up(log);
        return;
    }
    step_submit(log, reuse ? LOG_PREPARE_RENAME : LOG_PREPARE_RESERVE);
}

void log_prepare_finish(struct log *log)
{
    while (log->prepare.step != LOG_PREPARE_IDLE)
        prepare_step(log, loop_await(log->loop, &log->prepare.req));
}

/* Blocking: a free file from the stock under the next name. */
static bool spare_from_stock(struct log *log)
{
    char from[LOG_NAME_LEN], to[LOG_NAME_LEN];
    uint64_t number = next_number(log);
    log_free_name(log->stock[--log->stock_count], from);
    log_segment_name(number, to);
    struct log_segment *segment = log_segment_new(number);
    segment->bytes = log->segment_bytes;
    segment->recycled = true;
    if (log_file_open(log, from, O_RDWR, &segment->fd) == 0 &&
        renameat(log->dir_fd, from, log->dir_fd, to) == 0 && log_dir_sync(log) == 0) {
        log->spare = segment;
        return true;
    }
    log_segment_free(segment);
    (void)unlinkat(log->dir_fd, from, 0); /* useless: a new file takes its place */
    return false;
}

int log_spare_make(struct log *log, uint64_t bytes)
{
    log_prepare_finish(log);
    log->prepare.failed = false;
    while (log->spare == NULL && log->stock_count > 0)
        (void)spare_from_stock(log); /* false: it is gone from the stock */
    if (log->spare == NULL)
        return log_segment_create(log, next_number(log), bytes, 0, &log->spare, NULL);
    if (log->spare->bytes >= bytes)
        return 0;
    int rc = log_segment_grow(log, log->spare, bytes);
    return rc == 0 ? 0 : err_from_errno(rc);
}

int log_segment_next(struct log *log, size_t need)
{
    int rc = log_spare_make(log, MAX(log->segment_bytes, log_block_up(LOG_BLOCK + need)));
    if (rc != 0)
        return rc;
    struct log_segment *segment = log->spare;
    log->spare = NULL;
    segment->first = log->last + 1;
    log_segment_add(log, segment);
    log->offset = 0;
    return 0;
}
