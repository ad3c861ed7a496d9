/* Names: lookup, create, mkdir, link, unlink, rmdir, readdir. Each operation is journaled in the
 * shard of the directory whose names it changes; see shard.h for how the other shards follow. */
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/plant.h"
#include "site/call.h"
#include "site/node_int.h"
#include "site/posix_int.h"

static bool is_dot(struct slice n)
{
    return n.len == 1 && n.ptr[0] == '.';
}
static bool is_dotdot(struct slice n)
{
    return n.len == 2 && n.ptr[0] == '.' && n.ptr[1] == '.';
}

static int check_name(struct slice name)
{
    if (name.len > LIMIT_NAME_BYTES)
        return ERR_NAME_TOO_LONG;
    return name_valid(name) ? 0 : ERR_INVALID;
}

int call_dir_alive(struct call *c, struct oid dir, struct dir_view *ret)
{
    if (!oid_is_dir(dir))
        return ERR_NOT_DIR;
    call_saw(c, dir, slice_of(NULL, 0));
    int rc = merge_dir(merge_of(c->n, dir), dir, ret);
    if (rc == ERR_NOT_FOUND)
        return ERR_STALE;
    return rc != 0 ? rc : ret->alive ? 0 : ERR_NOT_FOUND;
}

int call_find(
    struct call *c, struct shard *home, struct oid parent, struct slice name, struct shown *ret)
{
    int rc = check_name(name);
    if (rc == 0 && !PLANTED(37))
        rc = call_need_name(c, home, parent, name);
    if (rc != 0)
        return rc;
    rc = merge_lookup(merge_of(c->n, parent), parent, name, ret);
    if (rc != 0)
        return rc;
    ret->stored = call_keep(c, ret->stored);
    return call_need_name(c, home, parent, ret->stored);
}

int call_whole(struct call *c, struct oid parent, struct oid oid)
{
    struct dir_view v;
    if (!oid_is_dir(oid) || PLANTED(36))
        return 0;
    int rc = merge_dir(merge_of(c->n, oid), oid, &v);
    if (rc == ERR_NOT_FOUND || (rc == 0 && !v.alive))
        return call_await_word(c, shard_of(c->n, oid), shard_of(c->n, parent));
    return rc;
}

int call_lookup(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct dir_view dir;
    struct shown s;
    if (is_dot(r->name))
        return call_reply_attr(c, r->oid);
    int rc = call_dir_alive(c, r->oid, &dir);
    if (rc != 0)
        return rc;
    node_session_interest(c, r->oid);
    if (is_dotdot(r->name))
        return call_reply_attr(c, dir.parent);
    rc = check_name(r->name);
    if (rc != 0)
        return rc;
    call_show(c, r->oid, r->name);
    rc = merge_lookup(merge_of(c->n, r->oid), r->oid, r->name, &s);
    if (rc == 0)
        rc = call_whole(c, r->oid, s.oid);
    return rc != 0 ? rc : call_reply_attr(c, s.oid);
}

/* ---- making ---- */

void posix_perm_effect(struct call *c, struct oid oid, const struct perm *p)
{
    struct buf value = {0};
    uint8_t key = REG_PERM;
    perm_encode(p, &value);
    struct effect *e = op_builder_add(&c->b, EFFECT_SET, oid);
    e->set.key = op_dup(&c->b.arena, slice_of(&key, 1));
    e->set.value = op_dup(&c->b.arena, buf_slice(&value));
    e->set.present = true;
    buf_deinit(&value);
}

/* Owner, group, mode and ACLs of a new object (POSIX: set-group-ID directories hand on their group;
 * a default ACL takes the place of the umask). */
static void new_perm(struct call *c, const struct dir_view *dir, bool is_dir, struct perm *ret)
{
    const struct fs_request *r = &c->req;
    struct slice dflt = call_keep(c, dir->perm.acl_default);
    *ret = (struct perm){.uid = r->uid, .gid = r->gid, .mode = r->mode & 07777};
    if ((dir->perm.mode & S_ISGID) != 0) {
        ret->gid = dir->perm.gid;
        if (is_dir)
            ret->mode |= S_ISGID;
    }
    if (dflt.len == 0) {
        ret->mode &= (uint16_t) ~(r->umask & 0777u);
        return;
    }
    struct buf acl = {0};
    acl_inherit(dflt, &ret->mode, &acl);
    ret->acl_access = call_keep(c, buf_slice(&acl));
    buf_deinit(&acl);
    if (is_dir)
        ret->acl_default = dflt;
}

static int open_existing(struct call *c, const struct shown *s)
{
    if (c->req.kind != OID_FILE || (c->req.flags & O_EXCL) != 0 || oid_kind(s->oid) != OID_FILE ||
        (c->req.flags & O_CREAT) == 0)
        return ERR_EXISTS;
    int rc = call_reply_attr(c, s->oid);
    if (rc == 0) {
        node_session_open(c, s->oid);
        rc = call_content(c);
    }
    return rc;
}

/* A client that makes again what a node that is gone had answered ahead of the disk says which oid
 * it was given. */
static int new_oid(struct call *c, struct shard *home, struct oid *ret)
{
    struct oid asked = c->req.oid2;
    struct file_view known;
    *ret = oid_is_none(asked) ? shard_new_oid(home, (enum oid_kind)c->req.kind) : asked;
    if (oid_is_none(asked))
        return 0;
    if (oid_kind(asked) != c->req.kind || !shard_gave_oid(home, asked))
        return ERR_INVALID;
    int rc = merge_file(merge_of(c->n, asked), asked, &known);
    return rc == 0 ? ERR_EXISTS : rc == ERR_NOT_FOUND ? 0 : rc;
}

int call_create(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid);
    struct dir_view dir;
    struct shown s;
    struct perm perm;
    if (r->kind == OID_NONE || r->kind == OID_DIR || r->kind >= OID_KIND_COUNT)
        return ERR_INVALID;
    int rc = call_need_object(c, home, r->oid);
    if (rc == 0)
        rc = call_dir_alive(c, r->oid, &dir);
    if (rc != 0)
        return rc;
    new_perm(c, &dir, false, &perm);
    if (r->kind == OID_SYMLINK) {
        perm.mode = 0777;
        perm.acl_access = slice_of(NULL, 0);
        if (r->data.len == 0)
            return ERR_NOT_FOUND;
        if (r->data.len > LIMIT_SYMLINK_BYTES)
            return ERR_NAME_TOO_LONG;
    }
    rc = call_find(c, home, r->oid, r->name, &s);
    if (rc == 0)
        return open_existing(c, &s);
    if (rc != ERR_NOT_FOUND)
        return rc;
    struct oid oid;
    rc = new_oid(c, home, &oid);
    if (rc != 0)
        return rc;
    struct effect *e = op_builder_add(&c->b, EFFECT_VERSION, oid);
    e->content.kind = CONTENT_INLINE;
    e->mtime_ns = c->now_ns;
    if (r->kind == OID_SYMLINK)
        e->content.bytes = r->data;
    if (r->kind == OID_CHAR || r->kind == OID_BLOCK) {
        struct buf b = {0};
        enc_u64(&b, r->rdev);
        e->content.bytes = op_dup(&c->b.arena, buf_slice(&b));
        buf_deinit(&b);
    }
    e->content.size = e->content.bytes.len;
    posix_perm_effect(c, oid, &perm);
    e = op_builder_add(&c->b, EFFECT_ENTER, oid);
    e->parent = r->oid;
    e->name = r->name;
    rc = call_propose(c, home, oid, NULL);
    if (rc != 0)
        return rc;
    c->req.ahead = c->req.ahead && shard_may_make_ahead(home);
    if (r->kind == OID_FILE && (r->flags & O_CREAT) != 0) {
        node_session_open(c, oid);
        if ((r->flags & CREATE_HOLDS) != 0)
            node_hold(c, oid);
        c->reply.has_content = true;
        c->reply.content.kind = CONTENT_INLINE;
    }
    call_reply_names(c, home);
    return call_reply_attr(c, oid);
}

static void
mkdir_attr(struct call *c, const struct birth *b, const struct perm *p, const struct op *op)
{
    struct fs_attr *a = &c->reply.attr;
    memset(a, 0, sizeof *a);
    a->oid = b->oid;
    a->ino = oid_ino(b->oid);
    a->mode = S_IFDIR | p->mode;
    a->uid = p->uid;
    a->gid = p->gid;
    a->nlink = 2;
    a->size = 4096;
    a->blocks = 8;
    a->atime_ns = a->mtime_ns = a->ctime_ns = a->btime_ns = op->time_ns;
    a->has_acl = p->acl_access.len > 0 || p->acl_default.len > 0;
    a->has_xattr = true;
    c->reply.has_attr = true;
    node_session_interest(c, b->oid);
}

int call_mkdir(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid);
    struct dir_view dir;
    struct shown s;
    struct perm perm;
    struct op op;
    int rc = call_need_object(c, home, r->oid);
    if (rc == 0)
        rc = call_dir_alive(c, r->oid, &dir);
    if (rc != 0)
        return rc;
    new_perm(c, &dir, true, &perm);
    rc = call_find(c, home, r->oid, r->name, &s);
    if (rc != ERR_NOT_FOUND)
        return rc == 0 ? ERR_EXISTS : rc;
    struct birth birth = {.parent = r->oid,
                          .name = r->name,
                          .gen = build_next_gen(shard_merge(home), r->oid, r->name),
                          .uid = perm.uid,
                          .gid = perm.gid,
                          .mode = perm.mode};
    birth.oid = birth_oid(&birth, node_oid_key(c->n), node_settings(c->n)->shard_count);
    if (PLANTED(46))
        birth.oid.b[15] ^= (uint8_t)node_site(c->n);
    /* A peer may have made the same one, with something in it, whose name is still on its way. */
    bool is_new = merge_dir(merge_of(c->n, birth.oid), birth.oid, &dir) == ERR_NOT_FOUND;
    struct effect *e = op_builder_add(&c->b, EFFECT_BIRTH, birth.oid);
    e->birth = birth;
    posix_perm_effect(c, birth.oid, &perm);
    /* Until the other shard knows the directory, and the index the other shard's word, the name is
     * in between: latch it. */
    rc = call_propose(c, home, birth.oid, &op);
    if (rc == 0)
        mkdir_attr(c, &birth, &perm, &op);
    if (rc == 0 && is_new)
        c->reply.flags |= REPLY_NEW;
    return rc;
}

int call_link(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid2);
    struct dir_view dir;
    struct file_view f;
    struct shown s;
    if (oid_is_dir(r->oid))
        return ERR_NOT_PERMITTED;
    int rc = call_need_object(c, home, r->oid2);
    if (rc == 0)
        rc = call_need_object(c, home, r->oid);
    if (rc == 0)
        rc = call_dir_alive(c, r->oid2, &dir);
    if (rc != 0) /* also when the directory, not the name, is not found */
        return rc;
    rc = call_find(c, home, r->oid2, r->name, &s);
    if (rc != ERR_NOT_FOUND)
        return rc == 0 ? ERR_EXISTS : rc;
    rc = merge_file(merge_of(c->n, r->oid), r->oid, &f);
    if (rc != 0)
        return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
    if (f.names == 0)
        return ERR_NOT_FOUND;
    if (f.names >= LIMIT_LINKS)
        return ERR_TOO_MANY_LINKS;
    struct effect *e = op_builder_add(&c->b, EFFECT_ENTER, r->oid);
    e->parent = r->oid2;
    e->name = r->name;
    rc = call_propose(c, home, r->oid, NULL);
    if (rc == 0)
        call_reply_names(c, home);
    c->attr_oid = r->oid; /* its link count is right once its own shard has the new name */
    return rc;
}

/* ---- taking away ---- */

int call_leave(
    struct call *c, struct shard *home, struct oid parent, const struct shown *s, bool lives_on)
{
    struct merge *m = merge_of(c->n, parent);
    for (uint32_t i = 0; i <= s->twin_count; i++) {
        struct oid oid = i == 0 ? s->oid : s->twins[i - 1];
        struct file_view f;
        struct dot seen = {0};
        int rc = call_need_object(c, home, oid);
        if (rc == 0)
            rc = merge_file(merge_of(c->n, oid), oid, &f);
        if (rc == ERR_NOT_FOUND)
            return call_await_word(c, shard_of(c->n, oid), NULL); /* its name is here already */
        if (rc != 0)
            return rc;
        if (f.names == 1 && !(lives_on && i == 0))
            seen = f.version;
        build_leave(m, &c->b, parent, s->stored, oid, seen);
        if (f.names > 1 && !(lives_on && i == 0))
            (void)merge_ref_stays(merge_of(c->n, oid), oid, parent, s->stored,
                                  &c->b.effects[c->b.count - 1].stays);
    }
    return 0;
}

int call_settle(struct call *c,
                struct shard *home,
                struct oid parent,
                struct slice stored,
                struct slice leaving,
                const struct oid *skip,
                uint32_t skip_count)
{
    struct settle_dirs dirs = {0};
    build_settle(merge_of(c->n, parent), &c->b, parent, stored, leaving, &dirs);
    for (uint32_t i = 0; i < dirs.count; i++) {
        bool drop = false;
        for (uint32_t k = 0; k < skip_count; k++)
            drop = drop || oid_equal(dirs.at[i].oid, skip[k]);
        if (drop)
            continue;
        if (shard_id(home) != 0)
            return node_settle_dir(c, parent, dirs.at[i].oid, dirs.at[i].name);
        struct effect *e = op_builder_add(&c->b, EFFECT_MOVE, dirs.at[i].oid);
        e->parent = parent;
        e->name = dirs.at[i].name;
        build_saw(shard_merge(home), &c->b, e);
        int rc = call_lineage(c, &c->b, e->oid, parent, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int call_unlink(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid);
    struct dir_view dir;
    struct shown s;
    int rc = call_dir_alive(c, r->oid, &dir);
    if (rc == 0)
        rc = call_find(c, home, r->oid, r->name, &s);
    if (rc != 0)
        return rc;
    if (oid_is_dir(s.oid))
        return ERR_IS_DIR;
    rc = call_leave(c, home, r->oid, &s, false);
    if (rc == 0)
        rc = call_settle(c, home, r->oid, s.stored, r->name, NULL, 0);
    if (rc == 0)
        rc = call_propose(c, home, s.oid, NULL);
    if (rc == 0)
        call_reply_names(c, home);
    return rc;
}

int call_rmdir(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid), *own;
    struct dir_view dir;
    struct shown s;
    if (is_dot(r->name))
        return ERR_INVALID;
    if (is_dotdot(r->name))
        return ERR_NOT_EMPTY;
    int rc = call_dir_alive(c, r->oid, &dir);
    if (rc == 0)
        rc = call_find(c, home, r->oid, r->name, &s);
    if (rc != 0)
        return rc;
    if (!oid_is_dir(s.oid))
        return ERR_NOT_DIR;
    own = shard_of(c->n, s.oid);
    rc = call_need_object(c, home, s.oid);
    if (rc == 0)
        rc = call_whole(c, r->oid, s.oid);
    if (rc != 0)
        return rc;
    if (!merge_dir_empty(shard_merge(own), s.oid))
        return ERR_NOT_EMPTY;
    struct effect *e = op_builder_add(&c->b, EFFECT_BURY, s.oid);
    e->dots = build_life_dots(shard_merge(own), &c->b, s.oid, &e->dot_count);
    posix_mtime(c, r->oid);
    rc = call_settle(c, home, r->oid, s.stored, r->name, NULL, 0);
    if (rc != 0)
        return rc;
    /* The index entry goes when the directory's own shard says so: until then the name is latched.
     */
    bool elsewhere = own != home;
    uint64_t key = touch_key(r->oid, r->name), key2 = touch_key(r->oid, s.stored);
    rc = call_propose(c, home, s.oid, NULL);
    if (rc == 0 && elsewhere) {
        if (!shard_latched(home, key))
            call_latch(c, home, key);
        if (key2 != key && !shard_latched(home, key2))
            call_latch(c, home, key2);
    }
    return rc;
}

/* ---- reading directories ---- */

struct listing {
    struct call *c;
    struct fs_entry *entries;
    uint32_t count, max;
    bool more;
};

static bool list_entry(void *ctx, struct slice visible, const struct shown *s)
{
    struct listing *l = ctx;
    if (l->count == l->max) {
        l->more = true;
        return false;
    }
    struct fs_entry *e = &l->entries[l->count++];
    e->name = call_keep(l->c, visible);
    e->attr.oid = s->oid;
    return true;
}

int call_readdir(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct dir_view dir;
    int rc = call_dir_alive(c, r->oid, &dir);
    if (rc == ERR_NOT_FOUND) { /* removed while open: empty */
        call_show(c, r->oid, slice_of(NULL, 0));
        return 0;
    }
    if (rc != 0)
        return rc;
    struct listing l = {.c = c, .max = MIN(MAX(r->count, 1u), 4096u)};
    l.entries = op_alloc(&c->arena, l.max * sizeof *l.entries);
    node_session_interest(c, r->oid);
    call_show(c, r->oid, slice_of(NULL, 0));
    rc = merge_list(merge_of(c->n, r->oid), r->oid, r->name, list_entry, &l);
    if (rc != 0)
        return rc;
    for (uint32_t i = 0; i < l.count; i++) {
        struct fs_entry *e = &l.entries[i];
        struct oid oid = e->attr.oid;
        /* Of a file that another mount holds only the name: who wants to know more asks for it. */
        e->has_attr = !node_held_elsewhere(c, oid) && attr_get(c->n, oid, &e->attr) == 0;
        if (e->has_attr) {
            call_show(c, oid, slice_of(NULL, 0));
            node_session_interest(c, oid);
        } else {
            e->attr = (struct fs_attr){.oid = oid, .ino = oid_ino(oid)};
        }
    }
    c->reply.entries = l.entries;
    c->reply.entry_count = l.count;
    c->reply.more = l.more;
    return 0;
}
