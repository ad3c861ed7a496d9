/* Sizes and space: truncate, sparse files, holes, fallocate, limits. */
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/posix/posix.h"

#define KIB 1024LL
#define MIB (1024 * KIB)
#define TIB (1024 * 1024 * MIB)

/* Whether all bytes of [at, at + len) are `want`. */
static bool filled(int fd, off_t at, size_t len, char want)
{
    static char buf[65536];
    while (len > 0) {
        size_t part = len < sizeof(buf) ? len : sizeof(buf);
        if (pread(fd, buf, part, at) != (ssize_t)part) {
            return false;
        }
        for (size_t i = 0; i < part; i++) {
            if (buf[i] != want) {
                return false;
            }
        }
        at += (off_t)part;
        len -= part;
    }
    return true;
}

static void fill(int fd, off_t at, size_t len, char with)
{
    static char buf[65536];
    memset(buf, with, sizeof(buf));
    while (len > 0) {
        size_t part = len < sizeof(buf) ? len : sizeof(buf);
        if (pwrite(fd, buf, part, at) != (ssize_t)part) {
            (void)check_ok(HERE, "pwrite", -1);
            return;
        }
        at += (off_t)part;
        len -= part;
    }
}

static void test_truncate(void)
{
    static const off_t sizes[] = {0,    1,     4095,    4096, 4097,    8192,
                                  8193, 65536, 1048577, 3,    5000000, 0};
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    OK(fd);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        note("to %lld", (long long)sizes[i]);
        OK(i % 2 == 0 ? truncate("f", sizes[i]) : ftruncate(fd, sizes[i]));
        EQ(sizes[i], fst_of(fd).st_size);
        HOLDS(filled(fd, 0, (size_t)sizes[i], 0));
        char c;
        EQ_AS("read at the end", 0, pread(fd, &c, 1, sizes[i]));
    }
    note("what was cut off does not come back");
    static const size_t cuts[] = {1, 100, 4095, 4096, 5000, 8192, 70000};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        fill(fd, 0, 100000, 'a');
        OK(ftruncate(fd, (off_t)cuts[i]));
        OK(ftruncate(fd, 100000));
        HOLDS(filled(fd, 0, cuts[i], 'a'));
        HOLDS(filled(fd, (off_t)cuts[i], 100000 - cuts[i], 0));
    }
    note("the offset stays");
    OK(lseek(fd, 500, SEEK_SET));
    OK(ftruncate(fd, 10));
    EQ(500, lseek(fd, 0, SEEK_CUR));
    EQ(1, write(fd, "x", 1));
    EQ(501, fst_of(fd).st_size);
    HOLDS(filled(fd, 10, 490, 0));
    close(fd);
}

static void test_truncate_errors(void)
{
    make_file("f", 0644, "content");
    make_dir("d", 0755);
    OK(mkfifo("p", 0644));
    OK(symlink("f", "l"));
    FAILS(EINVAL, truncate("f", -1));
    FAILS(EISDIR, truncate("d", 0));
    FAILS(EINVAL, truncate("p", 0));
    int fd = open("f", O_RDONLY);
    FAILS(EINVAL, ftruncate(fd, 0));
    close(fd);
    FAILS(EBADF, ftruncate(fd, 0));
    fd = open("d", O_RDONLY);
    FAILS(EINVAL, ftruncate(fd, 0));
    close(fd);
    fd = open("f", O_RDWR);
    FAILS(EINVAL, ftruncate(fd, -1));
    FAILS(EINVAL, ftruncate(fd, LLONG_MIN));
    close(fd);
    HOLDS(content_is("f", "content", 7));
    OK(truncate("l", 3));
    HOLDS(content_is("f", "con", 3));
    if (is_root()) {
        make_owned("foreign", 0644, U2, (gid_t)U2);
        AS(U1)
        {
            FAILS(EACCES, truncate("foreign", 0));
        }
        EQ(7, size_of("foreign"));
        note("ftruncate asks the descriptor, not the mode");
        make_dir_owned("mine", 0777, U1, (gid_t)U1);
        AS(U1)
        {
            int own = open("mine/f", O_CREAT | O_RDWR, 0);
            OK(ftruncate(own, 100));
            FAILS(EACCES, truncate("mine/f", 0));
            close(own);
        }
    }
}

static void test_limit(void)
{
    make_file("f", 0644, "content");
    note("the largest size");
    errno = 0;
    int rc = truncate("f", LLONG_MAX);
    HOLDS(rc == 0 || errno == EFBIG || errno == EINVAL);
    OK(truncate("f", 7));
    PROC
    {
        note("RLIMIT_FSIZE of 10000");
        struct rlimit lim = {10000, 10000};
        OK(setrlimit(RLIMIT_FSIZE, &lim));
        signal(SIGXFSZ, SIG_IGN);
        int fd = open("f", O_RDWR);
        OK(ftruncate(fd, 10000));
        FAILS(EFBIG, ftruncate(fd, 10001));
        FAILS(EFBIG, truncate("f", 10001));
        FAILS(EFBIG, pwrite(fd, "x", 1, 10000));
        FAILS(EFBIG, fallocate(fd, 0, 9000, 2000));
        static char buf[4096];
        EQ_AS("a write over the limit stops at it", 1000, pwrite(fd, buf, sizeof(buf), 9000));
        EQ(10000, fst_of(fd).st_size);
        EQ(1, pwrite(fd, "x", 1, 9999));
        close(fd);
        fd = open("f", O_WRONLY | O_APPEND);
        FAILS(EFBIG, write(fd, "x", 1));
        close(fd);
    }
}

static void test_sparse(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    OK(ftruncate(fd, TIB));
    EQ(TIB, fst_of(fd).st_size);
    HOLDS_AS("a hole takes no space", fst_of(fd).st_blocks < 64);
    EQ(4, pwrite(fd, "last", 4, TIB));
    EQ(TIB + 4, fst_of(fd).st_size);
    EQ(6, pwrite(fd, "middle", 6, TIB / 2 + 1));
    OK(fsync(fd));
    HOLDS(filled(fd, 0, 100000, 0));
    HOLDS(filled(fd, TIB / 2 - 50000, 50001, 0));
    HOLDS(filled(fd, TIB / 2 + 7, 50000, 0));
    HOLDS(filled(fd, TIB - 100000, 100000, 0));
    char got[8] = "";
    EQ(4, pread(fd, got, 8, TIB));
    TEXT("last", got);
    EQ(6, pread(fd, got, 6, TIB / 2 + 1));
    HOLDS(memcmp(got, "middle", 6) == 0);
    HOLDS_AS("space for two pieces, not for the holes", fst_of(fd).st_blocks < 2 * 8 * 1024 * 2);
    EQ(TIB + 4, lseek(fd, 0, SEEK_END));
    EQ(0, pread(fd, got, 8, TIB + 4));
    EQ(0, pread(fd, got, 8, 2 * TIB));
    OK(ftruncate(fd, TIB / 2 + 3));
    OK(ftruncate(fd, TIB));
    HOLDS(filled(fd, TIB / 2 + 3, 10000, 0));
    OK(ftruncate(fd, 0));
    EQ(0, fst_of(fd).st_size);
    close(fd);
    OK(unlink("f"));
}

static void test_blocks(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    fill(fd, 0, 4 * MIB, 'b');
    OK(fsync(fd));
    long long used = fst_of(fd).st_blocks;
    HOLDS_AS("512-byte blocks are counted", used > 0 && used <= 4 * MIB / 512 * 3);
    HOLDS_AS("st_blksize is a power of two",
             fst_of(fd).st_blksize > 0 &&
                 (fst_of(fd).st_blksize & (fst_of(fd).st_blksize - 1)) == 0);
    OK(ftruncate(fd, 0));
    OK(fsync(fd));
    HOLDS_AS("truncation gives space back", fst_of(fd).st_blocks < used);
    close(fd);
}

/* The least that SEEK_DATA and SEEK_HOLE promise: no data is taken for a hole, the end is one. */
static void test_seek(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    note("an empty file");
    FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
    FAILS(ENXIO, lseek(fd, 0, SEEK_HOLE));
    note("data all over");
    fill(fd, 0, 100000, 'd');
    EQ(0, lseek(fd, 0, SEEK_DATA));
    EQ(99999, lseek(fd, 99999, SEEK_DATA));
    EQ(100000, lseek(fd, 0, SEEK_HOLE));
    EQ(100000, lseek(fd, 5000, SEEK_HOLE));
    FAILS(ENXIO, lseek(fd, 100000, SEEK_DATA));
    FAILS(ENXIO, lseek(fd, 100000, SEEK_HOLE));
    FAILS2(ENXIO, EINVAL, lseek(fd, -1, SEEK_DATA));
    FAILS2(ENXIO, EINVAL, lseek(fd, -1, SEEK_HOLE));
    note("data after a hole");
    OK(ftruncate(fd, 0));
    fill(fd, 64 * MIB, 4096, 'd');
    OK(fsync(fd));
    off_t data = lseek(fd, 0, SEEK_DATA);
    HOLDS(data >= 0 && data <= 64 * MIB);
    off_t hole = lseek(fd, 0, SEEK_HOLE);
    HOLDS(hole == 0 || hole == 64 * MIB + 4096);
    HOLDS_AS("what is skipped is zero", data <= 0 || filled(fd, data - 1, 1, 0));
    EQ(64 * MIB, lseek(fd, 64 * MIB, SEEK_DATA));
    EQ(64 * MIB + 4096, lseek(fd, 64 * MIB, SEEK_HOLE));
    note("a hole at the end");
    OK(ftruncate(fd, 128 * MIB));
    hole = lseek(fd, 64 * MIB, SEEK_HOLE);
    HOLDS(hole >= 64 * MIB + 4096 && hole <= 128 * MIB);
    errno = 0;
    data = lseek(fd, 127 * MIB, SEEK_DATA);
    HOLDS((data == -1 && errno == ENXIO) || data >= 127 * MIB);
    note("a walk over all data finds it all");
    fill(fd, 3 * MIB, 10, 'e');
    off_t at = 0, found = 0;
    for (int i = 0; i < 1000 && (at = lseek(fd, at, SEEK_DATA)) >= 0; i++) {
        off_t end = lseek(fd, at, SEEK_HOLE);
        found += at <= 3 * MIB && end >= 3 * MIB + 10;
        found += at <= 64 * MIB && end >= 64 * MIB + 4096;
        at = end;
    }
    EQ_AS("pieces found", 2, found);
    note("the descriptor's offset is where it went");
    EQ(64 * MIB, lseek(fd, 64 * MIB, SEEK_DATA));
    EQ(64 * MIB, lseek(fd, 0, SEEK_CUR));
    close(fd);
}

static void test_allocate(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    OK(fallocate(fd, 0, 0, 10000));
    EQ(10000, fst_of(fd).st_size);
    HOLDS(filled(fd, 0, 10000, 0));
    fill(fd, 0, 10000, 'a');
    OK(fallocate(fd, 0, 5000, 10000));
    EQ(15000, fst_of(fd).st_size);
    HOLDS(filled(fd, 0, 10000, 'a'));
    HOLDS(filled(fd, 10000, 5000, 0));
    OK(fallocate(fd, 0, 0, 100));
    EQ(15000, fst_of(fd).st_size);
    EQ(0, posix_fallocate(fd, 15000, 1));
    EQ(15001, fst_of(fd).st_size);
    note("errors");
    FAILS(EINVAL, fallocate(fd, 0, 0, 0));
    FAILS(EINVAL, fallocate(fd, 0, -1, 10));
    FAILS(EINVAL, fallocate(fd, 0, 0, -1));
    FAILS2(EFBIG, EINVAL, fallocate(fd, 0, LLONG_MAX - 1, 10));
    FAILS(EOPNOTSUPP, fallocate(fd, 0x4000, 0, 10));
    FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
    EQ(15001, fst_of(fd).st_size);
    close(fd);
    FAILS(EBADF, fallocate(fd, 0, 0, 10));
    fd = open("f", O_RDONLY);
    FAILS(EBADF, fallocate(fd, 0, 0, 10));
    close(fd);
    OK(mkfifo("p", 0644));
    fd = open("p", O_RDWR);
    FAILS(ESPIPE, fallocate(fd, 0, 0, 10));
    close(fd);
}

static void test_allocate_modes(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    fill(fd, 0, 100000, 'a');
    if (OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 50000, 100000)) == 0) {
        EQ(100000, fst_of(fd).st_size);
        HOLDS(filled(fd, 0, 100000, 'a'));
    }
    if (OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10001, 20000)) == 0) {
        EQ(100000, fst_of(fd).st_size);
        HOLDS(filled(fd, 0, 10001, 'a'));
        HOLDS(filled(fd, 10001, 20000, 0));
        HOLDS(filled(fd, 30001, 69999, 'a'));
        note("beyond the end, and over it");
        OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 99000, 50000));
        EQ(100000, fst_of(fd).st_size);
        HOLDS(filled(fd, 99000, 1000, 0));
        OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 200000, 50000));
        EQ(100000, fst_of(fd).st_size);
        TIMES("f", T_M | T_C | T_A_ANY,
              fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    }
    note(NULL);
    fill(fd, 0, 100000, 'b');
    if (OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 99990, 20)) == 0) {
        EQ(100010, fst_of(fd).st_size);
        HOLDS(filled(fd, 0, 99990, 'b'));
        HOLDS(filled(fd, 99990, 20, 0));
        OK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 100, 1000000));
        EQ(100010, fst_of(fd).st_size);
        HOLDS(filled(fd, 100, 99910, 0));
    }
    OK(ftruncate(fd, 0));
    fill(fd, 0, MIB, 'c');
    fill(fd, MIB, MIB, 'd');
    fill(fd, 2 * MIB, MIB, 'e');
    if (OFFERED(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, MIB, MIB))) {
        EQ(2 * MIB, fst_of(fd).st_size);
        HOLDS(filled(fd, 0, MIB, 'c'));
        HOLDS(filled(fd, MIB, MIB, 'e'));
        FAILS(EINVAL, fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, MIB, MIB));
    }
    if (OFFERED(fallocate(fd, FALLOC_FL_INSERT_RANGE, MIB, MIB))) {
        HOLDS(filled(fd, 0, MIB, 'c'));
        HOLDS(filled(fd, MIB, MIB, 0));
    }
    close(fd);
}

const struct posix_group size_groups[] = {
    {"size-truncate", test_truncate, false},
    {"size-errors", test_truncate_errors, false},
    {"size-limit", test_limit, false},
    {"size-sparse", test_sparse, false},
    {"size-blocks", test_blocks, false},
    {"size-seek", test_seek, false},
    {"size-allocate", test_allocate, false},
    {"size-allocate-modes", test_allocate_modes, false},
    {0},
};
