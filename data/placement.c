/* Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in Schindelhauer and
 * Schomaker 2005): the target with the lowest -log(hash) / weight wins. In integers, so that all
 * sites and compilers agree to the last bit. */
#include "data/placement.h"

#include "base/assert.h"
#include "base/plant.h"

#define FRACTION_BITS 24u

__extension__ typedef unsigned __int128 uint128;

int redundancy_validate(const struct redundancy *r)
{
    if (r->k == 0 || r->copies == 0 || redundancy_width(r) > PLACEMENT_WIDTH_MAX)
        return ERR_CONFIG;
    if (r->k == 1 ? r->m != 0 : r->m == 0 || r->copies != 1)
        return ERR_CONFIG;
    return 0;
}

unsigned redundancy_width(const struct redundancy *r)
{
    return r->k > 1 ? (unsigned)r->k + r->m : r->copies;
}

unsigned redundancy_losses(const struct redundancy *r)
{
    return r->k > 1 ? r->m : r->copies - 1u;
}

struct redundancy redundancy_fit(struct redundancy wanted, unsigned domains)
{
    struct redundancy r = wanted;
    if (domains >= redundancy_width(&wanted))
        return r;
    unsigned losses = redundancy_losses(&wanted);
    if (wanted.k > 1 && domains >= losses + 2) {
        r.k = (uint8_t)(domains - losses);
        return r;
    }
    unsigned copies = MAX(1, MIN(losses + 1, domains));
    return (struct redundancy){.k = 1, .m = 0, .copies = (uint8_t)copies};
}

unsigned placement_domains(const struct target *targets, size_t count)
{
    unsigned domains = 0;
    for (size_t i = 0; i < count; i++) {
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++)
            seen = targets[j].domain == targets[i].domain;
        domains += !seen;
    }
    return domains;
}

static uint64_t mix(uint64_t x) /* the finisher of splitmix64 */
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t hash_of(const struct chunk_id *id, uint64_t target)
{
    uint64_t h = mix(target);
    for (unsigned i = 0; i < CHUNK_ID_BYTES; i += 8) {
        uint64_t word = 0;
        for (unsigned j = 0; j < 8; j++)
            word |= (uint64_t)id->b[i + j] << (8 * j);
        h = mix(h ^ word);
    }
    return h;
}

/* -log2(h / 2^64) with FRACTION_BITS bits of fraction: the bits of the logarithm come one by one
 * from squaring the mantissa. */
static uint64_t neg_log2(uint64_t h)
{
    if (h == 0)
        h = 1;
    unsigned top = 63u - (unsigned)__builtin_clzll(h);
    uint64_t mantissa = h << (63 - top); /* [1, 2) with 63 bits of fraction */
    uint64_t log = (uint64_t)top << FRACTION_BITS;
    for (unsigned bit = FRACTION_BITS; bit-- > 0;) {
        uint128 square = (uint128)mantissa * mantissa; /* [1, 4), 126 bits of fraction */
        if (square >> 127 != 0) {
            log |= (uint64_t)1 << bit;
            mantissa = (uint64_t)(square >> 64);
        } else {
            mantissa = (uint64_t)(square >> 63);
        }
    }
    return ((uint64_t)64 << FRACTION_BITS) - log;
}

struct candidate {
    uint64_t cost; /* -log2 of the hash */
    uint32_t idx;
    uint32_t used; /* parts that its domain holds already */
    bool taken;
};

static bool
better(const struct target *targets, const struct candidate *a, const struct candidate *b)
{
    if (a->used != b->used && !PLANTED(131))
        return a->used < b->used;
    uint128 x = (uint128)a->cost * (PLANTED(132) ? 1 : targets[b->idx].weight);
    uint128 y = (uint128)b->cost * (PLANTED(132) ? 1 : targets[a->idx].weight);
    if (x != y)
        return x < y;
    return targets[a->idx].id < targets[b->idx].id;
}

int placement_pick(const struct target *targets,
                   size_t count,
                   const struct redundancy *r,
                   const struct chunk_id *id,
                   uint32_t ret_idx[PLACEMENT_WIDTH_MAX])
{
    unsigned width = redundancy_width(r);
    if (redundancy_validate(r) != 0 || width > count || count > UINT32_MAX)
        return ERR_INVALID;
    if (count == 1) {
        ret_idx[0] = 0;
        return 0;
    }
    struct candidate *all = mem_alloc(count * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        ASSERT(targets[i].weight > 0);
        uint64_t by = PLANTED(133) ? i : targets[i].id;
        all[i] = (struct candidate){.cost = neg_log2(hash_of(id, by)), .idx = (uint32_t)i};
    }
    for (unsigned part = 0; part < width; part++) {
        struct candidate *best = NULL;
        for (size_t i = 0; i < count; i++) {
            if (!all[i].taken && (best == NULL || better(targets, &all[i], best)))
                best = &all[i];
        }
        best->taken = true;
        ret_idx[part] = best->idx;
        for (size_t i = 0; i < count; i++)
            all[i].used += targets[i].domain == targets[best->idx].domain;
    }
    mem_free(all);
    return 0;
}
