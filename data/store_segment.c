/* Segment files: the table, descriptors on demand, making and removing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "data/store_int.h"

char *segment_path(const char *dir, uint64_t number)
{
    return mem_printf("%s/segments/%016llx", dir, (unsigned long long)number);
}

int segment_open_file(const struct store *s, uint64_t number, int flags, int *ret_fd)
{
    char *path = segment_path(s->dir, number);
    int fd = open(path, flags | O_CLOEXEC | (s->direct ? O_DIRECT : 0), 0600);
    int errnum = errno;
    mem_free(path);
    if (fd < 0)
        return err_from_errno(errnum);
    *ret_fd = fd;
    return 0;
}

int dir_sync(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_from_errno(errno);
    int rc = fsync(fd) == 0 ? 0 : err_from_errno(errno);
    (void)close(fd); /* nothing was written through it */
    return rc;
}

int free_bytes_of(const char *dir, uint64_t *ret)
{
    struct statvfs st;
    if (statvfs(dir, &st) != 0)
        return err_from_errno(errno);
    *ret = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}

static int header_write(const struct store *s, uint64_t number, int fd)
{
    struct segment_header h = {.number = number};
    memcpy(h.store_id, s->store_id, sizeof h.store_id);
    uint8_t *block = mem_aligned(STORE_BLOCK_BYTES, STORE_BLOCK_BYTES);
    segment_header_encode(&h, block);
    ssize_t n = pwrite(fd, block, STORE_BLOCK_BYTES, 0);
    int errnum = errno;
    mem_free(block);
    if (n < 0)
        return err_from_errno(errnum);
    if (n != (ssize_t)STORE_BLOCK_BYTES)
        return ERR_NO_SPACE;
    return s->no_sync || fdatasync(fd) == 0 ? 0 : err_from_errno(errno);
}

int segment_make(const struct store *s, uint64_t number, int *ret_fd)
{
    int fd = -1;
    /* A file of this number can only be left over from an attempt that failed half-way. */
    int rc = segment_open_file(s, number, O_RDWR | O_CREAT | O_TRUNC, &fd);
    if (rc != 0)
        return rc;
    int errnum = posix_fallocate(fd, 0, (off_t)s->segment_bytes);
    rc = errnum == 0 ? header_write(s, number, fd) : err_from_errno(errnum);
    char *dir = mem_printf("%s/segments", s->dir);
    if (rc == 0 && !s->no_sync)
        rc = dir_sync(dir);
    mem_free(dir);
    if (rc != 0) {
        char *path = segment_path(s->dir, number);
        (void)unlink(path); /* the next attempt truncates it if this fails */
        mem_free(path);
        (void)close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

/* ---- the table ---- */

struct store_segment *segment_new(uint64_t number)
{
    struct store_segment *seg = mem_calloc(1, sizeof *seg);
    seg->number = number;
    seg->stat.end = STORE_BLOCK_BYTES;
    seg->fd = -1;
    return seg;
}

void segment_insert(struct store *s, struct store_segment *seg)
{
    ASSERT(s->segment_count == 0 || s->segments[s->segment_count - 1]->number < seg->number);
    if (s->segment_count == s->segment_cap) {
        s->segment_cap = s->segment_cap == 0 ? 64 : s->segment_cap * 2;
        s->segments = mem_realloc(s->segments, s->segment_cap * sizeof(struct store_segment *));
    }
    s->segments[s->segment_count++] = seg;
}

static size_t segment_idx(const struct store *s, uint64_t number)
{
    size_t low = 0;
    size_t high = s->segment_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (s->segments[mid]->number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct store_segment *segment_find(const struct store *s, uint64_t number)
{
    size_t idx = segment_idx(s, number);
    return idx < s->segment_count && s->segments[idx]->number == number ? s->segments[idx] : NULL;
}

void segment_dirty(struct store *s, struct store_segment *seg)
{
    if (seg->dirty)
        return;
    seg->dirty = true;
    seg->dirty_next = s->dirty;
    s->dirty = seg;
}

/* ---- descriptors ---- */

static void idle_unlink(struct store *s, struct store_segment *seg)
{
    if (seg->newer != NULL)
        seg->newer->older = seg->older;
    else
        s->fd_newest = seg->older;
    if (seg->older != NULL)
        seg->older->newer = seg->newer;
    else
        s->fd_oldest = seg->newer;
    seg->newer = NULL;
    seg->older = NULL;
    s->fd_idle--;
}

static void idle_link(struct store *s, struct store_segment *seg)
{
    seg->older = s->fd_newest;
    if (s->fd_newest != NULL)
        s->fd_newest->newer = seg;
    else
        s->fd_oldest = seg;
    s->fd_newest = seg;
    s->fd_idle++;
}

static void segment_close(struct store_segment *seg)
{
    if (seg->fd >= 0)
        (void)close(seg->fd); /* all that matters was written with O_DSYNC */
    seg->fd = -1;
}

int segment_ref(struct store *s, struct store_segment *seg)
{
    if (seg->fd < 0) {
        ASSERT_EQ(seg->refs, 0);
        int rc = segment_open_file(s, seg->number, O_RDWR, &seg->fd);
        if (rc != 0)
            return rc;
    } else if (seg->refs == 0) {
        idle_unlink(s, seg);
    }
    seg->refs++;
    return 0;
}

void segment_unref(struct store *s, struct store_segment *seg)
{
    ASSERT(seg->refs > 0);
    if (--seg->refs > 0)
        return;
    if (seg->removed) {
        segment_close(seg);
        mem_free(seg);
        return;
    }
    idle_link(s, seg);
    if (s->fd_idle > STORE_FDS_MAX) {
        struct store_segment *oldest = s->fd_oldest;
        idle_unlink(s, oldest);
        segment_close(oldest);
    }
}

void segment_remove(struct store *s, struct store_segment *seg)
{
    size_t idx = segment_idx(s, seg->number);
    ASSERT(s->segments[idx] == seg && seg != s->active);
    memmove(s->segments + idx, s->segments + idx + 1,
            (s->segment_count - idx - 1) * sizeof(struct store_segment *));
    s->segment_count--;
    for (struct store_segment **at = &s->dirty; *at != NULL; at = &(*at)->dirty_next) {
        if (*at == seg) {
            *at = seg->dirty_next;
            break;
        }
    }
    seg->removed = true;
    if (seg->refs == 0) {
        if (seg->fd >= 0)
            idle_unlink(s, seg);
        segment_close(seg);
        mem_free(seg);
    }
}

void segments_free(struct store *s)
{
    for (size_t i = 0; i < s->segment_count; i++) {
        segment_close(s->segments[i]);
        mem_free(s->segments[i]);
    }
    mem_free(s->segments);
    s->segments = NULL;
    s->segment_count = 0;
}
