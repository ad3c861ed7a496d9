/* Special files, inotify, working directories. */
#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "tests/posix/posix.h"

static void test_mknod(void)
{
    OK(mknod("r", S_IFREG | 0640, 0));
    OK(mknod("zero", 0604, 0));
    OK(mknod("p", S_IFIFO | 0620, 0));
    OK(mknod("s", S_IFSOCK | 0602, 0));
    OCTAL(S_IFREG | 0640, st_of("r").st_mode);
    OCTAL(S_IFREG | 0604, st_of("zero").st_mode);
    OCTAL(S_IFIFO | 0620, st_of("p").st_mode);
    OCTAL(S_IFSOCK | 0602, st_of("s").st_mode);
    EQ(0, size_of("r"));
    EQ(1, nlink_of("p"));
    EQ(0, st_of("p").st_rdev);
    HOLDS(content_is("r", "", 0));
    FAILS2(EPERM, EINVAL, mknod("d", S_IFDIR | 0755, 0));
    FAILS2(EPERM, EINVAL, mknod("l", S_IFLNK | 0755, 0));
    FAILS(EINVAL, mknod("x", 0170000 | 0644, 0));
    FAILS(EEXIST, mknod("p", S_IFIFO | 0644, 0));
    HOLDS(!exists("d") && !exists("l") && !exists("x"));
    TIMES(".", T_M | T_C | T_A_ANY, mknod("p2", S_IFIFO | 0644, 0));
    OK(rename("p", "p3"));
    HOLDS(S_ISFIFO(st_of("p3").st_mode));
}

static void test_devices(void)
{
    static const unsigned numbers[][2] = {{0, 0}, {1, 3}, {255, 255}, {256, 256}, {4095, 1048575}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        dev_t dev = makedev(numbers[i][0], numbers[i][1]);
        note("device %u:%u", numbers[i][0], numbers[i][1]);
        OK(mknod("c", S_IFCHR | 0600, dev));
        HOLDS(S_ISCHR(st_of("c").st_mode));
        EQ(dev, st_of("c").st_rdev);
        OK(unlink("c"));
        OK(mknod("b", S_IFBLK | 0660, dev));
        HOLDS(S_ISBLK(st_of("b").st_mode));
        EQ(dev, st_of("b").st_rdev);
        EQ(0, st_of("b").st_size);
        OK(unlink("b"));
    }
    make_dir_owned("d", 0777, 0, 0);
    AS(U1)
    {
        note("devices are root's to make; fifos and sockets anybody's");
        FAILS(EPERM, mknod("d/c", S_IFCHR | 0666, makedev(1, 3)));
        FAILS(EPERM, mknod("d/b", S_IFBLK | 0666, makedev(1, 3)));
        OK(mknod("d/p", S_IFIFO | 0666, 0));
        OK(mknod("d/s", S_IFSOCK | 0666, 0));
        OK(mknod("d/r", S_IFREG | 0666, 0));
        EQ(U1, st_of("d/p").st_uid);
    }
    EQ(3, count_entries("d"));
}

static void test_fifo(void)
{
    OK(mkfifo("p", 0644));
    PROC
    {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            int out = open("p", O_WRONLY);
            OK_AS("write to the fifo", write(out, "through", 7));
            as_end();
        }
        char got[16] = "";
        int in = open("p", O_RDONLY);
        EQ(7, read(in, got, sizeof(got)));
        TEXT("through", got);
        EQ_AS("end of file when the writer is gone", 0, read(in, got, sizeof(got)));
        FAILS(ESPIPE, lseek(in, 0, SEEK_SET));
        close(in);
    }
    EQ(0, size_of("p"));
    note("two names, one fifo");
    OK(link("p", "q"));
    int a = open("p", O_RDWR), b = open("q", O_RDWR);
    EQ(1, write(a, "x", 1));
    char c = 0;
    EQ(1, read(b, &c, 1));
    EQ('x', c);
    OK(unlink("p"));
    OK(unlink("q"));
    EQ(1, write(b, "y", 1));
    EQ(1, read(a, &c, 1));
    close(a);
    close(b);
}

static void test_socket(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "s"};
    const struct sockaddr *addr = (const struct sockaddr *)(const void *)&at;
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    OK(bind(server, addr, sizeof(at)));
    OK(listen(server, 1));
    OK(connect(client, addr, sizeof(at)));
    int peer = accept(server, NULL, NULL);
    OK(peer);
    EQ(2, write(client, "hi", 2));
    char got[4] = "";
    EQ(2, read(peer, got, sizeof(got)));
    TEXT("hi", got);
    close(client);
    close(peer);
    note("a renamed socket is the same one");
    OK(rename("s", "t"));
    memcpy(at.sun_path, "t", 2);
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    OK(connect(client, addr, sizeof(at)));
    close(client);
    close(server);
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    FAILS(ECONNREFUSED, connect(client, addr, sizeof(at)));
    OK(unlink("t"));
    FAILS(ENOENT, connect(client, addr, sizeof(at)));
    close(client);
    if (is_root()) {
        note("connecting needs write permission");
        make_dir_owned("d", 0755, 0, 0);
        memcpy(at.sun_path, "d/s", 4);
        server = socket(AF_UNIX, SOCK_STREAM, 0);
        OK(bind(server, addr, sizeof(at)));
        OK(listen(server, 1));
        OK(chmod("d/s", 0644));
        AS(U1)
        {
            FAILS(EACCES, connect(socket(AF_UNIX, SOCK_STREAM, 0), addr, sizeof(at)));
            memcpy(at.sun_path, "d/x", 4);
            FAILS(EACCES, bind(socket(AF_UNIX, SOCK_STREAM, 0), addr, sizeof(at)));
        }
        close(server);
    }
}

/* Reads all events there are; whether one with all of `mask` for `name` is among them. */
static bool event_came(int fd, unsigned mask, const char *name)
{
    static char buf[4096] __attribute__((aligned(8)));
    bool came = false;
    ssize_t n = 0;
    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        for (ssize_t at = 0; at < n;) {
            struct inotify_event e;
            memcpy(&e, buf + at, sizeof(e));
            const char *got = e.len == 0 ? "" : buf + at + sizeof(e);
            came = came || ((e.mask & mask) == mask && strcmp(got, name) == 0);
            at += (ssize_t)(sizeof(e) + e.len);
        }
    }
    return came;
}

static void test_inotify(void)
{
    make_dir("d", 0755);
    int in = inotify_init1(IN_NONBLOCK);
    OK(in);
    OK(inotify_add_watch(in, "d", IN_ALL_EVENTS));
    make_file("d/f", 0644, "x");
    HOLDS(event_came(in, IN_CREATE, "f"));
    OK(truncate("d/f", 0));
    HOLDS(event_came(in, IN_MODIFY, "f"));
    OK(chmod("d/f", 0600));
    HOLDS(event_came(in, IN_ATTRIB, "f"));
    OK(open_close("d/f", O_WRONLY, 0));
    HOLDS(event_came(in, IN_CLOSE_WRITE, "f"));
    OK(rename("d/f", "d/g"));
    HOLDS(event_came(in, IN_MOVED_TO, "g"));
    OK(mkdir("d/s", 0755));
    HOLDS(event_came(in, IN_CREATE | IN_ISDIR, "s"));
    OK(unlink("d/g"));
    HOLDS(event_came(in, IN_DELETE, "g"));
    OK(rmdir("d/s"));
    HOLDS(event_came(in, IN_DELETE | IN_ISDIR, "s"));
    OK(rmdir("d"));
    HOLDS(event_came(in, IN_DELETE_SELF, ""));
    close(in);
}

static void test_cwd(void)
{
    char path[4096], base[4096];
    make_dir("a", 0755);
    make_dir("a/b", 0755);
    HOLDS(getcwd(base, sizeof(base)) != NULL);
    OK(chdir("a/b"));
    HOLDS(getcwd(path, sizeof(path)) != NULL);
    HOLDS(strncmp(path, base, strlen(base)) == 0 && strcmp(path + strlen(base), "/a/b") == 0);
    EQ(st_of(path).st_ino, st_of(".").st_ino);
    OK(rename(base, base));
    OK(chdir(".."));
    OK(rename("b", "c"));
    OK(chdir("c"));
    HOLDS(getcwd(path, sizeof(path)) != NULL && strcmp(path + strlen(base), "/a/c") == 0);
    OK(symlink("..", "up"));
    OK(chdir("up"));
    HOLDS(getcwd(path, sizeof(path)) != NULL && strcmp(path + strlen(base), "/a") == 0);
    OK(chdir(base));
    note("the name behind a descriptor");
    int fd = open("a/c", O_RDONLY);
    char self[40];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(self, path, sizeof(path) - 1);
    HOLDS(n > 4 && memcmp(path + n - 4, "/a/c", 4) == 0);
    OK(rename("a", "z"));
    n = readlink(self, path, sizeof(path) - 1);
    HOLDS(n > 4 && memcmp(path + n - 4, "/z/c", 4) == 0);
    close(fd);
}

const struct posix_group node_groups[] = {
    {"node-mknod", test_mknod, false},
    {"node-devices", test_devices, true},
    {"node-fifo", test_fifo, false},
    {"node-socket", test_socket, false},
    {"node-inotify", test_inotify, false},
    {"node-cwd", test_cwd, false},
    {0},
};
