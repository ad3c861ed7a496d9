/* Names of files, while a site comes back: a three-way merge of what a name meant here before, what
 * it means here now, and what it means in the others' tree. Where the others changed it, too,
 * theirs stays, and this site's file is put beside it under a conflict name. */
#include <string.h>

#include "base/assert.h"
#include "site/return_int.h"

#define RENAME_EXCHANGE_FLAG 2u /* RENAME_EXCHANGE of Linux */
#define IN_THE_WAY_MAX 16u      /* files in a row, each at the place of the one before */

/* A name that this site took from the file, and the others' tree still has. */
struct old_name {
    struct returning *r;
    const struct unsent_file *f;
    bool found;
    struct oid parent;
    uint8_t bytes[LIMIT_NAME_BYTES];
    size_t len;
};

static bool take_old(void *ctx, struct oid parent, struct slice name)
{
    struct old_name *o = ctx;
    const struct unsent_name *nm = unsent_name_find(&o->r->u, parent, name);
    if (nm == NULL || dot_is_none(nm->last) || oid_equal(nm->ours, o->f->oid))
        return true;
    o->found = true;
    o->parent = parent;
    o->len = MIN(name.len, sizeof o->bytes);
    memcpy(o->bytes, name.ptr, o->len);
    return false;
}

static int
old_name_find(struct returning *r, const struct unsent_file *f, struct oid at, struct old_name *ret)
{
    *ret = (struct old_name){.r = r, .f = f};
    struct buf name = {0};
    int rc = merge_refs(merge_of(r->n, at), at, take_old, ret);
    /* Who removed that directory did not know that it is in there; somebody is to bring it back. No
     * name is taken out of it before. */
    ret->found = ret->found && return_dir_lives(r, ret->parent);
    if (rc == 0 && ret->found)
        rc = return_visible(r, at, ret->parent, slice_of(ret->bytes, ret->len), &name);
    ret->found = ret->found && rc == 0;
    if (ret->found) {
        ret->len = MIN(name.len, sizeof ret->bytes);
        memcpy(ret->bytes, name.ptr, ret->len);
    }
    buf_deinit(&name);
    return rc == ERR_NOT_FOUND ? 0 : rc; /* not seen: then it keeps that one as well */
}

/* The file is there already: it gets this name, by a rename where it lost another one here. */
static int move_here(struct returning *r,
                     const struct unsent_file *f,
                     struct oid file,
                     struct oid parent,
                     struct slice name,
                     uint32_t flags)
{
    struct old_name old;
    int rc = old_name_find(r, f, file, &old);
    if (rc != 0)
        return rc;
    if (!old.found) {
        struct fs_request q = {.oid = file, .oid2 = parent, .name = name};
        return return_issue(r, RPC_LINK, &q);
    }
    struct fs_request q = {.oid = old.parent,
                           .name = slice_of(old.bytes, old.len),
                           .oid2 = parent,
                           .name2 = name,
                           .flags = flags};
    return return_issue(r, RPC_RENAME, &q);
}

/* Which record says that `there` has the name. */
static struct return_note note_of(struct returning *r,
                                  const struct unsent_name *nm,
                                  const struct unsent_file *f,
                                  struct oid parent,
                                  struct oid there)
{
    struct file_view v;
    struct return_note note = {
        .rule = 6, .oid = there, .parent = parent, .name = nm->name, .loser_stamp = f->stamp};
    for (uint32_t i = 0; i < nm->known_count; i++)
        if (oid_equal(nm->known[i].oid, there))
            note.rule = 2; /* the file of both, replaced here and edited there */
    if (!oid_is_dir(there) && merge_file(merge_of(r->n, there), there, &v) == 0) {
        note.winner = v.version.site;
        note.winner_stamp = v.version_stamp;
    }
    return note;
}

/* Theirs keeps the name. */
static int put_beside(struct returning *r,
                      const struct unsent_name *nm,
                      struct unsent_file *f,
                      struct oid parent,
                      struct oid there,
                      struct oid target)
{
    struct return_note note = note_of(r, nm, f, parent, there);
    struct buf name = {0};
    struct oid same;
    int rc = return_free_name(r, parent, nm->name, f, target, &name, &same);
    if (rc == 0 && !oid_is_none(same)) { /* put there before */
        note.other = same;
        note.other_name = buf_slice(&name);
        return_note(r, &note);
        if (oid_is_none(target))
            return_mapped_file(r, f, same);
    } else if (rc == 0) {
        rc = oid_is_none(target) ? return_make(r, f, parent, buf_slice(&name), &note)
                                 : move_here(r, f, target, parent, buf_slice(&name), 0);
    }
    buf_deinit(&name);
    return rc;
}

static bool lives_elsewhere(const struct returning *r, struct oid there)
{
    const struct unsent_file *f = unsent_file_find(&r->u, there);
    return f != NULL && f->there;
}

/* It got this name when another one went to its place, by an exchange, and goes on to its own. */
static bool
is_on_its_way(struct returning *r, struct oid there, struct oid parent, struct slice name)
{
    struct file_view v;
    struct shown s;
    return lives_elsewhere(r, there) && merge_file(merge_of(r->n, there), there, &v) == 0 &&
           v.names == 1 && merge_lookup(merge_of(r->n, parent), parent, name, &s) == 0 &&
           oid_equal(s.oid, there) && s.stamp.site == r->n->settings.site;
}

/* May what has the name there make way? */
static bool
may_go(struct returning *r, const struct unsent_name *nm, struct oid parent, struct oid there)
{
    return return_is_known(r, nm, there) || is_on_its_way(r, there, parent, nm->name);
}

/* The file goes into the directory that is to have its name, which is made first. In the list of
 * names the new one is one that this site took from the file, so it is moved on from there. */
static int step_aside(struct returning *r,
                      const struct unsent_file *f,
                      struct dot last,
                      struct oid parent,
                      struct slice name,
                      bool *ret_gone)
{
    struct buf aside = {0};
    struct oid taken;
    int rc = return_free_name(r, parent, name, f, f->oid, &aside, &taken);
    if (rc == 0 && oid_is_none(taken)) {
        struct fs_request q = {
            .oid = parent, .name = name, .oid2 = parent, .name2 = buf_slice(&aside)};
        unsent_name(&r->u, parent, buf_slice(&aside))->last = last;
        *ret_gone = true;
        rc = return_issue(r, RPC_RENAME, &q);
    }
    buf_deinit(&aside);
    return rc;
}

static int clear(struct returning *r,
                 struct oid there,
                 struct oid parent,
                 struct slice name,
                 unsigned depth,
                 bool *ret_gone);

/* What has the name in the others' tree has another one here: it goes there first. What has that
 * one there, and not here, is replaced, as it was here, or goes to its own place before it. Names
 * that files have in turn have no first. */
static int make_way(struct returning *r,
                    struct oid there,
                    struct oid parent,
                    struct slice name,
                    unsigned depth,
                    bool *ret_gone)
{
    struct oid to, taken;
    const struct unsent_file *f = unsent_file_find(&r->u, there);
    *ret_gone = false;
    for (uint32_t i = 0; f != NULL && i < r->u.name_count; i++) {
        const struct unsent_name *nm = r->u.names[i];
        if (!oid_equal(nm->ours, there) || dot_is_none(nm->last))
            continue;
        int rc = return_dir(r, nm->parent, &to);
        if (rc == ERR_BUSY)
            return step_aside(r, f, nm->last, parent, name, ret_gone);
        if (rc != ITEM_DONE)
            return rc;
        rc = return_lookup(r, to, nm->name, &taken);
        if (rc != 0 || (!oid_is_none(taken) && !may_go(r, nm, to, taken)))
            return rc;
        if (!oid_is_none(taken) && lives_elsewhere(r, taken))
            return depth < IN_THE_WAY_MAX ? clear(r, taken, to, nm->name, depth + 1, ret_gone)
                                          : step_aside(r, f, nm->last, parent, name, ret_gone);
        struct fs_request q = {.oid = parent, .name = name, .oid2 = to, .name2 = nm->name};
        *ret_gone = true;
        return return_issue(r, RPC_RENAME, &q);
    }
    return ITEM_DONE;
}

static int clear(struct returning *r,
                 struct oid there,
                 struct oid parent,
                 struct slice name,
                 unsigned depth,
                 bool *ret_gone)
{
    struct file_view v;
    int rc = merge_file(merge_of(r->n, there), there, &v);
    *ret_gone = false;
    if (rc != 0)
        return rc;
    if (lives_elsewhere(r, there) && v.names == 1)
        return make_way(r, there, parent, name, depth, ret_gone);
    struct fs_request q = {.oid = parent, .name = name};
    *ret_gone = true;
    return return_issue(r, RPC_UNLINK, &q);
}

int return_clear(
    struct returning *r, struct oid there, struct oid parent, struct slice name, bool *ret_gone)
{
    return clear(r, there, parent, name, 0, ret_gone);
}

static int put_new(struct returning *r,
                   const struct unsent_name *nm,
                   struct unsent_file *f,
                   struct oid parent,
                   struct oid there)
{
    bool gone = false;
    if (oid_is_none(there))
        return return_make(r, f, parent, nm->name, NULL);
    if (return_same(r, there, f) && !lives_elsewhere(r, there)) {
        return_mapped_file(r, f, there);
        return ITEM_DONE;
    }
    if (!may_go(r, nm, parent, there))
        return put_beside(r, nm, f, parent, there, (struct oid){{0}});
    if (lives_elsewhere(r, there) || oid_kind(there) != OID_FILE || oid_kind(f->oid) != OID_FILE) {
        int rc = return_clear(r, there, parent, nm->name, &gone);
        return rc != ITEM_DONE || gone ? rc
                                       : put_beside(r, nm, f, parent, there, (struct oid){{0}});
    }
    return return_make(r, f, parent, nm->name, NULL); /* as its next version */
}

static int put_known(struct returning *r,
                     const struct unsent_name *nm,
                     struct unsent_file *f,
                     struct oid parent,
                     struct oid there,
                     struct oid target)
{
    if (oid_is_none(there))
        return move_here(r, f, target, parent, nm->name, 0);
    if (!may_go(r, nm, parent, there))
        return put_beside(r, nm, f, parent, there, target);
    struct old_name old;
    int rc = old_name_find(r, f, target, &old);
    if (rc != 0)
        return rc;
    if (old.found)
        return move_here(r, f, target, parent, nm->name,
                         lives_elsewhere(r, there) ? RENAME_EXCHANGE_FLAG : 0);
    bool gone;
    rc = return_clear(r, there, parent, nm->name, &gone); /* then the link */
    return rc != ITEM_DONE || gone ? rc : put_beside(r, nm, f, parent, there, target);
}

static bool has_name(void *ctx, struct oid parent, struct slice name)
{
    (void)parent;
    (void)name;
    *(bool *)ctx = true;
    return false;
}

int return_name_item(struct returning *r, struct unsent_name *nm)
{
    struct unsent_file *f = oid_is_none(nm->ours) ? NULL : unsent_file_find(&r->u, nm->ours);
    struct oid parent, there, target;
    if (f == NULL || !f->there)
        return ITEM_DONE; /* a removal, or nothing of this site's doing */
    bool named_here = !dot_is_none(nm->last) && !return_was_sent(r, nm->last);
    bool written_here = f->written && !return_was_sent(r, f->version);
    if (!named_here && !written_here)
        return ITEM_DONE;
    int rc = return_target(r, f, &target);
    if (rc != 0)
        return rc;
    if (!oid_is_none(f->now) && oid_is_none(target))
        return ITEM_DONE; /* it was made, and users have removed it since */
    if (oid_is_none(target)) {
        rc = return_bring(r, nm, f);
        if (rc != ITEM_DONE || f->nowhere)
            return rc;
    }
    if (!named_here && !oid_is_none(target)) {
        bool any = false;
        rc = merge_refs(merge_of(r->n, target), target, has_name, &any);
        if (rc != 0 || any)
            return rc; /* where it is, is the others' word */
    }
    rc = return_dir(r, nm->parent, &parent);
    if (rc != ITEM_DONE)
        return rc;
    rc = return_lookup(r, parent, nm->name, &there);
    if (rc != 0)
        return rc;
    if (!oid_is_none(target) && oid_equal(there, target))
        return ITEM_DONE;
    if (!oid_is_none(target))
        return put_known(r, nm, f, parent, there, target);
    if (!named_here) { /* others removed what was edited here: the edit stays (rule 3) */
        struct return_note note = {.rule = 3,
                                   .oid = f->oid,
                                   .parent = parent,
                                   .name = nm->name,
                                   .winner = r->plan.after,
                                   .winner_stamp = f->stamp,
                                   .loser_stamp = f->stamp};
        return_note(r, &note);
    }
    return put_new(r, nm, f, parent, there);
}

/* A name that went here. */
int return_removal_item(struct returning *r, struct unsent_name *nm)
{
    struct file_view v;
    struct oid parent, there;
    if (!oid_is_none(nm->ours) || return_was_sent(r, nm->last))
        return ITEM_DONE;
    const struct unsent_dir *d = unsent_dir_find(&r->u, nm->parent);
    parent = d != NULL && !oid_is_none(d->now) ? d->now : nm->parent;
    if (!return_dir_lives(r, parent))
        return ITEM_DONE; /* see old_name_find */
    int rc = return_lookup(r, parent, nm->name, &there);
    if (rc != 0 || oid_is_none(there) || oid_is_dir(there))
        return rc;
    bool gone;
    if (return_is_known(r, nm, there)) {
        rc = return_clear(r, there, parent, nm->name, &gone);
        return rc; /* without a place for it, it stays */
    }
    for (uint32_t i = 0; i < nm->known_count; i++) {
        if (!oid_equal(nm->known[i].oid, there))
            continue;
        rc = merge_file(merge_of(r->n, there), there, &v);
        struct return_note note = {.rule = 3,
                                   .oid = there,
                                   .parent = parent,
                                   .name = nm->name,
                                   .winner = rc == 0 ? v.version.site : 0,
                                   .winner_stamp = rc == 0 ? v.version_stamp : (struct stamp){0},
                                   .loser_stamp = {.hlc = nm->order, .site = r->plan.before}};
        return_note(r, &note);
        return rc;
    }
    return ITEM_DONE; /* it means something else there: that was not removed */
}
