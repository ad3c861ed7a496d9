/* What people see of two texts: hand-written cases, and a property: the lines of either side can be
 * read back from a difference without left-out lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/text_diff.h"

static void expect(const char *a, const char *b, const char *want)
{
    struct buf got = {0};
    text_diff(slice_str(a), slice_str(b), &got);
    buf_append(&got, "", 1);
    assert_string_equal((const char *)got.ptr, want);
    buf_deinit(&got);
}

static void test_text_diff_cases(void **state)
{
    (void)state;
    expect("", "", "");
    expect("a\nb\n", "a\nb\n", "");
    expect("a\n", "", "- a\n");
    expect("", "a", "+ a\n");
    expect("a\nb\nc\n", "a\nX\nc\n", "  a\n- b\n+ X\n  c\n");
    expect("a\nb\nc\n", "b\nc\nd\n", "- a\n  b\n  c\n+ d\n");
    expect("1\n2\n3\n4\n5\n6\n", "1\n2\n3\n4\n5\nX\n", "...\n  3\n  4\n  5\n- 6\n+ X\n");
    expect("X\n2\n3\n4\n5\n6\n", "1\n2\n3\n4\n5\n6\n", "- X\n+ 1\n  2\n  3\n  4\n...\n");
    expect("a\nb\n", "c\nd\n", "- a\n- b\n+ c\n+ d\n");
    expect("a\n1\n2\n3\n4\n5\n6\n7\nb\n", "A\n1\n2\n3\n4\n5\n6\n7\nB\n",
           "- a\n+ A\n  1\n  2\n  3\n...\n  5\n  6\n  7\n- b\n+ B\n");
}

/* A difference of many lines is given as a whole, in bounded time and memory. */
static void test_text_diff_of_long_texts(void **state)
{
    (void)state;
    struct buf a = {0}, b = {0}, got = {0};
    for (unsigned i = 0; i < 5000; i++) {
        char line[16];
        buf_append(&a, line, (size_t)snprintf(line, sizeof line, "a%u\n", i));
        buf_append(&b, line, (size_t)snprintf(line, sizeof line, "b%u\n", i));
    }
    text_diff(buf_slice(&a), buf_slice(&b), &got);
    assert_int_equal(got.len, a.len + b.len + 2 * 10000);
    buf_deinit(&a);
    buf_deinit(&b);
    buf_deinit(&got);
}

/* A few differences far apart in texts of many lines: no part of them is given as a whole. */
static void test_text_diff_of_long_texts_with_few_differences(void **state)
{
    (void)state;
    struct buf a = {0}, b = {0}, got = {0};
    for (unsigned i = 0; i < 30000; i++) {
        char line[16];
        size_t len = (size_t)snprintf(line, sizeof line, "%u\n", i);
        buf_append(&a, line, len);
        if (i % 10000 == 5000)
            buf_append(&b, "other\n", 6);
        else
            buf_append(&b, line, len);
    }
    text_diff(buf_slice(&a), buf_slice(&b), &got);
    buf_append(&got, "", 1);
    assert_non_null(strstr((const char *)got.ptr, "  14999\n- 15000\n+ other\n  15001\n"));
    assert_true(got.len < 300);
    buf_deinit(&a);
    buf_deinit(&b);
    buf_deinit(&got);
}

static void random_text(struct rng *r, struct buf *ret)
{
    for (uint64_t n = rng_below(r, 5); n > 0; n--) {
        uint8_t line[2] = {(uint8_t)('a' + rng_below(r, 3)), '\n'};
        buf_append(ret, line, 2);
    }
}

/* Lines of one side: without those that only the other has. */
static void side_of(struct slice diff, char without, struct buf *ret)
{
    for (size_t i = 0; i + 3 < diff.len + 1; i += 4)
        if (diff.ptr[i] != (uint8_t)without)
            buf_append(ret, diff.ptr + i + 2, 2);
}

static void test_text_diff_gives_both_sides_back(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 5);
    for (unsigned i = 0; i < 20000; i++) {
        struct buf a = {0}, b = {0}, diff = {0}, back_a = {0}, back_b = {0};
        random_text(&r, &a);
        random_text(&r, &b);
        text_diff(buf_slice(&a), buf_slice(&b), &diff);
        bool equal = slice_equal(buf_slice(&a), buf_slice(&b));
        assert_true(equal == (diff.len == 0));
        bool whole =
            diff.len % 4 == 0 && (diff.len == 0 || memchr(diff.ptr, '.', diff.len) == NULL);
        if (whole && !equal) {
            side_of(buf_slice(&diff), '+', &back_a);
            side_of(buf_slice(&diff), '-', &back_b);
            assert_true(slice_equal(buf_slice(&a), buf_slice(&back_a)));
            assert_true(slice_equal(buf_slice(&b), buf_slice(&back_b)));
        }
        buf_deinit(&a);
        buf_deinit(&b);
        buf_deinit(&diff);
        buf_deinit(&back_a);
        buf_deinit(&back_b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_diff_cases),
        cmocka_unit_test(test_text_diff_of_long_texts),
        cmocka_unit_test(test_text_diff_of_long_texts_with_few_differences),
        cmocka_unit_test(test_text_diff_gives_both_sides_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
