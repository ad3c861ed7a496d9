/* Waiting times between attempts to reach a peer: exponential with jitter, so that sites which lost
 * each other together do not all come back in the same instant. A core. */
#ifndef WAN_BACKOFF_H
#define WAN_BACKOFF_H

#include "base/clock.h"

#define BACKOFF_FIRST_NS (100 * NS_PER_MS)
#define BACKOFF_MAX_NS (10 * NS_PER_SEC)

struct backoff {
    uint32_t failures; /* in a row */
};
/* One more failure: how long to wait; between half and all of 0.1 s, 0.2 s, ... 10 s. */
uint64_t backoff_next_ns(struct backoff *b, struct rng *rng);
void backoff_reset(struct backoff *b);

#endif
