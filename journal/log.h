/* The journal of one shard: an append-only sequence of records in recycled segment files.
 *
 * Normal path: log_append() copies the record into the batch that is being filled and returns its
 * index; at the end of the loop turn, or as soon as the write in flight completes, the whole batch
 * goes out as one O_DIRECT|O_DSYNC write (group commit); then on_durable(index) runs once for the
 * batch. Failure path: a failed write is final for the object: on_failed runs once, nothing later
 * becomes durable, the owner drops what was in flight and reopens.
 *
 * Each record carries length, index, epoch, the index known durable when it was written, and a
 * CRC32C. Recovery cuts a torn tail and says so (struct log_recovery); a bad record at or below an
 * index that a later record calls durable is corruption: log_open returns ERR_CORRUPT and the
 * detail names file and offset.
 *
 * Threads: loop, except log_read(), log_durable() and log_first(), which may run on any. */
#ifndef JOURNAL_LOG_H
#define JOURNAL_LOG_H

#include "base/err.h"
#include "base/loop.h"

#define LOG_SEGMENT_BYTES_DEFAULT (16u * MIB)

struct log;

struct log_config {
    const char *dir;        /* exists; segments are DIR/<20 digits>.seg; copied */
    uint64_t segment_bytes; /* 0 = default; tests use small ones */
    uint64_t epoch;         /* written into each record appended from now on */
    bool no_sync;           /* tests only: plain writes */
    struct loop *loop;      /* borrowed */
    void *ctx;
    void (*on_durable)(void *ctx, uint64_t index); /* everything <= index is on disk */
    void (*on_failed)(void *ctx, int rc, const struct err_detail *detail); /* at most once */
};
struct log_recovery {
    uint64_t first;      /* lowest index present, 1 + last when empty */
    uint64_t last;       /* highest index present, 0 when nothing was ever written */
    uint64_t torn_bytes; /* what was cut from the tail */
    char torn_file[64];
};
struct log_record { /* borrowed during a callback */
    uint64_t index;
    uint64_t epoch;
    struct slice payload;
};

int log_open(struct log **ret,
             const struct log_config *config,
             struct log_recovery *ret_info,
             struct err_detail *detail) MUST_CHECK;
/* Waits for the write in flight (runs its callbacks), writes what is still batched, frees. Before
 * loop_run or after it returned, or from a loop callback that is not one of this log's. */
void log_close(struct log *log);
/* payload is copied; 1 <= len <= LIMIT_RECORD_BYTES. *ret_index = previous + 1.
 * ERR_NO_SPACE when no segment can be made (nothing happened), ERR_FATAL after on_failed. */
int log_append(struct log *log, const struct slice *parts, size_t part_count, uint64_t *ret_index)
    MUST_CHECK;
/* Makes sure that the next log_append, of a payload of at most `len` bytes, finds its segment: for
 * who must append to several logs or to none. 0, or what log_append would say; nothing is appended.
 */
int log_reserve(struct log *log, size_t len) MUST_CHECK;
uint64_t log_last(const struct log *log);    /* highest index appended */
uint64_t log_durable(const struct log *log); /* highest index on disk; any thread */
uint64_t log_first(const struct log *log);   /* lowest index still readable; any thread */
/* Calls fn for each record from `from` to at most log_durable(), until bytes_max payload bytes were
 * delivered (always at least one record) or fn returns false (that record counts as delivered).
 * *ret_next = first index not delivered. ERR_NOT_FOUND when `from` < log_first(): it was trimmed.
 * ERR_CORRUPT when the record at `from` is damaged; damage further on is told by the call that
 * starts there. Served from a memory tail of the newest few MiB where possible. */
int log_read(struct log *log,
             uint64_t from,
             size_t bytes_max,
             bool (*fn)(void *ctx, const struct log_record *record),
             void *ctx,
             uint64_t *ret_next) MUST_CHECK;
/* Records below `keep_from` are no longer needed: whole segments below it are recycled (renamed and
 * overwritten later) or, beyond a small stock, removed. */
void log_trim(struct log *log, uint64_t keep_from);
uint64_t log_bytes(const struct log *log); /* on disk, for retention */
/* Of records appended from now on. */
void log_epoch_set(struct log *log, uint64_t epoch);
/* Nothing above `last` stays, durably: what a replica has that its primary has not. Waits until all
 * that was appended is written (on_durable runs); afterwards log_last() == log_durable() == last.
 * log_first() - 1 <= last <= log_last(). Errors as log_reset. */
int log_cut(struct log *log, uint64_t last) MUST_CHECK;
/* Bytes from the record `index` to the end, up to 64 KiB too many; 0: it is not durable. */
uint64_t log_bytes_from(const struct log *log, uint64_t index);
/* Continue at `next` with nothing before it: for a replica that starts from a snapshot. Waits for
 * the write in flight and drops what is batched. After ERR_NO_SPACE nothing has changed; any other
 * error ends the log as a failed write does, but without on_failed. */
int log_reset(struct log *log, uint64_t next) MUST_CHECK;

#endif
