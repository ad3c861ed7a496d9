/* What counts of a shard's journal: see parts.h.
 *
 * Normal path: a record is on the disk, and all batches that it or a record before it belongs to or
 * came from are whole; then it counts (S21). Mostly that is the same moment, because the parts of a
 * batch are written by all shards at once. After a crash: what the journals name is read from the
 * end of each state on, and what is not whole is cut off before anything is replayed (S22). Nobody
 * has been shown, told or sent what is cut, nor been given an answer that stands behind it in its
 * journal, and no state has it (S1). Failure path: a crash in the middle of cutting leaves less to
 * be cut by the next start, to the same place. */
#include "base/limits.h"
#include "base/plant.h"
#include "site/shard_int.h"

void shard_written(struct shard *s)
{
    bool more = false;
    for (struct pending *p = s->pending_head; p != NULL && p->index <= s->written; p = p->next)
        if (p->index > s->noted && p->is_part)
            more = parts_durable(s->cfg.parts, p->batch) || more;
    s->noted = s->written;
    if (more)
        s->cfg.events.whole(s->cfg.events.ctx);
    else
        shard_commit(s);
}

void shard_commit(struct shard *s)
{
    uint64_t index = s->written;
    for (struct pending *p = s->pending_head; p != NULL && p->index <= index; p = p->next)
        if (!parts_whole(s->cfg.parts, p->after))
            index = p->index - 1;
    if (index <= s->committed)
        return;
    s->committed = index;
    shard_settle(s, index);
}

/* ---- opening ---- */

struct needs {
    struct shard *s;
    unsigned shard_count;
    struct parts_need *at;
    size_t count, cap;
    int rc;
    uint64_t index;
};

static bool need_add(void *ctx, const struct log_record *lr)
{
    struct needs *n = ctx;
    struct record r;
    n->index = lr->index;
    n->rc = record_decode(lr->payload, &r);
    if (n->rc != 0)
        return false;
    for (uint32_t i = 0; i < r.named.count; i++) {
        if (r.named.at[i].shard >= n->shard_count) {
            n->rc = ERR_MALFORMED;
            return false;
        }
        if (n->count == n->cap) {
            n->cap = MAX(n->cap * 2, 64u);
            n->at = mem_realloc(n->at, n->cap * sizeof n->at[0]);
        }
        n->at[n->count].record = (struct parts_place){.shard = n->s->cfg.id, .index = lr->index};
        n->at[n->count++].named = r.named.at[i];
    }
    return true;
}

static int needs_read(struct shard *s, struct needs *n, struct err_detail *d)
{
    uint64_t next = state_stored_index(s->state) + 1;
    n->s = s;
    while (next <= log_durable(s->log)) {
        int rc = log_read(s->log, next, 8 * MIB, need_add, n, &next);
        if (rc == 0 && n->rc == 0)
            continue;
        err_detail_set(d, "shard %u: journal record %llu cannot be read: %s", s->cfg.id,
                       (unsigned long long)(rc != 0 ? next : n->index),
                       err_text(rc != 0 ? rc : n->rc));
        return rc != 0 ? rc : n->rc;
    }
    return 0;
}

static int journal_cut(struct shard *s, uint64_t last, struct err_detail *d)
{
    uint64_t had = log_last(s->log);
    if (last == had)
        return 0;
    ASSERT(last < had && last >= state_stored_index(s->state));
    int rc = log_cut(s->log, last);
    if (rc != 0) {
        err_detail_set(d, "shard %u: the journal cannot be cut back to record %llu: %s", s->cfg.id,
                       (unsigned long long)last, err_text(rc));
        return rc;
    }
    log_warn(LOG_SITE, "journal_cut",
             "shard=%u from=%llu to=%llu why=\"only a part of what a peer sent was on the disk; it "
             "sends it again\"",
             s->cfg.id, (unsigned long long)had, (unsigned long long)last);
    return 0;
}

int shards_cut(struct shard *const *shards, unsigned count, struct err_detail *d)
{
    struct needs n = {.shard_count = count};
    uint64_t last[SHARD_COUNT_MAX];
    int rc = 0;
    ASSERT(count <= SHARD_COUNT_MAX);
    for (unsigned i = 0; i < count && rc == 0; i++) {
        last[i] = log_last(shards[i]->log);
        rc = needs_read(shards[i], &n, d);
    }
    if (rc == 0)
        parts_cut(n.at, n.count, last);
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = journal_cut(shards[i], last[i], d);
    mem_free(n.at);
    return rc;
}
