/* Private to site/: past versions of files (node_past.c). */
#ifndef SITE_PAST_INT_H
#define SITE_PAST_INT_H

#include <jansson.h>

#include "journal/merge_past.h"
#include "site/node_int.h"

struct past_keeper {
    struct past_walk walks[SHARD_COUNT_MAX];
    uint64_t steps[SHARD_COUNT_MAX]; /* of the round of a walk, so far */
    uint64_t rests[SHARD_COUNT_MAX]; /* the next one does not begin before this tick */
    uint64_t hurry[SHARD_COUNT_MAX]; /* rounds after which all was looked at: node_past_hurry() */
    uint64_t ticks, keep_s;
    unsigned restoring;   /* restores under way: nothing is dropped meanwhile */
    bool space_known;     /* a garbage pass was finished */
    uint64_t space_bytes; /* that only past versions need, before compression */
};

#define PATH_OBJECTS_MAX 256u
#define PATH_DIRS_MAX 32u /* that one name meant, one after the other */
struct path_objects {
    struct oid parent;               /* of the last name; it may be gone */
    struct slice name;               /* into the path; empty: the root */
    bool current;                    /* at[0] is what is there now */
    struct oid at[PATH_OBJECTS_MAX]; /* then what was, the last one first */
    uint32_t count;
};
/* ERR_NOT_FOUND: nothing is or was there, as far as is known; then, if a directory
 * above it is known, parent and name are set. */
int node_path_objects(struct node *n, const char *path, struct path_objects *ret) MUST_CHECK;
/* The current version, and past ones, newest first. */
json_t *node_versions_json(struct node *n, const struct path_objects *o);
json_t *node_past_json(struct node *n); /* of status: how long, how many, how much */

#endif
