/* Making, removing and moving names. While these wait for the site the kernel holds the directory's
 * lock, so each is counted in the flight tracker (C3). */
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>

#include "client/fuse_ops.h"

/* One change of names in a directory. */
struct change {
    fuse_req_t req;
    struct mount *m;
    struct inode *parent, *parent2; /* referenced; parent2: of renames and links */
    uint64_t since;
    struct conn_call call;
};

/* False: answered. */
static bool change_begin(struct change *c, fuse_req_t req, fuse_ino_t parent, uint16_t type)
{
    *c = (struct change){.req = req, .m = op_begin(req)};
    c->parent = op_inode(req, c->m, parent);
    if (c->parent == NULL)
        return false;
    flight_begin(&c->m->flight, c->parent->id);
    c->since = inode_clock_now(&c->m->clock);
    conn_call_init(&c->call, type);
    c->call.req.oid = c->parent->oid;
    op_caller(req, &c->call.req);
    return true;
}

/* What a change that succeeded says of a directory; without that its attributes are void. */
static void dir_changed(struct change *c, struct inode *dir, bool told, const struct fs_attr *a)
{
    if (told && oid_equal(a->oid, dir->oid))
        inode_attr_changed(dir, &c->m->clock, a, c->since);
    else
        inode_attr_drop(dir, &c->m->clock);
}

/* The objects whose names were taken: link counts and times. The kernel did not say which they are,
 * so if the site does not either all attributes are void. */
static void objects_changed(struct change *c)
{
    const struct fs_reply *r = &c->call.reply;
    for (uint32_t i = 0; i < r->oid_count; i++) {
        struct inode *o = inode_table_find(c->m->inodes, r->oids[i]);
        if (o != NULL)
            inode_attr_drop(o, &c->m->clock);
        op_unref(c->m, o);
    }
    if (r->oid_count == 0)
        inode_clock_hit_attrs(&c->m->clock);
}

static void change_end(struct change *c)
{
    conn_call_deinit(&c->call);
    flight_end(&c->m->flight, c->parent->id);
    if (c->parent2 != NULL && c->parent2 != c->parent)
        flight_end(&c->m->flight, c->parent2->id);
    op_unref(c->m, c->parent);
    op_unref(c->m, c->parent2);
}

/* What became of the first name of a call that succeeded. `moved`: the object it was of, none where
 * it is not known. */
static enum name_end name_left(const struct change *c, struct oid moved)
{
    const struct fs_reply *r = &c->call.reply;
    bool rename = c->call.type == RPC_RENAME;
    /* The object, and one that was replaced. Others changed with them where sites disagree: names
     * of those may have changed, too. */
    if (r->oid_count > (rename ? 2 : 1))
        return NAME_UNKNOWN;
    if (!rename)
        return NAME_GONE;
    if ((c->call.req.flags & ~(uint32_t)RENAME_NOREPLACE) != 0)
        return NAME_UNKNOWN;
    /* A rename of one name of a file to another of its names leaves both. */
    bool dir = !oid_is_none(moved) && oid_is_dir(moved);
    return r->oid_count > 0 || dir ? NAME_GONE : NAME_UNKNOWN;
}

/* What is known of the directories' names, after the answer. */
static void names_changed(struct change *c, int rc, bool takes, struct oid moved)
{
    const struct fs_request *q = &c->call.req;
    const struct fs_reply *r = &c->call.reply;
    enum name_end first = NAME_UNKNOWN, second = NAME_UNKNOWN;
    if (rc == 0 && takes) {
        first = name_left(c, moved);
        second = first == NAME_GONE && !oid_is_none(moved) ? NAME_MADE : NAME_UNKNOWN;
    } else if (rc == 0 && r->has_attr) {
        first = NAME_MADE;
        moved = r->attr.oid;
    }
    inode_name_end(c->m->inodes, c->parent, q->name, first, moved);
    if (c->parent2 != NULL)
        inode_name_end(c->m->inodes, c->parent2, q->name2, second, moved);
}

/* Runs the call; what is known of the directories' names and attributes follows. */
static int change_run(struct change *c, const char *name)
{
    const struct fs_request *q = &c->call.req;
    const struct fs_reply *r = &c->call.reply;
    struct inode_table *t = c->m->inodes;
    uint16_t type = c->call.type;
    int rc = op_name_check(name);
    if (rc != 0)
        return rc;
    c->call.req.name = op_name(name);
    bool takes = type == RPC_UNLINK || type == RPC_RMDIR || type == RPC_RENAME;
    struct oid moved = {0};
    if (type == RPC_RENAME)
        moved = inode_name_oid(c->parent, q->name);
    inode_name_begin(t, c->parent, q->name, !takes);
    if (c->parent2 != NULL)
        inode_name_begin(t, c->parent2, q->name2, true);
    rc = conn_call_run(c->m->conn, &c->call);
    dir_changed(c, c->parent, rc == 0 && (type == RPC_LINK ? r->has_dir2 : r->has_dir),
                type == RPC_LINK ? &r->dir2 : &r->dir);
    if (c->parent2 != NULL && c->parent2 != c->parent)
        dir_changed(c, c->parent2, rc == 0 && r->has_dir2, &r->dir2);
    if (takes)
        objects_changed(c);
    names_changed(c, rc, takes, moved);
    return rc;
}

/* The answer of what makes an object. */
static void change_reply_entry(struct change *c, int rc)
{
    if (rc == 0 && !c->call.reply.has_attr)
        rc = ERR_PEER;
    if (rc != 0) {
        op_reply(c->req, rc);
        return;
    }
    op_reply_entry(c->req, c->m, &c->call.reply.attr,
                   (struct op_entry){.parent = c->parent, .since = c->since, .changed = true});
}

static enum oid_kind kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
    case 0:
        return OID_FILE;
    case S_IFIFO:
        return OID_FIFO;
    case S_IFSOCK:
        return OID_SOCKET;
    case S_IFCHR:
        return OID_CHAR;
    case S_IFBLK:
        return OID_BLOCK;
    default:
        return OID_NONE;
    }
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct change c;
    if (!change_begin(&c, req, parent, RPC_CREATE))
        return;
    c.call.req.kind = (uint8_t)kind_of(mode);
    c.call.req.mode = mode & 07777;
    c.call.req.rdev = rdev;
    int rc = c.call.req.kind == OID_NONE ? ERR_INVALID : change_run(&c, name);
    change_reply_entry(&c, rc);
    change_end(&c);
}

/* The new directory, referenced, is known whole before anybody can make something in it. */
static struct inode *made_empty(struct change *c)
{
    const struct fs_attr *a = &c->call.reply.attr;
    struct inode *i = inode_table_enter(c->m->inodes, a->oid, a->ino, 0);
    inode_names_known(c->m->inodes, i, c->since, NULL, 0);
    return i;
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct change c;
    if (!change_begin(&c, req, parent, RPC_MKDIR))
        return;
    c.call.req.mode = mode & 07777;
    int rc = change_run(&c, name);
    struct inode *made = NULL;
    if (rc == 0 && c.call.reply.has_attr && (c.call.reply.flags & REPLY_NEW) != 0)
        made = made_empty(&c);
    change_reply_entry(&c, rc);
    op_unref(c.m, made);
    change_end(&c);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct change c;
    if (!change_begin(&c, req, parent, RPC_CREATE))
        return;
    c.call.req.kind = OID_SYMLINK;
    c.call.req.mode = 0777;
    c.call.req.data = op_name(target);
    change_reply_entry(&c, change_run(&c, name));
    change_end(&c);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, uint16_t type)
{
    struct change c;
    if (!change_begin(&c, req, parent, type))
        return;
    op_reply(req, change_run(&c, name));
    change_end(&c);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, RPC_UNLINK);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, RPC_RMDIR);
}

void op_rename(fuse_req_t req,
               fuse_ino_t parent,
               const char *name,
               fuse_ino_t new_parent,
               const char *new_name,
               unsigned flags)
{
    struct change c;
    if (!change_begin(&c, req, parent, RPC_RENAME))
        return;
    c.parent2 = op_inode(req, c.m, new_parent);
    if (c.parent2 != NULL) {
        if (c.parent2 != c.parent)
            flight_begin(&c.m->flight, c.parent2->id);
        c.call.req.oid2 = c.parent2->oid;
        c.call.req.name2 = op_name(new_name);
        c.call.req.flags = flags;
        int rc = op_name_check(new_name);
        op_reply(req, rc != 0 ? rc : change_run(&c, name));
    }
    change_end(&c);
}

void op_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t new_parent, const char *new_name)
{
    struct change c;
    if (!change_begin(&c, req, new_parent, RPC_LINK))
        return;
    struct inode *i = op_inode(req, c.m, id);
    if (i != NULL) {
        c.call.req.oid = i->oid;
        c.call.req.oid2 = c.parent->oid;
        change_reply_entry(&c, change_run(&c, new_name));
        op_unref(c.m, i);
    }
    change_end(&c);
}

/* ---- create ---- */

/* What of the kernel's check at open(2) can be said here: may this caller open a file of these
 * rights? False also when only the kernel can tell. */
static bool may_open(fuse_req_t req, const struct fs_attr *a, int flags)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    unsigned mode = flags & O_ACCMODE;
    unsigned need = mode == O_RDONLY ? 4u : mode == O_WRONLY ? 2u : 6u;
    if (ctx->uid == 0)
        return true;
    if (a->has_acl)
        return false;
    if (ctx->uid == a->uid)
        return (a->mode >> 6 & need) == need;
    return (op_in_group(req, a->gid) ? a->mode >> 3 & need : a->mode & need) == need;
}

/* The file was there already: somebody of another mount was faster. The kernel takes the answer for
 * a new file, so rights and truncation are ours to see to. */
static int open_existing(struct change *c, struct fuse_file_info *fi, struct open_file *h)
{
    int rc = 0;
    struct fs_attr a = c->call.reply.attr;
    (void)file_overlay(h->inode, &a); /* rights of ours that the site was not told of yet */
    if (!may_open(c->req, &a, fi->flags))
        return ERR_STALE; /* the kernel looks the name up again, and decides */
    if ((fi->flags & O_TRUNC) != 0)
        rc = op_kill_priv(c->m, h->inode, fuse_req_ctx(c->req)->uid != 0);
    if (rc == 0 && (fi->flags & O_TRUNC) != 0)
        rc = file_truncate(c->m->io, h->inode, 0, 0);
    return rc;
}

static void reply_create(struct change *c, struct fuse_file_info *fi, bool existed)
{
    struct fuse_entry_param e;
    struct op_entry how = {.parent = c->parent, .since = c->since, .changed = !existed};
    struct inode *i = op_enter(c->m, &c->call.reply.attr, &how, 1, &e);
    struct open_file *h = file_created(c->m->io, i, fi->flags, &c->call.reply, c->since);
    int rc = existed ? open_existing(c, fi, h) : 0;
    if (!existed) {
        pthread_mutex_lock(&i->known->lock);
        i->known->no_caps_time = c->since; /* a new file has none */
        pthread_mutex_unlock(&i->known->lock);
        file_keep_begin(c->m->io, i, c->since);
    }
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->keep_cache = !existed;
    conn_thread_interrupt(NULL, NULL);
    if (rc != 0 || fuse_reply_create(c->req, &e, fi) != 0) { /* or the kernel did not take it */
        file_close(c->m->io, h);
        inode_table_forget(c->m->inodes, i->id, 1);
    }
    if (rc != 0)
        op_reply(c->req, rc);
    op_unref(c->m, i);
}

void op_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct change c;
    if (!change_begin(&c, req, parent, RPC_CREATE))
        return;
    c.call.req.kind = OID_FILE;
    c.call.req.mode = mode & 07777;
    /* Exclusively first: what is there already needs more care than what is new. */
    c.call.req.flags = (uint32_t)(O_CREAT | O_EXCL) | ((uint32_t)fi->flags & ~CREATE_HOLDS);
    if (conn_holds(c.m->conn))
        c.call.req.flags |= CREATE_HOLDS;
    int rc = change_run(&c, name);
    bool existed = rc == ERR_EXISTS && (fi->flags & O_EXCL) == 0;
    if (existed) {
        c.call.req.flags &= ~(uint32_t)O_EXCL;
        rc = change_run(&c, name);
        rc = rc == ERR_EXISTS ? ERR_STALE : rc; /* not a file: for the kernel to see */
    }
    if (rc == 0 && !c.call.reply.has_attr)
        rc = ERR_PEER;
    if (rc == 0)
        reply_create(&c, fi, existed);
    else
        op_reply(req, rc);
    change_end(&c);
}
