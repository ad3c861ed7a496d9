/* Insides of a shard's state, shared by state.c and state_scan.c. */
#ifndef JOURNAL_STATE_INT_H
#define JOURNAL_STATE_INT_H

#include "journal/state.h"
#include "journal/state_map_int.h"

struct state {
    struct state_map *active; /* written by the owner only */
    struct state_map *frozen; /* NULL, or unchanging while it is written down */
    bool has_store;
    struct state_store store;
    uint64_t index;        /* last advanced */
    uint64_t frozen_index; /* index when frozen was made */
    uint64_t stored_index; /* what the store holds, as far as the owner has been told */
    int health;            /* first read failure of the store */
    struct buf value;      /* behind the slice of the last state_get from the store */
    uint32_t scans;        /* open ones; writes are a bug meanwhile */
};

#endif
