/* The core of a replica: what all roles share, and the step that dispatches. See replica.h. */
#include "site/replica_int.h"

#include <string.h>

/* ---- effects ---- */

struct replica_effect *replica_effect(struct replica_effects *out, enum replica_effect_kind kind)
{
    if (out->count == out->cap) {
        out->cap = out->cap == 0 ? 16 : 2 * out->cap;
        out->at = mem_realloc(out->at, out->cap * sizeof out->at[0]);
    }
    struct replica_effect *e = &out->at[out->count++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    return e;
}

void replica_send(struct replica *r,
                  struct replica_effects *out,
                  uint64_t node,
                  const struct replica_msg *m)
{
    struct replica_msg full = *m;
    struct replica_effect *e = replica_effect(out, REPLICA_SEND);
    full.node = r->cfg.node;
    full.epoch = r->epoch;
    e->node = node;
    e->offset = out->memory.len;
    replica_msg_encode(&out->memory, &full);
    e->bytes.len = out->memory.len - e->offset;
}

/* The memory of the effects may have moved while they were made. */
static void effects_settle(struct replica_effects *out)
{
    for (uint32_t i = 0; i < out->count; i++)
        if (out->at[i].kind == REPLICA_SEND)
            out->at[i].bytes.ptr = out->memory.ptr + out->at[i].offset;
}

void replica_effects_deinit(struct replica_effects *e)
{
    mem_free(e->at);
    buf_deinit(&e->memory);
    memset(e, 0, sizeof *e);
}

/* ---- the journal as we know it ---- */

static uint32_t run_of(const struct replica *r, uint64_t index)
{
    uint32_t i = r->run_count;
    while (i > 0 && r->runs[i - 1].first > index)
        i--;
    return i;
}

uint64_t replica_epoch_at(const struct replica *r, uint64_t index)
{
    if (index == 0)
        return 0;
    uint32_t i = run_of(r, index);
    return i == 0 || index > r->last ? REPLICA_EPOCH_NONE : r->runs[i - 1].epoch;
}

uint64_t replica_run_first(const struct replica *r, uint64_t index)
{
    uint32_t i = run_of(r, index);
    return i == 0 ? 1 : r->runs[i - 1].first;
}

void replica_run_add(struct replica *r, uint64_t index, uint64_t epoch)
{
    ASSERT(r->run_count == 0 || r->runs[r->run_count - 1].epoch <= epoch);
    if (r->run_count > 0 && r->runs[r->run_count - 1].epoch == epoch)
        return;
    if (r->run_count == REPLICA_EPOCHS_MAX) { /* what is older is committed, or will be copied */
        r->run_count--;
        memmove(r->runs, r->runs + 1, r->run_count * sizeof r->runs[0]);
    }
    r->runs[r->run_count++] = (struct replica_run){.first = index, .epoch = epoch};
}

bool replica_in_set(const struct shard_record *rec, uint64_t node)
{
    for (uint32_t i = 0; i < rec->in_sync_count; i++)
        if (rec->in_sync[i] == node)
            return true;
    return false;
}

void replica_epoch_adopt(struct replica *r, uint64_t epoch, uint64_t primary)
{
    ASSERT(epoch >= r->epoch);
    if (epoch > r->epoch) {
        r->verified = r->commit; /* the new primary's journal is another truth */
        r->primary_commit = 0;
        r->nack_seq = 0;
        r->heard_ns = 0;
        r->primary = 0;
    }
    r->epoch = epoch;
    if (primary != 0)
        r->primary = primary;
}

void replica_commit_to(struct replica *r, uint64_t index, struct replica_effects *out)
{
    if (index <= r->commit)
        return;
    ASSERT(index <= r->durable);
    r->commit = index;
    replica_effect(out, REPLICA_COMMIT)->index = index;
}

/* ---- life ---- */

static uint64_t or_default(uint64_t value, uint64_t otherwise)
{
    return value != 0 ? value : otherwise;
}

struct replica *replica_new(const struct replica_config *config)
{
    struct replica *r = mem_calloc(1, sizeof *r);
    ASSERT(config->node != 0 && config->node_count >= 1 && config->commit <= config->last);
    ASSERT(config->node_count <= COORDINATOR_REPLICAS_MAX);
    r->cfg = *config;
    r->cfg.runs = NULL;
    r->cfg.lease_ns = or_default(config->lease_ns, 6 * NS_PER_SEC);
    r->cfg.beat_ns = or_default(config->beat_ns, 250 * NS_PER_MS);
    r->cfg.silence_ns = or_default(config->silence_ns, 1500 * NS_PER_MS);
    r->cfg.answer_ns = or_default(config->answer_ns, NS_PER_SEC);
    r->life = config->life;
    r->blank = config->blank;
    r->last = r->durable = config->last;
    r->commit = r->verified = config->commit;
    for (uint32_t i = 0; i < config->run_count; i++)
        replica_run_add(r, config->runs[i].first, config->runs[i].epoch);
    if (r->run_count > 0)
        r->epoch = r->runs[r->run_count - 1].epoch;
    for (uint32_t i = 0; i < config->node_count; i++)
        if (config->nodes[i] != config->node)
            r->peers[r->peer_count++].node = config->nodes[i];
    return r;
}

void replica_free(struct replica *r)
{
    if (r == NULL)
        return;
    replica_lead_end(r);
    mem_free(r->recent);
    mem_free(r);
}

static bool leads(const struct replica *r)
{
    return r->role == REPLICA_RECOVER || r->role == REPLICA_PRIMARY;
}

/* ---- events ---- */

/* Somebody leads with a higher epoch: whatever we lead is over. */
static void on_stale(struct replica *r, const struct replica_msg *m, struct replica_effects *out)
{
    if (m->epoch <= r->epoch)
        return;
    if (leads(r))
        replica_step_down(r, out);
    replica_epoch_adopt(r, m->epoch, 0);
    r->must_ask = true;
}

static int on_message(struct replica *r, const struct replica_event *e, struct replica_effects *out)
{
    struct replica_msg m;
    int rc = replica_msg_decode(e->bytes, &m);
    if (rc != 0)
        return rc;
    if (m.node != e->node || replica_peer(r, m.node) == NULL)
        return ERR_PEER;
    if (r->role == REPLICA_FAILED)
        return 0;
    if (m.kind == REPLICA_MSG_STALE) {
        on_stale(r, &m, out);
        return 0;
    }
    if (m.epoch < r->epoch && !PLANTED(105)) { /* R7 */
        if (m.kind == REPLICA_MSG_APPEND)
            replica_send(r, out, m.node, &(struct replica_msg){.kind = REPLICA_MSG_STALE});
        return 0;
    }
    if (m.epoch > r->epoch && m.kind != REPLICA_MSG_APPEND) {
        on_stale(r, &m, out);
        return 0;
    }
    switch ((enum replica_msg_kind)m.kind) {
    case REPLICA_MSG_APPEND:
        return replica_follow_append(r, &m, out);
    case REPLICA_MSG_REPLY:
        return leads(r) ? replica_lead_reply(r, &m, out) : 0;
    case REPLICA_MSG_NEED_COPY:
        replica_follow_need_copy(r, &m, out);
        return 0;
    case REPLICA_MSG_LEFT:
        r->heard_ns = 0;
        r->must_ask = !leads(r);
        r->ask_at_ns = 0;
        return 0;
    case REPLICA_MSG_STALE:
    case REPLICA_MSG_KIND_END:
        break;
    }
    UNREACHABLE();
}

static void on_durable(struct replica *r, uint64_t index, struct replica_effects *out)
{
    ASSERT(index <= r->last);
    r->durable = MAX(r->durable, index);
    if (leads(r))
        replica_lead_progress(r, out);
    else if (r->role == REPLICA_FOLLOW)
        replica_follow_durable(r, out);
}

static void
on_appended(struct replica *r, const struct replica_event *e, struct replica_effects *out)
{
    ASSERT_EQ(e->index, r->last + 1);
    r->last = e->index;
    replica_run_add(r, e->index, r->epoch);
    if (leads(r)) /* else the lease ran out this very moment: it is what a next primary finds */
        replica_lead_appended(r, e->bytes, out);
}

static void on_broken(struct replica *r, struct replica_effects *out)
{
    if (leads(r)) {
        replica_step_down(r, out);
        r->release = true; /* others need not wait for it */
    }
    r->role = REPLICA_FAILED;
}

static void on_resign(struct replica *r, struct replica_effects *out)
{
    if (!leads(r))
        return;
    replica_step_down(r, out);
    r->release = true;
    r->rest_ns = r->now_ns + 2 * r->cfg.silence_ns;
}

static int dispatch(struct replica *r, const struct replica_event *e, struct replica_effects *out)
{
    struct replica_peer *p;
    switch (e->kind) {
    case REPLICA_TICK:
        if (leads(r))
            replica_lead_tick(r, out);
        return 0;
    case REPLICA_APPENDED:
        on_appended(r, e, out);
        return 0;
    case REPLICA_DURABLE:
        on_durable(r, e->index, out);
        return 0;
    case REPLICA_BROKEN:
        on_broken(r, out);
        return 0;
    case REPLICA_MESSAGE:
        return on_message(r, e, out);
    case REPLICA_READ:
        if (leads(r))
            replica_lead_read(r, e, out);
        return 0;
    case REPLICA_RECORD:
        replica_on_record(r, e, out);
        return 0;
    case REPLICA_SWAPPED:
        replica_on_swapped(r, e, out);
        return 0;
    case REPLICA_COPIED:
        replica_follow_copied(r, e);
        return 0;
    case REPLICA_SERVED:
        p = replica_peer(r, e->node);
        if (leads(r) && p != NULL)
            p->pin = e->index;
        return 0;
    case REPLICA_RESIGN:
        on_resign(r, out);
        return 0;
    }
    UNREACHABLE();
}

int replica_step(struct replica *r, const struct replica_event *e, struct replica_effects *out)
{
    ASSERT(e->now_ns >= r->now_ns);
    out->count = 0;
    buf_clear(&out->memory);
    r->now_ns = e->now_ns;
    r->stamp = MAX(r->stamp, e->stamp);
    if (leads(r) && r->now_ns >= r->lease_until_ns && !PLANTED(102)) /* R2 */
        replica_step_down(r, out);
    int rc = dispatch(r, e, out);
    replica_coordinate(r, out);
    effects_settle(out);
#ifdef CLAUDEFS_DCHECK
    replica_validate(r);
#endif
    return rc;
}

/* ---- looking ---- */

uint64_t replica_deadline_ns(const struct replica *r)
{
    if (r->cfg.node_count > 1 || r->asking || !leads(r))
        return r->now_ns + r->cfg.beat_ns / 2;
    return MAX(r->now_ns + 1, MAX(r->renew_at_ns, r->ask_at_ns));
}

bool replica_serves(const struct replica *r, uint64_t now_ns)
{
    return r->role == REPLICA_PRIMARY && (now_ns < r->lease_until_ns || PLANTED(102));
}

enum replica_role replica_role(const struct replica *r)
{
    return r->role;
}

uint64_t replica_epoch(const struct replica *r)
{
    return r->epoch;
}

uint64_t replica_commit(const struct replica *r)
{
    return r->commit;
}

bool replica_blank(const struct replica *r)
{
    return r->blank;
}

uint64_t replica_primary(const struct replica *r)
{
    return r->primary;
}

uint64_t replica_promise(const struct replica *r, uint64_t t)
{
    if (r->cfg.lease_ns == REPLICA_LEASE_ENDLESS)
        return t;
    return leads(r) ? MIN(t, r->stamp_max) : 0;
}

uint64_t replica_keep_from(const struct replica *r)
{
    uint64_t keep = UINT64_MAX;
    for (uint32_t i = 0; i < r->peer_count && leads(r); i++) {
        const struct replica_peer *p = &r->peers[i];
        bool alive = r->now_ns - p->heard_ns < r->cfg.lease_ns;
        if (replica_in_set(&r->required, p->node) || (alive && p->matched))
            keep =
                MIN(keep, p->match); /* with the record before: its epoch proves that they agree */
        else if (alive && p->pin != 0)
            keep = MIN(keep, p->pin);
    }
    return keep;
}

void replica_validate(const struct replica *r)
{
    ASSERT(r->commit <= r->durable && r->durable <= r->last);
    ASSERT(r->verified <= r->last);
    ASSERT(leads(r) || r->commit <= r->verified);
    for (uint32_t i = 1; i < r->run_count; i++)
        ASSERT(r->runs[i - 1].first < r->runs[i].first && r->runs[i - 1].epoch < r->runs[i].epoch);
    if (!leads(r))
        return;
    ASSERT(r->primary == r->cfg.node && replica_in_set(&r->required, r->cfg.node));
    for (uint32_t i = 0; i < r->known.in_sync_count; i++)
        ASSERT(replica_in_set(&r->required, r->known.in_sync[i])); /* R1 */
    for (uint32_t i = 0; i < r->peer_count; i++) {
        const struct replica_peer *p = &r->peers[i];
        ASSERT(p->match < p->next && p->match <= r->last && p->next <= r->last + 1);
        ASSERT(p->flight_count <= REPLICA_FLIGHT_MAX);
    }
}
