/* Files that a simulated mount has open. It writes to no others, as the kernel does; what loses its
 * last name meanwhile stays as it is and can be written to until it is closed (P1), also when the
 * node dies and the mount tells the next one what it has open. */
#ifndef SIM_OPENS_H
#define SIM_OPENS_H

#include "site/proto.h"

struct mount;
struct mount_open;
/* NULL: it has not. */
struct mount_open *opens_find(struct mount *m, struct oid oid);
bool opens_has(const struct mount *m, struct oid oid);
bool opens_room(const struct mount *m); /* for one more */
/* Calls: fill in type and request. There must be room; it must be open. One close may be of
 * several.
 */
void opens_open(struct mount *m, struct oid oid);
void opens_close(struct mount *m, struct oid oid);
/* The answer to the call under way, whatever it was: learns what is open, and what of it was
 * written; fails the mount (P1) when it says that an open file is gone. */
void opens_learn(struct mount *m, const struct fs_reply *r);
/* The session is over, and all that it held. */
void opens_gone(struct mount *m);
/* Joined again: tells a node that has started since. True: this was the answer to that. */
void opens_tell(struct mount *m);
bool opens_answered(struct mount *m, uint64_t id, int32_t rc);
/* The node says that the file shows another content: if what this mount wrote is not there any more
 * that may be right (it had a name since, S25, between two looks). Nobody says so of what is lost.
 */
void opens_changed(struct mount *m, struct oid oid);
/* A request that was answered ahead of the disk was made again, with this answer; it cannot be. */
void opens_made_again(struct mount *m, const struct fs_reply *r);
void opens_lost(struct mount *m, unsigned type, struct oid oid);
/* Is there what was written to open files without a name? False: `what` says what is not. */
bool opens_check(struct mount *m, char what[200]);

#endif
