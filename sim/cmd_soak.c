/* claudefs-sim soak: many seeds, several at a time, until one fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/util.h"
#include "sim/cmd.h"
#include "sim/soak.h"

#define JOBS_MAX 64u
#define PROGRESS_NS (10 * NS_PER_SEC)

struct soak {
    struct soak_options options;
    struct soak_edit edit;
    uint64_t first, count;
    uint64_t seconds; /* no new seed after so many of real time; 0: no bound */
    unsigned jobs;
    bool keep_going, no_shrink;
    uint64_t done, calls, failed, modelled, began_ns, told_ns;
};

static int usage(void)
{
    fprintf(stderr,
            "usage: claudefs-sim soak [--seeds N] [--seconds N] [--first N] [--jobs N]\n"
            "           [--sites N] [--nodes N] [--targets] [--operations N] [--no-faults]\n"
            "           [--faults LIST] [--busy] [--no-split] [--plant N] [--keep-going] "
            "[--no-shrink]\n");
    return 2;
}

/* False: it is not one of these. *ret_good: its value is right (else it was said on stderr). */
static bool own_value(struct soak *s, const char *name, const char *value, bool *ret_good)
{
    uint64_t jobs = s->jobs;
    const struct {
        const char *name;
        uint64_t *to, min, max;
    } values[] = {
        {"--seeds", &s->count, 1, UINT32_MAX},
        {"--seconds", &s->seconds, 1, UINT32_MAX},
        {"--first", &s->first, 0, UINT64_MAX - UINT32_MAX}, /* so that the last is a number, too */
        {"--jobs", &jobs, 1, JOBS_MAX},
    };
    for (size_t i = 0; i < ARRAY_COUNT(values); i++) {
        if (strcmp(name, values[i].name) != 0)
            continue;
        *ret_good =
            soak_number(value, values[i].max, values[i].to) && *values[i].to >= values[i].min;
        if (!*ret_good)
            fprintf(stderr, "claudefs-sim: %s \"%s\": expected a number from %llu to %llu\n", name,
                    value, (unsigned long long)values[i].min, (unsigned long long)values[i].max);
        s->jobs = (unsigned)jobs;
        return true;
    }
    return false;
}

static bool option(struct soak *s, int argc, char **argv, int *at)
{
    const char *name = argv[*at];
    bool good = true;
    if (strcmp(name, "--keep-going") == 0)
        s->keep_going = true;
    else if (strcmp(name, "--no-shrink") == 0)
        s->no_shrink = true;
    else if (own_value(s, name, *at + 1 < argc ? argv[*at + 1] : "", &good))
        (*at)++;
    else
        return soak_option(argc, argv, at, &s->options, &s->edit);
    (*at)++;
    return good;
}

static void failure_tell(struct soak *s, uint64_t seed, struct soak_result *r)
{
    struct soak_edit e = s->edit;
    struct soak_size size;
    soak_size(&s->options, seed, &e, r, &size);
    printf("seed %llu: %s\n  again: claudefs-sim replay %llu", (unsigned long long)seed, r->failure,
           (unsigned long long)seed);
    soak_print(&s->options, &e, &size);
    s->failed++;
    if (s->no_shrink || s->keep_going)
        return;
    soak_shrink(&s->options, seed, &e, r);
    printf("  shortest found: %s\n  again: claudefs-sim replay %llu", r->failure,
           (unsigned long long)seed);
    soak_print(&s->options, &e, &size);
}

static void progress(struct soak *s, bool last)
{
    uint64_t now = clock_mono_ns(&clock_os);
    if (!last && now - s->told_ns < PROGRESS_NS)
        return;
    s->told_ns = now;
    double seconds = (double)(now - s->began_ns) / 1e9;
    printf("%llu of %llu seeds, %llu failed, %llu calls, %.1f s, %.0f calls/s",
           (unsigned long long)s->done, (unsigned long long)s->count, (unsigned long long)s->failed,
           (unsigned long long)s->calls, seconds, (double)s->calls / (seconds > 0 ? seconds : 1));
    if (last && !soak_is_special(&s->options))
        printf(", the reference model said what must be there in %llu",
               (unsigned long long)s->modelled);
    printf("\n");
    (void)fflush(stdout);
}

static bool wants_more(const struct soak *s, uint64_t started)
{
    bool late = s->seconds > 0 && clock_mono_ns(&clock_os) - s->began_ns >= s->seconds * NS_PER_SEC;
    return started < s->count && !late && (s->failed == 0 || s->keep_going);
}

static void run(struct soak *s)
{
    struct soak_job jobs[JOBS_MAX];
    uint64_t started = 0;
    s->began_ns = s->told_ns = clock_mono_ns(&clock_os);
    while (s->done < started || wants_more(s, started)) {
        while (started - s->done < s->jobs && wants_more(s, started)) {
            soak_start(&jobs[started % s->jobs], &s->options, s->first + started, &s->edit);
            started++;
        }
        struct soak_result r;
        struct soak_job *j = &jobs[s->done % s->jobs]; /* in order, so that the first is told */
        soak_finish(j, &r);
        s->done++;
        s->calls += r.calls;
        s->modelled += r.looked.model;
        if (r.failure[0] != '\0' && (s->failed == 0 || s->keep_going))
            failure_tell(s, j->seed, &r);
        progress(s, false);
    }
    progress(s, true);
}

int cmd_soak(int argc, char **argv)
{
    struct soak s = {.options = {.sites = 3, .operations = 2000, .faults = true},
                     .first = 1,
                     .count = 1000,
                     .jobs = 1};
    soak_edit_init(&s.edit);
    for (int at = 1; at < argc;)
        if (!option(&s, argc, argv, &at))
            return usage();
    run(&s);
    return s.failed > 0;
}
