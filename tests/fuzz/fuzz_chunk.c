/* Opening a sealed chunk: arbitrary bytes never open; bytes with a good header fail at the tag; and
 * whatever is sealed opens again. */
#include "base/assert.h"
#include "base/limits.h"
#include "data/chunk.h"
#include "tests/fuzz/fuzz.h"

static struct pipeline *pipeline;

/* A head that is accepted puts every part into the chunk; none of them opens. */
static void parts_raw(struct slice in, const struct chunk_id *id)
{
    struct chunk_head h;
    if (chunk_head_decode(in, in.len, &h) != 0)
        return;
    uint8_t *out = mem_alloc(h.info.part_bytes);
    size_t at = 0;
    for (uint32_t i = 0; i < h.info.part_count; i++) {
        struct chunk_range r = chunk_part_range(&h, i, 1);
        ASSERT(i == 0 || r.from == at);
        ASSERT(r.from >= CHUNK_HEADER_BYTES && r.len > CHUNK_TAG_BYTES);
        at = (size_t)r.from + r.len;
        ASSERT(at <= in.len);
        int rc = chunk_part_open(pipeline, id, &h, i, slice_of(in.ptr + r.from, r.len), out);
        ASSERT(rc != 0);
    }
    ASSERT_EQ(at, in.len);
    mem_free(out);
}

static void open_raw(struct slice in)
{
    struct chunk_info info;
    struct buf out = {0};
    struct chunk_id id = CHUNK_ID_HOLE;
    size_t n = MIN(in.len, sizeof id.b);
    if (n > 0)
        memcpy(id.b, in.ptr, n);
    int rc = chunk_info_decode(in, &info);
    if (rc == 0) {
        ASSERT(info.plain_len >= 1 && info.plain_len <= LIMIT_CHUNK_BYTES);
        ASSERT_EQ(in.len, info.sealed_len);
        parts_raw(in, &id);
    }
    int rc_open = chunk_open(pipeline, &id, in, &out);
    ASSERT(rc_open != 0);
    if (rc != 0)
        ASSERT_EQ(rc, rc_open);
    ASSERT_EQ(out.len, 0);
    buf_deinit(&out);
}

/* The input as plaintext, and as the body behind a valid header. */
static void seal_and_tamper(struct slice in)
{
    struct buf sealed = {0};
    struct buf out = {0};
    struct chunk_id id;
    int rc = chunk_seal(pipeline, in, &sealed, &id);
    ASSERT_EQ(rc, 0);
    rc = chunk_open(pipeline, &id, buf_slice(&sealed), &out);
    ASSERT_EQ(rc, 0);
    ASSERT(slice_equal(buf_slice(&out), in));
    size_t at = (in.ptr[0] * 256u + in.ptr[in.len - 1]) % sealed.len;
    uint8_t bit = (uint8_t)(1u << (in.ptr[in.len / 2] & 7));
    sealed.ptr[at] ^= bit;
    buf_clear(&out);
    rc = chunk_open(pipeline, &id, buf_slice(&sealed), &out);
    ASSERT(rc != 0);
    buf_deinit(&sealed);
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (pipeline == NULL) {
        struct fs_keys keys;
        fs_keys_derive((const uint8_t[FS_KEY_BYTES]){1}, &keys);
        int rc = pipeline_new(&pipeline, &keys, CHUNK_CIPHER_AUTO);
        ASSERT_EQ(rc, 0);
    }
    open_raw(slice_of(data, size));
    if (size > 0)
        seal_and_tamper(slice_of(data, size));
    return 0;
}
