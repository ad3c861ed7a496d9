/* Connections and streams between sites over the simulated network, with wan_h2.h's interface.
 *
 *   dial: HELLO -> (accept) WELCOME -> ready -> READY -> ready at the other side
 *
 * The handshake costs the round trips of TCP and TLS together. Streams have windows, so that a slow
 * reader stops the writer (W5); pings, silence and handshake limits are those of the real one.
 *
 * A slow line stops it, too: when its queue is full, messages are held here, and bodies stay in
 * their streams, which take turns when there is room again, as with nghttp2. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>

#include "base/assert.h"
#include "sim/h2_sim.h"
#include "sim/net.h"
#include "wan/wan_h2.h"

#define WINDOW_BYTES ((size_t)MIB)
#define PIECE_BYTES ((size_t)(64 * KIB))
#define HEAD_BYTES 31u /* of HTTP/2 and TLS around each message */
#define HANDSHAKE_BYTES 1500u

enum msg_kind {
    MSG_HELLO,
    MSG_WELCOME,
    MSG_READY,
    MSG_HEAD,
    MSG_STATUS,
    MSG_DATA,
    MSG_CREDIT,
    MSG_RESET,
    MSG_PING,
    MSG_PONG,
    MSG_BYE
};
struct msg {
    struct net_msg net;
    enum msg_kind kind;
    uint32_t stream;
    uint64_t value; /* status, credit, time; READY, HELLO: purpose */
    bool end;
    uint8_t fingerprint[FINGERPRINT_BYTES], secret[32];
    char method[8], path[H2_PATH_MAX];
    size_t len;
    uint8_t bytes[];
};
struct h2_stream {
    struct h2_conn *conn;
    struct h2_stream *prev, *next;
    uint32_t id;
    const struct h2_stream_events *events;
    void *user;
    struct buf out;
    size_t out_at, in_flight, consumed;
    int status;                /* to be sent; 0: none */
    bool eof, eof_sent, ended; /* ended: the other side has said all */
    bool want_drained, reset;
};
enum state {
    DIALLING,
    HANDSHAKE,
    READY,
    CLOSING
};
struct h2_conn {
    struct net_end end;
    struct h2_net *net;
    struct h2_conn *prev, *next;
    const struct h2_conn_events *events;
    void *user;
    bool dialled, closing_soon;
    enum h2_purpose purpose;
    enum state state;
    struct sched_event flush;
    struct h2_stream *streams;
    uint32_t stream_next, stream_count;
    struct net_msg *held_first, **held_last; /* said, and waiting for room on the line */
    uint8_t expected[FINGERPRINT_BYTES], fingerprint[FINGERPRINT_BYTES], secret[32];
    uint64_t began_ns, heard_ns, pinged_ns, rtt_ns;
    int rc;
    char why[H2_WHY_BYTES];
};
/* What stands at a listening site between net_accept_cb and h2_accept. */
static struct {
    uv_stream_t *listener;
    uv_connection_cb cb;
    struct net_conn *conn;
    struct msg *hello;
} listening[WORLD_SITES_MAX];

static const struct net_end end_none;
static void flush_run(struct sched_event *e);
static void end_deliver(struct net_end *e, struct net_msg *m);
static void end_broken(struct net_end *e);
static void end_room(struct net_end *e);

static uint64_t now_ns(const struct h2_conn *c)
{
    return clock_mono_ns(c->net->clock);
}

static void dirty(struct h2_conn *c)
{
    if (!sched_waits(&c->flush))
        sched_in(&c->flush, 0);
}

static struct msg *msg_new(enum msg_kind kind, size_t len)
{
    struct msg *m = mem_calloc(1, sizeof *m + len);
    m->kind = kind;
    m->len = len;
    m->net.bytes = HEAD_BYTES + len;
    return m;
}

static void say(struct h2_conn *c, struct msg *m)
{
    if (c->end.conn == NULL || (c->held_first == NULL && net_room(&c->end) > 0)) {
        net_send(&c->end, &m->net);
        return;
    }
    m->net.next = NULL;
    *c->held_last = &m->net;
    c->held_last = &m->net.next;
    net_wait(&c->end);
}

static struct net_msg *held_take(struct h2_conn *c)
{
    struct net_msg *m = c->held_first;
    c->held_first = m->next;
    if (c->held_first == NULL)
        c->held_last = &c->held_first;
    return m;
}

static void held_flush(struct h2_conn *c)
{
    while (c->held_first != NULL && net_room(&c->end) > 0)
        net_send(&c->end, held_take(c));
    if (c->held_first != NULL && c->end.conn != NULL)
        net_wait(&c->end);
}

/* --- streams --- */

static struct h2_stream *stream_new(struct h2_conn *c, uint32_t id)
{
    struct h2_stream *s = mem_calloc(1, sizeof *s);
    s->conn = c;
    s->id = id;
    s->next = c->streams;
    if (s->next != NULL)
        s->next->prev = s;
    c->streams = s;
    c->stream_count++;
    return s;
}

static struct h2_stream *stream_find(const struct h2_conn *c, uint32_t id)
{
    struct h2_stream *s = c->streams;
    while (s != NULL && s->id != id)
        s = s->next;
    return s;
}

static void stream_close(struct h2_stream *s, int rc)
{
    struct h2_conn *c = s->conn;
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        c->streams = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    c->stream_count--;
    if (s->events != NULL)
        s->events->closed(s, rc);
    buf_deinit(&s->out);
    mem_free(s);
}

static bool stream_is_over(const struct h2_stream *s)
{
    return s->reset || (s->eof_sent && s->ended);
}

size_t h2_pending(const struct h2_stream *s)
{
    return s->out.len - s->out_at;
}

/* Others of its connection come first when there is room again. */
static void stream_gives_way(struct h2_stream *s)
{
    struct h2_stream *last = s;
    if (s->next == NULL)
        return;
    while (last->next != NULL)
        last = last->next;
    s->next->prev = s->prev;
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        s->conn->streams = s->next;
    last->next = s;
    s->prev = last;
    s->next = NULL;
}

/* Of a body that the line takes now; 0: it waits. */
static size_t body_room(struct h2_conn *c)
{
    size_t room = c->held_first != NULL ? 0 : net_room(&c->end);
    if (room > HEAD_BYTES)
        return room - HEAD_BYTES;
    net_wait(&c->end);
    return 0;
}

static bool stream_flush(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    bool sent = false;
    if (s->status != 0) {
        struct msg *m = msg_new(MSG_STATUS, 0);
        m->stream = s->id;
        m->value = (uint64_t)s->status;
        s->status = 0;
        say(c, m);
    }
    while (c->end.conn != NULL && !s->eof_sent) {
        size_t len = MIN(MIN(h2_pending(s), PIECE_BYTES), WINDOW_BYTES - s->in_flight);
        if (len == 0 && !(s->eof && h2_pending(s) == 0))
            break;
        size_t room = body_room(c);
        if (room == 0) {
            if (sent)
                stream_gives_way(s);
            break;
        }
        len = MIN(len, room);
        bool end = s->eof && len == h2_pending(s);
        struct msg *m = msg_new(MSG_DATA, len);
        m->stream = s->id;
        m->end = end;
        if (len > 0)
            memcpy(m->bytes, s->out.ptr + s->out_at, len);
        s->out_at += len;
        s->in_flight += len;
        s->eof_sent = end;
        sent = true;
        say(c, m);
    }
    if (s->out_at == s->out.len) {
        buf_clear(&s->out);
        s->out_at = 0;
    }
    if (s->want_drained && h2_pending(s) <= H2_LOW_BYTES) {
        s->want_drained = false;
        return true;
    }
    return false;
}

static void streams_flush(struct h2_conn *c)
{
    for (bool again = true; again && c->state == READY && c->end.conn != NULL;) {
        again = false;
        for (struct h2_stream *s = c->streams, *next; s != NULL; s = next) {
            next = s->next; /* it may go to the end of the list */
            if (stream_flush(s) && s->events != NULL && s->events->drained != NULL) {
                s->events->drained(s);
                again = true; /* the list may have changed */
                break;
            }
            if (stream_is_over(s)) {
                stream_close(s, s->reset ? ERR_CLOSED : 0);
                again = true;
                break;
            }
        }
    }
}

/* --- the end --- */

static void conn_finish(struct h2_conn *c)
{
    while (c->streams != NULL)
        stream_close(c->streams, c->rc);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->net->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->net->conn_count--;
    if (c->events->closed != NULL)
        c->events->closed(c, c->rc, c->why);
    sched_cancel(&c->flush);
    bool ghost = uv_sim_machine(c->net->loop)->ghost;
    if (!ghost && c->end.conn != NULL)
        net_send(&c->end, &msg_new(MSG_BYE, 0)->net);
    net_leave(&c->end, ghost);
    while (c->held_first != NULL)
        mem_free(CONTAINER_OF(held_take(c), struct msg, net));
    mem_free(c);
}

static void flush_run(struct sched_event *e)
{
    struct h2_conn *c = CONTAINER_OF(e, struct h2_conn, flush);
    if (c->state != CLOSING)
        held_flush(c);
    if (c->state == READY)
        streams_flush(c);
    if (c->closing_soon && c->state == READY) {
        bool pending = c->held_first != NULL;
        for (const struct h2_stream *s = c->streams; s != NULL; s = s->next)
            pending |= h2_pending(s) > 0;
        if (!pending)
            c->state = CLOSING;
    }
    if (c->state == CLOSING)
        conn_finish(c);
}

void h2_close(struct h2_conn *c, int rc, const char *why)
{
    if (c->state == CLOSING)
        return;
    c->state = CLOSING;
    c->rc = rc;
    (void)snprintf(c->why, sizeof c->why, "%.*s", (int)sizeof c->why - 1, why); /* cut if need be */
    dirty(c);
}

void h2_close_soon(struct h2_conn *c, int rc, const char *why)
{
    if (c->state != READY) {
        h2_close(c, rc, why);
        return;
    }
    if (c->closing_soon)
        return;
    c->closing_soon = true;
    c->rc = rc;
    (void)snprintf(c->why, sizeof c->why, "%.*s", (int)sizeof c->why - 1, why); /* cut if need be */
    dirty(c);
}

void h2_sim_finish(uv_loop_t *loop)
{
    /* A loop of its own never has more than one net; connections name it. */
    (void)loop;
    struct machine *m = uv_sim_machine(loop);
    struct h2_net *net = m->net;
    while (net != NULL && net->conns != NULL && net->conns->state == CLOSING) {
        sched_cancel(&net->conns->flush);
        flush_run(&net->conns->flush);
    }
}

/* --- messages --- */

static void identity_of(const struct h2_conn *c, struct msg *m)
{
    memcpy(m->fingerprint, c->net->tls, sizeof m->fingerprint);
    m->value = (uint64_t)c->purpose;
    m->net.bytes = HANDSHAKE_BYTES;
}

static void conn_ready(struct h2_conn *c)
{
    c->state = READY;
    c->heard_ns = now_ns(c);
    if (!c->events->ready(c))
        h2_close(c, ERR_CLOSED, "it is not wanted");
    dirty(c);
}

static void on_welcome(struct h2_conn *c, const struct msg *m)
{
    memcpy(c->fingerprint, m->fingerprint, sizeof c->fingerprint);
    if (memcmp(c->expected, c->fingerprint, sizeof c->expected) != 0) {
        h2_close(c, ERR_AUTH, "the other side shows a certificate that is not the pinned one");
        return;
    }
    struct msg *ready = msg_new(MSG_READY, 0);
    identity_of(c, ready);
    say(c, ready);
    conn_ready(c);
}

static void on_data(struct h2_stream *s, const struct msg *m)
{
    if (m->end)
        s->ended = true;
    if (m->len > 0)
        s->events->data(s, m->bytes, m->len);
    if (m->end && s->events->ended != NULL)
        s->events->ended(s);
}

static void on_stream(struct h2_conn *c, struct msg *m)
{
    struct h2_stream *s = stream_find(c, m->stream);
    if (s == NULL)
        return;
    if (m->kind == MSG_STATUS) {
        if (s->events->response != NULL)
            s->events->response(s, (int)m->value);
    } else if (m->kind == MSG_DATA) {
        on_data(s, m);
    } else if (m->kind == MSG_CREDIT) {
        s->in_flight -= MIN(s->in_flight, (size_t)m->value);
    } else {
        s->reset = true;
    }
    dirty(c);
}

static void on_message(struct h2_conn *c, struct msg *m)
{
    struct msg *answer;
    struct h2_stream *s;
    switch (m->kind) {
    case MSG_HELLO:
        UNREACHABLE();
    case MSG_WELCOME:
        on_welcome(c, m);
        return;
    case MSG_READY:
        memcpy(c->fingerprint, m->fingerprint, sizeof c->fingerprint);
        c->purpose = m->value == (uint64_t)H2_ASKS ? H2_SERVES : H2_ASKS;
        conn_ready(c);
        return;
    case MSG_HEAD:
        s = stream_new(c, m->stream);
        if (c->events->request != NULL)
            c->events->request(c, s, m->method, m->path);
        dirty(c);
        return;
    case MSG_STATUS:
    case MSG_DATA:
    case MSG_CREDIT:
    case MSG_RESET:
        on_stream(c, m);
        return;
    case MSG_PING:
        answer = msg_new(MSG_PONG, 0);
        answer->value = m->value;
        say(c, answer);
        return;
    case MSG_PONG:
        c->rtt_ns = sched->now_ns - m->value;
        return;
    case MSG_BYE:
        h2_close(c, ERR_CLOSED, "the other side closed the connection");
        return;
    }
}

static void end_deliver(struct net_end *e, struct net_msg *net)
{
    struct h2_conn *c = CONTAINER_OF(e, struct h2_conn, end);
    struct msg *m = CONTAINER_OF(net, struct msg, net);
    c->heard_ns = now_ns(c);
    if (c->state != CLOSING)
        on_message(c, m);
    mem_free(m);
}

static void end_broken(struct net_end *e)
{
    struct h2_conn *c = CONTAINER_OF(e, struct h2_conn, end);
    h2_close(c, c->state == DIALLING ? ERR_UNREACHABLE : ERR_CLOSED, "the connection broke");
}

static void end_room(struct net_end *e)
{
    dirty(CONTAINER_OF(e, struct h2_conn, end));
}

/* --- dialling, accepting --- */

static struct h2_conn *
conn_new(struct h2_net *net, bool dialled, const struct h2_conn_events *events, void *user)
{
    struct h2_conn *c = mem_calloc(1, sizeof *c);
    c->end = end_none;
    c->end.deliver = end_deliver;
    c->end.broken = end_broken;
    c->end.room = end_room;
    c->held_last = &c->held_first;
    c->net = net;
    c->dialled = dialled;
    c->purpose = dialled ? H2_ASKS : H2_SERVES;
    c->events = events;
    c->user = user;
    c->flush.run = flush_run;
    c->stream_next = dialled ? 1 : 2;
    c->began_ns = c->heard_ns = now_ns(c);
    c->next = net->conns;
    if (c->next != NULL)
        c->next->prev = c;
    net->conns = c;
    net->conn_count++;
    return c;
}

struct h2_conn *h2_dial(struct h2_net *net,
                        const char *address,
                        enum h2_purpose purpose,
                        const uint8_t *expected,
                        const struct h2_conn_events *events,
                        void *user)
{
    struct h2_conn *c = conn_new(net, true, events, user);
    char host[128], port[8];
    struct in_addr in;
    c->purpose = purpose;
    memcpy(c->expected, expected, sizeof c->expected);
    if (wan_address_split(address, host, port) != 0 || inet_pton(AF_INET, host, &in) != 1) {
        h2_close(c, ERR_INVALID, "the address is not HOST:PORT");
        return c;
    }
    struct msg *hello = msg_new(MSG_HELLO, 0);
    identity_of(c, hello);
    randombytes_buf(c->secret, sizeof c->secret);
    memcpy(hello->secret, c->secret, sizeof c->secret);
    net_dial(&c->end, uv_sim_machine(net->loop)->site, (ntohl(in.s_addr) & 0xff) - 1, &hello->net);
    return c;
}

static void accepted(void *ctx, struct net_conn *conn, struct net_msg *first)
{
    unsigned site = (unsigned)(uintptr_t)ctx;
    listening[site].conn = conn;
    listening[site].hello = CONTAINER_OF(first, struct msg, net);
    listening[site].cb(listening[site].listener, 0);
    mem_free(listening[site].hello);
    listening[site].hello = NULL;
}

void h2_sim_listen(uv_loop_t *loop, uv_stream_t *listener, uv_connection_cb cb)
{
    unsigned site = uv_sim_machine(loop)->site;
    listening[site].listener = listener;
    listening[site].cb = cb;
    net_listen(site, cb != NULL ? accepted : NULL, (void *)(uintptr_t)site);
}

struct h2_conn *h2_accept(struct h2_net *net,
                          uv_stream_t *listener,
                          const struct h2_conn_events *events,
                          void *user)
{
    unsigned site = uv_sim_machine(net->loop)->site;
    struct h2_conn *c = conn_new(net, false, events, user);
    (void)listener;
    net_attach(listening[site].conn, &c->end);
    c->state = HANDSHAKE;
    memcpy(c->secret, listening[site].hello->secret, sizeof c->secret);
    struct msg *m = msg_new(MSG_WELCOME, 0);
    identity_of(c, m);
    say(c, m);
    return c;
}

/* --- streams, as the interface has them --- */

struct h2_stream *h2_request(struct h2_conn *c,
                             const char *method,
                             const char *path,
                             const struct h2_stream_events *events,
                             void *user)
{
    if (!h2_is_ready(c))
        return NULL;
    struct h2_stream *s = stream_new(c, c->stream_next);
    c->stream_next += 2;
    s->events = events;
    s->user = user;
    struct msg *m = msg_new(MSG_HEAD, 0);
    m->stream = s->id;
    (void)snprintf(m->method, sizeof m->method, "%s", method); /* fits */
    (void)snprintf(m->path, sizeof m->path, "%s", path);       /* fits */
    m->net.bytes += 80;
    say(c, m);
    return s;
}

void h2_follow(struct h2_stream *s, const struct h2_stream_events *events, void *user)
{
    s->events = events;
    s->user = user;
}

void h2_respond(struct h2_stream *s, int status)
{
    s->status = status;
    dirty(s->conn);
}

void h2_write(struct h2_stream *s, const void *ptr, size_t len)
{
    if (s->eof || s->reset)
        return;
    buf_append(&s->out, ptr, len);
    s->want_drained |= h2_pending(s) > H2_LOW_BYTES;
    dirty(s->conn);
}

void h2_give(struct h2_stream *s, struct buf *bytes)
{
    h2_write(s, bytes->ptr, bytes->len);
    buf_deinit(bytes);
}

void h2_end(struct h2_stream *s)
{
    s->eof = true;
    dirty(s->conn);
}

void h2_consume(struct h2_stream *s, size_t len)
{
    s->consumed += len;
    if (s->consumed < WINDOW_BYTES / 4)
        return;
    struct msg *m = msg_new(MSG_CREDIT, 0);
    m->stream = s->id;
    m->value = s->consumed;
    s->consumed = 0;
    say(s->conn, m);
}

void h2_reset(struct h2_stream *s)
{
    struct msg *m = msg_new(MSG_RESET, 0);
    m->stream = s->id;
    say(s->conn, m);
    s->reset = true;
    dirty(s->conn);
}

void *h2_stream_user(const struct h2_stream *s)
{
    return s->user;
}

struct h2_conn *h2_stream_conn(const struct h2_stream *s)
{
    return s->conn;
}

/* --- time --- */

static void conn_tick(struct h2_conn *c, uint64_t now)
{
    if (c->state == CLOSING)
        return;
    if (c->state != READY) {
        if (now - c->began_ns > H2_HANDSHAKE_NS)
            h2_close(c, ERR_TIMEOUT, "the connection did not come about in time");
        return;
    }
    if (now - c->heard_ns > H2_SILENCE_NS) {
        h2_close(c, ERR_TIMEOUT, "nothing was heard for 5 s");
        return;
    }
    if (now - c->pinged_ns >= H2_PING_NS) {
        struct msg *m = msg_new(MSG_PING, 0);
        c->pinged_ns = now;
        m->value = sched->now_ns;
        say(c, m);
    }
}

void h2_net_tick(struct h2_net *net)
{
    uint64_t now = clock_mono_ns(net->clock);
    for (struct h2_conn *c = net->conns; c != NULL; c = c->next)
        conn_tick(c, now);
}

void h2_net_init(struct h2_net *net, uv_loop_t *loop, SSL_CTX *tls, const struct clock *clock)
{
    *net = (struct h2_net){.loop = loop, .tls = tls, .clock = clock};
    uv_sim_machine(loop)->net = net;
}

void h2_net_deinit(struct h2_net *net)
{
    ASSERT(net->conns == NULL);
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
    return crypto_generichash(out, len, c->secret, sizeof c->secret, NULL, 0) == 0 ? 0 : ERR_IO;
}

uint64_t h2_rtt_ns(const struct h2_conn *c)
{
    return c->rtt_ns;
}

uint64_t h2_source(const struct h2_conn *c)
{
    return c->end.conn != NULL ? net_peer(&c->end) + 1 : 0;
}

bool h2_is_ready(const struct h2_conn *c)
{
    return c->state == READY && !c->closing_soon;
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
