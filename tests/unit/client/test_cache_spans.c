/* Sets of ranges against a bitmap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/cache_spans.h"

#define SPACE 200u

static void check_against(const struct spans *s, const bool *map)
{
    bool seen[SPACE] = {0};
    for (size_t i = 0; i < s->count; i++) {
        assert_true(s->at[i].from < s->at[i].to);
        if (i > 0) /* neither overlapping nor touching */
            assert_true(s->at[i - 1].to < s->at[i].from);
        for (uint64_t b = s->at[i].from; b < s->at[i].to; b++)
            seen[b] = true;
    }
    assert_memory_equal(seen, map, sizeof seen);
}

static void test_add_and_remove_match_bitmap(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct rng r;
        struct spans s = {0};
        bool map[SPACE] = {0};
        rng_seed(&r, seed);
        for (unsigned step = 0; step < 200; step++) {
            uint64_t from = rng_below(&r, SPACE), to = from + rng_below(&r, SPACE - from + 1);
            bool add = rng_below(&r, 2) == 0;
            if (add)
                spans_add(&s, from, to);
            else
                spans_remove(&s, from, to);
            for (uint64_t b = from; b < to; b++)
                map[b] = add;
            check_against(&s, map);
        }
        spans_deinit(&s);
    }
}

static void test_find_gives_first_that_ends_after(void **state)
{
    struct spans s = {0};
    (void)state;
    assert_int_equal(spans_find(&s, 0), 0);
    spans_add(&s, 10, 20);
    spans_add(&s, 30, 40);
    assert_int_equal(spans_find(&s, 0), 0);
    assert_int_equal(spans_find(&s, 19), 0);
    assert_int_equal(spans_find(&s, 20), 1);
    assert_int_equal(spans_find(&s, 40), 2);
    assert_int_equal(spans_bytes(&s), 20);
    spans_deinit(&s);
}

static void test_add_touching_joins(void **state)
{
    struct spans s = {0};
    (void)state;
    spans_add(&s, 0, 10);
    spans_add(&s, 10, 20);
    spans_add(&s, 25, 30);
    spans_add(&s, 20, 25);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.at[0].to, 30);
    spans_add(&s, 5, 5);
    assert_int_equal(s.count, 1);
    spans_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_and_remove_match_bitmap),
        cmocka_unit_test(test_find_gives_first_that_ends_after),
        cmocka_unit_test(test_add_touching_joins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
