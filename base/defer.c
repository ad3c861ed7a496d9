/* Deferred work of a loop. See base/defer.h. */
#include "base/defer.h"

#include "base/assert.h"

void defer_list_init(struct defer_list *l)
{
    *l = (struct defer_list){.last = &l->first};
}

bool defer_list_put(struct defer_list *l, struct loop_defer *d)
{
    if (d->queued)
        return false;
    d->queued = true;
    d->next = NULL;
    *l->last = d;
    l->last = &d->next;
    return true;
}

static bool unlink_from(struct loop_defer **at, struct loop_defer *d)
{
    while (*at != NULL && *at != d)
        at = &(*at)->next;
    if (*at == NULL)
        return false;
    *at = d->next;
    return true;
}

void defer_list_drop(struct defer_list *l, struct loop_defer *d)
{
    if (!d->queued)
        return;
    if (unlink_from(&l->first, d)) {
        l->last = &l->first;
        while (*l->last != NULL)
            l->last = &(*l->last)->next;
    } else {
        bool found = unlink_from(&l->running, d);
        ASSERT(found);
    }
    d->next = NULL;
    d->queued = false;
}

void defer_list_run(struct defer_list *l)
{
    l->running = l->first;
    l->first = NULL;
    l->last = &l->first;
    while (l->running != NULL) {
        struct loop_defer *d = l->running;
        l->running = d->next;
        d->next = NULL;
        d->queued = false;
        d->run(d);
    }
}
