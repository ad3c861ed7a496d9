/* Pairing, both sides; the messages and proofs are in pair.h.
 *
 * Inviter: check the attempt's rate, find the invitation, verify the proof, mark the invitation
 * used (durably), journal both members, answer with the sealed key. Whatever fails after the mark
 * undoes it. Joiner: check the token, ask the node whether it is empty, dial the address in the
 * token and accept no certificate but the token's, prove the secret, open the answer, remember whom
 * to ask for the snapshot, adopt key and shard count, load the snapshot. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/node_return.h"
#include "wan/wan_file.h"
#include "wan/wan_int.h"

#define INVITES_FILE "invites.json"

static uint64_t wall_s(const struct wan *w)
{
    return wan_wall_ns(w) / NS_PER_SEC;
}

/* --- invitations --- */

int wan_invites_load(struct wan *w, struct err_detail *d)
{
    struct buf b = {0};
    int rc = wan_file_read(w->dir, INVITES_FILE, &b, d);
    if (rc == 0)
        rc = invites_from_json(buf_slice(&b), &w->invites, d);
    else if (rc == ERR_NOT_FOUND)
        rc = 0;
    buf_deinit(&b);
    return rc;
}

static int invites_save(struct wan *w, struct err_detail *d)
{
    char *text = invites_to_json(&w->invites);
    int rc = wan_file_write(w->dir, INVITES_FILE, 0600, slice_str(text), d);
    mem_free(text);
    return rc;
}

int wan_invite_make(struct wan *w,
                    uint64_t ttl_s,
                    const char *address,
                    char ret_token[TOKEN_TEXT_MAX],
                    uint64_t *ret_expires_s,
                    struct err_detail *d)
{
    char host[128], port[8];
    struct invite inv = {.expires_s = wall_s(w) + ttl_s};
    struct token t = {.expires_s = inv.expires_s};
    if (address == NULL)
        address = w->address;
    if (address[0] == '\0') {
        err_detail_set(d, "cannot invite: this site does not listen for others: set its `wan` "
                          "address and restart it");
        return ERR_CONFIG;
    }
    if (strlen(address) > TOKEN_ADDRESS_MAX || wan_address_split(address, host, port) != 0) {
        err_detail_set(d,
                       "cannot invite: \"%.127s\" is not HOST:PORT: give the address under which "
                       "the other site reaches this one",
                       address);
        return ERR_INVALID;
    }
    (void)snprintf(t.address, sizeof t.address, "%s", address); /* checked above */
    memcpy(t.fingerprint, w->identity.fingerprint, sizeof t.fingerprint);
    random_bytes(t.secret, sizeof t.secret);
    pair_key_make(t.secret, &inv.key);
    int rc = invites_add(&w->invites, &inv, wall_s(w));
    if (rc != 0) {
        err_detail_set(d, "cannot invite: %u invitations are open already: wait until some expire",
                       INVITES_MAX);
        return rc;
    }
    rc = invites_save(w, d);
    if (rc != 0) {
        w->invites.count--;
        return rc;
    }
    token_to_text(&t, ret_token);
    explicit_bzero(t.secret, sizeof t.secret);
    *ret_expires_s = inv.expires_s;
    log_info(LOG_WAN, "invited", "address=%s expires_in_s=%llu", address,
             (unsigned long long)ttl_s);
    return 0;
}

/* --- the inviter --- */

struct pair_serve {
    struct wan *wan;
    struct h2_stream *stream; /* NULL: gone */
    struct buf body;
    bool too_long;
    bool call_runs;
};
struct member_call {
    struct wan_call call;
    struct pair_serve *serve;
    struct invite_key key;
    struct member self, joiner;
    struct buf cert; /* of the joiner */
    int rc;
};

static void pair_serve_free(struct pair_serve *v)
{
    buf_deinit(&v->body);
    mem_free(v);
}

static void pair_refuse(struct pair_serve *v, int status, int rc, const char *text)
{
    struct h2_stream *s = v->stream;
    attempts_fail(&v->wan->attempts, h2_source(h2_stream_conn(s)), wan_now_ns(v->wan));
    log_warn(LOG_WAN, "pairing_refused", "code=%s why=\"%s\"", err_name(rc), text);
    wan_respond_error(s, status, rc, text); /* follows the stream from now on */
    v->stream = NULL;
    pair_serve_free(v);
}

static void joiner_set_done(void *ctx, int rc)
{
    struct member_call *c = ctx;
    c->rc = rc;
    wan_call_return(&c->call);
}

static void self_set_done(void *ctx, int rc)
{
    struct member_call *c = ctx;
    if (rc == 0)
        node_member_enter(c->call.wan->node, &c->joiner, joiner_set_done, c);
    else
        joiner_set_done(ctx, rc);
}

static void members_set(struct wan_call *call)
{
    struct member_call *c = CONTAINER_OF(call, struct member_call, call);
    node_member_set(call->wan->node, &c->self, self_set_done, c);
}

static void invite_unuse(struct wan *w, const struct invite_key *key)
{
    struct err_detail d;
    for (uint32_t i = 0; i < w->invites.count; i++)
        if (memcmp(w->invites.at[i].key.id, key->id, INVITE_ID_BYTES) == 0)
            w->invites.at[i].used_s = 0;
    int rc = invites_save(w, &d);
    if (rc != 0)
        log_warn(LOG_WAN, "invitation_lost", "why=\"%s\"", d.text);
}

static void members_were_set(struct wan_call *call)
{
    struct member_call *c = CONTAINER_OF(call, struct member_call, call);
    struct wan *w = call->wan;
    struct h2_stream *s = c->serve->stream;
    if (c->rc != 0) {
        log_error(LOG_WAN, "member_not_journaled", "code=%s", err_name(c->rc));
        invite_unuse(w, &c->key);
        if (s != NULL)
            wan_respond_error(s, 503, c->rc, "the inviting site cannot write its journal now");
        c->serve->stream = NULL;
        return;
    }
    log_info(LOG_WAN, "paired", "peer=%s site=%08x address=%s", c->joiner.name, c->joiner.site,
             c->joiner.wan[0] != '\0' ? c->joiner.wan : "none");
    wan_member_known(w, &c->joiner); /* it asks for its snapshot at once */
    if (s == NULL)
        return;
    struct buf sealed = {0};
    struct pair_grant g = {.shard_count = w->me.shard_count,
                           .inviter = {.site = w->me.site, .cert = buf_slice(&w->identity.pem)}};
    memcpy(g.fs_key, w->fs_key, sizeof g.fs_key);
    (void)snprintf(g.inviter.name, sizeof g.inviter.name, "%s", w->me.name);       /* fits */
    (void)snprintf(g.inviter.address, sizeof g.inviter.address, "%s", w->address); /* fits */
    pair_grant_seal(&g, &c->key, &sealed);
    explicit_bzero(&g, sizeof g);
    h2_respond(s, 200);
    h2_write(s, sealed.ptr, sealed.len);
    h2_end(s);
    buf_deinit(&sealed);
}

static void member_release(struct wan_call *call)
{
    struct member_call *c = CONTAINER_OF(call, struct member_call, call);
    buf_deinit(&c->cert);
    c->serve->call_runs = false;
    if (c->serve->stream == NULL)
        pair_serve_free(c->serve);
}

/* A name or a site id must not mean two sites. */
static const char *joiner_clash(struct wan *w, const struct pair_site *j, const uint8_t *fp)
{
    const struct wan_peer *p = wan_peer_by_name(w, j->name);
    if (j->site == w->me.site)
        return "both sites have the same site id: one is a copy of the other: make the new site "
               "with `claudefs site create`";
    if (strcmp(j->name, w->me.name) == 0 ||
        (p != NULL && !p->gone && memcmp(p->member.cert_sha256, fp, FINGERPRINT_BYTES) != 0))
        return "another member has this name: make the new site with another name";
    p = wan_peer_by_site(w, j->site);
    if (p != NULL && (p->gone || memcmp(p->member.cert_sha256, fp, FINGERPRINT_BYTES) != 0))
        return "this site id is or was a member: make a new site with `claudefs site create`";
    return NULL;
}

static void joiner_enter(struct pair_serve *v,
                         const struct invite_key *key,
                         const struct pair_site *j,
                         const uint8_t *fp)
{
    struct member_call *c = mem_calloc(1, sizeof *c);
    c->serve = v;
    c->key = *key;
    wan_member_self(v->wan, &c->self);
    buf_append(&c->cert, j->cert.ptr, j->cert.len);
    c->joiner = (struct member){.site = j->site, .cert = buf_slice(&c->cert)};
    (void)snprintf(c->joiner.name, sizeof c->joiner.name, "%s", j->name);  /* fits */
    (void)snprintf(c->joiner.wan, sizeof c->joiner.wan, "%s", j->address); /* fits */
    memcpy(c->joiner.cert_sha256, fp, sizeof c->joiner.cert_sha256);
    c->call.on_loop = members_set;
    c->call.done = members_were_set;
    c->call.release = member_release;
    v->call_runs = true;
    wan_call_start(v->wan, &c->call);
}

/* The proof, then the mark, then the members. */
static void pair_decide(struct pair_serve *v)
{
    struct wan *w = v->wan;
    struct h2_conn *conn = h2_stream_conn(v->stream);
    struct slice said = buf_slice(&v->body);
    struct pair_channel ch;
    struct pair_site joiner;
    struct invite *inv = NULL;
    struct err_detail d;
    uint8_t id[INVITE_ID_BYTES], cert_fp[FINGERPRINT_BYTES];
    int rc = pair_request_decode(said, id, &joiner);
    if (rc != 0) {
        pair_refuse(v, 400, rc,
                    rc == ERR_VERSION ? "the two sites run versions that cannot pair"
                                      : "the request to pair cannot be read");
        return;
    }
    memcpy(ch.inviter, w->identity.fingerprint, sizeof ch.inviter);
    memcpy(ch.joiner, h2_fingerprint(conn), sizeof ch.joiner);
    rc = h2_exporter(conn, ch.exporter, sizeof ch.exporter);
    if (rc == 0)
        rc = wan_fingerprint_pem(joiner.cert, cert_fp);
    if (rc != 0 || memcmp(cert_fp, ch.joiner, sizeof cert_fp) != 0) {
        pair_refuse(v, 403, ERR_AUTH, "the certificate is not the connection's");
        return;
    }
    rc = invites_find(&w->invites, id, ch.joiner, wall_s(w), &inv, &d);
    if (rc != 0) {
        pair_refuse(v, 403, rc, d.text);
        return;
    }
    if (pair_request_verify(said, &inv->key, &ch) != 0) {
        pair_refuse(v, 403, ERR_AUTH, "the token's secret was not proven");
        return;
    }
    const char *clash = joiner_clash(w, &joiner, ch.joiner);
    if (clash != NULL) {
        pair_refuse(v, 403, ERR_EXISTS, clash);
        return;
    }
    struct invite_key key = inv->key;
    inv->used_s = wall_s(w);
    memcpy(inv->used_by, ch.joiner, sizeof inv->used_by);
    rc = invites_save(w, &d);
    if (rc != 0) {
        inv->used_s = 0;
        pair_refuse(v, 503, rc, d.text);
        return;
    }
    joiner_enter(v, &key, &joiner, ch.joiner);
}

static void serve_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct pair_serve *v = h2_stream_user(s);
    h2_consume(s, len);
    if (v->body.len + len > PAIR_REQUEST_MAX)
        v->too_long = true;
    else
        buf_append(&v->body, ptr, len);
}

static void serve_ended(struct h2_stream *s)
{
    struct pair_serve *v = h2_stream_user(s);
    struct wan *w = v->wan;
    if (!attempts_allow(&w->attempts, h2_source(h2_stream_conn(s)), wan_now_ns(w)))
        pair_refuse(v, 429, ERR_AGAIN, "too many attempts to pair: wait a minute and try again");
    else if (w->boot != NULL || w->removed || w->rolled_back)
        pair_refuse(v, 503, ERR_BUSY, "the inviting site is not in order itself: see its status");
    else if (v->too_long)
        pair_refuse(v, 400, ERR_TOO_BIG, "the request to pair is too long");
    else
        pair_decide(v);
}

static void serve_closed(struct h2_stream *s, int rc)
{
    struct pair_serve *v = h2_stream_user(s);
    (void)rc;
    v->stream = NULL;
    if (!v->call_runs)
        pair_serve_free(v);
}

static const struct h2_stream_events serve_events = {
    .data = serve_data, .ended = serve_ended, .closed = serve_closed};

void wan_pair_serve(struct wan *w, struct h2_stream *s)
{
    struct pair_serve *v = mem_calloc(1, sizeof *v);
    v->wan = w;
    v->stream = s;
    h2_follow(s, &serve_events, v);
}

/* --- the joiner --- */

struct wan_pairing {
    struct wan *wan;
    struct token token;
    struct h2_conn *conn;
    struct h2_stream *stream;
    int status;
    struct buf body;
    struct member inviter;
    bool granted; /* the answer was opened; what follows is the node's */
    wan_accept_done done;
    void *ctx;
};

static void pairing_end(struct wan_pairing *g, int rc, const char *text)
{
    struct wan *w = g->wan;
    w->pairing = NULL;
    if (rc != 0)
        wan_boot_hold(w, false); /* who was asked before, if anybody, is asked again */
    if (g->conn != NULL) {
        h2_set_user(g->conn, NULL);
        h2_close(g->conn, ERR_CLOSED, "paired");
    }
    if (g->done != NULL)
        g->done(g->ctx, rc, text, &g->inviter);
    explicit_bzero(&g->token, sizeof g->token);
    buf_deinit(&g->body);
    mem_free(g);
}

void wan_pairing_free(struct wan *w)
{
    if (w->pairing == NULL)
        return;
    w->pairing->done = NULL; /* the loop that would hear it runs no more */
    pairing_end(w->pairing, ERR_CLOSED, "");
}

static void boot_done(void *ctx, int rc, const char *text)
{
    struct wan_pairing *g = ctx;
    char why[600];
    if (rc == 0) {
        pairing_end(g, 0, "");
        return;
    }
    (void)snprintf(
        why, sizeof why,
        "paired with %s, but its snapshot is not here yet: %s: this is tried again until "
        "it works; see the status",
        g->inviter.name, text); /* cut if need be */
    pairing_end(g, rc, why);
}

struct adopt_call {
    struct wan_call call;
    uint8_t fs_key[32];
    unsigned shard_count;
    int rc;
    bool joins; /* if not now, then from its next start on */
    struct err_detail detail;
    struct wan_settings_copy settings;
};

static void adopt_on_loop(struct wan_call *call)
{
    struct adopt_call *c = CONTAINER_OF(call, struct adopt_call, call);
    c->rc = node_adopt(call->wan->node, c->fs_key, c->shard_count, &c->detail);
    c->joins = node_needs_snapshot(call->wan->node);
    wan_settings_copy(call->wan, &c->settings);
    wan_call_return(call);
}

static void adopted(struct wan_call *call)
{
    struct adopt_call *c = CONTAINER_OF(call, struct adopt_call, call);
    struct wan *w = call->wan;
    struct wan_pairing *g = w->pairing;
    if (c->rc != 0) {
        wan_boot_cancel(w, c->joins);
        pairing_end(g, c->rc, c->detail.text[0] != '\0' ? c->detail.text : err_text(c->rc));
        return;
    }
    wan_settings_use(w, &c->settings);
    log_info(LOG_WAN, "adopted", "inviter=%s shards=%u", g->inviter.name, c->shard_count);
    wan_boot_begin(w, boot_done, g);
}

static void adopt_release(struct wan_call *call)
{
    struct adopt_call *c = CONTAINER_OF(call, struct adopt_call, call);
    explicit_bzero(c->fs_key, sizeof c->fs_key);
    explicit_bzero(&c->settings, sizeof c->settings);
}

static void grant_use(struct wan_pairing *g)
{
    struct wan *w = g->wan;
    struct buf plain = {0};
    struct pair_grant grant;
    struct err_detail d;
    int rc = pair_grant_open(buf_slice(&g->body), g->token.secret, &plain, &grant);
    if (rc != 0) {
        buf_deinit(&plain);
        pairing_end(g, rc, "the inviting site's answer cannot be opened with this token");
        return;
    }
    g->granted = true;
    g->inviter.site = grant.inviter.site;
    memcpy(g->inviter.cert_sha256, g->token.fingerprint, FINGERPRINT_BYTES);
    (void)snprintf(g->inviter.name, sizeof g->inviter.name, "%s", grant.inviter.name); /* fits */
    (void)snprintf(g->inviter.wan, sizeof g->inviter.wan, "%s", g->token.address);     /* fits */
    uint8_t fs_id[FS_ID_BYTES];
    fs_id_make(grant.fs_key, fs_id);
    rc = wan_boot_save(w, &g->inviter, fs_id, &d);
    if (rc == 0) {
        struct adopt_call *c = mem_calloc(1, sizeof *c);
        memcpy(c->fs_key, grant.fs_key, sizeof c->fs_key);
        c->shard_count = grant.shard_count;
        c->call.on_loop = adopt_on_loop;
        c->call.done = adopted;
        c->call.release = adopt_release;
        wan_call_start(w, &c->call);
    }
    explicit_bzero(&grant, sizeof grant);
    explicit_bzero(plain.ptr, plain.len);
    buf_deinit(&plain);
    if (rc != 0)
        pairing_end(g, rc, d.text);
}

static struct wan_pairing *pairing_of(const struct h2_stream *s)
{
    struct wan_pairing *g = h2_user(h2_stream_conn(s));
    return g != NULL && g->stream == s ? g : NULL;
}

static void join_response(struct h2_stream *s, int status)
{
    struct wan_pairing *g = pairing_of(s);
    if (g != NULL)
        g->status = status;
}

static void join_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    struct wan_pairing *g = pairing_of(s);
    h2_consume(s, len);
    if (g != NULL && g->body.len + len <= PAIR_REQUEST_MAX)
        buf_append(&g->body, ptr, len);
}

static void join_ended(struct h2_stream *s)
{
    struct wan_pairing *g = pairing_of(s);
    struct err_detail d, why;
    if (g == NULL || g->granted)
        return;
    if (g->status == 200) {
        grant_use(g);
        return;
    }
    int rc = wan_response_error(g->status, &g->body, &d);
    err_detail_set(&why, "the inviting site refuses: %s", d.text);
    pairing_end(g, rc, why.text);
}

static void join_stream_closed(struct h2_stream *s, int rc)
{
    struct wan_pairing *g = pairing_of(s);
    (void)rc; /* the connection's end says it better */
    if (g == NULL)
        return;
    g->stream = NULL;
    if (!g->granted)
        h2_close(h2_stream_conn(s), ERR_CLOSED, "the inviting site gave no answer");
}

static const struct h2_stream_events join_stream_events = {
    .response = join_response,
    .data = join_data,
    .ended = join_ended,
    .closed = join_stream_closed,
};

static bool join_ready(struct h2_conn *c)
{
    struct wan_pairing *g = h2_user(c);
    struct wan *w = g->wan;
    struct pair_channel ch;
    struct pair_site me = {.site = w->me.site, .cert = buf_slice(&w->identity.pem)};
    struct buf body = {0};
    if (h2_exporter(c, ch.exporter, sizeof ch.exporter) != 0)
        return false;
    memcpy(ch.inviter, h2_fingerprint(c), sizeof ch.inviter);
    memcpy(ch.joiner, w->identity.fingerprint, sizeof ch.joiner);
    (void)snprintf(me.name, sizeof me.name, "%s", w->me.name);       /* fits */
    (void)snprintf(me.address, sizeof me.address, "%s", w->address); /* fits */
    pair_request_encode(g->token.secret, &ch, &me, &body);
    g->stream = h2_request(c, "POST", "/v1/pair", &join_stream_events, NULL);
    if (g->stream != NULL) {
        h2_write(g->stream, body.ptr, body.len);
        h2_end(g->stream);
    }
    buf_deinit(&body);
    return g->stream != NULL;
}

static void join_closed(struct h2_conn *c, int rc, const char *why)
{
    struct wan_pairing *g = h2_user(c);
    struct err_detail d;
    if (g == NULL)
        return;
    g->conn = NULL;
    g->stream = NULL;
    if (g->granted || g->wan->stopping)
        return; /* the rest does not need this connection */
    err_detail_set(&d, "cannot pair with %s: %s", g->token.address, why);
    pairing_end(g, rc, d.text);
}

static const struct h2_conn_events join_events = {.ready = join_ready, .closed = join_closed};

struct empty_call {
    struct wan_call call;
    bool empty, returns;
};

static void empty_on_loop(struct wan_call *call)
{
    struct empty_call *c = CONTAINER_OF(call, struct empty_call, call);
    struct node *n = call->wan->node;
    c->returns = node_is_returning(n);
    c->empty = node_is_empty(n) || (node_needs_snapshot(n) && !c->returns);
    wan_call_return(call);
}

static void empty_known(struct wan_call *call)
{
    struct empty_call *c = CONTAINER_OF(call, struct empty_call, call);
    struct wan *w = call->wan;
    struct wan_pairing *g = w->pairing;
    if (!c->empty) {
        pairing_end(g, ERR_NOT_EMPTY,
                    "cannot accept: this site holds data or has peers already: only a new site can "
                    "join: invite from here instead, or make another site with `claudefs site "
                    "create`");
        return;
    }
    wan_boot_hold(w, true);
    g->conn = h2_dial(&w->net, g->token.address, H2_ASKS, g->token.fingerprint, &join_events, g);
}

/* What can be said without asking anybody; 0 when the token may be tried. */
static int token_check(struct wan *w, const char *text, struct token *ret, struct err_detail *d)
{
    /* Whoever invited it may be lost for ever: then another one's token does as well. */
    if (w->pairing != NULL || w->returning != NULL || (w->boot != NULL && !wan_boot_is_idle(w))) {
        err_detail_set(d,
                       "cannot accept: this site is joining already, and hears from the site that "
                       "invited it: see its status; if that ends, try again");
        return ERR_BUSY;
    }
    int rc = token_from_text(text, ret, d);
    if (rc != 0)
        return rc;
    if (ret->expires_s <= wall_s(w)) {
        err_detail_set(d,
                       "the token has expired %llu s ago (by this machine's clock): make "
                       "another with `peer invite`",
                       (unsigned long long)(wall_s(w) - ret->expires_s));
        return ERR_TIMEOUT;
    }
    if (memcmp(ret->fingerprint, w->identity.fingerprint, FINGERPRINT_BYTES) == 0) {
        err_detail_set(d, "the token was made by this very site: use it at the other one");
        return ERR_INVALID;
    }
    return 0;
}

void wan_accept(struct wan *w, const char *token, wan_accept_done done, void *ctx)
{
    struct err_detail d;
    struct token t;
    int rc = token_check(w, token, &t, &d);
    if (rc != 0) {
        done(ctx, rc, d.text, NULL);
        return;
    }
    struct wan_pairing *g = mem_calloc(1, sizeof *g);
    struct empty_call *c = mem_calloc(1, sizeof *c);
    g->wan = w;
    g->token = t;
    g->done = done;
    g->ctx = ctx;
    w->pairing = g;
    c->call.on_loop = empty_on_loop;
    c->call.done = empty_known;
    wan_call_start(w, &c->call);
    explicit_bzero(&t, sizeof t);
}
