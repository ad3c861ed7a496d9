/* What mounts were answered ahead of the disk (S14), until they know that it is durable: it may go
 * with the node, and then it is made again by the mount, once, as the same. */
#include <string.h>

#include "base/assert.h"
#include "sim/lin_int.h"

static struct lin_mount *of(const struct mount *m)
{
    return lin != NULL ? &lin->mounts[m->number] : NULL;
}

static unsigned site_of(const struct mount *m)
{
    return m->process->machine.site;
}

static void fail(const struct mount *m, uint64_t number, const char *what)
{
    world_fail(lin->w, "P2", "mount %u at %s: call %llu %s", m->number,
               lin->w->config.sites[site_of(m)].name, (unsigned long long)number, what);
}

struct lin_told *lin_told_find(const struct mount *m, uint64_t number)
{
    struct lin_mount *lm = of(m);
    for (unsigned i = 0; lm != NULL && i < lm->told_count; i++)
        if (lm->told[i].number == number)
            return &lm->told[i];
    return NULL;
}

static void forget(struct lin_mount *lm, struct lin_told *t)
{
    lm->told_count--;
    memmove(t, t + 1, (size_t)(lm->told + lm->told_count - t) * sizeof *t);
}

static void remember(struct lin_mount *lm, uint64_t number, const struct lin_call *c)
{
    if (lm->told_count == lm->told_cap) {
        lm->told_cap = 2 * lm->told_cap + 16;
        lm->told = mem_realloc(lm->told, lm->told_cap * sizeof lm->told[0]);
    }
    lm->told[lm->told_count++] = (struct lin_told){
        .number = number, .dot = c->dot, .index = c->index, .result = c->result, .there = true};
}

static bool is_durable(const struct mount *m, const struct lin_told *t)
{
    return t->there && lin_is_durable_at(site_of(m), t->dot.shard, t->index);
}

/* --- the answer --- */

bool lin_may_tell(const struct mount *m, const struct lin_need *need, const struct fs_reply *r)
{
    if (lin_is_durable_at(site_of(m), need->shard, need->index))
        return true;
    bool ahead =
        m->req.ahead && r->rc == 0 && (!lin_is_change(m->type) || (r->flags & REPLY_AHEAD) != 0);
    return ahead && need->by == m->number + 1;
}

/* On top of what another one did, and is not durable, nobody is answered ahead. */
static void ahead_judge(const struct mount *m, const struct lin_call *c)
{
    if (!m->req.ahead)
        lin_fail(m, "answered ahead of the disk, and had not asked for it");
    if (c->wide)
        lin_fail(m, "answered ahead of the disk, and concerns several shards");
    for (unsigned i = 0; i < c->on_count; i++)
        if (!lin_is_durable_at(site_of(m), c->on[i].shard, c->on[i].index))
            lin_fail(m,
                     "answered ahead of the disk, on top of record %llu of shard %u, which is "
                     "another one's and not durable",
                     (unsigned long long)c->on[i].index, c->on[i].shard);
}

void lin_told_answered(const struct mount *m, const struct lin_call *c, const struct fs_reply *r)
{
    struct lin_mount *lm = of(m);
    struct lin_told *t = lin_told_find(m, m->req.number);
    bool durable = lin_is_durable_at(site_of(m), c->dot.shard, c->index);
    if (t != NULL && !oid_equal(t->result, c->result))
        fail(m, t->number, "was answered ahead of the disk, and is made again as something else");
    if ((r->flags & REPLY_AHEAD) == 0) {
        if (!durable)
            lin_fail(m, "answered, and is not durable");
        if (t != NULL)
            forget(lm, t);
        return;
    }
    if (!durable)
        ahead_judge(m, c);
    if (t == NULL)
        remember(lm, m->req.number, c);
}

void lin_told_over(const struct mount *m)
{
    struct lin_told *t = lin_told_find(m, m->req.number);
    if (t != NULL)
        forget(of(m), t);
}

void lin_told_durable(const struct mount *m, uint64_t number)
{
    struct lin_told *t = lin_told_find(m, number);
    if (t == NULL || lin_node(site_of(m)) == NULL)
        return;
    if (!is_durable(m, t))
        fail(m, number, "is told to be durable, and is not");
    lin_tell(site_of(m), t->dot.shard, t->index);
    if (m->ahead.again || m->ahead.behind)
        t->stays = true;
    else
        forget(of(m), t);
}

void lin_all_made_again(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    for (unsigned i = lm == NULL ? 0 : lm->told_count; i > 0; i--)
        if (lm->told[i - 1].stays)
            forget(lm, &lm->told[i - 1]);
}

void lin_synced(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    for (unsigned i = 0; lm != NULL && i < lm->told_count && lin_node(site_of(m)) != NULL; i++) {
        struct lin_told *t = &lm->told[i];
        if (!is_durable(m, t))
            fail(m, t->number, "was answered before a sync was, and is not durable");
        lin_tell(site_of(m), t->dot.shard, t->index);
    }
}

bool lin_is_there(const struct mount *m, uint64_t number)
{
    const struct lin_told *t = lin_told_find(m, number);
    return t != NULL && t->there;
}

bool lin_is_durable(const struct mount *m, uint64_t number)
{
    const struct lin_told *t = lin_told_find(m, number);
    return t != NULL && is_durable(m, t);
}

void lin_forgets_kept(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    if (lm != NULL)
        lm->told_count = 0;
}

/* --- made again --- */

void lin_told_restarted(unsigned site, struct node *n)
{
    for (unsigned i = 0; i < lin->w->mount_count; i++) {
        struct lin_mount *lm = &lin->mounts[i];
        for (unsigned k = 0; k < lm->told_count && site_of(&lin->w->mounts[i]) == site; k++) {
            struct lin_told *t = &lm->told[k];
            t->there = t->there && lin_has_survived(n, t->dot);
        }
    }
}

void lin_told_made(const struct mount *m, uint64_t number, struct dot dot, uint64_t index)
{
    struct lin_mount *lm = of(m);
    struct lin_told *t = lin_told_find(m, number);
    if (lm->has_aside && lm->aside_number == number) { /* the node had it before the rest came */
        lm->aside.done = lm->aside.shown = lm->aside.blind = true;
        lm->aside.dot = dot;
        lm->aside.index = index;
    }
    if (t == NULL)
        return;
    if (t->there)
        fail(m, number, "was answered ahead of the disk, is there, and is made once more");
    t->there = true;
    t->dot = dot;
    t->index = index;
}

void lin_aside(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    if (lm == NULL || !lm->call.busy)
        return;
    lm->aside = lm->call;
    lm->aside_number = m->req.number;
    lm->has_aside = true;
    lm->call.busy = false;
    lin->sites[site_of(m)].busy--;
}

void lin_aside_over(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    if (lm == NULL)
        return;
    if (lm->call.busy)
        lin->sites[site_of(m)].busy--;
    lm->call.busy = false;
    if (!lm->has_aside)
        return;
    lm->has_aside = false;
    lm->call = lm->aside;
    lm->call.state_count = 0;
    lm->call.proposing = false;
    lm->call.shown = lm->call.shown || lm->call.done; /* whatever was done to it meanwhile */
    lin->sites[site_of(m)].busy++;
    lin_look(m);
}

void lin_begin_again(const struct mount *m)
{
    struct lin_mount *lm = of(m);
    const struct lin_told *t = lin_told_find(m, m->req.number);
    lin_begin(m);
    if (lm == NULL || t == NULL || !t->there)
        return;
    struct lin_call *c = &lm->call;
    c->done = c->shown = true;
    c->dot = t->dot;
    c->index = t->index;
    c->result = t->result;
    c->state_count = 0;
    lin_look(m);
}
