/* What a failed assertion does: one line on stderr, then abort, which leaves a core file. */
#include "base/assert.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void assert_fail(const char *file, int line, const char *func, const char *expr)
{
    (void)fprintf(stderr, "assertion failed: %s:%d: %s: %s\n", file, line, func, expr);
    (void)fflush(stderr);
    abort();
}

static bool defend_aborts(void)
{
#ifdef CLAUDEFS_DCHECK
    return true;
#else
    return getenv("CLAUDEFS_DEFEND_ABORT") != NULL;
#endif
}

bool assert_defend(const char *file, int line, const char *func, const char *expr)
{
    static atomic_bool printed;
    if (defend_aborts())
        assert_fail(file, line, func, expr);
    /* One line per process: the condition may fail for every request from now on. */
    if (!atomic_exchange(&printed, true))
        (void)fprintf(stderr, "defended: %s:%d: %s: %s\n", file, line, func, expr);
    return false;
}
