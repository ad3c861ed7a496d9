/* The segment files: names, creation, recycling, and blocking I/O on them. A shell.
 *
 * NUMBER.seg holds records or is prepared for them, NUMBER.free is a file of the standard size
 * kept for reuse. A file is zero-filled before it gets its first .seg name, because overwriting
 * written blocks is faster than filling unwritten extents. */
#include "journal/log_int.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"

/* Never written to, so it takes no memory; not const, so it takes no room in the binary. */
static _Alignas(LOG_BLOCK) uint8_t zeros[LOG_ZEROS_BYTES];
const uint8_t *const log_zeros = zeros;

void log_segment_name(uint64_t number, char out[LOG_NAME_LEN])
{
    (void)snprintf(out, LOG_NAME_LEN, "%020" PRIu64 ".seg", number);
}

void log_free_name(uint64_t number, char out[LOG_NAME_LEN])
{
    (void)snprintf(out, LOG_NAME_LEN, "%020" PRIu64 ".free", number);
}

int log_os_error(const struct log *log,
                 const char *name,
                 const char *what,
                 int errnum,
                 struct err_detail *detail)
{
    err_detail_set(detail, "%s/%s: %s: %s", log->dir, name, what, strerror(errnum));
    return err_from_errno(errnum);
}

struct log_segment *log_segment_new(uint64_t number)
{
    struct log_segment *segment = mem_calloc(1, sizeof *segment);
    segment->number = number;
    segment->fd = -1;
    return segment;
}

void log_segment_free(struct log_segment *segment)
{
    if (segment == NULL)
        return;
    if (segment->fd >= 0)
        log_file_close(segment->fd);
    mem_free(segment->marks);
    mem_free(segment);
}

struct log_segment *log_segment_current(const struct log *log)
{
    ASSERT(log->segment_count > 0);
    return log->segments[log->segment_count - 1];
}

void log_segment_add(struct log *log, struct log_segment *segment)
{
    (void)pthread_mutex_lock(log->lock);
    if (log->segment_count == log->segment_cap) {
        log->segment_cap = log->segment_cap == 0 ? 8 : 2 * log->segment_cap;
        log->segments = mem_realloc(log->segments, log->segment_cap * sizeof(void *));
    }
    log->segments[log->segment_count++] = segment;
    (void)pthread_mutex_unlock(log->lock);
}

void log_segment_mark(struct log_segment *segment, uint64_t index, uint64_t offset)
{
    if (segment->mark_count > 0 &&
        offset - segment->marks[segment->mark_count - 1].offset < LOG_MARK_BYTES)
        return;
    if (segment->mark_count == segment->mark_cap) {
        segment->mark_cap = segment->mark_cap == 0 ? 4 : 2 * segment->mark_cap;
        segment->marks = mem_realloc(segment->marks, segment->mark_cap * sizeof segment->marks[0]);
    }
    segment->marks[segment->mark_count++] = (struct log_mark){.index = index, .offset = offset};
}

int log_file_open(const struct log *log, const char *name, int flags, int *ret_fd)
{
    int fd = openat(log->dir_fd, name, flags | O_CLOEXEC | (log->direct ? O_DIRECT : 0), 0600);
    if (fd < 0)
        return errno;
    if ((flags & O_ACCMODE) == O_RDWR)
        (void)flock(fd, LOCK_EX | LOCK_NB); /* a file system without locks has to do without */
    *ret_fd = fd;
    return 0;
}

void log_file_close(int fd)
{
    (void)flock(fd, LOCK_UN);
    (void)close(fd); /* nothing is left to fail: every write was synced by itself */
}

static int write_all(int fd, const uint8_t *data, size_t len, uint64_t offset, int rw_flags)
{
    while (len > 0) {
        struct iovec iov;
        memcpy(&iov.iov_base, &data, sizeof data); /* the interface lacks the const */
        iov.iov_len = len;
        ssize_t n = pwritev2(fd, &iov, 1, (off_t)offset, rw_flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EIO;
        data += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int log_file_write(const struct log *log, int fd, const void *data, size_t len, uint64_t offset)
{
    return write_all(fd, data, len, offset, log->no_sync ? 0 : RWF_DSYNC);
}

int log_direct_probe(struct log *log)
{
    static const char name[] = "probe";
    int fd = -1;
    int rc = log_file_open(log, name, O_RDWR | O_CREAT, &fd);
    if (rc == 0 && log->direct)
        rc = write_all(fd, log_zeros, LOG_BLOCK, 0, 0);
    if (fd >= 0)
        log_file_close(fd);
    if (rc == EINVAL && log->direct) {
        log->direct = false; /* some file systems: through the page cache, with a sync */
        return log_direct_probe(log);
    }
    (void)unlinkat(log->dir_fd, name, 0); /* a left-over is overwritten by the next probe */
    return rc == ENOSPC ? 0 : rc;         /* a full disk can still be read, and trimmed */
}

static int file_sync(const struct log *log, int fd)
{
    if (log->no_sync)
        return 0;
    return fdatasync(fd) == 0 ? 0 : errno;
}

/* Writes zeros from `from`, which need not be a block's start, to `to`, which is one's end. */
int log_file_zero(const struct log *log, int fd, uint64_t from, uint64_t to)
{
    uint64_t start = from / LOG_BLOCK * LOG_BLOCK;
    int rc = 0;
    if (start != from) {
        uint8_t *block = mem_aligned(LOG_BLOCK, LOG_BLOCK);
        memset(block, 0, LOG_BLOCK);
        ssize_t n = pread(fd, block, LOG_BLOCK, (off_t)start);
        if (n < 0) {
            rc = errno;
        } else {
            memset(block + (from - start), 0, (size_t)(LOG_BLOCK - (from - start)));
            rc = write_all(fd, block, LOG_BLOCK, start, 0);
        }
        mem_free(block);
        start += LOG_BLOCK;
    }
    for (; rc == 0 && start < to; start += LOG_ZEROS_BYTES)
        rc = write_all(fd, log_zeros, (size_t)MIN(LOG_ZEROS_BYTES, to - start), start, 0);
    return rc != 0 ? rc : file_sync(log, fd);
}

int log_dir_sync(struct log *log)
{
    if (!log->no_sync && fsync(log->dir_fd) != 0)
        return errno;
    log->dir_dirty = false;
    return 0;
}

void log_segment_header(const struct log *log,
                        const struct log_segment *segment,
                        uint32_t flags,
                        uint8_t out[LOG_BLOCK])
{
    struct log_header header = {.salt = log->salt,
                                .number = segment->number,
                                .first = segment->first,
                                .bytes = segment->bytes,
                                .flags = flags | (segment->recycled ? LOG_HEADER_RECYCLED : 0)};
    log_header_encode(&header, out);
}

int log_segment_write_header(const struct log *log, struct log_segment *segment, uint32_t flags)
{
    uint8_t *block = mem_aligned(LOG_BLOCK, LOG_BLOCK);
    log_segment_header(log, segment, flags, block);
    int rc = log_file_write(log, segment->fd, block, LOG_BLOCK, 0);
    mem_free(block);
    segment->headed = rc == 0;
    segment->end = LOG_BLOCK;
    return rc;
}

static int file_reserve(int fd, uint64_t bytes)
{
    if (fallocate(fd, 0, 0, (off_t)bytes) == 0 || errno == EOPNOTSUPP)
        return 0; /* without fallocate, writing zeros reserves */
    return errno;
}

static int
file_make(struct log *log, struct log_segment *segment, const char *name, const char **ret_what)
{
    *ret_what = "create";
    int rc = log_file_open(log, name, O_RDWR | O_CREAT | O_TRUNC, &segment->fd);
    if (rc != 0)
        return rc;
    *ret_what = "reserve space";
    rc = file_reserve(segment->fd, segment->bytes);
    if (rc != 0)
        return rc;
    *ret_what = "fill";
    return log_file_zero(log, segment->fd, 0, segment->bytes);
}

int log_segment_create(struct log *log,
                       uint64_t number,
                       uint64_t bytes,
                       uint64_t first,
                       struct log_segment **ret,
                       struct err_detail *detail)
{
    char temporary[LOG_NAME_LEN], name[LOG_NAME_LEN];
    log_free_name(number, temporary);
    log_segment_name(number, name);
    struct log_segment *segment = log_segment_new(number);
    segment->bytes = bytes;
    const char *what;
    int rc = file_make(log, segment, temporary, &what);
    if (rc == 0 && first > 0) {
        what = "write the header";
        segment->first = first;
        rc = log_segment_write_header(log, segment, LOG_HEADER_RESET);
    }
    if (rc == 0) {
        what = "rename";
        if (renameat(log->dir_fd, temporary, log->dir_fd, name) != 0)
            rc = errno;
    }
    if (rc == 0) {
        what = "sync its directory";
        rc = log_dir_sync(log);
    }
    if (rc != 0) {
        (void)unlinkat(log->dir_fd, temporary, 0);
        (void)unlinkat(log->dir_fd, name, 0);
        log_segment_free(segment);
        return log_os_error(log, name, what, rc, detail);
    }
    *ret = segment;
    return 0;
}

int log_segment_grow(struct log *log, struct log_segment *segment, uint64_t bytes)
{
    ASSERT(bytes >= segment->bytes && !segment->headed);
    int rc = file_reserve(segment->fd, bytes);
    if (rc == 0)
        rc = log_file_zero(log, segment->fd, segment->bytes, bytes);
    if (rc != 0) {
        (void)ftruncate(segment->fd, (off_t)segment->bytes); /* gives the space back, if it can */
        return rc;
    }
    segment->bytes = bytes;
    return 0;
}

void log_segment_drop_above(struct log *log, uint64_t index)
{
    while (log->segment_count > 1 && log->segments[log->segment_count - 2]->first > index) {
        struct log_segment *segment = log->segments[log->segment_count - 2];
        char name[LOG_NAME_LEN];
        log_segment_name(segment->number, name);
        (void)unlinkat(log->dir_fd, name, 0); /* the header of the last one voids it anyway */
        log->dir_dirty = true;
        (void)pthread_mutex_lock(log->lock);
        log->segment_count--;
        log->segments[log->segment_count - 1] = log->segments[log->segment_count];
        (void)pthread_mutex_unlock(log->lock);
        log_segment_free(segment);
    }
}

int log_segment_retire(struct log *log)
{
    struct log_segment *segment = log->segments[0];
    char name[LOG_NAME_LEN], free_name[LOG_NAME_LEN];
    log_segment_name(segment->number, name);
    log_free_name(segment->number, free_name);
    /* Names go in order even if power fails, or a gap would look like a lost segment. */
    int rc = log->dir_dirty ? log_dir_sync(log) : 0;
    if (rc != 0)
        return rc;
    bool keep = log->stock_count < LOG_STOCK_MAX && segment->bytes == log->segment_bytes;
    if (keep && renameat(log->dir_fd, name, log->dir_fd, free_name) != 0)
        return errno;
    if (!keep && unlinkat(log->dir_fd, name, 0) != 0 && errno != ENOENT)
        return errno;
    log->dir_dirty = true;
    if (keep)
        log->stock[log->stock_count++] = segment->number;
    (void)pthread_mutex_lock(log->lock);
    log->segment_count--;
    memmove(&log->segments[0], &log->segments[1], log->segment_count * sizeof(void *));
    (void)pthread_mutex_unlock(log->lock);
    log_segment_free(segment);
    return 0;
}
