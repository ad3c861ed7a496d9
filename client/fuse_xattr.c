/* Extended attributes and ACLs: the site keeps and checks them. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "client/fuse_ops.h"

#include "base/limits.h"

#define NAME_CAPS "security.capability"
#define NAME_ACL "system.posix_acl_access"
#define NAME_ACL_DEFAULT "system.posix_acl_default"

static int name_check(const char *name)
{
    return strlen(name) > LIMIT_XATTR_NAME_BYTES ? ERR_OUT_OF_RANGE : 0;
}

/* Somebody who is neither privileged nor in the file's group sets an ACL: the set-group-id bit
 * goes, as with chmod. */
static bool must_drop_setgid(fuse_req_t req, const struct fs_attr *a)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    return (a->mode & S_ISGID) != 0 && !S_ISDIR(a->mode) && ctx->uid != 0 &&
           !op_in_group(req, a->gid);
}

static int drop_setgid(fuse_req_t req, struct mount *m, struct inode *i)
{
    struct fs_attr a;
    int rc = op_attr(m, i, &a);
    if (rc != 0 || !must_drop_setgid(req, &a))
        return rc;
    struct conn_call call;
    conn_call_init(&call, RPC_SETATTR);
    call.req.oid = i->oid;
    call.req.set = SET_MODE;
    call.req.mode = a.mode & 07777u & ~(uint32_t)S_ISGID;
    rc = conn_call_run(m->conn, &call);
    conn_call_deinit(&call);
    return rc;
}

static void forget_caps(struct inode *i, uint64_t time)
{
    pthread_mutex_lock(&i->known->lock);
    i->known->no_caps_time = time;
    pthread_mutex_unlock(&i->known->lock);
}

void op_setxattr(
    fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t size, int flags)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct conn_call call;
    conn_call_init(&call, RPC_SETXATTR);
    op_caller(req, &call.req);
    call.req.oid = i->oid;
    call.req.name = op_name(name);
    call.req.data = slice_of(value, size);
    call.req.flags = (uint32_t)flags;
    int rc = size > LIMIT_XATTR_VALUE_BYTES ? ERR_TOO_BIG : name_check(name);
    (void)file_keep_end(i); /* what is kept goes with the flush */
    if (rc == 0)
        rc = file_flush(m->io, i); /* capabilities hold for the content as it is now */
    if (rc == 0)
        rc = conn_call_run(m->conn, &call);
    conn_call_deinit(&call);
    inode_attr_drop(i, &m->clock);
    if (strcmp(name, NAME_CAPS) == 0)
        forget_caps(i, 0);
    if (rc == 0 && strcmp(name, NAME_ACL) == 0)
        rc = drop_setgid(req, m, i);
    inode_attr_drop(i, &m->clock);
    op_reply(req, rc);
    op_unref(m, i);
}

/* The answer to a question for bytes of which the caller has room for `size`; 0: how many? */
static void reply_bytes(fuse_req_t req, int rc, struct slice data, size_t size)
{
    if (rc == 0 && size > 0 && data.len > size)
        rc = ERR_OUT_OF_RANGE;
    if (rc != 0) {
        op_reply(req, rc);
        return;
    }
    conn_thread_interrupt(NULL, NULL);
    if (size == 0)
        (void)fuse_reply_xattr(req, data.len); /* the caller may be gone */
    else
        (void)fuse_reply_buf(req, (const char *)data.ptr, data.len); /* likewise */
}

static bool known_without_caps(struct mount *m, struct inode *i)
{
    pthread_mutex_lock(&i->known->lock);
    uint64_t time = i->known->no_caps_time;
    pthread_mutex_unlock(&i->known->lock);
    return time != 0 && inode_clock_fresh(&m->clock, i->oid, time);
}

/* The attributes say whether there is more to an object's rights than its mode. */
static bool known_without_acl(struct mount *m, struct inode *i, const char *name)
{
    struct fs_attr a;
    bool acl = strcmp(name, NAME_ACL) == 0 || strcmp(name, NAME_ACL_DEFAULT) == 0;
    return acl && inode_attr_load(i, &m->clock, &a) && !a.has_acl;
}

void op_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    /* The kernel asks for capabilities before the first write and at exec. */
    bool caps = strcmp(name, NAME_CAPS) == 0;
    if ((caps && known_without_caps(m, i)) || known_without_acl(m, i, name)) {
        op_reply(req, ERR_NO_DATA);
        op_unref(m, i);
        return;
    }
    uint64_t since = inode_clock_now(&m->clock);
    struct conn_call call;
    conn_call_init(&call, RPC_GETXATTR);
    call.req.oid = i->oid;
    call.req.name = op_name(name);
    int rc = name_check(name);
    if (rc == 0)
        rc = conn_call_run(m->conn, &call);
    if (caps && rc == ERR_NO_DATA)
        forget_caps(i, since);
    reply_bytes(req, rc, call.reply.data, size);
    conn_call_deinit(&call);
    op_unref(m, i);
}

void op_listxattr(fuse_req_t req, fuse_ino_t id, size_t size)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct conn_call call;
    conn_call_init(&call, RPC_LISTXATTR);
    call.req.oid = i->oid;
    int rc = conn_call_run(m->conn, &call);
    reply_bytes(req, rc, call.reply.data, size);
    conn_call_deinit(&call);
    op_unref(m, i);
}

void op_removexattr(fuse_req_t req, fuse_ino_t id, const char *name)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    struct conn_call call;
    conn_call_init(&call, RPC_REMOVEXATTR);
    op_caller(req, &call.req);
    call.req.oid = i->oid;
    call.req.name = op_name(name);
    int rc = name_check(name);
    if (rc == 0)
        rc = conn_call_run(m->conn, &call);
    conn_call_deinit(&call);
    inode_attr_drop(i, &m->clock);
    op_reply(req, rc);
    op_unref(m, i);
}
