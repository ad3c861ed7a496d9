/* Two or three sites over real TLS and HTTP/2 on loopback: the stream in both directions, cuts,
 * pauses, removal, relay, roll-back, back-pressure. */
#include <unistd.h>

#include "base/hlc.h"
#include "base/log.h"
#include "tests/unit/wan/link_test.h"

static void test_stream_both_ways(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    fake_write(a, 0, 100, 50); /* travels in the snapshot */
    pair_sites(a, b);
    wait_same(a, b);
    for (int i = 0; i < 10; i++) {
        fake_write(a, (shard_id_t)(i % 4), 200, 60);
        fake_write(b, (shard_id_t)(i % 3), 150, 3000);
    }
    wait_same(a, b);
    assert_int_equal(fake_duplicates(a) + fake_duplicates(b), 0);
    wait_connected(a, b);
    fake_free(a);
    fake_free(b);
}

/* A site that listens nowhere lends its peer a connection. */
static void test_stream_site_that_only_dials_works_both_ways(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, false);
    pair_sites(a, b);
    fake_write(a, 1, 500, 100);
    fake_write(b, 2, 500, 100);
    wait_same(a, b);
    wait_connected(a, b);
    uint8_t id[32] = {9};
    struct buf got = {0};
    fake_chunk_add(b, id, slice_str("only here"));
    assert_int_equal(fake_fetch(a, id, &got), 0);
    assert_true(slice_equal(buf_slice(&got), slice_str("only here")));
    buf_deinit(&got);
    fake_free(a);
    fake_free(b);
}

/* Nothing is lost or applied twice when links break anywhere. */
static void test_stream_cuts_at_random_moments_lose_nothing(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 42);
    struct proxy *pa = proxy_new(0);
    struct node *a = site_behind(pa, "alpha", 11);
    struct node *b = site_new("beta", 22, false);
    pair_sites(a, b);
    for (int i = 0; i < 30; i++) {
        fake_write(a, (shard_id_t)rng_below(&rng, 4), 1 + (unsigned)rng_below(&rng, 300), 300);
        fake_write(b, (shard_id_t)rng_below(&rng, 4), 1 + (unsigned)rng_below(&rng, 300), 300);
        proxy_cut_after(pa, 1 + rng_below(&rng, 200000));
        if (i % 5 == 4)
            wait_same(a, b);
        if (i % 7 == 3)
            proxy_cut(pa);
    }
    proxy_cut_after(pa, 0);
    wait_same(a, b);
    fake_free(b);
    proxy_free(pa);
    fake_free(a);
}

static bool is_acked(void *ctx)
{
    struct node **n = ctx;
    uint64_t before = fake_acked(n[0], 22);
    return before >= 1000;
}

/* What the peer has made durable is told to the node, which may trim its journal. */
static void test_stream_acknowledgements_reach_the_node(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    pair_sites(a, b);
    fake_write(a, 0, 1000, 10);
    wait_until(is_acked, &a, "acknowledgements of a thousand operations");
    fake_free(a);
    fake_free(b);
}

static void test_wait_says_in_step(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    pair_sites(a, b);
    for (int i = 0; i < 5; i++) {
        char *text;
        fake_write(a, 1, 300, 100);
        fake_write(b, 3, 300, 100);
        assert_int_equal(fake_admin(a, "wait", "{\"timeout_s\":30}", &text), 0);
        assert_non_null(strstr(text, "\"in_step\":true"));
        assert_non_null(strstr(text, "\"state\":\"in_step\""));
        assert_true(fake_same(a, b));
        mem_free(text);
    }
    fake_free(a);
    fake_free(b);
}

static void test_wait_times_out_and_says_what_is_missing(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    char *text;
    pair_sites(a, b);
    assert_int_equal(fake_admin(a, "wait", "{}", NULL), 0);
    fake_stall(b, true);
    fake_write(a, 0, 7, 10);
    assert_int_equal(fake_admin(a, "wait", "{\"timeout_s\":0.3}", &text), ERR_TIMEOUT);
    assert_non_null(strstr(text, "beta misses 7 operations"));
    mem_free(text);
    fake_stall(b, false);
    assert_int_equal(fake_admin(a, "wait", "{\"timeout_s\":30}", NULL), 0);
    fake_free(a);
    fake_free(b);
}

static void test_pause_lasts_over_a_restart(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    char *text;
    pair_sites(a, b);
    assert_int_equal(fake_admin(a, "wait", "{}", NULL), 0);
    assert_int_equal(fake_admin(a, "peer.pause", "{\"name\":\"beta\"}", &text), 0);
    assert_non_null(strstr(text, "paused"));
    mem_free(text);
    fake_wan_stop(a);
    fake_wan_start(a);
    wait_state(a, "beta", "paused");
    fake_write(a, 0, 10, 10);
    /* A paused peer is not reachable, and not waited for. */
    assert_int_equal(fake_admin(a, "wait", "{}", &text), 0);
    assert_non_null(strstr(text, "\"state\":\"paused\""));
    mem_free(text);
    assert_false(fake_same(a, b));
    assert_int_equal(fake_admin(a, "peer.resume", "{\"name\":\"beta\"}", NULL), 0);
    wait_same(a, b);
    assert_int_equal(fake_admin(a, "peer.pause", "{\"name\":\"gamma\"}", &text), ERR_NOT_FOUND);
    assert_non_null(strstr(text, "there are: beta"));
    mem_free(text);
    fake_free(a);
    fake_free(b);
}

/* The removed site hears it in the stream ("refused", by all), or, when its stream was ended before
 * that came, by the answer to its next request ("removed_there"). */
static void test_remove_ends_replication(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    pair_sites(a, b);
    assert_int_equal(fake_admin(a, "wait", "{}", NULL), 0);
    assert_int_equal(fake_admin(a, "peer.remove", "{\"name\":\"beta\"}", NULL), 0);
    wait_state(a, "beta", "removed");
    wait_until(knows_removal, b, "the removed site to know it");
    fake_write(b, 0, 5, 5);
    assert_int_equal(fake_admin(a, "wait", "{}", NULL), 0);
    assert_false(fake_same(a, b));
    fake_free(a);
    fake_free(b);
}

/* Three sites, of which two cannot reach each other: the third relays, both ways. */
static void test_relay_through_the_middle(void **state)
{
    (void)state;
    struct node *b = site_new("beta", 22, true);
    struct node *a = site_new("alpha", 11, false), *c = site_new("gamma", 33, false);
    pair_sites(b, a);
    pair_sites(b, c);
    fake_write(a, 0, 400, 80);
    fake_write(c, 0, 400, 80);
    fake_write(b, 0, 400, 80);
    wait_same(a, c);
    wait_same(a, b);
    json_t *state_of_c = peer_field(a, "gamma", "state");
    assert_string_equal(json_string_value(state_of_c), "unreachable");
    json_decref(state_of_c);
    fake_free(a);
    fake_free(b);
    fake_free(c);
}

/* Pairing with one joins all: the members travel in the stream, and dial each other. */
static void test_members_travel(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    struct node *c = site_new("gamma", 33, true);
    pair_sites(a, b);
    pair_sites(b, c);
    wait_state(a, "gamma", "connected");
    wait_state(c, "alpha", "connected");
    fake_write(a, 2, 100, 10);
    fake_write(b, 2, 100, 10);
    fake_write(c, 2, 100, 10);
    wait_same(a, c);
    wait_same(b, c);
    fake_free(a);
    fake_free(b);
    fake_free(c);
}

static bool knows_gamma(void *ctx)
{
    json_t *state = peer_field(ctx, "gamma", "state");
    bool known = state != NULL;
    json_decref(state);
    return known;
}

struct commit_wish {
    struct node *n;
    struct dot dot;
};
static bool has_commit(void *ctx)
{
    const struct commit_wish *w = ctx;
    return fake_commit_hlc(w->n, w->dot) != 0;
}

/* A relay whose journal begins after an operation (it had it from a snapshot, or trimmed it) meets
 * a site that lacks it: what came after it must not arrive there before it (P7, W10). */
static void test_stream_of_a_late_relay_waits_for_what_it_cannot_send(void **state)
{
    (void)state;
    struct proxy *pa = proxy_new(0);
    struct node *a = site_behind(pa, "alpha", 11);
    struct node *b = site_new("beta", 22, true), *c = site_new("gamma", 33, false);
    pair_sites(a, b);
    wait_same(a, b);
    proxy_block(pa, true); /* alpha can dial, and cannot be dialled: gamma does not reach it */
    proxy_cut(pa);
    pair_sites(b, c);
    wait_until(knows_gamma, a, "alpha knows gamma");
    wait_same(b, c);
    assert_int_equal(fake_admin(c, "peer.pause", "{\"name\":\"beta\"}", NULL), 0);
    struct commit_wish cause = {a, {.site = 22, .shard = 0}},
                       effect = {c, {.site = 11, .shard = 1}};
    cause.dot.seq = fake_seq(b, 0, 22) + 1;
    effect.dot.seq = fake_seq(a, 1, 11) + 1;
    fake_write(b, 0, 1, 10);
    wait_until(has_commit, &cause, "alpha has the cause");
    fake_trim(a);
    fake_write(a, 1, 1, 10);
    proxy_block(pa, false);
    wait_state(c, "alpha", "connected");
    assert_int_equal(fake_admin(c, "peer.resume", "{\"name\":\"beta\"}", NULL), 0);
    wait_until(has_commit, &effect, "gamma has the effect");
    uint64_t caused = fake_commit_hlc(c, cause.dot);
    assert_int_not_equal(caused, 0);
    assert_true(caused < fake_commit_hlc(c, effect.dot));
    fake_free(c);
    fake_free(b);
    fake_free(a);
    proxy_free(pa);
}

static void test_rollback_is_noticed_and_said(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    char *text;
    pair_sites(a, b);
    fake_write(b, 0, 50, 10);
    wait_same(a, b);
    fake_wan_stop(b);
    fake_forget(b, 20);
    fake_wan_start(b);
    wait_state(b, "alpha", "rolled_back");
    wait_state(a, "beta", "rolled_back_there");
    assert_int_equal(fake_admin(b, "wait", "{}", &text), ERR_ROLLBACK);
    assert_non_null(strstr(text, "rolled back"));
    mem_free(text);
    fake_free(a);
    fake_free(b);
}

/* Numbers of operations do not tell: the copy has issued more than were lost. */
static void rolled_back_and_used(unsigned kept, unsigned written, bool trimmed)
{
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    char *text;
    pair_sites(a, b);
    fake_write(b, 0, 50, 10);
    wait_same(a, b);
    fake_wan_stop(b);
    fake_forget(b, kept);
    if (trimmed)
        fake_trim(b);
    fake_write(b, 0, written, 10);
    fake_wan_start(b);
    wait_state(b, "alpha", "rolled_back");
    wait_state(a, "beta", "rolled_back_there");
    assert_int_equal(fake_admin(b, "wait", "{}", &text), ERR_ROLLBACK);
    assert_non_null(strstr(text, "rolled back"));
    assert_non_null(strstr(text, "claudefs site return"));
    mem_free(text);
    assert_int_equal(fake_seq(a, 0, 22), 50); /* nothing of the other history came over */
    fake_free(a);
    fake_free(b);
}

static void test_rollback_of_a_copy_that_worked_on_is_noticed(void **state)
{
    (void)state;
    rolled_back_and_used(20, 70, false);
}

static void test_rollback_of_a_copy_with_as_many_operations_is_noticed(void **state)
{
    (void)state;
    rolled_back_and_used(20, 30, false);
}

/* The journal begins with what was issued again. */
static void test_rollback_of_a_copy_with_a_trimmed_journal_is_noticed(void **state)
{
    (void)state;
    rolled_back_and_used(20, 70, true);
}

/* A site that restarts, has issued more than its peer has, and whose journal is gone up to there or
 * is not, is the same site. */
static void test_restart_with_more_operations_is_no_rollback(void **state)
{
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    (void)state;
    pair_sites(a, b);
    for (unsigned round = 0; round < 2; round++) {
        if (round == 0)
            fake_write(a, 0, 20, 10);
        wait_same(a, b);
        fake_write(b, 0, 50, 10);
        wait_same(a, b);
        fake_wan_stop(b);
        if (round == 1)
            fake_trim(b);
        fake_write(b, 0, 30, 10);
        fake_wan_start(b);
        wait_same(a, b);
    }
    wait_state(b, "alpha", "connected");
    fake_free(a);
    fake_free(b);
}

/* ---- sites of two versions, while a federation is upgraded ---- */

/* An older program does not say which id asks: what is refused is refused as it was before. */
static void test_older_program_is_answered(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    fake_older(b, FAKE_ASKS_OLD | FAKE_KNOWS_OLD);
    pair_sites(a, b);
    for (unsigned i = 0; i < 3; i++) {
        fake_write(a, 1, 20, 100);
        fake_write(b, 2, 20, 100);
        wait_same(a, b);
    }
    wait_state(b, "alpha", "connected");
    assert_int_equal(fake_asked_new(a), 0);
    assert_int_equal(fake_admin(a, "peer.remove", "{\"name\":\"beta\"}", NULL), 0);
    wait_state(a, "beta", "removed");
    fake_wan_stop(b);
    fake_become(b, 33);
    fake_wan_start(b);
    wait_state(b, "alpha", "removed_there");
    fake_free(a);
    fake_free(b);
}

/* Who is answered that there is no such request asks as older programs do, for as long as the
 * connection lasts; and on the next one as it would, for the other site may be upgraded. A pause
 * ends the connection; on a busy machine one more may be given up and made again, which asks anew.
 */
static void test_older_program_is_asked_as_it_can_answer(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    pair_sites(a, b);
    wait_state(b, "alpha", "connected");
    fake_older(a, FAKE_ASKS_OLD | FAKE_KNOWS_OLD);
    for (unsigned round = 0; round < 3; round++) {
        if (round == 2)
            fake_older(a, FAKE_NEW);
        unsigned before = fake_asked_new(a);
        assert_int_equal(fake_admin(b, "peer.pause", "{\"name\":\"alpha\"}", NULL), 0);
        fake_write(a, 1, 20, 100);
        fake_write(b, 2, 20, 100);
        assert_int_equal(fake_admin(b, "peer.resume", "{\"name\":\"alpha\"}", NULL), 0);
        wait_same(a, b);
        wait_state(b, "alpha", "connected");
        assert_true(fake_asked_new(a) > before);
        assert_int_equal(fake_asked_again(a), 0);
    }
    fake_free(a);
    fake_free(b);
}

static void test_journal_gone_is_said(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    pair_sites(a, b);
    fake_write(a, 0, 50, 10);
    wait_same(a, b);
    assert_int_equal(fake_admin(b, "wait", "{}", NULL), 0);
    fake_wan_stop(b);
    fake_write(a, 0, 50, 10);
    fake_trim(a);
    fake_wan_start(b);
    wait_state(b, "alpha", "needs_snapshot");
    fake_free(a);
    fake_free(b);
}

static void test_stamps_from_the_future_are_held(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    pair_sites(a, b);
    uint64_t ahead_ms = clock_wall_ns(&clock_os) / NS_PER_MS + 3600 * 1000;
    fake_write_at(a, 1, test_hlc(ahead_ms, 0));
    wait_state(b, "alpha", "held");
    assert_false(fake_same(a, b));
    fake_clock_shift(b, (int64_t)(3600 * NS_PER_SEC));
    wait_same(a, b);
    fake_free(a);
    fake_free(b);
}

static bool is_stuck(void *ctx)
{
    json_t **last = ctx;
    struct node *n = (struct node *)(void *)last[1];
    json_t *wire = peer_field(n, "beta", "out_wire_bytes");
    bool same = last[0] != NULL && json_equal(last[0], wire) && json_integer_value(wire) > 0;
    json_decref(last[0]);
    last[0] = wire;
    return same;
}

/* A receiver that does not get on stops the sender: what is under way stays bounded (W5). */
static void test_stream_slow_receiver_bounds_the_sender(void **state)
{
    (void)state;
    struct node *a = site_new("alpha", 11, true), *b = site_new("beta", 22, true);
    pair_sites(a, b);
    assert_int_equal(fake_admin(a, "wait", "{}", NULL), 0);
    fake_stall(b, true);
    for (int i = 0; i < 40; i++)
        fake_write(a, (shard_id_t)(i % 4), 100, 10000); /* 40 MB of noise */
    json_t *ctx[2] = {NULL, (json_t *)(void *)a};
    /* Twice the same number of bytes, with a tick's worth of waiting between. */
    wait_until(is_stuck, ctx, "a sender that has stopped");
    assert_true(json_integer_value(ctx[0]) < 16 * 1024 * 1024);
    json_decref(ctx[0]);
    fake_stall(b, false);
    wait_same(a, b);
    fake_free(a);
    fake_free(b);
}

/* --- lent connections --- */

static bool was_asked_to_return(void *ctx)
{
    return fake_asked_return(ctx) > 0;
}

/* Whoever comes back dials; a member that asks for it over what it was lent ends that, no more. */
static void test_return_is_asked_for_over_a_lent_connection(void **state)
{
    (void)state;
    struct proxy *pa = proxy_new(0);
    struct node *a = site_behind(pa, "alpha", 11), *b = site_new("beta", 22, false);
    pair_sites(a, b);
    wait_connected(a, b);
    fake_older(a, FAKE_ASKS_RETURN);
    proxy_cut(pa);
    wait_until(was_asked_to_return, b, "the request");
    fake_older(a, FAKE_NEW);
    proxy_cut(pa);
    fake_write(b, 1, 5, 10);
    wait_same(a, b);
    wait_connected(a, b);
    fake_free(a);
    fake_free(b);
    proxy_free(pa);
}

/* --- what waits --- */

static bool settles(void *ctx)
{
    return fake_settles(ctx);
}

static bool is_behind(void *ctx)
{
    json_t *lag = peer_field(ctx, "beta", "lag_out_s");
    double s = json_number_value(lag);
    json_decref(lag);
    return s > 1;
}

/* An acknowledgement of what came before must not say that what came since is in step, while it
 * waits for a cut: nothing would take that back before the next operation. */
static void test_lag_shows_what_began_to_wait_behind_an_acknowledgement(void **state)
{
    (void)state;
    struct node *a, *b;
    two_sites(&a, &b, true);
    wait_connected(a, b);
    fake_unsettled(b, true);
    fake_write(a, 0, 1, 10);
    wait_until(settles, b, "an acknowledgement that is on its way");
    fake_waits(b, hlc_from_wall(clock_wall_ns(&clock_os)));
    fake_write(a, 0, 1, 10);
    wait_same(a, b);
    fake_unsettled(b, false);
    wait_until(is_behind, a, "that beta is behind");
    fake_free(a);
    fake_free(b);
}

/* --- what is logged --- */

struct logged {
    int to, before;
    char text[262144];
};

static void log_take(struct logged *l)
{
    char path[] = "/tmp/claudefs-log-XXXXXX";
    l->to = mkstemp(path);
    l->before = dup(STDERR_FILENO);
    assert_true(l->to >= 0 && l->before >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(dup2(l->to, STDERR_FILENO), STDERR_FILENO);
}

static const char *log_read_all(struct logged *l)
{
    ssize_t len = pread(l->to, l->text, sizeof l->text - 1, 0);
    assert_true(len >= 0);
    l->text[len] = '\0';
    return l->text;
}

static void log_give_back(struct logged *l)
{
    (void)dup2(l->before, STDERR_FILENO); /* it was there */
    close(l->before);
    close(l->to);
}

static bool lent_in_vain(void *ctx)
{
    unsigned times = 0; /* the first one was in use, and is cut */
    for (const char *at = log_read_all(ctx); (at = strstr(at, "lent_link_down")) != NULL; at++)
        times++;
    return times >= 3;
}

/* A member that is paused goes on lending connections: it is no stranger. */
static void test_who_lends_what_is_not_wanted_is_no_stranger(void **state)
{
    (void)state;
    static struct logged l;
    struct node *a, *b;
    two_sites(&a, &b, false);
    wait_connected(a, b);
    enum log_level level = log_level_get(LOG_WAN);
    log_take(&l);
    log_level_set(LOG_WAN, LOG_DEBUG);
    int rc = fake_admin(a, "peer.pause", "{\"name\":\"beta\"}", NULL);
    wait_until(lent_in_vain, &l, "connections that are lent and not wanted");
    log_level_set(LOG_WAN, level);
    log_give_back(&l);
    assert_int_equal(rc, 0);
    assert_null(strstr(l.text, "stranger_gone"));
    fake_free(a);
    fake_free(b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_both_ways),
        cmocka_unit_test(test_stream_site_that_only_dials_works_both_ways),
        cmocka_unit_test(test_stream_cuts_at_random_moments_lose_nothing),
        cmocka_unit_test(test_stream_acknowledgements_reach_the_node),
        cmocka_unit_test(test_wait_says_in_step),
        cmocka_unit_test(test_wait_times_out_and_says_what_is_missing),
        cmocka_unit_test(test_pause_lasts_over_a_restart),
        cmocka_unit_test(test_remove_ends_replication),
        cmocka_unit_test(test_relay_through_the_middle),
        cmocka_unit_test(test_members_travel),
        cmocka_unit_test(test_stream_of_a_late_relay_waits_for_what_it_cannot_send),
        cmocka_unit_test(test_rollback_is_noticed_and_said),
        cmocka_unit_test(test_rollback_of_a_copy_that_worked_on_is_noticed),
        cmocka_unit_test(test_rollback_of_a_copy_with_as_many_operations_is_noticed),
        cmocka_unit_test(test_rollback_of_a_copy_with_a_trimmed_journal_is_noticed),
        cmocka_unit_test(test_restart_with_more_operations_is_no_rollback),
        cmocka_unit_test(test_older_program_is_answered),
        cmocka_unit_test(test_older_program_is_asked_as_it_can_answer),
        cmocka_unit_test(test_journal_gone_is_said),
        cmocka_unit_test(test_stamps_from_the_future_are_held),
        cmocka_unit_test(test_stream_slow_receiver_bounds_the_sender),
        cmocka_unit_test(test_return_is_asked_for_over_a_lent_connection),
        cmocka_unit_test(test_lag_shows_what_began_to_wait_behind_an_acknowledgement),
        cmocka_unit_test(test_who_lends_what_is_not_wanted_is_no_stranger),
    };
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
