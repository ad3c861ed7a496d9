/* What workload.c and real.c share. */
#ifndef SIM_WORKLOAD_INT_H
#define SIM_WORKLOAD_INT_H

#include "sim/opens.h"
#include "sim/workload.h"

static inline uint64_t draw(struct mount *m, uint64_t n)
{
    return rng_below(&m->rng, n);
}
/* The call takes away what is under this name, or replaces it. slot: 0, or 1 when it is sent again.
 */
void workload_dooms(struct mount *m, struct oid parent, struct slice name, unsigned slot);
/* Writes to an open file: what is in m->content, up to len, whose first LEDGER_HEAD_BYTES are the
 * content's number; or, when large, something made of chunks. */
void workload_write(struct mount *m, const struct mount_open *o, size_t len, bool large);
struct slice workload_shared_name(struct mount *m, int which, unsigned wide);

#endif
