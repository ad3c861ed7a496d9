/* Private to data/: nodes, the node cache, and the walk with a callback for completed nodes. */
#ifndef DATA_MANIFEST_INT_H
#define DATA_MANIFEST_INT_H

#include "data/manifest.h"

#define NODE_BITS 8u /* log2 of the fanout */

/* A subtree of any level: what a parent knows of its child. */
struct subtree {
    struct chunk_id id; /* the hole: nothing but holes below */
    uint64_t blocks;    /* not holes, below */
};

struct node {
    struct chunk_id id;
    struct node *newer, *older; /* in the cache, by last use */
    uint64_t blocks;            /* sum over the children */
    uint16_t count;             /* 1..256 */
    uint8_t level;              /* 1..MANIFEST_HEIGHT_MAX */
    struct chunk_id *ids;       /* count; in the same allocation, behind counts */
    uint64_t counts[];          /* count: blocks below each child */
};

struct node_cache {
    struct id_map nodes; /* id -> struct node * */
    struct node *newest, *oldest;
    size_t bytes;
    struct id_map wanted; /* what the running operation has listed as missing */
    struct buf plain;     /* scratch of manifest_update: a node, and its sealed form */
    struct buf sealed;
};

/* Encodes the children up to the last that is not a hole; there must be one. */
void node_encode(unsigned level, const struct subtree children[MANIFEST_FANOUT], struct buf *out);
/* Parses and checks; *ret is mem_free()d by the caller. */
int node_decode(const struct chunk_id *id, struct slice plain, struct node **ret) MUST_CHECK;
struct subtree node_child(const struct node *n, unsigned idx);

static inline uint64_t level_span(unsigned level) /* blocks below a node of this level */
{
    return (uint64_t)1 << (NODE_BITS * level);
}

/* ---- finding nodes of one manifest ---- */
void missing_begin(struct node_cache *c, struct chunk_ids *missing);
void missing_add(struct node_cache *c, struct chunk_ids *missing, const struct chunk_id *id);
/* The node `id`, which must be of this level and, unless `blocks` is 0 (unknown), have as many
 * blocks as its parent says: so a search that the counts promise to succeed does, and cannot be
 * sent through a tree of lies. ERR_AGAIN: added to missing. */
int node_load(struct node_cache *c,
              const struct chunk_id *id,
              unsigned level,
              uint64_t blocks,
              const struct node **ret,
              struct chunk_ids *missing) MUST_CHECK;
/* The node of `level` (1..height) and index `idx`; NULL where there are only holes. */
int tree_node(struct node_cache *c,
              const struct manifest *m,
              unsigned level,
              uint64_t idx,
              const struct node **ret,
              struct chunk_ids *missing) MUST_CHECK;
/* The same for a subtree of level 0..height. */
int tree_subtree(struct node_cache *c,
                 const struct manifest *m,
                 unsigned level,
                 uint64_t idx,
                 struct subtree *ret,
                 struct chunk_ids *missing) MUST_CHECK;

/* manifest_walk(), which also tells when all below a node has been visited, in this call or earlier
 * ones of the same cursor. `leave` may be NULL. */
struct walk_fns {
    manifest_visit_fn enter;
    void (*leave)(void *ctx, const struct chunk_id *id, unsigned level);
    void *ctx;
};
int manifest_walk_fns(struct node_cache *c,
                      const struct manifest *m,
                      uint64_t *cursor,
                      size_t ahead,
                      const struct walk_fns *fns,
                      struct chunk_ids *missing) MUST_CHECK;

#endif
