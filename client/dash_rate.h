/* How fast one direction of a link goes, and when it will be through: from the samples of the last
 * seconds, not smoothed, so that it is right soon after a link is back. Core. */
#ifndef CLIENT_DASH_RATE_H
#define CLIENT_DASH_RATE_H

#include "base/util.h"

#define DASH_RATE_WINDOW_S 8.0
#define DASH_RATE_SAMPLES 32u /* two a second, with room */

struct dash_rate_sample {
    double at_s;  /* monotonic */
    double done;  /* operations, since some moment */
    double to_go; /* operations */
};
struct dash_rate {                                 /* starts zeroed */
    struct dash_rate_sample at[DASH_RATE_SAMPLES]; /* ring, the oldest at `first` */
    uint32_t first, count;
};

/* now_s does not go back. A step back of `done` (a counter of a stream that began anew) forgets
 * what was before. */
void dash_rate_see(struct dash_rate *r, double now_s, double done, double to_go);
/* Operations done a second, over the window. */
double dash_rate_per_s(const struct dash_rate *r);
/* Seconds until nothing is to go, as what is to go has shrunk since it was most; 0: nothing is;
 * negative: not known, it does not shrink. */
double dash_rate_left_s(const struct dash_rate *r);

#endif
