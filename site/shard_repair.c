/* Operations that a site issues by itself to settle what collided (rules 2, 3, 4). */
#include "base/plant.h"
#include "site/shard_int.h"

#define TAKE_OVER_MS 30000u

int shard_repair(struct shard *s, unsigned rank, void (*committed)(void *ctx, int rc), void *ctx)
{
    if (!merge_owes(s->merge))
        return 0;
    uint64_t now = hlc_from_wall(clock_wall_ns(s->cfg.clock));
    uint64_t wait = PLANTED(57) ? 0 : (uint64_t)TAKE_OVER_MS * rank * (PLANTED(62) ? 3 : 1) << 16;
    struct repair_due due = {.due_before_hlc = now > wait && !PLANTED(56) ? now - wait : 0};
    struct proposal p = {.committed = committed, .ctx = ctx};
    struct op_builder b = {0};
    op_builder_init(&b);
    int rc = merge_repair(s->merge, &due, &b, NULL) ? 1 : 0;
    if (rc == 1 && b.count > 0) {
        int proposed = shard_propose(s, &b, &p, NULL);
        rc = proposed != 0 ? proposed : 1;
    }
    op_builder_deinit(&b);
    return rc;
}
