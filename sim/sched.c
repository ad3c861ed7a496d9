/* A binary heap of embedded events. */
#include "sim/sched.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

struct sched *sched;

void sched_init(struct sched *s, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    rng_seed(&s->rng, seed);
    s->hash = fnv1a(slice_of(NULL, 0));
}

void sched_deinit(struct sched *s)
{
    for (size_t i = 0; i < s->count; i++)
        s->heap[i]->heap_idx = 0;
    mem_free(s->heap);
    memset(s, 0, sizeof *s);
}

static bool before(const struct sched_event *a, const struct sched_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void put(struct sched *s, size_t idx, struct sched_event *e)
{
    s->heap[idx] = e;
    e->heap_idx = idx + 1;
}

static void sift_up(struct sched *s, size_t idx)
{
    struct sched_event *e = s->heap[idx];
    while (idx > 0 && before(e, s->heap[(idx - 1) / 2])) {
        put(s, idx, s->heap[(idx - 1) / 2]);
        idx = (idx - 1) / 2;
    }
    put(s, idx, e);
}

static void sift_down(struct sched *s, size_t idx)
{
    struct sched_event *e = s->heap[idx];
    for (;;) {
        size_t child = 2 * idx + 1;
        if (child >= s->count)
            break;
        if (child + 1 < s->count && before(s->heap[child + 1], s->heap[child]))
            child++;
        if (!before(s->heap[child], e))
            break;
        put(s, idx, s->heap[child]);
        idx = child;
    }
    put(s, idx, e);
}

void sched_cancel(struct sched_event *e)
{
    struct sched *s = sched;
    if (e->heap_idx == 0)
        return;
    size_t idx = e->heap_idx - 1;
    ASSERT(idx < s->count && s->heap[idx] == e);
    struct sched_event *last = s->heap[--s->count];
    e->heap_idx = 0;
    if (last == e)
        return;
    put(s, idx, last);
    sift_up(s, idx);
    sift_down(s, last->heap_idx - 1);
}

void sched_at(struct sched_event *e, uint64_t at_ns)
{
    struct sched *s = sched;
    ASSERT(e->run != NULL);
    sched_cancel(e);
    e->at_ns = MAX(at_ns, s->now_ns);
    e->order = ++s->order;
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 256 : 2 * s->cap;
        s->heap = mem_realloc(s->heap, s->cap * sizeof s->heap[0]);
    }
    put(s, s->count, e);
    s->count++;
    sift_up(s, s->count - 1);
}

bool sched_step(uint64_t until_ns)
{
    struct sched *s = sched;
    if (s->count == 0 || s->heap[0]->at_ns > until_ns) {
        s->now_ns = MAX(s->now_ns, until_ns);
        return false;
    }
    struct sched_event *e = s->heap[0];
    s->now_ns = e->at_ns;
    sched_cancel(e);
    s->events++;
    e->run(e);
    return true;
}

void sched_note(const char *what, uint64_t a, uint64_t b)
{
    struct sched *s = sched;
    uint64_t h = fnv1a_more(s->hash, slice_str(what));
    h = (h ^ s->now_ns) * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 29) ^ a) * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 31) ^ b) * 0x9e3779b97f4a7c15u;
    s->hash = h ^ (h >> 32);
    if (s->trace)
        fprintf(stderr, "%14.6f ms  %-24s %llx %llx\n", (double)s->now_ns / 1e6, what,
                (unsigned long long)a, (unsigned long long)b);
}
