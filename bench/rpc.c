/* Calls per second on one connection, and bytes per second of bulk, in turn with what the machine
 * allows: a bare ping-pong between two threads over a socketpair, and a bare stream over one.
 *
 *     bench_rpc [CALLS]                   of a round; there are ten */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "bench/common.h"
#include "site/rpc.h"

enum {
    MESSAGE_BYTES = 128,
    ROUNDS = 10,
    CALLS_PER_BULK = 600, /* so that both take about as long */
    BULK_BYTES = LIMIT_CHUNK_BYTES,
    REQUEST_ECHO = 1,
    REQUEST_SINK = 2
};
static const struct slice none;
static uint64_t calls = 20000;
static uint64_t bulk_calls;

/* --- the limits --- */

static void *pong_thread(void *arg)
{
    int fd = *(const int *)arg;
    uint8_t bytes[MESSAGE_BYTES];
    while (recv(fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes)
        if (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) < 0)
            break;
    return NULL;
}

static double ping_pong_rate(void)
{
    int fds[2];
    pthread_t thread;
    uint8_t bytes[MESSAGE_BYTES] = {0};
    int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
    ASSERT(rc == 0);
    rc = pthread_create(&thread, NULL, pong_thread, &fds[1]);
    ASSERT(rc == 0);
    uint64_t start_ns = bench_ns();
    for (uint64_t i = 0; i < calls; i++) {
        ssize_t len = send(fds[0], bytes, sizeof bytes, 0);
        ASSERT(len == (ssize_t)sizeof bytes);
        len = recv(fds[0], bytes, sizeof bytes, 0);
        ASSERT(len == (ssize_t)sizeof bytes);
    }
    double rate = (double)calls / seconds_since(start_ns);
    (void)shutdown(fds[0], SHUT_RDWR);
    (void)pthread_join(thread, NULL);
    (void)close(fds[0]);
    (void)close(fds[1]);
    return rate;
}

static void *drain_thread(void *arg)
{
    int fd = *(const int *)arg;
    uint8_t *bytes = mem_alloc(BULK_BYTES);
    for (uint64_t i = 0; i < bulk_calls; i++) {
        ssize_t len = recv(fd, bytes, BULK_BYTES, MSG_WAITALL);
        ASSERT(len == BULK_BYTES);
        len = send(fd, bytes, 1, 0);
        ASSERT(len == 1);
    }
    mem_free(bytes);
    return NULL;
}

static double stream_rate(void)
{
    int fds[2];
    pthread_t thread;
    uint8_t *bytes = mem_calloc(1, BULK_BYTES);
    int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
    ASSERT(rc == 0);
    rc = pthread_create(&thread, NULL, drain_thread, &fds[1]);
    ASSERT(rc == 0);
    uint64_t start_ns = bench_ns();
    for (uint64_t i = 0; i < bulk_calls; i++) {
        ssize_t len = send(fds[0], bytes, BULK_BYTES, 0);
        ASSERT(len == BULK_BYTES);
        len = recv(fds[0], bytes, 1, 0);
        ASSERT(len == 1);
    }
    double rate = (double)bulk_calls * BULK_BYTES / seconds_since(start_ns);
    (void)pthread_join(thread, NULL);
    (void)close(fds[0]);
    (void)close(fds[1]);
    mem_free(bytes);
    return rate;
}

/* --- the server --- */

struct bench {
    struct loop *loop;
    struct rpc_server *server;
    struct loop_msg stop;
};

static void on_opened(void *ctx, struct rpc_conn *c)
{
    (void)ctx;
    (void)c;
}

static void on_closed(void *ctx, struct rpc_conn *c, int rc)
{
    (void)ctx;
    (void)c;
    (void)rc;
}

static uint64_t on_hlc(void *ctx)
{
    (void)ctx;
    return 1;
}

static void on_hlc_seen(void *ctx, uint64_t hlc)
{
    (void)ctx;
    (void)hlc;
}

static void on_request(void *ctx, struct rpc_conn *c, const struct rpc_frame *f)
{
    (void)ctx;
    (void)rpc_reply(c, f->type, f->id, f->body, f->type == REQUEST_ECHO ? f->bulk : none);
}

static void on_stopped(void *ctx)
{
    struct bench *b = ctx;
    loop_stop(b->loop);
}

static void stop_run(struct loop_msg *msg)
{
    struct bench *b = CONTAINER_OF(msg, struct bench, stop);
    rpc_server_stop(b->server, on_stopped, b);
}

static void *loop_thread(void *arg)
{
    struct bench *b = arg;
    loop_run(b->loop);
    return NULL;
}

/* --- the calls --- */

static double call_rate(const struct rpc_target *t, const struct rpc_auth *auth)
{
    struct rpc_client *c;
    struct rpc_reply reply = {0};
    uint8_t body[MESSAGE_BYTES - RPC_HEADER_BYTES] = {0};
    int rc = rpc_client_connect(&c, t, auth, 10000, NULL);
    ASSERT(rc == 0);
    uint64_t start_ns = bench_ns();
    for (uint64_t i = 0; i < calls; i++) {
        rc = rpc_client_call(c, REQUEST_ECHO, i, 1, slice_of(body, sizeof body), none, 10000,
                             &reply);
        ASSERT(rc == 0);
    }
    double rate = (double)calls / seconds_since(start_ns);
    buf_deinit(&reply.storage);
    rpc_client_close(c);
    return rate;
}

static double bulk_rate(const struct rpc_target *t, const struct rpc_auth *auth)
{
    struct rpc_client *c;
    struct rpc_reply reply = {0};
    uint8_t *bulk = mem_calloc(1, BULK_BYTES);
    int rc = rpc_client_connect(&c, t, auth, 10000, NULL);
    ASSERT(rc == 0);
    uint64_t start_ns = bench_ns();
    for (uint64_t i = 0; i < bulk_calls; i++) {
        rc =
            rpc_client_call(c, REQUEST_SINK, i, 1, none, slice_of(bulk, BULK_BYTES), 10000, &reply);
        ASSERT(rc == 0);
    }
    double rate = (double)bulk_calls * BULK_BYTES / seconds_since(start_ns);
    buf_deinit(&reply.storage);
    mem_free(bulk);
    rpc_client_close(c);
    return rate;
}

static void measure(const struct rpc_target *unix_target,
                    const struct rpc_target *tcp_target,
                    const struct rpc_auth *auth)
{
    struct samples one[3] = {{.count = 0}}, bulk[3] = {{.count = 0}};
    for (unsigned round = 0; round < ROUNDS; round++) {
        samples_add(&one[0], ping_pong_rate());
        samples_add(&one[1], call_rate(unix_target, auth));
        samples_add(&one[2], call_rate(tcp_target, auth));
        samples_add(&bulk[0], stream_rate());
        samples_add(&bulk[1], bulk_rate(unix_target, auth));
        samples_add(&bulk[2], bulk_rate(tcp_target, auth));
    }
    figure_print("rpc_unix_calls", "1/s", MORE_IS_BETTER, &one[1], &one[0]);
    figure_print("rpc_tcp_sealed_calls", "1/s", MORE_IS_BETTER, &one[2], &one[0]);
    figure_print("rpc_unix_bulk", "B/s", MORE_IS_BETTER, &bulk[1], &bulk[0]);
    figure_print("rpc_tcp_sealed_bulk", "B/s", MORE_IS_BETTER, &bulk[2], &bulk[0]);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        calls = number_of(argv[1]);
    bulk_calls = calls / CALLS_PER_BULK + 1;
    struct bench b = {.stop = {.run = stop_run}};
    struct rpc_auth auth = {.site_key = {1}};
    const struct rpc_server_events events = {.opened = on_opened,
                                             .request = on_request,
                                             .closed = on_closed,
                                             .hlc = on_hlc,
                                             .hlc_seen = on_hlc_seen,
                                             .ctx = &b};
    char dir[] = "/tmp/cfs-bench-XXXXXX";
    uint16_t port = 0;
    struct err_detail d = {0};
    pthread_t thread;
    log_level_set(LOG_SITE, LOG_ERROR);
    if (mkdtemp(dir) == NULL || loop_new(&b.loop, 256, &clock_os, &d) != 0) {
        (void)fprintf(stderr, "cannot start: %s\n", d.text);
        return 1;
    }
    char *path = mem_printf("%s/s", dir);
    int rc = rpc_server_new(&b.server, b.loop, &auth, &events);
    ASSERT(rc == 0);
    rc = rpc_server_listen_unix(b.server, path, &d);
    ASSERT(rc == 0);
    rc = rpc_server_listen_tcp(b.server, "127.0.0.1", 0, &port, &d);
    ASSERT(rc == 0);
    rc = pthread_create(&thread, NULL, loop_thread, &b);
    ASSERT(rc == 0);

    const struct rpc_target unix_target = {.unix_path = path};
    const struct rpc_target tcp_target = {.host = "127.0.0.1", .port = port};
    measure(&unix_target, &tcp_target, &auth);
    loop_post(b.loop, &b.stop);
    (void)pthread_join(thread, NULL);
    rpc_server_free(b.server);
    loop_free(b.loop);
    (void)rmdir(dir);
    mem_free(path);
    return 0;
}
