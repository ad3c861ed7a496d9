/* A shard's place among the replicas of its journal: runs the core of site/replica.h over the
 * journal and the site's coordinator.
 *
 * Normal path, one node: opening takes the shard over (a higher epoch in the record); from then on
 * whatever the disk has is committed, in the same call. Failure path: the record cannot be read or
 * written, and the shard does not open. The record of a one-node site is a local file under the
 * directory's lock, so its lease has no end and is never asked for again.
 *
 * Several nodes (shard_peers.h): what the core wants is carried out at once where it concerns the
 * journal, the network or the coordinator; what it means for the state (committed, stepped down,
 * serves) is done when all effects are carried out, by shard_roles_run(), because that calls back.
 * What carrying out leads to (durable, read, broken) is told to the core afterwards, in order. */
#include <string.h>

#include "site/shard_int.h"
#include "site/shard_peers.h"

#define READ_BYTES ((size_t)(256u * KIB))

struct told { /* an event that has to wait until the effects before it are carried out */
    struct replica_event event;
    struct buf bytes;
    struct told *next;
};

static bool is_alone(const struct shard *s)
{
    return s->cfg.peers == NULL;
}

static uint64_t now_ns(const struct shard *s)
{
    return is_alone(s) ? 0 : clock_mono_ns(s->cfg.clock);
}

static void later(struct shard *s, struct replica_event e, struct buf *bytes)
{
    struct told *t = mem_calloc(1, sizeof *t);
    t->event = e;
    if (bytes != NULL)
        buf_move(&t->bytes, bytes);
    struct told **at = &s->role.told;
    while (*at != NULL)
        at = &(*at)->next;
    *at = t;
}

/* ---- effects ---- */

static void broken(struct shard *s, int rc, const char *what)
{
    shard_fail(s, rc, what); /* tells the core */
}

static bool collect(void *ctx, const struct log_record *record)
{
    return replica_records_add(ctx, record->epoch, record->payload);
}

static void read_log(struct shard *s, const struct replica_effect *f)
{
    struct buf b = {0};
    uint64_t next;
    replica_records_begin(&b);
    int rc = log_read(s->log, f->index, READ_BYTES, collect, &b, &next);
    struct replica_event e = {.kind = REPLICA_READ, .node = f->node, .index = f->index, .rc = rc};
    later(s, e, &b);
    buf_deinit(&b);
    if (rc != 0 && rc != ERR_NOT_FOUND)
        broken(s, rc, "the journal cannot be read");
}

/* Stamps of commits rise with the index (record.h). Not all are stamps of operations, which the
 * state knows, and this clock may be behind them. */
static void stamp_see(struct hlc *hlc, struct slice payload)
{
    struct record r;
    if (record_decode(payload, &r) == 0) /* else replay says so */
        hlc_see(hlc, r.commit_hlc);
}

static void append(struct shard *s, const struct replica_effect *f)
{
    uint64_t index = 0;
    if (s->failed)
        return;
    stamp_see(s->cfg.hlc, f->bytes);
    log_epoch_set(s->log, f->epoch);
    int rc = log_append(s->log, &f->bytes, 1, &index);
    if (rc != 0)
        broken(s, rc, "a record of the primary cannot be written");
    else
        ASSERT_EQ(index, f->index);
}

static void cut(struct shard *s, uint64_t index)
{
    int rc = s->failed ? 0 : log_cut(s->log, index);
    if (rc != 0)
        broken(s, rc, "the journal cannot be cut");
}

static void carry_out(struct shard *s, const struct replica_effect *f)
{
    const struct shard_peers *p = s->cfg.peers;
    switch (f->kind) {
    case REPLICA_COMMIT:
        *(is_alone(s) ? &s->written : &s->committed) = f->index;
        return;
    case REPLICA_LEAD:
        log_epoch_set(s->log, f->epoch);
        return;
    case REPLICA_SERVE:
        hlc_see(s->cfg.hlc, f->stamp);
        s->role.serve_due = true;
        return;
    case REPLICA_ASK:
    case REPLICA_SWAP:
        s->role.asks = f;
        if (p != NULL && f->kind == REPLICA_ASK)
            p->ask(p->ctx, s->cfg.id, f->request);
        else if (p != NULL)
            p->swap(p->ctx, s->cfg.id, f->request, &f->record);
        return;
    case REPLICA_SEND:
        p->send(p->ctx, s->cfg.id, f->node, f->bytes);
        return;
    case REPLICA_APPEND:
        append(s, f);
        return;
    case REPLICA_CUT:
        cut(s, f->index);
        return;
    case REPLICA_READ_LOG:
        read_log(s, f);
        return;
    case REPLICA_STEP_DOWN:
        s->role.down_due = true;
        s->role.down_to = f->index;
        s->role.serve_due = false;
        return;
    case REPLICA_COPY:
        s->role.copy_due = f->node;
        return;
    }
    UNREACHABLE();
}

/* ---- events ---- */

static int step(struct shard *s, struct replica_event e)
{
    e.now_ns = MAX(now_ns(s), s->role.now_ns);
    s->role.now_ns = e.now_ns;
    if (!is_alone(s))
        e.stamp = MAX(s->cfg.hlc->last, hlc_from_wall(clock_wall_ns(s->cfg.clock)));
    /* A cut or a reset may have taken back what was reported before it. */
    if (e.kind == REPLICA_DURABLE)
        e.index = log_durable(s->log);
    ASSERT(!s->role.stepping);
    s->role.stepping = true;
    s->role.asks = NULL;
    int rc = replica_step(s->replica, &e, &s->effects);
    for (uint32_t i = 0; i < s->effects.count; i++)
        carry_out(s, &s->effects.at[i]);
    s->role.stepping = false;
    return rc;
}

/* Tells the core one thing, and what that leads to. */
static int tell(struct shard *s, struct replica_event e)
{
    if (s->replica == NULL || s->closing)
        return 0;
    if (s->role.stepping) {
        ASSERT(e.bytes.ptr == NULL);
        later(s, e, NULL);
        return 0;
    }
    int rc = step(s, e);
    while (s->role.told != NULL) {
        struct told *t = s->role.told;
        s->role.told = t->next;
        t->event.bytes = buf_slice(&t->bytes);
        int got = step(s, t->event);
        ASSERT(got == 0 || t->event.kind == REPLICA_READ);
        buf_deinit(&t->bytes);
        mem_free(t);
    }
    return rc;
}

void shard_replica_appended(struct shard *s, uint64_t index, struct slice bytes)
{
    int rc =
        tell(s, (struct replica_event){.kind = REPLICA_APPENDED, .index = index, .bytes = bytes});
    ASSERT(rc == 0);
}

void shard_replica_durable(struct shard *s, uint64_t index)
{
    int rc = tell(s, (struct replica_event){.kind = REPLICA_DURABLE, .index = index});
    ASSERT(rc == 0);
}

void shard_replica_broken(struct shard *s)
{
    if (!is_alone(s))
        (void)tell(s, (struct replica_event){.kind = REPLICA_BROKEN});
}

void shard_replica_copied(struct shard *s, uint64_t first, uint64_t life)
{
    int rc = tell(s, (struct replica_event){.kind = REPLICA_COPIED, .index = first, .life = life});
    ASSERT(rc == 0);
}

void shard_replica_served(struct shard *s, uint64_t node, uint64_t first)
{
    int rc = tell(s, (struct replica_event){.kind = REPLICA_SERVED, .node = node, .index = first});
    ASSERT(rc == 0);
}

void shard_replica_free(struct shard *s)
{
    while (s->role.told != NULL) {
        struct told *t = s->role.told;
        s->role.told = t->next;
        buf_deinit(&t->bytes);
        mem_free(t);
    }
    replica_free(s->replica);
    replica_effects_deinit(&s->effects);
}

bool shard_leads(struct shard *s)
{
    if (is_alone(s))
        return true;
    /* Of the same moment as what is told to the core next: else the lease could end in between. */
    s->role.now_ns = MAX(s->role.now_ns, now_ns(s));
    return s->live && !s->failed && replica_serves(s->replica, s->role.now_ns);
}

/* ---- from outside ---- */

bool shard_serves(const struct shard *s)
{
    return is_alone(s) ||
           (s->role.open && !s->failed && replica_serves(s->replica, clock_mono_ns(s->cfg.clock)));
}

uint64_t shard_primary(const struct shard *s)
{
    return replica_primary(s->replica);
}

uint64_t shard_epoch(const struct shard *s)
{
    return replica_epoch(s->replica);
}

uint64_t shard_promise(struct shard *s)
{
    struct shard_durable d;
    shard_durable(s, &d);
    hlc_see(s->cfg.hlc, hlc_from_wall(clock_wall_ns(s->cfg.clock)));
    return MIN(d.floor_hlc, replica_promise(s->replica, s->cfg.hlc->last));
}

const struct replica *shard_replica(const struct shard *s)
{
    return s->replica;
}

int shard_peer_message(struct shard *s, uint64_t node, struct slice bytes)
{
    static const uint8_t magic[2] = {'R', 'C'};
    int rc;
    ASSERT(!s->role.stepping);
    if (s->failed || s->closing)
        return 0;
    if (bytes.len >= sizeof magic && slice_equal(slice_of(bytes.ptr, 2), slice_of(magic, 2)))
        rc = shard_copy_message(s, node, bytes);
    else
        rc = tell(s, (struct replica_event){.kind = REPLICA_MESSAGE, .node = node, .bytes = bytes});
    shard_roles_run(s);
    return rc;
}

void shard_coordinator_says(
    struct shard *s, uint64_t request, bool swapped, int rc, const struct shard_record *record)
{
    struct replica_event e = {.kind = swapped ? REPLICA_SWAPPED : REPLICA_RECORD,
                              .request = request,
                              .rc = rc,
                              .record = record};
    rc = tell(s, e);
    ASSERT(rc == 0);
    shard_roles_run(s);
}

void shard_resign(struct shard *s)
{
    if (!is_alone(s)) {
        (void)tell(s, (struct replica_event){.kind = REPLICA_RESIGN});
        shard_roles_run(s);
    }
}

static void on_tick(struct loop_timer *t)
{
    struct shard *s = CONTAINER_OF(t, struct shard, role.tick);
    int rc = tell(s, (struct replica_event){.kind = REPLICA_TICK});
    ASSERT(rc == 0);
    shard_roles_tick(s);
    shard_roles_run(s);
    loop_timer_start(s->cfg.loop, t, MAX(replica_deadline_ns(s->replica), now_ns(s) + NS_PER_MS));
}

/* ---- opening ---- */

struct runs {
    struct replica_run at[REPLICA_EPOCHS_MAX];
    uint32_t count;
    struct hlc *hlc;
};

static bool run_seen(void *ctx, const struct log_record *record)
{
    struct runs *r = ctx;
    stamp_see(r->hlc, record->payload);
    if (r->count > 0 && r->at[r->count - 1].epoch == record->epoch)
        return true;
    if (r->count == REPLICA_EPOCHS_MAX) /* the oldest is committed, or will be copied */
        memmove(r->at, r->at + 1, --r->count * sizeof r->at[0]);
    r->at[r->count++] = (struct replica_run){.first = record->index, .epoch = record->epoch};
    return true;
}

/* Alone, all that matters of the journal's past is that a new epoch and new stamps are above it,
 * also when the coordinator's record was lost. Others have to be told where their journals differ
 * from it. */
static int runs_read(struct shard *s, struct runs *r, struct err_detail *d)
{
    uint64_t last = log_last(s->log), next = is_alone(s) ? last : log_first(s->log);
    int rc = 0;
    while (rc == 0 && next <= last && last >= log_first(s->log))
        rc = log_read(s->log, next, is_alone(s) ? 1 : 8 * MIB, run_seen, r, &next);
    if (rc != 0)
        err_detail_set(d, "shard %u: journal record %llu: %s", s->cfg.id, (unsigned long long)next,
                       err_text(rc));
    return rc;
}

static int take_over(struct shard *s, struct err_detail *d)
{
    struct replica_event e = {.kind = REPLICA_TICK};
    struct shard_record record = {0};
    int rc = 0;
    for (;;) {
        rc = tell(s, e);
        const struct replica_effect *asks = s->role.asks;
        if (rc != 0 || asks == NULL)
            break;
        e = (struct replica_event){.kind = REPLICA_RECORD, .request = asks->request};
        e.record = &record;
        if (asks->kind == REPLICA_ASK) {
            rc = coordinator_get(s->cfg.coordinator, s->cfg.id, &record, d);
        } else {
            e.kind = REPLICA_SWAPPED;
            rc = coordinator_swap(s->cfg.coordinator, s->cfg.id, asks->record.version,
                                  &asks->record, d);
        }
        if (rc != 0)
            return rc;
    }
    s->committed = s->noted = s->written; /* nothing is pending, and all there is is whole (S22) */
    if (replica_serves(s->replica, 0))
        return 0;
    err_detail_set(d,
                   "shard %u is kept by node %llx, says %s/coordinator: restore that directory, or "
                   "remove the record if the node is gone",
                   s->cfg.id, (unsigned long long)record.primary, s->cfg.dir);
    return ERR_NOT_PRIMARY;
}

int shard_replica_open(struct shard *s, struct err_detail *d)
{
    struct runs *runs = mem_calloc(1, sizeof *runs);
    runs->hlc = s->cfg.hlc;
    const struct shard_peers *p = s->cfg.peers;
    int rc = runs_read(s, runs, d);
    struct replica_config c = {.node = s->cfg.site,
                               .nodes = {s->cfg.site},
                               .node_count = 1,
                               .life = 1,
                               .founder = true,
                               .lease_ns = REPLICA_LEASE_ENDLESS,
                               .last = log_last(s->log),
                               .commit = state_stored_index(s->state),
                               .runs = runs->at,
                               .run_count =
                                   runs->count > 0 && runs->at[0].epoch > 0 ? runs->count : 0};
    if (p != NULL) {
        c.node = p->node;
        memcpy(c.nodes, p->nodes, sizeof c.nodes);
        c.node_count = p->node_count;
        c.life = s->role.life;
        c.founder = p->founder;
        c.blank = s->role.blank;
        c.lease_ns = p->lease_ns;
        c.beat_ns = p->beat_ns;
        c.silence_ns = p->silence_ns;
        c.answer_ns = p->answer_ns;
    }
    s->committed = s->written = c.commit;
    s->role.now_ns = now_ns(s);
    if (rc == 0)
        s->replica = replica_new(&c);
    mem_free(runs);
    if (rc != 0 || p == NULL)
        return rc != 0 ? rc : take_over(s, d);
    s->role.tick.fire = on_tick;
    loop_timer_start(s->cfg.loop, &s->role.tick, now_ns(s) + NS_PER_MS);
    return 0;
}
