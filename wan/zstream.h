/* zstd along a stream: each message is compressed with all earlier ones as its dictionary and can
 * be decompressed as soon as it is there. Both sides start anew with every connection. A core. */
#ifndef WAN_ZSTREAM_H
#define WAN_ZSTREAM_H

#include "base/buf.h"
#include "base/err.h"

struct zpack;
struct zunpack;

struct zpack *zpack_new(void);
void zpack_free(struct zpack *z); /* accepts NULL */
/* Appends varint length of `in` and the compressed bytes. */
void zpack_add(struct zpack *z, struct slice in, struct buf *out);

struct zunpack *zunpack_new(void);
void zunpack_free(struct zunpack *z); /* accepts NULL */
/* Replaces `out` by the message in `in`. ERR_TOO_BIG above len_max, ERR_TRUNCATED, ERR_MALFORMED;
 * the stream is of no use after any of them. */
int zunpack_next(struct zunpack *z, struct slice in, size_t len_max, struct buf *out) MUST_CHECK;

#endif
