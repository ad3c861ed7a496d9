#include "client/cache_dirty.h"

#include <string.h>

#include "base/assert.h"
#include "client/cache_pages.h"

_Static_assert(DIRTY_SEGMENT_BYTES == PAGES_BYTES, "a segment is a buffer of them");

#define TAKEN_BYTES_MIN (DIRTY_SEGMENT_BYTES / 2) /* for less it is cheaper to copy */

/* Counted: the layer that has it, and pins. What more than one has does not change. */
struct dirty_data {
    uint32_t refs;
    uint8_t *bytes; /* DIRTY_SEGMENT_BYTES; what is written is in the layer's `data` */
};
struct dirty_segment {
    uint64_t idx; /* offset / DIRTY_SEGMENT_BYTES */
    struct dirty_data *data;
};

static struct dirty_data *data_new(uint8_t *bytes)
{
    struct dirty_data *d = mem_alloc(sizeof *d);
    *d = (struct dirty_data){.refs = 1, .bytes = bytes};
    return d;
}

static void data_unref(struct dirty_data *d)
{
    ASSERT(d->refs > 0);
    if (--d->refs > 0)
        return;
    pages_put(d->bytes);
    mem_free(d);
}

void dirty_init(struct dirty_layer *l, uint64_t lower_size)
{
    *l = (struct dirty_layer){.size = lower_size, .start = lower_size, .cut = UINT64_MAX};
}

static void drop_segments(struct dirty_layer *l)
{
    for (size_t i = 0; i < l->segment_count; i++)
        data_unref(l->segments[i].data);
    mem_free(l->segments);
}

void dirty_deinit(struct dirty_layer *l)
{
    drop_segments(l);
    spans_deinit(&l->data);
    spans_deinit(&l->zeros);
    *l = (struct dirty_layer){0};
}

bool dirty_is_clean(const struct dirty_layer *l)
{
    return l->data.count == 0 && l->zeros.count == 0 && l->cut == UINT64_MAX && !l->size_fixed &&
           l->size == l->start;
}

/* Index of the first segment >= idx. */
static size_t segment_at(const struct dirty_layer *l, uint64_t idx)
{
    size_t low = 0, high = l->segment_count;
    /* Sequential writers come to the last one. */
    if (high > 0 && l->segments[high - 1].idx <= idx)
        return l->segments[high - 1].idx == idx ? high - 1 : high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (l->segments[mid].idx < idx)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Somebody reads a pinned one: the layer goes on with a copy. */
static void segment_own(struct dirty_segment *s)
{
    if (s->data->refs == 1)
        return;
    struct dirty_data *copy = data_new(pages_get());
    memcpy(copy->bytes, s->data->bytes, DIRTY_SEGMENT_BYTES);
    data_unref(s->data);
    s->data = copy;
}

static bool segment_there(const struct dirty_layer *l, size_t at, uint64_t idx)
{
    return at < l->segment_count && l->segments[at].idx == idx;
}

/* Makes room for one at `at`. */
static void segment_insert(struct dirty_layer *l, size_t at, uint64_t idx, uint8_t *bytes)
{
    if (l->segment_count == l->segment_cap) {
        l->segment_cap = MAX(4u, l->segment_cap * 2);
        l->segments = mem_realloc(l->segments, l->segment_cap * sizeof *l->segments);
    }
    memmove(&l->segments[at + 1], &l->segments[at], (l->segment_count - at) * sizeof *l->segments);
    l->segments[at] = (struct dirty_segment){.idx = idx, .data = data_new(bytes)};
    l->segment_count++;
    l->bytes += DIRTY_SEGMENT_BYTES;
}

/* To be written to. */
static uint8_t *segment_make(struct dirty_layer *l, uint64_t idx)
{
    size_t at = segment_at(l, idx);
    if (segment_there(l, at, idx))
        segment_own(&l->segments[at]);
    else
        segment_insert(l, at, idx, pages_get());
    return l->segments[at].data->bytes;
}

/* The first `len` bytes of the segment are these; those behind are kept. True: taken over. */
static bool segment_take(struct dirty_layer *l, uint64_t idx, uint8_t *bytes, size_t len)
{
    size_t at = segment_at(l, idx);
    if (len < TAKEN_BYTES_MIN)
        return false;
    if (!segment_there(l, at, idx)) {
        segment_insert(l, at, idx, bytes);
        return true;
    }
    if (len < DIRTY_SEGMENT_BYTES)
        return false;
    data_unref(l->segments[at].data);
    l->segments[at].data = data_new(bytes);
    return true;
}

/* The segments of [from, to) if the layer has written all of that: the first one, or NULL. */
static struct dirty_segment *written_run(const struct dirty_layer *l, uint64_t from, uint64_t to)
{
    ASSERT_EQ(from % DIRTY_SEGMENT_BYTES, 0);
    size_t span = spans_find(&l->data, from);
    if (span == l->data.count || l->data.at[span].from > from || l->data.at[span].to < to)
        return NULL;
    size_t first = segment_at(l, from / DIRTY_SEGMENT_BYTES);
    size_t last = first + (size_t)((to - 1 - from) / DIRTY_SEGMENT_BYTES);
    ASSERT(last < l->segment_count);
    ASSERT_EQ(l->segments[last].idx - l->segments[first].idx, last - first);
    return &l->segments[first];
}

bool dirty_pieces(const struct dirty_layer *l, uint64_t from, uint64_t to, const uint8_t **ret)
{
    const struct dirty_segment *s = written_run(l, from, to);
    if (s == NULL)
        return false;
    for (; from < to; from += DIRTY_SEGMENT_BYTES)
        *ret++ = s++->data->bytes;
    return true;
}

bool dirty_pin(const struct dirty_layer *l,
               uint64_t from,
               uint64_t to,
               const uint8_t **ret,
               struct dirty_pins *ret_pins)
{
    const struct dirty_segment *s = written_run(l, from, to);
    ASSERT(to - from <= (uint64_t)DIRTY_PINS_MAX * DIRTY_SEGMENT_BYTES);
    if (s == NULL)
        return false;
    ret_pins->count = 0;
    for (; from < to; from += DIRTY_SEGMENT_BYTES, s++) {
        s->data->refs++;
        ret_pins->at[ret_pins->count++] = s->data;
        *ret++ = s->data->bytes;
    }
    return true;
}

void dirty_unpin(struct dirty_pins *pins)
{
    for (size_t i = 0; i < pins->count; i++)
        data_unref(pins->at[i]);
    pins->count = 0;
}

uint64_t dirty_run_start(const struct dirty_layer *l, uint64_t to)
{
    size_t span = to == 0 ? l->data.count : spans_find(&l->data, to - 1);
    if (span == l->data.count || l->data.at[span].from >= to)
        return to;
    return l->data.at[span].from;
}

static void store(struct dirty_layer *l, uint64_t offset, struct slice data)
{
    spans_add(&l->data, offset, offset + data.len);
    while (data.len > 0) {
        size_t in = offset % DIRTY_SEGMENT_BYTES;
        size_t n = MIN(data.len, DIRTY_SEGMENT_BYTES - in);
        memcpy(segment_make(l, offset / DIRTY_SEGMENT_BYTES) + in, data.ptr, n);
        offset += n;
        data.ptr += n;
        data.len -= n;
    }
}

/* The length is no longer what the lower content has, or that and appends. */
static void fix_size(struct dirty_layer *l, uint64_t reach)
{
    if (!l->size_fixed && l->size > l->start) /* with appends, that now have their place */
        reach = MAX(reach, l->size);
    l->size_fixed = true;
    l->reach = MAX(l->reach, reach);
}

/* What a write of these bytes makes of the length. */
static void
write_size(struct dirty_layer *l, uint64_t offset, size_t len, enum dirty_write_kind kind)
{
    uint64_t end = offset + len;
    ASSERT(end > offset);
    if (kind == DIRTY_WRITE_APPEND)
        ASSERT_EQ(offset, l->size);
    else if (end > l->start)
        fix_size(l, end);
    l->size = MAX(l->size, end);
    if (l->size_fixed)
        l->reach = MAX(l->reach, end);
}

void dirty_write(struct dirty_layer *l,
                 uint64_t offset,
                 struct slice data,
                 enum dirty_write_kind kind)
{
    if (data.len == 0)
        return;
    write_size(l, offset, data.len, kind);
    store(l, offset, data);
}

void dirty_write_pages(
    struct dirty_layer *l, uint64_t offset, uint8_t **pages, size_t len, enum dirty_write_kind kind)
{
    if (len == 0)
        return;
    write_size(l, offset, len, kind);
    for (size_t n; len > 0; pages++, offset += n, len -= n) {
        n = MIN(len, PAGES_BYTES);
        if (offset % DIRTY_SEGMENT_BYTES == 0 &&
            segment_take(l, offset / DIRTY_SEGMENT_BYTES, *pages, n)) {
            *pages = NULL;
            spans_add(&l->data, offset, offset + n);
        } else {
            store(l, offset, slice_of(*pages, n));
        }
    }
}

/* Segments without any written byte are given back. */
static void drop_unused(struct dirty_layer *l, uint64_t from, uint64_t to)
{
    size_t at = segment_at(l, from / DIRTY_SEGMENT_BYTES), end = at, kept = at;
    for (; end < l->segment_count; end++) {
        uint64_t start = l->segments[end].idx * DIRTY_SEGMENT_BYTES;
        if (start >= to)
            break;
        size_t span = spans_find(&l->data, start);
        if (span < l->data.count && l->data.at[span].from < start + DIRTY_SEGMENT_BYTES) {
            l->segments[kept++] = l->segments[end];
            continue;
        }
        data_unref(l->segments[end].data);
        l->bytes -= DIRTY_SEGMENT_BYTES;
    }
    if (kept == end)
        return;
    memmove(&l->segments[kept], &l->segments[end], (l->segment_count - end) * sizeof *l->segments);
    l->segment_count -= end - kept;
}

void dirty_truncate(struct dirty_layer *l, uint64_t size)
{
    spans_remove(&l->data, size, UINT64_MAX);
    spans_remove(&l->zeros, size, UINT64_MAX);
    drop_unused(l, size, UINT64_MAX);
    l->cut = MIN(l->cut, size);
    l->size = size;
    l->size_fixed = true;
}

void dirty_extend(struct dirty_layer *l, uint64_t size)
{
    if (size <= l->size)
        return;
    fix_size(l, size);
    l->size = size;
}

void dirty_zero(struct dirty_layer *l, uint64_t from, uint64_t to)
{
    if (from >= to)
        return;
    spans_remove(&l->data, from, to);
    spans_add(&l->zeros, from, MIN(to, l->size));
    drop_unused(l, from, to);
    if (MIN(to, l->size) > l->start)
        fix_size(l, 0); /* appended bytes were changed in place */
}

static void copy_out(const struct dirty_layer *l, uint64_t from, uint64_t to, uint8_t *out)
{
    while (from < to) {
        size_t in = from % DIRTY_SEGMENT_BYTES;
        size_t n = (size_t)MIN(to - from, DIRTY_SEGMENT_BYTES - in);
        size_t at = segment_at(l, from / DIRTY_SEGMENT_BYTES);
        ASSERT(at < l->segment_count && l->segments[at].idx == from / DIRTY_SEGMENT_BYTES);
        memcpy(out, l->segments[at].data->bytes + in, n);
        out += n;
        from += n;
    }
}

/* Visits the parts of `set` inside `gaps`: data are copied, zeros cleared; then takes them off. */
static void fill(const struct dirty_layer *l,
                 const struct spans *set,
                 uint64_t base,
                 uint8_t *out,
                 struct spans *gaps)
{
    struct spans filled = {0};
    for (size_t g = 0; g < gaps->count; g++) {
        struct span gap = gaps->at[g];
        for (size_t i = spans_find(set, gap.from); i < set->count && set->at[i].from < gap.to;
             i++) {
            uint64_t from = MAX(gap.from, set->at[i].from), to = MIN(gap.to, set->at[i].to);
            if (set == &l->data)
                copy_out(l, from, to, out + (from - base));
            else
                memset(out + (from - base), 0, (size_t)(to - from));
            spans_add(&filled, from, to);
        }
    }
    for (size_t i = 0; i < filled.count; i++)
        spans_remove(gaps, filled.at[i].from, filled.at[i].to);
    spans_deinit(&filled);
}

void dirty_read(const struct dirty_layer *l, uint64_t base, uint8_t *out, struct spans *gaps)
{
    if (gaps->count == 0)
        return;
    ASSERT(gaps->at[0].from >= base);
    fill(l, &l->data, base, out, gaps);
    fill(l, &l->zeros, base, out, gaps);
    if (l->cut == UINT64_MAX)
        return;
    struct span rest = {.from = l->cut, .to = UINT64_MAX};
    struct spans beyond = {.at = &rest, .count = 1};
    fill(l, &beyond, base, out, gaps);
}

static bool within(const struct spans *s, struct span *left)
{
    size_t i = spans_find(s, left->from);
    if (i == s->count || s->at[i].from > left->from)
        return false;
    left->from = s->at[i].to;
    return true;
}

bool dirty_covers(const struct dirty_layer *l, uint64_t from, uint64_t to)
{
    struct span left = {.from = from, .to = to};
    while (left.from < to && left.from < l->cut)
        if (!within(&l->data, &left) && !within(&l->zeros, &left))
            return false;
    return true;
}

void dirty_rebase(struct dirty_layer *l, uint64_t lower_size)
{
    uint64_t start = l->start;
    l->start = lower_size;
    if (l->size_fixed) {
        if (l->cut == UINT64_MAX)
            l->size = MAX(l->reach, lower_size);
        return;
    }
    uint64_t appended = l->size - start;
    l->size = lower_size + appended;
    if (appended == 0 || lower_size == start)
        return;
    /* Appends moved: all data from the old start on is one run up to the end. */
    uint8_t *moved = mem_alloc((size_t)appended);
    copy_out(l, start, start + appended, moved);
    spans_remove(&l->data, start, UINT64_MAX);
    drop_unused(l, start, UINT64_MAX);
    store(l, lower_size, slice_of(moved, (size_t)appended));
    mem_free(moved);
}

void dirty_merge(struct dirty_layer *lower, struct dirty_layer *upper)
{
    bool appended = !upper->size_fixed && !lower->size_fixed;
    uint64_t reach = upper->size_fixed            ? upper->reach
                     : upper->size > upper->start ? upper->size
                                                  : 0;
    if (upper->cut != UINT64_MAX)
        dirty_truncate(lower, upper->cut);
    for (size_t i = 0; i < upper->zeros.count; i++) {
        spans_remove(&lower->data, upper->zeros.at[i].from, upper->zeros.at[i].to);
        spans_add(&lower->zeros, upper->zeros.at[i].from, upper->zeros.at[i].to);
        drop_unused(lower, upper->zeros.at[i].from, upper->zeros.at[i].to);
    }
    for (size_t i = 0; i < upper->segment_count; i++) {
        uint64_t start = upper->segments[i].idx * DIRTY_SEGMENT_BYTES;
        uint64_t end = start + DIRTY_SEGMENT_BYTES;
        for (size_t s = spans_find(&upper->data, start);
             s < upper->data.count && upper->data.at[s].from < end; s++) {
            uint64_t from = MAX(start, upper->data.at[s].from), to = MIN(end, upper->data.at[s].to);
            store(lower, from,
                  slice_of(upper->segments[i].data->bytes + (from - start), to - from));
        }
    }
    if (!appended)
        fix_size(lower, reach);
    lower->size = upper->size;
    dirty_deinit(upper);
}
