/* Virtual time: one queue of events, ordered by time and then by who asked first.
 *
 * Everything that happens in a world is an event of this queue: a disk write that ends, a packet
 * that arrives, a timer, a turn of a node's loop. Nothing else makes time pass. */
#ifndef SIM_SCHED_H
#define SIM_SCHED_H

#include "base/clock.h"

struct sched_event { /* embed it; zeroed is idle */
    void (*run)(struct sched_event *e);
    uint64_t at_ns, order; /* private */
    size_t heap_idx;       /* private; 0: idle, else position + 1 */
};
struct sched {
    uint64_t now_ns;
    uint64_t order;
    struct sched_event **heap;
    size_t count, cap;
    uint64_t hash;   /* over what happened: order matters */
    uint64_t events; /* run so far */
    struct rng rng;  /* of the world; the only source of chance in it */
    bool trace;      /* tell every noted event on stderr */
};
/* The running world's; there is one at a time. */
extern struct sched *sched;

void sched_init(struct sched *s, uint64_t seed);
void sched_deinit(struct sched *s);
void sched_at(struct sched_event *e, uint64_t at_ns); /* or moves it; the past is now */
static inline void sched_in(struct sched_event *e, uint64_t in_ns)
{
    sched_at(e, sched->now_ns + in_ns);
}
void sched_cancel(struct sched_event *e); /* no effect when idle */
static inline bool sched_waits(const struct sched_event *e)
{
    return e->heap_idx != 0;
}
/* Runs the next event if it is due by until_ns; else sets the time to until_ns. */
bool sched_step(uint64_t until_ns);
/* Mixes into the trace hash, and tells it when asked to. */
void sched_note(const char *what, uint64_t a, uint64_t b);

/* Draws from the world's generator. */
static inline bool sched_chance(uint32_t per_million)
{
    return per_million > 0 && rng_below(&sched->rng, 1000000) < per_million;
}

#endif
