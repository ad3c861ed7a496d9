/* Power that goes between two calls of the disk: in the middle of whatever a daemon does without
 * waiting, as a small file that is written, synced and renamed, a checkpoint and what is removed
 * after it, a segment that is made, or all of a start with its recovery.
 *
 * Crashes at random times come between two events of the world, and what is done within one is
 * whole for them. A disk that is armed counts its calls instead. What the process does in the rest
 * of that event its ghost does: it changes nothing, and nobody hears of it. */
#include "sim/world_int.h"

#define DOWN_NS (2 * NS_PER_SEC)
#define START_CALLS 40u     /* about as many as a start makes, with a journal that was torn */
#define START_CALLS_FEW 20u /* and of those that change more than what is in a file */

static void arm(struct world *w, unsigned site, unsigned calls, bool few)
{
    struct machine *m = &w->sites[site].machine;
    disk_power_off_in(m->disk, m, calls, few);
}

void power_arm(struct world *w, unsigned site, int64_t value)
{
    w->starts_cut[site] = (unsigned)(value >> 33);
    if (w->sites[site].node != NULL)
        arm(w, site, MAX((uint32_t)value, 1u), (value >> 32 & 1) != 0);
}

void power_starts(struct world *w, unsigned site)
{
    if (w->starts_cut[site] == 0)
        return;
    w->starts_cut[site]--;
    bool few = rng_below(&sched->rng, 2) == 0;
    arm(w, site, 1 + (unsigned)rng_below(&sched->rng, few ? START_CALLS_FEW : START_CALLS), few);
}

void power_calm(struct world *w, unsigned site)
{
    w->starts_cut[site] = 0;
    if (w->sites[site].node != NULL)
        arm(w, site, 0, false);
}

void power_look(struct world *w)
{
    disk_power_went = false;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        if (!disk_power_is_off(w->sites[i].machine.disk))
            continue;
        sched_note("power", i, w->starts_cut[i]);
        process_crash(&w->sites[i], true);
        sched_in(&w->restarts[i].event, rng_below(&sched->rng, DOWN_NS));
    }
}
