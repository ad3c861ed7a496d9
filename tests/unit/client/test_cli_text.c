/* Values of the daemon's JSON as people read them: units from the end of the key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "client/cli.h"

static void expect(const char *key, json_t *value, const char *wanted)
{
    char *text = cli_value_text(key, value);
    assert_string_equal(text, wanted);
    mem_free(text);
    json_decref(value);
}

static void test_value_units_follow_the_key(void **state)
{
    (void)state;
    expect("count", json_integer(1234567), "1234567");
    expect("free_bytes", json_integer(512), "512 B");
    expect("free_bytes", json_integer(1536), "1.5 KiB");
    expect("bytes", json_integer(INT64_MAX), "8.0 EiB");
    expect("lag_ns", json_integer(1500000), "1.5 ms");
    expect("lag_ms", json_integer(0), "0 s");
    expect("lag_s", json_real(0.25), "250.0 ms");
    expect("age_s", json_integer(7200), "2.0 h");
    expect("age_s", json_integer(-5), "-5.0 s");
    expect("ratio", json_real(0.5), "0.5");
    expect("paused", json_true(), "yes");
    expect("any", json_null(), "-");
    expect("list", json_pack("[i,i]", 1, 2), "[1,2]");
}

static void test_value_time_is_read_in_any_unit(void **state)
{
    (void)state;
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    tzset();
    expect("time", json_integer(1700000000), "2023-11-14 22:13:20.000");
    expect("time", json_integer(1700000000123), "2023-11-14 22:13:20.123");
    expect("time_ns", json_integer(1700000000123456789), "2023-11-14 22:13:20.123");
    expect("hlc", json_integer(INT64_C(1700000000123) << 16), "2023-11-14 22:13:20.123");
    expect("time", json_integer(0), "never");
    expect("time", json_string("yesterday"), "yesterday");
}

/* A file name must not be able to drive somebody's terminal. */
static void test_value_control_characters_do_not_pass(void **state)
{
    (void)state;
    expect("path", json_string("a\x1b[2Jb\n\x7f"), "a?[2Jb??");
    expect("path", json_string("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
}

static void test_array_of_finds_the_named_or_the_first(void **state)
{
    (void)state;
    json_t *object = json_pack("{s:i,s:[i],s:[]}", "n", 1, "first", 2, "peers");
    assert_ptr_equal(cli_array_of(object, "peers"), json_object_get(object, "peers"));
    assert_ptr_equal(cli_array_of(object, "other"), json_object_get(object, "first"));
    json_t *array = json_object_get(object, "first");
    assert_ptr_equal(cli_array_of(array, "peers"), array);
    json_decref(object);
    json_t *none = json_pack("{s:i}", "n", 1);
    assert_null(cli_array_of(none, "peers"));
    json_decref(none);
}

/* Whatever a daemon answers is printed, not trusted. */
static void test_print_accepts_any_shape(void **state)
{
    (void)state;
    static const char *const shapes[] = {"{}",
                                         "[]",
                                         "1",
                                         "\"x\"",
                                         "null",
                                         "[1,2]",
                                         "[[1],{\"a\":1}]",
                                         "{\"a\":[{\"b\":{\"c\":1}},2]}",
                                         "{\"a\":{\"b_bytes\":1,\"c\":[{\"d\":1}]},\"e\":[]}"};
    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++) {
        json_t *json = json_loads(shapes[i], JSON_DECODE_ANY, NULL);
        assert_non_null(json);
        cli_print_object(json);
        cli_print_table(json, NULL);
        cli_print_table(json, (const char *const[]){"a", "b", NULL});
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_units_follow_the_key),
        cmocka_unit_test(test_value_time_is_read_in_any_unit),
        cmocka_unit_test(test_value_control_characters_do_not_pass),
        cmocka_unit_test(test_array_of_finds_the_named_or_the_first),
        cmocka_unit_test(test_print_accepts_any_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
