/* Private to site/posix_*.c. */
#ifndef SITE_POSIX_INT_H
#define SITE_POSIX_INT_H

#include "site/call.h"

/* The permission register as it shows now; slices kept by the call. */
int posix_perm(struct call *c, struct oid oid, struct perm *ret, struct dot *ret_version);
/* A register of the object and of its twins (posix_touch first). */
void posix_set(struct call *c,
               struct oid oid,
               uint8_t class,
               struct slice suffix,
               bool present,
               struct slice value);
void posix_set_perm(struct call *c, struct oid oid, struct perm *p, struct dot version);
/* Nobody keeps set-id bits and capabilities. */
void posix_kill_setid(struct perm *p);
/* Changes `p` as a SETATTR does; true when there was something to change. */
bool posix_change_perm(struct call *c, struct oid oid, struct perm *p, const struct fs_set *s);
void posix_set_times(struct call *c, struct oid oid, const struct fs_set *s);
/* The permission register of an object that the operation makes. */
void posix_perm_effect(struct call *c, struct oid oid, const struct perm *p);
/* The directory's modification time becomes the operation's. */
void posix_mtime(struct call *c, struct oid dir);
/* Finds the object's twins and settles its contested names (rule 6): before any change by oid. */
int posix_touch(struct call *c, struct oid oid);
/* A new version on top of `base`; twins leave (rule 6). Files without a name get it as an orphan,
 * in a local record: nothing is added to the builder then. */
int posix_new_version(struct call *c,
                      struct oid oid,
                      const struct content *content,
                      int64_t mtime_ns,
                      struct dot base);

#endif
