/* Committed operations, in the order of each shard's journal: what streams to other sites are made
 * of. */
#ifndef SITE_FEED_H
#define SITE_FEED_H

#include <string.h>

#include "journal/log.h"
#include "journal/op.h"

struct feed_state {
    unsigned shard_count;
    uint64_t durable[SHARD_COUNT_MAX]; /* highest index that may leave the site */
    uint64_t first[SHARD_COUNT_MAX];   /* lowest index still there */
    uint64_t safe_hlc; /* all records with commit_hlc <= this are durable, none will be added: the
                          gateway may emit everything up to here, see struct feed_item */
};
/* The arrays are large: only what the shards of the site use is copied. */
static inline void feed_state_copy(struct feed_state *to, const struct feed_state *from)
{
    to->shard_count = from->shard_count;
    to->safe_hlc = from->safe_hlc;
    memcpy(to->durable, from->durable, from->shard_count * sizeof to->durable[0]);
    memcpy(to->first, from->first, from->shard_count * sizeof to->first[0]);
}
struct feed_item { /* borrowed */
    shard_id_t shard;
    uint64_t index;      /* of the record; several items of one record share it */
    uint64_t commit_hlc; /* local commit: what streams are merged by; does not fall with index */
    struct dot dot;      /* of the operation */
    struct stamp stamp;  /* of the operation: orders what was committed with one stamp */
    bool barrier;        /* a directory move: applied alone (P7) */
    struct slice op;     /* encoded, see op_decode */
};
/* Operations of a shard's journal, own and relayed ones, from index `from` up to `last`, up to
 * bytes_max of op bytes; records that are only the site's business are passed over. *ret_next =
 * first index not looked at. Any thread. ERR_NOT_FOUND: trimmed. */
int feed_read(struct log *log,
              shard_id_t shard,
              uint64_t from,
              uint64_t last,
              size_t bytes_max,
              bool (*fn)(void *ctx, const struct feed_item *item),
              void *ctx,
              uint64_t *ret_next) MUST_CHECK;

#endif
