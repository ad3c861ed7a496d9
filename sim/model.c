/* The rules, one after the other. See model.h. */
#include "sim/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "journal/merge.h"
#include "sim/large.h"
#include "sim/tree.h"

struct item { /* an operation */
    struct dot dot;
    struct stamp stamp;
    struct buf bytes;
};
struct entry { /* (parent, name) holds oid */
    struct oid parent, oid;
    struct slice name;
    struct dot dot;
    struct stamp stamp;
};
struct version {
    struct dot dot;
    struct stamp stamp;
    struct slice content;
};
struct file {
    struct oid oid;
    struct version *versions;
    size_t version_count;
    struct dot *seen;
    size_t seen_count;
    struct stamp perm_stamp;
    struct slice perm;
};
struct dir {
    struct oid oid, parent; /* of its birth; later of its position */
    struct slice name;
    struct stamp born, at; /* the stamp of the position */
    struct dot *alive;
    size_t alive_count;
};
struct move {
    struct dot dot;
    struct stamp stamp;
    struct oid oid, parent;
    struct slice name;
};
struct model {
    struct item *items;
    size_t item_count;
    struct op_arena arena;
    struct entry *entries;
    size_t entry_count;
    struct file *files;
    size_t file_count;
    struct dir *dirs;
    size_t dir_count;
    struct move *moves;
    size_t move_count;
    const char *(*site_name)(void *ctx, site_id_t site);
    void *ctx;
    struct buf *out, path;
};

/* Room for one more in an array that grows by doubling from nothing. */
static void *grow(void *array, size_t count, size_t size)
{
    if ((count & (count - 1)) != 0)
        return array;
    return mem_realloc(array, (count == 0 ? 1 : 2 * count) * size);
}

struct model *model_new(void)
{
    return mem_calloc(1, sizeof(struct model));
}

static void state_drop(struct model *m)
{
    for (size_t i = 0; i < m->file_count; i++) {
        mem_free(m->files[i].versions);
        mem_free(m->files[i].seen);
    }
    for (size_t i = 0; i < m->dir_count; i++)
        mem_free(m->dirs[i].alive);
    mem_free(m->entries);
    mem_free(m->files);
    mem_free(m->dirs);
    mem_free(m->moves);
    m->entries = NULL;
    m->files = NULL;
    m->dirs = NULL;
    m->moves = NULL;
    m->entry_count = m->file_count = m->dir_count = m->move_count = 0;
    op_arena_deinit(&m->arena);
}

void model_free(struct model *m)
{
    if (m == NULL)
        return;
    state_drop(m);
    for (size_t i = 0; i < m->item_count; i++)
        buf_deinit(&m->items[i].bytes);
    mem_free(m->items);
    buf_deinit(&m->path);
    mem_free(m);
}

void model_add(struct model *m, struct slice op)
{
    struct op_arena arena = {0};
    struct op decoded;
    int rc = op_decode(op, &arena, &decoded);
    ASSERT(rc == 0);
    m->items = grow(m->items, m->item_count, sizeof m->items[0]);
    struct item *it = &m->items[m->item_count++];
    *it = (struct item){.dot = decoded.dot, .stamp = decoded.stamp};
    buf_append(&it->bytes, op.ptr, op.len);
    op_arena_deinit(&arena);
}

/* --- the state --- */

static struct file *file_of(struct model *m, struct oid oid, bool *ret_fresh)
{
    *ret_fresh = false;
    for (size_t i = 0; i < m->file_count; i++)
        if (oid_equal(m->files[i].oid, oid))
            return &m->files[i];
    *ret_fresh = true;
    m->files = grow(m->files, m->file_count, sizeof m->files[0]);
    m->files[m->file_count] = (struct file){.oid = oid};
    return &m->files[m->file_count++];
}

static struct dir *dir_find(const struct model *m, struct oid oid)
{
    for (size_t i = 0; i < m->dir_count; i++)
        if (oid_equal(m->dirs[i].oid, oid))
            return &m->dirs[i];
    return NULL;
}

static bool has_dot(const struct dot *at, size_t count, struct dot d)
{
    for (size_t i = 0; i < count; i++)
        if (dot_equal(at[i], d))
            return true;
    return false;
}

static void version_add(struct file *f, struct dot dot, struct stamp stamp, struct slice content)
{
    f->versions = grow(f->versions, f->version_count, sizeof f->versions[0]);
    f->versions[f->version_count++] =
        (struct version){.dot = dot, .stamp = stamp, .content = content};
}

static void version_drop(struct file *f, struct dot dot)
{
    for (size_t i = 0; i < f->version_count; i++)
        if (dot_equal(f->versions[i].dot, dot))
            f->versions[i--] = f->versions[--f->version_count];
}

static void perm_set(struct file *f, const struct reg *r, struct stamp stamp)
{
    bool perm = r->key.len == 1 && r->key.ptr[0] == REG_PERM;
    if (perm && stamp_cmp(stamp, f->perm_stamp) > 0) {
        f->perm_stamp = stamp;
        f->perm = r->value;
    }
}

/* --- effects --- */

static void on_enter(struct model *m, const struct op *op, const struct effect *e)
{
    bool fresh;
    (void)file_of(m, e->oid, &fresh);
    m->entries = grow(m->entries, m->entry_count, sizeof m->entries[0]);
    m->entries[m->entry_count++] = (struct entry){
        .parent = e->parent, .name = e->name, .oid = e->oid, .dot = op->dot, .stamp = op->stamp};
}

static void on_leave(struct model *m, const struct effect *e)
{
    bool fresh;
    struct file *f = file_of(m, e->oid, &fresh);
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct entry *n = &m->entries[i];
        if (oid_equal(n->parent, e->parent) && slice_equal(n->name, e->name) &&
            oid_equal(n->oid, e->oid) && has_dot(e->dots, e->dot_count, n->dot))
            m->entries[i--] = m->entries[--m->entry_count];
    }
    for (uint32_t i = 0; i < e->seen_count; i++) {
        f->seen = grow(f->seen, f->seen_count, sizeof f->seen[0]);
        f->seen[f->seen_count++] = e->seen[i];
    }
}

static void on_version(struct model *m, const struct op *op, const struct effect *e)
{
    bool fresh;
    struct file *f = file_of(m, e->oid, &fresh);
    for (uint32_t i = 0; i < e->dot_count; i++)
        version_drop(f, e->dots[i]);
    version_add(f, op->dot, op->stamp, large_key(&e->content));
}

static void on_fork(struct model *m, const struct effect *e)
{
    bool fresh;
    version_drop(file_of(m, e->oid, &fresh), e->loser);
    if (oid_is_none(e->to))
        return;
    struct file *t = file_of(m, e->to, &fresh);
    bool first = t->version_count == 0 && t->seen_count == 0 &&
                 stamp_cmp(t->perm_stamp, (struct stamp){0}) == 0;
    if (first)
        version_add(t, e->loser, e->loser_stamp, large_key(&e->content));
    for (uint32_t i = 0; i < e->reg_count; i++)
        perm_set(t, &e->regs[i], e->regs[i].stamp);
}

static void on_birth(struct model *m, const struct op *op, const struct effect *e)
{
    struct dir *d = dir_find(m, e->oid);
    if (d == NULL) {
        m->dirs = grow(m->dirs, m->dir_count, sizeof m->dirs[0]);
        d = &m->dirs[m->dir_count++];
        *d = (struct dir){.oid = e->oid,
                          .parent = e->birth.parent,
                          .name = e->birth.name,
                          .born = op->stamp,
                          .at = op->stamp};
    }
    d->alive = grow(d->alive, d->alive_count, sizeof d->alive[0]);
    d->alive[d->alive_count++] = op->dot;
}

static void on_life(struct model *m, const struct op *op, const struct effect *e)
{
    struct dir *d = dir_find(m, e->oid);
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->alive_count; i++)
        if (has_dot(e->dots, e->dot_count, d->alive[i]))
            d->alive[i--] = d->alive[--d->alive_count];
    if (e->kind == EFFECT_REVIVE) {
        d->alive = grow(d->alive, d->alive_count, sizeof d->alive[0]);
        d->alive[d->alive_count++] = op->dot;
    }
}

static void apply(struct model *m, const struct op *op, const struct effect *e)
{
    bool fresh;
    switch (e->kind) {
    case EFFECT_ENTER:
        on_enter(m, op, e);
        return;
    case EFFECT_LEAVE:
        on_leave(m, e);
        return;
    case EFFECT_VERSION:
        on_version(m, op, e);
        return;
    case EFFECT_FORK:
        on_fork(m, e);
        return;
    case EFFECT_BIRTH:
        on_birth(m, op, e);
        return;
    case EFFECT_REVIVE:
    case EFFECT_BURY:
        on_life(m, op, e);
        return;
    case EFFECT_MOVE:
        m->moves = grow(m->moves, m->move_count, sizeof m->moves[0]);
        m->moves[m->move_count++] = (struct move){.dot = op->dot,
                                                  .stamp = op->stamp,
                                                  .oid = e->oid,
                                                  .parent = e->parent,
                                                  .name = e->name};
        return;
    case EFFECT_SET:
        if (!oid_is_dir(e->oid))
            perm_set(file_of(m, e->oid, &fresh), &e->set, op->stamp);
        return;
    case EFFECT_KIND_END:
        break;
    }
    UNREACHABLE();
}

static int item_cmp(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = stamp_cmp(x->stamp, y->stamp);
    return order != 0 ? order : dot_cmp(x->dot, y->dot);
}

static void apply_all(struct model *m)
{
    qsort(m->items, m->item_count, sizeof m->items[0], item_cmp);
    for (size_t i = 0; i < m->item_count; i++) {
        struct op op;
        if (i > 0 && dot_equal(m->items[i].dot, m->items[i - 1].dot))
            continue;
        int rc = op_decode(buf_slice(&m->items[i].bytes), &m->arena, &op);
        ASSERT(rc == 0);
        for (uint32_t k = 0; k < op.effect_count; k++)
            apply(m, &op, &op.effects[k]);
    }
}

static int move_cmp(const void *a, const void *b)
{
    const struct move *x = a, *y = b;
    int order = stamp_cmp(x->stamp, y->stamp);
    if (order == 0)
        order = dot_cmp(x->dot, y->dot);
    return order != 0 ? order : oid_cmp(x->oid, y->oid);
}

/* Rule 5: all moves in stamp order, those of one operation in that of what they move; those that
 * would close a cycle skipped. */
static void moves_fold(struct model *m)
{
    if (m->move_count > 0)
        qsort(m->moves, m->move_count, sizeof m->moves[0], move_cmp);
    for (size_t i = 0; i < m->move_count; i++) {
        const struct move *v = &m->moves[i];
        struct dir *d = dir_find(m, v->oid);
        const struct dir *x = dir_find(m, v->parent);
        while (x != NULL && x != d)
            x = dir_find(m, x->parent);
        if (d == NULL || x == d)
            continue;
        d->parent = v->parent;
        d->name = v->name;
        d->at = v->stamp;
    }
}

/* --- what users see --- */

static struct slice shown_content(const struct model *m, struct oid oid)
{
    const struct version *best = NULL;
    for (size_t i = 0; i < m->file_count; i++) {
        const struct file *f = &m->files[i];
        if (!oid_equal(f->oid, oid))
            continue;
        for (int seen = 0; seen < 2 && best == NULL; seen++)
            for (size_t k = 0; k < f->version_count; k++) {
                const struct version *v = &f->versions[k];
                if (seen == 0 && has_dot(f->seen, f->seen_count, v->dot))
                    continue;
                if (best == NULL || stamp_cmp(best->stamp, v->stamp) < 0)
                    best = v;
            }
    }
    return best != NULL ? best->content : slice_of(NULL, 0);
}

static bool same_rights(struct model *m, struct oid a, struct oid b)
{
    struct perm x = {0}, y = {0};
    bool fresh;
    struct slice p = file_of(m, a, &fresh)->perm, q = file_of(m, b, &fresh)->perm;
    if ((p.len > 0 && perm_decode(p, &x) != 0) || (q.len > 0 && perm_decode(q, &y) != 0))
        return false;
    return perm_same_rights(&x, &y);
}

struct shown_name {
    struct buf visible;
    struct slice stored;
    struct oid oid;
    struct stamp stamp;
    bool winner, hidden; /* hidden: a twin */
};
struct listing {
    struct shown_name *at;
    size_t count;
};

static int cand_cmp(const void *a, const void *b)
{
    const struct shown_name *x = a, *y = b;
    int order = slice_cmp(x->stored, y->stored);
    if (order == 0)
        order = (int)oid_is_dir(y->oid) - (int)oid_is_dir(x->oid);
    if (order == 0)
        order = stamp_cmp(y->stamp, x->stamp);
    return order != 0 ? order : oid_cmp(y->oid, x->oid);
}

static int visible_cmp(const void *a, const void *b)
{
    const struct shown_name *x = a, *y = b;
    return slice_cmp(buf_slice(&x->visible), buf_slice(&y->visible));
}

static void cand_add(struct listing *l, struct slice stored, struct oid oid, struct stamp stamp)
{
    for (size_t i = 0; i < l->count; i++) {
        struct shown_name *c = &l->at[i];
        if (!oid_equal(c->oid, oid) || !slice_equal(c->stored, stored))
            continue;
        if (stamp_cmp(c->stamp, stamp) < 0)
            c->stamp = stamp;
        return;
    }
    l->at = grow(l->at, l->count, sizeof l->at[0]);
    l->at[l->count++] = (struct shown_name){.stored = stored, .oid = oid, .stamp = stamp};
}

static bool taken(const struct listing *l, struct slice name)
{
    for (size_t i = 0; i < l->count; i++)
        if (slice_equal(buf_slice(&l->at[i].visible), name) || slice_equal(l->at[i].stored, name))
            return true;
    return false;
}

/* Rule 6. */
static void names_resolve(struct model *m, struct oid parent, struct listing *l)
{
    size_t win = 0;
    for (size_t i = 0; i < l->count; i++) {
        struct shown_name *c = &l->at[i];
        c->winner = i == 0 || !slice_equal(l->at[i - 1].stored, c->stored);
        if (c->winner)
            buf_append(&c->visible, c->stored.ptr, c->stored.len);
    }
    for (size_t i = 0; i < l->count; i++) {
        struct shown_name *c = &l->at[i];
        const struct shown_name *w = &l->at[win];
        if (c->winner) {
            win = i;
            continue;
        }
        if (oid_kind(c->oid) == oid_kind(w->oid) && !oid_is_dir(c->oid) &&
            oid_shard(c->oid) == oid_shard(parent) && oid_shard(w->oid) == oid_shard(parent) &&
            slice_equal(shown_content(m, c->oid), shown_content(m, w->oid)) &&
            same_rights(m, c->oid, w->oid)) {
            c->hidden = true;
            continue;
        }
        struct buf name = {0};
        uint32_t k = 0;
        do {
            buf_clear(&name);
            conflict_name(c->stored, m->site_name(m->ctx, c->stamp.site), c->oid, k++, &name);
        } while (taken(l, buf_slice(&name)));
        buf_move(&c->visible, &name);
    }
}

static void walk(struct model *m, struct oid parent)
{
    struct listing l = {0};
    for (size_t i = 0; i < m->dir_count; i++) {
        const struct dir *d = &m->dirs[i];
        if (oid_equal(d->parent, parent) && d->alive_count > 0)
            cand_add(&l, d->name, d->oid, d->at);
    }
    for (size_t i = 0; i < m->entry_count; i++)
        if (oid_equal(m->entries[i].parent, parent))
            cand_add(&l, m->entries[i].name, m->entries[i].oid, m->entries[i].stamp);
    if (l.count > 0)
        qsort(l.at, l.count, sizeof l.at[0], cand_cmp);
    names_resolve(m, parent, &l);
    if (l.count > 0)
        qsort(l.at, l.count, sizeof l.at[0], visible_cmp);
    for (size_t i = 0; i < l.count; i++) {
        const struct shown_name *c = &l.at[i];
        size_t len = m->path.len;
        if (!c->hidden) {
            buf_append(&m->path, "/", 1);
            buf_append(&m->path, c->visible.ptr, c->visible.len);
            bool dir = oid_is_dir(c->oid);
            tree_line(m->out, buf_slice(&m->path), c->oid,
                      dir ? slice_of(NULL, 0) : shown_content(m, c->oid));
            if (dir)
                walk(m, c->oid);
        }
        m->path.len = len;
        buf_deinit(&l.at[i].visible);
    }
    mem_free(l.at);
}

void model_tree(struct model *m,
                const char *(*site_name)(void *ctx, site_id_t site),
                void *ctx,
                struct buf *out)
{
    state_drop(m);
    m->site_name = site_name;
    m->ctx = ctx;
    m->out = out;
    apply_all(m);
    moves_fold(m);
    walk(m, OID_ROOT);
}
