/* Operations from a peer: any bytes decode or are refused; what decodes encodes again, and the
 * second decoding gives the same operation. */
#include "base/assert.h"
#include "journal/op.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct op_arena a = {.head = NULL};
    struct op op;
    if (op_decode(slice_of(data, size), &a, &op) == 0) {
        struct buf once = {.ptr = NULL};
        struct buf twice = {.ptr = NULL};
        struct shard_set shards;
        struct op back;
        op_encode(&op, &once);
        int rc = op_decode(buf_slice(&once), &a, &back);
        ASSERT(rc == 0);
        op_encode(&back, &twice);
        ASSERT(slice_equal(buf_slice(&once), buf_slice(&twice)));
        op_shards(&op, &shards);
        ASSERT(shard_set_has(&shards, op.dot.shard));
        buf_deinit(&once);
        buf_deinit(&twice);
    }
    op_arena_deinit(&a);
    return 0;
}
