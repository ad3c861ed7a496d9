/* Waiting times grow to the bound, are spread, and start over after a reset. */
#include "tests/unit/wan/wan_test.h"
#include "wan/backoff.h"

static void test_backoff_next_grows_to_the_bound(void **state)
{
    (void)state;
    struct backoff b = {0};
    struct rng rng;
    rng_seed(&rng, 1);
    uint64_t full = BACKOFF_FIRST_NS;
    for (int i = 0; i < 40; i++) {
        uint64_t wait = backoff_next_ns(&b, &rng);
        assert_in_range(wait, full / 2, full);
        full = MIN(2 * full, BACKOFF_MAX_NS);
    }
    assert_int_equal(full, BACKOFF_MAX_NS);
    backoff_reset(&b);
    assert_in_range(backoff_next_ns(&b, &rng), BACKOFF_FIRST_NS / 2, BACKOFF_FIRST_NS);
}

static void test_backoff_next_is_spread(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 2);
    uint64_t lowest = UINT64_MAX, highest = 0;
    for (int i = 0; i < 200; i++) {
        struct backoff b = {.failures = 30};
        uint64_t wait = backoff_next_ns(&b, &rng);
        lowest = MIN(lowest, wait);
        highest = MAX(highest, wait);
    }
    assert_true(lowest < BACKOFF_MAX_NS * 6 / 10 && highest > BACKOFF_MAX_NS * 9 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff_next_grows_to_the_bound),
        cmocka_unit_test(test_backoff_next_is_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
