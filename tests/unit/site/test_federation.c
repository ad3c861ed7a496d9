/* Two and three sites without a network: nodes in this process whose feeds are handed over by the
 * test. A second site starts from a snapshot; random calls on all sides, random partial pulls;
 * after everything was exchanged all sites show the same tree, and fsck is clean everywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "site/member_codec.h"
#include "site/shard_int.h"
#include "tests/unit/site/federation_test.h"

/* ---- causal stability ---- */

static void check_collected(struct world *w)
{
    uint64_t seq[SITES_MAX], left = 1;
    for (unsigned round = 0; left > 0 && round < 12; round++)
        left = collect_all(w);
    assert_int_equal(left, 0);
    for (unsigned round = 0; round < 4; round++) /* who has not what the others have says it */
        (void)collect_all(w);
    for (unsigned i = 0; i < w->count; i++)
        seq[i] = shard_next_seq(w->sites[i].n->shards[0]);
    assert_int_equal(collect_all(w), 0);
    for (unsigned i = 0; i < w->count; i++)
        assert_int_equal(shard_next_seq(w->sites[i].n->shards[0]), seq[i]);
}

static void reopen(struct world *w, unsigned site)
{
    node_test_close(&w->sites[site]);
    memset(w->next[site], 0, sizeof w->next[site]);
    node_test_open(&w->sites[site]);
}

static void random_step(struct world *w)
{
    unsigned site = (unsigned)rng_below(&w->rng, w->count);
    user_step(w, site);
    if (rng_below(&w->rng, 8) == 0) {
        unsigned from = (unsigned)rng_below(&w->rng, w->count);
        for (uint64_t k = rng_below(&w->rng, 20); k > 0 && from != site; k--)
            if (!pull_one(w, site, from))
                break;
    }
    if (w->collects && rng_below(&w->rng, 6) == 0)
        collect(w, (unsigned)rng_below(&w->rng, w->count));
    if (rng_below(&w->rng, 60) == 0)
        reopen(w, site);
}

static void run_world(unsigned count, unsigned shards, uint64_t seed, unsigned steps)
{
    struct world w;
    world_init(&w, count, shards, seed);
    w.collects = seed % 2 == 1;
    for (unsigned i = 0; i < steps; i++)
        random_step(&w);
    drain(&w);
    if (w.collects)
        check_collected(&w);
    check_equal(&w, seed);
    for (unsigned i = 0; i < count; i++)
        reopen(&w, i);
    check_equal(&w, seed);
    world_deinit(&w);
}

static void test_two_sites_one_shard_converge(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_world(2, 1, seed, 250);
}

static void test_two_sites_four_shards_converge(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_world(2, 4, seed, 250);
}

static void test_three_sites_eight_shards_converge(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_world(3, 8, seed, 250);
}

static uint64_t own_operations(struct world *w, unsigned site)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < w->shards; i++)
        count += shard_next_seq(w->sites[site].n->shards[i]) - 1;
    return count;
}

/* One site puts a file below directories that the other removes: reviving them goes up one shard
 * after the other, each by a repair that only the last one's message makes due. Once the batch has
 * settled all of it is there. */
static void test_settled_revives_all_the_way_up(void **state)
{
    static const char *const dirs[] = {"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/b/c/d/e"};
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 2, 8, 7);
    for (unsigned i = 0; i < ARRAY_COUNT(dirs); i++)
        call_path(&w, 0, RPC_MKDIR, dirs[i]);
    drain(&w);
    for (unsigned i = ARRAY_COUNT(dirs); i-- > 0;)
        call_path(&w, 1, RPC_RMDIR, dirs[i]);
    call_path(&w, 0, RPC_CREATE, "/a/b/c/d/e/new");
    while (pull_one(&w, 0, 1))
        ;
    wait_settled(&w, 0);
    assert_int_equal(node_test_walk(&w.sites[0], "/a/b/c/d/e/new", &oid), 0);
    /* The other side sees it with what it is sent now, and owes nothing for it. */
    uint64_t own = own_operations(&w, 1);
    while (pull_one(&w, 1, 0))
        ;
    wait_settled(&w, 1);
    assert_int_equal(node_test_walk(&w.sites[1], "/a/b/c/d/e/new", &oid), 0);
    assert_int_equal(own_operations(&w, 1), own);
    check_equal(&w, 7);
    world_deinit(&w);
}

/* A file is removed here, written to while it has no name, and linked again because another site
 * had edited it meanwhile (rule 3): from then on all sites show the edit. What was written to it
 * without a name was this site's alone and is not shown any more. */
static void test_relinked_file_shows_what_others_show(void **state)
{
    struct world w;
    struct oid oid, again;
    (void)state;
    world_init(&w, 2, 1, 3);
    call_path(&w, 0, RPC_CREATE, "/f");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &oid), 0);
    user_write(&w.sites[1], oid, 2);
    call_path(&w, 0, RPC_UNLINK, "/f");
    user_write(&w.sites[0], oid, 1);
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &again), 0);
    assert_true(oid_equal(oid, again));
    check_equal(&w, 3);
    user_write(&w.sites[0], oid, 4); /* and can be written to */
    drain(&w);
    check_equal(&w, 3);
    world_deinit(&w);
}

/* The last operation of each site, as each site says it. */
static void check_last_ops(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        for (unsigned k = 0; k < w->count; k++) {
            struct last_op own[SHARD_COUNT_MAX], seen[SHARD_COUNT_MAX];
            node_last_ops(w->sites[k].n, node_site(w->sites[k].n), own);
            node_last_ops(w->sites[i].n, node_site(w->sites[k].n), seen);
            assert_memory_equal(own, seen, w->shards * sizeof own[0]);
            for (unsigned s = 0; s < w->shards; s++)
                assert_int_equal(own[s].seq, shard_next_seq(w->sites[k].n->shards[s]) - 1);
        }
}

static void reopen_after_work(struct world *w, unsigned site)
{
    struct shard **shards = w->sites[site].n->shards;
    for (unsigned s = 0; s < w->shards; s++)
        shard_checkpoint(shards[s], true);
    settle(w, site);
    user_step(w, site);
    reopen(w, site);
}

/* What a site is asked for when it meets another (W11) outlasts restarts, and is in a snapshot. */
static void test_last_operations_are_known_with_their_stamps(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 3, 4, 11); /* the others begin with a snapshot */
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 40; i++)
            user_step(&w, i % 3);
        drain(&w);
        check_last_ops(&w);
        for (unsigned i = 0; i < 3; i++)
            reopen_after_work(&w, i);
        drain(&w);
        check_last_ops(&w);
    }
    world_deinit(&w);
}

/* ---- conflicts ---- */

static void told(void *ctx, int rc, const char *json)
{
    char **ret = ctx;
    assert_int_equal(rc, 0);
    *ret = mem_strdup(json);
}

static void check_conflicts_tell(struct world *w, unsigned site, const char *verb, const char *text)
{
    char *json = NULL;
    node_admin_ask(w->sites[site].n, verb, told, &json);
    assert_non_null(json);
    if (strstr(json, text) == NULL)
        print_error("%s at site %u: %s is not in %s\n", verb, site, text, json);
    assert_non_null(strstr(json, text));
    mem_free(json);
}

/* A file that two sites have edited (rule 2) is removed by one of them before it hears that the
 * other has made its version a file of its own: the record of that is about a file without a name,
 * and tells the one that it had last. */
static void test_conflict_of_a_file_without_a_name_tells_its_last_one(void **state)
{
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 2, 1, 3);
    call_path(&w, 0, RPC_CREATE, "/f");
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &oid), 0);
    user_write(&w.sites[1], oid, 2);
    struct merge *mine = shard_merge(w.sites[0].n->shards[0]);
    struct merge *other = shard_merge(w.sites[1].n->shards[0]);
    while (hlc_ms(merge_hlc_max(mine)) <= hlc_ms(merge_hlc_max(other)))
        user_write(&w.sites[0], oid, 1); /* the later one: it keeps the name */
    while (pull_one(&w, 1, 0))
        ;
    wait_settled(&w, 1);
    call_path(&w, 0, RPC_UNLINK, "/f");
    drain(&w);
    check_equal(&w, 3);
    for (unsigned i = 0; i < 2; i++) {
        check_conflicts_tell(&w, i, "conflicts.list", "\"path\":\"/f\"");
        check_conflicts_tell(&w, i, "conflicts.explain", "\"path\":\"/f.conflict-s1-");
    }
    world_deinit(&w);
}

/* ---- leaving ---- */

static const struct member *member_at(struct world *w, unsigned site, unsigned other)
{
    struct node *n = w->sites[site].n;
    node_members_fresh(n);
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.site == node_site(w->sites[other].n))
            return &n->members[i].m;
    fail();
    return NULL;
}

static void leaves_step(struct world *w, unsigned site)
{
    node_leaves_step(w->sites[site].n);
    settle(w, site);
}

static void remove_member(struct world *w, unsigned site, unsigned leaver)
{
    node_member_remove(w->sites[site].n, node_site(w->sites[leaver].n), LEAVES_REMOVED, member_done,
                       &w->sites[site]);
    assert_int_equal(node_run(w->sites[site].n), 0);
    w->sites[site].n->stopping = false;
}

static void refused(void *ctx, int rc)
{
    *(int *)ctx = rc;
}

/* An operator removed it, another one lets it come back: all know that it may. */
static void test_readmitted_site_may_come_back(void **state)
{
    struct world w;
    int rc = 0;
    (void)state;
    world_init(&w, 3, 1, 4);
    drain(&w);
    site_id_t leaver = node_site(w.sites[2].n);
    node_member_readmit(w.sites[0].n, leaver, refused, &rc);
    assert_int_equal(rc, ERR_INVALID);
    node_member_readmit(w.sites[0].n, 1, refused, &rc);
    assert_int_equal(rc, ERR_NOT_FOUND);
    w.left[2] = true;
    remove_member(&w, 0, 2);
    drain(&w);
    assert_int_equal(member_at(&w, 1, 2)->why, LEAVES_REMOVED);
    node_member_readmit(w.sites[1].n, leaver, member_done, &w.sites[1]);
    assert_int_equal(node_run(w.sites[1].n), 0);
    w.sites[1].n->stopping = false;
    drain(&w);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(member_at(&w, i, 2)->why, LEAVES_AWAY);
        assert_int_not_equal(member_at(&w, i, 2)->status, MEMBER_IS);
    }
    world_deinit(&w);
}

/* A register of the root, as a member may have written it. */
static void write_register(struct node_test *t, struct slice key, struct slice value)
{
    struct op_builder b = {0};
    struct proposal p = {.committed = member_done, .ctx = t};
    op_builder_init(&b);
    struct effect *e = op_builder_add(&b, EFFECT_SET, OID_ROOT);
    e->set.key = key;
    e->set.value = value;
    e->set.present = true;
    assert_int_equal(shard_propose(t->n->shards[0], &b, &p, NULL), 0);
    op_builder_deinit(&b);
    assert_int_equal(node_run(t->n), 0);
    t->n->stopping = false;
}

/* The part of it that can be read says that a site leaves, and nothing takes that back. */
static void test_answer_that_cannot_be_read_removes_nobody(void **state)
{
    struct world w;
    struct cut_answer a = {.other_count = 1};
    struct buf value = {0};
    uint8_t key[CUT_KEY_BYTES];
    (void)state;
    world_init(&w, 3, 1, 4);
    a.leaver = node_site(w.sites[1].n);
    a.others[0] = node_site(w.sites[2].n);
    cut_key(a.leaver, node_site(w.sites[0].n), key);
    cut_encode(&a, 1, &value);
    buf_append(&value, "\0", 1);
    write_register(&w.sites[0], slice_of(key, sizeof key), buf_slice(&value));
    for (unsigned i = 1; i < 3; i++)
        assert_int_equal(member_at(&w, 0, i)->status, MEMBER_IS);
    /* The same without what is too much. */
    value.len--;
    write_register(&w.sites[0], slice_of(key, sizeof key), buf_slice(&value));
    for (unsigned i = 1; i < 3; i++)
        assert_int_not_equal(member_at(&w, 0, i)->status, MEMBER_IS);
    buf_deinit(&value);
    world_deinit(&w);
}

static bool knows_cut(struct world *w, unsigned leaver)
{
    for (unsigned i = 0; i < w->count; i++)
        if (!w->left[i] && member_at(w, i, leaver)->status != MEMBER_REMOVED)
            return false;
    return true;
}

/* All who remain know the cut, have all up to it, and nothing beyond. */
static void check_cut(struct world *w, unsigned leaver)
{
    site_id_t site = node_site(w->sites[leaver].n);
    const uint64_t *cut = NULL;
    for (unsigned i = 0; i < w->count; i++) {
        struct node *n = w->sites[i].n;
        if (w->left[i])
            continue;
        assert_int_equal(member_at(w, i, leaver)->status, MEMBER_REMOVED);
        for (uint32_t k = 0; k < n->member_count; k++) {
            if (n->members[k].m.site != site)
                continue;
            if (cut != NULL)
                assert_memory_equal(n->members[k].cut, cut, w->shards * sizeof cut[0]);
            cut = n->members[k].cut;
        }
        for (unsigned k = 0; k < w->shards; k++) {
            struct vv durable;
            shard_durable_vv(n->shards[k], &durable);
            assert_int_equal(merge_seen(shard_merge(n->shards[k]), (shard_id_t)k, site), cut[k]);
            assert_int_equal(vv_get(&durable, site), cut[k]);
            assert_int_equal(shard_waiting_count(n->shards[k]), 0);
        }
        assert_true(node_left(n, site));
    }
}

static bool owes(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        for (unsigned k = 0; k < w->shards && !w->left[i]; k++)
            if (merge_owes(shard_merge(w->sites[i].n->shards[k])))
                return true;
    return false;
}

/* Exchanges all and answers until all who remain know the cut of all who left. */
static void until_cut(struct world *w)
{
    /* States are written down by threads, which a busy machine may keep waiting. */
    uint64_t end = clock_mono_ns(&clock_os) + 60 * NS_PER_SEC;
    bool known = false;
    for (unsigned round = 0; round < 8 || !known; round++) {
        assert_true(clock_mono_ns(&clock_os) < end);
        drain(w);
        known = true;
        for (unsigned i = 0; i < w->count; i++) {
            if (!w->left[i])
                leaves_step(w, i);
            known = known && (!w->left[i] || knows_cut(w, i));
        }
    }
    drain(w);
}

static void check_cuts(struct world *w, uint64_t seed)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->left[i])
            check_cut(w, i);
    check_equal(w, seed);
}

static void check_left(struct world *w, uint64_t seed)
{
    until_cut(w);
    /* Whatever they still send changes nothing. */
    for (unsigned i = 0; i < w->count; i++)
        for (unsigned k = 0; k < w->count; k++)
            while (!w->left[i] && w->left[k] && pull_one(w, i, k))
                continue;
    until_cut(w);
    check_cuts(w, seed);
    if (!owes(w)) /* others take over what a leaver owed, after 30 s: nothing goes before */
        check_collected(w);
    for (unsigned i = 0; i < w->count; i++)
        reopen(w, i);
    check_cuts(w, seed);
}

static void steps_while_leaving(struct world *w, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        random_step(w);
        unsigned site = (unsigned)rng_below(&w->rng, w->count);
        if (rng_below(&w->rng, 4) == 0)
            leaves_step(w, site);
    }
}

/* One site leaves in the middle of things: whoever removes it, whoever is away at that moment, and
 * though it works on and some still hear of it. */
static void run_leaving(unsigned count, unsigned shards, uint64_t seed, unsigned steps)
{
    struct world w;
    world_init(&w, count, shards, seed);
    w.collects = seed % 2 == 1;
    drain(&w); /* all know all */
    unsigned leaver = 1 + (unsigned)rng_below(&w.rng, count - 1);
    unsigned remover = (leaver + 1 + (unsigned)rng_below(&w.rng, count - 1)) % count;
    for (unsigned i = 0; i < steps; i++)
        random_step(&w);
    remove_member(&w, remover, leaver);
    steps_while_leaving(&w, steps);
    w.left[leaver] = true;
    check_left(&w, seed);
    world_deinit(&w);
}

static void test_leaving_site_has_one_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++)
        run_leaving(4, 4, seed, 60);
}

/* Found by this seed: an answer behind what waits for the cut. */
static void test_leaving_site_has_one_cut_seed_13(void **state)
{
    (void)state;
    run_leaving(3, 2, 13, 30);
}

/* Found by this seed: what died after a site's last word had it wait for ever for the others',
 * whose words did not suffice for it and who did not know. */
static void test_what_died_after_a_word_is_asked_for(void **state)
{
    (void)state;
    run_leaving(3, 2, 11, 30);
}

/* A second site leaves before the removal of the first has ended; the first one may be who removes
 * it, and either may have answered for the other. */
static void run_two_leaving(unsigned count, unsigned shards, uint64_t seed, unsigned steps)
{
    struct world w;
    world_init(&w, count, shards, seed);
    w.collects = seed % 2 == 1;
    drain(&w);
    unsigned first = 1 + (unsigned)rng_below(&w.rng, count - 1);
    unsigned second = (first + 1 + (unsigned)rng_below(&w.rng, count - 1)) % count;
    unsigned remover = (first + 1 + (unsigned)rng_below(&w.rng, count - 1)) % count;
    for (unsigned i = 0; i < steps; i++)
        random_step(&w);
    remove_member(&w, remover, first);
    steps_while_leaving(&w, (unsigned)rng_below(&w.rng, steps + 1));
    do
        remover = (unsigned)rng_below(&w.rng, count);
    while (remover == first || remover == second);
    remove_member(&w, remover, second);
    steps_while_leaving(&w, steps);
    w.left[first] = w.left[second] = true;
    if (member_at(&w, remover, first)->status == MEMBER_IS)
        remove_member(&w, remover, first); /* the second one's word went with it */
    check_left(&w, seed);
    world_deinit(&w);
}

static void test_two_leaving_sites_have_one_cut_each(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++)
        run_two_leaving(4, 2, seed, 30);
}

static bool has_answered(struct world *w, unsigned site)
{
    const struct node *n = w->sites[site].n;
    return n->leaving.count > 0 && n->leaving.owed == 0;
}

/* The sites' turns, until all of them have answered for whom they know to leave. */
static void until_answered(struct world *w, unsigned first, unsigned last)
{
    uint64_t end = clock_mono_ns(&clock_os) + 60 * NS_PER_SEC;
    for (bool all = false; !all;) {
        assert_true(clock_mono_ns(&clock_os) < end);
        all = true;
        for (unsigned i = first; i <= last; i++) {
            leaves_step(w, i);
            all = all && has_answered(w, i);
        }
    }
}

static void pull_all(struct world *w, unsigned to, unsigned from)
{
    settle(w, from);
    while (pull_one(w, to, from))
        ;
    settle(w, to);
}

/* Site `last` leaves. Site 0 has an operation of its that site 1 took no more, and has built on it
 * before it answers: at site 1 that answer stands behind what waits for the cut. */
static void answer_behind_what_waits(struct world *w, unsigned last)
{
    struct oid oid;
    drain(w);
    call_path(w, last, RPC_CREATE, "/f");
    pull_all(w, 0, last);
    assert_int_equal(node_test_walk(&w->sites[0], "/f", &oid), 0);
    user_write(&w->sites[0], oid, 1);
    w->left[last] = true;
    remove_member(w, 1, last);
    until_answered(w, 1, 1);
    pull_all(w, 0, 1);
    until_answered(w, 0, 0);
    pull_all(w, 1, 0);
}

static void test_answer_behind_what_waits_is_known(void **state)
{
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 3, 1, 5);
    answer_behind_what_waits(&w, 2);
    check_left(&w, 5);
    assert_int_equal(node_test_walk(&w.sites[1], "/f", &oid), 0);
    world_deinit(&w);
}

/* The same, with a member that is away meanwhile, and a restart where the answer waits. */
static void test_answer_behind_what_waits_is_known_after_a_restart(void **state)
{
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 4, 1, 6);
    answer_behind_what_waits(&w, 3);
    assert_int_equal(member_at(&w, 1, 3)->status, MEMBER_LEAVING);
    assert_true(shard_waiting_count(w.sites[1].n->shards[0]) > 0);
    reopen(&w, 1);
    assert_int_equal(member_at(&w, 1, 3)->status, MEMBER_LEAVING);
    assert_true(shard_waiting_count(w.sites[1].n->shards[0]) > 0);
    check_left(&w, 6);
    assert_int_equal(node_test_walk(&w.sites[2], "/f", &oid), 0);
    world_deinit(&w);
}

/* Sites 3 and 2 leave one after the other. Site 1 had heard all of site 2, and so knew a cut of
 * site 3 that let in an operation which site 0, that had not heard of it, would have dropped. */
static void test_second_leaver_does_not_split_the_cut_of_the_first(void **state)
{
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 4, 1, 8);
    drain(&w);
    call_path(&w, 3, RPC_CREATE, "/f");
    pull_all(&w, 2, 3);
    w.left[3] = true;
    remove_member(&w, 0, 3);
    pull_all(&w, 1, 0);
    pull_all(&w, 2, 0);
    until_answered(&w, 0, 2);
    pull_all(&w, 0, 1);
    pull_all(&w, 1, 0);
    pull_all(&w, 1, 2);
    leaves_step(&w, 1);
    leaves_step(&w, 1);
    assert_int_equal(member_at(&w, 1, 3)->status, MEMBER_REMOVED);
    assert_int_equal(node_test_walk(&w.sites[1], "/f", &oid), 0);
    w.left[2] = true;
    remove_member(&w, 0, 2);
    leaves_step(&w, 0);
    leaves_step(&w, 0);
    pull_all(&w, 0, 1);
    check_left(&w, 8);
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &oid), 0);
    world_deinit(&w);
}

static unsigned long long asked[4];
static unsigned asked_leaving;

/* ---- retention ---- */

static const struct node_backlog *backlog_at(struct world *w, struct node_backlog *all)
{
    node_retention(w->sites[0].n);
    assert_int_equal(node_backlogs(w->sites[0].n, all), 1);
    assert_int_equal(all[0].site, node_site(w->sites[1].n));
    return &all[0];
}

static void user_creates(struct node_test *t, const char *name)
{
    struct fs_request q = {
        .oid = OID_ROOT, .name = slice_str(name), .kind = OID_FILE, .mode = 0644};
    assert_int_equal(node_test_call(t, RPC_CREATE, &q), 0);
}

/* Journals are kept for what a member lacks; what it issued itself, or says that it has, is not
 * that, whether it ever acknowledged anything here or not. */
static void test_backlog_is_what_is_lacked(void **state)
{
    struct world w;
    struct node_backlog all[SITE_COUNT_MAX];
    (void)state;
    world_init(&w, 2, 4, 7);
    drain(&w);
    uint64_t acked[SHARD_COUNT_MAX];
    for (unsigned i = 0; i < w.shards; i++)
        acked[i] = log_durable(shard_log(w.sites[0].n->shards[i]));
    node_peer_acked(w.sites[0].n, node_site(w.sites[1].n), acked);
    settle(&w, 0);
    assert_false(backlog_at(&w, all)->runs_out);
    assert_int_equal(all[0].bytes, 0);
    user_creates(&w.sites[1], "theirs");
    drain(&w);
    assert_int_equal(backlog_at(&w, all)->bytes, 0);
    assert_false(all[0].runs_out);
    user_creates(&w.sites[0], "ours");
    assert_true(backlog_at(&w, all)->bytes > 0);
    assert_true(all[0].runs_out && all[0].left_ms > 0);
    node_peer_heard(w.sites[0].n, node_site(w.sites[1].n));
    settle(&w, 0);
    assert_false(backlog_at(&w, all)->runs_out);
    assert_true(all[0].bytes > 0);
    /* Its word comes by whatever way. */
    drain(&w);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("ours")};
    assert_int_equal(node_test_call(&w.sites[0], RPC_UNLINK, &q), 0);
    uint64_t index = log_durable(shard_log(w.sites[0].n->shards[0]));
    drain(&w);
    (void)backlog_at(&w, all);
    assert_true(w.sites[0].n->shards[0]->keep_from <= index);
    for (unsigned round = 0; round < 4; round++)
        (void)collect_all(&w);
    (void)backlog_at(&w, all);
    assert_true(w.sites[0].n->shards[0]->keep_from > index);
    world_deinit(&w);
}

static void test_asked(void **state)
{
    (void)state;
    (asked_leaving == 2 ? run_two_leaving
     : asked_leaving == 1
         ? run_leaving
         : run_world)((unsigned)asked[0], (unsigned)asked[1], asked[2], (unsigned)asked[3]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_sites_one_shard_converge),
        cmocka_unit_test(test_two_sites_four_shards_converge),
        cmocka_unit_test(test_three_sites_eight_shards_converge),
        cmocka_unit_test(test_settled_revives_all_the_way_up),
        cmocka_unit_test(test_relinked_file_shows_what_others_show),
        cmocka_unit_test(test_conflict_of_a_file_without_a_name_tells_its_last_one),
        cmocka_unit_test(test_last_operations_are_known_with_their_stamps),
        cmocka_unit_test(test_readmitted_site_may_come_back),
        cmocka_unit_test(test_answer_that_cannot_be_read_removes_nobody),
        cmocka_unit_test(test_leaving_site_has_one_cut),
        cmocka_unit_test(test_leaving_site_has_one_cut_seed_13),
        cmocka_unit_test(test_what_died_after_a_word_is_asked_for),
        cmocka_unit_test(test_two_leaving_sites_have_one_cut_each),
        cmocka_unit_test(test_answer_behind_what_waits_is_known),
        cmocka_unit_test(test_answer_behind_what_waits_is_known_after_a_restart),
        cmocka_unit_test(test_second_leaver_does_not_split_the_cut_of_the_first),
        cmocka_unit_test(test_backlog_is_what_is_lacked),
    };
    if (argc > 4) { /* sites shards seed steps [leaving|two-leaving]: to replay one */
        const struct CMUnitTest one[] = {cmocka_unit_test(test_asked)};
        for (int i = 0; i < 4; i++)
            asked[i] = strtoull(argv[i + 1], NULL, 10);
        asked_leaving = argc > 5 ? (strcmp(argv[5], "two-leaving") == 0 ? 2 : 1) : 0;
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
