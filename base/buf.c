/* Growable byte buffer: doubles, so that appending n bytes one by one costs O(n). */
#include "base/buf.h"

#include <string.h>

#include "base/assert.h"

enum {
    BUF_BYTES_MIN = 64
};

void buf_deinit(struct buf *b)
{
    mem_free(b->ptr);
    *b = (struct buf){0};
}

void buf_reserve(struct buf *b, size_t more)
{
    ASSERT(b->len <= b->cap);
    if (more <= b->cap - b->len)
        return;
    ASSERT(more <= SIZE_MAX / 2 - b->len);
    size_t cap = MAX(b->cap, (size_t)BUF_BYTES_MIN);
    while (cap < b->len + more)
        cap *= 2;
    b->ptr = mem_realloc(b->ptr, cap);
    b->cap = cap;
}

void buf_append(struct buf *b, const void *ptr, size_t len)
{
    if (len == 0)
        return;
    buf_reserve(b, len);
    memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
}

void buf_clear(struct buf *b)
{
    b->len = 0;
}

void buf_move(struct buf *to, struct buf *from)
{
    if (to == from)
        return;
    buf_deinit(to);
    *to = *from;
    *from = (struct buf){0};
}
