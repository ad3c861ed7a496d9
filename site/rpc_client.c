/* The client's end: a blocking socket, one send and as few reads as possible per call.
 *
 * Reading goes through a small read-ahead buffer, so that a small reply takes one system call; the
 * rest of a long frame is read straight to where it belongs. The socket's own receive timeout
 * bounds the first wait of a call (no poll before each read); later waits of the same call poll for
 * what is left of its time. Whatever goes wrong on the stream breaks the connection for good. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "site/rpc_int.h"

enum {
    RX_BYTES = 16384,
    PUSHES_MAX = 256 /* kept while a call waits for its reply */
};

struct push {
    struct push *next;
    struct buf unit; /* a clear frame */
};

struct rpc_client {
    int fd;
    atomic_bool broken;           /* one thread may send while another receives */
    uint32_t receive_ms, send_ms; /* the socket's timeouts; 0: none */
    bool takes_fd;                /* the answer that is awaited may bring a descriptor, */
    int fd_came;                  /* which is this, or -1 */
    struct rpc_seal seal;
    struct buf big;          /* a long sealed unit */
    struct buf scratch, out; /* what is sent sealed */
    struct push *push_first, **push_last;
    uint32_t push_count;
    size_t rx_at, rx_len;
    uint8_t rx[RX_BYTES];
};

/* The time of one call. */
struct wait {
    uint32_t timeout_ms;  /* 0: for ever */
    uint64_t deadline_ns; /* set by the first read that does not finish the call */
    bool started;
};

static int broken(struct rpc_client *c, int rc)
{
    c->broken = true;
    return rc;
}

/* --- the socket --- */

static void timeout_set(int fd, int option, uint32_t *current_ms, uint32_t ms)
{
    if (*current_ms == ms)
        return;
    const struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    if (setsockopt(fd, SOL_SOCKET, option, &tv, sizeof tv) == 0)
        *current_ms = ms;
}

/* Waits for the rest of a call's time; the first wait is left to the socket's own timeout. */
static int wait_more(const struct rpc_client *c, struct wait *w)
{
    if (w->timeout_ms == 0)
        return 0;
    uint64_t now_ns = clock_mono_ns(&clock_os);
    if (!w->started) {
        w->started = true;
        w->deadline_ns = now_ns + w->timeout_ms * NS_PER_MS;
        return 0;
    }
    if (now_ns >= w->deadline_ns)
        return ERR_TIMEOUT;
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    int ms = (int)MIN((w->deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)INT32_MAX);
    int rc = poll(&p, 1, ms);
    return rc == 0 ? ERR_TIMEOUT : 0; /* an error shows in the read */
}

/* As recv(2), with a descriptor if one comes along. */
static ssize_t receive_with_fd(struct rpc_client *c, void *ptr, size_t len)
{
    struct iovec iov = {.iov_base = ptr, .iov_len = len};
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int)) && c->fd_came < 0)
        memcpy(&c->fd_came, CMSG_DATA(head), sizeof(int));
    return got;
}

/* At least one byte, at most len. */
static int receive_some(struct rpc_client *c, void *ptr, size_t len, struct wait *w, size_t *ret)
{
    for (;;) {
        int rc = wait_more(c, w);
        if (rc != 0)
            return rc;
        ssize_t got = c->takes_fd ? receive_with_fd(c, ptr, len) : recv(c->fd, ptr, len, 0);
        if (got > 0) {
            *ret = (size_t)got;
            return 0;
        }
        if (got == 0)
            return broken(c, ERR_UNREACHABLE);
        if (errno == EAGAIN)
            return ERR_TIMEOUT;
        if (errno != EINTR)
            return broken(c, ERR_UNREACHABLE);
    }
}

static int receive_exact(struct rpc_client *c, uint8_t *ptr, size_t len, struct wait *w)
{
    while (len > 0) {
        size_t got;
        int rc = receive_some(c, ptr, len, w, &got);
        if (rc != 0)
            return broken(c, rc);
        ptr += got;
        len -= got;
    }
    return 0;
}

static int send_all(struct rpc_client *c, struct iovec *iov, size_t count, uint32_t timeout_ms)
{
    timeout_set(c->fd, SO_SNDTIMEO, &c->send_ms, timeout_ms);
    while (count > 0) {
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
        ssize_t sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return broken(c, errno == EAGAIN ? ERR_TIMEOUT : ERR_UNREACHABLE);
        size_t left = (size_t)sent;
        while (count > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

/* The kernel only reads through an iovec that is sent. */
static struct iovec iov_of(struct slice s)
{
    struct iovec iov = {.iov_len = s.len};
    memcpy(&iov.iov_base, &s.ptr, sizeof s.ptr);
    return iov;
}

/* --- frames --- */

static int frame_send(struct rpc_client *c, const struct rpc_frame *f, uint32_t timeout_ms)
{
    if (c->broken)
        return ERR_UNREACHABLE;
    if (!rpc_frame_fits(f->body.len, f->bulk.len))
        return ERR_TOO_BIG;
    if (c->seal.on) {
        buf_clear(&c->out);
        rpc_unit_append(&c->seal, f, &c->scratch, &c->out);
        struct iovec iov = iov_of(buf_slice(&c->out));
        return send_all(c, &iov, 1, timeout_ms);
    }
    uint8_t header[RPC_HEADER_BYTES];
    rpc_header_encode(f, header);
    struct iovec iov[] = {iov_of(slice_of(header, sizeof header)), iov_of(f->body),
                          iov_of(f->bulk)};
    return send_all(c, iov, ARRAY_COUNT(iov), timeout_ms);
}

/* A whole unit of `bytes`: what is in rx, and the rest from the socket, into `to`. */
static int unit_gather(struct rpc_client *c, size_t bytes, struct buf *to, struct wait *w)
{
    size_t have = MIN(bytes, c->rx_len - c->rx_at);
    buf_clear(to);
    buf_reserve(to, bytes);
    buf_append(to, c->rx + c->rx_at, have);
    c->rx_at += have;
    int rc = receive_exact(c, to->ptr + have, bytes - have, w);
    if (rc == 0)
        to->len = bytes;
    return rc;
}

/* The next frame; its slices point into reply->storage. */
static int frame_receive(struct rpc_client *c, struct wait *w, struct rpc_reply *reply)
{
    timeout_set(c->fd, SO_RCVTIMEO, &c->receive_ms, w->timeout_ms);
    size_t bytes;
    for (;;) {
        int rc = rpc_unit_bytes(&c->seal, c->rx + c->rx_at, c->rx_len - c->rx_at, &bytes);
        if (rc != 0)
            return broken(c, ERR_PEER);
        if (bytes > RX_BYTES || (bytes > 0 && bytes <= c->rx_len - c->rx_at))
            break;
        memmove(c->rx, c->rx + c->rx_at, c->rx_len - c->rx_at);
        c->rx_len -= c->rx_at;
        c->rx_at = 0;
        size_t got;
        rc = receive_some(c, c->rx + c->rx_len, RX_BYTES - c->rx_len, w, &got);
        if (rc != 0)
            return rc;
        c->rx_len += got;
    }
    const uint8_t *at = c->rx + c->rx_at;
    if (!c->seal.on || bytes > RX_BYTES) {
        struct buf *to = c->seal.on ? &c->big : &reply->storage;
        int rc = unit_gather(c, bytes, to, w);
        if (rc != 0)
            return rc;
        at = to->ptr;
    } else {
        c->rx_at += bytes;
    }
    int rc = rpc_unit_open(&c->seal, at, bytes, &reply->storage, &reply->frame);
    return rc == 0 ? 0 : broken(c, ERR_PEER);
}

/* --- pushes that arrive while a call waits --- */

static int push_keep(struct rpc_client *c, struct rpc_reply *reply)
{
    if (c->push_count == PUSHES_MAX)
        return broken(c, ERR_PEER);
    struct push *p = mem_calloc(1, sizeof *p);
    buf_move(&p->unit, &reply->storage);
    *c->push_last = p;
    c->push_last = &p->next;
    c->push_count++;
    return 0;
}

static bool push_take(struct rpc_client *c, struct rpc_reply *reply)
{
    struct push *p = c->push_first;
    if (p == NULL)
        return false;
    c->push_first = p->next;
    if (c->push_first == NULL)
        c->push_last = &c->push_first;
    c->push_count--;
    buf_move(&reply->storage, &p->unit);
    mem_free(p);
    struct rpc_seal clear = {.on = false};
    int rc = rpc_unit_open(&clear, reply->storage.ptr, reply->storage.len, NULL, &reply->frame);
    ASSERT(rc == 0); /* it was opened before it was kept */
    return true;
}

/* --- calls --- */

int rpc_client_call(struct rpc_client *c,
                    uint16_t type,
                    uint64_t id,
                    uint64_t hlc,
                    struct slice body,
                    struct slice bulk,
                    uint32_t timeout_ms,
                    struct rpc_reply *reply)
{
    const struct rpc_frame f = {.type = type, .id = id, .hlc = hlc, .body = body, .bulk = bulk};
    struct wait w = {.timeout_ms = timeout_ms};
    int rc = frame_send(c, &f, timeout_ms);
    while (rc == 0) {
        rc = frame_receive(c, &w, reply);
        if (rc != 0)
            return broken(c, rc); /* a late reply must not be taken for the next one */
        bool is_reply = (reply->frame.flags & RPC_FLAG_REPLY) != 0;
        if (is_reply && reply->frame.id == id)
            return reply->frame.type == type ? 0 : broken(c, ERR_PEER);
        if (is_reply)
            continue; /* to a request nobody waits for */
        if ((reply->frame.flags & RPC_FLAG_PUSH) == 0)
            return broken(c, ERR_PEER);
        rc = push_keep(c, reply);
    }
    return rc;
}

static int share_map(int fd, uint8_t **ret, size_t *ret_len)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size <= 0)
        return ERR_PEER;
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return err_from_errno(errno);
    *ret = at;
    *ret_len = (size_t)st.st_size;
    return 0;
}

int rpc_client_share(struct rpc_client *c,
                     uint16_t type,
                     uint64_t id,
                     struct slice body,
                     struct rpc_reply *reply,
                     uint8_t **ret,
                     size_t *ret_len)
{
    c->takes_fd = true;
    c->fd_came = -1;
    int rc = rpc_client_call(c, type, id, 0, body, slice_of(NULL, 0), 0, reply);
    c->takes_fd = false;
    *ret = NULL;
    *ret_len = 0;
    if (rc == 0 && c->fd_came >= 0)
        rc = share_map(c->fd_came, ret, ret_len);
    if (c->fd_came >= 0)
        (void)close(c->fd_came); /* the mapping stays */
    return rc;
}

int rpc_client_recv(struct rpc_client *c, uint32_t timeout_ms, struct rpc_reply *reply)
{
    struct wait w = {.timeout_ms = timeout_ms};
    if (push_take(c, reply))
        return 0;
    if (c->broken)
        return ERR_UNREACHABLE;
    return frame_receive(c, &w, reply);
}

int rpc_client_send(
    struct rpc_client *c, uint16_t type, uint64_t id, uint64_t hlc, struct slice body)
{
    const struct rpc_frame f = {.type = type, .id = id, .hlc = hlc, .body = body};
    return frame_send(c, &f, c->send_ms);
}

int rpc_client_fd(const struct rpc_client *c)
{
    return c->fd;
}

/* --- connecting --- */

/* SO_SNDTIMEO also bounds connect(2). */
static int connect_socket(int fd, const struct sockaddr *addr, socklen_t len, uint32_t timeout_ms)
{
    uint32_t unset_ms = 0;
    timeout_set(fd, SO_SNDTIMEO, &unset_ms, timeout_ms);
    while (connect(fd, addr, len) != 0) {
        if (errno == EISCONN)
            return 0; /* finished while a signal was handled */
        if (errno == EINPROGRESS || errno == EAGAIN)
            return ETIMEDOUT;
        if (errno != EINTR && errno != EALREADY)
            return errno;
    }
    return 0;
}

static int connect_unix(const char *path, uint32_t timeout_ms, int *ret_fd, struct err_detail *d)
{
    struct sockaddr_un addr;
    int dir_fd = -1;
    int rc = rpc_unix_address(path, &addr, &dir_fd);
    if (rc != 0) {
        err_detail_set(d, "cannot connect to %s: %s", path, err_text(rc));
        return rc == ERR_NOT_FOUND ? ERR_UNREACHABLE : rc;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int errnum = fd < 0
                     ? errno
                     : connect_socket(fd, (const struct sockaddr *)&addr, sizeof addr, timeout_ms);
    if (dir_fd >= 0)
        (void)close(dir_fd);
    if (errnum == 0) {
        *ret_fd = fd;
        return 0;
    }
    err_detail_set(d, "cannot connect to %s: %s: is the site being served?", path,
                   strerror(errnum));
    if (fd >= 0)
        (void)close(fd);
    return errnum == EACCES || errnum == EPERM ? ERR_ACCESS : ERR_UNREACHABLE;
}

static int
connect_tcp(const struct rpc_target *t, uint32_t timeout_ms, int *ret_fd, struct err_detail *d)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    (void)snprintf(service, sizeof service, "%u", (unsigned)t->port);
    int gai = getaddrinfo(t->host, service, &hints, &found);
    if (gai != 0) {
        err_detail_set(d, "cannot connect to %s:%u: %s", t->host, (unsigned)t->port,
                       gai_strerror(gai));
        return ERR_UNREACHABLE;
    }
    int fd = -1, errnum = 0;
    for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, at->ai_protocol);
        errnum = fd < 0 ? errno : connect_socket(fd, at->ai_addr, at->ai_addrlen, timeout_ms);
        if (errnum != 0 && fd >= 0) {
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0) {
        err_detail_set(d, "cannot connect to %s:%u: %s: is the site being served?", t->host,
                       (unsigned)t->port, strerror(errnum));
        return ERR_UNREACHABLE;
    }
    rpc_tcp_tune(fd);
    *ret_fd = fd;
    return 0;
}

static int raw_send(struct rpc_client *c, const void *ptr, size_t len, uint32_t timeout_ms)
{
    struct iovec iov = iov_of(slice_of(ptr, len));
    return send_all(c, &iov, 1, timeout_ms);
}

static int
handshake(struct rpc_client *c, const struct rpc_auth *auth, bool is_unix, uint32_t timeout_ms)
{
    struct rpc_handshake h;
    struct rpc_keys keys;
    uint8_t random[RPC_HELLO_RANDOM_BYTES], prove[RPC_PROVE_BYTES];
    uint8_t answer[RPC_HELLO_BYTES + RPC_PROVE_BYTES];
    struct wait w = {.timeout_ms = timeout_ms};
    random_bytes(random, sizeof random);
    rpc_handshake_init(&h, RPC_CLIENT, is_unix || auth->trusted_network, random);
    sodium_memzero(random, sizeof random);
    timeout_set(c->fd, SO_RCVTIMEO, &c->receive_ms, timeout_ms);
    int rc = raw_send(c, h.hello, sizeof h.hello, timeout_ms);
    if (rc == 0)
        rc = receive_exact(c, answer, sizeof answer, &w);
    if (rc == 0)
        rc = rpc_handshake_finish(&h, answer, auth->site_key, &keys);
    if (rc != 0)
        return rc == ERR_MALFORMED ? ERR_PEER : rc;
    /* With the wrong key it is sent too, so that the server can tell why. */
    rpc_seal_start(&c->seal, &keys, prove);
    int checked = rpc_seal_check(&c->seal, &keys, answer + RPC_HELLO_BYTES);
    rc = raw_send(c, prove, sizeof prove, timeout_ms);
    sodium_memzero(&keys, sizeof keys);
    return checked != 0 ? checked : rc;
}

int rpc_client_connect(struct rpc_client **ret,
                       const struct rpc_target *target,
                       const struct rpc_auth *auth,
                       uint32_t timeout_ms,
                       struct err_detail *d)
{
    bool is_unix = target->unix_path != NULL;
    int fd = -1;
    int rc = is_unix ? connect_unix(target->unix_path, timeout_ms, &fd, d)
                     : connect_tcp(target, timeout_ms, &fd, d);
    if (rc != 0)
        return rc;
    struct rpc_client *c = mem_calloc(1, sizeof *c);
    c->fd = fd;
    c->send_ms = timeout_ms;
    c->push_last = &c->push_first;
    rc = handshake(c, auth, is_unix, timeout_ms);
    if (rc != 0) {
        err_detail_set(d, "cannot connect to %s: %s%s", is_unix ? target->unix_path : target->host,
                       err_text(rc), rc == ERR_AUTH ? ": is it the key of this site?" : "");
        rpc_client_close(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void rpc_client_close(struct rpc_client *c)
{
    if (c == NULL)
        return;
    (void)close(c->fd);
    while (c->push_first != NULL) {
        struct push *p = c->push_first;
        c->push_first = p->next;
        buf_deinit(&p->unit);
        mem_free(p);
    }
    buf_deinit(&c->big);
    buf_deinit(&c->scratch);
    buf_deinit(&c->out);
    sodium_memzero(&c->seal, sizeof c->seal);
    mem_free(c);
}
