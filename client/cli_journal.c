/* claudefs journal: who did what, where and when; claudefs restore: back to a former version. */
#include "client/cli.h"

#include <stdio.h>

#include "base/buf.h"

#define RESTORE_MS (3600u * 1000u) /* its data may have to come from another site */

static void append_text(struct buf *b, const char *lead, const char *key, const json_t *value)
{
    if (!value)
        return;
    char *text = cli_value_text(key, value);
    buf_append(b, lead, slice_str(lead).len);
    buf_append(b, text, slice_str(text).len);
    mem_free(text);
}

/* What a register of an object is to people; the first letter says its kind. Owned by the caller.
 */
static char *register_text(const char *name)
{
    switch (name[0]) {
    case 'p':
        return mem_strdup("owner and rights");
    case 'a':
        return mem_strdup("access time");
    case 'm':
        return mem_strdup("modification time");
    case 'x':
        return mem_printf("attribute %s", name + 1);
    case 'M':
        return mem_strdup("member");
    default:
        return mem_strdup(name);
    }
}

/* "write notes.txt, 12 B; set mode": the effects of an operation in one cell. */
static json_t *effects_text(const json_t *effects)
{
    struct buf b = {0};
    const json_t *e;
    size_t idx;
    json_array_foreach (effects, idx, e) {
        append_text(&b, idx > 0 ? "; " : "", "effect", json_object_get(e, "effect"));
        const json_t *name = json_object_get(e, "name");
        const char *set = json_string_value(json_object_get(e, "register"));
        if (set) {
            char *text = register_text(set);
            json_t *value = json_string(text);
            append_text(&b, " ", "register", value);
            json_decref(value);
            mem_free(text);
        }
        append_text(&b, set ? " of " : " ", "name", name ? name : json_object_get(e, "oid"));
        append_text(&b, ", ", "bytes", json_object_get(e, "size"));
    }
    json_t *all = json_stringn((const char *)b.ptr, b.len);
    buf_deinit(&b);
    return all ? all : json_string("");
}

/* Newest last, as in a log. */
static void print_table(json_t *records)
{
    json_t *rows = json_array();
    size_t idx;
    json_t *r;
    json_array_foreach (records, idx, r) {
        json_t *row = json_object();
        (void)json_object_set(row, "time",
                              json_object_get(r, "time")); /* no memory only, as below */
        (void)json_object_set(row, "site", json_object_get(r, "site"));
        (void)json_object_set(row, "operation", json_object_get(r, "dot"));
        (void)json_object_set_new(row, "what", effects_text(json_object_get(r, "effects")));
        (void)json_array_append_new(rows, row);
    }
    cli_print_table(rows, NULL);
    json_decref(rows);
}

static void print_versions(json_t *versions)
{
    static const char *const columns[] = {"version", "state",     "time",      "site", "size",
                                          "path",    "gone_time", "gone_site", NULL};
    if (json_array_size(versions) == 0)
        return;
    printf("versions (claudefs restore PATH --version VERSION)\n");
    cli_print_table(versions, columns);
}

static void print_records(json_t *answer)
{
    json_t *records = cli_array_of(answer, "history");
    if (records)
        print_table(records);
    else
        cli_print_json(answer);
    print_versions(json_object_get(answer, "versions"));
}

static int tail(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs journal tail [--count N] [--json] --dir DIR\n"
        "\n"
        "Prints the last N operations of the site (20 unless told), its own "
        "and those of\nother sites that it applied.\n";
    const char *dir = NULL;
    uint64_t count = 20;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--count", CLI_UINT, &count, 1, 10000},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"journal tail", usage, options, ARRAY_COUNT(options),
                                      NULL,           0,     0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    return cli_show(dir, "journal tail",
                    json_pack("{s:s,s:I}", "verb", "journal.tail", "count", (json_int_t)count),
                    CLI_ANSWER_MS, json, print_records);
}

static int show(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs journal show PATH [--json] --dir DIR\n"
        "\n"
        "Prints the life of what is at PATH, or was there before: what the journal still holds of\n"
        "it, at all sites and under all its names, and its versions that can be restored. PATH is\n"
        "the one inside the file system: '/notes/today.txt', without the mount point.\n";
    const char *words[1], *dir = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"journal show", usage, options, ARRAY_COUNT(options),
                                      words,          1,     1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    return cli_show(dir, "journal show",
                    json_pack("{s:s,s:s}", "verb", "journal.show", "path", words[0]), CLI_ANSWER_MS,
                    json, print_records);
}

static void print_restored(json_t *answer)
{
    printf("restored version %s to %s, %lld bytes\n",
           json_string_value(json_object_get(answer, "version")),
           json_string_value(json_object_get(answer, "path")),
           (long long)json_integer_value(json_object_get(answer, "size")));
}

int cmd_restore(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs restore PATH [--version VERSION] [--to PATH] [--json] --dir DIR\n"
        "\n"
        "Brings back a former version of a file, also of one that was removed, while it is kept\n"
        "(claudefs site keep-versions). What is at PATH now becomes a former version itself;\n"
        "directories that are missing are made. Paths are those inside the file system.\n"
        "\n"
        "  --version VERSION  which one, as 'claudefs journal show PATH' lists them; the newest\n"
        "                     former one unless told\n"
        "  --to PATH          restore to this place, where nothing may be yet\n";
    const char *words[1], *dir = NULL, *version = NULL, *to = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--version", CLI_TEXT, &version, 0, 0},
        {"--to", CLI_TEXT, &to, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"restore", usage, options, ARRAY_COUNT(options), words, 1, 1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    json_t *request = json_pack("{s:s,s:s,s:s*,s:s*}", "verb", "restore", "path", words[0],
                                "version", version, "to", to);
    return cli_show(dir, "restore", request, RESTORE_MS, json, print_restored);
    return CLI_OK;
}

int cmd_journal(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"tail", tail, "the last operations"},
        {"show", show, "the life of a path, and its versions"},
    };
    return cli_dispatch("claudefs journal", commands, ARRAY_COUNT(commands), argc, argv);
}
