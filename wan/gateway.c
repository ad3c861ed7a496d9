/* Merge of the shards' feeds; see gateway.h.
 *
 * Each shard has a short queue of operations read but not sent. A shard whose queue is empty and
 * that has more to read stops the merge: its next operation might be the lowest. */
#include "wan/gateway.h"

#include "base/assert.h"
#include "base/plant.h"

struct queued {
    uint64_t index, hlc;
    struct dot dot;
    struct stamp stamp;
    bool barrier;
    size_t at, len; /* of the operation in the lane's bytes */
};
struct lane {
    uint64_t read_next;   /* first index not read */
    uint64_t sent_next;   /* first index with an operation not sent */
    uint64_t told_next;   /* the cursor the peer was told last */
    uint64_t last_hlc;    /* of the last operation read; must not fall */
    struct queued *items; /* at[first..count) wait */
    uint32_t first, count, cap;
    struct buf bytes; /* operations since the lane was empty last, sent ones too */
};
struct gateway {
    unsigned shard_count;
    site_id_t peer;
    struct feed_state state;
    bool state_seen;
    struct lane *lanes;
    struct vv *have;
    uint64_t sent_hlc; /* commit stamp of the last operation sent or passed over */
    uint64_t number;   /* of the last batch */
    bool moved;        /* operations were passed over since the last batch */
    uint64_t ops_sent, bytes_sent, ops_skipped;
    struct batch_item items[BATCH_ITEMS_MAX]; /* of the last batch; they borrow from the lanes */
    size_t batch_bytes;                       /* of them */
};

struct gateway *
gateway_new(unsigned shard_count, site_id_t peer, const uint64_t *next, const struct vv *have)
{
    ASSERT(shard_count > 0 && shard_count <= SHARD_COUNT_MAX);
    struct gateway *g = mem_calloc(1, sizeof *g);
    g->shard_count = shard_count;
    g->peer = peer;
    g->lanes = mem_calloc(shard_count, sizeof g->lanes[0]);
    g->have = mem_dup(have, shard_count * sizeof have[0]);
    for (unsigned s = 0; s < shard_count; s++) {
        ASSERT(next[s] > 0);
        g->lanes[s].read_next = g->lanes[s].sent_next = g->lanes[s].told_next = next[s];
    }
    return g;
}

static void lane_deinit(struct lane *lane)
{
    buf_deinit(&lane->bytes);
    mem_free(lane->items);
}

void gateway_free(struct gateway *g)
{
    if (g == NULL)
        return;
    for (unsigned s = 0; s < g->shard_count; s++)
        lane_deinit(&g->lanes[s]);
    mem_free(g->lanes);
    mem_free(g->have);
    mem_free(g);
}

void gateway_see_state(struct gateway *g, const struct feed_state *state)
{
    ASSERT(state->shard_count == g->shard_count);
    if (g->state_seen && state->safe_hlc < g->state.safe_hlc)
        return;
    feed_state_copy(&g->state, state);
    g->state_seen = true;
}

int gateway_see_have(struct gateway *g, shard_id_t shard, site_id_t site, uint64_t seq)
{
    if (shard >= g->shard_count || site == 0)
        return ERR_MALFORMED;
    if (vv_get(&g->have[shard], site) >= seq)
        return 0;
    return vv_set(&g->have[shard], site, seq);
}

static bool lane_empty(const struct lane *lane)
{
    return lane->first == lane->count;
}

static bool lane_must_read(const struct gateway *g, unsigned s)
{
    return lane_empty(&g->lanes[s]) && g->lanes[s].read_next <= g->state.durable[s];
}

bool gateway_wants(const struct gateway *g, shard_id_t *ret_shard, uint64_t *ret_from)
{
    if (!g->state_seen)
        return false;
    for (unsigned s = 0; s < g->shard_count; s++) {
        if (!lane_must_read(g, s))
            continue;
        *ret_shard = (shard_id_t)s;
        *ret_from = g->lanes[s].read_next;
        return true;
    }
    return false;
}

void gateway_add(struct gateway *g, const struct feed_item *item)
{
    ASSERT(item->shard < g->shard_count);
    ASSERT(item->op.len <= LIMIT_OP_BYTES);
    ASSERT(item->dot.shard < g->shard_count);
    struct lane *lane = &g->lanes[item->shard];
    ASSERT(item->index >= lane->read_next);
    ASSERT(item->commit_hlc >= lane->last_hlc);
    if (lane_empty(lane)) {
        lane->first = lane->count = 0;
        buf_clear(&lane->bytes);
    }
    if (lane->count == lane->cap) {
        lane->cap = lane->cap == 0 ? 16 : 2 * lane->cap;
        lane->items = mem_realloc(lane->items, lane->cap * sizeof lane->items[0]);
    }
    struct queued *q = &lane->items[lane->count++];
    *q = (struct queued){.index = item->index,
                         .hlc = item->commit_hlc,
                         .dot = item->dot,
                         .stamp = item->stamp,
                         .barrier = item->barrier,
                         .at = lane->bytes.len,
                         .len = item->op.len};
    buf_append(&lane->bytes, item->op.ptr, item->op.len);
    lane->last_hlc = item->commit_hlc;
}

void gateway_read_done(struct gateway *g, shard_id_t shard, uint64_t next)
{
    struct lane *lane = &g->lanes[shard];
    ASSERT(next >= lane->read_next);
    lane->read_next = next;
    if (lane_empty(lane))
        lane->sent_next = next;
}

/* What was committed together (the parts of a peer's batch, one in each shard) goes in the order of
 * the stamps, which is a causal one: so the stream may be cut anywhere between two operations. */
static bool goes_before(const struct queued *a, const struct queued *b)
{
    if (PLANTED(13))
        return false;
    if (a->hlc != b->hlc || PLANTED(27))
        return a->hlc < b->hlc;
    return stamp_cmp(a->stamp, b->stamp) < 0;
}

/* The lane whose first operation was committed first, if it is safe to send. */
static struct lane *lane_next(struct gateway *g, unsigned *ret_shard)
{
    struct lane *best = NULL;
    for (unsigned s = 0; s < g->shard_count; s++) {
        struct lane *lane = &g->lanes[s];
        if (lane_must_read(g, s))
            return NULL;
        if (lane_empty(lane) || lane->items[lane->first].hlc > g->state.safe_hlc)
            continue;
        if (best == NULL || goes_before(&lane->items[lane->first], &best->items[best->first])) {
            best = lane;
            *ret_shard = s;
        }
    }
    return best;
}

/* Takes the lane's first operation away; the cursor moves when its record is finished. */
static void lane_shift(struct gateway *g, struct lane *lane)
{
    struct queued *q = &lane->items[lane->first++];
    if (lane_empty(lane))
        lane->sent_next = lane->read_next;
    else
        lane->sent_next = lane->items[lane->first].index;
    g->sent_hlc = MAX(g->sent_hlc, q->hlc);
}

static bool is_had(const struct gateway *g, const struct queued *q)
{
    return q->dot.site == g->peer ||
           vv_get(&g->have[q->dot.shard], q->dot.site) + PLANTED(12) >= q->dot.seq;
}

/* The item borrows: nothing is added to a lane before the next batch is asked for. */
static void item_take(struct gateway *g, unsigned shard, const struct queued *q, struct batch *b)
{
    const uint8_t *op = g->lanes[shard].bytes.ptr + q->at;
    g->items[b->count++] =
        (struct batch_item){.shard = (shard_id_t)shard, .dot = q->dot, .op = slice_of(op, q->len)};
    g->batch_bytes += q->len;
    g->ops_sent++;
    g->bytes_sent += q->len;
}

static bool batch_takes(const struct gateway *g, const struct batch *b, const struct queued *q)
{
    if (b->count == 0)
        return true;
    if (b->barrier || q->barrier || b->count == BATCH_ITEMS_MAX)
        return false;
    return g->batch_bytes < GATEWAY_BATCH_BYTES;
}

bool gateway_batch(struct gateway *g, bool flush, struct batch *ret)
{
    *ret = (struct batch){.items = g->items};
    g->batch_bytes = 0;
    if (!g->state_seen)
        return false;
    struct lane *lane;
    unsigned shard = 0;
    while ((lane = lane_next(g, &shard)) != NULL) {
        struct queued *q = &lane->items[lane->first];
        if (is_had(g, q)) {
            g->moved = true;
            g->ops_skipped++;
        } else if (batch_takes(g, ret, q)) {
            ret->barrier = q->barrier;
            item_take(g, shard, q, ret);
        } else {
            break;
        }
        lane_shift(g, lane);
    }
    if (ret->count == 0 && !(flush && g->moved))
        return false;
    for (unsigned s = 0; s < g->shard_count; s++) {
        struct lane *l = &g->lanes[s];
        if (l->sent_next > l->told_next)
            ret->cursor[s] = l->told_next = l->sent_next;
    }
    g->moved = false;
    ret->number = ++g->number;
    ret->hlc = g->sent_hlc;
    return true;
}

void gateway_progress(const struct gateway *g, struct gateway_progress *ret)
{
    uint64_t waiting_ops = 0, waiting_bytes = 0, unread = 0;
    for (unsigned s = 0; s < g->shard_count; s++) {
        const struct lane *lane = &g->lanes[s];
        for (uint32_t i = lane->first; i < lane->count; i++) {
            waiting_ops++;
            waiting_bytes += lane->items[i].len;
        }
        if (g->state_seen && g->state.durable[s] >= lane->read_next)
            unread += g->state.durable[s] - lane->read_next + 1;
    }
    uint64_t mean = g->ops_sent == 0 ? 0 : g->bytes_sent / g->ops_sent;
    bool all = waiting_ops + unread == 0;
    *ret = (struct gateway_progress){
        .sent_hlc = all ? MAX(g->state.safe_hlc, g->sent_hlc) : g->sent_hlc,
        .head_hlc = MAX(g->state.safe_hlc, g->sent_hlc),
        .ops_to_go = waiting_ops + unread + (PLANTED(63) ? g->ops_skipped : 0),
        .bytes_to_go = waiting_bytes + unread * mean,
        .ops_sent = g->ops_sent,
        .bytes_sent = g->bytes_sent,
        .ops_skipped = g->ops_skipped,
    };
}
