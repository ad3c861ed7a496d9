/* Insides of the WAN thread, shared by wan_*.c.
 *
 * Two threads meet here. Everything below belongs to the WAN thread unless said otherwise. The
 * node's loop reaches it by wan_push (messages); it reaches the loop by wan_call_start (there and
 * back). Nothing waits for the other side. */
#ifndef WAN_WAN_INT_H
#define WAN_WAN_INT_H

#include <jansson.h>

#include "base/metrics.h"
#include "base/mpsc.h"
#include "wan/backoff.h"
#include "wan/frame.h"
#include "wan/gateway.h"
#include "wan/invite.h"
#include "wan/receiver.h"
#include "wan/wan.h"
#include "wan/wan_h2.h"
#include "wan/way.h"
#include "wan/zstream.h"

#define WAN_STREAM_PATH "/v1/stream/"    /* followed by the id of the site that asks, in 8 digits */
#define WAN_STREAM_PATH_OLD "/v1/stream" /* of older versions, without the id */
/* ERR_STRANGER */
#define WAN_STRANGER_TEXT "the id of this site is not known there: who let it in has not told yet"

#define WAN_TICK_MS 250u
#define WAN_BEAT_NS (500 * NS_PER_MS)
/* Least time between two looks at the feed: what comes meanwhile goes together. The second, when it
 * has not stood still for so many looks, and while it moves so often between two. */
#define WAN_PUMP_MS 1u
#define WAN_PUMP_BUSY_MS 4u
#define WAN_PUMP_RUN 8u
#define WAN_PUMP_MOVES 4u
#define WAN_PULL_MS 2u /* least time between two looks at what is durable */
#define WAN_KICK_GAP_NS (500 * NS_PER_MS)
#define WAN_FETCH_PER_PEER 16u /* chunk requests in flight on one link, for this site ... */
#define WAN_PASS_PER_PEER 12u  /* ... and for others */
#define WAN_FETCH_WAITING_MAX 65536u
#define WAN_FETCH_BUCKETS 4096u
#define WAN_FETCH_WAIT_NS (10 * NS_PER_SEC) /* for any link to come up */
#define WAN_FETCH_ROUND_NS NS_PER_SEC /* until all are asked again, while one is out of reach */
#define WAN_SERVE_CHUNKS_MAX 32u      /* chunks held in memory for one link */
#define WAN_SERVE_SNAPSHOTS_MAX 4u
#define WAN_ERROR_BODY_MAX 1024u

struct wan_peer;

/* --- between the threads (wan_uv.c) --- */

/* Loop -> WAN thread; embed. run: WAN thread, owns it. drop: instead of run, at wan_free. */
struct wan_msg {
    struct mpsc_link link;
    void (*run)(struct wan *w, struct wan_msg *m);
    void (*drop)(struct wan_msg *m);
};
void wan_push(struct wan *w, struct wan_msg *m); /* any thread */

/* WAN thread -> loop -> WAN thread; embed in a mem_alloc'ed struct as its first member.
 * on_loop: loop thread; must lead to one wan_call_return, now or later. done: WAN thread; after it
 * (or without it, at wan_free) release() frees what the call holds but the call itself. */
struct wan_call {
    struct loop_msg there;
    struct wan_msg back;
    struct wan *wan;
    struct wan_call *prev, *next;
    void (*on_loop)(struct wan_call *c);
    void (*done)(struct wan_call *c);
    void (*release)(struct wan_call *c); /* may be NULL */
};
void wan_call_start(struct wan *w, struct wan_call *c); /* WAN thread */
/* The same, for what reaches the loop by a function of its own; on_loop is not used. */
void wan_call_track(struct wan *w, struct wan_call *c);
void wan_call_return(struct wan_call *c); /* loop thread */

/* --- a peer --- */

enum wan_recv_state {
    RECV_IDLE,     /* no stream */
    RECV_READING,  /* the loop is asked where to begin */
    RECV_OPENING,  /* hello sent */
    RECV_CHECKING, /* welcome came; the loop is asked whether we were rolled back */
    RECV_RUNNING
};
struct wan_recv {
    enum wan_recv_state state;
    uint64_t generation; /* of the stream; answers for older ones are dropped */
    struct h2_stream *stream;
    int status;      /* of the response */
    bool without_id; /* the peer, on this connection, is of an older version */
    struct buf error_body;
    struct frame_reader frames;
    struct zunpack *unpack;
    struct receiver core;
    bool core_made;
    struct msg_welcome *welcome; /* while CHECKING */
    uint64_t opened_ns;          /* mono: when RUNNING began */
    uint64_t acked_ns;           /* mono: when an ack was written last */
    uint64_t probe_id;           /* of the last probe sent */
};

enum wan_send_state {
    SEND_HELLO,    /* waiting for the receiver's first frame */
    SEND_CHECKING, /* the loop is asked for our vectors */
    SEND_RUNNING
};
#define WAN_PROBES_MAX 16u
struct wan_send {
    struct wan *wan;
    struct wan_peer *peer;
    struct h2_stream *stream;
    enum wan_send_state state;
    uint64_t generation;
    struct frame_reader frames;
    struct zpack *pack;
    struct batch_memory memory;
    struct gateway *gateway;
    struct msg_hello *hello;     /* until RUNNING */
    struct wan_horizon *horizon; /* the peer lacks what the stream takes for granted; or NULL */
    uint64_t beat_ns;            /* mono: last heartbeat */
    uint64_t echo_ns, echo_at_ns;
    uint64_t ack_ns;      /* mono: last ack */
    uint64_t applied_hlc; /* as last acknowledged */
    uint64_t sent_op_hlc; /* commit stamp of the last operation sent */
    uint32_t probes;      /* being answered */
    uint64_t wire_bytes;  /* of batches, compressed */
    bool failed;          /* an error was written; the rest is ignored */
};

/* Whom a chunk is asked for. */
enum chunk_purpose {
    CHUNK_OWN,
    CHUNK_PASSED, /* another site */
    CHUNK_PURPOSES
};

enum wan_trouble {
    TROUBLE_NONE,
    TROUBLE_LINK,     /* cannot be reached; tried again */
    TROUBLE_PAUSED,   /* paused there */
    TROUBLE_REFUSED,  /* the peer refuses us, or we its certificate */
    TROUBLE_ROLLBACK, /* one of the two was rolled back */
    TROUBLE_SNAPSHOT, /* the journal we need is gone there */
    TROUBLE_DATA      /* bytes or operations that make no sense */
};
struct wan_peer_metrics {
    char labels[96];
    struct metric ops_in, bytes_in, ops_out, wire_out, reconnects, visible;
};
struct wan_peer {
    struct wan *wan;
    struct wan_peer *next;
    struct member member; /* cert is empty */
    bool gone;            /* removed from the federation */
    bool paused;
    struct h2_conn *conn;    /* for our requests; dialled, or lent by the peer */
    struct h2_conn *reverse; /* for its requests, dialled by us because it cannot */
    struct backoff reverse_backoff;
    uint64_t reverse_next_ns; /* mono: not before */
    uint32_t accepted;        /* connections that it dialled and are open */
    struct backoff backoff;
    uv_timer_t redial;
    bool redial_open;
    uint64_t dialled_ns;          /* mono: begin of the last attempt */
    uint64_t stranger_ns;         /* mono: since when it does not know us; 0: it does */
    uint64_t dials, dials_failed; /* attempts begun and ended in failure */
    enum wan_trouble trouble;     /* of our stream from it */
    int trouble_rc;
    char trouble_text[H2_WHY_BYTES];
    struct wan_recv recv;
    struct wan_send *send;
    struct lag lag_out;
    uint64_t acked_next[SHARD_COUNT_MAX]; /* our indexes, next one it wants; 0 unknown */
    struct vv *have;                      /* durable there, by shard; as last told */
    uint64_t heard_ns;                    /* mono: when the node was told last that it is there */
    struct way way;         /* through others, as those last told; empty: none is known */
    struct chunk_ask *asks; /* chunk requests in flight to it */
    uint32_t ask_count[CHUNK_PURPOSES];
    uint64_t chunk_ns; /* mono: when the last bytes of one came */
    uint64_t ops_out;  /* sent since the start */
    uint64_t op_bytes; /* of one of them, by the last stream that had any */
    struct wan_peer_metrics metrics;
};

/* --- everything --- */

struct wan_fetch;
struct wan_pass;
struct wan_waiter;
struct wan_boot;
struct wan_pairing;
struct wan_return;
struct wan_admin_req;

struct wan {
    /* fixed after wan_start; any thread */
    struct node *node;
    struct loop *loop;
    const struct clock *clock;
    char *dir;
    uint16_t port;
    struct wan_identity identity;

    SSL_CTX *tls;
    uv_loop_t uv;
    uv_thread_t thread;
    bool thread_runs; /* start and stop only */
    uv_async_t wake;  /* a message is there */
    uv_async_t feed_moved;
    struct mpsc inbox;
    struct wan_call *calls; /* on their way */
    uv_timer_t tick, pull_timer, pump_timer;
    uint64_t pumped_ns;  /* mono: the last look at the feed */
    uint32_t pump_run;   /* looks since it stood still, WAN_PUMP_RUN at most */
    uint32_t pump_moves; /* how often it has moved since the last look */
    uv_tcp_t listener;
    bool listening, stopping;
    struct h2_net net;
    struct rng rng;

    struct site_settings me; /* copy of the node's */
    char address[128];       /* where others reach this site, or empty */
    uint8_t fs_key[32];
    uint8_t fs_id[FS_ID_BYTES];
    struct wan_peer *peers;
    uint64_t generation; /* source of generations and probe ids */
    bool members_asked, members_again, members_known /* once at least */;
    bool removed; /* this site was removed from the federation */
    bool rolled_back;
    char rolled_back_text[320];
    bool pull_busy, pull_again;
    struct vv *vvs; /* durable here, as last pulled, by shard */
    json_t *paused; /* site ids in hex, from wan.json */

    uint64_t strangers_gone, stranger_logged_ns; /* since the last line about them; mono */
    struct invites invites;
    struct attempts attempts;
    struct buf voucher; /* of this site, by the one that let it in; or empty */
    struct {
        struct wan_fetch *first, *last;               /* wait for a peer */
        struct wan_fetch *buckets[WAN_FETCH_BUCKETS]; /* all, by id */
        uint32_t count;
        struct wan_peer *giver; /* gave the last chunk; NULL: one that has a link */
    } fetches;
    struct {
        struct wan_pass *first, *last;
    } passes; /* chunks that others are to get through here */
    uint32_t snapshots_served;
    struct wan_waiter *waiters;
    struct wan_boot *boot;        /* this site is loading a snapshot */
    struct wan_pairing *pairing;  /* an accept is under way */
    struct wan_return *returning; /* others are asked to take this site back */
};

/* wan_uv.c */
static inline uint64_t wan_now_ns(const struct wan *w)
{
    return clock_mono_ns(w->clock);
}
static inline uint64_t wan_wall_ns(const struct wan *w)
{
    return clock_wall_ns(w->clock);
}
/* Takes the node's settings and key; again after the site was adopted. Loop, or before node_run:
 * wan_take_settings copies, wan_use_settings installs on the WAN thread. */
struct wan_settings_copy {
    struct site_settings me;
    uint8_t fs_key[32];
};
void wan_settings_copy(struct wan *w, struct wan_settings_copy *ret); /* loop thread */
void wan_settings_use(struct wan *w, const struct wan_settings_copy *s);

/* wan_members.c: peers from the members of the federation */
void wan_members_fetch(struct wan *w);
/* A member that the journal has and the next wan_members_fetch() will tell. */
void wan_member_known(struct wan *w, const struct member *m);
/* Of one that is new here: it has worked since then, and nothing of that is here. So far behind it
 * we are, and it behind us. */
void wan_peer_lag_since(struct wan_peer *p, uint64_t at_ms);
void wan_members_changed(void *ctx); /* loop thread */
struct wan_peer *wan_peer_by_site(struct wan *w, site_id_t site);
struct wan_peer *wan_peer_by_name(struct wan *w, const char *name);
/* Of several ids with this certificate a member's, and the one that was told of last. */
struct wan_peer *wan_peer_by_fingerprint(struct wan *w, const uint8_t *fp);
/* Did an operator remove the site with this certificate, under whichever of its ids? */
bool wan_was_removed(const struct wan *w, const uint8_t *fp);
void wan_peers_free(struct wan *w);
/* This site's own record. cert is borrowed from the identity. */
void wan_member_self(struct wan *w, struct member *ret);
int wan_paused_load(struct wan *w, struct err_detail *d) MUST_CHECK;
int wan_peer_pause(struct wan_peer *p, bool paused, struct err_detail *d) MUST_CHECK;

/* wan_link.c: dialling, accepting, routing */
int wan_listen(struct wan *w, struct err_detail *d) MUST_CHECK;
bool wan_peer_wanted(const struct wan_peer *p);  /* should there be a connection? */
bool wan_peer_reached(const struct wan_peer *p); /* is there one, for our requests? */
void wan_peer_dial(struct wan_peer *p);          /* now, if it is wanted and there is none */
void wan_peer_kick(struct wan_peer *p);          /* now, forgetting earlier failures */
void wan_peer_cut(struct wan_peer *p, int rc, const char *why); /* closes all its connections */
const char *wan_peer_leaves_text(const struct wan_peer *p);     /* what it is told, and why */
void wan_peer_dismiss(struct wan_peer *p); /* it leaves: says so, and closes them */
/* Did a member tell that this site was removed, and none talks to it any more? */
bool wan_removed_there(const struct wan *w);
void wan_peer_trouble(struct wan_peer *p, enum wan_trouble what, int rc, const char *text);
void wan_link_tick(struct wan *w);
void wan_respond_error(struct h2_stream *s, int status, int rc, const char *text);
void wan_respond_body(struct h2_stream *s, int status, struct slice body); /* with such a body */
/* The rc and sentence of an error response, whatever its body is. */
int wan_response_error(int status, const struct buf *body, struct err_detail *d);
void wan_rolled_back(struct wan *w, const char *by_whom, const char *how);
/* Who dialled: the peer behind an accepted connection, NULL for a stranger. */
struct wan_peer *wan_conn_peer(const struct h2_conn *c);

/* wan_history.c: what a peer knows of our operations, and what we know of them. All by shard. */
#define WAN_HOW_BYTES 140
struct wan_history {
    const uint64_t *have;                /* how many the peer has */
    const struct last_op *theirs, *mine; /* the last one, as it is known there and here */
    const struct vv *vvs;                /* durable here */
};
/* Does it know others than we have? Then this site was rolled back, and `how` says by what that is
 * seen: "NAME has ...". */
bool wan_history_differs(struct wan *w, const struct wan_history *h, char how[WAN_HOW_BYTES]);

/* wan_recv.c: our stream from a peer */
void wan_recv_start(struct wan_peer *p);
void wan_recv_stop(struct wan_peer *p);
/* Ends the stream and its connection; the back-off decides when to come again. */
void wan_recv_fail(struct wan_peer *p, int rc, const char *text);
void wan_recv_tick(struct wan_peer *p, uint64_t now_ns);
uint64_t wan_recv_probe(struct wan_peer *p); /* sends a probe, its id; 0: not running */
void wan_pull(struct wan *w);                /* looks at what is durable, soon */
void wan_pull_now(uv_timer_t *t);
void wan_recv_free(struct wan_peer *p);

/* wan_send.c: a peer's stream from us */
void wan_send_accept(struct wan_peer *p, struct h2_stream *s);
void wan_send_pump(struct wan_send *s);
void wan_send_tick(struct wan_send *s, uint64_t now_ns);
void wan_send_farewell(struct wan_peer *p); /* the last frame says that it was removed */
void wan_send_free(struct wan_send *s);

/* wan_horizon.c: what a peer must have before a stream that is new to it. Any error ends the
 * stream. from: by shard, where the stream begins; mine: durable here. */
struct wan_horizon;
struct wan_horizon *
wan_horizon_new(struct wan *w, site_id_t peer, const struct vv *mine, const uint64_t *from);
void wan_horizon_free(struct wan_horizon *h); /* accepts NULL */
/* Goes on; wants to be called after each acknowledgement, and when the feed moves. */
int wan_horizon_step(struct wan_horizon *h, const struct vv *have, bool *ret_met) MUST_CHECK;

/* wan_chunk.c: chunks that this site lacks */
void wan_chunk_fetch(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx); /* loop */
void wan_fetch_resume(struct wan *w); /* a link came up, or a request ended */
void wan_fetch_tick(struct wan *w, uint64_t now_ns);
void wan_fetch_free(struct wan *w);

/* wan_pass.c: chunks that others lack. request: as way_request_print makes it. */
#define WAN_CHUNK_PATH "/v1/chunk/" /* followed by the request */
void wan_chunk_serve(struct wan *w, struct h2_stream *s, const char *request);
void wan_pass_resume(struct wan *w);
void wan_pass_tick(struct wan *w, uint64_t now_ns);
void wan_pass_free(struct wan *w);

/* wan_boot.c: snapshots */
#define WAN_SNAPSHOT_PATH "/v1/snapshot/past"
#define WAN_SNAPSHOT_PATH_OLD "/v1/snapshot" /* without the past */
/* to: the member that asks, which can take the operations that others lack (W12), and a voucher;
 * NULL: it is of an older version, and gets the state alone. */
void wan_snapshot_serve(struct wan *w, struct h2_stream *s, const struct member *to);
int wan_boot_load(struct wan *w, struct err_detail *d) MUST_CHECK; /* DIR/wan_boot.json, if any */
/* Remembers where to get the snapshot of which file system from; then wan_boot_begin. If somebody
 * else was asked up to now, he must be held; the file has both until the site's key says which. */
int wan_boot_save(struct wan *w,
                  const struct member *from,
                  const uint8_t fs_id[FS_ID_BYTES],
                  struct err_detail *d) MUST_CHECK;
/* Undoes wan_boot_save: who was asked before is asked again. joins: the node could not begin, but
 * will with the next start. */
void wan_boot_cancel(struct wan *w, bool joins);
/* Nothing of the snapshot is arriving just now: so another site may be asked instead. */
bool wan_boot_is_idle(const struct wan *w);
const struct member *wan_boot_from(const struct wan *w); /* NULL: no snapshot is being loaded */
bool wan_boot_is_refused(const struct wan *w);           /* this site has left meanwhile */
/* While another id is asked for, the tree must not come under this one: it would be taken for the
 * other's. */
void wan_boot_hold(struct wan *w, bool held);
typedef void (*wan_boot_done)(void *ctx, int rc, const char *text);
/* Gets the snapshot, again and again until it is there. done: once, after the first attempt. */
void wan_boot_begin(struct wan *w, wan_boot_done done, void *ctx);
void wan_boot_free(struct wan *w);

/* wan_pairing.c */
void wan_pair_serve(struct wan *w, struct h2_stream *s);
int wan_invites_load(struct wan *w, struct err_detail *d) MUST_CHECK;
int wan_invite_make(struct wan *w,
                    uint64_t ttl_s,
                    const char *address,
                    char ret_token[TOKEN_TEXT_MAX],
                    uint64_t *ret_expires_s,
                    struct err_detail *d) MUST_CHECK;
typedef void (*wan_accept_done)(void *ctx, int rc, const char *text, const struct member *peer);
void wan_accept(struct wan *w, const char *token, wan_accept_done done, void *ctx);
void wan_pairing_free(struct wan *w);

/* wan_asked.c: a request with a small body. The WAN thread; freed by whoever comes last, the stream
 * or the call. */
struct wan_asked {
    size_t body_max;
    void (*decide)(struct wan_asked *a); /* the body is there, or too_long: answers, or calls */
    const char *refused;                 /* what the log calls an answer that is none */
    struct wan *wan;                     /* from here on it is wan_asked.c's */
    struct h2_stream *stream;            /* NULL: gone, or answered */
    struct buf body;
    bool too_long, call_runs;
};
void wan_asked_serve(struct wan *w, struct h2_stream *s, const struct wan_asked *how);
/* Once. What was asked may be freed by it, unless a call is under way. */
void wan_asked_answer(struct wan_asked *a, int status, int rc, const char *text);
void wan_asked_call(struct wan_asked *a, struct wan_call *c);
void wan_asked_called(struct wan_asked *a); /* from the call's release */

/* wan_voucher.c: what others say of this site, and what it says of others (voucher.h) */
#define WAN_VOUCHER_PATH "/v1/member"
int wan_voucher_load(struct wan *w, struct err_detail *d) MUST_CHECK;
/* Keeps the one that came with a snapshot; empty: none came. */
int wan_voucher_save(struct wan *w, struct slice voucher, struct err_detail *d) MUST_CHECK;
void wan_voucher_make(struct wan *w, const struct member *m, struct buf *out); /* of a member */
void wan_voucher_serve(struct wan *w, struct h2_stream *s);
/* A peer says that it does not know this site: shows it the voucher, if it has said so for a while,
 * and the connection ends with the answer. False: that goes on as it would without. */
bool wan_voucher_show(struct wan_peer *p, uint64_t now_ns);

/* wan_return.c */
void wan_return_serve(struct wan *w, struct h2_stream *s);
void wan_return_begin(struct wan *w, struct wan_admin_req *r);
void wan_return_free(struct wan *w);

/* wan_admin.c */
bool wan_admin(void *hctx, const char *verb, const char *json, admin_reply_cb cb, void *ctx);
void wan_admin_reply(struct wan_admin_req *r, int rc, const char *text); /* WAN thread */
void wan_admin_req_drop(struct wan_admin_req *r); /* without an answer: the loop is gone */

/* wan_wait.c */
void wan_wait_begin(struct wan *w, struct wan_admin_req *r, double timeout_s);
void wan_wait_check(struct wan *w);
void wan_wait_probe_reply(struct wan_peer *p, uint64_t id, const struct vv *vvs);
void wan_wait_free(struct wan *w);

/* wan_status.c */
enum wan_detail {
    WAN_BRIEF, /* what `peer list` shows */
    WAN_FULL
};
/* What the loop knows of the peers' backlogs. */
struct wan_backlogs {
    uint32_t count;
    struct node_backlog at[SITE_COUNT_MAX];
};
char *wan_status_json(struct wan *w,
                      enum wan_detail detail,
                      const struct wan_backlogs *backlogs); /* mem_free */
const char *wan_peer_state(const struct wan_peer *p);
void wan_metrics_begin(struct wan_peer *p);
void wan_metrics_end(struct wan_peer *p);
uint64_t wan_lag_in_ns(const struct wan_peer *p, uint64_t now_ns);
uint64_t wan_lag_out_ns(const struct wan_peer *p, uint64_t now_ns);

#endif
