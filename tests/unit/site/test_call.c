/* How often requests are evaluated: one that waits does so for an event, not by asking again. */
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
};

static void pair_setup(struct pair *p)
{
    memset(p, 0, sizeof *p);
    node_test_init(&p->t, 8);
}

static void ended(struct pair *p, unsigned which, int rc)
{
    p->rc[which] = rc;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rename_of_what_is_being_made_waits_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
