/* The pool: work elsewhere, done at home. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "base/loop.h"

enum {
    JOBS = 500
};

struct job {
    struct pool_job job;
    struct loop *loop;
    pthread_t home;
    int *left, worked, finished;
};

static void job_work(struct pool_job *j)
{
    struct job *job = CONTAINER_OF(j, struct job, job);
    ASSERT(pthread_equal(pthread_self(), job->home) == 0);
    job->worked++;
}

static void job_done(struct pool_job *j)
{
    struct job *job = CONTAINER_OF(j, struct job, job);
    ASSERT(loop_here(job->loop) && pthread_equal(pthread_self(), job->home) != 0);
    ASSERT(job->worked == 1);
    job->finished++;
    if (--*job->left == 0)
        loop_stop(job->loop);
}

static struct job *jobs_submit(struct pool *pool, struct loop *loop, int *left)
{
    struct job *jobs = mem_calloc(JOBS, sizeof *jobs);
    *left = JOBS;
    for (size_t i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){.job = {.work = job_work, .done = job_done},
                               .loop = loop,
                               .home = pthread_self(),
                               .left = left};
        pool_submit(pool, loop, &jobs[i].job);
    }
    return jobs;
}

static void jobs_check(struct job *jobs)
{
    for (size_t i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].worked, 1);
        assert_int_equal(jobs[i].finished, 1);
    }
    mem_free(jobs);
}

static void test_pool_submit_runs_each_job_once_and_comes_home(void **state)
{
    (void)state;
    struct loop *loop;
    struct pool *pool;
    int left;
    assert_int_equal(loop_new(&loop, 8, &clock_os, NULL), 0);
    assert_int_equal(pool_new(&pool, 3), 0);
    struct job *jobs = jobs_submit(pool, loop, &left);
    loop_run(loop);
    jobs_check(jobs);
    pool_free(pool);
    loop_free(loop);
}

/* Free waits for what is queued; the results are there for the loop afterwards. */
static void test_pool_free_runs_what_is_queued(void **state)
{
    (void)state;
    struct loop *loop;
    struct pool *pool;
    int left;
    assert_int_equal(loop_new(&loop, 8, &clock_os, NULL), 0);
    assert_int_equal(pool_new(&pool, 1), 0);
    struct job *jobs = jobs_submit(pool, loop, &left);
    pool_free(pool);
    assert_int_equal(left, JOBS);
    loop_run(loop);
    jobs_check(jobs);
    loop_free(loop);
}

struct chain {
    struct pool_job job;
    struct pool *pool;
    struct loop *loop;
    int rounds;
};

static void chain_work(struct pool_job *j)
{
    CONTAINER_OF(j, struct chain, job)->rounds++;
}

static void chain_done(struct pool_job *j)
{
    struct chain *c = CONTAINER_OF(j, struct chain, job);
    if (c->rounds == 200)
        loop_stop(c->loop);
    else
        pool_submit(c->pool, c->loop, j);
}

static void test_pool_job_is_reusable_inside_done(void **state)
{
    (void)state;
    struct chain c = {.job = {.work = chain_work, .done = chain_done}};
    assert_int_equal(loop_new(&c.loop, 8, &clock_os, NULL), 0);
    assert_int_equal(pool_new(&c.pool, 2), 0);
    pool_submit(c.pool, c.loop, &c.job);
    loop_run(c.loop);
    assert_int_equal(c.rounds, 200);
    pool_free(c.pool);
    loop_free(c.loop);
}

static void test_pool_free_accepts_null_and_idle(void **state)
{
    (void)state;
    struct pool *pool;
    pool_free(NULL);
    assert_int_equal(pool_new(&pool, 4), 0);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_submit_runs_each_job_once_and_comes_home),
        cmocka_unit_test(test_pool_free_runs_what_is_queued),
        cmocka_unit_test(test_pool_job_is_reusable_inside_done),
        cmocka_unit_test(test_pool_free_accepts_null_and_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
