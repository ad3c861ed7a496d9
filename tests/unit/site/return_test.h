/* What the tests of coming back share: two sites work apart, or more; what BACK has done is listed,
 * and carried out on the tree of STAYS. Everything asserts that it works. */
#ifndef TESTS_UNIT_SITE_RETURN_TEST_H
#define TESTS_UNIT_SITE_RETURN_TEST_H

#include "site/return_int.h"
#include "tests/unit/site/federation_test.h"

#define STAYS 0u /* the site whose tree it is */
#define BACK 1u  /* the one that comes back */

/* `other` has all that is in the journals of `site`. */
void acknowledge(struct world *w, unsigned site, unsigned other);
/* As if the site that stays had been the other one, and begun with its tree; before the cut is
 * known where there is none. All of the list is carried out. */
void carry_out(struct world *w, const struct unsent *u);
/* The same, with what is in the notes of progress already (or NULL); `look` (or NULL) is called
 * with the directory they are in before each step. */
void carry_out_from(struct world *w,
                    const struct unsent *u,
                    const char *progress,
                    void (*look)(const char *dir));
/* What BACK has is listed and carried out, and it is no more. */
void comes_back(struct world *w);
void rename_in_root(struct node_test *t, struct slice from, const char *to);
struct oid at_path(struct world *w, unsigned site, const char *path); /* none: nothing is there */

#endif
