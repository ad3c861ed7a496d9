/* Coming back under a new site id (state merge), both sides; the site's own part is in
 * site/node_return.h.
 *
 * The site that comes back asks one other after the other: `POST /v1/return`, msgpack [version,
 * file system id, id before, id now], over a connection whose certificate is that of the old id.
 * Who is asked lets the old id leave, as one that was away, if it has not left yet, and journals
 * the new one with the same name, address and certificate; both are done again without effect. It
 * may never have heard of the old id: one that was let in by a site which was given up then.
 * Where some say that this site has left, only they are asked: of a federation in two parts the
 * other part does not know it yet, and would not be the one to come back to. Nor is one that has
 * been told the same: sites that come back to each other in a ring never end.
 * Whoever was removed by an operator, under whichever of its ids, is refused until one has let it
 * come back (peer readmit): with its directory alone, which may have been stolen, nobody gets in.
 * The first who agrees is the one to get the snapshot from. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/node_return.h"
#include "wan/wan_int.h"

/* --- who is asked --- */

struct let_in_call {
    struct wan_call call;
    struct wan_asked *asked;
    site_id_t before, after;
    uint8_t cert_sha256[FINGERPRINT_BYTES];
    char name[sizeof((struct member *)0)->name];
    int rc;
};

static void entered(void *ctx, int rc)
{
    struct let_in_call *c = ctx;
    c->rc = rc;
    wan_call_return(&c->call);
}

static void let_in(struct wan_call *call)
{
    struct let_in_call *c = CONTAINER_OF(call, struct let_in_call, call);
    node_member_returns(call->wan->node, c->before, c->cert_sha256, c->after, entered, c);
}

static const char removed_text[] = "this site was removed by an operator: it comes back when one "
                                   "at another site lets it: claudefs "
                                   "peer readmit there, then this command again";

static void was_let_in(struct wan_call *call)
{
    struct let_in_call *c = CONTAINER_OF(call, struct let_in_call, call);
    if (c->rc == 0)
        log_info(LOG_WAN, "comes_back", "peer=%s before=%08x site=%08x", c->name, c->before,
                 c->after);
    wan_members_fetch(call->wan);
    if (c->asked->stream != NULL)
        wan_asked_answer(
            c->asked,
            c->rc == 0             ? 200
            : c->rc == ERR_REMOVED ? 403
                                   : 503,
            c->rc, c->rc == ERR_REMOVED ? removed_text : "the journal cannot be written there");
}

static void let_in_release(struct wan_call *call)
{
    struct let_in_call *c = CONTAINER_OF(call, struct let_in_call, call);
    wan_asked_called(c->asked);
}

/* Why the site may not come back so, or NULL. */
static const char *no_return(struct wan *w, const struct wan_peer *p, int *ret_rc)
{
    *ret_rc = ERR_BUSY;
    if (w->boot != NULL || w->removed || w->rolled_back || w->stopping)
        return "the other site is not in order itself: see its status";
    if (wan_removed_there(w))
        return "the other site has left itself, as others say: it has to come back first";
    if (p->paused)
        return "replication is paused there by its operator";
    *ret_rc = ERR_REMOVED;
    if (wan_was_removed(w, p->member.cert_sha256))
        return removed_text;
    *ret_rc = 0;
    return NULL;
}

static void serve_decide(struct wan_asked *v)
{
    struct wan *w = v->wan;
    const uint8_t *fp = h2_fingerprint(h2_stream_conn(v->stream));
    struct msg_return r;
    int rc;
    if (v->too_long || msg_return_decode(buf_slice(&v->body), &r) != 0) {
        wan_asked_answer(v, 400, ERR_MALFORMED, "the request to come back cannot be read");
        return;
    }
    const struct wan_peer *p = wan_peer_by_site(w, r.before), *q = wan_peer_by_site(w, r.after);
    bool unknown = p == NULL; /* an id that only sites know which were given up themselves */
    if (unknown && r.before != w->me.site)
        p = wan_peer_by_fingerprint(w, fp);
    if (p == NULL || memcmp(p->member.cert_sha256, fp, FINGERPRINT_BYTES) != 0 ||
        memcmp(r.fs_id, w->fs_id, FS_ID_BYTES) != 0) {
        wan_asked_answer(v, 403, ERR_AUTH,
                         "the certificate is not that of a site that was a member");
        return;
    }
    const char *no = no_return(w, p, &rc);
    if (no == NULL && (r.after == w->me.site ||
                       (q != NULL && memcmp(q->member.cert_sha256, fp, FINGERPRINT_BYTES) != 0))) {
        no = "the new site id is another site's";
        rc = ERR_EXISTS;
    }
    if (no != NULL) {
        wan_asked_answer(v, rc == ERR_BUSY ? 503 : 403, rc, no);
        return;
    }
    if (q != NULL && p->gone && !unknown) { /* it asks again */
        wan_asked_answer(v, q->gone ? 403 : 200, q->gone ? ERR_EXISTS : 0,
                         "the new site id has left");
        return;
    }
    struct let_in_call *c = mem_calloc(1, sizeof *c);
    c->asked = v;
    c->before = r.before;
    c->after = r.after;
    memcpy(c->cert_sha256, fp, sizeof c->cert_sha256);
    memcpy(c->name, p->member.name, sizeof c->name);
    c->call.on_loop = let_in;
    c->call.done = was_let_in;
    c->call.release = let_in_release;
    wan_asked_call(v, &c->call);
}

void wan_return_serve(struct wan *w, struct h2_stream *s)
{
    wan_asked_serve(w, s,
                    &(struct wan_asked){.body_max = MSG_RETURN_MAX,
                                        .decide = serve_decide,
                                        .refused = "return_refused"});
}

/* --- who comes back --- */

struct wan_return {
    struct wan *wan;
    struct wan_admin_req *req; /* NULL: answered */
    site_id_t after;
    bool rolled_back;
    bool spent; /* somebody says that `after` has left, too: another one is drawn, once */
    bool redrawn;
    struct member others[SITE_COUNT_MAX]; /* who can be asked */
    uint32_t other_count, next;           /* the one that is asked is before `next` */
    struct h2_conn *conn;
    struct h2_stream *stream;
    int status;
    struct buf body;
    bool agreed, boot_saved;
    struct err_detail why; /* what the last one said */
    int rc;
};

static void ask_next(struct wan_return *g);
static void id_ask(struct wan_return *g);

static void return_end(struct wan_return *g, int rc, const char *text)
{
    struct wan *w = g->wan;
    w->returning = NULL;
    if (rc != 0 && !w->stopping)
        wan_boot_hold(w, false);
    if (g->conn != NULL) {
        h2_set_user(g->conn, NULL);
        h2_close(g->conn, ERR_CLOSED, "asked");
    }
    if (g->req != NULL)
        wan_admin_reply(g->req, rc, text);
    buf_deinit(&g->body);
    mem_free(g);
}

void wan_return_free(struct wan *w)
{
    if (w->returning == NULL)
        return;
    wan_admin_req_drop(w->returning->req); /* the loop that would hear it runs no more */
    w->returning->req = NULL;
    return_end(w->returning, ERR_CLOSED, "");
}

struct go_call {
    struct wan_call call;
    int rc;
    struct err_detail detail;
};

static void go_on_loop(struct wan_call *call)
{
    struct go_call *c = CONTAINER_OF(call, struct go_call, call);
    c->rc = node_return_go(call->wan->node, &c->detail);
    wan_call_return(call);
}

static void gone(struct wan_call *call)
{
    struct go_call *c = CONTAINER_OF(call, struct go_call, call);
    struct wan *w = call->wan;
    struct wan_return *g = w->returning;
    char text[160];
    if (c->rc != 0) {
        if (g->boot_saved)
            wan_boot_cancel(w, false);
        return_end(g, c->rc, c->detail.text[0] != '\0' ? c->detail.text : err_text(c->rc));
        return;
    }
    (void)snprintf(text, sizeof text,
                   "{\"before_id\":\"%08x\",\"after_id\":\"%08x\",\"from\":\"%s\"}", w->me.site,
                   g->after, wan_boot_from(w)->name); /* fits: names are 32 at most */
    return_end(g, 0, text);
}

static void agreed(struct wan_return *g)
{
    struct wan *w = g->wan;
    struct err_detail d;
    g->agreed = true;
    if (w->boot == NULL) { /* else it is the one that is remembered already */
        int rc = wan_boot_save(w, &g->others[g->next - 1], w->fs_id, &d);
        if (rc != 0) {
            return_end(g, rc, d.text);
            return;
        }
        g->boot_saved = true;
    }
    struct go_call *c = mem_calloc(1, sizeof *c);
    c->call.on_loop = go_on_loop;
    c->call.done = gone;
    wan_call_start(w, &c->call);
}

static struct wan_return *return_of(const struct h2_stream *s)
{
    struct wan_return *g = h2_user(h2_stream_conn(s));
    return g != NULL && g->stream == s ? g : NULL;
}

static void ask_response(struct h2_stream *s, int status)
{
    struct wan_return *g = return_of(s);
    if (g != NULL)
        g->status = status;
}

static void ask_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct wan_return *g = return_of(s);
    h2_consume(s, len);
    if (g != NULL && g->body.len + len <= WAN_ERROR_BODY_MAX)
        buf_append(&g->body, ptr, len);
}

static void ask_ended(struct h2_stream *s)
{
    struct wan_return *g = return_of(s);
    if (g == NULL || g->agreed)
        return;
    if (g->status == 200) {
        agreed(g);
        return;
    }
    g->rc = wan_response_error(g->status, &g->body, &g->why);
    g->spent = g->spent || g->rc == ERR_EXISTS;
    h2_close(h2_stream_conn(s), g->rc, g->why.text); /* the next is asked when it is closed */
}

static void ask_stream_closed(struct h2_stream *s, int rc)
{
    struct wan_return *g = return_of(s);
    (void)rc;
    if (g == NULL)
        return;
    g->stream = NULL;
    if (!g->agreed)
        h2_close(h2_stream_conn(s), ERR_CLOSED, "it gave no answer");
}

static const struct h2_stream_events ask_stream_events = {
    .response = ask_response, .data = ask_data, .ended = ask_ended, .closed = ask_stream_closed};

static bool ask_ready(struct h2_conn *c)
{
    struct wan_return *g = h2_user(c);
    struct wan *w = g->wan;
    struct buf body = {0};
    struct msg_return r = {.before = w->me.site, .after = g->after};
    memcpy(r.fs_id, w->fs_id, sizeof r.fs_id);
    msg_return_encode(&r, &body);
    g->stream = h2_request(c, "POST", "/v1/return", &ask_stream_events, NULL);
    if (g->stream != NULL) {
        h2_write(g->stream, body.ptr, body.len);
        h2_end(g->stream);
    }
    buf_deinit(&body);
    return g->stream != NULL;
}

static void ask_closed(struct h2_conn *c, int rc, const char *why)
{
    struct wan_return *g = h2_user(c);
    if (g == NULL)
        return;
    g->conn = NULL;
    g->stream = NULL;
    if (g->agreed || g->wan->stopping)
        return; /* the rest does not need this connection */
    if (g->rc == 0) {
        g->rc = rc;
        err_detail_set(&g->why, "%s", why);
    }
    ask_next(g);
}

static const struct h2_conn_events ask_events = {.ready = ask_ready, .closed = ask_closed};

static void ask_next(struct wan_return *g)
{
    struct err_detail d;
    if (g->next == g->other_count && g->spent && !g->redrawn) {
        g->redrawn = true;
        g->next = 0;
    }
    if (g->next == g->other_count) {
        if (g->rc != 0)
            err_detail_set(&d, "no other site takes this one back now: %s", g->why.text);
        else
            err_detail_set(&d, "no other site has an address at which it could be asked: let one "
                               "listen (--wan), or pair anew");
        return_end(g, g->rc != 0 ? g->rc : ERR_NOT_FOUND, d.text);
        return;
    }
    id_ask(g);
}

static void ask(struct wan_return *g)
{
    const struct member *m = &g->others[g->next++];
    g->rc = 0;
    g->status = 0;
    buf_clear(&g->body);
    g->conn = h2_dial(&g->wan->net, m->wan, H2_ASKS, m->cert_sha256, &ask_events, g);
}

struct id_call {
    struct wan_call call;
    bool rolled_back, another;
    site_id_t asked, after;
    int rc;
    struct err_detail detail;
};

static void id_on_loop(struct wan_call *call)
{
    struct id_call *c = CONTAINER_OF(call, struct id_call, call);
    c->rc = node_return_id(call->wan->node, c->rolled_back, c->another, c->asked, &c->after,
                           &c->detail);
    wan_call_return(call);
}

static void id_known(struct wan_call *call)
{
    struct id_call *c = CONTAINER_OF(call, struct id_call, call);
    struct wan_return *g = call->wan->returning;
    if (c->rc != 0) {
        return_end(g, c->rc, c->detail.text[0] != '\0' ? c->detail.text : err_text(c->rc));
        return;
    }
    g->after = c->after;
    ask(g);
}

static bool says_removed(const struct wan_peer *p)
{
    return !p->gone && p->trouble_rc == ERR_REMOVED;
}

static void id_ask(struct wan_return *g)
{
    struct id_call *c = mem_calloc(1, sizeof *c);
    c->rolled_back = g->rolled_back;
    c->another = g->redrawn;
    c->asked = g->others[g->next].site;
    c->call.on_loop = id_on_loop;
    c->call.done = id_known;
    wan_call_start(g->wan, &c->call);
}

/* Has somebody said that this site cannot go on as it is? */
static bool is_out(const struct wan *w, bool *ret_rolled_back)
{
    bool out = w->rolled_back || w->removed || wan_boot_is_refused(w);
    bool stranger = false, talks = false;
    *ret_rolled_back = w->rolled_back;
    for (const struct wan_peer *p = w->peers; p != NULL; p = p->next) {
        if (p->gone)
            continue;
        out = out || says_removed(p) || p->trouble == TROUBLE_SNAPSHOT;
        stranger = stranger || p->trouble_rc == ERR_STRANGER;
        talks = talks || p->recv.state == RECV_RUNNING || p->send != NULL;
        *ret_rolled_back = *ret_rolled_back || p->trouble == TROUBLE_SNAPSHOT;
    }
    return out || (stranger && !talks); /* else it is far from who let it in, and will hear of it */
}

/* The list comes with the tree, so before that there is only the one whose tree it is to be. */
static void others_take(struct wan_return *g)
{
    const struct wan *w = g->wan;
    bool said = false;
    if (w->boot != NULL)
        g->others[g->other_count++] = *wan_boot_from(w);
    for (const struct wan_peer *p = w->peers; p != NULL; p = p->next)
        said = said || says_removed(p);
    for (const struct wan_peer *p = w->peers; p != NULL && w->boot == NULL; p = p->next)
        if (!p->gone && (!said || says_removed(p)) && p->member.wan[0] != '\0' &&
            g->other_count < SITE_COUNT_MAX)
            g->others[g->other_count++] = p->member;
}

void wan_return_begin(struct wan *w, struct wan_admin_req *r)
{
    bool rolled_back;
    if (w->returning != NULL || w->pairing != NULL ||
        (w->boot != NULL && !wan_boot_is_refused(w))) {
        wan_admin_reply(r, ERR_BUSY, "the site is joining or coming back already: see its status");
        return;
    }
    if (!is_out(w, &rolled_back)) {
        wan_admin_reply(r, ERR_INVALID,
                        "this site is a member in good order as far as it knows: nothing is to be "
                        "done; if it was away, let it reach another site first (claudefs status)");
        return;
    }
    struct wan_return *g = mem_calloc(1, sizeof *g);
    g->wan = w;
    g->req = r;
    w->returning = g;
    others_take(g);
    wan_boot_hold(w, true);
    g->rolled_back = rolled_back;
    ask_next(g);
}
