#include "tests/unit/client/fileio_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "client/cache_pages.h"
#include "data/chunk.h"

/* ---- a site ---- */

struct oid oid_of(uint64_t n)
{
    return oid_file(1, OID_FILE, 7, n + 1);
}

static struct site_file *file_at(struct site *s, struct oid oid)
{
    for (uint64_t n = 0; n < FILES_MAX; n++)
        if (oid_equal(oid_of(n), oid))
            return &s->files[n];
    return NULL;
}

static void give(const struct site_file *f, struct conn_call *call)
{
    static __thread uint8_t bytes[LIMIT_INLINE_BYTES];
    struct fs_reply *r = &call->reply;
    r->has_attr = r->has_content = true;
    r->attr = (struct fs_attr){.oid = call->req.oid,
                               .ino = oid_ino(call->req.oid),
                               .size = f->content.size,
                               .mtime_ns = f->mtime_ns,
                               .ctime_ns = (int64_t)f->seq,
                               .change = f->seq,
                               .version = {.seq = f->seq, .site = 7, .shard = 1}};
    r->content = f->content;
    if (f->content.kind == CONTENT_INLINE && f->content.bytes.len > 0) {
        memcpy(bytes, f->content.bytes.ptr, f->content.bytes.len);
        r->content.bytes = slice_of(bytes, f->content.bytes.len);
    }
}

static void chunk_keep(struct site *s, const struct chunk_id *id, struct slice sealed)
{
    if (id_map_get(&s->chunks, id) != NULL)
        return;
    if (s->sealed_count == s->sealed_cap) {
        assert_true(s->sealed_cap == 0);
        s->sealed_cap = 65536; /* never moves: readers hold slices */
        s->sealed = mem_calloc(s->sealed_cap, sizeof *s->sealed);
    }
    assert_true(s->sealed_count < s->sealed_cap);
    buf_append(&s->sealed[s->sealed_count], sealed.ptr, sealed.len);
    id_map_set(&s->chunks, id, ++s->sealed_count);
}

static int commit(struct site *s, struct site_file *f, struct conn_call *call)
{
    struct rider riders[RIDERS_MAX];
    uint32_t count = 0;
    if (s->fail_commits > 0) {
        s->fail_commits--;
        return ERR_NO_SPACE;
    }
    assert_int_equal(riders_decode(call->bulk, riders, &count), 0);
    s->rides += count;
    for (uint32_t i = 0; i < count; i++) {
        struct chunk_id id = chunk_id_of(riders[i].id);
        chunk_keep(s, &id, riders[i].sealed);
    }
    if (call->req.base.seq != f->seq) {
        s->stale++;
        give(f, call);
        return ERR_STALE_BASE;
    }
    s->commits++;
    pthread_cond_broadcast(&s->was_put);
    if (f->content.kind == CONTENT_INLINE)
        mem_free((void *)(uintptr_t)f->content.bytes.ptr);
    f->content = call->req.content;
    if (f->content.kind == CONTENT_INLINE)
        f->content.bytes.ptr = mem_dup(f->content.bytes.ptr, f->content.bytes.len);
    f->mtime_ns = call->req.mtime_ns;
    f->seq++;
    give(f, call);
    return 0;
}

/* Beginning and range, as a node gives them; one byte of the range is wrong when that is asked. */
static void cut(const struct site *s, struct conn_call *call)
{
    static __thread uint8_t out[512 * 1024];
    struct slice all = call->reply_bulk;
    size_t head = (call->req.flags & CHUNK_GET_HEAD) != 0 ? MIN(all.len, CHUNK_HEAD_BYTES_MAX) : 0;
    size_t from = MIN(call->req.size, all.len), len = MIN(call->req.count, all.len - from);
    memcpy(out, all.ptr, head);
    memcpy(out + head, all.ptr + from, len);
    if (s->spoil && len > 0)
        out[head + len / 2] ^= 1;
    call->reply_bulk = slice_of(out, head + len);
    call->reply.number2 = all.len;
}

static int chunk(struct site *s, struct conn_call *call)
{
    struct chunk_id id = chunk_id_of(call->req.chunk);
    uint64_t *at = id_map_get(&s->chunks, &id);
    if (call->type == RPC_CHUNK_GET) {
        if (at == NULL)
            return ERR_NOT_FOUND;
        call->reply_bulk = buf_slice(&s->sealed[*at - 1]);
        if (call->req.count > 0)
            cut(s, call);
        s->served += call->reply_bulk.len;
        return 0;
    }
    s->puts++;
    pthread_cond_broadcast(&s->was_put);
    if (s->at_put.fn != NULL)
        *(s->at_put.fn(s->at_put.ctx) ? &s->at_put.yes : &s->at_put.no) += 1;
    if (s->fail_puts > 0) {
        s->fail_puts--;
        return ERR_NO_SPACE;
    }
    chunk_keep(s, &id, call->bulk);
    return 0;
}

static int chunk_has(struct site *s, struct conn_call *call)
{
    static const uint8_t yes = 1, no = 0;
    struct chunk_id id = chunk_id_of(call->req.data.ptr);
    call->reply.data = slice_of(id_map_get(&s->chunks, &id) != NULL ? &yes : &no, 1);
    return 0;
}

static void close_files(struct site *s, const struct conn_call *call)
{
    for (uint32_t i = 0; i < call->req.oid_count; i++)
        file_at(s, call->req.oids[i])->opens--;
}

static int answer(void *ctx, struct conn_call *call)
{
    struct site *s = ctx;
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    struct site_file *f = call->type == RPC_CLOSE ? NULL : file_at(s, call->req.oid);
    call->reply = (struct fs_reply){0};
    s->requests++;
    switch (call->type) {
    case RPC_OPEN:
        f->opens++;
        give(f, call);
        break;
    case RPC_CONTENT:
        give(f, call);
        break;
    case RPC_CLOSE:
        close_files(s, call);
        break;
    case RPC_COMMIT:
        rc = commit(s, f, call);
        break;
    case RPC_CHUNK_PUT:
    case RPC_CHUNK_GET:
        rc = chunk(s, call);
        break;
    case RPC_CHUNK_HAS:
        rc = chunk_has(s, call);
        break;
    default:
        rc = ERR_INVALID;
        break;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* ---- a mount ---- */

static void on_evicted(void *ctx, struct inode *i)
{
    struct client *c = ctx;
    file_evict(c->io, i);
}

static void on_pages(void *ctx, struct inode *i)
{
    struct client *c = ctx;
    (void)i;
    c->pages_changed++;
}

static void on_conflict(void *ctx, struct flight_job *job)
{
    (void)ctx;
    (void)job;
}

static void client_init(struct client *c, struct site *s, size_t memory_bytes)
{
    static const uint8_t key[32] = {1, 2, 3};
    *c = (struct client){.conn = conn_open_local(answer, s)};
    inode_clock_init(&c->clock);
    flight_init(&c->flight, on_conflict, NULL);
    c->inodes = inode_table_new(on_evicted, c);
    struct fileio_config config = {.conn = c->conn,
                                   .clock = &clock_os,
                                   .inodes = c->inodes,
                                   .inode_clock = &c->clock,
                                   .flight = &c->flight,
                                   .fs_key = key,
                                   .memory_bytes = memory_bytes,
                                   .worker_count = 2,
                                   .commit_age_ms = 1000000,
                                   .pages_changed = on_pages,
                                   .ctx = c};
    assert_int_equal(fileio_new(&c->io, &config), 0);
}

static void client_deinit(struct client *c)
{
    assert_int_equal(fileio_sync_all(c->io), 0);
    fileio_stop(c->io);
    inode_table_free(c->inodes);
    fileio_free(c->io);
    flight_deinit(&c->flight);
    inode_clock_deinit(&c->clock);
    conn_free(c->conn);
}

struct open_file *open_nth(struct client *c, uint64_t n)
{
    struct oid oid = oid_of(n);
    struct inode *i = inode_table_enter(c->inodes, oid, oid_ino(oid), 1);
    struct open_file *h;
    bool keep;
    assert_int_equal(file_open(c->io, i, 0, &h, &keep), 0);
    inode_unref(c->inodes, i);
    return h;
}

void put(struct client *c, struct open_file *h, uint64_t at, const void *p, size_t len)
{
    assert_int_equal(file_write(c->io, h->inode, at, slice_of(p, len), 0), 0);
}

void put_pages(struct client *c, struct open_file *h, uint64_t at, const uint8_t *p, size_t len)
{
    uint8_t *pages[16];
    struct file_pages data = {.at = pages, .len = len};
    size_t count = (len + PAGES_BYTES - 1) / PAGES_BYTES;
    assert_true(count <= ARRAY_COUNT(pages));
    for (size_t i = 0; i < count; i++) {
        pages[i] = pages_get();
        memcpy(pages[i], p + i * PAGES_BYTES, MIN(PAGES_BYTES, len - i * PAGES_BYTES));
    }
    assert_int_equal(file_write_pages(c->io, h->inode, at, data, 0), 0);
    for (size_t i = 0; i < count; i++)
        if (pages[i] != NULL)
            pages_put(pages[i]);
}

void check(struct client *c, struct open_file *h, uint64_t at, const void *p, size_t len)
{
    uint8_t *got = mem_alloc(len + 1);
    size_t n;
    assert_int_equal(file_read(c->io, h, at, got, len, &n), 0);
    assert_int_equal(n, len);
    assert_memory_equal(got, p, len);
    mem_free(got);
}

/* The site tells this mount that file `n` changed. */
void told(struct client *c, uint64_t n)
{
    struct oid oid = oid_of(n);
    inode_clock_hit(&c->clock, oid);
    struct inode *i = inode_table_find(c->inodes, oid);
    if (i != NULL)
        file_invalidate(c->io, i);
    inode_unref(c->inodes, i);
}

static int setup_with(void **state, size_t memory_bytes)
{
    struct fixture *x = mem_calloc(1, sizeof *x);
    pthread_mutex_init(&x->site.lock, NULL);
    pthread_cond_init(&x->site.was_put, NULL);
    for (unsigned n = 0; n < FILES_MAX; n++)
        x->site.files[n] = (struct site_file){.seq = 1, .content.kind = CONTENT_INLINE};
    client_init(&x->a, &x->site, memory_bytes);
    client_init(&x->b, &x->site, memory_bytes);
    *state = x;
    return 0;
}

int setup(void **state)
{
    return setup_with(state, 32u << 20);
}

int setup_roomy(void **state)
{
    return setup_with(state, 256u << 20);
}

int teardown(void **state)
{
    struct fixture *x = *state;
    client_deinit(&x->a);
    client_deinit(&x->b);
    for (unsigned n = 0; n < FILES_MAX; n++) {
        assert_int_equal(x->site.files[n].opens, 0);
        if (x->site.files[n].content.kind == CONTENT_INLINE)
            mem_free((void *)(uintptr_t)x->site.files[n].content.bytes.ptr);
    }
    for (size_t i = 0; i < x->site.sealed_count; i++)
        buf_deinit(&x->site.sealed[i]);
    mem_free(x->site.sealed);
    id_map_deinit(&x->site.chunks);
    pthread_cond_destroy(&x->site.was_put);
    pthread_mutex_destroy(&x->site.lock);
    mem_free(x);
    return 0;
}

void done(struct client *c, struct open_file *h)
{
    struct inode *i = h->inode;
    file_close(c->io, h);
    inode_table_forget(c->inodes, i->id, 1);
}

uint8_t *make_bytes(size_t len, bool compressible)
{
    uint8_t *b = mem_alloc(len);
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t i = 0; i < len; i++)
        b[i] = compressible ? (uint8_t)((i >> 15) + (uint8_t) "some words to pack "[i % 19])
                            : (uint8_t)rng_next(&rng);
    return b;
}
