/* Sessions of the run before take up what they had, however long the daemon took to open. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

struct fixture {
    struct node_test t;
    uint64_t session; /* asked for */
    struct fs_reply reply;
};

static int setup(void **state)
{
    struct fixture *x = mem_calloc(1, sizeof *x);
    node_test_init_moved(&x->t, 1);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    node_test_deinit(&x->t);
    mem_free(x);
    return 0;
}

static void *client_thread(void *arg)
{
    struct fixture *x = arg;
    char path[128];
    struct rpc_client *client;
    struct rpc_reply frame = {0};
    struct op_arena arena = {0};
    struct buf body = {0};
    const struct fs_request req = {.session = x->session};
    snprintf(path, sizeof path, "%s/sock", x->t.dir);
    const struct rpc_target target = {.unix_path = path};
    assert_int_equal(rpc_client_connect(&client, &target, &x->t.n->auth, 0, NULL), 0);
    fs_request_encode(&req, &body);
    assert_int_equal(
        rpc_client_call(client, RPC_HELLO, 1, 0, buf_slice(&body), slice_of(NULL, 0), 0, &frame),
        0);
    assert_int_equal(fs_reply_decode(frame.frame.body, &arena, &x->reply), 0);
    rpc_client_close(client);
    buf_deinit(&body);
    buf_deinit(&frame.storage);
    op_arena_deinit(&arena);
    node_stop(x->t.n);
    return NULL;
}

/* The node runs for one request: joins `session`, or opens one (0). Of the answer only numbers. */
static struct fs_reply hello(struct fixture *x, uint64_t session)
{
    pthread_t thread;
    x->session = session;
    assert_int_equal(pthread_create(&thread, NULL, client_thread, x), 0);
    assert_int_equal(node_run(x->t.n), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return x->reply;
}

static void test_session_is_known_after_a_long_opening(void **state)
{
    struct fixture *x = *state;
    struct err_detail d;
    struct fs_reply first = hello(x, 0);
    assert_int_equal(first.rc, 0);
    node_test_close(&x->t);
    const struct node_config config = {.dir = x->t.dir, .clock = x->t.clock};
    assert_int_equal(node_open(&x->t.n, &config, &d), 0);
    x->t.ahead_ns += 3600 * NS_PER_SEC;
    assert_int_equal(node_start(x->t.n, &d), 0);
    struct fs_reply again = hello(x, first.session);
    assert_int_equal(again.rc, 0);
    assert_int_equal(again.session, first.session);
}

/* Nobody may wait for those that do not come. */
static void test_session_that_comes_late_is_over(void **state)
{
    struct fixture *x = *state;
    struct fs_reply first = hello(x, 0);
    node_test_close(&x->t);
    node_test_open(&x->t);
    x->t.ahead_ns += 3600 * NS_PER_SEC;
    assert_int_equal(hello(x, first.session).rc, ERR_STALE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_session_is_known_after_a_long_opening, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_session_that_comes_late_is_over, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
