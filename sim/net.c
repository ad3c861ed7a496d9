/* Links, pipes, connections. See net.h. */
#include "sim/net.h"

#include <string.h>

#include "base/assert.h"

#define RETRY_NS (1000 * NS_PER_MS) /* of TCP, after a heal: at most */
#define QUEUE_BYTES ((uint64_t)MIB) /* of a link that does not say */

struct pipe {
    struct net_conn *conn;
    unsigned from, to; /* sites */
    struct net_msg *first, **last;
    uint64_t last_ns; /* arrival of the newest */
    struct sched_event event;
};
struct net_conn {
    struct pipe pipes[2]; /* of the dialling side, of the accepting side */
    struct net_end *ends[2];
    bool accepted, broken;
    struct net_conn *prev, *next;
};
struct link {
    struct world_link config;
    bool cut;
    uint64_t slow, free_ns;                    /* free_ns: when all that was sent has gone out */
    struct net_end *waits_first, **waits_last; /* for room in the queue */
    struct sched_event room;
    struct net_traffic traffic;
};
static struct {
    unsigned sites;
    struct link links[WORLD_SITES_MAX][WORLD_SITES_MAX];
    struct {
        net_accept_cb accept;
        void *ctx;
        bool off;
    } at[WORLD_SITES_MAX];
    struct net_conn *conns;
    bool quiet;
} net;

static void room_run(struct sched_event *e);

void net_init(const struct world_config *c)
{
    memset(&net, 0, sizeof net);
    net.sites = c->site_count;
    for (unsigned a = 0; a < c->site_count; a++)
        for (unsigned b = 0; b < c->site_count; b++) {
            struct link *l = &net.links[a][b];
            l->config = c->links[a][b];
            l->slow = 1;
            l->waits_last = &l->waits_first;
            l->room.run = room_run;
        }
}

static void pipe_drop(struct pipe *p)
{
    while (p->first != NULL) {
        struct net_msg *m = p->first;
        p->first = m->next;
        mem_free(m);
    }
    p->last = &p->first;
    sched_cancel(&p->event);
}

static void conn_free(struct net_conn *c)
{
    pipe_drop(&c->pipes[0]);
    pipe_drop(&c->pipes[1]);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        net.conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    mem_free(c);
}

void net_deinit(void)
{
    while (net.conns != NULL)
        conn_free(net.conns);
}

static bool passes(const struct pipe *p)
{
    const struct link *l = &net.links[p->from][p->to];
    return !l->config.absent && !l->cut && !net.at[p->to].off;
}

/* --- the queue --- */

static struct link *link_of(const struct net_end *e)
{
    const struct pipe *p = &e->conn->pipes[e->side];
    return &net.links[p->from][p->to];
}

static uint64_t queue_bytes(const struct link *l)
{
    return l->config.queue_bytes > 0 ? l->config.queue_bytes : QUEUE_BYTES;
}

/* What has not gone out yet. */
static uint64_t queued(const struct link *l)
{
    uint64_t ns = l->free_ns > sched->now_ns ? l->free_ns - sched->now_ns : 0;
    return ns * l->config.bytes_per_s / NS_PER_SEC;
}

size_t net_room(const struct net_end *e)
{
    if (e->conn == NULL || e->waits)
        return 0;
    const struct link *l = link_of(e);
    if (l->config.bytes_per_s == 0)
        return SIZE_MAX;
    return queue_bytes(l) - MIN(queued(l), queue_bytes(l));
}

/* When half of it is free. */
static void room_arm(struct link *l)
{
    uint64_t ns = queue_bytes(l) / 2 * NS_PER_SEC / l->config.bytes_per_s;
    sched_at(&l->room, l->free_ns > ns ? l->free_ns - ns : 0);
}

void net_wait(struct net_end *e)
{
    struct link *l = link_of(e);
    if (e->waits)
        return;
    ASSERT(l->config.bytes_per_s > 0);
    e->waits = true;
    e->waits_next = NULL;
    *l->waits_last = e;
    l->waits_last = &e->waits_next;
    l->traffic.waits++;
    if (!sched_waits(&l->room))
        room_arm(l);
}

static void wait_end(struct net_end *e)
{
    struct link *l = link_of(e);
    struct net_end **at = &l->waits_first;
    if (!e->waits)
        return;
    while (*at != e)
        at = &(*at)->waits_next;
    *at = e->waits_next;
    if (*at == NULL)
        l->waits_last = at;
    e->waits = false;
}

/* One after the other: what the first one sends is in the queue before the next is asked. */
static void room_run(struct sched_event *event)
{
    struct link *l = CONTAINER_OF(event, struct link, room);
    struct net_end *e = l->waits_first;
    if (e == NULL)
        return;
    if (queued(l) > queue_bytes(l) / 2) {
        room_arm(l);
        return;
    }
    wait_end(e);
    e->room(e);
    if (l->waits_first != NULL && !sched_waits(&l->room))
        sched_in(&l->room, 0);
}

/* --- connections --- */

/* Tells an end that the connection is over; it leaves by itself. */
static void conn_break(struct net_conn *c)
{
    c->broken = true;
    pipe_drop(&c->pipes[0]);
    pipe_drop(&c->pipes[1]);
    struct net_end *ends[2] = {c->ends[0], c->ends[1]};
    c->ends[0] = c->ends[1] = NULL;
    for (int i = 0; i < 2; i++)
        if (ends[i] != NULL)
            wait_end(ends[i]);
    for (int i = 0; i < 2; i++)
        if (ends[i] != NULL) {
            ends[i]->conn = NULL;
            ends[i]->broken(ends[i]);
        }
    conn_free(c);
}

static void pipe_deliver(struct sched_event *e)
{
    struct pipe *p = CONTAINER_OF(e, struct pipe, event);
    struct net_conn *c = p->conn;
    struct net_msg *m = p->first;
    unsigned to_side = p == &c->pipes[0] ? 1 : 0;
    if (!passes(p))
        return; /* net_cut() comes back here */
    p->first = m->next;
    if (p->first == NULL)
        p->last = &p->first;
    else
        sched_at(&p->event, p->first->arrives_ns);
    sched_note("packet", (uint64_t)p->from << 8 | p->to, m->bytes);
    if (to_side == 1 && !c->accepted) {
        c->accepted = true;
        if (net.at[p->to].accept == NULL) {
            mem_free(m);
            conn_break(c);
            return;
        }
        net.at[p->to].accept(net.at[p->to].ctx, c, m);
        return;
    }
    struct net_end *end = c->ends[to_side];
    if (end != NULL)
        end->deliver(end, m);
    else
        mem_free(m);
}

static uint64_t delay(struct link *l)
{
    const struct world_delay *d = &l->config.delay;
    uint64_t ns = d->base_ns;
    if (d->jitter_ns > 0)
        ns += rng_below(&sched->rng, d->jitter_ns);
    if (sched_chance(d->tail_per_million))
        ns += d->tail_ns;
    ns *= l->slow;
    if (!net.quiet && sched_chance(l->config.stall_per_million)) {
        ns += l->config.stall_ns;
        l->traffic.stalls++;
    }
    return ns;
}

static void pipe_put(struct pipe *p, struct net_msg *m)
{
    struct link *l = &net.links[p->from][p->to];
    uint64_t leaves = MAX(sched->now_ns, l->free_ns);
    if (l->config.bytes_per_s > 0)
        leaves += (uint64_t)m->bytes * NS_PER_SEC / l->config.bytes_per_s;
    l->free_ns = leaves;
    if (!l->config.absent) { /* whoever does not know tries all the same */
        l->traffic.bytes += m->bytes;
        l->traffic.writes++;
        l->traffic.queued_max = MAX(l->traffic.queued_max, queued(l));
    }
    m->arrives_ns = MAX(leaves + delay(l), p->last_ns);
    p->last_ns = m->arrives_ns;
    m->next = NULL;
    bool first = p->first == NULL;
    *p->last = m;
    p->last = &m->next;
    if (first)
        sched_at(&p->event, m->arrives_ns);
}

void net_dial(struct net_end *e, unsigned a, unsigned b, struct net_msg *first)
{
    struct net_conn *c = mem_calloc(1, sizeof *c);
    for (int i = 0; i < 2; i++) {
        c->pipes[i] = (struct pipe){.conn = c, .from = i == 0 ? a : b, .to = i == 0 ? b : a};
        c->pipes[i].last = &c->pipes[i].first;
        c->pipes[i].event.run = pipe_deliver;
    }
    c->next = net.conns;
    if (c->next != NULL)
        c->next->prev = c;
    net.conns = c;
    c->ends[0] = e;
    e->conn = c;
    e->side = 0;
    pipe_put(&c->pipes[0], first);
}

void net_listen(unsigned site, net_accept_cb cb, void *ctx)
{
    net.at[site].accept = cb;
    net.at[site].ctx = ctx;
}

void net_attach(struct net_conn *c, struct net_end *e)
{
    c->ends[1] = e;
    e->conn = c;
    e->side = 1;
}

unsigned net_peer(const struct net_end *e)
{
    return e->conn->pipes[e->side].to;
}

void net_send(struct net_end *e, struct net_msg *m)
{
    struct net_conn *c = e->conn;
    if (c == NULL) {
        mem_free(m);
        return;
    }
    struct pipe *p = &c->pipes[e->side];
    struct link *l = &net.links[p->from][p->to];
    pipe_put(p, m);
    if (!net.quiet && sched_chance(l->config.reset_per_million)) {
        l->traffic.resets++;
        sched_note("reset", p->from, p->to);
        conn_break(c);
    }
}

void net_leave(struct net_end *e, bool quiet)
{
    struct net_conn *c = e->conn;
    if (c == NULL)
        return;
    wait_end(e);
    e->conn = NULL;
    c->ends[e->side] = NULL;
    if (quiet) { /* what it had said is lost, too */
        pipe_drop(&c->pipes[0]);
        pipe_drop(&c->pipes[1]);
    }
    if (c->ends[0] == NULL && c->ends[1] == NULL && (quiet || c->pipes[e->side].first == NULL))
        conn_free(c);
}

/* --- faults --- */

static void pipes_wake(void)
{
    for (struct net_conn *c = net.conns; c != NULL; c = c->next)
        for (int i = 0; i < 2; i++) {
            struct pipe *p = &c->pipes[i];
            if (p->first == NULL || sched_waits(&p->event) || !passes(p))
                continue;
            sched_in(&p->event, rng_below(&sched->rng, RETRY_NS));
            p->last_ns = MAX(p->last_ns, p->event.at_ns);
            for (struct net_msg *m = p->first; m != NULL; m = m->next)
                m->arrives_ns = MAX(m->arrives_ns, p->event.at_ns);
        }
}

void net_cut(unsigned a, unsigned b, bool cut)
{
    net.links[a][b].cut = cut;
    if (!cut)
        pipes_wake();
}

bool net_is_cut(unsigned a, unsigned b)
{
    return net.links[a][b].cut || net.links[a][b].config.absent;
}

void net_slow(unsigned a, unsigned b, uint64_t factor)
{
    net.links[a][b].slow = MAX(factor, 1u);
}

void net_reset(unsigned a, unsigned b)
{
    for (struct net_conn *c = net.conns; c != NULL;) {
        const struct pipe *p = &c->pipes[0];
        if (!c->broken && ((p->from == a && p->to == b) || (p->from == b && p->to == a))) {
            conn_break(c);
            c = net.conns; /* callbacks may have changed the list */
        } else {
            c = c->next;
        }
    }
}

void net_power(unsigned site, bool on)
{
    net.at[site].off = !on;
    if (on)
        pipes_wake();
}

void net_quiet(bool quiet)
{
    net.quiet = quiet;
}

const struct net_traffic *net_traffic(unsigned a, unsigned b)
{
    return &net.links[a][b].traffic;
}
