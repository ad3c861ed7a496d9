/* The bytes of a segment file. See data/store_format.h. */
#include "data/store_format.h"

#include <isa-l/crc.h>

#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"
#include "base/plant.h"

#define SEGMENT_MAGIC 0x47534643u /* "CFSG" */
#define RECORD_MAGIC 0x52534643u  /* "CFSR" */
#define SEGMENT_SUMMED_BYTES 32u
#define RECORD_SUMMED_BYTES (STORE_RECORD_HEADER_BYTES - 8u)

static uint32_t crc32c(const uint8_t *ptr, size_t len)
{
    ASSERT(len <= INT32_MAX);
    /* isa-l takes a pointer to data it does not change without saying so. */
    return crc32_iscsi((unsigned char *)(uintptr_t)ptr, (int)len, 0xffffffffu) ^ 0xffffffffu;
}

static void put_le(uint8_t **at, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *(*at)++ = (uint8_t)(v >> (8 * i));
}

void segment_header_encode(const struct segment_header *h, uint8_t out[STORE_BLOCK_BYTES])
{
    memset(out, 0, STORE_BLOCK_BYTES);
    uint8_t *at = out;
    put_le(&at, SEGMENT_MAGIC, 4);
    put_le(&at, STORE_VERSION, 4);
    put_le(&at, h->number, 8);
    memcpy(at, h->store_id, sizeof h->store_id);
    at += sizeof h->store_id;
    ASSERT_EQ(at, out + SEGMENT_SUMMED_BYTES);
    put_le(&at, crc32c(out, SEGMENT_SUMMED_BYTES), 4);
}

int segment_header_decode(struct slice block, struct segment_header *ret)
{
    struct segment_header h;
    struct dec d = dec_of(block);
    uint32_t magic = dec_u32(&d);
    uint32_t version = dec_u32(&d);
    h.number = dec_u64(&d);
    dec_raw(&d, h.store_id, sizeof h.store_id);
    uint32_t crc = dec_u32(&d);
    if (d.rc != 0)
        return d.rc;
    if (magic != SEGMENT_MAGIC)
        return ERR_MALFORMED;
    if (crc != crc32c(block.ptr, SEGMENT_SUMMED_BYTES))
        return ERR_CORRUPT;
    if (version != STORE_VERSION)
        return ERR_VERSION;
    *ret = h;
    return 0;
}

void segment_record_encode(struct record *r, const uint8_t *data, uint8_t *out)
{
    ASSERT(r->len > 0 && r->len <= LIMIT_CHUNK_SEALED_BYTES);
    /* The copy is summed, as the original may belong to somebody who writes to it. */
    memcpy(out + STORE_RECORD_HEADER_BYTES, data, r->len);
    r->crc = crc32c(out + STORE_RECORD_HEADER_BYTES, r->len);
    uint8_t *at = out + 8;
    memcpy(at, r->id.b, CHUNK_ID_BYTES);
    at += CHUNK_ID_BYTES;
    put_le(&at, r->len, 4);
    put_le(&at, r->crc, 4);
    put_le(&at, r->epoch, 8);
    put_le(&at, r->segment_low, 4);
    put_le(&at, r->group, 4);
    ASSERT_EQ(at, out + STORE_RECORD_HEADER_BYTES);
    uint8_t *head = out;
    put_le(&head, RECORD_MAGIC, 4);
    put_le(&head, crc32c(out + 8, RECORD_SUMMED_BYTES), 4);
    size_t used = STORE_RECORD_HEADER_BYTES + (size_t)r->len;
    memset(out + used, 0, record_bytes(r->len) - used);
}

int segment_record_decode(struct slice at, struct record *ret)
{
    if (at.len < STORE_RECORD_HEADER_BYTES)
        return ERR_TRUNCATED;
    struct dec d = dec_of(slice_of(at.ptr, STORE_RECORD_HEADER_BYTES));
    uint32_t magic = dec_u32(&d);
    uint32_t crc = dec_u32(&d);
    if (magic != RECORD_MAGIC)
        return ERR_MALFORMED;
    if (crc != crc32c(at.ptr + 8, RECORD_SUMMED_BYTES))
        return ERR_CORRUPT;
    struct record r;
    dec_raw(&d, r.id.b, CHUNK_ID_BYTES);
    r.len = dec_u32(&d);
    r.crc = dec_u32(&d);
    r.epoch = dec_u64(&d);
    r.segment_low = dec_u32(&d);
    r.group = dec_u32(&d);
    if (dec_end(&d) != 0 || r.len == 0 || r.len > LIMIT_CHUNK_SEALED_BYTES ||
        chunk_id_is_hole(&r.id))
        return ERR_CORRUPT;
    *ret = r;
    return 0;
}

bool record_data_good(const struct record *r, const uint8_t *data)
{
    return PLANTED(54) || crc32c(data, r->len) == r->crc;
}

static bool all_zero(const uint8_t *ptr, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (ptr[i] != 0)
            return false;
    }
    return true;
}

enum scan_kind record_scan_next(struct record_scan *s)
{
    uint64_t end = s->base + s->bytes.len;
    while (s->at + STORE_RECORD_HEADER_BYTES <= end) {
        struct slice here = slice_of(s->bytes.ptr + (s->at - s->base), (size_t)(end - s->at));
        s->offset = s->at;
        int rc = segment_record_decode(here, &s->record);
        if (rc == 0 && s->record.segment_low == (uint32_t)s->number) {
            s->data = here.ptr + STORE_RECORD_HEADER_BYTES;
            if (STORE_RECORD_HEADER_BYTES + (uint64_t)s->record.len > here.len)
                return SCAN_MORE;
            s->at += record_bytes(s->record.len); /* the header's CRC vouches for the length */
            return record_data_good(&s->record, s->data) ? SCAN_RECORD : SCAN_BAD;
        }
        uint64_t next = align_up(s->at + 1, STORE_BLOCK_BYTES);
        s->at = next;
        if (!all_zero(here.ptr, (size_t)(MIN(next, end) - s->offset)))
            return SCAN_JUNK;
    }
    return SCAN_END;
}
