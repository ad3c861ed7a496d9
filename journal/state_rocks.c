/* The lower layer of the state on RocksDB's C interface: one column family, no write-ahead log, one
 * write batch and a flush for each frozen layer. The journal index lives under a reserved key in
 * the same batch, so index and contents cannot part. A shell. */
#include "journal/state.h"

#include <string.h>

#include <rocksdb/c.h>

#include "base/assert.h"
#include "base/codec.h"

/* Sorts behind every key of the state; never seen in scans. */
static const uint8_t INDEX_KEY[] = {0xff, 0xff, 'i', 'n', 'd', 'e', 'x'};

struct rocks {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *table;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    rocksdb_flushoptions_t *flush;
    uint64_t index; /* what the last successful write (or the open) left in the store */
};

static int rocks_error(char *error, const char *what, struct err_detail *detail)
{
    err_detail_set(detail, "state store: %s: %s", what, error);
    int rc = ERR_IO;
    if (strstr(error, "No space") != NULL)
        rc = ERR_NO_SPACE;
    else if (strncmp(error, "Corruption", 10) == 0)
        rc = ERR_CORRUPT;
    rocksdb_free(error);
    return rc;
}

static int rocks_get(void *ctx, struct slice key, struct buf *ret_value, bool *ret_found)
{
    struct rocks *r = ctx;
    char *error = NULL;
    rocksdb_pinnableslice_t *pinned =
        rocksdb_get_pinned(r->db, r->read, (const char *)key.ptr, key.len, &error);
    if (error != NULL)
        return rocks_error(error, "read", NULL);
    *ret_found = pinned != NULL;
    if (pinned != NULL) {
        size_t len;
        const char *value = rocksdb_pinnableslice_value(pinned, &len);
        buf_clear(ret_value);
        buf_append(ret_value, value, len);
        rocksdb_pinnableslice_destroy(pinned);
    }
    return 0;
}

/* RocksDB passes over what was deleted until it finds something, or the bound. */
struct rocks_iter {
    rocksdb_iterator_t *iter;
    rocksdb_readoptions_t *read;
    struct buf end; /* RocksDB refers to it */
};

static void *rocks_iter_new(void *ctx, struct slice seek, struct slice end)
{
    struct rocks *r = ctx;
    struct rocks_iter *it = mem_calloc(1, sizeof *it);
    it->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(it->read, 1);
    if (end.len > 0) {
        buf_append(&it->end, end.ptr, end.len);
        rocksdb_readoptions_set_iterate_upper_bound(it->read, (const char *)it->end.ptr, end.len);
    }
    it->iter = rocksdb_create_iterator(r->db, it->read);
    if (seek.len > 0)
        rocksdb_iter_seek(it->iter, (const char *)seek.ptr, seek.len);
    else
        rocksdb_iter_seek_to_first(it->iter);
    return it;
}

static bool rocks_iter_at(void *iter, struct slice *ret_key, struct slice *ret_value)
{
    const struct rocks_iter *it = iter;
    if (!rocksdb_iter_valid(it->iter))
        return false;
    size_t len;
    const char *key = rocksdb_iter_key(it->iter, &len);
    *ret_key = slice_of(key, len);
    if (slice_equal(*ret_key, slice_of(INDEX_KEY, sizeof INDEX_KEY)))
        return false; /* the last key of all */
    const char *value = rocksdb_iter_value(it->iter, &len);
    *ret_value = slice_of(value, len);
    return true;
}

static void rocks_iter_next(void *iter)
{
    struct rocks_iter *it = iter;
    rocksdb_iter_next(it->iter);
}

static int rocks_iter_free(void *iter)
{
    struct rocks_iter *it = iter;
    char *error = NULL;
    rocksdb_iter_get_error(it->iter, &error);
    rocksdb_iter_destroy(it->iter);
    rocksdb_readoptions_destroy(it->read);
    buf_deinit(&it->end);
    mem_free(it);
    return error != NULL ? rocks_error(error, "scan", NULL) : 0;
}

static int
rocks_write(void *ctx,
            uint64_t index,
            bool (*next)(void *nctx, struct slice *key, struct slice *value, bool *is_delete),
            void *nctx,
            struct err_detail *detail)
{
    struct rocks *r = ctx;
    struct slice key, value;
    bool is_delete;
    struct buf index_value = {0};
    char *error = NULL;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    while (next(nctx, &key, &value, &is_delete)) {
        if (is_delete)
            rocksdb_writebatch_delete(batch, (const char *)key.ptr, key.len);
        else
            rocksdb_writebatch_put(batch, (const char *)key.ptr, key.len, (const char *)value.ptr,
                                   value.len);
    }
    enc_u64(&index_value, index);
    rocksdb_writebatch_put(batch, (const char *)INDEX_KEY, sizeof INDEX_KEY,
                           (const char *)index_value.ptr, index_value.len);
    rocksdb_write(r->db, r->write, batch, &error);
    rocksdb_writebatch_destroy(batch);
    buf_deinit(&index_value);
    if (error != NULL)
        return rocks_error(error, "write", detail);
    /* Without a write-ahead log the batch is durable, as a whole, once its table file is. */
    rocksdb_flush(r->db, r->flush, &error);
    if (error != NULL)
        return rocks_error(error, "flush", detail);
    r->index = index;
    return 0;
}

static uint64_t rocks_index(void *ctx)
{
    const struct rocks *r = ctx;
    return r->index;
}

static void rocks_close(void *ctx)
{
    struct rocks *r = ctx;
    if (r->db != NULL)
        rocksdb_close(r->db);
    rocksdb_flushoptions_destroy(r->flush);
    rocksdb_writeoptions_destroy(r->write);
    rocksdb_readoptions_destroy(r->read);
    rocksdb_options_destroy(r->options);
    rocksdb_block_based_options_destroy(r->table);
    rocksdb_cache_destroy(r->cache);
    mem_free(r);
}

static const struct state_store_ops rocks_ops = {
    .get = rocks_get,
    .iter_new = rocks_iter_new,
    .iter_at = rocks_iter_at,
    .iter_next = rocks_iter_next,
    .iter_free = rocks_iter_free,
    .write = rocks_write,
    .index = rocks_index,
    .close = rocks_close,
};

static void set_options(struct rocks *r, size_t cache_bytes)
{
    r->cache = rocksdb_cache_create_lru(cache_bytes);
    r->table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(r->table, r->cache);
    /* The table owns the policy from here on. */
    rocksdb_block_based_options_set_filter_policy(r->table,
                                                  rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_format_version(r->table, 5);

    r->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(r->options, 1);
    rocksdb_options_set_paranoid_checks(r->options, 1);
    rocksdb_options_set_block_based_table_factory(r->options, r->table);
    rocksdb_options_set_compression(r->options, rocksdb_zstd_compression);
    rocksdb_options_set_write_buffer_size(r->options, 64 * MIB);
    rocksdb_options_set_max_background_jobs(r->options, 2);
    rocksdb_options_set_max_open_files(r->options, 256);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(r->options, 1);
    rocksdb_options_set_info_log_level(r->options, 2 /* warnings and errors */);
    rocksdb_options_set_keep_log_file_num(r->options, 4);
    rocksdb_options_set_bytes_per_sync(r->options, MIB);

    r->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(r->read, 1);
    r->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(r->write, 1);
    r->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(r->flush, 1);
}

static int read_index(struct rocks *r, const char *dir, struct err_detail *detail)
{
    struct buf value = {0};
    bool found;
    int rc = rocks_get(r, slice_of(INDEX_KEY, sizeof INDEX_KEY), &value, &found);
    if (rc == 0 && found) {
        struct dec d = dec_of(buf_slice(&value));
        r->index = dec_u64(&d);
        rc = dec_end(&d);
    }
    if (rc != 0)
        err_detail_set(detail, "state store %s: its journal index cannot be read: %s", dir,
                       err_text(rc));
    buf_deinit(&value);
    return rc;
}

int state_store_rocks_open(struct state_store *ret,
                           const char *dir,
                           size_t cache_bytes,
                           struct err_detail *detail)
{
    struct rocks *r = mem_calloc(1, sizeof *r);
    char *error = NULL;
    set_options(r, cache_bytes);
    r->db = rocksdb_open(r->options, dir, &error);
    int rc = 0;
    if (error != NULL) {
        r->db = NULL;
        rc = rocks_error(error, dir, detail);
    } else {
        rc = read_index(r, dir, detail);
    }
    if (rc != 0) {
        rocks_close(r);
        return rc;
    }
    *ret = (struct state_store){.ops = &rocks_ops, .ctx = r};
    return 0;
}
