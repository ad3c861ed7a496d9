/* Encoding, checking and walking of segment files. Pure; every byte may be hostile. */
#include "journal/log_format_int.h"

#include <string.h>

#include <isa-l.h>

#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"
#include "base/plant.h"

static const uint8_t MAGIC[8] = {'C', 'F', 'S', 'J', 'R', 'N', 'L', '1'};
#define HEADER_BYTES 56u /* with the CRC, which is last */

static uint32_t crc32c(uint32_t seed, const void *ptr, size_t len)
{
    /* isa-l's prototype lacks the const; it only reads. */
    union {
        const void *in;
        unsigned char *out;
    } bytes = {.in = ptr};
    ASSERT(len <= INT32_MAX);
    return crc32_iscsi(bytes.out, (int)len, seed);
}

static bool all_zero(const uint8_t *ptr, size_t len)
{
    return len == 0 || (ptr[0] == 0 && memcmp(ptr, ptr + 1, len - 1) == 0);
}

/* ---- header ---- */

void log_header_encode(const struct log_header *header, uint8_t out[LOG_BLOCK])
{
    struct buf b = {0};
    enc_raw(&b, MAGIC, sizeof MAGIC);
    enc_u32(&b, LOG_FORMAT_VERSION);
    enc_u32(&b, 0); /* feature bits: none yet; unknown ones make a reader refuse */
    enc_u64(&b, header->salt);
    enc_u64(&b, header->number);
    enc_u64(&b, header->first);
    enc_u64(&b, header->bytes);
    enc_u32(&b, header->flags);
    enc_u32(&b, crc32c(~0u, b.ptr, b.len));
    ASSERT_EQ(b.len, HEADER_BYTES);
    memset(out, 0, LOG_BLOCK);
    memcpy(out, b.ptr, b.len);
    buf_deinit(&b);
}

int log_header_decode(const uint8_t block[LOG_BLOCK], struct log_header *ret)
{
    struct dec d = dec_of(slice_of(block, HEADER_BYTES));
    uint8_t magic[sizeof MAGIC];
    dec_raw(&d, magic, sizeof magic);
    if (memcmp(magic, MAGIC, sizeof magic) != 0)
        return ERR_MALFORMED;
    uint32_t version = dec_u32(&d);
    uint32_t features = dec_u32(&d);
    struct log_header h = {.salt = dec_u64(&d)};
    h.number = dec_u64(&d);
    h.first = dec_u64(&d);
    h.bytes = dec_u64(&d);
    h.flags = dec_u32(&d);
    if (dec_u32(&d) != crc32c(~0u, block, HEADER_BYTES - sizeof(uint32_t)))
        return ERR_CORRUPT;
    if (version != LOG_FORMAT_VERSION || features != 0)
        return ERR_VERSION;
    if (h.bytes % LOG_BLOCK != 0 || h.bytes < 2 * LOG_BLOCK || h.bytes > LOG_SEGMENT_BYTES_MAX ||
        h.first == 0 ||
        (h.flags & ~(LOG_HEADER_RECYCLED | LOG_HEADER_RESET | LOG_HEADER_CUT)) != 0 ||
        !all_zero(block + HEADER_BYTES, LOG_BLOCK - HEADER_BYTES))
        return ERR_CORRUPT;
    *ret = h;
    return 0;
}

/* ---- records ---- */

/* crc 4, payload length 4, low half of the segment's number 4, index - durable 4, index 8,
 * epoch 8; all little endian. */
struct record_head {
    uint32_t crc, len, segment, behind;
    uint64_t index, epoch;
};

static void put_u32(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static void put_u64(uint8_t *at, uint64_t v)
{
    put_u32(at, (uint32_t)v);
    put_u32(at + 4, (uint32_t)(v >> 32));
}

static uint32_t record_crc(const uint8_t *at, size_t payload_len, struct log_place place)
{
    uint8_t seed[24];
    put_u64(seed, place.salt);
    put_u64(seed + 8, place.number);
    put_u64(seed + 16, place.offset);
    uint32_t crc = crc32c(~0u, seed, sizeof seed);
    return crc32c(crc, at + 4, LOG_RECORD_HEADER - 4 + payload_len);
}

void log_record_seal(uint8_t *at,
                     size_t payload_len,
                     struct log_place place,
                     uint64_t index,
                     uint64_t epoch,
                     uint64_t durable)
{
    ASSERT(payload_len >= 1 && payload_len <= LIMIT_RECORD_BYTES);
    ASSERT(durable < index && index - durable <= UINT32_MAX);
    put_u32(at + 4, (uint32_t)payload_len);
    put_u32(at + 8, (uint32_t)place.number);
    put_u32(at + 12, (uint32_t)(index - durable));
    put_u64(at + 16, index);
    put_u64(at + 24, epoch);
    size_t used = LOG_RECORD_HEADER + payload_len;
    memset(at + used, 0, log_record_bytes(payload_len) - used);
    put_u32(at, record_crc(at, payload_len, place));
}

/* Reads the fields; false when they cannot be those of a record of this segment. */
static bool record_head_decode(struct slice bytes, struct log_place place, struct record_head *ret)
{
    struct dec d = dec_of(bytes);
    ret->crc = dec_u32(&d);
    ret->len = dec_u32(&d);
    ret->segment = dec_u32(&d);
    ret->behind = dec_u32(&d);
    ret->index = dec_u64(&d);
    ret->epoch = dec_u64(&d);
    return d.rc == 0 && ret->len >= 1 && ret->len <= LIMIT_RECORD_BYTES &&
           ret->segment == (uint32_t)place.number && ret->behind >= 1 && ret->behind <= ret->index;
}

int log_record_decode(struct slice bytes,
                      struct log_place place,
                      struct log_record *ret,
                      uint64_t *ret_durable,
                      size_t *ret_bytes)
{
    struct record_head head;
    *ret_bytes = LOG_RECORD_HEADER;
    if (bytes.len < LOG_RECORD_HEADER)
        return ERR_TRUNCATED;
    if (!record_head_decode(bytes, place, &head))
        return ERR_CORRUPT;
    size_t used = LOG_RECORD_HEADER + head.len;
    size_t len = log_record_bytes(head.len);
    *ret_bytes = len;
    if (bytes.len < len)
        return ERR_TRUNCATED;
    if (!PLANTED(53) && (head.crc != record_crc(bytes.ptr, head.len, place) ||
                         !all_zero(bytes.ptr + used, len - used)))
        return ERR_CORRUPT;
    *ret = (struct log_record){.index = head.index,
                               .epoch = head.epoch,
                               .payload = slice_of(bytes.ptr + LOG_RECORD_HEADER, head.len)};
    *ret_durable = head.index - head.behind;
    return 0;
}

/* ---- walking ---- */

static struct slice chain_rest(const struct log_chain *chain, uint64_t offset)
{
    ASSERT(offset >= chain->base);
    uint64_t skip = offset - chain->base;
    if (skip >= chain->bytes.len)
        return slice_of(NULL, 0);
    return slice_of(chain->bytes.ptr + skip, chain->bytes.len - (size_t)skip);
}

enum log_step log_chain_next(struct log_chain *chain, struct log_record *ret, size_t *ret_bytes)
{
    struct slice rest = chain_rest(chain, chain->place.offset);
    uint64_t to_block = log_block_up(chain->place.offset) - chain->place.offset;
    *ret_bytes = LOG_BLOCK;
    if (to_block > rest.len || rest.len == 0)
        return LOG_STEP_MORE;
    if (to_block > 0 && all_zero(rest.ptr, (size_t)to_block)) {
        chain->place.offset += to_block;
        rest = chain_rest(chain, chain->place.offset);
        if (rest.len == 0)
            return LOG_STEP_MORE;
    }
    uint64_t durable;
    int rc = log_record_decode(rest, chain->place, ret, &durable, ret_bytes);
    if (rc == ERR_TRUNCATED)
        return LOG_STEP_MORE;
    if (rc != 0 || ret->index != chain->index)
        return LOG_STEP_END;
    chain->place.offset += *ret_bytes;
    chain->index++;
    chain->end = chain->place.offset;
    return LOG_STEP_RECORD;
}

/* Behind the last byte of the segment that is not zero; at least `from`. */
static uint64_t last_nonzero(const struct log_chain *chain, uint64_t from)
{
    uint64_t end = chain->bytes.len;
    while (end > from && chain->bytes.ptr[end - 1] == 0)
        end--;
    return MAX(end, from);
}

void log_evidence_find(const struct log_chain *chain, bool recycled, struct log_evidence *ret)
{
    uint64_t from = chain->place.offset;
    /* A block whose beginning is of this life is so to its end: what is not zero there is torn. */
    *ret = (struct log_evidence){.durable = 0, .end = log_block_up(from)};
    if (!recycled)
        ret->end = last_nonzero(chain, from);
    struct log_place place = chain->place;
    while (place.offset < chain->bytes.len) {
        struct slice rest = chain_rest(chain, place.offset);
        struct log_record record;
        struct record_head head;
        uint64_t durable;
        size_t len;
        int rc = log_record_decode(rest, place, &record, &durable, &len);
        if (rc == 0 && record.index >= chain->index) {
            ret->durable = MAX(ret->durable, durable);
            place.offset += len;
            ret->end = MAX(ret->end, place.offset);
            continue;
        }
        /* The beginning of a record that was meant to be here, its rest torn off. */
        if (record_head_decode(rest, place, &head) && head.index >= chain->index &&
            head.index - chain->index < UINT32_MAX) {
            uint64_t end = place.offset + log_record_bytes(head.len);
            ret->end = MAX(ret->end, MIN(end, chain->bytes.len));
        }
        place.offset = (place.offset / LOG_BLOCK + 1) * LOG_BLOCK;
    }
}

bool log_break_is_damage(const struct log_chain *chain, uint64_t durable)
{
    /* Within a block the break is in the write that holds the record before it; at the start of
     * one it may be a write of its own, which only an index from it on proves complete. */
    bool in_block = chain->place.offset % LOG_BLOCK != 0;
    return durable >= chain->index - (in_block ? 1 : 0) && durable > 0;
}
