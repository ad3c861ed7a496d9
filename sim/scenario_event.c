/* The [events] of a scenario: lines such as `5m..10m = cut berlin tokyo`, and what they are to the
 * world. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/disk.h"
#include "sim/scenario_int.h"

#define FACTOR_MAX 1000u
#define CLOCK_MAX ((int64_t)(400 * 86400 * NS_PER_SEC))

enum shape {
    SHAPE_SITE,
    SHAPE_LINK,
    SHAPE_LINK_FACTOR,
    SHAPE_SITE_TIME,
    SHAPE_SITE_PART,  /* of its disk: journal, state or chunks */
    SHAPE_SITE_CALLS, /* of its disk, or nothing for all of them */
    SHAPE_FLAP
};
static const struct verb {
    const char *name;
    enum shape shape;
    enum world_event_kind begin, end; /* end WORLD_EVENT_KIND_END: it happens at one moment */
    int64_t value;
} verbs[] = {
    {"cut", SHAPE_LINK, WORLD_CUT, WORLD_HEAL, 0},
    {"heal", SHAPE_LINK, WORLD_HEAL, WORLD_EVENT_KIND_END, 0},
    {"flap", SHAPE_FLAP, WORLD_CUT, WORLD_HEAL, 0},
    {"reset", SHAPE_LINK, WORLD_RESET, WORLD_EVENT_KIND_END, 0},
    {"slow", SHAPE_LINK_FACTOR, WORLD_SLOW, WORLD_SLOW, 0},
    {"isolate", SHAPE_SITE, WORLD_ISOLATE, WORLD_REJOIN, 0},
    {"rejoin", SHAPE_SITE, WORLD_REJOIN, WORLD_EVENT_KIND_END, 0},
    {"crash", SHAPE_SITE, WORLD_CRASH, WORLD_RESTART, 0},
    {"kill", SHAPE_SITE, WORLD_CRASH, WORLD_RESTART, 1},
    {"restart", SHAPE_SITE, WORLD_RESTART, WORLD_EVENT_KIND_END, 0},
    {"lose", SHAPE_SITE, WORLD_LOSE, WORLD_EVENT_KIND_END, 0},
    {"clock", SHAPE_SITE_TIME, WORLD_CLOCK, WORLD_EVENT_KIND_END, 0},
    {"disk_full", SHAPE_SITE, WORLD_DISK_FULL, WORLD_DISK_FREE, 0},
    {"disk_fails", SHAPE_SITE_CALLS, WORLD_DISK_FAIL, WORLD_DISK_WELL, 0},
    {"rot", SHAPE_SITE_PART, WORLD_ROT, WORLD_EVENT_KIND_END, 0},
};
static const struct named {
    const char *name;
    int64_t value;
} parts[] = {
    {"journal", WORLD_ROT_JOURNAL}, {"state", WORLD_ROT_STATE}, {"chunks", WORLD_ROT_CHUNKS}};
static const struct named calls[] = {
    {"writes", DISK_WRITE}, {"syncs", DISK_SYNC}, {"reads", DISK_READ}, {"creates", DISK_MAKE}};

/* --- reading --- */

/* `5m` or `5m..10m` */
static int when_parse(struct scan *sc, const struct word *w, struct scenario_fault *f)
{
    size_t dots = 0;
    while (dots + 1 < w->text.len && memcmp(w->text.ptr + dots, "..", 2) != 0)
        dots++;
    bool range = dots + 1 < w->text.len;
    struct word from = {slice_of(w->text.ptr, range ? dots : w->text.len), w->column};
    int rc = scan_value(sc, &from, UNIT_TIME, SCENARIO_TIME_MAX, &f->from_ns);
    if (rc != 0 || !range)
        return rc;
    struct word to = {slice_of(w->text.ptr + dots + 2, w->text.len - dots - 2),
                      w->column + (unsigned)dots + 2};
    rc = scan_value(sc, &to, UNIT_TIME, SCENARIO_TIME_MAX, &f->to_ns);
    if (rc == 0 && f->to_ns <= f->from_ns)
        return scan_fail(sc, &to, "a time after the one before \"..\"");
    return rc;
}

static int verb_find(struct scan *sc, const struct word *w, const struct verb **ret)
{
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++)
        if (word_is(w, verbs[i].name)) {
            *ret = &verbs[i];
            return 0;
        }
    return scan_fail(sc, w,
                     "cut, heal, flap, reset, slow, isolate, rejoin, crash, kill, restart, lose, "
                     "clock, disk_full, disk_fails or rot");
}

/* `down 3s up 20s` */
static int flap_parse(struct scan *sc, const struct word *words, struct scenario_fault *f)
{
    static const char *const names[2] = {"down", "up"};
    uint64_t *const to[2] = {&f->down_ns, &f->up_ns};
    for (unsigned i = 0; i < 2; i++) {
        const struct word *w = &words[2 * i];
        if (!word_is(w, names[i]))
            return scan_fail(sc, w, "\"%s\" and how long it is that, about", names[i]);
        int rc = scan_value(sc, w + 1, UNIT_TIME, SCENARIO_TIME_MAX, to[i]);
        if (rc == 0 && *to[i] < NS_PER_MS)
            rc = scan_fail(sc, w + 1, "a time of at least 1ms");
        if (rc != 0)
            return rc;
    }
    f->flaps = true;
    return 4;
}

static int named_find(struct scan *sc,
                      const struct word *w,
                      const struct named *names,
                      size_t count,
                      const char *expected,
                      int64_t *ret)
{
    for (size_t i = 0; i < count; i++)
        if (word_is(w, names[i].name)) {
            *ret = names[i].value;
            return 0;
        }
    return scan_fail(sc, w, "%s", expected);
}

/* `disk_fails a`, or only some: `disk_fails a syncs` */
static int calls_parse(struct scan *sc, const struct word *w, struct scenario_fault *f)
{
    int64_t which = DISK_CALLS;
    bool some = w->text.len > 0;
    int rc = some ? named_find(sc, w, calls, ARRAY_COUNT(calls),
                               "writes, syncs, reads or creates, or the end of the line", &which)
                  : 0;
    f->value = world_disk_fail((unsigned)which, UINT32_MAX);
    return rc == 0 ? some : rc;
}

/* How many words it took, or an error. */
static int rest_parse(struct scan *sc,
                      const struct verb *v,
                      const struct word *words,
                      struct scenario_fault *f)
{
    uint64_t factor;
    bool link = v->shape == SHAPE_LINK || v->shape == SHAPE_LINK_FACTOR || v->shape == SHAPE_FLAP;
    int rc = link ? scan_pair(sc, words, &f->a, &f->b, &f->both) : scan_site(sc, words, &f->a);
    if (rc < 0)
        return rc;
    int used = link ? rc : 1;
    const struct word *next = words + used;
    switch (v->shape) {
    case SHAPE_SITE:
    case SHAPE_LINK:
        return used;
    case SHAPE_LINK_FACTOR:
        rc = scan_value(sc, next, UNIT_FACTOR, FACTOR_MAX, &factor);
        f->value = rc == 0 ? (int64_t)factor : 0;
        return rc == 0 ? used + 1 : rc;
    case SHAPE_SITE_TIME:
        rc = scan_signed(sc, next, UNIT_TIME, CLOCK_MAX, &f->value);
        return rc == 0 ? used + 1 : rc;
    case SHAPE_SITE_PART:
        rc = named_find(sc, next, parts, ARRAY_COUNT(parts), "journal, state or chunks", &f->value);
        return rc == 0 ? used + 1 : rc;
    case SHAPE_SITE_CALLS:
        rc = calls_parse(sc, next, f);
        return rc < 0 ? rc : used + rc;
    case SHAPE_FLAP:
        rc = flap_parse(sc, next, f);
        return rc < 0 ? rc : used + rc;
    }
    UNREACHABLE();
}

int scan_event(struct scan *sc, const struct word *when, const struct word *words)
{
    struct scenario *s = sc->s;
    struct scenario_fault f = {.line = sc->line, .column = when->column};
    const struct verb *v = NULL;
    int rc = when_parse(sc, when, &f);
    if (rc == 0)
        rc = verb_find(sc, &words[0], &v);
    if (rc != 0)
        return rc;
    if (f.to_ns != 0 && v->end == WORLD_EVENT_KIND_END)
        return scan_fail(sc, when, "one time: %s has no end", v->name);
    if (f.to_ns == 0 && v->shape == SHAPE_FLAP)
        return scan_fail(sc, when, "two times: from when to when it flaps, as in 5m..10m");
    f.begin = v->begin;
    f.end = v->end;
    f.value = v->value;
    rc = rest_parse(sc, v, words + 1, &f);
    if (rc < 0)
        return rc;
    if (words[1 + rc].text.len > 0)
        return scan_fail(sc, &words[1 + rc], "the end of the line");
    if (s->fault_count == SCENARIO_FAULTS_MAX)
        return scan_fail(sc, when, "at most %u events", SCENARIO_FAULTS_MAX);
    s->faults[s->fault_count++] = f;
    return 0;
}

/* --- what they are to the world --- */

static void put(struct world_config *c,
                uint64_t at_ns,
                enum world_event_kind kind,
                const struct scenario_fault *f,
                int64_t value)
{
    for (unsigned i = 0; i < (f->both ? 2u : 1u) && c->event_count <= WORLD_EVENTS_MAX; i++) {
        if (c->event_count < WORLD_EVENTS_MAX)
            c->events[c->event_count] = (struct world_event){.at_ns = at_ns,
                                                             .kind = kind,
                                                             .a = i == 0 ? f->a : f->b,
                                                             .b = i == 0 ? f->b : f->a,
                                                             .value = value};
        c->event_count++; /* one too many is noticed */
    }
}

static uint64_t about(struct rng *rng, uint64_t ns)
{
    return ns / 2 + rng_below(rng, ns + 1);
}

static void
fault_put(struct world_config *c, const struct scenario_fault *f, uint64_t shorter, struct rng *rng)
{
    uint64_t at = f->from_ns / shorter, to = f->to_ns / shorter;
    if (!f->flaps) {
        put(c, at, f->begin, f, f->value);
        if (f->to_ns != 0)
            put(c, to, f->end, f, f->end == WORLD_SLOW ? 1 : 0);
        return;
    }
    while (at < to && c->event_count <= WORLD_EVENTS_MAX) {
        put(c, at, f->begin, f, 0);
        at += about(rng, f->down_ns);
        put(c, MIN(at, to), f->end, f, 0);
        at += about(rng, f->up_ns);
    }
}

/* Equal times: in the order of the file, which qsort does not keep. There are few. */
static void events_sort(struct world_config *c)
{
    for (uint32_t i = 1; i < c->event_count; i++) {
        struct world_event e = c->events[i];
        uint32_t at = i;
        for (; at > 0 && c->events[at - 1].at_ns > e.at_ns; at--)
            c->events[at] = c->events[at - 1];
        c->events[at] = e;
    }
}

int scenario_world(const struct scenario *s,
                   uint64_t seed,
                   uint64_t shorter,
                   struct world_config *ret,
                   struct scenario_error *e)
{
    struct rng rng;
    ASSERT(shorter >= 1);
    *ret = s->world;
    ret->seed = seed;
    ret->work_until_ns = s->duration_ns / shorter;
    rng_seed(&rng, seed ^ 0x5ce7a110u);
    for (unsigned i = 0; i < ret->site_count; i++) {
        struct world_work *w = &ret->sites[i].work;
        if (s->rate_per_day[i] > 0)
            w->think_ns = MAX(w->clients, 1u) * (86400 * NS_PER_SEC / s->rate_per_day[i]);
        if (w->operations > 0)
            w->operations = MAX(w->operations / shorter, 1u);
    }
    for (unsigned i = 0; i < s->fault_count; i++) {
        fault_put(ret, &s->faults[i], shorter, &rng);
        if (ret->event_count > WORLD_EVENTS_MAX) {
            *e = (struct scenario_error){.line = s->faults[i].line, .column = s->faults[i].column};
            (void)snprintf(e->text, sizeof e->text,
                           "too many events: expected at most %u, where each turn of a flapping "
                           "link is two or four",
                           WORLD_EVENTS_MAX); /* fits */
            return ERR_CONFIG;
        }
    }
    events_sort(ret);
    return 0;
}
