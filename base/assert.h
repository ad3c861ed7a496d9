/* Assertions. ASSERT stays on in every build; DCHECK is for costly checks in debug and simulation
 * builds (CLAUDEFS_DCHECK); DEFEND marks "cannot happen, but degrade safely": it evaluates to the
 * condition, aborts in tests, logs once in production. Corrupt input is an error, never an
 * assertion; a broken invariant is an assertion, never an error. */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include "base/util.h"

_Noreturn void assert_fail(const char *file, int line, const char *func, const char *expr);
bool assert_defend(const char *file, int line, const char *func, const char *expr);

#define ASSERT(cond)                                                                               \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            assert_fail(__FILE__, __LINE__, __func__, #cond);                                      \
    } while (0)
#define ASSERT_EQ(a, b) ASSERT((a) == (b))
#ifdef CLAUDEFS_DCHECK
#define DCHECK(cond) ASSERT(cond)
#else
#define DCHECK(cond)                                                                               \
    do {                                                                                           \
        if (0)                                                                                     \
            (void)(cond);                                                                          \
    } while (0)
#endif
#define DEFEND(cond) ((cond) || assert_defend(__FILE__, __LINE__, __func__, #cond))
#define UNREACHABLE() assert_fail(__FILE__, __LINE__, __func__, "unreachable")

#endif
