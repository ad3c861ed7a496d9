/* A world of sites of three nodes: a run. See trio.h. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/trio_int.h"

#define FAULTS_NS_MAX (120 * NS_PER_SEC)
#define SETTLE_NS (60 * NS_PER_SEC)

bool trio_run_until(struct trio_world *all, uint64_t until_ns)
{
    while (all->failure[0] == '\0' && sched_step(until_ns))
        continue;
    return all->failure[0] == '\0';
}

static bool is_good(const struct trio_world *all)
{
    return all->failure[0] == '\0';
}

static uint64_t answered(const struct trio_world *all)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < all->site_count; i++)
        sum += all->sites[i]->answered;
    return sum;
}

/* ---- liveness ---- */

static void wait_settled(struct trio_world *all, const char *when)
{
    unsigned at = 0, turns = all->site_count == 1 ? 300 : 900;
    const char *why = "";
    for (unsigned i = 0; i < turns && why != NULL; i++) {
        if (!trio_run_until(all, sched->now_ns + 100 * NS_PER_MS))
            return;
        why = NULL;
        for (at = 0; at < all->site_count && why == NULL; at += why == NULL)
            why = trio_unsettled(all->sites[at]);
        if (why == NULL && all->site_count > 1)
            why = trio_link_unsettled(all);
    }
    if (why != NULL)
        trio_fail(all->sites[at % all->site_count], "P4", "%s, %s", why, when);
}

static void check_all(struct trio_world *all, const char *when)
{
    for (unsigned i = 0; i < all->site_count && is_good(all); i++)
        trio_check_digests(all->sites[i], when);
    for (unsigned i = 0; i < all->site_count && is_good(all); i++)
        trio_check_trees(all->sites[i]);
    if (all->site_count > 1 && is_good(all))
        trio_check_sites(all, when);
}

static bool is_back(const struct trio *w, uint64_t answered_before)
{
    return trio_three_in_sync(w) && w->answered > answered_before;
}

/* All nodes take part again, and have the same shards once nobody calls any more. */
static void settle(struct trio_world *all, uint64_t *ret_ns)
{
    trio_core(all);
    if (!is_good(all))
        return;
    uint64_t began_ns = sched->now_ns, before[TRIO_SITES_MAX];
    bool back = false;
    for (unsigned i = 0; i < all->site_count; i++) {
        before[i] = all->sites[i]->answered;
        trio_heal(all->sites[i]);
    }
    if (all->site_count > 1)
        trio_link_heal(all);
    while (!back && trio_run_until(all, sched->now_ns + 100 * NS_PER_MS)) {
        back = true;
        for (unsigned i = 0; i < all->site_count; i++) {
            bool so = is_back(all->sites[i], before[i]);
            back = back && so;
            if (!so && sched->now_ns - began_ns > SETTLE_NS)
                trio_fail(all->sites[i], "P3",
                          "not all in sync, %llu answers since all is well again",
                          (unsigned long long)(all->sites[i]->answered - before[i]));
        }
    }
    *ret_ns = sched->now_ns - began_ns;
    for (unsigned i = 0; i < all->site_count; i++)
        all->sites[i]->closing = true;
    if (is_good(all))
        wait_settled(all, "in the end");
    if (all->site_count > 1)
        *ret_ns = sched->now_ns - began_ns;
    check_all(all, "in the end");
    /* And so it is on the disks. */
    for (unsigned i = 0; i < all->site_count * TRIO_NODES && is_good(all); i++)
        trio_node_crash(&all->sites[i / TRIO_NODES]->nodes[i % TRIO_NODES], true);
    for (unsigned i = 0; i < all->site_count * TRIO_NODES && is_good(all); i++)
        trio_node_start(&all->sites[i / TRIO_NODES]->nodes[i % TRIO_NODES]);
    if (is_good(all))
        wait_settled(all, "on the disks");
    check_all(all, "on the disks");
}

/* ---- a run ---- */

/* Each site has a directory of its own, whose content is known at any moment, in a tree that all
 * share; and there is one in which all do what they like. */
static void make_directories(struct trio_world *all)
{
    trio_link_init(all);
    for (unsigned i = 0; i < all->site_count && is_good(all); i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "own%u", i); /* fits */
        trio_model_init(all->sites[i], trio_share_make(all->sites[i], slice_str(name)));
    }
    if (!is_good(all))
        return;
    all->common = trio_share_make(all->sites[0], slice_str("common"));
    for (unsigned i = 1; i < all->site_count; i++)
        while (!trio_share_knows(all->sites[i], all->common))
            if (!trio_run_until(all, sched->now_ns + 100 * NS_PER_MS) ||
                sched->now_ns > SETTLE_NS) {
                trio_fail(all->sites[i], "setup", "the common directory does not come");
                return;
            }
}

static void run(struct trio_world *all, struct soak_result *ret)
{
    uint64_t calls = MIN(all->options->operations, TRIO_RECORDS_MAX / 8);
    uint64_t stop = all->edit == NULL ? calls : MIN(calls, all->edit->operations[0]);
    uint64_t work_ns = 10 * NS_PER_SEC + trio_below(60 * NS_PER_SEC);
    for (unsigned i = 0; i < all->site_count; i++) {
        struct trio *w = all->sites[i];
        w->client_pause_ns = work_ns * all->site_count / MAX(calls, 1u) * TRIO_CLIENTS / 2;
        for (unsigned k = 0; k < TRIO_NODES && is_good(all); k++)
            trio_node_start(&w->nodes[k]);
    }
    if (all->site_count == 1)
        trio_model_init(all->sites[0], OID_ROOT);
    else
        make_directories(all);
    for (unsigned i = 0; i < all->site_count && is_good(all); i++) {
        trio_clients_init(all->sites[i]);
        if (all->site_count > 1)
            trio_share_init(all->sites[i]);
        trio_begin_faults(all->sites[i]);
    }
    if (all->site_count > 1)
        trio_link_begin_faults(all);
    while (answered(all) < stop && sched->now_ns < FAULTS_NS_MAX &&
           trio_run_until(all, sched->now_ns + NS_PER_SEC))
        continue;
    if (is_good(all))
        settle(all, &ret->settle_ns);
}

void trio_run(const struct soak_options *o,
              uint64_t seed,
              const struct soak_edit *e,
              bool trace,
              struct soak_result *ret)
{
    struct trio_world *all = mem_calloc(1, sizeof *all);
    memset(ret, 0, sizeof *ret);
    all->options = o;
    all->edit = e;
    all->seed = seed;
    all->out = TRIO_SITES_MAX;
    all->site_count = o->sites_said ? MIN(o->sites, TRIO_SITES_MAX) : 1;
    sched = &all->sched;
    sched_init(sched, seed);
    sched->trace = trace;
    for (unsigned i = 0; i < all->site_count; i++)
        trio_init(all, i);
    run(all, ret);
    (void)snprintf(ret->failure, sizeof ret->failure, "%s", all->failure); /* as long */
    ret->calls = answered(all);
    ret->faults = (uint32_t)MIN(all->faults, WORLD_EVENTS_MAX);
    for (unsigned i = 0; i < all->site_count; i++)
        for (unsigned k = 0; k < all->sites[i]->shard_count; k++)
            ret->changes += all->sites[i]->shards[k].truth_last;
    ret->hash = sched->hash;
    ret->events = sched->events;
    ret->virtual_ns = sched->now_ns;
    trio_link_deinit(all);
    for (unsigned i = 0; i < all->site_count; i++)
        trio_deinit(all->sites[i]);
    ledger_deinit(&all->ledger);
    sched_deinit(sched);
    sched = NULL;
    for (unsigned i = 0; i < all->site_count; i++)
        mem_free(all->sites[i]);
    mem_free(all->link);
    mem_free(all);
}
