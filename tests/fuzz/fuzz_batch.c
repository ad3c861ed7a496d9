/* wan/batch.h: whatever comes, decoding ends with an error or a batch within bounds; and what was
 * decoded encodes and decodes to itself. The first bytes choose the number of shards; the rest is a
 * stream of batches, each with its length, its noise behind it. */
#include "base/assert.h"
#include "base/codec.h"
#include "tests/fuzz/fuzz.h"
#include "wan/batch.h"

static void check_round_trip(const struct batch *b, unsigned shard_count)
{
    struct batch_memory there, here;
    struct batch_decoded got = {0};
    struct buf wire = {0}, noise = {0};
    batch_memory_init(&there, shard_count);
    batch_memory_init(&here, shard_count);
    batch_encode(&there, b, &wire, &noise);
    int rc = batch_decode(&here, buf_slice(&wire), buf_slice(&noise), &got);
    ASSERT(rc == 0);
    ASSERT(got.batch.count == b->count && got.batch.hlc == b->hlc);
    for (uint32_t i = 0; i < b->count; i++) {
        ASSERT(slice_equal(got.batch.items[i].op, b->items[i].op));
        ASSERT(got.batch.items[i].shard == b->items[i].shard);
    }
    batch_decoded_deinit(&got);
    batch_memory_deinit(&there);
    batch_memory_deinit(&here);
    buf_deinit(&wire);
    buf_deinit(&noise);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dec d = dec_of(slice_of(data, size));
    unsigned shard_count = 1u + dec_u8(&d) % SHARD_COUNT_MAX;
    struct batch_memory m;
    struct batch_decoded got = {0};
    batch_memory_init(&m, shard_count);
    while (d.rc == 0 && dec_left(&d) > 0) {
        struct slice one = dec_bytes(&d, size);
        if (d.rc != 0) /* not a stream of lengths: one batch, then */
            one = slice_of(data + 1, size - 1);
        struct slice noise = dec_bytes(&d, size);
        if (batch_decode(&m, one, noise, &got) != 0)
            break;
        ASSERT(got.batch.count <= BATCH_ITEMS_MAX);
        for (uint32_t i = 0; i < got.batch.count; i++)
            ASSERT(got.batch.items[i].shard < shard_count);
        check_round_trip(&got.batch, shard_count);
    }
    batch_decoded_deinit(&got);
    batch_memory_deinit(&m);
    return 0;
}
