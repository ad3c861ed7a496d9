/* What waits for a repair may be out of reach for one exchange with the site that owes it, 30 s at
 * most (P6): the repair that each shard has owed longest is looked at.
 *
 * Nobody can do it sooner than he hears of it, so 30 s count while all sites and links are well.
 * Else the others take it over, one after the other (journal/README.md), a site by itself after 30
 * s times its rank; nothing but its own disk keeps it from that. */
#include "sim/watch_int.h"
#include "site/call.h"

#define REACH_NS (30 * NS_PER_SEC)
#define REACH_SLACK_NS (5 * NS_PER_SEC) /* for the two looks, the tick, and clocks that differ */

struct ranks {
    site_id_t self;
    unsigned rank;
};

static bool rank_add(void *ctx, const struct member *m)
{
    struct ranks *r = ctx;
    r->rank += m->status == MEMBER_IS && m->site < r->self;
    return true;
}

/* Could whoever owes it have heard of it, and said so, all the time? */
static bool others_are_well(const struct world *w, unsigned site, uint64_t for_ns)
{
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (i != site &&
            (!world_counts(w, i) || w->config.links[i][site].absent ||
             !watch_is_well(w, i, site, for_ns) || sched->now_ns - w->disk_bad_ns[i] < for_ns))
            return false;
    return true;
}

/* What is owed at a site is not owed any more after this. */
static uint64_t reach_ns(const struct world *w, unsigned site)
{
    uint64_t slack = REACH_SLACK_NS + 2 * w->config.check_ns;
    struct ranks r = {.self = w->ids[site], .rank = 1};
    for (unsigned i = 0; i < w->config.site_count; i++)
        slack += w->clock_jumped_ns[i];
    if (!others_are_well(w, site, REACH_NS + slack) &&
        node_members(w->sites[site].node, rank_add, &r) != 0)
        return UINT64_MAX;
    return r.rank * REACH_NS + slack;
}

void reach_look(struct world *w, unsigned site)
{
    struct watch *t = w->watcher;
    bool can = t->up_ns[site] != 0 && world_counts(w, site) &&
               !disk_is_bad(w->sites[site].machine.disk) &&
               sched->now_ns - w->disk_bad_ns[site] > REACH_SLACK_NS;
    for (unsigned s = 0; s < w->config.shards; s++) {
        struct oid oid = {{0}};
        uint64_t hlc;
        bool owes =
            can && merge_owed_oldest(shard_merge(node_shard(w->sites[site].node, (shard_id_t)s)),
                                     &oid, &hlc);
        if (!owes || !oid_equal(oid, t->owed[site][s].oid) ||
            t->owed[site][s].since_ns < t->up_ns[site])
            t->owed[site][s].since_ns = sched->now_ns;
        t->owed[site][s].oid = oid;
        uint64_t waits = sched->now_ns - t->owed[site][s].since_ns;
        if (!owes || waits <= REACH_NS || waits <= reach_ns(w, site))
            continue;
        char text[OID_TEXT_LEN + 1];
        oid_to_text(oid, text);
        world_fail(w, "P6", "site %s owes a repair of %s since %.0f s", w->config.sites[site].name,
                   text, (double)waits / 1e9);
    }
}
