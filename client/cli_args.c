/* Options, sub-commands and error sentences. What is not understood is an error, never ignored: a
 * mistyped option of `peer remove` or `fsck` must not run the command without it. */
#include "client/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_error(enum cli_exit code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fflush(stdout);
    fputs("claudefs: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return (int)code;
}

enum cli_exit cli_exit_of(int rc)
{
    switch (rc) {
    case ERR_OK:
        return CLI_OK;
    case ERR_TIMEOUT:
    case ERR_NOT_FOUND:
        return CLI_NO;
    case ERR_AUTH:
    case ERR_ACCESS:
    case ERR_NOT_PERMITTED:
        return CLI_DENIED;
    case ERR_ROLLBACK:
    case ERR_CONFIG:
        return CLI_DIR;
    default:
        return err_class(rc) == ERR_CLASS_CORRUPT ? CLI_DIR : CLI_FAILED;
    }
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static void
list_commands(FILE *out, const char *group, const struct cli_command *commands, size_t count)
{
    fprintf(out, "usage: %s COMMAND [ARGUMENT]...\n\ncommands:\n", group);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "  %-14s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n'%s COMMAND --help' says more about one of them.\n", group);
}

int cli_dispatch(
    const char *group, const struct cli_command *commands, size_t count, int argc, char **argv)
{
    if (argc < 2) {
        list_commands(stderr, group, commands, count);
        return CLI_USAGE;
    }
    if (is_help(argv[1]) || strcmp(argv[1], "help") == 0) {
        if (argc < 3 || is_help(argv[1])) {
            list_commands(stdout, group, commands, count);
            return CLI_OK;
        }
        char help[] = "--help";
        char *words[] = {argv[2], help, NULL};
        for (size_t i = 0; i < count; i++)
            if (strcmp(argv[2], commands[i].name) == 0)
                return commands[i].run(2, words);
        return cli_error(CLI_USAGE, "no help for '%s': there is no such command: see '%s help'",
                         argv[2], group);
    }
    for (size_t i = 0; i < count; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return cli_error(CLI_USAGE, "'%s' is not a command: see '%s help'", argv[1], group);
}

static int usage_error(const struct cli_syntax *s, const char *why, const char *word)
{
    return cli_error(CLI_USAGE, "%s: %s '%s': see 'claudefs %s --help'", s->command, why, word,
                     s->command);
}

static bool uint_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    if (text[0] < '0' || text[0] > '9')
        return false;
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != 0 || value < min || value > max)
        return false;
    *ret = value;
    return true;
}

/* The option that `word` names, exactly or up to its '='. */
static const struct cli_option *find_option(const struct cli_syntax *s, const char *word)
{
    size_t len = strcspn(word, "=");
    for (size_t i = 0; i < s->option_count; i++)
        if (strlen(s->options[i].name) == len && memcmp(s->options[i].name, word, len) == 0)
            return &s->options[i];
    return NULL;
}

/* Takes argv[at] and, if its value is a word of its own, the next; returns the next index, or -1
 * after an error. */
static int take_option(const struct cli_syntax *s, int argc, char **argv, int at)
{
    const struct cli_option *o = find_option(s, argv[at]);
    if (!o) {
        (void)usage_error(s, "unknown option", argv[at]);
        return -1;
    }
    const char *value = strchr(argv[at], '=');
    if (o->kind == CLI_FLAG) {
        if (value) {
            (void)usage_error(s, "takes no value:", o->name);
            return -1;
        }
        *(bool *)o->ret = true;
        return at + 1;
    }
    if (value) {
        value++;
    } else if (at + 1 < argc) {
        value = argv[++at];
    } else {
        (void)usage_error(s, "value missing after", o->name);
        return -1;
    }
    if (o->kind == CLI_TEXT || o->kind == CLI_SITE_DIR) {
        *(const char **)o->ret = value;
        return at + 1;
    }
    if (!uint_parse(value, o->min, o->max, (uint64_t *)o->ret)) {
        (void)cli_error(CLI_USAGE,
                        "%s: %s takes a number from %llu to %llu, not '%s': see 'claudefs %s "
                        "--help'",
                        s->command, o->name, (unsigned long long)o->min, (unsigned long long)o->max,
                        value, s->command);
        return -1;
    }
    return at + 1;
}

/* What needs a site has one. */
static bool find_dirs(const struct cli_syntax *s)
{
    for (size_t i = 0; i < s->option_count; i++) {
        const char **dir = s->options[i].ret;
        if (s->options[i].kind == CLI_SITE_DIR && (*dir = cli_dir(*dir, s->command)) == NULL)
            return false;
    }
    return true;
}

int cli_parse(const struct cli_syntax *s, int argc, char **argv, int *ret_exit)
{
    int words = 0;
    bool options = true;
    *ret_exit = CLI_USAGE;
    for (int at = 1; at < argc;) {
        if (options && is_help(argv[at])) {
            fputs(s->usage, stdout);
            *ret_exit = CLI_OK;
            return -1;
        }
        if (options && strcmp(argv[at], "--") == 0) {
            options = false;
            at++;
        } else if (options && argv[at][0] == '-' && argv[at][1] != 0) {
            at = take_option(s, argc, argv, at);
            if (at < 0)
                return -1;
        } else if (words == s->words_max) {
            (void)usage_error(s, "too many words:", argv[at]);
            return -1;
        } else {
            s->words[words++] = argv[at++];
        }
    }
    if (words < s->words_min) {
        fputs(s->usage, stderr);
        *ret_exit = cli_error(CLI_USAGE, "%s: a word is missing: see the usage above", s->command);
        return -1;
    }
    return find_dirs(s) ? words : -1;
}

const char *cli_dir(const char *given, const char *command)
{
    const char *dir = given ? given : getenv("CLAUDEFS_DIR");
    if (!dir || dir[0] == 0) {
        (void)cli_error(CLI_USAGE, "%s: no site given: add --dir DIR or set CLAUDEFS_DIR", command);
        return NULL;
    }
    return dir;
}
