/* Private to site/: pages of a snapshot, as they come from another site (node_snapshot.c). Core.
 *
 * - msgpack [0, shard count, [journal index of each shard]], the first one
 * - [1, shard, count, key, value, ...]
 * - [2, shard, count, commit stamp, operation, ...], in the order of the journal, behind those */
#ifndef SITE_SNAPSHOT_PAGE_H
#define SITE_SNAPSHOT_PAGE_H

#include "base/mp.h"
#include "site/shard.h"

#define PAGE_PAIRS_MAX 100000u /* of operations as well */

enum page_kind {
    PAGE_HEADER,
    PAGE_PAIRS,
    PAGE_PAST /* what the sender's members may lack of what the snapshot holds (W12) */
};
struct snapshot_page {
    enum page_kind kind;
    unsigned shard_count;            /* header */
    uint64_t index[SHARD_COUNT_MAX]; /* header; less than UINT64_MAX: the next one has a number */
    unsigned shard;                  /* pairs, past */
    struct local_pair *pairs;        /* owned; they borrow from the page */
    struct past_op {
        uint64_t commit_hlc; /* at the sender; does not fall */
        struct slice op;     /* of this shard, and it can be decoded */
    } * past;                /* the same */
    uint32_t count;          /* of either */
};

/* What is only the sender's business does not travel. */
bool snapshot_travels(struct slice key);

/* Both append. `pairs`: `count` times key and value, as mp_bin. */
void snapshot_header_encode(const uint64_t *index, unsigned shard_count, struct buf *out);
void snapshot_pairs_encode(unsigned shard, uint32_t count, struct slice pairs, struct buf *out);
/* `past`: `count` times commit stamp and operation, as mp_uint and mp_bin. */
void snapshot_past_encode(unsigned shard, uint32_t count, struct slice past, struct buf *out);

/* On success *ret is to be deinited, on failure it is as it was. ERR_CONFIG: the sender has another
 * number of shards, *ret_shards. ERR_MALFORMED, ERR_TRUNCATED. */
int snapshot_page_decode(struct slice page,
                         unsigned shard_count,
                         struct snapshot_page *ret,
                         unsigned *ret_shards) MUST_CHECK;
void snapshot_page_deinit(struct snapshot_page *p);

#endif
