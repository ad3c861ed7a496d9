/* Private to site/shard*.c. */
#ifndef SITE_SHARD_INT_H
#define SITE_SHARD_INT_H

#define HASH_NONFATAL_OOM 0
#include <uthash.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/replica.h"
#include "site/shard.h"

#define MARK_COUNT 8192u

struct message { /* to another shard, kept until it may leave */
    shard_id_t to;
    enum record_type type;
    uint64_t number;
    struct buf bytes;
    struct message *next;
};
struct message_list {
    struct message *head, **tail;
};

/* One appended record that is not durable yet. */
struct pending {
    uint64_t index, commit_hlc;
    struct message_list out; /* of a local operation: leave when durable */
    bool is_message;         /* DELIVER or DERIVED: tell the sender */
    shard_id_t from;
    uint64_t number;
    site_id_t peer; /* REMOTE: cursor */
    uint64_t cursor;
    uint32_t seq_count; /* operations of this home: what becomes durable */
    struct {
        site_id_t site;
        uint64_t seq;
    } * seqs;
    void (*committed)(void *ctx, int rc);
    void *ctx;
    bool is_call; /* ctx is what on_behalf() is told */
    struct pending *next;
};

struct latch {
    uint64_t key;
    UT_hash_handle hh;
};
struct result_session { /* numbers with a stored result, ascending, for pruning */
    uint64_t session;
    uint64_t *numbers;
    size_t count, cap, first;
    UT_hash_handle hh;
};
struct cursor {
    site_id_t peer;
    uint64_t next;
};

struct shard {
    struct shard_config cfg;
    struct log *log;
    struct state *state;
    struct merge *merge;
    struct replica *replica;
    struct replica_effects effects; /* of its last event */
    uint64_t committed;             /* every in-sync replica has it on disk up to here */
    struct pending *pending_head, **pending_tail;
    struct vv durable_vv; /* without gaps: all up to there is applied, or waits here */
    bool durable_gap;     /* more is here, behind a gap */
    struct cursor cursors[SITE_COUNT_MAX]; /* durable */
    uint32_t cursor_count;
    struct message_list out; /* made while applying, to leave now (not by local operations) */
    struct pending *collect; /* messages of the operation being applied go here instead */
    bool live;               /* replay is over */
    uint64_t first_seq;      /* of this epoch */
    bool failed;
    bool in_apply;        /* S4 */
    uint64_t apply_index; /* of the record being applied: for marks */
    uint64_t waiting_next, waiting_count, outbox_count;
    struct {
        uint64_t last, delivered; /* numbers of messages; 0: none in this run */
        uint64_t noted;           /* by shard_outbox_note, while it is not delivered; else 0 */
    } outbox[SHARD_COUNT_MAX];
    uint32_t outbox_noted;  /* destinations with `noted` */
    uint64_t apply_session; /* whose operation that record is; 0: no session's */
    uint64_t marks[MARK_COUNT];
    uint64_t mark_sessions[MARK_COUNT]; /* who alone made what is not durable; 0: several */
    struct latch *latches;
    struct shard_wait *latch_waits;
    struct shard_wait *durable_waits;
    struct shard_wait *applied_waits;
    struct result_session *results;
    uint64_t keep_from;
    struct {
        site_id_t site;
        enum shard_limit limit;
        uint64_t seq;
    } limits[SITE_COUNT_MAX]; /* as in the state */
    uint32_t limit_count;
    struct {
        struct pool_job job;
        struct shard *shard;
        struct err_detail detail;
        int rc;
        bool running;
    } checkpoint;
    bool closing, stopping;
    void (*snapshot_cb)(void *ctx, struct shard *s, struct state_iter *it, uint64_t index);
    void *snapshot_ctx;
    struct buf scratch, scratch2;
};

/* shard_limit.c */
void shard_limits_load(struct shard *s);
void shard_limits_seen(struct shard *s, struct slice key, struct slice value); /* was put */

/* shard_replica.c */
int shard_replica_open(struct shard *s, struct err_detail *d) MUST_CHECK; /* takes the shard over */
void shard_replica_appended(struct shard *s, uint64_t index, struct slice bytes);
void shard_replica_durable(struct shard *s, uint64_t index); /* raises s->committed */

/* shard_apply.c */
int shard_apply_record(
    struct shard *s, const struct record *r, struct slice raw, uint64_t index, struct pending *p);
void shard_events_of(struct shard *s, struct merge_events *ret);
/* shard_outbox.c */
void shard_outbox_put(struct shard *s, shard_id_t to, enum record_type type, struct slice bytes);
void shard_outbox_load(struct shard *s); /* from the state, after opening */
/* shard_results.c */
void shard_result_put(
    struct shard *s, uint64_t session, uint64_t number, int32_t rc, struct oid oid);
void shard_results_load(struct shard *s);
void shard_results_free(struct shard *s);
/* shard_wait.c */
void shard_durable_waits_run(struct shard *s, uint64_t index);
void shard_applied_waits_run(struct shard *s);
/* shard.c */
void shard_fail(struct shard *s, int rc, const char *what);
static inline void key_begin(struct buf *b, enum shard_key k)
{
    uint8_t c = (uint8_t)k;
    buf_clear(b);
    buf_append(b, &c, 1);
}
void key_be(struct buf *b, uint64_t v, unsigned bytes); /* big endian, so that keys sort */
uint64_t be_get(const uint8_t *p, unsigned bytes);
void message_push(struct message_list *l, struct message *m);
struct message *message_pop(struct message_list *l);
void message_free(struct message *m);

#endif
