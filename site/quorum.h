/* Private to site/: who may give members up for all the others. Core: no I/O, any thread.
 *
 * A federation whose links are cut may fall into parts, and of two parts at most one may give
 * members of the other up: else each takes nothing more from the other, and both are right. As long
 * as all know the same members a majority does it. But one part may have let somebody in, or out,
 * of whom the other has not heard; each could then have most of the members that it knows.
 *
 * So a member counts for a part only when it is *established*: every member has said that it knows
 * it (node_entry.c). Who is not established counts when it is missing, and so
 * does who leaves, until all who remain have said that they know that. What a part has is then a
 * majority of its established members, of all its members, and of every set between; and a member
 * that is established in one part is known in the other. So both have a majority of the members
 * that are established in either, and two majorities of one set have a member in common (README.md,
 * "Members that are away", has the argument, and what it takes for granted). */
#ifndef SITE_QUORUM_H
#define SITE_QUORUM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/id.h"

struct quorum_member {
    site_id_t site;
    bool reached;   /* it is this site, or there is contact with it */
    bool leaves;    /* it was given up or removed */
    uint64_t knows; /* a bit for the place of each member that it has said it knows */
    uint64_t gone;  /* the same, of those that it has said it knows to leave */
};

/* Is the member in place `i` of `count` (64 at most) known to all who do not leave? */
bool quorum_is_established(const struct quorum_member *at, uint32_t count, uint32_t i);
/* Are those that are reached a majority, or a half with the lowest id? */
bool quorum_is_reached(const struct quorum_member *at, uint32_t count);

#endif
