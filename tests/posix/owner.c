/* Owners and groups: chown in all its forms, and what it does to set-id bits. */
#include "tests/posix/posix.h"

static void owned_by(const char *path, uid_t uid, gid_t gid)
{
    struct stat st = st_of(path);
    EQ_AS("owner", uid, st.st_uid);
    EQ_AS("group", gid, st.st_gid);
}

static void test_root(void)
{
    make_file("f", 0644, "content");
    OK(chown("f", U1, (gid_t)U2));
    owned_by("f", U1, (gid_t)U2);
    note("-1 leaves things alone");
    OK(chown("f", (uid_t)-1, OTHER_GID));
    owned_by("f", U1, OTHER_GID);
    OK(chown("f", U2, (gid_t)-1));
    owned_by("f", U2, OTHER_GID);
    OK(chown("f", (uid_t)-1, (gid_t)-1));
    owned_by("f", U2, OTHER_GID);
    note("large ids");
    OK(chown("f", 4294967294u, 4294967294u));
    owned_by("f", 4294967294u, 4294967294u);
    OK(chown("f", 2147483648u, 65536u));
    owned_by("f", 2147483648u, 65536u);
    note("fchown, fchownat");
    int fd = open("f", O_RDONLY);
    OK(fchown(fd, U1, SHARED_GID));
    owned_by("f", U1, SHARED_GID);
    OK(fchownat(fd, "", U2, OTHER_GID, AT_EMPTY_PATH));
    owned_by("f", U2, OTHER_GID);
    OK(fchownat(AT_FDCWD, "f", 0, 0, 0));
    owned_by("f", 0, 0);
    close(fd);
    FAILS(EBADF, fchown(fd, 0, 0));
    FAILS(EINVAL, fchownat(AT_FDCWD, "f", 0, 0, 0x40000000));
    note("links");
    OK(symlink("f", "l"));
    OK(chown("l", U1, (gid_t)U1));
    owned_by("f", U1, (gid_t)U1);
    owned_by("l", 0, 0);
    OK(lchown("l", U2, (gid_t)U2));
    owned_by("l", U2, (gid_t)U2);
    owned_by("f", U1, (gid_t)U1);
    OK(fchownat(AT_FDCWD, "l", U1, (gid_t)U2, AT_SYMLINK_NOFOLLOW));
    owned_by("l", U1, (gid_t)U2);
    note("directories, fifos, devices");
    make_dir("d", 0755);
    OK(mkfifo("p", 0644));
    OK(mknod("c", S_IFCHR | 0644, 0x103));
    OK(chown("d", U1, OTHER_GID));
    OK(chown("p", U1, OTHER_GID));
    OK(chown("c", U1, OTHER_GID));
    owned_by("d", U1, OTHER_GID);
    owned_by("p", U1, OTHER_GID);
    owned_by("c", U1, OTHER_GID);
    note("hard links share the owner");
    OK(link("f", "g"));
    OK(chown("g", U2, OTHER_GID));
    owned_by("f", U2, OTHER_GID);
}

static void test_user(void)
{
    make_owned("mine", 0644, U1, (gid_t)U1);
    make_owned("theirs", 0666, U2, (gid_t)U2);
    make_owned("in-group", 0666, U2, SHARED_GID);
    make_dir_owned("dir", 0755, U1, (gid_t)U1);
    make_owned("odd-group", 0644, U1, OTHER_GID);
    AS(U1)
    {
        note("the owner may give his file to his groups");
        OK(chown("mine", (uid_t)-1, SHARED_GID));
        owned_by("mine", U1, SHARED_GID);
        OK(chown("mine", U1, (gid_t)U1));
        owned_by("mine", U1, (gid_t)U1);
        OK(chown("dir", (uid_t)-1, SHARED_GID));
        owned_by("dir", U1, SHARED_GID);
        note("but not to others");
        TIMES_FAIL("mine", EPERM, chown("mine", (uid_t)-1, OTHER_GID));
        FAILS(EPERM, chown("mine", (uid_t)-1, 0));
        FAILS(EPERM, chown("mine", U2, (gid_t)-1));
        FAILS(EPERM, chown("mine", 0, (gid_t)-1));
        FAILS(EPERM, chown("mine", U2, SHARED_GID));
        FAILS(EPERM, chown("dir", U2, (gid_t)-1));
        owned_by("mine", U1, (gid_t)U1);
        note("to himself and the group it has");
        OK(chown("mine", U1, (gid_t)-1));
        OK(chown("mine", (uid_t)-1, (gid_t)-1));
        note("a group he is not in may stay, and be left");
        OK(chown("odd-group", (uid_t)-1, OTHER_GID));
        OK(chown("odd-group", U1, OTHER_GID));
        OK(chown("odd-group", (uid_t)-1, (gid_t)U1));
        FAILS(EPERM, chown("odd-group", (uid_t)-1, OTHER_GID));
        note("files of others");
        FAILS(EPERM, chown("theirs", U1, (gid_t)U1));
        FAILS(EPERM, chown("theirs", (uid_t)-1, SHARED_GID));
        FAILS(EPERM, chown("in-group", (uid_t)-1, (gid_t)U1));
        FAILS(EPERM, chown("in-group", U1, (gid_t)-1));
        FAILS(EPERM, chown("in-group", U2, (gid_t)-1));
        int fd = open("theirs", O_RDWR);
        FAILS(EPERM, fchown(fd, U1, (gid_t)-1));
        close(fd);
        note("links");
        OK(symlink("nowhere", "dir/l"));
        OK(lchown("dir/l", (uid_t)-1, SHARED_GID));
        owned_by("dir/l", U1, SHARED_GID);
        FAILS(EPERM, lchown("dir/l", U2, (gid_t)-1));
    }
    owned_by("theirs", U2, (gid_t)U2);
}

static void one_clearing(unsigned mode, unsigned want, uid_t who, uid_t uid, gid_t gid)
{
    note("mode 0%o, chown(%d, %d) by %u", mode, (int)uid, (int)gid, who);
    make_owned("f", mode, U1, (gid_t)U1);
    if (who == 0) {
        OK(chown("f", uid, gid));
    } else {
        AS(who)
        {
            OK(chown("f", uid, gid));
        }
    }
    MODE(want, "f");
    OK(unlink("f"));
}

static void test_clearing(void)
{
    uid_t keep_uid = (uid_t)-1;
    gid_t keep_gid = (gid_t)-1;
    note("by the owner");
    one_clearing(06755, 0755, U1, keep_uid, SHARED_GID);
    one_clearing(04755, 0755, U1, keep_uid, SHARED_GID);
    one_clearing(02755, 0755, U1, keep_uid, (gid_t)U1);
    one_clearing(06755, 0755, U1, U1, keep_gid);
    one_clearing(01755, 01755, U1, keep_uid, SHARED_GID);
    one_clearing(02745, 02745, U1, keep_uid, SHARED_GID);
    note("by root");
    one_clearing(06755, 0755, 0, U2, OTHER_GID);
    one_clearing(06755, 0755, 0, U2, keep_gid);
    one_clearing(06755, 0755, 0, keep_uid, OTHER_GID);
    one_clearing(06777, 0777, 0, U1, (gid_t)U1);
    one_clearing(04644, 0644, 0, U2, keep_gid);
    one_clearing(02644, 02644, 0, U2, keep_gid);
    note("directories keep theirs");
    make_dir_owned("d", 07755, U1, (gid_t)U1);
    OK(chown("d", U2, OTHER_GID));
    MODE(07755, "d");
    OK(chown("d", U1, (gid_t)U1));
    AS(U1)
    {
        OK(chown("d", keep_uid, SHARED_GID));
        MODE(07755, "d");
    }
    note("a failed chown clears nothing");
    make_owned("f", 06755, U1, (gid_t)U1);
    AS(U1)
    {
        FAILS(EPERM, chown("f", U2, keep_gid));
    }
    AS(U2)
    {
        FAILS(EPERM, chown("f", U2, keep_gid));
    }
    MODE(06755, "f");
}

static void test_times(void)
{
    make_file("f", 0644, "content");
    TIMES("f", T_C | T_A_ANY, chown("f", U1, (gid_t)-1));
    TIMES("f", T_C | T_A_ANY, chown("f", U1, (gid_t)U1));
    TIMES("f", T_C | T_A_ANY, chown("f", (uid_t)-1, OTHER_GID));
    OK(symlink("f", "l"));
    TIMES("l", T_C | T_A_ANY, lchown("l", U1, (gid_t)U1));
    TIMES("f", T_A_ANY, lchown("l", U2, (gid_t)U1));
    make_dir("d", 0755);
    TIMES("d", T_C | T_A_ANY, chown("d", U1, (gid_t)U1));
    TIMES(".", T_A_ANY, chown("f", U2, (gid_t)U2));
}

/* Rights follow the owner at once. */
static void test_effect(void)
{
    make_owned("f", 0600, U1, (gid_t)U1);
    AS(U2)
    {
        FAILS(EACCES, open("f", O_RDONLY));
    }
    OK(chown("f", U2, (gid_t)-1));
    AS(U2)
    {
        OK(open_close("f", O_RDWR, 0));
        OK(chmod("f", 0640));
    }
    AS(U1)
    {
        OK(open_close("f", O_RDONLY, 0)); /* its group is still the first user's */
        FAILS(EACCES, open("f", O_RDWR));
        FAILS(EPERM, chmod("f", 0666));
    }
    note("effective ids make the owner");
    make_dir("d", 0777);
    PROC
    {
        OK(setegid(OTHER_GID));
        OK(seteuid(U2));
        OK(open_close("d/f", O_CREAT | O_WRONLY, 0644));
        OK(mkdir("d/s", 0755));
        owned_by("d/f", U2, OTHER_GID);
        owned_by("d/s", U2, OTHER_GID);
    }
}

const struct posix_group owner_groups[] = {
    {"owner-root", test_root, true},         {"owner-user", test_user, true},
    {"owner-clearing", test_clearing, true}, {"owner-times", test_times, true},
    {"owner-effect", test_effect, true},     {0},
};
