/* Sites with shards in one process, for tests of the engine: what site/ and wan/ do around it, in
 * their smallest form. Each site keeps its operations in the order in which their homes applied
 * them; others pull that stream. Between the shards of a site operations and derived messages wait
 * in queues, which are delivered in random order, each queue in its own order. */
#ifndef TESTS_UNIT_JOURNAL_MERGE_WORLD_H
#define TESTS_UNIT_JOURNAL_MERGE_WORLD_H

#include "base/assert.h"
#include "journal/merge.h"

#define WORLD_SITES_MAX 8
#define WORLD_SHARDS_MAX 8

struct world_op { /* shared by all sites; never changes */
    struct op op;
    struct op_arena arena;
    struct buf bytes;
};
struct world_message {
    struct world_message *next;
    const struct world_op *op; /* or: */
    struct buf derived;
};
struct world_queue {
    struct world_message *head, *tail;
};
struct world_site {
    struct world *world;
    site_id_t id;
    bool lost;
    uint64_t hlc, skew;
    uint64_t files;  /* counter of file oids */
    uint64_t issued; /* operations */
    struct state *states[WORLD_SHARDS_MAX];
    struct merge *shards[WORLD_SHARDS_MAX];
    struct world_port {
        struct world_site *site;
        shard_id_t from;
    } ports[WORLD_SHARDS_MAX];
    const struct world_op **stream;
    uint32_t stream_count, stream_cap;
    uint32_t taken[WORLD_SITES_MAX]; /* how far each peer's stream was read */
    struct world_queue home[WORLD_SHARDS_MAX][WORLD_SITES_MAX];
    struct world_queue parts[WORLD_SHARDS_MAX][WORLD_SHARDS_MAX][WORLD_SITES_MAX]; /* home, to */
    struct world_queue derived[WORLD_SHARDS_MAX][WORLD_SHARDS_MAX];                /* from, to */
    uint32_t waiting;
    uint32_t conflicts[16]; /* records by rule */
};
struct world {
    unsigned site_count, shard_count;
    struct world_site *sites[WORLD_SITES_MAX];
    struct world_op **ops;
    uint32_t op_count, op_cap;
    uint64_t rng;
    uint64_t seed;
    bool rough; /* no barriers, no word on names that stay: needless repairs, but one tree */
};

struct world *world_new(unsigned site_count, unsigned shard_count, uint64_t seed);
void world_free(struct world *w);
uint64_t world_draw(struct world *w);
static inline uint32_t world_below(struct world *w, uint32_t limit)
{
    return (uint32_t)(world_draw(w) % limit);
}
/* Prints the seed with the message and aborts. */
#define WORLD_CHECK(w, cond)                                                                       \
    do {                                                                                           \
        if (!(cond))                                                                               \
            world_fail((w), #cond, __FILE__, __LINE__);                                            \
    } while (0)
_Noreturn void world_fail(const struct world *w, const char *what, const char *file, int line);

/* ---- deliveries ---- */
void site_deliver(struct world_site *s, uint32_t count); /* up to count, from random queues */
void site_settle(struct world_site *s);                  /* all; fails when they block each other */
uint32_t site_pull(struct world_site *s, struct world_site *peer, uint32_t limit);
bool site_repair(struct world_site *s, bool take_over); /* all that is due; true: some were */
void world_drain(struct world *w, bool take_over);
/* A stable point for one site, as merge_collect wants it. */
uint64_t site_stable(struct world_site *s);
/* One site drops what it may. */
void site_collect(struct world_site *s, uint64_t stable_hlc, uint32_t budget);
struct merge *site_shard(struct world_site *s, struct oid oid);

/* ---- users; every one waits until the site's queues are empty ---- */
struct oid user_create(
    struct world_site *s, struct oid parent, const char *name, const char *data, uint16_t perm);
struct oid user_mkdir(struct world_site *s, struct oid parent, const char *name, uint16_t perm);
void user_remove(struct world_site *s, struct oid parent, const char *name);
void user_link(struct world_site *s,
               struct oid parent,
               const char *name,
               struct oid to_parent,
               const char *to);
void user_write(struct world_site *s, struct oid parent, const char *name, const char *data);
void user_chmod(struct world_site *s, struct oid parent, const char *name, uint16_t perm);
void user_rename(struct world_site *s,
                 struct oid parent,
                 const char *name,
                 struct oid to_parent,
                 const char *to);
/* A random user does something, and what it sees is checked. */
void user_step(struct world_site *s, bool fresh_data);

bool site_lookup(struct world_site *s, struct oid parent, const char *name, struct shown *ret);
struct world_name {
    char name[256];
    struct shown shown;
    char stored[256];
};
/* Free with mem_free. */
struct world_name *site_list(struct world_site *s, struct oid parent, uint32_t *ret_count);
/* `name=data` or `name/` for each name of a directory, with the hex of conflict names replaced by
 * #, joined by spaces. */
const char *site_names(struct world_site *s, struct oid parent, char out[1024]);

/* ---- checkers: fail through world_fail ---- */
void site_tree(struct world_site *s, struct buf *ret); /* path, kind, rights, content, times */
void state_dump(struct state *st, struct buf *ret);    /* without local keys */
void world_check(struct world *w); /* P4, P5, P6 and the engine's invariants, after a drain */

#endif
