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
}

/* A walk sees each inode that is there all the while, though the table grows under it. */
static void test_walk_sees_all_while_the_table_grows(void **state)
{
    struct inode_table *t = *state;
    struct inode_ids ids;
    uint8_t *seen = mem_calloc(20001, 1);
    size_t at = 0;
    bool more = true;
    for (uint64_t n = 1; n <= 20000; n++)
        inode_unref(t, inode_table_enter(t, oid_file(3, OID_FILE, 9, n), n, 1));
    for (uint64_t made = 20000; more;) {
        more = inode_table_ids(t, &at, INODE_NO_DIRS, &ids);
        for (size_t k = 0; k < ids.count; k++)
            if (ids.at[k] <= 20000)
                seen[ids.at[k]] = 1;
        for (unsigned k = 0; k < 5000 && made < 100000; k++) {
            made++;
            inode_unref(t, inode_table_enter(t, oid_file(3, OID_FILE, 9, made), made, 1));
        }
    }
    for (uint64_t n = 1; n <= 20000; n++)
        assert_true(seen[n]);
    mem_free(seen);
    at = 0;
    inode_unref(t, inode_table_enter(t, OID_ROOT, INODE_ROOT_ID, 1));
    size_t dirs = 0;
    for (more = true; more; dirs += ids.count)
        more = inode_table_ids(t, &at, INODE_DIRS, &ids);
    assert_int_equal(dirs, 1);
}

static size_t unused_in_a_round(struct inode_table *t, uint64_t *ret_id)
{
    struct inode_ids ids;
    size_t at = 0, count = 0;
    bool more = true;
    while (more) {
        more = inode_table_unused(t, &at, &ids);
        count += ids.count;
        *ret_id = ids.count > 0 ? ids.at[0] : *ret_id;
    }
    return count;
}

/* What may be dropped: what was not used since the last round, and nobody refers to. */
static void test_unused_leaves_what_is_used_or_referred_to(void **state)
{
    struct inode_table *t = *state;
    uint64_t id = 0;
    struct inode *root = inode_table_enter(t, OID_ROOT, INODE_ROOT_ID, 1);
    inode_unref(t, root);
    inode_unref(t, inode_table_enter(t, oid_file(3, OID_FILE, 9, 1), 101, 1));
    inode_unref(t, inode_table_enter(t, oid_file(3, OID_FILE, 9, 2), 102, 1));
    struct inode *held = inode_table_enter(t, oid_file(3, OID_FILE, 9, 3), 103, 1);
    assert_int_equal(unused_in_a_round(t, &id), 0); /* all were used a moment ago */
    inode_unref(t, inode_table_get(t, 101));
    assert_int_equal(unused_in_a_round(t, &id), 1);
    assert_int_equal(id, 102);
    inode_unref(t, held);
    assert_int_equal(unused_in_a_round(t, &id), 3); /* but never the root */
}

static unsigned crowded_count;

static void crowded(void *ctx)
{
    (void)ctx;
    crowded_count++;
}

static void test_limit_says_so_when_there_are_more(void **state)
{
    struct inode_table *t = *state;
    crowded_count = 0;
    inode_table_limit(t, 100, crowded, NULL);
    for (uint64_t n = 1; n <= 100; n++)
        inode_unref(t, inode_table_enter(t, oid_file(3, OID_FILE, 9, n), n, 1));
    assert_int_equal(crowded_count, 0);
    for (uint64_t n = 101; n <= 5000; n++)
        inode_unref(t, inode_table_enter(t, oid_file(3, OID_FILE, 9, n), n, 1));
    assert_int_equal(crowded_count, 5); /* and not each time */
}

/* ---- what is known of an inode ---- */

/* It goes with the last reference when there is nothing in it, and with time when there is. */
static void test_known_goes_when_not_referred_to_for_long(void **state)
{
    struct inode_table *t = *state;
    struct inode_clock c;
    const uint64_t many = INODE_KNOWN_MAX + 1000;
    size_t kept = 0;
    struct inode **all = mem_calloc(many + 1, sizeof(struct inode *));
    inode_clock_init(&c);
    for (uint64_t n = 1; n <= many; n++) {
        struct fs_attr a = {.oid = oid_file(3, OID_FILE, 9, n), .size = n};
        all[n] = inode_table_enter(t, a.oid, n, 1);
        inode_attr_store(all[n], &a, inode_clock_now(&c));
        inode_unref(t, all[n]);
    }
    for (uint64_t n = 1; n <= many; n++)
        kept += all[n]->known != NULL;
    assert_int_equal(kept, INODE_KNOWN_MAX);
    assert_null(all[1]->known);
    assert_non_null(all[many]->known);
    struct inode *bare = inode_table_get(t, 1);
    struct fs_attr got;
    assert_false(inode_attr_load(bare, &c, &got));
    inode_unref(t, bare);
    assert_null(bare->known);
    mem_free(all);
    inode_clock_deinit(&c);
}

/* That we changed an object after it was asked for is remembered when its record went. */
static void test_answer_from_before_our_change_is_dropped_by_a_new_record(void **state)
{
    struct inode_table *t = *state;
    struct inode_clock c;
    struct oid oid = oid_file(1, OID_FILE, 7, 42);
    struct fs_attr old = {.oid = oid, .size = 5, .ctime_ns = 10}, got;
    inode_clock_init(&c);
    struct inode *i = enter(t, oid, 1);
    uint64_t asked = inode_clock_now(&c);
    inode_attr_drop(i, &c);
    inode_unref(t, i);
    assert_null(i->known);
    assert_ptr_equal(enter(t, oid, 0), i);
    inode_attr_store(i, &old, asked);
    assert_false(inode_attr_load(i, &c, &got));
    inode_attr_store(i, &old, inode_clock_now(&c));
    assert_true(inode_attr_load(i, &c, &got));
    inode_unref(t, i);
    inode_clock_deinit(&c);
}

/* A record of a file goes when it may, with the last reference. */
static bool may_rest;
static struct file *rested;

static bool on_may_rest(void *ctx, struct inode *i)
{
    (void)ctx;
    (void)i;
    return may_rest;
}

static void on_rested(void *ctx, struct file *f)
{
    (void)ctx;
    rested = f;
}

static unsigned left;

static void on_leaves(void *ctx, struct oid oid)
{
    (void)ctx;
    assert_true(oid_equal(oid, oid_file(1, OID_FILE, 7, 42)));
    left++;
}

/* The clock is to be hit before anybody can know it again. */
static void test_leaving_is_told_of(void **state)
{
    struct inode_table *t = *state;
    const struct inode_rest rest = {.leaves = on_leaves};
    inode_table_rest(t, &rest);
    struct inode *i = enter(t, oid_file(1, OID_FILE, 7, 42), 1);
    inode_unref(t, i);
    assert_int_equal(left, 0);
    inode_table_forget(t, i->id, 1);
    assert_int_equal(left, 1);
}

static void test_file_goes_when_it_may(void **state)
{
    struct inode_table *t = *state;
    const struct inode_rest rest = {.may_rest = on_may_rest, .rested = on_rested};
    struct file *f = (struct file *)(uintptr_t)16;
    inode_table_rest(t, &rest);
    struct inode *i = enter(t, oid_file(1, OID_FILE, 7, 42), 1);
    i->known->file = f;
    may_rest = false;
    inode_unref(t, i);
    assert_null(rested);
    assert_ptr_equal(inode_table_get(t, i->id), i);
    may_rest = true;
    assert_null(rested); /* somebody refers to it */
    inode_unref(t, i);
    assert_ptr_equal(rested, f);
}

/* ---- attributes ---- */

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
    uint32_t generation = inode_clock_generation(&c);
    inode_clock_hit_all(&c);
    assert_false(inode_clock_fresh(&c, b, since));
    assert_int_not_equal(inode_clock_generation(&c), generation);
    inode_clock_deinit(&c);
}

/* What is known all the while does not mind that others, in the same place, are forgotten. */
static void test_clock_forgotten_concerns_what_becomes_known(void **state)
{
    struct inode_clock c;
    struct oid a = oid_file(1, OID_FILE, 7, 1);
    (void)state;
    inode_clock_init(&c);
    uint64_t since = inode_clock_now(&c);
    inode_clock_hit_forgotten(&c, a);
    assert_true(inode_clock_fresh(&c, a, since));
    assert_false(inode_clock_reply_fresh(&c, a, since));
    since = inode_clock_now(&c);
    assert_true(inode_clock_reply_fresh(&c, a, since));
    inode_clock_hit(&c, a);
    assert_false(inode_clock_reply_fresh(&c, a, since));
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
        cmocka_unit_test_setup_teardown(test_walk_sees_all_while_the_table_grows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unused_leaves_what_is_used_or_referred_to, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_limit_says_so_when_there_are_more, setup, teardown),
        cmocka_unit_test_setup_teardown(test_known_goes_when_not_referred_to_for_long, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_answer_from_before_our_change_is_dropped_by_a_new_record, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leaving_is_told_of, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_goes_when_it_may, setup, teardown),
        cmocka_unit_test(test_clock_hits),
        cmocka_unit_test(test_clock_forgotten_concerns_what_becomes_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
