/* Packets, and the coordinator's register. See trio_net.h. */
#include "sim/trio_net.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

/* ---- packets ---- */

struct trio_packet *trio_packet_copy(const struct trio_packet *p)
{
    struct trio_packet *copy = mem_dup(p, sizeof *p);
    copy->bytes = p->len > 0 ? mem_dup(p->bytes, p->len) : NULL;
    copy->carrier = NULL;
    copy->at = &p->net->packets;
    copy->next = *copy->at;
    if (copy->next != NULL)
        copy->next->at = &copy->next;
    *copy->at = copy;
    return copy;
}

void trio_packet_free(struct trio_packet *p)
{
    *p->at = p->next;
    if (p->next != NULL)
        p->next->at = p->at;
    mem_free(p->carrier);
    mem_free(p->bytes);
    mem_free(p);
}

/* The bytes are borrowed. */
static void post(const struct trio_packet *p)
{
    p->net->carry(trio_packet_copy(p));
}

static int take_message(struct shard *s, const struct trio_packet *p)
{
    /* What is not taken is sent again. */
    int rc = shard_receive(s, &(struct shard_message){.from = p->other,
                                                      .to = p->shard,
                                                      .type = p->type,
                                                      .number = p->number,
                                                      .bytes = slice_of(p->bytes, p->len)});
    return rc == ERR_MALFORMED || rc == ERR_TRUNCATED ? rc : 0;
}

static void coordinate(struct trio_packet *p)
{
    struct shard_record *stored = &p->net->records[p->shard];
    struct trio_packet answer = *p;
    if (p->swap && p->record.version == stored->version) {
        *stored = p->record;
        stored->version++;
    } else if (p->swap) {
        answer.rc = ERR_STALE_BASE;
    }
    answer.word = TRIO_WORD_SAYS;
    answer.record = *stored;
    answer.from = p->to;
    answer.to = p->from;
    post(&answer);
}

static void hand_over(struct trio_packet *p, const struct trio_end *e)
{
    struct shard *s = e->shards[p->shard];
    int rc = 0;
    switch (p->word) {
    case TRIO_WORD_PEER:
        rc = shard_peer_message(s, p->from + 1, slice_of(p->bytes, p->len));
        break;
    case TRIO_WORD_DELIVER:
        rc = take_message(s, p);
        break;
    case TRIO_WORD_DELIVERED:
        shard_delivered(s, p->other, p->number);
        break;
    case TRIO_WORD_SAYS:
        if (e->start == p->start)
            shard_coordinator_says(s, p->number, p->swap, p->rc, &p->record);
        break;
    case TRIO_WORD_ASK:
        UNREACHABLE();
    }
    if (rc != 0)
        p->net->refused(p, rc);
}

void trio_packet_arrive(struct trio_packet *p)
{
    if (p->word == TRIO_WORD_ASK)
        coordinate(p);
    else if (p->net->hears(p->net->ends[p->to], p))
        hand_over(p, p->net->ends[p->to]);
    trio_packet_free(p);
}

/* ---- what the shards ask for ---- */

static void peer_send(void *ctx, shard_id_t shard, uint64_t node, struct slice bytes)
{
    struct trio_end *e = ctx;
    if (!e->mute)
        post(&(struct trio_packet){.net = e->net,
                                   .word = TRIO_WORD_PEER,
                                   .from = e->number,
                                   .to = (unsigned)node - 1,
                                   .shard = shard,
                                   .bytes = (uint8_t *)(uintptr_t)bytes.ptr, /* copied */
                                   .len = bytes.len});
}

static void
ask(struct trio_end *e, shard_id_t shard, uint64_t request, const struct shard_record *swap)
{
    struct trio_packet p = {.net = e->net,
                            .word = TRIO_WORD_ASK,
                            .from = e->number,
                            .to = TRIO_COORDINATOR,
                            .shard = shard,
                            .start = e->start,
                            .number = request,
                            .swap = swap != NULL};
    if (swap != NULL)
        p.record = *swap;
    if (!e->mute)
        post(&p);
}

static void peer_ask(void *ctx, shard_id_t shard, uint64_t request)
{
    ask(ctx, shard, request, NULL);
}

static void
peer_swap(void *ctx, shard_id_t shard, uint64_t request, const struct shard_record *record)
{
    ask(ctx, shard, request, record);
}

/* To whoever leads p->shard, as this node knows it; nobody: it is sent again. */
static void pass_on(struct trio_end *e, struct trio_packet p)
{
    uint64_t primary = e->mute || e->net->hold ? 0 : shard_primary(e->shards[p.shard]);
    if (primary == 0)
        return;
    p.net = e->net;
    p.from = e->number;
    p.to = (unsigned)primary - 1;
    if (p.to != e->number)
        post(&p);
    else if (p.word == TRIO_WORD_DELIVERED)
        shard_delivered(e->shards[p.shard], p.other, p.number);
    else
        (void)take_message(e->shards[p.shard], &p); /* our own: not malformed */
}

static int on_deliver(void *ctx, const struct shard_message *m)
{
    pass_on(ctx, (struct trio_packet){.word = TRIO_WORD_DELIVER,
                                      .shard = m->to,
                                      .other = m->from,
                                      .number = m->number,
                                      .type = m->type,
                                      .bytes = (uint8_t *)(uintptr_t)m->bytes.ptr, /* copied */
                                      .len = m->bytes.len});
    return 0;
}

static void on_delivered(void *ctx, shard_id_t from, shard_id_t to, uint64_t number)
{
    pass_on(ctx, (struct trio_packet){.word = TRIO_WORD_DELIVERED,
                                      .shard = from,
                                      .other = to,
                                      .number = number,
                                      .type = RECORD_OP});
}

/* ---- what is nobody's business ---- */

static bool on_applied(void *ctx, struct dot d)
{
    (void)ctx;
    (void)d;
    return true;
}
static void on_behalf(void *ctx, void *proposal)
{
    (void)ctx;
    (void)proposal;
}
static void on_name(void *ctx, struct oid parent, struct slice name)
{
    (void)ctx;
    (void)parent;
    (void)name;
}
static void on_object(void *ctx, struct oid oid, bool content)
{
    (void)ctx;
    (void)oid;
    (void)content;
}
static void on_moved(void *ctx, shard_id_t shard)
{
    (void)ctx;
    (void)shard;
}

void trio_site_name(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    (void)snprintf(out, 33, "s%08x", site); /* fits */
}

/* ---- an end ---- */

void trio_end_events(struct trio_end *e, struct shard_events *events)
{
    events->deliver = on_deliver;
    events->delivered = on_delivered;
    events->applied = on_applied;
    events->on_behalf = on_behalf;
    events->name_changed = on_name;
    events->object_changed = on_object;
    events->moved = on_moved;
    events->ctx = e;
}

void trio_end_init(struct trio_end *e,
                   struct trio_net *net,
                   unsigned number,
                   struct shard **shards,
                   struct shard_peers *peers)
{
    *e = (struct trio_end){.net = net, .number = number, .shards = shards};
    net->ends[number] = e;
    peers->node = number + 1;
    peers->node_count = TRIO_NODES;
    for (unsigned i = 0; i < TRIO_NODES; i++)
        peers->nodes[i] = i + 1;
    peers->send = peer_send;
    peers->ask = peer_ask;
    peers->swap = peer_swap;
    peers->ctx = e;
}
