/* Private to sim/lin*.c. */
#ifndef SIM_LIN_INT_H
#define SIM_LIN_INT_H

#include "sim/lin.h"
#include "sim/world_int.h"
#include "site/call.h"

#define LIN_STATES 32u /* different moments of one call that are remembered */
#define LIN_MAYS 6u
#define LIN_SHARDS 16u /* a world has no more */
#define LIN_FRESH 512u
#define LIN_KNOWN 32u
#define LIN_KEYS 12u
#define LIN_SAID 64u
#define LIN_ANY_NAME UINT64_MAX

/* The entry (oid, name), or with name 0 an object: what changes, and what is looked at. */
struct lin_key {
    struct oid oid;
    uint64_t name; /* hash; 0: the object itself */
};
struct lin_need { /* this record must be durable before it is told */
    shard_id_t shard;
    unsigned by;    /* number of the mount whose change it is, + 1; 0: of none */
    uint64_t index; /* 0: nothing */
};
/* What a call may be answered at one moment. */
struct lin_state {
    struct {
        int32_t rc; /* 0: it can be done */
        struct lin_key because[2];
        unsigned because_count;
        struct lin_need needs[2];
    } may[LIN_MAYS];
    unsigned may_count;
    struct oid oid, other; /* what the names mean; none: nothing */
    uint64_t attr;         /* hash of the attributes that come with it; 0: there are none */
    uint64_t list;         /* READDIR: hash of all of it */
    uint64_t dirs[2];      /* of a change: attributes of the directories, for its answer */
    bool nothing;          /* to do: good without a change */
    bool shows;            /* of a change: its result is there */
};
struct lin_call {
    bool busy, changes;
    bool blind;     /* the state could not be read, or there were too many moments */
    bool proposing; /* its change is being made right now */
    bool indexed;   /* and its record is known */
    bool done;      /* it was, in this: */
    bool maybe;     /* or not: that is seen when the site is back */
    struct dot dot;
    uint64_t index;
    struct oid result, victim; /* and what was under the name before */
    bool again;                /* two were made */
    bool shown;
    bool wide;                    /* it concerns several shards */
    struct lin_need on[LIN_KEYS]; /* what others had done there, and was not durable */
    unsigned on_count;
    struct lin_key keys[LIN_KEYS]; /* what it changed */
    unsigned key_count;
    uint64_t order; /* when */
    struct lin_state states[LIN_STATES];
    unsigned state_count;
    unsigned now; /* which of them is so now */
};
/* What a mount with a cache would still show. */
struct lin_known {
    struct lin_key key;
    uint64_t value, order;
};
struct lin_told { /* a change that was answered ahead of the disk */
    uint64_t number;
    struct dot dot;
    uint64_t index;
    struct oid result;
    bool there; /* it has not been lost, or was made again */
    bool stays; /* the mount was told that it is durable, and sends it again all the same */
};
struct lin_mount {
    struct lin_call call, aside; /* aside: the call under way, while others are made again */
    bool has_aside;
    uint64_t aside_number;
    struct lin_told *told; /* until the mount knows that they are durable */
    unsigned told_count, told_cap;
    struct lin_known known[LIN_KNOWN];
    unsigned known_next;
    uint64_t session, answered; /* the last number that was answered or given up in this session */
};
struct lin_fresh { /* a change that is not durable yet */
    struct lin_key key;
    uint64_t index;
    shard_id_t shard;
    unsigned by; /* as in lin_need */
};
struct lin_site {
    struct lin_fresh fresh[LIN_FRESH];
    unsigned fresh_first, fresh_count;
    uint64_t told[LIN_SHARDS]; /* records that answers told of */
    unsigned busy;             /* calls under way */
};
struct lin {
    struct world *w;
    struct lin_site sites[WORLD_SITES_MAX];
    struct lin_mount mounts[WORLD_MOUNTS_MAX];
    uint64_t order;            /* counts whatever happens */
    struct lin_call *applying; /* whose operation the engine is being given */
    unsigned by;               /* and which mount's, + 1; 0: of none */
};
extern struct lin *lin; /* NULL: there is no world */

/* lin_model.c: what the call may be answered now, `changed`: after its change. False: nobody can
 * say, the state is broken. Needs are not filled in. */
bool lin_model(struct node *n,
               const struct mount *m,
               const struct lin_call *c,
               struct lin_state *ret);
uint64_t lin_attr_hash(const struct fs_attr *a);
uint64_t lin_list_hash(const struct fs_entry *entries, uint32_t count);
uint64_t lin_name_hash(struct slice name);
/* What the key shows now. */
uint64_t lin_value(struct node *n, struct lin_key key, struct slice name);

uint64_t lin_name_value(struct oid oid); /* of a name that means this */

/* lin_known.c: after an answer, what other mounts still know, and what this one knows now */
void lin_known_answered(const struct mount *m, const struct lin_call *c, const struct fs_reply *r);

/* lin_ahead.c: what was answered ahead of the disk */
struct lin_told *lin_told_find(const struct mount *m, uint64_t number); /* NULL: not that one */
/* A change that is kept by the mount was made (again), in `op`. */
void lin_told_made(const struct mount *m, uint64_t number, struct dot dot, uint64_t index);
void lin_told_answered(const struct mount *m, const struct lin_call *c, const struct fs_reply *r);
/* It cannot be made again, or nothing was to do: it is told of no record any more. */
void lin_told_over(const struct mount *m);
void lin_told_restarted(unsigned site, struct node *n);
/* What a mount may be told, when it has asked ahead: what is durable, and what itself has done. */
bool lin_may_tell(const struct mount *m, const struct lin_need *need, const struct fs_reply *r);
/* lin.c */
struct lin_need lin_need_of(unsigned site, const struct lin_key *key);
bool lin_is_change(enum rpc_type t);
bool lin_is_durable_at(unsigned site, shard_id_t shard, uint64_t index);
bool lin_has_survived(struct node *n, struct dot dot);          /* the start of its node */
void lin_tell(unsigned site, shard_id_t shard, uint64_t index); /* it has to stay */
const struct lin_state *
lin_now(const struct mount *m);       /* NULL: nobody can say; until the next one */
void lin_look(const struct mount *m); /* at this moment, for the call under way */
/* This shows otherwise, by the last record of the shard. */
void lin_fresh(unsigned site, shard_id_t shard, const struct lin_key *keys, unsigned count);
/* The state is another one, in these; count 0: in whatever. Looks for all calls it may concern. */
void lin_changed(unsigned site, const struct lin_key *keys, unsigned count);
struct node *lin_node(unsigned site); /* NULL: it is down */
void lin_fail(const struct mount *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
