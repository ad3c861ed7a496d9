/* Sorted sets of byte ranges. A zeroed set is empty and valid. Pure. */
#ifndef CLIENT_CACHE_SPANS_H
#define CLIENT_CACHE_SPANS_H

#include "base/util.h"

struct span {
    uint64_t from, to; /* [from, to), never empty */
};
struct spans {
    struct span *at; /* ascending; neither overlapping nor touching */
    size_t count, cap;
};
void spans_deinit(struct spans *s);
void spans_add(struct spans *s, uint64_t from, uint64_t to);    /* empty ranges are ignored */
void spans_remove(struct spans *s, uint64_t from, uint64_t to); /* likewise */
/* The first span that ends after `offset`: index, or count when there is none. */
size_t spans_find(const struct spans *s, uint64_t offset);
uint64_t spans_bytes(const struct spans *s);

#endif
