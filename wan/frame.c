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
    buf_deinit(&r->early);
    *r = (struct frame_reader){0};
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

/* The frame there, which stays; checked: its checksum, too. */
static int
frame_at(const struct frame_reader *r, size_t at, bool checked, struct frame *ret, bool *ret_got)
{
    size_t left = r->bytes.len - at;
    *ret_got = false;
    if (left < FRAME_HEADER_BYTES)
        return 0;
    const uint8_t *header = r->bytes.ptr + at;
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
    if (checked && frame_crc(header, payload) != crc)
        return ERR_CORRUPT;
    *ret = (struct frame){.type = (enum frame_type)type, .payload = payload};
    *ret_got = true;
    return 0;
}

int frame_reader_next(struct frame_reader *r, struct frame *ret, bool *ret_got)
{
    int rc = frame_at(r, r->at, true, ret, ret_got);
    if (rc != 0 || !*ret_got)
        return rc;
    r->at += frame_bytes(ret);
    if (r->ahead > 0) {
        r->ahead -= frame_bytes(ret);
        r->ahead_batches -= ret->type == FRAME_BATCH;
    }
    return 0;
}

static void frame_cut(struct frame_reader *r, size_t at, size_t len)
{
    buf_clear(&r->early);
    buf_append(&r->early, r->bytes.ptr + at, len);
    memmove(r->bytes.ptr + at, r->bytes.ptr + at + len, r->bytes.len - at - len);
    r->bytes.len -= len;
}

bool frame_reader_heartbeat(struct frame_reader *r, struct frame *ret, uint64_t *ret_batches)
{
    for (;;) {
        struct frame f;
        bool got;
        size_t at = r->at + r->ahead;
        if (frame_at(r, at, false, &f, &got) != 0 || !got)
            return false;
        if (f.type != FRAME_HEARTBEAT) {
            r->ahead += frame_bytes(&f);
            r->ahead_batches += f.type == FRAME_BATCH;
            continue;
        }
        if (frame_at(r, at, true, &f, &got) != 0)
            return false;
        size_t len = frame_bytes(&f);
        frame_cut(r, at, len);
        *ret = (struct frame){
            .type = f.type,
            .payload = slice_of(r->early.ptr + FRAME_HEADER_BYTES, len - FRAME_HEADER_BYTES)};
        *ret_batches = r->ahead_batches;
        return true;
    }
}
