/* The event loop and the thread pool in virtual time, with the interfaces of base/loop.h.
 *
 * A requested kernel operation is an ordinary io_uring_sqe, filled in by liburing's own inline
 * functions; instead of a kernel, sim/disk.c carries it out and says how long it takes. Linked
 * requests are not supported here: the journal and the chunk store use none. A pool job runs whole,
 * on this thread, at the moment it would have finished. */
#include "sim/loop_sim.h"

#include <string.h>

#include "base/assert.h"
#include "base/defer.h"
#include "base/timer.h"
#include "sim/disk.h"

/* A turn takes time: who asks again every turn sees the disk move on. */
#define TURN_NS 2000u
#define POOL_JOB_NS (200 * UINT64_C(1000))

struct io { /* one request of the loop at the disk */
    struct sched_event event;
    struct loop *loop;
    struct loop_req *req;
    struct io_uring_sqe sqe;
    struct io *prev, *next;
};
struct loop {
    struct machine *machine;
    const struct clock *clock;
    uint64_t now_ns;
    struct timer_heap timers;
    struct defer_list defers;
    struct loop_msg *inbox_first, **inbox_last;
    struct io *ios;             /* under way */
    struct io *pending, *spare; /* sqe handed out and not started; for reuse */
    struct sched_event turn;
    bool stop, in_turn;
};
struct machine *machine_current;

static void turn_run(struct sched_event *e);

int loop_new(struct loop **ret,
             uint32_t ring_entries,
             const struct clock *clock,
             struct err_detail *detail)
{
    (void)ring_entries;
    (void)detail;
    ASSERT(machine_current != NULL);
    struct loop *loop = mem_calloc(1, sizeof *loop);
    loop->machine = machine_current;
    loop->machine->loop = loop;
    loop->clock = clock;
    loop->now_ns = clock_mono_ns(clock);
    defer_list_init(&loop->defers);
    loop->inbox_last = &loop->inbox_first;
    loop->turn.run = turn_run;
    *ret = loop;
    return 0;
}

static void io_unlink(struct io *io)
{
    if (io->prev != NULL)
        io->prev->next = io->next;
    else
        io->loop->ios = io->next;
    if (io->next != NULL)
        io->next->prev = io->prev;
}

static void io_free(struct io *io)
{
    sched_cancel(&io->event);
    io->next = io->loop->spare;
    io->loop->spare = io;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL)
        return;
    sched_cancel(&loop->turn);
    if (loop->machine->loop == loop)
        loop->machine->loop = NULL;
    while (loop->ios != NULL) {
        struct io *io = loop->ios;
        io_unlink(io);
        io_free(io);
    }
    while (loop->spare != NULL) {
        struct io *io = loop->spare;
        loop->spare = io->next;
        mem_free(io);
    }
    mem_free(loop->pending);
    timer_heap_deinit(&loop->timers);
    mem_free(loop);
}

bool loop_here(const struct loop *loop)
{
    (void)loop;
    return true;
}

uint64_t loop_now_ns(const struct loop *loop)
{
    return loop->now_ns;
}

const struct clock *loop_clock(const struct loop *loop)
{
    return loop->clock;
}

static void now_refresh(struct loop *loop)
{
    loop->now_ns = MAX(loop->now_ns, clock_mono_ns(loop->clock));
}

/* --- requests --- */

static void io_done(struct sched_event *e);

static void io_start(struct loop *loop)
{
    struct io *io = loop->pending;
    if (io == NULL)
        return;
    loop->pending = NULL;
    ASSERT(io->sqe.user_data != 0);
    io->req = (struct loop_req *)(uintptr_t)io->sqe.user_data;
    io->event.run = io_done;
    io->prev = NULL;
    io->next = loop->ios;
    if (io->next != NULL)
        io->next->prev = io;
    loop->ios = io;
    sched_in(&io->event, disk_begin(&io->sqe, loop->machine->ghost));
}

static void io_done(struct sched_event *e)
{
    struct io *io = CONTAINER_OF(e, struct io, event);
    struct loop *loop = io->loop;
    struct loop_req *req = io->req;
    int res = disk_end(&io->sqe);
    io_unlink(io);
    io_free(io);
    now_refresh(loop);
    req->done(req, res, 0);
    loop_kick(loop);
}

struct io_uring_sqe *loop_sqe(struct loop *loop)
{
    io_start(loop); /* the one before is complete now */
    struct io *io = loop->spare;
    if (io != NULL)
        loop->spare = io->next;
    else
        io = mem_calloc(1, sizeof *io);
    memset(io, 0, sizeof *io);
    io->loop = loop;
    loop->pending = io;
    if (!loop->in_turn)
        loop_kick(loop);
    return &io->sqe;
}

void loop_sqe_room(struct loop *loop, uint32_t count)
{
    (void)loop;
    (void)count;
}

void loop_sqe_bind(struct io_uring_sqe *sqe, struct loop_req *req)
{
    sqe->user_data = (uint64_t)(uintptr_t)req;
}

struct io_uring *loop_ring(struct loop *loop)
{
    (void)loop;
    return NULL;
}

int loop_await(struct loop *loop, struct loop_req *req)
{
    io_start(loop);
    for (struct io *io = loop->ios; io != NULL; io = io->next) {
        if (io->req != req)
            continue;
        int res = disk_end(&io->sqe);
        io_unlink(io);
        io_free(io);
        return res;
    }
    UNREACHABLE();
}

/* --- timers, messages, deferred work --- */

void loop_timer_start(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns)
{
    ASSERT(t->fire != NULL);
    timer_heap_start(&loop->timers, t, MAX(deadline_ns, loop->now_ns));
    if (!loop->in_turn)
        loop_kick(loop);
}

void loop_timer_stop(struct loop *loop, struct loop_timer *t)
{
    timer_heap_stop(&loop->timers, t);
}

void loop_post(struct loop *loop, struct loop_msg *msg)
{
    msg->next = NULL;
    *loop->inbox_last = msg;
    loop->inbox_last = &msg->next;
    if (!loop->in_turn)
        loop_kick(loop);
}

void loop_defer(struct loop *loop, struct loop_defer *d)
{
    if (defer_list_put(&loop->defers, d) && !loop->in_turn)
        loop_kick(loop);
}

void loop_undefer(struct loop *loop, struct loop_defer *d)
{
    defer_list_drop(&loop->defers, d);
}

static void messages_run(struct loop *loop)
{
    struct loop_msg *at = loop->inbox_first;
    loop->inbox_first = NULL;
    loop->inbox_last = &loop->inbox_first;
    while (at != NULL) {
        struct loop_msg *msg = at;
        at = msg->next;
        msg->next = NULL;
        msg->run(msg);
    }
}

static void turn(struct loop *loop)
{
    ASSERT(!loop->in_turn);
    loop->in_turn = true;
    now_refresh(loop);
    messages_run(loop);
    timer_heap_run(&loop->timers, loop->now_ns);
    defer_list_run(&loop->defers);
    io_start(loop);
    loop->in_turn = false;
}

static bool turn_due(const struct loop *loop)
{
    const struct loop_timer *t = timer_heap_first(&loop->timers);
    return loop->defers.first != NULL || loop->inbox_first != NULL ||
           (t != NULL && t->deadline_ns <= loop->now_ns);
}

void loop_kick(struct loop *loop)
{
    if (!sched_waits(&loop->turn) || loop->turn.at_ns > sched->now_ns)
        sched_in(&loop->turn, 0);
}

static void turn_run(struct sched_event *e)
{
    struct loop *loop = CONTAINER_OF(e, struct loop, turn);
    turn(loop);
    if (turn_due(loop)) {
        sched_in(&loop->turn, TURN_NS);
        return;
    }
    const struct loop_timer *t = timer_heap_first(&loop->timers);
    if (t != NULL) /* a drifting clock may need a second look */
        sched_in(&loop->turn, MAX(t->deadline_ns - loop->now_ns, 1000u));
}

bool loop_stopped(const struct loop *loop)
{
    return loop->stop;
}

static void ios_lose(struct loop *loop, bool power)
{
    struct io *last = loop->ios;
    while (last != NULL && last->next != NULL)
        last = last->next;
    for (struct io *io = last; io != NULL; io = io->prev) /* in the order they began */
        if (power)
            disk_tear(&io->sqe);
        else
            (void)disk_end(&io->sqe); /* the kernel has it; nobody hears of the result */
}

void loop_tear(struct loop *loop)
{
    ios_lose(loop, true);
}

void loop_lose(struct loop *loop, bool power)
{
    if (!loop->machine->ghost)
        ios_lose(loop, power);
    loop->stop = false;
}

void loop_stop(struct loop *loop)
{
    loop->stop = true;
}

/* What is under way ends at once, in the order it began. */
static bool ios_finish(struct loop *loop)
{
    struct io *last = loop->ios;
    if (last == NULL)
        return false;
    while (last->next != NULL)
        last = last->next;
    sched_cancel(&last->event);
    io_done(&last->event);
    return true;
}

static bool jobs_finish(const struct machine *machine);

void loop_drain(struct loop *loop)
{
    do
        turn(loop);
    while (ios_finish(loop) || jobs_finish(loop->machine) || turn_due(loop));
}

/* Only for opening and closing a node, outside the world's time: nothing else moves meanwhile. */
void loop_run(struct loop *loop)
{
    while (!loop->stop) {
        turn(loop);
        if (!loop->stop && !turn_due(loop) && !ios_finish(loop) && !jobs_finish(loop->machine)) {
            const struct loop_timer *t = timer_heap_first(&loop->timers);
            ASSERT(t != NULL); /* else it would wait for ever */
            loop->now_ns = MAX(loop->now_ns, t->deadline_ns);
        }
    }
    loop->stop = false;
}

/* --- the pool --- */

struct pool {
    int unused;
};
struct pool_run {
    struct sched_event event;
    struct pool_run *prev, *next;
    struct pool_job *job;
};
static struct pool_run *pool_runs; /* newest first; all machines */

int pool_new(struct pool **ret, uint32_t threads)
{
    (void)threads;
    *ret = mem_calloc(1, sizeof **ret);
    return 0;
}

static void job_back(struct loop_msg *msg)
{
    struct pool_job *job = CONTAINER_OF(msg, struct pool_job, msg);
    job->done(job);
}

static void job_run(struct sched_event *e)
{
    struct pool_run *r = CONTAINER_OF(e, struct pool_run, event);
    struct pool_job *job = r->job;
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        pool_runs = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    sched_cancel(&r->event);
    mem_free(r);
    job->work(job);
    job->msg.run = job_back;
    loop_post(job->loop, &job->msg);
}

void pool_submit(struct pool *pool, struct loop *loop, struct pool_job *job)
{
    (void)pool;
    job->loop = loop;
    struct pool_run *r = mem_calloc(1, sizeof *r);
    r->event.run = job_run;
    r->job = job;
    r->next = pool_runs;
    if (r->next != NULL)
        r->next->prev = r;
    pool_runs = r;
    sched_in(&r->event, POOL_JOB_NS + rng_below(&sched->rng, 9 * POOL_JOB_NS));
}

/* The oldest job of a machine, at once. */
static bool jobs_finish(const struct machine *machine)
{
    struct pool_run *last = NULL;
    for (struct pool_run *r = pool_runs; r != NULL; r = r->next)
        if (r->job->loop->machine == machine)
            last = r;
    if (last != NULL)
        job_run(&last->event);
    return last != NULL;
}

void pool_free(struct pool *pool)
{
    while (pool != NULL && jobs_finish(machine_current))
        continue;
    mem_free(pool);
}
