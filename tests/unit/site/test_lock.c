/* site/lock.h by cases: what fcntl(2) and flock(2) promise, fairness, deadlock, ends, reclaim. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "site/lock.h"

#define R 0
#define W 1
#define U 2
#define END UINT64_MAX

struct fixture {
    struct lock_table *t;
    struct {
        uint64_t session, number;
        int rc;
    } granted[64];
    uint32_t granted_count;
    uint64_t cancel_on_grant; /* number of session 9 to cancel from inside granted() */
};

static void on_granted(void *ctx, uint64_t session, uint64_t number, int rc)
{
    struct fixture *f = ctx;
    lock_table_validate(f->t);
    f->granted[f->granted_count].session = session;
    f->granted[f->granted_count].number = number;
    f->granted[f->granted_count++ % ARRAY_COUNT(f->granted)].rc = rc;
    if (f->cancel_on_grant != 0) {
        uint64_t cancel = f->cancel_on_grant;
        f->cancel_on_grant = 0;
        assert_int_equal(lock_cancel(f->t, 9, cancel), 0);
    }
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    const struct lock_events events = {.granted = on_granted, .ctx = f};
    f->t = lock_table_new(&events);
}

static void teardown(struct fixture *f)
{
    lock_table_validate(f->t);
    lock_table_free(f->t);
}

static struct oid file_of(uint64_t n)
{
    return oid_file(0, OID_FILE, 1, n);
}

/* A record lock on file 1; session and owner are the same number, unless made otherwise. */
static struct lock_request request(uint64_t who, uint8_t type, uint64_t start, uint64_t end)
{
    return (struct lock_request){
        .oid = file_of(1),
        .session = who,
        .lock = {.owner = who, .start = start, .end = end, .pid = (uint32_t)who, .type = type}};
}

static int set(struct fixture *f, uint64_t who, uint8_t type, uint64_t start, uint64_t end)
{
    const struct lock_request r = request(who, type, start, end);
    int rc = lock_set(f->t, &r);
    lock_table_validate(f->t);
    return rc;
}

static int wait_for(
    struct fixture *f, uint64_t who, uint64_t number, uint8_t type, uint64_t start, uint64_t end)
{
    struct lock_request r = request(who, type, start, end);
    r.wait = true;
    r.number = number;
    int rc = lock_set(f->t, &r);
    lock_table_validate(f->t);
    return rc;
}

static int set_in(struct fixture *f, uint64_t file, uint64_t who, uint64_t number, uint8_t type)
{
    struct lock_request r = request(who, type, 0, END);
    r.oid = file_of(file);
    r.wait = number != 0;
    r.number = number;
    int rc = lock_set(f->t, &r);
    lock_table_validate(f->t);
    return rc;
}

static int flock_set(struct fixture *f, uint64_t who, uint64_t number, uint8_t type)
{
    struct lock_request r = request(who, type, 5, 1); /* the range is ignored */
    r.flock = true;
    r.wait = number != 0;
    r.number = number;
    int rc = lock_set(f->t, &r);
    lock_table_validate(f->t);
    return rc;
}

struct listing {
    struct lock_held held[16];
    uint32_t count;
};

static void list_one(void *ctx, const struct lock_held *held)
{
    struct listing *l = ctx;
    assert_true(l->count < ARRAY_COUNT(l->held));
    l->held[l->count++] = *held;
}

/* Exactly these, in order: owner, type, start, end. */
static void assert_held(struct fixture *f, uint32_t count, const uint64_t (*expected)[4])
{
    struct listing l = {.count = 0};
    lock_each(f->t, list_one, &l);
    assert_int_equal(l.count, count);
    assert_int_equal(lock_count(f->t), count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(l.held[i].lock.owner, expected[i][0]);
        assert_int_equal(l.held[i].lock.type, expected[i][1]);
        assert_int_equal(l.held[i].lock.start, expected[i][2]);
        assert_int_equal(l.held[i].lock.end, expected[i][3]);
    }
}

static void assert_granted(struct fixture *f, uint32_t idx, uint64_t session, uint64_t number)
{
    assert_true(idx < f->granted_count);
    assert_int_equal(f->granted[idx].session, session);
    assert_int_equal(f->granted[idx].number, number);
    assert_int_equal(f->granted[idx].rc, 0);
}

/* --- ranges --- */

static void test_set_splits_and_joins(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 0, 99), 0);
    assert_int_equal(set(&f, 1, W, 40, 59), 0);
    assert_held(&f, 3, (const uint64_t[][4]){{1, R, 0, 39}, {1, W, 40, 59}, {1, R, 60, 99}});
    assert_int_equal(set(&f, 1, R, 40, 59), 0);
    assert_held(&f, 1, (const uint64_t[][4]){{1, R, 0, 99}});
    assert_int_equal(set(&f, 1, R, 100, 100), 0);
    assert_held(&f, 1, (const uint64_t[][4]){{1, R, 0, 100}});
    assert_int_equal(set(&f, 1, U, 10, 19), 0);
    assert_int_equal(set(&f, 1, U, 0, 4), 0);
    assert_int_equal(set(&f, 1, U, 90, END), 0);
    assert_held(&f, 2, (const uint64_t[][4]){{1, R, 5, 9}, {1, R, 20, 89}});
    assert_int_equal(set(&f, 1, W, 8, 30), 0);
    assert_held(&f, 3, (const uint64_t[][4]){{1, R, 5, 7}, {1, W, 8, 30}, {1, R, 31, 89}});
    assert_int_equal(set(&f, 1, R, 0, END), 0);
    assert_held(&f, 1, (const uint64_t[][4]){{1, R, 0, END}});
    assert_int_equal(set(&f, 1, U, END, END), 0);
    assert_held(&f, 1, (const uint64_t[][4]){{1, R, 0, END - 1}});
    assert_int_equal(set(&f, 1, R, END, END), 0);
    assert_held(&f, 1, (const uint64_t[][4]){{1, R, 0, END}});
    assert_int_equal(set(&f, 1, U, 0, END), 0);
    assert_held(&f, 0, NULL);
    teardown(&f);
}

static void test_set_readers_share_writers_do_not(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 0, 9), 0);
    assert_int_equal(set(&f, 2, R, 5, 14), 0);
    assert_int_equal(set(&f, 3, W, 14, 20), ERR_WOULD_BLOCK);
    assert_int_equal(set(&f, 3, W, 15, 20), 0);
    assert_int_equal(set(&f, 1, R, 0, 15), ERR_WOULD_BLOCK);
    assert_int_equal(set(&f, 1, W, 0, 4), 0);
    assert_int_equal(set(&f, 2, U, 5, 9), 0);
    assert_int_equal(set(&f, 1, W, 0, 9), 0);
    assert_held(&f, 3, (const uint64_t[][4]){{1, W, 0, 9}, {2, R, 10, 14}, {3, W, 15, 20}});
    teardown(&f);
}

static void test_set_invalid(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, 3, 0, 1), ERR_INVALID);
    assert_int_equal(set(&f, 1, R, 2, 1), ERR_INVALID);
    assert_int_equal(set(&f, 1, U, 0, 1), 0);
    assert_held(&f, 0, NULL);
    teardown(&f);
}

/* The same owner number in two sessions is two owners. */
static void test_owners_of_sessions_are_different(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct lock_request r = request(1, W, 0, 9);
    assert_int_equal(lock_set(f.t, &r), 0);
    r.session = 2;
    assert_int_equal(lock_set(f.t, &r), ERR_WOULD_BLOCK);
    teardown(&f);
}

static void test_test_tells_the_first_blocker(void **state)
{
    (void)state;
    struct fixture f;
    struct fs_lock got;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 10, 19), 0);
    assert_int_equal(set(&f, 2, R, 5, 30), 0);
    assert_int_equal(set(&f, 3, W, 40, 49), 0);
    struct lock_request r = request(4, W, 8, 100);
    lock_test(f.t, &r, &got);
    assert_true(got.type == R && got.start == 5 && got.end == 30 && got.pid == 2);
    r = request(4, R, 8, 100);
    lock_test(f.t, &r, &got);
    assert_true(got.type == W && got.start == 40 && got.owner == 3);
    r = request(4, R, 0, 39);
    lock_test(f.t, &r, &got);
    assert_true(got.type == U && got.start == 0 && got.end == 39);
    r = request(3, W, 31, END); /* its own do not count */
    lock_test(f.t, &r, &got);
    assert_int_equal(got.type, U);
    r.oid = file_of(2);
    lock_test(f.t, &r, &got);
    assert_int_equal(got.type, U);
    teardown(&f);
}

/* --- waiting --- */

static void test_wait_in_order(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, W, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 3, 30, R, 5, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 4, 40, R, 5, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 5, 50, R, 20, 29), 0); /* nobody is before it there */
    assert_int_equal(lock_waiter_count(f.t), 3);
    assert_int_equal(set(&f, 1, U, 0, 9), 0);
    assert_int_equal(f.granted_count, 1);
    assert_granted(&f, 0, 2, 20);
    assert_int_equal(set(&f, 2, U, 0, 9), 0);
    assert_int_equal(f.granted_count, 3);
    assert_granted(&f, 1, 3, 30);
    assert_granted(&f, 2, 4, 40);
    teardown(&f);
}

/* Readers that keep coming do not starve a writer; who does not wait is not held up by it. */
static void test_wait_reader_stands_behind_waiting_writer(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 3, 30, R, 0, 9), LOCK_QUEUED);
    assert_int_equal(set(&f, 4, R, 0, 9), 0);
    assert_int_equal(set(&f, 1, U, 0, 9), 0);
    assert_int_equal(f.granted_count, 0);
    assert_int_equal(set(&f, 4, U, 0, 9), 0);
    assert_granted(&f, 0, 2, 20);
    assert_int_equal(set(&f, 2, U, 0, 9), 0);
    assert_granted(&f, 1, 3, 30);
    teardown(&f);
}

/* Fairness is not a reason for a deadlock: who holds something goes before who waits for it. */
static void test_wait_holder_does_not_stand_behind_waiter(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 1, 10, R, 5, 19), 0);
    assert_int_equal(wait_for(&f, 1, 11, W, 0, 9), 0);
    assert_int_equal(f.granted_count, 0);
    assert_int_equal(set(&f, 1, U, 0, END), 0);
    assert_granted(&f, 0, 2, 20);
    teardown(&f);
}

/* A second thread of a patient waiter takes a lock: it may be waited for now, so it is patient no
 * longer. */
static void test_wait_patience_ends_with_the_first_lock(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 3, 30, R, 0, 9), LOCK_QUEUED);
    assert_int_equal(set_in(&f, 2, 3, 0, W), 0);
    assert_int_equal(f.granted_count, 1);
    assert_granted(&f, 0, 3, 30);
    teardown(&f);
}

static void test_wait_downgrade_lets_readers_in(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, W, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, R, 0, 4), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 3, 30, W, 8, 9), LOCK_QUEUED);
    assert_int_equal(set(&f, 1, R, 0, 9), 0);
    assert_int_equal(f.granted_count, 1);
    assert_granted(&f, 0, 2, 20);
    assert_int_equal(wait_for(&f, 1, 10, W, 0, 9), LOCK_QUEUED); /* upgrade waits for 2 */
    assert_int_equal(set(&f, 2, U, 0, 9), 0);
    assert_granted(&f, 1, 1, 10);
    teardown(&f);
}

static void test_wait_repeated_request_waits_once(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, W, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(lock_waiter_count(f.t), 1);
    assert_int_equal(set(&f, 1, U, 0, 9), 0);
    assert_int_equal(f.granted_count, 1);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), 0); /* after it was granted: the same answer */
    teardown(&f);
}

static void test_cancel(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 3, 30, R, 0, 9), LOCK_QUEUED);
    assert_int_equal(lock_cancel(f.t, 2, 30), ERR_NOT_FOUND);
    assert_int_equal(lock_cancel(f.t, 2, 20), 0);
    lock_table_validate(f.t);
    assert_granted(&f, 0, 3, 30); /* nobody is before it any more */
    assert_int_equal(lock_cancel(f.t, 2, 20), ERR_NOT_FOUND);
    assert_int_equal(lock_cancel(f.t, 3, 30), ERR_NOT_FOUND);
    teardown(&f);
}

static void test_granted_may_call_the_table(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, W, 0, 9), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 9, 90, W, 0, 9), LOCK_QUEUED);
    f.cancel_on_grant = 90;
    assert_int_equal(set(&f, 1, U, 0, 9), 0);
    assert_int_equal(f.granted_count, 1);
    assert_int_equal(lock_waiter_count(f.t), 0);
    teardown(&f);
}

/* --- deadlock --- */

static void test_deadlock_of_two_and_three(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    for (uint64_t who = 1; who <= 3; who++)
        assert_int_equal(set_in(&f, who, who, 0, W), 0);
    assert_int_equal(set_in(&f, 2, 1, 10, W), LOCK_QUEUED);
    assert_int_equal(set_in(&f, 1, 2, 20, W), ERR_DEADLOCK);
    assert_int_equal(set_in(&f, 3, 2, 21, W), LOCK_QUEUED);
    assert_int_equal(set_in(&f, 1, 3, 30, R), ERR_DEADLOCK);
    assert_int_equal(set_in(&f, 1, 3, 0, R), ERR_WOULD_BLOCK); /* who does not wait is told so */
    assert_int_equal(set_in(&f, 1, 4, 40, R), LOCK_QUEUED);    /* who holds nothing may wait */
    assert_int_equal(set_in(&f, 3, 3, 0, U), 0);
    assert_granted(&f, 0, 2, 21);
    assert_int_equal(set_in(&f, 2, 2, 0, U), 0);
    assert_granted(&f, 1, 1, 10);
    teardown(&f);
}

/* Two readers that both want to write. */
static void test_deadlock_of_upgrades(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, R, 0, 9), 0);
    assert_int_equal(set(&f, 2, R, 0, 9), 0);
    assert_int_equal(wait_for(&f, 1, 10, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), ERR_DEADLOCK);
    assert_int_equal(set(&f, 2, U, 0, 9), 0);
    assert_granted(&f, 0, 1, 10);
    teardown(&f);
}

/* --- flock --- */

static void test_flock_is_a_space_of_its_own(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, W, 0, END), 0);
    assert_int_equal(flock_set(&f, 2, 0, W), 0);
    assert_int_equal(flock_set(&f, 3, 0, R), ERR_WOULD_BLOCK);
    struct lock_request r = request(3, R, 0, 0);
    struct fs_lock got;
    r.flock = true;
    lock_test(f.t, &r, &got);
    assert_true(got.type == W && got.owner == 2);
    assert_int_equal(flock_set(&f, 2, 0, R), 0); /* to a weaker one at once */
    assert_int_equal(flock_set(&f, 3, 0, R), 0);
    assert_int_equal(flock_set(&f, 2, 0, U), 0);
    assert_int_equal(flock_set(&f, 3, 0, W), 0);
    teardown(&f);
}

/* As flock(2) says: converting gives up what was held before it asks for more. */
static void test_flock_conversion_is_not_atomic(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(flock_set(&f, 1, 0, R), 0);
    assert_int_equal(flock_set(&f, 2, 0, R), 0);
    assert_int_equal(flock_set(&f, 3, 30, W), LOCK_QUEUED);
    assert_int_equal(flock_set(&f, 1, 0, W), ERR_WOULD_BLOCK);
    assert_held(&f, 1, (const uint64_t[][4]){{2, R, 0, END}});
    assert_int_equal(flock_set(&f, 4, 0, R), 0);
    assert_int_equal(flock_set(&f, 2, 20, W), LOCK_QUEUED);
    assert_held(&f, 1, (const uint64_t[][4]){{4, R, 0, END}});
    assert_int_equal(flock_set(&f, 4, 0, W), 0); /* nobody else holds it: nothing to wait for */
    assert_int_equal(f.granted_count, 0);
    assert_int_equal(flock_set(&f, 4, 0, U), 0);
    assert_int_equal(f.granted_count, 1);
    assert_granted(&f, 0, 3, 30);
    assert_int_equal(flock_set(&f, 3, 0, U), 0);
    assert_granted(&f, 1, 2, 20);
    teardown(&f);
}

/* --- ends --- */

static void test_release_owner(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, W, 0, 9), 0);
    assert_int_equal(set(&f, 1, R, 20, 29), 0);
    assert_int_equal(flock_set(&f, 1, 0, W), 0);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 29), LOCK_QUEUED);
    lock_release_owner(f.t, file_of(1), false, 7, 1); /* another session's owner 1 */
    lock_release_owner(f.t, file_of(5), false, 1, 1);
    assert_int_equal(lock_count(f.t), 3);
    lock_release_owner(f.t, file_of(1), false, 1, 1);
    lock_table_validate(f.t);
    assert_granted(&f, 0, 2, 20);
    assert_int_equal(lock_count(f.t), 2);
    lock_release_owner(f.t, file_of(1), true, 1, 1);
    assert_held(&f, 1, (const uint64_t[][4]){{2, W, 0, 29}});
    teardown(&f);
}

static void test_release_session(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    for (uint64_t owner = 1; owner <= 3; owner++) {
        struct lock_request r = request(owner, W, owner * 10, owner * 10 + 5);
        r.session = 1;
        assert_int_equal(lock_set(f.t, &r), 0);
    }
    assert_int_equal(set_in(&f, 2, 1, 0, W), 0);
    assert_int_equal(set_in(&f, 3, 2, 0, W), 0);
    struct lock_request waiting = request(99, W, 0, 9); /* goes without a word */
    waiting.oid = file_of(3);
    waiting.session = 1;
    waiting.wait = true;
    assert_int_equal(lock_set(f.t, &waiting), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 2, 20, R, 0, END), LOCK_QUEUED);
    assert_int_equal(set_in(&f, 2, 5, 50, R), LOCK_QUEUED);
    lock_release_session(f.t, 1);
    lock_table_validate(f.t);
    assert_int_equal(f.granted_count, 2);
    assert_granted(&f, 0, 2, 20);
    assert_granted(&f, 1, 5, 50);
    lock_release_session(f.t, 2);
    lock_release_session(f.t, 5);
    lock_release_session(f.t, 5);
    assert_held(&f, 0, NULL);
    teardown(&f);
}

/* --- reclaim --- */

static int reclaim(struct fixture *f, uint64_t who, uint8_t type, uint64_t start, uint64_t end)
{
    struct lock_request r = request(who, type, start, end);
    r.reclaim = true;
    int rc = lock_set(f->t, &r);
    lock_table_validate(f->t);
    return rc;
}

static void test_reclaim_before_others(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    lock_grace_begin(f.t);
    assert_int_equal(set(&f, 2, W, 0, 9), ERR_AGAIN);
    assert_int_equal(wait_for(&f, 2, 20, W, 0, 9), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 3, 30, W, 50, 59), LOCK_QUEUED);
    assert_int_equal(reclaim(&f, 1, W, 0, 9), 0);
    assert_int_equal(reclaim(&f, 4, R, 5, 5), ERR_WOULD_BLOCK); /* cannot both be true */
    assert_int_equal(set(&f, 1, U, 5, 9), 0);
    assert_int_equal(f.granted_count, 0);
    lock_grace_end(f.t);
    lock_table_validate(f.t);
    assert_int_equal(f.granted_count, 1);
    assert_granted(&f, 0, 3, 30);
    assert_int_equal(reclaim(&f, 5, W, 0, 1), ERR_WOULD_BLOCK); /* too late: like any other */
    assert_int_equal(set(&f, 1, U, 0, 9), 0);
    assert_granted(&f, 1, 2, 20);
    teardown(&f);
}

/* Requests queued before everything held was known. */
static void test_grace_end_finds_deadlocks(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    lock_grace_begin(f.t);
    assert_int_equal(wait_for(&f, 1, 10, W, 20, 29), LOCK_QUEUED);
    assert_int_equal(wait_for(&f, 2, 20, W, 10, 19), LOCK_QUEUED);
    assert_int_equal(reclaim(&f, 1, W, 10, 19), 0);
    assert_int_equal(reclaim(&f, 2, W, 20, 29), 0);
    lock_grace_end(f.t);
    lock_table_validate(f.t);
    assert_int_equal(f.granted_count, 1);
    assert_int_equal(f.granted[0].rc, ERR_DEADLOCK);
    assert_int_equal(f.granted[0].number, 10);
    assert_int_equal(set(&f, 1, U, 0, END), 0);
    assert_granted(&f, 1, 2, 20);
    teardown(&f);
}

/* --- bounds --- */

static void test_locks_of_a_file_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct lock_request r = request(1, R, 0, 0);
    for (uint64_t i = 0; i < LIMIT_LOCKS_FILE; i++) {
        r.lock.start = r.lock.end = 10 * i;
        assert_int_equal(lock_set(f.t, &r), 0);
    }
    r.lock.start = r.lock.end = 5;
    assert_int_equal(lock_set(f.t, &r), ERR_NO_LOCKS);
    assert_int_equal(lock_count(f.t), LIMIT_LOCKS_FILE);
    r.lock.start = 1; /* joins three into one */
    r.lock.end = 9;
    assert_int_equal(lock_set(f.t, &r), 0);
    assert_int_equal(lock_count(f.t), LIMIT_LOCKS_FILE - 1);
    r.lock.start = 0;
    r.lock.end = END;
    assert_int_equal(lock_set(f.t, &r), 0);
    assert_int_equal(lock_count(f.t), 1);
    teardown(&f);
}

static void test_waiters_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(set(&f, 1, W, 0, 9), 0);
    struct lock_request r = request(2, W, 0, 9);
    r.wait = true;
    for (uint64_t i = 0; i < LIMIT_LOCK_WAITERS; i++) {
        r.number = i;
        r.lock.owner = 10 + i;
        assert_int_equal(lock_set(f.t, &r), LOCK_QUEUED);
    }
    r.number = r.lock.owner = LIMIT_LOCK_WAITERS + 100;
    assert_int_equal(lock_set(f.t, &r), ERR_NO_LOCKS);
    lock_release_session(f.t, 2);
    assert_int_equal(lock_waiter_count(f.t), 0);
    teardown(&f);
    lock_table_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_splits_and_joins),
        cmocka_unit_test(test_set_readers_share_writers_do_not),
        cmocka_unit_test(test_set_invalid),
        cmocka_unit_test(test_owners_of_sessions_are_different),
        cmocka_unit_test(test_test_tells_the_first_blocker),
        cmocka_unit_test(test_wait_in_order),
        cmocka_unit_test(test_wait_reader_stands_behind_waiting_writer),
        cmocka_unit_test(test_wait_holder_does_not_stand_behind_waiter),
        cmocka_unit_test(test_wait_patience_ends_with_the_first_lock),
        cmocka_unit_test(test_wait_downgrade_lets_readers_in),
        cmocka_unit_test(test_wait_repeated_request_waits_once),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_granted_may_call_the_table),
        cmocka_unit_test(test_deadlock_of_two_and_three),
        cmocka_unit_test(test_deadlock_of_upgrades),
        cmocka_unit_test(test_flock_is_a_space_of_its_own),
        cmocka_unit_test(test_flock_conversion_is_not_atomic),
        cmocka_unit_test(test_release_owner),
        cmocka_unit_test(test_release_session),
        cmocka_unit_test(test_reclaim_before_others),
        cmocka_unit_test(test_grace_end_finds_deadlocks),
        cmocka_unit_test(test_locks_of_a_file_are_bounded),
        cmocka_unit_test(test_waiters_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
