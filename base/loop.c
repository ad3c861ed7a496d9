/* The reactor: one io_uring, a timer heap, an inbox for other threads.
 *
 * One turn: wait for a completion or the next deadline; handle completions, messages, due timers,
 * deferred work; submit what that produced together with the next wait, in one system call. Each
 * part handles only what was there when it began, so no part can starve the others.
 *
 * Other threads push onto a lock-free stack; who finds it empty writes the eventfd, which the ring
 * watches with an ordinary read. Failure paths: a full completion queue sets completions aside
 * (stash) before submitting again; any other refusal by the kernel is a broken invariant. */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/defer.h"
#include "base/timer.h"

struct completion {
    struct loop_req *req;
    int res;
    uint32_t flags;
};

struct loop {
    struct io_uring ring;
    bool ring_disabled; /* made disabled; the first thread that submits becomes its only one */
    const struct clock *clock;
    uint64_t now_ns;
    struct timer_heap timers;
    struct defer_list defers;
    struct completion *stash; /* completions taken off the ring early */
    size_t stash_count, stash_cap;
    struct completion *stash_running; /* what completions_run() has still to run */
    size_t stash_running_count;

    _Atomic(struct loop_msg *) inbox; /* newest first */
    atomic_bool stop, entered;
    pthread_t thread; /* valid once entered */
    int wake_fd;
    bool wake_armed;
    uint64_t wake_value;
    struct loop_req wake_req;
};

static void wake_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct loop *loop = CONTAINER_OF(req, struct loop, wake_req);
    (void)cqe_flags;
    ASSERT(res == (int)sizeof loop->wake_value || res == -EINTR || res == -EAGAIN);
    loop->wake_armed = false;
}

/* Newer kernels do less work per completion when told that one thread does it all; older ones
 * refuse flags they do not know. */
static int ring_init(struct loop *loop, uint32_t entries)
{
    static const unsigned flags[] = {
        IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_COOP_TASKRUN,
        0,
    };
    int rc = -EINVAL;
    for (size_t i = 0; i < ARRAY_COUNT(flags) && rc == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags = flags[i] | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
            .cq_entries = 4 * entries,
        };
        rc = io_uring_queue_init_params(entries, &loop->ring, &params);
        loop->ring_disabled = (flags[i] & IORING_SETUP_R_DISABLED) != 0;
        if (rc == 0 && (params.features & IORING_FEAT_EXT_ARG) == 0) {
            io_uring_queue_exit(&loop->ring);
            return -EOPNOTSUPP;
        }
    }
    return rc;
}

int loop_new(struct loop **ret,
             uint32_t ring_entries,
             const struct clock *clock,
             struct err_detail *detail)
{
    ASSERT(ring_entries > 0);
    struct loop *loop = mem_calloc(1, sizeof *loop);
    int rc = ring_init(loop, ring_entries);
    if (rc != 0) {
        err_detail_set(detail,
                       "cannot create an io_uring: %s: it needs Linux 5.11 or newer with "
                       "kernel.io_uring_disabled=0 and no seccomp filter against it",
                       strerror(-rc));
        mem_free(loop);
        return err_from_errno(-rc);
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (loop->wake_fd < 0) {
        rc = errno;
        err_detail_set(detail, "cannot create an eventfd: %s", strerror(rc));
        io_uring_queue_exit(&loop->ring);
        mem_free(loop);
        return err_from_errno(rc);
    }
    loop->clock = clock;
    loop->now_ns = clock_mono_ns(clock);
    defer_list_init(&loop->defers);
    loop->wake_req.done = wake_done;
    *ret = loop;
    return 0;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL)
        return;
    io_uring_queue_exit(&loop->ring);
    (void)close(loop->wake_fd);
    timer_heap_deinit(&loop->timers);
    mem_free(loop->stash);
    mem_free(loop);
}

bool loop_here(const struct loop *loop)
{
    return !atomic_load_explicit(&loop->entered, memory_order_acquire) ||
           pthread_equal(loop->thread, pthread_self()) != 0;
}

uint64_t loop_now_ns(const struct loop *loop)
{
    if (!atomic_load_explicit(&loop->entered, memory_order_relaxed))
        return clock_mono_ns(loop->clock);
    return loop->now_ns;
}

const struct clock *loop_clock(const struct loop *loop)
{
    return loop->clock;
}

struct io_uring *loop_ring(struct loop *loop)
{
    return &loop->ring;
}

static void now_refresh(struct loop *loop)
{
    uint64_t now = clock_mono_ns(loop->clock);
    ASSERT(now >= loop->now_ns);
    loop->now_ns = now;
}

/* --- the ring --- */

static void ring_enable(struct loop *loop)
{
    if (!loop->ring_disabled)
        return;
    /* liburing 2.3 declares io_uring_enable_rings() but does not export it. */
    long rc =
        syscall(SYS_io_uring_register, loop->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    ASSERT(rc == 0);
    loop->ring_disabled = false;
}

/* Takes everything off the completion queue without running callbacks. */
static void completions_stash(struct loop *loop)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&loop->ring, &cqe) == 0) {
        if (loop->stash_count == loop->stash_cap) {
            loop->stash_cap = loop->stash_cap == 0 ? 64 : 2 * loop->stash_cap;
            loop->stash = mem_realloc(loop->stash, loop->stash_cap * sizeof loop->stash[0]);
        }
        loop->stash[loop->stash_count++] = (struct completion){
            .req = io_uring_cqe_get_data(cqe), .res = cqe->res, .flags = cqe->flags};
        io_uring_cqe_seen(&loop->ring, cqe);
    }
}

void loop_sqe_room(struct loop *loop, uint32_t count)
{
    ASSERT(loop_here(loop));
    ASSERT(count <= loop->ring.sq.ring_entries);
    while (io_uring_sq_space_left(&loop->ring) < count) {
        ring_enable(loop);
        int rc = io_uring_submit(&loop->ring);
        if (rc == -EBUSY || rc == -EAGAIN)
            completions_stash(loop); /* the kernel wants room for completions first */
        else
            ASSERT(rc >= 0 || rc == -EINTR);
    }
}

struct io_uring_sqe *loop_sqe(struct loop *loop)
{
    loop_sqe_room(loop, 1);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);
    ASSERT(sqe != NULL);
    io_uring_sqe_set_data(sqe, NULL);
    return sqe;
}

void loop_sqe_bind(struct io_uring_sqe *sqe, struct loop_req *req)
{
    io_uring_sqe_set_data(sqe, req);
}

static void complete(struct completion c)
{
    if (c.req != NULL)
        c.req->done(c.req, c.res, c.flags);
}

static void completions_run(struct loop *loop)
{
    /* Callbacks may stash more: those are younger than all that is handled here. */
    struct completion *stash = loop->stash;
    loop->stash_running = stash;
    loop->stash_running_count = loop->stash_count;
    loop->stash = NULL;
    loop->stash_count = loop->stash_cap = 0;
    while (loop->stash_running_count > 0) {
        loop->stash_running_count--;
        complete(*loop->stash_running++);
    }
    mem_free(stash);

    struct io_uring_cqe *cqe;
    for (unsigned left = io_uring_cq_ready(&loop->ring); left > 0; left--) {
        if (loop->stash_count > 0 || io_uring_peek_cqe(&loop->ring, &cqe) != 0)
            break; /* a callback had the rest stashed */
        struct completion c = {
            .req = io_uring_cqe_get_data(cqe), .res = cqe->res, .flags = cqe->flags};
        io_uring_cqe_seen(&loop->ring, cqe);
        complete(c);
    }
}

/* Takes the request's completion out of the list; NULL marks it as taken. */
static bool
completion_take(struct completion *list, size_t count, const struct loop_req *req, int *ret_res)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].req != req)
            continue;
        list[i].req = NULL;
        *ret_res = list[i].res;
        return true;
    }
    return false;
}

int loop_await(struct loop *loop, struct loop_req *req)
{
    ASSERT(loop_here(loop));
    ring_enable(loop);
    int res;
    if (completion_take(loop->stash_running, loop->stash_running_count, req, &res))
        return res;
    for (;;) {
        completions_stash(loop);
        if (completion_take(loop->stash, loop->stash_count, req, &res))
            return res;
        int rc = io_uring_submit_and_wait(&loop->ring, 1);
        ASSERT(rc >= 0 || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN);
    }
}

/* --- timers --- */

void loop_timer_start(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns)
{
    ASSERT(loop_here(loop));
    ASSERT(t->fire != NULL);
    /* A deadline in the past means now: a timer that keeps restarting itself must not stay ahead
     * of the others forever. */
    timer_heap_start(&loop->timers, t, MAX(deadline_ns, loop->now_ns));
}

void loop_timer_stop(struct loop *loop, struct loop_timer *t)
{
    ASSERT(loop_here(loop));
    timer_heap_stop(&loop->timers, t);
}

/* --- messages from other threads --- */

static void wake(struct loop *loop)
{
    static const uint64_t one = 1;
    ssize_t rc;
    do
        rc = write(loop->wake_fd, &one, sizeof one);
    while (rc < 0 && errno == EINTR);
    ASSERT(rc == (ssize_t)sizeof one);
}

static void wake_arm(struct loop *loop)
{
    if (loop->wake_armed)
        return;
    struct io_uring_sqe *sqe = loop_sqe(loop);
    io_uring_prep_read(sqe, loop->wake_fd, &loop->wake_value, sizeof loop->wake_value, 0);
    loop_sqe_bind(sqe, &loop->wake_req);
    loop->wake_armed = true;
}

void loop_post(struct loop *loop, struct loop_msg *msg)
{
    struct loop_msg *head = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
    do
        msg->next = head;
    while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &head, msg, memory_order_release,
                                                  memory_order_relaxed));
    /* Whoever made it non-empty has woken the loop, and the loop takes all at once. */
    if (head == NULL)
        wake(loop);
}

static void messages_run(struct loop *loop)
{
    struct loop_msg *newest = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
    struct loop_msg *oldest = NULL;
    while (newest != NULL) {
        struct loop_msg *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct loop_msg *msg = oldest;
        oldest = msg->next;
        msg->next = NULL;
        msg->run(msg);
    }
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stop, true, memory_order_release);
    wake(loop);
}

/* --- deferred work --- */

void loop_defer(struct loop *loop, struct loop_defer *d)
{
    ASSERT(loop_here(loop));
    (void)defer_list_put(&loop->defers, d);
}

void loop_undefer(struct loop *loop, struct loop_defer *d)
{
    ASSERT(loop_here(loop));
    defer_list_drop(&loop->defers, d);
}

/* --- the turn --- */

/* Submits, and sleeps until a completion or the next deadline unless there is work already. */
static void ring_wait(struct loop *loop)
{
    const struct loop_timer *t = timer_heap_first(&loop->timers);
    struct io_uring_cqe *cqe;
    int rc;
    now_refresh(loop);
    if (loop->defers.first != NULL || loop->stash_count > 0 ||
        (t != NULL && t->deadline_ns <= loop->now_ns)) {
        rc = io_uring_submit_and_get_events(&loop->ring);
    } else if (t == NULL) {
        rc = io_uring_submit_and_wait(&loop->ring, 1);
    } else {
        uint64_t wait_ns = t->deadline_ns - loop->now_ns;
        struct __kernel_timespec ts = {.tv_sec = (long long)(wait_ns / NS_PER_SEC),
                                       .tv_nsec = (long long)(wait_ns % NS_PER_SEC)};
        rc = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, &ts, NULL);
    }
    ASSERT(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN);
    now_refresh(loop);
}

void loop_run(struct loop *loop)
{
    ASSERT(loop_here(loop));
    loop->thread = pthread_self();
    atomic_store_explicit(&loop->entered, true, memory_order_release);
    ring_enable(loop);
    while (!atomic_load_explicit(&loop->stop, memory_order_acquire)) {
        wake_arm(loop);
        ring_wait(loop);
        completions_run(loop);
        messages_run(loop);
        timer_heap_run(&loop->timers, loop->now_ns);
        defer_list_run(&loop->defers);
    }
    atomic_store_explicit(&loop->stop, false, memory_order_relaxed);
}
