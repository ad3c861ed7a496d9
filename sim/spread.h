/* One node and its targets: chunks spread and copied over several stores, each on a disk of its
 * own, as the product's placement (data/placement.h) and front (data/front.h) say.
 *
 * Where the real thing ends: the product has no process yet that moves chunks when its targets
 * change, so that is done here (spread_keeper.c): a front for the list as it is, one for the list
 * as it was until all has been moved, then each store gives up what lies elsewhere now. Chunks are
 * bytes that follow from a number; nothing seals them.
 * One world at a time in one process, as in sim/world.h. */
#ifndef SIM_SPREAD_H
#define SIM_SPREAD_H

#include "sim/soak.h"

/* The world of a seed: about o->operations calls, with faults or without; then healed and checked.
 * calls: answered ones; changes: chunks that were put; settle_ns: until all was in its place. `e`
 * (NULL: nothing): work ends after operations[0] calls; faults are numbered as they happen. */
void spread_run(const struct soak_options *o,
                uint64_t seed,
                const struct soak_edit *e,
                bool trace,
                struct soak_result *ret);

#endif
