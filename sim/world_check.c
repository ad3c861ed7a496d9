/* Checkers that look at a world from outside: shape (P6), availability (P3), equal trees (P4),
 * every version accounted for (P2, P5). */
#include <stdio.h>
#include <string.h>

#include "sim/away.h"
#include "sim/opens.h"
#include "sim/operator.h"
#include "sim/tree.h"
#include "sim/world_int.h"
#include "site/call.h"

#define LARGE_LOOKS 4u
#define CYCLE_LOOKS 8u              /* the search for cycles is at every eighth look */
#define BROKEN_NS (5 * NS_PER_SEC)  /* a node whose state is broken ends after so long */
#define HELD_NS (2 * NS_PER_SEC)    /* what was refused is sent twice a second */
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

bool world_can_read(const struct world *w, unsigned site)
{
    for (unsigned s = 0; s < w->config.shards; s++)
        if (state_health(shard_state(node_shard(w->sites[site].node, (shard_id_t)s))) != 0)
            return false;
    return true;
}

/* A state that could not be read shows nothing from then on; but its node must end soon. */
bool world_may_look(struct world *w, unsigned site)
{
    if (!process_serves(&w->sites[site]))
        return false;
    if (world_can_read(w, site)) {
        w->broken_ns[site] = 0;
        return true;
    }
    if (w->broken_ns[site] == 0)
        w->broken_ns[site] = sched->now_ns;
    if (sched->now_ns - w->broken_ns[site] > BROKEN_NS)
        world_fail(w, "P3", "site %s cannot read its state and goes on all the same",
                   w->config.sites[site].name);
    return false;
}

uint64_t world_parts(const struct world *w, unsigned site)
{
    uint64_t count = 0;
    for (unsigned s = 0; s < w->config.shards; s++)
        count += shard_outbox_count(node_shard(w->sites[site].node, (shard_id_t)s));
    return count;
}

static bool disk_bad_lately(const struct world *w, unsigned site)
{
    return disk_is_bad(w->sites[site].machine.disk) ||
           (w->disk_bad_ns[site] > 0 && sched->now_ns - w->disk_bad_ns[site] < HELD_NS);
}

bool world_parts_held(const struct world *w, unsigned site)
{
    return disk_bad_lately(w, site) && world_parts(w, site) > 0;
}

/* A directory that moves has its new name before it loses the old one (P1), a message between
 * shards later: not at two looks in a row, unless a shard without room refuses its part. */
static void check_shape(struct world *w, unsigned site, char what[200])
{
    struct oid twice;
    bool bad = disk_bad_lately(w, site);
    if (!tree_shape(w->sites[site].node, what, &twice))
        world_fail(w, "P6", "site %s: %s", w->config.sites[site].name, what);
    if (!oid_is_none(twice) &&
        (world_parts(w, site) == 0 || (!bad && oid_equal(w->twice[site], twice))))
        world_fail(w, "P6", "site %s: %s: this directory is in two places",
                   w->config.sites[site].name, what);
    w->twice[site] = twice;
    if (!oid_is_none(twice))
        w->walked[site] = 0; /* looked at again, moved or not */
}

static void check_now(struct world *w, char what[200])
{
    watch_now(w);
    for (unsigned i = 0; i < w->config.site_count; i++)
        rules_clock(w, i);
    /* Large worlds, which do not keep their history either, are walked once a second. */
    bool walks = w->config.model || w->settling || w->looks % LARGE_LOOKS == 0;
    for (unsigned i = 0; i < w->config.site_count && walks; i++)
        if (world_may_look(w, i) && tree_moved(w, i))
            check_shape(w, i, what);
    bool all = w->looks++ % CYCLE_LOOKS == 0 || w->settling;
    for (unsigned i = 0; i < w->config.site_count && all; i++)
        if (world_may_look(w, i) && tree_has_cycle(w->sites[i].node, w->config.shards, what))
            world_fail(w, "P6", "site %s: %s", w->config.sites[i].name, what);
    for (unsigned i = 0; i < w->mount_count; i++) {
        struct mount *m = &w->mounts[i];
        unsigned site = m->process->machine.site;
        if (m->joined && m->open_count > 0 && world_may_look(w, site) && !opens_check(m, what))
            world_fail(w, "P2", "mount %u at %s: %s", i, w->config.sites[site].name, what);
        /* What another shard's disk has no room for waits until it has. */
        uint64_t waits = MIN(mount_waits_ns(m), sched->now_ns - w->disk_bad_ns[site]);
        if (m->process->node != NULL && m->joined && waits > ANSWER_NS && !w->removed[site])
            world_fail(w, "P3", "mount %u at %s waits for call %u (%llu) since %.1f s", i,
                       w->config.sites[site].name, m->type, (unsigned long long)m->req.number,
                       (double)waits / 1e9);
        if (m->failure[0] != '\0')
            world_fail(w, "P1", "mount %u: %s", i, m->failure);
    }
}

void world_check_now(struct world *w)
{
    char what[200] = "";
    disk_calm = true;
    check_now(w, what);
    disk_calm = false;
}

/* What is still on its way at a site, or NULL. */
static const char *shard_unrest(struct shard *s)
{
    return state_health(shard_state(s)) != 0 ? "cannot read its state"
           : !shard_idle(s)                  ? "writes"
           : shard_outbox_count(s) > 0       ? "has messages between shards"
           : shard_waiting_count(s) > 0      ? "has operations that wait for others"
           : merge_owes(shard_merge(s))      ? "owes repairs"
                                             : NULL;
}

bool world_removals_over(const struct world *w, struct node *n)
{
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->removed[i] && w->joined[i] && !node_left(n, w->ids[i]))
            return false;
    return true;
}

static const char *site_unrest(struct world *w, unsigned site)
{
    struct node *n = w->sites[site].node;
    const char *why = n == NULL                    ? "is down"
                      : node_needs_snapshot(n)     ? "has no snapshot yet"
                      : !world_removals_over(w, n) ? "waits for a removal to end"
                                                   : NULL;
    for (unsigned s = 0; why == NULL && s < w->config.shards; s++)
        why = shard_unrest(node_shard(n, (shard_id_t)s));
    for (unsigned i = 0; why == NULL && i < w->mount_count; i++)
        if (w->mounts[i].busy && w->mounts[i].process->machine.site == site)
            why = "has not answered a mount";
    for (unsigned i = 0; why == NULL && i < w->mount_count; i++)
        if (conn_ahead_any(&w->mounts[i].ahead.kept) && w->mounts[i].process->machine.site == site)
            why = "has not told a mount that what it did is durable";
    return why;
}

const char *world_unrest(struct world *w, unsigned *ret_site)
{
    struct vv first[SHARD_COUNT_MAX], vvs[SHARD_COUNT_MAX];
    bool have = false;
    *ret_site = 0;
    if (!errands_done(w))
        return "the operator is not done";
    const char *away = away_unrest(w, ret_site);
    if (away != NULL)
        return away;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        if (!world_counts(w, i))
            continue;
        *ret_site = i;
        const char *why = site_unrest(w, i);
        if (why != NULL)
            return why;
        node_vvs(w->sites[i].node, have ? vvs : first);
        for (unsigned s = 0; have && s < w->config.shards; s++)
            if (!vv_covers(&vvs[s], &first[s]) || !vv_covers(&first[s], &vvs[s]))
                return "has not the same operations as the first";
        have = true;
    }
    return NULL;
}

bool world_quiescent(struct world *w)
{
    unsigned site;
    return world_unrest(w, &site) == NULL;
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
    /* From the word in which they differ, behind the path. */
    size_t word = at;
    while (word > start && a[word - 1] != ' ' && a[word - 1] != '\n')
        word--;
    (void)snprintf(out, 240, "\"%.*s: %.*s\" and \"%.*s: %.*s\"",
                   (int)MIN(strcspn(a + start, " \n"), 60u), a + start,
                   (int)MIN(strcspn(a + word, "\n"), 48u), a + word,
                   (int)MIN(strcspn(b + start, " \n"), 60u), b + start,
                   (int)MIN(strcspn(b + word, "\n"), 48u), b + word); /* cut */
}

static void check_equal(struct world *w)
{
    char *first = NULL, why[240];
    unsigned at = 0;
    for (unsigned i = 0; i < w->config.site_count; i++) {
        char *text = world_counts(w, i) ? world_tree_text(w, i) : NULL;
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

static void content_found(void *ctx, struct oid oid, const struct content *content)
{
    struct world *w = ctx;
    struct ledger_entry *e = ledger_get(&w->ledger, ledger_number(&w->ledger, content));
    (void)oid;
    if (e != NULL)
        e->found = true;
}

static void check_ledger(struct world *w)
{
    struct node *n = NULL;
    for (unsigned i = 0; i < w->config.site_count && n == NULL; i++)
        n = world_counts(w, i) ? w->sites[i].node : NULL;
    for (size_t i = 0; i < w->ledger.count; i++)
        w->ledger.at[i].found = false;
    tree_contents(n, content_found, w);
    for (size_t i = 0; i < w->ledger.count; i++) {
        const struct ledger_entry *e = &w->ledger.at[i];
        bool here = merge_seen(shard_merge(node_shard(n, e->version.shard)), e->version.shard,
                               e->version.site) >= e->version.seq;
        if (!e->acked || e->given_up || e->found || (!world_counts(w, e->site) && !here))
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
    w->model_asked = watch_model(w, &said);
    if (w->model_asked) {
        tree_oids(w->sites[0].node, &shown);
        buf_append(&said, "", 1);
        buf_append(&shown, "", 1);
        if (strcmp((const char *)said.ptr, (const char *)shown.ptr) != 0) {
            difference((const char *)said.ptr, (const char *)shown.ptr, why);
            world_fail(w, "model", "the reference model and the sites show %s", why);
        }
        rules_rights(w);
    }
    buf_deinit(&said);
    buf_deinit(&shown);
}

static void check_private(struct world *w)
{
    char what[200];
    for (unsigned i = 0; i < w->config.site_count; i++)
        for (unsigned k = 0; k < w->mount_count && world_counts(w, i); k++)
            if (world_counts(w, w->mounts[k].process->machine.site) &&
                !private_check(&w->mounts[k], w->sites[i].node, what))
                world_fail(w, "P2", "site %s: %s", w->config.sites[i].name, what);
}

/* What those who wrote have been told holds without the ones that are left broken. */
void world_check_core(struct world *w)
{
    world_check_now(w);
    disk_calm = true;
    check_equal(w);
    if (w->failure[0] == '\0')
        check_ledger(w);
    if (w->failure[0] == '\0')
        check_private(w);
    disk_calm = false;
}

static void check_final(struct world *w)
{
    check_equal(w);
    away_check(w);
    if (w->failure[0] == '\0')
        check_ledger(w);
    if (w->failure[0] == '\0')
        check_private(w);
    if (w->failure[0] == '\0')
        check_model(w);
    if (w->failure[0] == '\0')
        watch_final(w);
    if (w->failure[0] == '\0')
        world_check_conflicts(w);
}

void world_check_final(struct world *w)
{
    bool anybody = false;
    world_check_now(w);
    for (unsigned i = 0; i < w->config.site_count; i++)
        anybody |= world_counts(w, i);
    if (!anybody) /* the last one was lost: there is nothing to look at */
        return;
    disk_calm = true;
    check_final(w);
    disk_calm = false;
    if (w->failure[0] == '\0')
        world_read_all(w);
    if (w->failure[0] == '\0')
        world_check_lag(w);
    if (w->failure[0] == '\0' && w->config.space)
        world_check_space(w);
}
