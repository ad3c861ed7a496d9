/* What policy wants at a node comes by itself: after a failure, a start, a lost event. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "site/lacks.h"
#include "tests/unit/site/elsewhere.h"
#include "tests/unit/site/node_test.h"

#define BYTES (128u * KIB)
#define CHUNKS 3u /* two blocks and their node */
#define QUEUE_FULL 70000u

struct bringing {
    struct node_test t;
    struct elsewhere e;
    struct oid oid;
    int rc;
};

static void done(void *ctx, int rc)
{
    struct bringing *b = ctx;
    b->rc = rc;
}

static void turn(struct bringing *b)
{
    const struct fs_request sync = {.count = 0};
    assert_int_equal(node_test_call(&b->t, RPC_SYNC, &sync), 0);
}

static struct node_lacks lacks(struct bringing *b)
{
    struct node_lacks l;
    node_lacks(b->t.n, &l);
    return l;
}

static uint64_t chunks(struct bringing *b)
{
    struct store_stats st;
    node_store_stats(b->t.n, &st);
    return st.chunks;
}

/* Until all was looked at and that is how it is; the test's time is bounded. */
static void until(struct bringing *b, uint64_t contents, uint64_t bytes, uint64_t chunks_here)
{
    struct node_lacks l;
    do {
        turn(b);
        l = lacks(b);
    } while (!l.known || l.contents != contents || l.bytes != bytes || chunks(b) != chunks_here);
}

static void tell(struct bringing *b)
{
    loop_timer_stop(b->t.n->loop, &b->t.n->tick);
    node_set_fetcher(b->t.n, elsewhere_fetch, &b->e);
}

static void become_member(struct bringing *b, site_id_t site, const char *name)
{
    struct member m = {.site = site, .cert = slice_str(name), .cert_sha256 = {(uint8_t)site}};
    (void)snprintf(m.name, sizeof m.name, "%s", name);
    b->rc = 1;
    node_member_set(b->t.n, &m, done, b);
    while (b->rc == 1)
        turn(b);
    assert_int_equal(b->rc, 0);
}

/* Another member wrote a file; it is not here. */
static void setup(struct bringing *b, int rc)
{
    memset(b, 0, sizeof *b);
    node_test_init(&b->t, 2);
    tell(b);
    become_member(b, b->t.n->settings.site, "self");
    become_member(b, 77, "other");
    node_members_fresh(b->t.n);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f"), .mode = 0644, .kind = OID_FILE};
    assert_int_equal(node_test_call(&b->t, RPC_CREATE, &q), 0);
    b->oid = b->t.attr.oid;
    q = (struct fs_request){.oid = b->oid, .base = b->t.attr.version, .has_content = true};
    q.content = elsewhere_make(&b->t, &b->e);
    b->e.rc = rc;
    assert_int_equal(node_test_call(&b->t, RPC_COMMIT, &q), 0);
    if (rc == 0)
        until(b, 0, 0, CHUNKS);
    else
        until(b, 1, BYTES, 0);
}

static void teardown(struct bringing *b)
{
    node_test_deinit(&b->t);
    elsewhere_deinit(&b->e);
}

static bool keeps_nothing(void *ctx, const struct chunk_id *id)
{
    (void)ctx;
    (void)id;
    return false;
}

static void swept(struct store_sweep *s, int rc)
{
    struct bringing *b = s->ctx;
    b->rc = rc;
}

/* As if what came had not been durable. */
static void lose_chunks(struct bringing *b)
{
    struct store_sweep sweep = {.before = store_epoch_advance(b->t.n->store) + 1,
                                .keep = keeps_nothing,
                                .ctx = b,
                                .done = swept};
    b->rc = 1;
    assert_int_equal(store_sweep(b->t.n->store, &sweep), 0);
    while (b->rc == 1)
        turn(b);
    assert_int_equal(chunks(b), 0);
}

static void test_content_comes_when_it_is_written(void **state)
{
    struct bringing b;
    (void)state;
    setup(&b, 0);
    unsigned fetched = b.e.fetched;
    node_bring_again(b.t.n); /* nothing lacks: nobody is asked */
    assert_false(lacks(&b).known);
    until(&b, 0, 0, CHUNKS);
    assert_int_equal(b.e.fetched, fetched);
    teardown(&b);
}

/* What could not be had is counted, and comes as soon as somebody can be asked. */
static void test_content_comes_with_the_link(void **state)
{
    struct bringing b;
    (void)state;
    setup(&b, ERR_UNREACHABLE);
    while (b.e.fetched == 0)
        turn(&b);
    b.e.rc = 0;
    node_link_up(b.t.n);
    until(&b, 0, 0, CHUNKS);
    teardown(&b);
}

static void test_content_comes_after_a_start(void **state)
{
    struct bringing b;
    (void)state;
    setup(&b, ERR_UNREACHABLE);
    node_test_close(&b.t);
    b.e.rc = 0;
    node_test_open(&b.t);
    tell(&b);
    node_bring_tick(b.t.n); /* of the timer, which is stopped */
    until(&b, 0, 0, CHUNKS);
    teardown(&b);
}

/* A block that no member has any more does not keep the others from coming. */
static void test_what_is_lost_does_not_hold_up_the_rest(void **state)
{
    struct bringing b;
    (void)state;
    setup(&b, ERR_UNREACHABLE);
    b.e.rc = 0;
    b.e.without = 1;
    node_link_up(b.t.n);
    until(&b, 1, BYTES / 2, CHUNKS - 1);
    teardown(&b);
}

/* More changes than are remembered: then all there is, is looked at. */
static void test_full_queue_loses_nothing(void **state)
{
    struct bringing b;
    (void)state;
    setup(&b, 0);
    lose_chunks(&b);
    for (unsigned i = 0; i < QUEUE_FULL; i++)
        node_bring_look(b.t.n, oid_file(0, OID_FILE, 9, 1 + i));
    node_bring_look(b.t.n, b.oid); /* there is no room for it */
    until(&b, 0, 0, CHUNKS);
    teardown(&b);
}

/* A file that is gone is not waited for. */
static void test_removed_file_is_not_waited_for(void **state)
{
    struct bringing b;
    (void)state;
    setup(&b, ERR_UNREACHABLE);
    struct fs_request q = {.oid = OID_ROOT, .name = slice_str("f")};
    assert_int_equal(node_test_call(&b.t, RPC_UNLINK, &q), 0);
    node_link_up(b.t.n);
    until(&b, 0, 0, 0);
    teardown(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_comes_when_it_is_written),
        cmocka_unit_test(test_content_comes_with_the_link),
        cmocka_unit_test(test_content_comes_after_a_start),
        cmocka_unit_test(test_what_is_lost_does_not_hold_up_the_rest),
        cmocka_unit_test(test_full_queue_loses_nothing),
        cmocka_unit_test(test_removed_file_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
