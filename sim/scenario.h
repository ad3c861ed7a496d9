/* A scenario: a world described in a text file by somebody who wants to know what a partition would
 * do to his own sites and links.
 *
 * The file is INI: `[section]`, `key = value`, comments after `;` or `#`. sim/README.md lists the
 * sections and keys. The parser is our own because a mistake is told with its line and its column.
 *
 * Pure but for scenario_load. Errors: ERR_CONFIG with a place and a sentence. */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include "sim/world.h"

#define SCENARIO_BYTES_MAX (256 * KIB)
#define SCENARIO_FAULTS_MAX 256u
#define SCENARIO_TIME_MAX (400 * 86400 * NS_PER_SEC)

/* Where a mistake is, and what: "found: expected". Line and column count from 1, columns bytes. */
struct scenario_error {
    unsigned line, column;
    char text[320];
};
/* One line of [events]: a fault that begins, and perhaps ends. */
struct scenario_fault {
    uint64_t from_ns, to_ns; /* to_ns 0: it has no end */
    enum world_event_kind begin, end;
    unsigned a, b;
    bool both;  /* directions of a link */
    bool flaps; /* cut and heal in turn, for about so long each */
    uint64_t down_ns, up_ns;
    int64_t value; /* of the event that begins it */
    unsigned line, column;
};
struct scenario {
    const char *file; /* of scenario_load, which does not copy it; NULL: it was no file */
    char title[96];
    char about[640];
    uint64_t seed, duration_ns;
    uint64_t settle_ns;        /* for the sites to become equal after the end, at most */
    struct world_config world; /* without events, seed and pauses */
    uint64_t rate_per_day[WORLD_SITES_MAX]; /* 0: as quickly as answers come */
    unsigned fault_count;
    struct scenario_fault faults[SCENARIO_FAULTS_MAX];
};

int scenario_parse(struct scenario *s, struct slice text, struct scenario_error *e) MUST_CHECK;
/* The same from a file; the sentence begins with "FILE:LINE:COLUMN: ". ERR_NOT_FOUND and others
 * when it cannot be read. `path` is needed as long as *s. */
int scenario_load(struct scenario *s, const char *path, struct err_detail *d) MUST_CHECK;
/* The world to run. `shorter` divides all times and numbers of operations, but not the rates: for
 * trying a long scenario out. ERR_CONFIG: there would be more events than a world can have. */
int scenario_world(const struct scenario *s,
                   uint64_t seed,
                   uint64_t shorter,
                   struct world_config *ret,
                   struct scenario_error *e) MUST_CHECK;
/* What the file calls a kind of work: "home". */
const char *scenario_work_name(enum world_workload kind);

#endif
