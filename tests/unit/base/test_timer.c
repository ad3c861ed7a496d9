/* The timer heap against a plain search for the smallest (deadline, start order). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/timer.h"

enum {
    TIMER_COUNT = 200
};

static void test_timer_heap_agrees_with_a_search(void **state)
{
    (void)state;
    struct timer_heap h = {0};
    struct loop_timer timers[TIMER_COUNT] = {0};
    struct rng r;
    rng_seed(&r, 4);
    for (int round = 0; round < 20000; round++) {
        struct loop_timer *t = &timers[rng_below(&r, TIMER_COUNT)];
        if (rng_below(&r, 3) == 0)
            timer_heap_stop(&h, t);
        else
            timer_heap_start(&h, t, rng_below(&r, 50)); /* many equal deadlines */
        const struct loop_timer *best = NULL;
        size_t running = 0;
        for (size_t i = 0; i < TIMER_COUNT; i++) {
            const struct loop_timer *c = &timers[i];
            if (c->heap_idx == 0)
                continue;
            running++;
            if (best == NULL || c->deadline_ns < best->deadline_ns ||
                (c->deadline_ns == best->deadline_ns && c->order < best->order))
                best = c;
        }
        assert_int_equal(running, h.count);
        assert_ptr_equal(timer_heap_first(&h), best);
    }
    timer_heap_deinit(&h);
    for (size_t i = 0; i < TIMER_COUNT; i++)
        assert_int_equal(timers[i].heap_idx, 0);
}

static void test_timer_heap_equal_deadlines_leave_in_start_order(void **state)
{
    (void)state;
    struct timer_heap h = {0};
    struct loop_timer timers[100] = {0};
    for (size_t i = 0; i < 100; i++)
        timer_heap_start(&h, &timers[i], 7);
    timer_heap_start(&h, &timers[0], 7); /* moved: last now */
    for (size_t i = 0; i < 100; i++) {
        struct loop_timer *first = timer_heap_first(&h);
        assert_ptr_equal(first, &timers[(i + 1) % 100]);
        timer_heap_stop(&h, first);
    }
    assert_null(timer_heap_first(&h));
    timer_heap_stop(&h, &timers[0]); /* idle: no effect */
    timer_heap_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timer_heap_agrees_with_a_search),
        cmocka_unit_test(test_timer_heap_equal_deadlines_leave_in_start_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
