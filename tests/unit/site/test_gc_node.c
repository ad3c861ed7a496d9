/* Garbage passes of a node while people work: the store itself is tested in tests/unit/data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/elsewhere.h"
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

/* ---- a pass that is asked for ---- */

struct asked {
    struct gc_pass pass;
    unsigned ended;
    int rc;
    char why[128];
};

static void asked_done(struct gc_pass *p, int rc, const char *why)
{
    struct asked *a = CONTAINER_OF(p, struct asked, pass);
    a->ended++;
    a->rc = rc;
    (void)snprintf(a->why, sizeof a->why, "%s", why);
}

/* `busy`: contents of peers come all the while, which are to be looked at. */
static void ask(struct node_test *t, struct asked *a, uint64_t settled, bool busy)
{
    const struct fs_request sync = {.count = 0};
    *a = (struct asked){.pass.done = asked_done};
    assert_int_equal(node_gc_pass(t->n, &a->pass, settled), 0);
    while (a->ended == 0) { /* the pool is at it; the test's time is bounded */
        if (busy)
            node_bring_look(t->n, oid_file(0, OID_FILE, 7, 1));
        assert_int_equal(node_test_call(t, RPC_SYNC, &sync), 0);
    }
    assert_int_equal(a->ended, 1);
    if (a->rc != 0)
        print_error("%s\n", a->why);
    assert_int_equal(a->rc, 0);
}

static void put_chunk(struct node_test *t, uint8_t first)
{
    const uint8_t id[32] = {first};
    node_chunk_put(t->n, id, slice_str("some bytes"), stored, t);
    assert_int_equal(node_run(t->n), 0);
    t->n->stopping = false;
}

static struct store_stats stats_of(struct node_test *t)
{
    struct store_stats st;
    node_store_stats(t->n, &st);
    return st;
}

/* Nothing may go in the first pass after a crash while somebody may have put something: what stays
 * for that is counted, so that the operator is told. */
static void test_asked_pass_counts_what_is_too_young(void **state)
{
    struct node_test t;
    struct asked a;
    (void)state;
    setup(&t);
    put_chunk(&t, 1);
    put_chunk(&t, 2);
    ask(&t, &a, 0, false);
    assert_int_equal(a.pass.chunks, 0);
    assert_int_equal(a.pass.young_chunks, 2);
    assert_true(a.pass.young_bytes > 0);
    assert_int_equal(stats_of(&t).chunks, 2);
    ask(&t, &a, store_epoch_advance(t.n->store), false);
    assert_int_equal(a.pass.chunks, 2);
    assert_int_equal(a.pass.young_chunks, 0);
    assert_int_equal(stats_of(&t).chunks, 0);
    node_test_deinit(&t);
}

/* Segments are written anew one after the other, whatever else is to be done meanwhile. */
static void test_asked_pass_makes_the_store_smaller_while_peers_write(void **state)
{
    struct node_test t;
    struct asked a;
    (void)state;
    setup(&t);
    for (uint8_t i = 1; i <= 4; i++) { /* a start leaves a segment that is not full */
        put_chunk(&t, i);
        node_test_close(&t);
        node_test_open(&t);
        loop_timer_stop(t.n->loop, &t.n->tick);
        t.n->garbage_ns = 1;
    }
    uint64_t settled = store_epoch_advance(t.n->store);
    put_chunk(&t, 4); /* is put again, so it stays and has to be moved */
    put_chunk(&t, 3);
    size_t before = stats_of(&t).segments;
    assert_true(before >= 4);
    ask(&t, &a, settled, true);
    assert_int_equal(a.pass.chunks, 2);
    assert_int_equal(a.pass.young_chunks, 2);
    assert_true(stats_of(&t).segments <= 2); /* the one that is written to, and the next */
    node_test_deinit(&t);
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

static void brought(struct node_test *t, const struct content *c)
{
    struct store_stats st;
    node_bring(t->n, c, stored, t);
    assert_int_equal(node_run(t->n), 0);
    t->n->stopping = false;
    node_store_stats(t->n, &st);
    assert_int_equal(st.chunks, 3);
}

static void walk_past(struct node_test *t)
{
    for (unsigned i = 0; i < 4; i++) /* all shards, versions and names */
        node_past_tick(t->n);
}

/* A node without former versions has a file, brings what it consists of here, and replaces it. */
static struct content replace_large(struct node_test *t, struct elsewhere *e)
{
    node_setting_set(t->n, "versions_s", 0, stored, t);
    assert_int_equal(node_run(t->n), 0);
    t->n->stopping = false;
    node_past_tick(t->n); /* it takes effect */
    node_set_fetcher(t->n, elsewhere_fetch, e);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    assert_int_equal(node_test_call(t, RPC_CREATE, &q), 0);
    q = (struct fs_request){.oid = t->attr.oid, .base = t->attr.version, .has_content = true};
    const struct content large = elsewhere_make(t, e);
    assert_int_equal(e->count, 3);
    q.content = large;
    assert_int_equal(node_test_call(t, RPC_COMMIT, &q), 0);
    brought(t, &large);
    q.base = t->attr.version;
    q.content = (struct content){.kind = CONTENT_INLINE, .size = 3, .bytes = slice_str("abc")};
    assert_int_equal(node_test_call(t, RPC_COMMIT, &q), 0);
    walk_past(t);
    return large;
}

/* A content comes here, goes, and comes again: it is here then, also what of it is known from
 * before. */
static void test_bring_stores_what_was_here_before(void **state)
{
    struct node_test t;
    struct elsewhere e = {.count = 0};
    (void)state;
    setup(&t);
    const struct content large = replace_large(&t, &e);
    assert_int_equal(chunks_after_passes(&t), 0);
    brought(&t, &large);
    elsewhere_deinit(&e);
    node_test_deinit(&t);
}

/* Another site may know the version and not that it was replaced, give it a name of its own, and
 * have no chunk of it: so it stays here until that one has said that it knows, or has left. */
static void test_what_was_replaced_stays_until_all_know(void **state)
{
    struct node_test t;
    struct elsewhere e = {.count = 0};
    const struct fs_request sync = {.count = 0};
    struct member m = {.name = "here", .cert = slice_str("cert")};
    (void)state;
    setup(&t);
    for (unsigned i = 0; i < 2; i++) {
        m.site = i == 0 ? node_site(t.n) : 77;
        m.cert_sha256[0] = (uint8_t)i;
        node_member_set(t.n, &m, stored, &t);
        assert_int_equal(node_run(t.n), 0);
        t.n->stopping = false;
    }
    (void)replace_large(&t, &e);
    assert_int_equal(chunks_after_passes(&t), 3);
    node_member_remove(t.n, m.site, LEAVES_REMOVED, stored, &t);
    assert_int_equal(node_run(t.n), 0);
    t.n->stopping = false;
    while (!node_left(t.n, m.site)) { /* the pool is at it; the test's time is bounded */
        node_leaves_step(t.n);
        assert_int_equal(node_test_call(&t, RPC_SYNC, &sync), 0);
    }
    walk_past(&t);
    assert_int_equal(chunks_after_passes(&t), 0);
    elsewhere_deinit(&e);
    node_test_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_while_a_pass_marks),
        cmocka_unit_test(test_asked_pass_counts_what_is_too_young),
        cmocka_unit_test(test_asked_pass_makes_the_store_smaller_while_peers_write),
        cmocka_unit_test(test_lost_content_does_not_end_collection),
        cmocka_unit_test(test_bring_stores_what_was_here_before),
        cmocka_unit_test(test_what_was_replaced_stays_until_all_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
