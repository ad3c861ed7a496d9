/* The operator of the sites: commands to running nodes, as `claudefs` gives them. */
#ifndef SIM_OPERATOR_H
#define SIM_OPERATOR_H

#include "sim/rpc_sim.h"
#include "site/proto.h"

/* One command; zeroed but for `done`. */
struct ask {
    struct rpc_peer peer;
    struct fs_request req; /* private; borrows the JSON */
    bool answered;
    int rc; /* of the answer; ERR_CLOSED: the node went */
    struct buf answer;
    void (*done)(struct ask *a); /* once; or NULL */
};
/* False: nothing listens there. The JSON lives until ask_end(). */
bool ask_begin(struct ask *a, struct machine *m, const char *json);
/* The text under `key` in a good answer; mem_free. */
char *ask_value(const struct ask *a, const char *key);
void ask_end(struct ask *a); /* also if it is not answered: then it never is */

/* What takes several commands, and is tried again until it is done: a site joins by the invitation
 * of another, a site is removed by another. */
struct world;
void errand_join(struct world *w, unsigned site, unsigned by);
void errand_remove(struct world *w, unsigned site, unsigned by);
bool errands_done(const struct world *w);
void errands_free(struct world *w);

#endif
