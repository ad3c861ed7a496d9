/* claudefs conflicts: what the rules decided that somebody may want to decide otherwise. */
#include "client/cli.h"

#include <stdio.h>
#include <string.h>

static int list(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs conflicts [list] [--all] [--json] --dir DIR\n"
        "       claudefs conflicts show ID [--json] --dir DIR\n"
        "       claudefs conflicts resolve ID --keep mine|theirs|both [--json] --dir DIR\n"
        "\n"
        "Lists the conflicts that are not resolved yet (--all: those too that are).\n";
    static const char *const columns[] = {"id",     "time",  "what",     "path",
                                          "winner", "loser", "resolved", NULL};
    const char *dir = NULL;
    bool json = false, all = false;
    const struct cli_option options[] = {
        {"--dir", CLI_TEXT, &dir, 0, 0},
        {"--all", CLI_FLAG, &all, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"conflicts", usage, options, ARRAY_COUNT(options),
                                      NULL,        0,     0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    dir = cli_dir(dir, "conflicts");
    if (!dir)
        return CLI_USAGE;
    json_t *answer = NULL;
    code = cli_request(dir, "conflicts", json_pack("{s:s}", "verb", "conflicts.list"),
                       CLI_ANSWER_MS, &answer);
    if (code != CLI_OK)
        return code;
    json_t *found = cli_array_of(answer, "conflicts"), *one;
    json_t *open = json_array();
    size_t idx;
    json_array_foreach (found, idx, one) {
        if (all || !json_is_true(json_object_get(one, "resolved")))
            (void)json_array_append(open, one); /* fails without memory only */
    }
    if (json) {
        json_t *out = json_pack("{s:O}", "conflicts", open);
        cli_print_json(out);
        json_decref(out);
    } else {
        cli_print_table(open, columns);
    }
    json_decref(open);
    json_decref(answer);
    return CLI_OK;
}

static int on_conflict(const char *command, const char *usage, bool resolve, int argc, char **argv)
{
    const char *words[1], *dir = NULL, *keep = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_TEXT, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
        {"--keep", CLI_TEXT, &keep, 0, 0},
    };
    const struct cli_syntax syntax = {
        command, usage, options, resolve ? ARRAY_COUNT(options) : ARRAY_COUNT(options) - 1,
        words,   1,     1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    if (resolve && (!keep || (strcmp(keep, "mine") != 0 && strcmp(keep, "theirs") != 0 &&
                              strcmp(keep, "both") != 0)))
        return cli_error(CLI_USAGE, "%s: which side is to stay: add --keep mine, theirs or both",
                         command);
    dir = cli_dir(dir, command);
    if (!dir)
        return CLI_USAGE;
    json_t *request = resolve ? json_pack("{s:s,s:s,s:s}", "verb", "conflicts.resolve", "id",
                                          words[0], "keep", keep)
                              : json_pack("{s:s,s:s}", "verb", "conflicts.show", "id", words[0]);
    json_t *answer = NULL;
    code = cli_request(dir, command, request, CLI_ANSWER_MS, &answer);
    if (code != CLI_OK)
        return code;
    if (json)
        cli_print_json(answer);
    else if (!resolve)
        cli_print_object(answer);
    json_decref(answer);
    return CLI_OK;
}

static int show(int argc, char **argv)
{
    return on_conflict("conflicts show",
                       "usage: claudefs conflicts show ID [--json] --dir DIR\n"
                       "\n"
                       "Explains one conflict: the paths, the sites, when, and what became of each "
                       "side.\n",
                       false, argc, argv);
}

static int resolve(int argc, char **argv)
{
    return on_conflict(
        "conflicts resolve",
        "usage: claudefs conflicts resolve ID --keep mine|theirs|both [--json] --dir "
        "DIR\n"
        "\n"
        "Ends a conflict: keeps this site's side, the other site's side, or both as "
        "they are.\n",
        true, argc, argv);
}

int cmd_conflicts(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"list", list, "what is not resolved yet"},
        {"show", show, "explain one"},
        {"resolve", resolve, "keep one side, or both"},
    };
    /* `claudefs conflicts` alone, or with options only, is `conflicts list`. */
    if (argc < 2 || argv[1][0] == '-')
        return list(argc, argv);
    return cli_dispatch("claudefs conflicts", commands, ARRAY_COUNT(commands), argc, argv);
}
