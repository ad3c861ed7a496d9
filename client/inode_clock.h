/* Which cached answers are still true: a clock that ticks with every change told by the site.
 *
 * Before a request is sent its sender notes the clock's time; when the reply has come it asks
 * whether the objects it speaks of were hit meanwhile. If so the reply may be older than a change
 * that the mount has already acknowledged, and must not fill any cache (C2). Hits are kept in a
 * fixed table by a hash of the oid: two objects that share a place cost a needless miss, never a
 * stale hit.
 *
 * What the kernel forgot is hit apart: the site is told of it in the background, and stops telling
 * of changes. That concerns replies that cross this and make the object known once more, and
 * nothing that is known of an object all the while; and there are many of them at a time. Threads:
 * any. */
#ifndef CLIENT_INODE_CLOCK_H
#define CLIENT_INODE_CLOCK_H

#include <pthread.h>

#include "base/id.h"

#define INODE_CLOCK_SLOTS 16384u

struct inode_clock {
    pthread_mutex_t lock; /* private from here */
    uint64_t now;
    uint64_t all;        /* when everything was hit */
    uint64_t attrs;      /* when this mount changed attributes of objects it cannot tell */
    uint32_t generation; /* counts when everything was hit */
    uint64_t slots[INODE_CLOCK_SLOTS];
    uint64_t forgotten[INODE_CLOCK_SLOTS];
};
void inode_clock_init(struct inode_clock *c);
void inode_clock_deinit(struct inode_clock *c);
uint64_t inode_clock_now(struct inode_clock *c);  /* to be noted before a request */
uint64_t inode_clock_tick(struct inode_clock *c); /* later than all times noted so far */
void inode_clock_hit(struct inode_clock *c, struct oid oid);
void inode_clock_hit_all(struct inode_clock *c);
uint32_t inode_clock_generation(struct inode_clock *c); /* another one after everything was hit */
/* The site is being told that the kernel forgot it. */
void inode_clock_hit_forgotten(struct inode_clock *c, struct oid oid);
/* This mount removed or moved a name: link counts and times of objects it cannot tell changed. */
void inode_clock_hit_attrs(struct inode_clock *c);
/* As inode_clock_fresh, and no hit on attributes either. */
bool inode_clock_attrs_fresh(struct inode_clock *c, struct oid oid, uint64_t since);
/* True when `oid` was not hit after `since`. */
bool inode_clock_fresh(struct inode_clock *c, struct oid oid, uint64_t since);
/* The same, of an object that was not known here all the while: nor was it forgotten meanwhile. To
 * be asked when it is known (inode_table_enter). */
bool inode_clock_reply_fresh(struct inode_clock *c, struct oid oid, uint64_t since);

#endif
