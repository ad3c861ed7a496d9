/* The layered state against a simple model: random puts, deletes, gets and prefix scans interleaved
 * with freeze, write and thaw, and with crashes that drop what was not written down. The same list
 * runs without a store, over a store in memory whose calls can fail, and over RocksDB. */
#include "journal/state.h"

#include <rocksdb/c.h>

#include "tests/unit/journal/journal_test.h"

#define KEYS 600u

/* ---- a store in memory: sorted array over a fixed universe ---- */

struct fake {
    struct buf keys[KEYS + 8], values[KEYS + 8];
    uint32_t count;
    uint64_t index;
    int fail_get, fail_iter, fail_write; /* the code to fail with, or 0 */
};
struct fake_iter {
    struct fake *fake;
    uint32_t at;
};

static uint32_t fake_find(const struct fake *f, struct slice key, bool *ret_equal)
{
    uint32_t i = 0;
    while (i < f->count && slice_cmp(buf_slice(&f->keys[i]), key) < 0)
        i++;
    *ret_equal = i < f->count && slice_equal(buf_slice(&f->keys[i]), key);
    return i;
}

static int fake_get(void *ctx, struct slice key, struct buf *ret_value, bool *ret_found)
{
    struct fake *f = ctx;
    if (f->fail_get != 0)
        return f->fail_get;
    uint32_t i = fake_find(f, key, ret_found);
    buf_clear(ret_value);
    if (*ret_found)
        buf_append(ret_value, f->values[i].ptr, f->values[i].len);
    return 0;
}

static void *fake_iter_new(void *ctx, struct slice seek, struct slice end)
{
    (void)end;
    struct fake_iter *it = mem_calloc(1, sizeof *it);
    bool equal;
    it->fake = ctx;
    it->at = fake_find(ctx, seek, &equal);
    return it;
}

static bool fake_iter_at(void *iter, struct slice *ret_key, struct slice *ret_value)
{
    const struct fake_iter *it = iter;
    if (it->at >= it->fake->count || it->fake->fail_iter != 0)
        return false;
    *ret_key = buf_slice(&it->fake->keys[it->at]);
    *ret_value = buf_slice(&it->fake->values[it->at]);
    return true;
}

static void fake_iter_next(void *iter)
{
    struct fake_iter *it = iter;
    it->at++;
}

static int fake_iter_free(void *iter)
{
    struct fake_iter *it = iter;
    int rc = it->fake->fail_iter;
    mem_free(it);
    return rc;
}

static void fake_set(struct fake *f, struct slice key, struct slice value, bool is_delete)
{
    bool equal;
    uint32_t i = fake_find(f, key, &equal);
    if (!equal && is_delete)
        return;
    if (!equal) {
        assert_true(f->count < KEYS + 8);
        memmove(&f->keys[i + 1], &f->keys[i], (f->count - i) * sizeof f->keys[0]);
        memmove(&f->values[i + 1], &f->values[i], (f->count - i) * sizeof f->values[0]);
        f->keys[i] = f->values[i] = (struct buf){0};
        buf_append(&f->keys[i], key.ptr, key.len);
        f->count++;
    }
    if (is_delete) {
        buf_deinit(&f->keys[i]);
        buf_deinit(&f->values[i]);
        f->count--;
        memmove(&f->keys[i], &f->keys[i + 1], (f->count - i) * sizeof f->keys[0]);
        memmove(&f->values[i], &f->values[i + 1], (f->count - i) * sizeof f->values[0]);
        return;
    }
    buf_clear(&f->values[i]);
    buf_append(&f->values[i], value.ptr, value.len);
}

static int
fake_write(void *ctx,
           uint64_t index,
           bool (*next)(void *nctx, struct slice *key, struct slice *value, bool *is_delete),
           void *nctx,
           struct err_detail *detail)
{
    struct fake *f = ctx;
    struct slice key, value;
    bool is_delete;
    if (f->fail_write != 0) {
        err_detail_set(detail, "write: planned failure");
        return f->fail_write;
    }
    while (next(nctx, &key, &value, &is_delete))
        fake_set(f, key, value, is_delete);
    f->index = index;
    return 0;
}

static uint64_t fake_index(void *ctx)
{
    const struct fake *f = ctx;
    return f->index;
}

static void fake_close(void *ctx)
{
    (void)ctx; /* the test keeps it to reopen */
}

static const struct state_store_ops fake_ops = {fake_get,       fake_iter_new,  fake_iter_at,
                                                fake_iter_next, fake_iter_free, fake_write,
                                                fake_index,     fake_close};

static void fake_deinit(struct fake *f)
{
    for (uint32_t i = 0; i < f->count; i++) {
        buf_deinit(&f->keys[i]);
        buf_deinit(&f->values[i]);
    }
}

/* ---- the model ---- */

enum backing {
    BACKING_NONE,
    BACKING_FAKE,
    BACKING_ROCKS
};
struct value {
    bool present;
    uint32_t len;
    uint8_t fill;
};
struct model {
    struct value at[KEYS];
    uint64_t index;
};
struct world {
    struct buf keys[KEYS]; /* sorted */
    struct rng rng;
    enum backing backing;
    struct fake fake;
    char *dir;
    struct state *st;
    struct model now, frozen, stored;
    bool has_frozen;
    uint64_t told; /* stored index as the owner knows it: moves at thaw */
};

static int buf_cmp(const void *a, const void *b)
{
    return slice_cmp(buf_slice(a), buf_slice(b));
}

static void world_open(struct world *w)
{
    struct err_detail detail = {{0}};
    struct state_store store = {.ops = &fake_ops, .ctx = &w->fake};
    if (w->backing == BACKING_ROCKS)
        assert_int_equal(state_store_rocks_open(&store, w->dir, MIB, &detail), 0);
    assert_int_equal(state_open(&w->st, w->backing == BACKING_NONE ? NULL : &store), 0);
    w->now = w->stored;
    w->has_frozen = false;
    w->told = w->stored.index;
    assert_int_equal(state_index(w->st), w->stored.index);
    assert_int_equal(state_stored_index(w->st), w->stored.index);
}

static void world_init(struct world *w, uint64_t seed, enum backing backing)
{
    *w = (struct world){.backing = backing};
    rng_seed(&w->rng, seed);
    for (uint32_t i = 0; i < KEYS; i++) {
        char text[40];
        snprintf(text, sizeof text, "%c/%03u/%u", 'a' + (int)(i % 3), i % 17, i);
        buf_append(&w->keys[i], text, strlen(text));
    }
    qsort(w->keys, KEYS, sizeof w->keys[0], buf_cmp);
    if (backing == BACKING_ROCKS)
        w->dir = scratch_new();
    world_open(w);
}

static void world_deinit(struct world *w)
{
    state_free(w->st);
    for (uint32_t i = 0; i < KEYS; i++)
        buf_deinit(&w->keys[i]);
    fake_deinit(&w->fake);
    if (w->dir != NULL)
        scratch_remove(w->dir);
}

static void check_value(struct slice got, const struct value *want)
{
    assert_int_equal(got.len, want->len);
    for (size_t i = 0; i < got.len; i++)
        assert_int_equal(got.ptr[i], want->fill);
}

static void check_get(struct world *w, uint32_t i)
{
    struct slice value;
    bool found = state_get(w->st, buf_slice(&w->keys[i]), &value);
    assert_int_equal(found, w->now.at[i].present);
    if (found)
        check_value(value, &w->now.at[i]);
}

/* Scans a random prefix from a random start and compares with the model, all of it or a part. */
static void check_scan(struct world *w)
{
    uint32_t some = (uint32_t)rng_below(&w->rng, KEYS);
    struct slice prefix = buf_slice(&w->keys[some]);
    struct slice start = buf_slice(&w->keys[rng_below(&w->rng, KEYS)]);
    prefix.len = rng_below(&w->rng, prefix.len + 1);
    if (rng_below(&w->rng, 2) == 0)
        start.len = 0;
    uint64_t stop = rng_below(&w->rng, 2) == 0 ? rng_below(&w->rng, 20) : KEYS;
    struct state_scan it;
    state_scan_begin(w->st, &it, prefix, start);
    for (uint32_t i = 0; i < KEYS; i++) {
        struct slice key = buf_slice(&w->keys[i]);
        if (!w->now.at[i].present || slice_cmp(key, start) < 0 || key.len < prefix.len ||
            memcmp(key.ptr, prefix.ptr, prefix.len) != 0)
            continue;
        if (stop-- == 0) {
            state_scan_end(&it);
            return;
        }
        assert_true(state_scan_next(&it));
        assert_slice(it.key, key);
        check_value(it.value, &w->now.at[i]);
    }
    assert_false(state_scan_next(&it));
    assert_false(state_scan_next(&it));
    state_scan_end(&it);
}

static void change(struct world *w)
{
    uint32_t i = (uint32_t)rng_below(&w->rng, KEYS);
    uint8_t bytes[300];
    if (rng_below(&w->rng, 3) == 0) {
        w->now.at[i].present = false;
        state_del(w->st, buf_slice(&w->keys[i]));
    } else {
        w->now.at[i] = (struct value){.present = true,
                                      .len = (uint32_t)rng_below(&w->rng, sizeof bytes),
                                      .fill = (uint8_t)rng_next(&w->rng)};
        memset(bytes, w->now.at[i].fill, sizeof bytes);
        state_put(w->st, buf_slice(&w->keys[i]), slice_of(bytes, w->now.at[i].len));
    }
    w->now.index++;
    state_advance(w->st, w->now.index);
}

static void write_down(struct world *w)
{
    struct err_detail detail = {{0}};
    if (!w->has_frozen) {
        assert_int_equal(state_freeze(w->st), w->backing != BACKING_NONE);
        w->has_frozen = w->backing != BACKING_NONE;
        w->frozen = w->now;
        return;
    }
    assert_false(state_freeze(w->st));
    assert_int_equal(state_frozen_index(w->st), w->frozen.index);
    assert_int_equal(state_stored_index(w->st), w->told);
    assert_int_equal(state_write_frozen(w->st, &detail), 0);
    w->stored = w->frozen;
    if (rng_below(&w->rng, 4) == 0)
        return; /* written but not thawed: reads must not mind, a crash must not either */
    state_thaw(w->st);
    w->has_frozen = false;
    w->told = w->stored.index;
    assert_int_equal(state_stored_index(w->st), w->stored.index);
}

static void run_random(uint64_t seed, enum backing backing, uint32_t steps)
{
    static struct world w; /* large */
    world_init(&w, seed, backing);
    for (uint32_t step = 0; step < steps; step++) {
        uint64_t pick = rng_below(&w.rng, 1000);
        if (pick < 500) {
            change(&w);
        } else if (pick < 900) {
            check_get(&w, (uint32_t)rng_below(&w.rng, KEYS));
        } else if (pick < 990) {
            check_scan(&w);
        } else if (pick < 998) {
            write_down(&w);
        } else if (backing != BACKING_NONE) {
            state_free(w.st); /* a crash: only what was written down comes back */
            world_open(&w);
        }
    }
    for (uint32_t i = 0; i < KEYS; i++)
        check_get(&w, i);
    assert_int_equal(state_health(w.st), 0);
    world_deinit(&w);
}

static void test_random_without_store(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++)
        run_random(seed, BACKING_NONE, 10000);
}

static void test_random_store_in_memory(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++)
        run_random(seed, BACKING_FAKE, 10000);
}

static void test_random_rocksdb(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_random(seed, BACKING_ROCKS, 6000);
}

/* A failed write keeps the frozen layer, loses nothing, and can be tried again. */
static void test_write_frozen_fails_and_is_repeated(void **state)
{
    (void)state;
    struct fake fake = {.fail_write = ERR_NO_SPACE};
    struct state_store store = {.ops = &fake_ops, .ctx = &fake};
    struct err_detail detail = {{0}};
    struct state *st;
    struct slice value;
    assert_int_equal(state_open(&st, &store), 0);
    state_put(st, slice_str("k"), slice_str("v"));
    state_advance(st, 5);
    assert_true(state_freeze(st));
    assert_int_equal(state_write_frozen(st, &detail), ERR_NO_SPACE);
    assert_string_equal(detail.text, "write: planned failure");
    assert_int_equal(state_stored_index(st), 0);
    assert_true(state_get(st, slice_str("k"), &value));
    fake.fail_write = 0;
    assert_int_equal(state_write_frozen(st, &detail), 0);
    state_thaw(st);
    assert_int_equal(state_stored_index(st), 5);
    assert_true(state_get(st, slice_str("k"), &value));
    assert_slice(value, slice_str("v"));
    state_free(st);
    fake_deinit(&fake);
}

/* A failed read of the store is remembered, by gets and by scans. */
static void test_read_failure_is_sticky(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        struct fake fake = {.fail_get = way == 0 ? ERR_CORRUPT : 0,
                            .fail_iter = way == 1 ? ERR_IO : 0};
        struct state_store store = {.ops = &fake_ops, .ctx = &fake};
        struct state *st;
        struct slice value;
        struct state_scan it;
        fake_set(&fake, slice_str("low"), slice_str("v"), false);
        assert_int_equal(state_open(&st, &store), 0);
        state_put(st, slice_str("up"), slice_str("v"));
        assert_int_equal(state_health(st), 0);
        if (way == 0) {
            assert_false(state_get(st, slice_str("low"), &value));
            assert_int_equal(state_health(st), ERR_CORRUPT);
        }
        state_scan_begin(st, &it, slice_of(NULL, 0), slice_of(NULL, 0));
        assert_true(state_scan_next(&it));
        assert_slice(it.key, slice_str("up"));
        assert_false(state_scan_next(&it));
        state_scan_end(&it);
        fake.fail_get = fake.fail_iter = 0;
        assert_false(state_get(st, slice_str("low"), &value));
        assert_true(state_get(st, slice_str("up"), &value));
        assert_int_equal(state_health(st), way == 0 ? ERR_CORRUPT : ERR_IO);
        state_free(st);
        fake_deinit(&fake);
    }
}

/* A damaged table file is reported when it is read, and never served. */
static void test_rocksdb_damage_is_reported(void **state)
{
    (void)state;
    char *dir = scratch_new();
    struct state_store store;
    struct err_detail detail = {{0}};
    struct state *st;
    assert_int_equal(state_store_rocks_open(&store, dir, MIB, &detail), 0);
    assert_int_equal(state_open(&st, &store), 0);
    struct rng rng;
    rng_seed(&rng, 3);
    for (int i = 0; i < 2000; i++) {
        char key[16];
        uint64_t value[8];
        for (size_t k = 0; k < ARRAY_COUNT(value); k++)
            value[k] = rng_next(&rng);
        snprintf(key, sizeof key, "k%05d", i);
        state_put(st, slice_str(key), slice_of(value, sizeof value));
    }
    state_advance(st, 2000);
    assert_true(state_freeze(st));
    assert_int_equal(state_write_frozen(st, &detail), 0);
    state_free(st);

    char *command = mem_printf("for f in %s/*.sst; do "
                               "printf 'XXXXXXXX' | dd of=$f bs=1 seek=30000 conv=notrunc "
                               "2>/dev/null || exit 1; done",
                               dir);
    assert_int_equal(system(command), 0);
    mem_free(command);

    assert_int_equal(state_store_rocks_open(&store, dir, MIB, &detail), 0);
    assert_int_equal(state_open(&st, &store), 0);
    assert_int_equal(state_stored_index(st), 2000);
    struct state_scan it;
    int count = 0;
    state_scan_begin(st, &it, slice_of(NULL, 0), slice_of(NULL, 0));
    while (state_scan_next(&it))
        count++;
    state_scan_end(&it);
    assert_true(count < 2000);
    assert_int_equal(state_health(st), ERR_CORRUPT);
    state_free(st);
    scratch_remove(dir);
}

/* What was deleted behind the prefix costs a scan nothing: half of all scans find nothing, beside
 * hundreds of thousands of keys that came and went. */
static void test_rocksdb_scan_ends_with_its_prefix(void **state)
{
    (void)state;
    char *dir = scratch_new();
    struct state_store store;
    struct err_detail detail = {{0}};
    struct state *st;
    assert_int_equal(state_store_rocks_open(&store, dir, MIB, &detail), 0);
    assert_int_equal(state_open(&st, &store), 0);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < 1000; i++) {
            char key[16];
            snprintf(key, sizeof key, "z%05d", i);
            if (pass == 0)
                state_put(st, slice_str(key), slice_of(NULL, 0));
            else
                state_del(st, slice_str(key));
        }
        state_advance(st, (uint64_t)pass + 1);
        assert_true(state_freeze(st));
        assert_int_equal(state_write_frozen(st, &detail), 0);
        state_thaw(st);
    }
    rocksdb_perfcontext_t *perf = rocksdb_perfcontext_create();
    rocksdb_set_perf_level(rocksdb_enable_count);
    static const char *const prefixes[] = {"x", "y\xff", "z"};
    for (unsigned i = 0; i < ARRAY_COUNT(prefixes); i++) {
        struct state_scan it;
        rocksdb_perfcontext_reset(perf);
        state_scan_begin(st, &it, slice_str(prefixes[i]), slice_of(NULL, 0));
        assert_false(state_scan_next(&it));
        state_scan_end(&it);
        uint64_t passed = rocksdb_perfcontext_metric(perf, rocksdb_internal_delete_skipped_count);
        assert_int_equal(passed, prefixes[i][0] == 'z' ? 1000 : 0); /* so it is counted at all */
    }
    rocksdb_set_perf_level(rocksdb_disable);
    rocksdb_perfcontext_destroy(perf);
    state_free(st);
    scratch_remove(dir);
}

/* A place that is no directory gives an error that names it. */
static void test_rocksdb_bad_directory(void **state)
{
    (void)state;
    struct state_store store;
    struct err_detail detail = {{0}};
    assert_int_not_equal(state_store_rocks_open(&store, "/proc/nowhere/state", MIB, &detail), 0);
    assert_non_null(strstr(detail.text, "/proc/nowhere/state"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_without_store),
        cmocka_unit_test(test_random_store_in_memory),
        cmocka_unit_test(test_random_rocksdb),
        cmocka_unit_test(test_write_frozen_fails_and_is_repeated),
        cmocka_unit_test(test_read_failure_is_sticky),
        cmocka_unit_test(test_rocksdb_damage_is_reported),
        cmocka_unit_test(test_rocksdb_scan_ends_with_its_prefix),
        cmocka_unit_test(test_rocksdb_bad_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
