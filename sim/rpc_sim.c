/* Connections of mounts. A request is handed over at once, a reply takes a moment; frames keep
 * their order. */
#include "sim/rpc_sim.h"

#include <string.h>

#include "base/assert.h"

#define RPC_NS 20000u

uint32_t rpc_sim_lost_per_million;

struct out { /* a frame on its way to the mount */
    struct out *next;
    uint16_t type, flags;
    uint64_t id;
    size_t body_len, bulk_len;
    uint8_t bytes[];
};
struct rpc_conn {
    struct rpc_server *server; /* NULL: it is gone */
    struct rpc_peer *peer;     /* NULL: it is gone */
    struct rpc_conn *prev, *next;
    void *user;
    uint32_t refs;
    bool open, closing;
    int rc;
    struct out *first, **last;
    struct sched_event deliver, end;
};
struct rpc_server {
    struct loop *loop;
    struct machine *machine;
    struct rpc_server_events events;
    struct rpc_conn *conns;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    struct loop_msg stop_msg;
};

int rpc_server_new(struct rpc_server **ret,
                   struct loop *loop,
                   const struct rpc_auth *auth,
                   const struct rpc_server_events *events)
{
    struct rpc_server *s = mem_calloc(1, sizeof *s);
    (void)auth;
    s->loop = loop;
    s->machine = machine_current;
    s->events = *events;
    *ret = s;
    return 0;
}

int rpc_server_listen_unix(struct rpc_server *s, const char *path, struct err_detail *d)
{
    (void)path;
    (void)d;
    s->machine->server = s;
    return 0;
}

int rpc_server_listen_tcp(
    struct rpc_server *s, const char *host, uint16_t port, uint16_t *ret_port, struct err_detail *d)
{
    (void)host;
    if (ret_port != NULL)
        *ret_port = port;
    return rpc_server_listen_unix(s, NULL, d);
}

static void outs_drop(struct rpc_conn *c)
{
    while (c->first != NULL) {
        struct out *o = c->first;
        c->first = o->next;
        mem_free(o);
    }
    c->last = &c->first;
    sched_cancel(&c->deliver);
}

static void conn_end(struct rpc_conn *c)
{
    struct rpc_server *s = c->server;
    struct rpc_peer *peer = c->peer;
    sched_cancel(&c->end);
    outs_drop(c);
    c->open = false;
    c->server = NULL;
    c->peer = NULL;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    s->events.closed(s->events.ctx, c, c->rc);
    if (peer != NULL) {
        peer->conn = NULL;
        peer->closed(peer);
    }
    rpc_conn_unref(c);
}

static void end_run(struct sched_event *e)
{
    struct rpc_conn *c = CONTAINER_OF(e, struct rpc_conn, end);
    struct loop *loop = c->server->loop;
    conn_end(c);
    loop_kick(loop);
}

static void conn_end_soon(struct rpc_conn *c, int rc)
{
    if (!c->open || c->closing)
        return;
    c->closing = true;
    c->rc = rc;
    sched_in(&c->end, RPC_NS);
}

static void stop_run(struct loop_msg *msg)
{
    struct rpc_server *s = CONTAINER_OF(msg, struct rpc_server, stop_msg);
    while (s->conns != NULL)
        conn_end(s->conns);
    s->stopped(s->stopped_ctx);
}

void rpc_server_stop(struct rpc_server *s, void (*stopped)(void *ctx), void *ctx)
{
    if (s->machine->server == s)
        s->machine->server = NULL;
    s->stopped = stopped;
    s->stopped_ctx = ctx;
    s->stop_msg.run = stop_run;
    loop_post(s->loop, &s->stop_msg);
}

void rpc_server_free(struct rpc_server *s)
{
    mem_free(s);
}

/* --- frames --- */

static void deliver_run(struct sched_event *e)
{
    struct rpc_conn *c = CONTAINER_OF(e, struct rpc_conn, deliver);
    rpc_conn_ref(c);
    while (c->first != NULL) {
        struct out *o = c->first;
        c->first = o->next;
        if (c->first == NULL)
            c->last = &c->first;
        struct rpc_frame f = {.type = o->type,
                              .flags = o->flags,
                              .id = o->id,
                              .body = slice_of(o->bytes, o->body_len),
                              .bulk = slice_of(o->bytes + o->body_len, o->bulk_len)};
        if (c->peer != NULL)
            c->peer->frame(c->peer, &f);
        mem_free(o);
    }
    rpc_conn_unref(c);
}

static int conn_out(
    struct rpc_conn *c, uint16_t type, uint16_t flags, uint64_t id, const struct slice parts[2])
{
    if (!c->open || c->closing)
        return ERR_CLOSED;
    if (c->server != NULL && c->server->machine->ghost)
        return 0; /* its power went a moment ago, in this event: nobody hears of it */
    if (sched_chance(rpc_sim_lost_per_million)) {
        sched_note("reply lost", type, id);
        conn_end_soon(c, ERR_CLOSED);
        return 0;
    }
    struct out *o = mem_alloc(sizeof *o + parts[0].len + parts[1].len);
    *o = (struct out){
        .type = type, .flags = flags, .id = id, .body_len = parts[0].len, .bulk_len = parts[1].len};
    for (size_t i = 0, at = 0; i < 2; at += parts[i++].len)
        if (parts[i].len > 0)
            memcpy(o->bytes + at, parts[i].ptr, parts[i].len);
    *c->last = o;
    c->last = &o->next;
    if (!sched_waits(&c->deliver))
        sched_in(&c->deliver, RPC_NS + rng_below(&sched->rng, RPC_NS));
    return 0;
}

int rpc_reply(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body, struct slice bulk)
{
    const struct slice parts[2] = {body, bulk};
    return conn_out(c, type, RPC_FLAG_REPLY, id, parts);
}

int rpc_reply_move(struct rpc_conn *c,
                   uint16_t type,
                   uint64_t id,
                   struct slice body,
                   struct buf *storage,
                   struct slice bulk)
{
    int rc = rpc_reply(c, type, id, body, bulk);
    buf_deinit(storage);
    return rc;
}

int rpc_push(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body)
{
    const struct slice parts[2] = {body};
    return conn_out(c, type, RPC_FLAG_PUSH, id, parts);
}

void rpc_request_take(struct rpc_conn *c,
                      const struct rpc_frame *f,
                      struct buf *storage,
                      struct rpc_frame *ret_frame)
{
    (void)c;
    buf_clear(storage);
    buf_append(storage, f->body.ptr, f->body.len);
    buf_append(storage, f->bulk.ptr, f->bulk.len);
    *ret_frame = *f;
    ret_frame->body = slice_of(storage->ptr, f->body.len);
    ret_frame->bulk = slice_of(storage->ptr + f->body.len, f->bulk.len);
}

/* --- connections, as the interface has them --- */

void rpc_conn_close(struct rpc_conn *c)
{
    conn_end_soon(c, 0);
}

void rpc_conn_set_user(struct rpc_conn *c, void *user)
{
    c->user = user;
}

void *rpc_conn_user(const struct rpc_conn *c)
{
    return c->user;
}

void rpc_conn_ref(struct rpc_conn *c)
{
    c->refs++;
}

void rpc_conn_unref(struct rpc_conn *c)
{
    if (--c->refs == 0) {
        outs_drop(c);
        mem_free(c);
    }
}

bool rpc_conn_is_open(const struct rpc_conn *c)
{
    return c->open && !c->closing;
}

bool rpc_conn_is_unix(const struct rpc_conn *c)
{
    (void)c;
    return true;
}

/* A simulated mount has no memory in common with its node. */
int rpc_share_make(struct rpc_conn *c, size_t bytes)
{
    (void)c;
    (void)bytes;
    return ERR_NOT_SUPPORTED;
}

void rpc_share_reply(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body)
{
    (void)c;
    (void)type;
    (void)id;
    (void)body;
    UNREACHABLE();
}

uint8_t *rpc_share(const struct rpc_conn *c, size_t *ret_len)
{
    (void)c;
    *ret_len = 0;
    return NULL;
}

const char *rpc_conn_text(const struct rpc_conn *c)
{
    (void)c;
    return "simulated mount";
}

/* --- the mount's side --- */

bool rpc_sim_connect(struct machine *m, struct rpc_peer *p)
{
    struct rpc_server *s = m->server;
    if (s == NULL)
        return false;
    struct rpc_conn *c = mem_calloc(1, sizeof *c);
    c->server = s;
    c->peer = p;
    c->refs = 1;
    c->open = true;
    c->last = &c->first;
    c->deliver.run = deliver_run;
    c->end.run = end_run;
    c->next = s->conns;
    if (c->next != NULL)
        c->next->prev = c;
    s->conns = c;
    p->conn = c;
    s->events.opened(s->events.ctx, c);
    return true;
}

void rpc_sim_send(
    struct rpc_peer *p, uint16_t type, uint64_t id, struct slice body, struct slice bulk)
{
    struct rpc_conn *c = p->conn;
    if (c == NULL || !c->open || c->closing)
        return;
    struct rpc_server *s = c->server;
    struct rpc_frame f = {.type = type, .id = id, .body = body, .bulk = bulk};
    s->events.request(s->events.ctx, c, &f);
    loop_kick(s->loop);
}

void rpc_sim_leave(struct rpc_peer *p)
{
    struct rpc_conn *c = p->conn;
    if (c == NULL)
        return;
    p->conn = NULL;
    c->peer = NULL;
    conn_end_soon(c, ERR_CLOSED);
}

void rpc_sim_break(struct machine *m)
{
    for (struct rpc_conn *c = m->server != NULL ? m->server->conns : NULL; c != NULL; c = c->next) {
        struct rpc_peer *p = c->peer;
        c->peer = NULL;
        outs_drop(c);
        if (p != NULL) {
            p->conn = NULL;
            p->closed(p);
        }
    }
    m->server = NULL;
}
