/* site/replica.h, rule by rule: a primary, and a replica alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/replica_one.h"

/* ---- leading ---- */

static void test_record_commits_when_every_in_sync_replica_has_it(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    one_durable(&f, 6);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_reply(&f, 2, 6);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_reply(&f, 3, 6);
    assert_int_equal(one_found(&f, REPLICA_COMMIT)->index, 6);
    one_close(&f);
}

static void test_record_on_other_disks_waits_for_our_own(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    one_reply(&f, 2, 6);
    one_reply(&f, 3, 6);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_durable(&f, 6);
    assert_int_equal(one_found(&f, REPLICA_COMMIT)->index, 6);
    one_close(&f);
}

static void test_new_primary_serves_when_what_it_found_is_committed(void **state)
{
    struct one f;
    (void)state;
    one_lead(&f);
    one_reply(&f, 2, 5);
    assert_null(one_found(&f, REPLICA_SERVE));
    assert_false(replica_serves(f.core, f.now_ns));
    one_reply(&f, 3, 4);
    assert_int_equal(one_found(&f, REPLICA_COMMIT)->index, 4);
    assert_null(one_found(&f, REPLICA_SERVE));
    one_reply(&f, 3, 5);
    assert_int_equal(one_found(&f, REPLICA_SERVE)->stamp, 5000);
    assert_true(replica_serves(f.core, f.now_ns));
    one_close(&f);
}

static void test_promise_is_within_what_the_record_reserves(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    assert_true(f.record.stamp_max > 5000);
    assert_int_equal(replica_promise(f.core, 10), 10);
    assert_int_equal(replica_promise(f.core, UINT64_MAX), f.record.stamp_max);
    one_close(&f);
}

static void test_silent_replica_leaves_the_record_before_anything_commits(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    one_durable(&f, 6);
    one_reply(&f, 2, 6);
    one_tick(&f, NS_PER_SEC);
    one_reply(&f, 2, 6);
    one_tick(&f, NS_PER_SEC); /* node 3 has said nothing for two seconds */
    assert_non_null(one_found(&f, REPLICA_ASK));
    one_answer(&f); /* it is not us who hear nothing */
    assert_non_null(one_found(&f, REPLICA_SWAP));
    assert_int_equal(f.wanted.in_sync_count, 2);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_reply(&f, 2, 6);
    assert_null(one_found(&f, REPLICA_COMMIT)); /* asked for is not done */
    one_answer(&f);
    assert_int_equal(one_found(&f, REPLICA_COMMIT)->index, 6);
    one_close(&f);
}

/* What it says arrives: a swap that takes the others out would be carried out, and they could not
 * take over. */
static void test_a_primary_that_hears_nothing_takes_nobody_out(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    one_durable(&f, 6);
    for (int i = 0; i < 59; i++) {
        one_tick(&f, 100 * NS_PER_MS);
        const struct replica_effect *swap = one_found(&f, REPLICA_SWAP);
        assert_true(swap == NULL || swap->record.in_sync_count == 3);
    }
    one_tick(&f, 100 * NS_PER_MS);
    assert_int_equal(one_found(&f, REPLICA_STEP_DOWN)->index, 5);
    one_close(&f);
}

static void test_who_speaks_again_while_the_coordinator_is_asked_stays(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_tick(&f, NS_PER_SEC);
    one_reply(&f, 2, 5);
    one_tick(&f, NS_PER_SEC);
    assert_non_null(one_found(&f, REPLICA_ASK));
    one_reply(&f, 3, 5);
    one_answer(&f);
    assert_true(!f.swap || f.wanted.in_sync_count == 3);
    one_close(&f);
}

static void test_replica_that_may_have_entered_counts(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_tick(&f, NS_PER_SEC);
    one_reply(&f, 2, 5);
    one_tick(&f, NS_PER_SEC);
    one_answer(&f);
    one_answer(&f); /* node 3 is out */
    assert_int_equal(f.record.in_sync_count, 2);
    for (int i = 0; i < 4; i++) {
        one_reply(&f, 2, 5);
        one_tick(&f, 500 * NS_PER_MS);
        if (one_found(&f, REPLICA_SWAP) != NULL)
            one_answer(&f); /* the lease */
    }
    one_reply(&f, 2, 5);
    one_reply(&f, 3, 5); /* it is back, and has everything */
    assert_non_null(one_found(&f, REPLICA_SWAP));
    assert_int_equal(f.wanted.in_sync_count, 3);
    one_propose(&f, 6); /* the swap may have been carried out: node 3 may be primary next */
    one_durable(&f, 6);
    one_reply(&f, 2, 6);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_reply(&f, 3, 6);
    assert_int_equal(one_found(&f, REPLICA_COMMIT)->index, 6);
    one_close(&f);
}

static void test_replica_that_is_behind_does_not_enter(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_tick(&f, NS_PER_SEC);
    one_reply(&f, 2, 5);
    one_tick(&f, NS_PER_SEC);
    one_answer(&f);
    one_answer(&f);
    assert_int_equal(f.record.in_sync_count, 2);
    for (int i = 0; i < 4; i++) {
        one_reply(&f, 2, 5);
        one_reply(&f, 3, 4);
        one_tick(&f, NS_PER_SEC);
    }
    if (f.swap) /* the lease only */
        assert_int_equal(f.wanted.in_sync_count, 2);
    one_close(&f);
}

static void test_replica_that_lost_what_it_had_leaves_the_record(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_message(&f,
                (struct replica_msg){.kind = REPLICA_MSG_REPLY,
                                     .node = 3,
                                     .epoch = 2,
                                     .life = 2, /* it was started anew, */
                                     .seq = 1,
                                     .last = 4}, /* and record 5 is gone */
                0);
    assert_non_null(one_found(&f, REPLICA_SWAP));
    assert_int_equal(f.wanted.in_sync_count, 2);
    assert_int_equal(f.wanted.in_sync[1], 2);
    one_close(&f);
}

static void test_lease_that_runs_out_drops_everything(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    assert_false(replica_serves(f.core, f.now_ns + 6 * NS_PER_SEC));
    one_tick(&f, 6 * NS_PER_SEC);
    assert_int_equal(one_found(&f, REPLICA_STEP_DOWN)->index, 5);
    assert_int_equal(replica_role(f.core), REPLICA_FOLLOW);
    one_durable(&f, 6);
    one_reply(&f, 2, 6);
    one_reply(&f, 3, 6);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_close(&f);
}

static void test_lease_lives_from_when_it_was_asked_for(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    for (int i = 0; i < 4; i++) { /* two seconds: a third of the lease */
        f.now_ns += 500 * NS_PER_MS;
        one_reply(&f, 2, 5);
        one_reply(&f, 3, 5);
    }
    assert_true(f.swap && f.wanted.version == f.record.version);
    uint64_t asked_ns = f.now_ns;
    f.now_ns += 500 * NS_PER_MS;
    one_answer(&f);
    assert_true(replica_serves(f.core, asked_ns + 6 * NS_PER_SEC - 1));
    assert_false(replica_serves(f.core, asked_ns + 6 * NS_PER_SEC));
    one_close(&f);
}

static void test_broken_journal_steps_down_and_gives_the_lease_back(void **state)
{
    struct one f;
    struct replica_msg m;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    one_step(&f, (struct replica_event){.kind = REPLICA_BROKEN}, 0);
    assert_non_null(one_found(&f, REPLICA_STEP_DOWN));
    assert_int_equal(f.wanted.primary, 0);
    one_answer(&f);
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.kind, REPLICA_MSG_LEFT);
    assert_int_equal(f.record.lease_ns, 0);
    one_tick(&f, 100 * NS_PER_SEC);
    assert_int_equal(f.effects.count, 0);
    one_close(&f);
}

static void test_higher_epoch_ends_ours(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_message(&f, (struct replica_msg){.kind = REPLICA_MSG_STALE, .node = 3, .epoch = 3}, 0);
    assert_non_null(one_found(&f, REPLICA_STEP_DOWN));
    assert_non_null(one_found(&f, REPLICA_ASK));
    one_close(&f);
}

static void test_lost_answer_of_a_swap_changes_nothing(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_tick(&f, NS_PER_SEC);
    one_reply(&f, 2, 5);
    one_tick(&f, NS_PER_SEC);
    one_answer(&f);
    assert_true(f.swap); /* node 3 is to leave; the answer gets lost, the swap does not */
    f.record = f.wanted;
    f.record.version++;
    one_propose(&f, 6);
    one_durable(&f, 6);
    one_reply(&f, 2, 6);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_tick(&f, NS_PER_SEC);
    assert_non_null(one_found(&f, REPLICA_ASK));
    one_answer(&f); /* the record says so: it is done */
    assert_int_equal(one_found(&f, REPLICA_COMMIT)->index, 6);
    one_close(&f);
}

static void test_lost_message_is_sent_again(void **state)
{
    struct one f;
    struct replica_msg m;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    one_durable(&f, 6);
    one_reply(&f, 3, 6);
    one_tick(&f, NS_PER_SEC);
    assert_true(one_sent(&f, 2, &m)); /* the beat, behind a record that got lost */
    assert_int_equal(m.index, 6);
    one_message(&f,
                (struct replica_msg){.kind = REPLICA_MSG_REPLY,
                                     .node = 2,
                                     .epoch = 2,
                                     .life = 1,
                                     .seq = ++f.seq,
                                     .index = 5,
                                     .hint = 5,
                                     .index_epoch = 1,
                                     .last = 5},
                0);
    assert_true(one_sent(&f, 2, &m));
    assert_int_equal(m.index, 5);
    assert_int_equal(m.count, 1);
    one_close(&f);
}

static void test_repeated_and_older_replies_count_once(void **state)
{
    struct one f;
    (void)state;
    one_serve(&f);
    one_propose(&f, 6);
    one_durable(&f, 6);
    one_reply(&f, 2, 6);
    f.seq--; /* the same once more, as if of node 3's past */
    struct replica_msg m = {.kind = REPLICA_MSG_REPLY,
                            .flags = REPLICA_FLAG_MATCH,
                            .node = 3,
                            .epoch = 1, /* of the epoch before */
                            .life = 1,
                            .seq = 99,
                            .index = 6,
                            .last = 6};
    one_message(&f, m, 0);
    assert_null(one_found(&f, REPLICA_COMMIT));
    one_close(&f);
}

static void test_trimmed_records_make_a_copy_necessary(void **state)
{
    struct one f;
    struct replica_msg m;
    (void)state;
    one_serve(&f);
    one_tick(&f, NS_PER_SEC);
    one_reply(&f, 2, 5);
    one_tick(&f, NS_PER_SEC);
    one_answer(&f);
    one_answer(&f); /* node 3 is out */
    one_message(
        &f,
        (struct replica_msg){.kind = REPLICA_MSG_REPLY, .node = 3, .epoch = 2, .life = 2, .seq = 1},
        0);
    assert_int_equal(one_found(&f, REPLICA_READ_LOG)->index, 1);
    one_step(
        &f,
        (struct replica_event){.kind = REPLICA_READ, .node = 3, .index = 1, .rc = ERR_NOT_FOUND},
        0);
    assert_true(one_sent(&f, 3, &m));
    assert_int_equal(m.kind, REPLICA_MSG_NEED_COPY);
    assert_int_equal(m.seq, 1);
    one_step(&f, (struct replica_event){.kind = REPLICA_SERVED, .node = 3, .index = 2}, 0);
    assert_int_equal(replica_keep_from(f.core), 2);
    one_close(&f);
}

/* ---- alone ---- */

static void test_one_node_commits_at_once(void **state)
{
    struct one f;
    (void)state;
    one_open(&f, (struct replica_config){.node_count = 1, .founder = true});
    one_tick(&f, 0);
    one_answer(&f);
    one_answer(&f);
    assert_non_null(one_found(&f, REPLICA_SERVE));
    one_propose(&f, 1);
    assert_int_equal(f.effects.count, 0);
    one_durable(&f, 1);
    assert_int_equal(f.effects.count, 1);
    assert_int_equal(one_found(&f, REPLICA_COMMIT)->index, 1);
    assert_true(replica_deadline_ns(f.core) >= f.now_ns + NS_PER_SEC);
    one_close(&f);
}

static void test_nobody_else_takes_a_shard_never_led(void **state)
{
    struct one f;
    (void)state;
    one_open(&f, (struct replica_config){0});
    one_tick(&f, 0);
    one_answer(&f);
    assert_false(f.swap);
    one_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_commits_when_every_in_sync_replica_has_it),
        cmocka_unit_test(test_record_on_other_disks_waits_for_our_own),
        cmocka_unit_test(test_new_primary_serves_when_what_it_found_is_committed),
        cmocka_unit_test(test_promise_is_within_what_the_record_reserves),
        cmocka_unit_test(test_silent_replica_leaves_the_record_before_anything_commits),
        cmocka_unit_test(test_a_primary_that_hears_nothing_takes_nobody_out),
        cmocka_unit_test(test_who_speaks_again_while_the_coordinator_is_asked_stays),
        cmocka_unit_test(test_replica_that_may_have_entered_counts),
        cmocka_unit_test(test_replica_that_is_behind_does_not_enter),
        cmocka_unit_test(test_replica_that_lost_what_it_had_leaves_the_record),
        cmocka_unit_test(test_lease_that_runs_out_drops_everything),
        cmocka_unit_test(test_lease_lives_from_when_it_was_asked_for),
        cmocka_unit_test(test_broken_journal_steps_down_and_gives_the_lease_back),
        cmocka_unit_test(test_higher_epoch_ends_ours),
        cmocka_unit_test(test_lost_answer_of_a_swap_changes_nothing),
        cmocka_unit_test(test_lost_message_is_sent_again),
        cmocka_unit_test(test_repeated_and_older_replies_count_once),
        cmocka_unit_test(test_trimmed_records_make_a_copy_necessary),
        cmocka_unit_test(test_one_node_commits_at_once),
        cmocka_unit_test(test_nobody_else_takes_a_shard_never_led),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
