/* site/rpc.h against ends that do not play by the rules: wrong keys, replays, changed bytes,
 * silence, garbage. Whatever they do, the server goes on serving others. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "site/rpc_server_int.h"
#include "tests/unit/site/rpc_test.h"

static const struct slice none;

static struct rpc_auth wrong_auth(const struct rig *r)
{
    struct rpc_auth auth = r->auth;
    auth.site_key[31] ^= 1;
    return auth;
}

/* After whatever happened, an honest client is served. */
static void serves(struct rig *r)
{
    struct rpc_target t = rig_unix(r);
    struct rpc_client *c = rig_connect(&t, &r->auth);
    rig_echo(c, 1, slice_str("still here"), none);
    rpc_client_close(c);
}

static void unit_of(struct raw *raw, const struct rpc_frame *f, struct buf *out)
{
    struct buf scratch = {0};
    rpc_unit_append(&raw->seal, f, &scratch, out);
    buf_deinit(&scratch);
}

/* --- keys --- */

static void test_wrong_key_is_refused_by_both(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_auth wrong = wrong_auth(&r);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r), rig_tcp_trusted(&r)};
    int64_t refused = rig_refused();
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++) {
        struct rpc_client *c = NULL;
        struct err_detail d = {0};
        assert_int_equal(rpc_client_connect(&c, &targets[i], &wrong, 0, &d), ERR_AUTH);
        assert_null(c);
        assert_non_null(strstr(d.text, "key"));
    }
    serves(&r);
    rig_stop(&r);
    assert_int_equal(rig_refused() - refused, ARRAY_COUNT(targets));
    assert_int_equal(atomic_load(&r.opened), 1);
}

/* A client that skips its own check and sends a request at once: not even looked at. */
static void test_wrong_key_request_is_not_handled(void **state)
{
    (void)state;
    struct rig r;
    struct rpc_handshake h;
    struct rpc_keys keys;
    struct rpc_seal seal = {.on = false};
    struct buf out = {0}, scratch = {0};
    uint8_t random[RPC_HELLO_RANDOM_BYTES] = {1}, answer[RPC_HELLO_BYTES + RPC_PROVE_BYTES];
    uint8_t prove[RPC_PROVE_BYTES];
    rig_start(&r, 0);
    struct rpc_auth wrong = wrong_auth(&r);
    struct rpc_target t = rig_unix(&r);
    int fd = raw_connect(&t);
    rpc_handshake_init(&h, RPC_CLIENT, true, random);
    raw_write(fd, h.hello, sizeof h.hello);
    raw_read(fd, answer, sizeof answer);
    assert_int_equal(rpc_handshake_finish(&h, answer, wrong.site_key, &keys), 0);
    rpc_seal_start(&seal, &keys, prove);
    buf_append(&out, prove, sizeof prove);
    const struct rpc_frame f = {.type = TEST_ECHO, .id = 1};
    rpc_unit_append(&seal, &f, &scratch, &out);
    raw_write(fd, out.ptr, out.len);
    raw_expect_end(fd);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.opened), 0);
    assert_int_equal(atomic_load(&r.requests), 0);
    buf_deinit(&out);
}

/* Everything an honest client sent, sent once more by somebody else. */
static void test_replayed_connection_is_refused(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r)};
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++) {
        struct raw raw;
        struct buf unit = {0};
        const struct rpc_frame f = {.type = TEST_ECHO, .id = 1, .body = slice_str("pay")};
        raw_open(&raw, &targets[i], &r.auth);
        unit_of(&raw, &f, &unit);
        raw_write(raw.fd, unit.ptr, unit.len);
        uint8_t first;
        raw_read(raw.fd, &first, 1);
        (void)close(raw.fd);
        unsigned requests = atomic_load(&r.requests), opened = atomic_load(&r.opened);

        int fd = raw_connect(&targets[i]);
        raw_write(fd, raw.hello, sizeof raw.hello);
        raw_write(fd, raw.prove, sizeof raw.prove);
        raw_write(fd, unit.ptr, unit.len);
        raw_expect_end(fd);
        assert_int_equal(atomic_load(&r.requests), requests);
        assert_int_equal(atomic_load(&r.opened), opened);
        buf_deinit(&unit);
    }
    serves(&r);
    rig_stop(&r);
}

/* Any bit of either message of the client changed on the way: no session. */
static void test_handshake_every_byte_counts(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_target t = rig_tcp(&r);
    for (size_t i = 0; i < RPC_HELLO_BYTES + RPC_PROOF_BYTES; i++) {
        struct rpc_handshake h;
        struct rpc_keys keys;
        struct rpc_seal seal = {.on = false};
        uint8_t random[RPC_HELLO_RANDOM_BYTES], answer[RPC_HELLO_BYTES + RPC_PROVE_BYTES];
        uint8_t hello[RPC_HELLO_BYTES], prove[RPC_PROVE_BYTES];
        random_bytes(random, sizeof random);
        rpc_handshake_init(&h, RPC_CLIENT, false, random);
        memcpy(hello, h.hello, sizeof hello);
        if (i < RPC_HELLO_BYTES)
            hello[i] ^= 0x10;
        /* X25519 ignores the top bit, all other bits count; this is not the top one. */
        int fd = raw_connect(&t);
        raw_write(fd, hello, sizeof hello);
        if (i < 8) { /* magic, version, flags: refused as they stand */
            raw_expect_end(fd);
            continue;
        }
        raw_read(fd, answer, sizeof answer);
        assert_int_equal(rpc_handshake_finish(&h, answer, r.auth.site_key, &keys), 0);
        assert_int_equal(rpc_seal_check(&seal, &keys, answer + RPC_HELLO_BYTES),
                         i < RPC_HELLO_BYTES ? ERR_AUTH : 0);
        rpc_seal_start(&seal, &keys, prove);
        if (i >= RPC_HELLO_BYTES)
            prove[i - RPC_HELLO_BYTES] ^= 0x10;
        raw_write(fd, prove, sizeof prove);
        raw_expect_end(fd);
    }
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.opened), 0);
}

/* Keys that make the shared secret the same for everybody. */
static void test_handshake_low_order_key_is_refused(void **state)
{
    (void)state;
    struct rpc_handshake h;
    struct rpc_keys keys;
    uint8_t random[RPC_HELLO_RANDOM_BYTES] = {1}, key[32] = {2};
    uint8_t hello[RPC_HELLO_BYTES] = {'C', 'F', 'H', 'c', 1};
    random_bytes(random, sizeof random);
    rpc_handshake_init(&h, RPC_SERVER, true, random);
    assert_int_equal(rpc_handshake_finish(&h, hello, key, &keys), ERR_AUTH);
    hello[4] = 2;
    rpc_handshake_init(&h, RPC_SERVER, true, random);
    assert_int_equal(rpc_handshake_finish(&h, hello, key, &keys), ERR_VERSION);
    /* The server's own kind of hello, sent back to it. */
    rpc_handshake_init(&h, RPC_SERVER, true, random);
    memcpy(hello, h.hello, sizeof hello);
    assert_int_equal(rpc_handshake_finish(&h, hello, key, &keys), ERR_MALFORMED);
}

/* --- time --- */

static void test_slow_handshake_is_ended(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 1);
    struct rpc_target t = rig_tcp(&r);
    int silent = raw_connect(&t), slow = raw_connect(&t), half = raw_connect(&t);
    struct rpc_handshake h;
    uint8_t random[RPC_HELLO_RANDOM_BYTES] = {1};
    rpc_handshake_init(&h, RPC_CLIENT, false, random);
    raw_write(slow, h.hello, 1);
    raw_write(half, h.hello, sizeof h.hello);
    raw_expect_end(silent);
    raw_expect_end(slow);
    raw_expect_end(half);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.opened), 0);
}

/* --- frames --- */

static struct buf request_bytes(struct raw *raw)
{
    struct buf b = {0};
    const struct rpc_frame f = {
        .type = TEST_SILENT, .id = 1, .body = slice_str("a body"), .bulk = slice_str("some bulk")};
    unit_of(raw, &f, &b);
    return b;
}

static void test_sealed_frame_every_byte_counts(void **state)
{
    (void)state;
    struct rig r;
    struct raw raw;
    rig_start(&r, 0);
    struct rpc_target t = rig_tcp(&r);
    size_t len = 1;
    for (size_t i = 0; i < len; i++) {
        raw_open(&raw, &t, &r.auth);
        struct buf b = request_bytes(&raw);
        len = b.len;
        b.ptr[i] ^= 0x04;
        raw_write(raw.fd, b.ptr, b.len);
        (void)shutdown(raw.fd, SHUT_WR); /* a longer length never gets its bytes */
        raw_expect_end(raw.fd);
        buf_deinit(&b);
    }
    rig_stop(&r);
    assert_true(len > 60);
    assert_int_equal(atomic_load(&r.requests), 0);
}

static void test_sealed_frames_cannot_be_repeated_or_swapped(void **state)
{
    (void)state;
    struct rig r;
    struct raw raw;
    rig_start(&r, 0);
    struct rpc_target t = rig_tcp(&r);
    raw_open(&raw, &t, &r.auth);
    struct buf one = request_bytes(&raw), two = request_bytes(&raw);
    raw_write(raw.fd, one.ptr, one.len);
    raw_write(raw.fd, one.ptr, one.len);
    raw_expect_end(raw.fd);
    assert_int_equal(atomic_load(&r.requests), 1);
    buf_deinit(&one);
    buf_deinit(&two);
    raw_open(&raw, &t, &r.auth);
    one = request_bytes(&raw);
    two = request_bytes(&raw);
    raw_write(raw.fd, two.ptr, two.len);
    raw_write(raw.fd, one.ptr, one.len);
    raw_expect_end(raw.fd);
    assert_int_equal(atomic_load(&r.requests), 1);
    buf_deinit(&one);
    buf_deinit(&two);
    rig_stop(&r);
}

static void test_truncated_frame_is_not_handled(void **state)
{
    (void)state;
    struct rig r;
    struct raw raw;
    rig_start(&r, 0);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r)};
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++) {
        size_t len = 1;
        for (size_t cut = 0; cut < len; cut++) {
            raw_open(&raw, &targets[i], &r.auth);
            struct buf b = request_bytes(&raw);
            len = b.len;
            raw_write(raw.fd, b.ptr, cut);
            (void)shutdown(raw.fd, SHUT_WR);
            raw_expect_end(raw.fd);
            buf_deinit(&b);
        }
    }
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.requests), 0);
    assert_int_equal(atomic_load(&r.closed_rc), ERR_CLOSED);
}

/* Headers that promise too much, say nonsense, or come from the wrong side. */
static void test_bad_headers_close_the_connection(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 0);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r)};
    const struct {
        size_t at;
        uint8_t value;
        int rc;
    } cases[] = {
        {0, 'X', ERR_MALFORMED}, {6, 1, ERR_PEER},     {6, 2, ERR_PEER},
        {6, 4, ERR_MALFORMED},   {19, 1, ERR_TOO_BIG}, {23, 1, ERR_TOO_BIG},
        {18, 0x80, ERR_TOO_BIG},
    };
    for (size_t i = 0; i < ARRAY_COUNT(targets) * ARRAY_COUNT(cases); i++) {
        size_t which = i % ARRAY_COUNT(cases);
        struct raw raw;
        struct rpc_seal clear = {.on = false};
        struct buf b = {0}, sealed = {0};
        const struct rpc_frame f = {.type = TEST_SILENT, .id = 1};
        raw_open(&raw, &targets[i / ARRAY_COUNT(cases)], &r.auth);
        rpc_unit_append(&clear, &f, NULL, &b);
        b.ptr[cases[which].at] = cases[which].value;
        if (raw.seal.on) { /* an honest seal around a header that is not */
            uint8_t bytes[4 + RPC_HEADER_BYTES + crypto_secretstream_xchacha20poly1305_ABYTES] = {
                sizeof bytes - 4};
            (void)crypto_secretstream_xchacha20poly1305_push(&raw.seal.out, bytes + 4, NULL, b.ptr,
                                                             b.len, NULL, 0, 0);
            buf_append(&sealed, bytes, sizeof bytes);
            raw_write(raw.fd, sealed.ptr, sealed.len);
        } else {
            raw_write(raw.fd, b.ptr, b.len);
        }
        raw_expect_end(raw.fd);
        assert_int_equal(atomic_load(&r.requests), 0);
        buf_deinit(&b);
        buf_deinit(&sealed);
    }
    serves(&r);
    rig_stop(&r);
}

/* A frame inside a seal whose lengths do not add up to the sealed length. */
static void test_seal_length_must_match_header(void **state)
{
    (void)state;
    struct rig r;
    struct raw raw;
    rig_start(&r, 0);
    struct rpc_target t = rig_tcp(&r);
    for (uint8_t extra = 0; extra < 2; extra++) {
        struct rpc_frame f = {.type = TEST_SILENT, .id = 1};
        uint8_t plain[RPC_HEADER_BYTES + 1] = {0};
        uint8_t bytes[4 + sizeof plain + crypto_secretstream_xchacha20poly1305_ABYTES] = {0};
        raw_open(&raw, &t, &r.auth);
        rpc_header_encode(&f, plain);
        plain[16] = extra == 0 ? 0 : 2; /* one byte too many, or one too few */
        bytes[0] = sizeof bytes - 4;
        (void)crypto_secretstream_xchacha20poly1305_push(&raw.seal.out, bytes + 4, NULL, plain,
                                                         sizeof plain, NULL, 0, 0);
        raw_write(raw.fd, bytes, sizeof bytes);
        raw_expect_end(raw.fd);
    }
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.requests), 0);
    assert_int_equal(atomic_load(&r.closed_rc), ERR_MALFORMED);
}

static void test_garbage_is_survived(void **state)
{
    (void)state;
    struct rig r;
    struct rng rng;
    uint8_t bytes[3000];
    rig_start(&r, 0);
    rng_seed(&rng, 3);
    struct rpc_target targets[] = {rig_unix(&r), rig_tcp(&r)};
    for (int i = 0; i < 400; i++) {
        const struct rpc_target *t = &targets[rng_below(&rng, 2)];
        size_t len = rng_below(&rng, sizeof bytes);
        for (size_t j = 0; j < len; j++)
            bytes[j] = (uint8_t)rng_next(&rng);
        struct raw raw = {.fd = -1};
        if (rng_below(&rng, 2) == 0)
            raw.fd = raw_connect(t);
        else
            raw_open(&raw, t, &r.auth);
        raw_write(raw.fd, bytes, len);
        (void)shutdown(raw.fd, SHUT_WR);
        raw_expect_end(raw.fd);
    }
    serves(&r);
    rig_stop(&r);
    assert_int_equal(atomic_load(&r.requests), 1);
}

/* Pushes to somebody who does not read end with a closed connection, not with a full memory. */
static void test_unread_pushes_close_the_connection(void **state)
{
    (void)state;
    struct rig r;
    struct raw raw;
    struct buf b = {0};
    const uint32_t count = 2 * RPC_TX_PUSH_BYTES / RPC_HEADER_BYTES;
    const struct rpc_frame f = {.type = TEST_PUSH, .id = 1, .body = slice_of(&count, sizeof count)};
    rig_start(&r, 0);
    struct rpc_target t = rig_unix(&r);
    raw_open(&raw, &t, &r.auth);
    unit_of(&raw, &f, &b);
    raw_write(raw.fd, b.ptr, b.len);
    raw_expect_end(raw.fd);
    serves(&r);
    rig_stop(&r);
    assert_true(r.unsent_max <= RPC_TX_PUSH_BYTES + 64);
    buf_deinit(&b);
}

/* --- servers that are not ours --- */

struct impostor {
    int listen_fd;
    const uint8_t *bytes; /* sent to who connects; NULL: whatever it says comes back */
    size_t len;
};

static void *impostor_thread(void *arg)
{
    const struct impostor *im = arg;
    uint8_t bytes[RPC_HELLO_BYTES];
    int fd = accept(im->listen_fd, NULL, NULL);
    assert_true(fd >= 0);
    raw_read(fd, bytes, sizeof bytes);
    if (im->bytes != NULL)
        raw_write(fd, im->bytes, im->len);
    for (int i = 0; im->bytes == NULL && i < 2; i++)
        raw_write(fd, bytes, sizeof bytes);
    (void)shutdown(fd, SHUT_WR);
    raw_expect_end(fd);
    return NULL;
}

static int connect_to_impostor(const struct rpc_auth *auth, const uint8_t *bytes, size_t len)
{
    char dir[] = "/tmp/cfs-rpc-XXXXXX";
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct rpc_client *c = NULL;
    struct err_detail d = {0};
    pthread_t thread;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(addr.sun_path, sizeof addr.sun_path, "%s/s", dir);
    struct impostor im = {
        .listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), .bytes = bytes, .len = len};
    assert_int_equal(bind(im.listen_fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(im.listen_fd, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, impostor_thread, &im), 0);
    const struct rpc_target t = {.unix_path = addr.sun_path};
    int rc = rpc_client_connect(&c, &t, auth, 0, &d);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)close(im.listen_fd);
    assert_int_equal(unlink(addr.sun_path), 0);
    assert_int_equal(rmdir(dir), 0);
    assert_null(c);
    return rc;
}

static void test_client_refuses_impostors(void **state)
{
    (void)state;
    const struct rpc_auth auth = {.site_key = {1}};
    uint8_t flight[RPC_HELLO_BYTES + RPC_PROVE_BYTES] = {0};
    struct rpc_handshake h;
    uint8_t random[RPC_HELLO_RANDOM_BYTES] = {1};
    assert_int_equal(connect_to_impostor(&auth, NULL, 0), ERR_PEER);
    assert_int_equal(connect_to_impostor(&auth, flight, sizeof flight), ERR_PEER);
    assert_int_equal(connect_to_impostor(&auth, flight, 10), ERR_UNREACHABLE);
    rpc_handshake_init(&h, RPC_SERVER, true, random);
    memcpy(flight, h.hello, sizeof h.hello);
    assert_int_equal(connect_to_impostor(&auth, flight, sizeof flight), ERR_AUTH);
    flight[4]++;
    assert_int_equal(connect_to_impostor(&auth, flight, sizeof flight), ERR_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_key_is_refused_by_both),
        cmocka_unit_test(test_wrong_key_request_is_not_handled),
        cmocka_unit_test(test_replayed_connection_is_refused),
        cmocka_unit_test(test_handshake_every_byte_counts),
        cmocka_unit_test(test_handshake_low_order_key_is_refused),
        cmocka_unit_test(test_slow_handshake_is_ended),
        cmocka_unit_test(test_sealed_frame_every_byte_counts),
        cmocka_unit_test(test_sealed_frames_cannot_be_repeated_or_swapped),
        cmocka_unit_test(test_truncated_frame_is_not_handled),
        cmocka_unit_test(test_bad_headers_close_the_connection),
        cmocka_unit_test(test_seal_length_must_match_header),
        cmocka_unit_test(test_garbage_is_survived),
        cmocka_unit_test(test_unread_pushes_close_the_connection),
        cmocka_unit_test(test_client_refuses_impostors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
