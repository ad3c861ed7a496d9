/* One node and its targets: where chunks must lie, told without the code that places them.
 *
 * By the header of data/placement.h the domains of a chunk come in the order of a race: each has a
 * random time that is the shorter the more weight lies in it, and of the targets of a domain each
 * is the one by its share of that weight. What share of all chunks a target holds is worked out
 * from that, over all orders, with no hash, logarithm or sorting. See spread.h. */
#include "sim/spread_int.h"

#define CORE_CHUNKS 1500u
#define SETS (1u << SPREAD_TARGETS)

/* ---- shares ---- */

struct domains {
    unsigned count;
    uint32_t masks[SPREAD_TARGETS];
    double weights[SPREAD_TARGETS], total;
};

static void domains_of(const struct spread *w, uint32_t list, struct domains *ret)
{
    *ret = (struct domains){0};
    for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
        unsigned d = 0;
        if ((list & 1u << i) == 0)
            continue;
        while (d < ret->count &&
               w->targets[__builtin_ctz(ret->masks[d])].is.domain != w->targets[i].is.domain)
            d++;
        ret->count += d == ret->count;
        ret->masks[d] |= 1u << i;
        ret->weights[d] += w->targets[i].is.weight;
        ret->total += w->targets[i].is.weight;
    }
}

/* How likely it is that a domain is among the first `width` of the race. */
static void domain_shares(const struct domains *d, unsigned width, double ret[SPREAD_TARGETS])
{
    static double sets[SETS]; /* that just these are the first ones */
    memset(sets, 0, sizeof sets);
    memset(ret, 0, SPREAD_TARGETS * sizeof ret[0]);
    sets[0] = 1;
    for (uint32_t set = 0; set < 1u << d->count; set++) {
        double left = d->total;
        for (unsigned i = 0; i < d->count; i++)
            left -= (set & 1u << i) != 0 ? d->weights[i] : 0;
        for (unsigned i = 0; i < d->count; i++) {
            if (spread_bits(set) == width)
                ret[i] += (set & 1u << i) != 0 ? sets[set] : 0;
            else if (spread_bits(set) < width && (set & 1u << i) == 0)
                sets[set | 1u << i] += sets[set] * d->weights[i] / left;
        }
    }
}

/* Six standard deviations, and a few chunks that were on their way. */
static bool share_fits(uint32_t held, uint32_t all, double share)
{
    double off = (double)held - all * share;
    off = (off < 0 ? -off : off) - 5;
    return off <= 0 || off * off <= 36 * all * share * (1 - share);
}

static void check_shares(struct spread *w,
                         const char *what,
                         uint32_t list,
                         unsigned width,
                         const uint32_t held[SPREAD_TARGETS],
                         uint32_t all)
{
    struct domains d;
    double shares[SPREAD_TARGETS];
    domains_of(w, list, &d);
    domain_shares(&d, width, shares);
    for (unsigned k = 0; k < d.count; k++)
        for (unsigned i = 0; i < SPREAD_TARGETS; i++) {
            double share = shares[k] * w->targets[i].is.weight / d.weights[k];
            if ((d.masks[k] & 1u << i) != 0 && !share_fits(held[i], all, share))
                spread_fail(w, "placement",
                            "%s: target %u of weight %u holds %u of %u, its share is %.1f", what, i,
                            w->targets[i].is.weight, held[i], all, all * share);
        }
}

/* ---- what moves ---- */

/* One list came after the other, and no or one target is the difference. */
static void check_moved(struct spread *w,
                        const char *what,
                        uint32_t chunk,
                        uint32_t list_before,
                        uint32_t before,
                        uint32_t list,
                        uint32_t after)
{
    uint32_t gone = list_before & ~list, come = list & ~list_before;
    bool right = true;
    if (spread_bits(gone | come) > 1)
        return;
    if ((gone | come) == 0)
        right = before == after;
    else if (come != 0) /* to who came, and to nobody else */
        right = (after & ~before & ~come) == 0;
    else if ((before & gone) == 0) /* who went did not hold it */
        right = (after & ~before) == 0;
    else /* what others held stays there */
        right = (before & ~gone & ~after) == 0;
    if (!right)
        spread_fail(w, "placement", "%s %u moves from %x to %x as targets %x become %x", what,
                    chunk, before, after, list_before, list);
}

/* ---- chunks in stores ---- */

void spread_check_put(struct spread *w, uint32_t chunk, uint32_t list, uint32_t mask)
{
    struct spread_chunk *c = &w->chunks[chunk];
    unsigned width = spread_width(w, list);
    mask &= list;
    if (!c->live)
        return;
    if (spread_domains(w, mask) < width)
        spread_fail(w, "placement", "chunk %u was put, and lies in %u domains of %u: %x of %x",
                    chunk, spread_domains(w, mask), width, mask, list);
    if (spread_bits(mask) == width) {
        c->where = mask;
        c->where_list = list;
    }
}

/* Its put was answered when all copies were durable: there must be a reason. */
void spread_check_missing(struct spread *w, uint32_t chunk)
{
    const struct spread_chunk *c = &w->chunks[chunk];
    if (c->live && !c->damaged && c->put_moves == w->moves && c->put_rots == w->rots)
        spread_fail(w, "placement", "chunk %u was put, and is not in its place on %x", chunk,
                    w->now);
}

void spread_check_counted(struct spread *w)
{
    uint32_t held[SPREAD_TARGETS] = {0}, all = 0;
    unsigned width = spread_width(w, w->now);
    for (uint32_t n = 0; n < w->count; n++) {
        struct spread_chunk *c = &w->chunks[n];
        if (!c->counts || !c->live)
            continue;
        if (spread_domains(w, c->seen) != width || spread_bits(c->seen) != width)
            spread_fail(w, "placement",
                        "chunk %u lies on %u targets in %u domains, expected %u: %x of %x", n,
                        spread_bits(c->seen), spread_domains(w, c->seen), width, c->seen, w->now);
        if (c->where_list != 0)
            check_moved(w, "chunk", n, c->where_list, c->where, w->now, c->seen);
        c->where = c->seen;
        c->where_list = w->now;
        all++;
        for (unsigned i = 0; i < SPREAD_TARGETS; i++)
            held[i] += (c->seen >> i) & 1;
    }
    check_shares(w, "in stores", w->now, width, held, all);
}

/* ---- the core alone ---- */

/* What lists are to give of a redundancy: parts of a chunk, and domains that may be lost. */
static void expected(const struct redundancy *wanted,
                     unsigned domains,
                     unsigned *ret_width,
                     unsigned *ret_losses)
{
    unsigned most = wanted->k > 1 ? wanted->m : wanted->copies - 1u;
    *ret_width = MIN(wanted->k > 1 ? wanted->k + wanted->m : wanted->copies, domains);
    *ret_losses = MIN(most, domains - 1);
}

static uint32_t pick(struct spread *w,
                     uint32_t list,
                     const struct redundancy *r,
                     const struct chunk_id *id,
                     bool backwards)
{
    struct target targets[SPREAD_TARGETS], turned[SPREAD_TARGETS];
    unsigned at[SPREAD_TARGETS], count = spread_bits(list);
    uint32_t idx[PLACEMENT_WIDTH_MAX], mask = 0;
    spread_list_of(w, list, targets, at);
    for (unsigned i = 0; i < count; i++)
        turned[count - 1 - i] = targets[i];
    int rc = placement_pick(backwards ? turned : targets, count, r, id, idx);
    if (rc != 0)
        spread_fail(w, "placement", "no places on %x: %s", list, err_name(rc));
    for (unsigned i = 0; rc == 0 && i < redundancy_width(r); i++)
        mask |= 1u << at[backwards ? count - 1 - idx[i] : idx[i]];
    return mask;
}

static void
check_core_with(struct spread *w, const struct redundancy *wanted, uint32_t before, uint32_t now)
{
    unsigned domains = spread_domains(w, now), width, losses;
    struct redundancy r = redundancy_fit(*wanted, domains);
    struct redundancy r_before = redundancy_fit(*wanted, spread_domains(w, before));
    uint32_t held[SPREAD_TARGETS] = {0};
    expected(wanted, domains, &width, &losses);
    if (redundancy_width(&r) != width || redundancy_losses(&r) != losses)
        spread_fail(w, "placement", "%u domains: %u parts of which %u may be lost, not %u and %u",
                    domains, redundancy_width(&r), redundancy_losses(&r), width, losses);
    for (uint32_t n = 0; n < CORE_CHUNKS && spread_good(w); n++) {
        struct chunk_id id;
        for (unsigned i = 0; i < CHUNK_ID_BYTES; i++)
            id.b[i] = (uint8_t)spread_below(256);
        uint32_t mask = pick(w, now, &r, &id, false);
        if (mask != pick(w, now, &r, &id, true))
            spread_fail(w, "placement", "the order of targets makes a difference");
        /* Each in a domain of its own: with any `losses` of them gone enough are left. */
        if (spread_bits(mask) != width || spread_domains(w, mask) != width || r.k > width - losses)
            spread_fail(w, "placement", "%u parts, %u needed, lie on %x in %u domains", width, r.k,
                        mask, spread_domains(w, mask));
        check_moved(w, "id", n, before, pick(w, before, &r_before, &id, false), now, mask);
        for (unsigned i = 0; i < SPREAD_TARGETS; i++)
            held[i] += (mask >> i) & 1;
    }
    if (spread_good(w))
        check_shares(w, "by the core", now, width, held, CORE_CHUNKS);
}

void spread_check_core(struct spread *w, uint32_t before, uint32_t now)
{
    const struct redundancy copies = {.k = 1, .copies = (uint8_t)w->copies};
    const struct redundancy parts = REDUNDANCY_WANTED;
    check_core_with(w, &copies, before, now);
    check_core_with(w, &parts, before, now);
}
