/* Calls become operations, as site/posix_*.c builds them, evaluated at whoever leads. See trio.h.
 */
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"
#include "sim/trio_int.h"

struct site { /* what a call is evaluated against; all of it is led */
    struct trio *w;
    struct op_builder *b;
    struct merge *at[TRIO_SHARDS_MAX];
    struct shard *shards[TRIO_SHARDS_MAX];
    int64_t now_ns;
};

static struct merge *merge_at(const struct site *s, struct oid oid)
{
    return s->at[trio_shard_of(s->w, oid)];
}

static void add_perm(struct site *s, struct oid oid)
{
    struct perm p = {.uid = 1000, .gid = 1000, .mode = 0755};
    struct buf value = {0};
    uint8_t key = REG_PERM;
    perm_encode(&p, &value);
    struct effect *e = op_builder_add(s->b, EFFECT_SET, oid);
    e->set.key = op_dup(&s->b->arena, slice_of(&key, 1));
    e->set.value = op_dup(&s->b->arena, buf_slice(&value));
    e->set.present = true;
    buf_deinit(&value);
}

static void add_enter(struct site *s, struct oid oid, unsigned dir, unsigned name)
{
    struct effect *e = op_builder_add(s->b, EFFECT_ENTER, oid);
    e->parent = s->w->dirs[dir].oid;
    e->name = trio_name(name);
}

static void add_version(struct site *s, struct oid oid, uint64_t content, struct dot base)
{
    uint8_t bytes[8];
    struct effect *e = op_builder_add(s->b, EFFECT_VERSION, oid);
    struct dot *dots = op_alloc(&s->b->arena, sizeof *dots);
    *dots = base;
    e->dots = dots;
    e->dot_count = dot_is_none(base) ? 0 : 1;
    e->content.kind = CONTENT_INLINE;
    e->content.bytes = op_dup(&s->b->arena, trio_content(content, bytes));
    e->content.size = e->content.bytes.len;
    e->mtime_ns = s->now_ns;
}

static int add_leave(struct site *s, unsigned file, unsigned dir, unsigned name, bool lives_on)
{
    struct oid parent = s->w->dirs[dir].oid, oid = s->w->files[file].oid;
    struct settle_dirs dirs = {0};
    struct file_view v;
    struct dot seen = {0};
    int rc = merge_file(merge_at(s, oid), oid, &v);
    if (rc != 0)
        return rc;
    bool last = v.names == 1;
    if (last && !lives_on)
        seen = v.version;
    build_leave(merge_at(s, parent), s->b, parent, trio_name(name), oid, seen);
    if (!last && !lives_on)
        (void)merge_ref_stays(merge_at(s, oid), oid, parent, trio_name(name),
                              &s->b->effects[s->b->count - 1].stays);
    if (!lives_on)
        (void)build_settle(merge_at(s, parent), s->b, parent, trio_name(name), trio_name(name),
                           &dirs);
    return dirs.count == 0 ? 0 : ERR_EXISTS;
}

static int build_file(struct trio_client *c, struct site *s)
{
    struct trio *w = c->world;
    struct file_view v;
    int rc;
    switch (c->call) {
    case TRIO_CREATE:
        c->oid = shard_new_oid(s->shards[c->home], OID_FILE);
        add_version(s, c->oid, c->content, (struct dot){0});
        add_perm(s, c->oid);
        add_enter(s, c->oid, c->dir, c->name);
        return 0;
    case TRIO_WRITE:
        rc = merge_file(merge_at(s, w->files[c->file].oid), w->files[c->file].oid, &v);
        if (rc == 0)
            add_version(s, w->files[c->file].oid, c->content, v.version);
        return rc;
    case TRIO_LINK:
        add_enter(s, w->files[c->file].oid, c->to_dir, c->to_name);
        return 0;
    case TRIO_UNLINK:
        return add_leave(s, c->file, c->dir, c->name, false);
    default: /* TRIO_RENAME */
        rc = add_leave(s, c->file, c->dir, c->name, true);
        if (rc == 0 && c->victim < TRIO_FILES)
            rc = add_leave(s, c->victim, c->to_dir, c->to_name, false);
        if (rc == 0)
            add_enter(s, w->files[c->file].oid, c->to_dir, c->to_name);
        return rc;
    }
}

static void build_mkdir(struct trio_client *c, struct site *s)
{
    static const uint8_t key[32] = {1};
    struct birth birth = {.parent = c->world->dirs[c->dir].oid,
                          .name = trio_name(c->name),
                          .uid = 1000,
                          .gid = 1000,
                          .mode = 0755};
    birth.gen = build_next_gen(merge_at(s, birth.parent), birth.parent, birth.name);
    birth.oid = birth_oid(&birth, key, c->world->shard_count);
    c->oid = birth.oid;
    op_builder_add(s->b, EFFECT_BIRTH, birth.oid)->birth = birth;
    add_perm(s, birth.oid);
}

/* The birth of the directory, and those of the target and of all above it. */
static int build_the_move(struct trio_client *c, struct site *s)
{
    struct trio *w = c->world;
    struct birth list[TRIO_DIRS + 1];
    struct buf names[TRIO_DIRS + 1] = {{0}};
    uint32_t count = 0;
    int rc = 0;
    struct oid at = w->dirs[c->moved].oid;
    while (rc == 0 && !oid_is_root(at) && count <= TRIO_DIRS) {
        struct dir_view v;
        rc = merge_dir(merge_at(s, at), at, &v);
        if (rc != 0)
            break;
        list[count] = v.birth;
        list[count].oid = at;
        buf_append(&names[count], v.birth.name.ptr, v.birth.name.len);
        list[count].name = buf_slice(&names[count]);
        at = count++ == 0 ? w->dirs[c->to_dir].oid : v.birth.parent;
    }
    if (rc == ERR_NOT_FOUND && count > 0)
        rc = 0; /* a birth parent that was removed: nobody is where it was born */
    if (rc == 0) {
        build_touch(s->b, w->dirs[c->dir].oid, s->now_ns);
        build_move(s->at[0], s->b, w->dirs[c->moved].oid, w->dirs[c->to_dir].oid,
                   trio_name(c->to_name), list, count);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
        buf_deinit(&names[i]);
    return rc;
}

static void build_rmdir(struct trio_client *c, struct site *s)
{
    struct oid oid = c->world->dirs[c->moved].oid;
    struct effect *e = op_builder_add(s->b, EFFECT_BURY, oid);
    e->dots = build_life_dots(merge_at(s, oid), s->b, oid, &e->dot_count);
    build_touch(s->b, c->world->dirs[c->dir].oid, s->now_ns);
}

unsigned trio_home_of(const struct trio_client *c)
{
    const struct trio *w = c->world;
    switch (c->call) {
    case TRIO_WRITE:
        return trio_shard_of(w, w->files[c->file].oid);
    case TRIO_LINK:
    case TRIO_RENAME:
        return trio_shard_of(w, w->dirs[c->to_dir].oid);
    case TRIO_MOVE:
        return 0;
    default:
        return trio_shard_of(w, w->dirs[c->dir].oid);
    }
}

int trio_build(struct trio_client *c, struct op_builder *b)
{
    struct trio *w = c->world;
    struct site s = {.w = w, .b = b};
    int rc = 0;
    for (unsigned i = 0; i < w->shard_count; i++) {
        unsigned node;
        s.shards[i] = trio_leader(w, i, &node);
        if (s.shards[i] == NULL)
            return ERR_AGAIN;
        s.at[i] = shard_merge(s.shards[i]);
        s.now_ns = (int64_t)clock_wall_ns(&w->nodes[node].clock);
    }
    switch (c->call) {
    case TRIO_MKDIR:
        build_mkdir(c, &s);
        break;
    case TRIO_RMDIR:
        build_rmdir(c, &s);
        break;
    case TRIO_MOVE:
        rc = build_the_move(c, &s);
        break;
    default:
        rc = build_file(c, &s);
    }
    if (rc != 0)
        trio_fail(w, "P1", "call %u of client %llu: what it names is not there: %s", c->call,
                  (unsigned long long)c->session, err_name(rc));
    return rc;
}
