/* site/session.h: what is open, who is told, who has to answer, who has expired. By cases, and at
 * random against a model of plain arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/limits.h"
#include "site/session.h"

#define TIMEOUT_NS (30 * NS_PER_SEC)

struct seen_push {
    uint64_t session, push_id;
    uint32_t count;
    struct oid first;
    uint16_t type;
};
struct fixture {
    struct session_table *t;
    struct seen_push pushes[4096];
    uint32_t push_count;
    uintptr_t completed[4096];
    uint32_t completed_count;
    struct oid closed[256];
    uint32_t closed_count;
    struct oid unheld[256];
    uint32_t unheld_count;
    uint64_t remove_on_complete; /* a session to remove from inside completed() */
};

static void on_push(void *ctx,
                    uint64_t session,
                    uint16_t type,
                    uint64_t push_id,
                    const struct fs_inval *invals,
                    uint32_t inval_count)
{
    struct fixture *f = ctx;
    assert_true(inval_count > 0);
    f->pushes[f->push_count++ % ARRAY_COUNT(f->pushes)] =
        (struct seen_push){session, push_id, inval_count, invals[0].oid, type};
}

static void on_completed(void *ctx, void *ticket)
{
    struct fixture *f = ctx;
    f->completed[f->completed_count++ % ARRAY_COUNT(f->completed)] = (uintptr_t)ticket;
    session_table_validate(f->t);
    if (f->remove_on_complete != 0) {
        uint64_t id = f->remove_on_complete;
        f->remove_on_complete = 0;
        assert_int_equal(session_remove(f->t, id), 0);
    }
}

static void on_last_closed(void *ctx, struct oid oid)
{
    struct fixture *f = ctx;
    f->closed[f->closed_count++ % ARRAY_COUNT(f->closed)] = oid;
    assert_false(session_object_open(f->t, oid));
}

static void on_unheld(void *ctx, struct oid oid)
{
    struct fixture *f = ctx;
    f->unheld[f->unheld_count++ % ARRAY_COUNT(f->unheld)] = oid;
    assert_true(session_holder(f->t, oid) == 0);
    session_table_validate(f->t);
}

static void setup(struct fixture *f, uint32_t interest_max)
{
    memset(f, 0, sizeof *f);
    const struct session_config config = {.timeout_ns = TIMEOUT_NS, .interest_max = interest_max};
    const struct session_events events = {.push = on_push,
                                          .completed = on_completed,
                                          .last_closed = on_last_closed,
                                          .unheld = on_unheld,
                                          .ctx = f};
    f->t = session_table_new(&config, &events);
}

static void teardown(struct fixture *f)
{
    session_table_validate(f->t);
    session_table_free(f->t);
}

static struct oid oid_of(uint64_t n)
{
    return oid_file(0, OID_FILE, 1, n);
}

static void *ticket_of(uintptr_t n)
{
    return (void *)n;
}

static bool invalidate(struct fixture *f, uint64_t except, uint64_t object, uintptr_t ticket)
{
    const struct fs_inval inval = {.oid = oid_of(object)};
    return session_invalidate(f->t, except, &inval, 1, 0, ticket_of(ticket));
}

/* --- sessions --- */

static void test_new_and_remove(void **state)
{
    (void)state;
    struct fixture f;
    int user;
    setup(&f, 0);
    assert_int_equal(session_new(f.t, 7, 0), 0);
    assert_int_equal(session_new(f.t, 7, 0), ERR_EXISTS);
    assert_true(session_exists(f.t, 7));
    assert_false(session_exists(f.t, 8));
    session_set_user(f.t, 7, &user);
    session_set_user(f.t, 8, &user);
    assert_ptr_equal(session_user(f.t, 7), &user);
    assert_null(session_user(f.t, 8));
    assert_int_equal(session_remove(f.t, 8), ERR_NOT_FOUND);
    assert_int_equal(session_remove(f.t, 7), 0);
    assert_int_equal(session_count(f.t), 0);
    teardown(&f);
    session_table_free(NULL);
}

static void test_new_is_bounded(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    for (uint64_t id = 1; id <= LIMIT_SESSIONS; id++)
        assert_int_equal(session_new(f.t, id, 0), 0);
    assert_int_equal(session_new(f.t, LIMIT_SESSIONS + 1, 0), ERR_LIMIT);
    assert_int_equal(session_remove(f.t, 5), 0);
    assert_int_equal(session_new(f.t, LIMIT_SESSIONS + 1, 0), 0);
    teardown(&f);
}

static void test_expiry_without_connection(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    assert_int_equal(session_deadline_ns(f.t), UINT64_MAX);
    assert_int_equal(session_new(f.t, 1, 100), 0);
    assert_int_equal(session_new(f.t, 2, 200), 0);
    assert_int_equal(session_deadline_ns(f.t), 100 + TIMEOUT_NS);
    session_connected(f.t, 1);
    session_connected(f.t, 1);
    assert_int_equal(session_deadline_ns(f.t), 200 + TIMEOUT_NS);
    assert_int_equal(session_expired(f.t, 199 + TIMEOUT_NS), 0);
    assert_int_equal(session_expired(f.t, 200 + TIMEOUT_NS), 2);
    session_disconnected(f.t, 1, 1000);
    session_connected(f.t, 2);
    assert_int_equal(session_deadline_ns(f.t), UINT64_MAX);
    session_disconnected(f.t, 1, 2000);
    assert_int_equal(session_deadline_ns(f.t), 2000 + TIMEOUT_NS);
    session_disconnected(f.t, 9, 2000);
    session_connected(f.t, 9);
    teardown(&f);
}

static void test_expiry_without_acknowledgement(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    assert_int_equal(session_new(f.t, 1, 0), 0);
    session_connected(f.t, 1);
    session_interest(f.t, 1, oid_of(1));
    const struct fs_inval inval = {.oid = oid_of(1)};
    assert_true(session_invalidate(f.t, 0, &inval, 1, 500, ticket_of(1)));
    assert_true(session_invalidate(f.t, 0, &inval, 1, 900, ticket_of(2)));
    assert_int_equal(session_deadline_ns(f.t), 500 + TIMEOUT_NS);
    assert_int_equal(session_acked(f.t, 1, 1), 0);
    assert_int_equal(session_deadline_ns(f.t), 900 + TIMEOUT_NS);
    assert_int_equal(session_acked(f.t, 1, 2), 0);
    assert_int_equal(session_deadline_ns(f.t), UINT64_MAX);
    for (uint32_t i = 0; i < LIMIT_SESSION_PUSHES; i++)
        assert_true(session_invalidate(f.t, 0, &inval, 1, 1000, ticket_of(3)));
    assert_int_equal(session_expired(f.t, 1000), 1);
    assert_int_equal(session_remove(f.t, 1), 0);
    assert_int_equal(f.completed_count, 2 + LIMIT_SESSION_PUSHES);
    teardown(&f);
}

/* --- opens --- */

static void test_opens_are_counted(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    assert_int_equal(session_new(f.t, 1, 0), 0);
    assert_int_equal(session_new(f.t, 2, 0), 0);
    assert_int_equal(session_opened(f.t, 3, oid_of(1)), ERR_NOT_FOUND);
    assert_int_equal(session_closed(f.t, 1, oid_of(1)), ERR_NOT_FOUND);
    assert_int_equal(session_opened(f.t, 1, oid_of(1)), 0);
    assert_int_equal(session_opened(f.t, 1, oid_of(1)), 0);
    assert_int_equal(session_opened(f.t, 2, oid_of(1)), 0);
    assert_true(session_object_open(f.t, oid_of(1)));
    assert_int_equal(session_closed(f.t, 1, oid_of(1)), 0);
    assert_int_equal(session_closed(f.t, 1, oid_of(1)), 0);
    assert_int_equal(session_closed(f.t, 1, oid_of(1)), ERR_NOT_FOUND);
    assert_int_equal(f.closed_count, 0);
    assert_int_equal(session_closed(f.t, 2, oid_of(1)), 0);
    assert_int_equal(f.closed_count, 1);
    assert_true(oid_equal(f.closed[0], oid_of(1)));
    assert_false(session_object_open(f.t, oid_of(1)));
    teardown(&f);
}

static void test_remove_closes_in_order(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    assert_int_equal(session_new(f.t, 1, 0), 0);
    assert_int_equal(session_new(f.t, 2, 0), 0);
    for (uint64_t i = 5; i > 0; i--)
        assert_int_equal(session_opened(f.t, 1, oid_of(i)), 0);
    assert_int_equal(session_opened(f.t, 1, oid_of(3)), 0);
    assert_int_equal(session_opened(f.t, 2, oid_of(4)), 0);
    assert_int_equal(session_remove(f.t, 1), 0);
    assert_int_equal(f.closed_count, 4);
    assert_true(oid_equal(f.closed[0], oid_of(5)));
    assert_true(oid_equal(f.closed[1], oid_of(3)));
    assert_true(oid_equal(f.closed[2], oid_of(2)));
    assert_true(oid_equal(f.closed[3], oid_of(1)));
    teardown(&f);
}

/* --- invalidations --- */

static void test_invalidate_goes_to_who_is_concerned(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    for (uint64_t id = 1; id <= 4; id++)
        assert_int_equal(session_new(f.t, id, 0), 0);
    session_interest(f.t, 1, oid_of(1));
    session_interest(f.t, 2, oid_of(1));
    session_interest(f.t, 2, oid_of(2));
    session_interest(f.t, 3, oid_of(2));
    assert_int_equal(session_opened(f.t, 4, oid_of(1)), 0); /* open is not interest */

    char name[] = "name";
    const struct fs_inval invals[] = {
        {.oid = oid_of(1), .content = true},
        {.oid = oid_of(2), .name = slice_str(name)},
        {.oid = oid_of(9)},
    };
    assert_true(session_invalidate(f.t, 1, invals, 3, 0, ticket_of(77)));
    assert_int_equal(f.push_count, 2);
    assert_true(f.pushes[0].session == 2 && f.pushes[0].count == 2);
    assert_true(f.pushes[1].session == 3 && f.pushes[1].count == 1);
    assert_true(oid_equal(f.pushes[1].first, oid_of(2)));
    assert_int_equal(f.completed_count, 0);
    assert_int_equal(session_acked(f.t, 2, f.pushes[0].push_id), 0);
    assert_int_equal(session_acked(f.t, 2, f.pushes[0].push_id), ERR_NOT_FOUND);
    assert_int_equal(session_acked(f.t, 1, f.pushes[0].push_id), ERR_NOT_FOUND);
    assert_int_equal(session_acked(f.t, 8, 1), ERR_NOT_FOUND);
    assert_int_equal(f.completed_count, 0);
    assert_int_equal(session_acked(f.t, 3, f.pushes[1].push_id), 0);
    assert_int_equal(f.completed_count, 1);
    assert_int_equal(f.completed[0], 77);
    teardown(&f);
}

static void test_invalidate_nobody_makes_no_ticket(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    assert_false(invalidate(&f, 0, 1, 1));
    assert_int_equal(session_new(f.t, 1, 0), 0);
    assert_false(invalidate(&f, 0, 1, 1));
    session_interest(f.t, 1, oid_of(1));
    assert_false(invalidate(&f, 1, 1, 1));
    session_forget(f.t, 1, oid_of(1));
    session_forget(f.t, 1, oid_of(1));
    assert_false(invalidate(&f, 0, 1, 1));
    assert_int_equal(f.push_count + f.completed_count, 0);
    teardown(&f);
}

static void test_removed_session_completes_tickets(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    for (uint64_t id = 1; id <= 3; id++) {
        assert_int_equal(session_new(f.t, id, 0), 0);
        session_interest(f.t, id, oid_of(1));
    }
    assert_true(invalidate(&f, 3, 1, 1));
    assert_true(invalidate(&f, 3, 1, 2));
    assert_int_equal(session_acked(f.t, 1, 2), 0); /* out of order */
    assert_int_equal(session_remove(f.t, 2), 0);
    assert_int_equal(f.completed_count, 1);
    assert_int_equal(f.completed[0], 2);
    f.remove_on_complete = 3; /* the callback may call the table */
    assert_int_equal(session_remove(f.t, 1), 0);
    assert_int_equal(f.completed_count, 2);
    assert_int_equal(f.completed[1], 1);
    assert_int_equal(session_count(f.t), 0);
    teardown(&f);
}

/* After a reconnect everything that is not acknowledged comes again, with its own copies. */
static void test_resend_in_order(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    assert_int_equal(session_new(f.t, 1, 0), 0);
    session_interest(f.t, 1, oid_of(1));
    session_interest(f.t, 1, oid_of(2));
    for (uint64_t i = 0; i < 4; i++)
        assert_true(invalidate(&f, 0, 1 + i % 2, i));
    assert_int_equal(session_acked(f.t, 1, 2), 0);
    f.push_count = 0;
    session_resend(f.t, 1);
    session_resend(f.t, 99);
    assert_int_equal(f.push_count, 3);
    static const uint64_t ids[] = {1, 3, 4};
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(f.pushes[i].push_id, ids[i]);
        assert_true(oid_equal(f.pushes[i].first, oid_of(1 + (ids[i] - 1) % 2)));
    }
    teardown(&f);
}

static void test_too_many_interests_mean_everything(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 10);
    assert_int_equal(session_new(f.t, 1, 0), 0);
    assert_int_equal(session_new(f.t, 2, 0), 0);
    assert_int_equal(session_opened(f.t, 1, oid_of(3)), 0);
    for (uint64_t i = 0; i < 10; i++)
        session_interest(f.t, 1, oid_of(i + 1));
    assert_false(session_has_interest(f.t, 1, oid_of(100)));
    session_forget(f.t, 1, oid_of(10));
    session_interest(f.t, 1, oid_of(11));
    assert_false(session_has_interest(f.t, 1, oid_of(10)));
    session_interest(f.t, 1, oid_of(12));
    assert_true(session_has_interest(f.t, 1, oid_of(100)));
    session_forget(f.t, 1, oid_of(1));
    assert_true(session_has_interest(f.t, 1, oid_of(1)));
    assert_true(session_object_open(f.t, oid_of(3)));
    assert_true(invalidate(&f, 0, 1000, 1));
    assert_int_equal(f.push_count, 1);
    assert_false(session_has_interest(f.t, 3, oid_of(1)));
    teardown(&f);
}

static void count_info(void *ctx, const struct session_info *info)
{
    uint32_t *sum = ctx;
    *sum += info->opens * 100 + info->interests * 10 + info->pushes + info->connections * 1000;
}

static void test_each_tells_the_counts(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t sum = 0;
    setup(&f, 0);
    assert_int_equal(session_new(f.t, 1, 0), 0);
    session_connected(f.t, 1);
    assert_int_equal(session_opened(f.t, 1, oid_of(1)), 0);
    assert_int_equal(session_opened(f.t, 1, oid_of(1)), 0);
    session_interest(f.t, 1, oid_of(2));
    assert_true(invalidate(&f, 0, 2, 1));
    session_each(f.t, count_info, &sum);
    assert_int_equal(sum, 1211);
    teardown(&f);
}

/* A recall is a push like others: once, again after a reconnect, and a mount that does not answer
 * it expires. Its acknowledgement ends the hold. */
static void test_recall_is_pushed_once_and_its_answer_ends_the_hold(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    assert_int_equal(session_new(f.t, 1, 0), 0);
    session_connected(f.t, 1);
    session_hold(f.t, 1, oid_of(5)); /* it has not opened it */
    assert_int_equal(session_holder(f.t, oid_of(5)), 0);
    session_recall(f.t, oid_of(5), 0);
    assert_int_equal(f.push_count, 0);
    assert_int_equal(session_opened(f.t, 1, oid_of(5)), 0);
    session_hold(f.t, 1, oid_of(5));
    assert_int_equal(session_holder(f.t, oid_of(5)), 1);
    session_hold_end(f.t, 2, oid_of(5)); /* not its own */
    session_recall(f.t, oid_of(5), 7);
    session_recall(f.t, oid_of(5), 8);
    assert_int_equal(f.push_count, 1);
    assert_int_equal(f.pushes[0].type, PUSH_RECALL);
    assert_true(oid_equal(f.pushes[0].first, oid_of(5)));
    session_resend(f.t, 1);
    assert_int_equal(f.push_count, 2);
    assert_int_equal(f.pushes[1].type, PUSH_RECALL);
    assert_int_equal(session_expired(f.t, 7 + TIMEOUT_NS - 1), 0);
    assert_int_equal(session_expired(f.t, 7 + TIMEOUT_NS), 1);
    assert_int_equal(f.unheld_count, 0);
    assert_int_equal(session_acked(f.t, 1, f.pushes[0].push_id), 0);
    assert_int_equal(f.unheld_count, 1);
    assert_true(oid_equal(f.unheld[0], oid_of(5)));
    assert_int_equal(f.completed_count, 0); /* a recall is nobody's ticket */
    assert_int_equal(session_expired(f.t, UINT64_MAX - 1), 0);
    teardown(&f);
}

static void test_hold_ends_with_the_last_close_and_with_the_session(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0);
    for (uint64_t id = 1; id <= 2; id++) {
        assert_int_equal(session_new(f.t, id, 0), 0);
        assert_int_equal(session_opened(f.t, id, oid_of(id)), 0);
        assert_int_equal(session_opened(f.t, id, oid_of(id)), 0);
        session_hold(f.t, id, oid_of(id));
        session_recall(f.t, oid_of(id), 0);
    }
    assert_int_equal(session_closed(f.t, 1, oid_of(1)), 0);
    assert_int_equal(session_holder(f.t, oid_of(1)), 1);
    assert_int_equal(session_closed(f.t, 1, oid_of(1)), 0);
    assert_int_equal(f.unheld_count, 1);
    assert_int_equal(session_remove(f.t, 2), 0);
    assert_int_equal(f.unheld_count, 2);
    /* Nobody had asked: nobody is told. */
    assert_int_equal(session_opened(f.t, 1, oid_of(3)), 0);
    session_hold(f.t, 1, oid_of(3));
    session_hold_end(f.t, 1, oid_of(3));
    assert_int_equal(session_holder(f.t, oid_of(3)), 0);
    assert_int_equal(f.unheld_count, 2);
    teardown(&f);
}

/* --- at random, against a model --- */

enum {
    SESSIONS = 6,
    OBJECTS = 12,
    PUSHES = 64,
    INTEREST_MAX = 8
};
struct model {
    bool exists[SESSIONS], everything[SESSIONS];
    uint32_t opens[SESSIONS][OBJECTS];
    bool interest[SESSIONS][OBJECTS];
    struct {
        uint64_t session, id;
        uintptr_t ticket; /* 0: a recall of `recalls` */
        size_t recalls;
    } pushes[PUSHES];
    uint32_t push_count;
    uint64_t push_id[SESSIONS];
    uint32_t pending[1u << 16]; /* by ticket */
    uint32_t completed, closed, unheld;
    size_t holder[OBJECTS]; /* session + 1 */
    bool recalled[OBJECTS];
};

static void model_hold_end(struct model *m, size_t s, size_t object)
{
    if (m->holder[object] != s + 1)
        return;
    m->unheld += m->recalled[object] ? 1 : 0;
    m->holder[object] = 0;
    m->recalled[object] = false;
}

static void model_push_drop(struct model *m, uint32_t at)
{
    if (m->pushes[at].ticket == 0)
        model_hold_end(m, (size_t)m->pushes[at].session - 1, m->pushes[at].recalls);
    else if (--m->pending[m->pushes[at].ticket] == 0)
        m->completed++;
    memmove(&m->pushes[at], &m->pushes[at + 1], (m->push_count - at - 1) * sizeof m->pushes[0]);
    m->push_count--;
}

static uint32_t model_opens(const struct model *m, size_t object)
{
    uint32_t sum = 0;
    for (size_t s = 0; s < SESSIONS; s++)
        sum += m->opens[s][object];
    return sum;
}

static void model_remove(struct model *m, size_t s)
{
    for (size_t o = 0; o < OBJECTS; o++) {
        bool was = m->opens[s][o] > 0;
        m->opens[s][o] = 0;
        m->interest[s][o] = false;
        model_hold_end(m, s, o);
        if (was && model_opens(m, o) == 0)
            m->closed++;
    }
    for (uint32_t i = m->push_count; i > 0; i--)
        if (m->pushes[i - 1].session == s + 1)
            model_push_drop(m, i - 1);
    m->exists[s] = m->everything[s] = false;
}

static void model_interest(struct model *m, size_t s, size_t object)
{
    uint32_t count = 0;
    if (!m->exists[s] || m->everything[s])
        return;
    m->interest[s][object] = true;
    for (size_t o = 0; o < OBJECTS; o++)
        count += m->interest[s][o] ? 1 : 0;
    if (count <= INTEREST_MAX)
        return;
    m->everything[s] = true;
    memset(m->interest[s], 0, sizeof m->interest[s]);
}

static bool model_invalidate(struct model *m, uint64_t except, size_t object, uintptr_t ticket)
{
    for (size_t s = 0; s < SESSIONS; s++) {
        if (!m->exists[s] || s + 1 == except || !(m->everything[s] || m->interest[s][object]))
            continue;
        m->pushes[m->push_count].session = s + 1;
        m->pushes[m->push_count].id = ++m->push_id[s];
        m->pushes[m->push_count++].ticket = ticket;
        m->pending[ticket]++;
    }
    return m->pending[ticket] > 0;
}

static void model_recall(struct model *m, size_t object)
{
    if (m->holder[object] == 0 || m->recalled[object])
        return;
    size_t s = m->holder[object] - 1;
    m->recalled[object] = true;
    m->pushes[m->push_count].session = s + 1;
    m->pushes[m->push_count].id = ++m->push_id[s];
    m->pushes[m->push_count].recalls = object;
    m->pushes[m->push_count++].ticket = 0;
}

static void hold_step(struct fixture *f, struct model *m, struct rng *r, size_t s, size_t o)
{
    struct oid oid = oid_of(o + 1);
    switch (rng_below(r, 3)) {
    case 0:
        if (m->holder[o] == 0) {
            session_hold(f->t, s + 1, oid); /* of what it does not have open: no effect */
            m->holder[o] = m->opens[s][o] > 0 ? s + 1 : 0;
        }
        break;
    case 1:
        session_hold_end(f->t, s + 1, oid);
        model_hold_end(m, s, o);
        break;
    default:
        if (m->push_count < PUSHES) {
            session_recall(f->t, oid, 0);
            model_recall(m, o);
        }
        break;
    }
}

static void random_step(struct fixture *f, struct model *m, struct rng *r, uintptr_t ticket)
{
    size_t s = rng_below(r, SESSIONS), o = rng_below(r, OBJECTS);
    struct oid oid = oid_of(o + 1);
    switch (rng_below(r, 14)) {
    case 0:
        assert_int_equal(session_new(f->t, s + 1, 0), m->exists[s] ? ERR_EXISTS : 0);
        if (!m->exists[s])
            m->push_id[s] = 0;
        m->exists[s] = true;
        break;
    case 1:
        if (rng_below(r, 4) == 0) {
            assert_int_equal(session_remove(f->t, s + 1), m->exists[s] ? 0 : ERR_NOT_FOUND);
            model_remove(m, s);
        }
        break;
    case 2:
    case 3:
        assert_int_equal(session_opened(f->t, s + 1, oid), m->exists[s] ? 0 : ERR_NOT_FOUND);
        m->opens[s][o] += m->exists[s] ? 1 : 0;
        break;
    case 4:
    case 5:
        assert_int_equal(session_closed(f->t, s + 1, oid), m->opens[s][o] > 0 ? 0 : ERR_NOT_FOUND);
        if (m->opens[s][o] > 0 && --m->opens[s][o] == 0) {
            model_hold_end(m, s, o);
            m->closed += model_opens(m, o) == 0 ? 1 : 0;
        }
        break;
    case 6:
    case 7:
        session_interest(f->t, s + 1, oid);
        model_interest(m, s, o);
        break;
    case 8:
        session_forget(f->t, s + 1, oid);
        m->interest[s][o] = false;
        break;
    case 12:
    case 13:
        hold_step(f, m, r, s, o);
        break;
    case 9:
        if (m->push_count + SESSIONS <= PUSHES) {
            uint64_t except = rng_below(r, SESSIONS + 1);
            bool any = model_invalidate(m, except, o, ticket);
            assert_int_equal(invalidate(f, except, o + 1, ticket), any);
        }
        break;
    default:
        if (m->push_count > 0) {
            uint32_t at = (uint32_t)rng_below(r, m->push_count);
            assert_int_equal(session_acked(f->t, m->pushes[at].session, m->pushes[at].id), 0);
            model_push_drop(m, at);
        }
        break;
    }
}

static void test_random_against_model(void **state)
{
    (void)state;
    struct model *m = mem_alloc(sizeof *m);
    struct fixture *f = mem_alloc(sizeof *f);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rng r;
        memset(m, 0, sizeof *m);
        setup(f, INTEREST_MAX);
        rng_seed(&r, seed);
        for (uintptr_t step = 1; step < 3000; step++) {
            random_step(f, m, &r, step);
            session_table_validate(f->t);
            assert_int_equal(f->completed_count, m->completed);
            assert_int_equal(f->closed_count, m->closed);
            assert_int_equal(f->unheld_count, m->unheld);
            for (size_t o = 0; o < OBJECTS; o++) {
                assert_int_equal(session_object_open(f->t, oid_of(o + 1)), model_opens(m, o) > 0);
                assert_int_equal(session_holder(f->t, oid_of(o + 1)), m->holder[o]);
                for (size_t s = 0; s < SESSIONS; s++)
                    assert_int_equal(session_has_interest(f->t, s + 1, oid_of(o + 1)),
                                     m->everything[s] || m->interest[s][o]);
            }
        }
        teardown(f);
    }
    mem_free(m);
    mem_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_and_remove),
        cmocka_unit_test(test_new_is_bounded),
        cmocka_unit_test(test_expiry_without_connection),
        cmocka_unit_test(test_expiry_without_acknowledgement),
        cmocka_unit_test(test_opens_are_counted),
        cmocka_unit_test(test_remove_closes_in_order),
        cmocka_unit_test(test_invalidate_goes_to_who_is_concerned),
        cmocka_unit_test(test_invalidate_nobody_makes_no_ticket),
        cmocka_unit_test(test_removed_session_completes_tickets),
        cmocka_unit_test(test_resend_in_order),
        cmocka_unit_test(test_too_many_interests_mean_everything),
        cmocka_unit_test(test_each_tells_the_counts),
        cmocka_unit_test(test_recall_is_pushed_once_and_its_answer_ends_the_hold),
        cmocka_unit_test(test_hold_ends_with_the_last_close_and_with_the_session),
        cmocka_unit_test(test_random_against_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
