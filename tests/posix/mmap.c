/* Mappings: what is stored through one is read by read, and the other way round. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/posix/posix.h"

#define PAGE 4096

static char *map(int fd, size_t len, int prot, int flags)
{
    void *m = mmap(NULL, len, prot, flags, fd, 0);
    (void)check_holds(HERE, "mmap", m != MAP_FAILED);
    return m == MAP_FAILED ? NULL : m;
}

static void test_shared(void)
{
    char got[16] = "";
    make_file("f", 0644, "0123456789");
    int fd = open("f", O_RDWR);
    OK(ftruncate(fd, 3 * PAGE));
    char *m = map(fd, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (m == NULL) {
        return;
    }
    HOLDS(memcmp(m, "0123456789", 10) == 0);
    note("a store is seen by read at once");
    m[2] = 'X';
    m[2 * PAGE] = 'Y';
    EQ(10, pread(fd, got, 10, 0));
    HOLDS(memcmp(got, "01X3456789", 10) == 0);
    EQ(1, pread(fd, got, 1, 2 * PAGE));
    EQ('Y', got[0]);
    note("a write is seen by a load at once");
    EQ(3, pwrite(fd, "abc", 3, 5));
    HOLDS(memcmp(m + 5, "abc", 3) == 0);
    EQ(1, pwrite(fd, "Z", 1, PAGE + 7));
    EQ('Z', m[PAGE + 7]);
    note("another process");
    PROC
    {
        int own = open("f", O_RDWR);
        EQ(1, pread(own, got, 1, 2));
        EQ('X', got[0]);
        char *n = map(own, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (n != NULL) {
            EQ('X', n[2]);
            n[3] = '#';
        }
        EQ(1, pwrite(own, "+", 1, 4));
        close(own);
    }
    EQ('#', m[3]);
    EQ('+', m[4]);
    note("stored data outlives the mapping");
    OK(msync(m, 3 * PAGE, MS_SYNC));
    m[8] = '!';
    OK(munmap(m, 3 * PAGE));
    close(fd);
    fd = open("f", O_RDONLY);
    EQ(10, pread(fd, got, 10, 0));
    HOLDS(memcmp(got, "01X#+abc!9", 10) == 0);
    EQ(3 * PAGE, fst_of(fd).st_size);
    close(fd);
}

static void test_private(void)
{
    make_file("f", 0444, "0123456789");
    int fd = open("f", O_RDONLY);
    char *m = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    if (m != NULL) {
        m[0] = 'X';
        HOLDS(content_is("f", "0123456789", 10));
        EQ('1', m[1]);
        OK(munmap(m, PAGE));
    }
    HOLDS(content_is("f", "0123456789", 10));
    close(fd);
}

static void test_errors(void)
{
    make_file("f", 0644, "content");
    int ro = open("f", O_RDONLY), wo = open("f", O_WRONLY), dir = open(".", O_RDONLY);
    HOLDS(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, ro, 0) == MAP_FAILED && errno == EACCES);
    HOLDS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, wo, 0) == MAP_FAILED && errno == EACCES);
    HOLDS(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, wo, 0) == MAP_FAILED && errno == EACCES);
    HOLDS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, dir, 0) == MAP_FAILED && errno == ENODEV);
    HOLDS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, 987, 0) == MAP_FAILED && errno == EBADF);
    HOLDS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ro, 1) == MAP_FAILED && errno == EINVAL);
    HOLDS(mmap(NULL, 0, PROT_READ, MAP_SHARED, ro, 0) == MAP_FAILED && errno == EINVAL);
    note("protection cannot be widened");
    char *m = map(ro, PAGE, PROT_READ, MAP_SHARED);
    FAILS(EACCES, mprotect(m, PAGE, PROT_READ | PROT_WRITE));
    close(ro);
    close(wo);
    close(dir);
    HOLDS_AS("a mapping outlives its descriptor", m != NULL && memcmp(m, "content\0", 8) == 0);
}

static sigjmp_buf bus_jump;

static void on_bus(int signal_no)
{
    (void)signal_no;
    siglongjmp(bus_jump, 1);
}

/* Whether loading from `m` raises SIGBUS. */
static bool bus_at(const volatile char *m)
{
    struct sigaction act = {.sa_handler = on_bus}, old;
    sigaction(SIGBUS, &act, &old);
    volatile bool raised = true;
    if (sigsetjmp(bus_jump, 1) == 0) {
        (void)*m;
        raised = false;
    }
    sigaction(SIGBUS, &old, NULL);
    return raised;
}

static void test_end(void)
{
    make_file("f", 0644, "content");
    int fd = open("f", O_RDWR);
    char *m = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (m == NULL) {
        return;
    }
    note("the rest of the last page is zero, and not part of the file");
    EQ(0, m[7]);
    EQ(0, m[PAGE - 1]);
    m[100] = 'X';
    EQ(7, fst_of(fd).st_size);
    OK(msync(m, PAGE, MS_SYNC));
    EQ(7, size_of("f"));
    OK(ftruncate(fd, 200));
    char c = 'c';
    EQ(1, pread(fd, &c, 1, 100));
    EQ_AS("what was stored beyond the end", 0, c);
    note("pages beyond the end");
    HOLDS(bus_at(m + PAGE));
    OK(ftruncate(fd, 2 * PAGE));
    HOLDS(!bus_at(m + PAGE));
    EQ(0, m[PAGE]);
    m[PAGE] = 'P';
    HOLDS(bus_at(m + 2 * PAGE));
    EQ(1, pwrite(fd, "W", 1, 2 * PAGE + 1));
    HOLDS(!bus_at(m + 2 * PAGE));
    EQ('W', m[2 * PAGE + 1]);
    note("truncation takes mapped pages away");
    OK(ftruncate(fd, 10));
    HOLDS(bus_at(m + PAGE));
    EQ(0, m[10]);
    OK(ftruncate(fd, 2 * PAGE));
    EQ_AS("what was cut off does not come back", 0, m[PAGE]);
    HOLDS(memcmp(m, "content", 7) == 0);
    OK(munmap(m, 4 * PAGE));
    close(fd);
}

static void test_unlinked(void)
{
    make_file("f", 0644, "content");
    int fd = open("f", O_RDWR);
    char *m = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    close(fd);
    OK(unlink("f"));
    if (m != NULL) {
        HOLDS(memcmp(m, "content", 7) == 0);
        m[0] = 'C';
        OK(msync(m, PAGE, MS_SYNC));
        EQ('C', m[0]);
        OK(munmap(m, PAGE));
    }
    HOLDS(!exists("f"));
    note("a replaced file keeps its mapping");
    make_file("a", 0644, "old");
    make_file("b", 0644, "new");
    fd = open("a", O_RDONLY);
    m = map(fd, PAGE, PROT_READ, MAP_SHARED);
    OK(rename("b", "a"));
    HOLDS(m != NULL && memcmp(m, "old", 3) == 0);
    close(fd);
}

/* Several processes count in one mapped file; nothing is lost. */
static void test_processes(void)
{
    enum {
        PROCS = 3,
        ROUNDS = 20000
    };
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    OK(ftruncate(fd, 2 * PAGE));
    pid_t pids[PROCS];
    fflush(stdout);
    for (int p = 0; p < PROCS; p++) {
        pids[p] = fork();
        if (pids[p] == 0) {
            int own = open("f", O_RDWR);
            char *m = map(own, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
            for (int i = 0; m != NULL && i < ROUNDS; i++) {
                __atomic_fetch_add((int *)(void *)(m + PAGE), 1, __ATOMIC_SEQ_CST);
            }
            as_end();
        }
    }
    for (int p = 0; p < PROCS; p++) {
        int status = -1;
        OK(waitpid(pids[p], &status, 0));
        EQ(0, status);
    }
    int total = 0;
    EQ(sizeof(total), pread(fd, &total, sizeof(total), PAGE));
    EQ(PROCS * ROUNDS, total);
    close(fd);
}

/* mtime and ctime move with a store, at the latest when it is synced. */
static void test_times(void)
{
    make_file("f", 0644, "content");
    int fd = open("f", O_RDWR);
    char *m = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (m == NULL) {
        return;
    }
    struct stat before = st_of("f");
    tick();
    m[0] = 'C';
    OK(msync(m, PAGE, MS_SYNC));
    (void)check_times(HERE, "after a store and msync", &before, "f", T_M | T_C | T_A_ANY);
    OK(munmap(m, PAGE));
    close(fd);
    HOLDS(content_is("f", "Content", 7));
}

/* A sparse file: stores into its holes. */
static void test_holes(void)
{
    size_t len = 1 << 26;
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    OK(ftruncate(fd, (off_t)len));
    char *m = map(fd, len, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (m == NULL) {
        return;
    }
    for (size_t at = 12345; at < len; at += len / 8) {
        EQ_AS("a hole", 0, m[at]);
        m[at] = 'h';
    }
    OK(msync(m, len, MS_SYNC));
    OK(munmap(m, len));
    OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    for (size_t at = 12345; at < len; at += len / 8) {
        char c[3] = "";
        EQ_AS("read", 3, pread(fd, c, 3, (off_t)at - 1));
        HOLDS_AS("the byte and its neighbours", c[0] == 0 && c[1] == 'h' && c[2] == 0);
    }
    close(fd);
}

const struct posix_group mmap_groups[] = {
    {"mmap-shared", test_shared, false},
    {"mmap-private", test_private, false},
    {"mmap-errors", test_errors, false},
    {"mmap-end", test_end, false},
    {"mmap-unlinked", test_unlinked, false},
    {"mmap-processes", test_processes, false},
    {"mmap-times", test_times, false},
    {"mmap-holes", test_holes, false},
    {0},
};
