/* The mount's connections to its site: one session, one blocking connection per thread, and one
 * push connection with a thread of its own, which makes no call.
 *
 * A call that loses its connection waits until the site is there again and is sent once more with
 * the same number, so that it is carried out once (site/proto.h). Any broken connection takes the
 * whole mount through a reconnect: the push thread joins the session again (or opens a new one when
 * the site does not know it any more), on a third thread the owner re-opens its files and locks in
 * events.recover(), and only then do waiting calls go on (C5). Pushes come all that time.
 *
 *        connect + hello         recovered
 *  DOWN ----------------> RECOVER ---------> UP
 *    ^                       |                |
 *    +------- broken --------+----- broken ---+        STOPPED from anywhere
 *
 * Threads: any, except where noted. */
#ifndef CLIENT_CONN_H
#define CLIENT_CONN_H

#include "base/clock.h"
#include "client/conn_seq.h"
#include "site/proto.h"
#include "site/rpc.h"

struct conn;
struct conn_config {
    struct rpc_target target; /* strings are copied */
    struct rpc_auth auth;
    const struct clock *clock;
    const char *name; /* who we are, for people: HOST:MOUNTPOINT; copied */
    bool ahead;       /* changes may be answered ahead of the disk (client/conn_ahead.h) */
};
struct conn_events {
    /* A push; push thread; slices are valid during the call. `id` is what conn_ack wants. */
    void (*push)(void *ctx, uint16_t type, uint64_t id, const struct fs_reply *push);
    /* The site is there again; recovery thread, whose own calls pass. `new_session`: the site knew
     * nothing of us. Not called for the first connection. */
    void (*recover)(void *ctx, bool new_session);
    /* A change that was answered ahead of the disk went with the node that had it in memory, and
     * cannot be made again: `rc` says why. Recovery thread. */
    void (*lost)(void *ctx, uint16_t type, struct oid oid, int rc);
    /* A file that was made ahead of the disk was made again, and this session has it open if it was
     * opened with it. Recovery thread. */
    void (*made_again)(void *ctx, struct oid oid);
    void *ctx;
};
/* Connects once: an error says why the site is not there. No event comes before conn_start. */
int conn_open(struct conn **ret,
              const struct conn_config *config,
              const struct conn_events *events,
              struct err_detail *d) MUST_CHECK;
/* From here on the site is listened to, events come, and a broken connection is made again: after
 * all that events touch is there. Once; not for a conn of conn_open_local. */
int conn_start(struct conn *c) MUST_CHECK;
/* Instead of a site a function answers: for tests. It fills call->reply and returns its rc. */
struct conn_call;
struct conn *conn_open_local(int (*answer)(void *ctx, struct conn_call *call), void *ctx);
void conn_stop(struct conn *c); /* calls that wait, and later ones, return ERR_CLOSED */
void conn_join(struct conn *c); /* after conn_stop: no event comes any more */
void conn_free(struct conn *c); /* after all callers are gone; accepts NULL */
const uint8_t *conn_fs_key(const struct conn *c); /* 32 bytes, from the site */
const char *conn_site_name(const struct conn *c);
bool conn_takes_riders(struct conn *c); /* SITE_TAKES_RIDERS */
bool conn_holds(struct conn *c);        /* changes may be answered ahead, and SITE_HOLDS */
/* The site has not given this session up: it would have closed the push connection. What is decided
 * here on the site's behalf asks, as this process may have stood still for any time. A system call.
 */
bool conn_in_touch(struct conn *c);
void conn_ack(struct conn *c, uint64_t id); /* RPC_INVAL_ACK */
/* Will a recovery make this file again? Then it is opened with that, not before. Recovery thread.
 */
bool conn_makes_again(struct conn *c, struct oid oid);
/* Is there anything that was answered, and may not be durable? */
bool conn_is_ahead(struct conn *c);

/* Memory that this thread has in common with its site, so that a large chunk need not go through
 * the socket: bulk of an RPC_CHUNK_PUT that lies in it is not copied. NULL: the site is elsewhere,
 * or does not do this. The thread's own until it asks for it again; may connect, and wait. */
uint8_t *conn_share(struct conn *c, size_t *ret_len);

/* One request and its reply. conn_call_init, fill in `req` (and bulk), conn_call_run, read `reply`,
 * conn_call_deinit. Slices in the reply live until then. */
struct conn_call {
    uint16_t type;
    struct fs_request req;
    struct slice bulk; /* with RPC_CHUNK_PUT, RPC_COMMIT */
    bool durable;      /* the answer is to wait for the disk, whatever the mount's way */
    bool into_share;   /* RPC_CHUNK_GET of the whole: the answer's bulk may lie in conn_share() */
    struct fs_reply reply;
    struct slice reply_bulk;
    struct conn_number number; /* private from here */
    bool numbered;
    struct conn_scratch *scratch;
};
void conn_call_init(struct conn_call *call, uint16_t type);
/* Gives the call its number now; only for those who must know it before (RPC_LOCK). */
uint64_t conn_call_number(struct conn *c, struct conn_call *call);
/* The reply's rc; ERR_CANCELLED when the thread's interrupt hook said so while the site was away;
 * ERR_CLOSED after conn_stop. */
int conn_call_run(struct conn *c, struct conn_call *call) MUST_CHECK;
/* The same where the outcome changes nothing for the caller; says why beside the call. */
void conn_call_tell(struct conn *c, struct conn_call *call);
void conn_call_deinit(struct conn_call *call);
/* For this thread: asked now and then while a call waits for a site that is away. NULL: never. */
void conn_thread_interrupt(bool (*interrupted)(void *arg), void *arg);

#endif
