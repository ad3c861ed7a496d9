/* One replica (node 1 of three) on a table: events are said to it, its effects are looked at. */
#ifndef TESTS_REPLICA_ONE_H
#define TESTS_REPLICA_ONE_H

#include "site/replica.h"

struct one {
    struct replica *core;
    struct replica_effects effects;
    uint64_t now_ns, stamp, seq;
    struct shard_record record; /* as stored */
    uint64_t request;           /* of the last ASK or SWAP */
    bool swap;
    struct shard_record wanted; /* of the last SWAP */
};
void one_step(struct one *f, struct replica_event e, int expected);
void one_tick(struct one *f, uint64_t in_ns);
const struct replica_effect *one_found(const struct one *f, enum replica_effect_kind kind);
bool one_sent(const struct one *f, uint64_t node, struct replica_msg *ret); /* the first to node */
void one_open(struct one *f, struct replica_config c);
void one_close(struct one *f);
void one_answer(struct one *f); /* the coordinator, to the last request */
void one_message(struct one *f, struct replica_msg m, int expected);
/* From a node that has the journal up to index on disk. */
void one_reply(struct one *f, uint64_t node, uint64_t index);
/* Of node 2, as primary since the record `base`: `count` records after `index`. */
void one_append(struct one *f,
                uint64_t epoch,
                uint64_t index,
                uint64_t index_epoch,
                uint64_t base,
                uint32_t count);
void one_propose(struct one *f, uint64_t index);
void one_durable(struct one *f, uint64_t index);
/* Node 1 leads epoch 2 with a journal of five records; all three are in sync, nothing is committed
 * yet. */
void one_lead(struct one *f);
void one_serve(struct one *f); /* and now all five are */
/* Node 1 is in sync and follows node 2 in epoch 3; its journal has five records of epoch 1. */
void one_follow(struct one *f);

#endif
