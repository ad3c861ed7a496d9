/* Records of a shard's journal: see record.h for the forms. */
#include "site/record.h"

#include "base/assert.h"

static void record_begin(struct buf *b, enum record_type type, const struct record_head *head)
{
    ASSERT(head->named.count <= PARTS_NAMED_MAX);
    buf_clear(b);
    enc_u8(b, (uint8_t)(type | (head->named.count > 0 ? RECORD_NAMES : 0)));
    enc_u64(b, head->commit_hlc);
    if (head->named.count > 0)
        enc_u8(b, (uint8_t)head->named.count);
    for (uint32_t i = 0; i < head->named.count; i++) {
        enc_u16(b, head->named.at[i].shard);
        enc_varint(b, head->named.at[i].index);
    }
}

void record_op(struct buf *b,
               uint64_t hlc,
               uint64_t session,
               uint64_t number,
               int32_t rc,
               struct oid oid,
               const struct op *op)
{
    record_begin(b, RECORD_OP, &(struct record_head){.commit_hlc = hlc});
    enc_varint(b, session);
    enc_varint(b, number);
    if (number != 0) {
        enc_u32(b, (uint32_t)rc);
        enc_oid(b, oid);
    }
    op_encode(op, b);
}

void record_remote(struct buf *b,
                   const struct record_head *head,
                   site_id_t peer,
                   uint64_t cursor,
                   uint32_t count,
                   struct slice ops)
{
    record_begin(b, RECORD_REMOTE, head);
    enc_u32(b, peer);
    enc_varint(b, cursor);
    enc_varint(b, count);
    enc_raw(b, ops.ptr, ops.len);
}

void record_message(struct buf *b,
                    enum record_type type,
                    const struct record_head *head,
                    shard_id_t from,
                    uint64_t message,
                    struct slice bytes)
{
    record_begin(b, type, head);
    enc_u16(b, from);
    enc_varint(b, message);
    enc_raw(b, bytes.ptr, bytes.len);
}

void record_local(
    struct buf *b, enum record_type type, uint64_t hlc, uint32_t count, struct slice pairs)
{
    record_begin(b, type, &(struct record_head){.commit_hlc = hlc});
    enc_varint(b, count);
    enc_raw(b, pairs.ptr, pairs.len);
}

void record_past(struct buf *b, uint64_t hlc, uint32_t count, struct slice ops)
{
    record_begin(b, RECORD_PAST, &(struct record_head){.commit_hlc = hlc});
    enc_varint(b, count);
    enc_raw(b, ops.ptr, ops.len);
}

static uint32_t dec_count(struct dec *d)
{
    uint64_t v = dec_varint(d);
    if (v > UINT32_MAX)
        dec_fail(d, ERR_MALFORMED);
    return (uint32_t)v;
}

static void dec_named(struct dec *d, struct parts_named *ret)
{
    uint8_t count = dec_u8(d);
    if (count == 0 || count > PARTS_NAMED_MAX)
        dec_fail(d, ERR_MALFORMED);
    for (; d->rc == 0 && ret->count < count; ret->count++) {
        ret->at[ret->count].shard = dec_u16(d);
        ret->at[ret->count].index = dec_varint(d);
    }
}

int record_decode(struct slice s, struct record *ret)
{
    struct dec d = dec_of(s);
    struct record r = {0};
    uint8_t first = dec_u8(&d), type = first & (uint8_t)~RECORD_NAMES;
    r.commit_hlc = dec_u64(&d);
    if ((first & RECORD_NAMES) != 0)
        dec_named(&d, &r.named);
    if (d.rc != 0)
        return d.rc;
    if (type < RECORD_OP || type > RECORD_PAST)
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
    case RECORD_PAST:
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

bool record_op_next(const struct record *r, uint32_t i, struct dec *in, struct slice *ret)
{
    if ((r->type != RECORD_REMOTE && r->type != RECORD_PAST) || i >= r->count)
        return false;
    *ret = dec_bytes(in, r->body.len);
    return in->rc == 0;
}

bool record_pair_next(const struct record *r, uint32_t i, struct dec *in, struct record_pair *ret)
{
    if ((r->type != RECORD_LOCAL && r->type != RECORD_SNAPSHOT) || i >= r->count)
        return false;
    ret->key = dec_bytes(in, r->body.len);
    ret->present = dec_u8(in) != 0;
    ret->value = dec_bytes(in, r->body.len);
    if (in->rc == 0 && ret->key.len == 0)
        dec_fail(in, ERR_MALFORMED);
    /* What the site does by itself is no business of the engine. */
    if (in->rc == 0 && r->type == RECORD_LOCAL && ret->key.ptr[0] < 0x80)
        dec_fail(in, ERR_MALFORMED);
    return in->rc == 0;
}
