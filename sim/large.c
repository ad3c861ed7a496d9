/* Contents made of chunks. See large.h. */
#include "sim/large.h"

#include <string.h>

#include "base/assert.h"
#include "sim/ledger.h"
#include "site/proto.h"

#define BLOCK MANIFEST_BLOCK_BYTES_MIN
#define OWN_BYTES 200u   /* of the first block */
#define SHARED_BYTES 48u /* of the others */
#define SHARED_KINDS 3u

/* The bytes of a block before its zeros: at most OWN_BYTES. */
static size_t block_fill(uint64_t number, uint64_t block, uint8_t out[OWN_BYTES])
{
    if (block > 0) {
        memset(out, (int)(1 + number % SHARED_KINDS), SHARED_BYTES);
        out[0] = (uint8_t)block;
        return SHARED_BYTES;
    }
    memset(out, (int)(1 + number % 251), OWN_BYTES);
    ledger_write(number, out);
    return OWN_BYTES;
}

struct making {
    struct large_row *row;
    struct buf *riders;
};

static int take_chunk(void *ctx, const struct chunk_id *id, struct slice sealed)
{
    struct making *m = ctx;
    chunk_ids_add(&m->row->ids, id);
    rider_append(m->riders, id->b, sealed);
    return 0;
}

static void open_keys(struct large *l, struct node *n)
{
    struct fs_keys keys;
    if (l->pipeline != NULL)
        return;
    fs_keys_derive(node_fs_key(n), &keys);
    /* One cipher, whatever this machine has: the same seed gives the same run everywhere. */
    int rc = pipeline_new(&l->pipeline, &keys, CHUNK_CIPHER_XCHACHA);
    ASSERT(rc == 0);
    rc = node_cache_new(&l->nodes);
    ASSERT(rc == 0);
    fs_keys_wipe(&keys);
}

static void blocks_make(struct large *l, struct making *m, struct manifest *ret)
{
    struct chunk_id ids[LARGE_BLOCKS_MAX];
    struct chunk_ids missing = {0};
    struct buf sealed = {0};
    uint64_t count = (m->row->size + BLOCK - 1) / BLOCK;
    for (uint64_t i = 0; i < count; i++) {
        uint8_t bytes[OWN_BYTES];
        size_t len = MIN(block_fill(m->row->number, i, bytes), m->row->size - i * BLOCK);
        buf_clear(&sealed);
        int rc = chunk_seal(l->pipeline, slice_of(bytes, len), &sealed, &ids[i]);
        ASSERT(rc == 0);
        rc = take_chunk(m, &ids[i], buf_slice(&sealed));
        ASSERT(rc == 0);
    }
    const struct manifest_extent all = {
        .kind = MANIFEST_EXTENT_IDS, .first = 0, .count = count, .ids = ids};
    int rc = manifest_update(l->nodes, l->pipeline, NULL, BLOCK, m->row->size, &all, 1, take_chunk,
                             m, ret, &missing);
    ASSERT(rc == 0);
    chunk_ids_deinit(&missing);
    buf_deinit(&sealed);
}

void large_make(struct large *l,
                struct node *n,
                uint64_t number,
                uint64_t size,
                struct content *ret,
                struct buf *riders)
{
    struct manifest manifest;
    ASSERT(size > LIMIT_INLINE_BYTES && size <= LARGE_BYTES_MAX);
    open_keys(l, n);
    if (l->count == l->cap) {
        l->cap = l->cap * 2 + 64;
        l->rows = mem_realloc(l->rows, l->cap * sizeof l->rows[0]);
    }
    struct large_row *row = &l->rows[l->count++];
    *row = (struct large_row){.number = number, .size = size};
    struct making m = {.row = row, .riders = riders};
    buf_clear(riders);
    blocks_make(l, &m, &manifest);
    node_cache_trim(l->nodes, 0);
    memcpy(row->root, manifest.root.b, sizeof row->root);
    *ret = (struct content){
        .kind = CONTENT_MANIFEST, .size = size, .block_bytes = manifest.block_bytes};
    memcpy(ret->root, row->root, sizeof ret->root);
}

const struct large_row *large_find(const struct large *l, const uint8_t root[32])
{
    for (size_t i = l->count; i > 0; i--)
        if (memcmp(l->rows[i - 1].root, root, sizeof l->rows[0].root) == 0)
            return &l->rows[i - 1];
    return NULL;
}

bool large_is(const struct large_row *row, struct slice bytes)
{
    if (bytes.len != row->size)
        return false;
    for (uint64_t at = 0; at < row->size; at += BLOCK) {
        static const uint8_t zeros[BLOCK];
        uint8_t expected[OWN_BYTES];
        size_t here = (size_t)MIN((uint64_t)BLOCK, row->size - at);
        size_t len = MIN(block_fill(row->number, at / BLOCK, expected), here);
        if (memcmp(bytes.ptr + at, expected, len) != 0 ||
            memcmp(bytes.ptr + at + len, zeros, here - len) != 0)
            return false;
    }
    return true;
}

struct slice large_key(const struct content *c)
{
    return c->kind == CONTENT_MANIFEST ? slice_of(c->root, sizeof c->root) : c->bytes;
}

void large_deinit(struct large *l)
{
    for (size_t i = 0; i < l->count; i++)
        chunk_ids_deinit(&l->rows[i].ids);
    mem_free(l->rows);
    node_cache_free(l->nodes);
    pipeline_free(l->pipeline);
    memset(l, 0, sizeof *l);
}
