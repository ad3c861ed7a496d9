/* model-vectors FILE...: the histories of merge_model.py through the simulator's own writing of the
 * conflict rules (sim/model.c), which judges the engine there: each history, in the order of each
 * site, must make the tree that the specification says. Exit status 0: all agree. */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "sim/model.h"
#include "sim/tree.h"
#include "tests/vectors/vector.h"

#define LINE_TAIL (1 + OID_TEXT_LEN + 1 + 16) /* behind the path: tree_line() */

static const char *letter(void *ctx, site_id_t site)
{
    static char text[2];
    (void)ctx;
    text[0] = (char)site;
    return text;
}

static int complain(const char *what, struct slice path)
{
    (void)fprintf(stderr, "  %s: %.*s\n", what, (int)path.len, (const char *)path.ptr);
    return 1;
}

/* One line of the model's tree beside the specification's. */
static int check_line(const struct vector *v, struct slice line)
{
    if (line.len <= LINE_TAIL)
        return complain("no line of a tree", line);
    struct slice path = slice_of(line.ptr, line.len - LINE_TAIL);
    const json_t *want = json_object_getn(v->tree, (const char *)path.ptr, path.len);
    const char *kind = json_string_value(json_array_get(want, 0));
    if (kind == NULL)
        return complain("should not be there", path);
    const char *data = json_string_value(json_array_get(want, 2));
    unsigned long long hash = 0;
    if (strcmp(kind, "dir") != 0) {
        if (data == NULL)
            return complain("has no content in the vector", path);
        hash = (unsigned long long)fnv1a(slice_str(data));
    }
    char *end = mem_printf("%016llx", hash);
    bool same = memcmp(line.ptr + line.len - 16, end, 16) == 0;
    mem_free(end);
    return same ? 0 : complain("is of another kind, or has another content", path);
}

static int check_tree(const struct vector *v, struct slice text)
{
    size_t count = 0;
    int bad = 0;
    for (size_t at = 0; at < text.len; count++) {
        const uint8_t *end = memchr(text.ptr + at, '\n', text.len - at);
        ASSERT(end != NULL);
        size_t len = (size_t)(end - text.ptr) - at;
        bad += check_line(v, slice_of(text.ptr + at, len));
        at += len + 1;
    }
    if (count != json_object_size(v->tree))
        bad += complain("names are missing, or there are too many", slice_str("tree"));
    return bad;
}

/* The model sorts by itself: the order in which it hears of operations must not matter, nor that it
 * hears of some twice. */
static int run_site(const struct vector *v, const struct vector_site *s)
{
    struct model *m = model_new();
    struct buf op = {0}, text = {0};
    for (uint32_t i = 0; i < s->count; i++)
        for (uint32_t times = 1 + (i % 7 == 0); times > 0; times--) {
            buf_clear(&op);
            op_encode(&v->ops[s->order[i]].op, &op);
            model_add(m, buf_slice(&op));
        }
    model_tree(m, letter, NULL, &text);
    int bad = check_tree(v, buf_slice(&text));
    model_free(m);
    buf_deinit(&op);
    buf_deinit(&text);
    return bad;
}

static int run(struct vector *v, uint64_t number)
{
    int bad = 0;
    (void)number;
    vector_build(v, 1);
    for (uint32_t i = 0; i < v->site_count; i++)
        bad += run_site(v, &v->sites[i]);
    return bad;
}

int main(int argc, char **argv)
{
    const struct vector_program p = {"model-vectors", "the simulator's model shows another tree",
                                     run};
    return vector_main(&p, argc, argv);
}
