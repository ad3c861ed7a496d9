/* Group commit of the journal against what the disk can do: many short rounds, in turn with bare
 * O_DIRECT|O_DSYNC writes of the same size to a file that was written before.
 *
 *     bench_log [DIRECTORY [ROUNDS]]      the directory has to be on the disk in question */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "bench/common.h"
#include "journal/log.h"

#define RECORD_BYTES 256u
#define RECORD_DISK_BYTES (RECORD_BYTES + 32u)
#define BLOCK 4096u
#define ROUND_NS (40 * NS_PER_MS)

struct bench {
    struct loop *loop;
    struct log *log;
    int fd;           /* the bare file, BARE_BYTES of written blocks */
    uint8_t *data;    /* aligned, what is written bare */
    uint32_t batch;   /* records per commit */
    uint64_t commits; /* of the round */
    uint64_t end_ns;
};
#define BARE_BYTES (64u * MIB)

static void append_batch(struct bench *b)
{
    struct slice record = slice_of(b->data, RECORD_BYTES);
    uint64_t index;
    for (uint32_t i = 0; i < b->batch; i++) {
        int rc = log_append(b->log, &record, 1, &index);
        ASSERT(rc == 0);
    }
}

static void on_durable(void *ctx, uint64_t index)
{
    struct bench *b = ctx;
    if (index < log_last(b->log))
        return; /* the commit was several writes */
    b->commits++;
    log_trim(b->log, index);
    if (bench_ns() >= b->end_ns)
        loop_stop(b->loop);
    else
        append_batch(b);
}

static void on_failed(void *ctx, int rc, const struct err_detail *detail)
{
    (void)ctx;
    (void)fprintf(stderr, "bench_log: %s: %s\n", err_name(rc), detail->text);
    exit(1);
}

/* Commits per second, the next one begun when the one before is durable. */
static double round_log(struct bench *b)
{
    b->commits = 0;
    uint64_t start = bench_ns();
    b->end_ns = start + ROUND_NS;
    append_batch(b);
    loop_run(b->loop);
    return (double)b->commits * 1e9 / (double)(bench_ns() - start);
}

static double round_bare(struct bench *b, size_t bytes)
{
    uint64_t start = bench_ns(), writes = 0;
    off_t offset = 0;
    do {
        if (pwrite(b->fd, b->data, bytes, offset) != (ssize_t)bytes) {
            (void)fprintf(stderr, "bench_log: write: %s\n", strerror(errno));
            exit(1);
        }
        writes++;
        offset = (offset + 2 * (off_t)bytes) % (off_t)(BARE_BYTES - bytes) / BLOCK * BLOCK;
    } while (bench_ns() < start + ROUND_NS);
    return (double)writes * 1e9 / (double)(bench_ns() - start);
}

static void measure(struct bench *b, uint32_t batch, unsigned rounds)
{
    struct samples commits = {.count = 0}, bare = {.count = 0};
    struct samples records = {.count = 0}, bare_records = {.count = 0};
    size_t bytes = ((size_t)batch * RECORD_DISK_BYTES + BLOCK - 1) / BLOCK * BLOCK;
    char name[32];
    b->batch = batch;
    for (unsigned i = 0; i < rounds; i++) {
        samples_add(&commits, round_log(b));
        samples_add(&bare, round_bare(b, bytes));
        samples_add(&records, commits.v[i] * batch);
        samples_add(&bare_records, bare.v[i] * batch);
    }
    (void)snprintf(name, sizeof name, "log_commit_%u", batch); /* fits */
    figure_print(name, "commits/s", MORE_IS_BETTER, &commits, &bare);
    (void)snprintf(name, sizeof name, "log_records_%u", batch); /* fits */
    figure_print(name, "records/s", MORE_IS_BETTER, &records, &bare_records);
}

static void bare_open(struct bench *b, const char *dir)
{
    char *path = mem_printf("%s/bare", dir);
    b->data = mem_aligned(BLOCK, 2 * MIB);
    memset(b->data, 0x5a, 2 * MIB);
    b->fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_DSYNC, 0600);
    bool ok = b->fd >= 0;
    for (off_t at = 0; ok && at < (off_t)BARE_BYTES; at += (off_t)MIB)
        ok = pwrite(b->fd, b->data, MIB, at) == (ssize_t)MIB;
    if (!ok) {
        (void)fprintf(stderr, "bench_log: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    mem_free(path);
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    static const uint32_t batches[] = {1, 16, 256, 4096};
    char *dir = mem_printf("%s/bench-log-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    unsigned rounds = argc > 2 ? (unsigned)MIN(number_of(argv[2]), SAMPLES_MAX) : 15;
    struct bench b = {0};
    struct err_detail detail = {{0}};
    struct log_recovery info;
    if (mkdtemp(dir) == NULL) {
        (void)fprintf(stderr, "bench_log: %s: %s\n", dir, strerror(errno));
        return 1;
    }
    bare_open(&b, dir);
    struct log_config config = {
        .dir = dir, .ctx = &b, .on_durable = on_durable, .on_failed = on_failed};
    if (loop_new(&b.loop, 64, &clock_os, &detail) != 0) {
        (void)fprintf(stderr, "bench_log: %s\n", detail.text);
        return 1;
    }
    config.loop = b.loop;
    if (log_open(&b.log, &config, &info, &detail) != 0) {
        (void)fprintf(stderr, "bench_log: %s\n", detail.text);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_COUNT(batches); i++)
        measure(&b, batches[i], rounds);
    log_close(b.log);
    loop_free(b.loop);
    (void)close(b.fd);
    mem_free(b.data);
    (void)nftw(dir, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    mem_free(dir);
    return 0;
}
