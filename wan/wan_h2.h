/* HTTP/2 over TLS over TCP, on libuv: connections and their streams of bytes. A shell; it knows
 * nothing of sites. Everything runs on the thread of the uv loop.
 *
 * Reading: data() hands out bytes as they come; the other side may send as much again only after
 * h2_consume() (flow control, W5). Writing: h2_write() buffers; drained() says that the buffer has
 * fallen below H2_LOW_BYTES, so a sender that writes one piece per drained() holds two at most.
 * Output is collected and written once per turn of the loop.
 *
 * Callbacks never run inside the call that caused them, but for those that arriving bytes cause. A
 * stream and a connection end with exactly one closed(), after which they are gone. */
#ifndef WAN_WAN_H2_H
#define WAN_WAN_H2_H

#include <nghttp2/nghttp2.h>
#include <uv.h>

#include "base/clock.h"
#include "wan/wan_tls.h"

#define H2_LOW_BYTES (64u * 1024u)
#define H2_PATH_MAX 160u
#define H2_PING_NS (500 * NS_PER_MS)
#define H2_SILENCE_NS (5 * NS_PER_SEC)    /* a link that says nothing for so long is dead */
#define H2_HANDSHAKE_NS (10 * NS_PER_SEC) /* from connect or accept to ready */
#define H2_WHY_BYTES 300u

struct h2_conn;
struct h2_stream;

struct h2_conn_events {
    /* TLS is up and the other side's certificate is known. False: the connection closes. */
    bool (*ready)(struct h2_conn *c);
    /* Server: the head of a request is there. The stream must be answered or reset. NULL for a
     * client. */
    void (*request)(struct h2_conn *c, struct h2_stream *s, const char *method, const char *path);
    void (*closed)(struct h2_conn *c, int rc, const char *why);
};
struct h2_stream_events {
    void (*response)(struct h2_stream *s, int status); /* client; NULL for a server */
    void (*data)(struct h2_stream *s, const uint8_t *ptr, size_t len);
    void (*drained)(struct h2_stream *s); /* may be NULL */
    void (*ended)(struct h2_stream *s);   /* the other side has said all; may be NULL */
    void (*closed)(struct h2_stream *s, int rc);
};

/* What the connections of one loop share. */
struct h2_net {
    uv_loop_t *loop;
    SSL_CTX *tls;
    const struct clock *clock;
    struct h2_conn *conns; /* all, newest first */
    uint32_t conn_count;
    struct h2_conn *dirty, **dirty_last; /* have output to collect; a queue */
    uint32_t dirty_count;
    uv_prepare_t prepare;
    uv_idle_t idle; /* runs while output is left over */
    uint8_t *read_buf, *plain_buf;
};
void h2_net_init(struct h2_net *net, uv_loop_t *loop, SSL_CTX *tls, const struct clock *clock);
/* After all connections are gone and the loop has closed the handles (uv_walk finds them). */
void h2_net_deinit(struct h2_net *net);
void h2_net_tick(struct h2_net *net); /* a few times a second: pings, silence, handshakes */

/* Connects to HOST:PORT; expected is the fingerprint that must answer (copied). Never NULL;
 * failures come through closed(). A connection of H2_SERVES is for the other side's requests. */
enum h2_purpose {
    H2_ASKS,
    H2_SERVES
};
struct h2_conn *h2_dial(struct h2_net *net,
                        const char *address,
                        enum h2_purpose purpose,
                        const uint8_t *expected,
                        const struct h2_conn_events *events,
                        void *user);
/* Takes the connection that waits at a listening handle. NULL when there is none after all. */
struct h2_conn *h2_accept(struct h2_net *net,
                          uv_stream_t *listener,
                          const struct h2_conn_events *events,
                          void *user);
/* Ends it and all its streams; closed() comes later. Idempotent: the first reason counts. */
void h2_close(struct h2_conn *c, int rc, const char *why);
/* Lets answers that are under way go out, then ends it. */
void h2_close_soon(struct h2_conn *c, int rc, const char *why);
struct h2_conn *h2_next(const struct h2_conn *c); /* of all connections of the net */
void *h2_user(const struct h2_conn *c);
void h2_set_user(struct h2_conn *c, void *user);
void h2_set_events(struct h2_conn *c, const struct h2_conn_events *events, void *user);
const uint8_t *h2_fingerprint(const struct h2_conn *c); /* of the other side, once ready */
int h2_exporter(struct h2_conn *c, uint8_t *out, size_t len) MUST_CHECK;
uint64_t h2_rtt_ns(const struct h2_conn *c); /* of the last ping; 0: not known yet */
uint64_t h2_source(const struct h2_conn *c); /* a hash of the other side's address */
bool h2_is_ready(const struct h2_conn *c);
uint64_t h2_age_ns(const struct h2_conn *c);
enum h2_purpose h2_purpose(const struct h2_conn *c); /* of an accepted one: once ready */
bool h2_was_dialled(const struct h2_conn *c);
uint32_t h2_stream_count(const struct h2_conn *c);

/* A request; the body follows by h2_write and h2_end. NULL: the connection is not ready. */
struct h2_stream *h2_request(struct h2_conn *c,
                             const char *method,
                             const char *path,
                             const struct h2_stream_events *events,
                             void *user);
/* Server: who follows this stream from now on. To be called in request(). */
void h2_follow(struct h2_stream *s, const struct h2_stream_events *events, void *user);
void h2_respond(struct h2_stream *s, int status); /* the body follows by h2_write and h2_end */
void h2_write(struct h2_stream *s, const void *ptr, size_t len);
void h2_give(struct h2_stream *s, struct buf *bytes); /* the same; bytes becomes empty */
void h2_end(struct h2_stream *s);
size_t h2_pending(const struct h2_stream *s); /* bytes written and not handed to TLS */
void h2_consume(struct h2_stream *s, size_t len);
void h2_reset(struct h2_stream *s); /* closed() comes later */
void *h2_stream_user(const struct h2_stream *s);
struct h2_conn *h2_stream_conn(const struct h2_stream *s);

/* "HOST:PORT" or "[V6]:PORT" into its parts. ERR_INVALID. */
int wan_address_split(const char *address, char host[128], char port[8]) MUST_CHECK;

#endif
