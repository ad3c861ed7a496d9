/* A site comes back under a new site id: one that was given up because it was away for too long, or
 * one that was rolled back to an older state. Whatever it has done that nobody else has is kept in
 * a list, the others' tree takes the place of its own, and the list is carried out on that (state
 * merge, section 7 of the design). wan/ talks to the others; this is the site's part. */
#ifndef SITE_NODE_RETURN_H
#define SITE_NODE_RETURN_H

#include "site/node.h"

/* Before node_open, by whoever serves the directory: does what node_return_go left to be done while
 * nobody uses the site. No effect when nothing was. */
int node_return_prepare(const struct node_config *config, struct err_detail *d) MUST_CHECK;

/* Draws the id to come back with when this member is asked, durably; the same again until the site
 * is back, somebody else is asked, or that id is known as one that has left as well (`another`).
 * Who does not answer may have let it in: were it the same that another one lets in then, it would
 * have two pasts. ERR_BUSY: it is on its way already. Loop. */
int node_return_id(struct node *n,
                   bool rolled_back,
                   bool another,
                   site_id_t asked,
                   site_id_t *ret_id,
                   struct err_detail *d) MUST_CHECK;
/* The others have taken the new id in: from the next start on the site is that one. Durable when it
 * returns; then node_run ends, and the caller closes the node, prepares and opens it again. Loop.
 */
int node_return_go(struct node *n, struct err_detail *d) MUST_CHECK;
bool node_wants_reopen(const struct node *n); /* after node_run */
/* It has a list to carry out, or to keep until it has the others' tree. Loop. */
bool node_is_returning(const struct node *n);

#endif
