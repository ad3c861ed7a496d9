/* Helpers of the journal's tests: a scratch directory and short byte strings. */
#ifndef TESTS_UNIT_JOURNAL_JOURNAL_TEST_H
#define TESTS_UNIT_JOURNAL_JOURNAL_TEST_H

#include <ftw.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"

/* A new directory under TMPDIR or /tmp; free the name with scratch_remove. */
static inline char *scratch_new(void)
{
    const char *base = getenv("TMPDIR");
    char *path = mem_printf("%s/cfs-test-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

/* One in memory where there is such a place: for tests that make thousands of files. */
static inline char *scratch_new_fast(void)
{
    char *path = mem_strdup("/dev/shm/cfs-test-XXXXXX");
    if (mkdtemp(path) != NULL)
        return path;
    mem_free(path);
    return scratch_new();
}

static inline int scratch_unlink(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void scratch_clear(const char *path)
{
    assert_int_equal(nftw(path, scratch_unlink, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void scratch_remove(char *path)
{
    scratch_clear(path);
    mem_free(path);
}

#define assert_slice(got, want)                                                                    \
    do {                                                                                           \
        struct slice got_ = (got), want_ = (want);                                                 \
        assert_int_equal(got_.len, want_.len);                                                     \
        if (want_.len > 0)                                                                         \
            assert_memory_equal(got_.ptr, want_.ptr, want_.len);                                   \
    } while (0)

#endif
