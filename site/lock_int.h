/* Private to lock.c and lock_wait.c. */
#ifndef SITE_LOCK_INT_H
#define SITE_LOCK_INT_H

#include "base/util.h"

/* uthash walks a table in the order of insertion, so results do not depend on hashes. */
#define uthash_malloc(len) mem_alloc(len)
#define uthash_free(ptr, len) mem_free(ptr)
#include <uthash.h>

#include "site/lock.h"

enum {
    LOCK_READ = 0,
    LOCK_WRITE = 1,
    LOCK_NONE = 2
};

/* Keys of hash tables: no padding, so that they can be compared as bytes. */
struct lock_owner_key {
    uint64_t session, owner, flock;
};
struct lock_file_key {
    struct oid oid;
    uint64_t flock;
};
struct lock_waiter_key {
    uint64_t session, number;
};
_Static_assert(sizeof(struct lock_file_key) == 24, "no padding");

struct lock_owner {
    struct lock_owner_key key;
    uint32_t held; /* ranges in all files */
    uint32_t waiter_count;
    struct lock_waiter *waiters; /* by next_of_owner, in no particular order */
    uint64_t visited;            /* number of the search that was here */
    UT_hash_handle hh;
};

struct lock_range {
    struct lock_owner *owner;
    uint64_t start, end; /* inclusive */
    uint32_t pid;
    uint8_t type;
};

struct lock_file {
    struct lock_file_key key;
    struct lock_range *held; /* by start, then by owner */
    uint32_t held_count, held_cap;
    struct lock_waiter *waiters, *waiters_last; /* oldest first */
    bool dirty;                                 /* on the list of files to settle */
    struct lock_file *next_dirty;
    UT_hash_handle hh;
};

struct lock_waiter {
    struct lock_waiter_key key;
    struct lock_file *file;
    struct lock_waiter *prev_of_file, *next_of_file;
    struct lock_waiter *next_of_owner;
    struct lock_range want;
    /* Stands behind earlier waiters. Only while its owner holds nothing and waits for nothing else:
     * then nobody can wait for that owner but later waiters, and no cycle goes through here. */
    bool patient;
    UT_hash_handle hh;
};

struct lock_grant {
    uint64_t session, number;
    int rc;
};

struct lock_table {
    struct lock_events events;
    struct lock_file *files;     /* uthash */
    struct lock_owner *owners;   /* uthash */
    struct lock_waiter *waiters; /* uthash */
    uint32_t held_count, waiter_count;
    bool grace;
    struct lock_file *dirty, **dirty_last;
    uint64_t search; /* number of the latest */
    struct lock_range *scratch;
    uint32_t scratch_cap;
    struct lock_grant *grants; /* told at the end of the call */
    uint32_t grant_count, grant_cap;
};

static inline bool lock_overlaps(const struct lock_range *a, const struct lock_range *b)
{
    return a->start <= b->end && b->start <= a->end;
}
static inline bool lock_conflicts(const struct lock_range *a, const struct lock_range *b)
{
    return a->owner != b->owner && (a->type == LOCK_WRITE || b->type == LOCK_WRITE) &&
           lock_overlaps(a, b);
}

/* lock.c */
const struct lock_range *lock_blocker(const struct lock_file *f, const struct lock_range *want);
int lock_apply(struct lock_table *t, struct lock_file *f, const struct lock_range *want) MUST_CHECK;
void lock_owner_settle(struct lock_table *t, struct lock_owner *o); /* frees it when idle */

/* lock_wait.c */
struct lock_waiter *lock_waiter_find(const struct lock_table *t, uint64_t session, uint64_t number);
void lock_waiter_add(struct lock_table *t,
                     struct lock_file *f,
                     const struct lock_range *want,
                     uint64_t number);
void lock_waiter_drop(struct lock_table *t, struct lock_waiter *w);
/* May the request be granted to somebody who waits for it now? */
bool lock_waiting_first(const struct lock_file *f, const struct lock_range *want);
bool lock_would_deadlock(struct lock_table *t,
                         const struct lock_file *f,
                         const struct lock_range *want);
/* The owner holds or waits for more than before. */
void lock_owner_busy(struct lock_table *t, struct lock_owner *o);
void lock_dirty(struct lock_table *t, struct lock_file *f);
/* Grants what can be granted in dirty files and frees empty ones; lock_settle also tells. */
void lock_settle_files(struct lock_table *t);
void lock_settle(struct lock_table *t);
/* Takes a grant that was not told yet off the list. */
bool lock_grant_take(struct lock_table *t, uint64_t session, uint64_t number, int *ret_rc);
void lock_grant_add(struct lock_table *t, const struct lock_waiter *w, int rc);
bool lock_grantable(const struct lock_table *t, const struct lock_waiter *w);

#endif
