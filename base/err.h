/* Error codes: one table for the whole project.
 *
 * Fallible functions return 0 or a negative code from this table. Callers branch on the class,
 * logs print the name, users read the sentence, FUSE gets the errno. A code is thrown in as few
 * places as possible. Threads: any; all functions are pure. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/util.h"

enum err_class {
    ERR_CLASS_NONE,    /* success */
    ERR_CLASS_AGAIN,   /* retry later, nothing happened */
    ERR_CLASS_PEER,    /* the other side misbehaved */
    ERR_CLASS_CORRUPT, /* stored or received bytes are wrong */
    ERR_CLASS_LIMIT,   /* a bound was hit */
    ERR_CLASS_GONE,    /* cancelled or closed */
    ERR_CLASS_ENV,     /* kernel, disk or memory failed */
    ERR_CLASS_USER,    /* the request is not possible: a POSIX answer, a bad argument */
    ERR_CLASS_FATAL    /* stop this object */
};

/* X(name, class, errno, sentence) */
#define ERR_TABLE(X)                                                                               \
    X(AGAIN, AGAIN, EAGAIN, "try again in a moment")                                               \
    X(TIMEOUT, AGAIN, ETIMEDOUT, "no answer in time")                                              \
    X(NOT_PRIMARY, AGAIN, EAGAIN, "this node does not lead the shard")                             \
    X(STALE_BASE, AGAIN, EAGAIN, "the file has a newer version than the one this is based on")     \
    X(PEER, PEER, EIO, "the other side broke the protocol")                                        \
    X(AUTH, PEER, EACCES, "the other side could not prove who it is")                              \
    X(VERSION, PEER, EPROTO, "the other side speaks another version")                              \
    X(UNREACHABLE, AGAIN, EHOSTUNREACH, "the other side cannot be reached")                        \
    X(CORRUPT, CORRUPT, EIO, "stored bytes do not match their checksum")                           \
    X(TRUNCATED, CORRUPT, EIO, "data ends too early")                                              \
    X(MALFORMED, CORRUPT, EIO, "bytes do not have the expected form")                              \
    X(ROLLBACK, FATAL, EIO, "this site was rolled back to an older state")                         \
    X(LIMIT, LIMIT, ENOBUFS, "a configured bound was hit")                                         \
    X(TOO_BIG, LIMIT, E2BIG, "larger than allowed")                                                \
    X(CLOSED, GONE, ESHUTDOWN, "closed or cancelled")                                              \
    X(CANCELLED, GONE, EINTR, "interrupted")                                                       \
    X(NO_MEMORY, ENV, ENOMEM, "out of memory")                                                     \
    X(IO, ENV, EIO, "the kernel or the disk reported an error")                                    \
    X(NO_SPACE, ENV, ENOSPC, "no space left")                                                      \
    X(CONFIG, USER, EINVAL, "the configuration is wrong")                                          \
    X(NOT_FOUND, USER, ENOENT, "no such file or directory")                                        \
    X(EXISTS, USER, EEXIST, "it exists already")                                                   \
    X(NOT_DIR, USER, ENOTDIR, "not a directory")                                                   \
    X(IS_DIR, USER, EISDIR, "is a directory")                                                      \
    X(NOT_EMPTY, USER, ENOTEMPTY, "directory not empty")                                           \
    X(INVALID, USER, EINVAL, "invalid argument")                                                   \
    X(NAME_TOO_LONG, USER, ENAMETOOLONG, "name longer than 255 bytes")                             \
    X(NOT_PERMITTED, USER, EPERM, "operation not permitted")                                       \
    X(ACCESS, USER, EACCES, "permission denied")                                                   \
    X(CROSS_DEVICE, USER, EXDEV, "not on the same file system")                                    \
    X(TOO_MANY_LINKS, USER, EMLINK, "too many links")                                              \
    X(FILE_TOO_BIG, USER, EFBIG, "file too large")                                                 \
    X(STALE, USER, ESTALE, "the object is gone")                                                   \
    X(NO_DATA, USER, ENODATA, "no such attribute")                                                 \
    X(OUT_OF_RANGE, USER, ERANGE, "does not fit")                                                  \
    X(NOT_SUPPORTED, USER, EOPNOTSUPP, "not supported")                                            \
    X(BUSY, USER, EBUSY, "in use")                                                                 \
    X(DEADLOCK, USER, EDEADLK, "would deadlock")                                                   \
    X(NO_LOCKS, USER, ENOLCK, "no locks available")                                                \
    X(WOULD_BLOCK, USER, EWOULDBLOCK, "held by somebody else")                                     \
    X(NO_SUCH_OFFSET, USER, ENXIO, "no data or hole beyond this offset")                           \
    X(FATAL, FATAL, EIO, "this part stopped after an internal failure")                            \
    X(REMOVED, PEER, EACCES, "this site was removed from the federation")                          \
    X(STRANGER, AGAIN, EHOSTUNREACH, "the other side does not know this site")

enum err_index {
    ERR_IDX_OK,
#define X(name, class, num, text) ERR_IDX_##name,
    ERR_TABLE(X)
#undef X
    ERR_IDX_COUNT
};
enum err {
    ERR_OK = 0,
#define X(name, class, num, text) ERR_##name = -(int)ERR_IDX_##name,
    ERR_TABLE(X)
#undef X
};

/* All accept any int; an unknown code reads as FATAL. */
const char *err_name(int rc); /* "NO_SPACE" */
const char *err_text(int rc); /* the sentence */
enum err_class err_class(int rc);
int err_errno(int rc);          /* a positive errno, 0 for success */
int err_from_errno(int errnum); /* from a positive errno; only shells call it */

/* A fixed place for the detail of a failure: "what failed: why: what to do". Embedded in the
 * object or on the caller's stack; functions that take one accept NULL. */
struct err_detail {
    char text[512];
};
void err_detail_set(struct err_detail *d, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
