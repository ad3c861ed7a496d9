/* Records of a shard's journal: see record.h for the forms. */
#include "site/record.h"

#include "base/limits.h"

void record_begin(struct buf *b, enum record_type type, uint64_t commit_hlc)
{
    buf_clear(b);
    enc_u8(b, (uint8_t)type);
    enc_u64(b, commit_hlc);
}

void record_op(struct buf *b,
               uint64_t hlc,
               uint64_t session,
               uint64_t number,
               int32_t rc,
               struct oid oid,
               const struct op *op)
{
    record_begin(b, RECORD_OP, hlc);
    enc_varint(b, session);
    enc_varint(b, number);
    if (number != 0) {
        enc_u32(b, (uint32_t)rc);
        enc_oid(b, oid);
    }
    op_encode(op, b);
}

void record_remote(
    struct buf *b, uint64_t hlc, site_id_t peer, uint64_t cursor, uint32_t count, struct slice ops)
{
    record_begin(b, RECORD_REMOTE, hlc);
    enc_u32(b, peer);
    enc_varint(b, cursor);
    enc_varint(b, count);
    enc_raw(b, ops.ptr, ops.len);
}

void record_message(struct buf *b,
                    enum record_type type,
                    uint64_t hlc,
                    shard_id_t from,
                    uint64_t message,
                    struct slice bytes)
{
    record_begin(b, type, hlc);
    enc_u16(b, from);
    enc_varint(b, message);
    enc_raw(b, bytes.ptr, bytes.len);
}

void record_local(
    struct buf *b, enum record_type type, uint64_t hlc, uint32_t count, struct slice pairs)
{
    record_begin(b, type, hlc);
    enc_varint(b, count);
    enc_raw(b, pairs.ptr, pairs.len);
}

static uint32_t dec_count(struct dec *d)
{
    uint64_t v = dec_varint(d);
    if (v > UINT32_MAX)
        dec_fail(d, ERR_MALFORMED);
    return (uint32_t)v;
}

int record_decode(struct slice s, struct record *ret)
{
    struct dec d = dec_of(s);
    struct record r = {0};
    uint8_t type = dec_u8(&d);
    r.commit_hlc = dec_u64(&d);
    if (d.rc != 0)
        return d.rc;
    if (type < RECORD_OP || type > RECORD_SNAPSHOT)
        return ERR_MALFORMED;
    r.type = (enum record_type)type;
    switch (r.type) {
    case RECORD_OP:
        r.session = dec_varint(&d);
        r.number = dec_varint(&d);
        if (r.number != 0) {
            r.rc = (int32_t)dec_u32(&d);
            r.oid = dec_oid(&d);
        }
        break;
    case RECORD_REMOTE:
        r.peer = dec_u32(&d);
        r.cursor = dec_varint(&d);
        r.count = dec_count(&d);
        break;
    case RECORD_DELIVER:
    case RECORD_DERIVED:
        r.from = dec_u16(&d);
        r.message = dec_varint(&d);
        break;
    case RECORD_LOCAL:
    case RECORD_SNAPSHOT:
        r.count = dec_count(&d);
        break;
    }
    if (d.rc != 0)
        return d.rc;
    r.body = slice_of(d.at, dec_left(&d));
    if (r.count > r.body.len)
        return ERR_MALFORMED; /* every element takes at least one byte */
    *ret = r;
    return 0;
}
