/* The ordered map against a sorted array: random puts, marks, removals, seeks and walks over
 * universes of keys of different shape, with the map's own validation in between. */
#include "journal/state_map_int.h"

#include "tests/unit/journal/journal_test.h"

#define UNIVERSE 3000u

struct entry {
    struct buf key;
    bool present, mark;
    struct buf value;
};
struct world {
    struct entry *entries; /* sorted by key */
    uint32_t count;
    struct state_map *map;
    struct rng rng;
};

static int entry_cmp(const void *a, const void *b)
{
    return slice_cmp(buf_slice(&((const struct entry *)a)->key),
                     buf_slice(&((const struct entry *)b)->key));
}

/* shape 0: short binary keys, prefixes of each other; 1: long shared prefix and a number;
 * 2: like a directory's entries, one byte, 16 bytes of few values, a name. */
static void make_key(struct rng *rng, int shape, struct buf *out)
{
    char text[64];
    if (shape == 0) {
        size_t len = rng_below(rng, 12);
        for (size_t i = 0; i < len; i++) {
            uint8_t byte = (uint8_t)(rng_below(rng, 3) * 127);
            buf_append(out, &byte, 1);
        }
    } else if (shape == 1) {
        for (int i = 0; i < 6; i++)
            buf_append(out, "0123456789", 10);
        snprintf(text, sizeof text, "%08lu", (unsigned long)rng_below(rng, 100000));
        buf_append(out, text, strlen(text));
    } else {
        uint8_t oid[17] = {'e'};
        oid[3] = (uint8_t)rng_below(rng, 5);
        oid[16] = (uint8_t)rng_below(rng, 5);
        buf_append(out, oid, sizeof oid);
        snprintf(text, sizeof text, "file-%lu.txt", (unsigned long)rng_below(rng, 1000));
        buf_append(out, text, strlen(text));
    }
}

static void world_init(struct world *w, uint64_t seed, int shape)
{
    rng_seed(&w->rng, seed);
    w->entries = mem_calloc(UNIVERSE, sizeof *w->entries);
    for (uint32_t i = 0; i < UNIVERSE; i++)
        make_key(&w->rng, shape, &w->entries[i].key);
    qsort(w->entries, UNIVERSE, sizeof *w->entries, entry_cmp);
    w->count = 0;
    for (uint32_t i = 0; i < UNIVERSE; i++) {
        if (w->count > 0 && entry_cmp(&w->entries[w->count - 1], &w->entries[i]) == 0) {
            buf_deinit(&w->entries[i].key);
            continue;
        }
        w->entries[w->count++] = w->entries[i];
        if (w->count - 1 != i)
            w->entries[i].key = (struct buf){0};
    }
    w->map = state_map_new();
}

static void world_deinit(struct world *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        buf_deinit(&w->entries[i].key);
        buf_deinit(&w->entries[i].value);
    }
    mem_free(w->entries);
    state_map_free(w->map);
}

static void check_entry(const struct state_map_rec *rec, const struct entry *e)
{
    assert_non_null(rec);
    assert_slice(state_map_key(rec), buf_slice(&e->key));
    assert_int_equal(state_map_deleted(rec), e->mark);
    if (!e->mark)
        assert_slice(state_map_value(rec), buf_slice(&e->value));
}

static void check_walk(struct world *w, uint32_t from)
{
    struct state_map_cursor cur = state_map_seek(w->map, buf_slice(&w->entries[from].key));
    for (uint32_t i = from; i < w->count; i++) {
        if (!w->entries[i].present)
            continue;
        check_entry(state_map_at(&cur), &w->entries[i]);
        state_map_next(&cur);
    }
    assert_null(state_map_at(&cur));
}

static void put(struct world *w, uint32_t i, bool mark)
{
    struct entry *e = &w->entries[i];
    e->present = true;
    e->mark = mark;
    buf_clear(&e->value);
    size_t len = rng_below(&w->rng, 30) == 0 ? rng_below(&w->rng, 9000) : rng_below(&w->rng, 80);
    for (size_t k = 0; !mark && k < len; k++) {
        uint8_t byte = (uint8_t)rng_next(&w->rng);
        buf_append(&e->value, &byte, 1);
    }
    state_map_put(w->map, buf_slice(&e->key), buf_slice(&e->value), mark);
}

static void take(struct world *w, uint32_t i)
{
    w->entries[i].present = false;
    state_map_remove(w->map, buf_slice(&w->entries[i].key));
}

static void check_found(struct world *w, uint32_t i)
{
    struct slice key = buf_slice(&w->entries[i].key);
    const struct state_map_rec *rec = state_map_find(w->map, key);
    assert_ptr_equal(rec, state_map_get(w->map, key));
    if (w->entries[i].present)
        check_entry(rec, &w->entries[i]);
    else
        assert_null(rec);
}

/* As the engine does: looks, and puts where it looked; meanwhile others may come and go beside it,
 * and leaves with them. */
static void look_and_put(struct world *w, uint32_t i, bool mark)
{
    uint32_t others = (uint32_t)rng_below(&w->rng, 100) == 0 ? 200 : (uint32_t)i % 2;
    check_found(w, i);
    for (uint32_t k = 1; k <= others; k++) {
        uint32_t beside = (i + k) % w->count;
        if (rng_below(&w->rng, 2) == 0)
            put(w, beside, false);
        else
            take(w, beside);
    }
    check_found(w, i);
    put(w, i, mark);
    check_found(w, i);
}

static void check_all(struct world *w)
{
    state_map_validate(w->map);
    check_walk(w, 0);
    for (uint32_t i = 0; i < w->count; i++) {
        const struct state_map_rec *rec = state_map_get(w->map, buf_slice(&w->entries[i].key));
        if (w->entries[i].present)
            check_entry(rec, &w->entries[i]);
        else
            assert_null(rec);
    }
}

static void run_random(uint64_t seed, int shape)
{
    struct world w;
    world_init(&w, seed, shape);
    for (int phase = 0; phase < 6; phase++) {
        /* Odd phases shrink the map, the last to nothing. */
        uint64_t put_of_ten = phase % 2 == 0 ? 8 : 1;
        for (uint32_t step = 0; step < 6000; step++) {
            uint32_t i = (uint32_t)rng_below(&w.rng, w.count);
            if (rng_below(&w.rng, 10) >= put_of_ten)
                take(&w, i);
            else if (step % 2 == 0)
                put(&w, i, rng_below(&w.rng, 8) == 0);
            else
                look_and_put(&w, i, rng_below(&w.rng, 8) == 0);
            if (step % 997 == 0)
                check_walk(&w, i);
        }
        check_all(&w);
    }
    size_t empty = state_map_bytes(w.map);
    for (uint32_t i = 0; i < w.count; i++)
        take(&w, i);
    check_all(&w);
    assert_int_equal(state_map_count(w.map), 0);
    assert_true(state_map_bytes(w.map) < empty);
    world_deinit(&w);
}

static void test_random_short_keys(void **state)
{
    (void)state;
    run_random(1, 0);
}

static void test_random_long_prefixes(void **state)
{
    (void)state;
    run_random(2, 1);
}

static void test_random_directory_keys(void **state)
{
    (void)state;
    run_random(3, 2);
}

/* Ascending and descending orders exercise the uneven splits; removal in order the joins. */
static void test_in_order_both_ways(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        struct world w;
        world_init(&w, 7, 2);
        for (uint32_t i = 0; i < w.count; i++)
            put(&w, way == 0 ? i : w.count - 1 - i, false);
        check_all(&w);
        for (uint32_t i = 0; i < w.count; i++) {
            take(&w, way == 0 ? i : w.count - 1 - i);
            if (i % 100 == 0)
                state_map_validate(w.map);
        }
        check_all(&w);
        world_deinit(&w);
    }
}

/* The empty key is a key like any other. */
static void test_empty_key(void **state)
{
    (void)state;
    struct state_map *map = state_map_new();
    struct slice none = slice_of(NULL, 0);
    assert_null(state_map_get(map, none));
    state_map_put(map, none, slice_str("v"), false);
    state_map_put(map, slice_str("a"), none, false);
    assert_slice(state_map_value(state_map_get(map, none)), slice_str("v"));
    assert_slice(state_map_value(state_map_get(map, slice_str("a"))), none);
    state_map_remove(map, none);
    assert_null(state_map_get(map, none));
    state_map_validate(map);
    state_map_free(map);
}

/* Keys overwritten with values of other sizes must not grow the memory. */
static void test_overwrite_keeps_memory(void **state)
{
    (void)state;
    struct state_map *map = state_map_new();
    size_t bytes = 0;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 500; i++) {
            char key[32];
            uint8_t value[300] = {0};
            snprintf(key, sizeof key, "key-%d", i);
            size_t len = (size_t)((round * 37 + i * 11) % 300);
            state_map_put(map, slice_str(key), slice_of(value, len), false);
        }
        if (round == 50)
            bytes = state_map_bytes(map);
    }
    assert_true(state_map_bytes(map) < bytes * 2);
    state_map_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_short_keys),
        cmocka_unit_test(test_random_long_prefixes),
        cmocka_unit_test(test_random_directory_keys),
        cmocka_unit_test(test_in_order_both_ways),
        cmocka_unit_test(test_empty_key),
        cmocka_unit_test(test_overwrite_keeps_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
