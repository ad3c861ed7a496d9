/* Exponential back-off; see backoff.h. */
#include "wan/backoff.h"

uint64_t backoff_next_ns(struct backoff *b, struct rng *rng)
{
    uint64_t full = BACKOFF_FIRST_NS;
    for (uint32_t i = 0; i < b->failures && full < BACKOFF_MAX_NS; i++)
        full *= 2;
    full = MIN(full, BACKOFF_MAX_NS);
    if (b->failures < UINT32_MAX)
        b->failures++;
    return full / 2 + rng_below(rng, full / 2 + 1);
}

void backoff_reset(struct backoff *b)
{
    b->failures = 0;
}
