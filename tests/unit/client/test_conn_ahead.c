/* Requests that were answered ahead of the disk: how long they are kept, and which come first. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "client/conn_ahead.h"

struct fixture {
    struct conn_seq seq;
    struct conn_ahead ahead;
};

static struct fixture *setup(void)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    conn_seq_init(&f->seq);
    conn_ahead_init(&f->ahead, &f->seq);
    return f;
}

static void teardown(struct fixture *f)
{
    conn_ahead_deinit(&f->ahead);
    conn_seq_deinit(&f->seq);
    mem_free(f);
}

static struct ahead_entry *sent(struct fixture *f, uint16_t type, struct conn_number *n)
{
    conn_seq_begin(&f->seq, n);
    return conn_ahead_begin(&f->ahead, type, OID_ROOT, n->number, slice_str("body"));
}

static void answered_ahead(struct fixture *f, uint16_t type)
{
    struct conn_number n;
    struct ahead_entry *e = sent(f, type, &n);
    assert_true(conn_ahead_end(&f->ahead, e, true, &n));
}

/* The number of the first kept one after `after`; 0: none. */
static uint64_t next(struct fixture *f, uint64_t after)
{
    uint16_t type;
    uint64_t number = 0;
    struct oid oid;
    struct buf body = {0};
    if (conn_ahead_next(&f->ahead, after, &type, &number, &oid, &body)) {
        assert_true(slice_equal(buf_slice(&body), slice_str("body")));
        assert_true(oid_is_root(oid));
    }
    buf_deinit(&body);
    return number;
}

static void test_end_answered_as_usual_keeps_nothing(void **state)
{
    struct fixture *f = setup();
    struct conn_number n;
    (void)state;
    struct ahead_entry *e = sent(f, RPC_UNLINK, &n);
    assert_int_equal(next(f, 0), 0);
    assert_false(conn_ahead_end(&f->ahead, e, false, &n));
    conn_seq_end(&f->seq, &n);
    assert_false(conn_ahead_any(&f->ahead));
    assert_int_equal(conn_seq_acked(&f->seq), 1);
    teardown(f);
}

/* While it is kept its number is out, so that the site keeps the result. */
static void test_durable_ends_what_was_kept(void **state)
{
    struct fixture *f = setup();
    (void)state;
    answered_ahead(f, RPC_UNLINK);
    answered_ahead(f, RPC_RENAME);
    assert_int_equal(conn_seq_acked(&f->seq), 0);
    assert_int_equal(next(f, 0), 1);
    assert_int_equal(next(f, 1), 2);
    assert_int_equal(next(f, 2), 0);
    conn_ahead_durable(&f->ahead, 2);
    conn_ahead_durable(&f->ahead, 7);
    assert_int_equal(conn_seq_acked(&f->seq), 0);
    conn_ahead_durable(&f->ahead, 1);
    assert_int_equal(conn_seq_acked(&f->seq), 2);
    assert_false(conn_ahead_any(&f->ahead));
    teardown(f);
}

/* The push that it is durable may be faster than the caller who reads the answer. */
static void test_durable_before_end_keeps_nothing(void **state)
{
    struct fixture *f = setup();
    struct conn_number n;
    (void)state;
    struct ahead_entry *e = sent(f, RPC_SETATTR, &n);
    conn_ahead_durable(&f->ahead, n.number);
    assert_false(conn_ahead_end(&f->ahead, e, true, &n));
    conn_seq_end(&f->seq, &n);
    assert_false(conn_ahead_any(&f->ahead));
    teardown(f);
}

static void test_take_back_gives_the_number_back(void **state)
{
    struct fixture *f = setup();
    struct conn_number n;
    bool numbered = false;
    (void)state;
    struct ahead_entry *e = sent(f, RPC_SETATTR, &n);
    assert_true(conn_ahead_end(&f->ahead, e, true, &n));
    assert_true(conn_ahead_take_back(&f->ahead, 1, &n, &numbered));
    assert_true(numbered && n.number == 1);
    assert_int_equal(conn_seq_acked(&f->seq), 0);
    assert_false(conn_ahead_take_back(&f->ahead, 1, &n, &numbered));
    conn_seq_end(&f->seq, &n);
    assert_int_equal(conn_seq_acked(&f->seq), 1);
    teardown(f);
}

/* A commit names the version it is based on, which a node that starts anew makes under another
 * name: two of one object never wait together. */
static void test_may_commit_once_for_an_object(void **state)
{
    struct fixture *f = setup();
    struct oid other = oid_file(0, OID_FILE, 1, 1);
    (void)state;
    assert_true(conn_ahead_may(&f->ahead, RPC_COMMIT, OID_ROOT));
    answered_ahead(f, RPC_COMMIT);
    assert_false(conn_ahead_may(&f->ahead, RPC_COMMIT, OID_ROOT));
    assert_true(conn_ahead_may(&f->ahead, RPC_COMMIT, other));
    assert_true(conn_ahead_may(&f->ahead, RPC_SETATTR, OID_ROOT));
    conn_ahead_durable(&f->ahead, 1);
    assert_true(conn_ahead_may(&f->ahead, RPC_COMMIT, OID_ROOT));
    assert_false(conn_ahead_may(&f->ahead, RPC_CREATE, OID_ROOT));
    teardown(f);
}

static void test_may_is_bounded(void **state)
{
    struct fixture *f = setup();
    (void)state;
    for (unsigned i = 0; i < CONN_AHEAD_MAX; i++) {
        assert_true(conn_ahead_may(&f->ahead, RPC_SETATTR, OID_ROOT));
        answered_ahead(f, RPC_SETATTR);
    }
    assert_false(conn_ahead_may(&f->ahead, RPC_SETATTR, OID_ROOT));
    assert_true(conn_ahead_may(&f->ahead, RPC_GETATTR, OID_ROOT));
    teardown(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_answered_as_usual_keeps_nothing),
        cmocka_unit_test(test_durable_ends_what_was_kept),
        cmocka_unit_test(test_durable_before_end_keeps_nothing),
        cmocka_unit_test(test_take_back_gives_the_number_back),
        cmocka_unit_test(test_may_commit_once_for_an_object),
        cmocka_unit_test(test_may_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
