/* Memory that a connection and its client on the same machine have in common, so that large chunks
 * need not go through the socket.
 *
 * The node makes it and fixes its length before the client gets to see it, so that nobody can cut
 * it short under somebody who uses it. It lives as long as the connection's memory: requests that
 * are still being worked on keep it after the client is gone. */
#include "site/rpc_server_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"

int rpc_share_make(struct rpc_conn *c, size_t bytes)
{
    struct rpc_server *s = c->server;
    if (c->state != CONN_OPEN || !c->is_unix || c->seal.on || c->share != NULL)
        return ERR_NOT_SUPPORTED;
    if (s->share_count >= RPC_SHARES_MAX)
        return ERR_LIMIT;
    int fd = memfd_create("claudefs-share", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_from_errno(errno);
    void *at = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        int rc = err_from_errno(errno);
        (void)close(fd); /* nothing was written */
        return rc;
    }
    c->share = at;
    c->share_len = bytes;
    c->share_fd = fd;
    s->share_count++;
    return 0;
}

uint8_t *rpc_share(const struct rpc_conn *c, size_t *ret_len)
{
    *ret_len = c->share_len;
    return c->share;
}

static void fd_close(struct rpc_conn *c)
{
    if (c->share_fd >= 0)
        (void)close(c->share_fd); /* the mapping stays */
    c->share_fd = -1;
}

void rpc_share_closed(struct rpc_conn *c)
{
    fd_close(c);
    if (c->share != NULL)
        c->server->share_count--;
}

void rpc_share_free(struct rpc_conn *c)
{
    if (c->share != NULL)
        (void)munmap(c->share, c->share_len); /* fails only for what is not mapped */
    c->share = NULL;
}

/* Straight to the socket: the client asks one thing at a time, so nothing is before it, and so
 * little always fits. */
void rpc_share_reply(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body)
{
    if (c->state != CONN_OPEN)
        return;
    ASSERT(c->share_fd >= 0 && !c->seal.on);
    struct rpc_server *s = c->server;
    struct rpc_frame f = {.type = type,
                          .flags = RPC_FLAG_REPLY,
                          .id = id,
                          .hlc = s->events.hlc(s->events.ctx),
                          .body = body};
    struct buf out = {0};
    rpc_unit_append(&c->seal, &f, &s->scratch, &out);
    struct iovec iov = {.iov_base = out.ptr, .iov_len = out.len};
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &c->share_fd, sizeof(int));
    ssize_t sent = c->tx_first != NULL ? 0 : sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    fd_close(c);
    if (sent == (ssize_t)out.len)
        metric_add(&rpc_metrics[RPC_METRIC_BYTES_OUT], (int64_t)sent);
    else
        rpc_conn_kill(c, ERR_PEER, "it asks for memory and does not wait for the answer");
    buf_deinit(&out);
}
