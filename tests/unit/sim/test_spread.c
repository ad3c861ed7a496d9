/* sim/spread.h: a few worlds of one node with several targets, with faults and without; the long
 * search is `claudefs-sim soak --targets`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "sim/spread.h"

static void run(uint64_t seed, bool faults, struct soak_result *ret)
{
    const struct soak_options o = {.targets = true, .operations = 1000, .faults = faults};
    spread_run(&o, seed, NULL, false, ret);
    if (ret->failure[0] != '\0')
        fail_msg("seed %llu: %s", (unsigned long long)seed, ret->failure);
}

static void test_quiet_targets_hold_everything(void **state)
{
    struct soak_result r;
    (void)state;
    run(1, false, &r);
    assert_true(r.calls >= 1000 && r.changes > 200);
    assert_int_equal(r.faults, 0);
}

static void test_faulty_targets_lose_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct soak_result r;
        run(seed, true, &r);
        assert_true(r.changes > 50);
    }
}

static void test_same_seed_gives_same_trace(void **state)
{
    struct soak_result a, b;
    (void)state;
    run(5, true, &a);
    run(5, true, &b);
    assert_int_equal(a.hash, b.hash);
    assert_int_equal(a.events, b.events);
}

/* What is left out by its number does not happen, and what is before it stays as it was. */
static void test_a_fault_that_is_left_out_does_not_happen(void **state)
{
    const struct soak_options o = {.targets = true, .operations = 300, .faults = true};
    struct soak_edit none;
    struct soak_result quiet, all;
    (void)state;
    soak_edit_init(&none);
    spread_run(&o, 3, &none, false, &all);
    for (unsigned i = 0; i < WORLD_EVENTS_MAX; i++)
        none.without[i] = true;
    spread_run(&o, 3, &none, false, &quiet);
    assert_string_equal(all.failure, "");
    assert_string_equal(quiet.failure, "");
    assert_true(all.faults > 0 && quiet.faults > 0);
    assert_int_not_equal(all.hash, quiet.hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quiet_targets_hold_everything),
        cmocka_unit_test(test_faulty_targets_lose_nothing),
        cmocka_unit_test(test_same_seed_gives_same_trace),
        cmocka_unit_test(test_a_fault_that_is_left_out_does_not_happen),
    };
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* recoveries are what it is about */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
