/* The description of a world before anybody has said anything. Apart, so that reading a scenario
 * needs no world. */
#include <stdio.h>
#include <string.h>

#include "sim/world.h"

void world_config_init(struct world_config *c, unsigned site_count, uint64_t seed)
{
    memset(c, 0, sizeof *c);
    c->seed = seed;
    c->shards = 2;
    c->site_count = site_count;
    for (unsigned i = 0; i < site_count; i++) {
        struct world_site *s = &c->sites[i];
        (void)snprintf(s->name, sizeof s->name, "s%u", i); /* fits */
        s->disk.write = (struct world_delay){.base_ns = 60000, .jitter_ns = 60000};
        s->disk.read = (struct world_delay){.base_ns = 80000, .jitter_ns = 40000};
        s->disk.sync = (struct world_delay){.base_ns = 200000, .jitter_ns = 200000};
        s->work.clients = 1;
        for (unsigned k = 0; k < site_count; k++) {
            c->links[i][k].delay =
                (struct world_delay){.base_ns = 10 * NS_PER_MS, .jitter_ns = NS_PER_MS};
            c->links[i][k].bytes_per_s = 125000000;
        }
    }
}
