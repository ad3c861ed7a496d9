/* Names of files: link, unlink, symbolic links, sticky directories. */
#include <sys/wait.h>

#include "tests/posix/posix.h"

static void test_link(void)
{
    make_file("f", 0644, "content");
    TIMES("f", T_C | T_A_ANY, link("f", "g"));
    EQ(2, nlink_of("f"));
    EQ(st_of("f").st_ino, st_of("g").st_ino);
    TIMES(".", T_M | T_C | T_A_ANY, link("f", "h"));
    EQ(3, nlink_of("g"));
    note("one file under all its names");
    OK(chmod("g", 0600));
    MODE(0600, "f");
    OK(truncate("h", 3));
    EQ(3, size_of("f"));
    HOLDS(content_is("g", "con", 3));
    note("errors");
    TIMES_FAIL("f", EEXIST, link("f", "g"));
    FAILS(EEXIST, link("f", "f"));
    FAILS(EEXIST, link("f", "."));
    make_dir("d", 0755);
    FAILS(EPERM, link("d", "e"));
    FAILS(EPERM, link(".", "e"));
    FAILS(EEXIST, link("d", "f"));
    FAILS(ENOENT, link("f", "d/missing/g"));
    FAILS(ENOENT, link("f", "x/"));
    FAILS(EXDEV, link("/proc/self/status", "status"));
    FAILS(EINVAL, linkat(AT_FDCWD, "f", AT_FDCWD, "x", 0x4000000));
    EQ(3, nlink_of("f"));
    note("unlink");
    TIMES("f", T_C | T_A_ANY, unlink("g"));
    EQ(2, nlink_of("f"));
    OK(unlink("f"));
    EQ(1, nlink_of("h"));
    HOLDS(content_is("h", "con", 3));
    note("special files");
    OK(mkfifo("p", 0644));
    OK(link("p", "q"));
    EQ(2, nlink_of("p"));
    OK(unlink("p"));
    EQ(1, nlink_of("q"));
}

static void test_link_of_link(void)
{
    make_file("f", 0644, "content");
    OK(symlink("f", "s"));
    note("link does not follow");
    OK(link("s", "t"));
    HOLDS(S_ISLNK(st_of("t").st_mode));
    EQ(2, nlink_of("s"));
    EQ(1, nlink_of("f"));
    EQ(st_of("s").st_ino, st_of("t").st_ino);
    note("AT_SYMLINK_FOLLOW does");
    OK(linkat(AT_FDCWD, "s", AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
    EQ(2, nlink_of("f"));
    note("dangling");
    OK(symlink("nowhere", "dangling"));
    OK(link("dangling", "dangling2"));
    FAILS(ENOENT, linkat(AT_FDCWD, "dangling", AT_FDCWD, "x", AT_SYMLINK_FOLLOW));
    note("a link to a directory is no directory");
    make_dir("d", 0755);
    OK(symlink("d", "ld"));
    OK(link("ld", "ld2"));
    FAILS(EPERM, linkat(AT_FDCWD, "ld", AT_FDCWD, "x", AT_SYMLINK_FOLLOW));
    OK(unlink("ld"));
    HOLDS(exists("d"));
}

static void test_link_open(void)
{
    char self[40];
    make_file("f", 0644, "content");
    int fd = open("f", O_RDWR);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, self, AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
    EQ(2, fst_of(fd).st_nlink);
    OK(unlink("f"));
    EQ(1, fst_of(fd).st_nlink);
    tick();
    struct stat before = fst_of(fd);
    OK(unlink("g"));
    struct stat after = fst_of(fd);
    EQ(0, after.st_nlink);
    HOLDS_AS("ctime of an open file moves at its last unlink",
             after.st_ctim.tv_sec > before.st_ctim.tv_sec ||
                 after.st_ctim.tv_nsec > before.st_ctim.tv_nsec);
    note("no way back for a file without a name");
    FAILS(ENOENT, linkat(AT_FDCWD, self, AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
    HOLDS(!exists("back"));
    close(fd);
    if (is_root()) {
        note("AT_EMPTY_PATH");
        make_file("e", 0644, "e");
        fd = open("e", O_RDONLY);
        OK(linkat(fd, "", AT_FDCWD, "e2", AT_EMPTY_PATH));
        EQ(2, fst_of(fd).st_nlink);
        close(fd);
    }
}

static void test_unlink(void)
{
    make_file("f", 0, "");
    OK(unlink("f"));
    FAILS(ENOENT, unlink("f"));
    make_dir("d", 0755);
    FAILS(EISDIR, unlink("d"));
    FAILS2(EISDIR, ENOTDIR, unlink("d/"));
    FAILS2(EISDIR, EINVAL, unlink("."));
    FAILS2(EISDIR, EINVAL, unlink(".."));
    OK(symlink("d", "l"));
    FAILS2(ENOTDIR, EISDIR, unlink("l/"));
    OK(unlink("l"));
    HOLDS(exists("d"));
    OK(mkfifo("p", 0));
    OK(unlink("p"));
    OK(symlink("nowhere", "dangling"));
    OK(unlink("dangling"));
    note("times");
    make_file("f", 0644, "");
    TIMES(".", T_M | T_C | T_A_ANY, unlink("f"));
    TIMES_FAIL(".", ENOENT, unlink("f"));
    note("an open file lives on");
    make_file("f", 0644, "content");
    int fd = open("f", O_RDWR);
    OK(unlink("f"));
    make_file("f", 0644, "second");
    HOLDS(fst_of(fd).st_ino != st_of("f").st_ino);
    EQ(3, pwrite(fd, "CON", 3, 0));
    char got[8] = "";
    EQ(7, pread(fd, got, 7, 0));
    TEXT("CONtent", got);
    HOLDS(content_is("f", "second", 6));
    OK(fchmod(fd, 0600));
    OCTAL(0600, fst_of(fd).st_mode & 07777);
    MODE(0644, "f");
    OK(ftruncate(fd, 100000));
    EQ(100000, fst_of(fd).st_size);
    EQ(5, pwrite(fd, "later", 5, 200000));
    OK(fsync(fd));
    EQ(5, pread(fd, got, 5, 200000));
    HOLDS(memcmp(got, "later", 5) == 0);
    PROC
    {
        EQ_AS("a child reads it", 7, pread(fd, got, 7, 0));
    }
    close(fd);
}

static void test_symlink(void)
{
    static char text[5000], got[5000];
    static const size_t lens[] = {1, 59, 60, 61, 255, 256, 1023, 1024, 4000, 4094, 4095};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        note("a target of %zu bytes", lens[i]);
        name_of_len(text, lens[i], 't');
        OK(symlink(text, "l"));
        EQ(lens[i], size_of("l"));
        EQ(lens[i], readlink("l", got, sizeof(got)));
        HOLDS(memcmp(got, text, lens[i]) == 0);
        OK(unlink("l"));
    }
    note(NULL);
    name_of_len(text, 4096, 't');
    FAILS(ENAMETOOLONG, symlink(text, "l"));
    FAILS(ENOENT, symlink("", "l"));
    FAILS(ENOENT, symlink("x", "l/"));
    HOLDS(!exists("l"));
    TIMES(".", T_M | T_C | T_A_ANY, symlink("target", "l"));
    HOLDS(S_ISLNK(st_of("l").st_mode));
    MODE(0777, "l");
    EQ(1, nlink_of("l"));
    EQ(geteuid(), st_of("l").st_uid);
    EQ(getegid(), st_of("l").st_gid);
    note("readlink cuts without a word");
    memset(got, '#', 10);
    EQ(3, readlink("l", got, 3));
    HOLDS(memcmp(got, "tar#", 4) == 0);
    EQ(6, readlink("l", got, 7));
    FAILS(EINVAL, readlink("l", got, 0));
    TIMES("l", T_A_ANY, readlink("l", got, sizeof(got)));
    FAILS(EEXIST, symlink("other", "l"));
    EQ(6, readlink("l", got, sizeof(got)));
    note("targets are bytes");
    OK(symlink("/a//b/../ \n\xff\x01", "odd"));
    EQ(13, readlink("odd", got, sizeof(got)));
    HOLDS(memcmp(got, "/a//b/../ \n\xff\x01", 13) == 0);
    note("the umask does not touch links");
    umask(0777);
    OK(symlink("x", "m"));
    MODE(0777, "m");
    umask(0);
}

/* In a sticky directory a name goes only with its file's owner or the directory's. */
static void sticky_case(uid_t dir_owner, uid_t file_owner, bool allowed)
{
    note("sticky directory of %u, file of %u", dir_owner, file_owner);
    make_dir_owned("d", 01777, dir_owner, (gid_t)0);
    make_owned("d/f", 0666, file_owner, (gid_t)file_owner);
    make_owned("d/g", 0666, file_owner, (gid_t)file_owner);
    make_dir_owned("d/s", 0777, file_owner, (gid_t)file_owner);
    OK(symlink("f", "d/l"));
    OK(lchown("d/l", file_owner, (gid_t)file_owner));
    AS(U1)
    {
        if (allowed) {
            OK(rename("d/f", "d/f2"));
            OK(unlink("d/f2"));
            OK(rmdir("d/s"));
            OK(unlink("d/l"));
            OK(open_close("d/new", O_CREAT | O_WRONLY, 0644));
            OK(rename("d/new", "d/g"));
        } else {
            FAILS(EPERM, rename("d/f", "d/f2"));
            FAILS(EPERM, unlink("d/f"));
            FAILS(EPERM, rmdir("d/s"));
            FAILS(EPERM, unlink("d/l"));
            OK(open_close("d/new", O_CREAT | O_WRONLY, 0644));
            FAILS(EPERM, rename("d/new", "d/g"));
            FAILS(EPERM, renameat2(AT_FDCWD, "d/new", AT_FDCWD, "d/g", RENAME_EXCHANGE));
            OK(rename("d/new", "d/new2"));
            OK(unlink("d/new2"));
            HOLDS(open_close("d/f", O_RDWR, 0) == 0);
        }
    }
    char cmd[] = "rm -rf d";
    EQ(0, system(cmd));
}

static void test_sticky(void)
{
    sticky_case(U1, U2, true);
    sticky_case(U2, U1, true);
    sticky_case(U1, U1, true);
    sticky_case(U2, U2, false);
    sticky_case(0, U2, false);
    sticky_case(0, 0, false);
    note("without the sticky bit the directory's bits decide");
    make_dir_owned("d", 0777, 0, 0);
    make_owned("d/f", 0600, U2, (gid_t)U2);
    AS(U1)
    {
        OK(unlink("d/f"));
    }
    note("root is not bound");
    make_dir_owned("e", 01777, U1, (gid_t)U1);
    make_owned("e/f", 0600, U2, (gid_t)U2);
    OK(rename("e/f", "e/g"));
    OK(unlink("e/g"));
}

static void test_link_rights(void)
{
    make_dir_owned("d", 0777, 0, 0);
    make_owned("d/mine", 0600, U1, (gid_t)U1);
    make_owned("d/shared", 0666, U2, (gid_t)U2);
    make_owned("d/foreign", 0600, U2, (gid_t)U2);
    make_owned("d/setuid", 04777, U2, (gid_t)U2);
    bool protects = sysctl_of("/proc/sys/fs/protected_hardlinks") != 0;
    AS(U1)
    {
        OK(link("d/mine", "d/mine2"));
        OK(link("d/shared", "d/shared2"));
        if (protects) {
            FAILS(EPERM, link("d/foreign", "d/foreign2"));
            FAILS(EPERM, link("d/setuid", "d/setuid2"));
        } else {
            OK(link("d/foreign", "d/foreign2"));
            OK(link("d/setuid", "d/setuid2"));
        }
        OK(symlink("foreign", "d/s"));
        FAILS(EACCES, open("d/s", O_RDONLY));
        note("the owner of a link is who made it");
        EQ(U1, st_of("d/s").st_uid);
        EQ(U1, st_of("d/s").st_gid);
    }
}

const struct posix_group link_groups[] = {
    {"link-link", test_link, false},         {"link-symlinks", test_link_of_link, false},
    {"link-open", test_link_open, false},    {"link-unlink", test_unlink, false},
    {"link-symlink", test_symlink, false},   {"link-sticky", test_sticky, true},
    {"link-rights", test_link_rights, true}, {0},
};
