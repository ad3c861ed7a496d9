/* Names and attributes through a mount: one thread and four over 100 directories, beside an
 * in-memory FUSE file system (the limit) and the local file system, in turn. Every repetition
 * starts with an empty tree: files are created, looked at, listed, renamed and removed. Then tar
 * archives with a tree like that of a source package are unpacked.
 *
 *     bench_meta [options] DIR            DIR: a directory of the mount
 *       -m DIR   a directory of bench_memfs
 *       -l DIR   a directory of the local file system; the archive is made there, too
 *       -z DIR   a directory of bench_memfs -t 0, where the kernel asks for every name
 *       -R CMD   makes DIR cold: mounts it again
 *       -n N     files of a repetition (5000)      -r N  repetitions (10)
 *       -u N     files of the tree that is unpacked (20000), a repetition is a piece of it; 0:
 *                leave that out
 *       -o PART  only this: 1t, 4t, cold or unpack */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "bench/common.h"

#define DIRS 100u
#define SMALL_BYTES 4096u
#define FILE_BYTES_MAX (96u * 1024u)
#define FILES_PER_DIR 16u /* of the archives */

enum side {
    OURS,
    MEMORY,
    LOCAL,
    SIDES
};

enum phase {
    CREATE,
    WRITE, /* create, 4 KiB, close */
    STAT,
    LIST, /* readdir with the attributes of each entry */
    RENAME,
    UNLINK,
    PHASES,
    STAT_AT = PHASES /* by name in an open directory: nothing but the name is looked up */
};

static const char *const phase_names[PHASES] = {"create",      "create_4k", "stat",
                                                "readdirplus", "rename",    "unlink"};

struct run {
    const char *dir[SIDES]; /* NULL: not measured */
    const char *cold_dir;   /* bench_memfs -t 0 */
    const char *remount;
    const char *only;
    unsigned files, repetitions, archive_files;
    uint8_t data[SMALL_BYTES];
};

/* One phase of one repetition at one side. */
struct job {
    const struct run *run;
    const char *root;
    enum phase phase;
    unsigned threads;
};

static void file_path(char out[PATH_ROOM], const char *root, unsigned idx, const char *prefix)
{
    path_of(out, "%s/d%02u/%s%06u", root, idx % DIRS, prefix, idx);
}

static void make_tree_dirs(const char *root)
{
    char path[PATH_ROOM];
    make_dir(root);
    for (unsigned i = 0; i < DIRS; i++) {
        path_of(path, "%s/d%02u", root, i);
        make_dir(path);
    }
}

static void remove_tree_dirs(const char *root)
{
    char path[PATH_ROOM];
    for (unsigned i = 0; i < DIRS; i++) {
        path_of(path, "%s/d%02u", root, i);
        if (rmdir(path) != 0)
            bench_die("rmdir %s", path);
    }
    if (rmdir(root) != 0)
        bench_die("rmdir %s", root);
}

static void create_one(const struct run *run, const char *path, bool with_data)
{
    int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
    if (with_data)
        write_whole(fd, run->data, sizeof run->data, 0);
    if (close(fd) != 0)
        bench_die("close %s", path);
}

static void stat_one(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        bench_die("stat %s", path);
}

static void list_one(const char *path)
{
    struct dirent *e;
    struct stat st;
    DIR *d = opendir(path);
    if (d == NULL)
        bench_die("opendir %s", path);
    while ((e = readdir(d)) != NULL)
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            bench_die("stat %s in %s", e->d_name, path);
    (void)closedir(d); /* only read */
}

static void stat_all_in(const struct run *run, const char *path, unsigned dir)
{
    struct stat st;
    char name[32];
    int fd = open_or_die(path, O_RDONLY | O_DIRECTORY);
    for (unsigned i = dir; i < run->files; i += DIRS) {
        (void)snprintf(name, sizeof name, "f%06u", i);
        if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            bench_die("stat %s in %s", name, path);
    }
    (void)close(fd); /* only read */
}

/* A thread has every threads-th directory, and all the files in it. */
static void job_run(void *ctx, unsigned thread)
{
    const struct job *j = ctx;
    char path[PATH_ROOM], other[PATH_ROOM];
    bool by_dir = j->phase == LIST || j->phase == STAT_AT;
    for (unsigned d = thread; d < DIRS && by_dir; d += j->threads) {
        path_of(path, "%s/d%02u", j->root, d);
        if (j->phase == LIST)
            list_one(path);
        else
            stat_all_in(j->run, path, d);
    }
    for (unsigned i = 0; i < j->run->files && !by_dir; i++) {
        if (i % DIRS % j->threads != thread)
            continue;
        file_path(path, j->root, i, j->phase == UNLINK ? "r" : "f");
        if (j->phase == CREATE || j->phase == WRITE) {
            file_path(path, j->root, i, j->phase == WRITE ? "w" : "f");
            create_one(j->run, path, j->phase == WRITE);
        } else if (j->phase == STAT) {
            stat_one(path);
        } else if (j->phase == RENAME) {
            file_path(other, j->root, i, "r");
            if (rename(path, other) != 0)
                bench_die("rename %s", path);
        } else if (unlink(path) != 0) {
            bench_die("unlink %s", path);
        }
    }
}

static double
phase_rate(const struct run *run, const char *root, enum phase phase, unsigned threads)
{
    struct job j = {.run = run, .root = root, .phase = phase, .threads = threads};
    return (double)run->files / in_parallel(threads, job_run, &j);
}

/* The files of WRITE go before anything is listed, so that each phase meets the same tree. */
static void remove_written(const struct run *run, const char *root)
{
    char path[PATH_ROOM];
    for (unsigned i = 0; i < run->files; i++) {
        file_path(path, root, i, "w");
        if (unlink(path) != 0)
            bench_die("unlink %s", path);
    }
}

static void
repetition(const struct run *run, const char *dir, unsigned threads, struct samples rates[PHASES])
{
    char root[PATH_ROOM];
    path_of(root, "%s/meta", dir);
    make_tree_dirs(root);
    for (enum phase p = 0; p < PHASES; p++) {
        double rate = phase_rate(run, root, p, threads);
        if (rates != NULL)
            samples_add(&rates[p], rate);
        if (p == WRITE)
            remove_written(run, root);
    }
    remove_tree_dirs(root);
}

static bool wanted(const struct run *run, const char *name)
{
    return run->only == NULL || strncmp(name, run->only, strlen(run->only)) == 0;
}

static void bench_phases(const struct run *run, unsigned threads)
{
    static struct samples rates[SIDES][PHASES];
    struct run warm = *run;
    char name[64];
    memset(rates, 0, sizeof rates);
    warm.files = MIN(run->files, 2 * DIRS);
    for (unsigned side = 0; side < SIDES; side++)
        if (run->dir[side] != NULL)
            repetition(&warm, run->dir[side], threads, NULL);
    for (unsigned r = 0; r < run->repetitions; r++)
        for (unsigned side = 0; side < SIDES; side++)
            if (run->dir[side] != NULL)
                repetition(run, run->dir[side], threads, rates[side]);
    for (unsigned p = 0; p < PHASES; p++) {
        (void)snprintf(name, sizeof name, "meta_%s_%ut", phase_names[p], threads);
        figure_print(name, "1/s", MORE_IS_BETTER, &rates[OURS][p], &rates[MEMORY][p]);
        (void)snprintf(name, sizeof name, "meta_%s_%ut_beside_local", phase_names[p], threads);
        figure_print(name, "1/s", MORE_IS_BETTER, &rates[OURS][p], &rates[LOCAL][p]);
    }
}

/* Nothing is in the caches of the kernel and the mount: every name is a request. The limit is the
 * file system in memory with a kernel that believes no name. */
static void bench_cold(const struct run *run)
{
    static const unsigned threads[] = {1, 4};
    struct samples rates[2][ARRAY_COUNT(threads)] = {{{.count = 0}}}, lists[2] = {{.count = 0}};
    char root[2][PATH_ROOM], name[64];
    if (run->remount == NULL || run->cold_dir == NULL)
        return;
    path_of(root[0], "%s/cold", run->dir[OURS]);
    path_of(root[1], "%s/cold", run->cold_dir);
    for (unsigned i = 0; i < 2; i++) {
        make_tree_dirs(root[i]);
        (void)phase_rate(run, root[i], CREATE, 1);
    }
    for (unsigned r = 0; r < run->repetitions; r++) {
        for (unsigned t = 0; t < ARRAY_COUNT(threads); t++) {
            run_command(run->remount);
            for (unsigned i = 0; i < 2; i++)
                samples_add(&rates[i][t], phase_rate(run, root[i], STAT_AT, threads[t]));
        }
        run_command(run->remount);
        for (unsigned i = 0; i < 2; i++)
            samples_add(&lists[i], phase_rate(run, root[i], LIST, 1));
    }
    for (unsigned t = 0; t < ARRAY_COUNT(threads); t++) {
        (void)snprintf(name, sizeof name, "meta_stat_cold_%ut", threads[t]);
        figure_print(name, "1/s", MORE_IS_BETTER, &rates[0][t], &rates[1][t]);
    }
    figure_print("meta_readdirplus_cold_1t", "1/s", MORE_IS_BETTER, &lists[0], &lists[1]);
    for (unsigned i = 0; i < 2; i++) {
        (void)phase_rate(run, root[i], RENAME, 1);
        (void)phase_rate(run, root[i], UNLINK, 1);
        remove_tree_dirs(root[i]);
    }
}

/* --- unpacking --- */

/* Half of the files below 4 KiB, a few large ones, about 10 KiB on average, as source code has. */
static size_t file_size(struct rng *rng)
{
    uint64_t halvings = rng_below(rng, 9);
    return (size_t)rng_below(rng, FILE_BYTES_MAX >> halvings) + 1;
}

/* A piece of the tree: `count` files under the directory piece-N, in piece-N.tar beside it. */
static void make_archive(const struct run *run, unsigned piece, unsigned count)
{
    uint8_t *data = mem_alloc(2 * FILE_BYTES_MAX);
    struct rng rng;
    char root[PATH_ROOM], path[PATH_ROOM];
    path_of(root, "%s/piece-%u", run->dir[LOCAL], piece);
    make_dir(root);
    rng_seed(&rng, 1 + piece);
    fill_text(data, 2 * FILE_BYTES_MAX, 1);
    for (unsigned i = 0; i < count; i++) {
        unsigned dir = i / FILES_PER_DIR;
        path_of(path, "%s/part%02u", root, dir % 40);
        if (dir < 40)
            make_dir(path);
        path_of(path, "%s/part%02u/module%04u", root, dir % 40, dir);
        if (i % FILES_PER_DIR == 0)
            make_dir(path);
        path_of(path, "%s/part%02u/module%04u/source-%u.c", root, dir % 40, dir, i);
        int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
        uint8_t *from = data + rng_below(&rng, FILE_BYTES_MAX);
        data_tag(from, FILE_BYTES_MAX, (uint64_t)piece * count + i);
        write_whole(fd, from, file_size(&rng), 0);
        (void)close(fd); /* tar reads it again */
    }
    char *command = mem_printf("tar -C '%s' -cf '%s.tar' piece-%u && rm -r '%s'", run->dir[LOCAL],
                               root, piece, root);
    run_command(command);
    mem_free(command);
    mem_free(data);
}

static double timed(char *command /* taken */)
{
    uint64_t start_ns = bench_ns();
    run_command(command);
    mem_free(command);
    return seconds_since(start_ns);
}

/* The tree is unpacked piece by piece, each at all sides in turn, until it is whole; and removed
 * the same way. */
static void bench_unpack(const struct run *run)
{
    struct samples seconds[SIDES] = {{.count = 0}}, removal[SIDES] = {{.count = 0}};
    if (run->archive_files == 0 || run->dir[LOCAL] == NULL)
        return;
    for (unsigned piece = 0; piece < run->repetitions; piece++)
        make_archive(run, piece, run->archive_files / run->repetitions);
    for (unsigned piece = 0; piece < run->repetitions; piece++)
        for (unsigned side = 0; side < SIDES; side++)
            if (run->dir[side] != NULL)
                samples_add(&seconds[side],
                            timed(mem_printf("tar -C '%s' -xf '%s/piece-%u.tar'", run->dir[side],
                                             run->dir[LOCAL], piece)));
    for (unsigned piece = 0; piece < run->repetitions; piece++)
        for (unsigned side = 0; side < SIDES; side++)
            if (run->dir[side] != NULL)
                samples_add(&removal[side],
                            timed(mem_printf("rm -r '%s/piece-%u'", run->dir[side], piece)));
    figure_print("meta_unpack", "s", LESS_IS_BETTER, &seconds[OURS], &seconds[LOCAL]);
    figure_print("meta_unpack_beside_memory", "s", LESS_IS_BETTER, &seconds[OURS],
                 &seconds[MEMORY]);
    figure_print("meta_rm_r", "s", LESS_IS_BETTER, &removal[OURS], &removal[LOCAL]);
    figure_print("meta_rm_r_beside_memory", "s", LESS_IS_BETTER, &removal[OURS], &removal[MEMORY]);
    run_command("sync"); /* what is still to be written is not another figure's */
}

int main(int argc, char **argv)
{
    static struct run run = {.files = 5000, .repetitions = 10, .archive_files = 20000};
    for (int c; (c = getopt(argc, argv, "m:l:z:R:n:r:u:o:")) != -1;) {
        switch (c) {
        case 'm':
            run.dir[MEMORY] = optarg;
            break;
        case 'l':
            run.dir[LOCAL] = optarg;
            break;
        case 'z':
            run.cold_dir = optarg;
            break;
        case 'R':
            run.remount = optarg;
            break;
        case 'n':
            run.files = (unsigned)number_of(optarg);
            break;
        case 'r':
            run.repetitions = (unsigned)number_of(optarg);
            break;
        case 'u':
            run.archive_files = (unsigned)number_of(optarg);
            break;
        case 'o':
            run.only = optarg;
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc || run.repetitions == 0 || run.repetitions > SAMPLES_MAX ||
        run.files < DIRS) {
        (void)fprintf(stderr, "usage: see the head of bench/meta.c\n");
        return 2;
    }
    run.dir[OURS] = argv[optind];
    fill_text(run.data, sizeof run.data, 1);
    if (wanted(&run, "1t"))
        bench_phases(&run, 1);
    if (wanted(&run, "4t"))
        bench_phases(&run, 4);
    if (wanted(&run, "cold"))
        bench_cold(&run);
    if (wanted(&run, "unpack"))
        bench_unpack(&run);
    return 0;
}
