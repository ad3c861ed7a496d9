/* The verbs that the WAN part adds to the node's administration; wan.h lists them. A request comes
 * in on the loop, is worked on by the WAN thread and answered on the loop. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "wan/wan_int.h"

#define WAIT_TIMEOUT_DEFAULT_S 300.0
#define WAIT_TIMEOUT_MAX_S 1e6

struct wan_admin_req {
    struct wan_msg msg;
    struct loop_msg reply;
    struct wan *wan;
    const struct verb *verb;
    json_t *args;
    struct wan_backlogs backlogs;
    admin_reply_cb cb;
    void *ctx;
    int rc;
    char *text;
};
struct verb {
    const char *name;
    void (*run)(struct wan *w, struct wan_admin_req *r);
    bool asks_backlogs;
};

static void req_free(struct wan_admin_req *r)
{
    json_decref(r->args);
    mem_free(r->text);
    mem_free(r);
}

static void reply_on_loop(struct loop_msg *msg)
{
    struct wan_admin_req *r = CONTAINER_OF(msg, struct wan_admin_req, reply);
    r->cb(r->ctx, r->rc, r->text);
    req_free(r);
}

void wan_admin_reply(struct wan_admin_req *r, int rc, const char *text)
{
    r->rc = rc;
    r->text = mem_strdup(text);
    r->reply.run = reply_on_loop;
    loop_post(r->wan->loop, &r->reply);
}

void wan_admin_req_drop(struct wan_admin_req *r)
{
    req_free(r);
}

static void reply_json(struct wan_admin_req *r, json_t *o /* taken */)
{
    char *text = json_dumps(o, JSON_COMPACT);
    ASSERT(text != NULL);
    wan_admin_reply(r, 0, text);
    free(text); /* lint-allow(memory): jansson made it */
    json_decref(o);
}

static const char *arg_text(const struct wan_admin_req *r, const char *key)
{
    return json_string_value(json_object_get(r->args, key));
}

/* --- invite, accept --- */

static void verb_invite(struct wan *w, struct wan_admin_req *r)
{
    const json_t *ttl = json_object_get(r->args, "ttl_s");
    char token[TOKEN_TEXT_MAX];
    uint64_t expires_s;
    struct err_detail d;
    json_int_t ttl_s = ttl == NULL ? (json_int_t)INVITE_TTL_DEFAULT_S : json_integer_value(ttl);
    if (ttl_s <= 0 || ttl_s > (json_int_t)INVITE_TTL_MAX_S) {
        wan_admin_reply(r, ERR_INVALID,
                        "cannot invite: a token lives between one second and a year");
        return;
    }
    int rc = wan_invite_make(w, (uint64_t)ttl_s, arg_text(r, "address"), token, &expires_s, &d);
    if (rc != 0) {
        wan_admin_reply(r, rc, d.text);
        return;
    }
    reply_json(r, json_pack("{s:s, s:I}", "token", token, "expires_s", (json_int_t)expires_s));
    explicit_bzero(token, sizeof token);
}

static void accept_done(void *ctx, int rc, const char *text, const struct member *peer)
{
    struct wan_admin_req *r = ctx;
    char site[9];
    if (rc != 0) {
        wan_admin_reply(r, rc, text);
        return;
    }
    (void)snprintf(site, sizeof site, "%08x", peer->site); /* fits */
    reply_json(r, json_pack("{s:s, s:s}", "peer", peer->name, "site_id", site));
}

static void verb_accept(struct wan *w, struct wan_admin_req *r)
{
    const char *token = arg_text(r, "token");
    if (token == NULL)
        wan_admin_reply(r, ERR_INVALID, "cannot accept: no token was given");
    else
        wan_accept(w, token, accept_done, r);
}

/* --- list, pause, resume, remove --- */

static void reply_status(struct wan *w, struct wan_admin_req *r, enum wan_detail detail)
{
    char *text = wan_status_json(w, detail, &r->backlogs);
    wan_admin_reply(r, 0, text);
    mem_free(text);
}

static void verb_list(struct wan *w, struct wan_admin_req *r)
{
    reply_status(w, r, WAN_BRIEF);
}

static void verb_status(struct wan *w, struct wan_admin_req *r)
{
    reply_status(w, r, WAN_FULL);
}

/* The peer that is named, or NULL after the refusal. */
static struct wan_peer *arg_peer(struct wan *w, struct wan_admin_req *r)
{
    char why[400], names[256] = "";
    const char *name = arg_text(r, "name");
    if (name == NULL)
        name = "";
    struct wan_peer *p = wan_peer_by_name(w, name);
    if (p != NULL && !p->gone)
        return p;
    for (const struct wan_peer *o = w->peers; o != NULL; o = o->next) {
        size_t len = strlen(names);
        if (!o->gone)
            (void)snprintf(names + len, sizeof names - len, "%s%s", len > 0 ? ", " : "",
                           o->member.name); /* cut if need be */
    }
    (void)snprintf(why, sizeof why, "no peer has the name \"%.32s\": %s%s", name,
                   p != NULL          ? "it was removed"
                   : names[0] != '\0' ? "there are: "
                                      : "this site has no peers: pair with `peer invite`",
                   p != NULL ? "" : names); /* cut if need be */
    wan_admin_reply(r, ERR_NOT_FOUND, why);
    return NULL;
}

static void peer_reply(struct wan_admin_req *r, const struct wan_peer *p)
{
    reply_json(r, json_pack("{s:s, s:s}", "peer", p->member.name, "state", wan_peer_state(p)));
}

static void set_paused(struct wan *w, struct wan_admin_req *r, bool paused)
{
    struct wan_peer *p = arg_peer(w, r);
    struct err_detail d;
    if (p == NULL)
        return;
    int rc = wan_peer_pause(p, paused, &d);
    if (rc != 0)
        wan_admin_reply(r, rc, d.text);
    else
        peer_reply(r, p);
}

static void verb_pause(struct wan *w, struct wan_admin_req *r)
{
    set_paused(w, r, true);
}

static void verb_resume(struct wan *w, struct wan_admin_req *r)
{
    set_paused(w, r, false);
}

struct remove_call {
    struct wan_call call;
    struct wan_admin_req *req;
    site_id_t site;
    int rc;
};

static void remove_journaled(void *ctx, int rc)
{
    struct remove_call *c = ctx;
    c->rc = rc;
    wan_call_return(&c->call);
}

static void remove_on_loop(struct wan_call *call)
{
    struct remove_call *c = CONTAINER_OF(call, struct remove_call, call);
    node_member_remove(call->wan->node, c->site, LEAVES_REMOVED, remove_journaled, c);
}

static void readmit_on_loop(struct wan_call *call)
{
    struct remove_call *c = CONTAINER_OF(call, struct remove_call, call);
    node_member_readmit(call->wan->node, c->site, remove_journaled, c);
}

static void removed(struct wan_call *call)
{
    struct remove_call *c = CONTAINER_OF(call, struct remove_call, call);
    struct wan *w = call->wan;
    struct wan_admin_req *r = c->req;
    c->req = NULL;
    struct wan_peer *p = wan_peer_by_site(w, c->site);
    if (c->rc != 0 || p == NULL) {
        wan_admin_reply(r, c->rc != 0 ? c->rc : ERR_NOT_FOUND, "the removal cannot be journaled");
        return;
    }
    if (!p->gone) { /* before the members' watch comes round */
        p->member.status = MEMBER_LEAVING;
        p->member.why = LEAVES_REMOVED;
        p->gone = true;
        wan_peer_dismiss(p);
    }
    peer_reply(r, p);
}

static void remove_release(struct wan_call *call)
{
    struct remove_call *c = CONTAINER_OF(call, struct remove_call, call);
    if (c->req != NULL)
        wan_admin_req_drop(c->req);
}

static void
remove_start(struct wan_admin_req *r, const struct wan_peer *p, const struct remove_call *how)
{
    struct remove_call *c = mem_calloc(1, sizeof *c);
    *c = *how;
    c->req = r;
    c->site = p->member.site;
    c->call.release = remove_release;
    wan_call_start(r->wan, &c->call);
}

static void verb_remove(struct wan *w, struct wan_admin_req *r)
{
    const struct remove_call how = {.call = {.on_loop = remove_on_loop, .done = removed}};
    const struct wan_peer *p = arg_peer(w, r);
    if (p != NULL)
        remove_start(r, p, &how);
}

static void readmitted(struct wan_call *call)
{
    struct remove_call *c = CONTAINER_OF(call, struct remove_call, call);
    struct wan_admin_req *r = c->req;
    c->req = NULL;
    const struct wan_peer *p = wan_peer_by_site(call->wan, c->site);
    if (c->rc != 0 || p == NULL)
        wan_admin_reply(r, c->rc != 0 ? c->rc : ERR_NOT_FOUND, "that cannot be journaled");
    else
        peer_reply(r, p);
    wan_members_fetch(call->wan);
}

static void readmit_refuse(struct wan_admin_req *r, const char *name, bool is_member)
{
    char why[160];
    (void)snprintf(why, sizeof why,
                   is_member
                       ? "\"%.32s\" is a member: only a site that was removed comes back"
                       : "no site with the name \"%.32s\" was removed: see claudefs peer list",
                   name); /* fits */
    wan_admin_reply(r, is_member ? ERR_INVALID : ERR_NOT_FOUND, why);
}

static void verb_readmit(struct wan *w, struct wan_admin_req *r)
{
    const struct remove_call how = {.call = {.on_loop = readmit_on_loop, .done = readmitted}};
    const char *name = arg_text(r, "name");
    const struct wan_peer *p = wan_peer_by_name(w, name == NULL ? "" : name);
    if (p != NULL && p->gone)
        remove_start(r, p, &how);
    else
        readmit_refuse(r, name == NULL ? "" : name, p != NULL);
}

static void verb_wait(struct wan *w, struct wan_admin_req *r)
{
    const json_t *t = json_object_get(r->args, "timeout_s");
    double timeout_s = t == NULL ? WAIT_TIMEOUT_DEFAULT_S : json_number_value(t);
    if (!(timeout_s >= 0 && timeout_s <= WAIT_TIMEOUT_MAX_S))
        wan_admin_reply(r, ERR_INVALID, "cannot wait: the time-out is not a number of seconds");
    else
        wan_wait_begin(w, r, timeout_s);
}

/* --- in and out --- */

static const struct verb verbs[] = {
    {"peer.invite", verb_invite, false},   {"peer.accept", verb_accept, false},
    {"peer.list", verb_list, true},        {"peer.pause", verb_pause, false},
    {"peer.resume", verb_resume, false},   {"peer.remove", verb_remove, false},
    {"wan.status", verb_status, true},     {"wait", verb_wait, false},
    {"peer.readmit", verb_readmit, false}, {"site.return", wan_return_begin, false},
};

static void req_run(struct wan *w, struct wan_msg *m)
{
    struct wan_admin_req *r = CONTAINER_OF(m, struct wan_admin_req, msg);
    if (w->stopping)
        wan_admin_reply(r, ERR_CLOSED, "the site is stopping");
    else
        r->verb->run(w, r);
}

static void req_drop(struct wan_msg *m)
{
    req_free(CONTAINER_OF(m, struct wan_admin_req, msg));
}

bool wan_admin(void *hctx, const char *verb, const char *json, admin_reply_cb cb, void *ctx)
{
    const struct verb *found = NULL;
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++)
        if (strcmp(verbs[i].name, verb) == 0)
            found = &verbs[i];
    if (found == NULL)
        return false;
    struct wan_admin_req *r = mem_calloc(1, sizeof *r);
    r->wan = hctx;
    r->verb = found;
    if (found->asks_backlogs)
        r->backlogs.count = node_backlogs(r->wan->node, r->backlogs.at);
    /* No arguments, or none that can be read: each verb says what it misses. */
    r->args = json == NULL ? NULL : json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    r->cb = cb;
    r->ctx = ctx;
    r->msg.run = req_run;
    r->msg.drop = req_drop;
    wan_push(r->wan, &r->msg);
    return true;
}
