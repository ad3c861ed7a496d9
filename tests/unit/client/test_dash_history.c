/* The dashboard's history: grains, gaps, bounds, and what a damaged file does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "client/dash_history.h"

#define T0 1800000000u /* a multiple of every step */

static struct dash_sample sample(float lag, float rate)
{
    return (struct dash_sample){.v = {[DASH_LAG_IN] = lag, [DASH_RATE_IN] = rate}};
}

static float value(const struct dash_history *h, unsigned grain, uint32_t idx, enum dash_value v)
{
    return dash_history_value(h, "beta", grain, idx, v);
}

/* Within a step the worst lag and the mean rate stay. */
static void test_steps_keep_worst_lag_and_mean_rate(void **state)
{
    (void)state;
    struct dash_history *h = dash_history_new();
    struct dash_series s;
    assert_false(dash_history_series(h, "beta", 0, &s));
    for (unsigned i = 0; i < 5; i++) {
        struct dash_sample x = sample(i == 2 ? 7 : 1, (float)(10 * i));
        dash_history_add(h, "beta", T0 + i, &x);
    }
    assert_true(dash_history_series(h, "beta", 0, &s));
    assert_int_equal(s.count, 1);
    assert_int_equal(s.step_s, 5);
    assert_int_equal(s.first_s, T0);
    assert_float_equal(value(h, 0, 0, DASH_LAG_IN), 7, 0);
    assert_float_equal(value(h, 0, 0, DASH_RATE_IN), 20, 0.001);
    assert_false(dash_history_series(h, "beta", DASH_GRAINS, &s));
    assert_false(dash_history_series(h, "gamma", 0, &s));
    dash_history_free(h);
}

/* Time in which nothing was measured is a gap, not a line; a clock set back changes nothing. */
static void test_gaps_and_clocks(void **state)
{
    (void)state;
    struct dash_history *h = dash_history_new();
    struct dash_series s;
    struct dash_sample x = sample(1, 0), late = sample(3, 0);
    dash_history_add(h, "beta", T0, &x);
    dash_history_add(h, "beta", T0 + 20, &x);
    dash_history_add(h, "beta", T0 + 3, &late);
    assert_true(dash_history_series(h, "beta", 0, &s));
    assert_int_equal(s.count, 5);
    assert_float_equal(value(h, 0, 0, DASH_LAG_IN), 1, 0);
    for (uint32_t i = 1; i < 4; i++)
        assert_true(isnan(value(h, 0, i, DASH_LAG_IN)));
    assert_float_equal(value(h, 0, 4, DASH_LAG_IN), 3, 0);
    dash_history_free(h);
}

/* A day of samples: the fine grain has the last hour, the next one all of it. */
static void test_a_day_is_kept_and_bounded(void **state)
{
    (void)state;
    struct dash_history *h = dash_history_new();
    struct dash_series s;
    for (unsigned t = 0; t <= 25 * 3600; t += 5) {
        struct dash_sample x = sample((float)t, 1);
        dash_history_add(h, "beta", T0 + t, &x);
    }
    assert_true(dash_history_series(h, "beta", 0, &s));
    assert_int_equal(s.count * s.step_s, 3600);
    assert_float_equal(value(h, 0, s.count - 1, DASH_LAG_IN), 25 * 3600, 0);
    assert_true(dash_history_series(h, "beta", 1, &s));
    assert_int_equal(s.count * s.step_s, 24 * 3600);
    assert_int_equal(s.first_s + (s.count - 1) * s.step_s, T0 + 25 * 3600);
    assert_true(dash_history_series(h, "beta", 2, &s));
    assert_int_equal(s.count, 101);
    /* A jump of years leaves one sample behind gaps. */
    struct dash_sample x = sample(9, 0);
    dash_history_add(h, "beta", T0 + 400000000u, &x);
    assert_true(dash_history_series(h, "beta", 0, &s));
    assert_int_equal(s.count, 720);
    assert_true(isnan(value(h, 0, 0, DASH_LAG_IN)));
    assert_float_equal(value(h, 0, 719, DASH_LAG_IN), 9, 0);
    dash_history_free(h);
}

static void test_peers_are_bounded(void **state)
{
    (void)state;
    struct dash_history *h = dash_history_new();
    struct dash_series s;
    char name[40];
    struct dash_sample x = sample(1, 0);
    for (unsigned i = 0; i < DASH_PEERS_MAX + 3; i++) {
        (void)snprintf(name, sizeof name, "site%u", i);
        dash_history_add(h, name, T0, &x);
        assert_int_equal(dash_history_series(h, name, 0, &s), i < DASH_PEERS_MAX);
    }
    dash_history_free(h);
}

/* Written and read back it is the same; any damaged byte is noticed, and nothing changes. */
static void test_file_round_trip_and_damage(void **state)
{
    (void)state;
    struct dash_history *h = dash_history_new(), *other = dash_history_new();
    struct buf b = {0}, again = {0};
    struct dash_series s;
    for (unsigned t = 0; t < 100; t++) {
        struct dash_sample x = sample((float)t, (float)t);
        dash_history_add(h, t % 2 == 0 ? "beta" : "gamma", T0 + 7 * t, &x);
    }
    dash_history_encode(h, &b);
    assert_int_equal(dash_history_decode(other, buf_slice(&b)), 0);
    dash_history_encode(other, &again);
    assert_int_equal(b.len, again.len);
    assert_memory_equal(b.ptr, again.ptr, b.len);
    for (size_t i = 0; i < b.len; i += 7) {
        b.ptr[i] ^= 0x40;
        assert_int_not_equal(dash_history_decode(other, buf_slice(&b)), 0);
        assert_true(dash_history_series(other, "gamma", 1, &s));
        b.ptr[i] ^= 0x40;
    }
    for (size_t len = 0; len < b.len; len += 11)
        assert_int_not_equal(dash_history_decode(other, slice_of(b.ptr, len)), 0);
    dash_history_free(h);
    dash_history_free(other);
    buf_deinit(&b);
    buf_deinit(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_keep_worst_lag_and_mean_rate),
        cmocka_unit_test(test_gaps_and_clocks),
        cmocka_unit_test(test_a_day_is_kept_and_bounded),
        cmocka_unit_test(test_peers_are_bounded),
        cmocka_unit_test(test_file_round_trip_and_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
