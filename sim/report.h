/* What a run of a scenario looks like: as text, as JSON, as a page. */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "base/buf.h"
#include "sim/run.h"

/* report: of the same run. */
void report_text(const struct run *r, const json_t *report, FILE *to);
/* Everything, as docs/json.md describes it. */
json_t *report_json(const struct run *r);
/* One page that needs nothing else, with that JSON inside. */
void report_html(const json_t *report, struct buf *out);

/* "1.234 s", "5 min 3 s", "6 d 4 h" */
#define REPORT_TIME_BYTES 32u
const char *report_time(uint64_t ns, char to[REPORT_TIME_BYTES]);
/* "1.2 MB" */
const char *report_bytes(uint64_t bytes, char to[REPORT_TIME_BYTES]);
/* What happened, in words: "berlin -> seattle cut" */
void report_event(const struct run *r, const struct run_event *e, char *to, size_t cap);

#endif
