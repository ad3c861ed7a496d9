/* Private to client/dash*.c. */
#ifndef CLIENT_DASH_INT_H
#define CLIENT_DASH_INT_H

#include <pthread.h>

#include <jansson.h>
#include <microhttpd.h>

#include "client/dash.h"
#include "client/dash_history.h"
#include "client/dash_rate.h"
#include "client/dash_route.h"

#define DASH_CONNECTIONS_MAX 600u
#define DASH_STREAMS_MAX 500u
#define DASH_REQUEST_BYTES ((size_t)(16u * KIB)) /* headers of one connection */
#define DASH_IDLE_S 15u                          /* a client that says nothing for so long goes */

struct dash_text { /* published bytes, immutable, shared by count */
    char *json;
    size_t len;
    uint64_t version;
    uint32_t refs; /* under the lock */
};

struct dash_stream { /* one viewer's /events */
    struct dash *d;
    struct MHD_Connection *conn;
    struct dash_text *text; /* being sent, or NULL */
    size_t at;              /* in the event */
    uint64_t sent;          /* version of the last one begun */
    bool asleep;
    struct dash_stream *prev, *next;
};

struct dash_peer {
    char name[33];
    struct dash_rate in, out;
};

struct dash {
    struct node *n;
    char *token; /* NULL: loopback, none is needed */
    char address[160];
    int listen_fd;
    struct MHD_Daemon *daemon;

    /* the loop's */
    struct loop_timer timer, wake_timer;
    json_t *status; /* being put together */
    bool asking;
    struct dash_peer peers[DASH_PEERS_MAX];
    uint32_t peer_count;
    uint64_t saved_ns;
    bool ended;

    pthread_mutex_t lock; /* everything below; no other lock is taken inside but MHD's own */
    struct dash_text *text;
    struct dash_history *history;
    struct dash_stream *streams;
    uint32_t stream_count;
    uint64_t asked_ns; /* mono: when a client last asked for something */
    bool closing;
};

/* dash_http.c */
int dash_http_start(struct dash *d, struct err_detail *detail) MUST_CHECK;
void dash_http_stop(struct dash *d);
/* Under the lock: wakes as many of those who lack the newest text; whether there are more. */
bool dash_wake(struct dash *d, uint32_t most);
struct dash_text *dash_text_ref(struct dash *d); /* takes the lock; NULL: nothing yet */
void dash_text_unref(struct dash *d, struct dash_text *t);

/* dash_metrics.c: Prometheus text from the published JSON, and what base/metrics.h has */
void dash_metrics(const json_t *status, struct buf *out);

/* The page, made from client/dashboard/ when this is built. */
extern const unsigned char dash_page[];
extern const size_t dash_page_len;

#endif
