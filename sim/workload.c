/* Workloads. What people and their programs do is in real.c; here is the one that collides most.
 *
 * Names are few and shared by all sites, so that everything that can collide does. A mount knows a
 * few directories and files by their oids, as the kernel does, and goes on using them when others
 * have moved or removed them. */
#include "sim/workload.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "sim/workload_int.h"
#include "site/call.h"

enum choice {
    DO_CREATE,
    DO_WRITE,
    DO_REPLACE, /* rename of a file over another */
    DO_UNLINK,
    DO_MKDIR,
    DO_RMDIR,
    DO_RENAME,
    DO_MOVE, /* of a directory, into another */
    DO_LINK,
    DO_SYMLINK,
    DO_LOOKUP,
    DO_READDIR,
    DO_GETATTR,
    DO_CHMOD,
    DO_TIMES,
    DO_SETXATTR,
    DO_COUNT
};
/* How likely, out of the sum. */
static const uint8_t weights[DO_COUNT] = {
    [DO_CREATE] = 14, [DO_WRITE] = 22,  [DO_REPLACE] = 8, [DO_UNLINK] = 9,
    [DO_MKDIR] = 8,   [DO_RMDIR] = 5,   [DO_RENAME] = 8,  [DO_MOVE] = 8,
    [DO_LINK] = 5,    [DO_SYMLINK] = 2, [DO_LOOKUP] = 10, [DO_READDIR] = 2,
    [DO_GETATTR] = 3, [DO_CHMOD] = 3,   [DO_TIMES] = 2,   [DO_SETXATTR] = 2};
static const char *const names[] = {"a", "b", "c", "d", "e.txt", "f.tar.gz"};

static enum choice choose(struct mount *m)
{
    unsigned sum = 0;
    for (int i = 0; i < DO_COUNT; i++)
        sum += weights[i];
    unsigned at = (unsigned)draw(m, sum);
    for (int i = 0; i < DO_COUNT; i++) {
        if (at < weights[i])
            return (enum choice)i;
        at -= weights[i];
    }
    UNREACHABLE();
}

struct slice workload_shared_name(struct mount *m, int which, unsigned wide)
{
    const char *name = names[wide % ARRAY_COUNT(names)];
    size_t len = strlen(name);
    memcpy(m->name[which], name, len);
    return slice_of(m->name[which], len);
}

static struct slice name_draw(struct mount *m, int which)
{
    return workload_shared_name(m, which, (unsigned)draw(m, ARRAY_COUNT(names)));
}

static struct oid dir_draw(struct mount *m)
{
    if (!oid_is_root(m->dirs[0].oid) && draw(m, 1000000) < m->work->shared_per_million)
        return OID_ROOT;
    return m->dirs[draw(m, m->dir_count)].oid;
}

/* --- what a call may do away with --- */

static void doom_content(struct mount *m, struct oid oid)
{
    struct content c;
    struct dot version;
    int64_t mtime;
    if (m->process->node == NULL || content_get(m->process->node, oid, &c, &version, &mtime) != 0)
        return;
    uint64_t number = ledger_number(m->ledger, &c);
    if (number != 0 && m->doom_count < ARRAY_COUNT(m->dooms))
        m->dooms[m->doom_count++] = number;
}

void workload_dooms(struct mount *m, struct oid parent, struct slice name, unsigned slot)
{
    struct shown s;
    struct node *n = m->process->node;
    if (n == NULL || merge_lookup(merge_of(n, parent), parent, name, &s) != 0 || oid_is_dir(s.oid))
        return;
    struct oid oids[1 + SHOWN_TWINS_MAX] = {s.oid};
    memcpy(oids + 1, s.twins, s.twin_count * sizeof oids[0]);
    m->doomed_oids[slot] = s.oid;
    for (uint32_t i = 0; i <= s.twin_count; i++)
        doom_content(m, oids[i]);
}

static bool seen_here(const struct mount *m, struct dot d)
{
    struct node *n = m->process->node;
    return n == NULL || dot_is_none(d) ||
           merge_seen(shard_merge(node_shard(n, d.shard)), d.shard, d.site) >= d.seq;
}

static void give_up_all(struct mount *m, struct oid oid)
{
    for (uint64_t at = ledger_newest(m->ledger, oid); at != 0;) {
        struct ledger_entry *e = ledger_get(m->ledger, at);
        if (seen_here(m, e->version))
            e->given_up = true;
        at = e->before;
    }
}

/* Between the drawing and the evaluation another mount may have put something else under the name:
 * the answer says what was taken away. */
static void give_up_told(struct mount *m, const struct fs_reply *r)
{
    struct node *n = m->process->node;
    struct file_view v;
    for (uint32_t i = 0; i < r->oid_count && n != NULL; i++)
        if (!oid_is_dir(r->oids[i]) && merge_file(merge_of(n, r->oids[i]), r->oids[i], &v) == 0 &&
            v.names == 0)
            give_up_all(m, r->oids[i]);
}

static void give_up(struct mount *m)
{
    for (unsigned i = 0; i < m->doom_count; i++) {
        struct ledger_entry *e = ledger_get(m->ledger, m->dooms[i]);
        if (e != NULL)
            e->given_up = true;
    }
    for (unsigned k = 0; k < ARRAY_COUNT(m->doomed_oids); k++)
        give_up_all(m, m->doomed_oids[k]);
}

/* --- drawing --- */

void workload_write(struct mount *m, const struct mount_open *o, size_t len, bool large)
{
    struct fs_request *q = &m->req;
    m->type = RPC_COMMIT;
    q->oid = o->oid;
    q->base = o->version;
    m->writes = ledger_new(m->ledger, m->process->machine.site, o->oid);
    q->has_content = true;
    doom_content(m, o->oid);
    if (large && m->process->node != NULL) {
        large_make(&m->ledger->large, m->process->node, m->writes,
                   LIMIT_INLINE_BYTES + 1 + draw(m, LARGE_BYTES_MAX - LIMIT_INLINE_BYTES),
                   &q->content, &m->bulk);
        return;
    }
    ledger_write(m->writes, m->content);
    q->content =
        (struct content){.kind = CONTENT_INLINE, .size = len, .bytes = slice_of(m->content, len)};
}

/* Opens one of the files that it knows, or writes to one that it has open, whatever has become of
 * its name since. */
static void write_draw(struct mount *m)
{
    if (m->file_count > 0 && opens_room(m) && (m->open_count == 0 || draw(m, 3) == 0)) {
        struct oid oid = m->files[draw(m, m->file_count)].oid;
        if (!opens_has(m, oid)) {
            opens_open(m, oid);
            return;
        }
    }
    const struct mount_open *o = &m->open[draw(m, m->open_count)];
    size_t len = LEDGER_HEAD_BYTES + draw(m, draw(m, 50) == 0 ? 8000 : 200);
    memset(m->content + LEDGER_HEAD_BYTES, (int)((m->ledger->count + 1) & 0xff),
           len - LEDGER_HEAD_BYTES);
    workload_write(m, o, len,
                   m->work->large_per_million > 0 && draw(m, 1000000) < m->work->large_per_million);
}

/* When it has too many open, and else now and then. */
static bool close_draw(struct mount *m)
{
    if (opens_room(m) && (m->open_count == 0 || draw(m, 24) > 0))
        return false;
    for (uint64_t i = 1 + draw(m, m->open_count); i > 0; i--)
        opens_close(m, m->open[draw(m, m->open_count)].oid);
    return true;
}

static void create_draw(struct mount *m, enum choice what)
{
    struct fs_request *q = &m->req;
    m->type = what == DO_MKDIR ? RPC_MKDIR : RPC_CREATE;
    q->oid = dir_draw(m);
    q->name = name_draw(m, 0);
    q->mode = what == DO_MKDIR ? 0755 : 0644;
    q->kind = what == DO_SYMLINK ? OID_SYMLINK : OID_FILE;
    if (what == DO_SYMLINK)
        q->data = slice_str("a/b");
    if (what == DO_CREATE && opens_room(m)) /* open(2), else mknod(2) */
        q->flags = O_CREAT | O_EXCL | O_RDWR;
}

static void rename_draw(struct mount *m)
{
    struct fs_request *q = &m->req;
    m->type = RPC_RENAME;
    q->oid = dir_draw(m);
    q->name = name_draw(m, 0);
    q->oid2 = draw(m, 3) == 0 ? q->oid : dir_draw(m);
    q->name2 = name_draw(m, 1);
    workload_dooms(m, q->oid2, q->name2, 0);
}

static struct slice ring_name(struct mount *m, unsigned i, int which)
{
    int len = snprintf((char *)m->name[which], sizeof m->name[which], "r%u", i);
    ASSERT(len > 0);
    return slice_of(m->name[which], (size_t)len);
}

/* Three directories which every site makes (one and the same, by rule 7) and moves into each other:
 * what two sites do at once here would close a cycle. */
static void ring_draw(struct mount *m)
{
    struct fs_request *q = &m->req;
    struct node *n = m->process->node;
    unsigned i = (unsigned)draw(m, MOUNT_RING);
    unsigned to = (i + 1 + (unsigned)draw(m, MOUNT_RING - 1)) % MOUNT_RING;
    struct dir_view v = {.alive = false};
    struct oid dir = m->ring[i];
    bool known = n != NULL && !oid_is_none(dir) && merge_dir(merge_of(n, dir), dir, &v) == 0;
    if (!known || !v.alive || oid_is_none(m->ring[to])) {
        m->type = draw(m, 2) == 0 ? RPC_MKDIR : RPC_LOOKUP;
        q->oid = OID_ROOT;
        q->name = ring_name(m, known && v.alive ? to : i, 0);
        q->mode = 0755;
        return;
    }
    m->type = RPC_RENAME;
    q->oid = v.parent;
    q->name = slice_of(m->name[0], v.name.len);
    memcpy(m->name[0], v.name.ptr, v.name.len);
    q->oid2 = draw(m, 4) == 0 ? OID_ROOT : m->ring[to];
    q->name2 = ring_name(m, i, 1);
}

static void ring_learn(struct mount *m, struct oid oid)
{
    bool named = oid_is_root(m->req.oid) && m->req.name.len == 2 && m->req.name.ptr[0] == 'r';
    if (named && (m->type == RPC_MKDIR || m->type == RPC_LOOKUP))
        m->ring[(m->req.name.ptr[1] - '0') % (int)MOUNT_RING] = oid;
}

/* A directory into another. */
static void move_draw(struct mount *m)
{
    struct fs_request *q = &m->req;
    if (m->work->kind == WORLD_WORK_COLLIDE && draw(m, 2) == 0) {
        ring_draw(m);
        return;
    }
    const struct mount_dir *d = &m->dirs[draw(m, m->dir_count)];
    if (d->name[0] == '\0') {
        rename_draw(m);
        return;
    }
    m->type = RPC_RENAME;
    q->oid = d->parent;
    q->name = slice_of(m->name[0], strlen(d->name));
    memcpy(m->name[0], d->name, sizeof d->name);
    q->oid2 = dir_draw(m);
    q->name2 = name_draw(m, 1);
    workload_dooms(m, q->oid2, q->name2, 0);
}

/* ACLs as the kernel passes them: everybody has what their mode says, and user 1000 a right of his
 * own. What is made in a directory with the default one has the mode it asked for. */
#define ACL_ENTRY(tag, perm, id)                                                                   \
    (tag), 0, (perm), 0, (id)&0xff, (id) >> 8 & 0xff, (id) >> 16 & 0xff, (id) >> 24 & 0xff
#define ACL_WHOLE UINT32_MAX
static const uint8_t acl_default[] = {2,
                                      0,
                                      0,
                                      0,
                                      ACL_ENTRY(0x01, 7, ACL_WHOLE),
                                      ACL_ENTRY(0x02, 7, 1000u),
                                      ACL_ENTRY(0x04, 5, ACL_WHOLE),
                                      ACL_ENTRY(0x10, 7, ACL_WHOLE),
                                      ACL_ENTRY(0x20, 5, ACL_WHOLE)};
static const uint8_t acl_access[] = {2,
                                     0,
                                     0,
                                     0,
                                     ACL_ENTRY(0x01, 6, ACL_WHOLE),
                                     ACL_ENTRY(0x02, 5, 1000u),
                                     ACL_ENTRY(0x04, 4, ACL_WHOLE),
                                     ACL_ENTRY(0x10, 5, ACL_WHOLE),
                                     ACL_ENTRY(0x20, 0, ACL_WHOLE)};

/* All that one register holds (rule 9). The root stays as it is: whoever comes there has to find
 * it so. */
static void perm_draw(struct mount *m)
{
    static const uint16_t modes[] = {0700, 0755, 02755, 04755};
    struct fs_request *q = &m->req;
    bool dir = oid_is_dir(q->oid), root = oid_is_root(q->oid);
    uint64_t what = draw(m, 8);
    m->type = RPC_SETATTR;
    if (what == 0 && !root) {
        q->set = draw(m, 3) == 0 ? SET_GID : SET_UID | SET_GID;
        q->uid = draw(m, 2) == 0 ? 0 : 1000;
        q->gid = draw(m, 2) == 0 ? 0 : 100;
    } else if (what <= 2 && !root) {
        bool fallback = dir && what == 2;
        m->type = draw(m, 4) == 0 ? RPC_REMOVEXATTR : RPC_SETXATTR;
        q->name = slice_str(fallback ? "system.posix_acl_default" : "system.posix_acl_access");
        q->data = fallback ? slice_of(acl_default, sizeof acl_default)
                           : slice_of(acl_access, sizeof acl_access);
    } else {
        q->set = SET_MODE;
        q->mode = modes[draw(m, root || what > 4 ? 2 : dir ? 3 : ARRAY_COUNT(modes))];
    }
}

static void xattr_draw(struct mount *m)
{
    struct fs_request *q = &m->req;
    bool caps = !oid_is_dir(q->oid) && draw(m, 8) == 0; /* in the register of the permissions */
    m->type = draw(m, 4) == 0 ? RPC_REMOVEXATTR : RPC_SETXATTR;
    q->name = caps              ? slice_str("security.capability")
              : draw(m, 2) == 0 ? slice_str("user.a")
                                : slice_str("user.b");
    q->data = name_draw(m, 0);
}

static void times_draw(struct mount *m)
{
    struct fs_request *q = &m->req;
    m->type = RPC_SETATTR;
    q->set = draw(m, 4) == 0 ? SET_ATIME : SET_MTIME;
    q->mtime_ns = q->atime_ns = (int64_t)(draw(m, 1000) * NS_PER_SEC);
}

static void attr_draw(struct mount *m, enum choice what)
{
    struct fs_request *q = &m->req;
    q->oid =
        m->file_count > 0 && draw(m, 2) == 0 ? m->files[draw(m, m->file_count)].oid : dir_draw(m);
    if (what == DO_GETATTR)
        m->type = RPC_GETATTR;
    else if (what == DO_TIMES)
        times_draw(m);
    else if (what == DO_CHMOD)
        perm_draw(m);
    else
        xattr_draw(m);
}

static void draw_call(struct mount *m, enum choice what)
{
    struct fs_request *q = &m->req;
    switch (what) {
    case DO_WRITE:
        write_draw(m);
        return;
    case DO_CREATE:
    case DO_MKDIR:
    case DO_SYMLINK:
        create_draw(m, what);
        return;
    case DO_REPLACE:
    case DO_RENAME:
        rename_draw(m);
        return;
    case DO_MOVE:
        move_draw(m);
        return;
    case DO_LINK:
        m->type = RPC_LINK;
        q->oid = m->files[draw(m, m->file_count)].oid;
        q->oid2 = dir_draw(m);
        q->name = name_draw(m, 0);
        return;
    case DO_UNLINK:
    case DO_RMDIR:
    case DO_LOOKUP:
        m->type = what == DO_UNLINK ? RPC_UNLINK : what == DO_RMDIR ? RPC_RMDIR : RPC_LOOKUP;
        q->oid = dir_draw(m);
        q->name = name_draw(m, 0);
        if (what == DO_UNLINK)
            workload_dooms(m, q->oid, q->name, 0);
        return;
    case DO_READDIR:
        m->type = RPC_READDIR;
        q->oid = dir_draw(m);
        q->count = 100;
        return;
    case DO_GETATTR:
    case DO_CHMOD:
    case DO_TIMES:
    case DO_SETXATTR:
        attr_draw(m, what);
        return;
    case DO_COUNT:
        break;
    }
    UNREACHABLE();
}

/* The directory this workload lives in is made, or found, before anything else is done. */
static bool home_draw(struct mount *m)
{
    if (m->work->dir[0] == '\0' || !oid_is_root(m->dirs[0].oid))
        return false;
    m->type = m->home_is_there ? RPC_LOOKUP : RPC_MKDIR;
    m->req.oid = OID_ROOT;
    m->req.name = slice_str(m->work->dir);
    m->req.mode = 0755;
    return true;
}

static void home_learn(struct mount *m, const struct fs_reply *r)
{
    m->home_is_there = r->rc == ERR_EXISTS;
    if (r->rc == 0 && r->has_attr)
        m->dirs[0].oid = r->attr.oid;
}

void workload_next(struct mount *m)
{
    m->again = false;
    m->in_own = false;
    if (home_draw(m))
        return;
    bool real = m->work->kind != WORLD_WORK_COLLIDE;
    m->in_own = rng_below(&m->rng, real ? 16 : 8) == 0 && !m->own.rests;
    if (m->in_own) {
        private_next(m);
        return;
    }
    if (real) {
        real_next(m);
        return;
    }
    if (close_draw(m))
        return;
    enum choice what = choose(m);
    bool can = m->file_count > 0 || (what == DO_WRITE && m->open_count > 0);
    if (!can && (what == DO_WRITE || what == DO_LINK))
        what = DO_CREATE;
    draw_call(m, what);
}

void workload_again(struct mount *m)
{
    m->again = true;
    if (m->in_own)
        return;
    if (m->type == RPC_UNLINK)
        workload_dooms(m, m->req.oid, m->req.name, 1);
    else if (m->type == RPC_RENAME)
        workload_dooms(m, m->req.oid2, m->req.name2, 1);
    else if (m->type == RPC_COMMIT)
        doom_content(m, m->req.oid);
}

/* --- learning --- */

static void dir_learn(struct mount *m, struct oid oid)
{
    unsigned i = 0;
    while (i < m->dir_count && !oid_equal(m->dirs[i].oid, oid))
        i++;
    if (i == 0 || oid_is_root(oid))
        return; /* where the workload lives */
    if (i == m->dir_count)
        i = m->dir_count < MOUNT_DIRS ? m->dir_count++ : 1 + (unsigned)draw(m, MOUNT_DIRS - 1);
    struct mount_dir *d = &m->dirs[i];
    bool renamed = m->type == RPC_RENAME;
    struct slice name = renamed ? m->req.name2 : m->req.name;
    *d = (struct mount_dir){.oid = oid, .parent = renamed ? m->req.oid2 : m->req.oid};
    if ((m->type == RPC_MKDIR || m->type == RPC_LOOKUP || renamed) && name.len < sizeof d->name)
        memcpy(d->name, name.ptr, name.len);
}

static void dir_forget(struct mount *m, struct oid oid)
{
    for (unsigned i = 1; i < m->dir_count; i++)
        if (oid_equal(m->dirs[i].oid, oid))
            m->dirs[i] = m->dirs[--m->dir_count];
}

static void file_learn(struct mount *m, const struct fs_attr *a)
{
    unsigned i = 0;
    while (i < m->file_count && !oid_equal(m->files[i].oid, a->oid))
        i++;
    if (i == m->file_count)
        i = m->file_count < MOUNT_FILES ? m->file_count++ : (unsigned)draw(m, MOUNT_FILES);
    m->files[i] = (struct mount_file){.oid = a->oid, .version = a->version};
}

static void file_forget(struct mount *m, struct oid oid)
{
    for (unsigned i = 0; i < m->file_count; i++)
        if (oid_equal(m->files[i].oid, oid))
            m->files[i] = m->files[--m->file_count];
}

static void attr_learn(struct mount *m, const struct fs_attr *a)
{
    if (oid_is_dir(a->oid))
        ring_learn(m, a->oid);
    if (oid_is_dir(a->oid))
        dir_learn(m, a->oid);
    else if (oid_kind(a->oid) == OID_FILE)
        file_learn(m, a);
}

static bool is_change(enum rpc_type t)
{
    return t == RPC_SETATTR || t == RPC_CREATE || t == RPC_MKDIR || t == RPC_LINK ||
           t == RPC_UNLINK || t == RPC_RMDIR || t == RPC_RENAME || t == RPC_COMMIT ||
           t == RPC_SETXATTR || t == RPC_REMOVEXATTR;
}

/* What an answer must say of the call itself (P1). */
static void answer_check(struct mount *m, const struct fs_reply *r)
{
    const char *what = NULL;
    if (r->rc != 0 || !r->has_attr || m->again)
        return; /* a repeated call is answered with what is there now */
    if (m->type == RPC_SETATTR && (m->req.set & SET_MODE) != 0 &&
        (r->attr.mode & 07777) != m->req.mode)
        what = "chmod answered with another mode than it set";
    if (m->type == RPC_COMMIT && r->attr.nlink > 0 && r->attr.size != m->req.content.size)
        what = "a write answered with another size than it wrote";
    if (what != NULL && m->failure[0] == '\0')
        (void)snprintf(m->failure, sizeof m->failure, "call %llu: %s",
                       (unsigned long long)m->req.number, what); /* fits */
}

/* The node failed while it was at it: the call may have been carried out, as write(2) may that
 * returns EIO. Without space nothing happened. */
static bool is_unsure(int32_t rc)
{
    enum err_class c = err_class(rc);
    return (c == ERR_CLASS_ENV || c == ERR_CLASS_FATAL) && rc != ERR_NO_SPACE;
}

void workload_done(struct mount *m, const struct fs_reply *r)
{
    if (m->in_own) {
        private_done(m, r);
        if (r != NULL && r->rc == 0)
            m->stats.changes += is_change(m->type);
        return;
    }
    if (r == NULL) {
        give_up(m);
        real_done(m, NULL);
        return;
    }
    answer_check(m, r);
    opens_learn(m, r);
    if (is_unsure(r->rc))
        give_up(m);
    if (r->rc == 0) {
        give_up(m);
        give_up_told(m, r);
        m->stats.changes += is_change(m->type);
    }
    if (m->work->dir[0] != '\0' && oid_is_root(m->dirs[0].oid)) {
        home_learn(m, r);
        return;
    }
    if (r->rc == ERR_STALE || r->rc == ERR_NOT_FOUND) {
        dir_forget(m, m->req.oid);
        file_forget(m, m->req.oid);
        if (r->rc == ERR_STALE && !oid_is_none(m->req.oid2))
            dir_forget(m, m->req.oid2);
    }
    if (r->has_attr && (r->rc == 0 || r->rc == ERR_STALE_BASE))
        attr_learn(m, &r->attr);
    if (m->writes != 0 && r->rc == 0) {
        struct ledger_entry *e = ledger_get(m->ledger, m->writes);
        e->acked = true;
        e->version = r->attr.version;
        /* Open and unlinked: an orphan never leaves the site and goes with its last close. */
        if (r->attr.nlink == 0)
            e->given_up = true;
    }
    if (m->work->kind != WORLD_WORK_COLLIDE)
        real_done(m, r);
}
