/* Where the engine's state changes, and where a call's change is made: the product's own calls,
 * sent through here by the linker (--wrap) as those of files are through disk_calls.c. Nothing of
 * the product is altered; whatever a killed process still does is passed over (V2). */
#include <string.h>

#include "sim/disk.h"
#include "sim/lin_int.h"

/* Also one that has failed and is about to end: what it still writes may be there afterwards. */
static struct node *node_of(unsigned site)
{
    const struct process *p = &lin->w->sites[site];
    return p->machine.ghost ? NULL : p->node;
}

/* The shard of a site that is up, by its engine. */
static bool find(const struct merge *m, unsigned *ret_site, shard_id_t *ret)
{
    for (unsigned i = 0; lin != NULL && i < lin->w->config.site_count; i++) {
        struct node *n = node_of(i);
        for (unsigned k = 0; n != NULL && k < lin->w->config.shards; k++) {
            struct shard *s = node_shard(n, (shard_id_t)k);
            if (shard_merge(s) != m)
                continue;
            *ret_site = i;
            *ret = (shard_id_t)k;
            return true;
        }
    }
    return false;
}

static void key_add(struct lin_key *keys, unsigned *count, struct oid oid, struct slice name)
{
    if (oid_is_none(oid))
        return;
    if (*count < LIN_KEYS)
        keys[*count] = (struct lin_key){.oid = oid, .name = name.len > 0 ? lin_name_hash(name) : 0};
    ++*count;
}

/* 0: too many to tell. */
static unsigned keys_of(const struct op *op, struct lin_key *keys)
{
    const struct slice none = {0};
    unsigned count = 0;
    for (uint32_t i = 0; i < op->effect_count; i++) {
        const struct effect *e = &op->effects[i];
        bool birth = e->kind == EFFECT_BIRTH;
        key_add(keys, &count, e->oid, none);
        key_add(keys, &count, birth ? e->birth.parent : e->parent, birth ? e->birth.name : e->name);
    }
    return count <= LIN_KEYS ? count : 0;
}

/* Where a directory was before is in no effect. */
static bool has_dirs(const struct op *op)
{
    for (uint32_t i = 0; i < op->effect_count; i++) {
        enum effect_kind k = op->effects[i].kind;
        if (k == EFFECT_BIRTH || k == EFFECT_MOVE || k == EFFECT_BURY || k == EFFECT_REVIVE)
            return true;
    }
    return false;
}

/* What the engine says that shows otherwise now, while it is being given something. */
static struct lin_key said[LIN_SAID];
static unsigned said_count;

static void say(struct oid oid, uint64_t name)
{
    struct lin_key key = {.oid = oid, .name = name};
    if (lin != NULL && said_count < LIN_SAID)
        said[said_count++] = key;
}

void __real_node_inval_name(struct node *n, struct oid parent, struct slice name);
void __wrap_node_inval_name(struct node *n, struct oid parent, struct slice name);
void __wrap_node_inval_name(struct node *n, struct oid parent, struct slice name)
{
    say(parent, name.len > 0 ? lin_name_hash(name) : LIN_ANY_NAME);
    touch_note(n, parent);
    __real_node_inval_name(n, parent, name);
}

void __real_node_inval_object(struct node *n, struct oid oid, bool content);
void __wrap_node_inval_object(struct node *n, struct oid oid, bool content);
void __wrap_node_inval_object(struct node *n, struct oid oid, bool content)
{
    say(oid, 0);
    if (content)
        touch_content(n, oid);
    __real_node_inval_object(n, oid, content);
}

static void changed(unsigned site, shard_id_t shard, const struct lin_key *keys, unsigned count)
{
    unsigned told = said_count;
    said_count = 0;
    lin_fresh(site, shard, said, told);
    lin_changed(site, keys, count);
}

/* What no mount of the site asked for changes what a call is about, perhaps before the call's own
 * change has come to all shards: then that need not show by itself. */
static void meddled(unsigned site, const struct lin_key *keys, unsigned count)
{
    for (unsigned i = 0; i < lin->w->mount_count && lin->sites[site].busy > 0; i++) {
        struct lin_call *c = &lin->mounts[i].call;
        for (unsigned k = 0; k < count && c->busy && c->done; k++)
            for (unsigned x = 0; x < c->key_count; x++)
                c->shown = c->shown || (oid_equal(keys[k].oid, c->keys[x].oid) &&
                                        keys[k].name == c->keys[x].name);
    }
}

int __real_merge_apply(struct merge *m, const struct op *op);
int __wrap_merge_apply(struct merge *m, const struct op *op);
int __wrap_merge_apply(struct merge *m, const struct op *op)
{
    struct lin_key keys[LIN_KEYS];
    unsigned site;
    shard_id_t shard;
    said_count = 0;
    int rc = __real_merge_apply(m, op);
    if (lin == NULL || rc != 0 || !find(m, &site, &shard))
        return rc;
    struct lin_call *c = lin->applying;
    if (c != NULL && op->dot.shard == shard && !c->indexed) {
        c->index = log_last(shard_log(node_shard(node_of(site), shard)));
        c->indexed = true;
    }
    unsigned count = keys_of(op, keys);
    if (lin->applying == NULL)
        meddled(site, keys, count);
    changed(site, shard, keys, has_dirs(op) ? 0 : count);
    return rc;
}

int __real_merge_apply_derived(struct merge *m, struct slice derived);
int __wrap_merge_apply_derived(struct merge *m, struct slice derived);
int __wrap_merge_apply_derived(struct merge *m, struct slice derived)
{
    unsigned site;
    shard_id_t shard;
    said_count = 0;
    int rc = __real_merge_apply_derived(m, derived);
    if (lin != NULL && rc == 0 && find(m, &site, &shard))
        changed(site, shard, NULL, 0);
    return rc;
}

typedef bool (*pinned_fn)(void *ctx, struct oid oid);
uint32_t __real_merge_collect(
    struct merge *m, uint64_t stable_hlc, uint32_t budget, pinned_fn pinned, void *ctx);
uint32_t __wrap_merge_collect(
    struct merge *m, uint64_t stable_hlc, uint32_t budget, pinned_fn pinned, void *ctx);
uint32_t __wrap_merge_collect(
    struct merge *m, uint64_t stable_hlc, uint32_t budget, pinned_fn pinned, void *ctx)
{
    unsigned site;
    shard_id_t shard;
    said_count = 0;
    uint32_t count = __real_merge_collect(m, stable_hlc, budget, pinned, ctx);
    if (lin != NULL && count > 0 && find(m, &site, &shard))
        changed(site, shard, NULL, 0);
    return count;
}

typedef void (*committed_fn)(void *ctx, int rc);
int __real_shard_local(struct shard *s,
                       const struct local_pair *pairs,
                       uint32_t count,
                       committed_fn committed,
                       void *ctx);
int __wrap_shard_local(struct shard *s,
                       const struct local_pair *pairs,
                       uint32_t count,
                       committed_fn committed,
                       void *ctx);
int __wrap_shard_local(struct shard *s,
                       const struct local_pair *pairs,
                       uint32_t count,
                       committed_fn committed,
                       void *ctx)
{
    unsigned site;
    shard_id_t shard;
    said_count = 0;
    int rc = __real_shard_local(s, pairs, count, committed, ctx);
    for (uint32_t i = 0; lin != NULL && rc == 0 && i < count; i++) {
        struct lin_key key = {.name = 0};
        if (pairs[i].key.len != 17 || pairs[i].key.ptr[0] != SHARD_KEY_ORPHAN ||
            !find(shard_merge(s), &site, &shard))
            continue;
        memcpy(key.oid.b, pairs[i].key.ptr + 1, sizeof key.oid.b);
        changed(site, shard, &key, 1);
    }
    return rc;
}

/* The mount that waits for this; NULL: nobody does. */
static struct mount *asker(unsigned site, const struct proposal *p)
{
    for (unsigned i = 0; p->session != 0 && i < lin->w->mount_count; i++) {
        struct mount *m = &lin->w->mounts[i];
        if (m->process->machine.site == site && lin->mounts[i].session == p->session)
            return m;
    }
    return NULL;
}

/* The state may hold this change now. A node that has failed and not ended yet is looked at no
 * more: nobody knows what it removes. */
static void before(struct mount *m, struct lin_call *c, const struct op_builder *b)
{
    const struct op op = {.effects = b->effects, .effect_count = b->count};
    struct lin_key keys[LIN_KEYS];
    unsigned site = m->process->machine.site;
    unsigned count = keys_of(&op, keys);
    c->on_count = 0;
    for (unsigned i = 0; i < count; i++) {
        struct lin_need need = lin_need_of(site, &keys[i]);
        if (need.by != m->number + 1 && !lin_is_durable_at(site, need.shard, need.index))
            c->on[c->on_count++] = need;
    }
    c->blind = c->blind || c->state_count == 0;
    bool can = c->blind;
    const struct lin_state *now = can ? NULL : lin_now(m);
    for (unsigned i = 0; now != NULL && i < now->may_count; i++)
        can = can || now->may[i].rc == 0;
    if (now != NULL && !can && !c->done)
        lin_fail(m, "carried out where it had to fail with %s", err_name(now->may[0].rc));
    if (now != NULL)
        c->victim = now->other;
    c->proposing = true;
    c->indexed = false;
}

static void
after(struct mount *m, struct lin_call *c, const struct proposal *p, const struct op *op)
{
    c->again = c->again || c->done;
    c->done = true;
    c->dot = op->dot;
    c->result = p->result;
    c->key_count = keys_of(op, c->keys);
    c->wide = false;
    for (unsigned i = 0; i < c->key_count; i++)
        c->wide = c->wide || oid_shard(c->keys[i].oid) != op->dot.shard;
    c->order = lin->order;
    c->state_count = 0;
    lin_look(m);
}

int __real_shard_propose(struct shard *s,
                         const struct op_builder *b,
                         const struct proposal *p,
                         struct op *ret_op);
int __wrap_shard_propose(struct shard *s,
                         const struct op_builder *b,
                         const struct proposal *p,
                         struct op *ret_op);
int __wrap_shard_propose(struct shard *s,
                         const struct op_builder *b,
                         const struct proposal *p,
                         struct op *ret_op)
{
    unsigned site;
    shard_id_t shard;
    struct op op;
    if (lin == NULL || p->number == 0 || !find(shard_merge(s), &site, &shard))
        return __real_shard_propose(s, b, p, ret_op);
    struct mount *m = asker(site, p);
    struct lin_mount *lm = m != NULL ? &lin->mounts[m->number] : NULL;
    struct lin_call *c =
        lm != NULL && lm->call.busy && m->req.number == p->number ? &lm->call : NULL;
    if (lm != NULL && c == NULL && p->number <= lm->answered && lin_told_find(m, p->number) == NULL)
        lin_fail(m, "call %llu is carried out after its answer", (unsigned long long)p->number);
    if (c != NULL) {
        before(m, c, b);
        bool calm = disk_calm;
        disk_calm = true;
        if (lin_node(site) != NULL)
            rules_touch(lin->w, lin_node(site), b);
        disk_calm = calm;
    }
    struct dot next = {shard_next_seq(s), lin->w->ids[site], shard};
    lin->applying = c;
    lin->by = m != NULL ? m->number + 1 : 0;
    int rc = __real_shard_propose(s, b, p, &op);
    lin->applying = NULL;
    lin->by = 0;
    if (m != NULL && rc == 0)
        lin_told_made(m, p->number, op.dot, log_last(shard_log(s)));
    if (c != NULL)
        c->proposing = false;
    if (rc == 0 && ret_op != NULL)
        *ret_op = op;
    if (c != NULL && rc == ERR_FATAL) { /* the shard failed: its journal may have it all the same */
        c->maybe = true;
        c->dot = next;
        c->result = p->result;
    }
    if (c != NULL && rc == 0)
        after(m, c, p, &op);
    return rc;
}
