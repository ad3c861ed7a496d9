/* A node without disks for the tests of wan/: it keeps operations in memory, checks that each
 * arrives once and in order, and implements the whole seam of site/node.h. It runs its own loop
 * thread. Test threads use the functions here; they lock. */
#ifndef TESTS_UNIT_WAN_FAKE_NODE_H
#define TESTS_UNIT_WAN_FAKE_NODE_H

#include "site/node.h"
#include "wan/wan.h"

#define FAKE_SHARDS 4u

struct fake_options {
    const char *name;
    const char *wan;       /* "127.0.0.1:0", or NULL: does not listen */
    const char *advertise; /* or NULL */
    site_id_t site;
};
/* Makes the directory, the node and its thread, and starts the WAN part. */
struct node *fake_new(const struct fake_options *o);
void fake_free(struct node *n);      /* stops everything, removes the directory */
void fake_wan_stop(struct node *n);  /* as if the daemon ended ... */
void fake_wan_start(struct node *n); /* ... and started again */
/* Starts the WAN part only to see how it fails; the node is stopped before and after. */
int fake_wan_try(struct node *n, struct wan **ret, struct err_detail *d);
/* While its WAN part is stopped: it has come back under another id. */
void fake_become(struct node *n, site_id_t site);
void fake_needs_snapshot(struct node *n, bool on);
void fake_refuse_snapshots(struct node *n, bool on); /* it cannot read what it would send */
void fake_refuse_adopt(struct node *n, int rc);      /* while nobody pairs it; 0: it adopts */
uint16_t fake_port(struct node *n);

/* As a program of before the paths that say more: what it asks for, and what it knows when
 * it is asked. The program of the test needs fake_older.c. */
enum fake_older {
    FAKE_NEW = 0,
    FAKE_ASKS_OLD = 1,
    FAKE_KNOWS_OLD = 2,
    FAKE_ASKS_RETURN = 4 /* none of before: whatever it wants, it asks to come back */
};
void fake_older(struct node *n, unsigned what);
/* How many requests came with the paths that say more; counted, whatever it knows. */
unsigned fake_asked_new(struct node *n);
unsigned fake_asked_return(struct node *n); /* and to come back */
/* How many of them asked for a stream again on the connection on which the one before came. */
unsigned fake_asked_again(struct node *n);

/* What it does when it is to come back: draws ids[0], and ids[1] when another one is wanted. */
struct fake_return {
    site_id_t ids[2];
    unsigned drawn, gone; /* how often it was asked to */
};
void fake_returns(struct node *n, site_id_t id, site_id_t another);
struct fake_return fake_returned(struct node *n);

/* Makes `count` operations in a shard with bodies of len bytes. */
void fake_write(struct node *n, shard_id_t shard, unsigned count, size_t len);
/* An operation with a stamp of its own. */
void fake_write_at(struct node *n, shard_id_t shard, uint64_t hlc);
uint64_t fake_ops(struct node *n);              /* in all shards, of all sites */
bool fake_same(struct node *a, struct node *b); /* the same operations of every site and shard? */
/* When it came to be there; 0: it is not. */
uint64_t fake_commit_hlc(struct node *n, struct dot dot);
uint64_t fake_seq(struct node *n, shard_id_t shard, site_id_t site); /* highest there */
uint64_t fake_duplicates(struct node *n); /* operations that came again, and were passed over */
const char *fake_broken(struct node *n);  /* what contract was violated, or NULL */
void fake_clock_shift(struct node *n, int64_t wall_ns);
void fake_members_hide(struct node *n, bool on); /* as if nobody had come to read them */
void fake_stall(struct node *n, bool on);     /* batches and snapshots are not finished meanwhile */
void fake_unsettled(struct node *n, bool on); /* what is applied has consequences that take time */
bool fake_settles(struct node *n);            /* somebody waits for these */
void fake_waits(struct node *n, uint64_t hlc); /* what has arrived waits for a cut, since then */
bool fake_commits(struct node *n); /* all pages are here: the snapshot is to be finished */
void fake_forget(struct node *n, uint64_t keep); /* rolls the journals back to so many records */
void fake_trim(struct node *n); /* drops all that is in the journals from the feed */
uint64_t fake_acked(struct node *n, site_id_t peer); /* sum of acknowledged indexes */
void fake_chunk_add(struct node *n, const uint8_t id[32], struct slice bytes);
bool fake_chunk_has(struct node *n, const uint8_t id[32]);
unsigned fake_chunks_given(struct node *n); /* how often others got one that it has */

/* A verb, as the command line would ask for it; waits for the answer. text: mem_free. */
int fake_admin(struct node *n, const char *verb, const char *json, char **ret_text);
/* Asks the fetcher, waits for the answer. */
int fake_fetch(struct node *n, const uint8_t id[32], struct buf *out);

/* Waits until fn says so; fails the test after a minute. Woken whenever a fake node changes. */
void wait_until(bool (*fn)(void *ctx), void *ctx, const char *what);

/* A TCP proxy on a free port of 127.0.0.1. */
struct proxy;
struct proxy *proxy_new(uint16_t target);
void proxy_free(struct proxy *p);
uint16_t proxy_port(const struct proxy *p);
void proxy_aim(struct proxy *p, uint16_t target);
void proxy_cut(struct proxy *p);            /* ends all connections */
void proxy_block(struct proxy *p, bool on); /* and refuses new ones */
/* Ends the connections after so many more bytes. */
void proxy_cut_after(struct proxy *p, uint64_t bytes);

#endif
