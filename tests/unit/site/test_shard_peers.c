/* site/shard_peers.h: real shards that three nodes keep: leading, following, handing over, stepping
 * down with records that are not committed, joining by a copy of the state, restarts at any point,
 * and messages between shards that are led by different nodes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/trio.h"

enum {
    OPS_MAX = 2000
};
static struct trio t;
static struct trio_op ops[OPS_MAX];
static unsigned op_count;

static int setup(void **state)
{
    (void)state;
    op_count = 0;
    t.checkpoint_bytes = 0;
    trio_init(&t);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trio_deinit(&t);
    return 0;
}

static bool all_lead(struct trio *w)
{
    return trio_leader(w, 0) != NULL && trio_leader(w, 1) != NULL;
}

static bool all_answered(struct trio *w)
{
    (void)w;
    for (unsigned i = 0; i < op_count; i++)
        if (ops[i].rc == 1)
            return false;
    return true;
}

/* Waits for one: a lease may end at any time, when this machine has other things to do. */
static struct shard *leader(unsigned shard)
{
    struct shard *s = trio_leader(&t, shard);
    while (s == NULL) {
        trio_run(&t, all_lead);
        s = trio_leader(&t, shard);
    }
    return s;
}

static struct shard *root_leader(void)
{
    return leader(oid_shard(OID_ROOT) % TRIO_SHARDS);
}

static void make_some(unsigned count, int (*make)(struct trio *, struct shard *, struct trio_op *))
{
    while (count > 0) {
        int rc = make(&t, root_leader(), &ops[op_count]);
        assert_true(rc == 0 || rc == ERR_NOT_PRIMARY);
        op_count += rc == 0;
        count -= rc == 0;
    }
}

static void create_some(unsigned count)
{
    make_some(count, trio_create);
}

static unsigned node_of(const struct shard *s)
{
    for (unsigned i = 0; i < TRIO_NODES; i++)
        for (unsigned k = 0; k < TRIO_SHARDS; k++)
            if (t.nodes[i].shards[k] == s)
                return i;
    fail();
    return 0;
}

static unsigned answered(unsigned first)
{
    unsigned count = 0;
    for (unsigned i = first; i < op_count; i++)
        count += ops[i].rc == 0;
    return count;
}

static void assert_answered_shows(void)
{
    for (unsigned i = 0; i < op_count; i++)
        if (ops[i].rc == 0)
            assert_true(trio_shows(root_leader(), &ops[i]));
}

static bool three_in_sync(struct trio *w)
{
    for (unsigned i = 0; i < TRIO_SHARDS; i++)
        if (w->net.records[i].in_sync_count < TRIO_NODES)
            return false;
    return all_lead(w);
}

static void test_followers_hold_what_the_leader_answered(void **state)
{
    (void)state;
    trio_run(&t, three_in_sync);
    create_some(200);
    assert_int_equal(ops[199].rc, 1); /* nothing is answered before the others have it */
    trio_run(&t, all_answered);
    assert_true(answered(0) > 0);
    trio_run(&t, trio_equal);
    for (unsigned i = 0; i < TRIO_NODES; i++)
        for (unsigned k = 0; k < op_count; k++)
            assert_true(ops[k].rc != 0 || trio_shows(t.nodes[i].shards[0], &ops[k]));
    trio_assert_equal_on_disk(&t);
    assert_answered_shows();
}

static void test_a_follower_does_not_serve(void **state)
{
    (void)state;
    trio_run(&t, three_in_sync);
    unsigned other = (node_of(root_leader()) + 1) % TRIO_NODES;
    struct shard *follower = t.nodes[other].shards[0];
    assert_false(shard_serves(follower));
    assert_int_equal(trio_create(&t, follower, &ops[0]), ERR_NOT_PRIMARY);
    const struct shard_message m = {
        .from = 1, .number = 1, .type = RECORD_DERIVED, .bytes = slice_str("x")};
    assert_int_equal(shard_receive(follower, &m), ERR_NOT_PRIMARY);
    assert_int_equal(log_last(shard_log(follower)), log_last(shard_log(root_leader())));
}

static unsigned led_before;
static bool another_leads(struct trio *w)
{
    struct shard *s = trio_leader(w, 0);
    return s != NULL && node_of(s) != led_before;
}

static void test_hand_over(void **state)
{
    (void)state;
    trio_run(&t, three_in_sync);
    for (unsigned round = 0; round < 3; round++) {
        trio_run(&t, three_in_sync);
        create_some(50);
        led_before = node_of(root_leader());
        shard_resign(t.nodes[led_before].shards[0]);
        assert_false(shard_serves(t.nodes[led_before].shards[0]));
        assert_true(t.nodes[led_before].leads_no_more > 0);
        trio_run(&t, another_leads);
        assert_true(all_answered(&t)); /* who was not answered was told so */
        assert_answered_shows();
    }
    create_some(10);
    trio_run(&t, all_answered);
    trio_assert_equal_on_disk(&t);
    assert_answered_shows();
}

/* What a primary that is cut off has applied alone is never committed, never written down, and gone
 * from its state when it follows again. */
static void test_stepping_down_drops_what_is_not_committed(void **state)
{
    (void)state;
    trio_run(&t, three_in_sync);
    struct shard *old = NULL;
    unsigned first = 0, tries = 0;
    uint64_t committed = 0;
    for (; op_count - first < 30; tries++) { /* again, should its lease have ended meanwhile */
        assert_true(tries < 100);
        create_some(20);
        trio_run(&t, all_answered);
        trio_run(&t, trio_equal);
        old = root_leader();
        led_before = node_of(old);
        committed = shard_committed(old);
        first = op_count;
        t.nodes[led_before].cut = true;
        while (op_count - first < 30 && trio_create(&t, old, &ops[op_count]) == 0)
            op_count++;
        t.nodes[led_before].cut = op_count - first == 30;
    }
    shard_checkpoint(old, true); /* frozen with them; S1 keeps it from being written */
    assert_true(trio_shows(old, &ops[op_count - 1]));
    trio_run(&t, another_leads);
    trio_run(&t, all_answered);
    assert_false(shard_serves(old));
    for (unsigned i = first; i < op_count; i++) {
        assert_int_equal(ops[i].rc, ERR_NOT_PRIMARY);
        assert_false(trio_shows(old, &ops[i]));
        assert_false(trio_shows(root_leader(), &ops[i]));
    }
    assert_int_equal(state_index(shard_state(old)), committed);
    assert_true(state_stored_index(shard_state(old)) <= committed);
    create_some(5);
    t.nodes[led_before].cut = false;
    trio_run(&t, trio_equal);
    for (unsigned i = first; i < first + 30; i++)
        assert_false(trio_shows(old, &ops[i]));
    trio_assert_equal_on_disk(&t);
    assert_answered_shows();
}

static bool leader_trimmed(struct trio *w)
{
    struct shard *s = trio_leader(w, 0);
    if (s == NULL)
        return false;
    shard_checkpoint(s, true);
    return log_first(shard_log(s)) > 1;
}

static void test_joining_by_a_copy_of_the_state(void **state)
{
    (void)state;
    trio_run(&t, three_in_sync);
    led_before = node_of(root_leader());
    struct trio_node *lost = &t.nodes[(led_before + 1) % TRIO_NODES];
    trio_stop(lost);
    trio_wipe(lost);
    for (unsigned i = 0; i < 6; i++) {
        create_some(200);
        trio_run(&t, all_answered);
    }
    trio_run(&t, leader_trimmed);
    trio_start(lost);
    create_some(50);
    trio_run(&t, trio_equal);
    assert_true(log_first(shard_log(lost->shards[0])) > 1); /* it could not have had it all */
    assert_false(replica_blank(shard_replica(lost->shards[0])));
    for (unsigned i = 0; i < op_count; i++)
        assert_true(ops[i].rc != 0 || trio_shows(lost->shards[0], &ops[i]));
    assert_true(answered(0) > 1000);
    trio_assert_equal_on_disk(&t);
    assert_answered_shows();
}

/* A copy that its node did not finish is thrown away at the start. */
static void test_a_copy_is_broken_off_by_a_restart(void **state)
{
    (void)state;
    trio_run(&t, three_in_sync);
    struct trio_node *lost = &t.nodes[(node_of(root_leader()) + 1) % TRIO_NODES];
    trio_stop(lost);
    trio_wipe(lost);
    for (unsigned i = 0; i < 6; i++) {
        create_some(200);
        trio_run(&t, all_answered);
    }
    trio_run(&t, leader_trimmed);
    for (unsigned i = 0; i < 5; i++) {
        trio_start(lost);
        for (unsigned k = 0; k < 40 * i; k++) { /* a few turns further each time */
            struct shard *s = lost->shards[0];
            if (shard_is_copying(s) && s->role.copy.page > 1)
                break;
            trio_run(&t, all_lead);
        }
        trio_stop(lost);
    }
    trio_start(lost);
    trio_run(&t, trio_equal);
    trio_assert_equal_on_disk(&t);
    assert_answered_shows();
}

static bool different_nodes_lead(struct trio *w)
{
    return three_in_sync(w) && node_of(trio_leader(w, 0)) != node_of(trio_leader(w, 1));
}

static void lead_apart(void)
{
    while (!different_nodes_lead(&t)) {
        trio_run(&t, three_in_sync);
        led_before = node_of(leader(1));
        if (led_before == node_of(leader(0))) {
            shard_resign(leader(1));
            trio_run(&t, all_lead);
        }
    }
}

/* A directory whose own shard is led by another node: the proposal is done when that one has it. */
static void test_messages_between_shards_of_different_nodes(void **state)
{
    (void)state;
    lead_apart();
    struct dir_view v;
    make_some(20, trio_mkdir_elsewhere);
    trio_run(&t, all_answered);
    assert_true(answered(0) > 0);
    for (unsigned i = 0; i < op_count; i++)
        if (ops[i].rc == 0)
            assert_int_equal(merge_dir(shard_merge(leader(1)), ops[i].oid, &v), 0);
    trio_assert_equal_on_disk(&t); /* and all outboxes are empty */
    assert_answered_shows();
}

/* Its receiver dies before the message is committed there: the sender sends it to the next one. */
static void test_messages_outlive_their_receivers_leader(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        struct dir_view v;
        lead_apart();
        make_some(10, trio_mkdir_elsewhere);
        unsigned receiver = node_of(leader(1));
        trio_stop(&t.nodes[receiver]);
        trio_run(&t, all_answered);
        for (unsigned i = 0; i < op_count; i++)
            if (ops[i].rc == 0)
                assert_int_equal(merge_dir(shard_merge(leader(1)), ops[i].oid, &v), 0);
        trio_start(&t.nodes[receiver]);
    }
    trio_assert_equal_on_disk(&t);
    assert_answered_shows();
}

static struct shard *live_copy(unsigned shard)
{
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (t.nodes[i].shards[shard]->live)
            return t.nodes[i].shards[shard];
    return NULL;
}

static bool another_takes_over(struct trio *w)
{
    (void)w;
    return live_copy(0) != NULL && node_of(live_copy(0)) != led_before;
}

/* N5: its stored results would say more than the other shard knows. */
static void test_a_leader_serves_when_what_it_found_is_delivered(void **state)
{
    struct dir_view v;
    (void)state;
    trio_run(&t, three_in_sync);
    t.net.hold = true;
    make_some(1, trio_mkdir_elsewhere);
    uint64_t index = log_last(shard_log(root_leader()));
    while (shard_committed(root_leader()) < index)
        trio_run(&t, all_lead);
    assert_int_equal(ops[0].rc, 1); /* N4: its other shard has not heard of it */
    led_before = node_of(root_leader());
    shard_resign(t.nodes[led_before].shards[0]);
    assert_int_equal(ops[0].rc, ERR_NOT_PRIMARY);
    trio_run(&t, another_takes_over);
    struct shard *s = live_copy(0);
    assert_true(shard_outbox_count(s) > 0);
    assert_false(shard_serves(s));
    assert_int_equal(trio_create(&t, s, &ops[1]), ERR_NOT_PRIMARY);
    t.net.hold = false;
    trio_run(&t, all_lead);
    assert_int_equal(merge_dir(shard_merge(leader(1)), ops[0].oid, &v), 0);
    trio_assert_equal_on_disk(&t);
}

/* An operation that names what this shard has not heard of would wait in it, and the next one would
 * get its number: it is refused. */
static void test_an_operation_before_its_time_is_refused(void **state)
{
    const struct dot unknown = {.shard = 1, .site = 7, .seq = 999};
    struct op_builder b = {0};
    struct proposal p = {0};
    (void)state;
    trio_run(&t, three_in_sync);
    struct shard *s = root_leader();
    uint64_t last = log_last(shard_log(s));
    struct effect *e = op_builder_add(&b, EFFECT_LEAVE, shard_new_oid(s, OID_FILE));
    e->parent = OID_ROOT;
    e->name = slice_str("x");
    e->dots = &unknown;
    e->dot_count = 1;
    assert_int_equal(shard_propose(s, &b, &p, NULL), ERR_AGAIN);
    assert_int_equal(log_last(shard_log(s)), last);
    op_builder_deinit(&b);
}

/* Any node may be closed and opened at any moment, also all of them. */
static void test_restarts(void **state)
{
    struct rng rng;
    (void)state;
    rng_seed(&rng, 4);
    trio_run(&t, three_in_sync);
    for (unsigned round = 0; round < 25; round++) {
        trio_run(&t, all_lead);
        for (uint64_t i = rng_below(&rng, 20); i > 0; i--) {
            bool dir = rng_below(&rng, 3) == 0;
            make_some(1, dir ? trio_mkdir_elsewhere : trio_create);
        }
        for (uint64_t i = rng_below(&rng, 4); i > 0; i--)
            trio_run(&t, all_lead);
        unsigned which = (unsigned)rng_below(&rng, TRIO_NODES + 1);
        for (unsigned i = 0; i < TRIO_NODES; i++)
            if (which == i || which == TRIO_NODES)
                trio_stop(&t.nodes[i]);
        for (unsigned i = 0; i < op_count; i++) /* their answers went with the node */
            ops[i].rc = ops[i].rc == 1 && which == TRIO_NODES ? ERR_CLOSED : ops[i].rc;
        for (unsigned i = 0; i < TRIO_NODES; i++)
            if (t.nodes[i].shards[0] == NULL)
                trio_start(&t.nodes[i]);
    }
    trio_run(&t, trio_equal);
    assert_answered_shows();
    trio_assert_equal_on_disk(&t);
    assert_answered_shows();
}

static void assert_refused(struct slice s)
{
    struct shard_copy_msg m;
    assert_true(shard_copy_decode(s, &m) != 0);
}

static void test_copy_messages(void **state)
{
    struct buf b = {0}, pairs = {0};
    struct shard_copy_msg m = {.kind = SHARD_COPY_PAGE,
                               .last = true,
                               .id = 5,
                               .page = 2,
                               .index = 10,
                               .first = 11,
                               .count = 1},
                          got;
    struct slice key, value;
    (void)state;
    enc_bytes(&pairs, slice_str("key"));
    enc_bytes(&pairs, slice_str(""));
    m.pairs = buf_slice(&pairs);
    shard_copy_encode(&b, &m);
    assert_int_equal(shard_copy_decode(buf_slice(&b), &got), 0);
    assert_true(got.last && got.id == 5 && got.page == 2 && got.index == 10 && got.first == 11);
    shard_copy_next(&got.pairs, &key, &value);
    assert_true(slice_equal(key, slice_str("key")) && value.len == 0 && got.pairs.len == 0);
    for (size_t i = 0; i < b.len; i++)
        assert_refused(slice_of(b.ptr, i));
    b.ptr[4] = 2;
    assert_refused(buf_slice(&b));
    b.ptr[4] = 1;
    b.ptr[32] = 12; /* the journal would begin behind the state */
    assert_refused(buf_slice(&b));
    buf_deinit(&b);
    buf_deinit(&pairs);
    enc_bytes(&pairs, slice_of("\xff\xff\x01", 3)); /* of the store itself */
    enc_bytes(&pairs, slice_str("x"));
    m.pairs = buf_slice(&pairs);
    shard_copy_encode(&b, &m);
    assert_refused(buf_slice(&b));
    buf_deinit(&b);
    buf_deinit(&pairs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_messages),
        cmocka_unit_test_setup_teardown(test_followers_hold_what_the_leader_answered, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_follower_does_not_serve, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hand_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stepping_down_drops_what_is_not_committed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_joining_by_a_copy_of_the_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_copy_is_broken_off_by_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages_between_shards_of_different_nodes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_messages_outlive_their_receivers_leader, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_leader_serves_when_what_it_found_is_delivered, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_operation_before_its_time_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_restarts, setup, teardown),
    };
    if (argc > 1) /* one of them */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
