/* Extended attributes: names, sizes, flags, name spaces and who may use them. */
#include <sys/xattr.h>

#include "tests/posix/posix.h"

/* A valid security.capability (revision 2): cap_net_raw, effective. */
static const unsigned char capability[20] = {1, 0, 0, 2, 0, 0x20};

static bool value_is(const char *path, const char *name, const void *want, size_t len)
{
    char got[256];
    ssize_t n = getxattr(path, name, got, sizeof(got));
    return n == (ssize_t)len && memcmp(got, want, len) == 0;
}

/* Whether listxattr shows the name. */
static bool listed(const char *path, const char *name)
{
    static char list[65536];
    ssize_t n = llistxattr(path, list, sizeof(list));
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1) {
        if (strcmp(list + at, name) == 0) {
            return true;
        }
    }
    return false;
}

static void test_basic(void)
{
    char got[16];
    make_file("f", 0644, "content");
    FAILS(ENODATA, getxattr("f", "user.a", got, sizeof(got)));
    FAILS(ENODATA, getxattr("f", "user.a", NULL, 0));
    FAILS(ENODATA, removexattr("f", "user.a"));
    HOLDS(!listed("f", "user.a"));
    OK(setxattr("f", "user.a", "hello", 5, 0));
    EQ(5, getxattr("f", "user.a", NULL, 0));
    HOLDS(value_is("f", "user.a", "hello", 5));
    HOLDS(listed("f", "user.a"));
    note("replaced");
    OK(setxattr("f", "user.a", "x", 1, 0));
    HOLDS(value_is("f", "user.a", "x", 1));
    OK(setxattr("f", "user.a", "longer than before", 18, 0));
    HOLDS(value_is("f", "user.a", "longer than before", 18));
    note("empty and binary values");
    OK(setxattr("f", "user.empty", "", 0, 0));
    EQ(0, getxattr("f", "user.empty", got, sizeof(got)));
    HOLDS(listed("f", "user.empty"));
    OK(setxattr("f", "user.bin", "\0\xff\0\n", 4, 0));
    HOLDS(value_is("f", "user.bin", "\0\xff\0\n", 4));
    note("names that begin alike, differ in case, hold odd bytes");
    OK(setxattr("f", "user.A", "upper", 5, 0));
    OK(setxattr("f", "user.aa", "two", 3, 0));
    OK(setxattr("f", "user.\xff \x01", "odd", 3, 0));
    HOLDS(value_is("f", "user.A", "upper", 5));
    HOLDS(value_is("f", "user.aa", "two", 3));
    HOLDS(value_is("f", "user.\xff \x01", "odd", 3));
    HOLDS(listed("f", "user.\xff \x01"));
    note("removed");
    OK(removexattr("f", "user.a"));
    FAILS(ENODATA, getxattr("f", "user.a", got, sizeof(got)));
    HOLDS(!listed("f", "user.a"));
    HOLDS(listed("f", "user.aa"));
    HOLDS(content_is("f", "content", 7));
}

static void test_flags(void)
{
    make_file("f", 0644, "");
    FAILS(ENODATA, setxattr("f", "user.a", "1", 1, XATTR_REPLACE));
    HOLDS(!listed("f", "user.a"));
    OK(setxattr("f", "user.a", "1", 1, XATTR_CREATE));
    FAILS(EEXIST, setxattr("f", "user.a", "2", 1, XATTR_CREATE));
    HOLDS(value_is("f", "user.a", "1", 1));
    OK(setxattr("f", "user.a", "3", 1, XATTR_REPLACE));
    HOLDS(value_is("f", "user.a", "3", 1));
    FAILS(EINVAL, setxattr("f", "user.a", "4", 1, 0x40));
    TIMES_FAIL("f", EEXIST, setxattr("f", "user.a", "2", 1, XATTR_CREATE));
}

static void test_limits(void)
{
    static char big[65537], list[65536], name[300];
    memset(big, 'v', sizeof(big));
    make_file("f", 0644, "");
    FAILS(E2BIG, setxattr("f", "user.big", big, 65537, 0));
    OK(setxattr("f", "user.mid", big, 2000, 0));
    FAILS(ERANGE, getxattr("f", "user.mid", list, 1999));
    FAILS(ERANGE, getxattr("f", "user.mid", list, 1));
    EQ(2000, getxattr("f", "user.mid", list, 2000));
    HOLDS(memcmp(list, big, 2000) == 0);
    note("the list");
    ssize_t need = listxattr("f", NULL, 0);
    HOLDS(need >= 9);
    FAILS(ERANGE, listxattr("f", list, (size_t)need - 1));
    EQ(need, listxattr("f", list, (size_t)need));
    note("names of 255 and 256 bytes");
    name_of_len(name, 255, 'n');
    memcpy(name, "user.", 5);
    OK(setxattr("f", name, "1", 1, 0));
    HOLDS(listed("f", name));
    HOLDS(value_is("f", name, "1", 1));
    name_of_len(name, 256, 'n');
    memcpy(name, "user.", 5);
    FAILS(ERANGE, setxattr("f", name, "1", 1, 0));
    FAILS(ERANGE, getxattr("f", name, list, 10));
    FAILS(ERANGE, removexattr("f", name));
    note("no name");
    FAILS(ERANGE, setxattr("f", "", "1", 1, 0));
    FAILS(EINVAL, setxattr("f", "user.", "1", 1, 0));
    FAILS(EOPNOTSUPP, setxattr("f", "nonsense", "1", 1, 0));
    FAILS(EOPNOTSUPP, setxattr("f", "nonsense.a", "1", 1, 0));
    note("the largest value: kept, or refused as a whole");
    errno = 0;
    if (setxattr("f", "user.big", big, 65536, 0) == 0) {
        EQ(65536, getxattr("f", "user.big", list, sizeof(list)));
        HOLDS(memcmp(big, list, 65536) == 0);
    } else {
        HOLDS(errno == ENOSPC || errno == E2BIG || errno == EDQUOT);
        HOLDS(!listed("f", "user.big"));
    }
    note("many");
    make_file("g", 0644, "");
    int missing = 0;
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof(name), "user.number-%02d", i);
        OK_AS("setxattr", setxattr("g", name, &i, sizeof(i), 0));
    }
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof(name), "user.number-%02d", i);
        missing += !listed("g", name) || !value_is("g", name, &i, sizeof(i));
    }
    EQ_AS("missing ones of 60", 0, missing);
    for (int i = 0; i < 60; i += 2) {
        snprintf(name, sizeof(name), "user.number-%02d", i);
        OK_AS("removexattr", removexattr("g", name));
    }
    HOLDS(!listed("g", "user.number-10") && listed("g", "user.number-11"));
}

static void test_types(void)
{
    char got[16];
    make_file("f", 0644, "");
    make_dir("d", 0755);
    OK(symlink("f", "l"));
    OK(symlink("nowhere", "dangling"));
    OK(mkfifo("p", 0644));
    note("directories have them too");
    OK(setxattr("d", "user.a", "dir", 3, 0));
    HOLDS(value_is("d", "user.a", "dir", 3));
    note("links are followed");
    OK(setxattr("l", "user.a", "file", 4, 0));
    HOLDS(value_is("f", "user.a", "file", 4));
    HOLDS(value_is("l", "user.a", "file", 4));
    FAILS(ENOENT, setxattr("dangling", "user.a", "x", 1, 0));
    note("links themselves and special files have no user attributes");
    FAILS(EPERM, lsetxattr("l", "user.a", "x", 1, 0));
    FAILS2(ENODATA, EPERM, lgetxattr("l", "user.a", got, sizeof(got)));
    FAILS(EPERM, setxattr("p", "user.a", "x", 1, 0));
    FAILS2(ENODATA, EPERM, getxattr("p", "user.a", got, sizeof(got)));
    OK(llistxattr("l", got, 0));
    OK(listxattr("p", NULL, 0));
    note("descriptors");
    int fd = open("f", O_RDONLY);
    EQ(4, fgetxattr(fd, "user.a", got, sizeof(got)));
    OK(fsetxattr(fd, "user.b", "fd", 2, 0));
    HOLDS(value_is("f", "user.b", "fd", 2));
    HOLDS(flistxattr(fd, NULL, 0) >= 14);
    OK(fremovexattr(fd, "user.b"));
    FAILS(ENODATA, fgetxattr(fd, "user.b", got, sizeof(got)));
    note("an unlinked file");
    OK(unlink("f"));
    EQ(4, fgetxattr(fd, "user.a", got, sizeof(got)));
    OK(fsetxattr(fd, "user.c", "gone", 4, 0));
    EQ(4, fgetxattr(fd, "user.c", got, sizeof(got)));
    close(fd);
    FAILS(EBADF, fgetxattr(fd, "user.a", got, sizeof(got)));
    FAILS(EBADF, fsetxattr(fd, "user.a", "x", 1, 0));
    note("a new file of the same name has none");
    make_file("f", 0644, "");
    HOLDS(!listed("f", "user.a"));
}

static void test_stay(void)
{
    make_file("f", 0644, "content");
    make_dir("d", 0755);
    OK(setxattr("f", "user.a", "stays", 5, 0));
    OK(rename("f", "d/g"));
    HOLDS(value_is("d/g", "user.a", "stays", 5));
    OK(link("d/g", "h"));
    HOLDS(value_is("h", "user.a", "stays", 5));
    OK(unlink("d/g"));
    HOLDS(value_is("h", "user.a", "stays", 5));
    OK(truncate("h", 0));
    OK(chmod("h", 0600));
    HOLDS(value_is("h", "user.a", "stays", 5));
    make_file("i", 0644, "");
    OK(setxattr("i", "user.a", "other", 5, 0));
    OK(rename("h", "i"));
    HOLDS_AS("of the file that was renamed, not the replaced one",
             value_is("i", "user.a", "stays", 5));
    note("a directory");
    OK(setxattr("d", "user.a", "dir", 3, 0));
    OK(rename("d", "e"));
    HOLDS(value_is("e", "user.a", "dir", 3));
    make_file("e/new", 0644, "");
    HOLDS_AS("not inherited", !listed("e/new", "user.a"));
}

static void test_rights(void)
{
    make_owned("readable", 0444, U1, (gid_t)U1);
    make_owned("closed", 0600, U2, (gid_t)U2);
    make_owned("open", 0666, U2, (gid_t)U2);
    make_owned("write-only", 0222, U2, (gid_t)U2);
    OK(setxattr("closed", "user.a", "secret", 6, 0));
    OK(setxattr("open", "user.a", "public", 6, 0));
    OK(setxattr("write-only", "user.a", "w", 1, 0));
    make_dir_owned("sticky", 01777, U2, (gid_t)U2);
    make_dir_owned("shared", 0777, U2, (gid_t)U2);
    AS(U1)
    {
        char got[16];
        note("writing them needs write permission, even for the owner");
        FAILS(EACCES, setxattr("readable", "user.a", "x", 1, 0));
        OK(chmod("readable", 0644));
        OK(setxattr("readable", "user.a", "x", 1, 0));
        OK(chmod("readable", 0444));
        FAILS(EACCES, removexattr("readable", "user.a"));
        FAILS(EACCES, setxattr("closed", "user.b", "x", 1, 0));
        FAILS(EACCES, removexattr("closed", "user.a"));
        OK(setxattr("open", "user.b", "x", 1, 0));
        OK(removexattr("open", "user.a"));
        OK(setxattr("write-only", "user.a", "x", 1, 0));
        note("reading them needs read permission, listing does not");
        FAILS(EACCES, getxattr("closed", "user.a", got, sizeof(got)));
        FAILS(EACCES, getxattr("write-only", "user.a", got, sizeof(got)));
        HOLDS(listed("closed", "user.a"));
        note("directories; sticky ones are the owner's");
        OK(setxattr("shared", "user.a", "x", 1, 0));
        FAILS(EPERM, setxattr("sticky", "user.a", "x", 1, 0));
    }
    HOLDS(value_is("closed", "user.a", "secret", 6));
}

static void test_trusted(void)
{
    make_owned("f", 0666, U1, (gid_t)U1);
    OK(symlink("f", "l"));
    OK(mkfifo("p", 0644));
    char got[16];
    OK(setxattr("f", "trusted.a", "root", 4, 0));
    HOLDS(value_is("f", "trusted.a", "root", 4));
    HOLDS(listed("f", "trusted.a"));
    OK(lsetxattr("l", "trusted.a", "link", 4, 0));
    EQ(4, lgetxattr("l", "trusted.a", got, sizeof(got)));
    OK(setxattr("p", "trusted.a", "fifo", 4, 0));
    HOLDS(value_is("p", "trusted.a", "fifo", 4));
    FAILS(ENODATA, getxattr("f", "trusted.b", got, sizeof(got)));
    AS(U1)
    {
        FAILS(EPERM, setxattr("f", "trusted.a", "user", 4, 0));
        FAILS(EPERM, removexattr("f", "trusted.a"));
        FAILS2(ENODATA, EPERM, getxattr("f", "trusted.a", got, sizeof(got)));
    }
    HOLDS(value_is("f", "trusted.a", "root", 4));
    OK(removexattr("f", "trusted.a"));
    HOLDS(!listed("f", "trusted.a"));
}

static void grant(const char *path)
{
    OK(setxattr(path, "security.capability", capability, sizeof(capability), 0));
}

static bool granted(const char *path)
{
    return getxattr(path, "security.capability", NULL, 0) > 0;
}

static void test_capability(void)
{
    make_owned("f", 0777, U1, (gid_t)U1);
    grant("f");
    HOLDS(granted("f"));
    HOLDS(listed("f", "security.capability"));
    FAILS(EINVAL, setxattr("f", "security.capability", "nonsense", 8, 0));
    AS(U1)
    {
        FAILS(EPERM, setxattr("f", "security.capability", capability, sizeof(capability), 0));
        note("a write by a user clears it");
        int fd = open("f", O_WRONLY);
        EQ(1, write(fd, "x", 1));
        close(fd);
        HOLDS(!granted("f"));
    }
    note("so does one by root");
    grant("f");
    int fd = open("f", O_WRONLY);
    EQ(1, write(fd, "x", 1));
    close(fd);
    HOLDS(!granted("f"));
    note("truncation");
    grant("f");
    OK(truncate("f", 3));
    HOLDS(!granted("f"));
    note("chown");
    grant("f");
    OK(chown("f", U2, (gid_t)-1));
    HOLDS(!granted("f"));
    note("what keeps it");
    grant("f");
    OK(chmod("f", 0755));
    OK(rename("f", "g"));
    OK(open_close("g", O_RDWR, 0));
    OK(setxattr("g", "user.a", "x", 1, 0));
    HOLDS(granted("g"));
    OK(removexattr("g", "security.capability"));
    HOLDS(!granted("g"));
}

const struct posix_group xattr_groups[] = {
    {"xattr-basic", test_basic, false},
    {"xattr-flags", test_flags, false},
    {"xattr-limits", test_limits, false},
    {"xattr-types", test_types, false},
    {"xattr-stay", test_stay, false},
    {"xattr-rights", test_rights, true},
    {"xattr-trusted", test_trusted, true},
    {"xattr-capability", test_capability, true},
    {0},
};
