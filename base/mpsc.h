/* Queue from many threads to one: a lock-free stack that the consumer takes as a whole and turns
 * round. Links are embedded; zeroed is empty. push: any thread; take: one thread at a time. */
#ifndef BASE_MPSC_H
#define BASE_MPSC_H

#include <stdatomic.h>

#include "base/util.h"

struct mpsc_link {
    struct mpsc_link *next; /* private */
};
struct mpsc {
    _Atomic(struct mpsc_link *) newest;
};
/* True: it was empty, so the consumer may be asleep and must be woken. */
static inline bool mpsc_push(struct mpsc *q, struct mpsc_link *link)
{
    struct mpsc_link *head = atomic_load_explicit(&q->newest, memory_order_relaxed);
    do
        link->next = head;
    while (!atomic_compare_exchange_weak_explicit(&q->newest, &head, link, memory_order_release,
                                                  memory_order_relaxed));
    return head == NULL;
}
/* All that was pushed, the oldest first, linked through next. */
static inline struct mpsc_link *mpsc_take(struct mpsc *q)
{
    struct mpsc_link *at = atomic_exchange_explicit(&q->newest, NULL, memory_order_acquire);
    struct mpsc_link *first = NULL;
    while (at != NULL) {
        struct mpsc_link *next = at->next;
        at->next = first;
        first = at;
        at = next;
    }
    return first;
}

#endif
