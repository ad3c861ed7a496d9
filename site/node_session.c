/* Sessions at the node: connections and their mounts, invalidations on their way, open files.
 *
 * A request that changes something gathers what it invalidates (from the engine, through the
 * shards); node_inval_flush() turns that into pushes to the other mounts that have looked it up,
 * and the reply waits until they have acknowledged: after it, no mount shows what was before (P1).
 * A mount that does not answer loses its session after SESSION_TIMEOUT_NS. After a restart mounts
 * come back with their session ids; for GRACE_NS they may take up what they had. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/admin_int.h"
#include "site/shard_row.h"

#define NAME_BYTES_MAX 1024u
#define ORPHANS_AT_A_TIME 256u
#define SESSION_TIMEOUT_NS (6u * NS_PER_SEC)
#define GRACE_NS (15u * NS_PER_SEC)
#define RECLAIM_NS (2u * NS_PER_SEC) /* from the last one back to the end of the grace */

struct conn_state {
    uint64_t session;
    bool push, admin;
};
struct session_state {     /* user of a session */
    struct rpc_conn *push; /* or NULL */
    struct buf name;       /* as its hello said */
    bool flushes;          /* it knows PUSH_FLUSH */
    bool ended;            /* it has said so: nothing is left of it */
    uint64_t flushed;      /* the last PUSH_FLUSH that it has answered, */
    uint64_t not_flushed;  /* or answered that it could not */
};

static void session_state_free(struct session_state *s)
{
    buf_deinit(&s->name);
    mem_free(s);
}

static void on_push(void *ctx,
                    uint64_t session,
                    uint16_t type,
                    uint64_t push_id,
                    const struct fs_inval *invals,
                    uint32_t count)
{
    struct node *n = ctx;
    struct session_state *s = session_user(n->sessions, session);
    struct fs_reply r = {.number2 = push_id, .invals = invals, .inval_count = count};
    struct buf body = {0};
    if (count > 0)
        log_debug(LOG_SITE, "push",
                  "session=%016llx type=%u id=%llu entries=%u first=\"%.*s\" content=%d",
                  (unsigned long long)session, type, (unsigned long long)push_id, count,
                  (int)invals[0].name.len, (const char *)invals[0].name.ptr, invals[0].content);
    if (s == NULL || s->push == NULL)
        return; /* sent again when the push connection is back */
    fs_reply_encode(&r, &body);
    (void)rpc_push(s->push, type, push_id, buf_slice(&body)); /* closed: resent, too */
    buf_deinit(&body);
}

static void on_completed(void *ctx, void *ticket)
{
    (void)ctx;
    if (ticket != NULL)
        call_release(ticket);
}

static void orphan_drop(struct node *n, struct oid oid)
{
    uint8_t key[ROW_ORPHAN_KEY_BYTES];
    struct slice old;
    struct shard *s = shard_of(n, oid);
    row_orphan_key(oid, key);
    struct local_pair pair = {.key = slice_of(key, sizeof key)};
    if (!n->stopping && state_get(shard_state(s), pair.key, &old) &&
        shard_local(s, &pair, 1, NULL, NULL) != 0)
        log_warn(LOG_SITE, "orphan_not_dropped", "shard=%u", shard_id(s));
}

/* After a restart others may have it open who have not said so yet: what they wrote stays until
 * node_orphans_sweep. */
static void on_last_closed(void *ctx, struct oid oid)
{
    struct node *n = ctx;
    if (!oid_is_dir(oid) && !node_object_open(n, oid))
        orphan_drop(n, oid);
    if (!n->stopping)
        node_collect_again(n, oid);
}

void node_sessions_init(struct node *n)
{
    struct session_config sc = {.timeout_ns = SESSION_TIMEOUT_NS};
    struct session_events se = {.push = on_push,
                                .completed = on_completed,
                                .last_closed = on_last_closed,
                                .unheld = node_unheld,
                                .ctx = n};
    n->sessions = session_table_new(&sc, &se);
    node_locks_init(n);
}

struct rpc_conn *node_push_conn(struct node *n, uint64_t session)
{
    struct session_state *s = session_user(n->sessions, session);
    return s != NULL ? s->push : NULL;
}

static void free_user(void *ctx, const struct session_info *info)
{
    (void)ctx;
    session_state_free(info->user);
}

void node_sessions_deinit(struct node *n)
{
    session_each(n->sessions, free_user, n);
    session_table_free(n->sessions);
    lock_table_free(n->locks);
    mem_free(n->invals);
    op_arena_deinit(&n->inval_arena);
}

unsigned node_session_count(const struct node *n)
{
    return session_count(n->sessions);
}

struct session_list {
    json_t *all;
    uint64_t now_ns;
};

static void session_add(void *ctx, const struct session_info *info)
{
    const struct session_list *l = ctx;
    const struct session_state *s = info->user;
    json_array_append_new(
        l->all, json_pack("{s:o,s:I,s:i,s:i,s:b}", "name", json_bytes(buf_slice(&s->name)), "age_s",
                          (json_int_t)((l->now_ns - info->created_ns) / NS_PER_SEC), "open",
                          (int)info->opens, "unacknowledged", (int)info->pushes, "connected",
                          (int)(info->connections > 0)));
}

json_t *node_sessions_json(const struct node *n)
{
    struct session_list l = {.all = json_array(), .now_ns = clock_mono_ns(n->clock)};
    session_each(n->sessions, session_add, &l);
    return l.all;
}

/* ---- connections ---- */

void node_conn_opened(void *ctx, struct rpc_conn *conn)
{
    (void)ctx;
    rpc_conn_set_user(conn, mem_calloc(1, sizeof(struct conn_state)));
}

void node_conn_closed(void *ctx, struct rpc_conn *conn, int rc)
{
    struct node *n = ctx;
    struct conn_state *cs = rpc_conn_user(conn);
    (void)rc;
    if (cs == NULL)
        return;
    struct session_state *s = session_user(n->sessions, cs->session);
    if (s != NULL && s->push == conn)
        s->push = NULL;
    if (cs->session != 0)
        session_disconnected(n->sessions, cs->session, loop_now_ns(n->loop));
    rpc_conn_set_user(conn, NULL);
    mem_free(cs);
}

bool node_session_check(struct call *c)
{
    struct conn_state *cs = rpc_conn_user(c->conn);
    if (cs == NULL)
        return false;
    if (c->type == RPC_HELLO || c->type == RPC_PING)
        return true;
    if (c->type == RPC_ADMIN)
        return cs->admin;
    c->req.session = cs->session; /* what the connection said, not what the request says */
    return cs->session != 0 && session_exists(c->n->sessions, cs->session);
}

/* Session ids are kept in shard 0's state, so that a restart knows who may come back. */
static void session_key(uint64_t id, uint8_t out[10])
{
    out[0] = SHARD_KEY_NODE;
    out[1] = 's';
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)(id >> (8 * (7 - i)));
}

static bool session_kept(struct node *n, uint64_t id)
{
    uint8_t key[10];
    struct slice value;
    session_key(id, key);
    return state_get(shard_state(n->shards[0]), slice_of(key, sizeof key), &value);
}

static void session_keep(struct node *n, uint64_t id, bool keep)
{
    uint8_t key[10];
    session_key(id, key);
    struct local_pair pair = {slice_of(key, sizeof key), keep ? slice_str("1") : slice_of(NULL, 0)};
    if (shard_local(n->shards[0], &pair, 1, NULL, NULL) != 0)
        log_warn(LOG_SITE, "session_not_kept", "session=%016llx", (unsigned long long)id);
}

/* That a mount was lost is kept in shard 0's state as well: a restart does not bring it back. */
static const uint8_t LOST_KEY[2] = {SHARD_KEY_NODE, 'l'};

static void lost_keep(struct node *n, bool keep)
{
    struct local_pair pair = {slice_of(LOST_KEY, sizeof LOST_KEY),
                              keep ? slice_str("1") : slice_of(NULL, 0)};
    if (shard_local(n->shards[0], &pair, 1, NULL, NULL) != 0)
        log_warn(LOG_SITE, "lost_mount_not_kept", "lost=%d", keep);
}

/* It may have put chunks that it is going to refer to if it comes back. */
static void session_lost(struct node *n)
{
    if (!n->session_lost)
        lost_keep(n, true);
    n->session_lost = true;
    n->session_lost_ns = loop_now_ns(n->loop);
}

/* One of the run before counts from now on: how long ago it was is not known. */
static void lost_load(struct node *n)
{
    struct slice value;
    n->session_lost =
        state_get(shard_state(n->shards[0]), slice_of(LOST_KEY, sizeof LOST_KEY), &value);
    n->session_lost_ns = loop_now_ns(n->loop);
}

static void lost_tick(struct node *n)
{
    if (!n->session_lost || loop_now_ns(n->loop) - n->session_lost_ns < n->garbage_ns)
        return;
    n->session_lost = false;
    lost_keep(n, false);
}

/* Before anybody connects: sessions of the run before may take up locks and open files first. */
void node_sessions_start(struct node *n)
{
    uint8_t prefix[2] = {SHARD_KEY_NODE, 's'};
    struct state_scan it;
    n->sessions_awaited = 0;
    state_scan_begin(shard_state(n->shards[0]), &it, slice_of(prefix, 2), slice_of(NULL, 0));
    while (state_scan_next(&it))
        n->sessions_awaited++;
    state_scan_end(&it);
    lost_load(n);
    n->grace_until_ns = loop_now_ns(n->loop) + (n->sessions_awaited > 0 ? GRACE_NS : 0);
    if (n->sessions_awaited > 0)
        return;
    n->lock_grace = false;
    lock_grace_end(n->locks);
    node_orphans_sweep(n); /* the last session may have been forgotten durably before they were */
}

static int session_join(struct node *n, uint64_t *id)
{
    uint64_t now = loop_now_ns(n->loop);
    bool back = *id != 0;
    if (back && session_exists(n->sessions, *id))
        return 0;
    if (back && (!session_kept(n, *id) || now > n->grace_until_ns))
        return ERR_STALE; /* it expired: what it held is gone */
    while (*id == 0)
        *id = random_u64() >> 1;
    int rc = session_new(n->sessions, *id, now);
    if (rc != 0)
        return rc;
    session_set_user(n->sessions, *id, mem_calloc(1, sizeof(struct session_state)));
    if (!back)
        session_keep(n, *id, true);
    else if (n->sessions_awaited > 0 && --n->sessions_awaited == 0)
        n->grace_until_ns = MIN(n->grace_until_ns, now + RECLAIM_NS);
    return 0;
}

int call_hello(struct call *c)
{
    struct node *n = c->n;
    struct conn_state *cs = rpc_conn_user(c->conn);
    struct fs_reply *r = &c->reply;
    uint64_t id = c->req.session;
    if (cs->session != 0 || cs->admin)
        return ERR_INVALID;
    if ((c->req.flags & HELLO_ADMIN) != 0) {
        cs->admin = true;
    } else {
        if (n->needs_snapshot)
            return ERR_AGAIN;
        int rc = session_join(n, &id);
        if (rc != 0)
            return rc;
        cs->session = id;
        session_connected(n->sessions, id);
        struct session_state *s = session_user(n->sessions, id);
        if ((c->req.flags & HELLO_PUSH) != 0) {
            cs->push = true;
            s->push = c->conn;
            s->flushes = (c->req.flags & HELLO_FLUSHES) != 0;
            buf_clear(&s->name);
            buf_append(&s->name, c->req.name.ptr, MIN(c->req.name.len, NAME_BYTES_MAX));
            session_resend(n->sessions, id);
        }
        r->session = id;
        c->reply_bulk = slice_of(n->fs_key, sizeof n->fs_key);
    }
    r->flags = SITE_TAKES_RIDERS | SITE_HOLDS | (rpc_conn_is_unix(c->conn) ? SITE_SHARES : 0);
    r->site = n->settings.site;
    r->name = slice_str(n->settings.name);
    r->shard_count = n->settings.shard_count;
    return 0;
}

static void log_expired(void *ctx, const struct session_info *info)
{
    const uint64_t *id = ctx;
    if (info->id == *id)
        log_info(LOG_SITE, "session_expired", "session=%016llx connections=%u unacknowledged=%u",
                 (unsigned long long)info->id, info->connections, info->pushes);
}

static void expire(struct node *n, uint64_t id)
{
    struct session_state *s = session_user(n->sessions, id);
    session_each(n->sessions, log_expired, &id);
    if (s->push != NULL)
        rpc_conn_close(s->push);
    if (!s->ended)
        session_lost(n);
    lock_release_session(n->locks, id);
    (void)session_remove(n->sessions, id); /* it exists */
    session_keep(n, id, false);
    session_state_free(s);
}

/* The grace is over: sessions that did not come back are no more. */
static void forget_absent(struct node *n)
{
    uint64_t ids[LIMIT_SESSIONS];
    uint32_t count = 0;
    uint8_t prefix[2] = {SHARD_KEY_NODE, 's'};
    struct state_scan it;
    state_scan_begin(shard_state(n->shards[0]), &it, slice_of(prefix, 2), slice_of(NULL, 0));
    while (count < LIMIT_SESSIONS && state_scan_next(&it)) {
        uint64_t id = 0;
        for (size_t i = 2; i < it.key.len && i < 10; i++)
            id = id << 8 | it.key.ptr[i];
        if (!session_exists(n->sessions, id))
            ids[count++] = id;
    }
    state_scan_end(&it);
    if (count > 0)
        session_lost(n);
    for (uint32_t i = 0; i < count; i++)
        session_keep(n, ids[i], false);
}

/* ---- what mounts have put and not committed yet ---- */

struct flushing {
    struct node *n;
    uint64_t number, since_ns;
    bool tell;
    enum node_flush state;
    char *why; /* NODE_FLUSH_WHY bytes */
};

static void flush_not(struct flushing *f, const struct session_state *s, const char *what)
{
    struct slice name = s->name.len > 0 ? buf_slice(&s->name) : slice_str("without a name");
    f->state = NODE_FLUSH_NOT;
    (void)snprintf(f->why, NODE_FLUSH_WHY, "the mount %.*s %s", (int)MIN(name.len, 100u),
                   (const char *)name.ptr, what); /* it fits */
}

static void flush_one(void *ctx, const struct session_info *info)
{
    struct flushing *f = ctx;
    const struct session_state *s = info->user;
    if (f->state == NODE_FLUSH_NOT || info->created_ns > f->since_ns || s->ended ||
        s->flushed == f->number)
        return; /* what it has put since then is not old */
    if (s->not_flushed == f->number) {
        flush_not(f, s, "could not commit all it has");
    } else if (s->push != NULL && !s->flushes) {
        flush_not(f, s, "is of a version that cannot be asked");
    } else {
        flush_not(f, s, "has not answered");
        f->state = NODE_FLUSH_WAITS;
        if (!f->tell || s->push == NULL)
            return;
        struct fs_reply r = {.number2 = f->number};
        struct buf body = {0};
        fs_reply_encode(&r, &body);
        (void)rpc_push(s->push, PUSH_FLUSH, f->number, buf_slice(&body)); /* closed: told again */
        buf_deinit(&body);
    }
}

enum node_flush node_sessions_flush(
    struct node *n, uint64_t number, uint64_t since_ns, bool tell, char why[NODE_FLUSH_WHY])
{
    struct flushing f = {.n = n, .number = number, .since_ns = since_ns, .tell = tell, .why = why};
    if (n->session_lost) {
        (void)snprintf(why, NODE_FLUSH_WHY, "a mount went away without saying goodbye");
        return NODE_FLUSH_NOT;
    }
    session_each(n->sessions, flush_one, &f);
    return f.state;
}

int call_flushed(struct call *c)
{
    struct session_state *s = session_user(c->n->sessions, c->req.session);
    if (s == NULL)
        return ERR_STALE;
    if (c->req.number2 == 0)
        s->ended = true;
    else if ((c->req.flags & FLUSHED_NOT) != 0)
        s->not_flushed = c->req.number2;
    else
        s->flushed = c->req.number2;
    return 0;
}

/* ---- answered ahead of the disk ---- */

/* Tells the session of the first what of its own is durable now. */
static void ahead_tell(struct node *n)
{
    uint64_t session = n->ahead[0].session;
    struct rpc_conn *push = node_push_conn(n, session);
    struct buf numbers = {0}, body = {0};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->ahead_count; i++) {
        if (n->ahead[i].session == session)
            enc_u64(&numbers, n->ahead[i].number);
        else
            n->ahead[kept++] = n->ahead[i];
    }
    n->ahead_count = kept;
    struct fs_reply r = {.data = buf_slice(&numbers)};
    fs_reply_encode(&r, &body);
    if (push != NULL)
        (void)rpc_push(push, PUSH_DURABLE, 0, buf_slice(&body)); /* gone: it asks again */
    buf_deinit(&numbers);
    buf_deinit(&body);
}

void node_ahead_done(struct node *n, uint64_t session, uint64_t number)
{
    n->ahead[n->ahead_count].session = session;
    n->ahead[n->ahead_count++].number = number;
    while (n->ahead_count == ARRAY_COUNT(n->ahead))
        ahead_tell(n);
}

void node_sessions_tick(struct node *n)
{
    while (n->ahead_count > 0)
        ahead_tell(n);
    uint64_t id, now = loop_now_ns(n->loop);
    while ((id = session_expired(n->sessions, now)) != 0)
        expire(n, id);
    lost_tick(n);
    if (n->lock_grace && now > n->grace_until_ns) {
        n->lock_grace = false;
        lock_grace_end(n->locks);
        forget_absent(n);
        node_orphans_sweep(n);
    }
}

/* ---- open files and interest ---- */

void node_session_open(struct call *c, struct oid oid)
{
    if (c->req.session != 0 && session_opened(c->n->sessions, c->req.session, oid) != 0)
        log_warn(LOG_SITE, "open_not_counted", "session=%016llx",
                 (unsigned long long)c->req.session);
}

void node_session_close(struct call *c, struct oid oid)
{
    (void)session_closed(c->n->sessions, c->req.session, oid); /* a repeated close is no error */
}

bool node_object_open(struct node *n, struct oid oid)
{
    /* After a restart mounts say again what they have open: nothing is gone before they could. */
    return session_object_open(n->sessions, oid) || n->lock_grace;
}

void node_session_interest(struct call *c, struct oid oid)
{
    if (c->req.session != 0)
        session_interest(c->n->sessions, c->req.session, oid);
}

int call_forget(struct call *c)
{
    for (uint32_t i = 0; i < c->req.oid_count; i++)
        session_forget(c->n->sessions, c->req.session, c->req.oids[i]);
    return 0;
}

static void inval_acked(struct node *n, uint64_t session, uint64_t push_id)
{
    log_debug(LOG_SITE, "push_acked", "session=%016llx id=%llu", (unsigned long long)session,
              (unsigned long long)push_id);
    (void)session_acked(n->sessions, session, push_id); /* old acks do no harm */
}

int call_inval_ack(struct call *c)
{
    inval_acked(c->n, c->req.session, c->req.number2);
    return 0;
}

void node_inval_acked(struct node *n, struct rpc_conn *conn, struct slice body)
{
    const struct conn_state *cs = rpc_conn_user(conn);
    struct fs_request q;
    struct op_arena arena = {0};
    int rc = fs_request_decode(body, &arena, &q);
    op_arena_deinit(&arena);
    if (rc != 0 || cs == NULL || cs->session == 0 || !session_exists(n->sessions, cs->session))
        return;
    inval_acked(n, cs->session, q.number2);
    node_inval_flush(n, NULL); /* what was answered now may have changed something */
}

uint32_t node_open_orphans(
    struct node *n, shard_id_t shard, const struct oid *after, struct oid *ret, uint32_t max)
{
    uint8_t prefix = SHARD_KEY_ORPHAN, start[ROW_ORPHAN_KEY_BYTES];
    struct state_scan it;
    struct slice from = {0};
    uint32_t count = 0;
    if (after != NULL) {
        row_orphan_key(*after, start);
        from = slice_of(start, sizeof start);
    }
    state_scan_begin(shard_state(n->shards[shard]), &it, slice_of(&prefix, 1), from);
    while (count < max && state_scan_next(&it))
        if (row_orphan_key_decode(it.key, &ret[count]) &&
            (after == NULL || !oid_equal(ret[count], *after)))
            count++;
    state_scan_end(&it);
    return count;
}

/* Orphans that no mount took up again after a restart. */
void node_orphans_sweep(struct node *n)
{
    struct oid oids[ORPHANS_AT_A_TIME];
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        uint32_t count = 0;
        do {
            struct oid last = count > 0 ? oids[count - 1] : (struct oid){0};
            count = node_open_orphans(n, (shard_id_t)i, count > 0 ? &last : NULL, oids,
                                      ARRAY_COUNT(oids));
            for (uint32_t k = 0; k < count; k++)
                if (!session_object_open(n->sessions, oids[k]))
                    orphan_drop(n, oids[k]);
        } while (count == ARRAY_COUNT(oids));
    }
}

/* ---- invalidations ---- */

static struct fs_inval *inval_add(struct node *n, uint64_t except)
{
    if (n->inval_count == n->inval_cap) {
        n->inval_cap = MAX(n->inval_cap * 2, 64u);
        n->invals = mem_realloc(n->invals, n->inval_cap * sizeof n->invals[0]);
    }
    struct node_inval *i = &n->invals[n->inval_count++];
    memset(i, 0, sizeof *i);
    i->except = except;
    return &i->inval;
}

void node_inval_name(struct node *n, struct oid parent, struct slice name)
{
    const struct call *c = n->inval_call;
    if (session_count(n->sessions) == 0)
        return;
    if (PLANTED(40) && c != NULL && c->type == RPC_RENAME && slice_equal(name, c->req.name2))
        return;
    /* The mount that asked knows its own names; others (a contested one that became final) not. */
    bool own = c != NULL && (slice_equal(name, c->req.name) || slice_equal(name, c->req.name2));
    struct fs_inval *i = inval_add(n, own ? c->req.session : 0);
    i->oid = parent;
    i->name = name.len > 0 ? op_dup(&n->inval_arena, name) : slice_str("*");
}

void node_inval_object(struct node *n, struct oid oid, bool content)
{
    if (content)
        node_gc_referred(n, oid);
    if (!oid_is_dir(oid)) /* it may also have come under another directory's policy */
        node_bring_look(n, oid);
    if (session_count(n->sessions) == 0)
        return;
    struct fs_inval *i = inval_add(n, n->inval_call != NULL ? n->inval_call->req.session : 0);
    i->oid = oid;
    i->content = content;
}

/* The reply of `c` waits until all who were told have dropped it. */
void node_inval_flush(struct node *n, struct call *c)
{
    struct fs_inval *list;
    uint32_t count = n->inval_count;
    if (count == 0)
        return;
    list = mem_calloc(count, sizeof *list);
    n->inval_count = 0;
    for (uint32_t from = 0; from < count;) {
        uint64_t except = n->invals[from].except;
        uint32_t many = 0;
        while (from < count && n->invals[from].except == except)
            list[many++] = n->invals[from++].inval;
        struct call *waits = PLANTED(38) ? NULL : c;
        if (session_invalidate(n->sessions, except, list, many, loop_now_ns(n->loop), waits) &&
            waits != NULL)
            call_hold(waits);
    }
    mem_free(list);
    op_arena_reset(&n->inval_arena);
}

void node_effects_begin(struct node *n, struct call *c)
{
    node_inval_flush(n, NULL); /* somebody else's */
    n->inval_call = c;
}

void node_effects_end(struct node *n, struct call *c)
{
    n->inval_call = NULL;
    node_inval_flush(n, c);
}
