/* What `claudefs status` shows and what it means, from the daemon's JSON. Pure. */
#ifndef CLIENT_STATUS_TEXT_H
#define CLIENT_STATUS_TEXT_H

#include <jansson.h>

#include "base/buf.h"

/* Also the exit status of the command. */
enum status_health {
    STATUS_IN_STEP = 0,
    STATUS_LAGGING = 1,    /* some site is further behind than it may be */
    STATUS_UNREACHABLE = 2 /* some site cannot be reached, or replication with it has stopped */
};
/* Paused sites count by their lag only: somebody wanted that. */
enum status_health status_health(const json_t *status, double lag_max_s);
const char *status_health_text(enum status_health h); /* as in JSON: "in_step" */

/* What the last look left, for rates and the time that is left; zeroed at first. */
struct status_before {
    double at_s;
    json_t *status; /* owned; status_before_deinit */
};
void status_before_deinit(struct status_before *b);

/* A screenful: lines of at most `width` columns, each with its newline. `before` is replaced. */
void status_text(json_t *status,
                 double lag_max_s,
                 double now_s,
                 struct status_before *before,
                 size_t width,
                 struct buf *ret);

/* How far a number that goes down from `total` has come: "[#####-----]  50 %". */
void progress_text(uint64_t left, uint64_t total, struct buf *ret);

#endif
