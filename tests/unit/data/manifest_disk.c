#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/data/manifest_disk.h"

void disk_init(struct manifest_disk *d)
{
    *d = (struct manifest_disk){0};
    struct fs_keys keys;
    fs_keys_derive((const uint8_t[FS_KEY_BYTES]){7}, &keys);
    assert_int_equal(pipeline_new(&d->p, &keys, CHUNK_CIPHER_AUTO), 0);
    assert_int_equal(node_cache_new(&d->cache), 0);
}

void disk_deinit(struct manifest_disk *d)
{
    for (size_t i = 0; i < d->count; i++)
        buf_deinit(&d->sealed[i]);
    mem_free(d->sealed);
    id_map_deinit(&d->chunks);
    chunk_ids_deinit(&d->missing);
    node_cache_free(d->cache);
    pipeline_free(d->p);
}

int disk_put(void *ctx, const struct chunk_id *id, struct slice sealed)
{
    struct manifest_disk *d = ctx;
    if (id_map_get(&d->chunks, id) != NULL)
        return 0;
    if (d->count == d->cap) {
        d->cap = d->cap == 0 ? 64 : d->cap * 2;
        d->sealed = mem_realloc(d->sealed, d->cap * sizeof *d->sealed);
    }
    d->sealed[d->count] = (struct buf){0};
    buf_append(&d->sealed[d->count], sealed.ptr, sealed.len);
    id_map_set(&d->chunks, id, d->count++);
    return 0;
}

bool disk_fetch(struct manifest_disk *d)
{
    struct buf plain = {0};
    for (size_t i = 0; i < d->missing.count; i++) {
        const struct chunk_id *id = &d->missing.at[i];
        uint64_t *idx = id_map_get(&d->chunks, id);
        assert_non_null(idx);
        assert_false(node_cache_has(d->cache, id));
        buf_clear(&plain);
        assert_int_equal(chunk_open(d->p, id, buf_slice(&d->sealed[*idx]), &plain), 0);
        assert_int_equal(node_cache_put(d->cache, id, buf_slice(&plain)), 0);
        d->fetched++;
    }
    buf_deinit(&plain);
    return d->missing.count != 0;
}
