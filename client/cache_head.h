/* Heads of sealed chunks by the chunk's id: where the parts are, for readers of a little here and
 * there; and how much of each chunk was read in that way. Bounded; what is pushed out is asked for
 * again. Threads: any. */
#ifndef CLIENT_CACHE_HEAD_H
#define CLIENT_CACHE_HEAD_H

#include "data/chunk.h"

struct head_cache;
struct head_cache *head_cache_new(void);
void head_cache_free(struct head_cache *c); /* accepts NULL */
bool head_cache_get(struct head_cache *c, const struct chunk_id *id, struct chunk_head *ret);
void head_cache_put(struct head_cache *c, const struct chunk_id *id, const struct chunk_head *h);
void head_cache_drop(struct head_cache *c, const struct chunk_id *id);
/* `parts` more are to be fetched of it; true when so many were that the whole is to be preferred.
 */
bool head_cache_often(struct head_cache *c, const struct chunk_id *id, uint32_t parts);

#endif
