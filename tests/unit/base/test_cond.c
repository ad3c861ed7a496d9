/* Waits with a bound, on a machine whose wall clock is wrong and was set meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/cond.h"

static time_t wall_s; /* what the wall clock says; the kernel's own is right */

/* Goes before the one of the C library. */
int clock_gettime(clockid_t id, struct timespec *ret)
{
    if (id == CLOCK_REALTIME) {
        *ret = (struct timespec){.tv_sec = wall_s};
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, id, ret);
}

struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool there;
};
#define MEETING                                                                                    \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER                        \
    }

static void test_bound_is_kept_whatever_the_wall_clock_says(void **state)
{
    struct meeting m = MEETING;
    const uint64_t ns = 20 * NS_PER_MS;
    (void)state;
    wall_s = 1; /* 1970: by this one the bound would have passed long ago */
    assert_int_equal(clock_wall_ns(&clock_os), NS_PER_SEC);
    uint64_t begun = clock_mono_ns(&clock_os);
    pthread_mutex_lock(&m.lock);
    while (cond_wait_until(&m.cond, &m.lock, begun + ns))
        ; /* woken for no reason */
    uint64_t took = clock_mono_ns(&clock_os) - begun;
    pthread_mutex_unlock(&m.lock);
    assert_true(took >= ns);
    /* What is over already is not waited for. */
    pthread_mutex_lock(&m.lock);
    assert_false(cond_wait_until(&m.cond, &m.lock, begun));
    pthread_mutex_unlock(&m.lock);
}

static void *come(void *arg)
{
    struct meeting *m = arg;
    pthread_mutex_lock(&m->lock);
    m->there = true;
    pthread_cond_signal(&m->cond);
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

static void test_signal_ends_the_wait(void **state)
{
    struct meeting m = MEETING;
    pthread_t thread;
    bool in_time = true;
    (void)state;
    pthread_mutex_lock(&m.lock);
    assert_int_equal(pthread_create(&thread, NULL, come, &m), 0);
    while (!m.there && in_time)
        in_time = cond_wait_ns(&m.cond, &m.lock, 200 * NS_PER_SEC);
    pthread_mutex_unlock(&m.lock);
    assert_true(in_time);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound_is_kept_whatever_the_wall_clock_says),
        cmocka_unit_test(test_signal_ends_the_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
