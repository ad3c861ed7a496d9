/* The shard's record: asking for it, changing it, leases, taking over. See replica.h.
 *
 * A swap may be carried out long after it was given up on, as long as the record has the version
 * that it expects. So what a primary must count is the union of all sets it has asked for since
 * that version (`required`), and an answer that does not come changes nothing but that we ask. */
#include "site/replica_int.h"

#include <string.h>

static bool leads(const struct replica *r)
{
    return r->role == REPLICA_RECOVER || r->role == REPLICA_PRIMARY;
}

/* Whoever saw a version for so long knows that its lease is over, whatever the two clocks did. */
static uint64_t lease_wait(uint64_t lease_ns)
{
    return lease_ns + lease_ns / 8;
}

void replica_step_down(struct replica *r, struct replica_effects *out)
{
    ASSERT(leads(r));
    r->role = REPLICA_FOLLOW;
    r->primary = 0;
    r->heard_ns = 0;
    r->primary_commit = 0;
    r->nack_seq = 0;
    r->must_ask = true;
    r->release = false;
    replica_lead_end(r);
    replica_effect(out, REPLICA_STEP_DOWN)->index = r->commit;
}

/* ---- what is known ---- */

static void learn(struct replica *r, const struct shard_record *rec, struct replica_effects *out)
{
    if (r->known_any && rec->version < r->known.version)
        return; /* an old answer */
    if (!r->known_any || rec->version != r->known.version)
        r->seen_ns = r->now_ns;
    r->known = *rec;
    r->known_any = true;
    if (!replica_in_set(rec, r->cfg.node))
        r->blank = false; /* who enters from now on has been looked at */
    if (leads(r) && (rec->epoch != r->epoch || rec->primary != r->cfg.node))
        replica_step_down(r, out);
    else if (leads(r) && rec->version > r->swap_version) {
        r->required = *rec;
        replica_lead_progress(r, out);
    }
    if (rec->epoch > r->epoch)
        replica_epoch_adopt(r, rec->epoch, 0);
    if (rec->epoch == r->epoch && r->primary == 0 && rec->primary != r->cfg.node)
        r->primary = rec->primary;
}

/* ---- asking and swapping ---- */

static void request_begin(struct replica *r, struct replica_effect *e)
{
    e->request = ++r->request;
    r->asking = true;
    r->asked_ns = r->now_ns;
}

static void ask(struct replica *r, struct replica_effects *out)
{
    r->swap = REPLICA_SWAP_NONE;
    r->must_ask = false;
    request_begin(r, replica_effect(out, REPLICA_ASK));
}

static void swap(struct replica *r,
                 enum replica_swap_kind kind,
                 const struct shard_record *rec,
                 struct replica_effects *out)
{
    struct replica_effect *e = replica_effect(out, REPLICA_SWAP);
    r->swap = kind;
    r->swap_record = *rec;
    r->swap_version = r->known.version;
    e->record = *rec;
    request_begin(r, e);
}

/* R10: what we may promise while we hold the lease; written down before it is promised. */
static uint64_t reserve(const struct replica *r)
{
    if (r->cfg.lease_ns == REPLICA_LEASE_ENDLESS)
        return r->known.stamp_max;
    uint64_t span = (r->cfg.lease_ns / NS_PER_MS) << 16;
    return MAX(r->known.stamp_max, r->stamp + span);
}

static void claim(struct replica *r, struct replica_effects *out)
{
    struct shard_record rec = r->known;
    rec.epoch = MAX(r->known.epoch, r->epoch) + 1;
    rec.primary = r->cfg.node;
    rec.lease_ns = r->cfg.lease_ns;
    rec.stamp_max = reserve(r);
    if (r->known.version == 0) {
        rec.in_sync_count = 1;
        rec.in_sync[0] = r->cfg.node;
    }
    /* Who led before has most likely died, and would only hold us up. */
    for (uint32_t i = 0; i < rec.in_sync_count; i++)
        if (rec.in_sync[i] == r->known.primary && r->known.primary != r->cfg.node)
            rec.in_sync[i] = rec.in_sync[--rec.in_sync_count];
    memset(rec.in_sync + rec.in_sync_count, 0,
           (COORDINATOR_REPLICAS_MAX - rec.in_sync_count) * sizeof rec.in_sync[0]);
    swap(r, REPLICA_SWAP_CLAIM, &rec, out);
}

static void renew(struct replica *r, const struct shard_record *set, struct replica_effects *out)
{
    struct shard_record rec = *set;
    rec.lease_ns = r->cfg.lease_ns;
    rec.stamp_max = reserve(r);
    swap(r, REPLICA_SWAP_RENEW, &rec, out);
    if (PLANTED(108))
        r->required = rec;
    for (uint32_t i = 0; i < rec.in_sync_count && !PLANTED(111); i++) /* R1 */
        if (!replica_in_set(&r->required, rec.in_sync[i]))
            r->required.in_sync[r->required.in_sync_count++] = rec.in_sync[i];
}

static void release(struct replica *r, struct replica_effects *out)
{
    struct shard_record rec = r->known;
    r->release = false;
    if (rec.primary != r->cfg.node)
        return;
    rec.primary = 0;
    rec.lease_ns = 0;
    swap(r, REPLICA_SWAP_RELEASE, &rec, out);
}

/* May we take the shard over, by what the record says? R2 */
static bool may_claim(const struct replica *r)
{
    const struct shard_record *rec = &r->known;
    bool free = rec->primary == 0 || rec->primary == r->cfg.node || rec->lease_ns == 0;
    bool heard = r->heard_ns != 0 && r->now_ns - r->heard_ns < r->cfg.silence_ns;
    if (r->role != REPLICA_FOLLOW || r->blank || r->copying || r->now_ns < r->rest_ns || heard)
        return false;
    if (rec->version == 0)
        return r->cfg.founder;
    if (!replica_in_set(rec, r->cfg.node))
        return false;
    return free || PLANTED(103) || r->now_ns - r->seen_ns >= lease_wait(rec->lease_ns);
}

/* ---- answers ---- */

void replica_on_record(struct replica *r,
                       const struct replica_event *e,
                       struct replica_effects *out)
{
    if (!r->asking || e->request != r->request || r->swap != REPLICA_SWAP_NONE)
        return;
    r->asking = false;
    r->heard_back_ns = r->asked_ns;
    r->ask_at_ns = r->now_ns + r->cfg.answer_ns / 2;
    if (e->rc != 0) {
        r->must_ask = true;
        return;
    }
    learn(r, e->record, out);
    if (leads(r))
        r->ask_at_ns = 0; /* now it can ask for what it wants */
    else if (may_claim(r))
        claim(r, out);
}

static void claimed(struct replica *r, struct replica_effects *out)
{
    uint64_t floor = r->known.stamp_max;
    r->known = r->swap_record;
    r->known.version++;
    r->seen_ns = r->now_ns;
    r->lease_until_ns = r->asked_ns + r->cfg.lease_ns;
    if (r->swap_record.epoch < r->epoch || r->now_ns >= r->lease_until_ns ||
        r->role != REPLICA_FOLLOW || r->copying) {
        r->must_ask = true; /* too late */
        return;
    }
    replica_epoch_adopt(r, r->swap_record.epoch, r->cfg.node);
    r->role = REPLICA_RECOVER;
    r->required = r->known;
    r->stamp_floor = floor;
    r->stamp_max = r->known.stamp_max;
    r->renew_at_ns = r->asked_ns + r->cfg.lease_ns / 3;
    r->ask_at_ns = 0;
    replica_lead(r, out);
}

static void renewed(struct replica *r, struct replica_effects *out)
{
    uint64_t asked_ns = r->asked_ns;
    struct shard_record rec = r->swap_record;
    rec.version++;
    learn(r, &rec, out);
    if (!leads(r) || rec.epoch != r->epoch)
        return; /* we have stepped down meanwhile */
    r->lease_until_ns = asked_ns + r->cfg.lease_ns;
    r->renew_at_ns = asked_ns + r->cfg.lease_ns / 3;
    r->stamp_max = rec.stamp_max;
}

static void left(struct replica *r, struct replica_effects *out)
{
    r->known = r->swap_record;
    r->known.version++;
    r->seen_ns = r->now_ns;
    for (uint32_t i = 0; i < r->peer_count; i++)
        replica_send(r, out, r->peers[i].node, &(struct replica_msg){.kind = REPLICA_MSG_LEFT});
}

void replica_on_swapped(struct replica *r,
                        const struct replica_event *e,
                        struct replica_effects *out)
{
    enum replica_swap_kind kind = r->swap;
    if (!r->asking || e->request != r->request || kind == REPLICA_SWAP_NONE)
        return;
    r->asking = false;
    r->heard_back_ns = r->asked_ns;
    r->swap = REPLICA_SWAP_NONE;
    if (e->rc != 0) {
        r->must_ask = true;
        r->ask_at_ns = e->rc == ERR_STALE_BASE ? 0 : r->now_ns + r->cfg.answer_ns / 2;
        return;
    }
    switch (kind) {
    case REPLICA_SWAP_CLAIM:
        claimed(r, out);
        return;
    case REPLICA_SWAP_RENEW:
        renewed(r, out);
        return;
    case REPLICA_SWAP_RELEASE:
        left(r, out);
        return;
    case REPLICA_SWAP_NONE:
        break;
    }
    UNREACHABLE();
}

/* ---- what there is to ask for ---- */

static void lead_coordinate(struct replica *r, struct replica_effects *out)
{
    struct shard_record rec = r->known;
    if (r->must_ask || replica_lead_doubts(r))
        ask(r, out);
    else if (replica_lead_set(r, &rec) || r->now_ns >= r->renew_at_ns)
        renew(r, &rec, out);
}

static void follow_coordinate(struct replica *r, struct replica_effects *out)
{
    bool silent = r->heard_ns == 0 || r->now_ns - r->heard_ns >= r->cfg.silence_ns;
    /* A blank copy counts again when it has seen itself out of the record: it looks until then. */
    if (r->role == REPLICA_FOLLOW && (silent || r->must_ask || r->blank))
        ask(r, out);
}

void replica_coordinate(struct replica *r, struct replica_effects *out)
{
    if (r->asking && r->now_ns - r->asked_ns >= r->cfg.answer_ns) {
        r->asking = false; /* it may still be carried out */
        r->swap = REPLICA_SWAP_NONE;
        r->must_ask = true;
        r->ask_at_ns = 0;
    }
    if (r->asking)
        return;
    if (r->release) {
        release(r, out);
        return;
    }
    if (r->now_ns < r->ask_at_ns)
        return;
    if (leads(r))
        lead_coordinate(r, out);
    else
        follow_coordinate(r, out);
}
