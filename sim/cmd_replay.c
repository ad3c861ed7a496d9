/* claudefs-sim replay SEED: one world again, with every event told if asked; and shrink SEED. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/plant.h"
#include "sim/cmd.h"
#include "sim/soak.h"

struct replay {
    struct soak_options options;
    struct soak_edit edit;
    uint64_t seed;
    bool trace;
};

static bool parse(struct replay *r, int argc, char **argv)
{
    *r = (struct replay){.options = {.sites = 3, .operations = 2000, .faults = true}};
    soak_edit_init(&r->edit);
    if (argc < 2) {
        fprintf(stderr, "claudefs-sim: which seed?\n");
        return false;
    }
    if (!soak_number(argv[1], UINT64_MAX, &r->seed)) {
        fprintf(stderr, "claudefs-sim: \"%s\" is no seed: expected a number\n", argv[1]);
        return false;
    }
    for (int at = 2; at < argc;) {
        if (strcmp(argv[at], "--trace") == 0) {
            r->trace = true;
            at++;
        } else if (!soak_option(argc, argv, &at, &r->options, &r->edit)) {
            return false;
        }
    }
    return true;
}

int cmd_replay(int argc, char **argv)
{
    struct replay r;
    struct soak_result result;
    if (!parse(&r, argc, argv)) {
        fprintf(stderr, "usage: claudefs-sim replay SEED [--trace] [options that soak told]\n");
        return 2;
    }
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = r.trace ? (int)LOG_DEBUG : (int)LOG_WARN; /* no thread but this one */
    plant_set(r.options.plant);
    soak_world(&r.options, r.seed, &r.edit, r.trace, &result);
    printf("seed %llu: %s\ntrace %016llx, %llu calls, %llu changes, %llu events, %.1f s of virtual "
           "time, converged %.2f s after the last fault%s\n",
           (unsigned long long)r.seed, result.failure[0] != '\0' ? result.failure : "good",
           (unsigned long long)result.hash, (unsigned long long)result.calls,
           (unsigned long long)result.changes, (unsigned long long)result.events,
           (double)result.virtual_ns / 1e9, (double)result.settle_ns / 1e9,
           result.looked.model ? ", as the reference model says" : "");
    return result.failure[0] != '\0';
}

int cmd_shrink(int argc, char **argv)
{
    struct soak_size size;
    struct replay r;
    struct soak_result result;
    struct soak_job j;
    if (!parse(&r, argc, argv)) {
        fprintf(stderr, "usage: claudefs-sim shrink SEED [options that soak told]\n");
        return 2;
    }
    soak_start(&j, &r.options, r.seed, &r.edit);
    soak_finish(&j, &result);
    if (result.failure[0] == '\0') {
        printf("seed %llu: good: nothing to shrink\n", (unsigned long long)r.seed);
        return 0;
    }
    soak_size(&r.options, r.seed, &r.edit, &result, &size);
    soak_shrink(&r.options, r.seed, &r.edit, &result);
    printf("seed %llu: %s\n  again: claudefs-sim replay %llu", (unsigned long long)r.seed,
           result.failure, (unsigned long long)r.seed);
    soak_print(&r.options, &r.edit, &size);
    return 1;
}
