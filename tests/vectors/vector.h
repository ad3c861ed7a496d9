/* One history of merge_model.py as operations of the engine. */
#ifndef TESTS_VECTORS_VECTOR_H
#define TESTS_VECTORS_VECTOR_H

#include <jansson.h>

#include "journal/merge.h"

#define VECTOR_SITES_MAX 16

struct vector_oid { /* an object of the model, and its oid here */
    const char *text;
    bool dir;
    uint32_t group; /* union-find: objects that must share a shard */
    uint32_t rank;  /* among all texts in order */
    struct oid oid;
    const json_t *birth; /* directories: the arguments of a birth effect */
};
struct vector_op {
    const json_t *json;
    char site;
    uint64_t seq;
    struct dot dot; /* of the operation here: with its home shard, renumbered */
    struct op op;
};
struct vector_site {
    char name;
    uint32_t *order; /* indices of ops, in the order in which this site applied them */
    uint32_t count;
};
struct vector {
    json_t *root;
    const json_t *tree;
    struct vector_oid *oids; /* by text */
    uint32_t oid_count;
    struct vector_op *ops; /* by (site, seq) */
    uint32_t op_count;
    struct vector_site sites[VECTOR_SITES_MAX];
    uint32_t site_count;
    struct op_arena arena; /* of the operations */
};

/* 0, or 1 after a message on stderr. */
int vector_load(struct vector *v, const char *path);
void vector_free(struct vector *v);
struct vector_oid *vector_find(struct vector *v, const char *text);
/* The model's object of an oid; NULL: none. */
struct vector_oid *vector_find_oid(struct vector *v, struct oid oid);
/* Objects a and b must be in one shard. */
void vector_join(struct vector *v, struct vector_oid *a, struct vector_oid *b);
/* Chooses oids for a number of shards, renumbers dots, builds all operations. */
void vector_build(struct vector *v, unsigned shard_count);

/* Runs one site's order on one shard; learns which objects end as twins. 0: the tree is right. */
int vector_run_one(struct vector *v, uint32_t site, bool on_disk);
/* On several shards, deliveries interleaved at random from `seed`. */
int vector_run_sharded(struct vector *v, uint32_t site, unsigned shard_count, uint64_t seed);

/* ---- vector_main.c ---- */
/* All of a program: each file is a vector, which `run` is asked about together with its number on
 * the command line, from 1 (how many mistakes: 0); `what` says what it means that there are some.
 * Returns the exit status. */
struct vector_program {
    const char *name, *what;
    int (*run)(struct vector *v, uint64_t number);
};
int vector_main(const struct vector_program *p, int argc, char **argv);

#endif
