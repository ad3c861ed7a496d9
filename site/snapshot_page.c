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
pairs_decode(struct mp *in, uint32_t values, unsigned shard_count, struct snapshot_page *p)
{
    p->shard = (unsigned)mp_get_uint(in, shard_count - 1);
    p->count = (uint32_t)mp_get_uint(in, PAGE_PAIRS_MAX);
    if (in->rc == 0 && values != 3 + 2 * p->count)
        mp_fail(in, ERR_MALFORMED);
    if (in->rc != 0)
        return in->rc;
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

int snapshot_page_decode(struct slice page,
                         unsigned shard_count,
                         struct snapshot_page *ret,
                         unsigned *ret_shards)
{
    struct mp in = mp_of(page);
    struct snapshot_page p = {.pairs = NULL};
    ASSERT(shard_count >= 1 && shard_count <= SHARD_COUNT_MAX);
    uint32_t values = mp_get_array(&in, 3 + 2 * PAGE_PAIRS_MAX);
    p.kind = mp_get_uint(&in, PAGE_PAIRS) == PAGE_PAIRS ? PAGE_PAIRS : PAGE_HEADER;
    int rc = in.rc;
    if (rc == 0)
        rc = p.kind == PAGE_HEADER ? header_decode(&in, shard_count, &p)
                                   : pairs_decode(&in, values, shard_count, &p);
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
    p->pairs = NULL;
    p->count = 0;
}
