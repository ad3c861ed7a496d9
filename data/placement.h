/* Which targets hold a chunk: weighted rendezvous hashing with failure domains.
 *
 * Every holder of the target list computes the same answer; there is no table to lose. When a
 * target goes, only the chunks it held move, and they spread over all others; when one comes, it
 * takes its share from all. Redundancy is a parameter: k data parts and m parity parts (erasure
 * code), or `copies` whole copies when k is 1. Core; integers only. Threads: any; pure. */
#ifndef DATA_PLACEMENT_H
#define DATA_PLACEMENT_H

#include "base/err.h"
#include "data/chunk_id.h"

#define PLACEMENT_WIDTH_MAX 32u /* parts of one chunk */

struct redundancy {
    uint8_t k;      /* data parts; 1 = whole copies */
    uint8_t m;      /* parity parts; 0 when k is 1 */
    uint8_t copies; /* whole copies; 1 when k > 1 */
};
#define REDUNDANCY_SINGLE ((struct redundancy){.k = 1, .m = 0, .copies = 1})
/* What a site aims at when its nodes can carry it (docs/ARCHITECTURE.md). */
#define REDUNDANCY_WANTED ((struct redundancy){.k = 4, .m = 2, .copies = 1})
int redundancy_validate(const struct redundancy *r) MUST_CHECK; /* ERR_CONFIG */
unsigned redundancy_width(const struct redundancy *r);          /* targets per chunk */
unsigned redundancy_losses(const struct redundancy *r);         /* domains that may be lost */

struct target {
    uint64_t id;     /* random, for life */
    uint64_t domain; /* failure domain: the node's id, a rack's, ... */
    uint32_t weight; /* capacity in any unit, > 0 */
};
/* What `domains` failure domains can carry of `wanted`: the same if there are enough; else m stays
 * as high as possible and k shrinks; at two or three domains whole copies; at one a single copy. */
struct redundancy redundancy_fit(struct redundancy wanted, unsigned domains);
unsigned placement_domains(const struct target *targets, size_t count);

/* The targets of a chunk, best first: part i lives on targets[ret_idx[i]]. Parts go to distinct
 * domains while there are any left, and never twice to one target. ERR_INVALID when there are
 * fewer targets than redundancy_width() (see redundancy_fit). The order of `targets` is of no
 * consequence. */
int placement_pick(const struct target *targets,
                   size_t count,
                   const struct redundancy *r,
                   const struct chunk_id *id,
                   uint32_t ret_idx[PLACEMENT_WIDTH_MAX]) MUST_CHECK;

#endif
