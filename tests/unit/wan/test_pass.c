/* Chunks that come through a site between, where two have no link. */
#include <pthread.h>

#include "tests/unit/wan/link_test.h"

/* Only beta listens, so the others have links to it alone. */
struct star {
    struct node *a, *b, *c, *d; /* d: NULL, but when it is wanted */
};

static void star_make(struct star *r, bool delta)
{
    *r = (struct star){.a = site_new("alpha", 11, false),
                       .b = site_new("beta", 22, true),
                       .c = site_new("gamma", 33, false)};
    pair_sites(r->b, r->a);
    pair_sites(r->b, r->c);
    if (delta) {
        r->d = site_new("delta", 44, false);
        pair_sites(r->b, r->d);
        wait_state(r->b, "delta", "connected");
        wait_same(r->a, r->d);
    }
    wait_same(r->a, r->c); /* each knows each */
    wait_state(r->b, "alpha", "connected");
    wait_state(r->b, "gamma", "connected");
}

static void star_free(struct star *r)
{
    fake_free(r->a);
    fake_free(r->b);
    fake_free(r->c);
    if (r->d != NULL)
        fake_free(r->d);
}

static void check_fetch(struct node *n, const uint8_t id[32], const char *bytes)
{
    struct buf got = {0};
    assert_int_equal(fake_fetch(n, id, &got), 0);
    assert_true(slice_equal(buf_slice(&got), slice_str(bytes)));
    buf_deinit(&got);
}

static void test_chunk_comes_through_the_site_between_which_keeps_it(void **state)
{
    (void)state;
    struct star r;
    const uint8_t one[32] = {1}, two[32] = {2}, back[32] = {3};
    star_make(&r, false);
    fake_chunk_add(r.a, one, slice_str("one"));
    fake_chunk_add(r.a, two, slice_str("two"));
    fake_chunk_add(r.c, back, slice_str("back"));
    check_fetch(r.c, one, "one");
    assert_true(fake_chunk_has(r.b, one));
    check_fetch(r.c, two, "two"); /* by the way that is known now */
    assert_true(fake_chunk_has(r.b, two));
    check_fetch(r.a, back, "back");
    fake_wan_stop(r.a);
    check_fetch(r.c, one, "one"); /* from beta */
    star_free(&r);
}

static void test_chunk_that_nobody_has_is_not_found(void **state)
{
    (void)state;
    struct star r;
    const uint8_t id[32] = {1};
    struct buf got = {0};
    star_make(&r, true);
    assert_int_equal(fake_fetch(r.d, id, &got), ERR_NOT_FOUND);
    assert_int_equal(fake_fetch(r.c, id, &got), ERR_NOT_FOUND);
    assert_int_equal(fake_fetch(r.b, id, &got), ERR_NOT_FOUND);
    star_free(&r);
}

struct fetcher {
    pthread_t thread;
    struct node *n;
    const uint8_t *id;
    int rc;
};

static void *fetch_run(void *arg)
{
    struct fetcher *f = arg;
    struct buf got = {0};
    f->rc = fake_fetch(f->n, f->id, &got);
    buf_deinit(&got);
    return NULL;
}

static void fetch_begin(struct fetcher *f, struct node *n, const uint8_t *id)
{
    *f = (struct fetcher){.n = n, .id = id};
    assert_int_equal(pthread_create(&f->thread, NULL, fetch_run, f), 0);
}

static void fetch_check(struct fetcher *f)
{
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    assert_int_equal(f->rc, 0);
}

/* Whoever comes late finds it at beta, or follows the request that is under way. */
static void test_several_askers_share_one_request(void **state)
{
    (void)state;
    enum {
        CHUNKS = 20
    };
    struct star r;
    star_make(&r, true);
    for (uint8_t i = 1; i <= CHUNKS; i++) {
        const uint8_t id[32] = {i};
        struct fetcher c, d;
        fake_chunk_add(r.a, id, slice_str("wanted by two"));
        fetch_begin(&c, r.c, id);
        fetch_begin(&d, r.d, id);
        fetch_check(&c);
        fetch_check(&d);
        assert_int_equal(fake_chunks_given(r.a), i);
    }
    star_free(&r);
}

/* Nobody tells gamma when the link between the two others is up again. */
static void test_link_beyond_that_comes_back_is_used(void **state)
{
    (void)state;
    struct star r;
    const uint8_t before[32] = {1}, id[32] = {2};
    star_make(&r, false);
    fake_chunk_add(r.a, before, slice_str("before"));
    fake_chunk_add(r.a, id, slice_str("after"));
    check_fetch(r.c, before, "before"); /* the way is known ... */
    fake_wan_stop(r.a);
    wait_state(r.b, "alpha", "unreachable"); /* ... and of no use */
    struct fetcher f;
    fetch_begin(&f, r.c, id);
    fake_wan_start(r.a);
    fetch_check(&f);
    star_free(&r);
}

static void test_site_beyond_that_is_away_is_unreachable(void **state)
{
    (void)state;
    struct star r;
    const uint8_t id[32] = {1};
    struct buf got = {0};
    star_make(&r, false);
    fake_chunk_add(r.a, id, slice_str("away"));
    fake_wan_stop(r.a);
    assert_int_equal(fake_fetch(r.c, id, &got), ERR_UNREACHABLE);
    star_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunk_comes_through_the_site_between_which_keeps_it),
        cmocka_unit_test(test_chunk_that_nobody_has_is_not_found),
        cmocka_unit_test(test_several_askers_share_one_request),
        cmocka_unit_test(test_link_beyond_that_comes_back_is_used),
        cmocka_unit_test(test_site_beyond_that_is_away_is_unreachable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
