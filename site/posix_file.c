/* Contents: open, close, the current version, commits of new ones, symlink targets. */
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/plant.h"
#include "site/call.h"
#include "site/node_int.h"
#include "site/posix_int.h"
#include "site/shard_row.h"

#define WRITER_CLOCK_NS (60 * (int64_t)NS_PER_SEC)

static int reply_content(struct call *c)
{
    struct dot version;
    int64_t mtime;
    int rc = content_get(c->n, c->req.oid, &c->reply.content, &version, &mtime);
    if (rc == ERR_NOT_FOUND)
        return ERR_STALE;
    if (rc != 0)
        return rc;
    c->reply.content.bytes = call_keep(c, c->reply.content.bytes);
    c->reply.has_content = true;
    return 0;
}

int call_content(struct call *c)
{
    struct oid oid = c->reply.has_attr ? c->reply.attr.oid : c->req.oid;
    struct oid asked = c->req.oid;
    c->req.oid = oid; /* CREATE of what exists answers with the file, not with its parent */
    int rc = oid_is_dir(oid) ? ERR_IS_DIR : reply_content(c);
    c->req.oid = asked;
    return rc != 0 || c->reply.has_attr ? rc : call_reply_attr(c, oid);
}

int call_open(struct call *c)
{
    struct fs_attr a;
    int rc = call_await_holder(c, c->req.oid);
    if (rc == 0)
        rc = attr_get(c->n, c->req.oid, &a);
    if (rc != 0)
        return rc == ERR_NOT_FOUND ? ERR_STALE : rc;
    if (a.nlink == 0 && !node_object_open(c->n, c->req.oid)) {
        call_saw(c, c->req.oid, slice_of(NULL, 0)); /* its last name may not be gone durably */
        return ERR_STALE;
    }
    if ((c->req.flags & OPEN_AGAIN) == 0 ||
        !session_has_open(c->n->sessions, c->req.session, c->req.oid))
        node_session_open(c, c->req.oid);
    if (oid_is_dir(c->req.oid))
        return call_reply_attr(c, c->req.oid);
    return call_content(c);
}

int call_close(struct call *c)
{
    if (!oid_is_none(c->req.oid))
        node_session_close(c, c->req.oid);
    for (uint32_t i = 0; i < c->req.oid_count; i++)
        node_session_close(c, c->req.oids[i]);
    return 0;
}

static int orphan_write(struct call *c,
                        struct oid oid,
                        const struct content *content,
                        int64_t mtime_ns,
                        struct dot base)
{
    uint8_t key[ROW_ORPHAN_KEY_BYTES];
    struct buf value = {0};
    struct shard *home = shard_of(c->n, oid);
    /* The first one is above those it had before it got a name, and lost that again. */
    uint64_t last = base.site == UINT32_MAX ? base.seq : log_last(shard_log(home));
    const struct row_orphan r = {.version = last + 1, .mtime_ns = mtime_ns, .content = *content};
    row_orphan_key(oid, key);
    row_orphan_value(&value, &r);
    struct local_pair pair = {slice_of(key, sizeof key), buf_slice(&value)};
    node_effects_begin(c->n, c);
    int rc = shard_local(home, &pair, 1, NULL, NULL);
    node_effects_end(c->n, c);
    buf_deinit(&value);
    return rc;
}

int posix_new_version(struct call *c,
                      struct oid oid,
                      const struct content *content,
                      int64_t mtime_ns,
                      struct dot base)
{
    struct file_view v;
    int rc = merge_file(merge_of(c->n, oid), oid, &v);
    if (rc != 0)
        return rc;
    if (v.names == 0 && !PLANTED(52))
        return orphan_write(c, oid, content, mtime_ns, base);
    struct effect *e = op_builder_add(&c->b, EFFECT_VERSION, oid);
    struct dot *dots = op_alloc(&c->b.arena, sizeof *dots);
    *dots = v.version;
    e->dots = dots;
    e->dot_count = dot_is_none(v.version) ? 0 : 1;
    e->content = *content;
    e->mtime_ns = mtime_ns;
    for (uint32_t i = 0; i < c->twin_count; i++) {
        struct file_view t;
        rc = merge_file(merge_of(c->n, c->twins[i]), c->twins[i], &t);
        if (rc != 0)
            return rc;
        build_leave(merge_of(c->n, oid), &c->b, c->twin_refs[i].parent, c->twin_refs[i].name,
                    c->twins[i], t.names == 1 ? t.version : (struct dot){0});
    }
    c->twin_count = 0; /* they are gone: later effects are not theirs */
    return 0;
}

static int check_content(const struct content *k)
{
    if (k->size > LIMIT_FILE_BYTES)
        return ERR_FILE_TOO_BIG;
    bool fits = k->kind != CONTENT_INLINE || k->bytes.len <= LIMIT_INLINE_BYTES;
    return fits && content_valid(k) ? 0 : ERR_INVALID;
}

/* The attributes that come with a new version, and what becomes of set-id bits: they hold for the
 * version their setter saw; a writer with the privilege says that they hold for this one, too.
 * `seen`: what is there now. */
static void commit_attrs(struct call *c, struct perm *p, struct dot seen)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid);
    struct dot next = {shard_next_seq(home), node_site(c->n), shard_id(home)};
    bool is_new = c->b.count > 0; /* else it has no name, and its content is no operation */
    bool kill = (r->flags & COMMIT_KILL_SETID) != 0;
    bool set = posix_change_perm(c, r->oid, p, &r->kept);
    bool special = (p->mode & (S_ISUID | S_ISGID)) != 0 || p->caps.len > 0;
    bool group_lock = (p->mode & (S_ISGID | S_IXGRP)) == S_ISGID; /* not a set-id bit */
    if (kill && (set || group_lock))
        posix_kill_setid(p);
    if (set || (is_new && special && (!kill || group_lock)))
        posix_set_perm(c, r->oid, p, is_new ? next : seen);
    posix_set_times(c, r->oid, &r->kept);
}

/* What write(2) and the setter of attributes stamped stays: the change time is the client's, if its
 * clock is near ours. */
static void take_clients_time(struct call *c)
{
    int64_t ns = MAX(c->req.mtime_ns, c->req.kept.ctime_ns);
    int64_t ahead = ns - c->now_ns;
    if (ns != 0 && ahead > -WRITER_CLOCK_NS && ahead < WRITER_CLOCK_NS)
        c->now_ns = ns;
}

int call_commit(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid);
    struct content now;
    struct dot version;
    int64_t mtime;
    if (oid_kind(r->oid) != OID_FILE || !r->has_content)
        return ERR_INVALID;
    int rc = check_content(&r->content);
    if (rc == 0)
        rc = call_riders(c);
    if (rc == ERR_AGAIN) { /* the store has too much to do: the mount asks again in a moment */
        c->reply.rc = rc;
        return 0;
    }
    if (rc == 0)
        rc = call_need_object(c, home, r->oid);
    if (rc == 0)
        rc = content_get(c->n, r->oid, &now, &version, &mtime);
    if (rc == ERR_NOT_FOUND)
        return ERR_STALE;
    if (rc != 0)
        return rc;
    if (!dot_equal(version, r->base)) {
        rc = call_reply_attr(c, r->oid);
        if (rc == 0)
            rc = reply_content(c);
        c->reply.rc = rc == 0 ? ERR_STALE_BASE : rc;
        return 0;
    }
    take_clients_time(c);
    struct perm perm;
    struct dot seen;
    rc = posix_touch(c, r->oid);
    if (rc == ERR_NOT_FOUND) /* nothing but what was written to it without a name is left */
        rc = ERR_STALE;
    if (rc == 0)
        rc = posix_perm(c, r->oid, &perm, &seen);
    if (rc == 0)
        rc = posix_new_version(c, r->oid, &r->content, r->mtime_ns != 0 ? r->mtime_ns : c->now_ns,
                               version);
    if (rc == 0)
        commit_attrs(c, &perm, seen);
    if (rc == 0 && c->b.count > 0)
        rc = call_propose(c, home, r->oid, NULL);
    if (rc == 0)
        node_hold_end(c, r->oid);
    return rc != 0 ? rc : call_reply_attr(c, r->oid);
}

/* A past version takes the place of what is there now, as a commit on top of it. */
static int restore_over(struct call *c, struct oid oid)
{
    struct fs_request asked = c->req;
    struct content now;
    int64_t mtime;
    if (oid_is_dir(oid))
        return ERR_IS_DIR;
    if (oid_kind(oid) != OID_FILE || asked.kind != OID_FILE)
        return ERR_EXISTS;
    int rc = content_get(c->n, oid, &now, &c->req.base, &mtime);
    c->req.oid = oid;
    if (rc == 0)
        rc = call_commit(c);
    c->req = asked; /* it may be evaluated again */
    return rc;
}

int call_restore(struct call *c)
{
    const struct fs_request *r = &c->req;
    struct shard *home = shard_of(c->n, r->oid);
    struct dir_view dir;
    struct shown s;
    struct perm perm = {.mode = 0600};
    if (c->conn != NULL)
        return ERR_NOT_PERMITTED;
    int rc = call_need_object(c, home, r->oid);
    if (rc == 0)
        rc = call_dir_alive(c, r->oid, &dir);
    if (rc == 0 && r->data.len > 0)
        rc = perm_decode(r->data, &perm);
    if (rc != 0)
        return rc;
    rc = call_find(c, home, r->oid, r->name, &s);
    if (rc == 0)
        return (r->flags & RESTORE_NEW) != 0 ? ERR_EXISTS : restore_over(c, s.oid);
    if (rc != ERR_NOT_FOUND)
        return rc;
    struct oid oid = shard_new_oid(home, (enum oid_kind)r->kind);
    struct effect *e = op_builder_add(&c->b, EFFECT_VERSION, oid);
    e->content = r->content;
    e->mtime_ns = r->mtime_ns;
    /* Nobody asks for old privileges along with old data. */
    perm.mode &= (uint16_t) ~(S_ISUID | S_ISGID);
    perm.caps = slice_of(NULL, 0);
    perm.setid_seen = (struct dot){0};
    posix_perm_effect(c, oid, &perm);
    e = op_builder_add(&c->b, EFFECT_ENTER, oid);
    e->parent = r->oid;
    e->name = r->name;
    rc = call_propose(c, home, oid, NULL);
    return rc != 0 ? rc : call_reply_attr(c, oid);
}

int call_readlink(struct call *c)
{
    if (oid_kind(c->req.oid) != OID_SYMLINK)
        return ERR_INVALID;
    int rc = reply_content(c);
    if (rc != 0)
        return rc;
    c->reply.has_content = false;
    c->reply.data = c->reply.content.bytes;
    call_show(c, c->req.oid, slice_of(NULL, 0));
    return 0;
}
