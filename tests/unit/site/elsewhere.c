#include "tests/unit/site/elsewhere.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

static int elsewhere_add(void *ctx, const struct chunk_id *id, struct slice sealed)
{
    struct elsewhere *e = ctx;
    assert_true(e->count < 8);
    e->id[e->count] = *id;
    buf_append(&e->sealed[e->count++], sealed.ptr, sealed.len);
    return 0;
}

void elsewhere_fetch(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx)
{
    struct elsewhere *e = fctx;
    struct buf copy = {0};
    unsigned i = 0;
    while (i < e->count && memcmp(e->id[i].b, id, 32) != 0)
        i++;
    assert_true(i < e->count);
    e->fetched++;
    int rc = e->rc != 0 ? e->rc : i + 1 == e->without ? ERR_NOT_FOUND : 0;
    if (rc == 0)
        buf_append(&copy, e->sealed[i].ptr, e->sealed[i].len);
    cb(cctx, rc, &copy);
    buf_deinit(&copy);
}

struct content elsewhere_make(struct node_test *t, struct elsewhere *e)
{
    struct pipeline *p;
    struct node_cache *cache;
    struct chunk_id blocks[2];
    struct buf sealed = {0};
    uint8_t *block = mem_calloc(1, 64 * KIB);
    assert_int_equal(pipeline_new(&p, &t->n->keys, CHUNK_CIPHER_AUTO), 0);
    assert_int_equal(node_cache_new(&cache), 0);
    for (unsigned i = 0; i < 2; i++) {
        memset(block, (int)(1 + i), 64 * KIB);
        assert_int_equal(chunk_seal(p, slice_of(block, 64 * KIB), &sealed, &blocks[i]), 0);
        elsewhere_add(e, &blocks[i], buf_slice(&sealed));
        buf_clear(&sealed);
    }
    const struct manifest_extent all = {.kind = MANIFEST_EXTENT_IDS, .count = 2, .ids = blocks};
    struct manifest m;
    struct chunk_ids missing = {0};
    assert_int_equal(manifest_update(cache, p, NULL, 64 * KIB, 128 * KIB, &all, 1, elsewhere_add, e,
                                     &m, &missing),
                     0);
    struct content c = {.kind = CONTENT_MANIFEST, .size = m.size, .block_bytes = m.block_bytes};
    memcpy(c.root, m.root.b, sizeof c.root);
    chunk_ids_deinit(&missing);
    node_cache_free(cache);
    pipeline_free(p);
    mem_free(block);
    buf_deinit(&sealed);
    return c;
}

void elsewhere_deinit(struct elsewhere *e)
{
    for (unsigned i = 0; i < e->count; i++)
        buf_deinit(&e->sealed[i]);
    *e = (struct elsewhere){.count = 0};
}
