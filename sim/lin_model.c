/* What calls are answered at a moment: POSIX, said once more over the engine's views.
 *
 * Where more than one error applies POSIX leaves the choice, so each of them may be answered. A
 * name of a directory whose own shard has not heard of it yet, or has buried it already, is a
 * change half way between shards: to users the directory is not there, or there as before; never
 * half. */
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "sim/lin_int.h"
#include "sim/opens.h"

struct look { /* one name */
    int rc;   /* 0: it is there; of the directory; ERR_NOT_FOUND */
    bool half;
    struct shown s;
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static uint64_t oid_hash(uint64_t h, struct oid o)
{
    uint64_t a, b;
    memcpy(&a, o.b, 8);
    memcpy(&b, o.b + 8, 8);
    return mix(mix(h, a), b);
}

uint64_t lin_name_hash(struct slice name)
{
    uint64_t h = name.len + 1;
    for (size_t i = 0; i < name.len; i++)
        h = mix(h, name.ptr[i]);
    return h | 1;
}

uint64_t lin_attr_hash(const struct fs_attr *a)
{
    uint64_t h = oid_hash(1, a->oid);
    h = mix(mix(h, a->mode), (uint64_t)a->uid << 32 | a->gid);
    h = mix(mix(h, a->nlink), a->size);
    h = mix(mix(h, (uint64_t)a->mtime_ns), (uint64_t)a->ctime_ns);
    h = mix(mix(h, (uint64_t)a->atime_ns), a->version.seq);
    return mix(h, (uint64_t)a->version.site << 16 | a->version.shard) | 1;
}

static const uint32_t formats[OID_KIND_COUNT] = {[OID_FILE] = S_IFREG, [OID_SYMLINK] = S_IFLNK};

static int file_attr(struct node *n, struct oid oid, struct fs_attr *a)
{
    struct file_view v;
    struct content c;
    struct dot version;
    int64_t mtime;
    int rc = merge_file(merge_of(n, oid), oid, &v);
    if (rc != 0)
        return rc;
    *a = (struct fs_attr){.oid = oid,
                          .mode = formats[oid_kind(oid)] | v.perm.mode,
                          .uid = v.perm.uid,
                          .gid = v.perm.gid,
                          .nlink = v.names,
                          .size = v.content.size,
                          .atime_ns = v.atime_ns,
                          .mtime_ns = v.mtime_ns,
                          .ctime_ns = v.ctime_ns,
                          .version = v.version};
    if (v.names == 0 && orphan_get(n, oid, &c, &version, &mtime)) {
        a->size = c.size;
        a->version = version;
        a->mtime_ns = a->ctime_ns = mtime;
    }
    return 0;
}

static int attr(struct node *n, struct oid oid, struct fs_attr *a)
{
    struct dir_view v;
    if (!oid_is_dir(oid))
        return file_attr(n, oid, a);
    int rc = merge_dir(merge_of(n, oid), oid, &v);
    if (rc == 0)
        *a = (struct fs_attr){.oid = oid,
                              .mode = S_IFDIR | v.perm.mode,
                              .uid = v.perm.uid,
                              .gid = v.perm.gid,
                              .nlink = v.alive ? 2 + v.subdirs : 0,
                              .size = 4096,
                              .atime_ns = v.atime_ns,
                              .mtime_ns = v.mtime_ns,
                              .ctime_ns = v.ctime_ns};
    return rc;
}

static uint64_t attr_of(struct node *n, struct oid oid)
{
    struct fs_attr a;
    return !oid_is_none(oid) && attr(n, oid, &a) == 0 ? lin_attr_hash(&a) : 0;
}

static int dir_state(struct node *n, struct oid dir)
{
    struct dir_view v;
    if (!oid_is_dir(dir))
        return ERR_NOT_DIR;
    int rc = merge_dir(merge_of(n, dir), dir, &v);
    return rc == ERR_NOT_FOUND ? ERR_STALE : rc != 0 ? rc : v.alive ? 0 : ERR_NOT_FOUND;
}

static struct look look(struct node *n, struct oid dir, struct slice name)
{
    struct look l = {.rc = merge_lookup(merge_of(n, dir), dir, name, &l.s)};
    if (l.rc == 0 && oid_is_dir(l.s.oid))
        l.half = dir_state(n, l.s.oid) != 0;
    return l;
}

uint64_t lin_name_value(struct oid oid)
{
    return oid_hash(2, oid) | 1;
}

uint64_t lin_value(struct node *n, struct lin_key key, struct slice name)
{
    if (key.name == 0)
        return attr_of(n, key.oid);
    struct look l = look(n, key.oid, name);
    return l.rc == 0 ? lin_name_value(l.s.oid) : 0;
}

/* --- what may be answered --- */

static const struct lin_key nothing;

static void may(struct lin_state *st, int32_t rc, struct lin_key why, struct lin_key also)
{
    for (unsigned i = 0; i < st->may_count; i++)
        if (st->may[i].rc == rc)
            return;
    ASSERT(st->may_count < LIN_MAYS);
    st->may[st->may_count].rc = rc;
    if (!oid_is_none(why.oid))
        st->may[st->may_count].because[st->may[st->may_count].because_count++] = why;
    if (!oid_is_none(also.oid))
        st->may[st->may_count].because[st->may[st->may_count].because_count++] = also;
    st->may_count++;
}

static struct lin_key key_name(struct oid dir, struct slice name)
{
    return (struct lin_key){.oid = dir, .name = lin_name_hash(name)};
}

static struct lin_key key_object(struct oid oid)
{
    return (struct lin_key){.oid = oid};
}

/* Errors of a directory that is named; true: there are. */
static bool dir_may(struct node *n, struct oid dir, struct lin_state *st)
{
    int rc = dir_state(n, dir);
    if (rc != 0)
        may(st, rc, rc == ERR_NOT_FOUND ? key_object(dir) : nothing, nothing);
    return rc != 0;
}

static void may_lookup(struct node *n, const struct fs_request *q, struct lin_state *st)
{
    if (dir_may(n, q->oid, st))
        return;
    struct look l = look(n, q->oid, q->name);
    struct lin_key k = key_name(q->oid, q->name);
    if (l.rc != 0 || l.half)
        may(st, ERR_NOT_FOUND, k, nothing);
    if (l.rc != 0)
        return;
    st->oid = l.s.oid;
    if (l.half)
        return;
    st->attr = attr_of(n, st->oid);
    may(st, 0, k, key_object(st->oid));
}

struct list {
    struct oid oids[4096];
    uint64_t names[4096];
    uint32_t count, max;
};

static bool list_add(void *ctx, struct slice visible, const struct shown *s)
{
    struct list *l = ctx;
    if (l->count == l->max)
        return false;
    l->oids[l->count] = s->oid;
    l->names[l->count++] = lin_name_hash(visible);
    return true;
}

static uint64_t list_mix(uint64_t h, struct oid oid, uint64_t name, uint64_t shown)
{
    return mix(mix(oid_hash(h, oid), name), shown) | 1;
}

uint64_t lin_list_hash(const struct fs_entry *entries, uint32_t count)
{
    uint64_t h = 1;
    for (uint32_t i = 0; i < count; i++)
        h = list_mix(h, entries[i].attr.oid, lin_name_hash(entries[i].name),
                     entries[i].has_attr ? lin_attr_hash(&entries[i].attr) : 0);
    return h;
}

static void may_list(struct node *n, const struct fs_request *q, struct lin_state *st)
{
    static struct list l;
    int rc = dir_state(n, q->oid);
    st->list = 1;
    l.count = 0;
    l.max = MIN(MAX(q->count, 1u), (uint32_t)ARRAY_COUNT(l.oids));
    if (rc == 0)
        rc = merge_list(merge_of(n, q->oid), q->oid, q->name, list_add, &l);
    if (rc == ERR_NOT_FOUND) /* removed while it was open: empty */
        rc = 0;
    for (uint32_t i = 0; i < l.count; i++)
        st->list = list_mix(st->list, l.oids[i], l.names[i], attr_of(n, l.oids[i]));
    may(st, rc, rc == 0 ? key_object(q->oid) : nothing, nothing);
}

static void may_make(struct node *n, struct oid dir, struct slice name, struct lin_state *st)
{
    if (dir_may(n, dir, st))
        return;
    struct look l = look(n, dir, name);
    st->other = l.rc == 0 ? l.s.oid : (struct oid){{0}};
    if (l.rc == 0)
        may(st, ERR_EXISTS, key_name(dir, name), nothing);
    if (l.rc != 0 || l.half)
        may(st, 0, nothing, nothing);
}

static void may_link(struct node *n, const struct fs_request *q, struct lin_state *st)
{
    struct file_view v;
    struct lin_state of_name = {0};
    may_make(n, q->oid2, q->name, &of_name);
    for (unsigned i = 0; i < of_name.may_count; i++)
        if (of_name.may[i].rc != 0) {
            st->may[st->may_count] = of_name.may[i];
            st->may_count++;
        }
    int rc = merge_file(merge_of(n, q->oid), q->oid, &v);
    if (rc == ERR_NOT_FOUND)
        may(st, ERR_STALE, nothing, nothing);
    else if (rc == 0 && v.names == 0)
        may(st, ERR_NOT_FOUND, key_object(q->oid), nothing);
    if (st->may_count == 0)
        may(st, rc, nothing, nothing);
}

static bool any_entry(void *ctx, struct slice visible, const struct shown *s)
{
    (void)visible;
    (void)s;
    *(bool *)ctx = true;
    return false;
}

static bool is_empty(struct node *n, struct oid dir)
{
    bool found = false;
    return merge_list(merge_of(n, dir), dir, slice_of(NULL, 0), any_entry, &found) != 0 || !found;
}

static void may_remove(struct node *n, const struct mount *m, struct lin_state *st)
{
    const struct fs_request *q = &m->req;
    bool rmdir = m->type == RPC_RMDIR;
    struct lin_key k = key_name(q->oid, q->name);
    if (dir_may(n, q->oid, st))
        return;
    struct look l = look(n, q->oid, q->name);
    if (l.rc != 0 || l.half)
        may(st, ERR_NOT_FOUND, k, nothing);
    if (l.rc != 0)
        return;
    st->other = l.s.oid;
    if (oid_is_dir(l.s.oid) != rmdir)
        may(st, rmdir ? ERR_NOT_DIR : ERR_IS_DIR, k, nothing);
    else if (rmdir && !is_empty(n, l.s.oid))
        may(st, ERR_NOT_EMPTY, key_object(l.s.oid), nothing);
    else
        may(st, 0, nothing, nothing);
}

static bool is_inside(struct node *n, struct oid dir, struct oid of)
{
    struct dir_view v;
    for (unsigned hops = 0; hops < LIMIT_LINEAGE; hops++) {
        if (oid_equal(dir, of))
            return true;
        if (oid_is_root(dir) || merge_dir(merge_of(n, dir), dir, &v) != 0)
            return false;
        dir = v.parent;
    }
    return true;
}

static bool same(const struct shown *a, const struct shown *b)
{
    for (uint32_t i = 0; i <= a->twin_count; i++)
        for (uint32_t k = 0; k <= b->twin_count; k++)
            if (oid_equal(i == 0 ? a->oid : a->twins[i - 1], k == 0 ? b->oid : b->twins[k - 1]))
                return true;
    return false;
}

static void may_replace(struct node *n,
                        const struct fs_request *q,
                        struct oid src,
                        const struct look *dst,
                        struct lin_state *st)
{
    struct lin_key k = key_name(q->oid2, q->name2);
    if (oid_is_dir(src) && is_inside(n, q->oid2, src))
        may(st, ERR_INVALID, nothing, nothing);
    if (dst->rc == 0 && oid_is_dir(src) && !oid_is_dir(dst->s.oid))
        may(st, ERR_NOT_DIR, k, nothing);
    if (dst->rc == 0 && !oid_is_dir(src) && oid_is_dir(dst->s.oid))
        may(st, ERR_IS_DIR, k, nothing);
    if (dst->rc == 0 && oid_is_dir(dst->s.oid) && !is_empty(n, dst->s.oid))
        may(st, ERR_NOT_EMPTY, key_object(dst->s.oid), nothing);
}

static void may_rename(struct node *n, const struct fs_request *q, struct lin_state *st)
{
    bool bad = dir_may(n, q->oid, st);
    if (dir_may(n, q->oid2, st) || bad)
        return;
    static struct look src, dst; /* large; nothing here comes back to itself */
    src = look(n, q->oid, q->name);
    if (src.rc != 0 || src.half)
        may(st, ERR_NOT_FOUND, key_name(q->oid, q->name), nothing);
    if (src.rc != 0)
        return;
    dst = look(n, q->oid2, q->name2);
    st->oid = src.s.oid;
    st->other = dst.rc == 0 ? dst.s.oid : (struct oid){{0}};
    st->nothing = dst.rc == 0 && same(&src.s, &dst.s);
    if (!st->nothing)
        may_replace(n, q, src.s.oid, &dst, st);
    if (st->may_count == 0 || src.half || dst.half)
        may(st, 0, nothing, nothing);
}

/* Is there an attribute of this name? Those of the permissions are in their register. */
static bool has_xattr(struct node *n, struct oid oid, struct slice name)
{
    uint8_t key[1 + LIMIT_XATTR_NAME_BYTES] = {REG_XATTR};
    struct merge *e = merge_of(n, oid);
    struct perm p = {0};
    struct dir_view d;
    struct file_view f;
    struct reg r;
    if (oid_is_dir(oid) && merge_dir(e, oid, &d) == 0)
        p = d.perm;
    else if (!oid_is_dir(oid) && merge_file(e, oid, &f) == 0)
        p = f.perm;
    if (slice_equal(name, slice_str("system.posix_acl_access")))
        return p.acl_access.len > 0;
    if (slice_equal(name, slice_str("system.posix_acl_default")))
        return p.acl_default.len > 0;
    if (slice_equal(name, slice_str("security.capability")))
        return p.caps.len > 0;
    memcpy(key + 1, name.ptr, name.len);
    return merge_reg(e, oid, slice_of(key, 1 + name.len), &r) == 0 && r.present;
}

static void may_set(struct node *n, const struct mount *m, struct lin_state *st)
{
    const struct fs_request *q = &m->req;
    struct fs_attr a;
    int rc = attr(n, q->oid, &a);
    if (rc == ERR_NOT_FOUND)
        rc = ERR_STALE;
    else if (rc == 0 && m->type == RPC_COMMIT && !dot_equal(a.version, q->base))
        rc = ERR_STALE_BASE;
    else if (rc == 0 && m->type == RPC_REMOVEXATTR && !has_xattr(n, q->oid, q->name))
        rc = ERR_NO_DATA;
    st->attr = rc == 0 || rc == ERR_STALE_BASE ? lin_attr_hash(&a) : 0;
    /* Nameless content stays at this site, and is no operation. */
    bool nameless = rc != ERR_STALE && m->type == RPC_COMMIT && a.nlink == 0;
    st->nothing = rc == 0 && nameless;
    bool shows = m->type == RPC_GETATTR || rc == ERR_STALE_BASE || rc == ERR_NO_DATA || nameless;
    may(st, rc, shows ? key_object(q->oid) : nothing, nothing);
}

/* What has no name can be opened as long as somebody has it open: this mount, if it has. */
static void may_open(struct node *n, const struct mount *m, struct lin_state *st)
{
    const struct fs_request *q = &m->req;
    struct fs_attr a;
    int rc = attr(n, q->oid, &a);
    st->attr = rc == 0 ? lin_attr_hash(&a) : 0;
    may(st, rc == ERR_NOT_FOUND ? ERR_STALE : rc, rc == 0 ? key_object(q->oid) : nothing, nothing);
    if (rc == 0 && a.nlink == 0 && !opens_has(m, q->oid))
        may(st, ERR_STALE, key_object(q->oid), nothing);
}

static void expected(struct node *n, const struct mount *m, struct lin_state *st)
{
    const struct fs_request *q = &m->req;
    if (m->type == RPC_LOOKUP)
        may_lookup(n, q, st);
    else if (m->type == RPC_READDIR)
        may_list(n, q, st);
    else if (m->type == RPC_CREATE || m->type == RPC_MKDIR)
        may_make(n, q->oid, q->name, st);
    else if (m->type == RPC_LINK)
        may_link(n, q, st);
    else if (m->type == RPC_UNLINK || m->type == RPC_RMDIR)
        may_remove(n, m, st);
    else if (m->type == RPC_RENAME)
        may_rename(n, q, st);
    else if (m->type == RPC_OPEN)
        may_open(n, m, st);
    else if (m->type == RPC_CLOSE)
        may(st, 0, nothing, nothing);
    else
        may_set(n, m, st);
}

/* --- after the change --- */

static bool shows(struct node *n, const struct mount *m, const struct lin_call *c)
{
    const struct fs_request *q = &m->req;
    bool rename = m->type == RPC_RENAME;
    struct oid none = {{0}}, to = m->type == RPC_LINK || rename ? q->oid2 : q->oid;
    bool makes = m->type == RPC_CREATE || m->type == RPC_MKDIR || m->type == RPC_LINK;
    if (!makes && !rename && m->type != RPC_UNLINK && m->type != RPC_RMDIR)
        return true;
    struct look l = look(n, to, rename ? q->name2 : q->name);
    struct oid there = l.rc == 0 ? l.s.oid : none;
    if (makes || rename) {
        if (!oid_equal(there, c->result) || l.half)
            return false;
    } else if (oid_equal(there, c->victim)) {
        return false;
    }
    if (!rename || (oid_equal(q->oid, q->oid2) && slice_equal(q->name, q->name2)))
        return true;
    l = look(n, q->oid, q->name);
    return l.rc != 0 || !oid_equal(l.s.oid, c->result);
}

bool lin_model(struct node *n,
               const struct mount *m,
               const struct lin_call *c,
               struct lin_state *ret)
{
    memset(ret, 0, sizeof *ret);
    if (c->done) {
        may(ret, 0, nothing, nothing);
        ret->attr = attr_of(n, c->result);
        ret->dirs[0] = attr_of(n, m->req.oid);
        ret->dirs[1] = attr_of(n, m->req.oid2);
        ret->shows = shows(n, m, c);
    } else {
        expected(n, m, ret);
    }
    for (unsigned i = 0; i < ret->may_count; i++) {
        enum err_class k = err_class(ret->may[i].rc);
        if (k != ERR_CLASS_NONE && k != ERR_CLASS_USER && ret->may[i].rc != ERR_STALE_BASE)
            return false;
    }
    return true;
}
