/* Bytes through a mount: sequential and random, written through and read cold, beside the chunk
 * pipeline alone on the same processors, an in-memory FUSE file system and the local file system.
 * All are measured in turn. Every block written differs from all others, so nothing is found to be
 * stored already.
 *
 *     bench_data [options] DIR            DIR: a directory of the mount
 *       -m DIR   a directory of bench_memfs      -l DIR  a directory of the local file system
 *       -R CMD   makes DIR cold: mounts it again
 *       -M CMD   the directory of -m is one of another file system with a disk; CMD makes it cold
 *       -s MIB   size of a file (512)            -r N    repetitions (10)
 *       -t MS    time of a round of small reads or writes (1000)
 *       -o PART  only this: seq, sync or rand */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "bench/common.h"
#include "data/chunk.h"

#define IO_BYTES (1024u * 1024u)
#define SMALL_BYTES 4096u
#define SYNC_FILE_BYTES (16u * MIB)
#define CPUS_MAX 16u

enum side {
    OURS,
    MEMORY,
    LOCAL,
    SIDES
};
static const char *const beside[SIDES] = {"", "_beside_memory", "_beside_local"};

struct run {
    const char *dir[SIDES];     /* NULL: not measured */
    const char *remount[SIDES]; /* MEMORY: it has a disk, too */
    const char *only;
    uint64_t file_bytes;
    uint64_t round_ns;
    unsigned repetitions;
    uint64_t tag; /* of the next block that is written */
    struct rng rng;
    uint8_t *noise, *text, *buf; /* IO_BYTES each, aligned for O_DIRECT */
};

static void file_path(const struct run *run, enum side side, const char *name, char out[PATH_ROOM])
{
    path_of(out, "%s/data-%s", run->dir[side], name);
}

/* Nothing of the file is in the page cache, and nothing of it in the mount. */
static void make_cold(const struct run *run, enum side side, const char *path)
{
    if (run->remount[side] != NULL) {
        run_command(run->remount[side]);
        return;
    }
    int fd = open_or_die(path, O_RDONLY);
    int rc = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ASSERT(rc == 0);
    (void)close(fd); /* only read */
}

/* --- sequential --- */

static double write_rate(struct run *run, const char *path, const uint8_t *data)
{
    (void)unlink(path); /* of the repetition before, if any */
    uint64_t start_ns = bench_ns();
    int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
    for (uint64_t at = 0; at < run->file_bytes; at += IO_BYTES) {
        memcpy(run->buf, data, IO_BYTES);
        data_tag(run->buf, IO_BYTES, run->tag++);
        write_whole(fd, run->buf, IO_BYTES, (off_t)at);
    }
    if (fsync(fd) != 0 || close(fd) != 0)
        bench_die("fsync %s", path);
    return (double)run->file_bytes / seconds_since(start_ns);
}

static double read_rate(struct run *run, const char *path, int flags)
{
    uint64_t start_ns = bench_ns();
    int fd = open_or_die(path, O_RDONLY | flags);
    for (uint64_t at = 0; at < run->file_bytes; at += IO_BYTES)
        read_whole(fd, run->buf, IO_BYTES, (off_t)at);
    (void)close(fd); /* only read */
    return (double)run->file_bytes / seconds_since(start_ns);
}

struct pipeline_job {
    struct pipeline *pipelines[CPUS_MAX]; /* of each thread */
    const uint8_t *plain;
    unsigned chunks; /* for each thread */
    bool open;
    struct chunk_id id;
    struct buf sealed;
};

static void pipeline_run(void *ctx, unsigned thread)
{
    const struct pipeline_job *j = ctx;
    struct chunk_id id;
    struct buf out = {0};
    struct pipeline *p = j->pipelines[thread];
    for (unsigned i = 0; i < j->chunks; i++) {
        buf_clear(&out);
        int rc = j->open ? chunk_open(p, &j->id, buf_slice(&j->sealed), &out)
                         : chunk_seal(p, slice_of(j->plain, IO_BYTES), &out, &id);
        ASSERT(rc == 0);
    }
    buf_deinit(&out);
}

/* Bytes a second of plain text with a thread on every processor and nothing else to do. */
static void pipeline_rates(const struct run *run,
                           const uint8_t *data,
                           struct samples *seal,
                           struct samples *open)
{
    unsigned cpus = (unsigned)MIN(MAX(sysconf(_SC_NPROCESSORS_ONLN), 1), (long)CPUS_MAX);
    struct pipeline_job j = {.plain = data};
    struct fs_keys keys;
    fs_keys_derive((const uint8_t[FS_KEY_BYTES]){1}, &keys);
    int rc = 0;
    for (unsigned i = 0; i < cpus && rc == 0; i++)
        rc = pipeline_new(&j.pipelines[i], &keys, CHUNK_CIPHER_AUTO);
    ASSERT(rc == 0);
    rc = chunk_seal(j.pipelines[0], slice_of(data, IO_BYTES), &j.sealed, &j.id);
    ASSERT(rc == 0);
    j.chunks = (unsigned)(run->file_bytes / IO_BYTES / cpus);
    double bytes = (double)j.chunks * cpus * IO_BYTES;
    samples_add(seal, bytes / in_parallel(cpus, pipeline_run, &j));
    j.open = true;
    samples_add(open, bytes / in_parallel(cpus, pipeline_run, &j));
    buf_deinit(&j.sealed);
    for (unsigned i = 0; i < cpus; i++)
        pipeline_free(j.pipelines[i]);
}

static void bench_sequential(struct run *run, const char *kind, const uint8_t *data)
{
    struct samples writes[SIDES] = {{.count = 0}}, reads[SIDES] = {{.count = 0}};
    struct samples seal = {.count = 0}, opening = {.count = 0};
    char path[PATH_ROOM], name[64];
    for (unsigned r = 0; r < run->repetitions; r++) {
        pipeline_rates(run, data, &seal, &opening);
        for (enum side side = 0; side < SIDES; side++) {
            if (run->dir[side] == NULL)
                continue;
            file_path(run, side, kind, path);
            samples_add(&writes[side], write_rate(run, path, data));
            make_cold(run, side, path);
            samples_add(&reads[side], read_rate(run, path, 0));
            if (unlink(path) != 0)
                bench_die("unlink %s", path);
        }
    }
    (void)snprintf(name, sizeof name, "data_write_%s", kind);
    figure_print(name, "B/s", MORE_IS_BETTER, &writes[OURS], &seal);
    (void)snprintf(name, sizeof name, "data_read_cold_%s", kind);
    figure_print(name, "B/s", MORE_IS_BETTER, &reads[OURS], &opening);
    for (enum side side = MEMORY; side < SIDES; side++) {
        if (run->dir[side] == NULL)
            continue;
        (void)snprintf(name, sizeof name, "data_write_%s%s", kind, beside[side]);
        figure_print(name, "B/s", MORE_IS_BETTER, &writes[OURS], &writes[side]);
        (void)snprintf(name, sizeof name, "data_read_cold_%s%s", kind, beside[side]);
        figure_print(name, "B/s", MORE_IS_BETTER, &reads[OURS], &reads[side]);
    }
}

/* --- small and durable --- */

static void write_small_synced(struct run *run, int fd, off_t offset)
{
    memcpy(run->buf, run->noise, SMALL_BYTES);
    data_tag(run->buf, SMALL_BYTES, run->tag++);
    write_whole(fd, run->buf, SMALL_BYTES, offset);
    if (fsync(fd) != 0)
        bench_die("fsync");
}

static double append_rate(struct run *run, const char *path)
{
    (void)unlink(path); /* of the repetition before, if any */
    int fd = open_or_die(path, O_CREAT | O_EXCL | O_WRONLY);
    uint64_t start_ns = bench_ns(), writes = 0;
    for (; bench_ns() - start_ns < run->round_ns; writes++)
        write_small_synced(run, fd, (off_t)(writes * SMALL_BYTES));
    double rate = (double)writes / seconds_since(start_ns);
    (void)close(fd); /* all is synced */
    return rate;
}

static double overwrite_rate(struct run *run, const char *path)
{
    int fd = open_or_die(path, O_WRONLY);
    uint64_t start_ns = bench_ns(), writes = 0;
    for (; bench_ns() - start_ns < run->round_ns; writes++)
        write_small_synced(
            run, fd, (off_t)(rng_below(&run->rng, SYNC_FILE_BYTES / SMALL_BYTES) * SMALL_BYTES));
    double rate = (double)writes / seconds_since(start_ns);
    (void)close(fd); /* all is synced */
    return rate;
}

static void make_file(struct run *run, const char *path, uint64_t bytes)
{
    uint64_t size = run->file_bytes;
    run->file_bytes = bytes;
    (void)write_rate(run, path, run->noise);
    run->file_bytes = size;
}

static void bench_synced(struct run *run)
{
    struct samples appends[SIDES] = {{.count = 0}}, overwrites[SIDES] = {{.count = 0}};
    char path[PATH_ROOM];
    for (unsigned r = 0; r < run->repetitions; r++) {
        for (enum side side = 0; side < SIDES; side++) {
            if (run->dir[side] == NULL || (side == MEMORY && run->remount[MEMORY] == NULL))
                continue; /* there is no disk under that one */
            file_path(run, side, "log", path);
            samples_add(&appends[side], append_rate(run, path));
            file_path(run, side, "database", path);
            if (r == 0)
                make_file(run, path, SYNC_FILE_BYTES);
            samples_add(&overwrites[side], overwrite_rate(run, path));
        }
    }
    figure_print("data_append_4k_fsync", "1/s", MORE_IS_BETTER, &appends[OURS], &appends[LOCAL]);
    figure_print("data_overwrite_4k_fsync", "1/s", MORE_IS_BETTER, &overwrites[OURS],
                 &overwrites[LOCAL]);
    if (run->remount[MEMORY] == NULL)
        return;
    figure_print("data_append_4k_fsync_beside_memory", "1/s", MORE_IS_BETTER, &appends[OURS],
                 &appends[MEMORY]);
    figure_print("data_overwrite_4k_fsync_beside_memory", "1/s", MORE_IS_BETTER, &overwrites[OURS],
                 &overwrites[MEMORY]);
}

/* --- small random reads --- */

static double random_read_rate(struct run *run, const char *path, int flags)
{
    int fd = open_or_die(path, O_RDONLY | flags);
    int rc = posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    ASSERT(rc == 0);
    uint64_t start_ns = bench_ns(), reads = 0;
    for (; bench_ns() - start_ns < run->round_ns; reads++)
        read_whole(fd, run->buf, SMALL_BYTES,
                   (off_t)(rng_below(&run->rng, run->file_bytes / SMALL_BYTES) * SMALL_BYTES));
    double rate = (double)reads / seconds_since(start_ns);
    (void)close(fd); /* only read */
    return rate;
}

enum reading {
    COLD,   /* from the disk */
    CACHED, /* the kernel has it */
    DIRECT, /* past the kernel's cache: the mount has it */
    READINGS
};
static const char *const reading_names[READINGS] = {"cold", "cached", "direct"};
static const enum side reading_limits[READINGS] = {LOCAL, MEMORY, MEMORY};

/* Cold reads of the local file system are O_DIRECT ones: its cache would fill on the way. */
static void
random_reads(struct run *run, enum side side, const char *path, struct samples rates[READINGS])
{
    make_cold(run, side, path);
    samples_add(&rates[COLD], random_read_rate(run, path, side == LOCAL ? O_DIRECT : 0));
    (void)read_rate(run, path, 0);
    samples_add(&rates[CACHED], random_read_rate(run, path, 0));
    /* What goes to the kernel's cache the mount does not keep as well. */
    (void)read_rate(run, path, O_DIRECT);
    samples_add(&rates[DIRECT], random_read_rate(run, path, O_DIRECT));
}

static void bench_random(struct run *run)
{
    static struct samples rates[SIDES][READINGS];
    char path[PATH_ROOM], name[64];
    for (unsigned r = 0; r < run->repetitions; r++) {
        for (enum side side = 0; side < SIDES; side++) {
            if (run->dir[side] == NULL)
                continue;
            file_path(run, side, "random", path);
            if (r == 0)
                make_file(run, path, run->file_bytes);
            random_reads(run, side, path, rates[side]);
        }
    }
    for (enum reading i = 0; i < READINGS; i++) {
        (void)snprintf(name, sizeof name, "data_random_read_4k_%s", reading_names[i]);
        figure_print(name, "1/s", MORE_IS_BETTER, &rates[OURS][i], &rates[reading_limits[i]][i]);
        if (run->remount[MEMORY] == NULL)
            continue;
        (void)snprintf(name, sizeof name, "data_random_read_4k_%s_beside_memory", reading_names[i]);
        figure_print(name, "1/s", MORE_IS_BETTER, &rates[OURS][i], &rates[MEMORY][i]);
    }
}

static bool wanted(const struct run *run, const char *part)
{
    return run->only == NULL || strcmp(run->only, part) == 0;
}

static void remove_files(const struct run *run)
{
    static const char *const names[] = {"log", "database", "random"};
    char path[PATH_ROOM];
    for (enum side side = 0; side < SIDES; side++) {
        for (size_t i = 0; i < ARRAY_COUNT(names) && run->dir[side] != NULL; i++) {
            file_path(run, side, names[i], path);
            (void)unlink(path); /* not all parts were run */
        }
    }
}

static bool parse(struct run *run, int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "m:l:R:M:s:r:t:o:")) != -1;) {
        switch (c) {
        case 'm':
            run->dir[MEMORY] = optarg;
            break;
        case 'l':
            run->dir[LOCAL] = optarg;
            break;
        case 'R':
            run->remount[OURS] = optarg;
            break;
        case 'M':
            run->remount[MEMORY] = optarg;
            break;
        case 's':
            run->file_bytes = number_of(optarg) * MIB;
            break;
        case 'r':
            run->repetitions = (unsigned)number_of(optarg);
            break;
        case 't':
            run->round_ns = number_of(optarg) * NS_PER_MS;
            break;
        case 'o':
            run->only = optarg;
            break;
        default:
            return false;
        }
    }
    if (optind + 1 != argc || run->file_bytes < CPUS_MAX * IO_BYTES || run->repetitions == 0 ||
        run->repetitions > SAMPLES_MAX)
        return false;
    run->dir[OURS] = argv[optind];
    return true;
}

int main(int argc, char **argv)
{
    struct run run = {
        .file_bytes = 512 * MIB, .round_ns = NS_PER_SEC, .repetitions = 10, .tag = random_u64()};
    if (!parse(&run, argc, argv)) {
        (void)fprintf(stderr, "usage: see the head of bench/data.c\n");
        return 2;
    }
    run.noise = mem_aligned(SMALL_BYTES, IO_BYTES);
    run.text = mem_aligned(SMALL_BYTES, IO_BYTES);
    run.buf = mem_aligned(SMALL_BYTES, IO_BYTES);
    rng_seed(&run.rng, 1);
    fill_noise(run.noise, IO_BYTES, 1);
    fill_text(run.text, IO_BYTES, 1);
    if (wanted(&run, "seq")) {
        bench_sequential(&run, "random", run.noise);
        bench_sequential(&run, "text", run.text);
    }
    if (wanted(&run, "sync"))
        bench_synced(&run);
    if (wanted(&run, "rand"))
        bench_random(&run);
    remove_files(&run);
    mem_free(run.noise);
    mem_free(run.text);
    mem_free(run.buf);
    return 0;
}
