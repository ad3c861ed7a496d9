/* When has all that was caused here by what is applied now been carried out?
 *
 * A peer's operation may make this site owe repairs; a repair's parts go to other shards, whose
 * derived messages may make the next repair due (rule 4 goes upwards directory by directory). A
 * site acknowledges an operation only with the repairs it owes for it, so whoever tells others how
 * far this site is waits here first (S18).
 *
 * Normal path: a pass notes the last message in each outbox, and ends when those have been
 * delivered and no repair of ours is owed or under way. A pass in which a repair was issued is
 * followed by another; so is one without, until SETTLE_QUIET in a row: messages derived from
 * messages (position, place, unplace) are no repairs, but may make one due. When nothing at all is
 * under way one look is enough. Other work goes on meanwhile and does not hold a pass up: it comes
 * behind the messages that were noted.
 *
 * Failure path: a shard that has failed never settles; the node stops, and who waits goes with it.
 */
#include "base/assert.h"
#include "site/node_int.h"

/* Longest chain of derived messages that no repair is part of: POS, PLACE, UNPLACE; and one. */
#define SETTLE_QUIET 4u

static bool owes_nothing(struct node *n)
{
    if (n->repairs_open > 0)
        return false;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (merge_owes_own(shard_merge(n->shards[i])))
            return false;
    return true;
}

static bool is_quiet(struct node *n)
{
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (!shard_idle(n->shards[i]) || shard_outbox_count(n->shards[i]) > 0)
            return false;
    return true;
}

static void pass_begin(struct node *n)
{
    n->settle.repairs = n->repairs_issued;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        shard_outbox_note(n->shards[i]);
}

static bool pass_is_over(struct node *n)
{
    if (!owes_nothing(n))
        return false;
    for (unsigned i = 0; i < n->settings.shard_count; i++)
        if (!shard_outbox_passed(n->shards[i]))
            return false;
    return true;
}

static void settle_done(struct node *n)
{
    struct node_settle_wait *w = n->settle.running;
    n->settle.running = NULL;
    while (w != NULL) {
        struct node_settle_wait *next = w->next;
        w->run(w);
        w = next;
    }
}

/* Whoever comes while a settling is under way waits for the next one. */
static void settle_begin(struct node *n)
{
    n->settle.running = n->settle.arrived;
    n->settle.arrived = NULL;
    n->settle.quiet_passes = 0;
    pass_begin(n);
}

void node_settle_check(struct node *n)
{
    for (;;) {
        if (n->settle.running == NULL) {
            if (n->settle.arrived == NULL)
                return;
            settle_begin(n);
        }
        if (!pass_is_over(n))
            return;
        bool repaired = n->settle.repairs != n->repairs_issued;
        n->settle.quiet_passes = repaired ? 0 : n->settle.quiet_passes + 1;
        if (is_quiet(n) || n->settle.quiet_passes == SETTLE_QUIET)
            settle_done(n);
        else
            pass_begin(n);
    }
}

static void settle_run(struct loop_defer *d)
{
    struct node *n = CONTAINER_OF(d, struct node, settle.defer);
    if (!n->stopping && !n->broken)
        node_settle_check(n);
}

void node_settle_later(struct node *n)
{
    if (n->settle.running != NULL || n->settle.arrived != NULL)
        loop_defer(n->loop, &n->settle.defer);
}

void node_settle_init(struct node *n)
{
    n->settle.defer.run = settle_run;
}

void node_settled(struct node *n, struct node_settle_wait *w)
{
    struct node_settle_wait **at = &n->settle.arrived;
    ASSERT(w->run != NULL);
    while (*at != NULL)
        at = &(*at)->next;
    w->next = NULL;
    *at = w;
    loop_defer(n->loop, &n->settle.defer);
}
