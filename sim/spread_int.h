/* Private to sim/spread*.c. */
#ifndef SIM_SPREAD_INT_H
#define SIM_SPREAD_INT_H

#include "base/buf.h"
#include "data/front.h"
#include "sim/disk.h"
#include "sim/loop_sim.h"
#include "sim/spread.h"

#define SPREAD_TARGETS 8u /* that a world may ever have */
#define SPREAD_CHUNKS 1500u
#define SPREAD_CLIENTS 4u
#define SPREAD_ASKS 32u /* ids in a client's question */
#define SPREAD_BATCH 128u
#define SPREAD_NONE UINT32_MAX
/* A disk that was bad may make a call fail for so long after that: its store tries again what it
 * owes its index. */
#define SPREAD_GRACE_NS (3 * NS_PER_SEC)

struct spread;
/* Sets of targets are masks of their places in spread.targets. */
struct spread_target {
    struct spread *world;
    struct target is;
    struct disk *disk; /* NULL: there never was one */
    char dir[24];
    struct store *store; /* NULL: closed */
    bool closing;
    bool dead; /* its disk is gone for ever */
    bool away; /* its disk fails for now */
    /* Bits have changed, or reads have failed, which a store takes for damage: it is, until all of
     * its chunks were looked at and what is bad was put again. */
    bool suspect;
    uint64_t bad_until_ns;
    struct sched_event heal;
    struct store_scrub scrub;
    struct store_sweep sweep;
    struct store_compact compact;
};
struct spread_front {
    struct front *front;
    uint32_t mask;
    unsigned users; /* the world's own pointers, and requests */
    struct spread_front *next;
};
struct spread_chunk {
    struct chunk_id id;
    bool live;           /* a put of it was answered, and nobody dropped it */
    bool dropped;        /* for ever */
    unsigned puts;       /* under way */
    bool damaged;        /* somewhere, since a put of it was answered first ... */
    uint64_t put_moves;  /* ... when the list had changed, */
    uint64_t put_rots;   /* and bits had, so often */
    uint32_t where;      /* that hold it, ... */
    uint32_t where_list; /* ... when these were the targets; 0: not known */
    uint32_t seen;       /* of the count that is under way */
    bool counts;
};

/* A chunk is read from whatever front has it, and compared. rc 0: it is right. */
struct spread_read {
    struct spread *world;
    uint32_t chunk, from, len;
    unsigned tries;
    uint64_t moves_seen;
    struct spread_front *front; /* that is asked */
    struct store_get get;
    void (*done)(struct spread_read *r, int rc);
};
struct spread_put {
    struct spread *world;
    uint32_t chunk;
    uint64_t upsets_seen, moves_seen;
    struct spread_front *front;
    struct buf data;
    struct store_put put;
    void (*done)(struct spread_put *p, int rc);
};
/* Which targets hold a chunk, asked of each store apart from the front. */
struct spread_look {
    struct spread *world;
    uint32_t chunk;
    unsigned open;
    bool sure; /* all that may hold it have answered */
    struct spread_look_one {
        struct spread_look *look;
        bool present;
        struct store_has has;
    } ones[SPREAD_TARGETS];
    void (*done)(struct spread_look *l, uint32_t mask);
};

struct spread_client {
    struct spread *world;
    struct sched_event event;
    bool busy;
    uint32_t owes; /* a chunk whose put was not answered yet: it is put again; SPREAD_NONE: none */
    uint64_t began_ns;
    struct spread_read read;
    struct spread_put put;
    struct spread_look look;
    uint32_t list; /* when the put or question began */
    uint64_t upsets_seen, moves_seen;
    struct store_has has;
    struct spread_front *front;
    uint32_t asked[SPREAD_ASKS]; /* chunks */
    struct chunk_id ids[SPREAD_ASKS];
    bool present[SPREAD_ASKS];
    bool must[SPREAD_ASKS]; /* it was there when the question was asked */
};

/* Brings all to its place: spread_keeper.c. */
enum spread_stage {
    SPREAD_REST,
    SPREAD_SCRUB,
    SPREAD_PASS,
    SPREAD_DROP, /* the front as it was, when nobody uses it any more */
    SPREAD_SWEEP,
    SPREAD_COMPACT,
    SPREAD_COUNT,
    SPREAD_PAUSE
};
struct spread_keeper {
    struct sched_event event;
    enum spread_stage stage;
    bool due, clean;
    unsigned target, wraps; /* of stages that go from one to the next */
    uint64_t upsets_seen, moves_seen;
    uint32_t suspects; /* when the scrub began */
    uint32_t at, count;
    uint32_t batch[SPREAD_BATCH];
    struct chunk_id ids[SPREAD_BATCH];
    bool present[SPREAD_BATCH];
    unsigned batch_at;
    struct store_has has;
    struct spread_front *front;
    struct spread_read read;
    struct spread_put put;
};

struct spread {
    struct sched sched;
    const struct soak_options *options;
    const struct soak_edit *edit;
    uint64_t faults; /* that happened so far, or would have */
    struct machine machine;
    struct clock clock;
    struct loop *loop; /* NULL: it is down */
    struct pool *pool;
    bool dying; /* what is told now, nobody hears */
    unsigned copies;
    uint64_t segment_bytes, think_ns;
    struct spread_target targets[SPREAD_TARGETS];
    uint32_t now, before; /* the list; as it was while chunks are being moved, else 0 */
    struct spread_front *front, *old;
    struct spread_front *fronts; /* all */
    struct spread_chunk chunks[SPREAD_CHUNKS];
    uint32_t count;
    struct spread_client clients[SPREAD_CLIENTS];
    struct spread_keeper keeper;
    uint64_t moves;  /* changes of the list */
    uint64_t rots;   /* of bits */
    uint64_t upsets; /* whatever may take a chunk from where it lay */
    uint64_t answered, stop_at, put_count, counts;
    bool closing, healed;
    struct sched_event fault, restart, look;
    char failure[400];
};
void spread_fail(struct spread *w, const char *promise, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline bool spread_good(const struct spread *w)
{
    return w->failure[0] == '\0';
}
static inline uint64_t spread_below(uint64_t n)
{
    return rng_below(&sched->rng, n);
}
static inline unsigned spread_bits(uint32_t mask)
{
    return (unsigned)__builtin_popcount(mask);
}

/* spread.c: the node */
void spread_start(struct spread *w);
void spread_crash(struct spread *w, bool power);
int spread_target_open(struct spread *w, unsigned at) MUST_CHECK;
/* The targets are these now. They are of the list before as well until all has been moved. */
void spread_list_set(struct spread *w, uint32_t mask);
void spread_list_settled(struct spread *w); /* the list before is forgotten */
struct spread_front *spread_front_use(struct spread_front *f);
void spread_front_leave(struct spread *w, struct spread_front *f); /* accepts NULL */
/* Disks that may be the reason of a failure now, or were a moment ago. */
uint32_t spread_bad(const struct spread *w);
unsigned spread_domains(const struct spread *w, uint32_t mask);
/* Whole copies of a chunk on these targets. */
unsigned spread_width(const struct spread *w, uint32_t mask);
void spread_list_of(const struct spread *w,
                    uint32_t mask,
                    struct target ret[SPREAD_TARGETS],
                    unsigned ret_at[SPREAD_TARGETS]);

/* spread_fault.c */
void spread_faults_begin(struct spread *w);
void spread_heal(struct spread *w);
void spread_target_make(struct spread *w, unsigned at);
void spread_targets_back(struct spread *w); /* those whose disks fail for a while */

/* spread_call.c */
void spread_chunk_bytes(uint32_t number, struct buf *ret);
struct chunk_id spread_chunk_id(uint32_t number);
uint32_t spread_chunk_number(const struct chunk_id *id);
void spread_read_begin(struct spread_read *r);
void spread_put_begin(struct spread_put *p);
void spread_look_begin(struct spread_look *l);

/* spread_client.c */
void spread_clients_init(struct spread *w);
void spread_clients_dropped(struct spread *w); /* the node died */
void spread_clients_resume(struct spread *w);
bool spread_clients_idle(const struct spread *w);
void spread_clients_check(struct spread *w); /* P3 */

/* spread_keeper.c */
void spread_keeper_init(struct spread *w);
void spread_keeper_due(struct spread *w); /* something is not in its place, perhaps */
void spread_keeper_dropped(struct spread *w);
bool spread_rests(const struct spread *w); /* all is in its place, and was counted */

/* spread_check.c */
/* A put was answered when the list was this: it lies there. */
void spread_check_put(struct spread *w, uint32_t chunk, uint32_t list, uint32_t mask);
/* The front says that a live chunk is not in its place. */
void spread_check_missing(struct spread *w, uint32_t chunk);
/* All was counted (spread_chunk.seen). */
void spread_check_counted(struct spread *w);
/* The list has changed: what the core says of chunks that nobody has, with copies and parts. */
void spread_check_core(struct spread *w, uint32_t before, uint32_t now);

#endif
