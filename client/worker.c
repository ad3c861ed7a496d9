/* One thread that works behind the others. See client/worker.h. */
#include "client/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/cond.h"
#include "base/err.h"

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping)
        w->step(w);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int worker_start(struct worker *w, void (*step)(struct worker *w))
{
    *w = (struct worker){.step = step, .state = WORKER_RUNS};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->woken, NULL);
    int rc = err_from_errno(pthread_create(&w->thread, NULL, worker_main, w));
    if (rc != 0) {
        w->state = WORKER_STOPPED;
        worker_free(w);
    }
    return rc;
}

void worker_stop(struct worker *w)
{
    if (w->state != WORKER_RUNS)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    worker_wake(w);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    w->state = WORKER_STOPPED;
}

void worker_free(struct worker *w)
{
    if (w->state == WORKER_NONE)
        return;
    worker_stop(w);
    pthread_cond_destroy(&w->woken);
    pthread_mutex_destroy(&w->lock);
    w->state = WORKER_NONE;
}

void worker_wake(struct worker *w)
{
    pthread_cond_signal(&w->woken);
}

void worker_sleep(struct worker *w)
{
    if (!w->stopping)
        pthread_cond_wait(&w->woken, &w->lock);
}

bool worker_sleep_until(struct worker *w, uint64_t until_ns)
{
    return w->stopping || cond_wait_until(&w->woken, &w->lock, until_ns);
}

void worker_rest(struct worker *w, uint64_t ns)
{
    uint64_t until = clock_mono_ns(&clock_os) + ns;
    while (!w->stopping && cond_wait_until(&w->woken, &w->lock, until))
        ; /* woken, which has time */
}
