/* A thread of the mount that does one kind of work behind the others, and sleeps while there is
 * none. Its owner embeds it, and keeps what the work is found by under its lock. */
#ifndef CLIENT_WORKER_H
#define CLIENT_WORKER_H

#include <pthread.h>

#include "base/util.h"

struct worker {
    pthread_mutex_t lock;
    pthread_cond_t woken;
    pthread_t thread;
    /* Lock held, and again on return: does what there is to do, without the lock, or sleeps. */
    void (*step)(struct worker *w);
    enum {
        WORKER_NONE, /* zeroed, or freed */
        WORKER_RUNS,
        WORKER_STOPPED
    } state;       /* of its owner's thread */
    bool stopping; /* read-only, lock held: what a step waits for is not worth waiting for any more
                    */
};
/* From now on `step` is called, again and again, in a thread of its own, until it is told to stop.
 * An error: there is nothing that would have to be freed. */
int worker_start(struct worker *w, void (*step)(struct worker *w)) MUST_CHECK;
void worker_stop(struct worker *w); /* joins; accepts a zeroed one, and one that was stopped */
void worker_free(struct worker *w); /* stops; nobody wakes it any more; the same */

/* Lock held. There is something to do: */
void worker_wake(struct worker *w);
/* For the step; lock held, and again on return. Until woken or told to stop: */
void worker_sleep(struct worker *w);
/* The same until clock_mono_ns(&clock_os) is until_ns at the latest; false: it is. */
bool worker_sleep_until(struct worker *w, uint64_t until_ns);
/* Until told to stop, or ns have passed, whoever wakes it. */
void worker_rest(struct worker *w, uint64_t ns);

#endif
