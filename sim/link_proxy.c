/* Connections through a link. What is read is stamped with the moment it comes out at the other end
 * and waits in a list until then; a timerfd, which is exact where libuv's timers count
 * milliseconds, wakes the pump for the earliest one. Ends and breaks travel through the same list,
 * behind the bytes before them: a cut keeps them, too. */
#include "sim/link_proxy.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"

#define BACKLOG 128
#define CONNECTIONS_MAX 1024u
#define UNDER_WAY_MAX (16 * MIB) /* bytes of one direction of a connection that are not out yet */

enum piece_kind {
    PIECE_BYTES,
    PIECE_END,  /* the sender has no more to say */
    PIECE_BREAK /* the sender is gone */
};
struct piece {
    uv_write_t write;
    struct connection *connection;
    enum link_direction way;
    enum piece_kind kind;
    uint64_t due_ns;
    struct piece *next;
    size_t len;
    uint8_t bytes[];
};
struct stream { /* one direction of a connection */
    struct link_stream timing;
    struct piece *first, **last; /* on the wire, in order of due_ns */
    size_t under_way;            /* bytes read and not yet taken by the receiver's socket */
    bool reading, read_all, ended;
};
struct connection {
    struct link_proxy *proxy;
    struct connection *prev, *next;
    uv_tcp_t end[LINK_DIRECTIONS]; /* where bytes of a direction come from: client, target */
    struct stream stream[LINK_DIRECTIONS];
    uv_connect_t connect;
    uv_shutdown_t shutdown[LINK_DIRECTIONS];
    uint64_t dies_ns;
    bool dialled, connected, closing;
    int open; /* handles that are not closed yet */
};
struct link_proxy {
    struct link_model model;
    uv_loop_t *loop;
    uv_tcp_t listener;
    uv_poll_t timer;
    int timer_fd;
    uint64_t armed_ns; /* UINT64_MAX: not at all */
    struct sockaddr_storage target;
    char target_text[LINK_ADDRESS_MAX], address[LINK_ADDRESS_MAX];
    struct connection *connections;
    uint64_t accepted, refused, broken, count;
    bool added; /* a piece came to a list that the pump may have passed already */
    bool closing;
    int open; /* handles of its own that are not closed yet */
    uint8_t in[LINK_READ_MAX];
};

static enum link_direction other(enum link_direction way)
{
    return way == LINK_TO ? LINK_FROM : LINK_TO;
}

static uv_stream_t *receiver(struct connection *c, enum link_direction way)
{
    return (uv_stream_t *)&c->end[other(way)];
}

static uv_stream_t *sender(struct connection *c, enum link_direction way)
{
    return (uv_stream_t *)&c->end[way];
}

static void pump(struct link_proxy *p);

/* --- the end of a connection --- */

static void proxy_free_if_done(struct link_proxy *p)
{
    if (p->open == 0 && p->connections == NULL)
        mem_free(p);
}

static void end_closed(uv_handle_t *h)
{
    struct connection *c = h->data;
    struct link_proxy *p = c->proxy;
    if (--c->open > 0)
        return;
    for (int way = 0; way < LINK_DIRECTIONS; way++)
        for (struct piece *i = c->stream[way].first, *next; i != NULL; i = next) {
            next = i->next;
            mem_free(i);
        }
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        p->connections = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    mem_free(c);
    p->count--;
    proxy_free_if_done(p);
}

static void connection_close(struct connection *c, bool with_reset)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (c->closing)
        return;
    c->closing = true;
    for (int i = 0; i < LINK_DIRECTIONS; i++) {
        uv_os_fd_t fd;
        uv_handle_t *h = (uv_handle_t *)&c->end[i];
        if (with_reset && uv_fileno(h, &fd) == 0)
            /* Without it the end is an orderly one, and still an end. */
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        uv_close(h, end_closed);
    }
}

static void connection_break(struct connection *c)
{
    if (!c->closing)
        c->proxy->broken++;
    connection_close(c, true);
}

static void break_all(struct link_proxy *p)
{
    for (struct connection *c = p->connections; c != NULL; c = c->next)
        connection_break(c);
}

/* --- in at one end --- */

static void piece_add(struct connection *c,
                      enum link_direction way,
                      enum piece_kind kind,
                      const uint8_t *bytes,
                      size_t len)
{
    struct stream *s = &c->stream[way];
    struct piece *i = mem_alloc(sizeof *i + len);
    *i = (struct piece){.connection = c, .way = way, .kind = kind, .len = len};
    if (len > 0)
        memcpy(i->bytes, bytes, len);
    if (!link_model_carry(&c->proxy->model, way, &s->timing, uv_hrtime(), len, &i->due_ns)) {
        i->kind = PIECE_BREAK;
        s->read_all = true;
    }
    *s->last = i;
    s->last = &i->next;
    s->under_way += len;
    c->proxy->added = true;
}

static void stop_reading(struct connection *c, enum link_direction way)
{
    c->stream[way].reading = false;
    (void)uv_read_stop(sender(c, way)); /* always 0 */
}

/* The sender of this direction has ended or is gone. */
static void sender_ends(struct connection *c, enum link_direction way, enum piece_kind kind)
{
    struct stream *s = &c->stream[way];
    if (s->read_all || c->closing)
        return;
    s->read_all = true;
    if (s->reading)
        stop_reading(c, way);
    piece_add(c, way, kind, NULL, 0);
}

static size_t room(const struct connection *c, enum link_direction way, uint64_t *ret_wait_ns)
{
    *ret_wait_ns = UINT64_MAX; /* until something has come out */
    if (c->stream[way].under_way >= UNDER_WAY_MAX)
        return 0;
    return link_model_room(&c->proxy->model, way, uv_hrtime(), ret_wait_ns);
}

static void where_to_read(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    struct connection *c = h->data;
    enum link_direction way = h == (uv_handle_t *)&c->end[LINK_TO] ? LINK_TO : LINK_FROM;
    uint64_t wait_ns;
    (void)suggested;
    *ret = uv_buf_init((char *)c->proxy->in, (unsigned)room(c, way, &wait_ns));
}

static void read_done(uv_stream_t *h, ssize_t len, const uv_buf_t *buf)
{
    struct connection *c = h->data;
    enum link_direction way = h == sender(c, LINK_TO) ? LINK_TO : LINK_FROM;
    uint64_t wait_ns;
    if (len == UV_ENOBUFS) { /* no room: the pump reads on */
        stop_reading(c, way);
        pump(c->proxy);
        return;
    }
    if (len == 0)
        return;
    if (len < 0) {
        sender_ends(c, way, len == UV_EOF ? PIECE_END : PIECE_BREAK);
    } else {
        piece_add(c, way, PIECE_BYTES, (const uint8_t *)buf->base, (size_t)len);
        if (c->stream[way].read_all || room(c, way, &wait_ns) == 0)
            stop_reading(c, way);
    }
    pump(c->proxy);
}

/* --- out at the other --- */

static void write_done(uv_write_t *write, int status)
{
    struct piece *i = CONTAINER_OF(write, struct piece, write);
    struct connection *c = i->connection;
    enum link_direction way = i->way;
    c->stream[way].under_way -= i->len;
    mem_free(i);
    if (c->closing)
        return;
    if (status != 0)
        sender_ends(c, other(way), PIECE_BREAK); /* it took nothing more: it is gone */
    pump(c->proxy);
}

static void shutdown_done(uv_shutdown_t *req, int status)
{
    struct connection *c = req->data;
    (void)status; /* ended is ended */
    c->stream[req == &c->shutdown[LINK_TO] ? LINK_TO : LINK_FROM].ended = true;
    if (c->stream[LINK_TO].ended && c->stream[LINK_FROM].ended)
        connection_close(c, false);
}

/* The piece is the caller's no more. */
static void piece_out(struct piece *i)
{
    struct connection *c = i->connection;
    enum link_direction way = i->way;
    uv_buf_t buf = uv_buf_init((char *)i->bytes, (unsigned)i->len);
    if (i->kind == PIECE_BYTES) {
        link_model_emit(&c->proxy->model, way, i->bytes, i->len);
        if (uv_write(&i->write, receiver(c, way), &buf, 1, write_done) == 0)
            return;
        c->stream[way].under_way -= i->len;
        sender_ends(c, other(way), PIECE_BREAK);
    } else if (i->kind == PIECE_END) {
        c->shutdown[way].data = c;
        if (uv_shutdown(&c->shutdown[way], receiver(c, way), shutdown_done) != 0)
            connection_break(c);
    } else {
        connection_break(c);
    }
    mem_free(i);
}

/* --- the pump --- */

static void dial_done(uv_connect_t *req, int status)
{
    struct connection *c = CONTAINER_OF(req, struct connection, connect);
    if (c->closing)
        return;
    if (status != 0) {
        sender_ends(c, LINK_FROM, PIECE_BREAK); /* the news takes its time, too */
    } else {
        c->connected = true;
        (void)uv_tcp_nodelay(&c->end[LINK_FROM], 1); /* slower without, not wrong */
    }
    pump(c->proxy);
}

static void dial(struct connection *c)
{
    c->dialled = true;
    if (uv_tcp_connect(&c->connect, &c->end[LINK_FROM], (struct sockaddr *)&c->proxy->target,
                       dial_done) != 0)
        connection_break(c);
}

/* Hands on what is due and reads where there is room; returns when there is more to do. */
static uint64_t stream_pump(struct connection *c, enum link_direction way)
{
    struct stream *s = &c->stream[way];
    uint64_t wait_ns, next_ns = UINT64_MAX;
    bool flows = (c->connected || way == LINK_FROM) && !c->proxy->model.way[way].cut;
    while (flows && !c->closing && s->first != NULL && s->first->due_ns <= uv_hrtime()) {
        struct piece *i = s->first;
        s->first = i->next;
        if (s->first == NULL)
            s->last = &s->first;
        piece_out(i);
    }
    if (c->closing)
        return UINT64_MAX;
    if (flows && s->first != NULL)
        next_ns = s->first->due_ns;
    bool may_read = !s->reading && !s->read_all && (way == LINK_TO || c->connected);
    if (may_read && room(c, way, &wait_ns) > 0) {
        s->reading = uv_read_start(sender(c, way), where_to_read, read_done) == 0;
        if (!s->reading)
            sender_ends(c, way, PIECE_BREAK);
    } else if (may_read && wait_ns != UINT64_MAX) {
        next_ns = MIN(next_ns, uv_hrtime() + wait_ns);
    }
    return next_ns;
}

static uint64_t connection_pump(struct connection *c)
{
    if (c->closing)
        return UINT64_MAX;
    if (c->dies_ns <= uv_hrtime()) {
        connection_break(c);
        return UINT64_MAX;
    }
    if (!c->dialled && !link_model_is_cut(&c->proxy->model))
        dial(c);
    uint64_t to = stream_pump(c, LINK_TO), from = stream_pump(c, LINK_FROM);
    return c->closing ? UINT64_MAX : MIN(c->dies_ns, MIN(to, from));
}

static void pump(struct link_proxy *p)
{
    uint64_t next_ns;
    do {
        next_ns = UINT64_MAX;
        p->added = false;
        for (struct connection *c = p->connections; c != NULL; c = c->next) {
            uint64_t ns = connection_pump(c);
            next_ns = MIN(next_ns, ns);
        }
    } while (p->added);
    if (next_ns == p->armed_ns || p->closing)
        return;
    p->armed_ns = next_ns;
    struct itimerspec at = {0};
    if (next_ns != UINT64_MAX) {
        at.it_value.tv_sec = (time_t)(MAX(next_ns, 1) / NS_PER_SEC);
        at.it_value.tv_nsec = (long)(MAX(next_ns, 1) % NS_PER_SEC);
    }
    int rc = timerfd_settime(p->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    ASSERT(rc == 0);
}

static void timer_fired(uv_poll_t *h, int status, int events)
{
    struct link_proxy *p = h->data;
    uint64_t count;
    (void)status;
    (void)events;
    (void)!read(p->timer_fd, &count, sizeof count); /* nothing to read: it was set anew meanwhile */
    p->armed_ns = UINT64_MAX;
    pump(p);
}

/* --- new connections --- */

static void accepted(uv_stream_t *listener, int status)
{
    struct link_proxy *p = listener->data;
    if (status != 0)
        return; /* out of descriptors, or it was gone already: others will come */
    struct connection *c = mem_calloc(1, sizeof *c);
    c->proxy = p;
    c->open = LINK_DIRECTIONS;
    for (int i = 0; i < LINK_DIRECTIONS; i++) {
        int rc = uv_tcp_init(p->loop, &c->end[i]);
        ASSERT(rc == 0); /* it makes no socket yet */
        c->end[i].data = c;
        c->stream[i].last = &c->stream[i].first;
    }
    c->next = p->connections;
    if (c->next != NULL)
        c->next->prev = c;
    p->connections = c;
    p->count++;
    p->accepted++;
    if (uv_accept(listener, (uv_stream_t *)&c->end[LINK_TO]) != 0 || p->model.refusing ||
        p->count > CONNECTIONS_MAX) {
        p->refused++;
        connection_close(c, true);
        return;
    }
    (void)uv_tcp_nodelay(&c->end[LINK_TO], 1);
    uint64_t now = uv_hrtime(), life = link_model_life_ns(&p->model);
    c->dies_ns = life == UINT64_MAX ? life : now + life;
    struct link_stream timing[LINK_DIRECTIONS];
    link_model_begin(&p->model, now, timing);
    for (int i = 0; i < LINK_DIRECTIONS; i++)
        c->stream[i].timing = timing[i];
    pump(p);
}

/* --- commands --- */

static int resolve(const char *text, int flags, struct sockaddr_storage *ret, struct err_detail *d)
{
    char host[LINK_ADDRESS_MAX], service[8];
    uint16_t port;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV},
                    *found;
    int rc = link_address_split(text, host, &port, d);
    if (rc != 0)
        return rc;
    (void)snprintf(service, sizeof service, "%u", port);
    rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0) {
        err_detail_set(d, "%s: %s%s", text, gai_strerror(rc),
                       (flags & AI_NUMERICHOST) != 0 ? ": use a numeric address" : "");
        return ERR_INVALID;
    }
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static void way_json(const struct link_way *w, const char *name, struct buf *out)
{
    char *text = mem_printf(
        "\"%s\": {\"bytes\": %" PRIu64 ", \"packets_lost\": %" PRIu64 ", \"bits_flipped\": %" PRIu64
        ", \"cut\": %s, \"latency_ns\": %" PRIu64 ", \"jitter_ns\": %" PRIu64
        ", \"bandwidth\": %" PRIu64 ", \"queue\": %" PRIu64 ", \"loss_ppm\": %" PRIu64
        ", \"damage\": %" PRIu64 "}",
        name, w->bytes, w->packets_lost, w->bits_flipped, w->cut ? "true" : "false", w->latency_ns,
        w->jitter_ns, w->bandwidth, w->queue_bytes, w->loss_ppm, w->damage_bytes);
    buf_append(out, text, strlen(text));
    mem_free(text);
}

static void stats_json(const struct link_proxy *p, struct buf *out)
{
    char *text = mem_printf("{\"target\": \"%s\", \"accepted\": %" PRIu64 ", \"open\": %" PRIu64
                            ", \"refused\": %" PRIu64 ", \"broken\": %" PRIu64
                            ", \"refusing\": %s, \"resets_ns\": %" PRIu64 ", ",
                            p->target_text, p->accepted, p->count, p->refused, p->broken,
                            p->model.refusing ? "true" : "false", p->model.resets_ns);
    buf_append(out, text, strlen(text));
    mem_free(text);
    way_json(&p->model.way[LINK_TO], "to", out);
    buf_append(out, ", ", 2);
    way_json(&p->model.way[LINK_FROM], "from", out);
    buf_append(out, "}\n", 2);
}

static int obey(struct link_proxy *p, const struct link_command *c, struct err_detail *d)
{
    if (c->verb == LINK_SET_TARGET) {
        struct sockaddr_storage target;
        int rc = resolve(c->address, AI_NUMERICHOST, &target, d); /* a name server may be slow */
        if (rc != 0)
            return rc;
        p->target = target;
        (void)snprintf(p->target_text, sizeof p->target_text, "%s", c->address);
    }
    link_model_obey(&p->model, c);
    if (c->verb == LINK_RESET || c->verb == LINK_CUT_RESET)
        break_all(p);
    if (c->verb == LINK_SET_RESETS)
        for (struct connection *i = p->connections; i != NULL; i = i->next) {
            uint64_t life = link_model_life_ns(&p->model);
            i->dies_ns = life == UINT64_MAX ? life : uv_hrtime() + life;
        }
    pump(p);
    return 0;
}

int link_proxy_line(struct link_proxy *p, struct slice line, struct buf *answer)
{
    struct link_command c;
    struct err_detail d;
    int rc = link_line_parse(line, &c, &d);
    if (rc == 0)
        rc = obey(p, &c, &d);
    if (rc != 0) {
        buf_append(answer, "error: ", 7);
        buf_append(answer, d.text, strlen(d.text));
        buf_append(answer, "\n", 1);
    } else if (c.verb == LINK_STATS) {
        stats_json(p, answer);
    } else {
        buf_append(answer, "ok\n", 3);
    }
    return rc;
}

/* --- beginning and end --- */

static void listener_closed(uv_handle_t *h)
{
    struct link_proxy *p = h->data;
    p->open--;
    proxy_free_if_done(p);
}

static void timer_closed(uv_handle_t *h)
{
    struct link_proxy *p = h->data;
    (void)close(p->timer_fd);
    p->open--;
    proxy_free_if_done(p);
}

void link_proxy_close(struct link_proxy *p)
{
    p->closing = true;
    break_all(p);
    uv_close((uv_handle_t *)&p->listener, listener_closed);
    uv_close((uv_handle_t *)&p->timer, timer_closed);
}

static int address_note(struct link_proxy *p, const char *listen)
{
    struct sockaddr_storage bound;
    int len = sizeof bound;
    char service[8];
    if (uv_tcp_getsockname(&p->listener, (struct sockaddr *)&bound, &len) != 0 ||
        getnameinfo((struct sockaddr *)&bound, (socklen_t)len, NULL, 0, service, sizeof service,
                    NI_NUMERICSERV) != 0)
        return ERR_IO;
    (void)snprintf(p->address, sizeof p->address, "%.*s:%s", (int)(strrchr(listen, ':') - listen),
                   listen, service);
    return 0;
}

static int begin(struct link_proxy *p, const char *listen, const char *target, struct err_detail *d)
{
    struct sockaddr_storage at;
    int rc = resolve(listen, AI_PASSIVE, &at, d);
    if (rc == 0)
        rc = resolve(target, 0, &p->target, d);
    if (rc != 0)
        return rc;
    rc = uv_tcp_bind(&p->listener, (struct sockaddr *)&at, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&p->listener, BACKLOG, accepted);
    if (rc != 0) {
        err_detail_set(d, "listening on %s: %s", listen, uv_strerror(rc));
        return ERR_IO;
    }
    (void)snprintf(p->target_text, sizeof p->target_text, "%s", target);
    rc = uv_poll_start(&p->timer, UV_READABLE, timer_fired);
    ASSERT(rc == 0);
    return address_note(p, listen);
}

int link_proxy_open(uv_loop_t *loop,
                    const char *listen,
                    const char *target,
                    uint64_t seed,
                    struct link_proxy **ret,
                    struct err_detail *d)
{
    struct link_proxy *p = mem_calloc(1, sizeof *p);
    p->loop = loop;
    p->armed_ns = UINT64_MAX;
    link_model_init(&p->model, seed);
    p->timer_fd =
        timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC); /* uv_hrtime's clock */
    if (p->timer_fd < 0) {
        err_detail_set(d, "timerfd: %s", strerror(errno));
        mem_free(p);
        return ERR_IO;
    }
    int rc = uv_tcp_init(loop, &p->listener);
    ASSERT(rc == 0);
    rc = uv_poll_init(loop, &p->timer, p->timer_fd);
    ASSERT(rc == 0);
    p->listener.data = p->timer.data = p;
    p->open = 2;
    rc = begin(p, listen, target, d);
    if (rc != 0) {
        link_proxy_close(p);
        return rc;
    }
    *ret = p;
    return 0;
}

const char *link_proxy_address(const struct link_proxy *p)
{
    return p->address;
}
