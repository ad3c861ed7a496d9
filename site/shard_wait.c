/* What requests wait for in a shard: that something becomes durable, that a latch is let go, that
 * something more is applied. And the marks, which tell what is not durable yet.
 *
 * Waiters of latches and of what is applied evaluate their request again, so they are woken by the
 * event they wait for and by no other; they stand in the order they came in. */
#include <sodium.h>
#include <string.h>

#include "base/limits.h"
#include "base/plant.h"
#include "site/shard_int.h"

uint64_t touch_key(struct oid oid, struct slice name)
{
    static const uint8_t key[crypto_shorthash_KEYBYTES] = {7};
    uint8_t in[sizeof oid.b + LIMIT_NAME_BYTES];
    uint64_t out;
    size_t len = MIN(name.len, (size_t)LIMIT_NAME_BYTES);
    memcpy(in, oid.b, sizeof oid.b);
    if (len > 0)
        memcpy(in + sizeof oid.b, name.ptr, len);
    crypto_shorthash((unsigned char *)&out, in, sizeof oid.b + len, key);
    return out;
}

static void wait_add(struct shard_wait **list, struct shard_wait *w)
{
    while (*list != NULL)
        list = &(*list)->next;
    w->next = NULL;
    *list = w;
}

/* Takes those that are meant out of the list and runs them: each may be freed by that. */
static void waits_run(struct shard_wait **list,
                      bool (*meant)(const struct shard_wait *w, uint64_t v),
                      uint64_t v)
{
    struct shard_wait *ready = NULL, **last = &ready;
    while (*list != NULL) {
        struct shard_wait *w = *list;
        if (!meant(w, v)) {
            list = &w->next;
            continue;
        }
        *list = w->next;
        w->next = NULL;
        *last = w;
        last = &w->next;
    }
    while (ready != NULL) {
        struct shard_wait *w = ready;
        ready = w->next;
        w->run(w);
    }
}

/* ---- durable ---- */

void shard_wait_durable(struct shard *s, uint64_t index, struct shard_wait *w)
{
    w->index = index;
    w->next = s->durable_waits;
    s->durable_waits = w;
}

static bool is_durable(const struct shard_wait *w, uint64_t index)
{
    return w->index <= index;
}

void shard_durable_waits_run(struct shard *s, uint64_t index)
{
    waits_run(&s->durable_waits, is_durable, index);
}

uint64_t shard_mark(struct shard *s, uint64_t key)
{
    uint64_t m = s->marks[key % MARK_COUNT];
    return m > s->committed ? m : 0;
}

bool shard_mark_is_of(struct shard *s, uint64_t key, uint64_t session)
{
    uint64_t by = s->mark_sessions[key % MARK_COUNT];
    return (by != 0 && by == session) || shard_mark(s, key) == 0;
}

void shard_waits_forget(struct shard *s)
{
    struct latch *l, *tmp;
    HASH_ITER(hh, s->latches, l, tmp)
    {
        HASH_DEL(s->latches, l);
        mem_free(l);
    }
    s->latch_waits = s->durable_waits = s->applied_waits = NULL;
}

/* ---- applied ---- */

void shard_wait_applied(struct shard *s, struct shard_wait *w)
{
    wait_add(&s->applied_waits, w);
}

void shard_wait_applied_cancel(struct shard *s, struct shard_wait *w)
{
    for (struct shard_wait **at = &s->applied_waits; *at != NULL; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            return;
        }
}

static bool any(const struct shard_wait *w, uint64_t v)
{
    (void)w;
    (void)v;
    return true;
}

void shard_applied_waits_run(struct shard *s)
{
    waits_run(&s->applied_waits, any, 0);
}

/* ---- latches ---- */

bool shard_latched(struct shard *s, uint64_t key)
{
    struct latch *l;
    HASH_FIND(hh, s->latches, &key, sizeof key, l);
    return l != NULL;
}

void shard_latch(struct shard *s, uint64_t key)
{
    ASSERT(!shard_latched(s, key));
    struct latch *l = mem_calloc(1, sizeof *l);
    l->key = key;
    HASH_ADD(hh, s->latches, key, sizeof l->key, l);
}

static bool is_of_key(const struct shard_wait *w, uint64_t key)
{
    return w->index == key;
}

void shard_unlatch(struct shard *s, uint64_t key)
{
    struct latch *l;
    HASH_FIND(hh, s->latches, &key, sizeof key, l);
    ASSERT(l != NULL);
    HASH_DEL(s->latches, l);
    mem_free(l);
    if (!PLANTED(72))
        waits_run(&s->latch_waits, is_of_key, key);
}

void shard_wait_latch(struct shard *s, uint64_t key, struct shard_wait *w)
{
    ASSERT(shard_latched(s, key));
    w->index = key;
    wait_add(&s->latch_waits, w);
}
