/* Private to sim/replicas*.c. */
#ifndef SIM_REPLICAS_INT_H
#define SIM_REPLICAS_INT_H

#include "journal/log.h"
#include "sim/disk.h"
#include "sim/loop_sim.h"
#include "sim/replicas.h"
#include "site/replica.h"

#define REPLICAS_NODES 3u
#define REPLICAS_COORDINATOR REPLICAS_NODES /* as a place in the network */
#define REPLICAS_REGISTERS 8u
#define REPLICAS_RECORDS_MAX 20000u
#define REPLICAS_EVENTS_MAX 256u

struct replicas;

struct replicas_entry { /* a record as the checkers know it */
    uint64_t epoch, id; /* id: of the write */
};
/* What a node keeps beside its journal, replaced atomically: the state and two marks. */
struct replicas_state {
    uint64_t life, index;
    uint64_t registers[REPLICAS_REGISTERS]; /* ids of the writes that they hold */
    uint64_t blank;                         /* the copy may lack what it called durable */
    uint64_t copying;                       /* the journal does not reach the state yet */
};
struct replicas_node {
    struct replicas *world;
    unsigned number;
    char dir[24];
    struct machine machine;
    struct clock clock;
    int64_t offset_ns, drift_ppm;
    struct loop *loop; /* NULL: it is down */
    struct log *log;
    struct replica *core;
    struct replica_effects effects;
    struct loop_timer tick;
    struct replica_event events[REPLICAS_EVENTS_MAX]; /* not told to the core yet */
    uint8_t *event_bytes[REPLICAS_EVENTS_MAX];
    unsigned event_count;
    bool telling, dying, broken;
    uint64_t start; /* counts runs */
    uint64_t hlc, saved_ns;
    struct replicas_state state; /* in memory; the file has an older one */
    uint64_t stored;             /* index of that */
    struct replicas_entry entries[REPLICAS_RECORDS_MAX + 1]; /* of the journal, as in it */
    struct sched_event restart, heal;
};
struct replicas_op { /* a write that waits for its answer */
    uint64_t id, index, floor;
    unsigned node;
};
struct packet;
struct replicas {
    struct sched sched;
    const struct soak_options *options;
    struct replicas_node nodes[REPLICAS_NODES];
    struct shard_record record; /* the coordinator */
    bool cut[REPLICAS_NODES + 1][REPLICAS_NODES + 1];
    uint32_t loss_per_million, repeat_per_million, late_per_million;
    uint64_t delay_ns;
    uint64_t segment_bytes;
    bool healed;
    /* what is known */
    struct replicas_entry truth[REPLICAS_RECORDS_MAX + 1];
    uint64_t truth_last;
    uint64_t acked;    /* highest index that anybody was told of */
    uint64_t promised; /* highest stamp below which nothing may come */
    uint64_t ids, answered, copies;
    struct replicas_op ops[REPLICAS_EVENTS_MAX];
    unsigned op_count;
    struct sched_event client, fault, power;
    struct packet *packets; /* under way */
    uint64_t client_pause_ns;
    char failure[400];
};
void replicas_fail(struct replicas *w, const char *promise, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* replicas_net.c */
void replicas_net_deinit(struct replicas *w); /* what is under way is lost */
void replicas_message(struct replicas *w, unsigned from, unsigned to, struct slice bytes);
void replicas_ask(struct replicas_node *n, const struct replica_effect *e); /* ASK or SWAP */

/* replicas_node.c */
void replicas_node_init(struct replicas *w, unsigned number, const struct world_disk *disk);
void replicas_node_deinit(struct replicas_node *n);
void replicas_node_start(struct replicas_node *n);
void replicas_node_crash(struct replicas_node *n, bool power);
void replicas_node_wipe(struct replicas_node *n); /* while it is down: a new disk */
void replicas_tell(struct replicas_node *n, struct replica_event e, uint8_t *bytes /* taken */);
uint64_t replicas_now_ns(const struct replicas_node *n);
bool replicas_serves(const struct replicas_node *n);
uint64_t replicas_stamp(struct replicas_node *n);
/* Appends a write as the primary; its index, 0: the disk does not take it. */
uint64_t replicas_append(struct replicas_node *n, uint64_t id);

/* replicas.c: what nodes tell the checkers */
void replicas_committed(struct replicas_node *n, uint64_t index);
void replicas_dropped(struct replicas_node *n);
void replicas_began_to_serve(struct replicas_node *n);
void replicas_check_one_serves(struct replicas *w);

#endif
