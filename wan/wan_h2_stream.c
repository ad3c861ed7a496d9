/* Streams of an HTTP/2 connection: nghttp2's callbacks, bodies in both directions. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "wan/wan_h2_int.h"

enum {
    STREAMS_MAX = 256,
    STREAM_WINDOW_BYTES = 8 * 1024 * 1024, /* holds the largest frame, and a long fat link */
    CONN_WINDOW_BYTES = 64 * 1024 * 1024,
    HEADERS_BYTES_MAX = 8 * 1024,
    FRAME_ROOM = 16 * 1024 + 16
};

static struct h2_stream *stream_new(struct h2_conn *c)
{
    struct h2_stream *s = mem_calloc(1, sizeof *s);
    s->conn = c;
    s->next = c->streams;
    if (s->next != NULL)
        s->next->prev = s;
    c->streams = s;
    c->stream_count++;
    return s;
}

/* Ends it: closed(), then memory. */
static void stream_end(struct h2_stream *s, int rc)
{
    struct h2_conn *c = s->conn;
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        c->streams = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    c->stream_count--;
    if (s->events != NULL)
        s->events->closed(s, rc);
    buf_deinit(&s->out);
    mem_free(s);
}

void h2_streams_close(struct h2_conn *c, int rc)
{
    while (c->streams != NULL)
        stream_end(c->streams, rc != 0 ? rc : ERR_CLOSED);
}

size_t h2_pending(const struct h2_stream *s)
{
    return s->out.len - s->out_at;
}

/* --- nghttp2 asks --- */

static ssize_t body_read(nghttp2_session *session,
                         int32_t id,
                         uint8_t *to,
                         size_t room,
                         uint32_t *flags,
                         nghttp2_data_source *source,
                         void *user)
{
    struct h2_stream *s = source->ptr;
    (void)session;
    (void)id;
    (void)user;
    size_t take = MIN(room, h2_pending(s));
    if (take == 0 && !s->eof) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (take > 0)
        memcpy(to, s->out.ptr + s->out_at, take);
    s->out_at += take;
    if (s->out_at == s->out.len) {
        buf_clear(&s->out);
        s->out_at = 0;
        if (s->eof)
            *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    if (!s->eof && h2_pending(s) <= H2_LOW_BYTES && s->events != NULL &&
        s->events->drained != NULL) {
        s->want_drained = true;
        s->conn->drain_wanted = true;
    }
    return (ssize_t)take;
}

/* --- nghttp2 tells --- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *f, void *user)
{
    struct h2_conn *c = user;
    if (c->purpose != H2_SERVES || f->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct h2_stream *s = stream_new(c);
    s->id = f->hd.stream_id;
    (void)nghttp2_session_set_stream_user_data(session, s->id, s); /* it is there */
    return 0;
}

static bool name_is(const uint8_t *name, size_t len, const char *what)
{
    return len == strlen(what) && memcmp(name, what, len) == 0;
}

static void text_take(struct h2_stream *s, char *to, size_t room, const uint8_t *value, size_t len)
{
    if (len >= room) {
        s->head_bad = true;
        return;
    }
    memcpy(to, value, len);
    to[len] = '\0';
}

static int on_header(nghttp2_session *session,
                     const nghttp2_frame *f,
                     const uint8_t *name,
                     size_t name_len,
                     const uint8_t *value,
                     size_t value_len,
                     uint8_t flags,
                     void *user)
{
    (void)flags;
    (void)user;
    struct h2_stream *s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
    if (s == NULL)
        return 0;
    if (name_is(name, name_len, ":method"))
        text_take(s, s->method, sizeof s->method, value, value_len);
    else if (name_is(name, name_len, ":path"))
        text_take(s, s->path, sizeof s->path, value, value_len);
    else if (name_is(name, name_len, ":status") && value_len == 3)
        s->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
    return 0;
}

static void head_done(struct h2_conn *c, struct h2_stream *s, const nghttp2_frame *f)
{
    if (f->headers.cat == NGHTTP2_HCAT_RESPONSE && s->events != NULL &&
        s->events->response != NULL) {
        s->events->response(s, s->status);
    } else if (f->headers.cat == NGHTTP2_HCAT_REQUEST && c->events->request != NULL) {
        if (!s->head_bad)
            c->events->request(c, s, s->method, s->path);
        if (s->events == NULL && !s->answered)
            h2_reset(s);
    }
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *f, void *user)
{
    struct h2_conn *c = user;
    if (c->state != H2_READY)
        return 0;
    if (f->hd.type == NGHTTP2_PING && (f->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        uint64_t sent_ns, now = clock_mono_ns(c->net->clock);
        memcpy(&sent_ns, f->ping.opaque_data, sizeof sent_ns);
        if (sent_ns <= now)
            c->rtt_ns = MAX(now - sent_ns, 1u);
        return 0;
    }
    struct h2_stream *s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
    if (s == NULL || (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA))
        return 0;
    if (f->hd.type == NGHTTP2_HEADERS)
        head_done(c, s, f);
    if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && s->events != NULL &&
        s->events->ended != NULL)
        s->events->ended(s);
    return 0;
}

static int on_data(
    nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *ptr, size_t len, void *user)
{
    struct h2_conn *c = user;
    (void)flags;
    /* Streams hold each other up only through their own windows. */
    (void)nghttp2_session_consume_connection(session, len); /* only misuse fails */
    struct h2_stream *s = nghttp2_session_get_stream_user_data(session, id);
    if (s != NULL && s->events != NULL && s->events->data != NULL && c->state == H2_READY)
        s->events->data(s, ptr, len);
    else
        (void)nghttp2_session_consume_stream(session, id, len); /* nobody wants it */
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    (void)user;
    struct h2_stream *s = nghttp2_session_get_stream_user_data(session, id);
    if (s != NULL)
        stream_end(s, code == NGHTTP2_NO_ERROR ? 0 : ERR_CLOSED);
    return 0;
}

/* --- the session --- */

int h2_session_make(struct h2_conn *c)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *opt = NULL;
    int rc = nghttp2_session_callbacks_new(&cb) | nghttp2_option_new(&opt);
    ASSERT(rc == 0); /* only memory */
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    rc = c->purpose == H2_SERVES ? nghttp2_session_server_new2(&c->session, cb, c, opt)
                                 : nghttp2_session_client_new2(&c->session, cb, c, opt);
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    if (rc != 0)
        return ERR_NO_MEMORY;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADERS_BYTES_MAX},
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
    };
    rc = nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_COUNT(settings));
    if (rc == 0)
        rc = nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                   CONN_WINDOW_BYTES);
    return rc == 0 ? 0 : ERR_NO_MEMORY;
}

void h2_session_ping(struct h2_conn *c, uint64_t now_ns)
{
    uint8_t opaque[8];
    memcpy(opaque, &now_ns, sizeof opaque);
    (void)nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, opaque); /* the next one may do */
}

size_t h2_session_collect(struct h2_conn *c, uint8_t *to, size_t room)
{
    size_t len = 0;
    while (room - len >= FRAME_ROOM) {
        const uint8_t *at;
        ssize_t got = nghttp2_session_mem_send(c->session, &at);
        if (got < 0)
            h2_close(c, ERR_NO_MEMORY, nghttp2_strerror((int)got));
        if (got <= 0)
            break;
        ASSERT((size_t)got <= room - len); /* frames of ours are at most 16 KiB */
        memcpy(to + len, at, (size_t)got);
        len += (size_t)got;
    }
    return len;
}

void h2_streams_drain(struct h2_conn *c)
{
    if (!c->drain_wanted)
        return;
    c->drain_wanted = false;
    /* drained() may write or reset, but streams end only in nghttp2's own callbacks. */
    for (struct h2_stream *s = c->streams; s != NULL && c->state == H2_READY; s = s->next) {
        if (!s->want_drained)
            continue;
        s->want_drained = false;
        s->events->drained(s);
    }
}

/* --- what others call --- */

#define NV(n, v)                                                                                   \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v),                \
            NGHTTP2_NV_FLAG_NONE                                                                   \
    }

struct h2_stream *h2_request(struct h2_conn *c,
                             const char *method,
                             const char *path,
                             const struct h2_stream_events *events,
                             void *user)
{
    if (!h2_is_ready(c))
        return NULL;
    struct h2_stream *s = stream_new(c);
    s->events = events;
    s->user = user;
    s->answered = true;
    const nghttp2_nv head[] = {
        NV(":method", method),
        NV(":scheme", "https"),
        NV(":authority", "claudefs"),
        NV(":path", path),
    };
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = body_read};
    s->id = nghttp2_submit_request(c->session, NULL, head, ARRAY_COUNT(head), &body, s);
    if (s->id < 0) {
        s->events = NULL; /* it never was */
        stream_end(s, ERR_CLOSED);
        return NULL;
    }
    h2_mark_dirty(c);
    return s;
}

void h2_follow(struct h2_stream *s, const struct h2_stream_events *events, void *user)
{
    s->events = events;
    s->user = user;
}

void h2_respond(struct h2_stream *s, int status)
{
    ASSERT(!s->answered && s->conn->purpose == H2_SERVES);
    s->answered = true;
    if (s->conn->state != H2_READY)
        return;
    char text[12];
    (void)snprintf(text, sizeof text, "%d", status); /* fits */
    const nghttp2_nv head[] = {NV(":status", text)};
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = body_read};
    int rc = nghttp2_submit_response(s->conn->session, s->id, head, ARRAY_COUNT(head), &body);
    if (rc != 0)
        h2_close(s->conn, ERR_PEER, nghttp2_strerror(rc));
    h2_mark_dirty(s->conn);
}

static void stream_resume(struct h2_stream *s)
{
    if (s->conn->state != H2_READY)
        return;
    if (s->deferred) {
        s->deferred = false;
        (void)nghttp2_session_resume_data(s->conn->session, s->id); /* it may be closing */
    }
    h2_mark_dirty(s->conn);
}

void h2_write(struct h2_stream *s, const void *ptr, size_t len)
{
    ASSERT(!s->eof);
    if (s->out_at > H2_LOW_BYTES) {
        size_t left = h2_pending(s);
        memmove(s->out.ptr, s->out.ptr + s->out_at, left);
        s->out.len = left;
        s->out_at = 0;
    }
    buf_append(&s->out, ptr, len);
    stream_resume(s);
}

void h2_give(struct h2_stream *s, struct buf *bytes)
{
    ASSERT(!s->eof);
    if (h2_pending(s) > 0) {
        h2_write(s, bytes->ptr, bytes->len);
        buf_deinit(bytes);
        return;
    }
    buf_move(&s->out, bytes);
    s->out_at = 0;
    stream_resume(s);
}

void h2_end(struct h2_stream *s)
{
    if (s->eof)
        return;
    s->eof = true;
    stream_resume(s);
}

void h2_consume(struct h2_stream *s, size_t len)
{
    if (s->conn->state != H2_READY || len == 0)
        return;
    (void)nghttp2_session_consume_stream(s->conn->session, s->id, len); /* it may be closing */
    h2_mark_dirty(s->conn);
}

void h2_reset(struct h2_stream *s)
{
    if (s->conn->state != H2_READY)
        return;
    (void)nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id,
                                    NGHTTP2_CANCEL); /* it may be closing */
    h2_mark_dirty(s->conn);
}

void *h2_stream_user(const struct h2_stream *s)
{
    return s->user;
}

struct h2_conn *h2_stream_conn(const struct h2_stream *s)
{
    return s->conn;
}
