/* The chunk pipeline: plaintext <-> sealed chunk, and the chunk's id.
 *
 * Sealing: HMAC-SHA-256 under the hash key gives the id; zstd level 1, skipped when the first
 * 64 KiB or the whole do not shrink by a sixteenth; AES-256-GCM (OpenSSL) with a key of its own, or
 * XChaCha20-Poly1305 (libsodium) where the CPU has no AES. Deterministic: equal plaintext gives
 * equal sealed bytes wherever compressor version and cipher agree, and an equal id everywhere.
 * Opening: checks the form, the tag, the decompressed length, and the id (P8).
 *
 * Sealed form, little endian, CHUNK_HEADER_BYTES of header, then body, then a 16-byte tag:
 *   0 magic "CFK1"   4 version u8   5 flags u8   6 zero u16   8 plain_len u32   12 body_len u32
 *   16 encoder u32 (zstd's version and level, 0 when not compressed)   20 zero u32
 * Key = BLAKE2b(chunk master key; header || id), associated data = header || id, nonce zero. The
 * header is in the key because it decides the body: a body encoded in another way (another zstd
 * version, compressed or not) is encrypted under another key, so no key is ever used twice for
 * different bytes (D2).
 *
 * Threads: one pipeline per thread; a pipeline holds crypto and zstd contexts and scratch. */
#ifndef DATA_CHUNK_H
#define DATA_CHUNK_H

#include "base/buf.h"
#include "base/err.h"
#include "data/chunk_id.h"
#include "data/keys.h"

#define CHUNK_HEADER_BYTES 24u
#define CHUNK_TAG_BYTES 16u
#define CHUNK_OVERHEAD_BYTES (CHUNK_HEADER_BYTES + CHUNK_TAG_BYTES)

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

/* The id of `plain` (1 .. LIMIT_CHUNK_BYTES bytes). */
int chunk_hash(struct pipeline *p, struct slice plain, struct chunk_id *ret) MUST_CHECK;
/* Appends the sealed form to `out` (at most plain.len + CHUNK_OVERHEAD_BYTES) and gives the id.
 * plain.len 1 .. LIMIT_CHUNK_BYTES, else ERR_INVALID. `plain` must not lie inside `out`. */
int chunk_seal(struct pipeline *p, struct slice plain, struct buf *out, struct chunk_id *ret_id)
    MUST_CHECK;
/* The same when the id was computed before by chunk_hash() of the same bytes (dedup: hash, ask
 * whether it is there, seal only if not). */
int chunk_seal_as(struct pipeline *p,
                  const struct chunk_id *id,
                  struct slice plain,
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
    uint32_t plain_len; /* 1 .. LIMIT_CHUNK_BYTES */
    uint32_t body_len;  /* sealed length = CHUNK_OVERHEAD_BYTES + body_len */
    uint32_t encoder;   /* 0: not compressed */
    bool compressed;
    enum chunk_cipher cipher;
};
int chunk_info_decode(struct slice sealed, struct chunk_info *ret) MUST_CHECK;
/* plain_len of it; of what is no sealed chunk its own length. */
uint32_t chunk_plain_len(struct slice sealed);

/* Length without trailing zero bytes: what of a block is chunked (see data/manifest.h). */
size_t block_trim(const void *block, size_t len);

#endif
