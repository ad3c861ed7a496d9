/* Binary heap with positions kept in the timers, so that stop and move are O(log n). */
#include "base/timer.h"

#include "base/assert.h"

static bool before(const struct loop_timer *a, const struct loop_timer *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns;
    return a->order < b->order;
}

static void put(struct timer_heap *h, size_t idx, struct loop_timer *t)
{
    h->at[idx] = t;
    t->heap_idx = idx + 1;
}

static void sift_up(struct timer_heap *h, size_t idx)
{
    struct loop_timer *t = h->at[idx];
    while (idx > 0 && before(t, h->at[(idx - 1) / 2])) {
        put(h, idx, h->at[(idx - 1) / 2]);
        idx = (idx - 1) / 2;
    }
    put(h, idx, t);
}

static void sift_down(struct timer_heap *h, size_t idx)
{
    struct loop_timer *t = h->at[idx];
    for (;;) {
        size_t child = 2 * idx + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && before(h->at[child + 1], h->at[child]))
            child++;
        if (!before(h->at[child], t))
            break;
        put(h, idx, h->at[child]);
        idx = child;
    }
    put(h, idx, t);
}

void timer_heap_deinit(struct timer_heap *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->at[i]->heap_idx = 0;
    mem_free(h->at);
    *h = (struct timer_heap){0};
}

void timer_heap_stop(struct timer_heap *h, struct loop_timer *t)
{
    if (t->heap_idx == 0)
        return;
    size_t idx = t->heap_idx - 1;
    ASSERT(idx < h->count && h->at[idx] == t);
    t->heap_idx = 0;
    struct loop_timer *last = h->at[--h->count];
    if (last == t)
        return;
    put(h, idx, last);
    sift_up(h, idx);
    sift_down(h, last->heap_idx - 1);
}

void timer_heap_start(struct timer_heap *h, struct loop_timer *t, uint64_t deadline_ns)
{
    timer_heap_stop(h, t);
    if (h->count == h->cap) {
        h->cap = h->cap == 0 ? 16 : 2 * h->cap;
        h->at = mem_realloc(h->at, h->cap * sizeof(struct loop_timer *));
    }
    t->deadline_ns = deadline_ns;
    t->order = ++h->order;
    put(h, h->count++, t);
    sift_up(h, h->count - 1);
}

struct loop_timer *timer_heap_first(const struct timer_heap *h)
{
    return h->count == 0 ? NULL : h->at[0];
}

void timer_heap_run(struct timer_heap *h, uint64_t now_ns)
{
    uint64_t order_last = h->order;
    for (;;) {
        struct loop_timer *t = timer_heap_first(h);
        if (t == NULL || t->deadline_ns > now_ns || t->order > order_last)
            return;
        timer_heap_stop(h, t);
        t->fire(t);
    }
}
