/* The dashboard's HTTP server on libmicrohttpd: one thread, many connections, nothing but reading.
 * A shell: what a request means and may is dash_route.c's. Bounded: connections, header bytes,
 * streams, and how long a client may say nothing.
 *
 * Event streams sleep (MHD suspends their connection) until a new text is published. A stream that
 * is slow misses texts in between, never gets a part of one. */
#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "client/dash_int.h"

#define LISTEN_DEFAULT "127.0.0.1:7480"
#define LISTEN_ANY_PORT "127.0.0.1:0"
#define EVENT_BLOCK_BYTES ((size_t)(32u * KIB))

static const char SECURITY_POLICY[] =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src "
    "'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/* ---- texts ---- */

struct dash_text *dash_text_ref(struct dash *d)
{
    (void)pthread_mutex_lock(&d->lock);
    struct dash_text *t = d->text;
    if (t != NULL)
        t->refs++;
    d->asked_ns = clock_mono_ns(loop_clock(node_loop(d->n)));
    (void)pthread_mutex_unlock(&d->lock);
    return t;
}

/* Under the lock. */
static bool text_drop(struct dash_text *t)
{
    ASSERT(t->refs > 0);
    return --t->refs == 0;
}

static void text_free(struct dash_text *t)
{
    mem_free(t->json);
    mem_free(t);
}

void dash_text_unref(struct dash *d, struct dash_text *t)
{
    (void)pthread_mutex_lock(&d->lock);
    bool last = text_drop(t);
    (void)pthread_mutex_unlock(&d->lock);
    if (last)
        text_free(t);
}

/* ---- answers ---- */

static enum MHD_Result
answer(struct MHD_Connection *conn, unsigned status, const char *type, struct MHD_Response *r)
{
    if (r == NULL)
        return MHD_NO;
    bool ok = MHD_add_response_header(r, "Content-Type", type) == MHD_YES &&
              MHD_add_response_header(r, "Cache-Control", "no-store") == MHD_YES &&
              MHD_add_response_header(r, "X-Content-Type-Options", "nosniff") == MHD_YES &&
              MHD_add_response_header(r, "Content-Security-Policy", SECURITY_POLICY) == MHD_YES;
    enum MHD_Result rc = ok ? MHD_queue_response(conn, status, r) : MHD_NO;
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result say(struct MHD_Connection *conn, unsigned status, const char *sentence)
{
    char *text = mem_printf("%s\n", sentence);
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
    mem_free(text);
    if (r != NULL && status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(r, "Allow", "GET, HEAD"); /* without it is an answer, too */
    if (r != NULL && status == MHD_HTTP_UNAUTHORIZED)
        (void)MHD_add_response_header(r, "WWW-Authenticate", "Bearer realm=\"claudefs\"");
    return answer(conn, status, "text/plain; charset=utf-8", r);
}

static enum MHD_Result say_buf(struct MHD_Connection *conn, const char *type, struct buf *b)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(b->len, b->ptr, MHD_RESPMEM_MUST_COPY);
    buf_deinit(b);
    return answer(conn, MHD_HTTP_OK, type, r);
}

static enum MHD_Result send_page(struct MHD_Connection *conn)
{
    union {
        const void *in;
        void *out; /* the interface lacks the const; a persistent buffer is only read */
    } page = {.in = dash_page};
    struct MHD_Response *r =
        MHD_create_response_from_buffer(dash_page_len, page.out, MHD_RESPMEM_PERSISTENT);
    return answer(conn, MHD_HTTP_OK, "text/html; charset=utf-8", r);
}

/* From ?token=...: to the page without it, with a cookie instead. */
static enum MHD_Result send_cookie(struct dash *d, struct MHD_Connection *conn)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    char *cookie =
        mem_printf(DASH_COOKIE "=%s; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000", d->token);
    bool ok = r != NULL && MHD_add_response_header(r, "Set-Cookie", cookie) == MHD_YES &&
              MHD_add_response_header(r, "Location", "/") == MHD_YES;
    mem_free(cookie);
    if (!ok) {
        if (r != NULL)
            MHD_destroy_response(r);
        return MHD_NO;
    }
    return answer(conn, MHD_HTTP_SEE_OTHER, "text/plain", r);
}

static enum MHD_Result send_status(struct dash *d, struct MHD_Connection *conn)
{
    struct dash_text *t = dash_text_ref(d);
    if (t == NULL)
        return say(conn, MHD_HTTP_SERVICE_UNAVAILABLE, "the site has only begun: ask again");
    struct buf b = {0};
    buf_append(&b, t->json, t->len);
    buf_append(&b, "\n", 1);
    dash_text_unref(d, t);
    return say_buf(conn, "application/json", &b);
}

static enum MHD_Result send_metrics(struct dash *d, struct MHD_Connection *conn)
{
    struct dash_text *t = dash_text_ref(d);
    struct buf b = {0};
    json_t *status = t != NULL ? json_loadb(t->json, t->len, 0, NULL) : NULL;
    if (t != NULL)
        dash_text_unref(d, t);
    dash_metrics(status, &b);
    json_decref(status);
    return say_buf(conn, "text/plain; version=0.0.4; charset=utf-8", &b);
}

/* Load balancers and supervisors want a status; people want the word. */
static enum MHD_Result send_health(struct dash *d, struct MHD_Connection *conn)
{
    struct dash_text *t = dash_text_ref(d);
    if (t == NULL)
        return say(conn, MHD_HTTP_SERVICE_UNAVAILABLE, "starting");
    json_t *status = json_loadb(t->json, t->len, 0, NULL);
    dash_text_unref(d, t);
    const char *health = json_string_value(json_object_get(status, "health"));
    enum MHD_Result rc = say(conn, MHD_HTTP_OK, health != NULL ? health : "unknown");
    json_decref(status);
    return rc;
}

static void append_number(struct buf *b, float f)
{
    char text[32];
    int len = isnan(f) ? snprintf(text, sizeof text, "null")
                       : snprintf(text, sizeof text, "%.6g", (double)f);
    buf_append(b, text, (size_t)len);
}

static void append_series(const struct dash *d,
                          const char *peer,
                          unsigned grain,
                          const struct dash_series *s,
                          struct buf *b)
{
    static const char *const names[DASH_VALUES] = {
        "lag_in_s", "lag_out_s", "in_ops_to_go", "out_ops_to_go", "in_ops_per_s", "out_ops_per_s"};
    for (unsigned v = 0; v < DASH_VALUES; v++) {
        char key[40];
        int len = snprintf(key, sizeof key, ",\"%s\":[", names[v]);
        buf_append(b, key, (size_t)len);
        for (uint32_t i = 0; i < s->count; i++) {
            if (i > 0)
                buf_append(b, ",", 1);
            append_number(b, dash_history_value(d->history, peer, grain, i, (enum dash_value)v));
        }
        buf_append(b, "]", 1);
    }
}

static enum MHD_Result send_history(struct dash *d, struct MHD_Connection *conn)
{
    const char *peer = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, "peer");
    const char *grain = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, "grain");
    struct dash_series s;
    struct buf b = {0};
    if (peer == NULL || grain == NULL || grain[0] < '0' || grain[0] > '2' || grain[1] != '\0')
        return say(conn, MHD_HTTP_BAD_REQUEST, "use /api/history?peer=NAME&grain=0, 1 or 2");
    unsigned g = (unsigned)(grain[0] - '0');
    (void)pthread_mutex_lock(&d->lock);
    bool known = dash_history_series(d->history, peer, g, &s);
    if (known) {
        char head[96];
        int len = snprintf(head, sizeof head, "{\"step_s\":%u,\"first_s\":%llu", s.step_s,
                           (unsigned long long)s.first_s);
        buf_append(&b, head, (size_t)len);
        append_series(d, peer, g, &s, &b);
        buf_append(&b, "}\n", 2);
    }
    (void)pthread_mutex_unlock(&d->lock);
    if (!known)
        return say(conn, MHD_HTTP_NOT_FOUND, "nothing is known of a site of that name");
    return say_buf(conn, "application/json", &b);
}

/* ---- event streams ---- */

/* Part of "data: JSON\n\n" from stream->at on. */
static size_t event_copy(struct dash_stream *st, char *out, size_t max)
{
    static const char head[] = "data: ", tail[] = "\n\n";
    const struct {
        const char *ptr;
        size_t len;
    } parts[] = {{head, sizeof head - 1}, {st->text->json, st->text->len}, {tail, sizeof tail - 1}};
    size_t done = 0, start = 0;
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        size_t end = start + parts[i].len;
        if (st->at < end && done < max) {
            size_t len = MIN(end - st->at, max - done);
            memcpy(out + done, parts[i].ptr + (st->at - start), len);
            done += len;
            st->at += len;
        }
        start = end;
    }
    return done;
}

static ssize_t stream_read(void *ctx, uint64_t pos, char *out, size_t max)
{
    struct dash_stream *st = ctx;
    struct dash *d = st->d;
    struct dash_text *dead = NULL;
    ssize_t len = 0;
    (void)pos;
    (void)pthread_mutex_lock(&d->lock);
    if (st->text != NULL && st->at == st->text->len + 8) { /* "data: " and two ends of line */
        dead = text_drop(st->text) ? st->text : NULL;
        st->text = NULL;
    }
    if (d->closing) {
        len = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (st->text == NULL && d->text != NULL && d->text->version != st->sent) {
        st->text = d->text;
        st->text->refs++;
        st->sent = d->text->version;
        st->at = 0;
    }
    if (len == 0 && st->text != NULL) {
        len = (ssize_t)event_copy(st, out, max);
    } else if (len == 0) {
        st->asleep = true;
        MHD_suspend_connection(st->conn);
    }
    (void)pthread_mutex_unlock(&d->lock);
    if (dead != NULL)
        text_free(dead);
    return len;
}

static void stream_free(void *ctx)
{
    struct dash_stream *st = ctx;
    struct dash *d = st->d;
    (void)pthread_mutex_lock(&d->lock);
    *(st->prev != NULL ? &st->prev->next : &d->streams) = st->next;
    if (st->next != NULL)
        st->next->prev = st->prev;
    d->stream_count--;
    bool dead = st->text != NULL && text_drop(st->text);
    (void)pthread_mutex_unlock(&d->lock);
    if (dead)
        text_free(st->text);
    mem_free(st);
}

bool dash_wake(struct dash *d, uint32_t most)
{
    for (struct dash_stream *st = d->streams; st != NULL; st = st->next) {
        if (!st->asleep || (!d->closing && st->sent == d->text->version))
            continue;
        if (most == 0)
            return true;
        most--;
        st->asleep = false;
        MHD_resume_connection(st->conn);
    }
    return false;
}

static enum MHD_Result send_events(struct dash *d, struct MHD_Connection *conn)
{
    struct dash_stream *st = mem_calloc(1, sizeof *st);
    st->d = d;
    st->conn = conn;
    (void)pthread_mutex_lock(&d->lock);
    bool full = d->stream_count >= DASH_STREAMS_MAX || d->closing;
    if (!full) {
        st->next = d->streams;
        if (st->next != NULL)
            st->next->prev = st;
        d->streams = st;
        d->stream_count++;
    }
    (void)pthread_mutex_unlock(&d->lock);
    if (full) {
        mem_free(st);
        return say(conn, MHD_HTTP_SERVICE_UNAVAILABLE, "too many viewers: ask again later");
    }
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, EVENT_BLOCK_BYTES,
                                                               stream_read, st, stream_free);
    if (r == NULL) {
        stream_free(st);
        return MHD_NO;
    }
    return answer(conn, MHD_HTTP_OK, "text/event-stream", r);
}

/* ---- requests ---- */

static enum MHD_Result refuse(struct MHD_Connection *conn, enum dash_access access)
{
    if (access == DASH_HOST_WRONG)
        return say(conn, MHD_HTTP_FORBIDDEN,
                   "this address is for this machine alone: open it as localhost");
    return say(conn, MHD_HTTP_UNAUTHORIZED,
               access == DASH_TOKEN_WRONG
                   ? "the token is wrong: 'claudefs dashboard token' prints the right one"
                   : "a token is needed: 'claudefs dashboard token' prints it: open /?token=IT");
}

static enum MHD_Result handle(void *ctx,
                              struct MHD_Connection *conn,
                              const char *path,
                              const char *method,
                              const char *version,
                              const char *upload,
                              size_t *upload_len,
                              void **state)
{
    struct dash *d = ctx;
    struct dash_credentials c = {
        .authorization = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Authorization"),
        .cookie = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Cookie"),
        .query_token = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, "token"),
        .host = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Host")};
    (void)version;
    (void)upload;
    if (*state == NULL) { /* headers only so far: a body is refused before it is read */
        static int seen;
        *state = &seen;
        if (dash_route_of(method, path) != DASH_BAD_METHOD)
            return MHD_YES;
    }
    *upload_len = 0;
    enum dash_access access = dash_access_of(d->token, &c);
    if (access != DASH_ALLOWED && access != DASH_ALLOWED_BY_QUERY)
        return refuse(conn, access);
    switch (dash_route_of(method, path)) {
    case DASH_PAGE:
        return access == DASH_ALLOWED_BY_QUERY ? send_cookie(d, conn) : send_page(conn);
    case DASH_EVENTS:
        return send_events(d, conn);
    case DASH_STATUS:
        return send_status(d, conn);
    case DASH_HISTORY:
        return send_history(d, conn);
    case DASH_METRICS:
        return send_metrics(d, conn);
    case DASH_HEALTH:
        return send_health(d, conn);
    case DASH_NOT_FOUND:
        return say(conn, MHD_HTTP_NOT_FOUND, "there is nothing here: the page is at /");
    case DASH_BAD_METHOD:
        return say(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "this server can only be read: use GET");
    }
    UNREACHABLE();
}

/* What the library has to say is about clients' mistakes, of which there may be many. */
static void on_complaint(void *ctx, const char *fmt, va_list ap)
{
    char text[200];
    (void)ctx;
    int len = vsnprintf(text, sizeof text, fmt, ap);
    if (len > 0)
        log_debug(LOG_CLIENT, "http", "what=\"%s\"", text);
}

/* ---- listening ---- */

static bool split(const char *address, char host[128], char port[8])
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || strlen(colon + 1) >= 8 || colon[1] == '\0')
        return false;
    size_t len = (size_t)(colon - address);
    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    if (len == 0 || len >= 128)
        return false;
    memcpy(host, address, len);
    host[len] = '\0';
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return true;
}

/* The bound socket, or -1 with errno (0: the name is unknown). */
static int listen_at(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    errno = 0;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -1;
    int fd = -1, on = 1, error = 0;
    for (const struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
                        bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 128) != 0)) {
            error = errno;
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    errno = error;
    return fd;
}

static int socket_make(struct dash *d, struct err_detail *detail)
{
    const char *wanted = node_settings(d->n)->http;
    char host[128], port[8];
    bool default_ = wanted[0] == '\0';
    if (!split(default_ ? LISTEN_DEFAULT : wanted, host, port)) {
        err_detail_set(detail, "http = %s: an address is HOST:PORT, or 'off'", wanted);
        return ERR_CONFIG;
    }
    d->listen_fd = listen_at(host, port);
    if (d->listen_fd < 0 && default_ && split(LISTEN_ANY_PORT, host, port))
        d->listen_fd = listen_at(host, port); /* another site of this machine has the first */
    if (d->listen_fd < 0) {
        int error = errno;
        err_detail_set(detail, "the dashboard cannot listen on %s: %s", default_ ? host : wanted,
                       error != 0 ? strerror(error) : "the name is not known");
        return error == EADDRINUSE ? ERR_BUSY : ERR_CONFIG;
    }
    return 0;
}

/* As people open it, into the log and the site's directory. */
static void address_tell(struct dash *d)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    char host[100] = "?", port[8] = "?";
    if (getsockname(d->listen_fd, (struct sockaddr *)&at, &len) == 0)
        (void)getnameinfo((struct sockaddr *)&at, len, host, sizeof host, port, sizeof port,
                          NI_NUMERICHOST | NI_NUMERICSERV); /* "?" stays */
    bool v6 = strchr(host, ':') != NULL;
    (void)snprintf(d->address, sizeof d->address, "http://%s%s%s:%s/", v6 ? "[" : "", host,
                   v6 ? "]" : "", port); /* fits */
    char *path = mem_printf("%s/%s", node_dir(d->n), DASH_ADDRESS_FILE);
    FILE *f = fopen(path, "we");
    if (f == NULL || fprintf(f, "%s\n", d->address) < 0)
        log_warn(LOG_CLIENT, "address_not_written", "file=%s why=\"%s\"", path, strerror(errno));
    if (f != NULL)
        (void)fclose(f); /* the log has it, too */
    mem_free(path);
    log_info(LOG_CLIENT, "dashboard", "at=%s token=%s", d->address,
             d->token != NULL ? "needed" : "none");
}

int dash_http_start(struct dash *d, struct err_detail *detail)
{
    int rc = socket_make(d, detail);
    if (rc != 0)
        return rc;
    d->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        handle, d, MHD_OPTION_EXTERNAL_LOGGER, on_complaint, NULL, MHD_OPTION_LISTEN_SOCKET,
        d->listen_fd, MHD_OPTION_CONNECTION_LIMIT, DASH_CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, DASH_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        DASH_REQUEST_BYTES, MHD_OPTION_END);
    if (d->daemon == NULL) {
        (void)close(d->listen_fd);
        d->listen_fd = -1;
        err_detail_set(detail, "the dashboard's server cannot be started");
        return ERR_IO;
    }
    address_tell(d);
    return 0;
}

void dash_http_stop(struct dash *d)
{
    if (d->daemon == NULL)
        return;
    (void)pthread_mutex_lock(&d->lock);
    d->closing = true;
    (void)dash_wake(d, UINT32_MAX); /* none sleeps when the daemon stops, or falls asleep again */
    (void)pthread_mutex_unlock(&d->lock);
    MHD_stop_daemon(d->daemon); /* closes the socket */
    d->daemon = NULL;
    d->listen_fd = -1;
}
