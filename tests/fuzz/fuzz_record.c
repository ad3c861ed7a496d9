/* site/record.h: records of a shard's journal. Whatever the bytes are, decoding ends with an error
 * or a record whose slices lie inside; a REMOTE or a message that was decoded encodes to itself, if
 * its numbers were written in the shortest form. */
#include "base/assert.h"
#include "site/record.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record r, again;
    struct buf b = {0};
    if (record_decode(slice_of(data, size), &r) != 0)
        return 0;
    ASSERT(r.body.ptr >= data && r.body.ptr + r.body.len == data + size);
    ASSERT(r.named.count <= PARTS_NAMED_MAX);
    const struct record_head head = {.commit_hlc = r.commit_hlc, .named = r.named};
    if (r.type == RECORD_REMOTE)
        record_remote(&b, &head, r.peer, r.cursor, r.count, r.body);
    else if (r.type == RECORD_DELIVER || r.type == RECORD_DERIVED)
        record_message(&b, r.type, &head, r.from, r.message, r.body);
    else
        return 0;
    int rc = record_decode(buf_slice(&b), &again);
    ASSERT(rc == 0 && b.len <= size);
    ASSERT(again.type == r.type && again.commit_hlc == r.commit_hlc);
    ASSERT(again.named.count == r.named.count && again.cursor == r.cursor &&
           again.message == r.message && again.from == r.from && again.peer == r.peer);
    for (uint32_t i = 0; i < r.named.count; i++)
        ASSERT(again.named.at[i].shard == r.named.at[i].shard &&
               again.named.at[i].index == r.named.at[i].index);
    ASSERT(slice_equal(again.body, r.body));
    buf_deinit(&b);
    return 0;
}
