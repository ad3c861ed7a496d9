/* zstd's streaming interface with a flush after each message; see zstream.h. */
#include "wan/zstream.h"

#include <zstd.h>

#include "base/assert.h"
#include "base/codec.h"

enum {
    LEVEL = 1,      /* keeps up with the fastest link of one core */
    WINDOW_LOG = 20 /* what both sides remember: 1 MiB */
};

struct zpack {
    ZSTD_CCtx *ctx;
};
struct zunpack {
    ZSTD_DCtx *ctx;
};

struct zpack *zpack_new(void)
{
    struct zpack *z = mem_calloc(1, sizeof *z);
    z->ctx = ZSTD_createCCtx();
    ASSERT(z->ctx != NULL);
    size_t rc = ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_compressionLevel, LEVEL);
    ASSERT(ZSTD_isError(rc) == 0);
    rc = ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_windowLog, WINDOW_LOG);
    ASSERT(ZSTD_isError(rc) == 0);
    return z;
}

void zpack_free(struct zpack *z)
{
    if (z == NULL)
        return;
    (void)ZSTD_freeCCtx(z->ctx); /* always 0 */
    mem_free(z);
}

void zpack_add(struct zpack *z, struct slice in, struct buf *out)
{
    ASSERT(in.len <= UINT32_MAX);
    enc_varint(out, in.len);
    ZSTD_inBuffer from = {.src = in.ptr, .size = in.len, .pos = 0};
    size_t left;
    do {
        buf_reserve(out, ZSTD_compressBound(in.len - from.pos) + 64);
        ZSTD_outBuffer to = {.dst = out->ptr + out->len, .size = out->cap - out->len, .pos = 0};
        left = ZSTD_compressStream2(z->ctx, &to, &from, ZSTD_e_flush);
        ASSERT(ZSTD_isError(left) == 0); /* only memory or misuse */
        out->len += to.pos;
    } while (left > 0 || from.pos < from.size);
}

struct zunpack *zunpack_new(void)
{
    struct zunpack *z = mem_calloc(1, sizeof *z);
    z->ctx = ZSTD_createDCtx();
    ASSERT(z->ctx != NULL);
    size_t rc = ZSTD_DCtx_setParameter(z->ctx, ZSTD_d_windowLogMax, WINDOW_LOG);
    ASSERT(ZSTD_isError(rc) == 0);
    return z;
}

void zunpack_free(struct zunpack *z)
{
    if (z == NULL)
        return;
    (void)ZSTD_freeDCtx(z->ctx); /* always 0 */
    mem_free(z);
}

int zunpack_next(struct zunpack *z, struct slice in, size_t len_max, struct buf *out)
{
    struct dec d = dec_of(in);
    uint64_t len = dec_varint(&d);
    if (d.rc != 0)
        return d.rc;
    if (len > len_max)
        return ERR_TOO_BIG;
    buf_clear(out);
    /* One byte more than announced shows a message that is longer than it says. */
    buf_reserve(out, (size_t)len + 1);
    ZSTD_inBuffer from = {.src = d.at, .size = dec_left(&d), .pos = 0};
    ZSTD_outBuffer to = {.dst = out->ptr, .size = (size_t)len + 1, .pos = 0};
    while (from.pos < from.size && to.pos <= len) {
        size_t in_before = from.pos, out_before = to.pos;
        size_t rc = ZSTD_decompressStream(z->ctx, &to, &from);
        if (ZSTD_isError(rc) != 0)
            return ERR_MALFORMED;
        if (from.pos == in_before && to.pos == out_before)
            break;
    }
    if (to.pos != len)
        return to.pos < len ? ERR_TRUNCATED : ERR_MALFORMED;
    if (from.pos != from.size)
        return ERR_MALFORMED;
    out->len = len;
    return 0;
}
