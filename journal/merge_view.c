/* Attributes of files and directories as users see them. */
#include "base/plant.h"
#include "journal/merge_int.h"

static void perm_view(const struct lww *reg, struct perm *ret, int *rc)
{
    if (reg->present && perm_decode(reg->value, ret) != 0)
        *rc = ERR_CORRUPT;
}

/* Rule 9: set-id bits and capabilities hold only for content that their setter had seen. */
static void perm_for_version(struct perm *p, struct dot shown)
{
    if (PLANTED(51) || dot_is_none(p->setid_seen) || dot_equal(p->setid_seen, shown))
        return;
    p->mode &= (uint16_t)~04000;
    if (p->mode & 010) /* without group execute the bit does not mean set-group-id */
        p->mode &= (uint16_t)~02000;
    p->caps = slice_of(NULL, 0);
}

static int64_t latest(const struct when *explicit_set, struct stamp stamp, int64_t ns)
{
    return !stamp_is_none(explicit_set->stamp) && stamp_cmp(explicit_set->stamp, stamp) >= 0
               ? explicit_set->ns
               : ns;
}

int merge_file(struct merge *m, struct oid oid, struct file_view *ret)
{
    ASSERT(oid_shard(oid) == m->shard && !oid_is_dir(oid));
    work_begin(m);
    const struct file_rec *f = work_file(m, oid);
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    if (!f->known)
        return ERR_NOT_FOUND;
    struct file_view v = {.content = {.kind = CONTENT_INLINE}};
    const struct ver *shown = file_shown(f);
    struct stamp base = f->btime.stamp;
    int64_t base_ns = f->btime.ns;
    if (shown != NULL) {
        v.version = shown->dot;
        v.version_stamp = base = shown->stamp;
        v.content = shown->content;
        base_ns = shown->mtime_ns;
    }
    v.mtime_ns = latest(&f->mtime, base, base_ns);
    v.atime_ns = stamp_is_none(f->atime.stamp) ? f->btime.ns : f->atime.ns;
    v.ctime_ns = f->ctime.ns;
    v.btime_ns = f->btime.ns;
    perm_view(&f->perm, &v.perm, &rc);
    perm_for_version(&v.perm, v.version);
    v.names = file_names(f);
    const struct ver **versions;
    v.version_count = file_versions(f, &m->work.arena, &versions);
    if (f->ref_count > 0) {
        v.ref_parent = f->refs[0].parent;
        v.ref_name = f->refs[0].name;
    }
    if (rc == 0)
        *ret = v;
    return rc;
}

static int root_view(const struct dir_rec *d, struct dir_view *ret)
{
    struct dir_view v = {.alive = true, .parent = OID_ROOT, .perm = {.mode = 0755}};
    int rc = 0;
    v.birth = (struct birth){.oid = OID_ROOT, .parent = OID_ROOT, .mode = 0755};
    perm_view(&d->perm, &v.perm, &rc);
    *ret = v;
    return rc;
}

int merge_dir(struct merge *m, struct oid oid, struct dir_view *ret)
{
    ASSERT(oid_shard(oid) == m->shard && oid_is_dir(oid));
    work_begin(m);
    const struct dir_rec *d = work_dir(m, oid);
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    struct dir_view v = {.alive = dir_alive(d), .birth = d->birth};
    if (oid_is_root(oid)) {
        rc = root_view(d, &v);
    } else if (!d->has_birth) {
        return ERR_NOT_FOUND;
    } else {
        struct position pos = dir_position(d);
        v.parent = pos.parent;
        v.name = pos.name;
        v.perm = (struct perm){.uid = d->birth.uid, .gid = d->birth.gid, .mode = d->birth.mode};
        perm_view(&d->perm, &v.perm, &rc);
    }
    v.mtime_ns = d->mtime.ns;
    v.ctime_ns = d->ctime.ns;
    if (d->has_moved && stamp_cmp(d->moved.stamp, d->ctime.stamp) > 0)
        v.ctime_ns = d->moved.ns;
    v.btime_ns = d->born.ns;
    v.atime_ns = stamp_is_none(d->atime.stamp) ? d->born.ns : d->atime.ns;
    v.entries = d->entries;
    v.subdirs = d->subdirs;
    if (rc == 0)
        *ret = v;
    return rc;
}

int merge_refs(struct merge *m,
               struct oid oid,
               bool (*fn)(void *ctx, struct oid parent, struct slice name),
               void *ctx)
{
    ASSERT(oid_shard(oid) == m->shard);
    work_begin(m);
    const struct file_rec *f = work_file(m, oid);
    int rc = work_health(m);
    if (rc != 0)
        return rc;
    if (!f->known)
        return ERR_NOT_FOUND;
    for (uint32_t i = 0; i < f->ref_count; i++) {
        const struct ref *r = &f->refs[i];
        bool again =
            i > 0 && oid_equal(r->parent, r[-1].parent) && slice_equal(r->name, r[-1].name);
        if (!again && !fn(ctx, r->parent, r->name))
            break;
    }
    return 0;
}

bool merge_ref_stays(
    struct merge *m, struct oid oid, struct oid parent, struct slice name, struct dot *ret)
{
    ASSERT(oid_shard(oid) == m->shard);
    work_begin(m);
    const struct file_rec *f = work_file(m, oid);
    for (uint32_t i = 0; i < f->ref_count; i++) {
        const struct ref *r = &f->refs[i];
        if (oid_equal(r->parent, parent) && slice_equal(r->name, name))
            continue;
        *ret = r->dot;
        return true;
    }
    return false;
}

/* ---- registers ---- */

static bool is_own_class(uint8_t key_class)
{
    return key_class == REG_PERM || key_class == REG_ATIME || key_class == REG_MTIME;
}

struct own_regs { /* the registers that live in the object's record */
    struct reg at[3];
    uint8_t bytes[2][8];
    uint32_t count;
};

static void add_time(struct own_regs *regs, uint8_t *key, uint32_t which, const struct when *w)
{
    if (stamp_is_none(w->stamp))
        return;
    for (int i = 0; i < 8; i++)
        regs->bytes[which][i] = (uint8_t)((uint64_t)w->ns >> (8 * i));
    regs->at[regs->count++] = (struct reg){.key = slice_of(key, 1),
                                           .stamp = w->stamp,
                                           .present = true,
                                           .value = slice_of(regs->bytes[which], 8)};
}

static void own_regs(struct merge *m, struct oid oid, struct own_regs *ret)
{
    static uint8_t keys[] = {REG_PERM, REG_ATIME, REG_MTIME};
    const struct lww *perm;
    const struct when *atime;
    const struct when *mtime;
    ret->count = 0;
    if (oid_is_dir(oid)) {
        const struct dir_rec *d = work_dir(m, oid);
        perm = &d->perm;
        atime = &d->atime;
        mtime = &d->mtime;
    } else {
        const struct file_rec *f = work_file(m, oid);
        perm = &f->perm;
        atime = &f->atime;
        mtime = &f->mtime;
    }
    if (perm->present)
        ret->at[ret->count++] = (struct reg){
            .key = slice_of(keys, 1), .stamp = perm->stamp, .present = true, .value = perm->value};
    add_time(ret, keys + 1, 0, atime);
    add_time(ret, keys + 2, 1, mtime);
}

/* Calls fn for every register with a name, of one class or (0) of all, also removed ones. */
static int each_named(struct merge *m,
                      struct oid oid,
                      uint8_t key_class,
                      bool (*fn)(void *ctx, const struct reg *r),
                      void *ctx)
{
    struct state_scan it;
    bool more = true;
    int rc = 0;
    struct slice name = slice_of(&key_class, key_class == 0 ? 0 : 1);
    state_scan_begin(m->state, &it, key_name(m, KEY_XATTR, oid, name), slice_of(NULL, 0));
    while (more && rc == 0 && state_scan_next(&it)) {
        struct lww value;
        rc = lww_decode(it.value, &value);
        struct reg r = {.key = slice_of(it.key.ptr + 17, it.key.len - 17)};
        if (rc != 0)
            break;
        r.stamp = value.stamp;
        r.present = value.present;
        r.value = value.value;
        more = fn(ctx, &r);
    }
    state_scan_end(&it);
    return rc;
}

struct present_only {
    bool (*fn)(void *ctx, const struct reg *r);
    void *ctx;
};

static bool if_present(void *ctx, const struct reg *r)
{
    const struct present_only *p = ctx;
    return !r->present || p->fn(p->ctx, r);
}

int merge_regs(struct merge *m,
               struct oid oid,
               uint8_t key_class,
               bool (*fn)(void *ctx, const struct reg *r),
               void *ctx)
{
    ASSERT(oid_shard(oid) == m->shard);
    work_begin(m);
    int rc = 0;
    if (!is_own_class(key_class)) {
        struct present_only p = {.fn = fn, .ctx = ctx};
        rc = each_named(m, oid, key_class, if_present, &p);
    } else {
        struct own_regs regs;
        own_regs(m, oid, &regs);
        for (uint32_t i = 0; i < regs.count; i++)
            if (regs.at[i].key.ptr[0] == key_class)
                (void)fn(ctx, &regs.at[i]); /* at most one of a class: nothing to stop */
    }
    return rc != 0 ? rc : work_health(m);
}

int merge_reg(struct merge *m, struct oid oid, struct slice key, struct reg *ret)
{
    ASSERT(oid_shard(oid) == m->shard && key.len > 0);
    work_begin(m);
    struct reg r = {.key = key};
    if (!is_own_class(key.ptr[0])) {
        const struct xattr_rec *x = work_xattr(m, oid, key);
        r.stamp = x->reg.stamp;
        r.present = x->reg.present;
        r.value = x->reg.value;
    } else {
        struct own_regs *regs = op_alloc(&m->work.arena, sizeof *regs);
        own_regs(m, oid, regs);
        for (uint32_t i = 0; i < regs->count; i++)
            if (slice_equal(regs->at[i].key, key))
                r = regs->at[i];
    }
    int rc = work_health(m);
    if (rc == 0 && !r.present)
        rc = ERR_NO_DATA;
    if (rc == 0)
        *ret = r;
    return rc;
}

struct collect_regs {
    struct op_arena *arena;
    struct reg *at;
    uint32_t count, cap;
};

static bool collect_reg(void *ctx, const struct reg *r)
{
    struct collect_regs *c = ctx;
    c->at = array_grow(c->arena, c->at, c->count, &c->cap, sizeof *c->at);
    c->at[c->count] = *r;
    c->at[c->count].key = op_dup(c->arena, r->key);
    c->at[c->count].value = op_dup(c->arena, r->value);
    c->count++;
    return true;
}

const struct reg *regs_all(struct merge *m, struct op_arena *a, struct oid oid, uint32_t *ret_count)
{
    struct collect_regs c = {.arena = a};
    struct own_regs own;
    own_regs(m, oid, &own);
    for (uint32_t i = 0; i < own.count; i++)
        (void)collect_reg(&c, &own.at[i]);
    int rc = each_named(m, oid, 0, collect_reg, &c);
    if (rc != 0 && m->rc == 0)
        m->rc = rc;
    *ret_count = c.count;
    return c.at;
}
