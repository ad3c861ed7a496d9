/* The hybrid clock: properties over random histories with a wall clock that jumps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hlc.h"
#include "base/id.h"

static void test_hlc_next_is_above_everything_before(void **state)
{
    (void)state;
    struct rng r;
    struct hlc h = {0};
    uint64_t highest = 0;
    rng_seed(&r, 2);
    for (int i = 0; i < 100000; i++) {
        uint64_t wall_ns = rng_below(&r, 5000) * NS_PER_MS;
        if (rng_below(&r, 4) == 0) {
            uint64_t seen = rng_below(&r, 6000) << 16 | rng_below(&r, 65536);
            hlc_see(&h, seen);
            highest = MAX(highest, seen);
        } else {
            uint64_t next = hlc_next(&h, wall_ns);
            assert_true(next > highest);
            assert_true(next >= hlc_from_wall(wall_ns));
            highest = next;
        }
    }
}

/* With a wall clock that moves, the value is the wall clock: no drift upwards. */
static void test_hlc_next_follows_a_good_clock(void **state)
{
    (void)state;
    struct hlc h = {0};
    for (uint64_t ms = 1000; ms < 2000; ms++)
        assert_int_equal(hlc_ms(hlc_next(&h, ms * NS_PER_MS)), ms);
}

static void test_hlc_next_full_counter_carries(void **state)
{
    (void)state;
    struct hlc h = {.last = UINT64_C(7) << 16 | 0xffff};
    assert_int_equal(hlc_next(&h, 7 * NS_PER_MS), UINT64_C(8) << 16);
}

static void test_hlc_see_never_lowers(void **state)
{
    (void)state;
    struct hlc h = {.last = 100};
    hlc_see(&h, 50);
    assert_int_equal(h.last, 100);
    hlc_see(&h, 200);
    assert_int_equal(h.last, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hlc_next_is_above_everything_before),
        cmocka_unit_test(test_hlc_next_follows_a_good_clock),
        cmocka_unit_test(test_hlc_next_full_counter_carries),
        cmocka_unit_test(test_hlc_see_never_lowers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
