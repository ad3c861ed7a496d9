/* Contents and attributes, while a site comes back. A content that was written over the version
 * that shows is written again; over another one it becomes a file beside. Attributes: the newer
 * word stays (rule 9), by the stamps they were given when they were said. */
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "journal/merge_past.h"
#include "site/posix_int.h"
#include "site/return_int.h"

/* ---- attributes ---- */

struct attrs { /* of a file or directory, as this site had them */
    struct slice perm;
    struct stamp perm_stamp;
    const struct reg *regs;
    uint32_t reg_count;
    bool made;        /* by this site, just now: its attributes are still those of any new one */
    struct dot shows; /* this site's version, whose content is there; none: another one */
};

static int set_part(struct returning *r, struct oid oid, const char *name, struct slice value)
{
    struct fs_request q = {.oid = oid, .name = slice_str(name), .data = value};
    return return_issue(r, value.len > 0 ? RPC_SETXATTR : RPC_REMOVEXATTR, &q);
}

static int
perm_item(struct returning *r, struct oid oid, const struct attrs *a, const struct perm *now)
{
    struct perm p;
    struct reg reg;
    uint8_t key = REG_PERM;
    if (a->perm.len == 0 || (!a->made && a->perm_stamp.site == 0))
        return ITEM_DONE;
    int rc = perm_decode(a->perm, &p);
    if (rc != 0)
        return rc;
    /* Rule 9: set-id bits and capabilities are those of the content that their setter had seen. */
    if (!dot_is_none(p.setid_seen) && !dot_equal(p.setid_seen, a->shows))
        posix_kill_setid(&p);
    /* All of it before the next call of the engine, which has lent what `now` says of lists. */
    bool same_mode = p.uid == now->uid && p.gid == now->gid && p.mode == now->mode;
    bool same_access = slice_equal(p.acl_access, now->acl_access);
    bool same_default = slice_equal(p.acl_default, now->acl_default);
    if (perm_same_rights(&p, now))
        return ITEM_DONE;
    rc = merge_reg(merge_of(r->n, oid), oid, slice_of(&key, 1), &reg);
    if (rc != 0 && rc != ERR_NO_DATA)
        return rc;
    if (rc == 0 && !a->made && reg.stamp.site != r->plan.after &&
        stamp_cmp(reg.stamp, a->perm_stamp) >= 0)
        return ITEM_DONE;
    if (!same_mode) {
        struct fs_request q = {.oid = oid,
                               .set = SET_MODE | SET_UID | SET_GID,
                               .mode = p.mode,
                               .uid = p.uid,
                               .gid = p.gid};
        return return_issue(r, RPC_SETATTR, &q);
    }
    if (!same_access)
        return set_part(r, oid, "system.posix_acl_access", p.acl_access);
    if (!same_default)
        return set_part(r, oid, "system.posix_acl_default", p.acl_default);
    return set_part(r, oid, "security.capability", p.caps); /* a new owner has ended them */
}

static int
reg_item(struct returning *r, struct oid oid, const struct attrs *a, const struct reg *mine)
{
    struct reg now;
    int rc = merge_reg(merge_of(r->n, oid), oid, mine->key, &now);
    bool present = rc == 0 && now.present;
    if (rc != 0 && rc != ERR_NO_DATA && rc != ERR_NOT_FOUND)
        return rc;
    if (mine->key.len < 2 ||
        (present == mine->present && (!present || slice_equal(now.value, mine->value))))
        return ITEM_DONE;
    if (rc == 0 && !a->made && stamp_cmp(now.stamp, mine->stamp) >= 0)
        return ITEM_DONE;
    struct fs_request q = {
        .oid = oid, .name = slice_of(mine->key.ptr + 1, mine->key.len - 1), .data = mine->value};
    return return_issue(r, mine->present ? RPC_SETXATTR : RPC_REMOVEXATTR, &q);
}

static int
attrs_item(struct returning *r, struct oid oid, const struct attrs *a, const struct perm *now)
{
    int rc = perm_item(r, oid, a, now);
    for (uint32_t i = 0; i < a->reg_count && rc == ITEM_DONE; i++)
        rc = reg_item(r, oid, a, &a->regs[i]);
    return rc;
}

int return_dir_attrs_item(struct returning *r, struct unsent_dir *d)
{
    struct dir_view v;
    struct oid oid = oid_is_none(d->now) ? d->oid : d->now;
    if (!d->alive || (dot_is_none(d->last) && !d->made))
        return ITEM_DONE;
    int rc = merge_dir(merge_of(r->n, oid), oid, &v);
    if (rc != 0 || !v.alive)
        return rc == ERR_NOT_FOUND ? ITEM_DONE : rc;
    const struct attrs a = {.perm = d->perm,
                            .perm_stamp = d->perm_stamp,
                            .regs = d->regs,
                            .reg_count = d->reg_count,
                            .made = d->made};
    return attrs_item(r, oid, &a, &v.perm);
}

/* ---- contents ---- */

/* Is what shows there one that this site's version was written over? */
static bool is_before(const struct unsent_file *f, const struct file_view *v)
{
    if (dot_equal(v->version, f->base))
        return true;
    for (uint32_t i = 0; i < f->chain_count; i++)
        if (dot_equal(f->chain[i].dot, v->version) &&
            f->chain[i].digest == unsent_digest(&v->content))
            return true;
    return false;
}

struct known_past {
    const struct unsent_file *f;
    bool found;
};

static bool match_past(void *ctx, const struct past *p)
{
    struct known_past *k = ctx;
    k->found = dot_equal(p->dot, k->f->version) && content_equal(&p->content, &k->f->content);
    return !k->found;
}

static int
copy_beside(struct returning *r, struct unsent_file *f, struct oid file, const struct file_view *v)
{
    uint8_t bytes[LIMIT_NAME_BYTES];
    struct buf name = {0};
    struct oid same, parent = v->ref_parent;
    struct return_note note = {.rule = 2,
                               .oid = file,
                               .parent = parent,
                               .winner = v->version.site,
                               .winner_stamp = v->version_stamp,
                               .loser_stamp = f->stamp};
    note.name = slice_of(bytes, MIN(v->ref_name.len, sizeof bytes));
    memcpy(bytes, v->ref_name.ptr, note.name.len); /* lent by the engine */
    int rc = return_free_name(r, parent, note.name, f, (struct oid){{0}}, &name, &same);
    if (rc == 0 && oid_is_none(same)) {
        rc = return_make(r, f, parent, buf_slice(&name), &note);
    } else if (rc == 0) {
        note.other = same;
        note.other_name = buf_slice(&name);
        return_note(r, &note);
    }
    buf_deinit(&name);
    return rc;
}

static int
content_item(struct returning *r, struct unsent_file *f, struct oid file, const struct file_view *v)
{
    struct known_past past = {.f = f};
    if (content_equal(&v->content, &f->content))
        return ITEM_DONE;
    if (is_before(f, v)) { /* privileges that are there were given to another content */
        struct fs_request q = {.oid = file,
                               .base = v->version,
                               .has_content = true,
                               .content = f->content,
                               .mtime_ns = f->mtime_ns,
                               .flags = COMMIT_KILL_SETID};
        return return_issue(r, RPC_COMMIT, &q);
    }
    struct file_view lent = *v; /* what merge_past lends comes after it */
    int rc = merge_past(merge_of(r->n, file), file, match_past, &past);
    if (rc != 0 || past.found)
        return rc; /* it was there, and was replaced by who knew it */
    rc = merge_file(merge_of(r->n, file), file, &lent);
    return rc != 0 ? rc : copy_beside(r, f, file, &lent);
}

int return_file_item(struct returning *r, struct unsent_file *f)
{
    struct file_view v;
    struct oid file;
    if (!f->there)
        return ITEM_DONE;
    int rc = return_target(r, f, &file);
    if (rc != 0 || oid_is_none(file))
        return rc;
    bool made = !oid_is_none(f->now);
    rc = merge_file(merge_of(r->n, file), file, &v);
    if (rc == 0 && !made && f->written && !return_was_sent(r, f->version)) {
        rc = content_item(r, f, file, &v);
        if (rc == ITEM_DONE && !oid_is_none(f->now))
            return return_file_item(r, f); /* it lies beside now, with its attributes */
        if (rc == ITEM_DONE)
            rc = merge_file(merge_of(r->n, file), file, &v);
    }
    if (rc != ITEM_DONE)
        return rc;
    bool same = content_equal(&v.content, &f->content);
    const struct attrs a = {.perm = f->perm,
                            .perm_stamp = f->perm_stamp,
                            .regs = f->regs,
                            .reg_count = f->reg_count,
                            .made = made,
                            .shows = same ? f->version : (struct dot){0}};
    return attrs_item(r, file, &a, &v.perm);
}
