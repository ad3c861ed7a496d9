/* The stamps by which records leave a shard rise, whatever the wall clock does meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "tests/unit/site/node_test.h"

struct moved {
    struct clock clock;
    uint64_t behind_ns;
};

static uint64_t moved_mono(void *ctx)
{
    (void)ctx;
    return clock_mono_ns(&clock_os);
}

static uint64_t moved_wall(void *ctx)
{
    const struct moved *m = ctx;
    return clock_wall_ns(&clock_os) - m->behind_ns;
}

static bool rises(void *ctx, const struct log_record *lr)
{
    uint64_t *last = ctx;
    struct record r;
    assert_int_equal(record_decode(lr->payload, &r), 0);
    assert_true(r.commit_hlc > *last);
    *last = r.commit_hlc;
    return true;
}

/* The state has all of the journal, so nothing is replayed; and the clock is an hour behind. */
static void test_stamps_rise_after_a_restart_with_a_clock_behind(void **state)
{
    struct moved moved = {.behind_ns = 0};
    struct node_test t;
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("a"), .kind = OID_FILE};
    uint8_t key[2] = {SHARD_KEY_NODE, 'z'};
    struct local_pair pair = {slice_of(key, sizeof key), slice_str("1")};
    uint64_t last = 0, next;
    (void)state;
    moved.clock = (struct clock){moved_mono, moved_wall, &moved};
    node_test_init_at(&t, 1, &moved.clock);
    assert_int_equal(node_test_call(&t, RPC_CREATE, &q), 0);
    for (unsigned i = 0; i < 8;
         i++) /* records without an operation: their stamps are in no state */
        assert_int_equal(shard_local(t.n->shards[0], &pair, 1, NULL, NULL), 0);
    node_test_close(&t);
    moved.behind_ns = 3600 * NS_PER_SEC;
    node_test_open(&t);
    q.name = slice_str("b");
    assert_int_equal(node_test_call(&t, RPC_CREATE, &q), 0);
    struct log *log = shard_log(t.n->shards[0]);
    for (next = log_first(log); next <= log_durable(log);)
        assert_int_equal(log_read(log, next, MIB, rises, &last, &next), 0);
    node_test_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stamps_rise_after_a_restart_with_a_clock_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
