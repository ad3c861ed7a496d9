/* Chunks at the node: from and to mounts, from peers when they are not here. */
#include <string.h>
#include <sys/statvfs.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/plant.h"
#include "data/chunk.h"
#include "site/node_int.h"

/* ---- put ---- */

struct put_job {
    struct store_put put;
    struct call *call;
    struct buf own; /* node_chunk_put: a copy of the sealed bytes; or none */
    void (*cb)(void *ctx, int rc);
    void *ctx;
};

static void put_done(struct store_put *put, int rc)
{
    struct put_job *j = CONTAINER_OF(put, struct put_job, put);
    if (j->call != NULL) {
        j->call->reply.rc = rc;
        node_call_finish(j->call);
    } else {
        j->cb(j->ctx, rc);
    }
    buf_deinit(&j->own);
    mem_free(j);
}

/* ---- memory in common with a client ---- */

int call_share(struct call *c)
{
    if (c->conn == NULL)
        return ERR_NOT_SUPPORTED;
    return rpc_share_make(c->conn, STORE_ROOM_BYTES);
}

/* What a request says lies there; empty when it does not. The client may still write to it. */
static struct slice shared_bulk(const struct call *c)
{
    size_t len = 0;
    const uint8_t *share = c->conn == NULL ? NULL : rpc_share(c->conn, &len);
    if (share == NULL || c->req.size > len || c->req.count > len - c->req.size)
        return slice_of(NULL, 0);
    return slice_of(share + c->req.size, c->req.count);
}

int call_chunk_put(struct call *c)
{
    if ((c->req.flags & CHUNK_SHARED) != 0)
        c->bulk = shared_bulk(c);
    if (!c->req.has_chunk || c->bulk.len == 0)
        return ERR_INVALID;
    struct put_job *j = mem_calloc(1, sizeof *j);
    memcpy(j->put.id.b, c->req.chunk, sizeof j->put.id.b);
    j->put.data = c->bulk;
    j->put.done = put_done;
    j->call = c;
    int rc = front_put(c->n->front, &j->put);
    if (rc != 0)
        mem_free(j);
    return rc == 0 ? CALL_HELD : rc == ERR_LIMIT ? ERR_AGAIN : rc;
}

/* ---- chunks that ride with a commit ---- */

struct riders {
    struct call *call;
    uint32_t open;
    int rc; /* first failure */
    struct rider_put {
        struct store_put put;
        struct riders *all;
    } puts[];
};

static void rider_done(struct store_put *put, int rc)
{
    struct riders *r = CONTAINER_OF(put, struct rider_put, put)->all;
    struct call *c = r->call;
    r->rc = r->rc == 0 ? rc : r->rc;
    if (--r->open > 0)
        return;
    rc = r->rc;
    mem_free(r);
    c->riders_stored = rc == 0;
    if (rc == 0) {
        node_run_later(c->n, c);
    } else {
        c->reply.rc = rc == ERR_LIMIT ? ERR_AGAIN : rc;
        node_call_finish(c);
    }
}

int call_riders(struct call *c)
{
    struct rider riders[RIDERS_MAX];
    uint32_t count = 0;
    if (c->riders_stored || c->bulk.len == 0)
        return 0;
    int rc = riders_decode(c->bulk, riders, &count);
    if (rc != 0)
        return ERR_INVALID;
    struct riders *r = mem_calloc(1, sizeof *r + count * sizeof r->puts[0]);
    r->call = c;
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        struct rider_put *p = &r->puts[i];
        p->all = r;
        memcpy(p->put.id.b, riders[i].id, sizeof p->put.id.b);
        p->put.data = riders[i].sealed;
        p->put.done = rider_done;
        rc = front_put(c->n->front, &p->put);
        r->open += rc == 0;
    }
    r->rc = rc;
    if (r->open > 0)
        return CALL_HELD; /* puts are never done from inside */
    mem_free(r);
    return rc == ERR_LIMIT ? ERR_AGAIN : rc;
}

/* `sealed` is borrowed until cb, or copied. */
static void chunk_put(struct node *n,
                      const uint8_t id[32],
                      struct put_job *j,
                      struct slice sealed,
                      void (*cb)(void *ctx, int rc),
                      void *ctx)
{
    memcpy(j->put.id.b, id, sizeof j->put.id.b);
    j->put.data = sealed;
    j->put.done = put_done;
    j->cb = cb;
    j->ctx = ctx;
    int rc = front_put(n->front, &j->put);
    if (rc != 0) {
        buf_deinit(&j->own);
        mem_free(j);
        cb(ctx, rc);
    }
}

void node_chunk_put(struct node *n,
                    const uint8_t id[32],
                    struct slice sealed,
                    void (*cb)(void *ctx, int rc),
                    void *ctx)
{
    struct put_job *j = mem_calloc(1, sizeof *j);
    buf_append(&j->own, sealed.ptr, sealed.len);
    chunk_put(n, id, j, buf_slice(&j->own), cb, ctx);
}

/* ---- get ---- */

struct get_job {
    struct store_get get;
    chunk_got_cb cb;
    void *ctx;
};

static void get_done(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct get_job *j = CONTAINER_OF(get, struct get_job, get);
    struct buf out = {0};
    if (rc == 0) {
        /* In the memory that it was read into; a little further to the front. */
        size_t len = data->data.len;
        memmove(data->mem, data->data.ptr, len);
        out = (struct buf){.ptr = data->mem, .len = len, .cap = len};
        *data = (struct chunk_buf){0};
    }
    j->cb(j->ctx, rc, &out);
    buf_deinit(&out);
    mem_free(j);
}

void node_chunk_get_local(struct node *n, const uint8_t id[32], chunk_got_cb cb, void *ctx)
{
    struct get_job *j = mem_calloc(1, sizeof *j);
    struct buf none = {0};
    memcpy(j->get.id.b, id, sizeof j->get.id.b);
    j->get.done = get_done;
    j->cb = cb;
    j->ctx = ctx;
    int rc = front_get(n->front, &j->get);
    if (rc != 0) {
        mem_free(j);
        cb(ctx, rc, &none);
    }
}

/* One chunk that is being fetched from another site, and who waits for it. */
struct chunk_waiter {
    chunk_got_cb cb;
    void *ctx;
    bool stored; /* it wants to know that it is here, not only what it is */
    struct chunk_waiter *next;
};
struct chunk_wait {
    struct node *n;
    uint8_t id[32];
    struct chunk_waiter *waiters;
    struct buf sealed;
    struct chunk_wait *next;
};

/* rc of fetching; of storing what was fetched. */
static void wait_finish(struct chunk_wait *w, int rc, int stored)
{
    struct chunk_wait **at = &w->n->chunk_waits;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    while (w->waiters != NULL) {
        struct chunk_waiter *one = w->waiters;
        struct buf copy = {0};
        w->waiters = one->next;
        int own = rc == 0 && one->stored ? stored : rc;
        if (own == 0 && w->waiters == NULL)
            buf_move(&copy, &w->sealed);
        else if (own == 0)
            buf_append(&copy, w->sealed.ptr, w->sealed.len);
        one->cb(one->ctx, own, &copy);
        buf_deinit(&copy);
        mem_free(one);
    }
    buf_deinit(&w->sealed);
    mem_free(w);
}

static void fetched_stored(void *ctx, int rc)
{
    struct chunk_wait *w = ctx;
    if (rc != 0) /* readers get it all the same; the next one fetches again */
        log_warn(LOG_SITE, "fetched_chunk_not_stored", "why=\"%s\"", err_text(rc));
    wait_finish(w, 0, rc);
}

static void fetched(void *ctx, int rc, struct buf *sealed)
{
    struct chunk_wait *w = ctx;
    if (rc != 0) {
        wait_finish(w, rc, 0);
        return;
    }
    buf_move(&w->sealed, sealed);
    struct put_job *j = mem_calloc(1, sizeof *j);
    chunk_put(w->n, w->id, j, buf_slice(&w->sealed), fetched_stored, w);
}

static void
chunk_fetch(struct node *n, const uint8_t id[32], bool stored, chunk_got_cb cb, void *ctx)
{
    struct buf none = {0};
    struct chunk_wait *w = n->chunk_waits;
    if (n->fetch == NULL || n->stopping) {
        cb(ctx, n->stopping ? ERR_CLOSED : ERR_NOT_FOUND, &none);
        return;
    }
    while (w != NULL && memcmp(w->id, id, 32) != 0)
        w = w->next;
    bool first = w == NULL;
    if (first) {
        w = mem_calloc(1, sizeof *w);
        w->n = n;
        memcpy(w->id, id, 32);
        w->next = n->chunk_waits;
        n->chunk_waits = w;
    }
    struct chunk_waiter *one = mem_calloc(1, sizeof *one);
    one->cb = cb;
    one->ctx = ctx;
    one->stored = stored;
    one->next = w->waiters;
    w->waiters = one;
    if (first)
        n->fetch(n->fetch_ctx, w->id, fetched, w);
}

void node_chunk_fetch(struct node *n, const uint8_t id[32], chunk_got_cb cb, void *ctx)
{
    chunk_fetch(n, id, false, cb, ctx);
}

void node_chunk_bring(struct node *n, const uint8_t id[32], chunk_got_cb cb, void *ctx)
{
    chunk_fetch(n, id, true, cb, ctx);
}

void node_set_fetcher(struct node *n,
                      void (*fetch)(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx),
                      void *fctx)
{
    n->fetch = fetch;
    n->fetch_ctx = fctx;
}

static void call_got_remote(void *ctx, int rc, struct buf *sealed)
{
    struct call *c = ctx;
    buf_move(&c->keep[0], sealed);
    c->reply_bulk = buf_slice(&c->keep[0]);
    /* Every site that has it is out of reach: an I/O error to the reader, not "no such file". */
    c->reply.rc = rc == ERR_NOT_FOUND ? ERR_UNREACHABLE : rc;
    node_call_finish(c);
}

/* What was read goes out from where it lies. */
static void keep_chunk(struct call *c, struct chunk_buf *data)
{
    size_t end = (size_t)(data->data.ptr - (const uint8_t *)data->mem) + data->data.len;
    buf_deinit(&c->keep[0]);
    c->keep[0] = (struct buf){.ptr = data->mem, .len = end, .cap = end};
    c->reply_bulk = data->data;
    *data = (struct chunk_buf){0};
}

/* It was read to where the client finds it. */
static void say_shared(struct call *c, struct slice chunk)
{
    size_t len;
    const uint8_t *share = rpc_share(c->conn, &len);
    uint64_t at = (uint64_t)(chunk.ptr - share);
    ASSERT(at <= len && chunk.len <= len - at);
    c->reply.flags |= REPLY_SHARED;
    c->reply.number2 = at << 32 | chunk.len;
}

struct call_get {
    struct store_get get;
    struct call *call;
};

static void call_got(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct call_get *g = CONTAINER_OF(get, struct call_get, get);
    struct call *c = g->call;
    mem_free(g);
    if (rc == ERR_NOT_FOUND || rc == ERR_CORRUPT) {
        node_chunk_fetch(c->n, c->req.chunk, call_got_remote, c);
        return;
    }
    if (rc == 0 && data->mem == NULL)
        say_shared(c, data->data);
    else if (rc == 0)
        keep_chunk(c, data);
    c->reply.rc = rc;
    node_call_finish(c);
}

static int call_chunk_whole(struct call *c)
{
    struct call_get *g = mem_calloc(1, sizeof *g);
    g->call = c;
    g->get.done = call_got;
    if ((c->req.flags & CHUNK_SHARED) != 0 && c->conn != NULL)
        g->get.room = rpc_share(c->conn, &g->get.room_len);
    memcpy(g->get.id.b, c->req.chunk, sizeof g->get.id.b);
    int rc = front_get(c->n->front, &g->get);
    if (rc != 0)
        mem_free(g);
    return rc == 0 ? CALL_HELD : rc == ERR_LIMIT ? ERR_AGAIN : rc;
}

/* ---- get a little of it ---- */

/* Beginning and range of a chunk, read beside each other. */
struct cut {
    struct call *call;
    struct cut_get {
        struct store_get get;
        struct cut *cut;
        struct buf bytes;
    } head, range;
    unsigned open;
    int rc;
};

static void cut_answer(struct call *c, struct slice head, struct slice range, uint32_t chunk_len)
{
    struct buf *out = &c->keep[0];
    buf_reserve(out, head.len + range.len);
    buf_append(out, head.ptr, head.len);
    buf_append(out, range.ptr, range.len);
    c->reply_bulk = buf_slice(out);
    c->reply.number2 = chunk_len;
}

static void cut_from_remote(void *ctx, int rc, struct buf *sealed)
{
    struct call *c = ctx;
    if (rc == 0) {
        size_t from = (size_t)MIN(c->req.size, sealed->len);
        size_t head = (c->req.flags & CHUNK_GET_HEAD) != 0 ? CHUNK_HEAD_BYTES_MAX : 0;
        cut_answer(c, slice_of(sealed->ptr, MIN(head, sealed->len)),
                   slice_of(sealed->ptr + from, MIN(c->req.count, sealed->len - from)),
                   (uint32_t)sealed->len);
    }
    c->reply.rc = rc == ERR_NOT_FOUND ? ERR_UNREACHABLE : rc;
    node_call_finish(c);
}

static void cut_over(struct cut *cut)
{
    struct call *c = cut->call;
    int rc = cut->rc;
    if (rc == 0)
        cut_answer(c, buf_slice(&cut->head.bytes), buf_slice(&cut->range.bytes),
                   cut->range.get.chunk_len);
    buf_deinit(&cut->head.bytes);
    buf_deinit(&cut->range.bytes);
    mem_free(cut);
    if (rc == ERR_NOT_FOUND || rc == ERR_CORRUPT) {
        node_chunk_fetch(c->n, c->req.chunk, cut_from_remote, c);
        return;
    }
    c->reply.rc = rc;
    node_call_finish(c);
}

static void cut_got(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct cut_get *g = CONTAINER_OF(get, struct cut_get, get);
    struct cut *cut = g->cut;
    if (rc == 0)
        buf_append(&g->bytes, data->data.ptr, data->data.len);
    cut->rc = cut->rc == 0 ? rc : cut->rc;
    if (--cut->open == 0)
        cut_over(cut);
}

static int cut_get(struct cut *cut, struct cut_get *g, uint32_t from, uint32_t len)
{
    struct call *c = cut->call;
    g->cut = cut;
    g->get = (struct store_get){.from = from, .len = len, .done = cut_got};
    memcpy(g->get.id.b, c->req.chunk, sizeof g->get.id.b);
    int rc = front_get(c->n->front, &g->get);
    cut->open += rc == 0;
    return rc;
}

static int call_chunk_cut(struct call *c)
{
    if (c->req.size > LIMIT_CHUNK_SEALED_BYTES || c->req.count > LIMIT_CHUNK_SEALED_BYTES)
        return ERR_INVALID;
    struct cut *cut = mem_calloc(1, sizeof *cut);
    cut->call = c;
    int rc = cut_get(cut, &cut->range, (uint32_t)c->req.size, c->req.count);
    if (rc == 0 && (c->req.flags & CHUNK_GET_HEAD) != 0)
        rc = cut_get(cut, &cut->head, 0, CHUNK_HEAD_BYTES_MAX);
    cut->rc = rc == ERR_LIMIT ? ERR_AGAIN : rc;
    if (cut->open > 0)
        return CALL_HELD; /* gets are never done from inside */
    rc = cut->rc;
    mem_free(cut);
    return rc;
}

int call_chunk_get(struct call *c)
{
    if (!c->req.has_chunk)
        return ERR_INVALID;
    return c->req.count > 0 ? call_chunk_cut(c) : call_chunk_whole(c);
}

/* ---- has ---- */

struct has_job {
    struct store_has has;
    struct call *call;
    struct chunk_id *ids;
    bool *present;
};

static void has_done(struct store_has *has, int rc)
{
    struct has_job *j = CONTAINER_OF(has, struct has_job, has);
    struct call *c = j->call;
    for (uint32_t i = 0; i < has->count && rc == 0; i++)
        enc_u8(&c->keep[0], j->present[i]);
    c->reply.rc = rc;
    c->reply.data = buf_slice(&c->keep[0]);
    mem_free(j->ids);
    mem_free(j->present);
    mem_free(j);
    node_call_finish(c);
}

int call_chunk_has(struct call *c)
{
    size_t count = c->req.data.len / 32;
    if (count == 0 || count > STORE_HAS_MAX || c->req.data.len % 32 != 0)
        return ERR_INVALID;
    struct has_job *j = mem_calloc(1, sizeof *j);
    j->ids = mem_calloc(count, sizeof *j->ids);
    j->present = mem_calloc(count, sizeof *j->present);
    for (size_t i = 0; i < count; i++)
        memcpy(j->ids[i].b, c->req.data.ptr + 32 * i, 32);
    j->has.ids = j->ids;
    j->has.count = (uint32_t)count;
    j->has.keep = true;
    j->has.present = j->present;
    j->has.done = has_done;
    j->call = c;
    int rc = front_has(c->n->front, &j->has);
    if (rc != 0) {
        mem_free(j->ids);
        mem_free(j->present);
        mem_free(j);
    }
    return rc == 0 ? CALL_HELD : rc == ERR_LIMIT ? ERR_AGAIN : rc;
}

/* ---- statfs, sync ---- */

int call_statfs(struct call *c)
{
    struct statvfs v;
    struct store_stats st;
    if (statvfs(c->n->dir, &v) != 0)
        return ERR_IO;
    store_stats(c->n->store, &st);
    c->reply.has_statfs = true;
    c->reply.statfs = (struct fs_statfs){.block_bytes = v.f_frsize,
                                         .blocks = v.f_blocks,
                                         .blocks_free = st.free_bytes / v.f_frsize,
                                         .blocks_available = st.free_bytes / v.f_frsize,
                                         .files = v.f_files,
                                         .files_free = v.f_ffree};
    return 0;
}

void node_store_stats(struct node *n, struct store_stats *ret)
{
    store_stats(n->store, ret);
}

int call_sync(struct call *c)
{
    for (unsigned i = 0; i < c->n->settings.shard_count && !PLANTED(80); i++)
        call_hold_durable(c, c->n->shards[i], log_last(shard_log(c->n->shards[i])));
    return 0;
}

/* One target so far: what is wanted is fitted to what there is, by the same rule as for many. */
static int front_open(struct node *n)
{
    struct front_target one = {
        .target = {.id = n->settings.site, .domain = n->settings.site, .weight = 1},
        .store = n->store};
    struct redundancy r = redundancy_fit(REDUNDANCY_WANTED, placement_domains(&one.target, 1));
    return front_new(&n->front, &one, 1, &r);
}

int node_store_open(struct node *n, struct err_detail *d)
{
    char *dir = mem_printf("%s/chunks", n->dir);
    struct store_recovery info;
    struct store_config sc = {
        .dir = dir, .loop = n->loop, .pool = n->pool, .ctx = n, .on_damaged = node_chunk_damaged};
    int rc = store_open(&n->store, &sc, &info, d);
    if (rc == 0 && (info.torn_bytes > 0 || info.damaged > 0))
        log_warn(LOG_SITE, "chunk_store_recovered", "torn_bytes=%llu file=%s damaged=%llu",
                 (unsigned long long)info.torn_bytes, info.torn_file,
                 (unsigned long long)info.damaged);
    mem_free(dir);
    if (rc == 0)
        rc = front_open(n);
    if (rc == 0) {
        node_past_open(n);
        node_garbage_open(n);
    }
    if (rc == 0)
        rc = node_upkeep_open(n);
    return rc != 0 ? rc : node_bring_open(n);
}

void node_chunks_deinit(struct node *n)
{
    while (n->chunk_waits != NULL)
        wait_finish(n->chunk_waits, ERR_CLOSED, 0);
    node_bring_close(n);
    node_upkeep_close(n);
    node_garbage_close(n);
    node_past_close(n);
    front_free(n->front);
    n->front = NULL;
}
