/* A place for nodes in memory, for tests: sealed chunks by id, and the loop that fetches what an
 * operation lacks. */
#ifndef TESTS_MANIFEST_DISK_H
#define TESTS_MANIFEST_DISK_H

#include "data/manifest.h"

struct manifest_disk {
    struct id_map chunks; /* id -> index into sealed */
    struct buf *sealed;
    size_t count, cap;
    struct pipeline *p;
    struct node_cache *cache;
    struct chunk_ids missing;
    uint64_t fetched;
    unsigned rounds; /* of fetching, by the last operation */
};
void disk_init(struct manifest_disk *d);
void disk_deinit(struct manifest_disk *d);
int disk_put(void *ctx, const struct chunk_id *id, struct slice sealed); /* manifest_put_fn */
/* False when nothing was missing, and the operation is to be tried no more. */
bool disk_fetch(struct manifest_disk *d);
/* Calls `expr` until it lacks nothing. */
#define DISK_RUN(d, rc, expr)                                                                      \
    do {                                                                                           \
        (d)->rounds = 0;                                                                           \
        while (((rc) = (expr)) == ERR_AGAIN && disk_fetch(d))                                      \
            (d)->rounds++;                                                                         \
    } while (0)

#endif
