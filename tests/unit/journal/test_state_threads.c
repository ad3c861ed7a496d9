/* Writing the frozen layer down on another thread while the owner reads, scans and writes. The
 * store is a sorted array under a lock, which the thread sanitizer can follow, and RocksDB. */
#include <pthread.h>

#include "journal/state.h"
#include "tests/unit/journal/journal_test.h"

#define KEYS 500u

/* ---- a store in memory: value i belongs to key i, empty length = absent ---- */

struct store {
    pthread_mutex_t lock;
    uint32_t values[KEYS];
    uint64_t index;
};
struct store_iter {
    struct store *store;
    uint32_t at;
    char key[16];
    uint32_t value;
};

static void key_make(uint32_t i, char out[16])
{
    (void)snprintf(out, 16, "key-%04u", i);
}

static uint32_t key_number(struct slice key)
{
    char text[16] = {0};
    assert_int_equal(key.len, 8);
    memcpy(text, key.ptr, key.len);
    return (uint32_t)strtoul(text + 4, NULL, 10);
}

static int store_get(void *ctx, struct slice key, struct buf *ret_value, bool *ret_found)
{
    struct store *s = ctx;
    (void)pthread_mutex_lock(&s->lock);
    uint32_t value = s->values[key_number(key)];
    (void)pthread_mutex_unlock(&s->lock);
    *ret_found = value != 0;
    buf_clear(ret_value);
    buf_append(ret_value, &value, sizeof value);
    return 0;
}

static void *store_iter_new(void *ctx, struct slice seek, struct slice end)
{
    (void)end;
    struct store_iter *it = mem_calloc(1, sizeof *it);
    it->store = ctx;
    it->at = seek.len == 8 ? key_number(seek) : 0;
    return it;
}

static bool store_iter_at(void *iter, struct slice *ret_key, struct slice *ret_value)
{
    struct store_iter *it = iter;
    (void)pthread_mutex_lock(&it->store->lock);
    while (it->at < KEYS && it->store->values[it->at] == 0)
        it->at++;
    bool there = it->at < KEYS;
    if (there)
        it->value = it->store->values[it->at];
    (void)pthread_mutex_unlock(&it->store->lock);
    if (!there)
        return false;
    key_make(it->at, it->key);
    *ret_key = slice_str(it->key);
    *ret_value = slice_of(&it->value, sizeof it->value);
    return true;
}

static void store_iter_next(void *iter)
{
    struct store_iter *it = iter;
    it->at++;
}

static int store_iter_free(void *iter)
{
    mem_free(iter);
    return 0;
}

static int
store_write(void *ctx,
            uint64_t index,
            bool (*next)(void *nctx, struct slice *key, struct slice *value, bool *is_delete),
            void *nctx,
            struct err_detail *detail)
{
    struct store *s = ctx;
    struct slice key, value;
    bool is_delete;
    (void)detail;
    while (next(nctx, &key, &value, &is_delete)) {
        uint32_t v = 0;
        if (!is_delete)
            memcpy(&v, value.ptr, sizeof v);
        (void)pthread_mutex_lock(&s->lock);
        s->values[key_number(key)] = v;
        (void)pthread_mutex_unlock(&s->lock);
    }
    (void)pthread_mutex_lock(&s->lock);
    s->index = index;
    (void)pthread_mutex_unlock(&s->lock);
    return 0;
}

static uint64_t store_index(void *ctx)
{
    struct store *s = ctx;
    (void)pthread_mutex_lock(&s->lock);
    uint64_t index = s->index;
    (void)pthread_mutex_unlock(&s->lock);
    return index;
}

static void store_close(void *ctx)
{
    struct store *s = ctx;
    (void)pthread_mutex_destroy(&s->lock);
}

static const struct state_store_ops store_ops = {store_get,       store_iter_new,  store_iter_at,
                                                 store_iter_next, store_iter_free, store_write,
                                                 store_index,     store_close};

/* ---- the owner and the writer ---- */

static void *write_down(void *ctx)
{
    struct err_detail detail;
    assert_int_equal(state_write_frozen(ctx, &detail), 0);
    return NULL;
}

static void owner_turn(struct state *st, struct rng *rng, uint32_t model[KEYS])
{
    char key[16];
    struct slice value;
    uint32_t i = (uint32_t)rng_below(rng, KEYS);
    key_make(i, key);
    if (rng_below(rng, 2) == 0) {
        model[i] = rng_below(rng, 3) == 0 ? 0 : (uint32_t)rng_next(rng) | 1;
        if (model[i] == 0)
            state_del(st, slice_str(key));
        else
            state_put(st, slice_str(key), slice_of(&model[i], sizeof model[i]));
        state_advance(st, state_index(st) + 1);
    }
    i = (uint32_t)rng_below(rng, KEYS);
    key_make(i, key);
    bool found = state_get(st, slice_str(key), &value);
    assert_int_equal(found, model[i] != 0);
    if (found)
        assert_memory_equal(value.ptr, &model[i], sizeof model[i]);
}

static void check_scan(struct state *st, const uint32_t model[KEYS])
{
    struct state_scan it;
    char key[16];
    state_scan_begin(st, &it, slice_str("key-"), slice_of(NULL, 0));
    for (uint32_t i = 0; i < KEYS; i++) {
        if (model[i] == 0)
            continue;
        assert_true(state_scan_next(&it));
        key_make(i, key);
        assert_slice(it.key, slice_str(key));
        assert_memory_equal(it.value.ptr, &model[i], sizeof model[i]);
    }
    assert_false(state_scan_next(&it));
    state_scan_end(&it);
}

static void run(struct state_store *store, int rounds)
{
    static uint32_t model[KEYS];
    struct state *st;
    struct rng rng;
    memset(model, 0, sizeof model);
    rng_seed(&rng, 11);
    assert_int_equal(state_open(&st, store), 0);
    for (int round = 0; round < rounds; round++) {
        pthread_t thread;
        for (int i = 0; i < 100; i++)
            owner_turn(st, &rng, model);
        assert_true(state_freeze(st));
        assert_int_equal(pthread_create(&thread, NULL, write_down, st), 0);
        for (int i = 0; i < 300; i++) {
            owner_turn(st, &rng, model);
            if (i % 30 == 0)
                check_scan(st, model);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        state_thaw(st);
        check_scan(st, model);
    }
    assert_int_equal(state_health(st), 0);
    state_free(st);
}

static void test_write_frozen_beside_the_owner(void **state)
{
    (void)state;
    static struct store s;
    struct state_store store = {.ops = &store_ops, .ctx = &s};
    (void)pthread_mutex_init(&s.lock, NULL);
    run(&store, 30);
}

static void test_write_frozen_beside_the_owner_rocksdb(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    print_message("skipped: RocksDB is not built for the thread sanitizer\n");
    skip();
#endif
    char *dir = scratch_new();
    struct state_store store;
    struct err_detail detail;
    assert_int_equal(state_store_rocks_open(&store, dir, MIB, &detail), 0);
    run(&store, 15);
    scratch_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_frozen_beside_the_owner),
        cmocka_unit_test(test_write_frozen_beside_the_owner_rocksdb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
