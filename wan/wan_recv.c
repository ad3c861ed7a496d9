/* Our stream from a peer: ask, check, decode, apply, acknowledge.
 *
 *   IDLE -> READING (where did we stop? the loop knows) -> OPENING (hello sent) -> CHECKING
 * (welcome came: does the peer have more of ours than we have? then we were rolled back) -> RUNNING
 * -> IDLE
 *
 * A batch is applied on the node's loop while the next one is decoded here; batches beyond that
 * stay unread, and HTTP/2's window stops the peer. What became durable is looked up on the loop for
 * all peers at once (wan_pull) and acknowledged. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/hlc.h"
#include "base/log.h"
#include "wan/wan_int.h"

#define STEADY_NS (2 * NS_PER_SEC) /* a stream that lasts so long is no failed attempt */
#define AHEAD_HLC_MS (RECEIVER_AHEAD_MAX_NS / NS_PER_MS)

static void recv_frames(struct wan_peer *p);
static void recv_apply_next(struct wan_peer *p);
static void ack_send(struct wan_peer *p);

/* --- what the loop knows --- */

struct where_call {
    struct wan_call call;
    site_id_t self, peer;
    uint64_t generation;
    uint64_t next[SHARD_COUNT_MAX];
    struct vv *vvs;
    struct last_op own[SHARD_COUNT_MAX], peers[SHARD_COUNT_MAX]; /* operations of both */
    uint64_t hlc, waits_hlc;
};

static void where_on_loop(struct wan_call *call)
{
    struct where_call *c = CONTAINER_OF(call, struct where_call, call);
    node_cursors(call->wan->node, c->peer, c->next);
    node_vvs(call->wan->node, c->vvs);
    node_last_ops(call->wan->node, c->self, c->own);
    node_last_ops(call->wan->node, c->peer, c->peers);
    c->hlc = node_hlc_now(call->wan->node);
    c->waits_hlc = node_waits_since(call->wan->node, c->peer);
    wan_call_return(call);
}

static void where_release(struct wan_call *call)
{
    mem_free(CONTAINER_OF(call, struct where_call, call)->vvs);
}

static void where_start(struct wan_peer *p, void (*done)(struct wan_call *c))
{
    struct where_call *c = mem_calloc(1, sizeof *c);
    c->self = p->wan->me.site;
    c->peer = p->member.site;
    c->generation = p->recv.generation;
    /* SHARD_COUNT_MAX, because an adoption may change the number meanwhile. */
    c->vvs = mem_calloc(SHARD_COUNT_MAX, sizeof c->vvs[0]);
    c->call.on_loop = where_on_loop;
    c->call.done = done;
    c->call.release = where_release;
    wan_call_start(p->wan, &c->call);
}

/* The peer's stream that a call was made for, or NULL when that is over. */
static struct wan_peer *where_peer(struct where_call *c, enum wan_recv_state state)
{
    struct wan_peer *p = wan_peer_by_site(c->call.wan, c->peer);
    bool same = p != NULL && p->recv.generation == c->generation && p->recv.state == state;
    return same ? p : NULL;
}

/* --- the end --- */

/* Ends the stream and its connection; the back-off decides when to come again. */
static void recv_fail(struct wan_peer *p, enum wan_trouble what, int rc, const char *text)
{
    wan_peer_trouble(p, what, rc, text);
    if (p->conn != NULL)
        h2_close(p->conn, rc, text);
}

static enum wan_trouble trouble_of(int rc)
{
    switch (rc) {
    case ERR_BUSY:
        return TROUBLE_PAUSED;
    case ERR_ROLLBACK:
        return TROUBLE_ROLLBACK;
    case ERR_NOT_FOUND:
        return TROUBLE_SNAPSHOT;
    case ERR_NOT_PERMITTED:
    case ERR_REMOVED:
    case ERR_AUTH:
    case ERR_VERSION:
        return TROUBLE_REFUSED;
    default:
        return err_class(rc) == ERR_CLASS_AGAIN || err_class(rc) == ERR_CLASS_GONE ? TROUBLE_LINK
                                                                                   : TROUBLE_DATA;
    }
}

void wan_recv_fail(struct wan_peer *p, int rc, const char *text)
{
    recv_fail(p, trouble_of(rc), rc, text);
}

void wan_recv_stop(struct wan_peer *p)
{
    struct wan_recv *r = &p->recv;
    r->state = RECV_IDLE;
    r->generation = ++p->wan->generation;
    r->stream = NULL;
    r->without_id = false;
    frame_reader_deinit(&r->frames);
    zunpack_free(r->unpack);
    r->unpack = NULL;
    buf_deinit(&r->error_body);
    mem_free(r->welcome);
    r->welcome = NULL;
    receiver_end(&r->core);
}

void wan_recv_free(struct wan_peer *p)
{
    if (!p->recv.core_made)
        return;
    wan_recv_stop(p);
    receiver_deinit(&p->recv.core);
}

/* --- applying --- */

struct apply_call {
    struct wan_call call;
    struct apply_batch batch;
    struct wan_peer *peer; /* peers live as long as the WAN part */
    site_id_t site;        /* its */
    uint64_t waits_hlc;
    int rc;
    struct err_detail detail;
};

static void apply_done_on_loop(struct apply_batch *b, int rc, const struct err_detail *d)
{
    struct apply_call *c = CONTAINER_OF(b, struct apply_call, batch);
    c->rc = rc;
    if (rc != 0 && d != NULL)
        c->detail = *d;
    c->waits_hlc = node_waits_since(c->call.wan->node, c->site);
    wan_call_return(&c->call);
}

static void apply_release(struct wan_call *call)
{
    mem_free(CONTAINER_OF(call, struct apply_call, call)->batch.items);
}

/* How long operations of this peer took to become visible here, and what the peer has. */
static void applied_note(struct wan_peer *p, const struct batch *b)
{
    int64_t ahead_ns = 0;
    uint64_t rtt_ns, wall_ns = wan_wall_ns(p->wan);
    (void)skew_get(&p->recv.core.skew, &ahead_ns, &rtt_ns); /* 0 before the first sample */
    for (uint32_t i = 0; i < b->count; i++) {
        struct dot dot = b->items[i].dot;
        if (dot.site == p->member.site) {
            int64_t made_ns = (int64_t)(hlc_ms(b->items[i].hlc) * NS_PER_MS) - ahead_ns;
            int64_t took_ns = (int64_t)wall_ns - made_ns;
            metric_observe_ns(&p->metrics.visible, took_ns > 0 ? (uint64_t)took_ns : 0);
        } else if (dot.site != p->wan->me.site && p->send != NULL && p->send->gateway != NULL) {
            /* It was relayed to us, so the peer has it. */
            int rc = gateway_see_have(p->send->gateway, dot.shard, dot.site, dot.seq);
            if (rc != 0)
                log_debug(LOG_WAN, "vector_full", "peer=%s", p->member.name); /* a duplicate */
        }
    }
    metric_add(&p->metrics.ops_in, b->count);
}

static void apply_done(struct wan_call *call)
{
    struct apply_call *c = CONTAINER_OF(call, struct apply_call, call);
    struct wan_peer *p = c->peer;
    struct receiver *core = &p->recv.core;
    ASSERT(receiver_is_applying(core));
    if (c->rc != 0) {
        receiver_failed(core);
        wan_recv_fail(p, c->rc, c->detail.text[0] != '\0' ? c->detail.text : err_text(c->rc));
    } else {
        applied_note(p, &core->slots[core->oldest].decoded.batch);
        lag_wait(&core->lag, c->waits_hlc);
        receiver_applied(core);
        backoff_reset(&p->backoff);
        wan_pull(p->wan);
    }
    if (p->recv.state == RECV_RUNNING)
        recv_frames(p);
    else if (p->recv.state == RECV_IDLE && p->conn != NULL && h2_is_ready(p->conn))
        wan_recv_start(p); /* it waited for this batch to end */
}

static void recv_apply_next(struct wan_peer *p)
{
    if (p->conn == NULL || !h2_is_ready(p->conn))
        return; /* nothing after a batch that failed */
    bool held = p->recv.core.held_ahead_ns != 0;
    const struct receiver_slot *slot = receiver_next(&p->recv.core, wan_wall_ns(p->wan));
    if (p->recv.core.held_ahead_ns != 0 && !held)
        log_error(LOG_WAN, "clock_alarm",
                  "peer=%s ahead_s=%llu why=\"its operations carry stamps from the future; they "
                  "wait: set the clocks right\"",
                  p->member.name, (unsigned long long)(p->recv.core.held_ahead_ns / NS_PER_SEC));
    if (slot == NULL)
        return;
    const struct batch *b = &slot->decoded.batch;
    struct apply_call *c = mem_calloc(1, sizeof *c);
    c->peer = p;
    c->site = p->member.site;
    c->batch.peer = p->member.site;
    c->batch.item_count = b->count;
    c->batch.items = mem_calloc(MAX(b->count, 1u), sizeof c->batch.items[0]);
    for (uint32_t i = 0; i < b->count; i++)
        c->batch.items[i] = (struct apply_item){.shard = b->items[i].shard, .op = b->items[i].op};
    memcpy(c->batch.cursor, b->cursor, sizeof c->batch.cursor);
    c->batch.done = apply_done_on_loop;
    c->call.done = apply_done;
    c->call.release = apply_release;
    wan_call_track(p->wan, &c->call);
    node_apply(p->wan->node, &c->batch);
}

/* --- frames --- */

static void frame_write(struct wan_peer *p, enum frame_type type, const struct buf *payload)
{
    struct buf frame = {0};
    frame_encode(&frame, type, buf_slice(payload));
    h2_write(p->recv.stream, frame.ptr, frame.len);
    buf_deinit(&frame);
}

/* The peer learns why this site falls silent, as far as a last frame reaches it. */
static void rollback_confess(struct wan_peer *p)
{
    struct buf b = {0};
    if (p->recv.stream == NULL)
        return;
    msg_error_encode(ERR_ROLLBACK, "the other site was rolled back to an older state", &b);
    frame_write(p, FRAME_ERROR, &b);
    h2_end(p->recv.stream);
    h2_close_soon(p->conn, ERR_ROLLBACK, "this site was rolled back");
    buf_deinit(&b);
}

static void checked(struct wan_call *call)
{
    struct where_call *c = CONTAINER_OF(call, struct where_call, call);
    struct wan_peer *p = where_peer(c, RECV_CHECKING);
    if (p == NULL)
        return;
    struct wan *w = call->wan;
    char how[WAN_HOW_BYTES];
    struct wan_history h = {.have = p->recv.welcome->yours,
                            .theirs = p->recv.welcome->last,
                            .mine = c->own,
                            .vvs = c->vvs};
    if (wan_history_differs(w, &h, how)) {
        wan_peer_trouble(p, TROUBLE_ROLLBACK, ERR_ROLLBACK, "this site was rolled back");
        rollback_confess(p);
        wan_rolled_back(w, p->member.name, how);
        return;
    }
    p->recv.state = RECV_RUNNING;
    lag_wait(&p->recv.core.lag, c->waits_hlc);
    p->recv.opened_ns = wan_now_ns(w);
    wan_peer_trouble(p, TROUBLE_NONE, 0, "");
    p->stranger_ns = 0;
    log_info(LOG_WAN, "stream_open", "peer=%s", p->member.name);
    recv_frames(p);
    wan_wait_check(w);
}

static int on_welcome(struct wan_peer *p, struct slice payload)
{
    struct wan_recv *r = &p->recv;
    if (r->state != RECV_OPENING)
        return ERR_PEER;
    r->welcome = mem_calloc(1, sizeof *r->welcome);
    int rc = msg_welcome_decode(payload, r->welcome);
    if (rc != 0)
        return rc;
    if (r->welcome->version != WAN_VERSION)
        return ERR_VERSION;
    if (r->welcome->site != p->member.site || r->welcome->shard_count != p->wan->me.shard_count)
        return ERR_PEER;
    r->state = RECV_CHECKING;
    where_start(p, checked);
    return 0;
}

static int on_batch(struct wan_peer *p, struct slice payload)
{
    struct wan_recv *r = &p->recv;
    struct buf plain = {0};
    metric_add(&p->metrics.bytes_in, (int64_t)(FRAME_HEADER_BYTES + payload.len));
    struct dec d = dec_of(payload);
    struct slice noise = dec_bytes(&d, payload.len);
    int rc = d.rc;
    if (rc == 0)
        rc = zunpack_next(r->unpack, slice_of(d.at, dec_left(&d)), FRAME_PAYLOAD_MAX, &plain);
    if (rc == 0)
        rc = receiver_batch(&r->core, buf_slice(&plain), noise);
    buf_deinit(&plain);
    if (rc == 0)
        recv_apply_next(p);
    return rc;
}

static int on_heartbeat(struct wan_peer *p, struct slice payload, uint64_t before)
{
    struct msg_heartbeat h;
    int rc = msg_heartbeat_decode(payload, &h);
    if (rc != 0)
        return rc;
    uint64_t wall_ns = wan_wall_ns(p->wan);
    receiver_heartbeat(&p->recv.core, &h, before, wan_now_ns(p->wan), wall_ns);
    if (p->recv.acked_ns == 0)
        ack_send(p); /* the peer measures its lag by these: it need not wait for the first */
    if (hlc_ms(h.hlc) <= wall_ns / NS_PER_MS + AHEAD_HLC_MS)
        node_hlc_see(p->wan->node, h.hlc);
    return 0;
}

static int on_probe_reply(struct wan_peer *p, struct slice payload)
{
    uint64_t id;
    struct vv *vvs = mem_calloc(p->wan->me.shard_count, sizeof vvs[0]);
    int rc = msg_probe_reply_decode(payload, p->wan->me.shard_count, &id, vvs);
    if (rc == 0)
        wan_wait_probe_reply(p, id, vvs);
    mem_free(vvs);
    return rc;
}

static int on_frame(struct wan_peer *p, const struct frame *f)
{
    bool running = p->recv.state == RECV_RUNNING;
    struct err_detail d;
    int rc;
    if (f->type == FRAME_ERROR) {
        rc = msg_error_decode(f->payload, &d);
        wan_recv_fail(p, rc, d.text);
        return 0;
    }
    if (f->type == FRAME_WELCOME)
        return on_welcome(p, f->payload);
    if (running && f->type == FRAME_BATCH)
        return on_batch(p, f->payload);
    if (running && f->type == FRAME_HEARTBEAT)
        return on_heartbeat(p, f->payload, 0);
    if (running && f->type == FRAME_PROBE_REPLY)
        return on_probe_reply(p, f->payload);
    return ERR_PEER;
}

static void frame_fail(struct wan_peer *p, int rc)
{
    char text[160];
    (void)snprintf(text, sizeof text, "its stream cannot be read: %s", err_text(rc)); /* fits */
    recv_fail(p, rc == ERR_VERSION ? TROUBLE_REFUSED : TROUBLE_DATA, rc, text);
}

/* Batches wait their turn, because one is held or takes long; how much there is to go is heard
 * meanwhile (W13). */
static void recv_early(struct wan_peer *p)
{
    struct wan_recv *r = &p->recv;
    struct frame f;
    uint64_t before;
    int rc = 0;
    while (rc == 0 && r->state == RECV_RUNNING && r->stream != NULL && h2_is_ready(p->conn) &&
           !receiver_has_room(&r->core) && frame_reader_heartbeat(&r->frames, &f, &before)) {
        h2_consume(r->stream, frame_bytes(&f));
        rc = on_heartbeat(p, f.payload, before);
    }
    if (rc != 0)
        frame_fail(p, rc);
}

static void recv_frames(struct wan_peer *p)
{
    struct wan_recv *r = &p->recv;
    uint64_t generation = r->generation;
    recv_apply_next(p);
    while (r->generation == generation && r->stream != NULL && r->state != RECV_CHECKING &&
           h2_is_ready(p->conn) && receiver_has_room(&r->core)) {
        struct frame f;
        bool got;
        int rc = frame_reader_next(&r->frames, &f, &got);
        if (rc == 0 && !got)
            return;
        if (rc == 0) {
            h2_consume(r->stream, frame_bytes(&f));
            rc = on_frame(p, &f);
        }
        if (rc != 0) {
            frame_fail(p, rc);
            return;
        }
    }
    if (r->generation == generation)
        recv_early(p);
}

/* --- the stream --- */

static void stream_response(struct h2_stream *s, int status)
{
    struct wan_peer *p = h2_stream_user(s);
    if (p->recv.stream == s)
        p->recv.status = status;
}

static void stream_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct wan_peer *p = h2_stream_user(s);
    struct wan_recv *r = &p->recv;
    if (r->stream != s) {
        h2_consume(s, len);
        return;
    }
    if (r->status != 200) {
        if (r->error_body.len + len <= WAN_ERROR_BODY_MAX)
            buf_append(&r->error_body, ptr, len);
        h2_consume(s, len);
        return;
    }
    frame_reader_add(&r->frames, ptr, len);
    recv_frames(p);
}

/* The peer knows no request with an id: it is of an older version, and asked as those ask, at once
 * and on this connection. The next one begins anew, for it may be upgraded meanwhile. */
static void ask_without_id(struct wan_peer *p)
{
    h2_reset(p->recv.stream);
    wan_recv_stop(p);
    p->recv.without_id = true;
    wan_recv_start(p);
}

static void stream_ended(struct h2_stream *s)
{
    struct wan_peer *p = h2_stream_user(s);
    struct err_detail d;
    if (p->recv.stream != s)
        return;
    if (p->recv.status == 200) {
        wan_recv_fail(p, ERR_CLOSED, "the other side ended the stream");
        return;
    }
    int rc = wan_response_error(p->recv.status, &p->recv.error_body, &d);
    if (rc == ERR_NOT_SUPPORTED && !p->recv.without_id) {
        ask_without_id(p);
        return;
    }
    p->recv.stream = NULL;
    if (rc != ERR_AUTH || !wan_voucher_show(p, wan_now_ns(p->wan)))
        wan_recv_fail(p, rc, d.text);
}

static void stream_closed(struct h2_stream *s, int rc)
{
    struct wan_peer *p = h2_stream_user(s);
    if (p->recv.stream != s)
        return;
    p->recv.stream = NULL;
    if (p->conn != NULL && h2_is_ready(p->conn)) /* else dial_closed tells why */
        wan_recv_fail(p, rc != 0 ? rc : ERR_CLOSED, "the other side ended the stream");
}

static const struct h2_stream_events stream_events = {
    .response = stream_response,
    .data = stream_data,
    .ended = stream_ended,
    .closed = stream_closed,
};

static void hello_send(struct wan_peer *p, const struct where_call *c)
{
    struct wan *w = p->wan;
    struct buf b = {0};
    struct msg_hello *h = mem_calloc(1, sizeof *h);
    h->version = WAN_VERSION;
    memcpy(h->fs_id, w->fs_id, sizeof h->fs_id);
    h->site = w->me.site;
    h->shard_count = w->me.shard_count;
    memcpy(h->next, c->next, sizeof h->next);
    memcpy(h->vvs, c->vvs, w->me.shard_count * sizeof h->vvs[0]);
    h->wall_ns = wan_wall_ns(w);
    h->hlc = c->hlc;
    memcpy(h->last, c->peers, sizeof h->last);
    h->to = p->member.site;
    msg_hello_encode(h, &b);
    frame_write(p, FRAME_HELLO, &b);
    mem_free(h);
    buf_deinit(&b);
}

static void begin(struct wan_call *call)
{
    struct where_call *c = CONTAINER_OF(call, struct where_call, call);
    struct wan_peer *p = where_peer(c, RECV_READING);
    if (p == NULL || p->conn == NULL || !h2_is_ready(p->conn))
        return;
    struct wan_recv *r = &p->recv;
    char path[sizeof WAN_STREAM_PATH + 8];
    (void)snprintf(path, sizeof path, WAN_STREAM_PATH "%08x", p->wan->me.site); /* fits */
    r->stream =
        h2_request(p->conn, "POST", r->without_id ? WAN_STREAM_PATH_OLD : path, &stream_events, p);
    if (r->stream == NULL) {
        h2_close(p->conn, ERR_CLOSED, "no more streams fit the connection");
        return;
    }
    r->status = 0;
    r->state = RECV_OPENING;
    r->acked_ns = 0;
    r->unpack = zunpack_new();
    receiver_begin(&r->core, c->next, c->vvs);
    hello_send(p, c);
}

void wan_recv_start(struct wan_peer *p)
{
    struct wan_recv *r = &p->recv;
    ASSERT(r->state == RECV_IDLE);
    if (receiver_is_applying(&r->core))
        return;                                          /* apply_done starts it */
    if (r->core.shard_count != p->wan->me.shard_count) { /* the site was adopted meanwhile */
        receiver_deinit(&r->core);
        receiver_init(&r->core, p->wan->me.shard_count, p->wan->me.site, p->member.site,
                      wan_now_ns(p->wan));
    }
    r->state = RECV_READING;
    r->generation = ++p->wan->generation;
    where_start(p, begin);
}

/* --- acknowledging --- */

static void ack_send(struct wan_peer *p)
{
    struct wan_recv *r = &p->recv;
    struct buf b = {0};
    if (h2_pending(r->stream) > H2_LOW_BYTES)
        return; /* the peer does not read now; nothing is lost by waiting */
    receiver_ack(&r->core, wan_wall_ns(p->wan), node_hlc_now(p->wan->node), &b);
    frame_write(p, FRAME_ACK, &b);
    r->acked_ns = wan_now_ns(p->wan);
    buf_deinit(&b);
}

static bool recv_can_write(const struct wan_peer *p)
{
    return p->recv.state == RECV_RUNNING && p->recv.stream != NULL;
}

void wan_recv_tick(struct wan_peer *p, uint64_t now_ns)
{
    if (!recv_can_write(p))
        return;
    if (now_ns - p->recv.opened_ns > STEADY_NS)
        backoff_reset(&p->backoff);
    if (p->recv.core.held_ahead_ns != 0)
        recv_frames(p); /* the clock may have caught up */
    if (recv_can_write(p) && now_ns - p->recv.acked_ns >= WAN_BEAT_NS)
        ack_send(p);
}

uint64_t wan_recv_probe(struct wan_peer *p)
{
    if (!recv_can_write(p))
        return 0;
    struct buf b = {0};
    p->recv.probe_id = ++p->wan->generation;
    msg_probe_encode(p->recv.probe_id, &b);
    frame_write(p, FRAME_PROBE, &b);
    buf_deinit(&b);
    return p->recv.probe_id;
}

/* What is durable: our vectors, and the cursor of each running stream; and what waits. */
struct pull_call {
    struct wan_call call;
    struct node_settle_wait settled;
    struct vv *vvs;
    uint32_t count;
    struct {
        site_id_t peer;
        uint64_t generation;
        uint64_t next[SHARD_COUNT_MAX];
        uint64_t waits_hlc;
    } at[SITE_COUNT_MAX];
};

/* What waits is told as it is now: a batch may have come since the pull began. */
static void pull_settled(struct node_settle_wait *w)
{
    struct pull_call *c = CONTAINER_OF(w, struct pull_call, settled);
    for (uint32_t i = 0; i < c->count; i++)
        c->at[i].waits_hlc = node_waits_since(c->call.wan->node, c->at[i].peer);
    wan_call_return(&c->call);
}

/* What is durable now is acknowledged when what it causes here is durable, too (W9). */
static void pull_on_loop(struct wan_call *call)
{
    struct pull_call *c = CONTAINER_OF(call, struct pull_call, call);
    /* Cursors first: what they cover is in the vectors then. */
    for (uint32_t i = 0; i < c->count; i++)
        node_cursors(call->wan->node, c->at[i].peer, c->at[i].next);
    node_vvs(call->wan->node, c->vvs);
    c->settled.run = pull_settled;
    node_settled(call->wan->node, &c->settled);
}

static void pull_done(struct wan_call *call)
{
    struct pull_call *c = CONTAINER_OF(call, struct pull_call, call);
    struct wan *w = call->wan;
    memcpy(w->vvs, c->vvs, w->me.shard_count * sizeof w->vvs[0]);
    w->pull_busy = false;
    for (uint32_t i = 0; i < c->count; i++) {
        struct wan_peer *p = wan_peer_by_site(w, c->at[i].peer);
        if (p == NULL || p->recv.generation != c->at[i].generation || !recv_can_write(p))
            continue;
        receiver_durable(&p->recv.core, c->at[i].next, c->vvs);
        lag_wait(&p->recv.core.lag, c->at[i].waits_hlc);
        if (receiver_owes_ack(&p->recv.core))
            ack_send(p);
    }
    if (w->pull_again)
        wan_pull(w);
    wan_wait_check(w);
}

static void pull_release(struct wan_call *call)
{
    mem_free(CONTAINER_OF(call, struct pull_call, call)->vvs);
}

void wan_pull_now(uv_timer_t *t)
{
    struct wan *w = CONTAINER_OF(t, struct wan, pull_timer);
    /* Several hundred KiB, every few milliseconds: only what is used is cleared. */
    struct pull_call *c = mem_alloc(sizeof *c);
    memset(c, 0, offsetof(struct pull_call, at));
    c->vvs = mem_alloc(SHARD_COUNT_MAX * sizeof c->vvs[0]);
    for (unsigned s = 0; s < SHARD_COUNT_MAX; s++)
        c->vvs[s].count = 0; /* covers nothing */
    for (struct wan_peer *p = w->peers; p != NULL; p = p->next) {
        if (!recv_can_write(p) || c->count == SITE_COUNT_MAX)
            continue;
        memset(&c->at[c->count], 0, sizeof c->at[0]);
        c->at[c->count].peer = p->member.site;
        c->at[c->count++].generation = p->recv.generation;
    }
    if (c->count == 0 && w->waiters == NULL) { /* nobody wants to know */
        mem_free(c->vvs);
        mem_free(c);
        return;
    }
    w->pull_busy = true;
    w->pull_again = false;
    c->call.on_loop = pull_on_loop;
    c->call.done = pull_done;
    c->call.release = pull_release;
    wan_call_start(w, &c->call);
}

void wan_pull(struct wan *w)
{
    if (w->stopping)
        return;
    w->pull_again = w->pull_busy;
    if (w->pull_busy || uv_is_active((uv_handle_t *)&w->pull_timer))
        return;
    int rc = uv_timer_start(&w->pull_timer, wan_pull_now, WAN_PULL_MS, 0);
    ASSERT(rc == 0);
}
