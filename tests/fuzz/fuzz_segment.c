/* Segment files: scanning arbitrary bytes ends, stays inside, and reports only records whose sums
 * are right. Half of the runs get the input as the data of good records with one change. */
#include "base/assert.h"
#include "base/buf.h"
#include "data/store_format.h"
#include "tests/fuzz/fuzz.h"

static unsigned scan(struct slice bytes)
{
    unsigned found = 0;
    unsigned steps = 0;
    struct record_scan s = {.bytes = bytes, .base = 4096, .number = 1, .at = 4096};
    for (;;) {
        uint64_t before = s.at;
        enum scan_kind kind = record_scan_next(&s);
        if (kind == SCAN_END || kind == SCAN_MORE)
            return found;
        ASSERT(s.at > before);
        ASSERT(++steps <= bytes.len / STORE_RECORD_ALIGN + 1);
        if (kind != SCAN_RECORD)
            continue;
        ASSERT(s.data >= bytes.ptr && s.data + s.record.len <= bytes.ptr + bytes.len);
        ASSERT(record_data_good(&s.record, s.data));
        found++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment_header h;
    struct record r;
    int rc = segment_header_decode(slice_of(data, size), &h);
    ASSERT(rc <= 0);
    rc = segment_record_decode(slice_of(data, size), &r);
    ASSERT(rc <= 0);
    (void)scan(slice_of(data, size));
    if (size == 0)
        return 0;
    struct buf file = {0};
    for (uint8_t i = 1; i <= 3; i++) {
        struct record part = {.id = {{i}}, .len = (uint32_t)size, .segment_low = 1, .group = i};
        buf_reserve(&file, record_bytes(part.len));
        segment_record_encode(&part, data, file.ptr + file.len);
        file.len += record_bytes(part.len);
    }
    ASSERT_EQ(scan(buf_slice(&file)), 3);
    size_t at = (data[0] * 251u + data[size / 2] * 7u) % file.len;
    file.ptr[at] ^= (uint8_t)(data[size - 1] | 1);
    ASSERT(scan(buf_slice(&file)) <= 3);
    buf_deinit(&file);
    return 0;
}
