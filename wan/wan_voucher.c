/* A site that is a member, and a stranger to another member: the one that let it in may be lost,
 * and with it the operation that says so (voucher.h).
 *
 * Each snapshot ends with a voucher; DIR/wan_voucher keeps it. When a peer answers that it does not
 * know our certificate, it is shown over the same connection: `POST /v1/member`. Who is asked lets
 * the site in when a member has signed that, of this very certificate; so it lets in nobody whom
 * that member could not have let in by itself. If the one that signed has left meanwhile, because
 * it was away, the site enters and leaves as such at once: what it did without the others comes
 * back as that of any site that was away (site return). The word of a site that an operator has
 * removed, under whichever of its ids, is worth nothing, until one lets that site come back; and
 * who was removed under another id gets in by nobody's word. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "wan/voucher.h"
#include "wan/wan_file.h"
#include "wan/wan_int.h"

#define VOUCHER_FILE "wan_voucher"
#define STRANGER_NS (2 * NS_PER_SEC) /* as a rule the operation that tells of us is on its way */

/* --- the site's own --- */

int wan_voucher_load(struct wan *w, struct err_detail *d)
{
    int rc = wan_file_read(w->dir, VOUCHER_FILE, &w->voucher, d);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int wan_voucher_save(struct wan *w, struct slice voucher, struct err_detail *d)
{
    bool comes = voucher.len > 0 && voucher.len <= VOUCHER_MAX;
    int rc = comes ? wan_file_write(w->dir, VOUCHER_FILE, 0600, voucher, d)
                   : wan_file_remove(w->dir, VOUCHER_FILE, d);
    if (rc != 0 && (comes || rc != ERR_NOT_FOUND))
        return rc;
    buf_clear(&w->voucher);
    if (comes)
        buf_append(&w->voucher, voucher.ptr, voucher.len);
    return 0;
}

void wan_voucher_make(struct wan *w, const struct member *m, struct buf *out)
{
    uint8_t signature[SIGNATURE_BYTES];
    struct buf said = {0};
    struct voucher v = {.by = w->me.site, .at_ms = wan_wall_ns(w) / NS_PER_MS, .site = m->site};
    memcpy(v.fs_id, w->fs_id, sizeof v.fs_id);
    (void)snprintf(v.name, sizeof v.name, "%s", m->name);      /* fits */
    (void)snprintf(v.address, sizeof v.address, "%s", m->wan); /* fits */
    memcpy(v.fingerprint, m->cert_sha256, sizeof v.fingerprint);
    voucher_said(&v, &said);
    int rc = wan_identity_sign(&w->identity, buf_slice(&said), signature);
    if (rc == 0)
        voucher_encode(&v, signature, out);
    else
        log_warn(LOG_WAN, "no_voucher", "peer=%s code=%s", m->name, err_name(rc));
    buf_deinit(&said);
}

/* --- who is asked --- */

struct let_in_call {
    struct wan_call call;
    struct wan_asked *asked;
    struct voucher voucher;
    uint8_t signature[SIGNATURE_BYTES];
    struct member member;
    struct buf cert;     /* of the member */
    bool by_known, away; /* who signed */
    uint8_t by_sha256[FINGERPRINT_BYTES];
    bool removed; /* that site, or the one that shows it */
    int rc;
};

static void entered(void *ctx, int rc)
{
    struct let_in_call *c = ctx;
    c->rc = rc;
    wan_call_return(&c->call);
}

static bool find_signer(void *ctx, const struct member *m)
{
    struct let_in_call *c = ctx;
    struct buf said = {0};
    if (m->site != c->voucher.by)
        return true;
    voucher_said(&c->voucher, &said);
    c->rc = wan_signature_check(m->cert, buf_slice(&said), c->signature);
    memcpy(c->by_sha256, m->cert_sha256, sizeof c->by_sha256);
    c->by_known = true;
    c->away = m->status != MEMBER_IS;
    buf_deinit(&said);
    return false;
}

static bool find_removed(void *ctx, const struct member *m)
{
    struct let_in_call *c = ctx;
    bool is_by = c->away && memcmp(m->cert_sha256, c->by_sha256, sizeof c->by_sha256) == 0;
    bool is_own = memcmp(m->cert_sha256, c->voucher.fingerprint, FINGERPRINT_BYTES) == 0;
    c->removed = (is_by || is_own) && m->status != MEMBER_IS && m->why == LEAVES_REMOVED;
    return !c->removed;
}

static void let_in(struct wan_call *call)
{
    struct let_in_call *c = CONTAINER_OF(call, struct let_in_call, call);
    struct node *n = call->wan->node;
    int rc = node_members(n, find_signer, c);
    if (rc == 0)
        rc = node_members(n, find_removed, c);
    if (rc == 0)
        rc = c->by_known && !c->removed ? c->rc : ERR_AUTH;
    if (rc != 0)
        entered(c, rc);
    else if (c->away)
        node_member_bring(n, &c->member, LEAVES_AWAY, entered, c);
    else
        node_member_set(n, &c->member, entered, c);
}

static void refuse(struct wan_asked *a, int status, int rc, const char *text)
{
    struct wan *w = a->wan;
    if (a->stream != NULL)
        attempts_fail(&w->attempts, h2_source(h2_stream_conn(a->stream)), wan_now_ns(w));
    wan_asked_answer(a, status, rc, text);
}

static void was_let_in(struct wan_call *call)
{
    struct let_in_call *c = CONTAINER_OF(call, struct let_in_call, call);
    if (c->rc == 0 && !c->away) {
        wan_member_known(call->wan, &c->member);
        struct wan_peer *p = wan_peer_by_site(call->wan, c->member.site);
        if (p != NULL && p->recv.state == RECV_IDLE && p->send == NULL)
            wan_peer_lag_since(p, c->voucher.at_ms);
    }
    if (c->rc == 0)
        log_info(LOG_WAN, c->away ? "vouched_leaves" : "vouched", "peer=%s site=%08x by=%08x",
                 c->member.name, c->member.site, c->voucher.by);
    wan_members_fetch(call->wan);
    if (c->asked->stream == NULL)
        return;
    if (c->rc == ERR_AUTH || c->rc == ERR_MALFORMED)
        refuse(c->asked, 403, ERR_AUTH, "the site that it says has let it in did not sign that");
    else
        wan_asked_answer(c->asked, c->rc == 0 ? 200 : 503, c->rc,
                         "the journal cannot be written there");
}

static void let_in_release(struct wan_call *call)
{
    struct let_in_call *c = CONTAINER_OF(call, struct let_in_call, call);
    buf_deinit(&c->cert);
    wan_asked_called(c->asked);
}

/* Is it the voucher of who shows it, in this file system? */
static bool is_its_own(struct wan_asked *a, const struct voucher *v, struct slice pem)
{
    uint8_t fp[FINGERPRINT_BYTES];
    return memcmp(v->fs_id, a->wan->fs_id, FS_ID_BYTES) == 0 && wan_fingerprint_pem(pem, fp) == 0 &&
           memcmp(v->fingerprint, fp, sizeof fp) == 0 &&
           memcmp(h2_fingerprint(h2_stream_conn(a->stream)), fp, sizeof fp) == 0;
}

/* Why not, or NULL; *ret_known: it is a member already, or was one. */
static const char *no_entry(struct wan *w, const struct voucher *v, int *ret_rc, bool *ret_known)
{
    const struct wan_peer *p = wan_peer_by_site(w, v->site), *by = wan_peer_by_site(w, v->by);
    *ret_known = p != NULL && memcmp(p->member.cert_sha256, v->fingerprint, FINGERPRINT_BYTES) == 0;
    *ret_rc = ERR_EXISTS;
    if (v->site == w->me.site || (p != NULL && !*ret_known))
        return "this site id is another site's";
    *ret_rc = ERR_AUTH;
    if (by == NULL && p == NULL)
        return "neither this site nor the one that let it in is known there: pair first";
    if (p == NULL && wan_was_removed(w, v->fingerprint))
        return "this site was removed by an operator, under another id: claudefs peer readmit, "
               "there, "
               "lets it come back";
    if (p == NULL && by->gone && wan_was_removed(w, by->member.cert_sha256))
        return "the site that let this one in was removed by an operator: claudefs peer readmit of "
               "that one, there, lets both come back";
    return NULL;
}

static void decide(struct wan_asked *a)
{
    struct wan *w = a->wan;
    struct slice pem;
    bool known;
    int rc;
    if (!attempts_allow(&w->attempts, h2_source(h2_stream_conn(a->stream)), wan_now_ns(w))) {
        wan_asked_answer(a, 429, ERR_AGAIN, "too many attempts: it is tried again");
        return;
    }
    if (w->boot != NULL || w->pairing != NULL || w->removed || w->rolled_back || w->stopping) {
        wan_asked_answer(a, 503, ERR_AGAIN, "the other site is not in order itself");
        return;
    }
    struct let_in_call *c = mem_calloc(1, sizeof *c);
    rc = a->too_long ? ERR_TOO_BIG
                     : voucher_request_decode(buf_slice(&a->body), &c->voucher, c->signature, &pem);
    const char *no = rc == 0 ? NULL : "what a member says of this site cannot be read";
    if (rc == 0 && !is_its_own(a, &c->voucher, pem)) {
        rc = ERR_AUTH;
        no = "it is another site's voucher, or of another file system";
    }
    if (rc == 0)
        no = no_entry(w, &c->voucher, &rc, &known);
    if (no != NULL || known) {
        mem_free(c);
        if (no != NULL)
            refuse(a, 403, rc, no);
        else
            wan_asked_answer(a, 200, 0, "");
        return;
    }
    c->asked = a;
    buf_append(&c->cert, pem.ptr, pem.len);
    c->member = (struct member){.site = c->voucher.site, .cert = buf_slice(&c->cert)};
    (void)snprintf(c->member.name, sizeof c->member.name, "%s", c->voucher.name);  /* fits */
    (void)snprintf(c->member.wan, sizeof c->member.wan, "%s", c->voucher.address); /* fits */
    memcpy(c->member.cert_sha256, c->voucher.fingerprint, sizeof c->member.cert_sha256);
    c->call.on_loop = let_in;
    c->call.done = was_let_in;
    c->call.release = let_in_release;
    wan_asked_call(a, &c->call);
}

void wan_voucher_serve(struct wan *w, struct h2_stream *s)
{
    wan_asked_serve(w, s,
                    &(struct wan_asked){.body_max = VOUCHER_REQUEST_MAX,
                                        .decide = decide,
                                        .refused = "voucher_refused"});
}

/* --- who asks --- */

struct shown_voucher {
    struct wan_peer *peer;
    int status;
    bool answered;
    struct buf body;
};

static void show_response(struct h2_stream *s, int status)
{
    struct shown_voucher *v = h2_stream_user(s);
    v->status = status;
}

static void show_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct shown_voucher *v = h2_stream_user(s);
    h2_consume(s, len);
    if (v->body.len + len <= WAN_ERROR_BODY_MAX)
        buf_append(&v->body, ptr, len);
}

static void show_ended(struct h2_stream *s)
{
    struct shown_voucher *v = h2_stream_user(s);
    struct err_detail d;
    v->answered = true;
    if (v->peer->conn != h2_stream_conn(s))
        return;
    int rc = ERR_AGAIN;
    if (v->status == 200)
        err_detail_set(&d, "it knows this site from now on");
    else
        rc = wan_response_error(v->status, &v->body, &d);
    wan_recv_fail(v->peer, rc, d.text);
}

static void show_closed(struct h2_stream *s, int rc)
{
    struct shown_voucher *v = h2_stream_user(s);
    struct wan_peer *p = v->peer;
    /* When the connection ends, that says it better. */
    if (!v->answered && p->conn == h2_stream_conn(s) && h2_is_ready(p->conn))
        wan_recv_fail(p, rc != 0 ? rc : ERR_CLOSED, "it gave no answer");
    buf_deinit(&v->body);
    mem_free(v);
}

static const struct h2_stream_events show_events = {
    .response = show_response, .data = show_data, .ended = show_ended, .closed = show_closed};

bool wan_voucher_show(struct wan_peer *p, uint64_t now_ns)
{
    struct wan *w = p->wan;
    struct buf body = {0};
    if (p->stranger_ns == 0)
        p->stranger_ns = now_ns;
    if (now_ns - p->stranger_ns < STRANGER_NS || w->voucher.len == 0 || p->conn == NULL ||
        !h2_is_ready(p->conn))
        return false;
    struct shown_voucher *v = mem_calloc(1, sizeof *v);
    v->peer = p;
    struct h2_stream *s = h2_request(p->conn, "POST", WAN_VOUCHER_PATH, &show_events, v);
    if (s == NULL) {
        mem_free(v);
        return false;
    }
    voucher_request_encode(buf_slice(&w->voucher), buf_slice(&w->identity.pem), &body);
    h2_write(s, body.ptr, body.len);
    h2_end(s);
    buf_deinit(&body);
    return true;
}
