/* Path resolution: the same errors from every call that takes a path. */
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#include "tests/posix/posix.h"

enum {
    CREATES = 1,  /* makes the last component: a missing one is no error */
    FOLLOWS = 2,  /* follows a symbolic link in the last component */
    CHANGES = 4,  /* needs write permission on the directory */
    DIRS_BAD = 8, /* the last component may not be a directory, if it exists */
};
struct path_call {
    const char *name;
    long (*go)(const char *path);
    unsigned flags;
};

static long do_open(const char *p)
{
    return open_close(p, O_RDONLY, 0);
}

static long do_creat(const char *p)
{
    return open_close(p, O_RDWR | O_CREAT, 0644);
}

static long do_excl(const char *p)
{
    return open_close(p, O_RDWR | O_CREAT | O_EXCL, 0644);
}

static long do_opath(const char *p)
{
    return open_close(p, O_PATH, 0);
}

static long do_stat(const char *p)
{
    struct stat st;
    return stat(p, &st);
}

static long do_lstat(const char *p)
{
    struct stat st;
    return lstat(p, &st);
}

static long do_statx(const char *p)
{
    struct statx stx;
    return statx(AT_FDCWD, p, 0, STATX_BASIC_STATS, &stx);
}

static long do_statfs(const char *p)
{
    struct statfs sf;
    return statfs(p, &sf);
}

static long do_access(const char *p)
{
    return access(p, F_OK);
}

static long do_chmod(const char *p)
{
    return chmod(p, 0755);
}

static long do_chown(const char *p)
{
    return chown(p, geteuid(), getegid());
}

static long do_lchown(const char *p)
{
    return lchown(p, geteuid(), getegid());
}

static long do_utimens(const char *p)
{
    return utimensat(AT_FDCWD, p, NULL, 0);
}

static long do_truncate(const char *p)
{
    return truncate(p, 0);
}

static long do_mkdir(const char *p)
{
    return mkdir(p, 0755);
}

static long do_rmdir(const char *p)
{
    return rmdir(p);
}

static long do_unlink(const char *p)
{
    return unlink(p);
}

static long do_link_from(const char *p)
{
    return link(p, "fresh");
}

static long do_link_to(const char *p)
{
    return link("plain", p);
}

static long do_symlink(const char *p)
{
    return symlink("anywhere", p);
}

static long do_rename_from(const char *p)
{
    return rename(p, "fresh");
}

static long do_rename_to(const char *p)
{
    return rename("plain", p);
}

static long do_mkfifo(const char *p)
{
    return mkfifo(p, 0644);
}

static long do_readlink(const char *p)
{
    char text[8];
    return readlink(p, text, sizeof(text));
}

static long do_opendir(const char *p)
{
    DIR *d = opendir(p);
    return d == NULL ? -1 : closedir(d);
}

static long do_chdir(const char *p)
{
    return chdir(p);
}

static long do_setxattr(const char *p)
{
    return setxattr(p, "user.x", "v", 1, 0);
}

static long do_getxattr(const char *p)
{
    char v[8];
    return getxattr(p, "user.x", v, sizeof(v));
}

static long do_listxattr(const char *p)
{
    char v[64];
    return listxattr(p, v, sizeof(v));
}

static long do_removexattr(const char *p)
{
    return removexattr(p, "user.x");
}

static const struct path_call calls[] = {
    {"open", do_open, FOLLOWS},
    {"open(O_CREAT)", do_creat, CREATES | FOLLOWS | CHANGES | DIRS_BAD},
    {"open(O_CREAT|O_EXCL)", do_excl, CREATES | CHANGES},
    {"open(O_PATH)", do_opath, FOLLOWS},
    {"stat", do_stat, FOLLOWS},
    {"lstat", do_lstat, 0},
    {"statx", do_statx, FOLLOWS},
    {"statfs", do_statfs, FOLLOWS},
    {"access", do_access, FOLLOWS},
    {"chmod", do_chmod, FOLLOWS},
    {"chown", do_chown, FOLLOWS},
    {"lchown", do_lchown, 0},
    {"utimensat", do_utimens, FOLLOWS},
    {"truncate", do_truncate, FOLLOWS | DIRS_BAD},
    {"mkdir", do_mkdir, CREATES | CHANGES},
    {"rmdir", do_rmdir, CHANGES},
    {"unlink", do_unlink, CHANGES | DIRS_BAD},
    {"link from", do_link_from, 0},
    {"link to", do_link_to, CREATES | CHANGES},
    {"symlink", do_symlink, CREATES | CHANGES},
    {"rename from", do_rename_from, CHANGES},
    {"rename to", do_rename_to, CREATES | CHANGES | DIRS_BAD},
    {"mkfifo", do_mkfifo, CREATES | CHANGES},
    {"readlink", do_readlink, 0},
    {"opendir", do_opendir, FOLLOWS},
    {"chdir", do_chdir, FOLLOWS},
    {"setxattr", do_setxattr, FOLLOWS},
    {"getxattr", do_getxattr, FOLLOWS},
    {"listxattr", do_listxattr, FOLLOWS},
    {"removexattr", do_removexattr, FOLLOWS},
};
#define CALL_COUNT (sizeof(calls) / sizeof(calls[0]))

/* Every call with all of the flags `with` and none of `without` fails with `want` on `path`. */
static void all_fail(const char *path, int want, unsigned with, unsigned without)
{
    for (size_t i = 0; i < CALL_COUNT; i++) {
        if ((calls[i].flags & with) == with && (calls[i].flags & without) == 0) {
            FAILS_AS(calls[i].name, want, calls[i].go(path));
        }
    }
    HOLDS_AS("none of them made the file \"fresh\"", !exists("fresh"));
}

static void test_prefix(void)
{
    make_file("plain", 0644, "x");
    note("a directory of the path is missing");
    all_fail("missing/x", ENOENT, 0, 0);
    note("a directory of the path is a file");
    all_fail("plain/x", ENOTDIR, 0, 0);
    note("a directory of the path is a fifo");
    OK(mkfifo("fifo", 0644));
    all_fail("fifo/x", ENOTDIR, 0, 0);
    note("a directory of the path is a link to itself");
    OK(symlink("loop", "loop"));
    all_fail("loop/x", ELOOP, 0, 0);
    note("a directory of the path is a dangling link");
    OK(symlink("nowhere", "dangling"));
    all_fail("dangling/x", ENOENT, 0, 0);
    note("a directory of the path is a link to a file");
    OK(symlink("plain", "to-file"));
    all_fail("to-file/x", ENOTDIR, 0, 0);
}

static void test_last(void)
{
    make_file("plain", 0644, "x");
    note("empty path");
    all_fail("", ENOENT, 0, 0);
    note("the last component is missing");
    all_fail("absent", ENOENT, 0, CREATES);
    note("the last component is a link to itself");
    OK(symlink("loop", "loop"));
    all_fail("loop", ELOOP, FOLLOWS, 0);
    note("two links that point at each other");
    OK(symlink("pong", "ping"));
    OK(symlink("ping", "pong"));
    all_fail("ping", ELOOP, FOLLOWS, 0);
    note("the last component is a dangling link");
    OK(symlink("nowhere", "dangling"));
    all_fail("dangling", ENOENT, FOLLOWS, CREATES);
    note("slash after a file");
    all_fail("plain/", ENOTDIR, FOLLOWS, CREATES);
    all_fail("plain/", ENOTDIR, CHANGES | DIRS_BAD, CREATES);
    note("/. after a file");
    all_fail("plain/.", ENOTDIR, FOLLOWS, CREATES);
    note("/.. after a file");
    all_fail("plain/..", ENOTDIR, FOLLOWS, CREATES);
}

static void test_lengths(void)
{
    static char path[5000];
    make_file("plain", 0644, "x");
    note("a name of 256 bytes");
    name_of_len(path, 256, 'n');
    all_fail(path, ENAMETOOLONG, 0, 0);
    note("a name of 256 bytes in the middle");
    strncat(path, "/x", 3);
    all_fail(path, ENAMETOOLONG, 0, 0);
    note("a path of 4096 bytes");
    for (size_t i = 0; i < 4096; i += 2) {
        memcpy(path + i, "./", 3);
    }
    all_fail(path, ENAMETOOLONG, 0, 0);
    note("a path of 4095 bytes");
    memcpy(path + 4090, "plain", 6);
    OK(do_stat(path));
    OK(do_open(path));
    OK(do_chmod(path));
    OK(do_access(path));
    EQ(1, path[0] == '.' && strlen(path) == 4095);
}

static void test_existing(void)
{
    static const char *const names[] = {"plain", "dir", "to-file", "to-dir", "dangling", "fifo"};
    make_file("plain", 0644, "x");
    make_dir("dir", 0755);
    OK(mkfifo("fifo", 0644));
    OK(symlink("plain", "to-file"));
    OK(symlink("dir", "to-dir"));
    OK(symlink("nowhere", "dangling"));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        note("%s exists", names[i]);
        FAILS(EEXIST, do_excl(names[i]));
        FAILS(EEXIST, do_mkdir(names[i]));
        FAILS(EEXIST, do_link_to(names[i]));
        FAILS(EEXIST, do_symlink(names[i]));
        FAILS(EEXIST, do_mkfifo(names[i]));
    }
    note(NULL);
    EQ(1, nlink_of("plain"));
    HOLDS(!exists("nowhere"));
    note("a directory where none may be");
    FAILS(EISDIR, do_creat("dir"));
    FAILS(EISDIR, do_truncate("dir"));
    FAILS(EISDIR, do_unlink("dir"));
    FAILS(EISDIR, do_rename_to("dir"));
    note("a file where a directory must be");
    FAILS(ENOTDIR, do_rmdir("plain"));
    FAILS(ENOTDIR, do_opendir("plain"));
    FAILS(ENOTDIR, do_chdir("plain"));
    note("not a link");
    FAILS(EINVAL, do_readlink("plain"));
    FAILS(EINVAL, do_readlink("dir"));
    FAILS(EINVAL, do_readlink("fifo"));
}

static void test_search(void)
{
    make_owned("plain", 0666, U1, (gid_t)U1);
    make_dir_owned("private", 0700, 0, 0);
    make_owned("private/x", 0666, U1, (gid_t)U1);
    make_dir_owned("readable", 0744, 0, 0);
    make_owned("readable/x", 0666, U1, (gid_t)U1);
    make_dir_owned("closed", 0755, 0, 0);
    make_owned("closed/plain", 0666, U1, (gid_t)U1);
    OK(symlink("private/x", "into"));
    AS(U1)
    {
        note("no search permission on a directory of the path");
        all_fail("private/x", EACCES, 0, 0);
        note("read but no search permission");
        all_fail("readable/x", EACCES, 0, 0);
        note("a link through a directory without search permission");
        all_fail("into", EACCES, FOLLOWS, 0);
        note("no write permission on the directory, missing name");
        all_fail("closed/new", EACCES, CHANGES | CREATES, 0);
        note("no write permission on the directory");
        FAILS(EACCES, do_unlink("closed/plain"));
        FAILS(EACCES, do_rename_from("closed/plain"));
        FAILS(EACCES, do_rename_to("closed/plain"));
        OK(do_creat("closed/plain"));
        OK(do_chmod("closed/plain"));
        OK(do_opendir("readable"));
        FAILS(EACCES, do_chdir("readable"));
        FAILS(EACCES, do_opendir("private"));
    }
    note(NULL);
    EQ(1, nlink_of("closed/plain"));
}

static void test_link_chain(void)
{
    char from[16], to[16] = "plain";
    make_file("plain", 0644, "x");
    for (int i = 1; i <= 41; i++) {
        snprintf(from, sizeof(from), "l%d", i);
        OK_AS("symlink", symlink(to, from));
        memcpy(to, from, sizeof(to));
    }
    note("40 links in a row are followed, 41 are not");
    OK(do_stat("l40"));
    OK(do_open("l40"));
    FAILS(ELOOP, do_stat("l41"));
    FAILS(ELOOP, do_open("l41"));
    OK(do_lstat("l41"));
    note("links in the middle of a path");
    make_dir("dir", 0755);
    make_file("dir/f", 0644, "f");
    OK(symlink("dir", "d1"));
    OK(symlink("../dir", "dir/up"));
    OK(do_stat("d1/up/up/f"));
    OK(do_stat("d1/../plain"));
    OK(do_stat("d1/"));
    OK(do_stat("d1/."));
    OK(do_stat("d1//f"));
    OK(do_stat("././/dir/../plain"));
}

static void test_at(void)
{
    struct stat st;
    make_dir("dir", 0755);
    make_file("dir/f", 0644, "f");
    int dir = open("dir", O_RDONLY | O_DIRECTORY), file = open("dir/f", O_RDONLY);
    OK(dir);
    OK(file);
    note("calls relative to a directory");
    OK(fstatat(dir, "f", &st, 0));
    OK(mkdirat(dir, "sub", 0755));
    HOLDS(exists("dir/sub"));
    OK(symlinkat("f", dir, "s"));
    OK(linkat(dir, "f", AT_FDCWD, "hard", 0));
    EQ(2, nlink_of("dir/f"));
    OK(renameat(dir, "s", AT_FDCWD, "s"));
    OK(unlinkat(dir, "sub", AT_REMOVEDIR));
    FAILS(ENOENT, unlinkat(dir, "sub", 0));
    OK(mkfifoat(dir, "p", 0644));
    OK(fchmodat(dir, "f", 0600, 0));
    OK(faccessat(dir, "f", R_OK, 0));
    note("relative to a file");
    FAILS(ENOTDIR, fstatat(file, "f", &st, 0));
    FAILS(ENOTDIR, mkdirat(file, "sub", 0755));
    FAILS(ENOTDIR, openat(file, "f", O_RDONLY));
    FAILS(ENOTDIR, unlinkat(file, "f", 0));
    FAILS(ENOTDIR, renameat(file, "f", AT_FDCWD, "g"));
    note("relative to nothing");
    FAILS(EBADF, fstatat(987, "f", &st, 0));
    FAILS(EBADF, openat(987, "f", O_RDONLY));
    FAILS(EBADF, mkdirat(987, "sub", 0755));
    note("bad flags");
    FAILS(EINVAL, unlinkat(dir, "f", 0x4000));
    FAILS(EINVAL, fstatat(dir, "f", &st, 0x40000000));
    note("rmdir and unlink through unlinkat");
    FAILS(ENOTDIR, unlinkat(dir, "f", AT_REMOVEDIR));
    FAILS(EISDIR, unlinkat(AT_FDCWD, "dir", 0));
    FAILS(ENOTEMPTY, unlinkat(AT_FDCWD, "dir", AT_REMOVEDIR));
    note("an absolute path ignores the directory");
    OK(fstatat(987, "/", &st, 0));
    note("AT_EMPTY_PATH");
    OK(fstatat(file, "", &st, AT_EMPTY_PATH));
    HOLDS(S_ISREG(st.st_mode));
    FAILS(ENOENT, fstatat(file, "", &st, 0));
    close(dir);
    close(file);
}

const struct posix_group path_groups[] = {
    {"path-prefix", test_prefix, false},  {"path-last", test_last, false},
    {"path-length", test_lengths, false}, {"path-existing", test_existing, false},
    {"path-search", test_search, true},   {"path-links", test_link_chain, false},
    {"path-at", test_at, false},          {0},
};
