/* Random histories on sites with shards: partitions, late repairs, take-over, relays, a site lost
 * for ever, random interleavings between shards. test_merge_soak [SEEDS [FIRST]] runs more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/unit/journal/merge_world.h"

static uint64_t seeds = 150;
static uint64_t first_seed = 0;

struct links {
    bool up[WORLD_SITES_MAX][WORLD_SITES_MAX];
};

static struct links draw_links(struct world *w, bool ring)
{
    struct links l = {.up = {{false}}};
    for (unsigned i = 0; i < w->site_count; i++)
        for (unsigned k = i + 1; k < w->site_count; k++) {
            bool near = !ring || k - i == 1 || k - i == w->site_count - 1;
            l.up[i][k] = l.up[k][i] = near && world_below(w, 2) == 0;
        }
    return l;
}

static void soak(unsigned sites, unsigned shards, uint32_t steps, uint64_t seed)
{
    struct world *w = world_new(sites, shards, seed);
    bool ring = world_below(w, 10) < 3;
    bool eager = world_below(w, 2) == 0;
    bool fresh_data = world_below(w, 10) < 7;
    w->rough = world_below(w, 4) == 0;
    struct links links = draw_links(w, ring);
    for (unsigned i = 0; i < sites; i++)
        w->sites[i]->skew = world_below(w, 3) == 0 ? 500 : 0;
    for (uint32_t n = 0; n < steps; n++) {
        if (world_below(w, 50) == 0)
            links = draw_links(w, ring);
        unsigned i = world_below(w, sites);
        unsigned k = world_below(w, sites);
        uint32_t r = world_below(w, 100);
        if (r < 65)
            user_step(w->sites[i], fresh_data);
        else if (r < 92 && i != k && links.up[i][k])
            (void)site_pull(w->sites[i], w->sites[k], 1 + world_below(w, 19));
        site_deliver(w->sites[i], world_below(w, 60));
        if (world_below(w, 40) == 0)
            site_collect(w->sites[k], site_stable(w->sites[k]), 1 + world_below(w, 30));
        if (eager || r >= 92)
            (void)site_repair(w->sites[i], world_below(w, 10) == 0);
    }
    if (sites > 2 && world_below(w, 5) == 0) {
        w->sites[world_below(w, sites)]->lost = true; /* with what it had not shipped */
        world_drain(w, false);
        world_drain(w, true);
    }
    world_drain(w, false);
    for (unsigned i = 0; i < sites; i++)
        site_collect(w->sites[i], site_stable(w->sites[i]), 100);
    world_check(w);
    world_free(w);
}

static void test_soak_one_shard_converges(void **state)
{
    (void)state;
    for (uint64_t s = first_seed; s < first_seed + seeds; s++)
        soak(2 + (unsigned)(s % 4), 1, 50 + (uint32_t)(s * 37 % 351), s);
}

static void test_soak_four_shards_converges(void **state)
{
    (void)state;
    for (uint64_t s = first_seed; s < first_seed + seeds; s++)
        soak(2 + (unsigned)(s % 4), 4, 50 + (uint32_t)(s * 37 % 351), s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_soak_one_shard_converges),
        cmocka_unit_test(test_soak_four_shards_converges),
    };
    if (argc > 1)
        seeds = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
