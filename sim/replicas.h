/* A site of three nodes that keep one journal: the product's journal on simulated disks under the
 * product's replication core, a coordinator that is a linearizable register behind a slow network,
 * clients that write and read a few registers, and everything that may go wrong.
 *
 * Where the real thing ends: the state is a few numbers in a file, not a shard, and messages are
 * datagrams that get lost, repeated and reordered, which is harsher than the connections of a site.
 * One world at a time in one process, as in sim/world.h. */
#ifndef SIM_REPLICAS_H
#define SIM_REPLICAS_H

#include "sim/soak.h"

/* The world of a seed: o->operations calls, with faults or without; then healed and checked. calls:
 * answered ones; changes: committed records; settle_ns: until all replicas were in sync again. */
void replicas_run(const struct soak_options *o, uint64_t seed, bool trace, struct soak_result *ret);

#endif
