/* The health that scripts rely on, and that a screen is one: no line too wide, all that counts on
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "client/status_text.h"

static json_t *status_of(const char *state, double lag_in_s, double lag_out_s)
{
    return json_pack("{s:s,s:s,s:b,s:s,s:[{s:s,s:s,s:f,s:f,s:i,s:i,s:i,s:i,s:i,s:f,s:s}]}", "name",
                     "alpha", "site", "1513e759", "joining", 0, "wan_state", "ok", "peers", "name",
                     "beta", "state", state, "lag_in_s", lag_in_s, "lag_out_s", lag_out_s,
                     "in_ops_to_go", 0, "out_ops_to_go", lag_out_s > 0 ? 300 : 0, "in_ops", 5,
                     "out_ops", 1000, "out_bytes_to_go", 4096, "rtt_ms", 12.0, "error", "a reason");
}

static void expect(const char *state, double in_s, double out_s, enum status_health want)
{
    json_t *s = status_of(state, in_s, out_s);
    assert_int_equal(status_health(s, 10), want);
    json_decref(s);
}

static void test_status_health(void **state)
{
    (void)state;
    expect("connected", 0, 0, STATUS_IN_STEP);
    expect("connected", 10, 10, STATUS_IN_STEP);
    expect("connected", 10.5, 0, STATUS_LAGGING);
    expect("connected", 0, 10.5, STATUS_LAGGING);
    expect("half_connected", 0, 0, STATUS_IN_STEP);
    expect("held", 0, 0, STATUS_LAGGING);
    expect("loading_snapshot", 0, 0, STATUS_LAGGING);
    expect("paused", 0, 5, STATUS_IN_STEP);
    expect("paused", 0, 50, STATUS_LAGGING);
    expect("removed", 50, 50, STATUS_IN_STEP);
    static const char *const broken[] = {"unreachable",
                                         "refused",
                                         "rolled_back",
                                         "failing",
                                         "rolled_back_there",
                                         "needs_snapshot",
                                         "whatever a later daemon says"};
    for (size_t i = 0; i < ARRAY_COUNT(broken); i++)
        expect(broken[i], 0, 0, STATUS_UNREACHABLE);
    json_t *alone = json_pack("{s:s,s:[]}", "name", "alpha", "peers");
    assert_int_equal(status_health(alone, 0), STATUS_IN_STEP);
    (void)json_object_set_new(alone, "joining", json_true());
    assert_int_equal(status_health(alone, 0), STATUS_LAGGING);
    (void)json_object_set_new(alone, "wan_state", json_string("rolled_back"));
    assert_int_equal(status_health(alone, 0), STATUS_UNREACHABLE);
    json_decref(alone);
}

static const char *
screen(json_t *status, double now_s, struct status_before *b, size_t width, struct buf *ret)
{
    buf_clear(ret);
    status_text(status, 10, now_s, b, width, ret);
    buf_append(ret, "", 1);
    return (const char *)ret->ptr;
}

static void test_status_text_has_what_counts(void **state)
{
    (void)state;
    struct status_before before = {.at_s = 0};
    struct buf out = {0};
    json_t *s = status_of("connected", 0, 40);
    const char *text = screen(s, 100, &before, 120, &out);
    static const char *const wanted[] = {"alpha (1513e759)",  "NOT IN STEP", "beta",     "40.0 s",
                                         "300 out (4.0 KiB)", "a reason",    "conflicts"};
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++)
        if (strstr(text, wanted[i]) == NULL)
            fail_msg("%s is not in:\n%s", wanted[i], text);
    /* 100 operations more in two seconds: the other 300 take six. */
    json_t *peer = json_array_get(json_object_get(s, "peers"), 0);
    json_t *later = json_deep_copy(s);
    peer = json_array_get(json_object_get(later, "peers"), 0);
    (void)json_object_set_new(peer, "out_ops", json_integer(1100));
    text = screen(later, 102, &before, 120, &out);
    assert_non_null(strstr(text, "6.0 s"));
    for (size_t width = 0; width < 60; width += 7) {
        size_t at = 0;
        text = screen(later, 103, &before, width, &out);
        for (; *text; text++) {
            at = *text == '\n' ? 0 : at + 1;
            assert_true(at <= width);
        }
    }
    json_decref(s);
    json_decref(later);
    status_before_deinit(&before);
    buf_deinit(&out);
}

static void test_status_text_of_a_site_alone_and_of_nonsense(void **state)
{
    (void)state;
    struct status_before before = {.at_s = 0};
    struct buf out = {0};
    json_t *s = json_pack("{s:s,s:[]}", "name", "alpha", "peers");
    assert_non_null(strstr(screen(s, 1, &before, 80, &out), "alone"));
    json_decref(s);
    s = json_pack("{s:i,s:[i,s],s:s}", "name", 7, "peers", 1, "x", "space", "full");
    assert_non_null(strstr(screen(s, 2, &before, 80, &out), "NOT IN STEP"));
    json_decref(s);
    status_before_deinit(&before);
    buf_deinit(&out);
}

static void test_progress_text(void **state)
{
    (void)state;
    static const struct {
        uint64_t left, total;
        const char *want;
    } cases[] = {{0, 0, "[##############################] 100 %"},
                 {10, 10, "[------------------------------]   0 %"},
                 {5, 10, "[###############---------------]  50 %"},
                 {20, 10, "[------------------------------]   0 %"}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct buf out = {0};
        progress_text(cases[i].left, cases[i].total, &out);
        buf_append(&out, "", 1);
        assert_string_equal((const char *)out.ptr, cases[i].want);
        buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_health),
        cmocka_unit_test(test_status_text_has_what_counts),
        cmocka_unit_test(test_status_text_of_a_site_alone_and_of_nonsense),
        cmocka_unit_test(test_progress_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
