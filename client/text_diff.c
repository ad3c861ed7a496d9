#include "client/text_diff.h"

#include <string.h>

#include "base/util.h"

#define DIFFERENCES_MAX 1000u /* lines of either side; a part with more is given as a whole */
#define CONTEXT 3u

struct lines {
    struct slice *at;
    size_t count;
};

static struct lines split(struct slice s)
{
    struct lines l = {.at = mem_calloc(s.len + 1, sizeof *l.at)};
    while (s.len > 0) {
        const uint8_t *end = memchr(s.ptr, '\n', s.len);
        size_t len = end ? (size_t)(end - s.ptr) : s.len;
        l.at[l.count++] = slice_of(s.ptr, len);
        len = MIN(len + 1, s.len);
        s = slice_of(s.ptr + len, s.len - len);
    }
    return l;
}

/* What is known of the lines from here on: printed as they come, but for long equal parts. */
struct out {
    struct buf *ret;
    struct lines kept; /* equal lines that are not printed yet */
    bool changed;      /* something was different before them */
};

static void put(struct buf *b, char sign, struct slice line)
{
    char lead[2] = {sign, ' '};
    buf_append(b, lead, sizeof lead);
    buf_append(b, line.ptr, line.len);
    buf_append(b, "\n", 1);
}

/* Equal lines between two differences, or at an end. */
static void flush(struct out *o, bool more_comes)
{
    size_t head = o->changed ? CONTEXT : 0, tail = more_comes ? CONTEXT : 0;
    for (size_t i = 0; i < o->kept.count; i++) {
        bool shown = i < head || i + tail >= o->kept.count;
        if (shown)
            put(o->ret, ' ', o->kept.at[i]);
        else if (i == head)
            buf_append(o->ret, "...\n", 4);
    }
    o->kept.count = 0;
    o->changed = true;
}

static void same(struct out *o, struct slice line)
{
    o->kept.at[o->kept.count++] = line;
}

static void differ(struct out *o, char sign, struct slice line)
{
    flush(o, true);
    put(o->ret, sign, line);
}

/* Myers' greedy search (An O(ND) difference algorithm, 1986), from the ends of the texts to their
 * beginnings, so that the way back is in the order of the lines. Row d has, for diagonals -d, -d +
 * 2
 * .. d, how many lines of `a` from its end on are dealt with after d differences. */
struct search {
    struct lines a, b;
    int32_t *rows;
};

static int32_t *row(const struct search *s, int32_t d)
{
    return s->rows + (size_t)d * ((size_t)d + 1) / 2;
}

/* After the step onto diagonal k, before the equal lines there. A line of `a` rather than one of
 * `b`, so that what went comes before what came. */
static int32_t step(const struct search *s, int32_t d, int32_t k, bool *ret_of_a)
{
    const int32_t *before = row(s, d - 1);
    int32_t of_a = k > -d ? before[(k - 1 + d - 1) / 2] + 1 : -1;
    int32_t of_b = k < d ? before[(k + 1 + d - 1) / 2] : -1;
    *ret_of_a = of_a >= of_b;
    return MAX(of_a, of_b);
}

/* True: both are dealt with after d differences. */
static bool search_row(const struct search *s, int32_t d)
{
    int32_t a = (int32_t)s->a.count, b = (int32_t)s->b.count;
    bool unused;
    for (int32_t k = -d; k <= d; k += 2) {
        int32_t x = d == 0 ? 0 : step(s, d, k, &unused), y = x - k;
        while (x < a && y < b && slice_equal(s->a.at[a - 1 - x], s->b.at[b - 1 - y])) {
            x++;
            y++;
        }
        row(s, d)[(k + d) / 2] = x;
        if (x == a && y == b)
            return true;
    }
    return false;
}

static void walk_back(const struct search *s, int32_t d, struct out *o)
{
    int32_t a = (int32_t)s->a.count, b = (int32_t)s->b.count, x = a, y = b;
    for (; d > 0; d--) {
        bool of_a;
        int32_t from = step(s, d, x - y, &of_a);
        for (; x > from; x--, y--)
            same(o, s->a.at[a - x]);
        if (of_a)
            differ(o, '-', s->a.at[a - x--]);
        else
            differ(o, '+', s->b.at[b - y--]);
    }
    for (; x > 0; x--)
        same(o, s->a.at[a - x]);
}

/* The part without common ends. */
static void compare(struct out *o, struct lines a, struct lines b)
{
    struct search s = {.a = a, .b = b};
    int32_t d = 0, max = (int32_t)MIN(a.count + b.count, DIFFERENCES_MAX);
    s.rows = mem_calloc((size_t)(max + 1) * ((size_t)max + 2) / 2, sizeof *s.rows);
    while (d <= max && !search_row(&s, d))
        d++;
    if (d <= max)
        walk_back(&s, d, o);
    for (size_t i = 0; i < a.count && d > max; i++)
        differ(o, '-', a.at[i]);
    for (size_t i = 0; i < b.count && d > max; i++)
        differ(o, '+', b.at[i]);
    mem_free(s.rows);
}

void text_diff(struct slice text_a, struct slice text_b, struct buf *ret)
{
    struct lines a = split(text_a), b = split(text_b);
    struct out o = {.ret = ret, .kept = {.at = mem_calloc(a.count + 1, sizeof *o.kept.at)}};
    size_t head = 0, tail = 0, fewer = MIN(a.count, b.count);
    while (head < fewer && slice_equal(a.at[head], b.at[head]))
        same(&o, a.at[head++]);
    while (tail < fewer - head && slice_equal(a.at[a.count - 1 - tail], b.at[b.count - 1 - tail]))
        tail++;
    compare(&o, (struct lines){a.at + head, a.count - head - tail},
            (struct lines){b.at + head, b.count - head - tail});
    for (size_t i = a.count - tail; i < a.count; i++)
        same(&o, a.at[i]);
    if (o.changed)
        flush(&o, false);
    mem_free(o.kept.at);
    mem_free(a.at);
    mem_free(b.at);
}
