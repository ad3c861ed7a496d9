/* Private to data/: the bytes of a segment file. Core.
 *
 * A segment is a header block of 4096 bytes, then groups; a group is what one write carried:
 * records at multiples of 64, padded with zeros to a multiple of 4096. All little endian. header
 * magic "CFSG"   version u32   number u64   store id 16   crc32c of these 32 bytes u32 record magic
 * "CFSR"   crc32c of the header's other 56 bytes u32   id 32   len u32 crc32c of the data u32 epoch
 * u64   segment number, low half u32   group u32   data Groups are numbered in a segment; a group
 * is written only when the one before is on disk. So a bad record is a torn write if it is in the
 * last group, and damage anywhere else. */
#ifndef DATA_STORE_FORMAT_H
#define DATA_STORE_FORMAT_H

#include "base/err.h"
#include "data/chunk_id.h"

#define STORE_VERSION 1u
#define STORE_BLOCK_BYTES 4096u /* of O_DIRECT; also the segment header */
#define STORE_RECORD_ALIGN 64u
#define STORE_RECORD_HEADER_BYTES 64u

struct segment_header {
    uint64_t number;
    uint8_t store_id[16];
};
void segment_header_encode(const struct segment_header *h, uint8_t out[STORE_BLOCK_BYTES]);
/* ERR_TRUNCATED, ERR_MALFORMED, ERR_VERSION, ERR_CORRUPT. */
int segment_header_decode(struct slice block, struct segment_header *ret) MUST_CHECK;

struct record {
    struct chunk_id id;
    uint64_t epoch;
    uint32_t len;
    uint32_t crc; /* of the data */
    uint32_t segment_low;
    uint32_t group;
};
static inline uint64_t align_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}
/* Room that a record takes in a group. */
static inline uint64_t record_bytes(uint32_t len)
{
    return align_up(STORE_RECORD_HEADER_BYTES + (uint64_t)len, STORE_RECORD_ALIGN);
}
/* Header and data at `out`, zero padding up to record_bytes(); sets r->crc. */
void segment_record_encode(struct record *r, const uint8_t *data, uint8_t *out);
/* The header only. ERR_TRUNCATED, ERR_MALFORMED (no record here), ERR_CORRUPT. */
int segment_record_decode(struct slice at, struct record *ret) MUST_CHECK;
bool record_data_good(const struct record *r, const uint8_t *data);

/* Finds the records of segment `number` in its bytes [at, end), where `bytes` starts at file offset
 * `base`. Passes over padding, and over what is no record, at block boundaries. */
enum scan_kind {
    SCAN_RECORD, /* good */
    SCAN_BAD,    /* the header is good, the data is not */
    SCAN_MORE,   /* a good header whose data goes beyond the bytes given: give more from `offset` */
    SCAN_JUNK,   /* up to the next block boundary: neither record nor zeros */
    SCAN_END
};
struct record_scan {
    struct slice bytes;
    uint64_t base; /* file offset of bytes.ptr[0]; a multiple of 64 */
    uint64_t number;
    uint64_t at; /* file offset of what comes next */
    /* Result of the last step. */
    struct record record;
    uint64_t offset; /* file offset of the record or the junk */
    const uint8_t *data;
};
enum scan_kind record_scan_next(struct record_scan *s);

#endif
