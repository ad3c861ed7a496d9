/* The conflict log for people: list, explain, resolve. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "site/admin_int.h"

static const char *const rule_text[10] = {
    [2] = "both sides edited the file",
    [3] = "one side deleted it, the other edited it",
    [4] = "one side removed the directory, the other put something in",
    [5] = "two directory moves could not both hold",
    [6] = "two objects got one name",
    [8] = "both sides renamed the file"};

json_t *json_bytes(struct slice s)
{
    json_t *o = json_stringn((const char *)s.ptr, s.len);
    if (o != NULL)
        return o;
    struct buf b = {0};
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] >= 0x20 && s.ptr[i] < 0x80)
            buf_append(&b, s.ptr + i, 1);
        else
            buf_append(&b, "\xef\xbf\xbd", 3);
    }
    o = json_stringn((const char *)b.ptr, b.len);
    buf_deinit(&b);
    return o;
}

static json_t *site_json(struct node *n, site_id_t site)
{
    char name[160];
    if (site == 0)
        return json_null();
    node_site_name(n, site, name);
    return json_string(name);
}

static void id_text(const uint8_t id[8], char out[17])
{
    for (int i = 0; i < 8; i++)
        snprintf(out + 2 * i, 3, "%02x", id[i]);
}

static json_t *time_json(uint64_t hlc)
{
    time_t t = (time_t)(hlc_ms(hlc) / 1000);
    struct tm tm;
    char text[40];
    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

static bool shows(const struct shown *s, struct oid oid)
{
    for (uint32_t i = 0; i < s->twin_count; i++)
        if (oid_equal(s->twins[i], oid))
            return true;
    return oid_equal(s->oid, oid);
}

/* Two files under one name are no conflict any more when somebody removed the loser, or when what
 * came later made them equal: twins, one file to everybody. Creating a file and filling it are two
 * operations, so twins meet as different files first. */
static bool is_settled(struct node *n, const struct conflict *c)
{
    struct shown s;
    struct file_view f;
    if ((c->rule != 2 && c->rule != 6) || oid_is_none(c->other) || oid_is_dir(c->other))
        return false;
    if (merge_lookup(merge_of(n, c->parent), c->parent, c->name, &s) == 0 && shows(&s, c->oid) &&
        shows(&s, c->other))
        return true;
    int rc = merge_file(merge_of(n, c->other), c->other, &f);
    return rc == ERR_NOT_FOUND || (rc == 0 && f.names == 0);
}

static json_t *conflict_json(struct node *n, const struct conflict *c)
{
    struct buf path = {0}, other = {0};
    char id[17], oid[OID_TEXT_LEN + 1];
    id_text(c->id, id);
    oid_to_text(c->oid, oid);
    (void)node_path(n, c->parent, c->name, &path); /* "?" where the directory is gone */
    if (c->other_name.len > 0)
        (void)node_path(n, c->parent, c->other_name, &other);
    json_t *o =
        json_pack("{s:s,s:i,s:s,s:o,s:o,s:o,s:o,s:o,s:s,s:b}", "id", id, "rule", (int)c->rule,
                  "what", rule_text[c->rule < 10 ? c->rule : 0] != NULL ? rule_text[c->rule] : "",
                  "time", time_json(c->stamp.hlc), "path", json_bytes(buf_slice(&path)),
                  "other_path", other.len > 0 ? json_bytes(buf_slice(&other)) : json_null(),
                  "winner", site_json(n, c->winner), "loser", site_json(n, c->loser), "oid", oid,
                  "resolved", c->resolved || is_settled(n, c));
    buf_deinit(&path);
    buf_deinit(&other);
    return o;
}

/* The engine's callbacks must not call into it: copies are made first. */
struct conflict_list {
    struct op_arena arena;
    struct conflict *at;
    size_t count;
};

static bool collect(void *ctx, const struct conflict *c)
{
    struct conflict_list *l = ctx;
    l->at = mem_realloc(l->at, (l->count + 1) * sizeof l->at[0]);
    l->at[l->count] = *c;
    l->at[l->count].name = op_dup(&l->arena, c->name);
    l->at[l->count++].other_name = op_dup(&l->arena, c->other_name);
    return l->count < 100000;
}

static int newer(const void *a, const void *b)
{
    const struct conflict *x = a, *y = b;
    return -stamp_cmp(x->stamp, y->stamp);
}

static int load(struct node *n, struct conflict_list *l)
{
    int rc = 0;
    memset(l, 0, sizeof *l);
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++)
        rc = merge_conflicts(shard_merge(n->shards[i]), collect, l);
    if (l->count > 1)
        qsort(l->at, l->count, sizeof l->at[0], newer);
    return rc;
}

static void unload(struct conflict_list *l)
{
    mem_free(l->at);
    op_arena_deinit(&l->arena);
}

void admin_conflicts_list(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct conflict_list l;
    (void)in;
    int rc = load(n, &l);
    json_t *list = json_array();
    for (size_t i = 0; i < l.count && rc == 0; i++)
        json_array_append_new(list, conflict_json(n, &l.at[i]));
    unload(&l);
    if (rc != 0) {
        json_decref(list);
        cb(ctx, rc, "the conflict log cannot be read");
        return;
    }
    admin_reply_json(cb, ctx, json_pack("{s:o}", "conflicts", list));
}

static const struct conflict *find(const struct conflict_list *l, const char *text)
{
    char id[17];
    for (size_t i = 0; text != NULL && i < l->count; i++) {
        id_text(l->at[i].id, id);
        if (strcmp(id, text) == 0)
            return &l->at[i];
    }
    return NULL;
}

void admin_conflicts_show(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct conflict_list l;
    int rc = load(n, &l);
    const struct conflict *c = find(&l, json_string_value(json_object_get(in, "id")));
    if (rc == 0 && c == NULL)
        cb(ctx, ERR_NOT_FOUND, "no conflict has this id: see claudefs conflicts list");
    else if (rc != 0)
        cb(ctx, rc, "the conflict log cannot be read");
    else
        admin_reply_json(cb, ctx, conflict_json(n, c));
    unload(&l);
}

struct resolving {
    admin_reply_cb cb;
    void *ctx;
    uint8_t id[8];
};

static void mark_resolved(struct node *n, const uint8_t id[8])
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (merge_conflict_resolved(shard_merge(n->shards[i]), id, true) == 0)
            return; /* it is in one of them */
}

static void resolved(struct call *c, int rc)
{
    struct resolving *r = c->user;
    if (rc == 0 || rc == ERR_NOT_FOUND) {
        mark_resolved(c->n, r->id);
        r->cb(r->ctx, 0, "{}");
    } else {
        r->cb(r->ctx, rc, err_text(rc));
    }
    mem_free(r);
}

void admin_conflicts_resolve(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct conflict_list l;
    const char *keep = json_string_value(json_object_get(in, "keep"));
    int rc = load(n, &l);
    const struct conflict *c = find(&l, json_string_value(json_object_get(in, "id")));
    bool mine = keep != NULL && strcmp(keep, "mine") == 0;
    bool theirs = keep != NULL && strcmp(keep, "theirs") == 0;
    bool both = keep != NULL && strcmp(keep, "both") == 0;
    if (rc != 0 || c == NULL) {
        cb(ctx, rc != 0 ? rc : ERR_NOT_FOUND, "no conflict has this id");
    } else if (!mine && !theirs && !both) {
        cb(ctx, ERR_INVALID, "keep: use mine, theirs or both");
    } else if (both || c->other_name.len == 0) {
        mark_resolved(n, c->id);
        cb(ctx, 0, "{}");
    } else {
        /* The side to drop goes by an ordinary operation, so every site learns of it. */
        bool winner_mine = c->winner == n->settings.site;
        bool keep_winner = mine == winner_mine;
        struct resolving *r = mem_calloc(1, sizeof *r);
        struct fs_request q = {.oid = c->parent, .name = c->other_name};
        r->cb = cb;
        r->ctx = ctx;
        memcpy(r->id, c->id, sizeof r->id);
        if (!keep_winner) {
            q.oid2 = c->parent;
            q.name2 = c->name;
        }
        node_issue(n, keep_winner ? RPC_UNLINK : RPC_RENAME, &q, resolved, r);
    }
    unload(&l);
}
