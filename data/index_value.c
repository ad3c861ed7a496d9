/* Values of a store's index. See data/index_value.h. */
#include "data/index_value.h"

#include "base/assert.h"
#include "base/codec.h"
#include "data/store_format.h"

#define INDEX_VERSION 2u /* 1 did not know lengths before compression */

void index_entry_encode(const struct store_entry *e, struct buf *out)
{
    ASSERT(e->segment != 0);
    enc_u64(out, e->segment);
    enc_u64(out, e->epoch);
    enc_u32(out, e->offset);
    enc_u32(out, e->len);
    enc_u32(out, e->plain_len);
}

int index_entry_decode(struct slice value, struct store_entry *ret)
{
    struct dec d = dec_of(value);
    struct store_entry e = {.segment = dec_u64(&d)};
    e.epoch = dec_u64(&d);
    e.offset = dec_u32(&d);
    e.len = dec_u32(&d);
    e.plain_len = dec_left(&d) > 0 ? dec_u32(&d) : e.len; /* of version 1 */
    if (dec_end(&d) != 0 || e.segment == 0)
        return ERR_CORRUPT;
    *ret = e;
    return 0;
}

void index_stat_encode(const struct segment_stat *s, struct buf *out)
{
    enc_u64(out, s->end);
    enc_u64(out, s->live_bytes);
    enc_u64(out, s->live_count);
    enc_u64(out, s->plain_bytes);
}

int index_stat_decode(struct slice value, struct segment_stat *ret)
{
    struct dec d = dec_of(value);
    struct segment_stat s = {.end = dec_u64(&d)};
    s.live_bytes = dec_u64(&d);
    s.live_count = dec_u64(&d);
    bool has_plain = dec_left(&d) > 0;
    if (has_plain)
        s.plain_bytes = dec_u64(&d);
    if (dec_end(&d) != 0 || (!has_plain && s.live_count > s.live_bytes / STORE_RECORD_HEADER_BYTES))
        return ERR_CORRUPT;
    /* Version 1 has no more: not less than what its entries are taken for. */
    if (!has_plain)
        s.plain_bytes = s.live_bytes - STORE_RECORD_HEADER_BYTES * s.live_count;
    *ret = s;
    return 0;
}

void index_meta_encode(const struct index_meta *m, struct buf *out)
{
    enc_u32(out, INDEX_VERSION);
    enc_u64(out, m->segment);
    enc_u64(out, m->offset);
    enc_u64(out, m->epoch);
    enc_u64(out, m->next_segment);
    enc_raw(out, m->store_id, sizeof m->store_id);
}

int index_meta_decode(struct slice value, struct index_meta *ret)
{
    struct dec d = dec_of(value);
    uint32_t version = dec_u32(&d);
    struct index_meta m = {.segment = dec_u64(&d)};
    m.offset = dec_u64(&d);
    m.epoch = dec_u64(&d);
    m.next_segment = dec_u64(&d);
    dec_raw(&d, m.store_id, sizeof m.store_id);
    if (version < 1 || version > INDEX_VERSION)
        return ERR_VERSION;
    if (dec_end(&d) != 0)
        return ERR_CORRUPT;
    *ret = m;
    return 0;
}
