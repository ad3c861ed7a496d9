/* The network between three nodes that keep a site's shards together, and the site's coordinator:
 * what a node says to another one, or to the coordinator, becomes a packet; whoever has the network
 * decides when it arrives, how often, or that it is lost. Packets are not ordered.
 *
 * Normal path: shards call what trio_end_init() and trio_end_events() have set, a packet goes to
 * carry(), and from there, later, into trio_packet_arrive(), which hands it to a shard. Failure
 * path: trio_packet_free() instead. The coordinator is a register for each shard that swaps; it
 * does one thing after the other, which makes it linearizable. Pure: no loop, no clock. */
#ifndef SIM_TRIO_NET_H
#define SIM_TRIO_NET_H

#include "site/shard_peers.h"

#define TRIO_NODES 3u
#define TRIO_COORDINATOR TRIO_NODES /* as a place in the network */
#define TRIO_SHARDS_MAX 4u

enum trio_word {
    TRIO_WORD_PEER,      /* between the copies of a shard */
    TRIO_WORD_DELIVER,   /* a message of another shard */
    TRIO_WORD_DELIVERED, /* it is there */
    TRIO_WORD_ASK,       /* to the coordinator */
    TRIO_WORD_SAYS       /* its answer */
};

struct trio_net;
struct trio_packet {
    struct trio_net *net;
    struct trio_packet *next, **at; /* of net->packets, and where in it this one hangs */
    enum trio_word word;
    unsigned from, to;
    shard_id_t shard, other; /* other: of DELIVER and DELIVERED, the other shard */
    enum record_type type;   /* of DELIVER */
    uint64_t number;         /* of a message between shards; of what is asked */
    uint8_t *bytes;
    size_t len;
    uint64_t start; /* of the node that asks: an answer to an earlier run is lost with it */
    bool swap;
    int rc;
    struct shard_record record;
    void *carrier; /* whoever carries it may keep something here; it is freed */
};

/* A node's end of the network; embedded, and the ctx of all that it sets. */
struct trio_end {
    struct trio_net *net;
    unsigned number;
    struct shard **shards; /* the node's */
    uint64_t start;        /* counts the node's runs */
    bool mute;             /* says nothing */
};

struct trio_net {
    struct trio_end *ends[TRIO_NODES];
    struct shard_record records[TRIO_SHARDS_MAX]; /* the coordinator's */
    bool hold;                                    /* messages between shards get lost */
    struct trio_packet *packets;                  /* under way */
    /* Takes it; trio_packet_arrive() or trio_packet_free() later, or now. */
    void (*carry)(struct trio_packet *p);
    /* Does a node take this now? Else it is lost. */
    bool (*hears)(struct trio_end *e, const struct trio_packet *p);
    /* A node refuses what another one sent. */
    void (*refused)(const struct trio_packet *p, int rc);
};

/* Node `number` + 1 of its site, in shard_peers. Sets node, nodes, node_count, send, ask, swap and
 * ctx of `peers`. */
void trio_end_init(struct trio_end *e,
                   struct trio_net *net,
                   unsigned number,
                   struct shard **shards,
                   struct shard_peers *peers);
/* All but `conflict` and `failed`; what is not about messages is nobody's business. */
void trio_end_events(struct trio_end *e, struct shard_events *events);
void trio_site_name(void *ctx, site_id_t site, char out[33]);

struct trio_packet *trio_packet_copy(const struct trio_packet *p);
void trio_packet_arrive(struct trio_packet *p); /* and frees it */
void trio_packet_free(struct trio_packet *p);

#endif
