/* Contents that are too large to travel inside an operation: made of chunks, as a mount makes them.
 *
 * Each is a number of the ledger and a size; its bytes follow from both. A block holds a few bytes
 * and zeros, so that chunks are small; blocks behind the first are shared by many contents. */
#ifndef SIM_LARGE_H
#define SIM_LARGE_H

#include "data/manifest.h"
#include "journal/op.h"
#include "site/node.h"

#define LARGE_BLOCKS_MAX 4u
#define LARGE_BYTES_MAX (LARGE_BLOCKS_MAX * MANIFEST_BLOCK_BYTES_MIN)

struct large_row {
    uint8_t root[32];
    uint64_t number, size;
    struct chunk_ids ids; /* of blocks and nodes */
};
struct large { /* zeroed is empty */
    struct pipeline *pipeline;
    struct node_cache *nodes;
    struct large_row *rows;
    size_t count, cap;
};
void large_deinit(struct large *l);
/* The content of a number, and its chunks as riders of a commit; n says with which keys. The same
 * number twice gives the same. */
void large_make(struct large *l,
                struct node *n,
                uint64_t number,
                uint64_t size,
                struct content *ret,
                struct buf *riders);
const struct large_row *large_find(const struct large *l, const uint8_t root[32]); /* or NULL */
/* Are these the bytes of that content? */
bool large_is(const struct large_row *row, struct slice bytes);
/* What stands for a content where only equality matters: its bytes, or its root. Borrowed. */
struct slice large_key(const struct content *c);

#endif
