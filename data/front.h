/* The chunk stores of a node as their users see them: one address, however many targets.
 *
 * Which targets hold a chunk is placement's to say (data/placement.h): a put goes to all of them, a
 * get asks them best first, has means that every one of them holds it. With one target and one copy
 * all is handed straight on. The requests are those of data/store.h, with the same laws. Parts of
 * an erasure code lie on different nodes and are not made here: k is 1. Garbage, scrub and
 * compaction are each store's own. Threads: the loop's. */
#ifndef DATA_FRONT_H
#define DATA_FRONT_H

#include "data/placement.h"
#include "data/store.h"

struct front;
struct front_target {
    struct target target;
    struct store *store; /* borrowed, all on one loop; outlives the front */
};

/* targets are copied. ERR_INVALID: fewer targets than copies; ERR_NOT_SUPPORTED: k > 1. */
int front_new(struct front **ret,
              const struct front_target *targets,
              size_t count,
              const struct redundancy *r) MUST_CHECK;
void front_free(struct front *f); /* accepts NULL; nothing is under way */

/* done once all copies are durable; else with the first failure. */
int front_put(struct front *f, struct store_put *put) MUST_CHECK;
/* From the first target that has it whole; else the gravest of what they said: ERR_IO, ERR_CORRUPT,
 * ERR_NOT_FOUND. */
int front_get(struct front *f, struct store_get *get) MUST_CHECK;
int front_has(struct front *f, struct store_has *has) MUST_CHECK;

#endif
