/* Ways through other sites, and the request that says one. */
#include "tests/unit/wan/wan_test.h"
#include "wan/way.h"

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_way_request_round_trip_of_every_length(void **state)
{
    (void)state;
    struct way w = {.count = 0}, got;
    struct chunk_id id, got_id;
    char text[WAY_REQUEST_LEN + 1];
    assert_int_equal(chunk_id_from_text(HEX, &id), 0);
    way_request_print(&id, &w, text);
    assert_string_equal(text, HEX); /* what older programs ask for */
    for (uint32_t i = 0; i <= WAY_MAX; i++) {
        way_request_print(&id, &w, text);
        assert_int_equal(way_request_parse(text, &got_id, &got), 0);
        assert_true(chunk_id_equal(&id, &got_id) && way_equal(&w, &got));
        if (i < WAY_MAX)
            w.at[w.count++] = UINT32_MAX - i;
    }
    assert_string_equal(text + sizeof HEX - 1 + 9 * (WAY_MAX - 1), "/fffffff8");
}

static void test_way_request_parse_refuses_what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "0011",
        HEX "/",
        HEX "0",
        HEX "/0000000",
        HEX "/000000010",
        HEX "/0000000g",
        HEX "/0000000A",
        HEX "/00000000",          /* no site */
        HEX "/0000000a/0000000a", /* goes round */
        HEX "/0000000a-0000000b",
        HEX "/00000001/00000002/00000003/00000004/00000005/00000006/00000007/00000008/00000009",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct way w = {.count = 7};
        struct chunk_id id = {.b = {5}};
        assert_int_equal(way_request_parse(bad[i], &id, &w), ERR_INVALID);
        assert_int_equal(w.count, 7);
        assert_int_equal(id.b[0], 5);
    }
}

static void test_way_beyond_neither_goes_round_nor_grows_without_end(void **state)
{
    (void)state;
    struct way w = {.count = 2, .at = {1, 2}}, n;
    assert_true(way_beyond(&w, 2, 3, &n));
    assert_true(way_equal(&n, &(struct way){.count = 3, .at = {1, 2, 3}}));
    assert_true(way_beyond(&w, 1, 3, &n)); /* the first one says so */
    assert_true(way_equal(&n, &(struct way){.count = 2, .at = {1, 3}}));
    assert_false(way_beyond(&w, 2, 1, &n));
    assert_false(way_beyond(&w, 2, 2, &n));
    for (site_id_t site = 3; w.count < WAY_MAX; site++)
        assert_true(way_beyond(&w, way_last(&w), site, &w));
    assert_false(way_beyond(&w, way_last(&w), 99, &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_way_request_round_trip_of_every_length),
        cmocka_unit_test(test_way_request_parse_refuses_what_is_none),
        cmocka_unit_test(test_way_beyond_neither_goes_round_nor_grows_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
