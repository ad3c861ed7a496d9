/* Further ways to look at a world, for reports: how far everybody is, and what collided. */
#ifndef SIM_WORLD_LOOK_H
#define SIM_WORLD_LOOK_H

#include "sim/world.h"

#define WORLD_SHARDS_MAX 16u

/* What the sites that are up had at one moment, all together: of each site, by shard. */
struct world_mark {
    uint64_t seq[WORLD_SITES_MAX][WORLD_SHARDS_MAX];
};
void world_mark(struct world *w, struct world_mark *ret);
/* Every site that is not lost is up and has all that. */
bool world_has(struct world *w, const struct world_mark *m);
/* Calls back (world_config.conflict) for each conflict that a site has noticed since the last time,
 * site by site. */
void world_conflicts_look(struct world *w);
void world_conflicts_free(struct world *w);
/* The conflicts with what became of each side, as a site tells them: the answer of
 * `conflicts.explain`. Sites may differ in what they noticed: who hears of both sides when all is
 * over has seen no conflict. NULL: it does not serve. mem_free. */
char *world_conflicts_json(struct world *w, unsigned site);

#endif
