/* What the answer to a request waits for of other mounts: that they drop what it changed (S7), and
 * nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

#define A 11u
#define B 12u

struct world {
    struct node_test t;
    bool done;
};

/* B has looked the root up, and does not answer. */
static void setup(struct world *w)
{
    memset(w, 0, sizeof *w);
    node_test_init(&w->t, 4);
    for (uint64_t id = A; id <= B; id++) {
        assert_int_equal(session_new(w->t.n->sessions, id, loop_now_ns(w->t.n->loop)), 0);
        session_connected(w->t.n->sessions, id);                   /* so that it does not expire */
        session_set_user(w->t.n->sessions, id, mem_calloc(1, 64)); /* no push connection */
    }
    session_interest(w->t.n->sessions, B, OID_ROOT);
}

static void teardown(struct world *w)
{
    session_table_validate(w->t.n->sessions);
    node_test_deinit(&w->t);
}

static int a_pings(struct world *w)
{
    const struct fs_request q = {.session = A};
    return node_test_call(&w->t, RPC_PING, &q);
}

static void finished(struct call *c, int rc)
{
    struct world *w = c->user;
    assert_int_equal(rc, 0);
    w->done = true;
}

/* S7. */
static void test_a_change_is_answered_when_the_others_have_dropped_it(void **state)
{
    struct world w;
    const struct fs_request q = {
        .session = A, .number = 1, .oid = OID_ROOT, .name = slice_str("d"), .mode = 0755};
    (void)state;
    setup(&w);
    node_issue(w.t.n, RPC_MKDIR, &q, finished, &w);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(a_pings(&w), 0);
    assert_false(w.done);
    assert_int_equal(session_acked(w.t.n->sessions, B, 1), 0);
    while (!w.done)
        assert_int_equal(a_pings(&w), 0);
    teardown(&w);
}

/* The node has changed something by itself, and has not told the mounts yet when a request comes.
 * It tells them then. The request has nothing to do with it: it may be the hello of the very mount
 * that is to acknowledge, which does so when it has the answer. */
static void test_a_request_does_not_wait_for_what_the_node_changed_before(void **state)
{
    struct world w;
    (void)state;
    setup(&w);
    assert_int_equal(a_pings(&w), 0);
    node_setting_set(w.t.n, "versions_s", 60, NULL, NULL);
    assert_true(w.t.n->inval_count > 0);
    assert_int_equal(a_pings(&w), 0);
    /* B was told, has not answered, and is no mount that lost its session by that. */
    assert_true(session_exists(w.t.n->sessions, B));
    assert_int_equal(session_acked(w.t.n->sessions, B, 1), 0);
    teardown(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_change_is_answered_when_the_others_have_dropped_it),
        cmocka_unit_test(test_a_request_does_not_wait_for_what_the_node_changed_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
