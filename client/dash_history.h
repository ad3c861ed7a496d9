/* What the dashboard remembers: for each other site a few numbers over time, in three grains.
 *
 * Samples come about once a second; each grain keeps, per step, the worst lag and the most to go,
 * and the mean rate. Steps without a sample are gaps (the daemon did not run). Bounded: see the
 * tables below. A core: the caller brings the time and writes the bytes to disk.
 * Threads: one at a time; the owner locks. */
#ifndef CLIENT_DASH_HISTORY_H
#define CLIENT_DASH_HISTORY_H

#include "base/buf.h"
#include "base/err.h"

#define DASH_GRAINS 3u
#define DASH_PEERS_MAX 64u

enum dash_value {
    DASH_LAG_IN, /* seconds */
    DASH_LAG_OUT,
    DASH_TO_GO_IN, /* operations */
    DASH_TO_GO_OUT,
    DASH_RATE_IN, /* operations a second */
    DASH_RATE_OUT,
    DASH_VALUES
};
struct dash_sample {
    float v[DASH_VALUES];
};

struct dash_history;
struct dash_history *dash_history_new(void);
void dash_history_free(struct dash_history *h); /* accepts NULL */
/* wall_s: seconds since 1970; a clock that was set back adds to the newest step. The 65th peer is
 * not remembered. */
void dash_history_add(struct dash_history *h,
                      const char *peer,
                      uint64_t wall_s,
                      const struct dash_sample *s);

struct dash_series {
    uint32_t step_s;  /* seconds between values */
    uint32_t count;   /* values, oldest first */
    uint64_t first_s; /* time of the first */
};
/* Of a grain (0: finest). False: nothing is known of this peer. */
bool dash_history_series(const struct dash_history *h,
                         const char *peer,
                         unsigned grain,
                         struct dash_series *ret);
/* NaN: a gap. */
float dash_history_value(const struct dash_history *h,
                         const char *peer,
                         unsigned grain,
                         uint32_t idx,
                         enum dash_value value);

void dash_history_encode(const struct dash_history *h, struct buf *out);
/* Replaces what h holds. ERR_CORRUPT, ERR_VERSION, ERR_TRUNCATED: h is as before. */
int dash_history_decode(struct dash_history *h, struct slice in) MUST_CHECK;

#endif
