/* The gateway: merges the committed operations of all shards into one stream for one peer.
 *
 * Shards are read a piece at a time; the operation with the lowest local commit stamp goes first,
 * and none goes that lies above the site's safe point, so the order is that of the commits across
 * all shards (W1). What the peer has already (its vector covers it) is passed over (W2). A
 * directory move goes in a batch of its own (W4). A core: the shell reads the feed and hands it in.
 *
 *   gateway_see_state; loop: while gateway_wants: read that shard, gateway_add...,
 * gateway_read_done gateway_batch: encode and send, or nothing to do for now
 */
#ifndef WAN_GATEWAY_H
#define WAN_GATEWAY_H

#include "site/node.h"
#include "wan/batch.h"

struct gateway;

#define GATEWAY_READ_BYTES (64u * 1024u)          /* of one shard at a time */
#define GATEWAY_BATCH_BYTES ((size_t)256 * 1024u) /* a batch ends when it has this much */
/* A batch stays within what a frame can carry even if its last operation is the largest, and even
 * if it grows by as much as body_encode may make it. */
_Static_assert((GATEWAY_BATCH_BYTES + LIMIT_OP_BYTES) * 3 / 2 <= LIMIT_BATCH_BYTES, "a batch fits");

/* next: per shard the first index to send, at least 1. have: what the peer has, per shard; copied.
 * The peer has its own operations, whatever its vector says. */
struct gateway *
gateway_new(unsigned shard_count, site_id_t peer, const uint64_t *next, const struct vv *have);
void gateway_free(struct gateway *g); /* accepts NULL */

void gateway_see_state(struct gateway *g, const struct feed_state *state); /* older: no effect */
/* The peer told more of what it has: later operations that it covers are passed over. */
int gateway_see_have(struct gateway *g, shard_id_t shard, site_id_t site, uint64_t seq) MUST_CHECK;

/* True: the merge cannot go on before this shard has been read from this index. */
bool gateway_wants(const struct gateway *g, shard_id_t *ret_shard, uint64_t *ret_from);
void gateway_add(struct gateway *g, const struct feed_item *item); /* copies */
void gateway_read_done(struct gateway *g, shard_id_t shard, uint64_t next);

/* The next batch; false: nothing to send before the state moves on (or a shard must be read). With
 * flush also a batch without operations, when operations were passed over since the last: it moves
 * the peer's cursor, so that the journal may be trimmed. Items are borrowed until the next call of
 * this or of gateway_add. */
bool gateway_batch(struct gateway *g, bool flush, struct batch *ret);

/* How far the stream is. Records are counted by index, so those that never leave the site count
 * until they are passed over; bytes of what is not read yet are taken from the mean so far. */
struct gateway_progress {
    uint64_t sent_hlc; /* everything committed up to here has been sent or passed over */
    uint64_t head_hlc; /* the site's safe point */
    uint64_t ops_to_go, bytes_to_go;
    uint64_t ops_sent, bytes_sent, ops_skipped;
};
void gateway_progress(const struct gateway *g, struct gateway_progress *ret);

#endif
