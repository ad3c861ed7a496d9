/* Private to client/fileio*.c. */
#ifndef CLIENT_FILEIO_INT_H
#define CLIENT_FILEIO_INT_H

#include "client/cache_block.h"
#include "client/cache_dirty.h"
#include "client/cache_head.h"
#include "client/fileio.h"
#include "data/manifest.h"

#define NODE_STRIPES 8u
#define NODE_STRIPE_BYTES (4u * MIB)
#define AHEAD_TASKS_MAX 64u

/* A committed content; never changes; shared by counting. */
struct base {
    uint32_t refs; /* under the fileio lock */
    struct dot version;
    struct content content;   /* inline bytes are owned */
    struct manifest manifest; /* when content.kind is CONTENT_MANIFEST */
    unsigned stripe;          /* whose node cache has its nodes */
};

enum file_held {
    FILE_CLOSED, /* not open at the site */
    FILE_HELD,   /* one RPC_OPEN or RPC_CREATE is outstanding */
    FILE_LOST    /* the site does not know the object any more: ERR_STALE */
};
/* It is there from the first use until nobody refers to the inode and nothing of the file is open,
 * held or dirty (file_may_rest). Who uses it refers to the inode; the idle ring does not. */
struct file {
    struct fileio *io;
    struct inode *inode;       /* who owns us */
    uint64_t id;               /* of the inode */
    pthread_mutex_t open_lock; /* orders opening and closing at the site */
    pthread_mutex_t lock;      /* guards all below */
    pthread_cond_t moved;      /* frozen_busy or kept_busy went */
    enum file_held held;
    uint32_t handles;
    struct base *base;         /* NULL: never asked for */
    bool base_stale;           /* ask before using it for reading */
    struct dirty_layer dirty;  /* takes writes; zeroed while not `dirty_made` */
    struct dirty_layer frozen; /* being committed */
    bool dirty_made, frozen_busy;
    struct sealing *sealing;        /* of `dirty`; NULL: nothing is sealed ahead */
    struct sealing *frozen_sealing; /* of `frozen` */
    int64_t mtime_ns;               /* of the last uncommitted change */
    bool kill_setid;                /* some uncommitted write was made without privilege */
    uint64_t waste;     /* bytes stored again only because blocks are larger than what changed */
    int error;          /* last failure to commit */
    struct fs_set kept; /* attributes that were set and the site was not told of */
    bool may_keep;      /* we made it, the site holds it for us, and nothing of it was sent since */
    bool kept_busy;     /* the site is being told of `kept` */
    uint64_t error_count;
    struct dot pages_version;  /* what the kernel's pages show; none: unknown */
    uint32_t pages_generation; /* of the clock before that was so; another one: unknown */
    /* Under the fileio lock. */
    struct file *next, *prev; /* in io->dirty_files, when `listed` */
    bool listed;              /* holds an inode reference */
    bool flushing;            /* a flusher has taken it */
    bool ripe;                /* much of it is sealed: a commit costs little and frees memory */
    uint64_t dirty_since_ns;
    size_t counted_bytes;               /* our part of io->dirty_bytes */
    struct file *idle_next, *idle_prev; /* in io->idle, when `idle` */
    bool idle;
    /* Under io->files_lock. */
    struct file *all_next, *all_prev; /* in io->files */
};

struct sealing;
struct io_batch;
struct io_task {
    void (*run)(struct io_task *t); /* worker thread; frees it */
    struct io_task *next;
};
struct fileio {
    struct fileio_config config;
    struct fs_keys keys;
    struct block_cache *blocks;
    struct head_cache *heads;
    struct {
        pthread_mutex_t lock;
        struct node_cache *nodes;
    } stripes[NODE_STRIPES];
    pthread_mutex_t files_lock; /* leaf */
    struct file files;          /* ring of all */
    size_t file_count;          /* in it */
    pthread_t *threads;         /* workers, then flushers */
    unsigned thread_count;

    pthread_mutex_t lock; /* guards all below, and bases' counts */
    pthread_cond_t work;  /* something for workers */
    pthread_cond_t flush; /* something for flushers */
    pthread_cond_t room;  /* dirty_bytes went down */
    bool stopping;
    struct io_batch *batches;
    struct io_task *tasks, **tasks_last;
    unsigned task_count;
    struct file dirty_files; /* ring, oldest first */
    struct file idle;        /* ring of files held open without a handle, oldest first */
    unsigned idle_count;
    size_t dirty_bytes;
    struct oid *closes; /* to be told to the site: RPC_CLOSE */
    size_t close_count, close_cap;
    uint64_t closes_due_ns; /* when those that wait are sent, be they ever so few */
    unsigned waiting;       /* writers that wait for room */
    uint64_t handles_made;
    unsigned absent; /* answers in a row that the site has not the chunk it was asked for */
};

/* ---- fileio_pool.c ---- */
/* Runs fn(ctx, 0 .. count-1) on the workers and the caller; returns when all have run, with the
 * first error. After an error the rest may be skipped. */
int io_each(struct fileio *io, size_t count, int (*fn)(void *ctx, size_t idx), void *ctx)
    MUST_CHECK;
/* False: too many are queued; the caller keeps the task. */
bool io_submit(struct fileio *io, struct io_task *t);
void *io_worker_main(void *arg);
struct pipeline *io_pipeline(struct fileio *io); /* of the calling thread */

/* ---- fileio_chunk.c ---- */
struct base *base_new(const struct inode *i, const struct content *c, struct dot version);
struct base *base_ref(struct fileio *io, struct base *b);
void base_unref(struct fileio *io, struct base *b); /* accepts NULL */
int base_check(const struct content *c) MUST_CHECK; /* may it be used? ERR_MALFORMED */
uint64_t base_size(const struct base *b);
/* Committed bytes of [from, from + len). Waits for the site. */
enum base_reading {
    BASE_BLOCKS, /* of blocks that are not here the whole, for there will be more to read */
    BASE_PARTS   /* what is asked for */
};
int base_read(struct fileio *io,
              struct base *b,
              uint64_t from,
              uint8_t *out,
              size_t len,
              enum base_reading how) MUST_CHECK;
/* Adds [from, from + len) to the view, which has room for it; `b` is of blocks. */
int base_view(struct fileio *io, struct base *b, uint64_t from, size_t len, struct file_view *v)
    MUST_CHECK;
void base_read_ahead(struct fileio *io, struct base *b, uint64_t from, uint64_t to);
/* New chunks that go to the site with the commit that names them: no requests of their own. */
struct riders {
    pthread_mutex_t lock; /* blocks are sealed in parallel */
    struct buf bulk;      /* of RPC_COMMIT */
    unsigned count;
    bool open; /* more may get on */
};
/* Trims, hashes, asks, seals, and puts or lets ride: *ret_id (the hole for nothing but zeros).
 * Returns when the chunk is durable, or in the riders' bulk. */
int chunk_store(struct fileio *io,
                struct chunk_pieces *plain,
                struct riders *riders,
                struct chunk_id *ret_id) MUST_CHECK;
int chunk_send(struct fileio *io,
               const struct chunk_id *id,
               struct slice sealed,
               struct riders *riders) MUST_CHECK;
/* A stripe's node cache is to be locked around operations. */
void node_lock(struct fileio *io, unsigned stripe);
void node_unlock(struct fileio *io, unsigned stripe);
/* *rc is what an operation on it came to. True: it lacked these nodes, which are there now, and is
 * to be tried again; else *rc stands. Waits for the site; unlocked. */
bool nodes_brought(struct fileio *io, unsigned stripe, const struct chunk_ids *missing, int *rc);

/* ---- fileio_part.c ---- */
/* Bytes [from, to) of a block by the parts that hold them. False: read the whole block instead. */
bool part_read(struct fileio *io,
               const struct chunk_id *id,
               uint32_t from,
               uint32_t to,
               uint8_t *out) MUST_CHECK;

/* ---- fileio_build.c ---- */
/* The content that `layer` makes of `base`. */
struct content_build {
    struct base *base;
    const struct dirty_layer *layer;
    bool small_blocks;       /* blocks of the smallest size, whatever the base has */
    struct file *file;       /* with `sealing` */
    struct sealing *sealing; /* what of the layer was sealed ahead; or NULL */
    struct riders riders;    /* out: chunks that are not durable yet */
    uint64_t stored_bytes;   /* out: of blocks that were made anew */
    struct content content;  /* out: inline bytes are mem_alloc'ed */
};
int content_build(struct fileio *io, struct content_build *b) MUST_CHECK;
/* Of its blocks, unless it is inline. */
uint32_t
content_block_bytes(const struct base *b, const struct dirty_layer *layer, bool small_blocks);
void content_build_deinit(struct content_build *b);
/* What `target` becomes when [to, to + blocks) are taken from `source`, by reference. */
struct content_splice {
    const struct base *source, *target; /* manifests; the target may be inline and empty */
    uint64_t from_block, to_block, block_count, new_size;
};
int content_splice(struct fileio *io,
                   const struct content_splice *s,
                   struct content *ret) MUST_CHECK;

/* ---- fileio_seal.c ---- */
/* All with the file lock held. */
/* Bytes [from, to) of the dirty layer were written: blocks that are whole now go to the workers. */
void seal_written(struct file *f, uint64_t from, uint64_t to);
/* What was sealed ahead is of no use, as offsets moved or much was zeroed; or is used up. */
void seal_drop(struct sealing **s);                            /* accepts NULL in it */
bool seal_fits(const struct sealing *s, uint32_t block_bytes); /* accepts NULL */
enum seal_answer {
    SEAL_IS_NOT,
    SEAL_IS_DONE,
    SEAL_IS_UNDER_WAY
};
enum seal_answer seal_look(const struct sealing *s, uint64_t block, struct chunk_id *ret_id);
/* Waits until nothing is under way; of a frozen layer's nothing is from then on. */
void seal_settle(struct file *f, const struct sealing *s);

/* ---- fileio_flush.c ---- */
void *io_flusher_main(void *arg);
/* Puts `content` in place of `b`. ERR_STALE_BASE: *ret_base is what is there now. */
struct commit {
    struct oid oid;
    const struct base *base;
    const struct content *content;
    struct slice riders; /* chunks that go with it */
    int64_t mtime_ns;
    uint32_t flags;
    struct fs_set kept; /* attributes that go with it; file_commit */
    bool durable;       /* in: answer when it is; out: it is */
};
int content_commit(struct fileio *io, struct inode *i, struct commit *c, struct base **ret_base)
    MUST_CHECK;
/* Will what failed like this never succeed, or is nobody there any more to see it? */
bool file_gives_up(const struct file *f, int rc);
/* After the layers changed, file lock held: counts memory and lists the file as dirty or clean. */
void file_account(struct file *f);
/* Nothing is dirty any more. File lock held. */
void file_drop_dirty(struct file *f);
/* File lock held. */
bool file_wants_small_blocks(const struct file *f, const struct base *b);
/* Queues RPC_CLOSE. */
void io_close_later(struct fileio *io, struct oid oid);
/* Tells the site of files that nobody holds open here any more. */
void io_send_closes(struct fileio *io);

/* ---- fileio_attr.c ---- */
/* content_commit with the attributes that are kept. */
int file_commit(struct file *f, struct commit *c, struct base **ret_base) MUST_CHECK;
/* Tells the site of kept attributes, without content. *durable as in struct commit. File lock held,
 * nothing under way; held again on return. */
int file_kept_send(struct file *f, bool *durable);
/* Uncommitted content, file lock held. */
bool file_is_dirty_locked(const struct file *f);

/* ---- fileio.c ---- */
/* There while the caller refers to the inode. */
struct file *file_of(struct fileio *io, struct inode *i); /* makes it */
struct file *file_if_any(struct inode *i);                /* or NULL */
/* Loads the base when there is none, or it is stale. File lock held, and again on return. */
int file_need_base(struct file *f) MUST_CHECK;
/* Takes over `b`. File lock held, frozen layer idle or the caller's. */
void file_set_base(struct file *f, struct base *b);
uint64_t file_size_locked(const struct file *f);

#endif
