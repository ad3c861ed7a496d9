/* Memory for what is written: buffers of one size that go round. What was given back last goes out
 * first, so that a writer whose bytes are stored as fast as they come stays in memory that is there
 * and that the processor knows, instead of having new pages made and zeroed for all it writes.
 *
 * One for the process; threads: any (a lock of its own, a leaf). */
#ifndef CLIENT_CACHE_PAGES_H
#define CLIENT_CACHE_PAGES_H

#include "base/util.h"

#define PAGES_BYTES 65536u
#define PAGES_KEPT_MAX 512u /* 32 MiB */

uint8_t *pages_get(void);   /* PAGES_BYTES of whatever was there before */
uint8_t *pages_later(void); /* the same, whose memory may be made only when it is written to */
void pages_put(uint8_t *bytes);
/* At most so many wait to be used again (none before this is called); what is too much is freed. */
void pages_limit(size_t count_max);

#endif
