/* What this site has done that nobody else has, for the list it keeps while it comes back.
 *
 * Its journals hold all of it: records are kept until everybody has acknowledged them. What all
 * have acknowledged was sent. What somebody has, or may have, is told apart when the list is used,
 * for the cut is not known here, and who acknowledged it may be given up, too. Operations say what
 * was touched and what was there before, the state what became of it. The node is open and settled,
 * and nobody uses it. */
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "site/member_codec.h"
#include "site/return_int.h"

#define READ_BYTES (1024u * KIB)
#define CHAIN_MAX                                                                                  \
    1024u             /* versions of a file: of more, the older ones look as if others made them */
#define KNOWN_MAX 64u /* the same for meanings of a name */

struct collect {
    struct node *n;
    struct unsent *u;
    int rc;
    unsigned shard;
    uint64_t acked; /* index up to which somebody has what is in its journal */
};

static void *grown(struct unsent *u, const void *old, uint32_t count, size_t size)
{
    bool full = count == 0 || (count >= 4 && (count & (count - 1)) == 0);
    if (!full)
        return (void *)(uintptr_t)old; /* allocated here: see below */
    uint32_t cap = count == 0 ? 4 : 2 * count;
    uint8_t *more = op_alloc(&u->arena, cap * size);
    if (count > 0)
        memcpy(more, old, count * size);
    return more;
}

/* ---- what an operation touches ---- */

static struct unsent_name *
touch_name(struct collect *c, const struct op *op, const struct effect *e)
{
    struct unsent_name *n = unsent_name(c->u, e->parent, e->name);
    n->last = op->dot;
    n->order = op->stamp.hlc;
    return n;
}

/* A file is made by an operation that gives it rights along with its name. */
static bool makes(const struct op *op, struct oid oid)
{
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *e = &op->effects[i];
        if (e->kind == EFFECT_SET && oid_equal(e->oid, oid) && e->set.key.len > 0 &&
            e->set.key.ptr[0] == REG_PERM)
            return true;
    }
    return false;
}

static void touch_entered(struct collect *c, const struct op *op, const struct effect *e)
{
    struct unsent_file *f = unsent_file(c->u, e->oid);
    f->born = f->born || makes(op, e->oid);
    f->last = op->dot;
}

static void touch_left(struct collect *c, const struct op *op, const struct effect *e)
{
    struct unsent_name *n = touch_name(c, op, e);
    if (n->known_count == KNOWN_MAX)
        return;
    struct unsent_known *known = grown(c->u, n->known, n->known_count, sizeof *known);
    known[n->known_count].oid = e->oid;
    known[n->known_count].version = e->seen_count > 0 ? e->seen[0] : (struct dot){0};
    n->known = known;
    n->known_count++;
    struct unsent_file *f = unsent_file(c->u, e->oid);
    f->last = op->dot;
    if (e->seen_count > 0)
        f->version = e->seen[0];
}

static void touch_version(struct collect *c, const struct op *op, const struct effect *e)
{
    struct unsent_file *f = unsent_file(c->u, e->oid);
    if (!f->written)
        f->base = e->dot_count > 0 ? e->dots[0] : (struct dot){0};
    f->written = true;
    f->last = op->dot;
    if (f->chain_count == CHAIN_MAX) { /* the newest count */
        struct unsent_version *chain = (struct unsent_version *)(uintptr_t)f->chain;
        memmove(chain, chain + CHAIN_MAX / 2, CHAIN_MAX / 2 * sizeof *chain);
        f->chain_count = CHAIN_MAX / 2;
    }
    struct unsent_version *chain = grown(c->u, f->chain, f->chain_count, sizeof *chain);
    chain[f->chain_count].dot = op->dot;
    chain[f->chain_count].digest = unsent_digest(&e->content);
    f->chain = chain;
    f->chain_count++;
}

/* A register of the owner's class says something of this site, not of users' files. */
static void touch_reg(struct collect *c, const struct op *op, const struct effect *e)
{
    uint8_t class = e->set.key.len > 0 ? e->set.key.ptr[0] : 0;
    if (class != REG_PERM && class != REG_XATTR && class != REG_MTIME)
        return;
    if (oid_is_dir(e->oid))
        unsent_dir(c->u, e->oid)->last = op->dot;
    else
        unsent_file(c->u, e->oid)->last = op->dot;
}

static void touch(struct collect *c, const struct op *op, const struct effect *e)
{
    switch (e->kind) {
    case EFFECT_ENTER:
        (void)touch_name(c, op, e);
        touch_entered(c, op, e);
        break;
    case EFFECT_LEAVE:
        touch_left(c, op, e);
        break;
    case EFFECT_VERSION:
        touch_version(c, op, e);
        break;
    case EFFECT_FORK:
        if (!oid_is_none(e->to)) {
            unsent_file(c->u, e->to)->written = true;
            unsent_file(c->u, e->to)->last = op->dot;
        }
        break;
    case EFFECT_BIRTH:
    case EFFECT_REVIVE:
    case EFFECT_BURY:
        unsent_dir(c->u, e->oid)->last = op->dot;
        break;
    case EFFECT_MOVE:
        unsent_dir(c->u, e->oid)->last = op->dot;
        unsent_dir(c->u, e->oid)->moved = true;
        break;
    case EFFECT_SET:
        touch_reg(c, op, e);
        break;
    case EFFECT_KIND_END:
        UNREACHABLE();
    }
}

static bool take_op(void *ctx, const struct feed_item *item)
{
    struct collect *c = ctx;
    struct op_arena arena = {0};
    struct op op;
    if (item->dot.site != node_site(c->n))
        return true;
    c->rc = op_decode(item->op, &arena, &op);
    if (item->index <= c->acked)
        c->u->sent[c->shard] = item->dot.seq;
    for (uint32_t i = 0; c->rc == 0 && i < op.effect_count; i++)
        touch(c, &op, &op.effects[i]);
    op_arena_deinit(&arena);
    return c->rc == 0;
}

/* What everybody has who may remain; after a rollback, when no cut tells anything, what anybody
 * has. */
static int read_journal(struct collect *c, bool rolled_back, unsigned shard)
{
    struct log *log = shard_log(c->n->shards[shard]);
    uint64_t last = node_feed_last(c->n, (shard_id_t)shard), all = UINT64_MAX;
    c->shard = shard;
    c->acked = 0;
    for (uint32_t i = 0; i < c->n->member_count; i++) {
        const struct member *m = &c->n->members[i].m;
        uint64_t acked = shard_peer_ack(c->n->shards[shard], m->site);
        c->acked = MAX(c->acked, acked);
        if (m->status == MEMBER_IS && m->site != node_site(c->n))
            all = MIN(all, acked);
    }
    if (rolled_back)
        all = c->acked;
    uint64_t next = MAX(log_first(log), all == UINT64_MAX ? 0 : all + 1);
    while (next <= last) {
        int rc = node_feed_read(c->n, (shard_id_t)shard, next, READ_BYTES, take_op, c, &next);
        if (rc != 0 || c->rc != 0)
            return rc != 0 ? rc : c->rc;
    }
    return 0;
}

/* ---- what became of it ---- */

struct reg_list {
    struct collect *c;
    struct reg *at;
    uint32_t count, cap;
};

static bool take_reg(void *ctx, const struct reg *r)
{
    struct reg_list *l = ctx;
    if (r->stamp.site != node_site(l->c->n))
        return true; /* somebody else's word */
    struct reg *regs = grown(l->c->u, l->at, l->count, sizeof *regs);
    regs[l->count] = *r;
    regs[l->count].key = op_dup(&l->c->u->arena, r->key);
    regs[l->count].value = op_dup(&l->c->u->arena, r->value);
    l->at = regs;
    l->count++;
    return true;
}

static int regs_take(struct collect *c, struct oid oid, const struct reg **ret, uint32_t *ret_count)
{
    struct reg_list l = {.c = c};
    int rc = merge_regs(merge_of(c->n, oid), oid, REG_XATTR, take_reg, &l);
    *ret = l.at;
    *ret_count = l.count;
    return rc;
}

static int perm_take(struct collect *c, struct oid oid, struct slice *ret, struct stamp *ret_stamp)
{
    uint8_t key = REG_PERM;
    struct reg r;
    int rc = merge_reg(merge_of(c->n, oid), oid, slice_of(&key, 1), &r);
    if (rc == ERR_NO_DATA || rc == ERR_NOT_FOUND)
        return 0;
    if (rc == 0 && r.present) {
        *ret = op_dup(&c->u->arena, r.value);
        *ret_stamp = r.stamp.site == node_site(c->n) ? r.stamp : (struct stamp){0};
    }
    return rc;
}

/* The directory, and all above it: where things go that have to be made again. */
static int dir_take(struct collect *c, struct oid oid)
{
    struct dir_view v;
    struct unsent_dir *d = unsent_dir(c->u, oid);
    if (!oid_is_none(d->parent))
        return 0; /* done */
    int rc = merge_dir(merge_of(c->n, oid), oid, &v);
    if (rc == ERR_NOT_FOUND) { /* removed, and forgotten */
        d->parent = OID_ROOT;
        return 0;
    }
    if (rc != 0)
        return rc;
    d->alive = v.alive;
    d->parent = v.parent;
    d->name = op_dup(&c->u->arena, v.name);
    rc = perm_take(c, oid, &d->perm, &d->perm_stamp);
    if (rc == 0)
        rc = regs_take(c, oid, &d->regs, &d->reg_count);
    if (d->perm.len == 0) {
        struct buf perm = {0};
        rc = rc != 0 ? rc : merge_dir(merge_of(c->n, oid), oid, &v);
        perm_encode(&v.perm, &perm);
        d->perm = op_dup(&c->u->arena, buf_slice(&perm));
        buf_deinit(&perm);
    }
    return rc != 0 || oid_is_root(oid) ? rc : dir_take(c, d->parent);
}

struct ref_list {
    struct collect *c;
    struct {
        struct oid parent;
        struct slice name;
    } * at;
    uint32_t count, cap;
};

static bool take_ref(void *ctx, struct oid parent, struct slice name)
{
    struct ref_list *l = ctx;
    if (l->count == l->cap) {
        l->cap = MAX(2 * l->cap, 8u);
        l->at = mem_realloc(l->at, l->cap * sizeof l->at[0]);
    }
    l->at[l->count].parent = parent;
    l->at[l->count++].name = op_dup(&l->c->u->arena, name);
    return true;
}

struct seen_as {
    struct collect *c;
    struct oid oid;
    struct slice name;
};

static bool take_visible(void *ctx, struct slice visible, const struct shown *s)
{
    struct seen_as *v = ctx;
    if (!oid_equal(s->oid, v->oid))
        return true;
    v->name = op_dup(&v->c->u->arena, visible);
    return false;
}

static bool is_twin(const struct shown *s, struct oid oid)
{
    for (uint32_t i = 0; i < s->twin_count; i++)
        if (oid_equal(s->twins[i], oid))
            return true;
    return false;
}

/* A file's name as users see it here; one that shows as the twin of another needs none. */
static int name_take(struct collect *c, struct oid oid, struct oid parent, struct slice stored)
{
    struct shown s;
    struct seen_as v = {.c = c, .oid = oid, .name = stored};
    struct merge *m = merge_of(c->n, parent);
    int rc = merge_lookup(m, parent, stored, &s);
    if (rc == 0 && is_twin(&s, oid))
        return 0;
    if (rc == ERR_NOT_FOUND || (rc == 0 && !oid_equal(s.oid, oid))) {
        v.name = slice_of(NULL, 0);
        rc = merge_list(m, parent, slice_of(NULL, 0), take_visible, &v);
    }
    if (rc == 0 && v.name.len > 0)
        unsent_name(c->u, parent, v.name)->ours = oid;
    return rc;
}

static int file_take(struct collect *c, struct unsent_file *f)
{
    struct ref_list refs = {.c = c};
    struct file_view v;
    int rc = merge_file(merge_of(c->n, f->oid), f->oid, &v);
    if (rc == ERR_NOT_FOUND || (rc == 0 && v.names == 0))
        return 0; /* removed since */
    if (rc != 0)
        return rc;
    f->there = true;
    f->version = v.version;
    f->stamp = v.version_stamp;
    f->written = f->written && v.version.site == node_site(c->n);
    f->mtime_ns = v.mtime_ns;
    f->content = v.content;
    if (f->content.kind == 0) /* nothing was ever written */
        f->content.kind = CONTENT_INLINE;
    f->content.bytes = op_dup(&c->u->arena, v.content.bytes);
    rc = perm_take(c, f->oid, &f->perm, &f->perm_stamp);
    if (rc == 0)
        rc = regs_take(c, f->oid, &f->regs, &f->reg_count);
    if (rc == 0)
        rc = merge_refs(merge_of(c->n, f->oid), f->oid, take_ref, &refs);
    for (uint32_t i = 0; i < refs.count && rc == 0; i++)
        rc = name_take(c, f->oid, refs.at[i].parent, refs.at[i].name);
    mem_free(refs.at);
    return rc;
}

static int by_order(const void *a, const void *b)
{
    const struct unsent_name *x = *(struct unsent_name *const *)a;
    const struct unsent_name *y = *(struct unsent_name *const *)b;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* Whom this site let in while the others had given it up, they do not know; nor, it may be, that
 * one of them has left since, or was removed by an operator here. */
static void members_take(struct collect *c)
{
    struct buf value = {0};
    c->u->members = (void *)op_alloc(&c->u->arena, SITE_COUNT_MAX * sizeof c->u->members[0]);
    for (uint32_t i = 0; i < c->n->member_count; i++) {
        const struct member *m = &c->n->members[i].m;
        if (m->site == node_site(c->n))
            continue;
        buf_clear(&value);
        member_encode(m, &value);
        struct unsent_member *u = &c->u->members[c->u->member_count++];
        u->site = m->site;
        u->record = op_dup(&c->u->arena, buf_slice(&value));
        u->why = m->why;
        u->left = c->n->members[i].left;
    }
    buf_deinit(&value);
}

int return_collect(struct node *n, bool rolled_back, struct unsent *ret)
{
    struct collect c = {.n = n, .u = ret};
    int rc = 0;
    ret->sent_count = n->settings.shard_count;
    for (unsigned i = 0; i < n->settings.shard_count && rc == 0; i++)
        rc = read_journal(&c, rolled_back, i);
    for (uint32_t i = 0; i < ret->file_count && rc == 0; i++)
        rc = file_take(&c, ret->files[i]);
    for (uint32_t i = 0; i < ret->name_count && rc == 0; i++)
        rc = dir_take(&c, ret->names[i]->parent);
    for (uint32_t i = 0; i < ret->dir_count && rc == 0; i++)
        rc = dir_take(&c, ret->dirs[i]->oid);
    members_take(&c);
    if (ret->name_count > 1)
        qsort(ret->names, ret->name_count, sizeof ret->names[0], by_order);
    return rc;
}
