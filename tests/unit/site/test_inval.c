/* What the answer to a request waits for of other mounts: that they drop what it changed (S7), and
 * nothing else. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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
 * It tells them then. The request has nothing to do with it. */
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

/* ---- a hello ---- */

#define HELLO_MS 5000u /* client/conn.c waits as long */

struct mount {
    struct node *n;
    struct rpc_target target;
    struct rpc_client *push, *again;
    struct rpc_reply frame;
    struct op_arena arena;
    uint64_t session;
    unsigned pushes;
    int rc;
};

static void hello_send(struct rpc_client *c, uint64_t session)
{
    const struct fs_request q = {.session = session, .flags = HELLO_PUSH};
    struct buf body = {0};
    fs_request_encode(&q, &body);
    assert_int_equal(rpc_client_send(c, RPC_HELLO, 1, 0, buf_slice(&body)), 0);
    buf_deinit(&body);
}

/* Up to the answer; what is pushed meanwhile is acknowledged later. */
static void hello_receive(struct mount *m, struct rpc_client *c)
{
    struct fs_reply r;
    m->pushes = 0;
    for (;; m->pushes++) {
        m->rc = rpc_client_recv(c, HELLO_MS, &m->frame);
        if (m->rc != 0 || (m->frame.frame.flags & RPC_FLAG_PUSH) == 0)
            break;
    }
    if (m->rc == 0)
        m->rc = fs_reply_decode(m->frame.frame.body, &m->arena, &r);
    if (m->rc == 0)
        m->rc = r.rc;
    if (m->rc == 0)
        m->session = r.session;
}

static void *joins(void *arg)
{
    struct mount *m = arg;
    assert_int_equal(rpc_client_connect(&m->push, &m->target, &m->n->auth, 0, NULL), 0);
    assert_int_equal(rpc_client_connect(&m->again, &m->target, &m->n->auth, 0, NULL), 0);
    hello_send(m->push, 0);
    hello_receive(m, m->push);
    rpc_client_close(m->push);
    node_stop(m->n);
    return NULL;
}

static void *is_back(void *arg)
{
    struct mount *m = arg;
    hello_receive(m, m->again);
    node_stop(m->n);
    return NULL;
}

static void node_runs_with(struct world *w, void *(*client)(void *arg), struct mount *m)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, client, m), 0);
    assert_int_equal(node_run(w->t.n), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    w->t.n->stopping = false; /* it only left its loop */
    assert_int_equal(m->rc, 0);
}

/* Its hello has come when the node, before it looks at it, writes something of its own. */
static void test_a_hello_does_not_wait_for_its_own_mount(void **state)
{
    struct world w;
    char path[128];
    (void)state;
    setup(&w);
    snprintf(path, sizeof path, "%s/sock", w.t.dir);
    struct mount m = {.n = w.t.n, .target = {.unix_path = path}};
    node_runs_with(&w, joins, &m);
    session_forget(w.t.n->sessions, B, OID_ROOT);
    session_interest(w.t.n->sessions, m.session, OID_ROOT);
    hello_send(m.again, m.session);
    node_setting_set(w.t.n, "versions_s", 60, NULL, NULL);
    node_runs_with(&w, is_back, &m);
    assert_int_equal(m.pushes, 1);
    assert_int_equal(session_acked(w.t.n->sessions, m.session, 1), 0);
    rpc_client_close(m.again);
    buf_deinit(&m.frame.storage);
    op_arena_deinit(&m.arena);
    teardown(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_change_is_answered_when_the_others_have_dropped_it),
        cmocka_unit_test(test_a_request_does_not_wait_for_what_the_node_changed_before),
        cmocka_unit_test(test_a_hello_does_not_wait_for_its_own_mount),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
