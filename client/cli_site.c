/* claudefs site: a new site's directory, and what is set for all of a file system. What is given is
 * checked here, before anything is made. */
#include "client/cli.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "site/node.h"

#define BACK_POLL_MS 500

static bool site_name_valid(const char *name)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    size_t len = strlen(name);
    return len >= 1 && len <= 32 && strspn(name, letters) == len;
}

/* HOST:PORT, [V6]:PORT; the address itself is tried by whoever listens on it. */
static bool address_valid(const char *text)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || strlen(text) > 127)
        return false;
    size_t digits = strspn(colon + 1, "0123456789");
    if (digits == 0 || digits > 5 || colon[1 + digits] != 0)
        return false;
    unsigned port = 0;
    for (const char *c = colon + 1; *c; c++)
        port = port * 10 + (unsigned)(*c - '0');
    return port <= 65535 && !strpbrk(text, " \t/");
}

static int address_set(const char *option, const char *text, char ret[128])
{
    if (!text)
        return CLI_OK;
    if (!address_valid(text))
        return cli_error(CLI_USAGE,
                         "site create: %s takes HOST:PORT, not '%s': for instance "
                         "0.0.0.0:7400",
                         option, text);
    (void)snprintf(ret, 128, "%s", text); /* the length was checked */
    return CLI_OK;
}

static int http_set(const char *text, char ret[128])
{
    if (text == NULL || strcmp(text, "off") != 0)
        return address_set("--http", text, ret);
    (void)snprintf(ret, 128, "off"); /* fits */
    return CLI_OK;
}

static int create(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs site create NAME --dir DIR [OPTION]...\n"
        "\n"
        "Makes the directory of a new site. NAME: letters, digits, '-' and '_', at most 32.\n"
        "\n"
        "  --dir DIR            where everything of the site is kept; must not exist or be empty\n"
        "  --wan HOST:PORT      listen there for other sites\n"
        "  --advertise HOST:PORT  what other sites dial, if not the address after --wan (which "
        "may\n"
        "                       be a wildcard, or behind a forwarded port)\n"
        "  --listen HOST:PORT   listen there for mounts of other machines\n"
        "  --http HOST:PORT     serve dashboard and metrics there, or 'off'; unless told "
        "127.0.0.1:7480,\n"
        "                       or another free port when that is taken\n"
        "  --shards N           partitions of the metadata, 1 to 256, 8 unless told; fixed for "
        "ever\n"
        "  --trusted-network    frames to mounts of other machines are not sealed, where the "
        "mount\n"
        "                       says -o trusted_network\n"
        "\n"
        "Next: 'claudefs serve --dir DIR', then 'claudefs mount' or, to join another site's tree\n"
        "while this one is still empty, 'claudefs peer accept TOKEN --dir DIR'.\n";
    const char *words[1], *dir = NULL, *listen = NULL, *wan = NULL, *http = NULL;
    const char *advertise = NULL;
    uint64_t shards = 8;
    bool trusted = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--listen", CLI_TEXT, &listen, 0, 0},
        {"--wan", CLI_TEXT, &wan, 0, 0},
        {"--advertise", CLI_TEXT, &advertise, 0, 0},
        {"--http", CLI_TEXT, &http, 0, 0},
        {"--shards", CLI_UINT, &shards, 1, SHARD_COUNT_MAX},
        {"--trusted-network", CLI_FLAG, &trusted, 0, 0},
    };
    const struct cli_syntax syntax = {"site create", usage, options, ARRAY_COUNT(options),
                                      words,         1,     1};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    struct site_settings s = {.shard_count = (unsigned)shards, .trusted_network = trusted};
    if (!site_name_valid(words[0]))
        return cli_error(CLI_USAGE,
                         "site create: '%s' is no name for a site: use 1 to 32 letters, "
                         "digits, '-' and '_'",
                         words[0]);
    memcpy(s.name, words[0], strlen(words[0]) + 1);
    if ((code = address_set("--listen", listen, s.listen)) != CLI_OK ||
        (code = address_set("--wan", wan, s.wan)) != CLI_OK ||
        (code = address_set("--advertise", advertise, s.advertise)) != CLI_OK ||
        (code = http_set(http, s.http)) != CLI_OK)
        return code;
    struct err_detail d = {{0}};
    int rc = site_create(dir, &s, NULL, &d);
    if (rc != 0)
        return cli_error(rc == ERR_NO_SPACE || rc == ERR_EXISTS ? CLI_FAILED : cli_exit_of(rc),
                         "site create: %s", d.text[0] ? d.text : err_text(rc));
    printf("site %s made in %s\nstart it: claudefs serve --dir %s\n", s.name, dir, dir);
    return CLI_OK;
}

/* "90s", "12h", "7d": seconds; false when it is nothing of the kind. */
static bool period_parse(const char *text, uint64_t *ret_s)
{
    static const struct {
        const char *unit;
        uint64_t s;
    } units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"w", 7 * 86400}};
    size_t digits = strspn(text, "0123456789");
    uint64_t value = 0;
    if (digits == 0 || digits > 9)
        return false;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    for (size_t i = 0; i < ARRAY_COUNT(units); i++)
        if (strcmp(text + digits, units[i].unit) == 0) {
            *ret_s = value * units[i].s;
            return true;
        }
    *ret_s = 0;
    return strcmp(text, "0") == 0;
}

static int keep_versions(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs site keep-versions [PERIOD] [--json] --dir DIR\n"
        "\n"
        "How long former versions of files are kept, and how much that is; with PERIOD ('7d',\n"
        "'12h', '0' for not at all) it is changed, at all sites of the file system. Versions that\n"
        "are older go within minutes, the space they need with the next garbage passes.\n";
    const char *words[1], *dir = NULL;
    bool json = false;
    uint64_t keep_s = 0;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {
        "site keep-versions", usage, options, ARRAY_COUNT(options), words, 0, 1};
    int code, count = cli_parse(&syntax, argc, argv, &code);
    if (count < 0)
        return code;
    if (count == 1 && !period_parse(words[0], &keep_s))
        return cli_error(CLI_USAGE,
                         "site keep-versions: '%s' is no period: a number and s, m, h, d or w, as "
                         "in '7d', or '0'",
                         words[0]);
    json_t *request = json_pack("{s:s}", "verb", "versions.keep");
    if (count == 1)
        (void)json_object_set_new(request, "keep_s", json_integer((json_int_t)keep_s));
    return cli_show(dir, "site keep-versions", request, CLI_ANSWER_MS, json,
                    count == 0 ? cli_print_object : NULL);
}

/* "500M", "20G", "auto", "none": what the daemon takes; NULL when it is nothing of the kind. */
static json_t *size_parse(const char *text)
{
    static const char units[] = "KMGT";
    size_t digits = strspn(text, "0123456789");
    uint64_t value = 0;
    if (strcmp(text, "none") == 0)
        return json_string(text);
    if (strcmp(text, "auto") == 0)
        return json_integer(0);
    if (digits == 0 || digits > 9)
        return NULL;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    if (text[digits] != '\0') {
        const char *unit = strchr(units, text[digits]);
        if (unit == NULL || text[digits + 1] != '\0')
            return NULL;
        value <<= 10 * (unit - units + 1);
    }
    return value > 0 && value <= INT64_MAX ? json_integer((json_int_t)value) : NULL;
}

static json_t *age_parse(const char *text)
{
    uint64_t s = 0;
    if (strcmp(text, "none") == 0)
        return json_string(text);
    return period_parse(text, &s) && s > 0 ? json_integer((json_int_t)s) : NULL;
}

static int keep_journal(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs site keep-journal [--age PERIOD] [--size BYTES] [--json] --dir DIR\n"
        "\n"
        "How long, and up to which size, journals are kept for a site that is away. Beyond either\n"
        "it is given up: it has to come back as a new site (claudefs site return), which costs a\n"
        "copy of the tree and loses nothing. Without --age and --size: what the limits are.\n"
        "Changes hold at all sites of the file system.\n"
        "\n"
        "  --age PERIOD   '30d' unless told; s, m, h, d or w; 'none': however long\n"
        "  --size BYTES   '20G' for instance, K, M, G or T; 'none': however large; 'auto', unless\n"
        "                 told: as much as is free on the site's disk beside them\n";
    const char *dir = NULL, *age = NULL, *size = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--age", CLI_TEXT, &age, 0, 0},
        {"--size", CLI_TEXT, &size, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {
        "site keep-journal", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    json_t *age_json = age != NULL ? age_parse(age) : NULL;
    json_t *size_json = size != NULL ? size_parse(size) : NULL;
    if ((age != NULL && age_json == NULL) || (size != NULL && size_json == NULL)) {
        json_decref(age_json);
        json_decref(size_json);
        return cli_error(CLI_USAGE,
                         "site keep-journal: --age takes a period as in '30d' or 'none', --size a "
                         "number of bytes as in '20G', 'none' or 'auto'");
    }
    json_t *request =
        json_pack("{s:s,s:o*,s:o*}", "verb", "journal.keep", "age_s", age_json, "bytes", size_json);
    return cli_show(dir, "site keep-journal", request, CLI_ANSWER_MS, json, cli_print_object);
}

/* Until the site is back; the daemon opens its directory anew meanwhile. */
static int wait_until_back(const char *dir, const char *after_id)
{
    for (;;) {
        struct cli_answer status;
        (void)poll(NULL, 0, BACK_POLL_MS); /* a time-out is the point */
        int code = cli_ask(dir, "site return", json_pack("{s:s}", "verb", "status"), CLI_ANSWER_MS,
                           CLI_ASK_QUIET, &status);
        if (code != CLI_OK && code != CLI_UNREACHABLE)
            return code;
        if (code != CLI_OK)
            continue;
        const char *site = json_string_value(json_object_get(status.json, "site"));
        bool back = site != NULL && strcmp(site, after_id) == 0 &&
                    json_is_false(json_object_get(status.json, "joining")) &&
                    json_is_null(json_object_get(status.json, "returning"));
        cli_answer_deinit(&status);
        if (back)
            return CLI_OK;
    }
}

static int come_back(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs site return [--no-wait] [--json] --dir DIR\n"
        "\n"
        "Brings back a site that the others have given up because it was away for too long, or\n"
        "that was rolled back to an older copy of its directory. It gets a new site id and the\n"
        "others' tree; what was changed here and nowhere else is carried out on that again, and\n"
        "what cannot be, because the others changed the same, is kept under conflict names\n"
        "(claudefs conflicts). Meanwhile calls on mounts wait; files that were open may have to "
        "be\n"
        "opened again. It may be interrupted, and typed again, at any time. With --no-wait it "
        "ends\n"
        "when another site has agreed, and claudefs status shows the rest.\n";
    const char *dir = NULL;
    bool json = false, no_wait = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
        {"--no-wait", CLI_FLAG, &no_wait, 0, 0},
    };
    const struct cli_syntax syntax = {"site return", usage, options, ARRAY_COUNT(options),
                                      NULL,          0,     0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    json_t *answer = NULL;
    code = cli_request(dir, "site return", json_pack("{s:s}", "verb", "site.return"), CLI_ANSWER_MS,
                       &answer);
    if (code == CLI_OK && !no_wait)
        code = wait_until_back(dir, json_string_value(json_object_get(answer, "after_id")));
    if (code == CLI_OK && json)
        cli_print_json(answer);
    else if (code == CLI_OK)
        printf("%s as site %s, with the tree of %s: claudefs conflicts says what met others'\n",
               no_wait ? "coming back" : "back",
               json_string_value(json_object_get(answer, "after_id")),
               json_string_value(json_object_get(answer, "from")));
    json_decref(answer);
    return code;
}

int cmd_site(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"create", create, "make the directory of a new site"},
        {"keep-versions", keep_versions, "how long former versions of files are kept"},
        {"keep-journal", keep_journal, "how long journals are kept for a site that is away"},
        {"return", come_back, "come back after too long away, or after a rollback"},
    };
    return cli_dispatch("claudefs site", commands, ARRAY_COUNT(commands), argc, argv);
}
