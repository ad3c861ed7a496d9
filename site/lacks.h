/* What policy wants at this site (eager, pinned) and is not all here: node_bring.c brings it. */
#ifndef SITE_LACKS_H
#define SITE_LACKS_H

#include "site/node.h"

struct node_lacks {
    bool known;        /* all was looked at; else there may be more */
    uint64_t contents; /* of which something is not here */
    uint64_t bytes;    /* of them that are not here, as far as is known */
};
void node_lacks(const struct node *n, struct node_lacks *ret); /* loop */
/* A peer can be asked for chunks again: what could not be brought is tried at once. Any. */
void node_link_up(struct node *n);

#endif
