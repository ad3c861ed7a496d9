/* The in-memory node: its journals, what is fed of them to peers and applied of theirs. */
#include <string.h>

#include "base/hlc.h"
#include "base/limits.h"
#include "site/lacks.h"
#include "tests/unit/wan/fake_node_int.h"
#include "tests/unit/wan/wan_test.h"

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

bool fake_head_read(struct slice op, struct head *ret)
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

void fake_op_commit(struct node *n, const struct head *h, struct slice op)
{
    struct shard *s = &n->shards[h->dot.shard];
    rec_add(s, hlc_tick(n), h->dot, op);
    if (vv_set(&s->vv, h->dot.site, h->dot.seq) != 0)
        fake_violated(n, "too many sites");
    if (h->body.len > 0 && h->body.ptr[0] == 'M')
        fake_member_apply(n, h->body, h->hlc);
}

void fake_moved(struct node *n)
{
    void (*changed)(void *) = n->feed_changed;
    void *ctx = n->feed_ctx;
    pthread_mutex_unlock(&n->lock);
    if (changed != NULL)
        changed(ctx);
    fake_wake();
    pthread_mutex_lock(&n->lock);
}

void fake_op_make(struct node *n, shard_id_t shard, uint64_t hlc, struct slice body)
{
    struct buf op = {0};
    struct head h = {.dot = {.seq = vv_get(&n->shards[shard].vv, n->settings.site) + 1,
                             .site = n->settings.site,
                             .shard = shard},
                     .hlc = hlc != 0 ? hlc : hlc_tick(n),
                     .body = body};
    test_op(h.dot, h.hlc, (int64_t)clock_wall_ns(&n->clock), body, &op);
    fake_op_commit(n, &h, buf_slice(&op));
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
        fake_op_make(n, shard, 0, slice_of(body, len));
    }
    fake_moved(n);
    pthread_mutex_unlock(&n->lock);
    mem_free(body);
}

void fake_write_at(struct node *n, shard_id_t shard, uint64_t hlc)
{
    pthread_mutex_lock(&n->lock);
    fake_op_make(n, shard, hlc, slice_str("x"));
    fake_moved(n);
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

struct cursors *fake_cursors_of(struct node *n, site_id_t peer)
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
    struct cursors *c = fake_cursors_of(n, peer);
    for (unsigned s = 0; s < FAKE_SHARDS; s++) {
        if (index_by_shard[s] < c->acked[s])
            fake_violated(n, "an acknowledgement went back");
        if (index_by_shard[s] > n->shards[s].count)
            fake_violated(n, "more was acknowledged than there is");
        c->acked[s] = index_by_shard[s];
    }
    pthread_mutex_unlock(&n->lock);
    fake_wake();
}

void node_peer_places(struct node *n, site_id_t peer, struct node_place *ret_by_shard)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        ret_by_shard[s] = (struct node_place){.acked = fake_cursors_of(n, peer)->acked[s],
                                              .need = fake_cursors_of(n, peer)->acked[s] + 1};
    pthread_mutex_unlock(&n->lock);
}

void node_link_up(struct node *n)
{
    (void)n;
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

uint64_t fake_acked(struct node *n, site_id_t peer)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&n->lock);
    struct cursors *c = fake_cursors_of(n, peer);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        sum += c->acked[s];
    pthread_mutex_unlock(&n->lock);
    return sum;
}

static int item_apply(struct node *n, const struct apply_item *item)
{
    struct head h;
    if (!fake_head_read(item->op, &h) || h.dot.shard != item->shard)
        return ERR_MALFORMED;
    uint64_t seen = vv_get(&n->shards[h.dot.shard].vv, h.dot.site);
    if (h.dot.site == n->settings.site && h.dot.seq > seen) {
        fake_violated(n, "an own operation came back that is not here");
    } else if (h.dot.seq <= seen) {
        n->duplicates++;
    } else if (h.dot.seq != seen + 1) {
        fake_violated(n, "an operation came before the one before it");
    } else {
        fake_op_commit(n, &h, item->op);
    }
    return 0;
}

static void apply_end(struct node *n, struct apply_batch *b)
{
    int rc = n->needs_snapshot ? ERR_AGAIN : 0;
    pthread_mutex_lock(&n->lock);
    for (uint32_t i = 0; i < b->item_count && rc == 0; i++)
        rc = item_apply(n, &b->items[i]);
    struct cursors *c = fake_cursors_of(n, b->peer);
    for (unsigned s = 0; s < FAKE_SHARDS && rc == 0; s++) {
        if (b->cursor[s] == 0)
            continue;
        if (b->cursor[s] < c->next[s])
            fake_violated(n, "a cursor went back");
        c->next[s] = b->cursor[s];
        rec_add(&n->shards[s], 0, (struct dot){0}, slice_str("")); /* own business: the cursor */
    }
    fake_moved(n);
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
    bool commits = !on && n->commit.done != NULL;
    pthread_mutex_unlock(&n->lock);
    if (b != NULL)
        loop_post(n->loop, &b->msg);
    if (commits)
        fake_later(n, (struct later){.run = fake_commit_run});
}

void node_cursors(struct node *n, site_id_t peer, uint64_t *ret_by_shard)
{
    pthread_mutex_lock(&n->lock);
    memcpy(ret_by_shard, fake_cursors_of(n, peer)->next, sizeof n->cursors[0].next);
    pthread_mutex_unlock(&n->lock);
}

void node_vvs(struct node *n, struct vv *ret_by_shard)
{
    pthread_mutex_lock(&n->lock);
    for (unsigned s = 0; s < FAKE_SHARDS; s++)
        ret_by_shard[s] = n->shards[s].vv;
    pthread_mutex_unlock(&n->lock);
}

/* Of whomever: nothing waits for a cut here unless it is said to. */
uint64_t node_waits_since(const struct node *n, site_id_t site)
{
    struct node *at = (struct node *)(uintptr_t)n;
    (void)site;
    pthread_mutex_lock(&at->lock);
    uint64_t hlc = n->waits_hlc;
    pthread_mutex_unlock(&at->lock);
    return hlc;
}

void fake_waits(struct node *n, uint64_t hlc)
{
    pthread_mutex_lock(&n->lock);
    n->waits_hlc = hlc;
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
