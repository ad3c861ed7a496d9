/* Inside conn*.c: the connections of a mount, and what a thread has of its own. */
#ifndef CLIENT_CONN_INT_H
#define CLIENT_CONN_INT_H

#include <pthread.h>

#include "client/conn.h"
#include "client/conn_ahead.h"
#include "client/conn_share.h"

#define CONN_TIMEOUT_MS 5000u
#define CONN_BACKOFF_MIN_MS 10u

enum conn_state {
    CONN_DOWN,
    CONN_RECOVER,
    CONN_UP,
    CONN_STOPPED
};
struct conn {
    struct rpc_target target;
    char *unix_path, *host; /* what target points to */
    char *name;
    struct rpc_auth auth;
    const struct clock *clock;
    struct conn_events events;
    int (*answer)(void *ctx, struct conn_call *call); /* instead of a site */
    void *answer_ctx;
    struct conn_seq seq;
    struct conn_ahead ahead;
    bool may_ahead;
    pthread_t push_thread, recover_thread;
    bool push_started, recover_started;
    uint8_t fs_key[32];
    char site_name[64];

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t moved; /* state changed */
    enum conn_state state;
    uint64_t incarnation; /* counts reconnects; connections of older ones are closed when met */
    bool new_session;     /* the last reconnect opened one */
    uint64_t session;
    uint32_t site_flags; /* SITE_*, from the last hello */
    struct rpc_client *push;
    pthread_mutex_t ack_lock; /* writers on the push connection; taken after `lock` */
};

/* Buffers of one call, kept by the thread for its next one. */
struct conn_scratch {
    struct op_arena arena;
    struct buf body;
    struct rpc_reply reply;
    struct conn_scratch *next;
};
/* What a thread has of its own. */
struct conn_thread {
    const struct conn *conn;
    struct rpc_client *client;
    uint64_t incarnation;
    uint64_t next_id;
    uint64_t connects; /* counted; which connection `client` is */
    struct conn_share share;
    bool (*interrupted)(void *arg);
    void *interrupted_arg;
    bool recovering; /* this is the recovery thread */
    struct conn_scratch *scratch;
    unsigned scratch_count;
};

struct conn_thread *conn_thread_self(void);
/* Makes sure this thread has a connection that is joined to the session. ERR_AGAIN: it was not to
 * be had; wait and try again. */
int conn_thread_connect(struct conn *c, struct conn_thread *t) MUST_CHECK;
void conn_thread_broken(struct conn *c, struct conn_thread *t);
/* Joins the session, or opens one (0). ERR_STALE: it is another one than was asked for. */
int conn_hello(struct rpc_client *client, uint64_t session, uint32_t flags, struct conn_call *call)
    MUST_CHECK;
/* Waits for a change of state, a slice of time at most. Lock held. */
void conn_wait_slice(struct conn *c, uint64_t ns);
bool conn_stopped(struct conn *c);
/* Either the connection is gone, and the next round waits for the next one, or the site is not
 * ready for this: give it a moment. */
void conn_pause(struct conn *c);

/* ---- conn_push.c ---- */
/* Connects and joins the session, or opens one. *ret_new: a session was opened. */
int conn_push_connect(struct conn *c, bool *ret_new, struct err_detail *d) MUST_CHECK;
/* Calls go on, if `incarnation` is still what we are with. */
void conn_state_up(struct conn *c, uint64_t incarnation);
void *conn_push_main(void *conn);
void *conn_recover_main(void *conn);

#endif
