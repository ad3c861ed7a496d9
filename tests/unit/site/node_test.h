/* A node in this process, driven synchronously: for tests of what requests do. */
#ifndef TESTS_UNIT_SITE_NODE_TEST_H
#define TESTS_UNIT_SITE_NODE_TEST_H

#include "site/node_int.h"

struct node_test {
    char dir[64];
    struct node *n;
    const struct clock *clock; /* NULL: the kernel's; set before node_test_open */
    uint64_t segment_bytes;    /* of its journals; 0: as in production */
    struct clock moved;        /* node_test_init_moved: so much ahead of the kernel's */
    uint64_t ahead_ns;
    /* the last answer */
    int rc;
    struct fs_attr attr;
    struct buf data; /* readdir: names, each with NUL; others: data or inline content */
    bool done;
};
void node_test_init(struct node_test *t, unsigned shards);
void node_test_init_at(struct node_test *t, unsigned shards, const struct clock *clock);
/* By a clock that the test moves while no loop runs: t->ahead_ns. */
void node_test_init_moved(struct node_test *t, unsigned shards);
void node_test_init_small(struct node_test *t, unsigned shards, uint64_t segment_bytes);
void node_test_open(struct node_test *t);
void node_test_close(struct node_test *t);  /* keeps the directory */
void node_test_deinit(struct node_test *t); /* removes it */
/* What a process that is killed at this moment leaves of the directory, at `to`, which is replaced.
 */
void node_test_copy(const struct node_test *t, const char *to);
/* Runs one request to its end; the code of the answer. */
int node_test_call(struct node_test *t, enum rpc_type type, const struct fs_request *req);
/* "/a/b": resolves all but the last name; ERR_* as a path walk would. */
int node_test_parent(struct node_test *t,
                     const char *path,
                     struct oid *ret,
                     struct slice *ret_name);
int node_test_walk(struct node_test *t, const char *path, struct oid *ret);

#endif
