/* Sites that are away for longer than journals are kept, and their operators: whoever finds in the
 * status of his site that it is no member any more types `claudefs site return`. Only in worlds
 * with a limit on journals (world_config.journal_age_s). */
#ifndef SIM_AWAY_H
#define SIM_AWAY_H

#include "base/util.h"

struct world;
void away_begin(struct world *w); /* operators look from now on, once a second */
void away_free(struct world *w);
/* Nobody reaches the site and it nobody, for so long, whatever else heals. */
void away_cut(struct world *w, unsigned site, uint64_t for_ns);
bool away_is_cut(const struct world *w, unsigned a, unsigned b);
/* The daemon of this site has ended to be opened anew, or was just about to: closes it as `claudefs
 * serve` does, or kills it, and has it started. False: it has not. */
bool away_reopens(struct world *w, unsigned site);
void away_started(struct world *w, unsigned site); /* is it another site now? */
/* Why not all are members and back, and *ret_site; NULL: they are. */
const char *away_unrest(const struct world *w, unsigned *ret_site);
void away_check(struct world *w); /* in the end: nothing of a return is left over */

#endif
