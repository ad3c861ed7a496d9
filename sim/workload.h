/* What mounts do: draws the next call, learns from its answer, keeps the ledger. */
#ifndef SIM_WORKLOAD_H
#define SIM_WORKLOAD_H

#include "sim/mount.h"

/* Fills in type and request (slices may lie in the mount's own buffers). */
void workload_next(struct mount *m);
/* The same call is sent again: what it may do away with may have changed. */
void workload_again(struct mount *m);
/* r NULL: the outcome of the call will never be known. */
void workload_done(struct mount *m, const struct fs_reply *r);

#endif
