/* Causes made at other sites (P7): whoever has what a site issued has what it had shown before.
 *
 * A site's mounts see what it shows, and act on it. So at every look it is noted what each site
 * shows of every other one, as far as it is durable (nothing else is told to a mount), together
 * with its own newest operations. What it issues later may be an effect of any of that: no site may
 * have it and not its causes, by whichever way it came. */
#include <string.h>

#include "base/assert.h"
#include "sim/watch_int.h"
#include "site/call.h"

void cause_free(struct cause *c)
{
    mem_free(c->rows);
    mem_free(c->pool);
    *c = (struct cause){.rows = NULL};
}

static struct cause_row *row_add(struct cause *c)
{
    if (c->count == c->cap) {
        c->cap = c->cap * 2 + 64;
        c->rows = mem_realloc(c->rows, c->cap * sizeof c->rows[0]);
    }
    return &c->rows[c->count++];
}

static uint64_t *pool_add(struct cause *c, size_t count)
{
    if (c->pool_count + count > c->pool_cap) {
        c->pool_cap = c->pool_cap * 2 + count + 1024;
        c->pool = mem_realloc(c->pool, c->pool_cap * sizeof c->pool[0]);
    }
    c->pool_count += count;
    return c->pool + c->pool_count - count;
}

/* Has anything been written, or become durable, since it was asked last? */
static bool has_moved(struct world *w, unsigned site)
{
    uint64_t sum = w->sites[site].crashes << 48;
    for (unsigned s = 0; s < w->config.shards; s++) {
        struct shard *shard = node_shard(w->sites[site].node, (shard_id_t)s);
        sum += log_last(shard_log(shard)) + shard_committed(shard);
    }
    bool moved = sum != w->watcher->cause_sum[site];
    w->watcher->cause_sum[site] = sum;
    return moved;
}

static void shown_fill(struct world *w, unsigned site, uint64_t *shown)
{
    struct watch *t = w->watcher;
    struct node *n = w->sites[site].node;
    static struct vv durable;
    for (unsigned s = 0; s < w->config.shards; s++) {
        struct merge *m = shard_merge(node_shard(n, (shard_id_t)s));
        shard_durable_vv(node_shard(n, (shard_id_t)s), &durable);
        for (unsigned k = 0; k < t->life_count; k++)
            shown[k * w->config.shards + s] =
                MIN(vv_get(&durable, t->lives[k].id), merge_seen(m, (shard_id_t)s, t->lives[k].id));
    }
}

void cause_note(struct world *w, unsigned site)
{
    struct watch *t = w->watcher;
    struct cause *c = &t->lives[t->life[site]].cause;
    struct cause_row row = {.lives = t->life_count};
    if (!has_moved(w, site))
        return;
    watch_seqs(w, site, w->ids[site], row.own);
    /* What was lost with the power was never there, and its numbers are given anew. What it had
     * issued by the last look that is noted is replaced as well. */
    while (c->count > 0 && (!watch_covers(w, row.own, c->rows[c->count - 1].own) ||
                            watch_covers(w, c->rows[c->count - 1].own, row.own)))
        c->pool_count = c->rows[--c->count].shown;
    row.shown = c->pool_count;
    shown_fill(w, site, pool_add(c, (size_t)t->life_count * w->config.shards));
    *row_add(c) = row;
}

static bool issued_after(const struct world *w, const uint64_t *seq, const struct cause_row *r)
{
    for (unsigned s = 0; s < w->config.shards; s++)
        if (seq[s] > r->own[s])
            return true;
    return false;
}

/* The last row after which some of these were issued; NULL: all are older than what is noted. */
static const struct cause_row *
row_before(const struct world *w, const struct cause *c, const uint64_t *seq)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (issued_after(w, seq, &c->rows[mid]))
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 ? &c->rows[low - 1] : NULL;
}

struct standing {
    site_id_t site;
    bool is_member;
};

static bool standing_of(void *ctx, const struct member *m)
{
    struct standing *s = ctx;
    s->is_member = s->is_member || (m->site == s->site && m->status == MEMBER_IS);
    return !s->is_member;
}

/* What a leaver did waits for its cut, and what others saw of it does not make theirs wait. */
static bool is_member(const struct world *w, unsigned site, site_id_t id)
{
    struct standing s = {.site = id};
    return node_members(w->sites[site].node, standing_of, &s) == 0 && s.is_member;
}

/* A row of a life against what a site has of another one. */
static void row_check(struct world *w,
                      unsigned site,
                      unsigned issuer,
                      const uint64_t *shown,
                      unsigned life,
                      const uint64_t *had)
{
    const struct life *l = &w->watcher->lives[life];
    for (unsigned s = 0; s < w->config.shards; s++)
        if (shown[s] > had[s] && is_member(w, site, l->id))
            world_fail(w, "P7",
                       "%s has what %s did when it showed operation %llu of %s in shard %u, and "
                       "has only %llu of these",
                       w->config.sites[site].name, w->config.sites[issuer].name,
                       (unsigned long long)shown[s], w->config.sites[l->site].name, s,
                       (unsigned long long)had[s]);
}

void cause_check(struct world *w, unsigned site, uint64_t (*had)[WATCH_SHARDS])
{
    const struct watch *t = w->watcher;
    for (unsigned k = 0; k < t->life_count; k++) {
        const struct cause *c = &t->lives[k].cause;
        const struct cause_row *r = t->lives[k].site != site ? row_before(w, c, had[k]) : NULL;
        for (unsigned l = 0; r != NULL && l < r->lives; l++)
            row_check(w, site, t->lives[k].site, &c->pool[r->shown + l * w->config.shards], l,
                      had[l]);
    }
}

static int life_of(const struct watch *t, site_id_t id)
{
    for (unsigned k = 0; k < t->life_count; k++)
        if (t->lives[k].id == id)
            return (int)k;
    return -1;
}

bool cause_knew(const struct world *w, struct dot effect, struct dot cause)
{
    const struct watch *t = w->watcher;
    uint64_t seq[WATCH_SHARDS] = {0};
    int of = life_of(t, effect.site), what = life_of(t, cause.site);
    if (of < 0 || what < 0 || effect.shard >= w->config.shards || cause.shard >= w->config.shards)
        return false;
    seq[effect.shard] = effect.seq;
    const struct cause *c = &t->lives[of].cause;
    const struct cause_row *r = row_before(w, c, seq);
    return r != NULL && (unsigned)what < r->lives &&
           c->pool[r->shown + (size_t)what * w->config.shards + cause.shard] >= cause.seq;
}
