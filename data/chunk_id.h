/* The name of a chunk, and lists and maps of them.
 *
 * A chunk id is the HMAC-SHA-256 of the chunk's plaintext under the file system's hash key, so it
 * is uniformly random to all who do not hold the key. The zero id is no chunk: in a manifest it
 * stands for a hole. Threads: any; nothing here is shared. */
#ifndef DATA_CHUNK_ID_H
#define DATA_CHUNK_ID_H

#include <string.h>

#include "base/util.h"

#define CHUNK_ID_BYTES 32
struct chunk_id {
    uint8_t b[CHUNK_ID_BYTES];
};
#define CHUNK_ID_HOLE ((struct chunk_id){.b = {0}})

static inline int chunk_id_cmp(const struct chunk_id *a, const struct chunk_id *b)
{
    return memcmp(a->b, b->b, CHUNK_ID_BYTES);
}
static inline bool chunk_id_equal(const struct chunk_id *a, const struct chunk_id *b)
{
    return chunk_id_cmp(a, b) == 0;
}
bool chunk_id_is_hole(const struct chunk_id *id);
struct chunk_id chunk_id_of(const uint8_t bytes[CHUNK_ID_BYTES]);
#define CHUNK_ID_TEXT_LEN 64
void chunk_id_to_text(const struct chunk_id *id, char out[CHUNK_ID_TEXT_LEN + 1]);
/* Exactly 64 hex digits of either case; ERR_INVALID otherwise. */
int chunk_id_from_text(const char *text, struct chunk_id *ret) MUST_CHECK;

/* Growable list, owned by whoever holds the struct; zeroed is empty and valid. */
struct chunk_ids {
    struct chunk_id *at;
    size_t count;
    size_t cap;
};
void chunk_ids_deinit(struct chunk_ids *l); /* accepts zeroed; leaves it zeroed */
void chunk_ids_add(struct chunk_ids *l, const struct chunk_id *id);
static inline void chunk_ids_clear(struct chunk_ids *l)
{
    l->count = 0; /* memory stays */
}

/* Hash map id -> 64 bits, open addressing; zeroed is empty and valid. The hole is not a key. A
 * pointer to a value is good until the next set or delete. */
struct id_map_slot {
    struct chunk_id id; /* the hole marks a free slot */
    uint64_t value;
};
struct id_map {
    struct id_map_slot *slots;
    size_t count;
    size_t cap; /* a power of two, or 0 */
};
void id_map_deinit(struct id_map *m);
uint64_t *id_map_get(const struct id_map *m, const struct chunk_id *id); /* NULL when absent */
/* Adds or replaces; returns where the value is. */
uint64_t *id_map_set(struct id_map *m, const struct chunk_id *id, uint64_t value);
bool id_map_del(struct id_map *m, const struct chunk_id *id); /* true when it was there */
void id_map_clear(struct id_map *m);                          /* memory stays */
/* Walks in slot order: *at starts at 0; NULL at the end. No changes meanwhile. */
const struct id_map_slot *id_map_next(const struct id_map *m, size_t *at);

#endif
