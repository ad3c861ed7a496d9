/* What the checkers that remember keep of a world: world_watch.c (who has what, P7 of one origin),
 * world_cause.c (P7 across origins), world_lag.c (what sites say of their lags). */
#ifndef SIM_WATCH_INT_H
#define SIM_WATCH_INT_H

#include "sim/world_int.h"

#define WATCH_SHARDS 16u /* a world has no more */
#define LIVES_MAX (8u * WORLD_SITES_MAX)

struct seen { /* what a site had of another at one moment */
    uint64_t at_ns;
    unsigned site, origin; /* origin: a life */
    uint64_t seq[WATCH_SHARDS];
};
struct history { /* of a site's own operations */
    uint64_t at_ns;
    uint64_t seq[WATCH_SHARDS];
    uint64_t had; /* its records, and the operations it had of whomever */
};
/* Stamps of one site's own operations, by shard and seq. Read while they are in its journal, which
 * may be trimmed later. */
struct order {
    struct {
        uint64_t first, count, cap; /* first: seq of the first that is known */
        struct order_op {
            uint64_t commit_hlc, hlc; /* of its commit there; its own */
        } * ops;
    } shards[WATCH_SHARDS];
    bool gap; /* some were trimmed before they were read */
};
/* What a site showed, durably, when its own newest operations were these: whatever it issued later
 * may be an effect of that. In time's order, so all of it only grows. */
struct cause {
    struct cause_row {
        uint64_t own[WATCH_SHARDS];
        size_t shown; /* in the pool: seqs by life and shard */
        unsigned lives;
    } * rows;
    size_t count, cap;
    uint64_t *pool;
    size_t pool_count, pool_cap;
};
struct watch {
    struct seen *seen;
    size_t seen_count, seen_cap;
    struct {
        struct history *at;
        size_t count, cap;
    } own[WORLD_SITES_MAX];
    /* A site that comes back under a new id begins another life; what it issued in the one before
     * still has its order. The first are those of the sites. */
    struct life {
        unsigned site;
        site_id_t id;
        struct order order;
        struct cause cause;
    } lives[LIVES_MAX];
    unsigned life_count, life[WORLD_SITES_MAX];
    uint64_t cause_sum[WORLD_SITES_MAX]; /* of its journals when its cause was noted last */
    struct model *model;                 /* NULL: not asked for */
    bool gap; /* a journal was trimmed faster than it was read: the model cannot say */
    uint64_t read_next[WORLD_SITES_MAX][WATCH_SHARDS];
    uint64_t looks, read_ns;           /* at the order; when journals were read for it */
    uint64_t up_ns[WORLD_SITES_MAX];   /* since when it is up; 0: it is not */
    uint64_t crashes[WORLD_SITES_MAX]; /* up to then */
    uint64_t well_ns[WORLD_SITES_MAX][WORLD_SITES_MAX];   /* since when the link is not cut */
    uint64_t stream_ns[WORLD_SITES_MAX][WORLD_SITES_MAX]; /* when there last was no stream */
    uint64_t held_ns[WORLD_SITES_MAX][WORLD_SITES_MAX]; /* when a batch was held there last, and */
    uint64_t free_ns[WORLD_SITES_MAX][WORLD_SITES_MAX]; /* when none had been for a while */
    struct { /* the repair that a shard has owed longest */
        struct oid oid;
        uint64_t since_ns;
    } owed[WORLD_SITES_MAX][WATCH_SHARDS];
};

/* --- world_watch.c --- */
/* What a site has of a life, by shard. */
void watch_seqs(const struct world *w, unsigned site, site_id_t id, uint64_t *ret);
bool watch_covers(const struct world *w, const uint64_t *a, const uint64_t *b);
bool watch_is_up(const struct world *w, unsigned site); /* and has joined */
/* Link and both ends have been well for so long. */
bool watch_is_well(const struct world *w, unsigned from, unsigned to, uint64_t for_ns);
/* The operation of a life with this stamp; false: it is not known, or there are two. */
bool watch_find(const struct world *w, unsigned life, uint64_t hlc, struct dot *ret);

/* --- world_cause.c --- */
void cause_free(struct cause *c);
/* At a look: what a site that is up shows, before it goes on. */
void cause_note(struct world *w, unsigned site);
/* `had`: what it has of each life, by life and shard. */
void cause_check(struct world *w, unsigned site, uint64_t (*had)[WATCH_SHARDS]);
/* Did whoever issued the effect show the other one before? Both are operations of lives. */
bool cause_knew(const struct world *w, struct dot effect, struct dot cause);

/* --- world_lag.c --- */
/* What `to` says of its lag behind `from`, of which it has seq. */
void lag_look(struct world *w, unsigned from, unsigned to, const uint64_t *seq);

/* --- world_reach.c --- */
void reach_look(struct world *w, unsigned site);

#endif
