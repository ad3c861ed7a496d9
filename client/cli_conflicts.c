/* claudefs conflicts: what the rules decided that somebody may want to decide otherwise. */
#include "client/cli.h"

#include <stdio.h>
#include <string.h>

#include "client/text_diff.h"

static int list(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs conflicts [list] [--all] [--json] --dir DIR\n"
        "       claudefs conflicts show ID [--json] --dir DIR\n"
        "       claudefs conflicts resolve ID --keep mine|theirs|both|SITE [--json] --dir DIR\n"
        "       claudefs conflicts undo ID [--json] --dir DIR\n"
        "\n"
        "Lists the conflicts that are not resolved yet (--all: those too that are).\n";
    static const char *const columns[] = {"id",     "time",  "what",     "path",
                                          "winner", "loser", "resolved", NULL};
    const char *dir = NULL;
    bool json = false, all = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--all", CLI_FLAG, &all, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"conflicts", usage, options, ARRAY_COUNT(options),
                                      NULL,        0,     0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
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

/* The two sides, one below the other: who, where, when, how much. */
static void print_sides(json_t *sides)
{
    static const char *const columns[] = {"side", "site", "time",    "kind",
                                          "size", "path", "version", NULL};
    json_t *side;
    size_t idx;
    json_array_foreach (sides, idx, side) {
        const char *role = json_string_value(json_object_get(side, "role"));
        bool mine = json_is_true(json_object_get(side, "mine"));
        char *text = mem_printf("%s%s", role ? role : "", mine ? ", mine" : "");
        (void)json_object_set_new(side, "side", json_string(text)); /* no memory only */
        mem_free(text);
    }
    printf("sides\n");
    cli_print_table(sides, columns);
}

static struct slice side_text(const json_t *side, bool *ret_is_text)
{
    const json_t *text = json_object_get(side, "text");
    *ret_is_text = json_is_string(text);
    return slice_of(json_string_value(text), json_string_length(text));
}

/* What a terminal would obey instead of show becomes '?': contents come from anybody. */
static void print_plain(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        putchar((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : c);
    }
}

static void print_diff(const json_t *sides)
{
    const json_t *kept = json_array_get(sides, 0), *other = json_array_get(sides, 1);
    bool is_text[2];
    struct slice a = side_text(kept, &is_text[0]), b = side_text(other, &is_text[1]);
    struct buf diff = {0};
    if (json_is_null(json_object_get(kept, "path")) || json_is_null(json_object_get(other, "path")))
        return;
    if (is_text[0] && is_text[1]) {
        text_diff(a, b, &diff);
        printf("difference (- kept, + other)\n");
        print_plain(buf_slice(&diff));
        if (diff.len == 0)
            printf("  none\n");
    } else {
        printf("no difference is shown: a side is not text, is larger than 256 KiB, or its data\n"
               "cannot be had now; on a mount compare the two paths with cmp or diff\n");
    }
    buf_deinit(&diff);
}

static void print_conflict(json_t *conflict)
{
    if (!json_object_get(conflict, "id"))
        return; /* there is nothing to be said of it */
    json_t *sides = json_incref(json_object_get(conflict, "sides"));
    (void)json_object_del(conflict, "sides"); /* it may not be there */
    cli_print_object(conflict);
    if (json_array_size(sides) == 2) {
        print_sides(sides);
        print_diff(sides);
    }
    json_decref(sides);
}

/* A verb on the conflict that the word names. */
static int on_conflict(
    const struct cli_syntax *syntax, const char *verb, const char *keep, bool json, const char *dir)
{
    return cli_show(dir, syntax->command,
                    json_pack("{s:s,s:s,s:s*}", "verb", verb, "id", syntax->words[0], "keep", keep),
                    CLI_ANSWER_MS, json, print_conflict);
}

static int
plain_verb(const char *command, const char *verb, const char *usage, int argc, char **argv)
{
    const char *words[1], *dir = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {command, usage, options, ARRAY_COUNT(options), words, 1, 1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    return on_conflict(&syntax, verb, NULL, json, dir);
}

static int show(int argc, char **argv)
{
    return plain_verb("conflicts show", "conflicts.show",
                      "usage: claudefs conflicts show ID [--json] --dir DIR\n"
                      "\n"
                      "Explains one conflict: the paths, and both sides: who, where, when, how\n"
                      "large, and the difference where both are text.\n",
                      argc, argv);
}

static int undo(int argc, char **argv)
{
    return plain_verb("conflicts undo", "conflicts.undo",
                      "usage: claudefs conflicts undo ID [--json] --dir DIR\n"
                      "\n"
                      "Takes back what 'conflicts resolve' did at this site: the side that went\n"
                      "comes back under its name, and the conflict is open again. Works while\n"
                      "former versions are kept (claudefs site keep-versions).\n",
                      argc, argv);
}

static int resolve(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs conflicts resolve ID --keep mine|theirs|both|SITE [--json] --dir DIR\n"
        "\n"
        "Ends a conflict: keeps this site's side, the other site's side, that of the site with\n"
        "this name, or both as they are. 'conflicts undo' takes it back.\n";
    const char *words[1], *dir = NULL, *keep = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
        {"--keep", CLI_TEXT, &keep, 0, 0},
    };
    const struct cli_syntax syntax = {
        "conflicts resolve", usage, options, ARRAY_COUNT(options), words, 1, 1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    if (!keep || !keep[0])
        return cli_error(CLI_USAGE, "conflicts resolve: which side is to stay: add --keep mine, "
                                    "theirs, both or the name of a site");
    return on_conflict(&syntax, "conflicts.resolve", keep, json, dir);
}

int cmd_conflicts(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"list", list, "what is not resolved yet"},
        {"show", show, "explain one"},
        {"resolve", resolve, "keep one side, or both"},
        {"undo", undo, "take a resolution back"},
    };
    /* `claudefs conflicts` alone, or with options only, is `conflicts list`. */
    if (argc < 2 || argv[1][0] == '-')
        return list(argc, argv);
    return cli_dispatch("claudefs conflicts", commands, ARRAY_COUNT(commands), argc, argv);
}
