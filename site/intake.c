/* A peer's batch becomes records. See intake.h. */
#include "site/intake.h"

#include <stdlib.h>

#include "base/limits.h"
#include "base/plant.h"
#include "site/parts.h"
#include "site/shard_peers.h"

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
    const struct intake_site *at;
    struct intake_batch *b;
    struct run *runs; /* by shard */
    struct slice *slices;
    uint32_t slices_cap;
    struct parts_place *places; /* of the parts that are written now */
    bool careful;               /* something waits here, or may */
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
    int rc = shard_remote(a->at->shards[shard], part);
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
    for (unsigned i = 0; i < a->at->shard_count; i++) {
        struct shard *s = a->at->shards[i];
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
    const struct intake_site *at = a->at;
    uint32_t count = 0, done = 0;
    int rc = parts_reserve(a, cursor, &count, ret_shard);
    if (rc != 0)
        return rc;
    uint64_t hlc = at->stamp(at->ctx), batch = 0;
    struct parts_named earlier = {0};
    if (at->parts != NULL) {
        parts_name(at->parts, parts_last(at->parts), &earlier);
        batch = count > 0 ? parts_begin(at->parts, count, a->places[0]) : 0;
    }
    for (unsigned i = 0; i < at->shard_count && rc == 0; i++) {
        struct shard_part part = {.commit_hlc = PLANTED(26) ? at->stamp(at->ctx) : hlc,
                                  .cursor = cursor != NULL ? cursor[i] : 0};
        if (a->runs[i].count > 0 && at->parts != NULL) {
            part.batch = batch;
            part.named = earlier;
            if (count > 1)
                part.named.at[part.named.count++] = a->places[++done % count];
        }
        *ret_shard = (shard_id_t)i;
        rc = run_write(a, (shard_id_t)i, &part);
    }
    for (unsigned i = 0; i < at->shard_count; i++)
        shard_drain(at->shards[i]);
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

static bool op_fits(const struct intake_site *at, const struct op *op, shard_id_t shard)
{
    if (op->dot.shard != shard || op->dot.site == at->site)
        return false;
    struct shard_set set = {0};
    op_shards(op, &set);
    for (unsigned i = at->shard_count; i < SHARD_COUNT_MAX; i++)
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

/* ---- several nodes ---- */

struct word { /* N8 */
    const struct intake_site *at;
    shard_id_t home;
};

static bool is_committed(void *ctx, struct dot d)
{
    const struct word *w = ctx;
    struct vv durable;
    if (d.shard == w->home || d.shard >= w->at->shard_count)
        return true; /* it stands in the same journal; or in none */
    struct shard *s = w->at->shards[d.shard];
    shard_durable_vv(s, &durable);
    return merge_seen(shard_merge(s), d.shard, d.site) >= d.seq &&
           vv_get(&durable, d.site) >= d.seq;
}

static bool must_wait(const struct intake_site *at, const struct op *op)
{
    struct word w = {.at = at, .home = op->dot.shard};
    return at->parts == NULL && !PLANTED(121) && !op_dots_applied(op, is_committed, &w, NULL);
}

/* N9. */
static bool leads_still(const struct intake_site *at)
{
    for (unsigned i = 0; i < at->shard_count && at->parts == NULL; i++)
        if (!shard_serves(at->shards[i]) ||
            (shard_epoch(at->shards[i]) != at->epochs[i] && !PLANTED(120)))
            return false;
    return true;
}

/* What a shard has no room to be told (S19) an operation behind it may name, which would then wait
 * while later ones of other shards show: so nothing goes by it (P7). */
static bool told_all(const struct intake_site *at)
{
    for (unsigned i = 0; i < at->shard_count && at->parts != NULL; i++)
        if (shard_messages_held(at->shards[i]))
            return false;
    return true;
}

/* ---- behind what waits (L6) ---- */

static bool something_may_wait(const struct intake_site *at)
{
    for (unsigned i = 0; i < at->shard_count && at->parts != NULL; i++)
        if (shard_waiting_count(at->shards[i]) > 0 || shard_holds(at->shards[i]))
            return true;
    return false;
}

/* From here on all shards keep the operations of its site: in each journal, before any of them. */
static int hold_back(const struct intake_site *at, const struct op *op)
{
    for (unsigned i = 0; i < at->shard_count; i++) {
        int rc = shard_reserve(at->shards[i], PART_HEAD_BYTES);
        if (rc != 0)
            return rc;
    }
    for (unsigned i = 0; i < at->shard_count; i++) {
        struct shard *s = at->shards[i];
        int rc = shard_is_behind(s, op->dot.site)
                     ? 0
                     : shard_behind_set(s, op->dot.site, MAX(op->stamp.hlc, 1u));
        if (rc != 0)
            return rc; /* the shard has failed */
    }
    return 0;
}

static bool is_behind_somewhere(const struct intake_site *at, site_id_t site)
{
    for (unsigned i = 0; i < at->shard_count; i++)
        if (shard_is_behind(at->shards[i], site))
            return true;
    return false;
}

static bool is_behind_everywhere(const struct intake_site *at, site_id_t site)
{
    for (unsigned i = 0; i < at->shard_count; i++)
        if (!shard_is_behind(at->shards[i], site))
            return false;
    return true;
}

/* The operation will wait for what it names, which may wait itself: then all that its site did
 * later waits, too, in whatever shard. A site that leaves is kept to its limits anyway. */
static int hold_back_if_it_waits(struct applying *a, struct shard *s, const struct op *op)
{
    uint64_t last = UINT64_MAX;
    shard_id_t at;
    if (!a->careful || is_behind_everywhere(a->at, op->dot.site) ||
        shard_limit(s, op->dot.site, &last) != LIMIT_NONE)
        return 0;
    if (is_behind_somewhere(a->at, op->dot.site)) /* some journals were cut by a loss of power */
        return hold_back(a->at, op);
    if (!shard_would_wait(s, op))
        return 0;
    int rc = runs_flush(a, NULL, &at); /* what it names may be in there */
    return rc != 0 || !shard_would_wait(s, op) ? rc : hold_back(a->at, op);
}

/* ---- the batch ---- */

static int apply_item(struct applying *a, const struct apply_item *item)
{
    const struct intake_site *at = a->at;
    struct op_arena arena = {0};
    struct op op;
    if (item->shard >= at->shard_count)
        return ERR_MALFORMED;
    struct shard *s = at->shards[item->shard];
    int rc = op_decode(item->op, &arena, &op);
    if (rc == 0 && op.dot.site == at->site) {
        rc = 0; /* our own, come back by a relay: applied long ago */
    } else if (rc == 0 && !op_fits(at, &op, item->shard)) {
        rc = ERR_MALFORMED;
    } else if (rc == 0 && merge_seen(shard_merge(s), op.dot.shard, op.dot.site) >= op.dot.seq) {
        rc = 0;
    } else if (rc == 0 && op_is_beyond(s, &op)) {
        rc = 0;
    } else if (rc == 0 && (must_wait(at, &op) || !told_all(at))) {
        rc = ERR_AGAIN;
    } else if (rc == 0) {
        rc = hold_back_if_it_waits(a, s, &op);
        if (rc == 0)
            rc = op_spreads(&op) ? apply_alone(a, item->shard, &op, item->op)
                                 : run_add(a, item->shard, &op, item->op);
    }
    op_arena_deinit(&arena);
    return rc;
}

static void applying_deinit(struct applying *a)
{
    for (unsigned i = 0; i < a->at->shard_count; i++)
        mem_free(a->runs[i].ops);
    mem_free(a->runs);
    mem_free(a->places);
    mem_free(a->slices);
}

int intake(const struct intake_site *site, struct intake_batch *b, struct err_detail *d)
{
    if (!leads_still(site))
        return ERR_NOT_PRIMARY;
    struct applying a = {.at = site, .b = b};
    int rc = 0;
    shard_id_t at = 0;
    a.careful = something_may_wait(site);
    a.runs = mem_calloc(site->shard_count, sizeof a.runs[0]);
    a.places = mem_calloc(site->shard_count, sizeof a.places[0]);
    for (; b->done < b->count && rc == 0; b->done += rc == 0)
        rc = apply_item(&a, &b->items[b->done]);
    if (rc != 0)
        err_detail_set(d, "operation %u of %u in a batch of site %08x: %s", b->done + 1, b->count,
                       b->peer, err_text(rc));
    bool waits = rc == ERR_AGAIN;
    int flushed = rc == 0 || waits ? runs_flush(&a, waits ? NULL : b->cursor, &at) : 0;
    if (flushed != 0) {
        err_detail_set(d, "shard %u: %s", at, err_text(flushed));
        rc = flushed;
    }
    applying_deinit(&a);
    return rc;
}
