/* Serving chunks to other sites: what the node has, and, for those that have no link to who has it,
 * what another one gives.
 *
 * A request that names sites beyond this one is for these: the first of them is asked for the rest
 * (way.h), and what it gives is stored here as if it had been read here, and answered. Without a
 * link to it the answer is ERR_UNREACHABLE, at once: who asked knows other ways, or asks again.
 * Each request leads to one, which is shorter, so that nothing goes round and none waits for
 * itself; several for the same, and this site's own, share one.
 *
 * Those that wait for room on a link hold some on another. Ways that go round a ring could hold
 * each other up so for ever: one that waits while no bytes come there for WAN_FETCH_WAIT_NS gets
 * ERR_LIMIT. How many there are is bounded by what each link may ask for (WAN_SERVE_CHUNKS_MAX). */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/plant.h"
#include "wan/wan_chunk_int.h"

/* --- answers --- */

static void ignore_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    (void)ptr;
    h2_consume(s, len);
}

static void answer_closed(struct h2_stream *s, int rc)
{
    (void)s;
    (void)rc;
}

static const struct h2_stream_events answer_events = {.data = ignore_data, .closed = answer_closed};

static void answer_chunk(struct h2_stream *s, struct buf *bytes)
{
    h2_follow(s, &answer_events, NULL);
    h2_respond(s, 200);
    h2_give(s, bytes);
    h2_end(s);
}

/* With the members that can be asked through here. */
static void absent_say(struct wan *w, int rc, struct buf *out)
{
    struct msg_absent a = {.rc = rc, .site = w->me.site};
    for (const struct wan_peer *p = w->peers; p != NULL && a.link_count < SITE_COUNT_MAX;
         p = p->next)
        if (wan_peer_reached(p))
            a.links[a.link_count++] = p->member.site;
    msg_absent_encode(&a, err_text(rc), out);
}

static void answer_absent(struct wan *w, struct h2_stream *s, int rc)
{
    struct buf said = {0};
    absent_say(w, rc, &said);
    wan_respond_body(s, rc == ERR_NOT_FOUND ? 404 : 503, buf_slice(&said));
    buf_deinit(&said);
}

/* --- from one site to another --- */

struct asker {
    struct asker *next;
    struct wan_pass *pass;
    struct h2_stream *stream;
};
struct wan_pass {
    struct wan *wan;
    struct wan_pass *next;
    struct chunk_id id;
    struct way way;
    struct asker *askers;
    bool under_way; /* asked for, or here and being stored */
    struct chunk_follower answer;
    uint64_t began_ns;
};

static struct wan_pass *pass_find(struct wan *w, const struct chunk_id *id, const struct way *way)
{
    struct wan_pass *x = w->passes.first;
    while (x != NULL && !(chunk_id_equal(&x->id, id) && way_equal(&x->way, way)))
        x = x->next;
    return x;
}

static void pass_unlink(struct wan_pass *x)
{
    struct wan *w = x->wan;
    struct wan_pass **at = &w->passes.first, *before = NULL;
    while (*at != x) {
        before = *at;
        at = &before->next;
    }
    *at = x->next;
    if (w->passes.last == x)
        w->passes.last = before;
}

static void asker_closed(struct h2_stream *s, int rc)
{
    struct asker *a = h2_stream_user(s);
    struct wan_pass *x = a->pass;
    struct asker **at = &x->askers;
    (void)rc;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    mem_free(a);
    if (x->askers == NULL && !x->under_way) {
        pass_unlink(x);
        mem_free(x);
    }
}

static const struct h2_stream_events asker_events = {.data = ignore_data, .closed = asker_closed};

/* Answers all: with the chunk, or with what is said instead. */
static void pass_end(struct wan_pass *x, int status, struct slice bytes)
{
    pass_unlink(x);
    while (x->askers != NULL) {
        struct asker *a = x->askers;
        x->askers = a->next;
        struct buf copy = {0};
        if (status == 200) {
            buf_append(&copy, bytes.ptr, bytes.len);
            answer_chunk(a->stream, &copy);
        } else {
            wan_respond_body(a->stream, status, bytes);
        }
        mem_free(a);
    }
    mem_free(x);
}

static void pass_fail(struct wan_pass *x, int rc)
{
    struct buf said = {0};
    absent_say(x->wan, rc, &said);
    pass_end(x, 503, buf_slice(&said));
    buf_deinit(&said);
}

struct keep {
    struct wan_call call;
    struct wan_pass *pass;
    struct chunk_id id;
    struct buf bytes;
};

static void kept(void *ctx, int rc)
{
    struct keep *k = ctx;
    if (rc != 0) /* it is passed on all the same; the next one asks again */
        log_warn(LOG_WAN, "passed_chunk_not_stored", "why=\"%s\"", err_text(rc));
    wan_call_return(&k->call);
}

static void keep_on_loop(struct wan_call *call)
{
    struct keep *k = CONTAINER_OF(call, struct keep, call);
    node_chunk_put(call->wan->node, k->id.b, buf_slice(&k->bytes), kept, k);
}

static void keep_done(struct wan_call *call)
{
    struct keep *k = CONTAINER_OF(call, struct keep, call);
    pass_end(k->pass, 200, buf_slice(&k->bytes));
}

static void keep_release(struct wan_call *call)
{
    buf_deinit(&CONTAINER_OF(call, struct keep, call)->bytes);
}

static void pass_answered(struct chunk_follower *answer, const struct chunk_answer *a)
{
    struct wan_pass *x = CONTAINER_OF(answer, struct wan_pass, answer);
    if (a->rc != 0) {
        pass_fail(x, ERR_UNREACHABLE);
    } else if (a->status != 200) {
        pass_end(x, a->status == 404 ? 404 : 503, buf_slice(a->bytes));
    } else {
        struct keep *k = mem_calloc(1, sizeof *k);
        k->pass = x;
        k->id = x->id;
        chunk_answer_take(a, &k->bytes);
        k->call.on_loop = keep_on_loop;
        k->call.done = keep_done;
        k->call.release = keep_release;
        wan_call_start(x->wan, &k->call);
    }
}

static void pass_go(struct wan_pass *x)
{
    struct wan_peer *p = wan_peer_by_site(x->wan, x->way.at[0]);
    x->answer.over = pass_answered;
    if (p == NULL || !wan_peer_reached(p))
        pass_fail(x, ERR_UNREACHABLE);
    else
        x->under_way = chunk_ask(p, &x->id, &x->way, CHUNK_PASSED, &x->answer);
}

/* The stream waits for what the way gives. */
static void
pass_on(struct wan *w, struct h2_stream *s, const struct chunk_id *id, const struct way *way)
{
    struct wan_pass *x = pass_find(w, id, way);
    bool is_new = x == NULL;
    if (is_new) {
        x = mem_calloc(1, sizeof *x);
        x->wan = w;
        x->id = *id;
        x->way = *way;
        x->began_ns = wan_now_ns(w);
        if (w->passes.last != NULL)
            w->passes.last->next = x;
        else
            w->passes.first = x;
        w->passes.last = x;
    }
    struct asker *a = mem_calloc(1, sizeof *a);
    a->pass = x;
    a->stream = s;
    a->next = x->askers;
    x->askers = a;
    h2_follow(s, &asker_events, a);
    if (is_new)
        pass_go(x);
}

void wan_pass_resume(struct wan *w)
{
    for (struct wan_pass *x = w->passes.first, *next; x != NULL; x = next) {
        next = x->next;
        if (!x->under_way)
            pass_go(x);
    }
}

void wan_pass_tick(struct wan *w, uint64_t now_ns)
{
    for (struct wan_pass *x = w->passes.first, *next; x != NULL; x = next) {
        next = x->next;
        const struct wan_peer *p = wan_peer_by_site(w, x->way.at[0]);
        uint64_t moved_ns = MAX(x->began_ns, p != NULL ? p->chunk_ns : 0);
        if (!x->under_way && now_ns - moved_ns > WAN_FETCH_WAIT_NS)
            pass_fail(x, ERR_LIMIT);
    }
}

void wan_pass_free(struct wan *w)
{
    /* All streams are gone, so nobody waits any more. */
    while (w->passes.first != NULL) {
        struct wan_pass *x = w->passes.first;
        w->passes.first = x->next;
        mem_free(x);
    }
}

/* --- serving --- */

struct serve {
    struct wan_call call;
    struct h2_stream *stream; /* NULL: gone meanwhile */
    struct chunk_id id;
    struct way way; /* beyond this site */
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
    node_chunk_get_local(call->wan->node, v->id.b, serve_got, v);
}

static void serve_closed(struct h2_stream *s, int rc)
{
    struct serve *v = h2_stream_user(s);
    (void)rc;
    v->stream = NULL;
}

static const struct h2_stream_events serve_events = {.data = ignore_data, .closed = serve_closed};

static void serve_release(struct wan_call *call)
{
    struct serve *v = CONTAINER_OF(call, struct serve, call);
    if (v->stream != NULL)
        h2_follow(v->stream, &answer_events, NULL); /* the stream may outlive the call */
    buf_deinit(&v->bytes);
}

static void serve_done(struct wan_call *call)
{
    struct serve *v = CONTAINER_OF(call, struct serve, call);
    struct h2_stream *s = v->stream;
    if (s == NULL)
        return;
    v->stream = NULL; /* the call ends here */
    if (v->rc == 0)
        answer_chunk(s, &v->bytes);
    else if (v->way.count > 0 && !PLANTED(75) && (v->rc == ERR_NOT_FOUND || v->rc == ERR_CORRUPT))
        pass_on(call->wan, s, &v->id, &v->way);
    else
        answer_absent(call->wan, s, v->rc);
}

void wan_chunk_serve(struct wan *w, struct h2_stream *s, const char *request)
{
    struct chunk_id id;
    struct way way;
    if (way_request_parse(request, &id, &way) != 0 || way_has(&way, w->me.site)) {
        wan_respond_error(s, 400, ERR_INVALID,
                          "a chunk's name is 64 hex digits, and those beyond are 8 each");
        return;
    }
    if (h2_stream_count(h2_stream_conn(s)) > WAN_SERVE_CHUNKS_MAX) {
        wan_respond_error(s, 503, ERR_LIMIT, "too many chunks are asked for at once");
        return;
    }
    struct serve *v = mem_calloc(1, sizeof *v);
    v->stream = s;
    v->id = id;
    v->way = way;
    h2_follow(s, &serve_events, v);
    v->call.on_loop = serve_on_loop;
    v->call.done = serve_done;
    v->call.release = serve_release;
    wan_call_start(w, &v->call);
}
