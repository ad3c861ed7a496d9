#include "client/cache_spans.h"

#include <string.h>

void spans_deinit(struct spans *s)
{
    mem_free(s->at);
    *s = (struct spans){0};
}

size_t spans_find(const struct spans *s, uint64_t offset)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (s->at[mid].to > offset)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* Replaces spans [idx, idx + old_count) by new_count others, to be filled in by the caller. */
static void splice(struct spans *s, size_t idx, size_t old_count, size_t new_count)
{
    size_t count = s->count - old_count + new_count;
    if (count > s->cap) {
        s->cap = MAX(count, s->cap * 2);
        s->at = mem_realloc(s->at, s->cap * sizeof *s->at);
    }
    if (s->count > idx + old_count)
        memmove(&s->at[idx + new_count], &s->at[idx + old_count],
                (s->count - idx - old_count) * sizeof *s->at);
    s->count = count;
}

void spans_add(struct spans *s, uint64_t from, uint64_t to)
{
    if (from >= to)
        return;
    /* The first span that overlaps or touches ends at or after `from`. */
    size_t first = from == 0 ? 0 : spans_find(s, from - 1);
    size_t last = first;
    while (last < s->count && s->at[last].from <= to) {
        from = MIN(from, s->at[last].from);
        to = MAX(to, s->at[last].to);
        last++;
    }
    splice(s, first, last - first, 1);
    s->at[first] = (struct span){.from = from, .to = to};
}

void spans_remove(struct spans *s, uint64_t from, uint64_t to)
{
    if (from >= to)
        return;
    size_t first = spans_find(s, from);
    size_t last = first;
    struct span left[2];
    size_t left_count = 0;
    while (last < s->count && s->at[last].from < to) {
        if (s->at[last].from < from)
            left[left_count++] = (struct span){.from = s->at[last].from, .to = from};
        if (s->at[last].to > to)
            left[left_count++] = (struct span){.from = to, .to = s->at[last].to};
        last++;
    }
    if (last == first)
        return;
    splice(s, first, last - first, left_count);
    for (size_t i = 0; i < left_count; i++)
        s->at[first + i] = left[i];
}

uint64_t spans_bytes(const struct spans *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->count; i++)
        bytes += s->at[i].to - s->at[i].from;
    return bytes;
}
