/* Garbage passes from run to run of the daemon, by a clock that the test moves: it is stopped in
 * order, or killed, which forgets what its index had not written down, over and over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "data/chunk.h"
#include "tests/unit/site/node_test.h"

#define DAY_NS (86400 * NS_PER_SEC)
#define MOUNT 7u

struct fixture {
    struct node_test t;
};

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    node_test_init_moved(&f->t, 2);
}

static void restart(struct fixture *f)
{
    node_test_close(&f->t);
    f->t.ahead_ns += 30 * DAY_NS; /* in which none runs */
    node_test_open(&f->t);
}

static void kill_it(struct fixture *f)
{
    char cmd[256];
    (void)snprintf(cmd, sizeof cmd, "%s.killed", f->t.dir);
    node_test_copy(&f->t, cmd);
    node_test_close(&f->t);
    (void)snprintf(cmd, sizeof cmd, "rm -r %s && mv %s.killed %s", f->t.dir, f->t.dir, f->t.dir);
    assert_int_equal(system(cmd), 0);
    node_test_open(&f->t);
}

/* The loop, for a moment. */
static void turn(struct fixture *f)
{
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(node_test_call(&f->t, RPC_SYNC, &(struct fs_request){.mode = 0}), 0);
}

/* So much later: passes get the occasion to begin, and run to their end. */
static void later(struct fixture *f, uint64_t seconds)
{
    f->t.ahead_ns += seconds * NS_PER_SEC;
    turn(f);
    node_gc_tick(f->t.n);
    for (unsigned i = 0; i < 10; i++) { /* steps of a pass before its time */
        node_garbage_tick(f->t.n);
        turn(f);
        while (!node_gc_idle(f->t.n))
            turn(f);
    }
}

static uint64_t chunks(const struct fixture *f)
{
    struct store_stats st;
    store_stats(f->t.n->store, &st);
    return st.chunks;
}

static void chunk_put(void *ctx, int rc)
{
    assert_int_equal(rc, 0);
    *(bool *)ctx = true;
}

static void put_chunk(struct fixture *f, const char *plain, struct content *ret)
{
    struct pipeline *p = NULL;
    struct buf sealed = {.ptr = NULL};
    struct chunk_id id;
    assert_int_equal(pipeline_new(&p, &f->t.n->keys, CHUNK_CIPHER_AUTO), 0);
    assert_int_equal(chunk_seal(p, slice_str(plain), &sealed, &id), 0);
    pipeline_free(p);
    bool done = false;
    node_chunk_put(f->t.n, id.b, buf_slice(&sealed), chunk_put, &done);
    while (!done)
        turn(f);
    buf_deinit(&sealed);
    *ret = (struct content){.kind = CONTENT_MANIFEST, .size = strlen(plain), .block_bytes = 65536};
    memcpy(ret->root, id.b, sizeof ret->root);
}

static void commit(struct fixture *f, const char *name, const struct content *c)
{
    struct fs_request q = {
        .oid = OID_ROOT, .name = slice_str(name), .kind = OID_FILE, .mode = 0600};
    assert_int_equal(node_test_call(&f->t, RPC_CREATE, &q), 0);
    q = (struct fs_request){
        .oid = f->t.attr.oid, .base = f->t.attr.version, .has_content = true, .content = *c};
    assert_int_equal(node_test_call(&f->t, RPC_COMMIT, &q), 0);
}

/* A mount that goes without a word, and for good. */
static void lose_a_mount(struct fixture *f)
{
    struct session_table *t = f->t.n->sessions;
    assert_int_equal(session_new(t, MOUNT, loop_now_ns(f->t.n->loop)), 0);
    session_set_user(t, MOUNT, mem_calloc(1, 64)); /* no push connection */
    session_connected(t, MOUNT);
    session_disconnected(t, MOUNT, loop_now_ns(f->t.n->loop));
    f->t.ahead_ns += 10 * NS_PER_SEC;
    turn(f); /* the loop looks at its clock */
    node_sessions_tick(f->t.n);
    assert_false(session_exists(t, MOUNT));
    turn(f);
}

static enum node_flush flush(struct fixture *f)
{
    char why[NODE_FLUSH_WHY];
    return node_sessions_flush(f->t.n, 99, loop_now_ns(f->t.n->loop), true, why);
}

/* A daemon that is stopped in order after six minutes, over and over, collects as one that goes on:
 * time in which none runs does not count. */
static void test_a_daemon_that_is_restarted_often_collects(void **state)
{
    struct fixture f;
    struct content one;
    char path[96];
    (void)state;
    setup(&f);
    put_chunk(&f, "nobody refers to this", &one);
    (void)snprintf(path, sizeof path, "%s/garbage", f.t.dir);
    for (int run = 0; run < 2; run++) {
        later(&f, 660); /* a pass, before which nothing was put */
        restart(&f);
        assert_int_equal(access(path, F_OK), -1);
        assert_int_equal(chunks(&f), run == 0 ? 1 : 0);
        later(&f, 360);
        restart(&f);
        later(&f, 50);
        assert_int_equal(chunks(&f), run == 0 ? 1 : 0);
        later(&f, 250); /* eleven minutes in all */
        assert_int_equal(chunks(&f), 0);
    }
    node_test_deinit(&f.t);
}

/* So does one that never comes to a pass before it is stopped: the time of all runs counts. */
static void test_a_daemon_that_is_restarted_before_its_first_pass_collects(void **state)
{
    struct fixture f;
    struct content one;
    (void)state;
    setup(&f);
    put_chunk(&f, "nobody refers to this", &one);
    for (unsigned run = 0; run < 6; run++) { /* twenty minutes, and what is missed */
        restart(&f);
        later(&f, 290);
    }
    assert_int_equal(chunks(&f), 0);
    node_test_deinit(&f.t);
}

/* A daemon that is killed takes what was put before it an interval after its start; what a mount
 * found there, and refers to later, stays, though the daemon has forgotten that it was asked. */
static void test_after_a_kill_a_pass_takes_what_was_put_before(void **state)
{
    struct fixture f;
    struct content nobodys, kept;
    (void)state;
    setup(&f);
    put_chunk(&f, "nobody refers to this", &nobodys);
    put_chunk(&f, "somebody will refer to this", &kept);
    restart(&f);
    put_chunk(&f, "somebody will refer to this", &kept); /* it is there */
    kill_it(&f);
    lose_a_mount(&f); /* so none comes before its time */
    later(&f, 500);
    assert_int_equal(chunks(&f), 2);
    commit(&f, "f", &kept);
    later(&f, 120);
    assert_int_equal(chunks(&f), 1);
    later(&f, 660);
    assert_int_equal(chunks(&f), 1);
    node_test_deinit(&f.t);
}

/* Killed every few minutes, it collects: as soon as its mounts have committed what they have. */
static void test_a_daemon_that_is_killed_often_collects(void **state)
{
    struct fixture f;
    struct content nobodys, kept;
    (void)state;
    setup(&f);
    put_chunk(&f, "nobody refers to this", &nobodys);
    put_chunk(&f, "a file", &kept);
    commit(&f, "f", &kept);
    kill_it(&f);
    later(&f, 20);
    assert_int_equal(chunks(&f), 2); /* mounts may not be back yet */
    later(&f, 45);
    assert_int_equal(chunks(&f), 1);
    kill_it(&f);
    later(&f, 120);
    assert_int_equal(chunks(&f), 1);
    node_test_deinit(&f.t);
}

/* A number of the answer to a verb, within `within` if that is not NULL. */
static json_int_t number(struct fixture *f, const char *verb, const char *within, const char *key)
{
    char text[64];
    (void)snprintf(text, sizeof text, "{\"verb\":\"%s\"}", verb);
    struct fs_request q = {.data = slice_str(text)};
    assert_int_equal(node_test_call(&f->t, RPC_ADMIN, &q), 0);
    json_t *o = json_loadb((const char *)f->t.data.ptr, f->t.data.len, 0, NULL);
    json_t *in = within != NULL ? json_object_get(o, within) : o;
    json_int_t n = json_integer_value(json_object_get(in, key));
    json_decref(o);
    return n;
}

/* Who asks for a pass while one that nobody has asked for waits for a mount gets one of his own. */
static void test_who_asks_does_not_wait_for_an_early_pass(void **state)
{
    struct fixture f;
    struct content one;
    (void)state;
    setup(&f);
    put_chunk(&f, "nobody refers to this", &one);
    kill_it(&f);
    struct session_table *t = f.t.n->sessions;
    assert_int_equal(session_new(t, MOUNT, loop_now_ns(f.t.n->loop)), 0);
    session_set_user(t, MOUNT, mem_calloc(1, 64)); /* no push connection: it is silent */
    session_connected(t, MOUNT);
    later(&f, 70);
    assert_int_equal(number(&f, "gc.status", NULL, "run"), 1);
    assert_int_equal(number(&f, "gc.status", "result", "run"), 0); /* it waits */
    assert_int_equal(number(&f, "gc", NULL, "run"), 2);
    for (unsigned i = 0; i < 3; i++)
        node_garbage_tick(f.t.n);
    assert_int_equal(number(&f, "gc.status", "result", "run"), 1);
    assert_int_equal(number(&f, "gc.status", NULL, "run"), 2);
    assert_int_equal(chunks(&f), 1);
    node_test_deinit(&f.t);
}

/* That a mount was lost, which may come back with what it had put, outlasts a restart. */
static void test_a_lost_mount_is_remembered_over_restarts(void **state)
{
    struct fixture f;
    struct content its;
    (void)state;
    setup(&f);
    put_chunk(&f, "a mount will refer to this", &its);
    assert_int_equal(flush(&f), NODE_FLUSH_ALL);
    lose_a_mount(&f);
    assert_int_equal(flush(&f), NODE_FLUSH_NOT);
    restart(&f);
    assert_int_equal(flush(&f), NODE_FLUSH_NOT);
    kill_it(&f);
    later(&f, 70); /* a pass before its time takes nothing */
    assert_int_equal(chunks(&f), 1);
    assert_int_equal(flush(&f), NODE_FLUSH_NOT);
    f.t.ahead_ns += 600 * NS_PER_SEC;
    turn(&f);
    node_sessions_tick(f.t.n);
    assert_int_equal(flush(&f), NODE_FLUSH_ALL);
    restart(&f);
    assert_int_equal(flush(&f), NODE_FLUSH_ALL);
    node_test_deinit(&f.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_daemon_that_is_restarted_often_collects),
        cmocka_unit_test(test_a_daemon_that_is_restarted_before_its_first_pass_collects),
        cmocka_unit_test(test_after_a_kill_a_pass_takes_what_was_put_before),
        cmocka_unit_test(test_a_daemon_that_is_killed_often_collects),
        cmocka_unit_test(test_who_asks_does_not_wait_for_an_early_pass),
        cmocka_unit_test(test_a_lost_mount_is_remembered_over_restarts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
