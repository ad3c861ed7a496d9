/* What a stream takes for granted; see horizon.h. */
#include "wan/horizon.h"

#include "base/assert.h"
#include "base/util.h"

void horizon_init(struct horizon *h, unsigned shard_count, site_id_t peer, const struct vv *mine)
{
    *h = (struct horizon){.shard_count = shard_count,
                          .peer = peer,
                          .needs = mem_dup(mine, shard_count * sizeof mine[0])};
}

void horizon_deinit(struct horizon *h)
{
    mem_free(h->needs);
    *h = (struct horizon){0};
}

void horizon_see(struct horizon *h, struct dot dot)
{
    ASSERT(dot.shard < h->shard_count && dot.seq > 0);
    struct vv *needs = &h->needs[dot.shard];
    if (vv_get(needs, dot.site) >= dot.seq) {
        int rc = vv_set(needs, dot.site, dot.seq - 1);
        ASSERT(rc == 0); /* it makes an entry smaller */
    }
}

bool horizon_met(const struct horizon *h, const struct vv *have)
{
    for (unsigned s = 0; s < h->shard_count; s++)
        for (uint32_t i = 0; i < h->needs[s].count; i++) {
            site_id_t site = h->needs[s].at[i].site;
            if (site != h->peer && vv_get(&have[s], site) < h->needs[s].at[i].seq)
                return false;
        }
    return true;
}
