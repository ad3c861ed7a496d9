/* Leaving has a cut: a site that is removed, or was away too long, and which of its operations
 * count.
 *
 * All of it is in registers of the root, written once each, so it travels like everything else:
 *
 *   R leaver             [why]: the site leaves. Nothing takes it back; it may come again under a
 *                        new site id.
 *   C leaver, answerer   [seq of each shard]: the answerer has applied the leaver's operations up
 *                        to here, and takes no more of them before the cut is known.
 *
 *   MEMBER_IS --R--> MEMBER_LEAVING --a C of every remaining member--> MEMBER_REMOVED
 *
 * The cut is the maximum of the answers, shard by shard. Up to it the leaver's operations are taken
 * from anybody, above it from nobody (L1). Every remaining member finds the same cut, without
 * another word (L2): a register is written once, and who joins after its inviter has answered
 * begins with the inviter's limits (they are in the snapshot), so that its answer changes nothing.
 * The cut is closed (L3): what a remaining member issued refers to no more than it had applied,
 * which its answer, or the cut, covers.
 *
 * Answering: limits first, in the journal of each shard (shard_limit.c): from there on operations
 * beyond them wait. When the states that hold the limits are written down, and so replay cannot
 * take an operation that had waited, the answer is given. When all have answered, the limits are
 * raised to the cut, and what lies beyond is dropped. A crash anywhere goes on where it was.
 *
 * Retention does not wait for a site that leaves; the stable point waits for it until all up to its
 * cut has arrived (node_stable.c). */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mp.h"
#include "site/node_int.h"

static void key_site(uint8_t *out, site_id_t site)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(site >> (8 * (3 - i)));
}

static site_id_t site_of(const uint8_t *in)
{
    return (site_id_t)in[0] << 24 | (site_id_t)in[1] << 16 | (site_id_t)in[2] << 8 | in[3];
}

static struct node_member_cache *member_of(const struct node *n, site_id_t site)
{
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == site)
            return &n->members[i];
    return NULL;
}

/* ---- what the registers say ---- */

static bool load_mark(void *ctx, const struct reg *r)
{
    struct node *n = ctx;
    struct mp in = mp_of(r->value);
    if (r->key.len != 5)
        return true;
    struct node_member_cache *c = member_of(n, site_of(r->key.ptr + 1));
    mp_get_array(&in, 1);
    uint64_t why = mp_get_uint(&in, LEAVES_AWAY);
    if (c == NULL || mp_end(&in) != 0)
        return true;
    c->m.status = MEMBER_LEAVING;
    c->m.why = (uint8_t)(why == LEAVES_AWAY ? LEAVES_AWAY : LEAVES_REMOVED);
    return true;
}

struct answers {
    struct node *n;
    struct node_member_cache *leaver;
    uint64_t cut[SHARD_COUNT_MAX];
    bool from[SITE_COUNT_MAX]; /* by index of the member */
};

static bool load_answer(void *ctx, const struct reg *r)
{
    struct answers *a = ctx;
    struct node *n = a->n;
    struct mp in = mp_of(r->value);
    uint64_t seqs[SHARD_COUNT_MAX];
    if (r->key.len != 9 || site_of(r->key.ptr + 1) != a->leaver->m.site)
        return true;
    mp_get_array(&in, SHARD_COUNT_MAX);
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        seqs[i] = mp_get_uint(&in, UINT64_MAX - 1);
    if (mp_end(&in) != 0)
        return true;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        a->cut[i] = MAX(a->cut[i], seqs[i]);
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == site_of(r->key.ptr + 5))
            a->from[i] = true;
    return true;
}

static int load_answers(struct node *n, struct answers *a, struct node_member_cache *leaver)
{
    memset(a, 0, sizeof *a);
    a->n = n;
    a->leaver = leaver;
    return merge_regs(shard_merge(n->shards[0]), OID_ROOT, REG_CUT, load_answer, a);
}

int node_leaves_load(struct node *n)
{
    struct answers *a = mem_calloc(1, sizeof *a);
    int rc = merge_regs(shard_merge(n->shards[0]), OID_ROOT, REG_LEAVES, load_mark, n);
    for (uint32_t i = 0; i < n->member_count && rc == 0; i++) {
        struct node_member_cache *c = &n->members[i];
        if (c->m.status != MEMBER_LEAVING)
            continue;
        rc = load_answers(n, a, c);
        bool all = true, any = false;
        for (uint32_t k = 0; k < n->member_count; k++)
            if (n->members[k].m.status == MEMBER_IS) {
                all = all && a->from[k];
                any = true;
            }
        if (rc == 0 && all && any) {
            c->cut = mem_dup(a->cut, n->settings.shard_count * sizeof a->cut[0]);
            c->m.status = MEMBER_REMOVED;
        }
    }
    mem_free(a);
    return rc;
}

bool node_self_leaves(const struct node *n)
{
    const struct node_member_cache *c = member_of(n, n->settings.site);
    return c != NULL && c->m.status != MEMBER_IS;
}

const uint64_t *node_cut(const struct node *n, site_id_t site)
{
    const struct node_member_cache *c = member_of(n, site);
    return c != NULL && c->m.status == MEMBER_REMOVED ? c->cut : NULL;
}

bool node_left(struct node *n, site_id_t site)
{
    const struct node_member_cache *c = member_of(n, site);
    if (c == NULL || c->m.status != MEMBER_REMOVED)
        return false;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (merge_seen(shard_merge(n->shards[i]), (shard_id_t)i, site) < c->cut[i])
            return false;
    return true;
}

/* ---- saying it ---- */

static void set_register(struct node *n,
                         struct slice key,
                         const struct buf *value,
                         void (*done)(void *ctx, int rc),
                         void *ctx)
{
    struct op_builder b = {0};
    struct proposal p = {.committed = done, .ctx = ctx};
    op_builder_init(&b);
    struct effect *e = op_builder_add(&b, EFFECT_SET, OID_ROOT);
    e->set.key = key;
    e->set.value = buf_slice(value);
    e->set.present = true;
    int rc = shard_propose(n->shards[0], &b, &p, NULL);
    op_builder_deinit(&b);
    if (rc != 0 && done != NULL)
        done(ctx, rc);
    else if (rc != 0)
        log_warn(LOG_SITE, "leaving_not_written", "why=\"%s\"", err_text(rc)); /* again later */
}

void node_member_remove(struct node *n,
                        site_id_t site,
                        enum member_leaves why,
                        void (*done)(void *ctx, int rc),
                        void *ctx)
{
    uint8_t key[5] = {REG_LEAVES};
    struct buf value = {0};
    node_members_fresh(n);
    const struct node_member_cache *c = member_of(n, site);
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
    key_site(key + 1, site);
    mp_array(&value, 1);
    mp_uint(&value, why);
    set_register(n, slice_of(key, sizeof key), &value, done, ctx);
    buf_deinit(&value);
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
        /* Beyond its limit a shard may be after a crash: replay took what had waited. */
        if (shard_limit(s, site, &seq) != LIMIT_NONE && seen <= seq)
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

static void answer(struct node *n, site_id_t site)
{
    uint8_t key[9] = {REG_CUT};
    struct buf value = {0};
    if (n->leaving.site == 0) {
        n->leaving.site = site;
        (void)limits_hold(n, site); /* looked at again below */
        for (unsigned i = 0; i < n->settings.shard_count; i++)
            n->leaving.index[i] = log_last(shard_log(n->shards[i]));
    }
    if (!limits_stored(n))
        return;
    n->leaving.site = 0;
    if (!limits_hold(n, site))
        return; /* not written, or the disk was full: from the beginning */
    key_site(key + 1, site);
    key_site(key + 5, n->settings.site);
    mp_array(&value, n->settings.shard_count);
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        uint64_t seq = 0;
        (void)shard_limit(n->shards[i], site, &seq); /* there is one */
        mp_uint(&value, seq);
    }
    set_register(n, slice_of(key, sizeof key), &value, NULL, NULL);
    buf_deinit(&value);
}

/* The cut is known: it replaces the limits. */
static void take_cut(struct node *n, const struct node_member_cache *c)
{
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
    }
}

static bool have_answered(struct node *n, struct node_member_cache *c)
{
    struct answers *a = mem_calloc(1, sizeof *a);
    bool answered = load_answers(n, a, c) != 0; /* unreadable: the engine says so elsewhere */
    for (uint32_t i = 0; i < n->member_count; i++)
        answered = answered || (a->from[i] && n->members[i].m.site == n->settings.site);
    mem_free(a);
    return answered;
}

void node_leaves_step(struct node *n)
{
    if (n->needs_snapshot || n->stopping || n->broken || node_self_leaves(n))
        return;
    for (uint32_t i = 0; i < n->member_count; i++) {
        struct node_member_cache *c = &n->members[i];
        bool turn = n->leaving.site == 0 || n->leaving.site == c->m.site;
        if (c->m.status == MEMBER_REMOVED && n->leaving.site == 0 && n->leaving.open == 0)
            take_cut(n, c);
        else if (c->m.status == MEMBER_LEAVING && turn && !have_answered(n, c))
            answer(n, c->m.site);
    }
}
