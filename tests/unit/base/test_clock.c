/* Clocks and generators. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/clock.h"

static void test_clock_os_moves_forward(void **state)
{
    (void)state;
    uint64_t first = clock_mono_ns(&clock_os);
    assert_true(clock_mono_ns(&clock_os) >= first);
    assert_true(clock_wall_ns(&clock_os) > UINT64_C(1600000000) * NS_PER_SEC);
}

/* The sequence is part of replaying a seed: it must never change. */
static void test_rng_sequence_is_fixed(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 0);
    /* splitmix64 of 0, from its reference code */
    assert_int_equal(r.s[0], UINT64_C(0xe220a8397b1dcdaf));
    assert_int_equal(r.s[1], UINT64_C(0x6e789e6aa1b965f4));
    /* xoshiro256** on the state 1, 2, 3, 4, from its reference code */
    r = (struct rng){.s = {1, 2, 3, 4}};
    assert_int_equal(rng_next(&r), 11520);
    assert_int_equal(rng_next(&r), 0);
    assert_int_equal(rng_next(&r), 1509978240);
}

static void test_rng_below_stays_below_and_reaches_all(void **state)
{
    (void)state;
    struct rng r;
    uint32_t hits[7] = {0};
    rng_seed(&r, 3);
    for (int i = 0; i < 70000; i++)
        hits[rng_below(&r, 7)]++;
    for (size_t i = 0; i < 7; i++)
        assert_in_range(hits[i], 9500, 10500);
    assert_int_equal(rng_below(&r, 1), 0);
    for (int i = 0; i < 100; i++)
        assert_true(rng_below(&r, (UINT64_C(1) << 63) + 1) <= UINT64_C(1) << 63);
}

static void test_random_bytes_differ(void **state)
{
    (void)state;
    uint8_t a[32], b[32];
    random_bytes(a, sizeof a);
    random_bytes(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_not_equal(random_u64(), random_u64());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock_os_moves_forward),
        cmocka_unit_test(test_rng_sequence_is_fixed),
        cmocka_unit_test(test_rng_below_stays_below_and_reaches_all),
        cmocka_unit_test(test_random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
