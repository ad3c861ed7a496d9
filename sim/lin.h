/* P1 in directories that all share: is each answer of a site what one moment between call and
 * answer says, and was each change made just once, in between? sim/README.md has the argument.
 *
 * What a site's state is at each moment is read with the engine's own views, right after each
 * change of it (lin_hook.c: the engine's entrances, by the linker's --wrap); what a call has to be
 * answered at such a moment is said a second time, by lin_model.c, without latches, marks, sessions
 * or stored results. So what is checked is all that lies between the engine and a mount.
 *
 * One world at a time; nothing happens while there is none. */
#ifndef SIM_LIN_H
#define SIM_LIN_H

#include "site/proto.h"

struct world;
struct mount;
void lin_new(struct world *w);
void lin_free(void);
/* A call is sent for the first time; is answered, before anything was learnt from that; will never
 * be. */
void lin_begin(const struct mount *m);
void lin_answered(const struct mount *m, const struct fs_reply *r);
void lin_gone(const struct mount *m);
/* What the mount has to forget; all of it: its connection broke. */
void lin_told(const struct mount *m, const struct fs_inval *invals, uint32_t count);
void lin_forget(const struct mount *m);
/* The site is up again. */
void lin_restarted(unsigned site);
/* It is up for the first time as another one (`claudefs site return`), with the others' tree:
 * nobody says what becomes of calls under way, and nothing that was told of is where it was. */
void lin_renewed(unsigned site);
/* For tests: answers since the process began, of changes that were made, and those of which nothing
 * could be said. */
struct lin_stats {
    uint64_t answers, changes, blind;
};
struct lin_stats lin_stats(void);

#endif
