/* A machine of a site with its disk, its clock, and the daemon that runs on it: the product's node
 * and its WAN part, started and ended as `claudefs serve` does. */
#ifndef SIM_PROCESS_H
#define SIM_PROCESS_H

#include "sim/disk.h"
#include "sim/loop_sim.h"
#include "sim/world.h"
#include "wan/wan.h"

struct process {
    struct machine machine;
    struct clock clock;
    struct world_clock config; /* offset moves when the clock jumps */
    uint64_t segment_bytes, checkpoint_bytes, garbage_ns;
    char dir[24];
    struct node *node; /* NULL: it is down */
    struct wan *wan;
    bool lost; /* for ever */
    uint64_t crashes;
};

void process_init(struct process *p, unsigned site, const struct world_site *config);
void process_deinit(struct process *p);
/* Makes the site's directory. */
int process_create(struct process *p,
                   const struct site_settings *settings,
                   struct err_detail *d) MUST_CHECK;
/* ERR_CLOSED: its power went meanwhile (disk_power_off_in()). */
int process_start(struct process *p, struct err_detail *d) MUST_CHECK;
/* It was stopped (loop_stopped()), and ends by itself. */
void process_close(struct process *p);
/* It dies between two instructions. `power`: the machine with it. */
void process_crash(struct process *p, bool power);
/* The queue's time at which its wall clock, as it goes now, showed this. */
uint64_t process_true_ns(const struct process *p, uint64_t wall_ns);
/* Why it wants to end, or NULL: it runs, or is down. */
const char *process_ended(const struct process *p);
/* It is up, and has not ended: what it holds in memory may be looked at. */
bool process_serves(const struct process *p);

#endif
