/* site/shard_row.h: rows that a shard keeps beside the engine's, from its database, from a peer
 * whose snapshot is taken over or from another node's copy, and the small file of a copy. The first
 * byte chooses; the second is the length of the key. What is taken reads the same when it is
 * written again, and lies within bounds. */
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/shard_row.h"
#include "tests/fuzz/fuzz.h"

struct again {
    struct buf key, value;
};

static void check_number(struct slice key, struct slice value, struct again *a)
{
    uint32_t of;
    uint64_t number;
    if (!row_number_decode(key, value, &of, &number))
        return;
    ASSERT(key.ptr[0] != SHARD_KEY_IN || of < SHARD_COUNT_MAX); /* an index of arrays */
    ASSERT(key.ptr[0] != SHARD_KEY_OUT_NEXT || (of < SHARD_COUNT_MAX && number > 0));
    row_number_key(&a->key, (enum shard_key)key.ptr[0], of);
    row_number_value(&a->value, number);
    ASSERT(slice_equal(buf_slice(&a->key), key) && slice_equal(buf_slice(&a->value), value));
}

static void check_outbox(struct slice key, struct slice value, struct again *a)
{
    struct row_outbox r;
    if (!row_outbox_decode(key, value, &r))
        return;
    ASSERT(r.to < SHARD_COUNT_MAX && r.number > 0); /* the one before has a number, or is 0 */
    ASSERT(r.type == RECORD_DELIVER || r.type == RECORD_DERIVED);
    row_outbox_key(&a->key, r.to, r.number);
    row_outbox_value(&a->value, r.type, r.bytes);
    ASSERT(slice_equal(buf_slice(&a->key), key) && slice_equal(buf_slice(&a->value), value));
}

static void check_waiting(struct slice key, struct slice value, struct again *a)
{
    uint64_t number;
    (void)value; /* an operation: fuzz_op */
    if (!row_waiting_decode(key, &number))
        return;
    row_waiting_key(&a->key, number);
    ASSERT(slice_equal(buf_slice(&a->key), key));
}

static void check_result(struct slice key, struct slice value, struct again *a)
{
    uint64_t session, number;
    struct oid oid;
    int32_t rc;
    if (row_result_key_decode(key, &session, &number)) {
        row_result_key(&a->key, session, number);
        ASSERT(slice_equal(buf_slice(&a->key), key));
    }
    if (row_result_decode(value, &rc, &oid)) {
        ASSERT(oid_is_none(oid) || oid_valid(oid));
        row_result_value(&a->value, rc, oid);
        ASSERT(slice_equal(buf_slice(&a->value), value));
    }
}

static void check_limit(struct slice key, struct slice value, struct again *a)
{
    struct row_limit one, two;
    if (!row_limit_decode(key, value, &one))
        return;
    ASSERT(one.limit == LIMIT_HOLD || one.limit == LIMIT_CUT);
    row_limit_encode(&one, &a->key, &a->value);
    bool good = row_limit_decode(buf_slice(&a->key), buf_slice(&a->value), &two);
    ASSERT(good && one.site == two.site && one.seq == two.seq && one.limit == two.limit);
}

static void check_last(struct slice key, struct slice value, struct again *a)
{
    struct last_op op;
    site_id_t site;
    if (!row_last_decode(key, value, &site, &op))
        return;
    row_last_encode(site, op, &a->key, &a->value);
    ASSERT(slice_equal(buf_slice(&a->key), key) && slice_equal(buf_slice(&a->value), value));
}

static void check_orphan(struct slice key, struct slice value, struct again *a)
{
    struct row_orphan one, two;
    struct oid oid;
    uint8_t bytes[ROW_ORPHAN_KEY_BYTES];
    if (row_orphan_key_decode(key, &oid)) {
        row_orphan_key(oid, bytes);
        ASSERT(slice_equal(slice_of(bytes, sizeof bytes), key));
    }
    if (!row_orphan_decode(value, &one))
        return;
    /* Whoever reads the file relies on it. */
    const struct content *c = &one.content;
    ASSERT(c->size <= LIMIT_FILE_BYTES);
    ASSERT(c->kind == CONTENT_INLINE ? c->bytes.len <= c->size : c->kind == CONTENT_MANIFEST);
    ASSERT(c->kind == CONTENT_INLINE || c->block_bytes >= 64 * KIB);
    row_orphan_value(&a->value, &one);
    bool good = row_orphan_decode(buf_slice(&a->value), &two);
    ASSERT(good && a->value.len <= value.len);
    ASSERT(one.version == two.version && one.mtime_ns == two.mtime_ns);
    ASSERT(c->kind == two.content.kind && c->data_blocks == two.content.data_blocks);
    ASSERT(content_equal(c, &two.content) && slice_equal(c->bytes, two.content.bytes));
}

static void check_file(struct slice key, struct slice value, struct again *a)
{
    struct replica_file one, two;
    (void)key;
    if (!replica_file_decode(value, &one))
        return;
    replica_file_encode(&one, &a->value);
    bool good = replica_file_decode(buf_slice(&a->value), &two);
    ASSERT(good && one.life == two.life && one.blank == two.blank && one.copying == two.copying);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const checks[])(struct slice key, struct slice value, struct again * a) = {
        check_number, check_outbox, check_waiting, check_result,
        check_limit,  check_last,   check_orphan,  check_file};
    struct again a = {.key = {.ptr = NULL}};
    if (size < 2)
        return 0;
    size_t key_len = MIN((size_t)data[1] % 24, size - 2);
    checks[data[0] % ARRAY_COUNT(checks)](slice_of(data + 2, key_len),
                                          slice_of(data + 2 + key_len, size - 2 - key_len), &a);
    buf_deinit(&a.key);
    buf_deinit(&a.value);
    return 0;
}
