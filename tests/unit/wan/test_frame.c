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
        cmocka_unit_test(test_frame_reader_next_bit_flip_never_passes),
        cmocka_unit_test(test_frame_reader_next_huge_length_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
