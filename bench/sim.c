/* How fast the simulator is: file-system operations a second of one core in a world of three
 * one-node sites without faults, median over seeds, with the workload that collides most; and whole
 * seeds of the default soak, whatever is drawn, faults on.
 *
 *   bench_sim [SEEDS] [OPERATIONS]     10 seeds of 60000 operations
 *
 * Processor time of this process, which is one thread. The limits are the goals. */
#include <stdlib.h>

#include <time.h>

#include "base/log.h"
#include "bench/common.h"
#include "sim/soak.h"

#define GOAL_PER_S 50000.0
#define GOAL_SEEDS_PER_S (1000.0 / 1200.0) /* 1000 in ten minutes on two cores */
#define SOAK_SEEDS 10u

static double cpu_s(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0)
        bench_die("no processor time");
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Processor seconds of one seed. */
static double run(const struct soak_options *o, uint64_t seed, uint64_t *ret_calls)
{
    static struct world_config c;
    struct soak_edit e;
    struct soak_result r;
    soak_edit_init(&e);
    soak_describe(o, seed, &e, &c);
    double start = cpu_s();
    soak_run(&c, false, &r);
    if (r.failure[0] != '\0')
        bench_die("seed %llu: %s", (unsigned long long)seed, r.failure);
    *ret_calls = r.calls;
    return cpu_s() - start;
}

int main(int argc, char **argv)
{
    uint64_t seeds = argc > 1 ? number_of(argv[1]) : 10;
    struct soak_options o = {.sites = 3,
                             .busy = true,
                             .work = WORLD_WORK_COLLIDE,
                             .operations = argc > 2 ? number_of(argv[2]) : 60000};
    struct samples rate = {.count = 0}, goal = {.count = 0}, soak = {.count = 0};
    struct samples soak_goal = {.count = 0};
    uint64_t calls;
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* before any thread */
    for (uint64_t seed = 1; seed <= seeds && seed <= SAMPLES_MAX; seed++) {
        double s = run(&o, seed, &calls);
        samples_add(&rate, (double)calls / s);
        samples_add(&goal, GOAL_PER_S);
    }
    figure_print("sim_operations", "1/s", MORE_IS_BETTER, &rate, &goal);
    o.operations = 2000;
    o.faults = true;
    o.busy = false;
    o.work = WORLD_WORK_NONE; /* drawn */
    for (uint64_t seed = 1; seed <= SOAK_SEEDS; seed++) {
        samples_add(&soak, 1 / run(&o, seed, &calls));
        samples_add(&soak_goal, GOAL_SEEDS_PER_S);
    }
    figure_print("sim_soak_seeds", "1/s", MORE_IS_BETTER, &soak, &soak_goal);
    return 0;
}
