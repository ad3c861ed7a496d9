/* Ending a conflict by hand, and taking that back.
 *
 * The side that is to go goes by an ordinary operation, so every site learns of it: it is unlinked,
 * or the other is renamed over it; either way its content stays as a past version. What was done is
 * a record of shard 0 that is written after it; undoing does the opposite: a rename back, and a
 * restore of the past version. A crash in between leaves the conflict open with one side gone,
 * which the list then shows as settled.
 *
 * Of directories an empty one can go; nothing here removes a whole tree, and of two moves that
 * could not both hold the other one is not made: for these there is a sentence that says what to
 * do.
 *
 * Record: SHARD_KEY_NODE 'c' id -> JSON {keep, time, action, path, to, version, oid, kept_oid,
 * other_oid, was_kept, undone; of a directory mode, uid, gid}. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "site/conflict_int.h"

enum action {
    ACT_NONE,   /* both stay */
    ACT_UNLINK, /* `path` went, its version was `version` */
    ACT_RENAME, /* `path` was renamed over `to`, whose version was `version` */
    ACT_UNNAME, /* the name `path` of a file went that is still there as `to` */
    ACT_RMDIR,  /* the empty directory `path` went */
    ACT_COUNT
};
static const char *const action_text[ACT_COUNT] = {"none", "unlink", "rename", "unname", "rmdir"};

/* ---- the record ---- */

static void record_key(const uint8_t id[8], uint8_t out[10])
{
    out[0] = SHARD_KEY_NODE;
    out[1] = 'c';
    memcpy(out + 2, id, 8);
}

json_t *resolution_get(struct node *n, const uint8_t id[8])
{
    uint8_t key[10];
    struct slice value;
    record_key(id, key);
    if (!state_get(shard_state(n->shards[0]), slice_of(key, sizeof key), &value))
        return NULL;
    return json_loadb((const char *)value.ptr, value.len, 0, NULL);
}

struct resolve {
    struct node *n;
    admin_reply_cb cb;
    void *ctx;
    uint8_t id[8];
    json_t *record;
    struct err_detail why; /* it cannot be done */
};

static void resolve_end(struct resolve *r, int rc, const char *why)
{
    if (rc == 0)
        r->cb(r->ctx, 0, "{}");
    else
        r->cb(r->ctx, rc, why != NULL ? why : err_text(rc));
    json_decref(r->record);
    mem_free(r);
}

static void record_kept(void *ctx, int rc)
{
    resolve_end(ctx, rc, NULL);
}

static void record_put(struct resolve *r)
{
    uint8_t key[10];
    char *text = json_dumps(r->record, JSON_COMPACT);
    record_key(r->id, key);
    struct local_pair pair = {slice_of(key, sizeof key), slice_str(text)};
    int rc = shard_local(r->n->shards[0], &pair, 1, record_kept, r);
    free(text); /* lint-allow(memory): jansson's */
    if (rc != 0)
        resolve_end(r, rc, NULL);
}

static void set_text(json_t *o, const char *key, struct slice s)
{
    (void)json_object_set_new(o, key, json_bytes(s));
}

static void set_path(struct resolve *r, const char *key, const struct conflict_side *s)
{
    struct buf path = {0};
    (void)node_path(r->n, s->parent, buf_slice(&s->name), &path);
    set_text(r->record, key, buf_slice(&path));
    buf_deinit(&path);
}

static void set_version(struct resolve *r, const struct conflict_side *s)
{
    struct file_view f;
    char dot[DOT_TEXT_LEN];
    char oid[OID_TEXT_LEN + 1];
    if (merge_file(merge_of(r->n, s->oid), s->oid, &f) != 0)
        return;
    dot_to_text(f.version, dot);
    set_text(r->record, "version", slice_str(dot));
    oid_to_text(s->oid, oid);
    set_text(r->record, "oid", slice_str(oid));
}

/* ---- resolving ---- */

static void resolved(struct call *c, int rc)
{
    struct resolve *r = c->user;
    if (rc == 0)
        record_put(r);
    else
        resolve_end(r, rc, NULL);
}

/* Which side is to stay: CONFLICT_ROLES for both, -1 with a reason. */
static int role_of(struct node *n, const struct conflict *c, const char *keep, const char **ret_why)
{
    char name[160];
    site_id_t me = n->settings.site;
    bool mine = strcmp(keep, "mine") == 0, theirs = strcmp(keep, "theirs") == 0;
    if (strcmp(keep, "both") == 0)
        return CONFLICT_ROLES;
    if (mine || theirs) {
        if (c->winner == me)
            return mine ? CONFLICT_KEPT : CONFLICT_OTHER;
        if (c->loser == me)
            return mine ? CONFLICT_OTHER : CONFLICT_KEPT;
        if (c->winner == 0 && c->loser != 0) /* rule 4: who put something in is not kept */
            return mine ? CONFLICT_KEPT : CONFLICT_OTHER;
        *ret_why = "neither side is of this site: name the site whose side is to stay";
        return -1;
    }
    node_site_name(n, c->winner, name);
    if (c->winner != 0 && strcmp(name, keep) == 0)
        return CONFLICT_KEPT;
    node_site_name(n, c->loser, name);
    if (c->loser != 0 && strcmp(name, keep) == 0)
        return CONFLICT_OTHER;
    *ret_why = "keep: mine, theirs, both, or the name of a site that has a side in it";
    return -1;
}

/* An empty directory goes. */
static const char *let_dir_go(struct resolve *r, int keep, struct conflict_side *goes)
{
    struct node *n = r->n;
    struct dir_view v;
    set_path(r, "path", goes);
    if (!merge_dir_empty(merge_of(n, goes->oid), goes->oid) ||
        merge_dir(merge_of(n, goes->oid), goes->oid, &v) != 0) {
        err_detail_set(&r->why,
                       "%s is a directory with something in it, and a whole tree is not removed "
                       "here: move or remove what is to go, then resolve it with --keep both",
                       json_string_value(json_object_get(r->record, "path")));
        return r->why.text;
    }
    json_t *perm = json_pack("{s:i,s:I,s:I}", "mode", (int)(v.perm.mode & 07777), "uid",
                             (json_int_t)v.perm.uid, "gid", (json_int_t)v.perm.gid);
    (void)json_object_update(r->record, perm);
    json_decref(perm);
    (void)json_object_set_new(r->record, "was_kept", json_boolean(keep == CONFLICT_OTHER));
    set_text(r->record, "action", slice_str(action_text[ACT_RMDIR]));
    struct fs_request q = {.oid = goes->parent, .name = buf_slice(&goes->name)};
    node_issue(n, RPC_RMDIR, &q, resolved, r);
    return NULL;
}

/* Issues what lets one side go. A sentence when it cannot be done. */
static const char *
let_go(struct resolve *r, const struct conflict *c, int keep, struct conflict_side *s)
{
    struct conflict_side *stays = &s[keep], *goes = &s[1 - keep];
    if (keep == CONFLICT_KEPT && (c->rule == 4 || c->rule == 5)) { /* it is what there is */
        record_put(r);
        return NULL;
    }
    if (c->rule == 5)
        return "only one of the two moves can hold: move the directory to where it is to be, then "
               "resolve it with --keep both";
    if (c->rule == 6 && keep == CONFLICT_OTHER && oid_is_dir(goes->oid))
        return "the side that is to go is a directory that has the name: move or remove it, give "
               "the name to the other, then resolve it with --keep both";
    if (goes->is_there && oid_is_dir(goes->oid))
        return let_dir_go(r, keep, goes);
    if (oid_is_none(goes->oid)) { /* rule 3: the edit won, and it is to stay */
        record_put(r);
        return NULL;
    }
    if (!goes->is_there || (!stays->is_there && !oid_is_none(stays->oid)))
        return "a side is not there any more: what there is can be kept with both";
    struct fs_request q = {.oid = goes->parent, .name = buf_slice(&goes->name)};
    enum action act = ACT_UNLINK;
    set_path(r, "path", goes);
    if (c->rule == 8) {
        act = ACT_UNNAME;
        set_path(r, "to", stays);
    } else if (keep == CONFLICT_OTHER && !oid_is_none(stays->oid)) {
        act = ACT_RENAME; /* it takes over the name */
        q = (struct fs_request){.oid = stays->parent,
                                .name = buf_slice(&stays->name),
                                .oid2 = goes->parent,
                                .name2 = buf_slice(&goes->name)};
        set_path(r, "path", stays);
        set_path(r, "to", goes);
    }
    (void)json_object_set_new(r->record, "was_kept", json_boolean(keep == CONFLICT_OTHER));
    set_version(r, goes);
    set_text(r->record, "action", slice_str(action_text[act]));
    node_issue(r->n, act == ACT_RENAME ? RPC_RENAME : RPC_UNLINK, &q, resolved, r);
    return NULL;
}

static void
resolve(struct node *n, const struct conflict *c, const char *keep, admin_reply_cb cb, void *ctx)
{
    struct conflict_side sides[2];
    const char *why = NULL;
    char now[40];
    int role = role_of(n, c, keep, &why);
    if (role < 0) {
        cb(ctx, ERR_INVALID, why);
        return;
    }
    struct resolve *r = mem_calloc(1, sizeof *r);
    time_t t = (time_t)(clock_wall_ns(n->clock) / NS_PER_SEC);
    struct tm tm;
    (void)gmtime_r(&t, &tm);
    (void)strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &tm);
    r->n = n;
    r->cb = cb;
    r->ctx = ctx;
    memcpy(r->id, c->id, sizeof r->id);
    r->record = json_pack("{s:s,s:s,s:s}", "keep", keep, "time", now, "action", "none");
    if (role == CONFLICT_ROLES) {
        record_put(r);
        return;
    }
    conflict_sides(n, c, sides);
    why = let_go(r, c, role, sides);
    if (why != NULL)
        resolve_end(r, ERR_NOT_SUPPORTED, why);
    conflict_sides_deinit(sides);
}

void admin_conflicts_resolve(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct conflict_list l;
    const char *keep = json_string_value(json_object_get(in, "keep"));
    int rc = conflict_load(n, &l);
    const struct conflict *c = conflict_find(&l, json_string_value(json_object_get(in, "id")));
    if (rc != 0 || c == NULL)
        cb(ctx, rc != 0 ? rc : ERR_NOT_FOUND,
           rc != 0 ? "the conflict log cannot be read"
                   : "no conflict has this id: see claudefs conflicts list");
    else if (keep == NULL)
        cb(ctx, ERR_INVALID, "keep: use mine, theirs, both or the name of a site");
    else if (conflict_is_resolved(n, c))
        cb(ctx, ERR_EXISTS, "it is resolved already: claudefs conflicts undo takes that back");
    else
        resolve(n, c, keep, cb, ctx);
    conflict_unload(&l);
}

/* ---- taking it back ---- */

static const char *text_of(const struct resolve *r, const char *key)
{
    const char *text = json_string_value(json_object_get(r->record, key));
    return text != NULL ? text : "";
}

static void set_oid(struct resolve *r, const char *key, const char *path)
{
    struct oid oid, parent;
    struct slice name;
    char text[OID_TEXT_LEN + 1];
    if (node_resolve_path(r->n, path, &oid, &parent, &name) != 0)
        return;
    oid_to_text(oid, text);
    set_text(r->record, key, slice_str(text));
}

/* The sides are where they were: they may be other objects now. */
static void undo_finish(struct resolve *r)
{
    const char *action = text_of(r, "action");
    bool kept_other = strcmp(action, action_text[ACT_RENAME]) == 0;
    if (kept_other) {
        set_oid(r, "kept_oid", text_of(r, "to"));
        set_oid(r, "other_oid", text_of(r, "path"));
    } else if (strcmp(action, action_text[ACT_UNLINK]) == 0 ||
               strcmp(action, action_text[ACT_RMDIR]) == 0) {
        set_oid(r, json_is_true(json_object_get(r->record, "was_kept")) ? "kept_oid" : "other_oid",
                text_of(r, "path"));
    }
    (void)json_object_set_new(r->record, "undone", json_true());
    record_put(r);
}

static void undo_restored(void *ctx, int rc, const char *text)
{
    struct resolve *r = ctx;
    if (rc != 0)
        resolve_end(r, rc, text);
    else
        undo_finish(r);
}

/* The content that went comes back from the past versions. */
static void undo_restore(struct resolve *r, const char *path)
{
    json_t *q = json_pack("{s:s,s:s,s:s,s:s}", "path", path, "oid", text_of(r, "oid"), "version",
                          text_of(r, "version"), "to", path);
    admin_restore(r->n, q, undo_restored, r);
    json_decref(q);
}

static void undo_renamed(struct call *c, int rc)
{
    struct resolve *r = c->user;
    if (rc != 0)
        resolve_end(r, rc, NULL);
    else
        undo_restore(r, text_of(r, "to"));
}

static void undo_named(struct call *c, int rc)
{
    struct resolve *r = c->user;
    if (rc != 0)
        resolve_end(r, rc, NULL);
    else
        undo_finish(r);
}

static json_int_t number_of(const struct resolve *r, const char *key)
{
    return json_integer_value(json_object_get(r->record, key));
}

/* The directory is made again, if the one above it is there and nothing has its name. */
static void undo_mkdir(struct resolve *r)
{
    struct oid at, parent;
    struct slice name;
    char *path = mem_strdup(text_of(r, "path"));
    char *slash = strrchr(path, '/');
    int rc = ERR_NOT_FOUND;
    if (slash != NULL) {
        *slash = '\0';
        rc = node_resolve_path(r->n, path, &at, &parent, &name);
    }
    if (rc != 0 || !oid_is_dir(at)) {
        resolve_end(r, rc != 0 ? rc : ERR_NOT_DIR, "what was decided has been changed since then");
    } else {
        struct fs_request q = {.oid = at,
                               .name = slice_str(slash + 1),
                               .mode = (uint32_t)number_of(r, "mode"),
                               .uid = (uint32_t)number_of(r, "uid"),
                               .gid = (uint32_t)number_of(r, "gid")};
        node_issue(r->n, RPC_MKDIR, &q, undo_named, r);
    }
    mem_free(path);
}

/* A rename back, or a link: the directories and the file are where they were, or it is refused. */
static void undo_names(struct resolve *r, enum action act)
{
    struct oid at, parent, at2, parent2;
    struct slice name, name2;
    const char *from = text_of(r, "to");
    char *to = mem_strdup(text_of(r, "path"));
    char *slash = strrchr(to, '/');
    int rc = node_resolve_path(r->n, from, &at, &parent, &name);
    if (rc == 0 && slash != NULL && oid_is_dir(at))
        rc = ERR_IS_DIR;
    if (rc == 0 && slash != NULL) {
        *slash = '\0';
        rc = node_resolve_path(r->n, to, &at2, &parent2, &name2);
        *slash = '/';
    }
    if (rc != 0 || slash == NULL || !oid_is_dir(at2)) {
        resolve_end(r, rc != 0 ? rc : ERR_NOT_DIR, "what was decided has been changed since then");
    } else if (act == ACT_UNNAME) {
        struct fs_request q = {.oid = at, .oid2 = at2, .name = slice_str(slash + 1)};
        node_issue(r->n, RPC_LINK, &q, undo_named, r);
    } else {
        struct fs_request q = {.oid = parent,
                               .name = name,
                               .oid2 = at2,
                               .name2 = slice_str(slash + 1),
                               .flags = 1 /* nothing may be there */};
        node_issue(r->n, RPC_RENAME, &q, undo_renamed, r);
    }
    mem_free(to);
}

void admin_conflicts_undo(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    struct conflict_list l;
    int rc = conflict_load(n, &l);
    const struct conflict *c = conflict_find(&l, json_string_value(json_object_get(in, "id")));
    json_t *record = c != NULL ? resolution_get(n, c->id) : NULL;
    if (rc != 0 || c == NULL) {
        cb(ctx, rc != 0 ? rc : ERR_NOT_FOUND,
           "no conflict has this id: see claudefs conflicts list");
    } else if (record == NULL || json_is_true(json_object_get(record, "undone"))) {
        cb(ctx, ERR_NOT_FOUND, "nobody resolved it at this site, so there is nothing to take back");
    } else {
        struct resolve *r = mem_calloc(1, sizeof *r);
        r->n = n;
        r->cb = cb;
        r->ctx = ctx;
        r->record = json_incref(record);
        memcpy(r->id, c->id, sizeof r->id);
        const char *action = text_of(r, "action");
        if (strcmp(action, action_text[ACT_UNLINK]) == 0)
            undo_restore(r, text_of(r, "path"));
        else if (strcmp(action, action_text[ACT_RENAME]) == 0)
            undo_names(r, ACT_RENAME);
        else if (strcmp(action, action_text[ACT_UNNAME]) == 0)
            undo_names(r, ACT_UNNAME);
        else if (strcmp(action, action_text[ACT_RMDIR]) == 0)
            undo_mkdir(r);
        else
            undo_finish(r);
    }
    json_decref(record);
    conflict_unload(&l);
}
