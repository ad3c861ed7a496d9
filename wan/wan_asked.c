/* A request of another site with a small body: it is read to its end, decided on, and answered, at
 * once or when a call to the loop has come back, whether the stream is still there or not. */
#include <string.h>

#include "base/log.h"
#include "wan/wan_int.h"

static void asked_free(struct wan_asked *a)
{
    buf_deinit(&a->body);
    mem_free(a);
}

void wan_asked_answer(struct wan_asked *a, int status, int rc, const char *text)
{
    struct h2_stream *s = a->stream;
    if (s != NULL && rc != 0) {
        log_warn(LOG_WAN, a->refused, "code=%s why=\"%s\"", err_name(rc), text);
        wan_respond_error(s, status, rc, text);
    } else if (s != NULL) {
        h2_respond(s, status);
        h2_end(s);
        return; /* the stream's end frees */
    }
    a->stream = NULL;
    if (!a->call_runs)
        asked_free(a);
}

void wan_asked_call(struct wan_asked *a, struct wan_call *c)
{
    a->call_runs = true;
    wan_call_start(a->wan, c);
}

void wan_asked_called(struct wan_asked *a)
{
    a->call_runs = false;
    if (a->stream == NULL)
        asked_free(a);
}

static void asked_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct wan_asked *a = h2_stream_user(s);
    h2_consume(s, len);
    if (a->body.len + len > a->body_max)
        a->too_long = true;
    else
        buf_append(&a->body, ptr, len);
}

static void asked_ended(struct h2_stream *s)
{
    struct wan_asked *a = h2_stream_user(s);
    a->decide(a);
}

static void asked_closed(struct h2_stream *s, int rc)
{
    struct wan_asked *a = h2_stream_user(s);
    (void)rc;
    a->stream = NULL;
    if (!a->call_runs)
        asked_free(a);
}

static const struct h2_stream_events asked_events = {
    .data = asked_data, .ended = asked_ended, .closed = asked_closed};

void wan_asked_serve(struct wan *w, struct h2_stream *s, const struct wan_asked *how)
{
    struct wan_asked *a = mem_dup(how, sizeof *how);
    a->wan = w;
    a->stream = s;
    h2_follow(s, &asked_events, a);
}
