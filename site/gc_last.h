/* Private to site/: DIR/garbage, what a run that has ended in order hands on to the next one of its
 * garbage passes (data/gc.h). Core. Little endian: magic 4 | epoch 8 | age 8 | FNV-1a of these 8.
 */
#ifndef SITE_GC_LAST_H
#define SITE_GC_LAST_H

#include "base/buf.h"

#define GC_LAST_FILE "garbage"
#define GC_LAST_BYTES 28u
struct gc_last_pass {
    uint64_t epoch;  /* of the last pass that ended; not 0 */
    uint64_t age_ns; /* from its beginning to the end of the run: time in which daemons ran */
};
void gc_last_encode(const struct gc_last_pass *p, struct buf *out);
bool gc_last_decode(struct slice bytes, struct gc_last_pass *ret);

#endif
