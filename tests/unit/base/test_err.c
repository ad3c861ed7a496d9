/* The error table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/err.h"

static void test_err_known_codes_have_all_columns(void **state)
{
    (void)state;
    for (int i = 1; i < (int)ERR_IDX_COUNT; i++) {
        assert_true(strlen(err_name(-i)) > 0);
        assert_true(strlen(err_text(-i)) > 0);
        assert_true(err_errno(-i) > 0);
        assert_int_not_equal(err_class(-i), ERR_CLASS_NONE);
        for (int j = i + 1; j < (int)ERR_IDX_COUNT; j++)
            assert_string_not_equal(err_name(-i), err_name(-j));
    }
    assert_string_equal(err_name(ERR_NO_SPACE), "NO_SPACE");
    assert_int_equal(err_class(ERR_NO_SPACE), ERR_CLASS_ENV);
}

static void test_err_success_is_zero_everywhere(void **state)
{
    (void)state;
    assert_int_equal(err_errno(0), 0);
    assert_int_equal(err_class(0), ERR_CLASS_NONE);
    assert_int_equal(err_from_errno(0), 0);
}

static void test_err_unknown_code_reads_as_fatal(void **state)
{
    (void)state;
    const int unknown[] = {1, INT32_MAX, INT32_MIN, -(int)ERR_IDX_COUNT, -100000};
    for (size_t i = 0; i < ARRAY_COUNT(unknown); i++) {
        assert_int_equal(err_class(unknown[i]), ERR_CLASS_FATAL);
        assert_int_equal(err_errno(unknown[i]), EIO);
        assert_string_equal(err_name(unknown[i]), "FATAL");
    }
}

/* What a user sees for an errno of the local disk must be that errno again. */
static void test_err_from_errno_keeps_the_errno_of_posix_answers(void **state)
{
    (void)state;
    const int nums[] = {ENOENT, EEXIST,     ENOTDIR, EISDIR,  ENOTEMPTY, EINVAL, ENAMETOOLONG,
                        EPERM,  EACCES,     EXDEV,   EMLINK,  EFBIG,     ESTALE, ENODATA,
                        ERANGE, EOPNOTSUPP, EBUSY,   EDEADLK, ENOLCK,    ENXIO,  ENOSPC,
                        ENOMEM, EIO,        EAGAIN,  E2BIG,   ETIMEDOUT};
    for (size_t i = 0; i < ARRAY_COUNT(nums); i++)
        assert_int_equal(err_errno(err_from_errno(nums[i])), nums[i]);
    assert_int_equal(err_from_errno(EDQUOT), ERR_NO_SPACE);
    assert_int_equal(err_from_errno(99999), ERR_IO);
    assert_int_equal(err_from_errno(-5), ERR_IO);
}

static void test_err_detail_set_truncates_and_accepts_null(void **state)
{
    (void)state;
    struct err_detail d;
    char longer[1000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    err_detail_set(&d, "%s", longer);
    assert_int_equal(strlen(d.text), sizeof d.text - 1);
    err_detail_set(&d, "%d", 5);
    assert_string_equal(d.text, "5");
    err_detail_set(NULL, "%d", 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_known_codes_have_all_columns),
        cmocka_unit_test(test_err_success_is_zero_everywhere),
        cmocka_unit_test(test_err_unknown_code_reads_as_fatal),
        cmocka_unit_test(test_err_from_errno_keeps_the_errno_of_posix_answers),
        cmocka_unit_test(test_err_detail_set_truncates_and_accepts_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
