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
    bool joined[WORLD_SITES_MAX];  /* a member, or was one */
    bool removed[WORLD_SITES_MAX]; /* by an operator, or on the way to it */
    struct errand *errands;        /* operator.c */
    struct away *away;             /* away.c; NULL: nobody is given up */
    struct {                       /* a site that is down comes back by itself */
        struct sched_event event;
        struct world *world;
    } restarts[WORLD_SITES_MAX];
    struct watch *watcher;
    struct rules *rules;
    struct reading *reading; /* of world_read.c: one without an answer gets it from a node's end */
    uint64_t looks;          /* of the checkers so far */
    uint64_t walked[WORLD_SITES_MAX];  /* records and waiting operations of the tree last walked */
    struct oid twice[WORLD_SITES_MAX]; /* met twice at the last look, or none */
    bool settling;                     /* the liveness phase */
    uint64_t settled_ns;               /* when all had converged; 0: not yet */
    bool out[WORLD_SITES_MAX]; /* left broken for now: the others have to converge without it */
    bool model_asked;          /* the reference model has said what must be there */
    uint64_t clock_jumped_ns[WORLD_SITES_MAX]; /* in all, whichever way */
    bool faulty_disk[WORLD_SITES_MAX];         /* it was given a reason to stop */
    uint64_t broken_ns[WORLD_SITES_MAX];       /* since when its state cannot be read; 0: it can */
    bool rotten[WORLD_SITES_MAX];              /* something on its disk changed by itself */
    uint64_t disk_bad_ns[WORLD_SITES_MAX];     /* when a look last found it full or failing */
    struct {
        bool waits;
        uint64_t down_ns;                 /* how long it will be */
        uint64_t durable;                 /* records on its disks at the last look */
        uint64_t off_ns;                  /* then power goes; 0: there was no such moment yet */
    } split[WORLD_SITES_MAX];             /* WORLD_SPLIT */
    unsigned starts_cut[WORLD_SITES_MAX]; /* in so many of its next starts power goes */
    char failure[400];
};

void world_fail(struct world *w, const char *promise, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Is it one of those that must agree in the end? */
static inline bool world_stays(const struct world *w, unsigned site)
{
    return w->joined[site] && !w->removed[site] && !w->sites[site].lost;
}
/* Must it agree with the others when all is over that is not left broken? */
static inline bool world_counts(const struct world *w, unsigned site)
{
    return world_stays(w, site) && !w->out[site];
}
void world_site_up(struct world *w, unsigned site); /* starts it, if it is down and not lost */
/* Its node dies now, and is back after a while. */
void world_strike(unsigned site, bool power, uint64_t back_ns);
bool world_has_joined(const struct world *w, unsigned site); /* its node says so */
void world_joined(struct world *w, unsigned site);           /* its mounts begin */
/* world_check.c */
/* A shard without room refuses parts of what others have done. */
bool world_parts_held(const struct world *w, unsigned site);
uint64_t world_parts(const struct world *w, unsigned site); /* between shards, on their way */
bool world_may_look(struct world *w, unsigned site);        /* it shows what it has */
void world_check_now(struct world *w);                      /* what must hold at every moment */
void world_check_core(struct world *w);  /* after those that are not left broken have converged */
void world_check_final(struct world *w); /* after all sites have converged */
/* The cut of each site that was removed is known there, and all up to it has arrived. */
bool world_removals_over(const struct world *w, struct node *n);
bool world_can_read(const struct world *w, unsigned site); /* its states; it is up */
bool world_quiescent(struct world *w); /* nothing is on its way, vectors are equal */
/* Why not, and where; NULL: it is. */
const char *world_unrest(struct world *w, unsigned *ret_site);
void world_check_space(struct world *w); /* world_space.c */
/* world_read.c: every content that is made of chunks, at every site */
void world_read_all(struct world *w);
/* world_watch.c */
void watch_begin(struct world *w);
void watch_free(struct watch *t);
void watch_now(struct world *w);   /* at every look */
void watch_order(struct world *w); /* a look at who has what, for P7 */
/* What the reference model says of all that was committed; false: a site is lost, it cannot know.
 */
bool watch_model(struct world *w, struct buf *out);
void watch_final(struct world *w);                 /* P7 */
bool watch_knows_order(const struct world *w);     /* of all that each site has issued so far */
void watch_new_id(struct world *w, unsigned site); /* it is another site from now on */
/* Would its disks alone, as they are, show an operation of another site without one committed
 * before it? What the site itself calls durable never would (P7). */
bool watch_disks_split(struct world *w, unsigned site);
/* world_lag.c: nothing is to go when all is there. Runs for a few seconds. */
void world_check_lag(struct world *w);
void world_check_conflicts(struct world *w); /* world_conflict.c */
/* world_touch.c */
void touch_begin(struct world *w);                        /* NULL: the world is over */
void touch_note(const struct node *n, struct oid dir);    /* a name in it shows otherwise */
void touch_content(const struct node *n, struct oid oid); /* it shows another content */
void touch_look(struct world *w);                         /* after every event */
/* world_rules.c */
void rules_begin(struct world *w);
void rules_free(struct world *w);
void rules_add(struct world *w, struct slice op); /* each that is committed, once or more */
struct op_builder;
void rules_touch(struct world *w, struct node *n, const struct op_builder *b); /* of a call */
void rules_clock(struct world *w, unsigned site); /* at every look, and before a clock jumps */
void rules_rights(struct world *w);               /* when all that was committed is known */
/* world_split.c */
void split_arm(struct world *w, unsigned site, uint64_t down_ns);
void split_look(struct world *w); /* after every event */
/* world_power.c */
void power_arm(struct world *w, unsigned site, int64_t value); /* WORLD_STEP */
void power_starts(struct world *w, unsigned site);             /* before it does */
void power_calm(struct world *w, unsigned site);               /* it does not go any more */
void power_look(struct world *w); /* after an event in which it went somewhere */
/* world_setup.c */
int world_setup(struct world *w, struct err_detail *d) MUST_CHECK;

#endif
