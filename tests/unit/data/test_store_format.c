/* Bytes of segment files: round trips, every changed byte noticed, and finding records again behind
 * damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "data/store_format.h"

static void test_segment_header(void **state)
{
    (void)state;
    struct segment_header h = {.number = 0x1122334455667788, .store_id = {1, 2, 3}};
    struct segment_header back;
    uint8_t block[STORE_BLOCK_BYTES];
    segment_header_encode(&h, block);
    assert_int_equal(segment_header_decode(slice_of(block, sizeof block), &back), 0);
    assert_int_equal(back.number, h.number);
    assert_memory_equal(back.store_id, h.store_id, 16);
    for (size_t i = 0; i < 36 * 8; i++) {
        block[i / 8] ^= (uint8_t)(1u << (i % 8));
        assert_true(segment_header_decode(slice_of(block, sizeof block), &back) < 0);
        block[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    for (size_t len = 0; len < 36; len++)
        assert_int_equal(segment_header_decode(slice_of(block, len), &back), ERR_TRUNCATED);
}

static void put(struct buf *file, uint8_t id, uint32_t len, uint32_t group)
{
    struct record r = {.id = {{id}}, .len = len, .epoch = 9, .segment_low = 3, .group = group};
    uint8_t data[5000];
    memset(data, id, sizeof data);
    buf_reserve(file, record_bytes(len));
    segment_record_encode(&r, data, file->ptr + file->len);
    file->len += record_bytes(len);
}

static void pad(struct buf *file)
{
    static const uint8_t zeros[STORE_BLOCK_BYTES];
    buf_append(file, zeros, align_up(file->len, STORE_BLOCK_BYTES) - file->len);
}

static void test_record(void **state)
{
    (void)state;
    struct buf b = {0};
    struct record r;
    put(&b, 7, 100, 2);
    assert_int_equal(b.len, 192);
    assert_int_equal(segment_record_decode(buf_slice(&b), &r), 0);
    assert_int_equal(r.id.b[0], 7);
    assert_int_equal(r.len, 100);
    assert_int_equal(r.epoch, 9);
    assert_int_equal(r.segment_low, 3);
    assert_int_equal(r.group, 2);
    assert_true(record_data_good(&r, b.ptr + 64));
    for (size_t i = 0; i < 164 * 8; i++) {
        b.ptr[i / 8] ^= (uint8_t)(1u << (i % 8));
        int rc = segment_record_decode(buf_slice(&b), &r);
        assert_true(rc != 0 || !record_data_good(&r, b.ptr + 64));
        b.ptr[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    assert_int_equal(segment_record_decode(slice_of(b.ptr, 63), &r), ERR_TRUNCATED);
    buf_deinit(&b);
}

/* Which ids a scan finds, and what else it says, as a string: digits for records. */
static const char *scan(const struct buf *file)
{
    static char out[64];
    size_t n = 0;
    struct record_scan s = {.bytes = buf_slice(file), .base = 4096, .number = 3, .at = 4096};
    for (;;) {
        switch (record_scan_next(&s)) {
        case SCAN_RECORD:
            out[n++] = (char)('0' + s.record.id.b[0]);
            break;
        case SCAN_BAD:
            out[n++] = 'b';
            break;
        case SCAN_JUNK:
            out[n++] = 'j';
            break;
        case SCAN_MORE:
            out[n++] = 'm';
            out[n] = '\0';
            return out;
        case SCAN_END:
            out[n] = '\0';
            return out;
        }
        assert_true(n < sizeof out - 1);
    }
}

static void test_scan(void **state)
{
    (void)state;
    struct buf f = {0};
    assert_string_equal(scan(&f), "");
    put(&f, 1, 10, 1);
    put(&f, 2, 3000, 1);
    put(&f, 3, 2000, 1); /* over a block's edge */
    pad(&f);
    size_t second = f.len;
    put(&f, 4, 4900, 2);
    pad(&f);
    size_t third = f.len;
    put(&f, 5, 1, 3);
    pad(&f);
    pad(&f);
    assert_string_equal(scan(&f), "12345");
    f.ptr[second + 100] ^= 1; /* data */
    assert_string_equal(scan(&f), "123b5");
    f.ptr[second + 20] ^= 1; /* header as well: resumes at blocks, inside the data */
    assert_string_equal(scan(&f), "123jj5");
    f.ptr[second + 20] ^= 1;
    f.ptr[second + 100] ^= 1;
    f.ptr[130] ^= 1; /* the second header: the rest of its group's block is passed over */
    assert_string_equal(scan(&f), "1jj45");
    f.ptr[130] ^= 1;
    f.len = third + 64; /* cut within a record of one byte, padded to 128 */
    assert_string_equal(scan(&f), "1234m");
    f.len = second + 4096;
    assert_string_equal(scan(&f), "123m");
    f.len = second;
    f.ptr[200] ^= 1;
    assert_string_equal(scan(&f), "1b3");
    buf_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_header),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_scan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
