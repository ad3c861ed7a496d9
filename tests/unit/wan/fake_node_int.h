/* Private to the in-memory node: what its parts share. Functions that begin with fake_ and are not
 * in fake_node.h want the node's lock held, unless they say otherwise. */
#ifndef TESTS_UNIT_WAN_FAKE_NODE_INT_H
#define TESTS_UNIT_WAN_FAKE_NODE_INT_H

#include <pthread.h>

#include "tests/unit/wan/fake_node.h"
#include "wan/wan_h2.h"

enum {
    PEERS_MAX = 8,
    MEMBERS_MAX = 8
};
struct rec {
    uint64_t hlc; /* of the commit; 0: this site's own business */
    struct dot dot;
    struct buf op;
};
struct shard {
    struct rec *recs; /* index = position + 1 */
    uint64_t count, cap, first;
    struct vv vv;
};
struct cursors {
    site_id_t peer;
    uint64_t next[FAKE_SHARDS];
    uint64_t acked[FAKE_SHARDS];
};
struct chunk {
    struct chunk *next;
    uint8_t id[32];
    struct buf bytes;
};
struct fake_member {
    struct member m;
    uint64_t hlc;
    char cert[8192];
};
struct node {
    struct loop *loop;
    pthread_t thread;
    struct clock clock;
    char *dir;
    struct site_settings settings;
    uint8_t fs_key[32];
    struct wan *wan;
    pthread_mutex_t lock;
    struct shard shards[FAKE_SHARDS];
    struct cursors cursors[PEERS_MAX];
    unsigned cursor_count;
    struct fake_member members[MEMBERS_MAX];
    unsigned member_count;
    struct chunk *chunks;
    unsigned chunks_given;
    uint64_t hlc, duplicates;
    int64_t shift_ns;
    char broken[200];
    bool needs_snapshot, stalled, members_hidden, snapshots_refused;
    int adopt_rc;
    unsigned older;        /* of enum fake_older; atomic */
    unsigned asked_new;    /* requests with the new paths; atomic */
    unsigned asked_return; /* atomic */
    unsigned asked_again;  /* of them for a stream, on a connection where that was asked; atomic */
    const struct h2_conn *asked_conn; /* for a stream, last; the WAN thread's, as its birth */
    uint64_t asked_conn_ns;
    struct fake_return returns;
    struct h2_conn_events accepted_events, lent_events; /* fake_older.c; the WAN thread's */
    void (*serve_request)(struct h2_conn *c,
                          struct h2_stream *s,
                          const char *method,
                          const char *path);
    struct apply_batch *stalled_batch;
    bool unsettled;                   /* under the lock: fake_unsettled */
    struct node_settle_wait *settles; /* under the lock: that wait for the end of that */
    uint64_t waits_hlc;               /* under the lock: fake_waits */
    void (*feed_changed)(void *ctx);
    void *feed_ctx;
    void (*members_changed)(void *ctx);
    void *members_ctx;
    void (*fetch)(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx);
    void *fetch_ctx;
    admin_handler admin;
    void *admin_ctx;
    struct later *laters; /* under the lock */
    struct commit {
        site_id_t from;
        void (*done)(void *ctx, int rc, const struct err_detail *d); /* NULL: there is none */
        void *ctx;
    } commit; /* under the lock: of a snapshot */
};

/* ---- fake_node.c ---- */
void fake_wake(void); /* all who wait for something of some node; without the lock */
void fake_violated(struct node *n, const char *what); /* a contract; the first one is kept */
/* An answer that comes with a later turn of the loop; if that has ended by then, it never comes. */
struct later {
    struct loop_msg msg;
    struct later *next;
    struct node *n;
    void (*run)(struct later *l);
    void (*done)(void *ctx, int rc);
    void (*ready)(void *ctx, int rc, struct node_snapshot *s);
    void *ctx;
    struct node_settle_wait *wait;
    struct node_snapshot *snapshot;
};
void fake_later(struct node *n, struct later what); /* without the lock */

/* ---- fake_ops.c ---- */
struct head {
    struct dot dot;
    uint64_t hlc;
    struct slice body;
};
bool fake_head_read(struct slice op, struct head *ret);
void fake_op_commit(struct node *n, const struct head *h, struct slice op);
/* hlc 0: it is of now. */
void fake_op_make(struct node *n, shard_id_t shard, uint64_t hlc, struct slice body);
void fake_moved(struct node *n); /* tells who waits; lets go of the lock meanwhile */
struct cursors *fake_cursors_of(struct node *n, site_id_t peer);

/* ---- fake_data.c ---- */
void fake_commit_run(struct later *l);

/* ---- fake_members.c ---- */
void fake_member_apply(struct node *n, struct slice body, uint64_t hlc);

#endif
