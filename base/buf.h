/* Growable byte buffer, owned by whoever holds the struct. A zeroed struct is empty and valid. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/util.h"

struct buf {
    uint8_t *ptr;
    size_t len;
    size_t cap;
};
void buf_deinit(struct buf *b);               /* accepts zeroed; leaves it zeroed */
void buf_reserve(struct buf *b, size_t more); /* room for `more` bytes beyond len */
void buf_append(struct buf *b, const void *ptr, size_t len);
void buf_clear(struct buf *b);                   /* len = 0, memory stays */
void buf_move(struct buf *to, struct buf *from); /* to is freed first; from becomes empty */
static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->ptr, b->len);
}

#endif
