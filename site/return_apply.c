/* Carrying out the list of a site that came back, item by item.
 *
 * An item is evaluated against the tree as it is now; what is missing is asked for, one request at
 * a time, through the same evaluation as users' calls; then it is evaluated again, until nothing is
 * missing. So it does not matter where a crash interrupts it. What was made is noted in a file
 * (return_progress), because users may change it at once. An item that keeps failing is passed
 * over, with a conflict record; a site without room tries again. */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/plant.h"
#include "site/return_int.h"

#define TRIES_MAX 40u
#define RETRY_NS (2 * NS_PER_SEC)
#define NAMES_TRIED 16u
#define ITEMS_PER_TURN 64u

/* ---- asking ---- */

static void finished(struct call *c, int rc)
{
    struct returning *r = c->user;
    struct unsent_file *file = r->making_file;
    struct unsent_dir *dir = r->making_dir;
    r->issued = false;
    r->making_file = NULL;
    r->making_dir = NULL;
    if (rc == 0 && r->pending.is_due) {
        r->pending.note.other = c->reply.attr.oid;
        return_note(r, &r->pending.note);
    }
    r->pending.is_due = false;
    if (rc == 0 && file != NULL)
        return_mapped_file(r, file, c->reply.attr.oid);
    if (rc == 0 && dir != NULL) {
        dir->now = c->reply.attr.oid;
        dir->made = true;
        return_progress(r, return_made_json(true, dir->oid, dir->now));
    }
    if (rc == 0 && c->type == RPC_RMDIR)
        r->moved = true;
    if (rc != 0)
        log_info(LOG_SITE, "return_request", "type=%u stage=%u item=%u code=%s", c->type, r->stage,
                 r->at, err_name(rc));
    if (rc == ERR_NO_SPACE)
        r->retry_ns = loop_now_ns(r->n->loop) + RETRY_NS;
    loop_defer(r->n->loop, &r->again);
}

int return_issue(struct returning *r, enum rpc_type type, const struct fs_request *q)
{
    ASSERT(!r->issued);
    r->issued = true;
    node_issue(r->n, type, q, finished, r);
    return ITEM_AGAIN;
}

void return_mapped_file(struct returning *r, struct unsent_file *f, struct oid now)
{
    f->now = now;
    return_progress(r, return_made_json(false, f->oid, now));
}

int return_make(struct returning *r,
                struct unsent_file *f,
                struct oid parent,
                struct slice name,
                const struct return_note *note)
{
    r->pending.is_due = note != NULL;
    if (note != NULL) {
        r->pending.note = *note;
        memcpy(r->pending.name, note->name.ptr, note->name.len);
        memcpy(r->pending.other_name, name.ptr, name.len);
        r->pending.note.name.ptr = r->pending.name;
        r->pending.note.other_name = slice_of(r->pending.other_name, name.len);
    }
    struct fs_request q = {.oid = parent,
                           .name = name,
                           .kind = (uint8_t)oid_kind(f->oid),
                           .has_content = true,
                           .content = f->content,
                           .mtime_ns = f->mtime_ns,
                           .data = f->perm};
    r->making_file = f;
    return return_issue(r, RPC_RESTORE, &q);
}

/* ---- contents ---- */

static void content_brought(void *ctx, int rc)
{
    struct node *n = ctx;
    struct returning *r = n->returning;
    if (r == NULL)
        return; /* the node ends */
    struct unsent_file *f = r->bringing_file;
    r->issued = false;
    r->bringing_file = NULL;
    f->brought = rc == 0;
    f->nowhere = rc == ERR_NOT_FOUND; /* all members were asked */
    if (rc != 0 && rc != ERR_NOT_FOUND) {
        log_info(LOG_SITE, "return_waits",
                 "item=%u why=\"a content is at a site that cannot be "
                 "asked now: %s\"",
                 r->at, err_text(rc));
        r->retry_ns = loop_now_ns(n->loop) + RETRY_NS;
        r->tries = 0; /* it waits as long as it takes */
    }
    loop_defer(n->loop, &r->again);
}

/* This site's mounts have put it, and it is referred to by the list (T3). */
static bool is_put_here(const struct unsent_file *f)
{
    for (uint32_t i = 0; i < f->chain_count && f->written; i++)
        if (dot_equal(f->chain[i].dot, f->version))
            return true;
    return f->content.kind != CONTENT_MANIFEST;
}

int return_bring(struct returning *r, struct unsent_name *nm, struct unsent_file *f)
{
    if (f->brought || is_put_here(f))
        return ITEM_DONE;
    if (!f->nowhere) {
        ASSERT(!r->issued);
        r->issued = true;
        r->bringing_file = f;
        node_bring(r->n, &f->content, content_brought, r->n);
        return ITEM_AGAIN;
    }
    log_warn(LOG_SITE, "return_content_gone",
             "why=\"a file that others have removed was renamed "
             "or linked here, and no site has its content any more\"");
    const struct unsent_dir *d = unsent_dir_find(&r->u, nm->parent);
    struct return_note note = {.rule = 3,
                               .oid = f->oid,
                               .parent = d != NULL && !oid_is_none(d->now) ? d->now : nm->parent,
                               .name = nm->name,
                               .loser_stamp = {.hlc = nm->order, .site = r->plan.before}};
    return_note(r, &note);
    return ITEM_DONE;
}

/* ---- looking ---- */

bool return_was_sent(const struct returning *r, struct dot d)
{
    if (d.site != r->plan.before || d.shard >= r->n->settings.shard_count)
        return false;
    if (!r->plan.rolled_back) /* who had it without a cut may have been given up as well */
        return r->cut != NULL && d.seq <= r->cut[d.shard];
    return d.shard < r->u.sent_count && d.seq <= r->u.sent[d.shard];
}

int return_lookup(struct returning *r, struct oid parent, struct slice name, struct oid *ret)
{
    struct shown s;
    int rc = merge_lookup(merge_of(r->n, parent), parent, name, &s);
    *ret = rc == 0 ? s.oid : (struct oid){{0}};
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

struct visible {
    struct oid oid;
    struct slice stored;
    struct buf *ret;
    bool found;
};

static bool take_visible(void *ctx, struct slice name, const struct shown *s)
{
    struct visible *v = ctx;
    if (!oid_equal(s->oid, v->oid) || !slice_equal(s->stored, v->stored))
        return true;
    v->found = true;
    buf_append(v->ret, name.ptr, name.len);
    return false;
}

int return_visible(
    struct returning *r, struct oid oid, struct oid parent, struct slice stored, struct buf *ret)
{
    struct shown s;
    struct visible v = {.oid = oid, .ret = ret};
    struct buf name = {0}; /* the engine's slices last until the next call */
    buf_append(&name, stored.ptr, stored.len);
    v.stored = buf_slice(&name);
    int rc = merge_lookup(merge_of(r->n, parent), parent, v.stored, &s);
    bool same = rc == 0 && oid_equal(s.oid, oid);
    for (uint32_t i = 0; rc == 0 && i < s.twin_count; i++)
        same = same || oid_equal(s.twins[i], oid);
    if (same)
        buf_append(ret, name.ptr, name.len);
    else if (rc == 0)
        rc = merge_list(merge_of(r->n, parent), parent, slice_of(NULL, 0), take_visible, &v);
    buf_deinit(&name);
    return rc == 0 && !same && !v.found ? ERR_NOT_FOUND : rc;
}

static int file_is_there(struct returning *r, struct oid oid, bool *ret)
{
    struct file_view v;
    int rc = merge_file(merge_of(r->n, oid), oid, &v);
    *ret = rc == 0 && v.names > 0;
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int return_target(struct returning *r, const struct unsent_file *f, struct oid *ret)
{
    bool there = false;
    struct oid oid = oid_is_none(f->now) ? f->oid : f->now;
    *ret = (struct oid){{0}};
    if (r->plan.rolled_back && f->born && oid_is_none(f->now))
        return 0; /* what has this oid there may be another file */
    int rc = file_is_there(r, oid, &there);
    if (there)
        *ret = oid;
    return rc;
}

bool return_same(struct returning *r, struct oid oid, const struct unsent_file *f)
{
    struct file_view v;
    return oid_kind(oid) == oid_kind(f->oid) && merge_file(merge_of(r->n, oid), oid, &v) == 0 &&
           content_equal(&v.content, &f->content);
}

int return_free_name(struct returning *r,
                     struct oid parent,
                     struct slice name,
                     const struct unsent_file *f,
                     struct oid placed,
                     struct buf *ret,
                     struct oid *ret_oid)
{
    for (uint32_t k = 0; k < NAMES_TRIED; k++) {
        buf_clear(ret);
        conflict_name(name, r->n->settings.name, f->oid, k, ret);
        int rc = return_lookup(r, parent, buf_slice(ret), ret_oid);
        if (rc != 0 || oid_is_none(*ret_oid))
            return rc;
        if (!oid_is_dir(*ret_oid) && (oid_equal(*ret_oid, placed) || return_same(r, *ret_oid, f)))
            return 0;
    }
    return ERR_EXISTS;
}

/* Own versions of a file that were written on the way are no news either. */
static bool is_own_version(const struct returning *r, struct oid oid, const struct file_view *v)
{
    const struct unsent_file *f = unsent_file_find(&r->u, oid);
    for (uint32_t i = 0; f != NULL && i < f->chain_count; i++)
        if (dot_equal(f->chain[i].dot, v->version) &&
            f->chain[i].digest == unsent_digest(&v->content))
            return true;
    return false;
}

/* A name that was taken away knew the version that showed, if it was the last one; a file that has
 * another name here goes there, whatever it holds. */
bool return_is_known(struct returning *r, const struct unsent_name *nm, struct oid there)
{
    struct file_view v;
    const struct unsent_file *f = unsent_file_find(&r->u, there);
    if (oid_is_dir(there) || f == NULL || merge_file(merge_of(r->n, there), there, &v) != 0)
        return false;
    for (uint32_t i = 0; i < nm->known_count; i++)
        if (oid_equal(nm->known[i].oid, there))
            return PLANTED(41) || f->there || dot_equal(f->version, v.version) ||
                   dot_equal(nm->known[i].version, v.version) || is_own_version(r, there, &v);
    return false;
}

/* ---- directories ---- */

bool return_dir_lives(struct returning *r, struct oid oid)
{
    struct dir_view v;
    return merge_dir(merge_of(r->n, oid), oid, &v) == 0 && v.alive;
}

static int dir_make(struct returning *r, struct unsent_dir *d, struct oid parent, struct slice name)
{
    struct perm p = {.mode = 0755};
    int rc = d->perm.len > 0 ? perm_decode(d->perm, &p) : 0;
    struct fs_request q = {.oid = parent, .name = name, .mode = p.mode, .uid = p.uid, .gid = p.gid};
    if (rc != 0)
        return rc;
    r->making_dir = d;
    return return_issue(r, RPC_MKDIR, &q);
}

/* A file has the directory's name: it goes if it went here, too, else the directory is put beside.
 */
static int
dir_beside(struct returning *r, struct unsent_dir *d, struct oid parent, struct oid there)
{
    const struct unsent_name *nm = unsent_name_find(&r->u, d->parent, d->name);
    struct buf name = {0};
    int rc = ERR_EXISTS;
    bool gone = false;
    if (nm != NULL && return_is_known(r, nm, there))
        rc = return_clear(r, there, parent, d->name, &gone);
    if (gone || rc == ITEM_AGAIN)
        return rc;
    rc = ERR_EXISTS;
    for (uint32_t k = 0; k < NAMES_TRIED && rc == ERR_EXISTS; k++) {
        struct oid taken;
        buf_clear(&name);
        conflict_name(d->name, r->n->settings.name, d->oid, k, &name);
        rc = return_lookup(r, parent, buf_slice(&name), &taken);
        if (rc == 0 && oid_is_none(taken)) {
            struct return_note note = {.rule = 6,
                                       .oid = there,
                                       .parent = parent,
                                       .name = d->name,
                                       .other_name = buf_slice(&name)};
            return_note(r, &note);
            rc = dir_make(r, d, parent, buf_slice(&name));
        } else if (rc == 0 && oid_is_dir(taken)) {
            d->now = taken;
        } else if (rc == 0) {
            rc = ERR_EXISTS;
        }
    }
    buf_deinit(&name);
    return rc;
}

static int dir_place(struct returning *r, struct unsent_dir *d, struct oid *ret)
{
    struct oid parent, there;
    int rc = return_dir(r, d->parent, &parent);
    if (rc != ITEM_DONE)
        return rc;
    rc = return_lookup(r, parent, d->name, &there);
    if (rc != 0)
        return rc;
    if (oid_is_none(there))
        return dir_make(r, d, parent, d->name);
    if (!oid_is_dir(there))
        rc = dir_beside(r, d, parent, there);
    else
        d->now = there; /* theirs and ours are one (rule 7) */
    *ret = d->now;
    return rc;
}

int return_dir(struct returning *r, struct oid oid, struct oid *ret)
{
    struct unsent_dir *d = unsent_dir_find(&r->u, oid);
    *ret = d != NULL && !oid_is_none(d->now) ? d->now : oid;
    if (oid_is_root(oid) || return_dir_lives(r, *ret))
        return ITEM_DONE;
    if (d == NULL || d->name.len == 0) { /* nothing is known of it */
        *ret = OID_ROOT;
        return ITEM_DONE;
    }
    if (d->entered)
        return ERR_BUSY;
    d->entered = true;
    int rc = dir_place(r, d, ret);
    d->entered = false;
    return rc;
}

static int dir_item(struct returning *r, const struct unsent_dir *d)
{
    struct oid now;
    if (!d->alive || dot_is_none(d->last) || return_was_sent(r, d->last))
        return ITEM_DONE;
    return return_dir(r, d->oid, &now);
}

static int move_item(struct returning *r, const struct unsent_dir *d)
{
    struct dir_view v;
    struct oid parent, there;
    if (!d->alive || !d->moved || return_was_sent(r, d->last) || !return_dir_lives(r, d->oid))
        return ITEM_DONE;
    int rc = return_dir(r, d->parent, &parent);
    if (rc != ITEM_DONE)
        return rc;
    rc = return_lookup(r, parent, d->name, &there);
    if (rc != 0 || oid_equal(there, d->oid))
        return rc;
    rc = merge_dir(merge_of(r->n, d->oid), d->oid, &v);
    if (rc != 0)
        return rc;
    if (oid_is_none(there) && r->tries < 4) {
        struct buf name = {0};
        struct fs_request q = {.oid = v.parent, .oid2 = parent, .name2 = d->name};
        rc = return_visible(r, d->oid, v.parent, v.name, &name);
        q.name = buf_slice(&name);
        if (rc == 0)
            rc = return_issue(r, RPC_RENAME, &q);
        buf_deinit(&name);
        if (rc != ERR_NOT_FOUND)
            return rc;
    }
    struct return_note note = {.rule = 5, .oid = d->oid, .parent = parent, .name = d->name};
    return_note(r, &note); /* it stays where the others have it */
    return ITEM_DONE;
}

static int rmdir_item(struct returning *r, const struct unsent_dir *d)
{
    struct dir_view v;
    if (d->alive || dot_is_none(d->last) || return_was_sent(r, d->last))
        return ITEM_DONE;
    int rc = merge_dir(merge_of(r->n, d->oid), d->oid, &v);
    if (rc != 0 || !v.alive)
        return rc == ERR_NOT_FOUND ? ITEM_DONE : rc;
    struct return_note note = {.rule = 4, .oid = d->oid, .parent = v.parent, .name = v.name};
    if (merge_dir_empty(merge_of(r->n, d->oid), d->oid) && r->tries < 4) {
        struct buf name = {0};
        struct fs_request q = {.oid = v.parent};
        rc = merge_dir(merge_of(r->n, d->oid), d->oid, &v);
        if (rc == 0)
            rc = return_visible(r, d->oid, v.parent, v.name, &name);
        q.name = buf_slice(&name);
        if (rc == 0)
            rc = return_issue(r, RPC_RMDIR, &q);
        buf_deinit(&name);
        return rc == ERR_NOT_FOUND ? ITEM_DONE : rc;
    }
    if (r->last_pass) {
        rc = merge_dir(merge_of(r->n, d->oid), d->oid, &v);
        note.name = v.name;
        return_note(r, &note);
    }
    return rc;
}

/* ---- conflict records ---- */

void return_note(struct returning *r, const struct return_note *note)
{
    struct conflict c = {.rule = note->rule,
                         .oid = note->oid,
                         .other = note->other,
                         .parent = note->parent,
                         .name = note->name,
                         .other_name = note->other_name,
                         .winner = note->winner,
                         .loser = note->winner == r->plan.after ? 0 : r->plan.after,
                         .winner_stamp = note->winner_stamp,
                         .loser_stamp = note->loser_stamp};
    c.stamp.hlc = hlc_from_wall(clock_wall_ns(r->n->clock));
    c.stamp.site = r->plan.after;
    bool is_new = false;
    int rc = merge_conflict_note(merge_of(r->n, note->parent), &c, &is_new);
    if (rc != 0)
        log_warn(LOG_SITE, "conflict_not_noted", "rule=%u why=\"%s\"", note->rule, err_text(rc));
    r->conflicts += is_new;
    if (is_new)
        return_progress(r, return_note_json(note));
}

/* ---- the machine ---- */

static uint32_t stage_count(const struct returning *r)
{
    switch (r->stage) {
    case STAGE_MOVES:
    case STAGE_DIRS:
    case STAGE_RMDIRS:
    case STAGE_ATTRS:
        return r->u.dir_count;
    case STAGE_NAMES:
    case STAGE_REMOVALS:
        return r->u.name_count;
    case STAGE_FILES:
        return r->u.file_count;
    case STAGE_WAIT:
    case STAGE_STORE:
    case STAGE_END:
        return 0;
    }
    UNREACHABLE();
}

static int item_step(struct returning *r)
{
    switch (r->stage) {
    case STAGE_MOVES:
        return move_item(r, r->u.dirs[r->at]);
    case STAGE_DIRS:
        return dir_item(r, r->u.dirs[r->at]);
    case STAGE_RMDIRS:
        return rmdir_item(r, r->u.dirs[r->at]);
    case STAGE_ATTRS:
        return return_dir_attrs_item(r, r->u.dirs[r->at]);
    case STAGE_NAMES:
        return return_name_item(r, r->u.names[r->at]);
    case STAGE_REMOVALS:
        return return_removal_item(r, r->u.names[r->at]);
    case STAGE_FILES:
        return return_file_item(r, r->u.files[r->at]);
    case STAGE_WAIT:
    case STAGE_STORE:
    case STAGE_END:
        break;
    }
    UNREACHABLE();
}

static void stage_next(struct returning *r)
{
    r->at = 0;
    r->tries = 0;
    if (r->stage == STAGE_RMDIRS && !r->last_pass) { /* children go before their parents */
        r->last_pass = !r->moved;
        r->moved = false;
        return;
    }
    r->stage++;
}

static void item_failed(struct returning *r, int rc)
{
    log_error(LOG_SITE, "return_item_failed", "stage=%u item=%u code=%s", r->stage, r->at,
              err_name(rc));
    r->failed++;
    r->at++;
    r->tries = 0;
}

/* What was done, conflict records too, is in states that are frozen from here on and written down:
 * then the list may go (T1). */
static void store_step(struct returning *r)
{
    struct node *n = r->n;
    bool all = true;
    if (!r->brought)
        return;
    for (unsigned i = 0; i < n->settings.shard_count; i++) {
        struct state *st = shard_state(n->shards[i]);
        bool frozen = state_is_frozen(st); /* by an earlier checkpoint, at first */
        if (!r->frozen[i] && !frozen) {
            shard_checkpoint(n->shards[i], true);
            r->frozen[i] = true;
            frozen = state_is_frozen(st);
        }
        all = all && r->frozen[i] && !frozen;
    }
    if (all)
        r->stage = STAGE_END;
}

void return_step(struct returning *r)
{
    uint32_t budget = ITEMS_PER_TURN;
    r->cut = node_cut(r->n, r->plan.before);
    while (!r->issued && budget-- > 0 && r->stage > STAGE_WAIT && r->stage < STAGE_STORE) {
        if (r->retry_ns > loop_now_ns(r->n->loop))
            return;
        if (r->at >= stage_count(r)) {
            stage_next(r);
            continue;
        }
        int rc = item_step(r);
        if (rc == ITEM_DONE) {
            r->done++;
            r->at++;
            r->tries = 0;
        } else if (rc < 0 || ++r->tries > TRIES_MAX) {
            item_failed(r, rc < 0 ? rc : ERR_AGAIN);
        }
    }
    if (!r->issued && r->stage > STAGE_WAIT && r->stage < STAGE_STORE)
        loop_defer(r->n->loop, &r->again);
    if (r->stage == STAGE_STORE)
        store_step(r);
    if (r->stage == STAGE_END)
        return_finish(r);
}
