/* S6: what is not durable is not shown, also where names are contested and one that changes may
 * change what the others show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/federation_test.h"

struct pair {
    struct node *n;
    unsigned open;
    int rc[2];
    bool durable; /* what the first did, when the second ended */
    bool foreign; /* the second was evaluated with what another one did and was not durable */
};

static void ended(struct pair *p, unsigned which, int rc)
{
    struct shard *s = shard_of(p->n, OID_ROOT);
    p->rc[which] = rc;
    p->durable = shard_committed(s) == log_last(shard_log(s));
    if (--p->open == 0)
        node_stop(p->n);
}

static void first_ended(struct call *c, int rc)
{
    ended(c->user, 0, rc);
}

static void second_ended(struct call *c, int rc)
{
    struct pair *p = c->user;
    p->foreign = c->foreign;
    ended(p, 1, rc);
    node_stop(p->n); /* what happens later does not matter */
}

/* Twins go with the file that is written, so what others did to them is what the write builds on:
 * it is not to be answered ahead of that (S14). */
static void test_a_write_builds_on_what_was_done_to_twins(void **state)
{
    struct world w;
    struct shown shown;
    (void)state;
    world_init(&w, 2, 1, 3);
    call_path(&w, 0, RPC_CREATE, "/x");
    call_path(&w, 1, RPC_CREATE, "/x");
    drain(&w);
    struct node *n = w.sites[0].n;
    assert_int_equal(merge_lookup(merge_of(n, OID_ROOT), OID_ROOT, slice_str("x"), &shown), 0);
    assert_int_equal(shown.twin_count, 1);
    struct fs_request look = {.oid = shown.oid};
    assert_int_equal(node_test_call(&w.sites[0], RPC_GETATTR, &look), 0);
    struct pair p = {.n = n, .open = 2};
    struct fs_request link = {.oid = shown.twins[0], .oid2 = OID_ROOT, .name = slice_str("y")};
    struct fs_request write = {
        .session = 7, /* its own marks are known as such */
        .number = 1,
        .oid = shown.oid,
        .base = w.sites[0].attr.version,
        .has_content = true,
        .content = {.kind = CONTENT_INLINE, .size = 1, .bytes = slice_str("1")}};
    node_issue(n, RPC_LINK, &link, first_ended, &p); /* in one turn */
    node_issue(n, RPC_COMMIT, &write, second_ended, &p);
    while (p.open > 0) {
        assert_int_equal(node_run(n), 0);
        n->stopping = false;
    }
    assert_true(p.rc[0] == 0 && p.rc[1] == 0);
    assert_true(p.foreign);
    world_deinit(&w);
}

/* Both are evaluated in one turn. */
static void pair_run(struct node *n,
                     enum rpc_type type,
                     const struct fs_request *q,
                     const struct fs_request *look)
{
    struct pair p = {.n = n, .open = 2};
    node_issue(n, type, q, first_ended, &p);
    node_issue(n, RPC_LOOKUP, look, second_ended, &p);
    assert_int_equal(node_run(n), 0);
    n->stopping = false;
    assert_int_equal(p.rc[1], 0);
    assert_true(p.durable);
    while (p.open > 0) {
        assert_int_equal(node_run(n), 0);
        n->stopping = false;
    }
}

static void test_a_name_beside_contested_ones_is_shown_when_durable(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 8, 3);
    call_path(&w, 0, RPC_CREATE, "/x");
    call_path(&w, 1, RPC_CREATE, "/x");
    struct fs_request write = {.oid = OID_ROOT, .name = slice_str("x")};
    assert_int_equal(node_test_call(&w.sites[1], RPC_LOOKUP, &write), 0);
    user_write(&w.sites[1], w.sites[1].attr.oid, 7); /* else they are twins */
    drain(&w);
    struct shown shown;
    assert_int_equal(
        merge_lookup(merge_of(w.sites[0].n, OID_ROOT), OID_ROOT, slice_str("x"), &shown), 0);
    assert_true(shown.contested);
    /* A name for a file of another shard, which does not know of it before it is durable. */
    struct oid dir, file;
    char name[16] = "";
    for (unsigned i = 0; name[0] == '\0' || oid_shard(dir) == oid_shard(OID_ROOT); i++) {
        (void)snprintf(name, sizeof name, "/d%u", i); /* fits */
        call_path(&w, 0, RPC_MKDIR, name);
        assert_int_equal(node_test_walk(&w.sites[0], name, &dir), 0);
    }
    struct fs_request make = {.oid = dir, .name = slice_str("f"), .kind = OID_FILE};
    assert_int_equal(node_test_call(&w.sites[0], RPC_CREATE, &make), 0);
    file = w.sites[0].attr.oid;
    struct fs_request link = {.oid = file, .oid2 = OID_ROOT, .name = slice_str("y")};
    struct fs_request look = {.oid = OID_ROOT, .name = slice_str("y")};
    pair_run(w.sites[0].n, RPC_LINK, &link, &look);
    world_deinit(&w);
}

/* What lost a contested name keeps the name that it shows (rule 6), also when the call that touches
 * that name takes another name of the same file away: mv x y, where y is a link to the loser. */
static void test_a_loser_keeps_its_name_when_another_of_its_is_replaced(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, 2, 1, 3);
    call_path(&w, 0, RPC_CREATE, "/x");
    struct fs_request look = {.oid = OID_ROOT, .name = slice_str("x")};
    assert_int_equal(node_test_call(&w.sites[0], RPC_LOOKUP, &look), 0);
    struct oid loser = w.sites[0].attr.oid, found;
    struct fs_request link = {.oid = loser, .oid2 = OID_ROOT, .name = slice_str("y")};
    assert_int_equal(node_test_call(&w.sites[0], RPC_LINK, &link), 0);
    struct merge *first = shard_merge(w.sites[0].n->shards[0]);
    struct merge *second = shard_merge(w.sites[1].n->shards[0]);
    call_path(&w, 1, RPC_CREATE, "/later");
    assert_int_equal(node_test_walk(&w.sites[1], "/later", &found), 0);
    while (hlc_ms(merge_hlc_max(second)) <= hlc_ms(merge_hlc_max(first)))
        user_write(&w.sites[1], found, 1);
    call_path(&w, 1, RPC_CREATE, "/x");
    assert_int_equal(node_test_call(&w.sites[1], RPC_LOOKUP, &look), 0);
    user_write(&w.sites[1], w.sites[1].attr.oid, 7); /* else they are twins */
    drain(&w);
    assert_int_equal(node_test_walk(&w.sites[0], "/x", &found), 0);
    assert_false(oid_equal(found, loser));
    struct fs_request move = {
        .oid = OID_ROOT, .name = slice_str("x"), .oid2 = OID_ROOT, .name2 = slice_str("y")};
    assert_int_equal(node_test_call(&w.sites[0], RPC_RENAME, &move), 0);
    assert_int_equal(node_test_walk(&w.sites[0], "/x", &found), ERR_NOT_FOUND);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_write_builds_on_what_was_done_to_twins),
        cmocka_unit_test(test_a_name_beside_contested_ones_is_shown_when_durable),
        cmocka_unit_test(test_a_loser_keeps_its_name_when_another_of_its_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
