/* The world as its users see it: runs that repeat, faults that bite, named seeds that once failed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include <cmocka.h>

#include "base/log.h"
#include "sim/lin.h"
#include "sim/soak_int.h"
#include "sim/world_int.h"

static void run(const struct soak_options *o, uint64_t seed, struct soak_result *ret)
{
    static struct world_config c;
    struct soak_edit e;
    soak_edit_init(&e);
    soak_describe(o, seed, &e, &c);
    soak_run(&c, false, ret);
}

static void test_soak_run_same_seed_twice_gives_same_hash(void **state)
{
    const struct soak_options o = {.sites = 3, .operations = 300, .faults = true};
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct soak_result a, b;
        run(&o, seed, &a);
        run(&o, seed, &b);
        assert_string_equal(a.failure, "");
        assert_true(a.hash == b.hash);
        assert_true(a.events == b.events && a.calls == b.calls);
    }
}

static void test_soak_run_other_seed_gives_other_hash(void **state)
{
    const struct soak_options o = {.sites = 2, .operations = 100};
    struct soak_result a, b;
    (void)state;
    run(&o, 1, &a);
    run(&o, 2, &b);
    assert_true(a.hash != b.hash);
}

static void test_faults_are_read_as_they_are_told(void **state)
{
    unsigned kinds = 0;
    (void)state;
    assert_true(soak_faults_parse("eio", &kinds));
    assert_int_equal(kinds, SOAK_EIO);
    assert_true(soak_faults_parse("join,rot,eio", &kinds));
    assert_int_equal(kinds, SOAK_JOIN | SOAK_ROT | SOAK_EIO);
    assert_true(soak_faults_parse("all", &kinds));
    assert_int_equal(kinds, SOAK_ALL);
    assert_true(soak_faults_parse("line,tight,clock,ahead", &kinds));
    assert_int_equal(kinds, SOAK_LINE | SOAK_TIGHT | SOAK_CLOCK | SOAK_AHEAD);
    assert_false(soak_faults_parse("", &kinds));
    assert_false(soak_faults_parse("eio,", &kinds));
    assert_false(soak_faults_parse("ei", &kinds));
    assert_false(soak_faults_parse("eio,fulll", &kinds));
}

/* Each kind is in a world of its own: the events it is for happen, and the same seed gives the same
 * run (V1). */
static void test_soak_run_with_more_faults_repeats(void **state)
{
    (void)state;
    for (unsigned kind = 1; kind <= SOAK_AHEAD; kind *= 2) {
        const struct soak_options o = {.sites = 3, .operations = 300, .faults = true, .more = kind};
        struct soak_result a, b;
        run(&o, 1, &a);
        run(&o, 1, &b);
        assert_string_equal(a.failure, "");
        assert_true(a.hash == b.hash);
        assert_true(a.events == b.events && a.calls == b.calls);
    }
}

/* Power goes where it is told to: in the middle of what a running daemon does, and then in its
 * starts, at every call of the disk that one of these makes. */
static void test_power_goes_at_each_call_of_a_start(void **state)
{
    static struct world_config c;
    struct world *w;
    struct err_detail d;
    uint64_t took, crashes = 0;
    unsigned whole = 0;
    (void)state;
    world_config_init(&c, 2, 11);
    c.model = true;
    for (unsigned i = 0; i < 2; i++) {
        c.sites[i].work.kind = WORLD_WORK_COLLIDE;
        c.sites[i].work.operations = 150;
        c.sites[i].segment_bytes = 16 * KIB;
        c.sites[i].checkpoint_bytes = 16 * KIB;
    }
    c.events[c.event_count++] = (struct world_event){
        .at_ns = NS_PER_MS, .kind = WORLD_STEP, .a = 1, .value = world_step(3, true, 0)};
    assert_int_equal(world_new(&w, &c, &d), 0);
    assert_int_equal(world_run(w, NS_PER_SEC), 0);
    struct process *p = &w->sites[1];
    assert_true(p->crashes > 0);
    for (unsigned calls = 1; whole < 3; calls++) {
        process_crash(p, true);
        crashes = p->crashes;
        disk_power_off_in(p->machine.disk, &p->machine, calls, false);
        world_site_up(w, 1);
        assert_true(p->crashes == crashes + (p->node == NULL));
        whole += p->node != NULL;
        assert_true(whole > 0 || calls < 100);
    }
    if (world_settle(w, 180 * NS_PER_SEC, &took) != 0)
        fail_msg("%s", world_failure(w));
    world_free(w);
}

/* What a world shows while a site is left broken. */
static struct {
    struct world *w;
    unsigned looks;
    bool broken, equal, apart;
} core;

static bool is_broken(const struct world *w, unsigned site, enum world_broken how)
{
    bool hears = !net_is_cut(0, site), speaks = !net_is_cut(site, 0);
    bool is_down = w->sites[site].node == NULL;
    bool is_full = disk_is_bad(w->sites[site].machine.disk);
    switch (how) {
    case WORLD_BROKEN_CUT:
        return !hears && !speaks && !is_down;
    case WORLD_BROKEN_DEAF:
        return !hears && speaks && !is_down;
    case WORLD_BROKEN_MUTE:
        return hears && !speaks && !is_down;
    case WORLD_BROKEN_DOWN:
    case WORLD_BROKEN_DARK:
        return hears && speaks && is_down;
    case WORLD_BROKEN_FULL:
    case WORLD_BROKEN_FULL_AT_ALL:
        return hears && speaks && is_full;
    case WORLD_BROKEN_NOT:
    case WORLD_BROKEN_END:
        break;
    }
    return false;
}

static void core_look(void *ctx, const struct world *w, uint64_t now_ns)
{
    (void)ctx;
    (void)now_ns;
    if (!w->out[2])
        return;
    core.looks++;
    core.broken = core.broken && is_broken(w, 2, w->config.sites[2].broken);
    core.equal = world_tree_hash(core.w, 0) == world_tree_hash(core.w, 1);
    core.apart = world_tree_hash(core.w, 0) != world_tree_hash(core.w, 2);
}

/* All three work apart from each other. Two converge while the third is still broken, and what it
 * alone had comes when it is not any more. */
static void test_the_others_converge_without_who_is_left_broken(void **state)
{
    (void)state;
    for (unsigned how = WORLD_BROKEN_CUT; how < WORLD_BROKEN_END; how++) {
        static struct world_config c;
        struct err_detail d;
        uint64_t took;
        world_config_init(&c, 3, 20 + how);
        c.model = true;
        c.sample = core_look;
        c.sample_ns = 100 * NS_PER_MS;
        for (unsigned i = 0; i < 3; i++) {
            c.sites[i].work.kind = WORLD_WORK_COLLIDE;
            c.sites[i].work.operations = 100;
            c.events[c.event_count++] =
                (struct world_event){.at_ns = 1, .kind = WORLD_ISOLATE, .a = i};
        }
        c.sites[2].broken = how;
        memset(&core, 0, sizeof core);
        core.broken = true;
        assert_int_equal(world_new(&core.w, &c, &d), 0);
        assert_int_equal(world_run(core.w, 10 * NS_PER_SEC), 0);
        if (world_settle(core.w, 180 * NS_PER_SEC, &took) != 0)
            fail_msg("left broken (%u): %s", how, world_failure(core.w));
        assert_true(core.looks > 0 && core.broken && core.equal);
        if (how < WORLD_BROKEN_FULL)
            assert_true(core.apart);
        assert_true(world_tree_hash(core.w, 0) == world_tree_hash(core.w, 2));
        world_free(core.w);
    }
}

/* The usual world of a seed is the same whatever else there is in it, but for what a kind needs. */
static void test_more_faults_leave_the_usual_ones(void **state)
{
    static struct world_config c, d;
    struct soak_options o = {.sites = 3, .operations = 300, .faults = true};
    struct soak_edit e;
    uint32_t at = 0;
    (void)state;
    soak_edit_init(&e);
    soak_describe(&o, 7, &e, &c);
    o.more = SOAK_EIO | SOAK_FULL;
    soak_describe(&o, 7, &e, &d);
    assert_true(d.event_count > c.event_count);
    for (uint32_t i = 0; i < d.event_count && at < c.event_count; i++)
        at += memcmp(&d.events[i], &c.events[at], sizeof c.events[0]) == 0;
    assert_int_equal(at, c.event_count);
    assert_memory_equal(c.links, d.links, sizeof c.links);
}

/* The site is away and comes back: it has a list to carry out, is another site then, and its daemon
 * was opened anew. */
static void test_a_site_that_is_away_comes_back(void **state)
{
    const struct soak_options o = {
        .sites = 3, .operations = 600, .faults = true, .more = SOAK_AWAY};
    static struct world_config c;
    struct soak_edit e;
    struct err_detail d;
    unsigned returns = 0;
    (void)state;
    soak_edit_init(&e);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world *w;
        uint64_t took;
        soak_describe(&o, seed, &e, &c);
        assert_int_equal(world_new(&w, &c, &d), 0);
        assert_int_equal(world_run(w, 120 * NS_PER_SEC), 0);
        assert_int_equal(world_settle(w, 180 * NS_PER_SEC, &took), 0);
        for (unsigned i = 0; i < 3; i++)
            returns += w->ids[i] != 0x51000001u + i;
        world_free(w);
    }
    assert_true(returns >= 4);
}

/* Who invited it is lost when the snapshot is on its way, or before: another one's token does. */
static void test_a_site_whose_inviter_is_lost_joins_by_another(void **state)
{
    static struct world_config c;
    (void)state;
    for (uint64_t ms = 0; ms < 200; ms += 20) {
        struct world *w;
        struct err_detail d;
        uint64_t took;
        world_config_init(&c, 3, 7);
        c.sites[2].joins_late = true;
        c.events[c.event_count++] =
            (struct world_event){.at_ns = NS_PER_SEC, .kind = WORLD_JOIN, .a = 2, .b = 1};
        c.events[c.event_count++] = (struct world_event){
            .at_ns = NS_PER_SEC + ms * NS_PER_MS + 1, .kind = WORLD_LOSE, .a = 1};
        assert_int_equal(world_new(&w, &c, &d), 0);
        assert_int_equal(world_run(w, 2 * NS_PER_SEC), 0);
        assert_int_equal(world_settle(w, 180 * NS_PER_SEC, &took), 0);
        assert_true(world_counts(w, 2) && world_has_joined(w, 2));
        world_free(w);
    }
}

/* Nobody is left who could break a promise, or be asked. */
static void test_a_world_may_lose_all_of_its_sites(void **state)
{
    static struct world_config c;
    struct world *w;
    struct err_detail d;
    uint64_t took;
    (void)state;
    world_config_init(&c, 2, 7);
    for (unsigned i = 0; i < 2; i++) {
        c.sites[i].work = (struct world_work){.kind = WORLD_WORK_COLLIDE, .operations = 50};
        c.events[c.event_count++] =
            (struct world_event){.at_ns = (1 + i) * NS_PER_SEC, .kind = WORLD_LOSE, .a = i};
    }
    c.model = true;
    assert_int_equal(world_new(&w, &c, &d), 0);
    assert_int_equal(world_run(w, 5 * NS_PER_SEC), 0);
    assert_int_equal(world_settle(w, 180 * NS_PER_SEC, &took), 0);
    assert_null(world_failure(w));
    assert_null(world_tree_text(w, 0));
    world_free(w);
}

static const struct {
    struct soak_options options;
    uint64_t seed;
} named_seeds[] = {
    /* A relay sent on a later part of a batch before an earlier one (P7). */
    {{.sites = 3, .operations = 2000, .faults = true, .no_split = true}, 15},
    /* It still did, when a third shard's part of the batch was durable last. */
    {{.sites = 3, .operations = 2000, .faults = true, .no_split = true}, 269},
    {{.sites = 3, .operations = 2000, .faults = true, .no_split = true}, 523},
    /* A node of a content's tree that could not be stored counted as brought. */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_EIO | SOAK_CHUNKS | SOAK_SPACE},
     47},
    /* A write while a garbage pass marked: the engine went on with memory not its own. */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_CHUNKS | SOAK_SPACE}, 23},
    /* Nobody passed on the chunks of a content to a site that has no link to its writer (P2). */
    {{.sites = 3, .operations = 800, .faults = true, .more = SOAK_LINE | SOAK_CHUNKS}, 21},
    {{.sites = 3, .operations = 800, .faults = true, .more = SOAK_LINE | SOAK_CHUNKS}, 53},
    /* Power went when one part of a batch was on the disk and another was not (P7). */
    {{.sites = 3, .operations = 2000, .faults = true}, 21},
    {{.sites = 3, .operations = 2000, .faults = true}, 40},
    {{.sites = 3, .operations = 2000, .faults = true}, 53},
    {{.sites = 3, .operations = 2000, .faults = true}, 54},
    /* One shard had no room for its part of a batch (P7). */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_FULL}, 16},
    /* A restart within a few milliseconds: nobody has been up for long then (a checker's). */
    {{.sites = 3, .operations = 2000, .faults = true}, 252},
    /* Looked at when a directory had its new name and not lost its old one (a checker's). */
    {{.sites = 3, .operations = 2000, .faults = true}, 709},
    /* Heartbeats of before a line stood still arrived, and the connection then broke (lag). */
    {{.sites = 3, .operations = 2000, .faults = true}, 22480},
    {{.sites = 3, .operations = 2000, .faults = true}, 26737},
    /* Two directories were exchanged that others had put into each other (a checker's). */
    {{.sites = 3, .operations = 2000, .faults = true}, 4152},
    /* A write was answered ahead of what a peer had done to a twin of its file (S14). */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_AHEAD}, 58},
    /* A site came back, and a file went into the directory that took its name: no end. */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_AWAY}, 106},
    /* Of two equal files one was taken for the other when their site came back (P2). */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_AWAY}, 48},
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_AWAY}, 340},
    /* Power went when a site was back, and what its return had left was there again. */
    {{.sites = 3, .operations = 600, .faults = true, .more = SOAK_AWAY}, 9},
    {{.sites = 3, .operations = 600, .faults = true, .more = SOAK_AWAY}, 19},
    /* The power went while a returning site removed its shards (a twin's). */
    {{.sites = 3, .operations = 600, .faults = true, .more = SOAK_AWAY}, 66},
    /* While a member left, another's operations passed one that waited for the cut (P7). */
    {{.sites = 3, .operations = 600, .faults = true, .more = SOAK_AWAY | SOAK_SHORT}, 526},
    /* A new file has the name of one that was moved over a third, and its site comes back (P2).
     */
    {{.sites = 3, .operations = 600, .faults = true, .more = SOAK_AWAY | SOAK_SHORT}, 2643},
    /* A name meant again what it had meant before (a checker's). */
    {{.sites = 3, .operations = 800, .faults = true, .more = SOAK_CROWD | SOAK_SHORT}, 214},
    /* Who had let a site in was lost before all had heard of it. */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_JOIN | SOAK_LOSE}, 62},
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_JOIN | SOAK_LOSE}, 112},
    /* The same, and what it had not told to all was in the new site's state only. */
    {{.sites = 3,
      .operations = 2000,
      .faults = true,
      .more = SOAK_JOIN | SOAK_LOSE | SOAK_CHUNKS | SOAK_CROWD},
     19},
    /* A content was read before its reader had a connection again (a checker's). */
    {{.sites = 3, .operations = 800, .faults = true, .more = SOAK_ROT | SOAK_CHUNKS}, 47},
    /* An open was told that the file is gone before that was durable. */
    {{.sites = 3, .operations = 2000, .faults = true}, 456},
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_CROWD}, 8},
    /* A lost site's last call had no answer, and was known to the others (a checker's). */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_JOIN | SOAK_LOSE}, 147},
    /* What waited for a cut was in no lag. */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_LOSE | SOAK_REMOVE}, 129},
    /* Who came back gave a directory of two ACLs the first one for ever. */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_AWAY | SOAK_SHORT}, 9},
    /* What a leaver had done in one shard named what another one let in later, by its cut (P7). */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_REMOVE}, 42},
    /* Who read a chunk waited for a site that was just removed, and got no answer. */
    {{.sites = 3, .operations = 2000, .faults = true, .more = SOAK_REMOVE}, 201},
    /* Contents that a site's own pass, or the others', took before it was back (P2). */
    {{.sites = 3, .operations = 1000, .faults = true, .more = SOAK_AWAY | SOAK_CHUNKS | SOAK_SPACE},
     30},
    /* After a restart a mount closed a nameless file before another one was back (P2). */
    {{.sites = 3, .operations = 2000, .faults = true}, 866},
    {{.sites = 3, .operations = 2000, .faults = true}, 2275},
};

/* Seeds that once broke a promise: sim/RESULTS.md says what each was. */
static void test_soak_run_named_seeds_are_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof named_seeds / sizeof named_seeds[0]; i++) {
        struct soak_result r;
        run(&named_seeds[i].options, named_seeds[i].seed, &r);
        assert_string_equal(r.failure, "");
        assert_true(r.calls > 0);
    }
}

/* Disks fail while sites join, leave and are lost. 215: a node that could not read the snapshot it
 * had taken over died of it. In the others operators and checkers took an unreadable state for that
 * of a member (107, 110), did not hear that a removal had been made (162), let a site that the
 * removed one had let in alone (269), and judged what nobody could know (221, 224). */
/* A node that ends because its disk fails does not give back what was under way, as its process
 * does not end here: these are not leaks. */
#ifdef __SANITIZE_ADDRESS__
static void leaks_count(bool count)
{
    (count ? __lsan_enable : __lsan_disable)();
}
#else
static void leaks_count(bool count)
{
    (void)count;
}
#endif

static void test_soak_run_named_seeds_of_many_faults_are_good(void **state)
{
    static const uint64_t named[] = {107, 110, 162, 215, 221, 224, 269};
    const struct soak_options o = {.sites = 3,
                                   .operations = 2000,
                                   .faults = true,
                                   .more = SOAK_EIO | SOAK_FULL | SOAK_ROT | SOAK_LOSE |
                                           SOAK_REMOVE | SOAK_JOIN};
    (void)state;
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        struct soak_result r;
        leaks_count(false);
        run(&o, named[i], &r);
        leaks_count(true);
        if (r.failure[0] != '\0')
            print_error("seed %llu\n", (unsigned long long)named[i]);
        assert_string_equal(r.failure, "");
        assert_true(r.calls > 0);
    }
}

/* The checker of shared directories can say something of nearly every answer. */
static void test_answers_in_shared_directories_are_judged(void **state)
{
    const struct soak_options o = {
        .sites = 3, .operations = 600, .faults = true, .more = SOAK_CROWD};
    struct lin_stats before = lin_stats(), after;
    uint64_t calls = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct soak_result r;
        run(&o, seed, &r);
        assert_string_equal(r.failure, "");
        calls += r.calls;
    }
    after = lin_stats();
    assert_true(after.answers - before.answers >= calls);
    assert_true(after.changes - before.changes > calls / 4);
    assert_true((after.blind - before.blind) * 50 < calls);
}

/* The reference model judges nearly every world, and the order of all operations is known in each:
 * a checker that is silent finds nothing. */
static void test_model_and_order_are_looked_at(void **state)
{
    const struct soak_options o = {.sites = 3, .operations = 600, .faults = true};
    unsigned models = 0, orders = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct soak_result r;
        run(&o, seed, &r);
        assert_string_equal(r.failure, "");
        assert_true(r.looked.answers);
        models += r.looked.model;
        orders += r.looked.order;
    }
    assert_true(models >= 18);
    assert_int_equal(orders, 20);
}

/* Beyond what the model can bear the other two look all the same; and then the order alone. */
static void test_large_worlds_keep_their_order(void **state)
{
    struct soak_options o = {.sites = 2, .operations = 6000, .busy = true};
    struct soak_result r;
    (void)state;
    run(&o, 1, &r);
    assert_string_equal(r.failure, "");
    assert_true(r.looked.answers && r.looked.order && !r.looked.model);
    o.operations = WORLD_LIN_CALLS + 1;
    run(&o, 1, &r);
    assert_string_equal(r.failure, "");
    assert_true(!r.looked.answers && r.looked.order && !r.looked.model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_soak_run_same_seed_twice_gives_same_hash),
        cmocka_unit_test(test_soak_run_other_seed_gives_other_hash),
        cmocka_unit_test(test_faults_are_read_as_they_are_told),
        cmocka_unit_test(test_soak_run_with_more_faults_repeats),
        cmocka_unit_test(test_power_goes_at_each_call_of_a_start),
        cmocka_unit_test(test_the_others_converge_without_who_is_left_broken),
        cmocka_unit_test(test_more_faults_leave_the_usual_ones),
        cmocka_unit_test(test_a_site_that_is_away_comes_back),
        cmocka_unit_test(test_a_site_whose_inviter_is_lost_joins_by_another),
        cmocka_unit_test(test_a_world_may_lose_all_of_its_sites),
        cmocka_unit_test(test_soak_run_named_seeds_are_good),
        cmocka_unit_test(test_soak_run_named_seeds_of_many_faults_are_good),
        cmocka_unit_test(test_answers_in_shared_directories_are_judged),
        cmocka_unit_test(test_model_and_order_are_looked_at),
        cmocka_unit_test(test_large_worlds_keep_their_order),
    };
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* before any thread */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
