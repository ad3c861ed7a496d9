/* Entering: who has heard of whom. A member is let in by any one other, so for a while some know
 * of it and others do not. Each says, in a register of the root, whom it knows:
 *
 *   K site   [[member ...], [leaver ...]]: the site knows that these have entered, and that of them
 *            these leave, or have left
 *
 * once after each change of its list, ahead of its turn like all notices (shard_notice.c), and
 * behind the entries themselves in its journal. Who lets somebody in says it for him in the same
 * operation: he begins with its snapshot. Who has to be counted follows from it (quorum.h). A site
 * by itself says nothing. Older programs say no K; but whoever has given its word (node_stable.c)
 * that it has applied an entry knows of it, too.
 *
 * A site may have entered twice: who let it in under one id did not get the answer through, and
 * somebody else let it in under another. Which of them it is it knows best, so it makes the other
 * ones leave when it hears of them. */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/member_codec.h"
#include "site/node_int.h"

/* ---- who knows whom ---- */

static uint64_t places_of(const struct node *n, const site_id_t *sites, uint32_t count)
{
    uint64_t places = 0;
    for (uint32_t i = 0; i < n->member_count; i++)
        for (uint32_t j = 0; j < count; j++)
            if (sites[j] == n->members[i].m.site)
                places |= (uint64_t)1 << i;
    return places;
}

static bool load_known(void *ctx, const struct reg *r)
{
    struct node *n = ctx;
    struct known_members k;
    struct node_member_cache *c;
    if (!knows_decode(r, &k) || (c = node_member_find(n, k.from)) == NULL)
        return true;
    if (c->has_said && stamp_cmp(r->stamp, c->said) <= 0)
        return true;
    c->has_said = true;
    c->said = r->stamp;
    c->knows = places_of(n, k.sites, k.count);
    c->gone = places_of(n, k.leavers, k.leaver_count);
    return true;
}

static uint64_t all_of(const struct node *n)
{
    return n->member_count == 64 ? UINT64_MAX : ((uint64_t)1 << n->member_count) - 1;
}

/* Another id of this very site, under which nobody works. */
static bool is_other_life(const struct node_member_cache *self, const struct member *m)
{
    return m->status == MEMBER_IS && m->site != self->m.site && node_same_site(&self->m, m);
}

static bool has_other_life(const struct node *n, const struct node_member_cache *self)
{
    for (uint32_t i = 0; i < n->member_count; i++)
        if (is_other_life(self, &n->members[i].m))
            return true;
    return false;
}

int node_entries_load(struct node *n)
{
    int rc = node_notices(n, REG_KNOWS, load_known, n);
    const struct node_member_cache *self = node_member_find(n, n->settings.site);
    n->entering.owed = self != NULL && n->member_count > 1 &&
                       (self->knows != all_of(n) || has_other_life(n, self) ||
                        self->gone != places_of(n, n->leaving.sites, n->leaving.count));
    return rc;
}

/* ---- saying it ---- */

static void add_member(struct op_builder *b, const struct member *m)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct buf value = {0};
    member_key(REG_MEMBER, m->site, key);
    member_encode(m, &value);
    node_root_add(b, slice_of(key, sizeof key), &value);
    buf_deinit(&value);
}

static void known_here(const struct node *n, site_id_t from, struct known_members *ret)
{
    *ret = (struct known_members){.from = from};
    for (uint32_t i = 0; i < n->member_count; i++)
        ret->sites[ret->count++] = n->members[i].m.site;
    for (uint32_t i = 0; i < n->leaving.count; i++)
        ret->leavers[ret->leaver_count++] = n->leaving.sites[i];
}

static void list_add(site_id_t *list, uint32_t *count, site_id_t site)
{
    for (uint32_t i = 0; i < *count; i++)
        if (list[i] == site)
            return;
    if (*count < SITE_COUNT_MAX) /* the engine refuses so many */
        list[(*count)++] = site;
}

static void add_knows(struct op_builder *b, const struct known_members *k)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct buf value = {0};
    member_key(REG_KNOWS, k->from, key);
    knows_encode(k, &value);
    node_root_add(b, slice_of(key, sizeof key), &value);
    buf_deinit(&value);
}

static void said(void *ctx, int rc)
{
    struct node *n = ctx;
    n->entering.busy = false;
    if (rc != 0) /* the next tick tries again */
        log_warn(LOG_SITE, "known_members_not_written", "why=\"%s\"", err_text(rc));
}

static void other_lives_leave(const struct node *n, struct op_builder *b, struct known_members *k)
{
    const struct node_member_cache *self = node_member_find(n, n->settings.site);
    for (uint32_t i = 0; i < n->member_count; i++) {
        const struct member *m = &n->members[i].m;
        if (!is_other_life(self, m))
            continue;
        log_info(LOG_SITE, "other_id_leaves", "name=%s site=%08x", m->name, m->site);
        node_leaves_add(b, m->site, LEAVES_AWAY);
        list_add(k->leavers, &k->leaver_count, m->site);
    }
}

void node_entries_step(struct node *n)
{
    struct op_builder b = {0};
    struct known_members k;
    if (n->needs_snapshot || n->stopping || n->broken || n->members_stale || node_self_leaves(n) ||
        !n->entering.owed || n->entering.busy)
        return;
    n->entering.busy = true;
    known_here(n, n->settings.site, &k);
    other_lives_leave(n, &b, &k);
    add_knows(&b, &k);
    node_root_propose(n, &b, said, n);
    op_builder_deinit(&b);
}

/* ---- entering ---- */

/* A new member, which will know whom `k` names, and itself. */
static void add_entry(const struct node *n,
                      struct op_builder *b,
                      const struct member *m,
                      struct known_members *k)
{
    add_member(b, m);
    if (node_member_find(n, m->site) != NULL)
        return;
    list_add(k->sites, &k->count, m->site);
    add_knows(b, k);
}

void node_member_set(struct node *n,
                     const struct member *m,
                     void (*done)(void *ctx, int rc),
                     void *ctx)
{
    struct op_builder b = {0};
    add_member(&b, m);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

void node_member_enter(struct node *n,
                       const struct member *m,
                       void (*done)(void *ctx, int rc),
                       void *ctx)
{
    struct op_builder b = {0};
    struct known_members k;
    node_members_fresh(n);
    known_here(n, m->site, &k);
    add_entry(n, &b, m, &k);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

void node_member_bring(struct node *n,
                       const struct member *m,
                       enum member_leaves why,
                       void (*done)(void *ctx, int rc),
                       void *ctx)
{
    struct op_builder b = {0};
    log_info(LOG_SITE, "member_brought", "name=%s site=%08x", m->name, m->site);
    add_member(&b, m);
    node_leaves_add(&b, m->site, why);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

void node_member_returns(struct node *n,
                         site_id_t before,
                         const uint8_t *cert_sha256,
                         site_id_t after,
                         void (*done)(void *ctx, int rc),
                         void *ctx)
{
    struct op_builder b = {0};
    struct known_members known;
    struct member m = {.site = 0};
    bool removed = false;
    node_members_fresh(n);
    known_here(n, after, &known);
    for (uint32_t i = 0; i < n->member_count; i++) {
        const struct member *k = &n->members[i].m;
        if (memcmp(k->cert_sha256, cert_sha256, sizeof k->cert_sha256) != 0)
            continue;
        removed = removed || (k->status != MEMBER_IS && k->why == LEAVES_REMOVED);
        if (m.site == 0 || k->told_hlc > m.told_hlc)
            m = *k;
        if (k->status != MEMBER_IS || k->site == after)
            continue;
        node_leaves_add(&b, k->site, LEAVES_AWAY);
        list_add(known.leavers, &known.leaver_count, k->site);
    }
    if (m.site == 0 || removed || node_self_leaves(n)) {
        op_builder_deinit(&b);
        done(ctx, m.site == 0 ? ERR_NOT_FOUND : removed ? ERR_REMOVED : ERR_INVALID);
        return;
    }
    if (node_member_find(n, before) == NULL) {
        m.site = before;
        add_member(&b, &m);
        node_leaves_add(&b, before, LEAVES_AWAY);
        list_add(known.sites, &known.count, before);
        list_add(known.leavers, &known.leaver_count, before);
    }
    m.site = after;
    log_info(LOG_SITE, "member_returns", "name=%s before=%08x site=%08x", m.name, before, after);
    add_entry(n, &b, &m, &known);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

/* ---- who is counted ---- */

uint32_t node_quorum(struct node *n, struct quorum_member ret[SITE_COUNT_MAX])
{
    uint32_t place[SITE_COUNT_MAX], count = 0;
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.status != MEMBER_REMOVED)
            place[count++] = i;
    for (uint32_t i = 0; i < count; i++) {
        const struct node_member_cache *c = &n->members[place[i]];
        bool self = c->m.site == n->settings.site;
        uint64_t seen = self ? UINT64_MAX : node_stable_seen(n, c->m.site);
        ret[i] = (struct quorum_member){
            .site = c->m.site, .reached = self, .leaves = c->m.status == MEMBER_LEAVING};
        for (uint32_t k = 0; k < count; k++) {
            bool has_seen = n->members[place[k]].entered.hlc <= seen;
            ret[i].knows |= (uint64_t)(has_seen || (c->knows >> place[k] & 1) != 0) << k;
            ret[i].gone |= (uint64_t)(self || (c->gone >> place[k] & 1) != 0) << k;
        }
    }
    return count;
}
