/* A fixed number of threads that take jobs from one queue, first in first out. */
#include "base/loop.h"

#include <pthread.h>
#include <signal.h>

#include "base/assert.h"

struct pool {
    pthread_mutex_t lock; /* guards everything below but the threads */
    pthread_cond_t more;  /* a job came in, or closing was set */
    struct pool_job *first, **last;
    bool closing;
    uint32_t thread_count;
    pthread_t threads[];
};

static void job_finished(struct loop_msg *msg)
{
    struct pool_job *job = CONTAINER_OF(msg, struct pool_job, msg);
    job->done(job);
}

/* The next job; NULL once the pool is closing and empty. */
static struct pool_job *job_take(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    while (pool->first == NULL && !pool->closing)
        (void)pthread_cond_wait(&pool->more, &pool->lock);
    struct pool_job *job = pool->first;
    if (job != NULL) {
        pool->first = job->next;
        if (pool->first == NULL)
            pool->last = &pool->first;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *thread_main(void *arg)
{
    struct pool *pool = arg;
    struct pool_job *job;
    while ((job = job_take(pool)) != NULL) {
        job->work(job);
        loop_post(job->loop, &job->msg);
    }
    return NULL;
}

int pool_new(struct pool **ret, uint32_t threads)
{
    ASSERT(threads > 0);
    struct pool *pool = mem_calloc(1, sizeof *pool + threads * sizeof pool->threads[0]);
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->more, NULL);
    pool->last = &pool->first;
    /* Signals belong to the threads that expect them: none of these. */
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (uint32_t i = 0; i < threads && rc == 0; i++) {
        rc = pthread_create(&pool->threads[i], NULL, thread_main, pool);
        if (rc == 0)
            pool->thread_count++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        pool_free(pool);
        return err_from_errno(rc);
    }
    *ret = pool;
    return 0;
}

void pool_free(struct pool *pool)
{
    if (pool == NULL)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    (void)pthread_cond_broadcast(&pool->more);
    (void)pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->thread_count; i++)
        (void)pthread_join(pool->threads[i], NULL);
    ASSERT(pool->first == NULL);
    (void)pthread_cond_destroy(&pool->more);
    (void)pthread_mutex_destroy(&pool->lock);
    mem_free(pool);
}

void pool_submit(struct pool *pool, struct loop *loop, struct pool_job *job)
{
    job->loop = loop;
    job->msg = (struct loop_msg){.run = job_finished, .next = NULL};
    job->next = NULL;
    (void)pthread_mutex_lock(&pool->lock);
    ASSERT(!pool->closing);
    *pool->last = job;
    pool->last = &job->next;
    (void)pthread_cond_signal(&pool->more);
    (void)pthread_mutex_unlock(&pool->lock);
}
