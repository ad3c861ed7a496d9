/* Names a directory is known not to have, and to have: set and list beside a plain array, and when
 * they may be asked. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/inode_table.h"

#define NOBODY ((struct oid){0})

struct fixture {
    struct inode_clock clock;
    struct inode_table *table;
    struct inode *dir;
};

static void no_file(void *ctx, struct inode *i)
{
    (void)ctx;
    assert_true(i->known == NULL || i->known->file == NULL);
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
    inode_name_end(f->table, f->dir, slice_str("a"), NAME_GONE, NOBODY);
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
    inode_name_end(f->table, f->dir, slice_str("a"), NAME_UNKNOWN, NOBODY);
    assert_false(lacks(f, "a"));
    inode_name_begin(f->table, f->dir, slice_str("a"), false);
    assert_false(lacks(f, "a"));
    inode_name_end(f->table, f->dir, slice_str("a"), NAME_GONE, NOBODY);
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
    inode_name_end(f->table, f->dir, slice_str("a"), NAME_UNKNOWN, NOBODY);
    inode_names_known(f->table, f->dir, since, NULL, 0);
    assert_false(lacks(f, "b"));
    since = inode_clock_now(&f->clock);
    inode_clock_hit(&f->clock, OID_ROOT);
    inode_names_known(f->table, f->dir, since, NULL, 0);
    assert_false(lacks(f, "b"));
    teardown(f);
}

static struct oid object(uint32_t n)
{
    struct oid o = {.b = {0, 0, OID_FILE}};
    memcpy(o.b + 12, &n, sizeof n);
    return o;
}

static bool listed(struct fixture *f, struct names_copy *ret)
{
    uint64_t since;
    return inode_name_all(f->table, f->dir, &f->clock, ret, &since);
}

static void made(struct fixture *f, const char *name, uint32_t n)
{
    inode_name_begin(f->table, f->dir, slice_str(name), true);
    inode_name_end(f->table, f->dir, slice_str(name), NAME_MADE, object(n));
}

static void gone(struct fixture *f, const char *name)
{
    inode_name_begin(f->table, f->dir, slice_str(name), false);
    inode_name_end(f->table, f->dir, slice_str(name), NAME_GONE, NOBODY);
}

static void assert_lists(struct fixture *f, const char *expected)
{
    struct names_copy c;
    char text[64] = "";
    assert_true(listed(f, &c));
    for (uint32_t i = 0; i < c.count; i++) {
        size_t len = strlen(text);
        (void)snprintf(text + len, sizeof text - len, "%s%u ", c.names[i], c.oids[i].b[12]);
    }
    assert_string_equal(text, expected);
    names_copy_deinit(&c);
}

static void test_list_follows_our_changes(void **state)
{
    struct fixture *f = setup();
    const struct fs_entry entries[] = {{.name = slice_str("a"), .attr = {.oid = object(1)}},
                                       {.name = slice_str("b"), .attr = {.oid = object(2)}}};
    struct names_copy c;
    (void)state;
    assert_false(listed(f, &c));
    whole(f, entries, 2);
    assert_lists(f, "a1 b2 ");
    made(f, "c", 3);
    made(f, "b", 4); /* over what was there */
    assert_lists(f, "a1 b4 c3 ");
    gone(f, "a");
    assert_lists(f, "b4 c3 ");
    assert_true(oid_equal(inode_name_oid(f->dir, slice_str("b")), object(4)));
    assert_true(oid_is_none(inode_name_oid(f->dir, slice_str("a"))));
    gone(f, "c");
    gone(f, "b");
    assert_lists(f, "");
    teardown(f);
}

/* While it is asked for, and when the answer does not tell, a name is there or not. */
static void test_list_of_a_name_in_doubt_is_not_given(void **state)
{
    struct fixture *f = setup();
    struct names_copy c;
    (void)state;
    whole(f, NULL, 0);
    made(f, "a", 1);
    inode_name_begin(f->table, f->dir, slice_str("b"), true);
    assert_false(listed(f, &c));
    inode_name_end(f->table, f->dir, slice_str("b"), NAME_UNKNOWN, NOBODY);
    assert_false(listed(f, &c));
    assert_true(lacks(f, "c"));
    assert_false(lacks(f, "b"));
    made(f, "d", 1);
    gone(f, "a");
    assert_false(listed(f, &c));
    whole(f, NULL, 0);
    assert_lists(f, "");
    teardown(f);
}

static void test_list_after_a_change_by_others_is_not_given(void **state)
{
    struct fixture *f = setup();
    struct names_copy c;
    uint64_t since = inode_clock_now(&f->clock), at;
    (void)state;
    whole(f, NULL, 0);
    made(f, "a", 1);
    assert_true(inode_name_all(f->table, f->dir, &f->clock, &c, &at));
    names_copy_deinit(&c);
    inode_clock_hit(&f->clock, object(7));
    assert_true(inode_name_all(f->table, f->dir, &f->clock, &c, &at));
    names_copy_deinit(&c);
    assert_true(at > since); /* true until now, not only since it was told */
    inode_clock_hit(&f->clock, OID_ROOT);
    assert_false(listed(f, &c));
    assert_false(lacks(f, "x"));
    teardown(f);
}

/* A large directory has no list, and its memory is given back; what it has not is still known. */
static void test_list_of_a_large_directory_is_not_kept(void **state)
{
    struct fixture *f = setup();
    struct names_copy c;
    char name[16];
    (void)state;
    whole(f, NULL, 0);
    for (unsigned n = 0; n < INODE_LISTED_MAX; n++) {
        (void)snprintf(name, sizeof name, "n%u", n);
        made(f, name, n);
    }
    assert_true(listed(f, &c));
    assert_int_equal(c.count, INODE_LISTED_MAX);
    names_copy_deinit(&c);
    made(f, "n5", 9); /* none more */
    assert_true(listed(f, &c));
    names_copy_deinit(&c);
    made(f, "more", 1);
    assert_false(listed(f, &c));
    assert_true(lacks(f, "x"));
    teardown(f);
}

/* Lists of all directories together have a bound, too. */
static void test_lists_beyond_budget_are_not_kept(void **state)
{
    enum {
        DIRS = 100
    };
    struct fixture *f = setup();
    struct inode *dirs[DIRS];
    char name[256];
    uint64_t since;
    unsigned kept = 0;
    (void)state;
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (unsigned round = 0; round < 2; round++) {
        kept = 0;
        for (unsigned d = 0; d < DIRS; d++) {
            struct names_copy c;
            dirs[d] = inode_table_enter(f->table, object(d), 1000 + d, 0);
            inode_names_known(f->table, dirs[d], inode_clock_now(&f->clock), NULL, 0);
            for (unsigned n = 0; n < INODE_LISTED_MAX; n++) {
                (void)snprintf(name, 8, "%07u", n);
                name[7] = 'x';
                inode_name_begin(f->table, dirs[d], slice_str(name), true);
                inode_name_end(f->table, dirs[d], slice_str(name), NAME_MADE, object(n));
            }
            if (inode_name_all(f->table, dirs[d], &f->clock, &c, &since)) {
                kept++;
                names_copy_deinit(&c);
            }
        }
        assert_in_range(kept, INODE_LISTED_BYTES_MAX / (512 * INODE_LISTED_MAX),
                        INODE_LISTED_BYTES_MAX / (256 * INODE_LISTED_MAX));
        for (unsigned d = 0; d < DIRS; d++)
            inode_unref(f->table, dirs[d]); /* gives its room back */
    }
    teardown(f);
}

static void test_each_of_many_is_found_and_given_back(void **state)
{
    struct fixture *f = setup();
    const struct oid oids[] = {OID_ROOT, object(5), object(6)};
    struct inode *found[3];
    (void)state;
    struct inode *five = inode_table_enter(f->table, object(5), oid_ino(object(5)), 1);
    inode_table_find_each(f->table, oids, 3, found);
    assert_ptr_equal(found[0], f->dir);
    assert_ptr_equal(found[1], five);
    assert_null(found[2]);
    inode_unref(f->table, five);
    inode_table_forget(f->table, five->id, 1); /* held by us alone from here */
    assert_int_equal(inode_table_count(f->table), 2);
    inode_unref_each(f->table, found, 3);
    assert_int_equal(inode_table_count(f->table), 1);
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
    unsigned live = 0;
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
        inode_name_end(f->table, f->dir, slice_str(name), make ? NAME_MADE : NAME_GONE, object(n));
        live += make && !there[n];
        live -= !make && there[n];
        there[n] = make;
        if (i % 100 == 0) {
            struct names_copy c;
            assert_true(listed(f, &c));
            assert_int_equal(c.count, live);
            for (uint32_t k = 0; k < c.count; k++) {
                assert_true(k == 0 || strcmp(c.names[k - 1], c.names[k]) < 0);
                unsigned of = (unsigned)strtoul(c.names[k] + 1, NULL, 10);
                assert_true(there[of] && oid_equal(c.oids[k], object(of)));
            }
            names_copy_deinit(&c);
        }
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
            inode_name_end(f->table, f->dir, slice_str(name), NAME_MADE, object(n));
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
        cmocka_unit_test(test_list_follows_our_changes),
        cmocka_unit_test(test_list_of_a_name_in_doubt_is_not_given),
        cmocka_unit_test(test_list_after_a_change_by_others_is_not_given),
        cmocka_unit_test(test_list_of_a_large_directory_is_not_kept),
        cmocka_unit_test(test_lists_beyond_budget_are_not_kept),
        cmocka_unit_test(test_each_of_many_is_found_and_given_back),
        cmocka_unit_test(test_names_random_as_list),
        cmocka_unit_test(test_names_beyond_budget_know_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
