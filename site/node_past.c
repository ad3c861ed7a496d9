/* Past versions of files: how long they are kept, which there are of a path, and restoring one.
 *
 * Where a path leads is asked of the names as they are now, and of those that were there before:
 * a file that was removed, or replaced by renaming another over it, and a directory that was
 * removed or renamed, are found by their former path.
 *
 * A restore is an ordinary change, so other sites get it as they get all: what is there now becomes
 * a past version itself, a removed file is made again under its name (with directories above that
 * are missing). Before, all its chunks are brought here; meanwhile no past version is dropped, so
 * no garbage pass can take them. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "site/admin_int.h"
#include "site/past_int.h"

#define KEEP_SETTING "versions_s"
#define KEEP_DEFAULT_S (7u * 86400u)
#define KEEP_MAX_S (100u * 366u * 86400u)
#define WALK_BUDGET 1000u /* records looked at in one tick */
#define REST_ROUNDS 9u    /* after a walk of several steps: nine times as long */
#define VERSIONS_MAX 2000u

/* ---- keeping and dropping ---- */

uint64_t node_past_keep_s(struct node *n)
{
    return MIN(node_setting(n, KEEP_SETTING, KEEP_DEFAULT_S), KEEP_MAX_S); /* anybody wrote it */
}

/* A piece of a walk over the records of one shard. Nothing goes sooner for walking all the time: a
 * round that took long is followed by a rest. */
static void walk_step(struct node *n, unsigned at)
{
    struct past_keeper *k = n->past;
    struct past_walk *w = &k->walks[at];
    uint64_t rounds = w->rounds;
    if (k->ticks < k->rests[at])
        return;
    const struct past_limits limits = {.now_hlc = hlc_from_wall(clock_wall_ns(n->clock)),
                                       .keep_ms = k->keep_s * 1000,
                                       .stable_hlc = node_stable_hlc(n)};
    int rc = 0;
    k->steps[at]++;
    for (int kind = 0; kind < 2 && rc == 0; kind++) /* few records: versions, then names */
        rc = merge_past_collect(shard_merge(n->shards[at]), w, &limits, WALK_BUDGET);
    if (rc != 0)
        log_warn(LOG_SITE, "past_versions_not_read", "shard=%u why=\"%s\"", at, err_text(rc));
    if (w->rounds > rounds) {
        k->rests[at] = k->ticks + REST_ROUNDS * (k->steps[at] - 1) * n->settings.shard_count;
        k->steps[at] = 0;
    }
}

void node_past_tick(struct node *n)
{
    struct past_keeper *k = n->past;
    if (n->needs_snapshot || n->broken)
        return;
    uint64_t keep_s = node_past_keep_s(n);
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        merge_past_enable(shard_merge(n->shards[i]), keep_s > 0);
    if (k->restoring > 0) /* S15 */
        return;
    if (k->keep_s != keep_s) /* it takes effect now */
        memset(k->rests, 0, sizeof k->rests);
    k->keep_s = keep_s;
    /* One shard a tick: its records are few, or there is time. */
    walk_step(n, (unsigned)(k->ticks++ % n->settings.shard_count));
}

bool node_past_hurry(struct node *n, bool begin)
{
    struct past_keeper *k = n->past;
    bool all = true;
    if (n->needs_snapshot || n->broken || k->restoring > 0)
        return true; /* nothing goes now */
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        if (begin)
            k->hurry[i] = k->walks[i].rounds + 2; /* the one that is under way, and a whole one */
        if (k->walks[i].rounds >= k->hurry[i])
            continue;
        k->rests[i] = 0;
        walk_step(n, i);
        all = all && k->walks[i].rounds >= k->hurry[i];
    }
    return all;
}

uint64_t node_past_goal(const struct node *n)
{
    uint64_t goal = 0;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        goal = MAX(goal, n->past->walks[i].waits);
    return goal;
}

void node_past_open(struct node *n)
{
    n->past = mem_calloc(1, sizeof *n->past);
}

void node_past_close(struct node *n)
{
    if (n->past == NULL)
        return;
    for (unsigned i = 0; i < SHARD_COUNT_MAX; i++)
        past_walk_deinit(&n->past->walks[i]);
    mem_free(n->past);
    n->past = NULL;
}

void node_past_space(struct node *n, uint64_t bytes)
{
    n->past->space_known = true;
    n->past->space_bytes = bytes;
}

json_t *node_past_json(struct node *n)
{
    const struct past_keeper *k = n->past;
    uint64_t count = 0, bytes = 0;
    bool known = true;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        count += k->walks[i].counts;
        bytes += k->walks[i].sizes;
        known = known && k->walks[i].rounds > 0;
    }
    return json_pack("{s:I,s:o,s:o,s:o}", "keep_s", (json_int_t)node_past_keep_s(n), "count",
                     known ? json_integer((json_int_t)count) : json_null(), "content_bytes",
                     known ? json_integer((json_int_t)bytes) : json_null(), "space_bytes",
                     k->space_known ? json_integer((json_int_t)k->space_bytes) : json_null());
}

struct keep_set {
    admin_reply_cb cb;
    void *ctx;
};

static void keep_done(void *ctx, int rc)
{
    struct keep_set *s = ctx;
    s->cb(s->ctx, rc, rc == 0 ? "{}" : err_text(rc));
    mem_free(s);
}

void admin_versions_keep(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    const json_t *keep = json_object_get(in, "keep_s");
    json_int_t s = json_integer_value(keep);
    if (keep == NULL) {
        admin_reply_json(cb, ctx, node_past_json(n));
        return;
    }
    if (!json_is_integer(keep) || s < 0 || s > (json_int_t)KEEP_MAX_S) {
        cb(ctx, ERR_INVALID, "keep_s: seconds from 0 to 100 years");
        return;
    }
    struct keep_set *set = mem_calloc(1, sizeof *set);
    set->cb = cb;
    set->ctx = ctx;
    node_setting_set(n, KEEP_SETTING, (uint64_t)s, keep_done, set);
}

/* ---- the objects of a path ---- */

/* Objects without repetition, in the order in which they were found. */
struct object_set {
    struct oid *at;
    uint32_t count, max;
    bool dirs_only;
};

static bool add_object(void *ctx, struct oid oid, uint64_t gone_hlc)
{
    struct object_set *s = ctx;
    (void)gone_hlc;
    if (s->dirs_only && !oid_is_dir(oid))
        return true;
    for (uint32_t i = 0; i < s->count; i++)
        if (oid_equal(s->at[i], oid))
            return true;
    if (s->count < s->max)
        s->at[s->count++] = oid;
    return s->count < s->max;
}

/* What `name` means, and meant, in any of the directories. *ret_current: the first of the objects
 * is what it means now in the first directory. */
static int step_into(struct node *n,
                     const struct object_set *dirs,
                     struct slice name,
                     bool *current,
                     struct object_set *ret)
{
    int rc = 0;
    bool was_current = *current;
    *current = false;
    for (uint32_t i = 0; i < dirs->count && rc == 0; i++) {
        struct oid dir = dirs->at[i];
        struct shown s;
        rc = merge_lookup(merge_of(n, dir), dir, name, &s);
        if (rc == 0) {
            *current = *current || (i == 0 && was_current);
            (void)add_object(ret, s.oid, 0); /* full: what was found first is enough */
        } else if (rc == ERR_NOT_FOUND) {
            rc = 0;
        }
        if (rc == 0)
            rc = merge_past_names(merge_of(n, dir), dir, name, add_object, ret);
    }
    return rc;
}

int node_path_objects(struct node *n, const char *path, struct path_objects *ret)
{
    struct oid memory[2][PATH_DIRS_MAX];
    struct object_set dirs = {.at = memory[0], .count = 1, .max = PATH_DIRS_MAX};
    memset(ret, 0, sizeof *ret);
    dirs.at[0] = OID_ROOT;
    ret->current = true;
    for (unsigned depth = 1;; depth++) {
        path += strspn(path, "/");
        size_t len = strcspn(path, "/");
        struct slice name = slice_of(path, len);
        path += len;
        ret->parent = dirs.at[0];
        if (len == 0) { /* the root */
            ret->at[ret->count++] = dirs.at[0];
            return 0;
        }
        if (!name_valid(name))
            return ERR_INVALID;
        bool last = path[strspn(path, "/")] == '\0';
        struct object_set found = {.at = last ? ret->at : memory[depth % 2],
                                   .max = last ? PATH_OBJECTS_MAX : PATH_DIRS_MAX,
                                   .dirs_only = !last};
        int rc = step_into(n, &dirs, name, &ret->current, &found);
        if (last)
            ret->name = name;
        ret->count = last ? found.count : 0;
        if (rc != 0 || found.count == 0)
            return rc != 0 ? rc : ERR_NOT_FOUND;
        if (last)
            return 0;
        dirs = found;
    }
}

/* ---- their versions ---- */

struct version_list {
    struct op_arena arena;
    struct past *at;
    uint32_t count, cap;
};

static bool add_version(void *ctx, const struct past *p)
{
    struct version_list *l = ctx;
    if (l->count == l->cap) {
        l->cap = MAX(2 * l->cap, 64u);
        l->at = mem_realloc(l->at, l->cap * sizeof l->at[0]);
    }
    struct past *to = &l->at[l->count++];
    *to = *p;
    to->name = op_dup(&l->arena, p->name);
    to->perm = op_dup(&l->arena, p->perm);
    to->content.bytes = op_dup(&l->arena, p->content.bytes);
    return l->count < VERSIONS_MAX;
}

static void versions_deinit(struct version_list *l)
{
    mem_free(l->at);
    op_arena_deinit(&l->arena);
}

static int newest_first(const void *a, const void *b)
{
    const struct past *x = a, *y = b;
    if (x->gone_hlc != y->gone_hlc)
        return x->gone_hlc < y->gone_hlc ? 1 : -1;
    return -dot_cmp(x->dot, y->dot);
}

static int load_versions(struct node *n, const struct path_objects *o, struct version_list *l)
{
    int rc = 0;
    memset(l, 0, sizeof *l);
    for (uint32_t i = 0; i < o->count && rc == 0; i++)
        if (!oid_is_dir(o->at[i]))
            rc = merge_past(merge_of(n, o->at[i]), o->at[i], add_version, l);
    if (l->count > 1)
        qsort(l->at, l->count, sizeof l->at[0], newest_first);
    return rc;
}

static json_t *time_of(uint64_t ms)
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    char text[40];
    (void)gmtime_r(&t, &tm);
    (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

static json_t *
version_json(struct node *n, struct dot dot, struct stamp stamp, uint64_t size, const char *state)
{
    char text[DOT_TEXT_LEN], site[160];
    dot_to_text(dot, text);
    node_site_name(n, stamp.site, site);
    return json_pack("{s:s,s:s,s:o,s:s,s:I}", "version", text, "state", state, "time",
                     time_of(hlc_ms(stamp.hlc)), "site", site, "size", (json_int_t)size);
}

static json_t *past_json(struct node *n, const struct past *p)
{
    struct buf path = {0};
    char site[160];
    json_t *o = version_json(n, p->dot, p->stamp, p->content.size,
                             p->why == PAST_REMOVED ? "removed" : "replaced");
    node_site_name(n, p->gone.site, site);
    (void)json_object_set_new(o, "gone_time", time_of(hlc_ms(p->gone.hlc)));
    (void)json_object_set_new(o, "gone_site", json_string(site));
    uint64_t until_ms = hlc_ms(p->gone_hlc) + node_past_keep_s(n) * 1000;
    (void)json_object_set_new(o, "kept_until_time", time_of(until_ms));
    if (!oid_is_none(p->parent) && p->name.len > 0) {
        (void)node_path(n, p->parent, p->name, &path); /* "?" where the directory is gone */
        (void)json_object_set_new(o, "path", json_bytes(buf_slice(&path)));
    }
    buf_deinit(&path);
    return o;
}

json_t *node_versions_json(struct node *n, const struct path_objects *o)
{
    struct version_list l;
    struct file_view f;
    json_t *list = json_array();
    int rc = load_versions(n, o, &l);
    if (o->current && !oid_is_dir(o->at[0]) &&
        merge_file(merge_of(n, o->at[0]), o->at[0], &f) == 0 && !dot_is_none(f.version))
        (void)json_array_append_new(
            list, version_json(n, f.version, f.version_stamp, f.content.size, "current"));
    for (uint32_t i = 0; i < l.count && rc == 0; i++)
        (void)json_array_append_new(list, past_json(n, &l.at[i]));
    versions_deinit(&l);
    return list;
}

/* ---- restoring ---- */

struct restore {
    struct node *n;
    admin_reply_cb cb;
    void *ctx;
    struct op_arena arena;
    struct past past;
    struct perm perm;
    char *to;         /* the path to restore to */
    const char *left; /* of it, not walked yet */
    struct oid at;    /* the directory reached */
    bool must_be_new;
};

static void restore_end(struct restore *r, int rc, const char *why)
{
    if (rc == 0) {
        char dot[DOT_TEXT_LEN];
        dot_to_text(r->past.dot, dot);
        admin_reply_json(r->cb, r->ctx,
                         json_pack("{s:o,s:s,s:I}", "path", json_bytes(slice_str(r->to)), "version",
                                   dot, "size", (json_int_t)r->past.content.size));
    } else {
        r->cb(r->ctx, rc, why != NULL ? why : err_text(rc));
    }
    r->n->past->restoring--;
    op_arena_deinit(&r->arena);
    mem_free(r->to);
    mem_free(r);
}

static void restore_walk(struct restore *r);

static void restore_made(struct call *c, int rc)
{
    struct restore *r = c->user;
    if (rc == ERR_EXISTS && r->must_be_new)
        restore_end(r, rc, "there is something at the place to restore to: name another with --to");
    else if (rc == ERR_IS_DIR || rc == ERR_EXISTS)
        restore_end(r, rc,
                    "there is something else than a file at the path now: name another place with "
                    "--to");
    else
        restore_end(r, rc, NULL);
}

static void restore_file(struct restore *r, struct slice name)
{
    struct fs_request q = {.oid = r->at,
                           .name = name,
                           .kind = (uint8_t)oid_kind(r->past.oid),
                           .flags = r->must_be_new ? RESTORE_NEW : 0,
                           .has_content = true,
                           .content = r->past.content,
                           .mtime_ns = r->past.mtime_ns,
                           .data = r->past.perm};
    node_issue(r->n, RPC_RESTORE, &q, restore_made, r);
}

static void restore_dir_made(struct call *c, int rc)
{
    struct restore *r = c->user;
    if (rc != 0 && rc != ERR_EXISTS) /* somebody else made it: all the better */
        restore_end(r, rc, NULL);
    else
        restore_walk(r);
}

/* Goes down to the place; a directory that is missing is made, and then this is called again. */
static void restore_walk(struct restore *r)
{
    for (;;) {
        size_t len = strcspn(r->left, "/");
        size_t end = len + strspn(r->left + len, "/");
        struct slice name = slice_of(r->left, len);
        struct shown s;
        if (r->left[end] == '\0') {
            restore_file(r, name);
            return;
        }
        int rc = merge_lookup(merge_of(r->n, r->at), r->at, name, &s);
        if (rc == ERR_NOT_FOUND) {
            struct fs_request q = {
                .oid = r->at, .name = name, .mode = 0755, .uid = r->perm.uid, .gid = r->perm.gid};
            node_issue(r->n, RPC_MKDIR, &q, restore_dir_made, r);
            return;
        }
        if (rc != 0 || !oid_is_dir(s.oid)) {
            restore_end(r, rc != 0 ? rc : ERR_NOT_DIR, NULL);
            return;
        }
        r->at = s.oid;
        r->left += end;
    }
}

static void restore_brought(void *ctx, int rc)
{
    struct restore *r = ctx;
    if (rc != 0)
        restore_end(r, rc,
                    "its data is not here, and no site that is in reach has all of it: try again "
                    "when the others are back");
    else
        restore_walk(r);
}

/* The version that was asked for, or, without, the newest; NULL. */
static const struct past *
pick_version(const struct version_list *l, const char *version, int *ret_rc, const char **ret_why)
{
    struct dot d;
    *ret_rc = 0;
    if (version != NULL && dot_from_text(version, &d) != 0) {
        *ret_rc = ERR_INVALID;
        *ret_why = "this is no version: see claudefs journal show PATH";
        return NULL;
    }
    for (uint32_t i = 0; i < l->count; i++)
        if (version == NULL || dot_equal(l->at[i].dot, d))
            return &l->at[i];
    *ret_rc = ERR_NOT_FOUND;
    *ret_why = version != NULL
                   ? "no such version of it is kept (any more): see claudefs journal show PATH"
                   : "no former version of it is kept: see claudefs journal show PATH";
    return NULL;
}

static bool path_is_file_like(const char *path)
{
    size_t len = strlen(path);
    if (path[0] != '/' || len < 2 || path[len - 1] == '/')
        return false;
    while (*path != '\0') {
        path += strspn(path, "/");
        size_t part = strcspn(path, "/");
        if (!name_valid(slice_of(path, part)))
            return false;
        path += part;
    }
    return true;
}

static void restore_start(struct node *n,
                          const struct past *p,
                          const char *path,
                          const char *to,
                          admin_reply_cb cb,
                          void *ctx)
{
    struct restore *r = mem_calloc(1, sizeof *r);
    r->n = n;
    r->cb = cb;
    r->ctx = ctx;
    r->past = *p;
    r->past.perm = op_dup(&r->arena, p->perm);
    r->past.content.bytes = op_dup(&r->arena, p->content.bytes);
    r->to = mem_strdup(to != NULL ? to : path);
    r->left = r->to + strspn(r->to, "/");
    r->at = OID_ROOT;
    r->must_be_new = to != NULL;
    if (r->past.perm.len == 0 || perm_decode(r->past.perm, &r->perm) != 0) {
        r->perm = (struct perm){.mode = 0600};
        r->past.perm = slice_of(NULL, 0);
    }
    n->past->restoring++;
    node_bring(n, &r->past.content, restore_brought, r);
}

void admin_restore(struct node *n, const json_t *in, admin_reply_cb cb, void *ctx)
{
    const char *path = json_string_value(json_object_get(in, "path"));
    const char *version = json_string_value(json_object_get(in, "version"));
    const char *to = json_string_value(json_object_get(in, "to"));
    struct path_objects o;
    struct version_list l = {.count = 0};
    const char *why = "nothing is known of this path: see claudefs journal show PATH";
    if (path == NULL || !path_is_file_like(path) || (to != NULL && !path_is_file_like(to))) {
        cb(ctx, ERR_INVALID, "a path of a file inside the file system is needed: /notes/today.txt");
        return;
    }
    /* An object that is known needs no looking for: it may have shown under a derived name. */
    const char *oid = json_string_value(json_object_get(in, "oid"));
    o.count = 1;
    int rc = oid != NULL ? oid_from_text(oid, &o.at[0]) : node_path_objects(n, path, &o);
    if (rc == 0 && oid_shard(o.at[0]) >= n->settings.shard_count)
        rc = ERR_INVALID;
    if (rc == 0)
        rc = load_versions(n, &o, &l);
    const struct past *p = NULL;
    if (rc == 0)
        p = pick_version(&l, version, &rc, &why);
    else if (rc != ERR_NOT_FOUND)
        why = err_text(rc);
    if (p != NULL)
        restore_start(n, p, path, to, cb, ctx);
    else
        cb(ctx, rc, why);
    versions_deinit(&l);
}
