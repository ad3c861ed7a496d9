/* Insides of HTTP/2 connections, shared by wan_h2.c (sockets, TLS, lifetime) and wan_h2_stream.c
 * (nghttp2). */
#ifndef WAN_WAN_H2_INT_H
#define WAN_WAN_H2_INT_H

#include "wan/wan_h2.h"

enum h2_state {
    H2_CONNECTING, /* the name is looked up or an address tried */
    H2_HANDSHAKE,
    H2_READY,
    H2_CLOSING /* closed() will follow */
};
struct h2_stream {
    struct h2_conn *conn;
    struct h2_stream *prev, *next;
    int32_t id;
    const struct h2_stream_events *events; /* NULL: nobody follows it yet */
    void *user;
    struct buf out; /* written and not taken by nghttp2 from out_at on */
    size_t out_at;
    bool answered; /* client: request submitted; server: response submitted */
    bool eof;      /* nothing will be written after `out` */
    bool deferred; /* nghttp2 waits to be told of more */
    bool want_drained;
    int status;
    char method[8];
    char path[H2_PATH_MAX];
    bool head_bad; /* method or path did not fit */
};
struct h2_conn {
    struct h2_net *net;
    struct h2_conn *prev, *next;
    struct h2_conn *dirty_next;
    bool is_dirty; /* in the net's queue */
    const struct h2_conn_events *events;
    void *user;
    bool dialled;
    enum h2_purpose purpose;
    enum h2_state state;
    uint32_t handles; /* uv operations whose callback is to come before it may be freed */
    uv_tcp_t tcp;
    bool tcp_open; /* tcp is initialised and not being closed */
    uv_getaddrinfo_t lookup;
    struct addrinfo *addrs, *addr_next;
    uv_connect_t connect;
    uint8_t expected[FINGERPRINT_BYTES];
    SSL *ssl;
    struct wan_tls_io io;
    struct buf out;     /* encrypted, not given to the socket */
    struct buf writing; /* given to the socket */
    uv_write_t write;
    bool write_busy;
    nghttp2_session *session;
    struct h2_stream *streams;
    uint32_t stream_count;
    bool drain_wanted; /* a stream has want_drained */
    uint8_t fingerprint[FINGERPRINT_BYTES];
    uint64_t source;
    uint64_t began_ns, heard_ns, pinged_ns, rtt_ns, ticked_ns;
    bool closing_soon;
    int rc; /* why it ends */
    char why[H2_WHY_BYTES];
};
void h2_mark_dirty(struct h2_conn *c);
int h2_session_make(struct h2_conn *c) MUST_CHECK;
void h2_session_ping(struct h2_conn *c, uint64_t now_ns);
/* Collects up to `room` bytes of frames. */
size_t h2_session_collect(struct h2_conn *c, uint8_t *to, size_t room);
void h2_streams_drain(struct h2_conn *c);
void h2_streams_close(struct h2_conn *c, int rc);

#endif
