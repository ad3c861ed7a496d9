/* Operations that the node issues by itself: repairs (rules 2, 3, 4), and the renames that make the
 * name of a directory final which lost a contested one (rule 6). */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "site/node_int.h"

#define REPAIRS_PER_TURN 256u

static unsigned member_rank(struct node *n)
{
    unsigned rank = 1;
    for (uint32_t i = 0; i < n->member_count; i++)
        if (n->members[i].m.status == 0 && n->members[i].m.site < n->settings.site)
            rank++;
    return rank;
}

static void repair_committed(void *ctx, int rc)
{
    struct node *n = ctx;
    (void)rc; /* a shard that fails stops the node */
    n->repairs_open--;
}

/* Repairs for one shard; true when there may be more. */
static bool repair_shard(struct node *n, struct shard *s, uint32_t *budget)
{
    if (!merge_owes(shard_merge(s)))
        return false;
    for (; *budget > 0; --*budget) {
        int rc = shard_repair(s, member_rank(n), repair_committed, n);
        if (rc == 0)
            return false;
        if (rc < 0) {
            log_warn(LOG_SITE, "repair_not_written", "shard=%u why=\"%s\"", shard_id(s),
                     err_text(rc));
            return false; /* the tick tries again */
        }
        n->repairs_pending++;
        n->repairs_issued++;
        n->repairs_open++;
    }
    return true;
}

void node_repairs_run(struct loop_defer *d)
{
    struct node *n = CONTAINER_OF(d, struct node, repair_defer);
    uint32_t budget = REPAIRS_PER_TURN;
    bool more = false;
    if (n->stopping || n->broken)
        return;
    n->repairs_pending = 0;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        more = repair_shard(n, n->shards[i], &budget) || more;
    /* A repair in one shard may make another due elsewhere (rule 4 goes upwards). */
    if (more || n->repairs_pending > 0)
        loop_defer(n->loop, &n->repair_defer);
    node_settle_later(n);
    node_inval_flush(n, NULL);
}

void node_repairs_later(struct node *n)
{
    loop_defer(n->loop, &n->repair_defer);
}

struct settling {
    struct call *waiter;
    struct call *self;
};

static void settled(void *ctx, int rc)
{
    struct settling *s = ctx;
    struct call *waiter = s->waiter, *self = s->self;
    (void)rc; /* the waiting request evaluates again and finds out */
    mem_free(s);
    node_call_finish(self);
    node_run_later(waiter->n, waiter);
}

/* Moves `dir`, a loser under a contested name of `parent`, to the name it shows, by an operation of
 * shard 0; the call is evaluated again afterwards. */
int node_settle_dir(struct call *c, struct oid parent, struct oid dir, struct slice name)
{
    struct shard *zero = node_shard(c->n, 0);
    struct call *own = node_call_new(c->n, 0);
    struct settling *s = mem_calloc(1, sizeof *s);
    struct effect *e = op_builder_add(&own->b, EFFECT_MOVE, dir);
    e->parent = parent;
    e->name = op_dup(&own->b.arena, name);
    build_saw(shard_merge(zero), &own->b, e);
    int rc = call_need_name(c, zero, OID_ROOT, slice_str("*rename"));
    if (rc == 0)
        rc = call_lineage(c, &own->b, dir, parent, e);
    s->waiter = c;
    s->self = own;
    struct proposal p = {.committed = settled, .ctx = s};
    if (rc == 0)
        rc = shard_propose(zero, &own->b, &p, NULL);
    if (rc != 0) {
        mem_free(s);
        node_call_finish(own);
        return rc;
    }
    return CALL_PARKED;
}
