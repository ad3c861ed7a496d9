/* Options and words: what is not understood stops the command before it does anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "client/cli.h"

struct got {
    const char *words[2];
    const char *dir;
    bool json;
    uint64_t count;
    int exit;
};

/* Parses "cmd" and the given words, up to a NULL. */
static int parse(struct got *g, const char *const *given)
{
    *g = (struct got){.count = 7, .exit = -1};
    const struct cli_option options[] = {
        {"--dir", CLI_TEXT, &g->dir, 0, 0},
        {"--json", CLI_FLAG, &g->json, 0, 0},
        {"--count", CLI_UINT, &g->count, 1, 10},
    };
    const struct cli_syntax syntax = {
        "cmd", "usage: cmd\n", options, ARRAY_COUNT(options), g->words, 1, 2};
    char *argv[16] = {mem_strdup("cmd")};
    int argc = 1;
    for (; given[argc - 1]; argc++)
        argv[argc] = mem_strdup(given[argc - 1]);
    int words = cli_parse(&syntax, argc, argv, &g->exit);
    g->words[0] = words > 0 ? g->words[0] : NULL;
    /* Words and values point into argv: keep those the tests look at. */
    static char kept[3][64];
    const char **looked[] = {&g->words[0], &g->words[1], &g->dir};
    for (size_t i = 0; i < ARRAY_COUNT(looked); i++)
        if (*looked[i]) {
            (void)snprintf(kept[i], sizeof(kept[i]), "%s", *looked[i]);
            *looked[i] = kept[i];
        }
    for (int i = 0; i < argc; i++)
        mem_free(argv[i]);
    return words;
}
#define PARSE(g, ...) parse(g, (const char *const[]){__VA_ARGS__, NULL})

static void test_parse_takes_options_anywhere(void **state)
{
    (void)state;
    struct got g;
    assert_int_equal(PARSE(&g, "--dir", "/x", "one", "--json", "two", "--count=10"), 2);
    assert_string_equal(g.words[0], "one");
    assert_string_equal(g.words[1], "two");
    assert_string_equal(g.dir, "/x");
    assert_true(g.json);
    assert_int_equal(g.count, 10);
}

static void test_parse_leaves_defaults(void **state)
{
    (void)state;
    struct got g;
    assert_int_equal(PARSE(&g, "one"), 1);
    assert_null(g.dir);
    assert_false(g.json);
    assert_int_equal(g.count, 7);
}

static void test_parse_two_dashes_end_options(void **state)
{
    (void)state;
    struct got g;
    assert_int_equal(PARSE(&g, "--", "--json", "-x"), 2);
    assert_string_equal(g.words[0], "--json");
    assert_false(g.json);
    assert_int_equal(PARSE(&g, "-"), 1); /* a lone dash is a word */
}

static void test_parse_refuses_what_it_does_not_know(void **state)
{
    (void)state;
    struct got g;
    static const char *const bad[][4] = {
        {"one", "--jso", NULL},
        {"one", "--jsonx", NULL},
        {"one", "-j", NULL},
        {"one", "--json=yes", NULL},
        {"one", "--dir", NULL},
        {"one", "two", "three"},
        {"--json", NULL},
        {"one", "--count", "0", NULL},
        {"one", "--count", "11"},
        {"one", "--count", "1x", NULL},
        {"one", "--count", "-1", NULL},
        {"one", "--count", ""},
        {"one", "--count= 3", NULL},
        {"one", "--count=99999999999999999999", NULL},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        const char *given[5] = {bad[i][0], bad[i][1], bad[i][2], bad[i][3], NULL};
        assert_int_equal(parse(&g, given), -1);
        assert_int_equal(g.exit, CLI_USAGE);
    }
}

static void test_parse_help_is_no_error(void **state)
{
    (void)state;
    struct got g;
    assert_int_equal(PARSE(&g, "one", "--help"), -1);
    assert_int_equal(g.exit, CLI_OK);
    assert_int_equal(PARSE(&g, "-h"), -1);
    assert_int_equal(g.exit, CLI_OK);
}

static int ran, ran_argc;
static int run_it(int argc, char **argv)
{
    (void)argv;
    ran++;
    ran_argc = argc;
    return 42;
}

static void test_dispatch_finds_the_command(void **state)
{
    (void)state;
    const struct cli_command commands[] = {{"run", run_it, "runs"}};
    char name[] = "claudefs", run[] = "run", other[] = "runs", word[] = "w", help[] = "help";
    ran = 0;
    assert_int_equal(cli_dispatch("claudefs", commands, 1, 3, (char *[]){name, run, word}), 42);
    assert_int_equal(ran, 1);
    assert_int_equal(ran_argc, 2);
    assert_int_equal(cli_dispatch("claudefs", commands, 1, 2, (char *[]){name, other}), CLI_USAGE);
    assert_int_equal(cli_dispatch("claudefs", commands, 1, 1, (char *[]){name}), CLI_USAGE);
    assert_int_equal(cli_dispatch("claudefs", commands, 1, 2, (char *[]){name, help}), CLI_OK);
    assert_int_equal(cli_dispatch("claudefs", commands, 1, 3, (char *[]){name, help, other}),
                     CLI_USAGE);
    assert_int_equal(ran, 1);
    assert_int_equal(cli_dispatch("claudefs", commands, 1, 3, (char *[]){name, help, run}), 42);
    assert_int_equal(ran, 2);
}

static void test_dir_comes_from_option_then_environment(void **state)
{
    (void)state;
    assert_int_equal(setenv("CLAUDEFS_DIR", "/env", 1), 0);
    assert_string_equal(cli_dir("/given", "cmd"), "/given");
    assert_string_equal(cli_dir(NULL, "cmd"), "/env");
    assert_int_equal(unsetenv("CLAUDEFS_DIR"), 0);
    assert_null(cli_dir(NULL, "cmd"));
    assert_null(cli_dir("", "cmd"));
}

/* What a command gets that takes a site's directory; NULL: it got an error. */
static const char *site_dir(int argc, char **argv)
{
    const char *dir = NULL;
    int code = -1;
    const struct cli_option options[] = {{"--dir", CLI_SITE_DIR, &dir, 0, 0}};
    const struct cli_syntax syntax = {"cmd", "usage: cmd\n", options, 1, NULL, 0, 0};
    if (cli_parse(&syntax, argc, argv, &code) == 0)
        return dir;
    assert_int_equal(code, CLI_USAGE);
    return NULL;
}

static void test_parse_finds_the_site(void **state)
{
    (void)state;
    char cmd[] = "cmd", option[] = "--dir", given[] = "/given";
    char *argv[] = {cmd, option, given, NULL};
    assert_int_equal(setenv("CLAUDEFS_DIR", "/env", 1), 0);
    assert_string_equal(site_dir(3, argv), "/given");
    assert_string_equal(site_dir(1, argv), "/env");
    assert_int_equal(unsetenv("CLAUDEFS_DIR"), 0);
    assert_string_equal(site_dir(3, argv), "/given");
    assert_null(site_dir(1, argv));
}

static void test_exit_codes_follow_the_error(void **state)
{
    (void)state;
    assert_int_equal(cli_exit_of(0), CLI_OK);
    assert_int_equal(cli_exit_of(ERR_TIMEOUT), CLI_NO);
    assert_int_equal(cli_exit_of(ERR_AUTH), CLI_DENIED);
    assert_int_equal(cli_exit_of(ERR_CORRUPT), CLI_DIR);
    assert_int_equal(cli_exit_of(ERR_ROLLBACK), CLI_DIR);
    assert_int_equal(cli_exit_of(ERR_NO_SPACE), CLI_FAILED);
    assert_int_equal(cli_exit_of(-100000), CLI_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_takes_options_anywhere),
        cmocka_unit_test(test_parse_leaves_defaults),
        cmocka_unit_test(test_parse_two_dashes_end_options),
        cmocka_unit_test(test_parse_refuses_what_it_does_not_know),
        cmocka_unit_test(test_parse_help_is_no_error),
        cmocka_unit_test(test_dispatch_finds_the_command),
        cmocka_unit_test(test_dir_comes_from_option_then_environment),
        cmocka_unit_test(test_parse_finds_the_site),
        cmocka_unit_test(test_exit_codes_follow_the_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
