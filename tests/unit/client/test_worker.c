/* A thread that works behind the others: it sees all it was woken for, sleeps otherwise, and ends
 * from wherever it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/worker.h"

struct counter {
    struct worker w;
    /* Under its lock. */
    unsigned wanted, done, timeouts;
    uint64_t sleep_ns; /* 0: until woken */
    bool rests;        /* for sleep_ns */
    bool resting;
    uint64_t rested_ns; /* the last time */
    pthread_cond_t moved;
};

static void count_step(struct worker *w)
{
    struct counter *c = CONTAINER_OF(w, struct counter, w);
    if (c->done < c->wanted) {
        pthread_mutex_unlock(&w->lock); /* as work does */
        pthread_mutex_lock(&w->lock);
        c->done++;
    } else if (c->rests) {
        uint64_t begun = clock_mono_ns(&clock_os);
        c->resting = true;
        pthread_cond_signal(&c->moved);
        worker_rest(w, c->sleep_ns);
        c->resting = false;
        c->rested_ns = clock_mono_ns(&clock_os) - begun;
    } else if (c->sleep_ns > 0) {
        c->timeouts += !worker_sleep_until(w, clock_mono_ns(&clock_os) + c->sleep_ns);
    } else {
        worker_sleep(w);
    }
    pthread_cond_signal(&c->moved);
}

static void begin(struct counter *c)
{
    *c = (struct counter){.moved = PTHREAD_COND_INITIALIZER};
    assert_int_equal(worker_start(&c->w, count_step), 0);
}

static void test_all_that_is_wanted_is_done(void **state)
{
    struct counter c;
    (void)state;
    begin(&c);
    for (unsigned i = 0; i < 1000; i++) {
        pthread_mutex_lock(&c.w.lock);
        c.wanted++;
        worker_wake(&c.w);
        pthread_mutex_unlock(&c.w.lock);
    }
    pthread_mutex_lock(&c.w.lock);
    while (c.done < c.wanted)
        pthread_cond_wait(&c.moved, &c.w.lock);
    pthread_mutex_unlock(&c.w.lock);
    worker_free(&c.w);
    assert_int_equal(c.done, 1000);
}

static void test_bounded_sleep_ends_by_itself(void **state)
{
    struct counter c;
    (void)state;
    begin(&c);
    pthread_mutex_lock(&c.w.lock);
    c.sleep_ns = 1000;
    worker_wake(&c.w);
    while (c.timeouts < 3)
        pthread_cond_wait(&c.moved, &c.w.lock);
    pthread_mutex_unlock(&c.w.lock);
    worker_free(&c.w);
}

static void test_rest_lasts_however_often_it_is_woken(void **state)
{
    struct counter c;
    (void)state;
    begin(&c);
    pthread_mutex_lock(&c.w.lock);
    c.sleep_ns = 20 * NS_PER_MS;
    c.rests = true;
    while (c.rested_ns == 0) {
        worker_wake(&c.w);
        pthread_mutex_unlock(&c.w.lock);
        pthread_mutex_lock(&c.w.lock);
    }
    assert_true(c.rested_ns >= c.sleep_ns);
    pthread_mutex_unlock(&c.w.lock);
    worker_free(&c.w);
}

static void test_rest_ends_when_told_to_stop(void **state)
{
    struct counter c;
    (void)state;
    begin(&c);
    pthread_mutex_lock(&c.w.lock);
    c.rests = true;
    c.sleep_ns = 1000000 * NS_PER_SEC; /* the test's time is bounded */
    worker_wake(&c.w);
    while (!c.resting)
        pthread_cond_wait(&c.moved, &c.w.lock);
    pthread_mutex_unlock(&c.w.lock);
    worker_stop(&c.w);
    assert_false(c.resting);
    worker_free(&c.w);
}

static void test_stop_and_free_take_what_was_never_started_or_is_stopped(void **state)
{
    struct worker none = {.state = WORKER_NONE};
    struct counter c;
    (void)state;
    worker_stop(&none);
    worker_free(&none);
    begin(&c);
    worker_stop(&c.w);
    worker_stop(&c.w);
    worker_free(&c.w);
    worker_free(&c.w);
    assert_int_equal(c.w.state, WORKER_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_is_wanted_is_done),
        cmocka_unit_test(test_bounded_sleep_ends_by_itself),
        cmocka_unit_test(test_rest_lasts_however_often_it_is_woken),
        cmocka_unit_test(test_rest_ends_when_told_to_stop),
        cmocka_unit_test(test_stop_and_free_take_what_was_never_started_or_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
