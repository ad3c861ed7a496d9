/* Requests: from the frame of a mount to the reply, see call.h.
 *
 * Normal path: on_request decodes, call_run evaluates; when nothing holds the reply any more it is
 * encoded and sent. Failure paths: what cannot be decoded closes the connection (the peer does not
 * speak our language); a connection that goes away does not stop what was proposed, only the reply
 * is dropped, and the client asks again with the same number. */
#include <string.h>

#include <utlist.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/node_int.h"

/* Answered ahead of the disk, if asked for: changes, and questions about what was changed so. */
static bool changes_ahead(uint16_t type)
{
    return type == RPC_CREATE || type == RPC_SETATTR || type == RPC_COMMIT || type == RPC_UNLINK ||
           type == RPC_RENAME;
}

static bool may_ask_ahead(const struct call *c)
{
    if (changes_ahead(c->type))
        return c->req.number != 0;
    return c->type == RPC_GETATTR || c->type == RPC_OPEN || c->type == RPC_CONTENT;
}

static const struct {
    int (*run)(struct call *c);
    bool changes; /* carries a number; answered from the stored result if repeated */
    bool early;   /* allowed before the site has its first snapshot */
} handlers[RPC_TYPE_END] = {
    [RPC_HELLO] = {call_hello, false, true},
    [RPC_LOOKUP] = {call_lookup, false, false},
    [RPC_GETATTR] = {call_getattr, false, false},
    [RPC_RESOLVE_INO] = {call_resolve_ino, false, false},
    [RPC_SETATTR] = {call_setattr, true, false},
    [RPC_CREATE] = {call_create, true, false},
    [RPC_MKDIR] = {call_mkdir, true, false},
    [RPC_LINK] = {call_link, true, false},
    [RPC_UNLINK] = {call_unlink, true, false},
    [RPC_RMDIR] = {call_rmdir, true, false},
    [RPC_RENAME] = {call_rename, true, false},
    [RPC_READDIR] = {call_readdir, false, false},
    [RPC_OPEN] = {call_open, false, false},
    [RPC_CLOSE] = {call_close, false, false},
    [RPC_CONTENT] = {call_content, false, false},
    [RPC_COMMIT] = {call_commit, true, false},
    [RPC_SETXATTR] = {call_setxattr, true, false},
    [RPC_GETXATTR] = {call_getxattr, false, false},
    [RPC_LISTXATTR] = {call_listxattr, false, false},
    [RPC_REMOVEXATTR] = {call_removexattr, true, false},
    [RPC_READLINK] = {call_readlink, false, false},
    [RPC_LOCK] = {call_lock, false, false},
    [RPC_LOCK_TEST] = {call_lock_test, false, false},
    [RPC_LOCK_CANCEL] = {call_lock_cancel, false, false},
    [RPC_STATFS] = {call_statfs, false, false},
    [RPC_SYNC] = {call_sync, false, false},
    [RPC_FORGET] = {call_forget, false, false},
    [RPC_CHUNK_PUT] = {call_chunk_put, false, false},
    [RPC_CHUNK_GET] = {call_chunk_get, false, false},
    [RPC_CHUNK_HAS] = {call_chunk_has, false, false},
    [RPC_INVAL_ACK] = {call_inval_ack, false, true},
    [RPC_PING] = {call_ping, false, true},
    [RPC_ADMIN] = {call_admin, false, true},
    [RPC_RESTORE] = {call_restore, false, false},
    [RPC_SHARE] = {call_share, false, false},
    [RPC_FLUSHED] = {call_flushed, false, false},
};

int call_ping(struct call *c)
{
    (void)c;
    return 0;
}

/* ---- the life of a call ---- */

struct call *node_call_new(struct node *n, uint16_t type)
{
    struct call *c = mem_calloc(1, sizeof *c);
    c->n = n;
    c->type = type;
    op_builder_init(&c->b);
    DL_APPEND2(n->calls, c, prev_open, next_open);
    return c;
}

static void call_free(struct call *c)
{
    ASSERT(c->latch_count == 0);
    DL_DELETE2(c->n->calls, c, prev_open, next_open);
    if (c->conn != NULL)
        rpc_conn_unref(c->conn);
    op_builder_deinit(&c->b);
    op_arena_deinit(&c->arena);
    buf_deinit(&c->frame);
    for (size_t i = 0; i < ARRAY_COUNT(c->keep); i++)
        buf_deinit(&c->keep[i]);
    mem_free(c);
}

static void late_attr(struct call *c)
{
    int rc = attr_get(c->n, c->attr_oid, &c->reply.attr);
    if (rc == 0) {
        c->reply.has_attr = true;
        node_session_interest(c, c->attr_oid);
    }
}

static void reply_send(struct call *c)
{
    struct buf body = {0};
    fs_reply_encode(&c->reply, &body);
    const struct buf *keep = &c->keep[0];
    bool kept = c->reply_bulk.len > 0 && c->reply_bulk.ptr >= keep->ptr &&
                c->reply_bulk.ptr < keep->ptr + keep->len;
    if (c->type == RPC_SHARE && c->reply.rc == 0)
        rpc_share_reply(c->conn, c->type, c->id, buf_slice(&body));
    else if (kept) /* who is gone asks again */
        (void)rpc_reply_move(c->conn, c->type, c->id, buf_slice(&body), &c->keep[0], c->reply_bulk);
    else
        (void)rpc_reply(c->conn, c->type, c->id, buf_slice(&body), c->reply_bulk);
    buf_deinit(&body);
}

void node_call_finish(struct call *c)
{
    if (c->reply.rc == 0 && c->committed_rc != 0)
        c->reply.rc = c->committed_rc;
    if (c->told) {
        if (c->committed_rc == 0 && changes_ahead(c->type))
            node_ahead_done(c->n, c->req.session, c->req.number);
    } else {
        if (c->reply.rc == 0 && !oid_is_none(c->attr_oid))
            late_attr(c);
        if (c->finished != NULL)
            c->finished(c, c->reply.rc);
        else if (c->conn != NULL && rpc_conn_is_open(c->conn) && c->type != RPC_INVAL_ACK)
            reply_send(c);
    }
    call_free(c);
}

void node_call_ahead(struct call *c)
{
    ASSERT(c->conn != NULL && oid_is_none(c->attr_oid));
    c->told = true;
    if (changes_ahead(c->type))
        c->reply.flags |= REPLY_AHEAD;
    if (PLANTED(81) && changes_ahead(c->type))
        node_ahead_done(c->n, c->req.session, c->req.number);
    if (rpc_conn_is_open(c->conn))
        reply_send(c);
}

/* A repeated request is answered from the stored result: with the object's attributes now. */
static bool answer_again(struct call *c)
{
    struct oid oids[3] = {c->req.oid, c->req.oid2, OID_ROOT};
    int32_t stored;
    struct oid oid;
    for (int i = 0; i < 3; i++) {
        if (oid_is_none(oids[i]))
            continue;
        struct shard *s = shard_of(c->n, oids[i]);
        shard_results_acked(s, c->req.session, c->req.acked);
        if (!shard_result(s, c->req.session, c->req.number, &stored, &oid))
            continue;
        c->reply.rc = stored;
        if (stored == 0 && !oid_is_none(oid) && c->type != RPC_UNLINK && c->type != RPC_RMDIR)
            c->attr_oid = oid;
        if (stored == 0 && c->type == RPC_CREATE && oid_kind(oid) == OID_FILE &&
            (c->req.flags & O_CREAT) != 0 && !session_has_open(c->n->sessions, c->req.session, oid))
            node_session_open(c, oid); /* it was, at a node that is gone */
        c->req.ahead = false;          /* what its attributes say may be somebody else's doing */
        call_hold_durable(c, s, log_last(shard_log(s)));
        return true;
    }
    return false;
}

static void call_reset(struct call *c)
{
    op_builder_deinit(&c->b);
    op_builder_init(&c->b);
    memset(&c->reply, 0, sizeof c->reply);
    c->twin_count = 0;
    c->saw_count = 0;
    c->foreign = false;
    c->attr_oid = (struct oid){0};
    ASSERT(c->latch_count == 0);
}

static void call_run(struct call *c)
{
    int rc;
    c->n->evaluations++;
    c->now_ns = node_wall_ns(c->n);
    /* Not its own, and it may be the hello of a mount that acknowledges once it has the answer. */
    node_inval_flush(c->n, NULL);
    call_hold(c); /* so that nothing finishes it under our feet */
    if (handlers[c->type].changes && c->req.number != 0 && !PLANTED(19) &&
        !(PLANTED(39) && c->type == RPC_CREATE) && answer_again(c))
        rc = CALL_DONE;
    else
        rc = handlers[c->type].run(c);
    if (rc == CALL_PARKED || rc == CALL_HELD) {
        c->holds--;
        return;
    }
    if (rc != CALL_DONE) {
        c->reply.rc = rc;
        call_show_error(c);
    }
    c->evaluated = true;
    node_inval_flush(c->n, c);
    call_release(c);
}

static void run_queue(struct loop_defer *d)
{
    struct node *n = CONTAINER_OF(d, struct node, run_defer);
    struct call *list = n->run_head;
    n->run_head = NULL;
    n->run_tail = &n->run_head;
    while (list != NULL) {
        struct call *c = list;
        list = c->next;
        c->next = NULL;
        call_reset(c);
        call_run(c);
    }
}

void node_run_later(struct node *n, struct call *c)
{
    c->next = NULL;
    *n->run_tail = c;
    n->run_tail = &c->next;
    loop_defer(n->loop, &n->run_defer);
}

void node_issue(struct node *n,
                enum rpc_type type,
                const struct fs_request *req,
                void (*finished)(struct call *c, int rc),
                void *user)
{
    struct call *c = node_call_new(n, (uint16_t)type);
    c->req = *req;
    c->req.name = op_dup(&c->arena, req->name);
    c->req.name2 = op_dup(&c->arena, req->name2);
    c->req.data = op_dup(&c->arena, req->data);
    c->req.content.bytes = op_dup(&c->arena, req->content.bytes);
    c->finished = finished;
    c->user = user;
    node_run_later(n, c);
}

/* ---- frames ---- */

static void on_request(void *ctx, struct rpc_conn *conn, const struct rpc_frame *f)
{
    struct node *n = ctx;
    if (f->type == 0 || f->type >= RPC_TYPE_END || handlers[f->type].run == NULL) {
        log_warn(LOG_SITE, "unknown_request", "from=\"%s\" type=%u", rpc_conn_text(conn), f->type);
        rpc_conn_close(conn);
        return;
    }
    if (f->type == RPC_INVAL_ACK) { /* has no answer, and is what comes most where many share */
        node_inval_acked(n, conn, f->body);
        return;
    }
    struct call *c = node_call_new(n, f->type);
    c->conn = conn;
    rpc_conn_ref(conn);
    c->id = f->id;
    struct rpc_frame taken;
    rpc_request_take(conn, f, &c->frame, &taken);
    c->bulk = taken.bulk;
    int rc = fs_request_decode(taken.body, &c->arena, &c->req);
    if (rc == 0 && !node_session_check(c))
        rc = ERR_AUTH;
    if (rc == 0 && n->needs_snapshot && !handlers[f->type].early)
        rc = ERR_AGAIN;
    for (int i = 0; i < 2 && rc == 0; i++) {
        struct oid o = i == 0 ? c->req.oid : c->req.oid2;
        if (!oid_is_none(o) && (!oid_valid(o) || oid_shard(o) >= n->settings.shard_count))
            rc = ERR_INVALID;
    }
    if (rc != 0) {
        c->reply.rc = rc;
        node_call_finish(c);
        return;
    }
    c->req.ahead = c->req.ahead && may_ask_ahead(c);
    c->touched[0] = c->req.oid;
    c->touched[1] = c->req.oid2;
    c->touched_count = 2;
    call_run(c);
}

static uint64_t hlc_out(void *ctx)
{
    struct node *n = ctx;
    return n->hlc.last;
}

static void hlc_in(void *ctx, uint64_t hlc)
{
    struct node *n = ctx;
    /* A clock that is far ahead is not believed (DESIGN section 7). */
    if (hlc_ms(hlc) < clock_wall_ns(n->clock) / NS_PER_MS + 600000u)
        hlc_see(&n->hlc, hlc);
}

void node_rpc_events(struct node *n, struct rpc_server_events *ret)
{
    *ret = (struct rpc_server_events){.opened = node_conn_opened,
                                      .request = on_request,
                                      .closed = node_conn_closed,
                                      .hlc = hlc_out,
                                      .hlc_seen = hlc_in,
                                      .ctx = n};
}

void node_calls_init(struct node *n)
{
    n->run_tail = &n->run_head;
    n->run_defer.run = run_queue;
    node_sessions_init(n);
}

/* The shards are closed: what still waits for anything waits for ever, and its latches are gone. */
void node_calls_deinit(struct node *n)
{
    struct call *c, *next;
    DL_FOREACH_SAFE2(n->calls, c, next, next_open)
    {
        c->latch_count = 0;
        call_free(c);
    }
    n->run_head = n->held_waits = NULL;
    node_sessions_deinit(n);
}

static int resolve_file(struct node *n, uint64_t ino, site_id_t site, struct oid *ret)
{
    struct oid oids[INO_OIDS_MAX];
    unsigned count = ino_file_oids(ino, site, oids);
    for (unsigned i = 0; i < count; i++) {
        struct fs_attr a;
        if (oid_shard(oids[i]) < n->settings.shard_count && attr_get(n, oids[i], &a) == 0) {
            *ret = oids[i];
            return 0;
        }
    }
    return ERR_STALE;
}

int node_resolve_ino(struct node *n, uint64_t ino, struct oid *ret)
{
    struct oid first, last;
    if (ino_dir_range(ino, &first, &last)) {
        if (oid_shard(first) >= n->settings.shard_count)
            return ERR_STALE;
        int rc = merge_find_dir(merge_of(n, first), first, last, ret);
        return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
    }
    int rc = resolve_file(n, ino, n->settings.site, ret);
    for (uint32_t i = 0; i < n->member_count && rc != 0; i++)
        rc = resolve_file(n, ino, n->members[i].m.site, ret);
    return rc;
}
