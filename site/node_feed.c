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

struct feed_reader {
    shard_id_t shard;
    bool (*fn)(void *ctx, const struct feed_item *item);
    void *ctx;
    uint64_t next, last;
    int rc;
    bool stopped;
};

static bool has_move(const struct op *op)
{
    for (uint32_t i = 0; i < op->effect_count; i++)
        if (op->effects[i].kind == EFFECT_MOVE)
            return true;
    return false;
}

/* Moves are in shard 0 alone: elsewhere the head of an operation tells enough. */
static bool feed_op(struct feed_reader *fr, const struct record *r, uint64_t index, struct slice op)
{
    struct op_arena arena = {0};
    struct op decoded;
    fr->rc = fr->shard == 0 ? op_decode(op, &arena, &decoded) : op_decode_head(op, &decoded);
    bool go = false;
    if (fr->rc == 0) {
        struct feed_item item = {.shard = fr->shard,
                                 .index = index,
                                 .commit_hlc = r->commit_hlc,
                                 .dot = decoded.dot,
                                 .stamp = decoded.stamp,
                                 .barrier = has_move(&decoded),
                                 .op = op};
        go = fr->fn(fr->ctx, &item);
        fr->stopped = !go;
    }
    op_arena_deinit(&arena);
    return go;
}

static bool feed_record(void *ctx, const struct log_record *lr)
{
    struct feed_reader *fr = ctx;
    struct record r;
    bool go = true;
    if (lr->index > fr->last)
        return false;
    fr->rc = record_decode(lr->payload, &r);
    if (fr->rc != 0)
        return false;
    if (r.type == RECORD_OP)
        go = feed_op(fr, &r, lr->index, r.body);
    if (r.type == RECORD_REMOTE) {
        struct dec d = dec_of(r.body);
        for (uint32_t i = 0; i < r.count && go; i++) {
            struct slice op = dec_bytes(&d, r.body.len);
            go = d.rc == 0 && feed_op(fr, &r, lr->index, op);
        }
        if (d.rc != 0)
            fr->rc = d.rc;
    }
    if (go && fr->rc == 0)
        fr->next = lr->index + 1;
    return go && fr->rc == 0;
}

int node_feed_read(struct node *n,
                   shard_id_t shard,
                   uint64_t from,
                   size_t bytes_max,
                   bool (*fn)(void *ctx, const struct feed_item *item),
                   void *ctx,
                   uint64_t *ret_next)
{
    struct feed_reader fr = {.shard = shard, .fn = fn, .ctx = ctx, .next = from};
    uint64_t log_next = from;
    if (shard >= n->settings.shard_count)
        return ERR_INVALID;
    fr.last = node_feed_last(n, shard);
    int rc = log_read(shard_log(n->shards[shard]), from, bytes_max, feed_record, &fr, &log_next);
    if (rc == 0)
        rc = fr.rc;
    *ret_next = fr.next;
    return rc;
}

/* ---- a peer's batch ---- */

uint64_t node_hlc_stamp(struct node *n)
{
    return hlc_next(&n->hlc, clock_wall_ns(n->clock));
}

/* Operations of one home shard that touch no other, collected until something needs order. */
struct run_op {
    struct stamp stamp;
    uint32_t number; /* in the run */
    struct slice op;
};
struct run {
    struct run_op *ops;
    uint32_t count, cap;
    size_t bytes;
    bool sorted; /* by stamp, so far */
};
#define PART_HEAD_BYTES 128u /* of a record, above its operations: more than there can be */

struct applying {
    struct node *n;
    struct apply_batch *b;
    struct run *runs; /* by shard */
    struct slice *slices;
    uint32_t slices_cap;
    struct parts_place *places; /* of the parts that are written now */
};

static int run_op_compare(const void *a, const void *b)
{
    const struct run_op *x = a, *y = b;
    int by_stamp = stamp_cmp(x->stamp, y->stamp);
    return by_stamp != 0 ? by_stamp : x->number < y->number ? -1 : 1;
}

static int run_write(struct applying *a, shard_id_t shard, struct shard_part *part)
{
    struct run *r = &a->runs[shard];
    if (r->count == 0 && part->cursor == 0)
        return 0;
    if (!r->sorted && r->count > 0)
        qsort(r->ops, r->count, sizeof r->ops[0], run_op_compare);
    if (a->slices_cap < r->count) {
        a->slices_cap = r->cap;
        a->slices = mem_realloc(a->slices, a->slices_cap * sizeof a->slices[0]);
    }
    for (uint32_t i = 0; i < r->count; i++)
        a->slices[i] = r->ops[i].op;
    part->peer = a->b->peer;
    part->ops = a->slices;
    part->count = r->count;
    int rc = shard_remote(a->n->shards[shard], part);
    r->count = 0;
    r->bytes = 0;
    r->sorted = true;
    return rc;
}

/* Space for all parts, so that all are written or none; and where they will be. */
static int parts_reserve(struct applying *a,
                         const uint64_t *cursor,
                         uint32_t *ret_count,
                         shard_id_t *ret_shard)
{
    *ret_count = 0;
    for (unsigned i = 0; i < a->n->settings.shard_count; i++) {
        struct shard *s = a->n->shards[i];
        if (a->runs[i].count == 0 && (cursor == NULL || cursor[i] == 0))
            continue;
        *ret_shard = (shard_id_t)i;
        int rc = shard_reserve(s, a->runs[i].bytes + PART_HEAD_BYTES);
        if (rc != 0)
            return rc;
        if (a->runs[i].count > 0)
            a->places[(*ret_count)++] =
                (struct parts_place){.shard = (shard_id_t)i, .index = log_last(shard_log(s)) + 1};
    }
    return 0;
}

/* All runs; with the batch's cursors at its end (else NULL). One part for each shard, all with one
 * commit stamp: so the safe point never lies between them, and a site that we relay to gets the
 * operations merged by their own stamps (P7, S17). A part names the next one, in a ring, and one of
 * the batch before (S21); a cursor without operations says nothing about other shards. */
static int runs_flush(struct applying *a, const uint64_t *cursor, shard_id_t *ret_shard)
{
    struct node *n = a->n;
    uint32_t count = 0, done = 0;
    int rc = parts_reserve(a, cursor, &count, ret_shard);
    if (rc != 0)
        return rc;
    uint64_t hlc = node_hlc_stamp(n), before = parts_last(n->parts);
    struct parts_named earlier = {0};
    parts_name(n->parts, before, &earlier);
    uint64_t batch = count > 0 ? parts_begin(n->parts, count, a->places[0]) : 0;
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++) {
        struct shard_part part = {.commit_hlc = PLANTED(26) ? node_hlc_stamp(n) : hlc,
                                  .cursor = cursor != NULL ? cursor[i] : 0};
        if (a->runs[i].count > 0) {
            part.batch = batch;
            part.named = earlier;
            if (count > 1)
                part.named.at[part.named.count++] = a->places[++done % count];
        }
        *ret_shard = (shard_id_t)i;
        rc = run_write(a, (shard_id_t)i, &part);
    }
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        shard_drain(n->shards[i]);
    return rc;
}

static int run_add(struct applying *a, shard_id_t shard, const struct op *op, struct slice encoded)
{
    struct run *r = &a->runs[shard];
    if (r->bytes + encoded.len > LIMIT_BATCH_BYTES) {
        shard_id_t at;
        int rc = runs_flush(a, NULL, &at);
        if (rc != 0)
            return rc;
    }
    if (r->count == r->cap) {
        r->cap = MAX(r->cap * 2, 64u);
        r->ops = mem_realloc(r->ops, r->cap * sizeof r->ops[0]);
    }
    if (r->count == 0)
        r->sorted = true;
    else if (stamp_cmp(r->ops[r->count - 1].stamp, op->stamp) > 0)
        r->sorted = false;
    r->ops[r->count] = (struct run_op){.stamp = op->stamp, .number = r->count, .op = encoded};
    r->count++;
    r->bytes += encoded.len + 8;
    return 0;
}

/* By itself: order matters before and behind it. */
static int
apply_alone(struct applying *a, shard_id_t shard, const struct op *op, struct slice encoded)
{
    shard_id_t at;
    int rc = runs_flush(a, NULL, &at);
    if (rc == 0)
        rc = run_add(a, shard, op, encoded);
    return rc == 0 ? runs_flush(a, NULL, &at) : rc;
}

/* Does the operation reach other shards, at once or by what it derives? */
static bool op_spreads(const struct op *op)
{
    struct shard_set set = {0};
    for (uint32_t i = 0; i < op->effect_count; i++) {
        enum effect_kind k = op->effects[i].kind;
        if (k == EFFECT_BIRTH || k == EFFECT_REVIVE || k == EFFECT_BURY || k == EFFECT_MOVE)
            return true;
    }
    op_shards(op, &set);
    shard_set_add(&set, op->dot.shard);
    unsigned count = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(set.bits); i++)
        count += (unsigned)__builtin_popcountll(set.bits[i]);
    return count > 1;
}

static bool op_fits(const struct node *n, const struct op *op, shard_id_t shard)
{
    if (op->dot.shard != shard || op->dot.site == node_site(n))
        return false;
    struct shard_set set = {0};
    op_shards(op, &set);
    for (unsigned i = n->settings.shard_count; i < SHARD_COUNT_MAX; i++)
        if (shard_set_has(&set, (shard_id_t)i))
            return false;
    return true;
}

/* Beyond the cut of a site that left, or waiting for it already. It must not get into the journal:
 * the stream would carry it on, and members would pass it to and fro for ever (L4). */
static bool op_is_beyond(struct shard *s, const struct op *op)
{
    uint64_t last = UINT64_MAX;
    struct vv durable;
    enum shard_limit limit = shard_limit(s, op->dot.site, &last);
    if (limit == LIMIT_NONE || op->dot.seq <= last)
        return false;
    shard_durable_vv(s, &durable);
    return limit == LIMIT_CUT || op->dot.seq <= vv_get(&durable, op->dot.site);
}

static int apply_item(struct applying *a, const struct apply_item *item)
{
    struct node *n = a->n;
    struct op_arena arena = {0};
    struct op op;
    if (item->shard >= n->settings.shard_count)
        return ERR_MALFORMED;
    int rc = op_decode(item->op, &arena, &op);
    if (rc == 0 && op.dot.site == node_site(n)) {
        rc = 0; /* our own, come back by a relay: applied long ago */
    } else if (rc == 0 && !op_fits(n, &op, item->shard)) {
        rc = ERR_MALFORMED;
    } else if (rc == 0 && merge_seen(shard_merge(n->shards[item->shard]), op.dot.shard,
                                     op.dot.site) >= op.dot.seq) {
        rc = 0;
    } else if (rc == 0 && op_is_beyond(n->shards[item->shard], &op)) {
        rc = 0;
    } else if (rc == 0 && !op_spreads(&op)) {
        rc = run_add(a, item->shard, &op, item->op);
    } else if (rc == 0) {
        rc = apply_alone(a, item->shard, &op, item->op);
    }
    op_arena_deinit(&arena);
    return rc;
}

/* What was applied in one shard may be what another's operations waited for. */
static void retry_waiting(struct node *n)
{
    bool again = true;
    while (again && !n->broken) {
        again = false;
        for (unsigned i = 0; i < n->settings.shard_count; i++)
            again = shard_retry(n->shards[i]) || again;
    }
}

static void apply_run(struct loop_msg *msg)
{
    struct apply_batch *b = CONTAINER_OF(msg, struct apply_batch, msg);
    struct applying *a = mem_calloc(1, sizeof *a);
    struct node *n = b->node;
    int rc = n->stopping ? ERR_CLOSED : n->needs_snapshot ? ERR_AGAIN : 0;
    uint32_t done = 0;
    a->n = n;
    a->b = b;
    a->runs = mem_calloc(n->settings.shard_count, sizeof a->runs[0]);
    a->places = mem_calloc(n->settings.shard_count, sizeof a->places[0]);
    for (; done < b->item_count && rc == 0; done++)
        rc = apply_item(a, &b->items[done]);
    if (rc != 0)
        err_detail_set(&b->detail, "operation %u of %u in a batch of site %08x: %s", done,
                       b->item_count, b->peer, err_text(rc));
    shard_id_t at = 0;
    int rc2 = rc == 0 ? runs_flush(a, b->cursor, &at) : 0;
    if (rc2 != 0) {
        err_detail_set(&b->detail, "shard %u: %s", at, err_text(rc2));
        rc = rc2;
    }
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        mem_free(a->runs[i].ops);
    mem_free(a->runs);
    mem_free(a->places);
    mem_free(a->slices);
    mem_free(a);
    retry_waiting(n);
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

void node_last_ops(struct node *n, site_id_t site, struct last_op *ret_by_shard)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        ret_by_shard[i] = shard_last(n->shards[i], site);
}
