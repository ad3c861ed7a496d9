/* See retain.h. */
#include "site/retain.h"

#include "base/assert.h"

#define HOLD_MAX_MS ((uint64_t)3600 * 1000)

static uint64_t left_by_bytes(uint64_t limit, const struct retain_backlog *b)
{
    if (limit == RETAIN_NO_LIMIT || b->bytes == 0)
        return RETAIN_NO_LIMIT;
    if (b->bytes >= limit)
        return 0;
    uint64_t left = limit - b->bytes, bytes = b->bytes;
    for (; left > UINT32_MAX; left >>= 1) /* what counts is the proportion */
        bytes >>= 1;
    /* What has just begun has a rate, too: no time at all would mean that none is left. */
    return MAX(MIN(b->age_ms, UINT32_MAX), 1u) * left / MAX(bytes, 1u);
}

uint64_t retain_hold_ms(const struct retain_limits *limits)
{
    return MIN(limits->age_ms / 2, HOLD_MAX_MS);
}

uint64_t retain_left_ms(const struct retain_limits *limits, const struct retain_backlog *b)
{
    uint64_t by_bytes = left_by_bytes(limits->bytes, b);
    if (limits->age_ms == RETAIN_NO_LIMIT)
        return by_bytes;
    uint64_t waited = MIN(b->age_ms, b->silence_ms);
    return MIN(by_bytes, limits->age_ms > waited ? limits->age_ms - waited : 0);
}
