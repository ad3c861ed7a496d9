/* A directory that only one mount works in: what each call there must answer is known exactly, and
 * so is what must be there in the end, at every site (P1, P2). The neighbour, another mount of the
 * same site, looks names up in it: once a call was answered, everybody at the site sees it (P1). */
#ifndef SIM_PRIVATE_H
#define SIM_PRIVATE_H

#include "site/proto.h"

#define PRIVATE_NAMES 6u

struct mount;
enum private_state {
    PRIVATE_NONE,
    PRIVATE_FILE,
    PRIVATE_UNSURE /* a call on it was never answered */
};
struct private_dir {
    struct oid dir; /* none: not made yet */
    struct {
        enum private_state state;
        struct oid oid; /* none: not known */
    } at[PRIVATE_NAMES];
    uint64_t version; /* grows with each begin and end of a call in it */
    bool rests;       /* its site comes back under a new id, and may not show everything yet */
    /* the call under way */
    bool busy, peek;
    unsigned from, to;
    uint64_t peek_version;
};

/* Draws a call in the mount's own directory, or a look into its neighbour's. */
void private_next(struct mount *m);
/* The answer, NULL: unknown. Writes m->failure when it cannot be. */
void private_done(struct mount *m, const struct fs_reply *r);
/* This change was answered, and may not be there: what it is about is in doubt from now on. False:
 * it is none in the mount's own directory. */
bool private_unsure(struct mount *m, unsigned type, const struct fs_request *q);
/* The site is back: objects may be others, names and what is under them are not. */
struct node;
void private_renew(struct mount *m, struct node *n);
/* After all has converged: is the directory at this node what it must be? False: `what` says. */
bool private_check(const struct mount *m, struct node *n, char what[200]);

#endif
