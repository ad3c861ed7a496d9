/* site/intake.h and what shards that several nodes keep have to do for other sites: rules N6, N8
 * and N9 of site/README.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "site/intake.h"
#include "tests/unit/site/node_test.h"
#include "tests/unit/site/trio.h"

#define PEER 8u

static struct trio t;
static uint64_t epochs[TRIO_SHARDS];
static struct buf encoded[8]; /* operations of the peer */
static struct apply_item items[8];
static uint32_t item_count;
static struct oid file; /* of the peer's, in shard 1 */

static int setup(void **state)
{
    (void)state;
    item_count = 0;
    trio_init(&t);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < item_count; i++)
        buf_deinit(&encoded[i]);
    trio_deinit(&t);
    return 0;
}

static bool three_in_sync(struct trio *w)
{
    for (unsigned i = 0; i < TRIO_SHARDS; i++)
        if (w->net.records[i].in_sync_count < TRIO_NODES || trio_leader(w, i) == NULL)
            return false;
    return true;
}

static struct shard *leader(unsigned shard)
{
    struct shard *s = trio_leader(&t, shard);
    assert_non_null(s);
    return s;
}

static void stream_begins(void)
{
    for (unsigned i = 0; i < TRIO_SHARDS; i++)
        epochs[i] = shard_epoch(leader(i));
    file = oid_is_none(file) ? shard_new_oid(leader(1), OID_FILE) : file;
}

/* ---- what the peer did ---- */

static void op_add(struct op_builder *b, shard_id_t home, uint64_t seq)
{
    struct op op = {.dot = {.shard = home, .site = PEER, .seq = seq},
                    .stamp = {.hlc = hlc_from_wall(NS_PER_SEC) + item_count, .site = PEER},
                    .effects = b->effects,
                    .effect_count = b->count};
    op_encode(&op, &encoded[item_count]);
    items[item_count].shard = home;
    items[item_count].op = buf_slice(&encoded[item_count]);
    item_count++;
    op_builder_deinit(b);
}

/* In shard 1: a file with a name in the root, which is in shard 0. */
static void op_enter(void)
{
    struct op_builder b = {0};
    struct effect *e = op_builder_add(&b, EFFECT_VERSION, file);
    e->content.kind = CONTENT_INLINE;
    e->content.bytes = slice_str("peer");
    e->content.size = e->content.bytes.len;
    e = op_builder_add(&b, EFFECT_ENTER, file);
    e->parent = OID_ROOT;
    e->name = slice_str("x");
    op_add(&b, 1, 1);
}

/* In shard 0: that name goes, by somebody who had seen it. */
static void op_leave(void)
{
    static const struct dot seen = {.shard = 1, .site = PEER, .seq = 1};
    struct op_builder b = {0};
    struct effect *e = op_builder_add(&b, EFFECT_LEAVE, file);
    e->parent = OID_ROOT;
    e->name = slice_str("x");
    e->dots = &seen;
    e->dot_count = 1;
    op_add(&b, 0, 1);
}

/* ---- taking it ---- */

static uint64_t stamp(void *ctx)
{
    struct hlc all = {0};
    (void)ctx;
    for (unsigned i = 0; i < TRIO_NODES; i++)
        hlc_see(&all, t.nodes[i].hlc.last);
    return hlc_next(&all, clock_wall_ns(&clock_os));
}

static int take(struct intake_batch *b)
{
    static const uint64_t cursor[TRIO_SHARDS] = {5, 6};
    struct shard *at[TRIO_SHARDS];
    struct err_detail d;
    for (unsigned i = 0; i < TRIO_SHARDS; i++)
        at[i] = leader(i);
    struct intake_site site = {
        .shards = at, .shard_count = TRIO_SHARDS, .site = 7, .stamp = stamp, .epochs = epochs};
    b->peer = PEER;
    b->items = items;
    b->count = item_count;
    b->cursor = cursor;
    return intake(&site, b, &d);
}

static bool enter_is_durable(struct trio *w)
{
    struct shard *s = trio_leader(w, 1);
    struct vv v;
    if (s == NULL)
        return false;
    shard_durable_vv(s, &v);
    return vv_get(&v, PEER) == 1;
}

/* N8: what it names in another shard is committed there first, so its own journal tells a copy all
 * that the leader knew. */
static void test_an_operation_waits_for_what_it_names_before_it_is_journaled(void **state)
{
    struct intake_batch b = {.done = 0};
    struct shown shown;
    (void)state;
    trio_run(&t, three_in_sync);
    stream_begins();
    op_enter();
    op_leave();
    assert_int_equal(take(&b), ERR_AGAIN);
    assert_int_equal(b.done, 1);
    assert_int_equal(merge_seen(shard_merge(leader(0)), 0, PEER), 0);
    assert_int_equal(shard_waiting_count(leader(0)), 0);
    assert_int_equal(shard_cursor(leader(1), PEER), 0); /* the batch is not over */
    trio_run(&t, enter_is_durable);
    int rc = ERR_AGAIN;
    while ((rc = take(&b)) == ERR_AGAIN)
        trio_run(&t, enter_is_durable);
    assert_int_equal(rc, 0);
    trio_run(&t, trio_equal);
    assert_int_equal(merge_seen(shard_merge(leader(0)), 0, PEER), 1);
    assert_int_equal(merge_lookup(shard_merge(leader(0)), OID_ROOT, slice_str("x"), &shown),
                     ERR_NOT_FOUND);
    for (unsigned i = 0; i < TRIO_SHARDS; i++)
        assert_int_equal(shard_cursor(leader(i), PEER), 5 + i);
    trio_assert_equal_on_disk(&t);
}

/* N9: what came before on the stream may be gone with the old leader. */
static void test_a_stream_ends_with_the_lead_of_any_shard(void **state)
{
    struct intake_batch b = {.done = 0};
    (void)state;
    trio_run(&t, three_in_sync);
    stream_begins();
    op_enter();
    uint64_t last = log_last(shard_log(leader(1)));
    shard_resign(leader(0));
    trio_run(&t, three_in_sync);
    assert_int_not_equal(shard_epoch(leader(0)), epochs[0]);
    assert_int_equal(take(&b), ERR_NOT_PRIMARY);
    assert_int_equal(log_last(shard_log(leader(1))), last);
    stream_begins();
    assert_int_equal(take(&b), 0);
    trio_run(&t, enter_is_durable);
}

static bool all_know_the_ack(struct trio *w)
{
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (shard_peer_ack(w->nodes[i].shards[0], PEER) != 3)
            return false;
    return true;
}

/* N6: it bounds the journals of all copies, and is there when another one leads. */
static void test_copies_know_what_a_peer_has_acknowledged(void **state)
{
    (void)state;
    trio_run(&t, three_in_sync);
    shard_peer_acked(leader(0), PEER, 3);
    shard_peer_acked(leader(0), PEER, 2);
    trio_run(&t, all_know_the_ack);
    trio_assert_equal_on_disk(&t);
    assert_true(all_know_the_ack(&t));
}

static bool leave_waits(struct trio *w)
{
    struct shard *s = trio_leader(w, 0);
    return s != NULL && shard_waiting_count(s) == 1 && shard_idle(s) && three_in_sync(w);
}

static bool leave_is_known(struct trio *w)
{
    struct shard *s = trio_leader(w, 0);
    struct vv v;
    if (s == NULL || merge_seen(shard_merge(s), 0, PEER) == 0 || !trio_equal(w))
        return false;
    shard_durable_vv(s, &v);
    return vv_get(&v, PEER) == 1;
}

/* Who begins with operations that wait does not count them as there; when they are applied it has
 * to, though none that follows them ever comes. */
static void test_what_had_waited_before_a_take_over_counts_when_it_is_applied(void **state)
{
    struct intake_batch b = {.done = 0};
    (void)state;
    trio_run(&t, three_in_sync);
    stream_begins();
    op_leave();
    struct shard_part part = {.commit_hlc = stamp(NULL), .peer = PEER, .count = 1};
    part.ops = &items[0].op; /* as if its home had been told before the other shard */
    assert_int_equal(shard_remote(leader(0), &part), 0);
    trio_run(&t, leave_waits);
    shard_resign(leader(0));
    trio_run(&t, leave_waits);
    stream_begins();
    op_enter();
    b.done = 1;
    assert_int_equal(take(&b), 0);
    trio_run(&t, leave_is_known);
}

static int answer;

static void answered(void *ctx, int rc)
{
    (void)ctx;
    answer = rc;
}

static bool is_answered(struct trio *w)
{
    (void)w;
    return answer != 1;
}

static bool part_waits(struct trio *w)
{
    struct shard *s = trio_leader(w, 1);
    return s != NULL && shard_waiting_count(s) == 1 && shard_idle(s) && shard_idle(leader(0));
}

/* N4: what its parts name may come to their shards by another way, and later. An answer before that
 * would be one that does not show. */
static void test_an_answer_means_that_all_parts_are_applied(void **state)
{
    static struct dot seen = {.shard = 1, .site = PEER, .seq = 1};
    struct intake_batch b = {.done = 0};
    struct op_builder own = {0};
    struct proposal p = {.session = 1, .number = 1, .committed = answered};
    struct file_view v;
    (void)state;
    answer = 1;
    trio_run(&t, three_in_sync);
    stream_begins();
    struct effect *e = op_builder_add(&own, EFFECT_VERSION, file);
    e->dots = &seen;
    e->dot_count = 1;
    e->content.kind = CONTENT_INLINE;
    e->content.bytes = slice_str("ours");
    e->content.size = e->content.bytes.len;
    assert_int_equal(shard_propose(leader(0), &own, &p, NULL), 0);
    op_builder_deinit(&own);
    trio_run(&t, part_waits);
    for (unsigned i = 0; i < 50; i++) /* and all that was sent meanwhile has arrived */
        trio_run(&t, part_waits);
    assert_int_equal(answer, 1);
    shard_resign(leader(1));
    trio_run(&t, three_in_sync);
    trio_run(&t, part_waits);
    assert_int_equal(answer, 1);
    stream_begins();
    op_enter();
    assert_int_equal(take(&b), 0);
    trio_run(&t, is_answered);
    assert_int_equal(answer, 0);
    assert_int_equal(merge_file(shard_merge(leader(1)), file, &v), 0);
    assert_true(slice_equal(v.content.bytes, slice_str("ours")));
    trio_assert_equal_on_disk(&t);
}

/* ---- commit stamps rise with the index, also when the clock is behind what was seen ---- */

struct rising {
    uint64_t last, count;
};

static bool rises(void *ctx, const struct log_record *lr)
{
    struct rising *k = ctx;
    struct record r;
    assert_int_equal(record_decode(lr->payload, &r), 0);
    assert_true(r.commit_hlc > k->last);
    k->last = r.commit_hlc;
    k->count++;
    return true;
}

static void assert_rising(struct shard *s, uint64_t count_min)
{
    struct rising k = {.last = 0};
    uint64_t next = log_first(shard_log(s));
    while (next <= log_durable(shard_log(s)))
        assert_int_equal(log_read(shard_log(s), next, MIB, rises, &k, &next), 0);
    assert_true(k.count >= count_min);
}

static const struct local_pair pair = {.key = {.ptr = (const uint8_t *)"\x88t", .len = 2},
                                       .value = {.ptr = (const uint8_t *)"v", .len = 1}};

/* What is not an operation leaves no stamp in the state; its record has one. */
static void test_stamps_rise_across_a_restart(void **state)
{
    struct node_test n;
    (void)state;
    node_test_init(&n, 1);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("a"), .mode = 0644, .kind = OID_FILE};
    hlc_see(&n.n->hlc, hlc_from_wall(clock_wall_ns(&clock_os) + 3600 * NS_PER_SEC));
    assert_int_equal(node_test_call(&n, RPC_CREATE, &q), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(shard_local(n.n->shards[0], &pair, 1, NULL, NULL), 0);
    node_test_close(&n);
    node_test_open(&n);
    q.name = slice_str("b");
    assert_int_equal(node_test_call(&n, RPC_CREATE, &q), 0);
    assert_rising(n.n->shards[0], 7);
    node_test_deinit(&n);
}

static void test_stamps_rise_across_restarts_of_all_nodes(void **state)
{
    struct trio_op o;
    (void)state;
    trio_run(&t, three_in_sync);
    for (unsigned i = 0; i < TRIO_NODES; i++)
        if (t.nodes[i].shards[0] == leader(0))
            hlc_see(&t.nodes[i].hlc, hlc_from_wall(clock_wall_ns(&clock_os) + 3600 * NS_PER_SEC));
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(shard_local(leader(0), &pair, 1, NULL, NULL), 0);
    trio_assert_equal_on_disk(&t);
    assert_int_equal(trio_create(&t, leader(0), &o), 0);
    trio_run(&t, trio_equal);
    assert_rising(leader(0), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_an_operation_waits_for_what_it_names_before_it_is_journaled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stream_ends_with_the_lead_of_any_shard, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_copies_know_what_a_peer_has_acknowledged, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_what_had_waited_before_a_take_over_counts_when_it_is_applied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_answer_means_that_all_parts_are_applied, setup,
                                        teardown),
        cmocka_unit_test(test_stamps_rise_across_a_restart),
        cmocka_unit_test_setup_teardown(test_stamps_rise_across_restarts_of_all_nodes, setup,
                                        teardown),
    };
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        log_levels[i] = LOG_WARN;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
