/* Ways to a site that one has no link to, through others; and a request for a chunk along one. A
 * core.
 *
 * A way names the sites that pass a request on, in order, and ends with the one that it is for. Who
 * asks knows it whole: each site on it takes its own part off and asks the next one, so what is
 * left gets shorter with each step and nothing goes round. */
#ifndef WAN_WAY_H
#define WAN_WAY_H

#include "base/id.h"
#include "data/chunk_id.h"

#define WAY_MAX 8u
struct way {
    uint32_t count;
    site_id_t at[WAY_MAX];
};
bool way_has(const struct way *w, site_id_t site);
static inline bool way_equal(const struct way *a, const struct way *b)
{
    return a->count == b->count && memcmp(a->at, b->at, a->count * sizeof a->at[0]) == 0;
}
static inline site_id_t way_last(const struct way *w) /* of one that is not empty */
{
    return w->at[w->count - 1];
}
/* Along `w` up to the site `over`, which is on it, and from there to `to`. False: it would be too
 * long, or go round. */
bool way_beyond(const struct way *w, site_id_t over, site_id_t to, struct way *ret);

/* What follows "/v1/chunk/": 64 hex digits, and for each site beyond the one that is asked a slash
 * and 8 lower-case hex digits. */
#define WAY_REQUEST_LEN (CHUNK_ID_TEXT_LEN + 9u * WAY_MAX)
/* beyond: may be empty. */
void way_request_print(const struct chunk_id *id,
                       const struct way *beyond,
                       char out[WAY_REQUEST_LEN + 1]);
/* ERR_INVALID: something else, more than WAY_MAX, no site, or one twice. Untouched on failure. */
int way_request_parse(const char *text, struct chunk_id *ret_id, struct way *ret_beyond) MUST_CHECK;

#endif
