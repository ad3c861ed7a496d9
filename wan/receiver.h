/* The receiving end of a stream: order, one batch at a time, acknowledgement of what is durable.
 *
 *            frame            receiver_next          receiver_applied
 *   EMPTY ----------> READY ----------------> APPLYING ----------------> EMPTY
 *
 * There are two slots, so that the next batch is decoded while one is applied; the shell stops
 * reading when both are taken, and HTTP/2's window then stops the sender (W5). A batch whose stamp
 * is more than ten minutes ahead of this clock stays READY until the clock has caught up (W6). A
 * core. */
#ifndef WAN_RECEIVER_H
#define WAN_RECEIVER_H

#include "wan/batch.h"
#include "wan/lag.h"
#include "wan/msg.h"

#define RECEIVER_SLOTS 2u
#define RECEIVER_AHEAD_MAX_NS (600 * NS_PER_SEC)

enum receiver_slot_state {
    SLOT_EMPTY,
    SLOT_READY,
    SLOT_APPLYING
};
struct receiver_slot {
    enum receiver_slot_state state;
    struct batch_decoded decoded;
    uint64_t bytes;    /* of its operations */
    uint64_t hlc_max;  /* highest stamp in it */
    uint64_t beat_hlc; /* a heartbeat that came behind it: all up to here is applied with it */
};
struct receiver {
    unsigned shard_count;
    site_id_t self, peer;
    struct batch_memory memory;
    struct receiver_slot slots[RECEIVER_SLOTS];
    uint32_t oldest; /* slots are used in turn; the next one to apply */
    uint32_t taken;  /* slots that are not EMPTY */
    uint64_t number; /* of the last batch taken */
    /* A heartbeat that was heard before the batches that it came behind; this is the last of them.
     */
    uint64_t early_number, early_hlc;
    struct lag lag;
    struct skew skew;
    struct delay delay;     /* of the heartbeats */
    uint64_t held_ahead_ns; /* how far a held batch is ahead of the clock; 0: none is held */
    uint64_t ops_applied, bytes_applied, batches_applied; /* since the start of the program */
    uint64_t durable[SHARD_COUNT_MAX]; /* cursor known durable, of the shards: next to ask for */
    uint64_t told[SHARD_COUNT_MAX];    /* cursor acknowledged */
    struct vv *vvs_told, *vvs_durable; /* by shard */
};
void receiver_init(
    struct receiver *r, unsigned shard_count, site_id_t self, site_id_t peer, uint64_t now_ns);
void receiver_deinit(struct receiver *r);

/* A new stream begins; no batch may be APPLYING. What was told before is forgotten: the hello says
 * all, from these vectors and cursors (by shard). */
void receiver_begin(struct receiver *r, const uint64_t *next, const struct vv *vvs);
/* The stream is gone; READY batches are dropped, an APPLYING one will still end. */
void receiver_end(struct receiver *r);
bool receiver_is_applying(const struct receiver *r);

/* May the next frame be read? */
bool receiver_has_room(const struct receiver *r);
/* Decodes a batch into a free slot. ERR_PEER: out of order; else as batch_decode. */
int receiver_batch(struct receiver *r, struct slice in, struct slice noise) MUST_CHECK;
/* before: batches that came before it on the stream and are not taken yet. */
void receiver_heartbeat(struct receiver *r,
                        const struct msg_heartbeat *h,
                        uint64_t before,
                        uint64_t now_ns,
                        uint64_t wall_ns);

/* The batch to apply now, or NULL: none, one is being applied, or it is held. */
const struct receiver_slot *receiver_next(struct receiver *r, uint64_t wall_ns);
/* The APPLYING batch is visible. */
void receiver_applied(struct receiver *r);
/* The APPLYING batch could not be applied: it is dropped; the stream must end. */
void receiver_failed(struct receiver *r);
/* What is durable now; both by shard. */
void receiver_durable(struct receiver *r, const uint64_t *next, const struct vv *vvs);
/* Something became durable that the sender was not told. It need not be told of the receiver's own
 * operations. */
bool receiver_owes_ack(const struct receiver *r);
/* Encodes an acknowledgement of all that is durable. */
void receiver_ack(struct receiver *r, uint64_t wall_ns, uint64_t hlc, struct buf *out);

#endif
