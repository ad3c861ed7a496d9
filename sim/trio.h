/* Sites of three nodes that keep their shards together, one or several on one tree: the product's
 * shards (journal, recovery, state, engine, outbox, stored results) on simulated disks, the
 * product's replication core between them, a coordinator that is a linearizable register behind a
 * slow network, clients that make, write, link, rename and remove files and directories, and
 * everything that may go wrong; between sites the cores of wan/ and of site/intake.h, over links
 * that break.
 *
 * Where the real thing ends: clients are no mounts. They evaluate a call against the states of
 * whoever leads, at one moment, build the operation with the engine's own functions, and keep what
 * it names to themselves until it is answered and shows; messages are datagrams that get lost,
 * repeated and reordered, which is harsher than the connections of a site.
 * One world at a time in one process, as in sim/world.h. */
#ifndef SIM_TRIO_H
#define SIM_TRIO_H

#include "sim/soak.h"

/* The world of a seed: o->operations calls, with faults or without; then healed and checked. calls:
 * answered ones; changes: committed records; settle_ns: until all replicas were in sync again. `e`
 * (NULL: nothing): work ends after operations[0] calls; faults are numbered as they happen. */
void trio_run(const struct soak_options *o,
              uint64_t seed,
              const struct soak_edit *e,
              bool trace,
              struct soak_result *ret);

#endif
