/* A file system in memory on libfuse: what FUSE itself allows on this machine, as the limit of the
 * mount's figures. It keeps names, attributes and data, and nothing else: no symbolic or hard
 * links, no extended attributes, no locks. The session has the options that the mount of ClaudeFS
 * has, so that the kernel does the same on both.
 *
 *     bench_memfs [-t SECONDS] MOUNTPOINT     returns when it is mounted; fusermount3 -u ends it
 *
 * -t: how long the kernel may believe names, 3600 unless given. */
#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"
#include "bench/common.h"

#define BLOCK_BYTES (128u * 1024u)
#define BUCKETS (1u << 20)
#define IO_BYTES_MAX (1024u * 1024u)
#define BACKGROUND_MAX 64u /* as client/fuse_session.c */
#define THREADS_FUSE 64u
#define ATTR_S 3600.0
#define FILE_BYTES_MAX ((off_t)1 << 40)

struct node {
    struct node *next;                /* in its bucket */
    struct node *parent;              /* NULL: it has no name */
    struct node **kids;               /* of a directory; gaps are NULL */
    size_t kid_count, kid_room, live; /* slots in use, slots there, slots that are not gaps */
    size_t slot;                      /* in the parent */
    uint64_t lookups;                 /* that the kernel has not forgotten */
    char *name;
    uint8_t **blocks; /* of a file; NULL is a hole */
    size_t block_room;
    off_t size;
    pthread_rwlock_t data; /* blocks and the size; may be taken inside the lock of the names */
    struct stat st;        /* without the size */
};

static struct {
    pthread_mutex_t lock; /* names, lookups and attributes */
    struct node **buckets;
    struct node root;
    double names_s;
} fs = {.lock = PTHREAD_MUTEX_INITIALIZER, .names_s = 3600};

/* --- nodes; with the lock --- */

static struct node *node_of(fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? &fs.root : (struct node *)(uintptr_t)ino;
}

static struct node **bucket_of(const struct node *parent, const char *name)
{
    uint64_t h =
        fnv1a_more((uint64_t)(uintptr_t)parent * UINT64_C(0x9E3779B97F4A7C15), slice_str(name));
    return &fs.buckets[(h ^ h >> 29) % BUCKETS];
}

static struct node *find(const struct node *parent, const char *name)
{
    struct node *n = *bucket_of(parent, name);
    while (n != NULL && (n->parent != parent || strcmp(n->name, name) != 0))
        n = n->next;
    return n;
}

static void touch(struct node *n)
{
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &n->st.st_ctim); /* it is there */
    n->st.st_mtim = n->st.st_ctim;
}

static void enter(struct node *parent, const char *name, struct node *n)
{
    struct node **bucket = bucket_of(parent, name);
    n->name = mem_strdup(name);
    n->parent = parent;
    n->next = *bucket;
    *bucket = n;
    if (parent->kid_count == parent->kid_room) {
        parent->kid_room = MAX(2 * parent->kid_room, 16);
        parent->kids = mem_realloc(parent->kids, parent->kid_room * sizeof(struct node *));
    }
    n->slot = parent->kid_count++;
    parent->kids[n->slot] = n;
    parent->live++;
    touch(parent);
}

static void leave(struct node *n)
{
    struct node **at = bucket_of(n->parent, n->name);
    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    n->parent->kids[n->slot] = NULL;
    if (--n->parent->live == 0)
        n->parent->kid_count = 0;
    touch(n->parent);
    mem_free(n->name);
    n->name = NULL;
    n->parent = NULL;
}

static void free_if_gone(struct node *n)
{
    if (n->parent != NULL || n->lookups > 0 || n == &fs.root)
        return;
    for (size_t i = 0; i < n->block_room; i++)
        mem_free(n->blocks[i]);
    mem_free(n->blocks);
    mem_free(n->kids);
    (void)pthread_rwlock_destroy(&n->data); /* nobody has it */
    mem_free(n);
}

static void node_init(struct node *n, mode_t mode, uid_t uid, gid_t gid)
{
    int rc = pthread_rwlock_init(&n->data, NULL);
    ASSERT(rc == 0);
    n->st.st_ino = (ino_t)(uintptr_t)n;
    n->st.st_mode = mode;
    n->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
    n->st.st_uid = uid;
    n->st.st_gid = gid;
    n->st.st_blksize = BLOCK_BYTES;
    touch(n);
    n->st.st_atim = n->st.st_mtim;
}

static struct stat attr_of(struct node *n)
{
    struct stat st = n->st;
    pthread_rwlock_rdlock(&n->data);
    st.st_size = n->size;
    pthread_rwlock_unlock(&n->data);
    st.st_blocks = (st.st_size + 511) / 512;
    return st;
}

static struct fuse_entry_param entry_of(struct node *n)
{
    n->lookups++;
    return (struct fuse_entry_param){.ino = (fuse_ino_t)(uintptr_t)n,
                                     .attr = attr_of(n),
                                     .attr_timeout = ATTR_S,
                                     .entry_timeout = fs.names_s};
}

/* --- names --- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {.entry_timeout = fs.names_s};
    pthread_mutex_lock(&fs.lock);
    struct node *n = find(node_of(parent), name);
    if (n != NULL)
        e = entry_of(n);
    pthread_mutex_unlock(&fs.lock);
    fuse_reply_entry(req, &e);
}

static void forget_one(fuse_ino_t ino, uint64_t count)
{
    struct node *n = node_of(ino);
    if (n == &fs.root)
        return;
    pthread_mutex_lock(&fs.lock);
    ASSERT(n->lookups >= count);
    n->lookups -= count;
    free_if_gone(n);
    pthread_mutex_unlock(&fs.lock);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    forget_one(ino, count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *data)
{
    for (size_t i = 0; i < count; i++)
        forget_one(data[i].ino, data[i].nlookup);
    fuse_reply_none(req);
}

static int
make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_entry_param *ret)
{
    const struct fuse_ctx *who = fuse_req_ctx(req);
    int rc = EEXIST;
    pthread_mutex_lock(&fs.lock);
    if (find(node_of(parent), name) == NULL) {
        struct node *n = mem_calloc(1, sizeof *n);
        node_init(n, mode, who->uid, who->gid);
        enter(node_of(parent), name, n);
        *ret = entry_of(n);
        rc = 0;
    }
    pthread_mutex_unlock(&fs.lock);
    return rc;
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fuse_entry_param e;
    int rc = make(req, parent, name, S_IFDIR | (mode & 07777), &e);
    if (rc == 0)
        fuse_reply_entry(req, &e);
    else
        fuse_reply_err(req, rc);
}

static void op_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct fuse_entry_param e;
    int rc = make(req, parent, name, S_IFREG | (mode & 07777), &e);
    fi->keep_cache = 1;
    if (rc == 0)
        fuse_reply_create(req, &e, fi);
    else
        fuse_reply_err(req, rc);
}

static int remove_name(fuse_ino_t parent, const char *name, bool dir)
{
    int rc = 0;
    pthread_mutex_lock(&fs.lock);
    struct node *n = find(node_of(parent), name);
    if (n == NULL) {
        rc = ENOENT;
    } else if (S_ISDIR(n->st.st_mode) != dir) {
        rc = dir ? ENOTDIR : EISDIR;
    } else if (n->live != 0) {
        rc = ENOTEMPTY;
    } else {
        leave(n);
        n->st.st_nlink = 0;
        free_if_gone(n);
    }
    pthread_mutex_unlock(&fs.lock);
    return rc;
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(req, remove_name(parent, name, false));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(req, remove_name(parent, name, true));
}

static void op_rename(fuse_req_t req,
                      fuse_ino_t parent,
                      const char *name,
                      fuse_ino_t new_parent,
                      const char *new_name,
                      unsigned flags)
{
    int rc = 0;
    pthread_mutex_lock(&fs.lock);
    struct node *n = find(node_of(parent), name), *old = find(node_of(new_parent), new_name);
    if (n == NULL || flags != 0) {
        rc = n == NULL ? ENOENT : EINVAL;
    } else if (old != NULL && (old->live != 0 || S_ISDIR(old->st.st_mode))) {
        rc = ENOTEMPTY;
    } else if (n != old) {
        if (old != NULL) {
            leave(old);
            free_if_gone(old);
        }
        leave(n);
        enter(node_of(new_parent), new_name, n);
    }
    pthread_mutex_unlock(&fs.lock);
    fuse_reply_err(req, rc);
}

/* --- directories --- */

/* Slot 0 and 1 are "." and ".."; an offset is the next slot. */
static void list(fuse_req_t req, fuse_ino_t ino, size_t room, off_t offset, bool plus)
{
    struct node *d = node_of(ino);
    char *out = mem_alloc(room);
    size_t len = 0;
    pthread_mutex_lock(&fs.lock);
    for (size_t slot = (size_t)offset; slot < d->kid_count + 2; slot++) {
        struct node *n = slot < 2 ? d : d->kids[slot - 2];
        if (n == NULL)
            continue;
        const char *name = slot == 0 ? "." : slot == 1 ? ".." : n->name;
        struct fuse_entry_param e = {.attr = n->st};
        if (slot >= 2 && plus)
            e = entry_of(n);
        off_t next = (off_t)slot + 1;
        size_t need = plus ? fuse_add_direntry_plus(req, out + len, room - len, name, &e, next)
                           : fuse_add_direntry(req, out + len, room - len, name, &e.attr, next);
        if (need > room - len) {
            if (slot >= 2 && plus)
                n->lookups--;
            break;
        }
        len += need;
    }
    pthread_mutex_unlock(&fs.lock);
    fuse_reply_buf(req, out, len);
    mem_free(out);
}

static void
op_readdir(fuse_req_t req, fuse_ino_t ino, size_t room, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, room, offset, false);
}

static void
op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t room, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, room, offset, true);
}

/* --- attributes --- */

static struct stat stat_of(struct node *n)
{
    pthread_mutex_lock(&fs.lock);
    struct stat st = attr_of(n);
    pthread_mutex_unlock(&fs.lock);
    return st;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    struct stat st = stat_of(node_of(ino));
    fuse_reply_attr(req, &st, ATTR_S);
}

/* Bytes beyond the new end are zero when the file grows again. */
static void cut(struct node *n, off_t size)
{
    pthread_rwlock_wrlock(&n->data);
    for (size_t i = 0; i < n->block_room; i++) {
        off_t start = (off_t)i * (off_t)BLOCK_BYTES;
        if (n->blocks[i] == NULL || start + (off_t)BLOCK_BYTES <= size)
            continue;
        if (start >= size) {
            mem_free(n->blocks[i]);
            n->blocks[i] = NULL;
        } else {
            memset(n->blocks[i] + (size - start), 0, (size_t)(start + (off_t)BLOCK_BYTES - size));
        }
    }
    n->size = size;
    pthread_rwlock_unlock(&n->data);
}

static void
op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *want, int which, struct fuse_file_info *fi)
{
    struct node *n = node_of(ino);
    (void)fi;
    if ((which & FUSE_SET_ATTR_SIZE) != 0) {
        if (want->st_size > FILE_BYTES_MAX) {
            fuse_reply_err(req, EFBIG);
            return;
        }
        cut(n, want->st_size);
    }
    pthread_mutex_lock(&fs.lock);
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &n->st.st_ctim); /* it is there */
    if ((which & FUSE_SET_ATTR_MODE) != 0)
        n->st.st_mode = want->st_mode;
    if ((which & FUSE_SET_ATTR_UID) != 0)
        n->st.st_uid = want->st_uid;
    if ((which & FUSE_SET_ATTR_GID) != 0)
        n->st.st_gid = want->st_gid;
    if ((which & FUSE_SET_ATTR_ATIME) != 0)
        n->st.st_atim = (which & FUSE_SET_ATTR_ATIME_NOW) != 0 ? n->st.st_ctim : want->st_atim;
    if ((which & FUSE_SET_ATTR_MTIME) != 0)
        n->st.st_mtim = (which & FUSE_SET_ATTR_MTIME_NOW) != 0 ? n->st.st_ctim : want->st_mtim;
    pthread_mutex_unlock(&fs.lock);
    op_getattr(req, ino, fi);
}

/* --- data --- */

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if ((fi->flags & O_TRUNC) != 0)
        cut(node_of(ino), 0);
    fi->keep_cache = 1;
    fuse_reply_open(req, fi);
}

static void
op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    static const uint8_t zeros[BLOCK_BYTES];
    struct node *n = node_of(ino);
    struct iovec parts[IO_BYTES_MAX / BLOCK_BYTES + 2];
    int count = 0;
    (void)fi;
    pthread_rwlock_rdlock(&n->data);
    off_t end = MIN(n->size, offset + (off_t)MIN(size, IO_BYTES_MAX));
    for (off_t at = offset; at < end;) {
        size_t idx = (size_t)at / BLOCK_BYTES, from = (size_t)at % BLOCK_BYTES;
        size_t len = MIN((size_t)(end - at), BLOCK_BYTES - from);
        const uint8_t *block = idx < n->block_room ? n->blocks[idx] : NULL;
        union {
            const uint8_t *in;
            void *out;
        } base = {.in = (block != NULL ? block : zeros) + from};
        parts[count++] = (struct iovec){.iov_base = base.out, .iov_len = len};
        at += (off_t)len;
    }
    fuse_reply_iov(req, parts, count);
    pthread_rwlock_unlock(&n->data);
}

static void store(struct node *n, const char *data, size_t len, off_t offset)
{
    size_t blocks = ((size_t)offset + len + BLOCK_BYTES - 1) / BLOCK_BYTES;
    if (blocks > n->block_room) {
        size_t room = MAX(blocks, 2 * n->block_room);
        n->blocks = mem_realloc(n->blocks, room * sizeof(uint8_t *));
        memset(n->blocks + n->block_room, 0, (room - n->block_room) * sizeof(uint8_t *));
        n->block_room = room;
    }
    for (size_t at = (size_t)offset, end = at + len; at < end;) {
        size_t idx = at / BLOCK_BYTES, from = at % BLOCK_BYTES;
        size_t part = MIN(end - at, BLOCK_BYTES - from);
        if (n->blocks[idx] == NULL)
            n->blocks[idx] =
                part == BLOCK_BYTES ? mem_alloc(BLOCK_BYTES) : mem_calloc(1, BLOCK_BYTES);
        memcpy(n->blocks[idx] + from, data + (at - (size_t)offset), part);
        at += part;
    }
    n->size = MAX(n->size, offset + (off_t)len);
}

static void op_write(fuse_req_t req,
                     fuse_ino_t ino,
                     const char *data,
                     size_t len,
                     off_t offset,
                     struct fuse_file_info *fi)
{
    struct node *n = node_of(ino);
    (void)fi;
    if (offset + (off_t)len > FILE_BYTES_MAX) {
        fuse_reply_err(req, EFBIG);
        return;
    }
    pthread_rwlock_wrlock(&n->data);
    store(n, data, len, offset);
    pthread_rwlock_unlock(&n->data);
    pthread_mutex_lock(&fs.lock);
    touch(n);
    pthread_mutex_unlock(&fs.lock);
    fuse_reply_write(req, len);
}

static void op_done(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int only_data, struct fuse_file_info *fi)
{
    (void)only_data;
    op_done(req, ino, fi);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    (void)ino;
    const struct statvfs st = {.f_bsize = BLOCK_BYTES,
                               .f_frsize = BLOCK_BYTES,
                               .f_blocks = 1u << 20,
                               .f_bfree = 1u << 20,
                               .f_bavail = 1u << 20,
                               .f_namemax = 255};
    fuse_reply_statfs(req, &st);
}

/* --- the session --- */

static void op_init(void *userdata, struct fuse_conn_info *c)
{
    (void)userdata;
    c->want = c->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS |
                            FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
                            FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPLICIT_INVAL_DATA);
    c->max_write = IO_BYTES_MAX;
    c->max_readahead = IO_BYTES_MAX;
    c->max_background = BACKGROUND_MAX;
    c->congestion_threshold = BACKGROUND_MAX * 3 / 4;
}

static const struct fuse_lowlevel_ops ops = {.init = op_init,
                                             .lookup = op_lookup,
                                             .forget = op_forget,
                                             .forget_multi = op_forget_multi,
                                             .getattr = op_getattr,
                                             .setattr = op_setattr,
                                             .mkdir = op_mkdir,
                                             .create = op_create,
                                             .unlink = op_unlink,
                                             .rmdir = op_rmdir,
                                             .rename = op_rename,
                                             .open = op_open,
                                             .read = op_read,
                                             .write = op_write,
                                             .flush = op_done,
                                             .release = op_done,
                                             .fsync = op_fsync,
                                             .statfs = op_statfs,
                                             .readdir = op_readdir,
                                             .readdirplus = op_readdirplus};

static int serve(const char *mountpoint)
{
    char name[] = "bench_memfs";
    char options[] = "-odefault_permissions,fsname=memfs,subtype=memfs";
    char *args_text[] = {name, options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, args_text);
    struct fuse_session *session = fuse_session_new(&args, &ops, sizeof ops, NULL);
    fuse_opt_free_args(&args);
    if (session == NULL || fuse_session_mount(session, mountpoint) != 0)
        return 1;
    int rc = fuse_set_signal_handlers(session);
    if (rc == 0)
        rc = fuse_daemonize(0);
    if (rc == 0) {
        struct fuse_loop_config *config = fuse_loop_cfg_create();
        fuse_loop_cfg_set_clone_fd(config, 1);
        fuse_loop_cfg_set_max_threads(config, THREADS_FUSE);
        fuse_loop_cfg_set_idle_threads(config, THREADS_FUSE);
        rc = fuse_session_loop_mt(session, config);
        fuse_loop_cfg_destroy(config);
    }
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return rc < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "t:")) != -1;) {
        if (c != 't') {
            (void)fprintf(stderr, "usage: bench_memfs [-t SECONDS] MOUNTPOINT\n");
            return 2;
        }
        fs.names_s = (double)number_of(optarg);
    }
    if (optind + 1 != argc) {
        (void)fprintf(stderr, "usage: bench_memfs [-t SECONDS] MOUNTPOINT\n");
        return 2;
    }
    fs.buckets = mem_calloc(BUCKETS, sizeof(struct node *));
    node_init(&fs.root, S_IFDIR | 0755, getuid(), getgid());
    return serve(argv[optind]);
}
