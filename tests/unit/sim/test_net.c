/* Lines between sites, to the nanosecond: what waits for bandwidth, who waits for room, tails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "sim/net.h"

#define ENDS 3u
#define PIECE 100u

/* A sender that always has more to say, and the other end of its connection. */
struct pair {
    struct net_end from, to;
    uint64_t arrived, last_ns, turns, turn_ns, broken;
    bool greedy;
};
static struct sched world;
static struct pair pairs[ENDS];
static unsigned accepted;

static struct net_msg *message(size_t bytes)
{
    struct net_msg *m = mem_calloc(1, sizeof *m);
    m->bytes = bytes;
    return m;
}

static void pump(struct pair *p)
{
    while (p->from.conn != NULL && net_room(&p->from) >= PIECE)
        net_send(&p->from, message(PIECE));
    if (p->from.conn != NULL)
        net_wait(&p->from);
}

static void on_room(struct net_end *e)
{
    struct pair *p = CONTAINER_OF(e, struct pair, from);
    p->turns++;
    p->turn_ns = sched->now_ns;
    if (p->greedy)
        pump(p);
}

static void on_broken(struct net_end *e)
{
    for (unsigned i = 0; i < ENDS; i++)
        pairs[i].broken += e == &pairs[i].from || e == &pairs[i].to;
}

static void on_arrival(struct net_end *e, struct net_msg *m)
{
    struct pair *p = CONTAINER_OF(e, struct pair, to);
    p->arrived += m->bytes;
    p->last_ns = sched->now_ns;
    mem_free(m);
}

static void on_accept(void *ctx, struct net_conn *c, struct net_msg *first)
{
    (void)ctx;
    net_attach(c, &pairs[accepted++].to);
    mem_free(first);
}

/* Two sites, a line without latency, `count` connections over it. */
static void begin(struct world_link line, unsigned count)
{
    static struct world_config c;
    memset(pairs, 0, sizeof pairs);
    accepted = 0;
    sched_init(&world, 1);
    sched = &world;
    world_config_init(&c, 2, 1);
    c.links[0][1] = line;
    net_init(&c);
    net_listen(1, on_accept, NULL);
    for (unsigned i = 0; i < count; i++) {
        pairs[i].from = (struct net_end){.broken = on_broken, .room = on_room};
        pairs[i].to = (struct net_end){.deliver = on_arrival, .broken = on_broken};
        pairs[i].greedy = true;
        net_dial(&pairs[i].from, 0, 1, message(0));
    }
}

static void run_until(uint64_t ns)
{
    while (sched_step(ns))
        continue;
}

static void end(void)
{
    net_deinit();
    sched_deinit(&world);
    sched = NULL;
}

static const struct world_link slow = {.bytes_per_s = 1000, .queue_bytes = 1000};

static void test_room_ends_and_comes_back_when_half_is_free(void **state)
{
    struct pair *p = &pairs[0];
    (void)state;
    begin(slow, 1);
    run_until(0);
    assert_int_equal(accepted, 1);
    assert_int_equal(net_room(&p->from), 1000);
    pump(p);
    assert_int_equal(net_room(&p->from), 0);
    p->greedy = false;
    run_until(NS_PER_SEC / 2 - 1);
    assert_int_equal(p->turns, 0);
    assert_int_equal(net_room(&p->from), 0); /* it waits for its turn, though some is free */
    run_until(NS_PER_SEC / 2);
    assert_int_equal(p->turns, 1);
    assert_int_equal(net_room(&p->from), 500);
    run_until(NS_PER_SEC);
    assert_int_equal(p->turns, 1); /* it asked once */
    assert_int_equal(p->arrived, 1000);
    assert_int_equal(p->last_ns, NS_PER_SEC);
    assert_int_equal(net_room(&p->from), 1000);
    const struct net_traffic *t = net_traffic(0, 1);
    assert_int_equal(t->waits, 1);
    assert_int_equal(t->queued_max, 1000);
    end();
}

/* However much there is to say: never more than the queue waits, and the line is never idle. */
static void test_queue_is_never_longer_than_it_is(void **state)
{
    (void)state;
    begin(slow, 1);
    run_until(0);
    pump(&pairs[0]);
    run_until(100 * NS_PER_SEC);
    assert_int_equal(net_traffic(0, 1)->queued_max, 1000);
    assert_int_equal(pairs[0].arrived, 100000);
    assert_int_equal(pairs[0].turns, 200);
    end();
}

static void test_all_who_wait_have_their_turn(void **state)
{
    (void)state;
    begin(slow, ENDS);
    run_until(0);
    for (unsigned i = 0; i < ENDS; i++)
        pump(&pairs[i]);
    run_until(90 * NS_PER_SEC);
    assert_int_equal(net_traffic(0, 1)->queued_max, 1000);
    for (unsigned i = 0; i < ENDS; i++)
        assert_in_range(pairs[i].arrived, 29000, 31000);
    end();
}

/* One that waits and has nothing to say any more lets the next one have it at once. */
static void test_a_turn_that_is_not_used_is_the_next_ones(void **state)
{
    (void)state;
    begin(slow, 2);
    run_until(0);
    pump(&pairs[0]);
    pump(&pairs[1]);
    pairs[0].greedy = false;
    run_until(NS_PER_SEC / 2);
    assert_int_equal(pairs[0].turns, 1);
    assert_int_equal(pairs[1].turns, 1);
    assert_int_equal(pairs[1].turn_ns, NS_PER_SEC / 2);
    assert_true(net_room(&pairs[0].from) < PIECE);
    end();
}

static void test_who_left_or_broke_has_no_turn(void **state)
{
    (void)state;
    begin(slow, 3);
    run_until(0);
    for (unsigned i = 0; i < 3; i++)
        pump(&pairs[i]);
    net_leave(&pairs[1].from, true);
    run_until(NS_PER_SEC);
    assert_int_equal(pairs[1].turns, 0);
    assert_true(pairs[0].turns > 0 && pairs[2].turns > 0);
    pump(&pairs[0]);
    uint64_t turns = pairs[0].turns;
    net_reset(0, 1);
    assert_int_equal(pairs[0].broken, 2);
    run_until(10 * NS_PER_SEC);
    assert_int_equal(pairs[0].turns, turns);
    assert_int_equal(net_room(&pairs[0].from), 0);
    end();
}

static void test_a_line_without_bound_has_no_queue(void **state)
{
    (void)state;
    begin((struct world_link){.queue_bytes = 1}, 1);
    run_until(0);
    for (unsigned i = 0; i < 100; i++)
        net_send(&pairs[0].from, message(MIB));
    assert_true(net_room(&pairs[0].from) > (size_t)GIB);
    run_until(0);
    assert_int_equal(pairs[0].arrived, 100 * MIB);
    assert_int_equal(net_traffic(0, 1)->queued_max, 0);
    end();
}

/* A second apart, so that none holds another one up: of a tenth the latency is 300 ms more. */
static void test_tail_of_the_latency(void **state)
{
    unsigned late = 0;
    (void)state;
    begin((struct world_link){.delay = {.base_ns = 20 * NS_PER_MS,
                                        .tail_per_million = 100000,
                                        .tail_ns = 300 * NS_PER_MS}},
          1);
    run_until(NS_PER_SEC);
    for (uint64_t i = 1; i <= 1000; i++) {
        net_send(&pairs[0].from, message(1));
        run_until((i + 1) * NS_PER_SEC);
        uint64_t took = pairs[0].last_ns - i * NS_PER_SEC;
        assert_true(took == 20 * NS_PER_MS || took == 320 * NS_PER_MS);
        late += took > 20 * NS_PER_MS;
    }
    assert_in_range(late, 70, 130);
    end();
}

static void test_a_link_that_is_not_there_carries_nothing(void **state)
{
    (void)state;
    begin((struct world_link){.absent = true}, 1);
    assert_true(net_is_cut(0, 1));
    run_until(60 * NS_PER_SEC);
    assert_int_equal(accepted, 0);
    net_cut(0, 1, false);
    run_until(120 * NS_PER_SEC);
    assert_int_equal(accepted, 0);
    net_leave(&pairs[0].from, true);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room_ends_and_comes_back_when_half_is_free),
        cmocka_unit_test(test_queue_is_never_longer_than_it_is),
        cmocka_unit_test(test_all_who_wait_have_their_turn),
        cmocka_unit_test(test_a_turn_that_is_not_used_is_the_next_ones),
        cmocka_unit_test(test_who_left_or_broke_has_no_turn),
        cmocka_unit_test(test_a_line_without_bound_has_no_queue),
        cmocka_unit_test(test_tail_of_the_latency),
        cmocka_unit_test(test_a_link_that_is_not_there_carries_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
