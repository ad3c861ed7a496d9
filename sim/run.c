/* Running a scenario. The world is run in steps; between them is looked, closely while something is
 * being made good, and now and then when nothing happens. See run.h. */
#include "sim/run.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/world_look.h"

#define POINTS 500u               /* evenly over a scenario; more where much happens */
#define CLOSE_PART 20u            /* looking closely is so much closer */
#define CLOSE_POINTS_MAX 2000u    /* of a run */
#define STEP_NS (100 * NS_PER_MS) /* how well the time to catch up is known */
#define CHECKS 250u /* looks of the checkers at a world that takes longer than a minute */

struct runner {
    struct run *r;
    struct world *w;
    uint64_t even_ns, close_ns; /* between two looks */
    size_t close_points;
    struct world_mark mark;                            /* what there was at the last heal */
    bool waits;                                        /* for all to have it */
    uint64_t cut_ns[WORLD_SITES_MAX][WORLD_SITES_MAX]; /* since when + 1; 0: it is not */
    uint64_t down_ns[WORLD_SITES_MAX];
};

static void *grown(void *at, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return at;
    *cap = *cap * 2 + 64;
    return mem_realloc(at, *cap * size);
}

/* --- what happens --- */

static void span_add(struct run *r, struct run_span s)
{
    r->spans = grown(r->spans, r->span_count, &r->span_cap, sizeof r->spans[0]);
    r->spans[r->span_count++] = s;
}

static void cut_note(struct runner *n, unsigned a, unsigned b, bool cut, uint64_t now)
{
    uint64_t *since = &n->cut_ns[a][b];
    if (cut && *since == 0) {
        *since = now + 1;
    } else if (!cut && *since != 0) {
        span_add(n->r, (struct run_span){.from_ns = *since - 1, .to_ns = now, .a = a, .b = b});
        *since = 0;
    }
}

static void isolation_note(struct runner *n, unsigned a, bool cut, uint64_t now)
{
    for (unsigned k = 0; k < n->r->sites; k++)
        if (k != a) {
            cut_note(n, a, k, cut, now);
            cut_note(n, k, a, cut, now);
        }
}

static void down_note(struct runner *n, unsigned a, bool down, bool lost, uint64_t now)
{
    uint64_t *since = &n->down_ns[a];
    if (down && *since == 0) {
        *since = now + 1;
    } else if (!down && *since != 0) {
        span_add(n->r, (struct run_span){
                           .from_ns = *since - 1, .to_ns = now, .a = a, .b = a, .lost = lost});
        *since = 0;
    }
}

static void heal_note(struct runner *n, uint64_t now)
{
    struct run *r = n->r;
    if (n->waits)
        r->heal_count--; /* one long heal, to whoever flaps */
    r->heals = grown(r->heals, r->heal_count, &r->heal_cap, sizeof r->heals[0]);
    r->heals[r->heal_count++] = (struct run_heal){.at_ns = now};
    n->waits = true;
    world_mark(n->w, &n->mark);
}

static void trouble_note(struct runner *n)
{
    if (n->waits)
        n->r->heal_count--;
    n->waits = false;
}

/* Links are cut and healed one direction after the other; to people that is one event. */
static bool is_way_back(const struct run *r, uint64_t now, const struct world_event *e)
{
    const struct run_event *last = r->event_count > 0 ? &r->events[r->event_count - 1] : NULL;
    return last != NULL && !last->both && last->at_ns == now && last->event.kind == e->kind &&
           last->event.a == e->b && last->event.b == e->a && e->a != e->b;
}

static void event_note(struct run *r, uint64_t now, const struct world_event *e, const char *text)
{
    if (is_way_back(r, now, e)) {
        r->events[r->event_count - 1].both = true;
        return;
    }
    r->events = grown(r->events, r->event_count, &r->event_cap, sizeof r->events[0]);
    r->events[r->event_count++] = (struct run_event){.at_ns = now, .event = *e, .text = text};
}

static void on_event(void *ctx, uint64_t now, const struct world_event *e, const char *text)
{
    struct runner *n = ctx;
    event_note(n->r, now, e, text);
    switch (e->kind) {
    case WORLD_CUT:
        cut_note(n, e->a, e->b, true, now);
        trouble_note(n);
        return;
    case WORLD_ISOLATE:
        isolation_note(n, e->a, true, now);
        trouble_note(n);
        return;
    case WORLD_HEAL:
        cut_note(n, e->a, e->b, false, now);
        heal_note(n, now);
        return;
    case WORLD_REJOIN:
        isolation_note(n, e->a, false, now);
        heal_note(n, now);
        return;
    case WORLD_RESTART:
    case WORLD_DISK_FREE:
    case WORLD_DISK_WELL:
    case WORLD_LOSE: /* what it leaves behind is to be made good among the others */
        heal_note(n, now);
        return;
    case WORLD_CRASH:
    case WORLD_DISK_FULL:
    case WORLD_DISK_FAIL:
        trouble_note(n);
        return;
    case WORLD_RESET:
    case WORLD_SLOW:
    case WORLD_REMOVE:
    case WORLD_JOIN:
    case WORLD_ROT:
    case WORLD_CLOCK:
    case WORLD_SPLIT: /* no scenario has these */
    case WORLD_AWAY:
    case WORLD_STEP:
        return;
    case WORLD_EVENT_KIND_END:
        break;
    }
    UNREACHABLE();
}

static void on_conflict(void *ctx, const struct world_conflict_seen *c)
{
    struct run *r = ((struct runner *)ctx)->r;
    if (!c->first)
        return;
    r->conflicts = grown(r->conflicts, r->conflict_count, &r->conflict_cap, sizeof r->conflicts[0]);
    r->conflicts[r->conflict_count++] = *c;
}

/* --- looking --- */

static void points_reserve(struct run *r)
{
    size_t n = r->sites;
    if (r->point_count < r->point_cap)
        return;
    r->point_cap = r->point_cap * 2 + 256;
    r->at_ns = mem_realloc(r->at_ns, r->point_cap * sizeof r->at_ns[0]);
    r->points = mem_realloc(r->points, r->point_cap * n * n * sizeof r->points[0]);
    r->site_points = mem_realloc(r->site_points, r->point_cap * n * sizeof r->site_points[0]);
}

static void look(struct runner *n)
{
    struct run *r = n->r;
    uint64_t now = world_now_ns(n->w);
    if (r->point_count > 0 && r->at_ns[r->point_count - 1] == now)
        return;
    world_conflicts_look(n->w);
    points_reserve(r);
    r->at_ns[r->point_count] = now;
    for (unsigned a = 0; a < r->sites; a++) {
        struct world_site_stats s;
        world_site_stats(n->w, a, &s);
        down_note(n, a, !s.up, s.lost, now);
        r->site_points[r->point_count * r->sites + a] = (struct run_site_point){
            .up = s.up, .calls = s.calls, .changes = s.changes, .conflicts = s.conflicts};
        for (unsigned b = 0; b < r->sites; b++) {
            struct world_traffic t;
            struct run_point *p = &r->points[(r->point_count * r->sites + a) * r->sites + b];
            world_traffic(n->w, a, b, &t);
            world_lag(n->w, a, b, &p->lag);
            p->bytes = t.bytes;
        }
    }
    r->point_count++;
}

/* Have all what there was when the last fault ended? */
static void heal_look(struct runner *n)
{
    struct run *r = n->r;
    if (!n->waits || !world_has(n->w, &n->mark))
        return;
    struct run_heal *h = &r->heals[r->heal_count - 1];
    h->took_ns = world_now_ns(n->w) - h->at_ns;
    h->reached = true;
    n->waits = false;
}

static int run_until(struct runner *n, uint64_t end_ns, void (*progress)(uint64_t, uint64_t))
{
    uint64_t next = 0;
    int rc = 0;
    for (uint64_t now = 0; rc == 0; now = world_now_ns(n->w)) {
        heal_look(n);
        if (now >= next) {
            look(n);
            bool closely = n->waits && n->close_points < CLOSE_POINTS_MAX;
            n->close_points += closely;
            next = now + (closely ? n->close_ns : n->even_ns);
            if (progress != NULL)
                progress(now, end_ns);
        }
        if (now >= end_ns)
            break;
        uint64_t to = MIN(next, end_ns);
        rc = world_run(n->w, n->waits ? MIN(to, now + STEP_NS) : to);
    }
    look(n);
    return rc;
}

/* --- the whole of it --- */

static void spans_end(struct runner *n)
{
    struct run *r = n->r;
    for (unsigned a = 0; a < r->sites; a++) {
        struct world_site_stats s;
        world_site_stats(n->w, a, &s);
        down_note(n, a, false, s.lost, r->ended_ns);
        for (unsigned b = 0; b < r->sites; b++)
            cut_note(n, a, b, false, r->ended_ns);
    }
}

static void gather(struct runner *n)
{
    struct run *r = n->r;
    look(n);
    r->hash = world_trace_hash(n->w);
    world_looked(n->w, &r->looked);
    for (unsigned a = 0; a < r->sites; a++) {
        world_site_stats(n->w, a, &r->site_stats[a]);
        r->tree[a] = world_tree_hash(n->w, a);
        r->conflicts_json[a] = world_conflicts_json(n->w, a);
        for (unsigned b = 0; b < r->sites; b++)
            world_traffic(n->w, a, b, &r->traffic[a][b]);
    }
}

/* About how many calls there will be; UINT64_MAX: as many as there is time for. */
static uint64_t calls_of(const struct world_config *c)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < c->site_count; i++) {
        const struct world_work *w = &c->sites[i].work;
        uint64_t calls = w->think_ns > 0
                             ? MAX(w->clients, 1u) * (c->work_until_ns / w->think_ns + 1)
                             : UINT64_MAX / WORLD_SITES_MAX;
        if (w->operations > 0)
            calls = MIN(calls, w->operations);
        sum += w->kind == WORLD_WORK_NONE ? 0 : calls;
    }
    return sum;
}

static void config_make(struct runner *n)
{
    struct world_config *c = &n->r->config;
    c->lin = calls_of(c) <= WORLD_LIN_CALLS;
    c->ctx = n;
    c->event = on_event;
    c->conflict = on_conflict;
    c->check_ns = MAX(c->work_until_ns / CHECKS, 250 * NS_PER_MS);
    n->even_ns = MAX(c->work_until_ns / POINTS, STEP_NS);
    n->close_ns = MAX(n->even_ns / CLOSE_PART, STEP_NS);
}

int run_scenario(const struct scenario *s,
                 uint64_t seed,
                 uint64_t shorter,
                 void (*progress)(uint64_t now_ns, uint64_t end_ns),
                 struct run *ret,
                 struct err_detail *d)
{
    struct runner *n = mem_calloc(1, sizeof *n);
    struct scenario_error e;
    *ret = (struct run){.scenario = s, .seed = seed, .shorter = shorter};
    n->r = ret;
    int rc = scenario_world(s, seed, shorter, &ret->config, &e);
    if (rc != 0) {
        err_detail_set(d, "%s%s%u:%u: %s", s->file != NULL ? s->file : "",
                       s->file != NULL ? ":" : "", e.line, e.column, e.text);
        goto out;
    }
    ret->sites = ret->config.site_count;
    config_make(n);
    rc = world_new(&n->w, &ret->config, d);
    if (rc != 0)
        goto out;
    rc = run_until(n, ret->config.work_until_ns, progress);
    ret->ended_ns = world_now_ns(n->w);
    spans_end(n);
    if (rc == 0)
        rc = world_settle(n->w, s->settle_ns, &ret->settle_ns);
    ret->settled = rc == 0;
    if (rc != 0) {
        (void)snprintf(ret->failure, sizeof ret->failure, "%s", world_failure(n->w)); /* as long */
        err_detail_set(d, "%s", ret->failure);
        rc = ERR_FATAL;
    }
    gather(n);
    world_free(n->w);
out:
    mem_free(n);
    return rc;
}

void run_deinit(struct run *r)
{
    mem_free(r->at_ns);
    mem_free(r->points);
    mem_free(r->site_points);
    mem_free(r->events);
    mem_free(r->spans);
    mem_free(r->heals);
    mem_free(r->conflicts);
    for (unsigned a = 0; a < r->sites; a++)
        mem_free(r->conflicts_json[a]);
    memset(r, 0, sizeof *r);
}

const struct run_point *run_point(const struct run *r, size_t moment, unsigned from, unsigned to)
{
    return &r->points[(moment * r->sites + from) * r->sites + to];
}

const struct run_heal *run_last_heal(const struct run *r)
{
    for (size_t i = r->heal_count; i > 0; i--)
        if (r->heals[i - 1].reached)
            return &r->heals[i - 1];
    return NULL;
}
