/* Advisory locks at the node: requests to the table, grants to the mounts that wait. */
#include "base/log.h"
#include "site/node_int.h"

static void on_granted(void *ctx, uint64_t session, uint64_t number, int rc)
{
    struct node *n = ctx;
    struct fs_reply r = {.number2 = number, .rc = rc};
    struct rpc_conn *push = node_push_conn(n, session);
    struct buf body = {0};
    if (push == NULL)
        return; /* the mount asks again when it is back: the request stays the same one */
    fs_reply_encode(&r, &body);
    (void)rpc_push(push, PUSH_LOCK_GRANTED, number, buf_slice(&body)); /* closed: asks again */
    buf_deinit(&body);
}

void node_locks_init(struct node *n)
{
    struct lock_events ev = {.granted = on_granted, .ctx = n};
    n->locks = lock_table_new(&ev);
    lock_grace_begin(n->locks);
    n->lock_grace = true;
}

static void request_of(const struct call *c, struct lock_request *ret)
{
    *ret = (struct lock_request){.oid = c->req.oid,
                                 .session = c->req.session,
                                 .number = c->req.number,
                                 .lock = c->req.lock,
                                 .flock = (c->req.flags & LOCK_FLOCK) != 0,
                                 .wait = (c->req.flags & LOCK_WAIT) != 0,
                                 .reclaim = (c->req.flags & LOCK_RECLAIM) != 0};
}

int call_lock(struct call *c)
{
    struct lock_request r;
    request_of(c, &r);
    int rc = lock_set(c->n->locks, &r);
    if (rc == LOCK_QUEUED) {
        c->reply.flags |= REPLY_QUEUED;
        return 0;
    }
    return rc;
}

int call_lock_test(struct call *c)
{
    struct lock_request r;
    request_of(c, &r);
    lock_test(c->n->locks, &r, &c->reply.lock);
    c->reply.has_lock = true;
    return 0;
}

int call_lock_cancel(struct call *c)
{
    int rc = lock_cancel(c->n->locks, c->req.session, c->req.number2);
    return rc;
}
