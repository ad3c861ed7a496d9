/* The loop's timers: a binary heap of embedded struct loop_timer, ordered by deadline, then by
 * start. A core: no clock, no I/O; the heap array is the only thing it owns. */
#ifndef BASE_TIMER_H
#define BASE_TIMER_H

#include "base/loop.h"

struct timer_heap {
    struct loop_timer **at;
    size_t count, cap;
    uint64_t order; /* of the latest start; breaks ties */
};
void timer_heap_deinit(struct timer_heap *h); /* timers still in it become idle */
void timer_heap_start(struct timer_heap *h, struct loop_timer *t, uint64_t deadline_ns);
void timer_heap_stop(struct timer_heap *h, struct loop_timer *t);
struct loop_timer *timer_heap_first(const struct timer_heap *h); /* NULL when empty */

/* Fires what is due. What a timer starts waits for the next run, even if it is due already. */
void timer_heap_run(struct timer_heap *h, uint64_t now_ns);

#endif
