/* Calls become operations, as site/posix_*.c builds them, evaluated at whoever leads. See trio.h.
 */
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"
#include "sim/trio_int.h"

#define UP_MAX 64u /* directories above one another, by birth */

struct merge *trio_merge_at(const struct trio_eval *s, struct oid oid)
{
    return s->at[trio_shard_of(s->w, oid)];
}

bool trio_eval_begin(struct trio_eval *s, struct trio *w, struct op_builder *b)
{
    *s = (struct trio_eval){.w = w, .b = b};
    for (unsigned i = 0; i < w->shard_count; i++) {
        unsigned node;
        s->shards[i] = trio_leader(w, i, &node);
        if (s->shards[i] == NULL)
            return false;
        s->at[i] = shard_merge(s->shards[i]);
        s->now_ns = (int64_t)clock_wall_ns(&w->nodes[node].clock);
        s->hlc = MAX(s->hlc, w->nodes[node].hlc.last);
    }
    return true;
}

void trio_add_perm(struct trio_eval *s, struct oid oid)
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

void trio_add_enter(struct trio_eval *s, struct oid oid, struct oid parent, struct slice name)
{
    struct effect *e = op_builder_add(s->b, EFFECT_ENTER, oid);
    e->parent = parent;
    e->name = op_dup(&s->b->arena, name);
}

void trio_add_version(struct trio_eval *s, struct oid oid, struct slice content, struct dot base)
{
    struct effect *e = op_builder_add(s->b, EFFECT_VERSION, oid);
    struct dot *dots = op_alloc(&s->b->arena, sizeof *dots);
    *dots = base;
    e->dots = dots;
    e->dot_count = dot_is_none(base) ? 0 : 1;
    e->content.kind = CONTENT_INLINE;
    e->content.bytes = op_dup(&s->b->arena, content);
    e->content.size = e->content.bytes.len;
    e->mtime_ns = s->now_ns;
}

int trio_add_leave(
    struct trio_eval *s, struct oid oid, struct oid parent, struct slice name, bool lives_on)
{
    struct settle_dirs dirs = {0};
    struct file_view v;
    struct dot seen = {0};
    int rc = merge_file(trio_merge_at(s, oid), oid, &v);
    if (rc != 0)
        return rc;
    bool last = v.names == 1;
    if (last && !lives_on)
        seen = v.version;
    build_leave(trio_merge_at(s, parent), s->b, parent, name, oid, seen);
    if (!last && !lives_on)
        (void)merge_ref_stays(trio_merge_at(s, oid), oid, parent, name,
                              &s->b->effects[s->b->count - 1].stays);
    if (!lives_on)
        (void)build_settle(trio_merge_at(s, parent), s->b, parent, name, name, &dirs);
    return dirs.count == 0 ? 0 : ERR_EXISTS;
}

struct oid trio_add_birth(struct trio_eval *s, struct oid parent, struct slice name)
{
    static const uint8_t key[32] = {1};
    struct birth birth = {.parent = parent,
                          .name = op_dup(&s->b->arena, name),
                          .uid = 1000,
                          .gid = 1000,
                          .mode = 0755};
    birth.gen = build_next_gen(trio_merge_at(s, parent), parent, birth.name);
    birth.oid = birth_oid(&birth, key, s->w->shard_count);
    op_builder_add(s->b, EFFECT_BIRTH, birth.oid)->birth = birth;
    trio_add_perm(s, birth.oid);
    return birth.oid;
}

/* The birth of the directory, and those of the target and of all above it. */
int trio_add_move(
    struct trio_eval *s, struct oid dir, struct oid from, struct oid to, struct slice name)
{
    struct birth list[UP_MAX];
    struct buf names[UP_MAX] = {{0}};
    uint32_t count = 0;
    int rc = 0;
    struct oid at = dir;
    while (rc == 0 && !oid_is_root(at) && count < UP_MAX) {
        struct dir_view v;
        rc = merge_dir(trio_merge_at(s, at), at, &v);
        if (rc != 0)
            break;
        list[count] = v.birth;
        list[count].oid = at;
        buf_append(&names[count], v.birth.name.ptr, v.birth.name.len);
        list[count].name = buf_slice(&names[count]);
        at = count++ == 0 ? to : v.birth.parent;
    }
    if (rc == 0) { /* nothing is collected in these worlds: all births are there */
        build_touch(s->b, from, s->now_ns);
        build_move(s->at[0], s->b, dir, to, name, list, count);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
        buf_deinit(&names[i]);
    return rc;
}

void trio_add_bury(struct trio_eval *s, struct oid dir, struct oid parent)
{
    struct effect *e = op_builder_add(s->b, EFFECT_BURY, dir);
    e->dots = build_life_dots(trio_merge_at(s, dir), s->b, dir, &e->dot_count);
    build_touch(s->b, parent, s->now_ns);
}

/* ---- calls of clients who know what they must find ---- */

static void enter(struct trio_eval *s, unsigned file, unsigned dir, unsigned name)
{
    trio_add_enter(s, s->w->files[file].oid, s->w->dirs[dir].oid, trio_name(name));
}

static int leave(struct trio_eval *s, unsigned file, unsigned dir, unsigned name, bool lives_on)
{
    return trio_add_leave(s, s->w->files[file].oid, s->w->dirs[dir].oid, trio_name(name), lives_on);
}

static int build_file(struct trio_client *c, struct trio_eval *s)
{
    struct trio *w = c->world;
    struct oid file = w->files[c->file].oid;
    struct file_view v;
    uint8_t bytes[8];
    int rc;
    switch (c->call) {
    case TRIO_CREATE:
        c->oid = shard_new_oid(s->shards[c->home], OID_FILE);
        trio_add_version(s, c->oid, trio_content(c->content, bytes), (struct dot){0});
        trio_add_perm(s, c->oid);
        trio_add_enter(s, c->oid, w->dirs[c->dir].oid, trio_name(c->name));
        return 0;
    case TRIO_WRITE:
        rc = merge_file(trio_merge_at(s, file), file, &v);
        if (rc == 0)
            trio_add_version(s, file, trio_content(c->content, bytes), v.version);
        return rc;
    case TRIO_LINK:
        enter(s, c->file, c->to_dir, c->to_name);
        return 0;
    case TRIO_UNLINK:
        return leave(s, c->file, c->dir, c->name, false);
    default: /* TRIO_RENAME */
        rc = leave(s, c->file, c->dir, c->name, true);
        if (rc == 0 && c->victim < TRIO_FILES)
            rc = leave(s, c->victim, c->to_dir, c->to_name, false);
        if (rc == 0)
            enter(s, c->file, c->to_dir, c->to_name);
        return rc;
    }
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

int trio_build(struct trio_client *c, struct op_builder *b, uint64_t *ret_hlc)
{
    struct trio *w = c->world;
    struct trio_eval s;
    int rc = 0;
    if (!trio_eval_begin(&s, w, b))
        return ERR_AGAIN;
    *ret_hlc = s.hlc;
    struct oid dir = w->dirs[c->dir].oid;
    switch (c->call) {
    case TRIO_MKDIR:
        c->oid = trio_add_birth(&s, dir, trio_name(c->name));
        break;
    case TRIO_RMDIR:
        trio_add_bury(&s, w->dirs[c->moved].oid, dir);
        break;
    case TRIO_MOVE:
        rc = trio_add_move(&s, w->dirs[c->moved].oid, dir, w->dirs[c->to_dir].oid,
                           trio_name(c->to_name));
        break;
    default:
        rc = build_file(c, &s);
    }
    if (rc != 0)
        trio_fail(w, "P1", "call %u of client %llu: what it names is not there: %s", c->call,
                  (unsigned long long)c->session, err_name(rc));
    return rc;
}
