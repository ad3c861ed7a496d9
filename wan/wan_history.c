/* Was this site put back to an older state? (A copy of its directory, a restored snapshot of the
 * machine.) It gives the numbers of the lost operations a second time then, and others, who know
 * the first ones, take the second ones for these: the sites differ for ever. So whoever meets a
 * site tells how many of its operations it has, and the stamp of the last one it has applied; the
 * site must have that very operation (W11).
 *
 * Number and stamp, not a count alone, and not a mark of each start: a copy that has issued more
 * than was lost is found as well, and so is a machine that was set back while the daemon ran.
 *
 * A local operation is stamped as its record is, and stamps of records do not fall along a journal,
 * so it is found by halving. Only when it is not where it should be the journal is read through, to
 * the number or beyond: nothing is called a rollback but another operation with that number. What
 * is gone of the journal, every member has acknowledged to this very history. */
#include <stdio.h>

#include "wan/wan_int.h"

#define PROBE_BYTES (64u * KIB)
#define SCAN_BYTES (4u * MIB)

struct seen_item {
    bool got;
    uint64_t index, commit_hlc, stamp_hlc;
    struct dot dot;
};

static bool item_first(void *ctx, const struct feed_item *item)
{
    struct seen_item *s = ctx;
    *s = (struct seen_item){.got = true,
                            .index = item->index,
                            .commit_hlc = item->commit_hlc,
                            .stamp_hlc = item->stamp.hlc,
                            .dot = item->dot};
    return false;
}

/* The first operation in the journal at `from` or behind it, up to `last`; false: it cannot be
 * read, which whoever serves the journal says. */
static bool
item_at(struct node *n, shard_id_t shard, uint64_t from, uint64_t last, struct seen_item *ret)
{
    *ret = (struct seen_item){.got = false};
    while (from <= last && !ret->got)
        if (node_feed_read(n, shard, from, PROBE_BYTES, item_first, ret, &from) != 0)
            return false;
    return true;
}

struct wanted {
    struct dot dot;
    uint64_t hlc;
    bool over, differs;
};

static bool item_compare(void *ctx, const struct feed_item *item)
{
    struct wanted *w = ctx;
    if (item->dot.site != w->dot.site || item->dot.seq < w->dot.seq)
        return true;
    w->over = true; /* what is behind it has higher numbers: then it is gone */
    w->differs = item->dot.seq == w->dot.seq && item->stamp.hlc != w->hlc;
    return false;
}

/* Is there another operation with this number in our journal? */
static bool issued_other(struct node *n, struct dot d, uint64_t hlc)
{
    struct feed_state f;
    struct seen_item at;
    node_feed_state(n, &f);
    uint64_t first = MAX(f.first[d.shard], 1u), last = f.durable[d.shard];
    uint64_t low = first, high = last + 1;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (!item_at(n, d.shard, middle, last, &at))
            return false;
        if (!at.got || at.commit_hlc >= hlc)
            high = middle;
        else
            low = at.index + 1;
    }
    if (!item_at(n, d.shard, low, last, &at) ||
        (at.got && dot_equal(at.dot, d) && at.stamp_hlc == hlc))
        return false;
    struct wanted w = {.dot = d, .hlc = hlc};
    for (uint64_t next = first; next <= last && !w.over;)
        if (node_feed_read(n, d.shard, next, SCAN_BYTES, item_compare, &w, &next) != 0)
            return false;
    return w.differs;
}

bool wan_history_differs(struct wan *w, const struct wan_history *h, char how[WAN_HOW_BYTES])
{
    for (unsigned i = 0; i < w->me.shard_count; i++) {
        struct dot d = {.shard = (shard_id_t)i, .site = w->me.site, .seq = h->theirs[i].seq};
        uint64_t mine = vv_get(&h->vvs[i], w->me.site), have = MAX(h->have[i], d.seq);
        if (have > mine) {
            (void)snprintf(how, WAN_HOW_BYTES,
                           "%llu operations of shard %u, of which %llu are here",
                           (unsigned long long)have, i, (unsigned long long)mine); /* fits */
            return true;
        }
        bool is_last = d.seq == h->mine[i].seq;
        if (d.seq == 0 || (is_last && h->theirs[i].hlc == h->mine[i].hlc) ||
            (!is_last && !issued_other(w->node, d, h->theirs[i].hlc)))
            continue;
        (void)snprintf(how, WAN_HOW_BYTES,
                       "another operation %llu of shard %u than this site, which gave the numbers "
                       "of lost ones again",
                       (unsigned long long)d.seq, i); /* fits */
        return true;
    }
    return false;
}
