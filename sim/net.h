/* The network between sites: directed links with latency, bandwidth and its queue, stalls and cuts,
 * and TCP-like connections over them.
 *
 * A connection is two pipes. What is put into a pipe comes out at the other end whole and in order,
 * or not at all when the connection breaks; a cut delays it until after the heal, as TCP's
 * retransmissions do. Nobody is told of a cut: the ends notice the silence.
 *
 * What has not gone out yet for lack of bandwidth waits in the link's queue, which all connections
 * that go that way share. It has a bound, which senders keep: whoever finds no net_room() says so
 * by net_wait() and sends nothing until room() says that it is its turn. Turns come in the order
 * of waiting, each when half of the queue is free. */
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
    void (*room)(struct net_end *e);                       /* after net_wait(), once */
    struct net_conn *conn;                                 /* private; NULL: none */
    unsigned side;                                         /* private */
    bool waits;                                            /* private; for room */
    struct net_end *waits_next;                            /* private */
};
struct net_traffic {
    uint64_t bytes, writes, resets, stalls;
    uint64_t queued_max; /* bytes that waited at once, at most */
    uint64_t waits;      /* of senders that found the queue full */
};

void net_init(const struct world_config *c);
void net_deinit(void);
/* Opens a connection from site a to b; the message arrives at accept(), which attaches its end. */
void net_dial(struct net_end *e, unsigned a, unsigned b, struct net_msg *first);
typedef void (*net_accept_cb)(void *ctx, struct net_conn *c, struct net_msg *first); /* takes it */
void net_listen(unsigned site, net_accept_cb cb /* NULL: nobody listens */, void *ctx);
void net_attach(struct net_conn *c, struct net_end *e); /* the accepting side */
unsigned net_peer(const struct net_end *e);             /* the other side's site */
/* Takes m. Also when there is no room: what is little and cannot wait (a first message, an end). */
void net_send(struct net_end *e, struct net_msg *m);
/* Bytes that the queue takes now; 0 while it waits for its turn, and without a connection. */
size_t net_room(const struct net_end *e);
void net_wait(struct net_end *e); /* e has a connection; no effect when it waits already */
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
