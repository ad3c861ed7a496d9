/* Manifests: the content of a file larger than LIMIT_INLINE_BYTES as a tree of chunk ids.
 *
 * The file is cut into blocks of block_bytes (a power of two, 64 KiB .. 4 MiB). A block's chunk
 * holds its bytes WITHOUT trailing zeros (block_trim() in data/chunk.h); a block of zeros only is a
 * hole, the zero id. Readers fill up with zeros. Ids are leaves of a radix tree with fanout 256
 * whose inner nodes are chunks too; a subtree of holes is the zero id. The height follows from size
 * and block_bytes alone: 0 when there is one block (then the root IS the block's id), else the
 * lowest h with 256^h >= blocks. So equal content at equal block size has an equal root (D3),
 * growing a file costs no data, and terabytes of hole cost nothing.
 *
 * Node plaintext, little endian: magic "CFN1", level u8 (1: children are blocks), zero u8, count
 * u16 (1..256, the last child is not a hole), count ids of 32 bytes; at level >= 2 then count u64:
 * the number of blocks that are not holes below each child.
 *
 * Core: no I/O, no clock, no threads of its own. Nodes come from a struct node_cache. An operation
 * that lacks nodes returns ERR_AGAIN and lists their ids in `missing` (cleared first, without
 * duplicates); the caller fetches and opens these chunks, hands them to node_cache_put(), and calls
 * again with the same arguments. Nothing has happened until an operation returns 0. Every pass goes
 * as far as it can, so the number of passes is at most the tree's height + 1 per tree involved.
 * Any operation: ERR_MALFORMED when nodes contradict the manifest (level, count).
 * Threads: one per cache. */
#ifndef DATA_MANIFEST_H
#define DATA_MANIFEST_H

#include "data/chunk.h"

#define MANIFEST_FANOUT 256u
#define MANIFEST_HEIGHT_MAX 6u /* 2^62 bytes in blocks of 2^16 */
#define MANIFEST_BLOCK_BYTES_MIN (64u * 1024u)
#define MANIFEST_BLOCK_BYTES_MAX (4u * 1024u * 1024u)
#define MANIFEST_NODE_BYTES_MAX (8u + MANIFEST_FANOUT * 40u)

struct manifest {
    struct chunk_id root; /* the hole: `size` zeros */
    uint64_t size;        /* of the file, bytes, <= LIMIT_FILE_BYTES */
    uint32_t block_bytes;
};
/* ERR_INVALID when size or block_bytes are out of bounds, or the root is not a hole at size 0. */
int manifest_validate(const struct manifest *m) MUST_CHECK;
/* The block size a new file of `size` bytes gets: 64 KiB up to 4 MiB, 1 MiB up to 256 MiB, then
 * 4 MiB. A file keeps its block size while it changes; a rewrite may choose anew. */
uint32_t manifest_block_bytes(uint64_t size);
uint64_t manifest_blocks(const struct manifest *m); /* size / block_bytes, rounded up */
unsigned manifest_height(const struct manifest *m);

/* ---- nodes ---- */
struct node_cache;
int node_cache_new(struct node_cache **ret) MUST_CHECK;
void node_cache_free(struct node_cache *c); /* accepts NULL */
/* `plain` (copied) is the opened chunk `id`. ERR_MALFORMED when it is not a node. */
int node_cache_put(struct node_cache *c, const struct chunk_id *id, struct slice plain) MUST_CHECK;
bool node_cache_has(const struct node_cache *c, const struct chunk_id *id);
size_t node_cache_bytes(const struct node_cache *c);
/* Drops the nodes that were not used for longest until at most bytes_max are held. Between
 * operations only: never while one is waiting for missing nodes (it would fetch for ever). */
void node_cache_trim(struct node_cache *c, size_t bytes_max);

/* ---- reading ---- */
/* The ids of blocks [first, first + count) into ret_ids; holes, and blocks beyond the end, are the
 * zero id. */
int manifest_lookup(struct node_cache *c,
                    const struct manifest *m,
                    uint64_t first,
                    size_t count,
                    struct chunk_id *ret_ids,
                    struct chunk_ids *missing) MUST_CHECK;
enum manifest_seek {
    MANIFEST_SEEK_DATA,
    MANIFEST_SEEK_HOLE
};
/* The first block >= from that is data, or a hole; manifest_blocks() when there is none (the end is
 * a hole to lseek). Whole subtrees of holes, or without holes, are passed over. */
int manifest_seek(struct node_cache *c,
                  const struct manifest *m,
                  uint64_t from,
                  enum manifest_seek what,
                  uint64_t *ret_block,
                  struct chunk_ids *missing) MUST_CHECK;
/* How many blocks are not holes (for st_blocks). */
int manifest_data_blocks(struct node_cache *c,
                         const struct manifest *m,
                         uint64_t *ret_count,
                         struct chunk_ids *missing) MUST_CHECK;

/* Visits the ids of all nodes and blocks in file order, parents before children. */
enum manifest_visit {
    MANIFEST_VISIT_GO,   /* go on, into a node */
    MANIFEST_VISIT_SKIP, /* not below this node; the same as GO for a block */
    MANIFEST_VISIT_STOP  /* return 0 now; this id is visited again next time */
};
/* level 0: a block, its index in `block`; else a node and the first block below it. */
typedef enum manifest_visit (*manifest_visit_fn)(void *ctx,
                                                 const struct chunk_id *id,
                                                 unsigned level,
                                                 uint64_t block);
/* *cursor starts at 0 and is the next block to visit; manifest_blocks() at the end. ERR_AGAIN moves
 * it as far as the cached nodes reach; `missing` then lists up to `ahead` (at least 1) nodes in the
 * order they are needed. Nodes on the way to the cursor are visited again after a stop or
 * ERR_AGAIN. */
int manifest_walk(struct node_cache *c,
                  const struct manifest *m,
                  uint64_t *cursor,
                  size_t ahead,
                  manifest_visit_fn fn,
                  void *ctx,
                  struct chunk_ids *missing) MUST_CHECK;

/* ---- changing ---- */
/* What becomes of blocks [first, first + count). Extents of one update ascend and do not overlap.
 */
enum manifest_extent_kind {
    MANIFEST_EXTENT_IDS,  /* ids[count], borrowed; the zero id is a hole */
    MANIFEST_EXTENT_HOLE, /* punch: any count is cheap */
    MANIFEST_EXTENT_FROM  /* the blocks of another manifest of equal block_bytes, by reference */
};
struct manifest_extent {
    enum manifest_extent_kind kind;
    uint64_t first, count;
    const struct chunk_id *ids;  /* IDS */
    const struct manifest *from; /* FROM, borrowed; may be the same manifest */
    uint64_t from_first;         /* FROM: first block there; beyond its end are holes */
};
/* Takes each new node, children before parents: the caller stores it (durable before the operation
 * that refers to it is proposed). `sealed` is borrowed during the call. Non-zero aborts the update
 * and is returned. The same node may come twice. */
typedef int (*manifest_put_fn)(void *ctx, const struct chunk_id *id, struct slice sealed);
/* *ret = `old` with the extents applied and resized to new_size. `old` NULL: an empty file of
 * block_bytes; else block_bytes must be old's. Blocks beyond the new size are dropped; extents must
 * lie within the new size (ERR_INVALID).
 *
 * When the file shrinks to within a block, that block's bytes beyond the new end must read as zeros
 * if the file grows again: the caller includes the cut block, trimmed and chunked anew, as an
 * extent (manifest_cut_block says which; not needed if its plaintext is short enough already). The
 * same holds for a FROM extent that ends at a `from` size inside a block: the rest of that block is
 * zeros already, by this rule. And if new_size lies inside a block that a FROM or IDS extent
 * brings, that block must not have bytes beyond it. */
int manifest_update(struct node_cache *c,
                    struct pipeline *p,
                    const struct manifest *old,
                    uint32_t block_bytes,
                    uint64_t new_size,
                    const struct manifest_extent *extents,
                    size_t extent_count,
                    manifest_put_fn put,
                    void *ctx,
                    struct manifest *ret,
                    struct chunk_ids *missing) MUST_CHECK;
/* True when shrinking m to new_size cuts inside block *ret_block, leaving *ret_keep_bytes of it. */
bool manifest_cut_block(const struct manifest *m,
                        uint64_t new_size,
                        uint64_t *ret_block,
                        uint32_t *ret_keep_bytes);

#endif
