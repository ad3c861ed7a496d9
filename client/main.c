/* claudefs: one program; the first word says which part of it runs. */
#include "client/cli.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "client/mount_fstab.h"

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("claudefs %s\n", CLAUDEFS_VERSION);
    return CLI_OK;
}

#ifdef CLAUDEFS_FUSE
static int mount_claudefs(int argc, char **argv)
{
    struct fstab_args a;
    const char *why = fstab_args_parse(argc, argv, &a);
    int code = CLI_OK;
    if (why)
        code = cli_error(CLI_USAGE, "%s", why);
    else if (!a.is_fake)
        code = cmd_mount(a.argc, a.argv);
    fstab_args_deinit(&a);
    return code;
}
#endif

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
        {"gc", cmd_gc, "give back the room of what was removed, now"},
        {"dashboard", cmd_dashboard, "where the page that shows it all is"},
        {"log-level", cmd_log_level, "what a running daemon logs"},
        {"support-bundle", cmd_support_bundle, "a file for whoever is to help"},
        {"version", cmd_version, "the version of this program"},
    };
    (void)setlocale(LC_TIME, ""); /* as it was is fine */
#ifdef CLAUDEFS_FUSE
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    if (argc > 0 && strcmp(slash ? slash + 1 : argv[0], "mount.claudefs") == 0)
        return mount_claudefs(argc, argv);
#endif
    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
        return cmd_version(argc, argv);
    return cli_dispatch("claudefs", commands, ARRAY_COUNT(commands), argc, argv);
}
