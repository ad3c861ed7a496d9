/* Compression along a stream: messages come out one by one, the second of two equal ones is small,
 * damage is an error and never a crash. */
#include "tests/unit/wan/wan_test.h"
#include "wan/zstream.h"

static void test_zunpack_next_gives_each_message(void **state)
{
    (void)state;
    struct zpack *p = zpack_new();
    struct zunpack *u = zunpack_new();
    struct rng rng;
    struct buf in = {0}, wire = {0}, out = {0};
    rng_seed(&rng, 4);
    for (int i = 0; i < 300; i++) {
        uint8_t noise[64];
        size_t repeats = rng_below(&rng, 400);
        test_noise(&rng, noise, sizeof noise);
        buf_clear(&in);
        for (size_t k = 0; k < repeats; k++)
            buf_append(&in, noise, rng_below(&rng, sizeof noise));
        buf_clear(&wire);
        zpack_add(p, buf_slice(&in), &wire);
        assert_int_equal(zunpack_next(u, buf_slice(&wire), 1u << 20, &out), 0);
        assert_true(slice_equal(buf_slice(&in), buf_slice(&out)));
    }
    buf_deinit(&in);
    buf_deinit(&wire);
    buf_deinit(&out);
    zpack_free(p);
    zunpack_free(u);
}

static void test_zpack_add_remembers_the_stream(void **state)
{
    (void)state;
    struct zpack *p = zpack_new();
    struct rng rng;
    uint8_t noise[4000];
    struct buf first = {0}, second = {0};
    rng_seed(&rng, 5);
    test_noise(&rng, noise, sizeof noise);
    zpack_add(p, slice_of(noise, sizeof noise), &first);
    zpack_add(p, slice_of(noise, sizeof noise), &second);
    assert_true(first.len >= sizeof noise && second.len < 100);
    buf_deinit(&first);
    buf_deinit(&second);
    zpack_free(p);
}

static void test_zunpack_next_damage_is_an_error(void **state)
{
    (void)state;
    struct buf wire = {0}, out = {0};
    struct zpack *p = zpack_new();
    char text[2000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "abcdefgh ijk lmnop"[(i * i) % 18];
    zpack_add(p, slice_of(text, sizeof text), &wire);
    zpack_free(p);
    for (size_t len = 0; len < wire.len; len++) {
        struct zunpack *u = zunpack_new();
        assert_int_not_equal(zunpack_next(u, slice_of(wire.ptr, len), 1u << 20, &out), 0);
        zunpack_free(u);
    }
    for (size_t bit = 0; bit < 8 * wire.len; bit++) {
        struct zunpack *u = zunpack_new();
        wire.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int rc = zunpack_next(u, buf_slice(&wire), 1u << 20, &out);
        assert_true(rc != 0 || out.len <= 1u << 20); /* the frame's checksum finds the rest */
        wire.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        zunpack_free(u);
    }
    struct zunpack *u = zunpack_new();
    assert_int_equal(zunpack_next(u, buf_slice(&wire), sizeof text - 1, &out), ERR_TOO_BIG);
    zunpack_free(u);
    buf_deinit(&wire);
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zunpack_next_gives_each_message),
        cmocka_unit_test(test_zpack_add_remembers_the_stream),
        cmocka_unit_test(test_zunpack_next_damage_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
