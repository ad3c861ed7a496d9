/* Values of a chunk store's index: entries, what is known of a segment, and how far the index goes.
 * The first byte chooses. What is taken reads the same when it is written again; of what is refused
 * nothing is left behind. */
#include <string.h>

#include "base/assert.h"
#include "data/index_value.h"
#include "tests/fuzz/fuzz.h"

static const uint64_t before = 0x6265666f72656266ull;

static void check_entry(struct slice value)
{
    struct store_entry one = {.segment = before, .epoch = before}, two = {.segment = 0};
    struct buf b = {.ptr = NULL};
    if (index_entry_decode(value, &one) != 0) {
        ASSERT(one.segment == before && one.epoch == before && one.offset == 0);
        return;
    }
    ASSERT(one.segment != 0); /* 0 means that there is none */
    index_entry_encode(&one, &b);
    int rc = index_entry_decode(buf_slice(&b), &two);
    ASSERT(rc == 0);
    ASSERT(one.segment == two.segment && one.epoch == two.epoch && one.offset == two.offset);
    ASSERT(one.len == two.len && one.plain_len == two.plain_len);
    ASSERT(b.len == value.len ? slice_equal(buf_slice(&b), value) : one.plain_len == one.len);
    buf_deinit(&b);
}

static void check_stat(struct slice value)
{
    struct segment_stat one = {.end = before, .live_bytes = before}, two = {.end = 0};
    struct buf b = {.ptr = NULL};
    if (index_stat_decode(value, &one) != 0) {
        ASSERT(one.end == before && one.live_bytes == before && one.live_count == 0);
        return;
    }
    index_stat_encode(&one, &b);
    int rc = index_stat_decode(buf_slice(&b), &two);
    ASSERT(rc == 0);
    ASSERT(one.end == two.end && one.live_bytes == two.live_bytes);
    ASSERT(one.live_count == two.live_count && one.plain_bytes == two.plain_bytes);
    /* What version 1 does not say is made up from what it says. */
    ASSERT(b.len == value.len ? slice_equal(buf_slice(&b), value)
                              : one.plain_bytes <= one.live_bytes);
    buf_deinit(&b);
}

static void check_meta(struct slice value)
{
    struct index_meta one = {.segment = before, .offset = before}, two = {.segment = 0};
    struct buf b = {.ptr = NULL};
    if (index_meta_decode(value, &one) != 0) {
        ASSERT(one.segment == before && one.offset == before && one.epoch == 0);
        return;
    }
    index_meta_encode(&one, &b);
    int rc = index_meta_decode(buf_slice(&b), &two);
    ASSERT(rc == 0);
    ASSERT(one.segment == two.segment && one.offset == two.offset && one.epoch == two.epoch);
    ASSERT(one.next_segment == two.next_segment);
    ASSERT(memcmp(one.store_id, two.store_id, sizeof one.store_id) == 0);
    ASSERT(b.len == value.len); /* both versions are as long */
    buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const checks[])(struct slice value) = {check_entry, check_stat, check_meta};
    if (size > 0)
        checks[data[0] % 3](slice_of(data + 1, size - 1));
    return 0;
}
