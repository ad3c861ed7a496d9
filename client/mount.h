/* One mount: its parts, its options, and what its threads tell the kernel.
 *
 *   kernel -> libfuse threads -> fuse_*.c -> inode table, fileio -> conn -> site
 *   site -> push thread -> mount_push.c -> clock, fileio; mount_notify.c -> kernel; ack -> site
 */
#ifndef CLIENT_MOUNT_H
#define CLIENT_MOUNT_H

#include "client/fileio.h"
#include "client/inode_locks.h"

struct fuse_session;
struct notifier;
struct forgetter;
struct pruner;
struct recaller;
struct flusher;
struct lock_waits;

struct mount_options {
    const char *dir;  /* of the site; or NULL */
    const char *site; /* HOST:PORT; or NULL */
    const char *key;  /* file with the site's key, with `site` */
    const char *mountpoint;
    char *log;       /* file for messages; owned */
    char *fuse_args; /* what goes to libfuse as -o; owned */
    bool foreground, read_only, sync, allow_other;
    bool trusted_network; /* frames need not be sealed, if the site says so as well */
    uint64_t cache_mb;
    uint64_t inodes_max; /* beyond so many the kernel is asked to drop some */
    uint64_t timeout_s;  /* how long the kernel may believe entries and attributes */
    uint64_t threads_max;
};
struct mount {
    struct mount_options options;
    struct conn *conn;
    struct inode_table *inodes;
    struct inode_clock clock;
    struct flight flight;
    struct fileio *io;
    struct held_locks locks;
    struct lock_waits *lock_waits;
    struct notifier *notifier;
    struct forgetter *forgetter;
    struct pruner *pruner;
    struct recaller *recaller;
    struct flusher *flusher;
    struct fuse_session *session;
    double entry_timeout_s, attr_timeout_s;
    int ready_fd; /* tells the parent that the mount is usable; -1 */
};

/* ---- mount_parts.c: start and end of the parts, on the main thread ---- */
/* Connects to the site, and starts all but the session and the pruner, in `m`, which is zero but
 * for its options. mount_parts_end() follows, whatever this returns; with ERR_UNREACHABLE and the
 * like a sentence in `d`. */
int mount_parts_start(struct mount *m,
                      const struct conn_config *config,
                      struct err_detail *d) MUST_CHECK;
/* Commits what is dirty, as long as the site answers (20 s), and ends all parts. After the
 * session's loop. The first failure to commit. */
int mount_parts_end(struct mount *m) MUST_CHECK;

/* ---- mount_push.c: events of the conn ---- */
/* All but telling the kernel. */
void mount_take_inval(struct mount *m, const struct fs_inval *v);
void mount_push(void *ctx, uint16_t type, uint64_t id, const struct fs_reply *push);
void mount_recover(void *ctx, bool new_session);
void mount_lost(void *ctx, uint16_t type, struct oid oid, int rc);
void mount_made_again(void *ctx, struct oid oid);

/* ---- mount_notify.c: telling the kernel ---- */
int notifier_new(struct mount *m, struct notifier **ret) MUST_CHECK;
void notifier_free(struct notifier *n); /* joins; accepts NULL */
/* Around the end of the session, whose descriptor is closed by it: from the first on nobody uses
 * it, and who would waits; from the second on there is no kernel to be told anything. */
void notifier_mute(struct notifier *n);
void notifier_kernel_gone(struct notifier *n);
/* The mount is there: from here on the kernel is told. Probes what it can. */
void notifier_probe(struct notifier *n);
/* Invalidates what a push lists, in the background, then acknowledges it. `id` 0: nothing to
 * acknowledge. */
void notifier_push(struct notifier *n, uint64_t id, const struct fs_inval *invals, uint32_t count);
void notifier_pages(struct notifier *n, uint64_t ino); /* pages and attributes of one inode */
/* All names at once, then pages and attributes of all inodes, these ones first. */
void notifier_everything(struct notifier *n, struct inode *const *first, size_t count);
/* Asks the kernel to drop inodes that nobody uses. False: it cannot be asked. */
bool notifier_prune(struct notifier *n, const struct inode_ids *ids);

/* ---- mount_forget.c: telling the site what was dropped ---- */
int forgetter_new(struct mount *m, struct forgetter **ret) MUST_CHECK;
void forgetter_stop(struct forgetter *f); /* joins; what comes later is not told; accepts NULL */
void forgetter_free(struct forgetter *f); /* after nobody adds to it any more; accepts NULL */
void forgetter_add(struct forgetter *f, struct oid oid);
/* The site is back, and the kernel drops much: telling of it has time. */
void forgetter_back(struct forgetter *f);

/* ---- mount_prune.c: asking the kernel to drop what is too much ---- */
/* After the mount is there. NULL: the kernel cannot be asked, or there is no thread for it; logged.
 */
struct pruner *pruner_new(struct mount *m);
void pruner_free(struct pruner *p); /* joins; accepts NULL */

/* ---- mount_flush.c: the site asks for all that was written to be committed ---- */
int flusher_new(struct mount *m, struct flusher **ret) MUST_CHECK;
void flusher_push(struct flusher *f, uint64_t number); /* PUSH_FLUSH */
/* RPC_FLUSHED. Waits for the site. */
void flusher_tell(struct mount *m, uint64_t number, bool all);
void flusher_stop(struct flusher *f); /* joins; what comes later is not looked at; accepts NULL */
void flusher_free(struct flusher *f); /* after nobody pushes any more; accepts NULL */

/* ---- mount_recall.c: the site asks for what is kept of a file ---- */
int recaller_new(struct mount *m, struct recaller **ret) MUST_CHECK;
/* Tells the site in the background what is kept of the file, then acknowledges the push; 0: no
 * more than tells. */
void recaller_push(struct recaller *r, uint64_t push_id, struct oid oid);
void recaller_stop(struct recaller *r); /* as flusher_stop */
void recaller_free(struct recaller *r); /* as flusher_free */

/* ---- fuse_session.c ---- */
/* Mounts; ERR with a sentence. */
int session_mount(struct mount *m, struct err_detail *d) MUST_CHECK;
/* Serves until unmounted or told to stop by a signal; then unmounts. */
int session_loop(struct mount *m);
void session_free(struct mount *m);

#endif
