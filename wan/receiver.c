/* Receiving end of a stream; see receiver.h. */
#include "wan/receiver.h"

#include "base/assert.h"
#include "base/hlc.h"
#include "base/plant.h"

void receiver_init(
    struct receiver *r, unsigned shard_count, site_id_t self, site_id_t peer, uint64_t now_ns)
{
    *r = (struct receiver){.shard_count = shard_count, .self = self, .peer = peer};
    lag_init(&r->lag, now_ns, 0);
    r->vvs_told = mem_calloc(shard_count, sizeof r->vvs_told[0]);
    r->vvs_durable = mem_calloc(shard_count, sizeof r->vvs_durable[0]);
    batch_memory_init(&r->memory, shard_count);
}

void receiver_deinit(struct receiver *r)
{
    for (uint32_t i = 0; i < RECEIVER_SLOTS; i++)
        batch_decoded_deinit(&r->slots[i].decoded);
    batch_memory_deinit(&r->memory);
    mem_free(r->vvs_told);
    mem_free(r->vvs_durable);
    *r = (struct receiver){0};
}

bool receiver_is_applying(const struct receiver *r)
{
    return r->taken > 0 && r->slots[r->oldest].state == SLOT_APPLYING;
}

void receiver_begin(struct receiver *r, const uint64_t *next, const struct vv *vvs)
{
    ASSERT(r->taken == 0);
    batch_memory_deinit(&r->memory);
    batch_memory_init(&r->memory, r->shard_count);
    r->number = r->early_number = r->early_hlc = 0;
    for (unsigned s = 0; s < r->shard_count; s++) {
        r->durable[s] = r->told[s] = next[s];
        r->vvs_durable[s] = r->vvs_told[s] = vvs[s];
    }
    lag_up(&r->lag);
}

void receiver_end(struct receiver *r)
{
    uint32_t keep = receiver_is_applying(r) ? 1 : 0;
    while (r->taken > keep) {
        r->taken--;
        r->slots[(r->oldest + r->taken) % RECEIVER_SLOTS].state = SLOT_EMPTY;
    }
    r->held_ahead_ns = 0;
    lag_down(&r->lag);
}

bool receiver_has_room(const struct receiver *r)
{
    return r->taken < RECEIVER_SLOTS;
}

int receiver_batch(struct receiver *r, struct slice in, struct slice noise)
{
    ASSERT(receiver_has_room(r));
    struct receiver_slot *slot = &r->slots[(r->oldest + r->taken) % RECEIVER_SLOTS];
    ASSERT(slot->state == SLOT_EMPTY);
    int rc = batch_decode(&r->memory, in, noise, &slot->decoded);
    if (rc != 0)
        return rc;
    const struct batch *b = &slot->decoded.batch;
    if (b->number != r->number + 1)
        return ERR_PEER;
    r->number = b->number;
    slot->bytes = 0;
    slot->hlc_max = 0;
    slot->beat_hlc = b->number == r->early_number ? r->early_hlc : 0;
    for (uint32_t i = 0; i < b->count; i++) {
        slot->bytes += b->items[i].op.len;
        slot->hlc_max = MAX(slot->hlc_max, b->items[i].hlc);
    }
    slot->state = SLOT_READY;
    r->taken++;
    return 0;
}

void receiver_heartbeat(struct receiver *r,
                        const struct msg_heartbeat *h,
                        uint64_t before,
                        uint64_t now_ns,
                        uint64_t wall_ns)
{
    uint64_t sent_hlc = MIN(h->sent_hlc, h->safe_hlc);
    lag_hear(&r->lag, now_ns - MIN(now_ns, delay_age(&r->delay, now_ns, h->wall_ns)), h->safe_hlc,
             h->head_hlc);
    lag_hear_totals(&r->lag, h->ops_sent + h->ops_to_go, h->bytes_sent + h->bytes_to_go);
    if (h->echo_ns != 0)
        skew_add(&r->skew, h->echo_ns, h->echo_at_ns, h->wall_ns, wall_ns);
    if (before > 0) {
        r->early_number = r->number + before;
        r->early_hlc = sent_hlc;
    } else if (r->taken == 0) {
        lag_apply(&r->lag, sent_hlc, 0, 0);
    } else {
        r->slots[(r->oldest + r->taken - 1) % RECEIVER_SLOTS].beat_hlc = sent_hlc;
    }
}

const struct receiver_slot *receiver_next(struct receiver *r, uint64_t wall_ns)
{
    struct receiver_slot *slot = &r->slots[r->oldest];
    if (r->taken == 0 || slot->state != SLOT_READY)
        return NULL;
    uint64_t stamp_ns = hlc_ms(slot->hlc_max) * NS_PER_MS;
    if (stamp_ns > wall_ns + RECEIVER_AHEAD_MAX_NS && !PLANTED(55)) {
        r->held_ahead_ns = stamp_ns - wall_ns;
        return NULL;
    }
    r->held_ahead_ns = 0;
    slot->state = SLOT_APPLYING;
    return slot;
}

static void slot_done(struct receiver *r)
{
    r->slots[r->oldest].state = SLOT_EMPTY;
    r->oldest = (r->oldest + 1) % RECEIVER_SLOTS;
    r->taken--;
}

void receiver_applied(struct receiver *r)
{
    struct receiver_slot *slot = &r->slots[r->oldest];
    ASSERT(slot->state == SLOT_APPLYING);
    const struct batch *b = &slot->decoded.batch;
    lag_apply(&r->lag, MAX(b->hlc, slot->beat_hlc), b->count, slot->bytes);
    r->ops_applied += b->count;
    r->bytes_applied += slot->bytes;
    r->batches_applied++;
    slot_done(r);
}

void receiver_failed(struct receiver *r)
{
    ASSERT(receiver_is_applying(r));
    slot_done(r);
}

void receiver_durable(struct receiver *r, const uint64_t *next, const struct vv *vvs)
{
    for (unsigned s = 0; s < r->shard_count; s++) {
        r->durable[s] = next[s];
        r->vvs_durable[s] = vvs[s];
    }
}

/* Does the sender not know yet how much of this site's operations is here? */
static bool is_news(const struct receiver *r, unsigned shard, uint32_t i)
{
    const struct vv *now = &r->vvs_durable[shard];
    site_id_t site = now->at[i].site;
    return site != r->self && vv_get(&r->vvs_told[shard], site) < now->at[i].seq;
}

bool receiver_owes_ack(const struct receiver *r)
{
    for (unsigned s = 0; s < r->shard_count; s++) {
        if (r->durable[s] != r->told[s])
            return true;
        for (uint32_t i = 0; i < r->vvs_durable[s].count; i++)
            if (is_news(r, s, i))
                return true;
    }
    return false;
}

void receiver_ack(struct receiver *r, uint64_t wall_ns, uint64_t hlc, struct buf *out)
{
    uint32_t seqs = 0;
    for (unsigned s = 0; s < r->shard_count; s++)
        seqs += r->vvs_durable[s].count;
    struct msg_ack a = {.wall_ns = wall_ns, .hlc = hlc, .applied_hlc = lag_applied(&r->lag)};
    a.seqs = mem_calloc(MAX(seqs, 1u), sizeof a.seqs[0]);
    for (unsigned s = 0; s < r->shard_count; s++) {
        if (r->durable[s] != r->told[s])
            a.next[a.next_count++] =
                (struct msg_ack_next){.shard = (shard_id_t)s, .next = r->durable[s]};
        for (uint32_t i = 0; i < r->vvs_durable[s].count; i++)
            if (is_news(r, s, i))
                a.seqs[a.seq_count++] = (struct dot){.seq = r->vvs_durable[s].at[i].seq,
                                                     .site = r->vvs_durable[s].at[i].site,
                                                     .shard = (shard_id_t)s};
        r->told[s] = r->durable[s];
        r->vvs_told[s] = r->vvs_durable[s];
    }
    msg_ack_encode(&a, out);
    msg_ack_deinit(&a);
}
