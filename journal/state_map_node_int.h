/* Nodes and memory of the ordered map; only state_map*.c include this. */
#ifndef JOURNAL_STATE_MAP_NODE_INT_H
#define JOURNAL_STATE_MAP_NODE_INT_H

#include "journal/state_map_int.h"

#define NODE_KEYS 64u
#define NODE_PREFIX                                                                                \
    44u /* longer common prefixes are cut here: searches stay right, only slower                   \
         */

/* The sorted keys of a leaf or of an inner node. Invariants: every key starts with `prefix`;
 * heads[i] is the big-endian number of the eight bytes behind it, zero-padded. */
struct state_map_keys {
    uint16_t count;
    uint16_t prefix_len;
    uint8_t prefix[NODE_PREFIX];
    uint64_t heads[NODE_KEYS];
    struct state_map_rec *recs[NODE_KEYS];
};
struct state_map_leaf {
    struct state_map_keys keys;
    struct state_map_leaf *prev, *next;
};
/* Child i holds the keys >= keys.recs[i - 1] and < keys.recs[i]; count + 1 children. */
struct state_map_inner {
    struct state_map_keys keys;
    void *children[NODE_KEYS + 1];
};

/* Position of the first key >= `key`; *ret_equal says whether it is that key. */
uint32_t state_map_keys_find(const struct state_map_keys *k, struct slice key, bool *ret_equal);
void state_map_keys_insert(struct state_map_keys *k, uint32_t at, struct state_map_rec *rec);
void state_map_keys_remove(struct state_map_keys *k, uint32_t at);
/* Where to split: near the middle, and where heads differ if they do there. A leaf then tends to
 * hold names of one directory, whose heads say more than those of several. */
uint32_t state_map_keys_middle(const struct state_map_keys *k);
/* Moves the keys from `at` on to the empty `to`; both get the longest prefix they can have. */
void state_map_keys_split(struct state_map_keys *k, uint32_t at, struct state_map_keys *to);
void state_map_keys_join(struct state_map_keys *k, const struct state_map_keys *tail);
void state_map_keys_validate(const struct state_map_keys *k);

/* Memory of one map: blocks for nodes and records, freed as a whole, with lists of what is free
 * inside. Records: size classes of 16 bytes up to REC_SMALL_MAX, heap with a list above. */
#define REC_STEP 16u
#define REC_SMALL_MAX 1024u
struct rec_block;
struct rec_big;
struct node_free;
struct state_map_recs {
    struct rec_block *blocks;
    uint32_t block_count;
    struct node_free *free_nodes[2];                          /* leaves, inner nodes */
    uint8_t *at, *end;                                        /* rest of the newest block */
    struct state_map_rec *free[REC_SMALL_MAX / REC_STEP + 1]; /* linked through the body */
    struct rec_big *big;
    size_t bytes; /* in use */
};
struct state_map_rec *
state_map_rec_new(struct state_map_recs *m, struct slice key, size_t value_len);
void state_map_rec_free(struct state_map_recs *m, struct state_map_rec *rec);
void *state_map_node_new(struct state_map_recs *m, bool inner);
void state_map_node_free(struct state_map_recs *m, bool inner, void *node);
void state_map_recs_deinit(struct state_map_recs *m);

#endif
