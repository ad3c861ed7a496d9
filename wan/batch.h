/* Batches of operations: what one FRAME_BATCH holds.
 *
 * Heads of operations (dot, stamp, time) are written as differences to what came before in the
 * stream, their effects by body.h; so encoder and decoder keep the same small memory along the
 * stream. An operation that is not in the one canonical form travels as it is. Bytes of one kind
 * stand together, because they compress better among their like, and what no compression makes
 * smaller is kept apart. The payload of a frame:
 *
 *   varint length of the noise | noise | the plain part, compressed (zstream.h)
 *
 * and the plain part:
 *
 *   varint number - last number | u8 flags
 *   varint count of cursors, each: varint shard, varint next - last next of that shard
 *   varint count of operations
 *   kinds    u8 each: 1 as it is, 2 same shard, 4 same site, 8 seq is the next, 16 the stamp's
 *            milliseconds are those of the time, 32 its counter is 0
 *   varint length | shapes
 *   varint length | nums; of each operation, before what its body has there:
 *            as it is: varint shard, varint length
 *            else: [varint shard] [varint site index; the next unused index: varint site follows]
 *                  [varint zigzag(seq - last)] varint zigzag(time_ns - last)
 *                  [varint zigzag(ms - ms of time)] [varint counter]
 *            and behind them all: varint zigzag(hlc - hlc of the last operation, or batch)
 *   text     also operations as they are
 *
 * A core. */
#ifndef WAN_BATCH_H
#define WAN_BATCH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "base/limits.h"
#include "wan/body.h"

#define BATCH_FLAG_BARRIER 1u
/* Operations of one batch: bounds what one turn of the receiving reactor has to do. */
#define BATCH_ITEMS_MAX 4096u
#define BATCH_DECODED_MAX (LIMIT_BATCH_BYTES + LIMIT_OP_BYTES)

struct batch_item {
    shard_id_t shard;
    struct dot dot;  /* of the operation; none when its head cannot be read (decoder) */
    uint64_t hlc;    /* of its stamp; 0 when its head cannot be read (decoder) */
    struct slice op; /* encoded operation */
};
struct batch {
    uint64_t number; /* 1, 2, ... along a stream */
    uint64_t hlc;    /* everything committed at the sender up to here has been sent */
    bool barrier;    /* holds one directory move and nothing else */
    uint64_t cursor[SHARD_COUNT_MAX]; /* next index to ask for; 0: this shard did not move */
    struct batch_item *items;
    uint32_t count;
};

struct batch_memory {
    unsigned shard_count;
    uint64_t number; /* of the last batch */
    uint64_t hlc;    /* of the last operation, or batch without */
    uint64_t cursor[SHARD_COUNT_MAX];
    uint32_t site_count;
    site_id_t sites[SITE_COUNT_MAX];
    uint64_t *seqs[SITE_COUNT_MAX]; /* by shard; made when first needed */
    shard_id_t shard;               /* of the last operation */
    uint32_t site_idx;
    int64_t time_ns;
    struct body_memory body;
    struct body_out out; /* columns of the batch under way; encoder */
};
void batch_memory_init(struct batch_memory *m, unsigned shard_count);
void batch_memory_deinit(struct batch_memory *m);

/* Appends the plain part to `out`, the noise to `noise`. Items need shard and op only. */
void batch_encode(struct batch_memory *m,
                  const struct batch *b,
                  struct buf *out,
                  struct buf *noise);

/* A decoded batch owns its bytes. Zeroed is valid. */
struct batch_decoded {
    struct batch batch;
    struct buf bytes; /* behind items' slices */
    uint32_t items_cap;
};
/* ERR_TRUNCATED, ERR_MALFORMED, ERR_TOO_BIG, ERR_LIMIT: the stream is of no use after any. */
int batch_decode(struct batch_memory *m,
                 struct slice in,
                 struct slice noise,
                 struct batch_decoded *ret) MUST_CHECK;
void batch_decoded_deinit(struct batch_decoded *b);

#endif
