/* soak, shrink and replay as somebody uses them who has found something. The product's code is
 * right here, so the worlds are doctored: disks that lie about what they have synced (struct
 * world_disk), which no code can bear. What is found then takes a loss of power and calls, and
 * little else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/util.h"
#include "sim/cmd.h"
#include "sim/disk.h"
#include "sim/soak.h"

#define SEEDS_MAX 30u
#define ARGS_MAX 32
#define TEXT_BYTES 8192u

static const struct soak_options options = {.sites = 3, .operations = 200, .faults = true};
static bool doctored = true;
static uint64_t clock_step_ns; /* not 0: between two looks at the clock, whatever time it is */

int __real_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);

int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
    static uint64_t now_ns;
    if (clock_step_ns == 0)
        return __real_clock_gettime(id, ret);
    now_ns += clock_step_ns;
    *ret = (struct timespec){.tv_sec = (time_t)(now_ns / NS_PER_SEC),
                             .tv_nsec = (long)(now_ns % NS_PER_SEC)};
    return 0;
}

void __real_soak_describe(const struct soak_options *o,
                          uint64_t seed,
                          const struct soak_edit *e,
                          struct world_config *c);
void __wrap_soak_describe(const struct soak_options *o,
                          uint64_t seed,
                          const struct soak_edit *e,
                          struct world_config *c);

void __wrap_soak_describe(const struct soak_options *o,
                          uint64_t seed,
                          const struct soak_edit *e,
                          struct world_config *c)
{
    __real_soak_describe(o, seed, e, c);
    for (unsigned i = 0; i < c->site_count; i++)
        c->sites[i].disk.lie = doctored;
}

/* The worlds of sites of three nodes draw their disks themselves. */
struct disk *__real_disk_new(const char *root, const struct world_disk *config);
struct disk *__wrap_disk_new(const char *root, const struct world_disk *config);

struct disk *__wrap_disk_new(const char *root, const struct world_disk *config)
{
    struct world_disk c = *config;
    c.lie = doctored;
    return __real_disk_new(root, &c);
}

static void run(uint64_t seed, const struct soak_edit *e, struct soak_result *ret)
{
    struct soak_job j;
    soak_start(&j, &options, seed, e);
    soak_finish(&j, ret);
}

/* The first seed that finds it. */
static uint64_t search(struct soak_result *ret)
{
    struct soak_edit all;
    soak_edit_init(&all);
    for (uint64_t seed = 1; seed <= SEEDS_MAX; seed++) {
        run(seed, &all, ret);
        if (ret->failure[0] != '\0')
            return seed;
    }
    fail_msg("disks lie, and no seed shows it");
    return 0;
}

static uint64_t calls_of(const struct world_config *c)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < c->site_count; i++)
        sum += c->sites[i].work.kind == WORLD_WORK_NONE ? 0 : c->sites[i].work.operations;
    return sum;
}

static void test_what_shrink_finds_is_shorter_and_fails_alike(void **state)
{
    static struct world_config before, after;
    struct soak_result first, shortest, again, once_more;
    struct soak_edit e;
    (void)state;
    uint64_t seed = search(&first);
    soak_edit_init(&e);
    soak_describe(&options, seed, &e, &before);
    shortest = first;
    soak_shrink(&options, seed, &e, &shortest);
    soak_describe(&options, seed, &e, &after);
    assert_true(after.event_count < before.event_count);
    assert_true(calls_of(&after) < calls_of(&before));
    assert_true(shortest.calls < first.calls);
    size_t promise = strcspn(first.failure, ":");
    assert_true(first.failure[promise] == ':');
    assert_memory_equal(shortest.failure, first.failure, promise + 1);
    run(seed, &e, &again);
    run(seed, &e, &once_more);
    assert_string_equal(again.failure, shortest.failure);
    assert_string_equal(once_more.failure, shortest.failure);
    assert_true(again.hash == shortest.hash && once_more.hash == shortest.hash);
    assert_true(again.events == once_more.events && again.calls == once_more.calls);
}

/* What is still there is needed: without one more of the events another promise is broken, or none.
 */
static void test_what_shrink_leaves_is_needed(void **state)
{
    static struct world_config c;
    struct soak_result r;
    struct soak_edit e;
    (void)state;
    uint64_t seed = search(&r);
    soak_edit_init(&e);
    soak_describe(&options, seed, &e, &c);
    uint32_t events = c.event_count, kept = 0;
    soak_shrink(&options, seed, &e, &r);
    size_t promise = strcspn(r.failure, ":");
    for (uint32_t i = 0; i < events; i++) {
        struct soak_edit less = e;
        struct soak_result other;
        if (e.without[i])
            continue;
        less.without[i] = true;
        kept++;
        run(seed, &less, &other);
        assert_true(strncmp(other.failure, r.failure, promise + 1) != 0);
    }
    assert_true(kept > 0); /* the loss of power */
}

/* ---- the program ---- */

struct said {
    int status;
    char out[TEXT_BYTES], err[TEXT_BYTES];
    struct trace { /* of stderr: lines that tell an event */
        unsigned lines, packets;
        double last_ms;
        uint64_t hash;
    } trace;
};

static void trace_read(const char *line, struct trace *t)
{
    double ms;
    char what[32];
    unsigned long long a, b;
    int len = 0;
    if (sscanf(line, "%lf ms %31s %llx %llx\n%n", &ms, what, &a, &b, &len) != 4 || len == 0)
        return; /* of the log */
    assert_true(ms >= t->last_ms);
    t->last_ms = ms;
    t->lines++;
    t->packets += strcmp(what, "packet") == 0;
    t->hash = fnv1a_more(t->hash, slice_str(line));
}

/* The beginning of what was said there. */
static void read_all(FILE *f, char *to, struct trace *t)
{
    char line[TEXT_BYTES];
    size_t have = 0;
    rewind(f);
    *t = (struct trace){.hash = fnv1a(slice_of(NULL, 0))};
    while (fgets(line, sizeof line, f) != NULL) {
        size_t len = MIN(strlen(line), TEXT_BYTES - 1 - have);
        memcpy(to + have, line, len);
        have += len;
        trace_read(line, t);
    }
    to[have] = '\0';
    assert_int_equal(fclose(f), 0);
}

/* `line` is what follows "claudefs-sim ". In a process of its own: worlds end as they like. */
static void say(const char *line, struct said *ret)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {{"soak", cmd_soak}, {"replay", cmd_replay}, {"shrink", cmd_shrink}};
    char text[TEXT_BYTES], *argv[ARGS_MAX + 1] = {NULL}, *save = NULL;
    int argc = 0, status = 0;
    struct trace none;
    FILE *out = tmpfile(), *err = tmpfile();
    (void)snprintf(text, sizeof text, "%s", line); /* fits */
    for (char *p = strtok_r(text, " \n", &save); p != NULL && argc < ARGS_MAX;
         p = strtok_r(NULL, " \n", &save))
        argv[argc++] = p;
    assert_true(argc > 0);
    assert_non_null(out);
    assert_non_null(err);
    (void)fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (dup2(fileno(out), STDOUT_FILENO) < 0 || dup2(fileno(err), STDERR_FILENO) < 0)
            _exit(99);
        for (size_t i = 0; i < ARRAY_COUNT(commands); i++)
            if (strcmp(argv[0], commands[i].name) == 0)
                status = commands[i].run(argc, argv);
        (void)fflush(stdout);
        _exit(status);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    read_all(out, ret->out, &none);
    read_all(err, ret->err, &ret->trace);
    assert_true(WIFEXITED(status));
    ret->status = WEXITSTATUS(status);
}

/* What stands behind `label`, to the end of that line; *text moves behind it. */
static void line_after(const char **text, const char *label, char *ret)
{
    const char *at = strstr(*text, label);
    if (at == NULL)
        fail_msg("\"%s\" is not in: %s", label, *text);
    at += strlen(label);
    size_t len = strcspn(at, "\n");
    assert_true(len > 0 && len < TEXT_BYTES);
    memcpy(ret, at, len);
    ret[len] = '\0';
    *text = at + len;
}

/* The line that is told next runs it again, and finds the same. */
static void
run_again(const char **text, const char *found, char command[TEXT_BYTES], struct said *ret)
{
    line_after(text, "  again: claudefs-sim ", command);
    say(command, ret);
    assert_int_equal(ret->status, 1);
    assert_non_null(strstr(ret->out, found));
}

/* And then the shortest history, which breaks the same promise. */
static void
run_shortest(const char **text, const char *first, char command[TEXT_BYTES], struct said *ret)
{
    static char shortest[TEXT_BYTES];
    line_after(text, "  shortest found: ", shortest);
    assert_memory_equal(shortest, first, strcspn(first, ":") + 1);
    run_again(text, shortest, command, ret);
}

/* soak stops at the first seed, tells the shortest history that it found, and how both are run
 * again; replay of these lines finds the same. With two jobs it is the same seed. */
static void test_soak_tells_the_first_seed_and_the_shortest_history(void **state)
{
    static struct said soak, again;
    static char first[TEXT_BYTES], command[TEXT_BYTES], seed[TEXT_BYTES + 8];
    struct soak_result r;
    (void)state;
    say("soak --operations 200 --seeds 30 --jobs 2", &soak);
    assert_int_equal(soak.status, 1);
    const char *last = NULL; /* the others tell how far it is, on a slow machine */
    for (const char *at = soak.out; (at = strstr(at, " of 30 seeds, 1 failed, ")) != NULL; at++)
        last = at; /* no more were begun */
    assert_non_null(last);
    assert_int_equal(strcspn(last, "\n") + 1, strlen(last));
    (void)snprintf(seed, sizeof seed, "seed %llu: ", (unsigned long long)search(&r)); /* fits */
    const char *text = soak.out;
    line_after(&text, seed, first);
    assert_string_equal(first, r.failure);
    run_again(&text, first, command, &again);
    run_shortest(&text, first, command, &again);
    assert_non_null(strstr(command, " --only "));
}

static void test_shrink_tells_how_it_is_run_again(void **state)
{
    static struct said shrink, again;
    static char found[TEXT_BYTES], command[TEXT_BYTES], line[TEXT_BYTES];
    struct soak_result r;
    (void)state;
    uint64_t seed = search(&r);
    (void)snprintf(line, sizeof line, "shrink %llu --operations 200",
                   (unsigned long long)seed); /* fits */
    say(line, &shrink);
    assert_int_equal(shrink.status, 1);
    const char *text = shrink.out;
    line_after(&text, ": ", found);
    run_again(&text, found, command, &again);
}

static unsigned long calls_told(const char *out)
{
    const char *at = strstr(out, " calls, ");
    assert_non_null(at);
    while (at > out && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return strtoul(at, NULL, 10);
}

/* Sites of three nodes: the faults that happened are what can be left out, and the work ends
 * sooner.
 */
static void test_worlds_of_three_nodes_are_shrunk_as_well(void **state)
{
    static struct said soak, before, after;
    static char first[TEXT_BYTES], command[TEXT_BYTES];
    (void)state;
    say("soak --nodes 3 --operations 600 --seeds 10", &soak);
    assert_int_equal(soak.status, 1);
    const char *text = soak.out;
    line_after(&text, ": ", first);
    run_again(&text, first, command, &before);
    run_shortest(&text, first, command, &after);
    assert_non_null(strstr(command, " --nodes 3 "));
    assert_non_null(strstr(command, " --without "));
    assert_true(calls_told(after.out) <= calls_told(before.out));
}

static void test_nothing_to_shrink(void **state)
{
    static struct said s;
    (void)state;
    doctored = false;
    say("shrink 1 --operations 200", &s);
    doctored = true;
    assert_int_equal(s.status, 0);
    assert_string_equal(s.out, "seed 1: good: nothing to shrink\n");
}

/* Every event of the world on a line of its own, in the order of virtual time; the same again from
 * the same seed. Without --trace there is none. */
static void test_replay_traces_every_event(void **state)
{
    static struct said plain, traced, again;
    (void)state;
    doctored = false;
    say("replay 1 --operations 20 --sites 2", &plain);
    say("replay 1 --operations 20 --sites 2 --trace", &traced);
    say("replay 1 --operations 20 --sites 2 --trace", &again);
    doctored = true;
    assert_int_equal(traced.status, 0);
    assert_int_equal(plain.trace.lines, 0);
    assert_string_equal(traced.out, plain.out); /* looking changes nothing */
    assert_memory_equal(traced.out, "seed 1: good\ntrace ", 19);
    assert_true(traced.trace.packets > 100);
    assert_true(traced.trace.lines > traced.trace.packets);
    assert_true(traced.trace.last_ms > 1000);
    assert_int_equal(traced.trace.lines, again.trace.lines);
    assert_true(traced.trace.hash == again.trace.hash);
}

static void test_soak_tells_how_far_it_is(void **state)
{
    static struct said s;
    const char *at = s.out;
    unsigned lines = 0, done = 0;
    (void)state;
    doctored = false;
    clock_step_ns = 3 * NS_PER_SEC;
    say("soak --operations 20 --sites 2 --seeds 12 --jobs 1", &s);
    clock_step_ns = 0;
    doctored = true;
    assert_int_equal(s.status, 0);
    for (; *at != '\0'; lines++, at = strchr(at, '\n') + 1) {
        unsigned now, of, failed, calls;
        double seconds, rate;
        assert_non_null(strchr(at, '\n'));
        assert_int_equal(sscanf(at, "%u of %u seeds, %u failed, %u calls, %lf s, %lf calls/s\n",
                                &now, &of, &failed, &calls, &seconds, &rate),
                         6);
        assert_true(now > done ||
                    (now == done && now == 12)); /* the last one comes twice perhaps */
        assert_int_equal(of, 12);
        assert_int_equal(failed, 0);
        assert_in_range(calls, now * 15, now * 20);
        assert_true(seconds >= 3 * now);
        done = now;
    }
    assert_int_equal(done, 12);
    assert_in_range(lines, 3, 13);
}

static void test_bad_input_is_told(void **state)
{
    static const struct {
        const char *line, *sentence;
    } wrong[] = {
        {"soak --faults floods", "--faults \"floods\": expected all, or some of eio, full"},
        {"replay 1 --faults eio,", "--faults \"eio,\": expected all, or some of eio, full"},
        {"shrink 1 --faults", "--faults \"\": expected all, or some of eio, full"},
        {"soak --seeds 0", "--seeds \"0\": expected a number from 1 to 4294967295"},
        {"soak --seeds many", "--seeds \"many\": expected a number from 1 to 4294967295"},
        {"soak --seeds", "--seeds \"\": expected a number from 1 to 4294967295"},
        {"soak --seconds -1", "--seconds \"-1\": expected a number from 1 to"},
        {"soak --first 1x", "--first \"1x\": expected a number from 0 to"},
        {"soak --jobs 65", "--jobs \"65\": expected a number from 1 to 64"},
        {"soak --sites 7", "--sites \"7\": expected a number from 2 to 6"},
        {"soak --nodes 2", "--nodes \"2\": expected 1 or 3"},
        {"soak --operations 1e9", "--operations \"1e9\": expected a number up to 100000000"},
        {"soak --quickly", "there is no option \"--quickly\""},
        {"replay seven", "\"seven\" is no seed: expected a number"},
        {"replay -7", "\"-7\" is no seed: expected a number"},
        {"replay 99999999999999999999", "\"99999999999999999999\" is no seed: expected a number"},
        {"shrink 7th", "\"7th\" is no seed: expected a number"},
        {"replay", "which seed?"},
        {"shrink", "which seed?"},
        {"replay 7 --only 1,x", "--only \"1,x\": expected numbers of operations, as in 10,0,25"},
        {"replay 7 --without a", "--without \"a\": expected numbers of events, as in 0,3"},
#ifndef CLAUDEFS_PLANT
        {"soak --plant 3", "--plant \"3\": expected nothing: only a build with"},
#endif
    };
    static struct said s;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        say(wrong[i].line, &s);
        if (s.status != 2 || strstr(s.err, wrong[i].sentence) == NULL)
            fail_msg("%s: status %d, said: %s", wrong[i].line, s.status, s.err);
        assert_memory_equal(s.err, "claudefs-sim: ", 14);
        assert_non_null(strstr(s.err, "\nusage: claudefs-sim "));
        assert_string_equal(s.out, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_shrink_finds_is_shorter_and_fails_alike),
        cmocka_unit_test(test_what_shrink_leaves_is_needed),
        cmocka_unit_test(test_soak_tells_the_first_seed_and_the_shortest_history),
        cmocka_unit_test(test_shrink_tells_how_it_is_run_again),
        cmocka_unit_test(test_worlds_of_three_nodes_are_shrunk_as_well),
        cmocka_unit_test(test_nothing_to_shrink),
        cmocka_unit_test(test_replay_traces_every_event),
        cmocka_unit_test(test_soak_tells_how_far_it_is),
        cmocka_unit_test(test_bad_input_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
