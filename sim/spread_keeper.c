/* One node and its targets: who brings all chunks to their places. See spread.h.
 *
 *   rest -> scrub -> pass -> drop -> sweep, compact -> count -> rest
 *             ^                                          |
 *             +-- pause <---- whatever fails, or changes +
 *
 * Scrub: targets whose bits have changed read all that they have. Pass: each chunk that the front
 * does not call present is read and put. Then the list before is over, and when nobody reads by it
 * any more each store gives up what is not its own. In the end all is counted, and the checkers
 * look. */
#include "base/assert.h"
#include "sim/spread_int.h"

#define PAUSE_NS (200 * NS_PER_MS)
#define SCRUB_BYTES (64 * KIB)

static void pass_begin(struct spread *w);
static void pass_next(struct spread *w);
static void sweep_next(struct spread *w);
static void count_next(struct spread *w);

static void stage_set(struct spread *w, enum spread_stage stage)
{
    sched_note("stage", stage, w->keeper.target);
    w->keeper.stage = stage;
}

static void again(struct spread *w)
{
    stage_set(w, SPREAD_PAUSE);
    sched_in(&w->keeper.event, PAUSE_NS);
}

/* ---- scrub ---- */

static void scrub_next(struct spread *w);

static void scrub_done(struct store_scrub *s, int rc)
{
    struct spread *w = CONTAINER_OF(s, struct spread_target, scrub)->world;
    struct spread_keeper *k = &w->keeper;
    if (w->dying)
        return;
    if (rc != 0) {
        again(w);
        return;
    }
    k->wraps += s->wrapped;
    if (k->wraps == 2) { /* the first time around it may have begun anywhere */
        k->wraps = 0;
        k->target++;
    }
    scrub_next(w);
}

static void scrub_next(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    while (k->target < SPREAD_TARGETS && (k->suspects & 1u << k->target) == 0)
        k->target++;
    if (k->target == SPREAD_TARGETS) {
        pass_begin(w);
        return;
    }
    struct spread_target *t = &w->targets[k->target];
    t->scrub = (struct store_scrub){.budget_bytes = SCRUB_BYTES, .done = scrub_done};
    if (t->store == NULL || t->closing || store_scrub(t->store, &t->scrub) != 0)
        again(w);
}

static void keeper_begin(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    k->due = false;
    k->upsets_seen = w->upsets;
    k->moves_seen = w->moves;
    k->target = k->wraps = 0;
    k->suspects = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        if (w->targets[i].suspect && (w->now & 1u << i) != 0)
            k->suspects |= 1u << i;
    stage_set(w, SPREAD_SCRUB);
    scrub_next(w);
}

/* ---- pass ---- */

static void pass_over(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    if (!k->clean) {
        again(w);
        return;
    }
    for (unsigned i = 0; i < SPREAD_TARGETS && w->upsets == k->upsets_seen; i++)
        if ((k->suspects & 1u << i) != 0)
            w->targets[i].suspect = false;
    k->target = 0;
    stage_set(w, SPREAD_DROP);
    spread_list_settled(w);
    sched_in(&k->event, 0);
}

static void batch_done(struct store_has *has, int rc)
{
    struct spread_keeper *k = CONTAINER_OF(has, struct spread_keeper, has);
    struct spread *w = CONTAINER_OF(k, struct spread, keeper);
    struct spread_front *f = k->front;
    k->front = NULL;
    spread_front_leave(w, f);
    if (w->dying)
        return;
    if (rc != 0 || w->moves != k->moves_seen)
        again(w);
    else
        pass_next(w);
}

static void batch_begin(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    k->count = k->batch_at = 0;
    for (; k->at < w->count && k->count < SPREAD_BATCH; k->at++)
        if (w->chunks[k->at].live) {
            k->ids[k->count] = w->chunks[k->at].id;
            k->batch[k->count++] = k->at;
        }
    if (k->count == 0) {
        pass_over(w);
        return;
    }
    k->front = spread_front_use(w->front);
    k->has = (struct store_has){
        .ids = k->ids, .count = k->count, .present = k->present, .done = batch_done};
    int rc = front_has(k->front->front, &k->has);
    if (rc != 0)
        batch_done(&k->has, rc);
}

static void pass_put(struct spread_put *p, int rc)
{
    struct spread *w = p->world;
    w->keeper.clean = w->keeper.clean && rc == 0;
    pass_next(w);
}

static void pass_read(struct spread_read *r, int rc)
{
    struct spread *w = r->world;
    struct spread_keeper *k = &w->keeper;
    if (rc != 0) {
        k->clean = k->clean && !w->chunks[r->chunk].live;
        pass_next(w);
        return;
    }
    k->put.chunk = r->chunk;
    spread_put_begin(&k->put);
}

static void pass_next(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    if (w->moves != k->moves_seen) {
        again(w);
        return;
    }
    while (k->batch_at < k->count &&
           (k->present[k->batch_at] || !w->chunks[k->batch[k->batch_at]].live))
        k->batch_at++;
    if (k->batch_at == k->count) {
        batch_begin(w);
        return;
    }
    sched_note("bring", k->batch[k->batch_at], 0);
    spread_check_missing(w, k->batch[k->batch_at]);
    k->read.chunk = k->batch[k->batch_at++];
    k->read.from = k->read.len = 0;
    spread_read_begin(&k->read);
}

static void pass_begin(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    k->clean = true;
    k->at = 0;
    stage_set(w, SPREAD_PASS);
    batch_begin(w);
}

/* ---- drop, sweep, compact ---- */

static void drop(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    if (w->moves != k->moves_seen || w->upsets != k->upsets_seen) {
        again(w);
    } else if (w->fronts->next != NULL) { /* somebody reads by a list that is over */
        sched_in(&k->event, 10 * NS_PER_MS);
    } else {
        stage_set(w, SPREAD_SWEEP);
        sweep_next(w);
    }
}

/* Called for each chunk of a store: does it lie there by the list, and does somebody need it? */
static bool sweep_keeps(void *ctx, const struct chunk_id *id)
{
    const struct spread_target *t = ctx;
    const struct spread *w = t->world;
    uint32_t number = spread_chunk_number(id), idx[PLACEMENT_WIDTH_MAX];
    if (w->dying || w->moves != w->keeper.moves_seen)
        return true;
    if (number >= w->count || (!w->chunks[number].live && w->chunks[number].puts == 0))
        return false;
    struct target list[SPREAD_TARGETS];
    unsigned at[SPREAD_TARGETS];
    spread_list_of(w, w->now, list, at);
    struct redundancy r = {.k = 1, .copies = (uint8_t)w->copies};
    r = redundancy_fit(r, spread_domains(w, w->now));
    int rc = placement_pick(list, spread_bits(w->now), &r, id, idx);
    ASSERT_EQ(rc, 0);
    for (unsigned i = 0; i < r.copies; i++)
        if (&w->targets[at[idx[i]]] == t)
            return true;
    return false;
}

static void compact_done(struct store_compact *c, int rc)
{
    struct spread_target *t = CONTAINER_OF(c, struct spread_target, compact);
    struct spread *w = t->world;
    struct spread_keeper *k = &w->keeper;
    if (w->dying)
        return;
    if (rc != 0 && rc != ERR_AGAIN && w->upsets == k->upsets_seen && spread_bad(w) == 0)
        spread_fail(w, "P3", "target %llu cannot be compacted: %s", (unsigned long long)t->is.id,
                    err_name(rc));
    k->target++;
    stage_set(w, SPREAD_SWEEP);
    sweep_next(w);
}

static void sweep_done(struct store_sweep *s, int rc)
{
    struct spread_target *t = CONTAINER_OF(s, struct spread_target, sweep);
    struct spread *w = t->world;
    if (w->dying)
        return;
    t->compact = (struct store_compact){.done = compact_done};
    stage_set(w, SPREAD_COMPACT);
    if (rc != 0 || w->moves != w->keeper.moves_seen || t->closing ||
        store_compact(t->store, &t->compact) != 0)
        again(w);
}

static void sweep_next(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    if (w->moves != k->moves_seen) {
        again(w);
        return;
    }
    while (k->target < SPREAD_TARGETS && (w->now & 1u << k->target) == 0)
        k->target++;
    if (k->target == SPREAD_TARGETS) {
        stage_set(w, SPREAD_COUNT);
        for (uint32_t i = 0; i < w->count; i++) {
            w->chunks[i].counts = w->chunks[i].live && w->chunks[i].puts == 0;
            w->chunks[i].seen = 0;
        }
        k->target = k->at = 0;
        count_next(w);
        return;
    }
    struct spread_target *t = &w->targets[k->target];
    t->sweep = (struct store_sweep){
        .before = store_epoch_advance(t->store), .keep = sweep_keeps, .ctx = t, .done = sweep_done};
    if (store_sweep(t->store, &t->sweep) != 0)
        again(w);
}

/* ---- count ---- */

static void count_done(struct store_has *has, int rc)
{
    struct spread_keeper *k = CONTAINER_OF(has, struct spread_keeper, has);
    struct spread *w = CONTAINER_OF(k, struct spread, keeper);
    if (w->dying)
        return;
    if (rc != 0) {
        again(w);
        return;
    }
    for (uint32_t i = 0; i < k->count; i++)
        w->chunks[k->batch[i]].seen |= (uint32_t)k->present[i] << k->target;
    count_next(w);
}

static void counted(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    if (w->moves != k->moves_seen || w->upsets != k->upsets_seen || spread_bad(w) != 0) {
        again(w);
        return;
    }
    spread_check_counted(w);
    w->counts++;
    stage_set(w, SPREAD_REST);
    if (k->due)
        sched_in(&k->event, 0);
}

static void count_next(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    if (w->moves != k->moves_seen) {
        again(w);
        return;
    }
    k->count = 0;
    while (k->count == 0 && k->target < SPREAD_TARGETS) {
        for (; (w->now & 1u << k->target) != 0 && k->at < w->count && k->count < SPREAD_BATCH;
             k->at++)
            if (w->chunks[k->at].counts) {
                k->ids[k->count] = w->chunks[k->at].id;
                k->batch[k->count++] = k->at;
            }
        if (k->count == 0) {
            k->target++;
            k->at = 0;
        }
    }
    if (k->target == SPREAD_TARGETS) {
        counted(w);
        return;
    }
    k->has = (struct store_has){
        .ids = k->ids, .count = k->count, .present = k->present, .done = count_done};
    if (store_has(w->targets[k->target].store, &k->has) != 0)
        again(w);
}

/* ---- when ---- */

static void keeper_run(struct sched_event *e)
{
    struct spread *w = CONTAINER_OF(e, struct spread, keeper.event);
    struct spread_keeper *k = &w->keeper;
    if (w->loop == NULL)
        return;
    if (k->stage == SPREAD_DROP)
        drop(w);
    else if (k->stage == SPREAD_PAUSE || (k->stage == SPREAD_REST && k->due))
        keeper_begin(w);
}

void spread_keeper_init(struct spread *w)
{
    struct spread_keeper *k = &w->keeper;
    k->event.run = keeper_run;
    k->read.world = k->put.world = w;
    k->read.done = pass_read;
    k->put.done = pass_put;
}

void spread_keeper_due(struct spread *w)
{
    w->keeper.due = true;
    if (w->keeper.stage == SPREAD_REST && w->loop != NULL)
        sched_in(&w->keeper.event, 10 * NS_PER_MS);
}

void spread_keeper_dropped(struct spread *w)
{
    w->keeper.stage = SPREAD_REST;
    w->keeper.due = true;
    sched_cancel(&w->keeper.event);
}

bool spread_rests(const struct spread *w)
{
    return w->loop != NULL && w->keeper.stage == SPREAD_REST && !w->keeper.due;
}
