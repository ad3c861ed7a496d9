/* The parts of a mount start and end while its site comes and goes: whatever thread hears of that
 * finds all that it uses. Mostly for the thread sanitizer. The kernel's side is not there. */
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/metrics.h"
#include "client/mount.h"
#include "site/node.h"
#include "site/rpc_server_int.h"

#define ROUNDS 5u
#define FILES 8u
#define LOOK_NS (100u * 1000u)
#define SHORT_NS (2u * NS_PER_MS)
#define LONG_NS (150u * NS_PER_MS)

struct fixture {
    char dir[48], path[96];
    struct conn_config config;
    pthread_t thread;
    sem_t listens; /* posted each time it does */
    atomic_bool ended;
    /* The thread's. */
    struct node *n;
    unsigned runs;
    uint64_t stop_ns; /* 0: nobody came yet */
    struct rng rng;
    struct loop_timer timer;
};

/* Away soon after somebody came, in the middle of his beginning; and the next time long enough for
 * him to come to an end. */
static void look(struct loop_timer *timer)
{
    struct fixture *x = CONTAINER_OF(timer, struct fixture, timer);
    struct loop *loop = node_loop(x->n);
    uint64_t now = loop_now_ns(loop);
    if (x->stop_ns == 0 && metric_get(&rpc_metrics[RPC_METRIC_CONNS]) > 0)
        x->stop_ns = now + rng_below(&x->rng, x->runs % 2 == 0 ? SHORT_NS : LONG_NS);
    if (atomic_load(&x->ended) || (x->stop_ns != 0 && now >= x->stop_ns))
        node_stop(x->n);
    else
        loop_timer_start(loop, timer, now + LOOK_NS);
}

static void *site_thread(void *arg)
{
    struct fixture *x = arg;
    const struct node_config config = {.dir = x->dir, .clock = &clock_os};
    struct err_detail d;
    rng_seed(&x->rng, 1);
    for (x->runs = 0; !atomic_load(&x->ended); x->runs++) {
        assert_int_equal(node_open(&x->n, &config, &d), 0);
        assert_int_equal(node_start(x->n, &d), 0);
        x->timer = (struct loop_timer){.fire = look};
        x->stop_ns = 0;
        loop_timer_start(node_loop(x->n), &x->timer, 0);
        sem_post(&x->listens);
        assert_int_equal(node_run(x->n), 0);
        node_free(x->n);
    }
    return NULL;
}

static int setup(void **state)
{
    struct fixture *x = mem_calloc(1, sizeof *x);
    char key[96];
    *state = x;
    const struct site_settings settings = {.name = "alpha", .shard_count = 1};
    struct err_detail d;
    assert_int_equal(log_levels_parse("error"), 0);
    snprintf(x->dir, sizeof x->dir, "/tmp/claudefs-mount-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    assert_int_equal(site_create(x->dir, &settings, NULL, &d), 0);
    snprintf(x->path, sizeof x->path, "%s/sock", x->dir);
    snprintf(key, sizeof key, "%s/site.key", x->dir);
    x->config = (struct conn_config){
        .target.unix_path = x->path, .clock = &clock_os, .name = "test:/mnt", .ahead = true};
    int fd = open(key, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, x->config.auth.site_key, sizeof x->config.auth.site_key),
                     sizeof x->config.auth.site_key);
    close(fd);
    sem_init(&x->listens, 0, 0);
    assert_int_equal(pthread_create(&x->thread, NULL, site_thread, x), 0);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    char command[64];
    atomic_store(&x->ended, true);
    pthread_join(x->thread, NULL);
    snprintf(command, sizeof command, "rm -rf %s", x->dir);
    assert_int_equal(system(command), 0);
    sem_destroy(&x->listens);
    mem_free(x);
    return 0;
}

/* What the kernel forgets while a thread of ours still refers to it goes with that thread. */
static void forget_some(struct mount *m)
{
    for (uint64_t n = 2; n < 2 + FILES; n++) {
        struct oid oid = {.b = {0, 1, OID_FILE, 0, 0, 0, 0, 1, [15] = (uint8_t)n}};
        inode_unref(m->inodes, inode_table_enter(m->inodes, oid, n, 1));
        notifier_pages(m->notifier, n);
        inode_table_forget(m->inodes, n, 1);
    }
}

static void wait_for_site(struct fixture *x)
{
    while (sem_wait(&x->listens) != 0)
        ;
}

/* True when the site was there. */
static bool start(struct fixture *x, struct mount *m)
{
    struct err_detail d;
    *m = (struct mount){.options = {.cache_mb = 16, .inodes_max = 1000}};
    wait_for_site(x);
    return mount_parts_start(m, &x->config, &d) == 0;
}

static void test_parts_end_while_the_site_comes_and_goes(void **state)
{
    struct fixture *x = *state;
    for (unsigned started = 0; started < ROUNDS;) {
        struct mount m;
        if (start(x, &m)) {
            forget_some(&m);
            started++;
        }
        assert_int_equal(mount_parts_end(&m), 0);
    }
}

/* Nothing is done with them meanwhile, which would hide that somebody has not waited for them. */
static void test_parts_are_there_when_the_site_is_back(void **state)
{
    struct fixture *x = *state;
    for (unsigned started = 0; started < ROUNDS;) {
        struct mount m;
        if (start(x, &m)) {
            wait_for_site(x);
            wait_for_site(x);
            started++;
        }
        assert_int_equal(mount_parts_end(&m), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parts_end_while_the_site_comes_and_goes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_parts_are_there_when_the_site_is_back, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
