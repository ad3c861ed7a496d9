/* The harness: checks, users, helpers. See posix.h. */
#include <dirent.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "tests/posix/posix_int.h"

static char current_note[200];

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static const char *errno_name(int num)
{
    const char *name = strerrorname_np(num);
    return name == NULL ? "unknown errno" : name;
}

static bool count(bool good, struct where at, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static bool count(bool good, struct where at, const char *what, const char *fmt, ...)
{
    __atomic_fetch_add(good ? &counters->passed : &counters->failed, 1, __ATOMIC_RELAXED);
    if (good && !verbose) {
        return good;
    }
    char came[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(came, sizeof(came), fmt, ap);
    va_end(ap);
    printf("%s %s %s:%d: %s%s%.200s: %s\n", good ? "ok  " : "FAIL", group_name, base_name(at.file),
           at.line, current_note, current_note[0] == 0 ? "" : ": ", what, came);
    return good;
}

long check_ok(struct where at, const char *what, long got)
{
    int num = errno;
    count(got >= 0, at, what, "expected success, got %s", got >= 0 ? "it" : errno_name(num));
    return got;
}

void check_fails(struct where at, const char *what, long got, int want, int also)
{
    int num = errno;
    char expected[80];
    snprintf(expected, sizeof(expected), "%s%s%s", errno_name(want), also == 0 ? "" : " or ",
             also == 0 ? "" : errno_name(also));
    if (got != -1) {
        count(false, at, what, "expected %s, got success (%ld)", expected, got);
        return;
    }
    count(num == want || (also != 0 && num == also), at, what, "expected %s, got %s", expected,
          errno_name(num));
}

void check_eq(struct where at, const char *what, long long want, long long got)
{
    count(want == got, at, what, "expected %lld, got %lld", want, got);
}

void check_octal(struct where at, const char *what, unsigned want, unsigned got)
{
    count(want == got, at, what, "expected 0%o, got 0%o", want, got);
}

void check_text(struct where at, const char *what, const char *want, const char *got)
{
    count(strcmp(want, got) == 0, at, what, "expected \"%s\", got \"%s\"", want, got);
}

bool check_holds(struct where at, const char *what, bool got)
{
    return count(got, at, what, "expected true, got %s", got ? "true" : "false");
}

void note(const char *fmt, ...)
{
    current_note[0] = 0;
    if (fmt != NULL) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(current_note, sizeof(current_note), fmt, ap);
        va_end(ap);
    }
}

void skip(const char *fmt, ...)
{
    char why[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    __atomic_fetch_add(&counters->skipped, 1, __ATOMIC_RELAXED);
    printf("skip %s: %s\n", group_name, why);
}

bool offered(const char *what, long got)
{
    if (got < 0 && errno == EOPNOTSUPP) {
        skip("%s is not offered here (EOPNOTSUPP)", what);
        return false;
    }
    return true;
}

bool is_root(void)
{
    return geteuid() == 0;
}

static void wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        char what[64];
        snprintf(what, sizeof(what), "a child process ends by itself (status %#x)",
                 (unsigned)status);
        (void)check_holds(HERE, what, false);
    }
}

int proc_begin(void)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        (void)check_holds(HERE, "fork", false);
        return 0;
    }
    if (pid > 0) {
        wait_for(pid);
        return 0;
    }
    return 1;
}

int as_begin(uid_t user)
{
    if (!is_root()) {
        skip("a part that acts as another user needs root");
        return 0;
    }
    if (proc_begin() == 0) {
        return 0;
    }
    gid_t groups[2] = {(gid_t)user, SHARED_GID};
    if (setgroups(user == U1 ? 2 : 1, groups) != 0 || setresgid(user, user, user) != 0 ||
        setresuid(user, user, user) != 0) {
        perror("posix-suite: becoming another user");
        _exit(3);
    }
    return 1;
}

void as_end(void)
{
    fflush(stdout);
    _exit(0);
}

int make_file(const char *path, mode_t mode, const char *content)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    if (fd < 0) {
        (void)check_ok(HERE, path, fd);
        return -1;
    }
    size_t len = strlen(content);
    bool good = write(fd, content, len) == (ssize_t)len && fchmod(fd, mode) == 0;
    if (close(fd) != 0 || !good) {
        (void)check_ok(HERE, path, -1);
        return -1;
    }
    return 0;
}

void make_dir(const char *path, mode_t mode)
{
    if (mkdir(path, 0777) != 0 || chmod(path, mode) != 0) {
        (void)check_ok(HERE, path, -1);
    }
}

void make_owned(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    if (make_file(path, 0600, "content") != 0 || lchown(path, uid, gid) != 0 ||
        chmod(path, mode) != 0) {
        (void)check_ok(HERE, path, -1);
    }
}

void make_dir_owned(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    if (mkdir(path, 0700) != 0 || lchown(path, uid, gid) != 0 || chmod(path, mode) != 0) {
        (void)check_ok(HERE, path, -1);
    }
}

struct stat st_of(const char *path)
{
    struct stat st = {0};
    if (lstat(path, &st) != 0) {
        (void)check_ok(HERE, path, -1);
    }
    return st;
}

struct stat fst_of(int fd)
{
    struct stat st = {0};
    if (fstat(fd, &st) != 0) {
        (void)check_ok(HERE, "fstat", -1);
    }
    return st;
}

unsigned mode_of(const char *path)
{
    return st_of(path).st_mode & 07777u;
}

long long size_of(const char *path)
{
    return (long long)st_of(path).st_size;
}

long nlink_of(const char *path)
{
    return (long)st_of(path).st_nlink;
}

int open_close(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags, mode);
    return fd < 0 ? -1 : close(fd);
}

bool content_is(const char *path, const void *want, size_t len)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        return false;
    }
    char *got = malloc(len + 1);
    ssize_t n = got == NULL ? -1 : read(fd, got, len + 1);
    bool same = n == (ssize_t)len && memcmp(got, want, len) == 0;
    free(got);
    close(fd);
    return same;
}

bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

int count_entries(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) {
        return -1;
    }
    int n = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(d);
    return n;
}

void name_of_len(char *out, size_t len, char fill)
{
    memset(out, fill, len);
    out[len] = 0;
}

bool acl_supported(void)
{
    char value[4];
    return getxattr(".", "system.posix_acl_access", value, 0) >= 0 || errno != EOPNOTSUPP;
}

long sysctl_of(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        return 0;
    }
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    return n <= 0 ? 0 : strtol(text, NULL, 10);
}

static int64_t coarse_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void tick(void)
{
    /* Local file systems stamp with the coarse clock, whose step is at most 10 ms. */
    int64_t start = coarse_ns();
    while (coarse_ns() - start < 11000000) {
        (void)poll(NULL, 0, 1);
    }
}

static int compare_time(struct timespec a, struct timespec b)
{
    if (a.tv_sec != b.tv_sec) {
        return a.tv_sec < b.tv_sec ? -1 : 1;
    }
    return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec;
}

static void check_time(struct where at, const char *what, const char *which, bool moves, int cmp)
{
    count(moves ? cmp > 0 : cmp == 0, at, what, "expected %s to %s, but it %s", which,
          moves ? "move forward" : "stay",
          cmp > 0   ? "moved"
          : cmp < 0 ? "went back"
                    : "stayed");
}

struct stat check_times(
    struct where at, const char *what, const struct stat *before, const char *path, unsigned moved)
{
    struct stat now = st_of(path);
    if ((moved & T_A_ANY) == 0) {
        check_time(at, what, "atime", (moved & T_A) != 0,
                   compare_time(now.st_atim, before->st_atim));
    }
    check_time(at, what, "mtime", (moved & T_M) != 0, compare_time(now.st_mtim, before->st_mtim));
    check_time(at, what, "ctime", (moved & T_C) != 0, compare_time(now.st_ctim, before->st_ctim));
    return now;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    int rc = type == FTW_DP || type == FTW_DNR ? rmdir(path) : unlink(path);
    if (rc != 0 && errno != ENOENT) {
        fprintf(stderr, "posix-suite: cannot remove %s: %s\n", path, strerror(errno));
    }
    return 0;
}

void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}
