/* The working set of one call: records are read once, changed in memory, and written together. */
#include "base/plant.h"
#include "journal/merge_int.h"

void work_begin(struct merge *m)
{
    struct work *w = &m->work;
    ASSERT(!m->telling); /* M11 */
    op_arena_reset(&w->arena);
    struct op_arena arena = w->arena;
    *w = (struct work){.arena = arena};
    w->puts_tail = &w->puts;
    w->queue_tail = &w->queue;
    w->out_tail = &w->out;
    w->conflicts_tail = &w->conflicts;
}

int work_health(struct merge *m)
{
    if (m->rc == 0)
        m->rc = state_health(m->state);
    return m->rc;
}

static void key_begin(struct merge *m, enum key_type type, struct oid oid)
{
    buf_clear(&m->key);
    buf_reserve(&m->key, 1 + sizeof oid.b + LIMIT_NAME_BYTES);
    m->key.ptr[0] = (uint8_t)type;
    memcpy(m->key.ptr + 1, oid.b, sizeof oid.b);
    m->key.len = 1 + sizeof oid.b;
}

struct slice key_oid(struct merge *m, enum key_type type, struct oid oid)
{
    key_begin(m, type, oid);
    return buf_slice(&m->key);
}

struct slice key_name(struct merge *m, enum key_type type, struct oid parent, struct slice name)
{
    key_begin(m, type, parent);
    buf_append(&m->key, name.ptr, name.len);
    return buf_slice(&m->key);
}

bool state_has(struct merge *m, struct slice key)
{
    struct slice value;
    return state_get(m->state, key, &value);
}

/* Directories' oids end in a hash, files' in a counter. */
static unsigned oid_bucket(struct oid o)
{
    return (o.b[15] ^ o.b[11] * 7u) % WORK_BUCKETS;
}

static unsigned name_bucket(struct oid o, struct slice name)
{
    unsigned h = oid_bucket(o);
    for (size_t i = 0; i < name.len; i++)
        h = h * 31 + name.ptr[i];
    return h % WORK_BUCKETS;
}

static bool work_read(struct merge *m, struct slice key, struct slice *ret)
{
    struct slice value;
    if (!state_get(m->state, key, &value))
        return false;
    *ret = op_dup(&m->work.arena, value);
    return true;
}

static void work_corrupt(struct merge *m, int rc)
{
    if (rc != 0 && m->rc == 0)
        m->rc = rc;
}

struct file_rec *work_file(struct merge *m, struct oid oid)
{
    struct work *w = &m->work;
    struct file_rec **bucket = &w->file_hash[oid_bucket(oid)];
    for (struct file_rec *f = *bucket; f != NULL; f = f->hash_next)
        if (oid_equal(f->oid, oid))
            return f;
    struct file_rec *f = op_alloc(&w->arena, sizeof *f);
    struct slice value;
    f->oid = oid;
    if (work_read(m, key_oid(m, KEY_FILE, oid), &value))
        work_corrupt(m, file_decode(value, &w->arena, f));
    f->nameless = f->known && f->ref_count == 0;
    f->before = file_usage(f);
    f->hash_next = *bucket;
    *bucket = f;
    f->next = w->files;
    w->files = f;
    return f;
}

struct dir_rec *work_dir(struct merge *m, struct oid oid)
{
    struct work *w = &m->work;
    struct dir_rec **bucket = &w->dir_hash[oid_bucket(oid)];
    for (struct dir_rec *d = *bucket; d != NULL; d = d->hash_next)
        if (oid_equal(d->oid, oid))
            return d;
    struct dir_rec *d = op_alloc(&w->arena, sizeof *d);
    struct slice value;
    d->oid = oid;
    if (work_read(m, key_oid(m, KEY_DIR, oid), &value))
        work_corrupt(m, dir_decode(value, &w->arena, d));
    dir_told(d);
    d->hash_next = *bucket;
    *bucket = d;
    d->next = w->dirs;
    w->dirs = d;
    return d;
}

struct slot *work_slot(struct merge *m, struct oid parent, struct slice name)
{
    struct work *w = &m->work;
    struct slot **bucket = &w->slot_hash[name_bucket(parent, name)];
    for (struct slot *s = *bucket; s != NULL; s = s->hash_next)
        if (oid_equal(s->parent, parent) && slice_equal(s->name, name))
            return s;
    struct slot *s = op_alloc(&w->arena, sizeof *s);
    struct slice value;
    s->parent = parent;
    s->name = op_dup(&w->arena, name);
    if (work_read(m, key_name(m, KEY_SLOT, parent, name), &value)) {
        work_corrupt(m, slot_decode(value, &w->arena, s));
        s->before_count = slot_cands(s, &w->arena, &s->before, &s->before_dirs);
        s->was_contested = s->before_count > 1;
    }
    s->hash_next = *bucket;
    *bucket = s;
    s->next = w->slots;
    w->slots = s;
    return s;
}

struct placed *work_placed(struct merge *m, struct oid oid)
{
    struct work *w = &m->work;
    struct placed **bucket = &w->placed_hash[oid_bucket(oid)];
    for (struct placed *p = *bucket; p != NULL; p = p->hash_next)
        if (oid_equal(p->oid, oid))
            return p;
    struct placed *p = op_alloc(&w->arena, sizeof *p);
    struct slice value;
    p->oid = oid;
    if (work_read(m, key_oid(m, KEY_PLACED, oid), &value))
        work_corrupt(m, placed_decode(value, p));
    p->hash_next = *bucket;
    *bucket = p;
    p->next = w->placed;
    w->placed = p;
    return p;
}

struct xattr_rec *work_xattr(struct merge *m, struct oid oid, struct slice key)
{
    struct work *w = &m->work;
    struct xattr_rec **bucket = &w->xattr_hash[name_bucket(oid, key)];
    for (struct xattr_rec *x = *bucket; x != NULL; x = x->hash_next)
        if (oid_equal(x->oid, oid) && slice_equal(x->key, key))
            return x;
    struct xattr_rec *x = op_alloc(&w->arena, sizeof *x);
    struct slice value;
    x->oid = oid;
    x->key = op_dup(&w->arena, key);
    if (work_read(m, key_name(m, KEY_XATTR, oid, key), &value))
        work_corrupt(m, lww_decode(value, &x->reg));
    x->hash_next = *bucket;
    *bucket = x;
    x->next = w->xattrs;
    w->xattrs = x;
    return x;
}

static struct work_put *put_new(struct merge *m, struct slice key)
{
    struct work *w = &m->work;
    struct work_put *p = op_alloc(&w->arena, sizeof *p);
    p->key = op_dup(&w->arena, key);
    *w->puts_tail = p;
    w->puts_tail = &p->next;
    return p;
}

void work_put(struct merge *m, struct slice key, struct slice value)
{
    struct work_put *p = put_new(m, key);
    p->value = op_dup(&m->work.arena, value);
}

void work_del(struct merge *m, struct slice key)
{
    put_new(m, key)->is_delete = true;
}

/* ---- finishing: what the changed records imply, then the writes, then the calls back ---- */

/* Counters of the directory and the mark of contested slots follow the slot. */
static void slot_count(struct merge *m, struct slot *s, uint32_t count, uint32_t dirs)
{
    struct dir_rec *d = work_dir(m, s->parent);
    bool contested = count > 1;
    d->entries += count;
    d->entries -= MIN(d->entries, s->before_count);
    d->subdirs += dirs;
    d->subdirs -= MIN(d->subdirs, s->before_dirs);
    if (contested && !s->was_contested) {
        d->contested++;
        m->contested_any = true;
        work_put(m, key_name(m, KEY_CONTESTED, s->parent, s->name), slice_of(NULL, 0));
    } else if (!contested && s->was_contested) {
        d->contested -= MIN(d->contested, 1);
        work_del(m, key_name(m, KEY_CONTESTED, s->parent, s->name));
    }
    if (dirs > 0 || s->before_dirs > 0)
        d->index_hlc = m->hlc_max;
    d->known = d->dirty = true;
    if (contested || ((s->was_contested || name_is_derived_form(s->name)) && !PLANTED(61)))
        derived_forget(m, s->parent, s->name);
}

static void slots_finish(struct merge *m)
{
    for (struct slot *s = m->work.slots; s != NULL; s = s->next) {
        if (!s->dirty)
            continue;
        struct cand *cands;
        uint32_t dirs;
        uint32_t count = slot_cands(s, &m->work.arena, &cands, &dirs);
        slot_count(m, s, count, dirs);
        past_slot(m, s);
        if (count > 1)
            conflict_of_slot(m, s);
    }
}

/* A changed file may turn twins into rivals or back. */
static void file_forget_names(struct merge *m, const struct file_rec *f)
{
    for (uint32_t i = 0; i < f->ref_count; i++)
        derived_forget(m, f->refs[i].parent, f->refs[i].name);
}

static void owed_update(struct merge *m, struct oid oid, bool owes, bool *owed)
{
    struct slice key = key_oid(m, KEY_REPAIR, oid);
    if (!owes) {
        if (*owed)
            work_del(m, key);
    } else if (!*owed) {
        buf_clear(&m->value);
        enc_u64(&m->value, m->hlc_max);
        work_put(m, key, buf_slice(&m->value));
    }
    *owed = owes;
}

static void files_finish(struct merge *m)
{
    struct op_arena *a = &m->work.arena;
    for (struct file_rec *f = m->work.files; f != NULL; f = f->next) {
        if (!f->dirty)
            continue;
        file_prune_seen(f, a);
        bool relink = file_owes_relink(f);
        owed_update(m, f->oid, relink || file_owes_fork(f), &f->owed);
        if (relink)
            conflict_of_relink(m, f);
        if (!f->owed && !f->queued && file_is_dead(f)) {
            f->queued = true;
            collect_queue(m, f->oid, m->hlc_max);
        }
        if (f->content_changed || f->rights_changed) {
            file_forget_names(m, f);
            conflict_of_file(m, f);
        }
    }
}

static void dirs_finish(struct merge *m)
{
    for (struct dir_rec *d = m->work.dirs; d != NULL; d = d->next) {
        if (!d->dirty)
            continue;
        bool revive = dir_owes_revive(d);
        owed_update(m, d->oid, revive, &d->owed);
        if (revive)
            conflict_of_revive(m, d);
        if (d->has_birth && !dir_alive(d) && !revive && !d->queued) {
            d->queued = true;
            collect_queue(m, d->oid, m->hlc_max);
        }
    }
}

static void write_value(struct merge *m, struct slice key)
{
    state_put(m->state, key, buf_slice(&m->value));
}

static void slots_write(struct merge *m)
{
    for (struct slot *s = m->work.slots; s != NULL; s = s->next) {
        if (!s->dirty)
            continue;
        struct slice key = key_name(m, KEY_SLOT, s->parent, s->name);
        if (s->entry_count == 0 && s->dir_count == 0) {
            state_del(m->state, key);
            continue;
        }
        buf_clear(&m->value);
        slot_encode(s, &m->value);
        write_value(m, key);
    }
}

static void objects_write(struct merge *m)
{
    for (struct file_rec *f = m->work.files; f != NULL; f = f->next) {
        if (!f->dirty)
            continue;
        buf_clear(&m->value);
        file_encode(f, &m->value);
        write_value(m, key_oid(m, KEY_FILE, f->oid));
    }
    for (struct dir_rec *d = m->work.dirs; d != NULL; d = d->next) {
        if (!d->dirty)
            continue;
        buf_clear(&m->value);
        dir_encode(d, &m->value);
        write_value(m, key_oid(m, KEY_DIR, d->oid));
    }
}

static void work_write(struct merge *m)
{
    slots_write(m);
    objects_write(m);
    for (struct placed *p = m->work.placed; p != NULL; p = p->next) {
        if (!p->dirty)
            continue;
        buf_clear(&m->value);
        placed_encode(p, &m->value);
        write_value(m, key_oid(m, KEY_PLACED, p->oid));
    }
    for (struct xattr_rec *x = m->work.xattrs; x != NULL; x = x->next) {
        if (!x->dirty)
            continue;
        buf_clear(&m->value);
        lww_encode(&x->reg, &m->value);
        write_value(m, key_name(m, KEY_XATTR, x->oid, x->key));
    }
    for (struct work_put *p = m->work.puts; p != NULL; p = p->next) {
        if (p->is_delete)
            state_del(m->state, p->key);
        else
            state_put(m->state, p->key, p->value);
    }
}

/* The queue of repairs in memory follows the keys. */
static void owed_publish(struct merge *m)
{
    for (struct file_rec *f = m->work.files; f != NULL; f = f->next)
        if (f->dirty && f->owed)
            owed_touch(m, f->oid, m->hlc_max);
        else if (f->dirty)
            owed_drop(m, f->oid);
    for (struct dir_rec *d = m->work.dirs; d != NULL; d = d->next)
        if (d->dirty && d->owed)
            owed_touch(m, d->oid, m->hlc_max);
        else if (d->dirty)
            owed_drop(m, d->oid);
}

static void emit_names(struct merge *m, const struct merge_events *e)
{
    struct slice any = slice_of(NULL, 0);
    for (struct slot *s = m->work.slots; s != NULL; s = s->next) {
        if (!s->dirty)
            continue;
        bool contested = s->was_contested || work_dir(m, s->parent)->contested > 0;
        e->name_changed(e->ctx, s->parent, contested ? any : s->name);
    }
    if (!m->contested_any)
        return;
    for (struct file_rec *f = m->work.files; f != NULL; f = f->next) {
        if (!f->content_changed && !f->rights_changed)
            continue;
        for (uint32_t i = 0; i < f->ref_count; i++)
            if (oid_shard(f->refs[i].parent) == m->shard &&
                state_has(m, key_name(m, KEY_CONTESTED, f->refs[i].parent, f->refs[i].name)))
                e->name_changed(e->ctx, f->refs[i].parent, any);
    }
}

static void emit_file(const struct merge_events *e, const struct file_rec *f)
{
    if (f->nameless && f->ref_count > 0 && e->file_named != NULL)
        e->file_named(e->ctx, f->oid);
    if (e->object_changed != NULL)
        e->object_changed(e->ctx, f->oid, f->content_changed);
}

static void work_emit(struct merge *m)
{
    const struct merge_events *e = &m->config.events;
    if (e->name_changed != NULL)
        emit_names(m, e);
    for (struct file_rec *f = m->work.files; f != NULL; f = f->next)
        if (f->dirty)
            emit_file(e, f);
    for (struct dir_rec *d = m->work.dirs; d != NULL && e->object_changed != NULL; d = d->next)
        if (d->dirty)
            e->object_changed(e->ctx, d->oid, false);
    for (struct xattr_rec *x = m->work.xattrs; x != NULL && e->register_changed != NULL;
         x = x->next)
        if (x->dirty)
            e->register_changed(e->ctx, x->oid);
    for (struct derived *d = m->work.out; d != NULL && e->send != NULL; d = d->next) {
        buf_clear(&m->value);
        derived_encode(d, &m->value);
        e->send(e->ctx, d->to, buf_slice(&m->value));
    }
    for (struct work_conflict *c = m->work.conflicts; c != NULL && e->conflict != NULL; c = c->next)
        e->conflict(e->ctx, &c->c);
}

int work_finish(struct merge *m)
{
    place_settle(m);
    slots_finish(m);
    files_finish(m);
    dirs_finish(m);
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    work_write(m);
    usage_follow(m);
    owed_publish(m);
    m->telling = true;
    work_emit(m);
    m->telling = false;
    return 0;
}
