/* Messages between the replicas of a shard. See replica.h.
 *
 *   magic "RP" 2 | version 1 | kind 1 | flags 1 | zero 3 | epoch, node, life, seq, index,
 *   index_epoch, hint, last, commit 8 each | count 4 | count times: epoch 8, bytes 4, payload */
#include "base/codec.h"
#include "site/replica.h"

#define MAGIC 0x5052u /* "RP" */
#define VERSION 1u
#define ITEM_BYTES 12u /* before the payload */

void replica_msg_encode(struct buf *b, const struct replica_msg *m)
{
    enc_u16(b, MAGIC);
    enc_u8(b, VERSION);
    enc_u8(b, m->kind);
    enc_u8(b, m->flags);
    enc_raw(b, (const uint8_t[3]){0}, 3);
    enc_u64(b, m->epoch);
    enc_u64(b, m->node);
    enc_u64(b, m->life);
    enc_u64(b, m->seq);
    enc_u64(b, m->index);
    enc_u64(b, m->index_epoch);
    enc_u64(b, m->hint);
    enc_u64(b, m->last);
    enc_u64(b, m->commit);
    enc_u32(b, m->count);
    if (m->records.len > 0)
        enc_raw(b, m->records.ptr, m->records.len);
}

/* Exactly `count` records in what is left, epochs not falling, within what the sender may say:
 * above its `last` are those of its own epoch, and only those. */
static void records_check(struct dec *d, const struct replica_msg *m)
{
    uint64_t before = m->index_epoch;
    if (m->kind != REPLICA_MSG_APPEND && m->count > 0)
        dec_fail(d, ERR_MALFORMED);
    if (m->kind == REPLICA_MSG_APPEND && m->index > m->last && m->index_epoch != m->epoch)
        dec_fail(d, ERR_MALFORMED);
    for (uint32_t i = 0; i < m->count && d->rc == 0; i++) {
        uint64_t epoch = dec_u64(d);
        uint32_t len = dec_u32(d);
        if (d->rc == 0 &&
            (len == 0 || len > LIMIT_RECORD_BYTES || len > dec_left(d) || epoch < before ||
             epoch == 0 || epoch > m->epoch || (epoch == m->epoch) != (m->index + i + 1 > m->last)))
            dec_fail(d, ERR_MALFORMED);
        if (d->rc == 0)
            d->at += len;
        before = epoch;
    }
}

int replica_msg_decode(struct slice s, struct replica_msg *ret)
{
    if (s.len > REPLICA_MESSAGE_BYTES)
        return ERR_TOO_BIG;
    struct dec d = dec_of(s);
    struct replica_msg m = {0};
    uint8_t zero[3];
    uint16_t magic = dec_u16(&d);
    uint8_t version = dec_u8(&d);
    m.kind = dec_u8(&d);
    m.flags = dec_u8(&d);
    dec_raw(&d, zero, sizeof zero);
    m.epoch = dec_u64(&d);
    m.node = dec_u64(&d);
    m.life = dec_u64(&d);
    m.seq = dec_u64(&d);
    m.index = dec_u64(&d);
    m.index_epoch = dec_u64(&d);
    m.hint = dec_u64(&d);
    m.last = dec_u64(&d);
    m.commit = dec_u64(&d);
    m.count = dec_u32(&d);
    if (d.rc == 0 && magic == MAGIC && version != VERSION)
        return ERR_VERSION;
    /* Indexes far below the end of their range: sums with counts cannot wrap. */
    if (magic != MAGIC || m.kind == 0 || m.kind >= REPLICA_MSG_KIND_END ||
        (m.flags & ~REPLICA_FLAGS_ALL) != 0 || (zero[0] | zero[1] | zero[2]) != 0 || m.epoch == 0 ||
        m.epoch >= UINT64_MAX / 2 || m.node == 0 || m.index_epoch > m.epoch ||
        (m.index | m.hint | m.last | m.commit) >= UINT64_MAX / 2)
        dec_fail(&d, ERR_MALFORMED);
    if (d.rc == 0)
        m.records = slice_of(d.at, dec_left(&d));
    records_check(&d, &m);
    int rc = dec_end(&d);
    if (rc == 0)
        *ret = m;
    return rc;
}

struct replica_item replica_item_next(struct slice *at)
{
    struct dec d = dec_of(*at);
    struct replica_item item = {.epoch = dec_u64(&d)};
    uint32_t len = dec_u32(&d);
    item.payload = slice_of(d.at, MIN((size_t)len, dec_left(&d)));
    *at = slice_of(d.at + item.payload.len, dec_left(&d) - item.payload.len);
    return item;
}

void replica_records_begin(struct buf *b)
{
    buf_clear(b);
}

bool replica_records_add(struct buf *b, uint64_t epoch, struct slice payload)
{
    if (b->len > 0 && b->len + ITEM_BYTES + payload.len > REPLICA_BATCH_BYTES)
        return false;
    enc_u64(b, epoch);
    enc_u32(b, (uint32_t)payload.len);
    enc_raw(b, payload.ptr, payload.len);
    return true;
}
