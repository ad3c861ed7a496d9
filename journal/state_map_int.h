/* Ordered map in memory from byte keys to byte values or "deleted" marks: the upper layers of a
 * shard's state. A B+tree whose nodes hold, for each key, the eight bytes that follow the prefix
 * all keys of the node share; a search touches a whole key only when those eight bytes are equal.
 * Records of up to a KiB come from blocks with free lists by size, larger ones from the heap.
 *
 * Slices and records stay valid until the map is next written. Any number of threads may read a
 * map that nobody writes. */
#ifndef JOURNAL_STATE_MAP_INT_H
#define JOURNAL_STATE_MAP_INT_H

#include "base/util.h"

struct state_map;
struct state_map_leaf;

struct state_map_rec { /* read-only outside the map; key, then value follow */
    uint32_t key_len;
    uint32_t value_len; /* STATE_MAP_DELETED: a mark that hides the key in lower layers */
    uint32_t capacity;  /* bytes allocated behind the header */
};
#define STATE_MAP_DELETED UINT32_MAX

static inline struct slice state_map_key(const struct state_map_rec *rec)
{
    return slice_of(rec + 1, rec->key_len);
}
static inline bool state_map_deleted(const struct state_map_rec *rec)
{
    return rec->value_len == STATE_MAP_DELETED;
}
static inline struct slice state_map_value(const struct state_map_rec *rec)
{
    return slice_of((const uint8_t *)(rec + 1) + rec->key_len, rec->value_len);
}

struct state_map *state_map_new(void);
void state_map_free(struct state_map *map);          /* accepts NULL */
size_t state_map_bytes(const struct state_map *map); /* of memory held by live entries */
size_t state_map_count(const struct state_map *map); /* entries, marks included */

const struct state_map_rec *state_map_get(const struct state_map *map, struct slice key);
/* The same, and remembers where it found the key, or missed it, for calls on the same key that
 * follow (state_map_recent_int.h). For the map's one writer. */
const struct state_map_rec *state_map_find(struct state_map *map, struct slice key);
/* Sets or replaces; mark = true stores a deletion mark and ignores value. key and value may not
 * lie inside the map. */
void state_map_put(struct state_map *map, struct slice key, struct slice value, bool mark);
void state_map_remove(struct state_map *map, struct slice key); /* absent is fine */

struct state_map_cursor {
    const struct state_map_leaf *leaf; /* NULL: past the end */
    uint32_t idx;
};
/* Stands on the first key >= start. */
struct state_map_cursor state_map_seek(const struct state_map *map, struct slice start);
const struct state_map_rec *state_map_at(const struct state_map_cursor *cur); /* NULL: end */
void state_map_next(struct state_map_cursor *cur);

void state_map_validate(const struct state_map *map); /* asserts every invariant; walks it all */

#endif
