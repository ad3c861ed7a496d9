/* How long journals are kept: limits by age and by size, and what does not use them up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "site/retain.h"

#define DAY ((uint64_t)86400 * 1000)

static void test_left_follows_the_age(void **state)
{
    const struct retain_limits l = {.age_ms = 30 * DAY, .bytes = RETAIN_NO_LIMIT};
    struct retain_backlog b = {.age_ms = DAY, .silence_ms = 3 * DAY, .bytes = 1000};
    (void)state;
    assert_int_equal(retain_left_ms(&l, &b), 29 * DAY); /* nothing was missed before */
    b.age_ms = 10 * DAY;
    assert_int_equal(retain_left_ms(&l, &b), 27 * DAY); /* it lived three days ago */
    b.silence_ms = b.age_ms = 30 * DAY;
    assert_int_equal(retain_left_ms(&l, &b), 0);
    b.age_ms = UINT64_MAX / 2;
    assert_int_equal(retain_left_ms(&l, &b), 0);
    b.silence_ms = 0;
    assert_int_equal(retain_left_ms(&l, &b), 30 * DAY);
}

static void test_left_follows_the_rate(void **state)
{
    struct retain_limits l = {.age_ms = RETAIN_NO_LIMIT, .bytes = 1000};
    struct retain_backlog b = {.age_ms = 10000, .silence_ms = 10000, .bytes = 250};
    (void)state;
    assert_int_equal(retain_left_ms(&l, &b), 30000);
    l.age_ms = 20000;
    assert_int_equal(retain_left_ms(&l, &b), 10000); /* the nearer one counts */
    l.age_ms = RETAIN_NO_LIMIT;
    b.age_ms = 0; /* began this very moment: there is time left all the same */
    assert_int_equal(retain_left_ms(&l, &b), 3);
    b.bytes = 1000;
    assert_int_equal(retain_left_ms(&l, &b), 0);
    b.bytes = 0;
    assert_int_equal(retain_left_ms(&l, &b), RETAIN_NO_LIMIT); /* there is no rate */
}

/* Sizes and ages of which the products do not fit 64 bits. */
static void test_left_of_large_numbers(void **state)
{
    struct retain_limits l = {.age_ms = RETAIN_NO_LIMIT, .bytes = (uint64_t)1 << 50};
    struct retain_backlog b = {.age_ms = 10 * DAY, .silence_ms = 0, .bytes = (uint64_t)1 << 48};
    (void)state;
    assert_int_equal(retain_left_ms(&l, &b), 30 * DAY);
    l.bytes = RETAIN_NO_LIMIT - 1;
    b.bytes = 1;
    b.age_ms = UINT64_MAX;
    assert_true(retain_left_ms(&l, &b) > 30 * DAY);
    l.bytes = RETAIN_NO_LIMIT;
    assert_int_equal(retain_left_ms(&l, &b), RETAIN_NO_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_left_follows_the_age),
        cmocka_unit_test(test_left_follows_the_rate),
        cmocka_unit_test(test_left_of_large_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
