#include "bench/common.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"

#define THREADS_MAX 64u
#define TAG_EVERY 4096u

/* --- samples and lines --- */

void samples_add(struct samples *s, double v)
{
    ASSERT(s->count < SAMPLES_MAX);
    s->v[s->count++] = v;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const struct samples *s)
{
    struct samples sorted = *s;
    qsort(sorted.v, s->count, sizeof sorted.v[0], by_size);
    return (sorted.v[(s->count - 1) / 2] + sorted.v[s->count / 2]) / 2;
}

static double best(const struct samples *s, enum better better)
{
    double found = s->v[0];
    for (unsigned i = 1; i < s->count; i++)
        found = (better == MORE_IS_BETTER) == (s->v[i] > found) ? s->v[i] : found;
    return found;
}

void figure_print(const char *name,
                  const char *unit,
                  enum better better,
                  const struct samples *value,
                  const struct samples *limit)
{
    if (value->count == 0)
        return;
    double v = median(value);
    printf("{\"name\":\"%s\",\"value\":%.5g,\"unit\":\"%s\",", name, v, unit);
    if (limit != NULL && limit->count != 0)
        printf("\"limit\":%.5g,\"ratio\":%.3f,\"best\":%.5g,\"limit_best\":%.5g", median(limit),
               v / median(limit), best(value, better), best(limit, better));
    else
        printf("\"limit\":null,\"ratio\":null,\"best\":%.5g,\"limit_best\":null",
               best(value, better));
    printf(",\"samples\":%u}\n", value->count);
    (void)fflush(stdout); /* a reader that is gone is its own affair */
}

static int by_age(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void latency_print(const char *name, uint64_t *ns, size_t count, double limit_ns)
{
    static const struct {
        const char *suffix;
        size_t percent;
    } marks[] = {{"p50", 50}, {"p99", 99}};
    if (count == 0)
        return;
    qsort(ns, count, sizeof ns[0], by_age);
    for (size_t i = 0; i < ARRAY_COUNT(marks); i++) {
        double v = (double)ns[MIN(count * marks[i].percent / 100, count - 1)];
        printf("{\"name\":\"%s_%s\",\"value\":%.4g,\"unit\":\"ms\",", name, marks[i].suffix,
               v / 1e6);
        if (limit_ns > 0)
            printf("\"limit\":%.4g,\"ratio\":%.3g", limit_ns / 1e6, v / limit_ns);
        else
            printf("\"limit\":null,\"ratio\":null");
        printf(",\"best\":%.4g,\"limit_best\":null,\"samples\":%zu}\n", (double)ns[0] / 1e6, count);
    }
    (void)fflush(stdout); /* as above */
}

/* --- time, failures, threads --- */

uint64_t bench_ns(void)
{
    return clock_mono_ns(&clock_os);
}

double seconds_since(uint64_t start_ns)
{
    return (double)(bench_ns() - start_ns) / (double)NS_PER_SEC;
}

void bench_die(const char *fmt, ...)
{
    int errnum = errno;
    va_list args;
    va_start(args, fmt);
    (void)fprintf(stderr, "bench: ");
    (void)vfprintf(stderr, fmt, args);
    (void)fprintf(stderr, ": %s\n", strerror(errnum));
    va_end(args);
    exit(1);
}

void run_command(const char *command)
{
    errno = 0;
    int rc = system(command);
    if (rc != 0)
        bench_die("'%s' ended with %d", command, rc);
}

uint64_t number_of(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno == 0 && (end == text || *end != '\0'))
        errno = EINVAL;
    if (errno != 0)
        bench_die("number '%s'", text);
    return n;
}

struct worker {
    pthread_t id;
    void (*run)(void *ctx, unsigned thread);
    void *ctx;
    unsigned thread;
    pthread_barrier_t *start;
    uint64_t start_ns, end_ns;
};

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    (void)pthread_barrier_wait(w->start); /* says who is last, which is all the same */
    w->start_ns = bench_ns();
    w->run(w->ctx, w->thread);
    w->end_ns = bench_ns();
    return NULL;
}

double in_parallel(unsigned threads, void (*run)(void *ctx, unsigned thread), void *ctx)
{
    struct worker workers[THREADS_MAX];
    pthread_barrier_t start;
    ASSERT(threads > 0 && threads <= THREADS_MAX);
    int rc = pthread_barrier_init(&start, NULL, threads);
    ASSERT(rc == 0);
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.run = run, .ctx = ctx, .thread = i, .start = &start};
        rc = pthread_create(&workers[i].id, NULL, worker_run, &workers[i]);
        ASSERT(rc == 0);
    }
    uint64_t start_ns = UINT64_MAX, end_ns = 0;
    for (unsigned i = 0; i < threads; i++) {
        rc = pthread_join(workers[i].id, NULL);
        ASSERT(rc == 0);
        start_ns = MIN(start_ns, workers[i].start_ns);
        end_ns = MAX(end_ns, workers[i].end_ns);
    }
    (void)pthread_barrier_destroy(&start); /* nobody waits */
    return (double)(end_ns - start_ns) / (double)NS_PER_SEC;
}

/* --- files --- */

void path_of(char out[PATH_ROOM], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(out, PATH_ROOM, fmt, args);
    va_end(args);
    errno = ENAMETOOLONG;
    if (n < 0 || (size_t)n >= PATH_ROOM)
        bench_die("path %s", out);
}

void write_whole(int fd, const void *data, size_t len, off_t offset)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = pwrite(fd, (const uint8_t *)data + at, len - at, offset + (off_t)at);
        if (n <= 0)
            bench_die("write of %zu bytes at %lld", len - at, (long long)offset + (long long)at);
        at += (size_t)n;
    }
}

void read_whole(int fd, void *data, size_t len, off_t offset)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = pread(fd, (uint8_t *)data + at, len - at, offset + (off_t)at);
        if (n <= 0)
            bench_die("read of %zu bytes at %lld", len - at, (long long)offset + (long long)at);
        at += (size_t)n;
    }
}

int open_or_die(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        bench_die("open %s", path);
    return fd;
}

void make_dir(const char *path)
{
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        bench_die("mkdir %s", path);
}

/* --- test data --- */

void fill_noise(uint8_t *out, size_t len, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t at = 0; at < len;) {
        uint64_t word = rng_next(&rng);
        size_t n = MIN(sizeof word, len - at);
        memcpy(out + at, &word, n);
        at += n;
    }
}

void fill_text(uint8_t *out, size_t len, uint64_t seed)
{
    static const char *const words[] = {
        "struct ",  "return ", "if (",   "uint64_t ", "len",     " = ",   ";\n    ", "chunk",
        "the ",     "store ",  "0",      "static ",   "int ",    "rc",    ")\n",     "{\n    ",
        "manifest", "->",      "buffer", "/* a ",     " */\n\n", "const", " *",      "offset"};
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t at = 0; at < len;) {
        const char *word = words[rng_below(&rng, ARRAY_COUNT(words))];
        size_t n = MIN(strlen(word), len - at);
        memcpy(out + at, word, n);
        at += n;
        if (rng_below(&rng, 6) == 0 && at < len)
            out[at++] = (uint8_t)('a' + rng_below(&rng, 26));
    }
}

void data_tag(uint8_t *data, size_t len, uint64_t tag)
{
    char text[17];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)tag);
    for (size_t at = 0; at + sizeof text <= len; at += TAG_EVERY)
        memcpy(data + at, text, sizeof text - 1);
}
