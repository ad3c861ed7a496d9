/* What a site that starts from a snapshot has, beside the state: operations that others may lack,
 * which it passes on when the site is lost that it had them from (W12). And what it has not: the
 * rest of an attempt that broke off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/federation_test.h"

/* Operations in the site's journals that another one issued. */
static bool count_one(void *ctx, const struct feed_item *item)
{
    uint64_t *counts = ctx;
    counts[0] += item->dot.site == (site_id_t)counts[1];
    return true;
}

static uint64_t journaled_of(struct world *w, unsigned site, unsigned issuer)
{
    uint64_t counts[2] = {0, node_site(w->sites[issuer].n)};
    struct feed_state f;
    settle(w, site);
    node_feed_state(w->sites[site].n, &f);
    for (unsigned i = 0; i < w->shards; i++)
        for (uint64_t next = MAX(f.first[i], 1u); next <= f.durable[i];)
            assert_int_equal(node_feed_read(w->sites[site].n, (shard_id_t)i, next, MIB, count_one,
                                            counts, &next),
                             0);
    return counts[0];
}

static uint64_t issued_by(struct world *w, unsigned site)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < w->shards; i++)
        count += shard_next_seq(w->sites[site].n->shards[i]) - 1;
    return count;
}

static void all_acked(struct world *w, unsigned site, unsigned by)
{
    uint64_t acked[SHARD_COUNT_MAX];
    for (unsigned i = 0; i < w->shards; i++)
        acked[i] = log_durable(shard_log(w->sites[site].n->shards[i]));
    node_peer_acked(w->sites[site].n, node_site(w->sites[by].n), acked);
    settle(w, site);
}

static void work(struct world *w, unsigned site, unsigned steps)
{
    while (steps-- > 0)
        user_step(w, site);
}

/* Site 0 is down while site 1 works, with site 2 that joins then; and site 1 is lost for ever. What
 * it has acknowledged is at site 2, and comes to site 0 from there, across a restart. */
static void test_a_new_site_passes_on_what_others_lack(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 4, 5);
    work(&w, 0, 40);
    work(&w, 1, 40);
    drain(&w);
    all_acked(&w, 1, 0);
    work(&w, 1, 60);
    world_join(&w, 1);
    work(&w, 2, 20);
    w.left[1] = true;
    reopen(&w, 2);
    assert_true(journaled_of(&w, 2, 1) > 0);
    drain(&w);
    check_equal(&w, 5);
    world_deinit(&w);
}

/* It may be asked itself: who joins by it gets what it has from the one before. */
static void test_who_joins_by_a_new_site_passes_it_on_as_well(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 3, 6);
    drain(&w);
    work(&w, 1, 60);
    world_join(&w, 1);
    work(&w, 2, 20);
    world_join(&w, 2);
    w.left[1] = w.left[2] = true;
    drain(&w);
    check_equal(&w, 6);
    world_deinit(&w);
}

/* With two sites nobody else lacks anything, and with three only what was not acknowledged. */
static void test_what_all_others_have_does_not_come_along(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 1, 2, 7);
    work(&w, 0, 60);
    world_join(&w, 0);
    assert_int_equal(journaled_of(&w, 1, 0), 0);
    drain(&w);
    all_acked(&w, 0, 1);
    uint64_t before = issued_by(&w, 0);
    assert_true(before > 0);
    work(&w, 0, 20);
    uint64_t lacked = issued_by(&w, 0) - before;
    world_join(&w, 0);
    uint64_t came = journaled_of(&w, 2, 0);
    assert_true(came > lacked); /* with the one that lets it in */
    assert_true(came <= issued_by(&w, 0) - before);
    world_deinit(&w);
}

/* The operations keep the order of the site that they come from: stamps of a journal do not fall,
 * and those of one batch stay together. */
struct order {
    uint64_t hlc[SHARD_COUNT_MAX];
    uint64_t count;
};

static bool rises(void *ctx, const struct feed_item *item)
{
    struct order *o = ctx;
    assert_true(item->commit_hlc >= o->hlc[item->shard]);
    o->hlc[item->shard] = item->commit_hlc;
    o->count++;
    return true;
}

static void test_stamps_of_a_journal_with_a_past_do_not_fall(void **state)
{
    struct world w;
    struct order o = {.count = 0};
    struct feed_state f;
    (void)state;
    world_init(&w, 3, 4, 8);
    for (unsigned round = 0; round < 10; round++) {
        work(&w, round % 3, 40);
        drain(&w);
    }
    world_join(&w, 1);
    work(&w, 3, 20);
    settle(&w, 3);
    node_feed_state(w.sites[3].n, &f);
    for (unsigned i = 0; i < w.shards; i++)
        for (uint64_t next = 1; next <= f.durable[i];)
            assert_int_equal(
                node_feed_read(w.sites[3].n, (shard_id_t)i, next, 300, rises, &o, &next), 0);
    assert_true(o.count > 40);
    drain(&w);
    check_equal(&w, 8);
    world_deinit(&w);
}

/* Pairs of a site's states that another one has not; cursors are each site's own. */
static void check_no_more_than(struct world *w, unsigned site, unsigned other)
{
    for (unsigned i = 0; i < w->shards; i++) {
        struct state_scan it;
        struct slice value;
        state_scan_begin(shard_state(w->sites[site].n->shards[i]), &it, slice_of(NULL, 0),
                         slice_of(NULL, 0));
        while (state_scan_next(&it))
            if (it.key.ptr[0] != SHARD_KEY_CURSOR)
                assert_true(state_get(shard_state(w->sites[other].n->shards[i]), it.key, &value));
        state_scan_end(&it);
    }
}

/* The connection breaks while pages come; meanwhile the others have changed and dropped things.
 * Nothing of the first attempt is left after the second. */
static void test_an_attempt_that_broke_off_leaves_nothing(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 1, 2, 9);
    for (unsigned i = 0; i < 12; i++) {
        char path[8];
        snprintf(path, sizeof path, "/%u", i);
        call_path(&w, 0, RPC_CREATE, path);
    }
    world_adopt(&w, 0);
    load_pages(&w.sites[0], &w.sites[1], UINT32_MAX);
    for (unsigned i = 0; i < 12; i++) {
        char path[8];
        snprintf(path, sizeof path, "/%u", i);
        call_path(&w, 0, RPC_UNLINK, path);
    }
    for (unsigned round = 0; round < 4; round++)
        collect(&w, 0);
    bootstrap(&w.sites[0], &w.sites[1]);
    w.count = 2;
    check_no_more_than(&w, 1, 0);
    drain(&w);
    check_equal(&w, 9);
    world_deinit(&w);
}

/* What a loss of power now would leave of a site's directory, opened as one more site. */
static void open_copy(const struct node_test *t, struct node_test *copy)
{
    memset(copy, 0, sizeof *copy);
    snprintf(copy->dir, sizeof copy->dir, "%.50s.copy", t->dir);
    node_test_copy(t, copy->dir);
    node_test_open(copy);
}

/* The power goes when all pages are here, but are not on disk yet: the site joins again. Once it
 * says that it has joined, they are, with what it is to pass on. */
static void test_a_site_joins_until_its_snapshot_is_on_disk(void **state)
{
    struct world w;
    struct node_test copy;
    (void)state;
    world_init(&w, 2, 4, 10);
    drain(&w);
    work(&w, 1, 60);
    world_adopt(&w, 1);
    load_pages(&w.sites[1], &w.sites[2], UINT32_MAX);
    commit_begin(&w.sites[1], &w.sites[2]);
    open_copy(&w.sites[2], &copy);
    assert_true(node_needs_snapshot(copy.n));
    assert_memory_equal(node_fs_key(copy.n), node_fs_key(w.sites[1].n), 32);
    bootstrap(&w.sites[1], &copy);
    node_test_deinit(&copy);
    assert_true(node_needs_snapshot(w.sites[2].n));
    commit_wait(&w.sites[2]);
    open_copy(&w.sites[2], &copy);
    assert_false(node_needs_snapshot(copy.n));
    node_test_deinit(&w.sites[2]);
    w.sites[2] = copy;
    w.count = 3;
    w.left[1] = true;
    assert_true(journaled_of(&w, 2, 1) > 0);
    drain(&w);
    check_equal(&w, 10);
    world_deinit(&w);
}

static int drop_rc;

static void dropped(void *ctx, int rc, const struct err_detail *d)
{
    (void)ctx;
    (void)d;
    drop_rc = rc;
}

/* What is waited for goes with the shards, and what is made durable while they close ends nothing:
 * the site still joins. */
static void test_another_first_page_ends_a_commit(void **state)
{
    struct world w;
    struct node_test copy;
    (void)state;
    world_init(&w, 1, 3, 11);
    work(&w, 0, 30);
    world_adopt(&w, 0);
    load_pages(&w.sites[0], &w.sites[1], UINT32_MAX);
    node_snapshot_commit(w.sites[1].n, node_site(w.sites[0].n), dropped, NULL);
    load_pages(&w.sites[0], &w.sites[1], 1);
    assert_int_equal(drop_rc, ERR_AGAIN);
    open_copy(&w.sites[1], &copy);
    assert_true(node_needs_snapshot(copy.n));
    node_test_deinit(&copy);
    bootstrap(&w.sites[0], &w.sites[1]);
    w.count = 2;
    drain(&w);
    check_equal(&w, 11);
    world_deinit(&w);
}

/* The state is in the new site's journal, too, and not needed there once it is written down: what
 * somebody lacks who is away must not keep it. */
static void test_what_others_lack_does_not_keep_the_state_in_the_journal(void **state)
{
    struct node_place place;
    struct world w;
    (void)state;
    world_init(&w, 2, 1, 13);
    work(&w, 1, 100);
    drain(&w);
    all_acked(&w, 1, 0);
    call_path(&w, 1, RPC_MKDIR, "/lacked");
    world_join(&w, 1);
    settle(&w, 2);
    struct node *n = w.sites[2].n;
    node_retention(n);
    node_peer_places(n, node_site(w.sites[0].n), &place);
    assert_true(place.need > log_last(shard_log(n->shards[0])) / 2); /* behind the state's pages */
    w.left[1] = true;
    drain(&w);
    check_equal(&w, 13);
    world_deinit(&w);
}

/* Records of the site's own business are no operations, and there may be a lot of them: who reads
 * the journal comes back after each piece, for others want the thread. */
static void test_a_past_of_few_operations_is_read_in_pieces(void **state)
{
    static const uint8_t key[2] = {SHARD_KEY_NODE, 'z'}, value[200];
    const struct local_pair pair = {slice_of(key, sizeof key), slice_of(value, sizeof value)};
    struct world w;
    (void)state;
    world_init(&w, 2, 1, 12);
    drain(&w);
    all_acked(&w, 0, 1);
    call_path(&w, 0, RPC_MKDIR, "/before");
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(shard_local(w.sites[0].n->shards[0], &pair, 1, NULL, NULL), 0);
    call_path(&w, 0, RPC_MKDIR, "/after");
    settle(&w, 0);
    world_adopt(&w, 0);
    unsigned empty = load_pages(&w.sites[0], &w.sites[2], UINT32_MAX);
    assert_true(empty > 100 * sizeof value / 1024); /* of 512 bytes each */
    commit_begin(&w.sites[0], &w.sites[2]);
    commit_wait(&w.sites[2]);
    w.count = 3;
    assert_true(journaled_of(&w, 2, 0) > 0);
    drain(&w);
    check_equal(&w, 12);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_site_passes_on_what_others_lack),
        cmocka_unit_test(test_who_joins_by_a_new_site_passes_it_on_as_well),
        cmocka_unit_test(test_what_all_others_have_does_not_come_along),
        cmocka_unit_test(test_stamps_of_a_journal_with_a_past_do_not_fall),
        cmocka_unit_test(test_an_attempt_that_broke_off_leaves_nothing),
        cmocka_unit_test(test_a_site_joins_until_its_snapshot_is_on_disk),
        cmocka_unit_test(test_another_first_page_ends_a_commit),
        cmocka_unit_test(test_what_others_lack_does_not_keep_the_state_in_the_journal),
        cmocka_unit_test(test_a_past_of_few_operations_is_read_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
