/* Hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone 2014), packed in 64 bits: 48 of
 * milliseconds, 16 of counter. A core: the caller brings the wall time. */
#ifndef BASE_HLC_H
#define BASE_HLC_H

#include "base/util.h"

struct hlc {
    uint64_t last; /* the highest value handed out or seen */
};
/* A value above all handed out or seen before, and not below the wall clock. */
uint64_t hlc_next(struct hlc *h, uint64_t wall_ns);
/* A value from elsewhere was seen: everything handed out later is above it. The caller refuses
 * values implausibly far ahead first: believing one would drag every later stamp along. */
void hlc_see(struct hlc *h, uint64_t seen);
static inline uint64_t hlc_from_wall(uint64_t wall_ns)
{
    return wall_ns / NS_PER_MS << 16;
}

#endif
