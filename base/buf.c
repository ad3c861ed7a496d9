/* Growable byte buffer: doubles, so that appending n bytes one by one costs O(n). */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"

enum {
    BUF_BYTES_MIN = 64
};

void buf_deinit(struct buf *b)
{
    mem_free(b->ptr);
    *b = (struct buf){0};
}

void buf_grow(struct buf *b, size_t more)
{
    ASSERT(b->len <= b->cap);
    ASSERT(more <= SIZE_MAX / 2 - b->len);
    size_t cap = MAX(b->cap, (size_t)BUF_BYTES_MIN);
    while (cap < b->len + more)
        cap *= 2;
    b->ptr = mem_realloc(b->ptr, cap);
    b->cap = cap;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ASSERT(len >= 0);
    buf_reserve(b, (size_t)len + 1);
    va_start(args, fmt);
    (void)vsnprintf((char *)b->ptr + b->len, (size_t)len + 1, fmt, args);
    va_end(args);
    b->len += (size_t)len;
}

void buf_move(struct buf *to, struct buf *from)
{
    if (to == from)
        return;
    buf_deinit(to);
    *to = *from;
    *from = (struct buf){0};
}
