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

#define CHUNK_MAGIC 0x314b4643u /* "CFK1" */
#define CHUNK_VERSION 1u
#define FLAG_ZSTD 1u
#define FLAG_XCHACHA 2u
#define FLAGS_KNOWN (FLAG_ZSTD | FLAG_XCHACHA)
#define ZSTD_LEVEL 1
#define TRIAL_BYTES (64u * 1024u) /* what is compressed first to see whether it pays */
#define PAYS_SHIFT 4              /* compression must save a sixteenth */

_Static_assert(LIMIT_CHUNK_BYTES + CHUNK_OVERHEAD_BYTES <= LIMIT_CHUNK_SEALED_BYTES, "fits");
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
    struct buf scratch;         /* a decrypted body that is still compressed */
    uint8_t trial[TRIAL_BYTES]; /* output of the trial compression, thrown away */
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

static int hash_bytes(struct pipeline *p, const uint8_t *ptr, size_t len, struct chunk_id *ret)
{
    size_t out_len = 0;
    if (EVP_MAC_init(p->mac_ctx, NULL, 0, NULL) != 1 || EVP_MAC_update(p->mac_ctx, ptr, len) != 1 ||
        EVP_MAC_final(p->mac_ctx, ret->b, &out_len, sizeof ret->b) != 1)
        return ERR_FATAL;
    ASSERT_EQ(out_len, sizeof ret->b);
    /* The zero id means a hole. Nobody will see this hash, but a broken library might. */
    return chunk_id_is_hole(ret) ? ERR_FATAL : 0;
}

int chunk_hash(struct pipeline *p, struct slice plain, struct chunk_id *ret)
{
    if (plain.len == 0 || plain.len > LIMIT_CHUNK_BYTES)
        return ERR_INVALID;
    return hash_bytes(p, plain.ptr, plain.len, ret);
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
    put_u32(ret->b + 8, info->plain_len);
    put_u32(ret->b + 12, info->body_len);
    put_u32(ret->b + 16, info->encoder);
    memcpy(ret->b + CHUNK_HEADER_BYTES, id->b, CHUNK_ID_BYTES);
}

int chunk_info_decode(struct slice sealed, struct chunk_info *ret)
{
    struct dec d = dec_of(sealed);
    uint32_t magic = dec_u32(&d);
    uint8_t version = dec_u8(&d);
    uint8_t flags = dec_u8(&d);
    uint16_t zero = dec_u16(&d);
    struct chunk_info info = {.plain_len = dec_u32(&d), .body_len = dec_u32(&d)};
    info.encoder = dec_u32(&d);
    uint32_t zero_end = dec_u32(&d);
    if (d.rc != 0)
        return d.rc;
    if (magic != CHUNK_MAGIC)
        return ERR_MALFORMED;
    if (version != CHUNK_VERSION)
        return ERR_VERSION;
    info.compressed = (flags & FLAG_ZSTD) != 0;
    info.cipher = (flags & FLAG_XCHACHA) != 0 ? CHUNK_CIPHER_XCHACHA : CHUNK_CIPHER_AES;
    if ((flags & ~FLAGS_KNOWN) != 0 || zero != 0 || zero_end != 0 || info.plain_len == 0 ||
        info.plain_len > LIMIT_CHUNK_BYTES || info.compressed != (info.encoder != 0))
        return ERR_MALFORMED;
    if (info.compressed ? info.body_len == 0 || info.body_len >= info.plain_len
                        : info.body_len != info.plain_len)
        return ERR_MALFORMED;
    if (sealed.len < CHUNK_OVERHEAD_BYTES + (size_t)info.body_len)
        return ERR_TRUNCATED;
    if (sealed.len != CHUNK_OVERHEAD_BYTES + (size_t)info.body_len)
        return ERR_MALFORMED;
    *ret = info;
    return 0;
}

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

static const uint8_t nonce_zero[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];

static int gcm_encrypt(struct pipeline *p,
                       const struct chunk_key *key,
                       const struct bound *bound,
                       struct slice plain,
                       uint8_t *out)
{
    int len = 0;
    EVP_CIPHER_CTX *ctx = p->seal_ctx;
    if (EVP_EncryptInit_ex2(ctx, NULL, key->b, nonce_zero, NULL) != 1 ||
        EVP_EncryptUpdate(ctx, NULL, &len, bound->b, sizeof bound->b) != 1 ||
        EVP_EncryptUpdate(ctx, out, &len, plain.ptr, (int)plain.len) != 1 ||
        EVP_EncryptFinal_ex(ctx, out + len, &len) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, CHUNK_TAG_BYTES, out + plain.len) != 1)
        return ERR_FATAL;
    return 0;
}

static int gcm_decrypt(struct pipeline *p,
                       const struct chunk_key *key,
                       const struct bound *bound,
                       struct slice body,
                       uint8_t *out)
{
    int len = 0;
    uint8_t tag[CHUNK_TAG_BYTES];
    memcpy(tag, body.ptr + body.len, sizeof tag);
    EVP_CIPHER_CTX *ctx = p->open_ctx;
    if (EVP_DecryptInit_ex2(ctx, NULL, key->b, nonce_zero, NULL) != 1 ||
        EVP_DecryptUpdate(ctx, NULL, &len, bound->b, sizeof bound->b) != 1 ||
        EVP_DecryptUpdate(ctx, out, &len, body.ptr, (int)body.len) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, CHUNK_TAG_BYTES, tag) != 1)
        return ERR_FATAL;
    return EVP_DecryptFinal_ex(ctx, out + len, &len) == 1 ? 0 : ERR_CORRUPT;
}

static int encrypt(struct pipeline *p, const struct bound *bound, struct slice plain, uint8_t *out)
{
    struct chunk_key key;
    key_derive(p, bound, &key);
    int rc = 0;
    if (p->xchacha) {
        rc = crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
            out, out + plain.len, NULL, plain.ptr, plain.len, bound->b, sizeof bound->b, NULL,
            nonce_zero, key.b);
        rc = rc == 0 ? 0 : ERR_FATAL;
    } else {
        rc = gcm_encrypt(p, &key, bound, plain, out);
    }
    sodium_memzero(&key, sizeof key);
    return rc;
}

/* body.ptr[body.len] is followed by the tag. */
static int decrypt(struct pipeline *p,
                   const struct chunk_info *info,
                   const struct bound *bound,
                   struct slice body,
                   uint8_t *out)
{
    struct chunk_key key;
    key_derive(p, bound, &key);
    int rc = 0;
    if (info->cipher == CHUNK_CIPHER_XCHACHA) {
        rc = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
            out, NULL, body.ptr, body.len, body.ptr + body.len, bound->b, sizeof bound->b,
            nonce_zero, key.b);
        rc = rc == 0 ? 0 : ERR_CORRUPT;
    } else {
        rc = gcm_decrypt(p, &key, bound, body, out);
    }
    sodium_memzero(&key, sizeof key);
    return rc;
}

/* ---- sealing ---- */

/* Compresses into out when that pays; the length, or 0. */
static size_t compress_if_it_pays(struct pipeline *p, struct slice plain, uint8_t *out)
{
    if (plain.len > TRIAL_BYTES) {
        size_t cap = TRIAL_BYTES - (TRIAL_BYTES >> PAYS_SHIFT);
        size_t len =
            ZSTD_compressCCtx(p->compress, p->trial, cap, plain.ptr, TRIAL_BYTES, ZSTD_LEVEL);
        if (ZSTD_isError(len))
            return 0;
    }
    size_t cap = plain.len - (plain.len >> PAYS_SHIFT) - 1;
    size_t len = ZSTD_compressCCtx(p->compress, out, cap, plain.ptr, plain.len, ZSTD_LEVEL);
    return ZSTD_isError(len) ? 0 : len;
}

static uint32_t encoder_id(void)
{
    return (uint32_t)ZSTD_versionNumber() << 8 | ZSTD_LEVEL;
}

int chunk_seal_as(struct pipeline *p,
                  const struct chunk_id *id,
                  struct slice plain,
                  struct buf *out)
{
    if (plain.len == 0 || plain.len > LIMIT_CHUNK_BYTES)
        return ERR_INVALID;
    buf_reserve(out, plain.len + CHUNK_OVERHEAD_BYTES);
    uint8_t *header = out->ptr + out->len;
    uint8_t *body = header + CHUNK_HEADER_BYTES;
    size_t len = compress_if_it_pays(p, plain, body);
    struct chunk_info info = {
        .plain_len = (uint32_t)plain.len,
        .body_len = (uint32_t)(len != 0 ? len : plain.len),
        .encoder = len != 0 ? encoder_id() : 0,
        .compressed = len != 0,
        .cipher = p->xchacha ? CHUNK_CIPHER_XCHACHA : CHUNK_CIPHER_AES,
    };
    struct bound bound;
    header_encode(&info, id, &bound);
    memcpy(header, bound.b, CHUNK_HEADER_BYTES);
    int rc = encrypt(p, &bound, len != 0 ? slice_of(body, len) : plain, body);
    if (rc != 0)
        return rc;
    out->len += CHUNK_OVERHEAD_BYTES + info.body_len;
    return 0;
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

static int open_body(struct pipeline *p,
                     const struct chunk_info *info,
                     const struct chunk_id *id,
                     struct slice sealed,
                     uint8_t *out)
{
    struct bound bound;
    memcpy(bound.b, sealed.ptr, CHUNK_HEADER_BYTES);
    memcpy(bound.b + CHUNK_HEADER_BYTES, id->b, CHUNK_ID_BYTES);
    struct slice body = slice_of(sealed.ptr + CHUNK_HEADER_BYTES, info->body_len);
    if (!info->compressed)
        return decrypt(p, info, &bound, body, out);
    buf_clear(&p->scratch);
    buf_reserve(&p->scratch, body.len);
    int rc = decrypt(p, info, &bound, body, p->scratch.ptr);
    if (rc != 0)
        return rc;
    size_t len = ZSTD_decompressDCtx(p->decompress, out, info->plain_len, p->scratch.ptr, body.len);
    return ZSTD_isError(len) || len != info->plain_len ? ERR_CORRUPT : 0;
}

int chunk_open_into(struct pipeline *p,
                    const struct chunk_id *id,
                    struct slice sealed,
                    void *out,
                    size_t cap,
                    size_t *ret_len)
{
    struct chunk_info info;
    int rc = chunk_info_decode(sealed, &info);
    if (rc != 0)
        return rc;
    if (info.plain_len > cap)
        return ERR_TOO_BIG;
    rc = open_body(p, &info, id, sealed, out);
    if (rc != 0)
        return rc;
    struct chunk_id found;
    rc = hash_bytes(p, out, info.plain_len, &found);
    if (rc != 0)
        return rc;
    if (sodium_memcmp(found.b, id->b, CHUNK_ID_BYTES) != 0)
        return ERR_CORRUPT;
    *ret_len = info.plain_len;
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
