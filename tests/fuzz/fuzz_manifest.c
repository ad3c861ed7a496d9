/* Manifest nodes: the decoder takes only canonical bytes, and reading trees of arbitrary nodes ends
 * and stays in bounds. Input: size of the file, then nodes, each with the byte it is named by. */
#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"
#include "data/manifest_int.h"
#include "tests/fuzz/fuzz.h"

static struct chunk_id named(uint8_t name)
{
    struct chunk_id id;
    memset(id.b, name, sizeof id.b);
    return id;
}

static void check_canonical(struct slice plain)
{
    struct chunk_id id = named(1);
    struct node *n = NULL;
    if (node_decode(&id, plain, &n) != 0)
        return;
    struct subtree children[MANIFEST_FANOUT];
    uint64_t blocks = 0;
    for (unsigned i = 0; i < MANIFEST_FANOUT; i++) {
        children[i] = node_child(n, i);
        blocks += children[i].blocks;
    }
    ASSERT_EQ(blocks, n->blocks);
    struct buf again = {0};
    node_encode(n->level, children, &again);
    ASSERT(slice_equal(buf_slice(&again), plain));
    buf_deinit(&again);
    mem_free(n);
}

struct budget {
    uint64_t visits;
};
static enum manifest_visit
visit(void *ctx, const struct chunk_id *id, unsigned level, uint64_t block)
{
    struct budget *b = ctx;
    (void)id;
    (void)level;
    (void)block;
    return ++b->visits > 2000 ? MANIFEST_VISIT_STOP : MANIFEST_VISIT_GO;
}

static void read_tree(struct node_cache *c, const struct manifest *m, uint64_t at)
{
    struct chunk_ids missing = {0};
    struct chunk_id ids[300];
    uint64_t found = 0;
    int rc = manifest_lookup(c, m, at, ARRAY_COUNT(ids), ids, &missing);
    if (rc == ERR_AGAIN || rc == 0)
        ASSERT((rc == ERR_AGAIN) == (missing.count != 0));
    rc = manifest_seek(c, m, at, MANIFEST_SEEK_DATA, &found, &missing);
    if (rc == 0)
        ASSERT(found <= manifest_blocks(m));
    rc = manifest_seek(c, m, at, MANIFEST_SEEK_HOLE, &found, &missing);
    if (rc == 0)
        ASSERT(found <= manifest_blocks(m));
    rc = manifest_data_blocks(c, m, &found, &missing);
    if (rc == 0)
        ASSERT(found <= (uint64_t)1 << 48);
    struct budget budget = {0};
    uint64_t cursor = at;
    rc = manifest_walk(c, m, &cursor, 4, visit, &budget, &missing);
    if (rc == ERR_AGAIN)
        ASSERT(missing.count != 0 && missing.count <= 4);
    chunk_ids_deinit(&missing);
}

static int put_nowhere(void *ctx, const struct chunk_id *id, struct slice sealed)
{
    (void)ctx;
    (void)id;
    (void)sealed;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pipeline *pipeline;
    if (pipeline == NULL) {
        struct fs_keys keys;
        fs_keys_derive((const uint8_t[FS_KEY_BYTES]){1}, &keys);
        int rc = pipeline_new(&pipeline, &keys, CHUNK_CIPHER_AUTO);
        ASSERT_EQ(rc, 0);
    }
    check_canonical(slice_of(data, size));
    struct dec d = dec_of(slice_of(data, size));
    struct manifest m = {.root = named(1), .block_bytes = MANIFEST_BLOCK_BYTES_MIN};
    m.size = dec_u64(&d) >> dec_u8(&d) % 50;
    uint64_t at = dec_varint(&d);
    struct node_cache *c = NULL;
    int rc = node_cache_new(&c);
    ASSERT_EQ(rc, 0);
    while (dec_left(&d) > 0 && d.rc == 0) {
        struct chunk_id id = named(dec_u8(&d));
        struct slice node = dec_bytes(&d, MANIFEST_NODE_BYTES_MAX);
        check_canonical(node);
        rc = node_cache_put(c, &id, node);
        ASSERT(rc == 0 || rc == ERR_MALFORMED);
    }
    if (manifest_validate(&m) == 0) {
        read_tree(c, &m, at % (manifest_blocks(&m) + 1));
        struct chunk_ids missing = {0};
        struct manifest ret;
        rc = manifest_update(c, pipeline, &m, m.block_bytes, m.size / 3, NULL, 0, put_nowhere, NULL,
                             &ret, &missing);
        if (rc == 0)
            ASSERT_EQ(manifest_validate(&ret), 0);
        chunk_ids_deinit(&missing);
    }
    node_cache_free(c);
    return 0;
}
