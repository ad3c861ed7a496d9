/* The chunk pipeline: plaintext <-> sealed chunk, and the chunk's id.
 *
 * Sealing: HMAC-SHA-256 under the hash key gives the id; zstd level 1, skipped when the first part
 * or the whole do not shrink by a sixteenth; AES-256-GCM (OpenSSL) with a key of its own, or
 * XChaCha20-Poly1305 (libsodium) where the CPU has no AES. Deterministic: equal plaintext gives
 * equal sealed bytes wherever compressor version and cipher agree, and an equal id everywhere.
 * Opening: checks the form, the tags, the decompressed lengths, and the id (P8).
 *
 * The plaintext is sealed in parts, so that who wants a little of it need not fetch and open all:
 * each part has a tag of its own, which proves that these bytes are part n of this chunk as
 * somebody who has the file-system key sealed it. That they have the chunk's id is proved by all
 * parts together only.
 *
 * Sealed form (version 2), little endian, CHUNK_HEADER_BYTES of header, then the body:
 *   0 magic "CFK1"   4 version u8   5 flags u8   6 part_shift u8   7 zero u8   8 plain_len u32
 *   12 body_len u32  16 encoder u32 (zstd's version and level, 0: not compressed)   20 zero u32
 * Body: of a compressed chunk first the length u32 of each part without its tag (the length of the
 * plain part: that part is not compressed); then the parts, each followed by a 16-byte tag. A part
 * holds 2^part_shift plain bytes, the last one what is left: 16 KiB, or 64 KiB where compressed.
 * Key = BLAKE2b(chunk master key; header || id), associated data = header || id, nonce = number of
 * the part. The header is in the key because it decides the body: a body encoded in another way
 * (another zstd version, compressed or not) is encrypted under another key, so no key and nonce are
 * ever used twice for different bytes (D2).
 * Version 1, still read: zero in place of part_shift, no lengths, the body (body_len is without the
 * tag) as one part.
 *
 * Threads: one pipeline per thread; a pipeline holds crypto and zstd contexts and scratch. */
#ifndef DATA_CHUNK_H
#define DATA_CHUNK_H

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "data/chunk_id.h"
#include "data/keys.h"

#define CHUNK_HEADER_BYTES 24u
#define CHUNK_TAG_BYTES 16u
#define CHUNK_PART_SHIFT_MIN 14u
#define CHUNK_PART_SHIFT_MAX 22u
#define CHUNK_PARTS_MAX (LIMIT_CHUNK_BYTES >> CHUNK_PART_SHIFT_MIN)
/* Of compressed chunks, whose parts are larger, the table of lengths has fewer entries. */
#define CHUNK_TABLE_PARTS_MAX (LIMIT_CHUNK_BYTES >> 16)
/* What of a sealed chunk says where its parts are. */
#define CHUNK_HEAD_BYTES_MAX (CHUNK_HEADER_BYTES + 4u * CHUNK_TABLE_PARTS_MAX)
#define CHUNK_OVERHEAD_BYTES_MAX (CHUNK_HEAD_BYTES_MAX + CHUNK_PARTS_MAX * CHUNK_TAG_BYTES)

enum chunk_cipher {
    CHUNK_CIPHER_AUTO, /* AES where the CPU has it */
    CHUNK_CIPHER_AES,
    CHUNK_CIPHER_XCHACHA
};
struct pipeline;

/* keys are copied. `cipher` is for sealing only; opening accepts both. ERR_NO_MEMORY, or ERR_FATAL
 * when a crypto library lacks an algorithm. */
int pipeline_new(struct pipeline **ret,
                 const struct fs_keys *keys,
                 enum chunk_cipher cipher) MUST_CHECK;
void pipeline_free(struct pipeline *p); /* accepts NULL; wipes the keys */

/* Plaintext that lies in pieces, CHUNK_PIECE_BYTES each and the last what is left: it need not be
 * put together. */
#define CHUNK_PIECE_BYTES (1u << 16)
#define CHUNK_PIECES_MAX (LIMIT_CHUNK_BYTES / CHUNK_PIECE_BYTES)
struct chunk_pieces {
    const uint8_t *at[CHUNK_PIECES_MAX];
    size_t len; /* of all */
};
void chunk_pieces_of(struct slice plain, struct chunk_pieces *ret); /* len <= LIMIT_CHUNK_BYTES */

/* The id of `plain` (1 .. LIMIT_CHUNK_BYTES bytes). */
int chunk_hash(struct pipeline *p, struct slice plain, struct chunk_id *ret) MUST_CHECK;
int chunk_hash_pieces(struct pipeline *p,
                      const struct chunk_pieces *plain,
                      struct chunk_id *ret) MUST_CHECK;
/* Appends the sealed form to `out` (at most plain.len + CHUNK_OVERHEAD_BYTES_MAX), gives the id.
 * plain.len 1 .. LIMIT_CHUNK_BYTES, else ERR_INVALID. `plain` must not lie inside `out`. */
int chunk_seal(struct pipeline *p, struct slice plain, struct buf *out, struct chunk_id *ret_id)
    MUST_CHECK;
/* The same when the id was computed before by chunk_hash() of the same bytes (dedup: hash, ask
 * whether it is there, seal only if not). */
int chunk_seal_as(struct pipeline *p,
                  const struct chunk_id *id,
                  struct slice plain,
                  struct buf *out) MUST_CHECK;
int chunk_seal_pieces(struct pipeline *p,
                      const struct chunk_id *id,
                      const struct chunk_pieces *plain,
                      struct buf *out) MUST_CHECK;
/* Appends the plaintext to `out`. ERR_TRUNCATED, ERR_MALFORMED, ERR_VERSION: not a sealed chunk.
 * ERR_CORRUPT: the tag or the id does not match. On failure `out` is as before. */
int chunk_open(struct pipeline *p, const struct chunk_id *id, struct slice sealed, struct buf *out)
    MUST_CHECK;
/* Into caller's memory, without a copy in between: ERR_TOO_BIG when the plaintext is longer than
 * `cap`. On failure the first `cap` bytes of `out` are undefined. */
int chunk_open_into(struct pipeline *p,
                    const struct chunk_id *id,
                    struct slice sealed,
                    void *out,
                    size_t cap,
                    size_t *ret_len) MUST_CHECK;

/* What the header says; needs no key. Checked for form and bounds only, nothing is verified. */
struct chunk_info {
    uint32_t plain_len;  /* 1 .. LIMIT_CHUNK_BYTES */
    uint32_t sealed_len; /* of all */
    uint32_t part_bytes; /* plain, of each part but the last */
    uint32_t part_count; /* 1 .. CHUNK_PARTS_MAX */
    uint32_t encoder;    /* 0: not compressed */
    uint8_t version;
    bool compressed;
    enum chunk_cipher cipher;
};
/* `sealed` is a whole chunk. */
int chunk_info_decode(struct slice sealed, struct chunk_info *ret) MUST_CHECK;
/* How long the whole is of which `start` is the beginning, as its header says; 0: that does not
 * say. */
size_t chunk_sealed_len(struct slice start);
/* plain_len of it; of what is no sealed chunk its own length. */
uint32_t chunk_plain_len(struct slice sealed);

/* Where the parts are. */
struct chunk_head {
    uint8_t header[CHUNK_HEADER_BYTES];
    struct chunk_info info;
    uint32_t starts[CHUNK_TABLE_PARTS_MAX + 1]; /* compressed: in the sealed form, and the end */
};
/* `start`: the first CHUNK_HEAD_BYTES_MAX bytes of a chunk that has `sealed_len` (if it has so
 * many; more do not matter). ERR_TRUNCATED, ERR_MALFORMED, ERR_VERSION. */
int chunk_head_decode(struct slice start, size_t sealed_len, struct chunk_head *ret) MUST_CHECK;
/* Of parts [part, part + count), count >= 1: their bytes in the sealed form. */
struct chunk_range {
    uint32_t from, len;
};
struct chunk_range chunk_part_range(const struct chunk_head *h, uint32_t part, uint32_t count);
uint32_t chunk_part_plain_len(const struct chunk_head *h, uint32_t part);
/* Opens one part, exactly the bytes of its range, into chunk_part_plain_len() bytes at `out`.
 * ERR_CORRUPT; then `out` is undefined. */
int chunk_part_open(struct pipeline *p,
                    const struct chunk_id *id,
                    const struct chunk_head *h,
                    uint32_t part,
                    struct slice sealed,
                    uint8_t *out) MUST_CHECK;

/* Length without trailing zero bytes: what of a block is chunked (see data/manifest.h). */
size_t block_trim(const void *block, size_t len);
void block_trim_pieces(struct chunk_pieces *pieces);

#endif
