/* A site of three nodes in this process: real shards, each with three copies on disk, over a
 * network in memory that can be cut, and a coordinator that is a record in memory. One loop runs it
 * all. */
#ifndef TESTS_UNIT_SITE_TRIO_H
#define TESTS_UNIT_SITE_TRIO_H

#include "sim/trio_net.h"
#include "site/shard_int.h"

#define TRIO_SHARDS 2u

struct trio;
struct trio_node {
    struct trio *t;
    unsigned number;
    char dir[80];
    struct hlc hlc;
    struct shard_peers peers;
    struct trio_end end;
    struct shard *shards[TRIO_SHARDS]; /* NULL: it is down */
    bool cut; /* nobody hears it, and it hears nobody, the coordinator included */
    unsigned serves, leads_no_more; /* what it was told */
};
struct trio_op { /* a proposal under way */
    struct trio *t;
    struct oid oid;
    char name[24];
    int rc; /* 1: not answered yet */
};
struct trio {
    char dir[64];
    struct loop *loop;
    struct pool *pool;
    size_t checkpoint_bytes;
    struct trio_node nodes[TRIO_NODES];
    struct trio_net net;
    struct loop_timer poll;
    bool (*until)(struct trio *t);
    uint64_t until_ns;
    bool so;        /* when it was looked at last */
    unsigned names; /* made so far */
};

void trio_init(struct trio *t);
void trio_deinit(struct trio *t);
void trio_start(struct trio_node *n);
void trio_stop(struct trio_node *n);
void trio_wipe(struct trio_node *n); /* while it is down: a new disk */
/* Runs until it is so; a test fails when that takes too long. When it returns it may be so no more:
 * the rest of the loop's turn comes after, and a lease may end in it. */
void trio_run(struct trio *t, bool (*until)(struct trio *t));
struct shard *trio_leader(struct trio *t, unsigned shard); /* or NULL */
/* Creates a file in the root, or a directory in the root whose own shard is the other one, at
 * whoever leads; the return code of the proposal. */
int trio_create(struct trio *t, struct shard *s, struct trio_op *o) MUST_CHECK;
int trio_mkdir_elsewhere(struct trio *t, struct shard *s, struct trio_op *o) MUST_CHECK;
bool trio_shows(struct shard *s, const struct trio_op *o);
/* All copies of all shards have the same journal and the same state, and three are in sync. */
bool trio_equal(struct trio *t);
void trio_assert_equal_on_disk(struct trio *t); /* stops and starts them all */

#endif
