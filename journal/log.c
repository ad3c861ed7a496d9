/* The journal of one shard: opening, appending, trimming, resetting, closing. See log_int.h for how
 * the parts fit together. */
#include "journal/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "journal/log_int.h"

static void defer_run(struct loop_defer *d)
{
    log_write_start(CONTAINER_OF(d, struct log, defer));
}

static void log_free(struct log *log)
{
    log_queue_drop(log);
    log_tail_drop(log);
    log_buffers_drop(log);
    for (size_t i = 0; i < log->segment_count; i++)
        log_segment_free(log->segments[i]);
    mem_free(log->segments);
    log_segment_free(log->spare);
    if (log->dir_fd >= 0)
        (void)close(log->dir_fd);
    if (log->lock_fd >= 0)
        (void)close(log->lock_fd);
    (void)pthread_mutex_destroy(log->lock);
    mem_free(log->lock);
    mem_free(log->dir);
    mem_free(log);
}

static int dir_open(struct log *log, struct err_detail *detail)
{
    log->lock_fd = -1;
    log->dir_fd = open(log->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (log->dir_fd >= 0)
        log->lock_fd = openat(log->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (log->lock_fd < 0) {
        int rc = err_from_errno(errno);
        err_detail_set(detail, "%s: cannot open the directory: %s", log->dir, strerror(errno));
        return rc;
    }
    if (flock(log->lock_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        err_detail_set(detail, "%s: the journal is in use by another process", log->dir);
        return ERR_BUSY;
    }
    return 0;
}

int log_open(struct log **ret,
             const struct log_config *config,
             struct log_recovery *ret_info,
             struct err_detail *detail)
{
    uint64_t segment_bytes =
        config->segment_bytes != 0 ? config->segment_bytes : LOG_SEGMENT_BYTES_DEFAULT;
    segment_bytes = log_block_up(MAX(segment_bytes, 2 * LOG_BLOCK));
    if (segment_bytes > LOG_SEGMENT_BYTES_MAX - LIMIT_RECORD_BYTES - 2 * LOG_BLOCK) {
        err_detail_set(detail, "%s: segments of %llu bytes: too large", config->dir,
                       (unsigned long long)segment_bytes);
        return ERR_INVALID;
    }
    ASSERT(config->on_durable != NULL && config->loop != NULL);
    struct log *log = mem_calloc(1, sizeof *log);
    log->loop = config->loop;
    log->ctx = config->ctx;
    log->on_durable = config->on_durable;
    log->on_failed = config->on_failed;
    log->dir = mem_strdup(config->dir);
    log->no_sync = config->no_sync;
    log->direct = !config->no_sync;
    log->segment_bytes = segment_bytes;
    log->epoch = config->epoch;
    log->queue_last = &log->queue_first;
    log->tail_last = &log->tail_first;
    log->defer.run = defer_run;
    log->lock = mem_alloc(sizeof *log->lock);
    (void)pthread_mutex_init(log->lock, NULL);

    int rc = dir_open(log, detail);
    if (rc == 0)
        rc = log_recover(log, ret_info, detail);
    if (rc != 0) {
        log_free(log);
        return rc;
    }
    *ret = log;
    return 0;
}

void log_close(struct log *log)
{
    if (log == NULL)
        return;
    ASSERT(loop_here(log->loop));
    log->closing = true;
    log_write_finish(log, true);
    log_prepare_finish(log);
    loop_undefer(log->loop, &log->defer);
    log_free(log);
}

/* ---- appending ---- */

/* Is there room for so many bytes in the batch that is being filled? */
static bool filling_fits(const struct log *log, size_t bytes)
{
    const struct log_batch *batch = log->filling;
    if (batch == NULL)
        return false;
    size_t room = batch->len - batch->head_bytes < LOG_WRITE_BYTES_MAX
                      ? LOG_WRITE_BYTES_MAX - (batch->len - batch->head_bytes)
                      : 0;
    return bytes <= room && batch->offset + batch->len + bytes <= batch->segment->bytes;
}

/* A batch that begins at `offset` needs a new segment for so many bytes. */
static bool segment_is_full(const struct log *log, uint64_t offset, size_t bytes)
{
    return MAX(offset, LOG_BLOCK) + bytes > log_segment_current(log)->bytes;
}

/* A batch with room for a record of so many bytes becomes `filling`. */
static int batch_for(struct log *log, size_t bytes)
{
    if (filling_fits(log, bytes))
        return 0;
    log_seal(log);
    if (segment_is_full(log, log->offset, bytes)) {
        int rc = log_segment_next(log, bytes);
        if (rc != 0)
            return rc;
    }
    log->filling = log_batch_new(log);
    return 0;
}

int log_reserve(struct log *log, size_t len)
{
    ASSERT(loop_here(log->loop));
    if (log->failed)
        return ERR_FATAL;
    if (log->closing)
        return ERR_CLOSED;
    if (len > LIMIT_RECORD_BYTES)
        return ERR_TOO_BIG;
    const struct log_batch *batch = log->filling;
    size_t bytes = log_record_bytes(len);
    uint64_t offset = batch != NULL ? log_block_up(batch->offset + batch->len) : log->offset;
    if (filling_fits(log, bytes) || !segment_is_full(log, offset, bytes))
        return 0;
    return log_spare_make(log, MAX(log->segment_bytes, log_block_up(LOG_BLOCK + bytes)));
}

int log_append(struct log *log, const struct slice *parts, size_t part_count, uint64_t *ret_index)
{
    ASSERT(loop_here(log->loop));
    if (log->failed)
        return ERR_FATAL;
    if (log->closing)
        return ERR_CLOSED;
    size_t len = 0;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].len > LIMIT_RECORD_BYTES - len)
            return ERR_TOO_BIG;
        len += parts[i].len;
    }
    if (len == 0)
        return ERR_INVALID;
    int rc = batch_for(log, log_record_bytes(len));
    if (rc != 0)
        return rc;
    log_batch_append(log, log->filling, parts, part_count, len);
    log->last++;
    ASSERT_EQ(log->filling->last, log->last);
    loop_defer(log->loop, &log->defer);
    *ret_index = log->last;
    return 0;
}

uint64_t log_last(const struct log *log)
{
    return log->last;
}

static uint64_t value_get(const struct log *log, const uint64_t *at)
{
    (void)pthread_mutex_lock(log->lock);
    uint64_t value = *at;
    (void)pthread_mutex_unlock(log->lock);
    return value;
}

static void value_set(struct log *log, uint64_t *at, uint64_t value)
{
    (void)pthread_mutex_lock(log->lock);
    *at = value;
    (void)pthread_mutex_unlock(log->lock);
}

uint64_t log_durable(const struct log *log)
{
    return value_get(log, &log->durable);
}

uint64_t log_first(const struct log *log)
{
    return value_get(log, &log->first);
}

uint64_t log_bytes(const struct log *log)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < log->segment_count; i++)
        bytes += log->segments[i]->bytes;
    return bytes;
}

/* Where the record is, or a little before it. */
static uint64_t place_of(const struct log_segment *segment, uint64_t index)
{
    size_t low = 0, high = segment->mark_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (segment->marks[mid].index <= index)
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 ? segment->marks[low - 1].offset : 0;
}

uint64_t log_bytes_from(const struct log *log, uint64_t index)
{
    uint64_t bytes = 0;
    ASSERT(loop_here(log->loop));
    if (index > log->durable)
        return 0;
    for (size_t i = log->segment_count; i > 0; i--) {
        const struct log_segment *segment = log->segments[i - 1];
        if (segment->first <= index)
            return bytes + segment->end - MIN(place_of(segment, index), segment->end);
        bytes += segment->end;
    }
    return bytes;
}

/* ---- giving up the past ---- */

void log_trim(struct log *log, uint64_t keep_from)
{
    ASSERT(loop_here(log->loop));
    keep_from = MIN(keep_from, log_durable(log) + 1);
    while (log->segment_count > 1 && log->segments[1]->first <= keep_from) {
        /* Readers must know before the file changes. */
        uint64_t first = log_first(log);
        value_set(log, &log->first, log->segments[1]->first);
        if (log_segment_retire(log) != 0) {
            value_set(log, &log->first, first);
            return; /* the next trim tries again */
        }
    }
}

void log_epoch_set(struct log *log, uint64_t epoch)
{
    ASSERT(loop_here(log->loop));
    log->epoch = epoch;
}

/* The spare becomes the last segment, with a header that says what of the others counts. On failure
 * nothing has changed (ERR_NO_SPACE), or the log has ended. */
static int segment_turn(struct log *log, uint64_t first, uint32_t flags)
{
    int rc = log_spare_make(log, log->segment_bytes);
    if (rc != 0) {
        log->failed = rc != ERR_NO_SPACE;
        return rc;
    }
    struct log_segment *segment = log->spare;
    log->spare = NULL;
    segment->first = first;
    rc = log_segment_write_header(log, segment, flags);
    if (rc != 0) {
        /* The header may be on disk all the same: what was appended now could vanish behind it. */
        log_segment_free(segment);
        log->failed = true;
        return err_from_errno(rc);
    }
    /* From here on the log goes on at `first`, whatever happens to the old files. */
    log_queue_drop(log);
    log_tail_drop(log);
    log_segment_add(log, segment);
    log->offset = segment->end;
    log->last = first - 1;
    value_set(log, &log->durable, first - 1);
    return 0;
}

int log_cut(struct log *log, uint64_t last)
{
    ASSERT(loop_here(log->loop) && last <= log->last && last + 1 >= log_first(log));
    if (log->failed)
        return ERR_FATAL;
    if (last == log->last)
        return 0;
    log_write_finish(log, true);
    if (log->failed)
        return ERR_FATAL;
    struct log_segment *before = log_segment_current(log);
    int rc = segment_turn(log, last + 1, LOG_HEADER_CUT);
    if (rc != 0)
        return rc;
    if (before->fd >= 0)
        log_file_close(before->fd);
    before->fd = -1;
    log_segment_drop_above(log, last);
    return 0;
}

int log_reset(struct log *log, uint64_t next)
{
    ASSERT(loop_here(log->loop) && next >= 1);
    log_write_finish(log, false);
    if (log->failed)
        return ERR_FATAL;
    int rc = segment_turn(log, next, LOG_HEADER_RESET);
    if (rc != 0)
        return rc;
    value_set(log, &log->first, next);
    while (rc == 0 && log->segment_count > 1)
        rc = log_segment_retire(log);
    if (rc == 0)
        rc = log_dir_sync(log);
    log->failed = rc != 0;
    return rc == 0 ? 0 : err_from_errno(rc);
}
