/* Private to client/fuse_*.c: the handlers of libfuse's low-level interface, and what they share.
 *
 * A handler runs on one of libfuse's threads, may wait for the site, and answers exactly once;
 * waiting locks are answered later (fuse_lock.c). */
#ifndef CLIENT_FUSE_OPS_H
#define CLIENT_FUSE_OPS_H

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include "client/mount.h"

/* Starts a handler: the mount; calls that wait for a site that is away heed this interrupt. */
struct mount *op_begin(fuse_req_t req);
/* The answer; ends what op_begin started. rc 0 is success. */
void op_reply(fuse_req_t req, int rc);
int op_errno(int rc);

/* The inode of a node id, referenced; NULL: answered with ESTALE. */
struct inode *op_inode(fuse_req_t req, struct mount *m, fuse_ino_t id);
void op_unref(struct mount *m, struct inode *i);
/* Runs a call on one object without more arguments: RPC_GETATTR, RPC_CLOSE, RPC_SYNC ... */
int op_simple(struct mount *m, uint16_t type, struct oid oid) MUST_CHECK;
void op_caller(fuse_req_t req, struct fs_request *r); /* uid, gid, pid, umask */

struct op_entry {
    const struct inode *parent; /* NULL: not under a name */
    uint64_t since;             /* of the request */
    bool changed;               /* the reply is to a change of ours */
};
/* Makes the kernel's picture of an object: enters it with `lookups`; the reference is the caller's.
 */
struct inode *op_enter(struct mount *m,
                       const struct fs_attr *a,
                       const struct op_entry *how,
                       uint64_t lookups,
                       struct fuse_entry_param *ret);
void op_reply_entry(fuse_req_t req, struct mount *m, const struct fs_attr *a, struct op_entry how);
void op_reply_attr(fuse_req_t req, struct mount *m, struct inode *i, const struct fs_attr *a);
/* Attributes, from the cache or the site. */
int op_attr(struct mount *m, struct inode *i, struct fs_attr *ret) MUST_CHECK;
bool op_in_group(fuse_req_t req, gid_t gid); /* is the caller? */
struct slice op_name(const char *name);
int op_name_check(const char *name); /* ERR_NAME_TOO_LONG */

/* The WRITE, OPEN or SETATTR being handled by this thread comes from someone who may not keep
 * set-id bits (fuse_session.c sees what libfuse does not pass on). */
bool session_kill_priv(void);
/* fuse_receive.c: what libfuse reads requests by. */
#define SESSION_WRITE_BYTES_MAX (1u << 20)
ssize_t session_read(int fd, void *buf, size_t len, void *userdata);
uint32_t session_init_flags(void); /* that the kernel offered */
/* Where the bytes of the WRITE being handled by this thread are: buffers of cache_pages.h, in
 * order. Who takes one over leaves NULL in its place. NULL: they are where libfuse says. */
uint8_t **session_pages(void);

/* fuse_meta.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t lookups);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_setattr(
    fuse_req_t req, fuse_ino_t id, struct stat *st, int to_set, struct fuse_file_info *fi);
void op_readlink(fuse_req_t req, fuse_ino_t id);
void op_statfs(fuse_req_t req, fuse_ino_t id);
/* fuse_names.c */
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req,
               fuse_ino_t parent,
               const char *name,
               fuse_ino_t new_parent,
               const char *new_name,
               unsigned flags);
void op_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t new_parent, const char *new_name);
void op_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
/* fuse_dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_readdir(
    fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void op_readdirplus(
    fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi);
/* fuse_file.c */
void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi);
void op_write(fuse_req_t req,
              fuse_ino_t id,
              const char *data,
              size_t size,
              off_t offset,
              struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi);
void op_fallocate(
    fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t id, off_t offset, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req,
                        fuse_ino_t id_in,
                        off_t offset_in,
                        struct fuse_file_info *fi_in,
                        fuse_ino_t id_out,
                        off_t offset_out,
                        struct fuse_file_info *fi_out,
                        size_t len,
                        int flags);
void op_ioctl(fuse_req_t req,
              fuse_ino_t id,
              unsigned cmd,
              void *arg,
              struct fuse_file_info *fi,
              unsigned flags,
              const void *in,
              size_t in_len,
              size_t out_len);
/* Clears set-id bits at the site when `kill` says that the caller may not keep them. */
int op_kill_priv(struct mount *m, struct inode *i, bool kill) MUST_CHECK;
/* fuse_lock.c */
void op_getlk(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi, struct flock *lock);
void op_setlk(
    fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi, struct flock *lock, int wait);
void op_flock(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi, int op);
/* Releases what `owner` holds on the file, if anything. */
void locks_release(struct mount *m, struct inode *i, uint64_t owner, bool flock);
/* The last close of an open file: its own record locks. */
void locks_release_handle(struct mount *m, struct inode *i, uint64_t handle);
struct lock_waits *lock_waits_new(struct mount *m);
void lock_waits_free(struct lock_waits *w); /* answers those that wait with EINTR */
/* fuse_xattr.c */
void op_setxattr(
    fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t id, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t id, const char *name);

#endif
