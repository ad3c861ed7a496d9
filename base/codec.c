/* Little-endian writer and bounded reader. One form per value: overlong varints are malformed, so
 * that equal values have equal bytes and hashes. */
#include "base/codec.h"

#include <endian.h>

#include "base/assert.h"

void enc_u8(struct buf *b, uint8_t v)
{
    buf_append(b, &v, 1);
}

void enc_u16(struct buf *b, uint16_t v)
{
    v = htole16(v);
    buf_append(b, &v, sizeof v);
}

void enc_u32(struct buf *b, uint32_t v)
{
    v = htole32(v);
    buf_append(b, &v, sizeof v);
}

void enc_u64(struct buf *b, uint64_t v)
{
    v = htole64(v);
    buf_append(b, &v, sizeof v);
}

void enc_varint(struct buf *b, uint64_t v)
{
    uint8_t out[10];
    size_t len = 0;
    while (v >= 0x80) {
        out[len++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    out[len++] = (uint8_t)v;
    buf_append(b, out, len);
}

void enc_bytes(struct buf *b, struct slice s)
{
    enc_varint(b, s.len);
    buf_append(b, s.ptr, s.len);
}

void enc_raw(struct buf *b, const void *ptr, size_t len)
{
    buf_append(b, ptr, len);
}

void enc_oid(struct buf *b, struct oid o)
{
    buf_append(b, o.b, sizeof o.b);
}

void enc_dot(struct buf *b, struct dot d)
{
    enc_varint(b, d.shard);
    enc_varint(b, d.site);
    enc_varint(b, d.seq);
}

void enc_stamp(struct buf *b, struct stamp s)
{
    enc_u64(b, s.hlc);
    enc_u32(b, s.site);
}

void dec_fail(struct dec *d, int rc)
{
    ASSERT(rc < 0);
    if (d->rc == 0)
        d->rc = rc;
}

/* The next len bytes, or NULL after noting that they are not there. */
static const uint8_t *dec_take(struct dec *d, size_t len)
{
    if (d->rc != 0)
        return NULL;
    if (len > dec_left(d)) {
        dec_fail(d, ERR_TRUNCATED);
        return NULL;
    }
    const uint8_t *from = d->at;
    if (len > 0)
        d->at += len;
    return from;
}

uint8_t dec_u8(struct dec *d)
{
    const uint8_t *from = dec_take(d, 1);
    return from == NULL ? 0 : *from;
}

uint16_t dec_u16(struct dec *d)
{
    uint16_t v = 0;
    const uint8_t *from = dec_take(d, sizeof v);
    if (from != NULL)
        memcpy(&v, from, sizeof v);
    return le16toh(v);
}

uint32_t dec_u32(struct dec *d)
{
    uint32_t v = 0;
    const uint8_t *from = dec_take(d, sizeof v);
    if (from != NULL)
        memcpy(&v, from, sizeof v);
    return le32toh(v);
}

uint64_t dec_u64(struct dec *d)
{
    uint64_t v = 0;
    const uint8_t *from = dec_take(d, sizeof v);
    if (from != NULL)
        memcpy(&v, from, sizeof v);
    return le64toh(v);
}

uint64_t dec_varint_long(struct dec *d)
{
    uint64_t v = 0;
    if (d->rc != 0)
        return 0;
    const uint8_t *at = d->at;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (at == d->end) {
            dec_fail(d, ERR_TRUNCATED);
            return 0;
        }
        uint8_t byte = *at++;
        if (shift == 63 && byte > 1)
            break; /* more than 64 bits */
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            if (byte == 0 && shift > 0)
                break; /* overlong */
            d->at = at;
            return v;
        }
    }
    dec_fail(d, ERR_MALFORMED);
    return 0;
}

struct slice dec_bytes(struct dec *d, size_t len_max)
{
    uint64_t len = dec_varint(d);
    if (d->rc == 0 && len > len_max)
        dec_fail(d, ERR_MALFORMED);
    const uint8_t *from = dec_take(d, (size_t)len);
    return d->rc == 0 ? slice_of(from, (size_t)len) : slice_of(NULL, 0);
}

void dec_raw(struct dec *d, void *out, size_t len)
{
    const uint8_t *from = dec_take(d, len);
    if (len == 0)
        return;
    if (from == NULL)
        memset(out, 0, len);
    else
        memcpy(out, from, len);
}

struct oid dec_oid(struct dec *d)
{
    static const struct oid none = {.b = {0}};
    struct oid o;
    dec_raw(d, o.b, sizeof o.b);
    if (d->rc == 0 && !oid_valid(o) && !oid_equal(o, none)) {
        dec_fail(d, ERR_MALFORMED);
        return none;
    }
    return o;
}

struct dot dec_dot(struct dec *d)
{
    uint64_t shard = dec_varint(d), site = dec_varint(d), seq = dec_varint(d);
    if (shard > UINT16_MAX || site > UINT32_MAX)
        dec_fail(d, ERR_MALFORMED);
    if (d->rc != 0)
        return (struct dot){0};
    return (struct dot){.seq = seq, .site = (site_id_t)site, .shard = (shard_id_t)shard};
}

struct stamp dec_stamp(struct dec *d)
{
    uint64_t hlc = dec_u64(d);
    site_id_t site = dec_u32(d);
    if (d->rc != 0)
        return (struct stamp){0};
    return (struct stamp){.hlc = hlc, .site = site};
}

int dec_end(const struct dec *d)
{
    if (d->rc != 0)
        return d->rc;
    return d->at == d->end ? 0 : ERR_MALFORMED;
}
