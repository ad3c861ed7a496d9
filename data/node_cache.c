/* Manifest nodes: encoding, and the cache that operations take them from. */
#include "base/assert.h"
#include "base/codec.h"
#include "data/manifest_int.h"

#define NODE_MAGIC 0x314e4643u /* "CFN1" */

/* ---- form ---- */

void node_encode(unsigned level, const struct subtree children[MANIFEST_FANOUT], struct buf *out)
{
    ASSERT(level >= 1 && level <= MANIFEST_HEIGHT_MAX);
    unsigned count = MANIFEST_FANOUT;
    while (count > 0 && chunk_id_is_hole(&children[count - 1].id))
        count--;
    ASSERT(count > 0);
    buf_reserve(out, MANIFEST_NODE_BYTES_MAX);
    enc_u32(out, NODE_MAGIC);
    enc_u8(out, (uint8_t)level);
    enc_u8(out, 0);
    enc_u16(out, (uint16_t)count);
    for (unsigned i = 0; i < count; i++)
        enc_raw(out, children[i].id.b, CHUNK_ID_BYTES);
    for (unsigned i = 0; level >= 2 && i < count; i++)
        enc_u64(out, children[i].blocks);
}

static size_t node_bytes(unsigned count)
{
    return sizeof(struct node) + count * (sizeof(struct chunk_id) + sizeof(uint64_t));
}

int node_decode(const struct chunk_id *id, struct slice plain, struct node **ret)
{
    struct dec d = dec_of(plain);
    uint32_t magic = dec_u32(&d);
    uint8_t level = dec_u8(&d);
    uint8_t zero = dec_u8(&d);
    uint16_t count = dec_u16(&d);
    if (d.rc != 0)
        return ERR_MALFORMED;
    if (magic != NODE_MAGIC || level < 1 || level > MANIFEST_HEIGHT_MAX || zero != 0 || count < 1 ||
        count > MANIFEST_FANOUT)
        return ERR_MALFORMED;
    if (dec_left(&d) != (size_t)count * (level >= 2 ? 40u : 32u))
        return ERR_MALFORMED;
    struct node *n = mem_calloc(1, node_bytes(count));
    n->id = *id;
    n->level = level;
    n->count = count;
    n->ids = (struct chunk_id *)(void *)(n->counts + count);
    for (unsigned i = 0; i < count; i++)
        dec_raw(&d, n->ids[i].b, CHUNK_ID_BYTES);
    bool good = !chunk_id_is_hole(&n->ids[count - 1]);
    for (unsigned i = 0; i < count; i++) {
        bool hole = chunk_id_is_hole(&n->ids[i]);
        n->counts[i] = level >= 2 ? dec_u64(&d) : !hole;
        good = good && hole == (n->counts[i] == 0) && n->counts[i] <= level_span(level - 1u);
        n->blocks += n->counts[i];
    }
    if (!good || dec_end(&d) != 0) {
        mem_free(n);
        return ERR_MALFORMED;
    }
    *ret = n;
    return 0;
}

struct subtree node_child(const struct node *n, unsigned idx)
{
    if (n == NULL || idx >= n->count)
        return (struct subtree){.blocks = 0};
    return (struct subtree){.id = n->ids[idx], .blocks = n->counts[idx]};
}

/* ---- cache ---- */

int node_cache_new(struct node_cache **ret)
{
    *ret = mem_calloc(1, sizeof **ret);
    return 0;
}

static void unlink_node(struct node_cache *c, struct node *n)
{
    if (n->newer != NULL)
        n->newer->older = n->older;
    else
        c->newest = n->older;
    if (n->older != NULL)
        n->older->newer = n->newer;
    else
        c->oldest = n->newer;
    n->newer = NULL;
    n->older = NULL;
}

static void link_newest(struct node_cache *c, struct node *n)
{
    n->older = c->newest;
    if (c->newest != NULL)
        c->newest->newer = n;
    else
        c->oldest = n;
    c->newest = n;
}

void node_cache_trim(struct node_cache *c, size_t bytes_max)
{
    while (c->bytes > bytes_max && c->oldest != NULL) {
        struct node *n = c->oldest;
        unlink_node(c, n);
        bool there = id_map_del(&c->nodes, &n->id);
        ASSERT(there);
        c->bytes -= node_bytes(n->count);
        mem_free(n);
    }
}

void node_cache_free(struct node_cache *c)
{
    if (c == NULL)
        return;
    node_cache_trim(c, 0);
    id_map_deinit(&c->nodes);
    id_map_deinit(&c->wanted);
    buf_deinit(&c->plain);
    buf_deinit(&c->sealed);
    mem_free(c);
}

static struct node *cache_find(const struct node_cache *c, const struct chunk_id *id)
{
    const uint64_t *value = id_map_get(&c->nodes, id);
    return value == NULL ? NULL : (struct node *)(uintptr_t)*value;
}

int node_cache_put(struct node_cache *c, const struct chunk_id *id, struct slice plain)
{
    if (chunk_id_is_hole(id))
        return ERR_MALFORMED;
    struct node *n = NULL;
    int rc = node_decode(id, plain, &n);
    if (rc != 0)
        return rc;
    if (cache_find(c, id) != NULL) {
        mem_free(n);
        return 0;
    }
    id_map_set(&c->nodes, id, (uint64_t)(uintptr_t)n);
    link_newest(c, n);
    c->bytes += node_bytes(n->count);
    return 0;
}

bool node_cache_has(const struct node_cache *c, const struct chunk_id *id)
{
    return cache_find(c, id) != NULL;
}

size_t node_cache_bytes(const struct node_cache *c)
{
    return c->bytes;
}

/* ---- finding ---- */

void missing_begin(struct node_cache *c, struct chunk_ids *missing)
{
    chunk_ids_clear(missing);
    id_map_clear(&c->wanted);
}

void missing_add(struct node_cache *c, struct chunk_ids *missing, const struct chunk_id *id)
{
    if (id_map_get(&c->wanted, id) != NULL)
        return;
    id_map_set(&c->wanted, id, 1);
    chunk_ids_add(missing, id);
}

int node_load(struct node_cache *c,
              const struct chunk_id *id,
              unsigned level,
              uint64_t blocks,
              const struct node **ret,
              struct chunk_ids *missing)
{
    struct node *n = cache_find(c, id);
    if (n == NULL) {
        missing_add(c, missing, id);
        return ERR_AGAIN;
    }
    if (n->level != level || (blocks != 0 && n->blocks != blocks))
        return ERR_MALFORMED;
    if (c->newest != n) {
        unlink_node(c, n);
        link_newest(c, n);
    }
    *ret = n;
    return 0;
}

int tree_node(struct node_cache *c,
              const struct manifest *m,
              unsigned level,
              uint64_t idx,
              const struct node **ret,
              struct chunk_ids *missing)
{
    unsigned height = manifest_height(m);
    ASSERT(level >= 1 && level <= height);
    *ret = NULL;
    if (idx >= (uint64_t)1 << (NODE_BITS * (height - level)))
        return 0;
    struct subtree t = {.id = m->root};
    for (unsigned at = height;; at--) {
        if (chunk_id_is_hole(&t.id))
            return 0;
        const struct node *n = NULL;
        int rc = node_load(c, &t.id, at, t.blocks, &n, missing);
        if (rc != 0)
            return rc;
        if (at == level) {
            *ret = n;
            return 0;
        }
        t = node_child(n, idx >> (NODE_BITS * (at - level - 1)) & (MANIFEST_FANOUT - 1));
    }
}

int tree_subtree(struct node_cache *c,
                 const struct manifest *m,
                 unsigned level,
                 uint64_t idx,
                 struct subtree *ret,
                 struct chunk_ids *missing)
{
    unsigned height = manifest_height(m);
    ASSERT(level <= height);
    *ret = (struct subtree){.blocks = 0};
    const struct node *n = NULL;
    if (level < height) {
        int rc = tree_node(c, m, level + 1, idx >> NODE_BITS, &n, missing);
        if (rc == 0)
            *ret = node_child(n, idx & (MANIFEST_FANOUT - 1));
        return rc;
    }
    if (idx != 0 || chunk_id_is_hole(&m->root))
        return 0;
    if (height == 0) {
        *ret = (struct subtree){.id = m->root, .blocks = 1};
        return 0;
    }
    int rc = node_load(c, &m->root, height, 0, &n, missing);
    if (rc == 0)
        *ret = (struct subtree){.id = m->root, .blocks = n->blocks};
    return rc;
}
