/* Simulated disks: a small file system in memory behind the system calls.
 *
 * Paths below "/sim/" and the descriptors made from them lead here, everything else to the kernel
 * (sim/disk_calls.c, by the linker's --wrap). What a page of a file shows and what the device would
 * still have after a loss of power are two things until it is synced; the same holds for names in
 * directories. A crash decides, page by page and sector by sector for writes in flight, what stays.
 *
 * Descriptors of a process that died (ghosts) keep working for it and change nothing. */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <liburing.h>

#include "base/util.h"
#include "sim/world.h"

#define DISK_FD_BASE 1000000
#define DISK_PREFIX "/sim/"

struct disk;
struct machine;
struct disk *disk_new(const char *root /* "/sim/..." */, const struct world_disk *config);
void disk_free(struct disk *d);
/* Loss of power: what is not synced stays or goes, by the world's dice. With `kind` false only the
 * process dies: what the kernel has been given stays. All descriptors become ghosts. */
void disk_crash(struct disk *d, bool power);
enum disk_room {
    DISK_ROOM,
    DISK_NO_ROOM,       /* for files to grow */
    DISK_NO_ROOM_AT_ALL /* nor for what databases write */
};
void disk_set_room(struct disk *d, enum disk_room room);
/* Calls of these kinds fail with EIO, `count` times (UINT32_MAX: until told otherwise; 0: none). */
enum disk_call {
    DISK_WRITE = 1,
    DISK_SYNC = 2,
    DISK_READ = 4,
    DISK_MAKE = 8, /* of a file, or of room for one */
    DISK_CALLS = 15
};
void disk_set_failing(struct disk *d, unsigned calls, uint32_t count);
/* Power goes at the `calls`th call from now on that changes something (0: at none), before it does:
 * the process on `m` is a ghost then, and the disk as after disk_crash(), until this is called
 * again. `few`: only calls count that change more than what is in a file: names, lengths,
 * databases. They are few, and many of them belong together. */
void disk_power_off_in(struct disk *d, struct machine *m, unsigned calls, bool few);
bool disk_power_is_off(const struct disk *d);
extern bool disk_power_went; /* somewhere, since somebody has set this to false */
/* A call that changes more than what is in a file begins. */
void disk_step_few(struct disk *d);
/* Whoever calls now is a ghost, and changes nothing. */
bool disk_is_ghost(const struct disk *d);
/* While checkers look nothing fails, and nothing is rotten: they are not there. */
extern bool disk_calm;
/* Does this call fail? It counts. For what the machine keeps elsewhere, too. */
bool disk_fails(struct disk *d, enum disk_call call);
bool disk_lacks_room(struct disk *d);         /* for what databases write; if so, it counts */
uint64_t disk_failures(const struct disk *d); /* calls that failed, and were refused when full */
bool disk_is_bad(const struct disk *d);       /* full or failing now */
/* One bit of some durable page of a file whose path contains `part` changes. False: none such. */
bool disk_rot(struct disk *d, const char *part);
/* The same in one pair of a shard's state. False: there is none. */
bool stores_rot(struct disk *d);
uint64_t disk_bytes(const struct disk *d);
/* Anything else that the machine keeps durably; freed with the disk. */
struct disk_blob {
    char path[128];
    void *value;
    void (*free)(void *value);
    struct disk_blob *next;
};
struct disk_blob *disk_blob(const char *path, bool make); /* by full path; NULL: not there */
void disk_blobs_remove(const char *path_prefix);
struct disk *disk_of_path(const char *path);

/* Requests of a simulated loop. */
uint64_t disk_begin(const struct io_uring_sqe *sqe, bool ghost); /* how long it takes, ns */
int disk_end(const struct io_uring_sqe *sqe);                    /* carries it out: the result */
void disk_tear(const struct io_uring_sqe *sqe); /* power went away in the middle of it */

/* For disk_calls.c; results as the system call's, -1 and errno. */
bool disk_path_is(const char *path);
bool disk_fd_is(int fd);
int disk_open(const char *path, int flags);
int disk_openat(int dir_fd, const char *name, int flags);
int disk_close(int fd);
long disk_pread(int fd, void *to, size_t len, uint64_t offset);
long disk_pwrite(int fd, const void *from, size_t len, uint64_t offset, bool dsync);
long disk_read(int fd, void *to, size_t len);
long disk_write(int fd, const void *from, size_t len);
long disk_seek(int fd, long at, int from); /* SEEK_SET only */
int disk_fsync(int fd);
int disk_truncate(int fd, uint64_t size);
int disk_allocate(int fd, uint64_t offset, uint64_t len);
struct stat;
int disk_stat(const char *path, struct stat *st);
int disk_fstat(int fd, struct stat *st);
int disk_mkdir(const char *path);
int disk_remove(const char *path, bool dir);
int disk_rename(const char *from, const char *to);
char *disk_fd_path(int dir_fd, const char *name); /* mem_free */
/* Names in a directory, each once; NULL-terminated at *ret_count. mem_free each and the array. */
char **disk_list(const char *path, size_t *ret_count);
uint64_t disk_free_bytes(const char *path);

#endif
