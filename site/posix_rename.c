/* rename: files are journaled in the shard of the new parent (the new name appears before the old
 * one goes), directories in shard 0, one at a time. */
#include <linux/fs.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "site/call.h"
#include "site/node_int.h"
#include "site/posix_int.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#endif

struct renaming {
    struct shard *home;
    struct oid from, to;
    struct slice old_name, new_name;
    struct shown src, dst;
    bool has_dst, exchange;
};

/* Walks up from `from`: is `what` it or above it? Positions cannot move meanwhile: local moves go
 * through shard 0 one at a time, and this runs there. */
static int is_above(struct call *c, struct oid what, struct oid from, bool *ret)
{
    *ret = false;
    for (unsigned hops = 0; hops < LIMIT_LINEAGE; hops++) {
        if (oid_equal(from, what)) {
            *ret = true;
            return 0;
        }
        if (oid_is_root(from))
            return 0;
        struct dir_view v;
        call_saw(c, from, slice_of(NULL, 0));
        int rc = merge_dir(merge_of(c->n, from), from, &v);
        if (rc != 0)
            return rc == ERR_NOT_FOUND ? call_await_word(c, shard_of(c->n, from), NULL) : rc;
        from = v.parent;
    }
    return ERR_LIMIT;
}

int call_lineage(
    struct call *c, struct op_builder *b, struct oid dir, struct oid target, struct effect *e)
{
    struct birth *list = NULL;
    uint32_t count = 0;
    int rc = 0;
    struct oid at = dir;
    while (rc == 0 && !oid_is_root(at)) {
        struct dir_view v;
        rc = merge_dir(merge_of(c->n, at), at, &v);
        if (rc == ERR_NOT_FOUND && count > 0) {
            rc = 0; /* a birth parent that was collected: nobody is where it was born */
            break;
        }
        if (rc != 0)
            break;
        list = mem_realloc(list, (count + 1) * sizeof *list);
        list[count] = v.birth;
        list[count].oid = at;
        list[count].name = op_dup(&b->arena, v.birth.name);
        at = count++ == 0 ? target : v.birth.parent;
        if (count >= LIMIT_LINEAGE)
            rc = ERR_LIMIT;
    }
    if (rc == 0 && count > 0) {
        struct birth *kept = op_alloc(&b->arena, count * sizeof *kept);
        memcpy(kept, list, count * sizeof *kept);
        e->lineage = kept;
        e->lineage_count = count;
    }
    mem_free(list);
    return rc == ERR_NOT_FOUND ? call_await_word(c, shard_of(c->n, at), NULL) : rc;
}

static int add_move(struct call *c, struct oid dir, struct oid parent, struct slice name)
{
    struct effect *e = op_builder_add(&c->b, EFFECT_MOVE, dir);
    e->parent = parent;
    e->name = name;
    build_saw(shard_merge(node_shard(c->n, 0)), &c->b, e);
    return call_lineage(c, &c->b, dir, parent, e);
}

static void add_enter(struct call *c, struct oid oid, struct oid parent, struct slice name)
{
    struct effect *e = op_builder_add(&c->b, EFFECT_ENTER, oid);
    e->parent = parent;
    e->name = name;
}

static bool same_object(const struct shown *a, const struct shown *b)
{
    for (uint32_t i = 0; i <= a->twin_count; i++)
        for (uint32_t k = 0; k <= b->twin_count; k++)
            if (oid_equal(i == 0 ? a->oid : a->twins[i - 1], k == 0 ? b->oid : b->twins[k - 1]))
                return true;
    return false;
}

static int check_types(struct call *c, const struct renaming *r)
{
    bool src_dir = oid_is_dir(r->src.oid), above = false;
    int rc = 0;
    if (src_dir)
        rc = is_above(c, r->src.oid, r->to, &above);
    if (rc == 0 && above)
        return ERR_INVALID;
    if (rc == 0 && r->exchange && oid_is_dir(r->dst.oid)) {
        rc = is_above(c, r->dst.oid, r->from, &above);
        if (rc == 0 && above)
            return ERR_INVALID;
    }
    if (rc != 0 || !r->has_dst || r->exchange)
        return rc;
    if (src_dir && !oid_is_dir(r->dst.oid))
        return ERR_NOT_DIR;
    if (!src_dir && oid_is_dir(r->dst.oid))
        return ERR_IS_DIR;
    if (oid_is_dir(r->dst.oid)) {
        rc = call_need_object(c, r->home, r->dst.oid);
        if (rc == 0)
            rc = call_whole(c, r->to, r->dst.oid);
        if (rc == 0 && !merge_dir_empty(merge_of(c->n, r->dst.oid), r->dst.oid))
            return ERR_NOT_EMPTY;
    }
    return rc;
}

/* What goes away, what moves, and what contested names become. */
static int build(struct call *c, const struct renaming *r)
{
    bool src_dir = oid_is_dir(r->src.oid);
    struct oid skip[2 * (SHOWN_TWINS_MAX + 1)];
    uint32_t skips = 0;
    int rc = 0;
    for (uint32_t i = 0; i <= r->src.twin_count; i++)
        skip[skips++] = i == 0 ? r->src.oid : r->src.twins[i - 1];
    for (uint32_t i = 0; r->has_dst && i <= r->dst.twin_count; i++)
        skip[skips++] = i == 0 ? r->dst.oid : r->dst.twins[i - 1];
    if (!src_dir)
        rc = call_leave(c, r->home, r->from, &r->src, true);
    if (rc == 0 && r->has_dst && !oid_is_dir(r->dst.oid))
        rc = call_leave(c, r->home, r->to, &r->dst, r->exchange);
    if (rc == 0 && r->has_dst && oid_is_dir(r->dst.oid) && !r->exchange) {
        struct effect *e = op_builder_add(&c->b, EFFECT_BURY, r->dst.oid);
        e->dots = build_life_dots(merge_of(c->n, r->dst.oid), &c->b, r->dst.oid, &e->dot_count);
    }
    if (rc == 0)
        rc = call_settle(c, r->home, r->from, r->src.stored, r->old_name, skip, skips);
    if (rc == 0 && r->has_dst &&
        !(oid_equal(r->from, r->to) && slice_equal(r->src.stored, r->dst.stored)))
        rc = call_settle(c, r->home, r->to, r->dst.stored, r->new_name, skip, skips);
    if (rc == 0) {
        if (src_dir || (r->exchange && oid_is_dir(r->dst.oid))) {
            posix_mtime(c, r->from); /* their index follows by itself, but it knows no times */
            if (!oid_equal(r->from, r->to))
                posix_mtime(c, r->to);
        }
        if (src_dir)
            rc = add_move(c, r->src.oid, r->to, r->new_name);
        else
            add_enter(c, r->src.oid, r->to, r->new_name);
    }
    if (rc == 0 && r->exchange) {
        if (oid_is_dir(r->dst.oid))
            rc = add_move(c, r->dst.oid, r->from, r->old_name);
        else
            add_enter(c, r->dst.oid, r->from, r->old_name);
    }
    return rc;
}

static int need_dir_names(struct call *c, const struct renaming *r)
{
    struct slice names[4] = {r->old_name, r->src.stored, r->new_name,
                             r->has_dst ? r->dst.stored : r->new_name};
    for (int i = 0; i < 4; i++) {
        int rc = call_need_name(c, r->home, i < 2 ? r->from : r->to, names[i]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Names whose change comes back derived, and the one-at-a-time latch of directory moves. */
static void latch_dir_names(struct call *c, const struct renaming *r)
{
    struct slice names[4] = {r->old_name, r->src.stored, r->new_name,
                             r->has_dst ? r->dst.stored : r->new_name};
    for (int i = 0; i < 4; i++) {
        struct oid parent = i < 2 ? r->from : r->to;
        struct shard *s = shard_of(c->n, parent);
        uint64_t key = touch_key(parent, names[i]);
        if (!shard_latched(s, key))
            call_latch(c, s, key);
    }
    call_latch(c, r->home, touch_key(OID_ROOT, slice_str("*rename")));
}

static int find_both(struct call *c, struct renaming *r)
{
    struct dir_view v;
    int rc = call_need_object(c, r->home, r->to);
    if (rc == 0)
        rc = call_dir_alive(c, r->from, &v);
    if (rc == 0)
        rc = call_dir_alive(c, r->to, &v);
    if (rc == 0)
        rc = call_find(c, r->home, r->from, r->old_name, &r->src);
    if (rc != 0)
        return rc;
    rc = call_find(c, r->home, r->to, r->new_name, &r->dst);
    r->has_dst = rc == 0;
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int call_rename(struct call *c)
{
    const struct fs_request *q = &c->req;
    struct renaming r = {.from = q->oid,
                         .to = q->oid2,
                         .old_name = q->name,
                         .new_name = q->name2,
                         .exchange = (q->flags & RENAME_EXCHANGE) != 0};
    if ((q->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0 ||
        q->flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return ERR_INVALID;
    r.home = shard_of(c->n, r.to);
    int rc = find_both(c, &r);
    if (rc != 0)
        return rc;
    bool dirs = oid_is_dir(r.src.oid) || (r.exchange && r.has_dst && oid_is_dir(r.dst.oid));
    if (dirs && shard_id(r.home) != 0) {
        r.home = node_shard(c->n, 0);
        rc = find_both(c, &r);
    }
    if (rc == 0 && dirs)
        rc = call_need_name(c, r.home, OID_ROOT, slice_str("*rename"));
    if (rc != 0)
        return rc;
    if ((q->flags & RENAME_NOREPLACE) != 0 && r.has_dst)
        return ERR_EXISTS;
    if (r.exchange && !r.has_dst)
        return ERR_NOT_FOUND;
    if (r.has_dst && same_object(&r.src, &r.dst))
        return 0; /* two names of one file, or the same name: nothing to do */
    rc = check_types(c, &r);
    if (rc == 0)
        rc = build(c, &r);
    if (rc == 0 && dirs)
        rc = need_dir_names(c, &r);
    if (rc == 0)
        rc = call_propose(c, r.home, r.src.oid, NULL);
    if (rc == 0 && dirs)
        latch_dir_names(c, &r);
    else if (rc == 0)
        call_reply_names(c, r.home);
    return rc;
}
