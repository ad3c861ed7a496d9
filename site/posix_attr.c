/* Attributes: getattr, setattr, and the permission register that mode, owner and ACLs share. */
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/call.h"
#include "site/node_int.h"
#include "site/posix_int.h"

int call_getattr(struct call *c)
{
    return call_reply_attr(c, c->req.oid);
}

int call_resolve_ino(struct call *c)
{
    struct oid oid;
    int rc = node_resolve_ino(c->n, c->req.size, &oid);
    return rc != 0 ? rc : call_reply_attr(c, oid);
}

int posix_perm(struct call *c, struct oid oid, struct perm *ret, struct dot *ret_version)
{
    struct perm p;
    *ret_version = (struct dot){0};
    if (oid_is_dir(oid)) {
        struct dir_view v;
        int rc = merge_dir(merge_of(c->n, oid), oid, &v);
        if (rc != 0)
            return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
        p = v.perm;
    } else {
        struct file_view v;
        int rc = merge_file(merge_of(c->n, oid), oid, &v);
        if (rc != 0)
            return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
        p = v.perm;
        *ret_version = v.version;
    }
    p.acl_access = call_keep(c, p.acl_access);
    p.acl_default = call_keep(c, p.acl_default);
    p.caps = call_keep(c, p.caps);
    *ret = p;
    return 0;
}

static void set_effect(struct call *c,
                       struct oid oid,
                       uint8_t class,
                       struct slice suffix,
                       bool present,
                       struct slice value)
{
    struct effect *e = op_builder_add(&c->b, EFFECT_SET, oid);
    uint8_t *key = op_alloc(&c->b.arena, 1 + suffix.len);
    key[0] = class;
    if (suffix.len > 0)
        memcpy(key + 1, suffix.ptr, suffix.len);
    e->set.key = slice_of(key, 1 + suffix.len);
    e->set.present = present;
    e->set.value = op_dup(&c->b.arena, value);
}

void posix_set(struct call *c,
               struct oid oid,
               uint8_t class,
               struct slice suffix,
               bool present,
               struct slice value)
{
    set_effect(c, oid, class, suffix, present, value);
    for (uint32_t i = 0; i < c->twin_count; i++)
        set_effect(c, c->twins[i], class, suffix, present, value);
}

void posix_set_perm(struct call *c, struct oid oid, struct perm *p, struct dot version)
{
    struct buf value = {0};
    bool special = (p->mode & (S_ISUID | S_ISGID)) != 0 || p->caps.len > 0;
    p->setid_seen = special && !oid_is_dir(oid) ? version : (struct dot){0};
    perm_encode(p, &value);
    posix_set(c, oid, REG_PERM, slice_of(NULL, 0), true, buf_slice(&value));
    buf_deinit(&value);
}

/* ---- what the object's names say: twins act as one, contested names become final ---- */

struct ref_list {
    struct call *c;
    struct {
        struct oid parent;
        struct slice name;
    } at[16];
    uint32_t count;
};

static bool ref_add(void *ctx, struct oid parent, struct slice name)
{
    struct ref_list *l = ctx;
    if (l->count == ARRAY_COUNT(l->at))
        return false;
    l->at[l->count].parent = parent;
    l->at[l->count++].name = call_keep(l->c, name);
    return true;
}

int posix_touch(struct call *c, struct oid oid)
{
    struct shard *home = shard_of(c->n, oid);
    struct ref_list refs = {.c = c};
    c->twin_count = 0;
    if (oid_is_dir(oid))
        return 0;
    int rc = merge_refs(shard_merge(home), oid, ref_add, &refs);
    for (uint32_t i = 0; i < refs.count && rc == 0; i++) {
        struct shown s;
        if (shard_of(c->n, refs.at[i].parent) != home)
            continue; /* twins are of one shard; a contested name elsewhere settles when used */
        rc = merge_lookup(shard_merge(home), refs.at[i].parent, refs.at[i].name, &s);
        if (rc == ERR_NOT_FOUND) {
            rc = 0;
            continue;
        }
        if (rc != 0 || !oid_equal(s.oid, oid) || s.derived)
            continue;
        for (uint32_t k = 0; k < s.twin_count && c->twin_count < ARRAY_COUNT(c->twins); k++) {
            c->twin_refs[c->twin_count].parent = refs.at[i].parent;
            c->twin_refs[c->twin_count].name = refs.at[i].name;
            c->twins[c->twin_count++] = s.twins[k];
        }
        if (s.contested)
            rc = call_settle(c, home, refs.at[i].parent, refs.at[i].name, slice_of(NULL, 0), NULL,
                             0);
    }
    return rc;
}

/* ---- setattr ---- */

static void i64_value(struct call *c, uint8_t class, struct oid oid, int64_t ns)
{
    struct buf b = {0};
    enc_u64(&b, (uint64_t)ns);
    posix_set(c, oid, class, slice_of(NULL, 0), true, buf_slice(&b));
    buf_deinit(&b);
}

void posix_mtime(struct call *c, struct oid dir)
{
    i64_value(c, REG_MTIME, dir, c->now_ns);
}

void posix_kill_setid(struct perm *p)
{
    if ((p->mode & S_IXGRP) != 0)
        p->mode &= (uint16_t)~S_ISGID;
    p->mode &= (uint16_t)~S_ISUID;
    p->caps = slice_of(NULL, 0);
}

bool posix_change_perm(struct call *c, struct oid oid, struct perm *p, const struct fs_set *s)
{
    struct buf acl = {0};
    bool owner = (s->set & (SET_UID | SET_GID)) != 0;
    if ((s->set & SET_UID) != 0)
        p->uid = s->uid;
    if ((s->set & SET_GID) != 0)
        p->gid = s->gid;
    if ((owner || (s->set & SET_KILL_SETID) != 0) && !oid_is_dir(oid))
        posix_kill_setid(p);
    if ((s->set & SET_MODE) != 0) {
        p->mode = s->mode & 07777;
        if (p->acl_access.len > 0) {
            acl_chmod(p->acl_access, p->mode, &acl);
            p->acl_access = call_keep(c, buf_slice(&acl));
        }
    }
    buf_deinit(&acl);
    return (s->set & (SET_MODE | SET_UID | SET_GID | SET_KILL_SETID)) != 0;
}

void posix_set_times(struct call *c, struct oid oid, const struct fs_set *s)
{
    if ((s->set & (SET_ATIME | SET_ATIME_NOW)) != 0)
        i64_value(c, REG_ATIME, oid, (s->set & SET_ATIME_NOW) != 0 ? c->now_ns : s->atime_ns);
    if ((s->set & (SET_MTIME | SET_MTIME_NOW)) != 0)
        i64_value(c, REG_MTIME, oid, (s->set & SET_MTIME_NOW) != 0 ? c->now_ns : s->mtime_ns);
}

/* Sizes that need no chunk: inline contents, and cutting to nothing. */
static int set_size(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct content content;
    struct dot version;
    int64_t mtime;
    if (oid_is_dir(r->oid))
        return ERR_IS_DIR;
    if (oid_kind(r->oid) != OID_FILE)
        return ERR_INVALID;
    if (r->size > LIMIT_FILE_BYTES)
        return ERR_FILE_TOO_BIG;
    int rc = content_get(c->n, r->oid, &content, &version, &mtime);
    if (rc != 0)
        return rc;
    if (r->size != 0 && (content.kind != CONTENT_INLINE || r->size > LIMIT_INLINE_BYTES))
        return ERR_NOT_SUPPORTED;
    struct content cut = {.kind = CONTENT_INLINE, .size = r->size};
    cut.bytes =
        r->size == 0
            ? slice_of(NULL, 0)
            : call_keep(c, slice_of(content.bytes.ptr, MIN(content.bytes.len, (size_t)r->size)));
    return posix_new_version(c, r->oid, &cut, c->now_ns, version);
}

int call_setattr(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid);
    bool orphan_only = false;
    struct fs_attr old;
    struct perm perm;
    struct dot seen;
    struct fs_set s = {.set = r->set,
                       .mode = r->mode,
                       .uid = r->uid,
                       .gid = r->gid,
                       .atime_ns = r->atime_ns,
                       .mtime_ns = r->mtime_ns};
    int rc = call_need_object(c, home, r->oid);
    if (rc == 0)
        rc = attr_get(c->n, r->oid, &old);
    if (rc != 0)
        return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
    rc = posix_touch(c, r->oid);
    if (rc == 0 && (r->set & SET_SIZE) != 0) {
        rc = set_size(c);
        orphan_only = old.nlink == 0;
    }
    if (rc == 0)
        rc = posix_perm(c, r->oid, &perm, &seen);
    if (rc != 0)
        return rc;
    if (posix_change_perm(c, r->oid, &perm, &s))
        posix_set_perm(c, r->oid, &perm, seen);
    posix_set_times(c, r->oid, &s);
    /* Nothing but the change time: the register says what it said. */
    if (c->b.count == 0 && !orphan_only && (r->set & SET_CTIME) != 0 && (r->set & SET_SIZE) == 0)
        posix_set_perm(c, r->oid, &perm, seen);
    if (c->b.count > 0)
        rc = call_propose(c, home, r->oid, NULL);
    if (rc == 0)
        node_hold_end(c, r->oid);
    return rc != 0 ? rc : call_reply_attr(c, r->oid);
}
