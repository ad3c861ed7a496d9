/* Insides of the log, shared by log*.c.
 *
 * Data flow: log_append() puts records into `filling`; a batch that is full, or that would not fit
 * its segment, is queued behind it; log_write.c sends one batch at a time to the disk; a batch that
 * is durable goes into the memory tail, where readers find it.
 *
 * `lock` guards what readers on other threads see: the list of segments with their marks,
 * `durable` and `first`, the memory tail, the reference counts of batches and the buffers kept for
 * reuse. Everything else is the loop's. */
#ifndef JOURNAL_LOG_INT_H
#define JOURNAL_LOG_INT_H

#include <pthread.h>

#include "journal/log_format_int.h"

#define LOG_WRITE_BYTES_MAX ((size_t)MIB)      /* one write, unless one record is larger */
#define LOG_TAIL_BYTES_MAX ((size_t)(4 * MIB)) /* of batches kept in memory for readers */
#define LOG_BUFFER_SIZES 3u
#define LOG_BUFFERS_MAX 6u         /* of each size, kept for the next batches */
#define LOG_MARK_BYTES (64u * KIB) /* distance of marks in a segment */
#define LOG_STOCK_MAX 2u           /* free files kept for reuse */

struct log_mark { /* a record's place; readers start at the mark before theirs */
    uint64_t index, offset;
};
struct log_segment { /* one file that holds records, or will */
    uint64_t number;
    uint64_t first;         /* index of its first record */
    uint64_t bytes;         /* of the file */
    uint64_t end;           /* behind the last durable write */
    bool recycled;          /* see LOG_HEADER_RECYCLED */
    bool headed;            /* its header is on disk */
    int fd;                 /* -1 when nothing more is written to it */
    struct log_mark *marks; /* ascending */
    size_t mark_count, mark_cap;
};
struct log_batch {          /* one write; immutable once it is sealed */
    struct log_batch *next; /* queue, later memory tail */
    struct log_segment *segment;
    uint64_t number;      /* of the segment, which may be gone before the batch is */
    uint64_t offset;      /* in the segment; a multiple of LOG_BLOCK */
    uint64_t first, last; /* indexes */
    size_t head_bytes;    /* LOG_BLOCK when it begins with the segment's header, else 0 */
    size_t len, cap;
    uint8_t *data; /* aligned to LOG_BLOCK */
    uint32_t refs; /* under the lock */
};

enum log_prepare_step { /* of the next segment, see log_prepare.c */
    LOG_PREPARE_IDLE,
    LOG_PREPARE_RESERVE,
    LOG_PREPARE_ZERO,
    LOG_PREPARE_SYNC,
    LOG_PREPARE_RENAME,
    LOG_PREPARE_SYNC_DIR
};
struct log_prepare {
    enum log_prepare_step step;
    struct loop_req req;
    struct log_segment *segment;
    uint64_t zeroed;       /* bytes written so far */
    char from[32], to[32]; /* names for the rename */
    bool failed;           /* the last try did: the next append that needs it tries, and reports */
};

struct log {
    struct loop *loop;
    void *ctx;
    void (*on_durable)(void *ctx, uint64_t index);
    void (*on_failed)(void *ctx, int rc, const struct err_detail *detail);
    char *dir;
    int dir_fd;
    int lock_fd; /* the directory once more, locked: one log at a time */
    bool no_sync;
    bool direct;    /* O_DIRECT works here; set once, by log_open */
    bool dir_dirty; /* a name went away and the directory was not synced since */
    uint64_t segment_bytes;
    uint64_t epoch;
    uint64_t salt;

    pthread_mutex_t *lock;         /* taken through const pointers, too */
    struct log_segment **segments; /* ascending; the last one is appended to */
    size_t segment_count, segment_cap;
    struct log_batch *tail_first, **tail_last;
    size_t tail_bytes;
    struct log_buffers { /* spare ones, see log_write.c */
        uint8_t *at[LOG_BUFFERS_MAX];
        size_t count;
    } buffers[LOG_BUFFER_SIZES];

    struct log_segment *spare; /* prepared, named, unused: number = last one's + 1 */
    struct log_prepare prepare;
    uint64_t stock[LOG_STOCK_MAX]; /* numbers of free files of segment_bytes each */
    size_t stock_count;

    uint64_t last;           /* appended */
    uint64_t durable, first; /* written by the loop, under the lock */
    uint64_t offset;         /* in the last segment: where the batch after `filling` goes */
    struct log_batch *filling;
    struct log_batch *queue_first, **queue_last;
    struct log_batch *writing;
    size_t batch_bytes; /* of the batch sealed last: how large the next may get */
    struct loop_req write_req;
    struct loop_defer defer;
    bool failed;
    bool closing; /* nothing more is accepted */
};

/* ---- log_segment.c: files; those without an err_detail return 0 or an errno ---- */
#define LOG_NAME_LEN 32
void log_segment_name(uint64_t number, char out[LOG_NAME_LEN]);
void log_free_name(uint64_t number, char out[LOG_NAME_LEN]);
int log_os_error(const struct log *log,
                 const char *name,
                 const char *what,
                 int errnum,
                 struct err_detail *detail);
struct log_segment *log_segment_new(uint64_t number);
void log_segment_free(struct log_segment *segment); /* accepts NULL; closes */
struct log_segment *log_segment_current(const struct log *log);
void log_segment_add(struct log *log, struct log_segment *segment);
void log_segment_mark(struct log_segment *segment, uint64_t index, uint64_t offset);
/* Finds out whether O_DIRECT works in the directory, and whether it can be written to. */
int log_direct_probe(struct log *log) MUST_CHECK;
/* One for writing is locked as long as anything refers to it, which includes writes that the kernel
 * still has after the process died: log_open waits for those. log_file_close gives the lock back at
 * once, with no write in flight; the ring may go on referring to the file for seconds. */
int log_file_open(const struct log *log, const char *name, int flags, int *ret_fd) MUST_CHECK;
void log_file_close(int fd);
int log_file_write(const struct log *log, int fd, const void *data, size_t len, uint64_t offset)
    MUST_CHECK; /* durable on return; 0 or an errno */
int log_file_zero(const struct log *log, int fd, uint64_t from, uint64_t to) MUST_CHECK;
int log_dir_sync(struct log *log) MUST_CHECK;
/* A zero-filled file, open, durable; blocking. first > 0: with a header that makes it the start of
 * the log, first being its first index. It gets its .seg name last. */
int log_segment_create(struct log *log,
                       uint64_t number,
                       uint64_t bytes,
                       uint64_t first,
                       struct log_segment **ret,
                       struct err_detail *detail) MUST_CHECK;
int log_segment_grow(struct log *log, struct log_segment *segment, uint64_t bytes) MUST_CHECK;
int log_segment_write_header(const struct log *log,
                             struct log_segment *segment,
                             uint32_t flags) MUST_CHECK;
void log_segment_header(const struct log *log,
                        const struct log_segment *segment,
                        uint32_t flags,
                        uint8_t out[LOG_BLOCK]);
/* Segments below the last one that begin above index leave the list, and their files go; a file
 * that stays is removed when the log is opened next. */
void log_segment_drop_above(struct log *log, uint64_t index);
/* Takes the lowest segment out of the list and recycles or removes its file. */
int log_segment_retire(struct log *log) MUST_CHECK;
/* A large block of zeros, aligned. */
extern const uint8_t *const log_zeros;
#define LOG_ZEROS_BYTES ((size_t)MIB)

/* ---- log_prepare.c: the next segment, made ready beforehand ---- */
void log_prepare_start(struct log *log);  /* no effect when there is one */
void log_prepare_finish(struct log *log); /* waits for one under way */
/* The segment after the last one, with room for need bytes; becomes the last one. */
int log_segment_next(struct log *log, size_t need) MUST_CHECK;
/* Makes sure of a spare with at least so many bytes. */
int log_spare_make(struct log *log, uint64_t bytes) MUST_CHECK;

/* ---- log_write.c: batches ---- */
struct log_batch *log_batch_new(struct log *log); /* after the last one */
void log_batch_unref(struct log *log, struct log_batch *batch);
void log_batch_append(struct log *log,
                      struct log_batch *batch,
                      const struct slice *parts,
                      size_t part_count,
                      size_t payload_len);
void log_seal(struct log *log);                   /* filling goes to the queue */
void log_write_start(struct log *log);            /* when none is in flight */
void log_write_finish(struct log *log, bool all); /* waits; all: writes the queue as well */
void log_fail(struct log *log, int rc, const struct err_detail *detail);
void log_tail_drop(struct log *log);
void log_buffers_drop(struct log *log);
void log_queue_drop(struct log *log); /* what was not written yet */

/* ---- log_recover.c ---- */
int log_recover(struct log *log,
                struct log_recovery *ret_info,
                struct err_detail *detail) MUST_CHECK;

#endif
