/* What all handlers share: requests to the site, entries and attributes for the kernel. */
#include <errno.h>
#include <string.h>

#include "client/fuse_ops.h"

#include "base/limits.h"
#include "base/log.h"

#define GROUPS_MAX 1024

static bool interrupted(void *arg)
{
    fuse_req_t req = arg;
    const struct mount *m = fuse_req_userdata(req);
    return fuse_req_interrupted(req) || fuse_session_exited(m->session);
}

struct mount *op_begin(fuse_req_t req)
{
    conn_thread_interrupt(interrupted, req);
    return fuse_req_userdata(req);
}

int op_errno(int rc)
{
    switch (rc) {
    case ERR_CLOSED: /* the mount is ending */
        return EIO;
    case ERR_WOULD_BLOCK:
        return EAGAIN;
    default:
        return err_errno(rc);
    }
}

void op_reply(fuse_req_t req, int rc)
{
    conn_thread_interrupt(NULL, NULL);
    (void)fuse_reply_err(req, op_errno(rc)); /* the caller may be gone */
}

struct inode *op_inode(fuse_req_t req, struct mount *m, fuse_ino_t id)
{
    struct inode *i = inode_table_get(m->inodes, id);
    if (i == NULL)
        op_reply(req, ERR_STALE);
    return i;
}

void op_unref(struct mount *m, struct inode *i)
{
    inode_unref(m->inodes, i);
}

int op_simple(struct mount *m, uint16_t type, struct oid oid)
{
    struct conn_call call;
    conn_call_init(&call, type);
    call.req.oid = oid;
    int rc = conn_call_run(m->conn, &call);
    conn_call_deinit(&call);
    return rc;
}

void op_caller(fuse_req_t req, struct fs_request *r)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    r->uid = ctx->uid;
    r->gid = ctx->gid;
    r->pid = (uint32_t)ctx->pid;
    r->umask = ctx->umask;
}

bool op_in_group(fuse_req_t req, gid_t gid)
{
    gid_t groups[GROUPS_MAX];
    if (fuse_req_ctx(req)->gid == gid)
        return true;
    int n = fuse_req_getgroups(req, GROUPS_MAX, groups);
    for (int i = 0; i < MIN(n, GROUPS_MAX); i++)
        if (groups[i] == gid)
            return true;
    return false;
}

struct slice op_name(const char *name)
{
    return slice_of(name, strlen(name));
}

int op_name_check(const char *name)
{
    return strlen(name) > LIMIT_NAME_BYTES ? ERR_NAME_TOO_LONG : 0;
}

static struct timespec time_of(int64_t ns)
{
    int64_t s = ns / (int64_t)NS_PER_SEC, rest = ns % (int64_t)NS_PER_SEC;
    if (rest < 0) {
        rest += (int64_t)NS_PER_SEC;
        s--;
    }
    return (struct timespec){.tv_sec = s, .tv_nsec = (long)rest};
}

static void stat_of(const struct inode *i, const struct fs_attr *a, struct stat *st)
{
    *st = (struct stat){.st_ino = i->id,
                        .st_mode = a->mode,
                        .st_nlink = a->nlink,
                        .st_uid = a->uid,
                        .st_gid = a->gid,
                        .st_rdev = a->rdev,
                        .st_size = (off_t)a->size,
                        .st_blocks = (blkcnt_t)a->blocks,
                        .st_atim = time_of(a->atime_ns),
                        .st_mtim = time_of(a->mtime_ns),
                        .st_ctim = time_of(a->ctime_ns)};
}

/* Names under a directory may be believed when neither the site nor we changed it meanwhile. */
static bool names_fresh(struct mount *m, const struct op_entry *how)
{
    if (how->parent == NULL)
        return true;
    return inode_clock_fresh(&m->clock, how->parent->oid, how->since);
}

struct inode *op_enter(struct mount *m,
                       const struct fs_attr *a,
                       const struct op_entry *how,
                       uint64_t lookups,
                       struct fuse_entry_param *ret)
{
    struct inode *i = inode_table_enter(m->inodes, a->oid, a->ino, lookups);
    struct fs_attr shown = *a;
    /* It may not have been known here when the site answered. */
    bool fresh = inode_clock_reply_fresh(&m->clock, a->oid, how->since);
    if (!fresh)
        inode_attr_drop(i, &m->clock);
    else if (how->changed)
        inode_attr_changed(i, &m->clock, a, how->since);
    else
        inode_attr_store(i, a, how->since);
    if (oid_is_dir(a->oid) && how->parent != NULL) {
        pthread_mutex_lock(&i->known->lock);
        i->parent_id = how->parent->id;
        pthread_mutex_unlock(&i->known->lock);
    }
    bool dirty = file_overlay(i, &shown);
    *ret = (struct fuse_entry_param){
        .ino = i->id,
        .attr_timeout = dirty || !fresh ? 0 : m->attr_timeout_s,
        .entry_timeout = fresh && names_fresh(m, how) ? m->entry_timeout_s : 0,
    };
    stat_of(i, &shown, &ret->attr);
    return i;
}

void op_reply_entry(fuse_req_t req, struct mount *m, const struct fs_attr *a, struct op_entry how)
{
    struct fuse_entry_param e;
    struct inode *i = op_enter(m, a, &how, 1, &e);
    conn_thread_interrupt(NULL, NULL);
    if (fuse_reply_entry(req, &e) != 0) /* the kernel did not take it */
        inode_table_forget(m->inodes, i->id, 1);
    op_unref(m, i);
}

int op_attr(struct mount *m, struct inode *i, struct fs_attr *ret)
{
    if (inode_attr_load(i, &m->clock, ret))
        return 0;
    uint64_t since = inode_clock_now(&m->clock);
    struct conn_call call;
    conn_call_init(&call, RPC_GETATTR);
    call.req.oid = i->oid;
    int rc = conn_call_run(m->conn, &call);
    if (rc == 0 && !call.reply.has_attr)
        rc = ERR_PEER;
    if (rc == 0) {
        *ret = call.reply.attr;
        inode_attr_store(i, ret, since);
    }
    conn_call_deinit(&call);
    return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
}

void op_reply_attr(fuse_req_t req, struct mount *m, struct inode *i, const struct fs_attr *a)
{
    struct fs_attr shown = *a, known;
    struct stat st;
    bool dirty = file_overlay(i, &shown);
    stat_of(i, &shown, &st);
    /* To be believed for long only what is still the last word. */
    bool last = !dirty && inode_attr_load(i, &m->clock, &known) && known.change == a->change &&
                known.ctime_ns == a->ctime_ns;
    conn_thread_interrupt(NULL, NULL);
    (void)fuse_reply_attr(req, &st, last ? m->attr_timeout_s : 0); /* the caller may be gone */
}
