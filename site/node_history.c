/* The history of a path, and what happened last: read from the journals that are still there. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "site/admin_int.h"
#include "site/past_int.h"

static const char *const effect_name[EFFECT_KIND_END] = {
    [EFFECT_ENTER] = "enter", [EFFECT_LEAVE] = "leave", [EFFECT_VERSION] = "write",
    [EFFECT_FORK] = "fork",   [EFFECT_BIRTH] = "mkdir", [EFFECT_REVIVE] = "revive",
    [EFFECT_BURY] = "rmdir",  [EFFECT_MOVE] = "move",   [EFFECT_SET] = "set"};

struct history {
    struct node *n;
    const struct path_objects *of; /* NULL: everything */
    bool by_name;                  /* what happened to the name, not to the objects */
    json_t *list;
    size_t max;
};

static struct oid effect_parent(const struct effect *e)
{
    return e->kind == EFFECT_BIRTH ? e->birth.parent : e->parent;
}

static struct slice effect_at(const struct effect *e)
{
    return e->kind == EFFECT_BIRTH ? e->birth.name : e->name;
}

static json_t *effect_json(struct node *n, const struct effect *e)
{
    char oid[OID_TEXT_LEN + 1], parent[OID_TEXT_LEN + 1];
    struct oid at = effect_parent(e);
    struct slice name = effect_at(e);
    struct buf path = {0};
    oid_to_text(e->oid, oid);
    oid_to_text(at, parent);
    json_t *o = json_pack("{s:s,s:s}", "effect", effect_name[e->kind], "oid", oid);
    if (name.len > 0) {
        json_object_set_new(o, "name", json_bytes(name));
        json_object_set_new(o, "parent", json_string(parent));
        (void)node_path(n, at, name, &path); /* "?" where the directory is gone */
        json_object_set_new(o, "path", json_bytes(buf_slice(&path)));
        buf_deinit(&path);
    }
    if (e->kind == EFFECT_VERSION || e->kind == EFFECT_FORK)
        json_object_set_new(o, "size", json_integer((json_int_t)e->content.size));
    if (e->kind == EFFECT_SET)
        json_object_set_new(o, "register", json_bytes(e->set.key));
    return o;
}

static bool is_of(const struct history *h, const struct effect *e)
{
    const struct path_objects *of = h->of;
    if (of == NULL)
        return true;
    if (h->by_name)
        return slice_equal(effect_at(e), of->name) && oid_equal(effect_parent(e), of->parent);
    for (uint32_t i = 0; i < of->count; i++)
        if (oid_equal(e->oid, of->at[i]) || (e->kind == EFFECT_FORK && oid_equal(e->to, of->at[i])))
            return true;
    return false;
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
            if (is_of(h, &op.effects[i]))
                json_array_append_new(effects, effect_json(h->n, &op.effects[i]));
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
        uint64_t at = log_first(log), last = node_feed_last(h->n, (shard_id_t)i);
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

static void
reply(struct history *h, int rc, json_t *versions /* taken */, admin_reply_cb cb, void *ctx)
{
    if (rc != 0) {
        json_decref(h->list);
        json_decref(versions);
        cb(ctx, rc, "the journal cannot be read");
        return;
    }
    sort_by_hlc(h->list);
    json_t *o = json_pack("{s:o}", "history", h->list);
    if (versions != NULL)
        (void)json_object_set_new(o, "versions", versions);
    admin_reply_json(cb, ctx, o);
}

/* The path was renamed away: the objects that the journals say had it. */
static int objects_by_name(struct node *n, struct path_objects *of)
{
    struct history h = {.n = n, .of = of, .by_name = true, .list = json_array(), .max = 10000};
    int rc = read_all(&h, 0);
    json_t *item, *effect;
    size_t i, k;
    json_array_foreach (h.list, i, item) {
        json_array_foreach (json_object_get(item, "effects"), k, effect) {
            struct oid oid;
            bool known =
                oid_from_text(json_string_value(json_object_get(effect, "oid")), &oid) != 0;
            for (uint32_t j = 0; j < of->count && !known; j++)
                known = oid_equal(of->at[j], oid);
            if (!known && of->count < PATH_OBJECTS_MAX)
                of->at[of->count++] = oid;
        }
    }
    json_decref(h.list);
    return rc != 0 ? rc : of->count > 0 ? 0 : ERR_NOT_FOUND;
}

void admin_journal_show(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    const char *path = json_string_value(json_object_get(in, "path"));
    struct path_objects of;
    struct history h = {.n = n, .of = &of, .max = 10000};
    int rc = path == NULL ? ERR_INVALID : node_path_objects(n, path, &of);
    if (rc == ERR_NOT_FOUND && of.name.len > 0)
        rc = objects_by_name(n, &of);
    if (rc != 0) {
        cb(ctx, rc,
           rc == ERR_NOT_FOUND ? "no such file or directory, and none that was there is known"
           : path == NULL      ? "path: missing"
                               : err_text(rc));
        return;
    }
    h.list = json_array();
    rc = read_all(&h, 0);
    reply(&h, rc, node_versions_json(n, &of), cb, ctx);
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
    reply(&h, rc, NULL, cb, ctx);
}
