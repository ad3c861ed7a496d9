/* The control socket: lines in, answers out, as many as somebody likes to send. */
#include <string.h>

#include "base/assert.h"
#include "sim/link_proxy.h"

#define CONTROLLERS_MAX 16u
#define ANSWERS_MAX ((size_t)(64 * KIB)) /* bytes that one may leave unread */

struct controller {
    uv_pipe_t pipe;
    struct link_control *control;
    struct controller *next;
    char line[LINK_LINE_MAX + 1]; /* with its newline */
    size_t len;
    bool skipping; /* the rest of a line that was too long */
};
struct link_control {
    uv_pipe_t listener;
    uv_loop_t *loop;
    struct link_proxy *proxy;
    struct controller *controllers;
    size_t count;
    bool closing, closed;
};
struct answer {
    uv_write_t write;
    struct buf text;
};

static void control_free_if_done(struct link_control *k)
{
    if (k->closed && k->controllers == NULL)
        mem_free(k);
}

static void controller_closed(uv_handle_t *h)
{
    struct controller *c = h->data;
    struct link_control *k = c->control;
    struct controller **at = &k->controllers;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    k->count--;
    mem_free(c);
    control_free_if_done(k);
}

static void controller_close(struct controller *c)
{
    if (!uv_is_closing((uv_handle_t *)&c->pipe))
        uv_close((uv_handle_t *)&c->pipe, controller_closed);
}

static void answer_written(uv_write_t *write, int status)
{
    struct answer *a = CONTAINER_OF(write, struct answer, write);
    (void)status; /* whoever is gone reads no answers; the read says so, too */
    buf_deinit(&a->text);
    mem_free(a);
}

static void answer_send(struct controller *c, struct answer *a)
{
    uv_stream_t *to = (uv_stream_t *)&c->pipe;
    uv_buf_t buf = uv_buf_init((char *)a->text.ptr, (unsigned)a->text.len);
    if (to->write_queue_size > ANSWERS_MAX ||
        uv_write(&a->write, to, &buf, 1, answer_written) != 0) {
        answer_written(&a->write, 0);
        controller_close(c);
    }
}

static void line_do(struct controller *c, size_t len)
{
    struct answer *a = mem_calloc(1, sizeof *a);
    (void)link_proxy_line(c->control->proxy, slice_of(c->line, len), &a->text);
    answer_send(c, a);
}

/* Carries out the lines that are complete; of one that is too long, its beginning: an error. */
static void lines_take(struct controller *c)
{
    while (!uv_is_closing((uv_handle_t *)&c->pipe)) {
        char *end = memchr(c->line, '\n', c->len);
        if (end == NULL && c->len < sizeof c->line)
            return;
        size_t len = end != NULL ? (size_t)(end - c->line) : c->len;
        if (!c->skipping)
            line_do(c, len);
        c->skipping = end == NULL;
        size_t taken = MIN(len + 1, c->len);
        c->len -= taken;
        memmove(c->line, c->line + taken, c->len);
    }
}

static void where_to_read(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    struct controller *c = h->data;
    (void)suggested;
    *ret = uv_buf_init(c->line + c->len, (unsigned)(sizeof c->line - c->len));
}

static void read_done(uv_stream_t *h, ssize_t len, const uv_buf_t *buf)
{
    struct controller *c = h->data;
    (void)buf;
    if (len < 0) {
        controller_close(c);
        return;
    }
    c->len += (size_t)len;
    lines_take(c);
}

static void accepted(uv_stream_t *listener, int status)
{
    struct link_control *k = listener->data;
    if (status != 0)
        return;
    struct controller *c = mem_calloc(1, sizeof *c);
    int rc = uv_pipe_init(k->loop, &c->pipe, 0);
    ASSERT(rc == 0);
    c->pipe.data = c;
    c->control = k;
    c->next = k->controllers;
    k->controllers = c;
    k->count++;
    if (uv_accept(listener, (uv_stream_t *)&c->pipe) != 0 || k->count > CONTROLLERS_MAX ||
        uv_read_start((uv_stream_t *)&c->pipe, where_to_read, read_done) != 0)
        controller_close(c);
}

int link_control_open(struct link_proxy *p,
                      uv_loop_t *loop,
                      const char *path,
                      struct link_control **ret,
                      struct err_detail *d)
{
    struct link_control *k = mem_calloc(1, sizeof *k);
    k->loop = loop;
    k->proxy = p;
    int rc = uv_pipe_init(loop, &k->listener, 0);
    ASSERT(rc == 0);
    k->listener.data = k;
    rc = uv_pipe_bind(&k->listener, path);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&k->listener, (int)CONTROLLERS_MAX, accepted);
    if (rc != 0) {
        err_detail_set(d, "control socket %s: %s%s", path, uv_strerror(rc),
                       rc == UV_EADDRINUSE ? ": remove it if no link serves it" : "");
        link_control_close(k);
        return ERR_IO;
    }
    *ret = k;
    return 0;
}

static void listener_closed(uv_handle_t *h)
{
    struct link_control *k = h->data;
    k->closed = true;
    control_free_if_done(k);
}

void link_control_close(struct link_control *k)
{
    if (k == NULL)
        return;
    uv_close((uv_handle_t *)&k->listener, listener_closed);
    for (struct controller *c = k->controllers; c != NULL; c = c->next)
        controller_close(c);
}
