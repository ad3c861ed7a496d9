/* What stat, statx, statvfs and access say, and file handles. */
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "tests/posix/posix.h"

static void test_stat(void)
{
    make_file("f", 0640, "content");
    make_dir("d", 0750);
    OK(symlink("f", "l"));
    struct stat st, by_fd, by_link;
    OK(stat("f", &st));
    OCTAL(S_IFREG | 0640, st.st_mode);
    EQ(7, st.st_size);
    EQ(1, st.st_nlink);
    EQ(geteuid(), st.st_uid);
    EQ(getegid(), st.st_gid);
    EQ(0, st.st_rdev);
    HOLDS(st.st_ino != 0);
    HOLDS(st.st_blksize >= 512);
    int fd = open("f", O_RDONLY);
    OK(fstat(fd, &by_fd));
    OK(stat("l", &by_link));
    HOLDS_AS("fstat says the same",
             by_fd.st_ino == st.st_ino && by_fd.st_dev == st.st_dev && by_fd.st_mode == st.st_mode);
    HOLDS_AS("stat follows", by_link.st_ino == st.st_ino);
    HOLDS_AS("lstat does not", st_of("l").st_ino != st.st_ino);
    EQ(1, size_of("l"));
    EQ_AS("one device", st_of("d").st_dev, st.st_dev);
    OCTAL(S_IFDIR | 0750, st_of("d").st_mode);
    close(fd);
    note("inode numbers");
    char name[16];
    static ino_t seen[200];
    int twice = 0;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "i%d", i);
        make_file(name, 0644, "");
        seen[i] = st_of(name).st_ino;
        for (int j = 0; j < i; j++) {
            twice += seen[i] == seen[j];
        }
    }
    EQ_AS("numbers used twice", 0, twice);
    int moved = 0;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "i%d", i);
        moved += st_of(name).st_ino != seen[i];
    }
    EQ_AS("numbers that changed", 0, moved);
    OK(rename("i7", "d/i7"));
    EQ(seen[7], st_of("d/i7").st_ino);
}

static void test_statx(void)
{
    make_file("f", 0640, "content");
    struct statx a, b;
    OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &a));
    EQ(STATX_BASIC_STATS, a.stx_mask & STATX_BASIC_STATS);
    struct stat st = st_of("f");
    EQ(st.st_ino, a.stx_ino);
    EQ(st.st_size, a.stx_size);
    EQ(st.st_nlink, a.stx_nlink);
    EQ(st.st_blocks, a.stx_blocks);
    OCTAL(st.st_mode, a.stx_mode);
    EQ(st.st_uid, a.stx_uid);
    EQ(st.st_mtim.tv_nsec, a.stx_mtime.tv_nsec);
    EQ(st.st_ctim.tv_sec, a.stx_ctime.tv_sec);
    EQ(major(st.st_dev), a.stx_dev_major);
    EQ(minor(st.st_dev), a.stx_dev_minor);
    OK(truncate("f", 0));
    if ((a.stx_mask & STATX_BTIME) == 0) {
        skip("the file system tells no time of birth");
    } else {
        tick();
        OK(chmod("f", 0600));
        OK(utimensat(AT_FDCWD, "f", NULL, 0));
        OK(rename("f", "g"));
        OK(rename("g", "f"));
        OK(statx(AT_FDCWD, "f", 0, STATX_ALL, &b));
        HOLDS_AS("the birth never moves", a.stx_btime.tv_sec == b.stx_btime.tv_sec &&
                                              a.stx_btime.tv_nsec == b.stx_btime.tv_nsec);
        HOLDS(b.stx_btime.tv_sec <= b.stx_ctime.tv_sec);
    }
    note("flags");
    OK(symlink("f", "l"));
    OK(statx(AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &a));
    HOLDS(S_ISLNK(a.stx_mode));
    int fd = open("f", O_RDONLY);
    OK(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &a));
    EQ(0, a.stx_size);
    OK(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &a));
    OK(statx(AT_FDCWD, "f", AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &a));
    FAILS(EINVAL, statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, 0, &a));
    FAILS(EINVAL, statx(AT_FDCWD, "f", 0x40000000, STATX_BASIC_STATS, &a));
    FAILS(EINVAL, statx(AT_FDCWD, "f", 0, STATX__RESERVED, &a));
    FAILS(ENOENT, statx(fd, "", 0, STATX_SIZE, &a));
    close(fd);
}

static void test_statvfs(void)
{
    make_file("f", 0644, "");
    struct statvfs a, b, c;
    OK(statvfs(".", &a));
    OK(statvfs("f", &b));
    int fd = open("f", O_RDONLY);
    OK(fstatvfs(fd, &c));
    close(fd);
    EQ(255, a.f_namemax);
    HOLDS(a.f_bsize > 0 && (a.f_bsize & (a.f_bsize - 1)) == 0);
    HOLDS(a.f_frsize > 0 && (a.f_frsize & (a.f_frsize - 1)) == 0);
    HOLDS(a.f_blocks > 0);
    HOLDS(a.f_bfree <= a.f_blocks);
    HOLDS(a.f_bavail <= a.f_bfree);
    HOLDS(a.f_ffree <= a.f_files);
    EQ(a.f_fsid, b.f_fsid);
    EQ(a.f_blocks, c.f_blocks);
    EQ(a.f_namemax, c.f_namemax);
    EQ(255, pathconf(".", _PC_NAME_MAX));
    struct statfs sf;
    OK(statfs(".", &sf));
    EQ(255, sf.f_namelen);
    HOLDS(sf.f_type != 0);
}

static void test_access(void)
{
    make_owned("f", 0, U1, (gid_t)U1);
    make_owned("x", 0010, U2, SHARED_GID);
    make_owned("g", 0604, U1, (gid_t)U1);
    make_dir_owned("d", 0311, U1, (gid_t)U1);
    FAILS(ENOENT, access("missing", F_OK));
    FAILS(EINVAL, access("f", 0x40));
    FAILS(EINVAL, faccessat(AT_FDCWD, "f", F_OK, 0x40000000));
    AS(U1)
    {
        OK(access("f", F_OK));
        FAILS(EACCES, access("f", R_OK));
        FAILS(EACCES, access("f", W_OK));
        FAILS(EACCES, access("f", X_OK));
        OK(access("x", X_OK));
        FAILS(EACCES, access("x", R_OK | X_OK));
        OK(access("g", R_OK | W_OK));
        FAILS(EACCES, access("g", R_OK | W_OK | X_OK));
        OK(access("d", W_OK | X_OK));
        FAILS(EACCES, access("d", R_OK));
    }
    AS(U2)
    {
        OK(access("g", R_OK));
        FAILS(EACCES, access("g", W_OK));
        OK(access("d", X_OK));
        FAILS(EACCES, access("d", W_OK));
    }
    note("root");
    OK(access("f", R_OK | W_OK));
    FAILS(EACCES, access("f", X_OK));
    OK(access("x", X_OK));
    note("real and effective ids");
    PROC
    {
        OK(setresgid((gid_t)-1, (gid_t)U2, (gid_t)-1));
        OK(setresuid((uid_t)-1, U2, (uid_t)-1));
        OK(access("g", W_OK));
        FAILS(EACCES, faccessat(AT_FDCWD, "g", W_OK, AT_EACCESS));
        FAILS(EACCES, open("g", O_WRONLY));
        OK(faccessat(AT_FDCWD, "g", R_OK, AT_EACCESS));
    }
    note("links");
    OK(symlink("missing", "l"));
    FAILS(ENOENT, access("l", F_OK));
    OK(faccessat(AT_FDCWD, "l", F_OK, AT_SYMLINK_NOFOLLOW));
}

struct handle {
    struct file_handle h;
    unsigned char room[MAX_HANDLE_SZ];
};

static int handle_of(const char *path, struct handle *ret, int *ret_mount)
{
    ret->h.handle_bytes = MAX_HANDLE_SZ;
    return name_to_handle_at(AT_FDCWD, path, &ret->h, ret_mount, 0);
}

static void test_handles(void)
{
    static struct handle h, d, again;
    int mount = 0, other = 0;
    make_file("f", 0644, "content");
    make_dir("d", 0755);
    if (!OFFERED(handle_of("f", &h, &mount))) {
        return;
    }
    h.h.handle_bytes = 0;
    FAILS(EOVERFLOW, name_to_handle_at(AT_FDCWD, "f", &h.h, &mount, 0));
    HOLDS(h.h.handle_bytes > 0 && h.h.handle_bytes <= MAX_HANDLE_SZ);
    OK(handle_of("f", &h, &mount));
    OK(handle_of("f", &again, &other));
    EQ(mount, other);
    HOLDS(h.h.handle_bytes == again.h.handle_bytes &&
          memcmp(h.h.f_handle, again.h.f_handle, h.h.handle_bytes) == 0);
    OK(handle_of("d", &d, &other));
    FAILS(ENOENT, handle_of("missing", &again, &other));
    int dir = open(".", O_RDONLY);
    AS(U1)
    {
        FAILS(EPERM, open_by_handle_at(dir, &h.h, O_RDONLY));
    }
    if (!is_root()) {
        close(dir);
        return;
    }
    note("opened again");
    int fd = open_by_handle_at(dir, &h.h, O_RDWR);
    OK(fd);
    EQ(st_of("f").st_ino, fst_of(fd).st_ino);
    EQ(1, pwrite(fd, "C", 1, 0));
    close(fd);
    HOLDS(content_is("f", "Content", 7));
    fd = open_by_handle_at(dir, &d.h, O_RDONLY | O_DIRECTORY);
    OK(fd);
    EQ(st_of("d").st_ino, fst_of(fd).st_ino);
    close(fd);
    note("after a rename");
    OK(rename("f", "d/g"));
    fd = open_by_handle_at(dir, &h.h, O_RDONLY);
    OK(fd);
    EQ(7, fst_of(fd).st_size);
    close(fd);
    note("after it is gone");
    OK(unlink("d/g"));
    OK(rmdir("d"));
    make_file("f", 0644, "another");
    make_dir("d", 0755);
    FAILS(ESTALE, open_by_handle_at(dir, &h.h, O_RDONLY));
    FAILS(ESTALE, open_by_handle_at(dir, &d.h, O_RDONLY));
    close(dir);
}

const struct posix_group stat_groups[] = {
    {"stat-stat", test_stat, false},       {"stat-statx", test_statx, false},
    {"stat-statvfs", test_statvfs, false}, {"stat-access", test_access, true},
    {"stat-handles", test_handles, false}, {0},
};
