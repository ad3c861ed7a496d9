/* One hand-written history for each rule, as in merge_model.py `rules`, on one shard and on four.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "journal/merge_int.h"
#include "tests/unit/journal/merge_world.h"

struct fixture {
    struct world *w;
    struct world_site *a, *b, *c;
};
static unsigned shards = 1;

static struct fixture begin(unsigned sites)
{
    struct fixture f = {.w = world_new(sites, shards, 7)};
    f.a = f.w->sites[0];
    f.b = f.w->sites[1];
    f.c = sites > 2 ? f.w->sites[2] : NULL;
    return f;
}

static void sync_all(struct fixture *f)
{
    world_drain(f->w, false);
}

static void end(struct fixture *f)
{
    sync_all(f);
    world_check(f->w);
    world_free(f->w);
}

static void expect_in(struct fixture *f, struct oid dir, const char *want)
{
    char names[1024];
    for (unsigned i = 0; i < f->w->site_count; i++)
        assert_string_equal(site_names(f->w->sites[i], dir, names), want);
}

static void expect(struct fixture *f, const char *want)
{
    expect_in(f, OID_ROOT, want);
}

/* All sites have exactly this many records of a rule. */
static void expect_conflicts(struct fixture *f, unsigned rule, uint32_t want)
{
    for (unsigned i = 0; i < f->w->site_count; i++)
        assert_int_equal(f->w->sites[i]->conflicts[rule], want);
}

static uint16_t mode_of(struct world_site *s, const char *name)
{
    struct shown shown;
    struct file_view f;
    assert_true(site_lookup(s, OID_ROOT, name, &shown));
    assert_int_equal(merge_file(site_shard(s, shown.oid), shown.oid, &f), 0);
    return f.perm.mode;
}

static void test_rule2_both_edits_stay(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x.txt", "0", 3);
    sync_all(&f);
    user_write(f.a, OID_ROOT, "x.txt", "1");
    user_write(f.b, OID_ROOT, "x.txt", "2");
    sync_all(&f);
    expect(&f, "x.conflict-A-#.txt=1 x.txt=2");
    expect_conflicts(&f, 2, 1);
    /* With the rights of the file it was. */
    uint32_t count;
    struct world_name *names = site_list(f.b, OID_ROOT, &count);
    assert_int_equal(mode_of(f.b, names[0].name), 3);
    mem_free(names);
    end(&f);
}

static void test_rule2_equal_bytes_are_no_conflict(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "0", 0);
    sync_all(&f);
    user_write(f.a, OID_ROOT, "x", "1");
    user_write(f.b, OID_ROOT, "x", "1");
    sync_all(&f);
    expect(&f, "x=1");
    expect_conflicts(&f, 2, 0);
    end(&f);
}

static void test_rule3_edit_beats_delete(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "0", 0);
    sync_all(&f);
    user_remove(f.a, OID_ROOT, "x");
    user_write(f.b, OID_ROOT, "x", "1");
    sync_all(&f);
    expect(&f, "x=1");
    expect_conflicts(&f, 3, 1);
    end(&f);
}

static void test_rule3_in_its_own_directory(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid d = user_mkdir(f.a, OID_ROOT, "d", 0);
    (void)user_create(f.a, d, "x", "0", 0);
    sync_all(&f);
    user_remove(f.a, d, "x");
    user_write(f.b, d, "x", "1");
    sync_all(&f);
    expect_in(&f, d, "x=1");
    end(&f);
}

static void test_rule3_removing_one_of_two_names_deletes_nothing(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "0", 0);
    user_link(f.a, OID_ROOT, "x", OID_ROOT, "y");
    sync_all(&f);
    user_remove(f.a, OID_ROOT, "x");
    user_remove(f.b, OID_ROOT, "y");
    sync_all(&f);
    expect(&f, "y=0");
    end(&f);
}

static void test_rule3_delete_that_knew_is_final(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "0", 0);
    sync_all(&f);
    user_write(f.b, OID_ROOT, "x", "1");
    sync_all(&f);
    user_remove(f.a, OID_ROOT, "x");
    sync_all(&f);
    expect(&f, "");
    expect_conflicts(&f, 3, 0);
    end(&f);
}

static void test_rule3_delete_removes_what_was_shown(void **state)
{
    (void)state;
    struct fixture f = begin(3);
    (void)user_create(f.a, OID_ROOT, "x", "0", 0);
    sync_all(&f);
    user_write(f.a, OID_ROOT, "x", "1");
    user_write(f.b, OID_ROOT, "x", "2");
    (void)site_pull(f.c, f.a, 99);
    (void)site_pull(f.c, f.b, 99);
    user_remove(f.c, OID_ROOT, "x");
    sync_all(&f);
    expect(&f, "x=1");
    end(&f);
}

static void test_rule4_content_revives_its_directory(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid d = user_mkdir(f.a, OID_ROOT, "d", 0);
    sync_all(&f);
    user_remove(f.a, OID_ROOT, "d");
    (void)user_create(f.b, d, "f", "1", 0);
    sync_all(&f);
    expect(&f, "d/");
    expect_in(&f, d, "f=1");
    expect_conflicts(&f, 4, 1);
    end(&f);
}

static void test_rule4_and_all_above_it(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid d = user_mkdir(f.a, OID_ROOT, "d", 0);
    struct oid e = user_mkdir(f.a, d, "e", 0);
    sync_all(&f);
    user_remove(f.a, d, "e");
    user_remove(f.a, OID_ROOT, "d");
    (void)user_create(f.b, e, "f", "1", 0);
    sync_all(&f);
    expect(&f, "d/");
    expect_in(&f, e, "f=1");
    end(&f);
}

static void test_rule4_reviving_does_not_undo_a_rename(void **state)
{
    (void)state;
    struct fixture f = begin(3);
    struct oid d = user_mkdir(f.a, OID_ROOT, "p", 0);
    sync_all(&f);
    user_rename(f.b, OID_ROOT, "p", OID_ROOT, "q");
    user_remove(f.c, OID_ROOT, "p");
    (void)user_create(f.a, d, "f", "1", 0);
    (void)site_pull(f.a, f.c, 9);
    site_settle(f.a);
    assert_true(site_repair(f.a, false));
    sync_all(&f);
    expect(&f, "q/");
    end(&f);
}

static void test_rule5_later_move_that_closes_a_cycle_is_skipped(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid x = user_mkdir(f.a, OID_ROOT, "x", 0);
    struct oid y = user_mkdir(f.a, OID_ROOT, "y", 0);
    sync_all(&f);
    user_rename(f.a, OID_ROOT, "x", y, "x");
    user_rename(f.b, OID_ROOT, "y", x, "y");
    sync_all(&f);
    expect(&f, "y/");
    expect_in(&f, y, "x/");
    expect_in(&f, x, "");
    expect_conflicts(&f, 5, 1);
    end(&f);
}

static void test_rule5_of_two_moves_the_later_holds(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_mkdir(f.a, OID_ROOT, "d", 0);
    sync_all(&f);
    user_rename(f.a, OID_ROOT, "d", OID_ROOT, "m");
    user_rename(f.b, OID_ROOT, "d", OID_ROOT, "n");
    sync_all(&f);
    expect(&f, "n/");
    expect_conflicts(&f, 5, 1);
    end(&f);
}

static void test_rule5_moves_in_a_row_are_no_conflict(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_mkdir(f.a, OID_ROOT, "d", 0);
    sync_all(&f);
    user_rename(f.a, OID_ROOT, "d", OID_ROOT, "m");
    sync_all(&f);
    user_rename(f.b, OID_ROOT, "m", OID_ROOT, "n");
    sync_all(&f);
    user_rename(f.a, OID_ROOT, "n", OID_ROOT, "o");
    sync_all(&f);
    expect(&f, "o/");
    expect_conflicts(&f, 5, 0);
    end(&f);
}

static void test_rule6_higher_stamp_has_the_name(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "1", 0);
    (void)user_create(f.b, OID_ROOT, "x", "2", 0);
    sync_all(&f);
    expect(&f, "x=2 x.conflict-A-#=1");
    expect_conflicts(&f, 6, 1);
    user_remove(f.a, OID_ROOT, "x"); /* a conflict name, once shown, stays */
    sync_all(&f);
    expect(&f, "x.conflict-A-#=1");
    end(&f);
}

static void test_rule6_derived_name_takes_nobodys_name(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid oid = user_create(f.a, OID_ROOT, "x", "1", 0);
    struct buf taken = {.ptr = NULL};
    conflict_name(slice_str("x"), "A", oid, 0, &taken);
    buf_append(&taken, "", 1);
    (void)user_create(f.b, OID_ROOT, (char *)taken.ptr, "3", 0);
    (void)user_create(f.b, OID_ROOT, "x", "2", 0);
    sync_all(&f);
    expect(&f, "x=2 x.conflict-A-#=3 x.conflict-A-#-1=1");
    user_remove(f.b, OID_ROOT, (char *)taken.ptr); /* what had passed it over stays where it is */
    sync_all(&f);
    expect(&f, "x=2 x.conflict-A-#-1=1");
    buf_deinit(&taken);
    end(&f);
}

static void take_from(struct world_site *s, struct world_site *peer, const char *want)
{
    char names[1024];
    (void)site_pull(s, peer, UINT32_MAX);
    site_settle(s);
    assert_string_equal(site_names(s, OID_ROOT, names), want);
}

/* What is remembered of losers follows names that come and go beside theirs, made by sites that
 * know of no contest. */
static void test_rule6_derived_name_follows_names_of_others(void **state)
{
    (void)state;
    struct fixture f = begin(3);
    struct oid oid = user_create(f.a, OID_ROOT, "x", "1", 0);
    struct buf taken = {.ptr = NULL};
    conflict_name(slice_str("x"), "A", oid, 0, &taken);
    buf_append(&taken, "", 1);
    (void)user_create(f.b, OID_ROOT, "x", "2", 0);
    take_from(f.a, f.b, "x=2 x.conflict-A-#=1");
    (void)user_create(f.c, OID_ROOT, (char *)taken.ptr, "3", 0);
    take_from(f.a, f.c, "x=2 x.conflict-A-#=3 x.conflict-A-#-1=1");
    user_remove(f.c, OID_ROOT, (char *)taken.ptr);
    take_from(f.a, f.c, "x=2 x.conflict-A-#=1");
    user_write(f.b, OID_ROOT, "x", "1"); /* equal files are one */
    take_from(f.a, f.b, "x=1");
    user_write(f.b, OID_ROOT, "x", "4");
    take_from(f.a, f.b, "x=4 x.conflict-A-#=1");
    buf_deinit(&taken);
    end(&f);
}

static void test_rule6_directories_go_before_files(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "1", 0);
    (void)user_mkdir(f.b, OID_ROOT, "x", 0);
    user_chmod(f.a, OID_ROOT, "x", 0);
    sync_all(&f);
    expect(&f, "x/ x.conflict-A-#=1");
    end(&f);
}

static void test_rule6_twins_are_one_file(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "1", 0);
    (void)user_create(f.b, OID_ROOT, "x", "1", 0);
    sync_all(&f);
    expect(&f, "x=1");
    user_write(f.a, OID_ROOT, "x", "2");
    sync_all(&f);
    expect(&f, "x=2");
    user_remove(f.a, OID_ROOT, "x");
    sync_all(&f);
    expect(&f, "");
    expect_conflicts(&f, 6, 0);
    end(&f);
}

static void take_all(struct world_site *to, struct world_site *from)
{
    (void)site_pull(to, from, UINT32_MAX); /* however many there are */
    site_settle(to);
}

/* Somebody wrote to one of two equal files before he heard of the other: from then on both show. */
static void test_rule6_twins_that_become_rivals_are_told(void **state)
{
    (void)state;
    struct fixture f = begin(3);
    (void)user_create(f.a, OID_ROOT, "x", "1", 0);
    take_all(f.c, f.a);
    (void)user_create(f.b, OID_ROOT, "x", "1", 0);
    take_all(f.a, f.b);
    assert_int_equal(f.a->conflicts[6], 0);
    user_write(f.c, OID_ROOT, "x", "2");
    sync_all(&f);
    expect(&f, "x=1 x.conflict-A-#=2");
    expect_conflicts(&f, 6, 1);
    end(&f);
}

/* A site removes a directory and puts a file in its place, and another site revives it: both have
 * their names from the first one, which has not given both at once. */
static void test_rule6_a_name_lost_to_what_was_revived_is_told(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid d = user_mkdir(f.a, OID_ROOT, "d", 0);
    sync_all(&f);
    user_remove(f.a, OID_ROOT, "d");
    (void)user_create(f.a, OID_ROOT, "d", "1", 0);
    (void)user_create(f.b, d, "f", "2", 0);
    sync_all(&f);
    expect(&f, "d/ d.conflict-A-#=1");
    expect_conflicts(&f, 6, 1);
    end(&f);
}

static void test_rule6_other_rights_other_file(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "1", 0);
    (void)user_create(f.b, OID_ROOT, "x", "1", 1);
    sync_all(&f);
    expect(&f, "x=1 x.conflict-A-#=1");
    end(&f);
}

static void test_rule6_replace_by_rename_at_both_sites(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "doc", "0", 0);
    sync_all(&f);
    (void)user_create(f.a, OID_ROOT, "tmpA", "A", 0);
    user_rename(f.a, OID_ROOT, "tmpA", OID_ROOT, "doc");
    (void)user_create(f.b, OID_ROOT, "tmpB", "B", 0);
    user_rename(f.b, OID_ROOT, "tmpB", OID_ROOT, "doc");
    sync_all(&f);
    expect(&f, "doc=B doc.conflict-A-#=A");
    end(&f);
}

static void test_rule7_one_mkdir_at_two_sites_is_one_directory(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid d = user_mkdir(f.a, OID_ROOT, "d", 0);
    struct oid e = user_mkdir(f.b, OID_ROOT, "d", 0);
    assert_true(oid_equal(d, e));
    (void)user_create(f.a, d, "f", "1", 0);
    (void)user_create(f.b, e, "g", "2", 0);
    sync_all(&f);
    expect(&f, "d/");
    expect_in(&f, d, "f=1 g=2");
    expect_conflicts(&f, 6, 0);
    end(&f);
}

static void test_rule7_not_with_other_rights(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_mkdir(f.a, OID_ROOT, "d", 0);
    (void)user_mkdir(f.b, OID_ROOT, "d", 1);
    sync_all(&f);
    expect(&f, "d/ d.conflict-A-#/");
    end(&f);
}

static void test_rule7_made_again_it_is_another(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid d = user_mkdir(f.a, OID_ROOT, "d", 0);
    sync_all(&f);
    user_remove(f.a, OID_ROOT, "d");
    struct oid e = user_mkdir(f.a, OID_ROOT, "d", 0);
    sync_all(&f);
    expect(&f, "d/");
    struct dir_view v;
    assert_false(oid_equal(d, e));
    assert_int_equal(merge_dir(site_shard(f.b, d), d, &v), 0);
    assert_false(v.alive);
    end(&f);
}

static void test_rule8_both_new_names_stay(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "1", 0);
    sync_all(&f);
    user_rename(f.a, OID_ROOT, "x", OID_ROOT, "y");
    user_rename(f.b, OID_ROOT, "x", OID_ROOT, "z");
    sync_all(&f);
    expect(&f, "y=1 z=1");
    expect_conflicts(&f, 8, 1);
    end(&f);
}

static bool see_pair(void *ctx, const struct conflict *c)
{
    char *names = ctx;
    if (c->rule != 8)
        return true;
    assert_true(c->winner != c->loser);
    (void)snprintf(names + strlen(names), 64 - strlen(names), "%.*s%.*s ", (int)c->name.len,
                   (const char *)c->name.ptr, (int)c->other_name.len,
                   (const char *)c->other_name.ptr); /* few short ones */
    return true;
}

/* A name that the file had besides is none of the two that collided. */
static void test_rule8_tells_of_the_two_that_renamed(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    struct oid oid = user_create(f.a, OID_ROOT, "x", "1", 0);
    sync_all(&f);
    user_link(f.b, OID_ROOT, "x", OID_ROOT, "a");
    sync_all(&f);
    user_rename(f.a, OID_ROOT, "x", OID_ROOT, "y");
    user_rename(f.b, OID_ROOT, "x", OID_ROOT, "z");
    sync_all(&f);
    expect(&f, "a=1 y=1 z=1");
    expect_conflicts(&f, 8, 1);
    for (unsigned i = 0; i < 2; i++) {
        char names[64] = "";
        struct merge *m = site_shard(f.w->sites[i], oid);
        assert_int_equal(merge_conflicts(m, see_pair, names), 0);
        assert_string_equal(names, i == 0 ? "zy " : "yz ");
    }
    end(&f);
}

static void test_rule9_higher_stamp_wins(void **state)
{
    (void)state;
    struct fixture f = begin(2);
    (void)user_create(f.a, OID_ROOT, "x", "1", 0);
    sync_all(&f);
    user_chmod(f.a, OID_ROOT, "x", 5);
    user_chmod(f.b, OID_ROOT, "x", 6);
    sync_all(&f);
    assert_int_equal(mode_of(f.a, "x"), 6);
    assert_int_equal(mode_of(f.b, "x"), 6);
    end(&f);
}

/* Another site's repair waits until its time has come. */
static void test_repair_of_a_lost_site_is_taken_over(void **state)
{
    (void)state;
    struct fixture f = begin(3);
    (void)user_create(f.a, OID_ROOT, "x", "0", 0);
    sync_all(&f);
    user_write(f.a, OID_ROOT, "x", "1");
    user_write(f.b, OID_ROOT, "x", "2");
    (void)site_pull(f.c, f.a, 99);
    (void)site_pull(f.c, f.b, 99);
    site_settle(f.c);
    f.a->lost = true;
    struct repair_due due = {.due_before_hlc = 0};
    struct op_builder b = {.effects = NULL};
    uint64_t next = 0;
    assert_false(merge_repair(f.c->shards[0], &due, &b, &next));
    assert_int_not_equal(next, 0);
    due.due_before_hlc = next - 1;
    assert_false(merge_repair(f.c->shards[0], &due, &b, &next));
    due.due_before_hlc = next;
    assert_true(merge_repair(f.c->shards[0], &due, &b, &next));
    assert_int_equal(b.count, 2); /* the fork and its name */
    op_builder_deinit(&b);
    assert_true(site_repair(f.c, true));
    char names[1024];
    assert_string_equal(site_names(f.c, OID_ROOT, names), "x=2 x.conflict-A-#=1");
    end(&f);
}

static int on_four_shards(void **state)
{
    (void)state;
    shards = 4;
    return 0;
}

static int on_one_shard(void **state)
{
    (void)state;
    shards = 1;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule2_both_edits_stay),
        cmocka_unit_test(test_rule2_equal_bytes_are_no_conflict),
        cmocka_unit_test(test_rule3_edit_beats_delete),
        cmocka_unit_test(test_rule3_in_its_own_directory),
        cmocka_unit_test(test_rule3_removing_one_of_two_names_deletes_nothing),
        cmocka_unit_test(test_rule3_delete_that_knew_is_final),
        cmocka_unit_test(test_rule3_delete_removes_what_was_shown),
        cmocka_unit_test(test_rule4_content_revives_its_directory),
        cmocka_unit_test(test_rule4_and_all_above_it),
        cmocka_unit_test(test_rule4_reviving_does_not_undo_a_rename),
        cmocka_unit_test(test_rule5_later_move_that_closes_a_cycle_is_skipped),
        cmocka_unit_test(test_rule5_of_two_moves_the_later_holds),
        cmocka_unit_test(test_rule5_moves_in_a_row_are_no_conflict),
        cmocka_unit_test(test_rule6_higher_stamp_has_the_name),
        cmocka_unit_test(test_rule6_derived_name_takes_nobodys_name),
        cmocka_unit_test(test_rule6_derived_name_follows_names_of_others),
        cmocka_unit_test(test_rule6_directories_go_before_files),
        cmocka_unit_test(test_rule6_twins_are_one_file),
        cmocka_unit_test(test_rule6_twins_that_become_rivals_are_told),
        cmocka_unit_test(test_rule6_a_name_lost_to_what_was_revived_is_told),
        cmocka_unit_test(test_rule6_other_rights_other_file),
        cmocka_unit_test(test_rule6_replace_by_rename_at_both_sites),
        cmocka_unit_test(test_rule7_one_mkdir_at_two_sites_is_one_directory),
        cmocka_unit_test(test_rule7_not_with_other_rights),
        cmocka_unit_test(test_rule7_made_again_it_is_another),
        cmocka_unit_test(test_rule8_both_new_names_stay),
        cmocka_unit_test(test_rule8_tells_of_the_two_that_renamed),
        cmocka_unit_test(test_rule9_higher_stamp_wins),
        cmocka_unit_test(test_repair_of_a_lost_site_is_taken_over),
    };
    int bad = cmocka_run_group_tests_name("one shard", tests, on_one_shard, NULL);
    return bad + cmocka_run_group_tests_name("four shards", tests, on_four_shards, NULL);
}
