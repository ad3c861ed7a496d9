/* The inode table: counts, collisions, growth; and attributes kept with inodes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "client/inode_table.h"

static unsigned evicted_count;

static void evicted(void *ctx, struct inode *i)
{
    (void)ctx;
    (void)i;
    evicted_count++;
}

static int setup(void **state)
{
    evicted_count = 0;
    *state = inode_table_new(evicted, NULL);
    return 0;
}

static int teardown(void **state)
{
    inode_table_free(*state);
    return 0;
}

static struct inode *enter(struct inode_table *t, struct oid oid, uint64_t lookups)
{
    return inode_table_enter(t, oid, oid_ino(oid), lookups);
}

static void test_lives_while_looked_up_or_referenced(void **state)
{
    struct inode_table *t = *state;
    struct oid oid = oid_file(1, OID_FILE, 7, 42);
    struct inode *i = enter(t, oid, 1);
    assert_ptr_equal(enter(t, oid, 2), i);
    inode_unref(t, i);
    inode_unref(t, i);
    assert_int_equal(inode_table_lookups(t, oid), 3);
    inode_table_forget(t, i->id, 2);
    assert_ptr_equal(inode_table_get(t, i->id), i);
    inode_table_forget(t, i->id, 1);
    assert_int_equal(evicted_count, 0); /* referenced */
    inode_unref(t, i);
    assert_int_equal(evicted_count, 1);
    assert_null(inode_table_find(t, oid));
}

static void test_forget_of_unknown_or_too_many_is_harmless(void **state)
{
    struct inode_table *t = *state;
    struct oid oid = oid_file(1, OID_FILE, 7, 42);
    inode_table_forget(t, 12345, 1);
    struct inode *i = enter(t, oid, 1);
    inode_table_forget(t, i->id, 100);
    inode_unref(t, i);
    assert_int_equal(inode_table_count(t), 0);
}

/* Two sites whose numbers collide: both objects work, under different ids. */
static void test_collision_gets_an_id_of_its_own(void **state)
{
    struct inode_table *t = *state;
    struct oid a = oid_file(1, OID_FILE, 7, 42), b = oid_file(1, OID_FILE, 8, 42);
    struct inode *i = inode_table_enter(t, a, 1000, 1), *k = inode_table_enter(t, b, 1000, 1);
    assert_ptr_not_equal(i, k);
    assert_int_equal(i->id, 1000);
    assert_true(k->id >> 63 == 1);
    assert_ptr_equal(inode_table_enter(t, b, 1000, 0), k);
    inode_unref(t, k);
    struct inode *got = inode_table_get(t, k->id);
    assert_ptr_equal(got, k);
    inode_unref(t, got);
    inode_table_forget(t, i->id, 1);
    inode_unref(t, i);
    assert_ptr_equal(inode_table_enter(t, b, 1000, 0), k); /* still where it was */
    inode_unref(t, k);
    inode_unref(t, k);
}

static void test_grows(void **state)
{
    struct inode_table *t = *state;
    for (uint64_t n = 1; n <= 20000; n++)
        inode_unref(t, enter(t, oid_file(3, OID_FILE, 9, n), 1));
    assert_int_equal(inode_table_count(t), 20000);
    for (uint64_t n = 1; n <= 20000; n++)
        assert_int_equal(inode_table_lookups(t, oid_file(3, OID_FILE, 9, n)), 1);
    assert_false(inode_table_referenced(t));
    size_t count;
    struct inode **all = inode_table_all(t, &count);
    assert_int_equal(count, 20000);
    assert_true(inode_table_referenced(t));
    for (size_t k = 0; k < count; k++)
        inode_unref(t, all[k]);
    mem_free(all);
}

static void test_attributes_are_believed_until_hit(void **state)
{
    struct inode_table *t = *state;
    struct inode_clock c;
    struct oid oid = oid_file(1, OID_FILE, 7, 42);
    struct inode *i = enter(t, oid, 1);
    struct fs_attr a = {.oid = oid, .size = 5, .ctime_ns = 10}, got;
    inode_clock_init(&c);
    assert_false(inode_attr_load(i, &c, &got));
    uint64_t since = inode_clock_now(&c);
    inode_attr_store(i, &a, since);
    assert_true(inode_attr_load(i, &c, &got));
    assert_int_equal(got.size, 5);
    inode_clock_hit(&c, oid);
    assert_false(inode_attr_load(i, &c, &got));
    since = inode_clock_now(&c);
    inode_attr_store(i, &a, since);
    inode_clock_hit_attrs(&c); /* somewhere a name was removed */
    assert_false(inode_attr_load(i, &c, &got));
    assert_true(inode_clock_fresh(&c, oid, since)); /* names are another matter */
    inode_unref(t, i);
    inode_clock_deinit(&c);
}

/* An answer that was on its way while we changed the object must not be kept. */
static void test_answer_from_before_our_change_is_dropped(void **state)
{
    struct inode_table *t = *state;
    struct inode_clock c;
    struct oid oid = oid_file(1, OID_FILE, 7, 42);
    struct inode *i = enter(t, oid, 1);
    struct fs_attr old = {.oid = oid, .size = 5, .ctime_ns = 10}, got;
    struct fs_attr new = {.oid = oid, .size = 6, .ctime_ns = 11};
    inode_clock_init(&c);
    uint64_t asked = inode_clock_now(&c);
    inode_attr_changed(i, &c, &new, asked);
    inode_attr_store(i, &old, asked);
    assert_true(inode_attr_load(i, &c, &got));
    assert_int_equal(got.size, 6);
    /* Of two changes the later one counts, in whatever order the replies come. */
    inode_attr_changed(i, &c, &old, inode_clock_now(&c));
    assert_false(inode_attr_load(i, &c, &got) && got.size == 5);
    inode_attr_drop(i, &c);
    assert_false(inode_attr_load(i, &c, &got));
    inode_unref(t, i);
    inode_clock_deinit(&c);
}

static void test_clock_hits(void **state)
{
    struct inode_clock c;
    struct oid a = oid_file(1, OID_FILE, 7, 1), b = oid_file(1, OID_FILE, 7, 2);
    (void)state;
    inode_clock_init(&c);
    uint64_t since = inode_clock_now(&c);
    assert_true(inode_clock_fresh(&c, a, since));
    inode_clock_hit(&c, a);
    assert_false(inode_clock_fresh(&c, a, since));
    assert_true(inode_clock_fresh(&c, b, since));
    assert_true(inode_clock_fresh(&c, a, inode_clock_now(&c)));
    inode_clock_hit_all(&c);
    assert_false(inode_clock_fresh(&c, b, since));
    inode_clock_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lives_while_looked_up_or_referenced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forget_of_unknown_or_too_many_is_harmless, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_collision_gets_an_id_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attributes_are_believed_until_hit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answer_from_before_our_change_is_dropped, setup,
                                        teardown),
        cmocka_unit_test(test_clock_hits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
