/* Private to site/shard*.c. */
#ifndef SITE_SHARD_INT_H
#define SITE_SHARD_INT_H

#define HASH_NONFATAL_OOM 0
#include <uthash.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/replica.h"
#include "site/shard.h"
#include "site/shard_row.h"

#define MARK_COUNT 8192u

struct message { /* to another shard, kept until it may leave */
    shard_id_t to;
    enum record_type type;
    uint64_t number;
    uint64_t batch; /* the sender's, when it was made */
    struct buf bytes;
    struct pending *of; /* while it is held (S19): who waits for it, or NULL */
    struct message *next;
};
struct message_list {
    struct message *head, **tail;
};
/* Messages to one other shard. */
struct outbox {
    uint64_t last, delivered; /* several nodes: numbers; delivered without a gap */
    /* alone: */
    uint64_t *numbers; /* not known to be durable there, ascending: [first, count) */
    size_t first, count, cap;
    struct message_list held; /* may leave, in this order, but the first of them was refused */
    uint64_t noted;           /* by shard_outbox_note, while it is not delivered; else 0 */
};

/* One appended record that is not durable yet. */
struct pending {
    uint64_t index, commit_hlc;
    uint64_t batch;          /* it is a part of, or comes from; 0: none */
    uint64_t after;          /* the highest batch of this and all records before (S21) */
    bool is_part;            /* of `batch` */
    struct message_list out; /* of a local operation: leave when durable */
    uint32_t held;           /* of these: refused by their receivers, or behind such a one */
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
    bool is_call;        /* ctx is what on_behalf() is told */
    uint32_t need_count; /* several nodes: messages of `out` that must be delivered */
    struct {
        shard_id_t to;
        uint64_t number;
    } * needs;
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
    uint64_t acked; /* several nodes: what a record is to take out */
    UT_hash_handle hh;
};
struct cursor {
    site_id_t peer;
    uint64_t next;
};

/* Of a shard that several nodes keep: shard_replica.c, shard_roles.c, shard_inbox.c, shard_copy.c.
 */
struct told;
struct shard_role {
    char *dir; /* DIR/shard-N */
    struct loop_timer tick;
    const struct replica_effect *asks; /* of the last event: what the coordinator was asked */
    struct told *told;                 /* to the core, when all effects are carried out */
    uint64_t now_ns;                   /* of the last event */
    bool stepping, running;            /* effects are carried out; shard_roles_run() */
    bool serve_due, down_due, reopen_due;
    uint64_t down_to;  /* down_due: what was committed */
    uint64_t copy_due; /* a copy is to be fetched from this node; 0: none */
    /* as in the file */
    uint64_t life;
    bool blank, copying;
    /* messages between shards */
    struct pending *undelivered, **undelivered_tail; /* committed, but not their messages */
    struct {
        uint64_t last, committed, confirmed; /* numbers taken of each shard */
    } inbox[SHARD_COUNT_MAX];
    uint64_t waits[SHARD_COUNT_MAX]; /* after this record an operation of that home waited here */
    struct {
        /* numbers sent to each shard; taken out of the outbox; there when it took over */
        uint64_t left, pruned, found;
    } sent[SHARD_COUNT_MAX];
    bool open; /* live, and all that was found is delivered: requests may come */
    uint64_t resend_ns, tidy_ns;
    struct {
        site_id_t peer;
        uint64_t index;
    } acked[SITE_COUNT_MAX]; /* said by peers, and not in a record yet */
    uint32_t acked_count;
    struct {
        bool running;
        uint64_t from, id, page, asked_ns, heard_ns; /* page: the next */
    } copy;
    struct {
        uint64_t node, id; /* 0: nobody's */
        uint64_t page, index, first, used_ns;
        struct state_iter *it; /* NULL: it waits to begin, or that was the last page */
        struct buf bytes;      /* page `page` */
        bool waits;
    } lend;
};

struct shard {
    struct shard_config cfg;
    struct log *log;
    struct state *state;
    struct merge *merge;
    struct replica *replica;
    struct replica_effects effects; /* of its last event */
    struct shard_role role;
    uint64_t written;   /* alone: it is on the disk up to here */
    uint64_t noted;     /* alone: parts up to here were told to cfg.parts */
    uint64_t committed; /* every in-sync replica has it on disk, and it counts (S21), up to here */
    uint64_t batch;     /* pending.after of the last record */
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
    struct outbox outbox[SHARD_COUNT_MAX]; /* by destination */
    uint32_t outbox_noted;                 /* destinations with `noted` */
    uint64_t apply_session;                /* whose operation that record is; 0: no session's */
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
        site_id_t site;
        uint64_t seq;
        uint64_t since_hlc;   /* not there: 1 since it was read from there */
    } behind[SITE_COUNT_MAX]; /* as in the state */
    uint32_t behind_count;
    uint64_t held_back; /* alone: of what waits, this much is known to wait for a limit or behind */
    struct held {
        uint64_t no, seq;
        site_id_t site;
        bool notice;
    } * held; /* operations of this home that wait: shard_notice.c */
    struct last {
        struct last_op op;
        site_id_t site;
        bool stored;        /* is in the state so */
    } last[SITE_COUNT_MAX]; /* shard_last.c */
    uint32_t last_count;
    uint32_t held_count, held_cap, notices; /* of `held`, how many are notices */
    struct {
        struct pool_job job;
        struct shard *shard;
        struct err_detail detail;
        int rc;
        bool running;
    } checkpoint;
    bool started, closing, stopping;
    void (*snapshot_cb)(void *ctx, struct shard *s, struct state_iter *it, uint64_t index);
    void *snapshot_ctx;
    struct buf scratch, scratch2;
};

/* shard_limit.c */
void shard_limits_load(struct shard *s);
void shard_limits_seen(struct shard *s, struct slice key, struct slice value); /* was put */
void shard_behind_seen(struct shard *s, struct slice key, struct slice value); /* ptr NULL: gone */
/* Beyond its site's limit, or behind what waits, whatever it is about. */
bool shard_is_held_back(const struct shard *s, const struct op *op);

/* shard_notice.c: an operation waits, does not wait any more, none does */
void shard_notice_kept(struct shard *s, uint64_t no, const struct op *op);
void shard_notice_gone(struct shard *s, uint64_t no);
void shard_notices_clear(struct shard *s);

/* shard_last.c: an operation of this home was applied; a record was */
void shard_last_see(struct shard *s, const struct op *op);
void shard_last_put(struct shard *s);
void shard_last_load(struct shard *s);

/* shard_replica.c */
/* Alone: takes the shard over. */
int shard_replica_open(struct shard *s, struct err_detail *d) MUST_CHECK;
void shard_replica_free(struct shard *s);
void shard_replica_appended(struct shard *s, uint64_t index, struct slice bytes);
void shard_replica_durable(struct shard *s,
                           uint64_t index); /* may raise s->committed; alone: s->written */
void shard_replica_broken(struct shard *s);
void shard_replica_copied(struct shard *s, uint64_t first, uint64_t life);
void shard_replica_served(struct shard *s, uint64_t node, uint64_t first);
bool shard_leads(struct shard *s); /* may append, now; alone: always */

/* shard_parts.c */
void shard_written(struct shard *s); /* s->written was raised */

/* shard_roles.c */
int shard_roles_open(struct shard *s, const char *dir, struct err_detail *d) MUST_CHECK;
int shard_roles_save(struct shard *s) MUST_CHECK; /* on error the shard has failed */
void shard_roles_run(struct shard *s);            /* what became due by what the core was told */
void shard_roles_tick(struct shard *s);
void shard_roles_checkpointed(struct shard *s);

/* shard_inbox.c */
void shard_inbox_load(struct shard *s);
void shard_inbox_tick(struct shard *s); /* as the leader */
int shard_inbox_check(struct shard *s, shard_id_t from, uint64_t number) MUST_CHECK;
void shard_inbox_applied(struct shard *s, shard_id_t from, uint64_t number);
void shard_inbox_committed(struct shard *s, shard_id_t from, uint64_t number);
void shard_inbox_confirm(struct shard *s); /* what became committed */
void shard_inbox_left(struct shard *s, struct pending *p, shard_id_t to, uint64_t number);
bool shard_inbox_keeps(struct shard *s, struct pending *p);
bool shard_inbox_sent(const struct shard *s, shard_id_t to, uint64_t number);
void shard_inbox_delivered(struct shard *s);
bool shard_inbox_found_is_delivered(const struct shard *s);
void shard_inbox_acked(struct shard *s, site_id_t peer, uint64_t index);
bool shard_inbox_resends(const struct shard *s, shard_id_t to, uint64_t number);

/* shard_copy.c */
int shard_copy_wipe(struct shard *s, struct err_detail *d) MUST_CHECK;
void shard_copy_begin(struct shard *s);
void shard_copy_tick(struct shard *s);
void shard_copy_lend_end(struct shard *s);
int shard_copy_message(struct shard *s, uint64_t node, struct slice bytes) MUST_CHECK;

/* shard_apply.c */
int shard_apply_record(
    struct shard *s, const struct record *r, struct slice raw, uint64_t index, struct pending *p);
void shard_events_of(struct shard *s, struct merge_events *ret);
/* shard_outbox.c */
void shard_outbox_put(struct shard *s, shard_id_t to, enum record_type type, struct slice bytes);
/* Takes the message; it is delivered, or held. `of`: whose operation made it, or NULL. */
void shard_outbox_send(struct shard *s, struct message *m, struct pending *of);
void shard_outbox_load(struct shard *s);                    /* from the state, after opening */
uint64_t shard_outbox_next(struct shard *s, shard_id_t to); /* number of the next message */
void shard_outbox_drop(struct shard *s);                    /* what is in memory of it */
/* shard_results.c */
void shard_result_put(
    struct shard *s, uint64_t session, uint64_t number, int32_t rc, struct oid oid);
void shard_results_load(struct shard *s);
void shard_results_free(struct shard *s);
/* One that is not needed any more, once. False: there is none. */
bool shard_result_take_acked(struct shard *s, uint64_t *ret_session, uint64_t *ret_number);
/* shard_wait.c */
void shard_durable_waits_run(struct shard *s, uint64_t index);
void shard_applied_waits_run(struct shard *s);
void shard_waits_forget(struct shard *s); /* and latches: their owners know */
/* shard_acked.c */
/* shard.c */
void shard_pending_done(struct pending *p); /* durable, and delivered: tells, frees */
void shard_pending_free(struct pending *p);
void shard_fail(struct shard *s, int rc, const char *what);
int shard_state_open(struct shard *s, const char *dir, struct err_detail *d) MUST_CHECK;
/* Applies what the journal has behind the state, up to `last`. */
int shard_replay(struct shard *s, uint64_t last, struct err_detail *d) MUST_CHECK;
void shard_settle(struct shard *s, uint64_t index); /* what follows from records being committed */
void message_push(struct message_list *l, struct message *m);
struct message *message_pop(struct message_list *l);
void message_free(struct message *m);

#endif
