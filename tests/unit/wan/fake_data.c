/* The in-memory node: chunks, and how another one begins with what is here. */
#include <string.h>

#include "base/limits.h"
#include "tests/unit/wan/fake_node_int.h"
#include "tests/unit/wan/wan_test.h"

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

static struct chunk *chunk_find(struct node *n, const uint8_t id[32])
{
    struct chunk *c = n->chunks;
    while (c != NULL && memcmp(c->id, id, 32) != 0)
        c = c->next;
    return c;
}

bool fake_chunk_has(struct node *n, const uint8_t id[32])
{
    pthread_mutex_lock(&n->lock);
    bool has = chunk_find(n, id) != NULL;
    pthread_mutex_unlock(&n->lock);
    return has;
}

unsigned fake_chunks_given(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    unsigned given = n->chunks_given;
    pthread_mutex_unlock(&n->lock);
    return given;
}

void node_chunk_put(struct node *n,
                    const uint8_t id[32],
                    struct slice sealed,
                    void (*cb)(void *ctx, int rc),
                    void *ctx)
{
    fake_chunk_add(n, id, sealed);
    cb(ctx, 0);
}

void node_chunk_get_local(struct node *n, const uint8_t id[32], chunk_got_cb cb, void *ctx)
{
    struct buf copy = {0};
    pthread_mutex_lock(&n->lock);
    struct chunk *c = chunk_find(n, id);
    if (c != NULL)
        buf_append(&copy, c->bytes.ptr, c->bytes.len);
    n->chunks_given += c != NULL;
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
    fake_wake();
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
    int rc; /* of reading it */
};

static void snapshot_ready_run(struct later *l)
{
    l->ready(l->ctx, 0, l->snapshot);
}

void node_snapshot_begin(struct node *n,
                         site_id_t to,
                         void (*ready)(void *ctx, int rc, struct node_snapshot *s),
                         void *ctx)
{
    struct node_snapshot *s = mem_calloc(1, sizeof *s);
    (void)to;
    pthread_mutex_lock(&n->lock);
    s->rc = n->snapshots_refused ? ERR_IO : 0;
    mp_array(&s->all, FAKE_SHARDS);
    for (unsigned i = 0; i < FAKE_SHARDS; i++)
        mp_uint(&s->all, n->shards[i].count + 1);
    for (unsigned i = 0; i < FAKE_SHARDS; i++)
        for (uint64_t k = 0; k < n->shards[i].count; k++)
            if (n->shards[i].recs[k].hlc != 0)
                mp_bin(&s->all, buf_slice(&n->shards[i].recs[k].op));
    pthread_mutex_unlock(&n->lock);
    fake_later(
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
    return s->rc != 0 ? s->rc : m.rc;
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
    if (!n->needs_snapshot)
        m.rc = ERR_EXISTS;
    if (m.rc == 0 && mp_peek(&m) == MP_ARRAY) { /* the first page */
        struct cursors *c = fake_cursors_of(n, 0);
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
        if (fake_head_read(op, &h))
            fake_op_commit(n, &h, op);
        else
            fake_violated(n, "a snapshot holds something else");
    }
    pthread_mutex_unlock(&n->lock);
    return mp_end(&m);
}

void fake_commit_run(struct later *l)
{
    struct node *n = l->n;
    struct err_detail d = {{0}};
    pthread_mutex_lock(&n->lock);
    struct commit c = n->commit;
    n->commit.done = NULL;
    if (c.done != NULL) {
        memcpy(fake_cursors_of(n, c.from)->next, fake_cursors_of(n, 0)->next,
               sizeof n->cursors[0].next);
        n->needs_snapshot = false;
        fake_moved(n);
    }
    pthread_mutex_unlock(&n->lock);
    if (c.done != NULL)
        c.done(c.ctx, 0, &d);
}

void node_snapshot_commit(struct node *n,
                          site_id_t from_peer,
                          void (*done)(void *ctx, int rc, const struct err_detail *d),
                          void *ctx)
{
    pthread_mutex_lock(&n->lock);
    n->commit = (struct commit){.from = from_peer, .done = done, .ctx = ctx};
    bool stalled = n->stalled;
    pthread_mutex_unlock(&n->lock);
    if (!stalled)
        fake_later(n, (struct later){.run = fake_commit_run});
    else
        fake_wake();
}

bool fake_commits(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    bool commits = n->commit.done != NULL;
    pthread_mutex_unlock(&n->lock);
    return commits;
}

bool node_needs_snapshot(struct node *n)
{
    return n->needs_snapshot;
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
    if (n->adopt_rc != 0)
        return n->adopt_rc;
    memcpy(n->fs_key, fs_key, 32);
    n->needs_snapshot = true;
    return 0;
}
