/* Notices: operations that set registers of the root which say who is a member, who leaves, how
 * far a member has followed it, and whom a member knows. Like any operation they stand in their
 * issuer's order, so they may wait here behind one that waits for the cut of a site that leaves;
 * and the cut is what they are needed for. So the node is told of them ahead of their turn
 * (node_leave.c says why that is right).
 *
 * A notice is known once everything its issuer did before it, in this shard, is here, applied or
 * waiting: so whoever knows an answer knows the members that its issuer had let in before. What
 * lies beyond its own issuer's limit is not known: it may never be applied anywhere.
 *
 * The index in memory has every operation of this home that waits. Only the root's shard has one.
 */
#include <string.h>

#include "site/shard_int.h"

static bool is_notice(const struct effect *e)
{
    return e->kind == EFFECT_SET && oid_is_root(e->oid) && e->set.key.len > 0 &&
           (e->set.key.ptr[0] == REG_MEMBER || e->set.key.ptr[0] == REG_LEAVES ||
            e->set.key.ptr[0] == REG_CUT || e->set.key.ptr[0] == REG_KNOWS);
}

void shard_notice_kept(struct shard *s, uint64_t no, const struct op *op)
{
    if (s->cfg.id != oid_shard(OID_ROOT) || op->dot.shard != s->cfg.id)
        return;
    if (s->held_count == s->held_cap) {
        s->held_cap = MAX(s->held_cap * 2, 16u);
        s->held = mem_realloc(s->held, s->held_cap * sizeof s->held[0]);
    }
    struct held *h = &s->held[s->held_count++];
    *h = (struct held){.no = no, .site = op->dot.site, .seq = op->dot.seq};
    for (uint32_t i = 0; i < op->effect_count; i++)
        h->notice = h->notice || is_notice(&op->effects[i]);
    s->notices += h->notice;
}

void shard_notice_gone(struct shard *s, uint64_t no)
{
    uint32_t i = 0;
    while (i < s->held_count && s->held[i].no != no)
        i++;
    if (i == s->held_count)
        return;
    s->notices -= s->held[i].notice;
    s->held_count--;
    memmove(&s->held[i], &s->held[i + 1], (s->held_count - i) * sizeof s->held[0]);
}

void shard_notices_clear(struct shard *s)
{
    mem_free(s->held);
    s->held = NULL;
    s->held_count = s->held_cap = 0;
    s->notices = 0;
}

/* The highest seq of a site up to which all is applied, or waits here within the site's limit. */
static uint64_t reach_of(struct shard *s, site_id_t site)
{
    uint64_t reach = merge_seen(s->merge, s->cfg.id, site), last = UINT64_MAX, before;
    (void)shard_limit(s, site, &last); /* without one: no end */
    do {
        before = reach;
        for (uint32_t i = 0; i < s->held_count; i++)
            if (s->held[i].site == site && s->held[i].seq == reach + 1 && reach < last)
                reach++;
    } while (reach != before); /* they may wait in another order than they were issued in */
    return reach;
}

static bool is_known(struct shard *s, const struct held *h)
{
    return h->notice && h->seq <= reach_of(s, h->site) &&
           h->seq > merge_seen(s->merge, s->cfg.id, h->site);
}

uint64_t shard_notices(struct shard *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->held_count && s->notices > 0; i++)
        sum += is_known(s, &s->held[i]) ? s->held[i].no : 0;
    return sum;
}

int shard_notices_each(struct shard *s,
                       uint8_t key_class,
                       bool (*fn)(void *ctx, const struct reg *r),
                       void *ctx)
{
    struct buf key = {0};
    int rc = 0;
    for (uint32_t i = 0; i < s->held_count && s->notices > 0 && rc == 0; i++) {
        struct op_arena arena = {0};
        struct slice encoded;
        struct op op = {.effect_count = 0};
        if (!is_known(s, &s->held[i]))
            continue;
        row_waiting_key(&key, s->held[i].no);
        rc = state_get(s->state, buf_slice(&key), &encoded) ? op_decode(encoded, &arena, &op)
                                                            : ERR_CORRUPT;
        for (uint32_t k = 0; rc == 0 && k < op.effect_count; k++) {
            struct reg r = op.effects[k].set;
            if (!is_notice(&op.effects[k]) || r.key.ptr[0] != key_class || !r.present)
                continue;
            r.stamp = op.stamp;
            (void)fn(ctx, &r); /* few: nothing to stop */
        }
        op_arena_deinit(&arena);
    }
    buf_deinit(&key);
    return rc;
}
