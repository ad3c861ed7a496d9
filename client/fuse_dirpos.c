#include "client/fuse_dirpos.h"

#include <string.h>

void dirpos_clear(struct dirpos *d)
{
    for (size_t i = 0; i < d->count; i++)
        mem_free(d->pages[i].after);
    d->count = 0;
}

void dirpos_deinit(struct dirpos *d)
{
    dirpos_clear(d);
    mem_free(d->pages);
    *d = (struct dirpos){0};
}

void dirpos_add(struct dirpos *d, uint64_t first, uint32_t n, struct slice last)
{
    uint64_t next = first + n;
    if (n == 0 || (d->count > 0 && d->pages[d->count - 1].first >= next))
        return; /* known already: somebody seeked back */
    if (d->count == d->cap) {
        d->cap = d->cap == 0 ? 8 : d->cap * 2;
        d->pages = mem_realloc(d->pages, d->cap * sizeof *d->pages);
    }
    char *after = mem_alloc(last.len + 1);
    memcpy(after, last.ptr, last.len);
    after[last.len] = '\0';
    d->pages[d->count++] = (struct dirpos_page){.first = next, .after = after};
}

const char *dirpos_find(const struct dirpos *d, uint64_t number, uint64_t *ret_first)
{
    size_t low = 0, high = d->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (d->pages[mid].first <= number)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0) {
        *ret_first = 0;
        return "";
    }
    *ret_first = d->pages[low - 1].first;
    return d->pages[low - 1].after;
}
