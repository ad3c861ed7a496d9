/* Private to site/: rows that a shard keeps in its state beside the engine's (enum shard_key), and
 * the small file of a copy. They come from the disk, and some of them from another site's snapshot
 * or another node's copy. Core.
 *
 * Numbers in keys are big endian, so that keys sort. A row that is not as it should be is damaged,
 * or of a newer version: decoders say false, and callers pass it over. Slices are borrowed. */
#ifndef SITE_SHARD_ROW_H
#define SITE_SHARD_ROW_H

#include "site/shard.h"

void key_be(struct buf *b, uint64_t v, unsigned bytes);
uint64_t be_get(const uint8_t *p, unsigned bytes);
static inline void key_begin(struct buf *b, enum shard_key k)
{
    uint8_t c = (uint8_t)k;
    buf_clear(b);
    buf_append(b, &c, 1);
}

/* CURSOR and ACKED of a site, OUT_NEXT and IN of a shard: one number each. */
void row_number_key(struct buf *key, enum shard_key k, uint32_t of);
void row_number_value(struct buf *value, uint64_t number);
bool row_number_decode(struct slice key, struct slice value, uint32_t *ret_of, uint64_t *ret);

/* OUTBOX */
struct row_outbox {
    shard_id_t to;
    uint64_t number;       /* from 1 */
    enum record_type type; /* DELIVER or DERIVED */
    struct slice bytes;
};
void row_outbox_key(struct buf *key, shard_id_t to, uint64_t number);
void row_outbox_value(struct buf *value, enum record_type type, struct slice bytes);
bool row_outbox_decode(struct slice key, struct slice value, struct row_outbox *ret);

/* WAITING: its value is an operation */
void row_waiting_key(struct buf *key, uint64_t number);
bool row_waiting_decode(struct slice key, uint64_t *ret_number);

/* RESULT */
void row_result_key(struct buf *key, uint64_t session, uint64_t number);
void row_result_value(struct buf *value, int32_t rc, struct oid oid);
bool row_result_key_decode(struct slice key, uint64_t *ret_session, uint64_t *ret_number);
bool row_result_decode(struct slice value, int32_t *ret_rc, struct oid *ret_oid);

/* LIMIT */
struct row_limit {
    site_id_t site;
    uint64_t seq;
    enum shard_limit limit; /* HOLD or CUT */
};
void row_limit_encode(const struct row_limit *r, struct buf *key, struct buf *value);
bool row_limit_decode(struct slice key, struct slice value, struct row_limit *ret);

/* LAST */
void row_last_encode(site_id_t site, struct last_op op, struct buf *key, struct buf *value);
bool row_last_decode(struct slice key, struct slice value, site_id_t *ret, struct last_op *ret_op);

/* ORPHAN: what was written to a file that is open and has no name; there is none of one that has.
 */
struct row_orphan {
    uint64_t version; /* rises; no number is used twice for a file */
    int64_t mtime_ns;
    struct content content;
};
#define ROW_ORPHAN_KEY_BYTES 17u
void row_orphan_key(struct oid oid, uint8_t ret[ROW_ORPHAN_KEY_BYTES]);
bool row_orphan_key_decode(struct slice key, struct oid *ret);
void row_orphan_value(struct buf *value, const struct row_orphan *r);
bool row_orphan_decode(struct slice value, struct row_orphan *ret);

/* DIR/shard-N/replica, of a shard that several nodes keep; replaced atomically. */
#define REPLICA_FILE_BYTES 14u /* magic 4 | life 8 | blank 1 | copying 1 */
struct replica_file {
    uint64_t life;
    bool blank, copying;
};
void replica_file_encode(const struct replica_file *f, struct buf *out);
bool replica_file_decode(struct slice bytes, struct replica_file *ret);

#endif
