/* The network of a site of several nodes, and its coordinator. See replicas.h. */
#include "base/assert.h"
#include "sim/replicas_int.h"

struct packet {
    struct sched_event event;
    struct packet *next, **at; /* of the world's list, and where in it this one hangs */
    struct replicas *world;
    unsigned from, to;
    uint8_t *bytes; /* a message between nodes; else: */
    size_t len;
    uint64_t start; /* of the node that asks: an answer to an earlier run is lost with it */
    uint64_t request;
    bool swap;
    int rc;
    struct shard_record record;
};

static uint64_t delay_draw(const struct replicas *w)
{
    if (!w->healed && sched_chance(w->late_per_million))
        return rng_below(&sched->rng, 8 * NS_PER_SEC);
    return w->delay_ns / 4 + rng_below(&sched->rng, w->delay_ns);
}

static bool is_lost(const struct replicas *w, unsigned from, unsigned to)
{
    return w->cut[from][to] || (!w->healed && sched_chance(w->loss_per_million));
}

static void packet_send(const struct packet *p, void (*run)(struct sched_event *e))
{
    if (is_lost(p->world, p->from, p->to)) {
        mem_free(p->bytes);
        return;
    }
    struct packet *copy = mem_dup(p, sizeof *p);
    copy->event = (struct sched_event){.run = run};
    copy->at = &p->world->packets;
    copy->next = *copy->at;
    if (copy->next != NULL)
        copy->next->at = &copy->next;
    *copy->at = copy;
    sched_in(&copy->event, delay_draw(p->world));
}

/* Its bytes are somebody else's by now. */
static void packet_free(struct packet *p)
{
    *p->at = p->next;
    if (p->next != NULL)
        p->next->at = p->at;
    mem_free(p);
}

void replicas_net_deinit(struct replicas *w)
{
    while (w->packets != NULL) {
        sched_cancel(&w->packets->event);
        mem_free(w->packets->bytes);
        packet_free(w->packets);
    }
}

static void message_arrives(struct sched_event *e)
{
    struct packet *p = CONTAINER_OF(e, struct packet, event);
    struct replicas_node *n = &p->world->nodes[p->to];
    sched_note("message", p->from << 8 | p->to, p->len);
    if (n->core != NULL)
        replicas_tell(n,
                      (struct replica_event){.kind = REPLICA_MESSAGE,
                                             .node = p->from + 1,
                                             .bytes = slice_of(p->bytes, p->len)},
                      p->bytes);
    else
        mem_free(p->bytes);
    packet_free(p);
}

void replicas_message(struct replicas *w, unsigned from, unsigned to, struct slice bytes)
{
    unsigned copies = !w->healed && sched_chance(w->repeat_per_million) ? 2 : 1;
    for (unsigned i = 0; i < copies; i++)
        packet_send(&(struct packet){.world = w,
                                     .from = from,
                                     .to = to,
                                     .bytes = mem_dup(bytes.ptr, bytes.len),
                                     .len = bytes.len},
                    message_arrives);
}

static void answer_arrives(struct sched_event *e)
{
    struct packet *p = CONTAINER_OF(e, struct packet, event);
    struct replicas_node *n = &p->world->nodes[p->to];
    sched_note("coordinator answers", p->to, p->record.version);
    if (n->core != NULL && n->start == p->start) {
        struct shard_record *record = mem_dup(&p->record, sizeof p->record);
        replicas_tell(n,
                      (struct replica_event){.kind = p->swap ? REPLICA_SWAPPED : REPLICA_RECORD,
                                             .request = p->request,
                                             .rc = p->rc,
                                             .record = record},
                      (uint8_t *)record);
    }
    packet_free(p);
}

/* The register does one thing after the other: that makes it linearizable. */
static void request_arrives(struct sched_event *e)
{
    struct packet *p = CONTAINER_OF(e, struct packet, event);
    struct shard_record *stored = &p->world->record;
    struct packet answer = *p;
    if (p->swap && p->record.version == stored->version) {
        *stored = p->record;
        stored->version++;
        sched_note("coordinator swaps", stored->primary, stored->epoch);
    } else if (p->swap) {
        answer.rc = ERR_STALE_BASE;
    }
    answer.record = *stored;
    answer.from = p->to;
    answer.to = p->from;
    packet_send(&answer, answer_arrives);
    packet_free(p);
}

void replicas_ask(struct replicas_node *n, const struct replica_effect *e)
{
    packet_send(&(struct packet){.world = n->world,
                                 .from = n->number,
                                 .to = REPLICAS_COORDINATOR,
                                 .start = n->start,
                                 .request = e->request,
                                 .swap = e->kind == REPLICA_SWAP,
                                 .record = e->record},
                request_arrives);
}
