/* Every content that is made of chunks has come to every site by itself, for all of them are small
 * enough to be wanted there; and is read there, as its people would: from its own store, else from
 * another site (P2, P8). */
#include <string.h>

#include "sim/tree.h"
#include "sim/world_int.h"
#include "site/call.h"

#define READ_NS (60 * NS_PER_SEC) /* for one */
#define AGAIN_NS (NS_PER_SEC / 2)
#define COMES_NS (200 * NS_PER_SEC) /* a fetch is tried again after 64 s at the latest */

struct reading {
    struct world *w;
    struct content *at; /* each once */
    size_t count, cap;
    bool done;
    int rc;
    const struct large_row *row;
    bool right;
};

static void add(void *ctx, struct oid oid, const struct content *c)
{
    struct reading *r = ctx;
    (void)oid;
    if (c->kind != CONTENT_MANIFEST)
        return;
    for (size_t i = 0; i < r->count; i++)
        if (content_equal(&r->at[i], c))
            return;
    if (r->count == r->cap) {
        r->cap = r->cap * 2 + 64;
        r->at = mem_realloc(r->at, r->cap * sizeof r->at[0]);
    }
    r->at[r->count++] = *c;
}

static void got(void *ctx, int rc, struct slice bytes)
{
    struct reading *r = ctx;
    r->rc = rc;
    r->right = rc == 0 && large_is(r->row, bytes);
    r->done = true;
}

/* A site that is gone, or whose disk changed by itself, may have had the only copy. */
static bool may_be_lost(struct world *w, uint64_t number)
{
    const struct ledger_entry *e = ledger_get(&w->ledger, number);
    return !world_counts(w, e->site) || w->rotten[e->site];
}

static void read_once(struct reading *r, unsigned site, const struct content *c, uint64_t until)
{
    struct node *n = r->w->sites[site].node;
    r->done = false;
    node_content_read(n, c, LARGE_BYTES_MAX, got, r);
    loop_kick(node_loop(n));
    while (!r->done && r->w->failure[0] == '\0' && sched_step(until))
        continue;
}

/* All may have come by a relay, and who has the content be dialled again in a moment only. */
static void read_one(struct reading *r, unsigned site, const struct content *c)
{
    struct world *w = r->w;
    uint64_t until = sched->now_ns + READ_NS;
    r->row = large_find(&w->ledger.large, c->root);
    if (r->row == NULL) {
        world_fail(w, "P5", "site %s shows a content that nobody wrote",
                   w->config.sites[site].name);
        return;
    }
    read_once(r, site, c, until);
    while (r->done && r->rc == ERR_UNREACHABLE && !may_be_lost(w, r->row->number) &&
           sched->now_ns + AGAIN_NS < until && w->failure[0] == '\0') {
        uint64_t next = sched->now_ns + AGAIN_NS;
        while (sched_step(next))
            continue;
        read_once(r, site, c, until);
    }
    if (!r->done || (r->rc != 0 && !may_be_lost(w, r->row->number)))
        world_fail(w, "P2", "content %llu cannot be read at site %s: %s",
                   (unsigned long long)r->row->number, w->config.sites[site].name,
                   r->done ? err_name(r->rc) : "no answer");
    else if (r->rc == 0 && !r->right)
        world_fail(w, "P8", "content %llu is read wrong at site %s",
                   (unsigned long long)r->row->number, w->config.sites[site].name);
}

/* ---- has it come? ---- */

static void chunk_got(void *ctx, int rc, struct buf *sealed)
{
    struct reading *r = ctx;
    (void)sealed;
    r->rc = rc;
    r->done = true;
}

static bool is_here(struct reading *r, unsigned site, uint64_t until)
{
    struct node *n = r->w->sites[site].node;
    for (size_t i = 0; i < r->row->ids.count; i++) {
        r->done = false;
        node_chunk_get_local(n, r->row->ids.at[i].b, chunk_got, r);
        loop_kick(node_loop(n));
        while (!r->done && r->w->failure[0] == '\0' && sched_step(until))
            continue;
        if (!r->done || r->rc != 0)
            return false;
    }
    return true;
}

static void comes_one(struct reading *r, unsigned site, const struct content *c, uint64_t until)
{
    struct world *w = r->w;
    r->row = large_find(&w->ledger.large, c->root);
    if (r->row == NULL || may_be_lost(w, r->row->number))
        return; /* nobody wrote it: said by who reads it */
    while (!is_here(r, site, until + READ_NS) && w->failure[0] == '\0') {
        if (sched->now_ns >= until) {
            world_fail(w, "chunks", "content %llu has not come to site %s",
                       (unsigned long long)r->row->number, w->config.sites[site].name);
            return;
        }
        uint64_t next = sched->now_ns + AGAIN_NS;
        while (sched_step(next))
            continue;
    }
}

static void comes_all(struct world *w, struct reading *r)
{
    uint64_t until = sched->now_ns + COMES_NS;
    for (unsigned i = 0; i < w->config.site_count && w->ledger.large.count > 0; i++) {
        *r = (struct reading){.w = w};
        if (!world_counts(w, i))
            continue;
        tree_contents(w->sites[i].node, add, r);
        for (size_t k = 0; k < r->count && w->failure[0] == '\0'; k++)
            comes_one(r, i, &r->at[k], until);
        mem_free(r->at);
        if (w->failure[0] != '\0')
            break;
    }
}

void world_read_all(struct world *w)
{
    if (w->reading == NULL)
        w->reading = mem_calloc(1, sizeof *w->reading);
    struct reading *r = w->reading;
    comes_all(w, r);
    for (unsigned i = 0; i < w->config.site_count && w->ledger.large.count > 0; i++) {
        *r = (struct reading){.w = w};
        if (!world_counts(w, i))
            continue;
        tree_contents(w->sites[i].node, add, r);
        for (size_t k = 0; k < r->count && w->failure[0] == '\0'; k++)
            read_one(r, i, &r->at[k]);
        mem_free(r->at);
        if (w->failure[0] != '\0')
            break;
    }
}
