/* The disk format of the journal's segment files; pure. README.md has the picture.
 *
 * A segment is a header block and then writes, each starting on a block and padded with zeros to
 * one. The CRC of a record is seeded with the log's salt, the number of the segment and the offset
 * in it, so that what an earlier life of the file left behind, what was written to a wrong place,
 * and what users put into payloads can never pass for a record. */
#ifndef JOURNAL_LOG_FORMAT_INT_H
#define JOURNAL_LOG_FORMAT_INT_H

#include "base/err.h"
#include "journal/log.h"

#define LOG_BLOCK 4096u
#define LOG_RECORD_HEADER 32u
#define LOG_RECORD_ALIGN 8u
#define LOG_FORMAT_VERSION 1u
#define LOG_SEGMENT_BYTES_MAX (256u * MIB)

/* The file was used before: bytes behind the end may be an earlier life's. */
#define LOG_HEADER_RECYCLED 1u
/* Nothing in lower segments counts: the log was reset here. */
#define LOG_HEADER_RESET 2u
/* Of lower segments, records from this one's first on do not count: the log was cut here. */
#define LOG_HEADER_CUT 4u

struct log_header {
    uint64_t salt;   /* random, the same in all segments of a log */
    uint64_t number; /* of the segment, from its name; never used twice in a log */
    uint64_t first;  /* index of its first record */
    uint64_t bytes;  /* of the file, a multiple of LOG_BLOCK */
    uint32_t flags;
};
void log_header_encode(const struct log_header *header, uint8_t out[LOG_BLOCK]);
/* ERR_MALFORMED: no header; ERR_VERSION: a later format; ERR_CORRUPT: it was one. */
int log_header_decode(const uint8_t block[LOG_BLOCK], struct log_header *ret) MUST_CHECK;

/* Bytes a record takes. */
static inline size_t log_record_bytes(size_t payload_len)
{
    return (LOG_RECORD_HEADER + payload_len + LOG_RECORD_ALIGN - 1) / LOG_RECORD_ALIGN *
           LOG_RECORD_ALIGN;
}
static inline uint64_t log_block_up(uint64_t offset)
{
    return (offset + LOG_BLOCK - 1) / LOG_BLOCK * LOG_BLOCK;
}

/* Where a record is: its identity on disk besides its contents. */
struct log_place {
    uint64_t salt, number, offset;
};
/* Writes the header before a payload of payload_len bytes that is at `at` + LOG_RECORD_HEADER
 * already, and zeros behind it up to log_record_bytes(). durable < index. */
void log_record_seal(uint8_t *at,
                     size_t payload_len,
                     struct log_place place,
                     uint64_t index,
                     uint64_t epoch,
                     uint64_t durable);
/* bytes: from the record's offset on. ERR_TRUNCATED: it goes on behind the slice (*ret_bytes says
 * how long it claims to be, or its header is); ERR_CORRUPT: no record of this place. The payload is
 * borrowed. */
int log_record_decode(struct slice bytes,
                      struct log_place place,
                      struct log_record *ret,
                      uint64_t *ret_durable,
                      size_t *ret_bytes) MUST_CHECK;

/* Walks the records of one segment. Set bytes, base, place (offset at a record or a block) and
 * index; bytes and base may be replaced by a later window between calls. */
struct log_chain {
    struct slice bytes; /* of the segment, from offset base on */
    uint64_t base;
    struct log_place place; /* where the next record is expected */
    uint64_t index;         /* and its index */
    uint64_t end;           /* behind the last good record */
};
enum log_step {
    LOG_STEP_RECORD, /* *ret is it; place and index have moved on */
    LOG_STEP_MORE,   /* it may go on behind bytes: *ret_bytes are wanted from place.offset on */
    LOG_STEP_END     /* no record `index` where it has to be: at place.offset, which is behind the
                      * padding of the write before if that was zero */
};
enum log_step log_chain_next(struct log_chain *chain, struct log_record *ret, size_t *ret_bytes);

/* What there is behind a break of the chain at place.offset: records that prove later writes.
 * chain->base is 0 and bytes is the whole file. */
struct log_evidence {
    uint64_t durable; /* highest index any of them calls durable; 0 when none */
    uint64_t end;     /* behind the last trace of the segment's present life, or the break */
};
void log_evidence_find(const struct log_chain *chain, bool recycled, struct log_evidence *ret);
/* Is the break a damaged or lost write of which later ones know, so that it must not be cut? */
bool log_break_is_damage(const struct log_chain *chain, uint64_t durable);

#endif
