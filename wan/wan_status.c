/* What is told about the links: JSON for `wan.status`, metrics for the endpoint. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "wan/wan_int.h"

#define SKEW_ALARM_NS ((int64_t)NS_PER_SEC * 10)

const char *wan_peer_state(const struct wan_peer *p)
{
    if (p->gone)
        return p->member.status == MEMBER_LEAVING ? "leaving" : "removed";
    if (p->paused)
        return "paused";
    if (p->wan->boot != NULL)
        return "loading_snapshot";
    if (p->wan->rolled_back)
        return "rolled_back";
    if (p->wan->removed)
        return "refused"; /* by the whole federation */
    if (p->recv.state == RECV_RUNNING && p->recv.core.held_ahead_ns != 0)
        return "held";
    bool in = p->recv.state == RECV_RUNNING, out = p->send != NULL;
    if (in && out)
        return "connected";
    switch (p->trouble) {
    case TROUBLE_PAUSED:
        return "paused_there";
    case TROUBLE_REFUSED:
        return p->trouble_rc == ERR_REMOVED ? "removed_there" : "refused";
    case TROUBLE_ROLLBACK:
        return "rolled_back_there";
    case TROUBLE_SNAPSHOT:
        return "needs_snapshot";
    case TROUBLE_DATA:
        return "failing";
    case TROUBLE_NONE:
    case TROUBLE_LINK:
        return in || out ? "half_connected" : "unreachable";
    }
    UNREACHABLE();
}

uint64_t wan_lag_in_ns(const struct wan_peer *p, uint64_t now_ns)
{
    return lag_ns(&p->recv.core.lag, now_ns);
}

uint64_t wan_lag_out_ns(const struct wan_peer *p, uint64_t now_ns)
{
    return lag_ns(&p->lag_out, now_ns);
}

/* Operations and bytes that the peer has not acknowledged. */
static void out_to_go(const struct wan_peer *p, uint64_t *ret_ops, uint64_t *ret_bytes)
{
    struct feed_state f;
    struct gateway_progress g = {0};
    const struct wan_send *s = p->send;
    *ret_ops = *ret_bytes = 0;
    if (s != NULL && s->gateway != NULL) {
        gateway_progress(s->gateway, &g);
        if (g.ops_to_go == 0 && s->applied_hlc >= s->sent_op_hlc)
            return; /* what remains in the journals is this site's own business */
    }
    node_feed_state(p->wan->node, &f);
    for (unsigned i = 0; i < f.shard_count; i++) {
        uint64_t next = MAX(p->acked_next[i], MAX(f.first[i], 1u));
        *ret_ops += f.durable[i] + 1 > next ? f.durable[i] + 1 - next : 0;
    }
    /* Without a stream they are as long as those that went by the one before. */
    *ret_bytes = *ret_ops * (g.ops_sent != 0 ? g.bytes_sent / g.ops_sent : p->op_bytes);
}

static double seconds(uint64_t ns)
{
    return (double)(ns / NS_PER_MS) / 1e3;
}

static double milliseconds(uint64_t ns)
{
    return (double)(ns / 1000) / 1e3;
}

static void add(json_t *o, json_t *more /* taken */)
{
    ASSERT(more != NULL);
    int rc = json_object_update(o, more);
    ASSERT(rc == 0);
    json_decref(more);
}

static const struct node_backlog *backlog_of(const struct wan_backlogs *bs, site_id_t site)
{
    for (uint32_t i = 0; i < bs->count; i++)
        if (bs->at[i].site == site)
            return &bs->at[i];
    return NULL;
}

static void add_backlog(json_t *o, const struct node_backlog *b)
{
    bool runs_out = b != NULL && b->runs_out;
    add(o, json_pack("{s:o, s:I}", "resync_in_seconds",
                     runs_out ? json_real((double)b->left_ms / 1e3) : json_null(),
                     "journal_kept_bytes", (json_int_t)(b != NULL ? b->bytes : 0)));
}

/* The row of `peer list`. */
static json_t *
peer_row(const struct wan_peer *p, uint64_t now_ns, const struct wan_backlogs *backlogs)
{
    char site[9];
    (void)snprintf(site, sizeof site, "%08x", p->member.site); /* fits */
    const char *error = p->wan->rolled_back ? p->wan->rolled_back_text : p->trouble_text;
    if (p->gone)
        error = p->member.why == LEAVES_AWAY
                    ? "it was away for longer than journals are kept: claudefs site return, typed "
                      "there, brings it back with its own changes"
                    : "";
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:b, s:f, s:f, s:s}", "name", p->member.name,
                          "site_id", site, "address", p->member.wan, "state", wan_peer_state(p),
                          "paused", p->paused, "lag_in_s", seconds(wan_lag_in_ns(p, now_ns)),
                          "lag_out_s", seconds(wan_lag_out_ns(p, now_ns)), "error", error);
    ASSERT(o != NULL);
    add_backlog(o, backlog_of(backlogs, p->member.site));
    return o;
}

static void add_in(json_t *o, const struct wan_peer *p)
{
    const struct receiver *r = &p->recv.core;
    const struct metric *v = &p->metrics.visible;
    add(o, json_pack("{s:b, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "in_connected",
                     p->recv.state == RECV_RUNNING, "in_ops_to_go", (json_int_t)lag_ops(&r->lag),
                     "in_bytes_to_go", (json_int_t)lag_bytes(&r->lag), "in_ops",
                     (json_int_t)r->ops_applied, "in_wire_bytes",
                     (json_int_t)metric_get(&p->metrics.bytes_in), "visible_p50_ms",
                     milliseconds(metric_quantile_ns(v, 0.5)), "visible_p99_ms",
                     milliseconds(metric_quantile_ns(v, 0.99)), "held_ahead_s",
                     seconds(r->held_ahead_ns)));
}

static void add_out(json_t *o, const struct wan_peer *p)
{
    uint64_t ops, bytes;
    out_to_go(p, &ops, &bytes);
    add(o, json_pack("{s:b, s:I, s:I, s:I, s:I}", "out_connected", p->send != NULL, "out_ops_to_go",
                     (json_int_t)ops, "out_bytes_to_go", (json_int_t)bytes, "out_ops",
                     (json_int_t)p->ops_out, "out_wire_bytes",
                     (json_int_t)metric_get(&p->metrics.wire_out)));
}

static void add_link(json_t *o, const struct wan_peer *p)
{
    char fp[2 * FINGERPRINT_BYTES + 1];
    int64_t ahead_ns = 0;
    uint64_t rtt_ns = 0;
    bool known = skew_get(&p->recv.core.skew, &ahead_ns, &rtt_ns);
    if (p->conn != NULL && h2_is_ready(p->conn) && h2_rtt_ns(p->conn) != 0)
        rtt_ns = h2_rtt_ns(p->conn);
    wan_fingerprint_text(p->member.cert_sha256, fp);
    add(o,
        json_pack("{s:f, s:o, s:b, s:I, s:s}", "rtt_ms", milliseconds(rtt_ns), "clock_ahead_ms",
                  known ? json_real((double)(ahead_ns / 1000) / 1e3) : json_null(), "clock_alarm",
                  known && (ahead_ns > SKEW_ALARM_NS || ahead_ns < -SKEW_ALARM_NS), "reconnects",
                  (json_int_t)metric_get(&p->metrics.reconnects), "certificate", fp));
}

static json_t *
peers_json(struct wan *w, enum wan_detail detail, const struct wan_backlogs *backlogs)
{
    uint64_t now_ns = wan_now_ns(w);
    json_t *list = json_array();
    for (const struct wan_peer *p = w->peers; p != NULL; p = p->next) {
        json_t *o = peer_row(p, now_ns, backlogs);
        if (detail == WAN_FULL) {
            add_in(o, p);
            add_out(o, p);
            add_link(o, p);
        }
        int rc = json_array_append_new(list, o);
        ASSERT(rc == 0);
    }
    const struct member *from = wan_boot_from(w);
    if (from != NULL && wan_peer_by_site(w, from->site) == NULL) { /* it comes with the snapshot */
        json_t *o = json_pack("{s:s, s:s, s:s, s:b}", "name", from->name, "address", from->wan,
                              "state", "loading_snapshot", "paused", 0);
        int rc = json_array_append_new(list, o);
        ASSERT(rc == 0);
    }
    return list;
}

static const char *site_state(const struct wan *w)
{
    if (w->rolled_back)
        return "rolled_back";
    if (w->removed || wan_removed_there(w))
        return "removed";
    if (w->boot != NULL)
        return "loading_snapshot";
    return w->pairing != NULL ? "pairing" : "ok";
}

static const char *site_error(const struct wan *w)
{
    if (w->rolled_back)
        return w->rolled_back_text;
    if (wan_boot_is_refused(w))
        return "this site left the federation before it had the others' tree: claudefs site return "
               "begins again";
    for (const struct wan_peer *p = w->peers; p != NULL; p = p->next)
        if (!p->gone && p->trouble_rc == ERR_REMOVED)
            return p->trouble_text; /* as the others say it */
    if (w->removed)
        return "this site left the federation: claudefs site return brings it back, if it may";
    return "";
}

char *wan_status_json(struct wan *w, enum wan_detail detail, const struct wan_backlogs *backlogs)
{
    char site[9], fp[2 * FINGERPRINT_BYTES + 1];
    json_t *root = json_pack("{s:o}", "peers", peers_json(w, detail, backlogs));
    ASSERT(root != NULL);
    (void)snprintf(site, sizeof site, "%08x", w->me.site); /* fits */
    wan_fingerprint_text(w->identity.fingerprint, fp);
    if (detail == WAN_FULL)
        add(root, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "wan_site", w->me.name, "wan_site_id",
                            site, "wan_address", w->address, "wan_certificate", fp, "wan_state",
                            site_state(w), "wan_error", site_error(w)));
    char *dump = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    ASSERT(dump != NULL);
    char *text = mem_strdup(dump);
    free(dump); /* lint-allow(memory): jansson made it */
    json_decref(root);
    return text;
}

/* --- metrics --- */

struct metric_row {
    size_t offset;
    const char *name, *help;
    enum metric_kind kind;
};
#define ROW(field, n, k, h)                                                                        \
    {                                                                                              \
        offsetof(struct wan_peer_metrics, field), n, h, k                                          \
    }
static const struct metric_row rows[] = {
    ROW(ops_in,
        "claudefs_wan_operations_applied_total",
        METRIC_COUNTER,
        "Operations of the peer's stream applied here."),
    ROW(bytes_in,
        "claudefs_wan_received_bytes_total",
        METRIC_COUNTER,
        "Compressed bytes of the peer's stream received."),
    ROW(ops_out,
        "claudefs_wan_operations_sent_total",
        METRIC_COUNTER,
        "Operations sent to the peer."),
    ROW(wire_out,
        "claudefs_wan_sent_bytes_total",
        METRIC_COUNTER,
        "Compressed bytes of the stream sent to the peer."),
    ROW(reconnects,
        "claudefs_wan_reconnects_total",
        METRIC_COUNTER,
        "Attempts to connect after the first."),
    ROW(visible,
        "claudefs_wan_visible_seconds",
        METRIC_HISTOGRAM,
        "From the stamp of an operation at the peer to its being visible here."),
};

static struct metric *row_metric(struct wan_peer *p, const struct metric_row *row)
{
    return (struct metric *)(void *)((char *)&p->metrics + row->offset);
}

void wan_metrics_begin(struct wan_peer *p)
{
    (void)snprintf(p->metrics.labels, sizeof p->metrics.labels, "site=\"%s\",peer=\"%s\"",
                   p->wan->me.name, p->member.name); /* fits: names are 32 at most */
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct metric *m = row_metric(p, &rows[i]);
        m->name = rows[i].name;
        m->labels = p->metrics.labels;
        m->help = rows[i].help;
        m->kind = rows[i].kind;
        metric_register(m);
    }
}

void wan_metrics_end(struct wan_peer *p)
{
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        metric_unregister(row_metric(p, &rows[i]));
}

bool wan_lag_from(const struct wan *w, site_id_t peer, struct wan_lag *ret)
{
    const struct wan_peer *p = w->peers;
    while (p != NULL && p->member.site != peer)
        p = p->next;
    if (p == NULL)
        return false;
    const struct lag *l = &p->recv.core.lag;
    *ret = (struct wan_lag){.up = p->recv.state == RECV_RUNNING,
                            .held = p->recv.core.held_ahead_ns != 0,
                            .by_clock = lag_is_by_clock(l),
                            .lag_ns = lag_ns(l, wan_now_ns(w)),
                            .ops_to_go = lag_ops(l),
                            .bytes_to_go = lag_bytes(l),
                            .ops_applied = p->recv.core.ops_applied};
    return true;
}
