/* Two to four sites without a network: nodes in this process whose feeds are handed over by the
 * test, which starts the others from a snapshot. Everything asserts that it works. */
#ifndef TESTS_UNIT_SITE_FEDERATION_TEST_H
#define TESTS_UNIT_SITE_FEDERATION_TEST_H

#include "tests/unit/site/node_test.h"

#define SITES_MAX 4

struct world {
    struct node_test sites[SITES_MAX];
    unsigned count, shards;
    struct rng rng;
    bool collects; /* at random moments */
    /* Next index to pull, by receiver, sender, shard: what was applied since the receiver was
     * opened, durable or not. */
    uint64_t next[SITES_MAX][SITES_MAX][SHARD_COUNT_MAX];
    bool left[SITES_MAX]; /* what is compared and drained does not include it */
};

void world_init(struct world *w, unsigned count, unsigned shards, uint64_t seed);
void world_deinit(struct world *w);
/* One more site, invited by `inviter` and started from its snapshot. */
void world_join(struct world *w, unsigned inviter);
/* The first half of that: the site, which does not count yet, has nothing of the snapshot. */
void world_adopt(struct world *w, unsigned inviter);
/* As many pages of a snapshot as there are, or `pages`; what a connection that breaks then leaves.
 * How many of them were empty. */
unsigned load_pages(struct node_test *from, struct node_test *to, unsigned pages);
/* Between the two, what came is not durable; after the second the site has all of it. */
void commit_begin(struct node_test *from, struct node_test *to);
void commit_wait(struct node_test *t);
/* Starts an empty site from another one's snapshot, as pairing does after the key was adopted. */
void bootstrap(struct node_test *from, struct node_test *to);
/* Enters a site as a member at another one, as pairing does. */
void add_member(struct node_test *t, site_id_t site, unsigned number);
void member_done(void *ctx, int rc); /* ctx: the struct node_test whose loop is to stop */

/* Lets repairs and writes settle. */
void settle(struct world *w, unsigned site);
/* One record of `from`, the next by commit stamp that `to` lacks; false: there is none. */
bool pull_one(struct world *w, unsigned to, unsigned from);
void drain(struct world *w); /* until everybody has everything, but who has left */
/* Turns the site's loop until what was applied there has had its consequences. */
void wait_settled(struct world *w, unsigned site);
/* The site gives its word, if that helps, and drops what its stable point allows. */
void collect(struct world *w, unsigned site);
/* All do, and exchange it; returns how much there is left that may be dropped one day. */
uint64_t collect_all(struct world *w);

void check_collected(struct world *w); /* all of that, and nothing is left */
void reopen(struct world *w, unsigned site);

/* A random call, as a user might make it, on paths of up to three names of three letters. */
void user_step(struct world *w, unsigned site);
void random_step(struct world *w); /* of some site; or something is exchanged, dropped, reopened */
void user_write(struct node_test *t, struct oid oid, uint64_t tag); /* its content is the tag */

/* All show the same tree and fsck is clean, but where a site has left. */
void check_equal(struct world *w, uint64_t seed);
/* A create, mkdir, unlink or rmdir of a path. */
void call_path(struct world *w, unsigned site, enum rpc_type type, const char *path);

#endif
