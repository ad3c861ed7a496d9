/* One node and its targets: the node, and a run. See spread.h. */
#include "sim/spread.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/spread_int.h"

#define EPOCH_NS (UINT64_C(1700000000) * NS_PER_SEC)
#define WORK_NS_MAX (300 * NS_PER_SEC)
#define SETTLE_NS (120 * NS_PER_SEC)
#define LOOK_NS NS_PER_SEC

void spread_fail(struct spread *w, const char *promise, const char *fmt, ...)
{
    va_list args;
    if (!spread_good(w))
        return;
    int used = snprintf(w->failure, sizeof w->failure, "%s: %.3f s: ", promise,
                        (double)sched->now_ns / 1e9);
    va_start(args, fmt);
    (void)vsnprintf(w->failure + used, sizeof w->failure - (size_t)used, fmt, args); /* cut */
    va_end(args);
}

static uint64_t mono_ns(void *ctx)
{
    (void)ctx;
    return sched->now_ns + NS_PER_SEC;
}

static uint64_t wall_ns(void *ctx)
{
    return EPOCH_NS + mono_ns(ctx);
}

/* ---- lists of targets ---- */

unsigned spread_domains(const struct spread *w, uint32_t mask)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        bool first = (mask & 1u << i) != 0;
        for (unsigned k = 0; k < i && first; k++)
            first = (mask & 1u << k) == 0 || w->targets[k].is.domain != w->targets[i].is.domain;
        count += first;
    }
    return count;
}

unsigned spread_width(const struct spread *w, uint32_t mask)
{
    return MIN(w->copies, spread_domains(w, mask));
}

uint32_t spread_bad(const struct spread *w)
{
    uint32_t bad = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        const struct spread_target *t = &w->targets[i];
        if (((w->now | w->before) & 1u << i) != 0 &&
            (t->dead || t->away || t->suspect || t->bad_until_ns > sched->now_ns))
            bad |= 1u << i;
    }
    return bad;
}

void spread_list_of(const struct spread *w,
                    uint32_t mask,
                    struct target ret[SPREAD_TARGETS],
                    unsigned ret_at[SPREAD_TARGETS])
{
    unsigned count = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        if ((mask & 1u << i) != 0) {
            ret_at[count] = i;
            ret[count++] = w->targets[i].is;
        }
}

static struct spread_front *front_make(struct spread *w, uint32_t mask)
{
    struct front_target targets[SPREAD_TARGETS];
    unsigned count = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        if ((mask & 1u << i) != 0)
            targets[count++] =
                (struct front_target){.target = w->targets[i].is, .store = w->targets[i].store};
    for (unsigned i = count; i > 1; i--) { /* the order is of no consequence */
        unsigned k = (unsigned)spread_below(i);
        struct front_target swap = targets[i - 1];
        targets[i - 1] = targets[k];
        targets[k] = swap;
    }
    struct redundancy r = {.k = 1, .copies = (uint8_t)w->copies};
    r = redundancy_fit(r, spread_domains(w, mask));
    struct spread_front *f = mem_calloc(1, sizeof *f);
    f->mask = mask;
    f->users = 1;
    f->next = w->fronts;
    w->fronts = f;
    int rc = front_new(&f->front, targets, count, &r);
    if (rc != 0)
        spread_fail(w, "setup", "no front for %u targets: %s", count, err_name(rc));
    return f;
}

struct spread_front *spread_front_use(struct spread_front *f)
{
    f->users++;
    return f;
}

static void target_closed(void *ctx)
{
    struct spread_target *t = ctx;
    t->store = NULL;
    t->closing = false;
    sched_note("target closed", t->is.id, 0);
}

/* Stores that are in no list and in no front. */
static void stores_trim(struct spread *w)
{
    uint32_t used = w->now | w->before;
    for (const struct spread_front *f = w->fronts; f != NULL; f = f->next)
        used |= f->mask;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        struct spread_target *t = &w->targets[i];
        if ((used & 1u << i) != 0 || t->store == NULL || t->closing)
            continue;
        t->closing = true;
        store_close(t->store, target_closed, t);
    }
}

void spread_front_leave(struct spread *w, struct spread_front *f)
{
    if (f == NULL || --f->users > 0)
        return;
    struct spread_front **at = &w->fronts;
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    front_free(f->front);
    mem_free(f);
    if (!w->dying)
        stores_trim(w);
}

static void front_replace(struct spread *w, struct spread_front **at, struct spread_front *by)
{
    struct spread_front *f = *at;
    *at = by;
    spread_front_leave(w, f);
}

void spread_list_set(struct spread *w, uint32_t mask)
{
    uint32_t was = w->now;
    sched_note("targets", was, mask);
    w->moves++;
    w->upsets++;
    spread_check_core(w, was, mask);
    if (w->before == 0) {
        w->before = was;
        front_replace(w, &w->old, w->front);
        w->front = NULL;
    }
    w->now = mask;
    front_replace(w, &w->front, front_make(w, mask));
    spread_keeper_due(w);
}

void spread_list_settled(struct spread *w)
{
    w->before = 0;
    front_replace(w, &w->old, NULL);
}

/* ---- beginning and ending ---- */

static void on_damaged(void *ctx, const struct chunk_id *id)
{
    struct spread_target *t = ctx;
    uint32_t number = spread_chunk_number(id);
    sched_note("damaged", t->is.id, number);
    if (number < t->world->count)
        t->world->chunks[number].damaged = true;
    if (!t->suspect && !t->dead && !t->world->dying)
        spread_fail(t->world, "P2", "target %llu: chunk %u is damaged, and nothing did it",
                    (unsigned long long)t->is.id, number);
}

int spread_target_open(struct spread *w, unsigned at)
{
    struct err_detail d = {{0}};
    struct spread_target *t = &w->targets[at];
    char *dir = mem_printf("%s/chunks", t->dir);
    struct store_config c = {.dir = dir,
                             .segment_bytes = w->segment_bytes,
                             .loop = w->loop,
                             .pool = w->pool,
                             .ctx = t,
                             .on_damaged = on_damaged};
    int rc = store_open(&t->store, &c, NULL, &d);
    sched_note("target opens", t->is.id, (uint64_t)-rc);
    mem_free(dir);
    if (rc != 0 && !t->dead && !t->suspect)
        spread_fail(w, "P2", "target %llu does not open: %s: %s", (unsigned long long)t->is.id,
                    err_name(rc), d.text);
    return rc;
}

void spread_start(struct spread *w)
{
    struct err_detail d = {{0}};
    uint32_t open = 0;
    ASSERT(w->loop == NULL);
    sched_note("start", 0, 0);
    spread_targets_back(w);
    machine_current = &w->machine;
    int rc = loop_new(&w->loop, 64, &w->clock, &d);
    if (rc == 0)
        rc = pool_new(&w->pool, 1);
    machine_current = NULL;
    if (rc != 0) {
        spread_fail(w, "setup", "the node does not start: %s", err_name(rc));
        return;
    }
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        if (((w->now | w->before) & 1u << i) == 0)
            continue;
        if (spread_target_open(w, i) == 0)
            open |= 1u << i;
        else
            w->targets[i].dead = true;
    }
    /* Whoever starts a node says of a target that does not open that it is gone. */
    if ((w->now & ~open) != 0 && w->before == 0)
        w->before = w->now;
    if ((w->now & ~open) != 0) {
        spread_check_core(w, w->now, w->now & open);
        w->moves++;
        w->now &= open;
    }
    w->upsets++;
    w->front = front_make(w, w->now);
    if ((w->before & open) != 0)
        w->old = front_make(w, w->before & open);
    spread_keeper_due(w);
    spread_clients_resume(w);
}

void spread_crash(struct spread *w, bool power)
{
    if (w->loop == NULL)
        return;
    sched_note("crash", power, 0);
    w->dying = true;
    w->upsets++;
    loop_lose(w->loop, power);
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        if (w->targets[i].disk != NULL)
            disk_crash(w->targets[i].disk, power);
    w->machine.ghost = true;
    machine_current = &w->machine;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        if (w->targets[i].store != NULL && !w->targets[i].closing)
            store_close(w->targets[i].store, target_closed, &w->targets[i]);
    pool_free(w->pool);
    loop_drain(w->loop);
    spread_clients_dropped(w);
    spread_keeper_dropped(w);
    front_replace(w, &w->front, NULL);
    front_replace(w, &w->old, NULL);
    ASSERT(w->fronts == NULL);
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        ASSERT(w->targets[i].store == NULL);
    loop_free(w->loop);
    machine_current = NULL;
    w->machine.ghost = false;
    w->pool = NULL;
    w->loop = NULL;
    w->dying = false;
}

/* ---- a run ---- */

static bool run_until(struct spread *w, uint64_t until_ns)
{
    while (spread_good(w) && sched_step(until_ns))
        continue;
    return spread_good(w);
}

static void look(struct sched_event *e)
{
    struct spread *w = CONTAINER_OF(e, struct spread, look);
    spread_clients_check(w);
    sched_in(e, LOOK_NS);
}

static void init(struct spread *w)
{
    static const uint32_t weights[] = {1, 1, 2, 3, 5, 8, 10};
    static const uint8_t copies[] = {1, 2, 2, 3, 3};
    w->clock = (struct clock){.mono_ns = mono_ns, .wall_ns = wall_ns, .ctx = w};
    w->machine = (struct machine){.clock = &w->clock};
    w->copies = copies[spread_below(ARRAY_COUNT(copies))];
    w->segment_bytes = (32 * KIB) << spread_below(5);
    unsigned targets = 3 + (unsigned)spread_below(4);
    unsigned domains = spread_below(3) == 0 ? targets : 2 + (unsigned)spread_below(targets - 1);
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        struct spread_target *t = &w->targets[i];
        t->world = w;
        t->is = (struct target){.id = rng_next(&sched->rng) >> 16,
                                .domain = i < domains ? i : spread_below(domains),
                                .weight = weights[spread_below(ARRAY_COUNT(weights))]};
        if (i >= targets && spread_below(2) == 0)
            t->is.domain = i; /* whoever comes later brings his own, or not */
    }
    for (unsigned i = 0; i < targets; i++) {
        spread_target_make(w, i);
        w->now |= 1u << i;
    }
    w->look.run = look;
    sched_in(&w->look, LOOK_NS);
}

static void settle(struct spread *w, const char *when, uint64_t *ret_ns)
{
    uint64_t began_ns = sched->now_ns;
    spread_keeper_due(w);
    while ((!spread_rests(w) || !spread_clients_idle(w)) &&
           run_until(w, sched->now_ns + 100 * NS_PER_MS))
        if (sched->now_ns - began_ns > SETTLE_NS)
            spread_fail(w, "P3", "not all is in its place %s: stage %u of list %x", when,
                        w->keeper.stage, w->now);
    *ret_ns = sched->now_ns - began_ns;
}

/* Every live chunk once, one after the other. */
struct reading {
    struct spread_read read;
    bool over;
};

static void reading_next(struct reading *all)
{
    struct spread_read *r = &all->read;
    while (r->chunk < r->world->count && !r->world->chunks[r->chunk].live)
        r->chunk++;
    all->over = r->chunk >= r->world->count;
    if (!all->over)
        spread_read_begin(r);
}

static void reading_done(struct spread_read *r, int rc)
{
    if (rc != 0)
        spread_fail(r->world, "P2", "chunk %u cannot be read in the end: %s", r->chunk,
                    err_name(rc));
    r->chunk++;
    reading_next(CONTAINER_OF(r, struct reading, read));
}

static void read_all(struct spread *w)
{
    struct reading all = {.read = {.world = w, .done = reading_done}};
    uint64_t began_ns = sched->now_ns;
    reading_next(&all);
    while (!all.over && run_until(w, sched->now_ns + 10 * NS_PER_MS))
        if (sched->now_ns - began_ns > SETTLE_NS)
            spread_fail(w, "P3", "chunk %u is not read to its end", all.read.chunk);
    if (!spread_good(w))
        spread_crash(w, false); /* nothing refers to `all` then */
}

static void run(struct spread *w, struct soak_result *ret)
{
    uint64_t ns;
    w->stop_at = MIN(w->options->operations, w->edit->operations[0]);
    w->think_ns = (10 * NS_PER_SEC + spread_below(50 * NS_PER_SEC)) * SPREAD_CLIENTS /
                  MAX(w->options->operations, 1u);
    spread_keeper_init(w);
    spread_clients_init(w);
    spread_start(w);
    if (w->options->faults)
        spread_faults_begin(w);
    while (w->answered < w->stop_at && sched->now_ns < WORK_NS_MAX &&
           run_until(w, sched->now_ns + NS_PER_SEC))
        continue;
    if (!spread_good(w))
        return;
    w->closing = true;
    spread_heal(w);
    settle(w, "after the last fault", &ret->settle_ns);
    if (!spread_good(w))
        return;
    /* And so it is on the disks. */
    spread_crash(w, true);
    spread_start(w);
    settle(w, "on the disks", &ns);
    if (spread_good(w))
        read_all(w);
}

void spread_run(const struct soak_options *o,
                uint64_t seed,
                const struct soak_edit *e,
                bool trace,
                struct soak_result *ret)
{
    struct spread *w = mem_calloc(1, sizeof *w);
    struct soak_edit whole;
    soak_edit_init(&whole);
    memset(ret, 0, sizeof *ret);
    w->options = o;
    w->edit = e != NULL ? e : &whole;
    sched = &w->sched;
    sched_init(sched, seed);
    sched->trace = trace;
    init(w);
    run(w, ret);
    (void)snprintf(ret->failure, sizeof ret->failure, "%s", w->failure); /* as long */
    ret->calls = w->answered;
    ret->changes = w->put_count;
    ret->faults = (uint32_t)MIN(w->faults, WORLD_EVENTS_MAX);
    ret->hash = sched->hash;
    ret->events = sched->events;
    ret->virtual_ns = sched->now_ns;
    spread_crash(w, false);
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        if (w->targets[i].disk != NULL)
            disk_free(w->targets[i].disk);
    sched_deinit(sched);
    sched = NULL;
    mem_free(w);
}
