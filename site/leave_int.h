/* Private to site/: members that leave (node_leave.c). Thread: loop. */
#ifndef SITE_LEAVE_INT_H
#define SITE_LEAVE_INT_H

#include "base/id.h"

struct node;

struct node_leaving {
    site_id_t sites[SITE_COUNT_MAX]; /* who leaves, or has left; as the members were loaded */
    uint32_t count;
    uint64_t owed;                   /* bits of `sites`: this site has to answer for them */
    bool busy;                       /* limits are being written down, to answer then */
    uint32_t open;                   /* limits that are not durable yet */
    uint64_t index[SHARD_COUNT_MAX]; /* of the journals, once the limits were in them */
    uint64_t known;                  /* of the root's journal, when the members were loaded */
};
_Static_assert(SITE_COUNT_MAX <= 64, "sets of them are bits");

int node_leaves_load(struct node *n);  /* after the members: who leaves, and which cut is known */
void node_leaves_step(struct node *n); /* answers, cuts; later when it cannot now */
bool node_self_leaves(const struct node *n);
bool node_left(struct node *n, site_id_t site); /* and nothing more of it will be taken */
/* By shard, until the members are loaded again; NULL: it is not known. */
const uint64_t *node_cut(const struct node *n, site_id_t site);

#endif
