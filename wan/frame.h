/* Frames inside the bodies of HTTP/2 requests and responses between sites.
 *
 *   u32 length of the payload | u8 type | u8 zero | u16 zero | u32 CRC32C | payload
 *
 * little endian; the checksum covers the first eight bytes and the payload. TLS already keeps
 * others from changing bytes; the checksum finds our own mistakes and bad memory. A core. */
#ifndef WAN_FRAME_H
#define WAN_FRAME_H

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"

#define FRAME_HEADER_BYTES 12u
/* A full batch that zstd could not shrink, and its header. */
#define FRAME_PAYLOAD_MAX (LIMIT_BATCH_BYTES + 128u * 1024u)

enum frame_type {
    FRAME_HELLO = 1,   /* receiver: who I am, what I have, where to begin */
    FRAME_WELCOME,     /* sender: agreed; what I have of you */
    FRAME_BATCH,       /* sender: operations, compressed along the stream */
    FRAME_HEARTBEAT,   /* sender: how far I am */
    FRAME_ACK,         /* receiver: how far I am */
    FRAME_PROBE,       /* receiver: what is everything up to now? */
    FRAME_PROBE_REPLY, /* sender: this vector */
    FRAME_ERROR,       /* either: why this ends */
    FRAME_PAGE,        /* snapshot page, compressed along the stream */
    FRAME_END,         /* end of a snapshot */
    FRAME_TYPE_END
};
struct frame {
    enum frame_type type;
    struct slice payload; /* borrowed from the reader until its next call */
};

void frame_encode(struct buf *out, enum frame_type type, struct slice payload);

/* Cuts a byte stream into frames. Zeroed is empty and valid. */
struct frame_reader {
    struct buf bytes; /* what has come and was not handed out */
    size_t at;        /* consumed prefix of bytes */
    /* Behind `at`, what was looked through: this many bytes, which are whole frames, and how many
     * batches are among them. */
    size_t ahead;
    uint64_t ahead_batches;
    struct buf early; /* the frame that was handed out last before its turn */
};
void frame_reader_deinit(struct frame_reader *r);
void frame_reader_add(struct frame_reader *r, const void *ptr, size_t len);
/* *ret_got false: more bytes are needed. ERR_TOO_BIG, ERR_MALFORMED (type, reserved bytes),
 * ERR_CORRUPT (checksum): the stream is of no use any more. */
int frame_reader_next(struct frame_reader *r, struct frame *ret, bool *ret_got) MUST_CHECK;
/* While frames have to wait: the next heartbeat among those that are there, out of its turn; and
 * how many batches stand before it. What cannot be read is told when it is its turn. */
bool frame_reader_heartbeat(struct frame_reader *r, struct frame *ret, uint64_t *ret_batches);
static inline size_t frame_bytes(const struct frame *f)
{
    return FRAME_HEADER_BYTES + f->payload.len;
}

#endif
