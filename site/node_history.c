/* The history of a path, and what happened last: read from the journals that are still there. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "site/admin_int.h"

static const char *const effect_name[EFFECT_KIND_END] = {
    [EFFECT_ENTER] = "enter", [EFFECT_LEAVE] = "leave", [EFFECT_VERSION] = "write",
    [EFFECT_FORK] = "fork",   [EFFECT_BIRTH] = "mkdir", [EFFECT_REVIVE] = "revive",
    [EFFECT_BURY] = "rmdir",  [EFFECT_MOVE] = "move",   [EFFECT_SET] = "set"};

struct history {
    struct node *n;
    struct oid oid; /* none: everything */
    json_t *list;
    size_t max;
};

static json_t *effect_json(const struct effect *e)
{
    char oid[OID_TEXT_LEN + 1], parent[OID_TEXT_LEN + 1];
    struct oid at = e->kind == EFFECT_BIRTH ? e->birth.parent : e->parent;
    struct slice name = e->kind == EFFECT_BIRTH ? e->birth.name : e->name;
    oid_to_text(e->oid, oid);
    oid_to_text(at, parent);
    json_t *o = json_pack("{s:s,s:s}", "effect", effect_name[e->kind], "oid", oid);
    if (name.len > 0) {
        json_object_set_new(o, "name", json_bytes(name));
        json_object_set_new(o, "parent", json_string(parent));
    }
    if (e->kind == EFFECT_VERSION || e->kind == EFFECT_FORK)
        json_object_set_new(o, "size", json_integer((json_int_t)e->content.size));
    if (e->kind == EFFECT_SET)
        json_object_set_new(o, "register", json_bytes(e->set.key));
    return o;
}

static bool add_item(void *ctx, const struct feed_item *item)
{
    struct history *h = ctx;
    struct op_arena arena = {0};
    struct op op;
    char dot[DOT_TEXT_LEN], site[160], time_text[40];
    json_t *effects = json_array();
    if (op_decode(item->op, &arena, &op) == 0) {
        for (uint32_t i = 0; i < op.effect_count; i++)
            if (oid_is_none(h->oid) || oid_equal(op.effects[i].oid, h->oid) ||
                (op.effects[i].kind == EFFECT_FORK && oid_equal(op.effects[i].to, h->oid)))
                json_array_append_new(effects, effect_json(&op.effects[i]));
        if (json_array_size(effects) > 0) {
            time_t t = (time_t)(op.time_ns / (int64_t)NS_PER_SEC);
            struct tm tm;
            gmtime_r(&t, &tm);
            strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%SZ", &tm);
            dot_to_text(op.dot, dot);
            node_site_name(h->n, op.stamp.site, site);
            json_array_append_new(h->list,
                                  json_pack("{s:s,s:s,s:s,s:I,s:I,s:O}", "time", time_text, "site",
                                            site, "dot", dot, "hlc", (json_int_t)op.stamp.hlc,
                                            "index", (json_int_t)item->index, "effects", effects));
            if (json_array_size(h->list) > h->max)
                json_array_remove(h->list, 0);
        }
    }
    json_decref(effects);
    op_arena_deinit(&arena);
    return true;
}

static int read_all(struct history *h, uint64_t newest)
{
    int rc = 0;
    for (unsigned i = 0; i < h->n->settings.shard_count && rc == 0; i++) {
        struct log *log = shard_log(h->n->shards[i]);
        uint64_t at = log_first(log), last = log_durable(log);
        if (newest > 0 && last > newest)
            at = MAX(at, last - newest);
        while (at <= last && rc == 0)
            rc = node_feed_read(h->n, (shard_id_t)i, at, 4 * MIB, add_item, h, &at);
    }
    return rc;
}

/* Oldest first, by stamp. */
static void sort_by_hlc(json_t *list)
{
    size_t count = json_array_size(list);
    json_t **at = mem_calloc(count + 1, sizeof *at);
    for (size_t i = 0; i < count; i++)
        at[i] = json_incref(json_array_get(list, i));
    for (size_t i = 1; i < count; i++)
        for (size_t k = i; k > 0; k--) {
            if (json_integer_value(json_object_get(at[k - 1], "hlc")) <=
                json_integer_value(json_object_get(at[k], "hlc")))
                break;
            json_t *t = at[k];
            at[k] = at[k - 1];
            at[k - 1] = t;
        }
    json_array_clear(list);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, at[i]);
    mem_free(at);
}

static void reply(struct history *h, int rc, admin_reply_cb cb, void *ctx)
{
    if (rc != 0) {
        json_decref(h->list);
        cb(ctx, rc, "the journal cannot be read");
        return;
    }
    sort_by_hlc(h->list);
    admin_reply_json(cb, ctx, json_pack("{s:o}", "history", h->list));
}

void admin_journal_show(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    const char *path = json_string_value(json_object_get(in, "path"));
    struct oid parent;
    struct slice name;
    struct history h = {.n = n, .list = json_array(), .max = 10000};
    int rc = path == NULL ? ERR_INVALID : node_resolve_path(n, path, &h.oid, &parent, &name);
    if (rc != 0) {
        json_decref(h.list);
        cb(ctx, rc, path == NULL ? "path: missing" : "no such file or directory");
        return;
    }
    reply(&h, read_all(&h, 0), cb, ctx);
}

void admin_journal_tail(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    json_int_t count = json_integer_value(json_object_get(in, "count"));
    struct history h = {.n = n, .list = json_array(), .max = 10000};
    count = count <= 0 ? 20 : MIN(count, 1000);
    int rc = read_all(&h, (uint64_t)count);
    sort_by_hlc(h.list);
    while ((json_int_t)json_array_size(h.list) > count)
        json_array_remove(h.list, 0);
    reply(&h, rc, cb, ctx);
}
