/* The network of a site of several nodes, and its coordinator. See trio.h. */
#include "base/assert.h"
#include "sim/trio_int.h"

struct packet {
    struct sched_event event;
    struct packet *next, **at; /* of the world's list, and where in it this one hangs */
    struct trio *world;
    unsigned from, to;
    shard_id_t shard, other;
    enum trio_word word;
    enum record_type type;
    uint64_t number; /* of a message between shards; the request to the coordinator */
    uint8_t *bytes;
    size_t len;
    uint64_t start; /* of the node that asks: an answer to an earlier run is lost with it */
    bool swap;
    int rc;
    struct shard_record record;
};

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

/* Takes the bytes. */
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

static void packet_free(struct packet *p)
{
    *p->at = p->next;
    if (p->next != NULL)
        p->next->at = p->at;
    mem_free(p->bytes);
    mem_free(p);
}

void trio_net_deinit(struct trio *w)
{
    while (w->packets != NULL) {
        sched_cancel(&w->packets->event);
        packet_free(w->packets);
    }
}

static void hand_over(struct packet *p, struct shard *s)
{
    struct slice bytes = slice_of(p->bytes, p->len);
    int rc = 0;
    switch (p->word) {
    case TRIO_WORD_PEER:
        rc = shard_peer_message(s, p->from + 1, bytes);
        break;
    case TRIO_WORD_DELIVER: /* what is not taken is sent again */
        rc = shard_receive(s, &(struct shard_message){.from = p->other,
                                                      .to = p->shard,
                                                      .type = p->type,
                                                      .number = p->number,
                                                      .bytes = bytes});
        rc = rc == ERR_MALFORMED || rc == ERR_TRUNCATED ? rc : 0;
        break;
    case TRIO_WORD_DELIVERED:
        shard_delivered(s, p->other, p->number);
        break;
    }
    if (rc != 0)
        trio_fail(p->world, "P9", "node %u refuses what a node sent: %s", p->to, err_name(rc));
}

static void word_arrives(struct sched_event *e)
{
    struct packet *p = CONTAINER_OF(e, struct packet, event);
    struct trio_node *n = &p->world->nodes[p->to];
    sched_note("word", (uint64_t)p->word << 16 | p->from << 8 | p->to, p->len);
    if (n->loop != NULL && !n->broken)
        hand_over(p, n->shards[p->shard]);
    packet_free(p);
}

void trio_send(struct trio_node *from,
               unsigned to,
               enum trio_word word,
               shard_id_t shard,
               shard_id_t other,
               uint64_t number,
               enum record_type type,
               struct slice bytes)
{
    struct trio *w = from->world;
    unsigned copies = !w->healed && sched_chance(w->repeat_per_million) ? 2 : 1;
    for (unsigned i = 0; i < copies; i++)
        packet_send(&(struct packet){.world = w,
                                     .from = from->number,
                                     .to = to,
                                     .word = word,
                                     .shard = shard,
                                     .other = other,
                                     .number = number,
                                     .type = type,
                                     .bytes = bytes.len > 0 ? mem_dup(bytes.ptr, bytes.len) : NULL,
                                     .len = bytes.len},
                    word_arrives);
}

static void answer_arrives(struct sched_event *e)
{
    struct packet *p = CONTAINER_OF(e, struct packet, event);
    struct trio_node *n = &p->world->nodes[p->to];
    sched_note("coordinator answers", p->to, p->record.version);
    if (n->loop != NULL && n->start == p->start)
        shard_coordinator_says(n->shards[p->shard], p->number, p->swap, p->rc, &p->record);
    packet_free(p);
}

/* The register does one thing after the other: that makes it linearizable. */
static void request_arrives(struct sched_event *e)
{
    struct packet *p = CONTAINER_OF(e, struct packet, event);
    struct shard_record *stored = &p->world->shards[p->shard].record;
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

void trio_ask(struct trio_node *n,
              shard_id_t shard,
              uint64_t request,
              const struct shard_record *swap)
{
    struct packet p = {.world = n->world,
                       .from = n->number,
                       .to = TRIO_COORDINATOR,
                       .shard = shard,
                       .start = n->start,
                       .number = request,
                       .swap = swap != NULL};
    if (swap != NULL)
        p.record = *swap;
    packet_send(&p, request_arrives);
}
