/* Three replicas of one shard in a small world of their own: disks that lose what was not synced, a
 * network that loses, repeats, delays and reorders, a linearizable register for a coordinator whose
 * requests and answers are late or lost, clocks of different rates; clients that write and read. */
#ifndef TESTS_REPLICA_WORLD_H
#define TESTS_REPLICA_WORLD_H

#include "base/clock.h"
#include "site/replica.h"

enum {
    WORLD_NODES = 3
};

struct replica_world_result {
    char failure[200]; /* empty: nothing was found */
    uint64_t committed, acknowledged, reads, takeovers, copies, crashes, removals;
};
/* Everything follows from the seed. */
void replica_world_run(uint64_t seed, struct replica_world_result *ret);

#endif
