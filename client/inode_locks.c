#include "client/inode_locks.h"

#include "base/assert.h"

#define TYPE_UNLOCK 2u

void held_locks_init(struct held_locks *t)
{
    *t = (struct held_locks){0};
    pthread_mutex_init(&t->lock, NULL);
}

void held_locks_deinit(struct held_locks *t)
{
    while (t->held != NULL) {
        struct held_lock *h = t->held;
        t->held = h->next;
        mem_free(h);
    }
    pthread_mutex_destroy(&t->lock);
}

static void add(struct held_locks *t, struct oid oid, const struct fs_lock *l, bool flock)
{
    struct held_lock *h = mem_calloc(1, sizeof *h);
    *h = (struct held_lock){.oid = oid, .lock = *l, .flock = flock, .next = t->held};
    t->held = h;
}

static bool same_owner(const struct held_lock *h, struct oid oid, uint64_t owner, bool flock)
{
    return h->flock == flock && h->lock.owner == owner && oid_equal(h->oid, oid);
}

void held_locks_set(struct held_locks *t, struct oid oid, const struct fs_lock *l, bool flock)
{
    pthread_mutex_lock(&t->lock);
    struct held_lock *kept = NULL, *at = t->held;
    t->held = NULL;
    while (at != NULL) {
        struct held_lock *h = at;
        at = h->next;
        bool hit = same_owner(h, oid, l->owner, flock) &&
                   (flock || (h->lock.start <= l->end && l->start <= h->lock.end));
        if (!hit) {
            h->next = kept;
            kept = h;
            continue;
        }
        /* What sticks out on either side stays. */
        struct fs_lock left = h->lock, right = h->lock;
        if (!flock && h->lock.start < l->start) {
            left.end = l->start - 1;
            add(t, oid, &left, false);
        }
        if (!flock && h->lock.end > l->end) {
            right.start = l->end + 1;
            add(t, oid, &right, false);
        }
        mem_free(h);
    }
    while (kept != NULL) {
        struct held_lock *h = kept;
        kept = h->next;
        h->next = t->held;
        t->held = h;
    }
    if (l->type != TYPE_UNLOCK)
        add(t, oid, l, flock);
    pthread_mutex_unlock(&t->lock);
}

bool held_locks_has(struct held_locks *t, struct oid oid, uint64_t owner, bool flock)
{
    pthread_mutex_lock(&t->lock);
    const struct held_lock *h = t->held;
    while (h != NULL && !same_owner(h, oid, owner, flock))
        h = h->next;
    pthread_mutex_unlock(&t->lock);
    return h != NULL;
}

struct held_lock *held_locks_all(struct held_locks *t, size_t *ret_count)
{
    pthread_mutex_lock(&t->lock);
    size_t n = 0;
    for (const struct held_lock *h = t->held; h != NULL; h = h->next)
        n++;
    struct held_lock *all = mem_calloc(n + 1, sizeof *all);
    n = 0;
    for (const struct held_lock *h = t->held; h != NULL; h = h->next)
        all[n++] = *h;
    pthread_mutex_unlock(&t->lock);
    *ret_count = n;
    return all;
}
