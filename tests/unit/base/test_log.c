/* The log: levels and the form of a line, captured from stderr. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"

static FILE *captured;
static int stderr_saved;

static void capture_start(void)
{
    captured = tmpfile();
    assert_non_null(captured);
    stderr_saved = dup(STDERR_FILENO);
    (void)dup2(fileno(captured), STDERR_FILENO);
}

/* What was written since; owned by the caller. */
static char *capture_end(void)
{
    (void)dup2(stderr_saved, STDERR_FILENO);
    (void)close(stderr_saved);
    long len = 0;
    assert_int_equal(fseek(captured, 0, SEEK_END), 0);
    len = ftell(captured);
    assert_true(len >= 0);
    rewind(captured);
    char *text = mem_calloc((size_t)len + 1, 1);
    assert_int_equal(fread(text, 1, (size_t)len, captured), len);
    (void)fclose(captured);
    return text;
}

static void test_log_line_has_the_documented_form(void **state)
{
    (void)state;
    regex_t form;
    capture_start();
    log_warn(LOG_SITE, "shard_lost", "shard=%d peer=%s", 3, "beta");
    char *text = capture_end();
    assert_int_equal(regcomp(&form,
                             "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "
                             "warn site shard_lost shard=3 peer=beta\n$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    assert_int_equal(regexec(&form, text, 0, NULL, 0), 0);
    regfree(&form);
    mem_free(text);
}

static int evaluated(int *count)
{
    return ++*count;
}

static void test_log_below_the_level_is_silent_and_free(void **state)
{
    (void)state;
    int count = 0;
    log_level_set(LOG_WAN, LOG_WARN);
    capture_start();
    log_info(LOG_WAN, "event", "n=%d", evaluated(&count));
    log_debug(LOG_SITE, "event", "n=%d", evaluated(&count));
    log_error(LOG_WAN, "event", "n=%d", evaluated(&count));
    char *text = capture_end();
    assert_int_equal(count, 1);
    assert_non_null(strstr(text, " error wan event n=1\n"));
    mem_free(text);
    log_level_set(LOG_WAN, LOG_INFO);
}

/* A file name with a line break must not forge a line. */
static void test_log_control_characters_are_replaced(void **state)
{
    (void)state;
    capture_start();
    log_info(LOG_SITE, "name", "name=%s", "a\nb\033[31m");
    char *text = capture_end();
    assert_non_null(strstr(text, "name=a?b?[31m\n"));
    mem_free(text);
}

static void test_log_long_line_is_cut_with_a_line_break(void **state)
{
    (void)state;
    char *longer = mem_calloc(10001, 1);
    memset(longer, 'x', 10000);
    capture_start();
    log_info(LOG_SITE, "event", "%s", longer);
    log_info(LOG_SITE, "second", "%s", "");
    char *text = capture_end();
    const char *line_end = strchr(text, '\n');
    assert_non_null(line_end);
    assert_in_range(line_end - text, 1000, 4096);
    assert_non_null(strstr(line_end, "info site second\n"));
    mem_free(text);
    mem_free(longer);
}

static void levels_reset(void)
{
    assert_int_equal(log_levels_parse("info"), 0);
}

static void test_log_levels_parse_good_forms(void **state)
{
    (void)state;
    assert_int_equal(log_levels_parse("debug"), 0);
    for (size_t i = 0; i < LOG_AREA_COUNT; i++)
        assert_int_equal(log_levels[i], LOG_DEBUG);
    assert_int_equal(log_levels_parse("warn,wan=debug,site=error"), 0);
    assert_int_equal(log_levels[LOG_WAN], LOG_DEBUG);
    assert_int_equal(log_levels[LOG_SITE], LOG_ERROR);
    assert_int_equal(log_levels[LOG_BASE], LOG_WARN);
    levels_reset();
}

static void test_log_levels_parse_bad_form_changes_nothing(void **state)
{
    (void)state;
    const char *bad[] = {"",       "loud",      "debug,",     ",debug",         "wan",
                         "wan=",   "=debug",    "moon=debug", "debug,wan=loud", "wan=debug=info",
                         "debugx", "WAN=debug", " debug"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(log_levels_parse(bad[i]), ERR_INVALID);
        for (size_t j = 0; j < LOG_AREA_COUNT; j++)
            assert_int_equal(log_levels[j], LOG_INFO);
    }
}

static void *writer(void *arg)
{
    for (int i = 0; i < 200; i++) {
        log_info(LOG_DATA, "line", "thread=%s end", (const char *)arg);
        log_level_set(LOG_SIM, i % 2 == 0 ? LOG_INFO : LOG_DEBUG);
    }
    return NULL;
}

static void test_log_lines_of_threads_do_not_mix(void **state)
{
    (void)state;
    pthread_t threads[4];
    static char names[4][2] = {"a", "b", "c", "d"};
    capture_start();
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, writer, names[i]), 0);
    for (size_t i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    char *text = capture_end(), *at = text;
    int lines = 0;
    for (char *line; (line = strsep(&at, "\n")) != NULL && line[0] != '\0'; lines++) {
        assert_int_equal(line[4], '-');
        assert_string_equal(line + strlen(line) - 4, " end");
    }
    assert_int_equal(lines, 800);
    mem_free(text);
    levels_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_line_has_the_documented_form),
        cmocka_unit_test(test_log_below_the_level_is_silent_and_free),
        cmocka_unit_test(test_log_control_characters_are_replaced),
        cmocka_unit_test(test_log_long_line_is_cut_with_a_line_break),
        cmocka_unit_test(test_log_levels_parse_good_forms),
        cmocka_unit_test(test_log_levels_parse_bad_form_changes_nothing),
        cmocka_unit_test(test_log_lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
