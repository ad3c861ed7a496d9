/* Names a directory is known not to have: the set beside a plain list, and when it may be asked. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/inode_table.h"

struct fixture {
    struct inode_clock clock;
    struct inode_table *table;
    struct inode *dir;
};

static void no_file(void *ctx, struct inode *i)
{
    (void)ctx;
    assert_null(i->file);
}

static struct fixture *setup(void)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    inode_clock_init(&f->clock);
    f->table = inode_table_new(no_file, NULL);
    f->dir = inode_table_enter(f->table, OID_ROOT, INODE_ROOT_ID, 1);
    return f;
}

static void teardown(struct fixture *f)
{
    inode_unref(f->table, f->dir);
    inode_table_free(f->table);
    inode_clock_deinit(&f->clock);
    mem_free(f);
}

static bool lacks(struct fixture *f, const char *name)
{
    return inode_name_lacks(f->table, f->dir, &f->clock, slice_str(name));
}

static void whole(struct fixture *f, const struct fs_entry *entries, uint32_t count)
{
    inode_names_known(f->table, f->dir, inode_clock_now(&f->clock), entries, count);
}

static void test_lacks_unknown_directory_says_nothing(void **state)
{
    struct fixture *f = setup();
    (void)state;
    assert_false(lacks(f, "a"));
    inode_name_begin(f->table, f->dir, slice_str("a"), true);
    inode_name_end(f->table, f->dir, slice_str("a"), true);
    assert_false(lacks(f, "a"));
    teardown(f);
}

static void test_lacks_listed_directory_knows_its_names(void **state)
{
    struct fixture *f = setup();
    const struct fs_entry entries[] = {{.name = slice_str("a")}, {.name = slice_str("b")}};
    (void)state;
    whole(f, entries, 2);
    assert_false(lacks(f, "a"));
    assert_false(lacks(f, "b"));
    assert_true(lacks(f, "c"));
    teardown(f);
}

/* A name is there from before its request is sent, whatever becomes of that. */
static void test_begin_make_counts_before_the_answer(void **state)
{
    struct fixture *f = setup();
    (void)state;
    whole(f, NULL, 0);
    assert_true(lacks(f, "a"));
    inode_name_begin(f->table, f->dir, slice_str("a"), true);
    assert_false(lacks(f, "a"));
    inode_name_end(f->table, f->dir, slice_str("a"), false);
    assert_false(lacks(f, "a"));
    inode_name_begin(f->table, f->dir, slice_str("a"), false);
    assert_false(lacks(f, "a"));
    inode_name_end(f->table, f->dir, slice_str("a"), true);
    assert_true(lacks(f, "a"));
    teardown(f);
}

static void test_lacks_after_a_change_by_others_says_nothing(void **state)
{
    struct fixture *f = setup();
    (void)state;
    whole(f, NULL, 0);
    inode_clock_hit(&f->clock, OID_ROOT);
    assert_false(lacks(f, "a"));
    whole(f, NULL, 0);
    assert_true(lacks(f, "a"));
    inode_clock_hit_all(&f->clock);
    assert_false(lacks(f, "a"));
    teardown(f);
}

/* A listing that crossed a change, by us or by others, may have it or not. */
static void test_known_while_names_change_is_not_taken(void **state)
{
    struct fixture *f = setup();
    (void)state;
    inode_name_begin(f->table, f->dir, slice_str("a"), true);
    whole(f, NULL, 0);
    assert_false(lacks(f, "b"));
    uint64_t since = inode_clock_now(&f->clock);
    inode_attr_drop(f->dir, &f->clock);
    inode_name_end(f->table, f->dir, slice_str("a"), false);
    inode_names_known(f->table, f->dir, since, NULL, 0);
    assert_false(lacks(f, "b"));
    since = inode_clock_now(&f->clock);
    inode_clock_hit(&f->clock, OID_ROOT);
    inode_names_known(f->table, f->dir, since, NULL, 0);
    assert_false(lacks(f, "b"));
    teardown(f);
}

static void test_names_random_as_list(void **state)
{
    enum {
        NAMES = 500,
        STEPS = 20000
    };
    struct fixture *f = setup();
    bool there[NAMES] = {false};
    uint64_t rng = 1;
    (void)state;
    whole(f, NULL, 0);
    for (unsigned i = 0; i < STEPS; i++) {
        char name[16];
        rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407u;
        unsigned n = (unsigned)(rng >> 33) % NAMES;
        bool make = (rng >> 62 & 1) != 0;
        (void)snprintf(name, sizeof name, "n%u", n);
        assert_int_equal(lacks(f, name), !there[n]);
        inode_name_begin(f->table, f->dir, slice_str(name), make);
        inode_name_end(f->table, f->dir, slice_str(name), !make);
        there[n] = make;
    }
    teardown(f);
}

/* A mount's sets have a bound: the one that would exceed it is given up, and its room comes back.
 */
static void test_names_beyond_budget_know_nothing(void **state)
{
    struct fixture *f = setup();
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        char name[16];
        unsigned n = 0;
        whole(f, NULL, 0);
        do {
            (void)snprintf(name, sizeof name, "n%u", n++);
            inode_name_begin(f->table, f->dir, slice_str(name), true);
            inode_name_end(f->table, f->dir, slice_str(name), false);
        } while (n < 3 * INODE_NAMES_MAX && lacks(f, "x"));
        assert_in_range(n, INODE_NAMES_MAX / 4, 2 * INODE_NAMES_MAX);
    }
    teardown(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lacks_unknown_directory_says_nothing),
        cmocka_unit_test(test_lacks_listed_directory_knows_its_names),
        cmocka_unit_test(test_begin_make_counts_before_the_answer),
        cmocka_unit_test(test_lacks_after_a_change_by_others_says_nothing),
        cmocka_unit_test(test_known_while_names_change_is_not_taken),
        cmocka_unit_test(test_names_random_as_list),
        cmocka_unit_test(test_names_beyond_budget_know_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
