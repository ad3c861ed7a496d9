/* The block cache: one loads, others wait; memory is bounded; references keep. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/cache_block.h"

static struct chunk_id id_of(uint32_t n)
{
    struct chunk_id id = {{1}};
    memcpy(id.b, &n, sizeof n);
    id.b[8] = 1;
    return id;
}

static void load(struct block_cache *c, uint32_t n, size_t len)
{
    struct chunk_id id = id_of(n);
    enum block_state s;
    struct block *b = block_cache_get(c, &id, &s);
    if (s == BLOCK_MISSING) {
        uint8_t *data = mem_alloc(len);
        memset(data, (int)n, len);
        block_cache_loaded(c, b, 0, data, len);
    }
    block_cache_unref(c, b);
}

static bool has(struct block_cache *c, uint32_t n)
{
    struct chunk_id id = id_of(n);
    return block_cache_has(c, &id);
}

static void test_least_recently_used_goes(void **state)
{
    struct block_cache *c = block_cache_new(300);
    (void)state;
    load(c, 1, 100);
    load(c, 2, 100);
    load(c, 3, 100);
    load(c, 1, 100); /* used again */
    load(c, 4, 100);
    assert_true(has(c, 1));
    assert_false(has(c, 2));
    assert_true(has(c, 3));
    assert_true(has(c, 4));
    assert_int_equal(block_cache_bytes(c), 300);
    block_cache_limit(c, 100);
    assert_int_equal(block_cache_bytes(c), 100);
    assert_true(has(c, 4));
    block_cache_free(c);
}

static void test_referenced_block_stays(void **state)
{
    struct block_cache *c = block_cache_new(100);
    struct chunk_id id = id_of(7);
    enum block_state s;
    (void)state;
    struct block *b = block_cache_get(c, &id, &s);
    assert_int_equal(s, BLOCK_MISSING);
    uint8_t *data = mem_alloc(80);
    memset(data, 9, 80);
    block_cache_loaded(c, b, 0, data, 80);
    load(c, 8, 80);
    load(c, 9, 80);
    assert_true(has(c, 7));
    assert_int_equal(b->data[79], 9);
    block_cache_unref(c, b);
    assert_true(block_cache_bytes(c) <= 100);
    block_cache_free(c);
}

static void test_failed_load_is_tried_again(void **state)
{
    struct block_cache *c = block_cache_new(100);
    struct chunk_id id = id_of(7);
    enum block_state s;
    (void)state;
    struct block *b = block_cache_get(c, &id, &s), *waiting = block_cache_get(c, &id, &s);
    assert_int_equal(s, BLOCK_LOADING);
    assert_ptr_equal(b, waiting);
    block_cache_loaded(c, b, ERR_IO, NULL, 0);
    assert_int_equal(block_cache_wait(c, waiting), ERR_IO);
    struct block *again = block_cache_get(c, &id, &s);
    assert_int_equal(s, BLOCK_MISSING);
    block_cache_loaded(c, again, 0, mem_alloc(1), 1);
    block_cache_unref(c, again);
    block_cache_unref(c, b);
    block_cache_unref(c, waiting);
    block_cache_free(c);
}

static struct block *get(struct block_cache *c, uint32_t n)
{
    struct chunk_id id = id_of(n);
    enum block_state s;
    struct block *b = block_cache_get(c, &id, &s);
    assert_int_equal(s, BLOCK_READY);
    return b;
}

static void load_and_read_out(struct block_cache *c, uint32_t n, size_t len)
{
    load(c, n, len);
    block_cache_read_out(c, get(c, n));
}

/* What was read from one end to the other goes before what is older, and leaves nothing but a
 * little; what somebody comes to again is used like any other. */
static void test_what_was_read_out_goes_first(void **state)
{
    struct block_cache *c = block_cache_new(32000);
    (void)state;
    load(c, 1, 100);
    for (uint32_t n = 2; n < 100; n++)
        load_and_read_out(c, n, 100);
    assert_true(has(c, 1));
    assert_int_equal(block_cache_bytes(c), 100 + 1000); /* a 32nd of the room */
    assert_true(has(c, 99));
    assert_true(has(c, 90));
    assert_false(has(c, 89));
    block_cache_unref(c, get(c, 92)); /* came to again */
    for (uint32_t n = 100; n < 200; n++)
        load_and_read_out(c, n, 100);
    assert_false(has(c, 99));
    assert_true(has(c, 92));
    block_cache_read_out(c, get(c, 92));
    for (uint32_t n = 200; n < 300; n++)
        load_and_read_out(c, n, 100);
    assert_true(has(c, 92));
    assert_int_equal(block_cache_bytes(c), 200 + 1000);
    block_cache_limit(c, 200); /* first those that were read out, though they are newer */
    assert_true(has(c, 1));
    assert_true(has(c, 92));
    assert_int_equal(block_cache_bytes(c), 200);
    block_cache_free(c);
}

/* Nobody loses what he is reading, though another has read it to its end. */
static void test_read_out_and_referenced_stays(void **state)
{
    struct block_cache *c = block_cache_new(3200);
    (void)state;
    load(c, 1, 100);
    struct block *b = get(c, 1);
    block_cache_read_out(c, get(c, 1));
    for (uint32_t n = 2; n < 50; n++)
        load_and_read_out(c, n, 100);
    assert_true(has(c, 1));
    assert_int_equal(b->data[99], 1);
    block_cache_read_out(c, b);
    load_and_read_out(c, 50, 100);
    assert_false(has(c, 1));
    block_cache_free(c);
}

/* Memory of blocks that went is what the next ones get, if they are as long. */
static void test_memory_goes_round(void **state)
{
    enum {
        LEN = 65536
    };
    struct block_cache *c = block_cache_new(32u * LEN);
    struct chunk_id id = id_of(1);
    enum block_state s;
    (void)state;
    struct block *b = block_cache_get(c, &id, &s);
    uint8_t *data = block_cache_room(c, LEN), *next;
    block_cache_loaded(c, b, 0, data, LEN);
    block_cache_read_out(c, b);
    load_and_read_out(c, 2, LEN); /* sends it away */
    assert_false(has(c, 1));
    next = block_cache_room(c, LEN);
    assert_ptr_equal(next, data);
    mem_free(next);
    load_and_read_out(c, 3, LEN);
    next = block_cache_room(c, LEN + 1);
    memset(next, 1, LEN + 1);
    mem_free(next);
    load_and_read_out(c, 4, LEN); /* the cache's end frees what is left */
    block_cache_free(c);
}

#define THREADS 4
#define ROUNDS 4000

static void *hammer(void *arg)
{
    struct block_cache *c = arg;
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)&r);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t n = (uint32_t)rng_below(&r, 32);
        struct chunk_id id = id_of(n);
        enum block_state s;
        struct block *b = block_cache_get(c, &id, &s);
        int rc = 0;
        if (s == BLOCK_MISSING) {
            uint8_t *data = mem_alloc(64);
            memset(data, (int)n, 64);
            rc = rng_below(&r, 10) == 0 ? ERR_IO : 0;
            if (rc != 0)
                mem_free(data);
            block_cache_loaded(c, b, rc, rc == 0 ? data : NULL, 64);
        } else if (s == BLOCK_LOADING) {
            rc = block_cache_wait(c, b);
        }
        if (rc == 0 && b->data[63] != n)
            return arg;
        if (rc == 0 && rng_below(&r, 4) == 0)
            block_cache_read_out(c, b);
        else
            block_cache_unref(c, b);
    }
    return NULL;
}

static void test_threads_see_what_was_loaded(void **state)
{
    struct block_cache *c = block_cache_new(64 * 8);
    pthread_t t[THREADS];
    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, c), 0);
    for (int i = 0; i < THREADS; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    block_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_referenced_block_stays),
        cmocka_unit_test(test_failed_load_is_tried_again),
        cmocka_unit_test(test_what_was_read_out_goes_first),
        cmocka_unit_test(test_read_out_and_referenced_stays),
        cmocka_unit_test(test_memory_goes_round),
        cmocka_unit_test(test_threads_see_what_was_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
