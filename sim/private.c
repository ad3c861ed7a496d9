/* The model of a private directory. See private.h. */
#include "sim/private.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/mount.h"
#include "site/call.h"

static struct slice name_of(struct mount *m, unsigned i, int which)
{
    int len = snprintf((char *)m->name[which], sizeof m->name[which], "p%u", i);
    ASSERT(len > 0);
    return slice_of(m->name[which], (size_t)len);
}

static struct slice dir_name(struct mount *m)
{
    int len = snprintf((char *)m->name[0], sizeof m->name[0], "m%u", m->number);
    ASSERT(len > 0);
    return slice_of(m->name[0], (size_t)len);
}

static bool peek_next(struct mount *m)
{
    struct mount *s = m->sibling;
    if (s == NULL || oid_is_none(s->own.dir) || s->own.busy || s->ahead.behind ||
        rng_below(&m->rng, 4) != 0)
        return false;
    m->own.peek = true;
    m->own.from = (unsigned)rng_below(&m->rng, PRIVATE_NAMES);
    m->own.peek_version = s->own.version;
    m->type = RPC_LOOKUP;
    m->req.oid = s->own.dir;
    m->req.name = name_of(m, m->own.from, 0);
    return true;
}

void private_next(struct mount *m)
{
    struct private_dir *p = &m->own;
    struct fs_request *q = &m->req;
    p->peek = false;
    p->busy = true;
    p->version++;
    if (oid_is_none(p->dir)) { /* it may be there, when the first answer was lost */
        m->type = rng_below(&m->rng, 2) == 0 ? RPC_MKDIR : RPC_LOOKUP;
        q->oid = OID_ROOT;
        q->name = dir_name(m);
        q->mode = 0755;
        return;
    }
    p->busy = false;
    if (peek_next(m))
        return;
    p->busy = true;
    p->from = (unsigned)rng_below(&m->rng, PRIVATE_NAMES);
    p->to = (p->from + 1 + (unsigned)rng_below(&m->rng, PRIVATE_NAMES - 1)) % PRIVATE_NAMES;
    q->oid = p->dir;
    q->name = name_of(m, p->from, 0);
    switch (rng_below(&m->rng, 4)) {
    case 0:
        m->type = RPC_CREATE;
        q->kind = OID_FILE;
        q->mode = 0600;
        return;
    case 1:
        m->type = RPC_UNLINK;
        return;
    case 2:
        m->type = RPC_RENAME;
        q->oid2 = p->dir;
        q->name2 = name_of(m, p->to, 1);
        return;
    default:
        m->type = RPC_LOOKUP;
        return;
    }
}

static void wrong(struct mount *m, const struct fs_reply *r, const char *expected)
{
    if (m->failure[0] == '\0')
        (void)snprintf(m->failure, sizeof m->failure,
                       "call %llu (type %u) on %.*s in its own directory answered %s: expected %s",
                       (unsigned long long)m->req.number, m->type, (int)m->req.name.len,
                       (const char *)m->req.name.ptr, r->rc == 0 ? "good" : err_name(r->rc),
                       expected); /* cut if need be */
}

/* Answers that say nothing of the directory: the disk is full, or the like. */
static bool says_nothing(int32_t rc)
{
    return rc != 0 && rc != ERR_NOT_FOUND && rc != ERR_EXISTS && rc != ERR_STALE;
}

static void
looked_up(struct mount *m, const struct private_dir *p, unsigned i, const struct fs_reply *r)
{
    enum private_state s = p->at[i].state;
    if (s == PRIVATE_FILE && r->rc != 0)
        wrong(m, r, "the file that is there");
    else if (s == PRIVATE_NONE && r->rc == 0)
        wrong(m, r, "nothing, for it was removed or never made");
    else if (s == PRIVATE_FILE && !oid_is_none(p->at[i].oid) &&
             !oid_equal(p->at[i].oid, r->attr.oid))
        wrong(m, r, "another file");
}

static void set(struct private_dir *p, unsigned i, enum private_state s, struct oid oid)
{
    p->at[i].state = s;
    p->at[i].oid = oid;
}

static void changed(struct mount *m, const struct fs_reply *r)
{
    struct private_dir *p = &m->own;
    struct oid none = {{0}}, oid = p->at[p->from].oid;
    enum private_state was = p->at[p->from].state;
    bool create = m->type == RPC_CREATE;
    int32_t expected = create == (was == PRIVATE_FILE) ? (create ? ERR_EXISTS : ERR_NOT_FOUND) : 0;
    if (was != PRIVATE_UNSURE && r->rc != expected)
        wrong(m, r, expected == 0 ? "success" : err_name(expected));
    if (create) {
        set(p, p->from, PRIVATE_FILE, r->rc == 0 ? r->attr.oid : oid);
        return;
    }
    set(p, p->from, PRIVATE_NONE, none);
    if (m->type == RPC_RENAME && r->rc == 0)
        set(p, p->to, PRIVATE_FILE, oid);
}

void private_done(struct mount *m, const struct fs_reply *r)
{
    struct private_dir *p = &m->own;
    struct oid none = {{0}};
    if (p->peek) {
        const struct private_dir *s = &m->sibling->own;
        p->peek = false;
        if (r != NULL && !says_nothing(r->rc) && s->version == p->peek_version &&
            !m->sibling->ahead.behind)
            looked_up(m, s, p->from, r);
        return;
    }
    if (!p->busy)
        return;
    p->busy = false;
    p->version++;
    if (oid_is_none(p->dir)) {
        if (r != NULL && r->rc == 0)
            p->dir = r->attr.oid;
    } else if (r == NULL || says_nothing(r->rc)) {
        set(p, p->from, PRIVATE_UNSURE, none);
        if (m->type == RPC_RENAME)
            set(p, p->to, PRIVATE_UNSURE, none);
    } else if (m->type == RPC_LOOKUP) {
        looked_up(m, p, p->from, r);
        set(p, p->from, r->rc == 0 ? PRIVATE_FILE : PRIVATE_NONE, r->rc == 0 ? r->attr.oid : none);
    } else {
        changed(m, r);
    }
}

bool private_unsure(struct mount *m, unsigned type, const struct fs_request *q)
{
    struct private_dir *p = &m->own;
    const struct slice names[2] = {q->name, type == RPC_RENAME ? q->name2 : q->name};
    const struct oid none = {{0}};
    if (oid_is_none(p->dir) || !oid_equal(q->oid, p->dir) || q->name.len < 2)
        return false;
    for (unsigned i = 0; i < 2; i++)
        set(p, (unsigned)(names[i].ptr[1] - '0') % PRIVATE_NAMES, PRIVATE_UNSURE, none);
    p->version++;
    return true;
}

void private_renew(struct mount *m, struct node *n)
{
    struct private_dir *p = &m->own;
    struct oid none = {{0}};
    struct shown s;
    p->rests = false;
    if (oid_is_none(p->dir))
        return;
    int rc = merge_lookup(merge_of(n, OID_ROOT), OID_ROOT, dir_name(m), &s);
    if (rc != 0 && m->failure[0] == '\0')
        (void)snprintf(m->failure, sizeof m->failure,
                       "its own directory is gone since its site came back"); /* fits */
    p->dir = rc == 0 ? s.oid : p->dir;
    for (unsigned i = 0; i < PRIVATE_NAMES; i++)
        p->at[i].oid = none;
}

bool private_check(const struct mount *m, struct node *n, char what[200])
{
    const struct private_dir *p = &m->own;
    for (unsigned i = 0; i < PRIVATE_NAMES && !oid_is_none(p->dir); i++) {
        char name[8];
        struct shown s;
        (void)snprintf(name, sizeof name, "p%u", i); /* fits */
        int rc = merge_lookup(merge_of(n, p->dir), p->dir, slice_str(name), &s);
        bool there = rc == 0;
        enum private_state state = p->at[i].state;
        bool other = there && !oid_is_none(p->at[i].oid) && !oid_equal(p->at[i].oid, s.oid);
        if (state == PRIVATE_UNSURE || (there == (state == PRIVATE_FILE) && !other))
            continue;
        (void)snprintf(what, 200, "/m%u/%s: %s, though the last answer to its only user said %s",
                       m->number, name, there ? (other ? "another file" : "a file") : "nothing",
                       state == PRIVATE_FILE ? "it is there" : "it is gone"); /* fits */
        return false;
    }
    return true;
}
