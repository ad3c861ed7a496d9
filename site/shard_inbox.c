/* Messages between shards that several nodes keep: they travel over a network that loses them.
 *
 * Normal path: a message leaves when the record that makes it is committed (N2), so its number
 * names it for ever; the receiver takes numbers without a gap (N3), keeps the last one in its state
 * with the record, and says so when that is committed; then the proposal that made it is done, and
 * once in a while a record takes what was delivered out of the outbox, and results that nobody
 * needs any more (N6). Failure path: what is not heard of is sent again, also by the next leader,
 * who sends all of the outbox; what the receiver has, it only confirms again. */
#include <string.h>

#include "base/codec.h"
#include "base/limits.h"
#include "base/plant.h"
#include "site/shard_int.h"
#include "site/shard_peers.h"

#define RESEND_NS (500 * NS_PER_MS)
#define TIDY_NS NS_PER_SEC
#define TIDY_PAIRS 512u

/* ---- the receiver ---- */

void shard_inbox_applied(struct shard *s, shard_id_t from, uint64_t number)
{
    struct buf key = {0}, value = {0};
    if (s->cfg.peers == NULL || from >= SHARD_COUNT_MAX)
        return;
    row_number_key(&key, SHARD_KEY_IN, from);
    row_number_value(&value, number);
    state_put(s->state, buf_slice(&key), buf_slice(&value));
    s->role.inbox[from].last = number;
    buf_deinit(&key);
    buf_deinit(&value);
}

/* After opening, all that is applied being committed. */
void shard_inbox_load(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    memset(s->role.inbox, 0, sizeof s->role.inbox);
    key_begin(&prefix, SHARD_KEY_IN);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        uint32_t from;
        uint64_t number;
        if (row_number_decode(it.key, it.value, &from, &number))
            s->role.inbox[from].last = s->role.inbox[from].committed = number;
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
    for (unsigned i = 0; i < s->cfg.shard_count; i++) {
        uint64_t last = shard_outbox_next(s, (shard_id_t)i) - 1;
        if (s->outbox[i].last == 0) /* there is none that is not delivered */
            s->outbox[i].last = s->outbox[i].delivered = last;
        s->role.sent[i].left = s->role.sent[i].found = last; /* it is committed, and sent now */
        s->role.sent[i].pruned = s->outbox[i].delivered;
    }
    s->role.resend_ns = s->role.tidy_ns = clock_mono_ns(s->cfg.clock);
    s->role.acked_count = 0;
}

/* 1: to be taken; 0: it is here already; or why not. */
int shard_inbox_check(struct shard *s, shard_id_t from, uint64_t number)
{
    if (!shard_leads(s))
        return ERR_NOT_PRIMARY;
    if (from >= s->cfg.shard_count || from == s->cfg.id)
        return ERR_MALFORMED;
    if (number > s->role.inbox[from].last)
        return number == s->role.inbox[from].last + 1 || PLANTED(116) ? 1 : ERR_AGAIN;
    if (number <= s->role.inbox[from].committed) {
        s->role.inbox[from].confirmed = 0; /* once more */
        shard_inbox_confirm(s);
    }
    return 0;
}

void shard_inbox_committed(struct shard *s, shard_id_t from, uint64_t number)
{
    s->role.inbox[from].committed = MAX(s->role.inbox[from].committed, number);
}

/* An operation may wait here for what comes by another way, and what follows it from its home waits
 * behind it: that is no answer yet (N4). What counts is the state after the last committed record.
 */
void shard_inbox_confirm(struct shard *s)
{
    for (unsigned i = 0; i < s->cfg.shard_count; i++) {
        uint64_t number = s->role.inbox[i].committed;
        if (s->role.inbox[i].confirmed >= number || s->role.waits[i] >= s->committed)
            continue;
        s->role.inbox[i].confirmed = number;
        s->cfg.events.delivered(s->cfg.events.ctx, (shard_id_t)i, s->cfg.id, number);
    }
}

/* ---- the sender ---- */

void shard_inbox_left(struct shard *s, struct pending *p, shard_id_t to, uint64_t number)
{
    s->role.sent[to].left = MAX(s->role.sent[to].left, number);
    for (uint32_t i = 0; i < p->need_count; i++)
        if (p->needs[i].to == to) {
            p->needs[i].number = number;
            return;
        }
    p->needs = mem_realloc(p->needs, (p->need_count + 1) * sizeof p->needs[0]);
    p->needs[p->need_count].to = to;
    p->needs[p->need_count++].number = number;
}

static bool all_delivered(const struct shard *s, const struct pending *p)
{
    for (uint32_t i = 0; i < p->need_count; i++)
        if (s->outbox[p->needs[i].to].delivered < p->needs[i].number)
            return false;
    return true;
}

/* True: it is kept until its messages are delivered. */
bool shard_inbox_keeps(struct shard *s, struct pending *p)
{
    if (p->committed == NULL || all_delivered(s, p))
        return false;
    p->next = NULL;
    *s->role.undelivered_tail = p;
    s->role.undelivered_tail = &p->next;
    return true;
}

bool shard_inbox_sent(const struct shard *s, shard_id_t to, uint64_t number)
{
    return s->live && to < s->cfg.shard_count && number <= s->role.sent[to].left;
}

bool shard_inbox_found_is_delivered(const struct shard *s)
{
    for (unsigned i = 0; i < s->cfg.shard_count; i++)
        if (s->outbox[i].delivered < s->role.sent[i].found)
            return false;
    return true;
}

/* Somebody confirmed messages: proposals may be done by that. */
void shard_inbox_delivered(struct shard *s)
{
    s->role.resend_ns = clock_mono_ns(s->cfg.clock);
    struct pending **at = &s->role.undelivered, *done = NULL, **done_tail = &done;
    while (*at != NULL) {
        struct pending *p = *at;
        if (!all_delivered(s, p)) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        p->next = NULL;
        *done_tail = p;
        done_tail = &p->next;
    }
    s->role.undelivered_tail = at;
    while (done != NULL) {
        struct pending *p = done;
        done = p->next;
        p->committed(p->ctx, 0);
        shard_pending_free(p);
    }
    shard_roles_run(s); /* it may serve now */
}

/* Has this message left, and is it not known to be there? */
bool shard_inbox_resends(const struct shard *s, shard_id_t to, uint64_t number)
{
    return to < SHARD_COUNT_MAX && number <= s->role.sent[to].left &&
           number > s->outbox[to].delivered;
}

/* ---- once in a while ---- */

/* What a peer has acknowledged bounds the journals of all copies; until it is in a record nobody
 * knows it, and less is only kept for longer. */
void shard_inbox_acked(struct shard *s, site_id_t peer, uint64_t index)
{
    uint32_t i = 0;
    while (i < s->role.acked_count && s->role.acked[i].peer != peer)
        i++;
    if (!shard_leads(s) || i == SITE_COUNT_MAX)
        return; /* it says so again */
    if (i == s->role.acked_count) {
        s->role.acked_count++;
        s->role.acked[i].peer = peer;
        s->role.acked[i].index = 0;
    }
    s->role.acked[i].index = MAX(s->role.acked[i].index, index);
}

struct tidy {
    struct local_pair pairs[TIDY_PAIRS];
    struct buf keys[TIDY_PAIRS], values[TIDY_PAIRS];
    uint64_t pruned[SHARD_COUNT_MAX]; /* before */
    uint32_t count;
};

static void tidy_add(struct tidy *t)
{
    t->pairs[t->count].key = buf_slice(&t->keys[t->count]);
    t->count++;
}

static void tidy_outbox(struct shard *s, struct tidy *t)
{
    for (unsigned to = 0; to < s->cfg.shard_count; to++)
        while (s->role.sent[to].pruned < s->outbox[to].delivered && t->count < TIDY_PAIRS) {
            row_outbox_key(&t->keys[t->count], (shard_id_t)to, ++s->role.sent[to].pruned);
            tidy_add(t);
        }
}

static void tidy_results(struct shard *s, struct tidy *t)
{
    uint64_t session, number;
    while (t->count < TIDY_PAIRS && shard_result_take_acked(s, &session, &number)) {
        row_result_key(&t->keys[t->count], session, number);
        tidy_add(t);
    }
}

static void tidy_acked(struct shard *s, struct tidy *t)
{
    for (uint32_t i = 0; i < s->role.acked_count && t->count < TIDY_PAIRS; i++) {
        if (s->role.acked[i].index <= shard_peer_ack(s, s->role.acked[i].peer))
            continue;
        row_number_key(&t->keys[t->count], SHARD_KEY_ACKED, s->role.acked[i].peer);
        row_number_value(&t->values[t->count], s->role.acked[i].index);
        t->pairs[t->count].value = buf_slice(&t->values[t->count]);
        tidy_add(t);
    }
}

/* If the record is not written, results that it would have taken out stay until the next leader. */
static void tidy(struct shard *s)
{
    struct tidy *t = mem_calloc(1, sizeof *t);
    for (unsigned i = 0; i < s->cfg.shard_count; i++)
        t->pruned[i] = s->role.sent[i].pruned;
    tidy_outbox(s, t);
    tidy_results(s, t);
    tidy_acked(s, t);
    int rc = t->count > 0 ? shard_local(s, t->pairs, t->count, NULL, NULL) : 0;
    for (unsigned i = 0; i < s->cfg.shard_count && rc != 0; i++)
        s->role.sent[i].pruned = t->pruned[i];
    for (uint32_t i = 0; i < TIDY_PAIRS; i++) {
        buf_deinit(&t->keys[i]);
        buf_deinit(&t->values[i]);
    }
    mem_free(t);
}

void shard_inbox_tick(struct shard *s)
{
    uint64_t now = clock_mono_ns(s->cfg.clock);
    bool under_way = false;
    for (unsigned i = 0; i < s->cfg.shard_count; i++)
        under_way = under_way || s->outbox[i].delivered < s->role.sent[i].left;
    if (under_way && now - s->role.resend_ns >= RESEND_NS) {
        s->role.resend_ns = now;
        shard_resend(s);
    }
    if (now - s->role.tidy_ns >= TIDY_NS) {
        s->role.tidy_ns = now;
        tidy(s);
    }
}
