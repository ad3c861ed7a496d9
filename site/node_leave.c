/* Leaving has a cut: a site that is removed, or was away too long, and which of its operations
 * count.
 *
 * All of it is in registers of the root, so it travels like everything else:
 *
 *   R leaver             [why]: the site leaves. Nothing takes it back; it may come again under a
 *                        new site id: by itself if it was away, else when an operator has said so,
 *                        which makes the reason that one.
 *   C leaver, answerer   [seq of each shard, who else leaves ...]: the answerer has applied the
 *                        leaver's operations up to here, and takes no more of them before the cut
 *                        is known. It says as well that all these sites leave, as an R does.
 *
 *   MEMBER_IS --R--> MEMBER_LEAVING --a C of every remaining member--> MEMBER_REMOVED
 *
 * The cut is the maximum of the answers of those who remain, shard by shard. Up to it the leaver's
 * operations are taken from anybody, above it from nobody (L1). Every remaining member finds the
 * same cut, without another word (L2): only answers count that were given for the same set of
 * leavers, one a member and set; when the set grows, all answer again, with what they have
 * applied, and the cut does not rise by that. Who joins after its inviter has answered begins with
 * the inviter's limits (they are in the snapshot), so that its answer changes nothing.
 * The cut is closed (L3): what a remaining member issued refers to no more than it had applied,
 * which its answer, or the cut, covers. README.md has the argument in full.
 *
 * Answering: limits first, in the journal of each shard (shard_limit.c): from there on operations
 * beyond them wait. When the states that hold the limits are written down, and so replay cannot
 * take an operation that had waited, the answer is given (L5). When all have answered, the limits
 * are raised to the cut, and what lies beyond is dropped. A crash anywhere goes on where it was.
 *
 * An answer may stand behind an operation that waits for the very cut: so these registers are read
 * also where they wait (node_notices, shard_notice.c).
 *
 * Retention does not wait for a site that leaves; the stable point waits for it until all up to its
 * cut has arrived (node_stable.c). */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/member_codec.h"
#include "site/node_int.h"

#define CUT_RECORD_BYTES 128u /* more than a limit's record has */

static uint64_t bit_of(uint32_t place)
{
    return (uint64_t)1 << place;
}

/* ---- what the registers say ---- */

struct answer {
    site_id_t from;
    uint32_t leaver; /* index in leaving.sites */
    uint64_t view;   /* bits of leaving.sites: who its issuer knew to leave */
    struct stamp stamp;
    uint64_t *seqs; /* by shard */
};

struct leaves {
    struct node *n;
    struct answer *answers;
    uint32_t count, cap;
    uint8_t why[SITE_COUNT_MAX];
    struct stamp marked[SITE_COUNT_MAX]; /* of the R that says why */
};

static bool place_of(struct leaves *l, site_id_t site, uint32_t *ret)
{
    struct node *n = l->n;
    uint32_t i = 0;
    while (i < n->leaving.count && n->leaving.sites[i] != site)
        i++;
    if (site == 0 || i == SITE_COUNT_MAX)
        return false; /* the engine refuses so many sites */
    if (i == n->leaving.count) {
        l->why[i] = LEAVES_REMOVED;
        n->leaving.sites[n->leaving.count++] = site;
    }
    *ret = i;
    return true;
}

static bool load_mark(void *ctx, const struct reg *r)
{
    struct leaves *l = ctx;
    enum member_leaves why;
    site_id_t site;
    uint32_t i;
    if (leaves_decode(r, &site, &why) && place_of(l, site, &i) &&
        stamp_cmp(l->marked[i], r->stamp) < 0) {
        l->why[i] = (uint8_t)why;
        l->marked[i] = r->stamp;
    }
    return true;
}

static struct answer *answer_find(struct leaves *l, uint32_t leaver, site_id_t from)
{
    for (uint32_t i = 0; i < l->count; i++)
        if (l->answers[i].leaver == leaver && l->answers[i].from == from)
            return &l->answers[i];
    return NULL;
}

static void answer_keep(struct leaves *l, const struct answer *a)
{
    unsigned shards = l->n->settings.shard_count;
    struct answer *had = answer_find(l, a->leaver, a->from);
    if (had != NULL && stamp_cmp(had->stamp, a->stamp) >= 0)
        return;
    if (had == NULL) {
        if (l->count == l->cap) {
            l->cap = MAX(l->cap * 2, 16u);
            l->answers = mem_realloc(l->answers, l->cap * sizeof l->answers[0]);
        }
        had = &l->answers[l->count++];
        had->seqs = mem_calloc(shards, sizeof had->seqs[0]);
    }
    uint64_t *seqs = had->seqs;
    memcpy(seqs, a->seqs, shards * sizeof seqs[0]);
    *had = *a;
    had->seqs = seqs;
}

static bool load_answer(void *ctx, const struct reg *r)
{
    struct leaves *l = ctx;
    struct cut_answer said;
    uint32_t other;
    if (!cut_decode(r, l->n->settings.shard_count, &said))
        return true;
    struct answer a = {.from = said.from, .stamp = r->stamp, .seqs = said.seqs};
    if (!place_of(l, said.leaver, &a.leaver))
        return true;
    a.view = bit_of(a.leaver);
    for (uint32_t i = 0; i < said.other_count; i++)
        if (place_of(l, said.others[i], &other))
            a.view |= bit_of(other);
    answer_keep(l, &a);
    return true;
}

static uint64_t all_of(const struct node *n)
{
    return n->leaving.count == 64 ? UINT64_MAX : bit_of(n->leaving.count) - 1;
}

/* All that anybody takes of it is here, and no later answer changes that: what a site that remains
 * has applied is in each of its answers. */
static bool is_followed(struct node *n, site_id_t site, uint64_t *ret_cut)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (n->shards[i] == NULL || shard_limit(n->shards[i], site, &ret_cut[i]) != LIMIT_CUT ||
            merge_seen(shard_merge(n->shards[i]), (shard_id_t)i, site) != ret_cut[i])
            return false;
    return true;
}

/* Has everybody who remains answered, knowing of all who leave? */
static bool is_decided(struct leaves *l, uint32_t leaver, uint64_t *ret_cut)
{
    struct node *n = l->n;
    bool any = false;
    memset(ret_cut, 0, n->settings.shard_count * sizeof ret_cut[0]);
    for (uint32_t i = 0; i < n->member_count; i++) {
        if (n->members[i].m.status != MEMBER_IS)
            continue;
        const struct answer *a = answer_find(l, leaver, n->members[i].m.site);
        if (a == NULL || a->view != all_of(n))
            return false;
        for (unsigned k = 0; k < n->settings.shard_count; k++)
            ret_cut[k] = MAX(PLANTED(30) ? 0 : ret_cut[k], a->seqs[k]);
        any = true;
    }
    return any;
}

static void leaves_apply(struct leaves *l)
{
    struct node *n = l->n;
    uint64_t cut[SHARD_COUNT_MAX];
    for (uint32_t i = 0; i < n->leaving.count; i++) {
        struct node_member_cache *c = node_member_find(n, n->leaving.sites[i]);
        if (c == NULL)
            continue;
        c->m.status = MEMBER_LEAVING;
        c->m.why = l->why[i];
        c->left = l->marked[i];
    }
    n->leaving.owed = 0;
    for (uint32_t i = 0; i < n->leaving.count; i++) {
        struct node_member_cache *c = node_member_find(n, n->leaving.sites[i]);
        const struct answer *own = answer_find(l, i, n->settings.site);
        if (own == NULL || own->view != all_of(n))
            n->leaving.owed |= bit_of(i);
        if (c == NULL || (!is_followed(n, c->m.site, cut) && !is_decided(l, i, cut)))
            continue;
        c->cut = mem_dup(cut, n->settings.shard_count * sizeof cut[0]);
        c->m.status = MEMBER_REMOVED;
    }
}

int node_leaves_load(struct node *n)
{
    struct leaves *l = mem_calloc(1, sizeof *l);
    l->n = n;
    n->leaving.count = 0;
    n->leaving.known = log_last(shard_log(n->shards[0]));
    int rc = node_notices(n, REG_LEAVES, load_mark, l);
    if (rc == 0)
        rc = node_notices(n, REG_CUT, load_answer, l);
    if (rc == 0)
        leaves_apply(l);
    for (uint32_t i = 0; i < l->count; i++)
        mem_free(l->answers[i].seqs);
    mem_free(l->answers);
    mem_free(l);
    return rc;
}

bool node_self_leaves(const struct node *n)
{
    for (uint32_t i = 0; i < n->leaving.count; i++)
        if (n->leaving.sites[i] == n->settings.site)
            return true;
    return false;
}

const uint64_t *node_cut(const struct node *n, site_id_t site)
{
    const struct node_member_cache *c = node_member_find(n, site);
    return c != NULL && c->m.status == MEMBER_REMOVED ? c->cut : NULL;
}

bool node_left(struct node *n, site_id_t site)
{
    const struct node_member_cache *c = node_member_find(n, site);
    if (c == NULL || c->m.status != MEMBER_REMOVED)
        return false;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (merge_seen(shard_merge(n->shards[i]), (shard_id_t)i, site) < c->cut[i])
            return false;
    return true;
}

/* ---- saying it ---- */

void node_leaves_add(struct op_builder *b, site_id_t site, enum member_leaves why)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct buf value = {0};
    member_key(REG_LEAVES, site, key);
    leaves_encode(why, &value);
    node_root_add(b, slice_of(key, sizeof key), &value);
    buf_deinit(&value);
}

/* All ids of the site, those that are members or those that have left, where that is not said yet:
 * who is kept out by an operator, or let in again, is the site, not one of its ids. */
static uint32_t mark_all(const struct node *n,
                         struct op_builder *b,
                         const struct member *site,
                         bool members,
                         enum member_leaves why)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->member_count; i++) {
        const struct member *m = &n->members[i].m;
        if (m->site == n->settings.site || (m->status == MEMBER_IS) != members || m->why == why ||
            !node_same_site(m, site))
            continue;
        node_leaves_add(b, m->site, why);
        count++;
    }
    return count;
}

void node_member_remove(struct node *n,
                        site_id_t site,
                        enum member_leaves why,
                        void (*done)(void *ctx, int rc),
                        void *ctx)
{
    struct op_builder b = {0};
    node_members_fresh(n);
    const struct node_member_cache *c = node_member_find(n, site);
    if (c == NULL || site == n->settings.site || node_self_leaves(n)) {
        done(ctx, c == NULL ? ERR_NOT_FOUND : ERR_INVALID);
        return;
    }
    if (c->m.status != MEMBER_IS) {
        done(ctx, 0); /* written once */
        return;
    }
    log_info(LOG_SITE, "member_leaves", "name=%s site=%08x why=%s", c->m.name, site,
             why == LEAVES_AWAY ? "away_too_long" : "removed");
    if (why == LEAVES_REMOVED)
        (void)mark_all(n, &b, &c->m, true, why); /* this one is among them */
    else
        node_leaves_add(&b, site, why);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

void node_member_readmit(struct node *n, site_id_t site, void (*done)(void *ctx, int rc), void *ctx)
{
    struct op_builder b = {0};
    node_members_fresh(n);
    const struct node_member_cache *c = node_member_find(n, site);
    if (c == NULL || c->m.status == MEMBER_IS || node_self_leaves(n)) {
        done(ctx, c == NULL ? ERR_NOT_FOUND : ERR_INVALID);
        return;
    }
    if (mark_all(n, &b, &c->m, false, LEAVES_AWAY) == 0) {
        op_builder_deinit(&b);
        done(ctx, 0);
        return;
    }
    log_info(LOG_SITE, "member_readmitted", "name=%s site=%08x", c->m.name, site);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

/* ---- answering ---- */

static void limit_durable(void *ctx, int rc)
{
    struct node *n = ctx;
    (void)rc; /* a shard that fails stops the node */
    ASSERT(n->leaving.open > 0);
    n->leaving.open--;
}

static uint64_t seen_of(struct node *n, unsigned shard, site_id_t site)
{
    return merge_seen(shard_merge(n->shards[shard]), (shard_id_t)shard, site);
}

/* Writes limits where there are none that hold; false: that has to be waited for. */
static bool limits_hold(struct node *n, site_id_t site)
{
    bool hold = true;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct shard *s = n->shards[i];
        uint64_t seq = 0, seen = seen_of(n, i, site);
        /* Beyond its limit a shard may be after a crash: replay took what had waited. And a cut of
         * which something is missing does not hold any more: who was to bring it may leave. */
        enum shard_limit limit = shard_limit(s, site, &seq);
        if ((limit == LIMIT_HOLD && seen <= seq) || (limit == LIMIT_CUT && seen == seq))
            continue;
        hold = false;
        n->leaving.open++;
        int rc = shard_limit_set(s, site, LIMIT_HOLD, seen, limit_durable, n);
        if (rc != 0) {
            n->leaving.open--;
            log_warn(LOG_SITE, "limit_not_written", "shard=%u why=\"%s\"", i, err_text(rc));
        }
    }
    return hold;
}

static bool all_limits_hold(struct node *n)
{
    bool hold = true;
    for (uint32_t i = 0; i < n->leaving.count; i++)
        hold = limits_hold(n, n->leaving.sites[i]) && hold;
    return hold;
}

/* Are all limits in states that are written down? */
static bool limits_stored(struct node *n)
{
    bool all = n->leaving.open == 0;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct shard *s = n->shards[i];
        struct state *st = shard_state(s);
        bool nothing = !state_is_frozen(st) && state_active_bytes(st) == 0;
        if (nothing || state_stored_index(st) >= n->leaving.index[i])
            continue;
        shard_checkpoint(s, true);
        all = false;
    }
    return all;
}

static void answer(struct node *n, uint32_t leaver)
{
    uint8_t key[CUT_KEY_BYTES];
    struct buf value = {0};
    struct cut_answer a = {.leaver = n->leaving.sites[leaver], .from = n->settings.site};
    cut_key(a.leaver, a.from, key);
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        (void)shard_limit(n->shards[i], a.leaver, &a.seqs[i]); /* there is one */
    for (uint32_t i = 0; i < n->leaving.count; i++)
        if (i != leaver)
            a.others[a.other_count++] = n->leaving.sites[i];
    cut_encode(&a, n->settings.shard_count, &value);
    node_root_set(n, slice_of(key, sizeof key), &value, NULL, NULL);
    buf_deinit(&value);
}

static void answer_all(struct node *n)
{
    if (!n->leaving.busy) {
        n->leaving.busy = true;
        (void)all_limits_hold(n); /* looked at again below */
        for (unsigned i = 0; i < n->settings.shard_count; i++)
            n->leaving.index[i] = log_last(shard_log(n->shards[i]));
    }
    if (!limits_stored(n))
        return;
    n->leaving.busy = false;
    if (!all_limits_hold(n))
        return; /* not written, the disk was full, one more leaves: from the beginning */
    for (uint32_t i = 0; i < n->leaving.count; i++)
        if ((n->leaving.owed & bit_of(i)) != 0)
            answer(n, i);
}

/* ---- cuts ---- */

/* The cut is known: it replaces the limits. */
static bool take_cut(struct node *n, const struct node_member_cache *c)
{
    bool taken = false;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct shard *s = n->shards[i];
        uint64_t seq = 0;
        if (shard_limit(s, c->m.site, &seq) == LIMIT_CUT && seq == c->cut[i]) {
            shard_limits_settle(s);
            continue;
        }
        if (seen_of(n, i, c->m.site) > c->cut[i])
            log_error(LOG_SITE, "beyond_cut",
                      "site=%08x shard=%u why=\"this site holds operations of a removed site that "
                      "no other site takes: let it join again as a new site\"",
                      c->m.site, i);
        n->leaving.open++;
        int rc = shard_limit_set(s, c->m.site, LIMIT_CUT, c->cut[i], limit_durable, n);
        if (rc != 0) {
            n->leaving.open--;
            log_warn(LOG_SITE, "limit_not_written", "shard=%u why=\"%s\"", i, err_text(rc));
        }
        taken = true;
    }
    return taken;
}

/* All limits are cuts by now: what waited behind something of a leaver's goes on (L6). So does what
 * the leaver did in one shard and names what was let in by another one's cut, later in this turn:
 * what it did after that shows already. `any`: cuts were taken. */
static void let_go(struct node *n, bool any)
{
    unsigned shards = n->settings.shard_count;
    for (unsigned i = 0; i < shards; i++)
        if (shard_holds(n->shards[i]))
            return; /* a cut was not written */
    for (unsigned from = 0; from < shards; from++) {
        site_id_t site;
        while ((site = shard_behind_at(n->shards[from], 0)) != 0) {
            for (unsigned i = 0; i < shards; i++) {
                int rc = !shard_is_behind(n->shards[i], site)
                             ? 0
                             : shard_behind_set(n->shards[i], site, 0);
                if (rc != 0)
                    return; /* room was made sure of: the shard has failed */
            }
            any = true;
        }
    }
    if (!any)
        return;
    node_retry_waiting(n);
    node_inval_flush(n, NULL);
    node_repairs_later(n);
    node_feed_moved(n);
}

/* Records that taking the cuts, and letting go, will write to a shard. */
static size_t cut_records(struct node *n, struct shard *s)
{
    size_t count = 0;
    for (uint32_t i = 0; i < n->member_count; i++) {
        const struct node_member_cache *c = &n->members[i];
        uint64_t seq = 0;
        count += c->m.status == MEMBER_REMOVED &&
                 !(shard_limit(s, c->m.site, &seq) == LIMIT_CUT && seq == c->cut[shard_id(s)]);
    }
    for (uint32_t i = 0; shard_behind_at(s, i) != 0; i++)
        count++;
    return count;
}

/* All at once, so that nobody sees what one shard lets go and not what another one does (P7). */
static void take_cuts(struct node *n)
{
    bool all = true;
    for (uint32_t i = 0; i < n->member_count; i++)
        all = all && n->members[i].m.status != MEMBER_LEAVING;
    if (!all || n->leaving.open > 0)
        return;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        size_t count = cut_records(n, n->shards[i]);
        if (count > 0 && shard_reserve(n->shards[i], count * CUT_RECORD_BYTES) != 0)
            return; /* later */
    }
    bool taken = false;
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.status == MEMBER_REMOVED)
            taken = take_cut(n, &n->members[i]) || taken;
    let_go(n, taken);
}

void node_leaves_step(struct node *n)
{
    if (n->needs_snapshot || n->stopping || n->broken)
        return;
    if (n->members_stale) {
        node_members_fresh(n); /* and comes here again */
        return;
    }
    if (node_self_leaves(n))
        return;
    /* What limits and cuts follow from must not be lost when they are in some journals. */
    if (shard_committed(n->shards[0]) < n->leaving.known)
        return;
    if (n->leaving.owed != 0)
        answer_all(n);
    else
        take_cuts(n);
}
