/* Stands in for libFuzzer where the compiler is gcc: runs the corpus, then deterministic inputs.
 *
 *     fuzz_x [-n runs] [-s seed] [-i only this input] [-m bytes at most] [file or folder]...
 *
 * Input i depends on the seed, i and the corpus alone, so a failure is replayed with -s and -i,
 * which it prints together with the bytes. Folders that do not exist are an empty corpus. */
#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "tests/fuzz/fuzz.h"

/* Present only in sanitizer builds. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static struct {
    uint64_t runs, seed, only;
    size_t bytes_max;
    bool only_set;
} options = {.runs = 20000, .seed = 1, .bytes_max = 4096};

static struct buf *corpus;
static size_t corpus_count;
static struct buf input; /* the one being run; read by the crash report */
static uint64_t input_idx;

static void report(void)
{
    (void)fprintf(stderr, "\nfailed at: -s %" PRIu64 " -i %" PRIu64 "\nbytes (%zu):", options.seed,
                  input_idx, input.len);
    for (size_t i = 0; i < input.len && i < 4096; i++)
        (void)fprintf(stderr, "%s%02x", i % 32 == 0 ? "\n" : "", input.ptr[i]);
    (void)fprintf(stderr, "\n");
}

static void on_signal(int sig)
{
    (void)signal(sig, SIG_DFL);
    report();
    (void)raise(sig);
}

static bool file_read(const char *path, struct buf *ret)
{
    uint8_t block[4096];
    size_t len;
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return false;
    while ((len = fread(block, 1, sizeof block, f)) > 0)
        buf_append(ret, block, len);
    (void)fclose(f);
    return true;
}

static void corpus_add(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return;
    if (S_ISREG(st.st_mode)) {
        corpus = mem_realloc(corpus, (corpus_count + 1) * sizeof *corpus);
        corpus[corpus_count] = (struct buf){0};
        if (file_read(path, &corpus[corpus_count]))
            corpus_count++;
        return;
    }
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.') {
            char *inner = mem_printf("%s/%s", path, names[i]->d_name);
            corpus_add(inner);
            mem_free(inner);
        }
        mem_free(names[i]);
    }
    if (count >= 0)
        mem_free(names);
}

static uint8_t byte_draw(struct rng *r)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0x81, 0xc4, 0xdd, 0xdf, 0xfe, 0xff};
    if (rng_below(r, 3) == 0)
        return edges[rng_below(r, sizeof edges)];
    return (uint8_t)rng_next(r);
}

/* Inserts a copy of some bytes of `from` at a random place. */
static void splice(struct rng *r, const struct buf *from)
{
    if (from->len == 0)
        return;
    size_t start = rng_below(r, from->len);
    size_t len = 1 + rng_below(r, MIN(from->len - start, (size_t)64));
    uint8_t copy[64];
    memcpy(copy, from->ptr + start, len);
    size_t at = rng_below(r, input.len + 1);
    buf_reserve(&input, len);
    memmove(input.ptr + at + len, input.ptr + at, input.len - at);
    memcpy(input.ptr + at, copy, len);
    input.len += len;
}

static void mutate(struct rng *r)
{
    size_t at = input.len == 0 ? 0 : rng_below(r, input.len);
    uint8_t byte = byte_draw(r);
    switch (rng_below(r, 8)) {
    case 0: /* cut off */
        input.len = at;
        break;
    case 1: /* flip a bit */
        if (input.len > 0)
            input.ptr[at] ^= (uint8_t)(1u << rng_below(r, 8));
        break;
    case 2:
    case 3: /* replace a byte */
        if (input.len > 0)
            input.ptr[at] = byte;
        break;
    case 4: /* remove some */
        if (input.len > 0) {
            size_t len = 1 + rng_below(r, MIN(input.len - at, (size_t)16));
            memmove(input.ptr + at, input.ptr + at + len, input.len - at - len);
            input.len -= len;
        }
        break;
    case 5: /* duplicate some */
        splice(r, &input);
        break;
    case 6: /* take some from another input */
        if (corpus_count > 0)
            splice(r, &corpus[rng_below(r, corpus_count)]);
        break;
    default:
        buf_append(&input, &byte, 1);
        break;
    }
    input.len = MIN(input.len, options.bytes_max);
}

static void input_make(uint64_t idx)
{
    struct rng r;
    rng_seed(&r, options.seed * 0x9e3779b97f4a7c15u + idx);
    buf_clear(&input);
    input_idx = idx;
    if (corpus_count > 0 && rng_below(&r, 8) != 0) {
        const struct buf *base = &corpus[rng_below(&r, corpus_count)];
        buf_append(&input, base->ptr, MIN(base->len, options.bytes_max));
    } else {
        for (uint64_t len = rng_below(&r, rng_below(&r, 2) == 0 ? 16 : 256); len > 0; len--) {
            uint8_t byte = byte_draw(&r);
            buf_append(&input, &byte, 1);
        }
    }
    for (uint64_t count = rng_below(&r, 8); count > 0; count--)
        mutate(&r);
}

/* From a block of exactly this size, so that the address sanitizer sees a read beyond it. */
static void input_run(void)
{
    uint8_t *exact = mem_dup(input.ptr, input.len);
    (void)LLVMFuzzerTestOneInput(exact, input.len);
    mem_free(exact);
}

int main(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "n:s:i:m:")) != -1) {
        uint64_t value = optarg == NULL ? 0 : strtoull(optarg, NULL, 0);
        if (option == 'n') {
            options.runs = value;
        } else if (option == 's') {
            options.seed = value;
        } else if (option == 'm') {
            options.bytes_max = value;
        } else if (option == 'i') {
            options.only = value;
            options.only_set = true;
        } else {
            return 2;
        }
    }
    for (int i = optind; i < argc; i++)
        corpus_add(argv[i]);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(report);
    (void)signal(SIGABRT, on_signal);
    (void)signal(SIGSEGV, on_signal);
    for (size_t i = 0; i < corpus_count && !options.only_set; i++) {
        buf_clear(&input);
        buf_append(&input, corpus[i].ptr, corpus[i].len);
        input_run();
    }
    uint64_t first = options.only_set ? options.only : 0;
    uint64_t end = options.only_set ? options.only + 1 : options.runs;
    for (uint64_t i = first; i < end; i++) {
        input_make(i);
        input_run();
    }
    (void)printf("seed %" PRIu64 ": %zu from the corpus, %" PRIu64 " made\n", options.seed,
                 corpus_count, end - first);
    for (size_t i = 0; i < corpus_count; i++)
        buf_deinit(&corpus[i]);
    mem_free(corpus);
    buf_deinit(&input);
    return 0;
}
