/* Whether the lag that a site tells is the lag there is: seconds, operations and bytes to go.
 *
 * What is told was heard from the source, twice a second, so it is compared with what was so some
 * seconds ago and with what is so now; and a number is held against the site only when the line has
 * been well for long enough for it to be heard. */
#include <stdlib.h>

#include "sim/watch_int.h"
#include "site/call.h"

#define LAG_SLACK_NS (4 * NS_PER_SEC)
#define LAG_STEADY_NS (20 * NS_PER_SEC) /* link and both ends have been well for so long */
#define LAG_CALM_NS (60 * NS_PER_SEC)   /* within which whoever has all says so */
#define LAG_STEP_NS NS_PER_SEC

/* Since when something of `from` is missing at a site that has `seq` of it; now: nothing is. */
static uint64_t missing_since(const struct world *w, unsigned from, const uint64_t *seq)
{
    const struct watch *t = w->watcher;
    size_t low = 0, high = t->own[from].count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (watch_covers(w, seq, t->own[from].at[mid].seq))
            low = mid + 1;
        else
            high = mid;
    }
    return low < t->own[from].count ? t->own[from].at[low].at_ns : sched->now_ns;
}

struct standing {
    site_id_t site;
    bool has_left;
};

static bool standing_of(void *ctx, const struct member *m)
{
    struct standing *s = ctx;
    s->has_left = s->has_left || (m->site == s->site && m->status != MEMBER_IS);
    return !s->has_left;
}

static bool has_any(const struct world *w, const uint64_t *seq)
{
    for (unsigned s = 0; s < w->config.shards; s++)
        if (seq[s] > 0)
            return true;
    return false;
}

/* Something has arrived that waits for a cut. */
static bool holds_any(const struct world *w, struct node *n)
{
    for (unsigned s = 0; s < w->config.shards; s++)
        if (shard_holds(node_shard(n, (shard_id_t)s)))
            return true;
    return false;
}

/* Of who leaves a lag does not tell what has arrived and waits for its cut, nor what it did before
 * anything of it came here: status says that it leaves. */
static bool is_told(const struct world *w, unsigned from, unsigned to, const uint64_t *seq)
{
    struct standing st = {.site = w->ids[from]};
    struct node *n = w->sites[to].node;
    if (node_members(n, standing_of, &st) != 0 || (st.has_left && holds_any(w, n)))
        return false;
    return !st.has_left || (world_removals_over(w, n) && has_any(w, seq));
}

/* How far clocks may be apart: when nothing of a site has come yet, its lag is told in the clock of
 * whoever let it in, and the one that shows it; of before the first heartbeat, in the source's. */
static uint64_t clocks_differ_ns(const struct world *w)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < w->config.site_count; i++)
        sum += (uint64_t)llabs(w->config.sites[i].clock.offset_ns) + w->clock_jumped_ns[i];
    return sum;
}

/* A lag in seconds may still be wrong by what a clock was set (RESULTS.md, "Open"). */
static uint64_t jumped_ns(const struct world *w)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < w->config.site_count; i++)
        most = MAX(most, w->clock_jumped_ns[i]);
    return most;
}

/* The newest look at a site's own operations that is as old as that; NULL: there is none. */
static const struct history *history_at(const struct watch *t, unsigned site, uint64_t at_ns)
{
    size_t low = 0, high = t->own[site].count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (t->own[site].at[mid].at_ns <= at_ns)
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 ? &t->own[site].at[low - 1] : NULL;
}

static uint64_t lacks(const struct world *w, const uint64_t *had, const uint64_t *has)
{
    uint64_t count = 0;
    for (unsigned s = 0; s < w->config.shards; s++)
        count += had[s] > has[s] ? had[s] - has[s] : 0;
    return count;
}

/* What `to` still lacks of what the source had issued a while ago is to go. What `to` has is not,
 * unless it came lately, and be it by another way: the source may not know that yet. What it sent
 * while the line was held is passed over when the line moves again. */
static void check_to_go(
    const struct world_lag *lag, struct world *w, unsigned from, unsigned to, uint64_t slack)
{
    struct watch *t = w->watcher;
    uint64_t here[WATCH_SHARDS], there[WATCH_SHARDS], most = 0, now = sched->now_ns;
    const struct history *told = history_at(t, from, now - MIN(now, 2 * slack));
    uint64_t stood = now - t->free_ns[from][to];
    const struct history *before = history_at(t, from, now - MIN(now, 3 * slack + stood));
    const struct history *last = history_at(t, from, now);
    if (told == NULL || before == NULL)
        return;
    watch_seqs(w, to, w->ids[from], here);
    uint64_t least = lacks(w, told->seq, here);
    for (unsigned k = 0; k < t->life_count; k++) {
        watch_seqs(w, from, t->lives[k].id, there);
        watch_seqs(w, to, t->lives[k].id, here);
        most += lacks(w, there, here);
    }
    most += last->had - MIN(before->had, last->had);
    if (lag->ops_to_go < least || lag->ops_to_go > most)
        world_fail((struct world *)w, "lag",
                   "%s says it has %llu operations of %s's to go, and it is %llu to %llu",
                   w->config.sites[to].name, (unsigned long long)lag->ops_to_go,
                   w->config.sites[from].name, (unsigned long long)least, (unsigned long long)most);
    if (lag->bytes_to_go > most * LIMIT_OP_BYTES || (most == 0 && lag->bytes_to_go > 0))
        world_fail(w, "lag", "%s says it has %llu bytes of %s's to go, in %llu operations",
                   w->config.sites[to].name, (unsigned long long)lag->bytes_to_go,
                   w->config.sites[from].name, (unsigned long long)most);
}

void lag_look(struct world *w, unsigned from, unsigned to, const uint64_t *seq)
{
    struct watch *t = w->watcher;
    struct world_lag lag;
    uint64_t now = sched->now_ns, missing = now - missing_since(w, from, seq);
    world_lag(w, from, to, &lag);
    if (!lag.up)
        t->stream_ns[from][to] = now;
    if (lag.held)
        t->held_ns[from][to] = now;
    else if (now - t->held_ns[from][to] > LAG_STEADY_NS)
        t->free_ns[from][to] = now;
    if (!lag.known || now - t->up_ns[to] < LAG_STEADY_NS)
        return;
    if (!is_told(w, from, to, seq))
        return;
    uint64_t looked = LAG_SLACK_NS + w->config.check_ns; /* known no better than checkers look */
    uint64_t slack = looked + jumped_ns(w);
    bool by_clock = lag.by_clock || !has_any(w, seq);
    uint64_t counted = now - t->up_ns[to], apart = by_clock ? clocks_differ_ns(w) : 0;
    if (missing > lag.lag_ns + slack + apart && counted > missing)
        world_fail(w, "lag", "%s says it is %.1f s behind %s, and is %.1f s",
                   w->config.sites[to].name, (double)lag.lag_ns / 1e9, w->config.sites[from].name,
                   (double)missing / 1e9);
    if (!watch_is_well(w, from, to, LAG_STEADY_NS) || now - t->stream_ns[from][to] <= LAG_STEADY_NS)
        return;
    struct node *n = w->sites[to].node;
    bool waits = !world_removals_over(w, n) || holds_any(w, n); /* what waits has arrived */
    if (!waits)
        check_to_go(&lag, w, from, to, looked);
    if (lag.lag_ns > missing + 2 * slack + apart)
        world_fail(w, "lag", "%s says it is %.1f s behind %s, and is %.1f s",
                   w->config.sites[to].name, (double)lag.lag_ns / 1e9, w->config.sites[from].name,
                   (double)missing / 1e9);
}

struct line {
    unsigned from, to;
};

/* A line with something to go; false: there is none. */
static bool
any_to_go(struct world *w, bool (*up)[WORLD_SITES_MAX], struct line *ret, struct world_lag *ret_lag)
{
    for (unsigned i = 0; i < w->config.site_count; i++)
        for (unsigned k = 0; k < w->config.site_count; k++) {
            if (!up[k][i] || w->sites[i].node == NULL || w->sites[k].node == NULL)
                continue;
            world_lag(w, k, i, ret_lag);
            *ret = (struct line){k, i};
            if (ret_lag->known && ret_lag->up && ret_lag->ops_to_go + ret_lag->bytes_to_go > 0)
                return true;
        }
    return false;
}

/* When all have everything, and have had the time to say so, nothing is to go: a stream that is new
 * to its receiver begins when that has acknowledged what it does not bring (wan/wan_horizon.c). */
void world_check_lag(struct world *w)
{
    uint64_t until = sched->now_ns + LAG_CALM_NS, next = sched->now_ns;
    bool up[WORLD_SITES_MAX][WORLD_SITES_MAX] = {{false}};
    struct world_lag lag;
    struct line l;
    for (unsigned i = 0; i < w->config.site_count; i++)
        for (unsigned k = 0; k < w->config.site_count; k++)
            if (i != k && world_counts(w, i) && world_counts(w, k)) {
                world_lag(w, k, i, &lag);
                up[k][i] = lag.up;
            }
    do {
        next += LAG_STEP_NS;
        while (w->failure[0] == '\0' && sched_step(next))
            continue;
    } while (w->failure[0] == '\0' && next < until && any_to_go(w, up, &l, &lag));
    if (w->failure[0] == '\0' && any_to_go(w, up, &l, &lag))
        world_fail(w, "lag",
                   "%s has all of %s, and says that %llu operations, %llu bytes are to go",
                   w->config.sites[l.to].name, w->config.sites[l.from].name,
                   (unsigned long long)lag.ops_to_go, (unsigned long long)lag.bytes_to_go);
}
