/* The copies of one shard's journal inside a site: primary-backup replication after PacificA (Lin,
 * Yang, Zhang, Zhou 2008). A core: no I/O, clock, threads or randomness.
 *
 * Normal path: the primary appends a record to its journal and tells replica_step(); the core sends
 * it to the others; each has it on disk and says so; when *every* replica of the in-sync set has
 * it, it is committed. Who is primary, who is in sync and the epoch is one record (struct
 * shard_record), changed by compare-and-swap only. Failure paths: a replica that does not answer is
 * taken out of the record before anything commits without it; a primary whose lease runs out, whose
 * disk fails or whom a higher epoch contradicts drops what is in flight and steps down; any in-sync
 * replica then waits the lease out, takes the next epoch, makes its journal the truth and serves
 * when all of it is committed. site/README.md has the states and the rules R1 to R13.
 *
 * Every event carries the node's monotonic clock (rates of the site's clocks differ by less than an
 * eighth, offsets do not matter) and its hybrid clock. Effects are to be carried out in order,
 * before the next event. What a peer sends is authenticated by the transport, and never trusted to
 * be well formed; lost, repeated, late and reordered messages are harmless.
 *
 * Threads: loop. */
#ifndef SITE_REPLICA_H
#define SITE_REPLICA_H

#include "base/buf.h"
#include "base/limits.h"
#include "site/coordinator.h"

#define REPLICA_BATCH_BYTES (256u * KIB) /* payload of one message, unless one record is larger */
#define REPLICA_FLIGHT_MAX 8u            /* messages to one replica that wait for its answer */
#define REPLICA_RECENT_BYTES (8u * MIB)  /* of durable records kept in memory for replicas */
#define REPLICA_EPOCHS_MAX 256u          /* epochs of a journal that are remembered */
#define REPLICA_MESSAGE_BYTES (LIMIT_RECORD_BYTES + REPLICA_BATCH_BYTES + 64u * KIB)

/* Of a record that nobody else can reach, such as a local file under a lock. */
#define REPLICA_LEASE_ENDLESS (UINT64_MAX / 4)

/* Records from `first` to the next run were appended first by the primary of `epoch`. */
struct replica_run {
    uint64_t first, epoch;
};
struct replica_config {
    uint64_t node;                            /* this one; not 0 */
    uint64_t nodes[COORDINATOR_REPLICAS_MAX]; /* all that may keep a copy, this one included */
    uint32_t node_count;
    uint64_t life;   /* higher than in every run of this node before */
    bool founder;    /* may take a shard that nobody ever led: its copy is the first */
    bool blank;      /* this copy may lack what it once called durable: never take over with it */
    uint64_t last;   /* of the journal; all up to it is on disk */
    uint64_t commit; /* what is known to be committed: what the state has on disk */
    const struct replica_run *runs; /* of the journal, ascending; borrowed for the call */
    uint32_t run_count;
    /* 0: the default. A primary asks for its lease again after a third of it. */
    uint64_t lease_ns;   /* 6 s */
    uint64_t beat_ns;    /* an idle primary says that it lives: 250 ms */
    uint64_t silence_ns; /* who says nothing for so long does not answer: 1.5 s */
    uint64_t answer_ns;  /* the coordinator is asked again after: 1 s */
};

enum replica_role {
    REPLICA_FOLLOW,  /* keeps a copy; in sync or not, as the record says */
    REPLICA_RECOVER, /* primary; what it found in its journal is not committed yet */
    REPLICA_PRIMARY, /* serves */
    REPLICA_FAILED   /* its disk has failed; silent */
};

enum replica_event_kind {
    REPLICA_TICK,     /* at the latest at replica_deadline_ns() */
    REPLICA_APPENDED, /* the primary's journal took `bytes` as record `index` (log_append) */
    REPLICA_DURABLE,  /* the journal is on disk up to `index` */
    REPLICA_BROKEN,   /* the journal cannot be written any more */
    REPLICA_MESSAGE,  /* `bytes` came from `node`; borrowed until the effects are carried out */
    REPLICA_READ,     /* what READ_LOG asked for: message bytes of replica_records_*; rc */
    REPLICA_RECORD,   /* the coordinator's answer to ASK: rc, record */
    REPLICA_SWAPPED,  /* the coordinator's answer to SWAP: 0 or ERR_STALE_BASE; others: unknown */
    REPLICA_COPIED,   /* COPY is over: the journal begins, empty, at `index` (1: it failed, and
                       * nothing is here); `life` is a new, higher one */
    REPLICA_SERVED,   /* a copy of the state was begun for `node`; it needs the journal from `index`
                       */
    REPLICA_RESIGN    /* the primary is to hand over: an in-sync replica takes over at once */
};
struct replica_event {
    enum replica_event_kind kind;
    uint64_t now_ns; /* monotonic; never goes back */
    uint64_t stamp;  /* the node's hybrid clock */
    uint64_t node;
    uint64_t index;
    uint64_t life;
    uint64_t request; /* RECORD, SWAPPED: of the effect */
    int rc;
    struct slice bytes;
    const struct shard_record *record;
};

enum replica_effect_kind {
    REPLICA_SEND,      /* `bytes` to `node`; may be lost */
    REPLICA_APPEND,    /* `bytes` is record `index` of `epoch`: into the journal, in this order */
    REPLICA_CUT,       /* everything above `index` leaves the journal, durably, before what follows;
                        * no DURABLE may come later for what was cut */
    REPLICA_COMMIT,    /* up to `index` is committed: apply, answer */
    REPLICA_READ_LOG,  /* READ with records from `index`, for `node`; ERR_NOT_FOUND: trimmed */
    REPLICA_ASK,       /* read the shard's record: RECORD */
    REPLICA_SWAP,      /* `record`, if its version is still the stored one's: SWAPPED */
    REPLICA_LEAD,      /* primary from now on, does not serve yet; records get `epoch` */
    REPLICA_SERVE,     /* take requests; every stamp from now on is above `stamp` */
    REPLICA_STEP_DOWN, /* serve no more; what is above `index` (committed) is dropped, unanswered */
    REPLICA_COPY       /* drop this copy, fetch state and the journal's first index from `node` */
};
struct replica_effect {
    enum replica_effect_kind kind;
    uint64_t node, index, epoch, stamp, request;
    struct slice bytes;         /* of the event, or of the effects: until the next step */
    struct shard_record record; /* SWAP: version is the expected one */
    size_t offset;              /* private */
};
struct replica_effects { /* zeroed is empty; the caller owns it, and reuses it */
    struct replica_effect *at;
    uint32_t count, cap;
    struct buf memory;
};
void replica_effects_deinit(struct replica_effects *e);

struct replica;
/* The caller has asserted what struct replica_config says. */
struct replica *replica_new(const struct replica_config *config);
void replica_free(struct replica *r);
/* One event. *out is emptied first. 0; MESSAGE and READ: ERR_MALFORMED, ERR_TRUNCATED, ERR_PEER:
 * refused, nothing happened. */
int replica_step(struct replica *r,
                 const struct replica_event *e,
                 struct replica_effects *out) MUST_CHECK;
/* A TICK is due then, or earlier. */
uint64_t replica_deadline_ns(const struct replica *r);

/* May the primary evaluate requests, answer reads and append, now? */
bool replica_serves(const struct replica *r, uint64_t now_ns);
enum replica_role replica_role(const struct replica *r);
uint64_t replica_epoch(const struct replica *r);
uint64_t replica_commit(const struct replica *r);
bool replica_blank(const struct replica *r);       /* for the next start: remember it */
uint64_t replica_primary(const struct replica *r); /* whom to ask; 0: not known */
/* A primary may promise "nothing below t any more" up to what its record reserves: a later one
 * stamps above that, whatever became of its clock. (Alone, with an endless lease: any t.) */
uint64_t replica_promise(const struct replica *r, uint64_t t);
/* Lowest index of the journal that some replica still needs; UINT64_MAX: none. */
uint64_t replica_keep_from(const struct replica *r);
void replica_validate(const struct replica *r); /* asserts the invariants */

/* ---- for READ_LOG: encodes what was read ---- */
void replica_records_begin(struct buf *b);
/* In order, without gaps. False: it is full; a first record always fits. */
bool replica_records_add(struct buf *b, uint64_t epoch, struct slice payload);

/* ---- messages (replica_msg.c; pure) ---- */
enum replica_msg_kind {
    REPLICA_MSG_APPEND = 1, /* primary: records after prev; none: it lives */
    REPLICA_MSG_REPLY,      /* to APPEND */
    REPLICA_MSG_NEED_COPY,  /* primary: what you lack is trimmed; answers REPLY `seq` */
    REPLICA_MSG_STALE,      /* your epoch is over */
    REPLICA_MSG_LEFT,       /* the primary has handed over: look at the record */
    REPLICA_MSG_KIND_END
};
enum replica_msg_flag {
    REPLICA_FLAG_MATCH = 1, /* REPLY: the records before and in the APPEND are here */
    REPLICA_FLAG_BLANK = 2, /* REPLY: this copy must not count */
    REPLICA_FLAG_BUSY = 4,  /* REPLY: a copy of the state is being fetched */
    REPLICA_FLAGS_ALL = 7
};
struct replica_msg {
    uint8_t kind, flags;
    uint64_t epoch, node; /* of the sender */
    uint64_t life, seq;   /* REPLY: of the sender; NEED_COPY: of the REPLY */
    uint64_t index;       /* APPEND: before the first record; REPLY: on disk and equal up to */
    uint64_t index_epoch; /* APPEND: of that record, 0: not known; REPLY: of `hint` */
    uint64_t hint;        /* REPLY without MATCH: try from here */
    uint64_t last;        /* REPLY: on disk; APPEND: last record not of this epoch */
    uint64_t commit;
    uint32_t count; /* of records, checked: epochs do not fall, and are at most `epoch` */
    struct slice records;
};
struct replica_item {
    uint64_t epoch;
    struct slice payload;
};
void replica_msg_encode(struct buf *b, const struct replica_msg *m);
int replica_msg_decode(struct slice s, struct replica_msg *ret) MUST_CHECK; /* borrows */
/* The next record of checked ones; *at begins as m->records. */
struct replica_item replica_item_next(struct slice *at);

#endif
