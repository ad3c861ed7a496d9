/* The pipeline: round trips over sizes and kinds of data, determinism, and that no change of any
 * byte, of the id or of the key goes unnoticed (P8). */
#include <setjmp.h>
#include <stdio.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/limits.h"
#include "data/chunk.h"

static const uint8_t fs_key[FS_KEY_BYTES] = {1, 2, 3};

static struct pipeline *pipeline_of(uint8_t first, enum chunk_cipher cipher)
{
    uint8_t key[FS_KEY_BYTES];
    memcpy(key, fs_key, sizeof key);
    key[0] = first;
    struct fs_keys keys;
    fs_keys_derive(key, &keys);
    struct pipeline *p = NULL;
    assert_int_equal(pipeline_new(&p, &keys, cipher), 0);
    fs_keys_wipe(&keys);
    return p;
}

enum kind {
    RANDOM,
    TEXT,
    ZEROS,
    HALF, /* text first, random after: the trial says yes, the whole may say no */
    KIND_COUNT
};

static uint8_t *data_of(enum kind kind, size_t len, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    uint8_t *b = mem_calloc(len + 1, 1);
    for (size_t i = 0; i < len; i++) {
        bool text = kind == TEXT || (kind == HALF && i < len / 50);
        if (text)
            b[i] = (uint8_t)("the quick brown fox "[(i + (i >> 7)) % 20]);
        else if (kind != ZEROS)
            b[i] = (uint8_t)rng_next(&rng);
    }
    return b;
}

static const size_t sizes[] = {
    1, 2, 15, 16, 17, 4096, 65535, 65536, 65537, 131072, 1000000, 1u << 20, LIMIT_CHUNK_BYTES};

static void round_trip(enum chunk_cipher cipher)
{
    struct pipeline *p = pipeline_of(1, cipher);
    struct pipeline *q = pipeline_of(1, CHUNK_CIPHER_AUTO);
    struct buf sealed = {0};
    struct buf again = {0};
    struct buf plain = {0};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
            uint8_t *data = data_of(kind, sizes[i], i);
            struct chunk_id id;
            struct chunk_id id_again;
            buf_clear(&sealed);
            buf_clear(&again);
            buf_clear(&plain);
            buf_append(&plain, "before", 6); /* results are appended */
            assert_int_equal(chunk_seal(p, slice_of(data, sizes[i]), &sealed, &id), 0);
            assert_int_equal(chunk_seal(p, slice_of(data, sizes[i]), &again, &id_again), 0);
            assert_true(chunk_id_equal(&id, &id_again));
            assert_true(slice_equal(buf_slice(&sealed), buf_slice(&again)));
            assert_true(sealed.len <= sizes[i] + CHUNK_OVERHEAD_BYTES_MAX);
            struct chunk_info info;
            assert_int_equal(chunk_info_decode(buf_slice(&sealed), &info), 0);
            assert_int_equal(chunk_sealed_len(slice_of(sealed.ptr, CHUNK_HEADER_BYTES)),
                             sealed.len);
            assert_int_equal(chunk_sealed_len(slice_of(sealed.ptr, CHUNK_HEADER_BYTES - 1)), 0);
            assert_int_equal(chunk_sealed_len(slice_of(sealed.ptr + 1, CHUNK_HEADER_BYTES)), 0);
            assert_int_equal(info.plain_len, sizes[i]);
            if (kind == TEXT && sizes[i] >= 4096)
                assert_true(info.compressed);
            if (kind == RANDOM)
                assert_false(info.compressed);
            assert_int_equal(chunk_open(q, &id, buf_slice(&sealed), &plain), 0);
            assert_int_equal(plain.len, sizes[i] + 6);
            assert_memory_equal(plain.ptr + 6, data, sizes[i]);
            mem_free(data);
        }
    }
    buf_deinit(&sealed);
    buf_deinit(&again);
    buf_deinit(&plain);
    pipeline_free(p);
    pipeline_free(q);
}

static void test_round_trip_aes(void **state)
{
    (void)state;
    round_trip(CHUNK_CIPHER_AES);
}

static void test_round_trip_xchacha(void **state)
{
    (void)state;
    round_trip(CHUNK_CIPHER_XCHACHA);
}

static void test_bad_lengths_are_invalid(void **state)
{
    (void)state;
    struct pipeline *p = pipeline_of(1, CHUNK_CIPHER_AUTO);
    struct chunk_id id;
    struct buf out = {0};
    uint8_t *big = mem_calloc(LIMIT_CHUNK_BYTES + 1, 1);
    assert_int_equal(chunk_seal(p, slice_of(big, 0), &out, &id), ERR_INVALID);
    assert_int_equal(chunk_seal(p, slice_of(big, LIMIT_CHUNK_BYTES + 1), &out, &id), ERR_INVALID);
    assert_int_equal(chunk_hash(p, slice_of(big, 0), &id), ERR_INVALID);
    assert_int_equal(out.len, 0);
    size_t len = 0;
    assert_int_equal(chunk_seal(p, slice_of(big, 100), &out, &id), 0);
    assert_int_equal(chunk_open_into(p, &id, buf_slice(&out), big, 99, &len), ERR_TOO_BIG);
    assert_int_equal(chunk_open_into(p, &id, buf_slice(&out), big, 100, &len), 0);
    assert_int_equal(len, 100);
    mem_free(big);
    buf_deinit(&out);
    pipeline_free(p);
}

/* Every bit of every byte of the sealed form and of the id; all truncations; bytes added. */
static void tamper(enum chunk_cipher cipher, enum kind kind)
{
    struct pipeline *p = pipeline_of(1, cipher);
    struct pipeline *other = pipeline_of(9, cipher);
    size_t len = kind == RANDOM ? 300 : 3000;
    uint8_t *data = data_of(kind, len, 3);
    struct buf sealed = {0};
    struct buf plain = {0};
    struct chunk_id id;
    assert_int_equal(chunk_seal(p, slice_of(data, len), &sealed, &id), 0);
    for (size_t i = 0; i < sealed.len * 8; i++) {
        sealed.ptr[i / 8] ^= (uint8_t)(1u << (i % 8));
        int rc = chunk_open(p, &id, buf_slice(&sealed), &plain);
        if (i / 8 == 4)
            assert_int_equal(rc, ERR_VERSION);
        else
            assert_int_equal(err_class(rc), ERR_CLASS_CORRUPT);
        assert_int_equal(plain.len, 0);
        sealed.ptr[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    for (size_t i = 0; i < sizeof id.b * 8; i++) {
        id.b[i / 8] ^= (uint8_t)(1u << (i % 8));
        assert_int_equal(chunk_open(p, &id, buf_slice(&sealed), &plain), ERR_CORRUPT);
        id.b[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    for (size_t n = 0; n < sealed.len; n++)
        assert_int_equal(chunk_open(p, &id, slice_of(sealed.ptr, n), &plain), ERR_TRUNCATED);
    assert_int_equal(chunk_open(other, &id, buf_slice(&sealed), &plain), ERR_CORRUPT);
    assert_int_equal(chunk_open(p, &id, buf_slice(&sealed), &plain), 0);
    buf_append(&sealed, "", 1);
    assert_int_equal(chunk_open(p, &id, buf_slice(&sealed), &plain), ERR_MALFORMED);
    mem_free(data);
    buf_deinit(&sealed);
    buf_deinit(&plain);
    pipeline_free(p);
    pipeline_free(other);
}

static void test_tampering_is_detected(void **state)
{
    (void)state;
    tamper(CHUNK_CIPHER_AES, RANDOM);
    tamper(CHUNK_CIPHER_AES, TEXT);
    tamper(CHUNK_CIPHER_XCHACHA, RANDOM);
    tamper(CHUNK_CIPHER_XCHACHA, TEXT);
}

/* Whoever holds the key but seals other bytes under an id is found out by the id alone (P8). */
static void test_wrong_content_under_an_id_is_corrupt(void **state)
{
    (void)state;
    struct pipeline *p = pipeline_of(1, CHUNK_CIPHER_AUTO);
    struct chunk_id id;
    struct buf sealed = {0};
    struct buf plain = {0};
    assert_int_equal(chunk_hash(p, slice_str("right"), &id), 0);
    assert_int_equal(chunk_seal_as(p, &id, slice_str("wrong"), &sealed), 0);
    assert_int_equal(chunk_open(p, &id, buf_slice(&sealed), &plain), ERR_CORRUPT);
    buf_deinit(&sealed);
    buf_deinit(&plain);
    pipeline_free(p);
}

/* In pieces that lie apart, plaintext gives the same id and sealed bytes; zeros at its end go. */
static void test_pieces_are_sealed_as_the_whole(void **state)
{
    (void)state;
    struct pipeline *p = pipeline_of(1, CHUNK_CIPHER_AUTO);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        for (enum kind kind = 0; kind < KIND_COUNT; kind++) {
            uint8_t *data = data_of(kind, sizes[i], i);
            struct chunk_pieces pieces = {.len = sizes[i]};
            struct buf whole = {0}, apart = {0};
            struct chunk_id id, id_apart;
            size_t count = (sizes[i] - 1) / CHUNK_PIECE_BYTES + 1;
            for (size_t n = 0; n < count; n++)
                pieces.at[n] = mem_dup(data + n * CHUNK_PIECE_BYTES,
                                       MIN(CHUNK_PIECE_BYTES, sizes[i] - n * CHUNK_PIECE_BYTES));
            assert_int_equal(chunk_seal(p, slice_of(data, sizes[i]), &whole, &id), 0);
            assert_int_equal(chunk_hash_pieces(p, &pieces, &id_apart), 0);
            assert_true(chunk_id_equal(&id, &id_apart));
            assert_int_equal(chunk_seal_pieces(p, &id, &pieces, &apart), 0);
            assert_true(slice_equal(buf_slice(&whole), buf_slice(&apart)));
            block_trim_pieces(&pieces);
            assert_int_equal(pieces.len, block_trim(data, sizes[i]));
            for (size_t n = 0; n < count; n++)
                mem_free((void *)(uintptr_t)pieces.at[n]);
            buf_deinit(&whole);
            buf_deinit(&apart);
            mem_free(data);
        }
    }
    pipeline_free(p);
}

static void parts_open_alone(struct pipeline *p, enum kind kind, size_t len)
{
    uint8_t *data = data_of(kind, len, 4);
    uint8_t *out = mem_alloc(LIMIT_CHUNK_BYTES);
    struct buf sealed = {0};
    struct chunk_id id;
    struct chunk_head h;
    assert_int_equal(chunk_seal(p, slice_of(data, len), &sealed, &id), 0);
    struct slice start = slice_of(sealed.ptr, MIN(sealed.len, CHUNK_HEAD_BYTES_MAX));
    assert_int_equal(chunk_head_decode(start, sealed.len, &h), 0);
    assert_int_equal(chunk_head_decode(start, sealed.len - 1, &h), ERR_TRUNCATED);
    assert_int_equal(chunk_head_decode(start, sealed.len + 1, &h), ERR_MALFORMED);
    uint32_t n = h.info.part_count;
    assert_int_equal(n, (len - 1) / h.info.part_bytes + 1);
    for (uint32_t i = 0; i < n; i++) {
        struct chunk_range r = chunk_part_range(&h, i, 1);
        struct slice part = slice_of(sealed.ptr + r.from, r.len);
        uint32_t plain_len = chunk_part_plain_len(&h, i);
        assert_int_equal(chunk_part_open(p, &id, &h, i, part, out), 0);
        assert_memory_equal(out, data + (size_t)i * h.info.part_bytes, plain_len);
        if (n == 1)
            continue;
        /* It is no other part, not even one of equal length. */
        assert_int_equal(chunk_part_open(p, &id, &h, (i + 1) % n, part, out), ERR_CORRUPT);
        sealed.ptr[r.from + i % r.len] ^= 4;
        assert_int_equal(chunk_part_open(p, &id, &h, i, part, out), ERR_CORRUPT);
        sealed.ptr[r.from + i % r.len] ^= 4;
        id.b[5] ^= 1;
        assert_int_equal(chunk_part_open(p, &id, &h, i, part, out), ERR_CORRUPT);
        id.b[5] ^= 1;
    }
    struct chunk_range all = chunk_part_range(&h, 0, n);
    assert_int_equal(all.from + all.len, sealed.len);
    mem_free(data);
    mem_free(out);
    buf_deinit(&sealed);
}

static void test_parts_open_alone(void **state)
{
    (void)state;
    static const enum chunk_cipher ciphers[] = {CHUNK_CIPHER_AES, CHUNK_CIPHER_XCHACHA};
    static const size_t lens[] = {1, 16384, 16385, 65536, 65537, 1000000, LIMIT_CHUNK_BYTES};
    for (size_t c = 0; c < ARRAY_COUNT(ciphers); c++) {
        struct pipeline *p = pipeline_of(1, ciphers[c]);
        for (size_t i = 0; i < ARRAY_COUNT(lens); i++)
            for (enum kind kind = 0; kind < KIND_COUNT; kind++)
                parts_open_alone(p, kind, lens[i]);
        pipeline_free(p);
    }
}

static void from_text(const char *text, struct buf *out)
{
    for (; *text != '\0'; text += 2) {
        unsigned byte;
        assert_int_equal(sscanf(text, "%2x", &byte), 1);
        buf_append(out, &(uint8_t){(uint8_t)byte}, 1);
    }
}

/* What was sealed by the first version, as it is and compressed, is read as a chunk of one part. */
static void test_version_1_is_read(void **state)
{
    (void)state;
    static const char *const golden[] = {
        "43464b310100000006000000060000000000000000000000200503bb6284f"
        "39a54d9859cd12d12ef4fb5b22a1bdb",
        "43464b3101010000b80b0000260000000108290000000000134c17c8e7f082dffd0cf8af2a941c21612499514a"
        "1c90045d3b5e969e12de76dbdaf57ec541ca511e1e989472a1042485794ed64e0c"};
    struct pipeline *p = pipeline_of(1, CHUNK_CIPHER_AUTO);
    uint8_t plain[2][3000] = {"golden"};
    const size_t lens[] = {6, 3000};
    for (size_t i = 0; i < 3000; i++)
        plain[1][i] = (uint8_t) "the quick brown fox "[i % 20];
    for (size_t i = 0; i < 2; i++) {
        struct buf sealed = {0};
        struct chunk_id id;
        struct chunk_head h;
        uint8_t out[3000];
        size_t len;
        from_text(golden[i], &sealed);
        assert_int_equal(chunk_hash(p, slice_of(plain[i], lens[i]), &id), 0);
        assert_int_equal(chunk_open_into(p, &id, buf_slice(&sealed), out, sizeof out, &len), 0);
        assert_int_equal(len, lens[i]);
        assert_memory_equal(out, plain[i], len);
        assert_int_equal(chunk_head_decode(buf_slice(&sealed), sealed.len, &h), 0);
        assert_int_equal(h.info.part_count, 1);
        struct chunk_range r = chunk_part_range(&h, 0, 1);
        memset(out, 0, sizeof out);
        assert_int_equal(chunk_part_open(p, &id, &h, 0, slice_of(sealed.ptr + r.from, r.len), out),
                         0);
        assert_memory_equal(out, plain[i], len);
        buf_deinit(&sealed);
    }
    pipeline_free(p);
}

/* Ids and sealed bytes depend on the file system's key; the keys differ among themselves. The
 * values are fixed for ever: a golden id. */
static void test_keys_are_separate_and_fixed(void **state)
{
    (void)state;
    struct fs_keys keys;
    fs_keys_derive(fs_key, &keys);
    assert_memory_not_equal(keys.hash, keys.chunk, 32);
    assert_memory_not_equal(keys.hash, keys.name, 32);
    assert_memory_not_equal(keys.chunk, keys.name, 32);
    struct pipeline *p = pipeline_of(1, CHUNK_CIPHER_AES);
    struct pipeline *q = pipeline_of(2, CHUNK_CIPHER_AES);
    struct chunk_id a;
    struct chunk_id b;
    struct buf sealed = {0};
    assert_int_equal(chunk_seal(p, slice_str("golden"), &sealed, &a), 0);
    assert_int_equal(chunk_hash(q, slice_str("golden"), &b), 0);
    assert_false(chunk_id_equal(&a, &b));
    char text[CHUNK_ID_TEXT_LEN + 1];
    chunk_id_to_text(&a, text);
    assert_string_equal(text, "2b5bdbad496b3a2ea33f015a5c3f7a8f861935df785d59835dfbc735c9e3b169");
    char sealed_text[200] = "";
    for (size_t i = 0; i < sealed.len; i++)
        snprintf(sealed_text + 2 * i, 3, "%02x", sealed.ptr[i]);
    assert_string_equal(sealed_text,
                        "43464b3102000e00060000001600000000000000000000009b94794e7ef477a"
                        "026cfe1e27bfce898c8c36bcf5627");
    buf_deinit(&sealed);
    pipeline_free(p);
    pipeline_free(q);
}

static void test_block_trim(void **state)
{
    (void)state;
    uint8_t block[1000] = {0};
    assert_int_equal(block_trim(block, 0), 0);
    assert_int_equal(block_trim(block, sizeof block), 0);
    for (size_t at = 0; at < sizeof block; at++) {
        block[at] = 1;
        for (size_t len = at; len < MIN(sizeof block, at + 20); len++)
            assert_int_equal(block_trim(block, len), len > at ? at + 1 : 0);
        assert_int_equal(block_trim(block, sizeof block), at + 1);
        block[at] = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_aes),
        cmocka_unit_test(test_round_trip_xchacha),
        cmocka_unit_test(test_bad_lengths_are_invalid),
        cmocka_unit_test(test_tampering_is_detected),
        cmocka_unit_test(test_wrong_content_under_an_id_is_corrupt),
        cmocka_unit_test(test_pieces_are_sealed_as_the_whole),
        cmocka_unit_test(test_parts_open_alone),
        cmocka_unit_test(test_version_1_is_read),
        cmocka_unit_test(test_keys_are_separate_and_fixed),
        cmocka_unit_test(test_block_trim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
