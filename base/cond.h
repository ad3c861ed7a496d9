/* Waiting for a condition with a bound. By the clock that never goes back: by the other one, a wait
 * of a moment lasts an hour when somebody sets it back by one. Shells only; threads: any. */
#ifndef BASE_COND_H
#define BASE_COND_H

#include <pthread.h>

#include "base/util.h"

/* `lock` is held, and held again on return. Until `cond` is signalled, or for no reason, as all
 * such waits: true; or until clock_mono_ns(&clock_os) is until_ns: false. */
bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns);
/* The same for ns from now. */
bool cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns);

#endif
