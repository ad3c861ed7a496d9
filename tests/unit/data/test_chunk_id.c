/* Ids: text, lists; the map against a flat model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "data/chunk_id.h"

static struct chunk_id numbered(uint64_t n)
{
    struct chunk_id id = {.b = {1}};
    memcpy(id.b + 8, &n, sizeof n);
    memcpy(id.b, &n, 4);
    id.b[31] = 1;
    return id;
}

static void test_text_round_trip(void **state)
{
    (void)state;
    struct chunk_id id;
    struct chunk_id back;
    for (unsigned i = 0; i < CHUNK_ID_BYTES; i++)
        id.b[i] = (uint8_t)(i * 37 + 5);
    char text[CHUNK_ID_TEXT_LEN + 2];
    chunk_id_to_text(&id, text);
    assert_int_equal(chunk_id_from_text(text, &back), 0);
    assert_true(chunk_id_equal(&id, &back));
    text[63] = 'g';
    assert_int_equal(chunk_id_from_text(text, &back), ERR_INVALID);
    text[63] = '\0';
    assert_int_equal(chunk_id_from_text(text, &back), ERR_INVALID);
    text[63] = '0';
    text[64] = '0';
    text[65] = '\0';
    assert_int_equal(chunk_id_from_text(text, &back), ERR_INVALID);
    assert_int_equal(chunk_id_from_text("", &back), ERR_INVALID);
}

static void test_hole(void **state)
{
    (void)state;
    struct chunk_id id = CHUNK_ID_HOLE;
    assert_true(chunk_id_is_hole(&id));
    for (unsigned i = 0; i < CHUNK_ID_BYTES; i++) {
        id = CHUNK_ID_HOLE;
        id.b[i] = 1;
        assert_false(chunk_id_is_hole(&id));
    }
    struct id_map m = {0};
    struct chunk_id hole = CHUNK_ID_HOLE;
    assert_null(id_map_get(&m, &hole));
    assert_false(id_map_del(&m, &hole));
    id_map_deinit(&m);
}

/* Random sets and deletes of few keys, so that runs collide and deletions shift them. */
static void test_map_against_model(void **state)
{
    (void)state;
    enum {
        KEYS = 300
    };
    struct rng rng;
    rng_seed(&rng, 7);
    struct id_map m = {0};
    uint64_t model[KEYS] = {0}; /* 0: absent */
    size_t count = 0;
    for (unsigned step = 0; step < 40000; step++) {
        uint64_t k = rng_below(&rng, KEYS);
        struct chunk_id id = numbered(k);
        if (rng_below(&rng, 2) == 0) {
            count += model[k] == 0;
            model[k] = rng_next(&rng) | 1;
            assert_int_equal(*id_map_set(&m, &id, model[k]), model[k]);
        } else {
            assert_int_equal(id_map_del(&m, &id), model[k] != 0);
            count -= model[k] != 0;
            model[k] = 0;
        }
        assert_int_equal(m.count, count);
        uint64_t probe = rng_below(&rng, KEYS);
        id = numbered(probe);
        uint64_t *value = id_map_get(&m, &id);
        assert_int_equal(value == NULL ? 0 : *value, model[probe]);
    }
    size_t at = 0;
    size_t seen = 0;
    while (id_map_next(&m, &at) != NULL)
        seen++;
    assert_int_equal(seen, count);
    id_map_clear(&m);
    assert_int_equal(m.count, 0);
    id_map_deinit(&m);
}

static void test_list_grows(void **state)
{
    (void)state;
    struct chunk_ids l = {0};
    for (uint64_t i = 0; i < 1000; i++) {
        struct chunk_id id = numbered(i);
        chunk_ids_add(&l, &id);
    }
    struct chunk_id id = numbered(999);
    assert_true(chunk_id_equal(&l.at[999], &id));
    chunk_ids_deinit(&l);
    assert_null(l.at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_round_trip),
        cmocka_unit_test(test_hole),
        cmocka_unit_test(test_map_against_model),
        cmocka_unit_test(test_list_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
