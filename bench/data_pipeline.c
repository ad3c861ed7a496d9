/* The chunk pipeline against its own parts: sealing and opening of random bytes and of text, beside
 * bare SHA-256, AES-256-GCM and zstd over the same bytes. All are measured in turn, many short
 * rounds each. The limit of a figure is what its parts of the same round would give one after the
 * other with nothing in between.
 *
 *     bench_data_pipeline [ROUNDS] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <zstd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/limits.h"
#include "bench/common.h"
#include "data/chunk.h"

#define ROUND_NS (8 * NS_PER_MS)
#define TRIAL_BYTES (64u * 1024u)
#define BYTES_MAX (4u * 1024u * 1024u)

struct bench {
    struct pipeline *pipeline;
    EVP_MD *sha;
    EVP_MD_CTX *sha_ctx;
    EVP_CIPHER *gcm;
    EVP_CIPHER_CTX *gcm_ctx;
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    const uint8_t *plain;
    size_t len;
    uint8_t *scratch; /* output of the bare parts */
    uint8_t *packed;  /* the text, compressed */
    size_t packed_len;
    struct buf sealed;
    struct buf opened;
    struct chunk_id id;
};

static void run_sha(struct bench *b)
{
    uint8_t out[32];
    unsigned len = 0;
    int rc = EVP_DigestInit_ex2(b->sha_ctx, b->sha, NULL);
    rc &= EVP_DigestUpdate(b->sha_ctx, b->plain, b->len);
    rc &= EVP_DigestFinal_ex(b->sha_ctx, out, &len);
    ASSERT_EQ(rc, 1);
}

static void run_gcm(struct bench *b)
{
    static const uint8_t key[32] = {1};
    static const uint8_t nonce[12];
    int len = 0;
    size_t bytes = b->packed_len != 0 ? b->packed_len : b->len;
    int rc = EVP_EncryptInit_ex2(b->gcm_ctx, b->gcm, key, nonce, NULL);
    rc &= EVP_EncryptUpdate(b->gcm_ctx, b->scratch, &len, b->plain, (int)bytes);
    ASSERT_EQ(rc, 1);
}

/* What the pipeline compresses: the trial, and all of it when that pays. */
static void run_zstd(struct bench *b)
{
    size_t trial = MIN(b->len, TRIAL_BYTES);
    size_t n = 0;
    if (b->len > TRIAL_BYTES || b->packed_len == 0)
        n = ZSTD_compressCCtx(b->compress, b->scratch, trial - trial / 16, b->plain, trial, 1);
    if (b->packed_len != 0)
        n = ZSTD_compressCCtx(b->compress, b->scratch, b->len, b->plain, b->len, 1);
    ASSERT(b->packed_len == 0 || !ZSTD_isError(n));
}

static void run_unzstd(struct bench *b)
{
    if (b->packed_len == 0)
        return;
    size_t n = ZSTD_decompressDCtx(b->decompress, b->scratch, b->len, b->packed, b->packed_len);
    ASSERT_EQ(n, b->len);
}

static void run_seal(struct bench *b)
{
    buf_clear(&b->sealed);
    int rc = chunk_seal(b->pipeline, slice_of(b->plain, b->len), &b->sealed, &b->id);
    ASSERT_EQ(rc, 0);
}

static void run_open(struct bench *b)
{
    buf_clear(&b->opened);
    int rc = chunk_open(b->pipeline, &b->id, buf_slice(&b->sealed), &b->opened);
    ASSERT_EQ(rc, 0);
}

enum part {
    SHA,
    GCM,
    ZSTD,
    UNZSTD,
    SEAL,
    OPEN,
    PART_COUNT
};
static void (*const parts[PART_COUNT])(struct bench *b) = {
    [SHA] = run_sha,       [GCM] = run_gcm,   [ZSTD] = run_zstd,
    [UNZSTD] = run_unzstd, [SEAL] = run_seal, [OPEN] = run_open,
};

/* Nanoseconds of one call, over about ROUND_NS. */
static double measure(struct bench *b, enum part part)
{
    uint64_t start = clock_mono_ns(&clock_os);
    uint64_t now = start;
    uint64_t calls = 0;
    while (now - start < ROUND_NS) {
        parts[part](b);
        calls++;
        now = clock_mono_ns(&clock_os);
    }
    return (double)(now - start) / (double)calls;
}

/* Bytes a second of `len` bytes that take ns. */
static double rate(size_t len, double ns)
{
    return (double)len / ns * (double)NS_PER_SEC;
}

static void print(const char *name,
                  const char *kind,
                  size_t len,
                  const struct samples *value,
                  const struct samples *limit)
{
    char full[64];
    (void)snprintf(full, sizeof full, "%s_%s_%zuk", name, kind, len / 1024); /* fits */
    figure_print(full, "B/s", MORE_IS_BETTER, value, limit);
}

static void
bench_data(struct bench *b, const char *kind, const uint8_t *plain, size_t len, unsigned rounds)
{
    struct samples rates[PART_COUNT] = {{.count = 0}}, seal = {.count = 0}, open = {.count = 0};
    b->plain = plain;
    b->len = len;
    b->packed_len = ZSTD_compressCCtx(b->compress, b->packed, BYTES_MAX, plain, len, 1);
    if (ZSTD_isError(b->packed_len) || b->packed_len > len - len / 16)
        b->packed_len = 0;
    size_t sealed_len = b->packed_len != 0 ? b->packed_len : len;
    for (unsigned round = 0; round < rounds; round++) {
        double ns[PART_COUNT];
        for (unsigned part = 0; part < PART_COUNT; part++) {
            ns[part] = measure(b, (enum part)part);
            samples_add(&rates[part], rate(part == GCM ? sealed_len : len, ns[part]));
        }
        samples_add(&seal, rate(len, ns[SHA] + ns[GCM] + ns[ZSTD]));
        samples_add(&open, rate(len, ns[SHA] + ns[GCM] + ns[UNZSTD]));
    }
    print("bare_sha256", kind, len, &rates[SHA], NULL);
    print("bare_aes256gcm", kind, sealed_len, &rates[GCM], NULL);
    if (b->packed_len != 0) {
        print("bare_zstd1", kind, len, &rates[ZSTD], NULL);
        print("bare_unzstd", kind, len, &rates[UNZSTD], NULL);
    }
    print("seal", kind, len, &rates[SEAL], &seal);
    print("open", kind, len, &rates[OPEN], &open);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)MIN(number_of(argv[1]), SAMPLES_MAX) : 15;
    static const size_t sizes[] = {64 * 1024, 1024 * 1024, BYTES_MAX};
    struct bench b = {.sha = EVP_MD_fetch(NULL, "SHA256", NULL),
                      .sha_ctx = EVP_MD_CTX_new(),
                      .gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL),
                      .gcm_ctx = EVP_CIPHER_CTX_new(),
                      .compress = ZSTD_createCCtx(),
                      .decompress = ZSTD_createDCtx(),
                      .scratch = mem_alloc(2 * BYTES_MAX),
                      .packed = mem_alloc(BYTES_MAX)};
    struct fs_keys keys;
    fs_keys_derive((const uint8_t[FS_KEY_BYTES]){1}, &keys);
    int rc = pipeline_new(&b.pipeline, &keys, CHUNK_CIPHER_AUTO);
    ASSERT_EQ(rc, 0);
    uint8_t *noise = mem_alloc(BYTES_MAX);
    uint8_t *text = mem_alloc(BYTES_MAX);
    fill_noise(noise, BYTES_MAX, 1);
    fill_text(text, BYTES_MAX, 1);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        bench_data(&b, "random", noise, sizes[i], MAX(rounds, 1));
        bench_data(&b, "text", text, sizes[i], MAX(rounds, 1));
    }
    mem_free(noise);
    mem_free(text);
    mem_free(b.scratch);
    mem_free(b.packed);
    buf_deinit(&b.sealed);
    buf_deinit(&b.opened);
    pipeline_free(b.pipeline);
    EVP_MD_CTX_free(b.sha_ctx);
    EVP_MD_free(b.sha);
    EVP_CIPHER_CTX_free(b.gcm_ctx);
    EVP_CIPHER_free(b.gcm);
    ZSTD_freeCCtx(b.compress);
    ZSTD_freeDCtx(b.decompress);
    return 0;
}
