/* Trees of sites, compared. See trio.h. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/trio_int.h"

#define DEPTH_MAX 200u

struct item {
    struct buf name;
    struct oid oid;
    struct item *next;
};
struct walk {
    struct trio *w;
    struct buf text, path;
    struct oid *dirs; /* seen */
    size_t dir_count;
    struct item *items; /* of the directory being listed, last first */
};

static bool item_add(void *ctx, struct slice visible, const struct shown *s)
{
    struct walk *k = ctx;
    struct item *i = mem_calloc(1, sizeof *i);
    i->oid = s->oid;
    buf_append(&i->name, visible.ptr, visible.len);
    i->next = k->items;
    k->items = i;
    return true;
}

static void line(struct walk *k, struct merge *m, struct oid oid)
{
    char id[OID_TEXT_LEN + 1], *text;
    struct file_view f;
    struct dir_view d;
    oid_to_text(oid, id);
    if (oid_is_dir(oid) && merge_dir(m, oid, &d) == 0) {
        text = mem_printf("%.*s/ %s %o mtime=%lld subdirs=%u\n", (int)k->path.len,
                          (const char *)k->path.ptr, id, d.perm.mode, (long long)d.mtime_ns,
                          d.subdirs);
    } else if (!oid_is_dir(oid) && merge_file(m, oid, &f) == 0) {
        struct ledger *l = &k->w->all->ledger;
        struct ledger_entry *e = ledger_get(l, ledger_number(l, &f.content));
        uint64_t head = 0;
        memcpy(&head, f.content.bytes.ptr, MIN(f.content.bytes.len, sizeof head));
        if (e != NULL)
            e->found = true;
        text = mem_printf("%.*s %s %o names=%u versions=%u mtime=%lld %llx %llx\n",
                          (int)k->path.len, (const char *)k->path.ptr, id, f.perm.mode, f.names,
                          f.version_count, (long long)f.mtime_ns, (unsigned long long)head,
                          (unsigned long long)ledger_number(l, &f.content));
    } else {
        text = mem_printf("%.*s %s ?\n", (int)k->path.len, (const char *)k->path.ptr, id);
        trio_fail(k->w, "P6", "what a name means is not there: %s", text);
    }
    buf_append(&k->text, text, strlen(text));
    mem_free(text);
}

static void walk_dir(struct walk *k, struct oid dir, unsigned depth)
{
    struct shard *s = trio_leader(k->w, trio_shard_of(k->w, dir), NULL);
    for (size_t i = 0; i < k->dir_count; i++)
        if (oid_equal(k->dirs[i], dir))
            trio_fail(k->w, "P6", "directory %.*s is in two places", (int)k->path.len,
                      (const char *)k->path.ptr);
    k->dirs = mem_realloc(k->dirs, (k->dir_count + 1) * sizeof k->dirs[0]);
    k->dirs[k->dir_count++] = dir;
    k->items = NULL;
    if (s == NULL || depth > DEPTH_MAX ||
        merge_list(shard_merge(s), dir, slice_of(NULL, 0), item_add, k) != 0)
        trio_fail(k->w, "P6", "the tree cannot be walked");
    struct item *items = k->items;
    while (items != NULL) {
        struct item *i = items;
        size_t len = k->path.len;
        struct shard *own = trio_leader(k->w, trio_shard_of(k->w, i->oid), NULL);
        items = i->next;
        buf_append(&k->path, "/", 1);
        buf_append(&k->path, i->name.ptr, i->name.len);
        if (own != NULL)
            line(k, shard_merge(own), i->oid);
        if (oid_is_dir(i->oid) && trio_good(k->w))
            walk_dir(k, i->oid, depth + 1);
        k->path.len = len;
        buf_deinit(&i->name);
        mem_free(i);
    }
}

static void tree_text(struct trio *w, struct buf *ret)
{
    struct walk k = {.w = w};
    walk_dir(&k, OID_ROOT, 0);
    buf_move(ret, &k.text);
    buf_deinit(&k.path);
    mem_free(k.dirs);
}

/* The first line that differs. */
static void tell_difference(struct trio *w, struct slice a, struct slice b, const char *when)
{
    size_t at = 0, line = 0;
    while (at < a.len && at < b.len && a.ptr[at] == b.ptr[at])
        if (a.ptr[at++] == '\n')
            line = at;
    const char *end_a = memchr(a.ptr + line, '\n', a.len - line);
    const char *end_b = memchr(b.ptr + line, '\n', b.len - line);
    int len_a = end_a != NULL ? (int)(end_a - (const char *)a.ptr - (ptrdiff_t)line) : 0;
    int len_b = end_b != NULL ? (int)(end_b - (const char *)b.ptr - (ptrdiff_t)line) : 0;
    trio_fail(w, "P4", "another tree %s: \"%.*s\", not \"%.*s\"", when, MIN(len_b, 120),
              (const char *)b.ptr + line, MIN(len_a, 120), (const char *)a.ptr + line);
}

static void check_ledger(struct trio_world *all, const char *when)
{
    struct ledger *l = &all->ledger;
    for (uint64_t i = 1; i <= l->count; i++) {
        struct ledger_entry *e = ledger_get(l, i);
        if (e->acked && !e->given_up && !e->found && all->out == TRIO_SITES_MAX)
            trio_fail(all->sites[e->site], "P5", "content %llu was answered and is nowhere %s",
                      (unsigned long long)i, when);
        e->found = false;
    }
}

void trio_check_sites(struct trio_world *all, const char *when)
{
    struct buf first = {0};
    unsigned of = all->out == 0;
    for (unsigned i = of; i < all->site_count && all->failure[0] == '\0'; i++) {
        struct buf text = {0};
        if (i == all->out)
            continue;
        tree_text(all->sites[i], i == of ? &first : &text);
        if (i > of && !slice_equal(buf_slice(&first), buf_slice(&text)))
            tell_difference(all->sites[i], buf_slice(&first), buf_slice(&text), when);
        buf_deinit(&text);
    }
    if (all->failure[0] == '\0')
        check_ledger(all, when);
    buf_deinit(&first);
}
