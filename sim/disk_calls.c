/* System calls on their way to the kernel: those about simulated files turn off here.
 *
 * The linker's --wrap sends every call of the product's code through these; paths and descriptors
 * that are not simulated go on to the real function. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "sim/disk.h"

/* name, result type, parameters, when it is ours, our way, arguments for the real one */
#define WRAP(result, name, parameters, ours, mine, arguments)                                      \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        if (ours)                                                                                  \
            return mine;                                                                           \
        return __real_##name arguments;                                                            \
    }

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    unsigned mode = (flags & O_CREAT) != 0 ? va_arg(args, unsigned) : 0;
    va_end(args);
    return disk_path_is(path) ? disk_open(path, flags) : __real_open(path, flags, mode);
}

int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    unsigned mode = (flags & O_CREAT) != 0 ? va_arg(args, unsigned) : 0;
    va_end(args);
    return disk_fd_is(dir) ? disk_openat(dir, path, flags) : __real_openat(dir, path, flags, mode);
}

WRAP(int, close, (int fd), disk_fd_is(fd), disk_close(fd), (fd))
WRAP(ssize_t,
     read,
     (int fd, void *to, size_t len),
     disk_fd_is(fd),
     disk_read(fd, to, len),
     (fd, to, len))
WRAP(ssize_t,
     write,
     (int fd, const void *from, size_t len),
     disk_fd_is(fd),
     disk_write(fd, from, len),
     (fd, from, len))
WRAP(ssize_t,
     pread,
     (int fd, void *to, size_t len, off_t at),
     disk_fd_is(fd),
     disk_pread(fd, to, len, (uint64_t)at),
     (fd, to, len, at))
WRAP(ssize_t,
     pwrite,
     (int fd, const void *from, size_t len, off_t at),
     disk_fd_is(fd),
     disk_pwrite(fd, from, len, (uint64_t)at, false),
     (fd, from, len, at))
WRAP(off_t,
     lseek,
     (int fd, off_t at, int from),
     disk_fd_is(fd),
     disk_seek(fd, at, from),
     (fd, at, from))
WRAP(int, fsync, (int fd), disk_fd_is(fd), disk_fsync(fd), (fd))
WRAP(int, fdatasync, (int fd), disk_fd_is(fd), disk_fsync(fd), (fd))
WRAP(int,
     ftruncate,
     (int fd, off_t size),
     disk_fd_is(fd),
     disk_truncate(fd, (uint64_t)size),
     (fd, size))
WRAP(int,
     fallocate,
     (int fd, int mode, off_t at, off_t len),
     disk_fd_is(fd),
     disk_allocate(fd, (uint64_t)at, (uint64_t)len),
     (fd, mode, at, len))
WRAP(int, fstat, (int fd, struct stat *st), disk_fd_is(fd), disk_fstat(fd, st), (fd, st))
WRAP(int,
     lstat,
     (const char *path, struct stat *st),
     disk_path_is(path),
     disk_stat(path, st),
     (path, st))
WRAP(int,
     stat,
     (const char *path, struct stat *st),
     disk_path_is(path),
     disk_stat(path, st),
     (path, st))
WRAP(int, flock, (int fd, int how), disk_fd_is(fd), 0, (fd, how))
WRAP(int, fchmod, (int fd, mode_t mode), disk_fd_is(fd), 0, (fd, mode))
WRAP(int, chmod, (const char *path, mode_t mode), disk_path_is(path), 0, (path, mode))
WRAP(
    int, mkdir, (const char *path, mode_t mode), disk_path_is(path), disk_mkdir(path), (path, mode))
WRAP(int, rmdir, (const char *path), disk_path_is(path), disk_remove(path, true), (path))
WRAP(int, unlink, (const char *path), disk_path_is(path), disk_remove(path, false), (path))
WRAP(int,
     rename,
     (const char *from, const char *to),
     disk_path_is(from),
     disk_rename(from, to),
     (from, to))

static int access_ours(const char *path)
{
    struct stat st;
    return disk_stat(path, &st);
}
WRAP(int, access, (const char *path, int mode), disk_path_is(path), access_ours(path), (path, mode))

static int allocate_ours(int fd, off_t at, off_t len)
{
    return disk_allocate(fd, (uint64_t)at, (uint64_t)len) == 0 ? 0 : errno;
}
WRAP(int,
     posix_fallocate,
     (int fd, off_t at, off_t len),
     disk_fd_is(fd),
     allocate_ours(fd, at, len),
     (fd, at, len))

static int stat_at(int dir, const char *name, struct stat *st)
{
    char *path = disk_fd_path(dir, name);
    int rc = disk_stat(path, st);
    mem_free(path);
    return rc;
}
WRAP(int,
     fstatat,
     (int dir, const char *name, struct stat *st, int flags),
     disk_fd_is(dir),
     stat_at(dir, name, st),
     (dir, name, st, flags))

static int unlink_at(int dir, const char *name, int flags)
{
    char *path = disk_fd_path(dir, name);
    int rc = disk_remove(path, (flags & AT_REMOVEDIR) != 0);
    mem_free(path);
    return rc;
}
WRAP(int,
     unlinkat,
     (int dir, const char *name, int flags),
     disk_fd_is(dir),
     unlink_at(dir, name, flags),
     (dir, name, flags))

static int rename_at(int dir, const char *from, int dir2, const char *to)
{
    char *a = disk_fd_path(dir, from), *b = disk_fd_path(dir2, to);
    int rc = disk_rename(a, b);
    mem_free(a);
    mem_free(b);
    return rc;
}
WRAP(int,
     renameat,
     (int dir, const char *from, int dir2, const char *to),
     disk_fd_is(dir),
     rename_at(dir, from, dir2, to),
     (dir, from, dir2, to))

static ssize_t writev_ours(int fd, const struct iovec *iov, int count, off_t at, int flags)
{
    ASSERT(count == 1);
    return disk_pwrite(fd, iov[0].iov_base, iov[0].iov_len, (uint64_t)at,
                       ((unsigned)flags & RWF_DSYNC) != 0);
}
WRAP(ssize_t,
     pwritev2,
     (int fd, const struct iovec *iov, int count, off_t at, int flags),
     disk_fd_is(fd),
     writev_ours(fd, iov, count, at, flags),
     (fd, iov, count, at, flags))

static int statvfs_ours(const char *path, struct statvfs *v)
{
    memset(v, 0, sizeof *v);
    v->f_bsize = v->f_frsize = 4096;
    v->f_blocks = (fsblkcnt_t)(1024 * GIB / 4096);
    v->f_bfree = v->f_bavail = (fsblkcnt_t)(disk_free_bytes(path) / 4096);
    v->f_files = v->f_ffree = 1000000;
    return 0;
}
WRAP(int,
     statvfs,
     (const char *path, struct statvfs *v),
     disk_path_is(path),
     statvfs_ours(path, v),
     (path, v))

/* --- directories: a DIR of ours is told from a real one by its first word --- */

#define LIST_MAGIC UINT64_C(0x73696d6c69737431)
struct list {
    uint64_t magic;
    char **names;
    size_t count, at;
    struct dirent entry;
    struct list *next;
};
static struct list *lists; /* open ones */

static struct list *list_of(const DIR *dir)
{
    for (struct list *l = lists; l != NULL; l = l->next)
        if ((const void *)l == (const void *)dir)
            return l;
    return NULL;
}

static DIR *list_open(const char *path)
{
    struct stat st;
    if (disk_stat(path, &st) != 0)
        return NULL;
    struct list *l = mem_calloc(1, sizeof *l);
    l->magic = LIST_MAGIC;
    l->names = disk_list(path, &l->count);
    l->next = lists;
    lists = l;
    return (DIR *)(void *)l;
}

static DIR *list_fdopen(int fd)
{
    char *path = disk_fd_path(fd, ".");
    DIR *dir = list_open(path);
    mem_free(path);
    if (dir != NULL)
        (void)disk_close(fd);
    return dir;
}

static struct dirent *list_next(struct list *l)
{
    if (l->at == l->count)
        return NULL;
    (void)snprintf(l->entry.d_name, sizeof l->entry.d_name, "%s", l->names[l->at++]); /* fits */
    return &l->entry;
}

static int list_close(struct list *l)
{
    struct list **at = &lists;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    for (size_t i = 0; i < l->count; i++)
        mem_free(l->names[i]);
    mem_free(l->names);
    mem_free(l);
    return 0;
}
WRAP(DIR *, opendir, (const char *path), disk_path_is(path), list_open(path), (path))
WRAP(DIR *, fdopendir, (int fd), disk_fd_is(fd), list_fdopen(fd), (fd))
WRAP(struct dirent *, readdir, (DIR * dir), list_of(dir) != NULL, list_next(list_of(dir)), (dir))
WRAP(int, closedir, (DIR * dir), list_of(dir) != NULL, list_close(list_of(dir)), (dir))
