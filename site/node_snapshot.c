/* Snapshots: a consistent cut of all shards for a new site, and starting from one.
 *
 * The cut: in one turn of the loop all shards freeze their states (so messages between shards are
 * either applied or still in an outbox); each is written down, and an iterator of the store taken
 * at that moment keeps exactly this view. Pages are read from the iterators by another thread.
 *
 * Pages: snapshot_page.h. What is only the sender's business (stored results, orphans, what peers
 * acknowledged) stays out; its cursors go in: the state holds all they cover. Behind the state go
 * those operations in it that some member may lack, so that the new site can pass them on should
 * the sender be lost (W12). They are in the sender's journal until the new site's stream begins,
 * because that is a member already; and in the new site's journal they keep only what is behind
 * them, so not the state, for a member that is away.
 *
 * The receiver writes pages through its journals, and is marked as joining until these have all of
 * it on disk, so that a crash in between leaves a site that starts over; and so it does when
 * another first page comes. */
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
    site_id_t to;
    unsigned shard_count, ready, at;
    uint64_t index[SHARD_COUNT_MAX];
    struct state_iter *iters[SHARD_COUNT_MAX];
    bool header_sent;
    unsigned past_at;               /* whose past goes next; shard_count: all went */
    uint64_t past[SHARD_COUNT_MAX]; /* the record that goes next, up to index */
    uint32_t past_done;             /* operations of that one went */
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
    node_retention(n);
    for (unsigned i = 0; i < snap->shard_count; i++) {
        uint64_t lacked =
            snap->to != 0 ? node_retain_lacked(n, snap->to, (shard_id_t)i) : UINT64_MAX;
        snap->past[i] = PLANTED(45) ? UINT64_MAX : MAX(lacked, log_first(shard_log(n->shards[i])));
        shard_snapshot(n->shards[i], one_ready, snap);
    }
}

void node_snapshot_begin(struct node *n,
                         site_id_t to,
                         void (*ready)(void *ctx, int rc, struct node_snapshot *s),
                         void *ctx)
{
    struct node_snapshot *snap = mem_calloc(1, sizeof *snap);
    snap->n = n;
    snap->to = to;
    snap->shard_count = n->settings.shard_count;
    snap->cb = ready;
    snap->ctx = ctx;
    snap->retry.fire = try_cut;
    loop_timer_start(n->loop, &snap->retry, loop_now_ns(n->loop));
}

/* ---- sending ---- */

struct past_page {
    struct node_snapshot *s;
    size_t bytes_max;
    struct buf ops;
    uint32_t count;
    uint64_t index; /* the record that is looked at, */
    uint32_t at;    /* and which of its operations */
};

static bool past_add(void *ctx, const struct feed_item *item)
{
    struct past_page *p = ctx;
    struct node_snapshot *s = p->s;
    uint64_t *next = &s->past[s->past_at];
    if (item->index > s->index[s->past_at])
        return false;
    if (item->index != p->index)
        p->at = 0;
    p->index = item->index;
    if (p->at++ < s->past_done && item->index == *next)
        return true; /* it went with the page before */
    if (p->count == PAGE_PAIRS_MAX || (p->count > 0 && p->ops.len + item->op.len > p->bytes_max))
        return false;
    if (item->index != *next)
        s->past_done = 0;
    *next = item->index;
    s->past_done++;
    mp_uint(&p->ops, item->commit_hlc);
    mp_bin(&p->ops, item->op);
    p->count++;
    return true;
}

static bool past_is_over(struct node_snapshot *s)
{
    while (s->past_at < s->shard_count && s->past[s->past_at] > s->index[s->past_at])
        s->past_at++;
    return s->past_at == s->shard_count;
}

/* A piece of the journal, however little of it are operations: nothing is added when none is. */
static int past_page(struct node_snapshot *s, size_t bytes_max, struct buf *out)
{
    struct past_page p = {.s = s, .bytes_max = bytes_max};
    uint64_t *next = &s->past[s->past_at], from = *next, to = from;
    int rc = node_feed_read(s->n, (shard_id_t)s->past_at, from, bytes_max, past_add, &p, &to);
    if (rc == 0 && to == from && p.count == 0)
        rc = ERR_CORRUPT; /* what is durable can be read */
    if (to > *next) {
        *next = to;
        s->past_done = 0;
    }
    if (rc == 0 && p.count > 0)
        snapshot_past_encode(s->past_at, p.count, buf_slice(&p.ops), out);
    buf_deinit(&p.ops);
    return rc;
}

static int pairs_page(struct node_snapshot *s, size_t bytes_max, struct buf *out)
{
    struct buf pairs = {0};
    struct slice key, value;
    uint32_t count = 0;
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
    buf_deinit(&pairs);
    return 0;
}

int node_snapshot_next_page(struct node_snapshot *s,
                            size_t bytes_max,
                            struct buf *out,
                            bool *ret_done)
{
    int rc = 0;
    *ret_done = false;
    if (!s->header_sent)
        snapshot_header_encode(s->index, s->shard_count, out);
    else if (s->at < s->shard_count)
        rc = pairs_page(s, bytes_max, out);
    else if (!past_is_over(s))
        rc = past_page(s, bytes_max, out);
    s->header_sent = true;
    if (rc == 0)
        *ret_done = s->at >= s->shard_count && past_is_over(s);
    return rc;
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

/* After the old shards were removed: new ones, which nobody has looked at. */
static int shards_make(struct node *n, struct err_detail *d)
{
    node_members_free(n);
    node_bring_close(n);
    node_upkeep_close(n); /* after an adoption they hold the old keys */
    int rc = node_open_shards(n, d);
    if (rc == 0)
        rc = node_upkeep_open(n);
    if (rc == 0)
        rc = node_bring_open(n);
    if (rc == 0)
        node_feed_publish(n);
    return rc;
}

static bool shards_may_close(struct node *n)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (!shard_can_freeze(n->shards[i]))
            return false;
    return true;
}

/* What an attempt that broke off has left is not of the cut that comes now: pairs may be gone from
 * it, and the journals' stamps would fall. */
static int load_begin(struct node *n, const struct snapshot_page *p, struct err_detail *d)
{
    bool used = false;
    int rc = 0;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        used = used || log_last(shard_log(n->shards[i])) > 0;
    if (used && !shards_may_close(n))
        return ERR_AGAIN;
    if (used) {
        rc = node_wipe_shards(n);
        if (rc == 0)
            rc = shards_make(n, d);
        if (rc != 0)
            node_fail(n, rc, d != NULL && d->text[0] != '\0' ? d->text : "cannot join");
    }
    memcpy(n->snapshot_index, p->index, sizeof n->snapshot_index);
    memset(n->snapshot_past, 0, sizeof n->snapshot_past);
    return rc;
}

/* Operations that were committed together become one record. */
static int load_past(struct node *n, const struct snapshot_page *p)
{
    struct slice *ops = mem_calloc(p->count + 1, sizeof *ops);
    uint64_t *last = &n->snapshot_past[p->shard];
    int rc = p->count > 0 && p->past[0].commit_hlc < *last ? ERR_MALFORMED : 0;
    for (uint32_t i = 0, first = 0; i < p->count && rc == 0; i++) {
        ops[i] = p->past[i].op;
        *last = p->past[i].commit_hlc;
        if (i + 1 < p->count && p->past[i + 1].commit_hlc == *last)
            continue;
        rc = shard_past_load(n->shards[p->shard], *last, &ops[first], i + 1 - first);
        first = i + 1;
    }
    mem_free(ops);
    return rc;
}

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
    if (rc == 0) {
        switch (p.kind) {
        case PAGE_HEADER:
            rc = load_begin(n, &p, d);
            break;
        case PAGE_PAST:
            rc = load_past(n, &p);
            break;
        case PAGE_PAIRS:
            rc = shard_snapshot_load(n->shards[p.shard], p.pairs, p.count);
            break;
        }
    }
    snapshot_page_deinit(&p);
    if (rc != 0 && d != NULL && d->text[0] == '\0')
        err_detail_set(d, "a page of the snapshot cannot be used: %s", err_text(rc));
    return rc;
}

static void commit_end(struct node *n, int rc, const char *what)
{
    void (*done)(void *ctx, int rc, const struct err_detail *d) = n->snapshot_commit.done;
    struct err_detail d = {{0}};
    if (rc != 0)
        err_detail_set(&d, "%s: %s", what, err_text(rc));
    n->snapshot_commit.done = NULL;
    done(n->snapshot_commit.ctx, rc, &d);
}

static bool commit_goes_on(const struct node *n)
{
    return n->snapshot_commit.done != NULL && !n->stopping && !n->broken;
}

/* All of it is on disk: a start finds it whole, or, while the file is there, begins it anew. */
static void commit_finish(struct loop_defer *defer)
{
    struct node *n = CONTAINER_OF(defer, struct node, snapshot_commit.defer);
    int rc = 0;
    if (!commit_goes_on(n))
        return;
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++)
        rc = shard_reload(n->shards[i]);
    if (rc == 0)
        rc = node_members_load(n);
    if (rc != 0) { /* some shards have the new state and some have not */
        node_fail(n, rc, "the snapshot cannot be taken over");
        return;
    }
    rc = dir_file_remove(n->dir, "joining");
    if (rc != 0) { /* or it may be gone, and another attempt would begin without it */
        node_fail(n, rc, "the file joining cannot be removed");
        return;
    }
    n->needs_snapshot = false;
    node_retention(n);
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        shard_resend(n->shards[i]);
    node_repairs_later(n);
    node_feed_publish(n);
    node_bring_again(n); /* names came; of what is in chunks nothing did */
    commit_end(n, 0, NULL);
}

/* The journals are waited for one after the other; nothing else is appended meanwhile. */
static void commit_step(struct shard_wait *w)
{
    struct node *n = CONTAINER_OF(w, struct node, snapshot_commit.wait);
    unsigned *at = &n->snapshot_commit.at;
    if (!commit_goes_on(n))
        return;
    for (; *at < n->settings.shard_count; ++*at) {
        struct shard_durable durable;
        uint64_t last = log_last(shard_log(n->shards[*at]));
        shard_durable(n->shards[*at], &durable);
        if (durable.index < last) {
            shard_wait_durable(n->shards[*at], last, w);
            return;
        }
    }
    loop_defer(n->loop, &n->snapshot_commit.defer); /* not within a shard's own turn */
}

void node_snapshot_commit(struct node *n,
                          site_id_t from_peer,
                          void (*done)(void *ctx, int rc, const struct err_detail *d),
                          void *ctx)
{
    int rc = 0;
    ASSERT(n->snapshot_commit.done == NULL && done != NULL);
    n->snapshot_commit.done = done;
    n->snapshot_commit.ctx = ctx;
    n->snapshot_commit.at = 0;
    n->snapshot_commit.wait.run = commit_step;
    n->snapshot_commit.defer.run = commit_finish;
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++) {
        /* The stream goes on where the snapshot ends. */
        struct shard_part part = {.commit_hlc = node_hlc_stamp(n),
                                  .peer = from_peer,
                                  .cursor = n->snapshot_index[i] + 1 + PLANTED(31)};
        rc = shard_remote(n->shards[i], &part);
    }
    if (rc != 0)
        commit_end(n, rc, "the snapshot cannot be taken over");
    else
        commit_step(&n->snapshot_commit.wait);
}

/* Before the shards are closed, which makes durable what is waited for. */
static void commit_drop(struct node *n)
{
    if (n->snapshot_commit.done == NULL)
        return;
    loop_undefer(n->loop, &n->snapshot_commit.defer);
    commit_end(n, ERR_AGAIN, "what came of the snapshot is removed");
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
    commit_drop(n);
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
    if (!shards_may_close(n))
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
    if (rc == 0)
        rc = shards_make(n, d);
    if (rc != 0)
        node_fail(n, rc, d != NULL && d->text[0] != '\0' ? d->text : "cannot join");
    return rc;
}
