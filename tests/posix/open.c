/* open and creat: flags, creation, truncation, and who may open what how. */
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "tests/posix/posix.h"

static void test_create(void)
{
    static const mode_t masks[] = {0, 022, 027, 077, 0777, 0123};
    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
        note("umask 0%o", masks[i]);
        umask(masks[i]);
        OK(open_close("f", O_CREAT | O_WRONLY, 0777));
        MODE(0777 & ~masks[i], "f");
        OK(unlink("f"));
        OK(close(creat("f", 0666)));
        MODE(0666 & ~masks[i], "f");
        OK(unlink("f"));
    }
    umask(0);
    note("a new file");
    struct stat dir = st_of(".");
    tick();
    OK(open_close("new", O_CREAT | O_EXCL | O_WRONLY, 0640));
    struct stat st = st_of("new");
    HOLDS(S_ISREG(st.st_mode));
    EQ(0, st.st_size);
    EQ(1, st.st_nlink);
    EQ(geteuid(), st.st_uid);
    EQ(getegid(), st.st_gid);
    EQ(0, st.st_blocks);
    (void)check_times(HERE, "its directory", &dir, ".", T_M | T_C | T_A_ANY);
    HOLDS(st.st_ctim.tv_sec == st.st_mtim.tv_sec && st.st_ctim.tv_nsec == st.st_mtim.tv_nsec);
    note("set-id and sticky bits at creation");
    OK(open_close("bits", O_CREAT | O_WRONLY, 07755));
    MODE(07755, "bits");
    note("creat of an existing file changes neither mode nor owner");
    OK(chmod("new", 0606));
    OK(close(creat("new", 0777)));
    MODE(0606, "new");
    note("mode 0 does not bind the descriptor that created the file");
    int fd = open("none", O_CREAT | O_RDWR, 0);
    OK(fd);
    EQ(3, write(fd, "abc", 3));
    char got[4] = "";
    EQ(3, pread(fd, got, 3, 0));
    TEXT("abc", got);
    close(fd);
}

static void test_create_links(void)
{
    OK(symlink("target", "link"));
    FAILS(EEXIST, open_close("link", O_CREAT | O_EXCL | O_WRONLY, 0644));
    FAILS(ELOOP, open_close("link", O_CREAT | O_NOFOLLOW | O_WRONLY, 0644));
    HOLDS(!exists("target"));
    OK(open_close("link", O_CREAT | O_WRONLY, 0644));
    HOLDS_AS("O_CREAT through a dangling link creates its target", exists("target"));
    HOLDS(S_ISLNK(st_of("link").st_mode));
    note("O_CREAT of what exists leaves the directory alone");
    TIMES(".", T_A_ANY, open_close("target", O_CREAT | O_WRONLY, 0644));
    note("trailing slash");
    FAILS(EISDIR, open_close("new/", O_CREAT | O_WRONLY, 0644));
    FAILS2(EISDIR, ENOTDIR, open_close("target/", O_CREAT | O_WRONLY, 0644));
    HOLDS(!exists("new"));
    note("O_CREAT with O_DIRECTORY");
    FAILS2(EINVAL, EISDIR, open_close("d2", O_CREAT | O_DIRECTORY | O_RDONLY, 0755));
    HOLDS(!exists("d2"));
    note("O_CREAT on a directory");
    FAILS(EISDIR, open_close(".", O_CREAT | O_RDONLY, 0755));
    FAILS(EISDIR, open_close(".", O_CREAT | O_RDWR, 0755));
    FAILS(EEXIST, open_close(".", O_CREAT | O_EXCL | O_RDWR, 0755));
}

static void test_trunc(void)
{
    make_file("f", 0644, "content");
    TIMES("f", T_M | T_C | T_A_ANY, open_close("f", O_WRONLY | O_TRUNC, 0));
    EQ(0, size_of("f"));
    note("an empty file");
    TIMES("f", T_M | T_C | T_A_ANY, open_close("f", O_WRONLY | O_TRUNC, 0));
    note("O_TRUNC with O_RDONLY");
    make_file("f", 0644, "content");
    OK(open_close("f", O_RDONLY | O_TRUNC, 0));
    EQ(0, size_of("f"));
    note("what was there does not come back");
    make_file("f", 0644, "content");
    int fd = open("f", O_RDWR | O_TRUNC);
    OK(fd);
    OK(ftruncate(fd, 7));
    HOLDS(content_is("f", "\0\0\0\0\0\0\0", 7));
    close(fd);
    note("another descriptor sees it at once");
    make_file("f", 0644, "content");
    fd = open("f", O_RDONLY);
    OK(open_close("f", O_WRONLY | O_TRUNC, 0));
    char c;
    EQ(0, read(fd, &c, 1));
    EQ(0, fst_of(fd).st_size);
    close(fd);
    note("not regular files");
    OK(mkfifo("p", 0644));
    OK(open_close("p", O_RDWR | O_TRUNC | O_NONBLOCK, 0));
    FAILS(EISDIR, open_close(".", O_RDONLY | O_TRUNC, 0));
    FAILS(EISDIR, open_close(".", O_WRONLY | O_TRUNC, 0));
    note("O_EXCL|O_TRUNC of an existing file");
    make_file("f", 0644, "content");
    FAILS(EEXIST, open_close("f", O_CREAT | O_EXCL | O_TRUNC | O_WRONLY, 0644));
    EQ(7, size_of("f"));
}

static void test_flags(void)
{
    make_file("f", 0644, "content");
    make_dir("d", 0755);
    OK(symlink("f", "lf"));
    OK(symlink("d", "ld"));
    note("O_DIRECTORY");
    FAILS(ENOTDIR, open_close("f", O_RDONLY | O_DIRECTORY, 0));
    FAILS(ENOTDIR, open_close("lf", O_RDONLY | O_DIRECTORY, 0));
    OK(open_close("d", O_RDONLY | O_DIRECTORY, 0));
    OK(open_close("ld", O_RDONLY | O_DIRECTORY, 0));
    note("O_NOFOLLOW");
    FAILS(ELOOP, open_close("lf", O_RDONLY | O_NOFOLLOW, 0));
    FAILS(ELOOP, open_close("ld", O_RDONLY | O_NOFOLLOW, 0));
    FAILS2(ENOTDIR, ELOOP, open_close("ld", O_RDONLY | O_NOFOLLOW | O_DIRECTORY, 0));
    OK(open_close("f", O_RDONLY | O_NOFOLLOW, 0));
    OK(open_close("ld/.", O_RDONLY | O_NOFOLLOW, 0));
    note("directories are not written");
    FAILS(EISDIR, open_close("d", O_WRONLY, 0));
    FAILS(EISDIR, open_close("d", O_RDWR, 0));
    FAILS(EISDIR, open_close("ld", O_WRONLY, 0));
    int fd = open("d", O_RDONLY);
    char c;
    FAILS(EISDIR, read(fd, &c, 1));
    FAILS(EBADF, write(fd, "x", 1));
    close(fd);
    note("the direction of a descriptor");
    fd = open("f", O_RDONLY);
    FAILS(EBADF, write(fd, "x", 1));
    FAILS(EBADF, pwrite(fd, "x", 1, 0));
    FAILS(EINVAL, ftruncate(fd, 0));
    close(fd);
    fd = open("f", O_WRONLY);
    FAILS(EBADF, read(fd, &c, 1));
    FAILS(EBADF, pread(fd, &c, 1, 0));
    close(fd);
    note("fcntl(F_GETFL), F_SETFL");
    fd = open("f", O_RDWR | O_APPEND);
    EQ(O_RDWR | O_APPEND, fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND));
    OK(fcntl(fd, F_SETFL, 0));
    EQ(1, pwrite(fd, "C", 1, 0));
    HOLDS(content_is("f", "Content", 7));
    OK(fcntl(fd, F_SETFL, O_APPEND));
    OK(lseek(fd, 0, SEEK_SET));
    EQ(1, write(fd, "!", 1));
    HOLDS(content_is("f", "Content!", 8));
    EQ(8, lseek(fd, 0, SEEK_CUR));
    close(fd);
    note("closed descriptors");
    FAILS(EBADF, close(fd));
    FAILS(EBADF, read(fd, &c, 1));
    FAILS(EBADF, fcntl(fd, F_GETFL));
}

static void test_opath(void)
{
    char c;
    make_file("f", 0, "content");
    make_dir("d", 0755);
    make_file("d/in", 0644, "in");
    OK(symlink("f", "lf"));
    int fd = open("f", O_PATH);
    OK(fd);
    EQ(7, fst_of(fd).st_size);
    FAILS(EBADF, read(fd, &c, 1));
    FAILS(EBADF, write(fd, "x", 1));
    FAILS(EBADF, fchmod(fd, 0644));
    FAILS(EBADF, fchown(fd, (uid_t)-1, (gid_t)-1));
    FAILS2(EBADF, EINVAL, ftruncate(fd, 0));
    FAILS(EBADF, fsync(fd));
    FAILS(EBADF, lseek(fd, 0, SEEK_SET));
    HOLDS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EBADF);
    close(fd);
    note("a link itself");
    fd = open("lf", O_PATH | O_NOFOLLOW);
    OK(fd);
    HOLDS(S_ISLNK(fst_of(fd).st_mode));
    EQ(1, readlinkat(fd, "", &c, 1));
    EQ('f', c);
    close(fd);
    note("a directory");
    fd = open("d", O_PATH | O_DIRECTORY);
    OK(fd);
    int in = openat(fd, "in", O_RDONLY);
    OK(in);
    close(in);
    int back = open(".", O_RDONLY);
    OK(fchdir(fd));
    HOLDS(exists("in"));
    OK(fchdir(back));
    close(back);
    close(fd);
    FAILS(ENOTDIR, open("f", O_PATH | O_DIRECTORY));
}

static void test_special(void)
{
    note("a fifo without a reader");
    OK(mkfifo("p", 0644));
    FAILS(ENXIO, open_close("p", O_WRONLY | O_NONBLOCK, 0));
    OK(open_close("p", O_RDONLY | O_NONBLOCK, 0));
    OK(open_close("p", O_RDWR, 0));
    note("a socket");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "sock"};
    OK(bind(s, (struct sockaddr *)&at, sizeof(at)));
    HOLDS(S_ISSOCK(st_of("sock").st_mode));
    FAILS(ENXIO, open_close("sock", O_RDONLY, 0));
    FAILS(ENXIO, open_close("sock", O_WRONLY, 0));
    FAILS(EADDRINUSE, bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&at, sizeof(at)));
    close(s);
}

static void copy_program(const char *from, const char *to)
{
    static char block[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    OK(in);
    OK(out);
    ssize_t n = 0;
    while ((n = read(in, block, sizeof(block))) > 0 && write(out, block, (size_t)n) == n) {
    }
    EQ(0, n);
    close(in);
    close(out);
}

/* The exit status of the program, or the errno with which it could not be run. */
static int run_program(const char *path)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl(path, path, (char *)NULL);
        _exit(errno);
    }
    int status = -1;
    OK(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A running program cannot be written to, and a file open for writing cannot be run. */
static void test_busy_text(void)
{
    copy_program("/bin/cat", "cat");
    int feed[2], out[2];
    OK(pipe(feed));
    OK(pipe(out));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(feed[0], 0);
        dup2(out[1], 1);
        close(feed[1]);
        execl("./cat", "cat", (char *)NULL);
        _exit(9);
    }
    char c = 0;
    EQ(1, write(feed[1], "x", 1));
    EQ(1, read(out[0], &c, 1)); /* now it runs */
    FAILS(ETXTBSY, open_close("cat", O_WRONLY, 0));
    FAILS(ETXTBSY, truncate("cat", 0));
    OK(open_close("cat", O_RDONLY, 0));
    OK(rename("cat", "cat2"));
    OK(unlink("cat2"));
    close(feed[0]);
    close(feed[1]);
    int status = -1;
    OK(waitpid(pid, &status, 0));
    EQ(0, status);
    copy_program("/bin/true", "true");
    int fd = open("true", O_RDWR);
    EQ(ETXTBSY, run_program("./true"));
    close(fd);
    EQ(0, run_program("./true"));
    OK(chmod("true", 0644));
    EQ(EACCES, run_program("./true"));
}

static void test_tmpfile(void)
{
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (!OFFERED(fd)) {
        return;
    }
    EQ(0, fst_of(fd).st_nlink);
    OCTAL(0640, fst_of(fd).st_mode & 07777);
    EQ(3, write(fd, "abc", 3));
    EQ(0, count_entries("."));
    char self[40];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, self, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    EQ(1, fst_of(fd).st_nlink);
    HOLDS(content_is("named", "abc", 3));
    close(fd);
    fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0640);
    OK(fd);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    FAILS(ENOENT, linkat(AT_FDCWD, self, AT_FDCWD, "never", AT_SYMLINK_FOLLOW));
    close(fd);
    FAILS(EINVAL, open(".", O_TMPFILE | O_RDONLY, 0640));
    FAILS(ENOENT, open("missing", O_TMPFILE | O_RDWR, 0640));
}

/* Which of read, write, execute the bits `rwx` of one class give, as that user. */
static void check_class(const char *path, unsigned rwx)
{
    bool r = (rwx & 4) != 0, w = (rwx & 2) != 0, x = (rwx & 1) != 0;
    HOLDS_AS("open for reading", (open_close(path, O_RDONLY, 0) == 0) == r);
    HOLDS_AS("open for writing", (open_close(path, O_WRONLY, 0) == 0) == w);
    HOLDS_AS("open for both", (open_close(path, O_RDWR, 0) == 0) == (r && w));
    HOLDS_AS("read-only with O_TRUNC", (open_close(path, O_RDONLY | O_TRUNC, 0) == 0) == (r && w));
    HOLDS_AS("access(R_OK)", (access(path, R_OK) == 0) == r);
    HOLDS_AS("access(W_OK)", (access(path, W_OK) == 0) == w);
    HOLDS_AS("access(X_OK)", (access(path, X_OK) == 0) == x);
    if (!r) {
        FAILS(EACCES, open_close(path, O_RDONLY, 0));
    }
    if (!w) {
        FAILS(EACCES, open_close(path, O_WRONLY, 0));
        FAILS(EACCES, truncate(path, 0));
    }
}

static void test_access(void)
{
    for (unsigned rwx = 0; rwx < 8; rwx++) {
        unsigned rest = 7u & ~rwx;
        make_owned("owner", (mode_t)(rwx << 6 | rest << 3 | rest), U1, (gid_t)U1);
        make_owned("group", (mode_t)(rest << 6 | rwx << 3 | rest), U2, SHARED_GID);
        make_owned("other", (mode_t)(rest << 6 | rest << 3 | rwx), U2, OTHER_GID);
        AS(U1)
        {
            note("owner with bits %o, the others with %o", rwx, rest);
            check_class("owner", rwx);
            note("supplementary group with bits %o, the others with %o", rwx, rest);
            check_class("group", rwx);
            note("other with bits %o, the others with %o", rwx, rest);
            check_class("other", rwx);
        }
        OK(unlink("owner"));
        OK(unlink("group"));
        OK(unlink("other"));
    }
    note("root");
    make_owned("none", 0, U1, (gid_t)U1);
    OK(open_close("none", O_RDWR, 0));
    FAILS(EACCES, access("none", X_OK));
    OK(chmod("none", 0001));
    OK(access("none", X_OK));
    make_dir_owned("closed", 0, U1, (gid_t)U1);
    OK(access("closed", X_OK | W_OK | R_OK));
    OK(open_close("closed/f", O_CREAT | O_WRONLY, 0644));
}

static void test_dir_access(void)
{
    for (unsigned rwx = 0; rwx < 8; rwx++) {
        bool r = (rwx & 4) != 0, w = (rwx & 2) != 0, x = (rwx & 1) != 0;
        make_dir_owned("d", 0777, U1, (gid_t)U1);
        make_owned("d/f", 0666, U1, (gid_t)U1);
        OK(chmod("d", (mode_t)(rwx << 6 | 077)));
        AS(U1)
        {
            struct stat st;
            note("a directory with bits %o of its owner", rwx);
            HOLDS_AS("list", (open_close("d", O_RDONLY, 0) == 0) == r);
            HOLDS_AS("stat inside", (stat("d/f", &st) == 0) == x);
            HOLDS_AS("open inside", (open_close("d/f", O_RDWR, 0) == 0) == x);
            HOLDS_AS("create", (open_close("d/n", O_CREAT | O_RDWR, 0644) == 0) == (w && x));
            HOLDS_AS("mkdir", (mkdir("d/m", 0755) == 0) == (w && x));
            HOLDS_AS("link", (link("d/f", "d/l") == 0) == (w && x));
            HOLDS_AS("symlink", (symlink("f", "d/s") == 0) == (w && x));
            HOLDS_AS("rename", (rename("d/f", "d/g") == 0) == (w && x));
            HOLDS_AS("unlink", (unlink("d/g") == 0) == (w && x));
            HOLDS_AS("chdir", (chdir("d") == 0) == x);
        }
        char cmd[] = "rm -rf d";
        EQ(0, system(cmd));
    }
}

/* The owner may use what he created whatever its mode; a file keeps open what lost its rights. */
static void test_rights_stay(void)
{
    make_dir_owned("d", 0755, U1, (gid_t)U1);
    AS(U1)
    {
        int fd = open("d/f", O_CREAT | O_RDWR, 0444);
        OK(fd);
        EQ(1, write(fd, "x", 1));
        FAILS(EACCES, open("d/f", O_WRONLY));
        OK(fchmod(fd, 0));
        char c = 0;
        EQ(1, pread(fd, &c, 1, 0));
        EQ(1, write(fd, "y", 1));
        FAILS(EACCES, open("d/f", O_RDONLY));
        FAILS(EACCES, creat("d/f", 0644));
        OK(open_close("d/f", O_PATH, 0));
        OK(fchmod(fd, 0600));
        HOLDS(content_is("d/f", "xy", 2));
        close(fd);
        EQ(U1, st_of("d/f").st_uid);
        EQ(U1, st_of("d/f").st_gid);
        note("O_NOATIME is for the owner");
        OK(open_close("d/f", O_RDONLY | O_NOATIME, 0));
    }
    OK(chmod("d/f", 0644));
    AS(U2)
    {
        FAILS(EPERM, open_close("d/f", O_RDONLY | O_NOATIME, 0));
        OK(open_close("d/f", O_RDONLY, 0));
    }
}

const struct posix_group open_groups[] = {
    {"open-create", test_create, false},
    {"open-links", test_create_links, false},
    {"open-trunc", test_trunc, false},
    {"open-flags", test_flags, false},
    {"open-path", test_opath, false},
    {"open-special", test_special, false},
    {"open-busy-text", test_busy_text, false},
    {"open-tmpfile", test_tmpfile, false},
    {"open-access", test_access, true},
    {"open-dir-access", test_dir_access, true},
    {"open-rights-stay", test_rights_stay, true},
    {0},
};
