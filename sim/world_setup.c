/* Making the sites and pairing them, as an operator would. */
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"
#include "sim/world_int.h"

#define PAIR_NS (60 * NS_PER_SEC)

struct admin { /* one command to a node */
    struct rpc_peer peer;
    struct fs_request req;
    bool done;
    int rc;
    struct buf answer;
};

static void say(struct admin *a, enum rpc_type type)
{
    struct buf body = {0};
    fs_request_encode(&a->req, &body);
    rpc_sim_send(&a->peer, (uint16_t)type, 1, buf_slice(&body), slice_of(NULL, 0));
    buf_deinit(&body);
}

static void admin_frame(struct rpc_peer *p, const struct rpc_frame *f)
{
    struct admin *a = CONTAINER_OF(p, struct admin, peer);
    struct op_arena arena = {0};
    struct fs_reply r;
    int rc = fs_reply_decode(f->body, &arena, &r);
    ASSERT(rc == 0);
    if (f->type == RPC_HELLO) {
        say(a, RPC_ADMIN);
    } else {
        struct slice text = r.rc == 0 ? r.data : r.detail;
        a->rc = r.rc;
        buf_append(&a->answer, text.ptr, text.len);
        a->done = true;
    }
    op_arena_deinit(&arena);
}

static void admin_closed(struct rpc_peer *p)
{
    struct admin *a = CONTAINER_OF(p, struct admin, peer);
    a->rc = ERR_CLOSED;
    a->done = true;
}

/* *ret: the value of `key` in the answer, mem_free; may be NULL. */
static int admin(struct world *w,
                 unsigned site,
                 const char *json,
                 const char *key,
                 char **ret,
                 struct err_detail *d)
{
    struct admin a = {.peer = {.frame = admin_frame, .closed = admin_closed}};
    struct fs_request hello = {.flags = HELLO_ADMIN};
    uint64_t until = sched->now_ns + PAIR_NS;
    if (!rpc_sim_connect(&w->sites[site].machine, &a.peer))
        return ERR_UNREACHABLE;
    a.req = hello;
    say(&a, RPC_HELLO);
    a.req = (struct fs_request){.data = slice_str(json)};
    while (!a.done && sched_step(until))
        continue;
    int rc = a.done ? a.rc : ERR_TIMEOUT;
    if (rc != 0)
        err_detail_set(d, "%s: %s: %.*s", json, err_text(rc), (int)a.answer.len,
                       (const char *)a.answer.ptr);
    if (rc == 0 && ret != NULL) {
        json_t *o = json_loadb((const char *)a.answer.ptr, a.answer.len, 0, NULL);
        const char *text = json_string_value(json_object_get(o, key));
        ASSERT(text != NULL);
        *ret = mem_strdup(text);
        json_decref(o);
    }
    rpc_sim_leave(&a.peer);
    buf_deinit(&a.answer);
    return rc;
}

static int pair(struct world *w, unsigned site, struct err_detail *d)
{
    char *token = NULL;
    int rc = admin(w, 0, "{\"verb\":\"peer.invite\"}", "token", &token, d);
    if (rc != 0)
        return rc;
    char *json = mem_printf("{\"verb\":\"peer.accept\",\"token\":\"%s\"}", token);
    rc = admin(w, site, json, NULL, NULL, d);
    mem_free(json);
    mem_free(token);
    return rc;
}

static int site_make(struct world *w, unsigned i, struct err_detail *d)
{
    const struct world_config *c = &w->config;
    struct site_settings s = {.shard_count = c->shards, .site = 0x51000001u + i};
    (void)snprintf(s.name, sizeof s.name, "%s", c->sites[i].name); /* as long */
    (void)snprintf(s.wan, sizeof s.wan, "10.0.0.%u:7000", i + 1);  /* fits */
    w->ids[i] = s.site;
    process_init(&w->sites[i], i, &c->sites[i]);
    int rc = process_create(&w->sites[i], &s, d);
    return rc == 0 ? process_start(&w->sites[i], d) : rc;
}

int world_setup(struct world *w, struct err_detail *d)
{
    int rc = 0;
    net_quiet(true);
    for (unsigned i = 0; i < w->config.site_count && rc == 0; i++)
        rc = site_make(w, i, d);
    for (unsigned i = 1; i < w->config.site_count && rc == 0; i++)
        rc = pair(w, i, d);
    for (unsigned i = 0; i < w->config.site_count && rc == 0 && w->config.no_versions; i++)
        rc = admin(w, i, "{\"verb\":\"versions.keep\",\"keep_s\":0}", NULL, NULL, d);
    uint64_t until = sched->now_ns + PAIR_NS;
    while (rc == 0 && !world_quiescent(w) && sched_step(until))
        continue;
    net_quiet(false);
    return rc;
}
