/* Opened chunks (blocks of files), whole or in parts, by their id. What a chunk holds never
 * changes, so nothing here is ever stale; only memory bounds it. Least recently used go first.
 *
 * Blocks that a sequential reader has read to their end, which the kernel has now, go before all
 * others (block_cache_read_out): a large file is read through little memory, which is written to
 * again and again, and what others use stays. One that is asked for again after all stays like any
 * other.
 *
 * A block that is asked for and not there is made in the state "loading" by the first who asks;
 * others wait for that one. Threads: any. */
#ifndef CLIENT_CACHE_BLOCK_H
#define CLIENT_CACHE_BLOCK_H

#include "base/err.h"
#include "data/chunk_id.h"

struct block_cache;
#define BLOCK_WHOLE UINT32_MAX
struct block {
    struct chunk_id id;
    uint32_t part; /* number of the part, or BLOCK_WHOLE */
    /* Valid after block_cache_get with BLOCK_READY, or a wait that returned 0. */
    const uint8_t *data;
    size_t len;
    /* Private. */
    struct block *next, *newer, *older;
    uint32_t refs;
    uint8_t state;
    bool out;   /* was read to its end: on the list of those that go first */
    bool again; /* was asked for since */
    int rc;
};
enum block_state {
    BLOCK_READY,
    BLOCK_LOADING, /* by somebody else: block_cache_wait */
    BLOCK_MISSING  /* the caller must load it and call block_cache_loaded, whatever happens */
};
struct block_cache *block_cache_new(size_t bytes_max);
void block_cache_free(struct block_cache *c); /* accepts NULL; no references may be out */
/* A referenced block, the whole. */
struct block *
block_cache_get(struct block_cache *c, const struct chunk_id *id, enum block_state *ret_state);
bool block_cache_has(struct block_cache *c, const struct chunk_id *id); /* or is being loaded */
/* A part, referenced, if it is there; else NULL. Nobody waits for parts. */
struct block *block_cache_part(struct block_cache *c, const struct chunk_id *id, uint32_t part);
/* Memory for a block's data, not filled; to be handed to block_cache_loaded or mem_free. */
uint8_t *block_cache_room(struct block_cache *c, size_t len);
/* Ends the loading: data (from mem_alloc or block_cache_room, owned by the cache from now on) or an
 * error, which all who wait get; the next one to ask tries again. */
void block_cache_loaded(struct block_cache *c, struct block *b, int rc, uint8_t *data, size_t len);
int block_cache_wait(struct block_cache *c, struct block *b) MUST_CHECK;
void block_cache_unref(struct block_cache *c, struct block *b);
/* The same by a sequential reader who has read to its end. */
void block_cache_read_out(struct block_cache *c, struct block *b);
/* Puts data (taken over) that the caller has just sealed, or a part that it has opened. */
void block_cache_insert(
    struct block_cache *c, const struct chunk_id *id, uint32_t part, uint8_t *data, size_t len);
void block_cache_limit(struct block_cache *c, size_t bytes_max);
size_t block_cache_bytes(struct block_cache *c);

#endif
