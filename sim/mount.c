/* Sessions, calls and answers of a simulated mount; what it calls is drawn in workload.c. */
#include "sim/mount.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/lin.h"
#include "sim/opens.h"
#include "sim/workload.h"
#include "site/call.h"

#define RETRY_NS (100 * NS_PER_MS)

static void call_send(struct mount *m);

/* --- the session --- */

static void say(struct rpc_peer *p, enum rpc_type type, uint64_t id, const struct fs_request *req)
{
    struct buf body = {0};
    fs_request_encode(req, &body);
    rpc_sim_send(p, (uint16_t)type, id, buf_slice(&body), slice_of(NULL, 0));
    buf_deinit(&body);
}

void mount_say(struct mount *m, enum rpc_type type, uint64_t id, const struct fs_request *req)
{
    say(&m->main, type, id, req);
}

static void join(struct mount *m)
{
    struct fs_request q = {.session = m->session};
    rpc_sim_leave(&m->push);
    rpc_sim_leave(&m->main);
    m->joined = false;
    if (m->process->node == NULL || !rpc_sim_connect(&m->process->machine, &m->main)) {
        sched_in(&m->next, RETRY_NS);
        return;
    }
    say(&m->main, RPC_HELLO, 0, &q);
}

static void unknown_outcome(struct mount *m)
{
    opens_gone(m);
    if (m->busy) {
        lin_gone(m);
        workload_done(m, NULL);
    }
    ahead_no_answer(m);
    m->busy = false;
}

void mount_site_goes(struct mount *m)
{
    unknown_outcome(m);
}

void mount_dies(struct mount *m, uint64_t back_ns)
{
    rpc_sim_leave(&m->push);
    rpc_sim_leave(&m->main);
    ahead_dies(m);
    m->session = 0; /* what it has asked for may be done still, and is nobody's */
    unknown_outcome(m);
    lin_forget(m);
    m->joined = false;
    sched_in(&m->next, back_ns);
}

void mount_resume(struct mount *m)
{
    if (m->busy) {
        workload_again(m);
        call_send(m); /* with its number */
    } else {
        sched_in(&m->next, 0);
    }
}

static void on_hello(struct mount *m, const struct fs_reply *r)
{
    if (r->rc == ERR_STALE) { /* away too long: a new session */
        m->session = 0;
        m->anew = true;
        unknown_outcome(m);
    }
    if (r->rc != 0) {
        sched_in(&m->next, RETRY_NS);
        return;
    }
    m->session = r->session;
    if (!rpc_sim_connect(&m->process->machine, &m->push)) {
        sched_in(&m->next, RETRY_NS);
        return;
    }
    struct fs_request q = {.session = m->session, .flags = HELLO_PUSH};
    say(&m->push, RPC_HELLO, 0, &q);
    m->joined = true;
    opens_tell(m);
    ahead_joined(m, m->anew);
    m->anew = false;
}

static void on_closed(struct rpc_peer *p, struct mount *m)
{
    (void)p;
    m->joined = false;
    ahead_left(m);
    lin_forget(m);
    sched_in(&m->next, RETRY_NS);
}

static void main_closed(struct rpc_peer *p)
{
    on_closed(p, CONTAINER_OF(p, struct mount, main));
}

static void push_closed(struct rpc_peer *p)
{
    on_closed(p, CONTAINER_OF(p, struct mount, push));
}

static void push_frame(struct rpc_peer *p, const struct rpc_frame *f)
{
    if ((f->type != PUSH_INVALIDATE && f->type != PUSH_DURABLE) || (f->flags & RPC_FLAG_PUSH) == 0)
        return;
    struct mount *m = CONTAINER_OF(p, struct mount, push);
    struct fs_request q = {.number2 = f->id};
    struct op_arena arena = {0};
    struct fs_reply r;
    int rc = fs_reply_decode(f->body, &arena, &r);
    ASSERT(rc == 0);
    if (f->type == PUSH_DURABLE)
        ahead_told_durable(m, r.data);
    else
        lin_told(m, r.invals, r.inval_count);
    op_arena_deinit(&arena);
    if (f->type == PUSH_INVALIDATE)
        say(p, RPC_INVAL_ACK, 0, &q);
}

/* --- calls --- */

static void call_send(struct mount *m)
{
    rpc_sim_send(&m->main, (uint16_t)m->type, m->req.number, buf_slice(&m->body),
                 buf_slice(&m->bulk));
}

static void call_begin(struct mount *m)
{
    if (sched->now_ns >= m->until_ns || m->calls_left == 0)
        return;
    memset(&m->req, 0, sizeof m->req);
    buf_clear(&m->bulk);
    m->doom_count = 0;
    m->writes = 0;
    memset(m->doomed_oids, 0, sizeof m->doomed_oids);
    if (!ahead_sync_next(m))
        workload_next(m);
    if (m->calls_left != UINT64_MAX)
        m->calls_left--;
    m->req.session = m->session;
    ahead_begin(m);
    buf_clear(&m->body);
    fs_request_encode(&m->req, &m->body);
    ahead_encoded(m);
    m->busy = true;
    m->began_ns = sched->now_ns;
    if (m->type != RPC_SYNC)
        lin_begin(m);
    call_send(m);
}

static uint64_t pause_ns(struct mount *m)
{
    const struct world_work *w = m->work;
    if (w->burst == 0)
        return w->think_ns > 0 ? rng_below(&m->rng, 2 * w->think_ns) : 0;
    if (++m->burst < w->burst)
        return 0;
    m->burst = 0;
    return w->burst_ns - (sched->now_ns - m->zero_ns) % w->burst_ns;
}

static void next_soon(struct mount *m)
{
    uint64_t pause = ahead_hurries(m) ? 0 : pause_ns(m);
    if (pause == 0 && !sched_waits(&m->next))
        call_begin(m);
    else
        sched_in(&m->next, pause);
}

static void main_frame(struct rpc_peer *p, const struct rpc_frame *f)
{
    struct mount *m = CONTAINER_OF(p, struct mount, main);
    struct op_arena arena = {0};
    struct fs_reply r;
    int rc = fs_reply_decode(f->body, &arena, &r);
    ASSERT(rc == 0);
    if (f->type == RPC_HELLO) {
        on_hello(m, &r);
    } else if (opens_answered(m, f->id, r.rc) || ahead_frame(m, f->id, &r)) {
        op_arena_deinit(&arena);
        return;
    } else if (m->busy && f->id == m->req.number) {
        uint64_t took = sched->now_ns - m->began_ns;
        sched_note("answer", (uint64_t)m->number << 32 | m->req.number, (uint64_t)(int64_t)r.rc);
        m->stats.calls++;
        m->stats.failed += r.rc != 0;
        m->stats.latency_ns_sum += took;
        m->stats.latency_ns_max = MAX(m->stats.latency_ns_max, took);
        m->busy = false;
        if (m->type != RPC_SYNC) {
            lin_answered(m, &r);
            workload_done(m, &r);
        }
        ahead_answered(m, &r);
        next_soon(m);
    }
    op_arena_deinit(&arena);
}

static void next_run(struct sched_event *e)
{
    struct mount *m = CONTAINER_OF(e, struct mount, next);
    if (!m->joined)
        join(m);
    else if (m->ahead.again)
        ahead_go_on(m);
    else if (!m->busy)
        call_begin(m);
}

/* --- life --- */

void mount_init(struct mount *m,
                struct process *p,
                struct ledger *l,
                const struct world_work *work,
                unsigned number)
{
    memset(m, 0, sizeof *m);
    m->process = p;
    m->ledger = l;
    m->work = work;
    m->number = number;
    m->until_ns = m->calls_left = UINT64_MAX;
    ahead_init(m);
    rng_seed(&m->rng, rng_next(&sched->rng));
    m->main.frame = main_frame;
    m->main.closed = main_closed;
    m->push.frame = push_frame;
    m->push.closed = push_closed;
    m->next.run = next_run;
    m->content = mem_calloc(1, LIMIT_INLINE_BYTES);
    m->dirs[m->dir_count++].oid = OID_ROOT;
}

void mount_start(struct mount *m)
{
    sched_in(&m->next, 0);
}

void mount_leave(struct mount *m)
{
    rpc_sim_leave(&m->push);
    rpc_sim_leave(&m->main);
    sched_cancel(&m->next);
    ahead_left(m);
    lin_gone(m);
    opens_gone(m);
    m->busy = m->joined = false;
}

void mount_deinit(struct mount *m)
{
    mount_leave(m);
    ahead_deinit(m);
    buf_deinit(&m->body);
    buf_deinit(&m->bulk);
    mem_free(m->content);
}

bool mount_idle(const struct mount *m)
{
    return !m->busy && !m->ahead.again && (sched->now_ns >= m->until_ns || m->calls_left == 0);
}

uint64_t mount_waits_ns(const struct mount *m)
{
    return m->busy ? sched->now_ns - m->began_ns : 0;
}
