/* A node of a site: shards, sessions, chunk store and RPC server on one reactor thread, and the
 * seam through which wan/ reads committed operations, applies those of peers and moves chunks.
 *
 * Threads: functions say `loop` (reactor thread), or `any`. Callbacks run on the loop unless said
 * otherwise; they must be short there: hand over and return. */
#ifndef SITE_NODE_H
#define SITE_NODE_H

#include "base/loop.h"
#include "journal/op.h"
#include "site/feed.h"
#include "site/intake.h"

struct node;

struct node_config {
    const char *dir; /* the site's directory, made by node_create_site */
    const struct clock *clock;
    uint64_t journal_segment_bytes; /* 0: as the journal likes; small in simulation */
    size_t checkpoint_bytes;        /* state of a shard in memory; 0: 32 MiB */
    uint64_t garbage_ns;            /* between garbage passes; 0: ten minutes */
};
/* Makes a new site's directory: configuration, keys, empty shards. fs_key NULL: a new file system
 * with a random key and root; otherwise this site will join an existing one (its state arrives as a
 * snapshot; see node_snapshot_load). Any thread, before node_open. */
struct site_settings {
    char name[33];        /* [A-Za-z0-9_-]{1,32} */
    site_id_t site;       /* 0: draw one */
    unsigned shard_count; /* fixed for the file system's life */
    char listen[128];     /* RPC: HOST:PORT, or empty: Unix socket only */
    char wan[128];        /* HTTP/2 between sites: HOST:PORT, or empty */
    char advertise[128];  /* what other sites dial, when it is not `wan` (a wildcard, a
                             forwarded port): HOST:PORT, or empty */
    char http[128];       /* dashboard, metrics: HOST:PORT, "off", or empty: a loopback port */
    bool trusted_network;
};
int site_create(const char *dir,
                const struct site_settings *settings,
                const uint8_t *fs_key,
                struct err_detail *d) MUST_CHECK;
int site_settings_load(const char *dir, struct site_settings *ret, struct err_detail *d) MUST_CHECK;
int site_settings_save(const char *dir,
                       const struct site_settings *s,
                       struct err_detail *d) MUST_CHECK;

int node_open(struct node **ret, const struct node_config *config, struct err_detail *d) MUST_CHECK;
/* Listens; from here on requests are served once node_run() turns the loop. */
int node_start(struct node *n, struct err_detail *d) MUST_CHECK;
const char *node_exit_detail(const struct node *n); /* why node_run() returned an error */
int node_run(struct node *n);   /* the loop; returns after node_stop, 0 or why it ended */
void node_stop(struct node *n); /* any thread, and signal-safe through an eventfd */
/* After node_run: ends what is under way, so that no callback of anybody runs any more, and what
 * was posted has run. Whoever may still be called (wan/) is freed between this and node_free.
 * Accepts NULL; idempotent. */
void node_close(struct node *n);
void node_free(struct node *n); /* node_close, if that was not called, and the rest */
struct loop *node_loop(struct node *n);
const struct site_settings *node_settings(const struct node *n);
const uint8_t *node_fs_key(const struct node *n); /* 32 bytes */
const char *node_dir(const struct node *n);

/* ---- the feed: committed operations, in the order of each shard's journal ---- */
void node_feed_state(struct node *n, struct feed_state *ret); /* any; as feed_state_copy */
/* changed() runs on the loop after the state moved; one watcher. */
void node_feed_watch(struct node *n, void (*changed)(void *ctx), void *ctx); /* any */
/* Own and relayed operations from index `from`, up to bytes_max of op bytes; records that are only
 * this site's business are passed over. *ret_next = first index not looked at; nothing is looked at
 * that does not count yet (S21). Any thread.
 * ERR_NOT_FOUND: trimmed, the peer needs a snapshot. */
int node_feed_read(struct node *n,
                   shard_id_t shard,
                   uint64_t from,
                   size_t bytes_max,
                   bool (*fn)(void *ctx, const struct feed_item *item),
                   void *ctx,
                   uint64_t *ret_next) MUST_CHECK;
/* What a peer has acknowledged, per shard (index in my journal): bounds retention. Durable. Peers
 * that are members but never acknowledged hold everything back from `first`. Any. */
void node_peer_acked(struct node *n, site_id_t peer, const uint64_t *index_by_shard);
struct node_place { /* of a member in a shard's journal */
    uint64_t acked; /* the last index it has acknowledged */
    uint64_t need;  /* the lowest index with an operation that it may lack */
};
void node_peer_places(struct node *n, site_id_t peer, struct node_place *ret_by_shard); /* loop */
/* The peer has said something just now: it is not away. Any. */
void node_peer_heard(struct node *n, site_id_t peer);
/* What is kept of the journals for a member. */
struct node_backlog {
    site_id_t site;
    uint64_t bytes;   /* of the journals, from the first operation on that it lacks */
    bool runs_out;    /* it is away, and there is a limit */
    uint64_t left_ms; /* then: until it is given up, at the present rate; 0: its time is over */
};
uint32_t node_backlogs(struct node *n, struct node_backlog ret[SITE_COUNT_MAX]); /* loop */

/* ---- applying what a peer sent ---- */
struct apply_batch {
    site_id_t peer;           /* whose stream */
    struct apply_item *items; /* in stream order */
    uint32_t item_count;
    uint64_t cursor[SHARD_COUNT_MAX]; /* the peer's index per shard after this batch (exclusive:
                                         next index to ask for); 0 = this shard not moved */
    /* Loop thread, once: rc 0 = applied in every shard and visible (not yet durable); the batch
     * memory is the caller's again. Errors: ERR_MALFORMED names a bad op in detail. */
    void (*done)(struct apply_batch *b, int rc, const struct err_detail *d);
    struct loop_msg msg;      /* private */
    struct node *node;        /* private */
    int rc;                   /* private */
    struct err_detail detail; /* private */
};
/* Any thread. Operations already applied are skipped; an op whose dots are not there yet waits. One
 * batch per peer at a time. */
void node_apply(struct node *n, struct apply_batch *b);
/* Durable cursors (next index to ask for, per shard) for a peer's stream, and version vectors. */
void node_cursors(struct node *n, site_id_t peer, uint64_t *ret_by_shard); /* loop */
void node_vvs(struct node *n, struct vv *ret_by_shard);                    /* loop; durable part */
/* Stamp of the first operation of this site that has arrived and waits for a cut (L6); 1: it waited
 * when the node was opened; 0: none does. */
uint64_t node_waits_since(const struct node *n, site_id_t site); /* loop */
/* Runs w->run once, later, when every operation applied now has had its consequences here: its
 * messages between shards are delivered, the repairs that this site owes for it are durable, and so
 * on for what those caused. What a peer is told to have reached this site (an acknowledgement, a
 * probe's answer) waits for it, so that it sees a conflict and its repair in one exchange (P6). The
 * caller owns w, and keeps it until run() or until the loop has ended: then it never runs. Loop. */
struct node_settle_wait {
    void (*run)(struct node_settle_wait *w);
    struct node_settle_wait *next; /* private */
};
void node_settled(struct node *n, struct node_settle_wait *w);
void node_hlc_see(struct node *n, uint64_t hlc); /* any */
uint64_t node_hlc_now(struct node *n);           /* any */
/* The last operation of a site that is applied here, by shard. Loop. */
void node_last_ops(struct node *n, site_id_t site, struct last_op *ret_by_shard);

/* ---- members: registers of the root directory, so they travel in the stream ---- */
struct member {
    site_id_t site;
    char name[33];
    char wan[128];           /* HOST:PORT where it listens, or empty: it only dials out */
    uint8_t cert_sha256[32]; /* pinned fingerprint of its certificate (DER) */
    struct slice cert;       /* PEM, for the peer's trust store */
    uint8_t status;          /* enum member_status */
    uint8_t why;             /* enum member_leaves, unless it is a member */
    uint64_t told_hlc;       /* when its record was written last; read only */
};
enum member_status {
    MEMBER_IS,
    MEMBER_LEAVING, /* not every remaining member has said how much of it it has */
    MEMBER_REMOVED  /* the cut is known */
};
enum member_leaves {
    LEAVES_NOT,
    LEAVES_REMOVED, /* by an operator */
    LEAVES_AWAY     /* it was away for longer than journals are kept for it */
};
int node_members(struct node *n,
                 bool (*fn)(void *ctx, const struct member *m),
                 void *ctx); /* loop */
/* Writes a member's record: this site's own, or of one that another site has let in. */
void node_member_set(struct node *n,
                     const struct member *m,
                     void (*done)(void *ctx, int rc),
                     void *ctx); /* loop; durable */
/* Lets a site in, which begins with this one's snapshot and so with whom this one knows
 * (node_entry.c). */
void node_member_enter(struct node *n,
                       const struct member *m,
                       void (*done)(void *ctx, int rc),
                       void *ctx); /* loop; durable */
/* Of a member of whom only one site knew that has been given up: the others hear that it had
 * entered, and that it has left, and why: whether it can come back by itself. */
void node_member_bring(struct node *n,
                       const struct member *m,
                       enum member_leaves why,
                       void (*done)(void *ctx, int rc),
                       void *ctx); /* loop; durable */
/* Makes a member leave: from now on no operation of it is taken that no remaining member had
 * (node_leave.c). Whom an operator removes leaves with all ids that it is a member with.
 * ERR_NOT_FOUND: no such member; ERR_INVALID: this site itself. */
void node_member_remove(struct node *n,
                        site_id_t site,
                        enum member_leaves why,
                        void (*done)(void *ctx, int rc),
                        void *ctx); /* loop; durable */
/* A site that an operator removed, under whatever id, may come back by itself, as one that was away
 * (node_return.h). ERR_NOT_FOUND: no such site; ERR_INVALID: it has not left. */
void node_member_readmit(struct node *n,
                         site_id_t site,
                         void (*done)(void *ctx, int rc),
                         void *ctx); /* loop; durable */
/* The site with this certificate comes back under the id `after`: whatever ids it is a member with
 * leave, as ones that were away. `before`, the id it had last, may be unknown here, where only a
 * site knew of it that was given up itself; then it has entered and left. All in one operation, and
 * again without effect. ERR_NOT_FOUND: no member ever had the certificate; ERR_REMOVED: an operator
 * has removed the site, under this or another id; ERR_INVALID: this site leaves itself. */
void node_member_returns(struct node *n,
                         site_id_t before,
                         const uint8_t *cert_sha256,
                         site_id_t after,
                         void (*done)(void *ctx, int rc),
                         void *ctx);                                            /* loop; durable */
void node_members_watch(struct node *n, void (*changed)(void *ctx), void *ctx); /* loop cb */
/* It has left, all up to its cut is here, and nothing more of it will be taken. Loop. */
bool node_left(struct node *n, site_id_t site);

/* ---- chunks ---- */
typedef void (*chunk_got_cb)(void *ctx, int rc, struct buf *sealed /* taken by moving it */);
void node_chunk_get_local(struct node *n,
                          const uint8_t id[32],
                          chunk_got_cb cb,
                          void *ctx); /* loop */
void node_chunk_put(struct node *n,
                    const uint8_t id[32],
                    struct slice sealed,
                    void (*cb)(void *ctx, int rc),
                    void *ctx); /* loop */
/* wan/ registers how to get a chunk from another site; called on the loop, answers by cb on the
 * loop. Several requests for one chunk are joined by the node. */
void node_set_fetcher(struct node *n,
                      void (*fetch)(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx),
                      void *fctx); /* loop */

/* A content of at most bytes_max; the bytes are borrowed during the callback, which runs once,
 * perhaps inside. ERR_TOO_BIG; else what reading and fetching say. Loop. */
typedef void (*content_read_cb)(void *ctx, int rc, struct slice bytes);
void node_content_read(
    struct node *n, const struct content *c, size_t bytes_max, content_read_cb cb, void *ctx);
/* Open objects of a shard that have no name left, in order: those behind `after`, NULL: from the
 * first. Fewer than max: there are no more. Loop. */
uint32_t node_open_orphans(
    struct node *n, shard_id_t shard, const struct oid *after, struct oid *ret, uint32_t max);
struct store_stats;
void node_store_stats(struct node *n, struct store_stats *ret); /* of its chunks; loop */

/* ---- snapshots for a new site ---- */
/* Consistent cut of all shards: pages of (shard, key, value). The cut is held in memory-cheap form
 * (a RocksDB snapshot after a flush). Loop; next_page may be called from any one thread. `to`: the
 * member that it is for, which gets the operations that other members may lack as well (W12); 0:
 * the state alone. */
struct node_snapshot;
void node_snapshot_begin(struct node *n,
                         site_id_t to,
                         void (*ready)(void *ctx, int rc, struct node_snapshot *s),
                         void *ctx); /* loop */
/* Fills `out` with up to bytes_max of encoded pairs; *ret_done after the last page. It reads no
 * more than about that at a time, so a page may be empty before: it is no page then. The first page
 * starts with the cursors a receiver continues from. */
int node_snapshot_next_page(struct node_snapshot *s,
                            size_t bytes_max,
                            struct buf *out,
                            bool *ret_done) MUST_CHECK;
void node_snapshot_free(struct node_snapshot *s);
/* Receiving side: a site created with an fs_key loads pages in order, then commits; before that is
 * done the site serves nothing, and a start finds it joining. Loop. */
int node_snapshot_load(struct node *n, struct slice page, struct err_detail *d) MUST_CHECK;
/* done: once, on the loop, with rc 0 when all of the snapshot is durable and the site has stopped
 * joining, durably; at once when it cannot be written; ERR_AGAIN when what came is removed by
 * node_adopt or by another first page; never when the node stops before. d is valid during the
 * call. One at a time. */
void node_snapshot_commit(struct node *n,
                          site_id_t from_peer,
                          void (*done)(void *ctx, int rc, const struct err_detail *d),
                          void *ctx);
bool node_needs_snapshot(struct node *n);
/* Nothing was ever created here and there are no members: the site may join a file system. Loop. */
bool node_is_empty(struct node *n);
/* An empty site takes over another file system's key and number of shards, durably; afterwards
 * node_needs_snapshot(). ERR_NOT_EMPTY when it is not empty. Loop. */
int node_adopt(struct node *n, const uint8_t fs_key[32], unsigned shard_count, struct err_detail *d)
    MUST_CHECK;

/* Checks a directory that no daemon has open (it is opened, so its journal is replayed: that is all
 * the repair there is without peers). quick: chunks are asked for, not read. fn gets a sentence for
 * each problem; ERR_CORRUPT when there were any, other errors when it cannot be checked. */
int node_fsck_offline(const char *dir,
                      bool quick,
                      void (*fn)(void *ctx, const char *what),
                      void *ctx,
                      struct err_detail *d) MUST_CHECK;

/* ---- administration: JSON in, JSON out; wan/ adds its verbs ("peer.*") ---- */
typedef void (*admin_reply_cb)(void *ctx, int rc, const char *json_or_sentence);
typedef bool (*admin_handler)(void *hctx,
                              const char *verb,
                              const char *json,
                              admin_reply_cb cb,
                              void *ctx); /* loop; false: not my verb; reply on the loop */
/* Asks as the command line does, without arguments: "status". The reply comes on the loop, perhaps
 * inside; not when the loop ends first. Loop. */
void node_admin_ask(struct node *n, const char *verb, admin_reply_cb cb, void *ctx);
void node_admin_register(struct node *n, admin_handler h, void *hctx);

#endif
