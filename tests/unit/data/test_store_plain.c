/* What the store says of lengths before compression: through overwriting, crashes of the index,
 * garbage, compaction, and with an index of the version before they were kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <rocksdb/c.h>

#include "data/chunk.h"
#include "tests/unit/data/store_world.h"

#define PLAIN_BYTES 100000u

static struct pipeline *pipeline_of_test(void)
{
    static const uint8_t key[FS_KEY_BYTES] = {1};
    struct fs_keys keys;
    struct pipeline *p;
    fs_keys_derive(key, &keys);
    assert_int_equal(pipeline_new(&p, &keys, CHUNK_CIPHER_AUTO), 0);
    return p;
}

struct put {
    struct store_put put;
    struct world *w;
};
static void put_done(struct store_put *put, int rc)
{
    assert_int_equal(rc, 0);
    world_done(CONTAINER_OF(put, struct put, put)->w);
}

/* Text that compresses well, different for each n. */
static struct chunk_id put_text(struct world *w, unsigned n)
{
    struct pipeline *p = pipeline_of_test();
    struct buf plain = {0}, sealed = {0};
    struct put put = {.w = w, .put = {.done = put_done}};
    buf_reserve(&plain, PLAIN_BYTES);
    memset(plain.ptr, (int)('a' + n % 20), PLAIN_BYTES);
    plain.len = PLAIN_BYTES;
    assert_int_equal(chunk_seal(p, buf_slice(&plain), &sealed, &put.put.id), 0);
    put.put.data = buf_slice(&sealed);
    w->pending++;
    assert_int_equal(store_put(w->store, &put.put), 0);
    world_run(w);
    buf_deinit(&plain);
    buf_deinit(&sealed);
    pipeline_free(p);
    return put.put.id;
}

static void assert_plain(struct world *w, uint64_t bytes)
{
    assert_int_equal(world_stats(w).plain_bytes, bytes);
}

static void reopen(struct world *w)
{
    world_close(w);
    assert_int_equal(world_open(w), 0);
}

static void test_plain_bytes_follow_the_chunks(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    for (unsigned n = 0; n < 12; n++) /* each but two is put once more */
        (void)put_text(&w, n % 7);
    assert_plain(&w, 7 * PLAIN_BYTES);
    assert_true(world_stats(&w).live_bytes < PLAIN_BYTES);
    world_put_many(&w, 0, 300, 5000); /* no sealed chunks: their own length */
    assert_plain(&w, 7 * PLAIN_BYTES + 300 * 5000);
    reopen(&w);
    assert_plain(&w, 7 * PLAIN_BYTES + 300 * 5000);
    char *index = mem_printf("%s/index", w.dir);
    world_close(&w);
    remove_tree(index);
    assert_int_equal(world_open(&w), 0);
    assert_plain(&w, 7 * PLAIN_BYTES + 300 * 5000);
    uint64_t before = store_epoch_advance(w.store);
    (void)put_text(&w, 3); /* young: it survives */
    assert_int_equal(world_sweep(&w, before, 1000, 999).chunks, 306);
    assert_plain(&w, PLAIN_BYTES);
    int rc = 0;
    while (rc == 0 && !world_compact(&w, &rc).nothing) {
    }
    assert_plain(&w, PLAIN_BYTES);
    reopen(&w);
    assert_plain(&w, PLAIN_BYTES);
    mem_free(index);
    world_deinit(&w);
}

/* Cuts each value to what version 1 had. */
static void make_version_1(const char *dir)
{
    char *error = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_t *db = rocksdb_open(options, dir, &error);
    assert_null(error);
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
    rocksdb_iterator_t *it = rocksdb_create_iterator(db, read);
    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t key_len, len;
        const char *key = rocksdb_iter_key(it, &key_len), *at = rocksdb_iter_value(it, &len);
        char value[64];
        assert_true(len <= sizeof value);
        memcpy(value, at, len);
        if (key[0] == 'm')
            value[0] = 1;
        else
            len = 24;
        rocksdb_put(db, write, key, key_len, value, len, &error);
        assert_null(error);
    }
    rocksdb_iter_destroy(it);
    rocksdb_writeoptions_destroy(write);
    rocksdb_readoptions_destroy(read);
    rocksdb_close(db);
    rocksdb_options_destroy(options);
}

static void test_an_index_without_them_is_read(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(world_open(&w), 0);
    world_put_many(&w, 0, 100, 5000);
    (void)put_text(&w, 1);
    world_close(&w);
    char *index = mem_printf("%s/index", w.dir);
    make_version_1(index);
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(world_stats(&w).chunks, 101);
    for (uint64_t n = 0; n < 100; n++)
        assert_int_equal(world_get(&w, n, 5000), 0);
    uint64_t known = world_stats(&w).plain_bytes; /* as stored */
    assert_true(known >= 100 * 5000 && known < 101 * 5064);
    (void)put_text(&w, 2); /* new ones count in full */
    assert_plain(&w, known + PLAIN_BYTES);
    reopen(&w);
    assert_plain(&w, known + PLAIN_BYTES);
    (void)world_sweep(&w, store_epoch_advance(w.store) + 1, 1000, 999);
    assert_int_equal(world_stats(&w).chunks, 0);
    assert_true(world_stats(&w).plain_bytes < 101 * 64);
    mem_free(index);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_bytes_follow_the_chunks),
        cmocka_unit_test(test_an_index_without_them_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
