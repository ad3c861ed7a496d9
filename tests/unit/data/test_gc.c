/* Garbage collection: every chunk that a marked content reaches is kept, whatever interrupts the
 * marking; and the rule of two passes (D7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "data/gc.h"
#include "tests/unit/data/manifest_disk.h"

#define BB (64u * 1024u)

static struct chunk_id leaf(uint64_t n)
{
    struct chunk_id id;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t x = (n * 4 + i + 1) * 0x9e3779b97f4a7c15ull;
        x ^= x >> 31;
        memcpy(id.b + 8 * i, &x, 8);
    }
    return id;
}

static struct manifest
file_of(struct manifest_disk *d, uint64_t first, uint64_t count, uint64_t same_every)
{
    struct chunk_id *ids = mem_alloc(count * sizeof *ids);
    for (uint64_t i = 0; i < count; i++)
        ids[i] = leaf(first + (same_every != 0 ? i % same_every : i));
    struct manifest_extent e = {.kind = MANIFEST_EXTENT_IDS, .count = count, .ids = ids};
    struct manifest m = {.block_bytes = BB};
    int rc = 0;
    DISK_RUN(
        d, rc,
        manifest_update(d->cache, d->p, NULL, BB, count * BB, &e, 1, disk_put, d, &m, &d->missing));
    assert_int_equal(rc, 0);
    mem_free(ids);
    return m;
}

/* Marks; the cache is emptied now and then in between. Returns the calls it took. */
static unsigned
mark(struct gc *g, struct manifest_disk *d, const struct manifest *m, struct rng *rng)
{
    struct gc_cursor cursor = {0};
    unsigned calls = 0;
    int rc;
    while ((rc = gc_mark_manifest(g, d->cache, m, &cursor, &d->missing)) == ERR_AGAIN) {
        if (d->missing.count == 0 && rng_below(rng, 3) == 0)
            node_cache_trim(d->cache, 0);
        (void)disk_fetch(d); /* nothing missing: the call only paused */
        assert_true(++calls < 10000);
    }
    assert_int_equal(rc, 0);
    return calls;
}

static void test_all_that_is_reachable_is_kept(void **state)
{
    (void)state;
    struct manifest_disk d;
    struct gc *g = NULL;
    struct rng rng;
    rng_seed(&rng, 1);
    disk_init(&d);
    assert_int_equal(gc_new(&g), 0);
    struct manifest files[4] = {file_of(&d, 0, 70000, 0), file_of(&d, 200000, 1, 0),
                                file_of(&d, 300000, 1000, 0), file_of(&d, 500000, 600, 0)};
    struct manifest dead = file_of(&d, 900000, 20000, 0);
    assert_int_equal(gc_begin(g, 5, 95000, 0, 0), 0);
    assert_int_equal(gc_begin(g, 6, 95000, 0, 0), ERR_BUSY);
    node_cache_trim(d.cache, 0);
    for (unsigned i = 0; i < 4; i++)
        (void)mark(g, &d, &files[i], &rng);
    static const struct {
        uint64_t first, count;
    } live[] = {{0, 70000}, {200000, 1}, {300000, 1000}, {500000, 600}};
    for (unsigned i = 0; i < 4; i++) {
        for (uint64_t n = 0; n < live[i].count; n++) {
            struct chunk_id id = leaf(live[i].first + n);
            assert_true(gc_keeps(g, &id));
        }
        assert_true(gc_keeps(g, &files[i].root));
    }
    unsigned wrong = 0;
    for (uint64_t n = 0; n < 20000; n++) {
        struct chunk_id id = leaf(900000 + n);
        wrong += gc_keeps(g, &id);
    }
    assert_true(wrong < 200); /* false positives */
    /* All nodes of the live files, by their walk. */
    for (unsigned i = 0; i < 4; i++) {
        struct gc_cursor again = {0};
        assert_int_equal(gc_mark_manifest(g, d.cache, &files[i], &again, &d.missing), 0);
    }
    (void)dead;
    gc_end(g);
    gc_free(g);
    disk_deinit(&d);
}

/* One node thousands of times: marked once, and the walk ends soon. */
static void test_shared_subtrees_are_walked_once(void **state)
{
    (void)state;
    struct manifest_disk d;
    struct gc *g = NULL;
    struct rng rng;
    rng_seed(&rng, 1);
    disk_init(&d);
    assert_int_equal(gc_new(&g), 0);
    struct manifest m = file_of(&d, 0, 65536 * 2, 256);
    assert_int_equal(d.count, 3);
    assert_int_equal(gc_begin(g, 1, 300, 0, 0), 0);
    assert_true(mark(g, &d, &m, &rng) < 10);
    gc_cancel(g);
    gc_free(g);
    disk_deinit(&d);
}

static void test_two_passes_and_the_interval(void **state)
{
    (void)state;
    struct gc *g = NULL;
    assert_int_equal(gc_new(&g), 0);
    assert_false(gc_running(g));
    assert_int_equal(gc_begin(g, 10, 0, 1000, 500), 0);
    assert_int_equal(gc_sweep_before(g), 0); /* the first of a run sweeps nothing */
    gc_end(g);
    assert_int_equal(gc_begin(g, 11, 0, 1499, 500), ERR_AGAIN);
    assert_int_equal(gc_begin(g, 11, 0, 1500, 500), 0);
    assert_int_equal(gc_sweep_before(g), 10);
    gc_cancel(g);
    assert_int_equal(gc_begin(g, 12, 0, 1501, 500), 0); /* a cancelled one does not count */
    assert_int_equal(gc_sweep_before(g), 10);
    gc_end(g);
    assert_int_equal(gc_begin(g, 13, 0, 5000, 500), 0);
    assert_int_equal(gc_sweep_before(g), 12);
    gc_free(g);
}

/* One that was asked for takes what a pass at its time might take, and gives those that follow no
 * reason to take more; what has been referred to for certain may be told to it. */
static void test_a_pass_that_was_asked_for(void **state)
{
    (void)state;
    struct gc *g = NULL;
    uint64_t epoch, begun_ns;
    assert_int_equal(gc_new(&g), 0);
    assert_int_equal(gc_begin_extra(g, 5, 0, 100, 500), 0);
    assert_int_equal(gc_sweep_before(g), 0); /* nothing is known to be old */
    gc_settled(g, 4);
    assert_int_equal(gc_sweep_before(g), 4);
    gc_end(g);
    assert_false(gc_last(g, &epoch, &begun_ns));
    assert_int_equal(gc_begin(g, 10, 0, 1000, 500), 0);
    assert_int_equal(gc_begin_extra(g, 11, 0, 1000, 500), ERR_BUSY);
    gc_end(g);
    assert_int_equal(gc_begin_extra(g, 11, 0, 1499, 500), 0);
    assert_int_equal(gc_sweep_before(g), 0); /* what was put before 10 may be 499 ns old */
    gc_end(g);
    assert_int_equal(gc_begin(g, 12, 0, 1499, 500), ERR_AGAIN);
    assert_int_equal(gc_begin_extra(g, 12, 0, 1500, 500), 0);
    assert_int_equal(gc_sweep_before(g), 10);
    gc_cancel(g);
    assert_int_equal(gc_begin(g, 13, 0, 1500, 500), 0);
    assert_int_equal(gc_sweep_before(g), 10);
    gc_end(g);
    assert_int_equal(gc_begin_extra(g, 14, 0, 1600, 500), 0);
    assert_int_equal(gc_sweep_before(g), 10); /* not 13 */
    gc_end(g);
    assert_true(gc_last(g, &epoch, &begun_ns));
    assert_int_equal(epoch, 13);
    assert_int_equal(begun_ns, 1500);
    gc_free(g);
}

/* A run takes up the passes of the one before, with the time that had gone by. */
static void test_passes_go_on_in_the_next_run(void **state)
{
    (void)state;
    struct gc *g = NULL;
    assert_int_equal(gc_new(&g), 0);
    gc_resume(g, 20, 700);
    assert_int_equal(gc_begin(g, 31, 0, 1199, 500), ERR_AGAIN);
    assert_int_equal(gc_begin(g, 31, 0, 1200, 500), 0);
    assert_int_equal(gc_sweep_before(g), 20);
    gc_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_is_reachable_is_kept),
        cmocka_unit_test(test_shared_subtrees_are_walked_once),
        cmocka_unit_test(test_two_passes_and_the_interval),
        cmocka_unit_test(test_a_pass_that_was_asked_for),
        cmocka_unit_test(test_passes_go_on_in_the_next_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
