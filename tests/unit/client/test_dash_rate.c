/* Rates and the time left, as links go: steadily, in jerks, cut and healed, growing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client/dash_rate.h"

static void assert_near(double is, double wanted)
{
    assert_true(is > wanted * 0.99 - 0.001 && is < wanted * 1.01 + 0.001);
}

static void test_steady_link_is_known_after_two_samples(void **state)
{
    (void)state;
    struct dash_rate r = {.count = 0};
    assert_true(dash_rate_left_s(&r) < 0);
    for (unsigned i = 0; i < 100; i++) {
        dash_rate_see(&r, 10 + i * 0.5, 1000 + i * 50.0, 10000 - i * 50.0);
        if (i == 0)
            continue;
        assert_near(dash_rate_per_s(&r), 100);
        assert_near(dash_rate_left_s(&r), (10000 - i * 50.0) / 100);
    }
}

static void test_nothing_to_go_is_no_time(void **state)
{
    (void)state;
    struct dash_rate r = {.count = 0};
    dash_rate_see(&r, 1, 5, 0);
    assert_near(dash_rate_left_s(&r), 0);
    assert_near(dash_rate_per_s(&r), 0);
    dash_rate_see(&r, 2, 25, 0);
    assert_near(dash_rate_per_s(&r), 20);
    for (unsigned i = 3; i < 15; i++)
        dash_rate_see(&r, i, 25, 0);
    assert_near(dash_rate_per_s(&r), 0); /* idle for longer than the window */
}

/* While a link is cut nothing is known; a second after it is back, it is. */
static void test_cut_says_nothing_and_is_forgotten(void **state)
{
    (void)state;
    struct dash_rate r = {.count = 0};
    for (unsigned i = 0; i < 20; i++) {
        dash_rate_see(&r, i * 0.5, 100, 200 + i * 40.0); /* more is written here */
        assert_true(dash_rate_left_s(&r) < 0);
    }
    for (unsigned i = 0; i < 6; i++)
        dash_rate_see(&r, 10 + i * 0.5, 100, 1000);
    assert_true(dash_rate_left_s(&r) < 0);
    dash_rate_see(&r, 13, 150, 950);
    assert_near(dash_rate_left_s(&r), 9.5);
    dash_rate_see(&r, 13.5, 200, 900);
    assert_near(dash_rate_left_s(&r), 9);
}

/* The receiver hears only after the heal how much there is. */
static void test_what_is_announced_late_counts_from_there(void **state)
{
    (void)state;
    struct dash_rate r = {.count = 0};
    dash_rate_see(&r, 1, 0, 0);
    dash_rate_see(&r, 2, 0, 0);
    dash_rate_see(&r, 3, 100, 900);
    assert_true(dash_rate_left_s(&r) < 0);
    dash_rate_see(&r, 4, 200, 800);
    assert_near(dash_rate_left_s(&r), 8);
}

/* Batches come in jerks: what counts is the whole since it was most. */
static void test_jerks_are_evened_out(void **state)
{
    (void)state;
    struct dash_rate r = {.count = 0};
    for (unsigned i = 0; i < 24; i++)
        dash_rate_see(&r, i * 0.5, i / 4 * 400.0, 8000 - i / 4 * 400.0);
    assert_near(dash_rate_left_s(&r), 6000 * 8 / 1600.0);
    assert_true(dash_rate_per_s(&r) > 150 && dash_rate_per_s(&r) < 250);
}

static void test_counter_that_begins_anew_forgets(void **state)
{
    (void)state;
    struct dash_rate r = {.count = 0};
    dash_rate_see(&r, 1, 1000, 500);
    dash_rate_see(&r, 2, 1100, 400);
    dash_rate_see(&r, 3, 10, 390);
    assert_near(dash_rate_per_s(&r), 0);
    assert_true(dash_rate_left_s(&r) < 0);
    dash_rate_see(&r, 4, 20, 380);
    assert_near(dash_rate_left_s(&r), 38);
}

/* More samples than there is room for: the oldest go. */
static void test_many_samples_stay_bounded(void **state)
{
    (void)state;
    struct dash_rate r = {.count = 0};
    for (unsigned i = 0; i < 1000; i++)
        dash_rate_see(&r, i * 0.01, i, 2000 - i);
    assert_int_equal(r.count, DASH_RATE_SAMPLES);
    assert_near(dash_rate_per_s(&r), 100);
    assert_near(dash_rate_left_s(&r), 10.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steady_link_is_known_after_two_samples),
        cmocka_unit_test(test_nothing_to_go_is_no_time),
        cmocka_unit_test(test_cut_says_nothing_and_is_forgotten),
        cmocka_unit_test(test_what_is_announced_late_counts_from_there),
        cmocka_unit_test(test_jerks_are_evened_out),
        cmocka_unit_test(test_counter_that_begins_anew_forgets),
        cmocka_unit_test(test_many_samples_stay_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
