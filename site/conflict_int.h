/* Private to site/: the conflict log as an operator sees it. */
#ifndef SITE_CONFLICT_INT_H
#define SITE_CONFLICT_INT_H

#include "site/admin_int.h"

/* The engine's callbacks must not call into it: copies are made first. */
struct conflict_list {
    struct op_arena arena;
    struct conflict *at; /* newest first */
    size_t count;
};
int conflict_load(struct node *n, struct conflict_list *ret) MUST_CHECK; /* unload also on error */
void conflict_unload(struct conflict_list *l);
const struct conflict *conflict_find(const struct conflict_list *l, const char *id);
void conflict_id_text(const uint8_t id[8], char out[17]);
/* How many are not resolved; it stops counting at max. */
uint32_t conflict_open_count(struct node *n, uint32_t max);
/* By hand, or because what came later settled it. */
bool conflict_is_resolved(struct node *n, const struct conflict *c);

/* One of the two sides as it is now. */
enum conflict_role {
    CONFLICT_KEPT,  /* has the name, or its edit won */
    CONFLICT_OTHER, /* was given another name, or lost */
    CONFLICT_ROLES
};
struct conflict_side {
    struct oid oid; /* none: this side is a removal, or not known */
    site_id_t site;
    struct stamp stamp;
    bool is_there; /* oid has a name: parent and name are set */
    struct oid parent;
    struct buf name; /* as users see it */
};
void conflict_sides(struct node *n, const struct conflict *c, struct conflict_side ret[2]);
void conflict_sides_deinit(struct conflict_side sides[2]);

/* node_resolve.c: what was decided by hand, a record of shard 0 that outlives restarts. NULL:
 * nothing. */
json_t *resolution_get(struct node *n, const uint8_t id[8]);

#endif
