/* claudefs site create: a new site's directory. What is given is checked here, before anything is
 * made; site_create does the rest. */
#include "client/cli.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "site/node.h"

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
        "  --http HOST:PORT     serve metrics and status there\n"
        "  --shards N           partitions of the metadata, 1 to 256, 8 unless told; fixed for "
        "ever\n"
        "  --trusted-network    frames to mounts of other machines are not sealed\n"
        "\n"
        "Next: 'claudefs serve --dir DIR', then 'claudefs mount' or, to join another site's tree\n"
        "while this one is still empty, 'claudefs peer accept TOKEN --dir DIR'.\n";
    const char *words[1], *dir = NULL, *listen = NULL, *wan = NULL, *http = NULL;
    const char *advertise = NULL;
    uint64_t shards = 8;
    bool trusted = false;
    const struct cli_option options[] = {
        {"--dir", CLI_TEXT, &dir, 0, 0},
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
        (code = address_set("--http", http, s.http)) != CLI_OK)
        return code;
    dir = cli_dir(dir, "site create");
    if (!dir)
        return CLI_USAGE;
    struct err_detail d = {{0}};
    int rc = site_create(dir, &s, NULL, &d);
    if (rc != 0)
        return cli_error(rc == ERR_NO_SPACE || rc == ERR_EXISTS ? CLI_FAILED : cli_exit_of(rc),
                         "site create: %s", d.text[0] ? d.text : err_text(rc));
    printf("site %s made in %s\nstart it: claudefs serve --dir %s\n", s.name, dir, dir);
    return CLI_OK;
}

int cmd_site(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"create", create, "make the directory of a new site"},
    };
    return cli_dispatch("claudefs site", commands, ARRAY_COUNT(commands), argc, argv);
}
