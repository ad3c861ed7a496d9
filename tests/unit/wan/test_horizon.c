/* What a stream takes for granted: all that its sender has and its journal has not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "wan/horizon.h"

enum {
    SHARDS = 3,
    SITES = 4, /* 0 is the receiver */
    SEQS = 6
};

/* Random histories: each site's operations in each shard are numbered; the journal holds a tail of
 * some of them. Met means, operation by operation: the receiver has it, or issued it, or the
 * journal holds it. */
static void test_horizon_met_when_the_rest_is_there(void **state)
{
    struct rng rng;
    unsigned met = 0;
    (void)state;
    rng_seed(&rng, 1);
    for (unsigned round = 0; round < 4000; round++) {
        struct vv mine[SHARDS] = {{0}}, have[SHARDS] = {{0}};
        struct horizon h;
        bool want = true;
        uint64_t last[SHARDS][SITES], first[SHARDS][SITES];
        for (unsigned s = 0; s < SHARDS; s++)
            for (unsigned i = 0; i < SITES; i++) {
                uint64_t mark = rng_below(&rng, SEQS), has = mark + rng_below(&rng, 3);
                if (rng_below(&rng, 8) == 0)
                    has = rng_below(&rng, mark + 1);
                last[s][i] = rng_below(&rng, SEQS);
                first[s][i] = 1 + mark;
                assert_int_equal(vv_set(&mine[s], 10 + i, last[s][i]), 0);
                assert_int_equal(vv_set(&have[s], 10 + i, has), 0);
                for (uint64_t seq = 1; seq <= last[s][i]; seq++)
                    want = want && (i == 0 || seq <= has || seq >= first[s][i]);
            }
        horizon_init(&h, SHARDS, 10, mine);
        for (unsigned s = 0; s < SHARDS; s++)
            for (unsigned i = 0; i < SITES; i++)
                for (uint64_t seq = first[s][i]; seq <= last[s][i]; seq++)
                    horizon_see(&h,
                                (struct dot){.seq = seq, .site = 10 + i, .shard = (shard_id_t)s});
        assert_int_equal(horizon_met(&h, have), want);
        met += want;
        /* Something short of what a site has, which the journal has not. */
        assert_int_equal(vv_set(&have[1], 12, 0), 0);
        horizon_deinit(&h);
        mine[1] = (struct vv){0};
        assert_int_equal(vv_set(&mine[1], 12, 7), 0);
        horizon_init(&h, SHARDS, 10, mine);
        horizon_see(&h, (struct dot){.seq = 6, .site = 12, .shard = 1});
        assert_false(horizon_met(&h, have));
        horizon_deinit(&h);
    }
    assert_in_range(met, 400, 3600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_horizon_met_when_the_rest_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
