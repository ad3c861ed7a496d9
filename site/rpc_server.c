/* Listening and accepting; the end of the server. Connections are in rpc_conn.c.
 *
 * One multishot accept per listener where the kernel has it. Out of descriptors: accepting pauses
 * for a moment, since the kernel would answer at once with the same error. */
#include "site/rpc_server_int.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

enum {
    BACKLOG = 1024,
    PATIENCE_MS = 5000,
    ACCEPT_RETRY_MS = 100
};

struct metric rpc_metrics[RPC_METRIC_COUNT] = {
    [RPC_METRIC_CONNS] = {.name = "claudefs_rpc_connections",
                          .help = "Connections of clients that are open.",
                          .kind = METRIC_GAUGE},
    [RPC_METRIC_REQUESTS] = {.name = "claudefs_rpc_requests_total",
                             .help = "Requests received.",
                             .kind = METRIC_COUNTER},
    [RPC_METRIC_BYTES_IN] = {.name = "claudefs_rpc_received_bytes_total",
                             .help = "Bytes received from clients.",
                             .kind = METRIC_COUNTER},
    [RPC_METRIC_BYTES_OUT] = {.name = "claudefs_rpc_sent_bytes_total",
                              .help = "Bytes sent to clients.",
                              .kind = METRIC_COUNTER},
    [RPC_METRIC_REFUSED] = {.name = "claudefs_rpc_refused_total",
                            .help = "Connections closed for lack of proof, room or sense.",
                            .kind = METRIC_COUNTER},
};

struct buf rpc_spare_take(struct rpc_server *s, size_t bytes)
{
    struct buf b = {0};
    if (s->spare_count > 0) {
        b = s->spares[--s->spare_count];
        s->spares[s->spare_count] = (struct buf){0};
    }
    if (b.cap < bytes)
        buf_deinit(&b); /* growing would copy what is of no use */
    buf_reserve(&b, bytes);
    return b;
}

void rpc_spare_give(struct rpc_server *s, struct buf *b)
{
    if (b->cap > RPC_RX_BYTES && s->spare_count < RPC_SPARES_MAX) {
        buf_clear(b);
        buf_move(&s->spares[s->spare_count++], b);
    }
    buf_deinit(b);
}

/* --- stopping --- */

static void stop_check(struct loop_defer *d)
{
    struct rpc_server *s = CONTAINER_OF(d, struct rpc_server, stop_check);
    if (!s->stopping || s->stopped == NULL || s->conn_count > 0)
        return;
    for (const struct rpc_listener *l = s->listeners; l != NULL; l = l->next)
        if (l->armed)
            return;
    void (*stopped)(void *) = s->stopped;
    s->stopped = NULL;
    stopped(s->stopped_ctx);
}

void rpc_server_conn_gone(struct rpc_server *s)
{
    ASSERT(s->conn_count > 0);
    s->conn_count--;
    metric_add(&rpc_metrics[RPC_METRIC_CONNS], -1);
    loop_defer(s->loop, &s->stop_check);
}

void rpc_server_stop(struct rpc_server *s, void (*stopped)(void *ctx), void *ctx)
{
    ASSERT(!s->stopping && stopped != NULL);
    s->stopping = true;
    s->stopped = stopped;
    s->stopped_ctx = ctx;
    for (struct rpc_listener *l = s->listeners; l != NULL; l = l->next) {
        loop_timer_stop(s->loop, &l->retry);
        if (!l->armed)
            continue;
        struct io_uring_sqe *sqe = loop_sqe(s->loop);
        io_uring_prep_cancel(sqe, &l->req, 0);
        loop_sqe_bind(sqe, NULL);
    }
    for (struct rpc_conn *c = s->conns; c != NULL; c = c->next) {
        if (c->state == CONN_OPEN)
            rpc_conn_close(c);
        else if (c->state < CONN_OPEN)
            rpc_conn_kill(c, ERR_CLOSED, "the server stops");
    }
    loop_defer(s->loop, &s->stop_check);
}

static void listener_free(struct rpc_listener *l)
{
    ASSERT(!l->armed);
    if (l->path != NULL)
        (void)unlink(l->path);
    (void)close(l->fd);
    mem_free(l->path);
    mem_free(l);
}

void rpc_server_free(struct rpc_server *s)
{
    if (s == NULL)
        return;
    ASSERT(s->conn_count == 0 && s->stopped == NULL && !s->stop_check.queued);
    while (s->listeners != NULL) {
        struct rpc_listener *l = s->listeners;
        s->listeners = l->next;
        listener_free(l);
    }
    for (uint32_t i = 0; i < s->spare_count; i++)
        buf_deinit(&s->spares[i]);
    buf_deinit(&s->plain);
    buf_deinit(&s->scratch);
    sodium_memzero(&s->auth, sizeof s->auth);
    mem_free(s);
}

int rpc_server_new(struct rpc_server **ret,
                   struct loop *loop,
                   const struct rpc_auth *auth,
                   const struct rpc_server_events *events)
{
    ASSERT(events->opened != NULL && events->request != NULL && events->closed != NULL);
    ASSERT(events->hlc != NULL && events->hlc_seen != NULL);
    struct rpc_server *s = mem_calloc(1, sizeof *s);
    s->loop = loop;
    s->auth = *auth;
    s->events = *events;
    s->patience_ns = PATIENCE_MS * NS_PER_MS;
    s->stop_check.run = stop_check;
    for (size_t i = 0; i < RPC_METRIC_COUNT; i++)
        metric_register(&rpc_metrics[i]);
    *ret = s;
    return 0;
}

void rpc_server_set_patience_ms(struct rpc_server *s, uint32_t ms)
{
    s->patience_ns = ms * NS_PER_MS;
}

/* --- accepting --- */

static void accept_arm(struct rpc_listener *l)
{
    if (l->armed || l->server->stopping)
        return;
    struct io_uring_sqe *sqe = loop_sqe(l->server->loop);
    if (l->single_shot)
        io_uring_prep_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
    else
        io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
    loop_sqe_bind(sqe, &l->req);
    l->armed = true;
}

static void accept_retry(struct loop_timer *t)
{
    accept_arm(CONTAINER_OF(t, struct rpc_listener, retry));
}

static void conn_accepted(struct rpc_listener *l, int fd)
{
    struct rpc_server *s = l->server;
    bool full = s->conn_count >= RPC_CONNS_MAX || s->handshake_count >= RPC_HANDSHAKES_MAX;
    if (!full && !s->stopping) {
        rpc_conn_new(s, fd, l->is_unix);
        return;
    }
    if (full) {
        metric_add(&rpc_metrics[RPC_METRIC_REFUSED], 1);
        log_warn(LOG_SITE, "rpc_refused", "why=\"too many connections\" open=%u unproved=%u",
                 s->conn_count, s->handshake_count);
    }
    (void)close(fd);
}

static void accept_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct rpc_listener *l = CONTAINER_OF(req, struct rpc_listener, req);
    l->armed = (cqe_flags & IORING_CQE_F_MORE) != 0;
    if (res >= 0) {
        conn_accepted(l, res);
    } else if (res == -EINVAL && !l->single_shot) {
        l->single_shot = true; /* a kernel before 5.19 */
    } else if (res == -EMFILE || res == -ENFILE || res == -ENOBUFS || res == -ENOMEM) {
        log_error(LOG_SITE, "rpc_accept_failed", "why=\"%s\"", strerror(-res));
        if (!l->armed && !l->server->stopping)
            loop_timer_start(l->server->loop, &l->retry,
                             loop_now_ns(l->server->loop) + ACCEPT_RETRY_MS * NS_PER_MS);
        return;
    }
    accept_arm(l);
    if (l->server->stopping)
        loop_defer(l->server->loop, &l->server->stop_check);
}

static void listener_add(struct rpc_server *s, int fd, const char *path)
{
    struct rpc_listener *l = mem_calloc(1, sizeof *l);
    *l = (struct rpc_listener){.next = s->listeners,
                               .server = s,
                               .req = {.done = accept_done},
                               .retry = {.fire = accept_retry},
                               .fd = fd,
                               .is_unix = path != NULL,
                               .path = path == NULL ? NULL : mem_strdup(path)};
    s->listeners = l;
    accept_arm(l);
}

/* --- listening --- */

/* Removes what a dead server left; leaves anything else alone. */
static int socket_file_clear(const char *path, const struct sockaddr_un *addr, struct err_detail *d)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return 0; /* nothing there, or bind will say what is wrong */
    if (!S_ISSOCK(st.st_mode)) {
        err_detail_set(d, "cannot listen on %s: it exists and is not a socket", path);
        return ERR_EXISTS;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_from_errno(errno);
    bool alive = connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno == EAGAIN;
    (void)close(fd);
    if (alive) {
        err_detail_set(d, "cannot listen on %s: another server does: stop it first", path);
        return ERR_BUSY;
    }
    (void)unlink(path); /* if it cannot be removed, bind says why */
    return 0;
}

static int
unix_bind(const char *path, const struct sockaddr_un *addr, int *ret, struct err_detail *d)
{
    int rc = socket_file_clear(path, addr, d);
    if (rc != 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* On Linux the file gets the socket's mode, so it is never open to others. */
    if (fd >= 0 && fchmod(fd, 0600) == 0 &&
        bind(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 && chmod(path, 0600) == 0 &&
        listen(fd, BACKLOG) == 0) {
        *ret = fd;
        return 0;
    }
    rc = errno;
    err_detail_set(d, "cannot listen on %s: %s", path, strerror(rc));
    if (fd >= 0)
        (void)close(fd);
    return err_from_errno(rc);
}

int rpc_server_listen_unix(struct rpc_server *s, const char *path, struct err_detail *d)
{
    struct sockaddr_un addr;
    int dir_fd = -1, fd = -1;
    int rc = rpc_unix_address(path, &addr, &dir_fd);
    if (rc != 0)
        err_detail_set(d, "cannot listen on %s: %s", path, err_text(rc));
    else
        rc = unix_bind(path, &addr, &fd, d);
    if (dir_fd >= 0)
        (void)close(dir_fd);
    if (rc == 0)
        listener_add(s, fd, path);
    return rc;
}

static int tcp_bind(const struct addrinfo *at)
{
    const int one = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return -1;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    if (getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
        return 0;
    if (addr.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)&addr)->sin6_port);
    return ntohs(((const struct sockaddr_in *)(const void *)&addr)->sin_port);
}

int rpc_server_listen_tcp(
    struct rpc_server *s, const char *host, uint16_t port, uint16_t *ret_port, struct err_detail *d)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    (void)snprintf(service, sizeof service, "%u", (unsigned)port);
    int gai = getaddrinfo(host[0] == '\0' ? NULL : host, service, &hints, &found);
    if (gai != 0) {
        err_detail_set(d, "cannot listen on %s:%u: %s", host, (unsigned)port, gai_strerror(gai));
        return ERR_CONFIG;
    }
    int fd = -1;
    for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
        fd = tcp_bind(at);
    int errnum = errno;
    freeaddrinfo(found);
    if (fd < 0) {
        err_detail_set(d, "cannot listen on %s:%u: %s", host, (unsigned)port, strerror(errnum));
        return err_from_errno(errnum);
    }
    if (ret_port != NULL)
        *ret_port = port_of(fd);
    listener_add(s, fd, NULL);
    return 0;
}
