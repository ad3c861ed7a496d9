/* How often requests are evaluated: one that waits does so for an event, not by asking again. And
 * what an error tells of is as durable as what an answer shows (S6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

#define ROUNDS 50u

struct pair {
    struct node_test t;
    unsigned open;
    int rc[2];
    struct oid home; /* where the first of them is journaled */
    bool durable[2]; /* all of that was, when they ended */
};

static void pair_setup(struct pair *p)
{
    memset(p, 0, sizeof *p);
    node_test_init(&p->t, 8);
    p->home = OID_ROOT;
}

static void ended(struct pair *p, unsigned which, int rc)
{
    struct shard *s = shard_of(p->t.n, p->home);
    p->rc[which] = rc;
    p->durable[which] = shard_committed(s) == log_last(shard_log(s));
    if (--p->open == 0)
        node_stop(p->t.n);
}

static void first_ended(struct call *c, int rc)
{
    ended(c->user, 0, rc);
}

static void second_ended(struct call *c, int rc)
{
    ended(c->user, 1, rc);
}

/* Both are evaluated in one turn; the second finds what the first has not made durable. */
static uint64_t pair_run(struct pair *p,
                         enum rpc_type first,
                         const struct fs_request *a,
                         enum rpc_type second,
                         const struct fs_request *b)
{
    uint64_t before = p->t.n->evaluations;
    p->open = 2;
    node_issue(p->t.n, first, a, first_ended, p);
    node_issue(p->t.n, second, b, second_ended, p);
    assert_int_equal(node_run(p->t.n), 0);
    p->t.n->stopping = false;
    assert_int_equal(p->open, 0);
    return p->t.n->evaluations - before;
}

/* A directory that is being made is moved: its own shard does not have it yet. The move is looked
 * at again when that shard got it, when the latches of the first are let go, and no more. */
static void test_rename_of_what_is_being_made_waits_for_it(void **state)
{
    struct pair p;
    char from[16], to[16];
    (void)state;
    pair_setup(&p);
    for (unsigned i = 0; i < ROUNDS; i++) {
        snprintf(from, sizeof from, "d%u", i);
        snprintf(to, sizeof to, "e%u", i);
        struct fs_request a = {.oid = OID_ROOT, .name = slice_str(from), .mode = 0755};
        struct fs_request b = {
            .oid = OID_ROOT, .name = slice_str(from), .oid2 = OID_ROOT, .name2 = slice_str(to)};
        uint64_t count = pair_run(&p, RPC_MKDIR, &a, RPC_RENAME, &b);
        assert_int_equal(p.rc[0], 0);
        assert_int_equal(p.rc[1], 0);
        assert_in_range(count, 2, 5);
    }
    node_test_deinit(&p.t);
}

/* The first changes something and is not durable yet when the second is told no because of it: if
 * power went now the first would not have been, and its caller would do it again. */
static void refused_after(struct pair *p,
                          enum rpc_type first,
                          const struct fs_request *a,
                          enum rpc_type second,
                          const struct fs_request *b,
                          int expected)
{
    (void)pair_run(p, first, a, second, b);
    assert_int_equal(p->rc[0], 0);
    assert_int_equal(p->rc[1], expected);
    assert_true(p->durable[1]);
}

static void test_an_error_waits_until_what_it_tells_of_is_durable(void **state)
{
    struct pair p;
    (void)state;
    pair_setup(&p);
    struct fs_request make = {
        .oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    struct fs_request move = {
        .oid = OID_ROOT, .name = slice_str("f"), .oid2 = OID_ROOT, .name2 = slice_str("g")};
    struct fs_request gone = {.oid = OID_ROOT, .name = slice_str("g")};
    refused_after(&p, RPC_CREATE, &make, RPC_CREATE, &make, ERR_EXISTS);
    refused_after(&p, RPC_RENAME, &move, RPC_RENAME, &move, ERR_NOT_FOUND);
    refused_after(&p, RPC_UNLINK, &gone, RPC_UNLINK, &gone, ERR_NOT_FOUND);
    refused_after(&p, RPC_CREATE, &make, RPC_RMDIR, &make, ERR_NOT_DIR);
    node_test_deinit(&p.t);
}

/* The same of a file whose last name is just being removed, and that nobody has open. */
static void test_an_open_of_what_is_being_removed_waits_for_it(void **state)
{
    struct pair p;
    (void)state;
    pair_setup(&p);
    struct fs_request make = {
        .oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    assert_int_equal(node_test_call(&p.t, RPC_CREATE, &make), 0);
    struct fs_request ask = {.oid = p.t.attr.oid}, gone = {.oid = OID_ROOT, .name = make.name};
    refused_after(&p, RPC_UNLINK, &gone, RPC_OPEN, &ask, ERR_STALE);
    node_test_deinit(&p.t);
}

/* The same of what is inside a directory. */
static void test_an_error_of_a_directory_waits_for_it(void **state)
{
    struct pair p;
    (void)state;
    pair_setup(&p);
    struct fs_request dir = {.oid = OID_ROOT, .name = slice_str("d"), .mode = 0755};
    assert_int_equal(node_test_call(&p.t, RPC_MKDIR, &dir), 0);
    struct oid oid = p.t.attr.oid;
    struct fs_request inside = {.oid = oid, .name = slice_str("f"), .kind = OID_FILE};
    p.home = oid;
    refused_after(&p, RPC_CREATE, &inside, RPC_RMDIR, &dir, ERR_NOT_EMPTY);
    refused_after(&p, RPC_UNLINK, &inside, RPC_UNLINK, &inside, ERR_NOT_FOUND);
    node_test_deinit(&p.t);
}

/* What is written to a file without a name never leaves the site, but it is a write all the same.
 */
static void test_a_write_to_a_nameless_file_is_answered_when_durable(void **state)
{
    struct pair p;
    (void)state;
    pair_setup(&p);
    struct fs_request make = {.oid = OID_ROOT, .name = slice_str("f"), .kind = OID_FILE};
    assert_int_equal(node_test_call(&p.t, RPC_CREATE, &make), 0);
    p.home = p.t.attr.oid;
    struct fs_request ask = {.oid = p.home};
    struct fs_request commit = {
        .oid = p.home,
        .base = p.t.attr.version,
        .has_content = true,
        .content = {.kind = CONTENT_INLINE, .size = 3, .bytes = slice_str("new")}};
    assert_int_equal(node_test_call(&p.t, RPC_UNLINK, &make), 0);
    (void)pair_run(&p, RPC_COMMIT, &commit, RPC_GETATTR, &ask);
    assert_int_equal(p.rc[0], 0);
    assert_int_equal(p.rc[1], 0);
    assert_true(p.durable[0]);
    assert_true(p.durable[1]);
    assert_int_equal(node_test_call(&p.t, RPC_GETATTR, &ask), 0);
    assert_int_equal(p.t.attr.size, 3);
    node_test_deinit(&p.t);
}

/* POSIX: nothing is made in a directory that has been removed, whoever still has it open. */
static void test_link_into_a_removed_directory_fails(void **state)
{
    struct pair p;
    (void)state;
    pair_setup(&p);
    struct fs_request file = {.oid = OID_ROOT, .name = slice_str("f"), .kind = OID_FILE};
    struct fs_request dir = {.oid = OID_ROOT, .name = slice_str("d"), .mode = 0755};
    assert_int_equal(node_test_call(&p.t, RPC_MKDIR, &dir), 0);
    struct oid gone = p.t.attr.oid;
    assert_int_equal(node_test_call(&p.t, RPC_CREATE, &file), 0);
    struct fs_request link = {.oid = p.t.attr.oid, .oid2 = gone, .name = slice_str("g")};
    assert_int_equal(node_test_call(&p.t, RPC_RMDIR, &dir), 0);
    assert_int_equal(node_test_call(&p.t, RPC_LINK, &link), ERR_NOT_FOUND);
    assert_int_equal(node_test_call(&p.t, RPC_LOOKUP, &dir), ERR_NOT_FOUND);
    node_test_deinit(&p.t);
}

/* Until its own shard has it, a directory that is being made is not there yet. */
static void test_lookup_of_what_is_being_made_finds_all_of_it_or_nothing(void **state)
{
    struct pair p;
    char name[16];
    (void)state;
    pair_setup(&p);
    for (unsigned i = 0; i < ROUNDS; i++) {
        (void)snprintf(name, sizeof name, "d%u", i); /* fits */
        struct fs_request dir = {.oid = OID_ROOT, .name = slice_str(name), .mode = 0755};
        (void)pair_run(&p, RPC_MKDIR, &dir, RPC_LOOKUP, &dir);
        assert_int_equal(p.rc[0], 0);
        assert_true(p.rc[1] == 0 || p.rc[1] == ERR_NOT_FOUND);
        (void)pair_run(&p, RPC_RMDIR, &dir, RPC_LOOKUP, &dir);
        assert_int_equal(p.rc[0], 0);
        assert_true(p.rc[1] == 0 || p.rc[1] == ERR_NOT_FOUND);
    }
    node_test_deinit(&p.t);
}

/* That a directory is empty because it is gone is told when that is durable. */
static void test_listing_of_a_removed_directory_waits_for_its_removal(void **state)
{
    struct pair p;
    (void)state;
    memset(&p, 0, sizeof p);
    node_test_init(&p.t, 1);
    p.home = OID_ROOT;
    struct fs_request dir = {.oid = OID_ROOT, .name = slice_str("d"), .mode = 0755};
    assert_int_equal(node_test_call(&p.t, RPC_MKDIR, &dir), 0);
    struct fs_request list = {.oid = p.t.attr.oid, .count = 10};
    refused_after(&p, RPC_RMDIR, &dir, RPC_READDIR, &list, 0);
    node_test_deinit(&p.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rename_of_what_is_being_made_waits_for_it),
        cmocka_unit_test(test_an_error_waits_until_what_it_tells_of_is_durable),
        cmocka_unit_test(test_an_open_of_what_is_being_removed_waits_for_it),
        cmocka_unit_test(test_an_error_of_a_directory_waits_for_it),
        cmocka_unit_test(test_a_write_to_a_nameless_file_is_answered_when_durable),
        cmocka_unit_test(test_link_into_a_removed_directory_fails),
        cmocka_unit_test(test_lookup_of_what_is_being_made_finds_all_of_it_or_nothing),
        cmocka_unit_test(test_listing_of_a_removed_directory_waits_for_its_removal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
