/* Names of losers: forms, what is stripped, where they are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "journal/merge_int.h"

static void expect_name(const char *name, const char *site, uint32_t k, const char *want)
{
    struct buf b = {.ptr = NULL};
    struct oid oid = oid_file(0, OID_FILE, 1, 0x89abcdef);
    conflict_name(slice_str(name), site, oid, k, &b);
    assert_true(b.len <= LIMIT_NAME_BYTES);
    buf_append(&b, "", 1);
    assert_string_equal((char *)b.ptr, want);
    assert_true(name_is_derived_form(slice_str((char *)b.ptr)));
    buf_deinit(&b);
}

static void test_conflict_name_forms(void **state)
{
    (void)state;
    expect_name("a.txt", "A", 0, "a.conflict-A-89abcdef.txt");
    expect_name("a.txt", "A", 2, "a.conflict-A-89abcdef-2.txt");
    expect_name("a", "A", 0, "a.conflict-A-89abcdef");
    expect_name(".profile", "A", 0, ".profile.conflict-A-89abcdef");
    expect_name("a.tar.gz", "A", 0, "a.tar.conflict-A-89abcdef.gz");
    expect_name("a.", "A", 0, "a.conflict-A-89abcdef.");
    /* Never a conflict name of a conflict name. */
    expect_name("a.conflict-B-01234567.txt", "A", 0, "a.conflict-A-89abcdef.txt");
    expect_name("a.conflict-B-01234567-3.txt", "A", 0, "a.conflict-A-89abcdef.txt");
    expect_name("a.conflict-b-c-01234567", "A", 0, "a.conflict-A-89abcdef");
    expect_name(".conflict-B-01234567", "A", 0, ".conflict-A-89abcdef");
    /* What only looks like one stays. */
    expect_name("a.conflict-B-0123456.txt", "A", 0, "a.conflict-B-0123456.conflict-A-89abcdef.txt");
    expect_name("a.conflict-B-0123456X", "A", 0, "a.conflict-A-89abcdef.conflict-B-0123456X");
    assert_false(name_is_derived_form(slice_str("a.conflict-B-0123456")));
    assert_false(name_is_derived_form(slice_str("")));
}

static void test_conflict_name_is_cut_between_characters(void **state)
{
    (void)state;
    char name[LIMIT_NAME_BYTES + 1];
    struct buf b = {.ptr = NULL};
    for (size_t i = 0; i < 252; i += 2)
        memcpy(name + i, "\xc3\xa4", 2);
    memcpy(name + 252, ".x", 2);
    conflict_name(slice_of(name, 254), "site", OID_ROOT, 0, &b);
    assert_true(b.len <= LIMIT_NAME_BYTES && b.len > LIMIT_NAME_BYTES - 3);
    assert_true(b.ptr[b.len - 1] == 'x');
    size_t stem = 0;
    while (b.ptr[stem] == 0xc3 && b.ptr[stem + 1] == 0xa4)
        stem += 2;
    assert_true(b.ptr[stem] == '.');
    /* An extension that leaves no room for anything is none. */
    memset(name, 'y', LIMIT_NAME_BYTES);
    name[1] = '.';
    conflict_name(slice_of(name, LIMIT_NAME_BYTES), "site", OID_ROOT, 7, &b);
    assert_int_equal(b.len, LIMIT_NAME_BYTES);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conflict_name_forms),
        cmocka_unit_test(test_conflict_name_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
