/* Locks: fcntl records, open file descriptions, flock; between processes, blocking, deadlock. */
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/posix/posix.h"

static struct flock lock_of(short type, off_t start, off_t len)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return l;
}

static int lock_it(int fd, short type, off_t start, off_t len)
{
    struct flock l = lock_of(type, start, len);
    return fcntl(fd, F_SETLK, &l);
}

static int lock_wait(int fd, short type, off_t start, off_t len)
{
    struct flock l = lock_of(type, start, len);
    return fcntl(fd, F_SETLKW, &l);
}

static int ofd_lock(int fd, short type, off_t start, off_t len)
{
    struct flock l = lock_of(type, start, len);
    return fcntl(fd, F_OFD_SETLK, &l);
}

/* F_GETLK: the type of the first lock in the way. */
static short in_the_way(int fd, short type, off_t start, off_t len, struct flock *ret)
{
    *ret = lock_of(type, start, len);
    if (fcntl(fd, F_GETLK, ret) != 0) {
        (void)check_ok(HERE, "F_GETLK", -1);
    }
    return ret->l_type;
}

static void test_records(void)
{
    struct flock l;
    make_file("f", 0644, "0123456789");
    int fd = open("f", O_RDWR);
    pid_t me = getpid();
    OK(lock_it(fd, F_WRLCK, 10, 10));
    OK(lock_it(fd, F_RDLCK, 100, 10));
    OK(lock_it(fd, F_WRLCK, 1000, 0));
    PROC
    {
        int own = open("f", O_RDWR);
        note("conflicts");
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 10, 10));
        FAILS2(EAGAIN, EACCES, lock_it(own, F_RDLCK, 10, 1));
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 19, 1));
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 0, 11));
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 0, 0));
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 105, 1));
        FAILS2(EAGAIN, EACCES, lock_it(own, F_RDLCK, 5000000000, 1));
        note("no conflicts");
        OK(lock_it(own, F_WRLCK, 0, 10));
        OK(lock_it(own, F_WRLCK, 20, 80));
        OK(lock_it(own, F_RDLCK, 100, 10));
        OK(lock_it(own, F_RDLCK, 20, 980));
        note("F_GETLK");
        EQ(F_WRLCK, in_the_way(own, F_RDLCK, 15, 100, &l));
        EQ(me, l.l_pid);
        EQ(10, l.l_start);
        EQ(10, l.l_len);
        EQ(SEEK_SET, l.l_whence);
        EQ(F_RDLCK, in_the_way(own, F_WRLCK, 105, 1, &l));
        EQ(100, l.l_start);
        EQ(F_UNLCK, in_the_way(own, F_RDLCK, 105, 1, &l));
        EQ(F_WRLCK, in_the_way(own, F_RDLCK, 2000, 1, &l));
        EQ(1000, l.l_start);
        EQ(0, l.l_len);
        close(own);
    }
    note("one's own locks are never in the way");
    EQ(F_UNLCK, in_the_way(fd, F_WRLCK, 0, 0, &l));
    OK(lock_it(fd, F_RDLCK, 10, 10));
    OK(lock_it(fd, F_WRLCK, 0, 0));
    OK(lock_it(fd, F_UNLCK, 0, 0));
    PROC
    {
        int own = open("f", O_RDWR);
        OK(lock_it(own, F_WRLCK, 0, 0));
    }
    close(fd);
}

static void test_split(void)
{
    struct flock l;
    make_file("f", 0644, "0123456789");
    int fd = open("f", O_RDWR);
    OK(lock_it(fd, F_WRLCK, 0, 100));
    OK(lock_it(fd, F_UNLCK, 40, 20));
    OK(lock_it(fd, F_RDLCK, 80, 10));
    PROC
    {
        int own = open("f", O_RDWR);
        EQ(F_WRLCK, in_the_way(own, F_WRLCK, 0, 100, &l));
        EQ(0, l.l_start);
        EQ(40, l.l_len);
        EQ(F_WRLCK, in_the_way(own, F_WRLCK, 40, 60, &l));
        EQ(60, l.l_start);
        EQ(20, l.l_len);
        EQ(F_RDLCK, in_the_way(own, F_WRLCK, 85, 1, &l));
        EQ(80, l.l_start);
        EQ(10, l.l_len);
        OK(lock_it(own, F_WRLCK, 40, 20));
        OK(lock_it(own, F_RDLCK, 85, 3));
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 95, 1));
    }
    note("negative lengths and other origins");
    OK(lock_it(fd, F_UNLCK, 0, 0));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 50, .l_len = -10};
    OK(fcntl(fd, F_SETLK, &l));
    OK(lseek(fd, 5, SEEK_SET));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = 1, .l_len = 2};
    OK(fcntl(fd, F_SETLK, &l));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = 0, .l_len = 3};
    OK(fcntl(fd, F_SETLK, &l));
    PROC
    {
        int own = open("f", O_RDWR);
        EQ(F_WRLCK, in_the_way(own, F_WRLCK, 0, 8, &l));
        EQ(6, l.l_start);
        EQ(F_WRLCK, in_the_way(own, F_WRLCK, 9, 10, &l));
        EQ(10, l.l_start);
        EQ(3, l.l_len);
        EQ(F_WRLCK, in_the_way(own, F_WRLCK, 20, 100, &l));
        EQ(40, l.l_start);
        EQ(10, l.l_len);
    }
    note("errors");
    FAILS(EINVAL, lock_it(fd, F_WRLCK, -1, 1));
    FAILS(EINVAL, lock_it(fd, F_WRLCK, 5, -10));
    FAILS(EINVAL, lock_it(fd, 77, 0, 1));
    int ro = open("f", O_RDONLY), wo = open("f", O_WRONLY);
    FAILS(EBADF, lock_it(ro, F_WRLCK, 0, 1));
    FAILS(EBADF, lock_it(wo, F_RDLCK, 0, 1));
    OK(lock_it(ro, F_RDLCK, 0, 1));
    OK(lock_it(wo, F_WRLCK, 0, 1));
    close(ro);
    close(wo);
    close(fd);
    FAILS(EBADF, lock_it(fd, F_RDLCK, 0, 1));
}

/* What ends a record lock: the close of any descriptor of the file, and the end of the process. */
static void test_release(void)
{
    make_file("f", 0644, "0123456789");
    int a = open("f", O_RDWR), b = open("f", O_RDONLY);
    OK(lock_it(a, F_WRLCK, 0, 0));
    PROC
    {
        FAILS2(EAGAIN, EACCES, lock_it(a, F_WRLCK, 0, 0)); /* fork does not inherit them */
        close(a);
        close(b);
    }
    PROC
    {
        int own = open("f", O_RDWR);
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 0, 0)); /* the child's close took nothing */
    }
    OK(close(b));
    PROC
    {
        int own = open("f", O_RDWR);
        OK(lock_it(own, F_WRLCK, 0, 0)); /* and keeps it to its end */
    }
    OK(lock_it(a, F_WRLCK, 0, 0));
    int d = dup(a);
    OK(close(d));
    PROC
    {
        int own = open("f", O_RDWR);
        OK_AS("a closed duplicate releases too", lock_it(own, F_WRLCK, 0, 0));
    }
    note("locks of an unlinked and of a renamed file");
    OK(lock_it(a, F_WRLCK, 0, 0));
    OK(rename("f", "g"));
    PROC
    {
        int own = open("g", O_RDWR);
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 0, 0));
    }
    OK(link("g", "h"));
    PROC
    {
        int own = open("h", O_RDWR);
        FAILS2(EAGAIN, EACCES, lock_it(own, F_WRLCK, 0, 0));
    }
    OK(unlink("g"));
    OK(unlink("h"));
    make_file("g", 0644, "");
    int other = open("g", O_RDWR);
    OK(lock_it(other, F_WRLCK, 0, 0));
    OK(lock_it(a, F_UNLCK, 0, 0));
    close(other);
    close(a);
}

static int *shared_words(void)
{
    void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return m == MAP_FAILED ? NULL : m;
}

static void on_signal(int signal_no)
{
    (void)signal_no;
}

/* A test that would hang is interrupted; the call then fails with EINTR. */
static void limit_time(void)
{
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGALRM, &act, NULL);
    alarm(30);
}

/* The state of a process: 'S' when it waits. */
static char state_of(pid_t pid)
{
    char path[64], text[200] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    char *paren = n <= 0 ? NULL : strrchr(text, ')');
    return paren == NULL ? '?' : paren[2];
}

/* Waits until the child, which says in `*at` that it is about to lock, sleeps in it. */
static void until_it_waits(pid_t pid, const int *at)
{
    time_t end = time(NULL) + 30;
    while (__atomic_load_n(at, __ATOMIC_SEQ_CST) != 1 && time(NULL) < end) {
        (void)sched_yield();
    }
    while (state_of(pid) == 'R' && time(NULL) < end) {
        (void)sched_yield();
    }
}

static void wait_exit(pid_t pid, int want)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    EQ_AS("exit status of the child", want, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static int held; /* the descriptor with the lock others wait for */

/* `take` in a child must wait until `give` here. `words`: 0 = about to lock, 1 = released. */
static void waits_for(const char *what, int (*take)(void), void (*give)(void))
{
    int *words = shared_words();
    if (!HOLDS(words != NULL)) {
        return;
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(held); /* flock ends with the last copy */
        limit_time();
        __atomic_store_n(&words[0], 1, __ATOMIC_SEQ_CST);
        OK_AS(what, take());
        EQ_AS("it waited for the release", 1, __atomic_load_n(&words[1], __ATOMIC_SEQ_CST));
        as_end();
    }
    until_it_waits(pid, &words[0]);
    __atomic_store_n(&words[1], 1, __ATOMIC_SEQ_CST);
    give();
    wait_exit(pid, 0);
    munmap(words, 4096);
}

static int take_record(void)
{
    return lock_wait(open("f", O_RDWR), F_WRLCK, 0, 10);
}

static int take_shared_record(void)
{
    return lock_wait(open("f", O_RDWR), F_RDLCK, 5, 1);
}

static int take_flock(void)
{
    return flock(open("f", O_RDWR), LOCK_EX);
}

static int take_ofd(void)
{
    struct flock l = lock_of(F_WRLCK, 0, 10);
    return fcntl(open("f", O_RDWR), F_OFD_SETLKW, &l);
}

static void give_record(void)
{
    OK(lock_it(held, F_UNLCK, 0, 0));
}

static void give_part(void)
{
    OK(lock_it(held, F_UNLCK, 0, 10));
}

static void give_downgrade(void)
{
    OK(lock_it(held, F_RDLCK, 0, 0));
}

static void give_close(void)
{
    OK(close(held));
    held = open("f", O_RDWR);
}

static void give_flock(void)
{
    OK(flock(held, LOCK_UN));
}

static void test_blocking(void)
{
    make_file("f", 0644, "0123456789");
    held = open("f", O_RDWR);
    OK(lock_it(held, F_WRLCK, 0, 0));
    waits_for("F_SETLKW until unlocked", take_record, give_record);
    OK(lock_it(held, F_WRLCK, 0, 0));
    waits_for("F_SETLKW until its part is unlocked", take_record, give_part);
    OK(lock_it(held, F_WRLCK, 0, 0));
    waits_for("F_SETLKW for reading until downgraded", take_shared_record, give_downgrade);
    OK(lock_it(held, F_WRLCK, 0, 0));
    waits_for("F_SETLKW until closed", take_record, give_close);
    OK(flock(held, LOCK_EX));
    waits_for("flock until unlocked", take_flock, give_flock);
    OK(flock(held, LOCK_SH));
    waits_for("flock for writing until a reader closes", take_flock, give_close);
    OK(lock_it(held, F_WRLCK, 0, 0));
    waits_for("F_OFD_SETLKW until unlocked", take_ofd, give_record);
    close(held);
}

/* A waiting call is ended by a signal, and takes nothing. */
static void interrupted(const char *what, int (*take)(void))
{
    int *words = shared_words();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct sigaction act = {.sa_handler = on_signal};
        sigaction(SIGUSR1, &act, NULL);
        __atomic_store_n(&words[0], 1, __ATOMIC_SEQ_CST);
        FAILS_AS(what, EINTR, take());
        __atomic_store_n(&words[1], 1, __ATOMIC_SEQ_CST);
        as_end();
    }
    until_it_waits(pid, &words[0]);
    int status = -1;
    time_t end = time(NULL) + 30;
    while (__atomic_load_n(&words[1], __ATOMIC_SEQ_CST) == 0 && time(NULL) < end) {
        (void)kill(pid, SIGUSR1); /* again and again: one may come before the call */
        if (waitpid(pid, &status, WNOHANG) == pid) {
            break;
        }
        (void)sched_yield();
    }
    EQ_AS(what, 1, __atomic_load_n(&words[1], __ATOMIC_SEQ_CST));
    /* Where the signal did not help, the release does; else the child could hang in the call. */
    OK(lock_it(held, F_UNLCK, 0, 0));
    OK(flock(held, LOCK_UN));
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
    munmap(words, 4096);
}

static void test_interrupt(void)
{
    make_file("f", 0644, "0123456789");
    held = open("f", O_RDWR);
    OK(lock_it(held, F_WRLCK, 0, 0));
    interrupted("a signal ends F_SETLKW", take_record);
    OK(flock(held, LOCK_EX));
    interrupted("a signal ends flock", take_flock);
    OK(flock(held, LOCK_EX | LOCK_NB));
    OK(lock_it(held, F_WRLCK, 0, 0));
    PROC
    {
        int own = open("f", O_RDWR);
        FAILS(EWOULDBLOCK, flock(own, LOCK_EX | LOCK_NB));
    }
    close(held);
}

/* Two processes, each with one byte locked, want the other's: exactly one is refused. */
static void test_deadlock(void)
{
    make_file("f", 0644, "0123456789");
    int *words = shared_words();
    pid_t pids[2];
    fflush(stdout);
    for (int who = 0; who < 2; who++) {
        pids[who] = fork();
        if (pids[who] != 0) {
            continue;
        }
        limit_time();
        int fd = open("f", O_RDWR);
        OK(lock_it(fd, F_WRLCK, who, 1));
        __atomic_fetch_add(&words[0], 1, __ATOMIC_SEQ_CST);
        time_t end = time(NULL) + 30;
        while (__atomic_load_n(&words[0], __ATOMIC_SEQ_CST) != 2 && time(NULL) < end) {
            (void)sched_yield();
        }
        int rc = lock_wait(fd, F_WRLCK, 1 - who, 1);
        int num = errno;
        if (rc != 0) {
            EQ_AS("errno of the one that is refused", EDEADLK, num);
            __atomic_fetch_add(&words[1], 1, __ATOMIC_SEQ_CST);
        }
        as_end();
    }
    wait_exit(pids[0], 0);
    wait_exit(pids[1], 0);
    EQ_AS("refused calls", 1, words[1]);
    PROC
    {
        int own = open("f", O_RDWR);
        OK(lock_it(own, F_WRLCK, 0, 0));
    }
}

static void test_ofd(void)
{
    make_file("f", 0644, "0123456789");
    int a = open("f", O_RDWR), b = open("f", O_RDWR);
    OK(ofd_lock(a, F_WRLCK, 0, 10));
    FAILS2(EAGAIN, EACCES, ofd_lock(b, F_WRLCK, 5, 10));
    FAILS2(EAGAIN, EACCES, ofd_lock(b, F_RDLCK, 5, 10));
    FAILS2(EAGAIN, EACCES, lock_it(b, F_WRLCK, 5, 10));
    OK(ofd_lock(b, F_WRLCK, 10, 10));
    struct flock l = lock_of(F_WRLCK, 0, 0);
    OK(fcntl(b, F_OFD_GETLK, &l));
    EQ(F_WRLCK, l.l_type);
    EQ(-1, l.l_pid);
    EQ(0, l.l_start);
    EQ(10, l.l_len);
    note("a duplicate is the same owner, and close of another descriptor takes nothing");
    int d = dup(a), c = open("f", O_RDWR);
    OK(ofd_lock(d, F_RDLCK, 0, 10));
    OK(close(c));
    FAILS2(EAGAIN, EACCES, ofd_lock(b, F_WRLCK, 0, 10));
    OK(close(a));
    FAILS2(EAGAIN, EACCES, ofd_lock(b, F_WRLCK, 0, 10));
    OK(close(d));
    OK(ofd_lock(b, F_WRLCK, 0, 10));
    PROC
    {
        OK(ofd_lock(b, F_UNLCK, 0, 0)); /* inherited by fork */
    }
    a = open("f", O_RDWR);
    OK(ofd_lock(a, F_WRLCK, 0, 0));
    l = lock_of(F_WRLCK, 0, 0);
    l.l_pid = 1;
    FAILS(EINVAL, fcntl(a, F_OFD_SETLK, &l));
    close(a);
    close(b);
}

static void test_flock(void)
{
    make_file("f", 0644, "0123456789");
    make_dir("d", 0755);
    int a = open("f", O_RDONLY), b = open("f", O_RDWR), c = open("f", O_RDONLY);
    OK(flock(a, LOCK_SH | LOCK_NB));
    OK(flock(b, LOCK_SH | LOCK_NB));
    FAILS(EWOULDBLOCK, flock(c, LOCK_EX | LOCK_NB));
    OK(flock(b, LOCK_UN));
    OK_AS("the only holder may upgrade", flock(a, LOCK_EX | LOCK_NB));
    FAILS(EWOULDBLOCK, flock(b, LOCK_SH | LOCK_NB));
    FAILS(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
    OK(flock(a, LOCK_SH | LOCK_NB));
    OK(flock(b, LOCK_SH | LOCK_NB));
    FAILS(EWOULDBLOCK, flock(a, LOCK_EX | LOCK_NB));
    note("duplicates share the lock; it goes with the last of them");
    OK(flock(a, LOCK_UN));
    OK(flock(b, LOCK_EX | LOCK_NB));
    int d = dup(b);
    OK(close(b));
    FAILS(EWOULDBLOCK, flock(c, LOCK_SH | LOCK_NB));
    PROC
    {
        close(d); /* the child's copy is not the last */
    }
    FAILS(EWOULDBLOCK, flock(c, LOCK_SH | LOCK_NB));
    PROC
    {
        OK(flock(d, LOCK_UN)); /* but it can unlock for all */
    }
    OK(flock(c, LOCK_EX | LOCK_NB));
    close(d);
    note("another process");
    PROC
    {
        int own = open("f", O_RDONLY);
        FAILS(EWOULDBLOCK, flock(own, LOCK_SH | LOCK_NB));
    }
    note("flock and fcntl do not meet");
    b = open("f", O_RDWR);
    PROC
    {
        int own = open("f", O_RDWR);
        OK(lock_it(own, F_WRLCK, 0, 0));
    }
    note("a directory, and nonsense");
    int dir = open("d", O_RDONLY), dir2 = open("d", O_RDONLY);
    OK(flock(dir, LOCK_EX | LOCK_NB));
    FAILS(EWOULDBLOCK, flock(dir2, LOCK_EX | LOCK_NB));
    FAILS(EINVAL, flock(dir, 77));
    close(dir);
    OK(flock(dir2, LOCK_EX | LOCK_NB));
    close(dir2);
    close(c);
    FAILS(EBADF, flock(c, LOCK_SH));
    close(a);
    close(b);
}

/* A counter in a file, read and written under a lock by several processes. */
static void test_exclusion(void)
{
    enum {
        PROCS = 4,
        ROUNDS = 100
    };
    pid_t pids[PROCS];
    make_file("count", 0644, "000000");
    fflush(stdout);
    for (int p = 0; p < PROCS; p++) {
        pids[p] = fork();
        if (pids[p] != 0) {
            continue;
        }
        int fd = open("count", O_RDWR);
        for (int i = 0; i < ROUNDS; i++) {
            char text[32] = "";
            int rc = p % 2 == 0 ? lock_wait(fd, F_WRLCK, 0, 0) : lock_wait(fd, F_WRLCK, 0, 6);
            ssize_t n = pread(fd, text, 6, 0);
            snprintf(text, sizeof(text), "%06ld", strtol(text, NULL, 10) + 1);
            if (rc != 0 || n != 6 || pwrite(fd, text, 6, 0) != 6) {
                (void)check_ok(HERE, "locked increment", -1);
            }
            (void)lock_it(fd, F_UNLCK, 0, 0);
        }
        as_end();
    }
    for (int p = 0; p < PROCS; p++) {
        wait_exit(pids[p], 0);
    }
    HOLDS(content_is("count", "000400", 6));
}

const struct posix_group lock_groups[] = {
    {"lock-records", test_records, false},
    {"lock-split", test_split, false},
    {"lock-release", test_release, false},
    {"lock-blocking", test_blocking, false},
    {"lock-interrupt", test_interrupt, false},
    {"lock-deadlock", test_deadlock, false},
    {"lock-ofd", test_ofd, false},
    {"lock-flock", test_flock, false},
    {"lock-exclusion", test_exclusion, false},
    {0},
};
