/* Replicas that follow: taking records, answering, being copied. See replica.h. */
#include "site/replica_int.h"

void replica_follow_reply(struct replica *r, bool match, uint64_t hint, struct replica_effects *out)
{
    struct replica_msg m = {.kind = REPLICA_MSG_REPLY,
                            .life = r->life,
                            .seq = ++r->seq,
                            .commit = r->commit,
                            .hint = hint};
    if (r->primary == 0)
        return;
    if (r->blank)
        m.flags |= REPLICA_FLAG_BLANK;
    if (r->copying) {
        m.flags |= REPLICA_FLAG_BUSY;
        m.commit = 0; /* of what is going away */
    } else {
        m.index = PLANTED(107) ? r->verified : MIN(r->verified, r->durable); /* R3 */
        m.last = r->durable;
        m.flags |= match ? REPLICA_FLAG_MATCH : 0;
        uint64_t epoch = replica_epoch_at(r, hint);
        m.index_epoch = match || epoch == REPLICA_EPOCH_NONE ? 0 : epoch;
    }
    if (match || r->copying)
        r->nack_seq = 0;
    else if (r->nack_seq == 0)
        r->nack_seq = m.seq;
    replica_send(r, out, r->primary, &m);
}

/* Everything up to the record before m's first is the same here as at the primary: committed
 * records always are; others when their epochs agree, because a primary appends one record at one
 * index, behind what it had. */
static bool agrees(const struct replica *r, const struct replica_msg *m)
{
    if (m->index <= r->commit)
        return true;
    return m->index_epoch != 0 && replica_epoch_at(r, m->index) == m->index_epoch;
}

/* The highest place at which we may agree with a primary that has `m` there. */
static uint64_t agree_hint(const struct replica *r, const struct replica_msg *m)
{
    uint64_t at = m->index > r->last ? r->last : m->index - 1;
    while (at > r->commit) {
        uint64_t epoch = replica_epoch_at(r, at);
        if (m->index_epoch == 0 || (epoch != REPLICA_EPOCH_NONE && epoch <= m->index_epoch))
            break;
        at = replica_run_first(r, at) - 1;
    }
    return MAX(at, r->commit);
}

/* Nothing above `index` stays. */
static void cut(struct replica *r, uint64_t index, struct replica_effects *out)
{
    ASSERT(index >= r->commit); /* R4 */
    if (index >= r->last)
        return;
    r->last = index;
    r->durable = MIN(r->durable, index);
    r->verified = MIN(r->verified, index);
    while (r->run_count > 0 && r->runs[r->run_count - 1].first > index)
        r->run_count--;
    replica_effect(out, REPLICA_CUT)->index = index;
}

/* What is committed here is in every primary's journal; one that says otherwise is not taken for
 * one. */
static bool contradicts(const struct replica *r, const struct replica_msg *m)
{
    struct slice at = m->records;
    uint64_t index = m->index, epoch = 0;
    for (uint32_t i = 0; i < m->count && index <= r->commit; i++, index++) {
        uint64_t said = replica_item_next(&at).epoch;
        epoch = replica_epoch_at(r, MIN(index + 1, r->commit));
        if (epoch != REPLICA_EPOCH_NONE && (index < r->commit ? said != epoch : said < epoch))
            return true;
    }
    return false;
}

/* True: some were new here; their DURABLE is the answer. */
static bool take(struct replica *r, const struct replica_msg *m, struct replica_effects *out)
{
    struct slice at = m->records;
    uint64_t index = m->index;
    bool some = false;
    for (uint32_t i = 0; i < m->count; i++) {
        struct replica_item item = replica_item_next(&at);
        index++;
        if (index <= r->commit)
            continue;
        if (index <= r->last && (replica_epoch_at(r, index) == item.epoch || PLANTED(104)))
            continue;
        cut(r, index - 1, out);
        replica_run_add(r, index, item.epoch);
        r->last = index;
        struct replica_effect *e = replica_effect(out, REPLICA_APPEND);
        e->index = index;
        e->epoch = item.epoch;
        e->bytes = item.payload;
        some = true;
    }
    r->verified = MAX(r->verified, index);
    return some;
}

static void follow_commit(struct replica *r, struct replica_effects *out)
{
    replica_commit_to(r, MIN(r->primary_commit, MIN(r->verified, r->durable)), out);
}

int replica_follow_append(struct replica *r,
                          const struct replica_msg *m,
                          struct replica_effects *out)
{
    bool led = r->role != REPLICA_FOLLOW, agree = agrees(r, m);
    /* What older epochs left behind the end of the primary's journal is not in it. */
    bool leftover = r->last > m->last && replica_epoch_at(r, m->last + 1) < m->epoch;
    /* An epoch has one primary, and that one has all that is committed, in order. */
    if ((m->epoch == r->epoch && (led || (r->primary != 0 && r->primary != m->node))) ||
        (leftover && (m->last < r->commit || (agree && m->index > m->last))) || contradicts(r, m))
        return ERR_PEER;
    if (led)
        replica_step_down(r, out);
    replica_epoch_adopt(r, m->epoch, m->node);
    r->heard_ns = r->now_ns;
    if (r->copying) {
        replica_follow_reply(r, false, 0, out);
        return 0;
    }
    if (!agree) {
        replica_follow_reply(r, false, agree_hint(r, m), out);
        return 0;
    }
    if (leftover)
        cut(r, m->last, out);
    bool some = take(r, m, out);
    r->primary_commit = MAX(r->primary_commit, m->commit);
    follow_commit(r, out);
    r->nack_seq = 0;
    if (!some)
        replica_follow_reply(r, true, 0, out);
    return 0;
}

void replica_follow_durable(struct replica *r, struct replica_effects *out)
{
    follow_commit(r, out);
    if (r->primary != 0 && !r->copying && r->heard_ns != 0 && r->nack_seq == 0)
        replica_follow_reply(r, true, 0, out);
}

/* Only the answer to a refusal after which nothing was taken: a late one must not take away what
 * was built since (R9). */
void replica_follow_need_copy(struct replica *r,
                              const struct replica_msg *m,
                              struct replica_effects *out)
{
    bool ours = m->life == r->life && r->nack_seq != 0 && m->seq >= r->nack_seq;
    if (r->role != REPLICA_FOLLOW || r->copying || m->node != r->primary ||
        (!ours && !PLANTED(112)))
        return;
    if (!r->known_any || replica_in_set(&r->known, r->cfg.node)) {
        r->must_ask = true; /* we have to be out of the record before we give anything up */
        return;
    }
    r->copying = true;
    r->nack_seq = 0;
    replica_effect(out, REPLICA_COPY)->node = m->node;
}

void replica_follow_copied(struct replica *r, const struct replica_event *e)
{
    ASSERT(r->copying && e->index >= 1 && e->life > r->life);
    r->copying = false;
    r->life = e->life;
    r->seq = 0;
    r->nack_seq = 0;
    r->last = r->durable = r->commit = r->verified = e->index - 1;
    r->run_count = 0;
}
