/* One seed: a world drawn from it, run, settled and checked. */
#ifndef SIM_SOAK_H
#define SIM_SOAK_H

#include "sim/world.h"

/* Faults that a world may have beyond the usual ones. */
enum soak_faults {
    SOAK_EIO = 1,       /* calls of disks fail, once or for a while */
    SOAK_FULL = 2,      /* disks are full for a while */
    SOAK_ROT = 4,       /* bits change at rest, at one site */
    SOAK_LOSE = 8,      /* a site is lost for ever */
    SOAK_REMOVE = 16,   /* an operator removes one: the lost one, if one is lost */
    SOAK_JOIN = 32,     /* a site joins while the others work */
    SOAK_CHUNKS = 64,   /* contents made of chunks, and garbage passes */
    SOAK_SPACE = 128,   /* look whether what is no longer needed goes away */
    SOAK_CROWD = 256,   /* more mounts, that call all at once, and crashes while they do */
    SOAK_AWAY = 512,    /* a site is away for longer than journals are kept, and comes back */
    SOAK_SHORT = 1024,  /* journals are kept for no longer than the usual faults take */
    SOAK_LINE = 2048,   /* sites in a row: those between relay for those at the ends */
    SOAK_TIGHT = 4096,  /* disks are full for moments, again and again, and segments small */
    SOAK_STEP = 8192,   /* power goes between two calls of a disk, in starts, too */
    SOAK_CLOCK = 16384, /* clocks are wrong by minutes */
    SOAK_AHEAD = 65536, /* half of the mounts are answered ahead of the disk */
    SOAK_ALL = 2047     /* those before: named seeds mean these */
};
struct soak_options {
    unsigned sites;      /* 0: drawn, 2 to 4 */
    bool sites_said;     /* by --sites: else there is one site of several nodes */
    unsigned nodes;      /* 3: sites of three nodes, see sim/trio.h; else: of one node each */
    bool targets;        /* one node with several targets, see sim/spread.h */
    uint64_t operations; /* of all sites together */
    bool faults;
    bool busy;     /* eight mounts a site that never rest, instead of one to three that do */
    bool no_split; /* power never goes just when a part of a batch is on the disk (WORLD_SPLIT) */
    unsigned more; /* enum soak_faults */
    enum world_workload work; /* NONE: drawn */
    unsigned plant;           /* number of a planted bug, 0: none; see base/plant.h */
};
/* What is left out of a drawn world: how shrinking works, and how its result is run again. */
struct soak_edit {
    uint64_t operations[WORLD_SITES_MAX]; /* of each site, at most */
    bool without[WORLD_EVENTS_MAX];       /* these events do not happen */
    bool no_loss;                         /* links do not stall, lag or reset by themselves */
    bool no_core;                         /* nobody is left broken while others converge */
};
struct soak_result {
    char failure[400]; /* empty: nothing was found */
    uint64_t hash, calls, changes, events, virtual_ns, settle_ns;
    uint32_t faults; /* of worlds that are not described: numbers of faults that there were */
    struct world_looked looked;
};
void soak_edit_init(struct soak_edit *e); /* leaves nothing out */
/* Draws the world of a seed. */
void soak_describe(const struct soak_options *o,
                   uint64_t seed,
                   const struct soak_edit *e,
                   struct world_config *c);
/* The world of a seed, whichever kind it is of. */
void soak_world(const struct soak_options *o,
                uint64_t seed,
                const struct soak_edit *e,
                bool trace,
                struct soak_result *ret);
/* Runs a description: until its work is done, then the liveness phase. */
void soak_run(const struct world_config *c, bool trace, struct soak_result *ret);
/* The same in a process of its own, so that a broken assertion is a result as well. soak_wait
 * returns the handle of one that ended, and takes its result. */
struct soak_job {
    int pid, fd;
    uint64_t seed;
};
void soak_start(struct soak_job *j,
                const struct soak_options *o,
                uint64_t seed,
                const struct soak_edit *e);
void soak_finish(struct soak_job *j, struct soak_result *ret); /* waits for it */

/* It is of no kind that soak_describe describes. */
static inline bool soak_is_special(const struct soak_options *o)
{
    return o->targets || o->nodes > 1;
}
/* Digits and nothing else, no more than max. */
bool soak_number(const char *text, uint64_t max, uint64_t *ret);
/* Parses what soak, replay and shrink have in common; *at moves past what was understood.
 * False: argv[*at] is not one of these, or its value is wrong (said on stderr). */
bool soak_option(int argc, char **argv, int *at, struct soak_options *o, struct soak_edit *e);
/* What can be left out of a world that ran: calls of each of `sites`, and events. Sites of several
 * nodes, and nodes of several targets, count their calls together, and their events are the faults
 * that happened. */
struct soak_size {
    unsigned sites;
    uint64_t operations[WORLD_SITES_MAX];
    uint32_t events;
};
void soak_size(const struct soak_options *o,
               uint64_t seed,
               const struct soak_edit *e,
               const struct soak_result *r,
               struct soak_size *ret);
/* The options that make replay do this again. */
void soak_print(const struct soak_options *o,
                const struct soak_edit *e,
                const struct soak_size *size);
/* Tries smaller and smaller worlds that fail in the same way; *e is the smallest found. */
void soak_shrink(const struct soak_options *o,
                 uint64_t seed,
                 struct soak_edit *e,
                 struct soak_result *ret);

#endif
