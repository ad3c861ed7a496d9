/* Clients: one call after the other, each until it is answered, whoever leads by then. See trio.h.
 *
 * Normal path: draw a call, evaluate it where its shards are led, propose it at its home, wait for
 * the answer, look until it shows. Failure path: the leader steps down or dies: the client does not
 * know what became of the call; it asks the next leader for the result of its number, and only if
 * there is none evaluates and proposes it again. */
#include "base/assert.h"
#include "sim/trio_int.h"

#define AGAIN_NS (20 * NS_PER_MS)
#define POWER_ONE_IN 300u /* of the answers */

static void again(struct trio_client *c)
{
    sched_in(&c->event, AGAIN_NS / 2 + trio_below(AGAIN_NS));
}

static void answered(struct trio_client *c)
{
    struct trio *w = c->world;
    sched_note("answered", c->session << 8 | c->call, c->number);
    trio_model_answered(c);
    w->answered++;
    w->changed++;
    c->phase = TRIO_ANSWERED;
    trio_check_answered(c);
    sched_in(&c->event, 0);
    /* The worst moment for power to go: somebody has just been told. */
    if (w->all->options->faults && !w->healed && trio_below(POWER_ONE_IN) == 0 &&
        trio_faults(w->all))
        sched_in(&w->power, 0);
}

static void committed(void *ctx, int rc)
{
    struct trio_client *c = ctx;
    struct trio *w = c->world;
    struct trio_node *n = &w->nodes[c->node];
    if (n->end.mute || n->end.start != c->start)
        return;
    ASSERT(c->phase == TRIO_PROPOSED);
    trio_check_committed(n, c->home);
    if (rc != 0) {
        c->phase = TRIO_EVALUATE;
        again(c);
        return;
    }
    answered(c);
}

static void stamped(struct trio_client *c, const struct op *op)
{
    struct trio_shard *s = &c->world->shards[c->home];
    if (op->stamp.hlc <= s->promised)
        trio_fail(c->world, "P7", "shard %u stamps below what was promised", c->home);
}

static void propose(struct trio_client *c, struct shard *s, unsigned node, struct op_builder *b)
{
    struct trio_node *n = &c->world->nodes[node];
    struct proposal p = {.session = c->session,
                         .number = c->number,
                         .result = c->oid,
                         .committed = committed,
                         .ctx = c};
    struct op op;
    c->node = node;
    c->start = n->end.start;
    c->phase = TRIO_PROPOSED;
    c->tried = true;
    shard_results_acked(s, c->session, c->number - 1);
    int rc = shard_propose(s, b, &p, &op);
    sched_note("propose", (uint64_t)c->call << 8 | node, (uint64_t)-rc);
    if (rc == 0) {
        stamped(c, &op);
        return;
    }
    c->phase = TRIO_EVALUATE;
    again(c);
}

static void evaluate(struct trio_client *c)
{
    struct op_builder b = {0};
    struct oid oid;
    int32_t result;
    unsigned node;
    c->home = (shard_id_t)trio_home_of(c);
    struct shard *s = trio_leader(c->world, c->home, &node);
    if (s == NULL) {
        again(c);
        return;
    }
    if (c->tried && shard_result(s, c->session, c->number, &result, &oid)) {
        c->oid = oid;
        answered(c);
        return;
    }
    uint64_t hlc;
    op_builder_init(&b);
    int rc = trio_build(c, &b, &hlc);
    if (rc == 0)
        hlc_see(&c->world->nodes[node].hlc, hlc);
    if (rc == 0)
        propose(c, s, node, &b);
    else
        again(c);
    op_builder_deinit(&b);
}

static void read_some(struct trio *w)
{
    unsigned shard = (unsigned)trio_below(w->shard_count), node;
    struct shard *s = trio_leader(w, shard, &node);
    trio_check_one(w, trio_below(2) == 0, (unsigned)trio_below(TRIO_FILES));
    w->answered++;
    if (s == NULL)
        return;
    struct trio_node *n = &w->nodes[node];
    uint64_t stamp = hlc_next(&n->hlc, clock_wall_ns(&n->clock));
    uint64_t promise = replica_promise(shard_replica(s), stamp);
    w->shards[shard].promised = MAX(w->shards[shard].promised, promise);
}

static void begin(struct trio_client *c)
{
    struct trio *w = c->world;
    if (w->closing)
        return;
    if (w->resting) {
        sched_in(&c->event, TRIO_REST_NS);
        return;
    }
    sched_in(&c->event, trio_below(2 * w->client_pause_ns + 1));
    if (trio_below(3) == 0) {
        read_some(w);
        return;
    }
    if (!trio_model_draw(c))
        return;
    c->number++;
    c->tried = false;
    c->content = ++w->contents;
    c->phase = TRIO_EVALUATE;
    sched_in(&c->event, 0);
}

static void client_run(struct sched_event *e)
{
    struct trio_client *c = CONTAINER_OF(e, struct trio_client, event);
    switch (c->phase) {
    case TRIO_IDLE:
        begin(c);
        return;
    case TRIO_EVALUATE:
        evaluate(c);
        return;
    case TRIO_PROPOSED:
        return;
    case TRIO_ANSWERED:
        if (!trio_shows(c)) {
            again(c);
            return;
        }
        trio_model_done(c);
        c->phase = TRIO_IDLE;
        sched_in(&c->event, trio_below(2 * c->world->client_pause_ns + 1));
        return;
    }
}

void trio_clients_dropped(struct trio_node *n)
{
    for (unsigned i = 0; i < TRIO_CLIENTS; i++) {
        struct trio_client *c = &n->world->clients[i];
        if (c->phase == TRIO_PROPOSED && c->node == n->number) {
            c->phase = TRIO_EVALUATE;
            again(c);
        }
    }
}

bool trio_clients_idle(const struct trio *w)
{
    for (unsigned i = 0; i < TRIO_CLIENTS; i++)
        if (w->clients[i].phase != TRIO_IDLE)
            return false;
    return true;
}

void trio_clients_init(struct trio *w)
{
    for (unsigned i = 0; i < TRIO_CLIENTS; i++) {
        struct trio_client *c = &w->clients[i];
        c->world = w;
        c->session = i + 1;
        c->event.run = client_run;
        sched_in(&c->event, trio_below(NS_PER_SEC));
    }
}
