/* A script of operations on the engines of two shards, for fuzz targets: every choice takes a byte
 * of the input. Operations decode but make no sense; each goes through the encoder and the decoder
 * first. */
#ifndef FUZZ_MERGE_SCRIPT_H
#define FUZZ_MERGE_SCRIPT_H

#include "journal/merge.h"

enum {
    SCRIPT_SHARDS = 2,
    SCRIPT_SITES = 3,
    SCRIPT_QUEUE_MAX = 4096
};

struct script {
    const uint8_t *at, *end; /* what is left of the input */
    struct state *states[SCRIPT_SHARDS];
    struct merge *shards[SCRIPT_SHARDS];
    struct script_port {
        struct script *script;
        unsigned from;
    } ports[SCRIPT_SHARDS];
    struct buf queue[SCRIPT_QUEUE_MAX]; /* derived messages, in order */
    uint8_t queue_to[SCRIPT_QUEUE_MAX];
    uint32_t queued, handled;
    uint64_t hlc;
    struct op_arena arena;
    bool damaged; /* rows were changed behind the engine: it may refuse, and be at odds with itself
                   */
    bool refused; /* it did */
};

void script_init(struct script *w, const uint8_t *data, size_t size);
void script_deinit(struct script *w);
uint8_t script_next(struct script *w); /* 0 behind the end */
/* Opens the engines anew on their states. Ends early, with `refused`, only when damaged. */
void script_reopen(struct script *w);
void script_op(struct script *w);
void script_repairs(struct script *w);
void script_collect(struct script *w);
void script_look(struct script *w); /* the engine's own check, and the root's listing */

#endif
