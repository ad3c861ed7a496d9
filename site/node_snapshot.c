/* Snapshots: a consistent cut of all shards for a new site, and starting from one.
 *
 * The cut: in one turn of the loop all shards freeze their states (so messages between shards are
 * either applied or still in an outbox); each is written down, and an iterator of the store taken
 * at that moment keeps exactly this view. Pages are read from the iterators by another thread.
 *
 * Pages: snapshot_page.h. What is only the sender's business (stored results, orphans, what peers
 * acknowledged) stays out; its cursors go in: the state holds all they cover.
 *
 * The receiver writes pages through its journals, so that a crash in between leaves a site that is
 * still marked as joining, and starts over. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/node_int.h"
#include "site/settings.h"
#include "site/snapshot_page.h"

#define RETRY_NS (10u * NS_PER_MS)

struct node_snapshot {
    struct node *n;
    unsigned shard_count, ready, at;
    uint64_t index[SHARD_COUNT_MAX];
    struct state_iter *iters[SHARD_COUNT_MAX];
    bool header_sent;
    void (*cb)(void *ctx, int rc, struct node_snapshot *s);
    void *ctx;
    struct loop_timer retry;
};

static void one_ready(void *ctx, struct shard *s, struct state_iter *it, uint64_t index)
{
    struct node_snapshot *snap = ctx;
    snap->iters[shard_id(s)] = it;
    snap->index[shard_id(s)] = index;
    if (++snap->ready == snap->shard_count)
        snap->cb(snap->ctx, 0, snap);
}

static void try_cut(struct loop_timer *t)
{
    struct node_snapshot *snap = CONTAINER_OF(t, struct node_snapshot, retry);
    struct node *n = snap->n;
    if (n->stopping || n->needs_snapshot) {
        snap->cb(snap->ctx, n->stopping ? ERR_CLOSED : ERR_AGAIN, NULL);
        mem_free(snap);
        return;
    }
    bool all = true;
    for (unsigned i = 0; i < snap->shard_count; i++)
        all = all && shard_can_freeze(n->shards[i]);
    if (!all) {
        loop_timer_start(n->loop, t, loop_now_ns(n->loop) + RETRY_NS);
        return;
    }
    for (unsigned i = 0; i < snap->shard_count; i++)
        shard_snapshot(n->shards[i], one_ready, snap);
}

void node_snapshot_begin(struct node *n,
                         void (*ready)(void *ctx, int rc, struct node_snapshot *s),
                         void *ctx)
{
    struct node_snapshot *snap = mem_calloc(1, sizeof *snap);
    snap->n = n;
    snap->shard_count = n->settings.shard_count;
    snap->cb = ready;
    snap->ctx = ctx;
    snap->retry.fire = try_cut;
    loop_timer_start(n->loop, &snap->retry, loop_now_ns(n->loop));
}

int node_snapshot_next_page(struct node_snapshot *s,
                            size_t bytes_max,
                            struct buf *out,
                            bool *ret_done)
{
    struct buf pairs = {0};
    struct slice key, value;
    uint32_t count = 0;
    *ret_done = false;
    if (!s->header_sent) {
        snapshot_header_encode(s->index, s->shard_count, out);
        s->header_sent = true;
        return 0;
    }
    while (s->at < s->shard_count && pairs.len < bytes_max && count < PAGE_PAIRS_MAX) {
        if (s->iters[s->at] == NULL || !state_iter_at(s->iters[s->at], &key, &value)) {
            int rc = state_iter_free(s->iters[s->at]);
            s->iters[s->at] = NULL;
            if (rc != 0) {
                buf_deinit(&pairs);
                return rc;
            }
            if (count > 0)
                break; /* a page is of one shard */
            s->at++;
            continue;
        }
        if (snapshot_travels(key) && !(PLANTED(22) && count == 3)) {
            mp_bin(&pairs, key);
            mp_bin(&pairs, value);
            count++;
        }
        state_iter_next(s->iters[s->at]);
    }
    if (count > 0)
        snapshot_pairs_encode(s->at, count, buf_slice(&pairs), out);
    *ret_done = s->at >= s->shard_count;
    buf_deinit(&pairs);
    return 0;
}

void node_snapshot_free(struct node_snapshot *s)
{
    if (s == NULL)
        return;
    for (unsigned i = 0; i < s->shard_count; i++)
        (void)state_iter_free(s->iters[i]); /* nobody reads on: an error has no one to tell */
    mem_free(s);
}

/* ---- receiving ---- */

int node_snapshot_load(struct node *n, struct slice page, struct err_detail *d)
{
    struct snapshot_page p = {.pairs = NULL};
    unsigned shards = 0;
    if (!n->needs_snapshot)
        return ERR_EXISTS;
    int rc = snapshot_page_decode(page, n->settings.shard_count, &p, &shards);
    if (rc == ERR_CONFIG)
        err_detail_set(d, "the snapshot has %u shards, this site has %u", shards,
                       n->settings.shard_count);
    if (rc == 0 && p.kind == PAGE_HEADER)
        memcpy(n->snapshot_index, p.index, sizeof n->snapshot_index);
    else if (rc == 0)
        rc = shard_snapshot_load(n->shards[p.shard], p.pairs, p.count);
    snapshot_page_deinit(&p);
    if (rc != 0 && d != NULL && d->text[0] == '\0')
        err_detail_set(d, "a page of the snapshot cannot be used: %s", err_text(rc));
    return rc;
}

int node_snapshot_commit(struct node *n, site_id_t from_peer, struct err_detail *d)
{
    int rc = 0;
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++) {
        /* The stream goes on where the snapshot ends. */
        struct shard_part part = {.commit_hlc = node_hlc_stamp(n),
                                  .peer = from_peer,
                                  .cursor = n->snapshot_index[i] + 1 + PLANTED(31)};
        rc = shard_remote(n->shards[i], &part);
        if (rc == 0)
            rc = shard_reload(n->shards[i]);
    }
    if (rc == 0)
        rc = node_members_load(n);
    if (rc != 0) {
        err_detail_set(d, "the snapshot cannot be taken over: %s", err_text(rc));
        return rc;
    }
    char *path = mem_printf("%s/joining", n->dir);
    if (unlink(path) != 0 && errno != ENOENT) {
        rc = err_from_errno(errno);
        err_detail_set(d, "cannot remove %s: %s", path, strerror(errno));
    }
    mem_free(path);
    n->needs_snapshot = rc != 0;
    node_retention(n);
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++)
        shard_resend(n->shards[i]);
    node_repairs_later(n);
    node_feed_publish(n);
    return rc;
}

bool node_is_empty(struct node *n)
{
    struct dir_view v;
    if (n->member_count > 1 || node_session_count(n) > 0)
        return false;
    if (merge_dir(shard_merge(n->shards[0]), OID_ROOT, &v) != 0)
        return false;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct vv vv;
        merge_vv(shard_merge(n->shards[i]), &vv);
        /* Nothing but making the root and entering ourselves as a member. */
        if (vv.count > 1 || (vv.count == 1 && (i != 0 || vv.at[0].seq > 8)))
            return false;
    }
    return merge_dir_empty(shard_merge(n->shards[0]), OID_ROOT);
}

static int site_wipe_shards(const char *dir)
{
    int rc = 0;
    for (unsigned i = 0; i < SHARD_COUNT_MAX && rc == 0; i++) {
        char *path = mem_printf("%s/shard-%u", dir, i);
        rc = dir_remove(path);
        mem_free(path);
    }
    return rc;
}

int site_wipe(const char *dir)
{
    char *path = mem_printf("%s/coordinator", dir);
    int rc = site_wipe_shards(dir);
    if (rc == 0)
        rc = dir_remove(path);
    mem_free(path);
    return rc;
}

int node_wipe_shards(struct node *n)
{
    node_retain_forget(n);
    node_close_shards(n);
    return site_wipe_shards(n->dir);
}

/* What DIR/joining says: the file system to be joined. Empty: its key is there already. */
enum {
    JOINING_BYTES = 32 + 2 /* key, shards */
};

static unsigned joining_shards(const uint8_t joining[JOINING_BYTES])
{
    return joining[32] | (unsigned)joining[33] << 8;
}

/* The key and the number of shards, as DIR/joining says; written again at each start until the
 * snapshot is committed, because a crash may have come before either. */
static int joining_put(struct node *n, const uint8_t joining[JOINING_BYTES], struct err_detail *d)
{
    struct site_settings s = n->settings;
    s.shard_count = joining_shards(joining);
    int rc = dir_file_write(n->dir, "fs.key", joining, 32, d);
    return rc == 0 ? site_settings_save(n->dir, &s, d) : rc;
}

static void joining_use(struct node *n, const uint8_t joining[JOINING_BYTES])
{
    n->settings.shard_count = joining_shards(joining);
    memcpy(n->fs_key, joining, sizeof n->fs_key);
    fs_keys_derive(n->fs_key, &n->keys);
}

int node_join_again(struct node *n, struct err_detail *d)
{
    uint8_t joining[JOINING_BYTES];
    struct stat st;
    char *path = mem_printf("%s/joining", n->dir);
    int rc = stat(path, &st) == 0 ? 0 : err_from_errno(errno);
    if (rc != 0)
        err_detail_set(d, "cannot read %s: %s", path, strerror(errno));
    mem_free(path);
    if (rc == 0 && st.st_size > 0) {
        rc = dir_file_read(n->dir, "joining", joining, sizeof joining, d);
        unsigned shards = rc == 0 ? joining_shards(joining) : 1;
        if (shards == 0 || shards > SHARD_COUNT_MAX) {
            err_detail_set(d, "%s/joining is damaged: it tells of %u shards: make the site anew",
                           n->dir, shards);
            rc = ERR_CORRUPT;
        }
        if (rc == 0)
            rc = joining_put(n, joining, d);
        if (rc == 0)
            joining_use(n, joining);
        explicit_bzero(joining, sizeof joining);
    }
    return rc == 0 ? node_wipe_shards(n) : rc;
}

/* From when DIR/joining is there whole, the site joins: what fails after that fails for good in
 * this process, and the next start goes on. Nothing may be created here in between: it would be
 * wiped then. */
static int joining_write(struct node *n, const uint8_t joining[JOINING_BYTES], struct err_detail *d)
{
    int rc = dir_file_write(n->dir, "joining", joining, JOINING_BYTES, d);
    if (rc != 0 && !n->needs_snapshot && dir_file_remove(n->dir, "joining") != 0)
        node_fail(n, rc, "cannot join, and cannot take that back");
    return rc;
}

int node_adopt(struct node *n, const uint8_t fs_key[32], unsigned shard_count, struct err_detail *d)
{
    uint8_t joining[JOINING_BYTES];
    if (!n->needs_snapshot && !node_is_empty(n)) {
        err_detail_set(d, "this site holds files of its own or is mounted: only an empty site can "
                          "join: create a new one with claudefs site create, or unmount");
        return ERR_NOT_EMPTY;
    }
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (!shard_can_freeze(n->shards[i]))
            return ERR_AGAIN;
    memcpy(joining, fs_key, 32);
    joining[32] = (uint8_t)shard_count;
    joining[33] = (uint8_t)(shard_count >> 8);
    int rc = joining_write(n, joining, d);
    if (rc != 0) {
        explicit_bzero(joining, sizeof joining);
        return rc;
    }
    n->needs_snapshot = true;
    rc = joining_put(n, joining, d);
    if (rc != 0) {
        explicit_bzero(joining, sizeof joining);
        node_fail(n, rc, d != NULL && d->text[0] != '\0' ? d->text : "cannot join");
        return rc;
    }
    rc = node_wipe_shards(n); /* as many as there were */
    joining_use(n, joining);
    explicit_bzero(joining, sizeof joining);
    node_members_free(n);
    node_upkeep_close(n); /* it holds the old keys */
    if (rc == 0)
        rc = node_open_shards(n, d);
    if (rc == 0)
        rc = node_upkeep_open(n);
    if (rc == 0)
        node_feed_publish(n);
    else
        node_fail(n, rc, d != NULL && d->text[0] != '\0' ? d->text : "cannot join");
    return rc;
}
