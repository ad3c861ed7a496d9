/* rename and renameat2: every pair of types, flags, rights, times, atomicity. */
#include <sys/wait.h>

#include "tests/posix/posix.h"

enum kind {
    ABSENT,
    FILE_,
    DIR_,
    FULL_DIR,
    LINK,
    DIR_LINK,
    FIFO,
    KIND_COUNT
};
static const char *const kind_names[] = {
    "nothing",          "a file", "an empty directory",
    "a full directory", "a link", "a link to a directory",
    "a fifo",
};

static void make_kind(const char *path, enum kind k)
{
    char inner[64];
    switch (k) {
    case ABSENT:
        break;
    case FILE_:
        make_file(path, 0644, path);
        break;
    case FULL_DIR:
        make_dir(path, 0755);
        snprintf(inner, sizeof(inner), "%s/inner", path);
        make_file(inner, 0644, "");
        break;
    case DIR_:
        make_dir(path, 0755);
        break;
    case LINK:
        OK(symlink("nowhere", path));
        break;
    case DIR_LINK:
        OK(symlink(".", path));
        break;
    case FIFO:
        OK(mkfifo(path, 0644));
        break;
    case KIND_COUNT:
        break;
    }
}

static void clear(const char *path)
{
    char inner[64];
    snprintf(inner, sizeof(inner), "%s/inner", path);
    if (unlink(path) != 0) {
        (void)unlink(inner);
        (void)rmdir(path);
    }
    EQ_AS("cleared", 0, exists(path));
}

static bool is_dir(enum kind k)
{
    return k == DIR_ || k == FULL_DIR;
}

/* 0 or the errno of rename. */
static int want_of(enum kind from, enum kind to)
{
    if (from == ABSENT) {
        return ENOENT;
    }
    if (to == ABSENT) {
        return 0;
    }
    if (is_dir(from) && !is_dir(to)) {
        return ENOTDIR;
    }
    if (!is_dir(from) && is_dir(to)) {
        return EISDIR;
    }
    return to == FULL_DIR ? ENOTEMPTY : 0;
}

static void one_pair(enum kind from, enum kind to)
{
    note("%s onto %s", kind_names[from], kind_names[to]);
    make_kind("from", from);
    make_kind("to", to);
    struct stat from_before = {0}, to_before = {0};
    (void)lstat("from", &from_before);
    (void)lstat("to", &to_before);
    int want = want_of(from, to);
    if (want == 0) {
        OK(rename("from", "to"));
        HOLDS(!exists("from"));
        struct stat now = st_of("to");
        EQ(from_before.st_ino, now.st_ino);
        EQ(from_before.st_mode, now.st_mode);
        EQ(from_before.st_nlink, now.st_nlink);
    } else {
        FAILS2(want, want == ENOTEMPTY ? EEXIST : 0, rename("from", "to"));
        EQ(from != ABSENT, exists("from"));
        EQ(to_before.st_ino, to == ABSENT ? 0 : st_of("to").st_ino);
    }
    clear("from");
    clear("to");
}

static void test_pairs(void)
{
    for (enum kind from = ABSENT; from < KIND_COUNT; from++) {
        for (enum kind to = ABSENT; to < KIND_COUNT; to++) {
            one_pair(from, to);
        }
    }
}

static void exchange_pair(enum kind from, enum kind to)
{
    note("%s against %s", kind_names[from], kind_names[to]);
    make_kind("from", from);
    make_kind("to", to);
    if (from == ABSENT || to == ABSENT) {
        FAILS(ENOENT, renameat2(AT_FDCWD, "from", AT_FDCWD, "to", RENAME_EXCHANGE));
        EQ(from != ABSENT, exists("from"));
        EQ(to != ABSENT, exists("to"));
    } else {
        struct stat a = st_of("from"), b = st_of("to");
        OK(renameat2(AT_FDCWD, "from", AT_FDCWD, "to", RENAME_EXCHANGE));
        EQ(a.st_ino, st_of("to").st_ino);
        EQ(b.st_ino, st_of("from").st_ino);
        EQ(a.st_mode, st_of("to").st_mode);
        EQ(b.st_mode, st_of("from").st_mode);
    }
    clear("from");
    clear("to");
}

static void test_exchange(void)
{
    for (enum kind from = ABSENT; from < KIND_COUNT; from++) {
        for (enum kind to = ABSENT; to < KIND_COUNT; to++) {
            exchange_pair(from, to);
        }
    }
    note("link counts of parents");
    make_dir("a", 0755);
    make_dir("b", 0755);
    make_dir("a/d", 0755);
    make_file("b/f", 0644, "f");
    OK(renameat2(AT_FDCWD, "a/d", AT_FDCWD, "b/f", RENAME_EXCHANGE));
    EQ(2, nlink_of("a"));
    EQ(3, nlink_of("b"));
    EQ(st_of("b").st_ino, st_of("b/f/..").st_ino);
    HOLDS(content_is("a/d", "f", 1));
    note("an ancestor against what is in it");
    make_dir("a/x", 0755);
    make_dir("a/x/y", 0755);
    FAILS(EINVAL, renameat2(AT_FDCWD, "a", AT_FDCWD, "a/x/y", RENAME_EXCHANGE));
    FAILS2(EINVAL, ENOTEMPTY, renameat2(AT_FDCWD, "a/x/y", AT_FDCWD, "a", RENAME_EXCHANGE));
    note("the same name, and two names of one file");
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "a", RENAME_EXCHANGE));
    OK(link("a/d", "a/e"));
    OK(renameat2(AT_FDCWD, "a/d", AT_FDCWD, "a/e", RENAME_EXCHANGE));
    EQ(2, nlink_of("a/d"));
    EQ(2, nlink_of("a/e"));
}

static void test_flags(void)
{
    make_file("a", 0644, "a");
    make_file("b", 0644, "b");
    make_dir("d", 0755);
    OK(symlink("nowhere", "l"));
    OK(link("a", "a2"));
    note("RENAME_NOREPLACE");
    FAILS(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
    FAILS(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "d", RENAME_NOREPLACE));
    FAILS(EEXIST, renameat2(AT_FDCWD, "d", AT_FDCWD, "a", RENAME_NOREPLACE));
    FAILS(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "l", RENAME_NOREPLACE));
    FAILS(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "a", RENAME_NOREPLACE));
    FAILS(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "a2", RENAME_NOREPLACE));
    FAILS(ENOENT, renameat2(AT_FDCWD, "x", AT_FDCWD, "y", RENAME_NOREPLACE));
    FAILS(EINVAL, renameat2(AT_FDCWD, "d", AT_FDCWD, "d/s", RENAME_NOREPLACE));
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
    HOLDS(!exists("a"));
    OK(renameat2(AT_FDCWD, "d", AT_FDCWD, "e", RENAME_NOREPLACE));
    HOLDS(content_is("b", "b", 1));
    note("combinations");
    FAILS(EINVAL, renameat2(AT_FDCWD, "c", AT_FDCWD, "b", RENAME_NOREPLACE | RENAME_EXCHANGE));
    FAILS(EINVAL, renameat2(AT_FDCWD, "c", AT_FDCWD, "b", 0x100));
    FAILS(EINVAL, renameat2(AT_FDCWD, "c", AT_FDCWD, "b", RENAME_WHITEOUT | RENAME_EXCHANGE));
    HOLDS(content_is("c", "a", 1));
}

static void test_tree(void)
{
    make_dir("a", 0755);
    make_dir("a/b", 0755);
    make_dir("a/b/c", 0755);
    make_dir("x", 0755);
    note("into itself");
    FAILS(EINVAL, rename("a", "a/new"));
    FAILS(EINVAL, rename("a", "a/b"));
    FAILS(EINVAL, rename("a", "a/b/new"));
    FAILS(EINVAL, rename("a", "a/b/c/new"));
    FAILS(EINVAL, rename("a/b", "a/b/c/new"));
    FAILS(EINVAL, rename("a", "x/../a/new"));
    note("onto an ancestor");
    FAILS2(ENOTEMPTY, EEXIST, rename("a/b", "a"));
    FAILS2(ENOTEMPTY, EEXIST, rename("a/b/c", "a"));
    note("dots");
    FAILS2(EBUSY, EINVAL, rename("a/.", "new"));
    FAILS2(EBUSY, EINVAL, rename("a/..", "new"));
    FAILS2(EBUSY, EINVAL, rename("x", "a/."));
    FAILS2(EBUSY, EINVAL, rename("x", "a/.."));
    FAILS2(EBUSY, EINVAL, rename(".", "new"));
    FAILS2(EBUSY, EINVAL, rename("..", "new"));
    note("slashes");
    make_file("f", 0644, "f");
    FAILS(ENOTDIR, rename("f/", "g"));
    FAILS(ENOTDIR, rename("f", "g/"));
    FAILS(ENOTDIR, rename("f", "f/"));
    OK(rename("x/", "y/"));
    HOLDS(exists("y"));
    note("onto itself: nothing happens");
    TIMES(".", T_A_ANY, rename("f", "f"));
    TIMES("a", T_A_ANY, rename("a", "a"));
    HOLDS(content_is("f", "f", 1));
    note("moved to another directory: .. follows, contents stay");
    make_file("a/b/c/deep", 0644, "deep");
    OK(rename("a/b", "y/b"));
    EQ(st_of("y").st_ino, st_of("y/b/..").st_ino);
    EQ(2, nlink_of("a"));
    EQ(3, nlink_of("y"));
    HOLDS(content_is("y/b/c/deep", "deep", 4));
    OK(rename("a", "y/b/c/a"));
    FAILS(EINVAL, rename("y", "y/b/c/a/y"));
    note("a working directory that moves");
    PROC
    {
        char path[4096];
        OK(chdir("y/b/c"));
        OK(rename("../../../y/b", "../../../moved"));
        HOLDS(getcwd(path, sizeof(path)) != NULL && strstr(path, "/moved/c") != NULL);
        HOLDS(exists("deep"));
        HOLDS(exists("../../moved"));
        EQ(st_of("../../moved").st_ino, st_of("..").st_ino);
    }
    note("to another file system");
    FAILS(EXDEV, rename("/proc/self/status", "status"));
}

static void test_same_inode(void)
{
    make_file("f", 0644, "content");
    OK(link("f", "g"));
    make_dir("d", 0755);
    OK(link("f", "d/h"));
    OK(rename("f", "g"));
    HOLDS_AS("both names stay", exists("f") && exists("g"));
    EQ(3, nlink_of("f"));
    OK(rename("f", "d/h"));
    HOLDS_AS("in two directories too", exists("f") && exists("d/h"));
    EQ(3, nlink_of("f"));
    OK(symlink("s", "s1"));
    OK(link("s1", "s2"));
    OK(rename("s1", "s2"));
    HOLDS(exists("s1") && exists("s2"));
    note("a file onto the link that points at it");
    OK(symlink("f", "to-f"));
    OK(rename("f", "to-f"));
    HOLDS(!exists("f"));
    HOLDS(S_ISREG(st_of("to-f").st_mode));
    OK(symlink("to-f", "back"));
    OK(rename("back", "to-f"));
    FAILS(ELOOP, open("to-f", O_RDONLY));
}

static void test_replaced(void)
{
    char got[8] = "";
    make_file("a", 0644, "new");
    make_file("b", 0644, "old");
    OK(link("b", "b2"));
    int fd = open("b", O_RDWR);
    int moved = open("a", O_RDWR);
    tick();
    struct stat before = fst_of(fd);
    OK(rename("a", "b"));
    struct stat after = fst_of(fd);
    EQ(1, after.st_nlink);
    HOLDS_AS("ctime of the replaced file moves",
             after.st_ctim.tv_sec != before.st_ctim.tv_sec ||
                 after.st_ctim.tv_nsec != before.st_ctim.tv_nsec);
    EQ(3, read(fd, got, 8));
    TEXT("old", got);
    HOLDS(content_is("b2", "old", 3));
    note("a descriptor follows its file, not the name");
    EQ(3, pwrite(moved, "NEW", 3, 0));
    HOLDS(content_is("b", "NEW", 3));
    make_file("c", 0644, "last");
    OK(rename("c", "b2"));
    EQ(0, fst_of(fd).st_nlink);
    EQ(3, pread(fd, got, 8, 0));
    close(fd);
    close(moved);
    note("a replaced directory");
    make_dir("d", 0755);
    make_dir("e", 0755);
    make_file("d/in", 0644, "");
    fd = open("e", O_RDONLY);
    OK(rename("d", "e"));
    EQ(0, fst_of(fd).st_nlink);
    FAILS(ENOENT, openat(fd, "x", O_CREAT | O_RDWR, 0644));
    EQ(1, count_entries("e"));
    close(fd);
}

static void test_times(void)
{
    make_dir("d", 0755);
    make_dir("e", 0755);
    make_dir("d/s", 0755);
    make_file("d/f", 0644, "");
    make_file("e/t", 0644, "");
    struct stat e = st_of("e"), f = st_of("d/f");
    TIMES("d", T_M | T_C | T_A_ANY, rename("d/f", "e/f"));
    (void)check_times(HERE, "the target's directory", &e, "e", T_M | T_C | T_A_ANY);
    (void)check_times(HERE, "the renamed file", &f, "e/f", T_C | T_A_ANY);
    TIMES("e", T_M | T_C | T_A_ANY, rename("e/f", "e/t"));
    struct stat s = st_of("d/s");
    TIMES("d", T_M | T_C | T_A_ANY, rename("d/s", "d/u"));
    (void)check_times(HERE, "the renamed directory", &s, "d/u", T_C | T_A_ANY);
    s = st_of("d/u");
    TIMES("e", T_M | T_C | T_A_ANY, rename("d/u", "e/u"));
    s.st_mtim = st_of("e/u").st_mtim; /* the change of .. may count as a change of the directory */
    (void)check_times(HERE, "the moved directory", &s, "e/u", T_C | T_A_ANY);
    TIMES_FAIL("e", ENOENT, rename("e/missing", "d/x"));
    TIMES_FAIL("e", ENOTDIR, rename("e/u", "e/t"));
}

static void test_rights(void)
{
    make_dir_owned("open", 0777, 0, 0);
    make_dir_owned("closed", 0755, 0, 0);
    make_owned("open/f", 0600, U1, (gid_t)U1);
    make_owned("closed/f", 0600, U1, (gid_t)U1);
    make_dir_owned("open/mine", 0755, U1, (gid_t)U1);
    make_dir_owned("open/locked", 0555, U1, (gid_t)U1);
    make_dir_owned("open/foreign", 0755, U2, (gid_t)U2);
    make_dir_owned("into", 0777, 0, 0);
    AS(U1)
    {
        FAILS(EACCES, rename("open/f", "closed/g"));
        FAILS(EACCES, rename("closed/f", "open/g"));
        FAILS(EACCES, rename("closed/f", "closed/g"));
        FAILS(EACCES, rename("open/f", "closed/f"));
        FAILS(EACCES, renameat2(AT_FDCWD, "open/f", AT_FDCWD, "closed/f", RENAME_EXCHANGE));
        OK(rename("open/f", "into/f"));
        note("a directory that moves to another parent has its .. written");
        OK(rename("open/mine", "into/mine"));
        FAILS(EACCES, rename("open/locked", "into/locked"));
        FAILS(EACCES, rename("open/foreign", "into/foreign"));
        OK(rename("open/locked", "open/locked2"));
        OK(rename("open/foreign", "open/foreign2"));
    }
    note(NULL);
    OK(rename("open/locked2", "into/locked2"));
    HOLDS(exists("closed/f"));
}

static void test_sticky(void)
{
    make_dir_owned("st", 01777, 0, 0);
    make_dir_owned("o", 0777, 0, 0);
    make_owned("st/theirs", 0666, U2, (gid_t)U2);
    make_owned("st/mine", 0666, U1, (gid_t)U1);
    make_owned("o/mine", 0666, U1, (gid_t)U1);
    make_owned("o/theirs", 0666, U2, (gid_t)U2);
    AS(U1)
    {
        FAILS(EPERM, rename("st/theirs", "o/x"));
        FAILS(EPERM, rename("o/mine", "st/theirs"));
        FAILS(EPERM, rename("st/mine", "st/theirs"));
        FAILS(EPERM, renameat2(AT_FDCWD, "o/mine", AT_FDCWD, "st/theirs", RENAME_EXCHANGE));
        FAILS(EPERM, renameat2(AT_FDCWD, "st/theirs", AT_FDCWD, "o/mine", RENAME_EXCHANGE));
        OK(rename("o/theirs", "st/moved"));
        FAILS(EPERM, rename("st/moved", "o/back"));
        OK(rename("o/mine", "st/mine"));
        OK(rename("st/mine", "o/out"));
    }
}

/* The target of rename is never missing and never half: a reader opens it all the time. */
static void test_atomic(void)
{
    enum {
        ROUNDS = 500
    };
    make_file("target", 0644, "00000000");
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char text[16];
        for (int i = 0; i < ROUNDS; i++) {
            snprintf(text, sizeof(text), "%08d", i);
            make_file("temp", 0644, text);
            OK_AS("rename over the target", rename("temp", "target"));
        }
        as_end();
    }
    int reads = 0, missing = 0, torn = 0, back = 0, last = 0, status = 0;
    pid_t ended = 0;
    while (ended == 0) {
        ended = waitpid(pid, &status, WNOHANG);
        char text[16] = "";
        int fd = open("target", O_RDONLY);
        missing += fd < 0;
        if (fd >= 0) {
            torn += read(fd, text, sizeof(text)) != 8;
            close(fd);
            int now = (int)strtol(text, NULL, 10);
            back += now < last;
            last = now;
        }
        reads++;
    }
    EQ(0, status);
    EQ_AS("opens that did not find the target", 0, missing);
    EQ_AS("reads of half a file", 0, torn);
    EQ_AS("reads of an older file than before", 0, back);
    EQ_AS("the last one is there at the end", ROUNDS - 1, last);
    HOLDS(reads > 0);
}

const struct posix_group rename_groups[] = {
    {"rename-pairs", test_pairs, false},
    {"rename-exchange", test_exchange, false},
    {"rename-flags", test_flags, false},
    {"rename-tree", test_tree, false},
    {"rename-same-inode", test_same_inode, false},
    {"rename-replaced", test_replaced, false},
    {"rename-times", test_times, false},
    {"rename-rights", test_rights, true},
    {"rename-sticky", test_sticky, true},
    {"rename-atomic", test_atomic, false},
    {0},
};
