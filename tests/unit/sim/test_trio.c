/* sim/trio.h: a few worlds of sites with three nodes, with faults and without; the long search is
 * `claudefs-sim soak --nodes 3`, alone and with `--sites 2`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "sim/trio.h"

static void run(uint64_t seed, bool faults, struct soak_result *ret)
{
    const struct soak_options o = {.nodes = 3, .operations = 600, .faults = faults};
    trio_run(&o, seed, NULL, false, ret);
    if (ret->failure[0] != '\0')
        fail_msg("seed %llu: %s", (unsigned long long)seed, ret->failure);
}

static void test_quiet_site_answers_everything(void **state)
{
    struct soak_result r;
    (void)state;
    run(1, false, &r);
    assert_true(r.calls >= 600 && r.changes > 300);
}

static void test_faulty_sites_keep_every_promise(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct soak_result r;
        run(seed, true, &r);
        assert_true(r.changes > 50);
    }
}

/* Found once, by what the soak draws; what they found is in sim/RESULTS.md. */
static void test_named_seeds(void **state)
{
    static const uint64_t seeds[] = {7, 56, 67, 266, 395};
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(seeds); i++) {
        const struct soak_options o = {.nodes = 3, .operations = 2000, .faults = true};
        struct soak_result r;
        trio_run(&o, seeds[i], NULL, false, &r);
        if (r.failure[0] != '\0')
            fail_msg("seed %llu: %s", (unsigned long long)seeds[i], r.failure);
    }
}

static void run_sites(unsigned sites, uint64_t seed, bool faults, struct soak_result *ret)
{
    const struct soak_options o = {
        .nodes = 3, .sites = sites, .sites_said = true, .operations = 800, .faults = faults};
    trio_run(&o, seed, NULL, false, ret);
    if (ret->failure[0] != '\0')
        fail_msg("%u sites, seed %llu: %s", sites, (unsigned long long)seed, ret->failure);
    assert_true(ret->calls >= 400 && ret->changes > 400);
}

static void test_quiet_sites_of_three_nodes_have_one_tree(void **state)
{
    struct soak_result r;
    (void)state;
    run_sites(2, 1, false, &r);
    run_sites(3, 2, false, &r);
}

static void test_faulty_sites_of_three_nodes_keep_every_promise(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct soak_result r;
        run_sites(2, seed, true, &r);
        run_sites(3, seed, true, &r);
    }
}

static void test_named_seeds_of_two_sites(void **state)
{
    static const uint64_t seeds[] = {7, 13, 31};
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(seeds); i++) {
        const struct soak_options o = {
            .nodes = 3, .sites = 2, .sites_said = true, .operations = 2000, .faults = true};
        struct soak_result r;
        trio_run(&o, seeds[i], NULL, false, &r);
        if (r.failure[0] != '\0')
            fail_msg("seed %llu: %s", (unsigned long long)seeds[i], r.failure);
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
    run_sites(2, 3, true, &a);
    run_sites(2, 3, true, &b);
    assert_int_equal(a.hash, b.hash);
    assert_int_equal(a.events, b.events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quiet_site_answers_everything),
        cmocka_unit_test(test_faulty_sites_keep_every_promise),
        cmocka_unit_test(test_named_seeds),
        cmocka_unit_test(test_quiet_sites_of_three_nodes_have_one_tree),
        cmocka_unit_test(test_faulty_sites_of_three_nodes_keep_every_promise),
        cmocka_unit_test(test_named_seeds_of_two_sites),
        cmocka_unit_test(test_same_seed_gives_same_trace),
    };
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* recoveries are what it is about */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
