/* Members that enter: who knows of whom, who is counted for it, and how a site that was given up
 * enters again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "site/member_codec.h"
#include "site/shard_int.h"
#include "tests/unit/site/federation_test.h"

#define NEW_ID 0xabc0u   /* what a site comes back as */
#define OTHER_ID 0xabc1u /* one that was given to nobody here */

static site_id_t id_of(struct world *w, unsigned site)
{
    return node_site(w->sites[site].n);
}

static const struct member *member_at(struct world *w, unsigned site, site_id_t id)
{
    node_members_fresh(w->sites[site].n);
    const struct node_member_cache *c = node_member_find(w->sites[site].n, id);
    return c != NULL ? &c->m : NULL;
}

/* The site says whom it knows, if it has not. */
static void says(struct world *w, unsigned site)
{
    struct node *n = w->sites[site].n;
    uint64_t end = clock_mono_ns(&clock_os) + 60 * NS_PER_SEC;
    do {
        assert_true(clock_mono_ns(&clock_os) < end);
        node_members_fresh(n);
        node_entries_step(n);
        settle(w, site);
        node_members_fresh(n);
    } while (n->entering.owed || n->entering.busy);
}

static void all_say(struct world *w)
{
    drain(w);
    for (unsigned i = 0; i < w->count; i++)
        if (!w->left[i])
            says(w, i);
    drain(w);
}

static void pull_all(struct world *w, unsigned to, unsigned from)
{
    settle(w, from);
    while (pull_one(w, to, from))
        ;
    settle(w, to);
}

static uint32_t quorum_at(struct world *w, unsigned site, struct quorum_member *ret)
{
    node_members_fresh(w->sites[site].n);
    return node_quorum(w->sites[site].n, ret);
}

static bool is_established(struct world *w, unsigned site, site_id_t id)
{
    struct quorum_member at[SITE_COUNT_MAX];
    uint32_t count = quorum_at(w, site, at);
    for (uint32_t i = 0; i < count; i++)
        if (at[i].site == id)
            return quorum_is_established(at, count, i);
    return false;
}

static void check_all_established(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++)
        for (unsigned k = 0; k < w->count; k++)
            assert_true(is_established(w, i, id_of(w, k)));
}

/* Each with a certificate of its own. */
static void world_of(struct world *w, unsigned count)
{
    world_init(w, count, 2, 1);
    for (unsigned i = 0; i < count; i++) {
        struct member m = {.site = id_of(w, i), .cert = slice_str("cert")};
        snprintf(m.name, sizeof m.name, "s%u", i);
        snprintf(m.wan, sizeof m.wan, "s%u:9000", i);
        m.cert_sha256[0] = (uint8_t)(1 + i);
        node_member_set(w->sites[0].n, &m, member_done, &w->sites[0]);
        assert_int_equal(node_run(w->sites[0].n), 0);
        w->sites[0].n->stopping = false;
    }
    all_say(w);
}

/* Site 0 lets it in, and it begins with that one's tree. */
static void joins(struct world *w, unsigned site)
{
    struct err_detail d = {{0}};
    assert_int_equal(site, w->count);
    node_test_init(&w->sites[site], 3);
    add_member(&w->sites[0], id_of(w, site), site);
    assert_int_equal(node_adopt(w->sites[site].n, node_fs_key(w->sites[0].n), w->shards, &d), 0);
    bootstrap(&w->sites[0], &w->sites[site]);
    w->count++;
}

static void remove_member(struct world *w, unsigned site, site_id_t leaver)
{
    node_member_remove(w->sites[site].n, leaver, LEAVES_AWAY, member_done, &w->sites[site]);
    assert_int_equal(node_run(w->sites[site].n), 0);
    w->sites[site].n->stopping = false;
}

/* ---- who knows whom ---- */

static void test_all_are_established_when_all_have_exchanged(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 4, 2, 1);
    all_say(&w);
    check_all_established(&w);
    for (unsigned i = 0; i < w.count; i++) {
        struct quorum_member at[SITE_COUNT_MAX];
        assert_int_equal(quorum_at(&w, i, at), w.count);
        for (unsigned k = 0; k < w.count; k++)
            assert_true(at[k].reached == (at[k].site == id_of(&w, i)));
        assert_false(quorum_is_reached(at, w.count)); /* by itself */
        for (unsigned k = 0; k < w.count; k++)
            at[k].reached = true;
        assert_true(quorum_is_reached(at, w.count));
    }
    world_deinit(&w);
}

static void test_a_site_by_itself_says_nothing(void **state)
{
    struct world w;
    struct quorum_member at[SITE_COUNT_MAX];
    (void)state;
    world_init(&w, 1, 1, 1);
    node_members_fresh(w.sites[0].n);
    node_entries_step(w.sites[0].n);
    settle(&w, 0);
    assert_int_equal(quorum_at(&w, 0, at), 1);
    assert_false(node_member_find(w.sites[0].n, id_of(&w, 0))->has_said);
    world_deinit(&w);
}

/* The third one runs a program of before, which says no K, and nobody has said one for it. */
static void joins_silently(struct world *w, unsigned site)
{
    struct err_detail d = {{0}};
    struct member m = {
        .site = 0, .name = "old", .cert_sha256 = {(uint8_t)(1 + site)}, .cert = slice_str("cert")};
    assert_int_equal(site, w->count);
    node_test_init(&w->sites[site], 3);
    w->sites[site].n->entering.busy = true;
    m.site = id_of(w, site);
    node_member_set(w->sites[0].n, &m, member_done, &w->sites[0]);
    assert_int_equal(node_run(w->sites[0].n), 0);
    w->sites[0].n->stopping = false;
    assert_int_equal(node_adopt(w->sites[site].n, node_fs_key(w->sites[0].n), w->shards, &d), 0);
    bootstrap(&w->sites[0], &w->sites[site]);
    w->count++;
}

static bool reach_most(struct world *w, unsigned site, site_id_t missing)
{
    struct quorum_member at[SITE_COUNT_MAX];
    uint32_t count = quorum_at(w, site, at);
    for (uint32_t i = 0; i < count; i++)
        at[i].reached = at[i].site != missing;
    return quorum_is_reached(at, count);
}

/* Two of three were upgraded, the third one is gone for good: they have to be able to give it up.
 */
static void test_who_says_nothing_is_taken_by_its_word_for_what_it_has(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 2, 1);
    joins_silently(&w, 2);
    drain(&w);
    says(&w, 0);
    says(&w, 1);
    drain(&w);
    assert_false(node_member_find(w.sites[0].n, id_of(&w, 2))->has_said);
    assert_false(reach_most(&w, 0, id_of(&w, 2)));
    call_path(&w, 0, RPC_CREATE, "/f");
    call_path(&w, 0, RPC_UNLINK, "/f");
    check_collected(&w);
    assert_false(node_member_find(w.sites[0].n, id_of(&w, 2))->has_said);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < w.count; k++)
            assert_true(is_established(&w, i, id_of(&w, k)));
        assert_true(reach_most(&w, i, id_of(&w, 2)));
    }
    /* Of whom it had never heard it has not said so. */
    add_member(&w.sites[0], NEW_ID, 9);
    says(&w, 0);
    assert_false(is_established(&w, 0, NEW_ID));
    world_deinit(&w);
}

/* Whoever has not heard of it may have a majority without it. */
static void test_who_was_let_in_is_established_when_all_say_so(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 3, 2, 1);
    all_say(&w);
    joins(&w, 3);
    site_id_t id = id_of(&w, 3);
    assert_false(is_established(&w, 0, id));
    assert_true(is_established(&w, 0, id_of(&w, 1))); /* it knows all whom its inviter knows */
    says(&w, 0);
    pull_all(&w, 3, 0);
    says(&w, 3);
    pull_all(&w, 0, 3);
    assert_false(is_established(&w, 0, id));
    pull_all(&w, 1, 0);
    says(&w, 1);
    pull_all(&w, 0, 1);
    assert_false(is_established(&w, 0, id));
    assert_true(is_established(&w, 0, id_of(&w, 1)));
    pull_all(&w, 2, 0);
    says(&w, 2);
    assert_false(is_established(&w, 0, id)); /* for all that is known there */
    pull_all(&w, 0, 2);
    assert_true(is_established(&w, 0, id));
    all_say(&w);
    check_all_established(&w);
    world_deinit(&w);
}

static void test_who_leaves_counts_against_until_all_know_it(void **state)
{
    struct world w;
    struct quorum_member at[SITE_COUNT_MAX];
    (void)state;
    world_of(&w, 3);
    w.left[1] = true;
    remove_member(&w, 0, id_of(&w, 1));
    says(&w, 0);
    assert_int_equal(quorum_at(&w, 0, at), 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(at[i].leaves == (at[i].site == id_of(&w, 1)));
        at[i].reached = at[i].site != id_of(&w, 2); /* contact with who leaves changes nothing */
    }
    assert_false(quorum_is_reached(at, 3)); /* one of three */
    assert_true(is_established(&w, 0, id_of(&w, 0)));
    pull_all(&w, 2, 0);
    says(&w, 2);
    pull_all(&w, 0, 2);
    uint32_t count = quorum_at(&w, 0, at);
    for (unsigned i = 0; i < count; i++)
        at[i].reached = at[i].site != id_of(&w, 1);
    assert_true(quorum_is_reached(at, count));
    for (unsigned i = 0; i < count; i++) /* one of two: which one has the lower id decides */
        at[i].reached = at[i].site == MIN(id_of(&w, 0), id_of(&w, 2));
    assert_true(quorum_is_reached(at, count));
    world_deinit(&w);
}

/* What was said is written, goes with the stream, and is not said again. */
static void test_what_was_said_outlasts_a_restart(void **state)
{
    struct world w;
    uint64_t next[SITES_MAX];
    (void)state;
    world_init(&w, 3, 2, 1);
    all_say(&w);
    for (unsigned i = 0; i < w.count; i++) {
        next[i] = shard_next_seq(w.sites[i].n->shards[0]);
        reopen(&w, i);
    }
    check_all_established(&w);
    for (unsigned i = 0; i < w.count; i++) {
        says(&w, i);
        assert_int_equal(shard_next_seq(w.sites[i].n->shards[0]), next[i]);
    }
    world_deinit(&w);
}

/* Site 3 leaves. Site 0 has an operation of its that site 1 took no more, has built on it, and lets
 * somebody in: at site 1 its word for that stands behind what waits for the cut. */
static void test_a_word_behind_what_waits_is_known(void **state)
{
    struct world w;
    struct oid oid;
    (void)state;
    world_init(&w, 4, 1, 1);
    all_say(&w);
    call_path(&w, 3, RPC_CREATE, "/f");
    pull_all(&w, 0, 3);
    w.left[3] = true;
    remove_member(&w, 1, id_of(&w, 3));
    uint64_t end = clock_mono_ns(&clock_os) + 60 * NS_PER_SEC;
    node_members_fresh(w.sites[1].n);
    while (w.sites[1].n->leaving.owed != 0) {
        assert_true(clock_mono_ns(&clock_os) < end);
        node_leaves_step(w.sites[1].n);
        settle(&w, 1);
        node_members_fresh(w.sites[1].n);
    }
    assert_int_equal(node_test_walk(&w.sites[0], "/f", &oid), 0);
    user_write(&w.sites[0], oid, 1);
    add_member(&w.sites[0], NEW_ID, 9);
    says(&w, 0);
    pull_all(&w, 1, 0);
    assert_int_equal(member_at(&w, 1, id_of(&w, 3))->status, MEMBER_LEAVING);
    assert_true(shard_waiting_count(w.sites[1].n->shards[0]) > 0);
    assert_int_equal(node_test_walk(&w.sites[1], "/f", &oid), ERR_NOT_FOUND);
    const struct node *n = w.sites[1].n;
    const struct node_member_cache *c = node_member_find(n, NEW_ID);
    assert_non_null(c);
    assert_true(node_member_find(n, id_of(&w, 0))->knows >> (c - n->members) & 1);
    world_deinit(&w);
}

/* What sites tell each other is no change that a user made. */
static void test_the_root_does_not_change_when_a_site_says_whom_it_knows(void **state)
{
    struct world w;
    struct fs_request q = {.oid = OID_ROOT};
    (void)state;
    world_init(&w, 2, 2, 1);
    struct node_test *t = &w.sites[0];
    assert_int_equal(node_test_call(t, RPC_GETATTR, &q), 0);
    struct fs_attr before = t->attr;
    all_say(&w);
    check_all_established(&w);
    assert_int_equal(node_test_call(t, RPC_GETATTR, &q), 0);
    assert_true(t->attr.mtime_ns == before.mtime_ns && t->attr.ctime_ns == before.ctime_ns);
    world_deinit(&w);
}

/* ---- coming back ---- */

static struct stamp stamp_of(struct world *w, unsigned site, uint8_t key_class, site_id_t id)
{
    uint8_t key[MEMBER_KEY_BYTES];
    struct reg r;
    member_key(key_class, id, key);
    int rc = merge_reg(shard_merge(w->sites[site].n->shards[0]), OID_ROOT,
                       slice_of(key, sizeof key), &r);
    assert_int_equal(rc, 0);
    return r.stamp;
}

static void returns(struct world *w, unsigned site, site_id_t before, uint8_t cert, site_id_t after)
{
    uint8_t cert_sha256[32] = {cert};
    node_member_returns(w->sites[site].n, before, cert_sha256, after, member_done, &w->sites[site]);
    assert_int_equal(node_run(w->sites[site].n), 0);
    w->sites[site].n->stopping = false;
}

static void check_is(struct world *w, unsigned site, site_id_t id, unsigned number)
{
    const struct member *m = member_at(w, site, id);
    char name[33];
    snprintf(name, sizeof name, "s%u", number);
    assert_non_null(m);
    assert_int_equal(m->status, MEMBER_IS);
    assert_string_equal(m->name, name);
    assert_int_equal(m->wan[1], name[1]);
    assert_int_equal(m->cert_sha256[0], 1 + number);
    assert_true(slice_equal(m->cert, slice_str("cert")));
}

static void check_left(struct world *w, unsigned site, site_id_t id)
{
    const struct member *m = member_at(w, site, id);
    assert_non_null(m);
    assert_int_not_equal(m->status, MEMBER_IS);
    assert_int_equal(m->why, LEAVES_AWAY);
}

static void test_a_site_comes_back_in_one_operation(void **state)
{
    struct world w;
    (void)state;
    world_of(&w, 3);
    site_id_t before = id_of(&w, 2);
    returns(&w, 0, before, 3, NEW_ID);
    struct stamp came = stamp_of(&w, 0, REG_MEMBER, NEW_ID);
    struct stamp left = stamp_of(&w, 0, REG_LEAVES, before);
    assert_int_equal(stamp_cmp(came, left), 0);
    w.left[2] = true;
    drain(&w);
    for (unsigned i = 0; i < 2; i++) {
        check_left(&w, i, before);
        check_is(&w, i, NEW_ID, 2);
        check_is(&w, i, id_of(&w, 0), 0);
        check_is(&w, i, id_of(&w, 1), 1);
    }
    /* Again, also at another one. */
    returns(&w, 0, before, 3, NEW_ID);
    returns(&w, 1, before, 3, NEW_ID);
    drain(&w);
    for (unsigned i = 0; i < 2; i++) {
        check_left(&w, i, before);
        check_is(&w, i, NEW_ID, 2);
        assert_int_equal(w.sites[i].n->member_count, 4);
        assert_int_equal(stamp_cmp(stamp_of(&w, i, REG_LEAVES, before), left), 0);
    }
    world_deinit(&w);
}

/* Two let it in, each under another id, since the first answer was lost: which of them it is it
 * says itself, as soon as it has heard of both. */
static void test_of_two_ids_of_a_site_the_one_that_it_has_stays(void **state)
{
    struct world w;
    struct err_detail d = {{0}};
    struct member m = {.site = OTHER_ID,
                       .name = "s2",
                       .wan = "s2:9000",
                       .cert_sha256 = {3},
                       .cert = slice_str("cert")};
    (void)state;
    world_of(&w, 2);
    node_member_set(w.sites[0].n, &m, member_done, &w.sites[0]);
    assert_int_equal(node_run(w.sites[0].n), 0);
    w.sites[0].n->stopping = false;
    drain(&w);
    node_test_init(&w.sites[2], 3);
    site_id_t id = id_of(&w, 2);
    returns(&w, 0, OTHER_ID, 3, NEW_ID);
    returns(&w, 1, OTHER_ID, 3, id);
    assert_int_equal(node_adopt(w.sites[2].n, node_fs_key(w.sites[1].n), w.shards, &d), 0);
    bootstrap(&w.sites[1], &w.sites[2]);
    drain(&w);
    for (unsigned i = 0; i < 2; i++) {
        check_is(&w, i, NEW_ID, 2);
        check_is(&w, i, id, 2);
    }
    w.count++;
    all_say(&w);
    for (unsigned i = 0; i < 3; i++) {
        check_left(&w, i, OTHER_ID);
        check_left(&w, i, NEW_ID);
        check_is(&w, i, id, 2);
        check_is(&w, i, id_of(&w, 0), 0);
    }
    world_deinit(&w);
}

/* Only a site that was given up itself knew of the id that it had last. */
static void test_a_site_comes_back_with_an_id_that_is_unknown(void **state)
{
    struct world w;
    (void)state;
    world_of(&w, 3);
    site_id_t known = id_of(&w, 2);
    returns(&w, 0, OTHER_ID, 3, NEW_ID);
    struct stamp came = stamp_of(&w, 0, REG_MEMBER, NEW_ID);
    assert_int_equal(stamp_cmp(came, stamp_of(&w, 0, REG_LEAVES, known)), 0);
    assert_int_equal(stamp_cmp(came, stamp_of(&w, 0, REG_MEMBER, OTHER_ID)), 0);
    assert_int_equal(stamp_cmp(came, stamp_of(&w, 0, REG_LEAVES, OTHER_ID)), 0);
    w.left[2] = true;
    for (unsigned round = 0; round < 2; round++) {
        drain(&w);
        for (unsigned i = 0; i < 2; i++) {
            check_left(&w, i, known);
            check_left(&w, i, OTHER_ID);
            check_is(&w, i, NEW_ID, 2);
            assert_int_equal(w.sites[i].n->member_count, 5);
            assert_int_equal(stamp_cmp(stamp_of(&w, i, REG_LEAVES, OTHER_ID), came), 0);
            assert_int_equal(stamp_cmp(stamp_of(&w, i, REG_MEMBER, OTHER_ID), came), 0);
        }
        returns(&w, 0, OTHER_ID, 3, NEW_ID);
    }
    /* The id was given away a second time: the first one is none of its any more. */
    returns(&w, 0, OTHER_ID, 3, NEW_ID + 2);
    check_left(&w, 0, NEW_ID);
    check_is(&w, 0, NEW_ID + 2, 2);
    world_deinit(&w);
}

static void refused(void *ctx, int rc)
{
    *(int *)ctx = rc;
}

static void test_who_never_was_a_member_does_not_come_back(void **state)
{
    struct world w;
    uint8_t cert_sha256[32] = {77};
    int rc = 0;
    (void)state;
    world_of(&w, 2);
    struct node *n = w.sites[0].n;
    uint64_t next = shard_next_seq(n->shards[0]);
    node_member_returns(n, id_of(&w, 1), cert_sha256, NEW_ID, refused, &rc);
    assert_int_equal(rc, ERR_NOT_FOUND);
    settle(&w, 0);
    assert_int_equal(shard_next_seq(n->shards[0]), next);
    check_is(&w, 0, id_of(&w, 1), 1);
    /* Nor does one that leaves let anybody in. */
    remove_member(&w, 1, id_of(&w, 0));
    pull_all(&w, 0, 1);
    cert_sha256[0] = 2;
    node_member_returns(n, id_of(&w, 1), cert_sha256, NEW_ID, refused, &rc);
    assert_int_equal(rc, ERR_INVALID);
    assert_null(member_at(&w, 0, NEW_ID));
    world_deinit(&w);
}

static int returns_refused(struct world *w, site_id_t before, uint8_t cert, site_id_t after)
{
    struct node *n = w->sites[0].n;
    uint8_t cert_sha256[32] = {cert};
    uint64_t next = shard_next_seq(n->shards[0]);
    int rc = 0;
    node_member_returns(n, before, cert_sha256, after, refused, &rc);
    settle(w, 0);
    assert_int_equal(shard_next_seq(n->shards[0]), next);
    return rc;
}

static void remove_by_operator(struct world *w, unsigned site, site_id_t leaver)
{
    node_member_remove(w->sites[site].n, leaver, LEAVES_REMOVED, member_done, &w->sites[site]);
    assert_int_equal(node_run(w->sites[site].n), 0);
    w->sites[site].n->stopping = false;
}

/* It was given up, came back, and an operator removed it: that was the site, not one of its ids. */
static void test_who_was_removed_does_not_come_back_by_an_id_before(void **state)
{
    struct world w;
    (void)state;
    world_of(&w, 2);
    site_id_t before = id_of(&w, 1);
    returns(&w, 0, before, 2, NEW_ID);
    check_is(&w, 0, NEW_ID, 1);
    remove_by_operator(&w, 0, NEW_ID);
    assert_int_equal(returns_refused(&w, before, 2, NEW_ID + 2), ERR_REMOVED);
    assert_int_equal(returns_refused(&w, OTHER_ID, 2, NEW_ID + 2), ERR_REMOVED);
    assert_int_equal(returns_refused(&w, NEW_ID, 2, NEW_ID + 2), ERR_REMOVED);
    node_member_readmit(w.sites[0].n, before, member_done, &w.sites[0]); /* by whichever id */
    assert_int_equal(node_run(w.sites[0].n), 0);
    w.sites[0].n->stopping = false;
    check_left(&w, 0, NEW_ID);
    returns(&w, 0, before, 2, NEW_ID + 2);
    check_is(&w, 0, NEW_ID + 2, 1);
    world_deinit(&w);
}

static void test_who_is_removed_leaves_with_all_ids_that_are_members(void **state)
{
    struct world w;
    (void)state;
    world_of(&w, 3);
    site_id_t before = id_of(&w, 2);
    returns(&w, 0, before, 3, NEW_ID);
    returns(&w, 1, before, 3, OTHER_ID);
    w.left[2] = true;
    drain(&w);
    check_is(&w, 1, NEW_ID, 2);
    check_is(&w, 1, OTHER_ID, 2);
    remove_by_operator(&w, 1, NEW_ID);
    drain(&w);
    for (unsigned i = 0; i < 2; i++) {
        const site_id_t ids[2] = {NEW_ID, OTHER_ID};
        for (unsigned k = 0; k < 2; k++) {
            assert_int_not_equal(member_at(&w, i, ids[k])->status, MEMBER_IS);
            assert_int_equal(member_at(&w, i, ids[k])->why, LEAVES_REMOVED);
        }
        check_left(&w, i, before);
        check_is(&w, i, id_of(&w, 1), 1);
    }
    world_deinit(&w);
}

/* A member that only a site knew which was given up: it has left, and may come back. */
static void test_a_member_that_is_brought_may_come_back(void **state)
{
    struct world w;
    struct member m = {.site = OTHER_ID,
                       .name = "s8",
                       .wan = "s8:9000",
                       .cert_sha256 = {9},
                       .cert = slice_str("cert")};
    (void)state;
    world_of(&w, 2);
    node_member_bring(w.sites[0].n, &m, LEAVES_AWAY, member_done, &w.sites[0]);
    assert_int_equal(node_run(w.sites[0].n), 0);
    w.sites[0].n->stopping = false;
    struct stamp entered = stamp_of(&w, 0, REG_MEMBER, OTHER_ID);
    assert_int_equal(stamp_cmp(entered, stamp_of(&w, 0, REG_LEAVES, OTHER_ID)), 0);
    drain(&w);
    check_left(&w, 0, OTHER_ID);
    check_left(&w, 1, OTHER_ID);
    returns(&w, 1, OTHER_ID, 9, NEW_ID);
    drain(&w);
    check_is(&w, 0, NEW_ID, 8);
    check_is(&w, 1, NEW_ID, 8);
    check_left(&w, 1, OTHER_ID);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_are_established_when_all_have_exchanged),
        cmocka_unit_test(test_a_site_by_itself_says_nothing),
        cmocka_unit_test(test_who_says_nothing_is_taken_by_its_word_for_what_it_has),
        cmocka_unit_test(test_who_was_let_in_is_established_when_all_say_so),
        cmocka_unit_test(test_who_leaves_counts_against_until_all_know_it),
        cmocka_unit_test(test_what_was_said_outlasts_a_restart),
        cmocka_unit_test(test_a_word_behind_what_waits_is_known),
        cmocka_unit_test(test_the_root_does_not_change_when_a_site_says_whom_it_knows),
        cmocka_unit_test(test_a_site_comes_back_in_one_operation),
        cmocka_unit_test(test_of_two_ids_of_a_site_the_one_that_it_has_stays),
        cmocka_unit_test(test_a_site_comes_back_with_an_id_that_is_unknown),
        cmocka_unit_test(test_who_never_was_a_member_does_not_come_back),
        cmocka_unit_test(test_who_was_removed_does_not_come_back_by_an_id_before),
        cmocka_unit_test(test_who_is_removed_leaves_with_all_ids_that_are_members),
        cmocka_unit_test(test_a_member_that_is_brought_may_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
