/* Small words everything uses: attributes, arrays, must-check, byte slices. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
/* <sys/param.h>, which other headers bring, has its own. */
#undef MIN
#undef MAX
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define NS_PER_SEC UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define KIB UINT64_C(1024)
#define MIB (1024u * KIB)
#define GIB (1024u * MIB)

/* Borrowed bytes: the owner is named where the slice comes from. ptr may be NULL when len is 0. */
struct slice {
    const uint8_t *ptr;
    size_t len;
};

static inline struct slice slice_of(const void *ptr, size_t len)
{
    return (struct slice){.ptr = (const uint8_t *)ptr, .len = len};
}
struct slice slice_str(const char *text);      /* without the terminator */
int slice_cmp(struct slice a, struct slice b); /* bytewise; a prefix is smaller */
bool slice_equal(struct slice a, struct slice b);
/* FNV-1a: for tables, and against torn and edited files; not against people. The same for ever. */
static inline uint64_t fnv1a_more(uint64_t hash, struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        hash = (hash ^ s.ptr[i]) * UINT64_C(0x100000001b3);
    return hash;
}
static inline uint64_t fnv1a(struct slice s)
{
    return fnv1a_more(UINT64_C(0xcbf29ce484222325), s);
}

/* Memory: never NULL. Running out of memory aborts with a message: a file-system daemon that
 * cannot allocate a few bytes cannot keep a promise either; sizes that users control are checked
 * against base/limits.h before any of these is called. */
void *mem_alloc(size_t len);
void *mem_calloc(size_t count, size_t size);
void *mem_realloc(void *ptr, size_t len);
void *mem_dup(const void *ptr, size_t len);
char *mem_strdup(const char *text);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mem_free(void *ptr);                    /* accepts NULL */
void *mem_aligned(size_t align, size_t len); /* free with mem_free */
/* MEM_HUGE_BYTES that the kernel is asked to map as one page: for memory that is used all over.
 * Free with mem_free. */
#define MEM_HUGE_BYTES ((size_t)2 * MIB)
void *mem_huge(void);
/* Memory for `len` bytes that will all be written to soon, at a page border: its pages are there,
 * and a fault for each is saved. Free with mem_free. */
void *mem_mapped(size_t len);
/* For programs that move much data in large pieces, at their start: what is freed stays with the
 * process, up to `bytes`, for the next piece. Given back, the kernel would zero each page anew. */
void mem_retain(size_t bytes);

#endif
