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
    KIND_MS_OF_TIME = 16,
    KIND_FIRST = 32,
    KIND_MASK = 63,
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
    body_memory_deinit(&m->body);
    buf_deinit(&m->out.shapes);
    buf_deinit(&m->out.nums);
    buf_deinit(&m->out.text);
    *m = (struct batch_memory){0};
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

static void head_encode(const struct op_head *h, struct buf *out)
{
    mp_array(out, 6);
    mp_uint(out, h->shard);
    mp_uint(out, h->site);
    mp_uint(out, h->seq);
    mp_uint(out, h->hlc);
    mp_int(out, h->time_ns);
}

static bool head_read(struct slice op, struct op_head *ret, size_t *ret_len)
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
head_split(struct slice op, struct op_head *ret, struct slice *ret_body, struct buf *scratch)
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

static uint64_t ms_of(int64_t time_ns)
{
    return (uint64_t)time_ns / NS_PER_MS;
}

static void item_encode_raw(struct batch_memory *m, const struct batch_item *item, struct buf *out)
{
    enc_u8(out, KIND_RAW);
    enc_varint(&m->out.nums, item->shard);
    enc_varint(&m->out.nums, item->op.len);
    enc_raw(&m->out.text, item->op.ptr, item->op.len);
}

static void head_numbers_encode(struct batch_memory *m,
                                const struct op_head *h,
                                uint32_t site_idx,
                                bool site_new,
                                struct buf *out)
{
    struct buf *nums = &m->out.nums;
    uint64_t *seq = &m->seqs[site_idx][h->shard];
    uint64_t ms = h->hlc >> HLC_COUNTER_BITS, counter = h->hlc & ((1u << HLC_COUNTER_BITS) - 1);
    unsigned kind = (h->shard == m->shard ? KIND_SAME_SHARD : 0u) |
                    (!site_new && site_idx == m->site_idx ? KIND_SAME_SITE : 0u) |
                    (h->seq == *seq + 1 ? KIND_NEXT_SEQ : 0u) |
                    (ms == ms_of(h->time_ns) ? KIND_MS_OF_TIME : 0u) |
                    (counter == 0 ? KIND_FIRST : 0u);
    enc_u8(out, (uint8_t)kind);
    if ((kind & KIND_SAME_SHARD) == 0)
        enc_varint(nums, h->shard);
    if ((kind & KIND_SAME_SITE) == 0)
        enc_varint(nums, site_idx);
    if (site_new)
        enc_varint(nums, h->site);
    if ((kind & KIND_NEXT_SEQ) == 0)
        enc_varint(nums, zigzag(*seq, h->seq));
    enc_varint(nums, zigzag((uint64_t)m->time_ns, (uint64_t)h->time_ns));
    if ((kind & KIND_MS_OF_TIME) == 0)
        enc_varint(nums, zigzag(ms_of(h->time_ns), ms));
    if ((kind & KIND_FIRST) == 0)
        enc_varint(nums, counter);
    m->shard = (shard_id_t)h->shard;
    m->site_idx = site_idx;
    m->time_ns = h->time_ns;
    m->hlc = h->hlc;
    *seq = h->seq;
}

/* Appends the kind to `out`, all else to the columns. */
static void item_encode(struct batch_memory *m,
                        const struct batch_item *item,
                        struct buf *out,
                        struct buf *scratch)
{
    struct op_head h;
    struct slice body;
    bool split = head_split(item->op, &h, &body, scratch) && h.shard == item->shard;
    uint32_t site_idx = split ? site_find(m, (site_id_t)h.site) : 0;
    if (!split || site_idx == SITE_COUNT_MAX || !body_is_canonical(body)) {
        item_encode_raw(m, item, out);
        return;
    }
    bool site_new = site_idx == m->site_count;
    if (site_new)
        site_add(m, (site_id_t)h.site);
    head_numbers_encode(m, &h, site_idx, site_new, out);
    body_encode(&m->body, &h, body, &m->out);
}

void batch_encode(struct batch_memory *m, const struct batch *b, struct buf *out, struct buf *noise)
{
    ASSERT(b->count <= BATCH_ITEMS_MAX);
    enc_varint(out, b->number - m->number);
    enc_u8(out, b->barrier ? BATCH_FLAG_BARRIER : 0);
    m->number = b->number;
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
    struct buf scratch = {0};
    buf_clear(&m->out.shapes);
    buf_clear(&m->out.nums);
    buf_clear(&m->out.text);
    m->out.noise = *noise;
    enc_varint(out, b->count);
    for (uint32_t i = 0; i < b->count; i++)
        item_encode(m, &b->items[i], out, &scratch);
    enc_varint(&m->out.nums, zigzag(m->hlc, b->hlc));
    m->hlc = b->hlc;
    *noise = m->out.noise;
    m->out.noise = (struct buf){0};
    enc_bytes(out, buf_slice(&m->out.shapes));
    enc_bytes(out, buf_slice(&m->out.nums));
    enc_raw(out, m->out.text.ptr, m->out.text.len);
    buf_deinit(&scratch);
}

/* --- decoding --- */

static void head_site_decode(struct batch_memory *m, uint8_t kind, struct dec *d, uint32_t *ret)
{
    uint64_t idx = (kind & KIND_SAME_SITE) != 0 ? m->site_idx : dec_varint(d);
    if (d->rc == 0 && idx == m->site_count && idx < SITE_COUNT_MAX) {
        uint64_t site = dec_varint(d);
        if (site == 0 || site > UINT32_MAX || site_find(m, (site_id_t)site) != m->site_count)
            dec_fail(d, ERR_MALFORMED);
        else if (d->rc == 0)
            site_add(m, (site_id_t)site);
    }
    if (idx >= m->site_count)
        dec_fail(d, ERR_MALFORMED);
    *ret = (uint32_t)idx;
}

static void head_decode(struct batch_memory *m, uint8_t kind, struct dec *d, struct op_head *ret)
{
    uint32_t site_idx;
    *ret = (struct op_head){.shard = (kind & KIND_SAME_SHARD) != 0 ? m->shard : dec_varint(d)};
    if (ret->shard >= m->shard_count)
        dec_fail(d, ERR_MALFORMED);
    head_site_decode(m, kind, d, &site_idx);
    if (d->rc != 0)
        return;
    ret->site = m->sites[site_idx];
    uint64_t *seq = &m->seqs[site_idx][ret->shard];
    ret->seq = (kind & KIND_NEXT_SEQ) != 0 ? *seq + 1 : unzigzag(*seq, dec_varint(d));
    ret->time_ns = (int64_t)unzigzag((uint64_t)m->time_ns, dec_varint(d));
    uint64_t ms = ms_of(ret->time_ns);
    if ((kind & KIND_MS_OF_TIME) == 0)
        ms = unzigzag(ms, dec_varint(d));
    uint64_t counter = (kind & KIND_FIRST) != 0 ? 0 : dec_varint(d);
    if (counter >> HLC_COUNTER_BITS != 0 || ms >> (64 - HLC_COUNTER_BITS) != 0)
        dec_fail(d, ERR_MALFORMED);
    if (d->rc != 0)
        return;
    ret->hlc = ms << HLC_COUNTER_BITS | counter;
    m->shard = (shard_id_t)ret->shard;
    m->site_idx = site_idx;
    m->time_ns = ret->time_ns;
    m->hlc = ret->hlc;
    *seq = ret->seq;
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

/* An operation that travels as it is. */
static int raw_decode(struct batch_memory *m,
                      struct body_in *in,
                      struct batch_item *item,
                      struct op_head *ret_head,
                      struct buf *out)
{
    uint64_t shard = dec_varint(&in->nums), len = dec_varint(&in->nums);
    if (shard >= m->shard_count)
        dec_fail(&in->nums, ERR_MALFORMED);
    if (len > LIMIT_OP_BYTES)
        dec_fail(&in->nums, ERR_TOO_BIG);
    if (len > dec_left(&in->text))
        dec_fail(&in->nums, ERR_TRUNCATED);
    if (in->nums.rc != 0)
        return in->nums.rc;
    struct slice op = slice_of(in->text.at, (size_t)len);
    size_t head_len;
    in->text.at += len;
    buf_append(out, op.ptr, op.len);
    item->shard = (shard_id_t)shard;
    if (!head_read(op, ret_head, &head_len))
        *ret_head = (struct op_head){.site = 0};
    return 0;
}

/* Appends one operation to `bytes`, whose address may still move: the item gets its length only. */
static int item_decode(struct batch_memory *m,
                       uint8_t kind,
                       struct body_in *in,
                       struct buf *bytes,
                       struct batch_item *ret)
{
    struct op_head h;
    size_t start = bytes->len;
    int rc = 0;
    *ret = (struct batch_item){.shard = 0};
    if ((kind & ~KIND_MASK) != 0 || ((kind & KIND_RAW) != 0 && kind != KIND_RAW))
        return ERR_MALFORMED;
    if (kind == KIND_RAW) {
        rc = raw_decode(m, in, ret, &h, bytes);
    } else {
        head_decode(m, kind, &in->nums, &h);
        rc = in->nums.rc;
        if (rc == 0) {
            ret->shard = (shard_id_t)h.shard;
            head_encode(&h, bytes);
            rc = body_decode(&m->body, &h, in, LIMIT_OP_BYTES, bytes);
        }
    }
    if (rc == 0 && bytes->len > BATCH_DECODED_MAX)
        rc = ERR_TOO_BIG;
    if (rc != 0)
        return rc;
    ret->op.len = bytes->len - start;
    if (h.site == 0)
        return 0; /* no head that can be read */
    ret->hlc = h.hlc;
    ret->dot = (struct dot){.seq = h.seq, .site = (site_id_t)h.site, .shard = (shard_id_t)h.shard};
    return 0;
}

static int items_decode(struct batch_memory *m,
                        struct slice kinds,
                        struct body_in *in,
                        struct batch_decoded *ret)
{
    for (size_t i = 0; i < kinds.len; i++) {
        int rc = item_decode(m, kinds.ptr[i], in, &ret->bytes, &ret->batch.items[i]);
        if (rc != 0)
            return rc;
    }
    size_t at = 0;
    for (size_t i = 0; i < kinds.len; i++) {
        ret->batch.items[i].op.ptr = ret->bytes.ptr + at;
        at += ret->batch.items[i].op.len;
    }
    m->hlc = ret->batch.hlc = unzigzag(m->hlc, dec_varint(&in->nums));
    if (in->nums.rc != 0)
        return in->nums.rc;
    bool all =
        dec_left(&in->shapes) + dec_left(&in->nums) + dec_left(&in->text) + dec_left(&in->noise) ==
        0;
    return all ? 0 : ERR_MALFORMED;
}

int batch_decode(struct batch_memory *m,
                 struct slice in,
                 struct slice noise,
                 struct batch_decoded *ret)
{
    struct dec d = dec_of(in);
    struct batch_item *items = ret->batch.items;
    ret->batch = (struct batch){.items = items};
    buf_clear(&ret->bytes);
    m->number += dec_varint(&d);
    ret->batch.number = m->number;
    uint8_t flags = dec_u8(&d);
    if ((flags & ~BATCH_FLAG_BARRIER) != 0)
        dec_fail(&d, ERR_MALFORMED);
    ret->batch.barrier = (flags & BATCH_FLAG_BARRIER) != 0;
    cursors_decode(m, &d, &ret->batch);
    uint64_t count = dec_varint(&d);
    if (count > BATCH_ITEMS_MAX)
        dec_fail(&d, ERR_LIMIT);
    if (d.rc == 0 && count > dec_left(&d))
        dec_fail(&d, ERR_TRUNCATED);
    if (d.rc != 0)
        return d.rc;
    struct slice kinds = slice_of(d.at, (size_t)count);
    d.at += count;
    struct body_in columns = {.shapes = dec_of(dec_bytes(&d, in.len))};
    columns.nums = dec_of(dec_bytes(&d, in.len));
    columns.text = dec_of(slice_of(d.at, dec_left(&d)));
    columns.noise = dec_of(noise);
    if (d.rc != 0)
        return d.rc;
    items_reserve(ret, count);
    int rc = items_decode(m, kinds, &columns, ret);
    if (rc == 0)
        ret->batch.count = (uint32_t)count;
    return rc;
}

void batch_decoded_deinit(struct batch_decoded *b)
{
    mem_free(b->batch.items);
    buf_deinit(&b->bytes);
    *b = (struct batch_decoded){0};
}
