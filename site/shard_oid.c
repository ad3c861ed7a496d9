/* Oids of new files: unique also when operations that were answered are lost with the node. */
#include "base/plant.h"
#include "site/shard_int.h"

/* Records that may not be durable while oids are given out, of the SHARD_EPOCH_OIDS by which
 * epochs are apart. */
#define SHARD_EPOCH_OIDS 65536u
#define SHARD_AHEAD_MAX 32768u

struct oid shard_new_oid(struct shard *s, enum oid_kind kind)
{
    uint64_t epoch = PLANTED(86) ? 0 : replica_epoch(s->replica);
    return oid_file(s->cfg.id, kind, s->cfg.site, epoch * SHARD_EPOCH_OIDS + shard_next_seq(s));
}

bool shard_may_make_ahead(const struct shard *s)
{
    return log_last(s->log) - s->committed < SHARD_AHEAD_MAX;
}

bool shard_gave_oid(const struct shard *s, struct oid o)
{
    struct oid low = oid_file(s->cfg.id, oid_kind(o), s->cfg.site, 0);
    struct oid high = oid_file(s->cfg.id, oid_kind(o), s->cfg.site,
                               replica_epoch(s->replica) * SHARD_EPOCH_OIDS + s->first_seq);
    return oid_cmp(low, o) < 0 && oid_cmp(o, high) < 0;
}
