/* The chunk store without failures: round trips, dedup, reopening, bounds, garbage, compaction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "tests/unit/data/store_world.h"

static void test_put_get_has(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    w.segment_bytes = 16 * MIB;
    assert_int_equal(world_open(&w), 0);
    static const size_t sizes[] = {1,    63,   64,    65,      4031,
                                   4032, 4033, 65536, 1048576, LIMIT_CHUNK_SEALED_BYTES};
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        assert_int_equal(world_get(&w, i, sizes[i]), ERR_NOT_FOUND);
        assert_false(world_has(&w, i, false));
        assert_int_equal(world_put(&w, i, sizes[i]), 0);
        assert_true(world_has(&w, i, false));
    }
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++)
        assert_int_equal(world_get(&w, i, sizes[i]), 0);
    assert_int_equal(world_stats(&w).chunks, ARRAY_COUNT(sizes));
    world_close(&w);
    assert_int_equal(world_open(&w), 0);
    assert_false(w.recovery.index_rebuilt);
    assert_int_equal(w.recovery.chunks, 0); /* a clean close leaves nothing to learn */
    assert_int_equal(w.recovery.torn_bytes + w.recovery.damaged, 0);
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++)
        assert_int_equal(world_get(&w, i, sizes[i]), 0);
    world_deinit(&w);
}

/* Whatever a range's place in blocks and in the chunk, it has the chunk's bytes, as far as it goes.
 */
static void test_get_range(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 4000, 4096, 65536, 1048576};
    static const uint32_t lens[] = {1, 63, 4096, 16400, UINT32_MAX};
    struct world w;
    world_init(&w, NULL);
    w.segment_bytes = 16 * MIB;
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_get_range(&w, 0, 1, 0, 1), ERR_NOT_FOUND);
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        assert_int_equal(world_put(&w, i, sizes[i]), 0);
        const uint32_t froms[] = {
            0, 1, 3967, 4032, 4033, sizes[i] / 2, sizes[i] - 1, sizes[i], sizes[i] + 1, UINT32_MAX};
        for (unsigned f = 0; f < ARRAY_COUNT(froms); f++)
            for (unsigned l = 0; l < ARRAY_COUNT(lens); l++)
                assert_int_equal(world_get_range(&w, i, sizes[i], froms[f], lens[l]), 0);
    }
    world_deinit(&w);
}

/* Many small puts share groups, and fill many segments. */
static void test_groups_and_segments(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    world_put_many(&w, 0, 1500, 0);
    struct store_stats stats = world_stats(&w);
    assert_int_equal(stats.chunks, 1500);
    assert_true(stats.groups < 300);
    assert_true(stats.segments > 3);
    for (uint64_t n = 0; n < 1500; n += 7)
        assert_int_equal(world_get(&w, n, 0), 0);
    world_deinit(&w);
}

static void test_dedup(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    struct store_stats before = world_stats(&w);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(world_put(&w, 5, 1000), 0);
    struct store_stats stats = world_stats(&w);
    assert_int_equal(stats.chunks, before.chunks + 1);
    assert_int_equal(stats.dedups, 9);
    assert_int_equal(stats.live_bytes, 1088);
    world_deinit(&w);
}

struct twice {
    struct store_put puts[8];
    struct world *w;
    unsigned done;
};
static struct twice *twice;
static void twice_done(struct store_put *put, int rc)
{
    (void)put;
    assert_int_equal(rc, 0);
    twice->done++;
    world_done(twice->w);
}

/* Puts of one id under way together become one record, and all are answered. */
static void test_concurrent_puts_of_one_id(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    struct twice t = {.w = &w};
    twice = &t;
    struct buf data = {0};
    chunk_bytes(1, 3000, &data);
    for (unsigned i = 0; i < ARRAY_COUNT(t.puts); i++) {
        t.puts[i] =
            (struct store_put){.id = chunk_number(1), .data = buf_slice(&data), .done = twice_done};
        w.pending++;
        assert_int_equal(store_put(w.store, &t.puts[i]), 0);
        assert_int_equal(t.done, 0);
    }
    world_run(&w);
    assert_int_equal(t.done, ARRAY_COUNT(t.puts));
    assert_int_equal(world_stats(&w).chunks, 1);
    assert_int_equal(world_stats(&w).dedups, ARRAY_COUNT(t.puts) - 1);
    buf_deinit(&data);
    world_deinit(&w);
}

static void test_bounds(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    w.queue_max = 4;
    assert_int_equal(world_open(&w), 0);
    struct twice t = {.w = &w};
    twice = &t;
    struct buf data = {0};
    chunk_bytes(1, 2 * MIB, &data);
    for (unsigned i = 0; i < 6; i++) {
        t.puts[i] = (struct store_put){
            .id = chunk_number(i), .data = slice_of(data.ptr, 500), .done = twice_done};
        int rc = store_put(w.store, &t.puts[i]);
        assert_int_equal(rc, i < 4 ? 0 : ERR_LIMIT);
        w.pending += rc == 0;
    }
    world_run(&w);
    struct store_put bad = {.id = chunk_number(7), .data = slice_of(data.ptr, 0)};
    assert_int_equal(store_put(w.store, &bad), ERR_INVALID);
    bad.data.len = 1;
    bad.id = CHUNK_ID_HOLE;
    assert_int_equal(store_put(w.store, &bad), ERR_INVALID);
    bad.id = chunk_number(7);
    bad.data.len = MIB; /* as large as a segment */
    assert_int_equal(store_put(w.store, &bad), ERR_TOO_BIG);
    struct store_has none = {.count = 0};
    assert_int_equal(store_has(w.store, &none), ERR_INVALID);
    buf_deinit(&data);
    world_deinit(&w);
}

static void test_open_refuses_what_it_cannot_use(void **state)
{
    (void)state;
    struct world w;
    struct world other;
    world_init(&w, NULL);
    w.segment_bytes = 5000;
    assert_int_equal(world_open(&w), ERR_CONFIG);
    w.segment_bytes = 1 * MIB;
    assert_int_equal(world_open(&w), 0);
    world_init(&other, w.dir);
    assert_int_equal(world_open(&other), ERR_BUSY);
    world_deinit(&other);
    world_init(&other, "/nonexistent/store");
    assert_int_equal(err_class(world_open(&other)), ERR_CLASS_USER);
    world_deinit(&other);
    world_deinit(&w);
}

struct closing {
    struct store_put puts[50];
    struct buf data[50];
    struct store_get get;
    struct world *w;
    unsigned done, got;
    bool closed;
};
static struct closing *closing;
static void closing_put(struct store_put *put, int rc)
{
    (void)put;
    assert_int_equal(rc, 0);
    assert_false(closing->closed);
    closing->done++;
}
static void closing_get(struct store_get *get, int rc, struct chunk_buf *data)
{
    (void)get;
    (void)data;
    assert_int_equal(rc, 0);
    assert_false(closing->closed);
    closing->got++;
}
static void closing_closed(void *ctx)
{
    struct world *w = ctx;
    closing->closed = true;
    w->store = NULL;
    world_done(w);
}

/* Close finishes what is under way, refuses what comes, and is over after all of it. */
static void test_close_with_requests_under_way(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_put(&w, 1000, 700), 0);
    struct closing c = {.w = &w};
    closing = &c;
    for (unsigned i = 0; i < 50; i++) {
        chunk_bytes(i, 30000, &c.data[i]);
        c.puts[i] = (struct store_put){
            .id = chunk_number(i), .data = buf_slice(&c.data[i]), .done = closing_put};
        assert_int_equal(store_put(w.store, &c.puts[i]), 0);
    }
    c.get = (struct store_get){.id = chunk_number(1000), .done = closing_get};
    assert_int_equal(store_get(w.store, &c.get), 0);
    w.pending++;
    store_close(w.store, closing_closed, &w);
    struct store_put late = {.id = chunk_number(77), .data = buf_slice(&c.data[0])};
    assert_int_equal(store_put(w.store, &late), ERR_CLOSED);
    assert_int_equal(store_get(w.store, &c.get), ERR_CLOSED);
    world_run(&w);
    assert_int_equal(c.done, 50);
    assert_int_equal(c.got, 1);
    assert_int_equal(world_open(&w), 0);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(world_get(&w, i, 30000), 0);
        buf_deinit(&c.data[i]);
    }
    world_deinit(&w);
}

static void test_sweep_spares_marked_and_young(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    world_put_many(&w, 0, 3000, 100);
    uint64_t pass = store_epoch_advance(w.store);
    world_put_many(&w, 3000, 3100, 100);        /* written in the pass */
    assert_int_equal(world_put(&w, 1, 100), 0); /* put again */
    assert_true(world_has(&w, 2, true));        /* kept */
    assert_true(world_has(&w, 3, false));       /* only asked for */
    struct store_sweep s = world_sweep(&w, pass, 10, 0);
    assert_int_equal(s.chunks, 3000 - 300 - 2);
    for (uint64_t n = 0; n < 3100; n++) {
        bool lives = n % 10 == 0 || n == 1 || n == 2 || n >= 3000;
        if (n < 40 || n > 2980)
            assert_int_equal(world_get(&w, n, 100), lives ? 0 : ERR_NOT_FOUND);
    }
    assert_int_equal(world_stats(&w).chunks, 300 + 2 + 100);
    world_close(&w);
    assert_int_equal(world_open(&w), 0);
    assert_true(store_epoch(w.store) > pass);
    assert_int_equal(world_stats(&w).chunks, 300 + 2 + 100);
    assert_int_equal(world_get(&w, 5, 100), ERR_NOT_FOUND);
    assert_int_equal(world_put(&w, 5, 100), 0);
    assert_int_equal(world_get(&w, 5, 100), 0);
    world_deinit(&w);
}

/* Gets of survivors all through a compaction. */
struct reader {
    struct store_get get;
    struct world *w;
    uint64_t n, count;
    bool *stop;
};
static void reader_next(struct reader *r)
{
    r->n = (r->n + 3) % 600 / 3 * 3;
    r->get.id = chunk_number(r->n);
    assert_int_equal(store_get(r->w->store, &r->get), 0);
}
static void reader_got(struct store_get *get, int rc, struct chunk_buf *data)
{
    struct reader *r = CONTAINER_OF(get, struct reader, get);
    struct buf want = {0};
    assert_int_equal(rc, 0);
    chunk_bytes(r->n, 5000, &want);
    assert_true(slice_equal(buf_slice(&want), data->data));
    buf_deinit(&want);
    r->count++;
    if (*r->stop)
        world_done(r->w);
    else
        reader_next(r);
}
struct compacting {
    struct store_compact compact;
    struct world *w;
    bool stop;
    unsigned rounds;
};
static void compacting_done(struct store_compact *p, int rc)
{
    struct compacting *c = CONTAINER_OF(p, struct compacting, compact);
    assert_true(rc == 0);
    c->rounds++;
    if (p->nothing) {
        c->stop = true;
        world_done(c->w);
    } else {
        assert_int_equal(store_compact(c->w->store, p), 0);
    }
}

static void test_compaction_under_gets(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    world_put_many(&w, 0, 600, 5000);
    uint64_t pass = store_epoch_advance(w.store);
    assert_int_equal(world_sweep(&w, pass, 3, 0).chunks, 400);
    struct store_stats before = world_stats(&w);
    struct compacting c = {.w = &w, .compact = {.done = compacting_done}};
    struct reader readers[4];
    w.pending = 1 + ARRAY_COUNT(readers);
    for (unsigned i = 0; i < ARRAY_COUNT(readers); i++) {
        readers[i] =
            (struct reader){.w = &w, .n = i * 150, .stop = &c.stop, .get = {.done = reader_got}};
        reader_next(&readers[i]);
    }
    assert_int_equal(store_compact(w.store, &c.compact), 0);
    world_run(&w);
    assert_true(c.rounds > 1);
    assert_true(readers[0].count > 0);
    struct store_stats after = world_stats(&w);
    assert_int_equal(after.chunks, 200);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_true(after.file_bytes < before.file_bytes);
    world_close(&w);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(w.recovery.damaged, 0);
    for (uint64_t n = 0; n < 600; n++)
        assert_int_equal(world_get(&w, n, 5000), n % 3 == 0 ? 0 : ERR_NOT_FOUND);
    assert_int_equal(world_scrub(&w, 1 * MIB).chunks, 200);
    world_deinit(&w);
}

struct jump { /* a clock that stands still, and after some readings an hour has passed */
    uint64_t now_ns, readings_left;
};

static uint64_t jump_ns(void *ctx)
{
    struct jump *j = ctx;
    if (j->readings_left > 0 && --j->readings_left == 0)
        j->now_ns += 3600 * NS_PER_SEC;
    return j->now_ns;
}

/* The delayed write of the index comes due in each turn of the loop that a close takes, the one
 * that ends the close's own write among them: no job may be begun then, for it would outlive the
 * store. */
static void test_close_while_the_index_is_due(void **state)
{
    (void)state;
    struct world w;
    struct jump jump = {.now_ns = NS_PER_SEC};
    struct clock clock = {.mono_ns = jump_ns, .wall_ns = jump_ns, .ctx = &jump};
    world_init_clock(&w, NULL, &clock);
    for (uint64_t n = 0; n < 60; n++) {
        assert_int_equal(world_open(&w), 0);
        assert_int_equal(world_put(&w, n, 1000), 0);
        jump.readings_left = 1 + n % 12;
        world_close(&w);
        jump.readings_left = 0;
    }
    assert_int_equal(world_open(&w), 0);
    for (uint64_t n = 0; n < 60; n++)
        assert_int_equal(world_get(&w, n, 1000), 0);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get_has),
        cmocka_unit_test(test_get_range),
        cmocka_unit_test(test_groups_and_segments),
        cmocka_unit_test(test_dedup),
        cmocka_unit_test(test_concurrent_puts_of_one_id),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_open_refuses_what_it_cannot_use),
        cmocka_unit_test(test_close_with_requests_under_way),
        cmocka_unit_test(test_close_while_the_index_is_due),
        cmocka_unit_test(test_sweep_spares_marked_and_young),
        cmocka_unit_test(test_compaction_under_gets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
