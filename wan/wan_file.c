/* Crash-safe small files: a temporary file, fsync, rename, fsync of the directory. */
#include "wan/wan_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int fail(struct err_detail *d, const char *what, const char *dir, const char *name)
{
    int num = errno;
    err_detail_set(d, "cannot %s %s/%s: %s", what, dir, name, strerror(num));
    return err_from_errno(num);
}

static int dir_open(const char *dir, struct err_detail *d, int *ret)
{
    *ret = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret < 0 ? fail(d, "open the directory of", dir, "") : 0;
}

static int bytes_read(int fd, struct buf *out)
{
    for (;;) {
        buf_reserve(out, 4096);
        ssize_t got = read(fd, out->ptr + out->len, 4096);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            return 0;
        out->len += (size_t)got;
        if (out->len > WAN_FILE_MAX) {
            errno = EFBIG;
            return -1;
        }
    }
}

static int bytes_write(int fd, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t put = write(fd, bytes.ptr, bytes.len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        bytes = slice_of(bytes.ptr + put, bytes.len - (size_t)put);
    }
    return 0;
}

int wan_file_read(const char *dir, const char *name, struct buf *out, struct err_detail *d)
{
    int dir_fd;
    int rc = dir_open(dir, d, &dir_fd);
    if (rc != 0)
        return rc;
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || bytes_read(fd, out) != 0)
        rc = fail(d, "read", dir, name);
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    (void)close(dir_fd);
    return rc;
}

static int write_at(int dir_fd, const char *name, unsigned mode, struct slice bytes)
{
    char tmp[64];
    if (snprintf(tmp, sizeof tmp, "%s.new", name) >= (int)sizeof tmp) {
        errno = ENAMETOOLONG;
        return -1;
    }
    (void)unlinkat(dir_fd, tmp, 0); /* left over from a crash, perhaps with another mode */
    int fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
    if (fd < 0)
        return -1;
    bool good = bytes_write(fd, bytes) == 0 && fsync(fd) == 0;
    int num = errno;
    if (close(fd) != 0 && good) {
        num = errno;
        good = false;
    }
    if (good && renameat(dir_fd, tmp, dir_fd, name) == 0)
        return fsync(dir_fd);
    if (good)
        num = errno;
    (void)unlinkat(dir_fd, tmp, 0); /* the failure before is what is reported */
    errno = num;
    return -1;
}

int wan_file_write(
    const char *dir, const char *name, unsigned mode, struct slice bytes, struct err_detail *d)
{
    int dir_fd;
    int rc = dir_open(dir, d, &dir_fd);
    if (rc != 0)
        return rc;
    if (write_at(dir_fd, name, mode, bytes) != 0)
        rc = fail(d, "write", dir, name);
    (void)close(dir_fd);
    return rc;
}

int wan_file_remove(const char *dir, const char *name, struct err_detail *d)
{
    int dir_fd;
    int rc = dir_open(dir, d, &dir_fd);
    if (rc != 0)
        return rc;
    if ((unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT) || fsync(dir_fd) != 0)
        rc = fail(d, "remove", dir, name);
    (void)close(dir_fd);
    return rc;
}
