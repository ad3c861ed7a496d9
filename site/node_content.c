/* A whole content, read at the node: for what it shows to people, so small ones only. What is not
 * here comes from a peer first, then nodes and blocks are opened one after the other. */
#include <string.h>

#include "base/assert.h"
#include "base/plant.h"
#include "site/node_int.h"

struct content_read {
    struct node *n;
    struct manifest m;
    struct pipeline *pipeline;
    struct node_cache *cache;
    struct chunk_ids missing;
    struct chunk_id *blocks;
    uint64_t block_count, at; /* the block that is read */
    struct buf plain;
    content_read_cb cb;
    void *ctx;
};

static void read_end(struct content_read *r, int rc)
{
    r->cb(r->ctx, rc, rc == 0 ? buf_slice(&r->plain) : slice_of(NULL, 0));
    pipeline_free(r->pipeline);
    node_cache_free(r->cache);
    chunk_ids_deinit(&r->missing);
    mem_free(r->blocks);
    buf_deinit(&r->plain);
    mem_free(r);
}

static void read_block(struct content_read *r);

static void got_block(void *ctx, int rc, struct buf *sealed);

/* What is known of a content may be known from memory, and not be in the store. */
static bool is_elsewhere(int rc)
{
    return rc == ERR_NOT_FOUND || rc == ERR_CORRUPT;
}

static void got_block_here(void *ctx, int rc, struct buf *sealed)
{
    struct content_read *r = ctx;
    if (is_elsewhere(rc))
        node_chunk_fetch(r->n, r->blocks[r->at].b, got_block, r);
    else
        got_block(ctx, rc, sealed);
}

static void got_block(void *ctx, int rc, struct buf *sealed)
{
    struct content_read *r = ctx;
    uint64_t from = r->at * r->m.block_bytes;
    size_t len = 0, room = (size_t)MIN((uint64_t)r->m.block_bytes, r->m.size - from);
    if (rc == 0) /* what it leaves out at its end is zeros, as the buffer is */
        rc = chunk_open_into(r->pipeline, &r->blocks[r->at], buf_slice(sealed), r->plain.ptr + from,
                             room, &len);
    if (rc != 0 && !PLANTED(74)) {
        read_end(r, rc);
        return;
    }
    r->at++;
    read_block(r);
}

static void read_block(struct content_read *r)
{
    while (r->at < r->block_count && chunk_id_is_hole(&r->blocks[r->at]))
        r->at++;
    if (r->at == r->block_count)
        read_end(r, 0);
    else
        node_chunk_get_local(r->n, r->blocks[r->at].b, got_block_here, r);
}

static void read_nodes(struct content_read *r);

static void got_node(void *ctx, int rc, struct buf *sealed)
{
    struct content_read *r = ctx;
    struct chunk_id id = r->missing.at[0];
    struct buf plain = {0};
    if (rc == 0)
        rc = chunk_open(r->pipeline, &id, buf_slice(sealed), &plain);
    if (rc == 0)
        rc = node_cache_put(r->cache, &id, buf_slice(&plain));
    buf_deinit(&plain);
    if (rc != 0)
        read_end(r, rc);
    else
        read_nodes(r);
}

static void got_node_here(void *ctx, int rc, struct buf *sealed)
{
    struct content_read *r = ctx;
    if (is_elsewhere(rc))
        node_chunk_fetch(r->n, r->missing.at[0].b, got_node, r);
    else
        got_node(ctx, rc, sealed);
}

static void read_nodes(struct content_read *r)
{
    int rc = manifest_lookup(r->cache, &r->m, 0, (size_t)r->block_count, r->blocks, &r->missing);
    if (rc == ERR_AGAIN && r->missing.count > 0)
        node_chunk_get_local(r->n, r->missing.at[0].b, got_node_here, r);
    else if (rc != 0)
        read_end(r, rc);
    else
        read_block(r);
}

static void brought(void *ctx, int rc)
{
    struct content_read *r = ctx;
    if (rc != 0 && !PLANTED(74))
        read_end(r, rc);
    else
        read_nodes(r);
}

void node_content_read(
    struct node *n, const struct content *c, size_t bytes_max, content_read_cb cb, void *ctx)
{
    struct content_read *r = mem_calloc(1, sizeof *r);
    r->n = n;
    r->cb = cb;
    r->ctx = ctx;
    if (c->size > bytes_max) {
        read_end(r, ERR_TOO_BIG);
        return;
    }
    buf_reserve(&r->plain, (size_t)c->size);
    memset(r->plain.ptr, 0, (size_t)c->size);
    r->plain.len = (size_t)c->size;
    if (c->kind == CONTENT_INLINE) {
        ASSERT(c->bytes.len <= c->size);
        memcpy(r->plain.ptr, c->bytes.ptr, c->bytes.len);
        read_end(r, 0);
        return;
    }
    r->m = (struct manifest){
        .root = chunk_id_of(c->root), .size = c->size, .block_bytes = c->block_bytes};
    int rc = manifest_validate(&r->m);
    if (rc == 0)
        rc = pipeline_new(&r->pipeline, &n->keys, CHUNK_CIPHER_AUTO);
    if (rc == 0)
        rc = node_cache_new(&r->cache);
    if (rc != 0) {
        read_end(r, rc);
        return;
    }
    r->block_count = manifest_blocks(&r->m);
    r->blocks = mem_calloc((size_t)r->block_count, sizeof *r->blocks);
    node_bring(n, c, brought, r);
}
