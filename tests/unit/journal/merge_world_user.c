/* Users of a world: requests to effects, as in merge_model.py, with what POSIX would refuse left
 * out. */
#include <stdio.h>

#include "base/codec.h"
#include "tests/unit/journal/merge_world_int.h"

static const uint8_t FS_KEY[32] = {42};

bool site_lookup(struct world_site *s, struct oid parent, const char *name, struct shown *ret)
{
    int rc = merge_lookup(site_shard(s, parent), parent, slice_str(name), ret);
    WORLD_CHECK(s->world, rc == 0 || rc == ERR_NOT_FOUND);
    return rc == 0;
}

struct list_ctx {
    struct world_name *at;
    uint32_t count, cap;
};

static void text_of(struct slice s, char out[256])
{
    memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
}

static bool list_name(void *ctx, struct slice visible, const struct shown *s)
{
    struct list_ctx *l = ctx;
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 16 : l->cap * 2;
        l->at = mem_realloc(l->at, l->cap * sizeof *l->at);
    }
    struct world_name *n = &l->at[l->count++];
    n->shown = *s;
    text_of(visible, n->name);
    text_of(s->stored, n->stored);
    n->shown.stored = slice_of(NULL, 0); /* see .stored */
    return true;
}

struct world_name *site_list(struct world_site *s, struct oid parent, uint32_t *ret_count)
{
    struct list_ctx l = {.at = NULL};
    int rc = merge_list(site_shard(s, parent), parent, slice_of(NULL, 0), list_name, &l);
    WORLD_CHECK(s->world, rc == 0);
    for (uint32_t i = 1; i < l.count; i++)
        WORLD_CHECK(s->world, strcmp(l.at[i - 1].name, l.at[i].name) < 0);
    *ret_count = l.count;
    return l.at;
}

/* ---- effects ---- */

static struct effect *add_set_perm(struct op_builder *b, struct oid oid, uint16_t mode)
{
    struct perm p = {.mode = mode};
    struct buf bytes = {.ptr = NULL};
    perm_encode(&p, &bytes);
    struct slice value = op_dup(&b->arena, buf_slice(&bytes));
    buf_deinit(&bytes);
    struct effect *e = op_builder_add(b, EFFECT_SET, oid);
    e->set = (struct reg){.key = slice_str("p"), .present = true, .value = value};
    return e;
}

static void add_enter(struct op_builder *b, struct oid oid, struct oid parent, const char *name)
{
    struct effect *e = op_builder_add(b, EFFECT_ENTER, oid);
    e->parent = parent;
    e->name = slice_str(name);
}

static void add_version(struct op_builder *b, struct oid oid, struct dot base, const char *data)
{
    struct dot *copy = op_alloc(&b->arena, sizeof *copy);
    *copy = base;
    struct effect *e = op_builder_add(b, EFFECT_VERSION, oid);
    e->dots = copy;
    e->dot_count = dot_is_none(base) ? 0 : 1;
    e->content.kind = CONTENT_INLINE;
    e->content.bytes = op_dup(&b->arena, slice_str(data));
    e->content.size = e->content.bytes.len;
}

/* What the last name's remover knows; or which name stays, for the file's shard to wait for. */
static void add_leave(struct world_site *s,
                      struct op_builder *b,
                      struct oid parent,
                      const char *stored,
                      struct oid oid,
                      bool lives_on)
{
    struct file_view f;
    struct dot seen = {.seq = 0};
    struct dot stays = {.seq = 0};
    int rc = merge_file(site_shard(s, oid), oid, &f);
    WORLD_CHECK(s->world, rc == 0);
    if (f.names == 1 && !lives_on)
        seen = f.version;
    else if (!lives_on)
        WORLD_CHECK(s->world,
                    merge_ref_stays(site_shard(s, oid), oid, parent, slice_str(stored), &stays));
    build_leave(site_shard(s, parent), b, parent, slice_str(stored), oid, seen);
    b->effects[b->count - 1].stays = s->world->rough ? (struct dot){.seq = 0} : stays;
}

static uint32_t
add_births(struct world_site *s, struct op_arena *a, struct oid dir, struct birth *at)
{
    uint32_t count = 0;
    bool moved = false;
    while (!oid_is_root(dir)) {
        struct dir_view d;
        int rc = merge_dir(site_shard(s, dir), dir, &d);
        if (rc == ERR_NOT_FOUND && moved)
            break; /* collected */
        WORLD_CHECK(s->world, rc == 0 && count < 256);
        moved = !oid_equal(d.parent, d.birth.parent);
        at[count] = d.birth;
        at[count].name = op_dup(a, d.birth.name);
        dir = at[count++].parent;
    }
    return count;
}

static void add_move(struct world_site *s,
                     struct op_builder *b,
                     struct oid dir,
                     struct oid parent,
                     struct slice name)
{
    struct birth births[512];
    uint32_t count = add_births(s, &b->arena, dir, births);
    count += add_births(s, &b->arena, parent, births + count);
    build_move(s->shards[0], b, dir, parent, name, births, count);
}

static void add_settle(struct world_site *s,
                       struct op_builder *b,
                       struct oid parent,
                       const char *stored,
                       const struct slice *leaving,
                       uint32_t leaving_count,
                       struct settle_dirs *dirs)
{
    (void)build_settle_all(site_shard(s, parent), b, parent, slice_str(stored), leaving,
                           leaving_count, dirs);
}

static void add_settle_moves(struct world_site *s,
                             struct op_builder *b,
                             struct oid parent,
                             const struct settle_dirs *dirs)
{
    for (uint32_t i = 0; i < dirs->count; i++)
        add_move(s, b, dirs->at[i].oid, parent, dirs->at[i].name);
}

static void add_clear(struct world_site *s,
                      struct op_builder *b,
                      struct oid parent,
                      const struct shown *shown,
                      const char *stored)
{
    if (oid_is_dir(shown->oid)) {
        uint32_t count;
        const struct dot *dots = build_life_dots(site_shard(s, shown->oid), b, shown->oid, &count);
        struct effect *e = op_builder_add(b, EFFECT_BURY, shown->oid);
        e->dots = dots;
        e->dot_count = count;
        return;
    }
    add_leave(s, b, parent, stored, shown->oid, false);
    for (uint32_t i = 0; i < shown->twin_count; i++)
        add_leave(s, b, parent, stored, shown->twins[i], false);
}

/* A lookup whose stored name is kept. */
static void
find(struct world_site *s, struct oid parent, const char *name, struct shown *ret, char stored[256])
{
    site_settle(s);
    WORLD_CHECK(s->world, site_lookup(s, parent, name, ret));
    text_of(ret->stored, stored);
}

/* ---- requests ---- */

struct oid user_create(
    struct world_site *s, struct oid parent, const char *name, const char *data, uint16_t perm)
{
    struct op_builder b = {.effects = NULL};
    site_settle(s);
    struct oid oid = oid_file(oid_shard(parent), OID_FILE, s->id, ++s->files);
    /* The model's counters make hashes of names differ; here the last bytes must. */
    oid.b[12] = (uint8_t)s->id;
    add_version(&b, oid, (struct dot){.seq = 0}, data);
    (void)add_set_perm(&b, oid, perm);
    add_enter(&b, oid, parent, name);
    site_issue(s, &b);
    site_settle(s);
    return oid;
}

struct oid user_mkdir(struct world_site *s, struct oid parent, const char *name, uint16_t perm)
{
    struct op_builder b = {.effects = NULL};
    site_settle(s);
    struct birth birth = {.parent = parent, .name = slice_str(name), .mode = perm};
    birth.gen = build_next_gen(site_shard(s, parent), parent, birth.name);
    birth.oid = birth_oid(&birth, FS_KEY, s->world->shard_count);
    struct effect *e = op_builder_add(&b, EFFECT_BIRTH, birth.oid);
    e->birth = birth;
    (void)add_set_perm(&b, birth.oid, perm);
    site_issue(s, &b);
    site_settle(s);
    return birth.oid;
}

void user_remove(struct world_site *s, struct oid parent, const char *name)
{
    struct op_builder b = {.effects = NULL};
    struct settle_dirs dirs = {.count = 0};
    struct shown shown;
    char stored[256];
    struct slice leaving = slice_str(name);
    find(s, parent, name, &shown, stored);
    add_clear(s, &b, parent, &shown, stored);
    add_settle(s, &b, parent, stored, &leaving, 1, &dirs);
    add_settle_moves(s, &b, parent, &dirs);
    if (oid_is_dir(shown.oid))
        build_touch(&b, parent, (int64_t)s->hlc * 1000 + 1);
    site_issue(s, &b);
    site_settle(s);
}

void user_link(
    struct world_site *s, struct oid parent, const char *name, struct oid to_parent, const char *to)
{
    struct op_builder b = {.effects = NULL};
    struct shown shown;
    char stored[256];
    find(s, parent, name, &shown, stored);
    add_enter(&b, shown.oid, to_parent, to);
    site_issue(s, &b);
    site_settle(s);
}

void user_write(struct world_site *s, struct oid parent, const char *name, const char *data)
{
    struct op_builder b = {.effects = NULL};
    struct settle_dirs dirs = {.count = 0};
    struct shown shown;
    struct file_view f;
    char stored[256];
    find(s, parent, name, &shown, stored);
    int rc = merge_file(site_shard(s, shown.oid), shown.oid, &f);
    WORLD_CHECK(s->world, rc == 0);
    add_version(&b, shown.oid, f.version, data);
    for (uint32_t i = 0; i < shown.twin_count; i++)
        add_leave(s, &b, parent, stored, shown.twins[i], false);
    add_settle(s, &b, parent, stored, NULL, 0, &dirs);
    add_settle_moves(s, &b, parent, &dirs);
    site_issue(s, &b);
    site_settle(s);
}

void user_chmod(struct world_site *s, struct oid parent, const char *name, uint16_t perm)
{
    struct op_builder b = {.effects = NULL};
    struct settle_dirs dirs = {.count = 0};
    struct shown shown;
    char stored[256];
    find(s, parent, name, &shown, stored);
    (void)add_set_perm(&b, shown.oid, perm);
    for (uint32_t i = 0; i < shown.twin_count; i++)
        (void)add_set_perm(&b, shown.twins[i], perm);
    add_settle(s, &b, parent, stored, NULL, 0, &dirs);
    add_settle_moves(s, &b, parent, &dirs);
    site_issue(s, &b);
    site_settle(s);
}

void user_rename(
    struct world_site *s, struct oid parent, const char *name, struct oid to_parent, const char *to)
{
    struct op_builder b = {.effects = NULL};
    struct settle_dirs dirs = {.count = 0};
    struct settle_dirs there_dirs = {.count = 0};
    struct shown shown;
    struct shown there;
    char stored[256];
    char there_stored[256];
    bool same = oid_equal(parent, to_parent);
    struct slice leaving[2] = {slice_str(name), slice_str(to)};
    find(s, parent, name, &shown, stored);
    bool replaces = site_lookup(s, to_parent, to, &there);
    if (replaces)
        text_of(there.stored, there_stored);
    bool dir = oid_is_dir(shown.oid);
    if (!dir) {
        add_leave(s, &b, parent, stored, shown.oid, true);
        for (uint32_t i = 0; i < shown.twin_count; i++)
            add_leave(s, &b, parent, stored, shown.twins[i], false);
    }
    if (replaces)
        add_clear(s, &b, to_parent, &there, there_stored);
    add_settle(s, &b, parent, stored, leaving, same && replaces ? 2 : 1, &dirs);
    if (replaces)
        add_settle(s, &b, to_parent, there_stored, same ? leaving : leaving + 1, same ? 2 : 1,
                   same ? &dirs : &there_dirs);
    add_settle_moves(s, &b, parent, &dirs);
    add_settle_moves(s, &b, to_parent, &there_dirs);
    if (dir) {
        add_move(s, &b, shown.oid, to_parent, slice_str(to));
        build_touch(&b, parent, (int64_t)s->hlc * 1000 + 1);
        build_touch(&b, to_parent, (int64_t)s->hlc * 1000 + 1);
    } else {
        add_enter(&b, shown.oid, to_parent, to);
    }
    site_issue(s, &b);
    site_settle(s);
}

/* ---- a random user ---- */

struct dirs {
    struct oid at[4096];
    uint32_t count;
};

static void reachable(struct world_site *s, struct dirs *ret)
{
    ret->count = 0;
    ret->at[ret->count++] = OID_ROOT;
    for (uint32_t i = 0; i < ret->count; i++) {
        uint32_t count;
        struct world_name *names = site_list(s, ret->at[i], &count);
        for (uint32_t k = 0; k < count; k++)
            if (oid_is_dir(names[k].shown.oid) && ret->count < ARRAY_COUNT(ret->at))
                ret->at[ret->count++] = names[k].shown.oid;
        mem_free(names);
    }
}

static bool is_inside(struct world_site *s, struct oid dir, struct oid of)
{
    while (!oid_is_root(dir)) {
        struct dir_view d;
        if (oid_equal(dir, of))
            return true;
        int rc = merge_dir(site_shard(s, dir), dir, &d);
        WORLD_CHECK(s->world, rc == 0);
        dir = d.parent;
    }
    return oid_is_root(of);
}

static bool is_twin(const struct shown *s, struct oid oid)
{
    for (uint32_t i = 0; i < s->twin_count; i++)
        if (oid_equal(s->twins[i], oid))
            return true;
    return oid_equal(s->oid, oid);
}

static bool share_twins(const struct shown *a, const struct shown *b)
{
    for (uint32_t i = 0; i < a->twin_count; i++)
        if (is_twin(b, a->twins[i]))
            return true;
    return is_twin(b, a->oid);
}

static bool can_rename(struct world_site *s,
                       const struct world_name *from,
                       struct oid parent,
                       struct oid to_parent,
                       const char *to)
{
    const struct shown *shown = &from->shown;
    struct shown there;
    if (oid_equal(parent, to_parent) && strcmp(from->name, to) == 0)
        return false;
    if (oid_is_dir(shown->oid) && is_inside(s, to_parent, shown->oid))
        return false;
    if (!site_lookup(s, to_parent, to, &there))
        return true;
    bool dir = oid_is_dir(there.oid);
    if (dir != oid_is_dir(shown->oid) || share_twins(shown, &there))
        return false;
    return !dir || merge_dir_empty(site_shard(s, there.oid), there.oid);
}

static void check_shows(
    struct world_site *s, struct oid parent, const char *name, struct oid oid, const char *data)
{
    struct shown shown;
    struct file_view f;
    WORLD_CHECK(s->world, site_lookup(s, parent, name, &shown));
    WORLD_CHECK(s->world, oid_is_none(oid) || oid_equal(shown.oid, oid));
    if (data == NULL)
        return;
    int rc = merge_file(site_shard(s, shown.oid), shown.oid, &f);
    WORLD_CHECK(s->world, rc == 0 && slice_equal(f.content.bytes, slice_str(data)));
}

/* All names but one are what they were. */
static void check_removed(struct world_site *s,
                          struct oid parent,
                          const struct world_name *before,
                          uint32_t count,
                          const char *name)
{
    uint32_t left;
    uint32_t i = 0;
    struct world_name *after = site_list(s, parent, &left);
    WORLD_CHECK(s->world, left == count - 1);
    for (uint32_t k = 0; k < left; k++, i++) {
        i += strcmp(before[i].name, name) == 0;
        WORLD_CHECK(s->world, strcmp(before[i].name, after[k].name) == 0);
    }
    mem_free(after);
}

static void rename_step(
    struct world_site *s, struct oid p, const struct world_name *pick, struct oid q, const char *to)
{
    struct shown gone;
    if (!can_rename(s, pick, p, q, to))
        return;
    user_rename(s, p, pick->name, q, to);
    check_shows(s, q, to, pick->shown.oid, NULL);
    WORLD_CHECK(s->world, !site_lookup(s, p, pick->name, &gone));
}

enum step {
    STEP_CREATE,
    STEP_MKDIR,
    STEP_REMOVE,
    STEP_RENAME,
    STEP_WRITE,
    STEP_CHMOD,
    STEP_LINK
};

static enum step draw_step(struct world *w)
{
    static const uint32_t weights[] = {20, 14, 16, 24, 20, 6, 6};
    uint32_t r = world_below(w, 106);
    uint32_t step = 0;
    while (r >= weights[step])
        r -= weights[step++];
    return (enum step)step;
}

static void
new_step(struct world_site *s, enum step step, struct oid p, const char *name, const char *data)
{
    struct shown shown;
    if (site_lookup(s, p, name, &shown))
        return;
    uint16_t perm = world_below(s->world, 3) == 0;
    struct oid oid =
        step == STEP_CREATE ? user_create(s, p, name, data, perm) : user_mkdir(s, p, name, perm);
    check_shows(s, p, name, oid, step == STEP_CREATE ? data : NULL);
}

static void old_step(struct world_site *s,
                     enum step step,
                     struct oid p,
                     const struct world_name *names,
                     uint32_t count,
                     const char *data)
{
    const struct world_name *pick = &names[world_below(s->world, count)];
    bool dir = oid_is_dir(pick->shown.oid);
    uint16_t perm = (uint16_t)world_below(s->world, 4);
    struct merge *shard = site_shard(s, pick->shown.oid);
    if (step == STEP_REMOVE && (!dir || merge_dir_empty(shard, pick->shown.oid))) {
        user_remove(s, p, pick->name);
        check_removed(s, p, names, count, pick->name);
    } else if (step == STEP_WRITE && !dir) {
        user_write(s, p, pick->name, data);
        check_shows(s, p, pick->name, (struct oid){.b = {0}}, data);
    } else if (step == STEP_CHMOD) {
        user_chmod(s, p, pick->name, perm);
    }
}

void user_step(struct world_site *s, bool fresh_data)
{
    static struct dirs dirs;
    static const char *const letters[] = {"a", "b", "c", "d"};
    static const char *const stale[] = {"", "x", "y"};
    struct world *w = s->world;
    char data[32];
    uint32_t count;
    site_settle(s);
    if (s->issued % 3 == 0)
        site_check_losers(s);
    reachable(s, &dirs);
    struct oid p = dirs.at[world_below(w, dirs.count)];
    struct oid q = dirs.at[world_below(w, dirs.count)];
    const char *name = letters[world_below(w, 4)];
    enum step step = draw_step(w);
    (void)snprintf(data, sizeof data, "%c%llu", (char)s->id, (unsigned long long)s->issued);
    if (!fresh_data)
        (void)snprintf(data, sizeof data, "%s", stale[world_below(w, 3)]);
    if (step == STEP_CREATE || step == STEP_MKDIR) {
        new_step(s, step, p, name, data);
        return;
    }
    struct world_name *names = site_list(s, p, &count);
    if (count > 0) {
        const struct world_name *pick = &names[world_below(w, count)];
        struct shown shown;
        if (step == STEP_RENAME)
            rename_step(s, p, pick, q, name);
        else if (step == STEP_LINK && !oid_is_dir(pick->shown.oid) &&
                 !site_lookup(s, q, name, &shown))
            user_link(s, p, pick->name, q, name);
        else
            old_step(s, step, p, names, count, data);
    }
    mem_free(names);
}
