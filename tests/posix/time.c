/* Time stamps: setting them, who may, and which call moves which. */
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "tests/posix/posix.h"

static const struct timespec now_ts = {.tv_sec = 0, .tv_nsec = UTIME_NOW};
static const struct timespec omit_ts = {.tv_sec = 0, .tv_nsec = UTIME_OMIT};

static int set_times(const char *path, struct timespec atime, struct timespec mtime)
{
    struct timespec ts[2] = {atime, mtime};
    return utimensat(AT_FDCWD, path, ts, 0);
}

static struct timespec at(long long sec, long nsec)
{
    struct timespec ts = {.tv_sec = sec, .tv_nsec = nsec};
    return ts;
}

static void times_are(const char *path, struct timespec atime, struct timespec mtime)
{
    struct stat st = st_of(path);
    EQ_AS("atime, s", atime.tv_sec, st.st_atim.tv_sec);
    EQ_AS("atime, ns", atime.tv_nsec, st.st_atim.tv_nsec);
    EQ_AS("mtime, s", mtime.tv_sec, st.st_mtim.tv_sec);
    EQ_AS("mtime, ns", mtime.tv_nsec, st.st_mtim.tv_nsec);
}

static void test_set(void)
{
    static const long long secs[] = {0,          1,           1000000000, 2147483647,
                                     2147483648, 4294967295,  4294967296, 7258118400,
                                     -1,         -1000000000, -2147483647};
    make_file("f", 0644, "content");
    for (size_t i = 0; i < sizeof(secs) / sizeof(secs[0]); i++) {
        note("%lld s", secs[i]);
        OK(set_times("f", at(secs[i], 1), at(secs[i], 999999999)));
        times_are("f", at(secs[i], 1), at(secs[i], 999999999));
    }
    note("omit");
    OK(set_times("f", at(100, 1), at(200, 2)));
    OK(set_times("f", omit_ts, at(300, 3)));
    times_are("f", at(100, 1), at(300, 3));
    OK(set_times("f", at(400, 4), omit_ts));
    times_are("f", at(400, 4), at(300, 3));
    TIMES("f", 0, set_times("f", omit_ts, omit_ts));
    note("now");
    TIMES("f", T_A | T_C, set_times("f", now_ts, omit_ts));
    TIMES("f", T_M | T_C, set_times("f", omit_ts, now_ts));
    TIMES("f", T_A | T_M | T_C, set_times("f", now_ts, now_ts));
    TIMES("f", T_A | T_M | T_C, utimensat(AT_FDCWD, "f", NULL, 0));
    struct stat st = st_of("f");
    EQ(st.st_atim.tv_sec, st.st_mtim.tv_sec);
    EQ(st.st_atim.tv_nsec, st.st_mtim.tv_nsec);
    note("ctime moves when the past is set");
    tick();
    st = st_of("f");
    tick();
    OK(set_times("f", at(1, 0), at(1, 0)));
    st.st_atim = st.st_mtim = at(1, 0);
    (void)check_times(HERE, "set to 1970", &st, "f", T_C);
}

static void test_targets(void)
{
    make_file("f", 0644, "content");
    make_dir("d", 0755);
    OK(symlink("f", "l"));
    OK(symlink("nowhere", "dangling"));
    OK(mkfifo("p", 0644));
    struct timespec ts[2] = {at(11, 1), at(22, 2)};
    OK(utimensat(AT_FDCWD, "d", ts, 0));
    times_are("d", ts[0], ts[1]);
    OK(utimensat(AT_FDCWD, "p", ts, 0));
    times_are("p", ts[0], ts[1]);
    note("links");
    OK(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW));
    times_are("l", ts[0], ts[1]);
    HOLDS(st_of("f").st_mtim.tv_sec != 22);
    OK(utimensat(AT_FDCWD, "l", ts, 0));
    times_are("f", ts[0], ts[1]);
    OK(utimensat(AT_FDCWD, "dangling", ts, AT_SYMLINK_NOFOLLOW));
    times_are("dangling", ts[0], ts[1]);
    FAILS(ENOENT, utimensat(AT_FDCWD, "dangling", ts, 0));
    note("descriptors");
    int fd = open("f", O_RDONLY);
    ts[1] = at(33, 3);
    OK(futimens(fd, ts));
    times_are("f", ts[0], ts[1]);
    OK(unlink("f"));
    OK(futimens(fd, ts));
    close(fd);
    FAILS(EBADF, futimens(fd, ts));
    note("bad arguments");
    make_file("f", 0644, "");
    FAILS(EINVAL, set_times("f", at(1, -1), at(1, 0)));
    FAILS(EINVAL, set_times("f", at(1, 0), at(1, 1000000000)));
    FAILS(EINVAL, utimensat(AT_FDCWD, "f", ts, 0x40000000));
    note("a past mtime stays when only the mode changes");
    OK(set_times("f", at(5, 0), at(6, 0)));
    OK(chmod("f", 0600));
    OK(rename("f", "g"));
    OK(link("g", "h"));
    times_are("h", at(5, 0), at(6, 0));
}

static void test_rights(void)
{
    make_owned("mine", 0444, U1, (gid_t)U1);
    make_owned("writable", 0666, U2, (gid_t)U2);
    make_owned("readable", 0444, U2, (gid_t)U2);
    AS(U1)
    {
        note("the owner, whatever the mode");
        OK(set_times("mine", at(1, 0), at(2, 0)));
        OK(utimensat(AT_FDCWD, "mine", NULL, 0));
        OK(chmod("mine", 0));
        OK(set_times("mine", now_ts, omit_ts));
        note("who may write may set both to now, no more");
        OK(utimensat(AT_FDCWD, "writable", NULL, 0));
        OK(set_times("writable", now_ts, now_ts));
        FAILS(EPERM, set_times("writable", at(1, 0), at(2, 0)));
        FAILS(EPERM, set_times("writable", now_ts, omit_ts));
        FAILS(EPERM, set_times("writable", omit_ts, now_ts));
        FAILS(EPERM, set_times("writable", now_ts, at(1, 0)));
        OK(set_times("writable", omit_ts, omit_ts));
        note("who may not write may do nothing");
        TIMES_FAIL("readable", EACCES, utimensat(AT_FDCWD, "readable", NULL, 0));
        FAILS(EACCES, set_times("readable", now_ts, now_ts));
        FAILS(EPERM, set_times("readable", at(1, 0), at(2, 0)));
        OK(set_times("readable", omit_ts, omit_ts));
        int fd = open("readable", O_RDONLY);
        FAILS(EACCES, futimens(fd, NULL));
        close(fd);
    }
    note("root");
    OK(set_times("readable", at(1, 0), at(2, 0)));
    OK(utimensat(AT_FDCWD, "readable", NULL, 0));
}

static int file; /* open on "f" by the test that uses the functions below */

static long wrote(ssize_t n, size_t want)
{
    return n == (ssize_t)want ? 0 : -1;
}

static void test_content(void)
{
    make_file("f", 0644, "content");
    file = open("f", O_RDWR);
    struct iovec iov = {.iov_base = (char[]){'v'}, .iov_len = 1};
    TIMES("f", T_M | T_C | T_A_ANY, wrote(write(file, "abc", 3), 3));
    TIMES("f", T_M | T_C | T_A_ANY, wrote(pwrite(file, "abc", 3, 100), 3));
    TIMES("f", T_M | T_C | T_A_ANY, wrote(writev(file, &iov, 1), 1));
    TIMES("f", T_A_ANY, wrote(write(file, "", 0), 0));
    TIMES("f", T_M | T_C | T_A_ANY, ftruncate(file, 50));
    TIMES("f", T_M | T_C | T_A_ANY, ftruncate(file, 5000));
    TIMES("f", T_M | T_C | T_A_ANY, truncate("f", 10));
    TIMES("f", T_M | T_C | T_A_ANY, truncate("f", 0));
    TIMES("f", T_M | T_C | T_A_ANY, fallocate(file, 0, 0, 10000));
    TIMES("f", T_A_ANY, fsync(file));
    TIMES("f", T_A_ANY, fdatasync(file));
    TIMES("f", T_A_ANY, lseek(file, 0, SEEK_SET));
    char got[8];
    TIMES("f", T_A_ANY, pread(file, got, sizeof(got), 0));
    TIMES("f", T_A_ANY, open_close("f", O_RDWR, 0));
    TIMES("f", T_A_ANY, access("f", W_OK));
    note("through the descriptor as through the name");
    struct stat by_fd = fst_of(file);
    struct stat by_name = st_of("f");
    EQ(by_fd.st_mtim.tv_nsec, by_name.st_mtim.tv_nsec);
    EQ(by_fd.st_ctim.tv_nsec, by_name.st_ctim.tv_nsec);
    EQ(by_fd.st_mtim.tv_sec, by_name.st_mtim.tv_sec);
    note("close does not move what write stamped");
    EQ(1, pwrite(file, "x", 1, 0));
    by_fd = fst_of(file);
    tick();
    OK(close(file));
    (void)check_times(HERE, "after close", &by_fd, "f", T_A_ANY);
    OK(open_close("f", O_RDONLY, 0));
    (void)check_times(HERE, "after another open", &by_fd, "f", T_A_ANY);
    note("a set mtime outlives the close of a written file");
    file = open("f", O_RDWR);
    EQ(1, pwrite(file, "x", 1, 0));
    struct timespec past[2] = {at(1, 0), at(2, 5)};
    OK(futimens(file, past));
    OK(close(file));
    EQ(2, st_of("f").st_mtim.tv_sec);
    EQ(5, st_of("f").st_mtim.tv_nsec);
}

static void test_names(void)
{
    make_dir("d", 0755);
    make_file("f", 0644, "content");
    unsigned changed = T_M | T_C | T_A_ANY;
    TIMES("d", changed, open_close("d/f", O_CREAT | O_WRONLY, 0644));
    TIMES("d", changed, mkdir("d/s", 0755));
    TIMES("d", changed, symlink("x", "d/l"));
    TIMES("d", changed, mkfifo("d/p", 0644));
    TIMES("d", changed, link("f", "d/h"));
    TIMES("d", changed, rename("d/f", "d/g"));
    TIMES("d", changed, unlink("d/g"));
    TIMES("d", changed, rmdir("d/s"));
    TIMES("d", changed, rename("d/h", "h"));
    note("changes further down do not count");
    make_dir("d/s", 0755);
    TIMES("d", T_A_ANY, open_close("d/s/f", O_CREAT | O_WRONLY, 0644));
    TIMES("d/s", T_A_ANY, truncate("d/s/f", 5));
    TIMES("d/s", T_A_ANY, chmod("d/s/f", 0600));
    note("new objects start with equal times");
    struct stat st = st_of("d/l");
    EQ(st.st_mtim.tv_nsec, st.st_ctim.tv_nsec);
    make_dir("n", 0755);
    OK(mkdir("m", 0755));
    st = st_of("m");
    EQ(st.st_mtim.tv_nsec, st.st_ctim.tv_nsec);
    EQ(st.st_mtim.tv_nsec, st.st_atim.tv_nsec);
}

static void test_attrs(void)
{
    make_file("f", 0644, "content");
    unsigned changed = T_C | T_A_ANY;
    TIMES("f", changed, chmod("f", 0600));
    TIMES("f", changed, setxattr("f", "user.a", "1", 1, 0));
    TIMES("f", changed, setxattr("f", "user.a", "2", 1, XATTR_REPLACE));
    TIMES("f", changed, removexattr("f", "user.a"));
    TIMES_FAIL("f", ENODATA, removexattr("f", "user.a"));
    TIMES("f", T_A_ANY, listxattr("f", NULL, 0));
    TIMES("f", changed, link("f", "g"));
    TIMES("f", changed, unlink("g"));
    TIMES("f", changed, chown("f", geteuid(), getegid()));
}

/* The clock of the file system is the clock of its users. */
static void test_clock(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_REALTIME_COARSE, &a);
    OK(open_close("f", O_CREAT | O_WRONLY, 0644));
    clock_gettime(CLOCK_REALTIME, &b);
    struct stat st = st_of("f");
    long long before = a.tv_sec * 1000000000LL + a.tv_nsec;
    long long after = b.tv_sec * 1000000000LL + b.tv_nsec;
    long long made = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
    HOLDS_AS("not made before its creation", made >= before);
    HOLDS_AS("not made after its creation", made <= after);
    note("order");
    char name[16];
    struct timespec last = st.st_mtim;
    int back = 0;
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        OK_AS("create", open_close(name, O_CREAT | O_WRONLY, 0644));
        struct timespec now = st_of(name).st_mtim;
        back +=
            now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec);
        last = now;
    }
    EQ_AS("files older than those made before them", 0, back);
}

static void test_atime(void)
{
    char c;
    make_file("f", 0644, "content");
    OK(set_times("f", at(1000, 0), at(2000, 0)));
    int fd = open("f", O_RDONLY | O_NOATIME);
    OK(fd);
    EQ(1, read(fd, &c, 1));
    close(fd);
    times_are("f", at(1000, 0), at(2000, 0));
    note("reading never moves mtime or ctime");
    struct stat st = st_of("f");
    fd = open("f", O_RDONLY);
    EQ(1, read(fd, &c, 1));
    close(fd);
    (void)check_times(HERE, "after read", &st, "f", T_A_ANY);
    HOLDS_AS("atime does not go back", st_of("f").st_atim.tv_sec >= 1000);
}

const struct posix_group time_groups[] = {
    {"time-set", test_set, false},
    {"time-targets", test_targets, false},
    {"time-rights", test_rights, true},
    {"time-content", test_content, false},
    {"time-names", test_names, false},
    {"time-attrs", test_attrs, false},
    {"time-clock", test_clock, false},
    {"time-atime", test_atime, false},
    {0},
};
