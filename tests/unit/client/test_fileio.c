/* The data path against a small site in memory: versions, stale bases, chunks. Two mounts of one
 * site, each with its own caches, change the same files; what both did must be there. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/clock.h"
#include "client/fileio.h"
#include "data/chunk.h"
#include "data/chunk_id.h"

#define FILES_MAX 4u
#define BIG (3u * 1024u * 1024u)

/* ---- a site ---- */

struct site_file {
    uint64_t seq;
    struct content content; /* inline bytes owned */
    int64_t mtime_ns;
    unsigned opens;
};
struct site {
    pthread_mutex_t lock;
    struct site_file files[FILES_MAX];
    struct id_map chunks; /* id -> index + 1 */
    struct buf *sealed;
    size_t sealed_count, sealed_cap;
    uint64_t commits, stale, puts, rides, requests;
    uint64_t served;  /* bytes of chunks */
    int fail_commits; /* so many fail with NO_SPACE */
    bool spoil;       /* what is given of a chunk in part is damaged */
};

static struct oid oid_of(uint64_t n)
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

struct client {
    struct conn *conn;
    struct inode_table *inodes;
    struct inode_clock clock;
    struct flight flight;
    struct fileio *io;
    unsigned pages_changed; /* not exact under threads; only for single-threaded tests */
};

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

static void client_init(struct client *c, struct site *s)
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
                                   .memory_bytes = 32u << 20,
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

static struct open_file *open_nth(struct client *c, uint64_t n)
{
    struct oid oid = oid_of(n);
    struct inode *i = inode_table_enter(c->inodes, oid, oid_ino(oid), 1);
    struct open_file *h;
    bool keep;
    assert_int_equal(file_open(c->io, i, 0, &h, &keep), 0);
    inode_unref(c->inodes, i);
    return h;
}

static void put(struct client *c, struct open_file *h, uint64_t at, const void *p, size_t len)
{
    assert_int_equal(file_write(c->io, h->inode, at, slice_of(p, len), 0), 0);
}

static void check(struct client *c, struct open_file *h, uint64_t at, const void *p, size_t len)
{
    uint8_t *got = mem_alloc(len + 1);
    size_t n;
    assert_int_equal(file_read(c->io, h, at, got, len, &n), 0);
    assert_int_equal(n, len);
    assert_memory_equal(got, p, len);
    mem_free(got);
}

/* The site tells this mount that file `n` changed. */
static void told(struct client *c, uint64_t n)
{
    struct oid oid = oid_of(n);
    inode_clock_hit(&c->clock, oid);
    struct inode *i = inode_table_find(c->inodes, oid);
    if (i != NULL)
        file_invalidate(c->io, i);
    inode_unref(c->inodes, i);
}

struct fixture {
    struct site site;
    struct client a, b;
};

static int setup(void **state)
{
    struct fixture *x = mem_calloc(1, sizeof *x);
    pthread_mutex_init(&x->site.lock, NULL);
    for (unsigned n = 0; n < FILES_MAX; n++)
        x->site.files[n] = (struct site_file){.seq = 1, .content.kind = CONTENT_INLINE};
    client_init(&x->a, &x->site);
    client_init(&x->b, &x->site);
    *state = x;
    return 0;
}

static int teardown(void **state)
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
    pthread_mutex_destroy(&x->site.lock);
    mem_free(x);
    return 0;
}

static void done(struct client *c, struct open_file *h)
{
    struct inode *i = h->inode;
    file_close(c->io, h);
    inode_table_forget(c->inodes, i->id, 1);
}

/* ---- tests ---- */

static void test_small_file_is_one_inline_commit(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    put(&x->a, h, 0, "hello ", 6);
    put(&x->a, h, 6, "world", 5);
    check(&x->a, h, 0, "hello world", 11);
    assert_int_equal(x->site.commits, 0);
    assert_true(file_is_dirty(h->inode));
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_false(file_is_dirty(h->inode));
    assert_int_equal(x->site.commits, 1);
    assert_int_equal(x->site.puts, 0);
    assert_int_equal(x->site.files[0].content.size, 11);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, "hello world", 11);
    done(&x->b, h);
}

static void test_large_file_round_trip(void **state)
{
    struct fixture *x = *state;
    uint8_t *data = mem_alloc(BIG);
    struct rng r;
    rng_seed(&r, 3);
    for (size_t i = 0; i < BIG; i++)
        data[i] = (uint8_t)rng_next(&r);
    struct open_file *h = open_nth(&x->a, 0);
    for (size_t at = 0; at < BIG; at += 100000)
        put(&x->a, h, at, data + at, MIN(100000, BIG - at));
    done(&x->a, h);
    assert_int_equal(x->site.files[0].content.kind, CONTENT_MANIFEST);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data, BIG);
    check(&x->b, h, 65530, data + 65530, 20);
    /* One byte in the middle: one block and its path in the manifest. */
    uint64_t before = x->site.puts;
    data[BIG / 2] ^= 1;
    put(&x->b, h, BIG / 2, data + BIG / 2, 1);
    assert_int_equal(file_flush(x->b.io, h->inode), 0);
    assert_true(x->site.puts - before <= 3);
    check(&x->b, h, 0, data, BIG);
    done(&x->b, h);
    mem_free(data);
}

/* Blocks and nodes of a small change travel with the commit: one request, and no question. */
static void test_small_change_of_large_file_is_one_request(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    uint8_t *big = mem_alloc(BIG);
    memset(big, 7, BIG);
    put(&x->a, h, 0, big, BIG);
    assert_int_equal(file_sync(x->a.io, h->inode), 0);
    uint64_t before = x->site.requests;
    put(&x->a, h, 1000000, "changed", 7);
    assert_int_equal(file_sync(x->a.io, h->inode), 0);
    assert_int_equal(x->site.requests, before + 1);
    assert_int_equal(x->site.rides, 2);
    put(&x->a, h, 10, "to be refused", 13);
    x->site.fail_commits = 1;
    assert_int_equal(file_sync(x->a.io, h->inode), ERR_NO_SPACE);
    assert_int_equal(file_sync(x->a.io, h->inode), 0);
    memcpy(big + 1000000, "changed", 7);
    memcpy(big + 10, "to be refused", 13);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, big, BIG);
    done(&x->b, h);
    mem_free(big);
}

/* Small changes of large blocks, until cutting the file anew has paid; its bytes and holes stay. */
static void test_file_that_is_changed_here_and_there_gets_small_blocks(void **state)
{
    struct fixture *x = *state;
    const size_t len = 6u << 20, hole = 2u << 20;
    struct open_file *h = open_nth(&x->a, 0);
    uint8_t *big = mem_calloc(len, 1);
    for (size_t i = 0; i < len; i++)
        big[i] = i < hole ? 0 : (uint8_t)(i * 7 + (i >> 16));
    put(&x->a, h, hole, big + hole, len - hole);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    for (size_t i = 0; i < 8; i++) {
        size_t at = hole + i * 500000;
        memcpy(big + at, "page", 4);
        put(&x->a, h, at, "page", 4);
        assert_int_equal(file_flush(x->a.io, h->inode), 0);
    }
    assert_int_equal(x->site.files[0].content.block_bytes, 64 * KIB);
    assert_int_equal(x->site.files[0].content.data_blocks, (len - hole) / (64 * KIB));
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, big, len);
    /* Written anew as a whole, it is cut as any file of its length. */
    assert_int_equal(file_truncate(x->b.io, h->inode, 0, 0), 0);
    put(&x->b, h, 0, big, len);
    assert_int_equal(file_flush(x->b.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    done(&x->b, h);
    mem_free(big);
}

static uint8_t *make_bytes(size_t len, bool compressible)
{
    uint8_t *b = mem_alloc(len);
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t i = 0; i < len; i++)
        b[i] = compressible ? (uint8_t)((i >> 15) + (uint8_t) "some words to pack "[i % 19])
                            : (uint8_t)rng_next(&rng);
    return b;
}

/* Who jumps about in a large file and reads a little gets a little, whatever its form, until most
 * of a chunk was wanted; nothing that is damaged is believed. */
static void reads_parts(struct fixture *x, bool compressible)
{
    const size_t len = 8u << 20;
    uint8_t *big = make_bytes(len, compressible);
    struct open_file *h = open_nth(&x->a, 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 0, 0), 0);
    put(&x->a, h, 0, big, len);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, MIB);
    done(&x->a, h);
    told(&x->b, 0);
    h = open_nth(&x->b, 0);
    uint64_t before = x->site.served;
    check(&x->b, h, 5000000, big + 5000000, 4096);
    check(&x->b, h, 3000000, big + 3000000, 4096);
    check(&x->b, h, 3 * MIB - 2048, big + 3 * MIB - 2048, 4096); /* over a border */
    check(&x->b, h, 16384 * 7 - 100, big + 16384 * 7 - 100, 200);
    assert_true(x->site.served - before < 200000);
    before = x->site.served;
    check(&x->b, h, 5000100, big + 5000100, 1000); /* of a part that is here */
    assert_int_equal(x->site.served, before);
    x->site.spoil = true;
    check(&x->b, h, 6000000, big + 6000000, 4096);
    check(&x->b, h, 1000, big + 1000, 4096);
    x->site.spoil = false;
    for (size_t at = 4 * MIB + 900000; at > 4 * MIB; at -= 30000)
        check(&x->b, h, at, big + at, 4096);
    before = x->site.served;
    check(&x->b, h, 4 * MIB + 7, big + 4 * MIB + 7, 900000);
    assert_int_equal(x->site.served, before); /* the whole chunk is here by now */
    done(&x->b, h);
    mem_free(big);
}

static void test_small_reads_here_and_there_fetch_parts(void **state)
{
    reads_parts(*state, false);
    reads_parts(*state, true);
}

static void test_sparse_file_begins_with_small_blocks(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 1u << 30, 0), 0);
    put(&x->a, h, 777u << 20, "superblock", 10);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.block_bytes, 64 * KIB);
    check(&x->a, h, 777u << 20, "superblock", 10);
    done(&x->a, h);
}

static void test_both_mounts_ranges_are_kept(void **state)
{
    struct fixture *x = *state;
    struct open_file *ha = open_nth(&x->a, 0), *hb = open_nth(&x->b, 0);
    uint8_t zeros[100000] = {0};
    put(&x->a, ha, 99999, "", 1);
    assert_int_equal(file_flush(x->a.io, ha->inode), 0);
    told(&x->b, 0);
    check(&x->b, hb, 0, zeros, sizeof zeros);
    put(&x->a, ha, 10, "from a", 6);
    put(&x->b, hb, 20, "from b", 6);
    put(&x->b, hb, 70000, "b again", 7);
    assert_int_equal(file_flush(x->a.io, ha->inode), 0);
    assert_int_equal(file_flush(x->b.io, hb->inode), 0);
    assert_int_equal(x->site.stale, 1);
    assert_int_equal(x->b.pages_changed, 1); /* the kernel there is told of a's bytes */
    check(&x->b, hb, 10, "from a", 6);
    told(&x->a, 0);
    check(&x->a, ha, 20, "from b", 6);
    check(&x->a, ha, 70000, "b again", 7);
    check(&x->a, ha, 10, "from a", 6);
    done(&x->a, ha);
    done(&x->b, hb);
}

static void test_appends_of_both_mounts_are_kept(void **state)
{
    struct fixture *x = *state;
    struct open_file *ha = open_nth(&x->a, 0), *hb = open_nth(&x->b, 0);
    struct slice a = slice_str("aaaa"), b = slice_str("bb");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(file_write(x->a.io, ha->inode, 0, a, FILE_WRITE_APPEND), 0);
        assert_int_equal(file_write(x->b.io, hb->inode, 0, b, FILE_WRITE_APPEND), 0);
        assert_int_equal(file_flush(x->a.io, ha->inode), 0);
        assert_int_equal(file_flush(x->b.io, hb->inode), 0);
    }
    assert_int_equal(x->site.files[0].content.size, 60);
    unsigned as = 0, bs = 0;
    for (size_t i = 0; i < 60; i++) {
        as += x->site.files[0].content.bytes.ptr[i] == 'a';
        bs += x->site.files[0].content.bytes.ptr[i] == 'b';
    }
    assert_int_equal(as, 40);
    assert_int_equal(bs, 20);
    done(&x->a, ha);
    done(&x->b, hb);
}

static void test_failed_commit_is_reported_once_and_tried_again(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0), *other = open_nth(&x->a, 0);
    put(&x->a, h, 0, "data", 4);
    x->site.fail_commits = 1;
    assert_int_equal(file_flush(x->a.io, h->inode), ERR_NO_SPACE);
    assert_int_equal(file_error(h), ERR_NO_SPACE);
    assert_int_equal(file_error(h), 0);
    assert_int_equal(file_error(other), ERR_NO_SPACE); /* each handle hears of it */
    check(&x->a, h, 0, "data", 4);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.size, 4);
    done(&x->a, h);
    done(&x->a, other);
}

static void test_cut_and_extend_reads_zeros(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    uint8_t *data = mem_alloc(300000), *zeros = mem_calloc(1, 300000);
    memset(data, 7, 300000);
    put(&x->a, h, 0, data, 300000);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 70001, 0), 0);
    assert_int_equal(file_truncate(x->a.io, h->inode, 290000, 0), 0);
    assert_int_equal(file_flush(x->a.io, h->inode), 0);
    assert_int_equal(x->site.files[0].content.size, 290000);
    done(&x->a, h);
    h = open_nth(&x->b, 0);
    check(&x->b, h, 0, data, 70001);
    check(&x->b, h, 70001, zeros, 290000 - 70001);
    uint64_t at;
    assert_int_equal(file_seek(x->b.io, h->inode, 0, SEEK_HOLE, &at), 0);
    assert_int_equal(at, 131072); /* the cut block is data up to its end */
    assert_int_equal(file_seek(x->b.io, h->inode, 131072, SEEK_DATA, &at), ERR_NO_SUCH_OFFSET);
    done(&x->b, h);
    mem_free(data);
    mem_free(zeros);
}

static void test_clone_moves_no_bytes(void **state)
{
    struct fixture *x = *state;
    struct open_file *from = open_nth(&x->a, 0), *to = open_nth(&x->a, 1);
    uint8_t *data = mem_alloc(500000);
    struct rng r;
    rng_seed(&r, 9);
    for (size_t i = 0; i < 500000; i++)
        data[i] = (uint8_t)rng_next(&r);
    put(&x->a, from, 0, data, 500000);
    assert_int_equal(file_flush(x->a.io, from->inode), 0);
    size_t chunks = x->site.sealed_count;
    struct file_clone c = {.from = from->inode, .to = to->inode, .len = 1u << 30};
    uint64_t len;
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    assert_int_equal(len, 500000);
    assert_int_equal(x->site.sealed_count, chunks);
    check(&x->a, to, 0, data, 500000);
    /* A part, from a block border to a block border; then something that has no borders. */
    c = (struct file_clone){.from = from->inode,
                            .to = to->inode,
                            .from_offset = 65536,
                            .to_offset = 131072,
                            .len = 65536 + 5};
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    assert_int_equal(len, 65536);
    check(&x->a, to, 131072, data + 65536, 65536);
    check(&x->a, to, 0, data, 131072);
    c.from_offset = 1;
    assert_int_equal(file_clone(x->a.io, &c, &len), 0);
    assert_int_equal(len, 0);
    done(&x->a, from);
    done(&x->a, to);
    mem_free(data);
}

/* ---- many threads, two mounts ---- */

#define SLOTS 16u
#define SLOT_BYTES 8192u

struct worker {
    struct client *c;
    uint64_t seed;
    uint32_t slot; /* of the file, written by this worker alone */
    bool bad;
};

/* Fills its own slot of the file again and again, reads it back, flushes now and then. */
static void *work(void *arg)
{
    struct worker *w = arg;
    struct open_file *h = open_nth(w->c, 0);
    struct rng r;
    uint8_t data[SLOT_BYTES], got[SLOT_BYTES];
    rng_seed(&r, w->seed);
    for (unsigned i = 0; i < 40 && !w->bad; i++) {
        memset(data, (int)(rng_next(&r) | 1), sizeof data);
        uint64_t at = w->slot * SLOT_BYTES;
        size_t n;
        w->bad |= file_write(w->c->io, h->inode, at, slice_of(data, sizeof data), 0) != 0;
        w->bad |= file_read(w->c->io, h, at, got, sizeof got, &n) != 0 || n != sizeof got;
        w->bad |= memcmp(data, got, sizeof got) != 0;
        if (rng_below(&r, 3) == 0)
            w->bad |= file_flush(w->c->io, h->inode) != 0;
        w->bad |= file_read(w->c->io, h, at, got, sizeof got, &n) != 0;
        w->bad |= memcmp(data, got, sizeof got) != 0;
    }
    w->bad |= file_flush(w->c->io, h->inode) != 0;
    done(w->c, h);
    return NULL;
}

/* Closes wait for more of their kind; the end does not leave them behind. */
static void test_closes_that_wait_are_told_in_the_end(void **state)
{
    struct fixture *x = *state;
    struct open_file *h = open_nth(&x->a, 0);
    done(&x->a, h);
    fileio_stop(x->a.io);
    assert_int_equal(x->site.files[0].opens, 0);
}

static void test_threads_of_two_mounts_keep_their_ranges(void **state)
{
    struct fixture *x = *state;
    pthread_t t[SLOTS];
    struct worker w[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++) {
        w[i] = (struct worker){.c = i % 2 == 0 ? &x->a : &x->b, .seed = i + 1, .slot = i};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        pthread_join(t[i], NULL);
        assert_false(w[i].bad);
    }
    struct open_file *h = open_nth(&x->a, 0);
    told(&x->a, 0);
    uint8_t got[SLOT_BYTES];
    size_t n;
    for (uint32_t i = 0; i < SLOTS; i++) {
        assert_int_equal(file_read(x->a.io, h, i * SLOT_BYTES, got, sizeof got, &n), 0);
        assert_int_equal(n, sizeof got);
        assert_int_not_equal(got[0], 0);
        assert_int_equal(got[0], got[SLOT_BYTES - 1]);
    }
    done(&x->a, h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_small_file_is_one_inline_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_file_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_change_of_large_file_is_one_request, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_file_that_is_changed_here_and_there_gets_small_blocks,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_sparse_file_begins_with_small_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_reads_here_and_there_fetch_parts, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_both_mounts_ranges_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_appends_of_both_mounts_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_commit_is_reported_once_and_tried_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_cut_and_extend_reads_zeros, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clone_moves_no_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closes_that_wait_are_told_in_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads_of_two_mounts_keep_their_ranges, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
