/* Fills a mount with very many small files: how the rate of creating goes as there are more. The
 * rest of what grows with them (memory, restart, idle cost) is measured by scale.py, which runs
 * this.
 *
 *     bench_scale [options] DIR           DIR: a directory of the mount
 *       -n N     files (200000)           -t N  threads (16)
 *       -p PID   the daemon: its processor time for a create, which neighbours disturb less
 *
 * The files are empty and lie in directories of a thousand; each thread fills one at a time. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "bench/common.h"

#define FILES_PER_DIR 1000u
#define DIRS_PER_DIR 1000u
#define WINDOWS 40u     /* of the run; the first, in which threads start, does not count */
#define WINDOWS_SIDE 8u /* at each end: the median of these is the rate there */

struct run {
    const char *root;
    uint64_t files;
    unsigned threads;
    unsigned long daemon; /* its pid; 0: not told */
    atomic_uint_fast64_t dir, made;
    struct {
        uint64_t ns;
        double cpu_s;      /* of the daemon */
    } passed[WINDOWS + 1]; /* when so many fortieths were made */
};

static double cpu_seconds_of(unsigned long pid)
{
    char path[64];
    unsigned long long user, system;
    if (pid == 0)
        return 0;
    (void)snprintf(path, sizeof path, "/proc/%lu/stat", pid); /* fits */
    FILE *f = fopen(path, "re");
    if (f == NULL || fscanf(f, "%*d (%*[^)]) %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu",
                            &user, &system) != 2)
        bench_die("processor time in %s", path);
    (void)fclose(f); /* only read */
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void pass(struct run *run, uint64_t window)
{
    run->passed[window].ns = bench_ns();
    run->passed[window].cpu_s = cpu_seconds_of(run->daemon);
}

static void count_made(struct run *run)
{
    uint64_t made = atomic_fetch_add(&run->made, 1) + 1;
    uint64_t window = made * WINDOWS / run->files;
    if (window != (made - 1) * WINDOWS / run->files)
        pass(run, window);
}

static void fill_dirs(void *ctx, unsigned thread)
{
    struct run *run = ctx;
    char path[PATH_ROOM];
    (void)thread;
    for (;;) {
        uint64_t dir = atomic_fetch_add(&run->dir, 1), from = dir * FILES_PER_DIR;
        if (from >= run->files)
            return;
        path_of(path, "%s/%04llu", run->root, (unsigned long long)(dir / DIRS_PER_DIR));
        make_dir(path);
        path_of(path, "%s/%04llu/%04llu", run->root, (unsigned long long)(dir / DIRS_PER_DIR),
                (unsigned long long)(dir % DIRS_PER_DIR));
        make_dir(path);
        int at = open_or_die(path, O_RDONLY | O_DIRECTORY);
        for (uint64_t i = from; i < MIN(from + FILES_PER_DIR, run->files); i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "f%09llu", (unsigned long long)i); /* fits */
            int fd = openat(at, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
            if (fd < 0 || close(fd) != 0)
                bench_die("create %s/%s", path, name);
            count_made(run);
        }
        (void)close(at); /* only looked up in */
    }
}

static void rates_of(const struct run *run, unsigned first, struct samples *ret)
{
    for (unsigned w = first; w < first + WINDOWS_SIDE; w++)
        samples_add(ret, (double)run->files / WINDOWS /
                             ((double)(run->passed[w + 1].ns - run->passed[w].ns) / NS_PER_SEC));
}

/* Ticks of the clock are long beside a window: the whole end is one sample. */
static void cost_of(const struct run *run, unsigned first, struct samples *ret)
{
    if (run->daemon != 0)
        samples_add(ret, (run->passed[first + WINDOWS_SIDE].cpu_s - run->passed[first].cpu_s) /
                             ((double)run->files / WINDOWS * WINDOWS_SIDE));
}

int main(int argc, char **argv)
{
    static struct run run = {.files = 200000, .threads = 16};
    for (int c; (c = getopt(argc, argv, "n:t:p:")) != -1;) {
        switch (c) {
        case 'n':
            run.files = number_of(optarg);
            break;
        case 'p':
            run.daemon = (unsigned long)number_of(optarg);
            break;
        case 't':
            run.threads = (unsigned)number_of(optarg);
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc || run.files < FILES_PER_DIR * WINDOWS || run.threads == 0) {
        (void)fprintf(stderr, "usage: see the head of bench/scale.c\n");
        return 2;
    }
    run.root = argv[optind];
    struct samples all = {.count = 0}, begin = {.count = 0}, end = {.count = 0};
    struct samples cost_begin = {.count = 0}, cost_end = {.count = 0};
    pass(&run, 0);
    samples_add(&all, (double)run.files / in_parallel(run.threads, fill_dirs, &run));
    rates_of(&run, 1, &begin);
    rates_of(&run, WINDOWS - WINDOWS_SIDE, &end);
    figure_print("scale_create", "1/s", MORE_IS_BETTER, &all, NULL);
    figure_print("scale_create_at_the_end", "1/s", MORE_IS_BETTER, &end, &begin);
    cost_of(&run, 1, &cost_begin);
    cost_of(&run, WINDOWS - WINDOWS_SIDE, &cost_end);
    figure_print("scale_create_processor_time_at_the_end", "s", LESS_IS_BETTER, &cost_end,
                 &cost_begin);
    return 0;
}
