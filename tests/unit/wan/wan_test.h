/* Helpers of the wan tests: operations with a given head, deterministic randomness. */
#ifndef TESTS_UNIT_WAN_WAN_TEST_H
#define TESTS_UNIT_WAN_WAN_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/mp.h"

/* An operation's bytes: the canonical head of journal/op.h, and any msgpack value as its effects.
 */
static inline void
test_op(struct dot dot, uint64_t hlc, int64_t time_ns, struct slice effects, struct buf *out)
{
    mp_array(out, 6);
    mp_uint(out, dot.shard);
    mp_uint(out, dot.site);
    mp_uint(out, dot.seq);
    mp_uint(out, hlc);
    mp_int(out, time_ns);
    mp_bin(out, effects);
}

static inline uint64_t test_hlc(uint64_t ms, uint64_t counter)
{
    return ms << 16 | counter;
}

static inline void test_noise(struct rng *rng, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)rng_next(rng);
}

#endif
