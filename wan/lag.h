/* Lag of one direction of one link, measured (section 7 of the design).
 *
 * Seconds behind are the time since the source's safe point was where this site is now. When that
 * was, in the measurer's own clock, is known from the heartbeats: a mark is kept of each that is
 * not applied yet, so it does not matter how the source's clock goes, or is set. Between two marks
 * it is told by the source's clock, as far as that fits in between, and where that stood still by
 * the first of them; before all marks by the source's clock alone. So an idle link shows 0, because
 * the last mark moves while there is nothing new, and a broken one grows second by second (W7). A
 * core. */
#ifndef WAN_LAG_H
#define WAN_LAG_H

#include "base/util.h"

/* A healthy link is heard of twice a second; up to this silence counts as none. */
#define LAG_FRESH_NS (1500 * NS_PER_MS)

/* The older they are the fewer are kept: gaps are a fraction of the age. */
#define LAG_MARKS_MAX 128u

struct lag {
    struct lag_mark { /* ascending but for the clock; all but the first above what is applied */
        uint64_t hlc; /* the source's safe point, */
        uint64_t clock_hlc; /* and its clock, but not below that; */
        uint64_t at_ns;     /* mono: as they were then, last */
    } marks[LAG_MARKS_MAX];
    uint32_t mark_count;
    uint64_t applied_hlc;                /* everything up to here has arrived */
    uint64_t waits_hlc;                  /* but from here on it waits; 0: all is applied */
    uint64_t began_ns;                   /* mono: when measuring began */
    uint64_t start_ns;                   /* lag when measuring began, known from before */
    bool up;                             /* the link, as far as is known */
    uint64_t ops_total, bytes_total;     /* sent and to send in this stream, as last heard */
    uint64_t ops_applied, bytes_applied; /* of this stream */
};
/* before_ns: lag that is known from an earlier run, else 0. */
void lag_init(struct lag *l, uint64_t now_ns, uint64_t before_ns);
void lag_up(struct lag *l); /* a stream begins: its counts start at 0 */
void lag_down(struct lag *l);
/* The source's safe point: all up to it is committed, and nothing will come below it. 0: it is not
 * known. One that falls (the source has begun anew) makes what was heard since unknown. */
void lag_hear(struct lag *l, uint64_t now_ns, uint64_t safe_hlc, uint64_t clock_hlc);
void lag_hear_totals(struct lag *l, uint64_t ops, uint64_t bytes);
void lag_apply(struct lag *l, uint64_t hlc, uint64_t ops, uint64_t bytes);
/* What has arrived waits since its source's `hlc`, for the cut of a site that leaves say, and is as
 * much behind as what is under way; 1: since before measuring began; 0: nothing does. */
void lag_wait(struct lag *l, uint64_t hlc);
uint64_t lag_applied(const struct lag *l); /* everything up to here is applied */
uint64_t lag_ns(const struct lag *l, uint64_t now_ns);
/* What is applied is of before the first heartbeat that was heard: the lag is told by the source's
 * clock, whatever became of that meanwhile. */
bool lag_is_by_clock(const struct lag *l);
uint64_t lag_ops(const struct lag *l);
uint64_t lag_bytes(const struct lag *l);

/* How long a heartbeat was under way beyond the shortest time of late, in the receiver's clock:
 * what arrives after a line stood still was said before it did. The two clocks need not agree, so
 * only differences of arrival and stamp are compared, as LEDBAT's base delay (RFC 6817,
 * section 3.4.2); the base forgets in half a minute of hearing, and at once when the source's clock
 * was set back. */
#define DELAY_WINDOW_NS (15 * NS_PER_SEC)
struct delay {
    bool known;
    int64_t base_ns[2]; /* least difference: of this window, and of the one before */
    uint64_t window_ns; /* mono: when this window began */
    uint64_t stamp_ns;  /* the newest stamp */
};
uint64_t delay_age(struct delay *d, uint64_t now_ns, uint64_t stamp_ns);

/* Clock difference and round trip from pairs of time stamps, as in NTP: of the last eight pairs
 * the one with the shortest round trip counts, because it has the smallest error. */
#define SKEW_SAMPLES 8u
struct skew {
    uint32_t count, at;
    struct {
        int64_t ahead_ns; /* the peer's clock minus mine */
        uint64_t rtt_ns;
    } samples[SKEW_SAMPLES];
};
/* I sent at t1, the peer got it at t2 and answered at t3, I got that at t4. Nonsense is ignored. */
void skew_add(struct skew *s, uint64_t t1, uint64_t t2, uint64_t t3, uint64_t t4);
bool skew_get(const struct skew *s, int64_t *ret_ahead_ns, uint64_t *ret_rtt_ns);

#endif
