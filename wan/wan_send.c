/* A peer's stream from us: hello, checks, then batches as fast as it takes them.
 *
 *   HELLO (its first frame) -> CHECKING (the loop tells our vectors: does it have more of ours than
 *   we?) -> RUNNING
 *
 * One batch is made whenever less than H2_LOW_BYTES wait, so a slow peer costs two batches of
 * memory (W5). What it acknowledges bounds how much of the journal is kept for it. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/hlc.h"
#include "base/log.h"
#include "base/plant.h"
#include "wan/wan_int.h"

#define HEARD_GAP_NS NS_PER_SEC /* between two proofs that the peer is there */

static void frame_write(struct wan_send *s, enum frame_type type, const struct buf *payload)
{
    struct buf frame = {0};
    frame_encode(&frame, type, buf_slice(payload));
    h2_give(s->stream, &frame);
}

/* Says why and ends the stream. */
static void send_fail(struct wan_send *s, int rc, const char *text)
{
    struct buf b = {0};
    if (s->failed)
        return;
    s->failed = true;
    log_warn(LOG_WAN, "stream_refused", "peer=%s code=%s why=\"%s\"", s->peer->member.name,
             err_name(rc), text);
    msg_error_encode(rc, text, &b);
    frame_write(s, FRAME_ERROR, &b);
    h2_end(s->stream);
    buf_deinit(&b);
}

void wan_send_farewell(struct wan_peer *p)
{
    if (p->send != NULL)
        send_fail(p->send, ERR_REMOVED, wan_peer_leaves_text(p));
}

/* --- batches --- */

struct reading {
    struct wan_send *send;
    bool bad; /* the feed holds what its contract excludes */
};

static bool feed_take(void *ctx, const struct feed_item *item)
{
    struct reading *r = ctx;
    if (item->op.len > LIMIT_OP_BYTES || item->dot.shard >= r->send->wan->me.shard_count) {
        r->bad = true;
        return false;
    }
    if (!PLANTED(64) || item->dot.site == r->send->wan->me.site)
        gateway_add(r->send->gateway, item);
    return true;
}

/* What is gone of the journal the peer has by other ways: it comes again and begins behind that. */
static void read_failed(struct wan_send *s, int rc)
{
    bool gone = rc == ERR_NOT_FOUND;
    send_fail(s, gone ? ERR_AGAIN : rc,
              gone ? "the journal has moved on there" : "the journal cannot be read there");
}

/* Reads what the merge needs. False: not now, or failed. */
static bool lanes_fill(struct wan_send *s)
{
    shard_id_t shard;
    uint64_t from, next;
    struct reading r = {.send = s};
    while (gateway_wants(s->gateway, &shard, &from)) {
        next = from;
        int rc =
            node_feed_read(s->wan->node, shard, from, GATEWAY_READ_BYTES, feed_take, &r, &next);
        if (rc != 0 || r.bad) {
            read_failed(s, r.bad ? ERR_CORRUPT : rc);
            return false;
        }
        gateway_read_done(s->gateway, shard, next);
        if (next == from)
            return false; /* the state ran ahead of the journal's reader; it will move again */
    }
    return true;
}

static void batch_send(struct wan_send *s, const struct batch *b)
{
    struct buf plain = {0}, noise = {0}, packed = {0};
    batch_encode(&s->memory, b, &plain, &noise);
    enc_bytes(&packed, buf_slice(&noise));
    zpack_add(s->pack, buf_slice(&plain), &packed);
    frame_write(s, FRAME_BATCH, &packed);
    uint64_t wire_bytes = FRAME_HEADER_BYTES + packed.len;
    s->wire_bytes += wire_bytes;
    s->peer->ops_out += b->count;
    metric_add(&s->peer->metrics.ops_out, b->count);
    metric_add(&s->peer->metrics.wire_out, (int64_t)wire_bytes);
    if (b->count > 0)
        s->sent_op_hlc = b->hlc;
    buf_deinit(&plain);
    buf_deinit(&noise);
    buf_deinit(&packed);
}

static bool send_one(struct wan_send *s, bool flush)
{
    struct batch b;
    bool filled = lanes_fill(s);
    if (s->failed || (!filled && !flush) || !gateway_batch(s->gateway, flush, &b))
        return false;
    batch_send(s, &b);
    return true;
}

/* May batches go? Not before the peer has what they take for granted (W10). */
static bool is_open(struct wan_send *s)
{
    bool met = true;
    if (s->horizon != NULL) {
        int rc = wan_horizon_step(s->horizon, s->peer->have, &met);
        if (rc != 0)
            read_failed(s, rc);
        met = met && rc == 0;
    }
    if (met) {
        wan_horizon_free(s->horizon);
        s->horizon = NULL;
    }
    return met;
}

void wan_send_pump(struct wan_send *s)
{
    if (s->state != SEND_RUNNING || s->failed)
        return;
    struct feed_state state;
    node_feed_state(s->wan->node, &state);
    if (state.shard_count != s->wan->me.shard_count)
        return; /* being adopted */
    gateway_see_state(s->gateway, &state);
    if (!is_open(s))
        return;
    while (h2_pending(s->stream) <= H2_LOW_BYTES && send_one(s, false))
        continue;
}

/* --- heartbeats --- */

static void beat_send(struct wan_send *s, uint64_t now_ns)
{
    struct gateway_progress g;
    struct buf b = {0};
    uint64_t wall_ns = wan_wall_ns(s->wan);
    gateway_progress(s->gateway, &g);
    /* The node publishes its safe point when something moves; while nothing does, all there is was
     * sent, and that is true up to this moment. */
    uint64_t head = MAX(g.head_hlc, hlc_from_wall(wall_ns));
    struct msg_heartbeat h = {
        .sent_hlc = s->horizon != NULL ? 0
                    : g.ops_to_go == 0 ? head
                                       : g.sent_hlc,
        .head_hlc = head,
        .ops_sent = g.ops_sent,
        .bytes_sent = g.bytes_sent,
        .ops_to_go = g.ops_to_go,
        .bytes_to_go = g.bytes_to_go,
        .wall_ns = wall_ns,
        .echo_ns = s->echo_ns,
        .echo_at_ns = s->echo_at_ns,
        .hlc = node_hlc_now(s->wan->node),
        .safe_hlc = g.head_hlc,
    };
    s->echo_ns = 0; /* an echo counts once */
    s->beat_ns = now_ns;
    msg_heartbeat_encode(&h, &b);
    frame_write(s, FRAME_HEARTBEAT, &b);
    buf_deinit(&b);
}

/* How far the peer is behind us. */
static void lag_measure(struct wan_send *s, uint64_t now_ns)
{
    struct gateway_progress g;
    struct lag *l = &s->peer->lag_out;
    gateway_progress(s->gateway, &g);
    bool fresh = s->ack_ns != 0 && now_ns - s->ack_ns <= LAG_FRESH_NS;
    lag_hear(l, now_ns, g.head_hlc, hlc_from_wall(wan_wall_ns(s->wan)));
    if (fresh && s->horizon == NULL && g.ops_to_go == 0 && s->applied_hlc >= s->sent_op_hlc)
        lag_apply(l, g.head_hlc, 0, 0);
}

void wan_send_tick(struct wan_send *s, uint64_t now_ns)
{
    if (s->state != SEND_RUNNING || s->failed)
        return;
    wan_send_pump(s);
    lag_measure(s, now_ns);
    if (s->failed || now_ns - s->beat_ns < WAN_BEAT_NS || h2_pending(s->stream) > H2_LOW_BYTES)
        return;
    if (s->horizon == NULL)
        (void)send_one(s, true); /* moves the cursor past what was not for this peer */
    if (!s->failed)
        beat_send(s, now_ns);
}

/* --- acknowledgements and probes --- */

static void acked_tell(struct wan_send *s)
{
    struct wan_peer *p = s->peer;
    uint64_t index[SHARD_COUNT_MAX] = {0};
    for (unsigned i = 0; i < s->wan->me.shard_count; i++)
        index[i] = p->acked_next[i] > 0 ? p->acked_next[i] - 1 : 0;
    node_peer_acked(s->wan->node, p->member.site, index);
}

static int on_ack(struct wan_send *s, struct slice payload)
{
    struct wan_peer *p = s->peer;
    struct msg_ack a = {0};
    int rc = msg_ack_decode(payload, s->wan->me.shard_count, &a);
    if (rc != 0)
        return rc;
    s->ack_ns = wan_now_ns(s->wan);
    if (s->ack_ns - p->heard_ns >= HEARD_GAP_NS) {
        p->heard_ns = s->ack_ns;
        node_peer_heard(s->wan->node, p->member.site);
    }
    s->echo_ns = a.wall_ns;
    s->echo_at_ns = wan_wall_ns(s->wan);
    s->applied_hlc = MAX(s->applied_hlc, a.applied_hlc);
    lag_apply(&p->lag_out, a.applied_hlc, 0, 0);
    for (uint32_t i = 0; i < a.next_count; i++)
        p->acked_next[a.next[i].shard] = MAX(p->acked_next[a.next[i].shard], a.next[i].next);
    for (uint32_t i = 0; i < a.seq_count && rc == 0; i++) {
        struct dot d = a.seqs[i];
        rc = gateway_see_have(s->gateway, d.shard, d.site, d.seq);
        if (rc == 0 && vv_get(&p->have[d.shard], d.site) < d.seq)
            rc = vv_set(&p->have[d.shard], d.site, d.seq);
    }
    if (a.next_count > 0)
        acked_tell(s);
    if (a.seq_count > 0)
        wan_wait_check(s->wan);
    if (a.seq_count > 0 && s->horizon != NULL)
        wan_send_pump(s);
    msg_ack_deinit(&a);
    return rc;
}

struct vvs_call {
    struct wan_call call;
    struct node_settle_wait settled;
    site_id_t self, peer;
    uint64_t generation;
    uint64_t probe_id;
    struct vv *vvs;
    struct node_place places[SHARD_COUNT_MAX];
    struct last_op own[SHARD_COUNT_MAX], peers[SHARD_COUNT_MAX]; /* operations of both */
    uint64_t hlc;
};

static void vvs_take(struct vvs_call *c)
{
    node_peer_places(c->call.wan->node, c->peer, c->places);
    node_vvs(c->call.wan->node, c->vvs);
    node_last_ops(c->call.wan->node, c->self, c->own);
    node_last_ops(c->call.wan->node, c->peer, c->peers);
    c->hlc = node_hlc_now(c->call.wan->node);
    wan_call_return(&c->call);
}

static void vvs_on_loop(struct wan_call *call)
{
    vvs_take(CONTAINER_OF(call, struct vvs_call, call));
}

static void vvs_settled(struct node_settle_wait *w)
{
    vvs_take(CONTAINER_OF(w, struct vvs_call, settled));
}

/* A probe asks for a vector that covers what was caused here by all that has arrived (W9). */
static void vvs_settle_on_loop(struct wan_call *call)
{
    struct vvs_call *c = CONTAINER_OF(call, struct vvs_call, call);
    c->settled.run = vvs_settled;
    node_settled(call->wan->node, &c->settled);
}

static void vvs_release(struct wan_call *call)
{
    mem_free(CONTAINER_OF(call, struct vvs_call, call)->vvs);
}

static void vvs_ask(struct wan_send *s, uint64_t probe_id, void (*done)(struct wan_call *c))
{
    struct vvs_call *c = mem_calloc(1, sizeof *c);
    c->self = s->wan->me.site;
    c->peer = s->peer->member.site;
    c->generation = s->generation;
    c->probe_id = probe_id;
    c->vvs = mem_calloc(SHARD_COUNT_MAX, sizeof c->vvs[0]);
    c->call.on_loop = probe_id != 0 ? vvs_settle_on_loop : vvs_on_loop;
    c->call.done = done;
    c->call.release = vvs_release;
    wan_call_start(s->wan, &c->call);
}

static struct wan_send *vvs_send(const struct vvs_call *c)
{
    struct wan_peer *p = wan_peer_by_site(c->call.wan, c->peer);
    bool same = p != NULL && p->send != NULL && p->send->generation == c->generation;
    return same && !p->send->failed ? p->send : NULL;
}

static void probed(struct wan_call *call)
{
    struct vvs_call *c = CONTAINER_OF(call, struct vvs_call, call);
    struct wan_send *s = vvs_send(c);
    struct buf b = {0};
    if (s == NULL)
        return;
    s->probes--;
    msg_probe_reply_encode(c->probe_id, c->vvs, call->wan->me.shard_count, &b);
    frame_write(s, FRAME_PROBE_REPLY, &b);
    buf_deinit(&b);
}

static int on_probe(struct wan_send *s, struct slice payload)
{
    uint64_t id;
    int rc = msg_probe_decode(payload, &id);
    if (rc != 0)
        return rc;
    if (s->probes == WAN_PROBES_MAX)
        return ERR_PEER;
    s->probes++;
    vvs_ask(s, id, probed);
    return 0;
}

/* --- the beginning --- */

/* Where to begin in each shard; false after a failure was told. What is gone of the journal the
 * peer has by other ways, if its place is behind that and it asks for no less than its place. */
static bool start_find(struct wan_send *s, const struct node_place *places, uint64_t *ret_next)
{
    struct feed_state f;
    node_feed_state(s->wan->node, &f);
    for (unsigned i = 0; i < s->wan->me.shard_count; i++) {
        uint64_t next = s->hello->next[i], first = MAX(f.first[i], 1u);
        if (next == 0) /* it has a snapshot, or nothing at all */
            next = first;
        bool rolled_back = next <= places[i].acked;
        if (next < first && (rolled_back || places[i].need < first)) {
            send_fail(s, ERR_NOT_FOUND,
                      rolled_back ? "this site has less than it had acknowledged, and the journal "
                                    "that it needs is gone: claudefs site return brings it back"
                                  : "the journal that this site needs is gone: claudefs site "
                                    "return brings it back");
            return false;
        }
        next = MAX(next, first);
        if (next > f.durable[i] + 1) {
            char how[120];
            (void)snprintf(how, sizeof how, "journal %u up to %llu, which ends here at %llu", i,
                           (unsigned long long)(next - 1),
                           (unsigned long long)f.durable[i]); /* fits */
            send_fail(s, ERR_ROLLBACK, "the other site was rolled back to an older state");
            wan_rolled_back(s->wan, s->peer->member.name, how);
            return false;
        }
        ret_next[i] = next;
    }
    return true;
}

/* Nothing of this stream is there, and it did not begin with our snapshot. One cursor is enough to
 * tell: before it moved the peer had all that the stream takes for granted. */
static bool is_new(const struct msg_hello *hello, unsigned shard_count)
{
    for (unsigned i = 0; i < shard_count; i++)
        if (hello->next[i] != 0)
            return false;
    return true;
}

static bool rollback_check(struct wan_send *s, const struct vvs_call *c)
{
    struct wan *w = s->wan;
    uint64_t have[SHARD_COUNT_MAX];
    char how[WAN_HOW_BYTES];
    for (unsigned i = 0; i < w->me.shard_count; i++)
        have[i] = vv_get(&s->hello->vvs[i], w->me.site);
    struct wan_history h = {.have = have, .theirs = s->hello->last, .mine = c->own, .vvs = c->vvs};
    if (!wan_history_differs(w, &h, how))
        return true;
    send_fail(s, ERR_ROLLBACK, "the other site was rolled back to an older state");
    wan_rolled_back(w, s->peer->member.name, how);
    return false;
}

static void welcome_send(struct wan_send *s, const struct vvs_call *c)
{
    struct wan *w = s->wan;
    struct buf b = {0};
    struct msg_welcome *m = mem_calloc(1, sizeof *m);
    m->version = WAN_VERSION;
    m->site = w->me.site;
    m->shard_count = w->me.shard_count;
    for (unsigned i = 0; i < m->shard_count; i++)
        m->yours[i] = vv_get(&c->vvs[i], s->peer->member.site);
    m->wall_ns = wan_wall_ns(w);
    m->hlc = c->hlc;
    memcpy(m->last, c->peers, sizeof m->last);
    msg_welcome_encode(m, &b);
    frame_write(s, FRAME_WELCOME, &b);
    mem_free(m);
    buf_deinit(&b);
}

static void begin(struct wan_call *call)
{
    struct vvs_call *c = CONTAINER_OF(call, struct vvs_call, call);
    struct wan_send *s = vvs_send(c);
    uint64_t next[SHARD_COUNT_MAX];
    if (s == NULL || s->state != SEND_CHECKING)
        return;
    struct wan *w = s->wan;
    struct wan_peer *p = s->peer;
    if (!rollback_check(s, c) || !start_find(s, c->places, next))
        return;
    s->gateway = gateway_new(w->me.shard_count, p->member.site, next, s->hello->vvs);
    batch_memory_init(&s->memory, w->me.shard_count);
    s->pack = zpack_new();
    if (is_new(s->hello, w->me.shard_count))
        s->horizon = wan_horizon_new(w, p->member.site, c->vvs, next);
    memcpy(p->have, s->hello->vvs, w->me.shard_count * sizeof p->have[0]);
    for (unsigned i = 0; i < w->me.shard_count; i++)
        p->acked_next[i] = MAX(p->acked_next[i], s->hello->next[i]);
    acked_tell(s);
    welcome_send(s, c);
    mem_free(s->hello);
    s->hello = NULL;
    s->state = SEND_RUNNING;
    lag_up(&p->lag_out);
    log_info(LOG_WAN, "stream_serving", "peer=%s", p->member.name);
    wan_send_pump(s);
    if (!s->failed)
        beat_send(s, wan_now_ns(w));
    wan_wait_check(w);
}

static bool is_same_site(const struct wan_peer *a, const struct wan_peer *b)
{
    return memcmp(a->member.cert_sha256, b->member.cert_sha256, FINGERPRINT_BYTES) == 0;
}

static int on_hello(struct wan_send *s, struct slice payload)
{
    struct wan *w = s->wan;
    if (s->state != SEND_HELLO)
        return ERR_PEER;
    s->hello = mem_calloc(1, sizeof *s->hello);
    int rc = msg_hello_decode(payload, s->hello);
    if (rc != 0)
        return rc;
    if (s->hello->version != WAN_VERSION)
        return ERR_VERSION;
    if (memcmp(s->hello->fs_id, w->fs_id, FS_ID_BYTES) != 0 ||
        s->hello->shard_count != w->me.shard_count) {
        send_fail(s, ERR_AUTH, "the two sites do not belong to the same file system");
        return 0;
    }
    /* One of the two has come back under another id, which the other has not heard of yet: what is
     * said of one life would be taken for another's. */
    if (s->hello->site != s->peer->member.site) {
        const struct wan_peer *q = wan_peer_by_site(w, s->hello->site);
        if (q != NULL && q->gone && is_same_site(q, s->peer))
            send_fail(s, ERR_REMOVED, wan_peer_leaves_text(q)); /* another of its ids is a member */
        else
            send_fail(s, ERR_STRANGER, WAN_STRANGER_TEXT);
        return 0;
    }
    if (s->hello->to != 0 && s->hello->to != w->me.site) {
        send_fail(s, ERR_AGAIN, "the other site has come back under another id");
        return 0;
    }
    s->state = SEND_CHECKING;
    vvs_ask(s, 0, begin);
    return 0;
}

static int on_frame(struct wan_send *s, const struct frame *f)
{
    if (f->type == FRAME_ERROR) {
        struct err_detail d;
        int rc = msg_error_decode(f->payload, &d);
        if (rc == ERR_ROLLBACK)
            wan_peer_trouble(s->peer, TROUBLE_ROLLBACK, rc, d.text);
        s->failed = true;
        h2_end(s->stream);
        return 0;
    }
    if (f->type == FRAME_HELLO)
        return on_hello(s, f->payload);
    if (s->state == SEND_RUNNING && f->type == FRAME_ACK)
        return on_ack(s, f->payload);
    if (s->state == SEND_RUNNING && f->type == FRAME_PROBE)
        return on_probe(s, f->payload);
    return ERR_PEER;
}

static void stream_data(struct h2_stream *stream, const uint8_t *ptr, size_t len)
{
    struct wan_send *s = h2_stream_user(stream);
    h2_consume(stream, len); /* small frames, answered at once */
    if (s->failed)
        return;
    frame_reader_add(&s->frames, ptr, len);
    struct frame f;
    bool got = true;
    int rc = 0;
    while (rc == 0 && got && !s->failed) {
        rc = frame_reader_next(&s->frames, &f, &got);
        if (rc == 0 && got)
            rc = on_frame(s, &f);
    }
    if (rc != 0)
        send_fail(s, rc, "the acknowledgements cannot be read");
}

static void stream_drained(struct h2_stream *stream)
{
    wan_send_pump(h2_stream_user(stream));
}

static void stream_ended(struct h2_stream *stream)
{
    struct wan_send *s = h2_stream_user(stream);
    if (!s->failed)
        h2_end(stream);
    s->failed = true; /* there is nobody to talk to */
}

void wan_send_free(struct wan_send *s)
{
    if (s == NULL)
        return;
    frame_reader_deinit(&s->frames);
    zpack_free(s->pack);
    batch_memory_deinit(&s->memory);
    if (s->gateway != NULL) {
        struct gateway_progress g;
        gateway_progress(s->gateway, &g);
        if (g.ops_sent != 0)
            s->peer->op_bytes = g.bytes_sent / g.ops_sent;
    }
    gateway_free(s->gateway);
    wan_horizon_free(s->horizon);
    mem_free(s->hello);
    mem_free(s);
}

static void stream_closed(struct h2_stream *stream, int rc)
{
    struct wan_send *s = h2_stream_user(stream);
    (void)rc;
    if (s->peer->send == s) {
        s->peer->send = NULL;
        lag_down(&s->peer->lag_out);
    }
    wan_send_free(s);
}

static const struct h2_stream_events stream_events = {
    .data = stream_data,
    .drained = stream_drained,
    .ended = stream_ended,
    .closed = stream_closed,
};

void wan_send_accept(struct wan_peer *p, struct h2_stream *stream)
{
    struct wan_send *s = mem_calloc(1, sizeof *s);
    s->wan = p->wan;
    s->peer = p;
    s->stream = stream;
    s->generation = ++p->wan->generation;
    if (p->send != NULL) { /* it came back before we noticed that it had gone */
        p->send->failed = true;
        h2_reset(p->send->stream);
    }
    p->send = s;
    h2_follow(stream, &stream_events, s);
    h2_respond(stream, 200);
}
