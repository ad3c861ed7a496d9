/* Applying records to a shard's state, live and in replay: the same code, so the same state.
 *
 * Normal path: shard_apply_record() hands the record's operations to the engine; messages for other
 * shards go into the outbox and, when live, onto a list: of the pending record for local operations
 * (they leave when it is durable), of the shard for everything else (they leave at once, by
 * shard_drain, after the engine has returned). Failure paths: an operation whose dots are missing
 * is kept in the state and tried again after each later one. */
#include <string.h>

#include "base/plant.h"
#include "site/shard_int.h"

static void on_send(void *ctx, shard_id_t to, struct slice derived)
{
    struct shard *s = ctx;
    ASSERT(to != s->cfg.id);
    shard_outbox_put(s, to, RECORD_DERIVED, derived);
}

static void mark(struct shard *s, uint64_t key)
{
    uint64_t *by = &s->mark_sessions[key % MARK_COUNT];
    if (*by != s->apply_session)
        *by = shard_mark(s, key) == 0 ? s->apply_session : 0;
    s->marks[key % MARK_COUNT] = s->apply_index;
}

static void on_name(void *ctx, struct oid parent, struct slice name)
{
    struct shard *s = ctx;
    if (!s->live)
        return;
    mark(s, touch_key(parent, name.len > 0 ? name : SHARD_ANY_NAME));
    mark(s, touch_key(parent, slice_of(NULL, 0)));
    s->cfg.events.name_changed(s->cfg.events.ctx, parent, name);
}

static void on_object(void *ctx, struct oid oid, bool content)
{
    struct shard *s = ctx;
    if (!s->live)
        return;
    mark(s, touch_key(oid, slice_of(NULL, 0)));
    s->cfg.events.object_changed(s->cfg.events.ctx, oid, content);
}

/* What was written while it had no name is shown no more, and must not come back when the name goes
 * again (S25). Files that never were without one do not get here. */
static void on_named(void *ctx, struct oid oid)
{
    struct shard *s = ctx;
    uint8_t bytes[ROW_ORPHAN_KEY_BYTES];
    const struct slice key = slice_of(bytes, sizeof bytes);
    struct slice old;
    row_orphan_key(oid, bytes);
    if (!state_get(s->state, key, &old))
        return;
    state_del(s->state, key);
    on_object(s, oid, true);
}

static void on_register(void *ctx, struct oid oid)
{
    struct shard *s = ctx;
    if (s->live && s->cfg.events.register_changed != NULL)
        s->cfg.events.register_changed(s->cfg.events.ctx, oid);
}

static void on_conflict(void *ctx, const struct conflict *c)
{
    struct shard *s = ctx;
    if (s->live)
        s->cfg.events.conflict(s->cfg.events.ctx, c);
}

void shard_events_of(struct shard *s, struct merge_events *ret)
{
    *ret = (struct merge_events){.name_changed = on_name,
                                 .object_changed = on_object,
                                 .file_named = on_named,
                                 .register_changed = on_register,
                                 .send = on_send,
                                 .conflict = on_conflict,
                                 .ctx = s};
}

/* After an operation of this home was applied: its parts elsewhere. */
static void send_parts(struct shard *s, const struct op *op, struct slice encoded)
{
    struct shard_set set = {0};
    op_shards(op, &set);
    for (unsigned i = 0; i < s->cfg.shard_count; i++)
        if (i != s->cfg.id && shard_set_has(&set, (shard_id_t)i))
            shard_outbox_put(s, (shard_id_t)i, RECORD_DELIVER, encoded);
}

static void keep_waiting(struct shard *s, const struct op *op, struct slice encoded)
{
    struct buf key = {0};
    row_waiting_key(&key, ++s->waiting_next);
    state_put(s->state, buf_slice(&key), encoded);
    s->waiting_count++;
    s->held_back += s->cfg.peers == NULL && shard_is_held_back(s, op);
    s->role.waits[op->dot.shard] = s->apply_index;
    shard_notice_kept(s, s->waiting_next, op);
    buf_deinit(&key);
}

/* Delivered operations of one origin in one home are applied in order: what waits holds back what
 * follows. (Those of this home have no gaps in seq: apply_op() sees to their order.) */
struct origins {
    struct {
        shard_id_t home;
        site_id_t site;
    } at[256];
    uint32_t count;
};

static bool origins_has(const struct origins *o, const struct op *op)
{
    for (uint32_t i = 0; i < o->count; i++)
        if (o->at[i].home == op->dot.shard && o->at[i].site == op->dot.site)
            return true;
    return o->count == ARRAY_COUNT(o->at); /* too many to tell: all of them */
}

static void origins_add(struct origins *o, const struct op *op)
{
    if (origins_has(o, op))
        return;
    o->at[o->count].home = op->dot.shard;
    o->at[o->count++].site = op->dot.site;
}

enum {
    APPLY_DONE,
    APPLY_WAIT,
    APPLY_DROP /* beyond the cut of a site that left */
};

/* An APPLY_*, or an error. */
static int apply_op(struct shard *s, const struct op *op, struct slice encoded)
{
    uint64_t seen = merge_seen(s->merge, op->dot.shard, op->dot.site);
    if (seen >= op->dot.seq)
        return APPLY_DONE;
    uint64_t last = UINT64_MAX;
    if (op->dot.shard == s->cfg.id && shard_limit(s, op->dot.site, &last) == LIMIT_CUT &&
        op->dot.seq > last)
        return APPLY_DROP;
    if (shard_is_held_back(s, op))
        return APPLY_WAIT;
    /* A gap: the peer got what is in between from a snapshot, so its journal has it not; it comes
     * from another peer. */
    if (op->dot.shard == s->cfg.id && op->dot.seq != seen + 1)
        return APPLY_WAIT;
    if (!merge_ready(s->merge, op, NULL))
        return APPLY_WAIT;
    /* At its home an operation of a peer waits for all it names, in whatever shard: otherwise our
     * stream to a third site would not be causal. In replay all that was journaled may go. With
     * several nodes it waits before it is journaled (N8): copies know their own journal only. */
    if (s->cfg.peers == NULL && s->live && op->dot.shard == s->cfg.id &&
        op->dot.site != s->cfg.site &&
        !op_dots_applied(op, s->cfg.events.applied, s->cfg.events.ctx, NULL))
        return APPLY_WAIT;
    int rc = merge_apply(s->merge, op);
    if (rc != 0)
        return rc;
    hlc_see(s->cfg.hlc, op->stamp.hlc);
    if (op->dot.shard == s->cfg.id) {
        shard_last_see(s, op);
        send_parts(s, op, encoded);
    }
    return APPLY_DONE;
}

/* What it names is not here. */
bool shard_would_wait(struct shard *s, const struct op *op)
{
    return !merge_ready(s->merge, op, NULL) ||
           !op_dots_applied(op, s->cfg.events.applied, s->cfg.events.ctx, NULL);
}

static bool waiting_next(struct shard *s, uint64_t after, uint64_t *ret_no, struct buf *ret_op)
{
    struct buf prefix = {0}, start = {0};
    struct state_scan it;
    key_begin(&prefix, SHARD_KEY_WAITING);
    row_waiting_key(&start, after + 1);
    state_scan_begin(s->state, &it, buf_slice(&prefix), buf_slice(&start));
    bool found = state_scan_next(&it) && row_waiting_decode(it.key, ret_no);
    if (found) {
        buf_clear(ret_op);
        buf_append(ret_op, it.value.ptr, it.value.len);
    }
    state_scan_end(&it);
    buf_deinit(&prefix);
    buf_deinit(&start);
    return found;
}

static bool is_held_back(const struct shard *s, struct slice encoded)
{
    struct op head;
    return s->cfg.peers == NULL && op_decode_head(encoded, &head) == 0 &&
           shard_is_held_back(s, &head);
}

/* One pass over what waits, oldest first. `apply`: try them; otherwise only gather their origins.
 */
static int waiting_pass(struct shard *s, bool apply, struct origins *blocked, bool *ret_applied)
{
    struct buf bytes = {0}, key = {0};
    uint64_t no = 0, held_back = 0;
    int rc = 0;
    blocked->count = 0;
    *ret_applied = false;
    for (unsigned i = 0; i < s->cfg.shard_count; i++)
        if (s->role.waits[i] == s->apply_index)
            s->role.waits[i]--; /* before this record */
    while (rc == 0 && waiting_next(s, no, &no, &bytes)) {
        struct op_arena arena = {0};
        struct op op;
        if (is_held_back(s, buf_slice(&bytes))) {
            held_back++;
            continue;
        }
        rc = op_decode(buf_slice(&bytes), &arena, &op);
        int got = APPLY_WAIT;
        bool held = rc == 0 && op.dot.shard != s->cfg.id && origins_has(blocked, &op);
        if (rc == 0 && apply && !held)
            got = apply_op(s, &op, buf_slice(&bytes));
        if (rc == 0 && got == APPLY_WAIT && op.dot.shard != s->cfg.id)
            origins_add(blocked, &op);
        if (rc == 0 && got == APPLY_WAIT)
            s->role.waits[op.dot.shard] = s->apply_index;
        op_arena_deinit(&arena);
        if (rc == 0 && got < 0)
            rc = got;
        if (rc != 0 || got == APPLY_WAIT)
            continue;
        row_waiting_key(&key, no);
        state_del(s->state, buf_slice(&key));
        s->waiting_count--;
        shard_notice_gone(s, no);
        *ret_applied = true;
    }
    s->held_back = held_back;
    buf_deinit(&bytes);
    buf_deinit(&key);
    return rc;
}

/* Something was applied: does anything that waited fit now? */
static int retry_waiting(struct shard *s)
{
    struct origins blocked = {.count = 0};
    bool applied = true;
    int rc = 0;
    while (applied && rc == 0 && s->waiting_count > s->held_back)
        rc = waiting_pass(s, true, &blocked, &applied);
    return rc;
}

bool shard_retry(struct shard *s)
{
    struct origins blocked = {.count = 0};
    bool applied = false;
    if (s->waiting_count == s->held_back || s->failed || s->in_apply || s->cfg.peers != NULL)
        return false; /* several nodes: what waits, waits for a record of this journal (N6) */
    s->in_apply = true;
    s->apply_index = log_last(s->log);
    s->apply_session = 0;
    int rc = waiting_pass(s, true, &blocked, &applied);
    shard_last_put(s);
    s->in_apply = false;
    if (rc != 0)
        shard_fail(s, rc, "an operation that had waited could not be applied");
    else
        shard_drain(s);
    if (applied)
        shard_applied_waits_run(s);
    return applied && rc == 0;
}

/* Applies an operation, or keeps it until its time has come. An APPLY_*, or an error. */
static int apply_or_keep(struct shard *s, const struct op *op, struct slice encoded)
{
    if (s->waiting_count > s->held_back && op->dot.shard != s->cfg.id) {
        struct origins blocked = {.count = 0};
        bool none;
        int rc = waiting_pass(s, false, &blocked, &none);
        if (rc != 0)
            return rc;
        if (origins_has(&blocked, op)) {
            if (merge_seen(s->merge, op->dot.shard, op->dot.site) < op->dot.seq)
                keep_waiting(s, op, encoded);
            return APPLY_WAIT;
        }
    }
    int rc = apply_op(s, op, encoded);
    if (rc == APPLY_WAIT)
        keep_waiting(s, op, encoded);
    return rc;
}

static int apply_encoded(struct shard *s, struct slice encoded, struct pending *p)
{
    struct op_arena arena = {0};
    struct op op;
    int rc = op_decode(encoded, &arena, &op);
    if (rc == 0)
        rc = apply_or_keep(s, &op, encoded);
    /* What waits is here, durably, and counts. */
    if ((rc == APPLY_DONE || rc == APPLY_WAIT) && p != NULL && op.dot.shard == s->cfg.id) {
        p->seqs = mem_realloc(p->seqs, (p->seq_count + 1) * sizeof p->seqs[0]);
        p->seqs[p->seq_count].site = op.dot.site;
        p->seqs[p->seq_count++].seq = op.dot.seq;
    }
    op_arena_deinit(&arena);
    return MIN(rc, 0);
}

static int apply_remote(struct shard *s, const struct record *r, struct pending *p)
{
    struct dec d = dec_of(r->body);
    struct slice op;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && record_op_next(r, i, &d, &op); i++)
        rc = apply_encoded(s, op, p);
    if (rc == 0)
        rc = dec_end(&d);
    if (rc == 0 && r->cursor != 0) {
        struct buf key = {0}, value = {0};
        row_number_key(&key, SHARD_KEY_CURSOR, r->peer);
        row_number_value(&value, r->cursor);
        state_put(s->state, buf_slice(&key), buf_slice(&value));
        buf_deinit(&key);
        buf_deinit(&value);
    }
    return rc;
}

/* Content of a file without a name is shown and referred to as any other. */
static void orphan_changed(struct shard *s, struct slice key)
{
    struct oid oid;
    if (row_orphan_key_decode(key, &oid))
        on_object(s, oid, true);
}

static int apply_local(struct shard *s, const struct record *r)
{
    struct dec d = dec_of(r->body);
    struct record_pair p;
    for (uint32_t i = 0; record_pair_next(r, i, &d, &p); i++) {
        if (!p.present && p.key.ptr[0] == SHARD_KEY_OUTBOX)
            s->outbox_count -= state_get(s->state, p.key, &(struct slice){0});
        if (p.present)
            state_put(s->state, p.key, p.value);
        else
            state_del(s->state, p.key);
        if (p.present && p.key.ptr[0] == SHARD_KEY_LIMIT)
            shard_limits_seen(s, p.key, p.value);
        if (p.key.ptr[0] == SHARD_KEY_BEHIND)
            shard_behind_seen(s, p.key, p.present ? p.value : slice_of(NULL, 0));
        if (p.present)
            orphan_changed(s, p.key);
    }
    return dec_end(&d);
}

int shard_apply_record(
    struct shard *s, const struct record *r, struct slice raw, uint64_t index, struct pending *p)
{
    int rc = 0;
    (void)raw;
    ASSERT(!s->in_apply);
    s->in_apply = true;
    s->apply_index = index;
    s->apply_session = r->type == RECORD_OP ? r->session : 0;
    s->collect = p != NULL && (r->type == RECORD_OP || (s->cfg.peers != NULL && !PLANTED(115)))
                     ? p
                     : NULL; /* N2 */
    hlc_see(s->cfg.hlc, r->commit_hlc);
    switch (r->type) {
    case RECORD_OP:
        rc = apply_encoded(s, r->body, p);
        if (rc == 0 && r->number != 0)
            shard_result_put(s, r->session, r->number, r->rc, r->oid);
        break;
    case RECORD_REMOTE:
        rc = apply_remote(s, r, p);
        break;
    case RECORD_DELIVER:
        rc = apply_encoded(s, r->body, NULL);
        break;
    case RECORD_DERIVED:
        rc = merge_apply_derived(s->merge, r->body);
        break;
    case RECORD_LOCAL:
    case RECORD_SNAPSHOT:
        rc = apply_local(s, r);
        break;
    case RECORD_PAST:
        break; /* for streams only (W12) */
    }
    if (s->cfg.peers == NULL)
        s->collect = NULL;
    s->apply_session = 0;
    if (rc == 0)
        rc = retry_waiting(s);
    s->collect = NULL;
    shard_last_put(s);
    if (r->type == RECORD_DELIVER || r->type == RECORD_DERIVED)
        shard_inbox_applied(s, r->from, r->message);
    if (rc == 0)
        rc = state_health(s->state);
    if (rc == 0)
        state_advance(s->state, index);
    s->in_apply = false;
    return rc;
}

void shard_drain(struct shard *s)
{
    struct message *m;
    while ((m = message_pop(&s->out)) != NULL)
        shard_outbox_send(s, m, NULL);
}
