/* Harness of the POSIX suite: checks, users, groups of checks.
 *
 * A group runs in a child process, in a fresh directory of its own that is the current directory,
 * with umask 0. Checks count into shared memory, so that any descendant may check; a failed check
 * prints where it is, what was expected and what came, and the group goes on. */
#ifndef TESTS_POSIX_POSIX_H
#define TESTS_POSIX_POSIX_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct posix_group {
    const char *name;
    void (*run)(void);
    bool needs_root; /* skipped with a reason when not root */
};
/* Each file's groups, ended by a zeroed one. */
extern const struct posix_group open_groups[], path_groups[], dir_groups[], link_groups[],
    rename_groups[], mode_groups[], owner_groups[], time_groups[], size_groups[], io_groups[],
    mmap_groups[], lock_groups[], xattr_groups[], acl_groups[], name_groups[], stat_groups[],
    node_groups[], many_groups[];

/* Two unprivileged users. U1 is also in SHARED_GID, U2 is not; nobody of them is in OTHER_GID. */
#define U1 ((uid_t)65533)
#define U2 ((uid_t)65532)
#define SHARED_GID ((gid_t)65500)
#define OTHER_GID ((gid_t)65501)

/* ---- checks; `expr` is what the report shows ---- */
struct where {
    const char *file;
    int line;
};
#define HERE ((struct where){__FILE__, __LINE__})
long check_ok(struct where at, const char *what, long got);
void check_fails(struct where at, const char *what, long got, int want, int also);
void check_eq(struct where at, const char *what, long long want, long long got);
void check_octal(struct where at, const char *what, unsigned want, unsigned got);
void check_text(struct where at, const char *what, const char *want, const char *got);
bool check_holds(struct where at, const char *what, bool got);

#define OK(expr) check_ok(HERE, #expr, (long)(expr))
#define OK_AS(what, expr) check_ok(HERE, what, (long)(expr))
#define FAILS(want, expr) check_fails(HERE, #expr, (errno = 0, (long)(expr)), want, 0)
#define FAILS2(want, also, expr) check_fails(HERE, #expr, (errno = 0, (long)(expr)), want, also)
#define FAILS_AS(what, want, expr) check_fails(HERE, what, (errno = 0, (long)(expr)), want, 0)
#define EQ(want, expr) check_eq(HERE, #expr, (long long)(want), (long long)(expr))
#define EQ_AS(what, want, expr) check_eq(HERE, what, (long long)(want), (long long)(expr))
#define HOLDS(expr) check_holds(HERE, #expr, expr)
#define HOLDS_AS(what, expr) check_holds(HERE, what, expr)
#define OCTAL(want, expr) check_octal(HERE, #expr, (unsigned)(want), (unsigned)(expr))
#define MODE(want, path) check_octal(HERE, "mode of " #path, (unsigned)(want), mode_of(path))
#define TEXT(want, expr) check_text(HERE, #expr, want, expr)

/* What the following checks are about; shown before each. NULL: nothing. */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Counts one skipped part. */
void skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* For calls a file system may leave out: false, and skipped, if `got` is -1 with EOPNOTSUPP. */
bool offered(const char *what, long got);
#define OFFERED(expr) offered(#expr, (long)(expr))
bool is_root(void);

/* AS(U1) { ... }  runs the block in a child process that is that user for good; the parent waits.
 * Skipped when not root. Leave the block only by its end. */
int as_begin(uid_t user);
void as_end(void) __attribute__((noreturn));
#define AS(user) for (int as_once = as_begin(user); as_once; as_end())
/* PROC { ... }  the same as a plain child of the same user. */
int proc_begin(void);
#define PROC for (int proc_once = proc_begin(); proc_once; as_end())

/* ---- helpers: they check that they work and go on if not ---- */
int make_file(const char *path, mode_t mode, const char *content); /* returns 0 or -1 */
void make_dir(const char *path, mode_t mode);
void make_owned(const char *path, mode_t mode, uid_t uid, gid_t gid); /* a file; root only */
void make_dir_owned(const char *path, mode_t mode, uid_t uid, gid_t gid);
struct stat st_of(const char *path); /* lstat; zeroed on failure */
struct stat fst_of(int fd);
unsigned mode_of(const char *path); /* permission bits, 07777 */
long long size_of(const char *path);
long nlink_of(const char *path);
int open_close(const char *path, int flags, mode_t mode); /* 0, or -1 with errno */
bool content_is(const char *path, const void *want, size_t len);
bool exists(const char *path);
int count_entries(const char *path);                /* without . and .. */
void name_of_len(char *out, size_t len, char fill); /* terminates it */
bool acl_supported(void);                           /* of the current directory */
long sysctl_of(const char *path); /* number in a file of /proc/sys, 0 if there is none */

/* ---- time stamps ---- */
enum {
    T_A = 1,     /* atime moves */
    T_M = 2,     /* mtime moves */
    T_C = 4,     /* ctime moves */
    T_A_ANY = 8, /* atime is left open: noatime and relatime are allowed */
};
/* Waits until a time stamp made now differs from all made before. */
void tick(void);
/* Compares the times of `path` (not followed) with `before`: those in `moved` must be later, the
 * others the same. Returns the new stat. */
struct stat check_times(
    struct where at, const char *what, const struct stat *before, const char *path, unsigned moved);
/* stat, tick, call, compare. */
#define TIMES(path, moved, call)                                                                   \
    do {                                                                                           \
        struct stat times_before = st_of(path);                                                    \
        tick();                                                                                    \
        check_ok(HERE, #call, (errno = 0, (long)(call)));                                          \
        (void)check_times(HERE, "times of " #path " after " #call, &times_before, path, moved);    \
    } while (0)
/* The same for a call that must fail and so move nothing. */
#define TIMES_FAIL(path, want, call)                                                               \
    do {                                                                                           \
        struct stat times_before = st_of(path);                                                    \
        tick();                                                                                    \
        check_fails(HERE, #call, (errno = 0, (long)(call)), want, 0);                              \
        (void)check_times(HERE, "times of " #path " after failed " #call, &times_before, path, 0); \
    } while (0)

#endif
