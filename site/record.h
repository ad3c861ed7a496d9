/* Records of a shard's journal. One record is applied as a whole; what it does to the state is a
 * function of the state before and its bytes, so replay after a crash gives the same state.
 *
 *   byte 0  type; then commit_hlc (u64): when this site committed it, rising with the index. With
 *           RECORD_NAMES added to the type, a count (u8, 1 or 2) follows, and for each a shard
 * (u16) and an index (varint): records that this one goes with, see site/parts.h. Journals of
 *           versions before have none of that.
 *   OP      session, number (varints; 0: none), rc, oid (the stored result); op bytes
 *   REMOTE  peer (u32), cursor (varint: the peer's next index for this shard, 0: not moved),
 *           count, each: op bytes
 *   DELIVER from shard (u16), message number (varint), op bytes: the parts of another shard's
 *           operation that belong here
 *   DERIVED from shard (u16), message number (varint), bytes: see journal/merge.h
 *   LOCAL   count, each: key, present (u8), value: the site's own business, never shipped
 *   SNAPSHOT the same, any key: what a new site starts from
 *   PAST    count, each: op bytes: what the snapshot before it holds and others may lack (W12); it
 *           has the commit_hlc of the site that the snapshot is of, and changes nothing here
 *
 * Threads: any; pure. */
#ifndef SITE_RECORD_H
#define SITE_RECORD_H

#include "base/codec.h"
#include "journal/op.h"
#include "site/parts.h"

#define RECORD_NAMES 0x80u

enum record_type {
    RECORD_OP = 1,
    RECORD_REMOTE,
    RECORD_DELIVER,
    RECORD_DERIVED,
    RECORD_LOCAL,
    RECORD_SNAPSHOT,
    RECORD_PAST
};

struct record {
    enum record_type type;
    uint64_t commit_hlc;
    struct parts_named named;
    uint64_t session, number; /* OP */
    int32_t rc;
    struct oid oid;
    site_id_t peer; /* REMOTE */
    uint64_t cursor;
    shard_id_t from; /* DELIVER, DERIVED */
    uint64_t message;
    uint32_t count;    /* REMOTE, PAST: operations; LOCAL, SNAPSHOT: pairs */
    struct slice body; /* OP, DELIVER: the op; DERIVED: bytes; others: the sequence */
};

struct record_head {
    uint64_t commit_hlc;
    struct parts_named named; /* of REMOTE, DELIVER and DERIVED */
};
void record_op(struct buf *b,
               uint64_t hlc,
               uint64_t session,
               uint64_t number,
               int32_t rc,
               struct oid oid,
               const struct op *op);
void record_remote(struct buf *b,
                   const struct record_head *head,
                   site_id_t peer,
                   uint64_t cursor,
                   uint32_t count,
                   struct slice ops /* each as enc_bytes */);
void record_message(struct buf *b,
                    enum record_type type,
                    const struct record_head *head,
                    shard_id_t from,
                    uint64_t message,
                    struct slice bytes);
void record_local(struct buf *b,
                  enum record_type type,
                  uint64_t hlc,
                  uint32_t count,
                  struct slice pairs /* each as key bytes, u8, value bytes */);
void record_past(struct buf *b,
                 uint64_t hlc,
                 uint32_t count,
                 struct slice ops /* each as enc_bytes */);
/* Slices borrow from s. ERR_MALFORMED, ERR_TRUNCATED. */
int record_decode(struct slice s, struct record *ret) MUST_CHECK;

/* What a body holds, one after the other: `in` starts as dec_of(body). False: no more; dec_end(in)
 * is 0 if there were r->count, whole, and nothing behind. */
struct record_pair {
    struct slice key, value; /* the key is not empty */
    bool present;
};
bool record_op_next(const struct record *r, uint32_t i, struct dec *in, struct slice *ret);
bool record_pair_next(const struct record *r, uint32_t i, struct dec *in, struct record_pair *ret);

#endif
