/* Who would wait for whom: requests in flight against invalidations that need the kernel's locks.
 *
 * While a name is made or removed the kernel holds the directory's lock until we answer; while a
 * page is written or read it holds the page's. Telling the kernel to drop a name or a page waits
 * for these locks. Our answer may wait for the site, which may wait for another mount's
 * acknowledgement, whose invalidation may wait in the same way for us. So every request that may
 * wait for the site under such a lock is counted here by node id, every invalidation that is under
 * way registers a job with the node ids whose locks it needs, and when the two meet the job is
 * told: it is then acknowledged without the kernel's locks (C3). Threads: any. */
#ifndef CLIENT_INODE_FLIGHT_H
#define CLIENT_INODE_FLIGHT_H

#include <pthread.h>

#include "base/util.h"

#define FLIGHT_SLOTS 256u

struct flight_job {
    const uint64_t *ids; /* what it needs; borrowed while registered */
    size_t id_count;
    struct flight_job *next; /* private */
};
struct flight_count;
struct flight {
    pthread_mutex_t lock; /* private from here */
    struct flight_count *counts[FLIGHT_SLOTS];
    struct flight_job *jobs;
    void (*conflict)(void *ctx, struct flight_job *job);
    void *ctx;
};
/* `conflict` runs with the tracker's lock held, at any time while the job is registered and maybe
 * more than once: it must only note the fact. */
void flight_init(struct flight *f, void (*conflict)(void *ctx, struct flight_job *job), void *ctx);
void flight_deinit(struct flight *f);
void flight_begin(struct flight *f, uint64_t id); /* pairs with flight_end */
void flight_end(struct flight *f, uint64_t id);
/* Registers; runs `conflict` at once when a request is in flight on any of its ids. */
void flight_job_add(struct flight *f, struct flight_job *job);
void flight_job_remove(struct flight *f, struct flight_job *job);

#endif
