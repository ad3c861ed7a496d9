/* Always a tree, at every moment (P6): when an event is over, each directory in which the engine
 * says that a name shows otherwise now is looked at: for two equal names in it, and for its way up
 * to the root. What no event touches stays as it was. */
#include <stdio.h>
#include <string.h>

#include "sim/tree.h"
#include "sim/opens.h"
#include "sim/world_int.h"
#include "site/call.h"

#define TOUCHED_MAX 64u
#define PENDING_MAX 32u
#define PENDING_NS (2 * NS_PER_SEC)

static struct touch {
    struct world *w; /* NULL: nobody looks */
    struct {
        const struct node *node;
        struct oid dir;
    } at[TOUCHED_MAX];
    unsigned count; /* beyond TOUCHED_MAX: not all are known, and the whole tree is looked at */
    struct {        /* ways that end nowhere while messages between shards are under way */
        unsigned site;
        struct oid dir;
        uint64_t since_ns;
    } pending[PENDING_MAX];
    unsigned pending_count;
} touch;

void touch_begin(struct world *w)
{
    memset(&touch, 0, sizeof touch);
    touch.w = w;
}

void touch_note(const struct node *n, struct oid dir)
{
    if (touch.w == NULL || touch.count > TOUCHED_MAX)
        return;
    for (unsigned i = 0; i < touch.count; i++)
        if (touch.at[i].node == n && oid_equal(touch.at[i].dir, dir))
            return;
    if (touch.count < TOUCHED_MAX) {
        touch.at[touch.count].node = n;
        touch.at[touch.count].dir = dir;
    }
    touch.count++;
}

void touch_content(const struct node *n, struct oid oid)
{
    for (unsigned i = 0; touch.w != NULL && i < touch.w->mount_count; i++)
        if (touch.w->mounts[i].process->node == n)
            opens_changed(&touch.w->mounts[i], oid);
}

struct names {
    struct buf last;
    bool twice;
};

static bool name_next(void *ctx, struct slice visible, const struct shown *s)
{
    struct names *l = ctx;
    (void)s;
    l->twice = l->last.len > 0 && slice_equal(buf_slice(&l->last), visible);
    if (l->twice)
        return false;
    buf_clear(&l->last);
    buf_append(&l->last, visible.ptr, visible.len);
    return true;
}

static void names_look(struct world *w, unsigned site, struct oid dir)
{
    struct names l = {.twice = false};
    struct node *n = w->sites[site].node;
    int rc = merge_list(merge_of(n, dir), dir, slice_of(NULL, 0), name_next, &l);
    if (rc == 0 && l.twice)
        world_fail(w, "P6", "site %s: two objects under one name, %.*s, for a moment at least",
                   w->config.sites[site].name, (int)MIN(l.last.len, 120u),
                   (const char *)l.last.ptr);
    buf_deinit(&l.last);
}

static void cycle_fail(struct world *w, unsigned site, struct oid dir)
{
    char text[OID_TEXT_LEN + 1];
    oid_to_text(dir, text);
    world_fail(w, "P6", "site %s: directory %s does not lead to the root, for a moment at least",
               w->config.sites[site].name, text);
}

/* The positions of several directories that one late move changes are told to their shards one
 * after the other; until the last is told they need not fit together. */
static void way_look(struct world *w, unsigned site, struct oid dir)
{
    if (tree_leads_up(w->sites[site].node, dir))
        return;
    if (world_parts(w, site) == 0) {
        cycle_fail(w, site, dir);
        return;
    }
    for (unsigned i = 0; i < touch.pending_count; i++)
        if (touch.pending[i].site == site && oid_equal(touch.pending[i].dir, dir))
            return;
    if (touch.pending_count < PENDING_MAX) {
        touch.pending[touch.pending_count].site = site;
        touch.pending[touch.pending_count].dir = dir;
        touch.pending[touch.pending_count++].since_ns = sched->now_ns;
    }
}

static void pending_look(struct world *w)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < touch.pending_count; i++) {
        unsigned site = touch.pending[i].site;
        if (!world_may_look(w, site) || tree_leads_up(w->sites[site].node, touch.pending[i].dir))
            continue;
        bool late = sched->now_ns - touch.pending[i].since_ns > PENDING_NS;
        if (world_parts(w, site) == 0 || (late && !world_parts_held(w, site)))
            cycle_fail(w, site, touch.pending[i].dir);
        touch.pending[kept++] = touch.pending[i];
    }
    touch.pending_count = kept;
}

static void all_look(struct world *w)
{
    char what[200] = "";
    struct oid twice;
    for (unsigned i = 0; i < w->config.site_count; i++)
        if (world_may_look(w, i) && !tree_shape(w->sites[i].node, what, &twice))
            world_fail(w, "P6", "site %s: %s", w->config.sites[i].name, what);
}

void touch_look(struct world *w)
{
    bool calm = disk_calm;
    if (touch.w != w || (touch.count == 0 && touch.pending_count == 0))
        return;
    disk_calm = true;
    if (touch.count > TOUCHED_MAX)
        all_look(w);
    for (unsigned i = 0; i < touch.count && i < TOUCHED_MAX; i++)
        for (unsigned k = 0; k < w->config.site_count; k++)
            if (w->sites[k].node == touch.at[i].node && world_may_look(w, k)) {
                names_look(w, k, touch.at[i].dir);
                way_look(w, k, touch.at[i].dir);
            }
    pending_look(w);
    touch.count = 0;
    disk_calm = calm;
}
