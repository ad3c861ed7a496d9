#include "client/conn_ahead.h"

#include "base/assert.h"
#include "base/plant.h"

void conn_ahead_init(struct conn_ahead *a, struct conn_seq *seq)
{
    *a = (struct conn_ahead){.seq = seq};
    a->last = &a->first;
    pthread_mutex_init(&a->lock, NULL);
}

/* Takes it off the list and frees it. Lock held. */
static void drop(struct conn_ahead *a, struct ahead_entry **at)
{
    struct ahead_entry *e = *at;
    *at = e->next;
    if (a->last == &e->next)
        a->last = at;
    a->count--;
    if (e->told)
        conn_seq_end(a->seq, &e->number);
    buf_deinit(&e->body);
    mem_free(e);
}

void conn_ahead_deinit(struct conn_ahead *a)
{
    while (a->first != NULL)
        drop(a, &a->first);
    pthread_mutex_destroy(&a->lock);
}

bool conn_ahead_may(struct conn_ahead *a, uint16_t type)
{
    if (type == RPC_GETATTR || type == RPC_OPEN || type == RPC_CONTENT)
        return true;
    if (type != RPC_CREATE && type != RPC_SETATTR && type != RPC_COMMIT && type != RPC_UNLINK &&
        type != RPC_RENAME)
        return false;
    pthread_mutex_lock(&a->lock);
    bool may = a->count < CONN_AHEAD_MAX;
    pthread_mutex_unlock(&a->lock);
    return may;
}

struct ahead_entry *conn_ahead_begin(
    struct conn_ahead *a, uint16_t type, struct oid oid, uint64_t number, struct slice body)
{
    struct ahead_entry *e = mem_calloc(1, sizeof *e);
    e->type = type;
    e->oid = oid;
    e->id = number;
    buf_append(&e->body, body.ptr, body.len);
    pthread_mutex_lock(&a->lock);
    *a->last = e;
    a->last = &e->next;
    a->count++;
    pthread_mutex_unlock(&a->lock);
    return e;
}

static struct ahead_entry **find(struct conn_ahead *a, uint64_t number)
{
    struct ahead_entry **at = &a->first;
    while (*at != NULL && (*at)->id != number)
        at = &(*at)->next;
    return at;
}

/* Changes what will be sent again. The body is one that this mount has encoded. */
static void rewrite(struct ahead_entry *e,
                    void (*change)(struct fs_request *r, const void *arg),
                    const void *arg)
{
    struct op_arena arena = {0};
    struct buf body = {0};
    struct fs_request r;
    int rc = fs_request_decode(buf_slice(&e->body), &arena, &r);
    ASSERT(rc == 0);
    change(&r, arg);
    fs_request_encode(&r, &body);
    buf_deinit(&e->body);
    e->body = body;
    op_arena_deinit(&arena);
}

/* Not held once more: two mounts that make their files again would wait for each other's. */
static void set_made(struct fs_request *r, const void *arg)
{
    if (!PLANTED(83))
        r->oid2 = *(const struct oid *)arg;
    r->flags &= ~CREATE_HOLDS;
}

bool conn_ahead_end(struct conn_ahead *a,
                    struct ahead_entry *e,
                    const struct fs_reply *told,
                    struct conn_number *number)
{
    pthread_mutex_lock(&a->lock);
    bool kept = told != NULL && !e->durable;
    if (kept) {
        conn_seq_move(a->seq, number, &e->number);
        e->told = true;
        if (told->has_attr)
            e->version = told->attr.version;
        if (told->has_attr && e->type == RPC_CREATE) {
            e->oid = told->attr.oid;
            e->made = true;
        }
    } else {
        drop(a, find(a, e->id));
    }
    pthread_mutex_unlock(&a->lock);
    return kept;
}

bool conn_ahead_take_back(struct conn_ahead *a,
                          uint64_t id,
                          struct conn_number *number,
                          bool *ret_numbered)
{
    pthread_mutex_lock(&a->lock);
    struct ahead_entry **at = find(a, id);
    bool there = *at != NULL;
    if (there) {
        conn_seq_move(a->seq, &(*at)->number, number);
        (*at)->told = false;
        drop(a, at);
        *ret_numbered = true;
    }
    pthread_mutex_unlock(&a->lock);
    return there;
}

void conn_ahead_durable(struct conn_ahead *a, uint64_t number)
{
    pthread_mutex_lock(&a->lock);
    struct ahead_entry **at = find(a, number);
    if (*at != NULL && (*at)->told && !(*at)->again)
        drop(a, at);
    else if (*at != NULL)
        (*at)->durable = true; /* its caller is about to find out */
    pthread_mutex_unlock(&a->lock);
}

bool conn_ahead_next(struct conn_ahead *a, uint64_t after, struct ahead_entry *ret)
{
    struct ahead_entry *best = NULL;
    pthread_mutex_lock(&a->lock);
    for (struct ahead_entry *e = a->first; e != NULL && !PLANTED(82); e = e->next)
        if (e->told && e->id > after && (best == NULL || e->id < best->id))
            best = e;
    if (best != NULL) {
        best->again = true;
        struct buf body = ret->body;
        buf_clear(&body);
        buf_append(&body, best->body.ptr, best->body.len);
        *ret = *best;
        ret->body = body;
        if (ret->made)
            rewrite(ret, set_made, &ret->oid);
    }
    pthread_mutex_unlock(&a->lock);
    return best != NULL;
}

struct renamed {
    struct dot from, to;
};

static void set_base(struct fs_request *r, const void *arg)
{
    const struct renamed *v = arg;
    if (dot_equal(r->base, v->from))
        r->base = v->to;
}

/* Only in later ones: what the node called `to` before it started anew is another version. */
static void version_renamed(struct conn_ahead *a, struct ahead_entry *made, struct dot to)
{
    struct renamed v = {made->version, to};
    if (dot_is_none(v.from) || dot_equal(v.from, v.to))
        return;
    for (struct ahead_entry *e = a->first; e != NULL; e = e->next)
        if (e->told && e->id > made->id && e->type == RPC_COMMIT && oid_equal(e->oid, made->oid))
            rewrite(e, set_base, &v);
    made->version = to;
}

void conn_ahead_answered_again(struct conn_ahead *a,
                               uint64_t number,
                               const struct fs_attr *attr,
                               bool ahead)
{
    pthread_mutex_lock(&a->lock);
    struct ahead_entry **at = find(a, number);
    if (*at != NULL) {
        if (attr != NULL)
            version_renamed(a, *at, attr->version);
        (*at)->again = false;
        if (!ahead || (*at)->durable)
            drop(a, at);
    }
    pthread_mutex_unlock(&a->lock);
}

enum ahead_again conn_ahead_sent_again(struct conn_ahead *a,
                                       const struct ahead_entry *e,
                                       int rc,
                                       const struct fs_reply *r)
{
    if (rc == ERR_AGAIN || rc == ERR_NOT_PRIMARY)
        return AHEAD_WAITS;
    conn_ahead_answered_again(a, e->id, rc == 0 && r->has_attr ? &r->attr : NULL,
                              rc == 0 && (r->flags & REPLY_AHEAD) != 0);
    return rc != 0 ? AHEAD_LOST : AHEAD_MADE;
}

bool conn_ahead_makes(struct conn_ahead *a, struct oid oid)
{
    bool makes = false;
    pthread_mutex_lock(&a->lock);
    for (const struct ahead_entry *e = a->first; e != NULL && !makes; e = e->next)
        makes = e->told && e->type == RPC_CREATE && oid_equal(e->oid, oid);
    pthread_mutex_unlock(&a->lock);
    return makes;
}

bool conn_ahead_any(struct conn_ahead *a)
{
    pthread_mutex_lock(&a->lock);
    bool any = a->first != NULL;
    pthread_mutex_unlock(&a->lock);
    return any;
}
