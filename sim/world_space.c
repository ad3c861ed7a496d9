/* What is no longer needed goes away: looked at when all sites have converged, the mounts have
 * gone, and time has passed. Journals, messages between shards, dead records of the state, chunks.
 */
#include <string.h>

#include "base/assert.h"
#include "data/store.h"
#include "sim/operator.h"
#include "sim/world_int.h"
#include "site/call.h"

#define QUIET_NS                                                                                   \
    (120 * NS_PER_SEC) /* sessions end, states are written down, words are exchanged               \
                        */
#define SESSIONS_NS (30 * NS_PER_SEC)
#define GARBAGE_PASSES 4u
#define ORPHANS_MAX 256u
#define CONTENTS_AT_A_TIME 256u
#define SLACK_BYTES (64u * KIB) /* log_bytes_from() tells up to so many too many */
#define YOUNG_NS (60 * NS_PER_SEC)
#define SHARDS_MAX 16u

/* The last record of each journal a minute before the end. */
struct journals {
    uint64_t last[WORLD_SITES_MAX][SHARDS_MAX];
};

/* A site that is lost and not removed may come back: with what only it has, so that no garbage pass
 * ends while a content cannot be walked, and for what it lacks. */
static bool somebody_is_missed(const struct world *w)
{
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (w->sites[i].lost && !w->removed[i])
            return true;
    return false;
}

/* A journal keeps what came since the state was written down, which a quiet site does twice a
 * minute (CHECKPOINT_TICKS), however much that is: where journals are kept for seconds (`away`,
 * `short`) members exchange their words every second or two, each in a block of its own, and make
 * 100 to 280 KiB between two of these moments. So it is only what is a minute old that must have
 * gone, but for the rest of the segment in which the young begins; before, all of a journal was
 * counted. */
static void check_shard(struct world *w, unsigned site, unsigned s, uint64_t old)
{
    struct shard *shard = node_shard(w->sites[site].node, (shard_id_t)s);
    struct log *log = shard_log(shard);
    const char *name = w->config.sites[site].name;
    if (shard_outbox_count(shard) > 0 || shard_waiting_count(shard) > 0)
        world_fail(w, "space", "site %s, shard %u: %llu messages and %llu operations wait", name, s,
                   (unsigned long long)shard_outbox_count(shard),
                   (unsigned long long)shard_waiting_count(shard));
    if (somebody_is_missed(w))
        return; /* it may come back, and needs what there is */
    uint64_t segment = w->config.sites[site].segment_bytes;
    uint64_t first = log_first(log);
    uint64_t bytes = first > old ? 0 : log_bytes_from(log, first) - log_bytes_from(log, old + 1);
    if (bytes > 2 * segment + SLACK_BYTES)
        world_fail(w, "space", "site %s, shard %u: %llu bytes of a journal that nobody lacks", name,
                   s, (unsigned long long)bytes);
}

/* Records that only wait to be dropped: dead files, and directory moves of the past. */
static void check_dead(struct world *w, unsigned site, unsigned s)
{
    static const uint8_t kinds[] = {'z', 'm'};
    struct state *st = shard_state(node_shard(w->sites[site].node, (shard_id_t)s));
    uint64_t count = 0;
    for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++) {
        struct state_scan it;
        state_scan_begin(st, &it, slice_of(&kinds[k], 1), slice_of(NULL, 0));
        /* A directory may wait for a stable point that others ask for. */
        while (state_scan_next(&it))
            count += kinds[k] == 'm' || it.key.len != 25 || it.key.ptr[11] != OID_DIR;
        state_scan_end(&it);
    }
    if (count > 0)
        world_fail(w, "space", "site %s, shard %u: %llu dead records stay",
                   w->config.sites[site].name, s, (unsigned long long)count);
}

struct needed { /* chunks */
    const struct large *large;
    struct id_map ids;
};

static bool need(void *ctx, struct oid oid, const struct content *c)
{
    struct needed *n = ctx;
    const struct large_row *row =
        c->kind == CONTENT_MANIFEST ? large_find(n->large, c->root) : NULL;
    (void)oid;
    for (size_t i = 0; row != NULL && i < row->ids.count; i++)
        id_map_set(&n->ids, &row->ids.at[i], 1);
    return true;
}

/* Also of versions that nobody is shown and a deleter knew: they stay as long as their file (rule
 * 3), so it is the engine that says what there is. */
static void need_shard(struct shard *s, struct needed *n)
{
    struct buf cursor = {0};
    do {
        if (merge_contents(shard_merge(s), &cursor, CONTENTS_AT_A_TIME, need, n) != 0)
            break; /* said elsewhere */
    } while (cursor.len > 0);
    buf_deinit(&cursor);
}

/* Contents without a name go with the last mount that had the file open. */
static void check_orphans(struct world *w, unsigned site, unsigned s)
{
    struct oid oids[ORPHANS_MAX];
    uint32_t count = node_open_orphans(w->sites[site].node, (shard_id_t)s, NULL, oids, ORPHANS_MAX);
    if (count > 0)
        world_fail(w, "space", "site %s, shard %u: %u contents without a name stay, and no mount",
                   w->config.sites[site].name, s, count);
}

static void check_chunks(struct world *w, unsigned site)
{
    struct needed n = {.large = &w->ledger.large};
    struct store_stats st;
    for (unsigned s = 0; s < w->config.shards; s++)
        need_shard(node_shard(w->sites[site].node, (shard_id_t)s), &n);
    node_store_stats(w->sites[site].node, &st);
    if (st.chunks > n.ids.count)
        world_fail(w, "space", "site %s keeps %llu chunks and needs %zu",
                   w->config.sites[site].name, (unsigned long long)st.chunks, n.ids.count);
    id_map_deinit(&n.ids);
}

static void made(struct call *c, int rc)
{
    (void)c;
    (void)rc; /* another site may have done it: it is gone all the same */
}

static void wait_for(struct world *w, uint64_t ns)
{
    uint64_t until = sched->now_ns + ns;
    while (w->failure[0] == '\0' && sched_step(until))
        continue;
}

/* What a mount held open when it was looked at stays until something else dies: a file does. */
static void let_something_die(struct world *w)
{
    static const enum rpc_type types[] = {RPC_CREATE, RPC_UNLINK};
    unsigned i = 0;
    while (!world_counts(w, i))
        i++;
    for (unsigned k = 0; k < ARRAY_COUNT(types) && process_serves(&w->sites[i]); k++) {
        const struct fs_request q = {
            .oid = OID_ROOT, .name = slice_str("space"), .kind = OID_FILE, .mode = 0600};
        node_issue(w->sites[i].node, types[k], &q, made, NULL);
        loop_kick(node_loop(w->sites[i].node));
        wait_for(w, NS_PER_SEC);
    }
}

static void journals_note(struct world *w, struct journals *j)
{
    memset(j, 0, sizeof *j);
    ASSERT(w->config.shards <= SHARDS_MAX);
    for (unsigned i = 0; i < w->config.site_count; i++)
        for (unsigned s = 0; s < w->config.shards && w->sites[i].node != NULL; s++)
            j->last[i][s] = log_durable(shard_log(node_shard(w->sites[i].node, (shard_id_t)s)));
}

void world_check_space(struct world *w)
{
    struct journals j;
    uint64_t wait = QUIET_NS;
    for (unsigned i = 0; i < w->mount_count; i++)
        mount_leave(&w->mounts[i]);
    for (unsigned i = 0; i < w->config.site_count; i++) {
        if (!world_counts(w, i))
            continue;
        wait = MAX(wait, QUIET_NS + GARBAGE_PASSES * w->config.sites[i].garbage_ns);
    }
    wait_for(w, SESSIONS_NS);
    let_something_die(w);
    wait_for(w, wait - YOUNG_NS);
    journals_note(w, &j);
    wait_for(w, YOUNG_NS);
    for (unsigned i = 0; i < w->config.site_count && w->failure[0] == '\0'; i++)
        if (world_counts(w, i) && !process_serves(&w->sites[i]))
            world_fail(w, "P3", "site %s is down in the end", w->config.sites[i].name);
    disk_calm = true;
    for (unsigned i = 0; i < w->config.site_count && w->failure[0] == '\0'; i++) {
        for (unsigned s = 0; s < w->config.shards && world_counts(w, i); s++) {
            check_shard(w, i, s, j.last[i][s]);
            check_orphans(w, i, s);
            if (!somebody_is_missed(w))
                check_dead(w, i, s);
        }
        if (world_counts(w, i) && !somebody_is_missed(w) && w->config.no_versions &&
            w->config.sites[i].garbage_ns > 0)
            check_chunks(w, i);
    }
    disk_calm = false;
}
