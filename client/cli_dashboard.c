/* claudefs dashboard: where it is, and the token that opens it from other machines. */
#include "client/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "base/clock.h"
#include "client/dash.h"
#include "client/dash_route.h"

/* The first line of a small file of the site's directory; false when it cannot be read. */
static bool line_of(const char *dir, const char *name, char *out, size_t size)
{
    char *path = mem_printf("%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    mem_free(path);
    bool ok = f != NULL && fgets(out, (int)size, f) != NULL;
    if (f != NULL)
        (void)fclose(f); /* only read */
    if (ok)
        out[strcspn(out, "\n")] = '\0';
    return ok;
}

static int token_write(const char *dir, const char *token)
{
    char *path = mem_printf("%s/%s", dir, DASH_TOKEN_FILE), *temporary = mem_printf("%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), code = CLI_OK;
    bool ok = fd >= 0 && dprintf(fd, "%s\n", token) == DASH_TOKEN_LEN + 1 && fsync(fd) == 0;
    if (fd >= 0)
        (void)close(fd); /* synced above */
    if (!ok || rename(temporary, path) != 0)
        code = cli_error(CLI_FAILED, "dashboard token: cannot write %s: %s", path, strerror(errno));
    mem_free(temporary);
    mem_free(path);
    return code;
}

static int token_make(const char *dir, char token[DASH_TOKEN_LEN + 1])
{
    uint8_t secret[DASH_TOKEN_LEN / 2];
    random_bytes(secret, sizeof secret);
    (void)sodium_bin2hex(token, DASH_TOKEN_LEN + 1, secret, sizeof secret);
    sodium_memzero(secret, sizeof secret);
    return token_write(dir, token);
}

static int dashboard_token(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs dashboard token [--new] --dir DIR\n"
        "\n"
        "Prints the token that opens the dashboard where it does not listen on loopback; makes it\n"
        "the first time. --new makes another: the daemon takes it when it starts again.\n";
    const char *dir = NULL;
    bool new = false;
    char token[DASH_TOKEN_LEN + 2] = "";
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &dir, 0, 0},
        {"--new", CLI_FLAG, &new, 0, 0},
    };
    const struct cli_syntax syntax = {
        "dashboard token", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    struct site_settings settings;
    struct err_detail d = {{0}};
    if (site_settings_load(dir, &settings, &d) != 0)
        return cli_error(CLI_DIR, "dashboard token: %s", d.text);
    bool have =
        line_of(dir, DASH_TOKEN_FILE, token, sizeof token) && strlen(token) == DASH_TOKEN_LEN;
    if ((new || !have) && (code = token_make(dir, token)) != CLI_OK)
        return code;
    printf("%s\n", token);
    return CLI_OK;
}

static int dashboard_url(int argc, char **argv)
{
    static const char usage[] = "usage: claudefs dashboard url --dir DIR\n"
                                "\n"
                                "Prints where the running daemon serves its dashboard.\n";
    const char *dir = NULL;
    char url[200];
    const struct cli_option options[] = {{"--dir", CLI_SITE_DIR, &dir, 0, 0}};
    const struct cli_syntax syntax = {
        "dashboard url", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    if (!line_of(dir, DASH_ADDRESS_FILE, url, sizeof url))
        return cli_error(CLI_UNREACHABLE,
                         "dashboard url: %s/" DASH_ADDRESS_FILE ": %s: is the site being served, "
                         "and the dashboard not off?",
                         dir, strerror(errno));
    printf("%s\n", url);
    return CLI_OK;
}

int cmd_dashboard(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"url", dashboard_url, "where the page is"},
        {"token", dashboard_token, "what opens it from another machine"},
    };
    return cli_dispatch("claudefs dashboard", commands, ARRAY_COUNT(commands), argc, argv);
}
