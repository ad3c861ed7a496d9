/* Batch codec; the layout is in batch.h. */
#include "wan/batch.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/mp.h"

enum {
    KIND_RAW = 1,
    KIND_SAME_SHARD = 2,
    KIND_SAME_SITE = 4,
    KIND_NEXT_SEQ = 8,
    KIND_SAME_MS = 16,
    KIND_MASK = 31,
    HLC_COUNTER_BITS = 16
};

void batch_memory_init(struct batch_memory *m, unsigned shard_count)
{
    ASSERT(shard_count > 0 && shard_count <= SHARD_COUNT_MAX);
    *m = (struct batch_memory){.shard_count = shard_count};
}

void batch_memory_deinit(struct batch_memory *m)
{
    for (uint32_t i = 0; i < m->site_count; i++)
        mem_free(m->seqs[i]);
    *m = (struct batch_memory){0};
}

static uint64_t zigzag(uint64_t from, uint64_t to)
{
    uint64_t diff = to - from; /* wraps; the reader wraps back */
    return diff << 1 ^ (uint64_t) - (int64_t)(diff >> 63);
}

static uint64_t unzigzag(uint64_t from, uint64_t coded)
{
    return from + (coded >> 1 ^ (uint64_t) - (int64_t)(coded & 1));
}

/* The index of a site, or site_count when it is new. */
static uint32_t site_find(const struct batch_memory *m, site_id_t site)
{
    uint32_t i = 0;
    while (i < m->site_count && m->sites[i] != site)
        i++;
    return i;
}

static void site_add(struct batch_memory *m, site_id_t site)
{
    ASSERT(m->site_count < SITE_COUNT_MAX);
    m->sites[m->site_count] = site;
    m->seqs[m->site_count] = mem_calloc(m->shard_count, sizeof(uint64_t));
    m->site_count++;
}

/* The head of an operation and the encoded effects behind it. */
struct head {
    uint64_t shard, site, seq, hlc;
    int64_t time_ns;
};

static void head_encode(const struct head *h, struct buf *out)
{
    mp_array(out, 6);
    mp_uint(out, h->shard);
    mp_uint(out, h->site);
    mp_uint(out, h->seq);
    mp_uint(out, h->hlc);
    mp_int(out, h->time_ns);
}

static bool head_read(struct slice op, struct head *ret, size_t *ret_len)
{
    struct mp m = mp_of(op);
    if (mp_get_array(&m, 6) != 6)
        return false;
    ret->shard = mp_get_uint(&m, UINT16_MAX);
    ret->site = mp_get_uint(&m, UINT32_MAX);
    ret->seq = mp_get_uint(&m, UINT64_MAX);
    ret->hlc = mp_get_uint(&m, UINT64_MAX);
    ret->time_ns = mp_get_int(&m);
    if (m.rc != 0 || ret->site == 0)
        return false;
    *ret_len = (size_t)(m.at - op.ptr);
    return true;
}

/* False when the bytes are not what head_encode would write: then they travel as they are. */
static bool
head_split(struct slice op, struct head *ret, struct slice *ret_body, struct buf *scratch)
{
    size_t head_len;
    if (!head_read(op, ret, &head_len))
        return false;
    buf_clear(scratch);
    head_encode(ret, scratch);
    if (!slice_equal(buf_slice(scratch), slice_of(op.ptr, head_len)))
        return false;
    *ret_body = slice_of(op.ptr + head_len, op.len - head_len);
    return true;
}

static uint64_t hlc_join(uint64_t ms, uint64_t counter)
{
    return ms << HLC_COUNTER_BITS | counter;
}

static void item_encode_raw(const struct batch_item *item, struct buf *heads, struct buf *bodies)
{
    enc_u8(heads, KIND_RAW);
    enc_varint(heads, item->shard);
    enc_varint(heads, item->op.len);
    enc_raw(bodies, item->op.ptr, item->op.len);
}

static void item_encode(struct batch_memory *m,
                        const struct batch_item *item,
                        struct buf *heads,
                        struct buf *bodies,
                        struct buf *scratch)
{
    struct head h;
    struct slice body;
    bool split = head_split(item->op, &h, &body, scratch) && h.shard == item->shard;
    uint32_t site_idx = split ? site_find(m, (site_id_t)h.site) : 0;
    if (!split || site_idx == SITE_COUNT_MAX) {
        item_encode_raw(item, heads, bodies);
        return;
    }
    bool site_new = site_idx == m->site_count;
    if (site_new)
        site_add(m, (site_id_t)h.site);
    uint64_t *seq = &m->seqs[site_idx][item->shard];
    uint64_t ms = h.hlc >> HLC_COUNTER_BITS;
    unsigned kind = (item->shard == m->shard ? KIND_SAME_SHARD : 0u) |
                    (!site_new && site_idx == m->site_idx ? KIND_SAME_SITE : 0u) |
                    (h.seq == *seq + 1 ? KIND_NEXT_SEQ : 0u) | (ms == m->ms ? KIND_SAME_MS : 0u);
    enc_u8(heads, (uint8_t)kind);
    if ((kind & KIND_SAME_SHARD) == 0)
        enc_varint(heads, item->shard);
    if ((kind & KIND_SAME_SITE) == 0)
        enc_varint(heads, site_idx);
    if (site_new)
        enc_u32(heads, (uint32_t)h.site);
    if ((kind & KIND_NEXT_SEQ) == 0)
        enc_varint(heads, zigzag(*seq, h.seq));
    if ((kind & KIND_SAME_MS) == 0)
        enc_varint(heads, zigzag(m->ms, ms));
    enc_varint(heads, h.hlc & ((1u << HLC_COUNTER_BITS) - 1));
    enc_varint(heads, zigzag(ms * NS_PER_MS, (uint64_t)h.time_ns));
    enc_varint(heads, body.len);
    enc_raw(bodies, body.ptr, body.len);
    m->shard = item->shard;
    m->site_idx = site_idx;
    m->ms = ms;
    *seq = h.seq;
}

void batch_encode(struct batch_memory *m, const struct batch *b, struct buf *out)
{
    ASSERT(b->count <= BATCH_ITEMS_MAX);
    enc_varint(out, b->number);
    enc_u8(out, b->barrier ? BATCH_FLAG_BARRIER : 0);
    enc_varint(out, zigzag(m->hlc, b->hlc));
    m->hlc = b->hlc;
    uint32_t cursors = 0;
    for (unsigned s = 0; s < m->shard_count; s++)
        cursors += b->cursor[s] != 0;
    enc_varint(out, cursors);
    for (unsigned s = 0; s < m->shard_count; s++) {
        if (b->cursor[s] == 0)
            continue;
        ASSERT(b->cursor[s] >= m->cursor[s]);
        enc_varint(out, s);
        enc_varint(out, b->cursor[s] - m->cursor[s]);
        m->cursor[s] = b->cursor[s];
    }
    struct buf bodies = {0}, scratch = {0};
    enc_varint(out, b->count);
    for (uint32_t i = 0; i < b->count; i++)
        item_encode(m, &b->items[i], out, &bodies, &scratch);
    enc_raw(out, bodies.ptr, bodies.len);
    buf_deinit(&scratch);
    buf_deinit(&bodies);
}

/* --- decoding --- */

/* What is known of an item before the bodies are reached. */
struct item_head {
    struct head head;
    bool raw;
    uint64_t body_len;
};

static void item_head_decode(struct batch_memory *m, struct dec *d, struct item_head *ret)
{
    uint8_t kind = dec_u8(d);
    *ret = (struct item_head){.raw = (kind & KIND_RAW) != 0};
    if ((kind & ~KIND_MASK) != 0 || (ret->raw && kind != KIND_RAW))
        dec_fail(d, ERR_MALFORMED);
    struct head *h = &ret->head;
    h->shard = (kind & KIND_SAME_SHARD) != 0 ? m->shard : dec_varint(d);
    if (h->shard >= m->shard_count)
        dec_fail(d, ERR_MALFORMED);
    if (ret->raw || d->rc != 0) {
        ret->body_len = dec_varint(d);
        return;
    }
    uint64_t site_idx = (kind & KIND_SAME_SITE) != 0 ? m->site_idx : dec_varint(d);
    if (d->rc == 0 && site_idx == m->site_count && site_idx < SITE_COUNT_MAX) {
        site_id_t site = dec_u32(d);
        if (site == 0 || site_find(m, site) != m->site_count)
            dec_fail(d, ERR_MALFORMED);
        else if (d->rc == 0)
            site_add(m, site);
    }
    if (site_idx >= m->site_count)
        dec_fail(d, ERR_MALFORMED);
    if (d->rc != 0)
        return;
    h->site = m->sites[site_idx];
    uint64_t *seq = &m->seqs[site_idx][h->shard];
    h->seq = (kind & KIND_NEXT_SEQ) != 0 ? *seq + 1 : unzigzag(*seq, dec_varint(d));
    uint64_t ms = (kind & KIND_SAME_MS) != 0 ? m->ms : unzigzag(m->ms, dec_varint(d));
    uint64_t counter = dec_varint(d);
    if (counter >> HLC_COUNTER_BITS != 0 || ms >> (64 - HLC_COUNTER_BITS) != 0)
        dec_fail(d, ERR_MALFORMED);
    h->hlc = hlc_join(ms, counter);
    h->time_ns = (int64_t)unzigzag(ms * NS_PER_MS, dec_varint(d));
    ret->body_len = dec_varint(d);
    if (d->rc != 0)
        return;
    m->shard = (shard_id_t)h->shard;
    m->site_idx = (uint32_t)site_idx;
    m->ms = ms;
    *seq = h->seq;
}

static void cursors_decode(struct batch_memory *m, struct dec *d, struct batch *b)
{
    uint64_t count = dec_varint(d), shard_next = 0;
    if (count > m->shard_count)
        dec_fail(d, ERR_MALFORMED);
    for (uint64_t i = 0; i < count && d->rc == 0; i++) {
        uint64_t shard = dec_varint(d), diff = dec_varint(d);
        if (shard >= m->shard_count || shard < shard_next)
            dec_fail(d, ERR_MALFORMED); /* in order, each once */
        if (d->rc != 0)
            return;
        shard_next = shard + 1;
        m->cursor[shard] += diff;
        if (m->cursor[shard] < diff || m->cursor[shard] == 0)
            dec_fail(d, ERR_MALFORMED);
        b->cursor[shard] = m->cursor[shard];
    }
}

static void items_reserve(struct batch_decoded *b, uint64_t count)
{
    if (count <= b->items_cap)
        return;
    b->items_cap = (uint32_t)count;
    b->batch.items = mem_realloc(b->batch.items, count * sizeof b->batch.items[0]);
}

/* Bodies follow all heads; ops are put together from both in `bytes`, whose address may still
 * move, so that items hold offsets until the end. */
static void bodies_decode(struct dec *d,
                          const struct item_head *heads,
                          uint64_t count,
                          struct batch_decoded *ret)
{
    for (uint64_t i = 0; i < count && d->rc == 0; i++) {
        const struct item_head *h = &heads[i];
        size_t start = ret->bytes.len;
        if (h->body_len > dec_left(d))
            dec_fail(d, ERR_TRUNCATED);
        if (h->body_len > LIMIT_OP_BYTES)
            dec_fail(d, ERR_TOO_BIG);
        if (d->rc != 0)
            return;
        if (!h->raw)
            head_encode(&h->head, &ret->bytes);
        buf_append(&ret->bytes, d->at, h->body_len);
        d->at += h->body_len;
        if (ret->bytes.len > BATCH_DECODED_MAX)
            dec_fail(d, ERR_TOO_BIG);
        struct slice op = slice_of(ret->bytes.ptr + start, ret->bytes.len - start);
        struct head head = h->head;
        size_t head_len;
        bool known = !h->raw || head_read(op, &head, &head_len);
        ret->batch.items[i] = (struct batch_item){.shard = (shard_id_t)h->head.shard, .op = op};
        if (!known)
            continue;
        ret->batch.items[i].hlc = head.hlc;
        ret->batch.items[i].dot = (struct dot){
            .seq = head.seq, .site = (site_id_t)head.site, .shard = (shard_id_t)head.shard};
    }
    size_t at = 0;
    for (uint64_t i = 0; i < count && d->rc == 0; i++) {
        ret->batch.items[i].op.ptr = ret->bytes.ptr + at;
        at += ret->batch.items[i].op.len;
    }
}

int batch_decode(struct batch_memory *m, struct slice in, struct batch_decoded *ret)
{
    struct dec d = dec_of(in);
    struct batch_item *items = ret->batch.items;
    ret->batch = (struct batch){.items = items};
    buf_clear(&ret->bytes);
    ret->batch.number = dec_varint(&d);
    uint8_t flags = dec_u8(&d);
    if ((flags & ~BATCH_FLAG_BARRIER) != 0)
        dec_fail(&d, ERR_MALFORMED);
    ret->batch.barrier = (flags & BATCH_FLAG_BARRIER) != 0;
    m->hlc = ret->batch.hlc = unzigzag(m->hlc, dec_varint(&d));
    cursors_decode(m, &d, &ret->batch);
    uint64_t count = dec_varint(&d);
    if (count > BATCH_ITEMS_MAX)
        dec_fail(&d, ERR_LIMIT);
    if (d.rc != 0)
        return d.rc;
    items_reserve(ret, count);
    struct item_head *heads = mem_calloc(MAX(count, 1), sizeof heads[0]);
    for (uint64_t i = 0; i < count && d.rc == 0; i++)
        item_head_decode(m, &d, &heads[i]);
    bodies_decode(&d, heads, count, ret);
    mem_free(heads);
    if (d.rc == 0)
        ret->batch.count = (uint32_t)count;
    return dec_end(&d);
}

void batch_decoded_deinit(struct batch_decoded *b)
{
    mem_free(b->batch.items);
    buf_deinit(&b->bytes);
    *b = (struct batch_decoded){0};
}
