/* What is written to the journals of several shards at once counts on the disk as a whole, or not.
 *
 * A batch of a peer's operations is written as parts, one record in each shard that has operations
 * of it. Batches are numbered in the order in which they are written. A batch is *whole* when all
 * its parts are on the disk, and so are those of every batch before it. A shard shows, sends and
 * acknowledges nothing from the first record on that belongs to, or came from, a batch that is not
 * whole (S21).
 *
 * On the disk a part names the next part of its batch (the last one names the first, so that they
 * all hang together), and a part of the batch before unless that was whole. After a loss of power
 * the journals are cut back to the longest beginnings in which everything named is there: exactly
 * what was whole, or became it without anybody having heard of it (S22).
 *
 * Threads: any; pure. */
#ifndef SITE_PARTS_H
#define SITE_PARTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/id.h"

struct parts_place { /* of a record */
    shard_id_t shard;
    uint64_t index; /* in the shard's journal */
};
#define PARTS_NAMED_MAX 2u /* by one record */
struct parts_named {
    uint32_t count;
    struct parts_place at[PARTS_NAMED_MAX];
};

/* ---- while the site runs: which batches are whole ---- */
struct parts;
struct parts *parts_new(void);
void parts_free(struct parts *p);
/* A batch with `count` (> 0) parts is about to be written. Its number, from 1 on; `one` is where
 * some part of it will be. */
uint64_t parts_begin(struct parts *p, uint32_t count, struct parts_place one);
/* The number of the last batch; 0: none. */
uint64_t parts_last(const struct parts *p);
/* Number 0: nobody's, always whole. */
bool parts_whole(const struct parts *p, uint64_t number);
/* Adds a part of this batch, unless it is whole. */
void parts_name(const struct parts *p, uint64_t number, struct parts_named *to);
/* One more part of the batch is on the disk. True: more batches are whole than before. */
bool parts_durable(struct parts *p, uint64_t number);

/* ---- after a crash ---- */
struct parts_need { /* a record names another one */
    struct parts_place record, named;
};
/* last[shard]: where the journal ends; made lower until every record that stays finds what it names
 * at or below last. The result is the highest there is, whatever the order of the needs. Shards in
 * needs are below the length of last. */
void parts_cut(const struct parts_need *needs, size_t count, uint64_t *last);

#endif
