/* Another site as far as its chunks go: what a node fetches from. */
#ifndef TESTS_UNIT_SITE_ELSEWHERE_H
#define TESTS_UNIT_SITE_ELSEWHERE_H

#include "data/chunk.h"
#include "tests/unit/site/node_test.h"

struct elsewhere { /* zeroed has nothing */
    struct chunk_id id[8];
    struct buf sealed[8];
    unsigned count;
    int rc;           /* of all fetches; 0: by what there is */
    unsigned fetched; /* asked for */
    unsigned without; /* one more than the chunk that it has lost; 0: none */
};
/* A file of two blocks whose chunks it has: the blocks, and their node. */
struct content elsewhere_make(struct node_test *t, struct elsewhere *e);
/* For node_set_fetcher; answers at once. */
void elsewhere_fetch(void *fctx, const uint8_t id[32], chunk_got_cb cb, void *cctx);
void elsewhere_deinit(struct elsewhere *e);

#endif
