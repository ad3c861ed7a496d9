#include "client/text_diff.h"

#include <string.h>

#include "base/util.h"

#define LINES_MAX 1000u /* of a part that is compared line by line */
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

/* The part without common ends. lengths[i][k]: of the longest common subsequence from there on. */
static void compare(struct out *o, struct lines a, struct lines b)
{
    size_t width = b.count + 1, i = 0, k = 0;
    uint16_t *lengths = NULL;
    if (a.count <= LINES_MAX && b.count <= LINES_MAX && a.count > 0 && b.count > 0) {
        lengths = mem_calloc((a.count + 1) * width, sizeof *lengths);
        for (i = a.count; i-- > 0;)
            for (k = b.count; k-- > 0;)
                lengths[i * width + k] =
                    slice_equal(a.at[i], b.at[k])
                        ? (uint16_t)(lengths[(i + 1) * width + k + 1] + 1)
                        : MAX(lengths[(i + 1) * width + k], lengths[i * width + k + 1]);
    }
    i = k = 0;
    while (i < a.count || k < b.count) {
        if (lengths && i < a.count && k < b.count && slice_equal(a.at[i], b.at[k])) {
            same(o, a.at[i++]);
            k++;
        } else if (i < a.count && (k == b.count || !lengths ||
                                   lengths[(i + 1) * width + k] >= lengths[i * width + k + 1])) {
            differ(o, '-', a.at[i++]);
        } else {
            differ(o, '+', b.at[k++]);
        }
    }
    mem_free(lengths);
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
