/* One node and its targets: disks, and what happens to them. See spread.h. */
#include <stdio.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "sim/spread_int.h"

#define GAP_NS (2 * NS_PER_SEC) /* between faults, about */

void spread_target_make(struct spread *w, unsigned at)
{
    const struct world_disk disk = {
        .write = {.base_ns = 200 * UINT64_C(1000), .jitter_ns = NS_PER_MS},
        .read = {.base_ns = 100 * UINT64_C(1000), .jitter_ns = NS_PER_MS},
        .sync = {.base_ns = 500 * UINT64_C(1000), .jitter_ns = 2 * NS_PER_MS}};
    struct spread_target *t = &w->targets[at];
    (void)snprintf(t->dir, sizeof t->dir, DISK_PREFIX "%u", at); /* fits */
    t->disk = disk_new(t->dir, &disk);
    if (mkdir(t->dir, 0700) != 0)
        spread_fail(w, "setup", "%s cannot be made", t->dir);
}

/* How many domains may be without their disks at a moment. */
static unsigned losses(const struct spread *w)
{
    unsigned width = spread_width(w, w->now);
    if (w->before != 0)
        width = MIN(width, spread_width(w, w->before));
    return width - 1;
}

static bool may_hurt(const struct spread *w, unsigned at)
{
    return spread_domains(w, spread_bad(w) | 1u << at) <= losses(w);
}

static void restart(struct sched_event *e)
{
    struct spread *w = CONTAINER_OF(e, struct spread, restart);
    if (w->loop == NULL)
        spread_start(w);
}

static void crash(struct spread *w, bool power)
{
    spread_crash(w, power);
    w->restart.run = restart;
    sched_in(&w->restart, 10 * NS_PER_MS + spread_below(2 * NS_PER_SEC));
}

/* What could not be read is damaged for the rest of the run. Where there is no other copy to put
 * again, somebody starts the node anew. */
static void target_back(struct spread_target *t)
{
    struct spread *w = t->world;
    if (!t->away)
        return;
    sched_note("disk is back", t->is.id, 0);
    disk_set_failing(t->disk, 0, 0);
    t->away = false;
    t->bad_until_ns = sched->now_ns + SPREAD_GRACE_NS;
    w->upsets++;
    sched_cancel(&t->heal);
    spread_keeper_due(w);
    if (losses(w) > 0)
        return;
    t->suspect = false;
    if (w->loop != NULL)
        crash(w, false);
}

void spread_targets_back(struct spread *w)
{
    for (unsigned i = 0; i < SPREAD_TARGETS; i++)
        target_back(&w->targets[i]);
}

/* A disk that was away is back; one that is dead is taken out of the list. */
static void heal(struct sched_event *e)
{
    struct spread_target *t = CONTAINER_OF(e, struct spread_target, heal);
    struct spread *w = t->world;
    uint32_t bit = 1u << (unsigned)(t - w->targets);
    if (!t->dead)
        target_back(t);
    else if (w->loop == NULL)
        sched_in(e, 100 * NS_PER_MS);
    else if ((w->now & bit) != 0)
        spread_list_set(w, w->now & ~bit);
}

static void fail_disk(struct spread *w, unsigned at, bool for_ever)
{
    struct spread_target *t = &w->targets[at];
    sched_note(for_ever ? "disk is dead" : "disk fails", t->is.id, 0);
    w->upsets++;
    t->dead |= for_ever;
    t->away = !for_ever;
    t->suspect |= !for_ever;
    disk_set_failing(t->disk, DISK_CALLS, UINT32_MAX);
    t->heal.run = heal;
    sched_in(&t->heal, 50 * NS_PER_MS + spread_below(4 * NS_PER_SEC));
}

static void rot(struct spread *w, unsigned at)
{
    struct spread_target *t = &w->targets[at];
    bool some = false;
    for (uint64_t i = 1 + spread_below(4); i > 0; i--)
        some |= disk_rot(t->disk, "/segments/");
    if (!some)
        return;
    sched_note("rot", t->is.id, 0);
    w->rots++;
    w->upsets++;
    t->suspect = true;
    spread_keeper_due(w);
}

/* A target comes: a new one, or one that was taken out, with all that it had. */
static void come(struct spread *w)
{
    uint32_t free = 0;
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        const struct spread_target *t = &w->targets[i];
        if ((w->now & 1u << i) == 0 && !t->dead && t->store == NULL)
            free |= 1u << i;
    }
    unsigned at = (unsigned)spread_below(SPREAD_TARGETS);
    if ((free & 1u << at) == 0)
        return;
    if (w->targets[at].disk == NULL)
        spread_target_make(w, at);
    if (spread_target_open(w, at) == 0)
        spread_list_set(w, w->now | 1u << at);
}

static bool happens(struct spread *w)
{
    uint64_t number = w->faults++;
    return number >= WORLD_EVENTS_MAX || !w->edit->without[number];
}

static void fault(struct sched_event *e)
{
    struct spread *w = CONTAINER_OF(e, struct spread, fault);
    unsigned kind = (unsigned)spread_below(10), at = (unsigned)spread_below(SPREAD_TARGETS);
    bool listed = (w->now & 1u << at) != 0 && !w->targets[at].dead && !w->targets[at].away;
    bool quiet = w->before == 0 && spread_bad(w) == 0;
    sched_in(e, 1 + spread_below(GAP_NS));
    if (w->loop == NULL || !happens(w))
        return;
    if (kind < 2)
        crash(w, spread_below(2) == 0);
    else if (kind < 4 && listed && (may_hurt(w, at) || (losses(w) == 0 && quiet)))
        fail_disk(w, at, false);
    else if (kind == 4 && listed && may_hurt(w, at))
        fail_disk(w, at, true);
    else if (kind == 5 && listed && may_hurt(w, at))
        rot(w, at);
    else if (kind == 6 && listed && quiet && spread_bits(w->now) > 2)
        spread_list_set(w, w->now & ~(1u << at));
    else if (kind > 6 && quiet)
        come(w);
}

void spread_faults_begin(struct spread *w)
{
    w->fault.run = fault;
    sched_in(&w->fault, 1 + spread_below(GAP_NS));
}

void spread_heal(struct spread *w)
{
    sched_cancel(&w->fault);
    spread_targets_back(w);
}
