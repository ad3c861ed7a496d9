/* State of one shard: an ordered map from byte keys to byte values, in two layers.
 *
 * The upper layer is in memory (an ordered map of our own: `active`, and `frozen` while it is being
 * written down); the lower layer is optional: RocksDB in production, none in tests and simulation.
 * Reads see active over frozen over store. Writes go to active only, and become part of the store
 * in one atomic batch that also carries the journal index it brings the state to; there is no
 * write-ahead log here: after a crash the journal is replayed from state_stored_index() + 1.
 *
 * The owner calls state_advance(index) after it has applied journal record `index`. It freezes when
 * state_active_bytes() passes its bound, and may write the frozen layer down only when the journal
 * is durable up to state_frozen_index() (J-rule: the store never runs ahead of the journal).
 *
 * Slices returned by reads are borrowed until the next call on this state of any kind.
 * Threads: the owner's, except state_write_frozen(), which may run on a pool thread meanwhile. */
#ifndef JOURNAL_STATE_H
#define JOURNAL_STATE_H

#include "base/buf.h"
#include "base/err.h"

struct state;
struct state_store; /* a lower layer; see state_store_rocks_open */

int state_open(struct state **ret,
               struct state_store *store /* owned on success; may be NULL */) MUST_CHECK;
void state_free(struct state *st); /* drops what was not written down */
/* Goes back to what the store holds, as if it were opened anew. Not while a frozen layer is being
 * written. */
void state_forget(struct state *st);

bool state_get(struct state *st, struct slice key, struct slice *ret_value);
void state_put(struct state *st, struct slice key, struct slice value);
void state_del(struct state *st, struct slice key); /* absent is fine */

/* Ordered scan of keys with a prefix, from the first key >= start (start may be empty: then from
 * the prefix). Usage: state_scan_begin; while (state_scan_next(&it)) use it.key, it.value;
 * state_scan_end. The state must not be written while a scan is open, except by copying first. */
struct state_scan {
    struct slice key, value; /* valid after state_scan_next returned true, until the next call */
    void *priv[4];
    struct state *st;
    struct buf prefix;
};
void state_scan_begin(struct state *st,
                      struct state_scan *it,
                      struct slice prefix,
                      struct slice start);
bool state_scan_next(struct state_scan *it);
void state_scan_end(struct state_scan *it);

/* A read failure of the store (I/O, corruption) is sticky: gets read as absent from then on, and
 * the owner must check here before it acts on what it read. 0 when healthy. */
int state_health(const struct state *st);

void state_advance(struct state *st, uint64_t index); /* not below the last */
uint64_t state_index(const struct state *st);         /* last advanced (or stored) */
uint64_t state_stored_index(const struct state *st);  /* what the store holds durably */
size_t state_active_bytes(const struct state *st);

/* Writing down. freeze: loop; false when a frozen layer exists already or there is no store.
 * write_frozen: any one thread; blocking; on failure the frozen layer stays. thaw: loop, after
 * write_frozen returned 0. */
bool state_freeze(struct state *st);
bool state_is_frozen(const struct state *st); /* a frozen layer waits to be written or thawed */
uint64_t state_frozen_index(const struct state *st);
int state_write_frozen(struct state *st, struct err_detail *detail) MUST_CHECK;
void state_thaw(struct state *st);

/* An iterator over what the store holds now, in key order; later writes do not show in it. NULL
 * without a store. Any one thread at a time; free it before the state. */
struct state_iter;
struct state_iter *state_iter_new(struct state *st);
bool state_iter_at(struct state_iter *it, struct slice *ret_key, struct slice *ret_value);
void state_iter_next(struct state_iter *it);
int state_iter_free(struct state_iter *it); /* reports a read error; accepts NULL */

/* The lower layer. */
struct state_store_ops {
    int (*get)(void *ctx, struct slice key, struct buf *ret_value, bool *ret_found);
    /* From the first key >= seek; keys >= end (empty: none is) need not be shown, and what was
     * deleted there is not to cost anything. */
    void *(*iter_new)(void *ctx, struct slice seek, struct slice end);
    bool (*iter_at)(void *iter, struct slice *ret_key, struct slice *ret_value); /* false: end */
    void (*iter_next)(void *iter);
    int (*iter_free)(void *iter); /* reports a read error */
    /* One atomic, durable write of all pairs (value.ptr NULL = delete) in key order. */
    int (*write)(void *ctx,
                 uint64_t index,
                 bool (*next)(void *nctx, struct slice *key, struct slice *value, bool *is_delete),
                 void *nctx,
                 struct err_detail *detail);
    uint64_t (*index)(void *ctx);
    void (*close)(void *ctx);
};
struct state_store {
    const struct state_store_ops *ops;
    void *ctx;
};
/* RocksDB in `dir` (created when missing), no WAL, zstd-compressed, bloom filters, checksums
 * verified, block cache of cache_bytes. */
int state_store_rocks_open(struct state_store *ret,
                           const char *dir,
                           size_t cache_bytes,
                           struct err_detail *detail) MUST_CHECK;

#endif
