/* Keys of the ordered map that were used lately: a call on one of them need not search the tree.
 * An engine reads a key, changes the value and writes it back, most keys it reads it has read a
 * moment ago, and most keys that it misses it puts at once. Only state_map.c includes this.
 *
 * One place per hash, the last user wins; whole keys are compared, so nothing rests on the hash but
 * speed. Invariants: the record of a found key is in the map; the leaf of a missed key is where it
 * belongs as long as the tree's shape is what it was (leaves come, go and exchange keys with it).
 */
#ifndef JOURNAL_STATE_MAP_RECENT_INT_H
#define JOURNAL_STATE_MAP_RECENT_INT_H

#include <string.h>

#include "journal/state_map_node_int.h"

#define RECENT_KEYS 4096u /* powers of two */
#define RECENT_MISSED 8u
#define RECENT_MISSED_BYTES 112u /* longer keys are not remembered */

struct state_map_found {
    uint64_t hash;
    struct state_map_rec *rec; /* NULL: empty */
};
struct state_map_missed {
    uint64_t shape; /* 0: empty */
    struct state_map_leaf *leaf;
    uint32_t len;
    uint8_t key[RECENT_MISSED_BYTES];
};
struct state_map_recent {
    struct state_map_found found[RECENT_KEYS];
    struct state_map_missed missed[RECENT_MISSED];
};

/* Eight bytes a step. */
static inline uint64_t state_map_hash(struct slice key)
{
    const uint64_t mix = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t h = key.len * mix;
    size_t at = 0;
    for (uint64_t word; at + sizeof word <= key.len; at += sizeof word) {
        memcpy(&word, key.ptr + at, sizeof word);
        h = (h ^ word) * mix;
        h ^= h >> 32;
    }
    for (; at < key.len; at++)
        h = (h ^ key.ptr[at]) * mix;
    return h ^ h >> 29;
}

static inline struct state_map_found *state_map_found_at(struct state_map_recent *r, uint64_t hash)
{
    return &r->found[hash % RECENT_KEYS];
}
static inline bool
state_map_found_is(const struct state_map_found *f, uint64_t hash, struct slice key)
{
    return f->rec != NULL && f->hash == hash && slice_equal(state_map_key(f->rec), key);
}
static inline struct state_map_missed *state_map_missed_at(struct state_map_recent *r,
                                                           uint64_t hash)
{
    return &r->missed[hash % RECENT_MISSED];
}
static inline bool state_map_missed_is(const struct state_map_missed *m, struct slice key)
{
    return m->shape != 0 && m->len == key.len && memcmp(m->key, key.ptr, key.len) == 0;
}

#endif
