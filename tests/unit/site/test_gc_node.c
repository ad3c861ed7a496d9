/* Garbage passes of a node while people work: the store itself is tested in tests/unit/data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

/* The tests say when a pass begins. */
static void setup(struct node_test *t)
{
    node_test_init(t, 2);
    loop_timer_stop(t->n->loop, &t->n->tick);
    t->n->garbage_ns = 1;
}

static void finished(struct call *c, int rc)
{
    struct node_test *t = c->user;
    t->rc = rc;
    t->done = true;
    node_stop(t->n);
}

/* A write while a pass marks: the engine tells of the new content while it is at work, and must not
 * be asked for it then. It was, and went on with memory that was not its own any more. */
static void test_write_while_a_pass_marks(void **state)
{
    struct node_test t;
    (void)state;
    setup(&t);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    assert_int_equal(node_test_call(&t, RPC_CREATE, &q), 0);
    q = (struct fs_request){.oid = t.attr.oid, .base = t.attr.version, .has_content = true};
    q.content = (struct content){.kind = CONTENT_INLINE, .size = 3, .bytes = slice_str("abc")};
    t.done = false;
    node_issue(t.n, RPC_COMMIT, &q, finished, &t); /* evaluated in the next turn, */
    node_gc_tick(t.n);                             /* before the pass does its first step */
    assert_false(node_gc_idle(t.n));
    assert_int_equal(node_run(t.n), 0);
    t.n->stopping = false;
    assert_true(t.done);
    assert_int_equal(t.rc, 0);
    q = (struct fs_request){.oid = q.oid};
    assert_int_equal(node_test_call(&t, RPC_CONTENT, &q), 0);
    assert_int_equal(t.data.len, 3);
    assert_memory_equal(t.data.ptr, "abc", 3);
    node_test_deinit(&t);
}

static void nobody_has(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx)
{
    struct buf none = {0};
    (void)fctx;
    (void)id;
    cb(cctx, ERR_NOT_FOUND, &none);
}

static void unreachable(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx)
{
    struct buf none = {0};
    (void)fctx;
    (void)id;
    cb(cctx, ERR_UNREACHABLE, &none);
}

static void stored(void *ctx, int rc)
{
    struct node_test *t = ctx;
    assert_int_equal(rc, 0);
    node_stop(t->n);
}

static uint64_t chunks_after_passes(struct node_test *t)
{
    struct store_stats st;
    const struct fs_request sync = {.count = 0};
    for (unsigned i = 0; i < 20; i++) {
        node_gc_tick(t->n);
        while (!node_gc_idle(t->n)) /* the pool is at it; the test's time is bounded */
            assert_int_equal(node_test_call(t, RPC_SYNC, &sync), 0);
    }
    node_store_stats(t->n, &st);
    return st.chunks;
}

/* A content whose tree no site has any more is no reason to keep garbage for ever; one whose tree
 * may be at a site that is out of reach is one. */
static void test_lost_content_does_not_end_collection(void **state)
{
    static const uint8_t garbage[32] = {1}, root[32] = {2};
    struct node_test t;
    (void)state;
    setup(&t);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    assert_int_equal(node_test_call(&t, RPC_CREATE, &q), 0);
    q = (struct fs_request){.oid = t.attr.oid, .base = t.attr.version, .has_content = true};
    q.content =
        (struct content){.kind = CONTENT_MANIFEST, .size = 3 * MIB, .block_bytes = 64 * KIB};
    memcpy(q.content.root, root, sizeof root);
    assert_int_equal(node_test_call(&t, RPC_COMMIT, &q), 0);
    node_chunk_put(t.n, garbage, slice_str("garbage"), stored, &t);
    assert_int_equal(node_run(t.n), 0);
    t.n->stopping = false;
    node_set_fetcher(t.n, unreachable, NULL);
    assert_int_equal(chunks_after_passes(&t), 1);
    node_set_fetcher(t.n, nobody_has, NULL);
    assert_int_equal(chunks_after_passes(&t), 0);
    node_test_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_while_a_pass_marks),
        cmocka_unit_test(test_lost_content_does_not_end_collection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
