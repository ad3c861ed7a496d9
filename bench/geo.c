/* From one site to another: how long until what was closed at alpha can be read at beta.
 *
 *     bench_geo [options] ALPHA BETA      directories in mounts of two paired sites
 *       -f N     single files (200)       -b N   files of the burst (10000), 0: leave that out
 *       -s MIB   one large file (256), 0: leave that out
 *       -d MS    round trip time that a link between the sites adds; the limit is that and a round
 *                trip over loopback TCP
 *       -t N     files of a tree whose bytes on the wire are counted (2000), 0: leave that out
 *       -B N     operations of a backlog (1000000), 0: leave that out
 *       -C CMD   a command for what mounts do not say; it is given "status" (of alpha, as JSON),
 *                "status-beta", "wait" (until beta has all), "pause" and "resume" (the link).
 * Without it tree, backlog and eager data are left out -r N     repetitions of the burst, the tree
 * and the large file (3) -p NAME  put before the name of each figure
 *
 * Whoever waits at beta asks every POLL_NS, so that asking costs little of the two processors that
 * both sites share; a figure can be that much too large. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "bench/common.h"

#define SMALL_BYTES 4096u
#define IO_BYTES (1024u * 1024u)
#define POLL_NS 100000u
#define PATIENCE_NS (120u * NS_PER_SEC)
#define DIRS 100u
#define THREADS 4u
#define ROUND_TRIPS 2000u
#define EAGER_POLL_NS (20u * NS_PER_MS)
#define BACKLOG_POLL_NS (50u * NS_PER_MS)
/* What is to be reached, where the machine's limit says little. */
#define TREE_BYTES_GOAL 40.0          /* of an operation */
#define BURST_LAST_GOAL 0.5           /* seconds from the last close */
#define BACKLOG_GOAL (1000000.0 / 30) /* operations a second */
#define EAGER_GOAL 200e6              /* bytes a second */

struct run {
    const char *alpha, *beta;
    const char *prefix;
    const char *command;
    unsigned files, burst, repetitions, tree, backlog;
    uint64_t large_bytes, added_ns;
    uint64_t tag;
    uint8_t *noise; /* IO_BYTES */
};

static void pause_ns(uint64_t ns)
{
    const struct timespec t = {.tv_sec = 0, .tv_nsec = (long)ns};
    (void)nanosleep(&t, NULL); /* woken early: asks early */
}

/* --- the limit --- */

static void *echo_thread(void *arg)
{
    int fd = *(const int *)arg;
    uint8_t bytes[128];
    while (recv(fd, bytes, sizeof bytes, MSG_WAITALL) == (ssize_t)sizeof bytes)
        if (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) < 0)
            break;
    return NULL;
}

static void tcp_pair(int fds[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || fds[0] < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&at, &len) != 0 ||
        connect(fds[0], (struct sockaddr *)&at, sizeof at) != 0)
        bench_die("loopback");
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fds[1] < 0)
        bench_die("accept");
    (void)close(listener); /* has done its work */
    for (int i = 0; i < 2; i++)
        if (setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
            bench_die("TCP_NODELAY");
}

static double round_trip_ns(void)
{
    int fds[2];
    pthread_t thread;
    uint8_t bytes[128] = {0};
    tcp_pair(fds);
    int rc = pthread_create(&thread, NULL, echo_thread, &fds[1]);
    ASSERT(rc == 0);
    uint64_t start_ns = bench_ns();
    for (unsigned i = 0; i < ROUND_TRIPS; i++)
        if (send(fds[0], bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes ||
            recv(fds[0], bytes, sizeof bytes, MSG_WAITALL) != (ssize_t)sizeof bytes)
            bench_die("round trip");
    double ns = (double)(bench_ns() - start_ns) / ROUND_TRIPS;
    (void)shutdown(fds[0], SHUT_RDWR); /* ends the thread */
    (void)pthread_join(thread, NULL);
    (void)close(fds[0]);
    (void)close(fds[1]);
    return ns;
}

/* --- files --- */

/* False: it is not there yet. What is there must be whole and right. */
static bool readable(const char *path, const void *data, size_t len)
{
    uint8_t got[SMALL_BYTES + 1];
    ASSERT(len <= SMALL_BYTES);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return false;
    if (fd < 0)
        bench_die("open %s", path);
    ssize_t n = read(fd, got, sizeof got);
    (void)close(fd); /* only read */
    if (n == 0)
        return false; /* created, and its content is on the way */
    errno = EBADMSG;
    if (n != (ssize_t)len || memcmp(got, data, len) != 0)
        bench_die("%s has other content than was written", path);
    return true;
}

static void await_file(const char *path, const void *data, size_t len)
{
    uint64_t start_ns = bench_ns();
    while (!readable(path, data, len)) {
        errno = ETIMEDOUT;
        if (bench_ns() - start_ns > PATIENCE_NS)
            bench_die("%s", path);
        pause_ns(POLL_NS);
    }
}

static void await_dir(const char *path)
{
    struct stat st;
    uint64_t start_ns = bench_ns();
    while (stat(path, &st) != 0) {
        if (errno != ENOENT || bench_ns() - start_ns > PATIENCE_NS)
            bench_die("stat %s", path);
        pause_ns(POLL_NS);
    }
}

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
    write_whole(fd, data, len, 0);
    if (close(fd) != 0)
        bench_die("close %s", path);
}

static void small_content(const struct run *run, uint64_t tag, uint8_t out[SMALL_BYTES])
{
    memcpy(out, run->noise, SMALL_BYTES);
    data_tag(out, SMALL_BYTES, tag);
}

static void remove_at_alpha(const struct run *run, const char *name)
{
    char *command = mem_printf("rm -r '%s/%s'", run->alpha, name);
    run_command(command);
    mem_free(command);
}

/* --- single files --- */

static void bench_single(struct run *run, double limit_ns)
{
    char at_alpha[PATH_ROOM], at_beta[PATH_ROOM], name[64];
    uint8_t data[SMALL_BYTES];
    uint64_t *ns = mem_calloc(MAX(run->files, 1), sizeof *ns);
    path_of(at_alpha, "%s/single", run->alpha);
    make_dir(at_alpha);
    path_of(at_beta, "%s/single", run->beta);
    await_dir(at_beta);
    for (unsigned i = 0; i < run->files + 5; i++) {
        path_of(at_alpha, "%s/single/%05u", run->alpha, i);
        path_of(at_beta, "%s/single/%05u", run->beta, i);
        small_content(run, run->tag, data);
        if (readable(at_beta, data, sizeof data)) /* beta knows that it is not there */
            bench_die("%s is there before it was made", at_beta);
        write_file(at_alpha, data, sizeof data);
        uint64_t start_ns = bench_ns();
        await_file(at_beta, data, sizeof data);
        if (i >= 5) /* the first ones warm up */
            ns[i - 5] = bench_ns() - start_ns;
        run->tag++;
    }
    (void)snprintf(name, sizeof name, "%s_single", run->prefix);
    latency_print(name, ns, run->files, limit_ns);
    mem_free(ns);
    remove_at_alpha(run, "single");
}

/* --- a burst of small files --- */

struct burst {
    const struct run *run;
    unsigned repetition;
};

static void burst_path(const struct burst *b, const char *site, unsigned idx, char out[PATH_ROOM])
{
    path_of(out, "%s/burst%u/d%02u/%06u", site, b->repetition, idx % DIRS, idx);
}

static uint64_t burst_tag(const struct burst *b, unsigned idx)
{
    return b->run->tag + (uint64_t)b->repetition * b->run->burst + idx;
}

static void burst_write(void *ctx, unsigned thread)
{
    const struct burst *b = ctx;
    char path[PATH_ROOM];
    uint8_t data[SMALL_BYTES];
    for (unsigned i = 0; i < b->run->burst; i++) {
        if (i % DIRS % THREADS != thread)
            continue;
        burst_path(b, b->run->alpha, i, path);
        small_content(b->run, burst_tag(b, i), data);
        write_file(path, data, sizeof data);
    }
}

/* Waits for files [from, to) at beta. */
static void burst_await(const struct burst *b, unsigned from, unsigned to)
{
    char path[PATH_ROOM];
    uint8_t data[SMALL_BYTES];
    for (unsigned i = from; i < to; i++) {
        burst_path(b, b->run->beta, i, path);
        small_content(b->run, burst_tag(b, i), data);
        await_file(path, data, sizeof data);
    }
}

static void bench_burst(struct run *run)
{
    struct samples last = {.count = 0}, all = {.count = 0}, rate = {.count = 0};
    struct samples goal = {.v = {BURST_LAST_GOAL}, .count = 1};
    char path[PATH_ROOM], name[64];
    for (unsigned r = 0; r < run->repetitions; r++) {
        struct burst b = {.run = run, .repetition = r};
        path_of(path, "%s/burst%u", run->alpha, r);
        make_dir(path);
        for (unsigned d = 0; d < DIRS; d++) {
            path_of(path, "%s/burst%u/d%02u", run->alpha, r, d);
            make_dir(path);
        }
        path_of(path, "%s/burst%u/d%02u", run->beta, r, DIRS - 1);
        await_dir(path);
        samples_add(&rate, run->burst / in_parallel(THREADS, burst_write, &b));
        uint64_t start_ns = bench_ns();
        /* The last file of every writer, then all of them: none may be missing. */
        burst_await(&b, run->burst - MIN(run->burst, 2 * THREADS), run->burst);
        samples_add(&last, seconds_since(start_ns));
        burst_await(&b, 0, run->burst);
        samples_add(&all, seconds_since(start_ns));
        (void)snprintf(name, sizeof name, "burst%u", r);
        remove_at_alpha(run, name);
    }
    (void)snprintf(name, sizeof name, "%s_burst_last", run->prefix);
    figure_print(name, "s", LESS_IS_BETTER, &last, &goal);
    (void)snprintf(name, sizeof name, "%s_burst_all_checked", run->prefix);
    figure_print(name, "s", LESS_IS_BETTER, &all, NULL);
    (void)snprintf(name, sizeof name, "%s_burst_written", run->prefix);
    figure_print(name, "1/s", MORE_IS_BETTER, &rate, NULL);
}

/* --- one large file --- */

static void bench_large(struct run *run)
{
    struct samples rate = {.count = 0};
    char at_alpha[PATH_ROOM], at_beta[PATH_ROOM], name[64];
    uint8_t *buf = mem_alloc(IO_BYTES), *want = mem_alloc(IO_BYTES);
    for (unsigned r = 0; r < run->repetitions; r++) {
        path_of(at_alpha, "%s/large%u", run->alpha, r);
        path_of(at_beta, "%s/large%u", run->beta, r);
        uint64_t tag = run->tag;
        int fd = open_or_die(at_alpha, O_CREAT | O_EXCL | O_WRONLY);
        for (uint64_t at = 0; at < run->large_bytes; at += IO_BYTES) {
            memcpy(buf, run->noise, IO_BYTES);
            data_tag(buf, IO_BYTES, run->tag++);
            write_whole(fd, buf, IO_BYTES, (off_t)at);
        }
        if (close(fd) != 0)
            bench_die("close %s", at_alpha);
        uint64_t start_ns = bench_ns();
        struct stat st = {.st_size = 0};
        while (st.st_size != (off_t)run->large_bytes) {
            errno = ETIMEDOUT;
            if ((stat(at_beta, &st) != 0 && errno != ENOENT) || bench_ns() - start_ns > PATIENCE_NS)
                bench_die("stat %s", at_beta);
            pause_ns(POLL_NS);
        }
        fd = open_or_die(at_beta, O_RDONLY);
        for (uint64_t at = 0; at < run->large_bytes; at += IO_BYTES) {
            read_whole(fd, buf, IO_BYTES, (off_t)at);
            memcpy(want, run->noise, IO_BYTES);
            data_tag(want, IO_BYTES, tag++);
            errno = EBADMSG;
            if (memcmp(buf, want, IO_BYTES) != 0)
                bench_die("%s at %llu", at_beta, (unsigned long long)at);
        }
        (void)close(fd); /* only read */
        samples_add(&rate, (double)run->large_bytes / seconds_since(start_ns));
        (void)snprintf(name, sizeof name, "large%u", r);
        remove_at_alpha(run, name);
    }
    (void)snprintf(name, sizeof name, "%s_large_read", run->prefix);
    figure_print(name, "B/s", MORE_IS_BETTER, &rate, NULL);
    mem_free(buf);
    mem_free(want);
}

/* --- what the daemons are asked --- */

static void tell(const struct run *run, const char *what)
{
    char *command = mem_printf("%s %s", run->command, what);
    run_command(command);
    mem_free(command);
}

/* The first number with that name in what a status says. */
static double ask(const struct run *run, const char *status, const char *name)
{
    struct buf text = {.ptr = NULL};
    char bytes[4096];
    char *command = mem_printf("%s %s", run->command, status);
    char *key = mem_printf("\"%s\":", name);
    FILE *f = popen(command, "r");
    if (f == NULL)
        bench_die("%s", command);
    for (size_t len; (len = fread(bytes, 1, sizeof bytes, f)) > 0;)
        buf_append(&text, bytes, len);
    buf_append(&text, "", 1);
    const char *at = strstr((const char *)text.ptr, key);
    (void)pclose(f); /* how it ends says how the sites are */
    if (at == NULL)
        bench_die("%s: no %s", command, name);
    double value = strtod(at + strlen(key), NULL);
    buf_deinit(&text);
    mem_free(command);
    mem_free(key);
    return value;
}

/* --- a tree, and what it takes on the wire --- */

static const char *const words[] = {"main", "util",  "index", "test",  "core", "data",  "node",
                                    "list", "merge", "state", "parse", "sync", "cache", "http"};

/* What tar does for a file. Contents are beyond what an operation carries itself. */
static void unpack_file(const struct run *run, const char *path, uint64_t tag)
{
    uint8_t data[3 * SMALL_BYTES];
    for (size_t i = 0; i < sizeof data; i += SMALL_BYTES)
        small_content(run, tag, data + i);
    struct timespec times[2] = {{.tv_sec = (time_t)(1700000000 + tag % 1000000)}};
    times[1] = times[0];
    int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
    write_whole(fd, data, sizeof data, 0);
    if (futimens(fd, times) != 0 || close(fd) != 0)
        bench_die("%s", path);
}

static void bench_tree(struct run *run)
{
    struct samples bytes = {.count = 0}, goal = {.v = {TREE_BYTES_GOAL}, .count = 1};
    char path[PATH_ROOM], name[64];
    for (unsigned r = 0; r < run->repetitions; r++) {
        path_of(path, "%s/tree%u", run->alpha, r);
        make_dir(path);
        tell(run, "wait");
        double ops = ask(run, "status", "out_ops"), wire = ask(run, "status", "out_wire_bytes");
        for (unsigned i = 0; i < run->tree; i++, run->tag++) {
            const char *dir = words[i / 20 % ARRAY_COUNT(words)];
            path_of(path, "%s/tree%u/%s%u", run->alpha, r, dir, i / 20);
            if (i % 20 == 0)
                make_dir(path);
            path_of(path, "%s/tree%u/%s%u/%s_%s%u.c", run->alpha, r, dir, i / 20,
                    words[run->tag * 7 % ARRAY_COUNT(words)],
                    words[run->tag * 3 / 5 % ARRAY_COUNT(words)], i % 20);
            unpack_file(run, path, run->tag);
        }
        tell(run, "wait");
        samples_add(&bytes, (ask(run, "status", "out_wire_bytes") - wire) /
                                (ask(run, "status", "out_ops") - ops));
        (void)snprintf(name, sizeof name, "tree%u", r);
        remove_at_alpha(run, name);
    }
    (void)snprintf(name, sizeof name, "%s_tree_bytes", run->prefix);
    figure_print(name, "B", LESS_IS_BETTER, &bytes, &goal);
}

/* --- a backlog --- */

/* What is set of a new file goes as one with the operation after its creation. */
#define BACKLOG_OPS_PER_FILE 2u

static void backlog_write(void *ctx, unsigned thread)
{
    const struct run *run = ctx;
    char path[PATH_ROOM];
    for (unsigned i = thread; i < run->backlog / BACKLOG_OPS_PER_FILE; i += THREADS) {
        struct timespec times[2] = {{.tv_sec = (time_t)i}, {.tv_sec = (time_t)i}};
        path_of(path, "%s/backlog/d%02u/file-%u", run->alpha, i % DIRS, i);
        int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
        if (fchmod(fd, 0600 + i % 0100) != 0 || futimens(fd, times) != 0 || close(fd) != 0)
            bench_die("%s", path);
    }
}

/* Until beta has all; the rates are those of each tenth of the way. */
static double catch_up(const struct run *run, double ops, struct samples *rates)
{
    double before = ask(run, "status-beta", "in_ops");
    uint64_t start_ns = bench_ns(), tenth_ns = start_ns;
    tell(run, "resume");
    for (unsigned tenth = 1; tenth < 10; tenth++) {
        while (ask(run, "status-beta", "in_ops") - before < ops * tenth / 10) {
            errno = ETIMEDOUT;
            if (bench_ns() - start_ns > PATIENCE_NS)
                bench_die("a backlog");
            pause_ns(BACKLOG_POLL_NS);
        }
        samples_add(rates, ops / 10 / seconds_since(tenth_ns));
        tenth_ns = bench_ns();
    }
    tell(run, "wait");
    samples_add(rates, ops / 10 / seconds_since(tenth_ns));
    return seconds_since(start_ns);
}

/* The link is paused, alpha goes on alone, the link is resumed. */
static void bench_backlog(struct run *run)
{
    struct samples rates = {.count = 0}, goal = {.v = {BACKLOG_GOAL}, .count = 1};
    struct samples took = {.count = 0}, goal_s = {.count = 1};
    char path[PATH_ROOM], name[64];
    struct stat st;
    path_of(path, "%s/backlog", run->alpha);
    make_dir(path);
    for (unsigned d = 0; d < DIRS; d++) {
        path_of(path, "%s/backlog/d%02u", run->alpha, d);
        make_dir(path);
    }
    tell(run, "wait");
    tell(run, "pause");
    double ops = ask(run, "status", "out_ops");
    (void)in_parallel(THREADS, backlog_write, run);
    samples_add(&took, catch_up(run, run->backlog, &rates));
    ops = ask(run, "status", "out_ops") - ops;
    errno = ERANGE;
    if (ops < run->backlog * 0.99 || ops > run->backlog * 1.01)
        bench_die("a backlog of %.0f operations, not of %u", ops, run->backlog);
    goal_s.v[0] = run->backlog / BACKLOG_GOAL;
    for (unsigned i = 0; i < run->backlog / BACKLOG_OPS_PER_FILE; i += 997) {
        path_of(path, "%s/backlog/d%02u/file-%u", run->beta, i % DIRS, i);
        errno = EBADMSG;
        if (stat(path, &st) != 0 || (st.st_mode & 07777) != 0600 + i % 0100 || st.st_mtime != i)
            bench_die("%s", path);
    }
    (void)snprintf(name, sizeof name, "%s_backlog", run->prefix);
    figure_print(name, "1/s", MORE_IS_BETTER, &rates, &goal);
    (void)snprintf(name, sizeof name, "%s_backlog_caught_up", run->prefix);
    figure_print(name, "s", LESS_IS_BETTER, &took, &goal_s);
}

/* --- eager data --- */

/* From the close of a large file until all of it is at beta, where nobody asks for it. */
static void bench_eager(struct run *run)
{
    struct samples rate = {.count = 0}, goal = {.v = {EAGER_GOAL}, .count = 1};
    char path[PATH_ROOM], name[64];
    uint8_t *buf = mem_alloc(IO_BYTES);
    path_of(path, "%s/eager", run->alpha);
    make_dir(path);
    if (setxattr(path, "user.claudefs.policy", "eager", 5, 0) != 0)
        bench_die("policy of %s", path);
    for (unsigned r = 0; r < run->repetitions; r++) {
        path_of(path, "%s/eager/%u", run->alpha, r);
        tell(run, "wait");
        double before = ask(run, "status-beta", "live_bytes");
        int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
        for (uint64_t at = 0; at < run->large_bytes; at += IO_BYTES) {
            memcpy(buf, run->noise, IO_BYTES);
            data_tag(buf, IO_BYTES, run->tag++);
            write_whole(fd, buf, IO_BYTES, (off_t)at);
        }
        if (fsync(fd) != 0 || close(fd) != 0)
            bench_die("%s", path);
        uint64_t start_ns = bench_ns();
        while (ask(run, "status-beta", "live_bytes") - before < (double)run->large_bytes) {
            errno = ETIMEDOUT;
            if (bench_ns() - start_ns > PATIENCE_NS)
                bench_die("%s", path);
            pause_ns(EAGER_POLL_NS);
        }
        samples_add(&rate, (double)run->large_bytes / seconds_since(start_ns));
    }
    mem_free(buf);
    (void)snprintf(name, sizeof name, "%s_eager", run->prefix);
    figure_print(name, "B/s", MORE_IS_BETTER, &rate, &goal);
}

static bool parse(struct run *run, int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "f:b:s:d:r:p:t:B:C:")) != -1;) {
        switch (c) {
        case 'f':
            run->files = (unsigned)number_of(optarg);
            break;
        case 'b':
            run->burst = (unsigned)number_of(optarg);
            break;
        case 's':
            run->large_bytes = number_of(optarg) * MIB;
            break;
        case 'd':
            run->added_ns = number_of(optarg) * NS_PER_MS;
            break;
        case 'r':
            run->repetitions = (unsigned)number_of(optarg);
            break;
        case 'p':
            run->prefix = optarg;
            break;
        case 't':
            run->tree = (unsigned)number_of(optarg);
            break;
        case 'B':
            run->backlog = (unsigned)number_of(optarg);
            break;
        case 'C':
            run->command = optarg;
            break;
        default:
            return false;
        }
    }
    if (optind + 2 != argc || run->repetitions == 0 || run->repetitions > SAMPLES_MAX)
        return false;
    run->alpha = argv[optind];
    run->beta = argv[optind + 1];
    return true;
}

int main(int argc, char **argv)
{
    struct run run = {.prefix = "geo",
                      .files = 200,
                      .burst = 10000,
                      .large_bytes = 256 * MIB,
                      .repetitions = 3,
                      .tree = 2000,
                      .backlog = 1000000,
                      .tag = random_u64()};
    if (!parse(&run, argc, argv)) {
        (void)fprintf(stderr, "usage: see the head of bench/geo.c\n");
        return 2;
    }
    run.noise = mem_alloc(IO_BYTES);
    fill_noise(run.noise, IO_BYTES, 1);
    double limit_ns = round_trip_ns() + (double)run.added_ns;
    bench_single(&run, limit_ns);
    if (run.burst > 0)
        bench_burst(&run);
    if (run.large_bytes > 0)
        bench_large(&run);
    if (run.command != NULL && run.large_bytes > 0)
        bench_eager(&run);
    if (run.command != NULL && run.tree > 0)
        bench_tree(&run);
    if (run.command != NULL && run.backlog > 0)
        bench_backlog(&run);
    mem_free(run.noise);
    return 0;
}
