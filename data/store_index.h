/* Private to data/: the index of a store in RocksDB, without a write-ahead log.
 *
 * Keys: 'c' id -> entry; 's' segment number (big endian) -> struct segment_stat; 'm' -> struct
 * index_meta. Every batch carries the meta with the position up to which it covers the segments,
 * and the stats of the segments it touches. RocksDB keeps a prefix of the batches, so after a crash
 * entries, stats and position agree with each other (D6). Blocking; threads: any. A shell. */
#ifndef DATA_STORE_INDEX_H
#define DATA_STORE_INDEX_H

#include "data/store.h"

struct index;
struct index_meta {
    uint64_t segment; /* covered up to here ... */
    uint64_t offset;  /* ... in this file */
    uint64_t epoch;
    uint64_t next_segment; /* lowest number never used */
    uint8_t store_id[16];
};
struct segment_stat {
    uint64_t end;        /* of the last record, rounded up to a block */
    uint64_t live_bytes; /* record_bytes() of what the index points to */
    uint64_t live_count;
    uint64_t plain_bytes; /* of what they were made from */
};

/* An index that RocksDB calls corrupt is thrown away and made anew: *ret_rebuilt. */
int index_open(struct index **ret,
               const char *dir,
               size_t cache_bytes,
               bool *ret_rebuilt,
               struct err_detail *detail) MUST_CHECK;
void index_close(struct index *x); /* accepts NULL */

/* entry.segment 0: not there. With `cached_only`: ERR_AGAIN when the disk would be needed. */
int index_get(struct index *x, const struct chunk_id *id, bool cached_only, struct store_entry *ret)
    MUST_CHECK;
int index_meta_get(struct index *x, struct index_meta *ret, bool *ret_found) MUST_CHECK;
int index_stats(struct index *x,
                void (*fn)(void *ctx, uint64_t segment, const struct segment_stat *stat),
                void *ctx) MUST_CHECK;

struct index_batch;
struct index_batch *index_batch_new(void);
void index_batch_free(struct index_batch *b);
void index_batch_put(struct index_batch *b, const struct chunk_id *id, const struct store_entry *e);
void index_batch_delete(struct index_batch *b, const struct chunk_id *id);
void index_batch_stat(struct index_batch *b, uint64_t segment, const struct segment_stat *stat);
void index_batch_stat_delete(struct index_batch *b, uint64_t segment);
void index_batch_meta(struct index_batch *b, const struct index_meta *meta);
int index_write(struct index *x, struct index_batch *b) MUST_CHECK;
/* Brings all that was written down to disk; with wait false only starts to. */
int index_flush(struct index *x, bool wait) MUST_CHECK;

/* Entries in id order from `after` (NULL: from the start), exclusive. fn returns false to stop. */
int index_scan(struct index *x,
               const struct chunk_id *after,
               bool (*fn)(void *ctx, const struct chunk_id *id, const struct store_entry *e),
               void *ctx) MUST_CHECK;

#endif
