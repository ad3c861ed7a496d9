/* Waiting for locks: the queue of each file, who may go on, who would wait for ever.
 *
 * Why fairness makes no deadlock (S12): only patient waiters wait for other waiters, always for
 * earlier ones of the same file. Their owners hold nothing, so no lock that is held leads to them;
 * any cycle therefore runs through held locks alone, and those lock_would_deadlock() looks at. */
#include "base/assert.h"
#include "base/limits.h"
#include "site/lock_int.h"

enum {
    SEARCH_STEPS_MAX = 200000 /* ranges looked at; beyond it no deadlock is reported */
};

/* --- the queue --- */

struct lock_waiter *lock_waiter_find(const struct lock_table *t, uint64_t session, uint64_t number)
{
    const struct lock_waiter_key key = {.session = session, .number = number};
    struct lock_waiter *w;
    HASH_FIND(hh, t->waiters, &key, sizeof key, w);
    return w;
}

void lock_waiter_add(struct lock_table *t,
                     struct lock_file *f,
                     const struct lock_range *want,
                     uint64_t number)
{
    struct lock_owner *o = want->owner;
    struct lock_waiter *w = mem_calloc(1, sizeof *w);
    *w = (struct lock_waiter){.key = {.session = o->key.session, .number = number},
                              .file = f,
                              .prev_of_file = f->waiters_last,
                              .next_of_owner = o->waiters,
                              .want = *want,
                              .patient = true};
    if (f->waiters_last != NULL)
        f->waiters_last->next_of_file = w;
    else
        f->waiters = w;
    f->waiters_last = w;
    o->waiters = w;
    o->waiter_count++;
    HASH_ADD(hh, t->waiters, key, sizeof w->key, w);
    t->waiter_count++;
    if (o->held > 0 || o->waiter_count > 1)
        lock_owner_busy(t, o);
}

void lock_waiter_drop(struct lock_table *t, struct lock_waiter *w)
{
    struct lock_file *f = w->file;
    struct lock_owner *o = w->want.owner;
    if (w->prev_of_file != NULL)
        w->prev_of_file->next_of_file = w->next_of_file;
    else
        f->waiters = w->next_of_file;
    if (w->next_of_file != NULL)
        w->next_of_file->prev_of_file = w->prev_of_file;
    else
        f->waiters_last = w->prev_of_file;
    struct lock_waiter **at = &o->waiters;
    while (*at != w)
        at = &(*at)->next_of_owner;
    *at = w->next_of_owner;
    o->waiter_count--;
    HASH_DEL(t->waiters, w);
    t->waiter_count--;
    mem_free(w);
    lock_owner_settle(t, o);
    lock_dirty(t, f); /* who stood behind it may go on */
}

void lock_owner_busy(struct lock_table *t, struct lock_owner *o)
{
    for (struct lock_waiter *w = o->waiters; w != NULL; w = w->next_of_owner) {
        if (!w->patient)
            continue;
        w->patient = false;
        lock_dirty(t, w->file);
    }
}

/* --- who may go on --- */

static bool anybody_before(const struct lock_waiter *first,
                           const struct lock_waiter *end,
                           const struct lock_range *want)
{
    for (const struct lock_waiter *w = first; w != end; w = w->next_of_file)
        if (lock_conflicts(&w->want, want))
            return true;
    return false;
}

bool lock_waiting_first(const struct lock_file *f, const struct lock_range *want)
{
    bool busy = want->owner->held > 0 || want->owner->waiter_count > 0;
    return busy || !anybody_before(f->waiters, NULL, want);
}

bool lock_grantable(const struct lock_table *t, const struct lock_waiter *w)
{
    if (t->grace || lock_blocker(w->file, &w->want) != NULL)
        return false;
    return !w->patient || !anybody_before(w->file->waiters, w, &w->want);
}

void lock_grant_add(struct lock_table *t, const struct lock_waiter *w, int rc)
{
    if (t->grant_count == t->grant_cap) {
        t->grant_cap = MAX(8u, 2 * t->grant_cap);
        t->grants = mem_realloc(t->grants, t->grant_cap * sizeof t->grants[0]);
    }
    t->grants[t->grant_count++] =
        (struct lock_grant){.session = w->key.session, .number = w->key.number, .rc = rc};
}

/* The first waiter that can go on gets what it wants; false when there is none. */
static bool grant_one(struct lock_table *t, struct lock_file *f)
{
    struct lock_waiter *w = f->waiters;
    while (w != NULL && !lock_grantable(t, w))
        w = w->next_of_file;
    if (w == NULL)
        return false;
    const struct lock_range want = w->want;
    /* Off the queue first: what it gets must not count as something else that it waits for. */
    want.owner->held++; /* keeps the owner's record meanwhile */
    struct lock_waiter told = *w;
    lock_waiter_drop(t, w);
    want.owner->held--;
    lock_grant_add(t, &told, lock_apply(t, f, &want));
    lock_owner_settle(t, want.owner);
    return true;
}

bool lock_grant_take(struct lock_table *t, uint64_t session, uint64_t number, int *ret_rc)
{
    for (uint32_t i = 0; i < t->grant_count; i++) {
        const struct lock_grant *g = &t->grants[i];
        if (g->session != session || g->number != number)
            continue;
        *ret_rc = g->rc;
        for (t->grant_count--; i < t->grant_count; i++)
            t->grants[i] = t->grants[i + 1];
        return true;
    }
    return false;
}

void lock_dirty(struct lock_table *t, struct lock_file *f)
{
    if (f->dirty)
        return;
    f->dirty = true;
    f->next_dirty = NULL;
    *t->dirty_last = f;
    t->dirty_last = &f->next_dirty;
}

void lock_settle_files(struct lock_table *t)
{
    while (t->dirty != NULL) {
        struct lock_file *f = t->dirty;
        while (grant_one(t, f))
            ;
        t->dirty = f->next_dirty;
        if (t->dirty == NULL)
            t->dirty_last = &t->dirty;
        f->dirty = false;
        if (f->held_count == 0 && f->waiters == NULL) {
            HASH_DEL(t->files, f);
            mem_free(f->held);
            mem_free(f);
        }
    }
}

void lock_settle(struct lock_table *t)
{
    lock_settle_files(t);
    /* They may call the table and so add grants: those are told by the inner call. */
    struct lock_grant *grants = t->grants;
    uint32_t count = t->grant_count;
    t->grants = NULL;
    t->grant_count = t->grant_cap = 0;
    for (uint32_t i = 0; i < count; i++)
        t->events.granted(t->events.ctx, grants[i].session, grants[i].number, grants[i].rc);
    mem_free(grants);
}

/* --- who would wait for ever --- */

struct search {
    struct lock_table *t;
    const struct lock_owner *target;
    uint32_t steps;
    /* Owners still to look at; each at most once. */
    struct lock_owner **stack;
    uint32_t stack_count, stack_cap;
};

static void search_push(struct search *s, struct lock_owner *o)
{
    if (o->visited == s->t->search || o->waiter_count == 0)
        return;
    o->visited = s->t->search;
    if (s->stack_count == s->stack_cap) {
        s->stack_cap = MAX(16u, 2 * s->stack_cap);
        s->stack = mem_realloc(s->stack, s->stack_cap * sizeof(struct lock_owner *));
    }
    s->stack[s->stack_count++] = o;
}

/* Whom the request waits for; true when the target is among them. */
static bool
search_request(struct search *s, const struct lock_file *f, const struct lock_range *want)
{
    for (uint32_t i = 0; i < f->held_count && f->held[i].start <= want->end; i++) {
        if (++s->steps > SEARCH_STEPS_MAX)
            return false;
        if (!lock_conflicts(&f->held[i], want))
            continue;
        if (f->held[i].owner == s->target)
            return true;
        search_push(s, f->held[i].owner);
    }
    return false;
}

bool lock_would_deadlock(struct lock_table *t,
                         const struct lock_file *f,
                         const struct lock_range *want)
{
    if (want->owner->held == 0)
        return false; /* nobody can be waiting for it */
    struct search s = {.t = t, .target = want->owner};
    t->search++;
    bool found = search_request(&s, f, want);
    while (!found && s.stack_count > 0 && s.steps <= SEARCH_STEPS_MAX) {
        const struct lock_owner *o = s.stack[--s.stack_count];
        for (const struct lock_waiter *w = o->waiters; w != NULL && !found; w = w->next_of_owner)
            found = search_request(&s, w->file, &w->want);
    }
    mem_free(s.stack);
    return found;
}

/* --- grace --- */

void lock_grace_begin(struct lock_table *t)
{
    t->grace = true;
}

void lock_grace_end(struct lock_table *t)
{
    struct lock_waiter *w, *next;
    t->grace = false;
    for (struct lock_file *f = t->files; f != NULL; f = f->hh.next)
        lock_dirty(t, f);
    /* What was queued meanwhile could not be checked: now everything is known that is held. */
    HASH_ITER(hh, t->waiters, w, next)
    {
        if (w->want.owner->key.flock != 0 || lock_grantable(t, w) ||
            !lock_would_deadlock(t, w->file, &w->want))
            continue;
        lock_grant_add(t, w, ERR_DEADLOCK);
        lock_waiter_drop(t, w);
    }
    lock_settle(t);
}
