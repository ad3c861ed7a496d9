/* How far everybody is, and what collided. See world_look.h. */
#include "sim/world_look.h"

#include <string.h>

#include "base/assert.h"
#include "base/hlc.h"
#include "sim/world_int.h"
#include "site/call.h"

/* --- how far --- */

static uint64_t seq_of(struct world *w, unsigned site, unsigned origin, unsigned shard)
{
    struct node *n = w->sites[site].node;
    return merge_seen(shard_merge(node_shard(n, (shard_id_t)shard)), (shard_id_t)shard,
                      w->ids[origin]);
}

static bool serves(const struct world *w, unsigned site)
{
    return w->sites[site].node != NULL && !node_needs_snapshot(w->sites[site].node);
}

void world_mark(struct world *w, struct world_mark *ret)
{
    memset(ret, 0, sizeof *ret);
    ASSERT(w->config.shards <= WORLD_SHARDS_MAX);
    for (unsigned site = 0; site < w->config.site_count; site++)
        for (unsigned o = 0; o < w->config.site_count && serves(w, site); o++)
            for (unsigned s = 0; s < w->config.shards; s++)
                ret->seq[o][s] = MAX(ret->seq[o][s], seq_of(w, site, o, s));
}

bool world_has(struct world *w, const struct world_mark *m)
{
    for (unsigned site = 0; site < w->config.site_count; site++) {
        if (w->sites[site].lost)
            continue;
        if (!serves(w, site))
            return false;
        for (unsigned o = 0; o < w->config.site_count; o++)
            for (unsigned s = 0; s < w->config.shards; s++)
                if (seq_of(w, site, o, s) < m->seq[o][s])
                    return false;
    }
    return true;
}

/* --- conflicts --- */

/* Numbers of conflicts that were told, open addressing; 0 is free. */
struct known {
    uint64_t *at;
    size_t count, cap;
};
struct world_conflicts {
    struct known known[WORLD_SITES_MAX + 1]; /* the last one: by anybody */
};

/* True: it was not in there. */
static bool known_add(struct known *k, uint64_t id)
{
    if (k->count * 2 >= k->cap) {
        struct known more = {.cap = k->cap * 2 + 64};
        more.at = mem_calloc(more.cap, sizeof more.at[0]);
        for (size_t i = 0; i < k->cap; i++)
            if (k->at[i] != 0)
                (void)known_add(&more, k->at[i]); /* it is new there */
        mem_free(k->at);
        *k = more;
    }
    size_t i = id % k->cap;
    while (k->at[i] != 0 && k->at[i] != id)
        i = (i + 1) % k->cap;
    bool is_new = k->at[i] == 0;
    k->at[i] = id;
    k->count += is_new;
    return is_new;
}

struct looking {
    struct world *w;
    unsigned site;
};

static int site_index(const struct world *w, site_id_t id)
{
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->ids[i] == id)
            return (int)i;
    return -1;
}

/* A stamp is of its site's clock, which may be wrong: back to the world's own time. */
static uint64_t acted_ns(const struct world *w, int site, uint64_t hlc)
{
    if (site < 0 || hlc == 0)
        return 0;
    uint64_t at = process_true_ns(&w->sites[site], hlc_ms(hlc) * NS_PER_MS);
    return MIN(at - MIN(at, w->began_ns), world_now_ns(w));
}

static bool conflict_new(void *ctx, const struct conflict *c)
{
    struct looking *l = ctx;
    struct world *w = l->w;
    struct world_conflict_seen seen = {.at_ns = world_now_ns(w), .site = l->site, .rule = c->rule};
    for (int i = 0; i < 8; i++)
        seen.id = seen.id << 8 | c->id[i];
    if (!known_add(&w->told->known[l->site], seen.id))
        return true;
    seen.first = known_add(&w->told->known[WORLD_SITES_MAX], seen.id);
    seen.winner = site_index(w, c->winner);
    seen.loser = site_index(w, c->loser);
    seen.winner_at_ns = acted_ns(w, seen.winner, c->winner_stamp.hlc);
    seen.loser_at_ns = acted_ns(w, seen.loser, c->loser_stamp.hlc);
    if (w->config.conflict != NULL)
        w->config.conflict(w->config.ctx, &seen);
    return true;
}

void world_conflicts_look(struct world *w)
{
    if (w->told == NULL)
        w->told = mem_calloc(1, sizeof *w->told);
    disk_calm = true;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        struct looking l = {.w = w, .site = i};
        for (unsigned s = 0; s < w->config.shards && serves(w, i); s++) {
            struct shard *shard = node_shard(w->sites[i].node, (shard_id_t)s);
            if (state_health(shard_state(shard)) == 0 && /* else the node is about to end */
                merge_conflicts(shard_merge(shard), conflict_new, &l) != 0)
                world_fail(w, "P5", "site %s cannot read its conflicts", w->config.sites[i].name);
        }
        w->conflicts[i] = w->told->known[i].count;
    }
    disk_calm = false;
}

void world_conflicts_free(struct world *w)
{
    for (unsigned i = 0; w->told != NULL && i <= WORLD_SITES_MAX; i++)
        mem_free(w->told->known[i].at);
    mem_free(w->told);
    w->told = NULL;
}

static void explained(void *ctx, int rc, const char *json)
{
    char **ret = ctx;
    *ret = rc == 0 ? mem_strdup(json) : NULL;
}

char *world_conflicts_json(struct world *w, unsigned site)
{
    char *ret = NULL;
    if (serves(w, site))
        node_admin_ask(w->sites[site].node, "conflicts.explain", explained, &ret);
    return ret;
}
