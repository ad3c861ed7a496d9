/* Lookup, attributes, symlink targets, space. */
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "client/fuse_ops.h"

#include "base/limits.h"

/* A file handle (NFS, open_by_handle_at) for an object the kernel has forgotten. */
static int resolve(struct mount *m, fuse_ino_t id, struct conn_call *call)
{
    conn_call_init(call, RPC_RESOLVE_INO);
    call->req.size = id;
    return conn_call_run(m->conn, call);
}

static int
lookup(struct mount *m, const struct inode *parent, const char *name, struct conn_call *call)
{
    conn_call_init(call, RPC_LOOKUP);
    call->req.oid = parent->oid;
    call->req.name = op_name(name);
    int rc = op_name_check(name);
    return rc != 0 ? rc : conn_call_run(m->conn, call);
}

/* There is nothing, and the kernel may remember that while nobody but us changes the directory. */
static void reply_nothing(fuse_req_t req, struct mount *m, const struct op_entry *how)
{
    struct fuse_entry_param e = {0};
    if (inode_clock_fresh(&m->clock, how->parent->oid, how->since))
        e.entry_timeout = m->entry_timeout_s;
    conn_thread_interrupt(NULL, NULL);
    (void)fuse_reply_entry(req, &e); /* the caller may be gone */
}

void op_lookup(fuse_req_t req, fuse_ino_t parent_id, const char *name)
{
    struct mount *m = op_begin(req);
    struct inode *parent = inode_table_get(m->inodes, parent_id);
    struct conn_call call;
    struct op_entry how = {.parent = parent, .since = inode_clock_now(&m->clock)};
    bool dot = name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
    int rc;
    if (!dot && parent != NULL && inode_name_lacks(m->inodes, parent, &m->clock, op_name(name)) &&
        op_name_check(name) == 0) {
        reply_nothing(req, m, &how);
        op_unref(m, parent);
        return;
    }
    if (dot)
        how.parent = NULL;
    if (parent == NULL)
        rc = resolve(m, parent_id, &call);
    else
        rc = lookup(m, parent, name, &call);
    if (rc == 0 && parent == NULL && name[0] == '.' && name[1] == '.') {
        struct conn_call up;
        struct inode child = {.oid = call.reply.attr.oid};
        rc = lookup(m, &child, name, &up);
        conn_call_deinit(&call);
        call = up;
    }
    if (rc == 0 && !call.reply.has_attr)
        rc = ERR_PEER;
    /* Only for a handle: the kernel has nobody left who has it open, and the site may know of a
     * close of ours a little later. */
    if (rc == 0 && dot && call.reply.attr.nlink == 0)
        rc = ERR_STALE;
    if (rc == 0) {
        op_reply_entry(req, m, &call.reply.attr, how);
    } else if (rc == ERR_NOT_FOUND && !dot) {
        reply_nothing(req, m, &how);
    } else {
        op_reply(req, rc == ERR_NOT_FOUND ? ERR_STALE : rc);
    }
    conn_call_deinit(&call);
    op_unref(m, parent);
}

void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t lookups)
{
    struct mount *m = fuse_req_userdata(req);
    if (id != INODE_ROOT_ID)
        inode_table_forget(m->inodes, id, lookups);
    fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct mount *m = fuse_req_userdata(req);
    for (size_t i = 0; i < count; i++)
        if (forgets[i].ino != INODE_ROOT_ID)
            inode_table_forget(m->inodes, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct fs_attr a;
    (void)fi;
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    int rc = op_attr(m, i, &a);
    if (rc == 0)
        op_reply_attr(req, m, i, &a);
    else
        op_reply(req, rc);
    op_unref(m, i);
}

/* ---- setattr ---- */

static int64_t ns_of(const struct timespec *t)
{
    return (int64_t)t->tv_sec * (int64_t)NS_PER_SEC + t->tv_nsec;
}

static void set_times(struct fs_request *r, const struct stat *st, int to_set)
{
    if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) {
        r->set |= SET_ATIME_NOW;
    } else if ((to_set & FUSE_SET_ATTR_ATIME) != 0) {
        r->set |= SET_ATIME;
        r->atime_ns = ns_of(&st->st_atim);
    }
    if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) {
        r->set |= SET_MTIME_NOW;
    } else if ((to_set & FUSE_SET_ATTR_MTIME) != 0) {
        r->set |= SET_MTIME;
        r->mtime_ns = ns_of(&st->st_mtim);
    }
}

static void set_rights(struct fs_request *r, const struct stat *st, int to_set)
{
    if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
        r->set |= SET_MODE;
        r->mode = st->st_mode & 07777;
    }
    if ((to_set & FUSE_SET_ATTR_UID) != 0) {
        r->set |= SET_UID;
        r->uid = st->st_uid;
    }
    if ((to_set & FUSE_SET_ATTR_GID) != 0) {
        r->set |= SET_GID;
        r->gid = st->st_gid;
    }
    if (session_kill_priv() && (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
        r->set |= SET_KILL_SETID;
}

/* With the commit of the new file, if this is one that may. */
static bool set_with_commit(struct mount *m, struct inode *i, const struct stat *st, int to_set)
{
    struct fs_request r = {0};
    struct fs_attr a;
    int64_t now_ns = (int64_t)clock_wall_ns(&clock_os);
    set_rights(&r, st, to_set);
    set_times(&r, st, to_set);
    struct fs_set s = {.set = r.set & SET_KEPT,
                       .mode = r.mode,
                       .uid = r.uid,
                       .gid = r.gid,
                       .atime_ns = r.atime_ns,
                       .mtime_ns = r.mtime_ns};
    if ((r.set & SET_ATIME_NOW) != 0) {
        s.set |= SET_ATIME;
        s.atime_ns = now_ns;
    }
    if ((r.set & SET_MTIME_NOW) != 0) {
        s.set |= SET_MTIME;
        s.mtime_ns = now_ns;
    }
    return file_may_keep(i) && op_attr(m, i, &a) == 0 && file_keep(i, &a, &s);
}

/* All but the size, at the site. */
static int
set_at_site(struct mount *m, fuse_req_t req, struct inode *i, const struct stat *st, int to_set)
{
    uint64_t since = inode_clock_now(&m->clock);
    struct conn_call call;
    conn_call_init(&call, RPC_SETATTR);
    op_caller(req, &call.req);
    call.req.uid = call.req.gid = 0;
    call.req.oid = i->oid;
    set_rights(&call.req, st, to_set);
    set_times(&call.req, st, to_set);
    if (call.req.set == 0 && (to_set & FUSE_SET_ATTR_CTIME) != 0)
        call.req.set = SET_CTIME;
    int rc = 0;
    if (call.req.set != 0) {
        rc = conn_call_run(m->conn, &call);
        if (rc == 0 && call.reply.has_attr)
            inode_attr_changed(i, &m->clock, &call.reply.attr, since);
    }
    conn_call_deinit(&call);
    return rc;
}

static int
set_size(struct mount *m, struct inode *i, const struct stat *st, const struct fuse_file_info *fi)
{
    unsigned flags = session_kill_priv() ? FILE_WRITE_KILL : 0;
    int rc = op_kill_priv(m, i, session_kill_priv());
    if (rc == 0)
        rc = file_truncate(m->io, i, (uint64_t)st->st_size, flags);
    /* Through a handle it is committed like a write; by path it holds when the call returns. */
    if (rc == 0 && fi == NULL)
        rc = file_flush(m->io, i);
    return rc;
}

void op_setattr(
    fuse_req_t req, fuse_ino_t id, struct stat *st, int to_set, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct fs_attr a;
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    int rc = 0;
    bool size = (to_set & FUSE_SET_ATTR_SIZE) != 0;
    int rest = to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID |
                         FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW |
                         FUSE_SET_ATTR_MTIME_NOW | (size ? 0 : FUSE_SET_ATTR_CTIME));
    if (size)
        rc = set_size(m, i, st, fi);
    /* Rights and times are for the content as it is now: what is dirty goes first. */
    if (rc == 0 && rest != 0 && (size || !set_with_commit(m, i, st, rest))) {
        (void)file_keep_end(i); /* what is kept goes with the flush */
        rc = file_flush(m->io, i);
        if (rc == 0)
            rc = set_at_site(m, req, i, st, rest);
    }
    if (rc == 0)
        rc = op_attr(m, i, &a);
    if (rc == 0)
        op_reply_attr(req, m, i, &a);
    else
        op_reply(req, rc == ERR_NOT_FOUND ? ERR_STALE : rc);
    op_unref(m, i);
}

/* ---- the rest ---- */

void op_readlink(fuse_req_t req, fuse_ino_t id)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct conn_call call;
    conn_call_init(&call, RPC_READLINK);
    call.req.oid = i->oid;
    int rc = conn_call_run(m->conn, &call);
    if (rc == 0 && call.reply.data.len > LIMIT_SYMLINK_BYTES)
        rc = ERR_PEER;
    if (rc == 0) {
        char target[LIMIT_SYMLINK_BYTES + 1];
        memcpy(target, call.reply.data.ptr, call.reply.data.len);
        target[call.reply.data.len] = '\0';
        conn_thread_interrupt(NULL, NULL);
        (void)fuse_reply_readlink(req, target); /* the caller may be gone */
    } else {
        op_reply(req, rc);
    }
    conn_call_deinit(&call);
    op_unref(m, i);
}

void op_statfs(fuse_req_t req, fuse_ino_t id)
{
    struct mount *m = op_begin(req);
    struct conn_call call;
    (void)id;
    conn_call_init(&call, RPC_STATFS);
    int rc = conn_call_run(m->conn, &call);
    if (rc == 0 && !call.reply.has_statfs)
        rc = ERR_PEER;
    if (rc == 0) {
        const struct fs_statfs *s = &call.reply.statfs;
        struct statvfs v = {.f_bsize = s->block_bytes,
                            .f_frsize = s->block_bytes,
                            .f_blocks = s->blocks,
                            .f_bfree = s->blocks_free,
                            .f_bavail = s->blocks_available,
                            .f_files = s->files,
                            .f_ffree = s->files_free,
                            .f_favail = s->files_free,
                            .f_namemax = LIMIT_NAME_BYTES};
        conn_thread_interrupt(NULL, NULL);
        (void)fuse_reply_statfs(req, &v); /* the caller may be gone */
    } else {
        op_reply(req, rc);
    }
    conn_call_deinit(&call);
}
