/* What is written to an open file without a name, from run to run of the daemon: it stays until the
 * last mount that had it open has closed it, or has not come back. By a clock that the test moves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "data/chunk.h"
#include "tests/unit/site/node_test.h"

#define A 7u
#define B 8u
#define MANY 300u /* more than are looked at in one step */

struct fixture {
    struct node_test t;
};

/* A session that the next run of the daemon waits for. */
static void keep_session(struct fixture *f, uint64_t id)
{
    uint8_t key[10] = {SHARD_KEY_NODE, 's'};
    for (unsigned i = 0; i < 8; i++)
        key[2 + i] = (uint8_t)(id >> (8 * (7 - i)));
    struct local_pair pair = {slice_of(key, sizeof key), slice_str("1")};
    assert_int_equal(shard_local(f->t.n->shards[0], &pair, 1, NULL, NULL), 0);
}

static void join(struct fixture *f, uint64_t id)
{
    struct session_table *t = f->t.n->sessions;
    assert_int_equal(session_new(t, id, loop_now_ns(f->t.n->loop)), 0);
    session_connected(t, id);                   /* so that it does not expire */
    session_set_user(t, id, mem_calloc(1, 64)); /* no push connection */
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    node_test_init_moved(&f->t, 1);
    join(f, A);
    join(f, B);
}

static int call(struct fixture *f, enum rpc_type type, uint64_t session, struct oid oid)
{
    struct fs_request q = {.session = session, .oid = oid};
    if (type == RPC_CLOSE)
        q = (struct fs_request){.session = session, .oids = &oid, .oid_count = 1};
    return node_test_call(&f->t, type, &q);
}

/* The loop, for a moment. */
static void turn(struct fixture *f)
{
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(node_test_call(&f->t, RPC_SYNC, &(struct fs_request){.mode = 0}), 0);
}

/* A start with a grace, if there was a session. */
static void restart(struct fixture *f, bool grace)
{
    for (uint64_t id = A; id <= B && grace; id++)
        keep_session(f, id);
    turn(f); /* all is on the disk */
    node_test_close(&f->t);
    node_test_open(&f->t);
    assert_int_equal(f->t.n->lock_grace, grace);
}

static void grace_ends(struct fixture *f)
{
    f->t.ahead_ns += 20 * NS_PER_SEC;
    turn(f); /* the loop looks at its clock */
    node_sessions_tick(f->t.n);
    assert_false(f->t.n->lock_grace);
}

/* A file that A and B have open, removed, and then written to. */
static struct oid nameless(struct fixture *f, const struct content *c)
{
    struct fs_request make = {.oid = OID_ROOT, .name = slice_str("f"), .kind = OID_FILE};
    assert_int_equal(node_test_call(&f->t, RPC_CREATE, &make), 0);
    struct fs_request commit = {
        .oid = f->t.attr.oid, .base = f->t.attr.version, .has_content = true, .content = *c};
    assert_int_equal(call(f, RPC_OPEN, A, commit.oid), 0);
    assert_int_equal(call(f, RPC_OPEN, B, commit.oid), 0);
    for (uint64_t id = A; id <= B; id++) /* else they would have to acknowledge what follows */
        session_forget(f->t.n->sessions, id, commit.oid);
    assert_int_equal(node_test_call(&f->t, RPC_UNLINK, &make), 0);
    assert_int_equal(node_test_call(&f->t, RPC_COMMIT, &commit), 0);
    return commit.oid;
}

static struct oid nameless_new(struct fixture *f)
{
    struct content c = {.kind = CONTENT_INLINE, .size = 3, .bytes = slice_str("new")};
    return nameless(f, &c);
}

static void check_new(struct fixture *f, struct oid oid)
{
    assert_int_equal(call(f, RPC_CONTENT, A, oid), 0);
    assert_int_equal(f->t.data.len, 3);
    assert_memory_equal(f->t.data.ptr, "new", 3);
}

static uint32_t orphans(struct fixture *f)
{
    struct oid oids[2 * MANY];
    return node_open_orphans(f->t.n, 0, NULL, oids, 2 * MANY);
}

/* After a restart B is the first to say again that it has it open, and closes it. */
static struct oid closed_by_b(struct fixture *f)
{
    setup(f);
    struct oid oid = nameless_new(f);
    restart(f, true);
    join(f, B);
    assert_int_equal(call(f, RPC_OPEN, B, oid), 0);
    assert_int_equal(call(f, RPC_CLOSE, B, oid), 0);
    return oid;
}

static void test_a_close_before_others_are_back_takes_nothing_from_them(void **state)
{
    struct fixture f;
    (void)state;
    struct oid oid = closed_by_b(&f);
    join(&f, A);
    assert_int_equal(call(&f, RPC_OPEN, A, oid), 0);
    check_new(&f, oid);
    grace_ends(&f);
    check_new(&f, oid);
    assert_int_equal(orphans(&f), 1);
    assert_int_equal(call(&f, RPC_CLOSE, A, oid), 0); /* the last one */
    assert_int_equal(orphans(&f), 0);
    node_test_deinit(&f.t);
}

/* The same, but A does not come back. */
static void test_what_nobody_takes_up_goes_with_the_grace(void **state)
{
    struct fixture f;
    (void)state;
    (void)closed_by_b(&f);
    assert_int_equal(orphans(&f), 1);
    grace_ends(&f);
    assert_int_equal(orphans(&f), 0);
    node_test_deinit(&f.t);
}

/* Sessions and contents are in different journals, and the power may go between the two. */
static void test_what_is_left_without_a_session_goes_at_the_start(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f);
    (void)nameless_new(&f);
    assert_int_equal(orphans(&f), 1);
    restart(&f, false);
    assert_int_equal(orphans(&f), 0);
    node_test_deinit(&f.t);
}

static void test_all_that_nobody_takes_up_goes_however_many(void **state)
{
    struct fixture f;
    struct oid oids[MANY], page[7], last;
    uint32_t count, seen = 0;
    (void)state;
    setup(&f);
    for (unsigned i = 0; i < MANY; i++)
        oids[i] = nameless_new(&f);
    do {
        count = node_open_orphans(f.t.n, 0, seen > 0 ? &last : NULL, page, 7);
        seen += count;
        if (count > 0)
            last = page[count - 1];
    } while (count == 7);
    assert_int_equal(seen, MANY);
    restart(&f, true);
    join(&f, A);
    assert_int_equal(call(&f, RPC_OPEN, A, oids[0]), 0);
    grace_ends(&f);
    assert_int_equal(orphans(&f), 1);
    check_new(&f, oids[0]);
    node_test_deinit(&f.t);
}

static void chunk_put(void *ctx, int rc)
{
    assert_int_equal(rc, 0);
    *(bool *)ctx = true;
}

/* A content that is one chunk. */
static struct content put_chunk(struct fixture *f)
{
    struct pipeline *p = NULL;
    struct buf sealed = {.ptr = NULL};
    struct chunk_id id;
    struct content c = {.kind = CONTENT_MANIFEST, .size = 5, .block_bytes = 65536};
    bool done = false;
    assert_int_equal(pipeline_new(&p, &f->t.n->keys, CHUNK_CIPHER_AUTO), 0);
    assert_int_equal(chunk_seal(p, slice_str("chunk"), &sealed, &id), 0);
    pipeline_free(p);
    node_chunk_put(f->t.n, id.b, buf_slice(&sealed), chunk_put, &done);
    while (!done)
        turn(f);
    buf_deinit(&sealed);
    memcpy(c.root, id.b, sizeof c.root);
    return c;
}

static void passes_run(struct fixture *f)
{
    f->t.ahead_ns += 700 * NS_PER_SEC;
    turn(f);
    node_gc_tick(f->t.n);
    for (unsigned i = 0; i < 10; i++) { /* steps of a pass before its time */
        node_garbage_tick(f->t.n);
        turn(f);
        while (!node_gc_idle(f->t.n))
            turn(f);
    }
}

/* The chunk of the last one of many is needed as those of the first are, until it is closed. */
static void test_garbage_passes_leave_what_is_open_however_many(void **state)
{
    struct fixture f;
    struct store_stats st;
    (void)state;
    setup(&f);
    for (unsigned i = 0; i < MANY; i++)
        (void)nameless_new(&f);
    struct content c = put_chunk(&f);
    struct oid oid = nameless(&f, &c);
    for (unsigned i = 0; i < 3; i++)
        passes_run(&f);
    store_stats(f.t.n->store, &st);
    assert_int_equal(st.chunks, 1);
    assert_int_equal(call(&f, RPC_CLOSE, A, oid), 0);
    assert_int_equal(call(&f, RPC_CLOSE, B, oid), 0);
    for (unsigned i = 0; i < 3; i++)
        passes_run(&f);
    store_stats(f.t.n->store, &st);
    assert_int_equal(st.chunks, 0);
    node_test_deinit(&f.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_close_before_others_are_back_takes_nothing_from_them),
        cmocka_unit_test(test_what_nobody_takes_up_goes_with_the_grace),
        cmocka_unit_test(test_what_is_left_without_a_session_goes_at_the_start),
        cmocka_unit_test(test_all_that_nobody_takes_up_goes_however_many),
        cmocka_unit_test(test_garbage_passes_leave_what_is_open_however_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
