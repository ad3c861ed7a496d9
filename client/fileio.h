/* Contents of files as this mount sees them: committed content, blocks in memory, and what was
 * written and is not committed yet.
 *
 *   write -> dirty layer -> frozen layer -> blocks -> hash, seal -> CHUNK_PUT -> manifest -> COMMIT
 *   read  <- dirty, frozen, block cache, CHUNK_GET + open
 *
 * A commit names the version it is based on. If the site has a newer one, the same layer is applied
 * to that instead, so ranges written by others stay (C1). A layer is given up only when the commit
 * succeeded or when its failure was reported (C1).
 *
 * Locks, in order: open_lock (held over requests) > file lock (never held over a request or any
 * other wait but its own condition) > fileio lock > inode table, clock, caches.
 * Threads: any. Functions that say so may wait for the site. */
#ifndef CLIENT_FILEIO_H
#define CLIENT_FILEIO_H

#include <sys/uio.h>

#include "client/conn.h"
#include "client/inode_clock.h"
#include "client/inode_flight.h"
#include "client/inode_table.h"

struct fileio;
struct fileio_config {
    struct conn *conn;
    const struct clock *clock;
    struct inode_table *inodes;
    struct inode_clock *inode_clock;
    struct flight *flight;
    const uint8_t *fs_key;  /* 32 bytes, copied */
    size_t memory_bytes;    /* dirty data and block cache together */
    unsigned worker_count;  /* threads that hash, seal, open, put and get */
    unsigned commit_age_ms; /* dirty data older than this are committed */
    unsigned idle_max;      /* files kept open at the site without a handle here; 0: 1,024 */
    /* The kernel's pages of this file are wrong from now on; must not wait for the kernel. */
    void (*pages_changed)(void *ctx, struct inode *i);
    void *ctx;
};
int fileio_new(struct fileio **ret, const struct fileio_config *config) MUST_CHECK;
/* Commits everything that is dirty; the first error. Waits for the site. */
int fileio_sync_all(struct fileio *io);
/* Ends the threads; what is dirty now is lost, and logged; the site is told what was closed, unless
 * the conn was stopped before. */
void fileio_stop(struct fileio *io);
void fileio_free(struct fileio *io); /* after the inode table was emptied; accepts NULL */

/* ---- open files ---- */
struct open_file {
    struct inode *inode;   /* referenced */
    uint64_t id;           /* never used again; also the owner of its flock locks */
    int flags;             /* of open(2) */
    uint64_t error_seen;   /* file errors up to here were reported on this handle */
    uint64_t read_next;    /* a read here goes on with the last one */
    uint64_t ahead_to;     /* blocks before this were asked for */
    uint32_t ahead_window; /* bytes */
    pthread_mutex_t lock;  /* guards the read-ahead fields */
};
/* Waits for the site. *ret_keep: the kernel's pages are still right. */
int file_open(struct fileio *io, struct inode *i, int flags, struct open_file **ret, bool *ret_keep)
    MUST_CHECK;
/* The site opened it by RPC_CREATE; `reply` has attributes and content; `since` as noted before. */
struct open_file *file_created(
    struct fileio *io, struct inode *i, int flags, const struct fs_reply *reply, uint64_t since);
/* Commits what is dirty first (errors were flush's to report). Waits for the site. */
void file_close(struct fileio *io, struct open_file *h);
/* The inode is going: takes its file away. Does not wait. */
void file_evict(struct fileio *io, struct inode *i);
/* All inodes of which something is open, held or dirty, or was a moment ago; each with a reference
 * for the caller; free the array with mem_free. */
struct inode **fileio_files(struct fileio *io, size_t *ret_count);

/* ---- data ---- */
/* Waits for the site. */
int file_read(struct fileio *io,
              struct open_file *h,
              uint64_t offset,
              uint8_t *out,
              size_t len,
              size_t *ret_len) MUST_CHECK;
/* The same without a copy where that can be: pieces that lie in the block cache, which are there
 * until file_view_done. Zeroed or after an error there is nothing to be done with it. */
#define FILE_VIEW_BYTES_MAX (1u << 20) /* what is beyond is not looked at: reads are short then */
#define FILE_VIEW_PIECES_MAX 72u
#define FILE_VIEW_BLOCKS_MAX 18u
struct block;
struct file_view {
    struct iovec at[FILE_VIEW_PIECES_MAX];
    int count;
    struct block *blocks[FILE_VIEW_BLOCKS_MAX]; /* referenced */
    unsigned block_count;
    uint32_t read_out; /* bits of those whose end is in the view */
    bool once;         /* for a sequential reader through the kernel's cache */
    uint8_t *own;      /* or NULL */
};
int file_read_view(struct fileio *io,
                   struct open_file *h,
                   uint64_t offset,
                   size_t len,
                   struct file_view *ret) MUST_CHECK;
void file_view_done(struct fileio *io, struct file_view *v);
enum file_write_flags {
    FILE_WRITE_APPEND = 1, /* at the end, wherever that is */
    FILE_WRITE_KILL = 2    /* by someone who may not keep set-id bits */
};
/* Waits when too much is dirty. */
int file_write(struct fileio *io,
               struct inode *i,
               uint64_t offset,
               struct slice data,
               unsigned flags) MUST_CHECK;
/* The same of bytes in buffers of cache_pages.h, full ones and the last what is left; those that
 * were taken over are NULL afterwards. */
struct file_pages {
    uint8_t **at;
    size_t len;
};
int file_write_pages(struct fileio *io,
                     struct inode *i,
                     uint64_t offset,
                     struct file_pages data,
                     unsigned flags) MUST_CHECK;
int file_truncate(struct fileio *io, struct inode *i, uint64_t size, unsigned flags) MUST_CHECK;
int file_zero(struct fileio *io, struct inode *i, uint64_t from, uint64_t to, bool extend)
    MUST_CHECK; /* zeroes; extends when asked to */
int file_extend(struct fileio *io, struct inode *i, uint64_t size) MUST_CHECK;
/* Commits what was dirty at the call. Waits for the site. ERR of this attempt. */
int file_flush(struct fileio *io, struct inode *i);
/* The same, and all that was committed of the file before, by whatever mount, is durable. */
int file_sync(struct fileio *io, struct inode *i);
/* An error that this handle has not reported yet, once. */
int file_error(struct open_file *h);
/* SEEK_DATA or SEEK_HOLE. Commits first. ERR_NO_SUCH_OFFSET. */
int file_seek(struct fileio *io, struct inode *i, uint64_t offset, int whence, uint64_t *ret_offset)
    MUST_CHECK;
/* Copies by reference as much as block borders allow; *ret_len may be 0: copy by hand. */
struct file_clone {
    struct inode *from, *to;
    uint64_t from_offset, to_offset, len;
};
int file_clone(struct fileio *io, const struct file_clone *c, uint64_t *ret_len) MUST_CHECK;

/* ---- attributes of new files (fileio_attr.c) ---- */
/* The site made the file for us, as asked for after `since`, and holds it. */
void file_keep_begin(struct fileio *io, struct inode *i, uint64_t since);
bool file_may_keep(struct inode *i); /* a hint: file_keep decides */
/* Takes attributes that go to the site with the file's first commit; `a` is what it has now. False:
 * this file's do not, tell the site. */
bool file_keep(struct inode *i, const struct fs_attr *a, const struct fs_set *s);
/* No more are taken from now on. True: some are kept. */
bool file_keep_end(struct inode *i);
/* The same, and those that are kept are at the site on return. Waits for the site. */
int file_settle(struct inode *i);

/* ---- what the rest of the mount asks and tells ---- */
bool file_is_dirty(struct inode *i); /* or attributes are kept */
/* Puts size and times of uncommitted changes and kept attributes over `a`; true when there are any.
 */
bool file_overlay(struct inode *i, struct fs_attr *a);
uint64_t file_size(struct inode *i, uint64_t committed_size);
/* The site said that content changed: what is known of it is not to be used without asking. */
void file_invalidate(struct fileio *io, struct inode *i);
/* The site says that `version` is current. True when the kernel may show something else. */
bool file_check(struct fileio *io, struct inode *i, struct dot version);
/* What was committed is not there any more: for every open handle to report. */
void file_lost(struct inode *i, int rc);
/* After a reconnect: opens again at the site what was open; files that are gone give ERR_STALE from
 * then on. One that will be made again is opened with that. */
void file_reopen(struct fileio *io, struct inode *i);
/* The site made it again, open; `i` may be NULL. Closes what nobody here has open any more. */
void file_made_again(struct fileio *io, struct inode *i, struct oid oid);

#endif
