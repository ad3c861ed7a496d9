/* Directories: mkdir, rmdir, reading, positions, link counts. */
#include <dirent.h>
#include <sys/syscall.h>

#include "tests/posix/posix.h"

static void test_mkdir(void)
{
    static const mode_t masks[] = {0, 022, 077, 0777};
    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
        note("umask 0%o", masks[i]);
        umask(masks[i]);
        OK(mkdir("d", 0777));
        MODE(0777 & ~masks[i], "d");
        OK(rmdir("d"));
    }
    umask(0);
    note(NULL);
    OK(mkdir("sticky", 01755));
    MODE(01755, "sticky");
    OK(mkdir("bits", 06755));
    MODE(0755, "bits");
    OK(mkdir("slash/", 0755));
    HOLDS(S_ISDIR(st_of("slash").st_mode));
    EQ(2, nlink_of("slash"));
    EQ(geteuid(), st_of("slash").st_uid);
    EQ(getegid(), st_of("slash").st_gid);
    EQ(0, count_entries("slash"));
    FAILS(EEXIST, mkdir(".", 0755));
    FAILS(EEXIST, mkdir("..", 0755));
    FAILS(EEXIST, mkdir("slash/.", 0755));
    FAILS(EEXIST, mkdir("/", 0755));
    FAILS(ENOENT, mkdir("missing/.", 0755));
    OK(symlink("nowhere", "dangling"));
    FAILS(EEXIST, mkdir("dangling", 0755));
    HOLDS(!exists("nowhere"));
    note("through a dangling link with a slash");
    FAILS2(EEXIST, ENOENT, mkdir("dangling/", 0755));
    note("times");
    TIMES(".", T_M | T_C | T_A_ANY, mkdir("t", 0755));
    TIMES(".", T_M | T_C | T_A_ANY, rmdir("t"));
    TIMES_FAIL(".", EEXIST, mkdir("slash", 0755));
}

static void test_nlink(void)
{
    char name[32];
    make_dir("d", 0755);
    for (int i = 1; i <= 10; i++) {
        snprintf(name, sizeof(name), "d/s%d", i);
        OK_AS("mkdir", mkdir(name, 0755));
        EQ_AS("links of the parent", 2 + i, nlink_of("d"));
    }
    note("files and links do not count");
    make_file("d/f", 0644, "");
    OK(symlink("s1", "d/l"));
    EQ(12, nlink_of("d"));
    note("rename");
    make_dir("e", 0755);
    OK(rename("d/s1", "e/s1"));
    EQ(11, nlink_of("d"));
    EQ(3, nlink_of("e"));
    OK(rename("d/s2", "d/s3"));
    EQ_AS("replaced an empty one", 10, nlink_of("d"));
    OK(rename("d/s3", "e/s1"));
    EQ(9, nlink_of("d"));
    EQ(3, nlink_of("e"));
    note("rmdir");
    OK(rmdir("e/s1"));
    EQ(2, nlink_of("e"));
    int fd = open("e", O_RDONLY);
    OK(rmdir("e"));
    EQ(0, fst_of(fd).st_nlink);
    close(fd);
}

static void test_rmdir(void)
{
    make_dir("d", 0755);
    make_file("d/f", 0644, "");
    FAILS2(ENOTEMPTY, EEXIST, rmdir("d"));
    OK(unlink("d/f"));
    make_dir("d/sub", 0755);
    FAILS2(ENOTEMPTY, EEXIST, rmdir("d"));
    FAILS(EINVAL, rmdir("d/sub/."));
    FAILS2(ENOTEMPTY, EEXIST, rmdir("d/sub/.."));
    FAILS(EINVAL, rmdir("."));
    FAILS2(ENOTEMPTY, EEXIST, rmdir(".."));
    OK(rmdir("d/sub/"));
    OK(symlink("nowhere", "d/l"));
    FAILS2(ENOTEMPTY, EEXIST, rmdir("d"));
    OK(unlink("d/l"));
    note("a link to a directory");
    OK(symlink("d", "ld"));
    FAILS(ENOTDIR, rmdir("ld"));
    FAILS(ENOTDIR, rmdir("ld/"));
    HOLDS(exists("d"));
    note("twice");
    OK(rmdir("d"));
    FAILS(ENOENT, rmdir("d"));
    FAILS2(EBUSY, EACCES, rmdir("/proc"));
    note("a mode without any right does not protect from the parent's owner");
    make_dir("none", 0);
    OK(rmdir("none"));
    note("an open file of a removed directory");
    make_dir("o", 0755);
    make_file("o/f", 0644, "kept");
    int fd = open("o/f", O_RDONLY);
    OK(unlink("o/f"));
    OK(rmdir("o"));
    char got[8] = "";
    EQ(4, read(fd, got, sizeof(got)));
    TEXT("kept", got);
    close(fd);
}

/* A directory that is removed while open or current is empty and takes nothing any more. */
static void test_removed(void)
{
    struct stat st;
    char path[4096];
    make_dir("d", 0755);
    int fd = open("d", O_RDONLY | O_DIRECTORY);
    OK(fd);
    PROC
    {
        OK(chdir("d"));
        OK(rmdir("../d"));
        FAILS_AS("getcwd", ENOENT, getcwd(path, sizeof(path)) == NULL ? -1 : 0);
        FAILS(ENOENT, open("f", O_CREAT | O_RDWR, 0644));
        FAILS(ENOENT, mkdir("s", 0755));
        FAILS(ENOENT, symlink("x", "l"));
        FAILS(ENOENT, mkfifo("p", 0644));
        FAILS(ENOENT, link("../file", "hard"));
        FAILS(ENOENT, rename("../file", "moved"));
        FAILS(ENOENT, lstat("absent", &st));
        OK(stat(".", &st));
        EQ(0, st.st_nlink);
    }
    FAILS(ENOENT, openat(fd, "f", O_CREAT | O_RDWR, 0644));
    FAILS(ENOENT, mkdirat(fd, "s", 0755));
    EQ(0, fst_of(fd).st_nlink);
    OK(fchmod(fd, 0700));
    DIR *d = fdopendir(fd);
    HOLDS(d != NULL);
    int n = 0;
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    EQ(0, n);
    if (d != NULL) {
        closedir(d);
    }
    note("a new directory of the same name is another one");
    make_dir("e", 0755);
    fd = open("e", O_RDONLY);
    OK(rmdir("e"));
    OK(mkdir("e", 0755));
    FAILS(ENOENT, openat(fd, "f", O_CREAT | O_RDWR, 0644));
    EQ(0, count_entries("e"));
    close(fd);
}

static unsigned type_of(const struct stat *st)
{
    return (unsigned)IFTODT(st->st_mode);
}

static void test_entries(void)
{
    make_dir("d", 0755);
    make_file("d/f", 0644, "");
    make_dir("d/s", 0755);
    OK(symlink("f", "d/l"));
    OK(mkfifo("d/p", 0644));
    OK(mknod("d/k", S_IFSOCK | 0644, 0));
    OK(link("d/f", "d/h"));
    DIR *d = opendir("d");
    HOLDS(d != NULL);
    int dots = 0, all = 0;
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        struct stat st;
        note("entry %s", e->d_name);
        OK(fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW));
        EQ_AS("d_ino against st_ino", st.st_ino, e->d_ino);
        EQ_AS("d_type against st_mode", type_of(&st), e->d_type);
        dots += strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        all++;
    }
    note(NULL);
    EQ_AS("entries . and ..", 2, dots);
    EQ_AS("entries", 8, all);
    if (d != NULL) {
        errno = 0;
        HOLDS_AS("readdir at the end", readdir(d) == NULL && errno == 0);
        closedir(d);
    }
    EQ(st_of("d/h").st_ino, st_of("d/f").st_ino);
    EQ(st_of("d/..").st_ino, st_of(".").st_ino);
    EQ(st_of("d/.").st_ino, st_of("d").st_ino);
    EQ(st_of("d/s/../..").st_ino, st_of(".").st_ino);
    note("raw getdents64");
    char tiny[16];
    int fd = open("d", O_RDONLY);
    FAILS(EINVAL, syscall(SYS_getdents64, fd, tiny, sizeof(tiny)));
    close(fd);
    fd = open("d/f", O_RDONLY);
    char big[512];
    FAILS(ENOTDIR, syscall(SYS_getdents64, fd, big, sizeof(big)));
    close(fd);
}

#define SEEK_COUNT 600
struct pos {
    long at;
    char name[32];
};

/* Every position of telldir leads back to the entry that followed it. */
static void test_seek(void)
{
    static struct pos pos[SEEK_COUNT + 4];
    char name[32];
    make_dir("d", 0755);
    for (int i = 0; i < SEEK_COUNT; i++) {
        snprintf(name, sizeof(name), "d/entry-%04d", i);
        OK_AS("create", open_close(name, O_CREAT | O_WRONLY, 0644));
    }
    DIR *d = opendir("d");
    HOLDS(d != NULL);
    if (d == NULL) {
        return;
    }
    int n = 0;
    for (; n < SEEK_COUNT + 4; n++) {
        pos[n].at = telldir(d);
        struct dirent *e = readdir(d);
        if (e == NULL) {
            break;
        }
        snprintf(pos[n].name, sizeof(pos[n].name), "%.31s", e->d_name);
    }
    EQ(SEEK_COUNT + 2, n);
    int wrong = 0;
    for (int i = 0; i < n; i++) {
        int at = (i * 7919) % n;
        seekdir(d, pos[at].at);
        struct dirent *e = readdir(d);
        wrong += e == NULL || strcmp(e->d_name, pos[at].name) != 0;
    }
    EQ_AS("positions that led to another entry", 0, wrong);
    seekdir(d, pos[n].at);
    HOLDS_AS("the last position is the end", readdir(d) == NULL);
    seekdir(d, pos[n / 2].at);
    int rest = 0;
    while (readdir(d) != NULL) {
        rest++;
    }
    EQ_AS("entries after the middle", n - n / 2, rest);
    note("positions still hold after others were removed");
    int half = n / 2;
    for (int i = 0; i < half; i++) {
        if (pos[i].name[0] != '.') {
            (void)unlinkat(dirfd(d), pos[i].name, 0);
        }
    }
    seekdir(d, pos[half].at);
    rest = 0;
    while (readdir(d) != NULL) {
        rest++;
    }
    EQ_AS("entries after the middle", n - half, rest);
    closedir(d);
}

static int count_rest(DIR *d)
{
    int n = 0;
    while (readdir(d) != NULL) {
        n++;
    }
    return n;
}

static void test_rewind(void)
{
    make_dir("d", 0755);
    make_file("d/a", 0644, "");
    DIR *d = opendir("d"), *second = opendir("d");
    if (!HOLDS(d != NULL && second != NULL)) {
        return;
    }
    EQ(3, count_rest(d));
    make_file("d/b", 0644, "");
    EQ_AS("nothing after the end", 0, count_rest(d));
    rewinddir(d);
    EQ_AS("a rewound stream shows what is new", 4, count_rest(d));
    EQ_AS("streams are independent", 4, count_rest(second));
    OK(unlink("d/a"));
    rewinddir(d);
    EQ_AS("and not what is gone", 3, count_rest(d));
    OK(lseek(dirfd(d), 0, SEEK_SET));
    closedir(d);
    closedir(second);
    note("lseek(0) on the descriptor");
    static char buf[4096];
    int fd = open("d", O_RDONLY);
    long first = syscall(SYS_getdents64, fd, buf, sizeof(buf));
    HOLDS(first > 0);
    EQ(0, syscall(SYS_getdents64, fd, buf, sizeof(buf)));
    OK(lseek(fd, 0, SEEK_SET));
    EQ(first, syscall(SYS_getdents64, fd, buf, sizeof(buf)));
    close(fd);
    note("times");
    TIMES("d", T_A_ANY, count_entries("d") >= 0 ? 0 : -1);
}

const struct posix_group dir_groups[] = {
    {"dir-mkdir", test_mkdir, false},     {"dir-nlink", test_nlink, false},
    {"dir-rmdir", test_rmdir, false},     {"dir-removed", test_removed, false},
    {"dir-entries", test_entries, false}, {"dir-seek", test_seek, false},
    {"dir-rewind", test_rewind, false},   {0},
};
