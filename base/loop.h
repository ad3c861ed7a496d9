/* Event loop of one reactor thread on io_uring: completions, timers, messages from other threads.
 *
 * A shell. Everything but loop_post() and loop_stop() runs on the loop's own thread and asserts it.
 * Nothing spins: an idle loop sleeps in the kernel. Callbacks follow the asynchronous laws: never
 * inside the call that started them, exactly once, and the request may be freed or reused inside.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <liburing.h>

#include "base/clock.h"
#include "base/err.h"

struct loop;

/* One kernel request; embed it. `res` is the CQE's result (negative errno on failure). */
struct loop_req {
    void (*done)(struct loop_req *req, int res, uint32_t cqe_flags);
};
/* One timer; embed it; zeroed is idle. Equal deadlines fire in start order. */
struct loop_timer {
    void (*fire)(struct loop_timer *t);
    uint64_t deadline_ns, order; /* private */
    size_t heap_idx;             /* private; 0 = idle, else position + 1 */
};
/* One message from any thread; embed it; run() owns it from then on. */
struct loop_msg {
    void (*run)(struct loop_msg *msg);
    struct loop_msg *next; /* private */
};
/* Work for the end of the current turn, after all ready completions were handled and before the
 * loop submits and sleeps: the place for group commit and for writing out replies. */
struct loop_defer {
    void (*run)(struct loop_defer *d);
    struct loop_defer *next; /* private */
    bool queued;             /* private */
};

int loop_new(struct loop **ret,
             uint32_t ring_entries,
             const struct clock *clock,
             struct err_detail *detail) MUST_CHECK;
/* After loop_run has returned. Timers still running become idle: they must not be freed before. */
void loop_free(struct loop *loop);
void loop_run(struct loop *loop);  /* until loop_stop */
void loop_stop(struct loop *loop); /* any thread */
/* Mono, refreshed each turn. Before loop_run, when whoever starts may work for any time: as it is.
 */
uint64_t loop_now_ns(const struct loop *loop);
const struct clock *loop_clock(const struct loop *loop);
bool loop_here(const struct loop *loop); /* am I on this loop's thread? */

/* An SQE whose completion calls req->done; the caller fills the operation with io_uring_prep_*
 * BEFORE anything else is asked of the loop (user data is set by loop_sqe_bind). Submits when the
 * queue is full, so it is never NULL. */
struct io_uring_sqe *loop_sqe(struct loop *loop);
/* Afterwards `count` calls of loop_sqe() submit nothing in between: for linked requests. count is
 * at most ring_entries. */
void loop_sqe_room(struct loop *loop, uint32_t count);
void loop_sqe_bind(struct io_uring_sqe *sqe, struct loop_req *req); /* after io_uring_prep_* */
struct io_uring *loop_ring(struct loop *loop);
/* Blocks until this request's completion is there and takes it: done() will not run for it, other
 * completions wait for their turn. For closing an object whose buffer the kernel still uses, and
 * for the rare step that cannot go on without it. Returns the CQE's result. */
int loop_await(struct loop *loop, struct loop_req *req);

void loop_timer_start(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns); /* or move */
void loop_timer_stop(struct loop *loop, struct loop_timer *t);
void loop_post(struct loop *loop, struct loop_msg *msg);    /* any thread, in order */
void loop_defer(struct loop *loop, struct loop_defer *d);   /* no effect while queued */
void loop_undefer(struct loop *loop, struct loop_defer *d); /* no effect unless queued */

/* Bounded pool of threads for work that blocks or burns CPU. */
struct pool;
struct pool_job {
    void (*work)(struct pool_job *job); /* pool thread */
    void (*done)(struct pool_job *job); /* back on the loop that submitted it */
    struct loop *loop;                  /* private from here */
    struct loop_msg msg;
    struct pool_job *next;
};
int pool_new(struct pool **ret, uint32_t threads) MUST_CHECK;
void pool_free(struct pool *pool); /* runs what is queued, then joins */
void pool_submit(struct pool *pool, struct loop *loop, struct pool_job *job);

#endif
