/* A peer's batch on its way into the journals of this site's shards.
 *
 * Normal path: operations that touch one shard are gathered by shard and written as parts, one
 * record in each journal; one that reaches further goes by itself; the batch's cursors are in the
 * last parts. What is known is skipped.
 *
 * A site of one node: all in one call, and the parts belong together (parts.h). A site of several:
 * shards have different leaders, each of which commits by itself, and what is under way is lost
 * with a leader. So (N8) an operation is written when all it names in other shards is applied and
 * committed there: until then the call ends early, with ERR_AGAIN, and goes on where it stopped;
 * and (N9) a stream ends with the lead of any shard: batches before may have been lost with it, and
 * no cursor may pass them, so it begins again at the durable cursors.
 *
 * Threads: loop. */
#ifndef SITE_INTAKE_H
#define SITE_INTAKE_H

#include "journal/op.h"

struct parts;
struct shard;

struct apply_item {
    shard_id_t shard;
    struct slice op; /* into batch memory */
};

/* Where it goes. */
struct intake_site {
    struct shard *const *shards; /* those that lead */
    unsigned shard_count;
    site_id_t site;
    uint64_t (*stamp)(void *ctx); /* above all that the shards have stamped */
    void *ctx;
    struct parts *parts; /* one node; NULL: several */
    /* Several nodes: who led each shard when the stream began. */
    const uint64_t *epochs;
};
struct intake_batch {
    site_id_t peer; /* whose stream */
    const struct apply_item *items;
    uint32_t count;
    const uint64_t *cursor; /* by shard; 0: not moved */
    uint32_t done;          /* items; begins as 0 */
};
/* 0: all is applied, not yet durable. ERR_AGAIN: the same again, later (one node: while a shard
 * refuses what another one tells it).
 * ERR_NOT_PRIMARY (several nodes): the stream is over. Others: so is it; ERR_MALFORMED is the
 * peer's fault. What was written before an error stays. */
int intake(const struct intake_site *site, struct intake_batch *b, struct err_detail *d) MUST_CHECK;

#endif
