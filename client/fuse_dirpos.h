/* Positions in a directory that is being read: the site lists "after a name", readdir(3) seeks to
 * numbers. A handle numbers entries in the order it got them, and remembers, page by page, after
 * which name the page began, so that any number handed out can be found again (telldir, seekdir)
 * with one name kept per page. Pure; under the handle's lock. */
#ifndef CLIENT_FUSE_DIRPOS_H
#define CLIENT_FUSE_DIRPOS_H

#include "base/util.h"

struct dirpos_page {
    uint64_t first; /* number of its first entry */
    char *after;    /* the name it comes after; "" at the start; owned */
};
struct dirpos {
    struct dirpos_page *pages; /* ascending; zeroed is empty: only the start is known */
    size_t count, cap;
};
void dirpos_deinit(struct dirpos *d);
void dirpos_clear(struct dirpos *d); /* from the start again */
/* The page [first, first + n) was read; its last name is `last`: a next one begins there. */
void dirpos_add(struct dirpos *d, uint64_t first, uint32_t n, struct slice last);
/* Where to start reading to reach entry `number`: *ret_first <= number, and the name to list after.
 * Numbers never handed out lead to the last page known. */
const char *dirpos_find(const struct dirpos *d, uint64_t number, uint64_t *ret_first);

#endif
