/* What a connection sends: segments of gathered frames and of bulk that is sent from where it lies.
 * All that was queued within a turn goes out in one send at its end. A few replies are sent by a
 * plain call that does not wait: a completion would only cost the loop a turn that has nothing to
 * do. What does not fit the socket, and bulk, is the ring's. */
#include "site/rpc_server_int.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"

enum {
    SEGMENT_BYTES_MIN = 1024, /* a few replies */
    DIRECT_BYTES = 16384      /* up to here without the ring */
};

static void segment_free(struct tx_segment *seg)
{
    buf_deinit(&seg->storage);
    mem_free(seg);
}

static struct tx_segment *segment_add(struct rpc_conn *c)
{
    struct tx_segment *seg = mem_calloc(1, sizeof *seg);
    *c->tx_last = seg;
    c->tx_last = &seg->next;
    return seg;
}

/* The segment that small frames are gathered in. */
static struct tx_segment *segment_growing(struct rpc_conn *c)
{
    if (c->tx_first != NULL) {
        struct tx_segment *last = CONTAINER_OF(c->tx_last, struct tx_segment, next);
        if (last->growing && last->storage.len < RPC_SEGMENT_BYTES)
            return last;
    }
    struct tx_segment *seg = segment_add(c);
    seg->growing = true;
    buf_reserve(&seg->storage, SEGMENT_BYTES_MIN);
    return seg;
}

/* What was just appended to a growing segment becomes part of what is to be sent. */
static void segment_grown(struct rpc_conn *c, struct tx_segment *seg)
{
    c->tx_bytes += seg->storage.len - seg->left.len;
    seg->left = buf_slice(&seg->storage);
}

/* --- sending --- */

static void tx_gather(struct rpc_conn *c)
{
    size_t count = 0;
    for (struct tx_segment *seg = c->tx_first; seg != NULL && count < RPC_IOV_MAX;
         seg = seg->next) {
        seg->growing = false;
        /* The kernel only reads through it. */
        void *base = seg->storage.ptr + (seg->left.ptr - seg->storage.ptr);
        c->tx_iov[count++] = (struct iovec){.iov_base = base, .iov_len = seg->left.len};
    }
    c->tx_msg = (struct msghdr){.msg_iov = c->tx_iov, .msg_iovlen = count};
}

static void tx_send(struct rpc_conn *c)
{
    if (c->tx_armed || c->tx_first == NULL)
        return;
    tx_gather(c);
    struct io_uring_sqe *sqe = loop_sqe(c->server->loop);
    io_uring_prep_sendmsg(sqe, c->fd, &c->tx_msg, MSG_NOSIGNAL | MSG_WAITALL);
    loop_sqe_bind(sqe, &c->tx_req);
    c->tx_armed = true;
}

static void tx_sent(struct rpc_conn *c, size_t len)
{
    metric_add(&rpc_metrics[RPC_METRIC_BYTES_OUT], (int64_t)len);
    ASSERT(len <= c->tx_bytes);
    c->tx_bytes -= len;
    while (len > 0) {
        struct tx_segment *seg = c->tx_first;
        size_t part = MIN(len, seg->left.len);
        seg->left = slice_of(seg->left.ptr + part, seg->left.len - part);
        len -= part;
        if (seg->left.len > 0)
            return;
        c->tx_first = seg->next;
        if (c->tx_first == NULL)
            c->tx_last = &c->tx_first;
        segment_free(seg);
    }
}

/* After some of it was sent. */
static void tx_go_on(struct rpc_conn *c)
{
    if (c->state == CONN_DRAIN && c->tx_first == NULL) {
        rpc_conn_kill(c, 0, "closed here");
        return;
    }
    tx_send(c);
    rpc_conn_resume_check(c);
}

static void tx_done(struct loop_req *req, int res, uint32_t cqe_flags)
{
    struct rpc_conn *c = CONTAINER_OF(req, struct rpc_conn, tx_req);
    (void)cqe_flags;
    c->tx_armed = false;
    if (c->state >= CONN_DYING) {
        rpc_conn_finish_check(c);
        return;
    }
    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        rpc_conn_kill(c, res == -EPIPE || res == -ECONNRESET ? ERR_CLOSED : err_from_errno(-res),
                      strerror(-res));
        return;
    }
    if (res > 0)
        tx_sent(c, (size_t)res);
    tx_go_on(c);
}

static void tx_flush(struct loop_defer *d)
{
    struct rpc_conn *c = CONTAINER_OF(d, struct rpc_conn, flush);
    if (c->state >= CONN_DYING || c->tx_armed || c->tx_first == NULL)
        return;
    if (c->tx_bytes <= DIRECT_BYTES) {
        tx_gather(c);
        ssize_t sent = sendmsg(c->fd, &c->tx_msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            tx_sent(c, (size_t)sent); /* a failure is for the ring to meet and to report */
    }
    tx_go_on(c);
}

void rpc_tx_init(struct rpc_conn *c)
{
    c->tx_req.done = tx_done;
    c->flush.run = tx_flush;
    c->tx_last = &c->tx_first;
}

void rpc_tx_deinit(struct rpc_conn *c)
{
    ASSERT(!c->tx_armed);
    while (c->tx_first != NULL) {
        struct tx_segment *seg = c->tx_first;
        c->tx_first = seg->next;
        segment_free(seg);
    }
    c->tx_last = &c->tx_first;
    c->tx_bytes = 0;
}

void rpc_tx_raw(struct rpc_conn *c, const void *ptr, size_t len)
{
    struct tx_segment *seg = segment_growing(c);
    buf_append(&seg->storage, ptr, len);
    segment_grown(c, seg);
    loop_defer(c->server->loop, &c->flush);
}

/* --- frames --- */

/* Bulk behind the header, without a copy when its memory comes along. */
static void tx_bulk(struct rpc_conn *c, struct slice bulk, struct buf *storage)
{
    struct tx_segment *seg = segment_add(c);
    if (storage != NULL) {
        ASSERT(bulk.ptr >= storage->ptr && bulk.ptr + bulk.len <= storage->ptr + storage->len);
        buf_move(&seg->storage, storage);
        seg->left = bulk;
    } else {
        buf_append(&seg->storage, bulk.ptr, bulk.len);
        seg->left = buf_slice(&seg->storage);
    }
    c->tx_bytes += bulk.len;
}

static void tx_frame(struct rpc_conn *c, struct rpc_frame *f, struct buf *storage)
{
    struct rpc_server *s = c->server;
    f->hlc = s->events.hlc(s->events.ctx);
    struct tx_segment *seg = segment_growing(c);
    if (!c->seal.on && f->bulk.len >= RPC_BULK_OWN_BYTES) {
        uint8_t header[RPC_HEADER_BYTES];
        rpc_header_encode(f, header);
        buf_append(&seg->storage, header, sizeof header);
        buf_append(&seg->storage, f->body.ptr, f->body.len);
        segment_grown(c, seg);
        tx_bulk(c, f->bulk, storage);
    } else {
        rpc_unit_append(&c->seal, f, &s->scratch, &seg->storage);
        segment_grown(c, seg);
        if (s->scratch.cap > RPC_SEGMENT_BYTES)
            rpc_spare_give(s, &s->scratch);
    }
    loop_defer(s->loop, &c->flush);
}

/* A heavy request is answered: its bytes count no longer. */
static void heavy_replied(struct rpc_conn *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->heavy_count; i++) {
        if (c->heavy_ids[i] == id) {
            c->heavy_ids[i] = c->heavy_ids[--c->heavy_count];
            rpc_conn_resume_check(c);
            return;
        }
    }
}

int rpc_reply_move(struct rpc_conn *c,
                   uint16_t type,
                   uint64_t id,
                   struct slice body,
                   struct buf *storage,
                   struct slice bulk)
{
    int rc = 0;
    struct rpc_frame f = {
        .type = type, .flags = RPC_FLAG_REPLY, .id = id, .body = body, .bulk = bulk};
    if (c->state != CONN_OPEN) {
        rc = ERR_CLOSED;
    } else if (!rpc_frame_fits(body.len, bulk.len)) {
        rc = ERR_TOO_BIG;
    } else {
        heavy_replied(c, id);
        tx_frame(c, &f, storage);
    }
    if (storage != NULL)
        buf_deinit(storage);
    return rc;
}

int rpc_reply(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body, struct slice bulk)
{
    return rpc_reply_move(c, type, id, body, NULL, bulk);
}

int rpc_push(struct rpc_conn *c, uint16_t type, uint64_t id, struct slice body)
{
    struct rpc_frame f = {.type = type, .flags = RPC_FLAG_PUSH, .id = id, .body = body};
    if (c->state != CONN_OPEN)
        return ERR_CLOSED;
    if (!rpc_frame_fits(body.len, 0))
        return ERR_TOO_BIG;
    if (c->tx_bytes >= RPC_TX_PUSH_BYTES) {
        rpc_conn_kill(c, ERR_LIMIT, "it does not read what is pushed to it");
        return ERR_CLOSED;
    }
    tx_frame(c, &f, NULL);
    return 0;
}
