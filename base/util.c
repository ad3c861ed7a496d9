/* Small helpers and the only place that talks to the C allocator. */
#include "base/util.h"

#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct slice slice_str(const char *text)
{
    return slice_of(text, strlen(text));
}

int slice_cmp(struct slice a, struct slice b)
{
    size_t len = MIN(a.len, b.len);
    int order = len == 0 ? 0 : memcmp(a.ptr, b.ptr, len);
    if (order != 0)
        return order < 0 ? -1 : 1;
    return a.len < b.len ? -1 : a.len > b.len;
}

bool slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static void *mem_checked(void *ptr, size_t len)
{
    if (ptr == NULL) {
        (void)fprintf(stderr, "out of memory: %zu bytes wanted\n", len);
        abort();
    }
    return ptr;
}

void *mem_alloc(size_t len)
{
    return mem_checked(malloc(len == 0 ? 1 : len), len);
}

void *mem_calloc(size_t count, size_t size)
{
    if (count == 0 || size == 0)
        return mem_checked(calloc(1, 1), 1);
    return mem_checked(calloc(count, size), count > SIZE_MAX / size ? SIZE_MAX : count * size);
}

void *mem_realloc(void *ptr, size_t len)
{
    return mem_checked(realloc(ptr, len == 0 ? 1 : len), len);
}

void *mem_dup(const void *ptr, size_t len)
{
    void *copy = mem_alloc(len);
    if (len > 0)
        memcpy(copy, ptr, len);
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_dup(text, strlen(text) + 1);
}

char *mem_printf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    return mem_checked(len < 0 ? NULL : text, 0);
}

void mem_free(void *ptr)
{
    free(ptr);
}

void *mem_aligned(size_t align, size_t len)
{
    void *ptr = NULL;
    if (posix_memalign(&ptr, MAX(align, sizeof(void *)), len == 0 ? 1 : len) != 0)
        ptr = NULL;
    return mem_checked(ptr, len);
}

void *mem_huge(void)
{
    void *ptr = mem_aligned(MEM_HUGE_BYTES, MEM_HUGE_BYTES);
    (void)madvise(ptr, MEM_HUGE_BYTES, MADV_HUGEPAGE); /* without it, it is memory all the same */
    return ptr;
}

void *mem_mapped(size_t len)
{
    enum {
        PAGE_BYTES = 4096
    };
    void *ptr = mem_aligned(PAGE_BYTES, len);
    (void)madvise(ptr, len, MADV_POPULATE_WRITE); /* not on kernels before 5.14: it faults then */
    return ptr;
}

void mem_retain(size_t bytes)
{
    enum {
        MAPPED_BYTES = 32 * 1024 * 1024, /* the largest that the C library takes for it */
        ARENAS = 2                       /* few, so that what one thread frees others can use */
    };
    /* Refused, they cost time only. */
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, (int)MIN(bytes, (size_t)INT_MAX));
    (void)mallopt(M_ARENA_MAX, ARENAS);
}
