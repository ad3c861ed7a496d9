/* Rows beside the engine's: see shard_row.h. */
#include "site/shard_row.h"

#include <string.h>

#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"

#define FILE_MAGIC 0x31535243u /* "CRS1" */

void key_be(struct buf *b, uint64_t v, unsigned bytes)
{
    uint8_t out[8];
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
    buf_append(b, out, bytes);
}

uint64_t be_get(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static bool key_is(struct slice key, enum shard_key k, size_t len)
{
    return key.len == len && key.ptr[0] == (uint8_t)k;
}

/* ---- numbers ---- */

/* Bytes of what the number is of; 0: no such row. */
static unsigned number_of_bytes(enum shard_key k)
{
    switch (k) {
    case SHARD_KEY_CURSOR:
    case SHARD_KEY_ACKED:
        return 4;
    case SHARD_KEY_OUT_NEXT:
    case SHARD_KEY_IN:
        return 2;
    default:
        return 0;
    }
}

void row_number_key(struct buf *key, enum shard_key k, uint32_t of)
{
    unsigned bytes = number_of_bytes(k);
    ASSERT(bytes > 0);
    key_begin(key, k);
    key_be(key, of, bytes);
}

void row_number_value(struct buf *value, uint64_t number)
{
    buf_clear(value);
    key_be(value, number, 8);
}

bool row_number_decode(struct slice key, struct slice value, uint32_t *ret_of, uint64_t *ret)
{
    unsigned bytes = key.len == 0 ? 0 : number_of_bytes((enum shard_key)key.ptr[0]);
    if (bytes == 0 || key.len != 1 + bytes || value.len != 8)
        return false;
    uint32_t of = (uint32_t)be_get(key.ptr + 1, bytes);
    uint64_t number = be_get(value.ptr, 8);
    if (bytes == 2 && of >= SHARD_COUNT_MAX)
        return false;
    if (key.ptr[0] == SHARD_KEY_OUT_NEXT && number == 0)
        return false; /* numbers begin with 1 */
    *ret_of = of;
    *ret = number;
    return true;
}

/* ---- messages, operations that wait, results ---- */

void row_outbox_key(struct buf *key, shard_id_t to, uint64_t number)
{
    key_begin(key, SHARD_KEY_OUTBOX);
    key_be(key, to, 2);
    key_be(key, number, 8);
}

void row_outbox_value(struct buf *value, enum record_type type, struct slice bytes)
{
    buf_clear(value);
    enc_u8(value, (uint8_t)type);
    enc_raw(value, bytes.ptr, bytes.len);
}

bool row_outbox_decode(struct slice key, struct slice value, struct row_outbox *ret)
{
    if (!key_is(key, SHARD_KEY_OUTBOX, 11) || value.len < 1)
        return false;
    uint64_t to = be_get(key.ptr + 1, 2), number = be_get(key.ptr + 3, 8);
    uint8_t type = value.ptr[0];
    if (to >= SHARD_COUNT_MAX || number == 0 || (type != RECORD_DELIVER && type != RECORD_DERIVED))
        return false;
    *ret = (struct row_outbox){.to = (shard_id_t)to,
                               .number = number,
                               .type = (enum record_type)type,
                               .bytes = slice_of(value.ptr + 1, value.len - 1)};
    return true;
}

void row_waiting_key(struct buf *key, uint64_t number)
{
    key_begin(key, SHARD_KEY_WAITING);
    key_be(key, number, 8);
}

bool row_waiting_decode(struct slice key, uint64_t *ret_number)
{
    if (!key_is(key, SHARD_KEY_WAITING, 9))
        return false;
    *ret_number = be_get(key.ptr + 1, 8);
    return true;
}

void row_result_key(struct buf *key, uint64_t session, uint64_t number)
{
    key_begin(key, SHARD_KEY_RESULT);
    key_be(key, session, 8);
    key_be(key, number, 8);
}

void row_result_value(struct buf *value, int32_t rc, struct oid oid)
{
    buf_clear(value);
    enc_u32(value, (uint32_t)rc);
    enc_oid(value, oid);
}

bool row_result_key_decode(struct slice key, uint64_t *ret_session, uint64_t *ret_number)
{
    if (!key_is(key, SHARD_KEY_RESULT, 17))
        return false;
    *ret_session = be_get(key.ptr + 1, 8);
    *ret_number = be_get(key.ptr + 9, 8);
    return true;
}

bool row_result_decode(struct slice value, int32_t *ret_rc, struct oid *ret_oid)
{
    struct dec d = dec_of(value);
    int32_t rc = (int32_t)dec_u32(&d);
    struct oid oid = dec_oid(&d);
    if (dec_end(&d) != 0)
        return false;
    *ret_rc = rc;
    *ret_oid = oid;
    return true;
}

/* ---- about sites ---- */

void row_limit_encode(const struct row_limit *r, struct buf *key, struct buf *value)
{
    key_begin(key, SHARD_KEY_LIMIT);
    key_be(key, r->site, 4);
    buf_clear(value);
    key_be(value, r->seq, 8);
    key_be(value, r->limit, 1);
}

bool row_limit_decode(struct slice key, struct slice value, struct row_limit *ret)
{
    if (!key_is(key, SHARD_KEY_LIMIT, 5) || value.len != 9)
        return false;
    *ret = (struct row_limit){.site = (site_id_t)be_get(key.ptr + 1, 4),
                              .seq = be_get(value.ptr, 8),
                              .limit = value.ptr[8] == LIMIT_HOLD ? LIMIT_HOLD : LIMIT_CUT};
    return true;
}

void row_last_encode(site_id_t site, struct last_op op, struct buf *key, struct buf *value)
{
    key_begin(key, SHARD_KEY_LAST);
    key_be(key, site, 4);
    buf_clear(value);
    key_be(value, op.seq, 8);
    key_be(value, op.hlc, 8);
}

bool row_last_decode(struct slice key, struct slice value, site_id_t *ret, struct last_op *ret_op)
{
    if (!key_is(key, SHARD_KEY_LAST, 5) || value.len != 16)
        return false;
    *ret = (site_id_t)be_get(key.ptr + 1, 4);
    *ret_op = (struct last_op){.seq = be_get(value.ptr, 8), .hlc = be_get(value.ptr + 8, 8)};
    return true;
}

/* ---- files without a name ---- */

void row_orphan_key(struct oid oid, uint8_t ret[ROW_ORPHAN_KEY_BYTES])
{
    ret[0] = SHARD_KEY_ORPHAN;
    memcpy(ret + 1, oid.b, sizeof oid.b);
}

bool row_orphan_key_decode(struct slice key, struct oid *ret)
{
    if (!key_is(key, SHARD_KEY_ORPHAN, ROW_ORPHAN_KEY_BYTES))
        return false;
    memcpy(ret->b, key.ptr + 1, sizeof ret->b);
    return true;
}

void row_orphan_value(struct buf *value, const struct row_orphan *r)
{
    const struct content *c = &r->content;
    buf_clear(value);
    enc_u64(value, r->version);
    enc_u64(value, (uint64_t)r->mtime_ns);
    enc_u8(value, (uint8_t)c->kind);
    enc_u64(value, c->size);
    enc_u32(value, c->block_bytes);
    enc_raw(value, c->root, sizeof c->root);
    enc_varint(value, c->data_blocks);
    enc_bytes(value, c->bytes);
}

bool row_orphan_decode(struct slice value, struct row_orphan *ret)
{
    struct dec d = dec_of(value);
    struct row_orphan r = {.version = dec_u64(&d)};
    r.mtime_ns = (int64_t)dec_u64(&d);
    uint8_t kind = dec_u8(&d);
    r.content.size = dec_u64(&d);
    r.content.block_bytes = dec_u32(&d);
    dec_raw(&d, r.content.root, sizeof r.content.root);
    r.content.data_blocks = dec_varint(&d);
    r.content.bytes = dec_bytes(&d, LIMIT_INLINE_BYTES);
    r.content.kind = (enum content_kind)kind;
    if (dec_end(&d) != 0 || !content_valid(&r.content))
        return false;
    *ret = r;
    return true;
}

/* ---- a copy's own file ---- */

void replica_file_encode(const struct replica_file *f, struct buf *out)
{
    buf_clear(out);
    enc_u32(out, FILE_MAGIC);
    enc_u64(out, f->life);
    enc_u8(out, f->blank);
    enc_u8(out, f->copying);
    ASSERT_EQ(out->len, REPLICA_FILE_BYTES);
}

bool replica_file_decode(struct slice bytes, struct replica_file *ret)
{
    struct dec d = dec_of(bytes);
    uint32_t magic = dec_u32(&d);
    struct replica_file f = {.life = dec_u64(&d)};
    f.blank = dec_u8(&d) != 0;
    f.copying = dec_u8(&d) != 0;
    if (dec_end(&d) != 0 || magic != FILE_MAGIC)
        return false;
    *ret = f;
    return true;
}
