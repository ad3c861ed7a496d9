/* claudefs support-bundle: what somebody who is to help needs to see, in one tar file.
 *
 * Only what is listed here goes in, so that nothing secret can: no keys, no certificates' keys, no
 * tokens, no contents, and no file names unless they are asked for. Files of the site's directory
 * appear with their sizes; of site.conf, which has no secrets, the text. Log lines are the system's
 * and name files, so they come with --names only. */
#include "client/cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/tar.h"

#define FILE_BYTES_MAX (4u * MIB)
#define DEPTH_MAX 4u
#define LOG_LINES "5000"

struct bundle {
    const char *dir;
    struct buf tar;
    uint64_t now_s;
    bool names; /* names of files may go in */
};

static void add_text(struct bundle *b, const char *name, struct slice text)
{
    tar_add(&b->tar, name, text, b->now_s);
}

/* ---- what the daemon says ---- */

static void add_answer(struct bundle *b, const char *verb, const char *name)
{
    struct cli_answer answer;
    struct buf text = {0};
    int code = cli_ask(b->dir, "support-bundle", json_pack("{s:s}", "verb", verb), CLI_ANSWER_MS,
                       CLI_ASK_QUIET, &answer);
    char *json = answer.json ? json_dumps(answer.json, JSON_INDENT(2)) : NULL;
    if (json)
        buf_append(&text, json, strlen(json));
    else
        buf_printf(&text, "no answer: %s\n",
                   code != CLI_OK ? "the daemon does not run, or not for this user"
                                  : answer.sentence);
    add_text(b, name, buf_slice(&text));
    mem_free(json); /* jansson allocates with malloc, as mem_ does */
    cli_answer_deinit(&answer);
    buf_deinit(&text);
}

/* Which rules decided how often; with names, all of the list. */
static void add_conflicts(struct bundle *b)
{
    struct cli_answer answer;
    unsigned open[16] = {0}, all[16] = {0};
    struct buf text = {0};
    size_t idx;
    json_t *c;
    if (b->names) {
        add_answer(b, "conflicts.list", "conflicts.json");
        return;
    }
    (void)cli_ask(b->dir, "support-bundle", json_pack("{s:s}", "verb", "conflicts.list"),
                  CLI_ANSWER_MS, CLI_ASK_QUIET, &answer); /* none, then */
    json_array_foreach (json_object_get(answer.json, "conflicts"), idx, c) {
        unsigned rule = (unsigned)json_integer_value(json_object_get(c, "rule")) % 16;
        all[rule]++;
        open[rule] += !json_is_true(json_object_get(c, "resolved"));
    }
    for (unsigned rule = 0; rule < 16; rule++)
        if (all[rule] > 0)
            buf_printf(&text, "rule %u: %u, of them open %u\n", rule, all[rule], open[rule]);
    add_text(b, "conflicts.txt", buf_slice(&text));
    cli_answer_deinit(&answer);
    buf_deinit(&text);
}

/* ---- what lies in the directory ---- */

static void list_dir(const char *path, const char *shown, unsigned depth, struct buf *ret)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    if (!dir) {
        buf_printf(ret, "%s: %s\n", shown, strerror(errno));
        return;
    }
    while ((e = readdir(dir)) != NULL) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *child = mem_printf("%s/%s", path, e->d_name);
        char *name = mem_printf("%s%s%s", shown, shown[0] ? "/" : "", e->d_name);
        if (lstat(child, &st) == 0) {
            buf_printf(ret, "%o %5u:%-5u %12lld %10lld  %s\n", st.st_mode, st.st_uid, st.st_gid,
                       (long long)st.st_size, (long long)st.st_mtim.tv_sec, name);
            if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
                list_dir(child, name, depth + 1, ret);
        }
        mem_free(child);
        mem_free(name);
    }
    (void)closedir(dir); /* only read */
}

static void add_file(struct bundle *b, const char *path, const char *name)
{
    struct buf text = {0};
    uint8_t part[4096];
    ssize_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && text.len < FILE_BYTES_MAX && (len = read(fd, part, sizeof part)) > 0)
        buf_append(&text, part, (size_t)len);
    if (fd < 0 || len < 0)
        buf_printf(&text, "cannot read %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        (void)close(fd); /* only read */
    add_text(b, name, buf_slice(&text));
    buf_deinit(&text);
}

static void add_directory(struct bundle *b)
{
    struct buf text = {0};
    char *conf = mem_printf("%s/site.conf", b->dir);
    list_dir(b->dir, "", 0, &text);
    add_text(b, "files.txt", buf_slice(&text));
    add_file(b, conf, "site.conf");
    mem_free(conf);
    buf_deinit(&text);
}

/* ---- the machine ---- */

static void add_machine(struct bundle *b)
{
    struct buf text = {0};
    struct utsname u;
    struct statvfs v;
    buf_printf(&text, "claudefs %s\n", CLAUDEFS_VERSION);
    if (uname(&u) == 0)
        buf_printf(&text, "%s %s %s %s\n", u.sysname, u.release, u.version, u.machine);
    buf_printf(&text, "processors %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    if (statvfs(b->dir, &v) == 0)
        buf_printf(&text, "disk of the site: %llu of %llu bytes free, %llu of %llu files free\n",
                   (unsigned long long)v.f_bavail * v.f_frsize,
                   (unsigned long long)v.f_blocks * v.f_frsize, (unsigned long long)v.f_favail,
                   (unsigned long long)v.f_files);
    add_text(b, "machine.txt", buf_slice(&text));
    buf_deinit(&text);
    add_file(b, "/proc/meminfo", "meminfo.txt");
    add_file(b, "/proc/pressure/io", "pressure-io.txt");
}

/* The journal of the unit that serves /var/lib/claudefs/NAME. */
static void add_log(struct bundle *b)
{
    const char *slash = strrchr(b->dir, '/');
    struct buf text = {0};
    char part[4096];
    size_t len;
    const char *name = slash ? slash + 1 : b->dir;
    if (!b->names ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") !=
            strlen(name))
        return;
    char *command =
        mem_printf("journalctl --no-pager -o short-iso -n " LOG_LINES " -u claudefs@%s 2>&1", name);
    FILE *from = popen(command, "re"); /* the name has letters, digits, '_' and '-' only */
    while (from && (len = fread(part, 1, sizeof part, from)) > 0 && text.len < FILE_BYTES_MAX)
        buf_append(&text, part, len);
    if (from)
        (void)pclose(from); /* what it said is in the text */
    add_text(b, "log.txt", buf_slice(&text));
    mem_free(command);
    buf_deinit(&text);
}

static int write_out(const char *path, const struct buf *tar)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = fd >= 0;
    for (size_t done = 0; ok && done < tar->len;) {
        ssize_t n = write(fd, tar->ptr + done, tar->len - done);
        ok = n > 0;
        done += ok ? (size_t)n : 0;
    }
    int num = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        num = errno;
    }
    if (!ok)
        return cli_error(CLI_FAILED, "support-bundle: cannot write %s: %s", path, strerror(num));
    printf("%s\n", path);
    return CLI_OK;
}

int cmd_support_bundle(int argc, char **argv)
{
    static const char usage[] =
        "usage: claudefs support-bundle [--out FILE] [--names] --dir DIR\n"
        "\n"
        "Writes a tar file with what somebody who is to help needs: state, settings, sizes of\n"
        "files, the machine. No keys, tokens or contents; names of files, the list of conflicts\n"
        "and the log only with --names. The daemon need not run. FILE must not exist;\n"
        "claudefs-support-TIME.tar unless told.\n";
    const char *out = NULL;
    struct bundle b = {.names = false};
    const struct cli_option options[] = {
        {"--dir", CLI_SITE_DIR, &b.dir, 0, 0},
        {"--out", CLI_TEXT, &out, 0, 0},
        {"--names", CLI_FLAG, &b.names, 0, 0},
    };
    const struct cli_syntax syntax = {
        "support-bundle", usage, options, ARRAY_COUNT(options), NULL, 0, 0};
    int code;
    if (cli_parse(&syntax, argc, argv, &code) < 0)
        return code;
    char *conf = mem_printf("%s/site.conf", b.dir);
    if (access(conf, R_OK) != 0)
        code = cli_error(CLI_DIR, "support-bundle: %s is not a site's directory: %s: %s", b.dir,
                         conf, strerror(errno));
    else
        code = CLI_OK;
    mem_free(conf);
    if (code != CLI_OK)
        return code;
    b.now_s = clock_wall_ns(&clock_os) / NS_PER_SEC;
    add_machine(&b);
    add_directory(&b);
    add_answer(&b, "status", "status.json");
    add_answer(&b, "wan.status", "wan.json");
    add_answer(&b, "versions.keep", "versions.json");
    add_answer(&b, "log", "log-levels.json");
    add_conflicts(&b);
    add_log(&b);
    tar_end(&b.tar);
    char *name = out ? mem_strdup(out)
                     : mem_printf("claudefs-support-%llu.tar", (unsigned long long)b.now_s);
    code = write_out(name, &b.tar);
    mem_free(name);
    buf_deinit(&b.tar);
    return code;
}
