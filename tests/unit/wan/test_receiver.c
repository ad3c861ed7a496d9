/* The receiving end: order, one batch at a time, acknowledgements of what is durable and only
 * that, batches from the future. */
#include "base/hlc.h"
#include "tests/unit/wan/wan_test.h"
#include "wan/receiver.h"

enum {
    SHARDS = 4,
    SELF = 1,
    PEER = 2
};
struct world {
    struct receiver r;
    struct batch_memory sender;
    uint64_t number, seq, next[SHARDS];
    struct vv vvs[SHARDS];
    struct buf wire, noise;
};
#define WALL (UINT64_C(1750000000) * NS_PER_SEC)

static int setup(void **state)
{
    struct world *w = mem_calloc(1, sizeof *w);
    receiver_init(&w->r, SHARDS, SELF, PEER, 1);
    batch_memory_init(&w->sender, SHARDS);
    for (int s = 0; s < SHARDS; s++)
        w->next[s] = 1;
    receiver_begin(&w->r, w->next, w->vvs);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    receiver_deinit(&w->r);
    batch_memory_deinit(&w->sender);
    buf_deinit(&w->wire);
    buf_deinit(&w->noise);
    mem_free(w);
    return 0;
}

/* A batch of one operation in shard 1, stamped as told. */
static void batch_make(struct world *w, uint64_t hlc)
{
    struct buf op = {0};
    struct dot dot = {.seq = ++w->seq, .site = PEER, .shard = 1};
    test_op(dot, hlc, 0, slice_str("body"), &op);
    struct batch_item item = {.shard = 1, .op = buf_slice(&op)};
    struct batch b = {.number = ++w->number, .hlc = hlc, .items = &item, .count = 1};
    b.cursor[1] = w->seq + 1;
    buf_clear(&w->wire);
    buf_clear(&w->noise);
    batch_encode(&w->sender, &b, &w->wire, &w->noise);
    buf_deinit(&op);
}

static void test_receiver_one_batch_at_a_time_in_order(void **state)
{
    struct world *w = *state;
    uint64_t hlc = hlc_from_wall(WALL);
    assert_null(receiver_next(&w->r, WALL));
    batch_make(w, hlc);
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    batch_make(w, hlc + 1);
    assert_true(receiver_has_room(&w->r));
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    assert_false(receiver_has_room(&w->r));
    const struct receiver_slot *first = receiver_next(&w->r, WALL);
    assert_int_equal(first->decoded.batch.number, 1);
    assert_null(receiver_next(&w->r, WALL)); /* the first is being applied */
    receiver_applied(&w->r);
    assert_true(receiver_has_room(&w->r));
    assert_int_equal(receiver_next(&w->r, WALL)->decoded.batch.number, 2);
    receiver_applied(&w->r);
    assert_int_equal(w->r.ops_applied, 2);
    assert_int_equal(w->r.lag.applied_hlc, hlc + 1);
}

static void test_receiver_batch_missing_one_is_refused(void **state)
{
    struct world *w = *state;
    batch_encode(&w->sender, &(struct batch){.number = 2}, &w->wire, &w->noise);
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), ERR_PEER);
    assert_true(receiver_has_room(&w->r));
}

static void test_receiver_heartbeat_counts_after_the_batches_before_it(void **state)
{
    struct world *w = *state;
    uint64_t head = hlc_from_wall(WALL);
    struct msg_heartbeat h = {
        .sent_hlc = head, .head_hlc = head, .ops_sent = 1, .wall_ns = WALL, .safe_hlc = head};
    batch_make(w, hlc_from_wall(WALL - 30 * NS_PER_SEC));
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    assert_non_null(receiver_next(&w->r, WALL));
    receiver_heartbeat(&w->r, &h, 0, 5, WALL);
    assert_int_equal(w->r.lag.applied_hlc, 0);
    receiver_applied(&w->r);
    assert_int_equal(w->r.lag.applied_hlc, head);
    assert_int_equal(lag_ns(&w->r.lag, 5), 0);
}

/* A heartbeat overtakes two batches that cannot be taken yet: what there is to go is known at once,
 * and all up to it is here when the second one is. */
static void test_receiver_hears_what_is_to_go_while_a_batch_is_held(void **state)
{
    struct world *w = *state;
    uint64_t ahead = WALL + RECEIVER_AHEAD_MAX_NS + 60 * NS_PER_SEC,
             head = hlc_from_wall(ahead) + 9;
    struct msg_heartbeat h = {
        .sent_hlc = head, .head_hlc = head, .ops_sent = 4, .wall_ns = ahead, .safe_hlc = head};
    for (int i = 0; i < 2; i++) {
        batch_make(w, hlc_from_wall(ahead) + (uint64_t)i);
        assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    }
    assert_null(receiver_next(&w->r, WALL));
    receiver_heartbeat(&w->r, &h, 2, 5, WALL);
    assert_int_equal(lag_ops(&w->r.lag), 4);
    for (int i = 2; i < 6; i++) {
        assert_int_equal(w->r.lag.applied_hlc, i == 2 ? 0 : hlc_from_wall(ahead) + (uint64_t)i - 3);
        assert_non_null(receiver_next(&w->r, ahead));
        receiver_applied(&w->r);
        if (i < 4) {
            batch_make(w, hlc_from_wall(ahead) + (uint64_t)i);
            assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
        }
    }
    assert_int_equal(w->r.lag.applied_hlc, head);
    assert_int_equal(lag_ops(&w->r.lag), 0);
    assert_int_equal(lag_ns(&w->r.lag, 5), 0);
}

static void test_receiver_ack_tells_what_is_durable_once(void **state)
{
    struct world *w = *state;
    struct msg_ack a;
    struct buf out = {0};
    assert_false(receiver_owes_ack(&w->r));
    w->next[2] = 10;
    assert_int_equal(vv_set(&w->vvs[2], PEER, 9), 0);
    assert_int_equal(vv_set(&w->vvs[3], SELF, 100), 0); /* its own: no news to anybody */
    receiver_durable(&w->r, w->next, w->vvs);
    assert_true(receiver_owes_ack(&w->r));
    receiver_ack(&w->r, WALL, 77, &out);
    assert_int_equal(msg_ack_decode(buf_slice(&out), SHARDS, &a), 0);
    assert_int_equal(a.next_count, 1);
    assert_int_equal(a.next[0].shard, 2);
    assert_int_equal(a.next[0].next, 10);
    assert_int_equal(a.seq_count, 1);
    assert_int_equal(a.seqs[0].seq, 9);
    assert_int_equal(a.wall_ns, WALL);
    msg_ack_deinit(&a);
    assert_false(receiver_owes_ack(&w->r));
    buf_deinit(&out);
}

static void test_receiver_next_holds_the_future(void **state)
{
    struct world *w = *state;
    batch_make(w, hlc_from_wall(WALL + RECEIVER_AHEAD_MAX_NS + 5 * NS_PER_SEC));
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    assert_null(receiver_next(&w->r, WALL));
    assert_int_equal(w->r.held_ahead_ns / NS_PER_SEC, 605);
    assert_non_null(receiver_next(&w->r, WALL + 6 * NS_PER_SEC));
    assert_int_equal(w->r.held_ahead_ns, 0);
    receiver_applied(&w->r);
}

/* The link goes while a batch is being applied: that one ends, the one behind it is dropped. */
static void test_receiver_end_keeps_what_is_applying(void **state)
{
    struct world *w = *state;
    batch_make(w, 1);
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    batch_make(w, 2);
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    assert_non_null(receiver_next(&w->r, WALL));
    receiver_end(&w->r);
    assert_true(receiver_is_applying(&w->r));
    receiver_applied(&w->r);
    assert_false(receiver_is_applying(&w->r));
    assert_null(receiver_next(&w->r, WALL));
    /* A new stream starts over with numbers and memory. */
    batch_memory_deinit(&w->sender);
    batch_memory_init(&w->sender, SHARDS);
    w->number = 0;
    receiver_begin(&w->r, w->next, w->vvs);
    batch_make(w, 3);
    assert_int_equal(receiver_batch(&w->r, buf_slice(&w->wire), buf_slice(&w->noise)), 0);
    assert_non_null(receiver_next(&w->r, WALL));
    receiver_failed(&w->r);
    assert_int_equal(w->r.ops_applied, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_receiver_one_batch_at_a_time_in_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_receiver_batch_missing_one_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_receiver_heartbeat_counts_after_the_batches_before_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_receiver_hears_what_is_to_go_while_a_batch_is_held,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_receiver_ack_tells_what_is_durable_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_receiver_next_holds_the_future, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receiver_end_keeps_what_is_applying, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
