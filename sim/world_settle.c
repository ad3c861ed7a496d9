/* The liveness phase: faults end, and sites have to agree within a bounded time.
 *
 * Where a site is to be left broken, the others are healed first and have to converge without it:
 * none of them may need what it does not have any more, an acknowledgement, a turn at a repair, a
 * stream, from somebody who is cut off, down, or has no room. Only then all is healed. */
#include <string.h>

#include "sim/away.h"
#include "sim/world_int.h"

#define SETTLE_STEP_NS (250 * NS_PER_MS)

/* Does nothing come from `from` to `to`, though faults are over? */
static bool stays_cut(const struct world *w, unsigned from, unsigned to)
{
    enum world_broken a = w->config.sites[from].broken, b = w->config.sites[to].broken;
    return away_is_cut(w, from, to) ||
           (w->out[from] && (a == WORLD_BROKEN_CUT || a == WORLD_BROKEN_MUTE)) ||
           (w->out[to] && (b == WORLD_BROKEN_CUT || b == WORLD_BROKEN_DEAF));
}

static enum disk_room room_of(const struct world *w, unsigned site)
{
    enum world_broken how = w->config.sites[site].broken;
    return !w->out[site]                     ? DISK_ROOM
           : how == WORLD_BROKEN_FULL        ? DISK_NO_ROOM
           : how == WORLD_BROKEN_FULL_AT_ALL ? DISK_NO_ROOM_AT_ALL
                                             : DISK_ROOM;
}

static void site_heal(struct world *w, unsigned i)
{
    struct process *p = &w->sites[i];
    enum world_broken how = w->config.sites[i].broken;
    bool down = w->out[i] && (how == WORLD_BROKEN_DOWN || how == WORLD_BROKEN_DARK);
    disk_set_room(p->machine.disk, room_of(w, i));
    w->faulty_disk[i] |= room_of(w, i) != DISK_ROOM;
    disk_set_failing(p->machine.disk, 0, 0);
    for (unsigned k = 0; k < w->config.site_count; k++) {
        net_cut(i, k, stays_cut(w, i, k));
        net_slow(i, k, 1);
    }
    sched_cancel(&w->restarts[i].event);
    power_calm(w, i);
    w->split[i].waits = false;
    if (down)
        process_crash(p, how == WORLD_BROKEN_DARK);
    else if (w->rotten[i]) /* reads all there is: what it stands by from now on is right */
        process_crash(p, false);
    if (!down)
        world_site_up(w, i);
}

static void heal(struct world *w)
{
    w->event_next = w->config.event_count;
    sched_cancel(&w->event);
    net_quiet(true);
    rpc_sim_lost_per_million = 0;
    for (unsigned i = 0; i < w->config.site_count; i++)
        site_heal(w, i);
    for (unsigned i = 0; i < w->mount_count; i++)
        w->mounts[i].until_ns = sched->now_ns;
}

static int converge(struct world *w, uint64_t max_ns, const char *who)
{
    uint64_t until = sched->now_ns + max_ns;
    unsigned quiet = 0;
    while (w->failure[0] == '\0' && sched->now_ns < until && quiet < 2) {
        uint64_t next = sched->now_ns + SETTLE_STEP_NS;
        while (w->failure[0] == '\0' && sched_step(next))
            touch_look(w);
        quiet = world_quiescent(w) ? quiet + 1 : 0;
    }
    if (w->failure[0] != '\0')
        return ERR_FATAL;
    if (quiet == 2)
        return 0;
    unsigned site;
    const char *why = world_unrest(w, &site);
    world_fail(w, "P4", "%s have not converged %.0f s after the last fault: %s %s", who,
               (double)max_ns / 1e9, w->config.sites[site].name,
               why != NULL ? why : "is quiet now");
    return ERR_TIMEOUT;
}

/* Is there anybody who is left broken, and somebody who is not? */
static bool core_begin(struct world *w)
{
    unsigned core = 0, out = 0;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        w->out[i] = w->config.sites[i].broken != WORLD_BROKEN_NOT && !w->sites[i].lost;
        out += w->out[i];
        core += world_counts(w, i);
    }
    if (core > 0 && out > 0)
        return true;
    memset(w->out, 0, sizeof w->out);
    return false;
}

/* Nobody is left out any more then. */
static int core_settle(struct world *w, uint64_t max_ns)
{
    sched_note("core", 0, 0);
    heal(w);
    int rc = converge(w, max_ns, "those that are not left broken");
    if (rc == 0)
        world_check_core(w);
    memset(w->out, 0, sizeof w->out);
    return rc == 0 && w->failure[0] != '\0' ? ERR_FATAL : rc;
}

int world_settle(struct world *w, uint64_t max_ns, uint64_t *ret_took_ns)
{
    w->settling = true;
    int rc = core_begin(w) ? core_settle(w, max_ns) : 0;
    uint64_t from = sched->now_ns;
    if (rc == 0) {
        heal(w);
        rc = converge(w, max_ns, "the sites");
    }
    *ret_took_ns = sched->now_ns - from;
    if (rc != 0)
        return rc;
    w->settled_ns = sched->now_ns; /* the last checks let time pass */
    world_check_final(w);
    return w->failure[0] == '\0' ? 0 : ERR_FATAL;
}
