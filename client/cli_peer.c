/* claudefs peer: pairing with other sites, and starting and stopping replication with them. */
#include "client/cli.h"

#include <stdio.h>
#include <string.h>

#define ACCEPT_MS 300000u /* it ends with the tree of the inviter in place */

/* The usual line: words, --dir, --json. */
struct line {
    const char *words[1];
    const char *dir;
    bool json;
};

static bool line_parse(const char *command,
                       const char *usage,
                       int words,
                       int argc,
                       char **argv,
                       struct line *ret,
                       int *ret_exit)
{
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &ret->dir, 0, 0},
        {"--json", CLI_FLAG, &ret->json, 0, 0},
    };
    const struct cli_syntax syntax = {command,    usage, options, ARRAY_COUNT(options),
                                      ret->words, words, words};
    return cli_parse(&syntax, argc, argv, ret_exit) >= 0;
}

static int invite(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs peer invite [--expires S] [--address HOST:PORT] [--json] --dir DIR\n"
        "\n"
        "Prints a token with which one other site can join this file system, once, within\n"
        "S seconds (900 unless told). Whoever holds the token gets the key of the file system:\n"
        "hand it over on a way you trust. At the other site: 'claudefs peer accept TOKEN'.\n"
        "--address: what the other site is to dial, if not what this site advertises.\n";
    const char *dir = NULL, *address = NULL;
    uint64_t expires = 900;
    bool json = false;
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--expires", CLI_UINT, &expires, 1, 365u * 86400u},
        {"--address", CLI_TEXT, &address, 0, 0},
        {"--json", CLI_FLAG, &json, 0, 0},
    };
    const struct cli_syntax syntax = {"peer invite", usage, options, ARRAY_COUNT(options),
                                      NULL,          0,     0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    json_t *answer = NULL;
    json_t *request = json_pack("{s:s,s:I}", "verb", "peer.invite", "ttl_s", (json_int_t)expires);
    if (address)
        (void)json_object_set_new(request, "address", json_string(address)); /* no memory only */
    code = cli_request(dir, "peer invite", request, CLI_ANSWER_MS, &answer);
    if (code != CLI_OK)
        return code;
    const char *token = json_string_value(json_object_get(answer, "token"));
    if (json)
        cli_print_json(answer);
    else if (token)
        printf("%s\n", token);
    else
        code = cli_error(CLI_FAILED, "peer invite: the daemon sent no token: see its log");
    json_decref(answer);
    return code;
}

/* The token may be read from stdin, so that it does not show in the list of processes. */
static bool token_read(char *out, size_t len)
{
    if (!fgets(out, (int)len, stdin))
        return false;
    out[strcspn(out, " \t\r\n")] = 0;
    return out[0] != 0;
}

static int accept_token(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs peer accept TOKEN|- [--json] --dir DIR\n"
        "\n"
        "Joins the file system of the site that printed TOKEN with 'peer invite'. This site must\n"
        "be new and empty, or belong to that file system already. '-' reads the token from the\n"
        "standard input.\n";
    struct line line = {0};
    char text[1024];
    int code;
    if (!line_parse("peer accept", usage, 1, argc, argv, &line, &code))
        return code;
    const char *token = line.words[0];
    if (strcmp(token, "-") == 0) {
        if (!token_read(text, sizeof(text)))
            return cli_error(CLI_USAGE, "peer accept: no token on the standard input: print one "
                                        "with 'claudefs peer invite' at the other site");
        token = text;
    }
    return cli_show(line.dir, "peer accept",
                    json_pack("{s:s,s:s}", "verb", "peer.accept", "token", token), ACCEPT_MS,
                    line.json, cli_print_object);
}

static void print_peers(json_t *answer)
{
    cli_print_table(cli_array_of(answer, "peers"), NULL);
}

static int list(int argc, char **argv)
{
    static const char usage[] = "usage: claudefs peer list [--json] --dir DIR\n"
                                "\n"
                                "Lists the other sites of the file system, how they are reached, "
                                "and their state.\n";
    struct line line = {0};
    int code;
    if (!line_parse("peer list", usage, 0, argc, argv, &line, &code))
        return code;
    return cli_show(line.dir, "peer list", json_pack("{s:s}", "verb", "peer.list"), CLI_ANSWER_MS,
                    line.json, print_peers);
}

static int on_peer(const char *what, const char *usage, int argc, char **argv)
{
    struct line line = {0};
    char command[32], verb[32];
    int code;
    (void)snprintf(command, sizeof(command), "peer %s", what); /* one of a few short words */
    (void)snprintf(verb, sizeof(verb), "peer.%s", what);
    if (!line_parse(command, usage, 1, argc, argv, &line, &code))
        return code;
    return cli_show(line.dir, command, json_pack("{s:s,s:s}", "verb", verb, "name", line.words[0]),
                    CLI_ANSWER_MS, line.json, NULL);
}

static int pause_peer(int argc, char **argv)
{
    return on_peer("pause",
                   "usage: claudefs peer pause NAME [--json] --dir DIR\n"
                   "\n"
                   "Stops replication with site NAME, both ways, until 'peer resume NAME'. Lasts "
                   "over a restart.\n",
                   argc, argv);
}

static int resume_peer(int argc, char **argv)
{
    return on_peer("resume",
                   "usage: claudefs peer resume NAME [--json] --dir DIR\n"
                   "\n"
                   "Takes replication with site NAME up again where 'peer pause' stopped it.\n",
                   argc, argv);
}

static int remove_peer(int argc, char **argv)
{
    return on_peer("remove",
                   "usage: claudefs peer remove NAME [--json] --dir DIR\n"
                   "\n"
                   "Takes site NAME out of the file system, for all sites. What it has not sent by "
                   "then\nis not taken from it any more. It can come back when 'peer readmit NAME' "
                   "lets it,\nor as a new site.\n",
                   argc, argv);
}

static int readmit_peer(int argc, char **argv)
{
    return on_peer("readmit",
                   "usage: claudefs peer readmit NAME [--json] --dir DIR\n"
                   "\n"
                   "Lets site NAME, which was taken out with 'peer remove', come back with "
                   "'claudefs site\nreturn' there: under a new id, with what was changed there "
                   "and not sent.\n",
                   argc, argv);
}

int cmd_peer(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"invite", invite, "print a token with which another site can join"},
        {"accept", accept_token, "join the site that printed a token"},
        {"list", list, "the other sites and their state"},
        {"pause", pause_peer, "stop replication with a site"},
        {"resume", resume_peer, "start it again"},
        {"remove", remove_peer, "take a site out of the file system"},
        {"readmit", readmit_peer, "let a site that was taken out come back"},
    };
    return cli_dispatch("claudefs peer", commands, ARRAY_COUNT(commands), argc, argv);
}
