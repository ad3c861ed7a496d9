/* Fixed-form little-endian codec with bounded cursors, for disk and wire headers and state values.
 *
 * Writing appends to a struct buf and cannot fail. Reading keeps a sticky error: after the first
 * short read every getter returns zero and dec_end() says ERR_TRUNCATED or ERR_MALFORMED. */
#ifndef BASE_CODEC_H
#define BASE_CODEC_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

void enc_u8(struct buf *b, uint8_t v);
void enc_u16(struct buf *b, uint16_t v);
void enc_u32(struct buf *b, uint32_t v);
void enc_u64(struct buf *b, uint64_t v);
void enc_varint(struct buf *b, uint64_t v);    /* LEB128, at most 10 bytes */
void enc_bytes(struct buf *b, struct slice s); /* varint length, then the bytes */
void enc_raw(struct buf *b, const void *ptr, size_t len);
void enc_oid(struct buf *b, struct oid o);
void enc_dot(struct buf *b, struct dot d); /* varints */
void enc_stamp(struct buf *b, struct stamp s);

struct dec {
    const uint8_t *at, *end;
    int rc; /* 0 until something did not fit */
};
static inline struct dec dec_of(struct slice s)
{
    /* Adding 0 to a null pointer is undefined. */
    return (struct dec){.at = s.ptr, .end = s.len == 0 ? s.ptr : s.ptr + s.len, .rc = 0};
}
uint8_t dec_u8(struct dec *d);
uint16_t dec_u16(struct dec *d);
uint32_t dec_u32(struct dec *d);
uint64_t dec_u64(struct dec *d);
uint64_t dec_varint_long(struct dec *d); /* what dec_varint leaves */
static inline uint64_t dec_varint(struct dec *d)
{
    /* Most are one byte. */
    return d->rc == 0 && d->at != d->end && *d->at < 0x80 ? *d->at++ : dec_varint_long(d);
}
struct slice dec_bytes(struct dec *d, size_t len_max); /* borrowed from the input */
void dec_raw(struct dec *d, void *out, size_t len);    /* zeroes out on error */
struct oid dec_oid(struct dec *d);                     /* all zero (none) or oid_valid */
struct dot dec_dot(struct dec *d);
struct stamp dec_stamp(struct dec *d);
static inline size_t dec_left(const struct dec *d)
{
    return (size_t)(d->end - d->at);
}
void dec_fail(struct dec *d, int rc);        /* first error wins */
int dec_end(const struct dec *d) MUST_CHECK; /* rc, or ERR_MALFORMED if bytes are left */

#endif
