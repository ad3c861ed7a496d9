/* The report as text, for a terminal. See report.h. */
#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "sim/report.h"

#define CURVE_COLUMNS 60u
#define EVENTS_MAX 40u
#define CONFLICTS_MAX 20u

const char *report_time(uint64_t ns, char to[REPORT_TIME_BYTES])
{
    uint64_t s = ns / NS_PER_SEC;
    const size_t cap = REPORT_TIME_BYTES;
    if (s < 1)
        (void)snprintf(to, cap, "%" PRIu64 " ms", ns / NS_PER_MS);
    else if (s < 60)
        (void)snprintf(to, cap, "%" PRIu64 ".%02" PRIu64 " s", s, ns / (10 * NS_PER_MS) % 100);
    else if (s < 3600)
        (void)snprintf(to, cap, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(to, cap, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    else
        (void)snprintf(to, cap, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
    return to;
}

const char *report_bytes(uint64_t bytes, char to[REPORT_TIME_BYTES])
{
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    uint64_t unit = 1000;
    unsigned i = 0;
    if (bytes < 1000) {
        (void)snprintf(to, REPORT_TIME_BYTES, "%" PRIu64 " B", bytes);
        return to;
    }
    for (; i + 1 < ARRAY_COUNT(units) && bytes / unit >= 1000; i++)
        unit *= 1000;
    (void)snprintf(to, REPORT_TIME_BYTES, "%" PRIu64 ".%" PRIu64 " %s", bytes / unit,
                   bytes % unit * 10 / unit, units[i]);
    return to;
}

void report_event(const struct run *r, const struct run_event *e, char *to, size_t cap)
{
    const char *a = r->config.sites[e->event.a].name, *b = r->config.sites[e->event.b].name;
    const char *arrow = e->both ? "<->" : "->";
    char time[REPORT_TIME_BYTES];
    switch (e->event.kind) {
    case WORLD_CUT:
        (void)snprintf(to, cap, "%s %s %s is cut", a, arrow, b);
        return;
    case WORLD_HEAL:
        (void)snprintf(to, cap, "%s %s %s is there again", a, arrow, b);
        return;
    case WORLD_RESET:
        (void)snprintf(to, cap, "connections between %s and %s break", a, b);
        return;
    case WORLD_SLOW:
        (void)snprintf(to, cap,
                       e->event.value > 1 ? "%s %s %s takes %" PRId64 " times as long"
                                          : "%s %s %s is as quick as it was",
                       a, arrow, b, e->event.value);
        return;
    case WORLD_CLOCK:
        (void)snprintf(
            to, cap, "the clock of %s jumps %s by %s", a, e->event.value < 0 ? "back" : "ahead",
            report_time((uint64_t)(e->event.value < 0 ? -e->event.value : e->event.value), time));
        return;
    case WORLD_ISOLATE:
    case WORLD_REJOIN:
    case WORLD_CRASH:
    case WORLD_RESTART:
    case WORLD_LOSE:
    case WORLD_REMOVE:
    case WORLD_JOIN:
    case WORLD_DISK_FULL:
    case WORLD_DISK_FREE:
    case WORLD_DISK_FAIL:
    case WORLD_DISK_WELL:
    case WORLD_ROT:
    case WORLD_SPLIT:
    case WORLD_AWAY:
    case WORLD_STEP:
        (void)snprintf(to, cap, "%s: %s", a, e->text);
        return;
    case WORLD_EVENT_KIND_END:
        break;
    }
    UNREACHABLE();
}

/* --- parts --- */

static void head(const struct run *r, FILE *to)
{
    char t[REPORT_TIME_BYTES];
    fprintf(to, "%s\n", r->scenario->title[0] != '\0' ? r->scenario->title : "Scenario");
    if (r->scenario->about[0] != '\0')
        fprintf(to, "%s\n", r->scenario->about);
    fprintf(to, "seed %" PRIu64 ", %s of virtual time", r->seed,
            report_time(r->config.work_until_ns, t));
    if (r->shorter > 1)
        fprintf(to, " (%" PRIu64 " times shorter than described)", r->shorter);
    fprintf(to, ", trace %016" PRIx64 "\n\n", r->hash);
}

static void outcome(const struct run *r, FILE *to)
{
    char t[REPORT_TIME_BYTES];
    const struct run_heal *h = run_last_heal(r);
    if (r->failure[0] != '\0')
        fprintf(to, "A PROMISE WAS BROKEN: %s\n", r->failure);
    if (h != NULL) {
        fprintf(to, "After the last heal, at %s,", report_time(h->at_ns, t));
        fprintf(to, " every site had everything within %s.\n", report_time(h->took_ns, t));
    }
    if (r->settled)
        fprintf(to, "All sites show the same tree %s after the work ended.\n",
                report_time(r->settle_ns, t));
    if (!r->looked.answers)
        fprintf(to, "Not looked at, for there are too many: answers in shared directories.\n");
    if (!r->looked.order)
        fprintf(to, "Not looked at: the order of operations at sites whose journal was trimmed "
                    "before it was read.\n");
    fprintf(to, "\n");
}

static void sites(const struct run *r, FILE *to)
{
    char mean[REPORT_TIME_BYTES];
    fprintf(to, "%-16s %-8s %10s %10s %8s %10s %10s %8s\n", "Site", "work", "calls", "changes",
            "errors", "mean", "longest", "crashes");
    for (unsigned i = 0; i < r->sites; i++) {
        const struct world_site_stats *s = &r->site_stats[i];
        uint64_t us = s->calls > 0 ? s->latency_ns_sum / s->calls / 1000 : 0;
        (void)snprintf(mean, sizeof mean, "%" PRIu64 ".%03" PRIu64 " ms", us / 1000, us % 1000);
        fprintf(to,
                "%-16s %-8s %10" PRIu64 " %10" PRIu64 " %8" PRIu64 " %10s %7" PRIu64 " ms %8" PRIu64
                "%s\n",
                r->config.sites[i].name, scenario_work_name(r->config.sites[i].work.kind), s->calls,
                s->changes, s->calls_failed, mean, s->latency_ns_max / NS_PER_MS, s->crashes,
                s->lost ? " (lost)" : "");
    }
    fprintf(to, "\n");
}

static void links(const struct run *r, FILE *to)
{
    char bytes[REPORT_TIME_BYTES], lag[REPORT_TIME_BYTES], name[80];
    fprintf(to, "%-32s %12s %10s %8s %8s %10s %14s\n", "Direction", "bytes", "messages", "stalls",
            "resets", "queue full", "largest lag");
    for (unsigned a = 0; a < r->sites; a++)
        for (unsigned b = 0; b < r->sites; b++) {
            const struct world_traffic *t = &r->traffic[a][b];
            uint64_t most = 0;
            if (a == b)
                continue;
            for (size_t i = 0; i < r->point_count; i++)
                most = MAX(most, run_point(r, i, a, b)->lag.lag_ns);
            (void)snprintf(name, sizeof name, "%s -> %s", r->config.sites[a].name,
                           r->config.sites[b].name);
            fprintf(to, "%-32s %12s %10" PRIu64 " %8" PRIu64 " %8" PRIu64 " %10" PRIu64 " %14s\n",
                    name, report_bytes(t->bytes, bytes), t->writes, t->stalls, t->resets, t->waits,
                    report_time(most, lag));
        }
    fprintf(to, "\n");
}

/* --- lag over time --- */

/* Eight heights on a logarithmic scale: a lag of `most` is the highest, below 10 ms is the lowest.
 */
static unsigned height(uint64_t lag, uint64_t most)
{
    unsigned steps = 0, all = 0;
    for (uint64_t v = 10 * NS_PER_MS; v < most; v = v * 3 / 2)
        all++;
    for (uint64_t v = 10 * NS_PER_MS; v < lag; v = v * 3 / 2)
        steps++;
    return all == 0 ? 0 : MIN(steps * 7 / all, 7u);
}

static void curve(const struct run *r, unsigned a, unsigned b, uint64_t most, FILE *to)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    uint64_t end = r->at_ns[r->point_count - 1];
    size_t i = 0;
    for (unsigned c = 0; c < CURVE_COLUMNS; c++) {
        uint64_t until = end / CURVE_COLUMNS * (c + 1), lag = 0;
        bool known = false;
        if (c + 1 == CURVE_COLUMNS)
            until = end;
        for (; i < r->point_count && r->at_ns[i] <= until; i++) {
            const struct world_lag *l = &run_point(r, i, a, b)->lag;
            known |= l->known;
            lag = MAX(lag, l->lag_ns);
        }
        fputs(known ? bars[height(lag, most)] : " ", to);
    }
}

static void lags(const struct run *r, FILE *to)
{
    char t[REPORT_TIME_BYTES], name[80];
    uint64_t most = 0;
    for (size_t i = 0; i < r->point_count; i++)
        for (unsigned a = 0; a < r->sites; a++)
            for (unsigned b = 0; b < r->sites; b++)
                most = MAX(most, run_point(r, i, a, b)->lag.lag_ns);
    fprintf(to, "Lag over time (from 10 ms at the bottom to %s, logarithmic)\n",
            report_time(most, t));
    for (unsigned a = 0; a < r->sites; a++)
        for (unsigned b = 0; b < r->sites; b++) {
            if (a == b)
                continue;
            (void)snprintf(name, sizeof name, "%s -> %s", r->config.sites[a].name,
                           r->config.sites[b].name);
            fprintf(to, "%-24s |", name);
            curve(r, a, b, most, to);
            fprintf(to, "|\n");
        }
    fprintf(to, "%-24s 0%*s\n\n", "", (int)CURVE_COLUMNS,
            report_time(r->at_ns[r->point_count - 1], t));
}

/* --- what happened --- */

static void events(const struct run *r, FILE *to)
{
    char t[REPORT_TIME_BYTES], text[160];
    size_t shown = MIN(r->event_count, EVENTS_MAX);
    fprintf(to, "Events\n");
    for (size_t i = 0; i < shown; i++) {
        report_event(r, &r->events[i], text, sizeof text);
        fprintf(to, "%14s  %s\n", report_time(r->events[i].at_ns, t), text);
    }
    if (shown < r->event_count)
        fprintf(to, "%14s  and %zu more\n", "", r->event_count - shown);
    fprintf(to, "%s\n", shown == 0 ? "  none\n" : "");
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text != NULL ? text : "-";
}

static void conflict(const json_t *c, size_t times, FILE *to)
{
    char t[REPORT_TIME_BYTES];
    const json_t *side;
    size_t i;
    uint64_t ms = (uint64_t)json_integer_value(json_object_get(c, "noticed_at_ms"));
    fprintf(to, "  %s: %s", text_of(c, "path"), text_of(c, "what"));
    if (times > 1)
        fprintf(to, ", %zu times", times);
    fprintf(to, " (noticed at %s, %s)\n", text_of(c, "noticed_by"), report_time(ms * NS_PER_MS, t));
    json_array_foreach (json_object_get(c, "sides"), i, side) {
        bool removal = strcmp(text_of(side, "kind"), "removal") == 0;
        bool there = json_is_string(json_object_get(side, "path"));
        fprintf(to, "      %-14s %-12s %s%s\n", i == 0 ? "keeps the name" : "gives way",
                text_of(side, "site"),
                removal ? "removed it"
                : there ? "is now "
                        : "has no name any more",
                there ? text_of(side, "path") : "");
    }
}

static bool is_alike(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"path", "what", "noticed_by", "noticed_at_ms"};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        if (!json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i])))
            return false;
    return true;
}

static void conflicts(const json_t *report, FILE *to)
{
    const json_t *all = json_object_get(report, "conflicts"), *one;
    const json_t *list = json_object_get(all, "list");
    size_t i, told = 0, at = 0, count = json_array_size(list);
    fprintf(to, "Conflicts: %lld\n", (long long)json_integer_value(json_object_get(all, "count")));
    json_array_foreach (json_object_get(all, "rules"), i, one)
        fprintf(to, "%8lld  %s\n", (long long)json_integer_value(json_object_get(one, "count")),
                text_of(one, "what"));
    for (; at < count && told < CONFLICTS_MAX; told++) {
        size_t times = 1;
        one = json_array_get(list, at);
        while (at + times < count && is_alike(one, json_array_get(list, at + times)))
            times++; /* several writes that one removal did not know of */
        conflict(one, times, to);
        at += times;
    }
    if (at < count)
        fprintf(to, "  and %zu more: --html or --json\n", count - at);
}

void report_text(const struct run *r, const json_t *report, FILE *to)
{
    head(r, to);
    outcome(r, to);
    sites(r, to);
    links(r, to);
    if (r->point_count > 0)
        lags(r, to);
    events(r, to);
    conflicts(report, to);
}
