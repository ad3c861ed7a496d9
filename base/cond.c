/* Waits with a bound. See base/cond.h. */
#include "base/cond.h"

#include <errno.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"

bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_SEC),
                                   .tv_nsec = (long)(until_ns % NS_PER_SEC)};
    int rc = pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &until);
    ASSERT(rc == 0 || rc == ETIMEDOUT);
    return rc == 0;
}

bool cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    return cond_wait_until(cond, lock, clock_mono_ns(&clock_os) + ns);
}
