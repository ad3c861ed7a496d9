/* Drawing a world from a seed, and running it through both phases. */
#include "sim/soak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/soak_int.h"
#include "sim/world_int.h"

/* What jemalloc asks the program for. A world is a hundred megabytes that are used all over for a
 * few seconds: in huge pages, and kept for what comes next, they cost few faults and few misses. */
extern const char *malloc_conf;
__attribute__((visibility("default"))) const char *malloc_conf =
    "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1";

#define WORK_NS_MAX (300 * NS_PER_SEC) /* the safety phase, at most */
#define MODEL_OPERATIONS_MAX 5000u     /* the model is slow and simple */
#define BUSY_MOUNTS 8u
#define SETTLE_NS (180 * NS_PER_SEC)     /* the liveness phase, at most */
#define HELD_AHEAD_NS (600 * NS_PER_SEC) /* a stamp further ahead is held */

static void links_draw(struct draw *d, bool faults)
{
    static const uint64_t delays_ms[] = {1, 5, 10, 40, 80, 150};
    static const uint64_t speeds[] = {0, 125000000, 12500000, 1250000};
    for (unsigned a = 0; a < d->c->site_count; a++)
        for (unsigned b = 0; b < d->c->site_count; b++) {
            struct world_link *l = &d->c->links[a][b];
            uint64_t ms = delays_ms[draw_below(d, ARRAY_COUNT(delays_ms))];
            l->delay = (struct world_delay){.base_ns = ms * NS_PER_MS,
                                            .jitter_ns = ms * NS_PER_MS / 5 + 1};
            l->bytes_per_s = speeds[draw_below(d, ARRAY_COUNT(speeds))];
            if (faults && draw_below(d, 2) == 0) {
                l->stall_per_million = (uint32_t)draw_below(d, 20000);
                l->stall_ns = 200 * NS_PER_MS;
                l->reset_per_million = (uint32_t)draw_below(d, 3000);
            }
        }
}

/* Of half of the directions each: a long tail of the latency, and a short queue. Drawn apart, so
 * that all else is the same without them. */
static void lines_draw(struct world_config *c, uint64_t seed)
{
    struct draw d = {.c = c};
    rng_seed(&d.rng, seed ^ 0x7a11u);
    for (unsigned a = 0; a < c->site_count; a++)
        for (unsigned b = 0; b < c->site_count; b++) {
            struct world_link *l = &c->links[a][b];
            if (draw_below(&d, 2) == 0) {
                l->delay.tail_per_million = (uint32_t)draw_below(&d, 20000);
                l->delay.tail_ns = draw_below(&d, NS_PER_SEC);
            }
            if (draw_below(&d, 2) == 0)
                l->queue_bytes = (4 * KIB) << draw_below(&d, 7);
        }
}

void draw_event(struct draw *d, struct world_event e)
{
    if (d->c->event_count < WORLD_EVENTS_MAX)
        d->c->events[d->c->event_count++] = e;
}

/* A fault with its end. */
static void fault_draw(struct draw *d)
{
    unsigned n = d->c->site_count;
    unsigned a = (unsigned)draw_below(d, n), b = (a + 1 + (unsigned)draw_below(d, n - 1)) % n;
    uint64_t at = draw_below(d, d->work_ns), end = at + draw_below(d, d->work_ns / 2 + 1);
    switch (draw_below(d, 8)) {
    case 0: /* asymmetric */
        draw_event(d, (struct world_event){.at_ns = at, .kind = WORLD_CUT, .a = a, .b = b});
        draw_event(d, (struct world_event){.at_ns = end, .kind = WORLD_HEAL, .a = a, .b = b});
        return;
    case 1:
        for (unsigned i = 0; i < 2; i++) {
            unsigned x = i == 0 ? a : b, y = i == 0 ? b : a;
            draw_event(d, (struct world_event){.at_ns = at, .kind = WORLD_CUT, .a = x, .b = y});
            draw_event(d, (struct world_event){.at_ns = end, .kind = WORLD_HEAL, .a = x, .b = y});
        }
        return;
    case 2:
        draw_event(d, (struct world_event){.at_ns = at, .kind = WORLD_ISOLATE, .a = a});
        draw_event(d, (struct world_event){.at_ns = end, .kind = WORLD_REJOIN, .a = a});
        return;
    case 3: /* flapping */
        for (uint64_t t = at; t < end; t += 200 * NS_PER_MS + draw_below(d, 2 * NS_PER_SEC)) {
            draw_event(d, (struct world_event){.at_ns = t, .kind = WORLD_CUT, .a = a, .b = b});
            t += 100 * NS_PER_MS + draw_below(d, NS_PER_SEC);
            draw_event(d, (struct world_event){.at_ns = t, .kind = WORLD_HEAL, .a = a, .b = b});
        }
        return;
    case 4:
        draw_event(d, (struct world_event){.at_ns = at, .kind = WORLD_RESET, .a = a, .b = b});
        return;
    case 5:
    case 6:
        draw_event(d, (struct world_event){.at_ns = at,
                                           .kind = WORLD_CRASH,
                                           .a = a,
                                           .value = (int64_t)draw_below(d, 3) == 0});
        draw_event(d, (struct world_event){.at_ns = at + draw_below(d, 5 * NS_PER_SEC),
                                           .kind = WORLD_RESTART,
                                           .a = a});
        return;
    default:
        draw_event(d, (struct world_event){.at_ns = at,
                                           .kind = WORLD_CLOCK,
                                           .a = a,
                                           .value = (int64_t)draw_below(d, 4 * NS_PER_SEC) -
                                                    (int64_t)(2 * NS_PER_SEC)});
        return;
    }
}

/* Drawn apart, so that all else is the same without them. */
static void splits_draw(struct world_config *c, uint64_t seed, uint64_t work_ns)
{
    struct draw d = {.c = c};
    rng_seed(&d.rng, seed ^ 0x5b117u);
    for (uint64_t i = draw_below(&d, 3); i > 0; i--)
        draw_event(&d, (struct world_event){.at_ns = draw_below(&d, work_ns),
                                            .kind = WORLD_SPLIT,
                                            .a = (unsigned)draw_below(&d, c->site_count),
                                            .value = (int64_t)draw_below(&d, 5 * NS_PER_SEC)});
}

/* In a quarter of the worlds, once; `--faults step` has more of it. */
static void steps_draw(struct world_config *c, uint64_t seed, uint64_t work_ns)
{
    struct draw d = {.c = c, .work_ns = work_ns};
    rng_seed(&d.rng, seed ^ 0x57e9u);
    if (draw_below(&d, 4) == 0)
        soak_step_draw(&d);
}

/* A third of the worlds have a part of the sites that has to converge alone. Who is given up after
 * a while, or must be heard before somebody is out, is not left broken; nor is anybody where a
 * clock is wrong by minutes, which is how late its repairs are taken over then; of a row only the
 * ends are. */
static void core_draw(struct world_config *c, uint64_t seed, unsigned more)
{
    struct draw d = {.c = c};
    unsigned n = c->site_count;
    rng_seed(&d.rng, seed ^ 0xc07eu);
    if (n < 3 || draw_below(&d, 3) > 0 || (more & (SOAK_REMOVE | SOAK_CLOCK)) != 0 ||
        c->journal_age_s > 0)
        return;
    unsigned left = 1 + (n > 3 ? (unsigned)draw_below(&d, n - 2) : 0);
    while (left-- > 0) {
        bool row = c->links[0][n - 1].absent;
        unsigned a = row ? (unsigned)draw_below(&d, 2) * (n - 1) : (unsigned)draw_below(&d, n);
        c->sites[a].broken = 1 + (enum world_broken)draw_below(&d, WORLD_BROKEN_END - 1);
    }
}

static int event_cmp(const void *a, const void *b)
{
    const struct world_event *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return x->kind != y->kind ? (x->kind < y->kind ? -1 : 1) : (int)x->a - (int)y->a;
}

void soak_edit_init(struct soak_edit *e)
{
    memset(e, 0, sizeof *e);
    for (unsigned i = 0; i < WORLD_SITES_MAX; i++)
        e->operations[i] = UINT64_MAX;
}

/* Only leaves out, so that what stays is drawn as before. */
static void edit_apply(const struct soak_edit *e, struct world_config *c)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->event_count; i++)
        if (!e->without[i])
            c->events[kept++] = c->events[i];
    c->event_count = kept;
    for (unsigned a = 0; a < c->site_count; a++) {
        struct world_work *w = &c->sites[a].work;
        if (e->operations[a] == 0)
            w->kind = WORLD_WORK_NONE;
        w->operations = MIN(w->operations, e->operations[a]);
        if (e->no_core)
            c->sites[a].broken = WORLD_BROKEN_NOT;
        for (unsigned b = 0; b < c->site_count && e->no_loss; b++) {
            struct world_link *l = &c->links[a][b];
            l->stall_per_million = l->reset_per_million = l->delay.tail_per_million = 0;
        }
    }
}

void soak_describe(const struct soak_options *o,
                   uint64_t seed,
                   const struct soak_edit *e,
                   struct world_config *c)
{
    struct draw d = {.c = c};
    rng_seed(&d.rng, seed ^ 0x5eedu);
    unsigned sites = o->sites != 0 ? o->sites : 2 + (unsigned)draw_below(&d, 3);
    world_config_init(c, sites, seed);
    c->shards = 1 + (unsigned)draw_below(&d, 4);
    c->model = o->operations <= MODEL_OPERATIONS_MAX;
    c->lin = o->operations <= WORLD_LIN_CALLS;
    links_draw(&d, o->faults);
    d.work_ns = 2 * NS_PER_SEC + draw_below(&d, 30 * NS_PER_SEC);
    for (unsigned i = 0; i < sites; i++) {
        struct world_site *s = &c->sites[i];
        s->work.kind = o->work != WORLD_WORK_NONE ? o->work
                       : draw_below(&d, 3) > 0    ? WORLD_WORK_COLLIDE
                                                  : (enum world_workload)(1 + draw_below(&d, 6));
        s->work.clients = 1 + (unsigned)draw_below(&d, 3);
        s->work.operations = o->operations / sites;
        s->segment_bytes = (16 * KIB) << draw_below(&d, 6);
        s->checkpoint_bytes = (16 * KIB) << draw_below(&d, 6);
        s->work.think_ns = d.work_ns * s->work.clients / MAX(s->work.operations, 1u);
        if (o->busy) {
            s->work.think_ns = 0;
            s->work.clients = BUSY_MOUNTS;
        }
        if (o->faults) {
            s->clock.offset_ns = (int64_t)draw_below(&d, 2 * NS_PER_SEC) - (int64_t)NS_PER_SEC;
            s->clock.drift_ppm = (int32_t)draw_below(&d, 200) - 100;
        }
    }
    if (o->faults && draw_below(&d, 2) == 0)
        c->mount_reset_per_million = (uint32_t)draw_below(&d, 5000);
    for (uint64_t i = o->faults ? draw_below(&d, 12) : 0; i > 0; i--)
        fault_draw(&d);
    if (o->faults)
        lines_draw(c, seed);
    soak_faults_draw(seed, o->more, d.work_ns, c);
    if (o->faults && !o->no_split && c->model)
        splits_draw(c, seed, d.work_ns);
    if (o->faults) {
        steps_draw(c, seed, d.work_ns);
        core_draw(c, seed, o->more);
    }
    qsort(c->events, c->event_count, sizeof c->events[0], event_cmp);
    edit_apply(e, c);
}

static bool work_done(const struct world *w)
{
    if (w->event_next < w->config.event_count)
        return false;
    for (unsigned i = 0; i < w->mount_count; i++)
        if (!mount_idle(&w->mounts[i]) && !w->mounts[i].process->lost)
            return false;
    return true;
}

/* What was stamped by a clock far ahead is held until another one is near: the most, by the end. */
static uint64_t held_ns(const struct world_config *c)
{
    int64_t ahead[WORLD_SITES_MAX] = {0}, most = 0, least = 0;
    for (uint32_t i = 0; i < c->event_count; i++)
        if (c->events[i].kind == WORLD_CLOCK) {
            ahead[c->events[i].a] += c->events[i].value;
            most = MAX(most, ahead[c->events[i].a]);
        }
    for (unsigned i = 0; i < c->site_count; i++)
        least = MIN(least, ahead[i]);
    int64_t held = most - least - (int64_t)HELD_AHEAD_NS;
    return held > 0 ? (uint64_t)held : 0;
}

void soak_run(const struct world_config *c, bool trace, struct soak_result *ret)
{
    struct err_detail d = {{0}};
    struct world *w;
    memset(ret, 0, sizeof *ret);
    int rc = world_new(&w, c, &d);
    if (rc != 0) {
        (void)snprintf(ret->failure, sizeof ret->failure, "setup: %.380s", d.text); /* cut */
        return;
    }
    sched->trace = trace;
    for (uint64_t t = NS_PER_SEC; rc == 0 && t <= WORK_NS_MAX && !work_done(w); t += NS_PER_SEC)
        rc = world_run(w, t);
    if (rc == 0)
        rc = world_settle(w, SETTLE_NS + held_ns(c), &ret->settle_ns);
    if (rc != 0)
        (void)snprintf(ret->failure, sizeof ret->failure, "%s", world_failure(w)); /* as long */
    for (unsigned i = 0; i < c->site_count; i++) {
        struct world_site_stats s;
        world_site_stats(w, i, &s);
        ret->calls += s.calls;
        ret->changes += s.changes;
    }
    world_looked(w, &ret->looked);
    ret->hash = world_trace_hash(w);
    ret->events = w->sched.events;
    ret->virtual_ns = world_now_ns(w);
    world_free(w);
}
