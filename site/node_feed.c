/* The feed: committed operations of all shards, as wan/ reads them; and applying a peer's batch.
 *
 * The state of the feed is copied under a mutex, so that the thread that ships can look at it; the
 * journals themselves are read directly (log_read may run on any thread below the durable index).
 * Lock order: feed_mutex is a leaf. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/node_int.h"

void node_feed_publish(struct node *n)
{
    node_members_fresh(n);
    struct feed_state f;
    f.shard_count = n->settings.shard_count;
    f.safe_hlc = UINT64_MAX;
    for (unsigned i = 0; i < f.shard_count; i++) {
        struct shard_durable sd;
        shard_durable(n->shards[i], &sd);
        f.durable[i] = sd.index;
        f.first[i] = log_first(shard_log(n->shards[i]));
        f.safe_hlc = MIN(f.safe_hlc, sd.floor_hlc);
    }
    /* Nothing is waiting for the disk: whatever comes will be stamped above what was stamped. */
    f.safe_hlc = MIN(f.safe_hlc, n->hlc.last);
    pthread_mutex_lock(&n->feed_mutex);
    feed_state_copy(&n->feed, &f);
    void (*changed)(void *) = n->feed_changed;
    void *ctx = n->feed_ctx;
    pthread_mutex_unlock(&n->feed_mutex);
    /* Alone, nobody reads it, and the thread that ships is left asleep. */
    bool others = n->member_count > 1 || n->member_count != n->feed_members;
    n->feed_members = n->member_count;
    if (others && changed != NULL)
        changed(ctx);
}

void node_feed_counts(struct node *n, shard_id_t shard)
{
    pthread_mutex_lock(&n->feed_mutex);
    n->feed_last[shard] = shard_committed(n->shards[shard]);
    pthread_mutex_unlock(&n->feed_mutex);
}

uint64_t node_feed_last(struct node *n, shard_id_t shard)
{
    pthread_mutex_lock(&n->feed_mutex);
    uint64_t last = n->feed_last[shard];
    pthread_mutex_unlock(&n->feed_mutex);
    return last;
}

static void feed_defer_run(struct loop_defer *d)
{
    node_feed_publish(CONTAINER_OF(d, struct node, feed_defer));
}

void node_feed_moved(struct node *n)
{
    loop_defer(n->loop, &n->feed_defer);
}

void node_feed_init(struct node *n)
{
    pthread_mutex_init(&n->feed_mutex, NULL);
    n->feed_defer.run = feed_defer_run;
}

void node_feed_deinit(struct node *n)
{
    pthread_mutex_destroy(&n->feed_mutex);
}

void node_feed_state(struct node *n, struct feed_state *ret)
{
    pthread_mutex_lock(&n->feed_mutex);
    feed_state_copy(ret, &n->feed);
    pthread_mutex_unlock(&n->feed_mutex);
}

void node_feed_watch(struct node *n, void (*changed)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&n->feed_mutex);
    n->feed_changed = changed;
    n->feed_ctx = ctx;
    pthread_mutex_unlock(&n->feed_mutex);
}

int node_feed_read(struct node *n,
                   shard_id_t shard,
                   uint64_t from,
                   size_t bytes_max,
                   bool (*fn)(void *ctx, const struct feed_item *item),
                   void *ctx,
                   uint64_t *ret_next)
{
    if (shard >= n->settings.shard_count)
        return ERR_INVALID;
    return feed_read(shard_log(n->shards[shard]), shard, from, node_feed_last(n, shard), bytes_max,
                     fn, ctx, ret_next);
}

/* ---- a peer's batch ---- */

uint64_t node_hlc_stamp(struct node *n)
{
    return hlc_next(&n->hlc, clock_wall_ns(n->clock));
}

/* What was applied in one shard may be what another's operations waited for. */
void node_retry_waiting(struct node *n)
{
    bool again = true;
    while (again && !n->broken) {
        again = false;
        for (unsigned i = 0; i < n->settings.shard_count; i++)
            again = shard_retry(n->shards[i]) || again;
    }
}

static uint64_t stamp(void *ctx)
{
    return node_hlc_stamp(ctx);
}

static void apply_run(struct loop_msg *msg)
{
    struct apply_batch *b = CONTAINER_OF(msg, struct apply_batch, msg);
    struct node *n = b->node;
    int rc = n->stopping ? ERR_CLOSED : n->needs_snapshot ? ERR_AGAIN : 0;
    struct intake_site at = {.shards = n->shards,
                             .shard_count = n->settings.shard_count,
                             .site = node_site(n),
                             .stamp = stamp,
                             .ctx = n,
                             .parts = n->parts};
    struct intake_batch in = {
        .peer = b->peer, .items = b->items, .count = b->item_count, .cursor = b->cursor};
    if (rc == 0)
        rc = intake(&at, &in, &b->detail);
    else
        err_detail_set(&b->detail, "a batch of site %08x: %s", b->peer, err_text(rc));
    node_retry_waiting(n);
    node_members_fresh(n);
    node_inval_flush(n, NULL);
    node_repairs_later(n);
    node_feed_moved(n);
    b->rc = rc;
    b->done(b, rc, &b->detail);
}

void node_apply(struct node *n, struct apply_batch *b)
{
    b->node = n;
    b->detail.text[0] = '\0';
    b->msg.run = apply_run;
    loop_post(n->loop, &b->msg);
}

void node_cursors(struct node *n, site_id_t peer, uint64_t *ret_by_shard)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        ret_by_shard[i] = shard_cursor(n->shards[i], peer);
}

void node_vvs(struct node *n, struct vv *ret_by_shard)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        shard_durable_vv(n->shards[i], &ret_by_shard[i]);
}

uint64_t node_waits_since(const struct node *n, site_id_t site)
{
    uint64_t since = 0;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        uint64_t hlc = shard_behind_since(n->shards[i], site);
        since = since == 0 || (hlc != 0 && hlc < since) ? hlc : since;
    }
    return since;
}

void node_last_ops(struct node *n, site_id_t site, struct last_op *ret_by_shard)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        ret_by_shard[i] = shard_last(n->shards[i], site);
}
