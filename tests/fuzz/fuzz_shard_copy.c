/* site/shard_peers.h: whatever comes, a message of a copy is refused or within bounds, and encodes
 * to itself. Once as it is, and once with the beginning that every message has. */
#include "base/assert.h"
#include "site/shard_peers.h"
#include "tests/fuzz/fuzz.h"

static void try(struct slice s)
{
    struct shard_copy_msg m;
    struct buf again = {0};
    if (shard_copy_decode(s, &m) != 0)
        return;
    shard_copy_encode(&again, &m);
    ASSERT(slice_equal(buf_slice(&again), s));
    struct slice at = m.pairs, key, value;
    for (uint32_t i = 0; i < m.count; i++) {
        shard_copy_next(&at, &key, &value);
        ASSERT(key.len > 0 && key.ptr >= s.ptr && value.ptr + value.len <= s.ptr + s.len);
    }
    ASSERT(at.len == 0);
    buf_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf b = {0};
    try(slice_of(data, size));
    struct shard_copy_msg m = {.kind = SHARD_COPY_PAGE, .page = 1, .index = 9, .first = 3};
    m.count = size > 0 ? data[0] % 4 : 0;
    m.pairs = slice_of(data, size);
    shard_copy_encode(&b, &m);
    try(buf_slice(&b));
    buf_deinit(&b);
    return 0;
}
