/* How packets travel in a world: lost, late, repeated, reordered, cut off. See trio.h. */
#include "base/assert.h"
#include "sim/trio_int.h"

struct carrier {
    struct sched_event event;
    struct trio_packet *packet;
};

static struct trio *trio_of(const struct trio_packet *p)
{
    return CONTAINER_OF(p->net, struct trio, net);
}

static uint64_t delay_draw(const struct trio *w)
{
    if (!w->healed && sched_chance(w->late_per_million))
        return trio_below(8 * NS_PER_SEC);
    return w->delay_ns / 4 + trio_below(w->delay_ns);
}

static bool is_lost(const struct trio *w, unsigned from, unsigned to)
{
    return w->cut[from][to] || (!w->healed && sched_chance(w->loss_per_million));
}

static void arrives(struct sched_event *e)
{
    struct trio_packet *p = CONTAINER_OF(e, struct carrier, event)->packet;
    sched_note("word", (uint64_t)p->word << 16 | p->from << 8 | p->to, p->len);
    trio_packet_arrive(p);
}

static void send_one(struct trio_packet *p)
{
    struct trio *w = trio_of(p);
    if (is_lost(w, p->from, p->to)) {
        trio_packet_free(p);
        return;
    }
    struct carrier *c = mem_calloc(1, sizeof *c);
    c->event.run = arrives;
    c->packet = p;
    p->carrier = c;
    sched_in(&c->event, delay_draw(w));
}

static void carry(struct trio_packet *p)
{
    struct trio *w = trio_of(p);
    bool word = p->word != TRIO_WORD_ASK && p->word != TRIO_WORD_SAYS;
    struct trio_packet *again = NULL;
    if (word && !w->healed && sched_chance(w->repeat_per_million))
        again = trio_packet_copy(p);
    send_one(p);
    if (again != NULL)
        send_one(again);
}

static bool hears(struct trio_end *e, const struct trio_packet *p)
{
    const struct trio_node *n = CONTAINER_OF(e, struct trio_node, end);
    return n->loop != NULL && (!n->broken || p->word == TRIO_WORD_SAYS);
}

static void refused(const struct trio_packet *p, int rc)
{
    trio_fail(trio_of(p), "P9", "node %u refuses what a node sent: %s", p->to, err_name(rc));
}

void trio_carry_lose(struct trio *w, unsigned node)
{
    struct trio_packet *next;
    for (struct trio_packet *p = w->net.packets; p != NULL; p = next) {
        next = p->next;
        if (p->from != node && p->to != node)
            continue;
        struct carrier *c = p->carrier;
        sched_cancel(&c->event);
        trio_packet_free(p);
    }
}

void trio_carry_init(struct trio *w)
{
    w->net.carry = carry;
    w->net.hears = hears;
    w->net.refused = refused;
}

void trio_carry_deinit(struct trio *w)
{
    while (w->net.packets != NULL) {
        struct carrier *c = w->net.packets->carrier;
        sched_cancel(&c->event);
        trio_packet_free(w->net.packets);
    }
}
