/* The kernel's clocks, the seeded generator, and secrets from libsodium. */
#include "base/clock.h"

#include <pthread.h>
#include <sodium.h>
#include <time.h>

#include "base/assert.h"

static uint64_t os_ns(clockid_t id)
{
    struct timespec ts;
    int rc = clock_gettime(id, &ts);
    ASSERT(rc == 0);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t os_mono_ns(void *ctx)
{
    (void)ctx;
    return os_ns(CLOCK_MONOTONIC);
}

static uint64_t os_wall_ns(void *ctx)
{
    (void)ctx;
    return os_ns(CLOCK_REALTIME);
}

const struct clock clock_os = {.mono_ns = os_mono_ns, .wall_ns = os_wall_ns, .ctx = NULL};

void rng_seed(struct rng *r, uint64_t seed)
{
    for (size_t i = 0; i < ARRAY_COUNT(r->s); i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        r->s[i] = z ^ z >> 31;
    }
}

static uint64_t rotate_left(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

uint64_t rng_next(struct rng *r)
{
    uint64_t result = rotate_left(r->s[1] * 5, 7) * 9;
    uint64_t t = r->s[1] << 17;
    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rotate_left(r->s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    ASSERT(n > 0);
    /* 2^64 mod n: draws below it would make the small results more likely. */
    uint64_t skip = (0 - n) % n;
    uint64_t x = rng_next(r);
    while (x < skip)
        x = rng_next(r);
    return x % n;
}

static void sodium_start(void)
{
    int rc = sodium_init();
    ASSERT(rc >= 0);
}

void random_bytes(void *out, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int rc = pthread_once(&once, sodium_start);
    ASSERT(rc == 0);
    randombytes_buf(out, len);
}

uint64_t random_u64(void)
{
    uint64_t v;
    random_bytes(&v, sizeof v);
    return v;
}
