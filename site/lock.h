/* Advisory locks of a site: POSIX record locks (fcntl) and whole-file locks (flock), which do not
 * see each other. A core: no I/O, no clock; same calls, same results in the same order.
 *
 * Owners are (session, fs_lock.owner). A file's locks are a set of ranges with type and owner; an
 * owner's own ranges never overlap and neighbours of one type are joined.
 *
 * Waiting is fair: a waiting request is served when nothing that is held conflicts with it and no
 * earlier waiter does. An owner that holds or waits for something else does not stand behind
 * others, only before what is held: otherwise fairness could close a cycle that the locks do not.
 * Requests that do not wait are judged by what is held alone, as F_GETLK tells it. A cycle of
 * record locks is ERR_DEADLOCK for the request that would close it; flock has no such check, as in
 * Linux.
 *
 * Reclaim: the table lives in memory. A node that starts again calls lock_grace_begin(); sessions
 * assert what they held with `reclaim`; until lock_grace_end() nobody else gets anything.
 *
 * Threads: any one at a time. */
#ifndef SITE_LOCK_H
#define SITE_LOCK_H

#include "site/proto.h"

struct lock_table;
struct lock_events {
    /* A request that was queued holds its lock now (rc 0), or never will: ERR_NO_LOCKS,
     * ERR_DEADLOCK (found when grace ended). Runs at the end of the call that made it so, when the
     * table is consistent: it may call the table again. In order of granting. */
    void (*granted)(void *ctx, uint64_t session, uint64_t number, int rc);
    void *ctx;
};
struct lock_request {
    struct oid oid;
    uint64_t session;
    uint64_t number;     /* names a waiting request within its session */
    struct fs_lock lock; /* flock: start and end are ignored */
    bool flock;
    bool wait;
    bool reclaim;
};

struct lock_table *lock_table_new(const struct lock_events *events);
void lock_table_free(struct lock_table *t); /* accepts NULL; nothing is granted any more */

/* Sets, changes or (type 2) releases. 0: done. LOCK_QUEUED: waits, granted() follows unless it is
 * cancelled; the same (session, number) asked again stays queued once. ERR_WOULD_BLOCK,
 * ERR_DEADLOCK, ERR_NO_LOCKS (bounds of base/limits.h), ERR_INVALID, ERR_AGAIN (grace, and it does
 * not wait). On an error nothing changed, except that a flock being converted is lost (as in
 * Linux). A flock that waits for its conversion holds nothing meanwhile. */
#define LOCK_QUEUED 1
int lock_set(struct lock_table *t, const struct lock_request *r) MUST_CHECK;
/* What would keep the request from being granted: the one with the lowest start; type 2 if none. */
void lock_test(const struct lock_table *t, const struct lock_request *r, struct fs_lock *ret);
/* 0: it was waiting and is gone, granted() will not run. ERR_NOT_FOUND: granted already, or never
 * asked. */
int lock_cancel(struct lock_table *t, uint64_t session, uint64_t number);
/* A close: all locks of one kind that the owner has on the file. Its waiting requests stay. */
void lock_release_owner(
    struct lock_table *t, struct oid oid, bool flock, uint64_t session, uint64_t owner);
/* The session ended: its locks and its waiting requests. */
void lock_release_session(struct lock_table *t, uint64_t session);

void lock_grace_begin(struct lock_table *t);
void lock_grace_end(struct lock_table *t);

/* For status: all that is held, file by file in the order they were first locked. */
struct lock_held {
    struct oid oid;
    uint64_t session;
    struct fs_lock lock;
    bool flock;
};
void lock_each(const struct lock_table *t,
               void (*fn)(void *ctx, const struct lock_held *held),
               void *ctx);
uint32_t lock_count(const struct lock_table *t);
uint32_t lock_waiter_count(const struct lock_table *t);
void lock_table_validate(const struct lock_table *t); /* asserts the invariants; for tests */

#endif
