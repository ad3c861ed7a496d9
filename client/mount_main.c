/* claudefs mount: options, and going into the background. The parent waits until the mount is
 * usable and returns; the child serves. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "client/background.h"
#include "client/cli.h"
#include "client/fuse_ops.h"

#define CACHE_MB_MIN 16u
#define CACHE_MB_MAX (1024u * 1024u)
/* Half a million are 50 MB here, 85 MB in the daemon and half a gigabyte, which it may reclaim, in
 * the kernel: more than most trees have, and less than what a daemon tells a mount about one by
 * one. */
#define INODES 500000u
#define INODES_MIN 1000u
#define THREADS_MAX 1000u

static const char usage[] =
    "usage: claudefs mount --dir DIR | --site HOST:PORT --key FILE  MOUNTPOINT [-f] [-o OPTIONS]\n"
    "\n"
    "Mounts the file system of a site; returns when the mount is usable.\n"
    "  --dir DIR          directory of a site that runs on this machine\n"
    "  --site HOST:PORT   where a site listens (its setting 'listen')\n"
    "  --key FILE         with --site: a copy of the site's site.key\n"
    "  -f                 stay in the foreground, messages on stderr\n"
    "  -o OPTIONS         separated by commas:\n"
    "     ro, rw          read only, or not\n"
    "     sync            every change is durable when its call returns\n"
    "     cache_mb=N      memory for data (256)\n"
    "     inodes=N        files and directories remembered that nobody uses (500000)\n"
    "     timeout=S       how long the kernel may believe what it knows (3600)\n"
    "     threads=N       calls that may wait at a time (64)\n"
    "     trusted_network with --site: frames may pass unsealed, where the site says so, too\n"
    "     allow_other, private   for all users (root's default), or for the caller only\n"
    "     nosuid, nodev, noexec, log=FILE, log_level=error|warn|info|debug\n"
    "Ends with fusermount3 -u, umount or SIGTERM; everything written is committed then.\n";

/* ---- options ---- */

static bool number_option(const char *word, const char *name, uint64_t max, uint64_t *ret)
{
    size_t len = strlen(name);
    char *end;
    if (strncmp(word, name, len) != 0 || word[len] != '=' || word[len + 1] < '0' ||
        word[len + 1] > '9')
        return false;
    errno = 0;
    unsigned long long v = strtoull(word + len + 1, &end, 10);
    if (errno != 0 || *end != '\0' || v > max)
        return false;
    *ret = v;
    return true;
}

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static void fuse_arg(struct mount_options *o, const char *word)
{
    char *more = mem_printf("%s,%s", o->fuse_args, word);
    mem_free(o->fuse_args);
    o->fuse_args = more;
}

static bool word_option(struct mount_options *o, const char *word)
{
    static const char *const passed[] = {"nosuid", "nodev", "noexec",  "suid", "dev",
                                         "exec",   "async", "dirsync", NULL};
    static const char *const ignored[] = {"rw",       "noatime", "nodiratime", "relatime",
                                          "defaults", "auto",    "noauto",     "user",
                                          "nofail",   "_netdev", NULL};
    if (strcmp(word, "ro") == 0) {
        o->read_only = true;
        fuse_arg(o, word);
    } else if (strcmp(word, "sync") == 0) {
        o->sync = true;
        fuse_arg(o, word);
    } else if (strcmp(word, "trusted_network") == 0) {
        o->trusted_network = true;
    } else if (strcmp(word, "allow_other") == 0) {
        o->allow_other = true;
    } else if (strcmp(word, "private") == 0) {
        o->allow_other = false;
    } else if (strncmp(word, "log=", 4) == 0) {
        mem_free(o->log);
        o->log = mem_strdup(word + 4);
    } else if (strncmp(word, "log_level=", 10) == 0) {
        return log_levels_parse(word + 10) == 0;
    } else if (is_one_of(word, passed)) {
        fuse_arg(o, word);
    } else if (!is_one_of(word, ignored)) {
        return number_option(word, "cache_mb", CACHE_MB_MAX, &o->cache_mb) ||
               number_option(word, "inodes", UINT32_MAX, &o->inodes_max) ||
               number_option(word, "timeout", UINT32_MAX, &o->timeout_s) ||
               number_option(word, "threads", THREADS_MAX, &o->threads_max);
    }
    return true;
}

static int parse_words(struct mount_options *o, const char *list)
{
    char *copy = mem_strdup(list), *rest = copy, *word;
    int code = CLI_OK;
    while (code == CLI_OK && (word = strsep(&rest, ",")) != NULL)
        if (word[0] != '\0' && !word_option(o, word))
            code = cli_error(CLI_USAGE,
                             "mount: option '%s' is not known or not in range: see "
                             "'claudefs mount --help'",
                             word);
    mem_free(copy);
    if (code == CLI_OK &&
        (o->cache_mb < CACHE_MB_MIN || o->threads_max == 0 || o->inodes_max < INODES_MIN))
        code = cli_error(CLI_USAGE,
                         "mount: cache_mb must be at least %u, inodes at least %u, threads at "
                         "least 1",
                         CACHE_MB_MIN, INODES_MIN);
    return code;
}

/* False: there is nothing to do, and *ret_code says why. */
static bool parse(struct mount_options *o, int argc, char **argv, int *ret_code)
{
    bool root = geteuid() == 0;
    const char *words[1], *list = "";
    *o = (struct mount_options){.cache_mb = 256,
                                .inodes_max = INODES,
                                .timeout_s = 3600,
                                .threads_max = 64,
                                .allow_other = root};
    o->fuse_args = mem_printf("-odefault_permissions,fsname=claudefs,subtype=claudefs%s",
                              root ? ",suid,dev" : "");
    const struct cli_option options[] = {
        {.name = "--dir", .kind = CLI_TEXT, .ret = &o->dir},
        {.name = "--site", .kind = CLI_TEXT, .ret = &o->site},
        {.name = "--key", .kind = CLI_TEXT, .ret = &o->key},
        {.name = "-f", .kind = CLI_FLAG, .ret = &o->foreground},
        {.name = "-o", .kind = CLI_TEXT, .ret = &list},
    };
    const struct cli_syntax syntax = {.command = "mount",
                                      .usage = usage,
                                      .options = options,
                                      .option_count = ARRAY_COUNT(options),
                                      .words = words,
                                      .words_min = 1,
                                      .words_max = 1};
    if (cli_parse(&syntax, argc, argv, ret_code) < 0)
        return false;
    o->mountpoint = words[0];
    if (o->site == NULL && o->dir == NULL)
        o->dir = cli_dir(NULL, "mount");
    if (o->site == NULL && o->dir == NULL)
        *ret_code = CLI_USAGE;
    else if (o->site != NULL && o->key == NULL && o->dir == NULL)
        *ret_code =
            cli_error(CLI_USAGE, "mount: --site needs --key FILE, a copy of the site's site.key");
    else
        *ret_code = parse_words(o, list);
    if (o->allow_other)
        fuse_arg(o, "allow_other");
    return *ret_code == CLI_OK;
}

/* ---- where the site is ---- */

static int key_read(const char *path, uint8_t ret[32])
{
    uint8_t bytes[33];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cli_error(errno == EACCES || errno == EPERM ? CLI_DENIED : CLI_DIR,
                         "mount: cannot read the site's key: %s: %s", path, strerror(errno));
    ssize_t len = read(fd, bytes, sizeof bytes);
    (void)close(fd); /* only read */
    if (len != 32)
        return cli_error(CLI_DIR, "mount: %s is not a site's key: not 32 bytes", path);
    memcpy(ret, bytes, 32);
    explicit_bzero(bytes, sizeof bytes);
    return CLI_OK;
}

struct place {
    char *sock, *key, *host, *name;
    struct conn_config config;
};

static void place_deinit(struct place *p)
{
    mem_free(p->sock);
    mem_free(p->key);
    mem_free(p->host);
    mem_free(p->name);
}

static int find_place(const struct mount_options *o, struct place *p)
{
    char host[HOST_NAME_MAX + 1] = "";
    *p = (struct place){.config.clock = &clock_os, .config.ahead = !o->sync};
    (void)gethostname(host, sizeof host - 1); /* for people; empty will do */
    p->config.name = p->name = mem_printf("%s:%s", host, o->mountpoint);
    p->key = o->key != NULL ? mem_strdup(o->key) : mem_printf("%s/site.key", o->dir);
    int code = key_read(p->key, p->config.auth.site_key);
    if (code != CLI_OK)
        return code;
    if (o->site == NULL) {
        char *dir = realpath(o->dir, NULL); /* we leave the working directory */
        p->sock = mem_printf("%s/sock", dir == NULL ? o->dir : dir);
        mem_free(dir);
        p->config.target.unix_path = p->sock;
        return CLI_OK;
    }
    const char *colon = strrchr(o->site, ':');
    char *end = NULL;
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    if (port == 0 || port > UINT16_MAX || *end != '\0')
        return cli_error(CLI_USAGE, "mount: '%s' is not HOST:PORT", o->site);
    p->host = mem_printf("%.*s", (int)(colon - o->site), o->site);
    p->config.target.host = p->host;
    p->config.target.port = (uint16_t)port;
    p->config.auth.trusted_network = o->trusted_network;
    return CLI_OK;
}

/* ---- foreground and background ---- */

static void redirect(const struct mount_options *o)
{
    char *log = o->log != NULL ? mem_strdup(o->log) : NULL;
    if (log == NULL && o->dir != NULL)
        log = mem_printf("%s/mount.log", o->dir);
    background_redirect(log, 0640);
    mem_free(log);
    if (chdir("/") != 0) /* not to be in the way of other unmounts */
        log_warn(LOG_CLIENT, "chdir", "errno=%d", errno);
}

/* Serves until the end; an exit code. `ready_fd`: where to say that the mount is usable, or -1. */
static int serve(struct mount_options *o, const struct conn_config *config, int ready_fd)
{
    static struct mount mount;
    struct mount *m = &mount;
    struct err_detail d = {{0}};
    m->options = *o;
    m->ready_fd = ready_fd;
    m->entry_timeout_s = m->attr_timeout_s = (double)o->timeout_s;
    int code = CLI_OK;
    /* Signals are for the main thread, which waits in the session's loop: all others, which inherit
     * the mask, leave them alone. */
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &ends, NULL); /* fails only for a wrong argument */
    int rc = mount_parts_start(m, config, &d);
    if (rc == 0)
        rc = session_mount(m, &d);
    if (rc != 0) {
        code = cli_error(rc == ERR_UNREACHABLE ? CLI_UNREACHABLE : cli_exit_of(rc), "mount: %s: %s",
                         o->mountpoint, d.text[0] != '\0' ? d.text : err_text(rc));
    } else {
        m->pruner = pruner_new(m);
        if (!o->foreground)
            redirect(o);
        (void)pthread_sigmask(SIG_UNBLOCK, &ends, NULL); /* likewise */
        log_info(LOG_CLIENT, "mounted", "site=%s at=%s", conn_site_name(m->conn), o->mountpoint);
        rc = session_loop(m);
        log_info(LOG_CLIENT, "unmounting", "rc=%s", err_name(rc));
    }
    int end = mount_parts_end(m);
    if (end != 0) {
        log_error(LOG_CLIENT, "unmounted", "rc=%s: not everything could be committed",
                  err_name(end));
        code = code == CLI_OK ? CLI_FAILED : code;
    }
    return code;
}

static int background(struct mount_options *o, const struct conn_config *config)
{
    struct background b = {.command = "mount"}; /* its stderr is ours until it is ready */
    int code;
    return background_start(&b, &code) ? serve(o, config, b.ready_fd) : code;
}

static int mountpoint_check(struct mount_options *o, char **ret_path)
{
    struct stat st;
    if (stat(o->mountpoint, &st) != 0)
        return cli_error(CLI_FAILED, "mount: %s: %s%s", o->mountpoint, strerror(errno),
                         errno == ENOTCONN ? ": an old mount is still there: fusermount3 -u it"
                         : errno == ENOENT ? ": make the directory first"
                                           : "");
    if (!S_ISDIR(st.st_mode))
        return cli_error(CLI_FAILED, "mount: %s is not a directory", o->mountpoint);
    *ret_path = realpath(o->mountpoint, NULL);
    if (*ret_path != NULL)
        o->mountpoint = *ret_path;
    return CLI_OK;
}

int cmd_mount(int argc, char **argv)
{
    struct mount_options o;
    struct place place = {0};
    char *path = NULL;
    int code;
    bool go_on = parse(&o, argc, argv, &code);
    if (go_on)
        code = mountpoint_check(&o, &path);
    if (go_on && code == CLI_OK)
        code = find_place(&o, &place);
    if (go_on && code == CLI_OK)
        code = o.foreground ? serve(&o, &place.config, -1) : background(&o, &place.config);
    explicit_bzero(&place.config.auth, sizeof place.config.auth);
    place_deinit(&place);
    mem_free(path);
    mem_free(o.log);
    mem_free(o.fuse_args);
    return code;
}
