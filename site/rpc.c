/* Frames: the header, and units that carry frames in clear or sealed. */
#include <string.h>

#include "base/assert.h"
#include "site/rpc_int.h"

enum {
    LENGTH_BYTES = 4, /* before each sealed unit */
    SEAL_BYTES = crypto_secretstream_xchacha20poly1305_ABYTES
};
static const uint8_t magic[4] = {'C', 'F', 'R', '1'};

static uint64_t le_load(const uint8_t *at, size_t len)
{
    uint64_t v = 0;
    for (size_t i = len; i > 0; i--)
        v = v << 8 | at[i - 1];
    return v;
}

static void le_store(uint8_t *at, size_t len, uint64_t v)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

int rpc_header_decode(const uint8_t in[RPC_HEADER_BYTES],
                      struct rpc_frame *ret,
                      uint32_t *ret_body_len,
                      uint32_t *ret_bulk_len)
{
    uint32_t body_len = (uint32_t)le_load(in + 16, 4);
    uint32_t bulk_len = (uint32_t)le_load(in + 20, 4);
    uint16_t flags = (uint16_t)le_load(in + 6, 2);
    if (memcmp(in, magic, sizeof magic) != 0 || (flags & ~(RPC_FLAG_REPLY | RPC_FLAG_PUSH)) != 0)
        return ERR_MALFORMED;
    if (!rpc_frame_fits(body_len, bulk_len))
        return ERR_TOO_BIG;
    *ret = (struct rpc_frame){.type = (uint16_t)le_load(in + 4, 2),
                              .flags = flags,
                              .id = le_load(in + 8, 8),
                              .hlc = le_load(in + 24, 8)};
    *ret_body_len = body_len;
    *ret_bulk_len = bulk_len;
    return 0;
}

void rpc_header_encode(const struct rpc_frame *f, uint8_t out[RPC_HEADER_BYTES])
{
    ASSERT(rpc_frame_fits(f->body.len, f->bulk.len));
    memcpy(out, magic, sizeof magic);
    le_store(out + 4, 2, f->type);
    le_store(out + 6, 2, f->flags);
    le_store(out + 8, 8, f->id);
    le_store(out + 16, 4, f->body.len);
    le_store(out + 20, 4, f->bulk.len);
    le_store(out + 24, 8, f->hlc);
}

int rpc_unit_bytes(const struct rpc_seal *s, const uint8_t *at, size_t len, size_t *ret)
{
    *ret = 0;
    if (s->on) {
        if (len < LENGTH_BYTES)
            return 0;
        uint64_t sealed = le_load(at, LENGTH_BYTES);
        if (sealed < RPC_HEADER_BYTES + SEAL_BYTES)
            return ERR_MALFORMED;
        if (sealed > RPC_HEADER_BYTES + LIMIT_FRAME_BYTES + SEAL_BYTES)
            return ERR_TOO_BIG;
        *ret = LENGTH_BYTES + (size_t)sealed;
        return 0;
    }
    if (len < RPC_HEADER_BYTES)
        return 0;
    struct rpc_frame f;
    uint32_t body_len, bulk_len;
    int rc = rpc_header_decode(at, &f, &body_len, &bulk_len);
    if (rc == 0)
        *ret = RPC_HEADER_BYTES + body_len + bulk_len;
    return rc;
}

int rpc_unit_open(
    struct rpc_seal *s, const uint8_t *at, size_t len, struct buf *plain, struct rpc_frame *ret)
{
    if (s->on) {
        ASSERT(len >= LENGTH_BYTES + RPC_HEADER_BYTES + SEAL_BYTES);
        size_t plain_len = len - LENGTH_BYTES - SEAL_BYTES;
        unsigned char tag;
        buf_clear(plain);
        buf_reserve(plain, plain_len);
        if (crypto_secretstream_xchacha20poly1305_pull(&s->in, plain->ptr, NULL, &tag,
                                                       at + LENGTH_BYTES, len - LENGTH_BYTES, NULL,
                                                       0) != 0)
            return ERR_AUTH;
        plain->len = plain_len;
        at = plain->ptr;
        len = plain_len;
    }
    struct rpc_frame f;
    uint32_t body_len, bulk_len;
    int rc = rpc_header_decode(at, &f, &body_len, &bulk_len);
    if (rc != 0)
        return rc;
    if (len != (size_t)RPC_HEADER_BYTES + body_len + bulk_len)
        return ERR_MALFORMED;
    f.body = slice_of(at + RPC_HEADER_BYTES, body_len);
    f.bulk = slice_of(at + RPC_HEADER_BYTES + body_len, bulk_len);
    *ret = f;
    return 0;
}

static void frame_append(const struct rpc_frame *f, struct buf *out)
{
    buf_reserve(out, RPC_HEADER_BYTES + f->body.len + f->bulk.len);
    rpc_header_encode(f, out->ptr + out->len);
    out->len += RPC_HEADER_BYTES;
    buf_append(out, f->body.ptr, f->body.len);
    buf_append(out, f->bulk.ptr, f->bulk.len);
}

void rpc_unit_append(struct rpc_seal *s,
                     const struct rpc_frame *f,
                     struct buf *scratch,
                     struct buf *out)
{
    if (!s->on) {
        frame_append(f, out);
        return;
    }
    buf_clear(scratch);
    frame_append(f, scratch);
    size_t sealed = scratch->len + SEAL_BYTES;
    buf_reserve(out, LENGTH_BYTES + sealed);
    le_store(out->ptr + out->len, LENGTH_BYTES, sealed);
    int rc = crypto_secretstream_xchacha20poly1305_push(
        &s->out, out->ptr + out->len + LENGTH_BYTES, NULL, scratch->ptr, scratch->len, NULL, 0,
        crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
    ASSERT(rc == 0);
    out->len += LENGTH_BYTES + sealed;
}
