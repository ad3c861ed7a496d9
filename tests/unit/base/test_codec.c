/* The fixed-form codec: round trips, and every shorter input is an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/codec.h"

static const struct oid oid_sample = {.b = {0, 9, OID_FILE, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}};
static const struct dot dot_sample = {.seq = 1u << 20, .site = 0x80000001, .shard = 200};
static const struct stamp stamp_sample = {.hlc = UINT64_C(0x1234567890), .site = 9};

static void encode_all(struct buf *b)
{
    enc_u8(b, 0xfe);
    enc_u16(b, 0xfedc);
    enc_u32(b, 0xfedcba98);
    enc_u64(b, UINT64_C(0xfedcba9876543210));
    enc_varint(b, 300);
    enc_bytes(b, slice_str("hello"));
    enc_raw(b, "raw", 3);
    enc_oid(b, oid_sample);
    enc_dot(b, dot_sample);
    enc_stamp(b, stamp_sample);
}

struct all {
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64, varint;
    struct slice bytes;
    char raw[3];
    struct oid oid;
    struct dot dot;
    struct stamp stamp;
};

static struct all decode_all(struct dec *d)
{
    struct all a = {.u8 = dec_u8(d), .u16 = dec_u16(d)};
    a.u32 = dec_u32(d);
    a.u64 = dec_u64(d);
    a.varint = dec_varint(d);
    a.bytes = dec_bytes(d, 5);
    dec_raw(d, a.raw, 3);
    a.oid = dec_oid(d);
    a.dot = dec_dot(d);
    a.stamp = dec_stamp(d);
    return a;
}

static void test_codec_all_kinds_round_trip(void **state)
{
    (void)state;
    struct buf b = {0};
    encode_all(&b);
    struct dec d = dec_of(buf_slice(&b));
    struct all a = decode_all(&d);
    assert_int_equal(dec_end(&d), 0);
    assert_int_equal(a.u8, 0xfe);
    assert_int_equal(a.u16, 0xfedc);
    assert_int_equal(a.u32, 0xfedcba98);
    assert_int_equal(a.u64, UINT64_C(0xfedcba9876543210));
    assert_int_equal(a.varint, 300);
    assert_true(slice_equal(a.bytes, slice_str("hello")));
    assert_memory_equal(a.raw, "raw", 3);
    assert_true(oid_equal(a.oid, oid_sample));
    assert_true(dot_equal(a.dot, dot_sample));
    assert_int_equal(stamp_cmp(a.stamp, stamp_sample), 0);
    buf_deinit(&b);
}

/* From a block of exactly the cut length, so that a read beyond it is seen by the sanitizer. */
static void test_codec_every_shorter_input_is_truncated(void **state)
{
    (void)state;
    struct buf b = {0};
    encode_all(&b);
    for (size_t len = 0; len < b.len; len++) {
        uint8_t *cut = mem_dup(b.ptr, len);
        struct dec d = dec_of(slice_of(cut, len));
        struct all a = decode_all(&d);
        assert_int_equal(dec_end(&d), ERR_TRUNCATED);
        assert_int_equal(a.stamp.hlc, 0);
        mem_free(cut);
    }
    buf_deinit(&b);
}

static void test_codec_is_little_endian(void **state)
{
    (void)state;
    struct buf b = {0};
    const uint8_t want[] = {0x02, 0x01, 0x06, 0x05, 0x04, 0x03, 0xac, 0x02};
    enc_u16(&b, 0x0102);
    enc_u32(&b, 0x03040506);
    enc_varint(&b, 300);
    assert_true(slice_equal(buf_slice(&b), slice_of(want, sizeof want)));
    buf_deinit(&b);
}

static void test_codec_varint_edges_round_trip(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        for (uint64_t off = 0; off < 3; off++) {
            uint64_t v = (UINT64_C(1) << bit) - 1 + off;
            struct buf b = {0};
            enc_varint(&b, v);
            struct dec d = dec_of(buf_slice(&b));
            assert_true(b.len <= 10);
            assert_int_equal(dec_varint(&d), v);
            assert_int_equal(dec_end(&d), 0);
            buf_deinit(&b);
        }
    }
}

static void test_codec_varint_rejects_overlong_and_overflow(void **state)
{
    (void)state;
    static const uint8_t overlong[] = {0x80, 0x00};
    static const uint8_t too_big[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    static const uint8_t endless[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                      0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    const struct slice bad[] = {slice_of(overlong, sizeof overlong),
                                slice_of(too_big, sizeof too_big),
                                slice_of(endless, sizeof endless)};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct dec d = dec_of(bad[i]);
        assert_int_equal(dec_varint(&d), 0);
        assert_int_equal(dec_end(&d), ERR_MALFORMED);
    }
}

static void test_codec_bytes_above_max_is_malformed(void **state)
{
    (void)state;
    struct buf b = {0};
    enc_bytes(&b, slice_str("hello"));
    struct dec d = dec_of(buf_slice(&b));
    struct slice s = dec_bytes(&d, 4);
    assert_int_equal(s.len, 0);
    assert_int_equal(dec_end(&d), ERR_MALFORMED);
    buf_clear(&b);
    enc_varint(&b, UINT64_MAX); /* a length that would wrap the pointer */
    d = dec_of(buf_slice(&b));
    s = dec_bytes(&d, SIZE_MAX);
    assert_int_equal(dec_end(&d), ERR_TRUNCATED);
    buf_deinit(&b);
}

static void test_codec_first_error_wins_and_sticks(void **state)
{
    (void)state;
    uint8_t out[4] = {1, 1, 1, 1};
    struct dec d = dec_of(slice_str("abc"));
    dec_fail(&d, ERR_CORRUPT);
    dec_fail(&d, ERR_LIMIT);
    assert_int_equal(dec_u8(&d), 0);
    dec_raw(&d, out, sizeof out);
    assert_int_equal(out[0] | out[1] | out[2] | out[3], 0);
    assert_int_equal(dec_left(&d), 3);
    assert_int_equal(dec_end(&d), ERR_CORRUPT);
}

static void test_codec_left_over_is_malformed(void **state)
{
    (void)state;
    struct dec d = dec_of(slice_str("ab"));
    (void)dec_u8(&d);
    assert_int_equal(dec_end(&d), ERR_MALFORMED);
    d = dec_of(slice_of(NULL, 0));
    assert_int_equal(dec_end(&d), 0);
    assert_int_equal(dec_u8(&d), 0);
    assert_int_equal(dec_end(&d), ERR_TRUNCATED);
}

static void test_codec_oid_none_passes_and_unknown_kind_fails(void **state)
{
    (void)state;
    struct oid o = {.b = {0}};
    struct dec d = dec_of(slice_of(o.b, sizeof o.b));
    assert_true(oid_is_none(dec_oid(&d)));
    assert_int_equal(dec_end(&d), 0);
    o.b[2] = 99;
    d = dec_of(slice_of(o.b, sizeof o.b));
    (void)dec_oid(&d);
    assert_int_equal(dec_end(&d), ERR_MALFORMED);
}

static void test_codec_dot_out_of_range_is_malformed(void **state)
{
    (void)state;
    struct buf b = {0};
    enc_varint(&b, 65536);
    enc_varint(&b, 1);
    enc_varint(&b, 1);
    struct dec d = dec_of(buf_slice(&b));
    assert_true(dot_is_none(dec_dot(&d)));
    assert_int_equal(dec_end(&d), ERR_MALFORMED);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codec_all_kinds_round_trip),
        cmocka_unit_test(test_codec_every_shorter_input_is_truncated),
        cmocka_unit_test(test_codec_is_little_endian),
        cmocka_unit_test(test_codec_varint_edges_round_trip),
        cmocka_unit_test(test_codec_varint_rejects_overlong_and_overflow),
        cmocka_unit_test(test_codec_bytes_above_max_is_malformed),
        cmocka_unit_test(test_codec_first_error_wins_and_sticks),
        cmocka_unit_test(test_codec_left_over_is_malformed),
        cmocka_unit_test(test_codec_oid_none_passes_and_unknown_kind_fails),
        cmocka_unit_test(test_codec_dot_out_of_range_is_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
