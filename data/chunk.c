/* The chunk pipeline: hash, compress, encrypt, and back. See data/chunk.h for the form. */
#include "data/chunk.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <sodium.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/assert.h"
#include "base/codec.h"
#include "base/limits.h"
#include "base/plant.h"

#define CHUNK_MAGIC 0x314b4643u /* "CFK1" */
#define CHUNK_VERSION 2u
#define CHUNK_VERSION_WHOLE 1u /* without parts */
#define FLAG_ZSTD 1u
#define FLAG_XCHACHA 2u
#define FLAGS_KNOWN (FLAG_ZSTD | FLAG_XCHACHA)
#define ZSTD_LEVEL 1
#define PAYS_SHIFT 4 /* compression must save a sixteenth */
#define PART_SHIFT_PLAIN 14u
#define PART_SHIFT_COMPRESSED 16u
_Static_assert(1u << PART_SHIFT_COMPRESSED == CHUNK_PIECE_BYTES, "a piece is compressed as a part");

_Static_assert(LIMIT_CHUNK_BYTES + CHUNK_OVERHEAD_BYTES_MAX <= LIMIT_CHUNK_SEALED_BYTES, "fits");
_Static_assert(PART_SHIFT_PLAIN >= CHUNK_PART_SHIFT_MIN, "bounds the number of parts");
_Static_assert(LIMIT_CHUNK_BYTES >> PART_SHIFT_COMPRESSED <= CHUNK_TABLE_PARTS_MAX, "fits");
_Static_assert(CHUNK_ID_BYTES == crypto_auth_hmacsha256_BYTES, "HMAC-SHA-256");

struct pipeline {
    struct fs_keys keys;
    bool xchacha; /* seal with XChaCha20-Poly1305 */
    EVP_MAC *mac;
    EVP_MAC_CTX *mac_ctx; /* keyed once; re-initialised without a key for each chunk */
    EVP_CIPHER *gcm;
    EVP_CIPHER_CTX *seal_ctx;
    EVP_CIPHER_CTX *open_ctx;
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    struct buf scratch; /* a decrypted part that is still compressed */
};

static int mac_new(struct pipeline *p)
{
    p->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    p->mac_ctx = p->mac == NULL ? NULL : EVP_MAC_CTX_new(p->mac);
    if (p->mac_ctx == NULL)
        return ERR_FATAL;
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_MAC_init(p->mac_ctx, p->keys.hash, sizeof p->keys.hash, params) != 1)
        return ERR_FATAL;
    return 0;
}

static int ciphers_new(struct pipeline *p)
{
    p->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    p->seal_ctx = EVP_CIPHER_CTX_new();
    p->open_ctx = EVP_CIPHER_CTX_new();
    if (p->gcm == NULL || p->seal_ctx == NULL || p->open_ctx == NULL)
        return ERR_FATAL;
    if (EVP_EncryptInit_ex2(p->seal_ctx, p->gcm, NULL, NULL, NULL) != 1 ||
        EVP_DecryptInit_ex2(p->open_ctx, p->gcm, NULL, NULL, NULL) != 1)
        return ERR_FATAL;
    return 0;
}

int pipeline_new(struct pipeline **ret, const struct fs_keys *keys, enum chunk_cipher cipher)
{
    if (sodium_init() < 0)
        return ERR_FATAL;
    struct pipeline *p = mem_calloc(1, sizeof *p);
    p->keys = *keys;
    p->xchacha = cipher == CHUNK_CIPHER_XCHACHA ||
                 (cipher == CHUNK_CIPHER_AUTO && !crypto_aead_aes256gcm_is_available());
    int rc = mac_new(p);
    if (rc == 0)
        rc = ciphers_new(p);
    p->compress = ZSTD_createCCtx();
    p->decompress = ZSTD_createDCtx();
    if (rc == 0 && (p->compress == NULL || p->decompress == NULL))
        rc = ERR_NO_MEMORY;
    if (rc != 0) {
        pipeline_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void pipeline_free(struct pipeline *p)
{
    if (p == NULL)
        return;
    EVP_MAC_CTX_free(p->mac_ctx);
    EVP_MAC_free(p->mac);
    EVP_CIPHER_CTX_free(p->seal_ctx);
    EVP_CIPHER_CTX_free(p->open_ctx);
    EVP_CIPHER_free(p->gcm);
    ZSTD_freeCCtx(p->compress);
    ZSTD_freeDCtx(p->decompress);
    if (p->scratch.cap != 0)
        sodium_memzero(p->scratch.ptr, p->scratch.cap);
    buf_deinit(&p->scratch);
    sodium_memzero(p, sizeof *p);
    mem_free(p);
}

void chunk_pieces_of(struct slice plain, struct chunk_pieces *ret)
{
    ASSERT(plain.len <= LIMIT_CHUNK_BYTES);
    ret->len = plain.len;
    for (size_t i = 0; i * CHUNK_PIECE_BYTES < plain.len; i++)
        ret->at[i] = plain.ptr + i * CHUNK_PIECE_BYTES;
}

static size_t piece_len(const struct chunk_pieces *p, size_t i)
{
    return MIN(CHUNK_PIECE_BYTES, p->len - i * CHUNK_PIECE_BYTES);
}

static int hash_begin(struct pipeline *p)
{
    return EVP_MAC_init(p->mac_ctx, NULL, 0, NULL) == 1 ? 0 : ERR_FATAL;
}

static int hash_add(struct pipeline *p, const uint8_t *bytes, size_t len)
{
    return EVP_MAC_update(p->mac_ctx, bytes, len) == 1 ? 0 : ERR_FATAL;
}

static int hash_end(struct pipeline *p, struct chunk_id *ret)
{
    size_t out_len = 0;
    if (EVP_MAC_final(p->mac_ctx, ret->b, &out_len, sizeof ret->b) != 1)
        return ERR_FATAL;
    ASSERT_EQ(out_len, sizeof ret->b);
    /* The zero id means a hole. Nobody will see this hash, but a broken library might. */
    return chunk_id_is_hole(ret) ? ERR_FATAL : 0;
}

int chunk_hash_pieces(struct pipeline *p, const struct chunk_pieces *plain, struct chunk_id *ret)
{
    if (plain->len == 0 || plain->len > LIMIT_CHUNK_BYTES)
        return ERR_INVALID;
    int rc = hash_begin(p);
    for (size_t i = 0; rc == 0 && i * CHUNK_PIECE_BYTES < plain->len; i++)
        rc = hash_add(p, plain->at[i], piece_len(plain, i));
    return rc == 0 ? hash_end(p, ret) : rc;
}

int chunk_hash(struct pipeline *p, struct slice plain, struct chunk_id *ret)
{
    struct chunk_pieces pieces;
    if (plain.len > LIMIT_CHUNK_BYTES)
        return ERR_INVALID;
    chunk_pieces_of(plain, &pieces);
    return chunk_hash_pieces(p, &pieces, ret);
}

/* ---- header and keys ---- */

/* Header, then id: the associated data, and the input of the key derivation. */
struct bound {
    uint8_t b[CHUNK_HEADER_BYTES + CHUNK_ID_BYTES];
};

static void put_u32(uint8_t *at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static void
header_encode(const struct chunk_info *info, const struct chunk_id *id, struct bound *ret)
{
    *ret = (struct bound){0};
    put_u32(ret->b, CHUNK_MAGIC);
    ret->b[4] = CHUNK_VERSION;
    ret->b[5] = (uint8_t)((info->compressed ? FLAG_ZSTD : 0) |
                          (info->cipher == CHUNK_CIPHER_XCHACHA ? FLAG_XCHACHA : 0));
    ret->b[6] = info->compressed ? PART_SHIFT_COMPRESSED : PART_SHIFT_PLAIN;
    put_u32(ret->b + 8, info->plain_len);
    put_u32(ret->b + 12, info->sealed_len - CHUNK_HEADER_BYTES);
    put_u32(ret->b + 16, info->encoder);
    memcpy(ret->b + CHUNK_HEADER_BYTES, id->b, CHUNK_ID_BYTES);
}

/* Bytes that lengths and tags of the parts take. */
static uint32_t parts_overhead(const struct chunk_info *info)
{
    bool table = info->compressed && info->version != CHUNK_VERSION_WHOLE;
    return info->part_count * (CHUNK_TAG_BYTES + (table ? 4u : 0u));
}

/* The parts that `shift` makes of the plaintext; what is known now bounds the length of the body.
 */
static int info_finish(struct chunk_info *info, uint8_t shift, uint32_t body_len)
{
    bool whole = info->version == CHUNK_VERSION_WHOLE;
    uint8_t shift_min = info->compressed ? PART_SHIFT_COMPRESSED : CHUNK_PART_SHIFT_MIN;
    if (whole ? shift != 0 : shift < shift_min || shift > CHUNK_PART_SHIFT_MAX)
        return ERR_MALFORMED;
    info->part_bytes = whole ? info->plain_len : 1u << shift;
    info->part_count = (info->plain_len - 1) / info->part_bytes + 1;
    uint32_t over = parts_overhead(info);
    uint64_t bytes = whole ? (uint64_t)body_len + CHUNK_TAG_BYTES : body_len;
    uint64_t most = (uint64_t)info->plain_len + over;
    if (info->compressed ? bytes < over + info->part_count || bytes >= most : bytes != most)
        return ERR_MALFORMED;
    info->sealed_len = CHUNK_HEADER_BYTES + (uint32_t)bytes;
    return 0;
}

static int header_decode(struct slice sealed, struct chunk_info *ret)
{
    struct dec d = dec_of(sealed);
    uint32_t magic = dec_u32(&d);
    struct chunk_info info = {.version = dec_u8(&d)};
    uint8_t flags = dec_u8(&d);
    uint8_t shift = dec_u8(&d);
    uint8_t zero = dec_u8(&d);
    info.plain_len = dec_u32(&d);
    uint32_t body_len = dec_u32(&d);
    info.encoder = dec_u32(&d);
    uint32_t zero_end = dec_u32(&d);
    if (d.rc != 0)
        return d.rc;
    if (magic != CHUNK_MAGIC)
        return ERR_MALFORMED;
    if (info.version != CHUNK_VERSION && info.version != CHUNK_VERSION_WHOLE)
        return ERR_VERSION;
    info.compressed = (flags & FLAG_ZSTD) != 0;
    info.cipher = (flags & FLAG_XCHACHA) != 0 ? CHUNK_CIPHER_XCHACHA : CHUNK_CIPHER_AES;
    if ((flags & ~FLAGS_KNOWN) != 0 || zero != 0 || zero_end != 0 || info.plain_len == 0 ||
        info.plain_len > LIMIT_CHUNK_BYTES || info.compressed != (info.encoder != 0))
        return ERR_MALFORMED;
    int rc = info_finish(&info, shift, body_len);
    if (rc == 0)
        *ret = info;
    return rc;
}

static int length_check(const struct chunk_info *info, size_t len)
{
    return len < info->sealed_len ? ERR_TRUNCATED : len != info->sealed_len ? ERR_MALFORMED : 0;
}

int chunk_info_decode(struct slice sealed, struct chunk_info *ret)
{
    struct chunk_info info;
    int rc = header_decode(sealed, &info);
    if (rc == 0)
        rc = length_check(&info, sealed.len);
    if (rc == 0)
        *ret = info;
    return rc;
}

/* ---- parts ---- */

uint32_t chunk_part_plain_len(const struct chunk_head *h, uint32_t part)
{
    ASSERT(part < h->info.part_count);
    return MIN(h->info.part_bytes, h->info.plain_len - part * h->info.part_bytes);
}

/* The table of lengths of a compressed chunk; together they are the body. */
static int table_decode(struct slice start, struct chunk_head *h)
{
    const struct chunk_info *info = &h->info;
    struct dec d = dec_of(start);
    d.at += CHUNK_HEADER_BYTES;
    uint32_t at = CHUNK_HEADER_BYTES + 4 * info->part_count;
    for (uint32_t i = 0; i < info->part_count; i++) {
        uint32_t len = dec_u32(&d);
        if (d.rc != 0)
            return d.rc;
        if (len == 0 || len > chunk_part_plain_len(h, i))
            return ERR_MALFORMED;
        h->starts[i] = at;
        at += len + CHUNK_TAG_BYTES;
    }
    h->starts[info->part_count] = at;
    return at == info->sealed_len ? 0 : ERR_MALFORMED;
}

int chunk_head_decode(struct slice start, size_t sealed_len, struct chunk_head *ret)
{
    int rc = header_decode(start, &ret->info);
    if (rc == 0)
        rc = length_check(&ret->info, sealed_len);
    if (rc != 0)
        return rc;
    memcpy(ret->header, start.ptr, sizeof ret->header);
    if (!ret->info.compressed)
        return 0;
    if (ret->info.version != CHUNK_VERSION_WHOLE)
        return table_decode(start, ret);
    ret->starts[0] = CHUNK_HEADER_BYTES;
    ret->starts[1] = ret->info.sealed_len;
    return 0;
}

struct chunk_range chunk_part_range(const struct chunk_head *h, uint32_t part, uint32_t count)
{
    const struct chunk_info *info = &h->info;
    uint32_t end = part + count;
    ASSERT(count >= 1 && end <= info->part_count);
    if (info->compressed)
        return (struct chunk_range){.from = h->starts[part],
                                    .len = h->starts[end] - h->starts[part]};
    uint32_t step = info->part_bytes + CHUNK_TAG_BYTES;
    uint32_t from = CHUNK_HEADER_BYTES + part * step;
    uint32_t to = end == info->part_count ? info->sealed_len : CHUNK_HEADER_BYTES + end * step;
    return (struct chunk_range){.from = from, .len = to - from};
}

/* ---- keys ---- */

struct chunk_key {
    uint8_t b[32];
};
static void key_derive(const struct pipeline *p, const struct bound *bound, struct chunk_key *ret)
{
    int rc = crypto_generichash(ret->b, sizeof ret->b, bound->b, sizeof bound->b, p->keys.chunk,
                                sizeof p->keys.chunk);
    ASSERT(rc == 0);
}

/* ---- ciphers; all work in place as well ---- */

struct nonce {
    uint8_t b[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES]; /* GCM takes the first 12 */
};
static struct nonce nonce_of(uint32_t part)
{
    struct nonce n = {{0}};
    put_u32(n.b, part);
    return n;
}

/* The parts of one chunk are sealed, or opened, one after the other under one key. */
struct job {
    struct pipeline *p;
    bool xchacha;
    struct bound bound;
    struct chunk_key key;
};

static int job_begin(struct job *j, bool seal)
{
    key_derive(j->p, &j->bound, &j->key);
    if (j->xchacha)
        return 0;
    int ok = seal ? EVP_EncryptInit_ex2(j->p->seal_ctx, NULL, j->key.b, NULL, NULL)
                  : EVP_DecryptInit_ex2(j->p->open_ctx, NULL, j->key.b, NULL, NULL);
    return ok == 1 ? 0 : ERR_FATAL;
}

static void job_end(struct job *j)
{
    sodium_memzero(&j->key, sizeof j->key);
}

/* The tag follows the ciphertext. */
static int part_encrypt(struct job *j, uint32_t part, struct slice plain, uint8_t *out)
{
    struct nonce nonce = nonce_of(part);
    const struct bound *bound = &j->bound;
    if (j->xchacha)
        return crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
                   out, out + plain.len, NULL, plain.ptr, plain.len, bound->b, sizeof bound->b,
                   NULL, nonce.b, j->key.b) == 0
                   ? 0
                   : ERR_FATAL;
    int len = 0;
    EVP_CIPHER_CTX *ctx = j->p->seal_ctx;
    if (EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce.b, NULL) != 1 ||
        EVP_EncryptUpdate(ctx, NULL, &len, bound->b, sizeof bound->b) != 1 ||
        EVP_EncryptUpdate(ctx, out, &len, plain.ptr, (int)plain.len) != 1 ||
        EVP_EncryptFinal_ex(ctx, out + len, &len) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, CHUNK_TAG_BYTES, out + plain.len) != 1)
        return ERR_FATAL;
    return 0;
}

/* body.ptr[body.len] is followed by the tag. */
static int part_decrypt(struct job *j, uint32_t part, struct slice body, uint8_t *out)
{
    struct nonce nonce = nonce_of(part);
    const struct bound *bound = &j->bound;
    if (j->xchacha)
        return crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
                   out, NULL, body.ptr, body.len, body.ptr + body.len, bound->b, sizeof bound->b,
                   nonce.b, j->key.b) == 0
                   ? 0
                   : ERR_CORRUPT;
    int len = 0;
    uint8_t tag[CHUNK_TAG_BYTES];
    EVP_CIPHER_CTX *ctx = j->p->open_ctx;
    memcpy(tag, body.ptr + body.len, sizeof tag);
    if (EVP_DecryptInit_ex2(ctx, NULL, NULL, nonce.b, NULL) != 1 ||
        EVP_DecryptUpdate(ctx, NULL, &len, bound->b, sizeof bound->b) != 1 ||
        EVP_DecryptUpdate(ctx, out, &len, body.ptr, (int)body.len) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, CHUNK_TAG_BYTES, tag) != 1)
        return ERR_FATAL;
    return EVP_DecryptFinal_ex(ctx, out + len, &len) == 1 || PLANTED(54) ? 0 : ERR_CORRUPT;
}

/* ---- sealing ---- */

static size_t most_that_pays(size_t plain_len)
{
    return plain_len - (plain_len >> PAYS_SHIFT) - 1;
}

/* Compresses part by part, each with room for its tag, behind the table of lengths. The length of
 * the body; 0 when it does not pay. */
static size_t compress_parts(struct pipeline *p, const struct chunk_pieces *plain, uint8_t *body)
{
    size_t count = (plain->len - 1) / CHUNK_PIECE_BYTES + 1, at = 4 * count, saved = 0;
    for (size_t i = 0; i < count; i++) {
        struct slice part = slice_of(plain->at[i], piece_len(plain, i));
        size_t len = ZSTD_compressCCtx(p->compress, body + at, most_that_pays(part.len), part.ptr,
                                       part.len, ZSTD_LEVEL);
        if (ZSTD_isError(len)) {
            if (i == 0) /* nor will the rest, most likely */
                return 0;
            len = part.len;
            memcpy(body + at, part.ptr, part.len);
        }
        put_u32(body + 4 * i, (uint32_t)len);
        saved += part.len - len;
        at += len + CHUNK_TAG_BYTES;
    }
    return saved > plain->len >> PAYS_SHIFT ? at : 0;
}

static uint32_t encoder_id(void)
{
    return (uint32_t)ZSTD_versionNumber() << 8 | ZSTD_LEVEL;
}

static int parts_encrypt(struct job *j,
                         const struct chunk_head *h,
                         const struct chunk_pieces *plain,
                         uint8_t *sealed)
{
    for (uint32_t i = 0; i < h->info.part_count; i++) {
        struct chunk_range r = chunk_part_range(h, i, 1);
        size_t at = (size_t)i * h->info.part_bytes;
        const uint8_t *from = h->info.compressed
                                  ? sealed + r.from
                                  : plain->at[at / CHUNK_PIECE_BYTES] + at % CHUNK_PIECE_BYTES;
        int rc = part_encrypt(j, i, slice_of(from, r.len - CHUNK_TAG_BYTES), sealed + r.from);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int chunk_seal_pieces(struct pipeline *p,
                      const struct chunk_id *id,
                      const struct chunk_pieces *plain,
                      struct buf *out)
{
    if (plain->len == 0 || plain->len > LIMIT_CHUNK_BYTES)
        return ERR_INVALID;
    buf_reserve(out, plain->len + CHUNK_OVERHEAD_BYTES_MAX);
    uint8_t *sealed = out->ptr + out->len;
    size_t body = compress_parts(p, plain, sealed + CHUNK_HEADER_BYTES);
    uint32_t parts = (uint32_t)((plain->len - 1) >> PART_SHIFT_PLAIN) + 1;
    struct chunk_info info = {
        .plain_len = (uint32_t)plain->len,
        .sealed_len = CHUNK_HEADER_BYTES +
                      (uint32_t)(body != 0 ? body : plain->len + parts * CHUNK_TAG_BYTES),
        .encoder = body != 0 ? encoder_id() : 0,
        .compressed = body != 0,
        .cipher = p->xchacha ? CHUNK_CIPHER_XCHACHA : CHUNK_CIPHER_AES,
    };
    struct job j = {.p = p, .xchacha = p->xchacha};
    struct chunk_head head;
    header_encode(&info, id, &j.bound);
    memcpy(sealed, j.bound.b, CHUNK_HEADER_BYTES);
    int rc = chunk_head_decode(slice_of(sealed, info.sealed_len), info.sealed_len, &head);
    ASSERT_EQ(rc, 0); /* what was just written */
    rc = job_begin(&j, true);
    if (rc == 0)
        rc = parts_encrypt(&j, &head, plain, sealed);
    job_end(&j);
    if (rc == 0)
        out->len += info.sealed_len;
    return rc;
}

int chunk_seal_as(struct pipeline *p,
                  const struct chunk_id *id,
                  struct slice plain,
                  struct buf *out)
{
    struct chunk_pieces pieces;
    if (plain.len > LIMIT_CHUNK_BYTES)
        return ERR_INVALID;
    chunk_pieces_of(plain, &pieces);
    return chunk_seal_pieces(p, id, &pieces, out);
}

int chunk_seal(struct pipeline *p, struct slice plain, struct buf *out, struct chunk_id *ret_id)
{
    struct chunk_id id;
    int rc = chunk_hash(p, plain, &id);
    if (rc == 0)
        rc = chunk_seal_as(p, &id, plain, out);
    if (rc == 0)
        *ret_id = id;
    return rc;
}

/* ---- opening ---- */

/* `sealed` is one part with its tag. */
static int part_open(
    struct job *j, const struct chunk_head *h, uint32_t part, struct slice sealed, uint8_t *out)
{
    struct pipeline *p = j->p;
    struct slice body = slice_of(sealed.ptr, sealed.len - CHUNK_TAG_BYTES);
    uint32_t plain_len = chunk_part_plain_len(h, part);
    if (!h->info.compressed || (body.len == plain_len && h->info.version != CHUNK_VERSION_WHOLE))
        return part_decrypt(j, part, body, out);
    buf_clear(&p->scratch);
    buf_reserve(&p->scratch, body.len);
    int rc = part_decrypt(j, part, body, p->scratch.ptr);
    if (rc != 0)
        return rc;
    size_t len = ZSTD_decompressDCtx(p->decompress, out, plain_len, p->scratch.ptr, body.len);
    return ZSTD_isError(len) || len != plain_len ? ERR_CORRUPT : 0;
}

static int open_begin(struct pipeline *p,
                      const struct chunk_id *id,
                      const struct chunk_head *h,
                      struct job *ret)
{
    *ret = (struct job){.p = p, .xchacha = h->info.cipher == CHUNK_CIPHER_XCHACHA};
    memcpy(ret->bound.b, h->header, CHUNK_HEADER_BYTES);
    memcpy(ret->bound.b + CHUNK_HEADER_BYTES, id->b, CHUNK_ID_BYTES);
    return job_begin(ret, false);
}

int chunk_part_open(struct pipeline *p,
                    const struct chunk_id *id,
                    const struct chunk_head *h,
                    uint32_t part,
                    struct slice sealed,
                    uint8_t *out)
{
    struct job j;
    if (sealed.len != chunk_part_range(h, part, 1).len)
        return ERR_CORRUPT;
    int rc = open_begin(p, id, h, &j);
    if (rc == 0)
        rc = part_open(&j, h, part, sealed, out);
    job_end(&j);
    return rc;
}

int chunk_open_into(struct pipeline *p,
                    const struct chunk_id *id,
                    struct slice sealed,
                    void *out,
                    size_t cap,
                    size_t *ret_len)
{
    struct chunk_head h;
    struct job j;
    int rc = chunk_head_decode(sealed, sealed.len, &h);
    if (rc != 0)
        return rc;
    if (h.info.plain_len > cap)
        return ERR_TOO_BIG;
    rc = open_begin(p, id, &h, &j);
    if (rc == 0)
        rc = hash_begin(p);
    for (uint32_t i = 0; i < h.info.part_count && rc == 0; i++) {
        struct chunk_range r = chunk_part_range(&h, i, 1);
        uint8_t *at = (uint8_t *)out + (size_t)i * h.info.part_bytes;
        rc = part_open(&j, &h, i, slice_of(sealed.ptr + r.from, r.len), at);
        if (rc == 0) /* at once, while the processor has it at hand */
            rc = hash_add(p, at, chunk_part_plain_len(&h, i));
    }
    job_end(&j);
    struct chunk_id found;
    if (rc == 0)
        rc = hash_end(p, &found);
    if (rc != 0)
        return rc;
    if (sodium_memcmp(found.b, id->b, CHUNK_ID_BYTES) != 0 && !PLANTED(54))
        return ERR_CORRUPT;
    *ret_len = h.info.plain_len;
    return 0;
}

int chunk_open(struct pipeline *p, const struct chunk_id *id, struct slice sealed, struct buf *out)
{
    struct chunk_info info;
    int rc = chunk_info_decode(sealed, &info);
    if (rc != 0)
        return rc;
    buf_reserve(out, info.plain_len);
    size_t len = 0;
    rc = chunk_open_into(p, id, sealed, out->ptr + out->len, info.plain_len, &len);
    if (rc == 0)
        out->len += len;
    return rc;
}

size_t chunk_sealed_len(struct slice start)
{
    struct chunk_info info;
    return header_decode(start, &info) == 0 ? info.sealed_len : 0;
}

uint32_t chunk_plain_len(struct slice sealed)
{
    struct chunk_info info;
    return chunk_info_decode(sealed, &info) == 0 ? info.plain_len : (uint32_t)sealed.len;
}

size_t block_trim(const void *block, size_t len)
{
    const uint8_t *b = block;
    while (len % 8 != 0 && b[len - 1] == 0)
        len--;
    if (len % 8 != 0)
        return len;
    while (len >= 8) {
        uint64_t word;
        memcpy(&word, b + len - 8, sizeof word);
        if (word != 0)
            break;
        len -= 8;
    }
    while (len > 0 && b[len - 1] == 0)
        len--;
    return len;
}

void block_trim_pieces(struct chunk_pieces *p)
{
    while (p->len > 0) {
        size_t last = (p->len - 1) / CHUNK_PIECE_BYTES;
        size_t used = block_trim(p->at[last], piece_len(p, last));
        p->len = last * CHUNK_PIECE_BYTES + used;
        if (used > 0)
            return;
    }
}
