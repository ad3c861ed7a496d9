/* Open files: open, data, flush, sync, and what works on ranges. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/fuse_ops.h"

#include "base/limits.h"

#define COPY_BYTES (1u << 20)
#define COPY_ONCE_MAX (64u << 20) /* by hand; the caller asks again for the rest */

static struct open_file *handle(const struct fuse_file_info *fi)
{
    return (struct open_file *)(uintptr_t)fi->fh;
}

int op_kill_priv(struct mount *m, struct inode *i, bool kill)
{
    struct fs_attr a;
    if (!kill)
        return 0;
    int rc = op_attr(m, i, &a);
    bool group_exec = (a.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
    if (rc != 0 || ((a.mode & S_ISUID) == 0 && !group_exec))
        return rc; /* capabilities go with the commit */
    rc = file_settle(i);
    if (rc != 0)
        return rc;
    uint64_t since = inode_clock_now(&m->clock);
    struct conn_call call;
    conn_call_init(&call, RPC_SETATTR);
    call.req.oid = i->oid;
    call.req.set = SET_KILL_SETID;
    rc = conn_call_run(m->conn, &call);
    if (rc == 0 && call.reply.has_attr)
        inode_attr_changed(i, &m->clock, &call.reply.attr, since);
    conn_call_deinit(&call);
    return rc;
}

void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct open_file *h = NULL;
    bool keep = false;
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    int rc = file_open(m->io, i, fi->flags, &h, &keep);
    if (rc == 0 && (fi->flags & O_TRUNC) != 0) {
        rc = op_kill_priv(m, i, session_kill_priv());
        if (rc == 0)
            rc = file_truncate(m->io, i, 0, session_kill_priv() ? FILE_WRITE_KILL : 0);
        keep = false;
    }
    if (rc == 0) {
        fi->fh = (uint64_t)(uintptr_t)h;
        fi->keep_cache = keep;
        conn_thread_interrupt(NULL, NULL);
        if (fuse_reply_open(req, fi) != 0)
            file_close(m->io, h);
    } else {
        if (h != NULL)
            file_close(m->io, h);
        op_reply(req, rc);
    }
    op_unref(m, i);
}

void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    (void)id;
    struct file_view v;
    int rc = file_read_view(m->io, handle(fi), (uint64_t)offset, size, &v);
    if (rc == 0) {
        conn_thread_interrupt(NULL, NULL);
        (void)fuse_reply_iov(req, v.at, v.count); /* the caller may be gone */
        file_view_done(m->io, &v);
    } else {
        op_reply(req, rc);
    }
}

void op_write(fuse_req_t req,
              fuse_ino_t id,
              const char *data,
              size_t size,
              off_t offset,
              struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct inode *i = op_inode(req, m, id);
    if (i == NULL)
        return;
    unsigned flags = session_kill_priv() ? FILE_WRITE_KILL : 0;
    /* A page of a mapping has its place, whatever the flags of the file it came by. */
    if ((fi->flags & O_APPEND) != 0 && !fi->writepage)
        flags |= FILE_WRITE_APPEND;
    uint8_t **pages = session_pages();
    int rc = op_kill_priv(m, i, session_kill_priv());
    if (rc == 0 && pages != NULL)
        rc = file_write_pages(m->io, i, (uint64_t)offset,
                              (struct file_pages){.at = pages, .len = size}, flags);
    else if (rc == 0)
        rc = file_write(m->io, i, (uint64_t)offset, slice_of(data, size), flags);
    if (rc == 0) {
        conn_thread_interrupt(NULL, NULL);
        (void)fuse_reply_write(req, size); /* the caller may be gone */
    } else {
        op_reply(req, rc);
    }
    op_unref(m, i);
}

/* close(2): commits, so that who opens the file next, at any mount, sees it; says what went wrong
 * since the last time; and lets POSIX locks of this owner go. */
void op_flush(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct open_file *h = handle(fi);
    (void)id;
    int rc = file_flush(m->io, h->inode);
    int late = file_error(h);
    locks_release(m, h->inode, fi->lock_owner, false);
    op_reply(req, late != 0 ? late : rc);
}

void op_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct open_file *h = handle(fi);
    (void)id;
    locks_release(m, h->inode, h->id, true);
    locks_release_handle(m, h->inode, fi->fh);
    file_close(m->io, h);
    op_reply(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct open_file *h = handle(fi);
    (void)id;
    (void)datasync;
    int rc = file_sync(m->io, h->inode);
    int late = file_error(h);
    op_reply(req, late != 0 ? late : rc);
}

/* ---- ranges ---- */

void op_fallocate(
    fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    struct inode *i = handle(fi)->inode;
    (void)id;
    bool keep = (mode & FALLOC_FL_KEEP_SIZE) != 0;
    uint64_t from = (uint64_t)offset, to = from + (uint64_t)length;
    /* The kernel does not say whether the caller has the privilege, as it does for writes. */
    int rc = op_kill_priv(m, i, fuse_req_ctx(req)->uid != 0);
    if (rc != 0) {
        op_reply(req, rc);
        return;
    }
    /* Space is not set aside: contents are stored by what they hold. */
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
        rc = keep ? 0 : file_extend(m->io, i, to);
        break;
    case FALLOC_FL_PUNCH_HOLE:
        rc = keep ? file_zero(m->io, i, from, to, false) : ERR_NOT_SUPPORTED;
        break;
    case FALLOC_FL_ZERO_RANGE:
        rc = file_zero(m->io, i, from, to, !keep);
        break;
    default:
        rc = ERR_NOT_SUPPORTED;
        break;
    }
    op_reply(req, rc);
}

void op_lseek(fuse_req_t req, fuse_ino_t id, off_t offset, int whence, struct fuse_file_info *fi)
{
    struct mount *m = op_begin(req);
    uint64_t at = 0;
    (void)id;
    int rc = whence != SEEK_DATA && whence != SEEK_HOLE
                 ? ERR_INVALID
                 : file_seek(m->io, handle(fi)->inode, (uint64_t)offset, whence, &at);
    if (rc == 0) {
        conn_thread_interrupt(NULL, NULL);
        (void)fuse_reply_lseek(req, (off_t)at); /* the caller may be gone */
    } else {
        op_reply(req, rc);
    }
}

/* Through memory; as much as went well counts. */
static int
copy_by_hand(struct mount *m, struct open_file *in, const struct file_clone *c, uint64_t *ret)
{
    uint64_t len = MIN(c->len, COPY_ONCE_MAX);
    uint8_t *bytes = mem_alloc(COPY_BYTES);
    uint64_t done = 0;
    int rc = 0;
    while (rc == 0 && done < len) {
        size_t n = 0;
        rc = file_read(m->io, in, c->from_offset + done, bytes, (size_t)MIN(COPY_BYTES, len - done),
                       &n);
        if (rc != 0 || n == 0)
            break;
        rc = file_write(m->io, c->to, c->to_offset + done, slice_of(bytes, n),
                        session_kill_priv() ? FILE_WRITE_KILL : 0);
        done += rc == 0 ? n : 0;
    }
    mem_free(bytes);
    *ret = done;
    return done > 0 ? 0 : rc;
}

void op_copy_file_range(fuse_req_t req,
                        fuse_ino_t id_in,
                        off_t offset_in,
                        struct fuse_file_info *fi_in,
                        fuse_ino_t id_out,
                        off_t offset_out,
                        struct fuse_file_info *fi_out,
                        size_t len,
                        int flags)
{
    struct mount *m = op_begin(req);
    struct file_clone c = {.from = handle(fi_in)->inode,
                           .to = handle(fi_out)->inode,
                           .from_offset = (uint64_t)offset_in,
                           .to_offset = (uint64_t)offset_out,
                           .len = MIN(len, (size_t)1 << 30)};
    uint64_t done = 0;
    (void)id_in;
    (void)id_out;
    int rc = flags != 0 ? ERR_INVALID : op_kill_priv(m, c.to, fuse_req_ctx(req)->uid != 0);
    if (rc == 0)
        rc = file_clone(m->io, &c, &done);
    if (rc == 0 && done == 0)
        rc = copy_by_hand(m, handle(fi_in), &c, &done);
    if (rc == 0) {
        conn_thread_interrupt(NULL, NULL);
        (void)fuse_reply_write(req, (size_t)done); /* the caller may be gone */
    } else {
        op_reply(req, rc);
    }
}

void op_ioctl(fuse_req_t req,
              fuse_ino_t id,
              unsigned cmd,
              void *arg,
              struct fuse_file_info *fi,
              unsigned flags,
              const void *in,
              size_t in_len,
              size_t out_len)
{
    (void)id;
    (void)cmd;
    (void)arg;
    (void)fi;
    (void)flags;
    (void)in;
    (void)in_len;
    (void)out_len;
    (void)fuse_reply_err(req, ENOTTY); /* the caller may be gone */
}
