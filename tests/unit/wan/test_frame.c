/* Frames come out as they went in, however they are cut; every flipped bit is noticed. */
#include "tests/unit/wan/wan_test.h"
#include "wan/frame.h"

static void test_frame_reader_next_any_cut_gives_the_frames(void **state)
{
    (void)state;
    struct rng rng;
    struct buf stream = {0};
    uint8_t noise[700];
    enum {
        COUNT = 40
    };
    size_t lens[COUNT];
    rng_seed(&rng, 3);
    test_noise(&rng, noise, sizeof noise);
    for (int i = 0; i < COUNT; i++) {
        lens[i] = rng_below(&rng, sizeof noise + 1);
        frame_encode(&stream, (enum frame_type)(1 + i % (FRAME_TYPE_END - 1)),
                     slice_of(noise, lens[i]));
    }
    struct frame_reader r = {0};
    size_t at = 0, bytes = 0;
    int seen = 0;
    while (seen < COUNT) {
        struct frame f;
        bool got;
        assert_int_equal(frame_reader_next(&r, &f, &got), 0);
        if (!got) {
            size_t len = MIN(1 + rng_below(&rng, 900), stream.len - at);
            assert_true(len > 0);
            frame_reader_add(&r, stream.ptr + at, len);
            at += len;
            continue;
        }
        assert_int_equal(f.type, 1 + seen % (FRAME_TYPE_END - 1));
        assert_int_equal(f.payload.len, lens[seen]);
        assert_memory_equal(f.payload.ptr, noise, lens[seen]);
        bytes += frame_bytes(&f);
        seen++;
    }
    assert_int_equal(bytes, stream.len);
    frame_reader_deinit(&r);
    buf_deinit(&stream);
}

/* Heartbeats come out before their turn, with the number of batches before them; all else comes out
 * in order, and they do not come twice. */
static void test_frame_reader_heartbeat_overtakes(void **state)
{
    (void)state;
    static const enum frame_type types[] = {FRAME_BATCH,     FRAME_HEARTBEAT,   FRAME_BATCH,
                                            FRAME_HEARTBEAT, FRAME_PROBE_REPLY, FRAME_BATCH,
                                            FRAME_HEARTBEAT, FRAME_HEARTBEAT,   FRAME_BATCH};
    for (size_t taken = 0; taken <= 3; taken++) { /* in order first */
        struct buf stream = {0};
        struct frame_reader r = {0};
        struct frame f;
        bool got;
        uint64_t batches;
        for (unsigned i = 0; i < ARRAY_COUNT(types); i++) {
            char text[16];
            (void)snprintf(text, sizeof text, "frame %u", i); /* fits */
            frame_encode(&stream, types[i], slice_str(text));
        }
        unsigned at = 0, before = 0;
        for (size_t i = 0; i < stream.len; i++) { /* byte by byte */
            frame_reader_add(&r, stream.ptr + i, 1);
            while (at < taken && frame_reader_next(&r, &f, &got) == 0 && got) {
                assert_int_equal(f.type, types[at]);
                at++;
            }
            while (at == taken && frame_reader_heartbeat(&r, &f, &batches)) {
                static const uint64_t stand[] = {1, 2, 3, 3};
                unsigned gone = taken > 2 ? 2 : taken > 0 ? 1 : 0, had = taken > 1;
                assert_int_equal(f.type, FRAME_HEARTBEAT);
                assert_int_equal(batches, stand[had + before] - gone);
                before++;
            }
        }
        assert_int_equal(before, taken > 1 ? 3 : 4);
        unsigned rest = 0;
        while (frame_reader_next(&r, &f, &got) == 0 && got) {
            assert_true(f.type != FRAME_HEARTBEAT);
            rest++;
        }
        assert_int_equal(at + before + rest, ARRAY_COUNT(types));
        frame_reader_deinit(&r);
        buf_deinit(&stream);
    }
}

static void test_frame_reader_next_bit_flip_never_passes(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_encode(&stream, FRAME_BATCH, slice_str("some payload of a batch"));
    for (size_t bit = 0; bit < 8 * stream.len; bit++) {
        struct frame_reader r = {0};
        struct frame f;
        bool got;
        stream.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        frame_reader_add(&r, stream.ptr, stream.len);
        int rc = frame_reader_next(&r, &f, &got);
        assert_true(rc != 0 || !got); /* a longer length only waits for more */
        stream.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        frame_reader_deinit(&r);
    }
    buf_deinit(&stream);
}

static void test_frame_reader_next_huge_length_is_refused(void **state)
{
    (void)state;
    struct frame_reader r = {0};
    struct frame f;
    bool got;
    const uint8_t header[FRAME_HEADER_BYTES] = {0xff, 0xff, 0xff, 0x7f, FRAME_BATCH};
    frame_reader_add(&r, header, sizeof header);
    assert_int_equal(frame_reader_next(&r, &f, &got), ERR_TOO_BIG);
    frame_reader_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_reader_next_any_cut_gives_the_frames),
        cmocka_unit_test(test_frame_reader_heartbeat_overtakes),
        cmocka_unit_test(test_frame_reader_next_bit_flip_never_passes),
        cmocka_unit_test(test_frame_reader_next_huge_length_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
