/* What assertions do when they fail; each in a child, because they abort. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"

/* Runs f in a child; its wait status, and what it wrote to stderr in text. */
static int child_run(void (*f)(void), char *text, size_t text_bytes)
{
    int fds[2], status = 0;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(fds[1], STDERR_FILENO);
        f();
        _exit(0);
    }
    (void)close(fds[1]);
    size_t len = 0;
    ssize_t got;
    while ((got = read(fds[0], text + len, text_bytes - 1 - len)) > 0)
        len += (size_t)got;
    text[len] = '\0';
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void fail_assert(void)
{
    ASSERT_EQ(1 + 1, 3);
}

static void fail_unreachable(void)
{
    UNREACHABLE();
}

static void defend_in_tests(void)
{
    (void)setenv("CLAUDEFS_DEFEND_ABORT", "1", 1);
    (void)DEFEND(1 == 2);
}

static void defend_in_production(void)
{
    (void)unsetenv("CLAUDEFS_DEFEND_ABORT");
    for (int i = 0; i < 3; i++)
        if (DEFEND(1 == 2))
            _exit(7);
    if (!DEFEND(1 == 1))
        _exit(8);
}

static void test_assert_false_aborts_and_names_the_place(void **state)
{
    (void)state;
    char text[4096];
    int status = child_run(fail_assert, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "test_assert.c"));
    assert_non_null(strstr(text, "fail_assert"));
    assert_non_null(strstr(text, "(1 + 1) == (3)"));
    status = child_run(fail_unreachable, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_defend_in_tests_aborts(void **state)
{
    (void)state;
    char text[4096];
    int status = child_run(defend_in_tests, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

#ifndef CLAUDEFS_DCHECK
static void test_defend_in_production_logs_once_and_goes_on(void **state)
{
    (void)state;
    char text[4096];
    int status = child_run(defend_in_production, text, sizeof text);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    const char *first = strstr(text, "defended: ");
    assert_non_null(first);
    assert_null(strstr(first + 1, "defended: "));
}
#else
static void test_defend_in_production_logs_once_and_goes_on(void **state)
{
    (void)state;
    char text[4096];
    int status = child_run(defend_in_production, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT); /* this build aborts */
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assert_false_aborts_and_names_the_place),
        cmocka_unit_test(test_defend_in_tests_aborts),
        cmocka_unit_test(test_defend_in_production_logs_once_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
