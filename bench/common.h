/* What the benchmarks share: samples, the lines they print, threads, test data.
 *
 * A figure is taken in many short repetitions, in turn with its limit, because neighbours on the
 * machine move both; "value" is the median, "best" the quietest repetition. A failure of the system
 * under test ends the program: a figure of half a run is no figure. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <sys/types.h>

#include "base/clock.h"

#define SAMPLES_MAX 64u

struct samples {
    double v[SAMPLES_MAX];
    unsigned count; /* 0: this was not measured */
};
void samples_add(struct samples *s, double v);

enum better {
    MORE_IS_BETTER,
    LESS_IS_BETTER
};

/* Prints {"name","value","unit","limit","ratio","best","limit_best","samples"}; the ratio is value
 * to limit, whichever is better. limit NULL or without samples: null in both. Nothing without
 * samples of the value. */
void figure_print(const char *name,
                  const char *unit,
                  enum better better,
                  const struct samples *value,
                  const struct samples *limit);
/* The same for a bag of durations in ns, as "NAME_p50" and "NAME_p99" in milliseconds; sorts it.
 * limit_ns 0: none. */
void latency_print(const char *name, uint64_t *ns, size_t count, double limit_ns);

uint64_t bench_ns(void); /* monotonic */
double seconds_since(uint64_t start_ns);

_Noreturn void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void run_command(const char *command); /* through the shell; dies when it fails */
uint64_t number_of(const char *text);  /* dies when it is none */

/* Runs run(ctx, 0 .. threads-1), each in a thread; the seconds from start to the end of the last.
 */
double in_parallel(unsigned threads, void (*run)(void *ctx, unsigned thread), void *ctx);

/* --- files; all die on failure --- */
#define PATH_ROOM 4096u
void path_of(char out[PATH_ROOM], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void write_whole(int fd, const void *data, size_t len, off_t offset);
void read_whole(int fd, void *data, size_t len, off_t offset);
int open_or_die(const char *path, int flags);
void make_dir(const char *path); /* it may exist */

/* --- test data --- */
void fill_noise(uint8_t *out, size_t len, uint64_t seed);
void fill_text(uint8_t *out, size_t len, uint64_t seed); /* compresses about as source code does */
/* Makes every 4 KiB of the data different from all that had another tag, so that nothing is found
 * to be stored already. */
void data_tag(uint8_t *data, size_t len, uint64_t tag);

#endif
