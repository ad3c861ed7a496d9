/* What a site shows, walked at one moment through the engine's views: for comparing sites (P4) and
 * for checking that it is a tree (P6). */
#ifndef SIM_TREE_H
#define SIM_TREE_H

#include "base/buf.h"
#include "site/node.h"

/* One line a path, sorted as the site lists them. false: it is no tree, `what` says why. */
bool tree_walk(struct node *n, struct buf *text, char what[200]);
/* The same without the text, and that a directory is in two places does not count: it is in
 * *ret_twice (or nothing is), its second path in `what`. */
bool tree_shape(struct node *n, char what[200], struct oid *ret_twice);
/* Up from a directory to the root, or to something that is not there. */
bool tree_leads_up(struct node *n, struct oid dir);
/* Is a directory its own ancestor (P6)? `what` says which. */
bool tree_has_cycle(struct node *n, unsigned shards, char what[200]);
/* One line a name: path, oid, a hash of what stands for the content (0: a directory). */
void tree_line(struct buf *out, struct slice path, struct oid oid, struct slice content);
/* What a site shows, in such lines: for the reference model. */
void tree_oids(struct node *n, struct buf *out);
/* Calls fn with the content of every file that can be reached, once a name. */
void tree_contents(struct node *n,
                   void (*fn)(void *ctx, struct oid oid, const struct content *content),
                   void *ctx);

#endif
