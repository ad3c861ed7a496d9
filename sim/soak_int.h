/* Drawing a world: what soak.c and soak_faults.c share. */
#ifndef SIM_SOAK_INT_H
#define SIM_SOAK_INT_H

#include "sim/soak.h"

struct draw {
    struct rng rng;
    struct world_config *c;
    uint64_t work_ns; /* about how long the work will take */
};

static inline uint64_t draw_below(struct draw *d, uint64_t n)
{
    return rng_below(&d->rng, n);
}
void draw_event(struct draw *d, struct world_event e);
void soak_step_draw(struct draw *d); /* WORLD_STEP, at any site and time */
/* Adds the faults of these kinds (enum soak_faults). Each kind draws for itself, so what else there
 * is in the world of a seed does not depend on it. */
void soak_faults_draw(uint64_t seed, unsigned kinds, uint64_t work_ns, struct world_config *c);
#define SOAK_FAULTS_TEXT                                                                           \
    "all, or some of eio, full, rot, lose, remove, join, chunks, space, crowd, away, short, "      \
    "line, tight, step, clock, ahead, as in eio,full"
/* "eio,full" -> enum soak_faults; false: there is no such kind. */
bool soak_faults_parse(const char *text, unsigned *ret);
void soak_faults_print(unsigned kinds); /* as it is parsed */

#endif
