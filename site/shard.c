/* One shard of a site: see shard.h. Opening and replay, proposing, durability, deliveries. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "base/plant.h"
#include "site/shard_int.h"
#include "site/shard_peers.h"

void shard_fail(struct shard *s, int rc, const char *what)
{
    if (s->failed)
        return;
    s->failed = true;
    shard_replica_broken(s);
    s->cfg.events.failed(s->cfg.events.ctx, s->cfg.id, rc, what);
}

/* ---- durability ---- */

void shard_pending_free(struct pending *p)
{
    struct message *m;
    while ((m = message_pop(&p->out)) != NULL)
        message_free(m);
    mem_free(p->seqs);
    mem_free(p->needs);
    mem_free(p);
}

void shard_pending_done(struct pending *p)
{
    ASSERT(p->held == 0);
    if (p->committed != NULL)
        p->committed(p->ctx, 0);
    shard_pending_free(p);
}

static struct cursor *cursor_of(struct shard *s, site_id_t peer)
{
    for (uint32_t i = 0; i < s->cursor_count; i++)
        if (s->cursors[i].peer == peer)
            return &s->cursors[i];
    if (s->cursor_count == SITE_COUNT_MAX)
        return NULL;
    s->cursors[s->cursor_count] = (struct cursor){.peer = peer};
    return &s->cursors[s->cursor_count++];
}

static void durable_raise(struct shard *s, site_id_t site, uint64_t seq)
{
    if (seq > vv_get(&s->durable_vv, site) && vv_set(&s->durable_vv, site, seq) != 0)
        log_warn(LOG_SITE, "too_many_sites", "shard=%u site=%08x", s->cfg.id, site);
}

/* Nothing waits for the disk: all that was applied is durable, also what had waited for a gap to be
 * filled. */
static void durable_catch_up(struct shard *s)
{
    struct vv applied;
    merge_vv(s->merge, &applied);
    for (uint32_t i = 0; i < applied.count; i++)
        durable_raise(s, applied.at[i].site, applied.at[i].seq);
    s->durable_gap = s->waiting_count > 0;
}

static void pending_settle(struct shard *s, struct pending *p)
{
    for (uint32_t i = 0; i < p->seq_count; i++) {
        uint64_t had = vv_get(&s->durable_vv, p->seqs[i].site);
        if (p->seqs[i].seq > had + 1)
            s->durable_gap = true; /* what is missing before it must still be sent to us */
        else if (p->seqs[i].seq == had + 1)
            durable_raise(s, p->seqs[i].site, p->seqs[i].seq + PLANTED(20));
    }
    if (p->cursor != 0) {
        struct cursor *c = cursor_of(s, p->peer);
        if (c != NULL)
            c->next = MAX(c->next, p->cursor);
    }
    struct message *m;
    s->cfg.events.on_behalf(s->cfg.events.ctx, p->is_call ? p->ctx : NULL);
    while ((m = message_pop(&p->out)) != NULL) {
        if (s->cfg.peers != NULL)
            shard_inbox_left(s, p, m->to, m->number);
        shard_outbox_send(s, m, p);
    }
    s->cfg.events.on_behalf(s->cfg.events.ctx, NULL);
    if (p->is_message && s->cfg.peers != NULL)
        shard_inbox_committed(s, p->from, p->number);
    else if (p->is_message)
        s->cfg.events.delivered(s->cfg.events.ctx, p->from, s->cfg.id, p->number);
}

void shard_settle(struct shard *s, uint64_t index)
{
    while (s->pending_head != NULL && s->pending_head->index <= index) {
        struct pending *p = s->pending_head;
        s->pending_head = p->next;
        if (s->pending_head == NULL)
            s->pending_tail = &s->pending_head;
        pending_settle(s, p);
        if (s->cfg.peers != NULL && shard_inbox_keeps(s, p))
            continue;
        if (p->held == 0)
            shard_pending_done(p);
    }
    if (s->cfg.peers != NULL)
        shard_inbox_confirm(s);
    if (s->durable_gap && s->pending_head == NULL)
        durable_catch_up(s);
    shard_durable_waits_run(s, index);
    s->cfg.events.moved(s->cfg.events.ctx, s->cfg.id);
    shard_checkpoint(s, false);
}

static void on_durable(void *ctx, uint64_t durable)
{
    struct shard *s = ctx;
    shard_replica_durable(s, durable);
    if (s->cfg.peers == NULL)
        shard_written(s);
    else
        shard_roles_run(s);
}

static void on_log_failed(void *ctx, int rc, const struct err_detail *d)
{
    shard_fail(ctx, rc, d != NULL ? d->text : "journal write failed");
}

/* ---- appending ---- */

/* Appends the record in s->scratch and applies it; what that makes for other shards is not handed
 * over yet. */
static int append_record(struct shard *s, struct pending *p)
{
    struct record r;
    struct slice raw = buf_slice(&s->scratch);
    if (s->failed || s->log == NULL)
        return ERR_FATAL;
    if (!shard_leads(s))
        return ERR_NOT_PRIMARY;
    if (raw.len > LIMIT_RECORD_BYTES)
        return ERR_TOO_BIG;
    int rc = record_decode(raw, &r);
    ASSERT(rc == 0);
    rc = log_append(s->log, &raw, 1, &p->index);
    if (rc != 0)
        return rc;
    shard_replica_appended(s, p->index, raw);
    p->commit_hlc = r.commit_hlc;
    p->after = s->batch = MAX(s->batch, p->batch);
    if (s->pending_head == NULL)
        s->pending_tail = &s->pending_head;
    *s->pending_tail = p;
    s->pending_tail = &p->next;
    /* The record's bytes must survive nested records that deliveries make. */
    struct buf bytes = {0};
    buf_move(&bytes, &s->scratch);
    r.body.ptr = bytes.ptr + (r.body.ptr - raw.ptr);
    rc = shard_apply_record(s, &r, buf_slice(&bytes), p->index, p);
    if (s->scratch.ptr == NULL)
        buf_move(&s->scratch, &bytes);
    else
        buf_deinit(&bytes);
    if (rc != 0) {
        shard_fail(s, rc, "an operation could not be applied");
        return ERR_FATAL;
    }
    shard_applied_waits_run(s);
    return 0;
}

static int commit_record(struct shard *s, struct pending *p)
{
    int rc = append_record(s, p);
    if (rc != 0)
        return rc;
    shard_drain(s);
    if (PLANTED(16) && p->committed != NULL) {
        p->committed(p->ctx, 0);
        p->committed = NULL;
    }
    return 0;
}

int shard_propose(struct shard *s,
                  const struct op_builder *b,
                  const struct proposal *p,
                  struct op *ret_op)
{
    ASSERT(!s->in_apply);
    int64_t now = (int64_t)clock_wall_ns(s->cfg.clock);
    uint64_t hlc = hlc_next(s->cfg.hlc, (uint64_t)now);
    struct op op = {.dot = {.shard = s->cfg.id, .site = s->cfg.site, .seq = shard_next_seq(s)},
                    .stamp = {.hlc = hlc, .site = s->cfg.site},
                    .time_ns = p->time_ns != 0 ? p->time_ns : now,
                    .effects = b->effects,
                    .effect_count = b->count};
    ASSERT(op.effect_count > 0);
    if (s->cfg.peers != NULL && (!s->role.open || !shard_leads(s)))
        return ERR_NOT_PRIMARY;
    if (s->cfg.peers != NULL && !merge_ready(s->merge, &op, NULL))
        return ERR_AGAIN;
    record_op(&s->scratch, hlc, p->session, p->number, 0, p->result, &op);
    struct pending *q = mem_calloc(1, sizeof *q);
    q->committed = p->committed;
    q->ctx = p->ctx;
    q->is_call = p->is_call;
    int rc = commit_record(s, q);
    if (rc != 0 && rc != ERR_FATAL)
        shard_pending_free(q);
    else if (rc != 0 && q->index == 0)
        shard_pending_free(q);
    else if (rc != 0)
        q->committed = NULL; /* the caller learns it from the return code */
    if (rc == 0 && ret_op != NULL)
        *ret_op = op;
    return rc;
}

/* Commits the record in s->scratch, which is the site's own business. */
static int put_own(struct shard *s, void (*committed)(void *ctx, int rc), void *ctx)
{
    struct pending *q = mem_calloc(1, sizeof *q);
    q->committed = committed;
    q->ctx = ctx;
    int rc = commit_record(s, q);
    if (rc != 0 && q->index == 0)
        shard_pending_free(q);
    else if (rc != 0)
        q->committed = NULL;
    return rc;
}

static int put_pairs(struct shard *s,
                     enum record_type type,
                     const struct local_pair *pairs,
                     uint32_t count,
                     void (*committed)(void *ctx, int rc),
                     void *ctx)
{
    struct buf body = {0};
    for (uint32_t i = 0; i < count; i++) {
        enc_bytes(&body, pairs[i].key);
        enc_u8(&body, pairs[i].value.ptr != NULL);
        enc_bytes(&body, pairs[i].value.ptr != NULL ? pairs[i].value : slice_of(NULL, 0));
    }
    record_local(&s->scratch, type, hlc_next(s->cfg.hlc, clock_wall_ns(s->cfg.clock)), count,
                 buf_slice(&body));
    buf_deinit(&body);
    return put_own(s, committed, ctx);
}

int shard_local(struct shard *s,
                const struct local_pair *pairs,
                uint32_t count,
                void (*committed)(void *ctx, int rc),
                void *ctx)
{
    return put_pairs(s, RECORD_LOCAL, pairs, count, committed, ctx);
}

int shard_snapshot_load(struct shard *s, const struct local_pair *pairs, uint32_t count)
{
    return put_pairs(s, RECORD_SNAPSHOT, pairs, count, NULL, NULL);
}

int shard_past_load(struct shard *s, uint64_t commit_hlc, const struct slice *ops, uint32_t count)
{
    struct buf body = {0};
    for (uint32_t i = 0; i < count; i++)
        enc_bytes(&body, ops[i]);
    record_past(&s->scratch, commit_hlc, count, buf_slice(&body));
    buf_deinit(&body);
    return put_own(s, NULL, NULL);
}

int shard_reserve(struct shard *s, size_t bytes)
{
    return s->failed || s->log == NULL ? ERR_FATAL : log_reserve(s->log, bytes);
}

int shard_remote(struct shard *s, const struct shard_part *part)
{
    struct buf body = {0};
    struct record_head head = {.commit_hlc = part->commit_hlc, .named = part->named};
    ASSERT(s->cfg.peers != NULL || (part->batch != 0) == (part->count > 0));
    for (uint32_t i = 0; i < part->count; i++)
        enc_bytes(&body, part->ops[i]);
    record_remote(&s->scratch, &head, part->peer, part->cursor, part->count, buf_slice(&body));
    buf_deinit(&body);
    struct pending *q = mem_calloc(1, sizeof *q);
    q->peer = part->peer;
    q->cursor = part->cursor;
    q->batch = part->batch;
    q->is_part = part->batch != 0;
    int rc = append_record(s, q);
    if (rc != 0 && q->index == 0)
        shard_pending_free(q);
    /* Nothing more would ever be whole. */
    if (rc != 0 && part->batch != 0)
        shard_fail(s, rc, "a part of a batch could not be written");
    return rc;
}

int shard_receive(struct shard *s, const struct shard_message *m)
{
    if (s->cfg.peers != NULL) {
        int takes = shard_inbox_check(s, m->from, m->number);
        if (takes <= 0)
            return takes;
    }
    struct record_head head = {.commit_hlc = hlc_next(s->cfg.hlc, clock_wall_ns(s->cfg.clock))};
    if (m->batch > s->batch) /* else a record before this one names it, or a later one */
        parts_name(s->cfg.parts, m->batch, &head.named);
    record_message(&s->scratch, m->type, &head, m->from, m->number, m->bytes);
    struct pending *q = mem_calloc(1, sizeof *q);
    q->is_message = true;
    q->from = m->from;
    q->number = m->number;
    q->batch = m->batch;
    int rc = commit_record(s, q);
    if (rc != 0 && q->index == 0)
        shard_pending_free(q);
    return rc;
}

/* ---- small getters ---- */

struct merge *shard_merge(struct shard *s)
{
    return s->merge;
}
struct state *shard_state(struct shard *s)
{
    return s->state;
}
struct log *shard_log(struct shard *s)
{
    return s->log;
}
uint64_t shard_committed(const struct shard *s)
{
    return s->committed;
}
shard_id_t shard_id(const struct shard *s)
{
    return s->cfg.id;
}
uint64_t shard_next_seq(struct shard *s)
{
    return merge_seen(s->merge, s->cfg.id, s->cfg.site) + 1;
}
uint64_t shard_first_seq(const struct shard *s)
{
    return s->first_seq;
}
bool shard_idle(const struct shard *s)
{
    return s->failed || s->pending_head == NULL;
}
uint64_t shard_waiting_count(struct shard *s)
{
    return s->waiting_count;
}

void shard_durable(struct shard *s, struct shard_durable *ret)
{
    ret->index = s->committed;
    ret->floor_hlc = s->pending_head != NULL ? s->pending_head->commit_hlc - 1 : UINT64_MAX;
}

void shard_durable_vv(struct shard *s, struct vv *ret)
{
    *ret = s->durable_vv;
}

uint64_t shard_cursor(struct shard *s, site_id_t peer)
{
    for (uint32_t i = 0; i < s->cursor_count; i++)
        if (s->cursors[i].peer == peer)
            return s->cursors[i].next;
    return 0;
}

void shard_check(struct shard *s)
{
    int rc = state_health(s->state);
    if (rc != 0)
        shard_fail(s, rc, "the state cannot be read");
}

/* ---- writing the state down ---- */

static void checkpoint_work(struct pool_job *job)
{
    struct shard *s = CONTAINER_OF(job, struct shard, checkpoint.job);
    s->checkpoint.rc = state_write_frozen(s->state, &s->checkpoint.detail);
}

static void trim(struct shard *s)
{
    uint64_t stored = state_stored_index(s->state), keep = MAX(s->keep_from, 1);
    /* The last record stays: nothing else has its stamp, and its epoch. */
    if (s->cfg.peers == NULL)
        log_trim(s->log, MIN(stored, keep));
    else if (!shard_is_copying(s) && stored > 0)
        log_trim(s->log, MIN(stored, MIN(keep, replica_keep_from(s->replica))));
}

static void checkpoint_done(struct pool_job *job)
{
    struct shard *s = CONTAINER_OF(job, struct shard, checkpoint.job);
    s->checkpoint.running = false;
    if (s->checkpoint.rc != 0) {
        shard_fail(s, s->checkpoint.rc, s->checkpoint.detail.text);
        return;
    }
    if (s->snapshot_cb != NULL) {
        void (*cb)(void *, struct shard *, struct state_iter *, uint64_t) = s->snapshot_cb;
        s->snapshot_cb = NULL;
        cb(s->snapshot_ctx, s, state_iter_new(s->state), state_frozen_index(s->state));
    }
    state_thaw(s->state);
    uint64_t first = log_first(s->log);
    trim(s);
    if (log_first(s->log) > first) /* who ships begins no stream before it */
        s->cfg.events.moved(s->cfg.events.ctx, s->cfg.id);
    if (s->cfg.peers != NULL)
        shard_roles_checkpointed(s);
    shard_checkpoint(s, false);
}

void shard_checkpoint(struct shard *s, bool now)
{
    if (s->checkpoint.running || s->failed || s->closing || s->stopping || s->role.copy.running)
        return;
    if (!state_is_frozen(s->state)) {
        if (!now && state_active_bytes(s->state) < s->cfg.checkpoint_bytes)
            return;
        if (!state_freeze(s->state))
            return;
    }
    if (state_frozen_index(s->state) > s->committed)
        return; /* S1; on_durable comes back here */
    s->checkpoint.running = true;
    s->checkpoint.job.work = checkpoint_work;
    s->checkpoint.job.done = checkpoint_done;
    pool_submit(s->cfg.pool, s->cfg.loop, &s->checkpoint.job);
}

bool shard_can_freeze(struct shard *s)
{
    return !s->checkpoint.running && !state_is_frozen(s->state) && !s->failed;
}

void shard_snapshot(struct shard *s,
                    void (*cb)(void *ctx, struct shard *s, struct state_iter *it, uint64_t index),
                    void *ctx)
{
    ASSERT(shard_can_freeze(s) && s->snapshot_cb == NULL);
    s->snapshot_cb = cb;
    s->snapshot_ctx = ctx;
    shard_checkpoint(s, true);
}

void shard_stop(struct shard *s)
{
    s->stopping = true;
}

/* ---- opening ---- */

struct replay {
    struct shard *s;
    int rc;
    uint64_t index, last;
    bool loaded; /* pages of a snapshot, which the engine has not read yet */
};

static bool replay_record(void *ctx, const struct log_record *lr)
{
    struct replay *rp = ctx;
    struct record r;
    rp->index = lr->index;
    rp->rc = record_decode(lr->payload, &r);
    if (rp->rc == 0 && rp->loaded && r.type != RECORD_SNAPSHOT)
        rp->rc = shard_reload(rp->s);
    rp->loaded = rp->rc == 0 && r.type == RECORD_SNAPSHOT;
    if (rp->rc == 0)
        rp->rc = shard_apply_record(rp->s, &r, lr->payload, lr->index, NULL);
    return rp->rc == 0 && lr->index < rp->last;
}

int shard_replay(struct shard *s, uint64_t last, struct err_detail *d)
{
    uint64_t next = state_index(s->state) + 1 + PLANTED(14);
    struct replay rp = {.s = s, .last = last};
    while (next <= last) {
        int rc = log_read(s->log, next, 8 * MIB, replay_record, &rp, &next);
        if (rc != 0 || rp.rc != 0) {
            err_detail_set(d, "shard %u: journal record %llu cannot be replayed: %s", s->cfg.id,
                           (unsigned long long)(rc != 0 ? next : rp.index),
                           err_text(rc != 0 ? rc : rp.rc));
            return rc != 0 ? rc : rp.rc;
        }
        /* Keep memory bounded: everything replayed is durable, so it may be written down. */
        if (s->cfg.peers == NULL && state_active_bytes(s->state) > s->cfg.checkpoint_bytes &&
            state_freeze(s->state)) {
            rc = state_write_frozen(s->state, d);
            if (rc != 0)
                return rc;
            state_thaw(s->state);
        }
    }
    return rp.loaded ? shard_reload(s) : 0;
}

static void load_positions(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    merge_vv(s->merge, &s->durable_vv);
    s->durable_gap = s->waiting_count > 0; /* it counts when it is applied */
    key_begin(&prefix, SHARD_KEY_CURSOR);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (state_scan_next(&it)) {
        site_id_t peer;
        uint64_t next;
        struct cursor *c =
            row_number_decode(it.key, it.value, &peer, &next) ? cursor_of(s, peer) : NULL;
        if (c != NULL)
            c->next = next + PLANTED(11);
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
    shard_outbox_load(s);
}

static int load_waiting(struct shard *s)
{
    struct buf prefix = {0};
    struct state_scan it;
    int rc = 0;
    s->waiting_count = 0;
    memset(s->role.waits, 0, sizeof s->role.waits);
    shard_notices_clear(s);
    key_begin(&prefix, SHARD_KEY_WAITING);
    state_scan_begin(s->state, &it, buf_slice(&prefix), slice_of(NULL, 0));
    while (rc == 0 && state_scan_next(&it)) {
        struct op_arena arena = {0};
        struct op op;
        if (!row_waiting_decode(it.key, &s->waiting_next))
            continue;
        s->waiting_count++;
        rc = op_decode(it.value, &arena, &op);
        if (rc == 0) {
            s->role.waits[op.dot.shard] = state_index(s->state);
            shard_notice_kept(s, s->waiting_next, &op);
        }
        op_arena_deinit(&arena);
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
    return rc;
}

/* After a snapshot was loaded: the engine and what is kept beside it start from the new state. When
 * that cannot be read the old engine stays: the node ends, and is looked at until it has. */
int shard_reload(struct shard *s)
{
    struct merge *fresh = NULL;
    struct merge_config mc = {.shard = s->cfg.id,
                              .shard_count = s->cfg.shard_count,
                              .site = s->cfg.site,
                              .state = s->state,
                              .site_name = s->cfg.site_name,
                              .name_ctx = s->cfg.name_ctx};
    shard_events_of(s, &mc.events);
    int rc = merge_open(&fresh, &mc);
    if (rc != 0)
        return rc;
    merge_free(s->merge);
    s->merge = fresh;
    rc = load_waiting(s);
    if (rc == 0) {
        shard_limits_load(s);
        shard_last_load(s);
        load_positions(s);
        hlc_see(s->cfg.hlc, merge_hlc_max(s->merge));
    }
    return rc;
}

static int make_dir(const char *path, struct err_detail *d)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return 0;
    int num = errno;
    err_detail_set(d, "cannot make %s: %s", path, strerror(num));
    return err_from_errno(num);
}

int shard_state_open(struct shard *s, const char *dir, struct err_detail *d)
{
    char *path = mem_printf("%s/state", dir);
    struct state_store store = {0};
    int rc = state_store_rocks_open(&store, path, s->cfg.cache_bytes, d);
    mem_free(path);
    return rc == 0 ? state_open(&s->state, &store) : rc;
}

static int open_parts(struct shard *s, const char *dir, struct err_detail *d)
{
    char *journal_dir = mem_printf("%s/journal", dir);
    struct log_recovery info;
    int rc = make_dir(dir, d);
    if (rc == 0)
        rc = make_dir(journal_dir, d);
    if (rc == 0)
        rc = shard_state_open(s, dir, d);
    if (rc == 0) {
        struct log_config lc = {.dir = journal_dir,
                                .segment_bytes = s->cfg.segment_bytes,
                                .loop = s->cfg.loop,
                                .ctx = s,
                                .on_durable = on_durable,
                                .on_failed = on_log_failed};
        rc = log_open(&s->log, &lc, &info, d);
    }
    if (rc == 0 && info.torn_bytes > 0)
        log_warn(LOG_SITE, "journal_torn_tail", "shard=%u file=%s bytes=%llu", s->cfg.id,
                 info.torn_file, (unsigned long long)info.torn_bytes);
    if (rc == 0 && s->cfg.peers != NULL)
        rc = shard_roles_open(s, dir, d);
    if (rc == 0 && state_stored_index(s->state) > log_last(s->log)) {
        err_detail_set(d,
                       "shard %u: the state holds record %llu but the journal ends at %llu: the "
                       "journal was cut or restored from an older copy: restore both, or rebuild "
                       "this site from a peer",
                       s->cfg.id, (unsigned long long)state_stored_index(s->state),
                       (unsigned long long)log_last(s->log));
        rc = ERR_ROLLBACK;
    }
    if (rc == 0 && state_stored_index(s->state) + 1 < log_first(s->log)) {
        err_detail_set(d, "shard %u: the journal begins at record %llu but the state ends at %llu",
                       s->cfg.id, (unsigned long long)log_first(s->log),
                       (unsigned long long)state_stored_index(s->state));
        rc = ERR_CORRUPT;
    }
    mem_free(journal_dir);
    return rc;
}

int shard_open(struct shard **ret, const struct shard_config *config, struct err_detail *d)
{
    struct shard *s = mem_calloc(1, sizeof *s);
    s->cfg = *config;
    s->pending_tail = &s->pending_head;
    s->keep_from = 1; /* everything, until the node knows what members have */
    char *dir = mem_printf("%s/shard-%u", config->dir, config->id);
    int rc = open_parts(s, dir, d);
    mem_free(dir);
    if (rc == 0) {
        struct merge_config mc = {.shard = config->id,
                                  .shard_count = config->shard_count,
                                  .site = config->site,
                                  .state = s->state,
                                  .site_name = config->site_name,
                                  .name_ctx = config->name_ctx};
        shard_events_of(s, &mc.events);
        rc = merge_open(&s->merge, &mc);
    }
    if (rc != 0) {
        shard_close(s);
        return rc;
    }
    *ret = s;
    return 0;
}

int shard_start(struct shard *s, struct err_detail *d)
{
    int rc = shard_replica_open(s, d);
    if (rc == 0)
        rc = load_waiting(s);
    if (rc == 0) {
        shard_limits_load(s);
        shard_last_load(s);
        /* What several nodes keep is replayed as far as it is known to be committed. */
        rc = s->cfg.peers == NULL ? shard_replay(s, log_durable(s->log), d) : 0;
    }
    if (rc != 0)
        return rc;
    hlc_see(s->cfg.hlc, merge_hlc_max(s->merge));
    load_positions(s);
    s->started = true;
    if (s->cfg.peers != NULL)
        return 0; /* it follows, and may come to lead */
    shard_results_load(s);
    s->first_seq = shard_next_seq(s);
    s->live = true;
    return 0;
}

static void pending_list_free(struct pending *p)
{
    while (p != NULL) {
        struct pending *next = p->next;
        shard_pending_free(p);
        p = next;
    }
}

void shard_finish(struct shard *s)
{
    if (s == NULL || s->log == NULL)
        return;
    ASSERT(!s->checkpoint.running);
    s->stopping = true;
    if (s->cfg.peers != NULL)
        s->closing = true; /* nobody is told anything any more */
    if (s->role.tick.fire != NULL)
        loop_timer_stop(s->cfg.loop, &s->role.tick);
    log_close(s->log); /* everything appended is durable now, or the journal failed */
    s->log = NULL;
}

void shard_close(struct shard *s)
{
    if (s == NULL)
        return;
    shard_finish(s);
    s->closing = true;
    if (s->started && !s->failed && !s->role.copy.running &&
        state_index(s->state) <= s->committed) { /* S1 */
        struct err_detail d = {0};
        for (int i = 0; i < 2; i++) /* a frozen layer first, then the rest */
            if (state_is_frozen(s->state) || state_freeze(s->state)) {
                if (state_write_frozen(s->state, &d) != 0) {
                    log_warn(LOG_SITE, "state_not_written", "shard=%u why=\"%s\"", s->cfg.id,
                             d.text);
                    break;
                }
                state_thaw(s->state);
            }
    }
    pending_list_free(s->pending_head);
    pending_list_free(s->role.undelivered);
    struct message *m;
    while ((m = message_pop(&s->out)) != NULL)
        message_free(m);
    shard_outbox_drop(s);
    struct latch *l, *tmp;
    HASH_ITER(hh, s->latches, l, tmp)
    {
        HASH_DEL(s->latches, l);
        mem_free(l);
    }
    shard_results_free(s);
    shard_notices_clear(s);
    shard_replica_free(s);
    shard_copy_lend_end(s);
    mem_free(s->role.dir);
    merge_free(s->merge);
    state_free(s->state);
    buf_deinit(&s->scratch);
    buf_deinit(&s->scratch2);
    mem_free(s);
}
