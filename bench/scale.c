/* Fills a mount with very many small files: how the rate of creating goes as there are more. The
 * rest of what grows with them (memory, restart, idle cost) is measured by scale.py, which runs
 * this.
 *
 *     bench_scale [options] DIR           DIR: a directory of the mount
 *       -n N     files (200000)           -t N  threads (16)
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
    atomic_uint_fast64_t dir, made;
    uint64_t passed_ns[WINDOWS + 1]; /* when so many fortieths were made */
};

static void count_made(struct run *run)
{
    uint64_t made = atomic_fetch_add(&run->made, 1) + 1;
    uint64_t window = made * WINDOWS / run->files;
    if (window != (made - 1) * WINDOWS / run->files)
        run->passed_ns[window] = bench_ns();
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
                             ((double)(run->passed_ns[w + 1] - run->passed_ns[w]) / NS_PER_SEC));
}

int main(int argc, char **argv)
{
    static struct run run = {.files = 200000, .threads = 16};
    for (int c; (c = getopt(argc, argv, "n:t:")) != -1;) {
        switch (c) {
        case 'n':
            run.files = number_of(optarg);
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
    run.passed_ns[0] = bench_ns();
    samples_add(&all, (double)run.files / in_parallel(run.threads, fill_dirs, &run));
    rates_of(&run, 1, &begin);
    rates_of(&run, WINDOWS - WINDOWS_SIDE, &end);
    figure_print("scale_create", "1/s", MORE_IS_BETTER, &all, NULL);
    figure_print("scale_create_at_the_end", "1/s", MORE_IS_BETTER, &end, &begin);
    return 0;
}
