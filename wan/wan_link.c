/* Links: dialling peers, accepting theirs, and who may ask for what.
 *
 * Each site dials every peer that has an address, and asks it for its stream, chunks and snapshots;
 * so between two sites there are two connections, each with one direction's requests. A site that
 * cannot be dialled (it has no address, or nobody comes although it reaches the peer) dials a
 * second connection for the peer's requests: in HTTP/2 the peer is the client there. When a peer
 * dials in, it is reachable, and our own attempt need not wait out its back-off.
 *
 * An accepted connection whose certificate belongs to no member is a stranger: it may only pair. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/lacks.h"
#include "wan/wan_int.h"

#define STRANGER_NS (30 * NS_PER_SEC)
#define STRANGER_LOG_NS (10 * NS_PER_SEC)
#define REVERSE_AFTER_NS (3 * NS_PER_SEC) /* nobody dialled us for so long */
enum {
    BACKLOG = 64,
    STRANGERS_MAX = 32
};

/* --- trouble --- */

void wan_peer_trouble(struct wan_peer *p, enum wan_trouble what, int rc, const char *text)
{
    bool news = p->trouble != what || p->trouble_rc != rc;
    p->trouble = what;
    p->trouble_rc = rc;
    (void)snprintf(p->trouble_text, sizeof p->trouble_text, "%s", text); /* cut if need be */
    if (!news || what == TROUBLE_NONE)
        return;
    if (what == TROUBLE_LINK || what == TROUBLE_PAUSED)
        log_info(LOG_WAN, "peer_out_of_reach", "peer=%s code=%s why=\"%s\"", p->member.name,
                 err_name(rc), text);
    else
        log_error(LOG_WAN, "peer_trouble", "peer=%s code=%s why=\"%s\"", p->member.name,
                  err_name(rc), text);
}

void wan_rolled_back(struct wan *w, const char *by_whom, const char *how)
{
    if (w->rolled_back)
        return;
    w->rolled_back = true;
    (void)snprintf(w->rolled_back_text, sizeof w->rolled_back_text,
                   "this site was rolled back: %s has %s: restore the newest copy, or bring it "
                   "back as a new site: claudefs site return",
                   by_whom, how); /* cut if need be */
    log_error(LOG_WAN, "rolled_back", "why=\"%s\"", w->rolled_back_text);
    /* Softly: last frames may say why. */
    for (struct h2_conn *c = w->net.conns; c != NULL; c = h2_next(c))
        h2_close_soon(c, ERR_ROLLBACK, w->rolled_back_text);
}

/* --- dialling --- */

static void dial_reverse(struct wan_peer *p);

static bool dial_ready(struct h2_conn *c)
{
    struct wan_peer *p = h2_user(c);
    log_debug(LOG_WAN, "link_up", "peer=%s", p->member.name);
    wan_recv_start(p);
    wan_fetch_resume(p->wan);
    wan_pass_resume(p->wan);
    node_link_up(p->wan->node);
    return true;
}

static void redial(uv_timer_t *t)
{
    wan_peer_dial(CONTAINER_OF(t, struct wan_peer, redial));
}

static void dial_closed(struct h2_conn *c, int rc, const char *why)
{
    struct wan_peer *p = h2_user(c);
    struct wan *w = p->wan;
    if (p->conn != c)
        return; /* another one took its place */
    p->conn = NULL;
    wan_recv_stop(p);
    p->dials_failed++;
    if (p->trouble == TROUBLE_NONE || p->trouble == TROUBLE_LINK)
        wan_peer_trouble(p, rc == ERR_AUTH ? TROUBLE_REFUSED : TROUBLE_LINK, rc, why);
    if (w->stopping)
        return;
    wan_fetch_resume(w);
    wan_pass_resume(w);
    uint64_t wait_ms = backoff_next_ns(&p->backoff, &w->rng) / NS_PER_MS;
    int rc2 = uv_timer_start(&p->redial, redial, MAX(wait_ms, 1u), 0);
    ASSERT(rc2 == 0);
    wan_wait_check(w);
}

static const struct h2_conn_events dial_events = {.ready = dial_ready, .closed = dial_closed};

bool wan_peer_wanted(const struct wan_peer *p)
{
    const struct wan *w = p->wan;
    return !w->stopping && !w->removed && !w->rolled_back && w->boot == NULL && !p->gone &&
           !p->paused;
}

bool wan_peer_reached(const struct wan_peer *p)
{
    return wan_peer_wanted(p) && p->conn != NULL && h2_is_ready(p->conn);
}

static void dial_direct(struct wan_peer *p)
{
    if (p->conn != NULL)
        return;
    (void)uv_timer_stop(&p->redial); /* never fails */
    p->dialled_ns = wan_now_ns(p->wan);
    p->dials++;
    if (p->dials > 1)
        metric_add(&p->metrics.reconnects, 1);
    p->conn = h2_dial(&p->wan->net, p->member.wan, H2_ASKS, p->member.cert_sha256, &dial_events, p);
}

/* Does the peer need us to dial for its requests? */
static bool reverse_needed(const struct wan_peer *p, uint64_t now_ns)
{
    if (p->reverse != NULL || now_ns < p->reverse_next_ns)
        return false;
    if (p->wan->address[0] == '\0')
        return true;
    return p->conn != NULL && h2_is_ready(p->conn) && h2_was_dialled(p->conn) && p->accepted == 0 &&
           h2_age_ns(p->conn) > REVERSE_AFTER_NS;
}

void wan_peer_dial(struct wan_peer *p)
{
    if (!wan_peer_wanted(p) || p->member.wan[0] == '\0')
        return;
    dial_direct(p);
    if (reverse_needed(p, wan_now_ns(p->wan)))
        dial_reverse(p);
}

void wan_peer_kick(struct wan_peer *p)
{
    backoff_reset(&p->backoff);
    backoff_reset(&p->reverse_backoff);
    p->reverse_next_ns = 0;
    wan_peer_dial(p);
}

/* --- accepting --- */

/* Behind each connection of H2_SERVES. */
struct accepted {
    struct wan *wan;
    struct wan_peer *peer;    /* who asks; NULL: a stranger */
    bool counted;             /* in peer->accepted */
    struct wan_peer *lent_to; /* whom we dialled to be asked, or NULL; stays, whoever asks */
};

struct wan_peer *wan_conn_peer(const struct h2_conn *c)
{
    return ((const struct accepted *)h2_user(c))->peer;
}

static bool is_stranger(const struct h2_conn *c)
{
    const struct accepted *a = h2_user(c);
    return a->peer == NULL;
}

void wan_peer_cut(struct wan_peer *p, int rc, const char *why)
{
    if (p->conn != NULL)
        h2_close(p->conn, rc, why);
    for (struct h2_conn *c = p->wan->net.conns; c != NULL; c = h2_next(c))
        if (h2_purpose(c) == H2_SERVES && wan_conn_peer(c) == p)
            h2_close(c, rc, why);
}

const char *wan_peer_leaves_text(const struct wan_peer *p)
{
    return p->member.why == LEAVES_AWAY && !wan_was_removed(p->wan, p->member.cert_sha256)
               ? "this site was away for longer than journals are kept: it left the federation; "
                 "claudefs site return brings it back, with its own changes, as a new site"
               : "this site was removed from the federation by an operator: it can come back when "
                 "one at another site lets it: claudefs peer readmit there, then claudefs site "
                 "return here";
}

void wan_peer_dismiss(struct wan_peer *p)
{
    static const char why[] = "the site was removed";
    wan_send_farewell(p);
    if (p->conn != NULL)
        h2_close_soon(p->conn, ERR_REMOVED, why);
    for (struct h2_conn *c = p->wan->net.conns; c != NULL; c = h2_next(c))
        if (h2_purpose(c) == H2_SERVES && wan_conn_peer(c) == p)
            h2_close_soon(c, ERR_REMOVED, why);
}

bool wan_removed_there(const struct wan *w)
{
    bool any = false;
    for (const struct wan_peer *p = w->peers; p != NULL; p = p->next) {
        if (p->gone)
            continue;
        if (p->recv.state == RECV_RUNNING || p->send != NULL)
            return false;
        any = any || p->trouble_rc == ERR_REMOVED;
    }
    return any;
}

static bool is_of(const struct wan_peer *p, const struct h2_conn *c)
{
    return memcmp(p->member.cert_sha256, h2_fingerprint(c), FINGERPRINT_BYTES) == 0;
}

/* A peer that cannot be dialled lends us a connection for our requests. Of several ids with its
 * certificate those that want one take turns: only one of them is the site's. */
static bool accept_lent(struct h2_conn *c, struct accepted *a)
{
    struct wan_peer *p = NULL;
    for (struct wan_peer *q = a->wan->peers; q != NULL; q = q->next)
        if (is_of(q, c) && wan_peer_wanted(q) && (q->conn == NULL || !h2_is_ready(q->conn)) &&
            (p == NULL || q->dialled_ns < p->dialled_ns))
            p = q;
    if (p == NULL)
        return false;
    struct h2_conn *old = p->conn;
    mem_free(a);
    h2_set_events(c, &dial_events, p);
    p->conn = c;
    p->dialled_ns = wan_now_ns(p->wan);
    if (old != NULL)
        h2_close(old, ERR_CLOSED, "the peer came first");
    (void)uv_timer_stop(&p->redial); /* never fails */
    return dial_ready(c);
}

static bool accept_ready(struct h2_conn *c)
{
    struct accepted *a = h2_user(c);
    struct wan *w = a->wan;
    uint32_t strangers = 0;
    a->peer = wan_peer_by_fingerprint(w, h2_fingerprint(c));
    if (h2_purpose(c) == H2_ASKS)
        return accept_lent(c, a);
    if (a->peer == NULL) {
        for (struct h2_conn *o = w->net.conns; o != NULL; o = h2_next(o))
            strangers += h2_purpose(o) == H2_SERVES && h2_is_ready(o) && is_stranger(o);
        return strangers <= STRANGERS_MAX;
    }
    struct wan_peer *p = a->peer;
    p->accepted++;
    a->counted = true;
    uint64_t now = wan_now_ns(w);
    bool network = p->trouble == TROUBLE_LINK || p->trouble == TROUBLE_PAUSED;
    /* Others' refusals are not to be answered by knocking faster. */
    if (p->conn == NULL && network && now - p->dialled_ns >= WAN_KICK_GAP_NS)
        wan_peer_kick(p);
    return true;
}

/* Anybody may knock, so this may not fill the log. */
static void stranger_gone(struct wan *w, int rc, const char *why)
{
    uint64_t now_ns = wan_now_ns(w);
    w->strangers_gone++;
    if (w->stranger_logged_ns != 0 && now_ns - w->stranger_logged_ns < STRANGER_LOG_NS)
        return;
    log_info(LOG_WAN, "stranger_gone", "count=%llu code=%s why=\"%s\"",
             (unsigned long long)w->strangers_gone, err_name(rc), why);
    w->stranger_logged_ns = now_ns;
    w->strangers_gone = 0;
}

static void accept_closed(struct h2_conn *c, int rc, const char *why)
{
    struct accepted *a = h2_user(c);
    struct wan *w = a->wan;
    if (a->counted)
        a->peer->accepted--;
    else if (a->peer == NULL && !w->stopping && rc != ERR_CLOSED)
        stranger_gone(w, rc, why);
    mem_free(a);
    if (!w->stopping)
        wan_wait_check(w);
}

static void sink_data(struct h2_stream *s, const uint8_t *ptr, size_t len)
{
    (void)ptr;
    h2_consume(s, len);
}

static void sink_closed(struct h2_stream *s, int rc)
{
    (void)s;
    (void)rc;
}

static const struct h2_stream_events sink_events = {.data = sink_data, .closed = sink_closed};

void wan_respond_body(struct h2_stream *s, int status, struct slice body)
{
    h2_follow(s, &sink_events, NULL);
    h2_respond(s, status);
    h2_write(s, body.ptr, body.len);
    h2_end(s);
}

void wan_respond_error(struct h2_stream *s, int status, int rc, const char *text)
{
    struct buf b = {0};
    msg_error_encode(rc, text, &b);
    wan_respond_body(s, status, buf_slice(&b));
    buf_deinit(&b);
}

int wan_response_error(int status, const struct buf *body, struct err_detail *d)
{
    if (body->len > 0)
        return msg_error_decode(buf_slice(body), d);
    err_detail_set(d, "it answered with status %d and no reason", status);
    return ERR_PEER;
}

/* Why a member's requests are not served now, or NULL. */
static const char *refusal(const struct wan *w, const struct wan_peer *p, int *ret_rc)
{
    *ret_rc = ERR_REMOVED;
    if (p->gone)
        return wan_peer_leaves_text(p);
    *ret_rc = ERR_BUSY;
    if (p->paused)
        return "replication is paused there by its operator";
    *ret_rc = ERR_AGAIN;
    if (w->boot != NULL || w->stopping)
        return "the site is not ready yet";
    *ret_rc = ERR_ROLLBACK;
    if (w->rolled_back)
        return "the other site was rolled back to an older state";
    *ret_rc = ERR_NOT_PERMITTED; /* what it says of itself, not of the peer */
    return w->removed ? "the other site was removed from the federation" : NULL;
}

/* A request for a stream says the id of the site that asks. With the certificate of a member that
 * has left, it may be that one's new id, which is on its way here. An older version does not say
 * it: then nothing is known of the id. */
static bool is_of_stranger(struct wan *w, const char *path)
{
    unsigned site;
    return sscanf(path, WAN_STREAM_PATH "%8x", &site) == 1 && wan_peer_by_site(w, site) == NULL;
}

/* Of several ids with its certificate it is the one that it says. */
static void peer_said(struct accepted *a, const struct h2_conn *c, const char *path)
{
    unsigned site;
    struct wan_peer *p =
        sscanf(path, WAN_STREAM_PATH "%8x", &site) == 1 ? wan_peer_by_site(a->wan, site) : NULL;
    if (p == NULL || p == a->peer || p->gone || !is_of(p, c))
        return;
    if (a->counted)
        a->peer->accepted--;
    a->peer = p;
    p->accepted++;
    a->counted = true;
}

static void
accept_request(struct h2_conn *c, struct h2_stream *s, const char *method, const char *path)
{
    struct accepted *a = h2_user(c);
    const size_t chunk = sizeof WAN_CHUNK_PATH - 1;
    bool get = strcmp(method, "GET") == 0, post = strcmp(method, "POST") == 0;
    int rc;
    if (post && strcmp(path, "/v1/pair") == 0) {
        wan_pair_serve(a->wan, s);
        return;
    }
    if (post && strcmp(path, "/v1/return") == 0) {
        /* The member it was leaves by this request, and its connections are closed. */
        if (a->counted)
            a->peer->accepted--;
        a->counted = false;
        a->peer = NULL;
        wan_return_serve(a->wan, s);
        return;
    }
    if (post && strcmp(path, WAN_VOUCHER_PATH) == 0) {
        wan_voucher_serve(a->wan, s);
        return;
    }
    if (a->peer == NULL) { /* it may have become a member by pairing a moment ago */
        a->peer = wan_peer_by_fingerprint(a->wan, h2_fingerprint(c));
        if (a->peer != NULL) {
            a->peer->accepted++;
            a->counted = true;
        }
    }
    peer_said(a, c, path);
    if (a->peer == NULL && (a->wan->boot != NULL || a->wan->pairing != NULL)) {
        wan_respond_error(s, 503, ERR_AGAIN,
                          "the site is not ready yet"); /* nor knows whom it may trust */
        return;
    }
    if (a->peer == NULL) {
        wan_respond_error(s, 403, ERR_AUTH, "the certificate belongs to no member: pair first");
        return;
    }
    const char *no = refusal(a->wan, a->peer, &rc);
    if (no != NULL && a->peer->gone && is_of_stranger(a->wan, path))
        wan_respond_error(s, 503, ERR_STRANGER, WAN_STRANGER_TEXT);
    else if (no != NULL)
        wan_respond_error(s, rc == ERR_BUSY || rc == ERR_AGAIN ? 503 : 403, rc, no);
    else if (post && (strncmp(path, WAN_STREAM_PATH, sizeof WAN_STREAM_PATH - 1) == 0 ||
                      strcmp(path, WAN_STREAM_PATH_OLD) == 0))
        wan_send_accept(a->peer, s);
    else if (get && strncmp(path, WAN_CHUNK_PATH, chunk) == 0)
        wan_chunk_serve(a->wan, s, path + chunk);
    else if (get && strcmp(path, WAN_SNAPSHOT_PATH) == 0)
        wan_snapshot_serve(a->wan, s, &a->peer->member);
    else if (get && strcmp(path, WAN_SNAPSHOT_PATH_OLD) == 0)
        wan_snapshot_serve(a->wan, s, NULL);
    else
        wan_respond_error(s, 404, ERR_NOT_SUPPORTED, "no such request here");
}

static const struct h2_conn_events accept_events = {
    .ready = accept_ready, .request = accept_request, .closed = accept_closed};

/* --- lending a connection --- */

static bool reverse_ready(struct h2_conn *c)
{
    (void)c; /* the peer asks when it wants something */
    return true;
}

static void reverse_closed(struct h2_conn *c, int rc, const char *why)
{
    struct accepted *a = h2_user(c);
    struct wan_peer *p = a->lent_to;
    if (a->counted)
        a->peer->accepted--;
    log_debug(LOG_WAN, "lent_link_down", "peer=%s code=%s why=\"%s\"", p->member.name, err_name(rc),
              why);
    p->reverse = NULL;
    if (h2_age_ns(c) > REVERSE_AFTER_NS)
        backoff_reset(&p->reverse_backoff);
    p->reverse_next_ns = wan_now_ns(p->wan) + backoff_next_ns(&p->reverse_backoff, &p->wan->rng);
    mem_free(a);
    if (!p->wan->stopping)
        wan_wait_check(p->wan);
}

static const struct h2_conn_events reverse_events = {
    .ready = reverse_ready, .request = accept_request, .closed = reverse_closed};

static void dial_reverse(struct wan_peer *p)
{
    struct accepted *a = mem_calloc(1, sizeof *a);
    a->wan = p->wan;
    a->peer = a->lent_to = p;
    p->reverse =
        h2_dial(&p->wan->net, p->member.wan, H2_SERVES, p->member.cert_sha256, &reverse_events, a);
}

void wan_link_tick(struct wan *w)
{
    for (struct h2_conn *c = w->net.conns; c != NULL; c = h2_next(c))
        if (h2_purpose(c) == H2_SERVES && h2_is_ready(c) && is_stranger(c) &&
            h2_age_ns(c) > STRANGER_NS)
            h2_close(c, ERR_TIMEOUT, "a stranger did not pair in time");
    uint64_t now_ns = wan_now_ns(w);
    for (struct wan_peer *p = w->peers; p != NULL; p = p->next)
        if (wan_peer_wanted(p) && p->member.wan[0] != '\0' && reverse_needed(p, now_ns))
            dial_reverse(p);
}

/* --- listening --- */

static void accept_run(uv_stream_t *listener, int status)
{
    struct wan *w = CONTAINER_OF(listener, struct wan, listener);
    if (status < 0) {
        log_warn(LOG_WAN, "accept_failed", "why=\"%s\"", uv_strerror(status));
        return;
    }
    struct accepted *a = mem_calloc(1, sizeof *a);
    a->wan = w;
    (void)h2_accept(&w->net, listener, &accept_events, a); /* closed() frees a */
}

static int listen_fail(const struct wan *w, struct err_detail *d, int uv_rc)
{
    err_detail_set(d,
                   "cannot listen for other sites on %s: %s: change `wan` in the site's "
                   "configuration, or end what uses the port",
                   w->me.wan, uv_strerror(uv_rc));
    return uv_rc == UV_EADDRINUSE ? ERR_BUSY : ERR_CONFIG;
}

static int port_read(struct wan *w)
{
    struct sockaddr_storage sa;
    int len = sizeof sa;
    memset(&sa, 0, sizeof sa);
    int rc = uv_tcp_getsockname(&w->listener, (struct sockaddr *)&sa, &len);
    if (rc == 0)
        w->port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                                 : ((struct sockaddr_in *)&sa)->sin_port);
    return rc;
}

int wan_listen(struct wan *w, struct err_detail *d)
{
    char host[128], port[8];
    if (w->me.wan[0] == '\0')
        return 0;
    if (wan_address_split(w->me.wan, host, port) != 0) {
        err_detail_set(d,
                       "cannot listen for other sites on \"%s\": it is not HOST:PORT: change "
                       "`wan` in the site's configuration",
                       w->me.wan);
        return ERR_CONFIG;
    }
    uv_getaddrinfo_t lookup;
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    int rc = uv_getaddrinfo(&w->uv, &lookup, NULL, host, port, &hints);
    if (rc != 0)
        return listen_fail(w, d, rc);
    rc = uv_tcp_init(&w->uv, &w->listener);
    ASSERT(rc == 0);
    w->listening = true;
    rc = uv_tcp_bind(&w->listener, lookup.addrinfo->ai_addr, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&w->listener, BACKLOG, accept_run);
    if (rc == 0)
        rc = port_read(w);
    uv_freeaddrinfo(lookup.addrinfo);
    return rc == 0 ? 0 : listen_fail(w, d, rc);
}
