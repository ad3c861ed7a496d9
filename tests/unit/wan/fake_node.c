/* The in-memory node; see fake_node.h. */
#include "site/node_return.h"
#include "tests/unit/wan/fake_node.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/hlc.h"
#include "base/limits.h"
#include "tests/unit/wan/wan_test.h"

enum {
    PEERS_MAX = 8,
    MEMBERS_MAX = 8,
    WAIT_S = 60
};
struct rec {
    uint64_t hlc; /* of the commit; 0: this site's own business */
    struct dot dot;
    struct buf op;
};
struct shard {
    struct rec *recs; /* index = position + 1 */
    uint64_t count, cap, first;
    struct vv vv;
};
struct cursors {
    site_id_t peer;
    uint64_t next[FAKE_SHARDS];
    uint64_t acked[FAKE_SHARDS];
};
struct chunk {
    struct chunk *next;
    uint8_t id[32];
    struct buf bytes;
};
struct fake_member {
    struct member m;
    uint64_t hlc;
    char cert[8192];
};
struct node {
    struct loop *loop;
    pthread_t thread;
    struct clock clock;
    char *dir;
    struct site_settings settings;
    uint8_t fs_key[32];
    struct wan *wan;
    pthread_mutex_t lock;
    struct shard shards[FAKE_SHARDS];
    struct cursors cursors[PEERS_MAX];
    unsigned cursor_count;
    struct fake_member members[MEMBERS_MAX];
    unsigned member_count;
    struct chunk *chunks;
    uint64_t hlc, duplicates;
    int64_t shift_ns;
    char broken[200];
    bool needs_snapshot, stalled, members_hidden;
    struct apply_batch *stalled_batch;
    void (*feed_changed)(void *ctx);
    void *feed_ctx;
    void (*members_changed)(void *ctx);
    void *members_ctx;
    void (*fetch)(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx);
    void *fetch_ctx;
    admin_handler admin;
    void *admin_ctx;
    struct later *laters; /* under the lock */
};

/* libuv, which is not built with the thread sanitizer, closes descriptors behind its back; whatever
 * gets the same number next then looks like a race on it. wan_file.c shares nothing but numbers. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:wan_file.c\nrace:^socket$\nrace:^epoll_create1$\nrace:^epoll_ctl$\n"
           "race:^accept4$\n";
}

/* All waiting of test threads is on this pair. */
static pthread_mutex_t wake_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake_cond = PTHREAD_COND_INITIALIZER;

static void wake(void)
{
    pthread_mutex_lock(&wake_lock);
    pthread_cond_broadcast(&wake_cond);
    pthread_mutex_unlock(&wake_lock);
}

static void deadline_in(struct timespec *ts, long ms)
{
    clock_gettime(CLOCK_REALTIME, ts);
    ts->tv_nsec += ms * 1000000;
    ts->tv_sec += ts->tv_nsec / 1000000000;
    ts->tv_nsec %= 1000000000;
}

void wait_until(bool (*fn)(void *ctx), void *ctx, const char *what)
{
    struct timespec end, step;
    deadline_in(&end, WAIT_S * 1000L);
    while (!fn(ctx)) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (now.tv_sec > end.tv_sec)
            fail_msg("waited in vain: %s", what);
        /* What the WAN thread alone knows wakes nobody: look again now and then. */
        deadline_in(&step, 20);
        pthread_mutex_lock(&wake_lock);
        pthread_cond_timedwait(&wake_cond, &wake_lock, &step);
        pthread_mutex_unlock(&wake_lock);
    }
}

static uint64_t clock_mono(void *ctx)
{
    (void)ctx;
    return clock_mono_ns(&clock_os);
}

static uint64_t clock_wall(void *ctx)
{
    struct node *n = ctx;
    return clock_wall_ns(&clock_os) + (uint64_t)__atomic_load_n(&n->shift_ns, __ATOMIC_RELAXED);
}

static void broken(struct node *n, const char *what)
{
    if (n->broken[0] == '\0')
        snprintf(n->broken, sizeof n->broken, "%s", what);
}

/* --- operations; with the lock held --- */

static void rec_add(struct shard *s, uint64_t hlc, struct dot dot, struct slice op)
{
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 64 : 2 * s->cap;
        s->recs = mem_realloc(s->recs, s->cap * sizeof s->recs[0]);
    }
    struct rec *r = &s->recs[s->count++];
    *r = (struct rec){.hlc = hlc, .dot = dot};
    buf_append(&r->op, op.ptr, op.len);
}

static uint64_t hlc_tick(struct node *n)
{
    struct hlc h = {.last = n->hlc};
    n->hlc = hlc_next(&h, clock_wall_ns(&n->clock));
    return n->hlc;
}

struct head {
    struct dot dot;
    uint64_t hlc;
    struct slice body;
};

static bool head_read(struct slice op, struct head *ret)
{
    struct mp m = mp_of(op);
    if (mp_get_array(&m, 6) != 6)
        return false;
    ret->dot.shard = (shard_id_t)mp_get_uint(&m, FAKE_SHARDS - 1);
    ret->dot.site = (site_id_t)mp_get_uint(&m, UINT32_MAX);
    ret->dot.seq = mp_get_uint(&m, UINT64_MAX);
    ret->hlc = mp_get_uint(&m, UINT64_MAX);
    (void)mp_get_int(&m);
    ret->body = mp_get_bin(&m, LIMIT_OP_BYTES);
    return mp_end(&m) == 0 && ret->dot.site != 0;
}

static void member_apply(struct node *n, struct slice body, uint64_t hlc)
{
    struct mp m = mp_of(slice_of(body.ptr + 1, body.len - 1));
    struct fake_member f = {.hlc = hlc};
    mp_get_array(&m, 6);
    f.m.site = (site_id_t)mp_get_uint(&m, UINT32_MAX);
    struct slice name = mp_get_bin(&m, 32), address = mp_get_bin(&m, 127);
    struct slice fp = mp_get_bin_exact(&m, 32), cert = mp_get_bin(&m, sizeof f.cert);
    f.m.status = (uint8_t)mp_get_uint(&m, 2);
    if (mp_end(&m) != 0) {
        broken(n, "a member record is damaged");
        return;
    }
    memcpy(f.m.name, name.ptr, name.len);
    if (address.len > 0)
        memcpy(f.m.wan, address.ptr, address.len);
    memcpy(f.m.cert_sha256, fp.ptr, 32);
    memcpy(f.cert, cert.ptr, cert.len);
    f.m.cert.len = cert.len;
    unsigned i = 0;
    while (i < n->member_count && n->members[i].m.site != f.m.site)
        i++;
    if (i < n->member_count && n->members[i].hlc > hlc)
        return;
    n->members[i] = f;
    n->members[i].m.cert.ptr = (uint8_t *)n->members[i].cert;
    n->member_count = MAX(n->member_count, i + 1);
    if (n->members_changed != NULL)
        n->members_changed(n->members_ctx);
}

static void op_commit(struct node *n, const struct head *h, struct slice op)
{
    struct shard *s = &n->shards[h->dot.shard];
    rec_add(s, hlc_tick(n), h->dot, op);
    if (vv_set(&s->vv, h->dot.site, h->dot.seq) != 0)
        broken(n, "too many sites");
    if (h->body.len > 0 && h->body.ptr[0] == 'M')
        member_apply(n, h->body, h->hlc);
}

static void moved(struct node *n)
{
    void (*changed)(void *) = n->feed_changed;
    void *ctx = n->feed_ctx;
    pthread_mutex_unlock(&n->lock);
    if (changed != NULL)
        changed(ctx);
    wake();
    pthread_mutex_lock(&n->lock);
}

static void op_make(struct node *n, shard_id_t shard, uint64_t hlc, struct slice body)
{
    struct buf op = {0};
    struct head h = {.dot = {.seq = vv_get(&n->shards[shard].vv, n->settings.site) + 1,
                             .site = n->settings.site,
                             .shard = shard},
                     .hlc = hlc != 0 ? hlc : hlc_tick(n),
                     .body = body};
    test_op(h.dot, h.hlc, (int64_t)clock_wall_ns(&n->clock), body, &op);
    op_commit(n, &h, buf_slice(&op));
    buf_deinit(&op);
}

void fake_write(struct node *n, shard_id_t shard, unsigned count, size_t len)
{
    struct rng rng;
    uint8_t *body = mem_calloc(1, len + 1);
    pthread_mutex_lock(&n->lock);
    rng_seed(&rng, n->hlc);
    for (unsigned i = 0; i < count; i++) {
        test_noise(&rng, body, len);
        if (len > 0)
            body[0] = 'x';
        op_make(n, shard, 0, slice_of(body, len));
    }
    moved(n);
    pthread_mutex_unlock(&n->lock);
    mem_free(body);
}

void fake_write_at(struct node *n, shard_id_t shard, uint64_t hlc)
{
    pthread_mutex_lock(&n->lock);
    op_make(n, shard, hlc, slice_str("x"));
    moved(n);
    pthread_mutex_unlock(&n->lock);
}

uint64_t fake_ops(struct node *n)
{
    uint64_t count = 0;
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        for (uint32_t i = 0; i < n->shards[s].vv.count; i++)
            count += n->shards[s].vv.at[i].seq;
    pthread_mutex_unlock(&n->lock);
    return count;
}

/* Every operation of b is in a, byte for byte. */
static bool covers(struct node *a, struct node *b)
{
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        if (!vv_covers(&a->shards[s].vv, &b->shards[s].vv))
            return false;
        for (uint64_t i = 0; i < b->shards[s].count; i++) {
            const struct rec *r = &b->shards[s].recs[i];
            bool found = r->hlc == 0;
            for (uint64_t k = i > 200 ? i - 200 : 0; k < a->shards[s].count && !found; k++)
                found = dot_equal(a->shards[s].recs[k].dot, r->dot) &&
                        slice_equal(buf_slice(&a->shards[s].recs[k].op), buf_slice(&r->op));
            for (uint64_t k = 0; k < a->shards[s].count && !found; k++)
                found = dot_equal(a->shards[s].recs[k].dot, r->dot) &&
                        slice_equal(buf_slice(&a->shards[s].recs[k].op), buf_slice(&r->op));
            if (!found)
                return false;
        }
    }
    return true;
}

bool fake_same(struct node *a, struct node *b)
{
    struct node *first = a < b ? a : b, *second = a < b ? b : a;
    pthread_mutex_lock(&first->lock);
    pthread_mutex_lock(&second->lock);
    bool same = true;
    for (unsigned s = 0; s < FAKE_SHARDS && same; s++)
        same = vv_covers(&a->shards[s].vv, &b->shards[s].vv) &&
               vv_covers(&b->shards[s].vv, &a->shards[s].vv);
    same = same && covers(a, b) && covers(b, a);
    pthread_mutex_unlock(&second->lock);
    pthread_mutex_unlock(&first->lock);
    return same;
}

uint64_t fake_commit_hlc(struct node *n, struct dot dot)
{
    uint64_t hlc = 0;
    pthread_mutex_lock(&n->lock);
    const struct shard *s = &n->shards[dot.shard];
    for (uint64_t i = 0; i < s->count && hlc == 0; i++)
        if (dot_equal(s->recs[i].dot, dot))
            hlc = s->recs[i].hlc;
    pthread_mutex_unlock(&n->lock);
    return hlc;
}

uint64_t fake_seq(struct node *n, shard_id_t shard, site_id_t site)
{
    pthread_mutex_lock(&n->lock);
    uint64_t seq = vv_get(&n->shards[shard].vv, site);
    pthread_mutex_unlock(&n->lock);
    return seq;
}

uint64_t fake_duplicates(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    uint64_t count = n->duplicates;
    pthread_mutex_unlock(&n->lock);
    return count;
}

const char *fake_broken(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    const char *what = n->broken[0] != '\0' ? n->broken : NULL;
    pthread_mutex_unlock(&n->lock);
    return what;
}

void fake_clock_shift(struct node *n, int64_t wall_ns)
{
    __atomic_store_n(&n->shift_ns, wall_ns, __ATOMIC_RELAXED);
}

void fake_forget(struct node *n, uint64_t keep)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        struct shard *sh = &n->shards[s];
        while (sh->count > keep)
            buf_deinit(&sh->recs[--sh->count].op);
        sh->vv = (struct vv){0};
        for (uint64_t i = 0; i < sh->count; i++)
            assert_int_equal(vv_set(&sh->vv, sh->recs[i].dot.site, sh->recs[i].dot.seq), 0);
    }
    pthread_mutex_unlock(&n->lock);
}

void fake_trim(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        n->shards[s].first = n->shards[s].count + 1;
    pthread_mutex_unlock(&n->lock);
}

/* --- site/node.h: feed, apply --- */

void node_feed_state(struct node *n, struct feed_state *ret)
{
    pthread_mutex_lock(&n->lock);
    *ret = (struct feed_state){.shard_count = FAKE_SHARDS, .safe_hlc = n->hlc};
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        ret->durable[s] = n->shards[s].count;
        ret->first[s] = n->shards[s].first;
    }
    pthread_mutex_unlock(&n->lock);
}

void node_feed_watch(struct node *n, void (*changed)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&n->lock);
    n->feed_changed = changed;
    n->feed_ctx = ctx;
    pthread_mutex_unlock(&n->lock);
}

static struct stamp stamp_of(const struct rec *r)
{
    struct op head = {.stamp = {0}};
    if (r->hlc != 0)
        assert_int_equal(op_decode_head(buf_slice(&r->op), &head), 0);
    return head.stamp;
}

int node_feed_read(struct node *n,
                   shard_id_t shard,
                   uint64_t from,
                   size_t bytes_max,
                   bool (*fn)(void *ctx, const struct feed_item *item),
                   void *ctx,
                   uint64_t *ret_next)
{
    int rc = 0;
    size_t bytes = 0;
    pthread_mutex_lock(&n->lock);
    struct shard *s = &n->shards[shard];
    if (from < s->first)
        rc = ERR_NOT_FOUND;
    for (; rc == 0 && from <= s->count && bytes < bytes_max; from++) {
        const struct rec *r = &s->recs[from - 1];
        struct feed_item item = {.shard = shard,
                                 .index = from,
                                 .commit_hlc = r->hlc,
                                 .dot = r->dot,
                                 .stamp = stamp_of(r),
                                 .barrier = r->dot.seq % 17 == 0,
                                 .op = buf_slice(&r->op)};
        bytes += r->op.len;
        if (r->hlc != 0 && !fn(ctx, &item))
            break;
    }
    *ret_next = from;
    pthread_mutex_unlock(&n->lock);
    return rc;
}

static struct cursors *cursors_of(struct node *n, site_id_t peer)
{
    unsigned i = 0;
    while (i < n->cursor_count && n->cursors[i].peer != peer)
        i++;
    if (i == n->cursor_count) {
        assert_true(i < PEERS_MAX);
        n->cursors[n->cursor_count++] = (struct cursors){.peer = peer};
    }
    return &n->cursors[i];
}

void node_peer_acked(struct node *n, site_id_t peer, const uint64_t *index_by_shard)
{
    pthread_mutex_lock(&n->lock);
    struct cursors *c = cursors_of(n, peer);
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        if (index_by_shard[s] < c->acked[s])
            broken(n, "an acknowledgement went back");
        if (index_by_shard[s] > n->shards[s].count)
            broken(n, "more was acknowledged than there is");
        c->acked[s] = index_by_shard[s];
    }
    pthread_mutex_unlock(&n->lock);
    wake();
}

void node_peer_places(struct node *n, site_id_t peer, struct node_place *ret_by_shard)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        ret_by_shard[s] = (struct node_place){.acked = cursors_of(n, peer)->acked[s],
                                              .need = cursors_of(n, peer)->acked[s] + 1};
    pthread_mutex_unlock(&n->lock);
}

void node_peer_heard(struct node *n, site_id_t peer)
{
    (void)n;
    (void)peer;
}

uint32_t node_backlogs(struct node *n, struct node_backlog ret[SITE_COUNT_MAX])
{
    (void)n;
    (void)ret;
    return 0;
}

/* The site's part of coming back is tested with real nodes (tests/e2e/test_return.py). */
int node_return_id(
    struct node *n, bool rolled_back, bool another, site_id_t *ret_id, struct err_detail *d)
{
    (void)another;
    (void)n;
    (void)rolled_back;
    (void)ret_id;
    (void)d;
    return ERR_NOT_SUPPORTED;
}

int node_return_go(struct node *n, struct err_detail *d)
{
    (void)n;
    (void)d;
    return ERR_NOT_SUPPORTED;
}

uint64_t fake_acked(struct node *n, site_id_t peer)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&n->lock);
    struct cursors *c = cursors_of(n, peer);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        sum += c->acked[s];
    pthread_mutex_unlock(&n->lock);
    return sum;
}

static int item_apply(struct node *n, const struct apply_item *item)
{
    struct head h;
    if (!head_read(item->op, &h) || h.dot.shard != item->shard)
        return ERR_MALFORMED;
    uint64_t seen = vv_get(&n->shards[h.dot.shard].vv, h.dot.site);
    if (h.dot.site == n->settings.site && h.dot.seq > seen) {
        broken(n, "an own operation came back that is not here");
    } else if (h.dot.seq <= seen) {
        n->duplicates++;
    } else if (h.dot.seq != seen + 1) {
        broken(n, "an operation came before the one before it");
    } else {
        op_commit(n, &h, item->op);
    }
    return 0;
}

static void apply_end(struct node *n, struct apply_batch *b)
{
    int rc = n->needs_snapshot ? ERR_AGAIN : 0;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < b->item_count && rc == 0; i++)
        rc = item_apply(n, &b->items[i]);
    struct cursors *c = cursors_of(n, b->peer);
    for (unsigned s = 0; s < FAKE_SHARDS && rc == 0; s++) {
        if (b->cursor[s] == 0)
            continue;
        if (b->cursor[s] < c->next[s])
            broken(n, "a cursor went back");
        c->next[s] = b->cursor[s];
        rec_add(&n->shards[s], 0, (struct dot){0}, slice_str("")); /* own business: the cursor */
    }
    moved(n);
    pthread_mutex_unlock(&n->lock);
    b->detail.text[0] = '\0';
    b->done(b, rc, &b->detail);
}

static void apply_run(struct loop_msg *msg)
{
    struct apply_batch *b = CONTAINER_OF(msg, struct apply_batch, msg);
    struct node *n = b->node;
    pthread_mutex_lock(&n->lock);
    bool stalled = n->stalled;
    if (stalled)
        n->stalled_batch = b;
    pthread_mutex_unlock(&n->lock);
    if (!stalled)
        apply_end(n, b);
}

void node_apply(struct node *n, struct apply_batch *b)
{
    b->node = n;
    b->msg.run = apply_run;
    loop_post(n->loop, &b->msg);
}

void fake_stall(struct node *n, bool on)
{
    pthread_mutex_lock(&n->lock);
    n->stalled = on;
    struct apply_batch *b = on ? NULL : n->stalled_batch;
    if (!on)
        n->stalled_batch = NULL;
    pthread_mutex_unlock(&n->lock);
    if (b != NULL)
        loop_post(n->loop, &b->msg);
}

void node_cursors(struct node *n, site_id_t peer, uint64_t *ret_by_shard)
{
    pthread_mutex_lock(&n->lock);
    memcpy(ret_by_shard, cursors_of(n, peer)->next, sizeof n->cursors[0].next);
    pthread_mutex_unlock(&n->lock);
}

void node_vvs(struct node *n, struct vv *ret_by_shard)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        ret_by_shard[s] = n->shards[s].vv;
    pthread_mutex_unlock(&n->lock);
}

void node_last_ops(struct node *n, site_id_t site, struct last_op *ret_by_shard)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        ret_by_shard[s] = (struct last_op){0};
        for (uint64_t i = 0; i < n->shards[s].count; i++) {
            const struct rec *r = &n->shards[s].recs[i];
            if (r->hlc != 0 && r->dot.site == site && r->dot.seq > ret_by_shard[s].seq)
                ret_by_shard[s] = (struct last_op){.seq = r->dot.seq, .hlc = stamp_of(r).hlc};
        }
    }
    pthread_mutex_unlock(&n->lock);
}

/* An answer that comes with a later turn of the loop; if that has ended by then, it never comes. */
struct later {
    struct loop_msg msg;
    struct later *next;
    struct node *n;
    void (*run)(struct later *l);
    void (*done)(void *ctx, int rc);
    void (*ready)(void *ctx, int rc, struct node_snapshot *s);
    void *ctx;
    struct node_settle_wait *wait;
    struct node_snapshot *snapshot;
};

static void later_run(struct loop_msg *msg)
{
    struct later *l = CONTAINER_OF(msg, struct later, msg), **at = &l->n->laters;
    pthread_mutex_lock(&l->n->lock);
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    pthread_mutex_unlock(&l->n->lock);
    l->run(l);
    mem_free(l);
}

static void later_post(struct node *n, struct later what)
{
    struct later *l = mem_calloc(1, sizeof *l);
    *l = what;
    l->msg.run = later_run;
    l->n = n;
    pthread_mutex_lock(&n->lock);
    l->next = n->laters;
    n->laters = l;
    pthread_mutex_unlock(&n->lock);
    loop_post(n->loop, &l->msg);
}

static void laters_drop(struct node *n)
{
    while (n->laters != NULL) {
        struct later *l = n->laters;
        n->laters = l->next;
        if (l->snapshot != NULL)
            node_snapshot_free(l->snapshot);
        mem_free(l);
    }
}

static void settled_run(struct later *l)
{
    l->wait->run(l->wait);
}

/* What is applied here causes nothing. */
void node_settled(struct node *n, struct node_settle_wait *w)
{
    later_post(n, (struct later){.run = settled_run, .wait = w});
}

void node_hlc_see(struct node *n, uint64_t hlc)
{
    pthread_mutex_lock(&n->lock);
    n->hlc = MAX(n->hlc, hlc);
    pthread_mutex_unlock(&n->lock);
}

uint64_t node_hlc_now(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    uint64_t now = MAX(n->hlc, hlc_from_wall(clock_wall_ns(&n->clock)));
    pthread_mutex_unlock(&n->lock);
    return now;
}

/* --- members --- */

int node_members(struct node *n, bool (*fn)(void *ctx, const struct member *m), void *ctx)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned i = 0; i < n->member_count && !n->members_hidden; i++)
        if (!fn(ctx, &n->members[i].m))
            break;
    pthread_mutex_unlock(&n->lock);
    return 0;
}

void fake_members_hide(struct node *n, bool on)
{
    pthread_mutex_lock(&n->lock);
    n->members_hidden = on;
    pthread_mutex_unlock(&n->lock);
}

static void set_done_run(struct later *l)
{
    l->done(l->ctx, 0);
}

void node_member_set(struct node *n,
                     const struct member *m,
                     void (*done)(void *ctx, int rc),
                     void *ctx)
{
    struct buf body = {0};
    buf_append(&body, "M", 1);
    mp_array(&body, 6);
    mp_uint(&body, m->site);
    mp_cstr(&body, m->name);
    mp_cstr(&body, m->wan);
    mp_bin(&body, slice_of(m->cert_sha256, 32));
    mp_bin(&body, m->cert);
    mp_uint(&body, m->status);
    pthread_mutex_lock(&n->lock);
    op_make(n, 0, 0, buf_slice(&body));
    moved(n);
    pthread_mutex_unlock(&n->lock);
    buf_deinit(&body);
    later_post(n, (struct later){.run = set_done_run, .done = done, .ctx = ctx});
}

void node_member_remove(struct node *n,
                        site_id_t site,
                        enum member_leaves why,
                        void (*done)(void *ctx, int rc),
                        void *ctx)
{
    struct member m = {.site = 0};
    (void)why;
    pthread_mutex_lock(&n->lock);
    for (unsigned i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == site)
            m = n->members[i].m;
    pthread_mutex_unlock(&n->lock);
    m.status = MEMBER_REMOVED;
    node_member_set(n, &m, done, ctx);
}

static void set_ignored(void *ctx, int rc)
{
    (void)ctx;
    (void)rc;
}

void node_member_returns(struct node *n,
                         site_id_t before,
                         const uint8_t *cert_sha256,
                         site_id_t after,
                         void (*done)(void *ctx, int rc),
                         void *ctx)
{
    struct member m = {.site = 0};
    pthread_mutex_lock(&n->lock);
    for (unsigned i = 0; i < n->member_count; i++)
        if (memcmp(n->members[i].m.cert_sha256, cert_sha256, sizeof m.cert_sha256) == 0)
            m = n->members[i].m;
    pthread_mutex_unlock(&n->lock);
    m.site = before;
    m.status = MEMBER_REMOVED;
    node_member_set(n, &m, set_ignored, NULL);
    m.site = after;
    m.status = MEMBER_IS;
    node_member_set(n, &m, done, ctx);
}

void node_member_readmit(struct node *n, site_id_t site, void (*done)(void *ctx, int rc), void *ctx)
{
    (void)n;
    (void)site;
    done(ctx, ERR_NOT_FOUND); /* why a site left is not kept here */
}

void node_members_watch(struct node *n, void (*changed)(void *ctx), void *ctx)
{
    n->members_changed = changed;
    n->members_ctx = ctx;
}

/* --- chunks --- */

void fake_chunk_add(struct node *n, const uint8_t id[32], struct slice bytes)
{
    struct chunk *c = mem_calloc(1, sizeof *c);
    memcpy(c->id, id, 32);
    buf_append(&c->bytes, bytes.ptr, bytes.len);
    pthread_mutex_lock(&n->lock);
    c->next = n->chunks;
    n->chunks = c;
    pthread_mutex_unlock(&n->lock);
}

void node_chunk_get_local(struct node *n, const uint8_t id[32], chunk_got_cb cb, void *ctx)
{
    struct buf copy = {0};
    pthread_mutex_lock(&n->lock);
    struct chunk *c = n->chunks;
    while (c != NULL && memcmp(c->id, id, 32) != 0)
        c = c->next;
    if (c != NULL)
        buf_append(&copy, c->bytes.ptr, c->bytes.len);
    pthread_mutex_unlock(&n->lock);
    cb(ctx, c != NULL ? 0 : ERR_NOT_FOUND, c != NULL ? &copy : NULL);
    buf_deinit(&copy);
}

void node_set_fetcher(struct node *n,
                      void (*fetch)(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx),
                      void *fctx)
{
    n->fetch = fetch;
    n->fetch_ctx = fctx;
}

struct fetching {
    struct loop_msg msg;
    struct node *n;
    uint8_t id[32];
    bool done;
    int rc;
    struct buf *out;
};

static void fetched(void *ctx, int rc, struct buf *sealed)
{
    struct fetching *f = ctx;
    f->rc = rc;
    if (rc == 0)
        buf_move(f->out, sealed);
    __atomic_store_n(&f->done, true, __ATOMIC_RELEASE);
    wake();
}

static void fetch_run(struct loop_msg *msg)
{
    struct fetching *f = CONTAINER_OF(msg, struct fetching, msg);
    f->n->fetch(f->n->fetch_ctx, f->id, fetched, f);
}

static bool is_fetched(void *ctx)
{
    return __atomic_load_n(&((struct fetching *)ctx)->done, __ATOMIC_ACQUIRE);
}

int fake_fetch(struct node *n, const uint8_t id[32], struct buf *out)
{
    struct fetching f = {.n = n, .out = out};
    memcpy(f.id, id, 32);
    f.msg.run = fetch_run;
    loop_post(n->loop, &f.msg);
    wait_until(is_fetched, &f, "a chunk");
    return f.rc;
}

/* --- snapshots --- */

struct node_snapshot {
    struct buf all; /* cursors, then operations, each with its length */
    size_t at;
};

static void snapshot_ready_run(struct later *l)
{
    l->ready(l->ctx, 0, l->snapshot);
}

void node_snapshot_begin(struct node *n,
                         void (*ready)(void *ctx, int rc, struct node_snapshot *s),
                         void *ctx)
{
    struct node_snapshot *s = mem_calloc(1, sizeof *s);
    pthread_mutex_lock(&n->lock);
    mp_array(&s->all, FAKE_SHARDS);
    for (unsigned i = 0; i < FAKE_SHARDS; i++)
        mp_uint(&s->all, n->shards[i].count + 1);
    for (unsigned i = 0; i < FAKE_SHARDS; i++)
        for (uint64_t k = 0; k < n->shards[i].count; k++)
            if (n->shards[i].recs[k].hlc != 0)
                mp_bin(&s->all, buf_slice(&n->shards[i].recs[k].op));
    pthread_mutex_unlock(&n->lock);
    later_post(
        n, (struct later){.run = snapshot_ready_run, .ready = ready, .ctx = ctx, .snapshot = s});
}

int node_snapshot_next_page(struct node_snapshot *s,
                            size_t bytes_max,
                            struct buf *out,
                            bool *ret_done)
{
    struct mp m = mp_of(slice_of(s->all.ptr + s->at, s->all.len - s->at));
    if (s->at == 0) {
        mp_skip(&m);
    } else {
        while (m.at < m.end && (size_t)(m.at - s->all.ptr) - s->at < bytes_max / 2)
            mp_skip(&m);
    }
    size_t end = (size_t)(m.at - s->all.ptr);
    buf_append(out, s->all.ptr + s->at, end - s->at);
    s->at = end;
    *ret_done = end == s->all.len;
    return m.rc;
}

void node_snapshot_free(struct node_snapshot *s)
{
    buf_deinit(&s->all);
    mem_free(s);
}

int node_snapshot_load(struct node *n, struct slice page, struct err_detail *d)
{
    struct mp m = mp_of(page);
    (void)d;
    pthread_mutex_lock(&n->lock);
    if (mp_peek(&m) == MP_ARRAY) { /* the first page */
        struct cursors *c = cursors_of(n, 0);
        for (unsigned i = 0; i < FAKE_SHARDS; i++) {
            struct shard *s = &n->shards[i];
            while (s->count > 0)
                buf_deinit(&s->recs[--s->count].op);
            s->vv = (struct vv){0};
        }
        (void)mp_get_array(&m, FAKE_SHARDS);
        for (unsigned i = 0; i < FAKE_SHARDS; i++)
            c->next[i] = mp_get_uint(&m, UINT64_MAX);
    }
    while (m.rc == 0 && mp_peek(&m) != MP_END) {
        struct head h;
        struct slice op = mp_get_bin(&m, LIMIT_OP_BYTES);
        if (head_read(op, &h))
            op_commit(n, &h, op);
        else
            broken(n, "a snapshot holds something else");
    }
    pthread_mutex_unlock(&n->lock);
    return mp_end(&m);
}

int node_snapshot_commit(struct node *n, site_id_t from_peer, struct err_detail *d)
{
    (void)d; /* lint-allow(file-size): the twin of a whole node, behind one seam */
    pthread_mutex_lock(&n->lock);
    memcpy(cursors_of(n, from_peer)->next, cursors_of(n, 0)->next, sizeof n->cursors[0].next);
    n->needs_snapshot = false;
    moved(n);
    pthread_mutex_unlock(&n->lock);
    return 0;
}

bool node_needs_snapshot(struct node *n)
{
    return n->needs_snapshot;
}

bool node_is_returning(const struct node *n)
{
    (void)n;
    return false;
}

bool node_is_empty(struct node *n)
{
    uint64_t count = 0;
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        count += n->shards[s].count;
    pthread_mutex_unlock(&n->lock);
    return count == 0;
}

int node_adopt(struct node *n, const uint8_t fs_key[32], unsigned shard_count, struct err_detail *d)
{
    if (!n->needs_snapshot && !node_is_empty(n)) {
        err_detail_set(d, "not empty");
        return ERR_NOT_EMPTY;
    }
    assert_int_equal(shard_count, FAKE_SHARDS);
    memcpy(n->fs_key, fs_key, 32);
    n->needs_snapshot = true;
    return 0;
}

/* --- administration --- */

void node_admin_register(struct node *n, admin_handler h, void *hctx)
{
    n->admin = h;
    n->admin_ctx = hctx;
}

struct asking {
    struct loop_msg msg;
    struct node *n;
    const char *verb, *json;
    bool done;
    int rc;
    char *text;
};

static void asked(void *ctx, int rc, const char *text)
{
    struct asking *a = ctx;
    a->rc = rc;
    a->text = mem_strdup(text);
    __atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
    wake();
}

static void ask_run(struct loop_msg *msg)
{
    struct asking *a = CONTAINER_OF(msg, struct asking, msg);
    if (!a->n->admin(a->n->admin_ctx, a->verb, a->json, asked, a))
        asked(a, ERR_NOT_SUPPORTED, "not a verb");
}

static bool is_asked(void *ctx)
{
    return __atomic_load_n(&((struct asking *)ctx)->done, __ATOMIC_ACQUIRE);
}

int fake_admin(struct node *n, const char *verb, const char *json, char **ret_text)
{
    struct asking a = {.n = n, .verb = verb, .json = json};
    a.msg.run = ask_run;
    loop_post(n->loop, &a.msg);
    wait_until(is_asked, &a, verb);
    if (ret_text != NULL)
        *ret_text = a.text;
    else
        mem_free(a.text);
    return a.rc;
}

/* --- life --- */

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

static void *loop_thread(void *arg)
{
    struct node *n = arg;
    loop_run(n->loop);
    return NULL;
}

static void loop_begin(struct node *n)
{
    assert_int_equal(loop_new(&n->loop, 64, &n->clock, NULL), 0);
    struct err_detail d = {{0}};
    int rc = wan_start(&n->wan, n, &d);
    if (rc != 0)
        fail_msg("wan_start: %s", d.text);
    assert_int_equal(pthread_create(&n->thread, NULL, loop_thread, n), 0);
}

void fake_wan_start(struct node *n)
{
    loop_begin(n);
}

void fake_wan_stop(struct node *n)
{
    loop_stop(n->loop);
    assert_int_equal(pthread_join(n->thread, NULL), 0);
    wan_stop(n->wan);
    wan_free(n->wan);
    n->wan = NULL;
    loop_free(n->loop);
    laters_drop(n);
    n->loop = NULL;
    n->members_changed = NULL;
}

void fake_become(struct node *n, site_id_t site)
{
    assert_null(n->wan);
    n->settings.site = site;
}

int fake_wan_try(struct node *n, struct wan **ret, struct err_detail *d)
{
    assert_int_equal(loop_new(&n->loop, 64, &n->clock, NULL), 0);
    int rc = wan_start(ret, n, d);
    if (rc == 0) {
        wan_stop(*ret);
        wan_free(*ret);
    }
    loop_free(n->loop);
    n->loop = NULL;
    return rc;
}

void fake_needs_snapshot(struct node *n, bool on)
{
    n->needs_snapshot = on;
}

uint16_t fake_port(struct node *n)
{
    return wan_listen_port(n->wan);
}

struct node *fake_new(const struct fake_options *o)
{
    const char *base = getenv("TMPDIR");
    struct node *n = mem_calloc(1, sizeof *n);
    n->clock = (struct clock){.mono_ns = clock_mono, .wall_ns = clock_wall, .ctx = n};
    assert_int_equal(pthread_mutex_init(&n->lock, NULL), 0);
    n->dir = mem_printf("%s/cfs-wan-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(n->dir));
    n->settings = (struct site_settings){.site = o->site, .shard_count = FAKE_SHARDS};
    snprintf(n->settings.name, sizeof n->settings.name, "%s", o->name);
    snprintf(n->settings.wan, sizeof n->settings.wan, "%s", o->wan != NULL ? o->wan : "");
    snprintf(n->settings.advertise, sizeof n->settings.advertise, "%s",
             o->advertise != NULL ? o->advertise : "");
    random_bytes(n->fs_key, sizeof n->fs_key);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        n->shards[s].first = 1;
    loop_begin(n);
    return n;
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void fake_free(struct node *n)
{
    if (n->broken[0] != '\0')
        fail_msg("%s: %s", n->settings.name, n->broken);
    fake_stall(n, false);
    if (n->wan != NULL)
        fake_wan_stop(n);
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        while (n->shards[s].count > 0)
            buf_deinit(&n->shards[s].recs[--n->shards[s].count].op);
        mem_free(n->shards[s].recs);
    }
    while (n->chunks != NULL) {
        struct chunk *c = n->chunks;
        n->chunks = c->next;
        buf_deinit(&c->bytes);
        mem_free(c);
    }
    assert_int_equal(nftw(n->dir, unlink_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    pthread_mutex_destroy(&n->lock);
    mem_free(n->dir);
    mem_free(n);
}
