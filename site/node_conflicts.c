/* The conflict log for people: list and explain. node_resolve.c ends a conflict. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/conflict_int.h"

#define TEXT_BYTES_MAX (256u * KIB) /* of a side that is shown */
_Static_assert(2 * 6 * TEXT_BYTES_MAX + 64 * KIB < LIMIT_FRAME_BYTES,
               "both sides fit an answer, each byte as \\u00xx");

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

void conflict_id_text(const uint8_t id[8], char out[17])
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

bool conflict_is_resolved(struct node *n, const struct conflict *c)
{
    json_t *r = resolution_get(n, c->id);
    bool by_hand = r != NULL;
    bool undone = json_is_true(json_object_get(r, "undone"));
    json_decref(r);
    return by_hand ? !undone : c->resolved || is_settled(n, c);
}

/* ---- the two sides ---- */

struct visible {
    struct oid oid;
    struct buf *name;
};

static bool match_visible(void *ctx, struct slice name, const struct shown *s)
{
    struct visible *v = ctx;
    if (!shows(s, v->oid))
        return true;
    buf_append(v->name, name.ptr, name.len);
    return false;
}

/* Under which name of its directory users see it: losers show under names that are derived. */
static void side_name(struct node *n, struct conflict_side *s, struct slice stored)
{
    struct shown shown;
    struct visible v = {.oid = s->oid, .name = &s->name};
    struct merge *m = merge_of(n, s->parent);
    if (merge_lookup(m, s->parent, stored, &shown) == 0 && oid_equal(shown.oid, s->oid))
        buf_append(&s->name, stored.ptr, stored.len);
    else if (merge_list(m, s->parent, slice_of(NULL, 0), match_visible, &v) != 0)
        buf_clear(&s->name);
    s->is_there = s->name.len > 0;
}

static void side_find(struct node *n, struct conflict_side *s)
{
    struct buf stored = {0};
    struct file_view f;
    struct dir_view d;
    if (oid_is_none(s->oid))
        return;
    if (oid_is_dir(s->oid)) {
        if (merge_dir(merge_of(n, s->oid), s->oid, &d) == 0 && d.alive) {
            s->parent = d.parent;
            buf_append(&stored, d.name.ptr, d.name.len);
        }
    } else if (merge_file(merge_of(n, s->oid), s->oid, &f) == 0 && f.names > 0) {
        s->parent = f.ref_parent;
        buf_append(&stored, f.ref_name.ptr, f.ref_name.len);
    }
    if (stored.len > 0)
        side_name(n, s, buf_slice(&stored));
    buf_deinit(&stored);
}

/* After an undo a side is another object than the one that met the other. */
static void side_moved(const json_t *resolution, const char *key, struct oid *oid)
{
    struct oid now;
    const char *text = json_string_value(json_object_get(resolution, key));
    if (text != NULL && oid_from_text(text, &now) == 0)
        *oid = now;
}

void conflict_sides(struct node *n, const struct conflict *c, struct conflict_side ret[2])
{
    json_t *r = resolution_get(n, c->id);
    memset(ret, 0, 2 * sizeof ret[0]);
    ret[CONFLICT_KEPT] =
        (struct conflict_side){.oid = c->oid, .site = c->winner, .stamp = c->winner_stamp};
    ret[CONFLICT_OTHER] =
        (struct conflict_side){.oid = c->other, .site = c->loser, .stamp = c->loser_stamp};
    side_moved(r, "kept_oid", &ret[CONFLICT_KEPT].oid);
    side_moved(r, "other_oid", &ret[CONFLICT_OTHER].oid);
    json_decref(r);
    side_find(n, &ret[CONFLICT_KEPT]);
    if (c->rule != 8) {
        side_find(n, &ret[CONFLICT_OTHER]);
        return;
    }
    /* One file with two names. */
    struct slice names[2] = {c->name, c->other_name};
    for (int i = 0; i < 2; i++) {
        struct shown shown;
        struct conflict_side *s = &ret[i];
        s->oid = c->oid;
        s->parent = c->parent;
        buf_clear(&s->name);
        s->is_there = merge_lookup(merge_of(n, c->parent), c->parent, names[i], &shown) == 0 &&
                      shows(&shown, s->oid);
        buf_append(&s->name, names[i].ptr, names[i].len);
    }
}

void conflict_sides_deinit(struct conflict_side sides[2])
{
    buf_deinit(&sides[0].name);
    buf_deinit(&sides[1].name);
}

static bool is_text(struct slice s)
{
    return s.len == 0 || memchr(s.ptr, 0, s.len) == NULL;
}

/* `text`, where it is some that can be shown. */
static void set_side_text(json_t *side, struct slice bytes)
{
    json_t *text = is_text(bytes) ? json_stringn((const char *)bytes.ptr, bytes.len) : NULL;
    if (text != NULL) /* UTF-8 */
        (void)json_object_set_new(side, "text", text);
}

/* *ret_later: its bytes have to be read; size 0: no. */
static json_t *side_json(struct node *n,
                         const struct conflict_side *s,
                         const char *role,
                         struct content *ret_later)
{
    static const char *const kinds[OID_KIND_COUNT] = {"removal", "file",   "directory", "symlink",
                                                      "fifo",    "socket", "device",    "device"};
    struct buf path = {0};
    struct file_view f;
    json_t *o = json_pack("{s:s,s:o,s:b,s:o,s:s}", "role", role, "site", site_json(n, s->site),
                          "mine", s->site == n->settings.site, "time",
                          s->stamp.hlc != 0 ? time_json(s->stamp.hlc) : json_null(), "kind",
                          kinds[oid_kind(s->oid) < OID_KIND_COUNT ? oid_kind(s->oid) : 0]);
    if (s->is_there)
        (void)node_path(n, s->parent, buf_slice(&s->name), &path);
    (void)json_object_set_new(o, "path", s->is_there ? json_bytes(buf_slice(&path)) : json_null());
    buf_deinit(&path);
    if (oid_is_none(s->oid) || oid_is_dir(s->oid) ||
        merge_file(merge_of(n, s->oid), s->oid, &f) != 0)
        return o;
    char dot[DOT_TEXT_LEN];
    dot_to_text(f.version, dot);
    (void)json_object_set_new(o, "version", json_string(dot));
    (void)json_object_set_new(o, "size", json_integer((json_int_t)f.content.size));
    if (f.content.kind == CONTENT_INLINE && f.content.bytes.len == f.content.size)
        set_side_text(o, f.content.bytes);
    else if (oid_kind(s->oid) == OID_FILE && f.content.kind == CONTENT_MANIFEST)
        *ret_later = f.content;
    return o;
}

static json_t *
sides_json(struct node *n, const struct conflict *c, struct content later[CONFLICT_ROLES])
{
    struct conflict_side sides[2];
    conflict_sides(n, c, sides);
    json_t *list = json_array();
    (void)json_array_append_new(list, side_json(n, &sides[CONFLICT_KEPT], "kept", &later[0]));
    (void)json_array_append_new(list, side_json(n, &sides[CONFLICT_OTHER], "other", &later[1]));
    conflict_sides_deinit(sides);
    return list;
}

/* ---- the list ---- */

static json_t *conflict_json(struct node *n, const struct conflict *c)
{
    struct buf path = {0}, other = {0};
    char id[17], oid[OID_TEXT_LEN + 1];
    conflict_id_text(c->id, id);
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
                  "resolved", conflict_is_resolved(n, c));
    buf_deinit(&path);
    buf_deinit(&other);
    return o;
}

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

int conflict_load(struct node *n, struct conflict_list *l)
{
    int rc = 0;
    memset(l, 0, sizeof *l);
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++)
        rc = merge_conflicts(shard_merge(n->shards[i]), collect, l);
    if (l->count > 1)
        qsort(l->at, l->count, sizeof l->at[0], newer);
    return rc;
}

void conflict_unload(struct conflict_list *l)
{
    mem_free(l->at);
    op_arena_deinit(&l->arena);
}

const struct conflict *conflict_find(const struct conflict_list *l, const char *text)
{
    char id[17];
    for (size_t i = 0; text != NULL && i < l->count; i++) {
        conflict_id_text(l->at[i].id, id);
        if (strcmp(id, text) == 0)
            return &l->at[i];
    }
    return NULL;
}

uint32_t conflict_open_count(struct node *n, uint32_t max)
{
    struct conflict_list l;
    uint32_t open = 0;
    int rc = conflict_load(n, &l);
    for (size_t i = 0; i < l.count && rc == 0 && open < max; i++)
        open += !conflict_is_resolved(n, &l.at[i]);
    conflict_unload(&l);
    return open;
}

/* later[i]: what of the two sides has to be read; size 0: nothing. */
static json_t *
explained_but(struct node *n, const struct conflict *c, struct content later[CONFLICT_ROLES])
{
    json_t *o = conflict_json(n, c), *r = resolution_get(n, c->id);
    (void)json_object_set_new(o, "sides", sides_json(n, c, later));
    if (r != NULL)
        (void)json_object_set_new(o, "resolution",
                                  json_pack("{s:O,s:O,s:b}", "keep", json_object_get(r, "keep"),
                                            "time", json_object_get(r, "time"), "undone",
                                            json_is_true(json_object_get(r, "undone"))));
    json_decref(r);
    return o;
}

static json_t *explained(struct node *n, const struct conflict *c)
{
    struct content later[CONFLICT_ROLES] = {{.size = 0}};
    return explained_but(n, c, later);
}

/* Showing one: what is not inline is read, one side after the other. */
struct show {
    struct node *n;
    admin_reply_cb cb;
    void *ctx;
    json_t *answer;
    struct content later[CONFLICT_ROLES];
    unsigned at;
};

static void show_next(struct show *s);

static void show_read(void *ctx, int rc, struct slice bytes)
{
    struct show *s = ctx;
    if (rc == 0) /* else it goes without: too large, or out of reach */
        set_side_text(json_array_get(json_object_get(s->answer, "sides"), s->at), bytes);
    s->at++;
    show_next(s);
}

static void show_next(struct show *s)
{
    while (s->at < CONFLICT_ROLES && s->later[s->at].size == 0)
        s->at++;
    if (s->at < CONFLICT_ROLES) {
        node_content_read(s->n, &s->later[s->at], TEXT_BYTES_MAX, show_read, s);
        return;
    }
    admin_reply_json(s->cb, s->ctx, s->answer);
    mem_free(s);
}

static void show(struct node *n, const struct conflict *c, admin_reply_cb cb, void *ctx)
{
    struct show *s = mem_calloc(1, sizeof *s);
    s->n = n;
    s->cb = cb;
    s->ctx = ctx;
    s->answer = explained_but(n, c, s->later);
    show_next(s);
}

static void conflicts_reply(struct node *n,
                            json_t *(*one)(struct node *n, const struct conflict *c),
                            admin_reply_cb cb,
                            void *ctx)
{
    struct conflict_list l;
    int rc = conflict_load(n, &l);
    json_t *list = json_array();
    for (size_t i = 0; i < l.count && rc == 0; i++)
        json_array_append_new(list, one(n, &l.at[i]));
    conflict_unload(&l);
    if (rc != 0) {
        json_decref(list);
        cb(ctx, rc, "the conflict log cannot be read");
        return;
    }
    admin_reply_json(cb, ctx, json_pack("{s:o}", "conflicts", list));
}

void admin_conflicts_list(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    (void)in;
    conflicts_reply(n, conflict_json, cb, ctx);
}

void admin_conflicts_explain(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    (void)in;
    conflicts_reply(n, explained, cb, ctx);
}

void admin_conflicts_show(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct conflict_list l;
    int rc = conflict_load(n, &l);
    const struct conflict *c = conflict_find(&l, json_string_value(json_object_get(in, "id")));
    if (rc == 0 && c == NULL)
        cb(ctx, ERR_NOT_FOUND, "no conflict has this id: see claudefs conflicts list");
    else if (rc != 0)
        cb(ctx, rc, "the conflict log cannot be read");
    else
        show(n, c, cb, ctx);
    conflict_unload(&l);
}
