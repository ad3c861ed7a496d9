/* Streams between sites of three nodes. See trio.h.
 *
 * Normal path: the lowest node of a site that is up is its gateway. The one that receives says
 * hello with the cursors and vectors that its shards have durably; the one that sends begins there,
 * reads what the leaders have committed, merges it (wan/gateway.h), and sends batches; the
 * receiver (wan/receiver.h) hands them to its leaders (site/intake.h) and acknowledges what is
 * durable. Failure path: a stream ends when its connection breaks, when nothing is heard for a
 * while, when a gateway dies or another node becomes it, and when a shard of the receiver gets
 * another leader; it begins again from what is durable.
 *
 * A connection delivers in order; a cut holds back what is on its way. What gateways ask leaders
 * for is looked up at one moment, as clients do it. */
#include <string.h>

#include "base/assert.h"
#include "base/hlc.h"
#include "sim/trio_int.h"
#include "site/intake.h"
#include "wan/gateway.h"
#include "wan/msg.h"
#include "wan/receiver.h"

#define TICK_NS (10 * NS_PER_MS)
#define BEAT_NS (500 * NS_PER_MS)
#define SILENCE_NS (3 * NS_PER_SEC)
#define FAULT_NS (5 * NS_PER_SEC)
#define CUT_NS (12 * NS_PER_SEC)
#define UNDER_WAY_MAX 3u /* batches */
#define STREAMS_MAX (TRIO_SITES_MAX * TRIO_SITES_MAX)

enum kind {
    HELLO,
    BATCH,
    BEAT,
    ACK,
    END
};
struct letter {
    enum kind kind;
    uint64_t at_ns;
    struct buf bytes, noise;
    struct letter *next;
};
struct lane { /* one direction of a connection */
    struct trio_stream *stream;
    unsigned from, to;
    struct letter *head, **tail;
    unsigned count;
    struct sched_event event;
};
struct place { /* a run of a node */
    unsigned node;
    uint64_t start;
};
struct sender {
    struct place place;
    bool open;               /* hello was heard */
    struct msg_hello *hello; /* not begun yet */
    struct gateway *gateway;
    struct batch_memory memory;
    uint64_t acked_next[TRIO_SHARDS_MAX];
    uint64_t heard_ns, beat_ns;
};
struct taker {
    struct place place;
    bool open;
    struct receiver core;
    uint64_t epochs[TRIO_SHARDS_MAX];
    struct intake_batch work; /* while core is applying */
    struct apply_item *items;
    uint64_t heard_ns, told_ns, retry_ns;
};
struct trio_stream {
    struct trio_link *link;
    struct trio *from, *to;
    struct lane forth, back;
    struct sender send;
    struct taker take;
    struct sched_event tick;
};
struct trio_link {
    struct trio_world *all;
    struct trio_stream streams[STREAMS_MAX];
    unsigned count;
    bool cut[TRIO_SITES_MAX][TRIO_SITES_MAX];
    bool healed;
    uint64_t delay_ns;
    struct sched_event fault, heal;
};

/* ---- nodes ---- */

static bool place_find(const struct trio *w, struct place *ret)
{
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (w->nodes[i].loop != NULL && !w->nodes[i].broken) {
            *ret = (struct place){.node = i, .start = w->nodes[i].end.start};
            return true;
        }
    return false;
}

static bool place_holds(const struct trio *w, const struct place *p)
{
    struct place now;
    return place_find(w, &now) && now.node == p->node && now.start == p->start;
}

static bool leaders(struct trio *w, struct shard **ret)
{
    for (unsigned i = 0; i < w->shard_count; i++)
        if ((ret[i] = trio_leader(w, i, NULL)) == NULL)
            return false;
    return true;
}

static uint64_t wall_ns(const struct trio *w, const struct place *p)
{
    return clock_wall_ns(&w->nodes[p->node].clock);
}

/* ---- connections ---- */

static void letter_free(struct letter *l)
{
    buf_deinit(&l->bytes);
    buf_deinit(&l->noise);
    mem_free(l);
}

static struct letter *lane_pop(struct lane *lane)
{
    struct letter *l = lane->head;
    lane->head = l->next;
    if (lane->head == NULL)
        lane->tail = &lane->head;
    lane->count--;
    return l;
}

static void lane_clear(struct lane *lane)
{
    sched_cancel(&lane->event);
    while (lane->head != NULL)
        letter_free(lane_pop(lane));
}

/* Takes the bytes. */
static void lane_push(struct lane *lane, enum kind kind, struct buf *bytes, struct buf *noise)
{
    uint64_t delay = lane->stream->link->delay_ns;
    struct letter *l = mem_calloc(1, sizeof *l);
    l->kind = kind;
    if (bytes != NULL)
        buf_move(&l->bytes, bytes);
    if (noise != NULL)
        buf_move(&l->noise, noise);
    l->at_ns = sched->now_ns + delay / 2 + trio_below(delay);
    *lane->tail = l;
    lane->tail = &l->next;
    lane->count++;
    if (!sched_waits(&lane->event))
        sched_at(&lane->event, lane->head->at_ns);
}

static void send_close(struct trio_stream *s)
{
    struct sender *p = &s->send;
    if (p->gateway != NULL)
        batch_memory_deinit(&p->memory);
    gateway_free(p->gateway);
    p->gateway = NULL;
    mem_free(p->hello);
    p->hello = NULL;
    p->open = false;
}

static void take_close(struct trio_stream *s)
{
    struct taker *t = &s->take;
    uint64_t rest = s->link->healed ? NS_PER_SEC / 10 : NS_PER_SEC;
    if (!t->open)
        return;
    if (receiver_is_applying(&t->core))
        receiver_failed(&t->core);
    receiver_end(&t->core);
    mem_free(t->items);
    t->items = NULL;
    t->open = false;
    t->retry_ns = sched->now_ns + rest / 10 + trio_below(rest);
}

/* Both ends see it at once. */
static void connection_break(struct trio_stream *s)
{
    lane_clear(&s->forth);
    lane_clear(&s->back);
    send_close(s);
    take_close(s);
}

/* ---- the one that sends ---- */

static bool start_is_possible(struct trio_stream *s, struct shard *const *at)
{
    const struct msg_hello *h = s->send.hello;
    for (unsigned i = 0; i < s->from->shard_count; i++) {
        struct vv mine;
        shard_durable_vv(at[i], &mine);
        if (h->next[i] > shard_committed(at[i]) + 1 ||
            vv_get(&h->vvs[i], s->from->site) > vv_get(&mine, s->from->site))
            trio_fail(s->from, "P2", "site %u has more of shard %u than this site has",
                      s->to->number, i);
        if (h->next[i] < log_first(shard_log(at[i])) &&
            (h->next[i] > 0 || log_first(shard_log(at[i])) > 1))
            trio_fail(s->from, "P2", "record %llu of shard %u, which site %u needs, is gone",
                      (unsigned long long)h->next[i], i, s->to->number);
    }
    return trio_good(s->from);
}

static void send_begin(struct trio_stream *s)
{
    struct sender *p = &s->send;
    struct shard *at[TRIO_SHARDS_MAX];
    uint64_t next[TRIO_SHARDS_MAX];
    if (p->hello == NULL || !leaders(s->from, at) || !start_is_possible(s, at))
        return;
    for (unsigned i = 0; i < s->from->shard_count; i++) {
        next[i] = MAX(p->hello->next[i], 1u);
        p->acked_next[i] = MAX(p->acked_next[i], p->hello->next[i]);
    }
    p->gateway = gateway_new(s->from->shard_count, s->to->site, next, p->hello->vvs);
    batch_memory_init(&p->memory, s->from->shard_count);
    mem_free(p->hello);
    p->hello = NULL;
    sched_note("stream", s->from->number, s->to->number);
}

static bool feed_take(void *ctx, const struct feed_item *item)
{
    gateway_add(ctx, item);
    return true;
}

/* False: not now. */
static bool lanes_fill(struct trio_stream *s, struct shard *const *at)
{
    shard_id_t shard;
    uint64_t from, next;
    while (gateway_wants(s->send.gateway, &shard, &from)) {
        int rc = feed_read(shard_log(at[shard]), shard, from, shard_committed(at[shard]),
                           GATEWAY_READ_BYTES, feed_take, s->send.gateway, &next);
        if (rc != 0) {
            trio_fail(s->from, "P2", "record %llu of shard %u cannot be read: %s",
                      (unsigned long long)from, shard, err_name(rc));
            return false;
        }
        gateway_read_done(s->send.gateway, shard, next);
        if (next == from)
            return false;
    }
    return true;
}

static void state_see(struct trio_stream *s, struct shard *const *at)
{
    struct feed_state f = {.shard_count = s->from->shard_count, .safe_hlc = UINT64_MAX};
    for (unsigned i = 0; i < f.shard_count; i++) {
        f.durable[i] = shard_committed(at[i]);
        f.first[i] = log_first(shard_log(at[i]));
        f.safe_hlc = MIN(f.safe_hlc, shard_promise(at[i]));
    }
    gateway_see_state(s->send.gateway, &f);
}

static bool batch_send(struct trio_stream *s, struct shard *const *at, bool flush)
{
    struct batch b;
    struct buf bytes = {0}, noise = {0};
    bool filled = lanes_fill(s, at);
    if (!trio_good(s->from) || (!filled && !flush) || !gateway_batch(s->send.gateway, flush, &b))
        return false;
    batch_encode(&s->send.memory, &b, &bytes, &noise);
    sched_note("batch", (uint64_t)s->from->number << 8 | s->to->number, b.count);
    lane_push(&s->forth, BATCH, &bytes, &noise);
    return true;
}

static void send_pump(struct trio_stream *s)
{
    struct sender *p = &s->send;
    struct shard *at[TRIO_SHARDS_MAX];
    if (p->gateway == NULL || !leaders(s->from, at))
        return;
    state_see(s, at);
    for (unsigned i = 0; i < s->from->shard_count; i++)
        if (p->acked_next[i] > 1)
            shard_peer_acked(at[i], s->to->site, p->acked_next[i] - 1);
    while (s->forth.count < UNDER_WAY_MAX && batch_send(s, at, false))
        continue;
    if (sched->now_ns - p->beat_ns < BEAT_NS)
        return;
    p->beat_ns = sched->now_ns;
    if (s->forth.count < UNDER_WAY_MAX)
        (void)batch_send(s, at, true);
    lane_push(&s->forth, BEAT, NULL, NULL);
}

static void on_hello(struct trio_stream *s, const struct letter *l)
{
    struct sender *p = &s->send;
    send_close(s);
    if (!place_find(s->from, &p->place))
        return; /* nobody is there */
    p->hello = mem_calloc(1, sizeof *p->hello);
    p->open = true;
    p->heard_ns = sched->now_ns;
    int rc = msg_hello_decode(buf_slice(&l->bytes), p->hello);
    if (rc != 0)
        trio_fail(s->from, "P9", "a hello cannot be read: %s", err_name(rc));
    else
        send_begin(s);
}

static void on_ack(struct trio_stream *s, const struct letter *l)
{
    struct sender *p = &s->send;
    struct msg_ack a = {0};
    if (p->gateway == NULL)
        return;
    int rc = msg_ack_decode(buf_slice(&l->bytes), s->from->shard_count, &a);
    for (uint32_t i = 0; i < a.next_count && rc == 0; i++)
        p->acked_next[a.next[i].shard] = MAX(p->acked_next[a.next[i].shard], a.next[i].next);
    for (uint32_t i = 0; i < a.seq_count && rc == 0; i++)
        rc = gateway_see_have(p->gateway, a.seqs[i].shard, a.seqs[i].site, a.seqs[i].seq);
    if (rc != 0)
        trio_fail(s->from, "P9", "an acknowledgement is refused: %s", err_name(rc));
    p->heard_ns = sched->now_ns;
    msg_ack_deinit(&a);
}

/* ---- the one that receives ---- */

static void hello_send(struct trio_stream *s, const uint64_t *next, const struct vv *vvs)
{
    struct msg_hello *h = mem_calloc(1, sizeof *h);
    struct buf b = {0};
    h->version = WAN_VERSION;
    h->site = s->to->site;
    h->shard_count = s->to->shard_count;
    memcpy(h->next, next, h->shard_count * sizeof h->next[0]);
    memcpy(h->vvs, vvs, h->shard_count * sizeof h->vvs[0]);
    msg_hello_encode(h, &b);
    lane_push(&s->back, HELLO, &b, NULL);
    mem_free(h);
}

static void where(struct trio_stream *s, struct shard *const *at, uint64_t *next, struct vv *vvs)
{
    for (unsigned i = 0; i < s->to->shard_count; i++) {
        next[i] = shard_cursor(at[i], s->from->site); /* first: what it covers is in the vector */
        shard_durable_vv(at[i], &vvs[i]);
    }
}

static void take_begin(struct trio_stream *s)
{
    struct taker *t = &s->take;
    struct shard *at[TRIO_SHARDS_MAX];
    uint64_t next[TRIO_SHARDS_MAX];
    struct vv vvs[TRIO_SHARDS_MAX];
    if (sched->now_ns < t->retry_ns || !place_find(s->to, &t->place) || !leaders(s->to, at))
        return;
    connection_break(s);
    where(s, at, next, vvs);
    for (unsigned i = 0; i < s->to->shard_count; i++)
        t->epochs[i] = shard_epoch(at[i]);
    receiver_begin(&t->core, next, vvs);
    t->open = true;
    t->heard_ns = t->told_ns = sched->now_ns;
    hello_send(s, next, vvs);
}

static uint64_t stamp(void *ctx)
{
    const struct trio_stream *s = ctx;
    struct trio *w = s->to;
    struct hlc all = {0};
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (w->nodes[i].loop != NULL)
            hlc_see(&all, w->nodes[i].hlc.last);
    return hlc_next(&all, wall_ns(w, &s->take.place));
}

static void work_begin(struct trio_stream *s, const struct batch *b)
{
    struct taker *t = &s->take;
    t->items = mem_calloc(MAX(b->count, 1u), sizeof t->items[0]);
    for (uint32_t i = 0; i < b->count; i++)
        t->items[i] = (struct apply_item){.shard = b->items[i].shard, .op = b->items[i].op};
    t->work = (struct intake_batch){
        .peer = s->from->site, .items = t->items, .count = b->count, .cursor = b->cursor};
}

/* 0: it is done. */
static int work_on(struct trio_stream *s)
{
    struct taker *t = &s->take;
    struct shard *at[TRIO_SHARDS_MAX];
    struct err_detail d = {{0}};
    if (!leaders(s->to, at))
        return ERR_AGAIN;
    struct intake_site site = {.shards = at,
                               .shard_count = s->to->shard_count,
                               .site = s->to->site,
                               .stamp = stamp,
                               .ctx = s,
                               .epochs = t->epochs};
    int rc = intake(&site, &t->work, &d);
    if (rc == ERR_MALFORMED || rc == ERR_TRUNCATED)
        trio_fail(s->to, "P9", "%s", d.text);
    if (rc == 0) {
        receiver_applied(&t->core);
        mem_free(t->items);
        t->items = NULL;
    }
    return rc;
}

static void take_apply(struct trio_stream *s)
{
    struct taker *t = &s->take;
    int rc = 0;
    while (rc == 0 && trio_good(s->to)) {
        if (!receiver_is_applying(&t->core)) {
            const struct receiver_slot *slot = receiver_next(&t->core, wall_ns(s->to, &t->place));
            if (slot == NULL)
                return;
            work_begin(s, &slot->decoded.batch);
        }
        rc = work_on(s);
    }
    if (rc != ERR_AGAIN && rc != 0)
        take_close(s);
}

static void take_tell(struct trio_stream *s)
{
    struct taker *t = &s->take;
    struct shard *at[TRIO_SHARDS_MAX];
    uint64_t next[TRIO_SHARDS_MAX];
    struct vv vvs[TRIO_SHARDS_MAX];
    struct buf b = {0};
    if (!leaders(s->to, at))
        return;
    where(s, at, next, vvs);
    receiver_durable(&t->core, next, vvs);
    if (!receiver_owes_ack(&t->core) && sched->now_ns - t->told_ns < BEAT_NS)
        return;
    t->told_ns = sched->now_ns;
    receiver_ack(&t->core, wall_ns(s->to, &t->place), 0, &b);
    lane_push(&s->back, ACK, &b, NULL);
}

static void on_batch(struct trio_stream *s, const struct letter *l)
{
    struct taker *t = &s->take;
    int rc = receiver_batch(&t->core, buf_slice(&l->bytes), buf_slice(&l->noise));
    if (rc != 0)
        trio_fail(s->to, "P9", "a batch cannot be read: %s", err_name(rc));
    else
        take_apply(s);
}

/* ---- what arrives ---- */

static void arrives(struct trio_stream *s, const struct letter *l)
{
    if (l->kind == HELLO)
        on_hello(s, l);
    else if (l->kind == ACK)
        on_ack(s, l);
    else if (l->kind == END)
        connection_break(s);
    else if (s->take.open)
        s->take.heard_ns = sched->now_ns;
    if (l->kind == BATCH && s->take.open)
        on_batch(s, l);
}

static void lane_run(struct sched_event *e)
{
    struct lane *lane = CONTAINER_OF(e, struct lane, event);
    struct trio_stream *s = lane->stream;
    /* Sent again, until the line is there; and while the one that receives is busy. */
    bool waits = s->link->cut[lane->from][lane->to];
    if (lane == &s->forth && s->take.open && lane->head->kind == BATCH)
        waits = waits || !receiver_has_room(&s->take.core);
    if (waits) {
        sched_in(e, 20 * NS_PER_MS + trio_below(100 * NS_PER_MS));
        return;
    }
    struct letter *l = lane_pop(lane);
    if (lane->head != NULL)
        sched_at(e, MAX(lane->head->at_ns, sched->now_ns));
    arrives(s, l);
    letter_free(l);
}

static void
end_is_gone(struct trio_stream *s, struct lane *lane, void (*close)(struct trio_stream *s))
{
    close(s);
    if (trio_below(2) == 0) /* else the machine went with it */
        lane_push(lane, END, NULL, NULL);
}

static void tick_run(struct sched_event *e)
{
    struct trio_stream *s = CONTAINER_OF(e, struct trio_stream, tick);
    struct sender *p = &s->send;
    struct taker *t = &s->take;
    sched_in(e, TICK_NS);
    if (p->open && !place_holds(s->from, &p->place))
        end_is_gone(s, &s->forth, send_close);
    if (t->open && !place_holds(s->to, &t->place))
        end_is_gone(s, &s->back, take_close);
    if (p->open && sched->now_ns - p->heard_ns > SILENCE_NS)
        send_close(s);
    if (t->open && sched->now_ns - t->heard_ns > SILENCE_NS)
        take_close(s);
    if (!t->open)
        take_begin(s);
    if (p->open)
        send_begin(s);
    send_pump(s);
    if (t->open)
        take_apply(s);
    if (t->open)
        take_tell(s);
}

/* ---- faults ---- */

static void heal_run(struct sched_event *e)
{
    struct trio_link *link = CONTAINER_OF(e, struct trio_link, heal);
    memset(link->cut, 0, sizeof link->cut);
}

static void cut_some(struct trio_link *link)
{
    unsigned a = (unsigned)trio_below(link->all->site_count), kind = (unsigned)trio_below(4);
    unsigned b = (a + 1 + (unsigned)trio_below(link->all->site_count - 1)) % link->all->site_count;
    for (unsigned i = 0; i < link->all->site_count; i++)
        if (i != a && (kind == 0 || i == b)) {
            link->cut[a][i] = kind != 1;
            link->cut[i][a] = kind != 2;
        }
    sched_note("cut between sites", a << 8 | b, kind);
    sched_in(&link->heal, trio_below(CUT_NS));
}

static void fault_run(struct sched_event *e)
{
    struct trio_link *link = CONTAINER_OF(e, struct trio_link, fault);
    sched_in(e, trio_below(FAULT_NS));
    if (!trio_faults(link->all))
        return;
    if (trio_below(3) > 0)
        cut_some(link);
    else
        connection_break(&link->streams[trio_below(link->count)]);
}

void trio_link_begin_faults(struct trio_world *all)
{
    if (all->options->faults)
        sched_in(&all->link->fault, trio_below(FAULT_NS));
}

void trio_link_heal(struct trio_world *all)
{
    all->link->healed = true;
    sched_cancel(&all->link->fault);
    sched_cancel(&all->link->heal);
    for (unsigned i = 0; i < TRIO_SITES_MAX; i++)
        for (unsigned k = 0; k < TRIO_SITES_MAX; k++)
            all->link->cut[i][k] = i == all->out || k == all->out;
}

/* ---- beginning and ending ---- */

static const char *
site_unsettled(struct trio *w, struct shard *const *first, struct shard *const *at)
{
    for (unsigned i = 0; i < w->shard_count; i++) {
        struct vv all, applied, durable;
        merge_vv(shard_merge(first[i]), &all);
        merge_vv(shard_merge(at[i]), &applied);
        shard_durable_vv(at[i], &durable);
        if (merge_owes(shard_merge(at[i])) && w->all->out == TRIO_SITES_MAX)
            return "a repair is owed"; /* else it may be owed by who is left out */
        for (unsigned k = 0; k < w->all->site_count; k++) {
            site_id_t site = w->all->sites[k]->site;
            if (vv_get(&applied, site) != vv_get(&all, site))
                return "a site lacks operations of another one";
            if (vv_get(&durable, site) != vv_get(&applied, site))
                return "a site does not know what it has";
        }
    }
    return NULL;
}

const char *trio_link_unsettled(struct trio_world *all)
{
    struct shard *first[TRIO_SHARDS_MAX], *at[TRIO_SHARDS_MAX];
    const char *why = leaders(all->sites[all->out == 0], first) ? NULL : "nobody leads";
    for (unsigned i = 0; i < all->site_count && why == NULL; i++)
        if (i != all->out)
            why = leaders(all->sites[i], at) ? site_unsettled(all->sites[i], first, at)
                                             : "nobody leads";
    for (unsigned i = 0; i < all->link->count && why == NULL; i++)
        if (all->link->streams[i].take.open && all->link->streams[i].from->number != all->out &&
            all->link->streams[i].to->number != all->out &&
            receiver_is_applying(&all->link->streams[i].take.core))
            why = "a batch is being applied";
    return why;
}

static void lane_init(struct lane *lane, struct trio_stream *s, unsigned from, unsigned to)
{
    *lane = (struct lane){.stream = s, .from = from, .to = to, .tail = &lane->head};
    lane->event.run = lane_run;
}

static void stream_init(struct trio_link *link, unsigned from, unsigned to)
{
    struct trio_stream *s = &link->streams[link->count++];
    s->link = link;
    s->from = link->all->sites[from];
    s->to = link->all->sites[to];
    lane_init(&s->forth, s, from, to);
    lane_init(&s->back, s, to, from);
    receiver_init(&s->take.core, s->to->shard_count, s->to->site, s->from->site, 0);
    s->tick.run = tick_run;
    sched_in(&s->tick, trio_below(TICK_NS));
}

void trio_link_init(struct trio_world *all)
{
    struct trio_link *link = mem_calloc(1, sizeof *link);
    all->link = link;
    link->all = all;
    link->delay_ns = NS_PER_MS + trio_below(80 * NS_PER_MS);
    link->fault.run = fault_run;
    link->heal.run = heal_run;
    for (unsigned i = 0; i < all->site_count; i++)
        for (unsigned k = 0; k < all->site_count; k++)
            if (i != k)
                stream_init(link, i, k);
}

void trio_link_deinit(struct trio_world *all)
{
    struct trio_link *link = all->link;
    for (unsigned i = 0; link != NULL && i < link->count; i++) {
        struct trio_stream *s = &link->streams[i];
        connection_break(s);
        receiver_deinit(&s->take.core);
    }
}
