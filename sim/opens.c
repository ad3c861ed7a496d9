/* Open files of a mount. See opens.h. */
#include "sim/opens.h"

#include <fcntl.h>
#include <stdio.h>

#include "base/assert.h"
#include "sim/mount.h"
#include "site/call.h"

#define TELL_ID (UINT64_C(1) << 63) /* and above: no call has such a number */
#define CLOSE_ID UINT64_MAX         /* nobody waits for the answer */

struct mount_open *opens_find(struct mount *m, struct oid oid)
{
    for (unsigned i = 0; i < m->open_count; i++)
        if (oid_equal(m->open[i].oid, oid))
            return &m->open[i];
    return NULL;
}

bool opens_has(const struct mount *m, struct oid oid)
{
    for (unsigned i = 0; i < m->open_count; i++)
        if (oid_equal(m->open[i].oid, oid))
            return true;
    return false;
}

bool opens_room(const struct mount *m)
{
    return m->open_count < MOUNT_OPEN;
}

void opens_open(struct mount *m, struct oid oid)
{
    ASSERT(opens_room(m));
    m->type = RPC_OPEN;
    m->req.oid = oid;
    m->req.flags = O_RDWR;
}

/* As often as it may have been counted: a close too many is no mistake. From now on the mount has
 * it open no more, whatever becomes of the call. */
void opens_close(struct mount *m, struct oid oid)
{
    struct mount_open *o = opens_find(m, oid);
    ASSERT(o != NULL);
    for (unsigned i = 0; i < o->told && m->req.oid_count < MOUNT_CLOSING; i++)
        m->closing[m->req.oid_count++] = oid;
    m->type = RPC_CLOSE;
    m->req.oids = m->closing;
    *o = m->open[--m->open_count];
}

static void fail(struct mount *m, const char *why)
{
    char oid[OID_TEXT_LEN + 1];
    oid_to_text(m->req.oid, oid);
    if (m->failure[0] == '\0')
        (void)snprintf(m->failure, sizeof m->failure,
                       "call %llu (type %u): %s, which it has open, %s",
                       (unsigned long long)m->req.number, m->type, oid, why); /* fits */
}

static void opened(struct mount *m, const struct fs_attr *a)
{
    struct mount_open *o = opens_find(m, a->oid);
    if (o == NULL) {
        ASSERT(opens_room(m));
        o = &m->open[m->open_count++];
        *o = (struct mount_open){.oid = a->oid, .id = TELL_ID + ++m->opened};
    }
    o->version = a->version;
    o->told += 1 + m->again; /* the first time may have been counted */
}

void opens_learn(struct mount *m, const struct fs_reply *r)
{
    bool makes = m->type == RPC_CREATE && (m->req.flags & O_CREAT) != 0;
    bool is_file = r->has_attr && oid_kind(r->attr.oid) == OID_FILE;
    struct mount_open *o = is_file ? opens_find(m, r->attr.oid) : NULL;
    if (r->rc == 0 && is_file && (makes || m->type == RPC_OPEN))
        opened(m, &r->attr);
    else if (o != NULL && (r->rc == 0 || r->rc == ERR_STALE_BASE))
        o->version = r->attr.version;
    if (o != NULL && r->rc == 0 && m->type == RPC_COMMIT)
        o->wrote = r->attr.nlink == 0 ? m->writes : 0;
    if (o != NULL)
        o->nameless = o->nameless || o->wrote > 0;
    bool about = m->type == RPC_COMMIT || m->type == RPC_GETATTR || m->type == RPC_SETATTR ||
                 m->type == RPC_OPEN;
    if (about && (r->rc == ERR_STALE || r->rc == ERR_NOT_FOUND) && opens_has(m, m->req.oid))
        fail(m, "is gone");
}

void opens_gone(struct mount *m)
{
    m->open_count = 0;
    m->real.step = 0; /* it was at something with them */
    m->node_crashes = m->process->crashes;
}

void opens_tell(struct mount *m)
{
    bool anew = m->node_crashes != m->process->crashes;
    m->node_crashes = m->process->crashes;
    for (unsigned i = 0; i < m->open_count; i++) {
        struct mount_open *o = &m->open[i];
        struct fs_request q = {.oid = o->oid, .flags = O_RDWR};
        if (anew)
            o->told = 0;
        o->again = o->again || anew;
        if (conn_ahead_makes(&m->ahead.kept, o->oid)) /* it opens it as well */
            o->again = false;
        if (!o->again)
            continue;
        o->told++;
        mount_say(m, RPC_OPEN, o->id, &q);
    }
}

static void tell_again(struct mount *m, struct mount_open *o)
{
    struct fs_request q = {.oid = o->oid, .flags = O_RDWR};
    o->again = true;
    o->told++;
    mount_say(m, RPC_OPEN, o->id, &q);
}

void opens_made_again(struct mount *m, const struct fs_reply *r)
{
    struct mount_open *o = opens_find(m, r->attr.oid);
    bool makes = m->type == RPC_CREATE && oid_kind(r->attr.oid) == OID_FILE;
    bool opens = makes && (m->req.flags & O_CREAT) != 0;
    struct fs_request q = {.oid = r->attr.oid};
    if (o == NULL && opens) /* closed since */
        mount_say(m, RPC_CLOSE, CLOSE_ID, &q);
    if (o == NULL)
        return;
    o->version = r->attr.version;
    if (m->type == RPC_COMMIT && r->attr.nlink == 0)
        o->wrote = MAX(o->wrote, m->writes);
    if (opens)
        o->told++;
    else if (makes)
        tell_again(m, o);
}

void opens_lost(struct mount *m, unsigned type, struct oid oid)
{
    struct mount_open *o = opens_find(m, oid);
    if (o == NULL)
        return;
    m->real.step = 0; /* it was at something with it */
    o->version = (struct dot){0};
    if (type == RPC_CREATE)
        *o = m->open[--m->open_count];
}

bool opens_answered(struct mount *m, uint64_t id, int32_t rc)
{
    struct mount_open *o = NULL;
    if (id < TELL_ID)
        return false;
    for (unsigned i = 0; i < m->open_count; i++)
        if (m->open[i].id == id)
            o = &m->open[i];
    if (o == NULL) /* closed meanwhile */
        return true;
    if (rc == 0)
        o->again = false;
    if ((rc == ERR_STALE || rc == ERR_NOT_FOUND) && m->failure[0] == '\0') {
        char oid[OID_TEXT_LEN + 1];
        oid_to_text(o->oid, oid);
        (void)snprintf(m->failure, sizeof m->failure,
                       "%s, which it has open, is gone since its site was down", oid); /* fits */
    }
    return true;
}

void opens_changed(struct mount *m, struct oid oid)
{
    struct mount_open *o = opens_find(m, oid);
    if (o != NULL)
        o->wrote = 0;
}

/* It has a name again (rule 3): it shows what all sites show, and keeps nothing else (S25). */
static bool named(struct mount *m, struct mount_open *o, char what[200])
{
    struct content c;
    struct dot version;
    int64_t mtime;
    bool kept = orphan_get(m->process->node, o->oid, &c, &version, &mtime);
    o->wrote = 0;
    o->nameless = false;
    if (!kept)
        return true;
    char oid[OID_TEXT_LEN + 1];
    oid_to_text(o->oid, oid);
    (void)snprintf(what, 200, "%s has a name, and still a content of when it had none", oid);
    return false;
}

bool opens_check(struct mount *m, char what[200])
{
    struct node *n = m->process->node;
    for (unsigned i = 0; i < m->open_count && n != NULL && !m->ahead.behind; i++) {
        struct mount_open *o = &m->open[i];
        struct file_view v;
        struct content c = {0};
        struct dot version;
        int64_t mtime;
        if (!o->nameless)
            continue;
        int rc = merge_file(merge_of(n, o->oid), o->oid, &v);
        if (rc == 0 && v.names > 0) {
            if (!named(m, o, what))
                return false;
            continue;
        }
        /* A later one on top of it has a higher number: nobody can have begun it before. */
        rc = content_get(n, o->oid, &c, &version, &mtime);
        uint64_t there = rc == 0 ? ledger_number(m->ledger, &c) : 0;
        if (there >= o->wrote)
            continue;
        char oid[OID_TEXT_LEN + 1];
        oid_to_text(o->oid, oid);
        (void)snprintf(what, 200,
                       "%s has no name and is open, and shows content %llu in place of %llu", oid,
                       (unsigned long long)there, (unsigned long long)o->wrote); /* fits */
        return false;
    }
    return true;
}
