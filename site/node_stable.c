/* Causal stability: what no operation can refer to any more is dropped (journal/merge.h says from
 * what point on that is safe).
 *
 * Each member says three things of itself, in a register of the root (class V), so that it travels
 * in its stream and through relays:
 *
 *   clock   all its operations stamped up to here are among its first seqs[shard] in each shard
 *   seen    all operations of all members stamped up to here have been applied here, and all that
 *           follows from them has been carried out in all shards (node_settled)
 *   goal    the stable point that would let all go that is dead there
 *
 * A word counts where all that it covers has arrived (seqs): only then is the next operation from
 * there one that its sender issued with `seen` behind it. `seen` is the lowest `clock` of the words
 * that count here; the stable point is the lowest `seen` of the words that count here (S16). A
 * member without a word that counts holds everything back, and so does one that leaves until all up
 * to its cut has arrived (node_leave.c).
 *
 * A word is given only when something waits to be dropped, at whatever member (sites that got the
 * same operations in another order have other goals), and the last word does not suffice for it, or
 * does not ask the others for it though theirs do not suffice; so
 * sites that are idle fall silent after a few rounds. A site alone needs nobody's word. Where some
 * member is reached through others only, words also show that a member lives (node_retain.c). */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/member_codec.h"
#include "site/node_int.h"

#define COLLECT_BUDGET 2000u /* objects of a shard in one turn */
#define WORD_TICKS 20u       /* between two words: 10 s */

struct words {
    struct node *n;
    struct stable_word at[SITE_COUNT_MAX];
    uint32_t count;
};

static bool pinned(void *ctx, struct oid oid)
{
    return node_object_open(ctx, oid);
}

/* Has all that the word covers been applied here, durably? */
static bool word_counts(struct node *n, const struct stable_word *w)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct vv durable;
        shard_durable_vv(n->shards[i], &durable);
        if (MIN(vv_get(&durable, w->site),
                merge_seen(shard_merge(n->shards[i]), (shard_id_t)i, w->site)) < w->seqs[i])
            return false;
    }
    return true;
}

static bool word_take(void *ctx, const struct reg *r)
{
    struct words *ws = ctx;
    if (ws->count < SITE_COUNT_MAX &&
        stable_decode(r, ws->n->settings.shard_count, &ws->at[ws->count]))
        ws->count++;
    return true;
}

/* ERR_*: the state cannot be read. */
static int words_load(struct node *n, struct words *ret)
{
    ret->n = n;
    ret->count = 0;
    return merge_regs(shard_merge(n->shards[0]), OID_ROOT, REG_STABLE, word_take, ret);
}

static const struct stable_word *word_of(const struct words *ws, site_id_t site)
{
    for (uint32_t i = 0; i < ws->count; i++)
        if (ws->at[i].site == site)
            return &ws->at[i];
    return NULL;
}

/* The word of one member; false: it gave none that can be read. */
static bool word_find(struct node *n, site_id_t site, struct stable_word *ret)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct reg r;
    member_key(REG_STABLE, site, key);
    return merge_reg(shard_merge(n->shards[0]), OID_ROOT, slice_of(key, sizeof key), &r) == 0 &&
           r.present && stable_decode(&r, n->settings.shard_count, ret);
}

uint64_t node_stable_seen(struct node *n, site_id_t site)
{
    struct stable_word w;
    return word_find(n, site, &w) ? w.seen : 0;
}

uint64_t node_stable_clock(struct node *n, site_id_t site)
{
    struct stable_word w;
    return word_find(n, site, &w) ? w.clock : 0;
}

static bool is_alone(struct node *n)
{
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site != n->settings.site && !node_left(n, n->members[i].m.site))
            return false;
    return true;
}

/* The lowest clock (or `seen`) of the members' words; 0 when one is missing or does not count. */
static uint64_t words_lowest(struct node *n, const struct words *ws, bool seen, uint64_t self)
{
    uint64_t lowest = self;
    for (uint32_t i = 0; i < n->member_count && lowest > 0; i++) {
        site_id_t site = n->members[i].m.site;
        if (site == n->settings.site || node_left(n, site))
            continue;
        const struct stable_word *w = word_of(ws, site);
        bool counts = w != NULL && word_counts(n, w);
        lowest = counts ? MIN(lowest, seen ? w->seen : w->clock) : 0;
    }
    return lowest;
}

/* Nothing is on its way between the shards, and nobody owes a repair: see merge_collect. And the
 * mounts of the run before have said again what they have open. */
static bool can_collect(struct node *n)
{
    if (n->lock_grace)
        return false;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct shard *s = n->shards[i];
        if (!shard_idle(s) || shard_outbox_count(s) > 0 || shard_waiting_count(s) > 0 ||
            merge_owes(shard_merge(s)))
            return false;
    }
    return true;
}

uint64_t node_dead_goal(struct node *n)
{
    uint64_t goal = node_past_goal(n);
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        goal = MAX(goal, merge_collect_goal(shard_merge(n->shards[i])));
    return goal;
}

uint64_t node_stable_hlc(struct node *n)
{
    struct words *ws = mem_calloc(1, sizeof *ws);
    uint64_t stable = 0;
    struct feed_state f;
    if (is_alone(n) || PLANTED(58)) {
        node_feed_state(n, &f);
        stable = f.safe_hlc;
    } else if (words_load(n, ws) == 0) {
        const struct stable_word *own = word_of(ws, n->settings.site);
        stable = own == NULL ? 0 : words_lowest(n, ws, true, own->seen);
    }
    mem_free(ws);
    return stable;
}

bool node_collect(struct node *n)
{
    bool over = true;
    if (n->needs_snapshot || node_self_leaves(n) || PLANTED(59))
        return true;
    if (!can_collect(n))
        return false;
    uint64_t stable = node_stable_hlc(n);
    for (unsigned i = 0; stable > 0 && i < n->settings.shard_count; i++) {
        struct merge *m = shard_merge(n->shards[i]);
        if (merge_collect_due(m, stable))
            (void)merge_collect(m, stable, COLLECT_BUDGET, pinned, n);
        over = over && !merge_collect_due(m, stable);
    }
    return over;
}

void node_collect_again(struct node *n, struct oid oid)
{
    merge_collect_again(shard_merge(shard_of(n, oid)));
}

/* ---- giving our word ---- */

static void word_propose(struct node *n, uint64_t seen)
{
    struct buf value = {0};
    uint8_t key[MEMBER_KEY_BYTES];
    struct stable_word w = {
        .site = n->settings.site, .clock = n->hlc.last, .seen = seen, .goal = node_dead_goal(n)};
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        w.seqs[i] = shard_next_seq(n->shards[i]) - 1;
    member_key(REG_STABLE, w.site, key);
    stable_encode(&w, n->settings.shard_count, &value);
    node_root_set(n, slice_of(key, sizeof key), &value, NULL, NULL);
    buf_deinit(&value);
}

/* All that was applied when `seen` was worked out has had its consequences. */
static void word_settled(struct node_settle_wait *w)
{
    struct node *n = CONTAINER_OF(w, struct node, stable.wait);
    n->stable.busy = false;
    if (n->stopping || n->broken || node_self_leaves(n))
        return;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (shard_waiting_count(n->shards[i]) > 0)
            return; /* a part that waits is not applied: the tick tries again */
    n->stable.tick = n->tick_count;
    word_propose(n, n->stable.seen);
}

void node_stable_tick(struct node *n, bool now)
{
    if (n->needs_snapshot || n->stable.busy || node_self_leaves(n) || is_alone(n))
        return;
    uint64_t wants = node_dead_goal(n), goal = wants, newest = 0;
    struct words *ws = mem_calloc(1, sizeof *ws);
    bool known = words_load(n, ws) == 0;
    for (uint32_t i = 0; i < n->member_count && known; i++) {
        const struct stable_word *w = word_of(ws, n->members[i].m.site);
        if (w == NULL || n->members[i].m.status != MEMBER_IS)
            continue;
        goal = MAX(goal, w->goal);
        newest = MAX(newest, w->clock);
    }
    const struct stable_word *own = word_of(ws, n->settings.site);
    uint64_t clock = own == NULL ? 0 : own->clock, seen = own == NULL ? 0 : own->seen;
    /* What died, or is to be looked at again, after that word: the others do not know the goal. */
    bool asks = own != NULL && own->goal < wants && words_lowest(n, ws, true, seen) < wants;
    bool lives = known && node_word_is_due(n, clock, newest);
    bool soon = n->stable.tick != 0 && n->tick_count < n->stable.tick + WORD_TICKS;
    if (known && (lives || (goal > 0 && (now || !soon)))) {
        uint64_t lowest = words_lowest(n, ws, false, n->hlc.last);
        if (lives || asks || clock < goal || (seen < goal && lowest > seen)) {
            n->stable.busy = true;
            n->stable.seen = MAX(lowest, seen);
            n->stable.wait.run = word_settled;
            node_settled(n, &n->stable.wait);
        }
    }
    mem_free(ws);
}

void node_stable_waits(struct node *n,
                       uint64_t goal,
                       void (*fn)(void *ctx, site_id_t site),
                       void *ctx)
{
    struct words *ws = mem_calloc(1, sizeof *ws);
    bool known = words_load(n, ws) == 0;
    for (uint32_t i = 0; i < n->member_count && known; i++) {
        site_id_t site = n->members[i].m.site;
        const struct stable_word *w = word_of(ws, site);
        if (site != n->settings.site && !node_left(n, site) &&
            (w == NULL || w->seen < goal || !word_counts(n, w)))
            fn(ctx, site);
    }
    mem_free(ws);
}
