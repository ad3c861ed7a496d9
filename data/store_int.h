/* Private to data/: the parts of a store.
 *
 *   store.c          open, close, statistics
 *   store_segment.c  segment files: table, descriptors, making and removing
 *   store_recover.c  what open does with what is on disk
 *   store_lane.c     changes of the index, and all work on it that may block
 *   store_write.c    puts: dedup, groups, group commit
 *   store_read.c     gets and has
 *   store_upkeep.c   garbage and scrub: what walks the index
 *   store_compact.c  half-dead segments
 *
 * The index lane: one pool job at a time does all that may block on the index (slow lookups,
 * writing changes down, scans). Changes are kept in `recent`, which overrides the index, until the
 * job that wrote them down has returned. As lookups and scans are in the same lane, nothing is
 * dropped from `recent` while an older reading of the index is still to be looked at (D6). */
#ifndef DATA_STORE_INT_H
#define DATA_STORE_INT_H

#include "data/store.h"
#include "data/store_format.h"
#include "data/store_index.h"

#define STORE_GROUP_BYTES (8u * MIB)           /* one write; holds the largest record */
#define STORE_SEGMENT_BYTES_MAX (256u * MIB)   /* recovery reads a whole one into memory */
#define STORE_FDS_MAX 256u                     /* open segment files that nobody reads */
#define STORE_INDEX_DELAY_NS (100 * NS_PER_MS) /* changes wait this long to be written together */
#define STORE_UNFLUSHED_BYTES_MAX (512u * MIB) /* of segments to scan after a crash, about */
#define STORE_SCAN_ENTRIES 1024u               /* index entries per scan job */
#define STORE_READ_TRIES 3u                    /* a record may move between lookup and read */

struct store_segment {
    uint64_t number;
    struct segment_stat stat;
    uint64_t file_bytes;                 /* on disk */
    struct store_segment *newer, *older; /* idle descriptors, by last use */
    struct store_segment *dirty_next;    /* stat is to be written down */
    uint32_t refs;                       /* reads under way, or being written */
    int fd;                              /* -1: closed */
    bool dirty;
    bool known;   /* recovery: the index has its stat */
    bool removed; /* out of the table; freed at the last unref */
    bool stuck;   /* compaction could not empty it: not tried again in this run */
};

/* A change that the index has not been told of. */
struct recent {
    struct chunk_id id;
    struct store_entry entry; /* segment 0: deleted */
    uint64_t change;          /* its number */
};

struct group {
    uint8_t *buf; /* STORE_GROUP_BYTES, aligned */
    uint32_t len; /* filled */
    struct store_put *first, **last;
};

struct scanned {
    struct chunk_id id;
    struct store_entry entry;
};
/* A job that reads entries of the index in id order. */
struct scan {
    struct store *store;
    struct chunk_id after; /* in, out: the hole is the start */
    bool (*want)(struct scan *scan,
                 const struct chunk_id *id,
                 const struct store_entry *e); /* pool; goes into `at`? NULL: all */
    void (*done)(struct scan *scan, int rc);   /* loop */
    struct scanned at[STORE_SCAN_ENTRIES];     /* out */
    uint32_t count, seen;
    uint64_t young_chunks, young_bytes; /* out, of a sweep: not old enough */
    bool end;                           /* out: no entries are left */
    int rc;
    struct scan *next;
};
/* Waits until all changes made so far are in the index, and with `flush` on disk. */
struct settle {
    bool flush;
    void (*done)(struct settle *settle, int rc); /* loop */
    struct settle *next;
};

enum lane_kind {
    LANE_IDLE,
    LANE_LOOKUP,
    LANE_WRITE,
    LANE_SCAN
};
struct lane {
    enum lane_kind running, last;
    struct pool_job job;
    int rc;
    struct store_lookup *lookups, **lookups_last; /* waiting */
    struct store_lookup *job_lookups;             /* in the job */
    struct scan *scans, **scans_last;
    struct scan *job_scan;
    struct settle *settles, *job_settles;
    struct index_batch *job_batch;
    uint64_t job_change;
    bool job_flush, job_flush_start;
    bool write_wanted;
};

enum next_state {
    NEXT_NONE,
    NEXT_MAKING,
    NEXT_READY
};
/* The segment after the active one, made ahead by the pool. */
struct next {
    enum next_state state;
    struct pool_job job;
    struct store_segment *segment; /* ready, not in the table yet */
    uint64_t number;               /* of the one being made */
    bool use_reserve;              /* the job may: for compaction, when space is short */
    bool reserved;                 /* the segment was made from the reserve: for compaction only */
    bool needed;                   /* puts wait for the job */
    bool failed;                   /* it did, and puts have waited for it */
    uint64_t free_bytes;           /* of the file system, as the job saw it */
    struct store_segment *seal;    /* full: the job cuts its file to what is used; referenced */
    uint64_t seal_bytes;
    int fd, rc;
};

struct store {
    char *dir;
    uint64_t segment_bytes, reserve_bytes, queue_bytes_max;
    uint32_t queue_max;
    bool no_sync;
    bool direct; /* the file system has O_DIRECT */
    struct loop *loop;
    struct pool *pool;
    void *ctx;
    void (*on_damaged)(void *ctx, const struct chunk_id *id);
    int lock_fd;
    uint8_t store_id[16];

    struct store_segment **segments; /* by number, ascending */
    size_t segment_count, segment_cap;
    struct store_segment *fd_newest, *fd_oldest;
    uint32_t fd_idle;
    uint64_t next_segment; /* lowest number never used */

    struct index *index;
    struct id_map recent;  /* id -> struct recent * */
    struct id_map damaged; /* id -> 1 */
    uint64_t change;       /* counts changes */
    int index_rc;          /* why the index cannot be written now; 0 when it can */
    uint64_t chunks, live_bytes, plain_bytes;
    uint64_t epoch;
    struct store_segment *dirty;
    uint64_t *gone; /* removed segments whose stat the next batch deletes */
    size_t gone_count, gone_cap;
    uint64_t unflushed_bytes; /* written to segments since the index was last flushed */
    struct loop_timer index_timer;
    bool index_timer_on;
    struct lane lane;
    bool recovering; /* batches carry no position */

    struct store_segment *active; /* referenced; NULL: the next one is needed */
    bool active_reserved;         /* made from the reserve: compaction only */
    uint32_t group_number;        /* of the group that is being filled */
    bool writing;                 /* groups[!filling] is on its way */
    unsigned filling;
    struct group groups[2];
    uint64_t write_at;  /* file offset of the group on its way */
    uint32_t write_len; /* padded */
    uint32_t written;   /* of it */
    struct loop_req write_req;
    struct loop_defer write_defer;
    struct store_put *blocked, **blocked_last; /* no room in the group or the segment */
    struct id_map inflight;                    /* id -> struct store_put *: the first of its id */
    struct next next;
    uint64_t free_bytes;

    uint64_t queue_bytes;
    uint32_t put_count, get_count, has_count;
    struct store_put *finished_puts, **finished_puts_last;
    struct store_get *finished_gets, **finished_gets_last;
    struct store_has *finished_has, **finished_has_last;
    struct loop_defer finish_defer;

    struct store_sweep *sweep;
    struct store_scrub *scrub;
    struct store_compact *compact;
    struct scan *sweep_scan, *scrub_scan;
    struct settle sweep_settle, scrub_settle;
    struct store_get scrub_get;
    uint32_t scrub_idx;
    struct chunk_id scrub_after; /* how far the last step came */
    struct compaction *compaction;

    bool closing, close_settling;
    void (*closed)(void *ctx);
    void *closed_ctx;
    struct settle close_settle;
    struct loop_defer close_defer;

    uint64_t puts, dedups, gets, groups_written, scrubbed_bytes, compacted_bytes;
};

/* ---- store_segment.c ---- */
char *segment_path(const char *dir, uint64_t number);
int segment_open_file(const struct store *s, uint64_t number, int flags, int *ret_fd) MUST_CHECK;
struct store_segment *segment_new(uint64_t number);
void segment_insert(struct store *s, struct store_segment *seg); /* above all others */
struct store_segment *segment_find(const struct store *s, uint64_t number);
/* Opens the file if need be and keeps it open until unref. */
int segment_ref(struct store *s, struct store_segment *seg) MUST_CHECK;
void segment_unref(struct store *s, struct store_segment *seg);
void segment_dirty(struct store *s, struct store_segment *seg);
/* Takes it out of the table; the caller has removed the file or will. */
void segment_remove(struct store *s, struct store_segment *seg);
void segments_free(struct store *s);
/* Blocking: makes an empty segment file, room for segment_bytes included. */
int segment_make(const struct store *s, uint64_t number, int *ret_fd) MUST_CHECK;
int free_bytes_of(const char *dir, uint64_t *ret) MUST_CHECK;
int dir_sync(const char *dir) MUST_CHECK;

/* ---- store_recover.c ---- */
int store_recover(struct store *s,
                  struct store_recovery *info,
                  struct err_detail *detail) MUST_CHECK;

/* ---- store_lane.c ---- */
/* The one place where the index changes: `now` replaces `old`, which the caller looked up. */
void entry_change(struct store *s,
                  const struct chunk_id *id,
                  const struct store_entry *old,
                  const struct store_entry *now);
void entry_touch(struct store *s, const struct chunk_id *id, const struct store_entry *entry);
/* ERR_AGAIN: the disk is needed, use lookup_submit. entry.segment 0: not there. */
int lookup_now(struct store *s, const struct chunk_id *id, struct store_entry *ret) MUST_CHECK;
void lookup_submit(struct store *s, struct store_lookup *lookup);
/* Is the chunk to be had? False for none, damaged ones, and those whose file is lost. */
bool entry_usable(const struct store *s, const struct chunk_id *id, const struct store_entry *e);
void scan_submit(struct store *s, struct scan *scan);
void settle_submit(struct store *s, struct settle *settle);
void lane_init(struct store *s);
/* Blocking, at open only: writes all changes down. */
int index_write_now(struct store *s, bool flush) MUST_CHECK;
void recent_free(struct store *s);

/* ---- store_write.c ---- */
void write_init(struct store *s);
void write_kick(struct store *s);
/* A put of compaction's: moves a record if the index points to it. Not bounded. */
void put_submit_move(struct store *s, struct store_put *put);
void finish_kick(struct store *s);

/* ---- store_read.c ---- */
void get_submit(struct store *s, struct store_get *get); /* not bounded */
void damage_found(struct store *s, const struct chunk_id *id);

/* ---- store.c ---- */
void close_kick(struct store *s);

#endif
