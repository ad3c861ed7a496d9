/* The loop's deferred work: runs in the order in which it was put, each once. A core: the list is
 * all it knows; what is put while it runs waits for the next run. */
#ifndef BASE_DEFER_H
#define BASE_DEFER_H

#include "base/loop.h"

struct defer_list {
    struct loop_defer *first, **last;
    struct loop_defer *running; /* what defer_list_run has still to run */
};
void defer_list_init(struct defer_list *l);
bool defer_list_put(struct defer_list *l, struct loop_defer *d);  /* false while it is queued */
void defer_list_drop(struct defer_list *l, struct loop_defer *d); /* no effect unless queued */
void defer_list_run(struct defer_list *l);

#endif
