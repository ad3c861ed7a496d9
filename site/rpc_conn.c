/* One accepted connection: handshake, reading, dispatch, closing. Sending is in rpc_conn_tx.c.
 *
 * Reading goes into a small buffer; a unit that does not fit gets one of its own that is read to
 * its exact end, so that the request can be handed over without a copy and idle connections stay
 * small. Reading stops while too much is outstanding and resumes from a deferred call. Every
 * failure ends in rpc_conn_kill; closed() follows when the kernel has let go of the buffers (S11).
 */
#include "site/rpc_server_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

enum {
    RX_HANDSHAKE_BYTES = 128 /* before the proof nobody gets more memory (S9) */
};
_Static_assert(RPC_HELLO_BYTES <= RX_HANDSHAKE_BYTES, "fits");
_Static_assert(RPC_PROVE_BYTES <= RX_HANDSHAKE_BYTES, "fits");

static void conn_process(struct rpc_conn *c);
static void rx_arm(struct rpc_conn *c);

/* --- the end --- */

static void conn_free(struct rpc_conn *c)
{
    ASSERT(c->state == CONN_CLOSED && c->refs == 0);
    rpc_share_free(c);
    mem_free(c);
}

void rpc_conn_ref(struct rpc_conn *c)
{
    ASSERT(c->refs > 0);
    c->refs++;
}

void rpc_conn_unref(struct rpc_conn *c)
{
    ASSERT(c->refs > 0);
    if (--c->refs == 0)
        conn_free(c);
    else
        rpc_conn_resume_check(c);
}

static void keys_free(struct rpc_conn *c)
{
    if (c->keys != NULL)
        sodium_memzero(c->keys, sizeof *c->keys);
    mem_free(c->keys);
    c->keys = NULL;
}

static void conn_finish(struct loop_defer *d)
{
    struct rpc_conn *c = CONTAINER_OF(d, struct rpc_conn, finish);
    struct rpc_server *s = c->server;
    ASSERT(c->state == CONN_DYING && !c->rx_armed && !c->tx_armed);
    if (c->flush.queued || c->resume.queued) {
        loop_defer(s->loop, &c->finish); /* behind them */
        return;
    }
    c->state = CONN_CLOSED;
    (void)close(c->fd);
    rpc_share_closed(c);
    rpc_tx_deinit(c);
    rpc_spare_give(s, &c->big);
    mem_free(c->rx);
    keys_free(c);
    sodium_memzero(&c->seal, sizeof c->seal);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->server = NULL;
    if (c->opened)
        s->events.closed(s->events.ctx, c, c->rc);
    rpc_server_conn_gone(s);
    rpc_conn_unref(c);
}

void rpc_conn_finish_check(struct rpc_conn *c)
{
    if (c->state == CONN_DYING && !c->rx_armed && !c->tx_armed)
        loop_defer(c->server->loop, &c->finish);
}

static bool is_proving(const struct rpc_conn *c)
{
    return c->state == CONN_HELLO || c->state == CONN_PROOF;
}

void rpc_conn_kill(struct rpc_conn *c, int rc, const char *why)
{
    if (c->state >= CONN_DYING)
        return;
    bool expected = rc == 0 || rc == ERR_CLOSED;
    if (expected) {
        log_debug(LOG_SITE, "rpc_closed", "peer=\"%s\" why=\"%s\"", c->text, why);
    } else {
        metric_add(&rpc_metrics[RPC_METRIC_REFUSED], 1);
        log_warn(LOG_SITE, "rpc_closed", "peer=\"%s\" rc=%s why=\"%s\"", c->text, err_name(rc),
                 why);
    }
    if (is_proving(c))
        c->server->handshake_count--;
    loop_timer_stop(c->server->loop, &c->timer);
    c->state = CONN_DYING;
    c->rc = rc;
    (void)shutdown(c->fd, SHUT_RDWR); /* completes what the kernel holds of it */
    rpc_conn_finish_check(c);
}

void rpc_conn_close(struct rpc_conn *c)
{
    if (c->state != CONN_OPEN)
        return;
    if (c->tx_first == NULL) {
        rpc_conn_kill(c, 0, "closed here");
        return;
    }
    c->state = CONN_DRAIN;
    loop_timer_start(c->server->loop, &c->timer,
                     loop_now_ns(c->server->loop) + c->server->patience_ns);
}

static void patience_over(struct loop_timer *t)
{
    struct rpc_conn *c = CONTAINER_OF(t, struct rpc_conn, timer);
    if (c->state == CONN_DRAIN)
        rpc_conn_kill(c, 0, "closed here, the last replies were not read");
    else
        rpc_conn_kill(c, ERR_TIMEOUT, "no proof in time");
}

/* --- back-pressure (S10) --- */

static bool is_throttled(const struct rpc_conn *c)
{
    return c->refs > RPC_OUTSTANDING_MAX || c->heavy_count == RPC_HEAVY_MAX ||
           c->tx_bytes >= RPC_TX_HIGH_BYTES;
}

static void conn_resume(struct loop_defer *d)
{
    struct rpc_conn *c = CONTAINER_OF(d, struct rpc_conn, resume);
    conn_process(c);
    rx_arm(c);
}

void rpc_conn_resume_check(struct rpc_conn *c)
{
    if (c->state != CONN_OPEN || !c->throttled || is_throttled(c))
        return;
    c->throttled = false;
    loop_defer(c->server->loop, &c->resume);
}

/* --- handshake --- */

static void hello_handle(struct rpc_conn *c)
{
    struct rpc_server *s = c->server;
    struct rpc_handshake h;
    uint8_t random[RPC_HELLO_RANDOM_BYTES], prove[RPC_PROVE_BYTES];
    random_bytes(random, sizeof random);
    rpc_handshake_init(&h, RPC_SERVER, c->is_unix || s->auth.trusted_network, random);
    sodium_memzero(random, sizeof random);
    c->keys = mem_calloc(1, sizeof *c->keys);
    int rc = rpc_handshake_finish(&h, c->rx + c->rx_at, s->auth.site_key, c->keys);
    if (rc != 0) {
        rpc_conn_kill(c, rc, "its first bytes are not a hello of this version");
        return;
    }
    c->rx_at += RPC_HELLO_BYTES;
    rpc_seal_start(&c->seal, c->keys, prove);
    rpc_tx_raw(c, h.hello, sizeof h.hello);
    rpc_tx_raw(c, prove, sizeof prove);
    c->state = CONN_PROOF;
}

static void proof_handle(struct rpc_conn *c)
{
    struct rpc_server *s = c->server;
    int rc = rpc_seal_check(&c->seal, c->keys, c->rx + c->rx_at);
    if (rc != 0) {
        rpc_conn_kill(c, rc, "it does not know the site key");
        return;
    }
    c->rx_at += RPC_PROVE_BYTES;
    keys_free(c);
    loop_timer_stop(s->loop, &c->timer);
    uint8_t *rx = mem_alloc(RPC_RX_BYTES);
    memcpy(rx, c->rx + c->rx_at, c->rx_len - c->rx_at);
    c->rx_len -= c->rx_at;
    c->rx_at = 0;
    mem_free(c->rx);
    c->rx = rx;
    c->rx_cap = RPC_RX_BYTES;
    s->handshake_count--;
    c->state = CONN_OPEN;
    c->opened = true;
    log_debug(LOG_SITE, "rpc_opened", "peer=\"%s\" sealed=%d", c->text, (int)c->seal.on);
    s->events.opened(s->events.ctx, c);
}

/* --- requests --- */

void rpc_request_take(struct rpc_conn *c,
                      const struct rpc_frame *f,
                      struct buf *storage,
                      struct rpc_frame *ret_frame)
{
    struct rpc_frame taken = *f;
    if (c->unit_storage != NULL) {
        buf_move(storage, c->unit_storage);
        c->unit_storage = NULL;
    } else {
        buf_clear(storage);
        buf_reserve(storage, f->body.len + f->bulk.len);
        buf_append(storage, f->body.ptr, f->body.len);
        buf_append(storage, f->bulk.ptr, f->bulk.len);
        taken.body = slice_of(storage->ptr, f->body.len);
        taken.bulk = slice_of(storage->len == 0 ? NULL : storage->ptr + f->body.len, f->bulk.len);
    }
    *ret_frame = taken;
}

/* One whole unit; `own` is the buffer that holds it alone, or NULL. */
static void unit_handle(struct rpc_conn *c, const uint8_t *at, size_t len, struct buf *own)
{
    struct rpc_server *s = c->server;
    struct rpc_frame f;
    struct buf opened = {0};
    struct buf *plain = &s->plain;
    if (c->seal.on && own != NULL) {
        opened = rpc_spare_take(s, len);
        plain = &opened;
    }
    int rc = rpc_unit_open(&c->seal, at, len, plain, &f);
    if (rc == 0 && f.flags != 0)
        rc = ERR_PEER;
    if (rc != 0) {
        rpc_conn_kill(c, rc, "it sent something that is not a request");
    } else {
        if (len > RPC_HEAVY_BYTES) {
            ASSERT(c->heavy_count < RPC_HEAVY_MAX);
            c->heavy_ids[c->heavy_count++] = f.id;
        }
        c->unit_storage = own == NULL ? NULL : c->seal.on ? plain : own;
        metric_add(&rpc_metrics[RPC_METRIC_REQUESTS], 1);
        if (f.hlc != 0)
            s->events.hlc_seen(s->events.ctx, f.hlc);
        s->events.request(s->events.ctx, c, &f);
        c->unit_storage = NULL;
    }
    rpc_spare_give(s, &opened);
}

/* A unit that does not fit rx moves to a buffer of its own. */
static void big_start(struct rpc_conn *c, size_t bytes)
{
    size_t have = c->rx_len - c->rx_at;
    ASSERT(c->big_bytes == 0 && have < bytes);
    c->big = rpc_spare_take(c->server, bytes);
    buf_append(&c->big, c->rx + c->rx_at, have);
    c->big_bytes = bytes;
    c->rx_at = c->rx_len = 0;
}

/* Takes the next unit if it is complete; false when more bytes are needed. */
static bool unit_next(struct rpc_conn *c)
{
    if (c->big_bytes > 0) {
        if (c->big.len < c->big_bytes)
            return false;
        struct buf unit = c->big;
        c->big = (struct buf){0};
        c->big_bytes = 0;
        unit_handle(c, unit.ptr, unit.len, &unit);
        rpc_spare_give(c->server, &unit);
        return true;
    }
    const uint8_t *at = c->rx + c->rx_at;
    size_t have = c->rx_len - c->rx_at, bytes;
    int rc = rpc_unit_bytes(&c->seal, at, have, &bytes);
    if (rc != 0) {
        rpc_conn_kill(c, rc, "it sent something that is not a frame");
        return false;
    }
    if (bytes > RPC_RX_BYTES)
        big_start(c, bytes);
    if (bytes == 0 || bytes > have)
        return false;
    c->rx_at += bytes;
    unit_handle(c, at, bytes, NULL);
    return true;
}

static void conn_process(struct rpc_conn *c)
{
    if (c->state == CONN_HELLO && c->rx_len - c->rx_at >= RPC_HELLO_BYTES)
        hello_handle(c);
    if (c->state == CONN_PROOF && c->rx_len - c->rx_at >= RPC_PROVE_BYTES)
        proof_handle(c);
    while (c->state == CONN_OPEN) {
        c->throttled = is_throttled(c);
        if (c->throttled || !unit_next(c))
            return;
    }
}

/* --- reading --- */

static void rx_arm(struct rpc_conn *c)
{
    if (c->rx_armed || c->throttled || c->state > CONN_OPEN)
        return;
    uint8_t *at;
    size_t room;
    if (c->big_bytes > 0) {
        at = c->big.ptr + c->big.len;
        room = c->big_bytes - c->big.len;
    } else {
        if (c->rx_at > 0) {
            c->rx_len -= c->rx_at;
            memmove(c->rx, c->rx + c->rx_at, c->rx_len);
            c->rx_at = 0;
        }
        at = c->rx + c->rx_len;
        room = c->rx_cap - c->rx_len;
    }
    ASSERT(room > 0);
    struct io_uring_sqe *sqe = loop_sqe(c->server->loop);
    io_uring_prep_recv(sqe, c->fd, at, room, 0);
    if (c->rx_drained)
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    loop_sqe_bind(sqe, &c->rx_req);
    c->rx_armed = true;
}

static void rx_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct rpc_conn *c = CONTAINER_OF(req, struct rpc_conn, rx_req);
    c->rx_armed = false;
    if (c->state >= CONN_DYING) {
        rpc_conn_finish_check(c);
        return;
    }
    if (res == 0 || res == -ECONNRESET || res == -EPIPE) {
        rpc_conn_kill(c, ERR_CLOSED, "the peer went away");
        return;
    }
    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        rpc_conn_kill(c, err_from_errno(-res), strerror(-res));
        return;
    }
    c->rx_drained = (cqe_flags & IORING_CQE_F_SOCK_NONEMPTY) == 0;
    if (res > 0 && c->state != CONN_DRAIN) {
        metric_add(&rpc_metrics[RPC_METRIC_BYTES_IN], res);
        if (c->big_bytes > 0)
            c->big.len += (size_t)res;
        else
            c->rx_len += (size_t)res;
        conn_process(c);
    }
    rx_arm(c);
}

/* --- the beginning --- */

static void text_make(struct rpc_conn *c)
{
    if (c->is_unix) {
        struct ucred cred = {0};
        socklen_t len = sizeof cred;
        (void)getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len); /* zeros then */
        (void)snprintf(c->text, sizeof c->text, "unix pid %d uid %u", (int)cred.pid,
                       (unsigned)cred.uid);
        return;
    }
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof addr;
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = 0;
    (void)getpeername(c->fd, (struct sockaddr *)&addr, &len); /* gone already: "?" */
    if (addr.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&addr;
        (void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        port = ntohs(in->sin_port);
    } else if (addr.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&addr;
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        port = ntohs(in6->sin6_port);
    }
    (void)snprintf(c->text, sizeof c->text, "tcp %s:%u", host, port);
}

void rpc_conn_new(struct rpc_server *s, int fd, bool is_unix)
{
    struct rpc_conn *c = mem_calloc(1, sizeof *c);
    c->server = s;
    c->fd = fd;
    c->is_unix = is_unix;
    c->refs = 1;
    c->share_fd = -1;
    c->timer.fire = patience_over;
    c->finish.run = conn_finish;
    c->resume.run = conn_resume;
    c->rx_req.done = rx_done;
    c->rx = mem_alloc(RX_HANDSHAKE_BYTES);
    c->rx_cap = RX_HANDSHAKE_BYTES;
    rpc_tx_init(c);
    text_make(c);
    if (!is_unix)
        rpc_tcp_tune(fd);
    c->next = s->conns;
    if (c->next != NULL)
        c->next->prev = c;
    s->conns = c;
    s->conn_count++;
    s->handshake_count++;
    metric_add(&rpc_metrics[RPC_METRIC_CONNS], 1);
    loop_timer_start(s->loop, &c->timer, loop_now_ns(s->loop) + s->patience_ns);
    rx_arm(c);
}

void rpc_conn_set_user(struct rpc_conn *c, void *user)
{
    c->user = user;
}

void *rpc_conn_user(const struct rpc_conn *c)
{
    return c->user;
}

bool rpc_conn_is_open(const struct rpc_conn *c)
{
    return c->state == CONN_OPEN;
}

bool rpc_conn_is_unix(const struct rpc_conn *c)
{
    return c->is_unix;
}

const char *rpc_conn_text(const struct rpc_conn *c)
{
    return c->text;
}
