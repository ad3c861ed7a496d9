#include "client/conn_share.h"

#include <sys/mman.h>

void conn_share_drop(struct conn_share *s)
{
    if (s->ptr != NULL)
        (void)munmap(s->ptr, s->len); /* fails only for what is not mapped */
    *s = (struct conn_share){.ptr = NULL};
}

int conn_share_ask(struct conn_share *s, struct rpc_client *client, uint64_t session, uint64_t id)
{
    struct buf body = {0};
    struct rpc_reply reply = {.storage = {0}};
    const struct fs_request req = {.session = session};
    conn_share_drop(s);
    fs_request_encode(&req, &body);
    int rc = rpc_client_share(client, RPC_SHARE, id, buf_slice(&body), &reply, &s->ptr, &s->len);
    buf_deinit(&body);
    buf_deinit(&reply.storage);
    return rc;
}

void conn_share_request(const struct conn_share *s, struct conn_call *call, struct slice *bulk)
{
    bool there = s != NULL && s->ptr != NULL;
    bool put =
        there && call->type == RPC_CHUNK_PUT && bulk->ptr >= s->ptr && bulk->ptr < s->ptr + s->len;
    if (call->type != RPC_CHUNK_PUT && !call->into_share)
        return;
    /* It may be sent again on another connection. */
    call->req.flags &= ~CHUNK_SHARED;
    if (put) {
        call->req.size = (uint64_t)(bulk->ptr - s->ptr);
        call->req.count = (uint32_t)bulk->len;
        *bulk = slice_of(NULL, 0);
    }
    if (put || (there && call->into_share))
        call->req.flags |= CHUNK_SHARED;
}

int conn_share_reply(const struct conn_share *s, struct conn_call *call)
{
    uint64_t at = call->reply.number2 >> 32, len = call->reply.number2 & UINT32_MAX;
    if (!call->into_share || (call->reply.flags & REPLY_SHARED) == 0)
        return 0;
    if (at > s->len || len > s->len - at)
        return ERR_PEER;
    call->reply_bulk = slice_of(s->ptr + at, (size_t)len);
    return 0;
}
