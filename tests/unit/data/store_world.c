#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/data/store_world.h"

/* The thread sanitizer knows nothing of the fences inside RocksDB, which is not built with it. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:librocksdb.so\nrace:librocksdb.so\n";
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void remove_tree(const char *dir)
{
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void world_init(struct world *w, const char *dir)
{
    world_init_clock(w, dir, &clock_os);
}

void world_init_clock(struct world *w, const char *dir, const struct clock *clock)
{
    *w = (struct world){.segment_bytes = 1 * MIB};
    w->own_dir = dir == NULL;
    if (dir == NULL) {
        (void)snprintf(w->dir, sizeof w->dir, "/tmp/cfs-store-XXXXXX");
        assert_non_null(mkdtemp(w->dir));
    } else {
        (void)snprintf(w->dir, sizeof w->dir, "%s", dir);
    }
    struct err_detail detail;
    assert_int_equal(loop_new(&w->loop, 64, clock, &detail), 0);
    assert_int_equal(pool_new(&w->pool, 2), 0);
}

void world_deinit(struct world *w)
{
    if (w->store != NULL)
        world_close(w);
    pool_free(w->pool);
    loop_free(w->loop);
    id_map_deinit(&w->damaged);
    mem_free(w->room);
    if (w->own_dir)
        remove_tree(w->dir);
}

static void on_damaged(void *ctx, const struct chunk_id *id)
{
    struct world *w = ctx;
    id_map_set(&w->damaged, id, 1);
}

uint64_t world_damaged(const struct world *w)
{
    return w->damaged.count;
}

int world_open(struct world *w)
{
    struct store_config config = {.dir = w->dir,
                                  .segment_bytes = w->segment_bytes,
                                  .reserve_bytes = w->reserve_bytes,
                                  .queue_max = w->queue_max,
                                  .cache_bytes = 1 * MIB,
                                  .loop = w->loop,
                                  .pool = w->pool,
                                  .ctx = w,
                                  .on_damaged = on_damaged};
    struct err_detail detail = {{0}};
    int rc = store_open(&w->store, &config, &w->recovery, &detail);
    if (rc != 0)
        assert_true(detail.text[0] != '\0');
    return rc;
}

void world_done(struct world *w)
{
    assert_true(w->pending > 0);
    if (--w->pending == 0)
        loop_stop(w->loop);
}

void world_run(struct world *w)
{
    if (w->pending > 0)
        loop_run(w->loop);
    assert_int_equal(w->pending, 0);
}

static void closed(void *ctx)
{
    struct world *w = ctx;
    w->store = NULL;
    world_done(w);
}

void world_close(struct world *w)
{
    w->pending++;
    store_close(w->store, closed, w);
    world_run(w);
}

/* ---- chunks ---- */

struct chunk_id chunk_number(uint64_t n)
{
    struct rng rng;
    struct chunk_id id;
    rng_seed(&rng, n);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t x = rng_next(&rng);
        memcpy(id.b + 8 * i, &x, sizeof x);
    }
    memcpy(id.b + 24, &n, sizeof n); /* so that a number can be read back */
    return id;
}

static uint64_t number_of(const struct chunk_id *id)
{
    uint64_t n;
    memcpy(&n, id->b + 24, sizeof n);
    return n;
}

void chunk_bytes(uint64_t n, size_t size, struct buf *out)
{
    struct rng rng;
    rng_seed(&rng, n + 1000000);
    if (size == 0)
        size = 1 + (size_t)rng_below(&rng, rng_below(&rng, 3) == 0 ? 20000 : 500);
    buf_reserve(out, size + 8);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t x = rng_next(&rng);
        memcpy(out->ptr + out->len + i, &x, sizeof x);
    }
    out->len += size;
}

/* ---- calls ---- */

struct put {
    struct store_put put;
    struct buf data;
    struct world *w;
    int rc;
};
static void put_done(struct store_put *p, int rc)
{
    struct put *put = CONTAINER_OF(p, struct put, put);
    put->rc = rc;
    world_done(put->w);
}

static struct put *put_start(struct world *w, uint64_t n, size_t size)
{
    struct put *put = mem_calloc(1, sizeof *put);
    put->w = w;
    chunk_bytes(n, size, &put->data);
    put->put.id = chunk_number(n);
    put->put.data = buf_slice(&put->data);
    put->put.done = put_done;
    put->rc = store_put(w->store, &put->put);
    w->pending += put->rc == 0;
    return put;
}

static int put_end(struct put *put)
{
    int rc = put->rc;
    buf_deinit(&put->data);
    mem_free(put);
    return rc;
}

int world_put(struct world *w, uint64_t n, size_t size)
{
    struct put *put = put_start(w, n, size);
    world_run(w);
    return put_end(put);
}

void world_put_many(struct world *w, uint64_t from, uint64_t to, size_t size)
{
    struct put *puts[64];
    while (from < to) {
        size_t count = 0;
        for (; count < ARRAY_COUNT(puts) && from < to; count++)
            puts[count] = put_start(w, from++, size);
        world_run(w);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(put_end(puts[i]), 0);
    }
}

struct get {
    struct store_get get;
    struct world *w;
    struct chunk_buf data;
    int rc;
};
static void get_done(struct store_get *g, int rc, struct chunk_buf *data)
{
    struct get *get = CONTAINER_OF(g, struct get, get);
    get->rc = rc;
    get->data = *data;
    *data = (struct chunk_buf){0};
    world_done(get->w);
}

int world_get(struct world *w, uint64_t n, size_t size)
{
    return world_get_range(w, n, size, 0, 0);
}

int world_get_range(struct world *w, uint64_t n, size_t size, uint32_t from, uint32_t len)
{
    struct get get = {.w = w,
                      .get = {.id = chunk_number(n), .from = from, .len = len, .done = get_done}};
    /* Every other one into memory of ours. */
    if (w->gets++ % 2 == 0) {
        w->room = w->room != NULL ? w->room : mem_aligned(STORE_ROOM_ALIGN, STORE_ROOM_BYTES);
        get.get.room = w->room;
        get.get.room_len = STORE_ROOM_BYTES;
    }
    w->pending++;
    assert_int_equal(store_get(w->store, &get.get), 0);
    world_run(w);
    if (get.rc == 0) {
        struct buf want = {0};
        chunk_bytes(n, size, &want);
        size_t at = MIN(from, want.len), bytes = len == 0 ? want.len : MIN(len, want.len - at);
        assert_int_equal(get.get.chunk_len, want.len);
        assert_int_equal(get.data.data.len, bytes);
        assert_memory_equal(get.data.data.ptr, want.ptr + at, bytes);
        assert_int_equal(get.data.mem == NULL, get.get.room != NULL);
        buf_deinit(&want);
    } else {
        assert_null(get.data.mem);
    }
    chunk_buf_deinit(&get.data);
    return get.rc;
}

struct has {
    struct store_has has;
    struct world *w;
    int rc;
};
static void has_done(struct store_has *h, int rc)
{
    struct has *has = CONTAINER_OF(h, struct has, has);
    has->rc = rc;
    world_done(has->w);
}

bool world_has(struct world *w, uint64_t n, bool keep)
{
    struct chunk_id id = chunk_number(n);
    bool present = false;
    struct has has = {
        .w = w,
        .has = {.ids = &id, .count = 1, .keep = keep, .present = &present, .done = has_done}};
    w->pending++;
    assert_int_equal(store_has(w->store, &has.has), 0);
    world_run(w);
    assert_int_equal(has.rc, 0);
    return present;
}

struct sweep {
    struct store_sweep sweep;
    struct world *w;
    uint64_t modulo, rest;
};
static bool sweep_keep(void *ctx, const struct chunk_id *id)
{
    const struct sweep *s = ctx;
    return number_of(id) % s->modulo == s->rest;
}
static void sweep_done(struct store_sweep *p, int rc)
{
    assert_int_equal(rc, 0);
    world_done(CONTAINER_OF(p, struct sweep, sweep)->w);
}

struct store_sweep world_sweep(struct world *w, uint64_t before, uint64_t modulo, uint64_t rest)
{
    struct sweep s = {.w = w, .modulo = modulo, .rest = rest};
    s.sweep =
        (struct store_sweep){.before = before, .keep = sweep_keep, .ctx = &s, .done = sweep_done};
    w->pending++;
    assert_int_equal(store_sweep(w->store, &s.sweep), 0);
    world_run(w);
    return s.sweep;
}

struct scrub {
    struct store_scrub scrub;
    struct world *w;
};
static void scrub_done(struct store_scrub *p, int rc)
{
    assert_int_equal(rc, 0);
    world_done(CONTAINER_OF(p, struct scrub, scrub)->w);
}

struct store_scrub world_scrub(struct world *w, uint64_t budget_bytes)
{
    struct store_scrub sum = {0};
    while (!sum.wrapped) {
        struct scrub s = {.w = w, .scrub = {.budget_bytes = budget_bytes, .done = scrub_done}};
        w->pending++;
        assert_int_equal(store_scrub(w->store, &s.scrub), 0);
        world_run(w);
        sum.chunks += s.scrub.chunks;
        sum.bytes += s.scrub.bytes;
        sum.damaged += s.scrub.damaged;
        sum.wrapped = s.scrub.wrapped;
    }
    return sum;
}

struct compact {
    struct store_compact compact;
    struct world *w;
    int rc;
};
static void compact_done(struct store_compact *p, int rc)
{
    struct compact *c = CONTAINER_OF(p, struct compact, compact);
    c->rc = rc;
    world_done(c->w);
}

struct store_compact world_compact(struct world *w, int *ret_rc)
{
    struct compact c = {.w = w, .compact = {.done = compact_done}};
    w->pending++;
    assert_int_equal(store_compact(w->store, &c.compact), 0);
    world_run(w);
    *ret_rc = c.rc;
    return c.compact;
}

struct store_stats world_stats(const struct world *w)
{
    struct store_stats stats;
    store_stats(w->store, &stats);
    return stats;
}

char *world_segment(const struct world *w, unsigned idx)
{
    char *path = mem_printf("%s/segments", w->dir);
    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, alphasort);
    char *found = NULL;
    unsigned at = 0;
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.' && at++ == idx)
            found = mem_printf("%s/%s", path, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    mem_free(path);
    return found;
}
