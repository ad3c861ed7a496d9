/* Seeds in processes of their own; options in common. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "sim/soak_int.h"
#include "sim/spread.h"
#include "sim/trio.h"

#define SEED_SECONDS_MAX 120u /* of real time: a run that hangs is a result, too */

void soak_world(const struct soak_options *o,
                uint64_t seed,
                const struct soak_edit *e,
                bool trace,
                struct soak_result *ret)
{
    static struct world_config c;
    if (o->targets) {
        spread_run(o, seed, e, trace, ret);
    } else if (o->nodes > 1) {
        trio_run(o, seed, e, trace, ret);
    } else {
        soak_describe(o, seed, e, &c);
        soak_run(&c, trace, ret);
    }
}

/* Descriptors and calls here are real ones: none of them is simulated. */
void soak_start(struct soak_job *j,
                const struct soak_options *o,
                uint64_t seed,
                const struct soak_edit *e)
{
    int ends[2];
    int rc = pipe(ends);
    ASSERT(rc == 0);
    (void)fflush(stdout);
    j->seed = seed;
    j->pid = fork();
    ASSERT(j->pid >= 0);
    if (j->pid == 0) {
        struct soak_result r;
        (void)alarm(SEED_SECONDS_MAX);
        for (int i = 0; i < LOG_AREA_COUNT; i++)
            log_levels[i] = -1; /* nothing at all; no thread but this one */
        plant_set(o->plant);
        soak_world(o, seed, e, false, &r);
        _exit(write(ends[1], &r, sizeof r) == (ssize_t)sizeof r ? 0 : 3);
    }
    (void)close(ends[1]);
    j->fd = ends[0];
}

void soak_finish(struct soak_job *j, struct soak_result *ret)
{
    int status = 0;
    ssize_t got = read(j->fd, ret, sizeof *ret);
    (void)close(j->fd);
    while (waitpid(j->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (got == (ssize_t)sizeof *ret)
        return;
    memset(ret, 0, sizeof *ret);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        (void)snprintf(ret->failure, sizeof ret->failure, "hangs: no end after %u s of real time",
                       SEED_SECONDS_MAX); /* fits */
    else
        (void)snprintf(ret->failure, sizeof ret->failure, "crash: the process ended with %d",
                       status); /* fits */
}

/* --- options --- */

bool soak_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0' || v > max)
        return false;
    *ret = v;
    return true;
}

/* "3,0,17" into at[]; the count, 0 when it is wrong. */
static unsigned numbers(const char *text, uint64_t *at, unsigned max)
{
    unsigned count = 0;
    while (count < max) {
        char *end;
        errno = 0;
        at[count++] = strtoull(text, &end, 10);
        if (errno != 0 || end == text || (*end != '\0' && *end != ','))
            return 0;
        if (*end == '\0')
            return count;
        text = end + 1;
    }
    return 0;
}

static bool without_option(const char *value, struct soak_edit *e)
{
    uint64_t at[WORLD_EVENTS_MAX];
    unsigned count = numbers(value, at, WORLD_EVENTS_MAX);
    for (unsigned i = 0; i < count; i++)
        if (at[i] < WORLD_EVENTS_MAX)
            e->without[at[i]] = true;
    return count > 0;
}

#ifdef CLAUDEFS_PLANT
#define PLANT_TEXT "the number of a planted bug, see base/plant.h"
#else
#define PLANT_TEXT "nothing: only a build with -DCLAUDEFS_PLANT=ON has planted bugs"
#endif

static bool plant_option(const char *value, struct soak_options *o)
{
    uint64_t v;
#ifndef CLAUDEFS_PLANT
    return false; /* it would search for what is not there, and say that all is well */
#endif
    if (!soak_number(value, PLANT_TARGETS_LAST, &v) ||
        (v > PLANT_COUNT && v < PLANT_REPLICA_FIRST) ||
        (v > PLANT_NODES_LAST && v < PLANT_TARGETS_FIRST))
        return false;
    o->plant = (unsigned)v;
    return true;
}

/* NULL: it is not one of these; "": it was understood; else what was expected. */
static const char *
value_option(const char *name, const char *value, struct soak_options *o, struct soak_edit *e)
{
    uint64_t v = 0;
    if (strcmp(name, "--sites") == 0) {
        o->sites_said = soak_number(value, 6, &v) && v >= 2;
        o->sites = (unsigned)v;
        return o->sites_said ? "" : "a number from 2 to 6";
    }
    if (strcmp(name, "--nodes") == 0) {
        bool good = soak_number(value, 3, &v) && (v == 1 || v == 3);
        o->nodes = (unsigned)v;
        return good ? "" : "1 or 3";
    }
    if (strcmp(name, "--operations") == 0)
        return soak_number(value, 100000000, &o->operations) ? "" : "a number up to 100000000";
    if (strcmp(name, "--plant") == 0)
        return plant_option(value, o) ? "" : PLANT_TEXT;
    if (strcmp(name, "--faults") == 0)
        return soak_faults_parse(value, &o->more) ? "" : SOAK_FAULTS_TEXT;
    if (strcmp(name, "--only") == 0)
        return numbers(value, e->operations, WORLD_SITES_MAX) > 0
                   ? ""
                   : "numbers of operations, as in 10,0,25";
    if (strcmp(name, "--without") == 0)
        return without_option(value, e) ? "" : "numbers of events, as in 0,3";
    return NULL;
}

bool soak_option(int argc, char **argv, int *at, struct soak_options *o, struct soak_edit *e)
{
    const char *name = argv[*at];
    if (strcmp(name, "--no-faults") == 0) {
        o->faults = false;
    } else if (strcmp(name, "--targets") == 0) {
        o->targets = true;
    } else if (strcmp(name, "--busy") == 0) {
        o->busy = true;
    } else if (strcmp(name, "--no-split") == 0) {
        o->no_split = true;
    } else if (strcmp(name, "--no-loss") == 0) {
        e->no_loss = true;
    } else if (strcmp(name, "--no-core") == 0) {
        e->no_core = true;
    } else {
        const char *value = *at + 1 < argc ? argv[*at + 1] : "";
        const char *expected = value_option(name, value, o, e);
        if (expected == NULL)
            fprintf(stderr, "claudefs-sim: there is no option \"%s\"\n", name);
        else if (expected[0] != '\0')
            fprintf(stderr, "claudefs-sim: %s \"%s\": expected %s\n", name, value, expected);
        if (expected == NULL || expected[0] != '\0')
            return false;
        (*at)++;
    }
    (*at)++;
    return true;
}

void soak_size(const struct soak_options *o,
               uint64_t seed,
               const struct soak_edit *e,
               const struct soak_result *r,
               struct soak_size *ret)
{
    static struct world_config c;
    memset(ret, 0, sizeof *ret);
    if (soak_is_special(o)) {
        *ret = (struct soak_size){.sites = 1, .operations = {r->calls}, .events = r->faults};
        if (r->events == 0) /* it crashed, and did not tell */
            *ret = (struct soak_size){
                .sites = 1, .operations = {o->operations}, .events = WORLD_EVENTS_MAX};
        return;
    }
    soak_describe(o, seed, e, &c);
    ret->sites = c.site_count;
    ret->events = c.event_count;
    for (unsigned i = 0; i < c.site_count; i++)
        ret->operations[i] = c.sites[i].work.operations;
}

void soak_print(const struct soak_options *o,
                const struct soak_edit *e,
                const struct soak_size *size)
{
    if (o->sites != 3 || (o->nodes > 1 && o->sites_said))
        printf(" --sites %u", o->sites);
    if (o->nodes > 1)
        printf(" --nodes %u", o->nodes);
    if (o->targets)
        printf(" --targets");
    printf(" --operations %llu%s%s%s", (unsigned long long)o->operations,
           o->faults ? "" : " --no-faults", o->busy ? " --busy" : "",
           e->no_loss ? " --no-loss" : "");
    if (e->no_core)
        printf(" --no-core");
    if (o->no_split)
        printf(" --no-split");
    soak_faults_print(o->more);
    if (o->plant != 0)
        printf(" --plant %u", o->plant);
    bool cut = false;
    for (unsigned i = 0; i < size->sites; i++)
        cut |= e->operations[i] != UINT64_MAX;
    for (unsigned i = 0; i < size->sites && cut; i++)
        printf("%s%llu", i == 0 ? " --only " : ",",
               (unsigned long long)MIN(e->operations[i], o->operations));
    const char *before = " --without ";
    for (uint32_t i = 0; i < size->events; i++)
        if (e->without[i]) {
            printf("%s%u", before, i);
            before = ",";
        }
    printf("\n");
}
