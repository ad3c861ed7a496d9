/* Dirty layers against plain byte arrays: whatever is done, reading shows what a file would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/cache_dirty.h"
#include "client/cache_pages.h"

#define SPACE (5u * DIRTY_SEGMENT_BYTES)

/* A file as a local disk would have it. */
struct model {
    uint8_t bytes[SPACE * 2];
    uint64_t size;
};

static uint8_t scratch[SPACE * 2];

/* Bytes of [0, size) through layers, upper first, over a base. */
static void read_through(const struct dirty_layer *const *layers,
                         size_t count,
                         const struct model *base,
                         uint8_t *out,
                         uint64_t size)
{
    struct spans gaps = {0};
    spans_add(&gaps, 0, size);
    for (size_t i = 0; i < count; i++)
        dirty_read(layers[i], 0, out, &gaps);
    for (size_t i = 0; i < gaps.count; i++)
        for (uint64_t b = gaps.at[i].from; b < gaps.at[i].to; b++)
            out[b] = b < base->size ? base->bytes[b] : 0;
    spans_deinit(&gaps);
}

static void model_resize(struct model *m, uint64_t size)
{
    if (size > m->size)
        memset(m->bytes + m->size, 0, size - m->size);
    m->size = size;
}

static void step_write(struct rng *r, struct dirty_layer *l, struct model *m)
{
    uint8_t data[4096];
    bool append = rng_below(r, 3) == 0;
    uint64_t at = append ? m->size : rng_below(r, SPACE - sizeof data);
    size_t len = (size_t)rng_below(r, sizeof data);
    if (at + len > SPACE || len == 0)
        return;
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(rng_next(r) | 1);
    dirty_write(l, at, slice_of(data, len), append ? DIRTY_WRITE_APPEND : DIRTY_WRITE_AT);
    if (at + len > m->size)
        model_resize(m, at + len);
    memcpy(m->bytes + at, data, len);
}

/* Buffers as requests come in; what is not taken over goes back, with other bytes in it. */
static void step_write_pages(struct rng *r, struct dirty_layer *l, struct model *m)
{
    uint8_t *pages[3];
    bool aligned = rng_below(r, 3) > 0;
    uint64_t at = rng_below(r, SPACE);
    size_t len = 1 + (size_t)rng_below(r, sizeof pages / sizeof *pages * PAGES_BYTES);
    if (aligned)
        at = at / PAGES_BYTES * PAGES_BYTES;
    if (rng_below(r, 3) == 0)
        len = (len + PAGES_BYTES - 1) / PAGES_BYTES * PAGES_BYTES;
    if (at + len > SPACE)
        return;
    if (at + len > m->size)
        model_resize(m, at + len);
    for (size_t i = 0; i < 3; i++) {
        pages[i] = pages_get();
        memset(pages[i], (int)(1 + rng_below(r, 255)), PAGES_BYTES);
        if (i * PAGES_BYTES < len)
            memcpy(m->bytes + at + i * PAGES_BYTES, pages[i],
                   MIN(PAGES_BYTES, len - i * PAGES_BYTES));
    }
    dirty_write_pages(l, at, pages, len, DIRTY_WRITE_AT);
    for (size_t i = 0; i < 3; i++) {
        if (pages[i] == NULL)
            continue;
        memset(pages[i], 0xEE, PAGES_BYTES);
        pages_put(pages[i]);
    }
}

static void step(struct rng *r, struct dirty_layer *l, struct model *m)
{
    uint64_t a = rng_below(r, SPACE), b = a + rng_below(r, SPACE - a);
    switch (rng_below(r, 10)) {
    case 0:
        dirty_truncate(l, a);
        model_resize(m, a);
        break;
    case 1:
        dirty_extend(l, a);
        if (a > m->size)
            model_resize(m, a);
        break;
    case 2:
        dirty_zero(l, a, b);
        for (; a < b && a < m->size; a++)
            m->bytes[a] = 0;
        break;
    case 3:
    case 4:
        step_write_pages(r, l, m);
        break;
    default:
        step_write(r, l, m);
        break;
    }
    assert_int_equal(l->size, m->size);
}

static void fill_base(struct rng *r, struct model *base)
{
    base->size = rng_below(r, SPACE);
    for (uint64_t i = 0; i < base->size; i++)
        base->bytes[i] = (uint8_t)(rng_next(r) | 1);
}

static void test_random_changes_read_like_a_file(void **state)
{
    static struct model base, m;
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rng r;
        struct dirty_layer l;
        rng_seed(&r, seed);
        fill_base(&r, &base);
        m = base;
        dirty_init(&l, base.size);
        assert_true(dirty_is_clean(&l));
        for (unsigned i = 0; i < 60; i++) {
            step(&r, &l, &m);
            const struct dirty_layer *layers[] = {&l};
            read_through(layers, 1, &base, scratch, m.size);
            assert_memory_equal(scratch, m.bytes, m.size);
        }
        dirty_deinit(&l);
    }
}

/* A frozen layer with another on top, and both merged, show the same. */
static void test_merge_shows_what_both_layers_showed(void **state)
{
    static struct model base, m;
    (void)state;
    for (uint64_t seed = 100; seed <= 140; seed++) {
        struct rng r;
        struct dirty_layer lower, upper;
        rng_seed(&r, seed);
        fill_base(&r, &base);
        m = base;
        dirty_init(&lower, base.size);
        for (unsigned i = 0; i < 20; i++)
            step(&r, &lower, &m);
        dirty_init(&upper, lower.size);
        for (unsigned i = 0; i < 20; i++)
            step(&r, &upper, &m);
        const struct dirty_layer *both[] = {&upper, &lower};
        read_through(both, 2, &base, scratch, m.size);
        assert_memory_equal(scratch, m.bytes, m.size);
        dirty_merge(&lower, &upper);
        assert_int_equal(lower.size, m.size);
        const struct dirty_layer *one[] = {&lower};
        read_through(one, 1, &base, scratch, m.size);
        assert_memory_equal(scratch, m.bytes, m.size);
        dirty_deinit(&lower);
    }
}

/* Two mounts append; the slower one's bytes go behind the faster one's. */
static void test_rebase_moves_appends_to_new_end(void **state)
{
    struct dirty_layer l;
    uint8_t out[16];
    struct spans gaps = {0};
    (void)state;
    dirty_init(&l, 100);
    dirty_write(&l, 100, slice_of("abcd", 4), DIRTY_WRITE_APPEND);
    dirty_write(&l, 104, slice_of("ef", 2), DIRTY_WRITE_APPEND);
    dirty_write(&l, 10, slice_of("X", 1), DIRTY_WRITE_AT);
    dirty_rebase(&l, 150);
    assert_int_equal(l.size, 156);
    spans_add(&gaps, 150, 156);
    dirty_read(&l, 150, out, &gaps);
    assert_int_equal(gaps.count, 0);
    assert_memory_equal(out, "abcdef", 6);
    spans_add(&gaps, 10, 11);
    dirty_read(&l, 10, out, &gaps);
    assert_int_equal(gaps.count, 0);
    assert_int_equal(out[0], 'X');
    spans_add(&gaps, 100, 106);
    dirty_read(&l, 100, out, &gaps);
    assert_int_equal(spans_bytes(&gaps), 6); /* where they were is the other's now */
    spans_deinit(&gaps);
    dirty_deinit(&l);
}

static void test_rebase_of_plain_writes_keeps_offsets(void **state)
{
    struct dirty_layer l;
    (void)state;
    dirty_init(&l, 10);
    dirty_write(&l, 8, slice_of("abcd", 4), DIRTY_WRITE_AT);
    dirty_rebase(&l, 50);
    assert_int_equal(l.size, 50);
    assert_int_equal(l.data.at[0].from, 8);
    dirty_rebase(&l, 5);
    assert_int_equal(l.size, 12); /* at least what we wrote */
    dirty_deinit(&l);
    dirty_init(&l, 10);
    dirty_truncate(&l, 4);
    dirty_rebase(&l, 50);
    assert_int_equal(l.size, 4);
    assert_int_equal(l.cut, 4);
    dirty_deinit(&l);
}

static void test_covers_only_what_it_says(void **state)
{
    struct dirty_layer l;
    (void)state;
    dirty_init(&l, 1000);
    dirty_write(&l, 0, slice_of("0123456789", 10), DIRTY_WRITE_AT);
    dirty_zero(&l, 10, 20);
    assert_true(dirty_covers(&l, 0, 20));
    assert_false(dirty_covers(&l, 0, 21));
    dirty_truncate(&l, 20);
    assert_true(dirty_covers(&l, 0, 500));
    dirty_deinit(&l);
}

static void test_pieces_are_those_of_whole_ranges_only(void **state)
{
    (void)state;
    static uint8_t data[3 * DIRTY_SEGMENT_BYTES];
    const uint8_t *at[5];
    struct dirty_layer l;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i >> 9);
    dirty_init(&l, 0);
    dirty_write(&l, DIRTY_SEGMENT_BYTES, slice_of(data, sizeof data - 5), DIRTY_WRITE_AT);
    assert_false(dirty_pieces(&l, 0, DIRTY_SEGMENT_BYTES * 2, at));
    assert_false(dirty_pieces(&l, DIRTY_SEGMENT_BYTES, DIRTY_SEGMENT_BYTES + sizeof data, at));
    assert_true(dirty_pieces(&l, DIRTY_SEGMENT_BYTES, DIRTY_SEGMENT_BYTES + sizeof data - 5, at));
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(at[i], data + i * DIRTY_SEGMENT_BYTES,
                            DIRTY_SEGMENT_BYTES - (i == 2 ? 5 : 0));
    dirty_zero(&l, DIRTY_SEGMENT_BYTES * 2 + 7, DIRTY_SEGMENT_BYTES * 2 + 8);
    assert_false(dirty_pieces(&l, DIRTY_SEGMENT_BYTES, DIRTY_SEGMENT_BYTES * 3, at));
    assert_true(dirty_pieces(&l, DIRTY_SEGMENT_BYTES, DIRTY_SEGMENT_BYTES * 2, at));
    dirty_deinit(&l);
}

/* What is pinned can be read whatever happens to the layer: a change of it, its end. */
static void test_pinned_bytes_stay_as_they_are(void **state)
{
    (void)state;
    const uint8_t *at[3];
    struct dirty_pins pins;
    struct dirty_layer l;
    dirty_init(&l, 0);
    memset(scratch, 1, SPACE);
    dirty_write(&l, 0, slice_of(scratch, 3 * DIRTY_SEGMENT_BYTES - 5), DIRTY_WRITE_AT);
    assert_false(dirty_pin(&l, 0, 3 * DIRTY_SEGMENT_BYTES, at, &pins));
    assert_true(dirty_pin(&l, 0, 3 * DIRTY_SEGMENT_BYTES - 5, at, &pins));
    assert_int_equal(pins.count, 3);
    dirty_write(&l, DIRTY_SEGMENT_BYTES + 10, slice_of("new", 3), DIRTY_WRITE_AT);
    dirty_write(&l, DIRTY_SEGMENT_BYTES + 20, slice_of("new", 3), DIRTY_WRITE_AT);
    dirty_truncate(&l, 2 * DIRTY_SEGMENT_BYTES);
    assert_int_equal(l.bytes, 2 * DIRTY_SEGMENT_BYTES);
    struct spans gaps = {0};
    uint8_t now[30];
    spans_add(&gaps, DIRTY_SEGMENT_BYTES, DIRTY_SEGMENT_BYTES + sizeof now);
    dirty_read(&l, DIRTY_SEGMENT_BYTES, now, &gaps);
    assert_int_equal(gaps.count, 0);
    spans_deinit(&gaps);
    assert_memory_equal(now + 8, "\1\1new\1\1\1\1\1\1\1new\1", 16);
    dirty_deinit(&l);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(at[i], scratch, DIRTY_SEGMENT_BYTES - (i == 2 ? 5 : 0));
    dirty_unpin(&pins);
}

static void test_run_begins_behind_the_last_gap(void **state)
{
    (void)state;
    struct dirty_layer l;
    dirty_init(&l, 0);
    assert_int_equal(dirty_run_start(&l, 0), 0);
    assert_int_equal(dirty_run_start(&l, 9), 9);
    dirty_write(&l, 100, slice_of(scratch, 50), DIRTY_WRITE_AT);
    dirty_write(&l, 200, slice_of(scratch, 50), DIRTY_WRITE_AT);
    dirty_write(&l, 250, slice_of(scratch, 50), DIRTY_WRITE_AT);
    assert_int_equal(dirty_run_start(&l, 300), 200);
    assert_int_equal(dirty_run_start(&l, 250), 200);
    assert_int_equal(dirty_run_start(&l, 150), 100);
    assert_int_equal(dirty_run_start(&l, 151), 151);
    assert_int_equal(dirty_run_start(&l, 301), 301);
    dirty_deinit(&l);
}

static void test_memory_is_given_back(void **state)
{
    struct dirty_layer l;
    (void)state;
    dirty_init(&l, 0);
    memset(scratch, 1, SPACE);
    dirty_write(&l, 0, slice_of(scratch, SPACE), DIRTY_WRITE_APPEND);
    assert_int_equal(l.bytes, SPACE);
    dirty_truncate(&l, DIRTY_SEGMENT_BYTES + 1);
    assert_int_equal(l.bytes, 2 * DIRTY_SEGMENT_BYTES);
    dirty_zero(&l, 0, DIRTY_SEGMENT_BYTES);
    assert_int_equal(l.bytes, DIRTY_SEGMENT_BYTES);
    dirty_deinit(&l);
}

/* Buffers go round; a pinned one that is taken out of the layer stays with who pinned it. */
static void test_pages_are_taken_over_whole(void **state)
{
    struct dirty_layer l;
    struct dirty_pins pins;
    const uint8_t *at[2];
    uint8_t *pages[2] = {pages_get(), pages_get()}, *first = pages[0], *second[2];
    (void)state;
    memset(pages[0], 1, PAGES_BYTES);
    memset(pages[1], 2, PAGES_BYTES);
    dirty_init(&l, 0);
    dirty_write_pages(&l, 0, pages, 2 * PAGES_BYTES, DIRTY_WRITE_APPEND);
    assert_null(pages[0]);
    assert_null(pages[1]);
    assert_int_equal(l.bytes, 2 * PAGES_BYTES);
    assert_true(dirty_pin(&l, 0, 2 * PAGES_BYTES, at, &pins));
    assert_ptr_equal(at[0], first);
    second[0] = pages_get();
    second[1] = pages_get();
    memset(second[0], 3, PAGES_BYTES);
    memset(second[1], 4, PAGES_BYTES);
    dirty_write_pages(&l, 0, second, PAGES_BYTES + 10, DIRTY_WRITE_AT);
    assert_null(second[0]);
    assert_non_null(second[1]); /* a little of what is there already is copied */
    pages_put(second[1]);
    assert_int_equal(l.bytes, 2 * PAGES_BYTES);
    assert_int_equal(at[0][5], 1);
    assert_int_equal(at[1][5], 2);
    dirty_unpin(&pins);
    assert_true(dirty_pieces(&l, 0, 2 * PAGES_BYTES, at));
    assert_int_equal(at[0][PAGES_BYTES - 1], 3);
    assert_int_equal(at[1][9], 4);
    assert_int_equal(at[1][10], 2);
    dirty_deinit(&l);
}

/* What was given back last goes out first, and no more are kept than was said. */
static void test_pages_go_round(void **state)
{
    uint8_t *a, *b;
    (void)state;
    pages_limit(1);
    a = pages_get();
    b = pages_get();
    pages_put(a);
    pages_put(b); /* freed */
    assert_ptr_equal(pages_get(), a);
    pages_put(a);
    pages_limit(0); /* freed, as the leak checker knows */
}

static int pages_on(void **state)
{
    (void)state;
    pages_limit(8);
    return 0;
}

static int pages_off(void **state)
{
    (void)state;
    pages_limit(0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_changes_read_like_a_file),
        cmocka_unit_test_setup_teardown(test_random_changes_read_like_a_file, pages_on, pages_off),
        cmocka_unit_test(test_merge_shows_what_both_layers_showed),
        cmocka_unit_test_setup_teardown(test_merge_shows_what_both_layers_showed, pages_on,
                                        pages_off),
        cmocka_unit_test(test_rebase_moves_appends_to_new_end),
        cmocka_unit_test(test_rebase_of_plain_writes_keeps_offsets),
        cmocka_unit_test(test_covers_only_what_it_says),
        cmocka_unit_test(test_pieces_are_those_of_whole_ranges_only),
        cmocka_unit_test(test_pinned_bytes_stay_as_they_are),
        cmocka_unit_test(test_run_begins_behind_the_last_gap),
        cmocka_unit_test(test_memory_is_given_back),
        cmocka_unit_test(test_pages_are_taken_over_whole),
        cmocka_unit_test(test_pages_go_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
