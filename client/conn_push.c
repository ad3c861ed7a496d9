/* The push connection: joining the session, what the site pushes, and putting things right after a
 * reconnect. */
#include <sys/socket.h>

#include "base/codec.h"
#include "base/log.h"
#include "client/conn_int.h"

#define BACKOFF_MAX_MS 1000u
#define BACKOFF_HERE_MAX_MS 100u /* on this machine it costs next to nothing to try */

int conn_push_connect(struct conn *c, bool *ret_new, struct err_detail *d)
{
    struct rpc_client *client = NULL;
    struct conn_call call;
    int rc = rpc_client_connect(&client, &c->target, &c->auth, CONN_TIMEOUT_MS, d);
    if (rc != 0)
        return rc;
    conn_call_init(&call, RPC_HELLO);
    if (c->name != NULL)
        call.req.name = slice_str(c->name);
    rc = conn_hello(client, c->session, HELLO_PUSH | HELLO_FLUSHES, &call);
    *ret_new = c->session == 0;
    if (rc == ERR_STALE && call.reply.rc == 0) {
        *ret_new = true; /* it opened a new one by itself */
        rc = 0;
    } else if (rc != 0 && c->session != 0 && err_class(rc) == ERR_CLASS_USER) {
        *ret_new = true;
        rc = conn_hello(client, 0, HELLO_PUSH | HELLO_FLUSHES, &call);
    }
    if (rc == 0 && call.reply_bulk.len != sizeof c->fs_key)
        rc = ERR_PEER;
    if (rc == 0) {
        memcpy(c->fs_key, call.reply_bulk.ptr, sizeof c->fs_key);
        size_t len = MIN(call.reply.name.len, sizeof c->site_name - 1);
        if (len > 0)
            memcpy(c->site_name, call.reply.name.ptr, len);
        c->site_name[len] = '\0';
        pthread_mutex_lock(&c->lock);
        pthread_mutex_lock(&c->ack_lock); /* conn_ack reads both under this one alone */
        c->session = call.reply.session;
        c->push = client;
        pthread_mutex_unlock(&c->ack_lock);
        c->site_flags = call.reply.flags;
        c->incarnation++;
        c->new_session = *ret_new;
        if (c->state != CONN_STOPPED)
            c->state = CONN_RECOVER;
        pthread_cond_broadcast(&c->moved);
        pthread_mutex_unlock(&c->lock);
        client = NULL;
    } else {
        err_detail_set(d, "the site refused the session: %s", err_text(rc));
    }
    conn_call_deinit(&call);
    rpc_client_close(client);
    return rc;
}

void conn_state_up(struct conn *c, uint64_t incarnation)
{
    pthread_mutex_lock(&c->lock);
    if (c->state == CONN_RECOVER && c->incarnation == incarnation) {
        c->state = CONN_UP;
        pthread_cond_broadcast(&c->moved);
    }
    pthread_mutex_unlock(&c->lock);
}

static void durable_pushed(struct conn *c, struct slice numbers)
{
    struct dec d = dec_of(numbers);
    while (d.rc == 0 && dec_left(&d) >= 8)
        conn_ahead_durable(&c->ahead, dec_u64(&d));
}

/* Sends one of the kept changes again: what the node says to it, or ERR_CLOSED: no answer, or this
 * is not the node any more that those before it were sent to. */
static int ahead_send(struct conn *c,
                      uint64_t incarnation,
                      const struct ahead_entry *e,
                      struct rpc_reply *frame,
                      struct op_arena *arena,
                      struct fs_reply *ret)
{
    struct conn_thread *t = conn_thread_self();
    if (conn_thread_connect(c, t) != 0 || t->incarnation != incarnation)
        return ERR_CLOSED; /* the next reconnect begins again */
    int rc = rpc_client_call(t->client, e->type, t->next_id++, 0, buf_slice(&e->body),
                             slice_of(NULL, 0), 0, frame);
    if (rc != 0) {
        conn_thread_broken(c, t);
        return ERR_CLOSED;
    }
    rc = fs_reply_decode(frame->frame.body, arena, ret);
    rc = rc == 0 ? ret->rc : rc;
    if (rc != ERR_AUTH)
        return rc;
    conn_thread_broken(c, t); /* the session is over: nothing was carried out */
    return ERR_CLOSED;
}

/* What was answered ahead is sent again, in order. What the site has gets its first answer. */
static void ahead_again(struct conn *c, uint64_t incarnation)
{
    struct rpc_reply frame = {0};
    struct op_arena arena = {0};
    struct ahead_entry e = {0};
    uint64_t done = 0;
    unsigned count = 0;
    while (!conn_stopped(c) && conn_ahead_next(&c->ahead, done, &e)) {
        struct fs_reply r = {0};
        op_arena_reset(&arena);
        int rc = ahead_send(c, incarnation, &e, &frame, &arena, &r);
        if (rc == ERR_CLOSED)
            break;
        enum ahead_again became = conn_ahead_sent_again(&c->ahead, &e, rc, &r);
        if (became == AHEAD_WAITS) {
            conn_pause(c);
            continue;
        }
        done = e.id;
        count += became == AHEAD_MADE;
        if (became == AHEAD_LOST)
            c->events.lost(c->events.ctx, e.type, e.oid, rc);
        else if (e.type == RPC_CREATE)
            c->events.made_again(c->events.ctx, e.oid);
    }
    if (count > 0)
        log_info(LOG_CLIENT, "changes_made_again", "count=%u", count);
    buf_deinit(&e.body);
    buf_deinit(&frame.storage);
    op_arena_deinit(&arena);
}

static void push_receive(struct conn *c)
{
    struct rpc_reply frame = {0};
    struct op_arena arena = {0};
    for (;;) {
        struct fs_reply push;
        int rc = rpc_client_recv(c->push, 0, &frame);
        if (rc != 0)
            break;
        if ((frame.frame.flags & RPC_FLAG_PUSH) == 0)
            continue;
        op_arena_reset(&arena);
        rc = fs_reply_decode(frame.frame.body, &arena, &push);
        if (rc != 0) {
            log_error(LOG_CLIENT, "push_malformed", "type=%u rc=%s", frame.frame.type,
                      err_name(rc));
            break;
        }
        if (frame.frame.type == PUSH_DURABLE)
            durable_pushed(c, push.data);
        else
            c->events.push(c->events.ctx, frame.frame.type, frame.frame.id, &push);
    }
    buf_deinit(&frame.storage);
    op_arena_deinit(&arena);
}

static void push_close(struct conn *c)
{
    pthread_mutex_lock(&c->lock);
    pthread_mutex_lock(&c->ack_lock);
    struct rpc_client *gone = c->push;
    c->push = NULL;
    pthread_mutex_unlock(&c->ack_lock);
    if (c->state != CONN_STOPPED)
        c->state = CONN_DOWN;
    pthread_mutex_unlock(&c->lock);
    rpc_client_close(gone);
}

void *conn_push_main(void *arg)
{
    struct conn *c = arg;
    while (!conn_stopped(c)) {
        push_receive(c);
        push_close(c);
        uint64_t backoff_ms = CONN_BACKOFF_MIN_MS;
        bool new_session = false;
        if (!conn_stopped(c))
            log_warn(LOG_CLIENT, "site_away", "site=%s", c->site_name);
        while (!conn_stopped(c)) {
            struct err_detail d;
            int rc = conn_push_connect(c, &new_session, &d);
            if (rc == 0) {
                log_info(LOG_CLIENT, "site_back", "site=%s new_session=%d", c->site_name,
                         new_session);
                break;
            }
            log_debug(LOG_CLIENT, "reconnect_failed", "rc=%s why=\"%s\"", err_name(rc), d.text);
            pthread_mutex_lock(&c->lock);
            if (c->state != CONN_STOPPED)
                conn_wait_slice(c, backoff_ms * NS_PER_MS);
            pthread_mutex_unlock(&c->lock);
            backoff_ms =
                MIN(backoff_ms * 2, c->unix_path != NULL ? BACKOFF_HERE_MAX_MS : BACKOFF_MAX_MS);
        }
    }
    push_close(c);
    return NULL;
}

/* After each reconnect, until calls go on. Not by the push thread: the site may need this mount's
 * word for what another one makes again, while that one's is needed for ours. */
void *conn_recover_main(void *arg)
{
    struct conn *c = arg;
    uint64_t recovered = 0; /* the last incarnation that was begun with */
    conn_thread_self()->recovering = true;
    pthread_mutex_lock(&c->lock);
    while (c->state != CONN_STOPPED) {
        if (c->state != CONN_RECOVER || c->incarnation == recovered) {
            pthread_cond_wait(&c->moved, &c->lock);
            continue;
        }
        uint64_t incarnation = recovered = c->incarnation;
        bool new_session = c->new_session;
        pthread_mutex_unlock(&c->lock);
        c->events.recover(c->events.ctx, new_session);
        ahead_again(c, incarnation);
        conn_state_up(c, incarnation);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

void conn_ack(struct conn *c, uint64_t id)
{
    struct conn_call call;
    conn_call_init(&call, RPC_INVAL_ACK);
    pthread_mutex_lock(&c->ack_lock);
    if (c->push != NULL) {
        call.req.session = c->session;
        call.req.number2 = id;
        buf_clear(&call.scratch->body);
        fs_request_encode(&call.req, &call.scratch->body);
        int rc = rpc_client_send(c->push, RPC_INVAL_ACK, id, 0, buf_slice(&call.scratch->body));
        if (rc != 0) /* the site will send it again */
            log_debug(LOG_CLIENT, "ack_not_sent", "rc=%s", err_name(rc));
    }
    pthread_mutex_unlock(&c->ack_lock);
    conn_call_deinit(&call);
}
