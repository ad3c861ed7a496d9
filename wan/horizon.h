/* What a stream takes for granted: operations that its sender has, and that its journal has not.
 *
 * A site that began with a snapshot, or has trimmed its journal, sends effects whose causes it
 * cannot send. A receiver to whom this stream is new gets nothing of it before it has those causes
 * from others (W10). needs[shard] is the least vector whose operations are all that the sender had
 * when it looked and that its journal, from where the stream begins, does not hold. A core. */
#ifndef WAN_HORIZON_H
#define WAN_HORIZON_H

#include "base/err.h"
#include "base/id.h"

struct horizon {
    unsigned shard_count;
    site_id_t peer; /* the receiver: it has its own */
    struct vv *needs;
};
/* mine: what the sender has, by shard; copied. Then every operation that the stream may send is
 * shown to horizon_see; more than `mine` does no harm. */
void horizon_init(struct horizon *h, unsigned shard_count, site_id_t peer, const struct vv *mine);
void horizon_deinit(struct horizon *h); /* accepts zeroed */
void horizon_see(struct horizon *h, struct dot dot);
/* have: what the receiver has durably, by shard. */
bool horizon_met(const struct horizon *h, const struct vv *have);

#endif
