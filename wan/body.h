/* The effects of operations, as a batch carries them (batch.h): encoded operations repeat
 * themselves, and most numbers in them follow from what came before. A body, canonical msgpack, is
 * taken apart into a *shape*, one mark for each value, and the values that the marks do not say,
 * by kind, in columns:
 *
 *   shapes   varint: 0 a new shape, 1 one that is not remembered, both followed by varint length
 *            and the marks; 2 + k the k-th of the BODY_SHAPES remembered ones
 *   nums     varints
 *   text     names and other bytes
 *   noise    what no compression makes smaller: hashes, new ids
 *
 * A mark below a0, c0, c2, c3 or above df is the msgpack byte itself; dc, dd and d0 to d3 too, with
 * the 2, 4 and 1, 2, 4, 8 bytes that follow. The rest:
 *
 *   a0       an id used lately; nums: its place, the last used first
 *   a1-a7    the id of the file of this kind that this operation makes
 *   a8       another id; noise: 16 bytes
 *   a9       the operation's site           aa  its seq minus nums
 *   ab       its time                       ac  another number; nums
 *   ad       2 to the power of the byte that follows
 *   ae       bytes; nums: length; text      af  32 bytes; noise
 *   b0       no bytes                       b1  one byte, which follows
 *   b2       short bytes used lately; nums: place
 *   b3       8 bytes: a time in whole seconds; nums: zigzag of the difference to the last such
 *   b4       8 bytes: a time near the operation's; nums: zigzag of the difference
 *
 * Encoder and decoder keep the same memory along the stream. A core. */
#ifndef WAN_BODY_H
#define WAN_BODY_H

#include "base/buf.h"
#include "base/codec.h"
#include "base/id.h"

#define BODY_IDS 32u
#define BODY_BYTES 16u     /* short bytes remembered */
#define BODY_BYTES_MAX 32u /* of one */
#define BODY_SHAPES 64u
#define BODY_SHAPE_MAX 512u /* marks of a shape that is remembered */

/* What stands before the effects in every operation. */
struct op_head {
    uint64_t shard, site, seq, hlc;
    int64_t time_ns;
};

struct body_memory {
    struct oid ids[BODY_IDS]; /* the last used first */
    uint32_t id_count;
    struct body_bytes {
        uint8_t len;
        uint8_t at[BODY_BYTES_MAX];
    } bytes[BODY_BYTES];
    uint32_t bytes_count;
    struct buf shapes[BODY_SHAPES];
    uint32_t shape_hashes[BODY_SHAPES]; /* encoder */
    struct buf marks;                   /* encoder: of the body under way */
    uint32_t shape_next; /* place of the next new one, plus BODY_SHAPES once all are taken */
    uint64_t second;     /* of the last time in whole seconds */
};
void body_memory_deinit(struct body_memory *m); /* zeroed is valid */

struct body_out {
    struct buf shapes, nums, text, noise;
};
struct body_in {
    struct dec shapes, nums, text, noise;
};

/* Every value in the one form that base/mp.h gives it: else the operation travels as it is. */
bool body_is_canonical(struct slice body);
/* Appends a canonical body to the columns; none of them grows by more than half of its length and a
 * few bytes. */
void body_encode(struct body_memory *m,
                 const struct op_head *h,
                 struct slice body,
                 struct body_out *out);
/* Appends the body. ERR_TRUNCATED, ERR_MALFORMED, ERR_TOO_BIG above len_max. */
int body_decode(struct body_memory *m,
                const struct op_head *h,
                struct body_in *in,
                size_t len_max,
                struct buf *out) MUST_CHECK;

static inline uint64_t zigzag(uint64_t from, uint64_t to)
{
    uint64_t diff = to - from; /* wraps; the reader wraps back */
    return diff << 1 ^ (uint64_t) - (int64_t)(diff >> 63);
}
static inline uint64_t unzigzag(uint64_t from, uint64_t coded)
{
    return from + (coded >> 1 ^ (uint64_t) - (int64_t)(coded & 1));
}

#endif
