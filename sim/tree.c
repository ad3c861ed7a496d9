/* The walk. See tree.h. */
#include "sim/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/large.h"
#include "site/call.h"

#define DEPTH_MAX 200u
#define UP_MAX 1000u /* steps to the root */

struct item {
    struct buf name;
    struct oid oid;
};
struct items {
    struct item *at;
    size_t count, cap;
};
struct walk {
    struct node *node;
    struct buf *text;
    struct buf path;
    char *what;
    bool bad;
    struct oid *dirs;  /* seen */
    struct oid *twice; /* set to a directory that is met twice, which is then no fault */
    size_t dir_count, dir_cap;
    struct buf *oids;
    void (*content)(void *ctx, struct oid oid, const struct content *content);
    void *ctx;
};

static bool item_add(void *ctx, struct slice visible, const struct shown *s)
{
    struct items *l = ctx;
    if (l->count == l->cap) {
        l->cap = l->cap * 2 + 16;
        l->at = mem_realloc(l->at, l->cap * sizeof l->at[0]);
    }
    l->at[l->count] = (struct item){.oid = s->oid};
    buf_append(&l->at[l->count++].name, visible.ptr, visible.len);
    return true;
}

static void items_deinit(struct items *l)
{
    for (size_t i = 0; i < l->count; i++)
        buf_deinit(&l->at[i].name);
    mem_free(l->at);
}

static void fail(struct walk *w, const char *why)
{
    if (!w->bad)
        (void)snprintf(w->what, 200, "%.*s: %s", (int)MIN(w->path.len, 120u),
                       (const char *)w->path.ptr, why); /* cut if need be */
    w->bad = true;
}

void tree_line(struct buf *out, struct slice path, struct oid oid, struct slice content)
{
    char id[OID_TEXT_LEN + 1];
    oid_to_text(oid, id);
    char *text = mem_printf("%.*s %s %016llx\n", (int)path.len, (const char *)path.ptr, id,
                            oid_is_dir(oid) ? 0ull : (unsigned long long)fnv1a(content));
    buf_append(out, text, strlen(text));
    mem_free(text);
}

static uint64_t mix(uint64_t h, struct slice s)
{
    return (h ^ fnv1a(s) ^ (uint64_t)s.len << 48) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool attribute_mix(void *ctx, const struct reg *r)
{
    uint64_t *h = ctx;
    if (r->present)
        *h = mix(mix(*h, r->key), r->value);
    return true;
}

/* Over ACLs, capabilities and extended attributes, names and values; 0: there are none. */
static uint64_t attributes(struct node *n, struct oid oid)
{
    struct merge *m = merge_of(n, oid);
    struct perm p = {0};
    struct dir_view d;
    struct file_view f;
    uint64_t h = 0;
    if (oid_is_dir(oid) && merge_dir(m, oid, &d) == 0)
        p = d.perm;
    else if (!oid_is_dir(oid) && merge_file(m, oid, &f) == 0)
        p = f.perm;
    if (p.acl_access.len + p.acl_default.len + p.caps.len > 0)
        h = mix(mix(mix(1, p.acl_access), p.acl_default), p.caps);
    if (merge_regs(m, oid, REG_XATTR, attribute_mix, &h) != 0)
        h = 1; /* it cannot be read, which others will not show */
    return h;
}

static void line(struct walk *w, const struct fs_attr *a)
{
    struct content c = {0};
    struct dot version;
    int64_t mtime;
    uint64_t h = 0;
    bool dir = oid_is_dir(a->oid);
    if (!dir && content_get(w->node, a->oid, &c, &version, &mtime) == 0) {
        h = fnv1a(large_key(&c));
        if (w->content != NULL)
            w->content(w->ctx, a->oid, &c);
    }
    if (w->oids != NULL)
        tree_line(w->oids, buf_slice(&w->path), a->oid, dir ? slice_of(NULL, 0) : large_key(&c));
    if (w->text == NULL)
        return;
    char *text = mem_printf(
        "%.*s %o %u:%u links=%u size=%llu mtime=%lld atime=%lld ctime=%lld btime=%lld "
        "attributes=%016llx %016llx\n",
        (int)w->path.len, (const char *)w->path.ptr, a->mode, a->uid, a->gid, dir ? 0 : a->nlink,
        dir ? 0ull : (unsigned long long)a->size, (long long)a->mtime_ns, (long long)a->atime_ns,
        (long long)a->ctime_ns, (long long)a->btime_ns,
        (unsigned long long)attributes(w->node, a->oid), (unsigned long long)h);
    buf_append(w->text, text, strlen(text));
    mem_free(text);
}

static bool dir_first_time(struct walk *w, struct oid dir)
{
    for (size_t i = 0; i < w->dir_count; i++)
        if (oid_equal(w->dirs[i], dir))
            return false;
    if (w->dir_count == w->dir_cap) {
        w->dir_cap = w->dir_cap * 2 + 16;
        w->dirs = mem_realloc(w->dirs, w->dir_cap * sizeof w->dirs[0]);
    }
    w->dirs[w->dir_count++] = dir;
    return true;
}

/* The directories that lead to where the walk is. */
struct level {
    struct oid dir;
    const struct level *up;
};

static void met_twice(struct walk *w, struct oid dir, const struct level *up)
{
    for (; up != NULL; up = up->up)
        if (oid_equal(up->dir, dir)) {
            fail(w, "this directory is inside itself");
            return;
        }
    if (w->twice == NULL) {
        fail(w, "this directory is in two places");
        return;
    }
    (void)snprintf(w->what, 200, "%.*s", (int)MIN(w->path.len, 120u),
                   (const char *)w->path.ptr); /* cut if need be */
    *w->twice = dir;
}

static void walk_dir(struct walk *w, struct oid dir, unsigned depth, const struct level *up)
{
    const struct level here = {.dir = dir, .up = up};
    struct items l = {0};
    struct buf last = {0};
    if (!dir_first_time(w, dir)) {
        met_twice(w, dir, up);
        return;
    }
    if (depth > DEPTH_MAX ||
        merge_list(merge_of(w->node, dir), dir, slice_of(NULL, 0), item_add, &l) != 0)
        fail(w, depth > DEPTH_MAX ? "too deep for a tree" : "cannot be listed");
    for (size_t i = 0; i < l.count && !w->bad; i++) {
        struct slice name = buf_slice(&l.at[i].name);
        struct fs_attr a;
        size_t len = w->path.len;
        buf_append(&w->path, "/", 1);
        buf_append(&w->path, name.ptr, name.len);
        if (i > 0 && slice_equal(buf_slice(&last), name))
            fail(w, "two objects under one name");
        buf_clear(&last);
        buf_append(&last, name.ptr, name.len);
        bool told = w->text != NULL || w->oids != NULL || w->content != NULL;
        if (told && attr_get(w->node, l.at[i].oid, &a) == 0)
            line(w, &a);
        else if (w->text != NULL)
            buf_append(w->text, "?\n", 2);
        if (oid_is_dir(l.at[i].oid))
            walk_dir(w, l.at[i].oid, depth + 1, &here);
        w->path.len = len;
    }
    buf_deinit(&last);
    items_deinit(&l);
}

bool tree_walk(struct node *n, struct buf *text, char what[200])
{
    struct walk w = {.node = n, .text = text, .what = what};
    walk_dir(&w, OID_ROOT, 0, NULL);
    buf_deinit(&w.path);
    mem_free(w.dirs);
    return !w.bad;
}

bool tree_shape(struct node *n, char what[200], struct oid *ret_twice)
{
    struct walk w = {.node = n, .what = what, .twice = ret_twice};
    *ret_twice = (struct oid){{0}};
    walk_dir(&w, OID_ROOT, 0, NULL);
    buf_deinit(&w.path);
    mem_free(w.dirs);
    return !w.bad;
}

void tree_contents(struct node *n,
                   void (*fn)(void *ctx, struct oid oid, const struct content *content),
                   void *ctx)
{
    char what[200];
    struct walk w = {.node = n, .what = what, .content = fn, .ctx = ctx};
    walk_dir(&w, OID_ROOT, 0, NULL);
    buf_deinit(&w.path);
    mem_free(w.dirs);
}

bool tree_leads_up(struct node *n, struct oid dir)
{
    for (unsigned i = 0; i < UP_MAX; i++) {
        struct dir_view v;
        if (oid_is_root(dir) || merge_dir(merge_of(n, dir), dir, &v) != 0)
            return true;
        dir = v.parent;
    }
    return false;
}

static struct oid oid_after(struct oid o)
{
    for (size_t i = sizeof o.b; i-- > 0;)
        if (++o.b[i] != 0)
            break;
    return o;
}

bool tree_has_cycle(struct node *n, unsigned shards, char what[200])
{
    for (unsigned s = 0; s < shards; s++) {
        struct oid first = {{0}}, last, dir;
        memset(last.b, 0xff, sizeof last.b);
        first.b[0] = last.b[0] = (uint8_t)(s >> 8);
        first.b[1] = last.b[1] = (uint8_t)s;
        while (merge_find_dir(shard_merge(node_shard(n, (shard_id_t)s)), first, last, &dir) == 0) {
            if (!tree_leads_up(n, dir)) {
                char text[OID_TEXT_LEN + 1];
                oid_to_text(dir, text);
                (void)snprintf(what, 200, "directory %s is inside itself", text); /* fits */
                return true;
            }
            first = oid_after(dir);
        }
    }
    return false;
}

void tree_oids(struct node *n, struct buf *out)
{
    char what[200];
    struct walk w = {.node = n, .what = what, .oids = out};
    walk_dir(&w, OID_ROOT, 0, NULL);
    buf_deinit(&w.path);
    mem_free(w.dirs);
}
