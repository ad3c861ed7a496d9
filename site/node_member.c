/* Members of the federation: registers of the root directory, so they travel in the stream like
 * everything else; the higher stamp wins. Their form: member_codec.h. Who leaves: node_leave.c. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "site/member_codec.h"
#include "site/node_int.h"

struct node_member_cache *node_member_find(const struct node *n, site_id_t site)
{
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == site)
            return &n->members[i];
    return NULL;
}

bool node_same_site(const struct member *a, const struct member *b)
{
    return memcmp(a->cert_sha256, b->cert_sha256, sizeof a->cert_sha256) == 0;
}

static struct node_member_cache *place_for(struct node *n, site_id_t site)
{
    struct node_member_cache *c = node_member_find(n, site);
    if (c != NULL)
        return c;
    if (n->member_count == SITE_COUNT_MAX)
        return NULL;
    n->members = mem_realloc(n->members, (n->member_count + 1) * sizeof n->members[0]);
    n->members[n->member_count] = (struct node_member_cache){0};
    return &n->members[n->member_count++];
}

static bool load_one(void *ctx, const struct reg *r)
{
    struct node *n = ctx;
    struct member m;
    if (!member_decode(r, &m))
        return true; /* a register of a newer version: not a member we can talk to */
    struct node_member_cache *c = place_for(n, m.site);
    if (c == NULL || (c->cert_text != NULL && stamp_cmp(r->stamp, c->entered) <= 0))
        return true;
    mem_free(c->cert_text);
    *c = (struct node_member_cache){.m = m, .entered = r->stamp};
    c->m.told_hlc = r->stamp.hlc;
    c->cert_text = mem_calloc(1, m.cert.len + 1);
    memcpy(c->cert_text, m.cert.ptr, m.cert.len);
    c->m.cert = slice_of(c->cert_text, m.cert.len);
    return true;
}

void node_members_free(struct node *n)
{
    for (uint32_t i = 0; i < n->member_count; i++) {
        mem_free(n->members[i].cert_text);
        mem_free(n->members[i].cut);
    }
    mem_free(n->members);
    n->members = NULL;
    n->member_count = 0;
}

int node_notices(struct node *n,
                 uint8_t key_class,
                 bool (*fn)(void *ctx, const struct reg *r),
                 void *ctx)
{
    int rc = merge_regs(shard_merge(n->shards[0]), OID_ROOT, key_class, fn, ctx);
    return rc != 0 ? rc : shard_notices_each(n->shards[0], key_class, fn, ctx);
}

int node_members_load(struct node *n)
{
    node_members_free(n);
    n->members_stale = false;
    n->notices = shard_notices(n->shards[0]);
    int rc = node_notices(n, REG_MEMBER, load_one, n);
    if (rc == 0)
        rc = node_leaves_load(n);
    if (rc == 0)
        rc = node_entries_load(n);
    return rc;
}

/* Called while the engine applies: it must not be called back now. */
void node_members_touched(struct node *n)
{
    n->members_stale = true;
}

void node_members_fresh(struct node *n)
{
    if (!n->members_stale && (n->shards[0] == NULL || n->notices == shard_notices(n->shards[0])))
        return;
    int rc = node_members_load(n);
    if (rc != 0) {
        node_fail(n, rc, "the list of members cannot be read");
        return;
    }
    node_retention(n); /* at once: a new member needs what nobody needed before */
    node_leaves_step(n);
    node_entries_step(n);
    if (n->members_changed != NULL)
        n->members_changed(n->members_ctx);
}

int node_members(struct node *n, bool (*fn)(void *ctx, const struct member *m), void *ctx)
{
    node_members_fresh(n);
    for (uint32_t i = 0; i < n->member_count; i++)
        if (!fn(ctx, &n->members[i].m))
            break;
    return 0;
}

void node_root_add(struct op_builder *b, struct slice key, const struct buf *value)
{
    struct effect *e = op_builder_add(b, EFFECT_SET, OID_ROOT);
    e->set.key = op_dup(&b->arena, key);
    e->set.value = op_dup(&b->arena, buf_slice(value));
    e->set.present = true;
}

void node_root_propose(struct node *n,
                       struct op_builder *b,
                       void (*done)(void *ctx, int rc),
                       void *ctx)
{
    struct proposal p = {.committed = done, .ctx = ctx};
    int rc = shard_propose(n->shards[0], b, &p, NULL);
    if (rc != 0 && done != NULL)
        done(ctx, rc);
    else if (rc != 0)
        log_warn(LOG_SITE, "notice_not_written", "why=\"%s\"", err_text(rc)); /* again later */
}

void node_root_set(struct node *n,
                   struct slice key,
                   const struct buf *value,
                   void (*done)(void *ctx, int rc),
                   void *ctx)
{
    struct op_builder b = {0};
    node_root_add(&b, key, value);
    node_root_propose(n, &b, done, ctx);
    op_builder_deinit(&b);
}

void node_members_watch(struct node *n, void (*changed)(void *ctx), void *ctx)
{
    n->members_changed = changed;
    n->members_ctx = ctx;
}

void node_site_name(struct node *n, site_id_t site, char *out)
{
    /* From the cache alone: the engine asks in the middle of its work. */
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == site) {
            memcpy(out, n->members[i].m.name, sizeof n->members[i].m.name);
            return;
        }
    if (site == n->settings.site) {
        memcpy(out, n->settings.name, sizeof n->settings.name);
        return;
    }
    (void)snprintf(out, 9, "%08x", site); /* fits */
}

struct peer_acked {
    struct loop_msg msg;
    struct node *n;
    site_id_t peer;
    uint64_t index[SHARD_COUNT_MAX];
};

static void peer_acked_run(struct loop_msg *msg)
{
    struct peer_acked *a = CONTAINER_OF(msg, struct peer_acked, msg);
    for (unsigned i = 0; i < a->n->settings.shard_count; i++)
        shard_peer_acked(a->n->shards[i], a->peer, a->index[i]);
    mem_free(a);
}

/* Any thread: the state it is kept in belongs to the loop. */
void node_peer_acked(struct node *n, site_id_t peer, const uint64_t *index_by_shard)
{
    struct peer_acked *a = mem_calloc(1, sizeof *a);
    a->msg.run = peer_acked_run;
    a->n = n;
    a->peer = peer;
    memcpy(a->index, index_by_shard, n->settings.shard_count * sizeof a->index[0]);
    loop_post(n->loop, &a->msg);
}
