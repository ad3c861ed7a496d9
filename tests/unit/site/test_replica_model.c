/* site/replica.h under everything that may go wrong, on many seeds; and, in a build of its own,
 * each planted defect is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/plant.h"
#include "tests/unit/site/replica_world.h"

enum {
    SEEDS = 300,
    PLANT_SEEDS = 2000
};

#ifndef CLAUDEFS_PLANT
static void test_random_worlds_keep_every_promise(void **state)
{
    struct replica_world_result r, sum = {.failure = ""};
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        replica_world_run(seed, &r);
        if (r.failure[0] != '\0')
            fail_msg("seed %llu: %s", (unsigned long long)seed, r.failure);
        sum.committed += r.committed;
        sum.acknowledged += r.acknowledged;
        sum.takeovers += r.takeovers;
        sum.copies += r.copies;
        sum.removals += r.removals;
        sum.reads += r.reads;
    }
    /* Nothing is proven by worlds in which nothing happens. */
    assert_true(sum.acknowledged > 300 * SEEDS && sum.reads > 300 * SEEDS);
    assert_true(sum.takeovers > 5 * SEEDS && sum.removals > 5 * SEEDS && sum.copies > SEEDS / 4);
}

static void test_same_seed_gives_same_run(void **state)
{
    struct replica_world_result a, b;
    (void)state;
    replica_world_run(7, &a);
    replica_world_run(7, &b);
    assert_memory_equal(&a, &b, sizeof a);
}
#else
/* In a process of its own: a broken assertion is a find, too. The seed, 0: not found. */
static uint64_t seed_that_finds(unsigned plant)
{
    for (uint64_t seed = 1; seed <= PLANT_SEEDS; seed++) {
        int status = 0;
        (void)fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            struct replica_world_result r;
            (void)freopen("/dev/null", "w", stderr);
            plant_set(plant);
            replica_world_run(seed, &r);
            _exit(r.failure[0] != '\0');
        }
        assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
        if (status != 0)
            return seed;
    }
    return 0;
}

static void test_each_planted_defect_is_found(void **state)
{
    (void)state;
    for (unsigned plant = PLANT_REPLICA_FIRST; plant <= PLANT_REPLICA_LAST; plant++) {
        uint64_t seed = seed_that_finds(plant);
        print_message("planted bug %u: seed %llu\n", plant, (unsigned long long)seed);
        assert_int_not_equal(seed, 0);
    }
}
#endif

/* For looking: FIRST [COUNT] seeds. */
static int look(uint64_t first, uint64_t count)
{
    struct replica_world_result r;
    int failed = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        replica_world_run(seed, &r);
        if (count > 1 && r.failure[0] == '\0')
            continue;
        failed |= r.failure[0] != '\0';
        printf("seed %llu: %s: %llu committed, %llu acknowledged, %llu reads, %llu takeovers, "
               "%llu copies, %llu removals, %llu crashes\n",
               (unsigned long long)seed, r.failure[0] != '\0' ? r.failure : "good",
               (unsigned long long)r.committed, (unsigned long long)r.acknowledged,
               (unsigned long long)r.reads, (unsigned long long)r.takeovers,
               (unsigned long long)r.copies, (unsigned long long)r.removals,
               (unsigned long long)r.crashes);
    }
    return failed;
}

int main(int argc, char **argv)
{
    if (argc >= 2)
        return look(strtoull(argv[1], NULL, 10), argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
    const struct CMUnitTest tests[] = {
#ifndef CLAUDEFS_PLANT
        cmocka_unit_test(test_random_worlds_keep_every_promise),
        cmocka_unit_test(test_same_seed_gives_same_run),
#else
        cmocka_unit_test(test_each_planted_defect_is_found),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
