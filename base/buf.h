/* Growable byte buffer, owned by whoever holds the struct. A zeroed struct is empty and valid. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <string.h>

#include "base/util.h"

struct buf {
    uint8_t *ptr;
    size_t len;
    size_t cap;
};
void buf_deinit(struct buf *b);            /* accepts zeroed; leaves it zeroed */
void buf_grow(struct buf *b, size_t more); /* what buf_reserve does when there is no room */
static inline void buf_reserve(struct buf *b, size_t more) /* room for `more` bytes beyond len */
{
    if (more > b->cap - b->len)
        buf_grow(b, more);
}
static inline void buf_append(struct buf *b, const void *ptr, size_t len)
{
    if (len == 0)
        return;
    buf_reserve(b, len);
    memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
}
/* Text, without its NUL. */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void buf_clear(struct buf *b) /* memory stays */
{
    b->len = 0;
}
void buf_move(struct buf *to, struct buf *from); /* to is freed first; from becomes empty */
static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->ptr, b->len);
}

#endif
