/* A shard's place among the replicas of its journal: runs the core of site/replica.h over the
 * journal and the site's coordinator.
 *
 * Normal path, one node: opening takes the shard over (a higher epoch in the record); from then on
 * whatever the disk has is committed, in the same call. Failure path: the record cannot be read or
 * written, and the shard does not open. The record of a one-node site is a local file under the
 * directory's lock, so its lease has no end and is never asked for again. */
#include "site/shard_int.h"

/* One event; the request to the coordinator that it led to, or NULL. Time does not pass for a lease
 * that has no end. */
static const struct replica_effect *step(struct shard *s, struct replica_event e)
{
    int rc = replica_step(s->replica, &e, &s->effects);
    ASSERT(rc == 0);
    const struct replica_effect *asks = NULL;
    for (uint32_t i = 0; i < s->effects.count; i++) {
        const struct replica_effect *f = &s->effects.at[i];
        switch (f->kind) {
        case REPLICA_COMMIT:
            s->committed = f->index;
            break;
        case REPLICA_LEAD:
            log_epoch_set(s->log, f->epoch);
            break;
        case REPLICA_SERVE:
            hlc_see(s->cfg.hlc, f->stamp);
            break;
        case REPLICA_ASK:
        case REPLICA_SWAP:
            asks = f;
            break;
        case REPLICA_SEND: /* these need others */
        case REPLICA_APPEND:
        case REPLICA_CUT:
        case REPLICA_READ_LOG:
        case REPLICA_STEP_DOWN:
        case REPLICA_COPY:
            UNREACHABLE();
        }
    }
    return asks;
}

void shard_replica_appended(struct shard *s, uint64_t index, struct slice bytes)
{
    (void)step(s, (struct replica_event){.kind = REPLICA_APPENDED, .index = index, .bytes = bytes});
}

void shard_replica_durable(struct shard *s, uint64_t index)
{
    (void)step(s, (struct replica_event){.kind = REPLICA_DURABLE, .index = index});
}

static bool run_seen(void *ctx, const struct log_record *record)
{
    struct replica_run *run = ctx;
    *run = (struct replica_run){.first = record->index, .epoch = record->epoch};
    return false;
}

int shard_replica_open(struct shard *s, struct err_detail *d)
{
    /* Alone, all that matters of the journal's past is that a new epoch is above it, also when the
     * record was lost. */
    struct replica_run run = {0};
    uint64_t last = log_last(s->log), next;
    int rc = last >= log_first(s->log) ? log_read(s->log, last, 1, run_seen, &run, &next) : 0;
    if (rc != 0) {
        err_detail_set(d, "shard %u: journal record %llu: %s", s->cfg.id, (unsigned long long)last,
                       err_text(rc));
        return rc;
    }
    const struct replica_config c = {.node = s->cfg.site,
                                     .nodes = {s->cfg.site},
                                     .node_count = 1,
                                     .life = 1,
                                     .founder = true,
                                     .lease_ns = REPLICA_LEASE_ENDLESS,
                                     .last = last,
                                     .commit = state_stored_index(s->state),
                                     .runs = &run,
                                     .run_count = run.epoch > 0};
    s->committed = c.commit;
    s->replica = replica_new(&c);
    struct replica_event e = {.kind = REPLICA_TICK};
    struct shard_record record = {0};
    const struct replica_effect *asks;
    while ((asks = step(s, e)) != NULL) {
        e = (struct replica_event){.kind = REPLICA_RECORD, .request = asks->request};
        e.record = &record;
        if (asks->kind == REPLICA_ASK) {
            rc = coordinator_get(s->cfg.coordinator, s->cfg.id, &record, d);
        } else {
            e.kind = REPLICA_SWAPPED;
            rc = coordinator_swap(s->cfg.coordinator, s->cfg.id, asks->record.version,
                                  &asks->record, d);
        }
        if (rc != 0)
            return rc;
    }
    if (replica_serves(s->replica, 0))
        return 0;
    err_detail_set(d,
                   "shard %u is kept by node %llx, says %s/coordinator: restore that directory, or "
                   "remove the record if the node is gone",
                   s->cfg.id, (unsigned long long)record.primary, s->cfg.dir);
    return ERR_NOT_PRIMARY;
}
