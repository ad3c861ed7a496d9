/* Private to scenario*.c: words of a line, and values with units. */
#ifndef SIM_SCENARIO_INT_H
#define SIM_SCENARIO_INT_H

#include "sim/scenario.h"

#define WORDS_MAX 12u

struct word {
    struct slice text; /* empty: the line ends here */
    unsigned column;
};
struct scan {
    struct scenario *s;
    struct scenario_error *e;
    unsigned line;
};
enum unit {
    UNIT_TIME,   /* ns */
    UNIT_SPEED,  /* bytes a second */
    UNIT_SIZE,   /* bytes */
    UNIT_RATE,   /* a day */
    UNIT_CHANCE, /* of a million */
    UNIT_PPM,
    UNIT_COUNT,
    UNIT_FACTOR,
    UNIT_KIND_END
};

/* Writes the sentence: "\"found\": expected ...". Returns ERR_CONFIG. */
int scan_fail(struct scan *sc, const struct word *at, const char *expected_fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool word_is(const struct word *w, const char *text);
/* A number with its unit, from 0 (or from 1, if `positive`) to max. */
int scan_value(struct scan *sc, const struct word *w, enum unit unit, uint64_t max, uint64_t *ret)
    MUST_CHECK;
/* The same with a sign in front, which may be missing. */
int scan_signed(struct scan *sc, const struct word *w, enum unit unit, int64_t max, int64_t *ret)
    MUST_CHECK;
int scan_site(struct scan *sc, const struct word *w, unsigned *ret) MUST_CHECK;
/* "A B" or "A -> B" from *words on; returns how many words it was, or ERR_CONFIG. */
int scan_pair(struct scan *sc, const struct word *words, unsigned *a, unsigned *b, bool *both)
    MUST_CHECK;
/* scenario_event.c: one line of [events]. */
int scan_event(struct scan *sc, const struct word *when, const struct word *words) MUST_CHECK;

#endif
