/* The loop: timers on a clock of the test, messages, requests, deferred work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/loop.h"

/* Time passes only by being looked at: no test waits for the wall. */
struct test_clock {
    struct clock clock;
    uint64_t now_ns, step_ns;
};

static uint64_t test_clock_ns(void *ctx)
{
    struct test_clock *c = ctx;
    c->now_ns += c->step_ns;
    return c->now_ns;
}

struct fixture {
    struct test_clock clock;
    struct loop *loop;
};

static int setup(void **state)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    struct err_detail detail;
    f->clock = (struct test_clock){.now_ns = 1000, .step_ns = NS_PER_MS};
    f->clock.clock =
        (struct clock){.mono_ns = test_clock_ns, .wall_ns = test_clock_ns, .ctx = &f->clock};
    assert_int_equal(loop_new(&f->loop, 8, &f->clock.clock, &detail), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_free(f->loop);
    mem_free(f);
    return 0;
}

/* --- time --- */

/* What a node waits for after its start begins when it has opened, however long that took. */
static void test_loop_now_before_the_run_is_the_clocks(void **state)
{
    struct fixture *f = *state;
    f->clock.now_ns += 20 * NS_PER_SEC;
    assert_true(loop_now_ns(f->loop) >= 20 * NS_PER_SEC);
}

/* --- timers --- */

struct timed {
    struct loop_timer timer;
    struct loop *loop;
    int id, *log, *log_count, stop_after;
    struct loop_timer *stops;
};

static void timed_fire(struct loop_timer *t)
{
    struct timed *x = CONTAINER_OF(t, struct timed, timer);
    assert_true(loop_now_ns(x->loop) >= t->deadline_ns);
    x->log[(*x->log_count)++] = x->id;
    if (x->stops != NULL)
        loop_timer_stop(x->loop, x->stops);
    if (*x->log_count == x->stop_after)
        loop_stop(x->loop);
}

static void test_loop_timers_fire_by_deadline_then_start(void **state)
{
    struct fixture *f = *state;
    const uint64_t deadlines[] = {30, 10, 20, 10, 30, 10};
    const int want[] = {1, 3, 5, 2, 0, 4};
    struct timed timers[ARRAY_COUNT(deadlines)] = {0};
    int log[16], log_count = 0;
    for (size_t i = 0; i < ARRAY_COUNT(deadlines); i++) {
        timers[i] = (struct timed){.timer = {.fire = timed_fire},
                                   .loop = f->loop,
                                   .id = (int)i,
                                   .log = log,
                                   .log_count = &log_count,
                                   .stop_after = 6};
        loop_timer_start(f->loop, &timers[i].timer, deadlines[i] * NS_PER_MS);
    }
    loop_run(f->loop);
    assert_int_equal(log_count, 6);
    assert_memory_equal(log, want, sizeof want);
}

static void test_loop_timer_stopped_or_moved_inside_another(void **state)
{
    struct fixture *f = *state;
    struct timed timers[4] = {0};
    int log[16], log_count = 0;
    for (int i = 0; i < 4; i++)
        timers[i] = (struct timed){.timer = {.fire = timed_fire},
                                   .loop = f->loop,
                                   .id = i,
                                   .log = log,
                                   .log_count = &log_count,
                                   .stop_after = 3};
    timers[0].stops = &timers[1].timer; /* of the same deadline, due in the same turn */
    for (int i = 0; i < 3; i++)
        loop_timer_start(f->loop, &timers[i].timer, 5 * NS_PER_MS);
    loop_timer_start(f->loop, &timers[3].timer, NS_PER_MS);
    loop_timer_start(f->loop, &timers[3].timer, 9 * NS_PER_MS); /* moved */
    loop_run(f->loop);
    const int want[] = {0, 2, 3};
    assert_int_equal(log_count, 3);
    assert_memory_equal(log, want, sizeof want);
}

struct again {
    struct loop_timer timer;
    struct loop *loop;
    int fired;
};

static void again_fire(struct loop_timer *t)
{
    struct again *a = CONTAINER_OF(t, struct again, timer);
    a->fired++;
    loop_timer_start(a->loop, t, 0);
}

/* A timer that is always due must starve neither another timer nor a message. */
static void test_loop_timer_restarting_itself_starves_nobody(void **state)
{
    struct fixture *f = *state;
    int log[4], log_count = 0;
    struct again again = {.timer = {.fire = again_fire}, .loop = f->loop};
    struct timed other = {.timer = {.fire = timed_fire},
                          .loop = f->loop,
                          .log = log,
                          .log_count = &log_count,
                          .stop_after = 1};
    loop_timer_start(f->loop, &again.timer, 0);
    loop_timer_start(f->loop, &other.timer, 20 * NS_PER_MS);
    loop_run(f->loop);
    assert_int_equal(log_count, 1);
    assert_in_range(again.fired, 2, 100);
    loop_timer_stop(f->loop, &again.timer);
}

/* --- messages --- */

enum {
    POSTERS = 4,
    POSTS = 3000
};

struct posted {
    struct loop_msg msg;
    struct receiver *receiver;
    int thread, idx;
};

struct receiver {
    struct loop *loop;
    int next[POSTERS], total;
};

static void posted_run(struct loop_msg *msg)
{
    struct posted *p = CONTAINER_OF(msg, struct posted, msg);
    struct receiver *r = p->receiver;
    ASSERT(loop_here(r->loop));
    ASSERT(r->next[p->thread] == p->idx); /* in the order of its thread */
    r->next[p->thread]++;
    if (++r->total == POSTERS * POSTS)
        loop_stop(r->loop);
    mem_free(p); /* ours since it began to run */
}

struct poster {
    pthread_t id;
    struct receiver *receiver;
    int thread;
};

static void *poster_main(void *arg)
{
    struct poster *poster = arg;
    for (int i = 0; i < POSTS; i++) {
        struct posted *p = mem_calloc(1, sizeof *p);
        *p = (struct posted){.msg = {.run = posted_run},
                             .receiver = poster->receiver,
                             .thread = poster->thread,
                             .idx = i};
        loop_post(poster->receiver->loop, &p->msg);
    }
    return NULL;
}

static void test_loop_post_from_threads_all_arrive_in_order(void **state)
{
    struct fixture *f = *state;
    struct receiver r = {.loop = f->loop};
    struct poster posters[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.receiver = &r, .thread = i};
        assert_int_equal(pthread_create(&posters[i].id, NULL, poster_main, &posters[i]), 0);
    }
    loop_run(f->loop);
    for (int i = 0; i < POSTERS; i++) {
        (void)pthread_join(posters[i].id, NULL);
        assert_int_equal(r.next[i], POSTS);
    }
}

struct count_msg {
    struct loop_msg msg;
    struct loop *loop;
    int *count, limit;
};

static void count_run(struct loop_msg *msg)
{
    struct count_msg *m = CONTAINER_OF(msg, struct count_msg, msg);
    if (++*m->count == m->limit)
        loop_stop(m->loop);
    else
        loop_post(m->loop, msg); /* itself again: reuse inside is allowed */
}

static void test_loop_post_before_run_and_from_inside(void **state)
{
    struct fixture *f = *state;
    int count = 0;
    struct count_msg m = {
        .msg = {.run = count_run}, .loop = f->loop, .count = &count, .limit = 100};
    loop_post(f->loop, &m.msg);
    assert_int_equal(count, 0); /* never inside the call that started it */
    loop_run(f->loop);
    assert_int_equal(count, 100);
    /* and again, in a second run on the same thread */
    m.limit = 150;
    loop_post(f->loop, &m.msg);
    loop_run(f->loop);
    assert_int_equal(count, 150);
}

static void test_loop_stop_before_run_returns(void **state)
{
    struct fixture *f = *state;
    loop_stop(f->loop);
    loop_run(f->loop);
}

struct other_thread {
    struct loop *loop;
    bool here;
};

static void *run_main(void *arg)
{
    struct other_thread *o = arg;
    loop_run(o->loop);
    return NULL;
}

static void here_run(struct loop_msg *msg)
{
    struct count_msg *m = CONTAINER_OF(msg, struct count_msg, msg);
    *m->count = loop_here(m->loop);
    loop_stop(m->loop);
}

/* Made on one thread, run on another: from then on it belongs to the other. */
static void test_loop_run_on_another_thread(void **state)
{
    struct fixture *f = *state;
    int here = 0;
    pthread_t id;
    struct other_thread o = {.loop = f->loop};
    struct count_msg m = {.msg = {.run = here_run}, .loop = f->loop, .count = &here};
    assert_true(loop_here(f->loop));
    assert_int_equal(pthread_create(&id, NULL, run_main, &o), 0);
    loop_post(f->loop, &m.msg);
    (void)pthread_join(id, NULL);
    assert_int_equal(here, 1);
    assert_false(loop_here(f->loop));
}

static void *post_main(void *arg)
{
    struct count_msg *m = arg;
    loop_post(m->loop, &m->msg);
    return NULL;
}

/* B9. A spinning loop would look at the clock thousands of times while the other thread starts; a
 * sleeping one looks a few times for each of its turns, however long the start takes. */
static void test_loop_idle_sleeps_until_it_is_woken(void **state)
{
    struct fixture *f = *state;
    int count = 0, log[1], log_count = 0;
    pthread_t id;
    struct count_msg m = {.msg = {.run = count_run}, .loop = f->loop, .count = &count, .limit = 1};
    struct timed far = {
        .timer = {.fire = timed_fire}, .loop = f->loop, .log = log, .log_count = &log_count};
    loop_timer_start(f->loop, &far.timer, 100000 * NS_PER_SEC);
    uint64_t before_ns = f->clock.now_ns;
    assert_int_equal(pthread_create(&id, NULL, post_main, &m), 0);
    loop_run(f->loop);
    (void)pthread_join(id, NULL);
    assert_in_range((f->clock.now_ns - before_ns) / f->clock.step_ns, 1, 10);
    assert_int_equal(log_count, 0);
    loop_timer_stop(f->loop, &far.timer);
}

/* --- requests --- */

struct nop {
    struct loop_req req;
    struct fixture *f;
    int *left;
    bool started, finished;
};

static void nop_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct nop *n = CONTAINER_OF(req, struct nop, req);
    (void)cqe_flags;
    assert_int_equal(res, 0);
    assert_true(n->started && !n->finished);
    n->finished = true;
    if (--*n->left == 0)
        loop_stop(n->f->loop);
}

/* Far more requests at once than either queue holds: each completes exactly once. */
static void test_loop_sqe_more_than_the_ring_holds(void **state)
{
    struct fixture *f = *state;
    enum {
        NOPS = 1000
    };
    struct nop *nops = mem_calloc(NOPS, sizeof *nops);
    int left = NOPS;
    for (size_t i = 0; i < NOPS; i++) {
        nops[i] = (struct nop){.req = {.done = nop_done}, .f = f, .left = &left};
        struct io_uring_sqe *sqe = loop_sqe(f->loop);
        io_uring_prep_nop(sqe);
        loop_sqe_bind(sqe, &nops[i].req);
        nops[i].started = true;
        assert_int_equal(left, NOPS);
    }
    loop_run(f->loop);
    for (size_t i = 0; i < NOPS; i++)
        assert_true(nops[i].finished);
    mem_free(nops);
}

struct io {
    struct loop_req req;
    struct loop *loop;
    int res, *left;
};

static void io_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct io *io = CONTAINER_OF(req, struct io, req);
    (void)cqe_flags;
    io->res = res;
    if (--*io->left == 0)
        loop_stop(io->loop);
}

/* A linked chain that needs a submission to find room must not be cut in two by it. */
static void test_loop_sqe_room_keeps_a_chain_together(void **state)
{
    struct fixture *f = *state;
    int fds[2], left = 2;
    char in[4] = "";
    assert_int_equal(pipe(fds), 0);
    struct io reader = {.req = {.done = io_done}, .loop = f->loop, .left = &left}, writer = reader;
    for (int i = 0; i < 7; i++) { /* no callback: completions of these are nobody's */
        io_uring_prep_nop(loop_sqe(f->loop));
    }
    loop_sqe_room(f->loop, 2);
    struct io_uring_sqe *sqe = loop_sqe(f->loop);
    io_uring_prep_write(sqe, fds[1], "abc", 3, 0);
    sqe->flags |= IOSQE_IO_LINK;
    loop_sqe_bind(sqe, &writer.req);
    sqe = loop_sqe(f->loop);
    io_uring_prep_read(sqe, fds[0], in, sizeof in, 0);
    loop_sqe_bind(sqe, &reader.req);
    loop_run(f->loop);
    assert_int_equal(writer.res, 3);
    assert_int_equal(reader.res, 3);
    assert_memory_equal(in, "abc", 3);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void test_loop_request_failure_is_a_negative_errno(void **state)
{
    struct fixture *f = *state;
    char in[4];
    int left = 1;
    struct io reader = {.req = {.done = io_done}, .loop = f->loop, .left = &left};
    struct io_uring_sqe *sqe = loop_sqe(f->loop);
    io_uring_prep_read(sqe, -1, in, sizeof in, 0);
    loop_sqe_bind(sqe, &reader.req);
    loop_run(f->loop);
    assert_int_equal(reader.res, -EBADF);
}

/* --- deferred work --- */

struct deferred {
    struct loop_defer defer;
    struct loop *loop;
    int *nops_left, runs, runs_max, nops_left_seen;
};

static void deferred_run(struct loop_defer *d)
{
    struct deferred *x = CONTAINER_OF(d, struct deferred, defer);
    x->nops_left_seen = *x->nops_left;
    if (++x->runs < x->runs_max)
        loop_defer(x->loop, d); /* for the next turn */
    else
        loop_stop(x->loop);
}

struct nop_defer {
    struct loop_req req;
    struct deferred *deferred;
};

static void nop_defer_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct nop_defer *n = CONTAINER_OF(req, struct nop_defer, req);
    (void)res;
    (void)cqe_flags;
    --*n->deferred->nops_left;
    loop_defer(n->deferred->loop, &n->deferred->defer);
}

/* Asked for by each of several completions of one turn, it runs once, after the last of them. */
static void test_loop_defer_runs_once_after_the_completions(void **state)
{
    struct fixture *f = *state;
    int left = 6;
    struct deferred d = {
        .defer = {.run = deferred_run}, .loop = f->loop, .nops_left = &left, .runs_max = 1};
    struct nop_defer nops[6];
    for (size_t i = 0; i < ARRAY_COUNT(nops); i++) {
        nops[i] = (struct nop_defer){.req = {.done = nop_defer_done}, .deferred = &d};
        struct io_uring_sqe *sqe = loop_sqe(f->loop);
        io_uring_prep_nop(sqe);
        loop_sqe_bind(sqe, &nops[i].req);
    }
    loop_run(f->loop);
    assert_int_equal(d.runs, 1);
    assert_int_equal(d.nops_left_seen, 0);
}

static void test_loop_defer_inside_itself_runs_next_turn(void **state)
{
    struct fixture *f = *state;
    int left = 0;
    struct deferred d = {
        .defer = {.run = deferred_run}, .loop = f->loop, .nops_left = &left, .runs_max = 10};
    loop_defer(f->loop, &d.defer);
    loop_defer(f->loop, &d.defer);
    assert_int_equal(d.runs, 0);
    loop_run(f->loop);
    assert_int_equal(d.runs, 10);
}

/* Taking one's deferred work back: before the loop looks at it, and while it runs the list. */
struct undeferred {
    struct loop_defer defer;
    struct loop *loop;
    struct loop_defer *victim;
    int runs;
};

static void undeferred_run(struct loop_defer *d)
{
    struct undeferred *x = CONTAINER_OF(d, struct undeferred, defer);
    x->runs++;
    if (x->victim != NULL)
        loop_undefer(x->loop, x->victim);
    loop_stop(x->loop);
}

static void test_loop_undefer_takes_work_back(void **state)
{
    struct fixture *f = *state;
    struct undeferred d[4];
    for (int i = 0; i < 4; i++)
        d[i] = (struct undeferred){.defer = {.run = undeferred_run}, .loop = f->loop};
    d[1].victim = &d[2].defer;
    for (int i = 0; i < 3; i++)
        loop_defer(f->loop, &d[i].defer);
    loop_undefer(f->loop, &d[0].defer);
    loop_undefer(f->loop, &d[0].defer);
    loop_defer(f->loop, &d[3].defer);
    loop_undefer(f->loop, &d[3].defer);
    loop_defer(f->loop, &d[3].defer);
    loop_run(f->loop);
    assert_int_equal(d[0].runs, 0);
    assert_int_equal(d[1].runs, 1);
    assert_int_equal(d[2].runs, 0);
    assert_int_equal(d[3].runs, 1);
}

/* Waiting for one request from inside another's completion: the rest still arrive, once. */
struct awaited {
    struct loop_req req;
    struct loop *loop;
    struct awaited *other;
    int runs, *left;
};

static void awaited_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct awaited *a = CONTAINER_OF(req, struct awaited, req);
    (void)cqe_flags;
    assert_int_equal(res, 0);
    a->runs++;
    if (a->other != NULL)
        assert_int_equal(loop_await(a->loop, &a->other->req), 0);
    if (--*a->left == 0)
        loop_stop(a->loop);
}

static void test_loop_await_takes_one_completion(void **state)
{
    struct fixture *f = *state;
    int left = 19;
    struct awaited a[22];
    for (int i = 0; i < 22; i++) {
        a[i] = (struct awaited){.req = {.done = awaited_done}, .loop = f->loop, .left = &left};
        struct io_uring_sqe *sqe = loop_sqe(f->loop);
        io_uring_prep_nop(sqe);
        loop_sqe_bind(sqe, &a[i].req);
    }
    a[0].other = &a[21];
    a[2].other = &a[7];
    assert_int_equal(loop_await(f->loop, &a[5].req), 0);
    loop_run(f->loop);
    for (int i = 0; i < 22; i++)
        assert_int_equal(a[i].runs, i == 5 || i == 7 || i == 21 ? 0 : 1);
}

static void test_loop_free_accepts_null_and_pending_work(void **state)
{
    struct fixture *f = *state;
    struct loop_timer t = {.fire = again_fire};
    loop_timer_start(f->loop, &t, 1);
    loop_free(f->loop);
    assert_int_equal(t.heap_idx, 0);
    f->loop = NULL; /* teardown frees nothing */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_loop_now_before_the_run_is_the_clocks),
        T(test_loop_timers_fire_by_deadline_then_start),
        T(test_loop_timer_stopped_or_moved_inside_another),
        T(test_loop_timer_restarting_itself_starves_nobody),
        T(test_loop_post_from_threads_all_arrive_in_order),
        T(test_loop_post_before_run_and_from_inside),
        T(test_loop_stop_before_run_returns),
        T(test_loop_run_on_another_thread),
        T(test_loop_idle_sleeps_until_it_is_woken),
        T(test_loop_sqe_more_than_the_ring_holds),
        T(test_loop_sqe_room_keeps_a_chain_together),
        T(test_loop_request_failure_is_a_negative_errno),
        T(test_loop_defer_runs_once_after_the_completions),
        T(test_loop_defer_inside_itself_runs_next_turn),
        T(test_loop_undefer_takes_work_back),
        T(test_loop_await_takes_one_completion),
        T(test_loop_free_accepts_null_and_pending_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
