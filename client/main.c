/* claudefs: one program; the first word says which part of it runs. */
#include "client/cli.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("claudefs %s\n", CLAUDEFS_VERSION);
    return CLI_OK;
}

int main(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"site", cmd_site, "make a site"},
        {"serve", cmd_serve, "run the daemon of a site"},
#ifdef CLAUDEFS_FUSE
        {"mount", cmd_mount, "mount the file system"},
#endif
        {"peer", cmd_peer, "pair with other sites, list, pause and remove them"},
        {"status", cmd_status, "how the site is"},
        {"wait", cmd_wait, "until all sites are in step"},
        {"conflicts", cmd_conflicts, "what was changed at two sites at once"},
        {"journal", cmd_journal, "who did what, where and when"},
        {"restore", cmd_restore, "a former version of a file, also of a removed one"},
        {"fsck", cmd_fsck, "check, and repair, a site's directory"},
        {"dashboard", cmd_dashboard, "where the page that shows it all is"},
        {"log-level", cmd_log_level, "what a running daemon logs"},
        {"version", cmd_version, "the version of this program"},
    };
    (void)setlocale(LC_TIME, ""); /* as it was is fine */
    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
        return cmd_version(argc, argv);
    return cli_dispatch("claudefs", commands, ARRAY_COUNT(commands), argc, argv);
}
