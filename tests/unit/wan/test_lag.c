/* Lag: 0 on an idle link, growing on a broken one, measured while behind; clock skew from echoes.
 */
#include "base/hlc.h"
#include "tests/unit/wan/wan_test.h"
#include "wan/lag.h"

#define WALL (UINT64_C(1750000000) * NS_PER_SEC) /* the source's clock when the test begins */
#define MONO (UINT64_C(500) * NS_PER_SEC)        /* ours */

/* Hours without any operation: heartbeats alone keep it at 0. */
static void test_lag_idle_link_stays_at_zero(void **state)
{
    (void)state;
    struct lag l;
    lag_init(&l, MONO, 0);
    lag_up(&l);
    for (uint64_t t = 0; t < 7200; t++) {
        uint64_t now = MONO + t * NS_PER_SEC / 2, head = hlc_from_wall(WALL + t * NS_PER_SEC / 2);
        lag_hear(&l, now, head, head);
        lag_apply(&l, head, 0, 0);
        assert_int_equal(lag_ns(&l, now), 0);
        assert_int_equal(lag_ns(&l, now + NS_PER_SEC / 2), 0);
    }
}

static void test_lag_broken_link_grows_with_time(void **state)
{
    (void)state;
    struct lag l;
    lag_init(&l, MONO, 0);
    lag_up(&l);
    lag_hear(&l, MONO, hlc_from_wall(WALL), hlc_from_wall(WALL));
    lag_apply(&l, hlc_from_wall(WALL), 0, 0);
    /* Nobody has noticed yet: after the tolerance it counts from the last thing heard. */
    assert_int_equal(lag_ns(&l, MONO + NS_PER_SEC), 0);
    assert_int_equal(lag_ns(&l, MONO + 2 * NS_PER_SEC), 2 * NS_PER_SEC);
    lag_down(&l);
    for (uint64_t s = 0; s < 100000; s += 777)
        assert_int_equal(lag_ns(&l, MONO + s * NS_PER_SEC), s * NS_PER_SEC);
}

static void test_lag_behind_what_was_heard_first_is_the_distance_in_the_sources_clock(void **state)
{
    (void)state;
    struct lag l;
    lag_init(&l, MONO, 0);
    lag_up(&l);
    lag_hear(&l, MONO, hlc_from_wall(WALL), hlc_from_wall(WALL));
    lag_hear_totals(&l, 1000, 50000);
    lag_apply(&l, hlc_from_wall(WALL - 90 * NS_PER_SEC), 400, 20000);
    assert_int_equal(lag_ns(&l, MONO), 90 * NS_PER_SEC);
    assert_int_equal(lag_ops(&l), 600);
    assert_int_equal(lag_bytes(&l), 30000);
    lag_down(&l); /* in the middle of it: both add up */
    assert_int_equal(lag_ns(&l, MONO + 10 * NS_PER_SEC), 100 * NS_PER_SEC);
    lag_up(&l);
    lag_hear(&l, MONO + 11 * NS_PER_SEC, hlc_from_wall(WALL + 11 * NS_PER_SEC),
             hlc_from_wall(WALL + 11 * NS_PER_SEC));
    lag_apply(&l, hlc_from_wall(WALL + 11 * NS_PER_SEC), 600, 30000);
    assert_int_equal(lag_ns(&l, MONO + 11 * NS_PER_SEC), 0);
    assert_int_equal(lag_ops(&l), 0);
}

/* Twice a second for so long; what is told is within a second of what there is. */
static void
hear_for(struct lag *l, uint64_t *now, uint64_t *safe, uint64_t seconds, int64_t step_hlc)
{
    for (uint64_t end = *now + seconds * NS_PER_SEC; *now < end;) {
        *now += NS_PER_SEC / 2;
        *safe += (uint64_t)step_hlc;
        lag_hear(l, *now, *safe, *safe);
    }
}

static void check_about(uint64_t lag, uint64_t truth, uint64_t slack)
{
    assert_in_range(lag, truth - MIN(truth, slack), truth + slack);
}

/* An operation that is missing is as old as it is, when the clock of its source is set ahead, and
 * when it is set back and its stamps stand still, rising by one with each. */
static void test_lag_knows_of_no_jump_of_the_sources_clock(void **state)
{
    (void)state;
    const int64_t beat = (int64_t)(500 << 16);
    struct lag l;
    uint64_t now = MONO, safe = hlc_from_wall(WALL);
    lag_init(&l, MONO, 0);
    lag_up(&l);
    lag_hear(&l, now, safe, safe);
    lag_apply(&l, safe, 0, 0);
    uint64_t since = now;
    safe += hlc_from_wall(1200 * NS_PER_SEC); /* twenty minutes ahead, and something is held */
    hear_for(&l, &now, &safe, 30, beat);
    check_about(lag_ns(&l, now), now - since, NS_PER_SEC);
    lag_apply(&l, safe, 10, 0);
    assert_int_equal(lag_ns(&l, now), 0);
    hear_for(&l, &now, &safe, 10, 0); /* set back, and idle: nothing moves */
    assert_int_equal(lag_ns(&l, now), 0);
    since = now;
    uint64_t had = safe;
    hear_for(&l, &now, &safe, 300, 3); /* three operations a beat, which do not come */
    check_about(lag_ns(&l, now), now - since, NS_PER_SEC);
    lag_apply(&l, had + 3 * 2 * 280, 0, 0); /* all but those of the last twenty seconds */
    check_about(lag_ns(&l, now), 20 * NS_PER_SEC, NS_PER_SEC);
    lag_apply(&l, safe, 0, 0);
    assert_int_equal(lag_ns(&l, now), 0);
}

static void test_lag_of_hours_is_known_from_few_marks(void **state)
{
    (void)state;
    struct lag l;
    uint64_t now = MONO, safe = hlc_from_wall(WALL);
    lag_init(&l, MONO, 0);
    lag_up(&l);
    lag_hear(&l, now, safe, safe);
    lag_apply(&l, safe, 0, 0);
    uint64_t since = now, had = safe;
    hear_for(&l, &now, &safe, 36000, 1); /* its clock stands still for ten hours */
    check_about(lag_ns(&l, now), now - since, NS_PER_SEC);
    for (uint64_t half = 1; half < 2 * 36000; half += 777) {
        lag_apply(&l, had + half, 0, 0);
        uint64_t truth = now - since - half * NS_PER_SEC / 2;
        check_about(lag_ns(&l, now), truth, truth / 4 + NS_PER_SEC);
    }
}

/* Its safe point falls: what was in step by it need not be. */
static void test_lag_of_a_source_that_begins_anew_is_not_known_to_be_none(void **state)
{
    (void)state;
    struct lag l;
    lag_init(&l, MONO, 0);
    lag_up(&l);
    lag_hear(&l, MONO, hlc_from_wall(WALL + 600 * NS_PER_SEC),
             hlc_from_wall(WALL + 600 * NS_PER_SEC));
    lag_apply(&l, hlc_from_wall(WALL + 600 * NS_PER_SEC), 0, 0);
    lag_hear(&l, MONO + 5 * NS_PER_SEC, hlc_from_wall(WALL), hlc_from_wall(WALL));
    assert_int_equal(lag_ns(&l, MONO + 5 * NS_PER_SEC), 5 * NS_PER_SEC);
    lag_apply(&l, hlc_from_wall(WALL), 0, 0);
    assert_int_equal(lag_ns(&l, MONO + 5 * NS_PER_SEC), 0);
}

static void test_lag_before_anything_is_applied_is_the_wait(void **state)
{
    (void)state;
    struct lag l;
    lag_init(&l, MONO, 0);
    assert_int_equal(lag_ns(&l, MONO + 5 * NS_PER_SEC), 5 * NS_PER_SEC);
    lag_up(&l);
    lag_hear(&l, MONO + 6 * NS_PER_SEC, hlc_from_wall(WALL), hlc_from_wall(WALL));
    assert_int_equal(lag_ns(&l, MONO + 7 * NS_PER_SEC), 7 * NS_PER_SEC);
}

/* All has arrived, and some of it waits for a cut: that is not "in step". */
static void test_lag_of_what_waits_here_is_its_age(void **state)
{
    (void)state;
    struct lag l;
    lag_init(&l, MONO, 0);
    lag_up(&l);
    lag_hear(&l, MONO, hlc_from_wall(WALL), hlc_from_wall(WALL));
    lag_apply(&l, hlc_from_wall(WALL), 1, 100);
    lag_wait(&l, hlc_from_wall(WALL - 8 * NS_PER_SEC));
    assert_int_equal(lag_ns(&l, MONO), 8 * NS_PER_SEC + NS_PER_MS);
    assert_int_equal(lag_applied(&l), hlc_from_wall(WALL - 8 * NS_PER_SEC) - 1); /* that waits */
    lag_hear(&l, MONO + 3 * NS_PER_SEC, hlc_from_wall(WALL + 3 * NS_PER_SEC),
             hlc_from_wall(WALL + 3 * NS_PER_SEC));
    lag_apply(&l, hlc_from_wall(WALL + 3 * NS_PER_SEC), 0, 0);
    assert_int_equal(lag_ns(&l, MONO + 3 * NS_PER_SEC), 11 * NS_PER_SEC + NS_PER_MS);
    lag_wait(&l, 1); /* since before: as if nothing had been applied yet */
    assert_int_equal(lag_ns(&l, MONO + 4 * NS_PER_SEC), 4 * NS_PER_SEC);
    lag_wait(&l, 0);
    assert_int_equal(lag_ns(&l, MONO + 4 * NS_PER_SEC), 0);
    assert_int_equal(lag_applied(&l), hlc_from_wall(WALL + 3 * NS_PER_SEC));
}

/* A line stands still and gives back what was on it: heartbeats of before, one by one or at once.
 */
static void test_delay_of_what_stood_still_is_its_age(void **state)
{
    (void)state;
    struct delay d = {0};
    for (uint64_t t = 0; t < 20; t++) /* 40 to 59 ms of way */
        assert_in_range(delay_age(&d, MONO + t * NS_PER_SEC / 2 + (40 + t) * NS_PER_MS,
                                  WALL + t * NS_PER_SEC / 2),
                        0, 19 * NS_PER_MS);
    uint64_t back = MONO + 60 * NS_PER_SEC; /* it stood for 50 s */
    for (uint64_t t = 20; t < 120; t++) {
        uint64_t sent = t * NS_PER_SEC / 2, age = 60 * NS_PER_SEC - sent - 40 * NS_PER_MS;
        assert_int_equal(delay_age(&d, back, WALL + sent), age);
    }
    assert_int_equal(delay_age(&d, back + 40 * NS_PER_MS, WALL + 60 * NS_PER_SEC), 0);
}

/* A longer way, for good, is the way after half a minute; a clock that is set is no age. */
static void test_delay_forgets_what_is_no_more(void **state)
{
    (void)state;
    struct delay d = {0};
    uint64_t age = 0;
    for (uint64_t t = 0; t < 200; t++)
        age = delay_age(&d, MONO + t * NS_PER_SEC / 2 + (t < 100 ? 40 : 340) * NS_PER_MS,
                        WALL + t * NS_PER_SEC / 2);
    assert_int_equal(age, 0);
    uint64_t now = MONO + 101 * NS_PER_SEC;
    assert_int_equal(delay_age(&d, now, WALL - 3600 * NS_PER_SEC), 0); /* set back an hour */
    assert_int_equal(delay_age(&d, now + NS_PER_SEC, WALL + 3600 * NS_PER_SEC), 0);
    assert_int_equal(delay_age(&d, now + 2 * NS_PER_SEC, WALL + 3600 * NS_PER_SEC), NS_PER_SEC);
    assert_int_equal(delay_age(&d, now, UINT64_MAX), 0);
    assert_int_equal(delay_age(&d, UINT64_MAX, 0), 0);
}

static void test_skew_best_round_trip_wins(void **state)
{
    (void)state;
    struct skew s = {0};
    int64_t ahead;
    uint64_t rtt;
    assert_false(skew_get(&s, &ahead, &rtt));
    for (uint64_t delay = 1; delay <= 20; delay++) {
        /* The peer is 5 s ahead; the way there takes longer than the way back, by up to `delay`. */
        uint64_t t1 = WALL, there = (20 - delay % 20) * NS_PER_MS, back = NS_PER_MS;
        uint64_t t2 = t1 + there + 5 * NS_PER_SEC, t3 = t2 + 300 * NS_PER_MS;
        skew_add(&s, t1, t2, t3, t1 + there + 300 * NS_PER_MS + back);
    }
    assert_true(skew_get(&s, &ahead, &rtt));
    assert_true(ahead >= (int64_t)(5 * NS_PER_SEC) - (int64_t)NS_PER_MS &&
                ahead <= (int64_t)(5 * NS_PER_SEC) + (int64_t)NS_PER_MS);
    assert_true(rtt <= 4 * NS_PER_MS);
}

static void test_skew_add_nonsense_is_ignored(void **state)
{
    (void)state;
    struct skew s = {0};
    int64_t ahead;
    uint64_t rtt;
    skew_add(&s, 10, 5, 4, 20);
    skew_add(&s, 20, 1, 2, 10);
    skew_add(&s, 1, UINT64_MAX, UINT64_MAX, 2);
    skew_add(&s, 10, 100, 200, 20);
    assert_false(skew_get(&s, &ahead, &rtt));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lag_idle_link_stays_at_zero),
        cmocka_unit_test(test_lag_broken_link_grows_with_time),
        cmocka_unit_test(test_lag_behind_what_was_heard_first_is_the_distance_in_the_sources_clock),
        cmocka_unit_test(test_lag_knows_of_no_jump_of_the_sources_clock),
        cmocka_unit_test(test_lag_of_hours_is_known_from_few_marks),
        cmocka_unit_test(test_lag_of_a_source_that_begins_anew_is_not_known_to_be_none),
        cmocka_unit_test(test_lag_before_anything_is_applied_is_the_wait),
        cmocka_unit_test(test_lag_of_what_waits_here_is_its_age),
        cmocka_unit_test(test_delay_of_what_stood_still_is_its_age),
        cmocka_unit_test(test_delay_forgets_what_is_no_more),
        cmocka_unit_test(test_skew_best_round_trip_wins),
        cmocka_unit_test(test_skew_add_nonsense_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
