/* Chunks between sites: asking peers for what the node lacks, and serving what they lack.
 *
 * A fetch asks one peer at a time, the one with the shortest round trip first; "not here" and a
 * lost link both move on to the next. With no link at all it waits a while, because links come back
 * in fractions of a second. Requests for the same chunk share one fetch. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "data/chunk.h"
#include "wan/wan_int.h"

#define RESUME_TRIES 64u

/* Somebody on the loop who wants a chunk. */
struct want {
    struct wan_msg msg;    /* to the WAN thread */
    struct loop_msg reply; /* and back */
    struct want *next;
    uint8_t id[CHUNK_ID_BYTES];
    chunk_got_cb cb;
    void *cctx;
    int rc;
    struct buf bytes;
};
struct wan_fetch {
    struct wan *wan;
    struct wan_fetch *hash_next;
    struct wan_fetch *prev, *next; /* in the queue, while no peer is asked */
    uint8_t id[CHUNK_ID_BYTES];
    struct want *wants;
    site_id_t asked[SITE_COUNT_MAX]; /* and did not have it */
    uint32_t asked_count;
    bool busy;             /* one of them had no time for us */
    struct wan_peer *peer; /* being asked */
    struct h2_stream *stream;
    int status;
    struct buf bytes;
    uint64_t began_ns;
};

/* --- answers --- */

static void want_reply(struct loop_msg *msg)
{
    struct want *q = CONTAINER_OF(msg, struct want, reply);
    q->cb(q->cctx, q->rc, &q->bytes);
    buf_deinit(&q->bytes);
    mem_free(q);
}

static void want_answer(struct wan *w, struct want *q, int rc, struct buf *bytes)
{
    q->rc = rc;
    if (bytes != NULL)
        buf_move(&q->bytes, bytes);
    q->reply.run = want_reply;
    loop_post(w->loop, &q->reply);
}

static void queue_remove(struct wan_fetch *f)
{
    struct wan *w = f->wan;
    if (f->prev != NULL)
        f->prev->next = f->next;
    else
        w->fetches.first = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;
    else
        w->fetches.last = f->prev;
    f->prev = f->next = NULL;
}

static void queue_add(struct wan_fetch *f)
{
    struct wan *w = f->wan;
    f->prev = w->fetches.last;
    f->next = NULL;
    if (f->prev != NULL)
        f->prev->next = f;
    else
        w->fetches.first = f;
    w->fetches.last = f;
}

static struct wan_fetch **bucket(struct wan *w, const uint8_t *id)
{
    /* Ids are hashes, and keyed: their own bytes spread well. */
    return &w->fetches.buckets[((unsigned)id[0] << 8 | id[1]) % WAN_FETCH_BUCKETS];
}

static void fetch_forget(struct wan_fetch *f)
{
    struct wan_fetch **at = bucket(f->wan, f->id);
    while (*at != f)
        at = &(*at)->hash_next;
    *at = f->hash_next;
    f->wan->fetches.count--;
    if (f->stream == NULL)
        queue_remove(f);
}

static void fetch_end(struct wan_fetch *f, int rc)
{
    struct wan *w = f->wan;
    struct want *q = f->wants;
    fetch_forget(f);
    while (q != NULL) {
        struct want *next = q->next;
        struct buf copy = {0};
        if (rc == 0 && next != NULL) {
            buf_append(&copy, f->bytes.ptr, f->bytes.len);
            want_answer(w, q, 0, &copy);
        } else {
            want_answer(w, q, rc, rc == 0 ? &f->bytes : NULL);
        }
        q = next;
    }
    buf_deinit(&f->bytes);
    mem_free(f);
}

/* --- asking --- */

static bool was_asked(const struct wan_fetch *f, site_id_t site)
{
    for (uint32_t i = 0; i < f->asked_count; i++)
        if (f->asked[i] == site)
            return true;
    return false;
}

enum later {
    LATER_NEVER, /* all were asked */
    LATER_LINK,  /* somebody left has no link now */
    LATER_ROOM   /* somebody left has as many requests as may be */
};

/* The best peer to ask, or NULL and what there is to wait for. */
static struct wan_peer *peer_choose(const struct wan_fetch *f, enum later *ret_later)
{
    struct wan_peer *best = NULL;
    *ret_later = LATER_NEVER;
    for (struct wan_peer *p = f->wan->peers; p != NULL; p = p->next) {
        if (was_asked(f, p->member.site) || !wan_peer_wanted(p))
            continue;
        if (p->conn == NULL || !h2_is_ready(p->conn))
            *ret_later = MAX(*ret_later, LATER_LINK);
        else if (p->fetches >= WAN_FETCH_PER_PEER)
            *ret_later = LATER_ROOM;
        else if (best == NULL || h2_rtt_ns(p->conn) < h2_rtt_ns(best->conn))
            best = p;
    }
    return best;
}

static void chunk_response(struct h2_stream *s, int status)
{
    struct wan_fetch *f = h2_stream_user(s);
    f->status = status;
}

static void chunk_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct wan_fetch *f = h2_stream_user(s);
    h2_consume(s, len);
    if (f->status == 200 && f->bytes.len == 0) /* room for all of it at once, if it is honest */
        buf_reserve(&f->bytes,
                    MAX(len, MIN(chunk_sealed_len(slice_of(ptr, len)), LIMIT_CHUNK_SEALED_BYTES)));
    if (f->status == 200 && f->bytes.len + len <= LIMIT_CHUNK_SEALED_BYTES)
        buf_append(&f->bytes, ptr, len);
    else if (f->status == 200)
        f->status = 0; /* too long: no chunk */
}

static void asked_add(struct wan_fetch *f)
{
    if (f->asked_count < SITE_COUNT_MAX)
        f->asked[f->asked_count++] = f->peer->member.site;
    f->busy = f->busy || f->status != 404;
}

static void chunk_closed(struct h2_stream *s, int rc)
{
    struct wan_fetch *f = h2_stream_user(s);
    struct wan *w = f->wan;
    f->stream = NULL;
    queue_add(f);
    f->peer->fetches--;
    if (rc == 0 && f->status == 200 && f->bytes.len > 0) {
        fetch_end(f, 0);
    } else {
        if (rc == 0) /* it has answered; a lost link may come back and is asked again */
            asked_add(f);
        f->peer = NULL;
        buf_clear(&f->bytes);
    }
    if (!w->stopping)
        wan_fetch_resume(w);
}

static const struct h2_stream_events chunk_events = {
    .response = chunk_response, .data = chunk_data, .closed = chunk_closed};

enum went {
    WENT_OFF,   /* a peer is being asked */
    WENT_WAITS, /* nobody can be asked now */
    WENT_ENDED  /* the fetch is gone */
};

/* Nobody has it, of all members; one that is paused was not asked. */
static int nobody_has(const struct wan_fetch *f)
{
    for (const struct wan_peer *p = f->wan->peers; p != NULL; p = p->next)
        if (!p->gone && !was_asked(f, p->member.site))
            return ERR_UNREACHABLE;
    return f->asked_count > 0 ? ERR_NOT_FOUND : ERR_UNREACHABLE;
}

static int asked_all(const struct wan_fetch *f)
{
    return f->busy ? ERR_AGAIN : nobody_has(f);
}

static enum went fetch_go(struct wan_fetch *f)
{
    enum later later;
    struct wan_peer *p = peer_choose(f, &later);
    if (p == NULL && later == LATER_NEVER) {
        fetch_end(f, asked_all(f));
        return WENT_ENDED;
    }
    if (p == NULL)
        return WENT_WAITS;
    char hex[2 * CHUNK_ID_BYTES + 1], path[H2_PATH_MAX];
    (void)sodium_bin2hex(hex, sizeof hex, f->id, sizeof f->id);
    (void)snprintf(path, sizeof path, "/v1/chunk/%s", hex); /* fits */
    f->status = 0;
    struct h2_stream *s = h2_request(p->conn, "GET", path, &chunk_events, f);
    if (s == NULL)
        return WENT_WAITS;
    queue_remove(f);
    f->stream = s;
    h2_end(s);
    f->peer = p;
    p->fetches++;
    return WENT_OFF;
}

void wan_fetch_resume(struct wan *w)
{
    /* A few that wait for one particular peer must not hold up the rest; many mean that all are
     * busy. */
    uint32_t waiting = 0;
    for (struct wan_fetch *f = w->fetches.first, *next; f != NULL && waiting < RESUME_TRIES;
         f = next) {
        next = f->next;
        waiting += fetch_go(f) == WENT_WAITS;
    }
}

/* Who was waited for has not come, or is no member any more, which wakes nobody. */
void wan_fetch_tick(struct wan *w, uint64_t now_ns)
{
    for (struct wan_fetch *f = w->fetches.first, *next; f != NULL; f = next) {
        next = f->next;
        enum later later;
        bool old = now_ns - f->began_ns > WAN_FETCH_WAIT_NS;
        if (old && peer_choose(f, &later) == NULL && later != LATER_ROOM)
            fetch_end(f, later == LATER_LINK ? ERR_UNREACHABLE : asked_all(f));
    }
}

static struct wan_fetch *fetch_new(struct wan *w, struct want *q)
{
    struct wan_fetch *f = mem_calloc(1, sizeof *f);
    f->wan = w;
    f->began_ns = wan_now_ns(w);
    memcpy(f->id, q->id, sizeof f->id);
    f->wants = q;
    f->hash_next = *bucket(w, f->id);
    *bucket(w, f->id) = f;
    w->fetches.count++;
    queue_add(f);
    return f;
}

static void want_run(struct wan *w, struct wan_msg *m)
{
    struct want *q = CONTAINER_OF(m, struct want, msg);
    struct wan_fetch *f = *bucket(w, q->id);
    while (f != NULL && memcmp(f->id, q->id, sizeof f->id) != 0)
        f = f->hash_next;
    if (f != NULL) {
        q->next = f->wants;
        f->wants = q;
    } else if (w->stopping || w->fetches.count >= WAN_FETCH_WAITING_MAX) {
        want_answer(w, q, w->stopping ? ERR_CLOSED : ERR_LIMIT, NULL);
    } else {
        (void)fetch_go(fetch_new(w, q)); /* whatever it did, it is in the right place */
    }
}

static void want_drop(struct wan_msg *m)
{
    mem_free(CONTAINER_OF(m, struct want, msg));
}

void wan_chunk_fetch(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx)
{
    struct want *q = mem_calloc(1, sizeof *q);
    memcpy(q->id, id, sizeof q->id);
    q->cb = cb;
    q->cctx = cctx;
    q->msg.run = want_run;
    q->msg.drop = want_drop;
    wan_push(fctx, &q->msg);
}

void wan_fetch_free(struct wan *w)
{
    /* All links are gone, so all fetches are in the queue. */
    while (w->fetches.first != NULL) {
        struct wan_fetch *f = w->fetches.first;
        fetch_forget(f);
        while (f->wants != NULL) {
            struct want *q = f->wants;
            f->wants = q->next;
            mem_free(q);
        }
        buf_deinit(&f->bytes);
        mem_free(f);
    }
}

/* --- serving --- */

struct serve {
    struct wan_call call;
    struct h2_stream *stream; /* NULL: gone meanwhile */
    uint8_t id[CHUNK_ID_BYTES];
    int rc;
    struct buf bytes;
};

static void serve_got(void *ctx, int rc, struct buf *sealed)
{
    struct serve *v = ctx;
    v->rc = rc;
    if (rc == 0 && sealed != NULL)
        buf_move(&v->bytes, sealed);
    wan_call_return(&v->call);
}

static void serve_on_loop(struct wan_call *call)
{
    struct serve *v = CONTAINER_OF(call, struct serve, call);
    node_chunk_get_local(call->wan->node, v->id, serve_got, v);
}

static void ignore_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    (void)ptr;
    h2_consume(s, len);
}

static void serve_closed(struct h2_stream *s, int rc)
{
    struct serve *v = h2_stream_user(s);
    (void)rc;
    if (v != NULL)
        v->stream = NULL;
}

static const struct h2_stream_events serve_events = {.data = ignore_data, .closed = serve_closed};

static void serve_release(struct wan_call *call)
{
    struct serve *v = CONTAINER_OF(call, struct serve, call);
    if (v->stream != NULL)
        h2_follow(v->stream, &serve_events, NULL); /* the stream may outlive the call */
    buf_deinit(&v->bytes);
}

static void serve_done(struct wan_call *call)
{
    struct serve *v = CONTAINER_OF(call, struct serve, call);
    struct h2_stream *s = v->stream;
    if (s == NULL)
        return;
    v->stream = NULL;
    h2_follow(s, &serve_events, NULL); /* the call ends here */
    if (v->rc != 0) {
        int status = v->rc == ERR_NOT_FOUND ? 404 : 503;
        wan_respond_error(s, status, v->rc, err_text(v->rc));
        return;
    }
    h2_respond(s, 200);
    h2_give(s, &v->bytes);
    h2_end(s);
}

void wan_chunk_serve(struct wan *w, struct h2_stream *s, const char *hex)
{
    uint8_t id[CHUNK_ID_BYTES];
    size_t len = 0;
    const char *end = NULL;
    if (strlen(hex) != 2 * CHUNK_ID_BYTES ||
        sodium_hex2bin(id, sizeof id, hex, strlen(hex), NULL, &len, &end) != 0 ||
        len != sizeof id || *end != '\0') {
        wan_respond_error(s, 400, ERR_INVALID, "a chunk's name is 64 hex digits");
        return;
    }
    if (h2_stream_count(h2_stream_conn(s)) > WAN_SERVE_CHUNKS_MAX) {
        wan_respond_error(s, 503, ERR_LIMIT, "too many chunks are asked for at once");
        return;
    }
    struct serve *v = mem_calloc(1, sizeof *v);
    v->stream = s;
    memcpy(v->id, id, sizeof v->id);
    h2_follow(s, &serve_events, v);
    v->call.on_loop = serve_on_loop;
    v->call.done = serve_done;
    v->call.release = serve_release;
    wan_call_start(w, &v->call);
}
