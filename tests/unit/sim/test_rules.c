/* Checkers of rules, given operations that no site issues: what they are for is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "base/hlc.h"
#include "sim/world_int.h"

#define A 1u /* sites */
#define B 2u

static struct world w;

static int begin(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    sched_init(&w.sched, 1);
    sched = &w.sched;
    rules_begin(&w);
    return 0;
}

static int end(void **state)
{
    (void)state;
    rules_free(&w);
    sched_deinit(&w.sched);
    sched = NULL;
    return 0;
}

static void add(site_id_t site, uint64_t seq, uint64_t ms, const struct effect *e)
{
    struct effect effect = *e;
    struct op op = {.dot = {.seq = seq, .site = site},
                    .stamp = {.hlc = hlc_from_wall(ms * NS_PER_MS), .site = site},
                    .effects = &effect,
                    .effect_count = 1};
    struct op_arena arena = {0};
    struct buf bytes = {0};
    op_encode(&op, &bytes);
    assert_int_equal(op_decode(buf_slice(&bytes), &arena, &op), 0); /* it is a good one */
    op_arena_deinit(&arena);
    rules_add(&w, buf_slice(&bytes));
    buf_deinit(&bytes);
}

static void born(site_id_t site, uint8_t oid, const char *name, uint32_t gen, uint16_t mode)
{
    struct effect e = {.kind = EFFECT_BIRTH};
    e.birth = (struct birth){.oid = {{0, 0, OID_DIR}},
                             .parent = OID_ROOT,
                             .name = slice_str(name),
                             .gen = gen,
                             .mode = mode};
    e.birth.oid.b[15] = oid;
    e.oid = e.birth.oid;
    add(site, oid, 1000, &e);
}

static void test_one_mkdir_makes_one_directory(void **state)
{
    (void)state;
    born(A, 1, "d", 0, 0755);
    born(B, 1, "d", 0, 0755); /* the same */
    born(B, 2, "d", 1, 0755); /* after that was removed */
    born(B, 3, "d", 0, 0700); /* another one: other rights */
    born(B, 4, "e", 0, 0755);
    assert_string_equal(w.failure, "");
    born(B, 5, "d", 0, 0755);
    assert_non_null(strstr(w.failure, "rules: "));
    assert_non_null(strstr(w.failure, "two directories"));
}

static void forked(site_id_t by, uint64_t seq, uint64_t ms)
{
    struct effect e = {.kind = EFFECT_FORK,
                       .oid = {{0, 0, OID_FILE, 0, 9}},
                       .loser = {.seq = 7, .site = A},
                       .loser_stamp = {.hlc = hlc_from_wall(1000 * NS_PER_MS), .site = A}};
    add(by, seq, ms, &e);
}

static void test_a_repair_is_taken_over_when_it_is_late(void **state)
{
    (void)state;
    forked(A, 8, 1001); /* its own */
    forked(B, 1, 31000);
    assert_string_equal(w.failure, "");
    forked(B, 2, 30999);
    assert_non_null(strstr(w.failure, "rules: "));
    assert_non_null(strstr(w.failure, "another site"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_mkdir_makes_one_directory, begin, end),
        cmocka_unit_test_setup_teardown(test_a_repair_is_taken_over_when_it_is_late, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
