/* Garbage collection of chunks: mark and sweep by epochs, never reference counts.
 *
 * A pass: gc_begin() takes the store's next epoch; every content that is referred to (versions,
 * forks, snapshots, open files) is marked; then unmarked chunks are swept. A chunk goes only if
 *  - this pass did not mark it, and
 *  - it was last put (or kept, store_has.keep) before the PREVIOUS pass began.
 * So what was put and not yet referred to has a full pass to get its operation committed. A run
 * that ended in order hands its last pass on to the next one (gc_last, gc_resume). After a crash
 * keeps may be forgotten, but none was after the start: there the start is the previous pass (D7).
 * And a pass may take more when the owner knows that all who had put something have committed it
 * (gc_settled).
 * The owner marks also every content that becomes referred to while a pass runs (an operation
 * applied, a file opened), with gc_mark_start at that moment: a clone may refer to old chunks.
 *
 * Marks of blocks are a Bloom filter sized by the number of chunks: memory is bounded, and a false
 * positive only keeps a chunk until the next pass, which uses another seed. Nodes are kept exactly,
 * because a marked node's subtree is not walked again.
 *
 * Core: no I/O; nodes come through a node_cache as in data/manifest.h. Threads: one, but for
 * gc_keeps, which any thread may call while nothing is being marked. */
#ifndef DATA_GC_H
#define DATA_GC_H

#include "data/manifest.h"

struct gc;
int gc_new(struct gc **ret) MUST_CHECK;
void gc_free(struct gc *g);

/* Begins a pass: `epoch` from store_epoch_advance(), `chunks` from store_stats(); now_ns monotone.
 * ERR_AGAIN when the last pass began less than interval_ns ago (what was put must have had that
 * long to be referred to). ERR_BUSY while a pass runs. */
int gc_begin(struct gc *g, uint64_t epoch, uint64_t chunks, uint64_t now_ns, uint64_t interval_ns)
    MUST_CHECK;
/* One more, that somebody has asked for, whenever the last was. It takes what a pass at its time
 * might take, and is none to those that follow: what was put gets its interval all the same. */
int gc_begin_extra(struct gc *g,
                   uint64_t epoch,
                   uint64_t chunks,
                   uint64_t now_ns,
                   uint64_t interval_ns) MUST_CHECK;
bool gc_running(const struct gc *g);

/* The last pass that ended: its epoch, and when it began. False: there was none. */
bool gc_last(const struct gc *g, uint64_t *ret_epoch, uint64_t *ret_begun_ns);
/* Before the first pass: the last one of the run before, in this run's time; or the start of this
 * run, which all that was put or kept in other runs came before. */
void gc_resume(struct gc *g, uint64_t epoch, uint64_t begun_ns);
/* While a pass runs: what was put or kept before this epoch, and is to be referred to, is. The
 * pass's own epoch at most. */
void gc_settled(struct gc *g, uint64_t before);
void gc_mark(struct gc *g, const struct chunk_id *id);

/* Blocks (not nodes) of manifests that were marked for the first time in this pass, about: the
 * filter may take a new one for an old one. */
uint64_t gc_marked_blocks(const struct gc *g);

/* Marks all chunks of a manifest. ERR_AGAIN with `missing`: fetch, node_cache_put, call again (with
 * the same cursor, which starts zeroed); each call does a bounded amount of work and returns
 * ERR_AGAIN with nothing missing when there is more to do. A node that is not here cannot be
 * walked: the owner fetches it from a peer, or calls gc_cancel. */
struct gc_cursor {
    uint64_t block;
};
int gc_mark_manifest(struct gc *g,
                     struct node_cache *c,
                     const struct manifest *m,
                     struct gc_cursor *cursor,
                     struct chunk_ids *missing) MUST_CHECK;

/* All is marked: the value for store_sweep.before; chunks with that epoch or later survive. 0 in
 * the first pass of a run: there is nothing to sweep. */
uint64_t gc_sweep_before(const struct gc *g);
bool gc_keeps(const struct gc *g, const struct chunk_id *id); /* store_sweep.keep */
void gc_end(struct gc *g);                                    /* the sweep is done */
void gc_cancel(struct gc *g); /* without a sweep; does not count as a pass */

#endif
