/* site/record.h: records of a shard's journal. Whatever the bytes are, decoding ends with an error
 * or a record whose slices lie inside; a REMOTE or a message that was decoded encodes to itself, if
 * its numbers were written in the shortest form; and what its body holds lies inside, one thing
 * after the other. */
#include <string.h>

#include "base/assert.h"
#include "site/record.h"
#include "tests/fuzz/fuzz.h"

static void inside(struct slice s, const struct record *r)
{
    if (s.len > 0)
        ASSERT(s.ptr > r->body.ptr && s.ptr + s.len <= r->body.ptr + r->body.len);
}

static void check_body(const struct record *r)
{
    struct dec in = dec_of(r->body);
    struct buf b = {.ptr = NULL};
    struct record_pair p;
    struct slice op;
    uint32_t ops = 0, pairs = 0;
    for (; record_op_next(r, ops, &in, &op); ops++) {
        inside(op, r);
        enc_bytes(&b, op);
    }
    for (; record_pair_next(r, pairs, &in, &p); pairs++) {
        inside(p.key, r);
        inside(p.value, r);
        ASSERT(p.key.len > 0 && (r->type == RECORD_SNAPSHOT || p.key.ptr[0] >= 0x80));
        enc_bytes(&b, p.key);
        enc_u8(&b, p.present);
        enc_bytes(&b, p.value);
    }
    ASSERT(ops == 0 || r->type == RECORD_REMOTE || r->type == RECORD_PAST);
    ASSERT(pairs == 0 || r->type == RECORD_LOCAL || r->type == RECORD_SNAPSHOT);
    if (dec_end(&in) == 0) {
        ASSERT(ops + pairs == r->count && b.len == r->body.len);
        if (ops > 0)
            ASSERT(memcmp(b.ptr, r->body.ptr, b.len) == 0);
    }
    buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record r, again;
    struct buf b = {0};
    if (record_decode(slice_of(data, size), &r) != 0)
        return 0;
    ASSERT(r.body.ptr >= data && r.body.ptr + r.body.len == data + size);
    ASSERT(r.named.count <= PARTS_NAMED_MAX);
    check_body(&r);
    const struct record_head head = {.commit_hlc = r.commit_hlc, .named = r.named};
    if (r.type == RECORD_REMOTE)
        record_remote(&b, &head, r.peer, r.cursor, r.count, r.body);
    else if (r.type == RECORD_PAST && r.named.count == 0)
        record_past(&b, r.commit_hlc, r.count, r.body);
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
