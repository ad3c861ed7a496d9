/* Injected time and randomness: nothing but the shells' start-up code asks the kernel. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/util.h"

struct clock {
    uint64_t (*mono_ns)(void *ctx); /* never goes back */
    uint64_t (*wall_ns)(void *ctx); /* since 1970, may jump */
    void *ctx;
};
static inline uint64_t clock_mono_ns(const struct clock *c)
{
    return c->mono_ns(c->ctx);
}
static inline uint64_t clock_wall_ns(const struct clock *c)
{
    return c->wall_ns(c->ctx);
}
extern const struct clock clock_os; /* the kernel's clocks */

/* Deterministic generator (xoshiro256**, Blackman and Vigna 2018). Not for secrets. */
struct rng {
    uint64_t s[4];
};
void rng_seed(struct rng *r, uint64_t seed); /* through splitmix64 */
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* uniform in [0, n), n > 0 */
/* Secrets and ids: from the kernel, through libsodium. Shells only. */
void random_bytes(void *out, size_t len);
uint64_t random_u64(void);

#endif
