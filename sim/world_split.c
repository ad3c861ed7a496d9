/* Power that goes at the worst moment: when a part of what a peer sent is on the disk of one
 * shard's journal, and an earlier or simultaneous part is not on that of another.
 *
 * Such moments last microseconds, so crashes at random times do not meet them. A site that is armed
 * is looked at after each event that has put something on one of its disks; what the disks would
 * show alone is compared with the order of the other sites' commits, which the checker of P7 keeps
 * anyway. How the product writes its batches does not matter here. */
#include "sim/world_int.h"

#include "site/call.h"

#define LATER_NS 100000u /* about as long as a write takes */

void split_arm(struct world *w, unsigned site, uint64_t down_ns)
{
    w->split[site].waits = true;
    w->split[site].down_ns = down_ns;
    w->split[site].durable = w->split[site].off_ns = 0;
}

static uint64_t records_on_disk(struct world *w, unsigned site)
{
    uint64_t count = 0;
    for (unsigned s = 0; s < w->config.shards; s++)
        count += log_durable(shard_log(node_shard(w->sites[site].node, (shard_id_t)s)));
    return count;
}

/* At once, or a little later: what was answered, shown or sent too early is out by then. */
static void moment_look(struct world *w, unsigned site)
{
    uint64_t durable = records_on_disk(w, site);
    if (durable == w->split[site].durable || w->split[site].off_ns != 0)
        return;
    w->split[site].durable = durable;
    if (watch_disks_split(w, site))
        w->split[site].off_ns =
            sched->now_ns + (rng_below(&sched->rng, 2) == 0 ? 0 : rng_below(&sched->rng, LATER_NS));
}

static void look(struct world *w, unsigned site)
{
    struct process *p = &w->sites[site];
    if (p->node == NULL || node_needs_snapshot(p->node))
        return;
    moment_look(w, site);
    if (w->split[site].off_ns == 0 || w->split[site].off_ns > sched->now_ns)
        return;
    w->split[site].waits = false;
    sched_note("split", site, w->split[site].durable);
    process_crash(p, true);
    sched_in(&w->restarts[site].event, w->split[site].down_ns);
}

void split_look(struct world *w)
{
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->split[i].waits)
            look(w, i);
}
