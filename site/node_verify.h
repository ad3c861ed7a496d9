/* Private to site/: checking that every content is here whole, for fsck. */
#ifndef SITE_NODE_VERIFY_H
#define SITE_NODE_VERIFY_H

#include "site/node_int.h"

struct verify_result {
    uint64_t chunks, bytes; /* checked: each chunk once, plaintext (0 bytes when quick) */
    uint64_t elsewhere;     /* not here; other sites may have them */
    uint64_t repaired;      /* damaged here, fetched from another site */
    uint64_t problems;
};
struct verify_config {
    bool quick;  /* ask only whether they are here; do not read blocks */
    bool repair; /* fetch damaged ones from other sites */
    void (*problem)(void *ctx, const char *what);
    /* Once, on the loop. rc 0: all was looked at, whatever was found; ERR_CLOSED: the node stops;
     * else what kept the check from going on. */
    void (*done)(void *ctx, int rc, const struct verify_result *result);
    void *ctx;
};
/* Loop; config is copied. */
void node_verify(struct node *n, const struct verify_config *config);

#endif
