/* One shard: its journal, its state, its engine, and the primary's role.
 *
 * A request is evaluated (site/posix_*.c) against the state, which already holds everything in
 * flight, and becomes an operation. shard_propose() appends it to the journal and applies it to the
 * state in memory; when its record is durable, the parts that belong to other shards are delivered,
 * and then `committed` runs and the request is answered. What is in memory but not yet durable is
 * never shown: a read of a name or an object that an operation in flight has touched is answered
 * only when that operation is durable (marks), and names and objects whose change in *another*
 * shard is still to be delivered are latched there: whoever needs them waits and evaluates again.
 * No one waits while holding a latch, so there is no deadlock.
 *
 * If an append fails, nothing happened. If a journal write fails, or applying fails, the shard has
 * failed: the node stops; what was durable is there after the restart.
 *
 * Messages between shards are kept in the sender's outbox (in its state) until the receiver has
 * them in its durable journal, and are sent again after a restart; receivers skip what they have.
 * One that the receiver's journal refuses, and what would leave behind it, is held until the
 * receiver takes it; `committed` of the operation runs then.
 *
 * Invariants
 *  S1 the state's store never holds what the journal does not have durably (state.h).
 *  S2 a local operation leaves its shard (deliveries, feed, replies) only when durable.
 *  S3 records are appended in exactly the order in which they are applied.
 *  S4 at most one record is applied at a time; deliveries run between records.
 *  S19 messages of one shard to another become known there in the order in which they leave: what
 *     was refused is passed by nothing behind it.
 *  S21 nothing counts as durable before what it belongs to, or came from, is on the disk in all
 *     shards (parts.h); S22 and a restart keeps nothing else.
 *
 * Keys in the state: first byte >= 0x80 is ours, see enum shard_key.
 * Threads: loop, except where noted. */
#ifndef SITE_SHARD_H
#define SITE_SHARD_H

#include "base/clock.h"
#include "base/hlc.h"
#include "journal/log.h"
#include "journal/merge.h"
#include "site/coordinator.h"
#include "site/record.h"

struct shard;

enum shard_key {
    SHARD_KEY_OUTBOX = 0x81, /* dst (2), number (8) -> type (1), bytes */
    SHARD_KEY_OUT_NEXT,      /* dst (2) -> next number (8) */
    SHARD_KEY_ORPHAN,        /* oid -> content, mtime: open and unlinked, written after */
    SHARD_KEY_RESULT,        /* session (8), number (8) -> rc, oid */
    SHARD_KEY_WAITING,       /* number (8) -> an operation whose dots are not here yet */
    SHARD_KEY_ACKED,         /* peer (4) -> index in our journal that the peer has durably */
    SHARD_KEY_CURSOR,        /* peer (4) -> next index to ask the peer for */
    SHARD_KEY_NODE,          /* the node's own small things, shard 0 */
    SHARD_KEY_LIMIT,         /* site (4) -> last seq that is taken (8), enum shard_limit (1) */
    SHARD_KEY_IN,            /* several nodes: src (2) -> number of the last message taken (8) */
    SHARD_KEY_LAST,          /* site (4) -> its last operation: seq (8), hlc of its stamp (8) */
    SHARD_KEY_BEHIND         /* site (4) -> beyond this seq (8) its operations wait (L6) */
};

/* What becomes of operations of a site that leaves, beyond its limit here. */
enum shard_limit {
    LIMIT_NONE, /* there is no limit */
    LIMIT_HOLD, /* they wait: the cut is not known yet */
    LIMIT_CUT   /* they are dropped */
};

struct shard_message {
    shard_id_t from, to;
    enum record_type type;
    uint64_t number;    /* rises by one for each `to` */
    uint64_t batch;     /* it must not count before that one is whole; 0: none (parts.h) */
    struct slice bytes; /* borrowed */
};

struct shard_events {
    /* Hand a message to another shard of the site. Synchronous within a node: when it returns 0 the
     * receiver has applied it in memory (or keeps it until its dots are there); else the receiver
     * knows nothing of it, and it comes again. With several nodes it may get lost: whoever leads
     * the receiver hands it to shard_receive(), and what is returned here says nothing. */
    int (*deliver)(void *ctx, const struct shard_message *m);
    /* The receiver has message `number` of `from` durably; with several nodes: all up to it, and
     * this may get lost on its way to shard_delivered(). */
    void (*delivered)(void *ctx, shard_id_t from, shard_id_t to, uint64_t number);
    /* More batches are whole: shard_commit() for all shards. */
    void (*whole)(void *ctx);
    /* Alone: has the home shard of this dot applied it? */
    bool (*applied)(void *ctx, struct dot d);
    /* What the next events are about: the proposal whose messages are delivered now (its ctx), or
     * NULL: nobody's. */
    void (*on_behalf)(void *ctx, void *proposal_ctx);
    void (*name_changed)(void *ctx, struct oid parent, struct slice name);
    void (*object_changed)(void *ctx, struct oid oid, bool content);
    void (*register_changed)(void *ctx, struct oid oid); /* merge.h; may be NULL */
    void (*conflict)(void *ctx, const struct conflict *c);
    /* Something became durable or was applied: the feed may go on, repairs may be due. */
    void (*moved)(void *ctx, shard_id_t shard);
    void (*failed)(void *ctx, shard_id_t shard, int rc, const char *what);
    void *ctx;
};

struct shard_config {
    const char *dir; /* DIR/shard-N: journal/, state/ */
    shard_id_t id;
    unsigned shard_count;
    site_id_t site;
    struct hlc *hlc; /* the node's; borrowed */
    const struct clock *clock;
    struct loop *loop;
    struct pool *pool;               /* for writing the state down */
    struct coordinator *coordinator; /* who leads the shard; borrowed, while it is opened */
    const struct shard_peers *peers; /* other nodes keep it, too (shard_peers.h); NULL: alone */
    struct parts *parts;             /* of the site; borrowed; not used with peers */
    size_t cache_bytes;
    uint64_t segment_bytes;  /* of the journal; 0: as it likes */
    size_t checkpoint_bytes; /* state in memory beyond which it is written down */
    struct shard_events events;
    void (*site_name)(void *ctx, site_id_t site, char out[33]);
    void *name_ctx;
};

/* Opens journal and state. All shards of the site are opened, then shards_cut() once, then
 * shard_start() for each in turn; nothing else in between. */
int shard_open(struct shard **ret,
               const struct shard_config *config,
               struct err_detail *d) MUST_CHECK;
/* Cuts the journals back to what is whole (S22). After an error the shards can only be closed. */
int shards_cut(struct shard *const *shards, unsigned count, struct err_detail *d) MUST_CHECK;
/* Takes the shard over and replays; with several nodes it follows. Messages of the outbox are held
 * until shard_resend(). */
int shard_start(struct shard *s, struct err_detail *d) MUST_CHECK;
void shard_stop(struct shard *s); /* no new checkpoint begins: before the pool goes */
/* What was appended becomes durable, and counts; nothing more can be appended. For all shards,
 * before the first is closed. Accepts NULL. */
void shard_finish(struct shard *s);
void shard_close(struct shard *s); /* writes the state down, frees; accepts NULL */
/* What is on the disk and whole counts from now on. */
void shard_commit(struct shard *s);
/* Sends what is held, to each shard in order until one refuses. Often: it costs nothing else. */
void shard_resend(struct shard *s);

struct merge *shard_merge(struct shard *s);
struct state *shard_state(struct shard *s);
struct log *shard_log(struct shard *s);
/* Up to here every in-sync replica has the journal on disk, and all that belongs to it elsewhere:
 * what may be shown, and may leave (S21). */
uint64_t shard_committed(const struct shard *s);
shard_id_t shard_id(const struct shard *s);
uint64_t shard_next_seq(struct shard *s); /* of this site: what the next operation will get */
uint64_t shard_first_seq(const struct shard *s); /* and what the first one of this run has got */
/* The oid of a file that the next operation makes. No oid is given twice: operations that were
 * answered ahead of the disk may be lost, and their seqs used again, so the counter in the oid
 * starts higher in each epoch, by more than can have been lost. */
struct oid shard_new_oid(struct shard *s, enum oid_kind kind);
/* May the next file get its oid ahead of the disk? */
bool shard_may_make_ahead(const struct shard *s);
/* Can `o` have been given in an earlier epoch? */
bool shard_gave_oid(const struct shard *s, struct oid o);

/* ---- proposing ---- */
struct proposal {
    uint64_t session, number;             /* to store the result under; number 0: none */
    struct oid result;                    /* what to store */
    void (*committed)(void *ctx, int rc); /* durable, and known to the other shards; or NULL */
    void *ctx;
    bool is_call;    /* on_behalf(ctx) while its messages are delivered */
    int64_t time_ns; /* the operation's wall time; 0: now */
};
/* Journals and applies the builder's effects as one operation of this site. On error nothing
 * happened (ERR_NO_SPACE, ERR_FATAL, ERR_NOT_PRIMARY) and `committed` never runs. With several
 * nodes ERR_AGAIN: it names what other shards have, and this one has not heard of yet. */
int shard_propose(struct shard *s,
                  const struct op_builder *b,
                  const struct proposal *p,
                  struct op *ret_op /* may be NULL: dot, stamp and time as given */) MUST_CHECK;
/* Issues one repair that is owed in this shard: this site's own, or another one's that has waited
 * for longer than the sites before this one would have taken (rank: 1 + how many of lower id there
 * are). 1: it did, there may be more (committed() later); 0: none is due; an error of
 * shard_propose. */
int shard_repair(struct shard *s, unsigned rank, void (*committed)(void *ctx, int rc), void *ctx)
    MUST_CHECK;
/* A local record: puts (value.ptr != NULL) and deletes in the 0x80 key space. */
struct local_pair {
    struct slice key, value;
};
int shard_local(struct shard *s,
                const struct local_pair *pairs,
                uint32_t count,
                void (*committed)(void *ctx, int rc),
                void *ctx) MUST_CHECK;
/* Operations of a peer's stream that all have this home, in a causal order; with the cursor of this
 * shard after them, 0 when it does not move yet. Already known operations are skipped. */
struct shard_part {
    uint64_t commit_hlc; /* of hlc_next; several shards may get parts with one stamp */
    site_id_t peer;
    const struct slice *ops; /* encoded; borrowed */
    uint32_t count;
    uint64_t cursor;
    uint64_t batch;           /* of which this is a part; 0: of none, there are no operations */
    struct parts_named named; /* what the record names */
};
/* The next record of up to so many bytes will not be refused for want of space. */
int shard_reserve(struct shard *s, size_t bytes) MUST_CHECK;
/* The caller lets all shards take their parts before any other record is made, and calls
 * shard_drain() then, also after an error. */
int shard_remote(struct shard *s, const struct shard_part *part) MUST_CHECK;
/* Hands over what applying has made for other shards. */
void shard_drain(struct shard *s);
/* Journals up to which operation of this home a site is followed; in replay, too, what lies behind
 * this record obeys it. What waited below a raised limit is applied by shard_retry(). */
int shard_limit_set(struct shard *s,
                    site_id_t site,
                    enum shard_limit limit,
                    uint64_t seq,
                    void (*committed)(void *ctx, int rc),
                    void *ctx) MUST_CHECK;
enum shard_limit shard_limit(const struct shard *s, site_id_t site, uint64_t *ret_seq);
bool shard_holds(const struct shard *s); /* one of the limits is LIMIT_HOLD */
/* Alone, L6. Would this operation of a peer, of this home, wait for what it names? From a record
 * on, all of a site's operations of this home that are not applied yet wait behind such a one;
 * until another record. `i` counts such sites; 0: no more. */
bool shard_would_wait(struct shard *s, const struct op *op);
bool shard_is_behind(const struct shard *s, site_id_t site);
site_id_t shard_behind_at(const struct shard *s, uint32_t i);
/* since: stamp of the first that waits; 0: it is behind no more. */
int shard_behind_set(struct shard *s, site_id_t site, uint64_t since_hlc) MUST_CHECK;
/* That stamp; 1: it was behind when the shard was opened; 0: it is not behind. */
uint64_t shard_behind_since(const struct shard *s, site_id_t site);
/* After cuts were journaled: what counts as durable here is what was applied up to them. */
void shard_limits_settle(struct shard *s);
/* Registers of the root that say who is a member and who leaves, in operations that wait here but
 * are known ahead of their turn (shard_notice.c): a number that changes when others are known, 0
 * when none are; and those of one class with their stamps, the older ones too; borrowed, and no
 * call of the shard meanwhile. */
uint64_t shard_notices(struct shard *s);
int shard_notices_each(struct shard *s,
                       uint8_t key_class,
                       bool (*fn)(void *ctx, const struct reg *r),
                       void *ctx) MUST_CHECK;
/* Alone: tries again what waits for operations of other shards; true when something was applied. */
bool shard_retry(struct shard *s);
/* From events.deliver of another shard. With several nodes ERR_AGAIN: one before it is missing. */
int shard_receive(struct shard *s, const struct shard_message *m) MUST_CHECK;
void shard_delivered(struct shard *s, shard_id_t to, uint64_t number);

/* The stored result of (session, number): true when there is one. */
bool shard_result(
    struct shard *s, uint64_t session, uint64_t number, int32_t *ret_rc, struct oid *ret_oid);
/* Results up to `acked` of a session are not needed any more. */
void shard_results_acked(struct shard *s, uint64_t session, uint64_t acked);

/* ---- waiting ---- */
/* A 64-bit key of an object (name empty) or of a name in a directory. Equal keys may belong to
 * different things; that costs a wait, nothing else. */
uint64_t touch_key(struct oid oid, struct slice name);
/* Marked where any name of a directory may show otherwise, because some are contested: whoever
 * reads a name looks at this as well. No name is like it. */
#define SHARD_ANY_NAME slice_str("/")
/* The journal index that must be durable before what `key` shows may be told: 0 when it is. */
uint64_t shard_mark(struct shard *s, uint64_t key);
/* True when all that is not durable yet of what `key` shows was done by `session`. */
bool shard_mark_is_of(struct shard *s, uint64_t key, uint64_t session);
struct shard_wait {
    void (*run)(struct shard_wait *w);
    uint64_t index; /* private from here; of a latch: its key */
    struct shard_wait *next;
};
void shard_wait_durable(struct shard *s, uint64_t index, struct shard_wait *w);
/* run() when this latch was let go. */
void shard_wait_latch(struct shard *s, uint64_t key, struct shard_wait *w);
/* run() when something more was applied in this shard: within applying, so it only notes it. */
void shard_wait_applied(struct shard *s, struct shard_wait *w);
void shard_wait_applied_cancel(struct shard *s, struct shard_wait *w); /* also if it ran */
bool shard_latched(struct shard *s, uint64_t key);
void shard_latch(struct shard *s, uint64_t key); /* must not be held */
void shard_unlatch(struct shard *s, uint64_t key);

/* ---- the feed and retention ---- */
struct shard_durable {
    uint64_t index;     /* durable */
    uint64_t floor_hlc; /* commit_hlc of the oldest record not durable - 1, or UINT64_MAX */
};
void shard_durable(struct shard *s, struct shard_durable *ret);
void shard_durable_vv(struct shard *s, struct vv *ret);
/* The last operation of a site that was applied here, of this home. */
struct last_op shard_last(const struct shard *s, site_id_t site);
uint64_t shard_cursor(struct shard *s, site_id_t peer); /* durable */
/* With several nodes, as the one who leads: told to the others within a second or so (N6). */
void shard_peer_acked(struct shard *s, site_id_t peer, uint64_t index);
uint64_t shard_peer_ack(struct shard *s, site_id_t peer);
void shard_keep_from(struct shard *s, uint64_t index); /* lowest index a member may need */
/* Fails the shard when its state could not be read: all it would tell from then on are errors. */
void shard_check(struct shard *s);
/* Writes the state down when it is due (or `now`), trims the journal. */
void shard_checkpoint(struct shard *s, bool now);
/* ---- snapshots for a new site ---- */
bool shard_can_freeze(struct shard *s); /* nothing is being written down */
/* Freezes the state as it is now, writes it down, then hands over an iterator over exactly that
 * (owned by the callee) and the journal index it stands for. Requires shard_can_freeze. */
void shard_snapshot(struct shard *s,
                    void (*cb)(void *ctx, struct shard *s, struct state_iter *it, uint64_t index),
                    void *ctx);
/* Operations that the snapshot holds, as they were committed at one moment there: for this site's
 * streams (W12). Their stamps do not fall. */
int shard_past_load(struct shard *s, uint64_t commit_hlc, const struct slice *ops, uint32_t count)
    MUST_CHECK;
int shard_snapshot_load(struct shard *s, const struct local_pair *pairs, uint32_t count) MUST_CHECK;
int shard_reload(struct shard *s) MUST_CHECK; /* after the last page */

uint64_t shard_outbox_count(struct shard *s);
bool shard_messages_held(const struct shard *s); /* one of its messages was refused (S19) */
/* Notes the last message of each outbox now; passed: those and all before are delivered. */
void shard_outbox_note(struct shard *s);
bool shard_outbox_passed(const struct shard *s);
uint64_t shard_waiting_count(struct shard *s);
bool shard_idle(const struct shard *s); /* nothing waits for the disk, or the shard has failed */

#endif
