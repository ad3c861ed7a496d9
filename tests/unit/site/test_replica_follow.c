/* site/replica.h, rule by rule: a replica that follows, and takes over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/replica_one.h"

/* ---- following ---- */

static void test_follower_answers_when_its_disk_has_it(void **state)
{
    struct one f;
    struct replica_msg m;
    (void)state;
    one_follow(&f);
    one_append(&f, 3, 5, 1, 5, 2);
    assert_int_equal(one_found(&f, REPLICA_APPEND)->index, 6);
    assert_int_equal(one_found(&f, REPLICA_APPEND)->epoch, 3);
    assert_false(one_sent(&f, 2, &m));
    one_durable(&f, 6);
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.index, 6);
    one_durable(&f, 7);
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.index, 7);
    one_append(&f, 3, 5, 1, 5, 2); /* repeated */
    assert_null(one_found(&f, REPLICA_APPEND));
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.index, 7);
    one_close(&f);
}

static void test_follower_cuts_what_differs(void **state)
{
    struct one f;
    (void)state;
    one_follow(&f);
    one_append(&f, 3, 4, 1, 4, 1); /* the primary's journal had ended at 4 */
    assert_int_equal(f.effects.at[0].kind, REPLICA_CUT);
    assert_int_equal(f.effects.at[0].index, 4);
    assert_int_equal(f.effects.at[1].kind, REPLICA_APPEND);
    assert_int_equal(f.effects.at[1].index, 5);
    one_close(&f);
}

static void test_follower_refuses_a_gap_and_another_past(void **state)
{
    struct one f;
    struct replica_msg m;
    (void)state;
    one_follow(&f);
    one_append(&f, 3, 8, 3, 5, 1); /* a gap */
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.flags & REPLICA_FLAG_MATCH, 0);
    assert_int_equal(m.hint, 5);
    one_append(&f, 3, 5, 2, 5,
               1); /* 5 is of epoch 2 there: what we have of epoch 1 may still agree */
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.hint, 4);
    assert_null(one_found(&f, REPLICA_APPEND));
    one_close(&f);
}

static void test_primary_that_is_far_ahead_is_answered(void **state)
{
    struct one f;
    struct replica_msg m;
    (void)state;
    one_follow(&f);
    one_append(&f, 3, 8, 3, 4,
               0); /* we have a record that it never had, and lack some of its own */
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.hint, 5);
    assert_null(one_found(&f, REPLICA_CUT)); /* not before it is known where we agree */
    one_close(&f);
}

static void test_committed_records_are_never_cut(void **state)
{
    struct one f;
    struct buf records = {0};
    (void)state;
    one_follow(&f);
    assert_true(replica_records_add(&records, 3, slice_str("other")));
    one_message(&f,
                (struct replica_msg){.kind = REPLICA_MSG_APPEND,
                                     .node = 2,
                                     .epoch = 3,
                                     .index = 2,
                                     .index_epoch = 1,
                                     .last = 2,
                                     .count = 1,
                                     .records = buf_slice(&records)},
                ERR_PEER);
    assert_int_equal(f.effects.count, 0);
    buf_deinit(&records);
    one_close(&f);
}

static void test_stale_epoch_is_refused_and_told(void **state)
{
    struct one f;
    struct replica_msg m;
    (void)state;
    one_follow(&f);
    one_append(&f, 2, 5, 1, 5, 1);
    assert_null(one_found(&f, REPLICA_APPEND));
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.kind, REPLICA_MSG_STALE);
    assert_int_equal(m.epoch, 3);
    one_close(&f);
}

static void test_backup_waits_the_lease_out(void **state)
{
    struct one f;
    (void)state;
    one_follow(&f);
    uint64_t seen_ns = f.now_ns;
    while (!f.swap) {
        assert_true(f.now_ns - seen_ns < 8 * NS_PER_SEC);
        one_tick(&f, 500 * NS_PER_MS);
        if (!f.swap && one_found(&f, REPLICA_ASK) != NULL)
            one_answer(&f);
    }
    assert_true(f.now_ns - seen_ns >= 6 * NS_PER_SEC + 6 * NS_PER_SEC / 8);
    assert_int_equal(f.wanted.epoch, 4);
    assert_int_equal(f.wanted.in_sync_count, 2); /* not the one that was silent */
    one_answer(&f);
    assert_int_equal(one_found(&f, REPLICA_LEAD)->epoch, 4);
    one_close(&f);
}

static void test_lease_that_is_renewed_is_waited_for_anew(void **state)
{
    struct one f;
    (void)state;
    one_follow(&f);
    for (int i = 0; i < 40; i++) {
        one_tick(&f, 500 * NS_PER_MS);
        if (i % 4 == 0)
            f.record.version++; /* cut off from us, not from the coordinator */
        if (one_found(&f, REPLICA_ASK) != NULL)
            one_answer(&f);
        assert_false(f.swap);
    }
    one_close(&f);
}

static void test_lease_given_back_is_taken_at_once(void **state)
{
    struct one f;
    (void)state;
    one_follow(&f);
    one_append(&f, 3, 5, 1, 5, 0);
    f.record.version++;
    f.record.primary = 0;
    f.record.lease_ns = 0;
    one_message(&f, (struct replica_msg){.kind = REPLICA_MSG_LEFT, .node = 2, .epoch = 3}, 0);
    one_answer(&f);
    assert_true(f.swap);
    one_close(&f);
}

static void asks_and_never_swaps(struct one *f)
{
    for (int i = 0; i < 60; i++) {
        one_tick(f, 500 * NS_PER_MS);
        if (one_found(f, REPLICA_ASK) != NULL)
            one_answer(f);
        assert_false(f->swap);
    }
}

static void test_replica_out_of_the_record_does_not_take_over(void **state)
{
    struct one f;
    (void)state;
    one_follow(&f);
    f.record.version++;
    f.record.in_sync_count = 2;
    f.record.in_sync[0] = 3;
    asks_and_never_swaps(&f);
    one_close(&f);
}

static void test_blank_copy_does_not_take_over(void **state)
{
    struct one f;
    (void)state;
    one_open(&f, (struct replica_config){.blank = true});
    f.record = (struct shard_record){
        .version = 3, .epoch = 2, .primary = 1, .in_sync_count = 1, .in_sync = {1}};
    asks_and_never_swaps(&f);
    one_close(&f);
}

/* It is taken out of the record for being blank; if it did not look it would stay out for ever. */
static void test_blank_copy_that_follows_learns_that_it_is_out(void **state)
{
    struct one f;
    (void)state;
    one_open(&f, (struct replica_config){.blank = true});
    f.record = (struct shard_record){.version = 9,
                                     .epoch = 3,
                                     .primary = 2,
                                     .lease_ns = 6 * NS_PER_SEC,
                                     .in_sync_count = 2,
                                     .in_sync = {1, 2}};
    one_tick(&f, 0);
    one_answer(&f);
    one_append(&f, 3, 0, 0, 0, 0); /* the primary is heard, all the time */
    assert_true(replica_blank(f.core));
    f.record.version++;
    f.record.in_sync_count = 1;
    f.record.in_sync[0] = 2;
    for (unsigned i = 0; i < 20; i++) {
        uint64_t before = f.request;
        one_tick(&f, 100 * NS_PER_MS);
        if (f.request != before)
            one_answer(&f);
        one_append(&f, 3, 0, 0, 0, 0);
    }
    assert_false(replica_blank(f.core));
    one_close(&f);
}

static void test_late_word_does_not_cost_a_copy(void **state)
{
    struct one f;
    struct replica_msg m, need = {.kind = REPLICA_MSG_NEED_COPY, .node = 2, .epoch = 3, .life = 1};
    (void)state;
    one_follow(&f);
    f.record.version++;
    f.record.in_sync_count = 1;
    f.record.in_sync[0] = 2;
    one_tick(&f, 2 * NS_PER_SEC);
    one_answer(&f); /* we are out of the record */
    one_append(&f, 3, 8, 3, 5, 1);
    assert_true(one_sent(&f, 2, &m));
    need.seq = m.seq;
    one_append(&f, 3, 5, 1, 5, 4); /* meanwhile what we lacked came */
    one_message(&f, need, 0);
    assert_null(one_found(&f, REPLICA_COPY));
    one_append(&f, 3, 20, 3, 5, 1);
    assert_true(one_sent(&f, 2, &m));
    need.seq = m.seq;
    one_message(&f, need, 0);
    assert_int_equal(one_found(&f, REPLICA_COPY)->node, 2);
    one_append(&f, 3, 20, 3, 5, 0);
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.flags, REPLICA_FLAG_BUSY);
    one_step(&f, (struct replica_event){.kind = REPLICA_COPIED, .index = 15, .life = 2}, 0);
    one_append(&f, 3, 14, 3, 5, 2);
    assert_int_equal(one_found(&f, REPLICA_APPEND)->index, 15);
    one_close(&f);
}

static void test_strangers_and_garbage_are_refused(void **state)
{
    struct one f;
    (void)state;
    one_follow(&f);
    one_message(&f, (struct replica_msg){.kind = REPLICA_MSG_LEFT, .node = 9, .epoch = 3},
                ERR_PEER);
    one_step(&f,
             (struct replica_event){.kind = REPLICA_MESSAGE, .node = 2, .bytes = slice_str("junk")},
             ERR_TRUNCATED);
    one_message(&f, (struct replica_msg){.kind = REPLICA_MSG_LEFT, .node = 2}, ERR_MALFORMED);
    one_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follower_answers_when_its_disk_has_it),
        cmocka_unit_test(test_follower_cuts_what_differs),
        cmocka_unit_test(test_follower_refuses_a_gap_and_another_past),
        cmocka_unit_test(test_primary_that_is_far_ahead_is_answered),
        cmocka_unit_test(test_committed_records_are_never_cut),
        cmocka_unit_test(test_stale_epoch_is_refused_and_told),
        cmocka_unit_test(test_backup_waits_the_lease_out),
        cmocka_unit_test(test_lease_that_is_renewed_is_waited_for_anew),
        cmocka_unit_test(test_lease_given_back_is_taken_at_once),
        cmocka_unit_test(test_replica_out_of_the_record_does_not_take_over),
        cmocka_unit_test(test_blank_copy_does_not_take_over),
        cmocka_unit_test(test_blank_copy_that_follows_learns_that_it_is_out),
        cmocka_unit_test(test_late_word_does_not_cost_a_copy),
        cmocka_unit_test(test_strangers_and_garbage_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
