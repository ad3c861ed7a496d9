/* Attributes of objects, from the views of the engine. */
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "site/call.h"
#include "site/shard_row.h"

static const uint32_t kind_mode[OID_KIND_COUNT] = {
    [OID_FILE] = S_IFREG,    [OID_DIR] = S_IFDIR,  [OID_SYMLINK] = S_IFLNK, [OID_FIFO] = S_IFIFO,
    [OID_SOCKET] = S_IFSOCK, [OID_CHAR] = S_IFCHR, [OID_BLOCK] = S_IFBLK};

bool orphan_get(struct node *n,
                struct oid oid,
                struct content *ret,
                struct dot *ret_version,
                int64_t *ret_mtime)
{
    uint8_t key[ROW_ORPHAN_KEY_BYTES];
    struct row_orphan r;
    struct slice got;
    row_orphan_key(oid, key);
    if (!state_get(shard_state(shard_of(n, oid)), slice_of(key, sizeof key), &got) ||
        !row_orphan_decode(got, &r))
        return false;
    ret_version->shard = oid_shard(oid);
    ret_version->site = UINT32_MAX; /* no site: it never leaves this one */
    ret_version->seq = r.version;
    *ret_mtime = r.mtime_ns;
    *ret = r.content;
    return true;
}

int content_get(struct node *n,
                struct oid oid,
                struct content *ret,
                struct dot *ret_version,
                int64_t *ret_mtime)
{
    struct file_view v;
    int rc = merge_file(merge_of(n, oid), oid, &v);
    /* A file that has got a name again (rule 3) shows what all sites show. */
    if ((rc != 0 || v.names == 0) && orphan_get(n, oid, ret, ret_version, ret_mtime))
        return 0;
    if (rc == 0 && v.names == 0)
        rc = merge_file(merge_of(n, oid), oid, &v); /* that look has moved what it borrows */
    if (rc != 0)
        return rc;
    *ret = v.content;
    *ret_version = v.version;
    *ret_mtime = v.mtime_ns;
    return 0;
}

static uint64_t content_blocks(const struct content *c)
{
    static const uint8_t hole[32];
    if (c->kind == CONTENT_INLINE)
        return (c->bytes.len + 511) / 512;
    if (memcmp(c->root, hole, sizeof hole) == 0)
        return 0;
    uint64_t whole = (c->size + 511) / 512;
    return c->data_blocks == 0 ? whole : MIN(whole, c->data_blocks * (c->block_bytes / 512));
}

static void attr_dir(const struct dir_view *v, struct fs_attr *a)
{
    a->mode = S_IFDIR | v->perm.mode;
    a->uid = v->perm.uid;
    a->gid = v->perm.gid;
    a->nlink = v->alive ? 2 + v->subdirs : 0;
    a->size = 4096;
    a->blocks = 8;
    a->atime_ns = v->atime_ns;
    a->mtime_ns = v->mtime_ns;
    a->ctime_ns = v->ctime_ns;
    a->btime_ns = v->btime_ns;
    a->has_acl = v->perm.acl_access.len > 0 || v->perm.acl_default.len > 0;
    a->change = (uint64_t)v->ctime_ns ^ v->entries << 40;
}

int attr_get(struct node *n, struct oid oid, struct fs_attr *ret)
{
    struct merge *m = merge_of(n, oid);
    memset(ret, 0, sizeof *ret);
    ret->oid = oid;
    ret->ino = oid_ino(oid);
    ret->has_xattr = true;
    if (oid_is_dir(oid)) {
        struct dir_view v;
        int rc = merge_dir(m, oid, &v);
        if (rc == 0)
            attr_dir(&v, ret);
        return rc;
    }
    struct file_view v;
    int rc = merge_file(m, oid, &v);
    if (rc != 0)
        return rc;
    ret->mode = kind_mode[oid_kind(oid)] | v.perm.mode;
    ret->uid = v.perm.uid;
    ret->gid = v.perm.gid;
    ret->nlink = v.names;
    ret->has_acl = v.perm.acl_access.len > 0;
    ret->atime_ns = v.atime_ns;
    ret->mtime_ns = v.mtime_ns;
    ret->ctime_ns = v.ctime_ns;
    ret->btime_ns = v.btime_ns;
    ret->version = v.version;
    struct content content = v.content;
    struct dot version;
    int64_t mtime;
    if (v.names == 0 && orphan_get(n, oid, &content, &version, &mtime)) {
        ret->version = version;
        ret->mtime_ns = ret->ctime_ns = mtime;
    }
    ret->size = content.size;
    ret->blocks = content_blocks(&content);
    if ((oid_kind(oid) == OID_CHAR || oid_kind(oid) == OID_BLOCK) && content.bytes.len == 8) {
        struct dec d = dec_of(content.bytes);
        ret->rdev = dec_u64(&d);
        ret->size = ret->blocks = 0;
    }
    ret->change = (uint64_t)ret->ctime_ns ^ ret->version.seq << 40;
    return 0;
}

int call_reply_attr(struct call *c, struct oid oid)
{
    int rc = call_await_holder(c, oid);
    if (rc == 0)
        rc = attr_get(c->n, oid, &c->reply.attr);
    if (rc != 0)
        return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
    c->reply.has_attr = true;
    call_show(c, oid, slice_of(NULL, 0));
    node_session_interest(c, oid);
    return 0;
}

/* A directory that `home` does not keep follows later: the mount has to ask. */
static bool reply_dir(struct call *c, const struct shard *home, struct oid dir, struct fs_attr *ret)
{
    if (!oid_is_dir(dir) || shard_of(c->n, dir) != home || attr_get(c->n, dir, ret) != 0)
        return false;
    call_show(c, dir, slice_of(NULL, 0));
    node_session_interest(c, dir);
    return true;
}

void call_reply_names(struct call *c, struct shard *home)
{
    struct fs_reply *r = &c->reply;
    struct oid *oids = op_alloc(&c->arena, c->b.count * sizeof *oids);
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->b.count; i++) {
        const struct effect *e = &c->b.effects[i];
        bool of_files = e->kind == EFFECT_ENTER || e->kind == EFFECT_LEAVE ||
                        e->kind == EFFECT_VERSION || e->kind == EFFECT_SET;
        if (!of_files) /* what directories become, other shards derive */
            return;
        if (count == 0 || !oid_equal(oids[count - 1], e->oid))
            oids[count++] = e->oid;
    }
    r->has_dir = reply_dir(c, home, c->req.oid, &r->dir);
    if (!oid_equal(c->req.oid, c->req.oid2))
        r->has_dir2 = reply_dir(c, home, c->req.oid2, &r->dir2);
    r->oids = oids;
    r->oid_count = count;
}
