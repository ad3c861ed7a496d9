/* Connections: name lookup, TCP, TLS, the flow of bytes between socket, TLS and nghttp2, pings, and
 * the end of all that.
 *
 *   dial -> CONNECTING -> HANDSHAKE -> READY -> CLOSING -> closed()
 *   accept -------------^
 *
 * Input is handled as it arrives. Output is collected at the end of a turn, before the loop sleeps
 * (uv_prepare): frames are gathered into records of TLS and those into one write. While the socket
 * is full nothing is taken from nghttp2, so that a slow peer costs one bounded buffer (W5). */
#include <openssl/err.h>
#include <sodium.h>
#include <string.h>

#include "base/assert.h"
#include "wan/wan_h2_int.h"

enum {
    READ_BYTES = 64 * 1024,
    PLAIN_BYTES = 64 * 1024,
    OUT_BYTES_MAX = 256 * 1024,
    FLUSH_ROUNDS = 8,
    CONNS_MAX = 512
};

static void conn_tcp_closed(uv_handle_t *h);

static uint64_t now_ns(const struct h2_conn *c)
{
    return clock_mono_ns(c->net->clock);
}

void h2_mark_dirty(struct h2_conn *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    c->dirty_next = NULL;
    *c->net->dirty_last = c;
    c->net->dirty_last = &c->dirty_next;
    c->net->dirty_count++;
}

static void dirty_remove(struct h2_conn *c)
{
    struct h2_net *net = c->net;
    struct h2_conn **at = &net->dirty;
    if (!c->is_dirty)
        return;
    while (*at != c)
        at = &(*at)->dirty_next;
    *at = c->dirty_next;
    if (net->dirty_last == &c->dirty_next)
        net->dirty_last = at;
    net->dirty_count--;
    c->is_dirty = false;
}

/* --- the end --- */

static void conn_unlink(struct h2_conn *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->net->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->net->conn_count--;
    dirty_remove(c);
}

static void conn_finish(struct h2_conn *c)
{
    if (c->state != H2_CLOSING || c->handles > 0)
        return;
    h2_streams_close(c, c->rc);
    conn_unlink(c);
    if (c->events->closed != NULL)
        c->events->closed(c, c->rc, c->why);
    nghttp2_session_del(c->session);
    SSL_free(c->ssl);
    if (c->addrs != NULL)
        uv_freeaddrinfo(c->addrs);
    buf_deinit(&c->out);
    buf_deinit(&c->writing);
    mem_free(c);
}

void h2_close(struct h2_conn *c, int rc, const char *why)
{
    if (c->state == H2_CLOSING)
        return;
    c->state = H2_CLOSING;
    c->rc = rc;
    (void)snprintf(c->why, sizeof c->why, "%.*s", (int)sizeof c->why - 1, why); /* cut if need be */
    h2_mark_dirty(c);
}

void h2_close_soon(struct h2_conn *c, int rc, const char *why)
{
    if (c->state != H2_READY) {
        h2_close(c, rc, why);
        return;
    }
    if (c->closing_soon)
        return;
    c->closing_soon = true;
    c->rc = rc;
    (void)snprintf(c->why, sizeof c->why, "%.*s", (int)sizeof c->why - 1, why); /* cut if need be */
    (void)nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(c->session),
                                NGHTTP2_NO_ERROR, NULL, 0); /* a courtesy */
    h2_mark_dirty(c);
}

static void h2_close_uv(struct h2_conn *c, int rc, const char *what, int uv_rc)
{
    char why[H2_WHY_BYTES];
    (void)snprintf(why, sizeof why, "%s: %s", what, uv_strerror(uv_rc)); /* cut if need be */
    h2_close(c, rc, why);
}

/* --- output --- */

static void conn_wrote(uv_write_t *req, int status)
{
    struct h2_conn *c = CONTAINER_OF(req, struct h2_conn, write);
    c->write_busy = false;
    buf_clear(&c->writing);
    if (status < 0)
        h2_close_uv(c, ERR_UNREACHABLE, "sending failed", status);
    else if (c->state != H2_CLOSING)
        h2_mark_dirty(c);
}

/* Gives what TLS has produced to the socket. */
static void conn_send(struct h2_conn *c)
{
    if (c->write_busy || c->out.len == 0 || !c->tcp_open)
        return;
    uv_buf_t b = uv_buf_init((char *)c->out.ptr, (unsigned)c->out.len);
    int sent = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
    if (sent == (int)c->out.len) {
        buf_clear(&c->out);
        return;
    }
    if (sent < 0 && sent != UV_EAGAIN) {
        buf_clear(&c->out);
        h2_close_uv(c, ERR_UNREACHABLE, "sending failed", sent);
        return;
    }
    size_t skip = sent > 0 ? (size_t)sent : 0;
    buf_move(&c->writing, &c->out);
    b = uv_buf_init((char *)c->writing.ptr + skip, (unsigned)(c->writing.len - skip));
    c->write_busy = true;
    int rc = uv_write(&c->write, (uv_stream_t *)&c->tcp, &b, 1, conn_wrote);
    ASSERT(rc == 0); /* only misuse fails here */
}

static void conn_flush(struct h2_conn *c)
{
    while (c->session != NULL && c->out.len < OUT_BYTES_MAX && !c->write_busy) {
        size_t len = h2_session_collect(c, c->net->plain_buf, PLAIN_BYTES), done = 0;
        if (len == 0)
            break;
        if (SSL_write_ex(c->ssl, c->net->plain_buf, len, &done) != 1 || done != len) {
            struct err_detail d;
            int rc = wan_tls_error(c->ssl, &d);
            h2_close(c, rc, d.text);
            return;
        }
    }
    bool full = c->out.len >= OUT_BYTES_MAX;
    conn_send(c);
    if (full && !c->write_busy && c->state != H2_CLOSING)
        h2_mark_dirty(c); /* there may be more to collect */
}

/* The last words, as far as the socket takes them at once, then the close. */
static void conn_shut(struct h2_conn *c)
{
    if (!c->tcp_open)
        return;
    if (c->session != NULL && !c->closing_soon)
        (void)nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR); /* a courtesy */
    conn_flush(c);
    if (c->ssl != NULL && c->session != NULL) {
        (void)SSL_shutdown(c->ssl); /* a courtesy */
        ERR_clear_error();
        conn_send(c);
    }
    c->tcp_open = false;
    uv_close((uv_handle_t *)&c->tcp, conn_tcp_closed);
}

static void conn_turn(struct h2_conn *c)
{
    if (c->state == H2_CLOSING) {
        conn_shut(c);
        conn_finish(c);
        return;
    }
    conn_flush(c);
    if (c->state != H2_READY)
        return;
    h2_streams_drain(c);
    bool idle = !c->write_busy && c->out.len == 0 && nghttp2_session_want_write(c->session) == 0;
    if (idle && (c->closing_soon || nghttp2_session_want_read(c->session) == 0))
        h2_close(c, c->rc != 0 ? c->rc : ERR_CLOSED, c->rc != 0 ? c->why : "closed");
}

/* What becomes dirty in one round is for the next; what is left after the last waits for the next
 * turn of the loop, so that reading is never shut out. */
static void net_flush(struct h2_net *net)
{
    for (int round = 0; round < FLUSH_ROUNDS && net->dirty != NULL; round++) {
        for (uint32_t left = net->dirty_count; left > 0 && net->dirty != NULL; left--) {
            struct h2_conn *c = net->dirty;
            dirty_remove(c);
            conn_turn(c);
        }
    }
}

static void net_idle(uv_idle_t *idle)
{
    (void)idle; /* its being there keeps the loop from sleeping */
}

static void net_prepare(uv_prepare_t *prepare)
{
    struct h2_net *net = CONTAINER_OF(prepare, struct h2_net, prepare);
    net_flush(net);
    if (net->dirty != NULL)
        (void)uv_idle_start(&net->idle, net_idle); /* fails only without a callback */
    else
        (void)uv_idle_stop(&net->idle); /* never fails */
}

/* --- input --- */

static void handshake_failed(struct h2_conn *c)
{
    struct err_detail d;
    int rc = wan_tls_error(c->ssl, &d);
    conn_send(c); /* the alert tells the other side */
    h2_close(c, rc, d.text);
}

static void handshake_done(struct h2_conn *c)
{
    bool reverse;
    int rc = wan_tls_peer(c->ssl, c->fingerprint, &reverse);
    if (rc == 0)
        c->purpose = c->dialled == reverse ? H2_SERVES : H2_ASKS;
    if (rc == 0)
        rc = h2_session_make(c);
    if (rc != 0) {
        h2_close(c, rc, rc == ERR_VERSION ? "the other side does not speak HTTP/2" : err_text(rc));
        return;
    }
    c->state = H2_READY;
    if (!c->events->ready(c))
        h2_close(c, ERR_AUTH, "refused");
}

static void conn_handshake(struct h2_conn *c)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(c->ssl);
    h2_mark_dirty(c);
    if (rc == 1)
        handshake_done(c);
    else if (SSL_get_error(c->ssl, rc) != SSL_ERROR_WANT_READ)
        handshake_failed(c);
}

static void conn_feed(struct h2_conn *c, const uint8_t *ptr, size_t len)
{
    ssize_t rc = nghttp2_session_mem_recv(c->session, ptr, len);
    if (rc < 0) {
        char why[H2_WHY_BYTES];
        (void)snprintf(why, sizeof why, "HTTP/2 failed: %s", nghttp2_strerror((int)rc)); /* fits */
        h2_close(c, ERR_PEER, why);
    }
}

static void conn_input(struct h2_conn *c)
{
    if (c->state == H2_HANDSHAKE)
        conn_handshake(c);
    while (c->state == H2_READY) {
        size_t got = 0;
        ERR_clear_error();
        int rc = SSL_read_ex(c->ssl, c->net->plain_buf, PLAIN_BYTES, &got);
        if (rc == 1) {
            conn_feed(c, c->net->plain_buf, got);
            continue;
        }
        int err = SSL_get_error(c->ssl, rc);
        if (err == SSL_ERROR_WANT_READ)
            break;
        struct err_detail d;
        rc = wan_tls_error(c->ssl, &d);
        if (err == SSL_ERROR_ZERO_RETURN)
            h2_close(c, ERR_CLOSED, "the other side closed the connection");
        else
            h2_close(c, rc, d.text);
    }
    if (c->state != H2_CLOSING)
        h2_mark_dirty(c);
}

static void conn_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    struct h2_conn *c = CONTAINER_OF(h, struct h2_conn, tcp);
    (void)suggested;
    *ret = uv_buf_init((char *)c->net->read_buf, READ_BYTES);
}

static void conn_read(uv_stream_t *h, ssize_t len, const uv_buf_t *b)
{
    struct h2_conn *c = CONTAINER_OF(h, struct h2_conn, tcp);
    if (c->state == H2_CLOSING || len == 0)
        return;
    if (len == UV_EOF) {
        h2_close(c, ERR_CLOSED, "the other side closed the connection");
        return;
    }
    if (len < 0) {
        h2_close_uv(c, ERR_UNREACHABLE, "the connection broke", (int)len);
        return;
    }
    c->heard_ns = now_ns(c);
    c->io.in = slice_of(b->base, (size_t)len);
    conn_input(c);
    c->io.in = slice_of(NULL, 0);
}

/* --- the beginning --- */

static void conn_source(struct h2_conn *c)
{
    struct sockaddr_storage sa;
    uint8_t hash[crypto_generichash_BYTES_MIN];
    int len = sizeof sa;
    memset(&sa, 0, sizeof sa);
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&sa, &len) != 0)
        return;
    if (sa.ss_family == AF_INET)
        ((struct sockaddr_in *)&sa)->sin_port = 0;
    else if (sa.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&sa)->sin6_port = 0;
    (void)crypto_generichash(hash, sizeof hash, (const uint8_t *)&sa, sizeof sa, NULL, 0); /* 0 */
    memcpy(&c->source, hash, sizeof c->source);
}

static void conn_start(struct h2_conn *c)
{
    c->state = H2_HANDSHAKE;
    c->heard_ns = now_ns(c);
    (void)uv_tcp_nodelay(&c->tcp, 1); /* slower without, not wrong */
    conn_source(c);
    c->io.out = &c->out;
    enum wan_tls_role role = !c->dialled               ? TLS_ACCEPTS
                             : c->purpose == H2_SERVES ? TLS_DIALS_TO_SERVE
                                                       : TLS_DIALS;
    int rc = wan_tls_new(c->net->tls, role, &c->io, c->dialled ? c->expected : NULL, &c->ssl);
    if (rc == 0 && uv_read_start((uv_stream_t *)&c->tcp, conn_alloc, conn_read) != 0)
        rc = ERR_IO;
    if (rc != 0)
        h2_close(c, rc, "cannot set up the connection");
    else
        conn_input(c);
}

static void conn_try_next(struct h2_conn *c, int last_rc);

static void conn_connected(uv_connect_t *req, int status)
{
    struct h2_conn *c = CONTAINER_OF(req, struct h2_conn, connect);
    if (c->state == H2_CLOSING)
        return;
    if (status == 0) {
        conn_start(c);
        return;
    }
    if (c->addr_next == NULL) {
        h2_close_uv(c, ERR_UNREACHABLE, "cannot connect", status);
        return;
    }
    c->tcp_open = false;
    uv_close((uv_handle_t *)&c->tcp, conn_tcp_closed); /* a used handle connects no more */
}

static void conn_tcp_closed(uv_handle_t *h)
{
    struct h2_conn *c = CONTAINER_OF(h, struct h2_conn, tcp);
    c->handles--;
    if (c->state == H2_CLOSING)
        conn_finish(c);
    else
        conn_try_next(c, 0);
}

static void conn_tcp_open(struct h2_conn *c)
{
    int rc = uv_tcp_init(c->net->loop, &c->tcp);
    ASSERT(rc == 0); /* makes no socket yet */
    c->tcp_open = true;
    c->handles++;
}

static void conn_try_next(struct h2_conn *c, int last_rc)
{
    if (!c->tcp_open)
        conn_tcp_open(c);
    while (c->addr_next != NULL) {
        struct addrinfo *a = c->addr_next;
        c->addr_next = a->ai_next;
        last_rc = uv_tcp_connect(&c->connect, &c->tcp, a->ai_addr, conn_connected);
        if (last_rc == 0)
            return;
    }
    h2_close_uv(c, ERR_UNREACHABLE, "cannot connect", last_rc);
}

static void conn_looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct h2_conn *c = CONTAINER_OF(req, struct h2_conn, lookup);
    c->handles--;
    c->addrs = c->addr_next = res;
    if (c->state == H2_CLOSING)
        conn_finish(c);
    else if (status != 0)
        h2_close_uv(c, ERR_UNREACHABLE, "cannot look up the address", status);
    else
        conn_try_next(c, UV_EADDRNOTAVAIL);
}

static struct h2_conn *
conn_new(struct h2_net *net, bool dialled, const struct h2_conn_events *events, void *user)
{
    struct h2_conn *c = mem_calloc(1, sizeof *c);
    c->net = net;
    c->dialled = dialled;
    c->purpose = dialled ? H2_ASKS : H2_SERVES;
    c->events = events;
    c->user = user;
    c->began_ns = c->heard_ns = c->ticked_ns = now_ns(c);
    c->next = net->conns;
    if (c->next != NULL)
        c->next->prev = c;
    net->conns = c;
    net->conn_count++;
    conn_tcp_open(c);
    return c;
}

struct h2_conn *h2_dial(struct h2_net *net,
                        const char *address,
                        enum h2_purpose purpose,
                        const uint8_t *expected,
                        const struct h2_conn_events *events,
                        void *user)
{
    ASSERT(expected != NULL); /* who dials knows whom */
    struct h2_conn *c = conn_new(net, true, events, user);
    char host[128], port[8];
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    c->purpose = purpose;
    memcpy(c->expected, expected, sizeof c->expected);
    if (wan_address_split(address, host, port) != 0) {
        h2_close(c, ERR_INVALID, "the address is not HOST:PORT");
        return c;
    }
    int rc = uv_getaddrinfo(net->loop, &c->lookup, conn_looked_up, host, port, &hints);
    if (rc != 0)
        h2_close_uv(c, ERR_UNREACHABLE, "cannot look up the address", rc);
    else
        c->handles++;
    return c;
}

struct h2_conn *h2_accept(struct h2_net *net,
                          uv_stream_t *listener,
                          const struct h2_conn_events *events,
                          void *user)
{
    struct h2_conn *c = conn_new(net, false, events, user);
    int rc = uv_accept(listener, (uv_stream_t *)&c->tcp);
    if (rc != 0)
        h2_close_uv(c, ERR_IO, "cannot accept a connection", rc);
    else if (net->conn_count > CONNS_MAX)
        h2_close(c, ERR_LIMIT, "too many connections");
    else
        conn_start(c);
    return c;
}

/* --- time --- */

static void conn_tick(struct h2_conn *c, uint64_t now)
{
    /* Who was stopped for a while itself must read before it calls others silent. */
    bool late = now - c->ticked_ns > NS_PER_SEC;
    c->ticked_ns = now;
    if (c->state == H2_CLOSING || late)
        return;
    if (c->state != H2_READY) {
        if (now - c->began_ns > H2_HANDSHAKE_NS)
            h2_close(c, ERR_TIMEOUT, "the connection did not come about in time");
        return;
    }
    if (now - c->heard_ns > H2_SILENCE_NS) {
        h2_close(c, ERR_TIMEOUT, "nothing was heard for 5 s");
        return;
    }
    if (now - c->pinged_ns >= H2_PING_NS) {
        c->pinged_ns = now;
        h2_session_ping(c, now);
        h2_mark_dirty(c);
    }
}

void h2_net_tick(struct h2_net *net)
{
    uint64_t now = clock_mono_ns(net->clock);
    for (struct h2_conn *c = net->conns; c != NULL; c = c->next)
        conn_tick(c, now);
}

/* --- the net --- */

void h2_net_init(struct h2_net *net, uv_loop_t *loop, SSL_CTX *tls, const struct clock *clock)
{
    *net = (struct h2_net){.loop = loop, .tls = tls, .clock = clock};
    net->dirty_last = &net->dirty;
    int rc = uv_prepare_init(loop, &net->prepare) | uv_idle_init(loop, &net->idle);
    ASSERT(rc == 0); /* only links them */
    rc = uv_prepare_start(&net->prepare, net_prepare);
    ASSERT(rc == 0);
    net->read_buf = mem_alloc(READ_BYTES);
    net->plain_buf = mem_alloc(PLAIN_BYTES);
}

void h2_net_deinit(struct h2_net *net)
{
    ASSERT(net->conns == NULL);
    mem_free(net->read_buf);
    mem_free(net->plain_buf);
    net->read_buf = net->plain_buf = NULL;
}

/* --- questions --- */

struct h2_conn *h2_next(const struct h2_conn *c)
{
    return c->next;
}

void *h2_user(const struct h2_conn *c)
{
    return c->user;
}

void h2_set_user(struct h2_conn *c, void *user)
{
    c->user = user;
}

void h2_set_events(struct h2_conn *c, const struct h2_conn_events *events, void *user)
{
    c->events = events;
    c->user = user;
}

const uint8_t *h2_fingerprint(const struct h2_conn *c)
{
    return c->fingerprint;
}

int h2_exporter(struct h2_conn *c, uint8_t *out, size_t len)
{
    return wan_tls_exporter(c->ssl, out, len);
}

uint64_t h2_rtt_ns(const struct h2_conn *c)
{
    return c->rtt_ns;
}

uint64_t h2_source(const struct h2_conn *c)
{
    return c->source;
}

bool h2_is_ready(const struct h2_conn *c)
{
    return c->state == H2_READY && !c->closing_soon;
}

uint64_t h2_age_ns(const struct h2_conn *c)
{
    return now_ns(c) - c->began_ns;
}

enum h2_purpose h2_purpose(const struct h2_conn *c)
{
    return c->purpose;
}

bool h2_was_dialled(const struct h2_conn *c)
{
    return c->dialled;
}

uint32_t h2_stream_count(const struct h2_conn *c)
{
    return c->stream_count;
}
