/* The report as JSON: docs/json.md says what each member is. All times are whole milliseconds of
 * the world, so that the same run gives the same bytes. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/report.h"

#define CONFLICTS_LISTED_MAX 2000u /* evenly out of all */
#define RULES 10u

static json_t *ms(uint64_t ns)
{
    return json_integer((json_int_t)(ns / NS_PER_MS));
}

static json_t *integer(uint64_t v)
{
    return json_integer((json_int_t)v);
}

static void put(json_t *o, const char *key, json_t *value)
{
    int rc = json_object_set_new(o, key, value);
    ASSERT(rc == 0); /* keys are ours, values were checked to be text when they came in */
}

static json_t *hex(uint64_t v)
{
    char text[17];
    (void)snprintf(text, sizeof text, "%016" PRIx64, v);
    return json_string(text);
}

static const char *site_name(const struct run *r, unsigned i)
{
    return r->config.sites[i].name;
}

/* --- what was described, and what it came to --- */

static json_t *sites_json(const struct run *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->sites; i++) {
        const struct world_site *c = &r->config.sites[i];
        const struct world_site_stats *s = &r->site_stats[i];
        json_t *o = json_object();
        put(o, "name", json_string(c->name));
        put(o, "work", json_string(scenario_work_name(c->work.kind)));
        put(o, "clock_offset_ms", json_integer(c->clock.offset_ns / (int64_t)NS_PER_MS));
        put(o, "clock_drift_ppm", json_integer(c->clock.drift_ppm));
        put(o, "lost", json_boolean(s->lost));
        put(o, "calls", integer(s->calls));
        put(o, "calls_failed", integer(s->calls_failed));
        put(o, "changes", integer(s->changes));
        put(o, "answer_mean_us", integer(s->calls > 0 ? s->latency_ns_sum / s->calls / 1000 : 0));
        put(o, "answer_max_us", integer(s->latency_ns_max / 1000));
        put(o, "conflicts", integer(s->conflicts));
        put(o, "crashes", integer(s->crashes));
        put(o, "disk_bytes", integer(s->disk_bytes));
        put(o, "tree", r->tree[i] != 0 ? hex(r->tree[i]) : json_null());
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *links_json(const struct run *r)
{
    json_t *list = json_array();
    for (unsigned a = 0; a < r->sites; a++)
        for (unsigned b = 0; b < r->sites; b++) {
            const struct world_link *l = &r->config.links[a][b];
            const struct world_traffic *t = &r->traffic[a][b];
            uint64_t most = 0;
            if (a == b)
                continue;
            for (size_t i = 0; i < r->point_count; i++)
                most = MAX(most, run_point(r, i, a, b)->lag.lag_ns);
            json_t *o = json_object();
            put(o, "from", json_string(site_name(r, a)));
            put(o, "to", json_string(site_name(r, b)));
            put(o, "latency_us", integer(l->delay.base_ns / 1000));
            put(o, "jitter_us", integer(l->delay.jitter_ns / 1000));
            put(o, "direct", json_boolean(!l->absent));
            put(o, "bits_per_s", integer(l->bytes_per_s * 8));
            put(o, "bytes", integer(t->bytes));
            put(o, "messages", integer(t->writes));
            put(o, "stalls", integer(t->stalls));
            put(o, "resets", integer(t->resets));
            put(o, "queue_full", integer(t->waits));
            put(o, "queue_max_bytes", integer(t->queued_max));
            put(o, "lag_max_ms", ms(most));
            (void)json_array_append_new(list, o);
        }
    return list;
}

static json_t *events_json(const struct run *r)
{
    json_t *list = json_array();
    char text[160];
    for (size_t i = 0; i < r->event_count; i++) {
        report_event(r, &r->events[i], text, sizeof text);
        json_t *o = json_object();
        put(o, "at_ms", ms(r->events[i].at_ns));
        put(o, "site", json_string(site_name(r, r->events[i].event.a)));
        put(o, "what", json_string(text));
        (void)json_array_append_new(list, o);
    }
    return list;
}

/* Spans of one kind: directions that were cut, or sites that were down. */
static json_t *spans_json(const struct run *r, bool cuts)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->span_count; i++) {
        const struct run_span *s = &r->spans[i];
        if ((s->a != s->b) != cuts)
            continue;
        json_t *o = json_object();
        put(o, "begin_ms", ms(s->from_ns));
        put(o, "end_ms", ms(s->to_ns));
        put(o, cuts ? "from" : "site", json_string(site_name(r, s->a)));
        if (cuts)
            put(o, "to", json_string(site_name(r, s->b)));
        else
            put(o, "for_ever", json_boolean(s->lost));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *heals_json(const struct run *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->heal_count; i++) {
        json_t *o = json_object();
        put(o, "at_ms", ms(r->heals[i].at_ns));
        put(o, "caught_up_after_ms", r->heals[i].reached ? ms(r->heals[i].took_ns) : json_null());
        (void)json_array_append_new(list, o);
    }
    return list;
}

/* --- over time --- */

static json_t *series_of_link(const struct run *r, unsigned a, unsigned b)
{
    json_t *lag = json_array(), *operations = json_array(), *bytes = json_array();
    for (size_t i = 0; i < r->point_count; i++) {
        const struct run_point *p = run_point(r, i, a, b);
        (void)json_array_append_new(lag, p->lag.known ? ms(p->lag.lag_ns) : json_null());
        (void)json_array_append_new(operations,
                                    p->lag.known ? integer(p->lag.ops_to_go) : json_null());
        (void)json_array_append_new(bytes, integer(p->bytes));
    }
    json_t *o = json_object();
    put(o, "from", json_string(site_name(r, a)));
    put(o, "to", json_string(site_name(r, b)));
    put(o, "lag_ms", lag);
    put(o, "operations_to_go", operations);
    put(o, "bytes", bytes);
    return o;
}

static json_t *series_of_site(const struct run *r, unsigned a)
{
    json_t *up = json_array(), *changes = json_array(), *conflicts = json_array();
    for (size_t i = 0; i < r->point_count; i++) {
        const struct run_site_point *p = &r->site_points[i * r->sites + a];
        (void)json_array_append_new(up, json_boolean(p->up));
        (void)json_array_append_new(changes, integer(p->changes));
        (void)json_array_append_new(conflicts, integer(p->conflicts));
    }
    json_t *o = json_object();
    put(o, "name", json_string(site_name(r, a)));
    put(o, "up", up);
    put(o, "changes", changes);
    put(o, "conflicts", conflicts);
    return o;
}

static json_t *series_json(const struct run *r)
{
    json_t *at = json_array(), *sites = json_array(), *links = json_array();
    for (size_t i = 0; i < r->point_count; i++)
        (void)json_array_append_new(at, ms(r->at_ns[i]));
    for (unsigned a = 0; a < r->sites; a++) {
        (void)json_array_append_new(sites, series_of_site(r, a));
        for (unsigned b = 0; b < r->sites; b++)
            if (a != b)
                (void)json_array_append_new(links, series_of_link(r, a, b));
    }
    json_t *o = json_object();
    put(o, "at_ms", at);
    put(o, "sites", sites);
    put(o, "links", links);
    return o;
}

/* --- conflicts --- */

struct told { /* a conflict as a site tells it in the end */
    uint64_t id;
    json_t *json;
};
struct tellings {
    struct told *at; /* by id */
    size_t count;
};

static int told_cmp(const void *a, const void *b)
{
    const struct told *x = a, *y = b;
    return x->id == y->id ? 0 : x->id < y->id ? -1 : 1;
}

static void tellings_init(struct tellings *t, const struct run *r)
{
    memset(t, 0, sizeof *t);
    for (unsigned a = 0; a < r->sites; a++) {
        const char *text = r->conflicts_json[a];
        json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL, *one;
        const json_t *list = json_object_get(root, "conflicts");
        size_t i;
        t->at = mem_realloc(t->at, (t->count + json_array_size(list) + 1) * sizeof t->at[0]);
        json_array_foreach (list, i, one) {
            const char *id = json_string_value(json_object_get(one, "id"));
            t->at[t->count++] = (struct told){.id = id != NULL ? strtoull(id, NULL, 16) : 0,
                                              .json = json_incref(one)};
        }
        json_decref(root);
    }
    qsort(t->at, t->count, sizeof t->at[0], told_cmp);
}

static void tellings_deinit(struct tellings *t)
{
    for (size_t i = 0; i < t->count; i++)
        json_decref(t->at[i].json);
    mem_free(t->at);
}

/* NULL: nobody tells of it any more. */
static const json_t *telling_of(const struct tellings *t, uint64_t id)
{
    const struct told key = {.id = id};
    const struct told *found =
        t->count > 0 ? bsearch(&key, t->at, t->count, sizeof key, told_cmp) : NULL;
    return found != NULL ? found->json : NULL;
}

static json_t *copy(const json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    return v != NULL ? json_incref(v) : json_null();
}

static json_t *sides_json(const json_t *told, const struct world_conflict_seen *c)
{
    const uint64_t at[2] = {c->winner_at_ns, c->loser_at_ns};
    const int who[2] = {c->winner, c->loser};
    json_t *list = json_array(), *side;
    size_t i;
    json_array_foreach (json_object_get(told, "sides"), i, side) {
        json_t *o = json_object();
        put(o, "role", copy(side, "role"));
        put(o, "site", copy(side, "site"));
        put(o, "at_ms", i < 2 && who[i] >= 0 && at[i] != 0 ? ms(at[i]) : json_null());
        put(o, "kind", copy(side, "kind"));
        put(o, "path", copy(side, "path"));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *
conflict_json(const struct run *r, const struct world_conflict_seen *c, const json_t *told)
{
    json_t *o = json_object();
    put(o, "id", hex(c->id));
    put(o, "rule", integer(c->rule));
    put(o, "what", copy(told, "what"));
    put(o, "path", copy(told, "path"));
    put(o, "noticed_at_ms", ms(c->at_ns));
    put(o, "noticed_by", json_string(site_name(r, c->site)));
    put(o, "settled", copy(told, "resolved"));
    put(o, "sides", sides_json(told, c));
    return o;
}

static json_t *rules_json(const uint64_t counts[RULES], const json_t *names)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < RULES; i++) {
        char key[8];
        if (counts[i] == 0)
            continue;
        (void)snprintf(key, sizeof key, "%u", i);
        json_t *o = json_object();
        put(o, "rule", integer(i));
        put(o, "what", copy(names, key));
        put(o, "count", integer(counts[i]));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *conflicts_json(const struct run *r)
{
    uint64_t counts[RULES] = {0};
    json_t *o = json_object(), *list = json_array(), *names = json_object();
    struct tellings tellings;
    tellings_init(&tellings, r);
    size_t each = r->conflict_count / CONFLICTS_LISTED_MAX + 1;
    for (size_t i = 0; i < r->conflict_count; i++) {
        const struct world_conflict_seen *c = &r->conflicts[i];
        const json_t *told = telling_of(&tellings, c->id);
        char rule[8];
        counts[c->rule % RULES]++;
        (void)snprintf(rule, sizeof rule, "%u", c->rule % RULES);
        if (told != NULL && json_object_get(names, rule) == NULL)
            put(names, rule, copy(told, "what"));
        if (i % each == 0)
            (void)json_array_append_new(list, conflict_json(r, c, told));
    }
    put(o, "count", integer(r->conflict_count));
    put(o, "rules", rules_json(counts, names));
    put(o, "list", list);
    tellings_deinit(&tellings);
    json_decref(names);
    return o;
}

json_t *report_json(const struct run *r)
{
    json_t *o = json_object();
    put(o, "title", json_string(r->scenario->title));
    put(o, "about", json_string(r->scenario->about));
    put(o, "seed", integer(r->seed));
    put(o, "shorter", integer(r->shorter));
    put(o, "trace", hex(r->hash));
    put(o, "failure", r->failure[0] != '\0' ? json_string(r->failure) : json_null());
    put(o, "answers_looked_at", json_boolean(r->looked.answers));
    put(o, "order_looked_at", json_boolean(r->looked.order));
    put(o, "ended_ms", ms(r->ended_ns));
    put(o, "equal_after_ms", r->settled ? ms(r->settle_ns) : json_null());
    put(o, "sites", sites_json(r));
    put(o, "links", links_json(r));
    put(o, "events", events_json(r));
    put(o, "cuts", spans_json(r, true));
    put(o, "downs", spans_json(r, false));
    put(o, "heals", heals_json(r));
    put(o, "series", series_json(r));
    put(o, "conflicts", conflicts_json(r));
    return o;
}
