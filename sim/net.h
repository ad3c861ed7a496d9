/* The network between sites: directed links with latency, bandwidth, stalls and cuts, and TCP-like
 * connections over them.
 *
 * A connection is two pipes. What is put into a pipe comes out at the other end whole and in order,
 * or not at all when the connection breaks; a cut delays it until after the heal, as TCP's
 * retransmissions do. Nobody is told of a cut: the ends notice the silence. */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "sim/sched.h"
#include "sim/world.h"

struct net_msg { /* embed first; freed by the receiver of deliver or drop */
    struct net_msg *next;
    uint64_t arrives_ns;
    size_t bytes;
};
struct net_conn;
struct net_end {                                           /* one side's callbacks; embed */
    void (*deliver)(struct net_end *e, struct net_msg *m); /* takes m */
    void (*broken)(struct net_end *e);                     /* reset: nothing more comes or goes */
    struct net_conn *conn;                                 /* private; NULL: none */
    unsigned side;                                         /* private */
};
struct net_traffic {
    uint64_t bytes, writes, resets, stalls;
};

void net_init(const struct world_config *c);
void net_deinit(void);
/* Opens a connection from site a to b; the message arrives at accept(), which attaches its end. */
void net_dial(struct net_end *e, unsigned a, unsigned b, struct net_msg *first);
typedef void (*net_accept_cb)(void *ctx, struct net_conn *c, struct net_msg *first); /* takes it */
void net_listen(unsigned site, net_accept_cb cb /* NULL: nobody listens */, void *ctx);
void net_attach(struct net_conn *c, struct net_end *e); /* the accepting side */
unsigned net_peer(const struct net_end *e);             /* the other side's site */
void net_send(struct net_end *e, struct net_msg *m);    /* takes m */
/* No more callbacks for this end; `quiet`: the other one is told nothing (its machine is gone). */
void net_leave(struct net_end *e, bool quiet);

void net_cut(unsigned a, unsigned b, bool cut); /* of the direction a to b */
bool net_is_cut(unsigned a, unsigned b);
void net_slow(unsigned a, unsigned b, uint64_t factor);
void net_reset(unsigned a, unsigned b); /* connections between the two break, at both ends */
/* A machine without power answers nothing; one without the process refuses connections. */
void net_power(unsigned site, bool on);
void net_quiet(bool quiet); /* no stalls and resets any more */
const struct net_traffic *net_traffic(unsigned a, unsigned b);

#endif
