/* Checkers that look at a world from outside: shape (P6), availability (P3), equal trees (P4),
 * every version accounted for (P2, P5). */
#include <stdio.h>
#include <string.h>

#include "sim/tree.h"
#include "sim/world_int.h"
#include "site/call.h"

#define LARGE_LOOKS 4u
#define CYCLE_LOOKS 8u              /* the search for cycles is at every eighth look */
#define ANSWER_NS (20 * NS_PER_SEC) /* a call at a site that is up: P3 */

/* What is shown changes only with a record, or when an operation that had waited is applied. */
static bool tree_moved(struct world *w, unsigned site)
{
    uint64_t now = 1;
    for (unsigned s = 0; s < w->config.shards; s++) {
        struct shard *shard = node_shard(w->sites[site].node, (shard_id_t)s);
        now += (log_last(shard_log(shard)) << 20) + shard_waiting_count(shard);
    }
    bool moved = w->walked[site] != now;
    w->walked[site] = now;
    return moved;
}

void world_check_now(struct world *w)
{
    char what[200] = "";
    watch_now(w);
    /* Large worlds, which do not keep their history either, are walked once a second. */
    bool walks = w->config.model || w->settling || w->looks % LARGE_LOOKS == 0;
    for (unsigned i = 0; i < w->config.site_count && walks; i++)
        if (w->sites[i].node != NULL && tree_moved(w, i) &&
            !tree_walk(w->sites[i].node, NULL, what))
            world_fail(w, "P6", "site %s: %s", w->config.sites[i].name, what);
    bool all = w->looks++ % CYCLE_LOOKS == 0 || w->settling;
    for (unsigned i = 0; i < w->config.site_count && all; i++)
        if (w->sites[i].node != NULL && tree_has_cycle(w->sites[i].node, w->config.shards, what))
            world_fail(w, "P6", "site %s: %s", w->config.sites[i].name, what);
    for (unsigned i = 0; i < w->mount_count; i++) {
        const struct mount *m = &w->mounts[i];
        if (m->process->node != NULL && m->joined && mount_waits_ns(m) > ANSWER_NS)
            world_fail(w, "P3", "mount %u at %s waits for call %u (%llu) since %.1f s", i,
                       w->config.sites[m->process->machine.site].name, m->type,
                       (unsigned long long)m->req.number, (double)mount_waits_ns(m) / 1e9);
        if (m->failure[0] != '\0')
            world_fail(w, "P1", "mount %u: %s", i, m->failure);
    }
}

static bool node_quiet(struct world *w, struct node *n)
{
    for (unsigned s = 0; s < w->config.shards; s++) {
        struct shard *shard = node_shard(n, (shard_id_t)s);
        if (!shard_idle(shard) || shard_outbox_count(shard) > 0 || shard_waiting_count(shard) > 0 ||
            merge_owes(shard_merge(shard)))
            return false;
    }
    return true;
}

bool world_quiescent(struct world *w)
{
    struct vv first[SHARD_COUNT_MAX], vvs[SHARD_COUNT_MAX];
    bool have = false;
    for (unsigned i = 0; i < w->mount_count; i++)
        if (w->mounts[i].busy && !w->mounts[i].process->lost)
            return false;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        struct process *p = &w->sites[i];
        if (p->lost)
            continue;
        if (p->node == NULL || node_needs_snapshot(p->node) || !node_quiet(w, p->node))
            return false;
        node_vvs(p->node, have ? vvs : first);
        for (unsigned s = 0; have && s < w->config.shards; s++)
            if (!vv_covers(&vvs[s], &first[s]) || !vv_covers(&first[s], &vvs[s]))
                return false;
        have = true;
    }
    return true;
}

/* The first line in which two trees differ. */
static void difference(const char *a, const char *b, char out[240])
{
    size_t at = 0, start = 0;
    while (a[at] != '\0' && a[at] == b[at]) {
        if (a[at] == '\n')
            start = at + 1;
        at++;
    }
    (void)snprintf(out, 240, "\"%.*s\" and \"%.*s\"", (int)MIN(strcspn(a + start, "\n"), 110u),
                   a + start, (int)MIN(strcspn(b + start, "\n"), 110u), b + start); /* cut */
}

static void check_equal(struct world *w)
{
    char *first = NULL, why[240];
    unsigned at = 0;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        char *text = w->sites[i].lost ? NULL : world_tree_text(w, i);
        if (text == NULL)
            continue;
        if (first == NULL) {
            first = text;
            at = i;
            continue;
        }
        if (strcmp(first, text) != 0) {
            difference(first, text, why);
            world_fail(w, "P4", "sites %s and %s show %s", w->config.sites[at].name,
                       w->config.sites[i].name, why);
        }
        mem_free(text);
    }
    mem_free(first);
}

static void content_found(void *ctx, struct oid oid, struct slice content)
{
    struct world *w = ctx;
    struct ledger_entry *e = ledger_get(&w->ledger, ledger_number(content));
    (void)oid;
    if (e != NULL)
        e->found = true;
}

static void check_ledger(struct world *w)
{
    struct node *n = NULL;
    for (unsigned i = 0; i < w->config.site_count && n == NULL; i++)
        n = w->sites[i].node;
    tree_contents(n, content_found, w);
    for (size_t i = 0; i < w->ledger.count; i++) {
        const struct ledger_entry *e = &w->ledger.at[i];
        bool here = merge_seen(shard_merge(node_shard(n, e->version.shard)), e->version.shard,
                               e->version.site) >= e->version.seq;
        if (!e->acked || e->given_up || e->found || (w->sites[e->site].lost && !here))
            continue;
        char oid[OID_TEXT_LEN + 1];
        oid_to_text(e->oid, oid);
        world_fail(w, here ? "P5" : "P2",
                   "content %zu, written at %s to %s and acknowledged, is nowhere, though nobody "
                   "who knew of it replaced or deleted it",
                   i + 1, w->config.sites[e->site].name, oid);
    }
}

static void check_model(struct world *w)
{
    struct buf said = {0}, shown = {0};
    char why[240];
    if (watch_model(w, &said)) {
        tree_oids(w->sites[0].node, &shown);
        buf_append(&said, "", 1);
        buf_append(&shown, "", 1);
        if (strcmp((const char *)said.ptr, (const char *)shown.ptr) != 0) {
            difference((const char *)said.ptr, (const char *)shown.ptr, why);
            world_fail(w, "model", "the reference model and the sites show %s", why);
        }
    }
    buf_deinit(&said);
    buf_deinit(&shown);
}

static void check_private(struct world *w)
{
    char what[200];
    for (unsigned i = 0; i < w->config.site_count; i++)
        for (unsigned k = 0; k < w->mount_count && w->sites[i].node != NULL; k++)
            if (!w->mounts[k].process->lost &&
                !private_check(&w->mounts[k], w->sites[i].node, what))
                world_fail(w, "P2", "site %s: %s", w->config.sites[i].name, what);
}

void world_check_final(struct world *w)
{
    world_check_now(w);
    check_equal(w);
    if (w->failure[0] == '\0')
        check_ledger(w);
    if (w->failure[0] == '\0')
        check_private(w);
    if (w->failure[0] == '\0')
        check_model(w);
    if (w->failure[0] == '\0')
        watch_final(w);
}
