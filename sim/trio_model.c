/* What everybody must see: a small POSIX tree, changed by each answered call. See trio.h.
 *
 * A call keeps what it names busy until it is answered and shows at whoever leads; so what is not
 * busy is known exactly, at any moment, also right after another node has taken over. */
#include <string.h>

#include "base/assert.h"
#include "sim/trio_int.h"

unsigned trio_shard_of(const struct trio *w, struct oid oid)
{
    return oid_shard(oid) % w->shard_count;
}

struct slice trio_name(unsigned name)
{
    static const char names[TRIO_NAMES][2] = {"a", "b", "c", "d", "e"};
    ASSERT(name < TRIO_NAMES);
    return slice_str(names[name]);
}

struct slice trio_content(uint64_t content, uint8_t out[8])
{
    memcpy(out, &content, sizeof content);
    return slice_of(out, sizeof content);
}

void trio_model_init(struct trio *w, struct oid root)
{
    w->dirs[0].oid = root;
    w->dirs[0].alive = true;
}

/* ---- drawing ---- */

static struct trio_slot *slot_of(struct trio *w, unsigned dir, unsigned name)
{
    return &w->dirs[dir].slots[name];
}

static bool draw_dir(struct trio *w, unsigned *ret)
{
    *ret = (unsigned)trio_below(TRIO_DIRS);
    return w->dirs[*ret].alive && !w->dirs[*ret].busy;
}

/* A name in a directory that nobody is changing. */
static bool draw_slot(struct trio *w, enum trio_kind kind, unsigned *ret_dir, unsigned *ret_name)
{
    for (unsigned i = 0; i < 30; i++) {
        *ret_name = (unsigned)trio_below(TRIO_NAMES);
        if (!draw_dir(w, ret_dir))
            continue;
        const struct trio_slot *s = slot_of(w, *ret_dir, *ret_name);
        if (s->kind == kind && !s->busy)
            return true;
    }
    return false;
}

static bool draw_file(struct trio *w, bool there, unsigned *ret)
{
    for (unsigned i = 0; i < 60; i++) {
        *ret = (unsigned)trio_below(TRIO_FILES);
        if (!w->files[*ret].busy && (w->files[*ret].links > 0) == there)
            return true;
    }
    return false;
}

static bool draw_new_dir(struct trio *w, unsigned *ret)
{
    for (*ret = 1; *ret < TRIO_DIRS; ++*ret)
        if (!w->dirs[*ret].alive && !w->dirs[*ret].busy)
            return true;
    return false;
}

static bool is_within(const struct trio *w, unsigned dir, unsigned what)
{
    while (dir != what && dir != 0)
        dir = w->dirs[dir].parent;
    return dir == what;
}

static bool can_remove_dir(const struct trio *w, unsigned dir)
{
    const struct trio_dir *d = &w->dirs[dir];
    bool empty = !d->busy && d->users == 0;
    for (unsigned i = 0; i < TRIO_NAMES; i++)
        empty = empty && d->slots[i].kind == TRIO_NONE && !d->slots[i].busy;
    return empty;
}

static bool draw_rename(struct trio_client *c)
{
    struct trio *w = c->world;
    enum trio_kind to = trio_below(3) == 0 ? TRIO_FILE : TRIO_NONE;
    if (!draw_slot(w, TRIO_FILE, &c->dir, &c->name) || !draw_slot(w, to, &c->to_dir, &c->to_name))
        return false;
    c->file = slot_of(w, c->dir, c->name)->index;
    if (to == TRIO_FILE)
        c->victim = slot_of(w, c->to_dir, c->to_name)->index;
    return c->victim != c->file && !w->files[c->file].busy &&
           (c->victim == TRIO_FILES || !w->files[c->victim].busy);
}

static bool draw_dirs(struct trio_client *c)
{
    struct trio *w = c->world;
    if (c->call == TRIO_MKDIR)
        return draw_new_dir(w, &c->moved) && draw_slot(w, TRIO_NONE, &c->dir, &c->name);
    if (!draw_slot(w, TRIO_DIR, &c->dir, &c->name))
        return false;
    c->moved = slot_of(w, c->dir, c->name)->index;
    if (c->call == TRIO_RMDIR)
        return can_remove_dir(w, c->moved);
    return !w->moving && !w->dirs[c->moved].busy &&
           draw_slot(w, TRIO_NONE, &c->to_dir, &c->to_name) && !is_within(w, c->to_dir, c->moved);
}

static bool draw(struct trio_client *c)
{
    struct trio *w = c->world;
    switch (c->call) {
    case TRIO_CREATE:
        return draw_file(w, false, &c->file) && draw_slot(w, TRIO_NONE, &c->dir, &c->name);
    case TRIO_WRITE:
        return draw_file(w, true, &c->file);
    case TRIO_LINK:
        return draw_file(w, true, &c->file) && w->files[c->file].links < 4 &&
               draw_slot(w, TRIO_NONE, &c->to_dir, &c->to_name);
    case TRIO_UNLINK:
        if (!draw_slot(w, TRIO_FILE, &c->dir, &c->name))
            return false;
        c->file = slot_of(w, c->dir, c->name)->index;
        return !w->files[c->file].busy;
    case TRIO_RENAME:
        return draw_rename(c);
    case TRIO_MKDIR:
    case TRIO_RMDIR:
    case TRIO_MOVE:
        return draw_dirs(c);
    case TRIO_READ:
    case TRIO_CALLS:
        break;
    }
    UNREACHABLE();
}

/* Which of the fields of a client its call uses. */
static bool uses_slot(const struct trio_client *c)
{
    return c->call != TRIO_WRITE && c->call != TRIO_LINK;
}
static bool uses_to(const struct trio_client *c)
{
    return c->call == TRIO_LINK || c->call == TRIO_RENAME || c->call == TRIO_MOVE;
}
static bool uses_file(const struct trio_client *c)
{
    return c->call <= TRIO_RENAME;
}

static void keep(struct trio_client *c, bool busy)
{
    struct trio *w = c->world;
    unsigned one = busy ? 1 : UINT32_MAX; /* - 1 */
    if (uses_slot(c)) {
        slot_of(w, c->dir, c->name)->busy = busy;
        w->dirs[c->dir].users += one;
    }
    if (uses_to(c)) {
        slot_of(w, c->to_dir, c->to_name)->busy = busy;
        w->dirs[c->to_dir].users += one;
    }
    if (uses_file(c))
        w->files[c->file].busy = busy;
    else
        w->dirs[c->moved].busy = busy;
    if (c->victim < TRIO_FILES)
        w->files[c->victim].busy = busy;
    if (c->call == TRIO_MOVE)
        w->moving = busy;
}

bool trio_model_draw(struct trio_client *c)
{
    static const enum trio_call often[] = {TRIO_CREATE, TRIO_CREATE, TRIO_CREATE, TRIO_WRITE,
                                           TRIO_WRITE,  TRIO_WRITE,  TRIO_LINK,   TRIO_UNLINK,
                                           TRIO_UNLINK, TRIO_RENAME, TRIO_MKDIR,  TRIO_RENAME,
                                           TRIO_MKDIR,  TRIO_RMDIR,  TRIO_MOVE};
    c->call = often[trio_below(ARRAY_COUNT(often))];
    c->victim = TRIO_FILES;
    if (!draw(c))
        return false;
    /* The two may be one: then it is in its own way. */
    if (uses_slot(c) && uses_to(c) && c->dir == c->to_dir && c->name == c->to_name)
        return false;
    keep(c, true);
    return true;
}

/* ---- what becomes of it ---- */

static void slot_set(struct trio *w, unsigned dir, unsigned name, enum trio_kind kind, unsigned i)
{
    struct trio_slot *s = slot_of(w, dir, name);
    s->kind = kind;
    s->index = i;
}

static void dir_set(struct trio_client *c, bool alive, unsigned parent, unsigned name)
{
    struct trio_dir *d = &c->world->dirs[c->moved];
    if (c->call == TRIO_MKDIR)
        d->oid = c->oid;
    d->alive = alive;
    d->parent = parent;
    d->name = name;
}

static void apply(struct trio_client *c)
{
    struct trio *w = c->world;
    struct trio_file *f = &w->files[c->file];
    if (uses_slot(c))
        slot_set(w, c->dir, c->name, TRIO_NONE, 0);
    switch (c->call) {
    case TRIO_CREATE:
        *f = (struct trio_file){.oid = c->oid, .content = c->content, .links = 1, .busy = true};
        slot_set(w, c->dir, c->name, TRIO_FILE, c->file);
        return;
    case TRIO_WRITE:
        f->content = c->content;
        return;
    case TRIO_LINK:
        f->links++;
        slot_set(w, c->to_dir, c->to_name, TRIO_FILE, c->file);
        return;
    case TRIO_UNLINK:
        f->links--;
        return;
    case TRIO_RENAME:
        if (c->victim < TRIO_FILES)
            w->files[c->victim].links--;
        slot_set(w, c->to_dir, c->to_name, TRIO_FILE, c->file);
        return;
    case TRIO_MKDIR:
        slot_set(w, c->dir, c->name, TRIO_DIR, c->moved);
        dir_set(c, true, c->dir, c->name);
        return;
    case TRIO_RMDIR:
        dir_set(c, false, 0, 0);
        return;
    case TRIO_MOVE:
        slot_set(w, c->to_dir, c->to_name, TRIO_DIR, c->moved);
        dir_set(c, true, c->to_dir, c->to_name);
        return;
    case TRIO_READ:
    case TRIO_CALLS:
        break;
    }
    UNREACHABLE();
}

void trio_model_answered(struct trio_client *c)
{
    apply(c);
}

void trio_model_done(struct trio_client *c)
{
    keep(c, false);
}

/* ---- comparing ---- */

enum verdict {
    UNKNOWN, /* nobody leads */
    EQUAL,
    EQUAL_SOON, /* but not durable yet */
    DIFFERS
};

static enum verdict marked(struct shard *s, struct oid oid, struct slice name)
{
    return shard_mark(s, touch_key(oid, name)) == 0 ? EQUAL : EQUAL_SOON;
}

static enum verdict slot_look(struct trio *w, unsigned dir, unsigned name)
{
    const struct trio_slot *t = slot_of(w, dir, name);
    struct oid parent = w->dirs[dir].oid;
    struct shard *s = trio_leader(w, trio_shard_of(w, parent), NULL);
    struct shown shown;
    if (s == NULL)
        return UNKNOWN;
    int rc = merge_lookup(shard_merge(s), parent, trio_name(name), &shown);
    if (t->kind == TRIO_NONE)
        return rc == ERR_NOT_FOUND ? marked(s, parent, trio_name(name)) : DIFFERS;
    struct oid oid = t->kind == TRIO_FILE ? w->files[t->index].oid : w->dirs[t->index].oid;
    bool equal = rc == 0 && oid_equal(shown.oid, oid) && !shown.contested && !shown.derived;
    return equal ? marked(s, parent, trio_name(name)) : DIFFERS;
}

struct refs {
    const struct trio *w;
    unsigned file, right, wrong;
};

static bool ref_look(void *ctx, struct oid parent, struct slice name)
{
    struct refs *r = ctx;
    bool right = false;
    for (unsigned d = 0; d < TRIO_DIRS; d++)
        for (unsigned i = 0; i < TRIO_NAMES && oid_equal(r->w->dirs[d].oid, parent); i++) {
            const struct trio_slot *s = &r->w->dirs[d].slots[i];
            right = right || (s->kind == TRIO_FILE && s->index == r->file &&
                              slice_equal(name, trio_name(i)));
        }
    r->right += right;
    r->wrong += !right;
    return true;
}

/* Its own shard knows its names, and no others. */
static bool refs_equal(const struct trio *w, struct shard *s, unsigned file)
{
    struct refs r = {.w = w, .file = file};
    return merge_refs(shard_merge(s), w->files[file].oid, ref_look, &r) == 0 && r.wrong == 0 &&
           r.right == w->files[file].links;
}

static enum verdict file_look(struct trio *w, unsigned file)
{
    const struct trio_file *f = &w->files[file];
    struct shard *s = trio_leader(w, trio_shard_of(w, f->oid), NULL);
    struct file_view v = {0};
    uint8_t bytes[8];
    if (s == NULL)
        return UNKNOWN;
    int rc = merge_file(shard_merge(s), f->oid, &v);
    bool equal = f->links == 0 ? rc == ERR_NOT_FOUND || v.names == 0
                               : rc == 0 && v.names == f->links && v.version_count == 1 &&
                                     slice_equal(v.content.bytes, trio_content(f->content, bytes));
    equal = equal && (f->links == 0 || refs_equal(w, s, file));
    return equal ? marked(s, f->oid, slice_of(NULL, 0)) : DIFFERS;
}

static enum verdict dir_look(struct trio *w, unsigned dir)
{
    const struct trio_dir *d = &w->dirs[dir];
    struct shard *s = trio_leader(w, trio_shard_of(w, d->oid), NULL);
    struct dir_view v = {0};
    if (s == NULL)
        return UNKNOWN;
    int rc = merge_dir(shard_merge(s), d->oid, &v);
    bool equal = !d->alive ? rc == ERR_NOT_FOUND || !v.alive
                           : rc == 0 && v.alive && oid_equal(v.parent, w->dirs[d->parent].oid);
    return equal ? marked(s, d->oid, slice_of(NULL, 0)) : DIFFERS;
}

bool trio_shows(struct trio_client *c)
{
    struct trio *w = c->world;
    bool shows = true;
    if (uses_slot(c))
        shows = slot_look(w, c->dir, c->name) == EQUAL;
    if (shows && uses_to(c))
        shows = slot_look(w, c->to_dir, c->to_name) == EQUAL;
    if (shows && uses_file(c))
        shows = file_look(w, c->file) == EQUAL;
    if (shows && c->victim < TRIO_FILES)
        shows = file_look(w, c->victim) == EQUAL;
    if (shows && !uses_file(c))
        shows = dir_look(w, c->moved) == EQUAL;
    return shows;
}

static void blame(struct trio *w, enum verdict v, const char *what, unsigned a, unsigned b)
{
    if (v == DIFFERS)
        trio_fail(w, "P1", "%s %u %u does not show what was answered", what, a, b);
}

/* An answer means that every shard that the call is about has it, also when it is found among
 * stored results. What these shards derive of a removal or a move comes after that. */
void trio_check_answered(struct trio_client *c)
{
    struct trio *w = c->world;
    if (c->call == TRIO_RMDIR || c->call == TRIO_MOVE)
        return;
    if (uses_slot(c))
        blame(w, slot_look(w, c->dir, c->name), "answered: name", c->dir, c->name);
    if (uses_to(c))
        blame(w, slot_look(w, c->to_dir, c->to_name), "answered: name", c->to_dir, c->to_name);
    if (uses_file(c))
        blame(w, file_look(w, c->file), "answered: file", c->file, c->call);
    else
        blame(w, dir_look(w, c->moved), "answered: directory", c->moved, c->call);
    if (c->victim < TRIO_FILES)
        blame(w, file_look(w, c->victim), "answered: file", c->victim, c->call);
}

static void dir_check(struct trio *w, unsigned dir)
{
    const struct trio_dir *d = &w->dirs[dir];
    if (oid_is_none(d->oid))
        return;
    if (!d->busy && dir != 0)
        blame(w, dir_look(w, dir), "directory", dir, 0);
    for (unsigned i = 0; i < TRIO_NAMES && d->alive; i++)
        if (!d->slots[i].busy)
            blame(w, slot_look(w, dir, i), "name", dir, i);
}

static void file_check(struct trio *w, unsigned file)
{
    if (!w->files[file].busy && !oid_is_none(w->files[file].oid))
        blame(w, file_look(w, file), "file", file, 0);
}

void trio_check_one(struct trio *w, bool dir, unsigned index)
{
    if (dir)
        dir_check(w, index % TRIO_DIRS);
    else
        file_check(w, index % TRIO_FILES);
}

void trio_check_shard(struct trio *w, unsigned shard)
{
    for (unsigned i = 0; i < TRIO_DIRS; i++)
        if (trio_shard_of(w, w->dirs[i].oid) == shard)
            dir_check(w, i);
    for (unsigned i = 0; i < TRIO_FILES; i++)
        if (trio_shard_of(w, w->files[i].oid) == shard)
            file_check(w, i);
}

/* ---- P6 ---- */

struct walk {
    struct trio *w;
    struct oid children[TRIO_NAMES + 1];
    unsigned count, names;
};

static bool walk_name(void *ctx, struct slice visible, const struct shown *s)
{
    struct walk *k = ctx;
    (void)visible;
    k->names++;
    if (oid_is_dir(s->oid) && k->count <= TRIO_NAMES)
        k->children[k->count++] = s->oid;
    return k->names <= TRIO_NAMES;
}

static void walk_dir(struct trio *w, struct oid oid, unsigned depth, unsigned *seen)
{
    struct walk k = {.w = w};
    struct shard *s = trio_leader(w, trio_shard_of(w, oid), NULL);
    if (s == NULL || depth > TRIO_DIRS || ++*seen > TRIO_DIRS ||
        merge_list(shard_merge(s), oid, slice_of(NULL, 0), walk_name, &k) != 0 ||
        k.names > TRIO_NAMES) {
        trio_fail(w, "P6", "the tree cannot be walked");
        return;
    }
    for (unsigned i = 0; i < k.count; i++)
        walk_dir(w, k.children[i], depth + 1, seen);
}

static void violated(void *ctx, const char *what)
{
    trio_fail(ctx, "P6", "%s", what);
}

void trio_check_trees(struct trio *w)
{
    unsigned seen = 0, alive = 0;
    for (unsigned i = 0; i < w->shard_count; i++) {
        struct shard *s = trio_leader(w, i, NULL);
        if (s == NULL || merge_check(shard_merge(s), violated, w) != 0)
            trio_fail(w, "P6", "shard %u cannot be checked", i);
        trio_check_shard(w, i);
    }
    walk_dir(w, w->dirs[0].oid, 0, &seen);
    for (unsigned i = 0; i < TRIO_DIRS; i++)
        alive += w->dirs[i].alive;
    if (seen != alive)
        trio_fail(w, "P6", "%u directories in the tree, not %u", seen, alive);
}
