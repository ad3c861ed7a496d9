/* A node of a site: opening, running, stopping. See node.h. */
#include "site/node.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "site/node_int.h"
#include "site/settings.h"

#define RING_ENTRIES 1024u
#define POOL_THREADS 3u
#define TICK_NS (500u * NS_PER_MS)
#define CHECKPOINT_BYTES (32u * MIB)
#define SHARD_CACHE_BYTES (16u * MIB)
#define GARBAGE_NS (600u * NS_PER_SEC)
#define CHECKPOINT_TICKS 60u
#define COLLECT_TICKS 4u

struct shard *node_shard(struct node *n, shard_id_t id)
{
    ASSERT(id < n->settings.shard_count);
    return n->shards[id];
}

struct shard *shard_of(struct node *n, struct oid oid)
{
    return n->shards[oid_shard(oid) % n->settings.shard_count];
}

site_id_t node_site(const struct node *n)
{
    return n->settings.site;
}
const uint8_t *node_oid_key(const struct node *n)
{
    return n->keys.name;
}
int64_t node_wall_ns(const struct node *n)
{
    return (int64_t)clock_wall_ns(n->clock);
}
struct loop *node_loop(struct node *n)
{
    return n->loop;
}
const struct site_settings *node_settings(const struct node *n)
{
    return &n->settings;
}
const uint8_t *node_fs_key(const struct node *n)
{
    return n->fs_key;
}
const char *node_dir(const struct node *n)
{
    return n->dir;
}
bool node_needs_snapshot(struct node *n)
{
    return n->needs_snapshot;
}

void node_fail(struct node *n, int rc, const char *what)
{
    if (n->exit_rc == 0) {
        n->exit_rc = rc;
        err_detail_set(&n->exit_detail, "%s", what);
        log_error(LOG_SITE, "node_failed", "error=%s why=\"%s\"", err_name(rc), what);
    }
    n->broken = true;
    loop_stop(n->loop);
}

/* ---- what the shards tell ---- */

static int on_deliver(void *ctx, const struct shard_message *m)
{
    struct node *n = ctx;
    int rc = m->to < n->settings.shard_count ? shard_receive(n->shards[m->to], m) : ERR_MALFORMED;
    if (rc != 0 && rc != ERR_FATAL) /* it is held; the tick sends it again */
        log_warn(LOG_SITE, "message_not_written", "from=%u to=%u why=\"%s\"", m->from, m->to,
                 err_text(rc));
    return rc;
}

static void on_whole(void *ctx)
{
    struct node *n = ctx;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        shard_commit(n->shards[i]);
}

static void on_delivered(void *ctx, shard_id_t from, shard_id_t to, uint64_t number)
{
    struct node *n = ctx;
    if (from < n->settings.shard_count)
        shard_delivered(n->shards[from], to, number);
}

static bool on_applied(void *ctx, struct dot d)
{
    struct node *n = ctx;
    return d.shard >= n->settings.shard_count || n->shards[d.shard] == NULL ||
           merge_seen(shard_merge(n->shards[d.shard]), d.shard, d.site) >= d.seq;
}

static void on_behalf(void *ctx, void *call)
{
    struct node *n = ctx;
    n->inval_call = call;
}

static void on_name(void *ctx, struct oid parent, struct slice name)
{
    node_inval_name(ctx, parent, name);
}

static void on_object(void *ctx, struct oid oid, bool content)
{
    node_inval_object(ctx, oid, content);
}

static void on_register(void *ctx, struct oid oid)
{
    if (oid_is_root(oid))
        node_members_touched(ctx);
    if (oid_is_dir(oid))
        node_bring_look(ctx, oid); /* it may be its policy */
}

static void on_conflict(void *ctx, const struct conflict *c)
{
    (void)ctx;
    log_info(LOG_SITE, "conflict", "rule=%u name=\"%.*s\" winner=%08x loser=%08x", c->rule,
             (int)c->name.len, (const char *)c->name.ptr, c->winner, c->loser);
}

static void on_moved(void *ctx, shard_id_t shard)
{
    node_feed_counts(ctx, shard);
    node_feed_moved(ctx);
    node_repairs_later(ctx); /* what was delivered may make one due */
    node_settle_later(ctx);
}

static void on_failed(void *ctx, shard_id_t shard, int rc, const char *what)
{
    char *text = mem_printf("shard %u: %s", shard, what);
    node_fail(ctx, rc, text);
    mem_free(text);
}

static void site_name_cb(void *ctx, site_id_t site, char out[33])
{
    char name[160];
    node_site_name(ctx, site, name);
    memcpy(out, name, 33);
}

/* ---- time ---- */

static void tick(struct loop_timer *t)
{
    struct node *n = CONTAINER_OF(t, struct node, tick);
    n->tick_count++;
    if (n->stopping || n->broken) /* then there may be no shards any more */
        return;
    if (n->wants_reopen && n->tick_count > n->reopen_tick) {
        loop_stop(n->loop);
        return;
    }
    node_repairs_later(n);
    node_sessions_tick(n);
    if (n->tick_count % 4 == 0) {
        node_retention(n);
        node_away_tick(n);
    }
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        shard_check(n->shards[i]);
        shard_resend(n->shards[i]);
        if ((n->tick_count + i) % CHECKPOINT_TICKS == 0)
            shard_checkpoint(n->shards[i], true);
    }
    node_inval_flush(n, NULL); /* what was sent again has changed */
    node_past_tick(n);
    node_gc_tick(n);
    node_bring_tick(n);
    node_garbage_tick(n);
    node_leaves_step(n);
    node_entries_step(n);
    node_return_tick(n);
    if (n->tick_count % COLLECT_TICKS == 0) {
        (void)node_collect(n); /* the rest with the next tick */
        node_stable_tick(n, false);
    }
    node_feed_moved(n);
    loop_timer_start(n->loop, &n->tick, loop_now_ns(n->loop) + TICK_NS);
}

/* ---- opening ---- */

static int lock_dir(struct node *n, struct err_detail *d)
{
    char *path = mem_printf("%s/lock", n->dir);
    int rc = 0;
    n->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (n->lock_fd < 0) {
        rc = err_from_errno(errno);
        err_detail_set(d, "cannot open %s: %s", path, strerror(errno));
    } else if (flock(n->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        rc = ERR_BUSY;
        err_detail_set(d, "%s is in use: another claudefs serve runs on it: stop that one first",
                       n->dir);
    }
    mem_free(path);
    return rc;
}

static int load_keys(struct node *n, struct err_detail *d)
{
    int rc = site_settings_load(n->dir, &n->settings, d);
    if (rc == 0)
        rc = dir_file_read(n->dir, "fs.key", n->fs_key, sizeof n->fs_key, d);
    if (rc == 0)
        rc = dir_file_read(n->dir, "site.key", n->auth.site_key, sizeof n->auth.site_key, d);
    if (rc == 0) {
        fs_keys_derive(n->fs_key, &n->keys);
        n->auth.trusted_network = n->settings.trusted_network;
        char *path = mem_printf("%s/joining", n->dir);
        n->needs_snapshot = access(path, F_OK) == 0;
        mem_free(path);
    }
    return rc;
}

int node_open_shards(struct node *n, struct err_detail *d)
{
    parts_free(n->parts);
    n->parts = parts_new();
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct shard_config sc = {.dir = n->dir,
                                  .id = (shard_id_t)i,
                                  .shard_count = n->settings.shard_count,
                                  .site = n->settings.site,
                                  .hlc = &n->hlc,
                                  .clock = n->clock,
                                  .loop = n->loop,
                                  .pool = n->pool,
                                  .coordinator = n->coordinator,
                                  .parts = n->parts,
                                  .cache_bytes = SHARD_CACHE_BYTES,
                                  .segment_bytes = n->segment_bytes,
                                  .checkpoint_bytes = n->checkpoint_bytes,
                                  .events = {.deliver = on_deliver,
                                             .delivered = on_delivered,
                                             .whole = on_whole,
                                             .applied = on_applied,
                                             .on_behalf = on_behalf,
                                             .name_changed = on_name,
                                             .object_changed = on_object,
                                             .register_changed = on_register,
                                             .conflict = on_conflict,
                                             .moved = on_moved,
                                             .failed = on_failed,
                                             .ctx = n},
                                  .site_name = site_name_cb,
                                  .name_ctx = n};
        int rc = shard_open(&n->shards[i], &sc, d);
        if (rc != 0)
            return rc;
    }
    int rc = shards_cut(n->shards, n->settings.shard_count, d);
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++) {
        rc = shard_start(n->shards[i], d);
        if (rc == 0)
            node_feed_counts(n, (shard_id_t)i);
        if (rc == 0 && i == 0)
            rc = node_members_load(n); /* their names are asked for in replay */
    }
    return rc == 0 ? node_members_load(n) : rc; /* who has left is told by all shards */
}

void node_close_shards(struct node *n)
{
    unsigned count = MIN(n->settings.shard_count, SHARD_COUNT_MAX);
    for (unsigned i = 0; i < count; i++)
        shard_finish(n->shards[i]);
    for (unsigned i = 0; i < count; i++) {
        shard_close(n->shards[i]);
        n->shards[i] = NULL;
    }
}

/* A new file system has a root that everybody may look at and root may write. */
static int make_root(struct node *n)
{
    struct dir_view v;
    struct perm p = {.mode = 0755};
    struct buf value = {0};
    uint8_t key = REG_PERM;
    struct reg reg;
    int rc = merge_dir(shard_merge(n->shards[0]), OID_ROOT, &v);
    if (rc != 0 && rc != ERR_NOT_FOUND)
        return rc;
    rc = merge_reg(shard_merge(n->shards[0]), OID_ROOT, slice_of(&key, 1), &reg);
    if ((rc != ERR_NOT_FOUND && rc != ERR_NO_DATA) || n->needs_snapshot)
        return rc == ERR_NOT_FOUND || rc == ERR_NO_DATA ? 0 : rc;
    struct op_builder b = {0};
    struct proposal none = {0};
    op_builder_init(&b);
    perm_encode(&p, &value);
    struct effect *e = op_builder_add(&b, EFFECT_SET, OID_ROOT);
    e->set.key = slice_of(&key, 1);
    e->set.value = buf_slice(&value);
    e->set.present = true;
    rc = shard_propose(n->shards[0], &b, &none, NULL);
    op_builder_deinit(&b);
    buf_deinit(&value);
    return rc;
}

static int listen_all(struct node *n, struct err_detail *d)
{
    struct rpc_server_events ev;
    node_rpc_events(n, &ev);
    int rc = rpc_server_new(&n->server, n->loop, &n->auth, &ev);
    char *path = mem_printf("%s/sock", n->dir);
    if (rc == 0)
        rc = rpc_server_listen_unix(n->server, path, d);
    mem_free(path);
    if (rc == 0 && n->settings.listen[0] != '\0') {
        char host[128];
        const char *colon = strrchr(n->settings.listen, ':');
        size_t len = (size_t)(colon - n->settings.listen);
        memcpy(host, n->settings.listen, len);
        host[len] = '\0';
        unsigned port = 0;
        for (const char *p = colon + 1; *p != '\0'; p++)
            port = port * 10 + (unsigned)(*p - '0');
        rc = rpc_server_listen_tcp(n->server, host, (uint16_t)port, NULL, d);
    }
    return rc;
}

int node_open(struct node **ret, const struct node_config *config, struct err_detail *d)
{
    struct node *n = mem_calloc(1, sizeof *n);
    n->dir = mem_strdup(config->dir);
    n->clock = config->clock;
    n->segment_bytes = config->journal_segment_bytes;
    n->checkpoint_bytes =
        config->checkpoint_bytes != 0 ? config->checkpoint_bytes : CHECKPOINT_BYTES;
    n->garbage_ns = config->garbage_ns != 0 ? config->garbage_ns : GARBAGE_NS;
    n->lock_fd = -1;
    node_feed_init(n);
    node_calls_init(n);
    n->repair_defer.run = node_repairs_run;
    node_settle_init(n);
    n->tick.fire = tick;
    int rc = load_keys(n, d);
    if (rc == 0)
        rc = lock_dir(n, d);
    if (rc == 0)
        rc = loop_new(&n->loop, RING_ENTRIES, n->clock, d);
    if (rc == 0)
        rc = pool_new(&n->pool, POOL_THREADS);
    if (rc == 0)
        rc = coordinator_open_local(&n->coordinator, n->dir, d);
    if (rc == 0)
        rc = n->needs_snapshot ? node_join_again(n, d) : 0;
    if (rc == 0)
        rc = node_open_shards(n, d);
    if (rc == 0)
        rc = node_store_open(n, d);
    if (rc == 0)
        rc = make_root(n);
    if (rc == 0)
        rc = node_return_open(n, d);
    if (rc != 0) {
        if (d != NULL && d->text[0] == '\0')
            err_detail_set(d, "cannot open %s: %s", config->dir, err_text(rc));
        node_free(n);
        return rc;
    }
    *ret = n;
    return 0;
}

/* ---- running ---- */

int node_start(struct node *n, struct err_detail *d)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        shard_resend(n->shards[i]);
    node_leaves_step(n); /* before anybody looks: some of the cuts' records may have been lost */
    node_sessions_start(n);
    n->retain.most_since_ns = loop_now_ns(n->loop);
    node_retention(n);
    node_repairs_later(n);
    node_feed_publish(n);
    loop_timer_start(n->loop, &n->tick, loop_now_ns(n->loop) + TICK_NS);
    return listen_all(n, d);
}

int node_run(struct node *n)
{
    n->running = true;
    loop_run(n->loop);
    n->running = false;
    n->stopping = true;
    return n->exit_rc;
}

const char *node_exit_detail(const struct node *n)
{
    return n->exit_detail.text;
}

void node_stop(struct node *n)
{
    loop_stop(n->loop);
}

struct hlc_seen {
    struct loop_msg msg;
    struct node *n;
    uint64_t hlc;
};

static void hlc_seen_run(struct loop_msg *msg)
{
    struct hlc_seen *h = CONTAINER_OF(msg, struct hlc_seen, msg);
    hlc_see(&h->n->hlc, h->hlc);
    mem_free(h);
}

void node_hlc_see(struct node *n, uint64_t hlc)
{
    struct hlc_seen *h = mem_calloc(1, sizeof *h);
    h->msg.run = hlc_seen_run;
    h->n = n;
    h->hlc = hlc;
    loop_post(n->loop, &h->msg);
}

uint64_t node_hlc_now(struct node *n)
{
    struct feed_state f;
    node_feed_state(n, &f);
    return MAX(f.safe_hlc, hlc_from_wall(clock_wall_ns(n->clock)));
}

static void store_closed(void *ctx)
{
    struct node *n = ctx;
    n->store = NULL;
    loop_stop(n->loop);
}

static void server_stopped(void *ctx)
{
    struct node *n = ctx;
    if (n->store != NULL)
        store_close(n->store, store_closed, n);
    else
        loop_stop(n->loop);
}

struct last_post {
    struct loop_msg msg;
    struct loop *loop;
};

static void last_post_run(struct loop_msg *msg)
{
    loop_stop(CONTAINER_OF(msg, struct last_post, msg)->loop);
}

/* Runs what other threads have posted, the pool's last results among it. */
static void drain_posts(struct node *n)
{
    struct last_post last = {.msg = {.run = last_post_run}, .loop = n->loop};
    loop_post(n->loop, &last.msg);
    loop_run(n->loop);
}

static bool all_idle(const struct node *n)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (n->shards[i] != NULL && !n->broken && !shard_idle(n->shards[i]))
            return false;
    return true;
}

void node_close(struct node *n)
{
    if (n == NULL || n->closed)
        return;
    n->closed = true;
    n->stopping = true;
    if (n->loop != NULL) {
        loop_timer_stop(n->loop, &n->tick);
        /* Two-phase closes need the loop once more. */
        if (n->server != NULL || n->store != NULL) {
            if (n->server != NULL)
                rpc_server_stop(n->server, server_stopped, n);
            else
                store_close(n->store, store_closed, n);
            loop_run(n->loop);
        }
        rpc_server_free(n->server);
        n->server = NULL;
    }
    while (n->loop != NULL && !all_idle(n))
        drain_posts(n); /* what was appended becomes durable, and is delivered */
    for (unsigned i = 0; i < n->settings.shard_count && i < SHARD_COUNT_MAX; i++)
        if (n->shards[i] != NULL)
            shard_stop(n->shards[i]);
    pool_free(n->pool); /* finishes what is being written down */
    n->pool = NULL;
    if (n->loop != NULL)
        drain_posts(n);
}

void node_free(struct node *n)
{
    if (n == NULL)
        return;
    node_close(n);
    node_close_shards(n);
    parts_free(n->parts);
    node_return_close(n);
    node_chunks_deinit(n);
    node_calls_deinit(n);
    node_members_free(n);
    node_retain_forget(n);
    coordinator_close(n->coordinator);
    loop_free(n->loop);
    node_feed_deinit(n);
    if (n->lock_fd >= 0)
        close(n->lock_fd);
    fs_keys_wipe(&n->keys);
    mem_free(n->dir);
    mem_free(n);
}
