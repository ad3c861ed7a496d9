/* Running a scenario, and what was seen meanwhile: the stuff that reports are made of. */
#ifndef SIM_RUN_H
#define SIM_RUN_H

#include "sim/scenario.h"

struct run_point { /* of one direction at one time */
    struct world_lag lag;
    uint64_t bytes; /* since the start */
};
struct run_site_point {
    bool up;
    uint64_t calls, changes, conflicts; /* since the start */
};
struct run_event {
    uint64_t at_ns;
    struct world_event event;
    bool both;        /* directions of a link at once: it stands for two */
    const char *text; /* static */
};
/* A direction that carried nothing, or a site that was down. */
struct run_span {
    uint64_t from_ns, to_ns;
    unsigned a, b; /* equal: the site was down */
    bool lost;     /* for ever */
};
struct run_heal {
    uint64_t at_ns;
    uint64_t took_ns; /* until every site had what had been done anywhere by then */
    bool reached;
};
/* Filled in by run_scenario; run_deinit accepts zeroed. Times are those of the world. */
struct run {
    const struct scenario *scenario; /* borrowed */
    struct world_config config;      /* what was run */
    uint64_t seed, shorter;
    unsigned sites;
    uint64_t ended_ns;  /* the scenario's end; then the liveness phase */
    uint64_t settle_ns; /* until all were equal after that */
    bool settled;
    struct world_looked looked;
    char failure[400]; /* empty: all promises held, as far as the checkers look */
    uint64_t hash, tree[WORLD_SITES_MAX]; /* of the run; of what each site shows in the end */
    struct world_site_stats site_stats[WORLD_SITES_MAX];
    struct world_traffic traffic[WORLD_SITES_MAX][WORLD_SITES_MAX];

    size_t point_count, point_cap; /* moments at which was looked */
    uint64_t *at_ns;
    struct run_point *points;           /* [moment][from][to] */
    struct run_site_point *site_points; /* [moment][site] */
    size_t event_count, event_cap;
    struct run_event *events;
    size_t span_count, span_cap;
    struct run_span *spans;
    size_t heal_count, heal_cap; /* of heals which something else did not interrupt */
    struct run_heal *heals;
    size_t conflict_count, conflict_cap;
    struct world_conflict_seen *conflicts; /* by the first site each, in order */
    char *conflicts_json[WORLD_SITES_MAX]; /* as each site tells them in the end; or NULL */
};

/* progress NULL: nobody wants to know; else called now and then with virtual times. ERR_CONFIG: no
 * such world; ERR_FATAL: a promise was broken (run->failure), and what was seen is there. */
int run_scenario(const struct scenario *s,
                 uint64_t seed,
                 uint64_t shorter,
                 void (*progress)(uint64_t now_ns, uint64_t end_ns),
                 struct run *ret,
                 struct err_detail *d) MUST_CHECK;
void run_deinit(struct run *r);
/* A moment's points. */
const struct run_point *run_point(const struct run *r, size_t moment, unsigned from, unsigned to);
/* The last heal that was not interrupted before all had caught up, or NULL. */
const struct run_heal *run_last_heal(const struct run *r);

#endif
