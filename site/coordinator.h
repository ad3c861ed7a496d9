/* Who leads a shard: one small record per shard, changed by compare-and-swap only.
 *
 * A one-node site keeps the records in DIR/coordinator (one file a shard, replaced atomically); a
 * cluster keeps the same records in its coordination service. The record says the epoch, the
 * primary, the in-sync replicas and how long the primary's lease lives; site/replica.h says what
 * follows from it.
 *
 * Threads: loop. Errors: ERR_CORRUPT, ERR_IO. */
#ifndef SITE_COORDINATOR_H
#define SITE_COORDINATOR_H

#include "base/err.h"
#include "base/id.h"

#define COORDINATOR_REPLICAS_MAX 7u

struct shard_record {
    uint64_t version; /* of the record: what compare-and-swap compares */
    uint64_t epoch;
    uint64_t primary;   /* node id; 0: nobody */
    uint64_t lease_ns;  /* how long the lease lives from when the primary last asked; whoever
                         * has seen one version for longer knows that it is over. 0: given back */
    uint64_t stamp_max; /* no primary so far has promised anything beyond this hybrid clock */
    uint32_t in_sync_count;
    uint64_t in_sync[COORDINATOR_REPLICAS_MAX];
};

struct coordinator;
int coordinator_open_local(struct coordinator **ret,
                           const char *dir,
                           struct err_detail *d) MUST_CHECK;
void coordinator_close(struct coordinator *c);
int coordinator_get(struct coordinator *c,
                    shard_id_t shard,
                    struct shard_record *ret,
                    struct err_detail *d) MUST_CHECK;
/* Replaces the record if its version is still `expected`; the new version is expected + 1.
 * ERR_STALE_BASE when it is not. */
int coordinator_swap(struct coordinator *c,
                     shard_id_t shard,
                     uint64_t expected,
                     const struct shard_record *record,
                     struct err_detail *d) MUST_CHECK;

#endif
