/* Insides of a world, shared by world*.c and the checkers. */
#ifndef SIM_WORLD_INT_H
#define SIM_WORLD_INT_H

#include "sim/mount.h"
#include "sim/net.h"
#include "sim/process.h"
#include "sim/world.h"

#define WORLD_MOUNTS_MAX 64u

struct world {
    struct world_config config;
    struct sched sched;
    uint64_t began_ns; /* of the world's own time, in that of the queue */
    struct process sites[WORLD_SITES_MAX];
    site_id_t ids[WORLD_SITES_MAX];
    struct ledger ledger;
    struct mount mounts[WORLD_MOUNTS_MAX];
    unsigned mount_count;
    uint64_t conflicts[WORLD_SITES_MAX];
    struct world_conflicts *told; /* world_look.c; NULL: nobody asked */
    uint32_t event_next;
    struct sched_event event, sample, watch;
    struct { /* a site that is down comes back by itself */
        struct sched_event event;
        struct world *world;
    } restarts[WORLD_SITES_MAX];
    struct watch *watcher;
    uint64_t looks;                   /* of the checkers so far */
    uint64_t walked[WORLD_SITES_MAX]; /* records and waiting operations of the tree last walked */
    bool settling;                    /* the liveness phase */
    uint64_t clock_jumped_ns[WORLD_SITES_MAX]; /* in all, whichever way */
    bool faulty_disk[WORLD_SITES_MAX];         /* it was given a reason to stop */
    char failure[400];
};

void world_fail(struct world *w, const char *promise, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* world_check.c */
void world_check_now(struct world *w);   /* what must hold at every moment */
void world_check_final(struct world *w); /* after all sites have converged */
bool world_quiescent(struct world *w);   /* nothing is on its way, vectors are equal */
/* world_watch.c */
void watch_begin(struct world *w);
void watch_free(struct watch *t);
void watch_now(struct world *w);   /* at every look */
void watch_order(struct world *w); /* a look at who has what, for P7 */
/* What the reference model says of all that was committed; false: a site is lost, it cannot know.
 */
bool watch_model(struct world *w, struct buf *out);
void watch_final(struct world *w); /* P7 */
/* world_setup.c */
int world_setup(struct world *w, struct err_detail *d) MUST_CHECK;

#endif
