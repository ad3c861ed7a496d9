/* Applying operations: each effect's parts of this shard, on the records of the working set. */
#include "journal/merge_int.h"
#include "base/plant.h"

static bool here(const struct merge *m, struct oid oid)
{
    return oid_shard(oid) == m->shard;
}

static void file_touch(struct file_rec *f, const struct op *op)
{
    when_raise(&f->ctime, op->stamp, op->time_ns);
    when_lower(&f->btime, op->stamp, op->time_ns);
    f->known = f->dirty = true;
}

static void dir_touch(struct dir_rec *d, const struct op *op)
{
    when_raise(&d->ctime, op->stamp, op->time_ns);
    d->known = d->dirty = true;
}

/* Something in the directory came or went. */
static void parent_touch(struct merge *m, const struct op *op, struct oid parent)
{
    struct dir_rec *d = work_dir(m, parent);
    when_raise(&d->mtime, op->stamp, op->time_ns);
    dir_touch(d, op);
}

static void apply_enter(struct merge *m, const struct op *op, const struct effect *e)
{
    struct op_arena *a = &m->work.arena;
    if (here(m, e->parent)) {
        struct entry entry = {.dot = op->dot, .oid = e->oid, .stamp = op->stamp};
        slot_add_entry(work_slot(m, e->parent, e->name), a, &entry);
        parent_touch(m, op, e->parent);
    }
    if (here(m, e->oid)) {
        struct file_rec *f = work_file(m, e->oid);
        struct ref ref = {.dot = op->dot, .parent = e->parent, .name = e->name};
        file_add_ref(f, a, &ref);
        file_touch(f, op);
    }
}

/* The latest removal of a name: where a writer that was not known links the file again (rule 3). */
static void file_raise_last(struct file_rec *f, const struct op *op, const struct effect *e)
{
    int order = stamp_cmp(f->last_stamp, op->stamp);
    if (order == 0)
        order = oid_cmp(f->last_parent, e->parent);
    if (order == 0)
        order = slice_cmp(f->last_name, e->name);
    if (order >= 0)
        return;
    f->last_stamp = op->stamp;
    f->last_parent = e->parent;
    f->last_name = e->name;
}

/* The last name goes: the version that its deleter knew, and where it was, stay for a while. */
static void
past_removed(struct merge *m, const struct op *op, const struct file_rec *f, const struct effect *e)
{
    for (uint32_t i = 0; i < f->ver_count && f->ref_count == 0; i++)
        for (uint32_t k = 0; k < e->seen_count; k++)
            if (dot_equal(f->vers[i].dot, e->seen[k]))
                past_version(m, op, f, &f->vers[i], PAST_REMOVED);
}

static void leave_file(struct merge *m, const struct op *op, const struct effect *e)
{
    struct file_rec *f = work_file(m, e->oid);
    uint32_t dropped = 0;
    for (uint32_t i = 0; i < e->dot_count; i++) {
        struct ref ref = {.dot = e->dots[i], .parent = e->parent, .name = e->name};
        dropped += file_drop_ref(f, &ref);
    }
    for (uint32_t i = 0; i < e->seen_count; i++)
        dots_add(&f->seen, &m->work.arena, e->seen[i]);
    for (uint32_t i = 0; i < f->ver_count && PLANTED(1); i++)
        dots_add(&f->seen, &m->work.arena, f->vers[i].dot);
    struct stamp before = f->last_stamp;
    file_raise_last(f, op, e);
    past_removed(m, op, f, e);
    file_touch(f, op);
    if (e->dot_count > 0 && dropped == 0)
        conflict_of_rename(m, op, e, f, before);
    while (PLANTED(47) && e->dot_count > 0 && dropped == 0 && f->ref_count > 0) {
        struct ref r = f->refs[0];
        if (here(m, r.parent))
            slot_drop_entry(work_slot(m, r.parent, r.name), f->oid, r.dot);
        (void)file_drop_ref(f, &r);
    }
}

/* A last name goes, of a file that held something. A file of another shard may have been empty. */
static bool leaves_past(struct merge *m, const struct effect *e)
{
    if (e->seen_count == 0 || !here(m, e->oid))
        return e->seen_count > 0;
    const struct ver *v = file_shown(work_file(m, e->oid));
    return v != NULL && v->content.size > 0;
}

static void apply_leave(struct merge *m, const struct op *op, const struct effect *e)
{
    if (here(m, e->parent)) {
        struct slot *s = work_slot(m, e->parent, e->name);
        for (uint32_t i = 0; i < e->dot_count; i++)
            slot_drop_entry(s, e->oid, e->dots[i]);
        if (leaves_past(m, e))
            past_name(m, e->parent, e->name, e->oid);
        parent_touch(m, op, e->parent);
    }
    if (here(m, e->oid))
        leave_file(m, op, e);
}

static void
drop_versions(struct merge *m, struct file_rec *f, const struct dot *dots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        (void)file_drop_version(f, dots[i]); /* gone already when another replaced it as well */
        if (!f->born)
            dots_add(&f->early, &m->work.arena, dots[i]);
    }
}

/* What a version replaces stays for a while (merge_past.h), unless it says the same. */
static void
past_replaced(struct merge *m, const struct op *op, struct file_rec *f, const struct effect *e)
{
    for (uint32_t i = 0; i < f->ver_count; i++)
        for (uint32_t k = 0; k < e->dot_count; k++)
            if (dot_equal(f->vers[i].dot, e->dots[k]) &&
                !content_equal(&f->vers[i].content, &e->content))
                past_version(m, op, f, &f->vers[i], PAST_REPLACED);
}

static void apply_version(struct merge *m, const struct op *op, const struct effect *e)
{
    if (!here(m, e->oid))
        return;
    struct file_rec *f = work_file(m, e->oid);
    struct ver v = {.dot = op->dot, .stamp = op->stamp, .mtime_ns = e->mtime_ns};
    v.content = e->content;
    past_replaced(m, op, f, e);
    drop_versions(m, f, e->dots, e->dot_count);
    while (PLANTED(7) && f->ver_count > 0)
        (void)file_drop_version(f, f->vers[0].dot);
    if (e->dot_count == 0) {
        f->born = true;
        f->early = (struct dots){.at = NULL};
    }
    file_add_version(f, &m->work.arena, &v);
    f->content_changed = true;
    file_touch(f, op);
}

static int64_t reg_time(const struct reg *r)
{
    struct dec d = dec_of(r->value);
    return (int64_t)dec_u64(&d);
}

static void set_file(struct merge *m, struct file_rec *f, const struct reg *r)
{
    f->known = f->dirty = true;
    switch (r->key.ptr[0]) {
    case REG_PERM:
        f->rights_changed |= lww_set(&f->perm, r, &m->work.arena);
        return;
    case REG_ATIME:
        when_raise(&f->atime, r->stamp, reg_time(r));
        return;
    case REG_MTIME:
        when_raise(&f->mtime, r->stamp, reg_time(r));
        return;
    default: {
        struct xattr_rec *x = work_xattr(m, f->oid, r->key);
        x->dirty |= lww_set(&x->reg, r, &m->work.arena);
    }
    }
}

static void set_dir(struct merge *m, struct dir_rec *d, const struct reg *r)
{
    d->known = d->dirty = true;
    switch (r->key.ptr[0]) {
    case REG_PERM:
        (void)lww_set(&d->perm, r, &m->work.arena); /* written back either way */
        return;
    case REG_ATIME:
        when_raise(&d->atime, r->stamp, reg_time(r));
        return;
    case REG_MTIME:
        when_raise(&d->mtime, r->stamp, reg_time(r));
        return;
    default: {
        struct xattr_rec *x = work_xattr(m, d->oid, r->key);
        x->dirty |= lww_set(&x->reg, r, &m->work.arena);
    }
    }
}

/* What sites tell each other about the federation is no change of the root that a user made. */
static bool is_federation(struct slice key)
{
    return key.len > 0 &&
           (key.ptr[0] == REG_MEMBER || key.ptr[0] == REG_LEAVES || key.ptr[0] == REG_CUT ||
            key.ptr[0] == REG_KNOWS || key.ptr[0] == REG_STABLE);
}

static void apply_set(struct merge *m, const struct op *op, const struct effect *e)
{
    if (!here(m, e->oid))
        return;
    struct reg r = e->set;
    r.stamp = op->stamp;
    if (oid_is_dir(e->oid)) {
        struct dir_rec *d = work_dir(m, e->oid);
        set_dir(m, d, &r);
        if (!is_federation(r.key))
            dir_touch(d, op);
        return;
    }
    struct file_rec *f = work_file(m, e->oid);
    set_file(m, f, &r);
    file_touch(f, op);
}

/* A losing version becomes a file of its own. Two sites may issue the same fork; and what is
 * written to the new file may get here first, from the shard of another parent. */
static void apply_fork(struct merge *m, const struct op *op, const struct effect *e)
{
    if (!here(m, e->oid))
        return;
    struct file_rec *f = work_file(m, e->oid);
    drop_versions(m, f, &e->loser, 1);
    f->content_changed = true;
    file_touch(f, op);
    if (oid_is_none(e->to))
        return;
    struct file_rec *t = work_file(m, e->to);
    if (!t->born) {
        struct ver v = {.dot = e->loser, .stamp = e->loser_stamp, .mtime_ns = e->mtime_ns};
        v.content = e->content;
        t->born = true;
        if (!dots_has(&t->early, e->loser))
            file_add_version(t, &m->work.arena, &v);
        t->early = (struct dots){.at = NULL};
    }
    for (uint32_t i = 0; i < e->reg_count; i++)
        set_file(m, t, &e->regs[i]);
    t->content_changed = true;
    file_touch(t, op);
    conflict_of_fork(m, op, e);
}

static void apply_life(struct merge *m, const struct op *op, const struct effect *e)
{
    if (!here(m, e->oid))
        return;
    struct dir_rec *d = work_dir(m, e->oid);
    if (e->kind == EFFECT_REVIVE)
        dots_add(&d->life, &m->work.arena, op->dot);
    for (uint32_t i = 0; i < e->dot_count; i++)
        dots_drop(&d->life, &m->work.arena, e->dots[i]);
    if (e->kind == EFFECT_BURY && stamp_cmp(d->death, op->stamp) < 0)
        d->death = op->stamp;
    dir_touch(d, op);
}

static void apply_effect(struct merge *m, const struct op *op, const struct effect *e)
{
    switch (e->kind) {
    case EFFECT_ENTER:
        apply_enter(m, op, e);
        return;
    case EFFECT_LEAVE:
        apply_leave(m, op, e);
        return;
    case EFFECT_VERSION:
        apply_version(m, op, e);
        return;
    case EFFECT_FORK:
        apply_fork(m, op, e);
        return;
    case EFFECT_BIRTH:
        place_birth(m, op, e);
        return;
    case EFFECT_REVIVE:
    case EFFECT_BURY:
        apply_life(m, op, e);
        return;
    case EFFECT_MOVE:
        return; /* all of an operation together, below */
    case EFFECT_SET:
        apply_set(m, op, e);
        return;
    case EFFECT_KIND_END:
        break;
    }
    UNREACHABLE();
}

/* ---- what has been applied ---- */

static bool dot_applied(struct merge *m, const struct op *op, struct dot d, struct dot *ret_missing)
{
    if (dot_equal(d, op->dot) ||
        (d.shard < m->config.shard_count && vv_get(&m->seen[d.shard], d.site) >= d.seq))
        return true;
    if (ret_missing != NULL)
        *ret_missing = d;
    return false;
}

static bool dots_applied(struct merge *m,
                         const struct op *op,
                         const struct dot *dots,
                         uint32_t count,
                         struct dot *ret_missing)
{
    for (uint32_t i = 0; i < count; i++)
        if (!dot_applied(m, op, dots[i], ret_missing))
            return false;
    return true;
}

static bool
effect_ready(struct merge *m, const struct op *op, const struct effect *e, struct dot *ret)
{
    switch (e->kind) {
    case EFFECT_LEAVE:
        if (!here(m, e->parent) && !here(m, e->oid))
            return true;
        if (!dots_applied(m, op, e->dots, e->dot_count, ret))
            return false;
        if (!here(m, e->oid))
            return true;
        return dots_applied(m, op, e->seen, e->seen_count, ret) &&
               (dot_is_none(e->stays) || dot_applied(m, op, e->stays, ret));
    case EFFECT_VERSION:
    case EFFECT_BURY:
        return !here(m, e->oid) || dots_applied(m, op, e->dots, e->dot_count, ret);
    case EFFECT_FORK:
        return !here(m, e->oid) || dot_applied(m, op, e->loser, ret);
    case EFFECT_MOVE:
        return m->shard != 0 || dots_applied(m, op, e->dots, e->dot_count, ret);
    case EFFECT_ENTER:
    case EFFECT_BIRTH:
    case EFFECT_REVIVE:
    case EFFECT_SET:
        return true;
    case EFFECT_KIND_END:
        break;
    }
    UNREACHABLE();
}

bool merge_ready(struct merge *m, const struct op *op, struct dot *ret_missing)
{
    for (uint32_t i = 0; i < op->effect_count; i++)
        if (!effect_ready(m, op, &op->effects[i], ret_missing))
            return false;
    return true;
}

static void seen_put(struct merge *m, shard_id_t home)
{
    const struct vv *v = &m->seen[home];
    uint8_t key[3] = {KEY_SEEN, (uint8_t)(home >> 8), (uint8_t)home};
    buf_clear(&m->value);
    enc_u64(&m->value, m->hlc_max);
    enc_varint(&m->value, v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        enc_u32(&m->value, v->at[i].site);
        enc_varint(&m->value, v->at[i].seq);
    }
    work_put(m, slice_of(key, sizeof key), buf_slice(&m->value));
}

/* Every shard an effect names must exist here, or its part would be lost. */
static bool shards_known(const struct merge *m, const struct op *op)
{
    unsigned count = m->config.shard_count;
    bool known = op->dot.shard < count;
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *e = &op->effects[i];
        const struct oid *parent = e->kind == EFFECT_BIRTH ? &e->birth.parent : &e->parent;
        known = known && oid_shard(e->oid) < count && oid_shard(*parent) < count;
    }
    return known;
}

/* ret_step: what the sum of all seen grows by; 0: applied before. */
static int seen_check(struct merge *m, const struct op *op, uint64_t *ret_step)
{
    if (!shards_known(m, op))
        return ERR_MALFORMED;
    uint64_t seen = vv_get(&m->seen[op->dot.shard], op->dot.site);
    *ret_step = op->dot.seq <= seen ? 0 : op->dot.seq - seen;
    if (*ret_step > 1 && op->dot.shard == m->shard)
        return ERR_MALFORMED; /* a gap in an origin's sequence */
    return 0;
}

int merge_apply(struct merge *m, const struct op *op)
{
    uint64_t step = 0;
    int rc = work_health(m);
    if (rc == 0)
        rc = seen_check(m, op, &step);
    if (rc != 0 || step == 0)
        return rc;
    ASSERT(merge_ready(m, op, NULL));
    rc = vv_set(&m->seen[op->dot.shard], op->dot.site, op->dot.seq);
    if (rc != 0)
        return rc;
    work_begin(m);
    m->applied += step;
    m->hlc_max = MAX(m->hlc_max, op->stamp.hlc);
    for (uint32_t i = 0; i < op->effect_count; i++)
        apply_effect(m, op, &op->effects[i]);
    if (m->shard == 0)
        fold_apply(m, op);
    seen_put(m, op->dot.shard);
    return work_finish(m);
}
