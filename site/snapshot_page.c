/* Pages of a snapshot. See site/snapshot_page.h. */
#include "site/snapshot_page.h"

#include "base/assert.h"
#include "base/limits.h"

bool snapshot_travels(struct slice key)
{
    if (key.len == 0)
        return false;
    switch (key.ptr[0]) {
    case SHARD_KEY_ORPHAN:
    case SHARD_KEY_RESULT:
    case SHARD_KEY_ACKED:
    case SHARD_KEY_NODE:
        return false;
    default:
        return true;
    }
}

void snapshot_header_encode(const uint64_t *index, unsigned shard_count, struct buf *out)
{
    mp_array(out, 3);
    mp_uint(out, PAGE_HEADER);
    mp_uint(out, shard_count);
    mp_array(out, shard_count);
    for (unsigned i = 0; i < shard_count; i++)
        mp_uint(out, index[i]);
}

void snapshot_pairs_encode(unsigned shard, uint32_t count, struct slice pairs, struct buf *out)
{
    mp_array(out, 3 + 2 * count);
    mp_uint(out, PAGE_PAIRS);
    mp_uint(out, shard);
    mp_uint(out, count);
    buf_append(out, pairs.ptr, pairs.len);
}

void snapshot_past_encode(unsigned shard, uint32_t count, struct slice past, struct buf *out)
{
    mp_array(out, 3 + 2 * count);
    mp_uint(out, PAGE_PAST);
    mp_uint(out, shard);
    mp_uint(out, count);
    buf_append(out, past.ptr, past.len);
}

static int header_decode(struct mp *in, unsigned shard_count, struct snapshot_page *p)
{
    p->shard_count = (unsigned)mp_get_uint(in, SHARD_COUNT_MAX);
    if (in->rc == 0 && p->shard_count != shard_count)
        return ERR_CONFIG;
    uint32_t count = mp_get_array(in, SHARD_COUNT_MAX);
    if (count != p->shard_count)
        return ERR_MALFORMED;
    for (uint32_t i = 0; i < count; i++)
        p->index[i] = mp_get_uint(in, UINT64_MAX - 1);
    return mp_end(in);
}

/* values: of the page. There are no more than the page has bytes. */
static int
count_decode(struct mp *in, uint32_t values, unsigned shard_count, struct snapshot_page *p)
{
    p->shard = (unsigned)mp_get_uint(in, shard_count - 1);
    p->count = (uint32_t)mp_get_uint(in, PAGE_PAIRS_MAX);
    if (in->rc == 0 && values != 3 + 2 * p->count)
        mp_fail(in, ERR_MALFORMED);
    return in->rc;
}

static int pairs_decode(struct mp *in, struct snapshot_page *p)
{
    p->pairs = mem_calloc(p->count + 1, sizeof *p->pairs);
    for (uint32_t i = 0; i < p->count; i++) {
        p->pairs[i].key = mp_get_bin(in, LIMIT_RECORD_BYTES);
        p->pairs[i].value = mp_get_bin(in, LIMIT_RECORD_BYTES);
        if (p->pairs[i].value.ptr == NULL)
            p->pairs[i].value.ptr = (const uint8_t *)"";
        if (in->rc == 0 && !snapshot_travels(p->pairs[i].key))
            mp_fail(in, ERR_MALFORMED);
    }
    return mp_end(in);
}

/* Streams read these: what they take for granted is looked at here. */
static int past_decode(struct mp *in, struct snapshot_page *p)
{
    struct op_arena arena = {0};
    struct op op;
    uint64_t before = 0;
    p->past = mem_calloc(p->count + 1, sizeof *p->past);
    for (uint32_t i = 0; i < p->count && in->rc == 0; i++) {
        struct past_op *at = &p->past[i];
        at->commit_hlc = mp_get_uint(in, UINT64_MAX);
        at->op = mp_get_bin(in, LIMIT_OP_BYTES);
        if (in->rc == 0 && (op_decode(at->op, &arena, &op) != 0 || op.dot.shard != p->shard ||
                            at->commit_hlc < before))
            mp_fail(in, ERR_MALFORMED);
        before = at->commit_hlc;
        op_arena_reset(&arena);
    }
    op_arena_deinit(&arena);
    return mp_end(in);
}

int snapshot_page_decode(struct slice page,
                         unsigned shard_count,
                         struct snapshot_page *ret,
                         unsigned *ret_shards)
{
    struct mp in = mp_of(page);
    struct snapshot_page p = {.pairs = NULL};
    ASSERT(shard_count >= 1 && shard_count <= SHARD_COUNT_MAX);
    uint32_t values = mp_get_array(&in, 3 + 2 * PAGE_PAIRS_MAX);
    p.kind = (enum page_kind)mp_get_uint(&in, PAGE_PAST); /* 0 after an error */
    int rc = in.rc;
    if (rc == 0 && p.kind == PAGE_HEADER)
        rc = header_decode(&in, shard_count, &p);
    else if (rc == 0)
        rc = count_decode(&in, values, shard_count, &p);
    if (rc == 0 && p.kind == PAGE_PAIRS)
        rc = pairs_decode(&in, &p);
    if (rc == 0 && p.kind == PAGE_PAST)
        rc = past_decode(&in, &p);
    if (rc == ERR_CONFIG)
        *ret_shards = p.shard_count;
    if (rc == 0)
        *ret = p;
    else
        snapshot_page_deinit(&p);
    return rc;
}

void snapshot_page_deinit(struct snapshot_page *p)
{
    mem_free(p->pairs);
    mem_free(p->past);
    p->pairs = NULL;
    p->past = NULL;
    p->count = 0;
}
