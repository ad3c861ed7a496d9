/* Entering: who has heard of whom. A member is let in by any one other, so for a while some know
 * of it and others do not. Each says, in a register of the root, whom it knows:
 *
 *   K site   [member ...]: the site knows that these have entered (some may have left since)
 *
 * once after each change of its list, ahead of its turn like all notices (shard_notice.c), and
 * behind the entries themselves in its journal. Who lets somebody in says it for him in the same
 * operation: he begins with its snapshot. Who has to be counted follows from it (quorum.h). A site
 * by itself says nothing. */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/member_codec.h"
#include "site/node_int.h"

/* ---- who knows whom ---- */

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
    c->knows = 0;
    for (uint32_t i = 0; i < n->member_count; i++)
        for (uint32_t j = 0; j < k.count; j++)
            if (k.sites[j] == n->members[i].m.site)
                c->knows |= (uint64_t)1 << i;
    return true;
}

static uint64_t all_of(const struct node *n)
{
    return n->member_count == 64 ? UINT64_MAX : ((uint64_t)1 << n->member_count) - 1;
}

int node_entries_load(struct node *n)
{
    int rc = node_notices(n, REG_KNOWS, load_known, n);
    const struct node_member_cache *self = node_member_find(n, n->settings.site);
    n->entering.owed = self != NULL && n->member_count > 1 && self->knows != all_of(n);
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

static void add_leaves(struct op_builder *b, site_id_t site)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct buf value = {0};
    member_key(REG_LEAVES, site, key);
    leaves_encode(LEAVES_AWAY, &value);
    node_root_add(b, slice_of(key, sizeof key), &value);
    buf_deinit(&value);
}

/* That `from` knows all who are known here, and itself. */
static void add_knows(const struct node *n, struct op_builder *b, site_id_t from)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct buf value = {0};
    struct known_members k = {.from = from};
    for (uint32_t i = 0; i < n->member_count; i++)
        k.sites[k.count++] = n->members[i].m.site;
    if (node_member_find(n, from) == NULL && k.count < SITE_COUNT_MAX)
        k.sites[k.count++] = from;
    member_key(REG_KNOWS, from, key);
    knows_encode(&k, &value);
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

void node_entries_step(struct node *n)
{
    struct op_builder b = {0};
    if (n->needs_snapshot || n->stopping || n->broken || n->members_stale || node_self_leaves(n) ||
        !n->entering.owed || n->entering.busy)
        return;
    n->entering.busy = true;
    add_knows(n, &b, n->settings.site);
    node_root_propose(n, &b, said, n);
    op_builder_deinit(&b);
}

/* ---- entering ---- */

static void add_entry(const struct node *n, struct op_builder *b, const struct member *m)
{
    add_member(b, m);
    if (node_member_find(n, m->site) == NULL)
        add_knows(n, b, m->site);
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
    node_members_fresh(n);
    add_entry(n, &b, m);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

void node_member_bring(struct node *n,
                       const struct member *m,
                       void (*done)(void *ctx, int rc),
                       void *ctx)
{
    struct op_builder b = {0};
    log_info(LOG_SITE, "member_brought", "name=%s site=%08x", m->name, m->site);
    add_member(&b, m);
    add_leaves(&b, m->site);
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
    struct member m = {.site = 0};
    node_members_fresh(n);
    for (uint32_t i = 0; i < n->member_count; i++) {
        const struct member *k = &n->members[i].m;
        if (memcmp(k->cert_sha256, cert_sha256, sizeof k->cert_sha256) != 0)
            continue;
        if (m.site == 0 || k->told_hlc > m.told_hlc)
            m = *k;
        if (k->status == MEMBER_IS && k->site != after)
            add_leaves(&b, k->site);
    }
    if (m.site == 0 || node_self_leaves(n)) {
        op_builder_deinit(&b);
        done(ctx, m.site == 0 ? ERR_NOT_FOUND : ERR_INVALID);
        return;
    }
    if (node_member_find(n, before) == NULL) {
        m.site = before;
        add_member(&b, &m);
        add_leaves(&b, before);
    }
    m.site = after;
    log_info(LOG_SITE, "member_returns", "name=%s before=%08x site=%08x", m.name, before, after);
    add_entry(n, &b, &m);
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
        ret[i] = (struct quorum_member){
            .site = c->m.site, .reached = self, .leaves = c->m.status == MEMBER_LEAVING};
        for (uint32_t k = 0; k < count; k++)
            ret[i].knows |= (uint64_t)(self || (c->knows >> place[k] & 1) != 0) << k;
    }
    return count;
}
