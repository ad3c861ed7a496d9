/* Hybrid logical clock on one packed number: comparing the packed values compares (time, counter),
 * and a full counter carries into the milliseconds, which keeps the value above all others. */
#include "base/hlc.h"

#include "base/assert.h"
#include "base/plant.h"

uint64_t hlc_next(struct hlc *h, uint64_t wall_ns)
{
    uint64_t wall = hlc_from_wall(wall_ns);
    ASSERT(h->last < UINT64_MAX);
    h->last = wall > h->last ? wall : h->last + 1;
    return h->last;
}

void hlc_see(struct hlc *h, uint64_t seen)
{
    if (seen > h->last && !PLANTED(18))
        h->last = seen;
}
