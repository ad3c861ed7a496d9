/* site/rpc.h between honest ends: calls, pushes, bulk, limits, closing; over each transport. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "site/rpc_server_int.h"
#include "tests/unit/site/rpc_test.h"

static const struct slice none;

static void test_header_round_trip_and_bounds(void **state)
{
    (void)state;
    uint8_t bytes[RPC_HEADER_BYTES];
    static const uint8_t golden[RPC_HEADER_BYTES] = {'C', 'F', 'R', '1', 2, 1, 1, 0, 8, 7, 6,
                                                     5,   4,   3,   2,   1, 3, 0, 0, 0, 4, 0,
                                                     0,   0,   9,   0,   0, 0, 0, 0, 0, 1};
    struct rpc_frame in = {.type = 0x102,
                           .flags = RPC_FLAG_REPLY,
                           .id = 0x0102030405060708,
                           .hlc = 1ull << 56 | 9,
                           .body = slice_str("abc"),
                           .bulk = slice_str("defg")};
    struct rpc_frame out;
    uint32_t body_len, bulk_len;
    rpc_header_encode(&in, bytes);
    assert_memory_equal(bytes, golden, sizeof golden);
    assert_int_equal(rpc_header_decode(bytes, &out, &body_len, &bulk_len), 0);
    assert_int_equal(out.type, in.type);
    assert_int_equal(out.id, in.id);
    assert_int_equal(out.hlc, in.hlc);
    assert_true(body_len == 3 && bulk_len == 4);

    bytes[0] ^= 1;
    assert_int_equal(rpc_header_decode(bytes, &out, &body_len, &bulk_len), ERR_MALFORMED);
    bytes[0] ^= 1;
    bytes[7] = 1; /* an unknown flag */
    assert_int_equal(rpc_header_decode(bytes, &out, &body_len, &bulk_len), ERR_MALFORMED);
    bytes[7] = 0;
    memset(bytes + 16, 0xff, 8); /* the sum would wrap in 32 bits */
    assert_int_equal(rpc_header_decode(bytes, &out, &body_len, &bulk_len), ERR_TOO_BIG);
}

static void echo_sizes(const struct rpc_target *t, const struct rpc_auth *auth)
{
    static const size_t sizes[] = {0,    1,     100,   RPC_RX_BYTES - RPC_HEADER_BYTES,
                                   8192, 16384, 65536, 1 << 20};
    struct rpc_client *c = rig_connect(t, auth);
    uint8_t *bytes = rig_pattern(1 << 20, 1);
    uint64_t id = 1;
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
        for (size_t j = 0; j < ARRAY_COUNT(sizes); j++)
            rig_echo(c, id++, slice_of(bytes, sizes[i]), slice_of(bytes, sizes[j]));
    mem_free(bytes);
    rpc_client_close(c);
}

static void test_call_over_each_transport(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_target at_unix = rig_unix(&r), at_tcp = rig_tcp(&r);
    struct rpc_target at_trusted = rig_tcp_trusted(&r);
    echo_sizes(&at_unix, &r.auth);
    echo_sizes(&at_tcp, &r.auth);
    echo_sizes(&at_trusted, &r.auth_trusted);
    assert_int_equal(atomic_load(&r.hlc_seen), 99);
    rig_stop(&r);
}

/* One end that does not trust the network is enough for the frames to be sealed. */
static void test_sealed_unless_both_trust(void **state)
{
    (void)state;
    struct rig r;
    struct raw raw;
    rig_start(&r, 0);
    struct rpc_target at_unix = rig_unix(&r), at_tcp = rig_tcp(&r);
    struct rpc_target at_trusted = rig_tcp_trusted(&r);
    const struct {
        const struct rpc_target *target;
        const struct rpc_auth *auth;
        bool sealed;
    } cases[] = {
        {&at_tcp, &r.auth, true},     {&at_tcp, &r.auth_trusted, true},
        {&at_trusted, &r.auth, true}, {&at_trusted, &r.auth_trusted, false},
        {&at_unix, &r.auth, false},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct rpc_client *c = rig_connect(cases[i].target, cases[i].auth);
        rig_echo(c, i, slice_str("body"), slice_str("bulk"));
        rpc_client_close(c);
        raw_open(&raw, cases[i].target, cases[i].auth);
        assert_int_equal(raw.seal.on, cases[i].sealed);
        (void)close(raw.fd);
    }
    rig_stop(&r);
}

static void bulk_limits(const struct rpc_target *t, const struct rpc_auth *auth)
{
    struct rpc_client *c = rig_connect(t, auth);
    uint8_t *bytes = rig_pattern(LIMIT_FRAME_BYTES + 1, 3);
    struct rpc_reply reply = {0};
    rig_echo(c, 1, slice_of(bytes, 7), slice_of(bytes, LIMIT_FRAME_BYTES - 7));
    assert_int_equal(rpc_client_call(c, TEST_ECHO, 2, 0, none,
                                     slice_of(bytes, LIMIT_FRAME_BYTES + 1), 0, &reply),
                     ERR_TOO_BIG);
    assert_int_equal(rpc_client_call(c, TEST_ECHO, 2, 0, slice_of(bytes, LIMIT_FRAME_BYTES),
                                     slice_of(bytes, 1), 0, &reply),
                     ERR_TOO_BIG);
    /* Nothing was sent: the connection still works. */
    for (uint8_t i = 3; i < 9; i++) {
        uint32_t len = LIMIT_FRAME_BYTES >> (2 * (i - 3));
        assert_int_equal(rig_call_number(c, TEST_BULK, i, len, 0, &reply), 0);
        uint8_t *expected = rig_pattern(len, i);
        assert_true(slice_equal(reply.frame.bulk, slice_of(expected, len)));
        mem_free(expected);
    }
    buf_deinit(&reply.storage);
    mem_free(bytes);
    rpc_client_close(c);
}

static void test_bulk_up_to_the_limit(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_target at_unix = rig_unix(&r), at_tcp = rig_tcp(&r);
    bulk_limits(&at_unix, &r.auth);
    bulk_limits(&at_tcp, &r.auth);
    rig_stop(&r);
}

/* --- listening --- */

static void test_listen_unix_file(void **state)
{
    (void)state;
    struct rig r;
    struct stat st;
    struct err_detail d = {0};
    char path[200];
    rig_start(&r, 0);
    assert_int_equal(stat(r.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);

    const struct rpc_server_events *events = &r.server->events;
    struct loop *loop;
    struct rpc_server *other;
    assert_int_equal(loop_new(&loop, 8, &clock_os, &d), 0);
    assert_int_equal(rpc_server_new(&other, loop, &r.auth, events), 0);
    assert_int_equal(rpc_server_listen_unix(other, r.path, &d), ERR_BUSY);
    (void)snprintf(path, sizeof path, "%s/none/s", r.dir);
    assert_int_equal(rpc_server_listen_unix(other, path, &d), ERR_NOT_FOUND);
    (void)snprintf(path, sizeof path, "%s/file", r.dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
    assert_int_equal(rpc_server_listen_unix(other, path, &d), ERR_EXISTS);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rpc_server_listen_tcp(other, "127.0.0.1", r.port, NULL, &d),
                     err_from_errno(EADDRINUSE));
    assert_true(d.text[0] != '\0');
    rpc_server_free(other);
    loop_free(loop);
    rig_stop(&r);
}

/* What a server that died left behind does not keep the next one from starting. */
static void test_listen_unix_replaces_stale_socket(void **state)
{
    (void)state;
    struct rig r;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char path[64] = "/tmp/cfs-rpc-XXXXXX";
    assert_non_null(mkdtemp(path));
    (void)snprintf(addr.sun_path, sizeof addr.sun_path, "%s/s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    (void)close(fd);
    rig_start(&r, 0);
    struct err_detail d = {0};
    struct loop *loop;
    struct rpc_server *s;
    assert_int_equal(loop_new(&loop, 8, &clock_os, &d), 0);
    assert_int_equal(rpc_server_new(&s, loop, &r.auth, &r.server->events), 0);
    assert_int_equal(rpc_server_listen_unix(s, addr.sun_path, &d), 0);
    s->listeners->armed = false; /* the loop never ran, so the kernel never saw the accept */
    rpc_server_free(s);
    loop_free(loop);
    rig_stop(&r);
    assert_int_equal(rmdir(path), 0);
}

/* A path longer than sun_path. */
static void test_listen_unix_long_path(void **state)
{
    (void)state;
    struct rig r;
    char dir[64] = "/tmp/cfs-rpc-XXXXXX", deep[400], path[420];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(deep, sizeof deep, "%s/%0*d", dir, 200, 0);
    assert_int_equal(mkdir(deep, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/socket", deep);
    rig_start(&r, 0);
    struct sockaddr_un addr;
    int dir_fd = -1;
    assert_int_equal(rpc_unix_address(path, &addr, &dir_fd), 0);
    assert_true(dir_fd >= 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    (void)close(dir_fd);
    (void)close(fd);
    /* Nobody listens on it: reached, but refused. */
    struct rpc_client *c;
    struct err_detail d = {0};
    const struct rpc_target target = {.unix_path = path};
    assert_int_equal(rpc_client_connect(&c, &target, &r.auth, 0, &d), ERR_UNREACHABLE);
    assert_non_null(strstr(d.text, "refused"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(deep), 0);
    assert_int_equal(rmdir(dir), 0);
    rig_stop(&r);
}

/* --- pushes --- */

static void test_push_in_order_and_kept_during_calls(void **state)
{
    (void)state;
    struct rig r;
    struct rpc_reply reply = {0};
    rig_start(&r, 0);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r)};
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++) {
        struct rpc_client *c = rig_connect(&targets[i], &r.auth);
        assert_int_equal(rig_call_number(c, TEST_PUSH, 1, 200, 0, &reply), 0);
        rig_echo(c, 2, slice_str("between"), none);
        for (uint64_t id = 0; id < 200; id++) {
            assert_int_equal(rpc_client_recv(c, 0, &reply), 0);
            assert_int_equal(reply.frame.flags, RPC_FLAG_PUSH);
            assert_int_equal(reply.frame.id, id);
            assert_int_equal(reply.frame.body.len, 4);
        }
        assert_int_equal(rpc_client_recv(c, 1, &reply), ERR_TIMEOUT);
        rig_echo(c, 3, slice_str("still usable"), none);
        rpc_client_close(c);
    }
    buf_deinit(&reply.storage);
    rig_stop(&r);
}

static void test_send_without_reply(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    struct rpc_client *c = rig_connect(&t, &r.auth);
    for (uint64_t id = 0; id < 1000; id++)
        assert_int_equal(rpc_client_send(c, TEST_SILENT, id, 0, slice_str("x")), 0);
    /* A reply nobody waits for is passed over. */
    assert_int_equal(rpc_client_send(c, TEST_ECHO, 1000, 0, slice_str("x")), 0);
    rig_echo(c, 1001, slice_str("after"), none);
    assert_int_equal(atomic_load(&r.requests), 1002);
    rpc_client_close(c);
    rig_stop(&r);
}

/* --- back-pressure --- */

static void raw_request(struct raw *raw, uint16_t type, uint64_t id, struct slice body)
{
    struct rpc_frame f = {.type = type, .id = id, .body = body};
    struct buf out = {0}, scratch = {0};
    rpc_unit_append(&raw->seal, &f, &scratch, &out);
    raw_write(raw->fd, out.ptr, out.len);
    buf_deinit(&out);
    buf_deinit(&scratch);
}

/* More requests at once than may be outstanding: all are answered, never too many at a time. */
static void test_requests_outstanding_are_bounded(void **state)
{
    (void)state;
    enum {
        COUNT = 5 * RPC_OUTSTANDING_MAX + 3
    };
    struct rig r;
    struct raw raw;
    struct buf all = {0}, scratch = {0};
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    raw_open(&raw, &t, &r.auth);
    for (uint64_t id = COUNT; id > 0; id--) {
        struct rpc_frame f = {.type = TEST_BATCH, .id = id - 1};
        rpc_unit_append(&raw.seal, &f, &scratch, &all);
    }
    raw_write(raw.fd, all.ptr, all.len);
    for (int i = 0; i < COUNT; i++) {
        uint8_t header[RPC_HEADER_BYTES];
        raw_read(raw.fd, header, sizeof header);
    }
    (void)close(raw.fd);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.requests), COUNT);
    assert_int_equal(r.held_max, RPC_OUTSTANDING_MAX);
    buf_deinit(&all);
}

struct reader {
    int fd;
    size_t bytes;
};

static void *reader_thread(void *arg)
{
    struct reader *reader = arg;
    uint8_t *bytes = mem_alloc(1 << 20);
    while (reader->bytes > 0) {
        ssize_t got = recv(reader->fd, bytes, MIN(reader->bytes, (size_t)1 << 20), 0);
        if (got <= 0)
            break;
        reader->bytes -= (size_t)got;
    }
    mem_free(bytes);
    return NULL;
}

/* A peer that asks for much and reads late does not make the server grow. */
static void test_unsent_replies_are_bounded(void **state)
{
    (void)state;
    enum {
        COUNT = 60
    };
    const uint32_t len = 1 << 20;
    struct rig r;
    struct raw raw;
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    raw_open(&raw, &t, &r.auth);
    for (uint64_t id = 0; id < COUNT; id++)
        raw_request(&raw, TEST_BULK, id, slice_of(&len, sizeof len));
    struct reader reader = {.fd = raw.fd, .bytes = (size_t)COUNT * (RPC_HEADER_BYTES + len)};
    (void)reader_thread(&reader);
    assert_int_equal(reader.bytes, 0);
    (void)close(raw.fd);
    rig_stop(&r);
    assert_true(r.unsent_max > 0 && r.unsent_max < RPC_TX_HIGH_BYTES);
}

/* Large requests count until they are replied to, and all of them are served in the end. */
static void test_large_requests_are_bounded(void **state)
{
    (void)state;
    enum {
        COUNT = 3 * RPC_HEAVY_MAX
    };
    struct rig r;
    struct raw raw;
    pthread_t thread;
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    raw_open(&raw, &t, &r.auth);
    uint8_t *bytes = rig_pattern(1 << 20, 1);
    struct reader reader = {.fd = raw.fd, .bytes = (size_t)COUNT * (RPC_HEADER_BYTES + (1 << 20))};
    assert_int_equal(pthread_create(&thread, NULL, reader_thread, &reader), 0);
    struct rpc_client *other = rig_connect(&t, &r.auth);
    struct rpc_reply reply = {0};
    for (uint64_t id = 0; id < COUNT; id++) {
        raw_request(&raw, TEST_HOLD, id, slice_of(bytes, 1 << 20));
        if (id % RPC_HEAVY_MAX != RPC_HEAVY_MAX - 1)
            continue;
        /* The next would not be read before these are released. */
        rig_wait_held(&r, RPC_HEAVY_MAX);
        assert_int_equal(rpc_client_call(other, TEST_RELEASE, id, 0, none, none, 0, &reply), 0);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(reader.bytes, 0);
    buf_deinit(&reply.storage);
    mem_free(bytes);
    rpc_client_close(other);
    (void)close(raw.fd);
    rig_stop(&r);
    assert_int_equal(r.held_max, RPC_HEAVY_MAX);
}

/* --- many --- */

struct worker {
    const struct rig *rig;
    struct rpc_target target;
    uint8_t number;
};

static void *worker_thread(void *arg)
{
    const struct worker *w = arg;
    struct rpc_client *c = rig_connect(&w->target, &w->rig->auth);
    uint8_t *bytes = rig_pattern(200000, w->number);
    for (uint64_t i = 0; i < 200; i++)
        rig_echo(c, i, slice_of(bytes, i * 7), slice_of(bytes, i % 20 == 0 ? 200000 : 0));
    mem_free(bytes);
    rpc_client_close(c);
    return NULL;
}

static void test_many_threads(void **state)
{
    (void)state;
    enum {
        COUNT = 16
    };
    struct rig r;
    pthread_t threads[COUNT];
    struct worker workers[COUNT];
    rig_start(&r, 0);
    for (uint8_t i = 0; i < COUNT; i++) {
        workers[i] = (struct worker){&r, i % 2 == 0 ? rig_unix(&r) : rig_tcp(&r), i};
        assert_int_equal(pthread_create(&threads[i], NULL, worker_thread, &workers[i]), 0);
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.requests), COUNT * 200);
    assert_int_equal(atomic_load(&r.opened), COUNT);
}

static void test_many_connections(void **state)
{
    (void)state;
    enum {
        COUNT = 300
    };
    struct rig r;
    struct rpc_client *clients[COUNT];
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    for (size_t i = 0; i < COUNT; i++)
        clients[i] = rig_connect(&t, &r.auth);
    for (size_t i = 0; i < COUNT; i++)
        rig_echo(clients[i], i, slice_str("all of them work"), none);
    for (size_t i = 0; i < COUNT; i += 2)
        rpc_client_close(clients[i]);
    for (size_t i = 1; i < COUNT; i += 2)
        rig_echo(clients[i], i, slice_str("the others still do"), none);
    for (size_t i = 1; i < COUNT; i += 2)
        rpc_client_close(clients[i]);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.opened), COUNT);
}

/* --- memory in common --- */

#define SHARE_BYTES 300000u

/* The code of the answer. */
static int ask_share(struct rpc_client *c, uint8_t **ret)
{
    struct rpc_reply reply = {0};
    uint32_t bytes = SHARE_BYTES;
    size_t len;
    int rc = 0;
    assert_int_equal(
        rpc_client_share(c, TEST_SHARE, 1, slice_of(&bytes, sizeof bytes), &reply, ret, &len), 0);
    if (*ret == NULL) {
        assert_int_equal(reply.frame.body.len, sizeof rc);
        memcpy(&rc, reply.frame.body.ptr, sizeof rc);
        assert_int_not_equal(rc, 0);
    } else {
        assert_int_equal(len, SHARE_BYTES);
    }
    buf_deinit(&reply.storage);
    return rc;
}

static void flip_and_check(struct rpc_client *c, uint8_t *share)
{
    struct rpc_reply reply = {0};
    memset(share, 0x35, SHARE_BYTES);
    assert_int_equal(rpc_client_call(c, TEST_FLIP, 2, 0, none, none, 0, &reply), 0);
    for (size_t i = 0; i < SHARE_BYTES; i++)
        assert_int_equal(share[i], 0xca);
    buf_deinit(&reply.storage);
}

/* Both ends see the same bytes; one for a connection; none over TCP; a bounded number. */
static void test_memory_in_common(void **state)
{
    (void)state;
    struct rig r;
    struct rpc_client *clients[RPC_SHARES_MAX];
    uint8_t *shares[RPC_SHARES_MAX], *other;
    rig_start(&r, 0);
    struct rpc_target at_unix = rig_unix(&r), at_tcp = rig_tcp(&r);
    struct rpc_target at_trusted = rig_tcp_trusted(&r);
    struct rpc_client *c = rig_connect(&at_tcp, &r.auth);
    assert_int_equal(ask_share(c, &other), ERR_NOT_SUPPORTED);
    rig_echo(c, 3, slice_str("goes on"), none);
    rpc_client_close(c);
    c = rig_connect(&at_trusted, &r.auth_trusted);
    assert_int_equal(ask_share(c, &other), ERR_NOT_SUPPORTED);
    rpc_client_close(c);
    for (size_t i = 0; i < RPC_SHARES_MAX; i++) {
        clients[i] = rig_connect(&at_unix, &r.auth);
        assert_int_equal(ask_share(clients[i], &shares[i]), 0);
        flip_and_check(clients[i], shares[i]);
    }
    assert_int_equal(ask_share(clients[0], &other), ERR_NOT_SUPPORTED);
    flip_and_check(clients[0], shares[0]);
    c = rig_connect(&at_unix, &r.auth);
    assert_int_equal(ask_share(c, &other), ERR_LIMIT);
    for (size_t i = 0; i < RPC_SHARES_MAX; i++) {
        rpc_client_close(clients[i]);
        assert_int_equal(munmap(shares[i], SHARE_BYTES), 0);
    }
    while (atomic_load(&r.closed) < RPC_SHARES_MAX + 2)
        rig_echo(c, 4, slice_str("a turn of the loop"), none);
    assert_int_equal(ask_share(c, &other), 0);
    flip_and_check(c, other);
    rpc_client_close(c);
    assert_int_equal(munmap(other, SHARE_BYTES), 0);
    rig_stop(&r);
}

/* A request that is still worked on may write to the memory of a client that is gone. */
static void test_memory_in_common_outlives_the_client(void **state)
{
    (void)state;
    struct rig r;
    uint8_t *share;
    struct rpc_reply reply = {0};
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    struct rpc_client *c = rig_connect(&t, &r.auth), *other = rig_connect(&t, &r.auth);
    assert_int_equal(ask_share(c, &share), 0);
    assert_int_equal(rpc_client_send(c, TEST_HOLD, 5, 0, none), 0);
    rig_wait_held(&r, 1);
    rpc_client_close(c);
    assert_int_equal(munmap(share, SHARE_BYTES), 0);
    while (atomic_load(&r.closed) < 1)
        rig_echo(other, 4, slice_str("a turn of the loop"), none);
    assert_int_equal(rpc_client_call(other, TEST_RELEASE, 6, 0, none, none, 0, &reply), 0);
    assert_int_equal(atomic_load(&r.late_reply_rc), ERR_CLOSED);
    rpc_client_close(other);
    buf_deinit(&reply.storage);
    rig_stop(&r);
}

/* --- ends --- */

static void test_call_timeout_breaks_the_connection(void **state)
{
    (void)state;
    struct rig r;
    struct rpc_reply reply = {0};
    rig_start(&r, 0);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r)};
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++) {
        struct rpc_client *c = rig_connect(&targets[i], &r.auth);
        assert_int_equal(rpc_client_call(c, TEST_HOLD, 1, 0, none, none, 5, &reply), ERR_TIMEOUT);
        assert_int_equal(rpc_client_call(c, TEST_ECHO, 2, 0, none, none, 5, &reply),
                         ERR_UNREACHABLE);
        assert_int_equal(rpc_client_send(c, TEST_ECHO, 3, 0, none), ERR_UNREACHABLE);
        assert_int_equal(rpc_client_recv(c, 5, &reply), ERR_UNREACHABLE);
        rpc_client_close(c);
    }
    buf_deinit(&reply.storage);
    rig_stop(&r);
}

static void test_server_closes_after_reply(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    struct rpc_client *c = rig_connect(&t, &r.auth);
    uint8_t *bytes = rig_pattern(3 << 20, 1);
    struct rpc_reply reply = {0};
    assert_int_equal(
        rpc_client_call(c, TEST_CLOSE, 1, 0, none, slice_of(bytes, 3 << 20), 0, &reply), 0);
    assert_true(slice_equal(reply.frame.bulk, slice_of(bytes, 3 << 20)));
    assert_int_equal(rpc_client_call(c, TEST_ECHO, 2, 0, none, none, 0, &reply), ERR_UNREACHABLE);
    buf_deinit(&reply.storage);
    mem_free(bytes);
    rpc_client_close(c);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.closed_rc), 0);
}

static void *call_thread(void *arg)
{
    struct rpc_client *c = arg;
    struct rpc_reply reply = {0};
    uint8_t bytes[100] = {0};
    int rc = rpc_client_call(c, TEST_HOLD, 1, 0, slice_of(bytes, sizeof bytes), none, 0, &reply);
    assert_int_equal(rc, ERR_UNREACHABLE);
    buf_deinit(&reply.storage);
    return NULL;
}

static void test_stop_with_requests_in_flight(void **state)
{
    (void)state;
    enum {
        COUNT = 8
    };
    struct rig r;
    struct rpc_client *clients[COUNT];
    pthread_t threads[COUNT];
    rig_start(&r, 0);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r)};
    for (size_t i = 0; i < COUNT; i++) {
        clients[i] = rig_connect(&targets[i % 2], &r.auth);
        assert_int_equal(pthread_create(&threads[i], NULL, call_thread, clients[i]), 0);
    }
    rig_wait_held(&r, COUNT);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.late_reply_rc), ERR_CLOSED);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        rpc_client_close(clients[i]);
    }
}

/* shutdown(2) from another thread ends a call: how a mount is torn down. */
static void test_shutdown_from_elsewhere_ends_a_call(void **state)
{
    (void)state;
    struct rig r;
    pthread_t thread;
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    struct rpc_client *c = rig_connect(&t, &r.auth);
    assert_int_equal(pthread_create(&thread, NULL, call_thread, c), 0);
    rig_wait_held(&r, 1);
    assert_int_equal(shutdown(rpc_client_fd(c), SHUT_RDWR), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    rpc_client_close(c);
    rig_stop(&r);
}

static void test_connect_nobody_there(void **state)
{
    (void)state;
    struct rig r;
    struct rpc_client *c = NULL;
    struct err_detail d = {0};
    rig_start(&r, 0);
    struct rpc_target t = rig_tcp(&r);
    rig_stop(&r);
    assert_int_equal(rpc_client_connect(&c, &t, &r.auth, 1000, &d), ERR_UNREACHABLE);
    assert_true(d.text[0] != '\0');
    t = (struct rpc_target){.unix_path = r.path};
    assert_int_equal(rpc_client_connect(&c, &t, &r.auth, 1000, &d), ERR_UNREACHABLE);
    assert_null(c);
    rpc_client_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_round_trip_and_bounds),
        cmocka_unit_test(test_call_over_each_transport),
        cmocka_unit_test(test_sealed_unless_both_trust),
        cmocka_unit_test(test_bulk_up_to_the_limit),
        cmocka_unit_test(test_listen_unix_file),
        cmocka_unit_test(test_listen_unix_replaces_stale_socket),
        cmocka_unit_test(test_listen_unix_long_path),
        cmocka_unit_test(test_push_in_order_and_kept_during_calls),
        cmocka_unit_test(test_send_without_reply),
        cmocka_unit_test(test_requests_outstanding_are_bounded),
        cmocka_unit_test(test_unsent_replies_are_bounded),
        cmocka_unit_test(test_large_requests_are_bounded),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_many_connections),
        cmocka_unit_test(test_memory_in_common),
        cmocka_unit_test(test_memory_in_common_outlives_the_client),
        cmocka_unit_test(test_call_timeout_breaks_the_connection),
        cmocka_unit_test(test_server_closes_after_reply),
        cmocka_unit_test(test_stop_with_requests_in_flight),
        cmocka_unit_test(test_shutdown_from_elsewhere_ends_a_call),
        cmocka_unit_test(test_connect_nobody_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
