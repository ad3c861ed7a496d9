/* The chunk store of one target: sealed chunks in append-only segment files, found through an index
 * in RocksDB. Of a chunk it reads the length before compression in its header, for
 * statistics, and nothing else: whoever reads one opens it with data/chunk.h.
 *
 * Put: an id that is here already is kept (its epoch is refreshed); else the record (header with
 * id, length, epoch, CRC32C) joins the group that is being filled and goes out as one O_DIRECT
 * write with RWF_DSYNC; done runs when it is on disk (P2), then the index learns of it, lazily.
 * Get: the record is read with O_DIRECT and its CRC checked. Recovery: the index says up to which
 * position it knows the segments; what lies behind is scanned, a torn tail is cut (D5).
 *
 * Requests are embedded by the caller and stay untouched by it until done; asynchronous laws as in
 * base/loop.h: an error from the call means done never runs; else it runs exactly once, later.
 * Threads: the loop's, unless noted. Disk and index work that may block runs on the pool. */
#ifndef DATA_STORE_H
#define DATA_STORE_H

#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "data/chunk_id.h"

#define STORE_SEGMENT_BYTES_DEFAULT (64u * MIB)

struct store;

struct store_config {
    const char *dir;          /* made when missing (its parent exists); copied */
    uint64_t segment_bytes;   /* 0 = default; a multiple of 4096; bounds the largest chunk */
    uint64_t reserve_bytes;   /* puts leave this much of the file system free: room for compaction
                                 and index; 0 = two segments */
    uint64_t queue_bytes_max; /* bytes of puts not yet durable; 0 = 64 MiB */
    uint32_t queue_max;       /* requests of each kind under way; 0 = 4096 */
    size_t cache_bytes;       /* of the index; 0 = 64 MiB */
    bool no_sync;             /* tests only: plain writes */
    struct loop *loop;        /* borrowed */
    struct pool *pool;        /* borrowed */
    void *ctx;
    /* A chunk that should be here is damaged: get says ERR_CORRUPT, has says no, and a put of
     * the same id repairs it. Once per id and run; may be NULL. */
    void (*on_damaged)(void *ctx, const struct chunk_id *id);
};
struct store_recovery {
    uint64_t segments;      /* files present */
    uint64_t scanned_bytes; /* read because the index did not cover them */
    uint64_t chunks;        /* records the index learned of thereby */
    uint64_t torn_bytes;    /* cut from the tail */
    uint64_t damaged;       /* bad records before the tail */
    char torn_file[64];
    bool index_rebuilt; /* the index was lost or unreadable and has been made anew */
};

/* Blocking; at start-up, before loop_run or inside a loop callback. ERR_CONFIG, ERR_IO, ERR_BUSY
 * (another process has it open), ERR_VERSION. */
int store_open(struct store **ret,
               const struct store_config *config,
               struct store_recovery *ret_info,
               struct err_detail *detail) MUST_CHECK;
/* Refuses new requests (ERR_CLOSED), finishes those under way, brings the index up to date, then
 * frees the store and calls closed on the loop. */
void store_close(struct store *s, void (*closed)(void *ctx), void *ctx);

/* Where a record is, and a question to the index. Private, like all fields below that say so. */
struct store_entry {
    uint64_t segment; /* number of the segment file; 0 is none */
    uint64_t epoch;
    uint32_t offset;    /* of the record in the file */
    uint32_t len;       /* of the chunk */
    uint32_t plain_len; /* of what it was made from, as its header says; else len */
};
struct store_lookup {
    struct chunk_id id;
    struct store_entry entry; /* segment 0: not in the index */
    int rc;
    void (*done)(struct store_lookup *lookup); /* loop */
    struct store_lookup *next;
};

struct store_put {
    struct chunk_id id; /* in */
    /* in: sealed bytes, borrowed until done; 1 .. LIMIT_CHUNK_SEALED_BYTES. They are looked at
     * once, when they are copied: others may write to them at any time. */
    struct slice data;
    /* rc 0: durable (and from now on safe from garbage collection for a full pass). ERR_NO_SPACE,
     * ERR_IO: not stored. */
    void (*done)(struct store_put *put, int rc);
    struct store *store; /* private from here */
    struct store_put *next;
    struct store_put *waiters; /* puts of the same id that came meanwhile */
    struct store_lookup lookup;
    struct store_entry old; /* what the index says of the id now */
    uint64_t epoch;
    uint32_t offset;       /* in the group's buffer */
    uint32_t plain_len;    /* as the copy there says */
    uint32_t move_offset;  /* compaction: the record that is to be moved, */
    uint64_t move_segment; /* if the index still points to it; 0: a put */
    int rc;
};
/* ERR_LIMIT: too much under way, try when something is done. ERR_TOO_BIG, ERR_INVALID, ERR_CLOSED.
 * ERR_NO_SPACE may come at once, too. */
int store_put(struct store *s, struct store_put *put) MUST_CHECK;

/* Memory of a chunk that was read; data points into mem. */
struct chunk_buf {
    void *mem;
    struct slice data;
};
void chunk_buf_deinit(struct chunk_buf *b); /* accepts zeroed; leaves it zeroed */

#define STORE_ROOM_ALIGN 4096u
#define STORE_ROOM_BYTES (LIMIT_CHUNK_SEALED_BYTES + 4u * STORE_ROOM_ALIGN) /* for any chunk */
struct store_get {
    struct chunk_id id; /* in */
    /* in: only so many bytes of it, and from where; what lies beyond its end is left out, and len 0
     * is all of it. A range is not checked against the record's checksum, which is of the whole:
     * the reader checks it (parts of a chunk have tags), and gets the whole when it is bad. */
    uint32_t from, len;
    /* in: the owner's memory to read into if it is enough and aligned (STORE_ROOM_ALIGN), or NULL.
     * Others may write to it at any time: what is bad in there is read again elsewhere. */
    void *room;
    size_t room_len;
    uint32_t chunk_len; /* out, with rc 0: of the whole chunk */
    /* rc 0: *data is the callee's: move it away (and zero it), or it is freed after the callback.
     * In the room it has no mem.
     * ERR_NOT_FOUND; ERR_CORRUPT (damaged: ask a peer, then store_put); ERR_IO. */
    void (*done)(struct store_get *get, int rc, struct chunk_buf *data);
    struct store *store; /* private from here */
    struct store_get *next;
    struct store_lookup lookup;
    struct store_segment *segment; /* being read, referenced */
    struct chunk_buf buf;
    uint8_t *into; /* buf.mem or room */
    struct loop_req req;
    uint64_t read_at;   /* in the file, aligned */
    uint32_t skip;      /* from there to the bytes asked for, or the record */
    uint32_t want, got; /* bytes of the aligned read */
    uint32_t tries;
    int rc;
};
int store_get(struct store *s, struct store_get *get) MUST_CHECK; /* ERR_LIMIT, ERR_CLOSED */

struct store_has {
    const struct chunk_id *ids; /* in: borrowed until done */
    uint32_t count;             /* in: 1 .. STORE_HAS_MAX */
    bool keep;     /* in: those present count as put now, so a sender may skip sending them */
    bool *present; /* out: count entries, borrowed until done */
    void (*done)(struct store_has *has, int rc);
    struct store *store; /* private from here */
    struct store_has *next;
    struct store_has_lookup *lookups; /* for those that need the disk */
    uint32_t open;                    /* lookups under way */
    int rc;
};
#define STORE_HAS_MAX 4096u
int store_has(struct store *s, struct store_has *has) MUST_CHECK; /* ERR_LIMIT, ERR_CLOSED */

struct store_stats {
    uint64_t chunks;      /* held */
    uint64_t live_bytes;  /* of their records, sealed */
    uint64_t plain_bytes; /* of what they were made from, before compression */
    uint64_t file_bytes;  /* of all segments */
    uint64_t free_bytes;  /* that puts may still use, by the file system and the reserve */
    uint64_t segments;
    uint64_t damaged; /* known now */
    uint64_t epoch;
    uint64_t puts, dedups, gets, groups; /* since open */
    uint64_t scrubbed_bytes, compacted_bytes;
};
void store_stats(const struct store *s, struct store_stats *ret);

/* ---- garbage (see data/gc.h) ---- */
/* The epoch that puts carry; grows by one with each pass and with each open. */
uint64_t store_epoch(const struct store *s);
uint64_t store_epoch_advance(struct store *s); /* returns the new one */
/* Deletes every chunk with epoch < before for which keep() says no, and that was not put or kept
 * meanwhile. */
struct store_sweep {
    uint64_t before;                                    /* in */
    bool (*keep)(void *ctx, const struct chunk_id *id); /* in: pool thread */
    void *ctx;
    void (*done)(struct store_sweep *sweep, int rc);
    uint64_t chunks, bytes; /* out: deleted */
    uint64_t young_chunks;  /* out: left for their epoch alone */
    uint64_t young_bytes;
    struct store *store; /* private */
};
int store_sweep(struct store *s,
                struct store_sweep *sweep) MUST_CHECK; /* ERR_BUSY: one at a time */

/* ---- upkeep ---- */
/* Reads the next chunks in id order, about budget_bytes, and checks them; then done. Damage goes to
 * on_damaged. The owner decides how often. */
struct store_scrub {
    uint64_t budget_bytes; /* in */
    void (*done)(struct store_scrub *scrub, int rc);
    uint64_t chunks, bytes, damaged; /* out: of this step */
    bool wrapped;                    /* out: the end was reached, next is the start */
    struct store *store;             /* private */
};
int store_scrub(struct store *s, struct store_scrub *scrub) MUST_CHECK; /* ERR_BUSY */
/* Takes the segment with the least live data, if that is below live_percent of its size, copies
 * what lives to the end, brings the index down to disk, and only then removes the file. Gets go on
 * meanwhile. */
struct store_compact {
    unsigned live_percent; /* in: 50 is a good value; 0 = 50 */
    /* ERR_AGAIN: something in it was just being put, try again. ERR_CORRUPT: something that lives
     * in it cannot be read; it stays, and is passed over until the next open. ERR_NO_SPACE, ERR_IO.
     */
    void (*done)(struct store_compact *compact, int rc);
    uint64_t moved_bytes, freed_bytes; /* out */
    bool nothing;                      /* out: no segment qualified */
    struct store *store;               /* private */
};
int store_compact(struct store *s, struct store_compact *compact) MUST_CHECK; /* ERR_BUSY */

#endif
