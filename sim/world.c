/* A world's life: its schedule of events, its mounts, running, settling, looking. */
#include "sim/world_int.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/away.h"
#include "sim/lin.h"
#include "sim/operator.h"
#include "sim/tree.h"
#include "sim/world_look.h"

#define LOOK_EVENTS 4u /* between two looks at the order of what arrives */
#define WATCH_NS (250 * NS_PER_MS)
#define RESTART_NS (2 * NS_PER_SEC)

static struct world *running; /* there is one at a time */

/* --- chance: every random byte in the process comes from the world's seed --- */

static const char *sim_random_name(void)
{
    return "simulated";
}

static uint32_t sim_random(void)
{
    return (uint32_t)rng_next(&sched->rng);
}

static void sim_random_buf(void *const to, const size_t len)
{
    uint8_t *at = to;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t v = rng_next(&sched->rng);
        memcpy(at + i, &v, MIN(len - i, 8u));
    }
}

static randombytes_implementation sim_randombytes = {
    .implementation_name = sim_random_name, .random = sim_random, .buf = sim_random_buf};

/* --- failing --- */

void world_fail(struct world *w, const char *promise, const char *fmt, ...)
{
    char why[320];
    va_list args;
    if (w->failure[0] != '\0')
        return;
    va_start(args, fmt);
    (void)vsnprintf(why, sizeof why, fmt, args); /* cut if need be */
    va_end(args);
    (void)snprintf(w->failure, sizeof w->failure, "%s: %.3f s: %s", promise,
                   (double)world_now_ns(w) / 1e9, why); /* cut if need be */
    sched_note("failure", 0, 0);
}

const char *world_failure(const struct world *w)
{
    return w->failure[0] != '\0' ? w->failure : NULL;
}

/* --- the schedule --- */

void world_site_up(struct world *w, unsigned i)
{
    struct err_detail d = {{0}};
    struct process *p = &w->sites[i];
    if (p->node != NULL || p->lost)
        return;
    uint64_t failures = disk_failures(p->machine.disk);
    power_starts(w, i);
    int rc = process_start(p, &d);
    w->walked[i] = 0;
    w->twice[i] = (struct oid){{0}};
    if (rc == 0) {
        away_started(w, i);
        lin_restarted(i);
        return;
    }
    if (rc == ERR_CLOSED) { /* its power went meanwhile */
        sched_in(&w->restarts[i].event, RESTART_NS);
        return;
    }
    if (w->rotten[i] && err_class(rc) == ERR_CLASS_CORRUPT) { /* it is to be set up anew */
        p->lost = true;
        return;
    }
    /* A disk that fails is told as such; whoever runs it tries again. */
    if (disk_failures(p->machine.disk) == failures)
        world_fail(w, "P2", "site %s does not start again: %s: %s", w->config.sites[i].name,
                   err_name(rc), d.text);
    else if (err_class(rc) != ERR_CLASS_ENV)
        world_fail(w, "P9", "site %s does not start on a failing disk, and says %s: %s",
                   w->config.sites[i].name, err_name(rc), d.text);
    else
        sched_in(&w->restarts[i].event, RESTART_NS);
}

void world_strike(unsigned site, bool power, uint64_t back_ns)
{
    struct process *p = &running->sites[site];
    if (!process_serves(p))
        return;
    process_crash(p, power);
    sched_in(&running->restarts[site].event, back_ns);
}

static void restart_run(struct sched_event *e)
{
    for (unsigned i = 0; i < running->config.site_count; i++)
        if (&running->restarts[i].event == e)
            world_site_up(running, i);
}

static void isolate(struct world *w, unsigned a, bool cut)
{
    for (unsigned k = 0; k < w->config.site_count; k++)
        if (k != a) {
            net_cut(a, k, cut || away_is_cut(w, a, k));
            net_cut(k, a, cut || away_is_cut(w, a, k));
        }
}

static const char *const event_texts[WORLD_EVENT_KIND_END] = {
    "cut",        "heal",          "reset",   "slow",  "isolated",    "rejoined",  "crash",
    "restart",    "lost for ever", "removed", "joins", "clock jumps", "disk full", "disk free",
    "disk fails", "disk well",     "bit rot", "split", "away",        "step"};

static void event_apply(struct world *w, const struct world_event *e)
{
    struct process *p = &w->sites[e->a];
    sched_note("event", (uint64_t)e->kind, (uint64_t)e->a << 8 | e->b);
    switch (e->kind) {
    case WORLD_CUT:
    case WORLD_HEAL:
        net_cut(e->a, e->b, e->kind == WORLD_CUT || away_is_cut(w, e->a, e->b));
        return;
    case WORLD_RESET:
        net_reset(e->a, e->b);
        return;
    case WORLD_SLOW:
        net_slow(e->a, e->b, (uint64_t)MAX(e->value, 1));
        return;
    case WORLD_ISOLATE:
    case WORLD_REJOIN:
        isolate(w, e->a, e->kind == WORLD_ISOLATE);
        return;
    case WORLD_CRASH:
        process_crash(p, e->value == 0);
        return;
    case WORLD_RESTART:
        world_site_up(w, e->a);
        return;
    case WORLD_LOSE:
        for (unsigned i = 0; i < w->mount_count; i++)
            if (w->mounts[i].process == p)
                mount_site_goes(&w->mounts[i]);
        process_crash(p, true);
        p->lost = true;
        return;
    case WORLD_REMOVE:
        errand_remove(w, e->a, e->b);
        return;
    case WORLD_JOIN:
        errand_join(w, e->a, e->b);
        return;
    case WORLD_CLOCK:
        rules_clock(w, e->a);
        p->config.offset_ns += e->value;
        w->clock_jumped_ns[e->a] += (uint64_t)(e->value < 0 ? -e->value : e->value);
        return;
    case WORLD_DISK_FULL:
    case WORLD_DISK_FREE:
        w->faulty_disk[e->a] = true;
        w->disk_bad_ns[e->a] = sched->now_ns; /* looks may be far apart */
        disk_set_room(p->machine.disk, e->kind == WORLD_DISK_FREE ? DISK_ROOM
                                       : e->value == 1            ? DISK_NO_ROOM_AT_ALL
                                                                  : DISK_NO_ROOM);
        return;
    case WORLD_DISK_FAIL:
    case WORLD_DISK_WELL:
        w->faulty_disk[e->a] = true;
        w->disk_bad_ns[e->a] = sched->now_ns;
        disk_set_failing(p->machine.disk, (unsigned)(e->value >> 32) & DISK_CALLS,
                         e->kind == WORLD_DISK_WELL ? 0 : (uint32_t)e->value);
        return;
    case WORLD_ROT:
        w->rotten[e->a] |= e->value == WORLD_ROT_STATE     ? stores_rot(p->machine.disk)
                           : e->value == WORLD_ROT_JOURNAL ? disk_rot(p->machine.disk, "/journal/")
                                                           : disk_rot(p->machine.disk, "/chunks/");
        return;
    case WORLD_SPLIT:
        split_arm(w, e->a, (uint64_t)MAX(e->value, 0));
        return;
    case WORLD_AWAY:
        away_cut(w, e->a, (uint64_t)MAX(e->value, 0));
        return;
    case WORLD_STEP:
        power_arm(w, e->a, e->value);
        return;
    case WORLD_EVENT_KIND_END:
        break;
    }
    UNREACHABLE();
}

static void event_arm(struct world *w)
{
    if (w->event_next < w->config.event_count)
        sched_at(&w->event, w->began_ns + w->config.events[w->event_next].at_ns);
}

static void event_run(struct sched_event *e)
{
    struct world *w = CONTAINER_OF(e, struct world, event);
    const struct world_event *next = &w->config.events[w->event_next++];
    event_apply(w, next);
    if (w->config.event != NULL)
        w->config.event(w->config.ctx, world_now_ns(w), next, event_texts[next->kind]);
    event_arm(w);
}

static void sample_run(struct sched_event *e)
{
    struct world *w = CONTAINER_OF(e, struct world, sample);
    w->config.sample(w->config.ctx, w, world_now_ns(w));
    sched_in(&w->sample, w->config.sample_ns);
}

static void watch_run(struct sched_event *e)
{
    struct world *w = CONTAINER_OF(e, struct world, watch);
    for (unsigned i = 0; i < w->config.site_count; i++) {
        const char *why = away_reopens(w, i) ? NULL : process_ended(&w->sites[i]);
        if (disk_is_bad(w->sites[i].machine.disk))
            w->disk_bad_ns[i] = sched->now_ns;
        if (why == NULL)
            continue;
        if (!w->faulty_disk[i] && !w->rotten[i])
            world_fail(w, "P3", "site %s stopped: %s", w->config.sites[i].name, why);
        process_crash(&w->sites[i], false); /* whoever runs it starts it again */
        w->sites[i].lost |= w->rotten[i];   /* or sets it up anew, if it is broken */
        sched_in(&w->restarts[i].event, RESTART_NS);
    }
    world_check_now(w);
    sched_in(&w->watch, w->config.check_ns);
}

/* --- life --- */

static void mounts_make(struct world *w, unsigned site)
{
    const struct world_work *work = &w->config.sites[site].work;
    unsigned clients = MAX(work->clients, 1u);
    for (unsigned k = 0;
         k < clients && work->kind != WORLD_WORK_NONE && w->mount_count < WORLD_MOUNTS_MAX; k++) {
        struct mount *m = &w->mounts[w->mount_count];
        mount_init(m, &w->sites[site], &w->ledger, work, w->mount_count++);
        if (w->config.ahead_seed != 0)
            ahead_choose(m, w->config.ahead_seed, w->config.sites[site].disk.write.base_ns);
        m->zero_ns = w->began_ns;
        if (k > 0)
            m->sibling = m - 1;
        if (work->operations > 0)
            m->calls_left = work->operations / clients + (k < work->operations % clients);
        if (w->config.work_until_ns > 0)
            m->until_ns = w->began_ns + w->config.work_until_ns;
        if (w->settling)
            m->until_ns = sched->now_ns;
        mount_start(m);
    }
}

/* A state that cannot be read does not look empty: who is to join has not therefore joined. */
bool world_has_joined(const struct world *w, unsigned site)
{
    struct node *n = w->sites[site].node;
    return n != NULL && !node_needs_snapshot(n) && !node_is_empty(n) && world_can_read(w, site);
}

void world_joined(struct world *w, unsigned site)
{
    w->joined[site] = true;
    mounts_make(w, site);
}

int world_new(struct world **ret, const struct world_config *c, struct err_detail *d)
{
    static bool once;
    ASSERT(running == NULL);
    struct world *w = mem_calloc(1, sizeof *w);
    w->config = *c;
    if (w->config.shards == 0)
        w->config.shards = 2;
    if (w->config.check_ns == 0)
        w->config.check_ns = WATCH_NS;
    sched_init(&w->sched, c->seed);
    sched = &w->sched;
    running = w;
    rpc_sim_lost_per_million = 0;
    sched->now_ns = NS_PER_SEC;
    if (!once) { /* sodium draws for itself when it starts: from elsewhere */
        int rc = sodium_init();
        ASSERT(rc >= 0);
        rc = randombytes_set_implementation(&sim_randombytes);
        ASSERT(rc == 0);
        once = true;
    }
    w->event.run = event_run;
    w->sample.run = sample_run;
    w->watch.run = watch_run;
    for (unsigned i = 0; i < WORLD_SITES_MAX; i++)
        w->restarts[i].event.run = restart_run;
    net_init(&w->config);
    int rc = world_setup(w, d);
    if (rc != 0) {
        world_free(w);
        return rc;
    }
    w->began_ns = sched->now_ns;
    rules_begin(w);
    watch_begin(w);
    if (c->lin)
        lin_new(w);
    away_begin(w);
    rpc_sim_lost_per_million = c->mount_reset_per_million;
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->joined[i])
            mounts_make(w, i);
    event_arm(w);
    sched_in(&w->watch, w->config.check_ns);
    if (w->config.sample != NULL && w->config.sample_ns > 0)
        sched_in(&w->sample, 0);
    *ret = w;
    return 0;
}

void world_free(struct world *w)
{
    if (w == NULL)
        return;
    errands_free(w);
    away_free(w);
    for (unsigned i = 0; i < w->mount_count; i++)
        mount_deinit(&w->mounts[i]);
    for (unsigned i = 0; i < w->config.site_count; i++)
        process_deinit(&w->sites[i]);
    net_deinit();
    lin_free();
    mem_free(w->reading); /* no node answers it any more */
    watch_free(w->watcher);
    rules_free(w);
    world_conflicts_free(w);
    ledger_deinit(&w->ledger);
    sched_deinit(&w->sched);
    sched = NULL;
    running = NULL;
    disk_calm = disk_power_went = false;
    mem_free(w);
}

int world_run(struct world *w, uint64_t until_ns)
{
    for (uint64_t i = 1; w->failure[0] == '\0' && sched_step(w->began_ns + until_ns); i++) {
        if (disk_power_went)
            power_look(w);
        disk_calm = true;
        if (i % LOOK_EVENTS == 0)
            watch_order(w);
        split_look(w);
        touch_look(w);
        disk_calm = false;
    }
    return w->failure[0] == '\0' ? 0 : ERR_FATAL;
}

/* --- looking --- */

uint64_t world_now_ns(const struct world *w)
{
    uint64_t now = w->settled_ns != 0 ? w->settled_ns : sched->now_ns;
    return now - MIN(w->began_ns, now);
}

uint64_t world_trace_hash(const struct world *w)
{
    return w->sched.hash;
}

const struct world_config *world_config(const struct world *w)
{
    return &w->config;
}

void world_looked(const struct world *w, struct world_looked *ret)
{
    *ret = (struct world_looked){
        .answers = w->config.lin, .order = watch_knows_order(w), .model = w->model_asked};
}

void world_traffic(const struct world *w, unsigned from, unsigned to, struct world_traffic *ret)
{
    const struct net_traffic *t = net_traffic(from, to);
    (void)w;
    *ret = (struct world_traffic){.bytes = t->bytes,
                                  .writes = t->writes,
                                  .resets = t->resets,
                                  .stalls = t->stalls,
                                  .queued_max = t->queued_max,
                                  .waits = t->waits};
}

void world_site_stats(const struct world *w, unsigned site, struct world_site_stats *ret)
{
    const struct process *p = &w->sites[site];
    *ret = (struct world_site_stats){.up = p->node != NULL,
                                     .lost = p->lost,
                                     .crashes = p->crashes,
                                     .conflicts = w->conflicts[site],
                                     .disk_bytes = disk_bytes(p->machine.disk)};
    for (unsigned i = 0; i < w->mount_count; i++) {
        const struct mount *m = &w->mounts[i];
        if (m->process != p)
            continue;
        ret->calls += m->stats.calls;
        ret->calls_failed += m->stats.failed;
        ret->changes += m->stats.changes;
        ret->latency_ns_sum += m->stats.latency_ns_sum;
        ret->latency_ns_max = MAX(ret->latency_ns_max, m->stats.latency_ns_max);
    }
}

char *world_tree_text(struct world *w, unsigned site)
{
    struct buf text = {0};
    char what[200];
    if (w->sites[site].node == NULL)
        return NULL;
    (void)tree_walk(w->sites[site].node, &text, what); /* the text is what there is */
    buf_append(&text, "", 1);
    return (char *)text.ptr;
}

uint64_t world_tree_hash(struct world *w, unsigned site)
{
    char *text = world_tree_text(w, site);
    uint64_t h = text == NULL ? 0 : fnv1a(slice_str(text)) | 1;
    mem_free(text);
    return h;
}

void world_lag(const struct world *w, unsigned from, unsigned to, struct world_lag *ret)
{
    const struct process *p = &w->sites[to];
    struct wan_lag lag;
    *ret = (struct world_lag){0};
    if (p->wan == NULL || !wan_lag_from(p->wan, w->ids[from], &lag))
        return;
    *ret = (struct world_lag){.known = true,
                              .up = lag.up,
                              .held = lag.held,
                              .by_clock = lag.by_clock,
                              .lag_ns = lag.lag_ns,
                              .ops_to_go = lag.ops_to_go,
                              .bytes_to_go = lag.bytes_to_go};
}
