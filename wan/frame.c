/* Framing; see frame.h. */
#include "wan/frame.h"

#include <isa-l/crc.h>

#include "base/assert.h"
#include "base/codec.h"

#define CHECKED_HEADER_BYTES 8u

static uint32_t frame_crc(const uint8_t *header, struct slice payload)
{
    /* isa-l takes a plain pointer and an int length and only reads. */
    uint8_t head[CHECKED_HEADER_BYTES];
    memcpy(head, header, sizeof head);
    uint32_t crc = crc32_iscsi(head, (int)sizeof head, UINT32_MAX);
    if (payload.len > 0)
        crc = crc32_iscsi((unsigned char *)(uintptr_t)payload.ptr, (int)payload.len, crc);
    return ~crc;
}

void frame_encode(struct buf *out, enum frame_type type, struct slice payload)
{
    ASSERT(payload.len <= FRAME_PAYLOAD_MAX);
    ASSERT(type > 0 && type < FRAME_TYPE_END);
    buf_reserve(out, FRAME_HEADER_BYTES + payload.len);
    size_t start = out->len;
    enc_u32(out, (uint32_t)payload.len);
    enc_u8(out, (uint8_t)type);
    enc_u8(out, 0);
    enc_u16(out, 0);
    enc_u32(out, frame_crc(out->ptr + start, payload));
    enc_raw(out, payload.ptr, payload.len);
}

void frame_reader_deinit(struct frame_reader *r)
{
    buf_deinit(&r->bytes);
    r->at = 0;
}

void frame_reader_add(struct frame_reader *r, const void *ptr, size_t len)
{
    if (r->at > 0) {
        size_t left = r->bytes.len - r->at;
        if (left > 0)
            memmove(r->bytes.ptr, r->bytes.ptr + r->at, left);
        r->bytes.len = left;
        r->at = 0;
    }
    buf_append(&r->bytes, ptr, len);
}

int frame_reader_next(struct frame_reader *r, struct frame *ret, bool *ret_got)
{
    size_t left = r->bytes.len - r->at;
    *ret_got = false;
    if (left < FRAME_HEADER_BYTES)
        return 0;
    const uint8_t *header = r->bytes.ptr + r->at;
    struct dec d = dec_of(slice_of(header, FRAME_HEADER_BYTES));
    uint32_t len = dec_u32(&d);
    uint8_t type = dec_u8(&d), zero = dec_u8(&d);
    uint16_t zeros = dec_u16(&d);
    uint32_t crc = dec_u32(&d);
    if (len > FRAME_PAYLOAD_MAX)
        return ERR_TOO_BIG;
    if (type == 0 || type >= FRAME_TYPE_END || zero != 0 || zeros != 0)
        return ERR_MALFORMED;
    if (left - FRAME_HEADER_BYTES < len)
        return 0;
    struct slice payload = slice_of(header + FRAME_HEADER_BYTES, len);
    if (frame_crc(header, payload) != crc)
        return ERR_CORRUPT;
    r->at += FRAME_HEADER_BYTES + len;
    *ret = (struct frame){.type = (enum frame_type)type, .payload = payload};
    *ret_got = true;
    return 0;
}
