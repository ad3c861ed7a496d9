/* How long journals are kept for a member that does not fetch them: the rules. A core; what they
 * are asked with comes from node_retain.c. */
#ifndef SITE_RETAIN_H
#define SITE_RETAIN_H

#include "base/util.h"

#define RETAIN_NO_LIMIT UINT64_MAX

struct retain_limits {
    uint64_t age_ms; /* RETAIN_NO_LIMIT: however old */
    uint64_t bytes;  /* RETAIN_NO_LIMIT: however much */
};
struct retain_backlog {  /* what a member lacks */
    uint64_t age_ms;     /* since the oldest operation of it was committed here */
    uint64_t silence_ms; /* since the last proof that the member lives */
    uint64_t bytes;      /* of journal, from that operation on */
};
/* Until a limit is reached, at the rate at which the journal has grown; 0: one is, and
 * RETAIN_NO_LIMIT: none applies. The age counts from the later of the two, so that neither a
 * member that lives on other ways nor a quiet federation runs out of time. */
uint64_t retain_left_ms(const struct retain_limits *limits, const struct retain_backlog *b);
/* How long a site must have reached most others, and not the one that is to be given up: half the
 * age, an hour at most. Words that show that a site lives are given twice as often. */
uint64_t retain_hold_ms(const struct retain_limits *limits);

#endif
