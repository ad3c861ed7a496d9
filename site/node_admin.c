/* Administration: JSON in, JSON out, over RPC_ADMIN. wan/ adds its verbs. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "site/admin_int.h"
#include "site/conflict_int.h"
#include "site/lacks.h"
#include "site/past_int.h"
#include "site/return_int.h"

#define CONFLICTS_MAX 1000u /* open ones that status counts */
#define JSON_BYTES_MAX (256u * KIB)

void node_admin_register(struct node *n, admin_handler h, void *hctx)
{
    ASSERT(n->admin_count < ADMIN_HANDLERS_MAX);
    n->admin[n->admin_count].fn = h;
    n->admin[n->admin_count++].ctx = hctx;
}

static void admin_reply(void *ctx, int rc, const char *text)
{
    struct call *c = ctx;
    struct slice s = slice_str(text != NULL ? text : "");
    buf_clear(&c->keep[0]);
    buf_append(&c->keep[0], s.ptr, s.len);
    c->reply.rc = rc;
    if (rc == 0)
        c->reply.data = buf_slice(&c->keep[0]);
    else
        c->reply.detail = buf_slice(&c->keep[0]);
    call_release(c);
}

void admin_reply_json(admin_reply_cb cb, void *ctx, json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
    cb(ctx, text != NULL ? 0 : ERR_NO_MEMORY, text);
    free(text); /* lint-allow(memory): jansson's */
    json_decref(o);
}

/* Who leads is the coordinator's word, not the shard's. */
static void add_leader(struct node *n, shard_id_t shard, json_t *o)
{
    struct shard_record r = {.epoch = 0};
    struct err_detail d = {{0}};
    char primary[20];
    if (coordinator_get(n->coordinator, shard, &r, &d) != 0)
        log_warn(LOG_SITE, "leader_not_known", "shard=%u why=\"%s\"", shard, d.text);
    (void)snprintf(primary, sizeof primary, "%08llx", (unsigned long long)r.primary); /* fits */
    const char *role = r.primary == 0                  ? "nobody"
                       : r.primary == n->settings.site ? "primary"
                                                       : "replica";
    (void)json_object_set_new(o, "role", json_string(role));
    (void)json_object_set_new(o, "primary", json_string(primary));
    (void)json_object_set_new(o, "epoch", json_integer((json_int_t)r.epoch));
    (void)json_object_set_new(o, "in_sync", json_integer((json_int_t)r.in_sync_count));
}

static json_t *shard_json(struct node *n, struct shard *s)
{
    struct shard_durable d;
    shard_durable(s, &d);
    json_t *o =
        json_pack("{s:i,s:I,s:I,s:I,s:I,s:I}", "id", (int)shard_id(s), "durable",
                  (json_int_t)d.index, "first", (json_int_t)log_first(shard_log(s)),
                  "journal_bytes", (json_int_t)log_bytes(shard_log(s)), "outbox",
                  (json_int_t)shard_outbox_count(s), "waiting", (json_int_t)shard_waiting_count(s));
    add_leader(n, shard_id(s), o);
    return o;
}

static json_t *space_json(struct node *n)
{
    struct store_stats st;
    struct merge_usage all = {.bytes = 0}, one;
    struct node_lacks lacks;
    store_stats(n->store, &st);
    node_lacks(n, &lacks);
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        merge_usage(shard_merge(n->shards[i]), &one);
        all.bytes += one.bytes;
        all.inline_bytes += one.inline_bytes;
    }
    return json_pack("{s:I,s:I,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "awaited_contents",
                     (json_int_t)lacks.contents, "awaited_bytes", (json_int_t)lacks.bytes,
                     "awaited_known", (int)lacks.known, "logical_bytes", (json_int_t)all.bytes,
                     "inline_bytes", (json_int_t)all.inline_bytes, "chunks", (json_int_t)st.chunks,
                     "plain_bytes", (json_int_t)st.plain_bytes, "live_bytes",
                     (json_int_t)st.live_bytes, "file_bytes", (json_int_t)st.file_bytes,
                     "free_bytes", (json_int_t)st.free_bytes, "damaged", (json_int_t)st.damaged);
}

static void verb_status(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    char id[12];
    (void)in;
    snprintf(id, sizeof id, "%08x", n->settings.site);
    json_t *shards = json_array(), *members = json_array();
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        json_array_append_new(shards, shard_json(n, n->shards[i]));
    node_members_fresh(n);
    for (uint32_t i = 0; i < n->member_count; i++) {
        char mid[12];
        snprintf(mid, sizeof mid, "%08x", n->members[i].m.site);
        json_array_append_new(members, json_pack("{s:s,s:s,s:s,s:i}", "site", mid, "name",
                                                 n->members[i].m.name, "wan", n->members[i].m.wan,
                                                 "status", (int)n->members[i].m.status));
    }
    json_t *o =
        json_pack("{s:s,s:s,s:s,s:s,s:b,s:o,s:o,s:o,s:i,s:o,s:I,s:I,s:o,s:o}", "site", id, "name",
                  n->settings.name, "wan", n->settings.wan, "listen", n->settings.listen, "joining",
                  (int)n->needs_snapshot, "returning", node_return_json(n), "shards", shards,
                  "members", members, "sessions", (int)node_session_count(n), "mounts",
                  node_sessions_json(n), "repairs_pending", (json_int_t)n->repairs_pending,
                  "conflicts_open", (json_int_t)conflict_open_count(n, CONFLICTS_MAX), "versions",
                  node_past_json(n), "space", space_json(n));
    if (o == NULL)
        cb(ctx, ERR_NO_MEMORY, "status could not be written");
    else
        admin_reply_json(cb, ctx, o);
}

static void verb_log(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    const char *levels = json_string_value(json_object_get(in, "levels"));
    (void)n;
    if (levels != NULL && log_levels_parse(levels) != 0) {
        cb(ctx, ERR_INVALID, "levels: use \"info\" or \"wan=debug,site=warn\"");
        return;
    }
    json_t *now = json_object();
    for (unsigned i = 0; i < LOG_AREA_COUNT; i++)
        (void)json_object_set_new(now, log_area_name((enum log_area)i),
                                  json_string(log_level_name(log_level_get((enum log_area)i))));
    admin_reply_json(cb, ctx, json_pack("{s:o}", "levels", now));
}

static const struct {
    const char *name;
    void (*fn)(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx);
} verbs[] = {
    {"status", verb_status},
    {"log", verb_log},
    {"conflicts.list", admin_conflicts_list},
    {"conflicts.explain", admin_conflicts_explain},
    {"conflicts.show", admin_conflicts_show},
    {"conflicts.resolve", admin_conflicts_resolve},
    {"conflicts.undo", admin_conflicts_undo},
    {"journal.show", admin_journal_show},
    {"journal.tail", admin_journal_tail},
    {"journal.keep", admin_journal_keep},
    {"restore", admin_restore},
    {"versions.keep", admin_versions_keep},
    {"fsck", admin_fsck},
    {"gc", admin_gc},
    {"gc.status", admin_gc_status},
    {"contents", admin_contents},
};

/* False: nobody knows the verb, and cb will not run. */
static bool
admin_run(struct node *n, const json_t *in, const char *verb, admin_reply_cb cb, void *ctx)
{
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++)
        if (strcmp(verb, verbs[i].name) == 0) {
            verbs[i].fn(n, in, cb, ctx);
            return true;
        }
    char *text = json_dumps(in, JSON_COMPACT);
    bool taken = false;
    for (uint32_t i = 0; i < n->admin_count && !taken; i++)
        taken = n->admin[i].fn(n->admin[i].ctx, verb, text, cb, ctx);
    free(text); /* lint-allow(memory): jansson's */
    return taken;
}

void node_admin_ask(struct node *n, const char *verb, admin_reply_cb cb, void *ctx)
{
    json_t *in = json_pack("{s:s}", "verb", verb);
    bool taken = in != NULL && admin_run(n, in, verb, cb, ctx);
    json_decref(in);
    if (!taken)
        cb(ctx, ERR_NOT_SUPPORTED, err_text(ERR_NOT_SUPPORTED));
}

int call_admin(struct call *c)
{
    json_error_t err;
    if (c->req.data.len > JSON_BYTES_MAX)
        return ERR_TOO_BIG;
    json_t *in = json_loadb((const char *)c->req.data.ptr, c->req.data.len, 0, &err);
    const char *verb = json_string_value(json_object_get(in, "verb"));
    if (verb == NULL) {
        json_decref(in);
        return ERR_INVALID;
    }
    call_hold(c); /* until admin_reply, which may come at once, and leaves the rest to the caller */
    bool taken = admin_run(c->n, in, verb, admin_reply, c);
    json_decref(in);
    if (taken)
        return CALL_DONE;
    call_release(c); /* call_run holds it, too */
    return ERR_NOT_SUPPORTED;
}
