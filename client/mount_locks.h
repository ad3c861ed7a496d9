/* Locks that wait for others: from the request until the site grants it, or the caller gives up. */
#ifndef CLIENT_MOUNT_LOCKS_H
#define CLIENT_MOUNT_LOCKS_H

#include "base/util.h"

struct lock_waits;
/* PUSH_LOCK_GRANTED; rc 0, or why not. Push thread. */
void lock_waits_granted(struct lock_waits *w, uint64_t number, int rc);
/* After a reconnect: asks again for what is held and for what waits. Recovery thread. */
void lock_waits_recover(struct lock_waits *w);

#endif
