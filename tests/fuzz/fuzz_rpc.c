/* site/rpc_int.h on bytes from strangers. The first byte chooses: a stream in clear, a stream of
 * ciphertext, an honest seal around a dishonest frame, or a hello. */
#include <string.h>

#include "base/assert.h"
#include "site/rpc_int.h"
#include "tests/fuzz/fuzz.h"

enum {
    SEAL_BYTES = crypto_secretstream_xchacha20poly1305_ABYTES
};

static void inside(struct slice part, const uint8_t *at, size_t len)
{
    ASSERT(part.len <= len);
    ASSERT(part.ptr >= at && part.ptr + part.len <= at + len);
}

static void frame_check(const struct rpc_frame *f, const uint8_t *at, size_t len)
{
    inside(f->body, at, len);
    inside(f->bulk, at, len);
    ASSERT(f->body.len + f->bulk.len + RPC_HEADER_BYTES == len);
    struct rpc_seal clear = {.on = false};
    struct buf out = {0};
    rpc_unit_append(&clear, f, NULL, &out);
    ASSERT(out.len == len && memcmp(out.ptr, at, len) == 0);
    buf_deinit(&out);
}

/* Units one after the other, as a connection would take them. */
static void stream_check(struct rpc_seal *s, const uint8_t *at, size_t len)
{
    struct buf plain = {0};
    for (;;) {
        struct rpc_frame f;
        size_t bytes, again;
        if (rpc_unit_bytes(s, at, len, &bytes) != 0 || bytes == 0 || bytes > len)
            break;
        /* What was said of the first bytes holds for more of them. */
        int rc = rpc_unit_bytes(s, at, bytes, &again);
        ASSERT(rc == 0 && again == bytes);
        if (rpc_unit_open(s, at, bytes, &plain, &f) != 0)
            break;
        if (s->on)
            frame_check(&f, plain.ptr, plain.len);
        else
            frame_check(&f, at, bytes);
        at += bytes;
        len -= bytes;
    }
    buf_deinit(&plain);
}

static void seal_start(struct rpc_seal *s)
{
    static const uint8_t key[32] = {1};
    static const uint8_t header[RPC_SEAL_HEADER_BYTES] = {2};
    memset(s, 0, sizeof *s);
    s->on = true;
    (void)crypto_secretstream_xchacha20poly1305_init_pull(&s->in, header, key);
    s->out = s->in; /* the two ends of one direction start alike */
}

static void sealed_check(const uint8_t *data, size_t size)
{
    struct rpc_seal s;
    struct buf b = {0};
    seal_start(&s);
    size_t sealed = size + SEAL_BYTES;
    buf_reserve(&b, 4 + sealed);
    for (size_t i = 0; i < 4; i++)
        b.ptr[i] = (uint8_t)(sealed >> (8 * i));
    (void)crypto_secretstream_xchacha20poly1305_push(&s.out, b.ptr + 4, NULL, data, size, NULL, 0,
                                                     0);
    b.len = 4 + sealed;
    stream_check(&s, b.ptr, b.len);
    buf_deinit(&b);
}

static void hello_check(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = {3};
    static const uint8_t random[RPC_HELLO_RANDOM_BYTES] = {4};
    uint8_t hello[RPC_HELLO_BYTES] = {0}, prove[RPC_PROVE_BYTES];
    struct rpc_handshake h;
    struct rpc_keys keys;
    struct rpc_seal s = {.on = false};
    memcpy(hello, data, size < sizeof hello ? size : sizeof hello);
    for (int role = RPC_CLIENT; role <= RPC_SERVER; role++) {
        rpc_handshake_init(&h, (enum rpc_role)role, true, random);
        if (rpc_handshake_finish(&h, hello, key, &keys) != 0)
            continue;
        memset(prove, 0, sizeof prove);
        int rc = rpc_seal_check(&s, &keys, prove);
        ASSERT(rc == ERR_AUTH);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_seal s = {.on = false};
    if (size < 2)
        return 0;
    uint8_t mode = data[0] & 3;
    data++;
    size--;
    if (mode == 0) {
        stream_check(&s, data, size);
    } else if (mode == 1) {
        seal_start(&s);
        stream_check(&s, data, size);
    } else if (mode == 2) {
        sealed_check(data, size);
    } else {
        hello_check(data, size);
    }
    return 0;
}
