/* claudefs status, wait and log-level. */
#include "client/cli.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WATCH_MS 1000
#define WAIT_SLACK_MS 10000u /* what the daemon may take beyond the time-out it was given */

/* The part that speaks to other sites answers for itself; what it says joins the rest. Without it
 * (it is starting, say) the rest is still worth showing. */
static void add_wan_status(const char *dir, json_t *status)
{
    struct cli_answer wan;
    if (cli_ask(dir, "status", json_pack("{s:s}", "verb", "wan.status"), CLI_ANSWER_MS,
                CLI_ASK_QUIET, &wan) != CLI_OK)
        return;
    if (json_is_object(wan.json))
        (void)json_object_update_missing(status, wan.json); /* fails without memory only */
    cli_answer_deinit(&wan);
}

/* For people: what one looks for. All of it is in the JSON. */
static void print_for_people(json_t *status)
{
    static const char *const shard_columns[] = {"id",     "role",    "first",         "durable",
                                                "outbox", "waiting", "journal_bytes", NULL};
    static const char *const peer_columns[] = {
        "name",      "state",         "paused",          "lag_in_s", "in_ops_to_go",
        "lag_out_s", "out_ops_to_go", "out_bytes_to_go", "rtt_ms",   "error",
        NULL};
    static const char *const left_out[] = {"wan_site", "wan_site_id", "wan_certificate",
                                           "members",  "shards",      "peers"};
    json_t *rest = json_copy(status), *peers = json_object_get(status, "peers");
    for (size_t i = 0; i < ARRAY_COUNT(left_out); i++)
        (void)json_object_del(rest, left_out[i]); /* it may not be there */
    cli_print_object(rest);
    json_decref(rest);
    printf("shards\n");
    cli_print_table(json_object_get(status, "shards"), shard_columns);
    if (peers) {
        printf("other sites\n");
        cli_print_table(peers, peer_columns);
    }
}

static int status_print(const char *dir, bool json)
{
    json_t *answer = NULL;
    int code =
        cli_request(dir, "status", json_pack("{s:s}", "verb", "status"), CLI_ANSWER_MS, &answer);
    if (code != CLI_OK)
        return code;
    add_wan_status(dir, answer);
    if (json)
        cli_print_json(answer);
    else
        print_for_people(answer);
    json_decref(answer);
    return code;
}

int cmd_status(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs status [--watch] [--json] --dir DIR\n"
        "\n"
        "Says how the site is: shards, space, mounts, and for each other site how far behind it\n"
        "is. --watch prints it again every second until interrupted, also over a restart of the\n"
        "daemon.\n";
    const char *dir = NULL;
    bool watch = false, json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_TEXT, &dir, 0, 0},
        {"--watch", CLI_FLAG, &watch, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"status", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    dir = cli_dir(dir, "status");
    if (!dir)
        return CLI_USAGE;
    if (!watch)
        return status_print(dir, json);
    do {
        if (!json && isatty(STDOUT_FILENO))
            fputs("\033[H\033[2J", stdout);
        code = status_print(dir, json);
        fflush(stdout);
        (void)poll(NULL, 0, WATCH_MS); /* a time-out is the point */
    } while (!ferror(stdout) && (code == CLI_OK || code == CLI_UNREACHABLE));
    return code;
}

/* What is missing, a line each. The daemon names it in "missing", as sentences or as objects. */
static void print_missing(const json_t *answer)
{
    const json_t *missing = json_object_get(answer, "missing"), *one;
    size_t idx;
    json_array_foreach (missing, idx, one) {
        char *text = cli_value_text("missing", one);
        fprintf(stderr, "  %s\n", text);
        mem_free(text);
    }
}

int cmd_wait(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs wait [--timeout S] [--json] --dir DIR\n"
        "\n"
        "Returns when every reachable site has applied all that happened here up to now, and this\n"
        "site all that happened there. Exit status 1 after S seconds (60 unless told), with what\n"
        "is missing.\n";
    const char *dir = NULL;
    uint64_t timeout_s = 60;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_TEXT, &dir, 0, 0},
        {"--timeout", CLI_UINT, &timeout_s, 0, 1000000},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"wait", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    dir = cli_dir(dir, "wait");
    if (!dir)
        return CLI_USAGE;
    struct cli_answer answer;
    code = cli_ask(dir, "wait",
                   json_pack("{s:s,s:I}", "verb", "wait", "timeout_s", (json_int_t)timeout_s),
                   (uint32_t)timeout_s * 1000u + WAIT_SLACK_MS, CLI_ASK_LOUD, &answer);
    if (code != CLI_OK)
        return code;
    const json_t *in_step = json_object_get(answer.json, "in_step");
    if (json && answer.json)
        cli_print_json(answer.json);
    if (answer.rc != 0) {
        code = cli_error(cli_exit_of(answer.rc), "wait: %s", answer.sentence);
    } else if (json_is_false(in_step)) {
        code = cli_error(CLI_NO, "wait: not in step after %llu s: still missing:",
                         (unsigned long long)timeout_s);
        print_missing(answer.json);
    }
    cli_answer_deinit(&answer);
    return code;
}

int cmd_log_level(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs log-level LEVELS --dir DIR\n"
        "\n"
        "Changes what the running daemon logs. LEVELS is error, warn, info or debug, for all its\n"
        "parts or for each: 'wan=debug,site=warn'. Parts: base, journal, data, site, wan.\n";
    const char *words[1], *dir = NULL;
    const struct cli_option options[] = {{"--dir", CLI_TEXT, &dir, 0, 0}};
    const struct cli_syntax syntax = {"log-level", usage, options, ARRAY_COUNT(options),
                                      words,       1,     1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    dir = cli_dir(dir, "log-level");
    if (!dir)
        return CLI_USAGE;
    json_t *answer = NULL;
    code = cli_request(dir, "log-level", json_pack("{s:s,s:s}", "verb", "log", "levels", words[0]),
                       CLI_ANSWER_MS, &answer);
    json_decref(answer);
    return code;
}
