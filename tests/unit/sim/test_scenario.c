/* Scenarios: what is understood, and what is said about a mistake, with its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "sim/disk.h"
#include "sim/report.h"
#include "sim/run.h"
#include "sim/scenario.h"

#define TWO "[scenario]\nduration=1m\n[site a]\n[site b]\n"
#define ROW TWO "[site c]\n[links]\ndirect=no\n[link a b]\ndirect=yes\n[link b c]\ndirect=yes\n"

static struct scenario *parsed(const char *text)
{
    struct scenario *s = mem_alloc(sizeof *s);
    struct scenario_error e = {0};
    if (scenario_parse(s, slice_str(text), &e) != 0) {
        print_error("%u:%u: %s\n", e.line, e.column, e.text);
        fail();
    }
    return s;
}

static void test_parse_reads_every_key(void **state)
{
    struct scenario *s =
        parsed("; comment\n\n[scenario]  # another\ntitle = A; title # with a comment\n"
               "about = one\nabout = two\nduration = 1.5h\nsettle = 90s\nseed = 7\nshards = "
               "3\nversions = no\n"
               "[links]\nlatency = 5ms\n"
               "[site a-1]\nclock_offset = -2s\nclock_drift = +30ppm\ndisk_write = 50us\n"
               "disk_sync = 2ms\nwork = build\nrate = 2.5/s\noperations = 900\nclients = 3\n"
               "directory = home\nshared = 2.5%\r\nlarge = 20%\n"
               "[site b]\n[site c]\n"
               "[link a-1 b]\nlatency = 80ms\njitter = 3ms\nbandwidth = 100Mbit/s\n"
               "queue = 256KiB\nloss = 0.0001%\nstall = 1s\nresets = 1%\n"
               "tail = 0.5% 300ms\n"
               "[link b -> a-1]\nlatency = 90ms\n[link c b]\ndirect = no\n");
    (void)state;
    assert_string_equal(s->title, "A; title");
    assert_string_equal(s->about, "one two");
    assert_int_equal(s->duration_ns, 5400 * NS_PER_SEC);
    assert_int_equal(s->settle_ns, 90 * NS_PER_SEC);
    assert_int_equal(s->seed, 7);
    assert_int_equal(s->world.shards, 3);
    assert_true(s->world.no_versions);
    assert_int_equal(s->world.site_count, 3);
    const struct world_site *a = &s->world.sites[0];
    assert_string_equal(a->name, "a-1");
    assert_int_equal(a->clock.offset_ns, -(int64_t)(2 * NS_PER_SEC));
    assert_int_equal(a->clock.drift_ppm, 30);
    assert_int_equal(a->disk.write.base_ns, 50000);
    assert_int_equal(a->disk.sync.base_ns, 2000000);
    assert_int_equal(a->work.kind, WORLD_WORK_BUILD);
    assert_int_equal(a->work.operations, 900);
    assert_int_equal(a->work.clients, 3);
    assert_string_equal(a->work.dir, "home");
    assert_int_equal(a->work.shared_per_million, 25000);
    assert_int_equal(a->work.large_per_million, 200000);
    const struct world_link *l = &s->world.links[0][1];
    assert_int_equal(l->delay.base_ns, 80 * NS_PER_MS);
    assert_int_equal(l->delay.jitter_ns, 3 * NS_PER_MS);
    assert_int_equal(l->bytes_per_s, 12500000);
    assert_int_equal(l->queue_bytes, 256 * KIB);
    assert_int_equal(l->stall_per_million, 1);
    assert_int_equal(l->stall_ns, NS_PER_SEC);
    assert_int_equal(l->reset_per_million, 10000);
    assert_int_equal(l->delay.tail_per_million, 5000);
    assert_int_equal(l->delay.tail_ns, 300 * NS_PER_MS);
    assert_false(l->absent);
    assert_true(s->world.links[1][2].absent && s->world.links[2][1].absent);
    assert_int_equal(s->world.links[1][0].delay.base_ns, 90 * NS_PER_MS);
    assert_int_equal(s->world.links[1][0].bytes_per_s, 12500000);
    assert_int_equal(s->world.links[0][2].delay.base_ns, 5 * NS_PER_MS);
    struct world_config c;
    struct scenario_error e;
    assert_int_equal(scenario_world(s, 9, 10, &c, &e), 0);
    assert_int_equal(c.seed, 9);
    assert_int_equal(c.work_until_ns, 540 * NS_PER_SEC);
    assert_int_equal(c.sites[0].work.operations, 90);
    assert_int_equal(c.sites[0].work.think_ns, 3 * NS_PER_SEC * 2 / 5);
    mem_free(s);
}

static void test_events_become_those_of_the_world(void **state)
{
    static const struct {
        uint64_t at_s;
        enum world_event_kind kind;
        unsigned a, b;
        int64_t value;
    } expected[] = {
        {1, WORLD_LOSE, 1, 0, 0},
        {2, WORLD_CUT, 0, 1, 0},
        {2, WORLD_CUT, 1, 0, 0},
        {3, WORLD_SLOW, 1, 0, 5},
        {4, WORLD_HEAL, 0, 1, 0},
        {4, WORLD_HEAL, 1, 0, 0},
        {5, WORLD_ISOLATE, 0, 0, 0},
        {6, WORLD_REJOIN, 0, 0, 0},
        {6, WORLD_CRASH, 0, 0, 1},
        {7, WORLD_CLOCK, 0, 0, -(int64_t)(2 * NS_PER_SEC)},
        {8, WORLD_SLOW, 1, 0, 1},
        {9, WORLD_RESTART, 0, 0, 0},
        {10, WORLD_DISK_FAIL, 0, 0, INT64_C(0xfffffffff)}, /* all calls, until told otherwise */
        {11, WORLD_DISK_WELL, 0, 0, 0},
        {12, WORLD_DISK_FAIL, 0, 0, INT64_C(0x2ffffffff)},
        {13, WORLD_ROT, 1, 0, WORLD_ROT_STATE},
    };
    struct scenario *s = parsed(TWO "[events]\n2s..4s = cut a b\n3s..8s = slow b -> a 5x\n"
                                    "5s..6s = isolate a\n6s..9s = kill a\n7s = clock a -2s\n"
                                    "1s = lose b\n10s..11s = disk_fails a\n"
                                    "12s = disk_fails a syncs\n13s = rot b state\n");
    struct world_config c;
    struct scenario_error e;
    (void)state;
    assert_int_equal(scenario_world(s, 1, 1, &c, &e), 0);
    assert_true(expected[12].value == world_disk_fail(DISK_CALLS, UINT32_MAX));
    assert_true(expected[14].value == world_disk_fail(DISK_SYNC, UINT32_MAX));
    assert_int_equal(c.event_count, ARRAY_COUNT(expected));
    for (size_t i = 0; i < ARRAY_COUNT(expected); i++) {
        assert_int_equal(c.events[i].at_ns, expected[i].at_s * NS_PER_SEC);
        assert_int_equal(c.events[i].kind, expected[i].kind);
        assert_int_equal(c.events[i].a, expected[i].a);
        assert_int_equal(c.events[i].b, expected[i].b);
        assert_int_equal(c.events[i].value, expected[i].value);
    }
    mem_free(s);
}

/* A flapping link is drawn from the seed, ends healed, and never has two cuts in a row. */
static void test_flapping_is_drawn_from_the_seed(void **state)
{
    struct scenario *s = parsed(TWO "[events]\n10s..50s = flap a -> b down 1s up 2s\n");
    struct world_config c, same, other;
    struct scenario_error e;
    (void)state;
    assert_int_equal(scenario_world(s, 1, 1, &c, &e), 0);
    assert_int_equal(scenario_world(s, 1, 1, &same, &e), 0);
    assert_int_equal(scenario_world(s, 2, 1, &other, &e), 0);
    assert_memory_equal(&c, &same, sizeof c);
    assert_true(memcmp(c.events, other.events, sizeof c.events) != 0);
    assert_true(c.event_count >= 16 && c.event_count % 2 == 0);
    for (uint32_t i = 0; i < c.event_count; i++) {
        assert_int_equal(c.events[i].kind, i % 2 == 0 ? WORLD_CUT : WORLD_HEAL);
        assert_true(c.events[i].at_ns >= 10 * NS_PER_SEC && c.events[i].at_ns <= 50 * NS_PER_SEC);
    }
    mem_free(s);
}

static const struct {
    const char *text;
    unsigned line, column;
    const char *found, *expected;
} wrong[] = {
    {"duration = 1m\n", 1, 1, "\"duration\": expected a section", ""},
    {"[scenario]\nspeed = 3\n", 2, 1, "\"speed\": ", "one of the keys duration, "},
    {"[scenario]\nduration = 5\n", 2, 12, "\"5\": ", "a time such as 80ms"},
    {"[scenario]\nduration = \n", 2, 11, "end of line: ", "a time such as"},
    {"[scenario]\nduration\n", 2, 9, "end of line: ", "\"=\" and a value"},
    {"[scenario]\nduration 5 = 4\n", 2, 10, "\"5\": ", "\"=\" after \"duration\""},
    {"[scenario]\n  = 4\n", 2, 3, "\"=\": ", "a key before it"},
    {"[scenario]\nduration = 5m 6\n", 2, 15, "\"6\": ", "the end of the line"},
    {"[scenario]\nduration = 500d\n", 2, 12, "\"500d\": ", "not so large"},
    {"[scenario]\nduration = 0\n", 2, 12, "\"0\": ", "more than that"},
    {"[scenario]\nduration = 1.23456s\n", 2, 12, "\"1.23456s\": ", "a time such"},
    {"[scenario]\nseed = 99999999999999999999\n", 2, 8, "\"99999999999999999999\": ", "whole"},
    {"[scenario]\nversions = maybe\n", 2, 12, "\"maybe\": ", "yes or no"},
    {"[scenario\n", 1, 10, "end of line: ", "\"]\""},
    {"[scenario x]\n", 1, 11, "\"x\": ", "\"]\""},
    {"[scenery]\n", 1, 2, "\"scenery\": ", "scenario, site NAME"},
    {"[]\n", 1, 2, "end of line: ", "scenario, site NAME"},
    {"[site]\n", 1, 6, "end of line: ", "a name for the site"},
    {"[site a/b]\n", 1, 7, "\"a/b\": ", "a name for the site"},
    {"[site a]\n[site a]\n", 2, 7, "\"a\": ", "another name"},
    {"[site a]\nrate = -5/s\n", 2, 8, "\"-5/s\": ", "not a negative one"},
    {"[site a]\nrate = 0/s\n", 2, 8, "\"0/s\": ", "more than that"},
    {"[site a]\nrate = fast\n", 2, 8, "\"fast\": ", "a rate such as 20/s"},
    {"[site a]\nwork = party\n", 2, 8, "\"party\": ", "home, build, train"},
    {"[site a]\ndirectory = x/y\n", 2, 13, "\"x/y\": ", "a name for a directory"},
    {"[site a]\nclock_offset = 5q\n", 2, 16, "\"5q\": ", "with a sign"},
    {"[site a]\nclients = 17\n", 2, 11, "\"17\": ", "not so large"},
    {"[site a]\nshared = 101%\n", 2, 10, "\"101%\": ", "not so large"},
    {"[site a]\n[site b]\n[link a c]\n", 3, 9, "\"c\": ", "described above: a, b"},
    {"[site a]\n[site b]\n[link a -> c]\n", 3, 12, "\"c\": ", "described above: a, b"},
    {"[site a]\n[link a a]\n", 2, 9, "\"a\": ", "another site"},
    {"[site a]\n[site b]\n[link a b c]\n", 3, 11, "\"c\": ", "\"]\""},
    {"[site a]\n[site b]\n[link a b]\nlatency = 80\n", 4, 11, "\"80\": ", "80ms"},
    {"[links]\nbandwidth = -1Mbit/s\n", 2, 13, "\"-1Mbit/s\": ", "not a negative one"},
    {TWO "[events]\n5s = explode a\n", 6, 6, "\"explode\": ", "cut, heal, flap"},
    {TWO "[events]\nsoon = cut a b\n", 6, 1, "\"soon\": ", "a time such as"},
    {TWO "[events]\n5s = cut a\n", 6, 11, "end of line: ", "described above: a, b"},
    {TWO "[events]\n5s = cut a b c\n", 6, 14, "\"c\": ", "the end of the line"},
    {TWO "[events]\n5s..4s = cut a b\n", 6, 5, "\"4s\": ", "after the one before"},
    {TWO "[events]\n5s..6s = heal a b\n", 6, 1, "\"5s..6s\": ", "heal has no end"},
    {TWO "[events]\n5s = flap a b down 1s up 1s\n", 6, 1, "\"5s\": ", "two times"},
    {TWO "[events]\n1s..2s = flap a b up 1s\n", 6, 19, "\"up\": ", "\"down\""},
    {TWO "[events]\n1s..2s = flap a b down 1us up 1s\n", 6, 24, "\"1us\": ", "at least 1ms"},
    {TWO "[events]\n5s = slow a b 2\n", 6, 15, "\"2\": ", "a factor such as 5x"},
    {TWO "[events]\n5s = clock a\n", 6, 13, "end of line: ", "with a sign"},
    {TWO "[events]\n2m = lose a\n", 6, 1, "\"event\": ", "before the end"},
    {TWO "[events]\n1s = disk_fails a often\n", 6, 19, "\"often\": ", "writes, syncs"},
    {TWO "[events]\n1s = disk_fails a reads b\n", 6, 25, "\"b\": ", "the end of the line"},
    {TWO "[events]\n1s = rot a\n", 6, 11, "end of line: ", "journal, state or chunks"},
    {TWO "[events]\n1s..2s = rot a state\n", 6, 1, "\"1s..2s\": ", "rot has no end"},
    {TWO "[events]\n2s = lose b\n 1s = lose a\n", 7, 2, "\"event\": ", "at least one site"},
    {TWO "[events]\n2s = lose b\n1s = rot a chunks\n", 7, 1, "\"event\": ", "at least one"},
    {ROW "[events]\n1s = lose b\n", 13, 1, "\"event\": ", "direct links between those"},
    {ROW "[events]\n1s = rot a state\n1s = rot b state\n", 14, 1, "\"event\": ", "direct links"},
    {ROW "[events]\n1s..2s = cut c -> a\n", 13, 1, "\"event\": ", "a link that is there"},
    {TWO "[links]\ndirect = no\n", 4, 7, "\"b\": ", "a link to one of the sites above"},
    {TWO "[link a -> b]\ndirect = no\n", 6, 1, "\"direct\": ", "without an arrow"},
    {TWO "[link a b]\ntail = 1%\n", 6, 10, "end of line: ", "a time such as"},
    {TWO "[link a b]\ntail = 300ms 1%\n", 6, 8, "\"300ms\": ", "a share such as"},
    {TWO "[link a b]\ntail = 1% 1s x\n", 6, 14, "\"x\": ", "the end of the line"},
    {TWO "[link a b]\nqueue = 100\n", 6, 9, "\"100\": ", "a size such as"},
    {"[scenario]\nduration = 5m\n[site a]\n", 4, 1, "end of line: ", "at least two"},
    {"[site a]\n[site b]\n", 3, 1, "end of line: ", "duration = 10m"},
    {"[scenario]\ntitle = \xff\n", 2, 1, "end of line: ", "UTF-8"},
    {"[scenario]\nx\x1by = 1\n", 2, 1, "\"x?y\": ", "one of the keys"},
};

static void test_mistakes_are_told_with_their_place(void **state)
{
    struct scenario *s = mem_alloc(sizeof *s);
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct scenario_error e = {0};
        assert_int_equal(scenario_parse(s, slice_str(wrong[i].text), &e), ERR_CONFIG);
        if (e.line != wrong[i].line || e.column != wrong[i].column ||
            strncmp(e.text, wrong[i].found, strlen(wrong[i].found)) != 0 ||
            strstr(e.text, wrong[i].expected) == NULL) {
            print_error("%s\n%u:%u: %s\n", wrong[i].text, e.line, e.column, e.text);
            fail();
        }
    }
    mem_free(s);
}

static void test_too_many_events_are_told(void **state)
{
    struct scenario *s = parsed("[scenario]\nduration=2h\n[site a]\n[site b]\n[events]\n"
                                "1s..2h = flap a b down 1s up 1s\n");
    struct world_config c;
    struct scenario_error e;
    (void)state;
    assert_int_equal(scenario_world(s, 1, 1, &c, &e), ERR_CONFIG);
    assert_int_equal(e.line, 6);
    assert_non_null(strstr(e.text, "at most 1024"));
    assert_int_equal(scenario_world(s, 1, 100, &c, &e), 0);
    mem_free(s);
}

/* ---- running ---- */

static json_t *ran(const char *text, uint64_t seed)
{
    struct scenario *s = parsed(text);
    struct err_detail d;
    struct run r;
    int rc = run_scenario(s, seed, 1, NULL, &r, &d);
    if (rc != 0)
        print_error("%s %s\n", d.text, r.failure);
    assert_int_equal(rc, 0);
    json_t *report = report_json(&r);
    run_deinit(&r);
    mem_free(s);
    return report;
}

static const char short_world[] =
    "[scenario]\nduration=40s\n"
    "[site a]\nwork=collide\nrate=20/s\n[site b]\nwork=collide\nrate=20/s\nclients=2\n"
    "[link a b]\nlatency=40ms\nloss=1%\n[events]\n10s..20s = cut a b\n";

static void test_run_same_seed_gives_same_report(void **state)
{
    json_t *one = ran(short_world, 5), *again = ran(short_world, 5), *other = ran(short_world, 6);
    (void)state;
    assert_true(json_equal(one, again));
    assert_false(json_equal(one, other));
    json_decref(one);
    json_decref(again);
    json_decref(other);
}

static json_int_t integer_at(const json_t *o, const char *list, size_t i, const char *key)
{
    const json_t *v = json_object_get(json_array_get(json_object_get(o, list), i), key);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

/* What was described is what is told: two directions cut for ten seconds, the lag that grew
 * meanwhile, the bytes, and that everything was made good soon after. */
static void test_run_tells_what_happened(void **state)
{
    json_t *r = ran(short_world, 5);
    (void)state;
    assert_int_equal(json_array_size(json_object_get(r, "cuts")), 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(integer_at(r, "cuts", i, "begin_ms"), 10000);
        assert_int_equal(integer_at(r, "cuts", i, "end_ms"), 20000);
        assert_in_range(integer_at(r, "links", i, "lag_max_ms"), 9000, 11500);
        assert_true(integer_at(r, "links", i, "bytes") > 1000);
        assert_true(integer_at(r, "sites", i, "changes") > 50);
    }
    assert_int_equal(json_array_size(json_object_get(r, "heals")), 1);
    assert_int_equal(integer_at(r, "heals", 0, "at_ms"), 20000);
    assert_in_range(integer_at(r, "heals", 0, "caught_up_after_ms"), 1, 5000);
    const json_t *conflicts = json_object_get(r, "conflicts");
    assert_true(json_integer_value(json_object_get(conflicts, "count")) > 0);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(json_object_get(r, "sites"), 0), "tree")),
        json_string_value(json_object_get(json_array_get(json_object_get(r, "sites"), 1), "tree")));
    json_decref(r);
}

/* The work of half a minute comes to a line of 1 Mbit/s at once. */
static json_t *ran_with_queue(const char *queue)
{
    char text[400];
    (void)snprintf(text, sizeof text,
                   "[scenario]\nduration=40s\n[site a]\nwork=home\nrate=200/s\nclients=4\n"
                   "[site b]\nwork=none\n[link a b]\nlatency=20ms\nbandwidth=1Mbit/s\nqueue=%s\n"
                   "[events]\n5s..30s = cut a b\n",
                   queue);
    return ran(text, 5);
}

/* A short queue stalls the sender, however much it has to say: what waits is never more than the
 * queue and a message. With a long one all of it waits there. All arrives either way. */
static void test_run_a_short_queue_stalls_the_sender(void **state)
{
    json_t *small = ran_with_queue("4KiB"), *large = ran_with_queue("1GiB"),
           *larger = ran_with_queue("900MiB");
    (void)state;
    assert_true(integer_at(small, "links", 0, "queue_full") > 10);
    assert_in_range(integer_at(small, "links", 0, "queue_max_bytes"), 3 * KIB, 4 * KIB + 2000);
    assert_int_equal(integer_at(large, "links", 0, "queue_full"), 0);
    assert_true(integer_at(large, "links", 0, "queue_max_bytes") > (json_int_t)(16 * KIB));
    assert_true(json_equal(large, larger)); /* what is never full may be of any length */
    assert_false(json_equal(small, large));
    json_decref(small);
    json_decref(large);
    json_decref(larger);
}

/* Two sites without a link: all they have of each other comes by the third. */
static void test_run_others_relay_where_there_is_no_link(void **state)
{
    json_t *r = ran("[scenario]\nduration=20s\n[site a]\nrate=10/s\n[site b]\nwork=none\n"
                    "[site c]\nrate=10/s\n[link a c]\ndirect=no\n",
                    3);
    size_t i;
    const json_t *link;
    unsigned absent = 0;
    (void)state;
    json_array_foreach (json_object_get(r, "links"), i, link) {
        bool direct = json_is_true(json_object_get(link, "direct"));
        absent += !direct;
        assert_true(direct == (integer_at(r, "links", i, "bytes") > 0));
    }
    assert_int_equal(absent, 2);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(json_object_get(r, "sites"), 0), "tree")),
        json_string_value(json_object_get(json_array_get(json_object_get(r, "sites"), 2), "tree")));
    json_decref(r);
}

/* A disk that fails stops its daemon, which is back when the disk is well; one that rots may end a
 * site, and the others have what it had sent. */
static void test_run_disks_fail_and_rot(void **state)
{
    json_t *r = ran("[scenario]\nduration=60s\n[site a]\nrate=20/s\n[site b]\nrate=20/s\n"
                    "[site c]\nrate=20/s\n[events]\n10s..20s = disk_fails a\n"
                    "30s = rot c journal\n40s..41s = kill c\n45s = rot c state\n",
                    2);
    const char *said[] = {"a: disk fails", "a: disk well", "c: bit rot",
                          "c: crash",      "c: restart",   "c: bit rot"};
    (void)state;
    assert_true(integer_at(r, "sites", 0, "crashes") >= 1);
    assert_true(integer_at(r, "sites", 0, "changes") > 100);
    assert_int_equal(json_array_size(json_object_get(r, "events")), ARRAY_COUNT(said));
    for (size_t i = 0; i < ARRAY_COUNT(said); i++)
        assert_string_equal(json_string_value(json_object_get(
                                json_array_get(json_object_get(r, "events"), i), "what")),
                            said[i]);
    json_decref(r);
}

static void test_run_tells_the_file_of_too_many_events(void **state)
{
    struct scenario *s = parsed("[scenario]\nduration=2h\n[site a]\n[site b]\n[events]\n"
                                "1s..2h = flap a b down 1s up 1s\n");
    struct err_detail d;
    struct run r;
    (void)state;
    assert_int_equal(run_scenario(s, 1, 1, NULL, &r, &d), ERR_CONFIG);
    assert_memory_equal(d.text, "6:1: too many events: ", 22);
    run_deinit(&r);
    s->file = "dir/w.ini";
    assert_int_equal(run_scenario(s, 1, 1, NULL, &r, &d), ERR_CONFIG);
    assert_memory_equal(d.text, "dir/w.ini:6:1: too many events: ", 32);
    run_deinit(&r);
    mem_free(s);
}

static bool boolean_at(const json_t *o, const char *key)
{
    assert_true(json_is_boolean(json_object_get(o, key)));
    return json_is_true(json_object_get(o, key));
}

/* What "every promise held" means is in the report: a world whose calls are too many to look at
 * each answer says so, and its orders are known all the same. */
static void test_run_tells_what_was_looked_at(void **state)
{
    json_t *r = ran(short_world, 5);
    (void)state;
    assert_true(boolean_at(r, "answers_looked_at"));
    assert_true(boolean_at(r, "order_looked_at"));
    json_decref(r);
    r = ran("[scenario]\nduration=2s\n[site a]\nwork=collide\n[site b]\nwork=collide\n", 5);
    assert_false(boolean_at(r, "answers_looked_at"));
    assert_true(boolean_at(r, "order_looked_at"));
    json_decref(r);
}

/* Names from a scenario or a workload cannot end the script that the page keeps its data in. */
static void test_page_keeps_its_data_apart(void **state)
{
    struct buf page = {0};
    json_t *o = json_pack("{s:s}", "title", "</script><script>alert(1)</script><!--");
    (void)state;
    report_html(o, &page);
    buf_append(&page, "", 1);
    assert_null(strstr((const char *)page.ptr, "alert(1)</script>"));
    assert_non_null(strstr((const char *)page.ptr, "\\u003c/script>\\u003cscript>alert(1)"));
    json_decref(o);
    buf_deinit(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_reads_every_key),
        cmocka_unit_test(test_events_become_those_of_the_world),
        cmocka_unit_test(test_flapping_is_drawn_from_the_seed),
        cmocka_unit_test(test_mistakes_are_told_with_their_place),
        cmocka_unit_test(test_too_many_events_are_told),
        cmocka_unit_test(test_run_same_seed_gives_same_report),
        cmocka_unit_test(test_run_tells_what_happened),
        cmocka_unit_test(test_run_a_short_queue_stalls_the_sender),
        cmocka_unit_test(test_run_others_relay_where_there_is_no_link),
        cmocka_unit_test(test_run_disks_fail_and_rot),
        cmocka_unit_test(test_run_tells_the_file_of_too_many_events),
        cmocka_unit_test(test_run_tells_what_was_looked_at),
        cmocka_unit_test(test_page_keeps_its_data_apart),
    };
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = -1; /* before any thread */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
