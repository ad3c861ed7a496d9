/* Building operations: effects as the rules want them, from what shows now. */
#include "base/plant.h"
#include "journal/merge_int.h"

void op_builder_init(struct op_builder *b)
{
    *b = (struct op_builder){.effects = NULL};
}

void op_builder_deinit(struct op_builder *b)
{
    op_arena_deinit(&b->arena);
    op_builder_init(b);
}

struct effect *op_builder_add(struct op_builder *b, enum effect_kind kind, struct oid oid)
{
    b->effects = array_grow(&b->arena, b->effects, b->count, &b->cap, sizeof *b->effects);
    struct effect *e = &b->effects[b->count++];
    *e = (struct effect){.kind = kind, .oid = oid};
    return e;
}

const struct dot *build_slot_dots(struct merge *m,
                                  struct op_builder *b,
                                  struct oid parent,
                                  struct slice stored,
                                  struct oid oid,
                                  uint32_t *ret_count)
{
    work_begin(m);
    const struct slot *s = work_slot(m, parent, stored);
    struct dot *dots = op_alloc(&b->arena, s->entry_count * sizeof *dots);
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->entry_count; i++)
        if (oid_equal(s->entries[i].oid, oid))
            dots[count++] = s->entries[i].dot;
    *ret_count = count;
    return dots;
}

const struct dot *
build_life_dots(struct merge *m, struct op_builder *b, struct oid dir, uint32_t *ret_count)
{
    work_begin(m);
    const struct dir_rec *d = work_dir(m, dir);
    struct dot *dots = op_alloc(&b->arena, d->life.count * sizeof *dots);
    if (d->life.count > 0)
        memcpy(dots, d->life.at, d->life.count * sizeof *dots);
    *ret_count = d->life.count;
    return dots;
}

void build_leave(struct merge *m,
                 struct op_builder *b,
                 struct oid parent,
                 struct slice stored,
                 struct oid oid,
                 struct dot seen)
{
    struct slice name = op_dup(&b->arena, stored);
    uint32_t count;
    const struct dot *dots = build_slot_dots(m, b, parent, name, oid, &count);
    struct effect *e = op_builder_add(b, EFFECT_LEAVE, oid);
    e->parent = parent;
    e->name = name;
    e->dots = dots;
    e->dot_count = count;
    if (dot_is_none(seen))
        return;
    struct dot *copy = op_alloc(&b->arena, sizeof *copy);
    *copy = seen;
    e->seen = copy;
    e->seen_count = 1;
}

void build_touch(struct op_builder *b, struct oid oid, int64_t mtime_ns)
{
    uint8_t *bytes = op_alloc(&b->arena, 9);
    bytes[8] = REG_MTIME;
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)mtime_ns >> (8 * i));
    struct effect *e = op_builder_add(b, EFFECT_SET, oid);
    e->set =
        (struct reg){.key = slice_of(bytes + 8, 1), .present = true, .value = slice_of(bytes, 8)};
}

void build_saw(struct merge *m, struct op_builder *b, struct effect *e)
{
    ASSERT(m->shard == 0 && e->kind == EFFECT_MOVE);
    struct dot *saw = op_alloc(&b->arena, sizeof *saw);
    work_begin(m);
    e->dots = saw;
    e->dot_count = fold_seen_move(m, e->oid, saw) ? 1 : 0;
}

void build_move(struct merge *m,
                struct op_builder *b,
                struct oid dir,
                struct oid parent,
                struct slice name,
                const struct birth *lineage,
                uint32_t lineage_count)
{
    ASSERT(m->shard == 0);
    struct birth *births = op_alloc(&b->arena, lineage_count * sizeof *births);
    for (uint32_t i = 0; i < lineage_count; i++) {
        births[i] = lineage[i];
        births[i].name = op_dup(&b->arena, lineage[i].name);
    }
    struct slice copy = op_dup(&b->arena, name);
    struct effect *e = op_builder_add(b, EFFECT_MOVE, dir);
    e->parent = parent;
    e->name = copy;
    e->lineage = births;
    e->lineage_count = lineage_count;
    build_saw(m, b, e);
}

/* ---- settling (rule 6) ---- */

static bool name_in(struct slice name, const struct slice *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (slice_equal(name, list[i]))
            return true;
    return false;
}

static bool must_settle(const struct derived_name *d,
                        struct slice stored,
                        const struct slice *leaving,
                        uint32_t leaving_count)
{
    if (name_in(d->visible, leaving, leaving_count))
        return false; /* it goes away itself */
    if (slice_equal(d->stored, stored))
        return true;
    for (uint32_t i = 0; i < d->passed_count; i++)
        if (name_in(d->passed[i], leaving, leaving_count))
            return true;
    return false;
}

static bool
leaves_already(const struct op_builder *b, struct oid parent, struct slice stored, struct oid oid)
{
    for (uint32_t i = 0; i < b->count; i++) {
        const struct effect *e = &b->effects[i];
        if (e->kind == EFFECT_LEAVE && oid_equal(e->oid, oid) && oid_equal(e->parent, parent) &&
            slice_equal(e->name, stored))
            return true;
    }
    return false;
}

static void settle_dir(struct op_builder *b, struct settle_dirs *dirs, const struct derived_name *d)
{
    for (uint32_t i = 0; i < dirs->count; i++)
        if (oid_equal(dirs->at[i].oid, d->oid))
            return;
    /* What does not fit stays contested, which the next one to touch the name settles. */
    if (dirs->count == ARRAY_COUNT(dirs->at))
        return;
    dirs->at[dirs->count].oid = d->oid;
    dirs->at[dirs->count].name = op_dup(&b->arena, d->visible);
    dirs->count++;
}

uint32_t build_settle_all(struct merge *m,
                          struct op_builder *b,
                          struct oid parent,
                          struct slice stored,
                          const struct slice *leaving,
                          uint32_t leaving_count,
                          struct settle_dirs *ret_dirs)
{
    uint32_t before = b->count;
    work_begin(m);
    if (PLANTED(49) || !m->contested_any || work_dir(m, parent)->contested == 0)
        return 0;
    const struct derived_names *names = derived_names(m, parent);
    for (uint32_t i = 0; i < names->count; i++) {
        const struct derived_name *d = &names->at[i];
        if (!must_settle(d, stored, leaving, leaving_count))
            continue;
        if (oid_is_dir(d->oid)) {
            settle_dir(b, ret_dirs, d);
            continue;
        }
        if (leaves_already(b, parent, d->stored, d->oid))
            continue;
        build_leave(m, b, parent, d->stored, d->oid, (struct dot){.seq = 0});
        struct slice shown = op_dup(&b->arena, d->visible);
        struct effect *e = op_builder_add(b, EFFECT_ENTER, d->oid);
        e->parent = parent;
        e->name = shown;
    }
    return b->count - before;
}

uint32_t build_settle(struct merge *m,
                      struct op_builder *b,
                      struct oid parent,
                      struct slice stored,
                      struct slice leaving,
                      struct settle_dirs *ret_dirs)
{
    return build_settle_all(m, b, parent, stored, &leaving, leaving.len > 0 ? 1 : 0, ret_dirs);
}

uint32_t build_next_gen(struct merge *m, struct oid parent, struct slice name)
{
    struct slice value;
    work_begin(m);
    if (!state_get(m->state, key_name(m, KEY_GENERATION, parent, name), &value))
        return 0;
    struct dec d = dec_of(value);
    uint64_t highest = dec_varint(&d);
    if (d.rc != 0 && m->rc == 0)
        m->rc = ERR_CORRUPT;
    return (uint32_t)highest + 1;
}
