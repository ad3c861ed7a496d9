/* Peers are the other members of the federation: registers of the root directory, which the node
 * keeps and every stream carries. A peer that was removed stays in the list, so that its
 * certificate is refused by name. Which peers are paused here is this site's own business:
 * DIR/wan.json. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/hlc.h"
#include "base/log.h"
#include "wan/state_file.h"
#include "wan/wan_file.h"
#include "wan/wan_int.h"

#define STATE_FILE "wan.json"

struct wan_peer *wan_peer_by_site(struct wan *w, site_id_t site)
{
    struct wan_peer *p = w->peers;
    while (p != NULL && p->member.site != site)
        p = p->next;
    return p;
}

struct wan_peer *wan_peer_by_name(struct wan *w, const char *name)
{
    struct wan_peer *gone = NULL;
    for (struct wan_peer *p = w->peers; p != NULL; p = p->next) {
        if (strcmp(p->member.name, name) != 0)
            continue;
        if (!p->gone)
            return p;
        /* A name may have been used again: the one that left last. */
        if (gone == NULL || p->member.told_hlc > gone->member.told_hlc)
            gone = p;
    }
    return gone;
}

struct wan_peer *wan_peer_by_fingerprint(struct wan *w, const uint8_t *fp)
{
    struct wan_peer *best = NULL;
    for (struct wan_peer *p = w->peers; p != NULL; p = p->next) {
        if (memcmp(p->member.cert_sha256, fp, FINGERPRINT_BYTES) != 0)
            continue;
        bool newer =
            best == NULL ||
            (best->gone == p->gone ? p->member.told_hlc > best->member.told_hlc : best->gone);
        if (newer)
            best = p;
    }
    return best;
}

bool wan_was_removed(const struct wan *w, const uint8_t *fp)
{
    for (const struct wan_peer *p = w->peers; p != NULL; p = p->next)
        if (p->gone && p->member.why == LEAVES_REMOVED &&
            memcmp(p->member.cert_sha256, fp, FINGERPRINT_BYTES) == 0)
            return true;
    return false;
}

/* --- paused peers --- */

static void site_key(site_id_t site, char out[9])
{
    (void)snprintf(out, 9, "%08x", site); /* fits */
}

static bool is_paused(const struct wan *w, site_id_t site)
{
    char key[9];
    site_key(site, key);
    return json_is_true(json_object_get(w->paused, key));
}

int wan_paused_load(struct wan *w, struct err_detail *d)
{
    struct buf b = {0};
    int rc = wan_file_read(w->dir, STATE_FILE, &b, d);
    if (rc == ERR_NOT_FOUND) {
        w->paused = json_object();
        buf_deinit(&b);
        return 0;
    }
    if (rc == 0 && (w->paused = paused_file_parse(buf_slice(&b))) == NULL) {
        err_detail_set(d,
                       "cannot use %s/" STATE_FILE ": it is damaged: remove it and pause "
                       "again the peers that should be paused",
                       w->dir);
        rc = ERR_CORRUPT;
    }
    buf_deinit(&b);
    return rc;
}

static int paused_save(struct wan *w, struct err_detail *d)
{
    char *text = state_file_text(paused_file_json(w->paused));
    int rc = wan_file_write(w->dir, STATE_FILE, 0644, slice_str(text), d);
    free(text); /* lint-allow(memory): jansson made it */
    return rc;
}

int wan_peer_pause(struct wan_peer *p, bool paused, struct err_detail *d)
{
    struct wan *w = p->wan;
    char key[9];
    if (p->paused == paused)
        return 0;
    site_key(p->member.site, key);
    int rc =
        paused ? json_object_set_new(w->paused, key, json_true()) : json_object_del(w->paused, key);
    ASSERT(rc == 0);
    rc = paused_save(w, d);
    if (rc != 0) {
        /* What the disk says counts after a restart, so it must count now. */
        (void)(paused ? json_object_del(w->paused, key)
                      : json_object_set_new(w->paused, key, json_true())); /* cannot fail here */
        return rc;
    }
    p->paused = paused;
    log_info(LOG_WAN, paused ? "peer_paused" : "peer_resumed", "peer=%s", p->member.name);
    if (paused)
        wan_peer_cut(p, ERR_CLOSED, "paused here");
    else
        wan_peer_kick(p);
    return 0;
}

/* --- members --- */

void wan_member_self(struct wan *w, struct member *ret)
{
    *ret = (struct member){.site = w->me.site, .cert = buf_slice(&w->identity.pem)};
    memcpy(ret->name, w->me.name, sizeof ret->name);
    memcpy(ret->wan, w->address, sizeof ret->wan);
    memcpy(ret->cert_sha256, w->identity.fingerprint, sizeof ret->cert_sha256);
}

/* What the loop told of the members. */
struct members_call {
    struct wan_call call;
    int rc;
    uint32_t count;
    struct member at[SITE_COUNT_MAX];
};

static bool member_take(void *ctx, const struct member *m)
{
    struct members_call *c = ctx;
    if (c->count == SITE_COUNT_MAX)
        return false;
    c->at[c->count] = *m;
    c->at[c->count++].cert = slice_of(NULL, 0); /* borrowed there, not needed here */
    return true;
}

static void members_on_loop(struct wan_call *call)
{
    struct members_call *c = CONTAINER_OF(call, struct members_call, call);
    c->rc = node_members(call->wan->node, member_take, c);
    wan_call_return(call);
}

static struct wan_peer *peer_new(struct wan *w, const struct member *m)
{
    struct wan_peer *p = mem_calloc(1, sizeof *p);
    p->wan = w;
    p->member = *m;
    p->paused = is_paused(w, m->site);
    p->have = mem_calloc(w->me.shard_count, sizeof p->have[0]);
    lag_init(&p->lag_out, wan_now_ns(w), 0);
    int rc = uv_timer_init(&w->uv, &p->redial);
    ASSERT(rc == 0);
    p->redial_open = true;
    receiver_init(&p->recv.core, w->me.shard_count, w->me.site, m->site, wan_now_ns(w));
    p->recv.core_made = true;
    wan_metrics_begin(p);
    p->next = w->peers;
    w->peers = p;
    log_info(LOG_WAN, "peer_known", "peer=%s site=%08x address=%s", m->name, m->site,
             m->wan[0] != '\0' ? m->wan : "none");
    return p;
}

static void peer_update(struct wan *w, const struct member *m)
{
    struct wan_peer *p = wan_peer_by_site(w, m->site);
    if (p == NULL)
        p = peer_new(w, m);
    bool moved = strcmp(p->member.wan, m->wan) != 0 ||
                 memcmp(p->member.cert_sha256, m->cert_sha256, FINGERPRINT_BYTES) != 0;
    bool gone = m->status != MEMBER_IS;
    p->member = *m;
    if (gone && !p->gone) {
        log_info(LOG_WAN, "peer_removed", "peer=%s", m->name);
        p->gone = true;
        wan_peer_dismiss(p);
    } else if (moved) {
        wan_peer_cut(p, ERR_CLOSED, "the site has moved");
    }
    p->gone = gone;
    wan_peer_dial(p);
}

void wan_peer_lag_since(struct wan_peer *p, uint64_t at_ms)
{
    uint64_t wall_ns = wan_wall_ns(p->wan), at_ns = at_ms * NS_PER_MS;
    uint64_t before_ns = wall_ns > at_ns ? wall_ns - at_ns : 0, now_ns = wan_now_ns(p->wan);
    lag_init(&p->recv.core.lag, now_ns, before_ns);
    lag_init(&p->lag_out, now_ns, before_ns);
}

void wan_member_known(struct wan *w, const struct member *m)
{
    struct member known = *m;
    known.cert = slice_of(NULL, 0); /* borrowed there, not needed here */
    peer_update(w, &known);
}

struct self_call {
    struct wan_call call;
    struct member self;
};

static void self_set_done(void *ctx, int rc)
{
    struct self_call *c = ctx;
    if (rc != 0)
        log_warn(LOG_WAN, "own_address_not_announced", "why=\"%s\"", err_text(rc));
    wan_call_return(&c->call);
}

static void self_set(struct wan_call *call)
{
    struct self_call *c = CONTAINER_OF(call, struct self_call, call);
    node_member_set(call->wan->node, &c->self, self_set_done, c);
}

static void self_set_end(struct wan_call *call)
{
    (void)call; /* the members' watch tells what came of it */
}

/* This site's own record, as the federation knows it: gone, or out of date? */
static void self_update(struct wan *w, const struct member *m)
{
    if (m->status != MEMBER_IS) {
        if (!w->removed)
            log_error(
                LOG_WAN, "removed",
                "why=\"this site was removed from the federation; it replicates no more, and can "
                "come back when an operator at another site lets it (man claudefs-peer)\"");
        w->removed = true;
        for (struct wan_peer *p = w->peers; p != NULL; p = p->next)
            wan_peer_cut(p, ERR_NOT_PERMITTED, "this site was removed");
        return;
    }
    w->removed = false;
    if (strcmp(m->wan, w->address) == 0 &&
        memcmp(m->cert_sha256, w->identity.fingerprint, FINGERPRINT_BYTES) == 0)
        return;
    struct self_call *c = mem_calloc(1, sizeof *c);
    wan_member_self(w, &c->self);
    c->call.on_loop = self_set;
    c->call.done = self_set_end;
    wan_call_start(w, &c->call);
}

static void members_done(struct wan_call *call)
{
    struct members_call *c = CONTAINER_OF(call, struct members_call, call);
    struct wan *w = call->wan;
    w->members_asked = false;
    if (c->rc != 0)
        log_warn(LOG_WAN, "members_unreadable", "why=\"%s\"", err_text(c->rc));
    uint64_t entered_hlc = UINT64_MAX;
    for (uint32_t i = 0; i < c->count && w->members_known; i++)
        if (c->at[i].site == w->me.site)
            entered_hlc = c->at[i].told_hlc;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct member *m = &c->at[i];
        if (m->site == w->me.site) {
            self_update(w, m);
            continue;
        }
        /* What was done by one that entered after us is in no snapshot of ours. */
        bool late = wan_peer_by_site(w, m->site) == NULL && m->told_hlc > entered_hlc;
        peer_update(w, m);
        if (late)
            wan_peer_lag_since(wan_peer_by_site(w, m->site), hlc_ms(m->told_hlc));
    }
    w->members_known = w->members_known || c->rc == 0;
    if (w->members_again)
        wan_members_fetch(w);
}

void wan_members_fetch(struct wan *w)
{
    w->members_again = w->members_asked;
    if (w->members_asked)
        return;
    struct members_call *c = mem_calloc(1, sizeof *c);
    w->members_asked = true;
    c->call.on_loop = members_on_loop;
    c->call.done = members_done;
    wan_call_start(w, &c->call);
}

static void changed_run(struct wan *w, struct wan_msg *m)
{
    mem_free(m);
    if (!w->stopping)
        wan_members_fetch(w);
}

static void changed_drop(struct wan_msg *m)
{
    mem_free(m);
}

void wan_members_changed(void *ctx)
{
    struct wan_msg *m = mem_calloc(1, sizeof *m);
    m->run = changed_run;
    m->drop = changed_drop;
    wan_push(ctx, m);
}

void wan_peers_free(struct wan *w)
{
    while (w->peers != NULL) {
        struct wan_peer *p = w->peers;
        w->peers = p->next;
        wan_metrics_end(p);
        wan_recv_free(p);
        mem_free(p->have);
        mem_free(p);
    }
}
