/* msgpack: round trips, exact bytes, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mp.h"

static const struct oid oid_sample = {.b = {0, 9, OID_FILE, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}};
static const struct dot dot_sample = {.seq = 1u << 20, .site = 0x80000001, .shard = 200};
static const struct stamp stamp_sample = {.hlc = UINT64_C(0x1234567890), .site = 9};

static struct mp mp_lit(const void *bytes, size_t len)
{
    return mp_of(slice_of(bytes, len));
}

static void encode_all(struct buf *b)
{
    mp_array(b, 10);
    mp_nil(b);
    mp_bool(b, true);
    mp_uint(b, 70000);
    mp_int(b, -70000);
    mp_bin(b, slice_str("bin"));
    mp_cstr(b, "text");
    mp_map(b, 1);
    mp_cstr(b, "k");
    mp_uint(b, 1);
    mp_oid(b, oid_sample);
    mp_dot(b, dot_sample);
    mp_stamp(b, stamp_sample);
}

/* Reads what encode_all wrote; compares only what arrived intact. */
static int decode_all(struct mp *m)
{
    bool counts = mp_get_array(m, 10) == 10;
    mp_get_nil(m);
    bool yes = mp_get_bool(m);
    uint64_t u = mp_get_uint(m, 70000);
    int64_t i = mp_get_int(m);
    struct slice bin = mp_get_bin(m, 3), text = mp_get_bin_exact(m, 4);
    counts = mp_get_map(m, 1) == 1 && counts;
    struct slice key = mp_get_bin(m, 1);
    uint64_t value = mp_get_uint(m, 1);
    struct oid o = mp_get_oid(m);
    struct dot d = mp_get_dot(m);
    struct stamp s = mp_get_stamp(m);
    int rc = mp_end(m);
    if (rc != 0)
        return rc;
    assert_true(counts && yes && u == 70000 && i == -70000 && value == 1);
    assert_true(slice_equal(bin, slice_str("bin")) && slice_equal(text, slice_str("text")));
    assert_true(slice_equal(key, slice_str("k")) && oid_equal(o, oid_sample));
    assert_true(dot_equal(d, dot_sample) && stamp_cmp(s, stamp_sample) == 0);
    return 0;
}

static void test_mp_all_kinds_round_trip(void **state)
{
    (void)state;
    struct buf b = {0};
    encode_all(&b);
    struct mp m = mp_of(buf_slice(&b));
    assert_int_equal(decode_all(&m), 0);
    m = mp_of(buf_slice(&b));
    mp_skip(&m);
    assert_int_equal(mp_end(&m), 0);
    buf_deinit(&b);
}

static void test_mp_every_shorter_input_is_truncated(void **state)
{
    (void)state;
    struct buf b = {0};
    encode_all(&b);
    for (size_t len = 0; len < b.len; len++) {
        uint8_t *cut = mem_dup(b.ptr, len);
        struct mp m = mp_lit(cut, len);
        assert_int_equal(decode_all(&m), ERR_TRUNCATED);
        m = mp_lit(cut, len);
        mp_skip(&m);
        assert_int_equal(mp_end(&m), ERR_TRUNCATED);
        mem_free(cut);
    }
    buf_deinit(&b);
}

static void test_mp_uint_widths_round_trip_in_the_shortest_form(void **state)
{
    (void)state;
    const struct {
        uint64_t v;
        size_t len;
    } cases[] = {{0, 1},         {127, 1},        {128, 2},
                 {255, 2},       {256, 3},        {65535, 3},
                 {65536, 5},     {UINT32_MAX, 5}, {UINT64_C(1) << 32, 9},
                 {UINT64_MAX, 9}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct buf b = {0};
        mp_uint(&b, cases[i].v);
        assert_int_equal(b.len, cases[i].len);
        struct mp m = mp_of(buf_slice(&b));
        assert_int_equal(mp_peek(&m), MP_UINT);
        assert_int_equal(mp_get_uint(&m, UINT64_MAX), cases[i].v);
        assert_int_equal(mp_end(&m), 0);
        if (cases[i].v > 0) {
            m = mp_of(buf_slice(&b));
            assert_int_equal(mp_get_uint(&m, cases[i].v - 1), 0);
            assert_int_equal(mp_end(&m), ERR_MALFORMED);
        }
        buf_deinit(&b);
    }
}

static void test_mp_int_edges_round_trip(void **state)
{
    (void)state;
    const int64_t cases[] = {0,      1,      -1,        -32,       -33,       -128,      -129,
                             -32768, -32769, INT32_MIN, INT64_MIN, INT64_MAX, INT32_MAX, 255};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct buf b = {0};
        mp_int(&b, cases[i]);
        struct mp m = mp_of(buf_slice(&b));
        assert_int_equal(mp_peek(&m), cases[i] < 0 ? MP_INT : MP_UINT);
        assert_true(mp_get_int(&m) == cases[i]);
        assert_int_equal(mp_end(&m), 0);
        buf_deinit(&b);
    }
}

/* Other writers may choose wider or signed forms. */
static void test_mp_wider_forms_are_read(void **state)
{
    (void)state;
    struct mp m = mp_lit("\xd3\0\0\0\0\0\0\0\5", 9);
    assert_int_equal(mp_peek(&m), MP_UINT);
    assert_int_equal(mp_get_uint(&m, 5), 5);
    m = mp_lit("\xd0\xff", 2);
    assert_int_equal(mp_get_int(&m), -1);
    m = mp_lit("\xdb\0\0\0\2hi", 7);
    assert_true(slice_equal(mp_get_bin(&m, 2), slice_str("hi")));
    m = mp_lit("\xdd\0\0\0\1\1", 6);
    assert_int_equal(mp_get_array(&m, 1), 1);
    m = mp_lit("\xdf\0\0\0\1\1\1", 7);
    assert_int_equal(mp_get_map(&m, 1), 1);
}

static void test_mp_int_above_the_signed_range_is_malformed(void **state)
{
    (void)state;
    struct buf b = {0};
    mp_uint(&b, UINT64_C(1) << 63);
    struct mp m = mp_of(buf_slice(&b));
    assert_int_equal(mp_get_int(&m), 0);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
    buf_deinit(&b);
}

static void test_mp_negative_is_not_a_uint(void **state)
{
    (void)state;
    struct mp m = mp_lit("\xff", 1);
    assert_int_equal(mp_get_uint(&m, UINT64_MAX), 0);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
}

/* A count that the rest of the input cannot hold is refused before anybody allocates for it. */
static void test_mp_count_beyond_the_input_is_truncated(void **state)
{
    (void)state;
    struct mp m = mp_lit("\xdd\xff\xff\xff\xff\1", 6);
    assert_int_equal(mp_get_array(&m, UINT32_MAX), 0);
    assert_int_equal(mp_end(&m), ERR_TRUNCATED);
    m = mp_lit("\x82\1\1\1", 4);
    assert_int_equal(mp_get_map(&m, UINT32_MAX), 0);
    assert_int_equal(mp_end(&m), ERR_TRUNCATED);
    m = mp_lit("\x93\1\1\1", 4);
    assert_int_equal(mp_get_array(&m, 2), 0);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
}

static void test_mp_lengths_beyond_the_bound_are_malformed(void **state)
{
    (void)state;
    struct mp m = mp_lit("\xa5hello", 6);
    assert_int_equal(mp_get_bin(&m, 4).len, 0);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
    m = mp_lit("\xa5hello", 6);
    assert_int_equal(mp_get_bin_exact(&m, 6).len, 0);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
}

static void test_mp_oid_must_be_valid(void **state)
{
    (void)state;
    struct buf b = {0};
    mp_oid(&b, (struct oid){.b = {0, 0, 99}});
    struct mp m = mp_of(buf_slice(&b));
    (void)mp_get_oid(&m);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
    buf_deinit(&b);
}

static void test_mp_tuple_of_another_size_is_malformed(void **state)
{
    (void)state;
    struct mp m = mp_lit("\x92\1\2", 3);
    assert_true(dot_is_none(mp_get_dot(&m)));
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
    m = mp_lit("\x91\1", 2);
    assert_int_equal(mp_get_stamp(&m).hlc, 0);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
}

static void test_mp_skip_passes_floats_and_extensions(void **state)
{
    (void)state;
    const struct slice values[] = {
        slice_of("\xca\1\2\3\4", 5),   slice_of("\xcb\1\2\3\4\5\6\7\x8", 9),
        slice_of("\xd4\1\2", 3),       slice_of("\xd5\1\2\3", 4),
        slice_of("\xc7\2\1\2\3", 5),   slice_of("\xc8\0\1\1\2", 5),
        slice_of("\xc9\0\0\0\0\1", 6), slice_of("\xd8\1aaaaaaaaaaaaaaaa", 18),
        slice_of("\xd6\1aaaa", 6),     slice_of("\xd7\1aaaaaaaa", 10),
    };
    for (size_t i = 0; i < ARRAY_COUNT(values); i++) {
        struct mp m = mp_of(values[i]);
        assert_int_equal(mp_peek(&m), MP_OTHER);
        mp_skip(&m);
        assert_int_equal(mp_end(&m), 0);
    }
}

static void test_mp_skip_refuses_the_unused_byte(void **state)
{
    (void)state;
    struct mp m = mp_lit("\x91\xc1", 2);
    mp_skip(&m);
    assert_int_equal(mp_end(&m), ERR_MALFORMED);
}

static void test_mp_skip_stops_at_the_depth_limit(void **state)
{
    (void)state;
    uint8_t nested[40];
    for (size_t depth = 0; depth < 40; depth++) {
        memset(nested, 0x91, depth);
        nested[depth == 40 ? 39 : depth] = 0xc0;
        struct mp m = mp_lit(nested, depth + 1);
        mp_skip(&m);
        assert_int_equal(mp_end(&m), depth <= 32 ? 0 : ERR_MALFORMED);
    }
}

static void test_mp_first_error_wins_and_sticks(void **state)
{
    (void)state;
    struct mp m = mp_lit("\1\2", 2);
    mp_fail(&m, ERR_LIMIT);
    mp_fail(&m, ERR_CORRUPT);
    assert_int_equal(mp_peek(&m), MP_END);
    assert_int_equal(mp_get_uint(&m, 9), 0);
    mp_skip(&m);
    assert_int_equal(mp_end(&m), ERR_LIMIT);
    m = mp_lit("\1\2", 2);
    (void)mp_get_uint(&m, 9);
    assert_int_equal(mp_end(&m), ERR_MALFORMED); /* left over */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mp_all_kinds_round_trip),
        cmocka_unit_test(test_mp_every_shorter_input_is_truncated),
        cmocka_unit_test(test_mp_uint_widths_round_trip_in_the_shortest_form),
        cmocka_unit_test(test_mp_int_edges_round_trip),
        cmocka_unit_test(test_mp_wider_forms_are_read),
        cmocka_unit_test(test_mp_int_above_the_signed_range_is_malformed),
        cmocka_unit_test(test_mp_negative_is_not_a_uint),
        cmocka_unit_test(test_mp_count_beyond_the_input_is_truncated),
        cmocka_unit_test(test_mp_lengths_beyond_the_bound_are_malformed),
        cmocka_unit_test(test_mp_oid_must_be_valid),
        cmocka_unit_test(test_mp_tuple_of_another_size_is_malformed),
        cmocka_unit_test(test_mp_skip_passes_floats_and_extensions),
        cmocka_unit_test(test_mp_skip_refuses_the_unused_byte),
        cmocka_unit_test(test_mp_skip_stops_at_the_depth_limit),
        cmocka_unit_test(test_mp_first_error_wins_and_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
