/* wan/frame.h and wan/zstream.h: a byte stream cut anywhere gives the same frames as in one piece;
 * what looks compressed never grows beyond its bound. */
#include "base/assert.h"
#include "tests/fuzz/fuzz.h"
#include "wan/frame.h"
#include "wan/zstream.h"

enum {
    UNPACKED_MAX = 1 << 16
};

/* Counts frames and their bytes; feeds `step` bytes at a time. */
static size_t frames_count(const uint8_t *data, size_t size, size_t step, size_t *ret_bytes)
{
    struct frame_reader r = {0};
    size_t count = 0, at = 0;
    *ret_bytes = 0;
    for (;;) {
        struct frame f;
        bool got;
        if (frame_reader_next(&r, &f, &got) != 0)
            break;
        if (got) {
            ASSERT(f.payload.len <= FRAME_PAYLOAD_MAX);
            ASSERT(f.type > 0 && f.type < FRAME_TYPE_END);
            count++;
            *ret_bytes += frame_bytes(&f);
            continue;
        }
        if (at == size)
            break;
        size_t len = MIN(step, size - at);
        frame_reader_add(&r, data + at, len);
        at += len;
    }
    frame_reader_deinit(&r);
    return count;
}

/* Heartbeats first: no frame is lost or doubled by that, as far as the bytes can be read. */
static void heartbeats_first(const uint8_t *data, size_t size, size_t count)
{
    struct frame_reader r = {0};
    struct frame f;
    uint64_t batches;
    bool got = true;
    size_t early = 0, rest = 0;
    frame_reader_add(&r, data, size);
    while (frame_reader_heartbeat(&r, &f, &batches))
        early++;
    while (frame_reader_next(&r, &f, &got) == 0 && got)
        rest++;
    ASSERT(early + rest >= count);
    frame_reader_deinit(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t bytes, bytes_cut;
    size_t count = frames_count(data, size, MAX(size, 1u), &bytes);
    ASSERT(frames_count(data, size, 7, &bytes_cut) == count && bytes == bytes_cut);

    heartbeats_first(data, size, count);

    struct zunpack *z = zunpack_new();
    struct buf out = {0};
    if (zunpack_next(z, slice_of(data, size), UNPACKED_MAX, &out) == 0)
        ASSERT(out.len <= UNPACKED_MAX);
    buf_deinit(&out);
    zunpack_free(z);
    return 0;
}
