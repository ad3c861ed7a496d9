/* What clients and nodes of a site say to each other: requests, replies, pushes.
 *
 * One struct for all requests and one for all replies; on the wire a msgpack map of small integer
 * tags, only the fields that are set. Unknown tags are skipped (newer peers), missing ones read as
 * zero. Bulk data (chunks) travels in the frame's bulk part.
 *
 * Exactly once: a request that changes something carries (session, number), number > 0 and unique
 * per session; a client that lost its connection repeats it with the same number on a new
 * connection and gets the first answer. `acked` tells up to which number all replies have arrived.
 *
 * Ahead of the disk: a change with `ahead` may be answered when the node has applied it, with
 * REPLY_AHEAD; PUSH_DURABLE follows when it is durable. Until then the client keeps the request,
 * and sends it again to a node that has started anew.
 *
 * Threads: any; pure. */
#ifndef SITE_PROTO_H
#define SITE_PROTO_H

#include "journal/op.h"

enum rpc_type {
    RPC_HELLO = 1,   /* session (0: open a new one); flags HELLO_PUSH for the push connection; name:
                      * HOST:MOUNTPOINT, for people, may be empty.
                        reply: session, site_id, site name, root, shard_count, fs keys (bulk:
                        32 bytes), flags SITE_* */
    RPC_LOOKUP,      /* oid = parent, name -> attr (name "." = attr of oid; ".." = parent) */
    RPC_GETATTR,     /* oid -> attr */
    RPC_RESOLVE_INO, /* size = 64-bit inode number -> attr (for file handles) */
    RPC_SETATTR,     /* oid, set mask + values -> attr */
    RPC_CREATE,      /* oid = parent, name, kind, mode, umask, uid, gid, groups; flags OPEN_*;
                        CREATE_HOLDS; data = symlink target, rdev; oid2 = its oid, when it was
                        answered ahead, lost, and is made again -> attr, dir; also mknod,
                        symlink */
    RPC_MKDIR,       /* oid = parent, name, mode, umask, uid, gid -> attr, flags REPLY_NEW */
    RPC_LINK,        /* oid = file, oid2 = new parent, name -> attr, dir2 */
    RPC_UNLINK,      /* oid = parent, name -> dir, oids */
    RPC_RMDIR,
    RPC_RENAME,    /* oid = parent, name, oid2 = new parent, name2, flags RENAME_* (Linux)
                      -> dir, dir2, oids */
    RPC_READDIR,   /* oid, name = after, count -> entries (with attr: readdirplus) */
    RPC_OPEN,      /* oid, flags OPEN_AGAIN -> attr, content; the session holds the file from now
                      on */
    RPC_CLOSE,     /* oid, oids: one RPC_OPEN (or CREATE) less of each. Never fails. */
    RPC_CONTENT,   /* oid -> attr + content: the current version */
    RPC_COMMIT,    /* oid, base = version dot it is based on, content, mtime_ns, flags
                      COMMIT_*, kept = attributes that were set since -> attr (with the new
                      version); ERR_STALE_BASE + attr, content of what is there now. bulk = new
                      chunks of the content (rider_append), durable before the commit is
                      looked at */
    RPC_SETXATTR,  /* oid, name, data, flags XATTR_CREATE/REPLACE */
    RPC_GETXATTR,  /* oid, name -> data */
    RPC_LISTXATTR, /* oid -> data: names, each with its NUL */
    RPC_REMOVEXATTR,
    RPC_READLINK,    /* oid -> data */
    RPC_LOCK,        /* oid, lock -> rc (ERR_WOULD_BLOCK), or with LOCK_WAIT: flags REPLY_QUEUED,
                        and a PUSH_LOCK_GRANTED with this number later */
    RPC_LOCK_TEST,   /* oid, lock -> lock */
    RPC_LOCK_CANCEL, /* number2 = the waiting request's number */
    RPC_STATFS,      /* -> statfs */
    RPC_SYNC,        /* oid or none: everything acknowledged before is durable when it returns */
    RPC_FORGET,      /* oids: the mount dropped them from its caches */
    RPC_CHUNK_PUT,   /* chunk = id, bulk = sealed bytes; reply when durable. With flags
                        CHUNK_SHARED they are [size, size + count) of the memory in common */
    RPC_CHUNK_GET,   /* chunk = id -> bulk; the node fetches from peers what it has not. With
                        count: only bytes [size, size + count) of it, as far as it goes; flags
                        CHUNK_GET_HEAD: after its first CHUNK_HEAD_BYTES_MAX bytes (data/chunk.h).
                        Then number2 = its length, and the node has checked nothing. With flags
                        CHUNK_SHARED and no count: flags REPLY_SHARED may say that instead of bulk
                        it is in the memory in common: number2 = where << 32 | its length */
    RPC_CHUNK_HAS,   /* data = ids, 32 bytes each -> data: one byte each, 0 or 1 */
    RPC_INVAL_ACK,   /* push connection: number2 = the push's id */
    RPC_PING,
    RPC_ADMIN,   /* data = JSON request -> data = JSON reply (command line, status) */
    RPC_RESTORE, /* the node's own requests only. oid = parent, name, kind, content, mtime_ns,
                    data = struct perm encoded, flags RESTORE_NEW: makes the file, or gives the
                    one that is there a new version */
    RPC_SHARE,   /* -> memory that this connection and its client have in common from now on
                    (a descriptor beside the answer); SITE_SHARES */
    RPC_FLUSHED, /* number2 = the number of a PUSH_FLUSH; 0: the mount ends, and nothing is left of
                    it. flags FLUSHED_NOT: not all could be committed */
    RPC_TYPE_END,

    PUSH_INVALIDATE = 100, /* entries of struct fs_inval; client drops caches, then RPC_INVAL_ACK */
    PUSH_LOCK_GRANTED,     /* number2 = number of the RPC_LOCK request; rc */
    PUSH_DURABLE,          /* data = numbers of requests answered ahead, 8 bytes each */
    PUSH_RECALL,           /* entries as of PUSH_INVALIDATE: somebody asks for these new files; what
                              the client keeps of them it sends, then RPC_INVAL_ACK */
    PUSH_FLUSH             /* number2: chunks that were put before it came are to be committed, then
                              RPC_FLUSHED; to who said HELLO_FLUSHES. May come again. */
};

#define HELLO_PUSH 1u
#define HELLO_ADMIN 2u       /* command line: no session */
#define HELLO_FLUSHES 4u     /* with HELLO_PUSH: knows PUSH_FLUSH */
#define SITE_TAKES_RIDERS 1u /* chunks may come with the COMMIT that names them */
#define SITE_SHARES 2u       /* RPC_SHARE, on Unix sockets */
#define SITE_HOLDS 4u        /* CREATE_HOLDS; attributes may come with the COMMIT */
/* Beside the bits of open(2): until it commits the new file, sets an attribute of it or closes it,
 * the client may keep attributes that are set; who else needs them waits for a PUSH_RECALL. */
#define CREATE_HOLDS 0x40000000u
/* After a reconnect: it counts only where the session does not hold the file, so that it is one
 * RPC_CLOSE that lets it go, whether the node had forgotten or not. */
#define OPEN_AGAIN 0x20000000u
#define COMMIT_KILL_SETID 1u /* clear set-id bits and capabilities (writer without privilege) */
#define COMMIT_APPEND 4u     /* informational */
#define RESTORE_NEW 1u       /* nothing may be there yet */
#define REPLY_QUEUED 1u
#define REPLY_AHEAD 4u
#define REPLY_NEW 2u /* MKDIR: nobody knew the directory before; it is empty */
#define REPLY_SHARED 8u
#define CHUNK_GET_HEAD 1u
#define CHUNK_SHARED 2u
#define FLUSHED_NOT 1u
#define LOCK_WAIT 1u
#define LOCK_FLOCK 2u   /* whole-file flock; otherwise POSIX record lock */
#define LOCK_RECLAIM 4u /* held before the node started again; see site/lock.h */

/* Bits of fs_request.set: which of the values apply (SETATTR). */
#define SET_MODE 1u
#define SET_UID 2u
#define SET_GID 4u
#define SET_SIZE                                                                                   \
    8u /* truncate or extend; the server makes inline and manifest cuts that                       \
          need no data; otherwise ERR_NOT_SUPPORTED and the client commits */
#define SET_ATIME 16u
#define SET_MTIME 32u
#define SET_ATIME_NOW 64u
#define SET_MTIME_NOW 128u
#define SET_KILL_SETID 256u /* with SET_UID/SET_GID/SET_SIZE by an unprivileged caller */
#define SET_CTIME 512u      /* nothing but ctime */

/* Attributes to be set. */
struct fs_set {
    uint32_t set; /* SET_*: which of them */
    uint32_t mode, uid, gid;
    int64_t atime_ns, mtime_ns;
    int64_t ctime_ns; /* when they were set, by the client's clock; 0: when it is evaluated */
};
/* Those that may come with a COMMIT. */
#define SET_KEPT (SET_MODE | SET_UID | SET_GID | SET_ATIME | SET_MTIME)

struct fs_lock {
    uint64_t owner;      /* of the kernel, unique within the session */
    uint64_t start, end; /* inclusive; end = UINT64_MAX: to the end */
    uint32_t pid;
    uint8_t type; /* 0 read, 1 write, 2 unlock */
};

struct fs_attr {
    struct oid oid;
    uint64_t ino;  /* 64-bit inode number, stable, derived from the oid */
    uint32_t mode; /* with S_IFMT */
    uint32_t nlink, uid, gid;
    uint64_t rdev, size, blocks; /* blocks of 512 */
    int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
    struct dot version; /* of files: the base for RPC_COMMIT */
    uint64_t change;    /* differs whenever anything of the object changed */
    bool has_acl, has_xattr;
};

struct fs_entry { /* of a directory; also of an invalidation */
    struct slice name;
    struct fs_attr attr;
    bool has_attr; /* false: only oid and ino are set */
};
struct fs_inval {
    struct oid oid;    /* object whose attributes (and contents) changed; or parent */
    struct slice name; /* not empty: this name in directory `oid`; "*": all names */
    bool content;
};
struct fs_statfs {
    uint64_t block_bytes, blocks, blocks_free, blocks_available, files, files_free;
};

struct fs_request {
    uint64_t session, number, acked;
    struct oid oid, oid2;
    struct slice name, name2;
    uint32_t flags, set;
    uint32_t mode, umask, uid, gid, pid;
    uint32_t count;
    uint8_t kind; /* enum oid_kind, for CREATE */
    uint64_t rdev, size, number2;
    int64_t atime_ns, mtime_ns;
    struct slice data;
    struct dot base;
    bool has_content;
    struct content content;
    struct fs_lock lock;
    uint8_t chunk[32];
    bool has_chunk;
    const struct oid *oids; /* FORGET, CLOSE; in the arena */
    uint32_t oid_count;
    struct fs_set kept; /* COMMIT: of SET_KEPT, without set-id bits */
    /* CREATE, SETATTR, COMMIT, UNLINK, RENAME: the answer need not wait for the disk. GETATTR,
     * OPEN, CONTENT: nor for what this session changed so. */
    bool ahead;
};
struct fs_reply {
    int32_t rc;          /* 0 or a code of base/err.h */
    struct slice detail; /* a sentence, may be empty */
    uint64_t session, number2;
    uint32_t flags, shard_count;
    site_id_t site;
    struct slice name; /* site name */
    bool has_attr;
    struct fs_attr attr;
    bool has_content;
    struct content content;
    struct slice data;
    bool has_lock;
    struct fs_lock lock;
    bool has_statfs;
    struct fs_statfs statfs;
    const struct fs_entry *entries; /* in the arena */
    uint32_t entry_count;
    bool more;                     /* READDIR: there is more after the last entry */
    const struct fs_inval *invals; /* PUSH_INVALIDATE */
    uint32_t inval_count;
    /* Of a change of names: the directories as they are now, `dir` the one that `oid` named and
     * `dir2` that of `oid2`, where the node can tell at once; and all other objects that changed
     * with it. No `oids`: any object may have changed. */
    bool has_dir, has_dir2;
    struct fs_attr dir, dir2;
    const struct oid *oids; /* in the arena */
    uint32_t oid_count;
};
/* Bound on entries and invals of one reply; a READDIR or push that has more is split. */
#define FS_ENTRIES_MAX 16384u
/* Names of up to LIMIT_PATH_BYTES pass, so that what is too long for a name gets its POSIX answer
 * from the server's core. Slices are borrowed from `s`, arrays live in the arena. */
void fs_request_encode(const struct fs_request *r, struct buf *out);
int fs_request_decode(struct slice s, struct op_arena *arena, struct fs_request *ret) MUST_CHECK;
void fs_reply_encode(const struct fs_reply *r, struct buf *out);
int fs_reply_decode(struct slice s, struct op_arena *arena, struct fs_reply *ret) MUST_CHECK;

/* A chunk that rides with a COMMIT, in its bulk: id (32), length u32, sealed bytes. */
#define RIDERS_MAX 64u
#define RIDERS_BYTES_MAX (2u * MIB)
#define RIDER_HEAD_BYTES 36u
struct rider {
    uint8_t id[32];
    struct slice sealed; /* not empty; borrowed from the bulk */
};
void rider_append(struct buf *bulk, const uint8_t id[32], struct slice sealed);
/* *ret_count of at most RIDERS_MAX; ERR_MALFORMED, ERR_TRUNCATED, ERR_LIMIT. */
int riders_decode(struct slice bulk, struct rider ret[RIDERS_MAX], uint32_t *ret_count) MUST_CHECK;

/* 64-bit inode numbers, reversible up to a short scan: bit 63 zero; files: shard (8 bits), low 8
 * bits of a hash of the site id, 44 bits of counter, kind; directories: a bit, shard, 54 bits of
 * hash. The root is 1. */
uint64_t oid_ino(struct oid o);
/* The other way, for RPC_RESOLVE_INO. Directories: all oids from *ret_first to *ret_last (in the
 * order of oid_cmp) that oid_ino() maps to `ino` are candidates; false when ino is no directory's.
 */
bool ino_dir_range(uint64_t ino, struct oid *ret_first, struct oid *ret_last);
/* Others: the candidates that `site` may have made, one per kind; 0 when none. */
#define INO_OIDS_MAX 4u
unsigned ino_file_oids(uint64_t ino, site_id_t site, struct oid ret[INO_OIDS_MAX]);

#endif
