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
/* ---- of mounts whose changes are answered ahead of the disk (sim/ahead.h) ---- */
/* The call under way is put aside while what went with the node is made again: each as a call. */
void lin_aside(const struct mount *m);
void lin_aside_over(const struct mount *m);
void lin_begin_again(const struct mount *m);
bool lin_is_there(const struct mount *m, uint64_t number);
bool lin_is_durable(const struct mount *m, uint64_t number);
void lin_told_durable(const struct mount *m, uint64_t number); /* the mount was */
/* All that a mount kept was sent again and answered. */
void lin_all_made_again(const struct mount *m);
/* A sync was answered, or the commit of an fsync: all that was told before has to be durable. */
void lin_synced(const struct mount *m);
void lin_forgets_kept(const struct mount *m); /* the mount died */
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
