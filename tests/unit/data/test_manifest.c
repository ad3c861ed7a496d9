/* Manifests against a flat model (an array of block numbers): random writes, holes, truncation and
 * clones; every root is the one that the content gets when built at once (D3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/limits.h"
#include "tests/unit/data/manifest_disk.h"

#define BB (64u * 1024u)
#define BLOCKS_MAX 70000u /* three levels */

struct model {
    uint64_t size;
    uint64_t at[BLOCKS_MAX]; /* content of a block by number, 0 = hole */
};
static uint64_t model_blocks(const struct model *m)
{
    return (m->size + BB - 1) / BB;
}
static struct chunk_id leaf(uint64_t n)
{
    struct chunk_id id = CHUNK_ID_HOLE;
    for (unsigned i = 0; n != 0 && i < 4; i++) {
        uint64_t x = (n + i) * 0x9e3779b97f4a7c15ull;
        memcpy(id.b + 8 * i, &x, 8);
    }
    return id;
}

struct file {
    struct model *model;
    struct manifest m;
};
static void file_init(struct file *f)
{
    f->model = mem_calloc(1, sizeof *f->model);
    f->m = (struct manifest){.block_bytes = BB};
}

static void update(struct manifest_disk *d,
                   struct manifest *m,
                   uint64_t size,
                   const struct manifest_extent *extents,
                   size_t count)
{
    struct manifest next = {0};
    int rc = 0;
    DISK_RUN(d, rc,
             manifest_update(d->cache, d->p, m, m->block_bytes, size, extents, count, disk_put, d,
                             &next, &d->missing));
    assert_int_equal(rc, 0);
    assert_int_equal(manifest_validate(&next), 0);
    assert_int_equal(next.size, size);
    *m = next;
}

/* The manifest of the model's content, built at once. */
static struct manifest build(struct manifest_disk *d, const struct model *model)
{
    struct manifest m = {.block_bytes = BB};
    uint64_t blocks = model_blocks(model);
    struct chunk_id *ids = mem_alloc((blocks + 1) * sizeof *ids);
    for (uint64_t i = 0; i < blocks; i++)
        ids[i] = leaf(model->at[i]);
    struct manifest_extent e = {
        .kind = MANIFEST_EXTENT_IDS, .first = 0, .count = blocks, .ids = ids};
    update(d, &m, model->size, &e, blocks > 0);
    mem_free(ids);
    return m;
}

struct walked {
    const struct model *model;
    uint64_t next, leaves, nodes;
    struct rng *rng;
};
static enum manifest_visit
check_visit(void *ctx, const struct chunk_id *id, unsigned level, uint64_t block)
{
    struct walked *w = ctx;
    if (w->rng != NULL && rng_below(w->rng, 50) == 0)
        return MANIFEST_VISIT_STOP;
    if (level > 0) {
        w->nodes++;
        return MANIFEST_VISIT_GO;
    }
    assert_true(block >= w->next);
    for (; w->next < block; w->next++)
        assert_int_equal(w->model->at[w->next], 0);
    struct chunk_id want = leaf(w->model->at[block]);
    assert_true(chunk_id_equal(id, &want));
    w->leaves++;
    w->next = block + 1;
    return MANIFEST_VISIT_GO;
}

static void check_walk(struct manifest_disk *d, const struct file *f, struct rng *rng)
{
    struct walked w = {.model = f->model, .rng = rng};
    uint64_t cursor = 0;
    uint64_t blocks = model_blocks(f->model);
    int rc = 0;
    for (unsigned step = 0; cursor < blocks && step < 1000000; step++) {
        DISK_RUN(d, rc, manifest_walk(d->cache, &f->m, &cursor, 5, check_visit, &w, &d->missing));
        assert_int_equal(rc, 0);
    }
    assert_int_equal(cursor, blocks);
    uint64_t count = 0;
    DISK_RUN(d, rc, manifest_data_blocks(d->cache, &f->m, &count, &d->missing));
    assert_int_equal(rc, 0);
    assert_int_equal(count, w.leaves);
}

static void check_seek(struct manifest_disk *d, const struct file *f, uint64_t from)
{
    uint64_t blocks = model_blocks(f->model);
    for (int hole = 0; hole < 2; hole++) {
        uint64_t want = from;
        while (want < blocks && (f->model->at[want] == 0) != (hole == 1))
            want++;
        uint64_t found = 0;
        int rc = 0;
        DISK_RUN(d, rc,
                 manifest_seek(d->cache, &f->m, from,
                               hole ? MANIFEST_SEEK_HOLE : MANIFEST_SEEK_DATA, &found,
                               &d->missing));
        assert_int_equal(rc, 0);
        assert_int_equal(found, MIN(want, blocks));
        assert_true(d->rounds <= 4);
    }
}

static void check_file(struct manifest_disk *d, const struct file *f, struct rng *rng)
{
    uint64_t blocks = model_blocks(f->model);
    assert_int_equal(f->m.size, f->model->size);
    uint64_t first = rng_below(rng, blocks + 3);
    size_t count = (size_t)rng_below(rng, 700) + 1;
    struct chunk_id ids[700];
    int rc = 0;
    DISK_RUN(d, rc, manifest_lookup(d->cache, &f->m, first, count, ids, &d->missing));
    assert_int_equal(rc, 0);
    for (size_t i = 0; i < count; i++) {
        struct chunk_id want = leaf(first + i < blocks ? f->model->at[first + i] : 0);
        assert_true(chunk_id_equal(&ids[i], &want));
    }
    check_seek(d, f, rng_below(rng, blocks + 1));
}

/* Sizes cluster at the boundaries of levels. */
static uint64_t random_size(struct rng *rng, uint64_t now)
{
    static const uint64_t edges[] = {0, 1, 2, 255, 256, 257, 512, 4096, 65535, 65536, 65537, 69999};
    uint64_t blocks = rng_below(rng, 3) == 0 ? rng_below(rng, BLOCKS_MAX)
                      : rng_below(rng, 2) == 0
                          ? edges[rng_below(rng, ARRAY_COUNT(edges))]
                          : MIN(now / BB + rng_below(rng, 300), BLOCKS_MAX - 1);
    return blocks * BB + (rng_below(rng, 2) == 0 ? rng_below(rng, BB) : 0);
}

static void model_resize(struct model *m, uint64_t size)
{
    uint64_t blocks = (size + BB - 1) / BB;
    for (uint64_t i = blocks; i < model_blocks(m); i++)
        m->at[i] = 0;
    m->size = size;
}

/* Up to four extents of all kinds in one update, with a resize. */
static void random_update(struct manifest_disk *d,
                          struct file *f,
                          const struct file *other,
                          struct rng *rng,
                          uint64_t *stamp)
{
    struct model before = *f->model;
    struct manifest old = f->m;
    uint64_t size = rng_below(rng, 3) == 0 ? random_size(rng, f->m.size) : f->m.size;
    model_resize(f->model, size);
    uint64_t blocks = model_blocks(f->model);
    struct manifest_extent extents[4];
    struct chunk_id *lists[4] = {0};
    size_t count = 0;
    uint64_t at = 0;
    for (uint64_t tries = rng_below(rng, 5); tries > 0 && at < blocks; tries--) {
        struct manifest_extent e = {.first = at + rng_below(rng, blocks - at)};
        uint64_t most = rng_below(rng, 2) == 0 ? 3 : rng_below(rng, 2) == 0 ? 600 : blocks;
        e.count = 1 + rng_below(rng, MIN(most, blocks - e.first));
        if (rng_below(rng, 4) == 0)
            e.count = blocks - e.first;
        e.kind = (enum manifest_extent_kind)rng_below(rng, 3);
        bool self = other == f || rng_below(rng, 2) == 0;
        e.from = self ? &old : &other->m;
        const struct model *src = self ? &before : other->model;
        switch (rng_below(rng, 4)) {
        case 0:
            e.from_first = e.first;
            break;
        case 1:
            e.from_first = e.first % 256 + 256 * rng_below(rng, 300);
            break;
        default:
            e.from_first = rng_below(rng, model_blocks(src) + 10);
        }
        if (e.kind == MANIFEST_EXTENT_IDS) {
            e.count = MIN(e.count, 2000);
            lists[count] = mem_alloc(e.count * sizeof(struct chunk_id));
            e.ids = lists[count];
        }
        for (uint64_t i = 0; i < e.count; i++) {
            uint64_t value = 0;
            if (e.kind == MANIFEST_EXTENT_IDS) {
                value = rng_below(rng, 8) == 0 ? 0 : ++*stamp;
                lists[count][i] = leaf(value);
            } else if (e.kind == MANIFEST_EXTENT_FROM) {
                uint64_t from = e.from_first + i;
                value = from < model_blocks(src) ? src->at[from] : 0;
            }
            f->model->at[e.first + i] = value;
        }
        extents[count++] = e;
        at = e.first + e.count;
    }
    update(d, &f->m, size, extents, count);
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++)
        mem_free(lists[i]);
}

static void test_random_changes_match_the_model(void **state)
{
    (void)state;
    struct manifest_disk d;
    disk_init(&d);
    struct rng rng;
    rng_seed(&rng, 42);
    struct file files[3];
    for (size_t i = 0; i < 3; i++)
        file_init(&files[i]);
    uint64_t stamp = 0;
    for (unsigned step = 0; step < 600; step++) {
        struct file *f = &files[rng_below(&rng, 3)];
        random_update(&d, f, &files[rng_below(&rng, 3)], &rng, &stamp);
        check_file(&d, f, &rng);
        if (rng_below(&rng, 4) == 0)
            node_cache_trim(d.cache, (size_t)rng_below(&rng, 3) * 100000);
        if (step % 8 == 0) {
            check_walk(&d, f, rng_below(&rng, 2) == 0 ? &rng : NULL);
            struct manifest fresh = build(&d, f->model);
            assert_true(chunk_id_equal(&fresh.root, &f->m.root));
        }
    }
    for (size_t i = 0; i < 3; i++)
        mem_free(files[i].model);
    disk_deinit(&d);
}

/* A file of 2^62 bytes with two blocks, cloned, punched, grown and cut: a handful of nodes. */
static void test_huge_sparse_files_are_cheap(void **state)
{
    (void)state;
    struct manifest_disk d;
    disk_init(&d);
    struct manifest m = {.block_bytes = BB};
    struct chunk_id a = leaf(1);
    struct chunk_id b = leaf(2);
    uint64_t blocks = LIMIT_FILE_BYTES / BB;
    struct manifest_extent ends[2] = {
        {.kind = MANIFEST_EXTENT_IDS, .first = 5, .count = 1, .ids = &a},
        {.kind = MANIFEST_EXTENT_IDS, .first = blocks - 1, .count = 1, .ids = &b},
    };
    update(&d, &m, LIMIT_FILE_BYTES, ends, 2);
    assert_int_equal(manifest_height(&m), 6);
    assert_true(d.count <= 12);
    node_cache_trim(d.cache, 0);
    uint64_t found = 0;
    int rc = 0;
    DISK_RUN(&d, rc, manifest_seek(d.cache, &m, 6, MANIFEST_SEEK_DATA, &found, &d.missing));
    assert_int_equal(rc, 0);
    assert_int_equal(found, blocks - 1);
    DISK_RUN(&d, rc, manifest_seek(d.cache, &m, 5, MANIFEST_SEEK_HOLE, &found, &d.missing));
    assert_int_equal(found, 6);
    /* The whole of it, one block further on: nothing is aligned. */
    struct manifest copy = {.block_bytes = BB};
    struct manifest_extent shifted = {
        .kind = MANIFEST_EXTENT_FROM, .first = 1, .count = blocks - 1, .from = &m};
    update(&d, &copy, LIMIT_FILE_BYTES, &shifted, 1);
    DISK_RUN(&d, rc, manifest_seek(d.cache, &copy, 0, MANIFEST_SEEK_DATA, &found, &d.missing));
    assert_int_equal(found, 6);
    DISK_RUN(&d, rc, manifest_seek(d.cache, &copy, 7, MANIFEST_SEEK_DATA, &found, &d.missing));
    assert_int_equal(found, blocks); /* the last one fell off the end */
    /* In place: the same root. */
    struct manifest same = {.block_bytes = BB};
    struct manifest_extent whole = {
        .kind = MANIFEST_EXTENT_FROM, .first = 0, .count = blocks, .from = &m};
    size_t before = d.count;
    update(&d, &same, LIMIT_FILE_BYTES, &whole, 1);
    assert_true(chunk_id_equal(&same.root, &m.root));
    assert_int_equal(d.count, before);
    struct manifest_extent punch = {.kind = MANIFEST_EXTENT_HOLE, .first = 6, .count = blocks - 6};
    update(&d, &m, LIMIT_FILE_BYTES, &punch, 1);
    update(&d, &m, 6 * BB, NULL, 0);
    struct manifest small = {.block_bytes = BB};
    update(&d, &small, 6 * BB, ends, 1);
    assert_true(chunk_id_equal(&small.root, &m.root));
    assert_int_equal(manifest_height(&m), 1);
    update(&d, &m, 5 * BB, NULL, 0);
    assert_true(chunk_id_is_hole(&m.root));
    disk_deinit(&d);
}

static void test_one_block_is_its_own_root(void **state)
{
    (void)state;
    struct manifest_disk d;
    disk_init(&d);
    struct manifest m = {.block_bytes = BB};
    struct chunk_id a = leaf(9);
    struct manifest_extent e = {.kind = MANIFEST_EXTENT_IDS, .count = 1, .ids = &a};
    update(&d, &m, 1, &e, 1);
    assert_true(chunk_id_equal(&m.root, &a));
    assert_int_equal(d.count, 0);
    uint64_t n = 0;
    int rc = 0;
    DISK_RUN(&d, rc, manifest_data_blocks(d.cache, &m, &n, &d.missing));
    assert_int_equal(n, 1);
    update(&d, &m, BB + 1, NULL, 0); /* now below a node */
    assert_int_equal(d.count, 1);
    update(&d, &m, BB, NULL, 0);
    assert_true(chunk_id_equal(&m.root, &a));
    update(&d, &m, 0, NULL, 0);
    assert_true(chunk_id_is_hole(&m.root));
    disk_deinit(&d);
}

/* No node is needed where everything is replaced, and none is put when nothing changes. */
static void test_updates_read_and_write_only_what_they_must(void **state)
{
    (void)state;
    struct manifest_disk d;
    disk_init(&d);
    struct model *model = mem_calloc(1, sizeof *model);
    model->size = 1024 * BB;
    for (unsigned i = 0; i < 1024; i++)
        model->at[i] = i + 1;
    struct manifest m = build(&d, model);
    node_cache_trim(d.cache, 0);
    d.fetched = 0;
    struct chunk_id ids[1024];
    for (unsigned i = 0; i < 1024; i++)
        ids[i] = leaf(i + 1);
    struct manifest_extent all = {.kind = MANIFEST_EXTENT_IDS, .count = 1024, .ids = ids};
    struct manifest old = m;
    update(&d, &m, m.size, &all, 1);
    assert_int_equal(d.fetched, 0);
    assert_true(chunk_id_equal(&m.root, &old.root));
    node_cache_trim(d.cache, 0);
    size_t before = d.count;
    struct manifest_extent one = {
        .kind = MANIFEST_EXTENT_IDS, .first = 300, .count = 1, .ids = &ids[0]};
    update(&d, &m, m.size, &one, 1);
    assert_int_equal(d.fetched, 2); /* the root and one leaf node */
    assert_int_equal(d.count, before + 2);
    mem_free(model);
    disk_deinit(&d);
}

static void test_bad_arguments_are_invalid(void **state)
{
    (void)state;
    struct manifest_disk d;
    disk_init(&d);
    struct manifest ok = {.block_bytes = BB, .size = 10 * BB};
    struct manifest other_size = {.block_bytes = 2 * BB, .size = 10 * BB};
    struct chunk_id ids[10] = {{{0}}};
    const struct manifest bad_manifests[] = {
        {.block_bytes = 0},
        {.block_bytes = BB / 2},
        {.block_bytes = 3 * BB},
        {.block_bytes = 8u << 20},
        {.block_bytes = BB, .size = LIMIT_FILE_BYTES + 1},
        {.block_bytes = BB, .root = {{1}}},
    };
    struct chunk_id id;
    uint64_t cursor = 0;
    for (size_t i = 0; i < ARRAY_COUNT(bad_manifests); i++) {
        assert_int_equal(manifest_validate(&bad_manifests[i]), ERR_INVALID);
        assert_int_equal(manifest_lookup(d.cache, &bad_manifests[i], 0, 1, &id, &d.missing),
                         ERR_INVALID);
        assert_int_equal(
            manifest_seek(d.cache, &bad_manifests[i], 0, MANIFEST_SEEK_DATA, &cursor, &d.missing),
            ERR_INVALID);
    }
    const struct manifest_extent bad_extents[][2] = {
        {{.kind = MANIFEST_EXTENT_IDS, .first = 0, .count = 0, .ids = ids}, {.count = 1}},
        {{.kind = MANIFEST_EXTENT_IDS, .first = 0, .count = 11, .ids = ids}, {.count = 1}},
        {{.kind = MANIFEST_EXTENT_HOLE, .first = 5, .count = 2},
         {.kind = MANIFEST_EXTENT_HOLE, .first = 6, .count = 1}},
        {{.kind = MANIFEST_EXTENT_HOLE, .first = 0, .count = 1},
         {.kind = MANIFEST_EXTENT_HOLE, .first = 9, .count = UINT64_MAX}},
        {{.kind = MANIFEST_EXTENT_FROM, .first = 0, .count = 1, .from = &other_size},
         {.kind = MANIFEST_EXTENT_HOLE, .first = 6, .count = 1}},
        {{.kind = MANIFEST_EXTENT_FROM,
          .first = 0,
          .count = 1,
          .from = &ok,
          .from_first = UINT64_MAX},
         {.kind = MANIFEST_EXTENT_HOLE, .first = 6, .count = 1}},
    };
    struct manifest ret;
    for (size_t i = 0; i < ARRAY_COUNT(bad_extents); i++)
        assert_int_equal(manifest_update(d.cache, d.p, &ok, BB, 10 * BB, bad_extents[i], 2,
                                         disk_put, &d, &ret, &d.missing),
                         ERR_INVALID);
    assert_int_equal(manifest_update(d.cache, d.p, &other_size, BB, 10 * BB, NULL, 0, disk_put, &d,
                                     &ret, &d.missing),
                     ERR_INVALID);
    disk_deinit(&d);
}

static void test_malformed_nodes_are_refused(void **state)
{
    (void)state;
    struct manifest_disk d;
    disk_init(&d);
    struct chunk_id id = leaf(1);
    uint8_t node[8 + 40] = {'C', 'F', 'N', '1', 1, 0, 1, 0, 1};
    assert_int_equal(node_cache_put(d.cache, &id, slice_of(node, 40)), 0);
    struct chunk_id next = leaf(2);
    for (size_t len = 0; len < 40; len++)
        assert_int_equal(node_cache_put(d.cache, &next, slice_of(node, len)), ERR_MALFORMED);
    static const struct {
        unsigned at;
        uint8_t value;
        unsigned len;
    } bad[] = {{0, 'X', 40}, {4, 0, 40}, {4, 7, 40}, {5, 1, 40}, {6, 0, 8},
               {6, 2, 40},   {7, 2, 40}, {8, 0, 40}, {4, 2, 40}, {4, 2, 48}};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        uint8_t saved = node[bad[i].at];
        node[bad[i].at] = bad[i].value;
        assert_int_equal(node_cache_put(d.cache, &next, slice_of(node, bad[i].len)), ERR_MALFORMED);
        node[bad[i].at] = saved;
    }
    /* A node of the wrong level for its place is found out when it is used. */
    struct manifest m = {.root = id, .block_bytes = BB, .size = 300ull * BB};
    struct chunk_id out;
    assert_int_equal(manifest_lookup(d.cache, &m, 0, 1, &out, &d.missing), ERR_MALFORMED);
    m.size = 2 * BB;
    assert_int_equal(manifest_lookup(d.cache, &m, 0, 1, &out, &d.missing), 0);
    disk_deinit(&d);
}

static void test_block_bytes_and_cut(void **state)
{
    (void)state;
    assert_int_equal(manifest_block_bytes(0), 64 * KIB);
    assert_int_equal(manifest_block_bytes(4 * MIB), 64 * KIB);
    assert_int_equal(manifest_block_bytes(4 * MIB + 1), 1 * MIB);
    assert_int_equal(manifest_block_bytes(256 * MIB + 1), 4 * MIB);
    assert_int_equal(manifest_block_bytes(LIMIT_FILE_BYTES), 4 * MIB);
    struct manifest m = {.block_bytes = BB, .size = 10 * BB + 5};
    uint64_t block = 0;
    uint32_t keep = 0;
    assert_true(manifest_cut_block(&m, 3 * BB + 7, &block, &keep));
    assert_int_equal(block, 3);
    assert_int_equal(keep, 7);
    assert_false(manifest_cut_block(&m, 3 * BB, &block, &keep));
    assert_false(manifest_cut_block(&m, 20 * BB + 1, &block, &keep));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_changes_match_the_model),
        cmocka_unit_test(test_huge_sparse_files_are_cheap),
        cmocka_unit_test(test_one_block_is_its_own_root),
        cmocka_unit_test(test_updates_read_and_write_only_what_they_must),
        cmocka_unit_test(test_bad_arguments_are_invalid),
        cmocka_unit_test(test_malformed_nodes_are_refused),
        cmocka_unit_test(test_block_bytes_and_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
