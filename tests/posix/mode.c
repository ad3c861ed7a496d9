/* Permission bits: chmod, set-id bits and what clears them, umask, set-group-id directories. */
#include <sys/syscall.h>

#include "tests/posix/posix.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static void test_chmod(void)
{
    make_file("f", 0644, "content");
    make_dir("d", 0755);
    OK(mkfifo("p", 0644));
    static const char *const names[] = {"f", "d", "p"};
    static const unsigned modes[] = {0, 0111, 0222, 0444, 0777, 01777, 02777, 04777, 07777, 0640};
    for (size_t n = 0; n < 3; n++) {
        for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
            note("chmod 0%o of %s", modes[i], names[n]);
            unsigned type = st_of(names[n]).st_mode & S_IFMT;
            OK(chmod(names[n], modes[i]));
            OCTAL(type | modes[i], st_of(names[n]).st_mode);
        }
    }
    note("bits above 07777 are ignored");
    OK(chmod("f", 0100644));
    OCTAL(S_IFREG | 0644, st_of("f").st_mode);
    note("fchmod, fchmodat");
    int fd = open("f", O_RDONLY);
    OK(fchmod(fd, 0604));
    MODE(0604, "f");
    OK(fchmodat(AT_FDCWD, "f", 0640, 0));
    MODE(0640, "f");
    close(fd);
    fd = open("d", O_RDONLY);
    OK(fchmod(fd, 0711));
    MODE(0711, "d");
    OK(fchmodat(fd, ".", 0755, 0));
    MODE(0755, "d");
    close(fd);
    FAILS(EBADF, fchmod(fd, 0600));
    note("links");
    OK(symlink("f", "l"));
    OK(chmod("l", 0600));
    MODE(0600, "f");
    MODE(0777, "l");
    FAILS(EOPNOTSUPP, fchmodat(AT_FDCWD, "l", 0600, AT_SYMLINK_NOFOLLOW));
    MODE(0777, "l");
    OK(fchmodat(AT_FDCWD, "f", 0601, AT_SYMLINK_NOFOLLOW));
    MODE(0601, "f");
    note("times");
    TIMES("f", T_C | T_A_ANY, chmod("f", 0644));
    TIMES("f", T_C | T_A_ANY, chmod("f", 0644));
    TIMES("d", T_C | T_A_ANY, chmod("d", 0700));
    TIMES(".", T_A_ANY, chmod("f", 0600));
}

static void test_chmod_rights(void)
{
    make_owned("mine", 0644, U1, (gid_t)U1);
    make_owned("theirs", 0666, U2, (gid_t)U2);
    make_owned("shared", 0660, U1, SHARED_GID);
    make_owned("other-group", 0660, U1, OTHER_GID);
    make_dir_owned("dir-other", 0770, U1, OTHER_GID);
    make_dir_owned("dir-theirs", 0777, U2, (gid_t)U2);
    AS(U1)
    {
        OK(chmod("mine", 0));
        OK(chmod("mine", 0600));
        TIMES_FAIL("theirs", EPERM, chmod("theirs", 0666));
        FAILS(EPERM, chmod("dir-theirs", 0777));
        int fd = open("theirs", O_RDWR);
        FAILS(EPERM, fchmod(fd, 0600));
        close(fd);
        note("the set-group-id bit is for members of the group");
        OK(chmod("mine", 02755));
        MODE(02755, "mine");
        OK(chmod("shared", 02755));
        MODE(02755, "shared");
        OK(chmod("other-group", 02755));
        MODE(0755, "other-group");
        OK(chmod("dir-other", 02770));
        MODE(0770, "dir-other");
        note("set-user-id and sticky bits are the owner's to set");
        OK(chmod("mine", 05755));
        MODE(05755, "mine");
    }
    MODE(0666, "theirs");
    note("root is no member but may");
    OK(chmod("other-group", 06755));
    MODE(06755, "other-group");
}

/* One change of content by a user, or by root, of a file with set-id bits. */
static void clears(const char *what, unsigned mode, unsigned want, uid_t who, void (*change)(void))
{
    note("%s by %u of a file with mode 0%o", what, who, mode);
    make_owned("f", mode, U1, (gid_t)U1);
    AS(who)
    {
        change();
    }
    MODE(want, "f");
    OK(unlink("f"));
}

static void do_write(void)
{
    int fd = open("f", O_WRONLY);
    EQ(1, write(fd, "x", 1));
    OK(close(fd));
}

static void do_write_nothing(void)
{
    int fd = open("f", O_WRONLY);
    EQ(0, write(fd, "", 0));
    OK(close(fd));
}

static void do_pwrite_far(void)
{
    int fd = open("f", O_WRONLY);
    EQ(1, pwrite(fd, "x", 1, 100000));
    OK(close(fd));
}

static void do_truncate(void)
{
    OK(truncate("f", 3));
}

static void do_ftruncate(void)
{
    int fd = open("f", O_WRONLY);
    OK(ftruncate(fd, 3));
    OK(close(fd));
}

static void do_open_trunc(void)
{
    OK(open_close("f", O_WRONLY | O_TRUNC, 0));
}

static void do_fallocate(void)
{
    int fd = open("f", O_WRONLY);
    OK(fallocate(fd, 0, 0, 10000));
    OK(close(fd));
}

static void do_read(void)
{
    HOLDS(content_is("f", "content", 7));
}

static void do_open_write(void)
{
    OK(open_close("f", O_WRONLY, 0));
}

static void do_utimens(void)
{
    OK(utimensat(AT_FDCWD, "f", NULL, 0));
}

static void test_clearing(void)
{
    static const struct {
        const char *what;
        void (*go)(void);
    } changes[] = {
        {"write", do_write},        {"pwrite beyond the end", do_pwrite_far},
        {"truncate", do_truncate},  {"ftruncate", do_ftruncate},
        {"O_TRUNC", do_open_trunc}, {"fallocate", do_fallocate},
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        clears(changes[i].what, 04777, 0777, U1, changes[i].go);
        clears(changes[i].what, 02777, 0777, U1, changes[i].go);
        clears(changes[i].what, 06777, 0777, U2, changes[i].go);
        clears(changes[i].what, 01777, 01777, U2, changes[i].go);
        note("%s by root keeps the bits", changes[i].what);
        make_owned("f", 06777, U1, (gid_t)U1);
        changes[i].go();
        MODE(06777, "f");
        OK(unlink("f"));
    }
    note(NULL);
    clears("a set-group-id bit without group execution, write", 02766, 02766, U1, do_write);
    clears("nothing is cleared by read", 06777, 06777, U2, do_read);
    clears("nothing is cleared by open", 06777, 06777, U2, do_open_write);
    clears("nothing is cleared by utimensat", 06777, 06777, U2, do_utimens);
    clears("nothing is cleared by writing nothing", 06777, 06777, U2, do_write_nothing);
}

/* Several descriptors: the bits go at the first write, and come back only by chmod. */
static void test_clearing_open(void)
{
    make_owned("f", 0777, U1, (gid_t)U1);
    AS(U1)
    {
        int fd = open("f", O_RDWR);
        EQ(1, write(fd, "x", 1));
        OK(fchmod(fd, 06755));
        MODE(06755, "f");
        EQ(1, write(fd, "y", 1));
        MODE(0755, "f");
        OK(fchmod(fd, 04755));
        EQ(1, pwrite(fd, "z", 1, 0));
        MODE(0755, "f");
        close(fd);
    }
}

static void test_umask(void)
{
    static const mode_t masks[] = {0, 002, 022, 027, 0077, 0777};
    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
        note("umask 0%o", masks[i]);
        umask(masks[i]);
        OK(open_close("f", O_CREAT | O_WRONLY, 0666));
        OK(mkdir("d", 01777));
        OK(mkfifo("p", 0666));
        OK(mknod("s", S_IFSOCK | 0777, 0));
        OK(mknod("r", S_IFREG | 0751, 0));
        MODE(0666 & ~masks[i], "f");
        MODE(01000 | (0777 & ~masks[i]), "d");
        MODE(0666 & ~masks[i], "p");
        MODE(0777 & ~masks[i], "s");
        MODE(0751 & ~masks[i], "r");
        OK(chmod("f", 0666));
        MODE(0666, "f");
        OK(unlink("f"));
        OK(rmdir("d"));
        OK(unlink("p"));
        OK(unlink("s"));
        OK(unlink("r"));
    }
    umask(0);
}

static void test_setgid_dir(void)
{
    make_dir_owned("d", 02777, U2, SHARED_GID);
    make_dir_owned("o", 02777, U2, OTHER_GID);
    AS(U1)
    {
        note("group inherited from a set-group-id directory");
        OK(open_close("d/f", O_CREAT | O_WRONLY, 0644));
        EQ(SHARED_GID, st_of("d/f").st_gid);
        EQ(U1, st_of("d/f").st_uid);
        MODE(0644, "d/f");
        OK(mkdir("d/s", 0755));
        EQ(SHARED_GID, st_of("d/s").st_gid);
        MODE(02755, "d/s");
        OK(mkdir("d/s/t", 0700));
        MODE(02700, "d/s/t");
        EQ(SHARED_GID, st_of("d/s/t").st_gid);
        OK(symlink("x", "d/l"));
        EQ(SHARED_GID, st_of("d/l").st_gid);
        OK(mkfifo("d/p", 0644));
        EQ(SHARED_GID, st_of("d/p").st_gid);
        OK(mknod("d/r", S_IFREG | 0600, 0));
        EQ(SHARED_GID, st_of("d/r").st_gid);
        note("a set-group-id file, as a member");
        OK(open_close("d/g", O_CREAT | O_WRONLY, 02755));
        MODE(02755, "d/g");
        note("a set-group-id file, not a member");
        OK(open_close("o/g", O_CREAT | O_WRONLY, 02755));
        EQ(OTHER_GID, st_of("o/g").st_gid);
        MODE(0755, "o/g");
        OK(mkdir("o/s", 0755));
        MODE(02755, "o/s");
        EQ(OTHER_GID, st_of("o/s").st_gid);
    }
    note("root in a set-group-id directory");
    OK(open_close("o/root", O_CREAT | O_WRONLY, 02755));
    EQ(OTHER_GID, st_of("o/root").st_gid);
    MODE(02755, "o/root");
    note("what is renamed or linked into it keeps its group");
    make_owned("f", 0644, U1, (gid_t)U1);
    make_dir_owned("e", 0755, U1, (gid_t)U1);
    OK(link("f", "o/hard"));
    EQ(U1, st_of("o/hard").st_gid);
    OK(rename("f", "o/moved"));
    EQ(U1, st_of("o/moved").st_gid);
    OK(rename("e", "o/e"));
    EQ(U1, st_of("o/e").st_gid);
    MODE(0755, "o/e");
    note("without the bit the creator's group counts");
    make_dir_owned("n", 0777, U2, OTHER_GID);
    AS(U1)
    {
        OK(open_close("n/f", O_CREAT | O_WRONLY, 0644));
        EQ(U1, st_of("n/f").st_gid);
        OK(mkdir("n/d", 0755));
        EQ(U1, st_of("n/d").st_gid);
        MODE(0755, "n/d");
    }
}

static void test_fchmodat2(void)
{
    make_file("f", 0644, "");
    if (syscall(SYS_fchmodat2, AT_FDCWD, "f", 0600, 0) < 0 && errno == ENOSYS) {
        skip("the kernel has no fchmodat2");
        return;
    }
    MODE(0600, "f");
    OK(symlink("f", "l"));
    FAILS(EOPNOTSUPP, syscall(SYS_fchmodat2, AT_FDCWD, "l", 0600, AT_SYMLINK_NOFOLLOW));
    OK(syscall(SYS_fchmodat2, AT_FDCWD, "f", 0640, AT_SYMLINK_NOFOLLOW));
    MODE(0640, "f");
    int fd = open("f", O_PATH);
    OK(syscall(SYS_fchmodat2, fd, "", 0604, AT_EMPTY_PATH));
    MODE(0604, "f");
    close(fd);
    FAILS(EINVAL, syscall(SYS_fchmodat2, AT_FDCWD, "f", 0600, 0x40000000));
}

const struct posix_group mode_groups[] = {
    {"mode-chmod", test_chmod, false},         {"mode-rights", test_chmod_rights, true},
    {"mode-clearing", test_clearing, true},    {"mode-clearing-open", test_clearing_open, true},
    {"mode-umask", test_umask, false},         {"mode-setgid-dir", test_setgid_dir, true},
    {"mode-fchmodat2", test_fchmodat2, false}, {0},
};
