/* Slices, memory helpers and struct buf. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/buf.h"

static void test_slice_cmp_orders_bytewise(void **state)
{
    (void)state;
    assert_int_equal(slice_cmp(slice_str("a"), slice_str("b")), -1);
    assert_int_equal(slice_cmp(slice_str("b"), slice_str("a")), 1);
    assert_int_equal(slice_cmp(slice_str("a"), slice_str("ab")), -1);
    assert_int_equal(slice_cmp(slice_str("ab"), slice_str("a")), 1);
    assert_int_equal(slice_cmp(slice_str("x"), slice_str("\xff")), -1); /* unsigned */
    assert_int_equal(slice_cmp(slice_of(NULL, 0), slice_str("")), 0);
}

static void test_slice_equal_compares_length_and_bytes(void **state)
{
    (void)state;
    assert_true(slice_equal(slice_of(NULL, 0), slice_str("")));
    assert_true(slice_equal(slice_str("name"), slice_str("name")));
    assert_false(slice_equal(slice_str("name"), slice_str("nam")));
    assert_false(slice_equal(slice_str("name"), slice_str("nama")));
}

/* Values of the authors' test suite: files and seeds depend on them. */
static void test_fnv1a_gives_what_it_is_known_to(void **state)
{
    (void)state;
    assert_int_equal(fnv1a(slice_str("")), UINT64_C(0xcbf29ce484222325));
    assert_int_equal(fnv1a(slice_str("a")), UINT64_C(0xaf63dc4c8601ec8c));
    assert_int_equal(fnv1a(slice_str("foobar")), UINT64_C(0x85944171f73967e8));
    assert_int_equal(fnv1a_more(fnv1a(slice_str("foo")), slice_str("bar")),
                     fnv1a(slice_str("foobar")));
}

static void test_mem_zero_sizes_are_pointers(void **state)
{
    (void)state;
    void *blocks[] = {mem_alloc(0), mem_calloc(0, 8), mem_calloc(8, 0), mem_dup(NULL, 0),
                      mem_aligned(4096, 0)};
    for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
        assert_non_null(blocks[i]);
        mem_free(blocks[i]);
    }
    mem_free(NULL);
}

static void test_mem_aligned_is_aligned_and_freed_as_any(void **state)
{
    (void)state;
    for (size_t align = 1; align <= 4096; align *= 2) {
        uint8_t *ptr = mem_aligned(align, 100);
        assert_int_equal((uintptr_t)ptr % align, 0);
        memset(ptr, 1, 100);
        mem_free(ptr);
    }
}

static void test_mem_printf_formats(void **state)
{
    (void)state;
    char *text = mem_printf("%s-%d", "site", 7), *copy = mem_strdup(text);
    assert_string_equal(copy, "site-7");
    mem_free(text);
    mem_free(copy);
}

/* Grows through many capacities; contents stay. */
static void test_buf_append_keeps_contents(void **state)
{
    (void)state;
    struct buf b = {0};
    for (uint32_t i = 0; i < 5000; i++) {
        uint8_t byte = (uint8_t)(i * 7);
        buf_append(&b, &byte, 1);
    }
    assert_int_equal(b.len, 5000);
    for (uint32_t i = 0; i < 5000; i++)
        assert_int_equal(b.ptr[i], (uint8_t)(i * 7));
    buf_append(&b, NULL, 0);
    assert_int_equal(b.len, 5000);
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_true(b.cap >= 5000);
    buf_deinit(&b);
    assert_null(b.ptr);
    buf_deinit(&b);
}

static void test_buf_move_frees_target_and_empties_source(void **state)
{
    (void)state;
    struct buf a = {0}, b = {0};
    buf_append(&a, "old", 3);
    buf_append(&b, "new", 3);
    buf_move(&a, &b);
    assert_true(slice_equal(buf_slice(&a), slice_str("new")));
    assert_null(b.ptr);
    assert_int_equal(b.len, 0);
    buf_move(&a, &a);
    assert_true(slice_equal(buf_slice(&a), slice_str("new")));
    buf_deinit(&a);
}

static void test_buf_reserve_makes_room_without_length(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_reserve(&b, 1000);
    assert_true(b.cap >= 1000);
    assert_int_equal(b.len, 0);
    uint8_t *before = b.ptr;
    memset(b.ptr, 0, 1000);
    b.len = 1000;
    buf_reserve(&b, 0);
    assert_ptr_equal(before, b.ptr);
    buf_deinit(&b);
}

static void test_buf_printf_appends_text_of_any_length(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_printf(&b, "%s", "");
    assert_int_equal(b.len, 0);
    buf_printf(&b, "%d and ", 7);
    buf_printf(&b, "%05000d", 8);
    assert_int_equal(b.len, 6 + 5000);
    assert_memory_equal(b.ptr, "7 and 000", 9);
    assert_int_equal(b.ptr[b.len - 1], '8');
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice_cmp_orders_bytewise),
        cmocka_unit_test(test_slice_equal_compares_length_and_bytes),
        cmocka_unit_test(test_fnv1a_gives_what_it_is_known_to),
        cmocka_unit_test(test_mem_zero_sizes_are_pointers),
        cmocka_unit_test(test_mem_aligned_is_aligned_and_freed_as_any),
        cmocka_unit_test(test_mem_printf_formats),
        cmocka_unit_test(test_buf_append_keeps_contents),
        cmocka_unit_test(test_buf_move_frees_target_and_empties_source),
        cmocka_unit_test(test_buf_reserve_makes_room_without_length),
        cmocka_unit_test(test_buf_printf_appends_text_of_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
