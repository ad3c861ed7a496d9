/* The simulated world: sites, their nodes, disks, clocks and mounts, and the links between sites,
 * in one process and in virtual time.
 *
 * A world is described once (struct world_config), made, run for some virtual time, looked at, and
 * freed. Everything follows from the description and its seed: the same description gives the same
 * run, event for event (world_trace_hash). The nodes inside are the product's own code from the
 * system call upwards; sim/README.md says where the real thing ends.
 *
 * One world at a time in one process; everything on one thread. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"

#define WORLD_SITES_MAX 8u
#define WORLD_EVENTS_MAX 1024u
#define WORLD_NAME_BYTES 33u
/* Worlds of up to so many calls have their answers looked at in shared directories, too: where
 * sites never rest it costs a quarter, and the calls that one change may concern grow. */
#define WORLD_LIN_CALLS 50000u

struct world;

/* ---- describing ---- */

/* A delay: base + something between 0 and jitter (uniform), and now and then another `tail_ns`. */
struct world_delay {
    uint64_t base_ns, jitter_ns, tail_ns;
    uint32_t tail_per_million;
};
/* One direction of a link. Bytes leave one after the other at bytes_per_s, wait in a queue of
 * queue_bytes before (a full queue stalls the sender: the stream above is TCP), and arrive, in
 * order, a delay later. */
struct world_link {
    bool absent; /* these two are never connected directly; the same in both directions */
    struct world_delay delay;
    uint64_t bytes_per_s;       /* 0: no bound */
    uint64_t queue_bytes;       /* 0: 1 MiB */
    uint32_t stall_per_million; /* a lost packet: what follows waits stall_ns (retransmission) */
    uint64_t stall_ns;
    uint32_t reset_per_million; /* of a write that breaks the connection */
};
struct world_disk {
    struct world_delay write, read, sync;
    uint64_t capacity_bytes;          /* 0: no bound */
    uint32_t write_error_per_million; /* EIO, final for a journal: the node stops */
    bool lie; /* a sync that does not: outside what we promise; for scenarios */
};
struct world_clock {
    int64_t offset_ns; /* wall clock against true time */
    int32_t drift_ppm;
};
enum world_workload {
    WORLD_WORK_NONE,
    WORLD_WORK_COLLIDE, /* few names, deep moves, links, replace-by-rename, open-unlinked writes */
    WORLD_WORK_HOME,    /* home directories; this and the others: sim/real.h */
    WORLD_WORK_BUILD,
    WORLD_WORK_TRAIN, /* its contents are made of chunks, whatever large_per_million says */
    WORLD_WORK_RSYNC,
    WORLD_WORK_LOG,
    WORLD_WORK_KIND_END
};
struct world_work {
    enum world_workload kind;
    unsigned clients;  /* mounts of this site; 0: 1 */
    uint64_t think_ns; /* mean pause between an answer and the next call; 0: none */
    /* Not 0: so many calls of each mount at once, one after the other, whenever burst_ns of the
     * world's time have passed; and no pauses else. So mounts meet. */
    unsigned burst;
    uint64_t burst_ns;
    uint64_t operations; /* of the site in total; 0: until work_until_ns */
    /* The file tree the workload lives in: "/" + this (made when missing); "" = the root. Sites
     * that name the same directory collide. */
    char dir[32];
    uint32_t large_per_million;  /* of writes: of contents that are made of chunks */
    uint32_t shared_per_million; /* of names that are taken from the root all the same */
};
/* What a site is left as while the others have to converge without it, first of all in the liveness
 * phase. */
enum world_broken {
    WORLD_BROKEN_NOT,
    WORLD_BROKEN_CUT,         /* off from everybody, in both directions */
    WORLD_BROKEN_DEAF,        /* nothing comes in */
    WORLD_BROKEN_MUTE,        /* nothing goes out */
    WORLD_BROKEN_DOWN,        /* its process has died */
    WORLD_BROKEN_DARK,        /* its power has gone */
    WORLD_BROKEN_FULL,        /* files cannot grow */
    WORLD_BROKEN_FULL_AT_ALL, /* and databases cannot write */
    WORLD_BROKEN_END
};
struct world_site {
    char name[WORLD_NAME_BYTES];
    bool joins_late; /* it is made, and joins by an event */
    struct world_clock clock;
    struct world_disk disk;
    uint64_t segment_bytes;    /* of its journals; 0: as in production */
    uint64_t checkpoint_bytes; /* of state in memory; 0: as in production */
    uint64_t garbage_ns;       /* between garbage passes; 0: as in production */
    struct world_work work;
    enum world_broken broken; /* of a core of sites that is healed first, this one is none */
};
enum world_event_kind {
    WORLD_CUT,       /* a, b: no bytes in this direction (a -> b); silent, as a firewall */
    WORLD_HEAL,      /* a, b: this direction again */
    WORLD_RESET,     /* a, b: connections between them break */
    WORLD_SLOW,      /* a, b: delay times `value` from now on (1: as described) */
    WORLD_ISOLATE,   /* a: both directions to everybody */
    WORLD_REJOIN,    /* a */
    WORLD_CRASH,     /* a: the process dies and the disk loses what was not synced; value 1: the
                        process alone */
    WORLD_RESTART,   /* a */
    WORLD_LOSE,      /* a: the site is gone for ever */
    WORLD_REMOVE,    /* a: the operator at b removes a from the federation */
    WORLD_JOIN,      /* a, which joins late: by the invitation of b */
    WORLD_CLOCK,     /* a: the wall clock jumps by value (ns) */
    WORLD_DISK_FULL, /* a: writes fail with ENOSPC; value 1: those of the databases, too */
    WORLD_DISK_FREE, /* a */
    WORLD_DISK_FAIL, /* a: calls fail with EIO, see world_disk_fail() */
    WORLD_DISK_WELL, /* a */
    WORLD_ROT,       /* a: a bit changes at rest, in what value says (enum world_rot) */
    WORLD_SPLIT,     /* a: power goes at the next moment at which its disks hold an operation of
                        another site and lack one committed before it that a is applying; the site
                        comes back `value` ns later. Needs `model` */
    WORLD_AWAY,      /* a: cut off from all for `value` ns, whatever heals; needs journal_age_s */
    WORLD_STEP,      /* a: power goes between two calls of its disk, see world_step() */
    WORLD_EVENT_KIND_END
};
enum world_rot {
    WORLD_ROT_JOURNAL,
    WORLD_ROT_STATE,
    WORLD_ROT_CHUNKS,
    WORLD_ROT_END
};
/* The value of WORLD_DISK_FAIL: which calls (enum disk_call of sim/disk.h), how often; UINT32_MAX:
 * until the disk is well again. */
static inline int64_t world_disk_fail(unsigned calls, uint32_t count)
{
    return (int64_t)((uint64_t)calls << 32 | count);
}
/* The value of WORLD_STEP: at the `calls`th call from then on that changes something; `few`: of
 * those that change more than what is in a file (sim/disk.h). It comes back within two seconds, and
 * power goes again in its next `starts` starts. */
static inline int64_t world_step(uint32_t calls, bool few, unsigned starts)
{
    return (int64_t)((uint64_t)starts << 33 | (uint64_t)few << 32 | calls);
}
struct world_event {
    uint64_t at_ns;
    enum world_event_kind kind;
    unsigned a, b;
    int64_t value;
};
struct world_conflict_seen {
    uint64_t at_ns;
    unsigned site;     /* index of the site that noticed */
    bool first;        /* no other site has before */
    unsigned rule;     /* enum conflict_rule of journal/merge.h: section 5 of the design */
    uint64_t id;       /* the same at every site */
    int winner, loser; /* indices of sites; -1: none */
    uint64_t winner_at_ns, loser_at_ns; /* when each side acted; 0: it is not known */
};
struct world_config {
    uint64_t seed;
    unsigned shards; /* 0: 2 */
    unsigned site_count;
    struct world_site sites[WORLD_SITES_MAX];
    struct world_link links[WORLD_SITES_MAX][WORLD_SITES_MAX]; /* from, to */
    uint32_t event_count;
    struct world_event events[WORLD_EVENTS_MAX]; /* ascending at_ns */
    bool model; /* keep the history, and ask the reference model what must be there in the end */
    bool lin;   /* look at every answer in shared directories (P1): up to WORLD_LIN_CALLS */
    uint32_t mount_reset_per_million; /* of answers that are lost with their connection */
    uint64_t work_until_ns;           /* mounts make no new calls after this */
    bool space;       /* look in the end whether what is no longer needed has gone */
    bool no_versions; /* former versions of files are not kept: they cost a walk now and then */
    uint32_t journal_age_s; /* journals are kept for so long for who is away; 0: as in production */
    uint64_t ahead_seed;    /* not 0: half of the mounts are not `-o sync` (sim/ahead.h) */
    uint64_t check_ns;      /* how often the checkers look; 0: 250 ms. For worlds of days */
    /* Observers; each may be NULL. Called while world_run runs; must not call back into it. */
    void *ctx;
    uint64_t sample_ns; /* how often sample() is called; 0: never */
    void (*sample)(void *ctx, const struct world *w, uint64_t now_ns);
    void (*event)(void *ctx, uint64_t now_ns, const struct world_event *e, const char *text);
    void (*conflict)(void *ctx, const struct world_conflict_seen *c); /* world_conflicts_look */
};
/* Sensible values: all sites linked both ways, 10 ms, 1 Gbit/s, quick disks, right clocks. */
void world_config_init(struct world_config *c, unsigned site_count, uint64_t seed);

/* ---- running ---- */

/* Makes the sites, pairs them through the product's own snapshots and waits until all are members:
 * virtual time 0 of the events is after that. c is copied. ERR_* with a sentence. */
int world_new(struct world **ret, const struct world_config *c, struct err_detail *d) MUST_CHECK;
void world_free(struct world *w);
/* Runs until virtual time until_ns. 0, or ERR_FATAL with world_failure(). */
int world_run(struct world *w, uint64_t until_ns) MUST_CHECK;
/* Ends all faults but sites lost for ever or removed, restarts what is down, and runs until all
 * living sites show the same tree and nothing is on its way, at most max_ns longer. ERR_TIMEOUT:
 * they do not. Where sites are to be left broken (enum world_broken) the same is done without them
 * first: what is not broken has to converge alone, in max_ns as well. *ret_took_ns: of the rest. */
int world_settle(struct world *w, uint64_t max_ns, uint64_t *ret_took_ns) MUST_CHECK;
/* When all have converged: when that was. */
uint64_t world_now_ns(const struct world *w);
/* What was found wrong first, or NULL. */
const char *world_failure(const struct world *w);
/* Over every event so far: equal for equal runs. */
uint64_t world_trace_hash(const struct world *w);

/* ---- looking ---- */

struct world_lag { /* of one direction, as the product measures it at the receiving end */
    bool known, up, held, by_clock;
    uint64_t lag_ns;
    uint64_t ops_to_go, bytes_to_go;
};
void world_lag(const struct world *w, unsigned from, unsigned to, struct world_lag *ret);
struct world_traffic { /* of one direction since the start */
    uint64_t bytes, writes, resets, stalls;
    uint64_t queued_max; /* bytes that waited in its queue at once, at most */
    uint64_t waits;      /* of senders that found it full */
};
void world_traffic(const struct world *w, unsigned from, unsigned to, struct world_traffic *ret);
struct world_site_stats {
    bool up, lost;
    uint64_t calls, calls_failed; /* answered to mounts; failed: with an error of the file system */
    uint64_t changes;             /* that were committed */
    uint64_t latency_ns_sum, latency_ns_max;
    uint64_t conflicts; /* that it knew at the last world_conflicts_look */
    uint64_t crashes;
    uint64_t disk_bytes;
};
void world_site_stats(const struct world *w, unsigned site, struct world_site_stats *ret);
/* Equal at sites that show the same tree; 0: the site is down. Costs a walk. */
uint64_t world_tree_hash(struct world *w, unsigned site);
/* The tree of a site as text, one path a line; for reports and for finding what differs. Owned by
 * the caller (mem_free). NULL: it is down. */
char *world_tree_text(struct world *w, unsigned site);
const struct world_config *world_config(const struct world *w);
/* Which of the checkers that cannot always look did, so far. */
struct world_looked {
    bool answers; /* P1 in shared directories */
    bool order;   /* P7: the order of every site's operations is known, all of it */
    bool model;   /* the reference model has said what the trees must be */
};
void world_looked(const struct world *w, struct world_looked *ret);

#endif
