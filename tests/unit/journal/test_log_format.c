/* The segment format: round trips, every flipped bit, identity of place, and golden bytes. */
#include "tests/unit/journal/log_test.h"

static const struct log_header HEADER = {.salt = 0x1122334455667788,
                                         .number = 42,
                                         .first = 1000,
                                         .bytes = 65536,
                                         .flags = LOG_HEADER_RECYCLED};
static const struct log_place PLACE = {.salt = 0x1122334455667788, .number = 42, .offset = 4096};

static void test_header_round_trip_and_flips(void **state)
{
    (void)state;
    uint8_t block[LOG_BLOCK];
    struct log_header got;
    log_header_encode(&HEADER, block);
    assert_int_equal(log_header_decode(block, &got), 0);
    assert_int_equal(got.salt, HEADER.salt);
    assert_int_equal(got.number, HEADER.number);
    assert_int_equal(got.first, HEADER.first);
    assert_int_equal(got.bytes, HEADER.bytes);
    assert_int_equal(got.flags, HEADER.flags);
    for (size_t bit = 0; bit < (size_t)LOG_BLOCK * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        int rc = log_header_decode(block, &got);
        assert_int_equal(rc, bit / 8 < 8 ? ERR_MALFORMED : ERR_CORRUPT);
        block[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

/* Values no writer writes are refused, checksum or not. */
static void test_header_bad_values(void **state)
{
    (void)state;
    uint8_t block[LOG_BLOCK];
    struct log_header bad[] = {HEADER, HEADER, HEADER, HEADER, HEADER}, got;
    bad[0].bytes = LOG_BLOCK;
    bad[1].bytes = 65537;
    bad[2].bytes = LOG_SEGMENT_BYTES_MAX + LOG_BLOCK;
    bad[3].first = 0;
    bad[4].flags = 8;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        log_header_encode(&bad[i], block);
        assert_int_equal(log_header_decode(block, &got), ERR_CORRUPT);
    }
}

static void seal(uint8_t *out, size_t len)
{
    record_fill(out + LOG_RECORD_HEADER, 1000, len);
    log_record_seal(out, len, PLACE, 1000, 7, 990);
}

static void test_record_round_trip_and_flips(void **state)
{
    (void)state;
    uint8_t bytes[128];
    for (size_t len = 1; len <= 60; len++) {
        struct log_record record;
        uint64_t durable;
        size_t used;
        memset(bytes, 0xee, sizeof bytes);
        seal(bytes, len);
        struct slice all = slice_of(bytes, sizeof bytes);
        assert_int_equal(log_record_decode(all, PLACE, &record, &durable, &used), 0);
        assert_int_equal(record.index, 1000);
        assert_int_equal(record.epoch, 7);
        assert_int_equal(durable, 990);
        assert_int_equal(record.payload.len, len);
        assert_ptr_equal(record.payload.ptr, bytes + LOG_RECORD_HEADER);
        assert_int_equal(used, log_record_bytes(len));
        assert_int_equal(used % 8, 0);
        for (size_t bit = 0; bit < used * 8; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            assert_int_not_equal(log_record_decode(all, PLACE, &record, &durable, &used), 0);
            bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        used = log_record_bytes(len);
        for (size_t cut = 0; cut < used; cut++) {
            size_t want = 0;
            int rc = log_record_decode(slice_of(bytes, cut), PLACE, &record, &durable, &want);
            assert_int_equal(rc, ERR_TRUNCATED);
            assert_int_equal(want, cut < LOG_RECORD_HEADER ? LOG_RECORD_HEADER : used);
        }
    }
}

/* The same bytes are no record of another log, segment or offset. */
static void test_record_of_another_place(void **state)
{
    (void)state;
    uint8_t bytes[128];
    struct log_place places[] = {PLACE, PLACE, PLACE, PLACE};
    places[0].salt++;
    places[1].number++;
    places[2].number += (uint64_t)1 << 32; /* equal in the half that the record shows */
    places[3].offset += 8;
    seal(bytes, 50);
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        struct log_record record;
        uint64_t durable;
        size_t used;
        assert_int_equal(
            log_record_decode(slice_of(bytes, sizeof bytes), places[i], &record, &durable, &used),
            ERR_CORRUPT);
    }
}

/* Version 1 as it was released: these bytes must be readable for ever. */
static void test_golden_version_1(void **state)
{
    (void)state;
    static const uint8_t header[] = {
        0x43, 0x46, 0x53, 0x4a, 0x52, 0x4e, 0x4c, 0x31, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x2a, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0xe8, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0xc4, 0xa2, 0x11, 0x4d,
    };
    static const uint8_t record[] = {
        0xed, 0x42, 0x0b, 0x69, 0x05, 0x00, 0x00, 0x00, 0x2a, 0x00, 0x00, 0x00, 0x0a, 0x00,
        0x00, 0x00, 0xe8, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x00, 0x00, 0x00,
    };
    uint8_t block[LOG_BLOCK];
    log_header_encode(&HEADER, block);
    assert_memory_equal(block, header, sizeof header);
    memcpy(block + LOG_RECORD_HEADER, "hello", 5);
    log_record_seal(block, 5, PLACE, 1000, 7, 990);
    assert_memory_equal(block, record, sizeof record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_round_trip_and_flips),
        cmocka_unit_test(test_header_bad_values),
        cmocka_unit_test(test_record_round_trip_and_flips),
        cmocka_unit_test(test_record_of_another_place),
        cmocka_unit_test(test_golden_version_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
