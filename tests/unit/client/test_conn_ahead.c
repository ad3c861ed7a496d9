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

static const struct dot none;

static struct ahead_entry *
sent_with(struct fixture *f, uint16_t type, struct oid oid, struct dot base, struct conn_number *n)
{
    struct fs_request r = {.oid = oid, .name = slice_str("name"), .base = base};
    struct buf body = {0};
    fs_request_encode(&r, &body);
    conn_seq_begin(&f->seq, n);
    struct ahead_entry *e = conn_ahead_begin(&f->ahead, type, oid, n->number, buf_slice(&body));
    buf_deinit(&body);
    return e;
}

static struct ahead_entry *sent(struct fixture *f, uint16_t type, struct conn_number *n)
{
    return sent_with(f, type, OID_ROOT, none, n);
}

static void answered_with(
    struct fixture *f, uint16_t type, struct oid oid, struct dot base, const struct fs_reply *told)
{
    struct conn_number n;
    struct ahead_entry *e = sent_with(f, type, oid, base, &n);
    assert_true(conn_ahead_end(&f->ahead, e, told, &n));
}

static const struct fs_reply plain;

static void answered_ahead(struct fixture *f, uint16_t type)
{
    answered_with(f, type, OID_ROOT, none, &plain);
}

/* The first kept one after `after`, as it is sent again; id 0: none. */
static struct fs_request sent_again(struct fixture *f, uint64_t after, struct ahead_entry *e)
{
    struct fs_request r = {0};
    struct op_arena arena = {0};
    *e = (struct ahead_entry){0};
    if (conn_ahead_next(&f->ahead, after, e)) {
        assert_int_equal(fs_request_decode(buf_slice(&e->body), &arena, &r), 0);
        assert_true(slice_equal(r.name, slice_str("name")));
    }
    r.name = (struct slice){0};
    buf_deinit(&e->body);
    op_arena_deinit(&arena);
    return r;
}

/* The same, and the answer is ahead of the disk once more and says nothing new. */
static struct fs_request again(struct fixture *f, uint64_t after, struct ahead_entry *e)
{
    struct fs_request r = sent_again(f, after, e);
    conn_ahead_answered_again(&f->ahead, e->id, NULL, true);
    return r;
}

/* Its number. */
static uint64_t next(struct fixture *f, uint64_t after)
{
    struct ahead_entry e;
    (void)again(f, after, &e);
    return e.id;
}

static void test_end_answered_as_usual_keeps_nothing(void **state)
{
    struct fixture *f = setup();
    struct conn_number n;
    (void)state;
    struct ahead_entry *e = sent(f, RPC_UNLINK, &n);
    assert_int_equal(next(f, 0), 0);
    assert_false(conn_ahead_end(&f->ahead, e, NULL, &n));
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
    assert_false(conn_ahead_end(&f->ahead, e, &plain, &n));
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
    assert_true(conn_ahead_end(&f->ahead, e, &plain, &n));
    assert_true(conn_ahead_take_back(&f->ahead, 1, &n, &numbered));
    assert_true(numbered && n.number == 1);
    assert_int_equal(conn_seq_acked(&f->seq), 0);
    assert_false(conn_ahead_take_back(&f->ahead, 1, &n, &numbered));
    conn_seq_end(&f->seq, &n);
    assert_int_equal(conn_seq_acked(&f->seq), 1);
    teardown(f);
}

static void test_made_again_under_the_same_oid(void **state)
{
    struct fixture *f = setup();
    struct oid file = oid_file(3, OID_FILE, 1, 7);
    struct fs_reply told = {.has_attr = true, .attr.oid = file};
    struct ahead_entry e;
    (void)state;
    answered_with(f, RPC_CREATE, OID_ROOT, none, &told);
    struct fs_request r = again(f, 0, &e);
    assert_true(oid_equal(r.oid, OID_ROOT) && oid_equal(r.oid2, file));
    assert_true(oid_equal(e.oid, file));
    assert_true(conn_ahead_makes(&f->ahead, file));
    assert_false(conn_ahead_makes(&f->ahead, OID_ROOT));
    conn_ahead_durable(&f->ahead, 1);
    assert_false(conn_ahead_makes(&f->ahead, file));
    teardown(f);
}

/* A commit names the version it is based on, which a node that starts anew makes under another
 * name, and may give the old name to a third version. */
static void test_commits_follow_the_names_of_versions(void **state)
{
    struct fixture *f = setup();
    struct oid file = oid_file(3, OID_FILE, 1, 7), other = oid_file(3, OID_FILE, 1, 8);
    struct dot v10 = {10, 1, 3}, v11 = {11, 1, 3}, v12 = {12, 1, 3}, v13 = {13, 1, 3};
    struct fs_reply told = {.has_attr = true, .attr = {.oid = file, .version = v10}};
    struct ahead_entry e;
    (void)state;
    answered_with(f, RPC_CREATE, OID_ROOT, none, &told);
    told.attr.version = v11;
    answered_with(f, RPC_COMMIT, file, v10, &told);
    told.attr.version = v12;
    answered_with(f, RPC_COMMIT, file, v11, &told);
    answered_with(f, RPC_COMMIT, other, v10, &plain);
    told.attr.version = v11; /* the file is made again, a record later */
    conn_ahead_answered_again(&f->ahead, 1, &told.attr, true);
    assert_true(dot_equal(again(f, 1, &e).base, v11));
    told.attr.version = v12;
    conn_ahead_answered_again(&f->ahead, 2, &told.attr, true);
    assert_true(dot_equal(again(f, 1, &e).base, v11)); /* done: as it was */
    assert_true(dot_equal(again(f, 2, &e).base, v12));
    told.attr.version = v13;
    conn_ahead_answered_again(&f->ahead, 3, &told.attr, true);
    assert_true(dot_equal(again(f, 3, &e).base, v10)); /* another file's */
    /* The node starts anew once more. */
    told.attr.version = v10;
    conn_ahead_answered_again(&f->ahead, 1, &told.attr, true);
    assert_true(dot_equal(again(f, 1, &e).base, v10));
    assert_true(dot_equal(again(f, 2, &e).base, v12));
    teardown(f);
}

/* The word that it is durable may be faster than the answer with the version's new name, and comes
 * even if that answer is lost with its connection. */
static void test_what_is_sent_again_stays_until_it_is_answered(void **state)
{
    struct fixture *f = setup();
    struct oid file = oid_file(3, OID_FILE, 1, 7);
    struct dot v10 = {10, 1, 3}, v11 = {11, 1, 3}, v12 = {12, 1, 3}, v21 = {21, 1, 3};
    struct fs_reply told = {.has_attr = true, .attr = {.oid = file, .version = v11}};
    struct ahead_entry e;
    (void)state;
    answered_with(f, RPC_COMMIT, file, v10, &told);
    told.attr.version = v12;
    answered_with(f, RPC_COMMIT, file, v11, &told);
    for (unsigned i = 0; i < 2; i++) { /* the first time there is no answer */
        (void)sent_again(f, 0, &e);
        assert_int_equal(e.id, 1);
        conn_ahead_durable(&f->ahead, 1);
    }
    assert_int_equal(conn_seq_acked(&f->seq), 0);
    told.attr.version = v21;
    conn_ahead_answered_again(&f->ahead, 1, &told.attr, true);
    assert_int_equal(conn_seq_acked(&f->seq), 1);
    assert_true(dot_equal(again(f, 0, &e).base, v21));
    assert_int_equal(e.id, 2);
    conn_ahead_answered_again(&f->ahead, 2, &told.attr, false);
    assert_false(conn_ahead_any(&f->ahead));
    teardown(f);
}

static enum ahead_again became(struct fixture *f, uint64_t number, int rc, uint32_t flags)
{
    struct fs_reply r = {.rc = rc, .flags = flags};
    struct ahead_entry e = {0};
    assert_true(conn_ahead_next(&f->ahead, number - 1, &e));
    enum ahead_again what = conn_ahead_sent_again(&f->ahead, &e, rc, &r);
    buf_deinit(&e.body);
    return what;
}

static void test_sent_again_keeps_what_is_ahead_once_more(void **state)
{
    struct fixture *f = setup();
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        answered_ahead(f, RPC_UNLINK);
    assert_int_equal(became(f, 1, ERR_AGAIN, 0), AHEAD_WAITS);
    assert_int_equal(became(f, 1, 0, REPLY_AHEAD), AHEAD_MADE);
    assert_int_equal(became(f, 2, 0, 0), AHEAD_MADE);
    assert_int_equal(became(f, 3, ERR_NOT_FOUND, 0), AHEAD_LOST);
    assert_int_equal(next(f, 0), 1);
    assert_int_equal(next(f, 1), 0);
    teardown(f);
}

static void test_may_is_bounded(void **state)
{
    struct fixture *f = setup();
    (void)state;
    for (unsigned i = 0; i < CONN_AHEAD_MAX; i++) {
        assert_true(conn_ahead_may(&f->ahead, RPC_SETATTR));
        answered_ahead(f, RPC_SETATTR);
    }
    assert_false(conn_ahead_may(&f->ahead, RPC_SETATTR));
    assert_true(conn_ahead_may(&f->ahead, RPC_GETATTR));
    assert_false(conn_ahead_may(&f->ahead, RPC_MKDIR));
    teardown(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_answered_as_usual_keeps_nothing),
        cmocka_unit_test(test_durable_ends_what_was_kept),
        cmocka_unit_test(test_durable_before_end_keeps_nothing),
        cmocka_unit_test(test_take_back_gives_the_number_back),
        cmocka_unit_test(test_made_again_under_the_same_oid),
        cmocka_unit_test(test_commits_follow_the_names_of_versions),
        cmocka_unit_test(test_what_is_sent_again_stays_until_it_is_answered),
        cmocka_unit_test(test_sent_again_keeps_what_is_ahead_once_more),
        cmocka_unit_test(test_may_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
