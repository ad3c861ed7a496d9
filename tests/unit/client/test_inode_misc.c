/* The smaller cores: requests in flight, held locks, positions in directories, request numbers. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/conn_seq.h"
#include "client/fuse_dirpos.h"
#include "client/inode_flight.h"
#include "client/inode_locks.h"

/* ---- requests in flight ---- */

static unsigned conflicts;

static void count_conflict(void *ctx, struct flight_job *job)
{
    (void)ctx;
    (void)job;
    conflicts++;
}

static void test_flight_conflict_when_request_is_there_first(void **state)
{
    struct flight f;
    uint64_t ids[] = {5, 6};
    struct flight_job job = {.ids = ids, .id_count = 2};
    (void)state;
    conflicts = 0;
    flight_init(&f, count_conflict, NULL);
    flight_begin(&f, 6);
    flight_job_add(&f, &job);
    assert_int_equal(conflicts, 1);
    flight_job_remove(&f, &job);
    flight_end(&f, 6);
    flight_job_add(&f, &job);
    assert_int_equal(conflicts, 1);
    flight_job_remove(&f, &job);
    flight_deinit(&f);
}

static void test_flight_conflict_when_request_comes_later(void **state)
{
    struct flight f;
    uint64_t ids[] = {5};
    struct flight_job job = {.ids = ids, .id_count = 1};
    (void)state;
    conflicts = 0;
    flight_init(&f, count_conflict, NULL);
    flight_job_add(&f, &job);
    flight_begin(&f, 4);
    assert_int_equal(conflicts, 0);
    flight_begin(&f, 5);
    assert_int_equal(conflicts, 1);
    flight_begin(&f, 5);
    flight_job_remove(&f, &job);
    flight_begin(&f, 5);
    assert_int_equal(conflicts, 2);
    flight_end(&f, 5);
    flight_end(&f, 5);
    flight_end(&f, 5);
    flight_end(&f, 4);
    flight_deinit(&f);
}

static void *flight_hammer(void *arg)
{
    struct flight *f = arg;
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)&r);
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t ids[2] = {rng_below(&r, 8), rng_below(&r, 8)};
        struct flight_job job = {.ids = ids, .id_count = 2};
        if (rng_below(&r, 2) == 0) {
            flight_begin(f, ids[0]);
            flight_end(f, ids[0]);
        } else {
            flight_job_add(f, &job);
            flight_job_remove(f, &job);
        }
    }
    return NULL;
}

static void test_flight_threads(void **state)
{
    struct flight f;
    pthread_t t[4];
    (void)state;
    flight_init(&f, count_conflict, NULL); /* runs under the tracker's lock: no race */
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, flight_hammer, &f), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    flight_deinit(&f);
}

/* ---- locks ---- */

static const struct oid file = {.b = {0, 1, OID_FILE, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}};

static struct fs_lock lock(uint64_t owner, uint64_t start, uint64_t end, uint8_t type)
{
    return (struct fs_lock){.owner = owner, .start = start, .end = end, .type = type};
}

/* Byte by byte what an owner holds: 0 none, else type + 1. */
static void picture(struct held_locks *t, uint64_t owner, uint8_t *out, size_t len)
{
    size_t n;
    struct held_lock *all = held_locks_all(t, &n);
    memset(out, 0, len);
    for (size_t i = 0; i < n; i++)
        if (!all[i].flock && all[i].lock.owner == owner)
            for (uint64_t b = all[i].lock.start; b <= all[i].lock.end && b < len; b++)
                out[b] = (uint8_t)(all[i].lock.type + 1);
    mem_free(all);
}

static void set(struct held_locks *t, const struct fs_lock *l, bool flock, uint64_t handle)
{
    const struct held_lock h = {.oid = file, .lock = *l, .flock = flock, .handle = handle};
    held_locks_set(t, &h);
}

static void test_locks_replace_byte_by_byte(void **state)
{
    struct held_locks t;
    struct rng r;
    uint8_t want[64] = {0}, got[64];
    (void)state;
    held_locks_init(&t);
    rng_seed(&r, 1);
    for (unsigned i = 0; i < 500; i++) {
        uint64_t a = rng_below(&r, 64), b = a + rng_below(&r, 64 - a);
        uint8_t type = (uint8_t)rng_below(&r, 3);
        struct fs_lock l = lock(1, a, b, type);
        set(&t, &l, false, 7);
        for (uint64_t k = a; k <= b; k++)
            want[k] = type == 2 ? 0 : (uint8_t)(type + 1);
        picture(&t, 1, got, sizeof got);
        assert_memory_equal(got, want, sizeof want);
    }
    held_locks_deinit(&t);
}

static void test_locks_of_owners_and_kinds_are_apart(void **state)
{
    struct held_locks t;
    (void)state;
    held_locks_init(&t);
    struct fs_lock a = lock(1, 0, UINT64_MAX, 0), b = lock(2, 0, UINT64_MAX, 1);
    set(&t, &a, false, 7);
    set(&t, &b, true, 7);
    assert_true(held_locks_has(&t, file, 1, false));
    assert_false(held_locks_has(&t, file, 1, true));
    assert_true(held_locks_has(&t, file, 2, true));
    a.type = 2;
    set(&t, &a, false, 7);
    assert_false(held_locks_has(&t, file, 1, false));
    assert_true(held_locks_has(&t, file, 2, true));
    held_locks_deinit(&t);
}

static void test_locks_of_an_open_file(void **state)
{
    struct held_locks t;
    uint64_t owner;
    (void)state;
    held_locks_init(&t);
    struct fs_lock a = lock(1, 0, 9, 0), b = lock(2, 20, 29, 0);
    set(&t, &a, false, 100);
    set(&t, &b, false, 200);
    assert_true(held_locks_of_handle(&t, file, 200, &owner));
    assert_int_equal(owner, 2);
    b = lock(2, 22, 23, 2); /* the rest still belongs to the handle */
    set(&t, &b, false, 300);
    assert_true(held_locks_of_handle(&t, file, 200, &owner));
    assert_false(held_locks_of_handle(&t, file, 300, &owner));
    b = lock(2, 0, UINT64_MAX, 2);
    set(&t, &b, false, 0);
    assert_false(held_locks_of_handle(&t, file, 200, &owner));
    assert_false(held_locks_await(&t, file, 1, false, 0)); /* nobody else is there */
    assert_true(held_locks_await(&t, file, 2, false, 0));
    held_locks_deinit(&t);
}

/* ---- directories ---- */

static void test_dirpos_finds_the_page_of_a_number(void **state)
{
    struct dirpos d = {0};
    uint64_t first;
    (void)state;
    assert_string_equal(dirpos_find(&d, 0, &first), "");
    assert_string_equal(dirpos_find(&d, 99, &first), "");
    assert_int_equal(first, 0);
    dirpos_add(&d, 0, 10, slice_str("j"));
    dirpos_add(&d, 10, 5, slice_str("o"));
    assert_string_equal(dirpos_find(&d, 9, &first), "");
    assert_string_equal(dirpos_find(&d, 10, &first), "j");
    assert_int_equal(first, 10);
    assert_string_equal(dirpos_find(&d, 14, &first), "j");
    assert_string_equal(dirpos_find(&d, 15, &first), "o");
    assert_int_equal(first, 15);
    dirpos_add(&d, 0, 10, slice_str("other")); /* seeked back: known already */
    assert_string_equal(dirpos_find(&d, 10, &first), "j");
    dirpos_clear(&d);
    assert_string_equal(dirpos_find(&d, 10, &first), "");
    dirpos_deinit(&d);
}

/* ---- numbers ---- */

static void test_seq_acked_is_below_the_oldest_out(void **state)
{
    struct conn_seq s;
    struct conn_number a, b, c;
    (void)state;
    conn_seq_init(&s);
    assert_int_equal(conn_seq_acked(&s), 0);
    conn_seq_begin(&s, &a);
    conn_seq_begin(&s, &b);
    conn_seq_begin(&s, &c);
    assert_int_equal(a.number, 1);
    assert_int_equal(conn_seq_acked(&s), 0);
    conn_seq_end(&s, &b);
    assert_int_equal(conn_seq_acked(&s), 0);
    conn_seq_end(&s, &a);
    assert_int_equal(conn_seq_acked(&s), 2);
    conn_seq_end(&s, &c);
    assert_int_equal(conn_seq_acked(&s), 3);
    conn_seq_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flight_conflict_when_request_is_there_first),
        cmocka_unit_test(test_flight_conflict_when_request_comes_later),
        cmocka_unit_test(test_flight_threads),
        cmocka_unit_test(test_locks_replace_byte_by_byte),
        cmocka_unit_test(test_locks_of_owners_and_kinds_are_apart),
        cmocka_unit_test(test_locks_of_an_open_file),
        cmocka_unit_test(test_dirpos_finds_the_page_of_a_number),
        cmocka_unit_test(test_seq_acked_is_below_the_oldest_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
