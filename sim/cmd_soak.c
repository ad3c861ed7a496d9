/* claudefs-sim soak: many seeds, several at a time, until one fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
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
    uint64_t done, calls, failed, began_ns, told_ns;
};

static int usage(void)
{
    fprintf(stderr,
            "usage: claudefs-sim soak [--seeds N] [--seconds N] [--first N] [--jobs N]\n"
            "           [--sites N] [--nodes N] [--operations N] [--no-faults] [--faults LIST]\n"
            "           [--busy] [--no-split] [--plant N] [--keep-going] [--no-shrink]\n");
    return 2;
}

static bool own_option(struct soak *s, int argc, char **argv, int *at)
{
    char *end;
    const char *name = argv[*at];
    if (strcmp(name, "--keep-going") == 0 || strcmp(name, "--no-shrink") == 0) {
        *(name[2] == 'k' ? &s->keep_going : &s->no_shrink) = true;
        (*at)++;
        return true;
    }
    if (*at + 1 == argc)
        return false;
    unsigned long long v = strtoull(argv[*at + 1], &end, 10);
    if (*end != '\0' || argv[*at + 1][0] == '-')
        return false;
    if (strcmp(name, "--seeds") == 0)
        s->count = v;
    else if (strcmp(name, "--seconds") == 0)
        s->seconds = v;
    else if (strcmp(name, "--first") == 0)
        s->first = v;
    else if (strcmp(name, "--jobs") == 0 && v >= 1 && v <= JOBS_MAX)
        s->jobs = (unsigned)v;
    else
        return false;
    *at += 2;
    return true;
}

static void failure_tell(struct soak *s, uint64_t seed, struct soak_result *r)
{
    static struct world_config c;
    struct soak_edit e = s->edit;
    soak_describe(&s->options, seed, &e, &c);
    uint32_t events = c.event_count;
    printf("seed %llu: %s\n  again: claudefs-sim replay %llu", (unsigned long long)seed, r->failure,
           (unsigned long long)seed);
    soak_print(&s->options, &e, c.site_count, events);
    s->failed++;
    if (s->no_shrink || s->keep_going || s->options.nodes > 1)
        return;
    soak_shrink(&s->options, seed, &e, r);
    printf("  shortest found: %s\n  again: claudefs-sim replay %llu", r->failure,
           (unsigned long long)seed);
    soak_print(&s->options, &e, c.site_count, events);
}

static void progress(struct soak *s, bool last)
{
    uint64_t now = clock_mono_ns(&clock_os);
    if (!last && now - s->told_ns < PROGRESS_NS)
        return;
    s->told_ns = now;
    double seconds = (double)(now - s->began_ns) / 1e9;
    printf("%llu of %llu seeds, %llu failed, %llu calls, %.1f s, %.0f calls/s\n",
           (unsigned long long)s->done, (unsigned long long)s->count, (unsigned long long)s->failed,
           (unsigned long long)s->calls, seconds, (double)s->calls / (seconds > 0 ? seconds : 1));
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
        if (!own_option(&s, argc, argv, &at) && !soak_option(argc, argv, &at, &s.options, &s.edit))
            return usage();
    run(&s);
    return s.failed > 0;
}
