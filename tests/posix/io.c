/* Reading and writing: every call, offsets, appending processes, copies, sync, a random oracle. */
#include <limits.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "tests/posix/posix.h"

static void test_basic(void)
{
    char got[32] = "";
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    OK(fd);
    EQ(0, read(fd, got, 8));
    EQ(5, write(fd, "hello", 5));
    EQ(5, lseek(fd, 0, SEEK_CUR));
    EQ(0, read(fd, got, 8));
    OK(lseek(fd, 1, SEEK_SET));
    EQ(4, read(fd, got, 8));
    HOLDS(memcmp(got, "ello", 4) == 0);
    EQ(0, read(fd, got, 0));
    EQ(0, write(fd, "", 0));
    EQ(5, fst_of(fd).st_size);
    note("pread and pwrite leave the offset");
    OK(lseek(fd, 2, SEEK_SET));
    EQ(2, pread(fd, got, 2, 3));
    HOLDS(memcmp(got, "lo", 2) == 0);
    EQ(3, pwrite(fd, "XYZ", 3, 4));
    EQ(2, lseek(fd, 0, SEEK_CUR));
    HOLDS(content_is("f", "hellXYZ", 7));
    EQ(0, pread(fd, got, 8, 7));
    EQ(0, pread(fd, got, 8, 1000));
    FAILS(EINVAL, pread(fd, got, 8, -1));
    FAILS(EINVAL, pwrite(fd, got, 8, -1));
    note("a write beyond the end leaves zeros");
    EQ(1, pwrite(fd, "!", 1, 10));
    HOLDS(content_is("f", "hellXYZ\0\0\0!", 11));
    note("vectors");
    char a[3] = "", b[5] = "";
    struct iovec out[3] = {{(char[]){'1', '2'}, 2}, {NULL, 0}, {(char[]){'3', '4', '5'}, 3}};
    struct iovec in[2] = {{a, 2}, {b, 4}};
    OK(lseek(fd, 0, SEEK_SET));
    EQ(5, writev(fd, out, 3));
    OK(lseek(fd, 0, SEEK_SET));
    EQ(6, readv(fd, in, 2));
    HOLDS(memcmp(a, "12", 2) == 0 && memcmp(b, "345Y", 4) == 0);
    EQ(5, pwritev(fd, out, 3, 100));
    EQ(5, preadv(fd, in, 2, 100));
    HOLDS(memcmp(a, "12", 2) == 0 && memcmp(b, "345", 3) == 0);
    EQ(6, lseek(fd, 0, SEEK_CUR));
    EQ(0, writev(fd, out, 0));
    static struct iovec many[IOV_MAX + 1];
    for (int i = 0; i <= IOV_MAX; i++) {
        many[i] = out[0];
    }
    EQ(2 * IOV_MAX, pwritev(fd, many, IOV_MAX, 0));
    EQ(2 * IOV_MAX, fst_of(fd).st_size);
    FAILS(EINVAL, pwritev(fd, many, IOV_MAX + 1, 0));
    close(fd);
    FAILS(EBADF, read(fd, got, 1));
    FAILS(EBADF, write(fd, got, 1));
}

static void test_lseek(void)
{
    make_file("f", 0644, "0123456789");
    int fd = open("f", O_RDWR);
    EQ(10, lseek(fd, 0, SEEK_END));
    EQ(7, lseek(fd, -3, SEEK_END));
    EQ(5, lseek(fd, -2, SEEK_CUR));
    EQ(100, lseek(fd, 90, SEEK_END));
    EQ(10, fst_of(fd).st_size);
    FAILS(EINVAL, lseek(fd, -1, SEEK_SET));
    FAILS(EINVAL, lseek(fd, -11, SEEK_END));
    FAILS(EINVAL, lseek(fd, 0, 77));
    EQ(100, lseek(fd, 0, SEEK_CUR));
    char c;
    EQ(0, read(fd, &c, 1));
    EQ(1, write(fd, "x", 1));
    EQ(101, fst_of(fd).st_size);
    note("dup and fork share the offset, open does not");
    int two = dup(fd), own = open("f", O_RDONLY);
    OK(lseek(fd, 3, SEEK_SET));
    EQ(3, lseek(two, 0, SEEK_CUR));
    EQ(0, lseek(own, 0, SEEK_CUR));
    PROC
    {
        OK(lseek(two, 6, SEEK_SET));
    }
    EQ(6, lseek(fd, 0, SEEK_CUR));
    EQ(1, read(two, &c, 1));
    EQ('6', c);
    EQ(7, lseek(fd, 0, SEEK_CUR));
    close(two);
    close(own);
    close(fd);
    int p[2];
    OK(pipe(p));
    FAILS(ESPIPE, lseek(p[0], 0, SEEK_CUR));
    FAILS(ESPIPE, pread(p[0], &c, 1, 0));
}

static void test_append(void)
{
    make_file("f", 0644, "base");
    int a = open("f", O_WRONLY | O_APPEND), b = open("f", O_WRONLY | O_APPEND);
    EQ(1, write(a, "1", 1));
    EQ(1, write(b, "2", 1));
    EQ(1, write(a, "3", 1));
    HOLDS(content_is("f", "base123", 7));
    OK(lseek(a, 0, SEEK_SET));
    EQ(1, write(a, "4", 1));
    HOLDS(content_is("f", "base1234", 8));
    EQ(8, lseek(a, 0, SEEK_CUR));
    EQ_AS("pwrite appends too (Linux)", 1, pwrite(a, "5", 1, 0));
    HOLDS(content_is("f", "base12345", 9));
    OK(truncate("f", 2));
    EQ(1, write(b, "6", 1));
    HOLDS(content_is("f", "ba6", 3));
    close(a);
    close(b);
}

enum {
    WRITERS = 4,
    RECORDS = 250,
    RECORD_LEN = 113
};

static void append_records(int who)
{
    char record[RECORD_LEN];
    int fd = open("log", O_WRONLY | O_APPEND);
    for (int i = 0; i < RECORDS; i++) {
        memset(record, 'a' + who, sizeof(record));
        snprintf(record, sizeof(record), "%d %6d", who, i);
        record[strlen(record)] = ' ';
        record[RECORD_LEN - 1] = '\n';
        if (write(fd, record, RECORD_LEN) != RECORD_LEN) {
            (void)check_ok(HERE, "append", -1);
        }
    }
    close(fd);
}

/* Appending processes lose and mix nothing, and each one's records stay in order. */
static void test_append_processes(void)
{
    pid_t pids[WRITERS];
    make_file("log", 0644, "");
    fflush(stdout);
    for (int w = 0; w < WRITERS; w++) {
        pids[w] = fork();
        if (pids[w] == 0) {
            append_records(w);
            as_end();
        }
    }
    for (int w = 0; w < WRITERS; w++) {
        int status = -1;
        OK(waitpid(pids[w], &status, 0));
        EQ(0, status);
    }
    EQ((long long)WRITERS * RECORDS * RECORD_LEN, size_of("log"));
    int next[WRITERS] = {0}, torn = 0, misplaced = 0;
    int fd = open("log", O_RDONLY);
    char record[RECORD_LEN];
    while (read(fd, record, RECORD_LEN) == RECORD_LEN) {
        int who = record[0] - '0';
        record[8] = 0;
        bool good = who >= 0 && who < WRITERS && record[RECORD_LEN - 1] == '\n' &&
                    record[RECORD_LEN - 2] == 'a' + who && record[10] == 'a' + who;
        torn += !good;
        if (good) {
            misplaced += strtol(record + 1, NULL, 10) != next[who];
            next[who]++;
        }
    }
    close(fd);
    EQ_AS("torn records", 0, torn);
    EQ_AS("records out of order", 0, misplaced);
    for (int w = 0; w < WRITERS; w++) {
        EQ_AS("records of one writer", RECORDS, next[w]);
    }
}

static void test_copy_range(void)
{
    make_file("a", 0644, "0123456789abcdef");
    make_file("b", 0644, "");
    int a = open("a", O_RDWR), b = open("b", O_RDWR);
    EQ(16, copy_file_range(a, NULL, b, NULL, 100, 0));
    HOLDS(content_is("b", "0123456789abcdef", 16));
    EQ(16, lseek(a, 0, SEEK_CUR));
    EQ(16, lseek(b, 0, SEEK_CUR));
    EQ_AS("at the end", 0, copy_file_range(a, NULL, b, NULL, 100, 0));
    note("explicit offsets");
    off_t in = 10, out = 2;
    EQ(3, copy_file_range(a, &in, b, &out, 3, 0));
    EQ(13, in);
    EQ(5, out);
    EQ(16, lseek(a, 0, SEEK_CUR));
    HOLDS(content_is("b", "01abc56789abcdef", 16));
    in = 0;
    out = 20;
    EQ(2, copy_file_range(a, &in, b, &out, 2, 0));
    HOLDS(content_is("b", "01abc56789abcdef\0\0\0\00001", 22));
    note("within one file");
    in = 0;
    out = 8;
    EQ(4, copy_file_range(a, &in, a, &out, 4, 0));
    HOLDS(content_is("a", "012345670123cdef", 16));
    in = 0;
    out = 2;
    FAILS(EINVAL, copy_file_range(a, &in, a, &out, 4, 0));
    note("errors");
    FAILS(EINVAL, copy_file_range(a, NULL, b, NULL, 4, 1));
    int ro = open("b", O_RDONLY), app = open("b", O_WRONLY | O_APPEND), dir = open(".", O_RDONLY);
    FAILS(EBADF, copy_file_range(a, NULL, ro, NULL, 4, 0));
    FAILS(EBADF, copy_file_range(a, NULL, app, NULL, 4, 0));
    FAILS(EBADF, copy_file_range(app, NULL, a, NULL, 4, 0));
    FAILS2(EISDIR, EBADF, copy_file_range(dir, NULL, b, NULL, 4, 0));
    note("8 MiB");
    static char block[65536];
    memset(block, 'q', sizeof(block));
    for (int i = 0; i < 128; i++) {
        block[0] = (char)i;
        EQ_AS("write", sizeof(block), pwrite(a, block, sizeof(block), i * (off_t)sizeof(block)));
    }
    in = out = 0;
    ssize_t n = 0;
    while ((n = copy_file_range(a, &in, b, &out, 16 << 20, 0)) > 0) {
    }
    EQ(0, n);
    EQ(8 << 20, out);
    EQ(size_of("a"), size_of("b"));
    int wrong = 0;
    for (int i = 0; i < 128; i++) {
        wrong += pread(b, block, sizeof(block), i * (off_t)sizeof(block)) != sizeof(block) ||
                 block[0] != (char)i || block[65535] != 'q';
    }
    EQ(0, wrong);
    note("times of the target");
    in = out = 0;
    TIMES("b", T_M | T_C | T_A_ANY, copy_file_range(a, &in, b, &out, 10, 0));
    close(a);
    close(b);
    close(ro);
    close(app);
    close(dir);
}

static void test_sendfile(void)
{
    make_file("a", 0644, "0123456789");
    int a = open("a", O_RDONLY), b = open("b", O_CREAT | O_RDWR, 0644), p[2];
    off_t at = 3;
    EQ(4, sendfile(b, a, &at, 4));
    EQ(7, at);
    HOLDS(content_is("b", "3456", 4));
    OK(pipe(p));
    loff_t from = 1, to = 4;
    EQ(5, splice(a, &from, p[1], NULL, 5, 0));
    EQ(5, splice(p[0], NULL, b, &to, 5, 0));
    HOLDS(content_is("b", "345612345", 9));
    close(a);
    close(b);
}

static void test_sync(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    EQ(4, write(fd, "data", 4));
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(syncfs(fd));
    OK(sync_file_range(fd, 0, 4, SYNC_FILE_RANGE_WRITE));
    OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    HOLDS(content_is("f", "data", 4));
    close(fd);
    fd = open("f", O_RDONLY);
    OK(fsync(fd));
    OK(fdatasync(fd));
    close(fd);
    FAILS(EBADF, fsync(fd));
    FAILS(EBADF, fdatasync(fd));
    FAILS(EBADF, syncfs(fd));
    note("directories");
    fd = open(".", O_RDONLY);
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(syncfs(fd));
    close(fd);
    note("a pipe");
    int p[2];
    OK(pipe(p));
    FAILS(EINVAL, fsync(p[0]));
    note("O_SYNC, O_DSYNC");
    fd = open("s", O_CREAT | O_RDWR | O_SYNC, 0644);
    EQ(4, write(fd, "sync", 4));
    close(fd);
    fd = open("s", O_RDWR | O_DSYNC);
    EQ(5, pwrite(fd, "dsync", 5, 4));
    close(fd);
    HOLDS(content_is("s", "syncdsync", 9));
    note("an unlinked file");
    fd = open("u", O_CREAT | O_RDWR, 0644);
    OK(unlink("u"));
    EQ(4, write(fd, "data", 4));
    OK(fsync(fd));
    close(fd);
}

static void test_two_openers(void)
{
    char got[8] = "";
    int a = open("f", O_CREAT | O_RDWR, 0644), b = open("f", O_RDWR);
    EQ(3, write(a, "abc", 3));
    EQ(3, read(b, got, 8));
    TEXT("abc", got);
    EQ(2, pwrite(b, "XY", 2, 1));
    EQ(3, pread(a, got, 8, 0));
    TEXT("aXY", got);
    EQ(3, fst_of(b).st_size);
    OK(ftruncate(b, 1));
    EQ(1, pread(a, got, 8, 0));
    EQ(1, fst_of(a).st_size);
    PROC
    {
        int c = open("f", O_RDWR);
        EQ(4, pwrite(c, "proc", 4, 0));
        close(c);
    }
    EQ(4, pread(a, got, 8, 0));
    HOLDS(memcmp(got, "proc", 4) == 0);
    EQ(4, fst_of(b).st_size);
    close(a);
    close(b);
    note("through another name");
    OK(link("f", "g"));
    a = open("f", O_WRONLY);
    b = open("g", O_RDONLY);
    EQ(4, write(a, "link", 4));
    EQ(4, read(b, got, 4));
    HOLDS(memcmp(got, "link", 4) == 0);
    close(a);
    close(b);
}

static void test_direct(void)
{
    int fd = open("f", O_CREAT | O_RDWR | O_DIRECT, 0644);
    if (fd < 0 && errno == EINVAL) {
        skip("O_DIRECT is not offered here (EINVAL)");
        return;
    }
    OK(fd);
    static _Alignas(4096) char buf[16384];
    memset(buf, 'D', 16384);
    EQ(16384, pwrite(fd, buf, 16384, 0));
    int plain = open("f", O_RDWR);
    char c = 0;
    EQ(1, pread(plain, &c, 1, 16383));
    EQ('D', c);
    EQ(1, pwrite(plain, "p", 1, 5000));
    memset(buf, 0, 16384);
    EQ(16384, pread(fd, buf, 16384, 0));
    EQ('p', buf[5000]);
    EQ('D', buf[0]);
    EQ('D', buf[16383]);
    EQ(0, pread(fd, buf, 4096, 16384));
    close(fd);
    close(plain);
}

#define ORACLE_BYTES 300000
static unsigned oracle_state = 20240229;

static unsigned draw(unsigned below)
{
    oracle_state = oracle_state * 1103515245u + 12345u;
    return (oracle_state >> 8) % below;
}

/* One random call on the file and on the array that says what the file must hold. */
static void oracle_step(int fd, char *want, size_t *len)
{
    static char buf[70000];
    size_t at = draw(ORACLE_BYTES - 70000), n = draw(3) == 0 ? draw(70000) : draw(5000);
    switch (draw(6)) {
    case 0:
        if (ftruncate(fd, (off_t)at) != 0) {
            (void)check_ok(HERE, "ftruncate", -1);
        }
        memset(want + at, 0, ORACLE_BYTES - at);
        *len = at;
        break;
    case 1:
        if (*len > 0 && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
                                  (off_t)n + 1) == 0) {
            memset(want + at, 0, n + 1);
        }
        break;
    case 2:
    case 3:
        memset(buf, (int)('a' + draw(26)), n);
        if (n > 0 && pwrite(fd, buf, n, (off_t)at) != (ssize_t)n) {
            (void)check_ok(HERE, "pwrite", -1);
        }
        memcpy(want + at, buf, n);
        *len = n > 0 && at + n > *len ? at + n : *len;
        break;
    default: {
        ssize_t got = pread(fd, buf, n, (off_t)at);
        size_t expect = at >= *len ? 0 : *len - at < n ? *len - at : n;
        if (got != (ssize_t)expect || memcmp(buf, want + at, expect) != 0) {
            (void)check_holds(HERE, "what is read is what was written", false);
        }
        break;
    }
    }
}

static void test_oracle(void)
{
    static char want[ORACLE_BYTES + 1];
    size_t len = 0;
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    for (int i = 0; i < 3000; i++) {
        note("step %d", i);
        oracle_step(fd, want, &len);
        if (i % 500 == 499) {
            OK(close(fd));
            fd = open("f", O_RDWR);
            EQ(len, fst_of(fd).st_size);
            HOLDS(content_is("f", want, len));
        }
        if (i % 700 == 699) {
            OK(fsync(fd));
            OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
        }
    }
    close(fd);
    HOLDS(content_is("f", want, len));
}

static void test_large(void)
{
    enum {
        LEN = 16 << 20
    };
    unsigned *words = malloc(LEN), *back = malloc(LEN);
    if (!HOLDS(words != NULL && back != NULL)) {
        free(words);
        free(back);
        return;
    }
    for (unsigned i = 0; i < LEN / sizeof(*words); i++) {
        words[i] = i * 2654435761u;
    }
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    EQ_AS("one write of 16 MiB", LEN, write(fd, words, LEN));
    EQ_AS("one read of 16 MiB", LEN, pread(fd, back, LEN, 0));
    HOLDS(memcmp(words, back, LEN) == 0);
    OK(fsync(fd));
    OK(close(fd));
    fd = open("f", O_RDONLY);
    EQ(LEN - 5, pread(fd, back, LEN, 5));
    HOLDS(memcmp((char *)words + 5, back, LEN - 5) == 0);
    close(fd);
    free(words);
    free(back);
}

const struct posix_group io_groups[] = {
    {"io-basic", test_basic, false},
    {"io-lseek", test_lseek, false},
    {"io-append", test_append, false},
    {"io-append-processes", test_append_processes, false},
    {"io-copy-range", test_copy_range, false},
    {"io-sendfile", test_sendfile, false},
    {"io-sync", test_sync, false},
    {"io-two-openers", test_two_openers, false},
    {"io-direct", test_direct, false},
    {"io-oracle", test_oracle, false},
    {"io-large", test_large, false},
    {0},
};
