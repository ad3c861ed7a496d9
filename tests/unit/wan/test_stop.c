/* A real node and wan/ end while requests between their threads are under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "site/node.h"
#include "wan/wan.h"

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void site_make(char dir[32])
{
    struct site_settings s = {.name = "alpha", .shard_count = 2, .wan = "127.0.0.1:0"};
    struct err_detail d = {{0}};
    (void)snprintf(dir, 32, "/tmp/cfs-stop-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(site_create(dir, &s, NULL, &d), 0);
}

struct stopper {
    struct loop_timer timer;
    struct node *n;
};

static void stop_now(struct loop_timer *t)
{
    node_stop(CONTAINER_OF(t, struct stopper, timer)->n);
}

/* run_ns 0: the node's loop never turns, so that all that the WAN thread has posted at its start
 * waits there; else it is stopped in the middle of whatever goes on then. */
static void round_trip(const char *dir, uint64_t run_ns)
{
    struct node *n;
    struct wan *w;
    struct err_detail d = {{0}};
    struct stopper s = {.timer = {.fire = stop_now}};
    assert_int_equal(node_open(&n, &(struct node_config){.dir = dir, .clock = &clock_os}, &d), 0);
    assert_int_equal(wan_start(&w, n, &d), 0);
    assert_int_equal(node_start(n, &d), 0);
    s.n = n;
    if (run_ns > 0) {
        loop_timer_start(node_loop(n), &s.timer, loop_now_ns(node_loop(n)) + run_ns);
        assert_int_equal(node_run(n), 0);
    }
    wan_stop(w);
    node_close(n);
    wan_free(w);
    node_free(n);
}

static void test_stop_with_calls_under_way(void **state)
{
    char dir[32];
    (void)state;
    site_make(dir);
    for (unsigned i = 0; i < 30; i++)
        round_trip(dir, i % 3 == 0 ? 0 : i * NS_PER_MS / 25);
    assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_with_calls_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
