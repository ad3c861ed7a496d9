/* Pages of a snapshot, which a site that joins gets from another one. The first byte is the number
 * of shards less one. A page is refused as a whole, or it is one that the sender could have made.
 */
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/snapshot_page.h"
#include "tests/fuzz/fuzz.h"

static bool is_inside(struct slice part, struct slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

static void check_same(const struct snapshot_page *one, const struct snapshot_page *two)
{
    ASSERT(one->kind == two->kind && one->count == two->count && one->shard == two->shard);
    ASSERT(memcmp(one->index, two->index, sizeof one->index) == 0);
    for (uint32_t i = 0; i < one->count; i++)
        ASSERT(slice_equal(one->pairs[i].key, two->pairs[i].key) &&
               slice_equal(one->pairs[i].value, two->pairs[i].value));
}

static void check_same_past(const struct snapshot_page *one, const struct snapshot_page *two)
{
    ASSERT(one->kind == two->kind && one->count == two->count && one->shard == two->shard);
    for (uint32_t i = 0; i < one->count; i++)
        ASSERT(one->past[i].commit_hlc == two->past[i].commit_hlc &&
               slice_equal(one->past[i].op, two->past[i].op));
}

static void check_pairs(const struct snapshot_page *p, struct slice page, struct buf *ret)
{
    ASSERT(2 * (size_t)p->count < page.len); /* nobody makes us take memory with a number */
    for (uint32_t i = 0; i < p->count; i++) {
        ASSERT(is_inside(p->pairs[i].key, page) && is_inside(p->pairs[i].value, page));
        ASSERT(snapshot_travels(p->pairs[i].key));
        ASSERT(p->pairs[i].value.ptr != NULL); /* that would remove the key */
        mp_bin(ret, p->pairs[i].key);
        mp_bin(ret, p->pairs[i].value);
    }
}

/* What streams take for granted of their journal. */
static void check_past(const struct snapshot_page *p, struct slice page, struct buf *ret)
{
    ASSERT(2 * (size_t)p->count < page.len);
    for (uint32_t i = 0; i < p->count; i++) {
        struct op op;
        ASSERT(is_inside(p->past[i].op, page) && p->past[i].op.len <= LIMIT_OP_BYTES);
        ASSERT(i == 0 || p->past[i].commit_hlc >= p->past[i - 1].commit_hlc);
        int rc = op_decode_head(p->past[i].op, &op);
        ASSERT(rc == 0 && op.dot.shard == p->shard);
        mp_uint(ret, p->past[i].commit_hlc);
        mp_bin(ret, p->past[i].op);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    unsigned shards = 1u + data[0], theirs = 0;
    struct slice page = slice_of(data + 1, size - 1);
    struct snapshot_page one = {.pairs = NULL}, two = {.pairs = NULL};
    struct buf b = {.ptr = NULL}, pairs = {.ptr = NULL};
    int rc = snapshot_page_decode(page, shards, &one, &theirs);
    ASSERT(rc == ERR_CONFIG ? theirs != shards : theirs == 0);
    if (rc != 0) {
        ASSERT(one.pairs == NULL && one.count == 0 && one.index[0] == 0);
        return 0;
    }
    if (one.kind == PAGE_HEADER) {
        for (unsigned i = 0; i < shards; i++)
            ASSERT(one.index[i] + 1 > one.index[i]); /* the stream goes on there */
        snapshot_header_encode(one.index, shards, &b);
    } else if (one.kind == PAGE_PAST) {
        ASSERT(one.shard < shards);
        check_past(&one, page, &pairs);
        snapshot_past_encode(one.shard, one.count, buf_slice(&pairs), &b);
    } else {
        ASSERT(one.shard < shards);
        check_pairs(&one, page, &pairs);
        snapshot_pairs_encode(one.shard, one.count, buf_slice(&pairs), &b);
    }
    rc = snapshot_page_decode(buf_slice(&b), shards, &two, &theirs);
    ASSERT(rc == 0);
    if (one.kind == PAGE_PAST)
        check_same_past(&one, &two);
    else
        check_same(&one, &two);
    snapshot_page_deinit(&one);
    snapshot_page_deinit(&two);
    buf_deinit(&b);
    buf_deinit(&pairs);
    return 0;
}
