/* Worlds: issuing, shipping and delivering operations; users are in merge_world_user.c, checkers in
 * merge_world_check.c. */
#include "tests/unit/journal/merge_world.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/journal/merge_world_int.h"

_Noreturn void world_fail(const struct world *w, const char *what, const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: seed %llu, %u sites, %u shards: %s\n", file, line,
                  (unsigned long long)w->seed, w->site_count, w->shard_count, what);
    abort();
}

uint64_t world_draw(struct world *w)
{
    w->rng ^= w->rng << 13;
    w->rng ^= w->rng >> 7;
    w->rng ^= w->rng << 17;
    return w->rng >> 11;
}

static void letter(void *ctx, site_id_t site, char out[33])
{
    (void)ctx;
    out[0] = (char)site;
    out[1] = '\0';
}

static void
push(struct world_site *s, struct world_queue *q, const struct world_op *op, struct slice derived)
{
    struct world_message *m = mem_calloc(1, sizeof *m);
    m->op = op;
    buf_append(&m->derived, derived.ptr, derived.len);
    if (q->tail != NULL)
        q->tail->next = m;
    else
        q->head = m;
    q->tail = m;
    s->waiting++;
}

static void pop(struct world_site *s, struct world_queue *q)
{
    struct world_message *m = q->head;
    q->head = m->next;
    if (q->head == NULL)
        q->tail = NULL;
    buf_deinit(&m->derived);
    mem_free(m);
    s->waiting--;
}

static void on_send(void *ctx, shard_id_t to, struct slice derived)
{
    struct world_port *port = ctx;
    WORLD_CHECK(port->site->world, to < port->site->world->shard_count && to != port->from);
    push(port->site, &port->site->derived[port->from][to], NULL, derived);
}

static void on_conflict(void *ctx, const struct conflict *c)
{
    struct world_port *port = ctx;
    WORLD_CHECK(port->site->world, c->rule >= 2 && c->rule <= 8);
    port->site->conflicts[c->rule]++;
}

static struct world_site *site_new(struct world *w, unsigned i)
{
    struct world_site *s = mem_calloc(1, sizeof *s);
    s->world = w;
    s->id = 'A' + i;
    for (unsigned k = 0; k < w->shard_count; k++) {
        s->ports[k] = (struct world_port){.site = s, .from = (shard_id_t)k};
        struct merge_config c = {
            .shard = (shard_id_t)k,
            .shard_count = w->shard_count,
            .site = s->id,
            .events = {.send = on_send, .conflict = on_conflict, .ctx = &s->ports[k]},
            .site_name = letter};
        int rc = state_open(&s->states[k], NULL);
        WORLD_CHECK(w, rc == 0);
        c.state = s->states[k];
        rc = merge_open(&s->shards[k], &c);
        WORLD_CHECK(w, rc == 0);
    }
    return s;
}

static void queue_clear(struct world_site *s, struct world_queue *q)
{
    while (q->head != NULL)
        pop(s, q);
}

static void site_free(struct world_site *s)
{
    unsigned n = s->world->shard_count;
    for (unsigned k = 0; k < n; k++) {
        merge_free(s->shards[k]);
        state_free(s->states[k]);
        for (unsigned i = 0; i < WORLD_SITES_MAX; i++) {
            queue_clear(s, &s->home[k][i]);
            for (unsigned to = 0; to < n; to++)
                queue_clear(s, &s->parts[k][to][i]);
        }
        for (unsigned to = 0; to < n; to++)
            queue_clear(s, &s->derived[k][to]);
    }
    mem_free(s->stream);
    mem_free(s);
}

struct world *world_new(unsigned site_count, unsigned shard_count, uint64_t seed)
{
    ASSERT(site_count <= WORLD_SITES_MAX && shard_count <= WORLD_SHARDS_MAX);
    struct world *w = mem_calloc(1, sizeof *w);
    w->site_count = site_count;
    w->shard_count = shard_count;
    w->seed = seed;
    w->rng = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++)
        (void)world_draw(w);
    for (unsigned i = 0; i < site_count; i++)
        w->sites[i] = site_new(w, i);
    return w;
}

void world_free(struct world *w)
{
    for (unsigned i = 0; i < w->site_count; i++)
        site_free(w->sites[i]);
    for (uint32_t i = 0; i < w->op_count; i++) {
        buf_deinit(&w->ops[i]->bytes);
        op_arena_deinit(&w->ops[i]->arena);
        mem_free(w->ops[i]);
    }
    mem_free(w->ops);
    mem_free(w);
}

struct merge *site_shard(struct world_site *s, struct oid oid)
{
    return s->shards[oid_shard(oid)];
}

/* ---- issuing ---- */

/* The shard that journals it; see merge_world.h. */
static shard_id_t home_of(const struct effect *e, uint32_t count)
{
    shard_id_t home = oid_shard(e[0].oid);
    for (uint32_t i = 0; i < count; i++)
        if (e[i].kind == EFFECT_MOVE)
            return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (e[i].kind == EFFECT_ENTER)
            home = oid_shard(e[i].parent);
        if (e[i].kind == EFFECT_BIRTH)
            home = oid_shard(e[i].birth.parent);
    }
    return home;
}

/* Applied at its home: into the stream, and to the other shards with a part of it. */
static void op_applied(struct world_site *s, const struct world_op *op)
{
    struct shard_set set;
    if (s->stream_count == s->stream_cap) {
        s->stream_cap = s->stream_cap == 0 ? 256 : s->stream_cap * 2;
        s->stream = mem_realloc(s->stream, s->stream_cap * sizeof *s->stream);
    }
    s->stream[s->stream_count++] = op;
    s->hlc = MAX(s->hlc, op->op.stamp.hlc);
    op_shards(&op->op, &set);
    for (unsigned to = 0; to < s->world->shard_count; to++)
        if (to != op->op.dot.shard && shard_set_has(&set, (shard_id_t)to))
            push(s, &s->parts[op->op.dot.shard][to][op->op.dot.site - 'A'], op, slice_of(NULL, 0));
}

void site_issue_at(struct world_site *s, struct op_builder *b, shard_id_t home)
{
    struct world *w = s->world;
    struct world_op *op = mem_calloc(1, sizeof *op);
    s->hlc = MAX(s->hlc + 1, s->skew);
    op->op = (struct op){.stamp = {.hlc = s->hlc, .site = s->id},
                         .time_ns = (int64_t)s->hlc * 1000,
                         .effects = b->effects,
                         .effect_count = b->count};
    op->op.dot = (struct dot){.shard = home, .site = s->id};
    op->op.dot.seq = merge_seen(s->shards[home], home, s->id) + 1;
    op_encode(&op->op, &op->bytes);
    int rc = op_decode(buf_slice(&op->bytes), &op->arena, &op->op);
    WORLD_CHECK(w, rc == 0);
    if (w->op_count == w->op_cap) {
        w->op_cap = w->op_cap == 0 ? 256 : w->op_cap * 2;
        w->ops = mem_realloc(w->ops, w->op_cap * sizeof(struct world_op *));
    }
    w->ops[w->op_count++] = op;
    WORLD_CHECK(w, merge_ready(s->shards[home], &op->op, NULL));
    rc = merge_apply(s->shards[home], &op->op);
    WORLD_CHECK(w, rc == 0);
    s->issued++;
    op_applied(s, op);
    op_builder_deinit(b);
}

void site_issue(struct world_site *s, struct op_builder *b)
{
    site_issue_at(s, b, home_of(b->effects, b->count));
}

/* ---- delivering ---- */

static bool committed(void *ctx, struct dot d)
{
    struct world_site *s = ctx;
    return merge_seen(s->shards[d.shard], d.shard, d.site) >= d.seq;
}

static bool deliver_op(struct world_site *s, struct world_queue *q, unsigned to, bool home)
{
    if (q->head == NULL)
        return false;
    const struct world_op *op = q->head->op;
    struct merge *m = s->shards[to];
    bool seen = merge_seen(m, op->op.dot.shard, op->op.dot.site) >= op->op.dot.seq;
    if (!seen && !merge_ready(m, &op->op, NULL))
        return false;
    if (home && !op_dots_applied(&op->op, committed, s, NULL))
        return false;
    int rc = merge_apply(m, &op->op);
    WORLD_CHECK(s->world, rc == 0);
    pop(s, q);
    if (home && !seen)
        op_applied(s, op);
    return true;
}

static bool deliver_derived(struct world_site *s, struct world_queue *q, unsigned to)
{
    if (q->head == NULL)
        return false;
    int rc = merge_apply_derived(s->shards[to], buf_slice(&q->head->derived));
    WORLD_CHECK(s->world, rc == 0);
    if (world_below(s->world, 8) != 0) /* else it comes again, as after a crash */
        pop(s, q);
    return true;
}

/* The queue with a number: homes, then parts, then derived. */
static bool deliver_from(struct world_site *s, unsigned i)
{
    unsigned n = s->world->shard_count;
    unsigned sites = s->world->site_count;
    if (i < n * sites)
        return deliver_op(s, &s->home[i / sites][i % sites], i / sites, true);
    i -= n * sites;
    if (i < n * n * sites) {
        unsigned from = i / sites / n;
        unsigned to = i / sites % n;
        return deliver_op(s, &s->parts[from][to][i % sites], to, false);
    }
    i -= n * n * sites;
    return deliver_derived(s, &s->derived[i / n][i % n], i % n);
}

static bool deliver_one(struct world_site *s)
{
    unsigned n = s->world->shard_count;
    unsigned count = n * s->world->site_count * (n + 1) + n * n;
    unsigned start = world_below(s->world, count);
    for (unsigned i = 0; i < count; i++)
        if (deliver_from(s, (start + i) % count))
            return true;
    return false;
}

void site_deliver(struct world_site *s, uint32_t count)
{
    while (count-- > 0 && s->waiting > 0)
        if (!deliver_one(s))
            return;
}

/* Says what each blocked queue waits for. */
static void explain_blocked(struct world_site *s, const struct world_queue *q, unsigned to)
{
    struct dot missing = {.seq = 0};
    char op[DOT_TEXT_LEN];
    char dot[DOT_TEXT_LEN];
    if (q->head == NULL)
        return;
    if (merge_ready(s->shards[to], &q->head->op->op, &missing))
        (void)op_dots_applied(&q->head->op->op, committed, s, &missing);
    dot_to_text(q->head->op->op.dot, op);
    dot_to_text(missing, dot);
    (void)fprintf(stderr, "site %c: shard %u: operation %s waits for %s\n", (char)s->id, to, op,
                  dot);
}

static _Noreturn void blocked(struct world_site *s)
{
    for (unsigned to = 0; to < s->world->shard_count; to++)
        for (unsigned o = 0; o < s->world->site_count; o++) {
            explain_blocked(s, &s->home[to][o], to);
            for (unsigned from = 0; from < s->world->shard_count; from++)
                explain_blocked(s, &s->parts[from][to][o], to);
        }
    world_fail(s->world, "deliveries wait for each other", __FILE__, __LINE__);
}

void site_settle(struct world_site *s)
{
    while (s->waiting > 0)
        if (!deliver_one(s))
            blocked(s);
}

static bool is_barrier(const struct world_op *op)
{
    for (uint32_t i = 0; i < op->op.effect_count; i++)
        if (op->op.effects[i].kind == EFFECT_MOVE)
            return true;
    return false;
}

uint32_t site_pull(struct world_site *s, struct world_site *peer, uint32_t limit)
{
    uint32_t *at = &s->taken[peer->id - 'A'];
    uint32_t count = 0;
    for (; *at < peer->stream_count && count < limit; ++*at) {
        const struct world_op *op = peer->stream[*at];
        shard_id_t home = op->op.dot.shard;
        if (merge_seen(s->shards[home], home, op->op.dot.site) >= op->op.dot.seq)
            continue;
        /* A directory move is a barrier in the stream (P7). */
        bool barrier = !s->world->rough && is_barrier(op);
        if (barrier)
            site_settle(s);
        push(s, &s->home[home][op->op.dot.site - 'A'], op, slice_of(NULL, 0));
        if (barrier)
            site_settle(s);
        count++;
    }
    return count;
}

bool site_repair(struct world_site *s, bool take_over)
{
    struct repair_due due = {.due_before_hlc = take_over ? UINT64_MAX : 0};
    bool any = false;
    for (unsigned k = 0; k < s->world->shard_count; k++) {
        struct op_builder b = {.effects = NULL};
        uint64_t next;
        uint32_t rounds = 0;
        while (merge_repair(s->shards[k], &due, &b, &next)) {
            site_issue_at(s, &b, (shard_id_t)k);
            any = true;
            WORLD_CHECK(s->world, ++rounds < 10000);
        }
        op_builder_deinit(&b);
    }
    return any;
}

void world_drain(struct world *w, bool take_over)
{
    for (uint32_t rounds = 0;; rounds++) {
        bool moved = false;
        WORLD_CHECK(w, rounds < 1000);
        for (unsigned i = 0; i < w->site_count; i++) {
            struct world_site *s = w->sites[i];
            if (s->lost)
                continue;
            for (unsigned k = 0; k < w->site_count; k++)
                if (k != i && !w->sites[k]->lost)
                    moved |= site_pull(s, w->sites[k], UINT32_MAX) > 0;
            site_settle(s);
            moved |= site_repair(s, take_over);
            site_settle(s);
        }
        if (!moved)
            return;
    }
}

static bool applied_by(struct world_site *s, const struct op *op)
{
    struct shard_set set;
    op_shards(op, &set);
    for (unsigned k = 0; k < s->world->shard_count; k++)
        if (shard_set_has(&set, (shard_id_t)k) &&
            merge_seen(s->shards[k], op->dot.shard, op->dot.site) < op->dot.seq)
            return false;
    return true;
}

/* An operation that went down with its site. */
static bool is_gone(const struct world *w, const struct op *op)
{
    for (unsigned i = 0; i < w->site_count; i++)
        if (!w->sites[i]->lost && applied_by(w->sites[i], op))
            return false;
    return w->sites[op->dot.site - 'A']->lost;
}

/* Where in the issuer's own stream the last operation at or below a clock is. */
static uint32_t last_below(const struct world_site *s, uint64_t hlc)
{
    for (uint32_t i = s->stream_count; i > 0; i--)
        if (s->stream[i - 1]->op.stamp.hlc <= hlc)
            return i;
    return 0;
}

/* Was it issued by a site that had applied all at or below a clock? */
static bool issued_after(const struct world *w, const struct world_op *op, uint64_t hlc)
{
    const struct world_site *s = w->sites[op->op.dot.site - 'A'];
    for (uint32_t i = last_below(s, hlc); i > 0; i--)
        if (s->stream[i - 1] == op)
            return false;
    return true;
}

uint64_t site_stable(struct world_site *s)
{
    const struct world *w = s->world;
    uint64_t stable = UINT64_MAX;
    for (unsigned i = 0; i < w->site_count; i++)
        if (!w->sites[i]->lost)
            stable = MIN(stable, w->sites[i]->waiting > 0 ? 0 : w->sites[i]->hlc);
    for (uint32_t n = 0; n < w->op_count; n++) {
        const struct op *op = &w->ops[n]->op;
        for (unsigned i = 0; op->stamp.hlc <= stable && i < w->site_count; i++)
            if (!w->sites[i]->lost && !applied_by(w->sites[i], op) && !is_gone(w, op))
                stable = op->stamp.hlc - 1;
    }
    for (uint32_t n = 0; n < w->op_count; n++)
        if (!applied_by(s, &w->ops[n]->op) && !is_gone(w, &w->ops[n]->op) &&
            !issued_after(w, w->ops[n], stable))
            return 0;
    return stable;
}

void site_collect(struct world_site *s, uint64_t stable_hlc, uint32_t budget)
{
    for (unsigned k = 0; k < s->world->shard_count; k++)
        if (merge_owes(s->shards[k]))
            return;
    for (unsigned k = 0; k < s->world->shard_count; k++)
        while (merge_collect(s->shards[k], stable_hlc, budget, NULL, NULL) > 0)
            continue;
}
