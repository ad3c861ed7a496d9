/* Checkers of rules that neither names nor contents show: of each operation that is committed (7:
 * the same mkdir is one directory; repairs are made by those whose turn it is), of each call (6: a
 * name that was contested is final when somebody has touched it), and of the state in the end (9:
 * set-id bits). And the clock of a site, which follows nobody who is far ahead. */
#include <string.h>
#include <sys/stat.h>

#include "base/hlc.h"
#include "sim/tree.h"
#include "sim/world_int.h"
#include "site/call.h"

#define TAKE_OVER_MS 30000u /* the first of the others waits so long */
#define AHEAD_MS 600000u    /* a stamp further ahead is held */
#define AHEAD_SLACK_MS 3000u

struct made { /* a birth: the constants of a directory */
    struct oid oid, parent;
    uint64_t name;
    uint32_t gen, uid, gid;
    uint16_t mode;
};
struct rights { /* the register of a file that counts */
    struct oid oid;
    struct stamp stamp;
    bool setuid, tie;
    struct dot seen;
};
struct rules {
    site_id_t ids[WORLD_SITES_MAX];    /* in the beginning */
    uint64_t wall_ms[WORLD_SITES_MAX]; /* the latest that its clock has shown */
    struct made *made;
    struct rights *rights;
    size_t made_count, rights_count;
};

void rules_begin(struct world *w)
{
    w->rules = mem_calloc(1, sizeof *w->rules);
    memcpy(w->rules->ids, w->ids, sizeof w->rules->ids);
}

void rules_free(struct world *w)
{
    struct rules *r = w->rules;
    if (r == NULL)
        return;
    mem_free(r->made);
    mem_free(r->rights);
    mem_free(r);
    w->rules = NULL;
}

/* Room for one more in an array that grows by doubling from nothing. */
static void *grow(void *array, size_t count, size_t size)
{
    if ((count & (count - 1)) != 0)
        return array;
    return mem_realloc(array, (count == 0 ? 1 : 2 * count) * size);
}

/* --- each operation --- */

/* Rule 7: an oid is made of the constants. */
static void birth_see(struct world *w, const struct birth *b)
{
    struct rules *r = w->rules;
    const struct made m = {.oid = b->oid,
                           .parent = b->parent,
                           .name = fnv1a(b->name),
                           .gen = b->gen,
                           .uid = b->uid,
                           .gid = b->gid,
                           .mode = b->mode};
    for (size_t i = 0; i < r->made_count; i++) {
        const struct made *o = &r->made[i];
        if (oid_equal(o->oid, m.oid))
            return;
        if (o->name == m.name && o->gen == m.gen && o->uid == m.uid && o->gid == m.gid &&
            o->mode == m.mode && oid_equal(o->parent, m.parent))
            world_fail(w, "rules",
                       "7: the same mkdir of \"%.*s\" at two sites made two directories",
                       (int)MIN(b->name.len, 40u), (const char *)b->name.ptr);
    }
    r->made = grow(r->made, r->made_count, sizeof m);
    r->made[r->made_count++] = m;
}

/* A repair of what another site owes comes after it has had its time. Stamps tell: what is owed is
 * known since a stamp that is not below that of the loser. */
static void fork_see(struct world *w, const struct op *op, const struct effect *e)
{
    uint64_t loser_ms = hlc_ms(e->loser_stamp.hlc), now_ms = hlc_ms(op->stamp.hlc);
    if (op->dot.site != e->loser.site && now_ms < loser_ms + TAKE_OVER_MS)
        world_fail(w, "rules",
                   "a version is forked by another site than its writer's, %llu ms after it",
                   (unsigned long long)(now_ms - MIN(now_ms, loser_ms)));
}

static void rights_see(struct rules *r, struct oid oid, const struct reg *reg, struct stamp stamp)
{
    struct perm p = {0};
    size_t i = 0;
    if (reg->key.len != 1 || reg->key.ptr[0] != REG_PERM || oid_is_dir(oid) ||
        (reg->present && perm_decode(reg->value, &p) != 0))
        return;
    while (i < r->rights_count && !oid_equal(r->rights[i].oid, oid))
        i++;
    if (i == r->rights_count) {
        r->rights = grow(r->rights, i, sizeof r->rights[0]);
        r->rights[r->rights_count++] = (struct rights){.oid = oid};
    }
    int order = stamp_cmp(stamp, r->rights[i].stamp);
    if (order > 0)
        r->rights[i] = (struct rights){
            .oid = oid, .stamp = stamp, .setuid = (p.mode & S_ISUID) != 0, .seen = p.setid_seen};
    /* Then values decide: of two shards of a site, or the same one again. */
    r->rights[i].tie = order == 0;
}

void rules_add(struct world *w, struct slice bytes)
{
    struct op_arena arena = {0};
    struct op op;
    if (w->rules == NULL || op_decode(bytes, &arena, &op) != 0)
        return; /* said elsewhere */
    for (uint32_t i = 0; i < op.effect_count; i++) {
        const struct effect *e = &op.effects[i];
        if (e->kind == EFFECT_BIRTH)
            birth_see(w, &e->birth);
        else if (e->kind == EFFECT_FORK)
            fork_see(w, &op, e);
        else if (e->kind == EFFECT_SET)
            rights_see(w->rules, e->oid, &e->set, op.stamp);
        for (uint32_t k = 0; e->kind == EFFECT_FORK && k < e->reg_count; k++)
            if (!oid_is_none(e->to))
                rights_see(w->rules, e->to, &e->regs[k], e->regs[k].stamp);
    }
    op_arena_deinit(&arena);
}

/* --- contested names --- */

struct touched {
    const struct op_builder *b;
    const struct effect *leave;
    bool stays; /* a loser of that name */
};

static bool loser(void *ctx, struct slice visible, const struct shown *s)
{
    struct touched *t = ctx;
    bool leaves = !s->derived || oid_is_dir(s->oid) || !slice_equal(s->stored, t->leave->name);
    (void)visible;
    for (uint32_t i = 0; i < t->b->count && !leaves; i++) {
        const struct effect *e = &t->b->effects[i];
        leaves = e->kind == EFFECT_LEAVE && oid_equal(e->oid, s->oid) &&
                 oid_equal(e->parent, t->leave->parent) && slice_equal(e->name, s->stored);
    }
    t->stays = !leaves;
    return leaves;
}

/* Rule 6: whoever touches a contested name makes it final. Directories do it apart. */
void rules_touch(struct world *w, struct node *n, const struct op_builder *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        struct touched t = {.b = b, .leave = &b->effects[i]};
        if (t.leave->kind != EFFECT_LEAVE)
            continue;
        struct merge *m = merge_of(n, t.leave->parent);
        if (merge_list(m, t.leave->parent, slice_of(NULL, 0), loser, &t) == 0 && t.stays)
            world_fail(w, "rules", "6: a call leaves the contested name \"%.*s\" to a loser",
                       (int)MIN(t.leave->name.len, 40u), (const char *)t.leave->name.ptr);
    }
}

/* --- set-id bits --- */

struct setids {
    struct world *w;
    struct node *n;
};

static void setid_check(void *ctx, struct oid oid, const struct content *content)
{
    struct setids *s = ctx;
    const struct rules *r = s->w->rules;
    struct fs_attr a;
    size_t i = 0;
    (void)content;
    while (i < r->rights_count && !oid_equal(r->rights[i].oid, oid))
        i++;
    if (i == r->rights_count || r->rights[i].tie || attr_get(s->n, oid, &a) != 0)
        return;
    const struct rights *x = &r->rights[i];
    bool holds = x->setuid && (dot_is_none(x->seen) || dot_equal(x->seen, a.version));
    if (holds != ((a.mode & S_ISUID) != 0))
        world_fail(s->w, "rules", "9: a file shows mode %o, and its set-user-id bit %s", a.mode,
                   holds ? "was set for this content" : "was set for another content, or not");
}

void rules_rights(struct world *w)
{
    struct setids s = {.w = w, .n = w->sites[0].node};
    if (w->rules != NULL)
        tree_contents(s.n, setid_check, &s);
}

/* --- clocks --- */

void rules_clock(struct world *w, unsigned site)
{
    const struct process *p = &w->sites[site];
    struct rules *r = w->rules;
    uint64_t ms = p->clock.wall_ns(p->clock.ctx) / NS_PER_MS;
    r->wall_ms[site] = MAX(r->wall_ms[site], ms);
    if (!process_serves(p) || !w->joined[site] || w->config.sites[site].joins_late ||
        w->ids[site] != r->ids[site])
        return; /* a snapshot brings stamps as they are */
    uint64_t stamp = hlc_ms(node_hlc_now(p->node));
    if (stamp > r->wall_ms[site] + AHEAD_MS + AHEAD_SLACK_MS)
        world_fail(w, "clock", "site %s follows stamps that are %.1f s ahead of its clock",
                   w->config.sites[site].name, (double)(stamp - r->wall_ms[site]) / 1e3);
}
