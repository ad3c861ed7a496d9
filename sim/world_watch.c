/* Checkers that remember: who has what, and causal order across directories (P7). */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/model.h"
#include "sim/watch_int.h"
#include "site/call.h"

/* Where the model wants all of it journals are read at each look at the order. Else at some: soon
 * enough that nothing was trimmed, in worlds where much happens at once and in those of days. */
#define READ_LOOKS 1024u
#define READ_SOON_LOOKS 64u
#define READ_SOON_NS (100 * NS_PER_MS)

static struct watch *watch_new(void)
{
    return mem_calloc(1, sizeof(struct watch));
}

void watch_free(struct watch *t)
{
    touch_begin(NULL);
    for (unsigned i = 0; t != NULL && i < WORLD_SITES_MAX; i++)
        mem_free(t->own[i].at);
    for (unsigned i = 0; t != NULL && i < t->life_count; i++)
        for (unsigned s = 0; s < WATCH_SHARDS; s++)
            mem_free(t->lives[i].order.shards[s].ops);
    for (unsigned i = 0; t != NULL && i < t->life_count; i++)
        cause_free(&t->lives[i].cause);
    if (t != NULL) {
        mem_free(t->seen);
        model_free(t->model);
    }
    mem_free(t);
}

void watch_seqs(const struct world *w, unsigned site, site_id_t id, uint64_t *ret)
{
    struct node *n = w->sites[site].node;
    for (unsigned s = 0; s < w->config.shards; s++)
        ret[s] = merge_seen(shard_merge(node_shard(n, (shard_id_t)s)), (shard_id_t)s, id);
}

static void own_add(struct world *w, unsigned i)
{
    struct watch *t = w->watcher;
    if (t->own[i].count == t->own[i].cap) {
        t->own[i].cap = t->own[i].cap * 2 + 64;
        t->own[i].at = mem_realloc(t->own[i].at, t->own[i].cap * sizeof t->own[i].at[0]);
    }
    struct history *h = &t->own[i].at[t->own[i].count++];
    h->at_ns = sched->now_ns;
    watch_seqs(w, i, w->ids[i], h->seq);
    h->had = 0;
    for (unsigned s = 0; s < w->config.shards; s++)
        h->had += log_last(shard_log(node_shard(w->sites[i].node, (shard_id_t)s)));
    for (unsigned k = 0; k < t->life_count; k++) {
        uint64_t seq[WATCH_SHARDS];
        watch_seqs(w, i, t->lives[k].id, seq);
        for (unsigned s = 0; s < w->config.shards; s++)
            h->had += seq[s];
    }
}

bool watch_covers(const struct world *w, const uint64_t *a, const uint64_t *b)
{
    for (unsigned s = 0; s < w->config.shards; s++)
        if (a[s] < b[s])
            return false;
    return true;
}

static struct seen *look(struct world *w, unsigned site, unsigned life)
{
    struct watch *t = w->watcher;
    if (t->seen_count == t->seen_cap) {
        t->seen_cap = t->seen_cap * 2 + 256;
        t->seen = mem_realloc(t->seen, t->seen_cap * sizeof t->seen[0]);
    }
    struct seen *s = &t->seen[t->seen_count];
    *s = (struct seen){.at_ns = sched->now_ns, .site = site, .origin = life};
    watch_seqs(w, site, t->lives[life].id, s->seq);
    /* The same as last time says nothing new. */
    size_t back = (size_t)w->config.site_count * t->life_count;
    for (size_t k = t->seen_count; k > 0 && t->seen_count - k < back; k--) {
        const struct seen *o = &t->seen[k - 1];
        if (o->site == site && o->origin == life)
            return memcmp(o->seq, s->seq, sizeof s->seq) == 0 ? s : &t->seen[t->seen_count++];
    }
    return &t->seen[t->seen_count++];
}

struct history_read {
    struct world *w;
    struct model *model;
    struct order *order;
    site_id_t own;
};

static void order_add(struct order *o, const struct feed_item *item)
{
    uint64_t count = o->shards[item->shard].count;
    if (count == 0)
        o->shards[item->shard].first = item->dot.seq;
    o->gap |= item->dot.seq != o->shards[item->shard].first + count;
    if (count == o->shards[item->shard].cap) {
        uint64_t cap = count * 2 + 256;
        o->shards[item->shard].ops =
            mem_realloc(o->shards[item->shard].ops, cap * sizeof o->shards[0].ops[0]);
        o->shards[item->shard].cap = cap;
    }
    o->shards[item->shard].ops[o->shards[item->shard].count++] =
        (struct order_op){.commit_hlc = item->commit_hlc, .hlc = item->stamp.hlc};
}

static bool history_add(void *ctx, const struct feed_item *item)
{
    struct history_read *r = ctx;
    if (item->dot.site != r->own)
        return true;
    if (r->model != NULL) {
        model_add(r->model, item->op);
        rules_add(r->w, item->op);
    }
    order_add(r->order, item);
    return true;
}

/* What a site has committed by itself since the last look: before its journal is trimmed. */
static void history_read(struct world *w, unsigned site)
{
    struct watch *t = w->watcher;
    struct history_read r = {
        .w = w, .model = t->model, .order = &t->lives[t->life[site]].order, .own = w->ids[site]};
    struct node *n = w->sites[site].node;
    struct feed_state f;
    node_feed_state(n, &f);
    for (unsigned s = 0; s < w->config.shards; s++) {
        uint64_t *next = &t->read_next[site][s], before = 0;
        t->gap |= f.first[s] > 1 && *next < f.first[s];
        *next = MAX(*next, MAX(f.first[s], 1u));
        while (*next <= f.durable[s] && *next != before) {
            before = *next;
            if (node_feed_read(n, (shard_id_t)s, *next, MIB, history_add, &r, next) != 0)
                break;
        }
    }
}

bool watch_is_up(const struct world *w, unsigned site)
{
    const struct process *p = &w->sites[site];
    return w->joined[site] && process_serves(p) && !node_needs_snapshot(p->node);
}

/* What it has of every life, if that is another than at the last look. */
static void look_all(struct world *w, unsigned site)
{
    struct watch *t = w->watcher;
    uint64_t had[LIVES_MAX][WATCH_SHARDS];
    size_t before = t->seen_count;
    for (unsigned k = 0; k < t->life_count; k++)
        if (site != t->lives[k].site)
            memcpy(had[k], look(w, site, k)->seq, sizeof had[k]);
        else
            watch_seqs(w, site, t->lives[k].id, had[k]);
    if (t->model == NULL)
        return;
    cause_note(w, site);
    if (t->seen_count != before)
        cause_check(w, site, had);
}

void watch_order(struct world *w)
{
    struct watch *t = w->watcher;
    bool soon = ++t->looks % READ_SOON_LOOKS == 0 && sched->now_ns - t->read_ns >= READ_SOON_NS;
    bool reads = t->model != NULL || t->looks % READ_LOOKS == 0 || soon;
    if (reads)
        t->read_ns = sched->now_ns;
    for (unsigned i = 0; i < w->config.site_count && reads; i++)
        if (watch_is_up(w, i))
            history_read(w, i);
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (watch_is_up(w, i))
            look_all(w, i);
}

static const char *site_name(void *ctx, site_id_t site)
{
    const struct world *w = ctx;
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->ids[i] == site)
            return w->config.sites[i].name;
    return "nobody";
}

/* Before anybody works: what pairing has written is history, too. */
void watch_begin(struct world *w)
{
    w->watcher = watch_new();
    for (unsigned i = 0; i < w->config.site_count; i++)
        w->watcher->lives[w->watcher->life_count++] = (struct life){.site = i, .id = w->ids[i]};
    for (unsigned i = 0; i < w->config.site_count; i++)
        w->watcher->life[i] = i;
    if (w->config.model) {
        w->watcher->model = model_new();
        touch_begin(w);
    }
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->joined[i])
            history_read(w, i);
}

/* What it did under the old one and nobody got is no history: the model cannot say. */
void watch_new_id(struct world *w, unsigned site)
{
    struct watch *t = w->watcher;
    t->gap = true;
    t->own[site].count = 0;
    t->up_ns[site] = 0;
    memset(t->read_next[site], 0, sizeof t->read_next[site]);
    ASSERT(t->life_count < LIVES_MAX);
    t->life[site] = t->life_count;
    t->lives[t->life_count++] = (struct life){.site = site, .id = w->ids[site]};
}

bool watch_model(struct world *w, struct buf *out)
{
    struct watch *t = w->watcher;
    if (t->model == NULL || t->gap)
        return false;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        if (w->sites[i].lost || w->removed[i] || w->sites[i].node == NULL)
            return false;
        history_read(w, i);
    }
    if (t->gap)
        return false;
    model_tree(t->model, site_name, w, out);
    return true;
}

void watch_now(struct world *w)
{
    struct watch *t = w->watcher;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        bool up = watch_is_up(w, i);
        if (!up)
            t->up_ns[i] = 0;
        else if (t->up_ns[i] == 0 || t->crashes[i] != w->sites[i].crashes) /* however short */
            t->up_ns[i] = sched->now_ns;
        t->crashes[i] = w->sites[i].crashes;
        for (unsigned k = 0; k < w->config.site_count; k++)
            if (net_is_cut(i, k) || t->well_ns[i][k] == 0)
                t->well_ns[i][k] = sched->now_ns;
        if (up)
            own_add(w, i);
        if (up && t->model != NULL)
            history_read(w, i);
        reach_look(w, i);
    }
    for (unsigned i = 0; i < w->config.site_count; i++)
        for (unsigned k = 0; k < w->config.site_count; k++)
            if (i != k && t->up_ns[i] != 0 && world_stays(w, i) && world_stays(w, k))
                lag_look(w, k, i, look(w, i, t->life[k])->seq);
}

bool watch_is_well(const struct world *w, unsigned from, unsigned to, uint64_t for_ns)
{
    const struct watch *t = w->watcher;
    uint64_t now = sched->now_ns;
    return t->up_ns[from] != 0 && t->up_ns[to] != 0 && now - t->up_ns[from] > for_ns &&
           now - t->up_ns[to] > for_ns && now - t->well_ns[from][to] > for_ns &&
           now - t->well_ns[to][from] > for_ns;
}

bool watch_find(const struct world *w, unsigned life, uint64_t hlc, struct dot *ret)
{
    const struct order *o = &w->watcher->lives[life].order;
    unsigned found = 0;
    for (unsigned s = 0; s < w->config.shards; s++) {
        uint64_t low = 0, high = o->shards[s].count;
        while (low < high) {
            uint64_t mid = (low + high) / 2;
            if (o->shards[s].ops[mid].hlc < hlc)
                low = mid + 1;
            else
                high = mid;
        }
        if (low == o->shards[s].count || o->shards[s].ops[low].hlc != hlc)
            continue;
        *ret = (struct dot){o->shards[s].first + low, w->watcher->lives[life].id, (shard_id_t)s};
        found++;
    }
    return found == 1;
}

/* --- P7: no site ever had a later operation of another without an earlier one --- */

static bool order_at(const struct order *o, unsigned shard, uint64_t seq, uint64_t *ret)
{
    uint64_t first = o->shards[shard].first;
    if (seq < first || seq - first >= o->shards[shard].count)
        return false;
    *ret = o->shards[shard].ops[seq - first].commit_hlc;
    return true;
}

/* Does who has just these first operations of each shard have one and not one before it? */
static bool overtakes(const struct world *w, const struct order *o, const uint64_t *seq)
{
    uint64_t had = 0, lacked = UINT64_MAX, hlc;
    for (unsigned k = 0; k < w->config.shards; k++) {
        if (order_at(o, k, seq[k], &hlc))
            had = MAX(had, hlc);
        if (order_at(o, k, seq[k] + 1, &hlc))
            lacked = MIN(lacked, hlc);
    }
    return lacked < had;
}

static void check_seen(struct world *w, const struct order *o, const struct seen *s)
{
    if (overtakes(w, o, s->seq))
        world_fail(w, "P7", "at %.3f s %s had an operation of %s and not one committed before it",
                   (double)(s->at_ns - MIN(w->began_ns, s->at_ns)) / 1e9,
                   w->config.sites[s->site].name,
                   w->config.sites[w->watcher->lives[s->origin].site].name);
}

void watch_final(struct world *w)
{
    const struct watch *t = w->watcher;
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (watch_is_up(w, i))
            history_read(w, i);
    for (size_t k = 0; k < t->seen_count; k++)
        if (!t->lives[t->seen[k].origin].order.gap)
            check_seen(w, &t->lives[t->seen[k].origin].order, &t->seen[k]);
}

bool watch_knows_order(const struct world *w)
{
    const struct watch *t = w->watcher;
    for (unsigned k = 0; k < t->life_count; k++)
        if (t->lives[k].order.gap)
            return false;
    return true;
}

/* --- what the disks of a site hold --- */

struct on_disk {
    struct world *w;
    unsigned shard;
    uint64_t seq[WORLD_SITES_MAX][WATCH_SHARDS]; /* by origin */
};

static void on_disk_see(struct on_disk *d, struct slice encoded)
{
    struct op op;
    if (op_decode_head(encoded, &op) != 0 || op.dot.shard != d->shard)
        return;
    for (unsigned i = 0; i < d->w->config.site_count; i++)
        if (d->w->ids[i] == op.dot.site)
            d->seq[i][d->shard] = MAX(d->seq[i][d->shard], op.dot.seq);
}

static bool on_disk_add(void *ctx, const struct log_record *lr)
{
    struct on_disk *d = ctx;
    struct record r;
    if (record_decode(lr->payload, &r) != 0)
        return false;
    if (r.type == RECORD_OP)
        on_disk_see(d, r.body);
    struct dec in = dec_of(r.body);
    struct slice op;
    for (uint32_t i = 0; record_op_next(&r, i, &in, &op); i++)
        on_disk_see(d, op);
    return true;
}

static bool is_split(const struct world *w, const struct on_disk *d, unsigned site, unsigned origin)
{
    const struct order *o = &w->watcher->lives[w->watcher->life[origin]].order;
    return origin != site && !o->gap && overtakes(w, o, d->seq[origin]);
}

/* What counts as durable, and then what the journals hold beyond. */
bool watch_disks_split(struct world *w, unsigned site)
{
    struct node *n = w->sites[site].node;
    struct on_disk d = {.w = w};
    bool split = false;
    for (unsigned k = 0; k < w->config.shards; k++) {
        struct vv vv;
        shard_durable_vv(node_shard(n, (shard_id_t)k), &vv);
        for (unsigned i = 0; i < w->config.site_count; i++)
            d.seq[i][k] = vv_get(&vv, w->ids[i]);
    }
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (is_split(w, &d, site, i))
            world_fail(w, "P7", "%s calls an operation of %s durable, and lacks one before it",
                       w->config.sites[site].name, w->config.sites[i].name);
    for (d.shard = 0; d.shard < w->config.shards; d.shard++) {
        struct shard *s = node_shard(n, (shard_id_t)d.shard);
        uint64_t next = shard_committed(s) + 1, last = log_durable(shard_log(s));
        int rc = 0;
        while (rc == 0 && next <= last)
            rc = log_read(shard_log(s), next, MIB, on_disk_add, &d, &next);
    }
    for (unsigned i = 0; i < w->config.site_count; i++)
        split = split || is_split(w, &d, site, i);
    return split;
}
