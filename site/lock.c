/* What is held: ranges that are set, changed, released. Waiting is in lock_wait.c.
 *
 * A file's ranges are one array sorted by start: few locks are held on one file, and a change walks
 * it once. Every call marks the files whose waiters may go on and settles them at its end. */
#include "site/lock.h"

#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/lock_int.h"

/* --- records --- */

static struct lock_file *file_find(const struct lock_table *t, struct oid oid, bool flock)
{
    const struct lock_file_key key = {.oid = oid, .flock = flock};
    struct lock_file *f;
    HASH_FIND(hh, t->files, &key, sizeof key, f);
    return f;
}

static struct lock_file *file_get(struct lock_table *t, struct oid oid, bool flock)
{
    struct lock_file *f = file_find(t, oid, flock);
    if (f != NULL)
        return f;
    f = mem_calloc(1, sizeof *f);
    f->key = (struct lock_file_key){.oid = oid, .flock = flock};
    HASH_ADD(hh, t->files, key, sizeof f->key, f);
    return f;
}

static struct lock_owner *
owner_find(const struct lock_table *t, uint64_t session, uint64_t owner, bool flock)
{
    const struct lock_owner_key key = {.session = session, .owner = owner, .flock = flock};
    struct lock_owner *o;
    HASH_FIND(hh, t->owners, &key, sizeof key, o);
    return o;
}

static struct lock_owner *owner_get(struct lock_table *t, const struct lock_request *r)
{
    struct lock_owner *o = owner_find(t, r->session, r->lock.owner, r->flock);
    if (o != NULL)
        return o;
    o = mem_calloc(1, sizeof *o);
    o->key =
        (struct lock_owner_key){.session = r->session, .owner = r->lock.owner, .flock = r->flock};
    HASH_ADD(hh, t->owners, key, sizeof o->key, o);
    return o;
}

void lock_owner_settle(struct lock_table *t, struct lock_owner *o)
{
    if (o->held > 0 || o->waiter_count > 0)
        return;
    HASH_DEL(t->owners, o);
    mem_free(o);
}

static struct lock_range range_of(const struct lock_request *r, struct lock_owner *o)
{
    return (struct lock_range){.owner = o,
                               .start = r->flock ? 0 : r->lock.start,
                               .end = r->flock ? UINT64_MAX : r->lock.end,
                               .pid = r->lock.pid,
                               .type = r->lock.type};
}

/* --- ranges --- */

static int range_cmp(const struct lock_range *a, const struct lock_range *b)
{
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    if (a->owner->key.session != b->owner->key.session)
        return a->owner->key.session < b->owner->key.session ? -1 : 1;
    if (a->owner->key.owner != b->owner->key.owner)
        return a->owner->key.owner < b->owner->key.owner ? -1 : 1;
    return 0;
}

/* Overlaps or is a direct neighbour. */
static bool touches(const struct lock_range *a, const struct lock_range *b)
{
    return lock_overlaps(a, b) || (a->end != UINT64_MAX && a->end + 1 == b->start) ||
           (b->end != UINT64_MAX && b->end + 1 == a->start);
}

/* Inserts in order; `out` has room. */
static void range_insert(struct lock_range *out, uint32_t *count, struct lock_range r)
{
    uint32_t at = (*count)++;
    for (; at > 0 && range_cmp(&out[at - 1], &r) > 0; at--)
        out[at] = out[at - 1];
    out[at] = r;
}

/* The file's ranges with the owner's part changed to `want`, into the table's scratch. */
static uint32_t
ranges_build(struct lock_table *t, const struct lock_file *f, const struct lock_range *want)
{
    if (t->scratch_cap < f->held_count + 2) {
        t->scratch_cap = 2 * f->held_count + 2;
        t->scratch = mem_realloc(t->scratch, t->scratch_cap * sizeof t->scratch[0]);
    }
    struct lock_range joined = *want;
    uint32_t count = 0;
    for (uint32_t i = 0; i < f->held_count; i++) {
        struct lock_range h = f->held[i];
        if (h.owner == want->owner && h.type == want->type && touches(&h, want)) {
            joined.start = MIN(joined.start, h.start);
            joined.end = MAX(joined.end, h.end);
            continue;
        }
        if (h.owner != want->owner || !lock_overlaps(&h, want)) {
            range_insert(t->scratch, &count, h);
            continue;
        }
        if (h.start < want->start) {
            struct lock_range left = h;
            left.end = want->start - 1;
            range_insert(t->scratch, &count, left);
        }
        if (h.end > want->end) {
            h.start = want->end + 1;
            range_insert(t->scratch, &count, h);
        }
    }
    if (want->type != LOCK_NONE)
        range_insert(t->scratch, &count, joined);
    return count;
}

static bool same_ranges(const struct lock_file *f, const struct lock_range *with, uint32_t count)
{
    if (f->held_count != count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const struct lock_range *a = &f->held[i], *b = &with[i];
        if (range_cmp(a, b) != 0 || a->end != b->end || a->type != b->type || a->pid != b->pid)
            return false;
    }
    return true;
}

int lock_apply(struct lock_table *t, struct lock_file *f, const struct lock_range *want)
{
    uint32_t count = ranges_build(t, f, want);
    bool grows = count > f->held_count;
    uint32_t total = t->held_count - f->held_count + count;
    if (grows && (count > LIMIT_LOCKS_FILE || total > LIMIT_LOCKS))
        return ERR_NO_LOCKS;
    if (same_ranges(f, t->scratch, count))
        return 0;
    struct lock_range *old = f->held;
    uint32_t old_cap = f->held_cap;
    want->owner->held += count;
    want->owner->held -= f->held_count; /* the others' are the same in both */
    f->held = t->scratch;
    f->held_cap = t->scratch_cap;
    f->held_count = count;
    t->scratch = old;
    t->scratch_cap = old_cap;
    t->held_count = total;
    lock_dirty(t, f);
    if (want->owner->held > 0)
        lock_owner_busy(t, want->owner);
    return 0;
}

const struct lock_range *lock_blocker(const struct lock_file *f, const struct lock_range *want)
{
    for (uint32_t i = 0; i < f->held_count && f->held[i].start <= want->end; i++)
        if (lock_conflicts(&f->held[i], want))
            return &f->held[i];
    return NULL;
}

/* --- the calls --- */

struct lock_table *lock_table_new(const struct lock_events *events)
{
    ASSERT(events->granted != NULL);
    struct lock_table *t = mem_calloc(1, sizeof *t);
    t->events = *events;
    t->dirty_last = &t->dirty;
    return t;
}

void lock_table_free(struct lock_table *t)
{
    struct lock_waiter *w, *next_waiter;
    struct lock_file *f, *next_file;
    struct lock_owner *o, *next_owner;
    if (t == NULL)
        return;
    HASH_ITER(hh, t->waiters, w, next_waiter)
    {
        lock_waiter_drop(t, w);
    }
    HASH_ITER(hh, t->files, f, next_file)
    {
        HASH_DEL(t->files, f);
        mem_free(f->held);
        mem_free(f);
    }
    HASH_ITER(hh, t->owners, o, next_owner)
    {
        HASH_DEL(t->owners, o);
        mem_free(o);
    }
    ASSERT(t->waiter_count == 0);
    mem_free(t->scratch);
    mem_free(t->grants);
    mem_free(t);
}

/* Linux takes the old lock away before it tries for the stronger one: who waited goes first. */
static void flock_convert(struct lock_table *t, struct lock_file *f, const struct lock_range *want)
{
    bool reading = false;
    for (uint32_t i = 0; i < f->held_count; i++)
        if (f->held[i].owner == want->owner && f->held[i].type == LOCK_READ)
            reading = true;
    if (!reading || want->type != LOCK_WRITE || lock_blocker(f, want) == NULL)
        return;
    struct lock_range none = *want;
    none.type = LOCK_NONE;
    int rc = lock_apply(t, f, &none);
    ASSERT(rc == 0); /* it only takes away */
}

static int set_in_file(struct lock_table *t,
                       struct lock_file *f,
                       const struct lock_range *want,
                       const struct lock_request *r)
{
    bool may_wait = r->wait && !r->reclaim && want->type != LOCK_NONE;
    bool held_back = t->grace && !r->reclaim && want->type != LOCK_NONE;
    if (held_back && !may_wait)
        return ERR_AGAIN;
    if (r->flock && !held_back)
        flock_convert(t, f, want);
    bool blocked = want->type != LOCK_NONE && lock_blocker(f, want) != NULL;
    if (!held_back && !blocked && (!may_wait || lock_waiting_first(f, want)))
        return lock_apply(t, f, want);
    if (!may_wait)
        return ERR_WOULD_BLOCK;
    if (t->waiter_count >= LIMIT_LOCK_WAITERS)
        return ERR_NO_LOCKS;
    if (!held_back && !r->flock && lock_would_deadlock(t, f, want))
        return ERR_DEADLOCK;
    lock_waiter_add(t, f, want, r->number);
    return LOCK_QUEUED;
}

int lock_set(struct lock_table *t, const struct lock_request *r)
{
    if (r->lock.type > LOCK_NONE || (!r->flock && r->lock.start > r->lock.end))
        return ERR_INVALID;
    if (r->wait && lock_waiter_find(t, r->session, r->number) != NULL)
        return LOCK_QUEUED;
    struct lock_file *f = file_get(t, r->oid, r->flock);
    struct lock_owner *o = owner_get(t, r);
    const struct lock_range want = range_of(r, o);
    int rc = set_in_file(t, f, &want, r);
    lock_owner_settle(t, o);
    if (f->held_count == 0)
        lock_dirty(t, f); /* frees it when nothing came of it */
    lock_settle_files(t);
    if (rc == LOCK_QUEUED) /* unless others made room at once */
        (void)lock_grant_take(t, r->session, r->number, &rc);
    lock_settle(t);
    return rc;
}

void lock_test(const struct lock_table *t, const struct lock_request *r, struct fs_lock *ret)
{
    const struct lock_file *f = file_find(t, r->oid, r->flock);
    struct lock_owner *o = owner_find(t, r->session, r->lock.owner, r->flock);
    const struct lock_range want = range_of(r, o); /* no owner: nothing held is its own */
    const struct lock_range *b = f == NULL ? NULL : lock_blocker(f, &want);
    *ret = r->lock;
    ret->type = LOCK_NONE;
    if (b == NULL || r->lock.type == LOCK_NONE)
        return;
    *ret = (struct fs_lock){.owner = b->owner->key.owner,
                            .start = b->start,
                            .end = b->end,
                            .pid = b->pid,
                            .type = b->type};
}

int lock_cancel(struct lock_table *t, uint64_t session, uint64_t number)
{
    struct lock_waiter *w = lock_waiter_find(t, session, number);
    if (w == NULL)
        return ERR_NOT_FOUND;
    lock_waiter_drop(t, w);
    lock_settle(t);
    return 0;
}

static void owner_release(struct lock_table *t, struct lock_file *f, struct lock_owner *o)
{
    const struct lock_range all = {.owner = o, .end = UINT64_MAX, .type = LOCK_NONE};
    int rc = lock_apply(t, f, &all);
    ASSERT(rc == 0); /* it only takes away */
}

void lock_release_owner(
    struct lock_table *t, struct oid oid, bool flock, uint64_t session, uint64_t owner)
{
    struct lock_file *f = file_find(t, oid, flock);
    struct lock_owner *o = owner_find(t, session, owner, flock);
    if (f == NULL || o == NULL)
        return;
    owner_release(t, f, o);
    lock_owner_settle(t, o);
    lock_settle(t);
}

void lock_release_session(struct lock_table *t, uint64_t session)
{
    struct lock_waiter *w, *next_waiter;
    struct lock_owner *o, *next_owner;
    HASH_ITER(hh, t->waiters, w, next_waiter)
    {
        if (w->key.session == session)
            lock_waiter_drop(t, w);
    }
    for (struct lock_file *f = t->files; f != NULL; f = f->hh.next)
        for (uint32_t i = 0; i < f->held_count;)
            if (f->held[i].owner->key.session == session)
                owner_release(t, f, f->held[i].owner); /* what follows moves to i or before */
            else
                i++;
    HASH_ITER(hh, t->owners, o, next_owner)
    {
        lock_owner_settle(t, o);
    }
    lock_settle(t);
}

/* --- looking at it --- */

void lock_each(const struct lock_table *t,
               void (*fn)(void *ctx, const struct lock_held *held),
               void *ctx)
{
    for (const struct lock_file *f = t->files; f != NULL; f = f->hh.next) {
        for (uint32_t i = 0; i < f->held_count; i++) {
            const struct lock_range *h = &f->held[i];
            const struct lock_held held = {.oid = f->key.oid,
                                           .session = h->owner->key.session,
                                           .lock = {.owner = h->owner->key.owner,
                                                    .start = h->start,
                                                    .end = h->end,
                                                    .pid = h->pid,
                                                    .type = h->type},
                                           .flock = f->key.flock != 0};
            fn(ctx, &held);
        }
    }
}

uint32_t lock_count(const struct lock_table *t)
{
    return t->held_count;
}

uint32_t lock_waiter_count(const struct lock_table *t)
{
    return t->waiter_count;
}

static void file_validate(const struct lock_table *t, const struct lock_file *f)
{
    ASSERT(f->held_count > 0 || f->waiters != NULL);
    ASSERT(!f->dirty);
    for (uint32_t i = 0; i < f->held_count; i++) {
        const struct lock_range *a = &f->held[i];
        ASSERT(a->start <= a->end && a->type < LOCK_NONE);
        if (i > 0)
            ASSERT(range_cmp(&f->held[i - 1], a) < 0);
        for (uint32_t j = 0; j < i; j++) {
            const struct lock_range *b = &f->held[j];
            ASSERT(!lock_conflicts(a, b));
            if (a->owner == b->owner)
                ASSERT(!lock_overlaps(a, b) && (a->type != b->type || !touches(a, b)));
        }
    }
    const struct lock_waiter *last = NULL;
    for (const struct lock_waiter *w = f->waiters; w != NULL; w = w->next_of_file) {
        ASSERT(w->file == f && w->prev_of_file == last);
        ASSERT(!lock_grantable(t, w));
        if (w->patient)
            ASSERT(w->want.owner->held == 0 && w->want.owner->waiter_count == 1);
        last = w;
    }
    ASSERT(last == f->waiters_last);
}

void lock_table_validate(const struct lock_table *t)
{
    uint32_t held = 0, held_by_owners = 0, waiters = 0;
    for (const struct lock_file *f = t->files; f != NULL; f = f->hh.next) {
        file_validate(t, f);
        held += f->held_count;
    }
    for (const struct lock_owner *o = t->owners; o != NULL; o = o->hh.next) {
        uint32_t count = 0;
        for (const struct lock_waiter *w = o->waiters; w != NULL; w = w->next_of_owner) {
            ASSERT(w->want.owner == o);
            count++;
        }
        ASSERT(o->held > 0 || count > 0);
        ASSERT_EQ(count, o->waiter_count);
        held_by_owners += o->held;
        waiters += count;
    }
    ASSERT_EQ(held, t->held_count);
    ASSERT_EQ(held_by_owners, t->held_count);
    ASSERT_EQ(waiters, t->waiter_count);
    ASSERT_EQ(waiters, HASH_COUNT(t->waiters));
    ASSERT(t->dirty == NULL && t->grant_count == 0);
}
