/* The index of a store on RocksDB's C interface. See data/store_index.h. */
#include "data/store_index.h"

#include <rocksdb/c.h>

#include "base/assert.h"
#include "data/index_value.h"

#define KEY_CHUNK 'c'
#define KEY_META 'm'
#define KEY_STAT 's'
#define CHUNK_KEY_BYTES (1 + CHUNK_ID_BYTES)
#define STAT_KEY_BYTES (1 + 8)

struct index {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *table;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;
    rocksdb_readoptions_t *read_cached; /* memory only */
    rocksdb_readoptions_t *scan;        /* does not push others out of the cache */
    rocksdb_writeoptions_t *write;
};
struct index_batch {
    rocksdb_writebatch_t *batch;
    struct buf value; /* scratch */
};

static int index_error(char *error, const char *what, struct err_detail *detail)
{
    int rc = ERR_IO;
    if (strstr(error, "No space") != NULL)
        rc = ERR_NO_SPACE;
    else if (strncmp(error, "Corruption", 10) == 0)
        rc = ERR_CORRUPT;
    else if (strstr(error, "result incomplete") != NULL ||
             strncmp(error, "Result incomplete", 17) == 0)
        rc = ERR_AGAIN;
    err_detail_set(detail, "chunk index: %s: %s", what, error);
    rocksdb_free(error);
    return rc;
}

static void options_new(struct index *x, size_t cache_bytes)
{
    x->options = rocksdb_options_create();
    x->table = rocksdb_block_based_options_create();
    x->cache = rocksdb_cache_create_lru(cache_bytes);
    x->read = rocksdb_readoptions_create();
    x->read_cached = rocksdb_readoptions_create();
    x->scan = rocksdb_readoptions_create();
    x->write = rocksdb_writeoptions_create();
    rocksdb_block_based_options_set_block_cache(x->table, x->cache);
    /* Most puts are of new chunks: the filter answers those without a read. */
    rocksdb_block_based_options_set_filter_policy(x->table,
                                                  rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_whole_key_filtering(x->table, 1);
    rocksdb_block_based_options_set_format_version(x->table, 5);
    rocksdb_options_set_block_based_table_factory(x->options, x->table);
    rocksdb_options_set_create_if_missing(x->options, 1);
    rocksdb_options_set_paranoid_checks(x->options, 1);
    rocksdb_options_set_compression(x->options, rocksdb_no_compression); /* ids are random */
    rocksdb_options_set_write_buffer_size(x->options, 16 * MIB);
    rocksdb_options_set_max_open_files(x->options, 256);
    rocksdb_options_set_keep_log_file_num(x->options, 2);
    rocksdb_options_set_info_log_level(x->options, 2);
    rocksdb_readoptions_set_verify_checksums(x->read, 1);
    rocksdb_readoptions_set_verify_checksums(x->read_cached, 1);
    rocksdb_readoptions_set_read_tier(x->read_cached, 1); /* block cache and memory */
    rocksdb_readoptions_set_verify_checksums(x->scan, 1);
    rocksdb_readoptions_set_fill_cache(x->scan, 0);
    rocksdb_writeoptions_disable_WAL(x->write, 1);
}

int index_open(struct index **ret,
               const char *dir,
               size_t cache_bytes,
               bool *ret_rebuilt,
               struct err_detail *detail)
{
    struct index *x = mem_calloc(1, sizeof *x);
    options_new(x, cache_bytes);
    *ret_rebuilt = false;
    char *error = NULL;
    x->db = rocksdb_open(x->options, dir, &error);
    int rc = error == NULL ? 0 : index_error(error, "open", detail);
    if (rc == ERR_CORRUPT) {
        error = NULL;
        rocksdb_destroy_db(x->options, dir, &error);
        rocksdb_free(error); /* what matters is whether the next open succeeds */
        error = NULL;
        x->db = rocksdb_open(x->options, dir, &error);
        rc = error == NULL ? 0 : index_error(error, "make anew", detail);
        *ret_rebuilt = rc == 0;
    }
    if (rc != 0) {
        index_close(x);
        return rc;
    }
    *ret = x;
    return 0;
}

void index_close(struct index *x)
{
    if (x == NULL)
        return;
    if (x->db != NULL)
        rocksdb_close(x->db);
    rocksdb_writeoptions_destroy(x->write);
    rocksdb_readoptions_destroy(x->read);
    rocksdb_readoptions_destroy(x->read_cached);
    rocksdb_readoptions_destroy(x->scan);
    rocksdb_block_based_options_destroy(x->table);
    rocksdb_options_destroy(x->options);
    rocksdb_cache_destroy(x->cache);
    mem_free(x);
}

/* ---- forms ---- */

struct chunk_key {
    char b[CHUNK_KEY_BYTES];
};
static struct chunk_key chunk_key_of(const struct chunk_id *id)
{
    struct chunk_key key;
    key.b[0] = KEY_CHUNK;
    memcpy(key.b + 1, id->b, CHUNK_ID_BYTES);
    return key;
}

struct stat_key {
    char b[STAT_KEY_BYTES];
};
static struct stat_key stat_key_of(uint64_t segment)
{
    struct stat_key key;
    key.b[0] = KEY_STAT;
    for (unsigned i = 0; i < 8; i++)
        key.b[1 + i] = (char)(uint8_t)(segment >> (56 - 8 * i));
    return key;
}

/* ---- reading ---- */

static int get(struct index *x,
               rocksdb_readoptions_t *options,
               struct slice key,
               rocksdb_pinnableslice_t **ret)
{
    char *error = NULL;
    *ret = rocksdb_get_pinned(x->db, options, (const char *)key.ptr, key.len, &error);
    return error == NULL ? 0 : index_error(error, "read", NULL);
}

static struct slice pinned_slice(const rocksdb_pinnableslice_t *pinned)
{
    size_t len = 0;
    const char *ptr = rocksdb_pinnableslice_value(pinned, &len);
    return slice_of(ptr, len);
}

int index_get(struct index *x, const struct chunk_id *id, bool cached_only, struct store_entry *ret)
{
    struct chunk_key key = chunk_key_of(id);
    rocksdb_pinnableslice_t *pinned = NULL;
    int rc = get(x, cached_only ? x->read_cached : x->read, slice_of(key.b, sizeof key.b), &pinned);
    if (rc != 0)
        return rc;
    if (pinned == NULL) {
        *ret = (struct store_entry){0};
        return 0;
    }
    rc = index_entry_decode(pinned_slice(pinned), ret);
    rocksdb_pinnableslice_destroy(pinned);
    return rc;
}

int index_meta_get(struct index *x, struct index_meta *ret, bool *ret_found)
{
    static const char key[] = {KEY_META};
    rocksdb_pinnableslice_t *pinned = NULL;
    int rc = get(x, x->read, slice_of(key, sizeof key), &pinned);
    if (rc != 0)
        return rc;
    *ret_found = pinned != NULL;
    if (pinned == NULL)
        return 0;
    rc = index_meta_decode(pinned_slice(pinned), ret);
    rocksdb_pinnableslice_destroy(pinned);
    return rc;
}

static struct slice iter_key(const rocksdb_iterator_t *iter)
{
    size_t len = 0;
    const char *ptr = rocksdb_iter_key(iter, &len);
    return slice_of(ptr, len);
}

static struct slice iter_value(const rocksdb_iterator_t *iter)
{
    size_t len = 0;
    const char *ptr = rocksdb_iter_value(iter, &len);
    return slice_of(ptr, len);
}

static int iter_end(rocksdb_iterator_t *iter, int rc)
{
    char *error = NULL;
    rocksdb_iter_get_error(iter, &error);
    rocksdb_iter_destroy(iter);
    if (error != NULL) {
        int rc_scan = index_error(error, "scan", NULL);
        return rc != 0 ? rc : rc_scan;
    }
    return rc;
}

int index_stats(struct index *x,
                void (*fn)(void *ctx, uint64_t segment, const struct segment_stat *stat),
                void *ctx)
{
    static const char start[] = {KEY_STAT};
    int rc = 0;
    rocksdb_iterator_t *iter = rocksdb_create_iterator(x->db, x->scan);
    for (rocksdb_iter_seek(iter, start, 1); rc == 0 && rocksdb_iter_valid(iter);
         rocksdb_iter_next(iter)) {
        struct slice key = iter_key(iter);
        if (key.len != STAT_KEY_BYTES || key.ptr[0] != KEY_STAT)
            break;
        uint64_t segment = 0;
        for (unsigned i = 0; i < 8; i++)
            segment = segment << 8 | key.ptr[1 + i];
        struct segment_stat stat;
        rc = index_stat_decode(iter_value(iter), &stat);
        if (rc == 0)
            fn(ctx, segment, &stat);
    }
    return iter_end(iter, rc);
}

int index_scan(struct index *x,
               const struct chunk_id *after,
               bool (*fn)(void *ctx, const struct chunk_id *id, const struct store_entry *e),
               void *ctx)
{
    static const char start[] = {KEY_CHUNK};
    int rc = 0;
    rocksdb_iterator_t *iter = rocksdb_create_iterator(x->db, x->scan);
    if (after == NULL) {
        rocksdb_iter_seek(iter, start, 1);
    } else {
        struct chunk_key key = chunk_key_of(after);
        rocksdb_iter_seek(iter, key.b, sizeof key.b);
        if (rocksdb_iter_valid(iter) && slice_equal(iter_key(iter), slice_of(key.b, sizeof key.b)))
            rocksdb_iter_next(iter);
    }
    for (; rc == 0 && rocksdb_iter_valid(iter); rocksdb_iter_next(iter)) {
        struct slice key = iter_key(iter);
        if (key.len != CHUNK_KEY_BYTES || key.ptr[0] != KEY_CHUNK)
            break;
        struct chunk_id id = chunk_id_of(key.ptr + 1);
        struct store_entry e;
        rc = index_entry_decode(iter_value(iter), &e);
        if (rc == 0 && !fn(ctx, &id, &e))
            break;
    }
    return iter_end(iter, rc);
}

/* ---- writing ---- */

struct index_batch *index_batch_new(void)
{
    struct index_batch *b = mem_calloc(1, sizeof *b);
    b->batch = rocksdb_writebatch_create();
    return b;
}

void index_batch_free(struct index_batch *b)
{
    if (b == NULL)
        return;
    rocksdb_writebatch_destroy(b->batch);
    buf_deinit(&b->value);
    mem_free(b);
}

static void batch_put(struct index_batch *b, const char *key, size_t len)
{
    rocksdb_writebatch_put(b->batch, key, len, (const char *)b->value.ptr, b->value.len);
}

void index_batch_put(struct index_batch *b, const struct chunk_id *id, const struct store_entry *e)
{
    buf_clear(&b->value);
    index_entry_encode(e, &b->value);
    struct chunk_key key = chunk_key_of(id);
    batch_put(b, key.b, sizeof key.b);
}

void index_batch_delete(struct index_batch *b, const struct chunk_id *id)
{
    struct chunk_key key = chunk_key_of(id);
    rocksdb_writebatch_delete(b->batch, key.b, sizeof key.b);
}

void index_batch_stat(struct index_batch *b, uint64_t segment, const struct segment_stat *stat)
{
    buf_clear(&b->value);
    index_stat_encode(stat, &b->value);
    struct stat_key key = stat_key_of(segment);
    batch_put(b, key.b, sizeof key.b);
}

void index_batch_stat_delete(struct index_batch *b, uint64_t segment)
{
    struct stat_key key = stat_key_of(segment);
    rocksdb_writebatch_delete(b->batch, key.b, sizeof key.b);
}

void index_batch_meta(struct index_batch *b, const struct index_meta *meta)
{
    static const char key[] = {KEY_META};
    buf_clear(&b->value);
    index_meta_encode(meta, &b->value);
    batch_put(b, key, sizeof key);
}

int index_write(struct index *x, struct index_batch *b)
{
    char *error = NULL;
    rocksdb_write(x->db, x->write, b->batch, &error);
    return error == NULL ? 0 : index_error(error, "write", NULL);
}

int index_flush(struct index *x, bool wait)
{
    char *error = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(options, wait);
    rocksdb_flush(x->db, options, &error);
    rocksdb_flushoptions_destroy(options);
    return error == NULL ? 0 : index_error(error, "flush", NULL);
}
