#include "client/conn_int.h"

#include <poll.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/cond.h"
#include "base/log.h"

#define WAIT_SLICE_NS (50u * NS_PER_MS)
#define SCRATCH_KEPT 4u

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

static void scratch_free(struct conn_scratch *s)
{
    op_arena_deinit(&s->arena);
    buf_deinit(&s->body);
    buf_deinit(&s->reply.storage);
    mem_free(s);
}

static void thread_gone(void *arg)
{
    struct conn_thread *t = arg;
    rpc_client_close(t->client);
    conn_share_drop(&t->share);
    while (t->scratch != NULL) {
        struct conn_scratch *s = t->scratch;
        t->scratch = s->next;
        scratch_free(s);
    }
    mem_free(t);
}

static void thread_key_make(void)
{
    int rc = pthread_key_create(&thread_key, thread_gone);
    ASSERT_EQ(rc, 0);
}

struct conn_thread *conn_thread_self(void)
{
    pthread_once(&thread_once, thread_key_make);
    struct conn_thread *t = pthread_getspecific(thread_key);
    if (t == NULL) {
        t = mem_calloc(1, sizeof *t);
        int rc = pthread_setspecific(thread_key, t);
        ASSERT_EQ(rc, 0);
    }
    return t;
}

void conn_thread_interrupt(bool (*interrupted)(void *arg), void *arg)
{
    struct conn_thread *t = conn_thread_self();
    t->interrupted = interrupted;
    t->interrupted_arg = arg;
}

/* ---- calls ---- */

void conn_call_init(struct conn_call *call, uint16_t type)
{
    *call = (struct conn_call){.type = type};
    struct conn_thread *t = conn_thread_self();
    if (t->scratch != NULL) {
        call->scratch = t->scratch;
        t->scratch = call->scratch->next;
        t->scratch_count--;
    } else {
        call->scratch = mem_calloc(1, sizeof *call->scratch);
    }
}

void conn_call_deinit(struct conn_call *call)
{
    struct conn_scratch *s = call->scratch;
    struct conn_thread *t = conn_thread_self();
    call->scratch = NULL;
    if (s == NULL)
        return;
    if (t->scratch_count == SCRATCH_KEPT) {
        scratch_free(s);
        return;
    }
    op_arena_reset(&s->arena);
    s->next = t->scratch;
    t->scratch = s;
    t->scratch_count++;
}

static bool type_changes(uint16_t type)
{
    switch (type) {
    case RPC_SETATTR:
    case RPC_CREATE:
    case RPC_MKDIR:
    case RPC_LINK:
    case RPC_UNLINK:
    case RPC_RMDIR:
    case RPC_RENAME:
    case RPC_OPEN:
    case RPC_CLOSE:
    case RPC_COMMIT:
    case RPC_SETXATTR:
    case RPC_REMOVEXATTR:
    case RPC_LOCK:
        return true;
    default:
        return false;
    }
}

uint64_t conn_call_number(struct conn *c, struct conn_call *call)
{
    if (!call->numbered)
        conn_seq_begin(&c->seq, &call->number);
    call->numbered = true;
    return call->number.number;
}

enum {
    JOIN_TRIES = 300
};
#define JOIN_PAUSE_NS (200u * NS_PER_MS)

void conn_wait_slice(struct conn *c, uint64_t ns)
{
    (void)cond_wait_ns(&c->moved, &c->lock, ns); /* the caller looks again, whatever woke it */
}

/* Returns when calls of this thread may pass. */
static int wait_up(struct conn *c, const struct conn_thread *t)
{
    int rc = 0;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        if (c->state == CONN_STOPPED) {
            rc = ERR_CLOSED;
            break;
        }
        if (c->state == CONN_UP || (c->state == CONN_RECOVER && t->recovering))
            break;
        if (t->recovering) { /* broken again while recovering: it starts over */
            rc = ERR_UNREACHABLE;
            break;
        }
        if (t->interrupted != NULL && t->interrupted(t->interrupted_arg)) {
            rc = ERR_CANCELLED;
            break;
        }
        conn_wait_slice(c, WAIT_SLICE_NS);
    }
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* Some connection of `incarnation` broke: all start over. */
static void broken(struct conn *c, uint64_t incarnation)
{
    pthread_mutex_lock(&c->lock);
    if (c->incarnation == incarnation && (c->state == CONN_UP || c->state == CONN_RECOVER)) {
        c->state = CONN_DOWN;
        if (c->push != NULL)                                   /* wakes the push thread */
            (void)shutdown(rpc_client_fd(c->push), SHUT_RDWR); /* it may be closed already */
        pthread_cond_broadcast(&c->moved);
    }
    pthread_mutex_unlock(&c->lock);
}

int conn_hello(struct rpc_client *client, uint64_t session, uint32_t flags, struct conn_call *call)
{
    struct conn_scratch *s = call->scratch;
    call->req.session = session;
    call->req.flags = flags;
    buf_clear(&s->body);
    fs_request_encode(&call->req, &s->body);
    int rc = rpc_client_call(client, RPC_HELLO, 1, 0, buf_slice(&s->body), slice_of(NULL, 0),
                             CONN_TIMEOUT_MS, &s->reply);
    if (rc == 0)
        rc = fs_reply_decode(s->reply.frame.body, &s->arena, &call->reply);
    if (rc != 0)
        return rc;
    call->reply_bulk = s->reply.frame.bulk;
    if (call->reply.rc != 0)
        return call->reply.rc;
    return session != 0 && call->reply.session != session ? ERR_STALE : 0;
}

bool conn_stopped(struct conn *c)
{
    pthread_mutex_lock(&c->lock);
    bool yes = c->state == CONN_STOPPED;
    pthread_mutex_unlock(&c->lock);
    return yes;
}

int conn_thread_connect(struct conn *c, struct conn_thread *t)
{
    pthread_mutex_lock(&c->lock);
    uint64_t incarnation = c->incarnation, session = c->session;
    pthread_mutex_unlock(&c->lock);
    if (t->client != NULL && t->conn == c && t->incarnation == incarnation)
        return 0;
    rpc_client_close(t->client);
    t->client = NULL;
    t->conn = c;
    t->incarnation = incarnation;
    struct rpc_client *client = NULL;
    struct conn_call call;
    conn_call_init(&call, RPC_HELLO);
    int rc = rpc_client_connect(&client, &c->target, &c->auth, CONN_TIMEOUT_MS, NULL);
    if (rc == 0)
        rc = conn_hello(client, session, 0, &call);
    conn_call_deinit(&call);
    if (rc != 0) {
        rpc_client_close(client);
        broken(c, incarnation);
        return ERR_AGAIN;
    }
    t->client = client;
    t->next_id = 2;
    t->connects++;
    return 0;
}

void conn_thread_broken(struct conn *c, struct conn_thread *t)
{
    rpc_client_close(t->client);
    t->client = NULL;
    broken(c, t->incarnation);
}

/* ---- memory in common ---- */

static bool site_does(struct conn *c, uint32_t flag)
{
    pthread_mutex_lock(&c->lock);
    bool does = (c->site_flags & flag) != 0;
    pthread_mutex_unlock(&c->lock);
    return does;
}

uint8_t *conn_share(struct conn *c, size_t *ret_len)
{
    struct conn_thread *t = conn_thread_self();
    if (c->answer != NULL || c->unix_path == NULL || !site_does(c, SITE_SHARES) ||
        wait_up(c, t) != 0 || conn_thread_connect(c, t) != 0)
        return NULL;
    if (t->share.connect != t->connects) {
        pthread_mutex_lock(&c->lock);
        uint64_t session = c->session;
        pthread_mutex_unlock(&c->lock);
        if (conn_share_ask(&t->share, t->client, session, t->next_id++) != 0)
            conn_thread_broken(c, t);
        t->share.connect = t->connects; /* asked once, whatever the answer */
    }
    *ret_len = t->share.len;
    return t->share.ptr;
}

/* After a call that may have been answered ahead: is it kept? ERR_AGAIN: the node that answered is
 * not the one we are with now, and whoever joined that has not seen this among the kept ones. */
static int ahead_end(struct conn *c,
                     const struct conn_thread *t,
                     struct ahead_entry *e,
                     const struct fs_reply *told,
                     struct conn_call *call)
{
    uint64_t number = e->id;
    if (!conn_ahead_end(&c->ahead, e, told, &call->number))
        return 0;
    call->numbered = false;
    pthread_mutex_lock(&c->lock);
    bool same = c->incarnation == t->incarnation;
    pthread_mutex_unlock(&c->lock);
    if (same) /* whoever reconnects from now on finds it */
        return 0;
    return conn_ahead_take_back(&c->ahead, number, &call->number, &call->numbered) ? ERR_AGAIN : 0;
}

static int call_once(struct conn *c, struct conn_thread *t, struct conn_call *call)
{
    struct conn_scratch *s = call->scratch;
    if (c->answer != NULL)
        return c->answer(c->answer_ctx, call);
    int rc = conn_thread_connect(c, t);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    call->req.session = c->session;
    pthread_mutex_unlock(&c->lock);
    call->req.number = call->numbered ? call->number.number : 0;
    call->req.acked = conn_seq_acked(&c->seq);
    bool change = call->numbered && call->type != RPC_OPEN;
    call->req.ahead =
        c->may_ahead && !t->recovering && !call->durable && conn_ahead_may(&c->ahead, call->type);
    struct slice bulk = call->bulk;
    conn_share_request(t->share.connect == t->connects ? &t->share : NULL, call, &bulk);
    buf_clear(&s->body);
    op_arena_reset(&s->arena);
    fs_request_encode(&call->req, &s->body);
    struct ahead_entry *e = NULL;
    if (call->req.ahead && change)
        e = conn_ahead_begin(&c->ahead, call->type, call->req.oid, call->number.number,
                             buf_slice(&s->body));
    rc = rpc_client_call(t->client, call->type, t->next_id++, 0, buf_slice(&s->body), bulk, 0,
                         &s->reply);
    if (rc == 0) {
        rc = fs_reply_decode(s->reply.frame.body, &s->arena, &call->reply);
        call->reply_bulk = s->reply.frame.bulk;
        rc = rc == 0 ? call->reply.rc : rc;
        if (rc == 0)
            rc = conn_share_reply(&t->share, call);
        /* The connection has joined, and its session is over: nothing was carried out. */
        bool over = rc == ERR_AUTH;
        bool told = rc == 0 && (call->reply.flags & REPLY_AHEAD) != 0;
        int again = e != NULL ? ahead_end(c, t, e, told ? &call->reply : NULL, call) : 0;
        if (over)
            conn_thread_broken(c, t);
        return again != 0 || over ? ERR_AGAIN : rc;
    }
    if (e != NULL)
        (void)conn_ahead_end(&c->ahead, e, NULL, NULL); /* there was no answer: not kept */
    if (rc == ERR_TOO_BIG)
        return rc;
    conn_thread_broken(c, t);
    return ERR_AGAIN;
}

void conn_pause(struct conn *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->state == CONN_UP || conn_thread_self()->recovering)
        conn_wait_slice(c, CONN_BACKOFF_MIN_MS * NS_PER_MS);
    pthread_mutex_unlock(&c->lock);
}

int conn_call_run(struct conn *c, struct conn_call *call)
{
    struct conn_thread *t = conn_thread_self();
    if (type_changes(call->type))
        (void)conn_call_number(c, call);
    int rc;
    for (;;) {
        rc = c->answer != NULL ? 0 : wait_up(c, t);
        if (rc == 0)
            rc = call_once(c, t, call);
        if (rc != ERR_AGAIN && rc != ERR_NOT_PRIMARY)
            break;
        conn_pause(c);
    }
    if (call->numbered)
        conn_seq_end(&c->seq, &call->number);
    call->numbered = false;
    return rc;
}

void conn_call_tell(struct conn *c, struct conn_call *call)
{
    int rc = conn_call_run(c, call);
    if (rc != 0)
        log_debug(LOG_CLIENT, "call_failed", "type=%u rc=%s", call->type, err_name(rc));
}

/* ---- opening and closing ---- */

static struct conn *conn_new(void)
{
    struct conn *c = mem_calloc(1, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->ack_lock, NULL);
    pthread_cond_init(&c->moved, NULL);
    conn_seq_init(&c->seq);
    conn_ahead_init(&c->ahead, &c->seq);
    return c;
}

int conn_open(struct conn **ret,
              const struct conn_config *config,
              const struct conn_events *events,
              struct err_detail *d)
{
    struct conn *c = conn_new();
    c->auth = config->auth;
    c->clock = config->clock;
    c->events = *events;
    c->may_ahead = config->ahead;
    c->unix_path = config->target.unix_path == NULL ? NULL : mem_strdup(config->target.unix_path);
    c->host = config->target.host == NULL ? NULL : mem_strdup(config->target.host);
    c->name = config->name == NULL ? NULL : mem_strdup(config->name);
    c->target = (struct rpc_target){
        .unix_path = c->unix_path, .host = c->host, .port = config->target.port};
    bool new_session;
    int rc = conn_push_connect(c, &new_session, d);
    /* A site that is joining another one serves nothing until its first snapshot is here. */
    for (unsigned i = 0; rc == ERR_AGAIN && i < JOIN_TRIES; i++) {
        pthread_mutex_lock(&c->lock);
        conn_wait_slice(c, JOIN_PAUSE_NS);
        pthread_mutex_unlock(&c->lock);
        rc = conn_push_connect(c, &new_session, d);
    }
    if (rc != 0) {
        conn_free(c);
        return rc;
    }
    conn_state_up(c, c->incarnation);
    *ret = c;
    return 0;
}

int conn_start(struct conn *c)
{
    int rc = err_from_errno(pthread_create(&c->recover_thread, NULL, conn_recover_main, c));
    c->recover_started = rc == 0;
    if (rc == 0)
        rc = err_from_errno(pthread_create(&c->push_thread, NULL, conn_push_main, c));
    c->push_started = rc == 0;
    return rc;
}

struct conn *conn_open_local(int (*answer)(void *ctx, struct conn_call *call), void *ctx)
{
    struct conn *c = conn_new();
    c->answer = answer;
    c->answer_ctx = ctx;
    c->site_flags = SITE_TAKES_RIDERS | SITE_HOLDS;
    c->may_ahead = true;
    c->state = CONN_UP;
    return c;
}

void conn_stop(struct conn *c)
{
    pthread_mutex_lock(&c->lock);
    c->state = CONN_STOPPED;
    if (c->push != NULL)
        (void)shutdown(rpc_client_fd(c->push), SHUT_RDWR); /* it may be closed already */
    pthread_cond_broadcast(&c->moved);
    pthread_mutex_unlock(&c->lock);
}

void conn_join(struct conn *c)
{
    if (c->push_started)
        pthread_join(c->push_thread, NULL);
    if (c->recover_started)
        pthread_join(c->recover_thread, NULL);
    c->push_started = c->recover_started = false;
}

void conn_free(struct conn *c)
{
    if (c == NULL)
        return;
    conn_stop(c);
    conn_join(c);
    rpc_client_close(c->push);
    struct conn_thread *t = conn_thread_self();
    if (t->conn == c) {
        rpc_client_close(t->client);
        t->client = NULL;
        t->conn = NULL;
    }
    conn_ahead_deinit(&c->ahead);
    conn_seq_deinit(&c->seq);
    pthread_cond_destroy(&c->moved);
    pthread_mutex_destroy(&c->ack_lock);
    pthread_mutex_destroy(&c->lock);
    mem_free(c->unix_path);
    mem_free(c->host);
    mem_free(c->name);
    mem_free(c);
}

bool conn_makes_again(struct conn *c, struct oid oid)
{
    return conn_ahead_makes(&c->ahead, oid);
}

bool conn_is_ahead(struct conn *c)
{
    return conn_ahead_any(&c->ahead);
}

bool conn_takes_riders(struct conn *c)
{
    return site_does(c, SITE_TAKES_RIDERS);
}

bool conn_holds(struct conn *c)
{
    return c->may_ahead && site_does(c, SITE_HOLDS);
}

bool conn_in_touch(struct conn *c)
{
    if (c->answer != NULL)
        return true;
    pthread_mutex_lock(&c->lock);
    bool there = c->state == CONN_UP && c->push != NULL;
    struct pollfd end = {.fd = there ? rpc_client_fd(c->push) : -1, .events = POLLRDHUP};
    there = there && poll(&end, 1, 0) == 0;
    pthread_mutex_unlock(&c->lock);
    return there;
}

const uint8_t *conn_fs_key(const struct conn *c)
{
    return c->fs_key;
}

const char *conn_site_name(const struct conn *c)
{
    return c->site_name;
}
