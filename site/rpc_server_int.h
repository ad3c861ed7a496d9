/* Private to rpc_server.c, rpc_conn.c and rpc_conn_tx.c: the server and its connections. All on the
 * loop thread. */
#ifndef SITE_RPC_SERVER_INT_H
#define SITE_RPC_SERVER_INT_H

#include "base/metrics.h"
#include "site/rpc_int.h"

enum {
    RPC_CONNS_MAX = LIMIT_SESSIONS * 64,
    RPC_HANDSHAKES_MAX = 1024,    /* connections that have not proved anything yet */
    RPC_RX_BYTES = 8192,          /* read ahead; longer frames get a buffer of their own */
    RPC_SPARES_MAX = 8,           /* such buffers kept for reuse */
    RPC_OUTSTANDING_MAX = 128,    /* references to a connection beyond which it is not read */
    RPC_HEAVY_BYTES = 65536,      /* a request beyond this counts until it is replied to */
    RPC_HEAVY_MAX = 8,            /* so many of them */
    RPC_TX_HIGH_BYTES = 8 << 20,  /* unsent replies beyond which a connection is not read */
    RPC_TX_PUSH_BYTES = 16 << 20, /* unsent bytes at which one more push closes it */
    RPC_SEGMENT_BYTES = 65536,    /* small replies are gathered up to this */
    RPC_BULK_OWN_BYTES = 16384,   /* bulk from here on is sent from where it lies */
    RPC_IOV_MAX = 16
};
_Static_assert((uint64_t)RPC_HEAVY_MAX *LIMIT_FRAME_BYTES <= 64 * MIB, "a connection's share");

/*            accepted                         proof good          rpc_conn_close
 *   HELLO ----------------> PROOF -----------------> OPEN ----------------> DRAIN
 *     |  hello good             |                      |   all sent, patience |
 *     +-------------------------+----------------------+----------------------+--> DYING
 *                                     any failure, end of stream
 *   DYING -> CLOSED once the kernel holds no request of it; then closed() and off the server. */
enum conn_state {
    CONN_HELLO,
    CONN_PROOF,
    CONN_OPEN,
    CONN_DRAIN,
    CONN_DYING,
    CONN_CLOSED
};

struct tx_segment {
    struct tx_segment *next;
    struct buf storage;
    struct slice left; /* into storage; what is not sent yet */
    bool growing;      /* small frames may still be added: not handed to the kernel yet */
};

struct rpc_conn {
    struct rpc_server *server; /* NULL once CLOSED */
    struct rpc_conn *prev, *next;
    int fd;
    bool is_unix;
    bool opened; /* opened() was called, closed() is owed */
    enum conn_state state;
    int rc;        /* for closed() */
    uint32_t refs; /* one is the server's */
    void *user;
    struct loop_timer timer; /* HELLO, PROOF, DRAIN: patience */
    struct loop_defer finish;
    struct rpc_keys *keys; /* in PROOF only */
    struct rpc_seal seal;

    struct loop_req rx_req;
    bool rx_armed;
    bool rx_drained; /* the socket was empty after the last read: wait before reading */
    uint8_t *rx;     /* rx_at .. rx_len is not handled yet */
    size_t rx_cap, rx_at, rx_len;
    struct buf big;           /* of a unit longer than RPC_RX_BYTES */
    size_t big_bytes;         /* the length it will have; 0: none in progress */
    struct buf *unit_storage; /* inside request(): may be taken; NULL: copy */
    struct loop_defer resume; /* reading goes on after a throttle */
    bool throttled;
    uint64_t heavy_ids[RPC_HEAVY_MAX]; /* requests beyond RPC_HEAVY_BYTES, not replied to yet */
    uint32_t heavy_count;

    struct loop_req tx_req;
    bool tx_armed;
    struct tx_segment *tx_first, **tx_last;
    size_t tx_bytes;
    struct msghdr tx_msg;
    struct iovec tx_iov[RPC_IOV_MAX];
    struct loop_defer flush;
    uint8_t *share; /* memory in common with the client, or NULL */
    size_t share_len;
    int share_fd; /* while the client has not got it; else -1 */
    char text[96];
};

struct rpc_listener {
    struct rpc_listener *next;
    struct rpc_server *server;
    struct loop_req req;
    struct loop_timer retry; /* after the process ran out of descriptors */
    int fd;
    bool is_unix, armed, single_shot;
    char *path; /* to remove in the end; NULL for TCP */
};

struct rpc_server {
    struct loop *loop;
    struct rpc_auth auth;
    struct rpc_server_events events;
    uint64_t patience_ns;
    struct rpc_listener *listeners;
    struct rpc_conn *conns;
    uint32_t conn_count, handshake_count;
    uint32_t share_count; /* of connections that are not closed */
    struct buf spares[RPC_SPARES_MAX];
    uint32_t spare_count;
    struct buf plain, scratch; /* opened and unsealed small units */
    bool stopping;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    struct loop_defer stop_check;
};

enum rpc_metric {
    RPC_METRIC_CONNS,
    RPC_METRIC_REQUESTS,
    RPC_METRIC_BYTES_IN,
    RPC_METRIC_BYTES_OUT,
    RPC_METRIC_REFUSED,
    RPC_METRIC_COUNT
};
extern struct metric rpc_metrics[RPC_METRIC_COUNT];

/* A buffer for long units: reused ones have their pages already. */
struct buf rpc_spare_take(struct rpc_server *s, size_t bytes);
void rpc_spare_give(struct rpc_server *s, struct buf *b); /* empties *b */
void rpc_server_conn_gone(struct rpc_server *s);

void rpc_conn_new(struct rpc_server *s, int fd, bool is_unix);
/* rpc_share.c: the connection is off the server; its memory goes. */
void rpc_share_closed(struct rpc_conn *c);
void rpc_share_free(struct rpc_conn *c);
void rpc_conn_kill(struct rpc_conn *c, int rc, const char *why);
void rpc_conn_finish_check(struct rpc_conn *c);
void rpc_conn_resume_check(struct rpc_conn *c);

void rpc_tx_init(struct rpc_conn *c);
void rpc_tx_raw(struct rpc_conn *c, const void *ptr, size_t len); /* in clear: the handshake */
void rpc_tx_deinit(struct rpc_conn *c);

#endif
