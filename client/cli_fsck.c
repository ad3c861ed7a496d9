/* claudefs fsck: the running daemon checks itself; when none runs, this process opens the directory
 * and does the same. */
#include "client/cli.h"

#include <stdio.h>

#include "site/node.h"

struct offline {
    json_t *problems; /* NULL: printed as they are found */
    size_t count;
};

static void problem_found(void *ctx, const char *what)
{
    struct offline *o = ctx;
    o->count++;
    if (o->problems)
        (void)json_array_append_new(o->problems, json_string(what)); /* not UTF-8: counted only */
    else
        printf("%s\n", what);
}

static int finish(bool clean, size_t count, bool repair, bool json)
{
    if (json)
        return clean ? CLI_OK : CLI_NO;
    if (clean)
        printf("clean\n");
    else if (repair)
        printf("%zu problem%s left\n", count, count == 1 ? "" : "s");
    else
        printf("%zu problem%s: 'claudefs fsck --repair' mends what can be mended\n", count,
               count == 1 ? "" : "s");
    return clean ? CLI_OK : CLI_NO;
}

static int check_offline(const char *dir, bool quick, bool repair, bool json)
{
    struct offline o = {.problems = json ? json_array() : NULL};
    struct err_detail d = {{0}};
    int rc = node_fsck_offline(dir, quick, problem_found, &o, &d);
    int code;
    if (rc == ERR_CORRUPT && o.count > 0)
        rc = 0; /* the problems say it all */
    if (rc != 0) {
        code = cli_error(rc == ERR_NOT_FOUND ? CLI_DIR : cli_exit_of(rc), "fsck: %s",
                         d.text[0] ? d.text : err_text(rc));
    } else {
        if (json) {
            json_t *out = json_pack("{s:b,s:b,s:O}", "clean", o.count == 0, "online", 0, "problems",
                                    o.problems);
            cli_print_json(out);
            json_decref(out);
        }
        code = finish(o.count == 0, o.count, repair, json);
    }
    json_decref(o.problems);
    return code;
}

static void print_contents(json_t *answer)
{
    json_t *c = json_object_get(answer, "contents");
    json_int_t elsewhere = json_integer_value(json_object_get(c, "elsewhere"));
    json_int_t repaired = json_integer_value(json_object_get(c, "repaired"));
    printf("%lld names, %lld chunks, %lld bytes of them read\n",
           (long long)json_integer_value(json_object_get(answer, "names")),
           (long long)json_integer_value(json_object_get(c, "chunks")),
           (long long)json_integer_value(json_object_get(c, "bytes")));
    if (elsewhere > 0)
        printf("%lld chunks are not here: other sites are asked for them when they are read\n",
               (long long)elsewhere);
    if (repaired > 0)
        printf("%lld damaged chunks were fetched from another site\n", (long long)repaired);
}

static int print_online(json_t *answer, bool repair, bool json)
{
    json_t *problems = cli_array_of(answer, "problems"), *one;
    bool clean = json_is_true(json_object_get(answer, "clean"));
    size_t idx;
    if (json) {
        cli_print_json(answer);
    } else {
        json_array_foreach (problems, idx, one) {
            char *text = cli_value_text("problem", one);
            printf("%s\n", text);
            mem_free(text);
        }
        print_contents(answer);
    }
    return finish(clean, json_array_size(problems), repair, json);
}

int cmd_fsck(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs fsck [--quick] [--repair] [--json] --dir DIR\n"
        "\n"
        "Checks journals, state, names, contents and chunks of the site against each other, with\n"
        "the daemon running or not. Exit status 0 when clean, 1 when not, with each problem on a\n"
        "line. Every chunk that is here is read and checked against its id; --quick only asks\n"
        "whether it is here. --repair fetches damaged chunks from other sites; the daemon must\n"
        "run.\n";
    const char *dir = NULL;
    bool quick = false, repair = false, json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--quick", CLI_FLAG, &quick, 0, 0},
        {"--repair", CLI_FLAG, &repair, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"fsck", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    struct cli_answer answer;
    code = cli_ask(
        dir, "fsck",
        json_pack("{s:s,s:b,s:b}", "verb", "fsck", "repair", (int)repair, "quick", (int)quick), 0,
        CLI_ASK_QUIET, &answer);
    if (code == CLI_UNREACHABLE)
        return check_offline(dir, quick, repair, json);
    if (code != CLI_OK)
        return code;
    if (answer.rc != 0)
        code = cli_error(cli_exit_of(answer.rc), "fsck: %s", answer.sentence);
    else
        code = print_online(answer.json, repair, json);
    cli_answer_deinit(&answer);
    return code;
}
