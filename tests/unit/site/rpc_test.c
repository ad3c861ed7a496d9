/* See rpc_test.h. */
#include "tests/unit/site/rpc_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "site/rpc_server_int.h"

/* --- the server's side; loop thread --- */

static void on_opened(void *ctx, struct rpc_conn *c)
{
    struct rig *r = ctx;
    rpc_conn_set_user(c, r);
    atomic_fetch_add(&r->opened, 1);
}

static void on_closed(void *ctx, struct rpc_conn *c, int rc)
{
    struct rig *r = ctx;
    assert_ptr_equal(rpc_conn_user(c), r);
    assert_false(rpc_conn_is_open(c));
    atomic_store(&r->closed_rc, rc);
    atomic_fetch_add(&r->closed, 1);
}

static uint64_t on_hlc(void *ctx)
{
    (void)ctx;
    return TEST_HLC;
}

static void on_hlc_seen(void *ctx, uint64_t hlc)
{
    struct rig *r = ctx;
    atomic_store(&r->hlc_seen, hlc);
}

static void hold(struct rig *r, struct rpc_conn *c, const struct rpc_frame *f)
{
    struct held *h = mem_calloc(1, sizeof *h);
    rpc_conn_ref(c);
    h->conn = c;
    rpc_request_take(c, f, &h->storage, &h->frame);
    h->next = r->held;
    r->held = h;
    r->held_count++;
    r->held_max = MAX(r->held_max, r->held_count);
    assert_int_equal(sem_post(&r->holding), 0);
}

static void flip(const struct rpc_conn *c)
{
    size_t len;
    uint8_t *share = rpc_share(c, &len);
    for (size_t i = 0; i < len; i++)
        share[i] ^= 0xff;
}

static void release_all(struct rig *r)
{
    while (r->held != NULL) {
        struct held *h = r->held;
        r->held = h->next;
        r->held_count--;
        flip(h->conn); /* there even if the client is not */
        int rc = rpc_reply(h->conn, h->frame.type, h->frame.id, h->frame.body, h->frame.bulk);
        atomic_store(&r->late_reply_rc, rc);
        rpc_conn_unref(h->conn);
        buf_deinit(&h->storage);
        mem_free(h);
    }
}

static void release_deferred(struct loop_defer *d)
{
    release_all(CONTAINER_OF(d, struct rig, release));
}

static uint32_t number_of(struct slice body)
{
    uint32_t v = 0;
    assert_int_equal(body.len, sizeof v);
    memcpy(&v, body.ptr, sizeof v);
    return v;
}

static void reply_bulk(struct rpc_conn *c, const struct rpc_frame *f)
{
    uint32_t len = number_of(f->body);
    struct buf storage = {0};
    uint8_t *pattern = rig_pattern(len, (uint8_t)f->id);
    buf_append(&storage, "skip", 4);
    buf_append(&storage, pattern, len);
    mem_free(pattern);
    struct slice bulk = slice_of(storage.ptr + 4, len);
    (void)rpc_reply_move(c, f->type, f->id, slice_of(NULL, 0), &storage, bulk);
    assert_null(storage.ptr);
}

static void reply_share(struct rpc_conn *c, const struct rpc_frame *f)
{
    int rc = rpc_share_make(c, number_of(f->body));
    if (rc == 0)
        rpc_share_reply(c, f->type, f->id, f->body);
    else
        (void)rpc_reply(c, f->type, f->id, slice_of(&rc, sizeof rc), slice_of(NULL, 0));
}

static void on_request(void *ctx, struct rpc_conn *c, const struct rpc_frame *f)
{
    struct rig *r = ctx;
    const struct slice none = {0};
    atomic_fetch_add(&r->requests, 1);
    r->unsent_max = MAX(r->unsent_max, c->tx_bytes);
    switch (f->type) {
    case TEST_ECHO:
        (void)rpc_reply(c, f->type, f->id, f->body, f->bulk);
        break;
    case TEST_BULK:
        reply_bulk(c, f);
        break;
    case TEST_HOLD:
        hold(r, c, f);
        break;
    case TEST_RELEASE:
        release_all(r);
        (void)rpc_reply(c, f->type, f->id, none, none);
        break;
    case TEST_BATCH:
        hold(r, c, f);
        if (f->id == 0 || r->held_count == RPC_OUTSTANDING_MAX)
            loop_defer(r->loop, &r->release);
        break;
    case TEST_PUSH: {
        uint32_t count = number_of(f->body);
        for (uint32_t i = 0; i < count; i++)
            (void)rpc_push(c, f->type, i, slice_of(&i, sizeof i));
        (void)rpc_reply(c, f->type, f->id, none, none);
        break;
    }
    case TEST_CLOSE:
        (void)rpc_reply(c, f->type, f->id, f->body, f->bulk);
        rpc_conn_close(c);
        assert_int_equal(rpc_reply(c, f->type, f->id, none, none), ERR_CLOSED);
        break;
    case TEST_SHARE:
        reply_share(c, f);
        break;
    case TEST_FLIP:
        flip(c);
        (void)rpc_reply(c, f->type, f->id, none, none);
        break;
    default:
        break;
    }
}

static void on_stopped(void *ctx)
{
    struct rig *r = ctx;
    if (++r->stopped_count == 2)
        loop_stop(r->loop);
}

static void stop_run(struct loop_msg *msg)
{
    struct rig *r = CONTAINER_OF(msg, struct rig, stop_msg);
    rpc_server_stop(r->server, on_stopped, r);
    rpc_server_stop(r->server_trusted, on_stopped, r);
}

static void *rig_thread(void *arg)
{
    struct rig *r = arg;
    loop_run(r->loop);
    return NULL;
}

/* --- the rig --- */

void rig_start(struct rig *r, uint32_t patience_ms)
{
    memset(r, 0, sizeof *r);
    log_level_set(LOG_SITE, LOG_ERROR);
    (void)snprintf(r->dir, sizeof r->dir, "/tmp/cfs-rpc-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    (void)snprintf(r->path, sizeof r->path, "%s/s", r->dir);
    memset(r->auth.site_key, 7, sizeof r->auth.site_key);
    r->auth_trusted = r->auth;
    r->auth_trusted.trusted_network = true;
    assert_int_equal(sem_init(&r->holding, 0, 0), 0);
    r->release.run = release_deferred;
    r->stop_msg.run = stop_run;
    const struct rpc_server_events events = {.opened = on_opened,
                                             .request = on_request,
                                             .closed = on_closed,
                                             .hlc = on_hlc,
                                             .hlc_seen = on_hlc_seen,
                                             .ctx = r};
    struct err_detail d = {0};
    assert_int_equal(loop_new(&r->loop, 256, &clock_os, &d), 0);
    assert_int_equal(rpc_server_new(&r->server, r->loop, &r->auth, &events), 0);
    assert_int_equal(rpc_server_new(&r->server_trusted, r->loop, &r->auth_trusted, &events), 0);
    if (patience_ms > 0)
        rpc_server_set_patience_ms(r->server, patience_ms);
    assert_int_equal(rpc_server_listen_unix(r->server, r->path, &d), 0);
    assert_int_equal(rpc_server_listen_tcp(r->server, "127.0.0.1", 0, &r->port, &d), 0);
    assert_int_equal(rpc_server_listen_tcp(r->server_trusted, "127.0.0.1", 0, &r->port_trusted, &d),
                     0);
    assert_int_equal(pthread_create(&r->thread, NULL, rig_thread, r), 0);
}

void rig_stop(struct rig *r)
{
    loop_post(r->loop, &r->stop_msg);
    assert_int_equal(pthread_join(r->thread, NULL), 0);
    assert_int_equal(r->stopped_count, 2);
    rpc_server_free(r->server);
    rpc_server_free(r->server_trusted);
    release_all(r); /* requests in flight outlive the server */
    loop_free(r->loop);
    assert_int_equal(atomic_load(&r->opened), atomic_load(&r->closed));
    assert_int_equal(access(r->path, F_OK), -1);
    assert_int_equal(rmdir(r->dir), 0);
}

struct rpc_target rig_unix(const struct rig *r)
{
    return (struct rpc_target){.unix_path = r->path};
}

struct rpc_target rig_tcp(const struct rig *r)
{
    return (struct rpc_target){.host = "127.0.0.1", .port = r->port};
}

struct rpc_target rig_tcp_trusted(const struct rig *r)
{
    return (struct rpc_target){.host = "127.0.0.1", .port = r->port_trusted};
}

struct rpc_client *rig_connect(const struct rpc_target *t, const struct rpc_auth *auth)
{
    struct rpc_client *c = NULL;
    struct err_detail d = {0};
    int rc = rpc_client_connect(&c, t, auth, 0, &d);
    if (rc != 0)
        print_message("%s\n", d.text);
    assert_int_equal(rc, 0);
    return c;
}

void rig_echo(struct rpc_client *c, uint64_t id, struct slice body, struct slice bulk)
{
    struct rpc_reply reply = {0};
    assert_int_equal(rpc_client_call(c, TEST_ECHO, id, 99, body, bulk, 0, &reply), 0);
    assert_int_equal(reply.frame.id, id);
    assert_int_equal(reply.frame.type, TEST_ECHO);
    assert_int_equal(reply.frame.flags, RPC_FLAG_REPLY);
    assert_int_equal(reply.frame.hlc, TEST_HLC);
    assert_true(slice_equal(reply.frame.body, body));
    assert_true(slice_equal(reply.frame.bulk, bulk));
    buf_deinit(&reply.storage);
}

int rig_call_number(struct rpc_client *c,
                    uint16_t type,
                    uint64_t id,
                    uint32_t number,
                    uint32_t timeout_ms,
                    struct rpc_reply *reply)
{
    return rpc_client_call(c, type, id, 0, slice_of(&number, sizeof number), slice_of(NULL, 0),
                           timeout_ms, reply);
}

uint8_t *rig_pattern(size_t len, uint8_t seed)
{
    uint8_t *p = mem_alloc(len);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i ^ i >> 8 ^ i >> 16 ^ seed);
    return p;
}

void rig_wait_held(struct rig *r, uint32_t count)
{
    while (count > 0)
        if (sem_wait(&r->holding) == 0)
            count--;
}

int64_t rig_refused(void)
{
    return metric_get(&rpc_metrics[RPC_METRIC_REFUSED]);
}

/* --- the raw peer --- */

int raw_connect(const struct rpc_target *t)
{
    int fd;
    if (t->unix_path != NULL) {
        struct sockaddr_un addr;
        int dir_fd;
        assert_int_equal(rpc_unix_address(t->unix_path, &addr, &dir_fd), 0);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    } else {
        struct sockaddr_in addr = {.sin_family = AF_INET,
                                   .sin_port = htons(t->port),
                                   .sin_addr = {htonl(INADDR_LOOPBACK)}};
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    }
    return fd;
}

void raw_write(int fd, const void *ptr, size_t len)
{
    const uint8_t *at = ptr;
    while (len > 0) {
        ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);
        if (sent < 0)
            return;
        at += sent;
        len -= (size_t)sent;
    }
}

void raw_read(int fd, void *ptr, size_t len)
{
    assert_int_equal(recv(fd, ptr, len, MSG_WAITALL), len);
}

void raw_expect_end(int fd)
{
    uint8_t bytes[4096];
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof bytes, 0)) > 0)
        ;
    assert_true(got == 0 || errno == ECONNRESET);
    (void)close(fd);
}

void raw_open(struct raw *raw, const struct rpc_target *t, const struct rpc_auth *auth)
{
    struct rpc_handshake h;
    struct rpc_keys keys;
    uint8_t random[RPC_HELLO_RANDOM_BYTES], answer[RPC_HELLO_BYTES + RPC_PROVE_BYTES];
    memset(raw, 0, sizeof *raw);
    raw->fd = raw_connect(t);
    random_bytes(random, sizeof random);
    rpc_handshake_init(&h, RPC_CLIENT, t->unix_path != NULL || auth->trusted_network, random);
    memcpy(raw->hello, h.hello, sizeof raw->hello);
    raw_write(raw->fd, h.hello, sizeof h.hello);
    raw_read(raw->fd, answer, sizeof answer);
    assert_int_equal(rpc_handshake_finish(&h, answer, auth->site_key, &keys), 0);
    rpc_seal_start(&raw->seal, &keys, raw->prove);
    assert_int_equal(rpc_seal_check(&raw->seal, &keys, answer + RPC_HELLO_BYTES), 0);
    raw_write(raw->fd, raw->prove, sizeof raw->prove);
}
