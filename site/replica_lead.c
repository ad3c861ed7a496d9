/* The primary: sending records, counting who has them, committing. See replica.h. */
#include "site/replica_int.h"

#include <string.h>

struct replica_peer *replica_peer(struct replica *r, uint64_t node)
{
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (r->peers[i].node == node)
            return &r->peers[i];
    return NULL;
}

/* ---- records kept for sending ---- */

static void recent_drop(struct replica *r)
{
    struct replica_recent *e = &r->recent[r->recent_at];
    r->recent_bytes -= e->len;
    mem_free(e->bytes);
    r->recent_at = (r->recent_at + 1) % r->recent_cap;
    r->recent_count--;
    r->recent_first++;
}

static void recent_grow(struct replica *r)
{
    size_t cap = r->recent_cap == 0 ? 64 : 2 * r->recent_cap;
    struct replica_recent *ring = mem_alloc(cap * sizeof *ring);
    for (size_t i = 0; i < r->recent_count; i++)
        ring[i] = r->recent[(r->recent_at + i) % r->recent_cap];
    mem_free(r->recent);
    r->recent = ring;
    r->recent_cap = cap;
    r->recent_at = 0;
}

static void recent_add(struct replica *r, struct slice bytes)
{
    if (r->recent_count == r->recent_cap)
        recent_grow(r);
    if (r->recent_count == 0)
        r->recent_first = r->last;
    r->recent[(r->recent_at + r->recent_count++) % r->recent_cap] = (struct replica_recent){
        .epoch = r->epoch, .bytes = mem_dup(bytes.ptr, bytes.len), .len = bytes.len};
    r->recent_bytes += bytes.len;
}

/* What is on our disk can be read from there; what everybody has been sent need not be. */
static void recent_trim(struct replica *r)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (replica_in_set(&r->required, r->peers[i].node))
            next = MIN(next, r->peers[i].match + 1);
    while (r->recent_count > 0 && r->recent_first <= r->durable &&
           (r->recent_first < next || r->recent_bytes > REPLICA_RECENT_BYTES))
        recent_drop(r);
}

/* ---- sending ---- */

static void send_append(struct replica *r,
                        struct replica_peer *p,
                        struct slice records,
                        uint32_t count,
                        struct replica_effects *out)
{
    uint64_t epoch = replica_epoch_at(r, p->next - 1);
    struct replica_msg m = {.kind = REPLICA_MSG_APPEND,
                            .index = p->next - 1,
                            .index_epoch = epoch == REPLICA_EPOCH_NONE ? 0 : epoch,
                            .last = r->base,
                            .commit = r->commit,
                            .count = count,
                            .records = records};
    replica_send(r, out, p->node, &m);
    p->sent_ns = r->now_ns;
    p->next += count;
    if (count > 0)
        p->flight[p->flight_count++] = p->next - 1;
}

static void send_recent(struct replica *r, struct replica_peer *p, struct replica_effects *out)
{
    struct buf records = {0};
    uint32_t count = 0;
    replica_records_begin(&records);
    for (uint64_t at = p->next - r->recent_first; at < r->recent_count; at++, count++) {
        const struct replica_recent *e = &r->recent[(r->recent_at + at) % r->recent_cap];
        if (!replica_records_add(&records, e->epoch, slice_of(e->bytes, e->len)))
            break;
    }
    send_append(r, p, buf_slice(&records), count, out);
    buf_deinit(&records);
}

/* As much as may be under way. One that has not agreed to a place yet is tried with one message. */
static void peer_send(struct replica *r, struct replica_peer *p, struct replica_effects *out)
{
    while (p->next <= r->last && !p->busy && p->flight_count < REPLICA_FLIGHT_MAX &&
           (p->matched || p->flight_count == 0)) {
        if (r->recent_count > 0 && p->next >= r->recent_first) {
            send_recent(r, p, out);
            continue;
        }
        if (!p->reading && p->next <= r->durable) {
            struct replica_effect *e = replica_effect(out, REPLICA_READ_LOG);
            e->node = p->node;
            e->index = p->next;
            p->reading = true;
        }
        return;
    }
}

static uint32_t item_count(struct slice records)
{
    uint32_t count = 0;
    for (; records.len > 0; count++)
        (void)replica_item_next(&records);
    return count;
}

void replica_lead_read(struct replica *r,
                       const struct replica_event *e,
                       struct replica_effects *out)
{
    struct replica_peer *p = replica_peer(r, e->node);
    if (p == NULL || !p->reading)
        return;
    p->reading = false;
    if (e->index != p->next || p->flight_count == REPLICA_FLIGHT_MAX) {
        peer_send(r, p, out); /* it was sent somewhere else meanwhile */
    } else if (e->rc == 0) {
        send_append(r, p, e->bytes, item_count(e->bytes), out);
        peer_send(r, p, out);
    } else if (e->rc == ERR_NOT_FOUND && p->nack_seq == 0) {
        /* It has not said yet what it lacks: ask at the end. */
        p->next = r->last + 1;
        p->matched = false;
        p->flight_count = 0;
        send_append(r, p, slice_of(NULL, 0), 0, out);
    } else if (e->rc == ERR_NOT_FOUND && replica_in_set(&r->required, p->node)) {
        p->lost = true; /* what it may need is kept */
    } else if (e->rc == ERR_NOT_FOUND) {
        struct replica_msg m = {.kind = REPLICA_MSG_NEED_COPY, .life = p->life, .seq = p->nack_seq};
        replica_send(r, out, p->node, &m);
    }
}

void replica_lead_appended(struct replica *r, struct slice bytes, struct replica_effects *out)
{
    if (r->peer_count == 0)
        return;
    recent_add(r, bytes);
    for (uint32_t i = 0; i < r->peer_count; i++) {
        struct replica_peer *p = &r->peers[i];
        if (p->match + 1 == r->last)
            p->progress_ns = r->now_ns; /* it had all there was until now */
        peer_send(r, p, out);
    }
}

/* ---- counting ---- */

static bool is_silent(const struct replica *r, const struct replica_peer *p)
{
    return r->now_ns - p->heard_ns >= r->cfg.silence_ns;
}

static bool is_stuck(const struct replica *r, const struct replica_peer *p)
{
    return p->match < r->last && r->now_ns - p->progress_ns >= 4 * r->cfg.silence_ns;
}

static bool answers(const struct replica *r, const struct replica_peer *p)
{
    return !p->lost && !p->busy && !is_stuck(r, p) && !is_silent(r, p);
}

/* R13: it may be us who hear nothing. */
static bool is_doubtful(const struct replica *r, const struct replica_peer *p)
{
    return is_silent(r, p) && !p->lost && !p->busy &&
           r->heard_back_ns < p->heard_ns + r->cfg.silence_ns;
}

bool replica_lead_doubts(const struct replica *r)
{
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (replica_in_set(&r->required, r->peers[i].node) && is_doubtful(r, &r->peers[i]))
            return true;
    return false;
}

/* R6: it has every committed record, and agrees with us in this epoch. */
static bool may_enter(const struct replica *r, const struct replica_peer *p)
{
    bool rested = p->removed_ns == 0 || r->now_ns - p->removed_ns >= r->cfg.silence_ns;
    return r->role == REPLICA_PRIMARY && p->matched && rested && answers(r, p) &&
           (p->match >= r->commit || PLANTED(106));
}

static void set_add(struct shard_record *rec, uint64_t node)
{
    if (!replica_in_set(rec, node) && rec->in_sync_count < COORDINATOR_REPLICAS_MAX)
        rec->in_sync[rec->in_sync_count++] = node;
}

bool replica_lead_set(struct replica *r, struct shard_record *rec)
{
    rec->in_sync_count = 0;
    memset(rec->in_sync, 0, sizeof rec->in_sync);
    set_add(rec, r->cfg.node);
    for (uint32_t i = 0; i < r->peer_count; i++) {
        struct replica_peer *p = &r->peers[i];
        bool in = replica_in_set(&r->required, p->node);
        if (in ? answers(r, p) || is_doubtful(r, p) : may_enter(r, p))
            set_add(rec, p->node);
        else if (in)
            p->removed_ns = r->now_ns;
    }
    bool equal = rec->in_sync_count == r->required.in_sync_count;
    for (uint32_t i = 0; i < rec->in_sync_count; i++)
        equal = equal && replica_in_set(&r->required, rec->in_sync[i]);
    return !equal;
}

void replica_lead_progress(struct replica *r, struct replica_effects *out)
{
    uint64_t all = r->durable, most = 0;
    for (uint32_t i = 0; i < r->required.in_sync_count; i++) {
        const struct replica_peer *p = replica_peer(r, r->required.in_sync[i]);
        if (r->required.in_sync[i] == r->cfg.node)
            continue;
        all = MIN(all, p != NULL ? p->match : 0); /* R1 */
        most = MAX(most, p != NULL ? p->match : 0);
    }
    if (PLANTED(101) && most > 0)
        all = MIN(r->durable, most);
    replica_commit_to(r, all, out);
    recent_trim(r);
    for (uint32_t i = 0; i < r->peer_count; i++)
        peer_send(r, &r->peers[i], out);
    if (r->role == REPLICA_RECOVER && (r->commit >= r->base || PLANTED(109))) { /* R5 */
        r->role = REPLICA_PRIMARY;
        replica_effect(out, REPLICA_SERVE)->stamp = PLANTED(110) ? 0 : r->stamp_floor;
    }
}

/* ---- answers ---- */

static void peer_reset(const struct replica *r, struct replica_peer *p)
{
    p->match = 0;
    p->next = r->last + 1;
    p->flight_count = 0;
    p->matched = false;
    p->busy = false;
    p->nack_seq = 0;
    p->back_from = 0;
    p->progress_ns = r->now_ns;
}

/* It does not have what comes before: go back to where it may agree. */
static void peer_back(struct replica *r,
                      struct replica_peer *p,
                      const struct replica_msg *m,
                      struct replica_effects *out)
{
    uint64_t at = MIN(m->hint, r->last);
    while (at > m->commit && m->index_epoch != 0) {
        uint64_t epoch = replica_epoch_at(r, at);
        if (epoch == REPLICA_EPOCH_NONE || epoch <= m->index_epoch)
            break;
        at = replica_run_first(r, at) - 1;
    }
    at = MAX(MAX(at, MIN(m->commit, r->last)), p->match);
    if (p->back_from == at + 1 && r->now_ns - p->back_ns < r->cfg.beat_ns)
        return; /* one lost message is told by all behind it */
    p->back_from = at + 1;
    p->back_ns = r->now_ns;
    p->next = at + 1;
    p->flight_count = 0;
    if (p->next > r->last)
        send_append(r, p, slice_of(NULL, 0), 0, out);
    else
        peer_send(r, p, out);
}

static void peer_ahead(struct replica *r, struct replica_peer *p, uint64_t index)
{
    uint32_t done = 0;
    if (index > p->match) {
        p->match = index;
        p->progress_ns = r->now_ns;
    }
    while (done < p->flight_count && p->flight[done] <= p->match)
        done++;
    p->flight_count -= done;
    memmove(p->flight, p->flight + done, p->flight_count * sizeof p->flight[0]);
    p->next = MAX(p->next, p->match + 1);
}

int replica_lead_reply(struct replica *r, const struct replica_msg *m, struct replica_effects *out)
{
    struct replica_peer *p = replica_peer(r, m->node);
    bool required = replica_in_set(&r->required, m->node);
    if (m->life < p->life || (m->life == p->life && m->seq <= p->seq))
        return 0;
    if (m->index > r->last)
        return ERR_PEER;
    if (m->life > p->life) {
        peer_reset(r, p);
        p->life = m->life;
    }
    p->seq = m->seq;
    p->heard_ns = r->now_ns;
    p->busy = (m->flags & REPLICA_FLAG_BUSY) != 0;
    /* R8: what it had on disk when it entered is not there any more. */
    p->lost = required &&
              (p->lost || (m->flags & REPLICA_FLAG_BLANK) != 0 || m->last < r->commit || p->busy);
    if (p->busy)
        return 0;
    peer_ahead(r, p, m->index);
    if ((m->flags & REPLICA_FLAG_MATCH) != 0) {
        p->matched = true;
        p->nack_seq = 0;
    } else {
        p->nack_seq = m->seq;
        peer_back(r, p, m, out);
    }
    replica_lead_progress(r, out);
    return 0;
}

/* ---- beginning, going on, ending ---- */

void replica_lead(struct replica *r, struct replica_effects *out)
{
    r->base = r->verified = r->last;
    replica_effect(out, REPLICA_LEAD)->epoch = r->epoch;
    for (uint32_t i = 0; i < r->peer_count; i++) {
        struct replica_peer *p = &r->peers[i];
        *p = (struct replica_peer){.node = p->node, .heard_ns = r->now_ns};
        peer_reset(r, p);
        send_append(r, p, slice_of(NULL, 0), 0, out);
    }
    replica_lead_progress(r, out);
}

void replica_lead_tick(struct replica *r, struct replica_effects *out)
{
    for (uint32_t i = 0; i < r->peer_count; i++) {
        struct replica_peer *p = &r->peers[i];
        if (r->now_ns - p->sent_ns >= r->cfg.beat_ns)
            send_append(r, p, slice_of(NULL, 0), 0, out);
        if (r->now_ns - p->heard_ns >= r->cfg.lease_ns)
            p->pin = 0;
    }
}

void replica_lead_end(struct replica *r)
{
    while (r->recent_count > 0)
        recent_drop(r);
    r->verified = r->commit;
}
