/* The reference model of the conflict rules, written a second time: the specification
 * (tests/vectors/merge_model.py) in C, as a checker. It is fed every operation of every site,
 * sorts them by stamp, and says what tree they make: what all sites must show. Plain lists, no
 * shards, no arrival orders, nothing incremental. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "journal/op.h"

struct model;
struct model *model_new(void);
void model_free(struct model *m);
/* One operation, encoded; known ones are passed over. */
void model_add(struct model *m, struct slice op);
/* The tree as lines "path oid hash", names in order. site_name as in the product's configuration.
 */
void model_tree(struct model *m,
                const char *(*site_name)(void *ctx, site_id_t site),
                void *ctx,
                struct buf *out);

#endif
