/* Members that leave: everybody finds the same cut, whoever leaves, whoever is away meanwhile, and
 * whatever waits for it; and nothing overtakes what waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "site/member_codec.h"
#include "site/shard_int.h"
#include "tests/unit/site/federation_test.h"

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

/* ---- what follows from what waits (P7) ---- */

#define ASIDE 6u /* directories, in several shards */

static void aside(struct world *w, unsigned site, enum rpc_type type, const char *name)
{
    char path[32];
    for (unsigned i = 0; i < ASIDE; i++) {
        snprintf(path, sizeof path, "/d%u%s", i, name);
        call_path(w, site, type, path);
    }
}

static bool shows(struct world *w, unsigned site, const char *path)
{
    struct oid oid;
    return node_test_walk(&w->sites[site], path, &oid) == 0;
}

/* All of the directories at once, or none: site 0 had made what is in there in this order. */
static bool shows_aside(struct world *w, unsigned site, const char *name)
{
    unsigned count = 0;
    char path[32];
    for (unsigned i = 0; i < ASIDE; i++) {
        snprintf(path, sizeof path, "/d%u%s", i, name);
        count += shows(w, site, path);
    }
    assert_true(count == 0 || count == ASIDE);
    return count == ASIDE;
}

static void move_away(struct world *w, unsigned site, const char *name, const char *to)
{
    struct node_test *t = &w->sites[site];
    struct oid dir;
    struct oid other;
    struct slice last;
    assert_int_equal(node_test_walk(t, to, &dir), 0);
    assert_int_equal(node_test_parent(t, name, &other, &last), 0);
    struct fs_request q = {.oid = other, .name = last, .oid2 = dir, .name2 = last};
    assert_int_equal(node_test_call(t, RPC_RENAME, &q), 0);
}

/* Site 3 leaves, while site 2 is away. Site 0 has a file of its that site 1 took no more; it works
 * in many directories, then on that file, then in the directories again. Which shard the operation
 * on the file lives in is another each time. */
static void work_on_what_waits(struct world *w, unsigned to)
{
    char dir[8];
    world_init(w, 4, 4, 9 + to);
    aside(w, 0, RPC_MKDIR, "");
    drain(w);
    call_path(w, 3, RPC_CREATE, "/f");
    pull_all(w, 0, 3);
    w->left[3] = true;
    remove_member(w, 1, 3);
    until_answered(w, 1, 1);
    aside(w, 0, RPC_CREATE, "/before");
    snprintf(dir, sizeof dir, "/d%u", to);
    move_away(w, 0, "/f", dir);
    aside(w, 0, RPC_CREATE, "/after");
    pull_all(w, 1, 0);
}

static uint64_t waits_since(struct world *w, unsigned at, unsigned of)
{
    return node_waits_since(w->sites[at].n, node_site(w->sites[of].n));
}

/* Nothing that site 0 did later shows before it, whatever it is about, also when the node was
 * stopped meanwhile; and all of it in the end. */
static void test_what_follows_from_what_waits_waits_too(void **state)
{
    (void)state;
    for (unsigned to = 0; to < 3; to++) {
        struct world w;
        char moved[12];
        work_on_what_waits(&w, to);
        assert_int_equal(member_at(&w, 1, 3)->status, MEMBER_LEAVING);
        assert_true(shows_aside(&w, 1, "/before"));
        assert_false(shows_aside(&w, 1, "/after"));
        assert_true(waits_since(&w, 1, 0) > 1);
        assert_int_equal(waits_since(&w, 1, 2), 0);
        snprintf(moved, sizeof moved, "/d%u/f", to);
        assert_false(shows(&w, 1, moved));
        reopen(&w, 1);
        assert_int_equal(waits_since(&w, 1, 0), 1);
        assert_true(shows_aside(&w, 1, "/before"));
        assert_false(shows_aside(&w, 1, "/after"));
        assert_false(shows(&w, 1, moved));
        aside(&w, 0, RPC_CREATE, "/later");
        pull_all(&w, 1, 0);
        assert_false(shows_aside(&w, 1, "/later"));
        check_left(&w, 9 + to);
        assert_int_equal(waits_since(&w, 1, 0), 0);
        assert_true(shows_aside(&w, 1, "/after"));
        assert_true(shows_aside(&w, 1, "/later"));
        assert_true(shows(&w, 1, moved));
        world_deinit(&w);
    }
}

/* What a leaver did waits in each shard for the cut, which is taken shard by shard: a move waits in
 * the shard of its new directory for the file's, whose turn may come later. All of it shows when
 * all have the cut, or what it did after the moves would show without them (P7). */
static void test_what_waits_in_several_shards_shows_at_once(void **state)
{
    struct world w;
    char from[16], to[16];
    (void)state;
    world_init(&w, 3, 4, 12);
    aside(&w, 0, RPC_MKDIR, "");
    drain(&w);
    remove_member(&w, 1, 2);
    until_answered(&w, 1, 1);
    for (unsigned i = 0; i < ASIDE; i++) {
        (void)snprintf(from, sizeof from, "/d%u/f%u", i, i);
        (void)snprintf(to, sizeof to, "/d%u", (i + 1) % ASIDE);
        call_path(&w, 2, RPC_CREATE, from);
        move_away(&w, 2, from, to);
    }
    aside(&w, 2, RPC_CREATE, "/after");
    pull_all(&w, 0, 2);
    w.left[2] = true;
    pull_all(&w, 1, 0);
    pull_all(&w, 0, 1);
    until_answered(&w, 0, 0);
    assert_false(shows_aside(&w, 1, "/after"));
    pull_all(&w, 1, 0);
    for (unsigned i = 0; member_at(&w, 1, 2)->status != MEMBER_REMOVED && i < 100; i++)
        leaves_step(&w, 1);
    leaves_step(&w, 1);
    assert_true(shows_aside(&w, 1, "/after"));
    for (unsigned i = 0; i < ASIDE; i++) {
        (void)snprintf(to, sizeof to, "/d%u/f%u", (i + 1) % ASIDE, i);
        assert_true(shows(&w, 1, to));
    }
    check_left(&w, 12);
    world_deinit(&w);
}

/* A site that does nothing with it is not held up. */
static void test_others_are_not_held_up_by_what_waits(void **state)
{
    struct world w;
    (void)state;
    work_on_what_waits(&w, 0);
    aside(&w, 2, RPC_CREATE, "/other");
    pull_all(&w, 1, 2);
    assert_true(shows_aside(&w, 1, "/other"));
    assert_false(shows_aside(&w, 1, "/after"));
    check_left(&w, 9);
    world_deinit(&w);
}

static unsigned long long asked[4];
static bool asked_two;

static void test_asked(void **state)
{
    (void)state;
    (asked_two ? run_two_leaving : run_leaving)((unsigned)asked[0], (unsigned)asked[1], asked[2],
                                                (unsigned)asked[3]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readmitted_site_may_come_back),
        cmocka_unit_test(test_answer_that_cannot_be_read_removes_nobody),
        cmocka_unit_test(test_leaving_site_has_one_cut),
        cmocka_unit_test(test_leaving_site_has_one_cut_seed_13),
        cmocka_unit_test(test_what_died_after_a_word_is_asked_for),
        cmocka_unit_test(test_two_leaving_sites_have_one_cut_each),
        cmocka_unit_test(test_answer_behind_what_waits_is_known),
        cmocka_unit_test(test_answer_behind_what_waits_is_known_after_a_restart),
        cmocka_unit_test(test_second_leaver_does_not_split_the_cut_of_the_first),
        cmocka_unit_test(test_what_follows_from_what_waits_waits_too),
        cmocka_unit_test(test_what_waits_in_several_shards_shows_at_once),
        cmocka_unit_test(test_others_are_not_held_up_by_what_waits),
    };
    if (argc > 4) { /* sites shards seed steps [two]: to replay one */
        const struct CMUnitTest one[] = {cmocka_unit_test(test_asked)};
        for (int i = 0; i < 4; i++)
            asked[i] = strtoull(argv[i + 1], NULL, 10);
        asked_two = argc > 5 && strcmp(argv[5], "two") == 0;
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
