/* The liveness of a part: before all is healed, in a third of the worlds, one node of each site (of
 * some, if there are several) stays cut off, deaf, mute or down, or one site of three stays cut off
 * from the others. What is healed has to lead all shards, answer and converge without it. A disk
 * that stays full is not among it: whoever leads with it says ENOSPC, which is an answer, and goes
 * on leading (sim/RESULTS.md, "Open"). See trio.h. */
#include "base/assert.h"
#include "sim/trio_int.h"

#define CORE_NS (60 * NS_PER_SEC)
#define LOOK_NS (100 * NS_PER_MS)

/* Has another node all that is committed of this shard? A copy on a new disk may be in the record
 * still, and does not count. */
static bool others_have(const struct trio *w, unsigned shard, unsigned node)
{
    const struct shard_record *r = &w->net.records[shard];
    for (unsigned i = 0; i < r->in_sync_count; i++) {
        unsigned other = (unsigned)r->in_sync[i] - 1;
        const struct trio_node *n = &w->nodes[other];
        bool blank = n->loop != NULL && !n->broken ? replica_blank(shard_replica(n->shards[shard]))
                                                   : n->peers.blank;
        if (other != node && !blank)
            return true;
    }
    return false;
}

static bool may_miss(const struct trio *w, unsigned node)
{
    for (unsigned k = 0; k < w->shard_count; k++)
        if (!others_have(w, k, node))
            return false;
    return true;
}

static void node_draw(struct trio *w, struct rng *rng)
{
    unsigned first = (unsigned)rng_below(rng, TRIO_NODES);
    static const enum world_broken hows[] = {WORLD_BROKEN_CUT, WORLD_BROKEN_MUTE, WORLD_BROKEN_DOWN,
                                             WORLD_BROKEN_DARK};
    w->how = hows[rng_below(rng, ARRAY_COUNT(hows))];
    if (rng_below(rng, 3) == 0)
        w->how = WORLD_BROKEN_DEAF;
    for (unsigned i = 0; i < TRIO_NODES && w->out == TRIO_NODES; i++)
        if (may_miss(w, (first + i) % TRIO_NODES))
            w->out = (first + i) % TRIO_NODES;
    /* What may be missed is looked up now: nothing that is under way changes it. */
    if (w->out < TRIO_NODES)
        trio_carry_lose(w, w->out);
}

static bool core_draw(struct trio_world *all)
{
    struct rng rng;
    rng_seed(&rng, all->seed ^ 0xc07eu);
    if (!all->options->faults || (all->edit != NULL && all->edit->no_core) ||
        rng_below(&rng, 3) > 0)
        return false;
    if (all->site_count == TRIO_SITES_MAX)
        all->out = (unsigned)rng_below(&rng, all->site_count + 1); /* or none */
    for (unsigned i = 0; i < all->site_count; i++)
        if (all->site_count == 1 || rng_below(&rng, 4) > 0)
            node_draw(all->sites[i], &rng);
    bool any = all->out < TRIO_SITES_MAX;
    for (unsigned i = 0; i < all->site_count; i++)
        any = any || all->sites[i]->out < TRIO_NODES;
    return any;
}

/* NULL: its nodes do without the one that is left out. */
static const char *not_yet(struct trio *w, uint64_t changed_before)
{
    for (unsigned k = 0; k < w->shard_count; k++)
        if (trio_leader(w, k, NULL) == NULL)
            return "nobody leads a shard";
    return !trio_core_in_sync(w)          ? "not all of the others are in sync"
           : w->changed <= changed_before ? "nothing is answered"
                                          : NULL;
}

static void wait_for(struct trio_world *all, bool at_rest, const uint64_t *changed_before)
{
    uint64_t until = sched->now_ns + CORE_NS;
    const char *why = "";
    unsigned at = 0;
    while (why != NULL && trio_run_until(all, sched->now_ns + LOOK_NS)) {
        why = NULL;
        for (unsigned i = 0; i < all->site_count && why == NULL; i++) {
            at = i;
            why =
                at_rest ? trio_unsettled(all->sites[i]) : not_yet(all->sites[i], changed_before[i]);
        }
        if (why == NULL && at_rest && all->site_count > 1)
            why = trio_link_unsettled(all);
        if (why != NULL && sched->now_ns > until)
            trio_fail(all->sites[at], at_rest ? "P4" : "P3",
                      "%s, while node %u is left broken (%u)", why, all->sites[at]->out,
                      (unsigned)all->sites[at]->how);
    }
}

static void rest(struct trio_world *all, bool resting)
{
    for (unsigned i = 0; i < all->site_count; i++)
        all->sites[i]->resting = resting;
}

void trio_core(struct trio_world *all)
{
    uint64_t before[TRIO_SITES_MAX];
    if (!core_draw(all))
        return;
    sched_note("core", all->sites[0]->out, all->sites[0]->how);
    for (unsigned i = 0; i < all->site_count; i++) {
        before[i] = all->sites[i]->changed;
        trio_heal(all->sites[i]);
    }
    if (all->site_count > 1)
        trio_link_heal(all);
    wait_for(all, false, before);
    rest(all, true);
    wait_for(all, true, before);
    for (unsigned i = 0; i < all->site_count; i++)
        if (all->sites[i]->out < TRIO_NODES)
            trio_check_digests(all->sites[i], "without a node that is left broken");
    if (all->site_count > 1 && all->failure[0] == '\0')
        trio_check_sites(all, "while a part is left broken");
    rest(all, false);
    for (unsigned i = 0; i < all->site_count; i++)
        all->sites[i]->out = TRIO_NODES;
    all->out = TRIO_SITES_MAX;
}
