/* `wait`: everything that was durable here when it was called is durable at every reachable peer,
 * and the other way round.
 *
 * A round: our vectors when all that was caused here has been carried out (node_settled); then from
 * each peer a vector that covers its site in the same way (a probe on our stream from it). The peer
 * is in step when it has acknowledged ours and we have applied its. The first probe may have passed
 * what the peer owes for our news, so a second round follows; and as long as what came in a round
 * has changed our vectors another one, for what we owe for that.
 *
 * A peer counts as out of reach when an attempt to connect that began after the call has failed, or
 * nothing came of it in UNREACHABLE_NS; attempts are begun at once. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "wan/wan_int.h"

#define ROUNDS_MAX 8u                              /* under a steady load there is always news */
#define UNREACHABLE_NS (7 * NS_PER_SEC)            /* a dead link is noticed after 5 s */
#define COMES_NS (BACKOFF_MAX_NS + 2 * NS_PER_SEC) /* a peer that only dials out may be waiting */

enum wait_peer_state {
    WAIT_LINK, /* no stream yet */
    WAIT_STEP, /* one side is behind */
    WAIT_IN_STEP,
    WAIT_UNREACHABLE,
    WAIT_SKIPPED /* paused, removed, or in trouble that waiting does not cure */
};
struct wait_peer {
    struct wan_peer *peer;
    enum wait_peer_state state;
    uint64_t failures_before;  /* failed dials when the wait began */
    uint64_t probe_id;         /* of this round; 0: to be sent */
    uint64_t probe_generation; /* of the stream it was sent on */
    struct vv *theirs;         /* the probe's answer, by shard, or NULL */
    uint64_t missing_there, missing_here;
};
struct wan_waiter {
    struct wan *wan;
    struct wan_waiter *next;
    struct wan_admin_req *req;
    uint64_t began_ns, deadline_ns;
    uint32_t round;  /* how many have begun */
    bool asking;     /* our vectors are on their way */
    struct vv *ours; /* of this round, by shard */
    uint32_t count;
    struct wait_peer at[SITE_COUNT_MAX];
};

static void round_begin(struct wan_waiter *v);

static void waiter_free(struct wan_waiter *v)
{
    struct wan_waiter **at = &v->wan->waiters;
    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    for (uint32_t i = 0; i < v->count; i++)
        mem_free(v->at[i].theirs);
    mem_free(v->ours);
    mem_free(v);
}

void wan_wait_free(struct wan *w)
{
    while (w->waiters != NULL) {
        wan_admin_req_drop(w->waiters->req);
        waiter_free(w->waiters);
    }
}

/* --- the answer --- */

static const char *state_text(const struct wait_peer *q)
{
    switch (q->state) {
    case WAIT_IN_STEP:
        return "in_step";
    case WAIT_SKIPPED:
        return wan_peer_state(q->peer);
    case WAIT_UNREACHABLE:
        return "unreachable";
    case WAIT_LINK:
    case WAIT_STEP:
        return "behind";
    }
    UNREACHABLE();
}

static void waiter_done(struct wan_waiter *v)
{
    json_t *list = json_array(), *o;
    for (uint32_t i = 0; i < v->count; i++) {
        o = json_pack("{s:s, s:s}", "peer", v->at[i].peer->member.name, "state",
                      state_text(&v->at[i]));
        int rc = json_array_append_new(list, o);
        ASSERT(rc == 0);
    }
    o = json_pack("{s:b, s:o}", "in_step", 1, "peers", list);
    char *text = json_dumps(o, JSON_COMPACT);
    ASSERT(text != NULL);
    wan_admin_reply(v->req, 0, text);
    free(text); /* lint-allow(memory): jansson made it */
    json_decref(o);
    waiter_free(v);
}

static void waiter_timeout(struct wan_waiter *v)
{
    char text[900] = "not in step in time:";
    for (uint32_t i = 0; i < v->count; i++) {
        const struct wait_peer *q = &v->at[i];
        size_t len = strlen(text);
        if (q->state == WAIT_LINK)
            (void)snprintf(text + len, sizeof text - len, " %s is not connected (%s);",
                           q->peer->member.name, q->peer->trouble_text); /* cut if need be */
        else if (q->state == WAIT_STEP && q->theirs == NULL)
            (void)snprintf(text + len, sizeof text - len,
                           " %s misses %llu operations and has not said how many we miss;",
                           q->peer->member.name,
                           (unsigned long long)q->missing_there); /* cut if need be */
        else if (q->state == WAIT_STEP)
            (void)snprintf(text + len, sizeof text - len,
                           " %s misses %llu operations and we miss %llu of its;",
                           q->peer->member.name, (unsigned long long)q->missing_there,
                           (unsigned long long)q->missing_here); /* cut if need be */
    }
    wan_admin_reply(v->req, ERR_TIMEOUT, text);
    waiter_free(v);
}

static void waiter_fail(struct wan_waiter *v, int rc, const char *text)
{
    wan_admin_reply(v->req, rc, text);
    waiter_free(v);
}

/* --- how far --- */

/* Operations that `need` has and `have` lacks; those of `but` do not count. */
static uint64_t
missing(const struct vv *have, const struct vv *need, unsigned shard_count, site_id_t but)
{
    uint64_t count = 0;
    for (unsigned s = 0; s < shard_count; s++) {
        for (uint32_t i = 0; i < need[s].count; i++) {
            site_id_t site = need[s].at[i].site;
            uint64_t got = vv_get(&have[s], site);
            if (site != but && need[s].at[i].seq > got)
                count += need[s].at[i].seq - got;
        }
    }
    return count;
}

static bool is_hopeless(const struct wan_peer *p)
{
    return p->gone || p->paused || p->trouble == TROUBLE_PAUSED || p->trouble == TROUBLE_REFUSED ||
           p->trouble == TROUBLE_ROLLBACK || p->trouble == TROUBLE_SNAPSHOT;
}

static bool has_links(const struct wan_peer *p)
{
    return p->recv.state == RECV_RUNNING && p->send != NULL && p->send->state == SEND_RUNNING;
}

static bool is_unreachable(const struct wan_waiter *v, const struct wait_peer *q, uint64_t now_ns)
{
    const struct wan_peer *p = q->peer;
    if (p->member.wan[0] == '\0' && v->wan->address[0] == '\0')
        return true; /* neither can dial the other: what passes goes through a third site */
    uint64_t patience_ns = p->member.wan[0] != '\0' ? UNREACHABLE_NS : COMES_NS;
    if (now_ns - v->began_ns > patience_ns)
        return true;
    return p->member.wan[0] != '\0' && p->dials_failed > q->failures_before && p->conn == NULL &&
           p->send == NULL;
}

static void peer_look(struct wan_waiter *v, struct wait_peer *q, uint64_t now_ns)
{
    struct wan *w = v->wan;
    struct wan_peer *p = q->peer;
    if (!has_links(p)) {
        if (is_hopeless(p))
            q->state = WAIT_SKIPPED;
        else if (q->state != WAIT_UNREACHABLE)
            q->state = is_unreachable(v, q, now_ns) ? WAIT_UNREACHABLE : WAIT_LINK;
        return;
    }
    if (q->probe_id == 0 || (q->theirs == NULL && q->probe_generation != p->recv.generation)) {
        q->probe_id = wan_recv_probe(p);
        q->probe_generation = p->recv.generation;
    }
    q->missing_there = missing(p->have, v->ours, w->me.shard_count, p->member.site);
    q->missing_here =
        q->theirs == NULL ? 0 : missing(w->vvs, q->theirs, w->me.shard_count, w->me.site);
    bool step = q->missing_there == 0 && q->theirs != NULL && q->missing_here == 0;
    q->state = step ? WAIT_IN_STEP : WAIT_STEP;
}

static void waiter_check(struct wan_waiter *v)
{
    struct wan *w = v->wan;
    uint64_t now_ns = wan_now_ns(w);
    bool all = true;
    if (w->rolled_back) {
        waiter_fail(v, ERR_ROLLBACK, w->rolled_back_text);
        return;
    }
    for (uint32_t i = 0; i < v->count && !v->asking; i++) {
        peer_look(v, &v->at[i], now_ns);
        all = all && v->at[i].state != WAIT_LINK && v->at[i].state != WAIT_STEP;
    }
    if (!v->asking && all)
        round_begin(v);
    else if (now_ns >= v->deadline_ns)
        waiter_timeout(v);
    else
        wan_pull(w);
}

void wan_wait_check(struct wan *w)
{
    for (struct wan_waiter *v = w->waiters, *next; v != NULL; v = next) {
        next = v->next;
        waiter_check(v);
    }
}

void wan_wait_probe_reply(struct wan_peer *p, uint64_t id, const struct vv *vvs)
{
    for (struct wan_waiter *v = p->wan->waiters; v != NULL; v = v->next) {
        for (uint32_t i = 0; i < v->count; i++) {
            struct wait_peer *q = &v->at[i];
            if (q->peer != p || q->probe_id != id)
                continue;
            mem_free(q->theirs);
            q->theirs = mem_dup(vvs, p->wan->me.shard_count * sizeof vvs[0]);
        }
    }
    wan_pull(p->wan); /* its end looks at all that wait */
}

/* --- rounds --- */

struct ours_call {
    struct wan_call call;
    struct node_settle_wait settled;
    struct wan_waiter *waiter; /* compared with the list before it is believed */
    struct vv *vvs;
};

static void ours_settled(struct node_settle_wait *w)
{
    struct ours_call *c = CONTAINER_OF(w, struct ours_call, settled);
    node_vvs(c->call.wan->node, c->vvs);
    wan_call_return(&c->call);
}

static void ours_on_loop(struct wan_call *call)
{
    struct ours_call *c = CONTAINER_OF(call, struct ours_call, call);
    c->settled.run = ours_settled;
    node_settled(call->wan->node, &c->settled);
}

static void ours_release(struct wan_call *call)
{
    mem_free(CONTAINER_OF(call, struct ours_call, call)->vvs);
}

static void ours_known(struct wan_call *call)
{
    struct ours_call *c = CONTAINER_OF(call, struct ours_call, call);
    struct wan *w = call->wan;
    struct wan_waiter *v = w->waiters;
    while (v != NULL && v != c->waiter)
        v = v->next;
    if (v == NULL || !v->asking)
        return;
    v->asking = false;
    bool news = missing(v->ours, c->vvs, w->me.shard_count, 0) > 0;
    if (v->round == ROUNDS_MAX || (v->round >= 2 && !news)) {
        waiter_done(v);
        return;
    }
    v->round++;
    memcpy(v->ours, c->vvs, w->me.shard_count * sizeof v->ours[0]);
    memcpy(w->vvs, c->vvs, w->me.shard_count * sizeof w->vvs[0]);
    for (uint32_t i = 0; i < v->count; i++) {
        v->at[i].probe_id = 0;
        mem_free(v->at[i].theirs);
        v->at[i].theirs = NULL;
    }
    waiter_check(v);
}

static void round_begin(struct wan_waiter *v)
{
    struct ours_call *c = mem_calloc(1, sizeof *c);
    v->asking = true;
    c->waiter = v;
    c->vvs = mem_calloc(SHARD_COUNT_MAX, sizeof c->vvs[0]);
    c->call.on_loop = ours_on_loop;
    c->call.done = ours_known;
    c->call.release = ours_release;
    wan_call_start(v->wan, &c->call);
}

void wan_wait_begin(struct wan *w, struct wan_admin_req *r, double timeout_s)
{
    if (w->boot != NULL) {
        wan_admin_reply(r, ERR_BUSY, "cannot wait: this site is still loading its first snapshot");
        return;
    }
    if (w->removed) {
        wan_admin_reply(r, ERR_NOT_PERMITTED, "cannot wait: this site was removed");
        return;
    }
    struct wan_waiter *v = mem_calloc(1, sizeof *v);
    v->wan = w;
    v->req = r;
    v->began_ns = wan_now_ns(w);
    v->deadline_ns = v->began_ns + (uint64_t)(timeout_s * (double)NS_PER_SEC);
    v->ours = mem_calloc(w->me.shard_count, sizeof v->ours[0]);
    for (struct wan_peer *p = w->peers; p != NULL && v->count < SITE_COUNT_MAX; p = p->next) {
        if (p->gone)
            continue;
        v->at[v->count++] = (struct wait_peer){.peer = p, .failures_before = p->dials_failed};
        wan_peer_kick(p);
    }
    v->next = w->waiters;
    w->waiters = v;
    round_begin(v);
}
