/* Chunks that go by memory in common, between a node with its loop and a client on its socket. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

#define CHUNK_BYTES 100000u

struct fixture {
    struct node_test t;
    pthread_t thread; /* has the node from its beginning to its end */
    sem_t listens, stopped;
    struct rpc_client *client;
    struct rpc_reply frame;
    struct op_arena arena;
    uint64_t session, next_id;
    uint32_t site_flags;
    uint8_t *share;
    size_t share_len;
    uint8_t chunk[CHUNK_BYTES];
};

static void sem_await(sem_t *s)
{
    while (sem_wait(s) != 0)
        ;
}

static void *node_thread(void *arg)
{
    struct fixture *x = arg;
    node_test_init(&x->t, 1);
    assert_int_equal(sem_post(&x->listens), 0);
    assert_int_equal(node_run(x->t.n), 0);
    sem_await(&x->stopped); /* node_stop may still be in there */
    node_test_deinit(&x->t);
    return NULL;
}

static struct fs_reply call(struct fixture *x, enum rpc_type type, struct fs_request req)
{
    struct buf body = {0};
    struct fs_reply r;
    req.session = x->session;
    req.has_chunk = type != RPC_HELLO;
    req.chunk[0] = 77;
    fs_request_encode(&req, &body);
    assert_int_equal(rpc_client_call(x->client, type, x->next_id++, 0, buf_slice(&body),
                                     slice_of(NULL, 0), 0, &x->frame),
                     0);
    op_arena_reset(&x->arena);
    assert_int_equal(fs_reply_decode(x->frame.frame.body, &x->arena, &r), 0);
    buf_deinit(&body);
    return r;
}

static int setup(void **state)
{
    struct fixture *x = mem_calloc(1, sizeof *x);
    struct rpc_auth auth = {.trusted_network = false};
    char path[128];
    assert_int_equal(sem_init(&x->listens, 0, 0), 0);
    assert_int_equal(sem_init(&x->stopped, 0, 0), 0);
    assert_int_equal(pthread_create(&x->thread, NULL, node_thread, x), 0);
    sem_await(&x->listens);
    snprintf(path, sizeof path, "%s/site.key", x->t.dir);
    FILE *key = fopen(path, "rb");
    assert_non_null(key);
    assert_int_equal(fread(auth.site_key, 1, sizeof auth.site_key, key), sizeof auth.site_key);
    assert_int_equal(fclose(key), 0);
    snprintf(path, sizeof path, "%s/sock", x->t.dir);
    struct rpc_target target = {.unix_path = path};
    assert_int_equal(rpc_client_connect(&x->client, &target, &auth, 0, NULL), 0);
    struct fs_reply r = call(x, RPC_HELLO, (struct fs_request){.flags = 0});
    assert_int_equal(r.rc, 0);
    x->session = r.session;
    x->site_flags = r.flags;
    for (size_t i = 0; i < CHUNK_BYTES; i++)
        x->chunk[i] = (uint8_t)(i * i + (i >> 8));
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    rpc_client_close(x->client);
    node_stop(x->t.n);
    assert_int_equal(sem_post(&x->stopped), 0);
    assert_int_equal(pthread_join(x->thread, NULL), 0);
    if (x->share != NULL)
        assert_int_equal(munmap(x->share, x->share_len), 0);
    buf_deinit(&x->frame.storage);
    op_arena_deinit(&x->arena);
    assert_int_equal(sem_destroy(&x->listens), 0);
    assert_int_equal(sem_destroy(&x->stopped), 0);
    mem_free(x);
    return 0;
}

static void ask(struct fixture *x)
{
    const struct fs_request req = {.session = x->session};
    struct buf body = {0};
    fs_request_encode(&req, &body);
    assert_int_equal(rpc_client_share(x->client, RPC_SHARE, x->next_id++, buf_slice(&body),
                                      &x->frame, &x->share, &x->share_len),
                     0);
    assert_non_null(x->share);
    buf_deinit(&body);
}

static int put_at(struct fixture *x, uint64_t at, uint32_t count)
{
    return call(x, RPC_CHUNK_PUT,
                (struct fs_request){.flags = CHUNK_SHARED, .size = at, .count = count})
        .rc;
}

/* What was put is what lay there when it was put, whichever way it is got. */
static void test_chunk_by_memory_in_common(void **state)
{
    struct fixture *x = *state;
    assert_true((x->site_flags & SITE_SHARES) != 0);
    ask(x);
    memcpy(x->share + 5000, x->chunk, CHUNK_BYTES);
    assert_int_equal(put_at(x, 5000, CHUNK_BYTES), 0);
    memset(x->share, 0xee, x->share_len);
    struct fs_reply r = call(x, RPC_CHUNK_GET, (struct fs_request){.flags = 0});
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.flags & REPLY_SHARED, 0);
    assert_int_equal(x->frame.frame.bulk.len, CHUNK_BYTES);
    assert_memory_equal(x->frame.frame.bulk.ptr, x->chunk, CHUNK_BYTES);
    r = call(x, RPC_CHUNK_GET, (struct fs_request){.flags = CHUNK_SHARED});
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.flags & REPLY_SHARED, REPLY_SHARED);
    assert_int_equal(x->frame.frame.bulk.len, 0);
    assert_int_equal(r.number2 & UINT32_MAX, CHUNK_BYTES);
    assert_true((r.number2 >> 32) + CHUNK_BYTES <= x->share_len);
    assert_memory_equal(x->share + (r.number2 >> 32), x->chunk, CHUNK_BYTES);
}

/* Places that are not within it, or when there is none, are refused; nothing else happens. */
static void test_place_outside_of_the_memory_is_refused(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(put_at(x, 0, CHUNK_BYTES), ERR_INVALID);
    ask(x);
    memcpy(x->share, x->chunk, CHUNK_BYTES);
    assert_int_equal(put_at(x, x->share_len - 10, 11), ERR_INVALID);
    assert_int_equal(put_at(x, x->share_len + 1, 1), ERR_INVALID);
    assert_int_equal(put_at(x, UINT64_MAX, 2), ERR_INVALID);
    assert_int_equal(put_at(x, 0, UINT32_MAX), ERR_INVALID);
    assert_int_equal(put_at(x, 0, 0), ERR_INVALID);
    struct fs_reply r = call(x, RPC_CHUNK_GET, (struct fs_request){.flags = CHUNK_SHARED});
    assert_int_not_equal(r.rc, 0);
    assert_int_equal(put_at(x, 0, CHUNK_BYTES), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chunk_by_memory_in_common, setup, teardown),
        cmocka_unit_test_setup_teardown(test_place_outside_of_the_memory_is_refused, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
