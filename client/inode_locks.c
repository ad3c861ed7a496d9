#include "client/inode_locks.h"

#include "base/clock.h"
#include "base/cond.h"

#define TYPE_UNLOCK 2u

void held_locks_init(struct held_locks *t)
{
    *t = (struct held_locks){0};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->released, NULL);
}

void held_locks_deinit(struct held_locks *t)
{
    while (t->held != NULL) {
        struct held_lock *h = t->held;
        t->held = h->next;
        mem_free(h);
    }
    pthread_cond_destroy(&t->released);
    pthread_mutex_destroy(&t->lock);
}

static void add(struct held_locks *t, const struct held_lock *like, const struct fs_lock *l)
{
    struct held_lock *h = mem_calloc(1, sizeof *h);
    *h = *like;
    h->lock = *l;
    h->next = t->held;
    t->held = h;
}

static bool same_owner(const struct held_lock *h, struct oid oid, uint64_t owner, bool flock)
{
    return h->flock == flock && h->lock.owner == owner && oid_equal(h->oid, oid);
}

void held_locks_set(struct held_locks *t, const struct held_lock *n)
{
    const struct fs_lock *l = &n->lock;
    pthread_mutex_lock(&t->lock);
    struct held_lock *kept = NULL, *at = t->held;
    t->held = NULL;
    while (at != NULL) {
        struct held_lock *h = at;
        at = h->next;
        bool hit = same_owner(h, n->oid, l->owner, n->flock) &&
                   (n->flock || (h->lock.start <= l->end && l->start <= h->lock.end));
        if (!hit) {
            h->next = kept;
            kept = h;
            continue;
        }
        /* What sticks out on either side stays. */
        struct fs_lock left = h->lock, right = h->lock;
        left.end = l->start - 1;
        right.start = l->end + 1;
        if (!n->flock && h->lock.start < l->start)
            add(t, h, &left);
        if (!n->flock && h->lock.end > l->end)
            add(t, h, &right);
        mem_free(h);
    }
    while (kept != NULL) {
        struct held_lock *h = kept;
        kept = h->next;
        h->next = t->held;
        t->held = h;
    }
    if (l->type != TYPE_UNLOCK)
        add(t, n, l);
    t->releases++; /* of a part, maybe */
    pthread_cond_broadcast(&t->released);
    pthread_mutex_unlock(&t->lock);
}

bool held_locks_of_handle(struct held_locks *t,
                          struct oid oid,
                          uint64_t handle,
                          uint64_t *ret_owner)
{
    pthread_mutex_lock(&t->lock);
    const struct held_lock *h = t->held;
    while (h != NULL && (h->flock || h->handle != handle || !oid_equal(h->oid, oid)))
        h = h->next;
    if (h != NULL)
        *ret_owner = h->lock.owner;
    pthread_mutex_unlock(&t->lock);
    return h != NULL;
}

bool held_locks_await(struct held_locks *t, struct oid oid, uint64_t owner, bool flock, uint64_t ns)
{
    uint64_t until = clock_mono_ns(&clock_os) + ns;
    pthread_mutex_lock(&t->lock);
    const struct held_lock *h = t->held;
    while (h != NULL && (h->flock != flock || h->lock.owner == owner || !oid_equal(h->oid, oid)))
        h = h->next;
    bool there = h != NULL;
    uint64_t before = t->releases;
    while (there && t->releases == before && cond_wait_until(&t->released, &t->lock, until))
        ;
    pthread_mutex_unlock(&t->lock);
    return there;
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
