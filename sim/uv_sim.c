/* The part of libuv that wan/ uses, in virtual time: timers, wake-ups, listening, one thread.
 *
 * The WAN thread becomes a coroutine that is parked in uv_run(); its callbacks are run by the
 * world's events. Only its end, after uv_stop(), runs on its own stack again. */
#include <string.h>
#include <ucontext.h>

#include <arpa/inet.h>
#include <uv.h>

#include "base/assert.h"
#include "sim/h2_sim.h"
#include "sim/loop_sim.h"

#define STACK_BYTES ((size_t)(256 * 1024))
#define ASYNC_NS 5000u

enum handle_kind {
    HANDLE_TIMER,
    HANDLE_ASYNC,
    HANDLE_LISTENER
};
struct handle { /* behind a uv handle: u.reserved[0] */
    struct sched_event event, close_event;
    uv_handle_t *uv;
    struct looper *looper;
    enum handle_kind kind;
    uv_timer_cb timer;
    uv_async_cb async;
    uv_connection_cb accept;
    uint64_t repeat_ms;
    bool closing;
    uv_close_cb closed;
    struct handle *prev, *next;
};
struct looper { /* behind a uv_loop_t: data */
    uv_loop_t *uv;
    struct machine *machine;
    struct handle *handles;
    bool stop;
    struct thread *parked;
};
struct thread {
    ucontext_t self, back;
    void *stack;
    uv_thread_cb entry;
    void *arg;
    struct looper *looper; /* in whose uv_run it is parked */
    bool done;
};
static struct thread *thread_current;

static struct handle *handle_of(const void *uv)
{
    return ((const uv_handle_t *)uv)->u.reserved[0];
}

static struct handle *handle_new(uv_loop_t *loop, uv_handle_t *uv, enum handle_kind kind)
{
    struct handle *h = mem_calloc(1, sizeof *h);
    h->uv = uv;
    h->looper = loop->data;
    h->kind = kind;
    h->next = h->looper->handles;
    if (h->next != NULL)
        h->next->prev = h;
    h->looper->handles = h;
    uv->loop = loop;
    uv->u.reserved[0] = h;
    return h;
}

int uv_loop_init(uv_loop_t *loop)
{
    struct looper *l = mem_calloc(1, sizeof *l);
    memset(loop, 0, sizeof *loop);
    l->uv = loop;
    l->machine = machine_current;
    loop->data = l;
    return 0;
}

int uv_loop_close(uv_loop_t *loop)
{
    struct looper *l = loop->data;
    ASSERT(l->handles == NULL);
    mem_free(l);
    return 0;
}

void uv_stop(uv_loop_t *loop)
{
    ((struct looper *)loop->data)->stop = true;
}

/* --- timers --- */

static void timer_run(struct sched_event *e)
{
    struct handle *h = CONTAINER_OF(e, struct handle, event);
    if (h->repeat_ms > 0)
        sched_in(&h->event, h->repeat_ms * NS_PER_MS);
    h->timer((uv_timer_t *)(void *)h->uv);
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *t)
{
    memset(t, 0, sizeof *t);
    handle_new(loop, (uv_handle_t *)(void *)t, HANDLE_TIMER)->event.run = timer_run;
    return 0;
}

int uv_timer_start(uv_timer_t *t, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    struct handle *h = handle_of(t);
    h->timer = cb;
    h->repeat_ms = repeat;
    sched_in(&h->event, timeout * NS_PER_MS);
    return 0;
}

int uv_timer_stop(uv_timer_t *t)
{
    struct handle *h = handle_of(t);
    h->repeat_ms = 0;
    sched_cancel(&h->event);
    return 0;
}

int uv_is_active(const uv_handle_t *uv)
{
    return sched_waits(&handle_of(uv)->event);
}

/* --- wake-ups --- */

static void async_run(struct sched_event *e)
{
    struct handle *h = CONTAINER_OF(e, struct handle, event);
    h->async((uv_async_t *)(void *)h->uv);
}

int uv_async_init(uv_loop_t *loop, uv_async_t *a, uv_async_cb cb)
{
    memset(a, 0, sizeof *a);
    struct handle *h = handle_new(loop, (uv_handle_t *)(void *)a, HANDLE_ASYNC);
    h->async = cb;
    h->event.run = async_run;
    return 0;
}

int uv_async_send(uv_async_t *a)
{
    struct handle *h = handle_of(a);
    if (!sched_waits(&h->event) && !h->closing)
        sched_in(&h->event, ASYNC_NS);
    return 0;
}

/* --- closing --- */

static void handle_free(struct handle *h)
{
    sched_cancel(&h->event);
    sched_cancel(&h->close_event);
    if (h->prev != NULL)
        h->prev->next = h->next;
    else
        h->looper->handles = h->next;
    if (h->next != NULL)
        h->next->prev = h->prev;
    uv_close_cb cb = h->closed;
    uv_handle_t *uv = h->uv;
    mem_free(h);
    if (cb != NULL)
        cb(uv);
}

static void close_run(struct sched_event *e)
{
    handle_free(CONTAINER_OF(e, struct handle, close_event));
}

void uv_close(uv_handle_t *uv, uv_close_cb cb)
{
    struct handle *h = handle_of(uv);
    ASSERT(!h->closing);
    if (h->kind == HANDLE_LISTENER)
        h2_sim_listen(h->looper->uv, NULL, NULL);
    h->closing = true;
    h->closed = cb;
    sched_cancel(&h->event);
    h->close_event.run = close_run;
    sched_in(&h->close_event, 0);
}

int uv_is_closing(const uv_handle_t *uv)
{
    return handle_of(uv)->closing;
}

void uv_walk(uv_loop_t *loop, uv_walk_cb cb, void *arg)
{
    struct looper *l = loop->data;
    for (struct handle *h = l->handles; h != NULL; h = h->next)
        cb(h->uv, arg);
}

/* --- the thread --- */

static void thread_entry(void)
{
    struct thread *t = thread_current;
    t->entry(t->arg);
    t->done = true;
    thread_current = NULL;
    (void)swapcontext(&t->self, &t->back);
}

static void thread_resume(struct thread *t)
{
    ASSERT(thread_current == NULL);
    thread_current = t;
    int rc = swapcontext(&t->back, &t->self);
    ASSERT(rc == 0);
}

int uv_thread_create(uv_thread_t *tid, uv_thread_cb entry, void *arg)
{
    struct thread *t = mem_calloc(1, sizeof *t);
    t->entry = entry;
    t->arg = arg;
    t->stack = mem_alloc(STACK_BYTES);
    int rc = getcontext(&t->self);
    ASSERT(rc == 0);
    t->self.uc_stack.ss_sp = t->stack;
    t->self.uc_stack.ss_size = STACK_BYTES;
    makecontext(&t->self, thread_entry, 0);
    memcpy(tid, &t, sizeof t);
    thread_resume(t);
    return 0;
}

/* What the loop has been given and not looked at yet. */
static bool asyncs_finish(struct looper *l)
{
    for (struct handle *h = l->handles; h != NULL; h = h->next)
        if (h->kind == HANDLE_ASYNC && sched_waits(&h->event)) {
            sched_cancel(&h->event);
            async_run(&h->event);
            return true;
        }
    return false;
}

int uv_thread_join(uv_thread_t *tid)
{
    struct thread *t;
    memcpy(&t, tid, sizeof t);
    while (!t->looper->stop && asyncs_finish(t->looper))
        continue;
    ASSERT(t->looper->stop);
    thread_resume(t);
    ASSERT(t->done);
    mem_free(t->stack);
    mem_free(t);
    return 0;
}

static bool closings_finish(struct looper *l)
{
    for (struct handle *h = l->handles; h != NULL; h = h->next)
        if (h->closing) {
            handle_free(h);
            return true;
        }
    return false;
}

int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    struct looper *l = loop->data;
    struct thread *t = thread_current;
    if (t != NULL && mode == UV_RUN_DEFAULT) {
        t->looper = l;
        thread_current = NULL;
        int rc = swapcontext(&t->self, &t->back);
        ASSERT(rc == 0 && l->stop);
        l->stop = false;
        return 0;
    }
    h2_sim_finish(loop);
    while (closings_finish(l))
        continue;
    return 0;
}

/* --- addresses and listening: the host "10.0.0.N" is site N - 1 --- */

int uv_getaddrinfo(uv_loop_t *loop,
                   uv_getaddrinfo_t *req,
                   uv_getaddrinfo_cb cb,
                   const char *node,
                   const char *service,
                   const struct addrinfo *hints)
{
    struct {
        struct addrinfo info;
        struct sockaddr_in addr;
    } *a = mem_calloc(1, sizeof *a);
    (void)loop;
    (void)hints;
    (void)service;
    ASSERT(cb == NULL);
    a->addr.sin_family = AF_INET;
    a->addr.sin_port = htons(7000);
    int rc = inet_pton(AF_INET, node, &a->addr.sin_addr);
    ASSERT(rc == 1);
    a->info.ai_addr = (struct sockaddr *)(void *)&a->addr;
    req->addrinfo = &a->info;
    return 0;
}

void uv_freeaddrinfo(struct addrinfo *info)
{
    mem_free(info);
}

int uv_tcp_init(uv_loop_t *loop, uv_tcp_t *tcp)
{
    memset(tcp, 0, sizeof *tcp);
    (void)handle_new(loop, (uv_handle_t *)(void *)tcp, HANDLE_LISTENER);
    return 0;
}

int uv_tcp_bind(uv_tcp_t *tcp, const struct sockaddr *addr, unsigned flags)
{
    (void)tcp;
    (void)addr;
    (void)flags;
    return 0;
}

int uv_tcp_getsockname(const uv_tcp_t *tcp, struct sockaddr *name, int *len)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(7000)};
    (void)tcp;
    ASSERT(*len >= (int)sizeof in);
    memcpy(name, &in, sizeof in);
    return 0;
}

int uv_listen(uv_stream_t *s, int backlog, uv_connection_cb cb)
{
    (void)backlog;
    handle_of(s)->accept = cb;
    h2_sim_listen(s->loop, s, cb);
    return 0;
}

int uv_os_gethostname(char *buffer, size_t *size)
{
    ASSERT(*size > 4);
    memcpy(buffer, "site", 5);
    *size = 4;
    return 0;
}

const char *uv_strerror(int err)
{
    (void)err;
    return "simulated";
}

struct machine *uv_sim_machine(const uv_loop_t *loop)
{
    return ((const struct looper *)loop->data)->machine;
}
