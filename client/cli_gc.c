/* claudefs gc: a garbage pass now, and what it gave back. The daemon does it; this asks, shows how
 * far it is, and says what could not go yet. */
#include "client/cli.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS 250

static json_int_t number_of(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* "64.0 MiB"; owned by the caller. */
static char *size_of(const json_t *o, const char *key)
{
    return cli_value_text(key, json_object_get(o, key));
}

static void print_kept(const json_t *r)
{
    const json_t *site;
    size_t idx;
    char *versions = size_of(r, "versions_bytes"), *recent = size_of(r, "recent_bytes");
    if (number_of(r, "versions_bytes") > 0)
        printf("kept: %s before compression, for former versions of files: claudefs site "
               "keep-versions says for how long\n",
               versions);
    if (number_of(r, "recent_chunks") > 0)
        printf("kept: %lld chunks, %s, that are not used and may just be being written, because "
               "%s: they go in 10 to 20 minutes\n",
               (long long)number_of(r, "recent_chunks"), recent,
               json_string_value(json_object_get(r, "recent_why")));
    json_array_foreach (json_object_get(r, "waits_for"), idx, site)
        printf("kept: what was removed lately, until %s has confirmed that it knows: claudefs "
               "status shows how far behind it is\n",
               json_string_value(site));
    mem_free(versions);
    mem_free(recent);
}

static int print_result(json_t *r, bool json)
{
    if (json)
        cli_print_json(r);
    if (strcmp(json_string_value(json_object_get(r, "state")), "done") != 0)
        return cli_error(CLI_FAILED, "gc: %s: try again later",
                         json_string_value(json_object_get(r, "why")));
    if (json)
        return CLI_OK;
    char *freed = size_of(r, "freed_bytes"), *before = size_of(r, "disk_before_bytes");
    char *after = size_of(r, "disk_after_bytes");
    printf("freed %lld chunks, %s; the chunk store takes %s of the disk, %s before\n",
           (long long)number_of(r, "freed_chunks"), freed, after, before);
    mem_free(freed);
    mem_free(before);
    mem_free(after);
    print_kept(r);
    return CLI_OK;
}

/* Until run `run` is over. *ret is its result, or that of a later one. */
static int wait_for(const char *dir, json_int_t run, json_t **ret)
{
    bool shows = isatty(STDERR_FILENO);
    int code = CLI_OK;
    *ret = NULL;
    while (code == CLI_OK && *ret == NULL) {
        json_t *status = NULL;
        code =
            cli_request(dir, "gc", json_pack("{s:s}", "verb", "gc.status"), CLI_ANSWER_MS, &status);
        json_t *result = json_object_get(status, "result");
        if (code == CLI_OK && number_of(status, "run") < run)
            code = cli_error(CLI_FAILED, "gc: the daemon was started anew meanwhile: try again");
        else if (code == CLI_OK && number_of(result, "run") >= run)
            *ret = json_incref(result);
        else if (code == CLI_OK && shows)
            fprintf(stderr, "\r%s\033[K", json_string_value(json_object_get(status, "step")));
        json_decref(status);
        if (code == CLI_OK && *ret == NULL)
            (void)poll(NULL, 0, POLL_MS); /* a time-out is the point */
    }
    if (shows)
        fputs("\r\033[K", stderr);
    return code;
}

int cmd_gc(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs gc [--json] --dir DIR\n"
        "\n"
        "Gives back the room of what was removed, now, and returns when that is done. Without it\n"
        "the daemon does so every ten minutes. Mounts of the site commit what they have first. It\n"
        "says what was freed, and what could not go yet and why: former versions of files that "
        "are\n"
        "kept, what another site has not confirmed yet, what a mount that does not answer may be\n"
        "writing. It may be interrupted; the daemon goes on with it.\n";
    const char *dir = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"gc", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    json_t *answer = NULL, *result = NULL;
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    code = cli_request(dir, "gc", json_pack("{s:s}", "verb", "gc"), CLI_ANSWER_MS, &answer);
    if (code == CLI_OK)
        code = wait_for(dir, number_of(answer, "run"), &result);
    if (code == CLI_OK)
        code = print_result(result, json);
    json_decref(answer);
    json_decref(result);
    return code;
}
