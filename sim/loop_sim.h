/* The simulated twin of base/loop.c and base/pool.c: what the world tells it. */
#ifndef SIM_LOOP_SIM_H
#define SIM_LOOP_SIM_H

#include "base/loop.h"
#include "sim/sched.h"

struct disk;
struct loop;
struct rpc_server;
struct h2_net;

/* What a machine lends to the process on it; the world owns it, loops refer to it. */
struct machine {
    const struct clock *clock;
    struct disk *disk;
    struct loop *loop;         /* of the process; NULL: it has none */
    struct rpc_server *server; /* where mounts connect; NULL: nothing listens */
    struct h2_net *net;        /* of its WAN part */
    unsigned site;             /* index in the world */
    bool ghost; /* its process was killed: what is left of it only gives back its memory */
};
/* Loops made from now on run on this machine (node_open makes one). */
extern struct machine *machine_current;

/* Runs a turn soon, at the current time: something was handed to the loop. */
void loop_kick(struct loop *loop);
/* Until nothing more is to be done at this moment; for a ghost. */
void loop_drain(struct loop *loop);
/* loop_stop() was called: the node wants to end. */
bool loop_stopped(const struct loop *loop);
/* Power goes: what is under way at the disk is torn. */
void loop_tear(struct loop *loop);
/* Its process dies: what is under way at the disk is torn (loss of power; of a ghost it was, when
 * its power went) or ends. */
void loop_lose(struct loop *loop, bool power);

#endif
