/* Before a stream that is new to its receiver: looks through the journal for what the stream will
 * bring, a piece at a time, and says when the receiver has the rest (horizon.h).
 *
 *   LOOKING (pieces of the journal, one a turn) -> WAITING (for acknowledgements) -> MET
 *
 * Of the journal only what the receiver cannot lack is trimmed meanwhile; where that leaves a gap
 * behind what was read, the stream begins anew (ERR_NOT_FOUND). */
#include "base/assert.h"
#include "base/log.h"
#include "wan/horizon.h"
#include "wan/wan_int.h"

#define LOOK_BYTES (1u * MIB) /* of one turn */

struct wan_horizon {
    struct wan *wan;
    struct horizon core;
    unsigned shard;                 /* being looked through; shard_count: all have been */
    uint64_t next[SHARD_COUNT_MAX]; /* in each shard */
    uint64_t last[SHARD_COUNT_MAX];
    bool told; /* that it waits */
};

struct wan_horizon *
wan_horizon_new(struct wan *w, site_id_t peer, const struct vv *mine, const uint64_t *from)
{
    struct wan_horizon *h = mem_calloc(1, sizeof *h);
    struct feed_state f;
    node_feed_state(w->node, &f);
    ASSERT(f.shard_count == w->me.shard_count);
    h->wan = w;
    horizon_init(&h->core, f.shard_count, peer, mine);
    for (unsigned i = 0; i < f.shard_count; i++) {
        h->next[i] = from[i];
        h->last[i] = f.durable[i];
    }
    return h;
}

void wan_horizon_free(struct wan_horizon *h)
{
    if (h == NULL)
        return;
    horizon_deinit(&h->core);
    mem_free(h);
}

static bool look_at(void *ctx, const struct feed_item *item)
{
    struct wan_horizon *h = ctx;
    if (item->dot.shard < h->core.shard_count)
        horizon_see(&h->core, item->dot);
    return true;
}

static int look(struct wan_horizon *h)
{
    unsigned count = h->core.shard_count;
    while (h->shard < count && h->next[h->shard] > h->last[h->shard])
        h->shard++;
    if (h->shard == count)
        return 0;
    uint64_t *next = &h->next[h->shard], from = *next;
    int rc = node_feed_read(h->wan->node, (shard_id_t)h->shard, from, LOOK_BYTES, look_at, h, next);
    if (rc == 0 && *next == from)
        rc = ERR_CORRUPT; /* what is durable can be read */
    return rc;
}

int wan_horizon_step(struct wan_horizon *h, const struct vv *have, bool *ret_met)
{
    *ret_met = false;
    if (h->shard < h->core.shard_count) {
        int rc = look(h);
        if (rc != 0)
            return rc;
    }
    if (h->shard < h->core.shard_count) {
        int rc =
            uv_async_send(&h->wan->feed_moved); /* the next piece, when others had their turn */
        ASSERT(rc == 0);
        return 0;
    }
    *ret_met = horizon_met(&h->core, have);
    if (!*ret_met && !h->told)
        log_info(LOG_WAN, "stream_waits",
                 "peer=%08x why=\"it has not got from others yet what is in this journal no more\"",
                 h->core.peer);
    h->told = true;
    return 0;
}
