/* posix-suite DIR [--filter x] [--skip x] [--list] [-v] [--keep]
 *
 * Checks what POSIX and Linux promise of a file system, on whatever DIR is: a local file system
 * first, where everything must hold, then a mount under test. Runs every group in a child of its
 * own with a time limit, so that a crash or a hang costs one group. Exit status 0 when nothing
 * failed, 1 when something did, 2 when it could not run. */
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/posix/posix_int.h"

static const struct posix_group *const all_groups[] = {
    path_groups,  open_groups, dir_groups,  link_groups, rename_groups, mode_groups,
    owner_groups, time_groups, size_groups, io_groups,   mmap_groups,   lock_groups,
    xattr_groups, acl_groups,  name_groups, stat_groups, node_groups,   many_groups,
};
#define ALL_COUNT (sizeof(all_groups) / sizeof(all_groups[0]))
#define GROUP_TIMEOUT_MS 300000
#define SKIP_MAX 32

struct options {
    const char *dir;
    const char *filter;
    const char *skip[SKIP_MAX];
    unsigned skip_count;
    bool list, keep;
};

struct counters *counters;
bool verbose;
const char *group_name = "";

static void usage(FILE *out)
{
    fprintf(out,
            "usage: posix-suite DIR [--filter GROUP] [--skip GROUP]... [--list] [-v] [--keep]\n"
            "Checks the file system that DIR is on; DIR must exist and be writable.\n"
            "--filter and --skip take a part of a group's name. As root it also acts as the\n"
            "users 65533 and 65532.\n");
}

static int parse(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--list") == 0) {
            o->list = true;
        } else if (strcmp(a, "-v") == 0) {
            verbose = true;
        } else if (strcmp(a, "--keep") == 0) {
            o->keep = true;
        } else if (strcmp(a, "--filter") == 0 && i + 1 < argc) {
            o->filter = argv[++i];
        } else if (strcmp(a, "--skip") == 0 && i + 1 < argc && o->skip_count < SKIP_MAX) {
            o->skip[o->skip_count++] = argv[++i];
        } else if (a[0] == '-' || o->dir != NULL) {
            fprintf(stderr, "posix-suite: %s: not understood\n", a);
            usage(stderr);
            return 2;
        } else {
            o->dir = a;
        }
    }
    if (o->dir == NULL && !o->list) {
        usage(stderr);
        return 2;
    }
    return 0;
}

static bool wanted(const struct options *o, const char *name)
{
    if (o->filter != NULL && strstr(name, o->filter) == NULL) {
        return false;
    }
    for (unsigned i = 0; i < o->skip_count; i++) {
        if (strstr(name, o->skip[i]) != NULL) {
            return false;
        }
    }
    return true;
}

/* The child: a process group of its own, so that what it leaves behind can be ended with it. */
static void run_child(const struct posix_group *g, const char *dir)
{
    if (setpgid(0, 0) != 0 || chdir(dir) != 0) {
        perror(dir);
        _exit(3);
    }
    umask(0);
    note(NULL);
    g->run();
    fflush(stdout);
    _exit(0);
}

static void wait_child(pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n = poll(&p, 1, GROUP_TIMEOUT_MS);
    if (pidfd >= 0) {
        close(pidfd);
    }
    if (n != 1) {
        (void)check_holds(HERE, "the group ends within five minutes", false);
    }
    /* Whatever the group left running, and the group itself if it hangs. */
    (void)kill(-pid, SIGKILL);
    int status = 0;
    if (waitpid(pid, &status, 0) == pid && n == 1 &&
        !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        char what[64];
        snprintf(what, sizeof(what), "the group ends by itself (status %#x)", (unsigned)status);
        (void)check_holds(HERE, what, false);
    }
}

static int run_group(const struct options *o, const struct posix_group *g)
{
    char dir[4096];
    int n = snprintf(dir, sizeof(dir), "%s/posix-%s-XXXXXX", o->dir, g->name);
    if (n < 0 || (size_t)n >= sizeof(dir) || mkdtemp(dir) == NULL || chmod(dir, 0777) != 0) {
        fprintf(stderr, "posix-suite: %s: cannot make a directory: %s\n", dir, strerror(errno));
        return 2;
    }
    group_name = g->name;
    struct counters before = *counters;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        perror("posix-suite: fork");
        return 2;
    }
    if (pid == 0) {
        run_child(g, dir);
    }
    wait_child(pid);
    if (!o->keep) {
        remove_tree(dir);
    }
    printf("%-18s %5d passed %4d failed %3d skipped\n", g->name, counters->passed - before.passed,
           counters->failed - before.failed, counters->skipped - before.skipped);
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    int rc = parse(argc, argv, &o);
    if (rc != 0) {
        return rc;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    counters =
        mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counters == MAP_FAILED) {
        perror("posix-suite: mmap");
        return 2;
    }
    if (!o.list && access(o.dir, R_OK | W_OK | X_OK) != 0) {
        fprintf(stderr, "posix-suite: %s: %s\n", o.dir, strerror(errno));
        return 2;
    }
    for (unsigned i = 0; i < ALL_COUNT; i++) {
        for (const struct posix_group *g = all_groups[i]; g->name != NULL; g++) {
            if (!wanted(&o, g->name)) {
                continue;
            }
            group_name = g->name;
            if (o.list) {
                printf("%s%s\n", g->name, g->needs_root ? " (root)" : "");
            } else if (g->needs_root && !is_root()) {
                skip("needs root");
            } else if (run_group(&o, g) != 0) {
                return 2;
            }
        }
    }
    if (o.list) {
        return 0;
    }
    printf("%d passed, %d failed, %d skipped\n", counters->passed, counters->failed,
           counters->skipped);
    return counters->failed == 0 ? 0 : 1;
}
