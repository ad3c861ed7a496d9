/* Many of everything, and several processes at once. */
#include <dirent.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/posix/posix.h"

#define MANY 10000

/* Creates f00000 to f<count - 1> in the directory; the number of failures. */
static int fill_dir(int dir, int count)
{
    int failed = 0;
    char name[16];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "f%05d", i);
        int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        failed += fd < 0;
        if (fd >= 0) {
            close(fd);
        }
    }
    return failed;
}

struct census {
    unsigned char times[MANY]; /* how often each name was seen */
    int others;                /* names that are none of ours, without . and .. */
};

static void take(struct census *c, const char *name)
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return;
    }
    char *end = NULL;
    long i = name[0] == 'f' ? strtol(name + 1, &end, 10) : -1;
    if (i < 0 || i >= MANY || *end != 0) {
        c->others++;
        return;
    }
    c->times[i]++;
}

/* Entries in [from, to) that were not seen exactly `want` times. */
static int wrong_in(const struct census *c, int from, int to, int want)
{
    int wrong = 0;
    for (int i = from; i < to; i++) {
        wrong += c->times[i] != want;
    }
    return wrong;
}

static void take_all(struct census *c, const char *path)
{
    memset(c, 0, sizeof(*c));
    DIR *d = opendir(path);
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        take(c, e->d_name);
    }
    if (d != NULL) {
        closedir(d);
    }
}

static struct census census;

static void test_big_dir(void)
{
    make_dir("d", 0755);
    int dir = open("d", O_RDONLY);
    EQ_AS("failed creates of 10000", 0, fill_dir(dir, MANY));
    take_all(&census, "d");
    EQ_AS("names not seen once", 0, wrong_in(&census, 0, MANY, 1));
    EQ_AS("other names", 0, census.others);
    FAILS(EEXIST, openat(dir, "f05000", O_CREAT | O_EXCL | O_WRONLY, 0644));
    FAILS(ENOENT, openat(dir, "f10000", O_RDONLY));
    FAILS2(ENOTEMPTY, EEXIST, rmdir("d"));
    HOLDS(exists("d/f00000") && exists("d/f09999"));
    OK(renameat(dir, "f05000", dir, "g"));
    HOLDS(!exists("d/f05000") && exists("d/g"));
    OK(renameat(dir, "g", dir, "f05000"));
    note("every second one removed");
    char name[16];
    int failed = 0;
    for (int i = 0; i < MANY; i += 2) {
        snprintf(name, sizeof(name), "f%05d", i);
        failed += unlinkat(dir, name, 0) != 0;
    }
    EQ(0, failed);
    EQ(MANY / 2, count_entries("d"));
    note("moved to another place");
    make_dir("e", 0755);
    OK(rename("d", "e/d"));
    EQ(MANY / 2, count_entries("e/d"));
    close(dir);
}

/* Removing every name as it is read: each is seen, none is left. */
static void test_remove_while_reading(void)
{
    enum {
        COUNT = 5000
    };
    make_dir("d", 0755);
    DIR *d = opendir("d");
    if (!HOLDS(d != NULL)) {
        return;
    }
    EQ(0, fill_dir(dirfd(d), COUNT));
    rewinddir(d);
    memset(&census, 0, sizeof(census));
    int failed = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        take(&census, e->d_name);
        failed += e->d_name[0] == 'f' && unlinkat(dirfd(d), e->d_name, 0) != 0;
    }
    EQ_AS("failed unlinks", 0, failed);
    EQ_AS("names not seen once", 0, wrong_in(&census, 0, COUNT, 1));
    closedir(d);
    EQ(0, count_entries("d"));
    OK(rmdir("d"));
}

/* While others come and go, what stays is seen exactly once. */
static void test_change_while_reading(void)
{
    make_dir("d", 0755);
    DIR *d = opendir("d");
    if (!HOLDS(d != NULL)) {
        return;
    }
    int dir = dirfd(d);
    EQ(0, fill_dir(dir, 3000));
    rewinddir(d);
    memset(&census, 0, sizeof(census));
    char name[32];
    int at = 0;
    for (struct dirent *e = readdir(d); e != NULL && at < 100000; e = readdir(d)) {
        take(&census, e->d_name);
        if (at % 10 == 0) {
            snprintf(name, sizeof(name), "x%06d", at);
            (void)close(openat(dir, name, O_CREAT | O_WRONLY, 0644));
        }
        if (at % 10 == 5 && at < 6000) {
            snprintf(name, sizeof(name), "x%06d", at - 5);
            (void)unlinkat(dir, name, 0);
        }
        at++;
    }
    closedir(d);
    EQ_AS("names that stayed and were not seen once", 0, wrong_in(&census, 0, 3000, 1));
    HOLDS_AS("it ends", at < 100000);
}

static void test_links(void)
{
    enum {
        COUNT = 1000
    };
    char name[16];
    int failed = 0;
    make_file("f", 0644, "content");
    for (int i = 1; i < COUNT; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        failed += link("f", name) != 0;
    }
    EQ(0, failed);
    EQ(COUNT, nlink_of("f"));
    EQ(st_of("f").st_ino, st_of("l999").st_ino);
    OK(truncate("l500", 3));
    EQ(3, size_of("l1"));
    for (int i = 1; i < COUNT; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        failed += unlink(name) != 0;
    }
    EQ(0, failed);
    EQ(1, nlink_of("f"));
    HOLDS(content_is("f", "con", 3));
}

static void test_dirs(void)
{
    enum {
        COUNT = 1000
    };
    char name[32];
    int failed = 0;
    make_dir("d", 0755);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "d/s%d", i);
        failed += mkdir(name, 0755) != 0;
    }
    EQ(0, failed);
    EQ(COUNT + 2, nlink_of("d"));
    EQ(COUNT, count_entries("d"));
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "d/s%d", i);
        failed += rmdir(name) != 0;
    }
    EQ(0, failed);
    EQ(2, nlink_of("d"));
    OK(rmdir("d"));
}

static void test_open(void)
{
    enum {
        COUNT = 500
    };
    static int fds[COUNT];
    char name[16];
    struct rlimit lim;
    OK(getrlimit(RLIMIT_NOFILE, &lim));
    lim.rlim_cur = lim.rlim_max;
    OK(setrlimit(RLIMIT_NOFILE, &lim));
    if (lim.rlim_cur < COUNT + 50) {
        skip("no more than %llu open files are allowed", (unsigned long long)lim.rlim_cur);
        return;
    }
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        fds[i] = open(name, O_CREAT | O_RDWR, 0644);
        wrong += fds[i] < 0 || write(fds[i], &i, sizeof(i)) != sizeof(i) || unlink(name) != 0;
    }
    EQ_AS("files that could not be made", 0, wrong);
    EQ(0, count_entries("."));
    for (int i = COUNT - 1; i >= 0; i--) {
        int got = -1;
        wrong += pread(fds[i], &got, sizeof(got), 0) != sizeof(got) || got != i;
        wrong += fst_of(fds[i]).st_nlink != 0;
        close(fds[i]);
    }
    EQ_AS("unlinked files with wrong content", 0, wrong);
}

enum {
    PROCS = 4,
    ROUNDS = 300
};

static int *shared_counts(void)
{
    void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return m == MAP_FAILED ? NULL : m;
}

/* Runs `work` in PROCS processes at once. */
static void together(void (*work)(int who, int *counts), int *counts)
{
    pid_t pids[PROCS];
    fflush(stdout);
    for (int p = 0; p < PROCS; p++) {
        pids[p] = fork();
        if (pids[p] == 0) {
            work(p, counts);
            as_end();
        }
    }
    for (int p = 0; p < PROCS; p++) {
        int status = -1;
        OK(waitpid(pids[p], &status, 0));
        EQ(0, status);
    }
}

static void add(int *count)
{
    __atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST);
}

static void race_create(int who, int *counts)
{
    char name[16], other[16];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        if (open_close(name, O_CREAT | O_EXCL | O_WRONLY, 0644) == 0) {
            add(&counts[0]);
        }
        snprintf(name, sizeof(name), "d%d", i);
        if (mkdir(name, 0755) == 0) {
            add(&counts[1]);
        }
        snprintf(name, sizeof(name), "l%d", i);
        if (symlink("x", name) == 0) {
            add(&counts[2]);
        }
        snprintf(name, sizeof(name), "own%d", who);
        snprintf(other, sizeof(other), "h%d", i);
        (void)open_close(name, O_CREAT | O_WRONLY, 0644);
        if (link(name, other) == 0) {
            add(&counts[3]);
        }
        if (open_close("same", O_CREAT | O_WRONLY, 0644) != 0) {
            add(&counts[4]);
        }
    }
}

static void race_remove(int who, int *counts)
{
    char name[16], to[16];
    (void)who;
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        if (unlink(name) == 0) {
            add(&counts[0]);
        }
        snprintf(name, sizeof(name), "d%d", i);
        if (rmdir(name) == 0) {
            add(&counts[1]);
        }
        snprintf(name, sizeof(name), "l%d", i);
        snprintf(to, sizeof(to), "m%d", i);
        if (rename(name, to) == 0) {
            add(&counts[2]);
        }
    }
}

/* Of several that create or remove one name at once, exactly one succeeds. */
static void test_races(void)
{
    int *counts = shared_counts();
    if (!HOLDS(counts != NULL)) {
        return;
    }
    together(race_create, counts);
    EQ_AS("exclusive creates", ROUNDS, counts[0]);
    EQ_AS("mkdirs", ROUNDS, counts[1]);
    EQ_AS("symlinks", ROUNDS, counts[2]);
    EQ_AS("links", ROUNDS, counts[3]);
    EQ_AS("plain creates that failed", 0, counts[4]);
    long links = 0;
    char name[16];
    for (int p = 0; p < PROCS; p++) {
        snprintf(name, sizeof(name), "own%d", p);
        links += nlink_of(name) - 1;
    }
    EQ_AS("link counts", ROUNDS, links);
    memset(counts, 0, 4096);
    together(race_remove, counts);
    EQ_AS("unlinks", ROUNDS, counts[0]);
    EQ_AS("rmdirs", ROUNDS, counts[1]);
    EQ_AS("renames", ROUNDS, counts[2]);
    EQ(2, nlink_of("."));
}

static void rename_about(int who, int *counts)
{
    char from[32], to[32];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(from, sizeof(from), "r%d/dir", (who + i) % PROCS);
        snprintf(to, sizeof(to), "r%d/dir", (who * 7 + i * 3 + 1) % PROCS);
        if (rename(from, to) == 0 && strcmp(from, to) != 0) {
            add(&counts[0]);
        } else if (errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST && errno != EINVAL &&
                   strcmp(from, to) != 0) {
            add(&counts[1]);
        }
        snprintf(from, sizeof(from), "r%d", who);
        snprintf(to, sizeof(to), "r%d/dir/in", (who + 1) % PROCS);
        if (rename(from, to) == 0) {
            add(&counts[2]);
            (void)rename(to, from);
        }
    }
}

/* Directories that are moved into one another by several processes stay one tree. */
static void test_rename_races(void)
{
    int *counts = shared_counts();
    if (!HOLDS(counts != NULL)) {
        return;
    }
    char name[32];
    for (int p = 0; p < PROCS; p++) {
        snprintf(name, sizeof(name), "r%d", p);
        make_dir(name, 0755);
        snprintf(name, sizeof(name), "r%d/k%d", p, p); /* not empty, so that none is replaced */
        make_file(name, 0644, "");
    }
    make_dir("r0/dir", 0755);
    make_file("r0/dir/file", 0644, "kept");
    together(rename_about, counts);
    /* Everything is still reachable: the directories and the file in each, dir and its file. */
    FILE *found = popen("find . -mindepth 1 | sed 's:.*/::' | sort | tr '\\n' ' '", "r");
    char text[200] = "";
    if (HOLDS(found != NULL)) {
        HOLDS(fgets(text, sizeof(text), found) != NULL);
        pclose(found);
    }
    int words = 0;
    for (const char *c = text; *c != 0; c++) {
        words += *c == ' ';
    }
    HOLDS_AS(text, strstr(text, "dir ") != NULL && strstr(text, "file ") != NULL);
    EQ_AS(text, 2 * PROCS + 2, words); /* a directory that could not move back is called "in" */
    EQ_AS("errors no rule gives", 0, counts[1]);
}

const struct posix_group many_groups[] = {
    {"many-entries", test_big_dir, false},
    {"many-remove-while-reading", test_remove_while_reading, false},
    {"many-change-while-reading", test_change_while_reading, false},
    {"many-links", test_links, false},
    {"many-dirs", test_dirs, false},
    {"many-open", test_open, false},
    {"many-races", test_races, false},
    {"many-rename-races", test_rename_races, false},
    {0},
};
