/* The simulated twin of site/rpc_server.c: mounts in this process, without sockets. */
#ifndef SIM_RPC_SIM_H
#define SIM_RPC_SIM_H

#include "sim/loop_sim.h"
#include "site/rpc.h"

struct rpc_peer {                                                 /* the mount's end; embed */
    void (*frame)(struct rpc_peer *p, const struct rpc_frame *f); /* a reply or a push */
    void (*closed)(struct rpc_peer *p); /* the node, or its process, has gone */
    struct rpc_conn *conn;              /* private; NULL: not connected */
};
/* Of all replies and pushes, so many in a million are lost with their connection. */
extern uint32_t rpc_sim_lost_per_million;
/* False: nothing listens there. */
bool rpc_sim_connect(struct machine *m, struct rpc_peer *p);
void rpc_sim_send(
    struct rpc_peer *p, uint16_t type, uint64_t id, struct slice body, struct slice bulk);
void rpc_sim_leave(struct rpc_peer *p); /* the mount goes; no more callbacks */
/* The machine's process died: its connections break, silently for itself. */
void rpc_sim_break(struct machine *m);

#endif
