/* Private to site/: the node and its parts. */
#ifndef SITE_NODE_INT_H
#define SITE_NODE_INT_H

#include <pthread.h>

#include "base/metrics.h"
#include "data/front.h"
#include "data/gc.h"
#include "data/keys.h"
#include "site/call.h"
#include "site/coordinator.h"
#include "site/leave_int.h"
#include "site/lock.h"
#include "site/node.h"
#include "site/quorum.h"
#include "site/session.h"

#define ADMIN_HANDLERS_MAX 4u

struct node_member_cache {
    struct member m;
    char *cert_text;      /* owns m.cert */
    struct stamp entered; /* of its record */
    struct stamp left;    /* of the R that says why it leaves; 0: only answers say that it does */
    uint64_t *cut;        /* status MEMBER_REMOVED: by shard, the last operation anybody takes */
    bool has_said;        /* whom it knows; what follows is from there (node_entry.c) */
    struct stamp said;
    uint64_t knows, gone; /* a bit for each place of node.members: whom, and who of them leaves */
};

struct node {
    char *dir;
    const struct clock *clock;
    uint64_t segment_bytes;
    size_t checkpoint_bytes;
    uint64_t garbage_ns;
    struct site_settings settings;
    uint8_t fs_key[32];
    struct fs_keys keys;
    struct rpc_auth auth;
    int lock_fd; /* one daemon per directory */
    struct loop *loop;
    struct pool *pool;
    struct hlc hlc;
    struct coordinator *coordinator;
    struct parts *parts; /* of peers' batches: what of them is on the disk (S21) */
    struct shard *shards[SHARD_COUNT_MAX];
    struct store *store; /* this node's target: upkeep and numbers */
    struct front *front; /* all targets: chunks are put, got and asked for here */
    struct rpc_server *server;
    struct session_table *sessions;
    struct lock_table *locks;
    uint32_t sessions_awaited; /* of the run before, not back yet */
    uint64_t grace_until_ns;
    bool lock_grace;
    bool session_lost; /* a session went that had not said that it ends, the last one */
    uint64_t session_lost_ns;
    int exit_rc;
    struct err_detail exit_detail;
    bool running, stopping, broken;
    bool closed; /* node_close */
    /* calls */
    struct call *run_head, **run_tail;
    struct loop_defer run_defer;
    struct call *held_waits; /* in the order they came in */
    struct call *calls;      /* all there are */
    uint64_t evaluations;    /* of requests, since the start */
    /* invalidations of the current step */
    struct node_inval {
        struct fs_inval inval;
        uint64_t except; /* the session that asked for it and knows; 0: news to all */
    } * invals;
    uint32_t inval_count, inval_cap;
    struct call *inval_call; /* on whose behalf changes happen now; or NULL */
    struct op_arena inval_arena;
    struct loop_defer inval_defer;
    /* feed */
    pthread_mutex_t feed_mutex; /* feed, last, watch */
    struct feed_state feed;
    uint64_t feed_last[SHARD_COUNT_MAX]; /* what counts of the journals (S21); of feed: as told */
    void (*feed_changed)(void *ctx);
    void *feed_ctx;
    uint32_t feed_members; /* how many there were when it last told */
    struct loop_defer feed_defer;
    /* members */
    struct node_member_cache *members;
    uint32_t member_count;
    uint64_t notices; /* shard_notices() when they were loaded */
    bool members_stale;
    void (*members_changed)(void *ctx);
    void *members_ctx;
    struct node_leaving leaving;
    struct {
        bool owed, busy; /* this site has to say whom it knows; it is being written */
    } entering;          /* node_entry.c */
    struct {
        struct node_settle_wait wait;
        uint64_t seen, tick;
        bool busy;
    } stable; /* node_stable.c */
    struct {
        struct node_retain **at;
        uint32_t count;
        uint64_t most_since_ns;  /* it reaches most members */
    } retain;                    /* node_retain.c */
    struct returning *returning; /* the site is coming back, or NULL: node_return.c */
    bool wants_reopen;
    uint64_t reopen_tick; /* then: after this tick, so that whoever asked for it got an answer */
    bool needs_snapshot;
    uint64_t snapshot_index[SHARD_COUNT_MAX]; /* of the peer's journals, while one is loaded */
    uint64_t snapshot_past[SHARD_COUNT_MAX];  /* the last commit stamp of its past that is here */
    struct {
        void (*done)(void *ctx, int rc, const struct err_detail *d); /* NULL: none is under way */
        void *ctx;
        unsigned at; /* the shard that is waited for; those before it have all of it on disk */
        struct shard_wait wait;
        struct loop_defer defer;
    } snapshot_commit;
    /* chunks */
    void (*fetch)(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx);
    void *fetch_ctx;
    struct chunk_wait *chunk_waits;
    struct upkeep *upkeep;
    struct bring *bring; /* node_bring.c */
    struct past_keeper *past;
    struct garbage *garbage; /* node_garbage.c */
    /* admin */
    struct {
        admin_handler fn;
        void *ctx;
    } admin[ADMIN_HANDLERS_MAX];
    uint32_t admin_count;
    struct loop_timer tick; /* repairs, checkpoints, session expiry, retention */
    struct loop_defer repair_defer;
    uint64_t repairs_pending;
    uint64_t repairs_issued; /* since the start */
    uint64_t repairs_open;   /* of these, not durable yet */
    struct {
        struct node_settle_wait *arrived, *running;
        uint64_t repairs; /* repairs_issued when the pass began */
        unsigned quiet_passes;
        struct loop_defer defer;
    } settle; /* node_settled.c */
    uint64_t tick_count;
    struct {
        uint64_t session, number;
    } ahead[256]; /* answered ahead, durable now, and not told so yet; by the next tick */
    uint32_t ahead_count;
    struct loop_req stop_req;
};

site_id_t node_site(const struct node *n);
const uint8_t *node_oid_key(const struct node *n);
int64_t node_wall_ns(const struct node *n);
void node_site_name(struct node *n, site_id_t site, char *out /* 160 */);
int node_resolve_ino(struct node *n, uint64_t ino, struct oid *ret);
int node_open_shards(struct node *n, struct err_detail *d);
void node_close_shards(struct node *n);
int node_wipe_shards(struct node *n); /* node_snapshot.c: closes and removes them */
int node_join_again(struct node *n, struct err_detail *d); /* it died while joining: starts over */
int site_wipe(const char *dir); /* removes them, and who led them; nobody has them open */
void node_fail(struct node *n, int rc, const char *what);

/* node_session.c */
int call_hello(struct call *c);
/* node_chunk.c: the chunks that came with a commit are stored first. 0: there are none, or they are
 * durable; CALL_HELD: evaluated again when they are; or an error. */
int call_riders(struct call *c);
int call_forget(struct call *c);
int call_inval_ack(struct call *c);
int call_ping(struct call *c);
/* RPC_INVAL_ACK without a call. */
void node_inval_acked(struct node *n, struct rpc_conn *conn, struct slice body);
bool node_session_check(struct call *c);
void node_conn_opened(void *ctx, struct rpc_conn *conn);
void node_conn_closed(void *ctx, struct rpc_conn *conn, int rc);
void node_sessions_init(struct node *n);
void node_sessions_start(struct node *n);
void node_orphans_sweep(struct node *n);
struct rpc_conn *node_push_conn(struct node *n, uint64_t session); /* or NULL */
void node_locks_init(struct node *n);
void node_sessions_deinit(struct node *n);

/* node_calls.c */
void node_effects_begin(struct node *n, struct call *c);
void node_effects_end(struct node *n, struct call *c);
void node_inval_name(struct node *n, struct oid parent, struct slice name);
void node_inval_object(struct node *n, struct oid oid, bool content);
void node_inval_flush(struct node *n, struct call *c /* may be NULL */);
void node_rpc_events(struct node *n, struct rpc_server_events *ret);
void node_calls_init(struct node *n);
void node_calls_deinit(struct node *n);
void node_sessions_tick(struct node *n);
void node_unheld(void *ctx, struct oid oid); /* event of the session table; node_hold.c */
void node_ahead_done(struct node *n, uint64_t session, uint64_t number);

/* node_settle.c: repairs and directory losers */
int node_settle_dir(struct call *c, struct oid parent, struct oid dir, struct slice name);
void node_repairs_later(struct node *n);
void node_repairs_run(struct loop_defer *d);

/* node_stable.c: causal stability */
/* Drops what may go. True: all that is stable was looked at, there is nothing more to come. */
bool node_collect(struct node *n);
void node_collect_again(struct node *n, struct oid oid); /* it is not open any more */
uint64_t node_stable_hlc(struct node *n);                /* 0: not known */
/* Gives this site's word when it helps; `now`: however short ago the last one was. */
void node_stable_tick(struct node *n, bool now);
/* Of a member's last word here: the stamp up to which it has everything, and up to which all its
 * own is here or announced; 0: there is none. */
uint64_t node_stable_seen(struct node *n, site_id_t site);
uint64_t node_stable_clock(struct node *n, site_id_t site);

/* node_settled.c */
void node_settle_init(struct node *n);
void node_settle_later(struct node *n); /* something became durable or was delivered */
void node_settle_check(struct node *n);

/* node_feed.c */
void node_feed_moved(struct node *n);                      /* at the end of the turn */
void node_feed_counts(struct node *n, shard_id_t shard);   /* more of its journal counts */
uint64_t node_feed_last(struct node *n, shard_id_t shard); /* what node_feed_read stops at; any */
void node_feed_publish(struct node *n);                    /* now */
uint64_t node_hlc_stamp(struct node *n);                   /* of something that is committed now */
void node_feed_init(struct node *n);
void node_feed_deinit(struct node *n);

/* node_member.c */
int node_members_load(struct node *n);
void node_members_free(struct node *n);
void node_members_touched(struct node *n);
void node_retry_waiting(struct node *n); /* node_feed.c: for what other shards have applied */
/* Adds a register of the root to an operation; both are copied. */
void node_root_add(struct op_builder *b, struct slice key, const struct buf *value);
/* Proposes it; `done` as above. */
void node_root_propose(struct node *n,
                       struct op_builder *b,
                       void (*done)(void *ctx, int rc),
                       void *ctx);
/* Says that a member leaves (node_leave.c). */
void node_leaves_add(struct op_builder *b, site_id_t site, enum member_leaves why);
void node_members_fresh(struct node *n); /* loads them again if they were touched */
/* As they were loaded last; NULL: not one. */
struct node_member_cache *node_member_find(const struct node *n, site_id_t site);
/* Are both ids of one site? It keeps its certificate when it comes back under another id. */
bool node_same_site(const struct member *a, const struct member *b);
/* Writes a register of the root; `done` (or NULL: a failure is logged) runs when it is durable, or
 * at once when it cannot be written. */
void node_root_set(struct node *n,
                   struct slice key,
                   const struct buf *value,
                   void (*done)(void *ctx, int rc),
                   void *ctx);
/* Registers of the root of a class, also those that are known ahead of their turn: several of one
 * key may come, the one with the highest stamp counts. */
int node_notices(struct node *n,
                 uint8_t key_class,
                 bool (*fn)(void *ctx, const struct reg *r),
                 void *ctx) MUST_CHECK;

/* node_return.c */
int node_return_open(struct node *n, struct err_detail *d) MUST_CHECK;
void node_return_close(struct node *n);
void node_return_tick(struct node *n);

/* node_entry.c */
int node_entries_load(struct node *n);  /* after the members and who leaves */
void node_entries_step(struct node *n); /* says whom it knows; later when it cannot now */
/* The members, but for those whose cut is known; reached is only this site itself. */
uint32_t node_quorum(struct node *n, struct quorum_member ret[SITE_COUNT_MAX]);

/* node_retain.c */
void node_retention(struct node *n); /* lets go of what no member lacks */
/* The lowest index of a shard's journal that a member may lack, `but` not counted; UINT64_MAX. */
uint64_t node_retain_lacked(struct node *n, site_id_t but, shard_id_t shard);
void node_retain_forget(struct node *n); /* the journals go away */
void node_away_tick(struct node *n);     /* gives up members that are away for too long */
/* Clocks of the members' words: has this site to give a new one, to show that it lives? */
bool node_word_is_due(struct node *n, uint64_t own_clock, uint64_t newest_clock);

/* node_chunk.c */
int node_store_open(struct node *n, struct err_detail *d);
int call_chunk_put(struct call *c);
int call_chunk_get(struct call *c);
int call_chunk_has(struct call *c);
int call_share(struct call *c);
int call_flushed(struct call *c);
int call_statfs(struct call *c);
int call_sync(struct call *c);
/* From another site, stored here; several requests for one chunk are joined. */
void node_chunk_fetch(struct node *n, const uint8_t id[32], chunk_got_cb cb, void *ctx);
/* The same; an error when it could not be stored. */
void node_chunk_bring(struct node *n, const uint8_t id[32], chunk_got_cb cb, void *ctx);
void node_chunks_deinit(struct node *n);

/* node_past.c: past versions */
void node_past_open(struct node *n);
void node_past_close(struct node *n);
void node_past_tick(struct node *n);
uint64_t node_past_keep_s(struct node *n);            /* how long they are kept */
void node_past_space(struct node *n, uint64_t bytes); /* a garbage pass found out */

/* node_setting.c: numbers that are the same at all sites */
uint64_t node_setting(struct node *n, const char *name, uint64_t otherwise);
void node_setting_set(
    struct node *n, const char *name, uint64_t value, void (*done)(void *ctx, int rc), void *ctx);

/* node_lock.c */
int call_lock(struct call *c);
int call_lock_test(struct call *c);
int call_lock_cancel(struct call *c);

/* node_path.c */
int node_dir_path(struct node *n, struct oid dir, struct buf *out);
int node_path(struct node *n, struct oid parent, struct slice name, struct buf *out);
int node_resolve_path(struct node *n,
                      const char *path,
                      struct oid *ret,
                      struct oid *ret_parent,
                      struct slice *ret_name);
unsigned node_session_count(const struct node *n);
/* node_fsck.c; answers later. quick: blocks are not read; repair: see struct verify_config. */
void node_fsck_online(struct node *n, bool quick, bool repair, admin_reply_cb cb, void *ctx);

/* node_admin.c */
int call_admin(struct call *c);

/* node_gc.c: upkeep of the chunk store */
int node_upkeep_open(struct node *n) MUST_CHECK;
void node_upkeep_close(struct node *n);
void node_gc_tick(struct node *n);
bool node_gc_idle(const struct node *n); /* no pass is under way */
void node_gc_referred(struct node *n, struct oid oid);
struct gc_pass { /* that somebody waits for */
    void (*done)(struct gc_pass *p, int rc, const char *why);
    bool asked;             /* an operator waits: it may cost more */
    uint64_t chunks, bytes; /* out: deleted */
    uint64_t young_chunks, young_bytes;
};
/* Begins one now, whenever the last was. settled: see gc_settled(). ERR_BUSY: one is under way, or
 * none may be. */
int node_gc_pass(struct node *n, struct gc_pass *p, uint64_t settled) MUST_CHECK;
const char *node_gc_phase(const struct node *n);

/* node_garbage.c: a garbage pass before its time: an operator has asked for it, and waits */
void node_garbage_open(struct node *n);
void node_garbage_close(struct node *n);
void node_garbage_tick(struct node *n);
void node_garbage_early(struct node *n); /* one, if the mounts let it take something */
/* node_session.c: have all mounts committed what they had put when `number` was given out, after
 * since_ns? tell: asks those that have not answered. `why` when not all have. */
enum node_flush {
    NODE_FLUSH_ALL,
    NODE_FLUSH_WAITS,
    NODE_FLUSH_NOT
};
#define NODE_FLUSH_WHY 160u
enum node_flush node_sessions_flush(
    struct node *n, uint64_t number, uint64_t since_ns, bool tell, char why[NODE_FLUSH_WHY]);
/* node_past.c: walks over all records of past versions at once, as far as that goes in one turn;
 * true when all were looked at since `begin`. */
bool node_past_hurry(struct node *n, bool begin);
/* The stable point that would let former versions go which are kept for it alone; 0: there are none
 */
uint64_t node_past_goal(const struct node *n);
/* node_stable.c: the stable point at which all that is dead here could go; 0: nothing is dead */
uint64_t node_dead_goal(struct node *n);
/* Calls fn for each member that has not confirmed yet what is before `goal`. */
void node_stable_waits(struct node *n,
                       uint64_t goal,
                       void (*fn)(void *ctx, site_id_t site),
                       void *ctx);

/* node_bring.c: what a directory's policy wants here comes */
int node_bring_open(struct node *n) MUST_CHECK;
void node_bring_close(struct node *n);
void node_bring_tick(struct node *n);
void node_bring_look(struct node *n, struct oid oid); /* it has changed */
void node_bring_again(struct node *n);                /* looks at all there is */
/* What is not here of it no member has, as far as they were asked; not of what is lazy. */
bool node_content_lost(const struct node *n, struct oid oid, const struct manifest *m);
/* Brings all chunks of a content here; done runs once, perhaps inside. */
void node_bring(struct node *n,
                const struct content *content,
                void (*done)(void *ctx, int rc),
                void *ctx);

void node_chunk_damaged(void *ctx, const struct chunk_id *id);
#endif
