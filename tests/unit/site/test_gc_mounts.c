/* claudefs gc and the mounts of a site: each is asked to commit what it has put (PUSH_FLUSH,
 * RPC_FLUSHED). Between a node with its loop, by a clock that the test moves, and clients on its
 * socket that are mounts which answer, cannot commit, do not answer, or know nothing of it. */
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "site/rpc.h"
#include "site/settings.h"
#include "tests/unit/site/node_test.h"

enum {
    POLL_MS = 5,      /* of real time, for */
    STEP_MS = 100,    /* of the node's */
    POLLS_MAX = 5000, /* more than any of these takes */
    MOUNTS_S = 120,   /* site/node_garbage.c waits as long for a mount */
    CHUNK_BYTES = 3000
};

struct mount {
    struct rpc_client *push, *work;
    struct rpc_reply frame, pushed;
    uint64_t session, next_id, number;
    uint64_t flush; /* the last PUSH_FLUSH that came; 0: none did */
};
struct fixture {
    struct node_test t;
    struct clock clock;
    uint64_t ahead_ns; /* atomic */
    pthread_t thread;  /* has the node from its beginning to its end */
    sem_t listens, stopped;
    struct rpc_auth auth;
    char path[96];
    struct mount admin; /* has no session */
    struct op_arena arena;
    int64_t run; /* of the gc that was asked for last */
};

static uint64_t ahead(void *ctx)
{
    return __atomic_load_n(&((struct fixture *)ctx)->ahead_ns, __ATOMIC_RELAXED);
}

static uint64_t moved_mono(void *ctx)
{
    return clock_mono_ns(&clock_os) + ahead(ctx);
}

static uint64_t moved_wall(void *ctx)
{
    return clock_wall_ns(&clock_os) + ahead(ctx);
}

static void later(struct fixture *x, uint64_t ms)
{
    __atomic_fetch_add(&x->ahead_ns, ms * NS_PER_MS, __ATOMIC_RELAXED);
}

static void sem_await(sem_t *s)
{
    while (sem_wait(s) != 0)
        ;
}

static void *node_thread(void *arg)
{
    struct fixture *x = arg;
    node_test_init_at(&x->t, 1, &x->clock);
    assert_int_equal(sem_post(&x->listens), 0);
    assert_int_equal(node_run(x->t.n), 0);
    sem_await(&x->stopped); /* node_stop may still be in there */
    node_test_deinit(&x->t);
    return NULL;
}

/* ---- a client ---- */

static struct fs_reply call(struct fixture *x,
                            struct mount *m,
                            struct rpc_client *c,
                            enum rpc_type type,
                            const struct fs_request *req,
                            struct slice bulk)
{
    struct buf body = {0};
    struct fs_reply r;
    fs_request_encode(req, &body);
    assert_int_equal(
        rpc_client_call(c, type, ++m->next_id, 0, buf_slice(&body), bulk, 0, &m->frame), 0);
    op_arena_reset(&x->arena);
    assert_int_equal(fs_reply_decode(m->frame.frame.body, &x->arena, &r), 0);
    buf_deinit(&body);
    return r;
}

static struct rpc_client *client_new(struct fixture *x)
{
    struct rpc_client *c = NULL;
    struct rpc_target target = {.unix_path = x->path};
    assert_int_equal(rpc_client_connect(&c, &target, &x->auth, 0, NULL), 0);
    return c;
}

static void push_connect(struct fixture *x, struct mount *m, const char *name, uint32_t flags)
{
    m->push = client_new(x);
    struct fs_request hello = {
        .session = m->session, .flags = HELLO_PUSH | flags, .name = slice_str(name)};
    struct fs_reply r = call(x, m, m->push, RPC_HELLO, &hello, slice_of(NULL, 0));
    assert_int_equal(r.rc, 0);
    m->session = r.session;
}

static void mount_begin(struct fixture *x, struct mount *m, const char *name, uint32_t flags)
{
    memset(m, 0, sizeof *m);
    push_connect(x, m, name, flags);
    m->work = client_new(x);
    struct fs_request hello = {.session = m->session};
    assert_int_equal(call(x, m, m->work, RPC_HELLO, &hello, slice_of(NULL, 0)).rc, 0);
}

/* Its connections end; whether it has said so before is the test's business. */
static void mount_end(struct mount *m)
{
    rpc_client_close(m->push);
    rpc_client_close(m->work);
    m->push = m->work = NULL;
    buf_deinit(&m->frame.storage);
    buf_deinit(&m->pushed.storage);
}

static int ask(struct fixture *x, struct mount *m, enum rpc_type type, struct fs_request req)
{
    req.session = m->session;
    req.number = ++m->number;
    return call(x, m, m->work, type, &req, slice_of(NULL, 0)).rc;
}

static void put(struct fixture *x, struct mount *m, uint8_t id)
{
    uint8_t bytes[CHUNK_BYTES];
    struct fs_request req = {.session = m->session, .has_chunk = true, .chunk = {id}};
    memset(bytes, id, sizeof bytes);
    assert_int_equal(call(x, m, m->work, RPC_CHUNK_PUT, &req, slice_of(bytes, sizeof bytes)).rc, 0);
}

static bool is_there(struct fixture *x, struct mount *m, uint8_t id)
{
    int rc = ask(x, m, RPC_CHUNK_GET, (struct fs_request){.has_chunk = true, .chunk = {id}});
    assert_true(rc == 0 || rc == ERR_UNREACHABLE); /* no other site is known that may have it */
    return rc == 0;
}

static void commit(struct fixture *x, struct mount *m, uint8_t id)
{
    struct fs_request q = {.oid = OID_ROOT,
                           .name = slice_str("f"),
                           .kind = OID_FILE,
                           .mode = 0600,
                           .flags = (uint32_t)O_CREAT,
                           .session = m->session,
                           .number = ++m->number};
    struct fs_reply r = call(x, m, m->work, RPC_CREATE, &q, slice_of(NULL, 0));
    assert_int_equal(r.rc, 0);
    q = (struct fs_request){.oid = r.attr.oid, .base = r.attr.version, .has_content = true};
    q.content = (struct content){
        .kind = CONTENT_MANIFEST, .size = 100, .block_bytes = 64 * KIB, .root = {id}};
    assert_int_equal(ask(x, m, RPC_COMMIT, q), 0);
}

static void flushed(struct fixture *x, struct mount *m, uint64_t number, uint32_t flags)
{
    assert_int_equal(ask(x, m, RPC_FLUSHED, (struct fs_request){.number2 = number, .flags = flags}),
                     0);
}

/* What has been pushed up to now, after a moment. */
static void pushes_take(struct mount *m)
{
    while (rpc_client_recv(m->push, POLL_MS, &m->pushed) == 0) {
        struct op_arena arena = {0};
        struct fs_reply p;
        assert_int_equal(fs_reply_decode(m->pushed.frame.body, &arena, &p), 0);
        if (m->pushed.frame.type == PUSH_FLUSH)
            m->flush = p.number2;
        op_arena_deinit(&arena);
    }
}

static void await_flush(struct fixture *x, struct mount *m)
{
    m->flush = 0;
    for (unsigned i = 0; m->flush == 0; i++) {
        assert_true(i < POLLS_MAX);
        later(x, STEP_MS);
        assert_int_equal(ask(x, m, RPC_PING, (struct fs_request){.flags = 0}), 0);
        pushes_take(m);
    }
}

/* ---- an operator ---- */

static json_t *verb(struct fixture *x, const char *name)
{
    char text[64];
    (void)snprintf(text, sizeof text, "{\"verb\":\"%s\"}", name);
    struct fs_request req = {.data = slice_str(text)};
    struct fs_reply r = call(x, &x->admin, x->admin.work, RPC_ADMIN, &req, slice_of(NULL, 0));
    assert_int_equal(r.rc, 0);
    json_t *o = json_loadb((const char *)r.data.ptr, r.data.len, 0, NULL);
    assert_non_null(o);
    return o;
}

static void gc_ask(struct fixture *x)
{
    json_t *o = verb(x, "gc");
    x->run = json_integer_value(json_object_get(o, "run"));
    json_decref(o);
}

/* The result, or NULL: it is not over. New reference. */
static json_t *gc_result(struct fixture *x)
{
    json_t *o = verb(x, "gc.status"), *result = json_object_get(o, "result");
    bool over = json_integer_value(json_object_get(result, "run")) >= x->run;
    result = over ? json_incref(result) : NULL;
    json_decref(o);
    return result;
}

/* Its step, when so many turns have passed in which nobody answered. */
static void assert_waits(struct fixture *x, struct mount *m)
{
    for (unsigned i = 0; i < 30; i++) {
        later(x, STEP_MS);
        pushes_take(m);
        json_t *o = verb(x, "gc.status");
        assert_string_equal(json_string_value(json_object_get(o, "step")), "waiting for mounts");
        json_decref(o);
    }
}

struct gone {
    int64_t freed, recent;
    char why[200];
};
static struct gone gc_over(struct fixture *x, struct mount *m)
{
    struct gone g;
    json_t *r = NULL;
    for (unsigned i = 0; (r = gc_result(x)) == NULL; i++) {
        assert_true(i < POLLS_MAX);
        later(x, STEP_MS);
        pushes_take(m);
    }
    assert_string_equal(json_string_value(json_object_get(r, "state")), "done");
    g.freed = json_integer_value(json_object_get(r, "freed_chunks"));
    g.recent = json_integer_value(json_object_get(r, "recent_chunks"));
    (void)snprintf(g.why, sizeof g.why, "%s",
                   json_string_value(json_object_get(r, "recent_why"))); /* cut if need be */
    json_decref(r);
    return g;
}

static int setup(void **state)
{
    struct fixture *x = mem_calloc(1, sizeof *x);
    struct err_detail d;
    x->clock = (struct clock){moved_mono, moved_wall, x};
    assert_int_equal(sem_init(&x->listens, 0, 0), 0);
    assert_int_equal(sem_init(&x->stopped, 0, 0), 0);
    assert_int_equal(pthread_create(&x->thread, NULL, node_thread, x), 0);
    sem_await(&x->listens);
    assert_int_equal(dir_file_read(x->t.dir, "site.key", x->auth.site_key, 32, &d), 0);
    (void)snprintf(x->path, sizeof x->path, "%s/sock", x->t.dir);
    x->admin.work = client_new(x);
    struct fs_request hello = {.flags = HELLO_ADMIN};
    assert_int_equal(call(x, &x->admin, x->admin.work, RPC_HELLO, &hello, slice_of(NULL, 0)).rc, 0);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    mount_end(&x->admin);
    node_stop(x->t.n);
    assert_int_equal(sem_post(&x->stopped), 0);
    assert_int_equal(pthread_join(x->thread, NULL), 0);
    op_arena_deinit(&x->arena);
    assert_int_equal(sem_destroy(&x->listens), 0);
    assert_int_equal(sem_destroy(&x->stopped), 0);
    mem_free(x);
    return 0;
}

/* ---- mounts ---- */

/* What it has put and is about to refer to it commits before it answers; the rest goes. */
static void test_a_mount_that_commits_lets_the_rest_go(void **state)
{
    struct fixture *x = *state;
    struct mount m;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    put(x, &m, 1);
    put(x, &m, 2);
    gc_ask(x);
    await_flush(x, &m);
    assert_waits(x, &m);
    commit(x, &m, 2);
    flushed(x, &m, m.flush, 0);
    struct gone g = gc_over(x, &m);
    assert_int_equal(g.freed, 1);
    assert_int_equal(g.recent, 0);
    assert_false(is_there(x, &m, 1));
    assert_true(is_there(x, &m, 2));
    mount_end(&m);
}

/* An answer to something else is none. */
static void test_an_answer_of_another_number_is_none(void **state)
{
    struct fixture *x = *state;
    struct mount m;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    put(x, &m, 1);
    gc_ask(x);
    await_flush(x, &m);
    flushed(x, &m, m.flush - 1, 0);
    flushed(x, &m, m.flush + 1, FLUSHED_NOT);
    assert_waits(x, &m);
    flushed(x, &m, m.flush, 0);
    assert_int_equal(gc_over(x, &m).freed, 1);
    mount_end(&m);
}

/* It is asked again when its connection is back. */
static void test_a_mount_that_was_away_is_asked_again(void **state)
{
    struct fixture *x = *state;
    struct mount m;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    put(x, &m, 1);
    gc_ask(x);
    await_flush(x, &m);
    uint64_t number = m.flush;
    rpc_client_close(m.push);
    push_connect(x, &m, "here", HELLO_FLUSHES);
    await_flush(x, &m);
    assert_int_equal(m.flush, number);
    flushed(x, &m, m.flush, 0);
    assert_int_equal(gc_over(x, &m).freed, 1);
    mount_end(&m);
}

/* A mount of an older version is not asked, nor waited for: what is young stays, and it is said. */
static void test_a_mount_that_cannot_be_asked_is_named(void **state)
{
    struct fixture *x = *state;
    struct mount m, old;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    mount_begin(x, &old, "of old", 0);
    put(x, &old, 1);
    uint64_t before = ahead(x);
    gc_ask(x);
    struct gone g = gc_over(x, &old);
    assert_true(ahead(x) - before < MOUNTS_S / 4 * NS_PER_SEC);
    assert_int_equal(old.flush, 0);
    assert_int_equal(g.freed, 0);
    assert_int_equal(g.recent, 1);
    assert_string_equal(g.why, "the mount of old is of a version that cannot be asked");
    assert_true(is_there(x, &old, 1));
    commit(x, &old, 1);
    assert_true(is_there(x, &old, 1));
    mount_end(&m);
    mount_end(&old);
}

/* One that does not answer is waited for, but not for ever. */
static void test_a_mount_that_is_silent_is_named(void **state)
{
    struct fixture *x = *state;
    struct mount m, other;
    mount_begin(x, &m, "silent", HELLO_FLUSHES);
    mount_begin(x, &other, "here", HELLO_FLUSHES);
    put(x, &m, 1);
    gc_ask(x);
    await_flush(x, &m);
    await_flush(x, &other);
    flushed(x, &other, other.flush, 0);
    assert_waits(x, &m);
    later(x, MOUNTS_S * 1000);
    struct gone g = gc_over(x, &m);
    assert_int_equal(g.freed, 0);
    assert_int_equal(g.recent, 1);
    assert_string_equal(g.why, "the mount silent has not answered");
    commit(x, &m, 1);
    assert_true(is_there(x, &m, 1));
    flushed(x, &m, m.flush, 0); /* late: it answers what nobody asks any more */
    gc_ask(x);
    await_flush(x, &m);
    await_flush(x, &other);
    flushed(x, &other, other.flush, 0);
    assert_waits(x, &m);
    mount_end(&m);
    mount_end(&other);
}

/* One that cannot commit all it has says so, and nobody waits for it. */
static void test_a_mount_that_cannot_commit_is_named(void **state)
{
    struct fixture *x = *state;
    struct mount m;
    mount_begin(x, &m, "full", HELLO_FLUSHES);
    put(x, &m, 1);
    gc_ask(x);
    await_flush(x, &m);
    flushed(x, &m, m.flush, FLUSHED_NOT);
    struct gone g = gc_over(x, &m);
    assert_int_equal(g.freed, 0);
    assert_int_equal(g.recent, 1);
    assert_string_equal(g.why, "the mount full could not commit all it has");
    assert_true(is_there(x, &m, 1));
    mount_end(&m);
}

/* What a mount that came later has put is younger than what may go: it is not asked. */
static void test_a_mount_that_comes_later_is_not_waited_for(void **state)
{
    struct fixture *x = *state;
    struct mount m, late;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    put(x, &m, 1);
    gc_ask(x);
    await_flush(x, &m);
    mount_begin(x, &late, "late", 0);
    put(x, &late, 2);
    put(x, &late, 3);
    flushed(x, &m, m.flush, 0);
    struct gone g = gc_over(x, &m);
    assert_int_equal(g.freed, 1);
    assert_true(is_there(x, &late, 2));
    assert_true(is_there(x, &late, 3));
    mount_end(&m);
    mount_end(&late);
}

/* A mount that said goodbye has nothing left; one that only went may come back. */
static void test_a_mount_that_went_is_told_by_its_goodbye(void **state)
{
    struct fixture *x = *state;
    struct mount m, gone;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    for (unsigned says = 1; says <= 2; says++) {
        mount_begin(x, &gone, "gone", HELLO_FLUSHES);
        put(x, &gone, 1);
        if (says == 1)
            flushed(x, &gone, 0, 0);
        mount_end(&gone);
        later(x, 20 * 1000);
        gc_ask(x);
        if (says == 1) {
            await_flush(x, &m);
            flushed(x, &m, m.flush, 0);
        }
        struct gone g = gc_over(x, &m);
        assert_int_equal(g.freed, says == 1 ? 1 : 0);
        assert_int_equal(g.recent, says == 1 ? 0 : 1);
        assert_string_equal(g.why, says == 1 ? "" : "a mount went away without saying goodbye");
    }
    mount_end(&m);
}

/* A file of one chunk under the name that q asks for. */
static struct oid made(struct fixture *x, struct mount *m, const struct fs_request *q)
{
    put(x, m, 1);
    commit(x, m, 1);
    struct fs_reply r = call(x, m, m->work, RPC_LOOKUP, q, slice_of(NULL, 0));
    assert_int_equal(r.rc, 0);
    return r.attr.oid;
}

/* What is dead and open stays; nothing is to be had by waiting for it. */
static void test_nobody_waits_for_what_is_open(void **state)
{
    struct fixture *x = *state;
    struct mount m;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    const struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f")};
    const struct oid file = made(x, &m, &q);
    assert_int_equal(ask(x, &m, RPC_OPEN, (struct fs_request){.oid = file}), 0);
    assert_int_equal(ask(x, &m, RPC_UNLINK, q), 0);
    gc_ask(x);
    await_flush(x, &m);
    flushed(x, &m, m.flush, 0);
    uint64_t waited_ms = 0;
    json_t *result = NULL;
    for (unsigned i = 0; (result = gc_result(x)) == NULL; i++) {
        json_t *o = verb(x, "gc.status");
        const char *step = json_string_value(json_object_get(o, "step"));
        waited_ms += strcmp(step, "waiting for other sites") == 0 ? STEP_MS : 0;
        json_decref(o);
        assert_true(i < POLLS_MAX);
        later(x, STEP_MS);
        pushes_take(&m);
    }
    assert_true(waited_ms < 3000);
    assert_int_equal(json_integer_value(json_object_get(result, "freed_chunks")), 0);
    json_decref(result);
    assert_true(is_there(x, &m, 1));
    mount_end(&m);
}

/* A mount that lost its connection and not its session opens its files again, and closes them once.
 */
static void test_a_file_that_is_opened_again_is_open_once(void **state)
{
    struct fixture *x = *state;
    struct mount m;
    mount_begin(x, &m, "here", HELLO_FLUSHES);
    const struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f")};
    const struct oid file = made(x, &m, &q);
    const struct fs_request open = {.oid = file}, again = {.oid = open.oid, .flags = OPEN_AGAIN};
    assert_int_equal(ask(x, &m, RPC_OPEN, again), 0); /* it made the file, and holds it */
    assert_int_equal(ask(x, &m, RPC_UNLINK, q), 0);
    assert_int_equal(ask(x, &m, RPC_OPEN, again), 0);
    assert_int_equal(ask(x, &m, RPC_CLOSE, open), 0);
    assert_int_equal(ask(x, &m, RPC_OPEN, open), ERR_STALE);
    mount_end(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_mount_that_commits_lets_the_rest_go, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_answer_of_another_number_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_mount_that_was_away_is_asked_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_mount_that_cannot_be_asked_is_named, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_mount_that_is_silent_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_mount_that_cannot_commit_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_mount_that_comes_later_is_not_waited_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_mount_that_went_is_told_by_its_goodbye, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_nobody_waits_for_what_is_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_opened_again_is_open_once, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
