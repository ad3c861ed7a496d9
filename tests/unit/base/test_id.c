/* Oids, dots and version vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"

static void test_oid_file_has_the_documented_bytes(void **state)
{
    (void)state;
    struct oid o = oid_file(0x0102, OID_SYMLINK, 0x9f00aa12, 0x1122334455667788);
    const uint8_t want[16] = {0x01, 0x02, 3,    0,    0x9f, 0x00, 0xaa, 0x12,
                              0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};
    assert_memory_equal(o.b, want, 16);
    assert_int_equal(oid_shard(o), 0x0102);
    assert_int_equal(oid_kind(o), OID_SYMLINK);
    assert_int_equal(oid_short(o), 0x55667788);
    assert_true(oid_valid(o));
    assert_false(oid_is_dir(o));
}

static void test_oid_dir_and_root(void **state)
{
    (void)state;
    const uint8_t hash[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const uint8_t zeros[12] = {0};
    struct oid o = oid_dir(7, hash);
    assert_true(oid_is_dir(o) && oid_valid(o) && !oid_is_root(o));
    assert_int_equal(oid_short(o), 0x090a0b0c);
    assert_true(oid_is_root(oid_dir(0, zeros)));
    assert_false(oid_is_root(oid_dir(1, zeros)));
}

static void test_oid_valid_rejects_unknown_forms(void **state)
{
    (void)state;
    struct oid o = {.b = {0}};
    assert_true(oid_is_none(o));
    assert_false(oid_valid(o));
    o.b[2] = OID_KIND_COUNT;
    assert_false(oid_valid(o));
    o.b[2] = OID_FILE;
    assert_true(oid_valid(o));
    o.b[3] = 1;
    assert_false(oid_valid(o));
}

/* memcmp of the bytes is the order; it follows (shard, kind, site, counter). */
static void test_oid_cmp_follows_the_fields(void **state)
{
    (void)state;
    struct oid a = oid_file(1, OID_FILE, 5, 255), b = oid_file(1, OID_FILE, 5, 256);
    struct oid c = oid_file(1, OID_FILE, 256, 0), d = oid_file(256, OID_FILE, 1, 0);
    assert_true(oid_cmp(a, b) < 0 && oid_cmp(b, c) < 0 && oid_cmp(c, d) < 0);
    assert_true(oid_equal(a, a) && !oid_equal(a, b));
}

static void test_oid_text_round_trips(void **state)
{
    (void)state;
    char text[OID_TEXT_LEN + 1];
    struct oid o = oid_file(3, OID_FILE, 0xdeadbeef, 77), back;
    oid_to_text(o, text);
    assert_string_equal(text, "00030100deadbeef000000000000004d");
    assert_int_equal(oid_from_text(text, &back), 0);
    assert_true(oid_equal(o, back));
    assert_int_equal(oid_from_text("00030100DEADBEEF000000000000004D", &back), 0);
}

static void test_oid_from_text_rejects_other_text(void **state)
{
    (void)state;
    const char *bad[] = {"",
                         "00030100deadbeef000000000000004",
                         "00030100deadbeef000000000000004d0",
                         "00030100deadbeef00000000000000g0",
                         "00030000deadbeef0000000000000000",
                         "00030101deadbeef0000000000000000"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct oid o = OID_ROOT;
        assert_int_equal(oid_from_text(bad[i], &o), ERR_INVALID);
        assert_true(oid_is_root(o)); /* untouched */
    }
}

static void test_dot_text_round_trips(void **state)
{
    (void)state;
    char text[DOT_TEXT_LEN];
    const struct dot dots[] = {{.seq = 17, .site = 0x9f00aa12, .shard = 3},
                               {.seq = UINT64_MAX, .site = UINT32_MAX, .shard = UINT16_MAX},
                               {0}};
    const char *const want[] = {"3:9f00aa12:17", "65535:ffffffff:18446744073709551615",
                                "0:00000000:0"};
    for (size_t i = 0; i < ARRAY_COUNT(dots); i++) {
        struct dot back;
        dot_to_text(dots[i], text);
        assert_string_equal(text, want[i]);
        assert_int_equal(dot_from_text(text, &back), 0);
        assert_true(dot_equal(dots[i], back));
    }
}

static void test_dot_from_text_rejects_other_text(void **state)
{
    (void)state;
    const char *bad[] = {"",       "1",         "1:2",           "1:2:",
                         ":2:3",   "1::3",      "1:2:3:",        "1:2:3 ",
                         " 1:2:3", "1:g:3",     "a:1:1",         "1:1:a",
                         "-1:1:1", "65536:1:1", "1:100000000:1", "1:1:18446744073709551616"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct dot d = {.seq = 9};
        assert_int_equal(dot_from_text(bad[i], &d), ERR_INVALID);
        assert_int_equal(d.seq, 9);
    }
}

static void test_dot_and_stamp_order(void **state)
{
    (void)state;
    assert_true(dot_cmp((struct dot){.shard = 1, .site = 9, .seq = 9},
                        (struct dot){.shard = 2, .site = 1, .seq = 1}) < 0);
    assert_true(dot_cmp((struct dot){.shard = 1, .site = 1, .seq = 9},
                        (struct dot){.shard = 1, .site = 2, .seq = 1}) < 0);
    assert_true(dot_cmp((struct dot){.seq = 2}, (struct dot){.seq = 1}) > 0);
    assert_true(stamp_cmp((struct stamp){.hlc = 1, .site = 9}, (struct stamp){.hlc = 2}) < 0);
    assert_true(
        stamp_cmp((struct stamp){.hlc = 1, .site = 9}, (struct stamp){.hlc = 1, .site = 8}) > 0);
}

/* Against a plain array, with random sets: values agree and the entries stay sorted. */
static void test_vv_set_agrees_with_an_array(void **state)
{
    (void)state;
    struct rng r;
    struct vv v = {0};
    uint64_t plain[100] = {0};
    rng_seed(&r, 1);
    for (int round = 0; round < 5000; round++) {
        site_id_t site = (site_id_t)rng_below(&r, ARRAY_COUNT(plain));
        uint64_t seq = rng_below(&r, 4);
        uint32_t count = v.count;
        int rc = vv_set(&v, site, seq);
        if (rc == 0)
            plain[site] = seq;
        else
            assert_true(rc == ERR_LIMIT && count == SITE_COUNT_MAX && plain[site] == 0);
        for (uint32_t i = 0; i < ARRAY_COUNT(plain); i++)
            assert_int_equal(vv_get(&v, i), plain[i]);
        for (uint32_t i = 1; i < v.count; i++)
            assert_true(v.at[i - 1].site < v.at[i].site);
    }
}

static void test_vv_set_full_is_limit(void **state)
{
    (void)state;
    struct vv v = {0};
    for (site_id_t s = 1; s <= SITE_COUNT_MAX; s++)
        assert_int_equal(vv_set(&v, s * 2, s), 0);
    assert_int_equal(vv_set(&v, 3, 1), ERR_LIMIT);
    assert_int_equal(v.count, SITE_COUNT_MAX);
    assert_int_equal(vv_set(&v, 4, 100), 0);
    assert_int_equal(vv_set(&v, SITE_COUNT_MAX * 2, 0), 0); /* removes the last */
    assert_int_equal(vv_set(&v, 3, 1), 0);
    assert_int_equal(vv_get(&v, 4), 100);
}

static void test_vv_covers_is_a_partial_order(void **state)
{
    (void)state;
    struct vv a = {0}, b = {0}, empty = {0};
    assert_int_equal(vv_set(&a, 1, 5), 0);
    assert_int_equal(vv_set(&a, 2, 5), 0);
    assert_int_equal(vv_set(&b, 2, 4), 0);
    assert_true(vv_covers(&a, &a) && vv_covers(&a, &b) && !vv_covers(&b, &a));
    assert_true(vv_covers(&a, &empty) && vv_covers(&empty, &empty) && !vv_covers(&empty, &b));
    assert_int_equal(vv_set(&b, 2, 6), 0);
    assert_false(vv_covers(&a, &b) || vv_covers(&b, &a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oid_file_has_the_documented_bytes),
        cmocka_unit_test(test_oid_dir_and_root),
        cmocka_unit_test(test_oid_valid_rejects_unknown_forms),
        cmocka_unit_test(test_oid_cmp_follows_the_fields),
        cmocka_unit_test(test_oid_text_round_trips),
        cmocka_unit_test(test_oid_from_text_rejects_other_text),
        cmocka_unit_test(test_dot_text_round_trips),
        cmocka_unit_test(test_dot_from_text_rejects_other_text),
        cmocka_unit_test(test_dot_and_stamp_order),
        cmocka_unit_test(test_vv_set_agrees_with_an_array),
        cmocka_unit_test(test_vv_set_full_is_limit),
        cmocka_unit_test(test_vv_covers_is_a_partial_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
